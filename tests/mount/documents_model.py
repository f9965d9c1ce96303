"""A model of the documents of two sessions, driven by random steps on a mount: through files, through `append`, through
.ctl. test_documents_model.sh calls it again after each remount, kill or loss of the index; the model is kept in a file
between.

    documents_model.py steps MOUNT MODEL COUNT SEED
    documents_model.py check MOUNT MODEL
"""
import errno
import json
import os
import pickle
import random
import subprocess
import sys

KEYS = ["alpha", "b", "mit Umlaut ü", "a/b", "50%", "x.json", "n1", "n2", "n3", "tab\there"]
ARCHIVES = ["2026-Q1", "old"]
SESSIONS = ["one", "two"]


def encoded(key):
    """The file name of a key."""
    return "".join("%%%02X" % ord(c) if c in "/%" or ord(c) < 32 or ord(c) == 127 else c for c in key)


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class Session:
    def __init__(self, name):
        self.name = name
        self.state = {}  # key -> text of the value
        self.archives = {}  # name -> key -> text
        self.stack = []  # of operations not undone: (seq, keys of state/ that it touched, state and archives before, made)
        self.last = 0
        self.after = {}  # seq -> state, for some
        self.history = {key: [] for key in KEYS}  # seqs

    def copy(self):
        return dict(self.state), {name: dict(held) for name, held in self.archives.items()}

    def operation(self, touched, change, undoable=True, made=None):
        before = self.copy()
        change()
        self.last += 1
        for key in touched:
            self.history[key].append(self.last)
        if undoable:
            self.stack.append((self.last, sorted(touched), before, made))
        self.after[self.last] = dict(self.state)

    def undo(self):
        _, touched, (state, archives), made = self.stack.pop()
        present = set(self.archives)

        def change():
            self.state = state
            for name in archives:
                if archives[name]:
                    present.add(name)
            if made and not archives.get(made):
                present.discard(made)
            self.archives = {name: archives.get(name, {}) for name in present}

        self.operation(touched, change, undoable=False)


