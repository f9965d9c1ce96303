/*
 * metrics.c - .metrics: what .status counts, as OpenMetrics 1.0 text.
 *
 * So written that the older text format of Prometheus, which a textfile collector reads, takes it
 * too: no type of metric that it does not know.
 */
#include "announce.h"
#include "follow.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"

#define PREFIX "hotlogfs_"

/* ---- the format ---- */

/* Begins a family: its name without the prefix, its type, its unit, which ends the name, or NULL.
 */
static void family(struct text *text, const char *name, const char *type, const char *unit,
                   const char *help)
{
    text_format(text, "# TYPE " PREFIX "%s %s\n", name, type);
    if (unit)
        text_format(text, "# UNIT " PREFIX "%s %s\n", name, unit);
    text_format(text, "# HELP " PREFIX "%s %s\n", name, help);
}

static void gauge(struct text *text, const char *name, const char *unit, const char *help,
                  uint64_t value)
{
    family(text, name, "gauge", unit, help);
    text_format(text, PREFIX "%s %" PRIu64 "\n", name, value);
}

static void counter(struct text *text, const char *name, const char *unit, const char *help,
                    uint64_t value)
{
    family(text, name, "counter", unit, help);
    text_format(text, PREFIX "%s_total %" PRIu64 "\n", name, value);
}

/* A sample with one label, whose value may hold any bytes. */
static void labelled(struct text *text, const char *name, const char *label, const char *value,
                     size_t len, uint64_t number)
{
    text_format(text, PREFIX "%s{%s=\"", name, label);
    for (size_t i = 0; i < len; i++) {
        char byte = value[i];
        if (byte == '\n')
            text_add(text, "\\n", 2);
        else if ((unsigned char)byte < 0x20 || byte == 0x7f)
            text_add(text, "\xef\xbf\xbd", 3);
        else if (byte == '"' || byte == '\\')
            text_format(text, "\\%c", byte);
        else
            text_add(text, &byte, 1);
    }
    text_format(text, "\"} %" PRIu64 "\n", number);
}

/* Milliseconds since the epoch, or a duration, as seconds; exact, without a double. */
static void seconds(struct text *text, const char *name, const char *help, uint64_t ms)
{
    family(text, name, "gauge", "seconds", help);
    text_format(text, PREFIX "%s %" PRIu64 ".%03u\n", name, ms / 1000, (unsigned)(ms % 1000));
}

/* ---- what there is ---- */

static void write_syncs(struct text *text, const struct hl_status *status)
{
    static const uint32_t bounds[HL_SYNC_BOUNDS] = HL_SYNC_BOUNDS_US;
    uint64_t count = 0;

    family(text, "sync_seconds", "histogram", "seconds", "How long syncs of the log took.");
    for (size_t i = 0; i < HL_SYNC_BOUNDS; i++) {
        count += status->sync_counts[i];
        text_format(text, PREFIX "sync_seconds_bucket{le=\"%g\"} %" PRIu64 "\n", bounds[i] / 1e6,
                    count);
    }
    count += status->sync_counts[HL_SYNC_BOUNDS];
    text_format(text, PREFIX "sync_seconds_bucket{le=\"+Inf\"} %" PRIu64 "\n", count);
    text_format(text, PREFIX "sync_seconds_count %" PRIu64 "\n", count);
    text_format(text, PREFIX "sync_seconds_sum %" PRIu64 ".%06u\n", status->sync_us / 1000000,
                (unsigned)(status->sync_us % 1000000));
}

static void write_store(struct text *text, const struct hl_status *s)
{
    gauge(text, "read_only", NULL, "Whether the mount is read-only.", s->read_only);
    gauge(text, "failed", NULL, "Whether appends are refused until the store is mounted again.",
          s->failed != 0);
    gauge(text, "sessions", NULL, "Sessions that there are.", s->sessions);
    gauge(text, "records", NULL, "Records that there are.", s->records);
    gauge(text, "line_bytes", "bytes", "Size of the log of all records.", s->bytes);
    counter(text, "appends", NULL, "Batches appended since the mount.", s->appends);
    gauge(text, "segments", NULL, "Segment files.", s->segments);
    gauge(text, "log_bytes", "bytes", "Size of the segment files.", s->log_bytes);
    gauge(text, "index_bytes", "bytes", "Size of the index.", s->index_bytes);
    gauge(text, "memtable_bytes", "bytes", "Memory for what is not in the index yet.",
          s->memtable_bytes);
    gauge(text, "memtable_records", NULL, "Records that are not in the index yet.",
          s->memtable_records);
    write_syncs(text, s);
    counter(text, "flushes", NULL, "Moves of the memtable into the index since the mount.",
            s->flushes);
    counter(text, "checkpoints", NULL, "Copies of the index made since the mount.", s->checkpoints);
    counter(text, "damage", NULL, "Damaged places met since the mount.", s->damage_found);
    gauge(text, "quarantined_bytes", "bytes", "Bytes set aside when the store was mounted.",
          s->quarantined_bytes);
    gauge(text, "recovered_records", NULL, "Records replayed when the store was mounted.",
          s->recovered_records);
    seconds(text, "recovery_seconds", "How long opening the store took.", s->recovery_ms);
}

