"""What the import scripts share: reading foreign lines, and printing lines that `append` takes.

Text of others is kept as it stands: values are copied as bytes of the source, never parsed and written anew,
so that no number, escape or order of fields changes on the way. JSON is only parsed to understand it.
"""
import base64
import calendar
import json
import os
import re
import sys
import time
import zlib

MAX_RECORD = 16 << 20
KEY_MAX = 255  # bytes of a key, and of a session id, counted as in a file name
DEPTH_MAX = 510  # open containers in a value: the store takes 512 in a line
CHUNK = 1 << 18
BATCH = 1 << 19  # bytes gathered before a write, which is one batch; the mount takes a little under 1 MiB
BOM = b"\xef\xbb\xbf"

# What the fields of an operation are called. In a foreign line they may mean something else, and are kept as "was".
TAKEN = frozenset(("op", "key", "id", "value", "data", "state", "name", "keys", "as", "moved_to", "undone_seq",
                   "prev_seq", "prev_op", "session_id", "seq", "ts_ms", "ts_exact", "was"))

# Exit statuses, as docs/migration.md and --help have them.
DONE, FAILED, USAGE, ASIDE = 0, 1, 2, 3


class Failure(Exception):
    """Ends the import; its text is the sentence for the user."""


# ---- JSON -------------------------------------------------------------------------------------------


def _no_constant(name):
    raise ValueError(f"{name} is not JSON")


DECODER = json.JSONDecoder(parse_constant=_no_constant)
_BLANK = re.compile(r"[ \t\r\n]*")
_STRINGS_OR_BLANKS = re.compile(r'("(?:[^"\\]|\\.)*")|[ \t\r\n]+')
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"')
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse(text):
    """The value of a JSON text; ValueError if it is none."""
    begin = _BLANK.match(text).end()
    try:
        value, end = DECODER.raw_decode(text, begin)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if _BLANK.match(text, end).end() != len(text):
        raise ValueError("text behind the JSON value")
    return value


def members(text):
    """The top-level members of an object: [(name, value, text of the value)]; ValueError if it is none."""
    at = _BLANK.match(text).end()
    if text[at:at + 1] != "{":
        raise ValueError("not a JSON object")
    found = []
    at = _BLANK.match(text, at + 1).end()
    if text[at:at + 1] == "}":
        at += 1
    else:
        at -= 1
        while True:
            name, value, begin, at = member(text, at + 1)
            found.append((name, value, text[begin:at]))
            at = _BLANK.match(text, at).end()
            if text[at:at + 1] == "}":
                at += 1
                break
            if text[at:at + 1] != ",":
                raise ValueError(f"expected ',' or '}}' at character {at + 1}")
    if _BLANK.match(text, at).end() != len(text):
        raise ValueError("text behind the JSON object")
    return found


def member(text, at):
    """One member of an object from `at` on: (name, value, where the value begins, where it ends)."""
    at = _BLANK.match(text, at).end()
    if text[at:at + 1] != '"':
        raise ValueError(f"expected a name in quotes at character {at + 1}")
    try:
        name, at = DECODER.raw_decode(text, at)
        at = _BLANK.match(text, at).end()
        if text[at:at + 1] != ":":
            raise ValueError(f"expected ':' at character {at + 1}")
        begin = _BLANK.match(text, at + 1).end()
        value, end = DECODER.raw_decode(text, begin)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return name, value, begin, end


