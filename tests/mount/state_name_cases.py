"""Cases of test_state.sh: names, attributes, scratch files, files that are not set yet. Arguments: MOUNT."""
import errno
import json
import os
import stat
import subprocess
import sys

import hl
from documents import (EXCL, NEW, RW, WRONLY, check_state, elsewhere, file_name, holds, is_absent, last_operations, new_state,
                       opened, operations, reason, session_of, status, write)
from hl import append, case, fails, read, wait_for
from watch import CLOSE_WRITE, CREATE, DELETE, MODIFY, MOVED_FROM, MOVED_TO, Inotify


# ---- names ----------------------------------------------------------------------------------------


@case
def names(mount):
    s = new_state(mount, "names")
    for key in ("a", "ä€😀", "with space", "a/b", "100%", "new\nline", "x" * 255, "/" * 85, "-", "*", "1", "log",
                "a.b", "a~b", "a#b"):
        write(f"{s}/{file_name(key)}", "1\n")
        assert operations(s)[-1]["key"] == key
        holds(f"{s}/{file_name(key)}", "1")
    for name in ("a%2f", "%61", "a%", "%zz", b"\xff", b"a\xc3", "%00"):
        name = os.fsdecode(name)
        with fails(errno.EINVAL):
            write(f"{s}/{name}", "1\n")
        with fails(errno.ENOENT):
            os.stat(f"{s}/{name}")
        with fails(errno.ENOENT):
            os.unlink(f"{s}/{name}")
        with fails(errno.EINVAL):
            os.rename(f"{s}/a", f"{s}/{name}")
    for how in (os.stat, os.unlink, lambda p: write(p, "1\n"), lambda p: os.rename(f"{s}/a", p)):
        with fails(errno.ENAMETOOLONG):
            how(f"{s}/{'y' * 256}")
    check_state(s)


@case
def keys_like_scratch(mount):
    """Operations can set any key; such a document is a document, whatever its name looks like."""
    s = new_state(mount, "odd-keys")
    session = session_of(s)
    write(f"{s}/.hidden", "scratch")
    for key in (".hidden", "#x", "x~", "..", "."):
        append(session, json.dumps({"op": "set", "key": key, "value": key}).encode() + b"\n")
        holds(f"{s}/{file_name(key)}", json.dumps(key))
    assert sorted(os.listdir(s)) == sorted(map(file_name, (".hidden", "#x", "x~", "..", ".")))
    write(f"{s}/.hidden", "2\n")
    holds(f"{s}/.hidden", "2")
    with fails(errno.EINVAL):
        write(f"{s}/#x", "no JSON\n")
    os.unlink(f"{s}/.hidden")
    assert read(f"{s}/.hidden") == b"scratch", "it was behind"
    os.unlink(f"{s}/.hidden")
    check_state(s)


@case
def what_cannot_be_made(mount):
    s = new_state(mount, "made")
    write(f"{s}/K", "1\n")
    for name in ("d", ".d"):
        with fails(errno.EPERM):
            os.mkdir(f"{s}/{name}")
        with fails(errno.EPERM):
            os.symlink("K", f"{s}/{name}")
        with fails(errno.EPERM):
            os.link(f"{s}/K", f"{s}/{name}")
        with fails(errno.EPERM):
            os.mkfifo(f"{s}/{name}")
    with fails(errno.EPERM):
        os.rmdir(s)
    with fails(errno.ENOTDIR):
        os.rmdir(f"{s}/K")
    with fails(errno.EISDIR, errno.EPERM):
        os.unlink(s)
    with fails(errno.EPERM):
        os.rename(s, f"{session_of(s)}/other")
    assert os.listdir(s) == ["K"]


@case
def deleting(mount):
    s = new_state(mount, "deleting")
    path = f"{s}/K"
    with fails(errno.ENOENT):
        os.unlink(path)
    write(path, "[1]\n")
    reader = os.open(path, os.O_RDONLY)
    writer = os.open(path, RW)
    inode = os.fstat(reader).st_ino
    os.unlink(path)
    is_absent(path)
    assert last_operations(s, 1) == [{"op": "delete", "key": "K"}]
    assert os.fstat(reader).st_nlink == 0 and os.fstat(reader).st_size == 4
    assert os.pread(reader, 10, 0) == b"[1]\n", "as with any file that is open"
    os.pwrite(writer, b"[2]\n", 0)
    os.close(writer)
    is_absent(path)
    with fails(errno.ENOENT):
        os.unlink(path)
    write(path, "[3]\n")
    holds(path, "[3]")
    assert os.stat(path).st_ino == inode, "a key has one inode number"
    os.close(reader)
    check_state(s)
    # By an operation: who writes goes on, and sets it again.
    writer = os.open(path, NEW)
    append(session_of(s), b'{"op":"delete","key":"K"}\n')
    is_absent(path)
    os.write(writer, b"[4]\n")
    holds(path, "[4]")
    os.close(writer)


