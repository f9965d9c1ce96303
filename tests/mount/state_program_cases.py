"""Cases of test_state_programs.sh: editors, Python, and what state/ must be after each. Arguments: MOUNT."""
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile

import hl
from documents import check_state, holds, new_state, operations, session_of, status, write
from hl import case, fails, read
from terminal import Terminal

OLD = '{"old":true}'
NEW = '{"new":[1,2.75]}'


@case
def check(mount, session):
    """What is in state/ is what the log says, and no scratch file is left."""
    state = f"{mount}/sessions/{session}/state"
    check_state(state)
    assert not operations(state) or all(f["op"] in ("set", "delete") for f in operations(state))


def prepared(mount, name):
    state = new_state(mount, name)
    write(f"{state}/K", OLD + "\n")
    return state, f"{state}/K"


def ends_as(state, value):
    holds(f"{state}/K", value)
    assert os.listdir(state) == ["K"], os.listdir(state)
    check_state(state)


# ---- vim ------------------------------------------------------------------------------------------


VIM = ("vim", "-N", "-u", "NONE", "-i", "NONE")


@case
def vim(mount, *settings):
    """Edited and saved, badly and well."""
    name = "-".join(("vim", *settings)).replace("=", "-")
    state, path = prepared(mount, name)
    commands = [word for setting in settings for word in ("--cmd", f"set {setting}")]
    program = Terminal(*VIM, *commands, "K", directory=state)
    program.expect(rb"old")
    program.type(b':%s/true/tru/\r')
    program.expect(rb"tru\b")
    program.type(b":w\r")
    program.expect(rb"E\d+|[Ee]rror|WARNING")
    holds(path, OLD)
    program.type(b"\r:%d\ri" + NEW.replace(",", ",\r").encode() + b"\x1b:wq!\r")
    assert program.wait() == 0
    ends_as(state, NEW)


@case
def vim_new_file(mount):
    state, _ = prepared(mount, "vim-new")
    program = Terminal(*VIM, "K2", directory=state)
    program.expect(rb"K2")
    program.type(b"i[1,\r2]\x1b:wq\r")
    assert program.wait() == 0
    holds(f"{state}/K2", "[1,2]")
    os.unlink(f"{state}/K2")
    ends_as(state, OLD)


@case
def vim_killed(mount):
    """The swap file is scratch: it stays, and is no part of the log."""
    state, path = prepared(mount, "vim-killed")
    program = Terminal(*VIM, "K", directory=state)
    program.expect(rb"old")
    program.type(b"ix\x1b:preserve\r")
    program.expect(rb"[Pp]reserved")
    assert ".K.swp" in os.listdir(state)
    os.kill(program.pid, 9)
    assert program.wait() == -9
    assert os.path.getsize(f"{state}/.K.swp") > 4096
    holds(path, OLD)
    program = Terminal(*VIM, "-r", "K", directory=state)
    program.expect(rb"[Rr]ecovery")
    program.type(b"\r")
    program.expect(rb'x\{"old"')
    program.type(b":s/^x//\r:wq!\r")
    assert program.wait() == 0
    os.unlink(f"{state}/.K.swp")
    ends_as(state, OLD)


# ---- nano -----------------------------------------------------------------------------------------


@case
def nano(mount, *options):
    state, path = prepared(mount, "-".join(("nano", *options)))
    program = Terminal("nano", "-I", *options, "K", directory=state)
    program.expect(rb"old")
    program.type(b"\x0b{\"bad\": }")
    program.expect(rb"bad")
    program.type(b"\x0f")
    program.expect(rb"(?i)write")
    program.type(b"\r")
    program.expect(rb"(?i)error|invalid argument")
    holds(path, OLD)
    program.type(b"\x0b" + NEW.encode())
    program.expect(rb"new")
    program.type(b"\x0f")
    program.expect(rb"(?i)write")
    program.type(b"\r")
    program.expect(rb"(?i)wrote")
    holds(path, NEW)
    program.type(b"\x18")
    assert program.wait() == 0
    for name in set(os.listdir(state)) - {"K"}:
        assert name.endswith("~") or name.startswith("."), name
        os.unlink(f"{state}/{name}")
    ends_as(state, NEW)


