"""inotify for tests, by ctypes: what a program that uses it sees."""
import ctypes
import os
import select
import struct
import time

MODIFY, ATTRIB, CLOSE_WRITE, CLOSE_NOWRITE, OPEN = 0x2, 0x4, 0x8, 0x10, 0x20
MOVED_FROM, MOVED_TO = 0x40, 0x80
CREATE, DELETE, DELETE_SELF, MOVE_SELF = 0x100, 0x200, 0x400, 0x800
UNMOUNT, Q_OVERFLOW, IGNORED, ISDIR = 0x2000, 0x4000, 0x8000, 0x40000000
HEADER = struct.Struct("iIII")
LIBC = ctypes.CDLL(None, use_errno=True)


class Inotify:
    def __init__(self):
        self.fd = LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")

    def add(self, path, mask):
        watch = LIBC.inotify_add_watch(self.fd, os.fsencode(path), mask)
        if watch < 0:
            raise OSError(ctypes.get_errno(), f"inotify_add_watch {path}")
        return watch

    def read(self, seconds):
        """The events there are, as (watch, mask, name); waits for one at most so long."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return []
        data = os.read(self.fd, 1 << 18)
        events, at = [], 0
        while at < len(data):
            watch, mask, _, length = HEADER.unpack_from(data, at)
            at += HEADER.size
            events.append((watch, mask, data[at:at + length].rstrip(b"\0").decode()))
            at += length
        return events

    def until(self, condition, seconds=180):
        """All events up to that with which condition(event) was true."""
        got, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            for event in self.read(0.2):
                got.append(event)
                if condition(event):
                    return got
        raise AssertionError(f"waited {seconds} s for an event; the last were {got[-20:]}")

    def close(self):
        os.close(self.fd)
