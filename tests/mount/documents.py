"""What the tests of documents share: the fold of a log, and looking at state/ from several sides."""
import contextlib
import ctypes
import errno
import json
import os
import subprocess
import sys
import threading

import hl

RW = os.O_RDWR
WRONLY = os.O_WRONLY
NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
EXCL = os.O_WRONLY | os.O_CREAT | os.O_EXCL
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
LIBC = ctypes.CDLL(None, use_errno=True)


def new_state(mount, name, mode=0o755):
    return hl.new_session(mount, name, mode) + "/state"


def session_of(state):
    return os.path.dirname(state)


def operations(state):
    """All operations of the session, oldest first."""
    lines = hl.log_of(session_of(state)).splitlines()
    return [fields for fields in map(json.loads, lines) if "op" in fields]


def last_operations(state, count):
    return [{key: fields[key] for key in ("op", "key", "value", "name", "keys", "as") if key in fields}
            for fields in operations(state)[-count:]] if count else []


def fold(state):
    """key -> (value as text, ts_ms) by the log, of sets and deletes; values as they stand in it."""
    documents = {}
    for line in hl.log_of(session_of(state)).decode().splitlines():
        fields = json.loads(line)
        if fields.get("op") == "set":
            begin, end = next((b, e) for key, b, e in hl.members(line) if key == "value")
            documents[fields["key"]] = (line[begin:end], fields["ts_ms"])
        elif fields.get("op") == "delete":
            documents.pop(fields["key"], None)
        else:
            assert "op" not in fields, line
    return documents


def file_name(key):
    """A key as a file name."""
    if key in (".", ".."):
        return key.replace(".", "%2E")
    return "".join(f"%{ord(c):02X}" if ord(c) < 32 or c in "/%\x7f" else c for c in key)


def check_state(state):
    """Names, sizes, times and values in state/ are what the log says."""
    documents = {file_name(key): found for key, found in fold(state).items()}
    listed = {entry.name: entry for entry in os.scandir(state)}
    assert set(listed) == set(documents), (sorted(listed)[:20], sorted(documents)[:20])
    for name, (value, ts_ms) in documents.items():
        data = hl.read(f"{state}/{name}")
        assert data == value.encode() + b"\n", (name, data[:200], value[:200])
        status = os.lstat(f"{state}/{name}")
        assert status.st_size == len(data), (name, status.st_size, len(data))
        assert status.st_mtime_ns == ts_ms * 1000000, name
        assert status.st_ino == listed[name].inode() and status.st_nlink == 1


def holds(path, value):
    """The document is there, from this process, another thread and another process."""
    want = value.encode() + b"\n" if isinstance(value, str) else value
    seen = {}

    def look(who):
        seen[who] = (hl.read(path), os.stat(path).st_size)

    look("here")
    thread = threading.Thread(target=look, args=("thread",))
    thread.start()
    thread.join()
    seen["process"] = elsewhere(path)
    for who, (data, size) in seen.items():
        assert data == want, f"{who} reads {data[:300]}, not {want[:300]}"
        assert size == len(want), f"{who} sees {size} bytes, not {len(want)}"
    assert os.path.basename(path) in os.listdir(os.path.dirname(path))


def is_absent(path):
    with hl.fails(errno.ENOENT):
        os.stat(path)
    assert elsewhere(path) is None
    assert os.path.basename(path) not in os.listdir(os.path.dirname(path))


LOOKER = """
import os, sys
for line in sys.stdin.buffer:
    path = bytes.fromhex(line.decode())
    try:
        with open(path, "rb") as file:
            data = file.read()
        answer = "%s %d" % (data.hex() or "-", os.stat(path).st_size)
    except OSError as failure:
        answer = "errno %d" % failure.errno
    print(answer, flush=True)
"""
# Started first of all: a process that is forked closes, and so flushes, what is open in its parent.
LOOK = subprocess.Popen([sys.executable, "-c", LOOKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def elsewhere(path):
    """(bytes, size) of a file as another process sees it, or None."""
    LOOK.stdin.write(os.fsencode(path).hex().encode() + b"\n")
    LOOK.stdin.flush()
    data, size = LOOK.stdout.readline().decode().split()
    if data == "errno":
        assert int(size) == errno.ENOENT, errno.errorcode[int(size)]
        return None
    return (b"" if data == "-" else bytes.fromhex(data)), int(size)


def status(mount):
    return json.loads(hl.read(f"{mount}/.status"))


def write(path, data, flags=NEW):
    """open, one write, close; errors of the write and of the close come through."""
    if isinstance(data, str):
        data = data.encode()
    fd = os.open(path, flags, 0o644)
    try:
        wrote = os.write(fd, data)
        assert wrote == len(data), (wrote, len(data))
    except OSError:
        with contextlib.suppress(OSError):
            os.close(fd)
        raise
    os.close(fd)


@contextlib.contextmanager
def opened(path, flags, mode=0o644):
    """A descriptor whose close must not fail; None if it was closed by hand."""
    fd = os.open(path, flags, mode)
    try:
        yield fd
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(fd)
        raise
    os.close(fd)


def close_fails(fd, *codes):
    with hl.fails(*codes):
        os.close(fd)


def renameat2(old, new, flags):
    if LIBC.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), old)


def reason(state):
    """What last_error says."""
    return json.loads(hl.last_error(session_of(state)))["reason"]
