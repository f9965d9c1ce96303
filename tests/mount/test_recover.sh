#!/usr/bin/env bash
# test_recover.sh - torn tails, damage, full disks: what was acknowledged is there, in order, once.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

BASE=$T_DIR/stores/base # .killed, .clean: stores to be broken; .expected: what is in them

py() { python3 "$T_HERE/damage_cases.py" "$@"; }

# ---- broken stores ------------------------------------------------------------------------------------

# A store with sealed, checkpointed segments, sealed ones that only the log has, and an open one whose last batch
# is of several frames. Killed; and the same, unmounted cleanly.
build_base()
{
    mkdir "$T_DIR/stores"
    t_use base
    t_mount -o segment_size=64K
    py build "$MNT" one
    echo rotate >"$MNT/.ctl"
    echo checkpoint >"$MNT/.ctl"
    cp -a "$DIR/index" "$BASE.old-index"
    py build "$MNT" two
    echo rotate >"$MNT/.ctl"
    py build "$MNT" three 10 # with the batch below, and any seed, less than the segment that it begins
    printf '{"session_id":"%s","payload":"last batch, %s"}\n' a one b two a three mixed four >"$T_DIR/batch"
    cat "$T_DIR/batch" >"$MNT/append" # one write, where the shell's own are one a line
    py expect "$MNT" "$BASE.expected"
    t_kill9
    cp -a "$DIR" "$BASE.killed"
    t_mount -o segment_size=64K
    t_unmount
    cp -a "$DIR" "$BASE.clean"
    t_ne "$(find "$BASE.killed/log" -name '*.seg' | wc -l)" 1 "segments"
}

# broken KIND WITHOUT HOW [ARGUMENT] [ERRNO]: breaks a copy of the KIND (killed, clean) store, takes away WITHOUT
# (none, index, both: checkpoints too), mounts it, and looks; appends, kills, mounts, looks again.
broken()
{
    local kind=$1 without=$2
    shift 2
    t_use "broken-$BASHPID"
    cp -a "$BASE.$kind" "$DIR"
    py damage "$DIR" "$T_HOME/facts" "$@"
    case $without in
        none) ;;
        index) rm -r "$DIR/index" ;;
        both) rm -r "$DIR/index" "$DIR/checkpoints" ;;
        old) rm -r "$DIR/index" && cp -a "$BASE.old-index" "$DIR/index" ;;
    esac
    t_mount -o segment_size=64K
    py check "$MNT" "$DIR" "$BASE.expected" "$T_HOME/facts"
    t_kill9
    t_mount -o segment_size=64K
    py again "$MNT" "$T_HOME/facts"
    t_unmount
    t_mount -o segment_size=64K
    py again "$MNT" "$T_HOME/facts"
    t_unmount
    rm -rf "$DIR"
}

