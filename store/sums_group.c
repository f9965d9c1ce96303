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
        *group = (struct sums_group){
            .first = *usage, .first_ts_ms = usage->ts_ms, .last_ts_ms = usage->ts_ms};
        groups->count++;
    }
    if (usage->ts_ms < group->first_ts_ms)
        group->first_ts_ms = usage->ts_ms;
    if (usage->ts_ms > group->last_ts_ms)
        group->last_ts_ms = usage->ts_ms;
    group->usage.events++;
    group->usage.tokens_in += usage->tokens_in;
    group->usage.tokens_out += usage->tokens_out;
    group->usage.reasoning_tokens += usage->reasoning_tokens;
    group->usage.cache_read_tokens += usage->cache_read_tokens;
    group->usage.cache_creation_tokens += usage->cache_creation_tokens;
    group->usage.cost_usd_e6 += usage->cost_usd_e6;
    return true;
}
