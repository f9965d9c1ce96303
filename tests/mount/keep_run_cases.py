"""Cases of test_keep_runs.sh: compactions that are watched, stopped and cut short, and what is done by hand to their
files. Arguments: MOUNT, and what a case names."""
import contextlib
import errno
import glob
import json
import os
import pty
import select
import shutil
import signal
import subprocess

import hl
from hl import case, fails, new_session, read, wait_for
from keep_cases import ctl, fill, holders, lines_in, running, seqs


def status(mount):
    return json.loads(read(f"{mount}/.status"))


def log_files(directory):
    return {name: os.stat(f"{directory}/log/{name}").st_ino for name in os.listdir(f"{directory}/log")}


def expect_sound(mount):
    verified = ctl(mount, "verify")
    assert verified["damaged_gaps"] + verified["index_missing"] + verified["index_dangling"] == 0, verified


# ---- programs that follow ---------------------------------------------------------------------------


@case
def tail_by_name(mount):
    """tail -F misses nothing; where records are dropped, it begins the new file from its start, as it does after logrotate."""
    s = new_session(mount, "byname")
    fill(s, 1, 100)
    out = os.environ["T_DIR"] + "/tail-F"
    with running("tail", "-n", "+1", "-s", "0.05", "-F", f"{s}/log", out=out) as process:
        wait_for(lambda: len(lines_in(out)) == 100, "tail's first lines")
        ctl(mount, "compact")
        fill(s, 101, 150)
        wait_for(lambda: len(lines_in(out)) == 150, "tail, of what came after a compaction")
        ctl(mount, "trim byname 141")
        ctl(mount, "compact")
        fill(s, 151, 160)
        wait_for(lambda: seqs(b"\n".join(lines_in(out)))[-1] == 160 and len(lines_in(out)) >= 170, "the new file")
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
        assert b"has been replaced" in said, said
    got = seqs(read(out))
    again = got.index(141, got.index(141) + 1)  # the new file begins
    assert got[again:] == list(range(141, 161)), got[again:]
    assert got[:again] in (list(range(1, last + 1)) for last in range(150, 161)), got[:again]


@case
def less_follows(mount):
    """less +F goes on where records are dropped behind it, and segments are rewritten."""
    for name, path in (("less", f"{mount}/sessions/less/log"), ("root", f"{mount}/log")):
        s = new_session(mount, "less" if name == "less" else "less2")
        fill(s, 1, 200, 200)
        pid, terminal = pty.fork()
        if pid == 0:
            os.execvpe("less", ["less", "+F", path], dict(os.environ, TERM="xterm", LESS="", LESSSECURE="1"))
        shown = b""
        try:
            for n in range(1, 8):
                hl.append(s, b'{"mark":"%d of less"}\n' % n)
                while b"%d of less" % n not in shown:
                    assert select.select([terminal], [], [], 180)[0], f"{name}: less shows nothing of {n}: {shown[-300:]}"
                    shown += os.read(terminal, 4096)
                if n in (2, 4, 6):
                    ctl(mount, f"trim {os.path.basename(s)} {190 + n}")
                if n in (3, 4, 5):
                    ctl(mount, "compact")
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(terminal)
        for n in range(1, 8):  # a line that came is shown once
            assert shown.count(b"%d of less" % n) == 1, (name, n, shown[-2000:])


# ---- an erase that is cut short ---------------------------------------------------------------------


@case
def erase_and_kill(mount, daemon, directory, name):
    """Begins to erase a session, and kills the daemon when it is deleted. Prints whether the erase had ended by then."""
    marker = b"mArKeR-" + name.encode()
    s, other = new_session(mount, name), f"{mount}/sessions/other"
    if not os.path.exists(other):
        os.mkdir(other)
    for i in range(12):
        hl.append(s, b'{"payload":"%s"}\n' % (marker * 50) * 200)
        hl.append(s, b'{"op":"set","key":"k%d","value":"%s"}\n' % (i, marker))
        last = json.loads(read(f"{other}/meta"))["last_seq"] or 0
        fill(other, last + 1, last + 2000, 200)
        if i % 4 == 3:
            ctl(mount, "checkpoint")
    with open(os.environ["T_DIR"] + "/other.log", "wb") as to:
        to.write(read(f"{other}/log"))
    number = json.loads(read(f"{s}/meta"))["number"]
    wait_for(lambda: status(mount)["erasing"] == [], "the erase before this one to go on")
    with subprocess.Popen(["sh", "-c", 'echo "erase $1" >"$2"', "sh", name, f"{mount}/.ctl"],
                          stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: not os.path.exists(s), "the session to be deleted")
        seen = status(mount)["erasing"]
        os.kill(int(daemon), signal.SIGKILL)
        process.wait(180)
    assert seen in ([number], []), seen
    print(number if os.path.exists(f"{directory}/erasing") and holders(directory, marker) else "ended")


