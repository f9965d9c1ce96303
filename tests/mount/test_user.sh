#!/usr/bin/env bash
# test_user.sh - a mount of an ordinary user, by way of fusermount3.
#
# Run by root, it runs itself again as "nobody", from a copy that nobody can read, in a mount namespace where
# /dev/fuse is open to all, as it is on most systems.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

as_nobody()
{
    local home status=0
    home=$(mktemp -d "${TMPDIR:-/tmp}/hotlogfs-user.XXXXXXXX")
    mkdir -p "$home/tests" "$home/tmp" "$home/build"
    cp -r "$here" "$home/tests/mount"
    cp "${HOTLOGFS:-$here/../../${BUILD:-build}/hotlogfs}" "$home/build/hotlogfs"
    mknod -m 666 "$home/fuse" c 10 229
    chmod 755 "$home"
    chown -R 65534:65534 "$home/tmp"
    # The paths below are expanded by the inner shell.
    # shellcheck disable=SC2016
    HOME_DIR=$home "$here/apart" bash -euc '
        mount --bind "$HOME_DIR/fuse" /dev/fuse
        exec env -u HOME_DIR TMPDIR="$HOME_DIR/tmp" HOTLOGFS="$HOME_DIR/build/hotlogfs" PATH=/usr/bin:/bin \
            setpriv --reuid 65534 --regid 65534 --clear-groups bash "$HOME_DIR/tests/mount/test_user.sh"' || status=$?
    rm -rf --one-file-system "$home"
    exit "$status"
}
[ "$(id -u)" != 0 ] || as_nobody

# shellcheck source=tests/mount/lib.sh
. "$here/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

py() { python3 "$T_HERE/user_cases.py" "$1" "$MNT"; }

in_the_background()
{
    t_use background
    t_mount -b
    mkdir "$MNT/sessions/s"
    echo hi >"$MNT/sessions/s/append"
    t_match "$(cat "$MNT/sessions/s/1")" '"hi"'
    t_unmount
}

after_a_kill()
{
    t_kill9
    t_mount
    py his_again
}

told_some() { [ "$(jq -r .announcements_told "$MNT/.status")" -gt 100 ]; }

# Nothing is made in the directory below his mount, which he could write to.
ended_in_a_burst()
{
    local how
    for how in term lazy; do
        t_use "burst-$how"
        t_mount
        mkdir "$MNT/sessions/s"
        python3 "$T_HERE/inotify_cases.py" burst_until "$MNT/sessions/s" >"$T_DIR/burst.out" &
        t_wait told_some
        case $how in
        term) kill -TERM "$DAEMON_PID" ;;
        lazy) fusermount3 -u -z "$MNT" ;;
        esac
        t_wait_end 0
        t_eq "$(ls -A "$MNT")" "" "what lies below"
    done
}

t_mount
t_test "the root" python3 "$T_HERE/layout_cases.py" root_names "$MNT"
t_test "all is his" py all_is_his
t_test "root append checks the bits of each session" py root_append_checks_bits
t_test "documents" python3 "$T_HERE/state_cases.py" in_pieces "$MNT"
t_test "documents not set yet" python3 "$T_HERE/state_name_cases.py" not_set_yet "$MNT"
t_test "temporary files renamed" python3 "$T_HERE/state_rename_cases.py" replace_before_close "$MNT"
t_test "inotify is told of his" python3 "$T_HERE/inotify_cases.py" race "$MNT" 1
t_test "and of what becomes of his documents" python3 "$T_HERE/inotify_document_cases.py" each "$MNT"
t_test "his again after kill -9" after_a_kill
t_unmount
t_test "ended in a burst" ended_in_a_burst
t_test "in the background" in_the_background
