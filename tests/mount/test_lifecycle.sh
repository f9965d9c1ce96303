#!/usr/bin/env bash
# The life of a mount: how it begins, what it refuses, and every way in which it ends.
. "$(dirname "$0")/lib.sh"
ROUNDS=${ROUNDS:-100}

store_count=0
# Each case has a store of its own.
fresh()
{
    store_count=$((store_count + 1))
    t_use "${FUNCNAME[1]}-$store_count"
}

# hotlogfs is refused: exit status 1, a sentence that matches, and nothing is mounted.
refused()
{
    local pattern=$1
    shift
    t_run "$HOTLOGFS" "$@"
    t_eq "$T_STATUS" 1 "exit status of hotlogfs $* ($T_OUT)"
    t_match "$T_OUT" "$pattern" "what hotlogfs $* says"
}

lock_is_free() { flock -n "$DIR/lock" true; }
not_mounted() { ! t_is_mounted; }

# ---- the beginning ------------------------------------------------------------------------------

in_the_background()
{
    fresh
    local said
    # Nobody waits for the daemon: not for its output, not for descriptors that it inherited.
    exec 7<"$T_DIR"
    said=$("$HOTLOGFS" "$DIR" "$MNT" 2>&1)
    t_eq "$said" "" "output"
    t_is_live || t_fail "not mounted when the command returned"
    t_defer t_abandon "$T_HOME" "$MNT"
    t_daemon_of_mount >"$T_HOME/pid"
    touch "$T_HOME/background"
    t_load
    t_eq "$(readlink "/proc/$DAEMON_PID/cwd")" / "working directory"
    t_eq "$(readlink "/proc/$DAEMON_PID/fd/1")" /dev/null "standard output"
    t_eq "$(cut -d' ' -f6 "/proc/$DAEMON_PID/stat")" "$DAEMON_PID" "session id"
    ! ls -l "/proc/$DAEMON_PID/fd" | grep -F -- "-> $T_DIR" | grep -vF "$DIR" ||
        t_fail "inherited a descriptor"
    exec 7<&-
    t_unmount
    lock_is_free
}
t_test "is in the background by default, mounted when the command returns" in_the_background

in_the_foreground()
{
    fresh
    t_mount
    t_alive "$DAEMON_PID"
    t_unmount
    lock_is_free
}
t_test "stays in the foreground with -f" in_the_foreground

table_of_mounts()
{
    fresh
    DIR="$T_HOME/a dir, with \\odd =bytes"
    t_mount
    findmnt -n -o FSTYPE,OPTIONS "$MNT"
    t_eq "$(findmnt -n -o FSTYPE "$MNT")" fuse.hotlogfs type
    t_eq "$(findmnt -n -o SOURCE "$MNT")" "$DIR" source
    t_match "$(findmnt -n -o OPTIONS "$MNT")" 'rw,nosuid,nodev.*user_id=0.*default_permissions'
    t_kill9
    t_mount -o nosuid,nodev,noexec,noatime,x-systemd.automount,defaults
    t_match "$(findmnt -n -o OPTIONS "$MNT")" 'nosuid,nodev,noexec,noatime'
    t_unmount
}
t_test "shows type, source and options in the table of mounts" table_of_mounts

relative_paths()
{
    fresh
    cd "$T_HOME"
    ln -s mnt link
    "$HOTLOGFS" dir link/
    touch background
    t_defer t_abandon "$T_HOME" "$MNT"
    t_is_live
    t_eq "$(findmnt -n -o SOURCE "$MNT")" "$DIR" source
    fusermount3 -u mnt
    t_wait lock_is_free
}
t_test "takes relative paths and links" relative_paths

systemd_readiness()
{
    fresh
    python3 - "$HOTLOGFS" "$DIR" "$MNT" "$T_HOME/socket" <<'END'
import os, signal, socket, subprocess, sys
program, store, mount, path = sys.argv[1:]
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
    notices.bind(path)
    notices.settimeout(180)
    daemon = subprocess.Popen([program, store, mount, "-f"], env=dict(os.environ, NOTIFY_SOCKET=path))
    try:
        lines = notices.recv(4096).decode().splitlines()
        assert "READY=1" in lines, lines
        assert "MAINPID=%d" % daemon.pid in lines, lines
        assert os.path.ismount(mount), "ready, but not mounted"
        daemon.send_signal(signal.SIGTERM)
        lines = notices.recv(4096).decode().splitlines()
        assert "STOPPING=1" in lines, lines
        assert daemon.wait(180) == 0, daemon.returncode
        assert not os.path.ismount(mount), "ended, but mounted"
    finally:
        if daemon.poll() is None:
            daemon.kill()
            daemon.wait()
            subprocess.run(["umount", "-l", mount], check=False)
END
}
t_test "tells systemd when it is ready and when it stops" systemd_readiness

