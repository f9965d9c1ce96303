"""Cases of test_state.sh: values, and the ways of writing them. Arguments: MOUNT."""
import errno
import json
import os

import hl
from documents import (NEW, RW, WRONLY, check_state, close_fails, elsewhere, holds, is_absent, last_operations, new_state,
                       opened, operations, reason, write)
from hl import case, fails, flush


# ---- values -------------------------------------------------------------------------------------


@case
def values(mount):
    """What is written is read, on one line: numbers and strings byte for byte."""
    s = new_state(mount, "values")
    cases = {
        "object": ('{ "a" : 1,\n\t"b" : [ 1 , 2 ] }', '{"a":1,"b":[1,2]}'),
        "number": ("-0.10E+5", "-0.10E+5"),
        "long number": ("123456789012345678901234567890.500", "123456789012345678901234567890.500"),
        "string": ('"a  b\\t\\u00e9 é \\" {"', '"a  b\\t\\u00e9 é \\" {"'),
        "word": (" true ", "true"),
        "null": ("null", "null"),
        "empty": ("[ ]", "[]"),
        "twice": ('{"a":1,"a":2}', '{"a":1,"a":2}'),
        "ends": ('"\\\\" ', '"\\\\"'),
    }
    for name, (text, value) in cases.items():
        for ending in ("", "\n", "\r\n", "\n\n \n"):
            write(f"{s}/{name}", text + ending)
            holds(f"{s}/{name}", value)
            assert last_operations(s, 1) == [{"op": "set", "key": name, "value": json.loads(value)}]
    assert len(operations(s)) == 4 * len(cases), "one operation a write"
    check_state(s)


@case
def bad_values(mount):
    """What is not JSON is refused at write(), says why, and leaves what there was."""
    s = new_state(mount, "bad")
    write(f"{s}/K", '{"old":1}\n')
    for text in (b"hello\n", b'{"a":}', b"{'a':1}", b"[1,]", b"01", b"\xff", b'"\xc3\x28"', b"1 2\n", b"{}\n{}\n",
                 b"nul\0", b'{"a":1}x', b"[1]]", b'"\n"', b"[" * 600, b"\xef\xbb\xbf1"):
        for path in (f"{s}/K", f"{s}/new"):
            fd = os.open(path, NEW)
            with fails(errno.EINVAL):
                os.write(fd, text)
            close_fails(fd, errno.EINVAL)
            assert reason(s).startswith(f"state/{os.path.basename(path)}: "), reason(s)
        holds(f"{s}/K", '{"old":1}')
        is_absent(f"{s}/new")
    write(f"{s}/K", "2\n")
    with fails(errno.EINVAL):
        write(f"{s}/K", "[1}\n")
    assert reason(s) == "state/K: not JSON at byte 3: expected ',' or ']'", reason(s)
    assert len(operations(s)) == 2
    check_state(s)


@case
def a_refused_write_spoils(mount):
    """What a program wrote before the write that was refused is not set either, whole or not."""
    s = new_state(mount, "spoiled")
    write(f"{s}/K", "7\n")
    fd = os.open(f"{s}/K", NEW)
    os.write(fd, b"12")
    with fails(errno.EINVAL):
        os.write(fd, b"x\n")
    close_fails(fd, errno.EINVAL)
    holds(f"{s}/K", "7")
    fd = os.open(f"{s}/K", NEW)
    os.write(fd, b"12")
    with fails(errno.EINVAL):
        os.write(fd, b"x\n")
    os.write(fd, b"3\n")  # it thought better of it
    holds(f"{s}/K", "123")
    with fails(errno.EINVAL):
        os.write(fd, b"4\n")  # behind the end
    with fails(errno.EINVAL):
        flush(fd)
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"5\n", 0)
    holds(f"{s}/K", "5")
    os.close(fd)
    check_state(s)


