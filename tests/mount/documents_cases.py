"""history/, archive/, at/, undo and meta: the parts of test_documents.sh that a shell cannot do."""
import errno
import json
import os
import re
import stat
import subprocess
import time

import hl
from hl import case, read


def op(session, *operations):
    """Appends operations in one write, which is one batch; each a dict."""
    hl.append(session, b"".join(json.dumps(o, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
                                for o in operations))


def set_op(key, value):
    return {"op": "set", "key": key, "value": value}


def delete_op(key):
    return {"op": "delete", "key": key}


def last_seq(session):
    return json.loads(read(f"{session}/meta"))["last_seq"]


def line_of(session, seq):
    return read(f"{session}/{seq}")


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def encode(key):
    if key in (".", ".."):
        return key.replace(".", "%2E")
    return "".join("%%%02X" % ord(c) if c in "/%" or ord(c) < 32 or ord(c) == 127 else c for c in key)


def tree(path):
    """What lies in a directory of documents: name to bytes."""
    return {name: read(f"{path}/{name}") for name in os.listdir(path)}


def ctl(mount, command):
    """The result of a command, whether or not it failed."""
    fd = os.open(f"{mount}/.ctl", os.O_RDWR)
    try:
        try:
            os.write(fd, command.encode() + b"\n")
        except OSError as failure:
            result = json.loads(os.read(fd, 1 << 20))
            assert result["errno"] == errno.errorcode[failure.errno], result
            return result
        result = json.loads(os.read(fd, 1 << 20))
        assert result["ok"], result
        return result
    finally:
        os.close(fd)


# ---- history ----------------------------------------------------------------------------------------


@case
def history(mount):
    s = hl.new_session(mount, "history")
    assert os.listdir(f"{s}/history") == []
    op(s, set_op("a", 1), set_op("b", {"x": [1, 2]}))            # 1 2
    hl.append(s, b"an event\n")                                   # 3
    op(s, set_op("a", 2), delete_op("a"), set_op("a", 3))         # 4 5 6
    op(s, {"op": "checkpoint", "state": {"b": 9, "c": "new"}})    # 7
    op(s, {"op": "archive", "name": "old", "keys": ["b"]})        # 8
    op(s, {"op": "undo"})                                         # 9
    want = {"a": [1, 4, 5, 6, 7], "b": [1 + 1, 7, 8, 9], "c": [7]}
    assert sorted(os.listdir(f"{s}/history")) == sorted(want), os.listdir(f"{s}/history")
    for key, seqs in want.items():
        path = f"{s}/history/{key}"
        lines = b"".join(line_of(s, seq) for seq in seqs)
        assert read(path) == lines, (key, read(path))
        st = os.stat(path)
        assert st.st_size == len(lines), (st, len(lines))
        assert stat.S_ISREG(st.st_mode) and stat.S_IMODE(st.st_mode) == 0o444
        assert int(st.st_mtime * 1000) == json.loads(line_of(s, seqs[-1]))["ts_ms"]
        assert st.st_ino == next(e.inode() for e in os.scandir(f"{s}/history") if e.name == key)
    assert "at" not in os.listdir(s) and {"history", "archive"} <= set(os.listdir(s))
    with hl.fails(errno.ENOENT):
        os.stat(f"{s}/history/none")
    for name in ("a", "none"):
        with hl.fails(errno.EPERM, errno.EACCES):
            os.close(os.open(f"{s}/history/{name}", os.O_WRONLY | os.O_CREAT))
    with hl.fails(errno.EPERM):
        os.unlink(f"{s}/history/a")
    with hl.fails(errno.EPERM):
        os.mkdir(f"{s}/history/new")
    with hl.fails(errno.EPERM):
        os.rmdir(f"{s}/history")


@case
def history_by_offset(mount):
    rng = hl.seeded()
    s = hl.new_session(mount, "offsets")
    for n in range(200):
        op(s, set_op("k", "v" * rng.randrange(3000)), set_op("other", n))
    path = f"{s}/history/k"
    whole = b"".join(line_of(s, seq) for seq in range(1, 401, 2))
    assert read(path) == whole
    with open(path, "rb", buffering=0) as file:
        assert file.seek(0, os.SEEK_END) == len(whole)
        for _ in range(300):
            at, size = rng.randrange(len(whole) + 100), rng.randrange(1, 20000)
            assert os.pread(file.fileno(), size, at) == whole[at:at + size], (at, size)
        assert os.pread(file.fileno(), 10, len(whole)) == b""
        # It grows while it is open.
        op(s, set_op("k", "last"))
        whole += line_of(s, last_seq(s))
        assert os.pread(file.fileno(), 1 << 20, len(whole) - 60) == whole[-60:]
        assert os.fstat(file.fileno()).st_size == len(whole)
    tail = subprocess.run(["tail", "-n", "3", path], check=True, capture_output=True).stdout
    assert tail == b"".join(line + b"\n" for line in whole.splitlines()[-3:])


@case
def history_tail(mount):
    s = hl.new_session(mount, "tail")
    op(s, set_op("k", 0))
    process = subprocess.Popen(["tail", "-f", "-n", "+1", "-s", "0.05", f"{s}/history/k"], stdout=subprocess.PIPE)
    try:
        for n in range(1, 30):
            op(s, set_op("k", n), set_op("noise", n))
        op(s, delete_op("k"))
        seqs = [1] + list(range(2, 60, 2)) + [60]
        for seq in seqs:
            assert process.stdout.readline() == line_of(s, seq), seq
    finally:
        process.terminate()
        process.wait()


@case
def names(mount):
    s = hl.new_session(mount, "names")
    keys = ["plain", "a/b", "100%", ".", "..", "...", "x\ny", "\x7f", "日本語", "with blank", "%2F", "-", "~",
            ".hidden", "#x#", "é" * 127, "a" * 255]
    for n, key in enumerate(keys):
        op(s, set_op(key, n))
    op(s, {"op": "archive", "name": "a/r%", "keys": keys[:4]})
    seq = last_seq(s)
    want = {encode(key): compact(n) for n, key in enumerate(keys)}
    assert set(os.listdir(f"{s}/history")) == set(want)
    assert tree(f"{s}/at/{seq - 1}") == want
    assert tree(f"{s}/at/{seq}") == {k: v for k, v in want.items() if k not in [encode(x) for x in keys[:4]]}
    assert os.listdir(f"{s}/archive") == ["a%2Fr%25"]
    assert tree(f"{s}/archive/a%2Fr%25") == {encode(k): want[encode(k)] for k in keys[:4]}
    for name in ("a%2fb", "%61", "%", "%2", "plain%00", "x" * 255):
        for directory in ("history", f"at/{seq}", "archive", "archive/a%2Fr%25"):
            with hl.fails(errno.ENOENT):
                os.stat(f"{s}/{directory}/{name}")
    with hl.fails(errno.ENAMETOOLONG):
        os.stat(f"{s}/history/{'x' * 256}")


# ---- at -----------------------------------------------------------------------------------------------


@case
def at(mount):
    s = hl.new_session(mount, "at")
    op(s, set_op("a", 1))
    op(s, set_op("b", [1, {"c": "d"}]), set_op("a", 2))
    hl.append(s, b"an event\n")
    op(s, delete_op("b"))
    op(s, {"op": "checkpoint", "state": {"z": None}})
    op(s, {"op": "undo"})
    want = [{"a": 1}, {"a": 1, "b": [1, {"c": "d"}]}, {"a": 2, "b": [1, {"c": "d"}]}, {"a": 2, "b": [1, {"c": "d"}]},
            {"a": 2}, {"z": None}, {"a": 2}]
    assert os.listdir(f"{s}/at") == []
    for seq, documents in enumerate(want, 1):
        path = f"{s}/at/{seq}"
        assert tree(path) == {k: compact(v) for k, v in documents.items()}, seq
        for key in "abz":
            assert os.path.exists(f"{path}/{key}") == (key in documents), (seq, key)
    st = os.stat(f"{s}/at/3/a")
    assert st.st_size == 2 and stat.S_IMODE(st.st_mode) == 0o444
    assert int(st.st_mtime * 1000) == json.loads(line_of(s, 3))["ts_ms"]
    assert int(os.stat(f"{s}/at/3").st_mtime * 1000) == json.loads(line_of(s, 3))["ts_ms"]
    # Each is a file of its own, though the value is one.
    inodes = {os.stat(f"{s}/at/{seq}/a").st_ino for seq in (3, 4, 5)}
    assert len(inodes) == 3
    for entry in os.scandir(f"{s}/at/3"):
        assert entry.inode() == entry.stat().st_ino
    # What was read once is the same later, whatever has come since.
    with open(f"{s}/at/2/b", "rb") as file:
        op(s, set_op("b", "later"))
        assert file.read() == compact(want[1]["b"])
    assert tree(f"{s}/at/2") == {k: compact(v) for k, v in want[1].items()}
    for name in ("a", "new"):
        with hl.fails(errno.EPERM, errno.EACCES):
            os.close(os.open(f"{s}/at/3/{name}", os.O_WRONLY | os.O_CREAT))
    with hl.fails(errno.EPERM):
        os.unlink(f"{s}/at/3/a")
    with hl.fails(errno.EPERM):
        os.mkdir(f"{s}/at/1000")
    with hl.fails(errno.EPERM):
        os.rmdir(f"{s}/at/3")


def diff(one, two):
    process = subprocess.run(["diff", "-r", one, two], capture_output=True, text=True, check=False)
    assert process.returncode in (0, 1) and not process.stderr, process
    return process.stdout


@case
def at_diff(mount):
    s = hl.new_session(mount, "diff")
    for n in range(40):
        op(s, set_op(f"k{n % 7}", n))
        if n % 9 == 8:
            op(s, delete_op(f"k{n % 7}"))
    last = last_seq(s)
    assert diff(f"{s}/at/{last}", f"{s}/at/{last}") == ""
    assert diff(f"{s}/at/{last}", f"{s}/state") == ""
    assert diff(f"{s}/at/{last - 1}", f"{s}/at/{last}")
    said = diff(f"{s}/at/9", f"{s}/at/10")  # the tenth record deletes k1
    assert said == f"Only in {s}/at/9: k1\n", said
    said = diff(f"{s}/at/1", f"{s}/at/2")
    assert said == f"Only in {s}/at/2: k1\n", said
    hl.append(s, b"an event\n")
    assert diff(f"{s}/at/{last}", f"{s}/at/{last + 1}") == ""


@case
def at_bounds(mount):
    s = hl.new_session(mount, "bounds")
    for name in ("0", "1", "x", "", "-1", "01", "1-2"):
        if name:
            with hl.fails(errno.ENOENT):
                os.stat(f"{s}/at/{name}")
    op(s, {**set_op("k", 1), "seq": 5}, {**set_op("k", 2), "seq": 9})
    hl.append(s, b'{"seq":%d}\n' % (2**40))
    for seq, want in ((0, {}), (4, {}), (5, {"k": b"1\n"}), (8, {"k": b"1\n"}), (9, {"k": b"2\n"}),
                      (2**40, {"k": b"2\n"})):
        assert tree(f"{s}/at/{seq}") == want, seq
    for seq in (2**40 + 1, 2**53 - 1, 2**53, 2**64, 2**64 + 5):
        with hl.fails(errno.ENOENT):
            os.stat(f"{s}/at/{seq}")
    for name in ("05", "+5", "5 ", "5-", "5/none"):
        with hl.fails(errno.ENOENT):
            os.stat(f"{s}/at/{name}")
    # A seq that was looked for in vain is there as soon as it is given.
    hl.append(s, b'{"seq":%d}\n' % (2**40 + 1))
    assert tree(f"{s}/at/{2**40 + 1}") == {"k": b"2\n"}
    assert json.loads(read(f"{s}/meta"))["history_from"] == 0


# ---- archive --------------------------------------------------------------------------------------------


@case
def archive(mount):
    s = hl.new_session(mount, "archive")
    op(s, {**set_op("old", {"n": 1}), "ts_ms": 1600000000000}, set_op("new", 2), set_op("third", 3))
    op(s, {"op": "archive", "name": "2020", "keys": ["old", "third"], "as": ["old", "renamed"]})
    path = f"{s}/archive/2020"
    assert os.listdir(f"{s}/archive") == ["2020"]
    assert tree(path) == {"old": b'{"n":1}\n', "renamed": b"3\n"}
    st = os.stat(f"{path}/old")
    assert st.st_mtime == 1600000000 and st.st_size == 8 and stat.S_IMODE(st.st_mode) == 0o444, st
    assert {e.name: e.inode() for e in os.scandir(path)} == {n: os.stat(f"{path}/{n}").st_ino for n in os.listdir(path)}
    with open(f"{path}/old", "rb") as held:
        op(s, {"op": "restore", "name": "2020", "keys": ["old"]})
        assert tree(path) == {"renamed": b"3\n"}
        with hl.fails(errno.ENOENT):
            os.stat(f"{path}/old")
        assert held.read() == b'{"n":1}\n'  # as from any file that was moved
    op(s, set_op("renamed", "replaces"), {"op": "archive", "name": "2020", "keys": ["renamed"]})
    assert tree(path) == {"renamed": b'"replaces"\n'}
    op(s, {"op": "archive", "name": "other", "keys": ["new", "old"]})
    assert sorted(os.listdir(f"{s}/archive")) == ["2020", "other"]
    assert tree(f"{s}/archive/other") == {"new": b"2\n", "old": b'{"n":1}\n'}
    assert os.stat(f"{s}/archive/other/old").st_mtime == 1600000000
    op(s, {"op": "undo"})
    assert os.listdir(f"{s}/archive") == ["2020"]  # it had made the other one
    assert tree(f"{s}/at/{last_seq(s)}") == {"new": b"2\n", "old": b'{"n":1}\n'}


@case
def archive_directories(mount):
    s = hl.new_session(mount, "directories")
    os.mkdir(f"{s}/archive/empty")
    assert json.loads(line_of(s, 1))["op"] == "archive" and json.loads(line_of(s, 1))["keys"] == []
    assert os.listdir(f"{s}/archive") == ["empty"] and os.listdir(f"{s}/archive/empty") == []
    assert stat.S_ISDIR(os.stat(f"{s}/archive/empty").st_mode)
    with hl.fails(errno.EEXIST):
        os.mkdir(f"{s}/archive/empty")
    os.rmdir(f"{s}/archive/empty")
    assert json.loads(line_of(s, 2))["op"] == "restore" and last_seq(s) == 2
    assert os.listdir(f"{s}/archive") == []
    with hl.fails(errno.ENOENT):
        os.rmdir(f"{s}/archive/empty")
    for name in ("a%2Fb", "日本", "%2E", "with blank"):
        os.mkdir(f"{s}/archive/{name}")
    assert set(os.listdir(f"{s}/archive")) == {"a%2Fb", "日本", "%2E", "with blank"}
    for name in ("a%2fb", "%", "\x01"):
        with hl.fails(errno.EINVAL):
            os.mkdir(f"{s}/archive/{name}")
    with hl.fails(errno.EINVAL):
        os.mkdir(os.fsencode(f"{s}/archive/") + b"\xff")
    with hl.fails(errno.ENAMETOOLONG):
        os.mkdir(f"{s}/archive/{'x' * 256}")
    op(s, set_op("k", 1), {"op": "archive", "name": "日本", "keys": ["k"]})
    with hl.fails(errno.ENOTEMPTY):
        os.rmdir(f"{s}/archive/日本")
    op(s, {"op": "restore", "name": "日本", "keys": ["k"]})
    os.rmdir(f"{s}/archive/日本")
    with hl.fails(errno.EPERM):
        os.rmdir(f"{s}/archive")
    with hl.fails(errno.EPERM):
        os.mkdir(f"{s}/archive/%2E/below")
    # Removed and made again, it is empty, and another may have come there by an operation meanwhile.
    os.mkdir(f"{s}/archive/日本")
    assert os.listdir(f"{s}/archive/日本") == []
    op(s, {"op": "archive", "name": "by-operation", "keys": []})
    assert "by-operation" in os.listdir(f"{s}/archive")
    os.rmdir(f"{s}/archive/by-operation")


@case
def archive_made_again(mount):
    """What the kernel keeps of a removed directory, as somebody has it open, is not the new one."""
    s = hl.new_session(mount, "made-again")
    op(s, set_op("k", 1), set_op("l", 2))
    os.mkdir(f"{s}/archive/x")
    directory = os.open(f"{s}/archive/x", os.O_RDONLY | os.O_DIRECTORY)
    os.rmdir(f"{s}/archive/x")
    os.mkdir(f"{s}/archive/x")
    os.rename(f"{s}/state/k", f"{s}/archive/x/k")
    assert os.listdir(f"{s}/archive/x") == ["k"] and read(f"{s}/archive/x/k") == b"1\n"
    os.close(directory)
    # A file that was moved there keeps it too, and it may be made again by an operation.
    file = os.open(f"{s}/state/l", os.O_RDONLY)
    os.rename(f"{s}/state/l", f"{s}/archive/x/l")
    op(s, {"op": "restore", "name": "x", "keys": ["k", "l"]})
    os.rmdir(f"{s}/archive/x")
    op(s, {"op": "archive", "name": "x", "keys": ["k", "l"]})
    listed = subprocess.run(["ls", "-l", f"{s}/archive", f"{s}/archive/x"], check=True, capture_output=True, text=True)
    assert listed.stdout.splitlines()[-1].endswith(" l"), listed.stdout
    assert sorted(os.listdir(f"{s}/archive/x")) == ["k", "l"] and read(f"{s}/archive/x/l") == b"2\n"
    os.close(file)


@case
def archive_is_read_only(mount):
    s = hl.new_session(mount, "unchanging")
    op(s, set_op("k", 1), {"op": "archive", "name": "x", "keys": ["k"]})
    path, before = f"{s}/archive/x/k", hl.log_of(s)
    with hl.fails(errno.EPERM):
        os.unlink(path)
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND):
        with hl.fails(errno.EACCES, errno.EPERM):
            os.close(os.open(path, flags))
    with hl.fails(errno.EPERM, errno.EACCES):
        os.truncate(path, 0)
    with hl.fails(errno.EPERM):
        os.close(os.open(f"{s}/archive/x/new", os.O_WRONLY | os.O_CREAT))
    with hl.fails(errno.EPERM):
        os.close(os.open(f"{s}/archive/new", os.O_WRONLY | os.O_CREAT))
    with hl.fails(errno.EPERM):
        os.chmod(path, 0o600)
    with hl.fails(errno.EPERM):
        os.link(path, f"{s}/archive/x/other")
    with hl.fails(errno.EPERM):
        os.symlink("k", f"{s}/archive/x/other")
    process = subprocess.run(["rm", "-rf", f"{s}/archive/x"], capture_output=True, check=False)
    assert process.returncode != 0
    assert read(path) == b"1\n" and hl.log_of(s) == before


