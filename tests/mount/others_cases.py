"""Cases of test_others.sh: two users of a mount with allow_other. Arguments: MOUNT, UID:GID of one, of the other."""
import contextlib
import errno
import json
import os
import resource
import stat
import subprocess
import sys
import threading
import time
import traceback

import hl
from hl import MIB, case, fails, read

PRIVATE = (errno.EACCES, errno.EPERM)
HANDLES = 10000


class User:
    def __init__(self, text, groups=()):
        self.uid, self.gid = (int(part) for part in text.split(":"))
        self.groups = list(groups)

    def become(self):
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)

    def fork(self, function, *arguments):
        """Runs it as this user in a process of its own."""
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            self.become()
            function(*arguments)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)

    def does(self, function, *arguments):
        _, status = os.waitpid(self.fork(function, *arguments), 0)
        assert status == 0, f"{function.__name__} as user {self.uid}: status {status}"

    @contextlib.contextmanager
    def holds(self, function, *arguments):
        """Runs it, and the block while what it opened is open; it returns what it wants to keep."""
        ready_read, ready_write = os.pipe()
        end_read, end_write = os.pipe()

        def hold():
            os.close(ready_read)
            os.close(end_write)
            kept = function(*arguments)
            os.write(ready_write, b"x")
            os.read(end_read, 1)
            del kept

        pid = self.fork(hold)
        os.close(ready_write)
        os.close(end_read)
        try:
            assert os.read(ready_read, 1) == b"x", f"{function.__name__} failed"
            yield
        finally:
            os.close(end_write)
            os.close(ready_read)
            _, status = os.waitpid(pid, 0)
            assert status == 0, f"{function.__name__} as user {self.uid}: status {status}"


def users(one, other):
    return User(one), User(other)


def session_of(user, mount, name, mode=0o700):
    path = f"{mount}/sessions/{name}"

    def make():
        os.umask(0)
        os.mkdir(path, mode)

    user.does(make)
    return path


def full(user, path):
    """A session with some of everything in it."""

    def fill():
        hl.append(path, b'{"n":1}\n{"n":2}\nthree\n')
        with open(f"{path}/state/k", "w", encoding="ascii") as file:
            file.write('{"v":1}\n')
        with open(f"{path}/state/.scratch", "w", encoding="ascii") as file:
            file.write("text")
        os.mkdir(f"{path}/archive/old")
        os.setxattr(path, "user.title", b"mine")

    user.does(fill)
    return path


def files_of(path):
    return [f"{path}/{name}" for name in ("1", "log", "meta", "last_error", "follow", "1-2", "1-", "state/k",
                                          "state/.scratch", "history/k", "at/4/k")]


def openable(path, flags):
    try:
        os.close(os.open(path, flags | os.O_NONBLOCK))
        return True
    except OSError as error:
        assert error.errno in PRIVATE + (errno.EISDIR,), error
        return False


def status(mount):
    return json.loads(read(f"{mount}/.status"))


# ---- nobody gets in -----------------------------------------------------------------------------------


def cannot_change(path):
    """Whatever changes a session is refused."""
    for name in ("append", "state/k", "state/.scratch", "log", "1", "meta", "follow"):
        assert not openable(f"{path}/{name}", os.O_WRONLY), name
        assert not openable(f"{path}/{name}", os.O_RDWR), name
        assert not openable(f"{path}/{name}", os.O_WRONLY | os.O_TRUNC), name
        for call in (lambda p: os.truncate(p, 0), lambda p: os.chmod(p, 0o777), lambda p: os.chown(p, os.getuid(), -1),
                     os.unlink):
            with fails(*PRIVATE):
                call(f"{path}/{name}")
    for call in (lambda: os.close(os.open(f"{path}/state/new", os.O_CREAT | os.O_WRONLY, 0o666)),
                 lambda: os.close(os.open(f"{path}/state/.new", os.O_CREAT | os.O_WRONLY, 0o666)),
                 lambda: os.rename(f"{path}/state/k", f"{path}/state/l"),
                 lambda: os.rename(f"{path}/state/k", f"{path}/archive/old/k"),
                 lambda: os.rename(f"{path}/state/.scratch", f"{path}/state/k"),
                 lambda: os.mkdir(f"{path}/archive/new"),
                 lambda: os.rmdir(f"{path}/archive/old"),
                 lambda: os.rmdir(path),
                 lambda: os.chmod(path, 0o777),
                 lambda: os.chmod(f"{path}/state", 0o777),
                 lambda: os.chown(path, os.getuid(), -1),
                 lambda: os.setxattr(path, "user.title", b"his"),
                 lambda: os.setxattr(path, "user.more", b"his"),
                 lambda: os.removexattr(path, "user.title")):
        with fails(*PRIVATE):
            call()


