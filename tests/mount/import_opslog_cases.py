"""Cases of test_import.sh: stores of opslog. What they must become is what the real package read from them."""
import gzip
import hashlib
import json
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "scripts", "lib"))

import hl
import import_lines as il
import opslog_store
from hl import case
from import_model import ROOT, check_session, fold, script, stored

STORES = f"{ROOT}/tests/data/opslog/stores"
# Stores whose snapshots tell nothing that the operations did not tell before.
EXPLAINED = {"single", "undone", "generations", "agents", "names", "pretty", "oneline", "crashed", "group", "torn"}
# Stores that hold something that has to be told; hotlogfs cannot hold all of "unfit".
ASIDE = {"undone", "torn", "crashed", "values", "unfit"}


def expected(directory):
    with open(f"{directory}/expected.json", encoding="utf-8") as file:
        found = json.load(file)
    return dict(found["documents"]), {name: dict(held) for name, held in found["archives"].items()}, found["operations"]


def files(directory):
    found = {}
    for place, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(place, name)
            found[path] = hashlib.sha256(hl.read(path)).hexdigest()
    return found


def operations_in(store):
    """Every line of every operations file that is an operation: (op, key, time, value)."""
    for place, _, names in os.walk(f"{store}/ops"):
        for name in names:
            for line in hl.read(os.path.join(place, name)).decode(errors="replace").split("\n"):
                try:
                    op = json.loads(line)
                    previous = op["prev"]
                    taken = previous is None or isinstance(previous, dict)
                    if taken and (op["op"] == "delete" or op.get("data") is not None):
                        yield op["op"], op["id"], il.rfc3339_ms(op["ts"]), json.dumps(op.get("data"))
                except (ValueError, KeyError):
                    pass


def check_history(store, lines):
    """All operations that the store still has are in the output, as often as there."""
    printed = {}
    for line in lines:
        record = json.loads(line)
        if "op" in record and "ts_exact" not in record:
            op = record["op"], record["key"], record["ts_ms"], json.dumps(record.get("value"))
            printed[op] = printed.get(op, 0) + 1
    for op in operations_in(store):
        assert printed.get(op, 0) > 0, f"not printed: {op}"
        printed[op] -= 1
    assert not any(printed.values()), f"printed, but not in the store: {[op for op in printed if printed[op]]}"


def check_last(lines, operations):
    """The operations since the last checkpoint, in the package's own order, are the last ones printed."""
    printed = [json.loads(line) for line in lines]
    printed = [record for record in printed if "op" in record and "ts_exact" not in record]
    printed = printed[len(printed) - len(operations):]
    for got, want in zip(printed, operations):
        assert (got["op"], got["key"], got["ts_ms"]) == (want["op"], want["id"], il.rfc3339_ms(want["ts"])), (got, want)
        assert got.get("value") == want.get("data") and got["prev"] == want["prev"], (got, want)
        for name in ("encoding", "agent", "clock"):
            assert got.get(name) == want.get(name), (name, got, want)


@case
def kept(mount):
    """Each store that is kept, appended to a session of its own."""
    names = sorted(os.listdir(STORES))
    assert len(names) > 15
    for name in names:
        print(name)
        before = files(f"{STORES}/{name}")
        lines, said = script("import-opslog", f"{STORES}/{name}/store", status=3 if name in ASIDE else 0)
        assert files(f"{STORES}/{name}") == before, "the store was changed"
        assert f"{len(lines)} lines" in said, said
        path = stored(mount, name, lines)
        if name != "unfit":
            documents, archives, operations = expected(f"{STORES}/{name}")
            check_session(path, documents, archives)
            check_history(f"{STORES}/{name}/store", lines)
            check_last(lines, operations)
        if name in EXPLAINED:
            assert not any("snapshot" in json.loads(line) for line in lines), lines


@case
def unfit(mount):
    """What hotlogfs cannot hold is told, kept as an event, and does not leave an older value in its place."""
    documents, archives, _ = expected(f"{STORES}/unfit")
    assert set(documents) == {"good", "half", "deep", "half \ud83d"} and list(archives) == ["long"]
    lines, said = script("import-opslog", f"{STORES}/unfit/store", status=3)
    path = stored(mount, "unfit-too", lines)
    check_session(path, {"good": {"n": 1}, "half": {"text": "cut again \ufffd", "list": [1]}}, {})
    events = [json.loads(line)["payload"] for line in lines if "op" not in json.loads(line)]
    held = {"good", "deep", "half"}
    for name in os.listdir(f"{STORES}/unfit/store/ops"):
        for line in hl.read(f"{STORES}/unfit/store/ops/{name}").decode().splitlines():
            op = json.loads(line)
            if op["id"] not in held or '"in":' in line or "cut" in line.split('"data"')[1]:
                assert line in events, line
    assert len(events) == 7, events
    for word in ("long key", "nul ", "half", "nested too deeply", "surrogate"):
        assert word in said, said


