# Answers once, then breaks in the middle of a reply.
while IFS= read -r line; do
    case $line in
    break)
        echo half a reply
        echo 'first line of trouble' >&2
        echo 'last line of trouble' >&2
        exit 3
        ;;
    *) printf 'fine: %s\n' "$line" ;;
    esac
done