@case
def by_age(mount):
    """What was not set for long is found by its time, and archived by mv."""
    s = hl.new_session(mount, "age")
    now = int(time.time() * 1000)
    for n in range(300):
        op(s, {**set_op(f"k{n}", n), "ts_ms": now - (100 if n % 3 else 10) * 86400000})
    before = tree(f"{s}/state")
    os.mkdir(f"{s}/archive/2026-Q1")
    subprocess.run(["find", "state", "-type", "f", "-mtime", "+90", "-exec", "mv", "-t", "archive/2026-Q1", "{}", "+"],
                   check=True, cwd=s)
    assert tree(f"{s}/state") == {f"k{n}": b"%d\n" % n for n in range(0, 300, 3)}
    assert tree(f"{s}/archive/2026-Q1") == {f"k{n}": b"%d\n" % n for n in range(300) if n % 3}
    old = os.stat(f"{s}/archive/2026-Q1/k1")
    assert abs(old.st_mtime * 1000 - now + 100 * 86400000) < 1000, old
    assert read(f"{s}/history/k1").count(b"\n") == 2
    # And back, also under other names.
    subprocess.run("mv archive/2026-Q1/* state/", shell=True, check=True, cwd=s)
    assert tree(f"{s}/state") == before and os.listdir(f"{s}/archive/2026-Q1") == []
    subprocess.run("mv state/k1 archive/2026-Q1/other; rmdir archive/2026-Q1 && exit 1; mv archive/2026-Q1/other state/k2;"
                   "rmdir archive/2026-Q1", shell=True, check=True, cwd=s, stderr=subprocess.DEVNULL)
    assert read(f"{s}/state/k2") == b"1\n" and not os.path.exists(f"{s}/state/k1")
    assert tree(f"{s}/at/{last_seq(s)}") == tree(f"{s}/state")


