"""The parts of test_fsck.sh that a shell cannot do: damage to chosen bytes, a terminal, a signal in the middle."""
import fcntl
import glob
import hashlib
import os
import pty
import shutil
import signal
import subprocess
import sys
import time

import hl
import segments


@hl.case
def tree(path):
    """A sum of all that is in the directory, contents and times."""
    total = hashlib.sha256()
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file = os.path.join(folder, name)
            total.update(f"{file} {os.lstat(file).st_mtime_ns} ".encode())
            with open(file, "rb") as data:
                total.update(data.read())
    print(total.hexdigest())


@hl.case
def damage(kind, store):
    """Damages the store in one way."""
    log = segments.segments(store)
    frames = segments.frames(log[1])
    record = next(f for f in frames[3:] if f.type == segments.EVENT)
    index, copies = f"{store}/index/data.mdb", sorted(glob.glob(f"{store}/checkpoints/*.ckpt"))

    def poke(path, offset, data):
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(data)

    if kind == "header":
        segments.flip(log[1], 600 - 88 + 30)
    elif kind == "headers":
        segments.flip(log[1], 30)
        segments.flip(log[1], 542)
    elif kind == "frame":
        segments.flip(log[1], record.offset + 40)
    elif kind == "zeros":
        poke(log[1], record.offset, bytes(4096))
    elif kind == "copied":
        with open(log[1], "rb") as file:
            data = file.read()
        poke(log[1], record.offset, data[record.offset + record.size :][: record.size])
    elif kind == "seal":
        segments.flip(log[1], frames[-1].offset + 36)
    elif kind == "missing":
        os.unlink(log[1])
    elif kind == "tail":
        with open(log[-1], "ab") as file:
            file.write(b"torn")
    elif kind == "index":
        for offset in range(8192, os.path.getsize(index), 4096):
            segments.flip(index, offset + 20)
    elif kind == "no-index":
        shutil.rmtree(f"{store}/index")
    elif kind == "checkpoint":
        segments.flip(copies[-1], os.path.getsize(copies[-1]) // 2)
    elif kind == "all-copies":
        shutil.rmtree(f"{store}/index")
        for path in copies:
            segments.flip(path, os.path.getsize(path) // 2)
    elif kind == "stale":
        segments.compact(store, 2, 3)
    else:
        sys.exit(f"no such damage: {kind}")


@hl.case
def compact(store, first, last):
    """A compacted segment, with those that it was made of in backup/."""
    path, _ = segments.compact(store, int(first), int(last))
    os.makedirs(f"{store}/backup", exist_ok=True)
    for old in segments.segments(store):
        name = os.path.basename(old)
        if old != path and int(first) <= int(name.split("-")[0], 16) <= int(last):
            os.rename(old, f"{store}/backup/{name}")
    print(path)


@hl.case
def flip(path, offset):
    segments.flip(path, int(offset) if int(offset) >= 0 else os.path.getsize(path) + int(offset))


@hl.case
def on_a_terminal(program, store):
    """With -C a bar is drawn on a terminal, and taken away before the result."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(program, [program, "-C", store])
    shown = b""
    while True:
        try:
            data = os.read(fd, 65536)
        except OSError:  # the other side is closed
            break
        if not data:
            break
        shown += data
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, f"status {status}: {shown}"
    assert b"%" in shown and b"[" in shown and b"\r" in shown, shown
    assert b"clean" in shown.split(b"\r")[-2] + shown.split(b"\r")[-1], shown


@hl.case
def cancelled(program, store):
    """SIGINT ends a check that is under way. It waits to tell of its progress, in a pipe that is full."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 512)
    except BlockingIOError:
        pass
    os.set_blocking(writer, True)
    before = subprocess.run([sys.executable, __file__, "tree", store], capture_output=True, check=True).stdout
    child = subprocess.Popen([program, "-n", "-C", str(writer), store], pass_fds=[writer], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
    os.close(writer)
    end = time.monotonic() + 180
    while True:
        with open(f"/proc/{child.pid}/syscall") as file:
            words = file.read().split()
        if words[0] == "1" and int(words[1], 16) == writer:  # write(2)
            break
        assert child.poll() is None and time.monotonic() < end, f"it did not come to tell of progress: {words}"
        time.sleep(0.001)
    child.send_signal(signal.SIGINT)
    while os.read(reader, 65536):
        pass
    out, err = child.communicate(timeout=180)
    assert child.returncode == 32, (child.returncode, out, err)
    assert b"interrupted" in err or b"cancelled" in err, err
    after = subprocess.run([sys.executable, __file__, "tree", store], capture_output=True, check=True).stdout
    assert before == after


if __name__ == "__main__":
    hl.main()
