# Says that it has begun, and takes longer than any test waits; SIGINT brings it back to its input.
interrupted=
trap 'interrupted=yes' INT
while :; do
    if ! IFS= read -r line; then
        [ -n "$interrupted" ] || exit 0
        interrupted=
        continue
    fi
    case $line in
    wait)
        echo begun
        sleep 1000 && echo done
        ;;
    *) printf 'quick: %s\n' "$line" ;;
    esac
    interrupted=
done
