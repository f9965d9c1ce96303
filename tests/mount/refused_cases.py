"""Cases of test_refused.sh: nothing of a refused line is stored, however it is tried again. Arguments: MOUNT."""
import errno
import json
import os
import subprocess

import hl
from hl import appender, case, check_log, fails, log_of, new_session, read

P = b"p"


def bad_lines():
    """Lines of three requests that are refused in the last or in the middle, and how far they were seen by then."""
    size = 3 * hl.MIB
    yield "by-a-field", b'{"payload":"' + P * size + b'","kind":5}\n', size
    yield "by-its-end", b'{"payload":"' + P * size + b'"]\n', size
    yield "in-the-middle", b'{"payload":"' + P * (size // 2) + b"\x01" + b"q" * (size // 2) + b'"}\n', size
    yield "without-an-end", b'{"payload":"' + P * (size // 2) + b"\x01" + b"qr" * (size // 4) + b"\n", hl.MIB * 2 - 8192
    yield "in-a-list", b'{"payload":[' + b'{"n":1},' * (size // 8) + b"}\n", size
    yield "a-text", b"t" * (size // 2) + b"\xff" + b"uvw" * (size // 6) + b"\n", hl.MIB * 2 - 8192


def insist(fd, data, times=3):
    """Goes on after short writes, and tries again what is refused; raises the last refusal."""
    view, refused = memoryview(data), 0
    while view:
        try:
            view = view[os.write(fd, view):]
        except OSError:
            refused += 1
            if refused == times:
                raise


@case
def tried_again(mount):
    rng = hl.seeded()
    for name, line, seen in bad_lines():
        s = new_session(mount, f"again-{name}")
        fd = appender(s)
        with fails(errno.EINVAL):
            insist(fd, line, 5)
        assert log_of(s) == b"", name
        said = json.loads(hl.last_error(s))
        assert said["errno"] == "EINVAL" and said["line"] == 1, said
        offsets = [hl.MIB - 4096, hl.MIB, hl.MIB + 1, 1, 13, seen - 100, seen - 70000]
        offsets += [rng.randrange(1, seen) for _ in range(12)]
        if name.startswith("by"):
            offsets += [len(line) - n for n in (2, 3, 9, 12, 60, 5000)]
        for offset in offsets:
            with fails(errno.EINVAL):
                insist(fd, line[offset:])
            assert log_of(s) == b"", f"{name} from {offset}"
        with fails(errno.EINVAL):
            insist(fd, line)
        good = [b"a good line", b'{"good":1}', b"p", b"}"]
        for one in good:
            os.write(fd, one + b"\n")
        os.close(fd)
        check_log(log_of(s), good, f"again-{name}")


@case
def given_up_at_once(mount):
    """The next line is served at once, text or not, in one write or in many, on the same handle."""
    for name, line, _ in bad_lines():
        for at, good in enumerate((b"given up\n", b'{"good":1}\n', b'{"payload":"' + P * 5000 + b'"}\n', b"\n\nlast\n")):
            for step in (len(good), 1, 3):
                s = new_session(mount, f"up-{name}-{at}-{step}")
                fd = appender(s)
                with fails(errno.EINVAL):
                    insist(fd, line, 1)
                for begin in range(0, len(good), step):
                    os.write(fd, good[begin:begin + step])
                check_log(log_of(s), hl.lines_of(good), f"up-{name}-{at}-{step}")
                os.close(fd)


@case
def parts_left_at_close(mount):
    """A part of a refused line that is written without its end is not stored at the last close either."""
    for name, line, seen in bad_lines():
        s = new_session(mount, f"left-{name}")
        for offset, length in ((hl.MIB, 1000), (hl.MIB // 2, 200000), (seen - 5000, 4500)):
            fd = appender(s)
            with fails(errno.EINVAL):
                insist(fd, line, 2)
            try:
                os.write(fd, line[offset:offset + length])
            except OSError as failure:
                assert failure.errno == errno.EINVAL
            os.close(fd)
            # RELEASE comes after close(); a handle's half line is counted until then.
            hl.wait_for(lambda: json.loads(read(f"{mount}/.status"))["kept_bytes"] == 0, "the last close")
            assert log_of(s) == b"", (name, offset)


@case
def small_pieces(mount):
    """Lines that a program cuts itself, into parts of any size."""
    rng = hl.seeded()
    for round_ in range(60):
        s = new_session(mount, f"small-{round_}")
        line = b'{"a":"%s","tokens_in":%s}\n' % (b"xyz" * rng.randrange(1, 40), rng.choice((b"-1", b'"1"', b"1}")))
        fd = os.open(f"{s}/append", os.O_RDWR)
        cut = rng.randrange(1, len(line) - 1)
        os.write(fd, line[:cut])
        with fails(errno.EINVAL):
            os.write(fd, line[cut:])
        for _ in range(3):
            with fails(errno.EINVAL):
                os.write(fd, line[cut:])
        for _ in range(5):
            offset = rng.randrange(1, len(line) - 1)
            with fails(errno.EINVAL):
                os.write(fd, line[offset:])
        for at in range(max(1, cut - 5), len(line)):  # byte by byte: no part of it, however short, is told to be stored
            try:
                os.write(fd, line[at:at + 1])
            except OSError as failure:
                assert failure.errno == errno.EINVAL
        assert log_of(s) == b"", line
        os.write(fd, b"good\n")
        check_log(log_of(s), [b"good"], f"small-{round_}")
        os.close(fd)


@case
def segments(mount):
    """A writev() is cut by the kernel after 256 segments, however short they are."""
    for name, last in (("field", b'","kind":5}\n'), ("end", b'"]\n')):
        s = new_session(mount, f"segments-{name}")
        fd = appender(s)
        parts = [b'{"payload":"'] + [b"segment %d " % n for n in range(598)] + [last]
        wrote = os.writev(fd, parts)
        assert 0 < wrote < sum(map(len, parts)), wrote
        begin, left = 0, wrote
        while left > 0:
            left -= len(parts[begin])
            begin += 1
        assert left == 0
        for _ in range(4):
            with fails(errno.EINVAL):
                os.writev(fd, parts[begin:])
        for begin in (1, 256, 300, 344, 500, 598):
            rest = parts[begin:]
            for _ in range(2):
                try:  # the first segments may be kept, as any half line is; never the end
                    assert os.writev(fd, rest) < sum(map(len, rest))
                except OSError as failure:
                    assert failure.errno == errno.EINVAL
        assert log_of(s) == b""
        with fails(errno.EINVAL):
            os.write(fd, parts[-1])
        good = [b'{"payload":"'] + [b"segment %d " % n for n in range(598)] + [b'"}\n']
        assert os.writev(fd, good) == sum(map(len, good))
        check_log(log_of(s), [b"".join(good)[:-1]], f"segments-{name}")
        os.close(fd)


@case
def good_lines_around(mount):
    """One bad line among good ones, in the second request: the lines of the first are stored, its last one may go on."""
    lines = [b"line %07d of many" % n for n in range(150000)]
    lines[90000] = b'{"bad":}'
    data = b"\n".join(lines) + b"\n"
    s = new_session(mount, "around")
    fd = appender(s)
    wrote = os.write(fd, data)
    whole = data[:wrote].count(b"\n")
    begun = data[:wrote].rpartition(b"\n")[2]
    assert 0 < wrote < len(data) and begun, "it is cut inside a line"
    for _ in range(4):
        with fails(errno.EINVAL):
            os.write(fd, data[wrote:])
        check_log(log_of(s), lines[:whole], "around")
    fixed = data[wrote:].replace(b'{"bad":}', b'{"bad":0}')
    hl.write_all(fd, fixed)
    lines[90000] = b'{"bad":0}'
    check_log(log_of(s), lines, "around")
    os.close(fd)

    s = new_session(mount, "around-up")
    fd = appender(s)
    wrote = os.write(fd, data)
    os.write(fd, b"given up\n")
    check_log(log_of(s), lines[:whole] + [begun, b"given up"], "around-up")
    os.close(fd)


def run(script, path, session):
    """A script that has the session's append as its descriptor 3."""
    subprocess.run(["bash", "-c", 'exec 3>"$2/append"; ' + script, "-", path, session], check=True,
                   stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


PROGRAMS = {
    "cat": 'cat "$1" >&3; echo good >&3',
    "dd": 'dd if="$1" obs=77777 status=none >&3; echo good >&3',
    "dd-large": 'dd if="$1" obs=1500000 status=none >&3; echo good >&3',
    "dd-1000": 'dd if="$1" bs=1000 status=none >&3; echo good >&3',
    "tee": 'tee <"$1" >&3; echo good >&3',
    "printf": 'x=$(cat "$1"); printf "%s\\n" "$x" >&3; echo good >&3',
    "printf-parts": 'x=$(cat "$1"); for ((i = 0; i < ${#x}; i += 50000)); do printf %s "${x:i:50000}" >&3; done; '
                    'echo >&3; echo good >&3',
    "dash": 'dash -c \'x=$(cat "$1"); printf "%s\\n" "$x" >&3; echo good >&3\' - "$1"',
    "perl": 'perl -ne print "$1" >&3; echo good >&3',
    "python": 'python3 -c \'import sys\nfor line in open(sys.argv[1]): sys.stdout.write(line)\' "$1" >&3; echo good >&3',
    "python-blocks": 'python3 -c \'import sys\nsource, out = open(sys.argv[1], "rb"), open(3, "wb", 8192)\n'
                     'try:\n    for part in iter(lambda: source.read(1000), b""): out.write(part)\n'
                     'except OSError: pass\n\' "$1"; echo good >&3',
    "mawk": 'mawk "{print}" "$1" >&3; echo good >&3',
    "retries": 'cat "$1" >&3; tail -c +40000 "$1" >&3; tail -c +131073 "$1" >&3; tail -c 1000 "$1" >&3; echo good >&3',
}


@case
def programs(mount):
    """What programs do when a write of theirs is refused in the middle of a line, as they are."""
    for size, name in ((400000, "s"), (3 * hl.MIB, "l")):
        for kind, line in (("middle", b'{"payload":"' + b"q" * (size // 2) + b'",}' + P * (size // 2) + b'"}\n'),
                           ("end", b'{"payload":"' + b"q" * size + b'","kind":5}\n')):
            path = f"{os.environ['T_DIR']}/{name}-{kind}"
            with open(path, "wb") as file:
                file.write(line)
            for program, script in PROGRAMS.items():
                s = new_session(mount, f"{name}-{kind}-{program}")
                run(script, path, s)
                assert hl.last_error(s) != "", (program, kind)
                check_log(log_of(s), [b"good"], f"{name}-{kind}-{program}")


if __name__ == "__main__":
    hl.main()
