"""What is compared: how each is started, where its work goes, and how it ends.

Everything lies below one directory, and whatever was started is ended by its pid and unmounted, also after a failure:
each place is entered and left (with, or a contextlib.ExitStack) where no signal ends the bench (ending.py).
"""
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

from ending import Ending

HERE = os.path.dirname(os.path.abspath(__file__))
OPSLOG = "@backloghq/opslog"
WAIT_SECONDS = 120
SPARE_FILES = 1000


class Absent(Exception):
    """What is to be measured is not there: the sentence says what."""


def wait_for(what, condition, process=None):
    end = time.monotonic() + WAIT_SECONDS
    with Ending.may_come():
        while not condition():
            if process is not None and process.poll() is not None:
                raise RuntimeError(f"{what}: it ended with status {process.returncode}")
            if time.monotonic() > end:
                raise RuntimeError(f"{what}: nothing for {WAIT_SECONDS} s")
            time.sleep(0.0005)


def run_process(command, **given):
    """As subprocess.run() with its output, but whenever a signal comes, it does not go on alone."""
    with Ending.not_now():
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **given)
        with process:
            try:
                with Ending.may_come():
                    out, err = process.communicate()
            finally:
                if process.poll() is None:
                    process.kill()
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def stop_process(process, number=signal.SIGTERM):
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def own_memory(pid):
    """Bytes of RAM that are the process's own: RSS less file-backed pages."""
    with open(f"/proc/{pid}/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    return sum(int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "RssShmem"))


def cpu_ns(pid):
    """Nanoseconds for which the threads of a process ran."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat") as file:
            total += int(file.read().split()[0])
    return total


def disk_bytes(path):
    total = 0
    for top, _, names in os.walk(path):
        total += sum(os.lstat(os.path.join(top, name)).st_size for name in names)
    return total


class Mount:
    """A mount of whatever is served by one process in the foreground."""

    def __init__(self, point, command, stderr=None, files=0):
        """files: descriptors that the process needs at once; 0: no more than usual."""
        self.point, self.command, self.stderr, self.files, self.process = point, command, stderr, files, None
        os.makedirs(point, exist_ok=True)

    def raise_limit(self):
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.files, self.files))

    def is_there(self):
        try:
            os.statvfs(self.point)
            return os.stat(self.point).st_dev != os.stat(os.path.dirname(self.point)).st_dev
        except OSError:  # a dead mount, which is taken over
            return False

    def start(self):
        """Returns the seconds until it answers."""
        began = time.monotonic()
        with Ending.not_now():
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stderr=self.stderr,
                                            preexec_fn=self.raise_limit if self.files else None)
        wait_for(self.command[0], self.is_there, self.process)
        return time.monotonic() - began

    def unmount(self, *options):
        with Ending.not_now():  # also while all is ended
            return subprocess.run(["fusermount3", "-u", *options, self.point], capture_output=True).returncode == 0

    def stop(self):
        # Again while it says busy: whoever used it a moment ago may not have let go of it.
        wait_for(f"fusermount3 -u {self.point}", lambda: self.unmount() or not self.is_there())
        self.process.wait(WAIT_SECONDS)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def again(self):
        """So that the kernel knows nothing of what is in it."""
        self.stop()
        return self.start()

    def __enter__(self):
        try:
            self.start()
        except BaseException:  # also when it is told to end
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process is not None:
            self.unmount("-z")
            stop_process(self.process)
            self.unmount("-z")  # one that could not unmount it any more; or it was not mounted yet before


class Hotlogfs(Mount):
    def __init__(self, program, top, name, options=""):
        self.store = f"{top}/{name}.store"
        command = [program, self.store, f"{top}/{name}", "-f"] + (["-o", options] if options else [])
        super().__init__(f"{top}/{name}", command)

    def session(self, name):
        path = f"{self.point}/sessions/{name}"
        os.makedirs(path, exist_ok=True)
        return path

    def status(self):
        with open(f"{self.point}/.status") as file:
            return json.load(file)

    def forget(self):
        shutil.rmtree(self.store, ignore_errors=True)


def null_mount(programs, top, records):
    return Mount(f"{top}/nullfs", [f"{programs}/nullfs", f"{top}/nullfs", str(records), str(1 << 33)])


def files_at_most(count):
    """So many, or as many as a process may open here."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return count if hard < 0 else max(1, min(count, hard - SPARE_FILES))


def passthrough_mount(programs, top, files, count):
    """libfuse's own example over a directory of so many files, all of which it opens; None: it did not come with the
    package."""
    program = f"{programs}/passthrough_ll"
    if not os.path.exists(program):
        return None
    return Mount(f"{top}/passthrough", [program, "-f", "-o", f"source={files},cache=always", f"{top}/passthrough"],
                 subprocess.DEVNULL, count + SPARE_FILES)  # it complains of its own default


class Redis:
    def __init__(self, top, policy):
        self.dir = f"{top}/redis-{policy}"
        self.socket = f"{self.dir}/s"
        self.policy, self.process = policy, None

    def __enter__(self):
        os.makedirs(self.dir)
        if shutil.which("redis-server") is None:
            raise Absent("redis-server is not installed")
        self.process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", self.socket, "--dir", self.dir, "--save", "", "--appendonly", "yes",
             "--appendfsync", self.policy, "--auto-aof-rewrite-percentage", "0"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            wait_for("redis-server", lambda: os.path.exists(self.socket), self.process)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process is not None:
            stop_process(self.process)
        shutil.rmtree(self.dir, ignore_errors=True)


class Opslog:
    """The package, installed by name below the build directory."""

    def __init__(self, modules):
        self.modules = modules
        self.node = shutil.which("node")

    def install(self, fetch):
        """None, or why it is not there."""
        if self.node is None or shutil.which("npm") is None:
            return "node and npm are not installed"
        if os.path.isdir(f"{self.modules}/node_modules/{OPSLOG}"):
            return None
        if not fetch:
            return f"{OPSLOG} is not installed"
        os.makedirs(self.modules, exist_ok=True)
        done = run_process(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", self.modules, OPSLOG], text=True)
        return None if done.returncode == 0 else f"npm cannot install {OPSLOG}: {done.stderr.strip().splitlines()[-1:]}"

    def run(self, mode, **given):
        words = [f"{name}={value}" for name, value in given.items()]
        return run_json([self.node, f"{HERE}/load_opslog.mjs", mode, f"modules={self.modules}", *words])


def run_json(command):
    done = run_process(command, text=True)
    if done.returncode != 0:
        sys.stderr.write(done.stderr)
        raise RuntimeError(f"{' '.join(command)}: status {done.returncode}")
    return json.loads(done.stdout)


class Loads:
    """The generators, by the directory that they were built into."""

    def __init__(self, programs):
        self.programs = programs

    def run(self, program, mode, **given):
        return run_json([f"{self.programs}/{program}", mode, *(f"{name}={value}" for name, value in given.items())])

    def file(self, mode, **given):
        return self.run("load_file", mode, **given)

    def sqlite(self, mode, **given):
        return self.run("load_sqlite", mode, **given)

    def redis(self, **given):
        return self.run("load_redis", "append", **given)
