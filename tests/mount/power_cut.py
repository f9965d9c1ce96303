"""Power cuts: a file system that is shut down under the daemon, mounted again, and looked at.

    power_cut.py DEVICE DISK MOUNT CUTS sync|fsync

DEVICE holds an ext4, which is mounted on DISK; the store lies in DISK/store, mounted on MOUNT. Writers append and set
documents until, after some number of acknowledgements, the file system is shut down by an ioctl that drops what was
not written (EXT4_IOC_SHUTDOWN without a flush of the log). Meanwhile somebody trims a session, erases others, and
compacts. What a write (mount option sync) or an fsync had acknowledged by then must be there after the next mount,
each batch whole, each writer's in order, each document the last one set; what was trimmed or erased must not; and the
next cut comes on top of it.
"""
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import threading
import time

SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32)
NO_LOG_FLUSH = 2
WRITERS = ["one", "two", "shared-1", "shared-2", "documents"]
AFTER_CUT = (errno.EIO, errno.EROFS, errno.ENOTCONN, errno.ECONNABORTED)  # the disk refuses; the daemon is gone
libc = ctypes.CDLL(None, use_errno=True)


def session_of(writer):
    return writer.split("-")[0]


def check_call(result, what):
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def until(condition, what, seconds=180):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain for {what}"
        time.sleep(0.0005)


class Machine:
    """The disk and the daemon on it."""

    def __init__(self, device, disk, mount, options):
        self.device, self.disk, self.mount, self.options = device, disk, mount, options
        self.daemon = None
        self.said = open(f"{os.path.dirname(mount)}/log", "ab")
        self.below = os.stat(mount).st_dev

    def is_up(self):
        assert self.daemon.poll() is None, f"the daemon ended with status {self.daemon.returncode}"
        try:
            return os.stat(self.mount).st_dev != self.below
        except OSError:
            return False

    def switch_on(self):
        check_call(libc.mount(self.device.encode(), self.disk.encode(), b"ext4", 0, b""), "mount")
        command = [os.environ["HOTLOGFS"], f"{self.disk}/store", self.mount, "-f", "-o", self.options]
        self.daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.said, stderr=self.said)
        until(self.is_up, "the mount")

    def cut(self):
        fd = os.open(self.disk, os.O_RDONLY)
        fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        os.close(fd)

    def is_unmounted(self, path, flags=0):
        return libc.umount2(path.encode(), flags) == 0 or ctypes.get_errno() == errno.EINVAL

    def clear(self):
        """What is left of a machine without power."""
        if self.daemon:
            self.daemon.send_signal(signal.SIGKILL)
            self.daemon.wait()
            self.daemon = None
        until(lambda: self.is_unmounted(self.mount, 2), "umount of the store")
        until(lambda: self.is_unmounted(self.disk), "umount of the disk")

    def command(self, words):
        fd = os.open(f"{self.mount}/.ctl", os.O_RDWR)
        try:
            os.write(fd, words.encode() + b"\n")
            return json.loads(os.read(fd, 1 << 16))
        finally:
            os.close(fd)


class Writer(threading.Thread):
    """Appends batches without end; known is what the last cut left."""

    def __init__(self, mount, name, by_fsync, known, rng, acknowledge):
        super().__init__(daemon=True)
        self.session, self.writer, self.by_fsync, self.rng = f"{mount}/sessions/{session_of(name)}", name, by_fsync, rng
        self.acknowledged = self.tried = self.number = known
        self.acknowledge, self.failure = acknowledge, None

    def lines(self, first, last):
        for n in range(first, last + 1):
            mark = {"w": self.writer, "n": n, "b": [first, last]}
            if self.writer == "documents":
                line = {"op": "set", "key": f"k{n % 7}", "value": n, "agent": json.dumps(mark)}
            else:
                line = {"payload": {**mark, "fill": "x" * self.rng.choice([0, 0, 10, 100, 3000])}}
            yield json.dumps(line).encode() + b"\n"

    def append(self, fd):
        while True:
            first, last = self.number + 1, self.number + self.rng.choice([1, 1, 1, 2, 9])
            data = b"".join(self.lines(first, last))
            self.tried = last
            assert os.write(fd, data) == len(data)
            self.number = last
            if self.by_fsync:
                if self.rng.random() < 0.5:
                    continue
                os.fsync(fd)
            self.acknowledged = last
            self.acknowledge()

    def run(self):
        try:
            fd = os.open(f"{self.session}/append", os.O_WRONLY)
            try:
                self.append(fd)
            finally:
                with contextlib.suppress(OSError):  # what follows a cut, which write() told of before
                    os.close(fd)
        except OSError as failure:
            if failure.errno not in AFTER_CUT:
                self.failure = failure
        except BaseException as failure:
            self.failure = failure


