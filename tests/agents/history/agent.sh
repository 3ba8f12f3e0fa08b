# Tells what its history holds: how many lines, and the messages of the user in them.
while IFS= read -r line; do
    if [ -n "${SUPERSERVE_RESUMED:-}" ]; then printf 'resumed, '; fi
    printf 'lines: %s\n' "$(($(wc -l <"$SUPERSERVE_HISTORY")))"
    sed -n 's/.*"role":"user".*"content":"\([^"]*\)".*/- \1/p' "$SUPERSERVE_HISTORY"
done
