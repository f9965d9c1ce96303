"""Cases of test_keep.sh: what the mount shows of records that are dropped. Arguments: MOUNT, often a second mount
that shows the same store (MOUNT itself, or a read-only one beside it)."""
import contextlib
import errno
import json
import os
import select
import signal
import subprocess
import threading
import time

import hl
import watch
from hl import case, fails, new_session, read, wait_for

GONE = (errno.ENOENT, errno.ESTALE)


def ctl(mount, command):
    """Runs a command, whose result it returns."""
    fd = os.open(f"{mount}/.ctl", os.O_RDWR)
    try:
        os.write(fd, command.encode() + b"\n")
        return json.loads(os.read(fd, 1 << 16))
    finally:
        os.close(fd)


def fill(session, first, last, pad=0):
    for seq in range(first, last + 1, 200):
        lines = b"".join(b'{"n":%d,"p":"%s"}\n' % (n, b"x" * pad) for n in range(seq, min(seq + 199, last) + 1))
        hl.append(session, lines)


def seqs(data):
    return [json.loads(line)["seq"] for line in data.split(b"\n") if line]


def seen_by(other, session):
    """The session's directory on the other mount, when that shows it as the first one does."""
    name = os.path.basename(session)
    path = f"{other}/sessions/{name}"

    def same():
        with contextlib.suppress(OSError):
            return read(f"{path}/meta") == read(f"{session}/meta")

    wait_for(same, "the other mount")
    return path


@contextlib.contextmanager
def file(path, flags=os.O_RDONLY):
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def lines_in(path):
    """The whole lines that a program wrote so far."""
    return read(path).split(b"\n")[:-1]


