#!/usr/bin/env bash
# test_inotify_documents.sh - inotify on state/ is true: each change of a document once, whoever made it.
#
# ROUNDS (200): changes of the cases that race, and of the random one.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

py()
{
    local case=$1
    shift
    python3 "$T_HERE/inotify_document_cases.py" "$case" "$@"
}

beside_a_writer()
{
    local writer=$MNT store=$DIR
    mkdir "$MNT/sessions/beside"
    t_use reader
    DIR=$store
    t_mount -o ro,announce_max=1000000
    t_wait test -d "$MNT/sessions/beside"
    py elsewhere "$writer" beside "$MNT"
    t_unmount
}

switched_off()
{
    t_use silent
    t_mount -o announce_max=0
    py silent "$MNT"
    t_unmount
}

# With room for all of it, so that a slow build or a busy machine skips nothing either.
t_use raced
t_mount -o announce_max=1000000
t_test "set, change and delete by operations" py each "$MNT"
t_test "by files, the kernel's own and no others" py by_files "$MNT"
t_test "checkpoint, archive, restore, undo" py all_operations "$MNT"
t_test "keys as file names" py names "$MNT"
t_test "a watch on the file itself" py on_the_file "$MNT"
t_test "exact, beside processes that look at the same names" py race "$MNT" "${ROUNDS:-200}"
t_test "what is told can be read" py readable "$MNT" "${ROUNDS:-200}"
t_test "operations and files on the same keys" py mixed "$MNT" "${ROUNDS:-200}"
t_test "on a read-only mount beside a writer" beside_a_writer
t_use raced
t_unmount
t_use main
t_mount
t_test "in a burst the oldest are skipped and counted" py overflow "$MNT"
t_test "announce_max=0" switched_off
t_use main
t_unmount
