"""Builds stores: records of about 200 bytes in many sessions, one of them large; and the same as plain files."""
import json
import os
import random

SESSIONS = 1000
BATCH = (1 << 20) - 4096  # one write request, one batch
LARGE = "large"
NAMED_LARGE = b'"session_id":"large"'
WORDS = "the tool has read a file and made of it what was asked so that the next step can begin at once".split()


def make_line(rng, session):
    line = {"session_id": session, "kind": rng.choice(["ToolCall", "ToolResult", "Message"]), "tool": "bash",
            "tokens_in": rng.randrange(10000), "payload": ""}
    room = 200 - len(json.dumps(line, separators=(",", ":"))) - 1
    text = ""
    while len(text) < room:
        text += rng.choice(WORDS) + " "
    line["payload"] = text[:room]
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def make_blocks(rng, count, share):
    """Blocks of whole lines, each a batch; `share` of the lines, from 0 to 1, are of the large session."""
    blocks = []
    for _ in range(count):
        lines, size = [], 0
        while size < BATCH - 256:
            large = int((len(lines) + 1) * share) > int(len(lines) * share)
            lines.append(make_line(rng, LARGE if large else f"session-{rng.randrange(SESSIONS):04d}"))
            size += len(lines[-1])
        blocks.append(lines)
    return blocks


def append_records(mount, count, large):
    """Appends `count` records by root append, about `large` of them to the large session; returns how many it has."""
    blocks = make_blocks(random.Random(7), min(16, 1 + count // 5000), large / count)
    whole = [b"".join(lines) for lines in blocks]
    fd = os.open(f"{mount}/append", os.O_WRONLY)
    try:
        at = in_large = 0
        while count:
            lines, data = blocks[at % len(blocks)], whole[at % len(blocks)]
            at += 1
            if len(lines) > count:
                lines = lines[:count]
                data = b"".join(lines)
            if os.write(fd, data) != len(data):
                raise RuntimeError("a batch was not taken whole")
            count -= len(lines)
            in_large += sum(NAMED_LARGE in line for line in lines)
        os.fsync(fd)
        return in_large
    finally:
        os.close(fd)


def append_documents(mount, count):
    """Sets `count` documents in the session "documents" by operations appended in bulk."""
    os.makedirs(f"{mount}/sessions/documents", exist_ok=True)
    fd = os.open(f"{mount}/sessions/documents/append", os.O_WRONLY)
    try:
        lines, size = [], 0
        for n in range(count):
            lines.append(b'{"op":"set","key":"key-%d","value":{"n":%d,"text":"a document that changes"}}\n' % (n, n))
            size += len(lines[-1])
            if size > BATCH - 256 or n == count - 1:
                os.write(fd, b"".join(lines))
                lines, size = [], 0
        os.fsync(fd)
    finally:
        os.close(fd)


def make_files(path, count):
    """One file a record."""
    os.mkdir(path)
    rng = random.Random(7)
    line = make_line(rng, LARGE)
    directory = os.open(path, os.O_RDONLY)
    try:
        for n in range(1, count + 1):
            fd = os.open(str(n), os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=directory)
            os.write(fd, line)
            os.close(fd)
    finally:
        os.close(directory)