@case
def closed_session(mount, one, other):
    a, b = users(one, other)
    path = full(a, session_of(a, mount, "closed"))

    def look():
        for name in files_of(path) + [f"{path}/append"]:
            for call in (os.stat, read, os.listdir):
                with fails(errno.EACCES):
                    call(name)
        for name in ("", "/state", "/history", "/archive", "/archive/old", "/at", "/at/4"):
            with fails(errno.EACCES):
                os.listdir(path + name)
        cannot_change(path)

    b.does(look)
    assert read(f"{path}/log").count(b"\n") == 5 and read(f"{path}/state/k") == b'{"v":1}\n'


@case
def readable_session(mount, one, other):
    a, b = users(one, other)
    path = full(a, session_of(a, mount, "readable", 0o755))
    before = read(f"{path}/log")

    def look():
        for name in files_of(path):
            assert openable(name, os.O_RDONLY), name
        assert not openable(f"{path}/append", os.O_RDONLY)
        cannot_change(path)

    b.does(look)
    assert read(f"{path}/log") == before and os.getxattr(path, "user.title") == b"mine"


@case
def groups(mount, one, other):
    a, b = users(one, other)
    path = full(a, session_of(a, mount, "group", 0o750))
    member = User(other, [a.gid])

    def look():
        assert read(f"{path}/log")
        cannot_change(path)

    b.does(lambda: fails_all(errno.EACCES, [lambda: read(f"{path}/log")]))
    member.does(look)
    a.does(lambda: os.chmod(path, 0o770))
    member.does(lambda: hl.append(path, b"by a member\n"))
    member.does(lambda: fails_all(errno.EPERM, [lambda: os.chmod(path, 0o777)]))
    b.does(lambda: fails_all(errno.EACCES, [lambda: hl.append(path, b"by no member\n")]))
    a.does(lambda: os.chmod(path, 0o750))
    member.does(lambda: fails_all(errno.EACCES, [lambda: hl.append(path, b"too late\n")]))


def fails_all(code, calls):
    for call in calls:
        with fails(code):
            call()


@case
def owners(mount, one, other):
    a, b = users(one, other)
    for user, name in ((a, "of-a"), (b, "of-b")):
        path = session_of(user, mount, name, 0o751)
        st = os.stat(path)
        assert (st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)) == (user.uid, user.gid, 0o751), st
        user.does(lambda p=path: hl.append(p, b"x\n"))
        for file in ("1", "log", "append", "state"):
            st = os.stat(f"{path}/{file}")
            assert (st.st_uid, st.st_gid) == (user.uid, user.gid) and not st.st_mode & 0o022, (file, st)
    path = f"{mount}/sessions/of-a"
    a.does(lambda: fails_all(errno.EPERM, [lambda: os.chown(path, b.uid, -1), lambda: os.chown(path, -1, b.gid),
                                           lambda: os.mkdir(f"{path}/x")]))
    a.does(lambda: fails_all(errno.EACCES, [lambda: os.mkdir(f"{mount}/x")]))
    b.does(lambda: fails_all(errno.EEXIST, [lambda: os.mkdir(path)]))
    os.chown(path, b.uid, b.gid)
    hl.wait_for(lambda: os.stat(f"{path}/append").st_uid == b.uid, "the new owner's files")
    b.does(lambda: hl.append(path, b"mine now\n"))
    a.does(lambda: fails_all(errno.EACCES, [lambda: hl.append(path, b"not any more\n"), lambda: read(f"{path}/1")]))


