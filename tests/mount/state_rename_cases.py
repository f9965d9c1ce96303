"""Cases of test_state.sh: renames within state/, and of files that are open. Arguments: MOUNT."""
import errno
import json
import os
import shutil
import tempfile

import hl
from documents import (EXCL, NEW, RENAME_EXCHANGE, RENAME_NOREPLACE, RW, WRONLY, check_state, close_fails, elsewhere,
                       holds, is_absent, last_operations, new_state, opened, operations, reason, renameat2, session_of,
                       write)
from hl import append, case, fails, flush, read


@case
def documents(mount):
    """A document to another key: one batch of a set and a delete."""
    s = new_state(mount, "rename")
    write(f"{s}/A", '{"a": 1}\n')
    os.rename(f"{s}/A", f"{s}/B")
    is_absent(f"{s}/A")
    holds(f"{s}/B", '{"a":1}')
    assert last_operations(s, 2) == [{"op": "set", "key": "B", "value": {"a": 1}}, {"op": "delete", "key": "A"}]
    stamps = [fields["ts_ms"] for fields in operations(s)[-2:]]
    assert stamps[0] == stamps[1], "one batch"
    write(f"{s}/C", "3\n")
    os.rename(f"{s}/C", f"{s}/B")
    holds(f"{s}/B", "3")
    os.rename(f"{s}/B", f"{s}/B")
    assert len(operations(s)) == 6
    for old, new in ((f"{s}/X", f"{s}/Y"), (f"{s}/X", f"{s}/B")):
        with fails(errno.ENOENT):
            os.rename(old, new)
    os.rename(f"{s}/B", f"{s}/a%2Fb")
    assert last_operations(s, 1)[0]["key"] == "B" and operations(s)[-2]["key"] == "a/b"
    check_state(s)


@case
def no_replace(mount):
    s = new_state(mount, "noreplace")
    write(f"{s}/A", "1\n")
    write(f"{s}/B", "2\n")
    write(f"{s}/.s", "3")
    write(f"{s}/.t", "4")
    for old in ("A", ".s"):
        for new in ("B", ".t"):
            with fails(errno.EEXIST):
                renameat2(f"{s}/{old}", f"{s}/{new}", RENAME_NOREPLACE)
    renameat2(f"{s}/A", f"{s}/C", RENAME_NOREPLACE)
    holds(f"{s}/C", "1")
    renameat2(f"{s}/.s", f"{s}/D", RENAME_NOREPLACE)
    holds(f"{s}/D", "3")
    renameat2(f"{s}/.t", f"{s}/.u", RENAME_NOREPLACE)
    assert read(f"{s}/.u") == b"4"
    os.unlink(f"{s}/.u")
    check_state(s)


@case
def exchange(mount):
    s = new_state(mount, "exchange")
    write(f"{s}/A", "1\n")
    write(f"{s}/B", "2\n")
    renameat2(f"{s}/A", f"{s}/B", RENAME_EXCHANGE)
    holds(f"{s}/A", "2")
    holds(f"{s}/B", "1")
    assert len(operations(s)) == 4
    with fails(errno.ENOENT):
        renameat2(f"{s}/A", f"{s}/X", RENAME_EXCHANGE)
    write(f"{s}/.s", "s")
    write(f"{s}/.t", "t")
    renameat2(f"{s}/.s", f"{s}/.t", RENAME_EXCHANGE)
    assert read(f"{s}/.s") == b"t" and read(f"{s}/.t") == b"s"
    with fails(errno.EINVAL):
        renameat2(f"{s}/.s", f"{s}/A", RENAME_EXCHANGE)
    with fails(errno.EINVAL):
        renameat2(f"{s}/A", f"{s}/B", 4)  # RENAME_WHITEOUT
    for name in (".s", ".t"):
        os.unlink(f"{s}/{name}")
    check_state(s)


