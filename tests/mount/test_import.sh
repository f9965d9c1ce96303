#!/usr/bin/env bash
# test_import.sh - scripts/import-*: stores and logs of other kinds become sessions. The stores of opslog are of the
# real package's making, and so is what they must become.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

# 1: the sessions' state/ and archive/ are compared, too, and not only what their logs add up to.
export STATE_IS_BUILT=${STATE_IS_BUILT:-0}

DATA=$T_ROOT/tests/data/opslog

opslog() { python3 "$T_HERE/import_opslog_cases.py" "$@"; }
other() { python3 "$T_HERE/import_cases.py" "$@"; }
sums() { (cd "$1" && find stores -type f | sort | xargs -d '\n' sha256sum); }

# The kept stores are what the package makes; and what a random walk with it makes is read as the package reads it.
# Where there is no npm, it is at least known that nobody changed the kept ones.
made_by_the_package()
{
    diff <(sums "$DATA") "$DATA/SHA256SUMS"
    command -v npm >/dev/null || return 0
    mkdir "$T_DIR/npm" "$T_DIR/made"
    cd "$T_DIR/npm"
    npm_config_cache=$T_DIR/npm-cache npm install --silent --no-audit --no-fund @backloghq/opslog@0.8.1
    node --no-warnings "$DATA/make.mjs" "$T_DIR/made/stores"
    diff <(sums "$T_DIR/made") "$DATA/SHA256SUMS"
    node --no-warnings "$DATA/make.mjs" "$T_DIR/random" random "$SEED" "${ROUNDS:-15}" 2>"$T_DIR/npm/said" ||
        t_fail "make.mjs: $(tail -n 5 "$T_DIR/npm/said")"
    opslog random_stores "$T_DIR/random" "$MNT"
}

# As a user types it.
straight_into_append()
{
    local s=$MNT/sessions/straight
    mkdir "$s"
    "$T_ROOT/scripts/import-opslog" "$DATA/stores/single/store" >"$s/append"
    t_eq "$(jq -r 'select(.key == "numbers").value.small' "$s/log")" 1e-07
    (cd / && python3 "$T_ROOT/scripts/import-append-log" - <<<'{"op":"SET","id":"k","data":1}' >>"$s/append")
    t_match "$(tail -n 1 "$s/log")" '"op":"set","key":"k","value":1'
    "$T_ROOT/scripts/import-transcript" --session both "$T_ROOT"/tests/data/transcripts/rollout-*.jsonl >"$MNT/append"
    t_eq "$(jq -s 'map(.tokens_out // 0) | add' "$MNT/sessions/both/log")" 310
    find "$T_ROOT/scripts" -name '__pycache__' | grep . && t_fail "left compiled files" || true
}

mkdir "$T_DIR/room"
t_mount
t_test "opslog: stores of the real package" opslog kept "$MNT"
t_test "opslog: kept and random stores as the package makes them" made_by_the_package
t_test "opslog: what cannot be held" opslog unfit "$MNT"
t_test "opslog: torn and malformed lines" opslog torn_lines_are_events "$MNT"
t_test "opslog: times" opslog times "$MNT"
t_test "opslog: through the root append" opslog through_root "$MNT"
t_test "opslog: damaged stores print nothing" opslog damaged "$T_DIR/room"
t_test "opslog: archives that are not listed" opslog archives_not_listed "$MNT"
t_test "opslog: read in pieces" opslog in_pieces "$T_DIR/room"
t_test "opslog: longer than max_record" opslog long_values "$T_DIR/room"
t_test "append logs: operations are understood" other operations_are_understood "$MNT"
t_test "append logs: nothing is lost" other nothing_is_lost "$MNT"
t_test "append logs: lines without a time" other times_of_lines_without
t_test "append logs: BOM, CR, torn ends" other endings
t_test "append logs: rotated, packed, sorted" other files_in_order "$T_DIR/room"
t_test "append logs: long checkpoints" other long_checkpoints "$MNT"
t_test "append logs: random ones against a model" other random_logs "$MNT" "$T_DIR/room"
t_test "transcripts: Claude Code" other claude "$MNT"
t_test "transcripts: Claude Code with a sub-agent" other claude_with_subagent "$MNT"
t_test "transcripts: Codex" other codex "$MNT"
t_test "transcripts: a fork of Codex" other codex_fork
t_test "transcripts: Codex as it was" other codex_of_old "$MNT"
t_test "transcripts: sessions" other sessions_of_files "$T_DIR/room"
t_test "transcripts: one that grows" other a_transcript_that_grows "$MNT" "$T_DIR/room"
t_test "noise is taken by all" other noise_is_taken "$MNT" "$T_DIR/room"
t_test "lines longer than max_record" other sizes "$T_DIR/room"
t_test "memory stays flat" other memory_stays_flat "$T_DIR/room"
t_test "refusals are told" other refusals_are_told "$MNT"
t_test "help and usage" other help_and_usage
t_test "straight into append" straight_into_append
t_test "unmounts cleanly" t_unmount