class Dropper(threading.Thread):
    """Appends to a session of its own, trims it, makes sessions and erases them, and compacts, without end.

    known: what the last cut left (see Kept).
    """

    def __init__(self, machine, kept, rng):
        super().__init__(daemon=True)
        self.machine, self.kept, self.rng, self.failure = machine, kept, rng, None

    def append(self):
        kept, first = self.kept, self.kept.number + 1
        lines = [json.dumps({"payload": {"w": "trimmed", "n": n, "fill": "x" * 500}}).encode() + b"\n"
                 for n in range(first, first + self.rng.choice([1, 3, 20]))]
        kept.tried = kept.number + len(lines)
        fd = os.open(f"{self.machine.mount}/sessions/trimmed/append", os.O_WRONLY)
        try:
            os.write(fd, b"".join(lines))
            kept.number = kept.tried
            os.fsync(fd)
            kept.acknowledged = kept.number
        finally:
            os.close(fd)

    def trim(self):
        kept = self.kept
        if kept.acknowledged > kept.first:
            first = self.rng.randint(kept.first, kept.acknowledged)
            kept.firsts_tried.append(first)
            self.machine.command(f"trim trimmed {first}")
            kept.first = first

    def erase(self):
        kept = self.kept
        name = f"gone-{kept.sessions}."
        kept.sessions += 1
        session = f"{self.machine.mount}/sessions/{name}"
        os.mkdir(session)
        fd = os.open(f"{session}/append", os.O_WRONLY)
        try:
            os.write(fd, b'{"payload":"%s"}\n' % name.encode() * 3)
        finally:
            os.close(fd)
        self.machine.command(f"erase {name}")
        kept.erased.append(name)

    def run(self):
        try:
            while True:
                turn = self.rng.random()
                if turn < 0.6:
                    self.append()
                elif turn < 0.85:
                    self.trim()
                elif turn < 0.93:
                    self.machine.command("compact all")
                else:
                    self.erase()
        except OSError as failure:
            if failure.errno not in AFTER_CUT:
                self.failure = failure
        except BaseException as failure:
            self.failure = failure


class Kept:
    """What a dropper did: of its session, whose seqs are its numbers, and of the sessions that it erased."""

    def __init__(self):
        self.number = self.acknowledged = self.tried = 0
        self.first, self.firsts_tried = 1, []
        self.sessions, self.erased = 0, []

    def promised(self):
        other = Kept()
        vars(other).update(vars(self), erased=list(self.erased))
        return other

    def check(self, machine):
        """Holds the store against it; from then on it is what was found."""
        path = f"{machine.mount}/sessions/trimmed/log"
        numbers = []
        if os.path.exists(path):
            with open(path, "rb") as log:
                for record in map(json.loads, log.read().splitlines()):
                    numbers.append(record["seq"])
                    assert record["payload"]["n"] == record["seq"], record
        last = numbers[-1] if numbers else 0
        assert self.acknowledged <= last <= self.tried, f"trimmed: {vars(self)}, found up to {last}"
        if numbers:
            assert numbers == list(range(numbers[0], last + 1)), f"trimmed: there is {numbers}"
            # Of several trims since what was promised, each may be the last that is on the disk.
            assert numbers[0] >= self.first, f"trimmed: begins at {numbers[0]}, {vars(self)}"
            assert numbers[0] in (self.first, *self.firsts_tried), f"trimmed: begins at {numbers[0]}, {vars(self)}"
            self.first = numbers[0]
        self.firsts_tried = []
        self.number = self.acknowledged = self.tried = last
        for name in os.listdir(f"{machine.mount}/sessions"):
            if name.startswith("gone-"):
                assert name not in self.erased, f"{name} is there again"
                with open(f"{machine.mount}/sessions/{name}/log", "rb") as log:
                    assert len(log.read().splitlines()) in (0, 3), f"{name} is there in part"
        for folder, _, names in os.walk(f"{machine.disk}/store"):
            for name in names:
                try:
                    with open(f"{folder}/{name}", "rb") as file:
                        content = file.read()
                except FileNotFoundError:  # an erase that the cut left half done goes on by itself
                    continue
                for erased in self.erased:
                    assert erased.encode() not in content, f"{erased} was erased, and is in {folder}/{name}"


def records_of(mount):
    with open(f"{mount}/log", "rb") as log:
        for line in log.read().splitlines():
            record = json.loads(line)
            if record["session_id"] == "trimmed" or record["session_id"].startswith("gone-"):
                continue
            yield record, json.loads(record["agent"]) if "op" in record else record["payload"]


