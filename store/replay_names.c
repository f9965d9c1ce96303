/* replay_names.c - whether an event names a kind or a tool that the store has not met; see
 * replay.h. */
#include "replay.h"

#include <errno.h>
#include <string.h>

#include "sums.h"

#define NAMES offsetof(struct sums_event, kind)
#define KIND_LEN offsetof(struct sums_event, kind_len)
#define TOOL_LEN offsetof(struct sums_event, tool_len)

static bool is_met(const struct sums_list *list, uint32_t max, const uint8_t *name, size_t len)
{
    return sums_list_find(list, max, (const char *)name, len) != -ENOENT;
}

bool replay_names_met(struct replay *replay, const uint8_t *packed)
{
    const struct sums *sums = &replay->store->sums;
    const uint8_t *name = packed + NAMES;
    size_t kind_len = packed[KIND_LEN], tool_len = packed[TOOL_LEN], len = kind_len + tool_len;
    /* Most events name what one shortly before them did. */
    struct replay_names *last = &replay->names[(name[0] + len) % REPLAY_NAMES];
    if (last->kind_len == kind_len && last->tool_len == tool_len &&
        memcmp(last->text, name, len) == 0)
        return true;
    if (!is_met(&sums->kinds, SUMS_ALL_KINDS, name, kind_len) ||
        (tool_len > 0 && !is_met(&sums->tools, SUMS_ALL_TOOLS, name + kind_len, tool_len)))
        return false;
    if (len <= sizeof last->text) {
        last->kind_len = (uint8_t)kind_len;
        last->tool_len = (uint8_t)tool_len;
        memcpy(last->text, name, len);
    }
    return true;
}