@case
def root_files(mount, one, other):
    a, _ = users(one, other)

    def look():
        for name in (".ctl", "log", "append"):
            for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
                with fails(errno.EACCES):
                    os.open(f"{mount}/{name}", flags)
            for call in (lambda p: os.chmod(p, 0o777), lambda p: os.chown(p, os.getuid(), -1), os.unlink,
                         lambda p: os.rename(p, f"{mount}/x"), lambda p: os.truncate(p, 0)):
                with fails(*PRIVATE):
                    call(f"{mount}/{name}")
        assert read(f"{mount}/.status")
        for call in (lambda: os.open(f"{mount}/.status", os.O_WRONLY), lambda: os.chmod(mount, 0o777),
                     lambda: os.mkdir(f"{mount}/x"), lambda: os.rmdir(f"{mount}/sessions"),
                     lambda: os.open(f"{mount}/new", os.O_CREAT | os.O_WRONLY),
                     lambda: os.open(f"{mount}/sessions/new", os.O_CREAT | os.O_WRONLY)):
            with fails(*PRIVATE):
                call()

    a.does(look)


@case
def what_all_may_read(mount, one, other):
    """Totals are for all; names that a closed session gave are for root and the mount's owner."""
    a, b = users(one, other)
    path = session_of(b, mount, "b-quiet")

    def fill():
        hl.append(path, b'{"kind":"Whisper","tool":"secret-tool","tokens_in":7}\n')

    b.does(fill)
    with fails(errno.EINVAL):
        hl.append(mount, b'{"session_id":"b-quiet","secret-field"}\n')
    with open(f"{mount}/.ctl", "w", encoding="ascii") as file:
        file.write("sync\n")  # from now on nothing changes by itself
    assert "Whisper" in status(mount)["sums"]["by_kind"] and "secret-tool" in read(f"{mount}/.metrics").decode()
    assert status(mount)["last_error"]

    def look():
        for _ in range(2):  # the second time the kernel has a size
            seen = json.loads(read(f"{mount}/.status"))
            metrics = read(f"{mount}/.metrics").decode()
            for text in (json.dumps(seen), metrics):
                assert "Whisper" not in text and "secret" not in text, text
            assert seen["sums"]["tokens_in"] >= 7 and seen["sums"]["events"] >= 1
            assert seen["sums"]["by_kind"] is None and seen["sums"]["by_tool"] is None and seen["last_error"] is None
            assert f"\nhotlogfs_events {seen['sums']['events']}\n" in metrics and metrics.endswith("# EOF\n")
            assert os.stat(f"{mount}/.metrics").st_size == len(metrics.encode())

    a.does(look)
    assert os.stat(f"{mount}/.metrics").st_size == len(read(f"{mount}/.metrics"))


@case
def root_append(mount, one, other):
    """Who may open it by a capability alone appends only where the bits let him."""
    a, b = users(one, other)
    full(b, session_of(b, mount, "b-closed"))
    session_of(b, mount, "b-open", 0o777)
    script = f"""
import errno, os
fd = os.open("{mount}/append", os.O_WRONLY)
os.write(fd, b'{{"session_id":"made-by-a"}}\\n{{"session_id":"b-open"}}\\n')
for line in (b'{{"session_id":"b-closed"}}\\n', b'{{"session_id":"b-open"}}\\n{{"session_id":"b-closed"}}\\n'):
    try:
        os.write(fd, line)
    except OSError as error:
        assert error.errno == errno.EACCES, error
    else:
        raise AssertionError("it was taken")
"""
    subprocess.run(["setpriv", "--reuid", str(a.uid), "--regid", str(a.gid), "--clear-groups", "--inh-caps",
                    "+dac_override", "--ambient-caps", "+dac_override", sys.executable, "-c", script], check=True)
    assert os.stat(f"{mount}/sessions/made-by-a").st_uid == a.uid
    assert read(f"{mount}/sessions/b-open/log").count(b"\n") == 1
    assert read(f"{mount}/sessions/b-closed/log").count(b"\n") == 5
    # What root opened and handed on is root's; what a user opened and handed to root is his.
    fd = os.open(f"{mount}/append", os.O_WRONLY)
    a.does(lambda: os.write(fd, b'{"session_id":"b-closed"}\n'))
    os.close(fd)
    assert read(f"{mount}/sessions/b-closed/log").count(b"\n") == 6