help_lists_options()
{
    local option
    t_run "$HOTLOGFS" --help
    t_eq "$T_STATUS" 0 "exit status"
    for option in ro allow_other sync sync_interval=TIME segment_size=SIZE max_record=SIZE announce_max=N \
        checkpoint_interval=TIME compact_interval=TIME compact_threshold=SIZE history=TIME backups=N \
        pieces_max=SIZE scratch_max=SIZE user_pieces_max=SIZE user_scratch_max=SIZE user_files_max=N spin=TIME io_uring; do
        grep -Eq "^  $option +[a-z]" <<<"$T_OUT" || t_fail "--help says nothing of $option"
    done
    t_match "$("$HOTLOGFS" --version)" '^hotlogfs [0-9]+\.[0-9]+\.[0-9]+$'
}
t_test "--help lists every option, --version a version" help_lists_options

# ---- what is refused ----------------------------------------------------------------------------

refuses_bad_options()
{
    fresh
    refused 'unknown option "wibble"' "$DIR" "$MNT" -o ro,wibble=3
    refused 'unknown option "--wibble"' "$DIR" "$MNT" --wibble
    refused 'sync_interval.*"soon"' "$DIR" "$MNT" -o sync_interval=soon
    refused 'sync_interval.*"5"' "$DIR" "$MNT" -o sync_interval=5
    refused 'segment_size.*between 64K and 1G' "$DIR" "$MNT" -o segment_size=1K
    refused 'max_record.*needs a value' "$DIR" "$MNT" -o max_record
    refused 'sync takes no value' "$DIR" "$MNT" -o sync=1
    refused 'MOUNTPOINT is missing' "$DIR"
    refused 'one argument too many: "more"' "$DIR" "$MNT" more
    t_absent "$DIR"
}
t_test "refuses unknown options and bad values by name" refuses_bad_options

refuses_bad_paths()
{
    fresh
    mkdir -p "$DIR/inside"
    refused 'No such file' "$DIR" "$T_HOME/nowhere"
    refused 'No such file' "$T_HOME/no/where" "$MNT"
    touch "$T_HOME/file"
    refused 'file is not a directory' "$DIR" "$T_HOME/file"
    refused 'file is not a directory' "$T_HOME/file" "$MNT"
    refused 'MOUNTPOINT .* lies inside DIR' "$DIR" "$DIR/inside"
    refused 'DIR .* lies inside MOUNTPOINT' "$MNT/inside" "$MNT"
    refused 'are the same' "$MNT" "$MNT"
    not_mounted
}
t_test "refuses paths that cannot be" refuses_bad_paths

second_writer()
{
    fresh
    t_mount
    mkdir "$T_HOME/other"
    refused "process $DAEMON_PID|pid $DAEMON_PID" "$DIR" "$T_HOME/other"
    ! mountpoint -q "$T_HOME/other" || t_fail "refused, but mounted"
    refused "$DAEMON_PID" "$DIR" "$MNT"
    refused "is mounted on .* already" "$T_HOME/store2" "$MNT"
    t_absent "$T_HOME/store2"
    t_is_live
    t_unmount
}
t_test "refuses a second writer, with the pid of the first" second_writer

# ---- dead mounts --------------------------------------------------------------------------------

takes_over_a_dead_mount()
{
    fresh
    local round
    t_mount
    for round in 1 2 3; do
        t_kill9
        # Not stat, which the kernel's cache would answer.
        t_errno ENOTCONN listdir "$MNT"
        t_mount
        t_errno OK stat "$MNT/append"
        t_eq "$(findmnt -n "$MNT" | wc -l)" 1 "mounts on top of each other in round $round"
    done
    t_unmount
}
t_test "takes over the mount that kill -9 left dead" takes_over_a_dead_mount

