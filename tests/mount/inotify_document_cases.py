"""What inotify tells of documents: the parts of test_inotify_documents.sh that a shell cannot do."""
import collections
import contextlib
import errno
import json
import multiprocessing
import os
import random
import subprocess
import time

import hl
import watch
from hl import case, read
from watch import CLOSE_WRITE, CREATE, DELETE, MODIFY, OPEN

MOVED_FROM, MOVED_TO = 0x40, 0x80
NAMES = {CREATE: "CREATE", OPEN: "OPEN", MODIFY: "MODIFY", CLOSE_WRITE: "CLOSE_WRITE", DELETE: "DELETE",
         MOVED_FROM: "MOVED_FROM", MOVED_TO: "MOVED_TO"}
ALL = sum(NAMES)
MADE = ["CREATE", "OPEN", "MODIFY", "CLOSE_WRITE"]
CHANGED = ["OPEN", "MODIFY", "CLOSE_WRITE"]
DELETED = ["DELETE"]
END = "the-end"  # a key that is set to know that all before it was told


def op(session, *operations):
    """Appends operations in one write, which is one batch."""
    hl.append(session, b"".join(json.dumps(o, ensure_ascii=False).encode() + b"\n" for o in operations))


def set_op(key, value):
    return {"op": "set", "key": key, "value": value}


def delete_op(key):
    return {"op": "delete", "key": key}


def status(mount):
    return json.loads(read(f"{mount}/.status"))


class Watch:
    """The events of a state/, until a key set to that end has been told."""

    def __init__(self, session, mask=ALL, seen=None):
        self.session = session
        self.inotify = watch.Inotify()
        self.inotify.add(f"{seen or session}/state", mask)
        self.ends = 0

    def take(self):
        """All since the last time, as (what, name)."""
        self.ends += 1
        name = f"{END}-{os.getpid()}-{self.ends}"
        op(self.session, set_op(name, 0))
        return self.until(name)

    def until(self, last):
        got = self.inotify.until(lambda event: event[2] == last and event[1] & CLOSE_WRITE)
        events = []
        for _, mask, name in got:
            if mask & watch.ISDIR:
                continue  # somebody lists the directory
            assert mask in NAMES, (hex(mask), name)
            if not name.startswith(END) and name != last:
                events.append((NAMES[mask], name))
        return events

    def expect(self, *want):
        """Exactly these events: each (list of events, name)."""
        events = [(what, name) for whats, name in want for what in whats]
        got = self.take()
        assert got == events, f"got  {got}\nwant {events}"


# ---- one after another --------------------------------------------------------------------------------


@case
def each(mount):
    s = hl.new_session(mount, "each")
    w = Watch(s)
    op(s, set_op("a", 1))
    w.expect((MADE, "a"))
    op(s, set_op("a", 2))
    w.expect((CHANGED, "a"))
    op(s, delete_op("a"))
    w.expect((DELETED, "a"))
    op(s, delete_op("a"))  # of what is not there: logged, and nothing changed
    hl.append(s, b"an event\n")
    w.expect()
    # Each change in its turn, though many wait.
    for n in range(20):
        op(s, set_op("a", n))
        op(s, set_op("a", -n))
        op(s, delete_op("a"))
    w.expect(*[(MADE, "a"), (CHANGED, "a"), (DELETED, "a")] * 20)
    # What a batch did, not how it went about it.
    op(s, set_op("a", 1), set_op("b", 1), set_op("a", 2), delete_op("b"), set_op("c", 3))
    got = w.take()
    assert sorted(got) == sorted([(what, name) for name in "ac" for what in MADE]), got
    op(s, delete_op("a"), set_op("a", 5))
    w.expect((CHANGED, "a"))


