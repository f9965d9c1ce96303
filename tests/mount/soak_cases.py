"""A mount under everything at once, taken away in every way, again and again: nothing may hang."""
import errno
import json
import multiprocessing
import os
import random
import select
import signal
import subprocess
import sys
import time
import traceback

import hl
import watch
from hl import case

SESSIONS = [f"s{n}" for n in range(4)]
STRANGER = 65534
PATIENCE = 180  # seconds; whoever takes longer to end hangs
GONE = (errno.ENOTCONN, errno.ECONNABORTED, errno.ENOENT, errno.EIO, errno.ESTALE, errno.EBADF)


def writer(mount, rng, end, acknowledged):
    session = rng.choice(SESSIONS)
    fd = hl.appender(f"{mount}/sessions/{session}")
    while not end.is_set():
        count = rng.choice((1, 1, 1, 5, 200))
        os.write(fd, b'{"kind":"Message","n":1}\n' * count)
        with acknowledged[session].get_lock():
            acknowledged[session].value += count
        if rng.random() < 0.02:
            os.fsync(fd)
        time.sleep(rng.choice((0, 0, 0.001, 0.01)))


def root_writer(mount, rng, end, acknowledged):
    fd = os.open(f"{mount}/append", os.O_WRONLY)
    while not end.is_set():
        os.write(fd, b'{"session_id":"made-%d","n":1}\n' % rng.randrange(1 << 30))
        session = rng.choice(SESSIONS)
        os.write(fd, b'{"session_id":"%s","n":1}\n' % session.encode())
        with acknowledged[session].get_lock():
            acknowledged[session].value += 1
        time.sleep(0.005)


def watcher(mount, rng, end, _):
    """Each event once, and only of what is there."""
    inotify, names = watch.Inotify(), {}
    for session in SESSIONS:
        path = f"{mount}/sessions/{session}"
        names[inotify.add(path, watch.CREATE | watch.CLOSE_WRITE | watch.DELETE)] = path
    seen = set()
    while not end.is_set():
        for number, mask, name in inotify.read(0.1):
            if mask & (watch.UNMOUNT | watch.Q_OVERFLOW | watch.IGNORED):
                return
            if not mask & watch.CREATE:
                continue
            assert not mask & watch.DELETE and (number, name) not in seen, (hex(mask), name)
            seen.add((number, name))
            if rng.random() < 0.05:
                assert json.loads(hl.read(f"{names[number]}/{name}"))["seq"] == int(name)


def follower(mount, rng, end, _):
    fd = os.open(f"{mount}/sessions/{rng.choice(SESSIONS)}/follow", os.O_RDONLY | rng.choice((0, os.O_NONBLOCK)))
    last, data = None, b""
    while not end.is_set() and (rng.random() < 0.999):
        if not select.select([fd], [], [], 0.2)[0]:
            continue
        try:
            got = os.read(fd, rng.choice((100, 65536)))
        except BlockingIOError:
            continue
        if not got:
            return
        data += got
        *lines, data = data.split(b"\n")
        for line in filter(None, lines):
            seq = json.loads(line)["seq"]
            assert last is None or seq == last + 1, (last, seq)
            last = seq


def sleeper(mount, rng, end, _):
    """Readers that wait, and are killed there, or stopped and continued."""
    while not end.is_set():
        process = subprocess.Popen(["cat", f"{mount}/sessions/{rng.choice(SESSIONS)}/follow"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.random() / 10)
        if rng.random() < 0.5:
            process.send_signal(signal.SIGSTOP)
            process.send_signal(signal.SIGCONT)
        process.send_signal(rng.choice((signal.SIGKILL, signal.SIGTERM)))
        process.wait(PATIENCE)


def lister(mount, rng, end, _):
    while not end.is_set():
        path = rng.choice([f"{mount}/sessions"] + [f"{mount}/sessions/{s}" for s in SESSIONS])
        for entry in os.scandir(path):
            if rng.random() < 0.3:
                entry.stat()
            if rng.random() < 0.01 and entry.is_file() and entry.name != "append":
                hl.read(entry.path)
            if end.is_set():
                return


def changer(mount, rng, end, _):
    while not end.is_set():
        path = f"{mount}/sessions/{rng.choice(SESSIONS)}"
        os.chmod(path, rng.choice((0o700, 0o755, 0o711, 0o775)))
        if rng.random() < 0.3:
            try:
                os.rmdir(path)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EPERM):
                    raise
        time.sleep(rng.random() / 50)


