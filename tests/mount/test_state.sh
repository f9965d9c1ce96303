#!/usr/bin/env bash
# test_state.sh - documents: state/ of a session by system calls (design, section 4).
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

# py FILE CASE ARGUMENTS…: a case of state_FILE_cases.py, with $MNT before its arguments
py()
{
    local file=$1 name=$2
    shift 2
    python3 "$T_HERE/state${file:+_}${file}_cases.py" "$name" "$MNT" "$@"
}

after_remount()
{
    t_remount
    py name scratch_is_gone
    py load crowd_again
}

after_kill()
{
    local s=$MNT/sessions/killed/state i
    mkdir "$MNT/sessions/killed"
    for i in {1..50}; do
        echo "[$i]" >"$s/k$((i % 7))"
    done
    printf '"kept"' >"$s/.scratch"
    mv "$s/.scratch" "$s/moved"
    mv "$s/k1" "$s/other"
    rm "$s/k2"
    printf '[1' >"$s/.scratch"
    t_kill9
    t_mount
    t_eq "$(cd "$s" && head -n 9 ./* | tr -d '\n')" \
        "==> ./k0 <==[49]==> ./k3 <==[45]==> ./k4 <==[46]==> ./k5 <==[47]==> ./k6 <==[48]==> ./moved <==\"kept\"==> ./other <==[50]"
    py program check killed
    py load crowd_again
}

read_only()
{
    local s=$MNT/sessions/values/state name
    t_remount -o ro
    py name read_only
    py load crowd_again
}

# What was made, set, renamed, deleted or changed is on the disk when the call returns.
synced()
{
    local s=$MNT/sessions/synced/state
    is_synced() { jq -e '.position == .synced' "$MNT/.status" >/dev/null; }
    mkdir "$MNT/sessions/synced"
    is_synced
    mkdir "$MNT/sessions/synced/archive/a"
    is_synced
    rmdir "$MNT/sessions/synced/archive/a"
    is_synced
    chmod 700 "$MNT/sessions/synced"
    is_synced
    t_eq "$(stat -c %a "$MNT/sessions/synced")" 700
    setfattr -n user.a -v 1 "$MNT/sessions/synced"
    is_synced
    setfattr -x user.a "$MNT/sessions/synced"
    is_synced
    mkdir "$MNT/sessions/empty"
    rmdir "$MNT/sessions/empty"
    is_synced
    printf '[1]\n' >"$s/a"
    is_synced
    printf '[2]' >"$s/a"
    is_synced
    mv "$s/a" "$s/b"
    is_synced
    printf '[3]' >"$s/.c"
    mv "$s/.c" "$s/c"
    is_synced
    rm "$s/b"
    is_synced
    echo 'undo synced' >"$MNT/.ctl"
    is_synced
    rm "$s/b"
    echo event >"$MNT/sessions/synced/append"
    echo 'trim synced 1000' >"$MNT/.ctl"
    is_synced
    echo 'delete synced' >"$MNT/.ctl"
    is_synced
    mkdir "$MNT/sessions/synced"
    printf '[3]\n' >"$s/c"
    t_eq "$(ls "$s"; cat "$s/c")" $'c\n[3]'
    t_errno EINVAL write "$s/c" "bad" TRUNC
    is_synced
}

# A full disk refuses, loses nothing, and heals.
full_disk()
{
    local s small=$T_DIR/small size
    truncate -s 24M "$T_DIR/small.img"
    mkfs.ext4 -q -O ^has_journal "$T_DIR/small.img"
    mkdir "$small"
    mount "$(t_loop "$T_DIR/small.img")" "$small"
    t_defer umount -l "$small"
    t_use full
    DIR=$small/dir
    t_mount -o segment_size=1M
    mkdir "$MNT/sessions/s"
    s=$MNT/sessions/s/state
    echo '"old"' >"$s/K"
    echo '"a"' >"$s/.scratch"
    dd if=/dev/zero of="$small/filler" bs=64K status=none 2>/dev/null || true
    fill_up() { [ "$("$T_HERE/try.py" write "$s/filler" "\"$(head -c "$1" /dev/zero | tr '\0' x)\"\x0A" CREAT TRUNC)" = ENOSPC ]; }
    for size in 60000 3000 300 1; do
        t_wait fill_up "$size"
    done
    t_errno ENOSPC rename "$s/.scratch" "$s/K"
    t_match "$(cat "$MNT/sessions/s/last_error")" ENOSPC
    t_eq "$(cat "$s/K" "$s/.scratch")" $'"old"\n"a"'
    exec 3>"$s/K"
    printf '"new' >&3 || true
    printf '"\n' >&3 && t_fail "there was room"
    rm "$small/filler"
    t_wait mv "$s/.scratch" "$s/K2"
    printf '"\n' >&3
    exec 3>&-
    t_eq "$(cat "$s/K" "$s/K2")" $'"new"\n"a"'
    t_unmount
    t_use main
}

by_others()
{
    t_use others
    t_mount -o allow_other
    py name users
    t_unmount
    t_use main
}

bounded()
{
    t_use bounded
    t_mount -o scratch_max=256K
    py name scratch_is_bounded
    t_unmount
    t_mount -o max_record=64K,pieces_max=128K
    py load memory_is_bounded
    t_unmount
    t_use main
}

t_mount -o max_record=4M
t_test "values come back on one line" py "" values
t_test "what is not JSON is refused at write()" py "" bad_values
t_test "a refused write spoils what was written before it" py "" a_refused_write_spoils
t_test "in pieces" py "" in_pieces
t_test "unfinished values and early flushes" py "" unfinished
t_test "nothing written" py "" nothing_written
t_test "read, seek, write, truncate" py "" read_and_write
t_test "rewriting by one descriptor" py "" rewriting
t_test ">> re-reads" py "" appending
t_test "truncate by name" py "" truncating_by_name
t_test "two writers" py "" two_writers
t_test "names" py name names
t_test "keys that look like scratch names" py name keys_like_scratch
t_test "what cannot be made" py name what_cannot_be_made
t_test "rm, also of open files" py name deleting
t_test "attributes" py name attributes
t_test "files that are not set yet" py name not_set_yet
t_test "scratch files" py name scratch
t_test "inotify" py name watched
t_test "rename of documents" py rename documents
t_test "RENAME_NOREPLACE" py rename no_replace
t_test "RENAME_EXCHANGE" py rename exchange
t_test "rename of scratch files" py rename scratch_files
t_test "renames that there are not" py rename elsewhere_not
t_test "temporary file and os.replace, before and after close" py rename replace_before_close
t_test "the same with what is not JSON" py rename replace_with_bad
t_test "open files go with their names" py rename files_go_with_their_names
t_test "open scratch files become documents" py rename scratch_becomes_a_document
t_test "rename while others set" py rename while_others_set
t_test "to archive/ and back" py archive there_and_back
t_test "to archive/ and back, by mv" py archive by_mv
t_test "what cannot be archived" py archive not_so
t_test "to archive/ while open" py archive open_files
t_test "large values" py load large
t_test "readers see whole values" py load readers_see_whole_values
t_test "many documents" py load many
t_test "programs that change the same keys" py load crowd
t_test "scratch files are left" py name leave_scratch
t_test "after a remount" after_remount
t_test "after kill -9" after_kill
t_test "read-only" read_only
t_remount -o sync
t_test "-o sync" synced
t_unmount
t_test "memory is bounded" bounded
if [ "$(id -u)" = 0 ]; then
    t_test "other users" by_others
    t_test "full disk" full_disk
fi