@case
def attributes(mount):
    """Bits are the session's; what is asked of a document's own succeeds and changes nothing."""
    s = new_state(mount, "attributes")
    path = f"{s}/K"
    write(path, "1\n")
    write(f"{s}/.scratch", "x")
    before = os.stat(path)
    for target in (path, f"{s}/.scratch", s):
        os.chmod(target, 0o600)
        os.chown(target, os.getuid(), os.getgid())
        os.utime(target, (1, 1))
    after = os.stat(path)
    for field in ("st_mode", "st_uid", "st_gid", "st_mtime_ns", "st_size", "st_ino"):
        assert getattr(before, field) == getattr(after, field), field
    assert stat.S_IMODE(os.stat(s).st_mode) == 0o755
    for bits in (0o755, 0o700, 0o777, 0o775, 0o711, 0o000):
        os.chmod(session_of(s), bits)
        hl.wait_for(lambda: stat.S_IMODE(os.stat(s).st_mode) == bits, "the bits of state/")
        for target in (path, f"{s}/.scratch"):
            assert stat.S_IMODE(os.stat(target).st_mode) == bits & 0o666, (oct(bits), oct(os.stat(target).st_mode))
    os.chmod(session_of(s), 0o755)
    status = os.stat(s)
    assert stat.S_ISDIR(status.st_mode) and status.st_nlink == 1
    assert len(operations(s)) == 1


@case
def users(mount):
    """For a mount with allow_other: who may write the session's directory may change its documents."""
    s = new_state(mount, "users")
    session = session_of(s)
    write(f"{s}/K", "1\n")

    def all_that_changes():
        return ((write, f"{s}/K", "2\n"), (write, f"{s}/N", "2\n"), (write, f"{s}/.s", "2"), (os.unlink, f"{s}/K"),
                (os.rename, f"{s}/K", f"{s}/L"), (os.truncate, f"{s}/K", 1))

    os.chmod(session, 0o755)
    with hl.as_user(65534):
        assert read(f"{s}/K") == b"1\n" and os.listdir(s) == ["K"]
        for how, *arguments in all_that_changes():
            with fails(errno.EACCES):
                how(*arguments)
    os.chmod(session, 0o700)
    with hl.as_user(65534):
        for how in (os.listdir, os.stat, read):
            with fails(errno.EACCES):
                how(s + ("" if how is os.listdir else "/K"))
    os.chmod(session, 0o777)
    # What is refused is refused at once; what the kernel cached of state/ may refuse for a moment more.
    hl.wait_for(lambda: stat.S_IMODE(os.stat(s).st_mode) == 0o777, "the bits of state/")
    with hl.as_user(65534):
        write(f"{s}/K", "2\n")
        write(f"{s}/.s", "[3]")
        os.rename(f"{s}/.s", f"{s}/K")
        write(f"{s}/N", "2\n")
        os.rename(f"{s}/N", f"{s}/M")
        os.unlink(f"{s}/M")
        fd = os.open(f"{s}/K", WRONLY)
        with fails(errno.EPERM):  # they are not his
            os.chmod(f"{s}/K", 0o600)
    os.chmod(session, 0o755)
    os.pwrite(fd, b"[4]", 0)  # what is open is open
    os.close(fd)
    holds(f"{s}/K", "[4]")
    assert os.stat(f"{s}/K").st_uid == 0
    check_state(s)


@case
def read_only(mount):
    """For a mount with -o ro, after `values`."""
    s = f"{mount}/sessions/values/state"
    check_state(s)
    for how, *arguments in ((write, f"{s}/word", "1\n"), (write, f"{s}/new", "1\n"), (write, f"{s}/.s", "x"),
                            (os.unlink, f"{s}/word"), (os.rename, f"{s}/word", f"{s}/w"), (os.truncate, f"{s}/word", 0),
                            (os.chmod, f"{s}/word", 0o600), (os.mkdir, f"{s}/d")):
        with fails(errno.EROFS):
            how(*arguments)
    check_state(s)


