"""Cases of test_recover.sh: a store is built, remembered, broken in one way, mounted and looked at.

    damage_cases.py build MOUNT PART [ROUNDS]    makes records
    damage_cases.py expect MOUNT EXPECTED        writes down what is there
    damage_cases.py damage STORE FACTS HOW [ARGUMENT]
    damage_cases.py check MOUNT STORE EXPECTED FACTS
    damage_cases.py again MOUNT EXPECTED FACTS   after a further kill and remount: what check() appended is there

EXPECTED holds every session's lines, FACTS what was broken: the records that may be gone, and how.
"""
import errno
import glob
import json
import os
import re
import struct
import zlib

import hl
import segments
from hl import case

ERRNOS = {"ENOENT": [errno.ENOENT], "EIO": [errno.EIO], "EITHER": [errno.ENOENT, errno.EIO]}


def load(path):
    with open(path) as file:
        return json.load(file)


def save(path, what):
    with open(path, "w") as file:
        json.dump(what, file)


@case
def build(mount, part, rounds="40"):
    """One part of the records, less than 5 KiB a round: single ones and batches, over two sessions and a mixed one."""
    rng = hl.seeded()
    for name in ("a", "b"):
        os.makedirs(f"{mount}/sessions/{name}", exist_ok=True)
    for at in range(int(rounds)):
        fill = "f" * rng.choice([0, 10, 300, 3000])
        hl.append(f"{mount}/sessions/a", b'{"payload":["%s",%d,"%s"]}\n' % (part.encode(), at, fill.encode()))
        batch = b"".join(b'{"session_id":"%s","payload":["%s",%d,%d]}\n' % (rng.choice([b"a", b"b", b"mixed"]), part.encode(), at, n)
                         for n in range(rng.choice([2, 5, 9])))
        hl.append(mount, batch)
        hl.append(f"{mount}/sessions/b", b"text %d %s\n" % (at, part.encode()))


@case
def expect(mount, expected):
    save(expected, {name: hl.log_of(f"{mount}/sessions/{name}").decode().splitlines(keepends=True)
                    for name in os.listdir(f"{mount}/sessions")})


# ---- breaking -----------------------------------------------------------------------------------------


def key(frame):
    record = json.loads(frame.body)
    return [record["session_id"], record["seq"]]


def batch_of(found, at):
    """The frames of the batch that frame number `at` of a segment belongs to."""
    first = at
    while not found[first].flags & segments.FIRST_OF_BATCH:
        first -= 1
    last = at
    while not found[last].flags & segments.LAST_OF_BATCH:
        last += 1
    return found[first:last + 1]


def is_record(frame):
    return frame.type in (segments.EVENT, segments.OPERATION)


def tail_batch(store, least):
    """The last batch of the last segment, which must have records; and where the frames end."""
    path = segments.segments(store)[-1]
    found = segments.frames(path)
    batch = batch_of(found, len(found) - 1)
    assert len([f for f in batch if is_record(f)]) >= least, "the store does not end as this case needs it"
    return path, batch, found[-1].offset + found[-1].size


def lost(frames_lost, how="ENOENT", **more):
    return {"lost": [key(frame) for frame in frames_lost if is_record(frame)], "how": how, **more}


def cut_tail(store, at):
    """The last batch cut short: at its first header, in a body, before its last byte, or at a frame's end."""
    path, batch, end = tail_batch(store, 2)
    where = {"header": batch[0].offset + 10, "body": batch[-1].offset + 40, "last-byte": end - 1,
             "between": batch[-1].offset, "length": batch[-1].offset + 6}[at]
    with open(path, "rb") as file:
        file.seek(batch[0].offset)
        tail = file.read(where - batch[0].offset)
    os.truncate(path, where)
    return lost(batch, quarantined=tail.hex() if at != "last-byte" else "")


def zero_tail(store, _):
    """The same on blocks that were allocated ahead: zeros where the last frame was to be."""
    path, batch, end = tail_batch(store, 2)
    segments.put(path, batch[-1].offset + 17, bytes(end - batch[-1].offset - 17))
    return lost(batch)


def append_garbage(store, what):
    path, end = segments.tail(store)
    rng = hl.seeded()
    first = segments.frames(path)[0]
    with open(path, "rb") as file:
        file.seek(first.offset)
        earlier = file.read(first.size)
    data = {"bytes": rng.randbytes(rng.randrange(1, 5000)) + b"x", "zeros": bytes(70000), "one": b"\x01",
            "text": b'{"session_id":"a"}\n' * 50, "frame": earlier, "ff": b"\xff" * 4096}[what]
    segments.put(path, end, data)
    return {"lost": [], "how": "ENOENT", "quarantined": "" if what == "zeros" else data[:len(data.rstrip(b"\0"))].hex()}