@contextlib.contextmanager
def running(*command, out):
    with open(out, "wb") as to, subprocess.Popen(command, stdout=to, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


# ---- trim -------------------------------------------------------------------------------------------


@case
def trim_shows(mount, other):
    """Names, attributes that the kernel has kept, sizes, ranges, meta, seqs."""
    s = new_session(mount, "shows")
    fill(s, 1, 300)
    hl.append(s, b'{"op":"set","key":"k","value":1}\n')
    fill(s, 302, 400)
    o = seen_by(other, s)
    whole = read(f"{s}/log")
    for path in (s, o):
        for name in ("1", "250", "1-20", "240-260", "260-300", "250-"):
            os.stat(f"{path}/{name}")
            read(f"{path}/{name}")
    inode = os.stat(f"{s}/log").st_ino
    result = ctl(mount, "trim shows 250")
    assert result["records"] == 249, result
    kept = b"".join(line + b"\n" for line in whole.split(b"\n") if line and json.loads(line)["seq"] >= 250)
    assert result["bytes"] == len(whole) - len(kept), result
    expected = [(name, os.stat(f"{s}/{name}").st_size) for name in ("1-20", "240-260", "260-300", "250-")]
    assert os.stat(f"{s}/log").st_ino != inode
    assert sorted(int(n) for n in os.listdir(s) if n.isdigit()) == list(range(250, 401))
    o = seen_by(other, s)
    if o != s:  # there the kernel asks again after a second, also for what inotify was told of
        wait_for(lambda: not any(os.path.exists(f"{o}/{seq}") for seq in range(1, 250)) and
                 all(os.stat(f"{o}/{name}").st_size == size for name, size in expected), "the kernel of the other")
    for path in (s, o):
        for seq in (1, 7, 249):
            with fails(errno.ENOENT, about=f": stat {path}/{seq}"):
                os.stat(f"{path}/{seq}")
            with fails(errno.ENOENT, about=f": read {path}/{seq}"):
                read(f"{path}/{seq}")
        assert read(f"{path}/log") == kept and os.stat(f"{path}/log").st_size == len(kept)
        assert read(f"{path}/1-20") == b"" and os.stat(f"{path}/1-20").st_size == 0
        assert seqs(read(f"{path}/240-260")) == list(range(250, 261))
        assert seqs(read(f"{path}/260-300")) == list(range(260, 301))
        assert seqs(read(f"{path}/250-")) == list(range(250, 401))
        assert read(f"{path}/state/k") == b"1\n"
        meta = json.loads(read(f"{path}/meta"))
        assert (meta["first_seq"], meta["last_seq"], meta["records"], meta["bytes"]) == (250, 400, 151, len(kept))
    with fails(errno.EEXIST):
        hl.append(s, b'{"seq":7,"n":7}\n')
    assert ctl(mount, "trim shows 250")["records"] == 0
    # An operation stays, and nothing that is appended later goes.
    assert ctl(mount, "trim shows 99999999")["records"] == 150
    hl.append(s, b'{"n":401}\n')
    assert seqs(read(f"{s}/log")) == [301, 401]
    assert seqs(read(f"{seen_by(other, s)}/log")) == [301, 401]


@case
def open_files(mount):
    """What holds a file of dropped records open reads it to its end, or fails: never other bytes."""
    s = new_session(mount, "open")
    big = b'{"n":2,"p":"%s"}\n' % (b"y" * 600000)
    hl.append(s, b'{"n":1}\n' + big)
    fill(s, 3, 50)
    one, two = read(f"{s}/1"), read(f"{s}/2")
    with file(f"{s}/1") as small, file(f"{s}/2") as large, file(f"{s}/2") as begun, file(f"{s}/1-9") as part, \
            file(f"{s}/20-30") as untouched:
        want = read(f"{s}/20-30")
        assert os.pread(begun, 300000, 0) == two[:300000]
        ctl(mount, "trim open 10")
        for fd, whole in ((small, one), (large, two), (begun, two), (part, b""), (untouched, want)):
            at = 0
            try:
                while piece := os.pread(fd, 1 << 17, at):
                    assert piece == whole[at:at + len(piece)], at
                    at += len(piece)
            except OSError as error:
                assert error.errno in (errno.EIO, errno.ESTALE), error


@case
def reads_on(mount):
    """A handle on the old log: it goes on with the next record, never shrinks, and cannot seek."""
    s = new_session(mount, "readson")
    fill(s, 1, 100)
    whole = read(f"{s}/log")
    with file(f"{s}/log") as fd, file(f"{s}/log") as at_end, file(f"{s}/log") as fresh, file(f"{s}/20-") as ranged:
        got = os.read(fd, 1000)
        cut = got[got.rfind(b"\n") + 1:]
        assert cut
        first = seqs(got[:len(got) - len(cut)])[-1] + 1  # the one that was read in part
        assert os.lseek(at_end, 0, os.SEEK_END) == len(whole)
        ranged_first = os.read(ranged, 10)
        ctl(mount, f"trim readson {first + 30}")
        for handle in (fd, at_end, fresh):
            assert os.fstat(handle).st_size >= len(whole)
        assert os.stat(f"{s}/log").st_size < len(whole)
        rest = os.read(fd, 1 << 16)
        assert rest.startswith(b"\n{"), rest[:50]
        assert seqs(rest) == list(range(first + 30, 101))
        assert os.read(at_end, 100) == b"" and os.fstat(at_end).st_size == len(whole)
        with fails(errno.ESTALE):
            os.pread(fd, 10, 5)
        hl.append(s, b'{"n":101}\n')
        for handle in (fd, at_end):
            assert os.fstat(handle).st_size > len(whole)
            assert seqs(os.read(handle, 1 << 16)) == [101]
        assert seqs(os.read(fresh, 1 << 16)) == list(range(first + 30, 102))
        more = ranged_first + os.read(ranged, 1 << 16)
        assert more.startswith(ranged_first + b"\n") and seqs(more[len(ranged_first):]) == list(range(first + 30, 102))


@case
def read_ahead_ends(mount, *commands):
    """What the daemon has read before it was asked for is not given when it was dropped meanwhile."""
    size = 1 << 16
    for command in commands:
        s = new_session(mount, f"ahead{command}")
        fill(s, 1, 2000, 200)
        with file(f"{s}/log") as fd:
            got = b"".join(os.read(fd, size) for _ in range(4))
            assert len(got) == 4 * size
            cut = got[got.rfind(b"\n") + 1:]
            first = seqs(got[:len(got) - len(cut)])[-1] + 1  # the one that is read next, or its rest
            below = first + 50
            if command == "delete":
                ctl(mount, "delete aheaddelete")
                if cut:
                    assert os.read(fd, size) == b"\n"
                with fails(errno.ESTALE):
                    os.read(fd, size)
                continue
            ctl(mount, f"trim ahead{command} {below}")
            if command == "rewritten":  # and the index made anew, which knows nothing of what was lost
                ctl(mount, "compact")
                ctl(mount, "reindex")
            rest = os.read(fd, size)
            assert rest.startswith(b"\n{" if cut else b"{"), rest[:50]
            lines = rest[1 if cut else 0:]
            assert seqs(lines[:lines.rfind(b"\n") + 1])[0] == below
            after = b"".join(iter(lambda: os.read(fd, size), b""))
            assert seqs(lines + after) == list(range(below, 2001))


@case
def tail_reads_on(mount, other):
    """tail -f of a session's log and of the root's, while records are dropped behind it and segments rewritten."""
    s = new_session(mount, "tailed")
    fill(s, 1, 10, 300)
    o = seen_by(other, s)
    base = os.environ["T_DIR"] + "/tail"
    count = int(os.environ.get("ROUNDS", "12"))
    with running("tail", "-c", "+1", "-s", "0.05", "-f", f"{o}/log", out=base) as one, \
            running("tail", "-n", "0", "-s", "0.05", "-f", f"{other}/log", out=base + ".root") as root:
        wait_for(lambda: len(lines_in(base)) == 10, "tail's first lines")
        last = 10

        def root_tail_began():
            nonlocal last
            last += 1
            fill(s, last, last, 300)
            return bool(lines_in(base + ".root"))

        wait_for(root_tail_began, "tail of the root's log")
        root_first = seqs(lines_in(base + ".root")[0])[0]
        for _ in range(count):
            fill(s, last + 1, last + 150, 300)
            last += 150
            wait_for(lambda: len(lines_in(base)) == last, "tail")
            wait_for(lambda: len(lines_in(base + ".root")) == last - root_first + 1, "tail of the root's log")
            ctl(mount, f"trim tailed {last - 20}")
            ctl(mount, "compact")
        fill(s, last + 1, last + 5, 300)
        last += 5
        wait_for(lambda: len(lines_in(base)) >= last, "tail")
        wait_for(lambda: len(lines_in(base + ".root")) >= last - root_first + 1, "tail of the root's log")
        assert one.poll() is None and root.poll() is None
        for process in (one, root):
            process.send_signal(signal.SIGTERM)
            said = process.stderr.read()
            assert said == b"", said
    assert seqs(read(base)) == list(range(1, last + 1))
    assert seqs(read(base + ".root")) == list(range(root_first, last + 1))


@case
def readers_at_work(mount):
    """Readers of log, A- and follow while a writer appends and a trimmer drops: what they get ascends, whole lines, and
    what they miss was dropped."""
    s = new_session(mount, "work")
    rng = hl.seeded()
    fill(s, 1, 500)
    stop, failures, dropped = threading.Event(), [], [1]
    opened = threading.Barrier(5)

    def reader(name, wait):
        try:
            with file(f"{s}/{name}", os.O_RDONLY | (os.O_NONBLOCK if wait else 0)) as fd:
                data, last = b"", 0
                opened.wait()
                while True:
                    over = stop.is_set()
                    try:
                        piece = os.read(fd, rng.choice((100, 5000, 1 << 16)))
                    except BlockingIOError:
                        piece = b""
                    data += piece
                    *lines, data = data.split(b"\n")
                    for line in lines:
                        try:
                            seq = json.loads(line)["seq"]
                        except (json.JSONDecodeError, KeyError):
                            assert line == b"" or line.startswith(b"{"), line  # of one that was dropped under it
                            continue
                        assert seq > last, (seq, last)
                        assert seq == last + 1 or last == 0 or seq <= dropped[0], (name, last, seq, dropped)
                        last = seq
                    if not piece and over:
                        assert last == final[0], (name, last, final)
                        return
        except BaseException as failure:
            failures.append(f"{name}: {failure!r}")
            opened.abort()

    final = [0]
    threads = [threading.Thread(target=reader, args=a) for a in (("log", False), ("log", False), ("3-", False),
                                                                   ("follow", True))]
    for thread in threads:
        thread.start()
    with contextlib.suppress(threading.BrokenBarrierError):
        opened.wait()
    last = 500
    end = time.monotonic() + float(os.environ.get("SECONDS_AT_WORK", "4"))
    while time.monotonic() < end:
        count = rng.randrange(1, 200)
        fill(s, last + 1, last + count)
        last += count
        if rng.random() < 0.4:
            below = rng.randrange(dropped[0], last + 1)
            dropped[0] = below
            ctl(mount, f"trim work {below}")
        if rng.random() < 0.1:
            ctl(mount, rng.choice(("rotate", "compact", "compact work")))
    final[0] = last
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures, failures


# ---- delete -----------------------------------------------------------------------------------------


@case
def deleted(mount, other):
    """All of it is gone at once, for other users too; open files end; the name can be used again."""
    s = new_session(mount, "doomed")
    fill(s, 1, 200)
    hl.append(s, b'{"op":"set","key":"k","value":1}\n')
    o = seen_by(other, s)
    names = ("", "/log", "/1", "/meta", "/state", "/state/k", "/history/k", "/at/201/k", "/5-9", "/append", "/last_error")
    with hl.as_user(12345):
        for name in names:
            with contextlib.suppress(PermissionError):
                os.stat(f"{s}{name}")
    for path in (s, o):
        for name in names:
            os.stat(f"{path}{name}")
    inotify = watch.Inotify()
    inotify.add(f"{mount}/sessions", watch.CREATE | watch.DELETE)
    cwd = os.open(s, os.O_RDONLY)
    with file(f"{s}/append", os.O_WRONLY) as append, file(f"{s}/log") as log, file(f"{s}/1") as record, \
            file(f"{s}/follow") as follow, file(f"{o}/follow") as other_follow, \
            file(f"{s}/state/.scratch", os.O_RDWR | os.O_CREAT):
        poll = select.poll()
        poll.register(follow, select.POLLIN)
        assert poll.poll(0) == []
        waiting = threading.Thread(target=lambda: ends.append(os.read(other_follow, 100)))
        ends = []
        waiting.start()
        result = ctl(mount, "delete doomed")
        assert result["records"] == 201, result
        assert poll.poll(180000) != []
        assert os.read(follow, 100) == b""
        waiting.join(180)
        assert ends == [b""], ends
        with fails(*GONE):
            os.write(append, b'{"n":1}\n')
        with fails(*GONE):
            os.read(log, 100)
        with contextlib.suppress(OSError):
            assert os.pread(record, 100, 0).startswith(b'{"session_id":"doomed","seq":1,')
        for who in (0, 12345):
            with hl.as_user(who) if who else contextlib.nullcontext():
                for name in names:
                    with fails(errno.ENOENT):
                        os.stat(f"{s}{name}")
        with fails(*GONE):
            os.stat("log", dir_fd=cwd)
        with fails(*GONE):
            os.listdir(cwd)
        assert "doomed" not in os.listdir(f"{mount}/sessions")
    os.close(cwd)
    if o != s:
        wait_for(lambda: not os.path.exists(o), "the other mount")
    inotify.until(lambda event: event[1] & watch.DELETE and event[2] == "doomed")
    wait_for(lambda: json.loads(read(f"{mount}/.status"))["scratch_files"] == 0, "the last close of a scratch file")
    # Again, by root append and by mkdir.
    for make in (lambda: hl.append(mount, b'{"session_id":"doomed","n":1}\n'), lambda: os.mkdir(s)):
        make()
        inotify.until(lambda event: event[1] & watch.CREATE and event[2] == "doomed")
        inotify.add(s, watch.CREATE | watch.MODIFY)
        hl.append(s, b'{"n":2}\n')
        inotify.until(lambda event: event[1] & watch.CREATE and event[2].isdigit())
        assert seqs(read(f"{s}/log"))[0] == 1 and not os.listdir(f"{s}/state")
        assert seqs(read(f"{seen_by(other, s)}/log"))[0] == 1
        ctl(mount, "delete doomed")
        inotify.until(lambda event: event[1] & watch.DELETE and event[2] == "doomed")
        with fails(errno.ENOENT):
            os.stat(s)
    inotify.close()


@case
def rmdir(mount):
    """A session without records or documents is removed; one with them is not."""
    s = new_session(mount, "empty")
    number = json.loads(read(f"{s}/meta"))["number"]
    os.stat(f"{s}/log")
    os.rmdir(s)
    with fails(errno.ENOENT):
        os.stat(s)
    with fails(errno.ENOENT):
        os.rmdir(s)
    os.mkdir(s)
    assert json.loads(read(f"{s}/meta"))["number"] > number
    fill(s, 1, 1)
    with fails(errno.ENOTEMPTY):
        os.rmdir(s)
    ctl(mount, "trim empty 2")
    os.rmdir(s)
    os.mkdir(s)
    with open(f"{s}/state/k", "w") as to:
        to.write("1\n")
    os.unlink(f"{s}/state/k")
    with fails(errno.ENOTEMPTY):
        os.rmdir(s)


# ---- commands ---------------------------------------------------------------------------------------


@case
def bad_commands(mount):
    new_session(mount, "bad")
    for command, code in (("trim", errno.EINVAL), ("trim bad", errno.EINVAL), ("trim bad x", errno.EINVAL),
                          ("trim bad -1", errno.EINVAL), ("trim bad 1 2", errno.EINVAL), ("trim nobody 1", errno.ENOENT),
                          ("delete", errno.EINVAL), ("delete nobody", errno.ENOENT), ("delete bad bad", errno.EINVAL),
                          ("compact nobody", errno.ENOENT), ("compact all all", errno.EINVAL)):
        with fails(code):
            ctl(mount, command)
    last = json.loads(read(f"{mount}/.ctl").strip().split(b"\n")[-1])
    assert last["command"] == "compact" and not last["ok"] and last["error"], last


@case
def read_only_refuses(mount, other):
    new_session(mount, "kept")
    seen_by(other, f"{mount}/sessions/kept")
    for command in ("trim kept 1", "delete kept", "compact"):
        with fails(errno.EROFS):
            ctl(other, command)
    with fails(errno.EROFS):
        os.rmdir(f"{other}/sessions/kept")


def holders(directory, marker):
    """The files below the directory that hold these bytes."""
    found = []
    for top, _, names in os.walk(directory):
        found += [path for name in names if marker in read(path := f"{top}/{name}")]
    return found


@case
def erased(mount, directory):
    """No file below DIR holds a byte of it, wherever it was; all else is as it was."""
    s, other = new_session(mount, "secret"), new_session(mount, "public")
    marker = b"mArKeR-of-the-secret"
    for i in range(4):
        hl.append(s, b'{"payload":"%s"}\n' % marker * 50)
        hl.append(s, b'{"op":"set","key":"k%d","value":"%s"}\n' % (i, marker))
        fill(other, i * 100 + 1, i * 100 + 100)
        ctl(mount, ("rotate", "checkpoint", "snapshot before", "trim secret 30")[i])
        ctl(mount, "compact")
    os.setxattr(s, "user.note", marker)
    assert holders(directory, marker)
    want = read(f"{other}/log")
    result = ctl(mount, "erase secret")
    assert result["ok"] and result["session"] == "secret", result
    assert holders(directory, marker) == [], holders(directory, marker)
    with fails(errno.ENOENT):
        os.stat(s)
    assert read(f"{other}/log") == want
    assert b"secret" not in read(f"{mount}/log")
    verified = ctl(mount, "verify")
    assert verified["damaged_gaps"] + verified["index_missing"] + verified["index_dangling"] == 0, verified
    with fails(errno.ENOENT):
        ctl(mount, "erase secret")
    with fails(errno.ENOENT):
        ctl(mount, "erase secret 4000000000")
    refused = read(f"{mount}/.ctl").decode()
    assert "there is no such session" in refused and "may be left" not in refused, refused
    assert ctl(mount, f"erase secret {result['number']}")["records"] == 0
    with fails(errno.EINVAL):
        ctl(mount, f"erase public {json.loads(read(f'{other}/meta'))['number']}")


@case
def retained(mount):
    """Rules are shown, set, applied by the scheduler, removed; other sessions are left alone."""
    s, other = new_session(mount, "rule"), new_session(mount, "norule")
    fill(s, 1, 500)
    fill(other, 1, 500)
    assert ctl(mount, "retain rule")["rule"] is None
    assert ctl(mount, "retain rule age=30d bytes=1G count=100000")["rule"] == {
        "age_ms": 30 * 86400000, "count": 100000, "bytes": 1 << 30}
    for bad in ("age=x", "count=1 count=2", "much=1", "off count=1", "count=", "30d"):
        with fails(errno.EINVAL):
            ctl(mount, f"retain rule {bad}")
    with fails(errno.EINVAL):
        ctl(mount, "retain")
    with file(f"{s}/log") as log:
        assert seqs(os.read(log, 1 << 20)) == list(range(1, 501))
        assert ctl(mount, "retain rule count=20")["rule"] == {"count": 20}
        wait_for(lambda: json.loads(read(f"{s}/meta"))["records"] == 20, "the scheduler")
        # No command waits until the kernel was told of this one.
        wait_for(lambda: not os.path.exists(f"{s}/480"), "what the kernel cached of a dropped record")
        assert os.fstat(log).st_size > os.stat(f"{s}/log").st_size
        hl.append(s, b'{"n":501}\n')
        assert seqs(os.read(log, 1 << 20)) == [501]
    assert seqs(read(f"{s}/log"))[-1] == 501 and seqs(read(f"{other}/log")) == list(range(1, 501))
    assert ctl(mount, "retain rule off")["rule"] is None
    status = json.loads(read(f"{mount}/.status"))
    assert status["compact_next_ms"] > 0 and status["compact_error"] is None and not status["retain_suspended"], status


@case
def snapshots_of_drops(mount, directory):
    """Four writers, each trimmed and all compacted while snapshots are taken: prints what each must hold."""
    rng, stop, failures = hl.seeded(), threading.Event(), []
    sessions = [new_session(mount, f"w{i}") for i in range(4)]
    last, below = [0] * 4, [1] * 4

    def writer(i):
        try:
            while not stop.is_set():
                fill(sessions[i], last[i] + 1, last[i] + 50, 100)
                last[i] += 50
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=writer, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    try:
        for round_ in range(4):
            for i in range(4):
                wait_for(lambda i=i: last[i] > below[i] + 200, "the writers")
                below[i] = rng.randrange(below[i], last[i])
                ctl(mount, f"trim w{i} {below[i]}")
            if round_ % 2:
                ctl(mount, "compact")
            before = list(last)
            ctl(mount, f"snapshot of{round_}")
            with open(f"{directory}/told{round_}", "w", encoding="ascii") as to:
                json.dump({"below": below, "before": before, "after": list(last)}, to)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures


@case
def snapshot_holds(mount, told):
    """A mounted snapshot has of each session what was there and not dropped when it was taken, without a gap."""
    want = json.loads(read(told))
    for i in range(4):
        got = seqs(read(f"{mount}/sessions/w{i}/log"))
        assert got == list(range(want["below"][i], got[-1] + 1)), (i, got[:3], got[-3:], want)
        assert want["before"][i] <= got[-1] <= want["after"][i] + 50, (i, got[-1], want)
        assert not os.path.exists(f"{mount}/sessions/w{i}/{want['below'][i] - 1}")
    verified = ctl(mount, "verify")
    assert verified["damaged_gaps"] + verified["index_missing"] + verified["index_dangling"] == 0, verified


@case
def full_disk(mount, disk):
    """Appends are ENOSPC, all can be read, a compaction makes room or says why not, and all heals without a remount."""
    s = new_session(mount, "full")
    fill(s, 1, 20000, 100)
    ctl(mount, "rotate")
    ballast = os.open(f"{disk}/ballast", os.O_WRONLY | os.O_CREAT)
    last = 20000
    try:
        with contextlib.suppress(OSError):
            while True:
                os.write(ballast, bytes(1 << 16))
        with contextlib.suppress(OSError):
            while True:
                fill(s, last + 1, last + 200, 100)
                last += 200
        with fails(errno.ENOSPC):
            hl.append(s, b'{"p":"%s"}\n' % (b"x" * 500000))
        last = json.loads(read(f"{s}/meta"))["last_seq"]
        assert seqs(read(f"{s}/log")) == list(range(1, last + 1))
        read(f"{s}/777")
        for command in (f"trim full {last - 99}", "compact"):
            try:
                ctl(mount, command)
            except OSError as error:
                assert error.errno == errno.ENOSPC, error
                said = json.loads(read(f"{mount}/.ctl").strip().split(b"\n")[-1])
                assert said["error"], said
        left = seqs(read(f"{s}/log"))
        assert left == list(range(left[0], last + 1)), left[:3]
    finally:
        os.close(ballast)
        os.unlink(f"{disk}/ballast")
    wait_for(lambda: heals(s), "the disk to be used again")
    ctl(mount, f"trim full {last - 99}")
    ctl(mount, "compact")
    kept = seqs(read(f"{s}/log"))
    assert kept[0] == last - 99 and kept[-1] > last, (kept[0], kept[-1], last)
    verified = ctl(mount, "verify")
    assert verified["damaged_gaps"] + verified["index_missing"] + verified["index_dangling"] == 0, verified


def heals(session):
    try:
        hl.append(session, b'{"healed":true}\n')
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
        return False
    return True


@case
def compacted(mount, directory):
    """The room that records had comes back, the rest is shown as before."""
    s = new_session(mount, "room")
    fill(s, 1, 3000, 200)
    ctl(mount, "rotate")
    before = sum(os.stat(f"{directory}/log/{n}").st_size for n in os.listdir(f"{directory}/log"))
    ctl(mount, "trim room 2801")
    kept, root = read(f"{s}/log"), read(f"{mount}/log")
    size = len(root)
    result = ctl(mount, "compact room")
    assert result["bytes_after"] < result["bytes_before"] / 4, result
    after = sum(os.stat(f"{directory}/log/{n}").st_size for n in os.listdir(f"{directory}/log"))
    # What other cases left in the log is none of this: how much that is depends on how fast they were.
    assert before - after > 0.9 * (result["bytes_before"] - result["bytes_after"]), (before, after, result)
    assert read(f"{s}/log") == kept
    assert seqs(kept) == list(range(2801, 3001))
    now = read(f"{mount}/log")
    assert os.stat(f"{mount}/log").st_size == len(now) < size
    assert [line for line in now.split(b"\n") if b'"session_id":"room"' in line] == kept.split(b"\n")[:-1]
    found = subprocess.run(["grep", "-rl", '"n":2900,', s], capture_output=True, text=True, check=True).stdout.split()
    assert sorted(os.path.basename(name) for name in found) == ["2900", "log"], found
    assert subprocess.run(["jq", "-s", "length", f"{s}/log"], capture_output=True, check=True).stdout == b"200\n"
    verified = ctl(mount, "verify")
    assert verified["damaged_gaps"] + verified["index_missing"] + verified["index_dangling"] == 0, verified


if __name__ == "__main__":
    hl.main()
