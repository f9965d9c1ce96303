"""What lines of coding agents' session transcripts say, as fields of events.

Claude Code writes ~/.claude/projects/DIR/SESSION.jsonl (and SESSION/subagents/agent-ID.jsonl): a line for each
content block of a message, each with the usage of the whole message as far as it was known then, so that the
counts of one message id stand on several lines and may grow.

Codex writes ~/.codex/sessions/YYYY/MM/DD/rollout-TIME-SESSION.jsonl: {"timestamp","type","payload"}; before autumn
2025 the payloads alone. Its token_count lines hold running totals, and are written again without any new use. The
file of a fork begins with a copy of its parent's lines at the time of the fork.

These formats are internal to the programs and change. So each field is looked at with suspicion, and what is not
known is an event all the same.
"""
import json
import os
import re

import import_lines as il

U32_MAX = (1 << 32) - 1
UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
FORK_MS = 2000  # a copy is written within this time of the fork; a model's answer takes longer

CLAUDE_TYPES = {"user", "assistant", "system", "summary", "progress", "attachment", "file-history-snapshot",
                "queue-operation", "turn_end", "last-prompt", "custom-title", "ai-title", "permission-mode",
                "agent-name", "agent-setting", "mode", "pr-link", "tag", "worktree-state", "content-replacement",
                "saved_hook_context", "bridge-session", "result"}
CODEX_TYPES = {"session_meta", "response_item", "event_msg", "turn_context", "compacted", "world_state"}
CODEX_ITEM = re.compile(r"message|reasoning|\w+_call|\w+_call_output|ghost_snapshot|compaction\w*")
TOKENS = ("tokens_in", "tokens_out", "reasoning_tokens", "cache_creation_tokens", "cache_read_tokens")


# ---- values that may be anything ----------------------------------------------------------------------


def text_of(record, name):
    value = record.get(name)
    return value if isinstance(value, str) and value else None


def object_of(record, name):
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def blocks_of(message):
    content = message.get("content")
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []


def count_of(record, name):
    """A number of tokens or the like; 0 if there is none."""
    value = record.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= U32_MAX else 0