FIELDS = {"crc": 0, "length": 4, "length-top": 7, "seq": 8, "seq-top": 15, "recorded": 16, "session": 24, "type": 28, "flags": 30,
          "body": 40}


def middle(store, alone, sealed_only=True):
    """A record frame of a segment in the middle: one that is a batch alone, or one inside a batch."""
    paths = segments.segments(store)
    for path in paths[len(paths) // 3:-1] if sealed_only else paths[-1:]:
        found = segments.frames(path)
        for at, frame in enumerate(found):
            inside = not frame.flags & (segments.FIRST_OF_BATCH | segments.LAST_OF_BATCH)
            single = frame.flags & 3 == 3
            if is_record(frame) and at > 3 and (single if alone else inside):
                return frame
    raise AssertionError("no such frame")


def flip_middle(store, field):
    frame = middle(store, alone=True)
    segments.flip(frame.path, frame.offset + FIELDS[field], hl.seeded().randrange(8))
    return lost([frame])


def flip_inside_batch(store, field):
    """The rest of a batch in a sealed segment stays readable: single records."""
    frame = middle(store, alone=False)
    segments.flip(frame.path, frame.offset + FIELDS[field], hl.seeded().randrange(8))
    return lost([frame])


def blank_sector(store, size):
    """Zeros or noise over a stretch of a sealed segment."""
    frame = middle(store, alone=True)
    begin = frame.offset // 512 * 512
    end = begin + int(size)
    found = segments.frames(frame.path)
    gone = [f for f in found if f.offset < end and f.offset + f.size > begin]
    data = bytes(int(size)) if int(size) == 512 else hl.seeded().randbytes(int(size))
    segments.put(frame.path, begin, data[:os.path.getsize(frame.path) - begin])
    return lost(gone)


def first_header(store, _):
    segments.put(middle(store, alone=True).path, 0, b"\xee" * 512)
    return {"lost": [], "how": "ENOENT"}


def second_header(store, _):
    segments.put(segments.segments(store)[-1], 512, b"\xee" * 512)
    return {"lost": [], "how": "ENOENT"}


def feature(store, what):
    """A header as a later version would write it, with a good checksum."""
    path = segments.segments(store)[-1]
    for at in segments.HEADERS:
        with open(path, "rb") as file:
            file.seek(at)
            block = bytearray(file.read(128))
        struct.pack_into("<I", block, {"version": 8, "incompatible": 12, "compatible": 16}[what], 1 << 30 if what != "version" else 99)
        struct.pack_into("<I", block, 124, zlib.crc32(block[:124]))
        segments.put(path, at, block)
    return {"lost": [], "how": "ENOENT"}


def swap_frames(store, _):
    """A good frame at a place where it was not written is damage."""
    paths = segments.segments(store)
    found = [f for f in segments.frames(paths[len(paths) // 2]) if is_record(f) and f.flags & 3 == 3]
    for one in found:
        for two in found:
            if one.size == two.size and one.offset < two.offset:
                with open(one.path, "rb") as file:
                    file.seek(one.offset)
                    data = file.read(one.size)
                segments.put(two.path, two.offset, data)
                return lost([two])
    raise AssertionError("no two frames of one size")


def segment_gone(store, _):
    path = middle(store, alone=True).path
    gone = segments.frames(path)
    os.unlink(path)
    return lost(gone)


def compacted(store, how):
    """A compaction got as far as its rename, and the index knows nothing of it; or what it wrote is no good."""
    path, seal = segments.compact(store, 1, 2)  # sealed: the first two parts of the records each end a segment
    if how == "no-seal":
        os.truncate(path, seal)
    elif how == "bit":
        segments.flip(path, hl.seeded().randrange(segments.REGION, seal), 3)
    return {"lost": [], "how": "ENOENT"}


def nothing(store, _):
    return {"lost": [], "how": "ENOENT"}


def index_bytes(store, how):
    """The index is derived: whatever becomes of it, every record is there."""
    data = f"{store}/index/data.mdb"
    rng = hl.seeded()
    size = os.path.getsize(data)
    if how == "half":
        os.truncate(data, size // 2)
    elif how == "empty":
        os.truncate(data, 0)
    elif how == "noise":
        segments.put(data, 0, rng.randbytes(size))
    elif how == "page":
        segments.put(data, rng.randrange(2, size // 4096) * 4096, rng.randbytes(4096))
    elif how == "bits":
        for _ in range(20):
            segments.flip(data, rng.randrange(size), rng.randrange(8))
    elif how == "metas":
        segments.put(data, 0, bytes(8192))
    return {"lost": [], "how": "ENOENT"}


def checkpoint_bytes(store, _):
    """With the index gone and every checkpoint broken the segments alone must do."""
    files = [p for p in glob.glob(f"{store}/checkpoints/**", recursive=True) if os.path.isfile(p) and os.path.getsize(p) > 0]
    assert files, "no checkpoint to break"
    rng = hl.seeded()
    for path in files:
        segments.flip(path, rng.randrange(os.path.getsize(path)), rng.randrange(8))
    return {"lost": [], "how": "ENOENT"}


def scatter(store, count):
    """Flips anywhere in the segments: what is lost cannot be said beforehand, but no wrong line may be read."""
    rng = hl.seeded()
    for _ in range(int(count)):
        path = rng.choice(segments.segments(store))
        size = os.path.getsize(path)
        segments.flip(path, rng.randrange(segments.REGION, size), rng.randrange(8))
    return {"lost": None, "how": "EITHER"}


BREAK = {f.__name__: f for f in (cut_tail, zero_tail, append_garbage, flip_middle, flip_inside_batch, blank_sector, first_header, second_header, feature,
                                 swap_frames, segment_gone, compacted, nothing, index_bytes, checkpoint_bytes, scatter)}


@case
def damage(store, facts, how, argument="", errno_name=""):
    found = BREAK[how](store, argument)
    if errno_name:
        found["how"] = errno_name
    save(facts, found)
    print(f"{how} {argument}: {len(found['lost'] or [])} records lost")


# ---- looking ------------------------------------------------------------------------------------------


def seq_of(line):
    return json.loads(line)["seq"]


def read_or_errno(path):
    try:
        return hl.read(path), None
    except OSError as failure:
        return None, failure.errno


def check_records(s, name, lines, broken, how):
    """Each record of a session; returns the lines that can be read."""
    kept = []
    for line in lines:
        seq = seq_of(line)
        data, code = read_or_errno(f"{s}/{seq}")
        may_be_lost = broken is None or [name, seq] in broken
        if code is None:
            assert data == line.encode(), f"{name}/{seq}: a wrong line: {data[:200]}"
            assert broken is None or not may_be_lost, f"{name}/{seq} was broken, but can be read"
            kept.append(line.encode())
        else:
            assert may_be_lost, f"{name}/{seq}: {errno.errorcode[code]}, though it was not broken"
            assert code in ERRNOS[how], f"{name}/{seq}: {errno.errorcode[code]}, not {how}"
    return kept


def without_blanks(data):
    """Damaged records read as blanks in the logs."""
    return [line for line in data.splitlines(keepends=True) if line.strip(b" \n")]


@case
def check(mount, store, expected, facts):
    expected, found = load(expected), load(facts)
    rooted = []
    for name, lines in expected.items():
        s = f"{mount}/sessions/{name}"
        kept = check_records(s, name, lines, found["lost"], found["how"])
        log = hl.log_of(s)
        assert without_blanks(log) == kept, f"{name}: the log is not what its records are"
        assert os.stat(f"{s}/log").st_size == len(log)
        if found["how"] == "EIO":
            assert len(log) == sum(len(line.encode()) for line in lines), "a damaged line keeps its length"
        rooted += kept
    root = without_blanks(hl.read(f"{mount}/log"))
    assert sorted(root) == sorted(rooted), "the root log has other lines than the sessions"
    cut = bytes.fromhex(found.get("quarantined", "")).rstrip(b"\0")  # zeros at the end are no bytes of anything
    if cut:
        kept = b"".join(hl.read(p) for p in glob.glob(f"{store}/quarantine/**", recursive=True) if os.path.isfile(p))
        assert cut in kept, "what was cut is not in quarantine/"
    if "quarantined" in found:
        path, end = segments.tail(store)
        assert not hl.read(path)[end:].strip(b"\0"), "something is left behind the end of the log"
    for name in expected:  # and it goes on
        s = f"{mount}/sessions/{name}"
        fd = os.open(f"{s}/append", os.O_RDWR | os.O_APPEND)
        os.write(fd, b"after one\nafter two\n")
        first = int(os.read(fd, 100).split(b"-")[0])
        os.close(fd)
        assert all(seq_of(line) < first for line in without_blanks(hl.log_of(s))[:-2])
        found.setdefault("after", {})[name] = hl.log_of(s).decode()
    save(facts, found)


@case
def again(mount, facts):
    for name, log in load(facts)["after"].items():
        s = f"{mount}/sessions/{name}"
        assert without_blanks(hl.log_of(s)) == without_blanks(log.encode()), f"{name}: not the same after one more recovery"
        last = without_blanks(log.encode())[-2:]
        assert [re.search(rb'"payload":"(.*)"', line)[1] for line in last] == [b"after one", b"after two"]
        for line in last:
            assert hl.read(f"{s}/{seq_of(line)}") == line


if __name__ == "__main__":
    hl.main()
