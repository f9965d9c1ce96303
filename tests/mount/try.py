#!/usr/bin/env python3
"""Does one operation and prints how it ended: OK, or the name of its errno.

    try.py write PATH TEXT [FLAG…]    open, write all of TEXT in one write(), close; "close:NAME" when
                                      only the close failed; "short:N" when only N bytes were taken
    try.py writefile PATH FILE        the same with the bytes of FILE
    try.py open PATH [FLAG…]          FLAG: RDONLY WRONLY RDWR CREAT EXCL TRUNC APPEND NONBLOCK DIRECTORY PATH
    try.py read PATH
    try.py mkdir|rmdir|unlink|stat|listdir|readlink|fsync PATH
    try.py truncate PATH SIZE         try.py chmod PATH OCTAL        try.py chown PATH UID GID
    try.py rename|link|symlink A B    try.py utime PATH              try.py mknod PATH
    try.py access PATH MODE           try.py fallocate PATH SIZE
    try.py setxattr PATH NAME VALUE   try.py getxattr|removexattr PATH NAME

\\xHH in an argument stands for that byte.
"""
import errno
import os
import re
import sys


def raw(text):
    data = os.fsencode(text)
    return re.sub(rb"\\x([0-9A-Fa-f]{2})", lambda m: bytes([int(m[1], 16)]), data)


def flags(names, default):
    value = default
    for name in names:
        value |= getattr(os, "O_" + name)
    return value


def write_all(path, data, extra):
    fd = os.open(path, flags(extra, os.O_WRONLY))
    try:
        done = os.write(fd, data)
    except OSError:
        try:
            os.close(fd)
        except OSError:
            pass
        raise
    try:
        os.close(fd)
    except OSError as error:
        return "close:" + errno.errorcode[error.errno]
    return "OK" if done == len(data) else "short:%d" % done


def with_fd(path, how, call):
    fd = os.open(path, how)
    try:
        return call(fd)
    finally:
        os.close(fd)


def read_all(fd):
    while os.read(fd, 1 << 20):
        pass


def slurp(path):
    with open(path, "rb") as source:
        return source.read()


def fsync_any(path):
    with_fd(path, os.O_RDONLY, os.fsync)


OPERATIONS = {
    "write": lambda p, t, *f: write_all(p, t, [x.decode() for x in f]),
    "writefile": lambda p, s: write_all(p, slurp(s), []),
    "open": lambda p, *f: os.close(os.open(p, flags([x.decode() for x in f], 0), 0o600)),
    "read": lambda p: with_fd(p, os.O_RDONLY, read_all),
    "mkdir": lambda p: os.mkdir(p),
    "rmdir": os.rmdir,
    "unlink": os.unlink,
    "stat": lambda p: os.lstat(p) and None,
    "listdir": lambda p: os.listdir(p) and None,
    "readlink": lambda p: os.readlink(p) and None,
    "fsync": fsync_any,
    "truncate": lambda p, n: os.truncate(p, int(n)),
    "chmod": lambda p, m: os.chmod(p, int(m, 8)),
    "chown": lambda p, u, g: os.chown(p, int(u), int(g)),
    "rename": os.rename,
    "link": os.link,
    "symlink": os.symlink,
    "utime": lambda p: os.utime(p),
    "mknod": lambda p: os.mknod(p),
    "access": lambda p, m: None if os.access(p, int(m)) else "EACCES",
    "fallocate": lambda p, n: with_fd(p, os.O_RDWR, lambda fd: os.posix_fallocate(fd, 0, int(n))),
    "setxattr": lambda p, n, v: os.setxattr(p, n, v),
    "getxattr": lambda p, n: os.getxattr(p, n) and None,
    "removexattr": os.removexattr,
}


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in OPERATIONS:
        sys.exit(__doc__)
    try:
        result = OPERATIONS[sys.argv[1]](*[raw(a) for a in sys.argv[2:]])
    except OSError as error:
        result = errno.errorcode.get(error.errno, str(error.errno))
    print(result or "OK")


main()
