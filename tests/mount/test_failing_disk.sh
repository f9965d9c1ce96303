#!/usr/bin/env bash
# test_failing_disk.sh - system calls of a mounted daemon fail: who writes is told, what was acknowledged stays, and it
# goes on when that can be. (Each call of the store by itself: tests/crash/test_crash_failures.c.)
# shellcheck source=tests/mount/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PYTHONDONTWRITEBYTECODE=1

py() { python3 "$T_HERE/failing_disk.py" "$@"; }

# inject CALLS ERROR WHEN: from now on the WHEN-th of these calls of each thread fails. release: no longer.
inject()
{
    strace -f -qq -o /dev/null -e "trace=$1" -e "inject=$1:error=$2:when=$3" -p "$DAEMON_PID" 2>"$T_DIR/strace" &
    tracer=$!
    t_defer sh -c "! grep -qs strace /proc/$tracer/comm || kill -KILL $tracer"
    t_wait traced
}
release()
{
    kill -TERM "$tracer"
    t_wait t_gone "$tracer"
}
traced()
{
    local task
    for task in "/proc/$DAEMON_PID/task"/*; do
        [ "$(awk '/^TracerPid:/ { print $2 }' "$task/status")" != 0 ] || return 1
    done
}

checked()
{
    py check "$MNT" "$T_HOME/journal"
    [ "$(jq '.damaged_gaps + .broken_batches' <<<"$(verify)")" = 0 ] || t_fail "verify: $(verify)"
}
verify()
{
    exec 3<>"$MNT/.ctl"
    echo verify >&3
    cat <&3
    exec 3>&-
}

begin()
{
    t_use "$1"
    # Without announcements: a thread that waits for its own daemon cannot be stopped by a tracer that stopped that.
    t_mount -o segment_size=64K,sync_interval=10s,announce_max=0
    mkdir -p "$MNT/sessions/s"
    py write "$MNT" "$T_HOME/journal" 5 >/dev/null
}

# fails CALL ERROR WHEN TOLD HEALS: the writer is told TOLD; HEALS says whether he can go on without a new mount.
fails()
{
    local call=$1 error=$2 when=$3 told=$4 heals=$5 writes=120
    # Threads are counted each by itself, and how they share the work is theirs: until one of them comes so far.
    [ "$told" = none ] || writes=3000
    begin "$call-$error-$when"
    inject "$call" "$error" "$when"
    t_eq "$(py write "$MNT" "$T_HOME/journal" "$writes")" "$told" "what the writer is told"
    release
    if [ "$heals" = yes ]; then
        t_eq "$(py write "$MNT" "$T_HOME/journal" 3)" none "what he is told afterwards"
    else
        t_eq "$(py write "$MNT" "$T_HOME/journal" 3)" EIO "what he is told until it is mounted again"
        t_match "$(jq -r .reason "$MNT/sessions/s/last_error")" 'opened again'
    fi
    wc -l <"$MNT/sessions/s/log" >/dev/null # reads go on
    t_kill9
    t_mount -o segment_size=64K
    checked
    t_eq "$(py write "$MNT" "$T_HOME/journal" 3)" none "what he is told after a new mount"
    checked
    t_unmount
}

for when in 1 3 40; do
    t_test "a write fails with EIO, $when" fails pwrite64 EIO "$when" EIO yes
    t_test "a write fails with ENOSPC, $when" fails pwrite64 ENOSPC "$when" ENOSPC yes
    t_test "a write is interrupted, $when" fails pwrite64 EINTR "$when" none yes
    t_test "a sync fails with EIO, $when" fails fdatasync EIO "$when" EIO no
    t_test "a sync fails with ENOSPC, $when" fails fdatasync ENOSPC "$when" EIO no
    t_test "a sync is interrupted, $when" fails fdatasync EINTR "$when" none yes
done
