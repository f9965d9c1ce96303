#!/usr/bin/env bash
# test_real_input.sh - 7,119 real events of six sessions: every line comes back behind its stamped fields.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

DATA=$T_ROOT/tests/data/git-history.jsonl.gz
INPUT=$T_DIR/input.jsonl

check_all() { python3 "$T_HERE/real_input_cases.py" check_all "$MNT" "$INPUT"; }

# What jq makes of a log, the stamps that the writer did not give taken away, is what it makes of the input.
same_to_jq()
{
    local filter='del(.seq, .ts_exact, .source)' session
    jq -cS "$filter" "$MNT/log" | cmp - <(jq -cS . "$INPUT")
    for session in libfuse dbus-broker squashfuse s3backer lmdb opslog; do
        jq -cS "$filter" "$MNT/sessions/$session/log" |
            cmp - <(jq -cS --arg s "$session" 'select(.session_id == $s)' "$INPUT")
    done
    t_eq "$(jq -s 'map(.payload.added) | add' "$MNT"/sessions/*/log)" "$(jq -s 'map(.payload.added) | add' "$INPUT")"
}

through_root()
{
    zcat "$DATA" >"$MNT/append"
    check_all
}

again_after_remount()
{
    t_remount -o segment_size=256K
    check_all
    t_kill9
    t_mount -o segment_size=256K
    check_all
    same_to_jq
}

# The same events once more: each has a seq of its own then, so it is a new record.
twice_is_twice()
{
    head -n 100 "$INPUT" >"$MNT/append"
    t_eq "$(wc -l <"$MNT/log")" 7219
    # But a log, read back in, adds nothing.
    cat "$MNT/log" >"$MNT/append"
    t_eq "$(wc -l <"$MNT/log")" 7219
}

through_each()
{
    local session
    : >"$INPUT.separate"
    t_use each
    t_mount
    for session in libfuse dbus-broker squashfuse s3backer lmdb opslog; do
        mkdir "$MNT/sessions/$session"
        grep "^{\"session_id\":\"$session\"" "$INPUT" >"$MNT/sessions/$session/append"
    done
    check_all
    rm "$INPUT.separate"
    t_unmount
}

zcat "$DATA" >"$INPUT"
t_test "the input is all there" t_eq "$(wc -l <"$INPUT")" 7119
t_mount -o segment_size=256K
t_test "through root append" through_root
t_test "jq over the log is jq over the input" same_to_jq
t_test "after a remount and after kill -9" again_after_remount
t_test "the input again, and the log again" twice_is_twice
t_unmount
t_test "each session through its own append" through_each