at_once_after_kill()
{
    fresh
    local round
    t_mount -b
    for round in {1..20}; do
        kill -9 "$(cat "$T_HOME/pid")"
        "$HOTLOGFS" "$DIR" "$MNT" || t_fail "round $round"
        t_daemon_of_mount >"$T_HOME/pid"
    done
    t_unmount
}
t_test "starts at once after kill -9, though the kernel still closes files" at_once_after_kill

leaves_other_dead_mounts()
{
    fresh
    t_mount
    t_kill9
    refused 'dead mount of another store' "$T_HOME/other" "$MNT"
    t_absent "$T_HOME/other"
    t_is_mounted || t_fail "it took the mount away"
    umount -l "$MNT"
}
t_test "leaves the dead mount of another store alone" leaves_other_dead_mounts

# ---- the end ------------------------------------------------------------------------------------

ends_at()
{
    fresh
    t_mount
    exec 5>"$MNT/append"
    kill "-$1" "$DAEMON_PID"
    t_wait_end 0
    not_mounted || t_fail "still mounted"
    lock_is_free || t_fail "still locked"
    exec 5>&- || true
    t_mount
    t_unmount
}
t_test "ends at SIGTERM with a file open, exit status 0" ends_at TERM
t_test "ends at SIGINT with a file open, exit status 0" ends_at INT
t_test "ends at SIGHUP in the foreground, exit status 0" ends_at HUP

background_ignores_hangup()
{
    fresh
    t_mount -b
    kill -HUP "$DAEMON_PID"
    # A signal is taken before a later one: had the first ended it, the mount would be gone by now or soon.
    t_wait signals_taken "$DAEMON_PID"
    t_is_live || t_fail "it ended"
    t_alive "$DAEMON_PID"
    t_unmount
}
signals_taken() { ! grep -Eq '^(SigPnd|ShdPnd):.*[1-9a-f]' "/proc/$1/status"; }
t_test "does not end at SIGHUP in the background" background_ignores_hangup

unmount_then_mount()
{
    fresh
    local round
    t_mount -b
    for ((round = 1; round <= ROUNDS; round++)); do
        { fusermount3 -u "$MNT" && "$HOTLOGFS" "$DIR" "$MNT"; } || t_fail "round $round of $ROUNDS"
    done
    t_daemon_of_mount >"$T_HOME/pid"
    t_unmount
}
t_test "unmount-then-mount works $ROUNDS times in a row" unmount_then_mount

terminate_then_mount()
{
    fresh
    local round
    t_mount -b
    for round in {1..10}; do
        t_daemon_of_mount >"$T_HOME/pid"
        exec 5>"$MNT/append"
        kill -TERM "$(cat "$T_HOME/pid")"
        t_wait not_mounted
        exec 5>&- || true
        "$HOTLOGFS" "$DIR" "$MNT" || t_fail "round $round"
    done
    t_daemon_of_mount >"$T_HOME/pid"
    t_unmount
}
t_test "waits for the one that is closing" terminate_then_mount

lazy_unmount()
{
    fresh
    t_mount
    exec 5>"$MNT/append"
    umount -l "$MNT"
    t_wait_end 0
    lock_is_free || t_fail "still locked"
    exec 5>&- || true
}
t_test "umount -l with a file open leaves no daemon and no lock" lazy_unmount

lazy_then_another()
{
    fresh
    local holder
    t_mount
    # Held by a working directory: closing a file would ask the daemon, which is stopped below.
    (cd "$MNT" && exec sleep 1000) &
    holder=$!
    t_defer kill "$holder"
    t_wait holds_mount "$holder"
    # Stopped, so that it cannot notice before something else lies on the mountpoint.
    kill -STOP "$DAEMON_PID"
    umount -l "$MNT"
    mount -t tmpfs none "$MNT"
    t_defer umount "$MNT"
    kill -CONT "$DAEMON_PID"
    t_wait_end 0
    t_eq "$(findmnt -n -o FSTYPE "$MNT")" tmpfs "what is mounted now"
    kill "$holder"
    umount "$MNT"
}
holds_mount() { [ "$(readlink "/proc/$1/cwd")" = "$MNT" ]; }
t_test "leaves alone what was mounted in its place" lazy_then_another

