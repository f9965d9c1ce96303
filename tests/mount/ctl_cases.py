"""Commands that are interrupted: the parts of test_ctl.sh that a shell cannot do."""
import ctypes
import errno
import json
import os
import signal
import subprocess
import threading

import hl
from hl import case, read

PATIENCE = 180  # seconds; whoever takes longer to end hangs


def status(mount):
    return json.loads(read(f"{mount}/.status"))


def last_result(mount):
    return json.loads(read(f"{mount}/.ctl").splitlines()[-1])


def command(mount, text):
    """The command, given by a process of its own."""
    return subprocess.Popen(["sh", "-c", 'exec >"$1"; echo "$2"', "sh", f"{mount}/.ctl", text],
                            stderr=subprocess.DEVNULL)


def interrupt(mount, text, number):
    """Whether the command was under way, and ended with its writer."""
    process = command(mount, text)
    while process.poll() is None and not status(mount)["running"]:
        pass
    process.send_signal(number)
    process.wait(PATIENCE)
    hl.wait_for(lambda: not status(mount)["running"], "the command to end")
    if process.returncode >= 0:
        return False
    assert process.returncode == -number, process.returncode
    result = last_result(mount)
    assert result["command"] == text.split()[0], result
    if result["ok"]:
        return False  # it was through, and its writer about to end
    assert result["errno"] == "EINTR" and result["error"] == "interrupted; nothing was changed", result
    return True


@case
def interrupted(mount):
    """Long commands end with the process that gave them, and change nothing."""
    s = hl.new_session(mount, "long")
    fd = hl.appender(s)
    for _ in range(40):
        hl.write_all(fd, b'{"payload":"%s"}\n' % (b"x" * 100) * 8000)
    os.close(fd)
    log = hl.log_of(s)
    for text in ("verify", "reindex", "checkpoint", "snapshot unfinished"):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            # It may be through before the signal comes.
            assert any(interrupt(mount, f"{text}-{n}" if " " in text else text, number) for n in range(100)), text
    assert hl.log_of(s) == log
    assert not [name for name in os.listdir(f"{status(mount)['dir']}/snapshots") if name.startswith(".")]
    with open(f"{mount}/.ctl", "w") as ctl:
        ctl.write("verify\n")
    result = last_result(mount)
    assert result["damaged_gaps"] == result["index_missing"] == result["index_dangling"] == 0, result


@case
def interrupted_waiting(mount):
    """One that waits for its turn is in line, ends as well, and at once, also by SIGKILL; the one before it goes on."""
    for number in (signal.SIGINT, signal.SIGKILL):
        assert any(interrupted_in_line(mount, number) for _ in range(100)), "none was interrupted while it waited"


def interrupted_in_line(mount, number):
    first = command(mount, "reindex")
    while first.poll() is None and not status(mount)["running"]:
        pass
    second = command(mount, "rotate")
    while first.poll() is None and second.poll() is None and not status(mount)["waiting"]:
        pass
    waited = status(mount)["waiting"] == 1
    second.send_signal(number)
    second.wait(PATIENCE)
    before = first.poll() is None
    first.wait(PATIENCE)
    assert first.returncode == 0, first.returncode
    return waited and before and second.returncode == -number


@case
def sync_beside(mount):
    """A sync waits for no command, and .ctl can be read, beside one that is under way."""
    for _ in range(100):
        first = command(mount, "reindex")
        while first.poll() is None and not status(mount)["running"]:
            pass
        second = command(mount, "sync")
        assert second.wait(PATIENCE) == 0
        read(f"{mount}/.ctl")
        before = first.poll() is None
        assert first.wait(PATIENCE) == 0
        if before:
            return
    raise AssertionError("no sync was through before the command that was under way")


@case
def ended(mount, daemon):
    """Prints how an erase ends that is under way when the mount is asked to end: EINTR, or OK if it was through."""
    for name in ("kept", "gone"):
        fd = hl.appender(hl.new_session(mount, name))
        for _ in range(40):
            hl.write_all(fd, (b"x" * 16000 + b"\n") * 40)
        os.close(fd)
    outcome = []

    def erase():
        fd = os.open(f"{mount}/.ctl", os.O_WRONLY)
        libc = ctypes.CDLL(None, use_errno=True)  # os.write() would try again
        done = libc.write(fd, b"erase gone", 10)
        outcome.append("OK" if done == 10 else errno.errorcode[ctypes.get_errno()])
        os.close(fd)

    thread = threading.Thread(target=erase)
    thread.start()
    while not outcome and not status(mount)["running"]:
        pass
    os.kill(int(daemon), signal.SIGTERM)
    thread.join()
    print(outcome[0])


if __name__ == "__main__":
    hl.main()
