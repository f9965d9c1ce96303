"""Cases of test_programs.sh and test_concurrency.sh. Arguments: MOUNT and what each case names."""
import errno
import json
import mmap
import os
import subprocess
import sys

import hl
from hl import appender, case, check_log, log_of, new_session, read


@case
def make_lines(path, count, longest):
    """A file of lines of all kinds, ended by a newline."""
    lines = hl.some_lines(hl.seeded(), int(count), int(longest))
    with open(path, "wb") as file:
        file.write(b"\n".join(lines) + b"\n")


@case
def check(mount, session, path, first="1"):
    """The session holds exactly the lines of the file, in order."""
    check_log(log_of(f"{mount}/sessions/{session}"), hl.lines_of(read(path)), session, int(first))


@case
def write_sizes(mount, path, size):
    """write() calls of one size, whatever lines they cut."""
    name = f"write-{size}"
    s = new_session(mount, name)
    data = read(path)
    if int(size) < 100:  # a request each
        data = b"\n".join(data.split(b"\n")[: 4 * int(size) + 10]) + b"\n"
    fd = appender(s)
    for at in range(0, len(data), int(size)):
        part = data[at:at + int(size)]
        assert os.write(fd, part) == len(part)
    os.close(fd)
    check_log(log_of(s), hl.lines_of(data), name)


@case
def writev(mount, path):
    s = new_session(mount, "writev")
    data = read(path)
    rng = hl.seeded()
    fd = appender(s)
    at = 0
    while at < len(data):
        parts = []
        for _ in range(rng.randrange(1, 200)):
            size = rng.choice([1, 3, 100, 4096])
            parts.append(data[at:at + size])
            at += size
        view = [part for part in parts if part]
        wrote = os.writev(fd, view) if view else 0
        assert wrote == sum(map(len, view)), (wrote, sum(map(len, view)))
    os.close(fd)
    check_log(log_of(s), hl.lines_of(data), "writev")


@case
def sendfile(mount, path):
    s = new_session(mount, "sendfile")
    fd = os.open(f"{s}/append", os.O_WRONLY)  # sendfile refuses O_APPEND
    source = os.open(path, os.O_RDONLY)
    while os.sendfile(fd, source, None, 50001):
        pass
    os.close(fd)
    check_log(log_of(s), hl.lines_of(read(path)), "sendfile")


@case
def splice(mount, path):
    s = new_session(mount, "splice")
    fd = os.open(f"{s}/append", os.O_WRONLY)
    feeder = subprocess.Popen(["cat", path], stdout=subprocess.PIPE)
    while os.splice(feeder.stdout.fileno(), fd, 65536):
        pass
    os.close(fd)
    feeder.stdout.close()
    assert feeder.wait() == 0
    check_log(log_of(s), hl.lines_of(read(path)), "splice")


def copy_range(source, target):
    """copy_file_range until the end; False where the kernel says that these two cannot."""
    first = True
    while True:
        try:
            done = os.copy_file_range(source, target, 1 << 20)
        except OSError as failure:
            if first and failure.errno in (errno.EXDEV, errno.EOPNOTSUPP):
                return False
            raise
        if not done:
            return True
        first = False


@case
def copy_file_range(mount, path):
    """From another file system; where the kernel refuses that, from the mount itself (see copy_of_a_log)."""
    s = new_session(mount, "copy-range")
    fd = os.open(f"{s}/append", os.O_WRONLY)
    source = os.open(path, os.O_RDONLY)
    copied = copy_range(source, fd)
    os.close(fd)
    check_log(log_of(s), hl.lines_of(read(path)) if copied else [], "copy-range")


