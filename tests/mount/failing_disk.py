"""What test_failing_disk.sh writes while a call of the daemon fails, and what must be there after it.

    failing_disk.py write MOUNT JOURNAL COUNT    appends and syncs until it is told of a failure, or COUNT lines are written
    failing_disk.py check MOUNT JOURNAL          what was acknowledged is there, and nothing that was not tried
"""
import errno
import json
import os
import sys


def load(path):
    try:
        with open(path) as file:
            return json.load(file)
    except FileNotFoundError:
        return {"acknowledged": [], "tried": 0}


def write(mount, path, count):
    journal = load(path)
    number, failure = journal["tried"], "none"
    fd = os.open(f"{mount}/sessions/s/append", os.O_WRONLY)
    for _ in range(int(count)):
        number += 1
        data = b"".join(b'{"payload":{"n":%d,"of":%d,"fill":"%s"}}\n' % (number, part, b"x" * 300) for part in range(3))
        journal["tried"] = number
        try:
            assert os.write(fd, data) == len(data)
            os.fsync(fd)
        except OSError as error:
            failure = errno.errorcode[error.errno]
            break
        journal["acknowledged"].append(number)
    with open(path, "w") as file:
        json.dump(journal, file)
    print(failure)
    sys.stdout.flush()
    os._exit(0)  # a descriptor that cannot be closed well is no news


def check(mount, path):
    journal = load(path)
    with open(f"{mount}/sessions/s/log") as log:
        payloads = [json.loads(line)["payload"] for line in log]
    numbers = [payload["n"] for payload in payloads if isinstance(payload, dict)]
    assert numbers == sorted(numbers) and all(numbers.count(n) == 3 for n in set(numbers)), "a batch is not whole"
    lost = set(journal["acknowledged"]) - set(numbers)
    assert not lost, f"acknowledged, and lost: {sorted(lost)}"
    assert not numbers or numbers[-1] <= journal["tried"]


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]](*sys.argv[2:])
