#!/usr/bin/env bash
# test_documents.sh - what operations made, seen through a real mount: history/, archive/, at/, undo, meta.
#
# STEPS (300): operations of the random case.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

py()
{
    local case=$1
    shift
    python3 "$T_HERE/documents_cases.py" "$case" "$@"
}

t_mount
t_test "history/: every operation on a key, oldest first" py history "$MNT"
t_test "history/: its size is true, and it can be seeked in" py history_by_offset "$MNT"
t_test "history/: tail -f follows it" py history_tail "$MNT"
t_test "history/: keys as file names" py names "$MNT"
t_test "at/: the documents as they were" py at "$MNT"
t_test "at/: diff -r" py at_diff "$MNT"
t_test "at/: which seqs there are" py at_bounds "$MNT"
t_test "archive/: what operations put there" py archive "$MNT"
t_test "archive/: mkdir and rmdir" py archive_directories "$MNT"
t_test "archive/: removed and made again while open" py archive_made_again "$MNT"
t_test "archive/: nothing can be changed in it" py archive_is_read_only "$MNT"
t_test "archive/: find -mtime and mv" py by_age "$MNT"
t_test "permissions come from the session's directory" py permissions "$MNT"
t_test "large values" py large "$MNT"
t_test "many keys" py many "$MNT" 3000
t_test "meta counts documents and operations" py meta "$MNT"
t_test "undo: the last operation, then the one before" py undo "$MNT"
t_test "undo: what is refused, and why" py undo_refused "$MNT"
t_test "undo: sessions whose names hold blanks" py undo_names "$MNT"
t_test "undo: a result stays short" py undo_many "$MNT"
t_test "random operations, against a model" py random_operations "$MNT" "$DIR" "${STEPS:-300}"

the_same_after()
{
    py remember "$MNT" "$T_DIR/remembered"
    "$@"
    t_mount
    py compare "$MNT" "$T_DIR/remembered"
}
without_index()
{
    t_unmount
    rm -rf "$DIR/index" "$DIR/checkpoints"
}
t_test "the same after a remount" the_same_after t_unmount
t_test "the same after kill -9" the_same_after t_kill9
t_test "the same without the index" the_same_after without_index

beside_a_writer()
{
    local writer=$MNT store=$DIR
    t_use reader
    DIR=$store
    t_mount -o ro
    py beside "$writer" "$MNT"
    t_unmount
}
t_test "a read-only mount beside the writer" beside_a_writer
t_use main
t_test "unmounts cleanly" t_unmount
