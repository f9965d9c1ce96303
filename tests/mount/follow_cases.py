"""What readers of `follow` get: the parts of test_follow.sh that a shell cannot do."""
import json
import multiprocessing
import os
import pty
import resource
import select
import signal
import subprocess
import threading
import time

import hl
import io_uring
from hl import case

PATIENCE = 180  # seconds; what takes longer never comes


def followers(mount):
    return json.loads(hl.read(f"{mount}/.status"))["followers"]


def seqs_of(data):
    return [json.loads(line)["seq"] for line in data.split(b"\n") if line]


def in_read(pid):
    """Whether the process is in a read(2)."""
    try:
        return hl.read(f"/proc/{pid}/syscall").startswith(b"0 ")
    except OSError:
        return False


def state_of(pid):
    return hl.read(f"/proc/{pid}/stat").rsplit(b")", 1)[1].split()[0].decode()


# ---- each record once, in order -------------------------------------------------------------------------


def follow_many(path, count, total, results):
    fds = [os.open(f"{path}/follow", os.O_RDONLY) for _ in range(count)]
    wrong = []

    def follow(fd):
        data = b""
        while data.count(b"\n") < total:
            got = os.read(fd, 65536)
            if not got:
                break
            data += got
        if seqs_of(data) != list(range(1, total + 1)):
            wrong.append(data[-300:])
        os.close(fd)

    threads = [threading.Thread(target=follow, args=(fd,)) for fd in fds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put(wrong)


@case
def many(mount, readers, records, seen=None):
    """`seen`: another mount, which the readers use."""
    rng = hl.seeded()
    readers, records = int(readers), int(records)
    name = f"many-{os.getpid()}"
    path = hl.new_session(mount, name)
    seen = seen or mount
    hl.wait_for(lambda: os.path.isdir(f"{seen}/sessions/{name}"), "the session to be seen")
    before = followers(seen)
    results = multiprocessing.Queue()
    processes = [multiprocessing.Process(target=follow_many, daemon=True,
                                         args=(f"{seen}/sessions/{name}", readers // 4, records, results))
                 for _ in range(4)]
    for process in processes:
        process.start()
    hl.wait_for(lambda: followers(seen) - before == readers // 4 * 4, "all to have opened", PATIENCE)
    at = 0
    while at < records:
        step = min(rng.choice((1, 1, 3, 50)), records - at)
        hl.append(path, b"".join(b"line %d\n" % n for n in range(step)))
        at += step
    for process in processes:
        wrong = results.get(timeout=2 * PATIENCE)
        assert not wrong, (len(wrong), wrong[0])
    for process in processes:
        process.join()
    hl.wait_for(lambda: followers(seen) == before, "the files to be closed")


@case
def pieces(mount):
    """Whole lines where they fit, a longer line in pieces; whatever the sizes, nothing is lost."""
    rng = hl.seeded()
    path = hl.new_session(mount, "pieces")
    hl.append(path, b"before the open\n" * 3)
    skip = len(hl.log_of(path))
    fd = os.open(f"{path}/follow", os.O_RDONLY | os.O_NONBLOCK)
    byte = os.open(f"{path}/follow", os.O_RDONLY | os.O_NONBLOCK)
    whole = os.open(f"{path}/follow", os.O_RDONLY | os.O_NONBLOCK)
    for length in (10, 100, 130, 5000, 70000, 200000, 1000000, 12, 300000, 300):
        hl.append(path, b"z" * length + b"\n")
    want = hl.log_of(path)[skip:]
    data = b""
    while True:
        size = rng.choice((1, 50, 300, 4096, 65536, 200000, 1 << 20))
        try:
            got = os.read(fd, size)
        except BlockingIOError:
            break
        left = want[len(data):]
        full = left[:size].rfind(b"\n") + 1
        begins = not data or data.endswith(b"\n")
        if begins and full:
            assert got.endswith(b"\n"), "a line that would have waited was cut"
        data += got
    assert data == want
    for size in (200,):
        assert os.read(whole, size) == want.split(b"\n")[0] + b"\n"
    some = b"".join(os.read(byte, 1) for _ in range(400))
    assert some == want[:400]
    with hl.fails(29):
        os.lseek(fd, 0, os.SEEK_SET)
    with hl.fails(29):
        os.pread(fd, 10, 0)
    assert "follow" not in os.listdir(path) and os.stat(f"{path}/follow").st_size == 0
    with hl.fails(13):
        os.open(f"{path}/follow", os.O_WRONLY)
    assert hl.read(f"{path}/meta")  # nothing of this holds up anything else


# ---- readers that are killed, stopped, interrupted ----------------------------------------------------


def gone_at_once(process, what):
    """Nothing comes that would end its read: it ends by itself, or never."""
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{what}: still there after {PATIENCE} s") from None


@case
def killed(mount):
    path = hl.new_session(mount, "killed")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what runs in the background, and so by cat
    for how in signal.SIGKILL, signal.SIGTERM, signal.SIGINT:
        process = subprocess.Popen(["cat", f"{path}/follow"], stdout=subprocess.DEVNULL)
        hl.wait_for(lambda p=process: in_read(p.pid), "cat to wait")
        process.send_signal(how)
        gone_at_once(process, how)
        assert process.returncode == -how, process.returncode
    result = subprocess.run(["timeout", "0.2", "cat", f"{path}/follow"], stdout=subprocess.DEVNULL, check=False,
                            timeout=PATIENCE)
    assert result.returncode == 124, result
    for which in 0, 1:
        fd = os.open(f"{path}/follow", os.O_RDONLY)
        pair = [subprocess.Popen(["cat"], stdin=fd, stdout=subprocess.PIPE) for _ in range(2)]
        os.close(fd)
        for process in pair:
            hl.wait_for(lambda p=process: in_read(p.pid), "both to wait")
        pair[which].kill()
        gone_at_once(pair[which], "one of two that read one open file")
        hl.append(path, b"for the other\n")
        line = pair[1 - which].stdout.readline()
        while line == b"\n":
            line = pair[1 - which].stdout.readline()
        assert b"for the other" in line, line
        pair[1 - which].kill()
        pair[1 - which].wait()
    hl.wait_for(lambda: followers(mount) == 0, "the files to be closed")


NODE = """
const rl = require('readline').createInterface({input: require('fs').createReadStream(process.argv[1])});
rl.on('line', (line) => console.log(line));
"""
PYTHON = """
import sys
with open(sys.argv[1], "rb", buffering=0) as file:
    while True:
        data = file.read(65536)
        if not data:
            break
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
"""
BASH = 'while read -r line; do printf "%s\\n" "$line"; done <"$0"'


@case
def stopped(mount):
    """SIGSTOP and SIGCONT end none of these."""
    path = hl.new_session(mount, "stopped")
    follow = f"{path}/follow"
    commands = [["cat", follow], ["jq", "--unbuffered", "-c", ".", follow], ["sed", "-u", "s/x/x/", follow],
                ["gawk", "{ print; fflush() }", follow], ["mawk", "-W", "interactive", "{ print; fflush() }", follow],
                ["bash", "-c", BASH, follow], ["python3", "-c", PYTHON, follow], ["node", "-e", NODE, follow]]
    before = followers(mount)
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) for command in commands]
    hl.wait_for(lambda: followers(mount) - before == len(commands), "all to have opened")

    def all_show(text):
        hl.append(path, text + b"\n")
        for command, process in zip(commands, running):
            shown = b""
            while text not in shown:
                assert select.select([process.stdout], [], [], PATIENCE)[0], f"{command} shows nothing of {text}"
                more = os.read(process.stdout.fileno(), 65536)
                assert more, f"{command} ended"
                shown += more

    all_show(b"first")
    for turn in range(3):
        for process in running:
            process.send_signal(signal.SIGSTOP)
        for process in running:
            hl.wait_for(lambda p=process: state_of(p.pid) == "T", "a stopped process")
        for process in running:
            process.send_signal(signal.SIGCONT)
        for process in running:
            hl.wait_for(lambda p=process: state_of(p.pid) != "T", "a process that goes on")
        all_show(b"after turn %d" % turn)
    for command, process in zip(commands, running):
        assert process.poll() is None, f"{command} ended with {process.returncode}"
        process.kill()
        process.wait()


# ---- ready or not ---------------------------------------------------------------------------------------


class Asked:
    """One open file, asked in every way whether there is something to read."""

    def __init__(self, path):
        self.fd = os.open(f"{path}/follow", os.O_RDONLY | os.O_NONBLOCK)
        self.poll = select.poll()
        self.poll.register(self.fd, select.POLLIN)
        self.level, self.edge = select.epoll(), select.epoll()
        self.level.register(self.fd, select.EPOLLIN)
        self.edge.register(self.fd, select.EPOLLIN | select.EPOLLET)
        self.ring = io_uring.Ring()
        self.ring.poll(self.fd, select.POLLIN)

    def answers(self, seconds):
        """Whether each says that there is; the edge says so only once."""
        ring = self.ring.done(wait=seconds > 0)
        if ring is not None:
            self.ring.poll(self.fd, select.POLLIN)
            assert ring & select.POLLIN
        return [bool(select.select([self.fd], [], [], seconds)[0]), bool(self.poll.poll(seconds * 1000)),
                bool(self.level.poll(seconds)), bool(self.edge.poll(seconds)), ring is not None]


@case
def ready(mount):
    path = hl.new_session(mount, "ready")
    asked = [Asked(path) for _ in range(3)]
    for turn in range(20):
        for one in asked:
            assert one.answers(0) == [False] * 5, (turn, one.answers(0))
            with hl.fails(11):
                os.read(one.fd, 1000)
        waiting = []
        for one in asked:  # and by those who wait while it comes
            for wait in one.poll.poll, one.level.poll:
                result = []
                thread = threading.Thread(target=lambda w=wait, r=result: r.append(w(PATIENCE)))
                thread.start()
                waiting.append((thread, result))
        hl.append(path, b"line %d\n" % turn)
        for thread, result in waiting:
            thread.join()
        for one in asked:
            assert one.answers(PATIENCE) == [True] * 5, turn
            assert not one.edge.poll(0), "an edge is told once"
        hl.append(path, b"another\n")
        for one in asked:
            assert one.edge.poll(PATIENCE), "an edge is told of what comes before the last was read"
            assert one.answers(0)[:3] == [True] * 3
            assert len(seqs_of(os.read(one.fd, 65536))) == 2
            one.ring.done()
            one.ring.close()
            one.ring = io_uring.Ring()
            one.ring.poll(one.fd, select.POLLIN)
            while one.edge.poll(0):
                pass
    for one in asked:
        os.close(one.fd)


def to_jq(source, **more):
    return subprocess.Popen(["bash", "-c", 'cat "$0" | jq --unbuffered -c .seq', source], stdout=subprocess.PIPE,
                            bufsize=0, start_new_session=True, **more)


@case
def latency(mount):
    """From append to what jq prints, in milliseconds; beside it, turn by turn, what a pipe to the same programs takes,
    which is the machine's part of it."""
    path = hl.new_session(mount, "latency")
    before = followers(mount)
    programs = to_jq(f"{path}/follow"), to_jq("-", stdin=subprocess.PIPE)
    hl.wait_for(lambda: followers(mount) == before + 1, "cat to have opened")
    fd = hl.appender(path)
    took = [], []
    for n in range(1, 102):
        for which, process in enumerate(programs):
            begin = time.monotonic()
            if which == 0:
                os.write(fd, b"x\n")
            else:
                os.write(process.stdin.fileno(), b'{"seq":%d}\n' % n)
            line = os.read(process.stdout.fileno(), 100)
            took[which].append((time.monotonic() - begin) * 1000)
            assert line == b"%d\n" % n, line
    os.close(fd)
    for process in programs:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
    ours, pipe = (sorted(times[1:]) for times in took)
    print(f"median {ours[50]:.2f} ms, 95 of 100 within {ours[94]:.2f} ms, the longest {ours[-1]:.2f} ms; "
          f"of the pipe {pipe[50]:.2f}, {pipe[94]:.2f}, {pipe[-1]:.2f} ms")
    assert ours[50] < max(10, 10 * pipe[50]), (ours, pipe)


@case
def wait_until_end(mount, session, how):
    """Waits in every way until the mount ends: exits when end of file was said."""
    path = f"{mount}/sessions/{session}"
    fd = os.open(f"{path}/follow", os.O_RDONLY)
    if how == "poll":
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.poll()
    while True:
        data = os.read(fd, 65536)
        if data == b"":
            return
        assert data == b"\n" or json.loads(data.split(b"\n")[0]), data


# ---- others that wait for a file to grow ----------------------------------------------------------------


@case
def less(mount):
    path = hl.new_session(mount, "less")
    hl.append(path, b"line 0 of less\n")
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe("less", ["less", "+F", f"{path}/log"], dict(os.environ, TERM="xterm", LESS="", LESSSECURE="1"))
    shown = b""
    for n in range(1, 5):
        hl.append(path, b"line %d of less\n" % n)
        if n == 2:
            for command in ("rotate", "checkpoint"):
                with open(f"{mount}/.ctl", "w") as file:
                    file.write(command + "\n")
        while b"line %d of less" % n not in shown:
            assert select.select([terminal], [], [], PATIENCE)[0], f"less shows nothing of line {n}: {shown[-300:]}"
            shown += os.read(terminal, 4096)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@case
def tails(mount):
    path = hl.new_session(mount, "tails")
    hl.append(path, b"line\n")
    commands = [["tail", "-s", "0.05", "-n", "+1", way, f"{path}/log"] for way in ("-f", "-F")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for command in commands]
    for n in range(40):
        hl.append(path, b"line\n" * 25)
        if n % 8 == 3:
            for command in ("rotate", "checkpoint"):
                with open(f"{mount}/.ctl", "w") as file:
                    file.write(command + "\n")
    for process in running:
        data = b""
        while data.count(b"\n") < 1001:
            assert select.select([process.stdout], [], [], PATIENCE)[0], data[-300:]
            data += os.read(process.stdout.fileno(), 65536)
        assert data == hl.log_of(path)
        process.terminate()
        assert process.communicate()[1] == b""


@case
def closed_at_the_end(mount, daemon):
    """Of many that poll, the first who is told that the mount ends closes the only file of another session, of whose
    followers the daemon keeps track in the same place: sessions 256 apart."""
    most = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 4096)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sessions = [hl.new_session(mount, f"s{n}") for n in range(257)]
    first = os.open(f"{sessions[0]}/follow", os.O_RDONLY)
    other = os.open(f"{sessions[256]}/follow", os.O_RDONLY)
    rest = [os.open(f"{sessions[0]}/follow", os.O_RDONLY) for _ in range(most - 64)]
    polls = {fd: select.epoll() for fd in (first, other, rest[-1])}
    for fd, poll in polls.items():
        poll.register(fd, select.EPOLLIN)
    for fd in rest[:-1]:
        polls[first].register(fd, select.EPOLLIN)
    os.kill(int(daemon), signal.SIGTERM)
    assert polls[rest[-1]].poll(PATIENCE), "nobody told of the end"
    polls[other].close()
    os.close(other)
    for fd in rest + [first]:
        os.close(fd)


if __name__ == "__main__":
    hl.main()