def commander(mount, rng, end, _):
    while not end.is_set():
        fd = os.open(f"{mount}/.ctl", os.O_WRONLY)  # never made: the mount may be gone
        os.write(fd, rng.choice((b"rotate\n", b"checkpoint\n", b"sync\n", b"verify\n")))
        os.close(fd)
        json.loads(hl.read(f"{mount}/.status"))
        time.sleep(rng.random() / 5)


def documents_of(mount):
    state = f"{mount}/sessions/documents/state"
    return {key: json.loads(hl.read(f"{state}/{key}")) for key in os.listdir(state)}


def documenter(mount, rng, end, _):
    """The only one who changes these documents; what they are now, and what is about to be, is in a journal."""
    path = f"{os.path.dirname(mount)}/documents"
    state = f"{mount}/sessions/documents/state"
    known = documents_of(mount)
    while not end.is_set():
        key, turn = f"k{rng.randrange(12)}", rng.random()
        to = dict(known)
        if turn < 0.6 or key not in known:
            turn, to[key] = 0, {"n": rng.randrange(1 << 40), "fill": "x" * rng.choice((0, 10, 3000))}
        else:
            value = to.pop(key)
            if turn < 0.8:
                to[f"moved-{key}"] = value
        save_documents(path, [known, to])
        if turn == 0:
            with open(f"{state}/{key}", "wb", buffering=0) as file:
                file.write(json.dumps(to[key]).encode() + b"\n")
        elif turn < 0.8:
            os.rename(f"{state}/{key}", f"{state}/moved-{key}")
        else:
            os.unlink(f"{state}/{key}")
        known = to
        save_documents(path, [known])
        if rng.random() < 0.1:
            shown = documents_of(mount)
            assert shown == known, (shown, known)
        time.sleep(rng.random() / 200)


def save_documents(path, either):
    with open(f"{path}.new", "w") as file:
        json.dump(either, file)
    os.rename(f"{path}.new", path)


def stranger(mount, rng, end, acknowledged):
    """Another user, who has a session of his own, and nothing to say in those of others."""
    os.setgroups([])
    os.setresgid(STRANGER, STRANGER, STRANGER)
    os.setresuid(STRANGER, STRANGER, STRANGER)
    own, documents = f"{mount}/sessions/stranger", f"{mount}/sessions/documents"
    os.makedirs(own, exist_ok=True)
    fd = hl.appender(own)
    forbidden = [
        lambda: os.open(f"{mount}/.ctl", os.O_WRONLY),
        lambda: os.open(f"{mount}/log", os.O_RDONLY),
        lambda: os.open(f"{documents}/log", os.O_RDONLY),
        lambda: os.listdir(f"{documents}/state"),
        lambda: os.open(f"{documents}/state/k1", os.O_WRONLY | os.O_CREAT),
        lambda: hl.appender(f"{mount}/sessions/{rng.choice(SESSIONS)}"),
        lambda: os.chmod(f"{mount}/sessions/{rng.choice(SESSIONS)}", 0o777),
        lambda: os.rmdir(f"{mount}/sessions/{rng.choice(SESSIONS)}"),
        lambda: os.setxattr(f"{mount}/sessions/{rng.choice(SESSIONS)}", "user.mine", b"1"),
    ]
    while not end.is_set():
        os.write(fd, b'{"kind":"Message","n":1}\n')
        with acknowledged["stranger"].get_lock():
            acknowledged["stranger"].value += 1
        with hl.fails(errno.EACCES, errno.EPERM, *GONE):
            rng.choice(forbidden)()
        assert json.loads(hl.read(f"{own}/1"))["seq"] == 1
        time.sleep(rng.random() / 100)


ROLES = ([writer] * 3 + [root_writer] + [watcher] * 2 + [follower] * 4 + [sleeper] + [lister] * 2 +
         [changer, commander, documenter, stranger])


def act(role, mount, seed, end, acknowledged):
    """A role, until the mount goes; that ends it well."""
    try:
        role(mount, random.Random(seed), end, acknowledged)
    except OSError as error:
        if error.errno not in GONE or not end.is_set() and os.path.exists(f"{mount}/.status"):
            traceback.print_exc()
            sys.exit(1)
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def stacks(pids):
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            try:
                print(pid, task, hl.read(f"/proc/{pid}/task/{task}/stack").decode(), sep="\n")
            except OSError:
                pass


