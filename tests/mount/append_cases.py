"""Cases of test_append.sh: what a line becomes, and what is refused. Arguments: MOUNT."""
import errno
import json
import os
import re

import hl
from append_checks import refused, stored, told
from hl import append, appender, case, check_log, fails, flush, last_error, log_of, new_session, read


@case
def json_lines(mount):
    """The stored line by the letter, not by the model."""
    s = new_session(mount, "json-1")
    append(s, b'{"kind":"ToolCall","tool":"bash","payload":{"cmd":"make"}}\n')
    append(s, b'{}\n')
    append(s, b'{ }\n')
    append(s, b'{"ts_ms":1500000000123,"payload":null}\n')
    append(s, b'{"payload":[1, 2.50,1e3 ],"kind":"Error","source":"Hook","ts_exact":true,"ts_ms":5,"seq":9,'
              b'"session_id":"json-1"}\n')
    append(s, b'{"op":"set","key":"k","value":{"a":1}}\n')
    append(s, b'{"unknown":"\\u00e9","unknown":2,"tool":"\\u0041"}\r\n')
    one, two, three, four, nine, operation, last = stored(s)
    ts = json.loads(one)["ts_ms"]
    assert abs(ts - 1000 * os.stat(f"{s}/log").st_ctime) < 86400000
    assert one == ('{"session_id":"json-1","seq":1,"ts_ms":%d,"ts_exact":false,"source":"Tail","kind":"ToolCall",'
                   '"tool":"bash","payload":{"cmd":"make"}}' % ts)
    plain = '{"session_id":"json-1","seq":%d,"ts_ms":%d,"ts_exact":false,"source":"Tail","kind":"Message"%s}'
    assert two == plain % (2, json.loads(two)["ts_ms"], "")
    assert three == plain % (3, json.loads(three)["ts_ms"], " ")
    assert four == ('{"session_id":"json-1","seq":4,"ts_exact":true,"source":"Tail","kind":"Message",'
                    '"ts_ms":1500000000123,"payload":null}')
    assert nine == ('{"payload":[1, 2.50,1e3 ],"kind":"Error","source":"Hook","ts_exact":true,"ts_ms":5,"seq":9,'
                    '"session_id":"json-1"}')
    ts = json.loads(operation)["ts_ms"]
    head = '{"session_id":"json-1","seq":10,"ts_ms":%d,"ts_exact":false,' % ts
    assert operation.startswith(head) and operation.endswith('"op":"set","key":"k","value":{"a":1}}'), operation
    assert '"source"' not in operation and '"kind"' not in operation
    assert last.endswith(',"unknown":"\\u00e9","unknown":2,"tool":"\\u0041"}')
    assert read(f"{s}/11").endswith(b'"}\r\n'), "the carriage return before the newline is the writer's"


@case
def null_fields(mount):
    s = new_session(mount, "nulls")
    lines = [
        b'{"kind":null}', b'{"source":null,"kind":"Cost"}', b'{"seq":null}', b'{"ts_ms":null,"x":null}',
        b'{"ts_exact":null}', b'{"session_id":null}', b'{"tool":null,"tokens_in":null,"payload":null}',
        b'{ "session_id" : null , "seq" : null,"ts_ms":null,"ts_exact":null,"source":null,"kind":null }',
        b'{"ts_ms":17,"ts_exact":null}', b'{"op":null}', b'{"payload":{"kind":null,"seq":null}}',
    ]
    append(s, b"\n".join(lines) + b"\n")
    check_log(log_of(s), lines, "nulls")
    for line in stored(s):
        names = [key for key, _, _ in hl.members(line)]
        assert len(names) == len(set(names)), line


@case
def text_lines(mount):
    s = new_session(mount, "text")
    lines = ["hi", "x", " {\"leading\":\"blank\"}", "[1,2]", "\"quoted\" \\back", "tab\tbell\x07\x1b[1m", "\r",
             "crlf\r", "nul\x00inside", "für 日本語 \U0001f600 \u2028 \x7f", "%s%n", "}", "'", "-" * 5000]
    lines = [line.encode() for line in lines]
    append(s, b"\n".join(lines) + b"\n")
    check_log(log_of(s), lines, "text")
    first = stored(s)[0]
    assert re.fullmatch(r'\{"session_id":"text","seq":1,"ts_ms":\d+,"ts_exact":false,"source":"Tail",'
                        r'"kind":"Message","payload":"hi"\}', first), first