@case
def watched(mount):
    """What is done through files inotify tells once, and the records of it as well."""
    s = new_state(mount, "watched")
    watch = Inotify()
    interesting = CREATE | DELETE | MODIFY | CLOSE_WRITE | MOVED_FROM | MOVED_TO
    in_state = watch.add(s, interesting)
    in_session = watch.add(session_of(s), CREATE)
    write(f"{s}/K", "1\n")
    write(f"{s}/K", "2\n")
    os.rename(f"{s}/K", f"{s}/L")
    write(f"{s}/.s", "3")
    os.rename(f"{s}/.s", f"{s}/K")
    os.unlink(f"{s}/L")
    write(f"{s}/end", "0\n")
    wanted = len(operations(s))
    assert wanted == 7
    events = watch.until(lambda event: event[0] == in_session and event[2] == str(wanted))
    assert [name for who, _, name in events if who == in_session] == [str(n + 1) for n in range(wanted)]
    got = [(mask, name) for who, mask, name in events if who == in_state]
    # Of two changes (O_TRUNC, then write) the kernel makes one unless a record's event came between them.
    got = [event for at, event in enumerate(got) if at == 0 or event[0] != MODIFY or event != got[at - 1]]
    assert got == [(CREATE, "K"), (MODIFY, "K"), (CLOSE_WRITE, "K"),
                   (MODIFY, "K"), (CLOSE_WRITE, "K"),
                   (MOVED_FROM, "K"), (MOVED_TO, "L"),
                   (CREATE, ".s"), (MODIFY, ".s"), (CLOSE_WRITE, ".s"), (MOVED_FROM, ".s"), (MOVED_TO, "K"),
                   (DELETE, "L"),
                   (CREATE, "end"), (MODIFY, "end"), (CLOSE_WRITE, "end")], got
    watch.close()


# ---- files that are not set yet ---------------------------------------------------------------------


@case
def not_set_yet(mount):
    """Who makes a file sees it at once, all others when it is set."""
    s = new_state(mount, "unborn")
    path = f"{s}/K"
    fd = os.open(path, EXCL)
    assert os.stat(path).st_size == 0 and os.fstat(fd).st_ino == os.stat(path).st_ino
    os.chmod(path, 0o640)
    os.utime(path)
    assert elsewhere(path) is None
    assert os.listdir(s) == []
    with fails(errno.EEXIST):
        os.open(path, EXCL)
    with fails(errno.ENOENT):
        os.open(path, os.O_RDONLY)
    other = subprocess.run([sys.executable, "-c", "import os, sys; os.open(sys.argv[1], os.O_CREAT | os.O_EXCL)", path],
                           capture_output=True, check=False)
    assert b"FileExistsError" in other.stderr, other.stderr
    write(path, "[1]\n", WRONLY)  # a second writer
    holds(path, "[1]")
    os.write(fd, b"[2")
    assert elsewhere(path) == (b"[1]\n", 4)
    assert os.fstat(fd).st_size == 2
    os.write(fd, b"]\n")
    os.close(fd)
    holds(path, "[2]")
    fd = os.open(f"{s}/L", EXCL)
    os.write(fd, b"[1")
    os.unlink(f"{s}/L")
    with fails(errno.ENOENT):
        os.stat(f"{s}/L")
    os.write(fd, b"]\n")
    os.close(fd)
    is_absent(f"{s}/L")
    check_state(s)


# ---- scratch files ----------------------------------------------------------------------------------


def all_scratch(mount):
    """But for documents that have such a name, by an operation."""
    return [name for s in os.listdir(f"{mount}/sessions") for name in os.listdir(f"{mount}/sessions/{s}/state")
            if (name[0] in ".#" or name[-1] == "~") and not os.path.exists(f"{mount}/sessions/{s}/history/{name}")]


def taken(mount):
    """By scratch files; those that were removed while they were open count until RELEASE, which comes after close()."""
    now = status(mount)
    return now["scratch_files"], now["scratch_bytes"]


