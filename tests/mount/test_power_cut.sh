#!/usr/bin/env bash
# test_power_cut.sh - the file system below a busy store loses its power: what was acknowledged is there afterwards.
#
# CUTS: how often (200), half of them with -o sync, half with writers who call fsync.
#
# In a mount namespace of its own: a copy of the disk's mount in somebody else's would keep a disk that was shut down.
if [ -z "${IN_NAMESPACE:-}" ]; then
    exec env IN_NAMESPACE=1 "$(dirname "$0")/apart" bash "$0" "$@"
fi
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

CUTS=${CUTS:-200}

# The disk is in memory if it can be: it is the file system that is cut, and what it has written stays.
room=$T_DIR
[ ! -w /dev/shm ] || room=$(mktemp -d /dev/shm/hotlogfs-cut.XXXXXX)
t_defer rm -rf "$T_DIR/disk.img" "$room/disk.img"
[ "$room" = "$T_DIR" ] || t_defer rmdir "$room"
t_defer rm -f "$room/disk.img"
truncate -s 64M "$room/disk.img"
device=$(t_loop "$room/disk.img")
disk=$T_DIR/disk
mkdir "$disk"
t_defer umount -l "$disk"
t_defer umount -l "$MNT"

cut()
{
    mkfs.ext4 -q -F -J size=4 "$device"
    python3 "$T_HERE/power_cut.py" "$device" "$disk" "$MNT" "$2" "$1" | tee "$T_DIR/said-$1"
}

t_test "power cuts, -o sync" cut sync "$((CUTS / 2))"
t_test "power cuts, fsync by the writers" cut fsync "$((CUTS - CUTS / 2))"
t_note "$(cat "$T_DIR"/said-* 2>/dev/null)"
