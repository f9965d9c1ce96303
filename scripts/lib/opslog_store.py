"""Reads a store of npm @backloghq/opslog from its files: what it is now, and what is left of its past.

DIR/manifest.json names the current snapshot, the operations since (one file, or one for each agent), and the
archive segments. A checkpoint writes a new snapshot and begins new operation files, and leaves the old ones where
they are: so they hold the past. Their names carry the millisecond at which they were made:

    snapshots/snap-MS.jsonl      a header line, then {"id","data"} lines; formerly one JSON object with "records"
    ops/ops-MS.jsonl             operations of a single writer, in order
    ops/agent-ID-MS.jsonl        operations of one of several writers, to be merged by clock, then by agent
    archive/archive-NAME.json    one JSON object with "records"
"""
import codecs
import os
import re
import unicodedata

import import_lines as il
from import_lines import Failure

SNAPSHOT_NAME = re.compile(r"snap-(\d+)\.jsonl?")
OPS_NAME = re.compile(r"(?:ops|agent-.+)-(\d+)\.jsonl")
ARCHIVE_NAME = re.compile(r"(?:archive/)?archive-(.+)\.json", re.DOTALL)
KNOWN = {"manifest.json", "manifest.json.tmp", "snapshots", "ops", "archive", ".lock", ".compact-lock"}
DELIMITERS = set(" \t\r\n,:}]")  # what may stand behind a value
HEADER_MAX = 1 << 16


class Unreadable(Exception):
    """A file is not what it should be; the text says which and where."""


# ---- one JSON object too large to be held -------------------------------------------------------------