# ---- python ---------------------------------------------------------------------------------------


@case
def python_json(mount):
    state, path = prepared(mount, "python")
    with open(path, "w") as file:
        json.dump(json.loads(NEW), file, indent=4)
    holds(path, NEW)
    with open(path, "w+") as file:
        file.write(OLD + "\n")
        file.seek(0)
        assert json.load(file) == {"old": True}
    holds(path, OLD)
    with fails(errno.EINVAL):
        with open(path, "w") as file:
            file.write("{'single': 1}")
    holds(path, OLD)
    with fails(errno.EINVAL):  # it fails half way, as programs do
        with open(path, "w") as file:
            file.write('{"half":')
    holds(path, OLD)
    big = {"list": list(range(100000))}
    with open(path, "w") as file:
        json.dump(big, file)
    holds(path, json.dumps(big, separators=(",", ":")))
    with open(path, "wb", buffering=0) as file:
        file.write(NEW.encode())
    holds(path, NEW)
    assert not [name for name in os.listdir(state) if name != "K"]
    shutil.copy2(path, f"{state}/L")
    shutil.copyfile(f"{state}/L", path)
    shutil.move(f"{state}/L", path)
    ends_as(state, NEW)


@case
def python_popen(mount):
    """A program's output, by a descriptor that its parent opened and others inherit."""
    state, path = prepared(mount, "popen")
    with open(path, "w") as file:
        program = subprocess.Popen(["echo", NEW], stdout=file)
        assert program.wait() == 0
        holds(path, NEW)
    with open(path, "w") as file:
        for word in ("[1", ",2", "]"):
            subprocess.run(["printf", word], stdout=file, check=False)
    holds(path, "[1,2]")
    with open(path, "w") as file:
        program = subprocess.Popen(["sh", "-c", f"echo bad || exit 7"], stdout=file, stderr=subprocess.DEVNULL)
        assert program.wait() == 7
        with fails(errno.EINVAL):
            file.close()
    holds(path, "[1,2]")
    with open(path, "w") as file, subprocess.Popen(["jq", "-n", NEW], stdout=file):
        pass
    ends_as(state, NEW)


@case
def python_tempfile(mount):
    state, path = prepared(mount, "tempfile")
    for maker in (tempfile.mkstemp(dir=state), tempfile.mkstemp(dir=state, prefix=".")):
        fd, temporary = maker
        with os.fdopen(fd, "w") as file:
            json.dump([temporary], file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        holds(path, json.dumps([temporary]))
    write(path, NEW)
    with fails(errno.EINVAL):
        with tempfile.NamedTemporaryFile("w", dir=state) as file:
            file.write("bad")
            file.flush()
    ends_as(state, NEW)


@case
def many_programs(mount, count="200"):
    """Each a process that writes one value of its own and reads it back at once."""
    state, _ = prepared(mount, "many-programs")
    code = """
import json, os, sys
state, number, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for at in range(count):
    path = f"{state}/key-{number}"
    with open(path, "w") as file:
        json.dump({"at": at}, file)
    with open(path) as file:
        assert json.load(file) == {"at": at}
    assert os.stat(path).st_size == len(json.dumps({"at": at}, separators=(",", ":"))) + 1
    temporary = f"{state}/.{number}"
    with open(temporary, "w") as file:
        json.dump([at], file)
    os.replace(temporary, path)
    with open(path) as file:
        assert json.load(file) == [at]
"""
    programs = [subprocess.Popen([sys.executable, "-c", code, state, str(n), count]) for n in range(4)]
    assert [program.wait() for program in programs] == [0] * 4
    check_state(state)
    hl.wait_for(lambda: status(mount)["kept_bytes"] == 0, "the last close")
    assert session_of(state)


if __name__ == "__main__":
    hl.main()
