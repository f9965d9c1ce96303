/* sums.c - adding events up; see sums.h. */
#include "sums.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- names ---- */

static uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint64_t sums_hash(const void *bytes, size_t len)
{
    const uint64_t odd = UINT64_C(0x9e3779b97f4a7c15), other = UINT64_C(0xd1342543de82ef95);
    const char *at = bytes;
    uint64_t hash = other ^ len, word;
    size_t left = len;
    for (; left >= sizeof word; left -= sizeof word, at += sizeof word) {
        memcpy(&word, at, sizeof word);
        hash = fold(hash ^ le64toh(word), odd) + other;
    }
    word = 0;
    if (left > 0)
        memcpy(&word, at, left);
    return fold(fold(hash ^ le64toh(word), odd) + other, other);
}

int sums_list_find(const struct sums_list *list, uint32_t max, const char *name, size_t len)
{
    bool other = len > SUMS_NAME_MAX;
    for (;;) {
        if (other) {
            name = SUMS_OTHER;
            len = sizeof SUMS_OTHER - 1;
        }
        for (uint32_t i = 0; i < list->count; i++) {
            const struct sums_name *known = &list->at[i];
            if (known->len == len && known->name[0] == name[0] &&
                memcmp(known->name, name, len) == 0)
                return (int)i;
        }
        if (other || list->count < max)
            return -ENOENT;
        other = true;
    }
}

static int list_add(struct sums_list *list, const char *name, size_t len)
{
    if (list->count == list->capacity) {
        uint32_t capacity = list->capacity ? list->capacity * 2 : 1;
        struct sums_name *more = realloc(list->at, capacity * sizeof *more);
        if (!more)
            return -ENOMEM;
        list->at = more;
        list->capacity = capacity;
    }
    char *copy = malloc(len + 1);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, name, len);
    copy[len] = 0;
    list->at[list->count] = (struct sums_name){.name = copy, .len = (uint8_t)len};
    return (int)list->count++;
}

int sums_list_place(struct sums_list *list, uint32_t max, const char *name, size_t len)
{
    int place = sums_list_find(list, max, name, len);
    if (place != -ENOENT)
        return place;
    if (len > SUMS_NAME_MAX || list->count >= max)
        return list_add(list, SUMS_OTHER, sizeof SUMS_OTHER - 1);
    return list_add(list, name, len);
}

void sums_list_cut(struct sums_list *list, uint32_t count)
{
    while (list->count > count)
        free(list->at[--list->count].name);
}

/* ---- the whole ---- */

struct sums *sums_new(void)
{
    return calloc(1, sizeof(struct sums));
}

void sums_clear(struct sums *sums)
{
    sums_list_cut(&sums->kinds, 0);
    sums_list_cut(&sums->tools, 0);
    free(sums->kinds.at);
    free(sums->tools.at);
    free(sums->calls);
    *sums = (struct sums){0};
}

void sums_free(struct sums *sums)
{
    if (sums)
        sums_clear(sums);
    free(sums);
}

static int list_copy(const struct sums_list *from, struct sums_list *to)
{
    for (uint32_t i = 0; i < from->count; i++) {
        const struct sums_name *name = &from->at[i];
        int place = list_add(to, name->name, name->len);
        if (place < 0)
            return place;
        to->at[place].usage = name->usage;
        to->at[place].all = name->all;
    }
    return 0;
}

int sums_copy(const struct sums *sums, struct sums **copy)
{
    struct sums *made = sums_new();
    int error = made ? 0 : -ENOMEM;
    if (error == 0) {
        made->total = sums->total;
        made->first_ts_ms = sums->first_ts_ms;
        made->last_ts_ms = sums->last_ts_ms;
        made->position = sums->position;
        error = list_copy(&sums->kinds, &made->kinds);
    }
    if (error == 0)
        error = list_copy(&sums->tools, &made->tools);
    if (error < 0) {
        sums_free(made);
        made = NULL;
    }
    *copy = made;
    return error;
}