@case
def erase_goes_on(mount, directory, name):
    """By itself, after the next start."""
    wait_for(lambda: status(mount)["erasing"] == [], "the erase to go on")
    expect_erased(mount, directory, name)
    with fails(errno.ENOENT):
        ctl(mount, f"erase {name}")


@case
def erase_waits(mount, directory, name, number):
    """It cannot go on: .status has it, and bytes are left."""
    assert status(mount)["erasing"] == [int(number)], status(mount)["erasing"]
    assert holders(directory, b"mArKeR-" + name.encode())
    with fails(errno.EBUSY):
        ctl(mount, f"erase {name}")
    assert status(mount)["erasing"] == [int(number)], status(mount)["erasing"]


@case
def erase_by_name(mount, directory, name, number):
    """The command goes on, by the name."""
    assert ctl(mount, f"erase {name}")["number"] == int(number)
    assert status(mount)["erasing"] == []
    expect_erased(mount, directory, name)


def expect_erased(mount, directory, name):
    assert not os.path.exists(f"{mount}/sessions/{name}")
    assert holders(directory, b"mArKeR-" + name.encode()) == []
    assert holders(directory, name.encode() + b'"') == []
    assert read(f"{mount}/sessions/other/log") == read(os.environ["T_DIR"] + "/other.log")
    expect_sound(mount)


# ---- runs -------------------------------------------------------------------------------------------


@case
def by_interval_and_threshold(mount):
    """The scheduler comes every interval, and rewrites only where enough is dead: with half of each segment it is not."""
    one, two = new_session(mount, "half"), new_session(mount, "other")
    for first in range(1, 3001, 10):
        fill(one, first, first + 9, 300)
        fill(two, first, first + 9, 300)
    ctl(mount, "rotate")
    size = json.loads(read(f"{one}/meta"))["bytes"]
    ctl(mount, "trim half 3000")
    runs = status(mount)["compactions"]
    wait_for(lambda: status(mount)["compactions"] >= runs + 2, "two runs")
    now = status(mount)
    assert now["freed_bytes"] == 0 and now["dead_bytes"] > size / 2 and now["compact_last_ms"] > 0, now
    assert now["compact_next_ms"] > 0 and now["compact_error"] is None, now
    ctl(mount, "trim other 2900")
    wait_for(lambda: status(mount)["freed_bytes"] > size, "a run with enough that is dead")
    wait_for(lambda: status(mount)["dead_bytes"] < size / 8, "what is left to be little")
    assert seqs(read(f"{two}/log")) == list(range(2900, 3001))
    expect_sound(mount)


@case
def of_one_session(mount, directory):
    """`compact SESSION` leaves segments alone in which nothing of it is dead."""
    one, two = new_session(mount, "one"), new_session(mount, "two")
    for s in (one, two):
        ctl(mount, "rotate")
        fill(s, 1, 400, 100)
    ctl(mount, "rotate")
    ctl(mount, "trim one 390")
    ctl(mount, "trim two 390")
    before, kept = log_files(directory), [read(f"{s}/log") for s in (one, two)]
    result = ctl(mount, "compact one")
    assert result["session"] == "one" and result["segments_before"] > 0 and result["bytes_after"] < result["bytes_before"], result
    after = log_files(directory)
    gone = set(before) - set(after)
    assert gone, (before, after)
    old = b"".join(read(f"{directory}/backup/{name}") for name in gone)
    assert b'"session_id":"one"' in old and b'"session_id":"two"' not in old
    assert ctl(mount, "compact two")["segments_before"] > 0
    assert [read(f"{s}/log") for s in (one, two)] == kept
    expect_sound(mount)


def make_dead(mount, name, segments):
    """A session with many segments, nearly all of which is dead."""
    s = new_session(mount, name)
    last = 0
    for _ in range(segments):
        fill(s, last + 1, last + 200, 300)
        last += 200
    ctl(mount, f"trim {name} {last - 20}")
    return s, last


