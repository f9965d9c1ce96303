"""A reader of segment files by docs of the format alone, so that tests can look at what is stored and
break chosen bytes of it. It shares no code with the store."""
import glob
import os
import struct
import zlib
from collections import namedtuple

REGION = 1024
HEADERS = (0, 512)
SESSION, EVENT, OPERATION, DROP, SEAL = range(1, 6)
FIRST_OF_BATCH, LAST_OF_BATCH = 1, 2

Header = namedtuple("Header", "first last generation salt store_id")
Frame = namedtuple("Frame", "path offset size type flags session seq recorded_ms crc32 body")


def header(data):
    for at in HEADERS:
        block = data[at : at + 128]
        if block[:8] == b"HOTLOGSG" and zlib.crc32(block[:124]) == struct.unpack_from("<I", block, 124)[0]:
            first, last, generation, salt = struct.unpack_from("<4I", block, 40)
            return Header(first, last, generation, salt, block[24:40])
    return None


def frame_at(path, data, offset, salt):
    if offset + 32 > len(data):
        return None
    crc, length, seq, recorded, session, kind, flags = struct.unpack_from("<IIQQIHH", data, offset)
    size = (32 + length + 7) // 8 * 8
    if length >= 1 << 29 or offset + size > len(data):
        return None
    if zlib.crc32(data[offset + 4 : offset + size], salt ^ offset) != crc:
        return None
    body = data[offset + 32 : offset + 32 + length]
    return Frame(path, offset, size, kind, flags, session, seq, recorded, crc, body)


def frames(path):
    """The good frames of a segment from its beginning up to the first bytes that are none."""
    with open(path, "rb") as file:
        data = file.read()
    found = []
    head = header(data)
    offset = REGION
    while head:
        frame = frame_at(path, data, offset, head.salt)
        if not frame:
            break
        found.append(frame)
        offset += frame.size
    return found


def segments(store):
    """The segment files of DIR, in order."""
    return sorted(glob.glob(f"{store}/log/*.seg"), key=lambda p: int(os.path.basename(p).split("-")[0], 16))


def all_frames(store):
    return [frame for path in segments(store) for frame in frames(path)]


def records(store):
    return [frame for frame in all_frames(store) if frame.type in (EVENT, OPERATION)]


def frame_bytes(frame, offset, salt, body=None):
    """The frame as it stands at another place of another segment."""
    body = frame.body if body is None else body
    rest = struct.pack("<IQQIHH", len(body), frame.seq, frame.recorded_ms, frame.session, frame.type, frame.flags) + body
    rest += bytes(-(4 + len(rest)) % 8)
    return struct.pack("<I", zlib.crc32(rest, salt ^ offset)) + rest


def compact(store, first, last, generation=1):
    """Writes log/first-last.generation as a compaction that drops nothing would, and leaves the older files."""
    sources = [p for p in segments(store) if first <= int(os.path.basename(p).split("-")[0], 16) <= last]
    with open(sources[0], "rb") as file:
        block = bytearray(file.read(128))
    salt = zlib.crc32(bytes([first, last, generation]))
    struct.pack_into("<4I", block, 40, first, last, generation, salt)
    struct.pack_into("<I", block, 124, zlib.crc32(block[:124]))
    data = bytearray(bytes(block).ljust(512, b"\0") * 2)
    records = [f for p in sources for f in frames(p)]
    seals = [f for f in records if f.type == SEAL]
    assert len(seals) == len(sources), "only sealed segments are compacted"
    for frame in records:
        if frame.type != SEAL:
            data += frame_bytes(frame, len(data), salt)
    lines = [f for f in records if f.type in (EVENT, OPERATION)]
    seal = b'{"records":%d,"line_bytes":%d,"end":%d,"recorded_ms":%d}\n' % (
        len(lines), sum(len(f.body) for f in lines), len(data), seals[-1].recorded_ms)
    end = len(data)
    data += frame_bytes(seals[-1], end, salt, seal)
    path = f"{store}/log/{first:08x}-{last:08x}.{generation:x}.seg"
    with open(path, "wb") as file:
        file.write(data)
    return path, end


def tail(store):
    """The last segment and the offset at which its good frames end."""
    path = segments(store)[-1]
    found = frames(path)
    return path, found[-1].offset + found[-1].size if found else REGION


def flip(path, offset, bit=0):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ (1 << bit)]))


def put(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)