@case
def scratch_files(mount):
    s = new_state(mount, "scratch-rename")
    write(f"{s}/.a", '{ "a": 1 }')
    os.rename(f"{s}/.a", f"{s}/K")
    holds(f"{s}/K", '{"a":1}')
    assert os.listdir(s) == ["K"]
    write(f"{s}/.a", "bad")
    with fails(errno.EINVAL):
        os.rename(f"{s}/.a", f"{s}/K")
    assert reason(s) == "state/K: not JSON at byte 1: expected a value", reason(s)
    for text in ("", "\n", "[1,"):
        write(f"{s}/.b", text)
        with fails(errno.EINVAL):
            os.rename(f"{s}/.b", f"{s}/K")
        assert reason(s).startswith("state/K: not whole"), reason(s)
    holds(f"{s}/K", '{"a":1}')
    os.rename(f"{s}/.a", f"{s}/.b")
    assert read(f"{s}/.b") == b"bad" and sorted(os.listdir(s)) == [".b", "K"]
    os.rename(f"{s}/K", f"{s}/K~")
    is_absent(f"{s}/K")
    assert read(f"{s}/K~") == b'{"a":1}\n' and last_operations(s, 1) == [{"op": "delete", "key": "K"}]
    os.rename(f"{s}/K~", f"{s}/.b")
    assert read(f"{s}/.b") == b'{"a":1}\n' and os.listdir(s) == [".b"]
    os.rename(f"{s}/.b", f"{s}/K")
    holds(f"{s}/K", '{"a":1}')
    assert len(operations(s)) == 3
    with opened(f"{s}/.c", EXCL) as fd:
        os.write(fd, b"gone")
        write(f"{s}/.d", "new")
        os.rename(f"{s}/.d", f"{s}/.c")
        os.write(fd, b" for good")
    assert read(f"{s}/.c") == b"new"
    os.unlink(f"{s}/.c")
    check_state(s)


@case
def elsewhere_not(mount):
    """What lies outside state/ is not renamed, nor is anything moved there."""
    s = new_state(mount, "outside")
    session = session_of(s)
    append(session, b"x\n")
    write(f"{s}/K", "1\n")
    write(f"{s}/.s", "1\n")
    other = new_state(mount, "outside-2")
    for old, new in ((f"{s}/K", f"{session}/K"), (f"{session}/1", f"{s}/1"), (f"{session}/log", f"{s}/.log"),
                     (f"{s}/.s", f"{session}/.s"), (f"{s}/K", f"{mount}/K"), (s, f"{session}/state2"),
                     (f"{session}/append", f"{session}/a"), (session, f"{mount}/sessions/other")):
        with fails(errno.EPERM):
            os.rename(old, new)
    with fails(errno.EXDEV):  # so that mv copies
        os.rename(f"{s}/K", f"{other}/K")
    shutil.move(f"{s}/K", f"{other}/L")
    holds(f"{other}/L", "1")
    is_absent(f"{s}/K")
    os.unlink(f"{s}/.s")
    check_state(s)
    check_state(other)


# ---- open files -----------------------------------------------------------------------------------


@case
def replace_before_close(mount):
    """tempfile and os.replace, before and after close, whole and in pieces, scratch or not."""
    s = new_state(mount, "replace")
    number = 0
    for prefix in ("tmp", ".tmp"):
        for flushed in ("nothing", "half", "all", "newline"):
            for after in (False, True):
                number += 1
                value = {"n": number}
                with tempfile.NamedTemporaryFile("w", dir=s, prefix=prefix, delete=False) as file:
                    text = json.dumps(value)
                    if flushed == "nothing":
                        file.write(text)
                    elif flushed == "half":
                        file.write(text[:4])
                        file.flush()
                        file.write(text[4:])
                    else:
                        file.write(text + ("\n" if flushed == "newline" else ""))
                        file.flush()
                    if not after:
                        before = elsewhere(f"{s}/K")
                        os.chmod(file.name, 0o644)
                        os.replace(file.name, f"{s}/K")
                        if flushed in ("nothing", "half"):
                            assert elsewhere(f"{s}/K") == before, "the old value, until the new one is whole"
                        else:
                            holds(f"{s}/K", json.dumps(value, separators=(",", ":")))
                if after:
                    os.replace(file.name, f"{s}/K")
                holds(f"{s}/K", json.dumps(value, separators=(",", ":")))
                assert os.listdir(s) == ["K"], os.listdir(s)
                check_state(s)


@case
def replace_with_bad(mount):
    s = new_state(mount, "replace-bad")
    write(f"{s}/K", '"old"\n')
    for prefix in ("tmp", ".tmp"):
        file = tempfile.NamedTemporaryFile("w", dir=s, prefix=prefix, delete=False)
        file.write("{bad")
        os.replace(file.name, f"{s}/K")
        with fails(errno.EINVAL):
            file.flush()
        with fails(errno.EINVAL):
            file.close()
        holds(f"{s}/K", '"old"')
        assert os.listdir(s) == ["K"]
    write(f"{s}/.t", "{bad")
    with fails(errno.EINVAL):
        os.replace(f"{s}/.t", f"{s}/K")
    os.unlink(f"{s}/.t")
    fd = os.open(f"{s}/.t", EXCL)
    os.write(fd, b"{bad")
    with fails(errno.EINVAL):  # this can be told now
        os.replace(f"{s}/.t", f"{s}/K")
    os.close(fd)
    assert read(f"{s}/.t") == b"{bad"
    os.unlink(f"{s}/.t")
    holds(f"{s}/K", '"old"')
    assert len(operations(s)) == 1
    check_state(s)


