"""The rows of the table: what each measures, on whom, and what is to be reached.

A row has contenders by name, each a function that measures once and returns one figure (or several, by name). `better` says
whether more or less is better; `goals` are (contender, factor): ours is to be at least `factor` times theirs where more is
better, and at most `factor` times theirs where less is; a contender of None stands for a fixed figure.
"""
import contextlib
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field

import fill
from ending import Ending
from places import Absent, cpu_ns, disk_bytes, own_memory, run_process

OURS = "hotlogfs"


@dataclass
class Row:
    name: str
    unit: str
    contenders: dict
    better: str = "more"
    goals: list = field(default_factory=list)
    rounds: int = 0  # 0: as many as the run has


def rate(result):
    return result["operations"] / result["seconds"]


def megabytes(result):
    return result["bytes"] / result["seconds"] / 1e6


def count_lines(*command):
    done = run_process(command)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: status {done.returncode}: {done.stderr.decode(errors='replace')}")
    return done.stdout.count(b"\n")


@contextlib.contextmanager
def beside(loops):
    """Commands of bash that go on meanwhile."""
    others = []
    try:
        for loop in loops:
            # Told to end, it waits for what it runs, which is told as well.
            others.append(subprocess.Popen(
                ["bash", "-c", f"trap exit TERM; {loop}"], stderr=subprocess.DEVNULL, start_new_session=True))
        yield
    finally:
        for other in others:
            os.killpg(other.pid, signal.SIGTERM)
            other.wait()


