# Keeps notes. Tell it something and it writes it down; ask, and it tells you what it has.
#
# An agent is any program that reads a line and answers. This one keeps its notes in a file in its working folder,
# /workspace, which lasts as long as the session: resume it next week, and the notes are still there.

notes=notes.txt
touch "$notes"

count() { echo $(($(wc -l <"$notes"))); }

show() {
    if [ -s "$notes" ]; then
        echo 'I know:'
        number=0
        while IFS= read -r note; do
            number=$((number + 1))
            printf '%s. %s\n' "$number" "$note"
        done <"$notes"
    else
        echo 'I know nothing yet. Tell me something.'
    fi
}

while IFS= read -r line || [ -n "$line" ]; do
    # Printable and portable whatever the line holds: printf '%s', never echo.
    asked=$(printf '%s' "$line" | tr '[:upper:]' '[:lower:]' | sed 's/^[[:space:]]*//; s/[[:space:].?!]*$//')
    case $asked in
    '') echo 'Tell me something to remember, or ask: what do you know?' ;;
    list | 'what do you know' | 'what did i say' | 'show me my notes') show ;;
    forget\ [0-9] | forget\ [0-9][0-9] | forget\ [0-9][0-9][0-9])
        number=${asked#forget }
        if [ "$number" -ge 1 ] && [ "$number" -le "$(count)" ]; then
            sed "${number}d" "$notes" >"$notes.new" && mv "$notes.new" "$notes"
            printf 'Forgotten. Notes left: %s\n' "$(count)"
        else
            printf 'There is no note %s.\n' "$number"
        fi
        ;;
    *)
        if printf '%s\n' "$line" >>"$notes"; then
            printf 'Noted (%s): %s\n' "$(count)" "$line"
        else
            echo 'I could not write it down: is the disk full?'
        fi
        ;;
    esac
done
