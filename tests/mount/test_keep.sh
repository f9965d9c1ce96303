#!/usr/bin/env bash
# test_keep.sh - records that are dropped: trim, delete, compact and rmdir as the mount shows them, to programs
# that have files open, to kernels that have kept attributes, and on a read-only mount beside the writer.
#
# ROUNDS: how often tail is overtaken (12). SECONDS_AT_WORK: how long readers, writer and trimmer go on (4).
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

py() { python3 "$T_HERE/keep_cases.py" "$@"; }

# Mounts the store a second time, read-only: $BESIDE.
mount_beside()
{
    local dir=$DIR
    t_use beside
    DIR=$dir
    t_mount -o ro
    t_use followed
    BESIDE=$T_DIR/beside/mnt
}

# After a kill, and with the index built again, all is as it was.
after_a_kill()
{
    local sum
    sum=$(cat "$MNT"/sessions/*/log "$MNT"/sessions/*/meta | sha256sum)
    t_kill9
    t_mount -o segment_size=64K,allow_other
    t_eq "$(cat "$MNT"/sessions/*/log "$MNT"/sessions/*/meta | sha256sum)" "$sum" "after a kill"
    echo reindex >"$MNT/.ctl"
    t_eq "$(cat "$MNT"/sessions/*/log "$MNT"/sessions/*/meta | sha256sum)" "$sum" "after a reindex"
}

# A snapshot that is mounted is not erased in, and nothing else is.
erase_is_busy()
{
    local dir=$DIR
    mkdir "$MNT/sessions/busy"
    echo one >"$MNT/sessions/busy/append"
    echo "snapshot held" >"$MNT/.ctl"
    t_use held
    DIR=$dir/snapshots/held
    t_mount
    t_use main
    t_errno EBUSY write "$MNT/.ctl" "erase busy"
    t_match "$(tail -n 1 "$MNT/.ctl")" held
    t_match "$(cat "$MNT/sessions/busy/log")" one
    t_use held
    t_unmount
    t_use main
    echo "erase busy" >"$MNT/.ctl"
    t_absent "$MNT/sessions/busy"
}

# Each snapshot that was taken while sessions grew and were trimmed, mounted.
snapshots_hold()
{
    local dir=$DIR round
    py snapshots_of_drops "$MNT" "$T_DIR"
    for round in 0 1 2 3; do
        t_use "of$round"
        DIR=$dir/snapshots/of$round
        t_mount -o ro
        py snapshot_holds "$MNT" "$T_DIR/told$round"
        t_unmount
    done
}

full_disk()
{
    mkdir "$T_DIR/disk"
    truncate -s 32M "$T_DIR/disk.img"
    mkfs.ext4 -q "$T_DIR/disk.img"
    mount "$(t_loop "$T_DIR/disk.img")" "$T_DIR/disk"
    t_defer umount "$T_DIR/disk"
    t_use full
    DIR=$T_DIR/disk/store
    t_mount -o segment_size=256K
    py full_disk "$MNT" "$T_DIR/disk"
    t_unmount
}

t_mount -o segment_size=64K,allow_other
t_test "trim: names, attributes, ranges, sizes" py trim_shows "$MNT" "$MNT"
t_test "open files of dropped records" py open_files "$MNT"
t_test "a handle on the old log reads on" py reads_on "$MNT"
t_test "what was read ahead is not given when it was dropped" py read_ahead_ends "$MNT" trim delete
t_test "tail -f neither repeats nor misses" py tail_reads_on "$MNT" "$MNT"
t_test "readers, a writer and a trimmer at work" py readers_at_work "$MNT"
t_test "delete" py deleted "$MNT" "$MNT"
t_test "rmdir" py rmdir "$MNT"
t_test "compact" py compacted "$MNT" "$DIR"
t_test "nor when all was rewritten, and the index made anew" py read_ahead_ends "$MNT" rewritten
t_test "erase: grep finds nothing below DIR" py erased "$MNT" "$DIR"
t_test "erase beside a mounted snapshot" erase_is_busy
t_test "bad commands" py bad_commands "$MNT"
t_test "kill -9 and reindex" after_a_kill
t_test "unmounts cleanly" t_unmount
t_use retained
t_mount -o segment_size=64K,compact_interval=1s
t_test "retain" py retained "$MNT"
t_test "unmounts cleanly with rules" t_unmount
t_use snapshots
t_mount -o segment_size=256K
t_test "snapshots while four append and are trimmed" snapshots_hold
t_use snapshots
t_test "unmounts cleanly with snapshots" t_unmount
t_test "a full disk" full_disk
t_use followed
t_mount -o segment_size=64K,allow_other
mount_beside
t_test "beside: trim" py trim_shows "$MNT" "$BESIDE"
t_test "beside: tail -f" py tail_reads_on "$MNT" "$BESIDE"
t_test "beside: delete" py deleted "$MNT" "$BESIDE"
t_test "beside: read-only" py read_only_refuses "$MNT" "$BESIDE"
