"""What the tests of the import scripts share: running one, the fold of operations, and a session's documents."""
import json
import os
import subprocess

import hl

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SHOWN = os.environ["DOCUMENTS_ARE_FILES_IN"].split()  # of "state" and "archive"


def script(name, *arguments, status=0, data=None):
    """Runs scripts/NAME, whose exit status must be this, or one of these; returns (lines, what it said)."""
    done = subprocess.run([f"{ROOT}/scripts/{name}", *map(str, arguments)], input=data, capture_output=True)
    said = done.stderr.decode(errors="replace")
    allowed = status if isinstance(status, tuple) else (status,)
    assert done.returncode in allowed, f"{name} ended with {done.returncode}, not {status}: {said[-2000:]}"
    assert "Traceback" not in said, said
    lines = done.stdout.split(b"\n")
    assert lines.pop() == b"", "the output does not end with a newline"
    return lines, said


def stored(mount, session, lines):
    """Appends lines to a new session, which must take and hold them all; returns the session's path."""
    path = hl.new_session(mount, session)
    fd = hl.appender(path)
    try:
        hl.write_all(fd, b"".join(line + b"\n" for line in lines))
    finally:
        os.close(fd)
    hl.check_log(hl.log_of(path), lines, session)
    return path


# ---- what operations add up to ------------------------------------------------------------------------


def either(record, *names):
    for name in names:
        if name in record:
            return record[name]
    raise AssertionError(f"none of {names} in {record}")


def fold(lines):
    """(documents, archives) after these lines, by the rules for operations."""
    documents, archives = {}, {}
    for line in lines:
        record = json.loads(line)
        op = (record.get("op") or "").lower()
        if op == "set":
            documents[either(record, "key", "id")] = either(record, "value", "data")
        elif op == "delete":
            documents.pop(either(record, "key", "id"), None)
        elif op == "checkpoint":
            documents = dict(either(record, "state", "data"))
        elif op == "archive":
            for key in record["keys"]:
                archives.setdefault(record["name"], {})[key] = documents.pop(key)
        elif op == "restore":
            for key in record["keys"]:
                documents[key] = archives[record["name"]].pop(key)
        else:
            assert op == "", record
    return documents, archives


def file_name(text):
    """The file name of a key, or of an archive."""
    if text in (".", ".."):
        return "%2E" * len(text)
    return "".join(f"%{ord(c):02X}" if c in "/%\x7f" or c < " " else c for c in text)


def directory(path):
    documents = {}
    for name in os.listdir(path):
        documents[name] = json.loads(hl.read(f"{path}/{name}"))
    return documents


def check_session(path, documents, archives):
    """The session has these documents and archives: by its log, and by its files where the mount has SHOWN ones."""
    archives = {name: held for name, held in archives.items() if held}
    got = fold(hl.lines_of(hl.log_of(path)))
    assert got[0] == documents, differences(got[0], documents)
    assert got[1] == archives, (got[1], archives)
    if "state" in SHOWN:
        state = directory(f"{path}/state")
        want = {file_name(key): value for key, value in documents.items()}
        assert state == want, differences(state, want)
    if "archive" in SHOWN:
        assert set(os.listdir(f"{path}/archive")) == set(map(file_name, archives))
        for name, held in archives.items():
            got = directory(f"{path}/archive/{file_name(name)}")
            assert got == {file_name(key): value for key, value in held.items()}, (name, got)


def differences(got, want):
    keys = [key for key in {**got, **want} if key not in got or key not in want or got[key] != want[key]]
    return [(key, got.get(key, "nothing"), want.get(key, "nothing")) for key in keys[:5]]
