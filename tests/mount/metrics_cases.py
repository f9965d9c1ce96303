#!/usr/bin/env python3
"""metrics_cases.py MOUNT: .metrics against the parsers of Prometheus (python3-prometheus-client), against rules of
OpenMetrics that those do not check, and against .status and the sums."""
import json
import os
import re
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

OLD_TYPES = {"counter", "gauge", "histogram", "summary", "untyped"}


def samples(families):
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}


def check_form(text):
    """The order of lines, names and units, as the specification has them."""
    assert text.endswith("# EOF\n") and text.count("# EOF") == 1
    assert text.isascii() or text.encode().decode() == text
    seen, family, unit = set(), None, None
    for line in text.splitlines()[:-1]:
        assert line and line == line.strip(), line
        if line.startswith("# TYPE "):
            name, kind = re.fullmatch(r"# TYPE (hotlogfs_[a-z0-9_]+) ([a-z]+)", line).groups()
            assert name not in seen, f"{name} twice"
            assert kind in OLD_TYPES, f"{kind}: a textfile collector does not know it"
            seen.add(name)
            family, unit, helped = (name, kind), None, False
        elif line.startswith("# UNIT "):
            name, unit = re.fullmatch(r"# UNIT (\S+) (\S+)", line).groups()
            assert name == family[0] and name.endswith("_" + unit), line
        elif line.startswith("# HELP "):
            name, text_of = re.fullmatch(r"# HELP (\S+) (.+)", line).groups()
            assert name == family[0] and text_of.endswith("."), line
            helped = True
        else:
            assert helped, f"{line}: no help"
            name = re.match(r"[a-z0-9_]+", line).group()
            ends = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}[family[1]]
            assert name in [family[0] + end for end in ends], line
            assert not (family[1] == "gauge" and name.endswith(("_total", "_info", "_count", "_sum", "_bucket"))), line


def main(mount):
    text = open(f"{mount}/.metrics", encoding="utf-8", newline="").read()
    check_form(text)
    new, old = samples(openmetrics(text)), samples(prometheus(text))
    assert new and new == old, set(new.items()) ^ set(old.items())
    status = json.load(open(f"{mount}/.status", encoding="utf-8"))
    sums = status["sums"]

    def value(name, **labels):
        return new["hotlogfs_" + name, tuple(sorted(labels.items()))]

    for name, field in (("records", "records"), ("line_bytes", "bytes"), ("sessions", "sessions"),
                        ("appends_total", "appends"), ("segments", "segments"), ("followers", "followers"),
                        ("announcements_skipped_total", "announcements_skipped"), ("dead_bytes", "dead_bytes"),
                        ("memtable_records", "memtable_records"), ("compactions_total", "compactions")):
        if field in status:
            assert value(name) == status[field], (name, value(name), status[field])
    assert value("build", version=status["version"]) == 1
    assert value("sync_seconds_count") == status["syncs"] > 0
    buckets = [(float(dict(k[1])["le"]), v) for k, v in new.items() if k[0] == "hotlogfs_sync_seconds_bucket"]
    assert [v for _, v in sorted(buckets)] == sorted(v for _, v in buckets) and len(buckets) > 10
    assert max(buckets) == (float("inf"), status["syncs"])
    for kind, of in sums["by_kind"].items():
        assert value("events", kind=kind) == of["events"], kind
    for tool, of in sums["by_tool"].items():
        tool = tool.replace("\x01", "\ufffd")  # the format has no such bytes
        assert value("tool_calls", tool=tool) == of.get("calls", 0), tool
        assert value("tool_events", tool=tool) == of["events"], tool
        assert value("tool_errors", tool=tool) == of.get("errors", 0), tool
    assert value("event_errors") == sums["errors"] and value("calls") == sums["calls"]
    assert value("tokens", type="in") == sums["tokens_in"]
    assert value("tokens", type="cache_read") == sums["cache_read_tokens"]
    assert abs(value("cost_usd") - sums["cost_usd_e6"] / 1e6) < 1e-9
    assert value("refused_writes_total", errno="EINVAL") == 2
    assert value("refused_writes_total", errno="EEXIST") == 1
    assert os.stat(f"{mount}/.metrics").st_size == len(text.encode()), "st_size"


main(sys.argv[1])