def quote(text):
    """A JSON string. Halves of surrogate pairs name no character, and become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return json.dumps(text, ensure_ascii=False)


def compact(raw):
    """The JSON text on one line, without blanks outside its strings."""
    if "\n" not in raw and "\r" not in raw:
        return raw
    return _STRINGS_OR_BLANKS.sub(lambda match: match.group(1) or "", raw)


def whole_characters(raw):
    """The JSON text with each half of a surrogate pair, which the store refuses, turned into U+FFFD."""
    if not _SURROGATE.search(raw):
        return raw
    return _STRINGS.sub(lambda match: _whole_string(match.group()), raw)


def _whole_string(raw):
    if not _SURROGATE.search(raw):
        return raw
    text = DECODER.decode(raw)
    try:
        text.encode()
        return raw
    except UnicodeEncodeError:
        return quote(text)


def depth_of(raw):
    """How deeply the containers of a JSON text are nested."""
    most = raw.count("[") + raw.count("{")
    if most <= DEPTH_MAX:
        return most  # an upper bound does
    depth = deepest = 0
    for mark in re.findall(r"[][{}]", _STRINGS.sub("", raw)):
        depth += 1 if mark in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def storable(raw):
    """Whether a JSON text may stand as a value inside of a line."""
    return depth_of(raw) <= DEPTH_MAX and whole_characters(raw) == raw


def fits_name(text):
    """Whether text can be a key or a session id: 1 to 255 bytes of UTF-8 as a file name, no NUL."""
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return False
    escaped = sum(1 for byte in data if byte < 0x20 or byte in b"/%\x7f")
    length = len(data) * 3 if text in (".", "..") else len(data) + 2 * escaped
    return 1 <= len(data) and length <= KEY_MAX and 0 not in data


# ---- times ------------------------------------------------------------------------------------------

_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:[.,](\d+))?\s?(?:([Zz]|UTC)|([+-])(\d\d):?(\d\d))?")


def rfc3339_ms(text):
    """Milliseconds since 1970 of an RFC 3339 time (UTC where it names no zone); None if it is none."""
    match = _RFC3339.fullmatch(text.strip()) if isinstance(text, str) else None
    if not match:
        return None
    year, month, day, hour, minute, second = map(int, match.group(1, 2, 3, 4, 5, 6))
    leap = calendar.isleap(year)
    days = (31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    if not 1 <= month <= 12 or not 1 <= day <= days[month - 1] or hour > 23 or minute > 59 or second > 60:
        return None
    seconds = calendar.timegm((year, month, day, hour, minute, min(second, 59)))
    if match.group(9):
        offset = int(match.group(10)) * 3600 + int(match.group(11)) * 60
        seconds -= offset if match.group(9) == "+" else -offset
    ms = seconds * 1000 + int(((match.group(7) or "") + "000")[:3])
    return ms if ms >= 0 else None


def iso(ms):
    """The time as JavaScript's toISOString() writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + f".{ms % 1000:03d}Z"


