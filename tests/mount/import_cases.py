"""Cases of test_import.sh: append logs, transcripts, and what all import scripts have in common."""
import base64
import gzip
import json
import os
import resource
import subprocess

import hl
from hl import case
from import_model import ROOT, check_session, fold, script, stored

TRANSCRIPTS = f"{ROOT}/tests/data/transcripts"
CLAUDE = f"{TRANSCRIPTS}/3f0c9a52-6d1e-4b7a-9c58-21aa40c7e901.jsonl"
SUBAGENT = f"{TRANSCRIPTS}/agent-ad2d877.jsonl"
CODEX = f"{TRANSCRIPTS}/rollout-2025-11-03T08-00-00-0199f0aa-1111-7222-8333-444455556666.jsonl"
FORK = f"{TRANSCRIPTS}/rollout-2025-11-03T08-30-00-0199f0bb-1111-7222-8333-444455556666.jsonl"
OLD_CODEX = f"{TRANSCRIPTS}/rollout-2025-07-01T07-00-00-0198aaaa-1111-4222-8333-444455556666.jsonl"
SECOND = 1735689600000  # 2025-01-01T00:00:00Z


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)
    return path


def records(lines):
    return [json.loads(line) for line in lines]


def append_log(data, *options, status=0):
    lines, said = script("import-append-log", *options, "-", status=status, data=data)
    return records(lines), said


# ---- append logs ------------------------------------------------------------------------------------

UNDERSTOOD = [
    ('{"op":"SET","key":"a","value":{"n":1.50},"ts":"2025-01-01T00:00:00Z"}',
     '{"op":"set","key":"a","value":{"n":1.50},"ts_ms":1735689600000,"was":{"ts":"2025-01-01T00:00:00Z"}}'),
    ('{"timestamp":"2025-01-01T01:00:00.250+01:00","op":"Set","id":"a","data":null}',
     '{"op":"set","key":"a","value":null,"ts_ms":1735689600250,"was":{"timestamp":"2025-01-01T01:00:00.250+01:00"}}'),
    ('{"op":"DELETE","id":"a","ts":"2025-01-01T00:00:00.000Z","prev":{"n":1},"by":"bot"}',
     '{"op":"delete","key":"a","ts_ms":1735689600000,"prev":{"n":1},"by":"bot"}'),
    ('{"op":"CHECKPOINT","ts":1735689600,"data":{"a":1,"b":[]}}',
     '{"op":"checkpoint","state":{"a":1,"b":[]},"ts_ms":1735689600000,"was":{"ts":1735689600}}'),
    ('{"op":"SET","data":{"a":{"x":1}},"time":1735689600000}',
     '{"op":"checkpoint","state":{"a":{"x":1}},"ts_ms":1735689600000}'),
    ('{"ts_ms":1735689600000,"data":{"a":1}}', '{"op":"checkpoint","state":{"a":1},"ts_ms":1735689600000}'),
    ('{"ts_ms":5,"op":"put","key":17,"value":true}', '{"op":"set","key":"17","value":true,"ts_ms":5}'),
    ('{"ts_ms":5,"operation":"remove","key":"k","seq":9,"kind":"x","session_id":"s","state":1}',
     '{"op":"delete","key":"k","ts_ms":5,"kind":"x","was":{"seq":9,"session_id":"s","state":1}}'),
    ('{"ts":"2025-01-01T00:00:00.000001Z","type":"del","id":"k"}',
     '{"op":"delete","key":"k","ts_ms":1735689600000,"was":{"ts":"2025-01-01T00:00:00.000001Z"}}'),
    (' { "op" : "set" , "key" : "é\\u00e9" , "value" : { "a" : [ 1 , 2 ] } , "ts_ms" : 6 } ',
     '{"op":"set","key":"éé","value":{ "a" : [ 1 , 2 ] },"ts_ms":6}'),
]