# A store of a later version: what it must be able to do to read it is named, and nothing is touched.
feature_flags()
{
    local before
    t_use features
    cp -a "$BASE.clean" "$DIR"
    py damage "$DIR" "$T_HOME/facts" feature compatible
    t_mount
    py check "$MNT" "$DIR" "$BASE.expected" "$T_HOME/facts"
    t_unmount
    for what in incompatible version; do
        rm -rf "$DIR"
        cp -a "$BASE.clean" "$DIR"
        py damage "$DIR" "$T_HOME/facts" feature "$what"
        before=$(cat "$DIR"/log/* | sha256sum)
        t_run timeout 180 "$HOTLOGFS" "$DIR" "$MNT" -f
        t_eq "$T_STATUS" 1 "the status of a mount of a store with an unknown $what: $T_OUT"
        t_match "$T_OUT" '[Vv]ersion|incompatible|feature'
        t_eq "$(cat "$DIR"/log/* | sha256sum)" "$before" "the segments"
    done
}

# A segment that a compaction replaced is no longer read, also when somebody copies it back, and also by a reader
# that comes between the compaction's rename and the end of its work.
stale_segments()
{
    local old=00000002-00000002.0.seg
    t_use stale
    cp -a "$BASE.clean" "$DIR"
    py damage "$DIR" "$T_HOME/facts" compacted whole
    t_use reader
    DIR=$T_DIR/stale/dir
    t_mount -o ro
    t_eq "$(cat "$MNT/log" | wc -l)" "$(jq 'map(length) | add' "$BASE.expected")" "records that a reader sees"
    t_unmount
    [ -e "$DIR/log/$old" ] || t_fail "a read-only mount moved $old"
    t_use stale
    t_mount -o segment_size=64K
    py check "$MNT" "$DIR" "$BASE.expected" "$T_HOME/facts"
    t_absent "$DIR/log/$old"
    t_unmount
    cp -a "$DIR/backup/$old" "$DIR/log/"
    t_mount -o segment_size=64K
    py again "$MNT" "$T_HOME/facts"
    t_absent "$DIR/log/$old"
    [ -e "$DIR/backup/$old" ] || t_fail "$old is gone"
    t_unmount
    rm -rf "$DIR/index" "$DIR/checkpoints"
    cp -a "$DIR/backup/$old" "$DIR/log/"
    t_mount -o segment_size=64K
    py again "$MNT" "$T_HOME/facts"
    t_absent "$DIR/log/$old"
    t_unmount
}

# ---- the disk is full ---------------------------------------------------------------------------------

fill()
{
    python3 - "$MNT" "$1" <<'PY'
import errno, os, sys
mount, count = sys.argv[1], sys.argv[2]
fd = os.open(f"{mount}/sessions/s/append", os.O_WRONLY)
known = os.stat(f"{mount}/sessions/s/log").st_size
lines = open(f"{mount}/sessions/s/log", "rb").read().count(b"\n")
while True:
    try:
        os.write(fd, b"%d %s\n" % (lines + 1, b"x" * 700))
    except OSError as failure:
        assert failure.errno == errno.ENOSPC, failure
        break
    lines += 1
    assert lines < 100000, "a disk of a few MiB does not get full"
assert lines > 100, lines
open(count, "w").write(str(lines))
PY
}

numbers_are() { t_eq "$(jq -r .payload "$MNT/sessions/s/log" | cut -d ' ' -f 1 | sha256sum)" "$(seq 1 "$1" | sha256sum)" "$2"; }

appends() { echo "$1" 2>/dev/null >"$MNT/sessions/s/append"; }

disk_full()
{
    local small=$T_DIR/small lines
    mkdir "$small"
    truncate -s 24M "$T_DIR/small.img"
    mkfs.ext4 -q -m 0 -O ^has_journal "$T_DIR/small.img"
    mount "$(t_loop "$T_DIR/small.img")" "$small"
    t_defer umount "$small"
    t_use full
    DIR=$small/store
    dd if=/dev/zero of="$small/ballast" bs=1M count=4 status=none
    t_mount -o segment_size=256K
    mkdir "$MNT/sessions/s"
    fill "$T_DIR/lines"
    lines=$(cat "$T_DIR/lines")
    numbers_are "$lines" "when the disk is full"
    t_eq "$(jq -r .errno "$MNT/sessions/s/last_error")" ENOSPC
    rm "$small/ballast"
    t_wait appends "$((lines + 1)) again" # by itself
    numbers_are "$((lines + 1))" "when there is room again"
    fill "$T_DIR/lines"
    lines=$(cat "$T_DIR/lines")
    t_kill9
    t_mount -o segment_size=256K
    numbers_are "$lines" "after a kill on a full disk"
    t_wait t_fusermount
    t_wait_end 0 1 # whether there is room for the index is chance
    t_mount -o segment_size=256K
    numbers_are "$lines" "after the next start"
    t_wait t_fusermount
    t_wait_end 0 1
}

# fill_up DIRECTORY: not a byte is left on its file system; what fills it lies in ballast.
fill_up()
{
    mkdir -p "$1/ballast"
    python3 - "$1/ballast" <<'PY'
import errno, os, sys
for n, size in enumerate([1 << 20, 65536, 4096, 1024, 1]):
    while True:
        try:
            with open(f"{sys.argv[1]}/{n}", "ab", buffering=0) as file:
                assert file.write(bytes(size)) == size
                os.fsync(file.fileno())
        except (OSError, AssertionError) as failure:
            assert isinstance(failure, AssertionError) or failure.errno == errno.ENOSPC, failure
            break
PY
    t_eq "$(df --output=avail "$1" | tail -n 1 | tr -d ' ')" 0 "room on $1"
}

# A crash left a torn tail, the index is gone (WITHOUT as in broken()), and there is not a byte of room: what was
# acknowledged can be read; appends are refused, with a reason, until there is room, and go on then.
opens_when_full()
{
    local without=$1 small=$T_DIR/small-$1 lines
    mkdir "$small"
    truncate -s 24M "$small.img"
    mkfs.ext4 -q -m 0 -O ^has_journal "$small.img"
    mount "$(t_loop "$small.img")" "$small"
    t_defer umount "$small"
    t_use "full-$without"
    DIR=$small/store
    t_mount -o segment_size=256K
    mkdir "$MNT/sessions/s"
    echo checkpoint >"$MNT/.ctl"
    python3 -c 'for n in range(1, 4001): print(n, "x" * 500)' >"$T_DIR/lines"
    split -l 500 --filter 'cat' "$T_DIR/lines" >"$MNT/sessions/s/append"
    printf '4001 one\n4002 two\n4003 three\n' >"$T_DIR/batch"
    cat "$T_DIR/batch" >"$MNT/sessions/s/append"
    t_kill9
    py damage "$DIR" "$T_HOME/facts" cut_tail body
    case $without in
        index) rm -r "$DIR/index" ;;
        both) rm -r "$DIR/index" && rm -rf "$DIR/checkpoints" ;;
    esac
    fill_up "$small"
    for _ in 1 2; do
        t_mount -o segment_size=256K
        numbers_are 4000 "on a full disk"
        t_eq "$(jq .records "$MNT/sessions/s/meta")" 4000
        t_match "$(cat "$MNT/sessions/s/3999")" '"3999 x'
        t_errno ENOSPC write "$MNT/sessions/s/append" 'no\x0a'
        t_eq "$(jq -r .errno "$MNT/sessions/s/last_error")" ENOSPC
        t_match "$(jq -r .reason "$MNT/sessions/s/last_error")" 'no room|No space'
        t_errno ENOSPC mkdir "$MNT/sessions/new"
        t_kill9
        fill_up "$small" # what an unusable index took
    done
    t_mount -o segment_size=256K
    rm -r "$small/ballast"
    t_wait appends "4001 again"
    numbers_are 4001 "when there is room again"
    t_wait checkpoints
    grep -q "4002 two" "$DIR"/quarantine/*.bytes || t_fail "the torn tail is not in quarantine/"
    t_unmount
    t_mount -o segment_size=256K
    numbers_are 4001 "after the next start"
    t_eq "$(jq .damage_found "$MNT/.status")" 0
    t_unmount
}

checkpoints() { echo checkpoint 2>/dev/null >"$MNT/.ctl"; }

t_test "stores to be broken" build_base
for at in header length body between last-byte; do
    t_test "torn tail: cut at $at" broken killed none cut_tail $at
done
t_test "torn tail: cut, no index" broken killed both cut_tail body
t_test "torn tail: zeros" broken killed none zero_tail
for what in bytes zeros one text frame ff; do
    t_test "torn tail: followed by $what" broken killed none append_garbage $what
done
t_test "garbage after a clean end" broken clean none append_garbage bytes
t_test "nothing broken, index gone" broken killed index nothing
t_test "nothing broken, index and checkpoints gone" broken killed both nothing
t_test "nothing broken, index gone after a clean end" broken clean index nothing
t_test "nothing broken, index and checkpoints gone after a clean end" broken clean both nothing
t_test "an older index" broken killed old nothing
t_test "checkpoints broken, index gone" broken killed index checkpoint_bytes
for how in half empty noise page bits metas; do
    t_test "index broken: $how" broken killed none index_bytes $how
done
for field in crc length length-top seq recorded session type flags body; do
    t_test "a bit of $field flipped, index kept" broken clean none flip_middle $field EIO
    t_test "a bit of $field flipped, index rebuilt" broken killed both flip_middle $field ENOENT
done
t_test "a bit flipped, index from a checkpoint" broken killed index flip_middle body EITHER
t_test "a bit flipped inside a batch, index kept" broken clean none flip_inside_batch body EIO
t_test "a bit flipped inside a batch, index rebuilt" broken killed both flip_inside_batch length ENOENT
t_test "a blank sector, index kept" broken clean none blank_sector 512 EIO
t_test "a blank sector, index rebuilt" broken killed both blank_sector 512 ENOENT
t_test "noise over 8 KiB, index rebuilt" broken killed both blank_sector 8192 ENOENT
t_test "the first header lost" broken killed both first_header
t_test "the second header lost" broken killed none second_header
t_test "unknown features" feature_flags
for how in whole no-seal bit; do
    t_test "a compaction cut short: $how, index kept" broken killed none compacted $how
    t_test "a compaction cut short: $how, index rebuilt" broken killed both compacted $how
done
t_test "segments that a compaction replaced" stale_segments
t_test "a frame in another's place" broken clean none swap_frames "" EIO
t_test "a segment lost, index rebuilt" broken clean both segment_gone "" EITHER
t_test "a segment lost, index kept" broken clean none segment_gone "" EITHER
for seed in 1 2 3; do
    SEED=$SEED$seed t_test "bits flipped all over, $seed" broken killed both scatter 30
done
if [ "$(id -u)" = 0 ]; then
    t_test "a full disk" disk_full
    for without in none index both; do
        t_test "a full disk, a torn tail, without: $without" opens_when_full $without
    done
fi