@case
def descriptors(mount, one, other):
    a, b = users(one, other)
    path = full(a, session_of(a, mount, "kept", 0o777))

    def again(fd, flags):
        return os.open(f"/proc/self/fd/{fd}", flags)

    def look(ready, go):
        held = {name: os.open(f"{path}/{name}", os.O_PATH) for name in ("log", "1", "append", "state/k", "meta")}
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        writer = os.open(f"{path}/append", os.O_WRONLY)
        reader = os.open(f"{path}/log", os.O_RDONLY)
        os.write(ready, b"x")
        os.read(go, 1)
        for name, fd in held.items():
            flags = os.O_WRONLY if name == "append" else os.O_RDONLY
            hl.wait_for(lambda f=fd, g=flags: not can(again, f, g), f"{name} to be closed")
        with fails(errno.EACCES):
            again(reader, os.O_RDONLY)
        with fails(errno.EACCES):
            again(writer, os.O_WRONLY)
        hl.wait_for(lambda: not can(os.open, "log", os.O_RDONLY, dir_fd=folder), "the directory to be closed")
        for name in ("1", "state/k", "../kept/1", "state/../1"):
            with fails(errno.EACCES):
                os.open(name, os.O_RDONLY, dir_fd=folder)
        # What was open stays open, as in any file system.
        assert os.pread(reader, 100, 0)
        assert os.write(writer, b"still\n") == 6
        for name in (f"/proc/self/fd/{folder}/log", f"/proc/self/fd/{folder}/../kept/log"):
            with fails(errno.EACCES):
                os.open(name, os.O_RDONLY)

    ready_read, ready_write = os.pipe()
    go_read, go_write = os.pipe()
    pid = b.fork(look, ready_write, go_read)
    os.close(ready_write)
    assert os.read(ready_read, 1) == b"x"
    a.does(lambda: os.chmod(path, 0o700))
    os.write(go_write, b"x")
    assert os.waitpid(pid, 0)[1] == 0
    # A file that cannot be written cannot be written by way of its descriptor either.
    a.does(lambda: os.chmod(path, 0o755))

    def upgrade():
        for name in ("log", "1", "state/k", "meta"):
            fd = os.open(f"{path}/{name}", os.O_RDONLY)
            with fails(*PRIVATE):
                again(fd, os.O_RDWR)

    b.does(upgrade)


def can(call, *arguments, **names):
    try:
        os.close(call(*arguments, **names))
        return True
    except PermissionError:
        return False


@case
def attributes(mount, one, other):
    a, b = users(one, other)
    closed, opened = full(a, session_of(a, mount, "x-closed")), full(a, session_of(a, mount, "x-open", 0o755))

    def look():
        for name in ("user.title", "user.none"):
            with fails(errno.EACCES):
                os.getxattr(closed, name)
        assert os.getxattr(opened, "user.title") == b"mine"
        assert os.getxattr(f"{opened}/1", "user.hotlog.crc32")
        for path in (closed, opened, f"{opened}/1", mount):
            for call in (lambda p: os.setxattr(p, "user.title", b"x"), lambda p: os.removexattr(p, "user.title"),
                         lambda p: os.setxattr(p, "user.hotlog.crc32", b"x"), lambda p: os.setxattr(p, "trusted.x", b"x"),
                         lambda p: os.setxattr(p, "security.selinux", b"x"),
                         lambda p: os.setxattr(p, "system.posix_acl_access", b"\2\0\0\0" + b"\1\0\7\0\377\377\377\377")):
                with fails(errno.EACCES, errno.EPERM, errno.EOPNOTSUPP):
                    call(path)

    b.does(look)
    assert os.getxattr(opened, "user.title") == b"mine"
    # What one session may keep is bounded, for its owner too.
    a.does(lambda: fails_all(errno.ENOSPC, [lambda: [os.setxattr(opened, f"user.{n}", b"x" * 60000) for n in range(9)]]))


