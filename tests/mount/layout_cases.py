"""Cases of test_layout.sh: names, attributes, what may be done to them. Arguments: MOUNT [STORE]."""
import ctypes
import errno
import json
import os
import stat
import sys
import time

import hl
import segments
from hl import append, case, fails, log_of, new_session, read

SESSION_FILES = {"append", "log", "meta", "last_error"}


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


@case
def root_names(mount, allow_other="no"):
    names = set(os.listdir(mount))
    assert names == {".ctl", ".metrics", ".status", "append", "log", "sessions"}, names
    for name, bits in ((".ctl", 0o600), (".status", 0o444), (".metrics", 0o444), ("append", 0o200), ("log", 0o400)):
        status = os.lstat(f"{mount}/{name}")
        assert stat.S_ISREG(status.st_mode), name
        assert stat.S_IMODE(status.st_mode) == bits, (name, oct(status.st_mode))
        assert status.st_uid == os.getuid() and status.st_nlink == 1, name
    status = os.lstat(f"{mount}/sessions")
    assert stat.S_ISDIR(status.st_mode) and status.st_nlink == 1
    assert stat.S_IMODE(status.st_mode) == (0o1777 if allow_other == "yes" else 0o755), oct(status.st_mode)
    assert os.lstat(mount).st_nlink == 1
    json.loads(read(f"{mount}/.status"))
    for name in ("nothing", "Log", "sessions2", ".statu", "1", "state", "log ", "follow"):
        with fails(errno.ENOENT):
            os.lstat(f"{mount}/{name}")


@case
def session_names(mount):
    s = new_session(mount, "names")
    append(s, b"one\ntwo\nthree\n")
    names = set(os.listdir(s))
    assert SESSION_FILES | {"1", "2", "3"} <= names, names
    assert names <= SESSION_FILES | {"1", "2", "3", "state", "history", "archive"}, names
    for unlisted in ("1-2", "2-", "follow", "at"):
        assert unlisted not in names
    for entry in os.scandir(s):  # what readdir says of the type is what stat says
        assert entry.is_dir(follow_symlinks=False) == stat.S_ISDIR(os.lstat(entry.path).st_mode)
        assert entry.inode() == os.lstat(entry.path).st_ino, entry.path
    for name in ("0", "4", "007", "01", "+1", "-1", " 1", "1 ", "1a", "0x1", "1.0", "9007199254740993", "x", "Log",
                 "99999999999999999999999999", "18446744073709551617"):
        with fails(errno.ENOENT):
            os.lstat(f"{s}/{name}")
    assert os.path.getsize(f"{s}/last_error") == 0 and read(f"{s}/last_error") == b""
    meta = json.loads(read(f"{s}/meta"))
    assert "names" in json.dumps(meta) and isinstance(meta, dict)
    assert b"\n" in read(f"{s}/meta").rstrip(b"\n"), "meta is pretty JSON"


@case
def record_attributes(mount):
    s = new_session(mount, "attributes")
    lines = [b"x", b'{"ts_ms":1234567890123}', b'{"ts_ms":0}', b"long " * 3000, '{"payload":"日本語"}'.encode()]
    append(s, b"\n".join(lines) + b"\n")
    for seq, line in enumerate(lines, 1):
        status = os.lstat(f"{s}/{seq}")
        data = read(f"{s}/{seq}")
        hl.check_line(data, line, "attributes", seq)
        assert status.st_size == len(data)
        assert status.st_mtime_ns == json.loads(data)["ts_ms"] * 1000000, seq
        assert status.st_nlink == 1 and stat.S_ISREG(status.st_mode)
        assert len(data) <= status.st_blocks * 512 < len(data) + 8192, (len(data), status.st_blocks)
    assert os.lstat(f"{s}/log").st_size == len(log_of(s))
    assert os.lstat(s).st_nlink == 1
    with open(f"{s}/4", "rb") as record:  # anywhere in it
        whole = record.read()
        for at in (0, 1, 4095, 4096, 4097, len(whole) - 1, len(whole), len(whole) + 5):
            record.seek(at)
            assert record.read(100) == whole[at:at + 100]