# ---- all of them ------------------------------------------------------------------------------------------


@case
def permissions(mount):
    s = hl.new_session(mount, "bits", 0o750)
    op(s, set_op("k", 1), set_op("l", 2), {"op": "archive", "name": "x", "keys": ["k"]})
    modes = {0o750: (0o550, 0o750, 0o440), 0o700: (0o500, 0o700, 0o400), 0o777: (0o555, 0o777, 0o444)}
    for mode, (fixed, moved, file) in modes.items():
        os.chmod(s, mode)
        for name, want in (("history", fixed), ("at", fixed), ("at/2", fixed), ("archive", moved), ("archive/x", moved),
                           ("history/k", file), ("at/2/k", file), ("archive/x/k", file)):
            got = hl.wait_for(lambda: (m := stat.S_IMODE(os.stat(f"{s}/{name}").st_mode)) == want and oct(m),
                              f"{name} to have {oct(want)}")
            assert got
    os.chown(s, 1234, 4321)
    for name in ("history", "history/k", "at/2", "at/2/k", "archive", "archive/x", "archive/x/k"):
        st = hl.wait_for(lambda: (st := os.stat(f"{s}/{name}")).st_uid == 1234 and st, name)
        assert st.st_gid == 4321 and st.st_nlink == 1, st


