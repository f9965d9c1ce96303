#!/usr/bin/env python3
"""Runs the shell blocks of a page of docs/ and compares what they print with the page.

    doc_blocks.py FILE [HEADING]     the page, or only the part below that heading (up to the next of its level)

A block that begins with ```sh is run; a block ```text right behind it is what it prints, both of standard output and
standard error; without one it prints nothing. All blocks run in one bash, in the present directory. In what is
expected, `…` stands for anything within a line, and a line that is `…` alone for any number of lines. A block of
another kind with a name, ```bash file=NAME, is written to that file before anything is run; without a name it is for
reading only.
"""
import os
import re
import subprocess
import sys
import tempfile

# A block, and perhaps what it prints.
BLOCKS = re.compile(r"^```sh\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.M | re.S)

FILES = re.compile(r"^```\w+ file=([\w.-]+)\n(.*?)^```\n", re.M | re.S)


def part(text, heading):
    found = re.search(r"^(#+) %s$" % re.escape(heading), text, re.M)
    if not found:
        sys.exit("no heading: " + heading)
    rest = text[found.end() :]
    end = re.search(r"^#{1,%d} " % len(found[1]), rest, re.M)
    return rest[: end.start()] if end else rest


def pattern(expected):
    """The regular expression of an expected output."""
    lines = []
    for line in expected.splitlines():
        if line == "…":
            lines.append(r"(?:[^\n]*\n)*")
        else:
            lines.append("[^\n]*".join(map(re.escape, line.split("…"))) + r"\n")
    return "".join(lines)


def main():
    with open(sys.argv[1], encoding="utf-8") as page:
        text = page.read()
    if len(sys.argv) > 2:
        text = part(text, sys.argv[2])
    blocks = BLOCKS.findall(text)
    if not blocks:
        sys.exit("no block to run")
    for name, content in FILES.findall(text):
        with open(name, "w", encoding="utf-8") as file:
            file.write(content)
    with tempfile.TemporaryDirectory() as room:
        script = os.path.join(room, "script")
        with open(script, "w", encoding="utf-8") as file:
            for number, (commands, _) in enumerate(blocks):
                file.write("{\n%s} >%s/%d 2>&1\n" % (commands, room, number))
            file.write("touch %s/end\n" % room)
        # In a group of its own, so that what a page leaves in the background does not hold up the test.
        status = subprocess.run(["bash", script], stdin=subprocess.DEVNULL, timeout=600, check=False).returncode
        wrong = 0
        for number, (commands, expected) in enumerate(blocks):
            path = os.path.join(room, str(number))
            with open(path, encoding="utf-8", errors="replace") if os.path.exists(path) else open(os.devnull) as file:
                got = file.read().replace(script + ": ", "")
            if not re.fullmatch(pattern(expected), got):
                print("--- this block:\n%s--- should print:\n%s--- and printed:\n%s" % (commands, expected, got))
                wrong += 1
        if not os.path.exists(os.path.join(room, "end")):
            sys.exit("bash did not come to the end: status %d" % status)
        print("%d blocks, %d wrong" % (len(blocks), wrong))
        sys.exit(1 if wrong else 0)


main()
