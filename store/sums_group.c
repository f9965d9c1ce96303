/* sums_group.c - events of a batch that say the same names, added up; see sums_batch.h. */
#include <string.h>

#include "sums_batch.h"

/* More than this of cost is added up event by event: a sum that is too large stops at its limit,
 * and must do so at the same event whichever way it is reached. */
#define COST_MAX (INT64_C(1) << 32)

static bool same_span(struct json_span a, struct json_span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}

static bool same_names(const struct line_usage *a, const struct line_usage *b)
{
    return a->kind_escaped == b->kind_escaped && a->tool_escaped == b->tool_escaped &&
           same_span(a->kind, b->kind) && same_span(a->tool, b->tool);
}

static inline void add_time(struct sums_group *group, uint64_t ts_ms)
{
    if (ts_ms < group->first_ts_ms)
        group->first_ts_ms = ts_ms;
    if (ts_ms > group->last_ts_ms)
        group->last_ts_ms = ts_ms;
}

bool sums_groups_add(struct sums_groups *groups, const struct line_usage *usage)
{
    if (usage->call.len > 0 || usage->cost_usd_e6 > COST_MAX || usage->cost_usd_e6 < -COST_MAX)
        return false;
    uint32_t i = 0;
    while (i < groups->count && !same_names(&groups->at[i].first, usage))
        i++;
    struct sums_group *group = &groups->at[i];
    if (i == groups->count) {
        if (i == SUMS_GROUPS)
            return false;
        *group = (struct sums_group){.packed = NULL,
                                     .first = *usage,
                                     .first_ts_ms = usage->ts_ms,
                                     .last_ts_ms = usage->ts_ms};
        groups->count++;
    }
    add_time(group, usage->ts_ms);
    group->usage.events++;
    group->usage.tokens_in += usage->tokens_in;
    group->usage.tokens_out += usage->tokens_out;
    group->usage.reasoning_tokens += usage->reasoning_tokens;
    group->usage.cache_read_tokens += usage->cache_read_tokens;
    group->usage.cache_creation_tokens += usage->cache_creation_tokens;
    group->usage.cost_usd_e6 += usage->cost_usd_e6;
    return true;
}

#define NAMES offsetof(struct sums_event, kind)

static inline uint32_t load_u32(const uint8_t *packed, size_t at)
{
    uint32_t value;
    memcpy(&value, packed + at, sizeof value);
    return value;
}

static inline uint64_t load_u64(const uint8_t *packed, size_t at)
{
    uint64_t value;
    memcpy(&value, packed + at, sizeof value);
    return value;
}

#define LOAD_U32(packed, member) load_u32(packed, offsetof(struct sums_event, member))
#define LOAD_U64(packed, member) load_u64(packed, offsetof(struct sums_event, member))

/* Their lengths and their bytes stand one after another. */
static inline bool same_packed_names(const uint8_t *a, const uint8_t *b)
{
    size_t kind = offsetof(struct sums_event, kind_len),
           tool = offsetof(struct sums_event, tool_len);
    return a[kind] == b[kind] && a[tool] == b[tool] &&
           memcmp(a + NAMES, b + NAMES, (size_t)a[kind] + a[tool]) == 0;
}

bool sums_groups_add_packed(struct sums_groups *groups, const uint8_t *packed)
{
    int64_t cost = (int64_t)LOAD_U64(packed, cost_usd_e6);
    if (LOAD_U64(packed, call) != 0 || cost > COST_MAX || cost < -COST_MAX)
        return false;
    uint32_t i = 0;
    while (i < groups->count && !same_packed_names(groups->at[i].packed, packed))
        i++;
    struct sums_group *group = &groups->at[i];
    uint64_t ts_ms = LOAD_U64(packed, ts_ms);
    if (i == groups->count) {
        if (i == SUMS_GROUPS)
            return false;
        group->packed = packed;
        group->usage = (struct hl_usage){.events = 0};
        group->first_ts_ms = group->last_ts_ms = ts_ms;
        groups->count++;
    }
    add_time(group, ts_ms);
    group->usage.events++;
    group->usage.tokens_in += LOAD_U32(packed, tokens_in);
    group->usage.tokens_out += LOAD_U32(packed, tokens_out);
    group->usage.reasoning_tokens += LOAD_U32(packed, reasoning_tokens);
    group->usage.cache_read_tokens += LOAD_U32(packed, cache_read_tokens);
    group->usage.cache_creation_tokens += LOAD_U32(packed, cache_creation_tokens);
    group->usage.cost_usd_e6 += cost;
    return true;
}
