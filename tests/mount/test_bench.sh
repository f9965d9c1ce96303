#!/usr/bin/env bash
# `make bench` at its smallest: every row is measured, what is not installed is named, and nothing is left behind.
# How fast anything is, is not asked. ENDS: at how many moments it is ended (4).
. "$(dirname "$0")/lib.sh"

programs=${HOTLOGFS%/*}/bench
place=$T_DIR/place
mkdir "$place"

bench() { "$T_ROOT/tests/bench/run" "$programs" "$HOTLOGFS" --size tiny --no-install --dir "$place" "$@"; }

nothing_is_left()
{
    t_eq "$(find "$place" -mindepth 1 | wc -l)" 0 "what is left in $place"
    t_eq "$(grep -c "$place" /proc/self/mountinfo || true)" 0 "mounts"
    python3 - "$place/" <<'PY'
import glob, sys
for path in glob.glob("/proc/[0-9]*/cmdline"):
    try:
        words = open(path, "rb").read().split(b"\0")
    except OSError:
        continue
    assert words[1:2] == [b"-"] or not any(sys.argv[1].encode() in word for word in words), words
PY
}

every_row()
{
    bench --rounds 2 --json "$T_DIR/result.json" >"$T_DIR/table"
    nothing_is_left
    python3 - "$T_DIR/result.json" "$T_DIR/table" <<'PY'
import json, sys
result, table = json.load(open(sys.argv[1])), open(sys.argv[2]).read()
assert len(result["rows"]) >= 15, [row["name"] for row in result["rows"]]
for row in result["rows"]:
    assert row["name"] in table, row["name"]
    assert row["found"] or row["absent"], row["name"]
    for name, why in row["absent"].items():
        assert any(word in why for word in ("not installed", "not there")), (row["name"], name, why)
    for name, found in row["found"].items():
        assert found["rounds"] in (1, 2), (row["name"], name)
        assert 0 <= found["least"] <= found["median"] <= found["most"], (row["name"], name, found)
        assert found["most"] > 0 or row["name"].startswith("CPU"), (row["name"], name)
for name in ("nullfs", "ext4 file", "SQLite NORMAL"):
    assert name in result["rows"][0]["found"], name
(size, grown), = result["growth"].items()
assert size == "500" and grown["own memory at its peak, MiB"] > 0, result["growth"]
PY
}

# Its figures go into the page that compares, and leave the rest of it as it is.
into_the_page()
{
    cp "$T_ROOT/docs/comparison.md" "$T_DIR/page.md"
    python3 -B "$T_ROOT/tests/bench/page.py" "$T_DIR/result.json" "$T_DIR/page.md"
    t_match "$(grep '^| append, held handle' "$T_DIR/page.md")" '^[^|]*\|[^|]*\| [0-9,.]+ \([^|]*\| NORMAL: [0-9][^|]*\|[^|]*\| [0-9]'
    t_match "$(grep '^| bytes on the disk' "$T_DIR/page.md")" '500 records \| [0-9]'
    t_eq "$(sed '/^<!-- figures/,/^<!-- end/d' "$T_DIR/page.md")" "$(sed '/^<!-- figures/,/^<!-- end/d' "$T_ROOT/docs/comparison.md")"
    cp "$T_DIR/page.md" "$T_DIR/again.md"
    python3 -B "$T_ROOT/tests/bench/page.py" "$T_DIR/result.json" "$T_DIR/again.md"
    t_same "$T_DIR/page.md" "$T_DIR/again.md"
}

some_rows()
{
    bench --rounds 1 --only "held handle" --json "$T_DIR/result.json" >"$T_DIR/table"
    t_eq "$(jq '.rows | length' "$T_DIR/result.json")" 1
    t_eq "$(jq '.growth | length' "$T_DIR/result.json")" 0
    nothing_is_left
}

mounted() { grep -q "$place" /proc/self/mountinfo; }

ended()
{
    local pid status=0
    "$T_ROOT/tests/bench/run" "$programs" "$HOTLOGFS" --size tiny --no-install --dir "$place" >/dev/null &
    pid=$!
    t_wait mounted
    kill "$pid"
    wait "$pid" || status=$?
    t_eq "$status" 143
    nothing_is_left
}

# Whatever it does then, and in whatever moment of that.
ended_anywhere()
{
    local arguments=("$programs" "$HOTLOGFS" --size tiny --no-install --dir "$place" --rounds 1 --only "ls -U" --only growth)
    local end status
    python3 "$T_HERE/end_bench.py" "$T_DIR/lines" - "${arguments[@]}" >/dev/null
    for end in $(seq "${ENDS:-4}"); do
        status=0
        python3 "$T_HERE/end_bench.py" "$T_DIR/lines" "$SEED-$end" "${arguments[@]}" >/dev/null || status=$?
        t_match "$status" '^(143|0)$'
        nothing_is_left
    done
}

t_test "every row is measured" every_row
t_test "its figures go into docs/comparison.md" into_the_page
t_test "only some" some_rows
t_test "one that is ended leaves nothing" ended
t_test "one that is ended at any moment leaves nothing" ended_anywhere
