"""The parts of test_snapshot.sh that a shell cannot do: writers that know what was acknowledged, and what a
snapshot must show of it."""
import json
import os
import subprocess
import sys
import threading
import time

import hl

WRITERS = 4
LINES = 3  # a batch


def snapshot(mount, name):
    fd = os.open(f"{mount}/.ctl", os.O_WRONLY)
    try:
        os.write(fd, f"snapshot {name}\n".encode())
    finally:
        os.close(fd)


class Writer(threading.Thread):
    """Appends batches of LINES lines until told to stop, or until the mount is gone."""

    def __init__(self, mount, number, stop, batch=0):
        super().__init__(daemon=True)
        self.path, self.stop = f"{mount}/sessions/w{number}/append", stop
        self.batches = batch  # acknowledged

    def run(self):
        try:
            fd = os.open(self.path, os.O_WRONLY)
            while not self.stop.is_set():
                text = "".join(f'{{"batch":{self.batches},"line":{line},"pad":"{"x" * 80}"}}\n' for line in range(LINES))
                if os.write(fd, text.encode()) != len(text):
                    sys.exit("a batch was cut")
                self.batches += 1
        except OSError:
            pass


def start_writers(mount, batches=None):
    stop = threading.Event()
    writers = [Writer(mount, i, stop, batches[i] if batches else 0) for i in range(WRITERS)]
    for writer in writers:
        writer.start()
    return writers, stop


def wait_for_more(writers, more):
    goal = sum(w.batches for w in writers) + more
    end = time.monotonic() + 180
    while sum(w.batches for w in writers) < goal:
        if time.monotonic() > end:
            sys.exit("the writers do not get on")
        time.sleep(0.001)


@hl.case
def load(mount, journal, count):
    """Takes `count` snapshots while four append; the journal says what each must and may hold."""
    for i in range(WRITERS):
        os.makedirs(f"{mount}/sessions/w{i}", exist_ok=True)
    writers, stop = start_writers(mount)
    known = []
    for number in range(int(count)):
        wait_for_more(writers, 100)
        before = [w.batches for w in writers]
        snapshot(mount, f"n{number}")
        known.append({"name": f"n{number}", "least": before, "most": [w.batches + 1 for w in writers]})
    stop.set()
    for writer in writers:
        writer.join(180)
    with open(journal, "w") as file:
        json.dump(known, file)


@hl.case
def check(mount, journal, name):
    """The mounted snapshot holds a prefix of each writer's records, whole batches, and nothing else."""
    with open(journal) as file:
        entry = next(entry for entry in json.load(file) if entry["name"] == name)
    total = 0
    for i in range(WRITERS):
        total += check_session(f"{mount}/sessions/w{i}", entry["least"][i], entry["most"][i])
    with open(f"{mount}/log", "rb") as file:
        assert sum(1 for _ in file) == total


def check_session(folder, least, most):
    with open(f"{folder}/log") as file:
        lines = [json.loads(line) for line in file]
    assert len(lines) % LINES == 0, f"{len(lines)} records"
    assert least * LINES <= len(lines) <= most * LINES, f"{len(lines)} records, of {least} to {most} batches"
    for at, line in enumerate(lines):
        assert (line["seq"], line["batch"], line["line"]) == (at + 1, at // LINES, at % LINES), line
    return len(lines)


@hl.case
def kill(mount, pid, round_number, journal):
    """The daemon is killed at a random moment of a snapshot, while others append."""
    rng = hl.seeded()
    for i in range(WRITERS):
        os.makedirs(f"{mount}/sessions/w{i}", exist_ok=True)
    begin = []
    for i in range(WRITERS):
        with open(f"{mount}/sessions/w{i}/log", "rb") as file:
            begin.append(sum(1 for _ in file) // LINES)
    writers, stop = start_writers(mount, begin)
    wait_for_more(writers, 50)
    before = [w.batches for w in writers]
    taker = subprocess.Popen(
        [sys.executable, __file__, "take", mount, f"k{round_number}"], stderr=subprocess.DEVNULL)
    folder, end = f"{os.environ['DIR']}/snapshots", time.monotonic() + 180
    while True:
        over = taker.poll() is not None  # looked at first: it may be quick
        if os.path.exists(f"{folder}/.new") or os.path.exists(f"{folder}/k{round_number}"):
            break
        assert time.monotonic() < end and not over, "no snapshot was begun"
    end = time.monotonic() + rng.random() ** 3 * 0.02  # a moment at random, not a wait
    while time.monotonic() < end:
        pass
    os.kill(int(pid), 9)
    stop.set()
    taken = taker.wait() == 0
    for writer in writers:
        writer.join(180)
    with open(journal, "w") as file:
        json.dump([{"name": f"k{round_number}", "least": before, "most": [w.batches + 1 for w in writers], "taken": taken}], file)


@hl.case
def take(mount, name):
    snapshot(mount, name)


@hl.case
def was_taken(journal):
    """Whether the command had been answered with success when the daemon was killed."""
    with open(journal) as file:
        print("yes" if json.load(file)[0]["taken"] else "no")


hl.main()
