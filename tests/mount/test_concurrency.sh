#!/usr/bin/env bash
# test_concurrency.sh - readers beside writers: no torn line, no size beyond what can be read.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

py() { python3 "$T_HERE/program_cases.py" "$@"; }

# wait_all PID…: fails when one of them did.
wait_all()
{
    local pid
    for pid in "$@"; do
        wait "$pid"
    done
}

# commands_until END: rotates and checkpoints while the others work.
commands_until()
{
    until [ -e "$1" ]; do
        echo rotate >"$MNT/.ctl"
        echo checkpoint >"$MNT/.ctl"
        echo sync >"$MNT/.ctl"
    done
}

readers_beside_writers()
{
    local s=$MNT/sessions/raced end=$T_DIR/end-raced readers=() writers=() i
    mkdir "$s"
    py race_reader "$MNT" raced "$end" &
    readers+=($!)
    py race_stream "$MNT" raced "$end" &
    readers+=($!)
    commands_until "$end" &
    readers+=($!)
    t_wait test -e "$end.begun"
    for i in 0 1 2; do
        py race_writer "$MNT" raced "$i" 6000 &
        writers+=($!)
    done
    wait_all "${writers[@]}"
    : >"$end"
    wait_all "${readers[@]}"
    py race_check "$MNT" raced 3 6000
}

root_log_beside_writers()
{
    local end=$T_DIR/end-root pids=() reader i
    for i in 0 1; do
        py race_root_writer "$MNT" "$i" 3000 &
        pids+=($!)
    done
    py race_root "$MNT" "$end" &
    reader=$!
    wait_all "${pids[@]}"
    : >"$end"
    wait "$reader"
}

lines_are() { [ "$(wc -l <"$1")" = "$2" ]; }

# tail -f beside four writers: each line once and whole, as in the log.
tail_sees_all()
{
    local s=$MNT/sessions/tailed out=$T_DIR/tailed pid pids=() i
    mkdir "$s"
    tail -s 0.01 -n +1 -f "$s/log" >"$out" &
    pid=$!
    for i in 0 1 2 3; do
        py race_writer "$MNT" tailed "$i" 3000 &
        pids+=($!)
    done
    wait_all "${pids[@]}"
    t_wait lines_are "$out" 12000
    t_same "$out" "$s/log"
    kill "$pid"
    wait "$pid" || true
}

reindex_beside_writers()
{
    local s=$MNT/sessions/rebuilt pids=() i
    mkdir "$s"
    for i in 0 1; do
        py race_writer "$MNT" rebuilt "$i" 6000 &
        pids+=($!)
    done
    for i in 1 2 3; do
        echo reindex >"$MNT/.ctl"
        echo verify >"$MNT/.ctl"
    done
    wait_all "${pids[@]}"
    py race_check "$MNT" rebuilt 2 6000
}

t_mount -o segment_size=256K
t_test "cat, stat, ls and ranges beside writers" readers_beside_writers
t_test "tail -f sees all" tail_sees_all
t_test "reindex and verify beside writers" reindex_beside_writers
t_unmount
t_use root
t_mount -o segment_size=64K,sync_interval=10ms
t_test "the root log beside mixed batches" root_log_beside_writers
t_unmount