def check(machine, writers):
    """What was found of each writer."""
    found = {name: 0 for name in WRITERS}
    documents, batch = {}, None
    for record, mark in records_of(machine.mount):
        name, number, (first, last) = mark["w"], mark["n"], mark["b"]
        assert number == found[name] + 1, f"{name}: {number} after {found[name]}"
        assert batch in (None, (name, last)), f"half a batch of {batch} before {name} {number}"
        assert batch or number == first, f"{name}: a batch begins at {number}, not {first}"
        batch = None if number == last else (name, last)
        found[name] = number
        if "op" in record:
            documents[record["key"]] = record["value"]
    assert batch is None, f"half a batch of {batch} at the end"
    for name, writer in writers.items():
        assert writer.acknowledged <= found[name] <= writer.tried, (
            f"{name}: acknowledged {writer.acknowledged}, found {found[name]}, tried {writer.tried}")
    state = f"{machine.mount}/sessions/documents/state"
    shown = {key: json.load(open(f"{state}/{key}")) for key in os.listdir(state)} if os.path.isdir(state) else {}
    assert shown == documents, f"documents are {shown}, their operations come to {documents}"
    return found


def verify(machine):
    counts = machine.command("verify")
    for what in ("damaged_gaps", "broken_batches", "index_missing", "index_dangling"):
        assert counts[what] == 0, counts


def load(machine, by_fsync, found, kept, rng):
    """Writes until the cut. Returns the writers, as they were then, and what is promised of what was dropped."""
    enough, count = threading.Event(), [rng.choice([1, 5, 20, 60])]

    def acknowledge():
        count[0] -= 1
        if count[0] <= 0:
            enough.set()

    for name in ["trimmed", *WRITERS]:
        os.makedirs(f"{machine.mount}/sessions/{session_of(name)}", exist_ok=True)
    writers = {
        name: Writer(machine.mount, name, by_fsync, found[name], random.Random(rng.random()), acknowledge) for name in WRITERS}
    dropper = Dropper(machine, kept, random.Random(rng.random()))
    for thread in [dropper, *writers.values()]:
        thread.start()
    if rng.random() < 0.4:
        machine.command(rng.choice(["rotate", "checkpoint", "sync"]))
    assert enough.wait(180), {name: vars(writer) for name, writer in writers.items()}
    # The kernel may call a sync that is under way at the cut a success: what counts is what was acknowledged before.
    promised = {name: writer.acknowledged for name, writer in writers.items()}
    kept_then = kept.promised()
    machine.cut()
    time.sleep(rng.choice([0, 0, 0.002]))  # a moment at random: who still writes is refused meanwhile
    machine.daemon.send_signal(signal.SIGKILL)
    machine.daemon.wait()
    for writer in writers.values():
        writer.join(180)
        assert not writer.is_alive(), f"{writer.writer} still waits for a dead daemon"
        if writer.failure:
            raise writer.failure
        writer.acknowledged = promised[writer.writer]
    dropper.join(180)
    assert not dropper.is_alive(), "who drops still waits for a dead daemon"
    if dropper.failure:
        raise dropper.failure
    for what in ("number", "tried", "firsts_tried", "sessions"):
        setattr(kept_then, what, getattr(kept, what))
    return writers, kept_then


def main():
    device, disk, mount, cuts, kind = sys.argv[1:]
    # What is left open at a cut is to be noticed soon, and not after thousands. (The daemon raises its own.)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    seed = os.environ["SEED"]
    rng = random.Random(f"{seed}-{kind}")
    options = "segment_size=64K,sync_interval=20ms" + (",sync" if kind == "sync" else "")
    machine = Machine(device, disk, mount, options)
    found, writers, done, acknowledged = {name: 0 for name in WRITERS}, {}, 0, 0
    kept = Kept()
    began = time.monotonic()
    try:
        for done in range(int(cuts)):
            machine.switch_on()
            found = check(machine, writers)
            kept.check(machine)
            if done % 10 == 9:
                verify(machine)
            if sum(found.values()) > 4000:  # anew, or reading all of it takes the time
                machine.cut()
                machine.clear()
                subprocess.run(["mkfs.ext4", "-q", "-F", "-J", "size=4", device], check=True)
                found, writers, kept = {name: 0 for name in WRITERS}, {}, Kept()
                machine.switch_on()
            writers, kept = load(machine, kind == "fsync", found, kept, rng)
            acknowledged += sum(writer.acknowledged - found[name] for name, writer in writers.items())
            machine.clear()
        machine.switch_on()
        check(machine, writers)
        kept.check(machine)
        verify(machine)
    except BaseException:
        print(f"cut {done}: SEED={seed}", file=sys.stderr)
        raise
    finally:
        machine.clear()
    seconds = time.monotonic() - began
    print(f"{cuts} cuts in {seconds:.1f} s, {acknowledged} records acknowledged before them, none lost")


if __name__ == "__main__":
    main()
