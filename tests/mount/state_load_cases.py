"""Cases of test_state.sh: large values, many documents, and everybody at once. Arguments: MOUNT."""
import errno
import json
import os
import subprocess
import sys
import threading

import hl
from documents import (NEW, check_state, close_fails, elsewhere, fold, holds, new_state, opened, operations, reason,
                       session_of, status, write)
from hl import append, case, fails, read


# ---- sizes ------------------------------------------------------------------------------------------


@case
def large(mount):
    """Values up to max_record (here 4M), however they are written."""
    s = new_state(mount, "large")
    path = f"{s}/K"
    most = (4 << 20) - len('{"op":"set","key":"K","value":}')
    value = '"' + "x" * (most - 2) + '"'
    for size in (1 << 20, 65536, 100003):
        with opened(path, NEW) as fd:
            data = value.encode() + b"\n"
            for at in range(0, len(data), size):
                hl.write_all(fd, data[at:at + size])
        holds(path, value)
        assert len(operations(s)) == 1
        os.unlink(path)
        s = new_state(mount, f"large-{size}")
        path = f"{s}/K"
    write_all = hl.write_all
    with opened(path, NEW) as fd:
        write_all(fd, value.encode() + b"\n")  # one write(), which the kernel cuts
    holds(path, value)
    # One byte more is refused at write(), as soon as it is there.
    fd = os.open(path, NEW)
    with fails(errno.EMSGSIZE):
        write_all(fd, b"[" + value.encode())
    close_fails(fd, errno.EMSGSIZE)
    holds(path, value)
    # What counts is the value, not the white space around its parts.
    pretty = json.dumps([[1]] * 300000, indent=2)
    compact = pretty.translate({ord(" "): None, ord("\n"): None})
    assert len(pretty) > 4 << 20 > len(compact)
    with opened(path, NEW) as fd:
        write_all(fd, pretty.encode() + b"\n")
    holds(path, compact)
    os.rename(path, f"{s}/L")
    holds(f"{s}/L", compact)
    with opened(f"{s}/K", NEW) as fd:
        write_all(fd, value.encode())
    with fails(errno.EMSGSIZE):
        os.rename(f"{s}/K", f"{s}/a-longer-name")
    holds(f"{s}/K", value)
    check_state(s)


@case
def memory_is_bounded(mount):
    """For a mount with max_record=64K, pieces_max=128K: past it ENOBUFS, and it comes back."""
    s = new_state(mount, "memory")
    write(f"{s}/K", '"old"\n')
    fds = []
    with fails(errno.ENOBUFS):
        while True:
            fds.append(os.open(f"{s}/K{len(fds)}", NEW))
            os.write(fds[-1], b'"' + b"x" * 30000)
    assert 2 <= len(fds) <= 6, len(fds)
    assert "pieces_max" in reason(s), reason(s)
    for fd in fds[:-1]:
        close_fails(fd, errno.EINVAL)
    hl.wait_for(lambda: status(mount)["kept_bytes"] <= 40000, "memory to come back")
    os.ftruncate(fds[-1], 0)
    os.write(fds[-1], b'"y"\n')
    os.close(fds[-1])
    write(f"{s}/K", '"' + "z" * 60000 + '"\n')
    with open(f"{s}/K", "r+") as file:
        file.write('"A')
    assert read(f"{s}/K")[:3] == b'"Az'
    hl.wait_for(lambda: status(mount)["kept_bytes"] == 0, "all memory to come back")
    check_state(s)


# ---- all at once ------------------------------------------------------------------------------------