@case
def torn_lines_are_events(_):
    lines, said = script("import-opslog", f"{STORES}/torn/store", status=3)
    payloads = [json.loads(line).get("payload") for line in lines if b'"payload"' in line]
    assert "this is no JSON" in payloads and any(p.endswith('"torn","prev":nu') for p in payloads), payloads
    assert len(payloads) == 4 and "jsonl:4: " in said and "torn last line" in said, (payloads, said)
    byte = [line for line in lines if b'"latin"' in line]
    assert len(byte) == 1 and json.loads(byte[0])["value"] == {"n": "\ufffd"}, "as the package reads it"


@case
def times(_):
    """Operations carry their own times; what only a snapshot or an archive tells is not called exact."""
    lines, _ = script("import-opslog", f"{STORES}/tidied/store")
    records = [json.loads(line) for line in lines]
    assert [r["op"] for r in records].count("archive") == 4, records
    for record in records:
        assert (record.get("ts_exact") is False) == ("snapshot" in record or record["ts_ms"] < records[-1]["ts_ms"]), record
        assert record["ts_ms"] > 1740000000000
    # With the past still there, archives stand where they happened.
    lines, _ = script("import-opslog", f"{STORES}/archived/store")
    records = [json.loads(line) for line in lines]
    assert [r["ts_ms"] for r in records] == sorted(r["ts_ms"] for r in records), records
    assert all("ts_exact" not in r for r in records if r["op"] == "set"), records


@case
def through_root(mount):
    lines, _ = script("import-opslog", "--session", "by root", f"{STORES}/generations/store")
    fd = os.open(f"{mount}/append", os.O_WRONLY)
    hl.write_all(fd, b"".join(line + b"\n" for line in lines))
    os.close(fd)
    documents, archives, _ = expected(f"{STORES}/generations")
    check_session(f"{mount}/sessions/by root", documents, archives)


@case
def random_stores(directory, mount):
    """Stores that a random walk with the real package made."""
    rng = hl.seeded()
    names = sorted(os.listdir(directory))
    chosen = rng.choice(names)
    for name in names:
        lines, _ = script("import-opslog", f"{directory}/{name}/store", status=(0, 3))  # 3: the package's undo cut lines
        documents, archives, operations = expected(f"{directory}/{name}")
        got = fold(lines)
        assert got == (documents, {n: held for n, held in archives.items() if held}), name
        check_history(f"{directory}/{name}/store", lines)
        check_last(lines, operations)
        if name == chosen:
            check_session(stored(mount, name, lines), documents, archives)


@case
def in_pieces(room):
    """What is read in pieces is the same wherever they end."""
    records = {"a": 12345678, "b": -1.5e10, "c": True, "d": None, "e ü": "\\\" ü 日本 \U0001f600 \u2028", "": [[], {}, [1, {"x": "}"}]],
               **{f"k{n}": {"n": n, "t": "ß" * n} for n in range(40)}}
    whole = {"version": 1, "records": records, "timestamp": "2025-01-01T00:00:00Z"}
    empty = {"timestamp": "t", "records": {}}
    for at, (value, indent) in enumerate(((whole, 2), (whole, None), (empty, 1), (empty, None))):
        path = f"{room}/pieces-{at}.json"
        write(path, json.dumps(value, indent=indent, ensure_ascii=False).encode())
        for il.CHUNK in (1, 2, 3, 7, 64, 4096):
            puller = opslog_store.Puller(path)
            got = [(key, found, json.loads(raw)) for key, found, raw in puller.records()]
            assert got == [(key, found, found) for key, found in value["records"].items()], (il.CHUNK, got)
            assert puller.fields == {name: found for name, found in value.items() if name != "records"}
    rows = [b"one", b"", b" two \r", b"\r", b"\xef\xbb\xbf three", b"x" * 5000, b"last"]
    want = [(1, b"one", True), (3, b" two ", True), (5, b"\xef\xbb\xbf three", True), (6, b"x" * 5000, True), (7, b"last", False)]
    for pack in (bytes, gzip.compress):
        write(f"{room}/rows", pack(b"\xef\xbb\xbf" + b"\n".join(rows)))
        for il.CHUNK in (3, 4, 5, 7, 64, 4096):
            got = list(il.lines(f"{room}/rows"))
            assert [(line.number, line.data, line.ended) for line in got] == want, (il.CHUNK, got)
            assert pack is not bytes or all(hl.read(f"{room}/rows")[line.offset:].startswith(line.data) for line in got)