@case
def empty_lines(mount):
    s = new_session(mount, "empty")
    append(s, b"\n")
    append(s, b"\n\n\n")
    assert log_of(s) == b""
    append(s, b"\n\na\n\n\nb\n\n")
    check_log(log_of(s), [b"a", b"b"], "empty")
    fd = appender(s)
    assert os.write(fd, b"") == 0
    os.close(fd)
    check_log(log_of(s), [b"a", b"b"], "empty")


@case
def id_is_escaped(mount):
    """A session whose id needs escapes in a file name and in JSON."""
    for name, ident in (("q%22\\", None), ("a%2Fb\"c\\d%01é", 'a/b"c\\d\x01é'), ("%2E%2E", ".."), ("100%25", "100%")):
        if ident is None:  # a quote needs no escape in a name, so this is not a name's one form
            with fails(errno.EINVAL):
                os.mkdir(f"{mount}/sessions/{name}")
            continue
        s = new_session(mount, name)
        append(s, b'{"n":1}\ntext\n')
        check_log(log_of(s), [b'{"n":1}', b"text"], ident)
        given = json.dumps({"session_id": ident}).encode()
        append(s, given + b"\n")
        assert read(f"{s}/3").endswith(given[1:] + b"\n")
        append(mount, json.dumps({"session_id": ident, "by": "root"}).encode() + b"\n")
        assert json.loads(read(f"{s}/4"))["by"] == "root"


BAD = [  # line, a word that last_error must have
    (b'{', ""), (b'{"a":}', ""), (b'{"a":1,}', ""), (b'{"a":1}}', ""), (b'{"a":1} x', ""), (b"{'a':1}", ""),
    (b'{"a":01}', ""), (b'{"a":+1}', ""), (b'{"a":.5}', ""), (b'{"a":1.}', ""), (b'{"a":NaN}', ""), (b'{"a":tru}', ""),
    (b'{"a":"\t"}', ""), (b'{"a":"\\x"}', ""), (b'{"a":"\\ud800"}', ""), (b'{"a":"\\u12g4"}', ""), (b'{"a" 1}', ""),
    (b'{"a":1 "b":2}', ""), (b'{"a":[1,2}', ""), (b'{"a":"\x00"}', ""), (b'{a:1}', ""), (b'{"a":1}\x00', ""),
    (b'{"a":"\xff"}', ""), (b'{"a":"\xc0\x80"}', ""), (b'{"a":"\xed\xa0\x80"}', ""), (b'{"a":"\xf4\x90\x80\x80"}', ""),
    (b"text \xff", ""), (b"\xe6\x97", ""), (b"\x80", ""), (b"cut \xf0\x9f\x98", ""),
    (b'{"kind":1}', "kind"), (b'{"kind":""}', "kind"), (b'{"kind":"two words"}', "kind"), (b'{"kind":["a"]}', "kind"),
    (b'{"kind":"%s"}' % (b"k" * 65), "kind"), (b'{"source":true}', "source"), (b'{"source":"a/b"}', "source"),
    (b'{"seq":-1}', "seq"), (b'{"seq":1.5}', "seq"), (b'{"seq":"1"}', "seq"), (b'{"seq":9007199254740992}', "seq"),
    (b'{"ts_ms":-1}', "ts_ms"), (b'{"ts_ms":"x"}', "ts_ms"), (b'{"ts_ms":18446744073709551616}', "ts_ms"),
    (b'{"ts_exact":1}', "ts_exact"), (b'{"ts_exact":"true"}', "ts_exact"),
    (b'{"session_id":5}', "session_id"), (b'{"session_id":"other"}', "session_id"), (b'{"session_id":""}', "session_id"),
    (b'{"tool":5}', "tool"), (b'{"tool_call_id":{}}', "tool_call_id"), (b'{"stop_reason":false}', "stop_reason"),
    (b'{"tokens_in":-1}', "tokens_in"), (b'{"tokens_out":4294967296}', "tokens_out"),
    (b'{"reasoning_tokens":1.0}', "reasoning_tokens"), (b'{"latency_ms":1e3}', "latency_ms"),
    (b'{"ttft_ms":"5"}', "ttft_ms"), (b'{"context_used_tokens":-0.5}', "context_used_tokens"),
    (b'{"context_max_tokens":[]}', "context_max_tokens"), (b'{"cache_creation_tokens":true}', "cache_creation_tokens"),
    (b'{"cache_read_tokens":-2}', "cache_read_tokens"), (b'{"system_prompt_tokens":99999999999}', "system_prompt_tokens"),
    (b'{"cost_usd_e6":9223372036854775808}', "cost_usd_e6"), (b'{"cost_usd_e6":0.5}', "cost_usd_e6"),
    (b'{"retry_count":65536}', "retry_count"), (b'{"retry_count":-1}', "retry_count"),
    (b'{"kind":"Cost","kind":"Cost"}', "kind"), (b'{"seq":77,"x":1,"seq":78}', "seq"), (b'{"tool":"a","tool":null}', "tool"),
    (b'{"payload":1,"payload":2}', "payload"), (b'{"ki\\u006ed":"Cost","kind":"Error"}', "kind"),
]


