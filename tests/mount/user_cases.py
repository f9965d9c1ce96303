"""Cases of test_user.sh: a mount of an ordinary user. Arguments: MOUNT."""
import errno
import json
import os

import hl
from hl import append, case, fails, log_of, new_session, read


@case
def root_append_checks_bits(mount):
    """Not even the owner may append by root append where the bits of his session say no."""
    closed = new_session(mount, "closed")
    other = new_session(mount, "open")
    append(closed, b"one\n")
    os.chmod(closed, 0o500)
    with fails(errno.EACCES):
        hl.appender(closed)
    fd = os.open(f"{mount}/append", os.O_WRONLY | os.O_APPEND)
    with fails(errno.EACCES):
        os.write(fd, b'{"session_id":"open"}\n{"session_id":"made"}\n{"session_id":"closed"}\n{"session_id":"open"}\n')
    assert log_of(other) == b"" and log_of(closed).count(b"\n") == 1, "refused whole"
    assert not os.path.exists(f"{mount}/sessions/made")
    os.write(fd, b'{"session_id":"open"}\n')
    os.chmod(closed, 0o700)
    os.write(fd, b'{"session_id":"open"}\n{"session_id":"closed"}\n')
    os.close(fd)
    assert log_of(other).count(b"\n") == 2 and log_of(closed).count(b"\n") == 2


@case
def all_is_his(mount):
    s = new_session(mount, "his", 0o750)
    append(s, b"x\n")
    for path in (mount, f"{mount}/log", s, f"{s}/1", f"{s}/log", f"{s}/append"):
        assert os.lstat(path).st_uid == os.getuid(), path
    with fails(errno.EPERM):
        os.chown(s, 0, -1)
    os.chmod(s, 0o000)
    for path in (f"{s}/1", f"{s}/log"):
        with fails(errno.EACCES):
            read(path)
    os.chmod(s, 0o750)
    assert read(f"{s}/1")
    json.loads(read(f"{mount}/.status"))


@case
def his_again(mount):
    s = f"{mount}/sessions/his"
    assert os.lstat(s).st_uid == os.getuid() and os.lstat(s).st_mode & 0o7777 == 0o750
    append(s, b"y\n")
    assert log_of(s).count(b"\n") == 2


if __name__ == "__main__":
    hl.main()