@case
def copy_of_a_log(mount, session, other):
    """A session's log, copied by the kernel onto the root append of another store, is that log there."""
    want = log_of(f"{mount}/sessions/{session}")
    for target, how in ((mount, "range"), (other, "range"), (other, "sendfile")):
        source = os.open(f"{mount}/sessions/{session}/log", os.O_RDONLY)
        fd = os.open(f"{target}/append", os.O_WRONLY)
        if how == "range":
            assert copy_range(source, fd), "copy_file_range between files of a mount"
        else:
            while os.sendfile(fd, source, None, 1 << 20):
                pass
        os.close(fd)
        os.close(source)
        assert log_of(f"{target}/sessions/{session}") == want, (target, how)


@case
def direct(mount, path):
    """O_DIRECT from an aligned buffer."""
    s = new_session(mount, "direct")
    data = read(path)
    buffer = mmap.mmap(-1, 1 << 16)
    fd = appender(s, os.O_DIRECT)
    for at in range(0, len(data), 1 << 16):
        part = data[at:at + (1 << 16)]
        buffer[:len(part)] = part
        view = memoryview(buffer)[:len(part)]
        assert os.write(fd, view) == len(part)
        view.release()
    os.close(fd)
    check_log(log_of(s), hl.lines_of(data), "direct")