@case
def refusals(mount):
    s = new_session(mount, "refused")
    append(s, b"first\n")
    for line, word in BAD:
        refused(s, line + b"\n", errno.EINVAL, 1, word)
        # In the middle of a batch the good lines around it are refused with it, and it is named.
        refused(s, b'good\n\n{"good":2}\n' + line + b"\n" + b"good\n", errno.EINVAL, 4, word)
    check_log(log_of(s), [b"first"], "refused")
    append(s, b"after\n")
    check_log(log_of(s), [b"first", b"after"], "refused")


@case
def limits_accepted(mount):
    s = new_session(mount, "limits")
    lines = [
        b'{"kind":"%s"}' % (b"k" * 64), b'{"cost_usd_e6":-9223372036854775808}', b'{"cost_usd_e6":9223372036854775807}',
        b'{"tokens_in":4294967295,"tokens_out":0,"retry_count":65535}', b'{"ts_ms":0}', b'{"tool":""}',
        b'{"ts_ms":18446744073709551615}', b'{"ts_exact":true}', b'{"ts_exact":false,"ts_ms":3}',
        b'{"payload":' + b"[" * 200 + b"]" * 200 + b"}", b'{"kind":"Lifecycle","source":"Proxy"}', b'{"kind":"my_kind"}',
        b'{"payload":"\\ud83d\\ude00\\u0000"}', b'{"payload":-0.0e-10}', b'{"":1}', b'{"a":"\x7f"}',
    ]
    append(s, b"\n".join(lines) + b"\n")
    check_log(log_of(s), lines, "limits")


@case
def line_number_after_pieces(mount):
    """Lines are counted within the refused write; a piece kept from the write before belongs to line 1."""
    s = new_session(mount, "pieces-number")
    fd = appender(s)
    os.write(fd, b'{"a":')
    with fails(errno.EINVAL):
        os.write(fd, b"}\ngood\n")
    told(s, errno.EINVAL, 1)
    assert log_of(s) == b""
    os.close(fd)


@case
def next_line_after_a_refusal(mount):
    """A refused line spoils no later one, also where writers cut their lines, and the next ends like it."""
    s = new_session(mount, "next")
    fd = appender(s)
    os.write(fd, b'{"kind":5,')
    with fails(errno.EINVAL):
        os.write(fd, b'"x":1}\n')
    os.write(fd, b'{"kind":"Error",')
    os.write(fd, b'"x":1}\n')
    want = [b'{"kind":"Error","x":1}']
    check_log(log_of(s), want, "next")
    os.write(fd, b"a text ")
    with fails(errno.EINVAL):
        os.write(fd, b"\xff")
    os.write(fd, b"\n")
    append(s, b"other\n")
    before = log_of(s).count(b"\n")
    os.write(fd, b"good\n")
    assert log_of(s).count(b"\n") == before + 1
    os.close(fd)


@case
def retry_of_a_short_write(mount):
    """A program that goes on after a short write with the rest of its buffer is refused again, not half taken."""
    s = new_session(mount, "short")
    data = b'{"payload":"' + b"p" * (2 * hl.MIB) + b'","kind":5}\n'
    fd = appender(s)
    wrote = os.write(fd, data)
    assert 0 < wrote < len(data), wrote
    with fails(errno.EINVAL):
        os.write(fd, data[wrote:])
    assert log_of(s) == b""
    os.close(fd)
    append(s, b"good\n")
    check_log(log_of(s), [b"good"], "short")


