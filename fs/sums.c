/* sums.c - what the events of a session, or of all, come to, as meta and .status show it. */
#include "fs_internal.h"

#include <errno.h>
#include <stdlib.h>

/* Of a name only what is not 0, but for the number of events, so that it is a short line. */
static void write_usage(struct json_writer *writer, const struct hl_usage *usage, bool whole)
{
    const struct {
        const char *key;
        uint64_t value;
    } counters[] = {
        {"errors", usage->errors},
        {"calls", usage->calls},
        {"tokens_in", usage->tokens_in},
        {"tokens_out", usage->tokens_out},
        {"reasoning_tokens", usage->reasoning_tokens},
        {"cache_read_tokens", usage->cache_read_tokens},
        {"cache_creation_tokens", usage->cache_creation_tokens},
    };
    json_number(writer, "events", usage->events);
    for (size_t i = 0; i < sizeof counters / sizeof counters[0]; i++)
        if (whole || counters[i].value != 0)
            json_number(writer, counters[i].key, counters[i].value);
    if (whole || usage->cost_usd_e6 != 0)
        json_signed(writer, "cost_usd_e6", usage->cost_usd_e6);
}

static void write_names(struct json_writer *writer, const char *key,
                        const struct hl_usage_of *names, size_t count)
{
    json_open(writer, key, '{');
    for (size_t i = 0; i < count; i++) {
        bool pretty = writer->pretty;
        json_open_named(writer, names[i].name, names[i].name_len);
        writer->pretty = false;
        write_usage(writer, &names[i].usage, false);
        json_close(writer, '}');
        writer->pretty = pretty;
    }
    json_close(writer, '}');
}

int sums_write(struct fs *fs, uint32_t session, bool whole, struct json_writer *writer)
{
    struct hl_sums *sums;
    int result = hl_sums(fs->store, session, &sums);
    if (result < 0)
        return result;
    json_open(writer, "sums", '{');
    write_usage(writer, &sums->total, true);
    if (sums->total.events > 0) {
        json_number(writer, "first_ts_ms", sums->first_ts_ms);
        json_number(writer, "last_ts_ms", sums->last_ts_ms);
    } else {
        json_null(writer, "first_ts_ms");
        json_null(writer, "last_ts_ms");
    }
    if (whole) {
        write_names(writer, "by_kind", sums->kinds, sums->kind_count);
        write_names(writer, "by_tool", sums->tools, sums->tool_count);
    } else {
        json_null(writer, "by_kind");
        json_null(writer, "by_tool");
    }
    json_close(writer, '}');
    free(sums);
    return 0;
}
