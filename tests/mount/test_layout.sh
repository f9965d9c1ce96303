#!/usr/bin/env bash
# test_layout.sh - what is on the mount: names, attributes, what may be done to them (design, section 1).
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

py()
{
    local name=$1
    shift
    python3 "$T_HERE/layout_cases.py" "$name" "$MNT" "$@"
}

# `ls -l` of everything, and what a user sees of it.
listing()
{
    local s=$MNT/sessions/listed
    mkdir "$s"
    seq 1 300 >"$s/append"
    t_eq "$(ls "$s" | grep -c '^[0-9]*$')" 300 "numbers listed"
    t_eq "$(ls -U "$s" | grep '^[0-9]' | sort -n | tr '\n' ' ')" "$(seq 1 300 | tr '\n' ' ')" "each once"
    t_run ls -lR "$MNT"
    t_eq "$T_STATUS" 0 "ls -lR: $T_OUT"
    t_eq "$(stat -c '%s %A' "$s/300")" "$(wc -c <"$s/300") -r--r--r--"
    t_eq "$(find "$s" -name '[0-9]*' -size +0 | wc -l)" 300
    t_eq "$(find "$MNT/sessions" -maxdepth 1 -name listed -type d | wc -l)" 1
    t_errno ENOENT stat "$s/007"
}

kept_across_remount()
{
    t_unmount
    t_mount
    py check_session_attributes
    [ "$(id -u)" != 0 ] || py check_owner
}

kept_across_kill()
{
    py session_attributes_again
    t_kill9
    t_mount
    py check_session_attributes
    t_eq "$(getfattr -n user.again --only-values "$MNT/sessions/tagged")" "set before the kill"
    [ "$(id -u)" != 0 ] || py check_owner
}

df_and_du()
{
    t_eq "$(df --output=fstype "$MNT" | tail -n 1)" fuse.hotlogfs
    t_eq "$(df --output=source "$MNT" | tail -n 1)" "$DIR"
    t_ne "$(du -s "$MNT/sessions" | cut -f 1)" 0 "du"
}

t_mount
t_test "the root" py root_names
t_test "a session's names, and none but those" py session_names
t_test "size, time and links of records" py record_attributes
t_test "files take their bits from the session" py modes_follow_the_session
t_test "a chmod reaches what the kernel has cached" py cached_modes
t_test "and also its directories" py cached_directories
t_test "ranges" py ranges
t_test "nothing can be destroyed" py never_destroyed
t_test "encoded names" py encoded_names
t_test "statfs" py statfs "$DIR"
t_test "df and du" df_and_du
t_test "an open meta ends where its bytes end" py size_as_opened
t_test "fallocate is EINVAL" py fallocate
t_test "attributes of others are EOPNOTSUPP" py attributes_of_others
t_test "user attributes of a session" py session_attributes
t_test "user.hotlog.* of a record point into the segment" py record_marks "$DIR"
t_test "any part of a log or range" py seek_and_sizes
t_test "long listings, piece by piece" py long_listings
t_test "ls, find and stat" listing
if [ "$(id -u)" = 0 ]; then
    t_test "chmod and chown" py change_owner
fi
t_test "owner, mode and attributes are kept across a remount" kept_across_remount
t_test "owner, mode and attributes are kept across kill -9" kept_across_kill
t_unmount

if [ "$(id -u)" = 0 ]; then
    t_use others
    chmod 711 "$T_DIR" "$T_HOME"
    t_mount -o allow_other
    t_test "the root, with allow_other" py root_names yes
    t_test "other users" py users
    t_unmount
fi
