"""Cases of test_append.sh: seqs, retries, receipts, and the root's append. Arguments: MOUNT."""
import errno
import json
import os

import hl
from append_checks import refused, stored
from hl import append, appender, case, check_log, fails, log_of, new_session, read


@case
def seq_given(mount):
    s = new_session(mount, "seq")

    def seqs():
        return [json.loads(line)["seq"] for line in stored(s)]

    append(s, b'{"seq":0,"n":"first"}\n')
    assert seqs() == [0]
    append(s, b'next\n{"seq":5}\nnext\n{"seq":1000000}\nnext\n')
    assert seqs() == [0, 1, 5, 6, 1000000, 1000001]
    assert read(f"{s}/0").endswith(b'"seq":0,"n":"first"}\n')
    for given in (2, 4, 7, 999999):  # between what is there: never to be taken
        refused(s, b'{"seq":%d}\n' % given, errno.EEXIST, 1, str(given))
    refused(s, b'good\n{"seq":5,"other":1}\n', errno.EEXIST, 2, "5")
    refused(s, b'{"seq":2000000}\n{"seq":2000000,"other":1}\n', errno.EEXIST, 2)
    refused(s, b'{"seq":2000001}\n{"seq":2000000}\n', errno.EEXIST, 2)
    append(s, b'{"seq":9007199254740990}\n')
    append(s, b"the very last\n")
    assert seqs()[-1] == (1 << 53) - 1
    before = log_of(s)
    fd = appender(s)
    try:
        os.write(fd, b"one too many\n")
        raise AssertionError("a seq past 2^53-1 was given")
    except OSError:
        pass
    finally:
        os.close(fd)
    assert log_of(s) == before


@case
def retry_is_safe(mount):
    s = new_session(mount, "retry")
    lines = [b'{"seq":1,"ts_ms":7,"a":1}', b'{"seq":2,"b":2}', b'{"c":3}', b"text"]
    append(s, b"\n".join(lines) + b"\n")
    once = log_of(s)
    append(s, b'{"seq":1,"ts_ms":7,"a":1}\n')
    append(s, b'{"seq":2,"b":2}\n{"seq":1,"ts_ms":7,"a":1}\n')
    assert log_of(s) == once
    append(s, once)  # the log read back in, whole
    append(s, read(f"{s}/4"))
    append(mount, once)
    assert log_of(s) == once
    refused(s, b'{"seq":1,"ts_ms":8,"a":1}\n', errno.EEXIST, 1)
    refused(s, b'{"seq":1,"ts_ms":7,"a":1 }\n', errno.EEXIST, 1)
    refused(s, b'{"seq":2,"b":3}\n', errno.EEXIST, 1)
    append(s, b'{"seq":2,"b":2}\nnew\n{"seq":1,"ts_ms":7,"a":1}\n')  # a retry within a batch
    assert log_of(s).startswith(once) and log_of(s).count(b"\n") == 5
    twice = b'{"seq":10,"ts_ms":1}\n'
    append(s, twice + twice)
    assert log_of(s).count(b"\n") == 6
    copy = new_session(mount, "retry-copy")
    with fails(errno.EINVAL):  # another session's log names another session
        append(copy, once)


@case
def receipts(mount):
    s = new_session(mount, "receipts")
    fd = os.open(f"{s}/append", os.O_RDWR | os.O_APPEND)

    def receipt():
        return os.read(fd, 100)

    assert receipt() == b""
    os.write(fd, b"hi\n")
    assert receipt() == b"1\n"
    assert receipt() == b""
    os.write(fd, b"a\nb\nc\n")
    os.write(fd, b'{"seq":42}\n')
    assert os.pread(fd, 100, 1 << 30) == b"2-4\n"  # whatever the offset
    assert os.pread(fd, 100, 0) == b"42\n"
    assert os.pread(fd, 100, 0) == b""
    os.write(fd, b"".join(b"line %d\n" % n for n in range(16)))
    assert receipt() == b"43-58\n"
    os.write(fd, b"pie")
    assert receipt() == b""
    os.write(fd, b"ce\n")
    assert receipt() == b"59\n"
    with fails(errno.EINVAL):
        os.write(fd, b"{]\n")
    assert receipt() == b""
    os.write(fd, b'{"ts_ms":1,"seq":70}\n')
    os.write(fd, b'{"ts_ms":1,"seq":70}\n')  # a retry gets the seq that it has
    assert (receipt(), receipt(), receipt()) == (b"70\n", b"70\n", b"")
    os.write(fd, b"\n\n")
    assert receipt() == b""
    os.close(fd)
    fd = os.open(f"{s}/append", os.O_RDONLY)
    assert os.read(fd, 100) == b""  # a handle that has not written gets none, and never waits
    os.close(fd)


