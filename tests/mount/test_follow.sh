#!/usr/bin/env bash
# test_follow.sh - `follow`: readers that wait, are told, stopped, killed, and ended with the mount; and the
# programs that wait for `log` to grow.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

py()
{
    local case=$1
    shift
    python3 "$T_HERE/follow_cases.py" "$case" "$@"
}

LIMIT=/proc/sys/fs/fuse/max_request_timeout

# A mount made while the kernel ends every mount that leaves a request unanswered for 15 s; it looks every 15 s.
# The limit holds for mounts made under it, so it is set only as long as that takes.
start_patient()
{
    local was
    t_use patient
    was=$(cat "$LIMIT")
    t_defer eval "echo $was >$LIMIT"
    echo 15 >"$LIMIT"
    t_mount
    echo "$was" >"$LIMIT"
    mkdir "$MNT/sessions/s"
    cat "$MNT/sessions/s/follow" >"$T_DIR/patient.out" &
    echo $! >"$T_DIR/patient.pid"
    t_use main
}

five_empty_lines() { [ "$(grep -c '^$' "$T_DIR/patient.out")" -ge 5 ]; }
shows() { grep -q "$1" "$2"; }

# Each empty line stands for 7.5 s, so five are more than the 15 s of the limit and the 15 s between two looks.
patient_reader()
{
    t_use patient
    t_wait five_empty_lines
    t_is_live || t_fail "the kernel ended the mount"
    echo "still there" >"$MNT/sessions/s/append"
    t_wait shows "still there" "$T_DIR/patient.out"
    kill "$(cat "$T_DIR/patient.pid")"
    t_unmount
}

count_followers() { jq .followers "$MNT/.status"; }
followers_are() { [ "$(count_followers)" = "$1" ]; }

# ended_by HOW: readers that wait get end of file, the daemon ends well, and the store is free.
ended_by()
{
    local how=$1 pids=() way pid
    t_use "ended-$how"
    t_mount
    mkdir -p "$MNT/sessions/s"
    echo early >"$MNT/sessions/s/append"
    for way in read poll; do
        py wait_until_end "$MNT" s "$way" &
        pids+=($!)
    done
    cat "$MNT/sessions/s/follow" >"$T_DIR/ended" &
    pids+=($!)
    t_wait followers_are 3
    echo late >"$MNT/sessions/s/append"
    t_wait shows late "$T_DIR/ended"
    case $how in
    term) kill -TERM "$DAEMON_PID" ;;
    int) kill -INT "$DAEMON_PID" ;;
    lazy) umount -l "$MNT" ;;
    esac
    for pid in "${pids[@]}"; do
        wait "$pid" || t_fail "a reader ended with status $?"
    done
    t_wait_end 0
    t_eq "$(grep -c . "$T_DIR/ended")" 1 "the records that came"
    t_mount
    t_match "$(tail -n 1 "$MNT/sessions/s/log")" late
    t_unmount
}

closed_at_the_end()
{
    t_use closed
    t_mount
    py closed_at_the_end "$MNT" "$DAEMON_PID"
    t_wait_end 0
}

busy_while_read()
{
    local pid
    t_use busy
    t_mount
    mkdir "$MNT/sessions/s"
    cat "$MNT/sessions/s/follow" >/dev/null &
    pid=$!
    t_wait followers_are 1
    t_run fusermount3 -u "$MNT"
    t_match "$T_OUT" busy
    kill "$pid"
    wait "$pid" || true
    t_unmount
}

follows_a_writer()
{
    local writer=$MNT store=$DIR
    t_use reader
    DIR=$store
    t_mount -o ro
    py many "$writer" 100 400 "$MNT"
    t_unmount
}

# While nobody waits, nothing runs: the daemon's threads sleep, and use no time.
idle_costs_nothing()
{
    local before after spent=0 thread pid
    t_use idle
    t_mount
    mkdir "$MNT/sessions/s"
    echo one >"$MNT/sessions/s/append"
    t_wait nothing_waits
    cat "$MNT/sessions/s/follow" &
    pid=$!
    t_wait followers_are 1
    # Every mount that others make on the machine wakes it: of several spans one is quiet, or none.
    for _ in {1..10}; do
        for thread in "/proc/$DAEMON_PID/task"/*; do
            t_wait sleeps "$thread"
        done
        before=$(awk '{ print $14 + $15 }' "/proc/$DAEMON_PID/stat")
        sleep 3 # that is what is measured: a span of time in which nothing happens
        after=$(awk '{ print $14 + $15 }' "/proc/$DAEMON_PID/stat")
        spent=$((after - before))
        [ "$spent" -gt 5 ] || break
    done
    [ "$spent" -le 5 ] || t_fail "idle, the daemon used $spent ticks in 3 s"
    kill "$pid"
    wait "$pid" || true
    t_unmount
}

nothing_waits() { [ "$(jq .announcements_waiting "$MNT/.status")" = 0 ]; }
sleeps() { grep -q '^State:.S' "$1/status"; }

start_patient
t_mount -o allow_other
t_test "1,000 readers, each record once to each, in order" py many "$MNT" 1000 "${RECORDS:-200}"
t_test "whole lines where they fit, long ones in pieces" py pieces "$MNT"
t_test "a killed reader is gone at once, also one of two on one open file" py killed "$MNT"
t_test "SIGSTOP and SIGCONT end none of cat jq sed awk bash python node" py stopped "$MNT"
t_test "O_NONBLOCK, poll, select, epoll, io_uring agree" py ready "$MNT"
t_test "from append to jq within 10 ms" py latency "$MNT"
t_test "on a read-only mount beside a writer" follows_a_writer
t_test "tail -f and tail -F across rotate and checkpoint" py tails "$MNT"
t_test "less +F across rotate and checkpoint" py less "$MNT"
t_test "SIGTERM gives end of file" ended_by term
t_test "SIGINT gives end of file" ended_by int
t_test "umount -l gives end of file" ended_by lazy
t_test "who is told of the end closes other files meanwhile" closed_at_the_end
t_test "a waiting reader keeps the mount busy" busy_while_read
t_test "waiting costs nothing" idle_costs_nothing
t_use main
t_unmount
t_test "a waiting reader outlasts the kernel's limit for requests" patient_reader
