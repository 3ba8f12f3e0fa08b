# Greets, then prompts before each line, as programs for people do.
echo 'Welcome.'
printf 'You: '
while IFS= read -r line; do
    printf 'Bot: %s\nYou: ' "$line"
done