@case
def in_pieces(mount):
    """Set when whole and a newline follows; before that, all but the writer see the old value."""
    s = new_state(mount, "pieces")
    text = b'{"list": [1, 22, "three"], "t": true, "s": "x\\n"}\n'
    for name, old in (("new", None), ("there", "0")):
        if old:
            write(f"{s}/{name}", old)
        count = len(operations(s))
        with opened(f"{s}/{name}", NEW) as fd:
            for at in range(len(text)):
                seen = elsewhere(f"{s}/{name}")
                assert seen == (old and (old.encode() + b"\n", len(old) + 1)), (at, seen)
                assert len(operations(s)) == count
                assert os.fstat(fd).st_size == at == os.lseek(fd, 0, os.SEEK_END)
                assert os.write(fd, text[at:at + 1]) == 1
            holds(f"{s}/{name}", '{"list":[1,22,"three"],"t":true,"s":"x\\n"}')
            assert len(operations(s)) == count + 1
            os.write(fd, b"\n \n")  # white space behind it is nothing new
        assert len(operations(s)) == count + 1
    check_state(s)


@case
def unfinished(mount):
    """An unfinished value is EINVAL at a flush, but kept for a later close; a flush of nothing is nothing."""
    s = new_state(mount, "unfinished")
    write(f"{s}/K", "[0]\n")
    fd = os.open(f"{s}/K", NEW)
    flush(fd)
    flush(fd)
    assert len(operations(s)) == 1
    os.write(fd, b"[1,")
    with fails(errno.EINVAL):
        flush(fd)
    assert "not whole" in reason(s), reason(s)
    with fails(errno.EINVAL):
        os.fsync(fd)
    assert elsewhere(f"{s}/K") == (b"[0]\n", 4)
    os.write(fd, b"2]")
    assert elsewhere(f"{s}/K") == (b"[0]\n", 4)
    flush(fd)
    holds(f"{s}/K", "[1,2]")
    flush(fd)
    os.close(fd)
    assert len(operations(s)) == 2
    fd = os.open(f"{s}/K", NEW)
    os.write(fd, b"[1,")
    close_fails(fd, errno.EINVAL)
    holds(f"{s}/K", "[1,2]")
    fd = os.open(f"{s}/K", NEW)
    os.write(fd, b"\n")  # nothing but white space is no value
    close_fails(fd, errno.EINVAL)
    # A number may go on until a newline or the end says that it does not.
    fd = os.open(f"{s}/N", NEW)
    os.write(fd, b"1")
    flush(fd)
    holds(f"{s}/N", "1")
    os.write(fd, b"2")
    assert elsewhere(f"{s}/N") == (b"1\n", 2)
    os.close(fd)
    holds(f"{s}/N", "12")
    check_state(s)


@case
def nothing_written(mount):
    """Files that are made and not written are gone when they are closed."""
    s = new_state(mount, "nothing")
    os.close(os.open(f"{s}/K", NEW))
    os.close(os.open(f"{s}/K", os.O_RDONLY | os.O_CREAT))
    is_absent(f"{s}/K")
    write(f"{s}/K", "1\n")
    os.close(os.open(f"{s}/K", NEW))
    os.close(os.open(f"{s}/K", RW))
    holds(f"{s}/K", "1")
    assert len(operations(s)) == 1


# ---- other ways of writing ------------------------------------------------------------------------


@case
def read_and_write(mount):
    """r+: what was not written stays; looked at when it is closed."""
    s = new_state(mount, "rplus")
    path = f"{s}/K"
    write(path, '{"a":1,"b":22}\n')
    with opened(path, RW) as fd:
        assert os.read(fd, 100) == b'{"a":1,"b":22}\n'
        os.pwrite(fd, b"9", 5)
        assert os.pread(fd, 100, 0) == b'{"a":9,"b":22}\n'
        assert elsewhere(path) == (b'{"a":1,"b":22}\n', 15)
    holds(path, '{"a":9,"b":22}')
    with open(path, "r+") as file:  # shorter
        value = json.load(file)
        del value["b"]
        file.seek(0)
        json.dump(value, file)
        file.truncate()
        assert os.fstat(file.fileno()).st_size == 8
        holds_old = elsewhere(path)
    assert holds_old == (b'{"a":9,"b":22}\n', 15)
    holds(path, '{"a":9}')
    with open(path, "r+") as file:  # longer, pretty
        value = json.load(file)
        value["c"] = list(range(100))
        file.seek(0)
        file.truncate()
        json.dump(value, file, indent=2)
    holds(path, json.dumps({"a": 9, "c": list(range(100))}, separators=(",", ":")))
    write(path, "[1]\n")
    fd = os.open(path, RW)
    os.pwrite(fd, b"{", 0)
    close_fails(fd, errno.EINVAL)
    fd = os.open(path, RW)
    os.pwrite(fd, b"1", 50)  # a gap is zeros, which is no JSON
    assert os.fstat(fd).st_size == 51
    close_fails(fd, errno.EINVAL)
    holds(path, "[1]")
    with opened(path, RW) as fd:
        os.pwrite(fd, b"[2]\n", 0)
        os.ftruncate(fd, 4)
        with fails(errno.EBADF):
            os.write(os.open(path, os.O_RDONLY), b"x")
    holds(path, "[2]")
    check_state(s)


