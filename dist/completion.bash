# Completion of bash for hotlogfs and mount.hotlogfs, and of the list after their -o. The options are those that
# the program names in its --help.
# shellcheck shell=bash

# _hotlogfs_options PROGRAM: one a line, NAME or NAME=KIND
_hotlogfs_options()
{
    "${1/#\~/$HOME}" --help 2>/dev/null | sed -n '/^Options for -o/,/^$/s/^  \([a-z_]*\(=[A-Z]*\)\{0,1\}\) .*/\1/p'
}

# _hotlogfs_list PROGRAM LIST: completes the last member of a list of options; LIST is as typed so far.
_hotlogfs_list()
{
    local last=${2##*,} option candidates=()
    local -A kind=()
    while IFS= read -r option; do
        kind[${option%%=*}]=${option#"${option%%=*}"}
    done < <(_hotlogfs_options "$1")
    if [[ $last == *=* ]]; then
        case ${kind[${last%%=*}]:-} in
        =TIME) candidates=(100ms 1s 10s 1m 10m 1h 1d 30d) ;;
        =SIZE) candidates=(64K 1M 16M 64M 256M 1G) ;;
        =N) candidates=(0 1 3 10 1024) ;;
        esac
        # Readline has the part behind the = for a word of its own.
        mapfile -t COMPREPLY < <(compgen -W "${candidates[*]}" -- "${last#*=}")
        return
    fi
    candidates=(nosuid nodev noexec noatime nofail _netdev noauto user defaults)
    for option in "${!kind[@]}"; do
        candidates+=("$option${kind[$option]:+=}")
    done
    mapfile -t COMPREPLY < <(compgen -P "${2%"$last"}" -W "${candidates[*]}" -- "$last")
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace 2>/dev/null # the value follows
    fi
}

_hotlogfs()
{
    local current=${COMP_WORDS[COMP_CWORD]} typed=${COMP_LINE:0:COMP_POINT} flags='-f -o --clear --help --version'
    local before=${typed%"${typed##*[[:blank:]]}"}
    COMPREPLY=()
    typed=${typed##*[[:blank:]]} # the whole word, which bash cuts at each =
    before=${before%"${before##*[![:blank:]]}"}
    if [[ $before == *[[:blank:]]-o ]]; then
        _hotlogfs_list "$1" "$typed"
    elif [[ $current == -* ]]; then
        [[ ${1##*/} != mount.* ]] || flags='-s -f -n -v -N -o -t --help --version'
        mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$current")
    else
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -d -- "$current")
    fi
}
complete -F _hotlogfs hotlogfs mount.hotlogfs