size_t sums_bytes(const struct sums *sums)
{
    const size_t allocation = 32; /* of a name */
    return sizeof *sums + (sums->kinds.capacity + sums->tools.capacity) * sizeof(struct sums_name) +
           (sums->kinds.count + sums->tools.count) * allocation;
}

bool sums_empty(const struct sums *sums)
{
    return sums->total.events == 0 && sums->call_count == 0;
}

/* ---- adding ---- */

static int64_t add_cost(int64_t a, int64_t b)
{
    int64_t sum;
    if (!__builtin_add_overflow(a, b, &sum))
        return sum;
    return a < 0 ? INT64_MIN : INT64_MAX;
}

void sums_usage_add(struct hl_usage *to, const struct hl_usage *usage)
{
    to->events += usage->events;
    to->errors += usage->errors;
    to->calls += usage->calls;
    to->tokens_in += usage->tokens_in;
    to->tokens_out += usage->tokens_out;
    to->reasoning_tokens += usage->reasoning_tokens;
    to->cache_read_tokens += usage->cache_read_tokens;
    to->cache_creation_tokens += usage->cache_creation_tokens;
    to->cost_usd_e6 = add_cost(to->cost_usd_e6, usage->cost_usd_e6);
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static void usage_subtract(struct hl_usage *from, const struct hl_usage *usage)
{
    from->events = less(from->events, usage->events);
    from->errors = less(from->errors, usage->errors);
    from->calls = less(from->calls, usage->calls);
    from->tokens_in = less(from->tokens_in, usage->tokens_in);
    from->tokens_out = less(from->tokens_out, usage->tokens_out);
    from->reasoning_tokens = less(from->reasoning_tokens, usage->reasoning_tokens);
    from->cache_read_tokens = less(from->cache_read_tokens, usage->cache_read_tokens);
    from->cache_creation_tokens = less(from->cache_creation_tokens, usage->cache_creation_tokens);
    int64_t cost = usage->cost_usd_e6;
    from->cost_usd_e6 = add_cost(from->cost_usd_e6, cost == INT64_MIN ? INT64_MAX : -cost);
}

static bool is_kind(const struct sums_event *event, const char *kind)
{
    return event->kind_len == strlen(kind) && memcmp(event->kind, kind, event->kind_len) == 0;
}

bool sums_is_call(const struct sums_event *event)
{
    return event->call == 0 && is_kind(event, "ToolCall");
}

struct hl_usage sums_event_usage(const struct sums_event *event, bool call)
{
    return (struct hl_usage){
        .events = 1,
        .errors = is_kind(event, "Error"),
        .calls = call,
        .tokens_in = event->tokens_in,
        .tokens_out = event->tokens_out,
        .reasoning_tokens = event->reasoning_tokens,
        .cache_read_tokens = event->cache_read_tokens,
        .cache_creation_tokens = event->cache_creation_tokens,
        .cost_usd_e6 = event->cost_usd_e6,
    };
}

static void add_times(struct sums *sums, uint64_t first, uint64_t last)
{
    if (sums->total.events == 0 || first < sums->first_ts_ms)
        sums->first_ts_ms = first;
    if (sums->total.events == 0 || last > sums->last_ts_ms)
        sums->last_ts_ms = last;
}

int sums_add(struct sums *sums, const struct sums_event *event, bool call)
{
    struct hl_usage usage = sums_event_usage(event, call);
    uint32_t kinds = sums->kinds.count;
    int kind = sums_list_place(&sums->kinds, SUMS_KINDS, event->kind, event->kind_len);
    if (kind < 0)
        return kind;
    if (event->tool_len > 0) {
        int tool = sums_list_place(&sums->tools, SUMS_TOOLS, event->tool, event->tool_len);
        if (tool < 0) {
            sums_list_cut(&sums->kinds, kinds);
            return tool;
        }
        sums_usage_add(&sums->tools.at[tool].usage, &usage);
    }
    add_times(sums, event->ts_ms, event->ts_ms);
    sums_usage_add(&sums->kinds.at[kind].usage, &usage);
    sums_usage_add(&sums->total, &usage);
    return 0;
}

static int list_merge(struct sums_list *list, uint32_t max, const struct sums_list *from)
{
    for (uint32_t i = 0; i < from->count; i++) {
        int place = sums_list_place(list, max, from->at[i].name, from->at[i].len);
        if (place < 0)
            return place;
        sums_usage_add(&list->at[place].usage, &from->at[i].usage);
    }
    return 0;
}

static void list_subtract(struct sums_list *list, uint32_t max, const struct sums_list *from)
{
    for (uint32_t i = 0; i < from->count; i++) {
        const struct sums_name *name = &from->at[i];
        int place = sums_list_find(list, max, name->name, name->len);
        if (place >= 0)
            usage_subtract(&list->at[place].usage, &name->usage);
    }
}

void sums_subtract(struct sums *all, const struct sums *sums)
{
    usage_subtract(&all->total, &sums->total);
    list_subtract(&all->kinds, SUMS_ALL_KINDS, &sums->kinds);
    list_subtract(&all->tools, SUMS_ALL_TOOLS, &sums->tools);
}

/* An id has one event that counts: none is pushed twice. */
static int push_call(struct sums *sums, uint64_t hash)
{
    if (sums->call_count == sums->call_capacity) {
        size_t capacity = sums->call_capacity ? sums->call_capacity * 2 : 4;
        uint64_t *more = realloc(sums->calls, capacity * sizeof *more);
        if (!more)
            return -ENOMEM;
        sums->calls = more;
        sums->call_capacity = capacity;
    }
    sums->calls[sums->call_count++] = hash;
    return 0;
}

int sums_merge(struct sums *sums, const struct sums *from)
{
    int error = list_merge(&sums->kinds, SUMS_KINDS, &from->kinds);
    if (error == 0)
        error = list_merge(&sums->tools, SUMS_TOOLS, &from->tools);
    for (size_t i = 0; i < from->call_count && error == 0; i++)
        error = push_call(sums, from->calls[i]);
    if (error < 0)
        return error;
    if (from->total.events > 0)
        add_times(sums, from->first_ts_ms, from->last_ts_ms);
    sums_usage_add(&sums->total, &from->total);
    return 0;
}

int sums_drop_line(struct index_view *view, uint32_t session, uint64_t seq, const char *line,
                   size_t len, struct sums *carried)
{
    struct sums_event event;
    struct index_call call = {0};
    if (!sums_event_read(line, len, &event))
        return 0; /* a replay counts nothing for it either */
    bool counts = sums_is_call(&event);
    if (event.call != 0) {
        int error = index_call_get(view, session, event.call, &call);
        if (error < 0 && error != -ENOENT)
            return error;
        counts = error == -ENOENT || call.first == seq;
        if (counts && push_call(carried, event.call) < 0)
            return -ENOMEM;
    }
    return sums_add(carried, &event, counts);
}

int sums_forget_calls(struct index_view *view, uint32_t session, uint64_t below,
                      struct sums *carried)
{
    size_t count = carried->call_count, kept = 0;
    for (size_t i = 0; i < count; i++) {
        size_t left = kept + (count - i);
        struct index_call call = {0};
        int error = 0;
        bool forget = left > SUMS_CALLS_MAX;
        if (!forget && left > SUMS_CALLS_KEPT) {
            error = index_call_get(view, session, carried->calls[i], &call);
            forget = error == -ENOENT || (error == 0 && call.last < below);
        }
        if (error < 0 && error != -ENOENT)
            return error;
        if (!forget)
            carried->calls[kept++] = carried->calls[i];
    }
    carried->call_count = kept;
    return 0;
}
