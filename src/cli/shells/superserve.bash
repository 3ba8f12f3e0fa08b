# Completions of superserve for bash: source <(superserve completions bash)
#
# The program itself says what may follow. It starts no server, and leaves out what a running one doesn't say at once.

_superserve() {
    # Bash has broken the line at each of COMP_WORDBREAKS too (@ : =): here are its words as they were typed.
    local -a words=()
    local rest="${COMP_LINE:0:COMP_POINT}" word blank i
    for ((i = 0; i <= COMP_CWORD; i++)); do
        blank="${rest%%[![:space:]]*}"
        rest="${rest#"$blank"}"
        if ((i == COMP_CWORD)); then word="$rest"; else word="${COMP_WORDS[i]}"; fi
        rest="${rest#"$word"}"
        if [[ -n $blank || i -eq 0 ]]; then
            words+=("$word")
        else
            words[${#words[@]} - 1]+="$word"
        fi
    done

    local program="${1/#\~\//$HOME/}"
    type -P -- "$program" >/dev/null || program=superserve

    local -a replies=()
    mapfile -t replies < <("$program" __complete bash "$COMP_TYPE" "$2" -- "${words[@]}" 2>/dev/null)
    COMPREPLY=("${replies[@]:1}")
    case " ${replies[0]-} " in *' nospace '*) compopt -o nospace ;; esac
    case " ${replies[0]-} " in
    *' files '*)
        compopt -o filenames
        mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$2")
        ;;
    *' dirs '*)
        compopt -o filenames
        mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -d -- "$2")
        ;;
    esac
}

if ((BASH_VERSINFO[0] > 4 || (BASH_VERSINFO[0] == 4 && BASH_VERSINFO[1] >= 4))); then
    complete -o nosort -F _superserve superserve
else
    complete -F _superserve superserve
fi