@case
def modes_follow_the_session(mount):
    for bits in (0o755, 0o700, 0o777, 0o770, 0o750, 0o555, 0o711, 0o730, 0o000, 0o1777, 0o2750):
        s = new_session(mount, f"mode-{bits:o}")
        append(s, b"x\n")
        os.chmod(s, bits)
        assert mode(s) == bits, (oct(bits), oct(mode(s)))
        for name in ("1", "log", "meta", "last_error", "1-1", "1-"):
            # What told of the record may have had the kernel keep its old bits for a moment.
            hl.wait_for(lambda: mode(f"{s}/{name}") == bits & 0o444, f"the bits of {name}, {bits:o}")
        may_write = bits & 0o222  # who may write may read the answer
        assert mode(f"{s}/append") == may_write | may_write << 1, (oct(bits), oct(mode(f"{s}/append")))
    old = os.umask(0o027)
    s = new_session(mount, "mode-umask", 0o777)
    os.umask(old)
    assert mode(s) == 0o750


@case
def cached_modes(mount):
    """A chmod reaches what the kernel has cached: every record and range, also of seqs too large for a computed id."""
    s = new_session(mount, "mode-cached")
    append(s, b"line\n" * 3000 + b'{"seq":68719476736}\n{"seq":9007199254740000}\n')
    names = [str(n) for n in (1, 2, 511, 512, 513, 1024, 2999, 3000, 68719476736, 9007199254740000)]
    names += ["append", "log", "meta", "last_error", "1-1", "5-2000", "1-68719476736", "1-"]
    for bits in (0o700, 0o755, 0o711, 0o744):
        files = [os.open(f"{s}/{name}", os.O_PATH) for name in names]  # held, so that the kernel keeps them all
        for name in names:
            mode(f"{s}/{name}")
        os.chmod(s, bits)
        for name, file in zip(names, files):
            want = bits & 0o222 | (bits & 0o222) << 1 if name == "append" else bits & 0o444
            hl.wait_for(lambda: mode(f"{s}/{name}") == want, f"the bits of {name}")
            hl.wait_for(lambda: os.fstat(file).st_mode & 0o777 == want, f"the bits of an open {name}")
            os.close(file)


@case
def cached_directories(mount):
    """The bits of all that is made with a session are old at the same time."""
    s = new_session(mount, "directory-cached")
    names = ("at", "append", "state", "history", "archive")  # the last one is the last that the kernel is told of
    masks = (0o555, 0o222, 0o777, 0o555, 0o777)
    files = [os.open(f"{s}/{name}", os.O_PATH) for name in names]
    for bits in (0o700, 0o755, 0o711, 0o744):
        for name in names:
            mode(f"{s}/{name}")
        os.chmod(s, bits)
        hl.wait_for(lambda: os.fstat(files[1]).st_mode & 0o222 == bits & 0o222, "the bits of append")
        hl.wait_for(lambda: os.fstat(files[-1]).st_mode & 0o777 == bits, "the bits of archive")
        for name, mask, file in zip(names, masks, files):
            assert os.fstat(file).st_mode & mask == bits & mask, (name, oct(bits), oct(os.fstat(file).st_mode))
    for file in files:
        os.close(file)


@case
def ranges(mount):
    s = new_session(mount, "ranges")
    append(s, b"".join(b"%s\n" % (b"line %d " % n * n) for n in range(1, 11)))
    append(s, b'{"seq":20}\nx\n{"seq":30}\n')
    log = log_of(s)
    by_seq = {json.loads(line)["seq"]: line for line in log.splitlines(keepends=True)}
    for a, b in ((1, 1), (1, 10), (3, 7), (10, 20), (8, 25), (1, 30), (20, 21), (30, 30), (10, 40), (1, 9007199254740991)):
        want = b"".join(line for seq, line in by_seq.items() if a <= seq <= b)
        path = f"{s}/{a}-{b}"
        assert read(path) == want, path
        assert os.lstat(path).st_size == len(want), path
    for a in (1, 2, 10, 15, 30):
        want = b"".join(line for seq, line in by_seq.items() if a <= seq)
        assert read(f"{s}/{a}-") == want and os.lstat(f"{s}/{a}-").st_size == len(want)
    for name in ("7-3", "-5", "-", "01-2", "1-02", "1--2", "1-2-", "1-2-3", "a-b", "1-b", "+1-2", "1 -2",
                 "1-99999999999999999999", "99999999999999999999-"):
        with fails(errno.ENOENT):
            os.lstat(f"{s}/{name}")
    for name in ("50-60", "50-"):  # where nothing is: nothing to be read, and never a wrong record
        try:
            assert read(f"{s}/{name}") == b"" and os.lstat(f"{s}/{name}").st_size == 0
        except FileNotFoundError:
            pass
    with open(f"{s}/8-", "rb", buffering=0) as file:
        assert file.read(1 << 20) == b"".join(line for seq, line in by_seq.items() if seq >= 8)
        append(s, b"later\n")
        assert json.loads(file.read(1 << 20))["payload"] == "later", "an open A- grows"
    assert read(f"{s}/8-").endswith(b'"later"}\n')
    assert read(f"{s}/28-40").endswith(b'"later"}\n'), "31 lies in it now"
    assert not [name for name in os.listdir(s) if "-" in name]