@case
def large(mount):
    rng = hl.seeded()
    s = hl.new_session(mount, "large")
    values = ["x" * size for size in (100, 4000, 131072, 900000)]
    for value in values:
        op(s, set_op("k", value))
    # Longer than one write may be: a line in pieces.
    value = "".join(rng.choice("abcdefgh日\\\"") for _ in range(3 << 20))
    fd = hl.appender(s)
    hl.write_all(fd, json.dumps(set_op("k", value), ensure_ascii=False).encode() + b"\n")
    os.close(fd)
    values.append(value)
    op(s, {"op": "archive", "name": "x", "keys": ["k"]})
    for seq, value in enumerate(values, 1):
        want = json.dumps(value, ensure_ascii=False).encode() + b"\n"
        path = f"{s}/at/{seq}/k"
        assert os.stat(path).st_size == len(want)
        assert read(path) == want
    path = f"{s}/archive/x/k"
    assert read(path) == want and os.stat(path).st_size == len(want)
    with open(path, "rb", buffering=0) as file:
        for _ in range(100):
            offset, size = rng.randrange(len(want) + 10), rng.randrange(1, 300000)
            got = os.pread(file.fileno(), size, offset)
            assert got and got == want[offset:offset + len(got)] or offset >= len(want), (offset, size)
    assert read(f"{s}/history/k") == b"".join(line_of(s, seq) for seq in range(1, len(values) + 2))


