"""What a run found: medians, ratios, the machine; as a table and as JSON."""
import math
import os
import platform
import statistics
import subprocess

from rows import OURS, Grown


def first_line(path, name):
    try:
        with open(path) as file:
            for line in file:
                if line.startswith(name):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return "?"


def output(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return "?"


def machine(top):
    usable = len(os.sched_getaffinity(0))
    return {
        "processor": first_line("/proc/cpuinfo", "model name"),
        "processors": usable,
        "memory": first_line("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "disk": output("findmnt", "-n", "-o", "FSTYPE,OPTIONS", "-T", top),
        "libfuse": output("pkg-config", "--modversion", "fuse3"),
        "SQLite": output("pkg-config", "--modversion", "sqlite3"),
        "Redis": output("redis-server", "--version").split(" sha")[0],
        "node": output("node", "--version"),
        "load": " ".join(f"{value:.1f}" for value in os.getloadavg()),
    }


def summary(figures):
    return {"median": statistics.median(figures), "least": min(figures), "most": max(figures), "rounds": len(figures)}


def judge(row, found):
    """The goals of a row, each with the ratio that was reached."""
    verdicts = []
    if OURS not in found:
        return verdicts
    ours = found[OURS]["median"]
    for name, factor in row.goals:
        if name is not None and name not in found:
            continue
        theirs = 1 if name is None else found[name]["median"]
        ratio = ours / theirs if theirs else 0.0
        reached = ratio >= factor if row.better == "more" else ratio <= factor
        verdicts.append({"than": name, "goal": factor, "ratio": ratio, "reached": reached})
    return verdicts


def number(value):
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def row_lines(row):
    lines = [f"{row['name']} ({row['unit']})"]
    ours = row["found"].get(OURS)
    for name, found in row["found"].items():
        ratio = f"{ours['median'] / found['median']:8.2f} x" if ours and found["median"] and name != OURS else " " * 10
        spread = f"{number(found['least'])} .. {number(found['most'])}"
        lines.append(f"  {name:36}{number(found['median']):>14}  {ratio}   {spread}")
    for name, why in row["absent"].items():
        lines.append(f"  {name:36}{'-':>14}              {why}")
    for verdict in row["goals"]:
        sign = "at least" if row["better"] == "more" else "at most"
        goal = (f"{number(verdict['goal'])} {row['unit']}" if verdict["than"] is None
                else f"{verdict['goal']} x {verdict['than']}")
        lines.append(f"    {'reached' if verdict['reached'] else 'MISSED ':8} {sign} {goal}")
    return lines


def cost_factor(name, first, last):
    """By how much one operation costs more in the largest store than in the smallest; None: it is no cost of one."""
    if not first or not last:
        return None
    if name.endswith("/s"):
        return first / last
    return last / first if name.endswith(", ms") else None


def growth_lines(growth, others):
    if not growth:
        return []
    sizes = list(growth)
    lines = ["growth" + "".join(f"{int(size):>16,}" for size in sizes)]
    for name in growth[sizes[0]]:
        lines.append(f"  {name:40}" + "".join(f"{number(growth[size][name]):>14}  " for size in sizes))
        if name in Grown.GOALS:
            reached = growth[sizes[-1]][name] <= Grown.GOALS[name]
            lines.append(f"    {'reached' if reached else 'MISSED ':8} at most {Grown.GOALS[name]} at the largest")
        factor = cost_factor(name, growth[sizes[0]][name], growth[sizes[-1]][name])
        if factor is not None and len(sizes) > 1:
            most = math.log(int(sizes[-1])) / math.log(int(sizes[0]))
            lines.append(f"    {'reached' if factor <= most else 'MISSED ':8} costs {factor:.2f} x as much, log n is {most:.2f} x")
    lines += [f"  {name:40}{number(value):>14}" for name, value in others.items()]
    return lines


def table(result):
    lines = [f"{name}: {value}" for name, value in result["machine"].items()]
    lines += [f"size: {result['size']}, rounds: {result['rounds']}, seconds: {result['seconds']:.0f}", ""]
    for row in result["rows"]:
        lines += row_lines(row)
    return "\n".join(lines + [""] + growth_lines(result["growth"], result["others"]))