@case
def readers_see_whole_values(mount):
    """A value of many reads is one value; stat, ls and readers know at once what was acknowledged."""
    s = new_state(mount, "whole")
    path = f"{s}/K"
    rng = hl.seeded()
    write(path, json.dumps(["0"] * 3) + "\n")
    stop = threading.Event()
    troubles = []

    def reader():
        try:
            while not stop.is_set():
                with open(path, "rb", buffering=0) as file:
                    data = b""
                    while piece := file.read(rng.choice([4096, 70000, 1 << 20])):
                        data += piece
                value = json.loads(data)
                assert len(set(value)) == 1, "parts of two values"
        except Exception as trouble:  # noqa: BLE001 - told below
            troubles.append(trouble)

    threads = [threading.Thread(target=reader) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(1, 60):
        count = rng.choice([1, 1000, 200000])
        value = json.dumps([str(number)] * count, separators=(",", ":"))
        with opened(path, NEW) as fd:
            hl.write_all(fd, value.encode() + b"\n")
        assert elsewhere(path) == (value.encode() + b"\n", len(value) + 1), number
        entry = next(os.scandir(s))
        assert entry.name == "K" and entry.stat().st_size == len(value) + 1
    stop.set()
    for thread in threads:
        thread.join()
    assert not troubles, troubles[0]
    check_state(s)


def changes(rng, state, number, count):
    """Random changes by one program to keys that it shares with others."""
    keys = [f"{state}/k{i}" for i in range(6)]
    for at in range(count):
        key, other = rng.sample(keys, 2)
        temporary = f"{state}/.t{number}"
        value = json.dumps({"by": number, "at": at, "fill": "x" * rng.choice([1, 50, 5000])})
        how = rng.randrange(7)
        try:
            if how == 0:
                write(key, value + "\n")
            elif how == 1:
                write(key, value)
            elif how == 2:
                os.unlink(key)
            elif how == 3:
                os.rename(key, other)
            elif how == 4:
                write(temporary, value)
                os.rename(temporary, key)
            elif how == 5:
                append(session_of(state), json.dumps({"op": "set", "key": os.path.basename(key), "value": at}).encode() + b"\n")
            else:
                json.loads(read(key))
        except FileNotFoundError:
            pass


@case
def change_for_a_while(mount, number, count):
    changes(hl.random.Random(f"{os.environ['SEED']} {number}"), f"{mount}/sessions/crowd/state", number, int(count))


@case
def crowd(mount):
    """Programs that write, rename and delete the same keys: what there is in the end is what the log says."""
    s = new_state(mount, "crowd")
    seed = os.environ.setdefault("SEED", str(hl.random.SystemRandom().randrange(1 << 32)))
    print(f"SEED={seed}", file=sys.stderr)
    count = os.environ.get("ITERATIONS") or "300"
    programs = [subprocess.Popen([sys.executable, __file__, "change_for_a_while", mount, str(number), count])
                for number in range(4)]
    assert [program.wait() for program in programs] == [0] * 4
    check_state(s)
    assert operations(s), "nothing was done"
    assert not fold(s) or all(name[0] == "k" for name in fold(s))


@case
def crowd_again(mount):
    check_state(f"{mount}/sessions/crowd/state")


@case
def many(mount):
    """A listing goes on where it ended, whatever is added and deleted meanwhile."""
    s = new_state(mount, "many")
    session = session_of(s)
    for at in range(0, 5000, 500):
        append(session, b"".join(b'{"op":"set","key":"key-%d","value":%d}\n' % (n, n) for n in range(at, at + 500)))
    for name in (".a", ".b", ".c"):
        write(f"{s}/{name}", "x")
    seen = []
    with os.scandir(s) as entries:
        for entry in entries:
            seen.append(entry.name)
            if len(seen) == 10:
                os.unlink(f"{s}/key-3000")
                write(f"{s}/key-new", "1\n")
    assert len(seen) == len(set(seen))
    assert {f"key-{n}" for n in range(5000) if n != 3000} | {".a", ".b", ".c"} <= set(seen)
    for name in (".a", ".b", ".c"):
        os.unlink(f"{s}/{name}")
    check_state(s)

if __name__ == "__main__":
    hl.main()
