"""Ends the bench by SIGTERM at a line of its own.

    end_bench.py LINES - ARGUMENT…      runs tests/bench/run with these arguments, and notes in LINES which lines it passed
    end_bench.py LINES CHANCE ARGUMENT… runs it again, to one of these lines, which is picked by CHANCE (any word)

Its status is that of the bench.
"""
import contextlib
import json
import os
import random
import runpy
import signal
import subprocess
import sys

BENCH = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bench")
FILES = {os.path.join(BENCH, name) for name in ("run", "rows.py", "places.py", "ending.py")}
FILES |= {contextlib.__file__, subprocess.__file__}


class Tracer:
    def __init__(self, wanted, nth):
        self.passed, self.wanted, self.nth = {}, wanted, nth

    def trace(self, frame, event, _):
        if frame.f_code.co_filename not in FILES:
            return None
        if event == "line":
            line = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
            self.passed[line] = self.passed.get(line, 0) + 1
            if line == self.wanted and self.passed[line] == self.nth:
                os.kill(os.getpid(), signal.SIGTERM)
        return self.trace


def main():
    path, chance, *arguments = sys.argv[1:]
    tracer = Tracer(None, 0)
    if chance != "-":
        rng = random.Random(chance)
        with open(path) as file:
            passed = json.load(file)
        # How often a line is passed may depend on time: if it is not so often, the bench comes to its end.
        line = rng.choice(sorted(passed))
        tracer = Tracer(line, rng.randint(1, passed[line]))
        print(f"to be ended at {line}, passed {tracer.nth} times", file=sys.stderr)
    sys.path.insert(0, BENCH)
    sys.argv = [os.path.join(BENCH, "run"), *arguments]
    sys.settrace(tracer.trace)
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        sys.settrace(None)
        if chance == "-":
            with open(path, "w") as file:
                json.dump(tracer.passed, file)


main()
