# Completions of superserve for fish: superserve completions fish | source
#
# The program itself says what may follow. It starts no server, and leaves out what a running one doesn't say at once.

function __superserve_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program (string replace -r '^~/' "$HOME/" -- $words[1])
    type -q -- $program; or set program superserve
    set -l replies ($program __complete fish -- $words "$current" 2>/dev/null)
    set -l told (string split ' ' -- $replies[1])
    set -e replies[1]
    for reply in $replies
        echo -- $reply
    end
    if contains files $told; or contains dirs $told
        # A command without completions is completed with paths.
        set -l before (string match -r -- '^--[a-z-]+=' $current)
        set -l path (string replace -r -- '^--[a-z-]+=' '' $current)
        set -l found (complete -C "__superserve_no_command $path")
        contains files $told; or set found (string match -r -- '.*/$' $found)
        for one in $found
            echo -- "$before$one"
        end
    end
end

complete -c superserve -e
complete -c superserve --keep-order --no-files -a '(__superserve_complete)'
