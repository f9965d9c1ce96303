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

t_mount -o segment_size=64K,allow_other
t_test "trim: names, attributes, ranges, sizes" py trim_shows "$MNT" "$MNT"
t_test "open files of dropped records" py open_files "$MNT"
t_test "a handle on the old log reads on" py reads_on "$MNT"
t_test "tail -f neither repeats nor misses" py tail_reads_on "$MNT" "$MNT"
t_test "readers, a writer and a trimmer at work" py readers_at_work "$MNT"
t_test "delete" py deleted "$MNT" "$MNT"
t_test "rmdir" py rmdir "$MNT"
t_test "compact" py compacted "$MNT" "$DIR"
t_test "bad commands" py bad_commands "$MNT"
t_test "kill -9 and reindex" after_a_kill
t_test "unmounts cleanly" t_unmount
t_use followed
t_mount -o segment_size=64K,allow_other
mount_beside
t_test "beside: trim" py trim_shows "$MNT" "$BESIDE"
t_test "beside: tail -f" py tail_reads_on "$MNT" "$BESIDE"
t_test "beside: delete" py deleted "$MNT" "$BESIDE"
t_test "beside: read-only" py read_only_refuses "$MNT" "$BESIDE"