def start(hotlogfs, folder, options):
    mount = f"{folder}/mnt"
    log = open(f"{folder}/log", "ab")
    daemon = subprocess.Popen([hotlogfs, f"{folder}/dir", mount, "-f", "-o", options], stdin=subprocess.DEVNULL,
                              stdout=log, stderr=log)
    log.close()
    hl.wait_for(lambda: daemon.poll() is not None or os.path.exists(f"{mount}/.status"), "the mount", PATIENCE)
    assert daemon.poll() is None, hl.read(f"{folder}/log")[-2000:]
    return daemon


def take_away(rng, mount, daemon, end, actors):
    how = rng.choice(("fusermount", "term", "lazy"))
    print(f"taken away by {how}", flush=True)
    if how == "fusermount":
        end.set()
        for actor in actors:
            actor.join(PATIENCE)
        hl.wait_for(lambda: subprocess.run(["fusermount3", "-u", mount], capture_output=True, check=False).returncode == 0,
                    "the unmount", PATIENCE)
    elif how == "term":
        daemon.send_signal(signal.SIGTERM)
    else:
        subprocess.run(["umount", "-l", mount], check=True)
    return how


def a_round(rng, hotlogfs, folder, seconds, acknowledged):
    mount = f"{folder}/mnt"
    daemon = start(hotlogfs, folder, f"allow_other,segment_size=1M,announce_max={rng.choice((16, 1024))}")
    os.makedirs(f"{mount}/sessions/documents", mode=0o700, exist_ok=True)
    shown = documents_of(mount)
    if os.path.exists(f"{folder}/documents"):
        either = json.loads(hl.read(f"{folder}/documents"))
        assert shown in either, (shown, either)
    for session in SESSIONS + ["stranger"] * os.path.isdir(f"{mount}/sessions/stranger"):
        os.makedirs(f"{mount}/sessions/{session}", exist_ok=True)
        with open(f"{mount}/sessions/{session}/log", "rb") as log:
            records = sum(1 for _ in log)
        assert records >= acknowledged[session].value, (session, records, acknowledged[session].value)
        if records == 0:  # else rmdir may take it away from whoever comes to it before the first writer
            with open(f"{mount}/sessions/{session}/append", "wb", buffering=0) as append:
                append.write(b'{"kind":"Message","n":0}\n')
            records = 1
        acknowledged[session].value = records
    end = multiprocessing.Event()
    actors = [multiprocessing.Process(target=act, args=(role, mount, rng.randrange(1 << 32), end, acknowledged))
              for role in ROLES]
    for actor in actors:
        actor.start()
    time.sleep(seconds)
    try:
        how = take_away(rng, mount, daemon, end, actors)
        limit = time.monotonic() + PATIENCE
        try:
            daemon.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the daemon hangs after {how}") from None
        end.set()
        for role, actor in zip(ROLES, actors):
            actor.join(max(0, limit - time.monotonic()))
            assert actor.exitcode is not None, f"{role.__name__} hangs after {how}"
            assert actor.exitcode == 0, f"{role.__name__} ended with {actor.exitcode} after {how}"
        assert daemon.returncode == 0, (daemon.returncode, hl.read(f"{folder}/log")[-2000:])
        assert os.listdir(mount) == [], os.listdir(mount)
    except AssertionError:
        stacks([p.pid for p in [daemon] + actors if os.path.exists(f"/proc/{p.pid}/task")])
        raise
    finally:
        subprocess.run(["umount", "-l", mount], capture_output=True, check=False)
        for process in [daemon] + actors:
            process.kill()


@case
def soak(hotlogfs, folder, seconds):
    rng = hl.seeded()
    os.makedirs(f"{folder}/mnt")
    acknowledged = {session: multiprocessing.Value("q", 0) for session in [*SESSIONS, "stranger"]}
    end = time.monotonic() + float(seconds)
    rounds = 0
    while time.monotonic() < end:
        a_round(rng, hotlogfs, folder, rng.uniform(0.5, 4), acknowledged)
        rounds += 1
    print(f"{rounds} rounds; records acknowledged: { {name: v.value for name, v in acknowledged.items()} }")


if __name__ == "__main__":
    hl.main()