@case
def by_files(mount):
    s = hl.new_session(mount, "files")
    w = Watch(s)
    state = f"{s}/state"

    def shell(command):
        subprocess.run(["bash", "-c", command], check=True, cwd=state)

    shell("echo 1 > k")
    w.expect((MADE, "k"))
    shell("echo 2 > k")
    got = w.take()
    assert got in ([(what, "k") for what in CHANGED], [(what, "k") for what in ["MODIFY"] + CHANGED]), got
    shell("mv k l")
    w.expect((["MOVED_FROM"], "k"), (["MOVED_TO"], "l"))
    shell("rm l")
    w.expect((DELETED, "l"))
    shell("echo 3 > .tmp && mv .tmp k")
    w.expect((MADE, ".tmp"), (["MOVED_FROM"], ".tmp"), (["MOVED_TO"], "k"))
    os.mkdir(f"{s}/archive/x")
    w.expect()
    shell("mv k ../archive/x/")
    w.expect((["MOVED_FROM"], "k"))
    shell("mv ../archive/x/k m")
    w.expect((["MOVED_TO"], "m"))
    # And operations on what files made.
    op(s, set_op("m", 2))
    w.expect((CHANGED, "m"))
    op(s, delete_op("m"))
    w.expect((DELETED, "m"))


@case
def all_operations(mount):
    s = hl.new_session(mount, "operations")
    w = Watch(s)

    def expect_sorted(*want):
        got = sorted(e for e in w.take())
        assert got == sorted((what, name) for whats, name in want for what in whats), got

    op(s, {"op": "checkpoint", "state": {"a": 1, "b": 2, "c": 3}})
    expect_sorted((MADE, "a"), (MADE, "b"), (MADE, "c"))
    op(s, {"op": "archive", "name": "x", "keys": ["a", "b"]})
    w.expect((DELETED, "a"), (DELETED, "b"))
    op(s, {"op": "restore", "name": "x", "keys": ["b"], "as": ["d"]})
    w.expect((MADE, "d"))
    op(s, {"op": "archive", "name": "x", "keys": ["c"], "as": ["a"]})
    w.expect((DELETED, "c"))
    op(s, set_op("d", 5))
    w.expect((CHANGED, "d"))

    def undo(session, count):
        # What w.take() set is undone first.
        with open(f"{mount}/.ctl", "w") as file:
            file.write(f"undo {session} {count}\n")

    op(s, set_op("d", 6), set_op("e", 7))
    w.expect((CHANGED, "d"), (MADE, "e"))
    undo("operations", 3)  # of e, d, and of the key that ended the last look
    got = w.take()
    assert got == [(what, name) for whats, name in ((DELETED, "e"), (CHANGED, "d")) for what in whats], got
    op(s, {"op": "checkpoint", "state": {"f": 1, "d": 2}})
    got = {e for e in w.take()}
    assert got == {(what, name) for whats, name in ((MADE, "f"), (CHANGED, "d")) for what in whats}, got


@case
def names(mount):
    s = hl.new_session(mount, "keys/%".replace("%", "%25").replace("/", "%2F"))
    w = Watch(s)
    for key, name in (("a/b", "a%2Fb"), ("100%", "100%25"), (".", "%2E"), ("..", "%2E%2E"), ("x\ny", "x%0Ay"),
                      ("日本", "日本"), ("with blank", "with blank"), ("a" * 255, "a" * 255)):
        op(s, set_op(key, 1))
        op(s, set_op(key, 2))
        op(s, delete_op(key))
        w.expect((MADE, name), (CHANGED, name), (DELETED, name))


@case
def on_the_file(mount):
    s = hl.new_session(mount, "file")
    op(s, set_op("k", 1))
    w = Watch(s)
    w.take()
    file = watch.Inotify()
    file.add(f"{s}/state/k", MODIFY | CLOSE_WRITE | watch.DELETE_SELF)
    op(s, set_op("k", 2))
    w.take()
    assert [mask for _, mask, _ in file.read(0)] == [MODIFY, CLOSE_WRITE]
    assert read(f"{s}/state/k") == b"2\n"
    op(s, delete_op("k"))
    file.until(lambda event: event[1] & watch.DELETE_SELF)


# ---- at once --------------------------------------------------------------------------------------------