@case
def record_size(mount):
    """max_record is 64K here: exactly that passes, one more is EMSGSIZE, refused whole."""
    s = new_session(mount, "sizes")
    limit = 65536
    text, event = b"t" * limit, b'{"p":"' + b"e" * (limit - 8) + b'"}'
    assert len(event) == limit
    append(s, text + b"\n")
    append(s, event + b"\n")
    check_log(log_of(s), [text, event], "sizes")
    refused(s, text + b"t\n", errno.EMSGSIZE, 1)
    refused(s, b'a\nb\n{"p":"' + b"e" * (limit - 7) + b'"}\n', errno.EMSGSIZE, 3)
    fd = appender(s)  # and as soon as a piece is over it, without waiting for its end
    with fails(errno.EMSGSIZE):
        os.write(fd, b"t" * (limit + 1))
    os.close(fd)
    fd = appender(s)
    os.write(fd, b"t" * limit)
    with fails(errno.EMSGSIZE):
        os.write(fd, b"t")
    os.close(fd)
    append(s, b"after\n")
    records = log_of(s).splitlines()
    assert len(records) in (3, 4) and json.loads(records[1])["seq"] == 2, "the two, perhaps the piece, and the last"
    assert json.loads(records[-1])["payload"] == "after"


@case
def longest_line_read_back(mount):
    """The stored form of a line of max_record is longer than it, and must be taken all the same."""
    s = new_session(mount, "longest")
    append(s, b"t" * 65536 + b"\n" + b'{"p":"' + b"e" * (65536 - 8) + b'"}\n')
    log = log_of(s)
    assert len(log) > 2 * 65536
    append(s, log)
    append(mount, log)
    assert log_of(s) == log


@case
def pieces(mount):
    s = new_session(mount, "pieces")
    one, two = appender(s), appender(s)
    os.write(one, b'{"from":"o')
    os.write(two, b"te")
    assert log_of(s) == b""
    os.write(one, b'ne"}\nnext ')
    os.write(two, b"xt\n")
    os.write(one, b"line\n")
    want = [b'{"from":"one"}', b"text", b"next line"]
    check_log(log_of(s), want, "pieces")
    for byte in b'{"x":"\xe6\x97\xa5"}\n':  # cut inside a character
        os.write(one, bytes([byte]))
    want.append('{"x":"日"}'.encode())
    check_log(log_of(s), want, "pieces")
    os.close(one)
    os.close(two)
    check_log(log_of(s), want, "pieces")


@case
def flush_and_close(mount):
    s = new_session(mount, "flush")
    fd = appender(s)
    flush(fd)
    want = []

    def has(*more):
        want.extend(more)
        check_log(log_of(s), want, "flush")

    os.write(fd, b'{"done":1}')
    has()
    flush(fd)
    has(b'{"done":1}')
    os.write(fd, b"\n")  # the newline that comes late ends an empty line
    flush(fd)
    has()
    os.write(fd, b"half a text")
    flush(fd)
    has()
    os.write(fd, b" and the rest\n")
    has(b"half a text and the rest")
    os.write(fd, b'{"open":')
    flush(fd)
    flush(fd)
    has()
    os.write(fd, b'[1]}')
    flush(fd)
    has(b'{"open":[1]}')
    os.write(fd, b"last")
    duplicate = os.dup(fd)
    os.close(fd)
    has()  # not the last close
    os.close(duplicate)
    want.append(b"last")
    # RELEASE is sent after close() has returned; nothing tells a program when it was handled.
    hl.wait_for(lambda: log_of(s).count(b"\n") == len(want), "the text left at the last close")
    has()


@case
def refused_at_close(mount):
    s = new_session(mount, "close")
    fd = appender(s)
    os.write(fd, b'{"never":[')
    os.close(fd)
    hl.wait_for(lambda: last_error(s) != "", "last_error after a close that left half an object")
    assert log_of(s) == b""


@case
def hopeless_pieces(mount):
    """What can be refused is refused at write(), also before the line's end."""
    for at, text in enumerate((b'{"a":}', b'{"a":1}}', b'{"a":01', b"{a", b'{"a":"\xff', b"text \xff", b"\xc0", b'{"a":1}x',
                               b'{"\x01', b'{"a":"\\q', b'{"a":tru,', b"{]")):
        s = new_session(mount, f"hopeless-{at}")
        fd = appender(s)
        with fails(errno.EINVAL):
            os.write(fd, text)
        assert last_error(s) != ""
        os.close(fd)
        assert log_of(s) == b"", text
        append(s, b"good\n")
        check_log(log_of(s), [b"good"], f"hopeless-{at}")


