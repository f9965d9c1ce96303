"""A program in a terminal of its own: what it shows, and keys typed to it when it shows that."""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time

CONTROLS = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[()][A-Za-z0-9]|[=>78]|\][^\x07]*\x07|P[^\x1b]*\x1b\\)")


class Terminal:
    def __init__(self, *command, directory=None):
        self.shown = b""  # since the last keys were typed, without controls
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            if directory:
                os.chdir(directory)
            os.environ["TERM"] = "xterm"
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
            os.execvp(command[0], command)

    def read(self, end):
        left = end - time.monotonic()
        if left <= 0 or not select.select([self.fd], [], [], left)[0]:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # the program ended
            return False
        self.shown += data
        return bool(data)

    def expect(self, pattern, seconds=180):
        end = time.monotonic() + seconds
        while not re.search(pattern, CONTROLS.sub(b"", self.shown)):
            if not self.read(end):
                raise AssertionError(f"{pattern} was not shown, but {CONTROLS.sub(b'', self.shown)[-2000:]}")

    def type(self, keys):
        self.shown = b""
        while keys:
            keys = keys[os.write(self.fd, keys):]

    def wait(self, seconds=180):
        """Until it ends; its exit status."""
        end = time.monotonic() + seconds
        while self.read(end):
            pass
        if time.monotonic() >= end:
            os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)
