# Leaves processes behind that do not want to die, each marked by what it is told.
trap '' TERM HUP
while IFS= read -r mark; do
    for number in 1 2 3; do
        setsid sh -c 'trap "" TERM HUP INT; while :; do sleep 5; done # '"$mark" >/dev/null 2>&1 </dev/null &
    done
    (sh -c 'trap "" TERM; while :; do sleep 5; done # '"$mark" >/dev/null 2>&1 </dev/null &)
    echo started
done
