#!/usr/bin/env bash
# test_readonly.sh - `-o ro`: beside a live writer, after one, and refused where there is nothing.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

py() { python3 "$T_HERE/readonly_cases.py" "$@"; }

# use_reader NAME: a second mount of the store of "main".
use_reader()
{
    t_use "$1"
    DIR=$STORE
}

same_size() { [ "$(stat -c %s "$1")" = "$(stat -c %s "$2")" ]; }

# followed WRITER READER: the reader comes to show what the writer has, and it is the same.
followed()
{
    local name
    t_wait same_size "$1/log" "$2/log"
    t_same "$1/log" "$2/log"
    for name in "$1"/sessions/*; do
        t_same "$name/log" "$2/sessions/${name##*/}/log"
    done
}

follows_appends()
{
    local w=$WRITER r i
    use_reader reader
    r=$MNT
    followed "$w" "$r"
    echo "one more" >"$w/sessions/s/append"
    followed "$w" "$r"
    t_match "$(tail -n 1 "$r/sessions/s/log")" '"one more"'
    t_eq "$(cat "$r/sessions/s/501")" "$(tail -n 1 "$w/sessions/s/log")"
    for i in {1..20}; do
        seq "$i" 300 >"$w/sessions/s/append"
        [ $((i % 4)) != 0 ] || echo rotate >"$w/.ctl"
        [ $((i % 5)) != 0 ] || echo checkpoint >"$w/.ctl"
        [ $((i % 7)) != 0 ] || echo '{"session_id":"new-'"$i"'","n":1}' >"$w/append"
        [ $((i % 10)) != 0 ] || followed "$w" "$r"
    done
    mkdir "$w/sessions/made"
    t_wait test -d "$r/sessions/made"
    echo reindex >"$w/.ctl"
    echo "after reindex" >"$w/sessions/made/append"
    followed "$w" "$r"
    py compare "$w" "$r"
    chmod 0751 "$w/sessions/s"
    t_wait has_mode "$r/sessions/s" 751
}

has_mode() { [ "$(stat -c %a "$1")" = "$2" ]; }
lines_are() { [ "$(wc -l <"$1")" = "$2" ]; }

tail_on_reader()
{
    local w=$WRITER r out=$T_DIR/tail.out pid i
    use_reader reader
    r=$MNT
    mkdir "$w/sessions/tailed"
    t_wait test -d "$r/sessions/tailed"
    tail -s 0.05 -n +1 -f "$r/sessions/tailed/log" >"$out" &
    pid=$!
    for i in {1..30}; do
        seq 1 100 >"$w/sessions/tailed/append"
        [ $((i % 10)) != 0 ] || echo rotate >"$w/.ctl"
        [ $((i % 10)) != 5 ] || echo checkpoint >"$w/.ctl"
    done
    t_wait lines_are "$out" 3000
    t_same "$out" "$w/sessions/tailed/log"
    kill "$pid"
    wait "$pid" || true
}

trims_beside()
{
    local w store
    t_use trimmed # of its own: the root's log keeps what sessions drop
    t_mount
    w=$MNT
    store=$DIR
    t_use trimmed-reader
    DIR=$store
    t_mount -o ro
    py trims_beside "$MNT" "$w"
    t_unmount
    t_use trimmed
    t_unmount
}

# What a reader shows of a session that is being written is whole lines, a beginning of what the writer has.
reader_beside_load()
{
    local w=$WRITER r end=$T_DIR/end pid=() i
    use_reader reader
    r=$MNT
    mkdir "$w/sessions/raced"
    t_wait test -d "$r/sessions/raced"
    python3 "$T_HERE/program_cases.py" race_reader "$r" raced "$end" &
    pid+=($!)
    t_wait test -e "$end.begun"
    for i in 0 1; do
        python3 "$T_HERE/program_cases.py" race_writer "$w" raced "$i" 600 &
        pid+=($!)
    done
    wait "${pid[1]}"
    wait "${pid[2]}"
    : >"$end"
    wait "${pid[0]}"
    followed "$w" "$r"
}

changes_are_refused()
{
    use_reader reader
    py refused "$MNT"
}

contents() { (cd "$STORE" && find . -type f -not -path './index/*' -exec sha256sum {} + | sort); }

