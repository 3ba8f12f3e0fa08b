# Speaks frames: JSON objects, one a line.
content() { printf '%s\n' "$1" | sed -n 's/.*"content":"\([^"]*\)".*/\1/p'; }
echo '{"type":"ready","protocol":1,"capabilities":["cancel"]}'
while IFS= read -r frame; do
    case $frame in
    *'"type":"end"'*) exit 0 ;;
    *'"type":"cancel"'*) echo '{"type":"turn_done"}' ;;
    *'"type":"message"'*)
        text=$(content "$frame")
        case $text in
        wait) echo '{"type":"text","content":"begun"}' ;;
        quiet) echo '{"type":"turn_done"}' ;;
        fail)
            echo '{"type":"error","message":"it is broken","fatal":true}'
            echo '{"type":"turn_done"}'
            ;;
        *)
            echo '{"type":"status","content":"thinking"}'
            echo 'this line is no frame'
            echo '{"type":"a type of tomorrow","content":"ignored"}'
            echo '{"type":"tool_start","id":"1","name":"shell","input":"cat notes.txt"}'
            echo '{"type":"tool_end","id":"1","duration_ms":200}'
            printf '{"type":"text","content":"you said: "}\n'
            printf '{"type":"text","content":"%s\\n\\nand more"}\n' "$text"
            echo '{"type":"turn_done"}'
            ;;
        esac
        ;;
    esac
done