@case
def scratch(mount):
    """Any bytes, at any place, shared by all who open it; listed, never logged."""
    s = new_state(mount, "scratch")
    wait_for(lambda: taken(mount)[0] == len(all_scratch(mount)), "what other cases closed")
    files, size = taken(mount)
    write(f"{s}/K", "1\n")
    blob = bytes(range(256)) * 1000
    for name in (".x", "#x#", "x~", "..%", ".x.swp", b".\xff\xfe", "." + "y" * 254):
        name = os.fsdecode(name)
        write(f"{s}/{name}", blob)
        assert read(f"{s}/{name}") == blob and os.stat(f"{s}/{name}").st_size == len(blob)
        assert elsewhere(f"{s}/{name}") == (blob, len(blob))
        assert name in os.listdir(s)
        with fails(errno.EEXIST):
            os.open(f"{s}/{name}", EXCL)
    assert status(mount)["scratch_files"] == files + 7
    with opened(f"{s}/.x", RW) as one, opened(f"{s}/.x", RW) as two:
        os.pwrite(one, b"one", 10)
        assert os.pread(two, 3, 10) == b"one"
        os.ftruncate(two, 5)
        assert os.fstat(one).st_size == 5 and os.lseek(one, 0, os.SEEK_END) == 5
        os.pwrite(one, b"far", 10000)
        assert os.pread(two, 20000, 0) == blob[:5] + bytes(9995) + b"far"
        os.unlink(f"{s}/.x")
        os.pwrite(one, b"still", 0)
        assert os.pread(two, 5, 0) == b"still" and os.fstat(two).st_nlink == 0
        with opened(f"{s}/.x", EXCL) as third:
            os.write(third, b"another")
        assert os.pread(two, 5, 0) == b"still" and read(f"{s}/.x") == b"another"
    with opened(f"{s}/.x", WRONLY | os.O_APPEND) as one, opened(f"{s}/.x", WRONLY | os.O_APPEND) as two:
        os.write(one, b"1")
        os.write(two, b"2")
        os.write(one, b"3")
    assert read(f"{s}/.x") == b"another123"
    os.truncate(f"{s}/.x", 3)
    assert read(f"{s}/.x") == b"ano"
    write(f"{s}/.x", "new")
    assert read(f"{s}/.x") == b"new"
    for name in set(os.listdir(s)) - {"K"}:
        os.unlink(f"{s}/{name}")
    wait_for(lambda: taken(mount) == (files, size), "the last close")
    assert len(operations(s)) == 1
    check_state(s)


@case
def scratch_is_bounded(mount):
    """For a mount with scratch_max=256K."""
    s = new_state(mount, "bounded")
    assert status(mount)["options"]["scratch_max"] == 256 << 10
    fd = os.open(f"{s}/.x", EXCL)
    written = 0
    with fails(errno.ENOSPC):
        while True:
            written += os.write(fd, b"x" * 10000)
    assert 150 << 10 < written < 256 << 10, written
    assert os.fstat(fd).st_size == written and "scratch_max" in reason(s), reason(s)
    with fails(errno.ENOSPC):
        os.pwrite(fd, b"x", 1 << 40)
    made = 0
    with fails(errno.ENOSPC):
        while True:
            write(f"{s}/.{made}", "")  # an empty one takes some too
            made += 1
    assert made < 1000
    os.close(fd)
    write(f"{s}/K", "[1]\n")  # documents are no scratch files
    holds(f"{s}/K", "[1]")
    with fails(errno.ENOSPC):
        os.rename(f"{s}/K", f"{s}/K~")
    holds(f"{s}/K", "[1]")
    for name in set(os.listdir(s)) - {"K"}:
        os.unlink(f"{s}/{name}")
    wait_for(lambda: status(mount)["scratch_bytes"] == 0, "the last close")
    os.rename(f"{s}/K", f"{s}/K~")
    assert read(f"{s}/K~") == b"[1]\n"
    os.rename(f"{s}/K~", f"{s}/K")
    wait_for(lambda: status(mount)["scratch_bytes"] == 0, "the last close")
    check_state(s)


@case
def leave_scratch(mount):
    s = new_state(mount, "left")
    write(f"{s}/K", "[1]\n")
    for name in (".a", "b~", "#c"):
        write(f"{s}/{name}", "left")


@case
def scratch_is_gone(mount):
    s = f"{mount}/sessions/left/state"
    assert os.listdir(s) == ["K"]
    check_state(s)

if __name__ == "__main__":
    hl.main()
