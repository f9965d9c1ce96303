#!/usr/bin/env bash
# test_fsck.sh - fsck.hotlogfs: what it finds, mends and refuses, its options and its exit status.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

BASE=$T_DIR/stores/base # not where the harness looks for logs of daemons

py() { python3 "$T_HERE/fsck_cases.py" "$@"; }

make_base()
{
    local i
    t_mount -o segment_size=64K
    mkdir "$MNT/sessions/s" "$MNT/sessions/t"
    for i in 1 2 3; do
        seq 1 1500 >"$MNT/sessions/s/append"
        seq 1 1500 | sed 's/.*/{"n":&,"kind":"Cost"}/' >"$MNT/sessions/t/append"
        echo rotate >"$MNT/.ctl"
        echo checkpoint >"$MNT/.ctl"
    done
    echo last >"$MNT/sessions/s/append"
    cp "$MNT/sessions/s/log" "$T_DIR/s.log"
    cp "$MNT/sessions/t/log" "$T_DIR/t.log"
    t_unmount
    mkdir "$T_DIR/stores"
    cp -a "$DIR" "$BASE"
}

again()
{
    rm -rf "$DIR"
    cp -a "$BASE" "$DIR"
}

# What the mounted store shows is what was there, less at most so many lines; and it goes on.
shows_all_but()
{
    local lost=$1 name missing=0
    for name in s t; do
        sort "$T_DIR/$name.log" >"$T_DIR/was"
        grep -v '"payload":"more"' "$MNT/sessions/$name/log" | sort >"$T_DIR/is"
        [ -z "$(comm -13 "$T_DIR/was" "$T_DIR/is")" ] || t_fail "session $name shows what was never there"
        missing=$((missing + $(comm -23 "$T_DIR/was" "$T_DIR/is" | wc -l)))
    done
    [ "$missing" -le "$lost" ] || t_fail "$missing records are gone, of at most $lost"
    echo more >"$MNT/sessions/s/append"
    jq -e '.damage_found == 0' "$MNT/.status" >/dev/null
}

sound()
{
    local before
    before=$(py tree "$DIR")
    t_fsck 0 "$DIR"
    t_match "$T_OUT" "clean; 9001 records of 2 sessions"
    t_fsck 0 --json -n "$DIR"
    t_eq "$(jq -c '[.problems, .left, .mended, .records, .sessions, .status, (.findings | length)]' <<<"$T_OUT")" \
        "[0,0,false,9001,2,0,0]"
    t_eq "$(py tree "$DIR")" "$before" "the store after a check"
    t_fsck 0 -y "$DIR"
    t_fsck 0 -p "$DIR"
}

in_use()
{
    t_mount
    t_fsck 8 "$DIR"
    t_match "$T_OUT" "in use by process $DAEMON_PID"
    t_fsck 8 --json -y "$DIR"
    t_eq "$(jq -c '[.error.errno, .error.pid, .status]' <<<"$T_OUT")" "[\"EBUSY\",$DAEMON_PID,8]"
    t_fsck 0 -M "$DIR"
    t_kill9
    t_fsck 0 "$DIR" # as a crash left it: nothing is wrong with that
    t_mount
    t_unmount
    again
}

# What is checked cannot be mounted for writing meanwhile, and two checks do not mind each other.
shares()
{
    t_mount -o ro
    t_fsck 0 "$DIR"
    t_unmount
}

usage()
{
    local words
    for words in "" "$DIR $DIR" "-n -y $DIR" "-p -y $DIR" "--restore $DIR" "--restore -p $DIR" "-Cx $DIR" \
        "--nonsense $DIR" "-Q $DIR" "-t ext4 $DIR" "-t"; do
        # shellcheck disable=SC2086
        t_fsck 16 $words
        t_match "$T_OUT" "Try 'fsck.hotlogfs --help'"
    done
    t_fsck 0 --help
    t_match "$T_OUT" "usage: fsck.hotlogfs"
    t_fsck 0 -V
    t_match "$T_OUT" "^fsck.hotlogfs [0-9]"
    t_fsck 8 "$T_DIR/nothing-there"
    t_match "$T_OUT" "no store"
    t_fsck 8 -y "$T_DIR/nothing-there"
    t_absent "$T_DIR/nothing-there"
    mkdir "$T_DIR/empty"
    t_fsck 8 -y "$T_DIR/empty"
    t_eq "$(find "$T_DIR/empty" | wc -l)" 1 "what was made in an empty directory"
}

