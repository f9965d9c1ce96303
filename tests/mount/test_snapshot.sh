#!/usr/bin/env bash
# test_snapshot.sh - snapshots: taken while others append, mounted read-only and as stores, cut short.
#
# ROUNDS: how often the daemon is killed in the middle of one (12).
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

ROUNDS=${ROUNDS:-12}
SMALL=segment_size=64K

py() { python3 "$T_HERE/snapshot_cases.py" "$@"; }

# on_snapshot STORE NAME OPTIONS COMMAND…: mounts that snapshot, runs the command with its mountpoint, unmounts.
on_snapshot()
{
    local store=$1 name=$2 options=$3 home=$T_HOME
    shift 3
    t_use "of-${home##*/}-$name-${options%%,*}"
    DIR=$store/snapshots/$name
    t_mount -o "$options"
    jq -e '.damage_found == 0 and .recovered_records == 0' "$MNT/.status" || t_fail "$name was not whole"
    "$@"
    t_unmount
    t_use "${home##*/}"
}

# Appends to a mounted snapshot, which is a store of its own.
goes_on()
{
    local before
    before=$(wc -l <"$MNT/log")
    echo "only in the copy" >"$MNT/sessions/w0/append"
    t_match "$(tail -n 1 "$MNT/sessions/w0/log")" "only in the copy"
    t_eq "$(wc -l <"$MNT/log")" "$((before + 1))"
    exec 4<>"$MNT/.ctl"
    echo verify >&4
    jq -e '.damaged_gaps + .broken_batches + .index_missing + .index_dangling == 0' <&4
    exec 4>&-
}

while_four_append()
{
    local name journal=$T_DIR/journal
    py load "$MNT" "$journal" 6
    for name in n0 n1 n2 n3 n4 n5; do
        on_snapshot "$DIR" "$name" ro check_and "$journal" "$name" true
        on_snapshot "$DIR" "$name" "$SMALL" check_and "$journal" "$name" goes_on
    done
    t_run grep -q "only in the copy" "$MNT/log"
    t_ne "$T_STATUS" 0 "the store shows what was appended to a copy"
}

check_and()
{
    py check "$MNT" "$1" "$2"
    "$3"
}

# Both stores have files in common, and are mounted at once; each goes on after a kill and without an index.
both_mounted()
{
    local one=$DIR before after
    echo "snapshot both" >"$MNT/.ctl"
    before=$(cd "$DIR/snapshots/both/log" && sha256sum ./*.seg)
    echo "in the store" >"$MNT/sessions/w0/append"
    t_use both
    DIR=$one/snapshots/both
    t_mount -o "$SMALL"
    goes_on
    t_kill9
    rm -rf "$DIR/index" "$DIR/checkpoints"
    t_mount -o "$SMALL"
    goes_on
    t_unmount
    t_use main
    t_kill9
    rm -rf "$DIR/index" "$DIR/checkpoints"
    t_mount -o "$SMALL"
    t_match "$(tail -n 1 "$MNT/sessions/w0/log")" "in the store"
    after=$(cd "$DIR/snapshots/both/log" && sha256sum -c <<<"$before") || t_fail "what was shared has changed: $after"
}

of_a_snapshot()
{
    local one=$DIR want
    want=$(sha256sum <"$MNT/log")
    echo "snapshot first" >"$MNT/.ctl"
    t_use first
    DIR=$one/snapshots/first
    t_mount -o "$SMALL"
    echo "snapshot second" >"$MNT/.ctl"
    t_unmount
    on_snapshot "$one/snapshots/first" second ro shows "$want"
    t_use main
}

shows() { t_eq "$(sha256sum <"$MNT/log")" "$1" "the log of a snapshot of a snapshot"; }

answers()
{
    local result name
    exec 4<>"$MNT/.ctl"
    echo "snapshot  answered " >&4
    IFS= read -r result <&4
    exec 4>&-
    t_eq "$(jq -r '.ok, .snapshot' <<<"$result" | tr '\n' ' ')" "true answered " "$result"
    [ -d "$DIR/snapshots/answered/log" ] || t_fail "there is no such snapshot"
    t_errno EEXIST write "$MNT/.ctl" "snapshot answered"
    t_match "$(tail -n 1 "$MNT/.ctl")" "answered"
    for name in "" a/b .hidden ..; do
        t_errno EINVAL write "$MNT/.ctl" "snapshot $name"
    done
    t_absent "$DIR/snapshots/.new"
}

one_kill()
{
    local round=$1 journal=$T_DIR/kill.journal name=k$1
    export SEED=$SEED-$round DIR
    py kill "$MNT" "$DAEMON_PID" "$round" "$journal"
    t_wait_end 137
    t_mount -o "$SMALL"
    t_absent "$DIR/snapshots/.new"
    if [ -d "$DIR/snapshots/$name" ]; then
        on_snapshot "$DIR" "$name" ro check_and "$journal" "$name" true
        on_snapshot "$DIR" "$name" "$SMALL" check_and "$journal" "$name" goes_on
    else
        t_eq "$(py was_taken "$journal")" no "a snapshot that was answered for"
    fi
}

# On a full disk a snapshot is refused and leaves nothing; with room again it is made.
full_disk()
{
    local small=$T_DIR/disk
    mkdir "$small"
    truncate -s 24M "$T_DIR/small.img"
    mkfs.ext4 -q "$T_DIR/small.img"
    mount "$(t_loop "$T_DIR/small.img")" "$small"
    t_defer umount "$small"
    t_use small
    DIR=$small/store
    t_mount -o "$SMALL"
    mkdir "$MNT/sessions/w0"
    seq 1 20000 >"$MNT/sessions/w0/append"
    sync "$MNT/sessions/w0/log"
    dd if=/dev/zero of="$small/ballast" bs=64K status=none || true
    t_errno ENOSPC write "$MNT/.ctl" "snapshot full"
    t_eq "$(find "$DIR/snapshots" -mindepth 1 2>/dev/null | wc -l)" 0 "what a failed snapshot left"
    t_eq "$(wc -l <"$MNT/sessions/w0/log")" 20000
    rm "$small/ballast"
    echo "snapshot full" >"$MNT/.ctl"
    on_snapshot "$DIR" full ro holds 20000
    echo "more" >"$MNT/sessions/w0/append"
    t_eq "$(wc -l <"$MNT/sessions/w0/log")" 20001
    t_unmount
}

holds() { t_eq "$(wc -l <"$MNT/sessions/w0/log")" "$1" "records in the snapshot"; }

t_mount -o "$SMALL"
t_test "taken while four append, each is a prefix, whole batches, mounted read-only and as a store" while_four_append
t_test "the command answers; bad names and taken ones are refused" answers
t_test "a snapshot and its store are mounted at once, and leave what they share alone" both_mounted
t_test "a snapshot of a snapshot" of_a_snapshot
t_test "unmounts cleanly" t_unmount
t_use killed
t_mount -o "$SMALL"
for ((round = 1; round <= ROUNDS; round++)); do
    t_test "kill -9 in the middle of a snapshot, round $round" one_kill "$round"
done
t_test "unmounts cleanly after that" t_unmount
t_test "a full disk" full_disk