@case
def many(mount, count):
    count = int(count)
    s = hl.new_session(mount, "many")
    op(s, {"op": "checkpoint", "state": {f"key-{n}": n for n in range(count)}})
    keys = {f"key-{n}" for n in range(count)}
    assert set(os.listdir(f"{s}/history")) == keys
    assert tree(f"{s}/at/1") == {f"key-{n}": b"%d\n" % n for n in range(count)}
    op(s, {"op": "archive", "name": "x", "keys": sorted(keys)})
    assert sorted(os.listdir(f"{s}/archive/x")) == sorted(keys)
    assert sum(entry.stat().st_size for entry in os.scandir(f"{s}/archive/x")) == sum(
        len(b"%d\n" % n) for n in range(count))
    assert os.listdir(f"{s}/at/2") == []
    # Listed in parts, from where a listing stopped.
    with os.scandir(f"{s}/archive/x") as entries:
        first = [next(entries).name for _ in range(10)]
        op(s, {"op": "restore", "name": "x", "keys": first})
        rest = [entry.name for entry in entries]
    assert len(rest) == len(set(rest)) and keys - set(first) <= set(first) | set(rest)


@case
def meta(mount):
    s = hl.new_session(mount, "meta")

    def counts():
        m = json.loads(read(f"{s}/meta"))
        return m["documents"], m["operations"], m["history_from"]

    assert counts() == (0, 0, 0)
    op(s, set_op("a", 1), set_op("b", 1))
    hl.append(s, b"an event\n")
    assert counts() == (2, 2, 0)
    op(s, delete_op("a"), {"op": "archive", "name": "x", "keys": ["b"]})
    assert counts() == (0, 4, 0)
    op(s, {"op": "undo"})
    assert counts() == (1, 5, 0)


