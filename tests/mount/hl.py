"""What the Python parts of tests/mount share: a model of how lines are stamped, and small helpers.

A file of cases imports this, marks each case with @case, and ends with hl.main(). The shell side runs
`python3 FILE CASE ARGUMENTS...`; a case that fails raises, and the exit code tells.
"""
import contextlib
import errno
import json
import os
import random
import sys
import time

STAMPS = ("session_id", "seq", "ts_ms", "ts_exact", "source", "kind")
MIB = 1 << 20
CASES = {}
DECODER = json.JSONDecoder()
BLANK = " \t\r\n"


def case(function):
    CASES[function.__name__] = function
    return function


def main():
    name, *arguments = sys.argv[1:]
    CASES[name](*arguments)


def seeded():
    """A random source whose seed is printed, and taken back from SEED."""
    seed = os.environ.get("SEED") or str(random.SystemRandom().randrange(1 << 32))
    print(f"SEED={seed}", file=sys.stderr)
    return random.Random(seed)


# ---- the model of a stored line ---------------------------------------------------------------------


def members(text):
    """Top-level members of a JSON object: (key, where the value begins, where it ends)."""

    def skip(at):
        while at < len(text) and text[at] in BLANK:
            at += 1
        return at

    found = []
    at = skip(1)
    while text[at] != "}":
        key, at = DECODER.raw_decode(text, at)
        at = skip(at)
        assert text[at] == ":", text
        begin = skip(at + 1)
        _, end = DECODER.raw_decode(text, begin)
        found.append((key, begin, end))
        at = skip(end)
        if text[at] == ",":
            at = skip(at + 1)
    return found


def stamps(session, seq, ts_ms, exact):
    return {
        "session_id": json.dumps(session, ensure_ascii=False),
        "seq": str(seq),
        "ts_ms": str(ts_ms),
        "ts_exact": "true" if exact else "false",
        "source": '"Tail"',
        "kind": '"Message"',
    }


def front(values, names):
    return ",".join(f'"{name}":{values[name]}' for name in names)


def stamped(line, session, seq, fields):
    """The stored form of a JSON line (bytes, no newline), ended by its newline; `fields` are those of the line as it
    was stored: its time and, for an operation, its links cannot be foretold."""
    ts_ms = fields["ts_ms"]
    text = line.decode()
    there = members(text)
    value = {key: text[begin:end] for key, begin, end in there}
    given = {key for key in value if value[key] != "null"}
    operation = "op" in given
    values = stamps(session, seq, ts_ms, "ts_ms" in given)
    for key, begin, end in reversed(there):
        if key in values and text[begin:end] == "null":
            text = text[:begin] + values[key] + text[end:]
    names = [n for n in STAMPS if n not in value and not (operation and n in ("source", "kind"))]
    if operation:
        links = ["prev_seq", "prev_op"] if json.loads(value["op"]).lower() in ("set", "delete") else ["prev_op"]
        names += [n for n in links if n not in value]
        values.update({n: json.dumps(fields[n]) for n in links})
    if not names:
        return text.encode() + b"\n"
    return ("{" + front(values, names) + ("," if there else "") + text[1:]).encode() + b"\n"


def check_line(stored, line, session, seq):
    """Raises unless `stored` (with its newline) is what `line` (without) must have become."""
    assert stored.endswith(b"\n") and stored.count(b"\n") == 1, stored[:300]
    fields = json.loads(stored)
    if line.startswith(b"{"):
        expected = stamped(line, session, seq, fields)
        assert stored == expected, f"stored   {stored[:400]}\nexpected {expected[:400]}"
        return
    values = stamps(session, seq, fields["ts_ms"], False)
    head = ("{" + front(values, STAMPS) + ',"payload":').encode()
    assert stored.startswith(head), f"stored {stored[:400]}\nexpected to begin with {head}"
    assert stored.endswith(b'"}\n'), stored[-100:]
    assert fields["payload"] == line.decode(), f"stored {stored[:400]}\nline {line[:400]}"
    assert list(fields) == list(STAMPS) + ["payload"], list(fields)


def lines_of(data):
    """The lines of what a writer wrote, as the store takes them: empty ones are skipped."""
    return [line for line in data.split(b"\n") if line]


def check_log(stored, lines, session, first=1):
    """Raises unless `stored` is the log of a session that got exactly these lines, from seq first."""
    records = stored.split(b"\n")
    assert records.pop() == b"", "the log does not end with a newline"
    assert len(records) == len(lines), f"{len(records)} records for {len(lines)} lines"
    for at, line in enumerate(lines):
        check_line(records[at] + b"\n", line, session, first + at)


# ---- a mount ----------------------------------------------------------------------------------------


def new_session(mount, name, mode=0o755):
    path = f"{mount}/sessions/{name}"
    os.mkdir(path, mode)
    return path


def read(path):
    with open(path, "rb") as file:
        return file.read()


def log_of(session):
    return read(f"{session}/log")


def last_error(session):
    return read(f"{session}/last_error").decode()


def appender(session, flags=0):
    return os.open(f"{session}/append", os.O_WRONLY | os.O_APPEND | flags)


def append(session, data):
    """One write() of data, which must be taken whole, on a handle of its own."""
    fd = appender(session)
    try:
        wrote = os.write(fd, data)
        assert wrote == len(data), (wrote, len(data))
    finally:
        os.close(fd)


def write_all(fd, data):
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]


def flush(fd):
    """What a program's close of a duplicate sends: FLUSH, with the open file living on."""
    os.close(os.dup(fd))


@contextlib.contextmanager
def fails(*codes, about=""):
    """The block must raise OSError with one of these errnos. about: what to say if it does not."""
    try:
        yield
    except OSError as failure:
        names = [errno.errorcode[code] for code in codes]
        assert failure.errno in codes, f"{failure} where one of {names} was due"
        return
    raise AssertionError(f"succeeded where {[errno.errorcode[code] for code in codes]} was due{about}")


def wait_for(condition, what, seconds=180):
    """Polls until condition() is true. The limit is for a broken daemon, not for a slow machine."""
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.005)


@contextlib.contextmanager
def as_user(uid, gid=None):
    """Runs the block with another effective uid, gid and no further groups. Needs root."""
    gid = uid if gid is None else gid
    groups = os.getgroups()
    os.setgroups([gid])
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


# ---- lines to write -----------------------------------------------------------------------------------

WORDS = ["a", "tool", "ran", "für", "日本語", "\\", '"', "\t", "x" * 40, "\U0001f600", "/etc", "%", "\u2028"]


def some_line(rng, at, longest=2000):
    """A line of a random kind and length that names itself by `at`; JSON or text."""
    text = " ".join(rng.choice(WORDS) for _ in range(rng.randrange(1, 12)))
    if rng.random() < 0.05:
        text += "y" * rng.randrange(longest)
    if rng.random() < 0.3:
        return f"{at} {text}".encode()
    event = {"kind": rng.choice(["ToolCall", "Message", "Cost", "mine_2"]), "payload": {"n": at, "t": text}}
    if rng.random() < 0.2:
        event["ts_ms"] = 1500000000000 + at
    if rng.random() < 0.2:
        event["tokens_in"] = rng.randrange(1 << 32)
    if rng.random() < 0.1:
        event["source"] = None
    return json.dumps(event, ensure_ascii=rng.random() < 0.5, separators=rng.choice([(",", ":"), (", ", ": ")])).encode()


def some_lines(rng, count, longest=2000):
    return [some_line(rng, at, longest) for at in range(count)]