def any_ms(value):
    """Like rfc3339_ms(), and numbers: seconds, milli-, micro- or nanoseconds since 1970, told by their size."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return rfc3339_ms(value)
    if not 0 <= value < 1e20:
        return None
    for limit, factor in ((1e11, 1000), (1e14, 1), (1e17, 1e-3)):
        if value < limit:
            return int(value * factor)
    return int(value // 1000000)


# ---- files in ---------------------------------------------------------------------------------------


class Line:
    """A line of a file: its bytes without the newline and a CR before it; offset is where it begins, unpacked."""

    def __init__(self, path, number, data, ended, offset):
        self.path, self.number, self.data, self.ended, self.offset = path, number, data, ended, offset

    @property
    def place(self):
        return f"{self.path}:{self.number}"

    def text(self):
        """The line as text; ValueError if it is not UTF-8."""
        return self.data.decode()


def chunks(path):
    """The bytes of a file ("-": standard input) in pieces, unpacked if it is a gzip file."""
    with sys.stdin.buffer if path == "-" else open(path, "rb") as file:
        piece = file.read(CHUNK)
        if piece[:2] == b"\x1f\x8b":
            yield from unpacked(file, piece)
            return
        while piece:
            yield piece
            piece = file.read(CHUNK)


def unpacked(file, piece):
    """What a gzip file of one member or more holds, in pieces no longer than CHUNK."""
    member = zlib.decompressobj(31)
    while piece:
        if member.eof:
            if not piece.strip(b"\0"):  # padding
                piece = file.read(CHUNK)
                continue
            member = zlib.decompressobj(31)
        data = member.decompress(piece, CHUNK)
        if data:
            yield data
        piece = member.unused_data or member.unconsumed_tail or file.read(CHUNK)
    if not member.eof:
        raise EOFError("the gzip file ends too early")


def lines(path, report=None):
    """The non-empty lines of a file, one at a time. What unpacks no further is reported; what came is given."""
    number = offset = 0
    rest = []

    def line(data, ended):
        skipped = len(BOM) if number == 1 and data.startswith(BOM) else 0
        data = data[skipped:].removesuffix(b"\r")
        return Line(path, number, data, ended, offset + skipped) if data.strip() else None

    try:
        for piece in chunks(path):
            parts = piece.split(b"\n")
            rest.append(parts[0])
            if len(parts) == 1:
                continue
            parts[0] = b"".join(rest)
            rest = [parts.pop()]
            for data in parts:
                number += 1
                found = line(data, True)
                if found:
                    yield found
                offset += len(data) + 1
    except (EOFError, zlib.error) as fault:
        if report is None:
            raise Failure(f"{path}: {fault}") from None
        report.broken(path, str(fault))
    except OSError as fault:
        raise Failure(f"{path}: {fault.strerror}") from None
    number += 1
    found = line(b"".join(rest), False)
    if found:
        yield found


# ---- what is told on standard error -----------------------------------------------------------------


class Report:
    """Notes and counts for the user, and the exit status that follows from them."""

    SHOWN = 20  # of one sort; the rest is only counted

    def __init__(self, name, quiet=False):
        self.name, self.quiet = name, quiet
        self.counts = {}
        self.status = DONE

    def say(self, text):
        if not self.quiet:
            print(f"{self.name}: {text}", file=sys.stderr)

    def note(self, sort, place, text, status=DONE):
        """One more of a sort of things; the first few are shown."""
        count = self.counts[sort] = self.counts.get(sort, 0) + 1
        if self.status != FAILED and status != DONE:
            self.status = status
        if count <= self.SHOWN:
            self.say(f"{place}: {text}")
        elif count == self.SHOWN + 1:
            self.say(f"more of these are only counted ({sort})")

    def torn(self, line):
        """The last line of a file, cut off: it is nobody's record, but it is not lost."""
        self.note("torn last line", line.place,
                  f"torn last line, {len(line.data)} bytes, not printed; here it is:", ASIDE)
        if not self.quiet:
            sys.stderr.flush()
            sys.stderr.buffer.write(line.data + b"\n")
            sys.stderr.buffer.flush()

    def broken(self, path, why):
        self.note("file not whole", path, f"{why}; what could be read is printed", FAILED)

    def end(self, printed):
        told = ", ".join(f"{count} x {sort}" for sort, count in self.counts.items())
        self.say(f"{printed} lines" + (f"; {told}" if told else ""))
        return self.status


# ---- lines out --------------------------------------------------------------------------------------