@case
def root_append(mount):
    fd = os.open(f"{mount}/append", os.O_RDWR | os.O_APPEND)
    os.write(fd, b'{"session_id":"root-a","n":1}\n')
    os.write(fd, b'{"session_id":"root-b","n":2}\n{"n":3,"session_id":"root-a"}\n{"session_id":"root/c"}\n')
    for name, ident, lines in (("root-a", "root-a", [b'{"session_id":"root-a","n":1}', b'{"n":3,"session_id":"root-a"}']),
                               ("root-b", "root-b", [b'{"session_id":"root-b","n":2}']),
                               ("root%2Fc", "root/c", [b'{"session_id":"root/c"}'])):
        check_log(log_of(f"{mount}/sessions/{name}"), lines, ident)
    here = set(os.listdir(f"{mount}/sessions"))
    before = read(f"{mount}/log")
    for line in (b'{"n":1}', b"text", b'{"session_id":null}', b'{"session_id":""}', b'{"session_id":7}', b"{",
                 b'{"session_id":"bad\\u0000nul"}',
                 b'{"session_id":"' + b"x" * 256 + b'"}', b'{"session_id":"' + b"/" * 86 + b'"}',
                 b'{"session_id":"root-new","seq":-1}'):
        with fails(errno.EINVAL, errno.ENAMETOOLONG):
            os.write(fd, b'{"session_id":"root-new2"}\n' + line + b"\n" + b'{"session_id":"root-a"}\n')
        assert read(f"{mount}/log") == before, f"{line[:60]}: refused, yet something was stored"
    assert set(os.listdir(f"{mount}/sessions")) == here, "a refused batch made a session"
    longest = "/" * 85
    os.write(fd, json.dumps({"session_id": longest}).encode() + b"\n")
    assert len(stored(f"{mount}/sessions/" + "%2F" * 85)) == 1
    os.write(fd, b'{"session_id":"root-\\u00e9"}\n')  # an escaped id is the same id
    os.write(fd, '{"session_id":"root-é"}\n'.encode())
    assert len(stored(f"{mount}/sessions/root-é")) == 2
    os.write(fd, b'{"session_id":"root-pie')
    assert not os.path.exists(f"{mount}/sessions/root-piece")
    os.write(fd, b'ce"}\n')
    assert len(stored(f"{mount}/sessions/root-piece")) == 1
    os.close(fd)


@case
def root_refusals_are_told(mount):
    """A refused root append is told where its user looks: in .status, and in the session that the line names."""
    s = new_session(mount, "root-told")
    other = new_session(mount, "root-not-told")

    def refused_for(data, line, word):
        with fails(errno.EINVAL, errno.EEXIST):
            append(mount, data)
        said = json.loads(read(f"{mount}/.status"))["last_error"]
        assert said["line"] == line and word in said["reason"], said
        return said

    name = b'{"session_id":"root-told"'
    for data, line, word in ((name + b'}\n' + name + b',"kind":5}\n', 2, "kind"), (name + b',"a":}\n', 1, "not JSON"),
                             (b'{"x":[1],"session_id":"root\\u002dtold","a":', 1, "not JSON"), (name + b',"a":}', 1, "not JSON"),
                             (b'{"session_id":"root-not-told"}\n' + name + b',"seq":1}\n' + name + b',"seq":1,"n":2}\n', 3,
                              "other content")):
        if data.endswith(b":"):
            data += b"}\n"
        said = refused_for(data, line, word)
        told = json.loads(hl.last_error(s))
        assert (told["errno"], told["line"]) == (said["errno"], line) and said["reason"] in told["reason"], told
        assert "root append" in told["reason"], told
    assert hl.last_error(other) == "", "its line was not to blame"
    for data, word in ((b"text\n", "session_id"), (b'{"n":1}\n', "session_id"), (b'{"session_id":"root-none","kind":5}\n', "kind"),
                       (b'{"session_id":5}\n', "session_id")):
        before = hl.last_error(s)
        refused_for(data, 1, word)  # no session that it could be told to
        assert hl.last_error(s) == before
    assert log_of(s) == b""


@case
def root_permissions(mount):
    """Mounted with allow_other by root: root append checks the bits itself, by who opened it."""
    alice, bob = 65534, 1
    with hl.as_user(alice):
        private = new_session(mount, "alice-private", 0o700)
        shared = new_session(mount, "alice-shared", 0o777)
        os.chmod(shared, 0o777)
        append(private, b"mine\n")
    with hl.as_user(bob):
        append(shared, b"by bob\n")
        with fails(errno.EACCES):
            append(private, b"not mine\n")
        with fails(errno.EACCES):
            os.open(f"{mount}/append", os.O_WRONLY)  # 0200, root's
    fd = appender(mount)
    os.write(fd, b'{"session_id":"alice-private","by":"root"}\n')  # root may, whatever the bits
    with hl.as_user(bob):  # who opened counts, not who writes
        os.write(fd, b'{"session_id":"alice-private","by":"bob, on root\'s descriptor"}\n{"session_id":"made-by-fd"}\n')
    os.close(fd)
    assert len(stored(private)) == 3 and len(stored(shared)) == 1
    assert os.stat(f"{mount}/sessions/made-by-fd").st_uid == 0


if __name__ == "__main__":
    hl.main()
