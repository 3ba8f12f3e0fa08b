# Keeps what it is told in a file of its name, in /workspace, in $HOME and in /tmp, and tells which are there.
while IFS= read -r line; do
    case $line in
    keep\ *)
        name=${line#keep }
        echo "$name" >"$name"
        echo "$name" >"$HOME/$name"
        echo "$name" >"/tmp/$name"
        echo "kept $name"
        ;;
    *)
        for place in . "$HOME" /tmp; do
            if [ -e "$place/$line" ]; then echo "there: $(cat "$place/$line")"; else echo "not there"; fi
        done
        ;;
    esac
done
