#!/usr/bin/env python3
"""Holds the sentences quoted in docs/troubleshooting.md to those in the sources.

    doc_sentences.py ROOT

What a heading quotes between backticks must be a sentence of fs/ or store/, or a part of one between two places that
printf fills (`…` in the page), or what strerror(3) says, with the name of that error behind it. And every sentence that the
sources give a failure (hl_fail) must be found in the page, quoted whole or by such a part.
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


def failures(source):
    """The arguments of each call of hl_fail."""
    for call in re.finditer(r"\bhl_fail\(", source):
        depth, end = 1, call.end()
        for token in TOKEN.finditer(source, call.end()):
            depth += {"(": 1, ")": -1}.get(token[0], 0)
            end = token.end()
            if depth == 0:
                break
        yield source[call.end() : end]


def quotes_of(text):
    """What stands between backticks: one, or two where the quote has some itself."""
    return [span[2].strip() for span in re.finditer(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", text.replace("\\|", "|"))]


def rows_of(page):
    """The first cells of the page's tables of sentences."""
    for row in re.findall(r"^\| (`.*)$", page, re.M):
        yield re.split(r" (?<!\\)\| ", row)[0]


def unquoted(root, page):
    """Sentences of failures that the page does not have."""
    quotes = {quote for quote in quotes_of(page) if len(quote) >= 8}
    found = 0
    for path in sorted(glob.glob(root + "/fs/*.c") + glob.glob(root + "/store/*.c")):
        with open(path, encoding="utf-8") as file:
            source = file.read()
        for call in failures(source):
            for sentence in map(readable, strings(call)):
                if not re.search(r"[a-z]{2}.* ", sentence):
                    continue  # a word that is put into another sentence
                found += 1
                if sentence not in quotes and not any(quote in sentence for quote in quotes):
                    yield "%s: %s" % (os.path.basename(path), sentence)
    assert found > 150, "the sources have only %d failures" % found


def main():
    root = sys.argv[1]
    said = set()
    for path in glob.glob(root + "/fs/*.c") + glob.glob(root + "/store/*.c"):
        with open(path, encoding="utf-8") as file:
            said.update(readable(text) for text in strings(file.read()))
    assert len(said) > 300, "the sources say only %d things" % len(said)
    with open(root + "/docs/troubleshooting.md", encoding="utf-8") as file:
        page = file.read()
    headings = [line for line in page.splitlines(keepends=True) if re.match(r"#{3,4} ", line)]
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
    for quote in (quote for cell in rows_of(page) for quote in quotes_of(cell)):
        quoted += 1
        if not any(quote in sentence for sentence in said):
            print("the program never says: %s" % quote)
            wrong += 1
    for missing in unquoted(root, page):
        print("the page does not have what is said in %s" % missing)
        wrong += 1
    print("%d quotes, %d wrong" % (quoted, wrong))
    sys.exit(1 if wrong or quoted < 200 else 0)


main()