# The writer ends and another comes while the reader stays.
writer_comes_and_goes()
{
    local r
    use_reader reader
    r=$MNT
    t_use main
    t_unmount
    t_match "$(tail -n 1 "$r/sessions/s/log")" '"seq"'
    t_mount -o segment_size=64K
    echo "a second writer" >"$MNT/sessions/s/append"
    followed "$MNT" "$r"
    t_kill9
    t_mount -o segment_size=64K
    echo "a third, after a kill" >"$MNT/sessions/s/append"
    followed "$MNT" "$r"
}

several_readers()
{
    local w=$WRITER i
    for i in 1 2 3; do
        use_reader "reader-$i"
        t_mount -o ro
    done
    seq 1 500 >"$w/sessions/s/append"
    for i in 1 2 3; do
        use_reader "reader-$i"
        followed "$w" "$MNT"
        t_unmount
    done
}

# After the writer ended (cleanly, or by kill -9) a reader shows all that was acknowledged, and changes nothing.
alone_after()
{
    local how=$1 before
    t_use main
    seq 1 700 >"$MNT/sessions/s/append"
    printf '{"session_id":"%s","of":"the last batch"}\n' s other s >"$T_DIR/batch"
    cat "$T_DIR/batch" >"$MNT/append"
    cat "$MNT/log" >"$T_DIR/want"
    if [ "$how" = kill ]; then
        t_kill9
    else
        t_unmount
    fi
    before=$(contents)
    use_reader "alone-$how"
    t_mount -o ro
    t_same "$MNT/log" "$T_DIR/want"
    t_eq "$(cat "$MNT"/sessions/*/log | sort | sha256sum)" "$(sort "$T_DIR/want" | sha256sum)"
    py refused "$MNT"
    t_unmount
    t_eq "$(contents)" "$before" "the files of the store"
    t_use main
    t_mount -o segment_size=64K
    t_same "$MNT/log" "$T_DIR/want"
}

# A torn tail is "not yet" to a reader: it stays where it is.
torn_tail_is_left()
{
    local before
    t_use main
    seq 1 10 >"$MNT/sessions/s/append"
    cat "$MNT/log" >"$T_DIR/want"
    t_kill9
    python3 "$T_HERE/damage_cases.py" damage "$STORE" "$T_DIR/facts" append_garbage bytes
    before=$(contents)
    use_reader torn
    t_mount -o ro
    t_same "$MNT/log" "$T_DIR/want"
    t_unmount
    t_eq "$(contents)" "$before" "the files of the store"
    t_use main
    t_mount -o segment_size=64K
    t_same "$MNT/log" "$T_DIR/want"
}

missing_is_refused()
{
    t_use missing
    t_run "$HOTLOGFS" "$DIR" "$MNT" -f -o ro
    t_eq "$T_STATUS" 1 "the status for a missing store"
    t_match "$T_OUT" "$DIR"
    t_absent "$DIR"
    mkdir "$DIR"
    t_run "$HOTLOGFS" "$DIR" "$MNT" -f -o ro
    t_eq "$T_STATUS" 1 "the status for an empty directory"
    t_eq "$(ls -A "$DIR")" "" "what is in it then"
}

t_mount -o segment_size=64K
STORE=$DIR
WRITER=$MNT
mkdir "$MNT/sessions/s"
setfattr -n user.kept -v kept "$MNT/sessions/s"
seq 1 500 >"$MNT/sessions/s/append"
use_reader reader
t_mount -o ro
t_test "a reader follows appends, rotation, checkpoint, reindex" follows_appends
t_test "tail -f on a reader" tail_on_reader
t_test "a log that is open on a reader while the writer trims" trims_beside
t_test "a reader beside load" reader_beside_load
t_test "every change is EROFS" changes_are_refused
t_test "several readers" several_readers
t_test "a reader outlives its writer" writer_comes_and_goes
use_reader reader
t_unmount
t_test "alone, after a clean end" alone_after unmount
t_test "alone, after kill -9" alone_after kill
t_test "a torn tail is left alone" torn_tail_is_left
t_use main
t_unmount
t_test "a missing or empty store is refused" missing_is_refused