BAD_NAMES = [b"a\x01b", b"\x7f", b"%2f", b"%", b"%4", b"%GG", b"%41", b"%00", b"a%00b", b"\xff", b"\xc0\xaf", b"\xed\xa0\x80"]
GOOD_NAMES = [b"..%2F..%2Fetc%2Fpasswd", b"%2E%2E", b"%2E", b"%2F", b"%25", "\u202e\U0001f600".encode(), b"x" * 255,
              b"...", b"a..b", b"CON", b"-rf", b"%7F"]


@case
def names(mount, one, other):
    a, _ = users(one, other)
    home = session_of(a, mount, "names", 0o755)

    def look():
        for folder, make in ((f"{mount}/sessions", os.mkdir), (f"{home}/archive", os.mkdir),
                             (f"{home}/state", lambda p: os.close(os.open(p, os.O_CREAT | os.O_WRONLY, 0o666)))):
            folder = folder.encode()
            for name in BAD_NAMES:
                with fails(errno.EINVAL):
                    make(folder + b"/" + name)
                with fails(errno.ENOENT):
                    os.stat(folder + b"/" + name)
            for size in (256, 1023, 1025, 4095, 4096, 65536):
                for call in (make, os.stat, os.listdir):
                    with fails(errno.ENAMETOOLONG):
                        call(folder + b"/" + b"x" * size)
            with fails(errno.ENAMETOOLONG):
                make(folder + b"/" + b"%2F" * 86)
        for name in GOOD_NAMES:
            path = f"{mount}/sessions/".encode() + name
            os.mkdir(path)
            assert name in os.listdir(f"{mount}/sessions".encode()), name
            hl.append(os.fsdecode(path), b"x\n")
            assert os.stat(path).st_uid == os.getuid()
            assert b'"x"' in read(path + b"/1")
        for name in ("007", "+1", "1.", "0x1", "1-2-3", "-", "-1", "1-0", "18446744073709551616", "9007199254740992",
                     "9" * 250, "1-9007199254740993", " 1"):
            with fails(errno.ENOENT):
                os.stat(f"{home}/{name}")
        with fails(errno.ENOENT):
            os.stat(f"{home}/at/01")

    a.does(look)


@case
def links(mount, one, other):
    a, b = users(one, other)
    path, target = full(a, session_of(a, mount, "links", 0o777)), full(b, session_of(b, mount, "target"))

    def look():
        for folder in (mount, f"{mount}/sessions", path, f"{path}/state", f"{path}/archive", f"{path}/archive/old",
                       f"{path}/history"):
            for call in (lambda p: os.symlink(target, p), lambda p: os.link(f"{path}/1", p), os.mkfifo,
                         lambda p: os.link(f"{path}/state/k", p), lambda p: os.mknod(p, 0o666 | stat.S_IFSOCK)):
                with fails(*PRIVATE):
                    call(f"{folder}/new")
        for old, new in ((path, f"{mount}/sessions/renamed"), (target, f"{mount}/sessions/stolen"), (path, target),
                         (f"{path}/state", f"{path}/archive/x"), (f"{path}/1", f"{path}/9"), (f"{path}/state/k", f"{path}/k"),
                         (f"{path}/archive/old", f"{path}/archive/young"), (f"{path}/log", f"{path}/state/log"),
                         (f"{path}/state/k", f"{target}/state/k"), (f"{mount}/sessions", f"{mount}/x")):
            with fails(errno.EACCES, errno.EPERM, errno.EXDEV, errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR, errno.ENOTDIR):
                os.rename(old, new)

    a.does(look)
    assert read(f"{path}/state/k") == read(f"{target}/state/k") == b'{"v":1}\n'


