"""The load under which test_kill_load.sh kills the daemon, and the check of what must be there after.

    crash_load.py load MOUNT JOURNAL PID    writes until PID is killed, by this program, at a random moment
    crash_load.py check MOUNT JOURNAL       after a remount: what was acknowledged is there, in order, once

The journal remembers, for each writer, the number of the last line that was acknowledged and of the last that
was tried. Lines carry the writer's name, a number that counts up, and the first and last of their batch.
"""
import errno
import hashlib
import json
import mmap
import os
import random
import signal
import struct
import sys
import time

import hl

SESSIONS = ["batches", "shared", "synced", "pieces"]
BATCH_WRITERS = {"one": "batches", "two": "shared", "three": "shared", "four": "synced"}
WRITERS = ["one", "two", "three", "four", "pieces", "root", "seqs", "mode"]
PATIENCE = 120  # seconds; what takes longer hangs
SLOT = struct.Struct("<QQQ")  # acknowledged, tried, acknowledgements


class Shared:
    """Numbers that the writers' processes and this one share."""

    def __init__(self, journal):
        self.map = mmap.mmap(-1, SLOT.size * len(WRITERS))
        for at, writer in enumerate(WRITERS):
            SLOT.pack_into(self.map, at * SLOT.size, *journal.get(writer, [0, 0]), 0)

    def get(self, writer):
        return SLOT.unpack_from(self.map, WRITERS.index(writer) * SLOT.size)

    def tried(self, writer, number):
        acknowledged, _, count = self.get(writer)
        SLOT.pack_into(self.map, WRITERS.index(writer) * SLOT.size, acknowledged, number, count)

    def acknowledged(self, writer, number):
        _, tried, count = self.get(writer)
        SLOT.pack_into(self.map, WRITERS.index(writer) * SLOT.size, number, tried, count + 1)

    def total(self):
        return sum(self.get(writer)[2] for writer in WRITERS)


def line(writer, number, first, last, rng, **more):
    fill = "abcdefghij" * rng.choice([0, 0, 1, 3, 10, 200])
    return json.dumps({"tool": writer, **more, "payload": {"n": number, "b": [first, last], "fill": fill}}).encode() + b"\n"


def batches(shared, rng, writer, fd, make, sync=False):
    """Batches, one a write(), without end; ends by the error that the killed daemon leaves."""
    number = shared.get(writer)[0]
    while True:
        first, last = number + 1, number + rng.choice([1, 1, 2, 5, 40])
        data = b"".join(make(n, first, last) for n in range(first, last + 1))
        shared.tried(writer, last)
        wrote = os.write(fd, data)
        assert wrote == len(data)
        shared.acknowledged(writer, last)
        if sync and rng.random() < 0.3:
            os.fsync(fd)
        number = last


def run_batch_writer(mount, shared, rng, writer):
    fd = hl.appender(f"{mount}/sessions/{BATCH_WRITERS[writer]}")
    batches(shared, rng, writer, fd, lambda n, a, b: line(writer, n, a, b, rng), sync=writer == "four")


def run_root(mount, shared, rng, writer):
    """Batches over several sessions, some of them new."""
    fd = hl.appender(mount)

    def make(n, a, b):
        return line(writer, n, a, b, rng, session_id=f"mix-{rng.randrange(3 + n // 500)}")

    batches(shared, rng, writer, fd, make)


def run_pieces(mount, shared, rng, writer):
    """Lines cut anywhere; a line is acknowledged when the write() with its newline is."""
    fd = hl.appender(f"{mount}/sessions/pieces")
    number = shared.get(writer)[0]
    pending = b""
    written = number
    while True:
        while len(pending) < 5000:
            number += 1
            pending += line(writer, number, number, number, rng)
        part = pending[:rng.choice([1, 50, 333, 5000])]
        lines = part.count(b"\n")
        shared.tried(writer, written + lines)
        assert os.write(fd, part) == len(part)
        pending = pending[len(part):]
        written += lines
        if lines:
            shared.acknowledged(writer, written)