# Every option of --help is in the manual page, and none that is not taken.
documented()
{
    local option page=$T_ROOT/man/fsck.hotlogfs.8
    "$T_FSCK" --help | grep -oE -- '(^|[ ,[|])--?[a-zA-Z]+' | tr -d ' ,[|' | sort -u >"$T_DIR/options"
    grep -q -- --restore "$T_DIR/options" || t_fail "no options in --help"
    while read -r option; do
        option=${option#-}
        grep -E '^\.(It|Op|Nm|Fl|Op)? ?.*Fl ' "$page" | sed 's/\\-/-/g' | grep -qE -- "[ |]$option( |\$)" ||
            t_fail "fsck.hotlogfs(8) says nothing of -$option"
    done <"$T_DIR/options"
}

# What fsck(8) passes, and what people are used to from others.
fsck_passes()
{
    t_fsck 0 -a -C0 "$DIR"
    t_fsck 0 -A -M -N -R -T -P -f -r -s -l -v -t hotlogfs "$DIR"
    t_fsck 0 -C -n "$DIR"
    t_fsck 0 -C 0 "$DIR"
    echo "$DIR $T_DIR/no-mountpoint hotlogfs noauto 0 2" >"$T_DIR/fstab"
    t_run env PATH="${T_FSCK%/*}:$PATH" FSTAB_FILE="$T_DIR/fstab" LIBMOUNT_FSTAB="$T_DIR/fstab" fsck -C "$DIR" -a
    t_eq "$T_STATUS" 0 "fsck(8): $T_OUT"
    t_match "$T_OUT" "clean"
}

progress()
{
    t_fsck 0 -C5 "$DIR" 5>"$T_DIR/progress"
    grep -Eq "^1 [0-9]+ [1-9][0-9]* $DIR\$" "$T_DIR/progress" || t_fail "progress: $(head "$T_DIR/progress")"
    py on_a_terminal "$T_FSCK" "$DIR"
}

# damaged KIND FINDING LOST: found and left alone, mended, clean, mounted.
damaged()
{
    local kind=$1 finding=$2 lost=$3 before
    again
    py damage "$kind" "$DIR"
    before=$(py tree "$DIR")
    t_fsck 4 "$DIR"
    t_fsck 4 --json "$DIR"
    jq -e --arg kind "$finding" '.left > 0 and any(.findings[]; .kind == $kind and .mendable)' <<<"$T_OUT" >/dev/null ||
        t_fail "$finding was not found: $T_OUT"
    t_eq "$(py tree "$DIR")" "$before" "the store after a check"
    t_fsck 1 -y --json "$DIR"
    jq -e '.left == 0 and .mended and (.actions | length) > 0' <<<"$T_OUT" >/dev/null || t_fail "$T_OUT"
    t_fsck 0 "$DIR"
    t_mount -o segment_size=64K
    shows_all_but "$lost"
    t_unmount
    t_fsck 0 "$DIR"
}

# A compaction was cut short behind its rename: the index is behind it. A stale segment alone, which somebody
# copied back, is no problem; it goes at the next mount.
stale()
{
    again
    py damage stale "$DIR"
    t_fsck 4 --json "$DIR"
    jq -e '[.findings[] | .kind] == ["stale", "stale", "index"]' <<<"$T_OUT" >/dev/null || t_fail "$T_OUT"
    t_mount -o segment_size=64K
    shows_all_but 0
    t_unmount
    t_fsck 0 --json "$DIR"
    jq -e '.findings == []' <<<"$T_OUT" >/dev/null || t_fail "$T_OUT"
    cp "$DIR"/backup/*3.0.seg "$DIR/log/"
    t_fsck 0 --json "$DIR"
    jq -e '[.findings[] | .kind] == ["stale"]' <<<"$T_OUT" >/dev/null || t_fail "$T_OUT"
    t_fsck 0 "$DIR"
    t_match "$T_OUT" "clean"
    t_fsck 0 -v "$DIR"
    t_match "$T_OUT" "is replaced by"
}

# -p mends what a mount would, and leaves the rest.
preen()
{
    again
    py damage tail "$DIR"
    t_fsck 1 -p "$DIR"
    again
    py damage no-index "$DIR"
    t_fsck 1 -a "$DIR"
    again
    py damage tail "$DIR"
    py damage frame "$DIR"
    t_fsck 5 -p "$DIR"
    t_match "$T_OUT" "1 problem left"
    t_fsck 1 -y "$DIR"
    t_fsck 0 "$DIR"
}

restore()
{
    local path
    again
    path=$(py compact "$DIR" 2 4)
    t_mount -o segment_size=64K
    t_unmount
    t_fsck 0 "$DIR"
    py flip "$path" 3000
    t_fsck 1 -y --restore "$DIR"
    t_match "$T_OUT" "was put back from backup/"
    t_absent "$path"
    t_fsck 0 "$DIR"
    t_mount -o segment_size=64K
    shows_all_but 0
    echo "snapshot kept" >"$MNT/.ctl"
    t_unmount
    rm -r "$DIR/backup"
    path=$DIR/log/00000003-00000003.0.seg
    py flip "$path" 3000 # the snapshot has the very same file
    t_fsck 1 -y --restore "$DIR"
    t_match "$T_OUT" "nothing sound"
    t_fsck 0 "$DIR"
    cp "$BASE/log/00000003-00000003.0.seg" "$T_DIR/copy"
    cp --remove-destination "$T_DIR/copy" "$DIR/snapshots/kept/log/00000003-00000003.0.seg"
    rm "$path"
    t_fsck 1 -y --restore "$DIR"
    t_match "$T_OUT" "was put back from snapshots/kept/log/"
    t_mount -o segment_size=64K
    shows_all_but 0
    t_unmount
}

read_only_medium()
{
    local ro=$T_DIR/stores/ro
    again
    mkdir "$ro"
    mount --bind "$DIR" "$ro"
    t_defer umount "$ro"
    mount -o remount,bind,ro "$ro"
    t_fsck 0 "$ro"
    t_fsck 8 -y "$ro"
}

make_base
t_test "a sound store is clean, and is not changed" sound
t_test "a store in use is refused by the pid of its user" in_use
t_test "a read-only mount is no hindrance" shares
t_test "wrong usage, help, version, no store" usage
t_test "every option is in the manual page" documented
t_test "what fsck(8) passes is taken" fsck_passes
t_test "damage: a bit of one header" damaged header header 0
t_test "damage: both headers, the index has the salt" damaged headers header 0
t_test "damage: a bit of a frame" damaged frame gap 1
t_test "damage: zeros" damaged zeros gap 60
t_test "damage: a frame copied over another" damaged copied gap 2
t_test "damage: the seal" damaged seal seal 0
t_test "damage: a segment is gone" damaged missing missing 3000
t_test "damage: a torn tail" damaged tail torn-tail 0
t_test "damage: the index" damaged index index 0
t_test "damage: no index" damaged no-index index 0
t_test "damage: a checkpoint" damaged checkpoint checkpoint 0
t_test "damage: the index and all checkpoints" damaged all-copies checkpoint 0
t_test "a stale segment is no problem" stale
t_test "-p mends what needs no decision" preen
t_test "--restore puts segments back" restore
t_test "a read-only medium" read_only_medium

# A larger one, so that there is progress to tell of.
t_use large
t_mount
mkdir "$MNT/sessions/s"
seq 1 60000 >"$MNT/sessions/s/append"
t_unmount
t_test "progress, for programs and on a terminal" progress
t_test "SIGINT cancels" py cancelled "$T_FSCK" "$DIR"