# ---- stores that are damaged --------------------------------------------------------------------------


def copy_of(name, room):
    target = f"{room}/{name}"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(f"{STORES}/{name}/store", target)
    with open(f"{target}/manifest.json", encoding="utf-8") as file:
        return target, json.load(file)


def write(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data if isinstance(data, bytes) else json.dumps(data).encode())


def refused(store, *words):
    """It must fail with a sentence that has these words, and print nothing."""
    lines, said = script("import-opslog", store, status=1)
    assert lines == [], lines[:3]
    for word in words:
        assert word in said, f"{word!r} is not in {said!r}"


@case
def damaged(room):
    refused(f"{room}/nothing", "manifest.json", "no opslog store")
    target, manifest = copy_of("generations", room)
    for text in (b"", b"{", b"[]", b'{"currentSnapshot":1}', b"\xff\xfe"):
        write(f"{target}/manifest.json", text)
        refused(target, f"{target}/manifest.json")
    for path in ("../secret", "/etc/passwd", "snapshots/../../x", "a\0b"):
        write(f"{target}/manifest.json", {**manifest, "currentSnapshot": path})
        refused(target, "manifest.json", "no path inside")
    write(f"{target}/manifest.json", {**manifest, "currentSnapshot": "snapshots/gone.jsonl"})
    refused(target, "snapshots/gone.jsonl")

    target, manifest = copy_of("generations", room)
    path = f"{target}/{manifest['currentSnapshot']}"
    whole = hl.read(path)
    for line, text in ((2, b"{"), (3, b'{"id":3,"data":1}')):
        rows = whole.split(b"\n")
        rows[line - 1] = text
        write(path, b"\n".join(rows))
        refused(target, f"{path}:{line}: ")

    # An old snapshot is only history.
    target, manifest = copy_of("generations", room)
    old = sorted(os.listdir(f"{target}/snapshots"))[1]
    write(f"{target}/snapshots/{old}", b'{"version":1,"timestamp":"x"}\nnonsense\n')
    lines, said = script("import-opslog", target, status=3)
    assert old in said
    assert fold(lines) == expected(f"{STORES}/generations")[:2]

    # A file of operations that is not there is an empty one to opslog, too.
    target, manifest = copy_of("single", room)
    os.unlink(f"{target}/{manifest['activeOps']}")
    lines, said = script("import-opslog", target, status=3)
    assert lines == [] and manifest["activeOps"] in said

    for store, kind in (("archived", "archive"), ("pretty", "snapshots")):
        target, manifest = copy_of(store, room)
        name = manifest["archiveSegments"][0] if kind == "archive" else manifest["currentSnapshot"]
        whole = hl.read(f"{target}/{name}")
        for cut in (0, 1, 30, len(whole) // 2, len(whole) - 1):
            write(f"{target}/{name}", whole[:cut])
            refused(target, name)
        write(f"{target}/{name}", whole + b"x")
        refused(target, name)


@case
def archives_not_listed(_):
    lines, said = script("import-opslog", f"{STORES}/crashed/store", status=3)
    assert "--all-archives" in said and fold(lines)[1] == {}
    lines, said = script("import-opslog", "--all-archives", f"{STORES}/crashed/store")
    documents, archives = fold(lines)
    assert documents == expected(f"{STORES}/crashed")[0] and list(archives) == ["unlisted"], archives


@case
def long_values(room):
    """A value that is longer than max_record is an event in parts; one that is only with its prev loses that."""
    target, manifest = copy_of("single", room)
    with open(f"{target}/{manifest['activeOps']}", "ab") as file:
        for value, previous in (({"t": "a" * 3000}, None), ({"t": "b" * 3000}, {"t": "a" * 3000}), ({"t": "c" * 9000}, {})):
            op = {"ts": "2025-03-02T00:00:00.000Z", "op": "set", "id": "long", "prev": previous, "data": value}
            file.write(json.dumps(op).encode() + b"\n")
    lines, said = script("import-opslog", "--max-record", "5K", target, status=3)
    assert all(len(line) <= 5 << 10 for line in lines)
    assert "long" not in fold(lines)[0], "an older value stands for one that could not be held"
    assert [json.loads(line)["value"]["t"][0] for line in lines if b'"key":"long","value"' in line] == ["a", "b"]
    parts = [json.loads(line) for line in lines if b'"parts"' in line]
    assert json.loads("".join(part["payload"] for part in parts))["data"]["t"] == "c" * 9000
    assert [part["part"] for part in parts] == list(range(1, parts[0]["parts"] + 1))
    assert "with its prev" in said and "longer than max_record" in said


if __name__ == "__main__":
    hl.main()