# JSON or text that no operation can be made of; what comes out must hold the line as it was.
NOT_UNDERSTOOD = [
    "plain text", "", "   ", "[1,2]", '"text"', "17", "null", "{}", '{"op":"set"', '{"op":"set","key":"a"}x',
    '{"op":"set","key":"a"}', '{"op":"set","value":1}', '{"op":"fly","key":"a","value":1}', '{"op":17,"key":"a"}',
    '{"op":"set","key":"","value":1}', '{"op":"set","key":"a\\u0000b","value":1}', '{"op":"delete"}',
    '{"op":"set","key":{},"value":1}', '{"op":"set","key":true,"value":1}', '{"op":"checkpoint","state":[1]}',
    '{"op":"set","key":"a","key":"b","value":1}', '{"op":"set","key":"a","value":NaN}', '{"a":1e999,"b":-0}',
    '{"op":"set","key":"a","value":"\\ud83d"}', '{"op":"set","key":"%s","value":1}' % ("k" * 256),
    '{"op":"set","key":"%s","value":1}' % ("/" * 86), '{"op":"set","key":"a","value":%s1%s}' % ("[" * 600, "]" * 600),
    '{"op":"set","key":"a","value":%s}' % ("[" * 3000), '{"op":"set","key":"a","value":%s}' % ("9" * 5000),
    '{"level":"info","id":17,"data":"hello"}', '{"data":{"a":1},"event":"x"}', "{\"a\":\"\x01\"}", "\x00\x00\x00{}",
    '{"session_id":5,"seq":"x","kind":[],"payload":1}', '{"op":null}', "über \u2028 \U0001f600 \\ \" \t",
]


@case
def operations_are_understood(mount):
    lines, _ = script("import-append-log", "-", data="\n".join(line for line, _ in UNDERSTOOD).encode())
    for got, (line, want) in zip(lines, UNDERSTOOD):
        assert got.decode() == want, f"{line}\ngave {got.decode()}\nnot  {want}"
    path = stored(mount, "understood", lines)
    check_session(path, {"éé": {"a": [1, 2]}, "17": True, "a": 1}, {})


@case
def nothing_is_lost(mount):
    """What is not understood is an event that holds the line, and is counted."""
    texts = [line for line in NOT_UNDERSTOOD if line.strip()]
    data = "\n".join(NOT_UNDERSTOOD).encode() + b"\nno UTF-8: \xff\xc3\n\xed\xa0\x80\n"
    lines, said = script("import-append-log", "-", data=data)
    assert len(lines) == len(texts) + 2 and f"{len(lines)} x line not understood" in said, said
    for got, text in zip(records(lines), texts):
        assert "op" not in got and got["source"] == "append-log", got
        payload = got["payload"]
        assert payload == text or (not isinstance(payload, str) and payload == json.loads(text)), (text, got)
    for got, raw in zip(records(lines)[-2:], (b"no UTF-8: \xff\xc3", b"\xed\xa0\x80")):
        assert base64.b64decode(got["line_base64"]) == raw, got
    stored(mount, "lost", lines)


@case
def times_of_lines_without():
    data = b'one\n{"op":"set","key":"a","value":1,"ts_ms":7}\ntwo\n{"op":"delete","key":"a"}\n{"level":"x","time":8}\n'
    got, _ = append_log(data)
    assert "ts_ms" not in got[0], got[0]
    assert got[2]["ts_ms"] == 7 and got[2]["ts_exact"] is False and got[3]["ts_exact"] is False, got
    assert got[4]["ts_ms"] == 8000 and "ts_exact" not in got[4], got[4]


@case
def endings():
    """BOM, CR, empty lines, a last line without a newline: whole, or torn."""
    one, two = b'{"op":"set","key":"a","value":1}', b'{"op":"delete","key":"a"}'
    for data in (one + b"\n" + two + b"\n", b"\xef\xbb\xbf" + one + b"\r\n\r\n" + two, one + b"\n\n" + two + b"\r"):
        got, said = append_log(data)
        assert [record["op"] for record in got] == ["set", "delete"], got
    got, said = append_log(one + b"\n" + two[:-1], status=3)
    assert len(got) == 1 and "-:2: torn last line, 24 bytes" in said and two[:-1].decode() in said, said
    got, said = append_log(one + b"\n" + b'{"op":"set","key":"\xc3', status=3)
    assert len(got) == 1 and "torn" in said
    got, said = append_log(one + b"\nlast words")
    assert got[1]["payload"] == "last words"
    assert append_log(b"")[0] == [] and append_log(b"\n\r\n")[0] == []
    got, said = append_log(two[:-1] + b"\n" + one + b"\n")  # damaged in the middle is no torn end
    assert got[0]["payload"] == two[:-1].decode() and got[1]["op"] == "set"


