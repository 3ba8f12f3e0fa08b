# Ends its turns by a word on the FIFO, and would be silent for long otherwise.
while IFS= read -r line; do
    printf 'marked: %s\n' "$line"
    echo '{"type":"turn_done"}' >"$SUPERSERVE_TURN"
    sleep 0.05
done
