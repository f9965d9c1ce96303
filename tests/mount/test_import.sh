#!/usr/bin/env bash
# test_import.sh - scripts/import-*: stores and logs of other kinds become sessions. The stores of opslog are of the
# real package's making, and so is what they must become.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

# The directories of documents that the mount shows, of "state archive": their files are compared, too, and not only
# what the log adds up to.
export DOCUMENTS_ARE_FILES_IN=${DOCUMENTS_ARE_FILES_IN-state archive}

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

# The commands of docs/migration.md as they stand.
the_page()
{
    local data=$T_ROOT/tests/data
    t_use page
    t_mount
    mkdir -p "$T_HOME/home/.claude/projects/-home-ada-game" "$T_HOME/home/.codex/sessions/2025/11/03" "$T_HOME/work/old"
    cp "$data"/transcripts/3f0c*.jsonl "$data"/transcripts/agent-*.jsonl "$T_HOME/home/.claude/projects/-home-ada-game/"
    cp "$data"/transcripts/rollout-*.jsonl "$T_HOME/home/.codex/sessions/2025/11/03/"
    cd "$T_HOME/work"
    ln -s "$MNT" m
    ln -s "$T_ROOT/scripts" scripts
    cp -r "$data/opslog/stores/agents/store" old/tasks
    printf '{"op":"SET","id":"n","data":%s,"ts":"2025-01-0%s"}\n' 2 2T00:00:00Z >bot.log
    printf '{"op":"SET","id":"n","data":%s,"ts":"2025-01-0%s"}\n' 1 1T00:00:00Z | gzip >bot.log.1.gz
    printf '{"time":"2025-01-01T00:00:00Z","level":"info"}\n' >events.jsonl
    # The last transcripts' block numbers lines that the block before appended without numbers: a store of its own.
    sed -n '/^```sh$/,/^```$/{/^```/!p}' "$T_ROOT/docs/migration.md" >all.sh
    grep -v -e --seq all.sh >page.sh
    [ "$(wc -l <page.sh)" -ge 10 ] || t_fail "no commands in docs/migration.md"
    t_run env HOME="$T_HOME/home" bash -euo pipefail page.sh
    echo "$T_OUT"
    t_eq "$T_STATUS" 0 "exit status"
    t_eq "$(jq -s '[.[] | select(.op == "set")] | length' m/sessions/tasks/log)" 20
    t_eq "$(jq -c .value m/sessions/bot/log | tr '\n' ' ')" "1 2 "
    t_eq "$(cat m/sessions/3f0c*/log m/sessions/0199f0*/log | jq -s 'map(.tokens_out // 0) | add')" $((283 + 11 + 310))
    t_eq "$(jq -c 'select(.ts_exact) | [.ts_ms, .payload.level]' m/sessions/events/log)" '[1735689600000,"info"]'
    cd /
    t_unmount
    t_use numbered
    t_mount
    ln -sfn "$MNT" "$T_DIR/page/work/m"
    cd "$T_DIR/page/work"
    grep -e --seq all.sh >seq.sh
    for _ in 1 2; do
        HOME=$T_DIR/page/home bash -euo pipefail seq.sh
        t_eq "$(wc -l <m/log)" 28
    done
    cd /
    t_unmount
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
t_test "docs/migration.md" the_page
t_test "unmounts cleanly" t_unmount