static void write_compaction(struct text *text, const struct hl_status *s)
{
    counter(text, "drops", NULL, "Trims and deletes since the mount.", s->drops);
    gauge(text, "dead_bytes", "bytes", "Bytes of sealed segments that compaction would free.",
          s->dead_bytes);
    gauge(text, "backup_bytes", "bytes", "Size of the segments that compaction replaced.",
          s->backup_bytes);
    counter(text, "compactions", NULL, "Compactions that ended well since the mount.",
            s->compactions);
    counter(text, "freed_bytes", "bytes", "Bytes of log that compactions freed since the mount.",
            s->freed_bytes);
    gauge(text, "compacting", NULL, "Whether a compaction is under way.", s->compacting);
    gauge(text, "compaction_failed", NULL, "Whether the last compaction failed.",
          s->compact_error != 0);
    seconds(text, "compaction_timestamp_seconds", "When the last compaction ended, 0 for never.",
            s->compact_last_ms);
    gauge(text, "retain_suspended", NULL, "Whether the clock keeps rules of retain from dropping.",
          s->retain_suspended);
}

static void write_mount(struct fs *fs, struct text *text)
{
    struct announcer_counts news;

    announcer_counts(fs->announcer, &news);
    seconds(text, "start_timestamp_seconds", "When the mount began.", fs->started_ms);
    family(text, "refused_writes", "counter", NULL, "Writes refused since the mount, by errno.");
    for (int code = 0; code < FS_ERRNO_MAX; code++) {
        uint64_t count = atomic_load(&fs->refused[code]);
        const char *name = code ? fs_errno_name(code) : "UNKNOWN";
        if (count > 0)
            labelled(text, "refused_writes_total", "errno", name, strlen(name), count);
    }
    gauge(text, "followers", NULL, "Open follow files.", follow_count(fs->follow));
    counter(text, "announcements", NULL, "Changes told to inotify since the mount.", news.told);
    counter(text, "announcements_skipped", NULL, "Changes not told to inotify since the mount.",
            news.skipped);
    gauge(text, "announcements_waiting", NULL, "Changes that inotify is still to be told.",
          news.waiting);
}

/* ---- sums ---- */

enum counted { EVENTS, ERRORS, CALLS };

static void write_names(struct text *text, const char *name, const char *label, const char *help,
                        const struct hl_usage_of *names, size_t count, enum counted what)
{
    family(text, name, "gauge", NULL, help);
    for (size_t i = 0; i < count; i++) {
        const struct hl_usage *usage = &names[i].usage;
        labelled(text, name, label, names[i].name, names[i].name_len,
                 what == EVENTS   ? usage->events
                 : what == ERRORS ? usage->errors
                                  : usage->calls);
    }
}

static void write_cost(struct text *text, int64_t cost_e6)
{
    uint64_t size = cost_e6 < 0 ? -(uint64_t)cost_e6 : (uint64_t)cost_e6;

    family(text, "cost_usd", "gauge", NULL, "Cost that the events gave, in US dollars.");
    text_format(text, PREFIX "cost_usd %s%" PRIu64 ".%06u\n", cost_e6 < 0 ? "-" : "",
                size / 1000000, (unsigned)(size % 1000000));
}

static void write_tokens(struct text *text, const struct hl_usage *usage)
{
    const struct {
        const char *type;
        uint64_t count;
    } tokens[] = {
        {"in", usage->tokens_in},
        {"out", usage->tokens_out},
        {"reasoning", usage->reasoning_tokens},
        {"cache_read", usage->cache_read_tokens},
        {"cache_creation", usage->cache_creation_tokens},
    };

    family(text, "tokens", "gauge", NULL, "Tokens that the events gave.");
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++)
        labelled(text, "tokens", "type", tokens[i].type, strlen(tokens[i].type), tokens[i].count);
}

static void write_tools(struct text *text, const struct hl_sums *sums)
{
    write_names(text, "tool_events", "tool", "Events that name a tool.", sums->tools,
                sums->tool_count, EVENTS);
    write_names(text, "tool_calls", "tool", "Calls by tool.", sums->tools, sums->tool_count, CALLS);
    write_names(text, "tool_errors", "tool", "Events of kind Error by tool.", sums->tools,
                sums->tool_count, ERRORS);
}

/* No counters: a session that is deleted is taken out of them. */
static void write_sums(struct text *text, const struct hl_sums *sums, bool whole)
{
    const char *events = "Events ever appended to the sessions there are, by kind.";

    if (whole)
        write_names(text, "events", "kind", events, sums->kinds, sums->kind_count, EVENTS);
    else
        gauge(text, "events", NULL, events, sums->total.events);
    gauge(text, "event_errors", NULL, "Events of kind Error among them.", sums->total.errors);
    gauge(text, "calls", NULL, "Calls of tools, each tool_call_id of a session once.",
          sums->total.calls);
    if (whole)
        write_tools(text, sums);
    write_tokens(text, &sums->total);
    write_cost(text, sums->total.cost_usd_e6);
}

int metrics_make(struct fs *fs, bool whole, struct text *text)
{
    struct hl_status status;
    struct hl_sums *sums;

    int result = hl_store_status(fs->store, &status);
    if (result == 0)
        result = hl_sums(fs->store, 0, &sums);
    if (result < 0)
        return result;
    family(text, "build", "gauge", NULL, "Always 1; says which version runs.");
    labelled(text, "build", "version", HL_VERSION, strlen(HL_VERSION), 1);
    write_mount(fs, text);
    write_store(text, &status);
    write_compaction(text, &status);
    write_sums(text, sums, whole);
    free(sums);
    text_format(text, "# EOF\n");
    return 0;
}