@case
def rewriting(mount):
    """One descriptor, several values: what is cut to nothing begins anew."""
    s = new_state(mount, "again")
    path = f"{s}/K"
    with opened(path, RW | os.O_CREAT | os.O_TRUNC) as fd:
        for value in (b"1\n", b"[1,2,3]\n", b"{}\n"):
            os.ftruncate(fd, 0)
            assert os.pwrite(fd, value, 0) == len(value)
            holds(path, value)
        os.pwrite(fd, b"[4]\n", 0)  # over it: looked at when it is flushed
        assert elsewhere(path) == (b"{}\n", 3)
        flush(fd)
        holds(path, "[4]")
        write(path, '"by another"\n')
        assert os.pread(fd, 100, 0) == b'"by another"\n', "who wrote sees what others set since"
        os.ftruncate(fd, 0)
    holds(path, '"by another"')
    check_state(s)


@case
def appending(mount):
    """>> re-reads; what it leaves must be JSON."""
    s = new_state(mount, "appending")
    path = f"{s}/K"
    how = WRONLY | os.O_APPEND | os.O_CREAT
    write(path, "[1]\n", how)
    holds(path, "[1]")
    with opened(path, how) as fd:
        with fails(errno.EINVAL):
            os.write(fd, b"[2]\n")
        with fails(errno.EINVAL):
            flush(fd)
        os.ftruncate(fd, 0)
        os.write(fd, b"[2]\n")
        holds(path, "[2]")
        os.write(fd, b" \n")
    assert len(operations(s)) == 2, "white space changes nothing"
    with opened(path, how) as fd:
        os.write(fd, b"\n")
        assert len(operations(s)) == 3, "the same value, set again"
        os.write(fd, b"\n")
    assert len(operations(s)) == 3
    with open(path, "a+") as file:
        file.seek(0)
        value = json.load(file)
        file.truncate(0)
        json.dump(value + [3], file)
    holds(path, "[2,3]")
    check_state(s)


@case
def truncating_by_name(mount):
    s = new_state(mount, "truncate")
    path = f"{s}/K"
    write(path, "12345\n")
    os.truncate(path, 6)
    os.truncate(path, 5)
    holds(path, "12345")
    os.truncate(path, 2)
    holds(path, "12")
    for size in (0, 20):
        with fails(errno.EINVAL):
            os.truncate(path, size)
        assert reason(s).startswith("state/K: "), reason(s)
    holds(path, "12")
    with fails(errno.EINVAL):
        os.posix_fallocate(os.open(path, RW), 0, 100)
    check_state(s)


@case
def two_writers(mount):
    """Each writes its own; the last whole value counts."""
    s = new_state(mount, "two")
    path = f"{s}/K"
    with opened(path, NEW) as one, opened(path, NEW) as two:
        os.write(one, b'{"one":')
        os.write(two, b'{"two":')
        os.write(one, b"1}\n")
        holds_now = elsewhere(path)
        os.write(two, b"2}\n")
    assert holds_now == (b'{"one":1}\n', 10)
    holds(path, '{"two":2}')
    assert [fields["value"] for fields in operations(s)] == [{"one": 1}, {"two": 2}]

if __name__ == "__main__":
    hl.main()
