#!/usr/bin/env bash
# test_completion.sh - the completion of bash, asked as bash asks it, and by a real bash with a terminal.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"
COMPLETION=$T_ROOT/dist/completion.bash
ln -s "$HOTLOGFS" "$T_DIR/mount.hotlogfs"

# complete_line LINE: what completes it, one candidate a line. Words are cut where readline cuts them.
complete_line()
{
    bash --norc -uo pipefail -c '
        . "$1"
        line=$2
        COMP_LINE=$line COMP_POINT=${#line}
        mapfile -t COMP_WORDS < <(grep -oE "[^[:blank:]=]+|=" <<<"$line")
        [[ $line != *[[:blank:]=] ]] || COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        "$(complete -p hotlogfs | sed "s/.*-F \([^ ]*\).*/\1/")" "${COMP_WORDS[0]}"
        printf "%s\n" "${COMPREPLY[@]}"
    ' - "$COMPLETION" "$1" | sort
}

# completes LINE WORD…: to exactly these words
completes()
{
    local line=$1
    shift
    t_eq "$(complete_line "$line")" "$(printf '%s\n' "$@" | sort)" "completions of '$line'"
}

flags()
{
    completes "$HOTLOGFS -" -f -o --clear --help --version
    completes "$HOTLOGFS --v" --version
    completes "$T_DIR/mount.hotlogfs a b -" -s -f -n -v -N -o -t --help --version
    completes "$HOTLOGFS --none"
}
t_test "flags" flags

options()
{
    completes "$HOTLOGFS d m -o sync_i" sync_interval=
    completes "$HOTLOGFS d m  -o  ro,allow_other,sync" ro,allow_other,sync ro,allow_other,sync_interval=
    completes "$HOTLOGFS -o nos" nosuid
    completes "$HOTLOGFS d m -o none_of_that"
    completes "$T_DIR/mount.hotlogfs d m -o noexec,segment" noexec,segment_size=
}
t_test "options after -o, also in the middle of a list" options

# Each option that the program knows, and nothing that it does not.
every_option()
{
    local name wrong=0
    complete_line "$HOTLOGFS d m -o " >"$T_DIR/all"
    "$HOTLOGFS" --help | sed -n '/^Options for -o/,/^$/s/^  \([a-z_]*=\{0,1\}\).*/\1/p' >"$T_DIR/known"
    t_ne "$(wc -l <"$T_DIR/known")" 0 "options in --help"
    while read -r name; do
        grep -qxF -- "$name" "$T_DIR/all" || t_fail "$name is not completed"
    done <"$T_DIR/known"
    while read -r name; do
        case $name in
        *=) name+=nonsense ;;
        esac
        # Known: refused for its value or for the missing mountpoint, never as unknown.
        t_run "$HOTLOGFS" "$T_DIR/dir" -o "$name"
        [[ $T_OUT != *"unknown option"* ]] || { echo "$name is completed, but unknown" && wrong=1; }
    done <"$T_DIR/all"
    t_eq "$wrong" 0 "unknown options"
}
t_test "every option is completed, and every completion is an option" every_option

values()
{
    completes "$HOTLOGFS d m -o sync_interval=10" 100ms 10m 10s
    completes "$HOTLOGFS d m -o ro,segment_size=2" 256M
    completes "$HOTLOGFS d m -o ro=1"
}
t_test "values" values

directories()
{
    mkdir "$T_DIR/here" "$T_DIR/here/one" "$T_DIR/here/two words"
    touch "$T_DIR/here/file"
    completes "$HOTLOGFS $T_DIR/here/" "$T_DIR/here/one" "$T_DIR/here/two words"
    completes "$HOTLOGFS d -f $T_DIR/here/o" "$T_DIR/here/one"
}
t_test "directories" directories

# Typed at a terminal: the keys reach readline, which calls the function itself.
at_a_terminal()
{
    PATH=$(dirname "$HOTLOGFS"):$PATH python3 - "$COMPLETION" "$T_DIR/typed" <<'END'
import os, pty, select, sys
completion, target = sys.argv[1:]
pid, terminal = pty.fork()
if pid == 0:
    os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])

def until(text):
    seen = b""
    while text not in seen:
        assert select.select([terminal], [], [], 180)[0], "no answer, but: %r" % seen
        seen += os.read(terminal, 4096)

os.write(terminal, b"bind 'set enable-bracketed-paste off'; PS1=rea'dy '; . '%s'\n" % completion.encode())
until(b"ready ")
# A line that is only echoed: the keys complete an option, its value, and a flag.
os.write(terminal, b"hotlogfs d m -o ro,checkp\t" + b"10m --cl\t" + b"\x01printf '%s.' \x05 >'" + target.encode() + b"'; echo do''ne\n")
until(b"done")
os.write(terminal, b"exit\n")
os.waitpid(pid, 0)
END
    t_eq "$(cat "$T_DIR/typed")" "hotlogfs.d.m.-o.ro,checkpoint_interval=10m.--clear." "what was completed"
}
t_test "typed at a terminal" at_a_terminal

# Where the packages that people have look for it: loaded by name, when hotlogfs is first completed.
by_bash_completion()
{
    mkdir -p "$T_DIR/share/bash-completion/completions"
    cp "$COMPLETION" "$T_DIR/share/bash-completion/completions/hotlogfs"
    XDG_DATA_HOME=$T_DIR/share bash --norc -c '
        . /usr/share/bash-completion/bash_completion
        __load_completion hotlogfs
        complete -p hotlogfs' | grep -q -- '-F _hotlogfs'
}
t_test "bash-completion finds it by its name" by_bash_completion
