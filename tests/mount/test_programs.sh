#!/usr/bin/env bash
# test_programs.sh - the programs that people have, writing and reading through a real mount.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

py() { python3 "$T_HERE/program_cases.py" "$@"; }

LINES=$T_DIR/lines # lines of all kinds and lengths, about 1 MB
EVENTS=$T_DIR/events # JSON only, as jq -c writes it

make_input()
{
    py make_lines "$LINES" 6000 4000
    seq 1 5000 | jq -c '{kind: "ToolCall", tool: "seq", payload: {n: ., text: ("é" * (. % 50))}}' >"$EVENTS"
}

# program NAME FILE COMMAND…: the command, with $A the session's append, must leave exactly the file's lines.
program()
{
    local name=$1 file=$2
    shift 2
    mkdir "$MNT/sessions/$name"
    A=$MNT/sessions/$name/append F=$file timeout 600 bash -c "$*"
    py check "$MNT" "$name" "$file"
}

in_python()
{
    program python "$LINES" 'python3 -c "
import os, sys
with open(sys.argv[1], \"rb\") as source, open(sys.argv[2], \"ab\") as target:
    for line in source:
        target.write(line)
" "$F" "$A"'
}

in_python_text()
{
    program python-text "$EVENTS" 'python3 -c "
import json, sys
with open(sys.argv[2], \"a\", buffering=1) as log:
    for line in open(sys.argv[1]):
        print(line, end=\"\", file=log)
" "$F" "$A"'
}

in_node()
{
    program node-stream "$LINES" 'node -e "
const fs = require(\"fs\");
fs.createReadStream(process.argv[1]).pipe(fs.createWriteStream(process.argv[2], {flags: \"a\"}));
" "$F" "$A"'
    program node-sync "$EVENTS" 'node -e "
const fs = require(\"fs\");
for (const line of fs.readFileSync(process.argv[1], \"utf8\").split(\"\\n\").slice(0, -1))
    fs.appendFileSync(process.argv[2], line + \"\\n\");
" "$F" "$A"'
    program node-write "$LINES" 'node -e "
const fs = require(\"fs\");
fs.writeFileSync(process.argv[2], fs.readFileSync(process.argv[1]));
" "$F" "$A"'
}

eight_writers()
{
    local s=$MNT/sessions/eight i count=1500 pids=()
    mkdir "$s"
    for i in {0..7}; do
        py race_writer "$MNT" eight "$i" $count &
        pids+=($!)
    done
    for i in "${pids[@]}"; do
        wait "$i"
    done
    py race_check "$MNT" eight 8 $count
}

# Shells, each a line at a time, beside one another.
eight_shells()
{
    local s=$MNT/sessions/shells i pids=() shell
    mkdir "$s"
    for i in {0..7}; do
        shell=bash
        [ $((i % 2)) = 0 ] || shell=dash
        "$shell" -c 'n=0; while [ $n -lt 200 ]; do
            echo "{\"tool\":\"w$2\",\"payload\":{\"at\":$n,\"fill\":\"abc\",\"len\":3}}" >>"$1" || exit 1
            n=$((n + 1)); done' - "$s/append" "$i" &
        pids+=($!)
    done
    for i in "${pids[@]}"; do
        wait "$i"
    done
    py race_check "$MNT" shells 8 200
}

# ---- reading ------------------------------------------------------------------------------------------

log_readers()
{
    local s=$MNT/sessions/cat log=$T_DIR/log-copy seq
    cat "$s/log" >"$log"
    t_eq "$(wc -l <"$s/log")" 6000 "wc -l"
    t_eq "$(wc -c <"$s/log")" "$(stat -c %s "$s/log")" "wc -c"
    tail -n 5 "$s/log" | cmp - <(tail -n 5 "$log")
    tail -n 3000 "$s/log" | cmp - <(tail -n 3000 "$log")
    tail -c 12345 "$s/log" | cmp - <(tail -c 12345 "$log")
    tail -n +5990 "$s/log" | cmp - <(tail -n +5990 "$log")
    head -c 100000 "$s/log" | cmp - <(head -c 100000 "$log")
    less -f "$s/log" </dev/null | cmp - "$log"
    dd if="$s/log" bs=4096 skip=20 count=7 status=none | cmp - <(dd if="$log" bs=4096 skip=20 count=7 status=none)
    dd if="$s/log" bs=777 skip=100 status=none | cmp - <(dd if="$log" bs=777 skip=100 status=none)
    dd if="$s/log" bs=64K iflag=direct status=none | cmp - "$log"
    cmp "$s/log" "$log"
    tac "$s/log" | cmp - <(tac "$log")
    sort "$s/log" | cmp - <(sort "$log")
    cp "$s/log" "$T_DIR/log-cp"
    t_same "$T_DIR/log-cp" "$log"
    python3 -c '
import mmap, sys
with open(sys.argv[1], "rb") as file, open(sys.argv[2], "rb") as copy:
    assert mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)[:] == copy.read()
' "$s/17" <(sed -n 17p "$log")
    for seq in 1 2 100 5999 6000; do
        cmp "$s/$seq" <(sed -n "${seq}p" "$log")
    done
    t_eq "$(jq -s length "$s/log")" 6000 "jq"
    t_eq "$(grep -c . "$s/log")" 6000 "grep -c"
    t_eq "$(awk 'END { print NR }' "$s/log")" 6000 awk
    sha256sum "$s/log" | cmp - <(sha256sum "$log" | sed "s|$log|$s/log|")
}

tree_readers()
{
    local s=$MNT/sessions/tree copy=$T_DIR/files/tree-copy
    mkdir "$s"
    head -n 400 "$EVENTS" >"$s/append"
    echo "the needle" >"$s/append"
    t_run timeout 180 grep -rl "the needle" "$s"
    t_eq "$T_STATUS" 0 "grep -r: $T_OUT"
    t_match "$T_OUT" "$s/401"
    t_match "$T_OUT" "$s/log"
    t_eq "$(timeout 180 find "$s" -type f -regex '.*/[0-9]+' | wc -l)" 401 "find"
    t_eq "$(timeout 180 find "$s" -type f -name '[0-9]*' -exec cat {} + | sort | sha256sum)" "$(sort "$s/log" | sha256sum)"
    mkdir "$T_DIR/files"
    timeout 180 cp -r "$s" "$copy"
    t_same "$copy/log" "$s/log"
    t_same "$copy/401" "$s/401"
    t_run timeout 180 diff -r "$s" "$copy"
    t_eq "$T_STATUS" 0 "diff -r: $T_OUT"
    t_run timeout 180 tar -C "$MNT/sessions" -cf "$T_DIR/tree.tar" tree
    t_eq "$T_STATUS$T_OUT" 0 "tar c"
    mkdir "$T_DIR/files/untarred"
    tar -C "$T_DIR/files/untarred" -xf "$T_DIR/tree.tar"
    t_run diff -r "$copy" "$T_DIR/files/untarred/tree"
    t_eq "$T_STATUS$T_OUT" 0 "what tar saved"
    t_eq "$(stat -c %Y "$T_DIR/files/untarred/tree/401")" "$(($(jq .ts_ms "$s/401") / 1000))" "the time that tar kept"
    timeout 180 cp -a "$s/log" "$s/7" "$T_DIR/files/untarred/"
    t_same "$T_DIR/files/untarred/7" "$s/7"
    t_run timeout 180 grep -rc . "$MNT/sessions/tree/" --include='[0-9]*'
    t_eq "$T_STATUS" 0 "grep -rc"
}

lines_are() { [ "$(wc -l <"$1")" = "$2" ]; }

tail_follows()
{
    local s=$MNT/sessions/followed out=$T_DIR/tail.out pid i
    mkdir "$s"
    echo first >"$s/append"
    tail -s 0.05 -n +1 -f "$s/log" >"$out" &
    pid=$!
    t_wait lines_are "$out" 1
    for i in {2..40}; do
        echo "line $i" >"$s/append"
        [ $((i % 10)) != 0 ] || t_wait lines_are "$out" "$i"
        [ "$i" != 15 ] || echo rotate >"$MNT/.ctl"
        [ "$i" != 25 ] || echo checkpoint >"$MNT/.ctl"
    done
    seq 41 500 >"$s/append"
    t_wait lines_are "$out" 500
    t_same "$out" "$s/log"
    kill "$pid"
    wait "$pid" || true
}

# One store's root log, catted into another's append, is the same store again.
replicate()
{
    local one=$MNT
    t_use replica
    t_mount
    cat "$one/log" >"$MNT/append"
    t_same "$one/log" "$MNT/log"
    cp "$one/log" "$MNT/append" # again: nothing new
    t_same "$one/log" "$MNT/log"
    py copy_of_a_log "$one" cat "$MNT"
    t_same "$one/log" "$MNT/log"
    t_unmount
}

make_input
t_mount
for size in 1 7 4096 98304 131072 1048576; do
    t_test "write() of $size bytes" py write_sizes "$MNT" "$LINES" "$size"
done
t_test "writev" py writev "$MNT" "$LINES"
t_test "sendfile" py sendfile "$MNT" "$LINES"
t_test "splice" py splice "$MNT" "$LINES"
t_test "copy_file_range" py copy_file_range "$MNT" "$LINES"
t_test "O_DIRECT" py direct "$MNT" "$LINES"
t_test "cat" program cat "$LINES" 'cat "$F" >"$A"'
t_test "cat, from a pipe" program cat-pipe "$LINES" 'cat "$F" | cat >>"$A"'
t_test "cp" program cp "$LINES" 'cp "$F" "$A"'
t_test "cp --no-preserve --sparse" program cp-sparse "$LINES" 'cp --no-preserve=all --sparse=never "$F" "$A"'
t_test "dd" program dd "$LINES" 'dd if="$F" of="$A" bs=1000 status=none'
t_test "dd conv=fsync" program dd-fsync "$LINES" 'dd if="$F" of="$A" bs=1M conv=fsync status=none'
t_test "dd conv=notrunc,fdatasync oflag=append" \
    program dd-append "$LINES" 'dd if="$F" of="$A" bs=64K conv=notrunc,fdatasync oflag=append status=none'
t_test "dd oflag=direct" program dd-direct "$LINES" 'dd if="$F" of="$A" bs=64K oflag=direct status=none'
t_test "dd oflag=sync" program dd-sync "$EVENTS" 'dd if="$F" of="$A" bs=32K oflag=sync status=none'
t_test "tee -a" program tee "$LINES" 'tee -a "$A" <"$F" >/dev/null'
t_test "jq -c" program jq "$EVENTS" 'jq -c . "$F" >"$A"'
t_test "jq -c --unbuffered" program jq-unbuffered "$EVENTS" 'jq -c --unbuffered . "$F" >>"$A"'
t_test "split --filter" program split "$LINES" 'split -l 700 --filter="cat >>\"$A\"" "$F"'
t_test "sed -u" program sed "$EVENTS" 'sed -u p -n "$F" >"$A"'
t_test "awk" program awk "$EVENTS" 'awk "{ print >>\"$A\" }" "$F"'
t_test "a loop of printf into one open file" program printf "$EVENTS" 'head -n 5000 "$F" | while read -r line; do printf "%s\n" "$line"; done >"$A"'
t_test "bash, one echo a line" program bash "$EVENTS" 'while IFS= read -r line; do echo "$line" >>"$A"; done <"$F"'
t_test "bash, long output" program bash-long "$LINES" 'printf "%s\n" "$(tr -d "\0" <"$F")" >"$A"'
t_test "dash" program dash "$EVENTS" 'dash -c "while IFS= read -r line; do printf \"%s\n\" \"\$line\"; done <\"$F\" >\"$A\""'
t_test "python" in_python
t_test "python, a line at a time" in_python_text
if command -v node >/dev/null; then
    t_test "node" in_node
fi
t_test "8 writers at once to one session" eight_writers
t_test "8 shells at once to one session" eight_shells
t_test "readers of a log" log_readers
t_test "grep -r, find, cp -r, tar, diff" tree_readers
t_test "tail -f across appends, rotate and checkpoint" tail_follows
t_test "a root log copied to another store" replicate
t_unmount
t_use long
t_mount
t_test "lines of 16 MiB" py long_lines "$MNT"
t_unmount