def rounded(value, factor=1):
    """A duration or price as an integer; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value * factor <= U32_MAX:
        return None
    return round(value * factor)


# ---- Claude Code ------------------------------------------------------------------------------------


class Claude:
    """Knows, over all files, which tool each call was of, and what was counted of each message."""

    source = "claude-code"

    def __init__(self):
        self.tools = {}
        self.counted = {}

    def events(self, record):
        """A list of (fields, block): the event of the line, and one for each further call or result in it."""
        kind = text_of(record, "type")
        message = object_of(record, "message")
        fields = {"kind": "Message"}
        if kind == "system":
            self._system(record, fields)
        elif kind in ("progress", "attachment"):
            inner = text_of(object_of(record, "data" if kind == "progress" else "attachment"), "type") or ""
            fields["kind"] = "Hook" if inner.startswith("hook") else "Lifecycle"
        elif not message and kind not in ("user", "assistant"):
            fields["kind"] = "Lifecycle"
        if record.get("isApiErrorMessage") is True:
            fields["kind"] = "Error"
        found = [(fields, None)]
        self._blocks(blocks_of(message), found)
        fields["stop_reason"] = text_of(message, "stop_reason")
        if len(found) == 1:
            self._result(record, fields)
        self._usage(record, message, fields)
        return found

    @staticmethod
    def _system(record, fields):
        subtype = text_of(record, "subtype") or ""
        if "error" in subtype or record.get("level") == "error":
            fields["kind"] = "Error"
        else:
            fields["kind"] = "Hook" if "hook" in subtype else "Lifecycle"
        if record.get("retryAttempt") is not None:
            fields["retry_count"] = min(count_of(record, "retryAttempt"), 65535)
        fields["latency_ms"] = rounded(record.get("durationMs"))

    def _blocks(self, blocks, found):
        first = True
        for at, block in enumerate(blocks):
            kind = text_of(block, "type") or ""
            if kind.endswith("tool_use"):
                call, tool = text_of(block, "id"), text_of(block, "name")
                fields = {"kind": "ToolCall", "tool": tool, "tool_call_id": call}
                self.tools[call] = tool
            elif kind.endswith("tool_result"):
                call = text_of(block, "tool_use_id")
                fields = {"kind": "ToolResult", "tool": self.tools.get(call), "tool_call_id": call}
                if block.get("is_error") is True:
                    fields["is_error"] = True
            else:
                continue
            if first:
                found[0][0].update(fields)
                first = False
            else:
                found.append(({**fields, "block": at}, block))

    @staticmethod
    def _result(record, fields):
        if fields["kind"] == "ToolResult":
            result = object_of(record, "toolUseResult")
            latency = rounded(result.get("durationMs"))
            fields["latency_ms"] = latency if latency is not None else rounded(result.get("totalDurationMs"))

    def _usage(self, record, message, fields):
        usage = object_of(message, "usage")
        cost = rounded(record.get("costUSD"), 1000000)
        if not usage and not cost:
            return
        now = {
            "tokens_in": count_of(usage, "input_tokens"),
            "tokens_out": count_of(usage, "output_tokens"),
            "reasoning_tokens": count_of(object_of(usage, "output_tokens_details"), "thinking_tokens"),
            "cache_creation_tokens": count_of(usage, "cache_creation_input_tokens"),
            "cache_read_tokens": count_of(usage, "cache_read_input_tokens"),
            "cost_usd_e6": cost or 0,
        }
        # Without an id of either sort a line stands for itself.
        counted = self.counted.setdefault(text_of(message, "id") or text_of(record, "uuid"), {}) \
            if text_of(message, "id") or text_of(record, "uuid") else {}
        for name, value in now.items():
            if value > counted.get(name, 0):
                fields[name] = value - counted.get(name, 0)
                counted[name] = value
        if any(name in fields for name in TOKENS):
            used = now["tokens_in"] + now["cache_creation_tokens"] + now["cache_read_tokens"]
            fields["context_used_tokens"] = min(used, U32_MAX)


# ---- Codex ------------------------------------------------------------------------------------------


class Codex:
    """Reads the lines of one file; tools is shared by all."""

    source = "codex"

    def __init__(self, tools):
        self.tools = tools
        self.total = None
        self.session = None
        self.began_ms = None
        self.forked = False

    def events(self, record, ms):
        kind = text_of(record, "type")
        payload = object_of(record, "payload")
        if kind == "session_meta":
            fields = {"kind": "Lifecycle"}
            self._meta(payload, ms)
        elif kind == "response_item":
            fields = self._item(payload)
        elif kind == "event_msg":
            fields = self._message(payload, ms)
        elif not payload and kind is not None:
            fields = self._item(record)  # as it was written before there were envelopes
        else:
            fields = {"kind": "Lifecycle"}
        if kind != "session_meta" and self._is_copy(ms):
            fields["replayed"] = True
        return [(fields, None)]

    def _meta(self, payload, ms):
        session = text_of(payload, "id")
        if self.session is None:
            self.session, self.began_ms = session, ms
            self.forked = text_of(payload, "forked_from_id") is not None
        elif session != self.session:
            self.forked = True  # its parent's, copied

    def _is_copy(self, ms):
        return self.forked and None not in (ms, self.began_ms) and ms <= self.began_ms + FORK_MS

    def _item(self, item):
        kind = text_of(item, "type") or ""
        call = text_of(item, "call_id")
        if kind.endswith("_call_output"):
            return {"kind": "ToolResult", "tool": self.tools.get(call), "tool_call_id": call}
        if kind.endswith("_call"):
            call = call or text_of(item, "id")
            tool = text_of(item, "name") or kind[:-len("_call")]
            self.tools[call] = tool
            return {"kind": "ToolCall", "tool": tool, "tool_call_id": call}
        return {"kind": "Message" if kind in ("message", "reasoning") else "Lifecycle"}

    def _message(self, payload, ms):
        kind = text_of(payload, "type") or ""
        if kind == "token_count":
            return {"kind": "Cost", **self._count(object_of(payload, "info"), ms)}
        if kind in ("error", "stream_error"):
            return {"kind": "Error"}
        if kind in ("user_message", "agent_message") or kind.startswith("agent_reasoning"):
            return {"kind": "Message"}
        call = text_of(payload, "call_id")
        fields = {"kind": "Lifecycle", "tool": self.tools.get(call), "tool_call_id": call}
        took = object_of(payload, "duration")
        fields["latency_ms"] = rounded(count_of(took, "secs") * 1000 + count_of(took, "nanos") / 1e6) if took \
            else rounded(payload.get("duration_ms"))
        fields["ttft_ms"] = rounded(payload.get("time_to_first_token_ms"))
        return fields

    @staticmethod
    def _tokens(usage):
        """The counts of a usage, with what came from the cache apart from what did not."""
        cached, written = count_of(usage, "cached_input_tokens"), count_of(usage, "cache_write_input_tokens")
        return {
            "tokens_in": max(0, count_of(usage, "input_tokens") - cached - written),
            "tokens_out": count_of(usage, "output_tokens"),
            "reasoning_tokens": count_of(usage, "reasoning_output_tokens"),
            "cache_creation_tokens": written,
            "cache_read_tokens": cached,
        }

    def _count(self, info, ms):
        """What was used since the last count."""
        total, last = object_of(info, "total_token_usage"), object_of(info, "last_token_usage")
        if not total and not last:
            return {}
        before, self.total = self.total, (self._tokens(total) if total else self.total)
        if self._is_copy(ms):
            return {}
        now = self.total
        if total and before == now:
            return {}
        if total and before is not None and all(now[name] >= before[name] for name in TOKENS):
            fields = {name: now[name] - before[name] for name in TOKENS}
        else:
            # The first, whose total may hold what an earlier file counted; or the total began anew.
            fields = self._tokens(last) if last else dict(now)
        fields = {name: value for name, value in fields.items() if value}
        if last:
            fields["context_used_tokens"] = count_of(last, "input_tokens") or None
        fields["context_max_tokens"] = count_of(info, "model_context_window") or None
        return fields


# ---- either -----------------------------------------------------------------------------------------


def program_of(record):
    """Whose line it is: "claude", "codex", or None."""
    kind = text_of(record, "type")
    if kind in CODEX_TYPES and isinstance(record.get("payload"), dict):
        return "codex"
    if isinstance(record.get("message"), dict) or text_of(record, "sessionId") or text_of(record, "leafUuid") \
            or kind in CLAUDE_TYPES:
        return "claude"
    if (kind is not None and CODEX_ITEM.fullmatch(kind)) or text_of(record, "record_type") \
            or ("instructions" in record and text_of(record, "id")):
        return "codex"
    return None


def time_of(record):
    for holder in (record, object_of(record, "snapshot"), object_of(record, "message"), object_of(record, "payload")):
        ms = il.any_ms(holder.get("timestamp"))
        if ms is not None:
            return ms
    return None


def session_of(record):
    """The session id that a line tells; None if it tells none."""
    if text_of(record, "type") == "session_meta":
        return text_of(object_of(record, "payload"), "id")
    if "instructions" in record and text_of(record, "id"):
        return text_of(record, "id")
    return text_of(record, "sessionId") or text_of(record, "session_id")


def parsed(line):
    """The object of a line; None if it is none."""
    try:
        record = il.parse(line.text())
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def identity(path):
    """A file's session id and first time: as its name has them, or its lines, or else its name."""
    stem = os.path.basename(path)
    for ending in (".gz", ".jsonl", ".json"):
        stem = stem.removesuffix(ending)
    # A session of Claude Code is named by its file, also where lines were copied from an older one.
    session = stem if UUID.fullmatch(stem) else None
    ms = None
    for line in il.lines(path, il.Report("", quiet=True)):
        record = parsed(line)
        if record is None:
            continue
        session = session or session_of(record)
        ms = ms if ms is not None else time_of(record)
        if session is not None and ms is not None:
            break
    if session is None:
        found = UUID.findall(stem)
        session = found[-1] if found else stem
    return session, ms


class Transcript:
    """Lines of one file into events. shared is a Claude, and its tools are those of all files."""

    def __init__(self, shared):
        self.claude = shared
        self.codex = Codex(shared.tools)

    def events(self, record, ms):
        """(source, [(fields, block)]); source is None if the line is not known."""
        program = program_of(record)
        if program == "claude":
            return self.claude.source, self.claude.events(record)
        if program == "codex":
            return self.codex.source, self.codex.events(record, ms)
        return None, [({}, None)]


def block_text(block):
    return json.dumps(block, ensure_ascii=False, separators=(",", ":"))
