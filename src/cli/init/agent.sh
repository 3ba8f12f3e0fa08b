# An agent: it reads messages from stdin, a line each, and writes what it answers to stdout.
#
# Its folder and $HOME last as long as its session: what it writes down today is there when the session is resumed.

said=said.txt

while IFS= read -r message; do
    if [ -s "$said" ]; then
        printf 'You said: %s (and before that: %s)\n' "$message" "$(tail -n 1 "$said")"
    else
        printf 'Hello! You said: %s\n' "$message"
    fi
    printf '%s\n' "$message" >>"$said"
done
