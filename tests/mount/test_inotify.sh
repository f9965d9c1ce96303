#!/usr/bin/env bash
# test_inotify.sh - inotify is true: each event once, when it can be read, and never below the mount.
#
# SECONDS_LOAD (3): how long the four writers of the first case write. UNMOUNTS (100): how often the mount is
# taken away after a burst.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

py()
{
    local case=$1
    shift
    python3 "$T_HERE/inotify_cases.py" "$case" "$@"
}

field() { jq -r ".$1" "$MNT/.status"; }
nothing_waits() { [ "$(field announcements_waiting)" = 0 ]; }
is_announcing() { [ "$(field announcing)" = on ]; }
is_empty() { [ -z "$(ls -A "$1")" ] || t_fail "in $1: $(ls -A "$1" | head -n 5)"; }
contains() { grep -q "$1" "$2"; }

on_a_bind_mount()
{
    local other=$T_DIR/bind
    mkdir "$other" "$MNT/sessions/bound"
    t_defer umount -l "$other"
    mount --bind "$MNT" "$other"
    py elsewhere "$MNT" bound "$other"
    py elsewhere "$other" bound "$MNT"
    umount "$other"
}

on_a_read_only_mount()
{
    local writer=$MNT store=$DIR
    mkdir "$MNT/sessions/followed"
    t_use reader
    DIR=$store
    t_mount -o ro
    t_wait test -d "$MNT/sessions/followed"
    py elsewhere "$writer" followed "$MNT"
    t_unmount
}

switched_off()
{
    local s=$MNT/sessions/silent
    t_use silent
    s=$MNT/sessions/silent
    t_mount -o announce_max=0
    t_match "$(field announcing)" "^off: announce_max is 0"
    mkdir "$s"
    inotifywait -q -m -e create "$s" >"$T_DIR/silent.out" 2>"$T_DIR/silent.err" &
    t_wait watches "$!"
    seq 1 100 >"$s/append"
    cat "$s/log" >/dev/null
    t_eq "$(cat "$T_DIR/silent.out")" "" "the events"
    kill "$!" || true
    t_unmount
}

