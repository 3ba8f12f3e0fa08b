# Answers one message and leaves, as a script does that was not made for conversations.
IFS= read -r line
count=$(cat count 2>/dev/null || echo 0)
count=$((count + 1))
echo "$count" >count
printf 'answer %s: %s\n' "$count" "$line"
