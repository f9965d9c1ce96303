# lib.sh - the harness of the mount tests; a test script sources it first. tests/README.md tells how.
#
# What a case changes in shell variables is gone after it (each case is a subshell), so what the harness
# itself must remember lies in files under $T_HOME.
# shellcheck shell=bash
set -euo pipefail
export LC_ALL=C

T_HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
T_ROOT=$(cd "$T_HERE/../.." && pwd)
HOTLOGFS=$(realpath "${HOTLOGFS:-$T_ROOT/${BUILD:-build}/hotlogfs}")
T_TIMEOUT=${T_TIMEOUT:-180} # seconds that any one wait may take
SEED=${SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
export SEED HOTLOGFS
RANDOM=$SEED
T_COUNT=0
T_FAILED=0
T_DIR=$(mktemp -d "${TMPDIR:-/tmp}/hotlogfs-test.XXXXXXXX")
T_DIR=$(realpath "$T_DIR")
chmod 711 "$T_DIR" # so that a test may act as another user
export T_DIR
echo "# ${0##*/} SEED=$SEED"

# Reports of sanitizers go to files, so that those of a daemon in the background are seen as well.
t_san_options()
{
    local name=$1 extra=$2
    export "$name=${!name:+${!name}:}log_path=$T_DIR/sanitizer:exitcode=99$extra"
}
t_san_options ASAN_OPTIONS :detect_leaks=1
t_san_options TSAN_OPTIONS ":second_deadlock_stack=1:suppressions=$T_HERE/tsan.suppressions"
t_san_options UBSAN_OPTIONS :print_stacktrace=1

# ---- results ------------------------------------------------------------------------------------

t_note() { sed 's/^/# /' <<<"$*"; }

# Ends the case as failed, with the reason.
t_fail()
{
    echo "$*" >"$T_DIR/why"
    exit 1
}

t_on_error()
{
    # The last one to fail is the one that ended the case: bash also traps some whose failure is heeded.
    echo "line $1: status $?: $2" >"$T_DIR/trapped"
}

t_why() { cat "$T_DIR/why" 2>/dev/null || cat "$T_DIR/trapped" 2>/dev/null || true; }

# t_test NAME FUNCTION [ARGUMENTS]: runs the function as one case. Call it as a command of its own, never
# behind if, && or ||, where bash would ignore failures inside the function.
t_test()
{
    local name=$1 status
    shift
    [[ -z ${ONLY:-} || $name == *"$ONLY"* ]] || return 0
    T_COUNT=$((T_COUNT + 1))
    rm -f "$T_DIR/why" "$T_DIR/trapped"
    touch "$T_DIR/began"
    set +e
    (
        set -eE
        trap 't_on_error "$LINENO" "$BASH_COMMAND"' ERR
        "$@"
        t_check_sanitizers
    ) >"$T_DIR/out" 2>&1
    status=$?
    set -e
    if [ "$status" = 0 ]; then
        echo "ok - $name"
        [ -z "${T_VERBOSE:-}" ] || sed 's/^/# /' "$T_DIR/out"
    else
        T_FAILED=$((T_FAILED + 1))
        echo "not ok - $name: $(t_why) (SEED=$SEED)"
        sed 's/^/# /' "$T_DIR/out"
        t_show_logs
    fi
    t_load
}

t_show_logs()
{
    local log
    for log in "$T_DIR"/*/log "$T_DIR"/sanitizer.*; do
        # Only of daemons that said something during the case.
        [ -s "$log" ] && ! [ "$log" -ot "$T_DIR/began" ] || continue
        echo "# --- ${log#"$T_DIR"/}"
        tail -n 100 "$log" | sed 's/^/# /'
    done
}

t_check_sanitizers()
{
    local log pattern='ERROR: AddressSanitizer|ERROR: LeakSanitizer|WARNING: ThreadSanitizer|runtime error:'
    for log in "$T_DIR"/*/log "$T_DIR"/sanitizer.*; do
        [ -s "$log" ] || continue
        if grep -Eq "$pattern|FATAL: ThreadSanitizer" "$log"; then
            t_fail "a sanitizer reported in ${log##*/}"
        fi
    done
}

# ---- assertions ---------------------------------------------------------------------------------

# t_eq GOT WANT [WHAT]
t_eq() { [ "$1" = "$2" ] || t_fail "${3:-value}: got '${1:0:400}', want '${2:0:400}'"; }
t_ne() { [ "$1" != "$2" ] || t_fail "${3:-value}: got '${1:0:400}', want anything else"; }
# t_match GOT REGEX [WHAT]
t_match() { [[ $1 =~ $2 ]] || t_fail "${3:-value}: '${1:0:400}' does not match '$2'"; }
# t_same FILE FILE: the same bytes
t_same() { cmp "$1" "$2" || t_fail "$1 and $2 differ"; }
t_absent() { [ ! -e "$1" ] && [ ! -L "$1" ] || t_fail "$1 is there"; }

# t_run COMMAND…: runs it, whatever its outcome; T_STATUS is its exit status, T_OUT what it printed.
t_run()
{
    T_STATUS=0
    T_OUT=$("$@" 2>&1) || T_STATUS=$?
}

# t_fsck STATUS ARGUMENTS…: fsck.hotlogfs must end so; what it said is in T_OUT.
T_FSCK=${HOTLOGFS%/*}/fsck.hotlogfs
t_fsck()
{
    local want=$1
    shift
    t_run "$T_FSCK" "$@"
    [ "$T_STATUS" = "$want" ] || t_fail "fsck.hotlogfs $*: status $T_STATUS, not $want: $T_OUT"
}

# t_errno WANT OPERATION ARGUMENTS…: the operation of try.py ends with that errno name, or OK.
t_errno()
{
    local want=$1 got
    shift
    got=$("$T_HERE/try.py" "$@")
    t_eq "$got" "$want" "$*"
}

# t_wait COMMAND…: until the command succeeds; fails after T_TIMEOUT seconds.
t_wait()
{
    local end=$((SECONDS + T_TIMEOUT))
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || t_fail "waited $T_TIMEOUT s in vain for: $*"
        sleep 0.01
    done
}

# ---- mounts -------------------------------------------------------------------------------------

# t_use NAME: the functions below act on the store and mount of that name: $DIR and $MNT. "main" at first.
# DIR may be set to another path afterwards, to mount one store twice.
t_use()
{
    T_HOME=$T_DIR/$1
    DIR=$T_HOME/dir
    MNT=$T_HOME/mnt
    mkdir -p "$T_HOME"
    [ -d "$MNT" ] || mkdir -p "$MNT" 2>/dev/null || true # a dead mount is neither there nor absent
    t_load
}

t_load()
{
    DAEMON_PID=$(cat "$T_HOME/pid" 2>/dev/null || true)
    t_log=$T_HOME/log
}

# Whether the process exists and is no zombie.
t_alive()
{
    local state
    state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null) || return 1
    [ -n "$state" ] && [ "$state" != Z ] && [ "$state" != X ]
}
t_gone() { ! t_alive "$1"; }

# Whether $MNT is a mount (a dead one too), as the kernel tells it without asking the daemon.
t_is_mounted() { awk -v m="$MNT" '$5 == m { found = 1 } END { exit !found }' /proc/self/mountinfo; }

# Whether $MNT is answered by a daemon, and not only by the kernel's cache.
t_is_live()
{
    local device
    device=$(timeout "$T_TIMEOUT" stat --cached=never -c %d "$MNT" 2>/dev/null) || return 1
    [ "$device" != "$(stat -c %d "$T_DIR")" ]
}

# No descriptor of the test may reach a daemon: one on its own mount would keep it from ending.
t_close_descriptors()
{
    local fd
    for fd in "/proc/$BASHPID/fd"/*; do
        fd=${fd##*/}
        if [ "$fd" -gt 2 ] && [ "$fd" -lt 255 ]; then
            eval "exec $fd>&-"
        fi
    done
}

