#!/usr/bin/env python3
"""Writes the figures of a run of `make bench` into a page, between its marks: page.py RESULT.json PAGE.md

The page is docs/comparison.md: of each row what the programs found that it speaks of. The rest of the page stays.
"""
import json
import sys

from report import number
from rows import OURS

BEGIN, END = "<!-- figures: tests/bench/page.py writes what follows -->\n", "<!-- end of figures -->\n"
# Its column, and how the names of its contenders begin.
COLUMNS = (("hotlogfs", OURS), ("SQLite", "SQLite"), ("Redis", "Redis"), ("plain file", "ext4"))
ON_DISK = "bytes on disk beyond a record's line"


def cell(row, prefix):
    """What was found, by the contenders that have that name; what one of them is beyond it stands behind."""
    figures = []
    for name, found in row["found"].items():
        if name != prefix and (prefix == OURS or not name.startswith(prefix)):
            continue
        how = name[len(prefix) :].strip(" ,")
        figure = f"{number(found['median'])} ({number(found['least'])} to {number(found['most'])})"
        figures.append(f"{how}: {figure}" if how and how != "file" else figure)
    return "<br>".join(figures)


def row_line(row):
    cells = [cell(row, prefix) for _, prefix in COLUMNS]
    return None if not cells[0] or not any(cells[1:]) else f"| {row['name']}, {row['unit']} | " + " | ".join(cells) + " |"


def on_disk(result):
    if not result["growth"]:
        return []
    size = list(result["growth"])[-1]
    cells = [number(result["growth"][size][ON_DISK])]
    for name, _ in COLUMNS[1:3]:
        value = result["others"].get(f"{name}: bytes on disk beyond a line")
        cells.append("" if value is None else number(value))
    return [f"| bytes on the disk beyond a record's line, {int(size):,} records | " + " | ".join(cells + ["0"]) + " |"]


def figures(result):
    machine = result["machine"]
    lines = [
        f"`make bench{' QUICK=1' if result['size'] == 'quick' else ''}`, medians of {result['rounds']} rounds, least and most"
        f" in brackets. {machine['processor']}, {machine['processors']} processors, {machine['memory']} of memory, Linux"
        f" {machine['kernel'].split('-')[0]}, {machine['disk'].split()[0]}, libfuse {machine['libfuse']}, SQLite {machine['SQLite']},"
        f" {machine['Redis'].replace(' server v=', ' ')}; load before it {machine['load']}.",
        "",
        "| | " + " | ".join(name for name, _ in COLUMNS) + " |",
        "|---|" + "---|" * len(COLUMNS),
    ]
    return "\n".join(lines + [line for line in map(row_line, result["rows"]) if line] + on_disk(result)) + "\n"


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: tests/bench/page.py RESULT.json PAGE.md")
    with open(sys.argv[1], encoding="utf-8") as file:
        text = figures(json.load(file))
    with open(sys.argv[2], encoding="utf-8") as file:
        page = file.read()
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        file.write(f"{before}{BEGIN}\n{text}\n{END}{after}")


main()
