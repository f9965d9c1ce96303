#!/usr/bin/env bash
# test_known_failures.sh - how stores of this kind have lost data before; each once, by its name.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

py() { python3 "$T_HERE/damage_cases.py" "$@"; }

payloads() { jq -r .payload "$MNT/sessions/s/log" | tr '\n' ' '; }

# A store with the records "1" to "5", each its own batch.
begin()
{
    t_use "known-$BASHPID"
    t_mount "$@"
    mkdir "$MNT/sessions/s"
    local i
    for i in 1 2 3 4 5; do
        echo "$i" >"$MNT/sessions/s/append"
    done
}

appends_after_a_torn_tail()
{
    local i
    begin
    for i in 6 7 8; do
        t_kill9
        py damage "$DIR" "$T_HOME/facts" append_garbage bytes
        t_mount
        t_eq "$(payloads)" "$(seq -s ' ' 1 $((i - 1))) " "after torn tail $((i - 5))"
        echo "$i" >"$MNT/sessions/s/append"
    done
    t_kill9
    t_mount
    t_eq "$(payloads)" "1 2 3 4 5 6 7 8 "
    t_unmount
}

# Each bit of a frame's length, one by one: never another line, never the end of the log.
length_is_covered()
{
    local bit base
    begin
    py expect "$MNT" "$T_HOME/expected"
    t_unmount
    base=$DIR.base
    mv "$DIR" "$base"
    for bit in 0 1 3 4 5 6 7 8 12 16 20 24 28 30 31; do
        rm -rf "$DIR"
        cp -a "$base" "$DIR"
        rm -r "$DIR/index" "$DIR/checkpoints"
        python3 - "$T_HERE" "$DIR" "$bit" <<'PY'
import sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import segments
frame, bit = segments.records(sys.argv[2])[2], int(sys.argv[3])
segments.flip(frame.path, frame.offset + 4 + bit // 8, bit % 8)
PY
        t_mount
        t_eq "$(payloads)" "1 2 4 5 " "with bit $bit of the length of 3 flipped"
        t_errno ENOENT read "$MNT/sessions/s/3"
        t_eq "$(jq -r .payload "$MNT/sessions/s/5")" 5
        echo 6 >"$MNT/sessions/s/append"
        t_eq "$(payloads)" "1 2 4 5 6 "
        t_unmount
    done
}

index_is_rebuilt_when_lost()
{
    begin
    t_unmount
    rm -r "$DIR/index"
    t_mount
    t_eq "$(payloads)" "1 2 3 4 5 "
    t_kill9
    rm -r "$DIR/index" "$DIR/checkpoints"
    t_mount
    t_eq "$(payloads)" "1 2 3 4 5 "
    t_unmount
}

# An index that is ahead of the log, as when it was committed first and then the power went.
index_ahead_of_the_log()
{
    begin
    t_unmount
    python3 - "$T_HERE" "$DIR" <<'PY'
import os, sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import segments
frame = segments.records(sys.argv[2])[3]
os.truncate(frame.path, frame.offset)
PY
    t_mount
    t_eq "$(payloads)" "1 2 3 "
    echo new >"$MNT/sessions/s/append"
    t_eq "$(payloads)" "1 2 3 new "
    t_kill9
    t_mount
    t_eq "$(payloads)" "1 2 3 new "
    t_unmount
}

duplicate_seq()
{
    begin
    t_errno EEXIST write "$MNT/sessions/s/append" '{"seq":3,"payload":"other"}\x0a'
    t_remount
    t_errno EEXIST write "$MNT/sessions/s/append" '{"seq":3,"payload":"other"}\x0a'
    t_kill9
    rm -r "$DIR/index" "$DIR/checkpoints"
    t_mount
    t_errno EEXIST write "$MNT/sessions/s/append" '{"seq":3,"payload":"other"}\x0a'
    t_errno EEXIST write "$MNT/append" '{"session_id":"s","seq":5,"payload":"other"}\x0a'
    t_errno OK writefile "$MNT/sessions/s/append" "$MNT/sessions/s/3"
    t_eq "$(payloads)" "1 2 3 4 5 "
    t_eq "$(jq .seq "$MNT/sessions/s/log" | tr '\n' ' ')" "1 2 3 4 5 "
    t_unmount
}

# A log of more than 512 MiB: here, of more segments than may be open at once, and with BIG=1 of that size.
large_log()
{
    local lines=12000 size=64K
    begin -o segment_size=$size,checkpoint_interval=1h
    [ -z "${BIG:-}" ] || lines=700000
    python3 -c '
import sys
count, fill = int(sys.argv[1]), "z" * 750
for n in range(count):
    print(n, fill)
' $lines >"$MNT/sessions/s/append"
    t_kill9
    t_mount -o segment_size=$size
    t_eq "$(wc -l <"$MNT/sessions/s/log")" $((lines + 5)) "records after a kill"
    t_match "$(cat "$MNT/sessions/s/6")" '"0 zzz'
    t_match "$(cat "$MNT/sessions/s/$((lines + 5))")" "\"$((lines - 1)) zzz"
    t_unmount
    rm -r "$DIR/index" "$DIR/checkpoints"
    t_mount -o segment_size=$size
    t_eq "$(jq -r .payload "$MNT/sessions/s/log" | tail -n +6 | cut -d ' ' -f 1 | sha256sum)" \
        "$(seq 0 $((lines - 1)) | sha256sum)" "records from the segments alone"
    t_eq "$(find "$DIR/log" -name '*.seg' | wc -l)" "$(jq .segments "$MNT/.status")"
    [ "$(jq .segments "$MNT/.status")" -gt 130 ] || t_fail "only $(jq .segments "$MNT/.status") segments"
    t_unmount
}

one_bad_line()
{
    begin
    t_errno EINVAL write "$MNT/sessions/s/append" '{"broken\x0a'
    echo 6 >"$MNT/sessions/s/append"
    t_unmount
    python3 - "$T_HERE" "$DIR" <<'PY'
import sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import segments
frame = segments.records(sys.argv[2])[1]
segments.put(frame.path, frame.offset + 33, b"\xff\x00garbage")
PY
    t_mount
    t_errno EIO read "$MNT/sessions/s/2"
    t_eq "$(payloads)" "1 3 4 5 6 "
    t_eq "$(grep -c . "$MNT/log")" 6 "lines of the root log, one of them blank"
    t_kill9
    rm -r "$DIR/index" "$DIR/checkpoints"
    t_mount
    t_errno ENOENT read "$MNT/sessions/s/2"
    t_eq "$(payloads)" "1 3 4 5 6 "
    t_unmount
}

t_test "after a torn tail, later appends were never replayed" appends_after_a_torn_tail
t_test "the length field was outside the checksum" length_is_covered
t_test "the index was never rebuilt when lost" index_is_rebuilt_when_lost
t_test "the index was committed before the log was synced" index_ahead_of_the_log
t_test "duplicate (session, seq) was accepted" duplicate_seq
t_test "a large log opened without error and showed nothing" large_log
t_test "one bad line made the whole log unreadable" one_bad_line