def getdents(fd, size):
    """The names of one piece of a directory, as long as a buffer of that size holds."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(size)
    got = libc.getdents64(fd, buffer, ctypes.c_size_t(size))
    if got < 0:
        raise OSError(ctypes.get_errno(), "getdents64")
    names, at = [], 0
    while at < got:
        length = int.from_bytes(buffer.raw[at + 16:at + 18], sys.byteorder)
        names.append(buffer.raw[at + 19:at + length].split(b"\0", 1)[0].decode())
        at += length
    return names


def rest_of(fd, size):
    names = []
    while more := getdents(fd, size):
        names += more
    return names


def seqs_of(names):
    return [int(name) for name in names if name.isdigit()]


@case
def long_listings(mount):
    """Pieces of a directory are listed before they are asked for: what is appended in between is there, and a listing that
    begins anew is new."""
    for size in (4096, 32768, 131072):
        s = new_session(mount, f"long{size}")
        append(s, b"x\n" * 6000)
        fd, other = (os.open(s, os.O_RDONLY | os.O_DIRECTORY) for _ in range(2))
        names, others = getdents(fd, size), getdents(other, 1024)
        names += getdents(fd, size)
        append(s, b"y\n" * 700)
        others += getdents(other, size)
        names += rest_of(fd, size)
        others += rest_of(other, size)
        for found in (names, others):
            assert seqs_of(found) == list(range(1, 6701)), (size, len(found))
            assert len(set(found)) == len(found) and SESSION_FILES | {".", ".."} <= set(found)
        os.lseek(fd, 0, os.SEEK_SET)
        append(s, b"z\n")
        assert seqs_of(rest_of(fd, size)) == list(range(1, 6702))
        # Left in the middle, and begun anew when the first half is gone.
        os.lseek(fd, 0, os.SEEK_SET)
        getdents(fd, size)
        getdents(fd, size)
        with open(f"{mount}/.ctl", "w", encoding="utf-8") as control:
            control.write(f"trim long{size} 3000\n")
        os.lseek(fd, 0, os.SEEK_SET)
        assert seqs_of(rest_of(fd, size)) == list(range(3000, 6702))
        # Nothing is named any more when the session is gone, though it was listed before.
        os.lseek(fd, 0, os.SEEK_SET)
        getdents(fd, size)
        getdents(fd, size)
        with open(f"{mount}/.ctl", "w", encoding="utf-8") as control:
            control.write(f"delete long{size}\n")
        with fails(errno.ENOENT, errno.ESTALE):
            getdents(fd, size)
        os.close(fd)
        os.close(other)


@case
def never_destroyed(mount):
    s = new_session(mount, "kept")
    append(s, b"one\ntwo\n")
    before = log_of(s)
    for name in ("1", "2", "append", "log", "meta", "1-2", "last_error"):
        with fails(errno.EPERM):
            os.unlink(f"{s}/{name}")
    for name in (".ctl", ".metrics", ".status", "append", "log"):
        with fails(errno.EPERM):
            os.unlink(f"{mount}/{name}")
    with fails(errno.ENOTEMPTY):
        os.rmdir(s)
    for path in (f"{mount}/sessions",):
        with fails(errno.EPERM, errno.EBUSY, errno.ENOTEMPTY):
            os.rmdir(path)
    for old, new in ((f"{s}/1", f"{s}/9"), (s, f"{mount}/sessions/moved"), (f"{s}/log", f"{s}/old"), (f"{s}/1", f"{s}/2")):
        with fails(errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.EACCES):
            os.rename(old, new)
    with fails(errno.EPERM, errno.ENOSYS, errno.EACCES):
        os.link(f"{s}/1", f"{s}/9")
    with fails(errno.EPERM, errno.ENOSYS, errno.EACCES):
        os.symlink("log", f"{s}/link")
    with fails(errno.EPERM, errno.EACCES, errno.EINVAL):
        os.mkdir(f"{s}/sub")
    for name in ("1", "log", "meta", "1-2", "last_error"):
        with fails(errno.EPERM, errno.EACCES):  # root's own descriptors too
            fd = os.open(f"{s}/{name}", os.O_WRONLY)
            os.write(fd, b"x\n")
        with fails(errno.EPERM, errno.EACCES):
            os.truncate(f"{s}/{name}", 0)
    for path in (f"{s}/new", f"{s}/9", f"{mount}/new", f"{mount}/sessions/new"):
        with fails(errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EINVAL):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))
        assert not os.path.lexists(path)
    for path in (f"{mount}/newdir",):
        with fails(errno.EPERM, errno.EACCES):
            os.mkdir(path)
    with fails(errno.EEXIST):
        os.mkdir(s)
    assert log_of(s) == before and os.listdir(s)


@case
def encoded_names(mount):
    made = {"a%2Fb": "a/b", "100%25": "100%", "%01%1F%0A": "\x01\x1f\n", "%2E": ".", "%2E%2E": "..", "...": "...", ".hidden": ".hidden",
            "日本語": "日本語", "a b": "a b", "é": "é", "e\u0301": "e\u0301", "x" * 255: "x" * 255, "é" * 127: "é" * 127,
            "%2F" * 85: "/" * 85, "~": "~", "#x": "#x", "-rf": "-rf", "*": "*", "append": "append", "log": "log", "1": "1"}
    for name, ident in made.items():
        s = new_session(mount, name)
        append(s, b"x\n")
        assert json.loads(read(f"{s}/1"))["session_id"] == ident, name
    assert set(made) <= set(os.listdir(f"{mount}/sessions"))
    for name in ("a%2fb", "%41", "abc%", "%", "%2", "%zz", "a%2E", "%2Ea", "%2E%2E%2E", "%00", "%0a", "%20", "%C3%A9", "a%25%3", "%FF",
                 "a\nb", "\x01"):
        with fails(errno.ENOENT):
            os.lstat(f"{mount}/sessions/{name}")
        with fails(errno.EINVAL):
            os.mkdir(f"{mount}/sessions/{name}")
    for raw in (b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xc0\xaf"):
        with fails(errno.ENOENT):
            os.lstat(os.fsencode(mount) + b"/sessions/" + raw)
        with fails(errno.EINVAL):
            os.mkdir(os.fsencode(mount) + b"/sessions/" + raw)
    for name in ("x" * 256, "é" * 128, "%2F" * 86, "y" * 1000):
        with fails(errno.ENAMETOOLONG):
            os.mkdir(f"{mount}/sessions/{name}")
        with fails(errno.ENAMETOOLONG):
            os.lstat(f"{mount}/sessions/{name}")
    for name in ("%41", "a%2E", "x" * 256):  # and refused ones left nothing behind
        assert name not in os.listdir(f"{mount}/sessions")


@case
def statfs(mount, store):
    here, there = os.statvfs(mount), os.statvfs(store)
    assert here.f_blocks * here.f_frsize == there.f_blocks * there.f_frsize
    assert abs(here.f_bavail * here.f_frsize - there.f_bavail * there.f_frsize) < 1 << 33
    assert here.f_namemax == 255, here.f_namemax


@case
def size_as_opened(mount):
    """The end of what is open is that of what it reads, not of the text that others would get by now (of
    fstat() the kernel does not say by which handle)."""
    session = new_session(mount, "opened")
    append(session, b"{}\n")
    for path in (f"{session}/meta", f"{mount}/.status", f"{mount}/.metrics"):
        with open(path, "rb", buffering=0) as file:
            append(session, b"{}\n" * 100)
            end = os.lseek(file.fileno(), 0, os.SEEK_END)
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            length = len(file.read(1 << 20))
            assert end == length, (path, end, length)


@case
def fallocate(mount):
    s = new_session(mount, "fallocate")
    append(s, b"x\n")
    before = log_of(s)
    fd = os.open(f"{s}/append", os.O_RDWR)
    with fails(errno.EINVAL):
        os.posix_fallocate(fd, 0, 4096)
    os.close(fd)
    assert log_of(s) == before


@case
def attributes_of_others(mount):
    s = new_session(mount, "foreign")
    append(s, b"x\n")
    for path in (mount, f"{mount}/sessions", s, f"{s}/1", f"{s}/log", f"{s}/append", f"{s}/meta", f"{mount}/.ctl", f"{mount}/log",
                 f"{s}/1-1"):
        for name in ("security.selinux", "security.capability", "system.posix_acl_access", "trusted.overlay.opaque"):
            with fails(errno.EOPNOTSUPP):
                os.getxattr(path, name)
            if name in ("security.selinux", "trusted.overlay.opaque"):  # the kernel itself looks into the others
                with fails(errno.EOPNOTSUPP):
                    os.setxattr(path, name, b"value")
    with fails(errno.ENODATA):
        os.getxattr(s, "user.none")


@case
def session_attributes(mount):
    s = new_session(mount, "tagged")
    assert [n for n in os.listxattr(s) if not n.startswith("user.hotlog.")] == []
    os.setxattr(s, "user.title", "Übersicht \0 mit NUL".encode())
    os.setxattr(s, "user.empty", b"")
    os.setxattr(s, "user.bytes", bytes(range(256)))
    with fails(errno.EEXIST):
        os.setxattr(s, "user.title", b"x", os.XATTR_CREATE)
    with fails(errno.ENODATA):
        os.setxattr(s, "user.absent", b"x", os.XATTR_REPLACE)
    os.setxattr(s, "user.gone", b"x", os.XATTR_CREATE)
    os.removexattr(s, "user.gone")
    with fails(errno.ENODATA):
        os.removexattr(s, "user.gone")
    with fails(errno.ENOSPC, errno.E2BIG, errno.ERANGE):
        for n in range(3):
            os.setxattr(s, f"user.big{n}", b"b" * 40000)
    for n in range(3):
        if f"user.big{n}" in os.listxattr(s):
            os.removexattr(s, f"user.big{n}")
    check_session_attributes(mount)


@case
def session_attributes_again(mount):
    os.setxattr(f"{mount}/sessions/tagged", "user.again", b"set before the kill")


@case
def check_session_attributes(mount):
    s = f"{mount}/sessions/tagged"
    names = [n for n in os.listxattr(s) if not n.startswith("user.hotlog.") and n != "user.again"]
    assert sorted(names) == ["user.bytes", "user.empty", "user.title"], names
    assert os.getxattr(s, "user.title") == "Übersicht \0 mit NUL".encode()
    assert os.getxattr(s, "user.empty") == b""
    assert os.getxattr(s, "user.bytes") == bytes(range(256))


@case
def record_marks(mount, store):
    """user.hotlog.* of a record say where it lies: looked at in the segment file by its own reader."""
    s = new_session(mount, "marks")
    began = time.time() * 1000
    append(s, b'first\n{"ts_ms":5}\n' + b"third " * 1000 + b"\n")
    fd = os.open(f"{s}/log", os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    frames = {frame.offset: frame for frame in segments.frames(segments.segments(store)[-1])}
    last = 0
    for seq in (1, 2, 3):
        path = f"{s}/{seq}"
        names = {n for n in os.listxattr(path) if n.startswith("user.hotlog.")}
        assert names == {f"user.hotlog.{n}" for n in ("offset", "segment", "crc32", "recorded_ms")}, names

        def mark(name):
            return os.getxattr(path, f"user.hotlog.{name}").decode()

        frame = frames[int(mark("offset"))]
        assert frame.seq == seq and frame.body == read(path)
        assert frame.recorded_ms == int(mark("recorded_ms")) and began - 1000 < frame.recorded_ms < time.time() * 1000 + 1000
        assert frame.crc32 in (int(mark("crc32"), 16), int(mark("crc32")) if mark("crc32").isdigit() else None), mark("crc32")
        assert frame.offset > last
        last = frame.offset
        with fails(errno.EPERM, errno.EACCES, errno.EROFS, errno.EOPNOTSUPP):
            os.setxattr(path, "user.hotlog.offset", b"1")
        with fails(errno.EPERM, errno.EACCES, errno.EROFS, errno.EOPNOTSUPP):
            os.setxattr(path, "user.mine", b"1")
        with fails(errno.EPERM, errno.EACCES, errno.EROFS, errno.EOPNOTSUPP):
            os.removexattr(path, "user.hotlog.crc32")


OWNED = ("", "log", "1", "append", "meta")


def owner(path):
    status = os.lstat(path)
    return status.st_uid, status.st_gid


@case
def change_owner(mount):
    """Makes what check_owner() looks for after a remount."""
    s = new_session(mount, "owned")
    append(s, b"x\n")
    os.chmod(s, 0o2750)
    os.chown(s, 65534, 12)
    os.chown(s, -1, 13)
    os.chmod(s, 0o741)
    # The kernel may have looked at them before, when it was told of the record.
    hl.wait_for(lambda: all(owner(f"{s}/{name}") == (65534, 13) for name in OWNED), "the owner")
    hl.wait_for(lambda: mode(f"{s}/1") == 0o440 and mode(f"{s}/append") == 0o600, "the bits")
    check_owner(mount)


@case
def check_owner(mount):
    s = f"{mount}/sessions/owned"
    for name in OWNED:
        assert owner(f"{s}/{name}") == (65534, 13), (name, owner(f"{s}/{name}"))
    assert mode(s) == 0o741 and mode(f"{s}/1") == 0o440 and mode(f"{s}/append") == 0o600, oct(mode(s))


@case
def users(mount):
    """allow_other, mounted by root: sessions belong to who makes them, and the kernel enforces the bits."""
    alice, bob = 65534, 1
    with hl.as_user(alice):
        s = new_session(mount, "alice", 0o750)
        append(s, b"by alice\n")
    assert (os.lstat(s).st_uid, os.lstat(s).st_gid) == (alice, alice)
    with hl.as_user(bob):
        for path in (f"{s}/log", f"{s}/1", f"{s}/append", f"{s}/1-1"):
            with fails(errno.EACCES):
                os.open(path, os.O_RDONLY)
        with fails(errno.EACCES):
            os.listdir(s)
        with fails(errno.EACCES):
            hl.appender(s)
        with fails(errno.EPERM):
            os.chmod(s, 0o777)
        with fails(errno.EPERM):
            os.chown(s, bob, bob)
        with fails(errno.EACCES):
            read(f"{mount}/log")
        with fails(errno.EACCES):
            os.open(f"{mount}/.ctl", os.O_RDWR)
        with fails(errno.EACCES, errno.EPERM):
            os.mkdir(f"{mount}/mine")
        with fails(errno.EPERM, errno.EACCES, errno.ENOTEMPTY):
            os.rmdir(s)
        json.loads(read(f"{mount}/.status"))
        new_session(mount, "bob", 0o700)
    with hl.as_user(bob, gid=alice):  # by group: to read, not to write
        assert read(f"{s}/1").endswith(b'"by alice"}\n') and "1" in os.listdir(s)
        with fails(errno.EACCES):
            hl.appender(s)
    with hl.as_user(alice):
        os.chmod(s, 0o777)
        with fails(errno.EACCES):
            log_of(f"{mount}/sessions/bob")
        with fails(errno.EPERM):
            os.chown(s, bob, -1)
    with hl.as_user(bob):  # at once, whatever was cached
        append(s, b"by bob\n")
        assert log_of(s).count(b"\n") == 2
    with hl.as_user(alice):
        os.chmod(s, 0o700)
    with hl.as_user(bob):
        for path in (f"{s}/log", f"{s}/1", f"{s}/append"):
            with fails(errno.EACCES):
                os.open(path, os.O_RDONLY)
        with fails(errno.EPERM, errno.EACCES):
            os.setxattr(s, "user.mine", b"1")


@case
def seek_and_sizes(mount):
    """The log's size is true at every moment, and any part of it can be read."""
    rng = hl.seeded()
    s = new_session(mount, "seek")
    lines = hl.some_lines(rng, 3000)
    append(s, b"\n".join(lines[:1500]) + b"\n")
    append(s, b"\n".join(lines[1500:]) + b"\n")
    log = log_of(s)
    hl.check_log(log, lines, "seek")
    with open(f"{s}/log", "rb", buffering=0) as file:
        assert file.seek(0, 2) == len(log)
        for _ in range(400):
            at, size = rng.randrange(len(log) + 100), rng.choice([1, 100, 4096, 70000])
            assert os.pread(file.fileno(), size, at) == log[at:at + size], (at, size)
    for _ in range(100):
        a = rng.randrange(1, 3001)
        b = min(3000, a + rng.randrange(300))
        part = read(f"{s}/{a}-{b}")
        assert part.count(b"\n") == b - a + 1 and json.loads(part.split(b"\n")[0])["seq"] == a
        assert os.lstat(f"{s}/{a}-{b}").st_size == len(part)
        with open(f"{s}/{a}-{b}", "rb", buffering=0) as file:
            at = rng.randrange(len(part))
            assert os.pread(file.fileno(), 5000, at) == part[at:at + 5000]


if __name__ == "__main__":
    hl.main()
