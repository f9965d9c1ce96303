"""Cases of test_state.sh: renames between state/ and archive/. Arguments: MOUNT."""
import errno
import json
import os
import subprocess

import hl
from documents import (NEW, RENAME_EXCHANGE, RENAME_NOREPLACE, close_fails, elsewhere, holds, is_absent, last_operations, new_state,
                       opened, operations, renameat2, session_of, write)
from hl import append, case, fails, read


def archives(state):
    """All archives: name -> key -> text of the value."""
    top = f"{session_of(state)}/archive"
    return {name: {key: read(f"{top}/{name}/{key}").decode().strip() for key in os.listdir(f"{top}/{name}")}
            for name in os.listdir(top)}


def current(state):
    return {key: read(f"{state}/{key}").decode().strip() for key in os.listdir(state)}


@case
def there_and_back(mount):
    s = new_state(mount, "archived")
    x = f"{session_of(s)}/archive/X"
    os.mkdir(x)
    for key in "ABCD":
        write(f"{s}/{key}", f'["{key}"]\n')
    times = {key: os.stat(f"{s}/{key}").st_mtime_ns for key in "ABCD"}
    os.rename(f"{s}/A", f"{x}/A")
    assert last_operations(s, 1) == [{"op": "archive", "name": "X", "keys": ["A"]}]
    is_absent(f"{s}/A")
    holds(f"{x}/A", '["A"]')
    assert os.stat(f"{x}/A").st_mtime_ns == times["A"]
    os.rename(f"{s}/B", f"{x}/other")
    assert last_operations(s, 1) == [{"op": "archive", "name": "X", "keys": ["B"], "as": ["other"]}]
    os.rename(f"{s}/C", f"{x}/A")  # onto one that is there
    assert archives(s) == {"X": {"A": '["C"]', "other": '["B"]'}} and current(s) == {"D": '["D"]'}
    os.rename(f"{x}/A", f"{s}/A")
    assert last_operations(s, 1) == [{"op": "restore", "name": "X", "keys": ["A"]}]
    holds(f"{s}/A", '["C"]')
    os.rename(f"{x}/other", f"{s}/D")
    assert last_operations(s, 1) == [{"op": "restore", "name": "X", "keys": ["other"], "as": ["D"]}]
    assert current(s) == {"A": '["C"]', "D": '["B"]'} and archives(s) == {"X": {}}
    assert os.stat(f"{s}/D").st_mtime_ns == times["B"]
    with fails(errno.ENOENT):
        os.rename(f"{x}/other", f"{s}/D")
    with fails(errno.ENOENT):
        os.rename(f"{s}/nothing", f"{x}/nothing")


@case
def by_mv(mount):
    """As people do it, several at once; mv never copies."""
    s = new_state(mount, "mv")
    top = f"{session_of(s)}/archive"
    append(session_of(s), b"".join(b'{"ts_ms":%d,"op":"set","key":"%s%d","value":%d}\n'
                                   % (1000000000000 if n % 2 else 4000000000000, b"old" if n % 2 else b"new", n, n)
                                   for n in range(20)))
    before = current(s)
    subprocess.run("mkdir archive/Q1 && find state -type f -mtime +90 -exec mv -t archive/Q1 {} +", shell=True,
                   check=True, cwd=session_of(s))
    assert archives(s) == {"Q1": {key: value for key, value in before.items() if key[:3] == "old"}}
    assert current(s) == {key: value for key, value in before.items() if key[:3] == "new"}
    assert len(operations(s)) == 20 + 1 + 10
    subprocess.run("mv archive/Q1/* state/ && rmdir archive/Q1", shell=True, check=True, cwd=session_of(s))
    assert archives(s) == {} and current(s) == before
    assert not [f for f in operations(s)[20:] if f["op"] not in ("archive", "restore")]
    os.mkdir(f"{top}/ä%2F%25")
    subprocess.run(["mv", f"{s}/old1", f"{s}/new0", f"{top}/ä%2F%25"], check=True)
    assert archives(s) == {"ä%2F%25": {"old1": "1", "new0": "0"}}