# ---- nobody takes what others need --------------------------------------------------------------------


def more_files():
    """Before becoming a user: as many descriptors as the test wants."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))


def resident(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) * 1024


def works_for(user, mount, name):
    """All that a user does goes on, in a time that does not remind of others."""
    path = f"{mount}/sessions/{name}"

    def work():
        os.mkdir(path)
        fd = os.open(f"{path}/append", os.O_RDWR)
        longest = 0
        for n in range(200):
            began = time.monotonic()
            os.write(fd, b'{"n":%d}\n' % n)
            assert os.read(fd, 100) == b"%d\n" % (n + 1)
            longest = max(longest, time.monotonic() - began)
        print(f"user {os.getuid()}: the slowest of 200 appends took {longest * 1000:.1f} ms", file=sys.stderr)
        os.close(fd)
        big = b"y" * (9 * MIB)
        fd = hl.appender(path)
        hl.write_all(fd, b'{"payload":"' + big)  # a half line
        hl.write_all(fd, b'"}\n')
        os.close(fd)
        assert os.stat(f"{path}/201").st_size > len(big)
        with open(f"{path}/state/.scratch", "wb") as file:
            file.write(b'"' + big + b'"\n')
        os.rename(f"{path}/state/.scratch", f"{path}/state/k")
        assert os.stat(f"{path}/state/k").st_size == len(big) + 3
        assert read(f"{path}/201").count(b"y") == len(big) + 1  # one in "payload"
        assert json.loads(read(f"{path}/meta"))["records"] == 202
        fd = hl.appender(path)
        with fails(errno.EINVAL):
            os.write(fd, b'{"a":}\n')
        assert "not JSON" in hl.last_error(path) or "JSON" in hl.last_error(path), hl.last_error(path)
        os.write(fd, b"a new line of text\n")
        os.close(fd)
        assert len(os.listdir(path)) > 200
        os.unlink(f"{path}/state/k")

    user.does(work)


def take_until(code, open_one, write, most=20000):
    """Opens and writes until it is refused; returns what is open."""
    kept = []
    for n in range(most):
        try:
            kept.append(open_one(n))
            write(kept[-1], n)
        except OSError as error:
            assert error.errno == code, error
            return kept
    raise AssertionError("there is no limit")


def refused_by(path, option):
    said = hl.last_error(path)
    assert option in said and str(os.getuid()) in said, said


@case
def many_handles(mount, one, other, pid):
    a, b = users(one, other)
    more_files()
    path = session_of(a, mount, "handles")
    before = resident(pid)

    def take():
        kept = []
        for n in range(HANDLES):
            fd = hl.appender(path)
            os.write(fd, b'{"half":"' + b"x" * 200)
            kept.append(fd)
        kept += take_until(errno.EMFILE, lambda n: hl.appender(path), lambda fd, n: None)
        assert len(kept) == 12000, len(kept)
        with fails(errno.EMFILE):
            os.open(f"{path}/log", os.O_RDONLY)
        os.close(kept.pop())
        refused_by(path, "user_files_max lets him (12000)")
        return kept

    with a.holds(take):
        print(f"12,000 handles with 10,000 half lines took {(resident(pid) - before) // 1024} KiB", file=sys.stderr)
        slow = "-" in os.path.basename(os.path.dirname(os.environ["HOTLOGFS"]))  # a sanitizer's memory is not ours
        assert resident(pid) - before < (512 if slow else 64) * MIB
        works_for(b, mount, "beside-handles")
    assert read(f"{path}/log") == b""
    a.does(lambda: os.close(hl.appender(path)))


@case
def half_lines(mount, one, other):
    a, b = users(one, other)
    path = session_of(a, mount, "half-lines")

    def take():
        kept = take_until(errno.ENOBUFS, lambda n: hl.appender(path), lambda fd, n: os.write(fd, b"x" * (MIB // 2)))
        refused_by(path, "user_pieces_max")
        return kept

    with a.holds(take):
        works_for(b, mount, "beside-half-lines")


@case
def half_documents(mount, one, other):
    a, b = users(one, other)
    path = session_of(a, mount, "half-documents")

    def take():
        kept = take_until(errno.ENOBUFS, lambda n: os.open(f"{path}/state/k{n}", os.O_CREAT | os.O_WRONLY),
                          lambda fd, n: os.write(fd, b'"' + b"x" * (MIB // 2)))
        refused_by(path, "user_pieces_max")
        return kept

    with a.holds(take):
        works_for(b, mount, "beside-half-documents")


@case
def scratch_files(mount, one, other):
    """They stay when they are closed, and count for who made them, wherever they are."""
    a, b = users(one, other)
    path = session_of(a, mount, "scratch", 0o777)

    def take():
        for fd in take_until(errno.ENOSPC, lambda n: os.open(f"{path}/state/.f{n}", os.O_CREAT | os.O_WRONLY),
                             lambda fd, n: os.write(fd, b"x" * (MIB // 2))):
            os.close(fd)
        refused_by(path, "user_scratch_max")
        # Also empty ones take memory.
        for fd in take_until(errno.ENOSPC, lambda n: os.open(f"{path}/state/.e{n}", os.O_CREAT | os.O_WRONLY),
                             lambda fd, n: os.close(fd), 100000):
            pass
        with fails(errno.ENOSPC):
            os.close(os.open(f"{mount}/sessions/scratch/state/#another", os.O_CREAT | os.O_WRONLY))

    a.does(take)
    b.does(lambda: os.close(os.open(f"{path}/state/.of-b", os.O_CREAT | os.O_WRONLY)))
    works_for(b, mount, "beside-scratch")
    for name in os.listdir(f"{path}/state"):
        os.unlink(f"{path}/state/{name}")
    a.does(lambda: os.close(os.open(f"{path}/state/.again", os.O_CREAT | os.O_WRONLY)))
    os.unlink(f"{path}/state/.again")


@case
def receipts(mount, one, other):
    """For a mount with user_pieces_max=64K: they are bounded, the oldest of a file go first, and no append fails."""
    a, b = users(one, other)
    more_files()
    path, beside = session_of(a, mount, "receipts"), session_of(b, mount, "beside-receipts")

    def take():
        fd = os.open(f"{path}/append", os.O_RDWR)
        for n in range(3000):
            os.write(fd, b"x\n")
        assert 60 << 10 < status(mount)["unread_bytes"] <= 64 << 10, status(mount)["unread_bytes"]
        first = int(os.read(fd, 100))
        assert first > 1000, first
        kept = [fd] + [os.open(f"{path}/append", os.O_RDWR) for _ in range(2000)]
        for fd in kept[1:]:
            os.write(fd, b"x\n")
        assert status(mount)["unread_bytes"] <= 64 << 10
        refused_by(path, "not their receipt")
        refused_by(path, "user_pieces_max (65536 bytes)")
        assert os.read(kept[0], 100) == b"%d\n" % (first + 1) and os.read(kept[-1], 100) == b""
        return kept

    def go_on():
        fd = os.open(f"{beside}/append", os.O_RDWR)
        for n in range(100):
            os.write(fd, b"x\n")
        assert [os.read(fd, 100) for _ in range(100)] == [b"%d\n" % (n + 1) for n in range(100)]
        os.close(fd)

    with a.holds(take):
        b.does(go_on)
    assert read(f"{path}/log").count(b"\n") == 5000


@case
def open_texts(mount, one, other):
    a, b = users(one, other)
    more_files()
    path = session_of(a, mount, "texts", 0o755)

    def take():
        for n in range(6):
            os.setxattr(path, f"user.{n}", b"\x01" * 10000)  # six bytes each as JSON
        kept = take_until(errno.ENOBUFS, lambda n: os.open(f"{path}/meta", os.O_RDONLY), lambda fd, n: None)
        assert 10 < len(kept) < 1000, len(kept)
        return kept

    with a.holds(take):
        works_for(b, mount, "beside-texts")
        b.does(lambda: read(f"{path}/meta"))


@case
def held_records(mount, one, other):
    a, b = users(one, other)
    path = session_of(a, mount, "held", 0o755)

    def take():
        for _ in range(8):
            fd = hl.appender(path)
            hl.write_all(fd, b'{"p":"' + b"z" * (8 * MIB) + b'"}\n')
            os.close(fd)
        kept = [os.open(f"{path}/{n + 1}", os.O_RDONLY) for n in range(8)]
        for fd in kept:
            assert os.pread(fd, 100, 1 << 20)
            assert os.pread(fd, 100, 3 << 20)
        return kept

    with a.holds(take):
        works_for(b, mount, "beside-held")


@case
def followers(mount, one, other):
    a, b = users(one, other)
    more_files()
    path = session_of(a, mount, "followed", 0o755)

    def take():
        threading.stack_size(64 * 1024)
        kept = [os.open(f"{path}/follow", os.O_RDONLY) for _ in range(1000)]
        for fd in kept[:200]:
            threading.Thread(target=os.read, args=(fd, 100), daemon=True).start()
        for n in range(200):
            hl.append(path, b"x" * 1000 + b"\n")
        return kept

    with a.holds(take):
        works_for(b, mount, "beside-followers")


@case
def refused_lines(mount, one, other):
    """A user whose refused lines fill what is kept of them does not make those of others suspect."""
    a, b = users(one, other)
    more_files()
    path = session_of(a, mount, "refused")

    def take():
        kept = []
        for _ in range(80):
            fd = hl.appender(path)
            os.write(fd, b'{"a":"' + b"x" * (MIB // 2))
            with fails(errno.EINVAL):
                os.write(fd, b'",}\n')
            kept.append(fd)
        return kept

    with a.holds(take):
        works_for(b, mount, "beside-refused")


@case
def last_errors(mount, one, other):
    a, b = users(one, other)
    mine = session_of(b, mount, "has-an-error")

    def fail(path):
        fd = hl.appender(path)
        with fails(errno.EINVAL):
            os.write(fd, b"{]\n")
        os.close(fd)

    b.does(fail, mine)

    def take():
        for n in range(4200):
            path = f"{mount}/sessions/error-{n}"
            os.mkdir(path)
            fail(path)

    a.does(take)
    assert "line 1" in hl.last_error(mine), "what others did wrong made it forget"


@case
def many_drafts(mount, one, other):
    """Open files of one cost the other nothing, also where their sessions share a lock."""
    a, b = users(one, other)
    more_files()
    path = session_of(a, mount, "drafts")
    paths = [session_of(b, mount, f"shard-{n}") for n in range(32)]

    def set_one(folder):
        with open(f"{folder}/state/k", "w", encoding="ascii") as file:
            file.write("1\n")

    for folder in paths:
        b.does(set_one, folder)
    a.does(set_one, path)

    def stats():
        began = time.monotonic()
        for folder in paths * 30:
            os.stat(f"{folder}/state/k")
        return time.monotonic() - began

    without = min(stats() for _ in range(3))

    def take():
        kept = []
        for n in range(11000):
            fd = os.open(f"{path}/state/k", os.O_WRONLY)
            os.write(fd, b"[")
            kept.append(fd)
        return kept

    with a.holds(take):
        beside = min(stats() for _ in range(3))
    print(f"960 stats: {without * 1000:.0f} ms; beside 11,000 drafts {beside * 1000:.0f} ms", file=sys.stderr)


@case
def all_came_back(mount, one, other):
    def counts():
        now = status(mount)
        return now["kept_bytes"], now["scratch_bytes"], now["scratch_files"], now["unread_bytes"]

    hl.wait_for(lambda: counts() == (0, 0, 0, 0), f"what was taken to come back: {counts()}")


if __name__ == "__main__":
    hl.main()
