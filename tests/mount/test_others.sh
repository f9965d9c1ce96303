#!/usr/bin/env bash
# test_others.sh - allow_other, and two users who do not trust each other: what is not theirs lets neither in, and what
# one takes of the daemon's memory, handles and time, the other does not miss.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

# ---- the users, who are gone at the end ------------------------------------------------------------

# Others change /etc/passwd too: its lock is waited for.
account_tool() { "$@" >>"$T_DIR/accounts" 2>&1; }

remove_user() { ! getent passwd "$1" >/dev/null || account_tool userdel "$1"; }

# Prints nothing; sets USER_UID and USER_GID.
make_user()
{
    local name=hlt$1$BASHPID
    t_defer t_wait remove_user "$name"
    t_wait account_tool useradd --no-create-home --user-group --home-dir / --shell /bin/false "$name"
    USER_UID=$(id -u "$name")
    USER_GID=$(id -g "$name")
}

make_user a
A=$USER_UID:$USER_GID
make_user b
B=$USER_UID:$USER_GID

py() { python3 "$T_HERE/others_cases.py" "$1" "$MNT" "$A" "$B" "${@:2}"; }

# ---- nobody gets in --------------------------------------------------------------------------------

umask 0 # whatever the daemon was started with, DIR is its owner's alone
t_mount -o allow_other
umask 022

directory_is_closed()
{
    echo 'snapshot kept' >"$MNT/.ctl"
    echo checkpoint >"$MNT/.ctl"
    t_eq "$(find "$DIR" -perm /077)" "" "what others may use below DIR"
    t_eq "$(find "$DIR" ! -user 0 -o ! -group 0)" "" "whose it is"
    t_run setpriv --reuid "${A%:*}" --regid "${A#*:}" --clear-groups ls "$DIR"
    t_ne "$T_STATUS" 0 "ls of DIR by a user"
}

commands_stay_in_dir()
{
    local before name
    before=$(find "$T_DIR/main" -path "$DIR" -prune -o -print | sort)
    for name in ../up /tmp/up a/b .. . "" "$(printf 'x%.0s' {1..300})"; do
        t_run bash -c 'echo "snapshot $1" >"$2/.ctl"' - "$name" "$MNT"
        t_ne "$T_STATUS" 0 "snapshot '$name'"
    done
    t_run bash -c 'printf "snapshot a\0b\n" >"$1/.ctl"' - "$MNT"
    t_ne "$T_STATUS" 0 "snapshot with a NUL"
    t_eq "$(find "$T_DIR/main" -path "$DIR" -prune -o -print | sort)" "$before" "what there is beside DIR"
    t_eq "$(ls "$DIR/snapshots")" kept
}

t_test "a session of one is closed to the other" py closed_session
t_test "one that may be read cannot be changed" py readable_session
t_test "groups" py groups
t_test "owners and modes" py owners
t_test ".ctl and the root's files" py root_files
t_test "what all may read tells totals, and no names" py what_all_may_read
t_test "root append into another's session" py root_append
t_test "descriptors that were kept, and /proc/self/fd" py descriptors
t_test "attributes" py attributes
t_test "names" py names
t_test "links and renames" py links
t_test "what lies in DIR is the owner's alone" directory_is_closed
t_test "names of commands lead nowhere" commands_stay_in_dir
t_unmount

# ---- nobody takes what others need ------------------------------------------------------------------

t_use limits
t_mount -o allow_other,user_files_max=12000
pid() { cat "$T_HOME/pid"; }
t_test "10,000 handles with half lines" py many_handles "$(pid)"
t_test "half lines up to the limit" py half_lines
t_test "half documents up to the limit" py half_documents
t_test "scratch files up to the limit" py scratch_files
t_test "large meta files held open" py open_texts
t_test "large records held open" py held_records
t_test "followers that wait, and that never read" py followers
t_test "refused lines up to the limit" py refused_lines
t_test "last errors of many sessions" py last_errors
t_test "many drafts beside a document" py many_drafts
t_test "all of it came back" py all_came_back
t_unmount

t_use receipts
t_mount -o allow_other,max_record=16K,pieces_max=256K,user_pieces_max=64K
t_test "receipts that nobody reads" py receipts
t_test "and they came back" py all_came_back
t_unmount