# ---- undo -----------------------------------------------------------------------------------------------


@case
def undo(mount):
    s = hl.new_session(mount, "undone")
    op(s, set_op("a", 1), set_op("b", 1))                                  # 1 2
    op(s, set_op("a", 2))                                                  # 3
    op(s, {"op": "checkpoint", "state": {"b": 5, "c": 5}})                 # 4
    hl.append(s, b"an event\n")                                            # 5
    before = hl.log_of(s)
    result = ctl(mount, "undo undone")                                     # 6
    assert (result["session"], result["seqs"], sorted(result["keys"])) == ("undone", "6", ["a", "b", "c"]), result
    assert tree(f"{s}/at/6") == {"a": b"2\n", "b": b"1\n"}
    assert json.loads(line_of(s, 6))["undone_seq"] == 4
    result = ctl(mount, "undo undone 2")                                   # 7 8
    assert (result["seqs"], sorted(result["keys"])) == ("7-8", ["a", "b"]), result
    assert tree(f"{s}/at/8") == {"a": b"1\n"}
    assert [json.loads(line_of(s, n))["undone_seq"] for n in (7, 8)] == [3, 2]
    assert hl.log_of(s).startswith(before), "an undo changed what was logged"
    # A new one is what is undone next.
    op(s, set_op("a", 7))                                                  # 9
    assert ctl(mount, "undo undone")["keys"] == ["a"]
    assert tree(f"{s}/at/{last_seq(s)}") == {"a": b"1\n"}
    assert read(f"{s}/10-10") == line_of(s, 10)
    listed = [json.loads(line) for line in read(f"{mount}/.ctl").splitlines()]
    assert [r["seqs"] for r in listed if r["command"] == "undo" and r.get("session") == "undone"] == ["6", "7-8", "10"]


@case
def undo_refused(mount):
    s = hl.new_session(mount, "refused")
    for command, code, why in (
            ("undo", "EINVAL", "SESSION"),
            ("undo refused", "EINVAL", "nothing to undo"),
            ("undo refused 0", "EINVAL", "COUNT"),
            ("undo refused x", "EINVAL", "COUNT"),
            ("undo refused 1x", "EINVAL", "COUNT"),
            ("undo refused -1", "EINVAL", "COUNT"),
            ("undo refused 99999999999999999999", "EINVAL", "COUNT"),
            ("undo refused 1 2", "EINVAL", "undo SESSION"),
            ("undo no-such-session", "ENOENT", "no-such-session"),
            ("undo %zz", "EINVAL", "%zz"),
            ("sync refused", "EINVAL", "no argument")):
        result = ctl(mount, command)
        assert not result["ok"] and result["errno"] == code and why in result["error"], (command, result)
    op(s, set_op("a", 1), set_op("a", 2))
    result = ctl(mount, "undo refused 3")
    assert result["errno"] == "EINVAL" and "2" in result["error"], result
    assert last_seq(s) == 2
    ctl(mount, "undo refused 2")
    result = ctl(mount, "undo refused")
    assert result["errno"] == "EINVAL" and "nothing to undo" in result["error"], result
    shell = subprocess.run(["bash", "-c", f"echo undo refused > {mount}/.ctl"], capture_output=True, text=True,
                           check=False)
    assert shell.returncode != 0 and "Invalid argument" in shell.stderr, shell
    helped = ctl(mount, "help")
    assert any(c["name"] == "undo" and c["arguments"] == "SESSION [COUNT]" and c["help"] for c in helped["commands"]), helped


