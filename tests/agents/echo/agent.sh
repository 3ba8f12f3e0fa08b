# Says back what it was told.
while IFS= read -r line; do
    printf 'you said: %s\n' "$line"
done