mounted_over()
{
    fresh
    t_mount
    mount -t tmpfs none "$MNT"
    t_defer umount -l "$MNT"
    t_alive "$DAEMON_PID"
    umount "$MNT"
    t_errno OK stat "$MNT/append"
    t_unmount
}
t_test "lives on below another mount" mounted_over

bind_mount()
{
    fresh
    t_mount
    mkdir "$T_HOME/bound"
    mount --bind "$MNT" "$T_HOME/bound"
    t_defer umount -l "$T_HOME/bound"
    fusermount3 -u "$MNT"
    t_errno OK stat "$T_HOME/bound/append"
    t_alive "$DAEMON_PID"
    umount "$T_HOME/bound"
    t_wait_end 0
    lock_is_free
}
t_test "a bind mount keeps it alive, and its unmount ends it" bind_mount

aborted()
{
    fresh
    local connections=$T_HOME/connections device
    t_mount
    mkdir "$connections"
    mount -t fusectl none "$connections"
    t_defer umount "$connections"
    # stat gives major and minor in one number; a FUSE mount's major is 0.
    device=$(stat -c %d "$MNT")
    echo 1 >"$connections/$device/abort"
    t_wait_end 0
    umount "$connections"
    not_mounted || t_fail "a dead mount stays"
    lock_is_free
}
t_test "a connection cut from outside leaves no dead mount" aborted

# ---- waiting for the lock -----------------------------------------------------------------------

# Makes a store, and holds its lock through descriptor 6 with a note that says what is given; counts in
# $T_HOME/tries how often somebody tries.
hold_lock()
{
    t_mount
    t_unmount
    exec 6<>"$DIR/lock"
    flock 6
    echo "$BASHPID $1" >"$DIR/lock"
    inotifywait -m -e open --format try "$DIR/lock" >"$T_HOME/tries" 2>"$T_HOME/watch" 6>&- &
    t_defer kill $!
    t_wait grep -q 'Watches established' "$T_HOME/watch"
}
tried_again() { [ "$(wc -l <"$T_HOME/tries")" -ge 3 ]; }

waits_for_holder()
{
    fresh
    local start
    hold_lock "$1"
    "$HOTLOGFS" "$DIR" "$MNT" 6>&- &
    start=$!
    t_defer t_abandon "$T_HOME" "$MNT"
    t_wait tried_again
    t_alive "$start" || t_fail "it did not wait"
    flock -u 6
    wait "$start"
    t_is_live || t_fail "not mounted"
    touch "$T_HOME/background"
    t_daemon_of_mount >"$T_HOME/pid"
    t_unmount
}
t_test "waits for a holder that is closing" waits_for_holder closing
t_test "waits for a holder that has not noticed its unmount" waits_for_holder "mounted 0:1048575"

refuses_at_once()
{
    fresh
    hold_lock "$1"
    refused "process $BASHPID" "$DIR" "$MNT"
    not_mounted
}
t_test "does not wait for a holder that is starting" refuses_at_once ""
t_test "does not wait for a note that it does not know" refuses_at_once "mounted somewhere"

stops_waiting()
{
    fresh
    local start
    hold_lock closing
    "$HOTLOGFS" "$DIR" "$MNT" -f 6>&- &
    start=$!
    t_wait tried_again
    kill -TERM "$start"
    t_run wait "$start"
    wait "$start" && t_fail "exit status 0, but it never mounted"
    t_gone "$start"
    not_mounted
}
t_test "SIGTERM ends the wait" stops_waiting

gone_requester()
{
    fresh
    local start daemon
    hold_lock closing
    "$HOTLOGFS" "$DIR" "$MNT" 6>&- &
    start=$!
    t_defer t_abandon "$T_HOME" "$MNT"
    t_wait tried_again
    daemon=$(tr -d ' ' <"/proc/$start/task/$start/children")
    t_alive "$daemon"
    kill -9 "$start"
    t_wait t_gone "$start"
    flock -u 6
    t_wait t_gone "$daemon"
    not_mounted
    lock_is_free
}
t_test "leaves nothing behind when the process that asked for the mount is gone" gone_requester

# ---- limits -------------------------------------------------------------------------------------