class Output:
    """Prints lines for `append`; write() calls end at a line's end, so that each is a batch of whole lines."""

    def __init__(self, session=None, number=False, max_record=MAX_RECORD, discard=False):
        self.session, self.number, self.max_record, self.discard = session, number, max_record, discard
        self.seqs = {}
        self.pending = []
        self.pending_bytes = 0
        self.printed = 0

    def front(self, fields, session=None):
        """The beginning of a line: session_id and seq if they are to be given, then these fields."""
        session = session or self.session
        given = []
        if session is not None:
            given.append(f'"session_id":{quote(session)}')
        if self.number:
            given.append(f'"seq":{self.seqs.get(session, 0) + 1}')
        for name, value in fields:
            if value is not None:
                given.append(f'"{name}":{value if isinstance(value, str) else json.dumps(value)}')
        return "{" + ",".join(given)

    def size_of(self, line):
        """The bytes of a line, or an upper bound of them."""
        return len(line) if line.isascii() else len(line.encode())

    def fits(self, line):
        return len(line) * 4 <= self.max_record or self.size_of(line) <= self.max_record

    def line(self, line, session=None):
        session = session or self.session
        self.seqs[session] = self.seqs.get(session, 0) + 1
        self.printed += 1
        if self.discard:
            return
        data = line.encode() + b"\n"
        if self.pending_bytes + len(data) > BATCH:
            self.flush()
        self.pending.append(data)
        self.pending_bytes += len(data)

    def operation(self, fields, session=None):
        """A line of these fields (JSON texts, or values); False if it is longer than max_record."""
        line = self.front(fields, session) + "}"
        if not self.fits(line):
            return False
        self.line(line, session)
        return True

    def event(self, fields, source_line, payload=None, session=None):
        """
        An event whose payload is the source's line: as JSON if it can stand as that, else as text. One longer
        than max_record becomes several, whose payloads joined are the line.
        """
        begin = self.front(fields, session)
        if payload is not None and storable(payload):
            line = f'{begin},"payload":{payload}}}'
            if self.fits(line):
                self.line(line, session)
                return
        room = self.max_record - self.size_of(begin) - 200
        try:
            text = source_line.decode()
        except UnicodeDecodeError:
            text = source_line.decode(errors="replace")
            packed = base64.b64encode(source_line).decode()
            line = f'{begin},"payload":{quote(text)},"line_base64":"{packed}"}}'
            if self.fits(line):
                self.line(line, session)
            else:
                self._parts(fields, session, packed, room, "line_base64")
            return
        line = f'{begin},"payload":{quote(text)}}}'
        if self.fits(line):
            self.line(line, session)
        else:
            self._parts(fields, session, text, room // 6, "payload")

    def _parts(self, fields, session, text, size, name):
        if size < 1:
            raise Failure(f"--max-record {self.max_record} is too small for any line")
        count = -(-len(text) // size)
        for part in range(count):
            begin = self.front([*fields, ("part", part + 1), ("parts", count)], session)
            self.line(f'{begin},"{name}":{quote(text[part * size:(part + 1) * size])}}}', session)

    def flush(self):
        data = b"".join(self.pending)
        self.pending, self.pending_bytes = [], 0
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(1, view):]
        except BrokenPipeError:
            # Nobody reads any more. The reader says why; a traceback here would hide it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise Failure("standard output was closed by its reader") from None
        except OSError as fault:
            raise Failure(f"cannot write to standard output: {fault.strerror}"
                          " (a session's last_error says why it refused a line)") from None


# ---- options ----------------------------------------------------------------------------------------


def size(text):
    """A size as the mount's options take it: digits, and K, M or G."""
    match = re.fullmatch(r"(\d+)([KMG]?)", text)
    if not match or int(match.group(1)) == 0:
        raise ValueError(text)
    return int(match.group(1)) << {"": 0, "K": 10, "M": 20, "G": 30}[match.group(2)]


def session_id(text):
    if not fits_name(text):
        raise ValueError(text)
    return text


def add_options(parser, session_help, number=True):
    session_id.__name__ = "session id"  # as argparse names it to the user
    parser.add_argument("--session", metavar="ID", type=session_id, help=session_help)
    if number:
        parser.add_argument("--seq", action="store_true", help="number the lines of each session from 1: appended "
                            "again, also after the source has grown, only what is new is stored")
    parser.add_argument("--max-record", metavar="SIZE", type=size, default=MAX_RECORD,
                        help="the mount's max_record (default 16M)")


STATUS_HELP = """exit status: 0 all of it is printed; 1 something could not be read or written; 2 wrong arguments;
3 printed, but something was set aside or is not as it was, and standard error says what"""


def run(main):
    """Runs a script's main(), with its failures as sentences."""
    name = os.path.basename(sys.argv[0])
    sys.setrecursionlimit(3000)  # more than the store takes, less than the C stack bears
    try:
        status = main()
    except Failure as failure:
        print(f"{name}: {failure}", file=sys.stderr)
        status = FAILED
    except KeyboardInterrupt:
        status = 130
    try:
        sys.stdout.flush()
    except OSError:
        pass
    sys.exit(status)