# Whether a process has set an inotify watch.
watches() { grep -qs '^inotify wd' /proc/"$1"/fdinfo/*; }

side_by_side()
{
    local loud=$MNT
    t_use quiet
    t_mount -o announce_max=0
    py throughput "$loud" "$MNT"
    t_unmount
}

# start_burst CASE ARGUMENT: appends in the background, as fast as it goes, until the mount is gone.
start_burst()
{
    : >"$T_DIR/burst"
    py "$@" >"$T_DIR/burst" &
    t_wait contains begun "$T_DIR/burst"
}

told_some() { [ "$(field announcements_told)" -gt 100 ]; }

# ended_in_a_burst HOW: nothing is made in the directory below, and the daemon ends well.
ended_in_a_burst()
{
    local how=$1 round
    for round in 1 2 3; do
        t_use "burst-$how"
        t_mount
        mkdir -p "$MNT/sessions/s"
        start_burst burst_until "$MNT/sessions/s"
        start_burst root_until "$MNT"
        t_wait told_some
        case $how in
        term) kill -TERM "$DAEMON_PID" ;;
        lazy) umount -l "$MNT" ;;
        esac
        t_wait_end 0
        is_empty "$MNT"
    done
    t_mount
    t_match "$(tail -n 1 "$MNT/sessions/s/log")" '"burst"'
    t_unmount
}

# The same of a read-only mount, while the burst of the writer that it follows goes on.
reader_ended_in_a_burst()
{
    local how writer store
    t_use followed-burst
    t_mount
    writer=$MNT store=$DIR
    mkdir "$writer/sessions/s"
    start_burst burst_until "$writer/sessions/s"
    for how in term lazy; do
        t_use "follows-$how"
        DIR=$store
        t_mount -o ro
        t_wait told_some
        case $how in
        term) kill -TERM "$DAEMON_PID" ;;
        lazy) umount -l "$MNT" ;;
        esac
        t_wait_end 0
        is_empty "$MNT"
    done
    t_use followed-burst
    kill -TERM "$DAEMON_PID"
    t_wait_end 0
    is_empty "$MNT"
}

killed_in_a_burst()
{
    local round
    t_use killed
    for round in 1 2 3 4 5; do
        t_mount
        mkdir -p "$MNT/sessions/s"
        start_burst burst_until "$MNT/sessions/s"
        t_wait told_some
        t_kill9
        umount -l "$MNT"
        is_empty "$MNT"
    done
}

# A file system mounted over ours: nothing is made there; once it is gone, all is as before.
covered()
{
    local below=$T_DIR/below
    t_use covered
    t_mount
    mkdir "$below" "$MNT/sessions/s"
    t_defer umount -l "$below"
    mount --bind "$MNT" "$below"
    py burst_once "$below/sessions/s" 500
    mount -t tmpfs none "$MNT"
    t_defer umount -l "$MNT"
    mkdir -p "$MNT/sessions/s"
    py burst_once "$below/sessions/s" 5000
    echo '{"session_id":"new"}' >"$below/append"
    t_wait reads announcing "$below/.status" "off: something else lies on the mountpoint"
    # What still waits when all is uncovered is told then.
    t_wait reads announcements_waiting "$below/.status" 0
    is_empty "$MNT/sessions/s"
    t_eq "$(ls "$MNT/sessions")" s "what is in the directory above ours"
    umount "$MNT"
    umount "$below"
    py root_append "$MNT"
    is_announcing || t_fail "announcing: $(field announcing)"
    t_unmount
    is_empty "$MNT"
}

reads() { [ "$(jq -r ".$1" "$2")" = "$3" ]; }

# No thread keeps anything of the mount open once all is told.
nothing_is_held()
{
    t_use held
    t_mount
    mkdir "$MNT/sessions/s"
    py burst_once "$MNT/sessions/s" 3000
    t_wait nothing_waits
    t_wait holds_nothing
    t_unmount
}

holds_nothing() { ! find "/proc/$DAEMON_PID/task" -lname "$MNT*" 2>/dev/null | grep -q .; }

left_behind()
{
    local pid
    t_use left
    t_mount
    mkdir "$MNT/sessions/s"
    : >"$T_DIR/left.out"
    py left_behind "$MNT" >"$T_DIR/left.out" &
    pid=$!
    t_wait contains begun "$T_DIR/left.out"
    echo hello >"$MNT/sessions/s/append"
    t_unmount
    wait "$pid"
    contains unmounted "$T_DIR/left.out" || t_fail "the watcher was not told"
}

chokidar_from_npm()
{
    mkdir "$T_DIR/npm"
    (cd "$T_DIR/npm" && npm install --silent --no-audit --no-fund chokidar)
    py chokidar "$MNT" "$T_DIR/npm"
}

# The loop stands in the document: what people copy is what is tested.
loop_of_the_document()
{
    sed -n '/^    #!\/bin\/bash$/,/^[^ ]/s/^    //p' "$T_ROOT/docs/watching.md" >"$T_DIR/loop.sh"
    bash -n "$T_DIR/loop.sh"
    contains inotifywait "$T_DIR/loop.sh" || t_fail "docs/watching.md has no loop"
    py shell_loop "$MNT" "$T_DIR/loop.sh"
}

# With room for all of it, so that a slow build or a busy machine skips nothing either.
t_use raced
t_mount -o announce_max=1000000
t_test "each event once, beside readers that race" py race "$MNT" "${SECONDS_LOAD:-3}"
t_unmount
t_use main
t_mount -o allow_other
t_test "root append, and sessions that it makes" py root_append "$MNT"
t_test "seqs with gaps, and retries" py gaps "$MNT"
t_test "commands lose nothing and repeat nothing" py commands "$MNT"
t_test "on a bind mount" on_a_bind_mount
t_test "on a read-only mount beside a writer" on_a_read_only_mount
t_test "in a burst the oldest are skipped, the newest are told" py overflow "$MNT" 100000
# Speed depends on what else the machine does: MEASURE=1 measures it, side by side.
[ -z "${MEASURE:-}" ] || t_test "a writer is not slowed down" side_by_side
t_test "announce_max=0" switched_off
t_test "chmod shuts out at once, watches live on" py chmod "$MNT"
t_test "inotifywait -m" py inotifywait "$MNT"
t_test "entr" py entr "$MNT"
t_test "node's fs.watch" py node_fs_watch "$MNT"
t_test "chokidar" chokidar_from_npm
t_test "the loop of docs/watching.md" loop_of_the_document
t_test "SIGTERM in a burst" ended_in_a_burst term
t_test "umount -l in a burst" ended_in_a_burst lazy
t_test "a read-only mount ended in a burst" reader_ended_in_a_burst
t_test "kill -9 in a burst" killed_in_a_burst
t_test "covered by another file system" covered
t_test "nothing of the mount is held open" nothing_is_held
t_test "a watch left behind does not hold the mount" left_behind
t_use main
t_unmount
t_test "after a burst, unmounted within 1 s, each time" py unmounts "$HOTLOGFS" "$T_DIR/unmounts" "${UNMOUNTS:-100}"
t_test "the mount made outside the daemon's pid namespace" "$T_HERE/apart" \
    python3 "$T_HERE/inotify_cases.py" namespaces "$HOTLOGFS" "$T_DIR/outside" outside
t_test "the mount made where the daemon is not seen" "$T_HERE/apart" \
    python3 "$T_HERE/inotify_cases.py" namespaces "$HOTLOGFS" "$T_DIR/unseen" unseen