class Puller:
    """Reads an object with "records": {KEY: VALUE, …} from a file; its other members are in .fields."""

    def __init__(self, path):
        self.path = path
        self.fields = {}
        self.text = ""
        self.at = 0
        self.step = il.CHUNK
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def fail(self, why):
        raise Unreadable(f"{self.path}: {why}")

    def more(self):
        data = self.file.read(self.step)
        self.text = self.text[self.at:] + self.decoder.decode(data, final=not data)
        self.at = 0
        return bool(data)

    def peek(self):
        """The next character that is no blank; "" at the end."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in " \t\r\n\ufeff":
                    return self.text[self.at]
                self.at += 1
            if not self.more():
                return ""

    def expect(self, wanted):
        found = self.peek()
        if not found or found not in wanted:
            self.fail(f"not JSON: {found!r} where one of {wanted!r} was due" if found else "ends too early")
        self.at += 1
        return found

    def value(self):
        """The next value and its text."""
        self.peek()
        while True:
            fault = None
            try:
                value, end = il.DECODER.raw_decode(self.text, self.at)
            except RecursionError:
                self.fail("nested too deeply")
            except ValueError as error:
                fault = error
            # A number that ends where the buffer ends, or before its '.' or 'e' there, goes on.
            if fault is None and self.text[end:end + 1] in DELIMITERS:
                break
            self.step *= 2
            if not self.more():  # and no value is the last thing in an object
                self.fail(f"not JSON: {fault}" if fault else "ends too early")
        raw = self.text[self.at:end]
        self.at = end
        self.step = il.CHUNK
        return value, raw

    def object(self):
        """The names in an object, whose value the caller takes each time."""
        self.expect("{")
        if self.peek() == "}":
            self.at += 1
            return
        while True:
            if self.peek() != '"':
                self.fail("not JSON: a name in quotes was due")
            name, _ = self.value()
            self.expect(":")
            yield name
            if self.expect(",}") == "}":
                return

    def records(self):
        """(key, value, text of the value) of each record."""
        found = False
        try:
            with open(self.path, "rb") as self.file:
                for name in self.object():
                    if name != "records":
                        self.fields[name] = self.value()[0]
                        continue
                    found = True
                    if self.peek() != "{":
                        self.fail('"records" is no object')
                    for key in self.object():
                        value, raw = self.value()
                        yield key, value, il.compact(raw)
                if self.peek():
                    self.fail("something stands behind the JSON object")
        except OSError as fault:
            raise Unreadable(f"{self.path}: {fault.strerror}") from None
        if not found:
            self.fail('it has no "records"')


# ---- snapshots and archives -------------------------------------------------------------------------


class Snapshot:
    def __init__(self, path, made_ms):
        self.path = path
        self.made_ms = made_ms  # by its name; the header, once read, knows better
        self.readable = True

    @property
    def name(self):
        return os.path.basename(self.path)

    def _header(self):
        """The header of the line format; None if this is one JSON object."""
        try:
            with open(self.path, "rb") as file:
                begin = file.read(HEADER_MAX)
        except OSError as fault:
            raise Unreadable(f"{self.path}: {fault.strerror}") from None
        first, newline, _ = begin.partition(b"\n")
        if not newline and len(begin) == HEADER_MAX:
            return None
        try:
            header = il.parse(first.removeprefix(il.BOM).decode(errors="replace"))
        except ValueError:
            return None
        return header if isinstance(header, dict) and "records" not in header else None

    def records(self):
        """(key, value, text of the value) of each document."""
        header = self._header()
        if header is None:
            puller = Puller(self.path)
            yield from puller.records()
            self._note_time(puller.fields)
            return
        self._note_time(header)
        for line in il.lines(self.path):
            if line.number > 1:
                yield self._record(line)

    def _note_time(self, fields):
        made = il.rfc3339_ms(fields.get("timestamp"))
        if made is not None:
            self.made_ms = made

    def _record(self, line):
        try:
            found = {name: (value, raw) for name, value, raw in il.members(line.data.decode(errors="replace"))}
        except ValueError as fault:
            raise Unreadable(f"{line.place}: not JSON: {fault}") from None
        key = found.get("id", (None, ""))[0]
        if not isinstance(key, str):
            raise Unreadable(f'{line.place}: no "id"')
        value, raw = found.get("data", (None, "null"))
        return key, value, raw


class Archive:
    def __init__(self, path, listed):
        self.path = path
        self.made_ms = None
        match = ARCHIVE_NAME.fullmatch(listed)
        self.name = match.group(1) if match else os.path.basename(path)

    def records(self):
        puller = Puller(self.path)
        for record in puller.records():
            yield record
        self.made_ms = il.rfc3339_ms(puller.fields.get("timestamp"))


# ---- operations -------------------------------------------------------------------------------------


class Operation:
    """A line of an operations file that opslog itself takes."""

    def __init__(self, line, found):
        self.line = line
        self.found = found  # name: (value, text)

    def __getitem__(self, name):
        return self.found[name][0] if name in self.found else None

    def raw(self, name):
        return self.found[name][1] if name in self.found else None

    @property
    def key(self):
        return self["id"]

    @property
    def order(self):
        return self["clock"] or 0, collation(self["agent"] or "")


def fault_of(found):
    """Why opslog passes over a line of an operations file; None if it takes it."""
    value = {name: pair[0] for name, pair in found.items()}
    op, previous, clock = value.get("op"), value.get("prev"), value.get("clock", 0)
    if not isinstance(value.get("ts"), str) or not value["ts"]:
        return '"ts" is no text'
    if op not in ("set", "delete"):
        return '"op" is neither set nor delete'
    if not isinstance(value.get("id"), str) or not value["id"]:
        return '"id" is no text'
    if "prev" not in value or not (previous is None or isinstance(previous, dict)):
        return '"prev" is neither an object nor null'
    if op == "set" and value.get("data") is None:
        return 'a set without "data"'
    if op == "delete" and (previous is None or "data" in value):
        return 'a delete without "prev", or with "data"'
    if value.get("encoding", "full") not in ("full", "delta"):
        return '"encoding" is neither full nor delta'
    if "agent" in value and (not isinstance(value["agent"], str) or not value["agent"]):
        return '"agent" is no text'
    if isinstance(clock, bool) or not isinstance(clock, (int, float)) or clock < 0 or clock != clock // 1:
        return '"clock" is no integer'
    return None


def operation(line):
    """The Operation of a line, or the reason why opslog passes over it."""
    try:
        found = {name: (value, raw) for name, value, raw in il.members(line.data.decode(errors="replace"))}
    except ValueError as fault:
        return f"not JSON: {fault}"
    return fault_of(found) or Operation(line, found)


# The order in which localeCompare puts the characters of ASCII; letters of both cases are alike at first.
_ASCII_ORDER = "\t\n\v\f\r _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$0123456789abcdefghijklmnopqrstuvwxyz"
_PRIMARY = {character: at for at, character in enumerate(_ASCII_ORDER, 1)}


def collation(text):
    """
    A sort key that orders like localeCompare: characters, then accents, then case, small letters first. Exact for
    ASCII; other letters by their code points behind it, which matters only where two agents' clocks are equal.
    """
    first, second, third = [], [], []
    for character in unicodedata.normalize("NFD", text):
        if unicodedata.combining(character):
            second.append((len(first), ord(character)))
            continue
        lower = character.lower()
        if character < "\x80" and lower not in _PRIMARY:
            continue  # control characters do not count
        first.append(_PRIMARY.get(lower) or 1000 + ord(lower[0]))
        third.append(character != lower)
    return first, second, third


# ---- the store --------------------------------------------------------------------------------------


class Generation:
    """A snapshot, and the operations files that were begun between it and the next one."""

    def __init__(self, snapshot):
        self.snapshot = snapshot
        self.single = []  # files that no longer count, or never did, in the order of their making
        self.agents = []


class Store:
    def __init__(self, directory):
        self.directory = directory
        self.manifest = self._manifest()
        current = self.path_of(self.manifest["currentSnapshot"])
        self.active = self._active()
        self.merged = isinstance(self.manifest.get("activeAgentOps"), dict)
        self.archives = [Archive(self.path_of(name), name) for name in self.manifest["archiveSegments"]]
        self.newer = []  # snapshots that the manifest never came to name
        self.generations = self._generations(current)

    def path_of(self, name):
        """The path of a file that the manifest names, which must lie in the store."""
        path = os.path.normpath(name)
        if os.path.isabs(path) or path.split(os.sep)[0] == ".." or "\0" in path:
            raise Failure(f"{self.directory}/manifest.json: {name!r} is no path inside of the store")
        return os.path.join(self.directory, path)

    def _manifest(self):
        path = os.path.join(self.directory, "manifest.json")
        try:
            with open(path, "rb") as file:
                manifest = il.parse(file.read().decode(errors="replace"))
        except FileNotFoundError:
            raise Failure(f"{path}: there is none, so this is no opslog store") from None
        except OSError as fault:
            raise Failure(f"{path}: {fault.strerror}") from None
        except ValueError as fault:
            raise Failure(f"{path}: not JSON: {fault}") from None

        def is_name(value):
            return isinstance(value, str) and value != ""

        if not isinstance(manifest, dict) or not is_name(manifest.get("currentSnapshot")) \
                or not is_name(manifest.get("activeOps")):
            raise Failure(f'{path}: it has no "currentSnapshot" or no "activeOps"')
        agents = manifest.get("activeAgentOps", {})
        if not isinstance(agents, dict) or not all(map(is_name, agents.values())):
            raise Failure(f'{path}: "activeAgentOps" is no object of file names')
        segments = manifest.get("archiveSegments")
        if not isinstance(segments, list) or not all(map(is_name, segments)):
            raise Failure(f'{path}: "archiveSegments" is no list of file names')
        return manifest

    def _active(self):
        """The operations files that make up the present."""
        agents = self.manifest.get("activeAgentOps")
        names = agents.values() if isinstance(agents, dict) else [self.manifest["activeOps"]]
        return [self.path_of(name) for name in names]

    def _listed(self, directory, pattern):
        """The files whose names match: [(time, path)], oldest first."""
        try:
            names = os.listdir(os.path.join(self.directory, directory))
        except FileNotFoundError:
            return []
        except OSError as fault:
            raise Failure(f"{self.directory}/{directory}: {fault.strerror}") from None
        found = [(pattern.fullmatch(name), name) for name in names]
        return sorted((int(match.group(1)), os.path.join(self.directory, directory, name))
                      for match, name in found if match)

    def _generations(self, current):
        files = [(made, path) for made, path in self._listed("ops", OPS_NAME) if path not in self.active]
        snapshots = self._listed("snapshots", SNAPSHOT_NAME)
        made = next((made for made, path in snapshots if path == current), None)
        if made is None:  # named in a way of its own: the newest
            made = snapshots[-1][0] if snapshots else 0
            snapshots.append((made, current))
        at = [path for _, path in snapshots].index(current)
        self.newer = [path for _, path in snapshots[at + 1:]]
        generations = [Generation(None)]
        generations += [Generation(Snapshot(path, when)) for when, path in snapshots[:at + 1]]
        for when, path in files:
            its = 0
            while its + 1 < len(generations) and generations[its + 1].snapshot.made_ms <= when:
                its += 1
            single = os.path.basename(path).startswith("ops-")
            (generations[its].single if single else generations[its].agents).append(path)
        return generations

    def holder(self):
        """The process that has the store open; None if there is none."""
        for name in (".lock", ".compact-lock"):
            try:
                with open(os.path.join(self.directory, name), encoding="utf-8", errors="replace") as file:
                    pid = int(file.read(32))
                os.kill(pid, 0)
                return pid
            except PermissionError:
                return pid
            except (OSError, ValueError, OverflowError):
                continue
        return None

    def strangers(self):
        """What lies in the store's directory and is no part of it: blobs, say."""
        return sorted(set(os.listdir(self.directory)) - KNOWN)

    def unlisted_archives(self):
        """Archives that lie there, but that the manifest does not name."""
        listed = {os.path.normpath(archive.path) for archive in self.archives}
        try:
            names = sorted(os.listdir(os.path.join(self.directory, "archive")))
        except OSError:
            return []
        found = [Archive(os.path.join(self.directory, "archive", name), name) for name in names
                 if ARCHIVE_NAME.fullmatch(name)]
        return [archive for archive in found if os.path.normpath(archive.path) not in listed]