@case
def interrupted(mount):
    """A compaction by command ends with who gave it; what was rewritten stays, the rest is done later."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        for turn in range(50):
            s, last = make_dead(mount, f"int{number}-{turn}", 60)
            process = subprocess.Popen(["sh", "-c", 'exec >"$1"; echo compact', "sh", f"{mount}/.ctl"], stderr=subprocess.DEVNULL)
            while process.poll() is None and not (status(mount)["running"] or {}).get("done"):
                pass
            process.send_signal(number)
            process.wait(180)
            wait_for(lambda: not status(mount)["running"], "the command to end")
            assert seqs(read(f"{s}/log")) == list(range(last - 20, last + 1))
            result = json.loads(read(f"{mount}/.ctl").splitlines()[-1])
            if process.returncode == -number and not result["ok"]:
                break  # else it was through before the signal, or before its writer ended
        assert process.returncode == -number and not result["ok"], "no compaction was interrupted"
        assert result["command"] == "compact" and result["errno"] == "EINTR" and "stays" in result["error"], result
        expect_sound(mount)
        assert ctl(mount, "compact")["ok"]
        expect_sound(mount)


@case
def stopped(mount):
    """`compact stop` ends the run of the scheduler; it is told, nothing is lost, and the next one goes on."""
    for turn in range(50):
        freed = status(mount)["freed_bytes"]
        s, last = make_dead(mount, f"stop{turn}", 60)
        wait_for(lambda: status(mount)["freed_bytes"] > freed, "a run")
        assert ctl(mount, "compact stop")["ok"]
        wait_for(lambda: status(mount)["compacting"] is None, "the run to end")
        assert seqs(read(f"{s}/log")) == list(range(last - 20, last + 1))
        error = status(mount)["compact_error"]
        if error == "EINTR":
            break
    assert error == "EINTR", "no run was stopped"
    wait_for(lambda: status(mount)["compact_error"] is None and not status(mount)["compacting"], "the next run")
    assert seqs(read(f"{s}/log")) == list(range(last - 20, last + 1))
    expect_sound(mount)


# ---- by hand ----------------------------------------------------------------------------------------


@case
def drops_of_all_kinds(mount):
    """A store in which all was done that takes records away: what it shows is kept, to be compared."""
    for name in ("kept", "trimmed", "deleted", "erased"):
        s = new_session(mount, name)
        fill(s, 1, 600, 100)
        for i in range(40):
            hl.append(s, b'{"op":"%s","key":"k%d","value":%d}\n' % (b"set" if i % 5 else b"delete", i % 7, i)
                      if i % 5 else b'{"op":"set","key":"k%d","value":0}\n' % (i % 7))
        os.unlink(f"{s}/state/k1")
        ctl(mount, f"undo {name} 2")
    ctl(mount, "rotate")
    ctl(mount, "checkpoint")
    ctl(mount, "trim trimmed 500")
    ctl(mount, "delete deleted")
    ctl(mount, "compact")
    fill(f"{mount}/sessions/kept", 700, 900, 100)
    ctl(mount, "rotate")
    ctl(mount, "trim kept 300")
    ctl(mount, "compact")
    ctl(mount, "erase erased")
    fill(f"{mount}/sessions/trimmed", 700, 900, 100)
    ctl(mount, "trim trimmed 600")  # in the log and the index, and its bytes still there


@case
def shown(mount):
    """Prints what the mount shows: sessions, their records, documents."""
    found = {}
    for top, folders, names in os.walk(f"{mount}/sessions"):
        folders.sort()
        for name in names:
            if name not in ("append", "last_error", "meta"):
                with contextlib.suppress(FileNotFoundError):
                    found[f"{top}/{name}"[len(mount):]] = read(f"{top}/{name}").decode()
    print(json.dumps(found, sort_keys=True))
    expect_sound(mount)


@case
def copy_back(directory):
    """Every segment of backup/ goes back to log/, by hand."""
    files = [path for path in glob.glob(f"{directory}/backup/*.seg")]
    assert files, os.listdir(f"{directory}/backup")
    for path in files:
        shutil.copy(path, f"{directory}/log/{os.path.basename(path)}")
    print(len(files))


hl.main()