class Bench:
    """The places of a run and the rows on them. `now` counts the measurements, for fresh names."""

    def __init__(self, size, top, loads, ours, synced, null, passthrough, opslog, redis):
        self.size, self.top, self.loads = size, top, loads
        self.ours, self.synced, self.null, self.passthrough = ours, synced, null, passthrough
        self.opslog, self.redis = opslog, redis  # redis: by policy
        self.now = 0
        self.read_up_to = {}  # the records that were read before, by directory

    # ---- names and memory ----

    def fresh(self, word):
        self.now += 1
        return f"{word}-{self.now}"

    def disk(self, word):
        return f"{self.top}/disk/{self.fresh(word)}"

    def warm_memory(self):
        """Has the system give memory for pages of files: where it is a guest, the first use of a page costs as much as
        writing it many times."""
        path = self.disk("warm")
        chunk = bytes(1 << 20)
        with open(path, "wb") as file:
            for _ in range(max(1, 3 * self.size["bulk"] >> 20)):
                file.write(chunk)
        os.unlink(path)

    # ---- appending ----

    def append_ours(self, count, mount=None, **given):
        mount = mount or self.ours
        word = self.fresh("append")
        for thread in range(given.get("threads", 1)):
            mount.session(f"{word}-{thread}")
        return rate(self.loads.file("append", path=f"{mount.point}/sessions/{word}-%u/append", count=count, **given))

    def append_null(self, count, **given):
        return rate(self.loads.file("append", path=f"{self.null.point}/w%u", count=count, **given))

    def append_disk(self, count, **given):
        return rate(self.loads.file("append", path=self.disk("append") + "-%u", count=count, create=1, **given))

    def append_sqlite(self, count, **given):
        return rate(self.loads.sqlite("append", db=self.disk("db"), count=count, **given))

    def append_redis(self, policy, count, **given):
        if policy not in self.redis:
            raise Absent("redis-server is not installed")
        return rate(self.loads.redis(socket=self.redis[policy].socket, count=count, **given))

    def run_opslog(self, mode, **given):
        if self.opslog is None:
            raise Absent("opslog is not installed")
        path = self.disk("opslog")
        result = self.opslog.run(mode, dir=path, **given)
        shutil.rmtree(path)
        return rate(result)

    def echo(self, path, **given):
        return rate(self.loads.file("echo", path=path, count=self.size["echo"], **given))

    def block(self, path, block, **given):
        self.warm_memory()
        return rate(self.loads.file("block", path=path, bytes=self.size["bulk"], block=block, **given))

    def block_ours(self, block):
        return self.block(f"{self.ours.session(self.fresh('block'))}/append", block)

    def block_disk(self, block):
        path = self.disk("block")
        figure = self.block(path, block, create=1)
        os.unlink(path)
        return figure

    def bulk_sqlite(self):
        self.warm_memory()
        return self.append_sqlite(self.size["bulk"] // 200 // 4, batch=1000)

    def bulk_redis(self):
        self.warm_memory()
        return self.append_redis("everysec", self.size["bulk"] // 200 // 4, depth=1000)

    def append_rows(self):
        count, synced = self.size["append"], self.size["synced"]
        two = dict(threads=2)
        return [
            Row("append, held handle, one writer", "records/s", {
                OURS: lambda: self.append_ours(count),
                "nullfs": lambda: self.append_null(count),
                "ext4 file": lambda: self.append_disk(count),
                "SQLite NORMAL": lambda: self.append_sqlite(count),
                "Redis everysec": lambda: self.append_redis("everysec", count),
                "Redis always": lambda: self.append_redis("always", synced),
                "opslog": lambda: self.run_opslog("append", count=max(1, count // 10)),
            }, goals=[("nullfs", 1.0), ("SQLite NORMAL", 1.0), ("Redis everysec", 4), ("opslog", 8)]),
            Row("open, write, close", "records/s", {
                OURS: lambda: self.echo(f"{self.ours.session(self.fresh('echo'))}/append"),
                "nullfs": lambda: self.echo(f"{self.null.point}/w0"),
                "ext4 file": lambda: self.echo(self.disk("echo"), create=1),
            }, goals=[("nullfs", 1.6)]),
            Row("bulk, writes of 1 MiB", "records/s", {
                OURS: lambda: self.block_ours(fill.BATCH),
                "nullfs": lambda: self.block(f"{self.null.point}/w0", fill.BATCH),
                "ext4 file": lambda: self.block_disk(fill.BATCH),
                "SQLite, 1,000 rows a transaction": self.bulk_sqlite,
                "Redis everysec, pipelined by 1,000": self.bulk_redis,
                "opslog batch of 1,000": lambda: self.run_opslog("batch", count=self.size["bulk"] // 200 // 20, batch=1000),
            }, goals=[(None, 2.5e6), ("SQLite, 1,000 rows a transaction", 5), ("Redis everysec, pipelined by 1,000", 6),
                      ("opslog batch of 1,000", 8)]),
            Row("bulk, writes of 4 KiB", "records/s", {
                OURS: lambda: self.block_ours(4096),
                "nullfs": lambda: self.block(f"{self.null.point}/w0", 4096),
                "ext4 file": lambda: self.block_disk(4096),
            }, goals=[("nullfs", 1.2)]),
            Row("two writers, two sessions", "records/s", {
                OURS: lambda: self.append_ours(count, **two),
                "nullfs": lambda: self.append_null(count, **two),
                "hotlogfs, one writer": lambda: self.append_ours(count),
            }, goals=[("nullfs", 1.2), ("hotlogfs, one writer", 1.0)]),
        ]

    def sync_rows(self):
        count = self.size["synced"]
        each = max(1, count // 4)
        eight = dict(threads=8, sync=1)
        return [
            Row("fsync each, one writer", "records/s", {
                OURS: lambda: self.append_ours(count, sync=1),
                "ext4 file": lambda: self.append_disk(count, sync=1),
                "SQLite FULL": lambda: self.append_sqlite(count, sync="full"),
                "Redis always": lambda: self.append_redis("always", count),
            }, goals=[("ext4 file", 0.9)]),
            Row("fsync each, 8 writers", "records/s", {
                OURS: lambda: self.append_ours(each, **eight),
                "ext4, 8 files": lambda: self.append_disk(each, **eight),
                "SQLite FULL, 4 writers": lambda: self.append_sqlite(max(1, each // 4), sync="full", threads=4),
            }, goals=[("ext4, 8 files", 0.8), ("SQLite FULL, 4 writers", 4)]),
            Row("-o sync, 8 writers", "records/s", {
                OURS: lambda: self.append_ours(each, mount=self.synced, threads=8),
                "ext4, 8 files": lambda: self.append_disk(each, **eight),
                "SQLite FULL, 4 writers": lambda: self.append_sqlite(max(1, each // 4), sync="full", threads=4),
            }, goals=[("ext4, 8 files", 0.8), ("SQLite FULL, 4 writers", 4)]),
        ]

    # ---- reading ----

    def records(self, directory, last, passes):
        """Opens, reads, closes; records that nobody has looked at since the mount, unless there are more passes."""
        count = min(self.size["records"], last)
        if passes > 1:
            first = 1
        else:
            first = self.read_up_to.get(directory, count) + 1
            if first + count - 1 > last:
                first = count + 1 if last >= 2 * count else 1  # the kernel may know some of them
            self.read_up_to[directory] = first + count - 1
        return rate(self.loads.file("records", dir=directory, first=first, last=first + count - 1, passes=passes))

    def record_row(self, name, passes):
        large = f"{self.ours.point}/sessions/{fill.LARGE}"
        contenders = {
            OURS: lambda: self.records(large, self.size["large"], passes),
            "nullfs": lambda: self.records(f"{self.null.point}/records", self.size["large"], passes),
        }
        goals = [("nullfs", 1.5)]
        if self.passthrough is not None:
            contenders["passthrough"] = lambda: self.records(self.passthrough.point, self.size["files"], passes)
            goals = [("passthrough", 1.5)] + goals
        return Row(name, "records/s", contenders, goals=goals)

    def list_directory(self, mount, path, option):
        mount.again()
        began = time.monotonic()
        return count_lines("ls", option, path) / (time.monotonic() - began)

    def list_row(self, name, option, factor):
        contenders = {
            OURS: lambda: self.list_directory(self.ours, f"{self.ours.point}/sessions/{fill.LARGE}", option),
            "nullfs": lambda: self.list_directory(self.null, f"{self.null.point}/records", option),
        }
        goals = []
        if self.passthrough is not None:
            contenders["passthrough"] = lambda: self.list_directory(self.passthrough, self.passthrough.point, option)
            goals = [("passthrough", factor)]
        return Row(name, "entries/s", contenders, goals=goals)

    def read_rows(self):
        def stream(path):
            self.loads.file("stream", path=path, bytes=self.size["stream"])
            return megabytes(self.loads.file("stream", path=path, bytes=self.size["stream"]))

        def scan():
            path = f"{self.top}/disk/scanned.db"
            if not os.path.exists(path):
                self.loads.sqlite("append", db=path, count=self.size["stream"] // 200, batch=10000)
            return megabytes(self.loads.sqlite("scan", db=path))

        return [
            self.record_row("open, read, close of a record, cold", 1),
            self.record_row("open, read, close of a record, warm", 2),
            self.list_row("ls -U, cold", "-U", 4),
            self.list_row("ls -lU, cold", "-lU", 2.5),
            Row("log read by 128 KiB", "MB/s", {
                OURS: lambda: stream(f"{self.ours.point}/sessions/{fill.LARGE}/log"),
                "nullfs": lambda: stream(f"{self.null.point}/log"),
                "SQLite, ordered scan": scan,
            }, goals=[(None, 2000), ("SQLite, ordered scan", 1.0)]),
        ]

    # ---- documents ----

    def set_ours(self):
        session = self.ours.session("documents")
        if not os.path.isdir(f"{session}/state"):
            raise Absent("state/ is not there")
        return rate(self.loads.file("set", dir=f"{session}/state", keys=self.size["keys"], count=self.size["set"]))

    def document_rows(self):
        return [Row("set of a document by file", "sets/s", {
            OURS: self.set_ours,
            "opslog": lambda: self.run_opslog("set", keys=self.size["keys"], count=self.size["set"]),
        }, goals=[("opslog", 2)])]

    # ---- a single append while much else goes on ----

    def latency(self, mount, append, bulk, listed, control):
        """p50, p99 and p99.9 in microseconds, beside a bulk writer, a lister and (if there is a control file) checkpoints."""
        program = f"{self.loads.programs}/load_file"
        loops = [f"while :; do '{program}' block path='{bulk}' bytes=50000000 block={fill.BATCH} >/dev/null; done",
                 f"while :; do ls -U '{listed}' >/dev/null; done"]
        if control:
            loops.append(f"while :; do echo checkpoint >'{control}'; done")
        with Ending.not_now(), beside(loops), Ending.may_come():
            found = self.loads.file("latency", path=append, seconds=self.size["latency"])
        return {name: found[name] for name in ("p50", "p99", "p999")}

    def latency_rows(self):
        def ours():
            mount = self.ours
            return self.latency(mount, f"{mount.session('latency')}/append", f"{mount.session('bulk')}/append",
                                mount.session(fill.LARGE), f"{mount.point}/.ctl")

        def null():
            point = self.null.point
            return self.latency(self.null, f"{point}/w0", f"{point}/w1", f"{point}/records", None)

        figures = {}

        def part(name, measure, which):
            if which == "p50":
                figures[name] = measure()
            return figures[name][which]

        return [Row(f"append beside bulk writer, lister, checkpoint: {which}", "µs", {
            OURS: lambda which=which: part(OURS, ours, which),
            "nullfs": lambda which=which: part("nullfs", null, which),
        }, better="less", goals=goals) for which, goals in (
            ("p50", []), ("p99", [("nullfs", 2)]), ("p999", [(None, 20000)]))]

    def idle_row(self):
        def idle():
            end = time.monotonic() + 60
            before, now = None, cpu_ns(self.ours.process.pid)
            while before != now and time.monotonic() < end:  # what the last work left to be done
                time.sleep(1.5)
                before, now = now, cpu_ns(self.ours.process.pid)
            time.sleep(self.size["idle"])
            return (cpu_ns(self.ours.process.pid) - now) / self.size["idle"] / 1e4

        return Row("CPU of an idle mount", "% of one", {OURS: idle}, better="less", goals=[(None, 0)], rounds=1)

    def all_rows(self):
        return (self.append_rows() + self.sync_rows() + self.read_rows() + self.document_rows() + self.latency_rows() +
                [self.idle_row()])


# ---- stores of other sizes ------------------------------------------------------------------------------


class Memory(threading.Thread):
    """Samples a process's own memory until told to stop; `peak` in bytes."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak, self.ended = pid, own_memory(pid), threading.Event()

    def run(self):
        while not self.ended.wait(0.02):
            try:
                self.peak = max(self.peak, own_memory(self.pid))
            except (OSError, KeyError):  # it has ended
                return

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join()


class Grown:
    """What depends on how much there is: a store of `count` records, and `documents`, measured as a whole."""

    # Of the largest store of the run: at most this.
    GOALS = {"mount, clean, ms": 100, "mount after kill -9, ms": 2000, "own memory at its peak, MiB": 64,
             "bytes on disk beyond a record's line": 56}

    def __init__(self, bench, make_mount, count, documents):
        self.bench, self.make_mount, self.count, self.documents = bench, make_mount, count, documents
        self.others = {}  # figures that only this size has, by name

    def measure(self):
        found = {}
        with Ending.not_now(), self.make_mount(f"grown-{self.count}") as mount, Ending.may_come():
            with Memory(mount.process.pid) as memory:
                began = time.monotonic()
                large = fill.append_records(mount.point, self.count, max(1, self.count // 10))
                found["filled by root append, records/s"] = self.count / (time.monotonic() - began)
            peak = memory.peak
            mount.again()  # so that all is in the index
            found["bytes on disk beyond a record's line"] = self.overhead(mount) / self.count
            with Memory(mount.process.pid) as memory:
                if self.documents:
                    fill.append_documents(mount.point, self.documents)
                self.appends(mount, found)
            peak = max(peak, memory.peak)
            if self.documents:
                self.measure_documents(mount, found["bytes on disk beyond a record's line"])
            mount.again()
            with Memory(mount.process.pid) as memory:
                self.reads(mount, large, found)
            found["own memory at its peak, MiB"] = max(peak, memory.peak) / (1 << 20)
            self.openings(mount, found)
        mount.forget()
        return found

    def appends(self, mount, found):
        size, loads = self.bench.size, self.bench.loads
        append = f"{mount.session('new')}/append"
        found["append, records/s"] = rate(loads.file("append", path=append, count=size["append"]))
        found["open, write, close, records/s"] = rate(loads.file("echo", path=append, count=size["echo"]))

    def reads(self, mount, large, found):
        size, loads = self.bench.size, self.bench.loads
        session = f"{mount.point}/sessions/{fill.LARGE}"
        count = min(size["records"], large)
        first = random.Random(self.count).randrange(1, large - count + 2)
        found["open, read, close, cold, records/s"] = rate(
            loads.file("records", dir=session, first=first, last=first + count - 1))
        limit = dict(bytes=size["stream"])
        loads.file("stream", path=f"{session}/log", **limit)
        found["log read, MB/s"] = megabytes(loads.file("stream", path=f"{session}/log", **limit))
        began = time.monotonic()
        found["ls -U, entries/s"] = count_lines("ls", "-U", session) / (time.monotonic() - began)

    def openings(self, mount, found):
        mount.stop()
        found["mount, clean, ms"] = mount.start() * 1e3
        append = f"{mount.session('last')}/append"
        self.bench.loads.file("block", path=append, bytes=self.bench.size["unflushed"], block=fill.BATCH)
        mount.kill()
        found["mount after kill -9, ms"] = mount.start() * 1e3

    @staticmethod
    def overhead(mount):
        """Bytes of log and index that are not lines."""
        status = mount.status()
        return status["log_bytes"] + status["index_bytes"] - status["bytes"]

    def measure_documents(self, mount, of_record):
        """What a document takes beyond its record: its value's place, its history, how it is undone."""
        mount.again()
        more = self.overhead(mount) - mount.status()["records"] * of_record
        self.others["bytes on disk beyond a document's line"] = of_record + more / self.documents


def opslog_opened(bench, count):
    """opslog's own start with `count` documents: milliseconds, and its own memory in MiB."""
    path = bench.disk("opslog")
    bench.opslog.run("batch", dir=path, count=count, batch=1000)
    result = bench.opslog.run("open", dir=path)
    shutil.rmtree(path)
    return {"opslog: open, ms": result["seconds"] * 1e3, "opslog: own memory, MiB": result["memory"] / (1 << 20)}


def others_on_disk(bench, count):
    """Bytes that the others take for a line of 200."""
    path = bench.disk("db")
    bench.loads.sqlite("append", db=path, count=count, batch=1000)
    found = {"SQLite: bytes on disk beyond a line": os.path.getsize(path) / count - 199}
    os.unlink(path)
    if "everysec" in bench.redis:
        redis = bench.redis["everysec"]
        before = disk_bytes(redis.dir)
        bench.loads.redis(socket=redis.socket, count=count, depth=1000)
        found["Redis: bytes on disk beyond a line"] = (disk_bytes(redis.dir) - before) / count - 199
    return found
