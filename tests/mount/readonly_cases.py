"""Cases of test_readonly.sh. Arguments: MOUNT (a read-only one)."""
import errno
import os

import hl
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


if __name__ == "__main__":
    hl.main()
