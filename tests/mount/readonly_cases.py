"""Cases of test_readonly.sh. Arguments: MOUNT (a read-only one)."""
import errno
import os

import hl
from documents_cases import ctl
from hl import case, fails, read

NO = (errno.EROFS,)


@case
def refused(mount):
    """EROFS for each kind of change; root's own, so it is the daemon that says so."""
    s = f"{mount}/sessions/s"
    before = read(f"{mount}/log")
    for path in (f"{s}/append", f"{mount}/append"):
        with fails(*NO):
            fd = os.open(path, os.O_WRONLY)
            try:
                os.write(fd, b'{"session_id":"s"}\n')
            finally:
                os.close(fd)
        with fails(*NO):
            fd = os.open(path, os.O_RDWR | os.O_APPEND)
            try:
                os.write(fd, b'{"session_id":"new"}\n')
            finally:
                os.close(fd)
    with fails(*NO):
        os.mkdir(f"{mount}/sessions/new")
    with fails(*NO):
        os.chmod(s, 0o700)
    with fails(*NO):
        os.chown(s, 1, 1)
    with fails(*NO):
        os.setxattr(s, "user.a", b"b")
    with fails(*NO):
        os.removexattr(s, "user.kept")
    for path in (f"{s}/1", f"{s}/append", f"{s}/log"):
        with fails(errno.EROFS, errno.EPERM):
            os.unlink(path)
    with fails(errno.EROFS, errno.EPERM, errno.ENOTEMPTY):
        os.rmdir(s)
    for path in (f"{s}/file", f"{mount}/file"):
        with fails(errno.EROFS, errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    for command in (b"rotate\n", b"checkpoint\n", b"reindex\n"):
        with fails(*NO):
            fd = os.open(f"{mount}/.ctl", os.O_RDWR)
            try:
                os.write(fd, command)
            finally:
                os.close(fd)
    with fails(errno.EINVAL, errno.EROFS):
        fd = os.open(f"{mount}/.ctl", os.O_RDWR)
        try:
            os.write(fd, b"nonsense\n")
        finally:
            os.close(fd)
    assert os.getxattr(s, "user.kept") == b"kept"
    assert read(f"{mount}/log") == before and not os.path.exists(f"{mount}/sessions/new")


@case
def compare(mount, other):
    """Everything that can be read is the same on both."""

    def tree(top):
        found = {}
        for folder, _, names in os.walk(top):
            for name in names:
                path = f"{folder}/{name}"
                if name not in (".status", ".metrics", ".ctl", "last_error", "append"):
                    status = os.lstat(path)
                    found[path[len(top):]] = (status.st_size, status.st_mode, status.st_uid, read(path))
        return found

    one, two = tree(mount), tree(other)
    assert set(one) == set(two), sorted(set(one) ^ set(two))[:10]
    for path in one:
        if not path.endswith("/meta"):
            assert one[path] == two[path], path


@case
def trims_beside(mount, writer):
    """What has a log open while the writer drops records: its size is counted on by what went, once."""
    w, s = hl.new_session(writer, "trimmed"), f"{mount}/sessions/trimmed"
    hl.append(w, b"".join(b'{"n":%d}\n' % n for n in range(1, 101)))
    hl.wait_for(lambda: os.path.exists(f"{s}/100"), "what the writer appended")
    whole = read(f"{w}/log")
    fds = [os.open(f"{s}/log", os.O_RDONLY) for _ in range(2)]
    try:
        assert os.read(fds[0], 1 << 16) == whole
        for last in (20, 50, 51):
            ctl(writer, f"trim trimmed {last}")
            hl.wait_for(lambda: os.stat(f"{s}/log").st_size == os.stat(f"{w}/log").st_size, "the trim")
            for fd in fds:
                assert os.fstat(fd).st_size == len(whole), (last, os.fstat(fd).st_size, len(whole))
        assert os.read(fds[0], 100) == b""
        hl.append(w, b'{"n":101}\n')
        more = read(f"{w}/101")
        hl.wait_for(lambda: os.fstat(fds[0]).st_size == len(whole) + len(more), "what came after the trims")
        assert os.read(fds[0], 1000) == more
    finally:
        for fd in fds:
            os.close(fd)


if __name__ == "__main__":
    hl.main()