# A limit on the size of files, as a shell may hand down, is as a full disk: it ends nothing, and heals.
limited_file_size()
{
    fresh
    local before
    t_mount
    mkdir "$MNT/sessions/s"
    seq 1 100 >"$MNT/sessions/s/append"
    python3 -c 'print(("x" * 999 + "\n") * 4200, end="")' >"$T_HOME/lines"
    prlimit --pid "$DAEMON_PID" --fsize=2000000:unlimited
    t_run "$T_HERE/try.py" writefile "$MNT/sessions/s/append" "$T_HOME/lines"
    t_match "$T_OUT" "^short" "what the append that meets the limit ends in"
    before=$(wc -l <"$MNT/sessions/s/log")
    t_run "$T_HERE/try.py" writefile "$MNT/sessions/s/append" "$T_HOME/lines"
    t_eq "$T_OUT" EFBIG "the next append"
    t_match "$(cat "$MNT/sessions/s/last_error")" "File too large"
    t_eq "$(wc -l <"$MNT/sessions/s/log")" "$before" "records"
    prlimit --pid "$DAEMON_PID" --fsize=unlimited:unlimited
    t_eq "$("$T_HERE/try.py" writefile "$MNT/sessions/s/append" "$T_HOME/lines")" OK "once it is gone"
    echo verify >"$MNT/.ctl"
    tail -n 1 "$MNT/.ctl" | jq -e '.damaged_gaps + .broken_batches + .index_missing + .index_dangling == 0'
    t_remount
    t_eq "$(wc -l <"$MNT/sessions/s/log")" "$((before + $(wc -l <"$T_HOME/lines")))" "records after all"
    t_unmount
}
t_test "a limit on the size of files refuses appends, and ends nothing" limited_file_size

# ---- a plain user -------------------------------------------------------------------------------

# As on most systems, but perhaps not on this one, /dev/fuse is open to all: in a mount namespace.
plain_user_in_namespace()
{
    local user=65534
    local as=(setpriv "--reuid=$user" "--regid=$user" --clear-groups)
    mkdir "$T_HOME/dev"
    mount -t tmpfs none "$T_HOME/dev"
    mknod -m 666 "$T_HOME/dev/fuse" c 10 229
    mount --bind "$T_HOME/dev/fuse" /dev/fuse
    "${as[@]}" "$HOTLOGFS" "$DIR" "$MNT"
    t_daemon_of_mount >"$T_HOME/pid"
    t_match "$(findmnt -n -o OPTIONS "$MNT")" "user_id=$user"
    t_eq "$("${as[@]}" "$T_HERE/try.py" stat "$MNT/append")" OK "stat by the user"
    t_errno EACCES stat "$MNT/append"
    kill -9 "$(cat "$T_HOME/pid")"
    "${as[@]}" "$HOTLOGFS" "$DIR" "$MNT"
    t_daemon_of_mount >"$T_HOME/pid"
    t_eq "$(findmnt -n "$MNT" | wc -l)" 1 "mounts on top of each other"
    # Another user's dead mount stays, even before root.
    kill -9 "$(cat "$T_HOME/pid")"
    t_wait t_gone "$(cat "$T_HOME/pid")"
    refused 'mount of another user' "$DIR" "$MNT"
    "${as[@]}" "$HOTLOGFS" "$DIR" "$MNT"
    t_daemon_of_mount >"$T_HOME/pid"
    kill -TERM "$(cat "$T_HOME/pid")"
    t_wait t_gone "$(cat "$T_HOME/pid")"
    not_mounted || t_fail "still mounted"
    lock_is_free
}

plain_user()
{
    fresh
    # The program and the harness may lie where others cannot go.
    mkdir "$T_HOME/program"
    cp "$HOTLOGFS" "$T_HOME/program/hotlogfs"
    cp "$T_HERE/try.py" "$T_HOME/program/try.py"
    HOTLOGFS=$T_HOME/program/hotlogfs
    T_HERE=$T_HOME/program
    chown 65534:65534 "$T_HOME" "$MNT"
    export ASAN_OPTIONS=exitcode=99 TSAN_OPTIONS=exitcode=99
    t_defer t_abandon "$T_HOME" "$MNT"
    "$T_ROOT/tests/mount/apart" bash -eEuo pipefail -c "
        $(declare -p T_DIR T_HOME T_HERE T_TIMEOUT DIR MNT HOTLOGFS t_log)
        $(declare -f)
        trap 't_on_error \"\$LINENO\" \"\$BASH_COMMAND\"' ERR
        plain_user_in_namespace"
}
t_test "a plain user mounts, takes over and unmounts" plain_user
