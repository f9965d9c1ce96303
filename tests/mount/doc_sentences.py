#!/usr/bin/env python3
"""Holds the sentences quoted in docs/troubleshooting.md to those in the sources.

    doc_sentences.py ROOT

What a heading quotes between backticks must be a sentence of fs/ or store/, or a part of one between two places that
printf fills (`…` in the page), or what strerror(3) says, with the name of that error behind it.
"""
import errno
import glob
import os
import re
import sys

# Comments, characters, strings, and what joins strings: blanks and the macros of <inttypes.h>.
TOKEN = re.compile(r"""/\*.*?\*/|//[^\n]*|'(?:[^'\\]|\\.)*'|"((?:[^"\\]|\\.)*)"|(PRI[a-zA-Z0-9]+)|\s+|.""", re.S)
CONVERSION = re.compile(r"%(?:%|[-+ #0-9.*]*(?:hh|h|ll|l|z|j|t)?(?:[a-zA-Z]|$))")


def strings(source):
    """Every string constant, adjacent ones joined, with … for each conversion of printf."""
    current = None
    for token in TOKEN.finditer(source):
        if token[1] is not None:
            current = (current or "") + token[1]
        elif token[2] is not None:
            current = (current or "") + "d"
        elif current is not None and not token[0].isspace() and not token[0].startswith("/*"):
            yield current
            current = None
    if current is not None:
        yield current


def readable(text):
    text = text.replace('\\"', '"').replace("\\\\", "\\")
    return CONVERSION.sub(lambda found: "%" if found[0] == "%%" else "…", text)


def main():
    root = sys.argv[1]
    said = set()
    for path in glob.glob(root + "/fs/*.c") + glob.glob(root + "/store/*.c"):
        with open(path, encoding="utf-8") as file:
            said.update(readable(text) for text in strings(file.read()))
    assert len(said) > 300, "the sources say only %d things" % len(said)
    with open(root + "/docs/troubleshooting.md", encoding="utf-8") as file:
        headings = [line for line in file if re.match(r"#{3,4} ", line)]
    wrong = quoted = 0
    for heading in headings:
        # A sentence may hold backticks itself: then the heading is that sentence alone.
        whole = re.fullmatch(r"#+ `(.*)`\n", heading)
        quotes = [whole[1]] if whole and whole[1].count("`") % 2 == 0 else re.findall(r"`([^`]*)`", heading)
        for quote in quotes:
            quoted += 1
            names = [name for code, name in errno.errorcode.items() if os.strerror(code) == quote]
            if names:
                if not re.search(r"\b(%s)\b" % "|".join(names), heading):
                    print("%r is not the error named in: %s" % (quote, heading.strip()))
                    wrong += 1
            elif not any(quote in sentence for sentence in said):
                print("the program never says: %s" % quote)
                wrong += 1
    print("%d quotes, %d wrong" % (quoted, wrong))
    sys.exit(1 if wrong or quoted < 40 else 0)


main()