@case
def hopeless_at_last(mount):
    """However long the line is by then, the write that makes it hopeless is the one that is refused."""
    s = new_session(mount, "hopeless-late")
    for good, bad in ((b'{"a":"' + b"p" * 600000, b"\x01"), (b'{"a":"' + b"p" * 600000 + b'"', b"}}"), (b"t" * 600000, b"\xff"),
                      (b'{"a":1' + b"0" * 600000, b"a"), (b'{"' + b"k" * 600000, b'"}')):
        fd = appender(s)
        hl.write_all(fd, good)
        with fails(errno.EINVAL):
            os.write(fd, bad)
        os.close(fd)
    fd = os.open(f"{mount}/append", os.O_WRONLY)
    with fails(errno.EINVAL):  # root append takes no text, so it need not wait for the line's end
        os.write(fd, b"a text")
    os.close(fd)
    assert log_of(s) == b""


@case
def one_write_is_one_batch(mount):
    s = new_session(mount, "batch")
    fd = os.open(f"{s}/append", os.O_RDWR | os.O_APPEND)
    size = hl.MIB - 4096
    lines = [b"%07d" % n for n in range(size // 8)]
    data = b"\n".join(lines) + b"\n"
    assert len(data) == size
    for shift in (0, 1, 4095):  # wherever the buffer lies in its pages
        view = memoryview(b"\n" * shift + data)[shift:]
        before = log_of(s).count(b"\n")
        assert os.write(fd, view) == size
        assert os.read(fd, 100) == b"%d-%d\n" % (before + 1, before + len(lines))
    assert os.read(fd, 100) == b""
    before = log_of(s)
    with fails(errno.EINVAL):  # one bad line at the very end refuses all of it
        os.write(fd, data[:-9] + b"\n{      \n")
    assert log_of(s) == before
    parts = [b'{"part":%d}\n' % n for n in range(256)]
    assert os.writev(fd, parts) == sum(map(len, parts))
    last = before.count(b"\n")
    assert os.read(fd, 100) == b"%d-%d\n" % (last + 1, last + 256)
    parts[255] = b"{]\n"
    before = log_of(s)
    with fails(errno.EINVAL):
        os.writev(fd, parts)
    assert log_of(s) == before
    os.close(fd)


@case
def large_write_is_cut(mount):
    """Past the kernel's limit a refusal ends in a short write: what it counts is what is stored."""
    s = new_session(mount, "large")
    lines = [b"%07d" % n for n in range(3 * hl.MIB // 8)]
    data = b"\n".join(lines) + b"\n"
    bad = data[:-8] + b"{      \n"
    fd = appender(s)
    wrote = os.write(fd, bad)
    os.close(fd)
    assert 0 < wrote < len(bad), wrote
    check_log(log_of(s), bad[:wrote].splitlines(), "large")
    whole = new_session(mount, "large-whole")
    append(whole, data)
    check_log(log_of(whole), lines, "large-whole")


@case
def truncations_and_offsets(mount):
    s = new_session(mount, "trunc")
    append(s, b"one\n")
    for flags in (os.O_TRUNC, os.O_TRUNC | os.O_CREAT, os.O_CREAT, os.O_APPEND, 0):
        os.close(os.open(f"{s}/append", os.O_WRONLY | flags, 0o666))
    os.truncate(f"{s}/append", 0)
    os.truncate(f"{mount}/append", 0)
    fd = os.open(f"{s}/append", os.O_WRONLY)
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"two\n", 1 << 40)
    os.write(fd, b"thr")
    os.ftruncate(fd, 0)  # changes nothing: the piece stays
    os.pwrite(fd, b"ee\n", 0)
    os.lseek(fd, 5, os.SEEK_SET)
    os.write(fd, b"four\n")
    os.close(fd)
    check_log(log_of(s), [b"one", b"two", b"three", b"four"], "trunc")
    with fails(errno.EEXIST):
        os.open(f"{s}/append", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    assert os.stat(f"{s}/append").st_size == os.stat(f"{mount}/append").st_size


@case
def fsync_is_a_barrier(mount):
    """That fsync works on any file or directory; that it syncs is looked at by the counters in .status."""
    s = new_session(mount, "fsync")
    fd = appender(s)

    def synced():
        status = json.loads(read(f"{mount}/.status"))
        return status["synced"] == status["position"]

    for target in ("append", "log", "1", "meta", "1-1", ".", "..", "../../.status", "../../log"):
        os.write(fd, b"a line\n")
        other = os.open(f"{s}/{target}", os.O_RDONLY)
        os.fsync(other)
        os.fdatasync(other)
        assert synced(), f"not synced after fsync of {target}"
        os.close(other)
    os.write(fd, b"a line\n")
    os.fsync(fd)
    assert synced()
    os.close(fd)


if __name__ == "__main__":
    hl.main()
