"""Cases of test_kill.sh: kill -9 of the daemon while the kernel waits for it. Arguments: HOTLOGFS FOLDER ROUNDS."""
import errno
import multiprocessing
import os
import subprocess
import time

import hl
from hl import case

GONE = (errno.ENOTCONN, errno.ECONNABORTED)
PATIENCE = 180


def until_gone(work):
    number = 0
    while True:
        try:
            work(number)
        except OSError as error:
            if error.errno in GONE:
                return
            if error.errno not in (errno.ENOENT, errno.EEXIST):
                raise
        number += 1


def changer(mount, which):
    until_gone(lambda n: os.chmod(f"{mount}/sessions/s{which % 2}", 0o700 | n & 0o77))


def maker(mount, which):
    until_gone(lambda n: os.mkdir(f"{mount}/sessions/made-{which}-{os.getpid()}-{n}"))


def looker(mount, which):
    until_gone(lambda n: os.stat(f"{mount}/sessions/none-{which}-{os.getpid()}-{n}"))


def lister(mount, _):
    until_gone(lambda _: os.listdir(f"{mount}/sessions"))


def reader(mount, which):
    until_gone(lambda n: hl.read(f"{mount}/sessions/s{which % 2}/{n % 50 + 1}"))


ROLES = (changer, changer, maker, maker, looker, looker, lister, reader)


def where(pid):
    """Where in the kernel each thread waits."""
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            yield task + "\n" + hl.read(f"/proc/{pid}/task/{task}/stack").decode()
        except OSError:
            pass


def a_round(hotlogfs, folder, seconds):
    mount = f"{folder}/mnt"
    with open(f"{folder}/log", "ab") as log:
        daemon = subprocess.Popen([hotlogfs, f"{folder}/dir", mount, "-f"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    actors = []
    try:
        hl.wait_for(lambda: os.path.exists(f"{mount}/.status") or daemon.poll() is not None, "the mount", PATIENCE)
        for n in range(2):
            os.makedirs(f"{mount}/sessions/s{n}", exist_ok=True)
            hl.append(f"{mount}/sessions/s{n}", b"line\n" * 50)
        actors = [multiprocessing.Process(target=role, args=(mount, n)) for n, role in enumerate(ROLES)]
        for actor in actors:
            actor.start()
        time.sleep(seconds)  # how long it is busy before it is killed
        daemon.kill()
        try:
            daemon.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError("the daemon outlives SIGKILL:\n" + "\n".join(where(daemon.pid))) from None
        for actor in actors:
            actor.join(PATIENCE)
            assert actor.exitcode == 0, f"{actor} after the daemon was killed: {actor.exitcode}"
    finally:
        subprocess.run(["umount", "-f", mount], capture_output=True, check=False)  # ends what waits for the daemon
        subprocess.run(["fusermount3", "-u", "-z", mount], capture_output=True, check=False)
        for process in [daemon] + actors:
            process.kill()
        daemon.wait(PATIENCE)


@case
def busy(hotlogfs, folder, rounds):
    rng = hl.seeded()
    os.makedirs(f"{folder}/mnt")
    for _ in range(int(rounds)):
        a_round(hotlogfs, folder, rng.uniform(0.05, 0.3))


if __name__ == "__main__":
    hl.main()