# t_mount [-b] [ARGUMENTS…]: mounts $DIR on $MNT and returns when it answers; the daemon is a child with -f,
# or with -b puts itself in the background. ARGUMENTS (-o ro, …) are passed on. Sets DAEMON_PID.
t_mount()
{
    local background=0 ended
    if [ "${1:-}" = -b ]; then
        background=1
        shift
    fi
    mkdir -p "$MNT" 2>/dev/null || true
    rm -f "$T_HOME/ended" "$T_HOME/pid" "$T_HOME/background"
    t_defer t_abandon "$T_HOME" "$MNT"
    if [ "$background" = 1 ]; then
        touch "$T_HOME/background"
        (
            t_close_descriptors
            exec "$HOTLOGFS" "$DIR" "$MNT" "$@"
        ) </dev/null >>"$t_log" 2>&1 || t_fail "hotlogfs ended with status $?: $(tail -n 1 "$t_log")"
        t_is_live || t_fail "hotlogfs returned, but $MNT is not mounted"
        # Read-only mounts hold no lock.
        t_daemon_of_mount >"$T_HOME/pid" || t_fail "no daemon to be found for $MNT"
    else
        # A file of its own: whoever waits for the daemon before this one may be late.
        ended=$(mktemp -u "$T_HOME/ended.XXXXXX")
        echo "$ended" >"$T_HOME/ended"
        (
            trap - ERR
            set +e
            t_close_descriptors
            "$HOTLOGFS" "$DIR" "$MNT" -f "$@" &
            echo $! >"$T_HOME/pid.new"
            mv "$T_HOME/pid.new" "$T_HOME/pid"
            { wait $!; } 2>/dev/null # bash would say how it ended
            echo $? >"$ended.new"
            mv "$ended.new" "$ended"
        ) </dev/null >>"$t_log" 2>&1 &
        t_wait t_is_ready
    fi
    t_load
}

# The exit status of the daemon of $MNT, once it has ended.
t_status() { cat "$(cat "$T_HOME/ended")" 2>/dev/null; }