@case
def not_so(mount):
    s = new_state(mount, "not-archived")
    top = f"{session_of(s)}/archive"
    other = new_state(mount, "not-archived-2")
    os.mkdir(f"{top}/X")
    os.mkdir(f"{top}/Y")
    os.mkdir(f"{session_of(other)}/archive/X")
    write(f"{s}/A", "1\n")
    write(f"{s}/B", "2\n")
    os.rename(f"{s}/A", f"{top}/X/A")
    write(f"{s}/.scratch", "3")
    for old, new in ((f"{top}/X/A", f"{top}/Y/A"), (f"{top}/X/A", f"{top}/X/B"), (f"{top}/X", f"{top}/Z"),
                     (f"{s}/.scratch", f"{top}/X/C"), (f"{top}/X/A", f"{s}/.a"), (f"{s}/B", f"{top}/B"),
                     (f"{s}/B", f"{session_of(other)}/archive/X/B"), (f"{top}/X/A", f"{other}/A"), (f"{top}/X", f"{s}/X")):
        with fails(errno.EPERM):
            os.rename(old, new)
    with fails(errno.EEXIST):
        renameat2(f"{top}/X/A", f"{s}/B", RENAME_NOREPLACE)
    os.rename(f"{s}/B", f"{top}/Y/B")
    write(f"{s}/B", "4\n")
    with fails(errno.EEXIST):
        renameat2(f"{s}/B", f"{top}/Y/B", RENAME_NOREPLACE)
    with fails(errno.EINVAL):
        renameat2(f"{s}/B", f"{top}/Y/B", RENAME_EXCHANGE)
    renameat2(f"{top}/X/A", f"{s}/A", RENAME_NOREPLACE)
    with fails(errno.ENOENT):
        os.rename(f"{s}/B", f"{top}/Z/B")
    assert current(s) == {"A": "1", "B": "4", ".scratch": "3"} and archives(s) == {"X": {}, "Y": {"B": "2"}}


@case
def open_files(mount):
    """What is held in an open file goes along, if it is whole; later there is nowhere to set it."""
    s = new_state(mount, "archived-open")
    x = f"{session_of(s)}/archive/X"
    os.mkdir(x)
    write(f"{s}/A", "[1]\n")
    fd = os.open(f"{s}/A", NEW)
    os.write(fd, b"[2]")
    os.rename(f"{s}/A", f"{x}/A")
    assert archives(s) == {"X": {"A": "[2]"}}
    os.ftruncate(fd, 0)
    os.write(fd, b"[3]\n")
    close_fails(fd, errno.ESTALE)
    assert archives(s) == {"X": {"A": "[2]"}} and current(s) == {}
    write(f"{s}/B", "[1]\n")
    with opened(f"{s}/B", NEW) as fd:
        os.write(fd, b"[")  # not whole: the value there is goes
        os.rename(f"{s}/B", f"{x}/B")
        os.ftruncate(fd, 0)
    assert archives(s) == {"X": {"A": "[2]", "B": "[1]"}}
    fd = os.open(f"{s}/C", NEW)
    os.write(fd, b"[4")
    with fails(errno.EINVAL):
        os.rename(f"{s}/C", f"{x}/C")
    assert elsewhere(f"{s}/C") is None
    os.write(fd, b"]")
    os.rename(f"{s}/C", f"{x}/C")
    os.close(fd)
    assert archives(s)["X"]["C"] == "[4]" and current(s) == {}
    write(f"{s}/A", "[5]\n")
    with opened(f"{s}/A", NEW) as fd:  # what was restored has the name
        os.rename(f"{x}/A", f"{s}/A")
        os.write(fd, b"[6]\n")
    holds(f"{s}/A", "[2]")
    assert json.loads(read(f"{x}/B")) == [1]


if __name__ == "__main__":
    hl.main()
