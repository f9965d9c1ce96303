#!/usr/bin/env bash
# test_keep_runs.sh - compactions as a person sees them run: programs that follow a log across one, the scheduler's runs,
# runs and erases that are cut short, files of backup/ that are copied back by hand, and fsck.hotlogfs on what is left.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

SMALL=segment_size=64K

py() { python3 "$T_HERE/keep_run_cases.py" "$@"; }

# Kills the daemon in the middle of an erase; $NAME and $NUMBER are what was being erased.
kill_in_erase()
{
    local turn
    for turn in {1..40}; do
        NAME=secret-$1-$turn
        NUMBER=$(py erase_and_kill "$MNT" "$DAEMON_PID" "$DIR" "$NAME")
        t_wait_end 137
        [ "$NUMBER" = ended ] || return 0
        t_mount -o "$SMALL,compact_interval=365d" # it was faster
    done
    t_fail "no erase was cut short"
}

erase_is_killed()
{
    kill_in_erase alone
    t_mount -o "$SMALL,compact_interval=365d"
    py erase_goes_on "$MNT" "$DIR" "$NAME"
}

# What keeps the erase from going on by itself: a snapshot that is mounted.
erase_by_name()
{
    local store=$DIR
    echo "snapshot held" >"$MNT/.ctl"
    kill_in_erase held
    t_use held
    DIR=$store/snapshots/held
    t_mount
    t_use erased
    t_mount -o "$SMALL,compact_interval=365d"
    py erase_waits "$MNT" "$DIR" "$NAME" "$NUMBER"
    t_use held
    t_unmount
    t_use erased
    py erase_by_name "$MNT" "$DIR" "$NAME" "$NUMBER"
}

keep_shown() { py shown "$MNT" >"$T_DIR/shown"; }

shows_the_same()
{
    py shown "$MNT" >"$T_DIR/now"
    t_same "$T_DIR/now" "$T_DIR/shown"
}

# Nothing that is copied back comes back, with the index and without one.
copied_back()
{
    t_unmount
    py copy_back "$DIR"
    t_mount -o "$SMALL,compact_interval=365d"
    shows_the_same
    t_unmount
    py copy_back "$DIR"
    rm -r "$DIR/index" "$DIR/checkpoints"
    t_mount -o "$SMALL,compact_interval=365d"
    shows_the_same
}

fsck_is_clean()
{
    t_unmount
    t_fsck 0 -n "$DIR"
    rm -rf "$T_DIR/copy"
    cp -a "$DIR" "$T_DIR/copy"
}

# Damage in what a compaction made is found; --restore puts back what it was made of, and nothing that was dropped.
fsck_restores()
{
    local path
    path=$(find "$DIR/log" -name '*.1.seg' | sort | head -n 1)
    [ -n "$path" ] || t_fail "there is no compacted segment: $(ls "$DIR/log")"
    python3 -c 'import sys; sys.path.insert(0, sys.argv[1]); import segments; segments.flip(sys.argv[2], 5000)' "$T_HERE" "$path"
    t_fsck 4 -n "$DIR"
    t_fsck 1 -y --restore "$DIR"
    t_fsck 0 "$DIR"
    t_mount -o "$SMALL,compact_interval=365d"
    py shown "$MNT" >"$T_DIR/now"
    jq -e --slurpfile was "$T_DIR/shown" 'to_entries | all(.key as $k | .value as $v |
        ($was[0][$k] == $v) or ($k | test("/(log|history/)")))' "$T_DIR/now" >/dev/null ||
        t_fail "something came back: $(jq -c --slurpfile was "$T_DIR/shown" 'to_entries |
            map(select(.key as $k | $was[0] | has($k) | not)) | map(.key) | .[:9]' "$T_DIR/now")"
    t_unmount
}

# Damage in bytes that are dropped already costs nothing that is shown.
fsck_of_dead_bytes()
{
    rm -rf "$DIR"
    cp -a "$T_DIR/copy" "$DIR"
    python3 - "$DIR" "$T_HERE" <<'EOF'
import sys
sys.path.insert(0, sys.argv[2])
import segments
for path in segments.segments(sys.argv[1]):
    for frame in segments.frames(path):
        if frame.type == segments.EVENT and b'"trimmed","seq":' in frame.body:
            seq = int(frame.body.split(b'"seq":')[1].split(b",")[0])
            if 505 < seq < 595:
                segments.flip(path, frame.offset + 40)
                sys.exit()
sys.exit("no dead frame")
EOF
    t_fsck 4 -n "$DIR"
    t_fsck 1 -y "$DIR"
    t_fsck 0 "$DIR"
    t_mount -o "$SMALL,compact_interval=365d"
    shows_the_same
    t_unmount
}

t_mount -o "$SMALL,compact_interval=365d"
t_test "tail -F" py tail_by_name "$MNT"
t_test "less +F" py less_follows "$MNT"
t_test "compact SESSION" py of_one_session "$MNT" "$DIR"
t_test "a compaction that is interrupted" py interrupted "$MNT"
t_test "unmounts cleanly" t_unmount
t_use scheduled
t_mount -o "$SMALL,compact_interval=1s,compact_threshold=48K"
t_test "runs by interval and threshold" py by_interval_and_threshold "$MNT"
t_test "compact stop" py stopped "$MNT"
t_test "unmounts cleanly with a scheduler" t_unmount
t_use erased
t_mount -o "$SMALL,compact_interval=365d"
t_test "kill -9 in the middle of an erase: it goes on by itself" erase_is_killed
t_test "what it cannot do by itself, .status tells, and the command does by name" erase_by_name
t_test "unmounts cleanly after that" t_unmount
t_use kinds
t_mount -o "$SMALL,compact_interval=365d,history=0"
t_test "drops of all kinds" py drops_of_all_kinds "$MNT"
t_test "what is shown" keep_shown
t_test "segments copied back by hand bring nothing back" copied_back
t_test "fsck: a store with drops, compactions, backups and an erase is clean" fsck_is_clean
t_test "fsck: a compacted segment is put back from backup/" fsck_restores
t_test "fsck: damage in what was dropped" fsck_of_dead_bytes