def looker(path, end, seed):
    """Stats, reads and lists what may be there."""
    rng = random.Random(seed)
    held = collections.deque()
    while not end.is_set():
        name = f"{path}/k{rng.randrange(4)}"
        try:
            what = rng.random()
            if what < 0.4:
                os.stat(name)
            elif what < 0.9:
                fd = os.open(name, os.O_RDONLY)
                held.append(fd)
                assert json.loads(os.read(fd, 4096)) is not None
                if len(held) > 20:
                    os.close(held.popleft())
            else:
                os.listdir(path)
        except OSError as failure:
            # ESTALE: it went twice while it was opened, and the kernel tries no more than that.
            assert failure.errno in (errno.ENOENT, errno.ESTALE), failure


@contextlib.contextmanager
def lookers(path, rng, count=4):
    end = multiprocessing.Event()
    processes = [multiprocessing.Process(target=looker, args=(path, end, rng.randrange(1 << 32)), daemon=True)
                 for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        end.set()
        for process in processes:
            process.join(180)
        assert all(process.exitcode == 0 for process in processes), [p.exitcode for p in processes]


@case
def race(mount, rounds):
    """Keys that are set, changed and deleted while others look at them: the events of each are what was done to
    it, in order, no more and no less."""
    rng = hl.seeded()
    s = hl.new_session(mount, "race")
    w = Watch(s, CREATE | MODIFY | CLOSE_WRITE | DELETE)
    want, there = collections.defaultdict(list), set()
    with lookers(f"{s}/state", rng):
        for n in range(int(rounds)):
            batch = []
            for key in rng.sample(["k0", "k1", "k2", "k3"], rng.choice([1, 1, 2])):
                if key in there and rng.random() < 0.5:
                    batch.append(delete_op(key))
                    there.discard(key)
                    want[key] += DELETED
                else:
                    batch.append(set_op(key, n))
                    want[key] += ["MODIFY", "CLOSE_WRITE"] if key in there else ["CREATE", "MODIFY", "CLOSE_WRITE"]
                    there.add(key)
            op(s, *batch)
            if rng.random() < 0.3:
                time.sleep(rng.random() * 0.03)
        got = collections.defaultdict(list)
        for what, name in w.take():
            got[name].append(what)
    for key in want:
        # The kernel joins two equal events that follow one another.
        assert squeeze(got[key]) == squeeze(want[key]), difference(got[key], want[key])
    assert status(mount)["announcements_skipped"] == 0


def squeeze(events):
    return [what for at, what in enumerate(events) if at == 0 or events[at - 1] != what]


def difference(got, want):
    at = next((n for n, (g, w) in enumerate(zip(got, want)) if g != w), min(len(got), len(want)))
    return f"at {at} of {len(want)}: got {got[at - 5:at + 10]}, want {want[at - 5:at + 10]}"


@case
def readable(mount, rounds):
    """Whoever is told that a document was made finds it there, and gone when told so, if nothing else comes."""
    rng = hl.seeded()
    s = hl.new_session(mount, "readable")
    w = Watch(s, CREATE | DELETE)
    with lookers(f"{s}/state", rng):
        for n in range(int(rounds) // 4):
            op(s, set_op("k0", n))
            w.inotify.until(lambda event: event[1] == CREATE and event[2] == "k0")
            assert read(f"{s}/state/k0") == b"%d\n" % n
            op(s, delete_op("k0"))
            w.inotify.until(lambda event: event[1] == DELETE and event[2] == "k0")
            assert not os.path.exists(f"{s}/state/k0")


def fold(known, events):
    """What a watcher takes to be there, who knew that."""
    there = set(known)
    for what, name in events:
        if what in ("CREATE", "MOVED_TO"):
            there.add(name)
        elif what in ("DELETE", "MOVED_FROM"):
            there.discard(name)
    return there


@case
def mixed(mount, rounds):
    """Files and operations on the same keys, as fast as it goes: at the end a watcher knows what is there, and what
    is in it was told last."""
    rng = hl.seeded()
    s = hl.new_session(mount, "mixed")
    state = f"{s}/state"
    w, known = Watch(s, ALL & ~OPEN), set()
    keys = ["k0", "k1", "k2"]

    def by_file():
        key, other, kind = rng.choice(keys), rng.choice(keys), rng.random()
        try:
            if kind < 0.5:
                did = f"write {key}"
                with open(f"{state}/{key}", "w") as file:
                    file.write(f"{rng.randrange(100)}\n")
            elif kind < 0.8:
                did = f"unlink {key}"
                os.unlink(f"{state}/{key}")
            else:
                did = f"rename {key} {other}"
                os.rename(f"{state}/{key}", f"{state}/{other}")
        except FileNotFoundError:
            did += " in vain"
        return did

    with lookers(state, rng, 1):
        for _ in range(int(rounds) // 10):
            did = []
            for _ in range(rng.randrange(1, 12)):
                key = rng.choice(keys)
                if rng.random() < 0.5:
                    did.append(by_file())
                elif rng.random() < 0.5:
                    op(s, set_op(key, rng.randrange(100)))
                    did.append(f"set {key}")
                else:
                    op(s, delete_op(key))
                    did.append(f"delete {key}")
                if rng.random() < 0.2:
                    time.sleep(rng.random() * 0.02)
            events = w.take()
            knew, known = known, fold(known, events)
            there = {name for name in os.listdir(state) if not name.startswith(END)}
            assert known == there, f"knew {knew}\ndid {did}\nevents {events}\nnow {there}"


@case
def elsewhere(mount, session, seen):
    """On another mount of the store all comes as operations."""
    rng = hl.seeded()
    s, r = f"{mount}/sessions/{session}", f"{seen}/sessions/{session}"
    w = Watch(s, CREATE | MODIFY | CLOSE_WRITE | DELETE, seen=r)
    with lookers(f"{r}/state", rng, 2):
        for n in range(30):
            op(s, set_op("k1", n))
            with open(f"{s}/state/k2", "w") as file:
                file.write(f"{n}\n")
            os.rename(f"{s}/state/k2", f"{s}/state/k3")
            op(s, delete_op("k1"), set_op("k0", n))
            os.unlink(f"{s}/state/k3")
        got = collections.Counter(w.take())
    want = collections.Counter()
    for name, times in (("k1", 30), ("k2", 30), ("k3", 30)):
        want.update({(what, name): times for what in ("CREATE", "MODIFY", "CLOSE_WRITE", "DELETE")})
    want.update({("CREATE", "k0"): 1, ("MODIFY", "k0"): 30, ("CLOSE_WRITE", "k0"): 30})
    assert got == want, (got - want, want - got)
    assert read(f"{r}/state/k0") == b"29\n"


@case
def overflow(mount):
    s = hl.new_session(mount, "overflow")
    w = Watch(s, CREATE | CLOSE_WRITE | DELETE)
    before = status(mount)
    count = 6000
    fd = hl.appender(s)
    hl.write_all(fd, json.dumps({"op": "checkpoint", "state": {f"k{n}": n for n in range(count)}}).encode() + b"\n")
    os.close(fd)
    got = w.take()
    after = hl.wait_for(lambda: (t := status(mount))["announcements_waiting"] == 0 and t, "all to be told")
    told = after["announcements_told"] - before["announcements_told"]
    skipped = after["announcements_skipped"] - before["announcements_skipped"]
    assert told + skipped == count + 1 + 2, (told, skipped)  # two records, and the key that ends the look
    created = [name for what, name in got if what == "CREATE"]
    most = after["options"]["announce_max"]
    assert created == [f"k{n}" for n in range(count - len(created), count)] and most - 10 <= len(created) <= most


@case
def silent(mount):
    s = hl.new_session(mount, "silent")
    inotify = watch.Inotify()
    inotify.add(f"{s}/state", ALL)
    for n in range(50):
        op(s, set_op("k", n))
        op(s, delete_op("k"))
    op(s, set_op("k", 1))
    assert read(f"{s}/state/k") == b"1\n"
    assert not [event for event in inotify.read(0.1) if event[1] != OPEN]


if __name__ == "__main__":
    hl.main()
