"""Just enough of io_uring to ask whether a descriptor is ready, by ctypes."""
import ctypes
import mmap
import os
import struct

SETUP, ENTER = 425, 426
OP_POLL_ADD = 6
ENTER_GETEVENTS = 1
LIBC = ctypes.CDLL(None, use_errno=True)


class Ring:
    def __init__(self):
        self.parameters = bytearray(120)
        buffer = (ctypes.c_char * 120).from_buffer(self.parameters)
        self.fd = LIBC.syscall(SETUP, 8, buffer)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "io_uring_setup")
        words = struct.unpack_from("30I", self.parameters)
        self.sq, self.cq = words[10:20], words[20:30]  # struct io_sqring_offsets, io_cqring_offsets
        self.sq_ring = mmap.mmap(self.fd, self.sq[6] + words[0] * 4, offset=0)
        self.cq_ring = mmap.mmap(self.fd, self.cq[5] + words[1] * 16, offset=0x8000000)
        self.sqes = mmap.mmap(self.fd, words[0] * 64, offset=0x10000000)

    @staticmethod
    def word(ring, at):
        return struct.unpack_from("I", ring, at)[0]

    def poll(self, fd, events):
        """Submits one request to be told when one of these events is there."""
        tail = self.word(self.sq_ring, self.sq[1])
        at = tail & self.word(self.sq_ring, self.sq[2])
        self.sqes[at * 64:at * 64 + 64] = struct.pack("BBHiQQIIQ24x", OP_POLL_ADD, 0, 0, fd, 0, 0, 0, events, 1)
        struct.pack_into("I", self.sq_ring, self.sq[6] + at * 4, at)
        struct.pack_into("I", self.sq_ring, self.sq[1], tail + 1)
        if LIBC.syscall(ENTER, self.fd, 1, 0, 0, None, 0) != 1:
            raise OSError(ctypes.get_errno(), "io_uring_enter")

    def done(self, wait=False):
        """The events of a request that is done, or None."""
        if wait and LIBC.syscall(ENTER, self.fd, 0, 1, ENTER_GETEVENTS, None, 0) < 0:
            raise OSError(ctypes.get_errno(), "io_uring_enter")
        LIBC.syscall(ENTER, self.fd, 0, 0, ENTER_GETEVENTS, None, 0)  # runs what is put off until then
        head = self.word(self.cq_ring, self.cq[0])
        if head == self.word(self.cq_ring, self.cq[1]):
            return None
        at = self.cq[5] + (head & self.word(self.cq_ring, self.cq[2])) * 16
        result = struct.unpack_from("i", self.cq_ring, at + 8)[0]
        struct.pack_into("I", self.cq_ring, self.cq[0], head + 1)
        if result < 0:
            raise OSError(-result, "io_uring poll")
        return result

    def close(self):
        for part in self.sq_ring, self.cq_ring, self.sqes:
            part.close()
        os.close(self.fd)