class Run:
    def __init__(self, mount, sessions, rng):
        self.mount, self.sessions, self.rng = mount, sessions, rng
        self.values = 0

    def path(self, session, *names):
        return os.path.join(self.mount, "sessions", session.name, *names)

    def value(self):
        rng = self.rng
        self.values += 1
        kinds = [rng.randrange(1 << 40), "s" * rng.choice([0, 5, 3000]), None, True, [1, {"a": []}], {"n": rng.random()},
                 {"ü": "\u2028\"\\", "list": list(range(rng.randrange(300)))}]
        return rng.choice(kinds)

    # -- one step each; what a step does through the mount it does to the model

    def write(self, s, key, how=None):
        """Sets by a file, in one of the ways in which programs write."""
        value = self.value()
        text = compact(value)
        path = self.path(s, "state", encoded(key))
        how = how or self.rng.choice(["plain", "indented", "pieces", "replace", "in place", "no newline", "append twice"])
        if how == "indented":
            with open(path, "w") as f:
                json.dump(value, f, indent=2, ensure_ascii=False)
        elif how == "pieces":
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            data = text.encode() + b"\n"
            while data:
                n = self.rng.randrange(1, max(2, len(data) // 2 + 2))
                os.write(fd, data[:n])
                data = data[n:]
            os.close(fd)
        elif how == "replace":
            scratch = self.path(s, "state", ".new~")
            with open(scratch, "w") as f:
                f.write(text + "\n")
            os.replace(scratch, path)
        elif how == "in place" and key in s.state:
            with open(path, "r+") as f:
                f.seek(0)
                f.truncate()
                f.write(text)
        elif how == "append twice":
            with open(path, "w") as f:
                f.write(text)
            with open(path, "a") as f:
                f.write(" \n")
            if text + " \n":  # the second open re-reads, and sets the same again
                self.set_model(s, key, text)
        else:
            with open(path, "w") as f:
                f.write(text + ("" if how == "no newline" else "\n"))
        self.set_model(s, key, text)
        with open(path) as f:
            assert f.read() == text + "\n", (how, path)
        assert os.stat(path).st_size == len(text.encode()) + 1

    def set_model(self, s, key, text):
        s.operation({key}, lambda: s.state.__setitem__(key, text))

    def remove(self, s, key):
        path = self.path(s, "state", encoded(key))
        if key in s.state:
            os.unlink(path)
            s.operation({key}, lambda: s.state.pop(key))
        else:
            self.fails(errno.ENOENT, os.unlink, path)

    def rename(self, s, key, to):
        a, b = self.path(s, "state", encoded(key)), self.path(s, "state", encoded(to))
        if key not in s.state:
            self.fails(errno.ENOENT, os.rename, a, b)
        elif key == to:
            os.rename(a, b)
        else:
            os.rename(a, b)
            s.operation({to}, lambda: s.state.__setitem__(to, s.state[key]))
            s.operation({key}, lambda: s.state.pop(key))

    def bad_write(self, s, key):
        """The old value stays."""
        path = self.path(s, "state", encoded(key))
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            os.write(fd, self.rng.choice([b"{]", b"nope\n", b"{\"a\":1}}\n", b"01\n", b"\xff\n"]))
            assert False, "what is not JSON was taken"
        except OSError as failure:
            assert failure.errno == errno.EINVAL, failure
        finally:
            try:
                os.close(fd)
            except OSError as failure:
                assert failure.errno == errno.EINVAL, failure

    def archive(self, s):
        name = self.rng.choice(ARCHIVES)
        path = self.path(s, "archive", encoded(name))
        held = s.archives.get(name)
        if held is None:
            os.mkdir(path)
            s.operation(set(), lambda: s.archives.__setitem__(name, {}), undoable=False)
            return
        if self.rng.random() < 0.1:
            if held:
                self.fails(errno.ENOTEMPTY, os.rmdir, path)
            else:
                os.rmdir(path)
                s.operation(set(), lambda: s.archives.pop(name), undoable=False)
            return
        out = self.rng.random() < 0.6
        source = s.state if out else held
        if not source:
            return
        key = self.rng.choice(sorted(source))
        a, b = self.path(s, "state", encoded(key)), os.path.join(path, encoded(key))
        target = held if out else s.state

        def change():
            target[key] = source.pop(key)

        os.rename(*((a, b) if out else (b, a)))
        s.operation({key}, change)

    def lines(self, s):
        """A batch by append."""
        text = []
        for _ in range(self.rng.choice([1, 1, 2, 5])):
            kind = self.rng.randrange(10)
            key = self.rng.choice(KEYS)
            if kind < 5:
                value = compact(self.value())
                text.append('{"op":"set","key":%s,"value":%s}' % (json.dumps(key), value))
                self.set_model(s, key, value)
            elif kind < 7:
                text.append('{"op":"DELETE","id":%s}' % json.dumps(key))
                s.operation({key}, lambda key=key: s.state.pop(key, None))
            elif kind == 7:
                new = {k: compact(self.value()) for k in self.rng.sample(KEYS, self.rng.randrange(len(KEYS)))}
                text.append('{"op":"checkpoint","state":{%s}}' % ",".join(json.dumps(k) + ":" + v for k, v in new.items()))

                def change(new=new):
                    s.state = dict(new)

                s.operation(set(s.state) | set(new), change)
            elif kind == 8 and s.state:
                key = self.rng.choice(sorted(s.state))
                name = self.rng.choice(ARCHIVES)
                made = None if name in s.archives else name
                text.append('{"op":"archive","name":"%s","keys":[%s]}' % (name, json.dumps(key)))

                def change(key=key, name=name):
                    s.archives.setdefault(name, {})[key] = s.state.pop(key)

                s.operation({key}, change, made=made)
            else:
                text.append('{"kind":"Hook","payload":1}')
                s.last += 1
        with open(self.path(s, "append"), "wb", buffering=0) as f:
            f.write("\n".join(text).encode() + b"\n")

    def undo(self, s):
        count = self.rng.randrange(1, 4)
        try:
            with open(os.path.join(self.mount, ".ctl"), "w") as f:
                f.write("undo %s %d\n" % (s.name, count))
        except OSError as failure:
            assert failure.errno == errno.EINVAL and count > len(s.stack), failure
            return
        assert count <= len(s.stack)
        for _ in range(count):
            s.undo()

    def fails(self, code, function, *arguments):
        try:
            function(*arguments)
        except OSError as failure:
            assert failure.errno == code, failure
            return
        assert False, (function.__name__, arguments, "did not fail")

    def step(self):
        rng = self.rng
        s = rng.choice(self.sessions)
        key = rng.choice(KEYS)
        kind = rng.randrange(100)
        if kind < 30:
            self.write(s, key)
        elif kind < 40:
            self.remove(s, key)
        elif kind < 47:
            self.rename(s, key, rng.choice(KEYS))
        elif kind < 52:
            self.bad_write(s, key)
        elif kind < 65:
            self.archive(s)
        elif kind < 90:
            self.lines(s)
        else:
            self.undo(s)

    # -- checks

    def check_directory(self, path, held):
        listed = sorted(os.listdir(path))
        assert listed == sorted(encoded(key) for key in held), (path, listed, sorted(held))
        for key, text in held.items():
            file = os.path.join(path, encoded(key))
            with open(file) as f:
                found = f.read()
            assert json.loads(found) == json.loads(text) and found == text + "\n", (file, found[:200], text[:200])
            assert os.stat(file).st_size == len(found.encode())

    def check(self, s, deep=False):
        self.check_directory(self.path(s, "state"), s.state)
        archives = sorted(os.listdir(self.path(s, "archive")))
        assert archives == sorted(encoded(name) for name in s.archives), (archives, s.archives.keys())
        for name, held in s.archives.items():
            self.check_directory(self.path(s, "archive", encoded(name)), held)
        with open(self.path(s, "meta")) as f:
            meta = json.load(f)
        assert meta["last_seq"] == s.last or s.last == 0, (meta, s.last)
        assert meta["documents"] == len(s.state), (meta["documents"], len(s.state))
        seqs = sorted(s.after)
        for seq in self.rng.sample(seqs, min(len(seqs), 20 if deep else 1)):
            self.check_directory(self.path(s, "at", str(seq)), s.after[seq])
        for key in KEYS if deep else [self.rng.choice(KEYS)]:
            path = self.path(s, "history", encoded(key))
            if not s.history[key]:
                assert not os.path.exists(path), path
                continue
            try:
                with open(path, "rb") as f:
                    found = [json.loads(line)["seq"] for line in f]
            except FileNotFoundError:  # set once and moved away
                assert len(s.history[key]) == 2, (key, s.history[key])
                continue
            assert found == s.history[key], (key, found[-5:], s.history[key][-5:])


def load(path):
    if os.path.exists(path):
        with open(path, "rb") as f:
            return pickle.load(f)
    return [Session(name) for name in SESSIONS]


def main():
    what, mount, path = sys.argv[1:4]
    sessions = load(path)
    if what == "check":
        run = Run(mount, sessions, random.Random(int(sys.argv[4])))
        for s in sessions:
            run.check(s, deep=True)
        return
    count, seed = int(sys.argv[4]), int(sys.argv[5])
    run = Run(mount, sessions, random.Random(seed))
    for s in sessions:
        os.makedirs(run.path(s), exist_ok=True)
    for number in range(count):
        run.step()
        if number % 10 == 0:
            run.check(run.rng.choice(sessions))
    with open(path + ".new", "wb") as f:
        pickle.dump(sessions, f)
    os.replace(path + ".new", path)


main()
