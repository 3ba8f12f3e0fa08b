#compdef superserve
# Completions of superserve for zsh: source <(superserve completions zsh), or this as _superserve in a folder of $fpath
#
# The program itself says what may follow. It starts no server, and leaves out what a running one doesn't say at once.

_superserve() {
    local program="${(Q)words[1]}"
    program="${program/#\~\//$HOME/}"
    whence -p -- "$program" >/dev/null || program=superserve

    local -a replies space
    replies=("${(@f)$("$program" __complete zsh -- "${(@)words[1,CURRENT-1]}" "$PREFIX" 2>/dev/null)}")
    local told="${replies[1]}"
    shift replies
    [[ " $told " == *' nospace '* ]] && space=(-S '')
    [[ -n "${replies[1]-}" ]] && _describe -V 'superserve' replies "${space[@]}"
    [[ " $told " == *' files '* || " $told " == *' dirs '* ]] && compset -P '--[a-z-]#='
    case " $told " in
    *' files '*) _files ;;
    *' dirs '*) _files -/ ;;
    esac
}

if [[ "${funcstack[1]}" == _superserve ]]; then
    _superserve "$@"
elif (( $+functions[compdef] )); then
    compdef _superserve superserve
else
    autoload -Uz compinit && compinit && compdef _superserve superserve
fi