def run_seqs(mount, shared, rng, writer):
    """Seqs given, with gaps, and retried."""
    fd = hl.appender(f"{mount}/sessions/seqs")
    seq = shared.get(writer)[1]
    while True:
        seq += rng.choice([1, 1, 2, 300])
        data = line(writer, seq, seq, seq, rng, seq=seq, ts_ms=seq)
        shared.tried(writer, seq)
        os.write(fd, data)
        shared.acknowledged(writer, seq)
        os.write(fd, data)


def run_mode(mount, shared, rng, writer):
    """Attributes and mode of a session, sessions made, and commands."""
    s = f"{mount}/sessions/mode"
    number = shared.get(writer)[0]
    while True:
        number += 1
        shared.tried(writer, number)
        os.setxattr(s, "user.n", str(number).encode())
        shared.acknowledged(writer, number)
        os.chmod(s, 0o700 | number % 64)
        if number % 50 == 0:
            os.makedirs(f"{mount}/sessions/made-{number}", exist_ok=True)
        if rng.random() < 0.02:
            with open(f"{mount}/.ctl", "wb", buffering=0) as ctl:
                ctl.write(rng.choice([b"rotate\n", b"checkpoint\n", b"sync\n"]))


RUN = {**{w: run_batch_writer for w in BATCH_WRITERS}, "pieces": run_pieces, "root": run_root, "seqs": run_seqs, "mode": run_mode}


def load_journal(path):
    try:
        with open(path) as file:
            return json.load(file)
    except FileNotFoundError:
        return {"writers": {}, "checked": {}, "round": 0}


def save_journal(path, journal):
    with open(path, "w") as file:
        json.dump(journal, file)


