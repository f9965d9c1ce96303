#!/usr/bin/env bash
# test_ctl.sh - commands: write one to .ctl, read its result (design, section 5).
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

# command WORDS…: runs it on a handle of its own and prints the result.
command_result()
{
    local line
    exec 4<>"$MNT/.ctl"
    echo "$*" >&4
    IFS= read -r line <&4
    exec 4>&-
    echo "$line"
}

one_json_line()
{
    local result
    result=$(command_result "$@")
    jq -e . >/dev/null <<<"$result" || t_fail "the result of $1 is not JSON: $result"
    echo "$result"
}

help_lists_all()
{
    local result name
    result=$(one_json_line help)
    for name in help sync checkpoint rotate verify reindex snapshot; do
        t_match "$result" "$name"
    done
}

sync_works()
{
    echo line >"$MNT/sessions/s/append"
    one_json_line sync
    jq -e '.synced == .position' "$MNT/.status"
}

segment_count() { find "$DIR/log" -name '*.seg' | wc -l; }

rotate_works()
{
    local before
    before=$(segment_count)
    echo line >"$MNT/sessions/s/append"
    one_json_line rotate
    t_eq "$(segment_count)" "$((before + 1))" "segments after rotate"
    echo line >"$MNT/sessions/s/append"
    t_eq "$(wc -l <"$MNT/sessions/s/log")" "$(ls "$MNT/sessions/s" | grep -c '^[0-9]')"
}

checkpoint_works()
{
    echo line >"$MNT/sessions/s/append"
    one_json_line checkpoint
    t_ne "$(find "$DIR/checkpoints" -type f | wc -l)" 0 "files in checkpoints/"
    echo line >"$MNT/sessions/s/append"
    one_json_line checkpoint
    one_json_line checkpoint
    echo line >"$MNT/sessions/s/append"
    one_json_line checkpoint
    echo line >"$MNT/sessions/s/append"
    one_json_line checkpoint
    # the newest 3 are kept; a checkpoint may be more than one file
    t_eq "$(find "$DIR/checkpoints" -mindepth 1 -maxdepth 1 | wc -l)" 3 "checkpoints kept"
}

verify_works()
{
    local result records
    result=$(one_json_line verify)
    records=$(wc -l <"$MNT/log")
    t_eq "$(jq .records <<<"$result")" "$records" "records verified: $result"
    t_eq "$(jq '.damaged_gaps + .damaged_bytes + .broken_batches + .index_missing + .index_dangling' <<<"$result")" 0 \
        "damage: $result"
}

reindex_works()
{
    local before
    before=$(sha256sum <"$MNT/log")
    one_json_line reindex
    t_eq "$(sha256sum <"$MNT/log")" "$before"
    t_eq "$(cat "$MNT/sessions/s/log" "$MNT/sessions/t/log" | sort | sha256sum)" "$(sort "$MNT/log" | sha256sum)"
    verify_works
    echo after >"$MNT/sessions/s/append"
    t_match "$(tail -n 1 "$MNT/sessions/s/log")" '"after"'
    t_remount
    t_match "$(tail -n 1 "$MNT/sessions/s/log")" '"after"'
    verify_works
}

unknown_is_refused()
{
    local word
    for word in nonsense 'sync please' 'rotate 7' 'SYNC' 'help\x0async' '\xff'; do
        t_errno EINVAL write "$MNT/.ctl" "$word"
    done
    t_run bash -c 'echo nonsense >"$1/.ctl"' - "$MNT"
    t_ne "$T_STATUS" 0
    t_match "$(tail -n 1 "$MNT/.ctl")" nonsense
    t_run python3 -c '
import errno, json, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
try:
    os.write(fd, b"gibberish\n")
    sys.exit("gibberish was taken")
except OSError as failure:
    assert failure.errno == errno.EINVAL
result = os.read(fd, 4096)
assert b"gibberish" in result and result.endswith(b"\n"), result
json.loads(result)
' "$MNT/.ctl"
    t_eq "$T_STATUS" 0 "the sentence on the same handle: $T_OUT"
    t_errno EINVAL write "$MNT/.ctl" "$(printf 'x%.0s' {1..5000})"
}

last_results()
{
    local i
    for ((i = 0; i < 70; i++)); do
        echo sync >"$MNT/.ctl"
    done
    echo "no-such-$RANDOM" >"$MNT/.ctl" || true
    t_eq "$(wc -l <"$MNT/.ctl")" 64 "results kept"
    jq -e . "$MNT/.ctl" >/dev/null || t_fail "a result is not JSON"
    t_match "$(tail -n 1 "$MNT/.ctl")" no-such
    t_match "$(tail -n 2 "$MNT/.ctl" | head -n 1)" sync
}

# Each handle reads its own result, whatever others run meanwhile.
own_results()
{
    local one two
    exec 4<>"$MNT/.ctl" 5<>"$MNT/.ctl"
    echo help >&4
    echo sync >&5
    IFS= read -r one <&4
    IFS= read -r two <&5
    exec 4>&- 5>&-
    t_match "$one" reindex
    t_ne "$one" "$two"
}

status_tells()
{
    local status=$T_DIR/status
    cat "$MNT/.status" >"$status"
    jq -e . "$status"
    t_eq "$(jq .sessions "$status")" 2 sessions
    t_eq "$(jq .records "$status")" "$(wc -l <"$MNT/log")" records
    t_eq "$(jq .bytes "$status")" "$(wc -c <"$MNT/log")" bytes
    t_eq "$(jq .segments "$status")" "$(segment_count)" segments
    t_ne "$(wc -l <"$status")" 1 "lines of pretty JSON"
}

ended_under_way()
{
    local how=OK
    for ((round = 0; round < 30; round++)); do
        t_use "ended-$round"
        t_mount
        how=$(python3 "$T_HERE/ctl_cases.py" ended "$MNT" "$DAEMON_PID")
        t_wait_end 0
        rm -rf "$DIR"
        [ "$how" = OK ] || break
    done
    t_eq "$how" EINTR
}

t_mount
mkdir "$MNT/sessions/s" "$MNT/sessions/t"
seq 1 1000 >"$MNT/sessions/s/append"
seq 1 10 >"$MNT/sessions/t/append"
t_test "help" help_lists_all
t_test "sync" sync_works
t_test "rotate" rotate_works
t_test "checkpoint" checkpoint_works
t_test "verify" verify_works
t_test "reindex" reindex_works
t_test "what is unknown is EINVAL, with a sentence" unknown_is_refused
t_test "the last 64 results" last_results
t_test "each handle reads its own result" own_results
t_test ".status" status_tells
t_test "long commands can be interrupted" python3 "$T_HERE/ctl_cases.py" interrupted "$MNT"
t_test "also while they wait for their turn" python3 "$T_HERE/ctl_cases.py" interrupted_waiting "$MNT"
t_test "a sync waits for none" python3 "$T_HERE/ctl_cases.py" sync_beside "$MNT"
t_unmount
t_test "the end of the mount ends the command under way" ended_under_way
