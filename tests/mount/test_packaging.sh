#!/usr/bin/env bash
# test_packaging.sh - the systemd units. The package itself is tested by tests/deb.
# shellcheck source=tests/mount/lib.sh
. "$(dirname "$0")/lib.sh"

export XDG_RUNTIME_DIR=$T_DIR/run
mkdir "$XDG_RUNTIME_DIR" "$T_DIR/build"
cp "$HOTLOGFS" "$T_DIR/build/hotlogfs"
env -u MAKEFLAGS -u MAKELEVEL make -s --no-print-directory -C "$T_ROOT" -o all BUILD="$T_DIR/build" \
    PREFIX="$T_DIR/usr" HELPERDIR= install
SYSTEM=$T_DIR/usr/lib/systemd/system/hotlogfs@.service
USER=$T_DIR/usr/lib/systemd/user/hotlogfs@.service

verifies()
{
    t_run systemd-analyze "$1" --man=no --recursive-errors=no verify "$2"
    t_eq "$T_STATUS:$T_OUT" 0: "systemd-analyze verify"
}
t_test "systemd-analyze verify: the system's unit" verifies --system "$SYSTEM"
t_test "systemd-analyze verify: a user's unit" verifies --user "$USER"

# systemd-analyze calls these good. They hide the mount from all others, or take what the daemon needs.
makes_no_namespace()
{
    local directive words
    words='Protect(System|Home|KernelTunables|KernelModules|KernelLogs|ControlGroups|Proc|Hostname)|ProcSubset'
    words+='|Private(Tmp|Devices|Mounts|Network|IPC|Users)|(ReadWrite|ReadOnly|Inaccessible|Exec|NoExec)Paths'
    words+='|Bind(ReadOnly)?Paths|TemporaryFileSystem|MountFlags|MountImages|ExtensionImages|Root(Directory|Image)'
    words+='|DynamicUser|RestrictSUIDSGID|User|Group'
    for directive in "$SYSTEM" "$USER"; do
        ! grep -E "^($words)=" "$directive" || t_fail "$directive has one of them"
    done
    # For a user fusermount3 must gain rights.
    ! grep -E '^(NoNewPrivileges|SystemCall|Restrict(Addr|Name|Real)|LockP|MemoryDeny|Device|Capab)' "$USER" ||
        t_fail "a user's unit is hardened"
}
t_test "no directive that hides the mount or breaks it" makes_no_namespace

# Does what the lines of the unit say, as systemd does: environment from the file, arguments from ${NAME}.
as_systemd()
{
    python3 - "$SYSTEM" "$T_ROOT/dist/example.conf" "$DIR" "$MNT" <<'END'
import os, re, shlex, signal, socket, subprocess, sys
unit, example, store, mountpoint = sys.argv[1:]
lines = [line.split("=", 1) for line in open(unit).read().splitlines() if "=" in line and line[0] not in "#["]
# The example's names, with paths of the test.
conf = dict(line.split("=", 1) for line in open(example).read().splitlines() if "=" in line and line[0] != "#")
assert set(conf) == {"DIR", "MOUNTPOINT", "OPTIONS"}, conf
values = {"DIR": store, "MOUNTPOINT": mountpoint, "OPTIONS": conf["OPTIONS"]}

def command(text):
    return [re.sub(r"\$\{(\w+)\}", lambda m: values[m[1]], word) for word in shlex.split(text.lstrip("-"))]

def run_all(key, must):
    found = [command(value) for name, value in lines if name == key]
    assert found, key
    for words in found:
        subprocess.run(words, check=must)

def mounted():
    return any(line.split()[4] == mountpoint.replace(" ", "\\040") for line in open("/proc/self/mountinfo"))

with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
    path = os.environ["XDG_RUNTIME_DIR"] + "/notify"
    notices.bind(path)
    notices.settimeout(180)
    start = [command(value) for name, value in lines if name == "ExecStart"]
    assert len(start) == 1
    for crash in (True, True, False):
        run_all("ExecStartPre", True)
        daemon = subprocess.Popen(start[0], env=dict(os.environ, NOTIFY_SOCKET=path))
        try:
            assert "READY=1" in notices.recv(4096).decode().splitlines()
            assert mounted()
            os.makedirs(mountpoint + "/sessions/s", exist_ok=True)
            with open(mountpoint + "/sessions/s/append", "w") as target:
                target.write("line\n")
            daemon.send_signal(signal.SIGKILL if crash else signal.SIGTERM)
            status = daemon.wait(180)
            assert status == (-signal.SIGKILL if crash else 0), status
            assert mounted() == crash, "the mount after the end"
            run_all("ExecStopPost", True)
            assert not mounted(), "a dead mount was left"
            if not crash:
                assert notices.recv(4096).decode().startswith("STOPPING=1")
        finally:
            if daemon.poll() is None:
                daemon.kill()
                daemon.wait()
END
}
a_crash()
{
    t_defer t_abandon "$T_HOME" "$MNT"
    t_use "with blanks"
    rmdir "$MNT"
    t_defer t_abandon "$T_HOME" "$MNT"
    as_systemd
    t_mount
    t_eq "$(wc -l <"$MNT/sessions/s/log")" 3 "records"
    t_unmount
}
t_test "the unit's commands: start, crash, start again, stop" a_crash