@case
def undo_names(mount):
    for name in ("two words", "a%2Fb", "100%25", "日本"):
        s = hl.new_session(mount, name)
        op(s, set_op("a key/%", 1))
        result = ctl(mount, "undo " + name.replace(" ", "%20"))
        assert result["keys"] == ["a key/%"] and result["seqs"] == "2", result
        assert result["session"] == name.replace("%2F", "/").replace("%25", "%"), result


@case
def undo_many(mount):
    """Keys that do not fit are counted."""
    s = hl.new_session(mount, "wide")
    keys = [f"{n:05}-" + "k" * 200 for n in range(6000)]
    fd = hl.appender(s)
    hl.write_all(fd, json.dumps({"op": "checkpoint", "state": {k: 1 for k in keys}}).encode() + b"\n")
    os.close(fd)
    result = ctl(mount, "undo wide")
    assert set(result["keys"]) <= set(keys) and len(result["keys"]) >= 100
    assert len(result["keys"]) + result["keys_left_out"] == len(keys), result["keys_left_out"]
    assert tree(f"{s}/at/2") == {}
    for n in range(300):
        op(s, set_op("k", n))
    assert ctl(mount, "undo wide 300")["seqs"] == "303-602"


# ---- the whole --------------------------------------------------------------------------------------------


class Model:
    """What the log says, folded as simply as can be."""

    def __init__(self):
        self.state, self.archives, self.stack, self.history, self.past = {}, {}, [], {}, []

    def snapshot(self):
        return dict(self.state), {name: dict(docs) for name, docs in self.archives.items()}

    def touch(self, seq, keys):
        for key in keys:
            if not self.history.setdefault(key, []) or self.history[key][-1] != seq:
                self.history[key].append(seq)

    def apply(self, seq, o):
        kind = o["op"]
        before = self.snapshot()
        touched, made = set(), None
        if kind == "set":
            self.state[o["key"]] = o["value"]
            touched = {o["key"]}
        elif kind == "delete":
            self.state.pop(o["key"], None)
            touched = {o["key"]}
        elif kind == "checkpoint":
            touched = set(self.state) | set(o["state"])
            self.state = dict(o["state"])
        elif kind == "archive":
            made = o["name"] if o["name"] not in self.archives else None
            into = self.archives.setdefault(o["name"], {})
            for key in o["keys"]:
                into[key] = self.state.pop(key)
            touched = set(o["keys"])
        elif kind == "restore":
            for key in o["keys"]:
                self.state[key] = self.archives[o["name"]].pop(key)
            touched = set(o["keys"])
            if not o["keys"]:
                del self.archives[o["name"]]
        elif kind == "undo":
            (state, archives), touched, made = self.stack.pop()
            # An archive that it made goes; one that was removed since comes back with what was in it.
            names = (set(self.archives) - {made}) | {n for n, docs in archives.items() if docs}
            self.state, self.archives = dict(state), {n: dict(archives.get(n, {})) for n in names}
            self.touch(seq, touched)
            self.past.append((seq, dict(self.state)))
            return
        if kind not in ("archive", "restore") or o["keys"]:  # making and removing archives cannot be undone
            self.stack.append((before, touched, made))
        self.touch(seq, touched)
        self.past.append((seq, dict(self.state)))

    def random(self, rng):
        keys = [f"k{n}" for n in range(8)]
        kind = rng.choice(["set"] * 8 + ["delete"] * 3 + ["checkpoint", "archive", "archive", "restore", "restore", "undo",
                                                          "undo", "undo"])
        if kind == "set":
            return set_op(rng.choice(keys), rng.choice([rng.randrange(1000), "text" * rng.randrange(9), {"a": [1]}, None]))
        if kind == "delete" and self.state:
            return delete_op(rng.choice(sorted(self.state)))
        if kind == "checkpoint":
            return {"op": kind, "state": {k: rng.randrange(99) for k in rng.sample(keys, rng.randrange(5))}}
        if kind == "archive":
            some = sorted(self.state)
            return {"op": kind, "name": rng.choice("xyz"), "keys": rng.sample(some, rng.randrange(min(len(some), 3) + 1))}
        if kind == "restore" and self.archives:
            name = rng.choice(sorted(self.archives))
            there = sorted(self.archives[name])
            return {"op": kind, "name": name, "keys": rng.sample(there, rng.randrange(1, len(there) + 1)) if there else []}
        if kind == "undo" and self.stack:
            return {"op": kind}
        return set_op("k0", 0)