@case
def long_lines(mount):
    """Lines of 16 MiB, text and JSON, in writes of 1 MiB and in one write(); and one byte too many."""
    s = new_session(mount, "long-lines")
    limit = 16 * hl.MIB
    text = b"0123456789abcdef" * (limit // 16)
    event = b'{"payload":"' + b"j" * (limit - 14) + b'"}'
    assert len(event) == limit
    fd = appender(s)
    for at in range(0, limit, hl.MIB):
        os.write(fd, text[at:at + hl.MIB])
    os.write(fd, b"\n")
    hl.write_all(fd, event + b"\nx\n")
    check_log(log_of(s), [text, event, b"x"], "long-lines")
    assert len(read(f"{s}/2")) == os.lstat(f"{s}/2").st_size > limit
    with hl.fails(errno.EMSGSIZE):
        hl.write_all(fd, text + b"!\n")
    os.close(fd)


# ---- many at once -------------------------------------------------------------------------------------


def race_line(rng, writer, at):
    """A line whose length and content its writer and number tell."""
    filler = "abcdefghij" * rng.choice([0, 1, 5, 30, 800]) if rng.random() < 0.9 else ""
    return json.dumps({"tool": f"w{writer}", "retry_count": 0, "payload": {"at": at, "fill": filler, "len": len(filler)}}).encode()


@case
def race_writer(mount, session, writer, count):
    """Writes its lines in write()s of any size, whole batches and cuts in lines alike, on several handles."""
    rng = hl.random.Random(f"{os.environ['SEED']}-{writer}")
    at = 0
    while at < int(count):
        fd = os.open(f"{mount}/sessions/{session}/append", os.O_WRONLY)
        some = [race_line(rng, writer, n) for n in range(at, min(int(count), at + rng.randrange(1, 300)))]
        at += len(some)
        data = b"\n".join(some) + b"\n"
        while data:
            size = rng.choice([1, 10, 200, 4096, 98304, 1 << 20])
            os.write(fd, data[:size])
            data = data[size:]
        os.close(fd)


@case
def race_check(mount, session, writers, count):
    """Nothing lost, doubled, torn or reordered within a writer; seqs 1, 2, 3 …"""
    seen = [0] * int(writers)
    stored = log_of(f"{mount}/sessions/{session}").split(b"\n")
    assert stored.pop() == b""
    last_ts = 0
    for seq, line in enumerate(stored, 1):
        record = json.loads(line)
        assert record["seq"] == seq, (record["seq"], seq)
        writer, payload = int(record["tool"][1:]), record["payload"]
        assert payload["at"] == seen[writer], f"writer {writer}: {payload['at']} where {seen[writer]} was due"
        assert payload["len"] == len(payload["fill"])
        seen[writer] += 1
        assert record["ts_ms"] >= last_ts
        last_ts = record["ts_ms"]
    assert seen == [int(count)] * int(writers), seen


def whole_lines(data, what):
    """Every line of data is a whole record; returns their seqs."""
    lines = data.split(b"\n")
    assert lines.pop() == b"", f"{what}: ends in a torn line: {lines[-1:]}"
    return [json.loads(line)["seq"] for line in lines]


@case
def race_reader(mount, session, end):
    """Reads in every way while others write, until the file `end` is there; makes END.begun when it has looked once."""
    s = f"{mount}/sessions/{session}"
    rounds = known = 0
    while True:
        last = os.path.exists(end)
        rounds += 1
        size = os.stat(f"{s}/log").st_size
        data = log_of(s)
        assert len(data) >= size, f"st_size was {size}, but {len(data)} bytes can be read"
        seqs = whole_lines(data, "log")
        assert seqs == list(range(1, len(seqs) + 1)), "log"
        assert len(seqs) >= known, "the log shrank"
        known = len(seqs)
        if known:
            assert json.loads(read(f"{s}/{known}"))["seq"] == known
            assert read(f"{s}/{known}") in data
            a = max(1, known - 50)
            assert whole_lines(read(f"{s}/{a}-"), "A-")[: known - a + 1] == list(range(a, known + 1))
            assert whole_lines(read(f"{s}/{a}-{known}"), "A-B") == list(range(a, known + 1))
        names = sorted(int(name) for name in os.listdir(s) if name.isdigit())
        assert names == list(range(1, len(names) + 1)) and len(names) >= known, (len(names), known)
        for entry in os.scandir(s):
            if entry.name.isdigit() and int(entry.name) > known - 20:
                assert entry.stat().st_size > 0
        json.loads(read(f"{s}/meta"))
        json.loads(read(f"{mount}/.status"))
        open(f"{end}.begun", "w").close()
        if last:
            break
    assert rounds >= 2
    print(f"{rounds} rounds, {known} records", file=sys.stderr)


@case
def race_stream(mount, session, end):
    """One open log, read on and on: every byte once, in order, nothing that is not there at the end."""
    s = f"{mount}/sessions/{session}"
    fd = os.open(f"{s}/log", os.O_RDONLY)
    got = []
    while True:
        last = os.path.exists(end)
        size = os.fstat(fd).st_size
        read_to = os.lseek(fd, 0, os.SEEK_CUR)
        part = os.read(fd, 1 << 17)
        assert part or size <= read_to, f"st_size {size}, yet nothing to be read at {read_to}"
        got.append(part)
        if last and not part:
            break
    assert b"".join(got) == log_of(s)


@case
def race_root(mount, end):
    """The root log while sessions are made and written: each session's lines ascend, none is torn."""
    while True:
        last = os.path.exists(end)
        size = os.stat(f"{mount}/log").st_size
        data = read(f"{mount}/log")
        assert len(data) >= size
        seqs = {}
        lines = data.split(b"\n")
        assert lines.pop() == b""
        for line in lines:
            record = json.loads(line)
            assert record["seq"] == seqs.get(record["session_id"], 0) + 1, record["session_id"]
            seqs[record["session_id"]] = record["seq"]
        if last:
            break
    for session in os.listdir(f"{mount}/sessions"):
        assert len(whole_lines(log_of(f"{mount}/sessions/{session}"), session)) == seqs.get(session, 0), session


@case
def race_root_writer(mount, writer, count):
    """Mixed batches over sessions that come up on the way."""
    rng = hl.random.Random(f"{os.environ['SEED']}-root-{writer}")
    fd = os.open(f"{mount}/append", os.O_WRONLY)
    for at in range(int(count)):
        batch = [{"session_id": f"mix-{rng.randrange(1 + at // 10)}", "tool": f"{writer}", "payload": at} for _ in range(rng.randrange(1, 5))]
        hl.write_all(fd, b"".join(json.dumps(line).encode() + b"\n" for line in batch))
    os.close(fd)


if __name__ == "__main__":
    hl.main()