t_is_ready()
{
    local status
    if status=$(t_status); then
        t_fail "hotlogfs ended with status $status: $(tail -n 1 "$t_log")"
    fi
    t_is_live
}

# The pid of the process whose command line is that of the mount in the background.
t_daemon_of_mount()
{
    local process words word found
    for process in /proc/[0-9]*; do
        words=()
        mapfile -d '' -t words 2>/dev/null <"$process/cmdline" || continue
        [ "${words[0]:-}" = "$HOTLOGFS" ] && t_alive "${process##*/}" || continue
        found=0
        for word in "${words[@]}"; do
            [ "$word" != "$MNT" ] || found=1
        done
        if [ "$found" = 1 ]; then
            echo "${process##*/}"
            return
        fi
    done
    return 1
}

# Waits until the daemon has ended, and requires that it ended well (or with a status given). The status of
# one that put itself in the background is not known.
t_wait_end()
{
    local want=${*:-0} pid status
    pid=$(cat "$T_HOME/pid")
    t_wait t_gone "$pid"
    [ -e "$T_HOME/background" ] || t_wait test -e "$(cat "$T_HOME/ended")"
    t_check_sanitizers
    if [ ! -e "$T_HOME/background" ]; then
        status=$(t_status)
        [[ " $want " == *" $status "* ]] || t_fail "the daemon ended with status $status: $(tail -n 1 "$t_log")"
    fi
}

# Takes the mount away while the kernel calls it busy only for a moment; fails at once for other reasons.
t_fusermount()
{
    local said
    said=$(fusermount3 -u "$MNT" 2>&1) && return 0
    [[ $said == *busy* ]] || t_fail "fusermount3 -u: $said"
    return 1
}

t_unmount()
{
    t_wait t_fusermount
    t_wait_end 0
}

# SIGKILL; leaves a dead mount, which the next t_mount takes over.
t_kill9()
{
    kill -9 "$(cat "$T_HOME/pid")"
    t_wait_end 137
}

# Unmounts (unless the daemon was killed) and mounts again, with the arguments given.
t_remount()
{
    if t_alive "$(cat "$T_HOME/pid")"; then
        t_unmount
    fi
    t_mount "$@"
}

# ---- clean up -----------------------------------------------------------------------------------

# t_defer COMMAND…: run when the script ends, newest first, whatever happened.
t_defer() { printf '%q ' "$@" >>"$T_DIR/defer" && echo >>"$T_DIR/defer"; }

# t_loop IMAGE: attaches the file to a loop device, detached at the end; prints the device.
t_loop()
{
    local device
    device=$(losetup -f --show "$1")
    t_defer losetup -d "$device"
    echo "$device"
}

t_abandon()
{
    local home=$1 mount=$2 pid
    pid=$(cat "$home/pid" 2>/dev/null || true)
    while awk -v m="$mount" '$5 == m { found = 1 } END { exit !found }' /proc/self/mountinfo; do
        umount -l "$mount" || break
    done
    if [ -n "$pid" ] && t_alive "$pid"; then
        kill -TERM "$pid" 2>/dev/null || true
        for _ in {1..6000}; do
            t_alive "$pid" || return 0
            sleep 0.01
        done
        echo "the daemon of $mount does not end by SIGTERM"
        T_FAILED=$((T_FAILED + 1))
        kill -KILL "$pid" 2>/dev/null || true
        for _ in {1..6000}; do
            t_alive "$pid" || return 0
            sleep 0.01
        done
    fi
}

t_end()
{
    local status=$? line
    trap '' TERM INT HUP
    trap - EXIT
    set +e
    if [ "$status" != 0 ]; then
        T_FAILED=$((T_FAILED + 1))
        T_COUNT=$((T_COUNT + 1))
        echo "not ok - ${0##*/} runs to its end: status $status: $(t_why) (SEED=$SEED)"
        t_show_logs
    fi
    if [ -e "$T_DIR/defer" ]; then
        while read -r line; do
            eval "$line"
        done < <(tac "$T_DIR/defer") >"$T_DIR/unwind" 2>&1
        [ "$T_FAILED" = 0 ] || sed 's/^/# unwind: /' "$T_DIR/unwind"
    fi
    if grep -qF " $T_DIR" /proc/self/mountinfo; then
        echo "# still mounted, so left in place: $T_DIR"
        T_FAILED=$((T_FAILED + 1))
    elif [ -n "${KEEP:-}" ]; then
        echo "# kept: $T_DIR"
    else
        # A thread of what was killed may be in the middle of a call yet, and make a file meanwhile.
        for _ in {1..20}; do
            rm -rf --one-file-system "$T_DIR" 2>/dev/null && break
            sleep 0.1
        done
        [ ! -e "$T_DIR" ] || find "$T_DIR" | sed 's/^/# left: /'
    fi
    [ "$T_COUNT" != 0 ] || echo "# no case was run"
    echo "1..$T_COUNT"
    [ "$T_FAILED" = 0 ] && [ "$T_COUNT" != 0 ]
    exit
}
trap t_end EXIT
trap 'exit 143' TERM
trap 'exit 130' INT HUP

t_use main