def check_model(s, model, rng):
    assert set(os.listdir(f"{s}/history")) == set(model.history)
    for key, seqs in model.history.items():
        assert read(f"{s}/history/{key}") == b"".join(line_of(s, seq) for seq in seqs), (key, seqs)
    archives = {name: {k: compact(v) for k, v in docs.items()} for name, docs in model.archives.items()}
    assert {name: tree(f"{s}/archive/{name}") for name in os.listdir(f"{s}/archive")} == archives
    for seq, state in rng.sample(model.past, min(len(model.past), 20)) + model.past[-1:]:
        assert tree(f"{s}/at/{seq}") == {k: compact(v) for k, v in state.items()}, seq


@case
def random_operations(mount, store, steps):
    rng, model = hl.seeded(), Model()
    s = hl.new_session(mount, "random")
    seq = 0
    for step in range(int(steps)):
        batch = []
        for _ in range(rng.choice([1, 1, 1, 2, 5])):
            operation = model.random(rng)
            seq += 1
            model.apply(seq, operation)
            batch.append(operation)
        op(s, *batch)
        if rng.random() < 0.05:
            with open(f"{mount}/.ctl", "w") as file:
                file.write(rng.choice(["checkpoint", "rotate", "reindex"]) + "\n")
        if step % 25 == 0:
            check_model(s, model, rng)
    check_model(s, model, rng)


# ---- after a remount ----------------------------------------------------------------------------------------


def sessions_of(mount):
    return [name for name in os.listdir(f"{mount}/sessions") if name not in ("large", "wide")]


def picture(mount):
    found = {}
    for name in sessions_of(mount):
        s = f"{mount}/sessions/{name}"
        last = last_seq(s)
        found[name] = {
            "history": {k: v.decode() for k, v in tree(f"{s}/history").items()},
            "archive": {n: {k: v.decode() for k, v in tree(f"{s}/archive/{n}").items()}
                        for n in os.listdir(f"{s}/archive")},
            "inodes": {n: os.stat(f"{s}/archive/{n}").st_ino for n in os.listdir(f"{s}/archive")},
            "at": {seq: {k: v.decode() for k, v in tree(f"{s}/at/{seq}").items()}
                   for seq in ((last, last // 2) if last is not None else ())},
        }
    return json.loads(json.dumps(found))


@case
def remember(mount, file):
    with open(file, "w") as out:
        json.dump(picture(mount), out)


@case
def compare(mount, file):
    with open(file) as kept:
        want = json.load(kept)
    got = picture(mount)
    assert set(got) == set(want) and len(want) > 10
    for name in want:
        assert got[name] == want[name], (name, got[name], want[name])
    # Undo goes on where it stood.
    s = f"{mount}/sessions/undone"
    op(s, set_op("a", "before"))
    op(s, set_op("a", "after"))
    ctl(mount, "undo undone")
    assert tree(f"{s}/at/{last_seq(s)}")["a"] == b'"before"\n'


@case
def beside(writer, reader):
    name = f"beside-{os.getpid()}"
    s = hl.new_session(writer, name)
    r = f"{reader}/sessions/{name}"
    for n in range(50):
        op(s, set_op("k", n), set_op(f"k{n % 5}", n))
        hl.wait_for(lambda: os.path.exists(f"{r}/at/{2 * n + 2}"), "the reader to see it")
        assert tree(f"{r}/at/{2 * n + 2}") == tree(f"{s}/at/{2 * n + 2}")
        assert read(f"{r}/history/k") == read(f"{s}/history/k")
    os.mkdir(f"{s}/archive/x")
    op(s, {"op": "archive", "name": "x", "keys": ["k"]})
    hl.wait_for(lambda: os.path.exists(f"{r}/archive/x/k"), "the reader to see the archive")
    assert tree(f"{r}/archive/x") == {"k": b"49\n"}
    with hl.fails(errno.EROFS):
        os.mkdir(f"{r}/archive/y")
    with hl.fails(errno.EROFS):
        os.rmdir(f"{r}/archive/x")
    with hl.fails(errno.EROFS):
        os.unlink(f"{r}/archive/x/k")
    result = ctl(reader, f"undo {name}")
    assert result["errno"] == "EROFS", result


if __name__ == "__main__":
    hl.main()