@case
def files_go_with_their_names(mount):
    s = new_state(mount, "open")
    write(f"{s}/A", "[1]\n")
    with opened(f"{s}/A", RW) as writer, opened(f"{s}/A", os.O_RDONLY) as reader:
        os.rename(f"{s}/A", f"{s}/B")
        assert os.pread(reader, 10, 0) == b"[1]\n" and os.pread(writer, 10, 0) == b"[1]\n"
        os.pwrite(writer, b"[2]\n", 0)
        assert os.pread(writer, 10, 0) == b"[2]\n" and os.fstat(writer).st_size == 4
        assert elsewhere(f"{s}/B") == (b"[1]\n", 4)
        flush(writer)
        holds(f"{s}/B", "[2]")
        is_absent(f"{s}/A")
    with opened(f"{s}/B", NEW) as fd:  # begun, and not whole: the old value moves, the new one comes
        os.write(fd, b"[3")
        os.rename(f"{s}/B", f"{s}/C")
        assert elsewhere(f"{s}/C") == (b"[2]\n", 4)
        os.write(fd, b"]\n")
        holds(f"{s}/C", "[3]")
    with opened(f"{s}/C", NEW) as fd:  # to a scratch file: it is one from now on
        os.write(fd, b"[4")
        os.rename(f"{s}/C", f"{s}/C~")
        is_absent(f"{s}/C")
        os.write(fd, b" anything")
    assert read(f"{s}/C~") == b"[4 anything"
    os.unlink(f"{s}/C~")
    write(f"{s}/A", "1\n")
    with opened(f"{s}/A", NEW) as fd:  # its name is given to another file
        write(f"{s}/B", "2\n")
        os.rename(f"{s}/B", f"{s}/A")
        os.write(fd, b"3\n")
    holds(f"{s}/A", "2")
    check_state(s)


@case
def scratch_becomes_a_document(mount):
    """Open scratch files that are renamed to a key obey the rules of documents."""
    s = new_state(mount, "becomes")
    with opened(f"{s}/.s", os.O_RDWR | os.O_CREAT) as one, opened(f"{s}/.s", RW) as two:
        os.write(one, b"[1]")
        os.rename(f"{s}/.s", f"{s}/K")
        holds(f"{s}/K", "[1]")
        with fails(errno.EINVAL):
            os.write(one, b"x")
        os.ftruncate(two, 0)
        os.pwrite(two, b"[2]\n", 0)
        holds(f"{s}/K", "[2]")
        assert os.pread(one, 10, 0) == b"[2]\n"
    fd = os.open(f"{s}/.s", EXCL)
    os.rename(f"{s}/.s", f"{s}/L")
    assert os.fstat(fd).st_nlink == 1
    assert elsewhere(f"{s}/L") is None and os.listdir(s) == ["K"]
    os.write(fd, b"[3]")
    os.close(fd)
    holds(f"{s}/L", "[3]")
    fd = os.open(f"{s}/.s", EXCL)
    os.rename(f"{s}/.s", f"{s}/M")
    os.write(fd, b"[")
    close_fails(fd, errno.EINVAL)
    is_absent(f"{s}/M")
    check_state(s)


@case
def while_others_set(mount):
    """A rename moves what is there at that moment, whoever sets it meanwhile."""
    s = new_state(mount, "race")
    session = session_of(s)
    pid = os.fork()
    if pid == 0:
        for at in range(300):
            append(session, b'{"op":"set","key":"A","value":%d}\n' % at)
        os._exit(0)
    moved = 0
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        try:
            os.rename(f"{s}/A", f"{s}/B")
            moved += 1
        except FileNotFoundError:
            pass
    assert moved, "nothing was moved"
    ops = operations(s)
    for at, fields in enumerate(ops):
        if fields["op"] == "delete":
            assert ops[at - 1]["op"] == "set" and ops[at - 1]["key"] == "B"
            before = [f for f in ops[:at] if f.get("key") == "A" and f["op"] == "set"][-1]
            assert before["value"] == ops[at - 1]["value"], (before, ops[at - 1])
    check_state(s)


if __name__ == "__main__":
    hl.main()