@case
def files_in_order(room):
    def log(n):
        return b'noise\n{"op":"SET","id":"n","data":%d,"ts":"2025-01-0%dT00:00:00Z"}\n' % (n, n)

    paths = [write(f"{room}/log.2", log(2)), write(f"{room}/log.3", gzip.compress(log(3)[:9]) + gzip.compress(log(3)[9:]) + b"\0" * 99),
             write(f"{room}/log.1", log(1))]

    def values(*arguments, status=0):
        lines, said = script("import-append-log", *arguments, status=status)
        return [record["value"] for record in records(lines) if "op" in record], said

    assert values(*paths)[0] == [2, 3, 1]
    assert values("--sort", *paths)[0] == [1, 2, 3]
    script("import-append-log", "--sort", "-", *paths, status=2)
    plain = write(f"{room}/plain", b"no time at all\n")
    assert "no line in it has a time" in values("--sort", plain, *paths, status=1)[1]
    assert values(*paths, plain)[0] == [2, 3, 1]
    # Torn in the middle of the list, unpacked as far as it goes, and not there.
    torn = write(f"{room}/torn", log(4)[:-9])
    got, said = values(paths[2], torn, paths[0], status=3)
    assert got == [1, 2] and f"{torn}:2: torn" in said
    packed = gzip.compress(b"".join(b'{"op":"set","key":"%d","value":%d}\n' % (n, n * n) for n in range(9999)), 1)
    cut = write(f"{room}/cut.gz", packed[:len(packed) // 2])
    got, said = values(cut, paths[0], status=1)
    assert len(got) > 1000 and got[-1] == 2 and cut in said and "too early" in said, said
    bad = write(f"{room}/bad.gz", packed[:5000] + bytes(500) + packed[5500:])
    assert "bad.gz" in values(bad, status=1)[1]
    got, said = values(paths[2], f"{room}/absent", status=1)
    assert f"{room}/absent: No such file" in said


@case
def long_checkpoints(mount):
    """One that is longer than max_record: the same state, by a shorter one and sets."""
    state = {f"key {n}": {"n": n, "text": "ü" * 300} for n in range(100)}
    state["long"] = "x" * 9000
    data = b'{"op":"set","key":"old","value":1,"ts_ms":1}\n' + json.dumps({"op": "CHECKPOINT", "data": state, "ts_ms": 2}).encode() + b"\n"
    lines, said = script("import-append-log", "--max-record", "8K", "-", data=data, status=3)
    assert all(len(line) <= 8 << 10 for line in lines) and lines[1].startswith(b'{"op":"checkpoint"')
    parts = [record["payload"] for record in records(lines) if "parts" in record]
    assert json.loads("".join(parts)) == {"long": state.pop("long")} and '"long"' in said.replace("'", '"'), said
    check_session(stored(mount, "long", lines), state, {})
    # Keys that cannot be documents leave the state without them, and are not lost.
    data = b'{"op":"checkpoint","state":{"a":1,"":2,"%s":3,"b":4},"ts_ms":2}\n' % (b"k" * 300)
    got, said = append_log(data, status=3)
    assert fold(map(json.dumps, got))[0] == {"a": 1, "b": 4} and got[0]["payload"] == json.loads(data)


@case
def random_logs(mount, room):
    """A bot's log of random operations in rotated files, each way of writing them, against a model."""
    rng = hl.seeded()
    for round_ in range(5):
        model, lines, expected_events = {}, [], 0
        keys = ["a", "b/c", "ключ", "%", ".", "x y", "17"]
        for at in range(rng.randrange(50, 400)):
            key, value = rng.choice(keys), rng.choice([None, 1, "t", {"n": at}, [at, "\u2028\\"], 1.5, {}])
            stamp = rng.choice([{"ts": f"2025-01-01T00:{at // 60:02d}:{at % 60:02d}Z"}, {"timestamp": SECOND / 1000 + at}, {}])
            kind = rng.randrange(10)
            if kind < 6:
                op = {"op": rng.choice(["SET", "set", "Put"]), rng.choice(["key", "id"]): key, rng.choice(["value", "data"]): value}
                model[key] = value
            elif kind < 8:
                op = {"op": rng.choice(["DELETE", "del", "remove"]), rng.choice(["key", "id"]): key}
                model.pop(key, None)
            elif kind == 8:
                model = {k: rng.randrange(9) for k in rng.sample(keys, rng.randrange(4))}
                op = {rng.choice(["data", "state"]): model}
                op.update(rng.choice([{"op": "CHECKPOINT"}, {}]))
            else:
                op = {"log": "something else", "n": at}
                expected_events += 1
            text = json.dumps({**stamp, **op}, ensure_ascii=rng.random() < 0.5)
            lines.append(text.encode() + rng.choice([b"\n", b"\r\n", b"\n\n"]))
            model = dict(model)
        cuts = sorted(rng.sample(range(len(lines)), 2))
        paths = []
        for n, part in enumerate((lines[:cuts[0]], lines[cuts[0]:cuts[1]], lines[cuts[1]:])):
            data = rng.choice([b"", b"\xef\xbb\xbf"]) + b"".join(part)
            paths.append(write(f"{room}/random-{round_}-{n}", rng.choice([gzip.compress, bytes])(data)))
        printed, _ = script("import-append-log", *paths)
        assert len(printed) == len(lines) and sum("op" not in r for r in records(printed)) == expected_events
        check_session(stored(mount, f"bot-{round_}", printed), model, {})


@case
def noise_is_taken(mount, room):
    """Bytes of every sort: no line is lost, none is refused, and no script stumbles."""
    rng = hl.seeded()
    pool = [line.encode() for line, _ in UNDERSTOOD] + [line.encode() for line in NOT_UNDERSTOOD]
    for path in (CLAUDE, CODEX):
        pool += hl.read(path).split(b"\n")
    for round_ in range(4):
        lines = []
        for _ in range(300):
            line = bytearray(rng.choice(pool))
            for _ in range(rng.randrange(4)):
                if line:
                    at = rng.randrange(len(line))
                    line[at:at + rng.randrange(3)] = rng.choice([b"", b"{", b'"', b"\\", bytes([rng.randrange(256)]), b"null", b"[", b"1"])
            lines.append(bytes(line).replace(b"\n", b"").replace(b"\r", b""))
        count = sum(1 for line in lines if line.strip())
        path = write(f"{room}/noise-{round_}.jsonl", b"\n".join(lines) + b"\n")
        printed, _ = script("import-append-log", path, status=(0, 3))
        assert len(printed) >= count, (len(printed), count)
        stored(mount, f"noise-{round_}", printed)
        printed, _ = script("import-transcript", "--session", f"noise-t-{round_}", path, status=(0, 3))
        assert sum("block" not in record for record in records(printed)) == count
        stored(mount, f"noise-t-{round_}", printed)


# ---- transcripts ------------------------------------------------------------------------------------

TOKENS = ("tokens_in", "tokens_out", "reasoning_tokens", "cache_creation_tokens", "cache_read_tokens")


def sums(events):
    return tuple(sum(event.get(name, 0) for event in events) for name in TOKENS)


def check_payloads(path, events):
    """Each line of the file is the payload of an event, in order, byte for byte as JSON."""
    whole = [event for event in events if "block" not in event]
    lines = [line for line in hl.read(path).decode().split("\n") if line]
    assert len(whole) == len(lines), (len(whole), len(lines))
    return lines


@case
def claude(mount):
    lines, said = script("import-transcript", CLAUDE)
    events = records(lines)
    for line, text in zip((line for line in lines if b'"block":' not in line), check_payloads(CLAUDE, events)):
        want = text if text.startswith("{") else json.dumps(text)
        assert line.decode().endswith(f',"payload":{want}}}'), line
    # msg_01A: 12 / 159 / 1000 / 20000 on four lines; msg_01B; msg_01C; one without an id.
    assert sums(events) == (12 + 3 + 5 + 2, 159 + 80 + 40 + 4, 30, 1000 + 500, 20000 + 21000 + 21500 + 100), sums(events)
    assert sum(event.get("cost_usd_e6", 0) for event in events) == 12300
    calls = [(e["kind"], e["tool"], e["tool_call_id"]) for e in events if e.get("tool_call_id")]
    assert calls == [
        ("ToolCall", "Read", "toolu_01"), ("ToolCall", "Bash", "toolu_02"), ("ToolResult", "Read", "toolu_01"),
        ("ToolResult", "Bash", "toolu_02"), ("ToolCall", "Glob", "toolu_03"), ("ToolCall", "Edit", "toolu_04"),
        ("ToolResult", "Edit", "toolu_04"), ("ToolResult", "Glob", "toolu_03")], calls
    kinds = [event.get("kind") for event in events]
    assert kinds.count("Error") == 2 and kinds.count("Hook") == 2 and kinds.count(None) == 2, kinds
    assert [e["retry_count"] for e in events if "retry_count" in e] == [1]
    assert [e["latency_ms"] for e in events if "latency_ms" in e] == [15400]
    assert [e["stop_reason"] for e in events if "stop_reason" in e] == ["tool_use", "tool_use", "end_turn", "stop_sequence"]
    block = [e for e in events if e.get("block") == 2][0]
    assert block["payload"]["id"] == "toolu_04" and block["payload"]["input"]["new_string"] == "1, 7"
    assert {event["session_id"] for event in events} == {os.path.basename(CLAUDE)[:-6]}
    assert events[2]["ts_ms"] == 1762077600000 and "ts_exact" not in events[2]
    assert events[0]["ts_exact"] is False  # a line without a time
    assert "line of an unknown sort" in said and "1 x line that is no JSON object" in said
    stored(mount, os.path.basename(CLAUDE)[:-6], lines)


@case
def claude_with_subagent(mount):
    lines, _ = script("import-transcript", CLAUDE, SUBAGENT)
    events = records(lines)
    assert len({event["session_id"] for event in events}) == 1
    assert sums(events)[:2] == (22 + 7, 283 + 11), sums(events)  # what both have counts once
    fd = os.open(f"{mount}/append", os.O_WRONLY)
    hl.write_all(fd, b"".join(line + b"\n" for line in lines))
    os.close(fd)
    log = records(hl.lines_of(hl.log_of(f"{mount}/sessions/{events[0]['session_id']}")))[-len(events):]
    assert sums(log) == sums(events)
    alone, _ = script("import-transcript", "--session", "mine", SUBAGENT)
    assert sums(records(alone))[:2] == (12 + 7, 159 + 11) and records(alone)[0]["session_id"] == "mine"


@case
def codex(mount):
    lines, _ = script("import-transcript", CODEX)
    events = records(lines)
    for line, text in zip(lines, check_payloads(CODEX, events)):
        assert line.decode().endswith(f',"payload":{text}}}'), line
    # The last total: 18000 in, of which 15500 cached; 260 out, of which 96 reasoning. Written five times.
    assert sums(events) == (2500, 260, 96, 0, 15500), sums(events)
    calls = [(e["kind"], e["tool"]) for e in events if e.get("kind") in ("ToolCall", "ToolResult")]
    assert calls == [("ToolCall", "shell"), ("ToolResult", "shell"), ("ToolCall", "apply_patch"),
                     ("ToolResult", "apply_patch"), ("ToolCall", "web_search")], calls
    assert [e["context_used_tokens"] for e in events if "context_used_tokens" in e] == [5000, 6000, 7000]
    assert {e["context_max_tokens"] for e in events if "context_max_tokens" in e} == {272000}
    assert [(e["latency_ms"], e.get("ttft_ms")) for e in events if "latency_ms" in e] == [(1250, None), (11000, 812)]
    assert sum(e.get("kind") == "Error" for e in events) == 1
    stored(mount, events[0]["session_id"], lines)


@case
def codex_fork():
    """A fork's file begins with a copy of its parent: only what came after it counts."""
    for files, want in (((FORK,), (1400, 50, 4, 0, 7500)), ((CODEX, FORK), (3900, 310, 100, 0, 23000))):
        lines, _ = script("import-transcript", *files)
        assert sums(records(lines)) == want, (files, sums(records(lines)))
    events = records(lines)
    assert len({event["session_id"] for event in events}) == 2
    assert sum(event.get("replayed", False) for event in events) == 22


@case
def codex_of_old(mount):
    lines, _ = script("import-transcript", OLD_CODEX)
    events = records(lines)
    assert [(e["kind"], e.get("tool")) for e in events[3:]] == [
        ("ToolCall", "shell"), ("ToolResult", "shell"), ("ToolCall", "local_shell")], events
    assert all(event["source"] == "codex" and event["ts_ms"] == 1751353200000 for event in events), events
    stored(mount, events[0]["session_id"], lines)


@case
def sessions_of_files(room):
    def session(name, *rows):
        path = write(f"{room}/{name}", b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        return records(script("import-transcript", path)[0])[0]["session_id"]

    other = "11111111-2222-3333-4444-555555555555"
    assert session(f"{other}.jsonl", {"type": "user", "sessionId": "copied"}) == other
    assert session("agent-1.jsonl", {"type": "summary"}, {"type": "user", "sessionId": other}) == other
    assert session("x.jsonl", {"type": "session_meta", "payload": {"id": "own"}}, {"type": "session_meta", "payload": {"id": "b"}}) == "own"
    assert session(f"rollout-2025-01-01T00-00-00-{other}.jsonl", {"type": "message", "role": "user"}) == other
    assert session("notes.jsonl", {"type": "what"}) == "notes"
    long = write(f"{room}/{'l' * 250}", b'{"type":"user","sessionId":"%s"}\n' % (b"s" * 300))
    assert "cannot be a session id" in script("import-transcript", long, status=1)[1]
    for bad in ("", "a\0b"[:1] * 256):
        assert "invalid session id" in script("import-transcript", "--session", bad, long, status=2)[1]


@case
def a_transcript_that_grows(mount, room):
    """With --seq it is appended again, and only what is new is stored."""
    data = hl.read(CLAUDE)
    path = f"{room}/{os.path.basename(CLAUDE)}"
    name = "grown"
    session = hl.new_session(mount, name)
    done = 0
    for size in (len(data) // 3, len(data) // 2, len(data), len(data)):
        write(path, data[:size])
        torn = not data[:size].endswith(b"\n")
        lines, said = script("import-transcript", "--seq", "--session", name, path, status=3 if torn else 0)
        assert ("torn last line" in said) == torn
        assert len(lines) >= done
        done = len(lines)
        hl.append(session, b"".join(line + b"\n" for line in lines))
        hl.check_log(hl.log_of(session), lines, name)
    assert sums(records(lines))[0] == 22


# ---- all of them ------------------------------------------------------------------------------------


@case
def sizes(room):
    """Lines longer than max_record come in parts that make up the line again."""
    big = {"type": "user", "sessionId": "s", "message": {"role": "user", "content": "ü\\\"\u0001" * 4000}}
    text = json.dumps(big, ensure_ascii=False)
    path = write(f"{room}/big.jsonl", text.encode() + b"\nplain " + "ö\x02".encode() * 9000 + b"\n" + b"\xff" * 9000 + b"\n")
    for name in ("import-transcript", "import-append-log"):
        lines, _ = script(name, "--max-record", "6K", path)
        assert all(len(line) <= 6 << 10 for line in lines), max(map(len, lines))
        got, joined = records(lines), []
        for record in got:
            if record["part"] == 1:
                joined.append("")
            joined[-1] += record.get("payload") or record["line_base64"]
        assert joined[0] == text and joined[1] == "plain " + "ö\x02" * 9000
        assert base64.b64decode(joined[2]) == b"\xff" * 9000
    for bad in ("0", "6k", "-1", "x"):
        assert "invalid size" in script("import-append-log", "--max-record", bad, path, status=2)[1]


@case
def memory_stays_flat(room):
    """64 MiB of lines in a file of gzip: far more than a script may hold."""
    path = f"{room}/long.gz"
    with gzip.open(path, "wb", 1) as file:
        for n in range(64):
            file.write(b"".join(b'{"op":"SET","id":"key %d","data":{"n":%d,"text":"%s"},"ts_ms":%d}\n'
                                % (i, n, b"x" * 960, n) for i in range(1000)))
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert before < 48 << 10, before
    with open("/dev/null", "wb") as null:
        done = subprocess.run([f"{ROOT}/scripts/import-append-log", path], stdout=null, stderr=subprocess.PIPE)
    assert b"64000 lines" in done.stderr, done
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak < 48 << 10, f"{peak} KiB"


@case
def refusals_are_told(mount):
    """Straight into `append`: a refusal ends the script with a sentence."""
    session = hl.new_session(mount, "refusing")
    fd = os.open(f"{session}/append", os.O_WRONLY)
    done = subprocess.run([f"{ROOT}/scripts/import-append-log", "--session", "another", "-"], stdout=fd,
                          input=b"text\n", stderr=subprocess.PIPE)
    os.close(fd)
    assert done.returncode == 1 and b"Invalid argument" in done.stderr and b"last_error" in done.stderr, done
    assert "session_id" in hl.last_error(session)
    assert hl.log_of(session) == b""
    done = subprocess.run(f"{ROOT}/scripts/import-append-log '{__file__}' | :", shell=True, stderr=subprocess.PIPE)
    assert b"Traceback" not in done.stderr


@case
def help_and_usage():
    for name in ("import-opslog", "import-append-log", "import-transcript"):
        lines, _ = script(name, "--help")
        text = b"\n".join(lines).decode()
        for word in ("usage:", "append", "--session", "--max-record", "exit status:"):
            assert word in text, (name, word)
        script(name, status=2)
        script(name, "--no-such-option", "x", status=2)
        assert "No such file" in script(name, "/no/such/file", status=1)[1] or name == "import-opslog"


if __name__ == "__main__":
    hl.main()