def is_dead(mount):
    """Whether the mount has lost its daemon; the kernel takes a moment to say so everywhere."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            os.statvfs(mount)
        except OSError as failure:
            return failure.errno in (errno.ENOTCONN, errno.ECONNABORTED)
        time.sleep(0.001)
    return False


def start_writer(mount, shared, writer, seed):
    pid = os.fork()
    if pid:
        return pid
    try:
        RUN[writer](mount, shared, random.Random(f"{seed}-{writer}"), writer)
    except OSError as failure:  # those of a killed daemon are due
        if failure.errno in (errno.ECONNABORTED, errno.ENOTCONN, errno.EIO) and is_dead(mount):
            os._exit(0)
        print(f"{writer}: {failure!r}", file=sys.stderr)
    except BaseException as failure:
        print(f"{writer}: {failure!r}", file=sys.stderr)
    os._exit(2)


def reap(writers, device):
    """The writers that did not end as they should have. All must end soon once the daemon is dead."""
    failed, waiting = [], dict(writers)
    end = time.monotonic() + 2 * PATIENCE
    while waiting:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            writer = waiting.pop(pid)
            if status:
                failed.append(writer)
        elif time.monotonic() > end:
            # Something of the daemon still holds /dev/fuse. What waits for it cannot even be killed.
            with open(f"/sys/fs/fuse/connections/{os.minor(device)}/abort", "w") as abort:
                abort.write("1")
            raise AssertionError(f"{2 * PATIENCE} s after SIGKILL requests still wait for the daemon: {sorted(waiting.values())}")
        else:
            time.sleep(0.001)
    return failed


def load(mount, path, daemon):
    journal = load_journal(path)
    journal["round"] += 1
    seed = f"{os.environ.get('SEED', '0')}-{journal['round']}"
    rng = random.Random(seed)
    device = os.stat(mount).st_dev
    for session in SESSIONS + ["seqs", "mode"]:
        os.makedirs(f"{mount}/sessions/{session}", exist_ok=True)
    shared = Shared(journal["writers"])
    limit = rng.choice([1, 20, 200, 1000, 3000])
    limit = rng.randrange(limit, 2 * limit)
    writers = {start_writer(mount, shared, writer, seed): writer for writer in WRITERS}
    end = time.monotonic() + 2 * PATIENCE
    while shared.total() < limit and time.monotonic() < end:
        time.sleep(0.0005)
    os.kill(int(daemon), signal.SIGKILL)
    failed = reap(writers, device)
    journal["writers"] = {writer: shared.get(writer)[:2] for writer in WRITERS}
    save_journal(path, journal)
    print(f"round {journal['round']}: killed after {shared.total()} acknowledgements: {journal['writers']}")
    assert not failed, f"writers that ended for another reason: {failed}"
    assert shared.total() >= limit, f"only {shared.total()} acknowledgements in {2 * PATIENCE} s"


# ---- the check --------------------------------------------------------------------------------------


def new_part(path, journal):
    """What the file holds beyond what earlier rounds checked; that part must be unchanged."""
    data = hl.read(path)
    known = journal["checked"].get(path, {"size": 0})
    size = known["size"]
    assert len(data) >= size, f"{path}: {len(data)} bytes, had {size}"
    if size:
        assert hashlib.sha256(data[:size]).hexdigest() == known["sha"], f"{path}: what was there has changed"
    journal["checked"][path] = {"size": len(data), "sha": hashlib.sha256(data).hexdigest()}
    assert os.stat(path).st_size == len(data)
    assert not data or data.endswith(b"\n")
    return data[size:].splitlines(keepends=True)


def check_order(records, journal, found):
    """Numbers of each writer count up by one, batches are whole and contiguous in the root log."""
    last = {writer: journal.get("found", {}).get(writer, 0) for writer in WRITERS}
    open_batch = None
    for record in records:
        writer, payload = record.get("tool"), record.get("payload")
        if writer not in last or not isinstance(payload, dict):
            assert open_batch is None
            continue
        number, (first, end) = payload["n"], payload["b"]
        if writer == "seqs":
            assert number == record["seq"] and number > last[writer]
        else:
            assert number == last[writer] + 1, f"{writer}: {number} after {last[writer]}"
        if open_batch:
            assert open_batch == (writer, end), f"batch of {open_batch} ends before its time"
        else:
            assert number == first, f"{writer}: batch {first}-{end} begins at {number}"
        open_batch = None if number == end else (writer, end)
        last[writer] = number
    assert open_batch is None, f"half a batch: {open_batch}"
    found.update(last)


def attribute_number(session):
    try:
        return int(os.getxattr(session, "user.n"))
    except OSError as failure:
        if failure.errno != errno.ENODATA:
            raise
        return 0


def check(mount, path):
    journal = load_journal(path)
    root = new_part(f"{mount}/log", journal)
    records = [json.loads(record) for record in root]
    found = {}
    check_order(records, journal, found)
    for writer, (acknowledged, tried) in journal["writers"].items():
        if writer == "mode":
            found[writer] = attribute_number(f"{mount}/sessions/mode")
        assert acknowledged <= found[writer] <= tried, (
            f"{writer}: acknowledged {acknowledged}, tried {tried}, found {found[writer]}")
    by_session = {}
    for record, raw in zip(records, root):
        by_session.setdefault(record["session_id"], []).append((record["seq"], raw))
    names = os.listdir(f"{mount}/sessions")
    assert set(by_session) <= set(names)
    for name in names:
        s = f"{mount}/sessions/{name}"
        fresh = new_part(f"{s}/log", journal)
        assert fresh == [raw for _, raw in by_session.get(name, [])], f"{name}: its log is not its part of the root log"
        seqs = [seq for seq, _ in by_session.get(name, [])]
        assert seqs == sorted(set(seqs)), f"{name}: seqs do not ascend"
        for seq, raw in by_session.get(name, [])[-3:]:
            assert hl.read(f"{s}/{seq}") == raw
        if fresh:  # and again: a retry of the last one is known
            hl.append(s, fresh[-1])
            assert os.stat(f"{s}/log").st_size == journal["checked"][f"{s}/log"]["size"]
    counts = command(mount, "verify")
    for what in ("damaged_gaps", "broken_batches", "index_missing", "index_dangling"):
        assert counts[what] == 0, counts
    journal["found"] = found
    journal["writers"] = {writer: [found[writer], found[writer]] for writer in journal["writers"]}
    save_journal(path, journal)


def command(mount, words):
    fd = os.open(f"{mount}/.ctl", os.O_RDWR)
    try:
        os.write(fd, words.encode() + b"\n")
        return json.loads(os.read(fd, 1 << 16))
    finally:
        os.close(fd)


if __name__ == "__main__":
    {"load": load, "check": check}[sys.argv[1]](*sys.argv[2:])
