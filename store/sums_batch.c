/*
 * sums_batch.c - see sums_batch.h.
 *
 * A stage has parts by the places of kinds and tools in the lists of its session. A name that is
 * new gets its place at once, with nothing counted, which no reader shows; taking a batch back
 * takes the place away.
 */
#include "sums_batch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mem_calls.h"

#define STAGES_KEPT 1024U /* between batches; each may be a KiB */

struct stage_part {
    struct hl_usage usage;
    uint32_t place;
};

struct stage_parts {
    struct stage_part *at;
    uint32_t count, capacity;
};

struct sums_stage {
    struct mem_session *session;
    enum sums_whom whom;
    struct hl_usage total;
    uint64_t first_ts_ms, last_ts_ms; /* if total.events is not 0 */
    struct stage_parts kinds, tools;
    uint32_t kinds_before, tools_before, calls_before; /* in the session */
};

static void stage_free(struct sums_stage *stage)
{
    free(stage->kinds.at);
    free(stage->tools.at);
}

void sums_stages_free(struct sums_stages *stages)
{
    for (size_t i = 0; i < stages->made; i++)
        stage_free(&stages->at[i]);
    free(stages->at);
    *stages = (struct sums_stages){0};
}

void sums_begin(struct hl_store *store)
{
    struct sums_stages *stages = &store->stages;
    stages->count = 0;
    if (stages->made <= STAGES_KEPT)
        return;
    while (stages->made > STAGES_KEPT)
        stage_free(&stages->at[--stages->made]);
    struct sums_stage *less = realloc(stages->at, stages->made * sizeof *less);
    if (less) {
        stages->at = less;
        stages->capacity = stages->made;
    }
}

enum sums_whom sums_whom(const struct mem_session *session, uint64_t position)
{
    return session->sums && position < session->sums->position ? SUMS_FOR_STORE_ONLY
                                                               : SUMS_FOR_SESSION;
}

/* ---- stages ---- */

static int add_stage(struct sums_stages *stages, struct sums_stage **stage)
{
    if (stages->count == stages->capacity) {
        size_t capacity = stages->capacity ? stages->capacity * 2 : 8;
        struct sums_stage *more = realloc(stages->at, capacity * sizeof *more);
        if (!more)
            return -ENOMEM;
        stages->at = more;
        stages->capacity = capacity;
    }
    if (stages->count == stages->made)
        stages->at[stages->made++] = (struct sums_stage){.session = NULL};
    *stage = &stages->at[stages->count++];
    (*stage)->kinds.count = (*stage)->tools.count = 0;
    (*stage)->total = (struct hl_usage){0};
    return 0;
}

/* The session's stage in this batch, made if there is none yet. */
static int find_stage(struct hl_store *store, struct mem_session *session, enum sums_whom whom,
                      struct sums_stage **stage)
{
    if (session->stage_batch != store->batch) {
        session->stage_batch = store->batch;
        memset(session->stage, 0, sizeof session->stage);
    }
    uint32_t place = session->stage[whom];
    if (place > 0) {
        *stage = &store->stages.at[place - 1];
        return 0;
    }
    if (!session->sums) {
        struct sums *sums = sums_new();
        if (!sums)
            return -ENOMEM;
        pthread_rwlock_wrlock(&store->mem_lock);
        session->sums = sums;
        store->table->bytes += sums_bytes(sums);
        pthread_rwlock_unlock(&store->mem_lock);
    }
    int error = add_stage(&store->stages, stage);
    if (error < 0)
        return error;
    session->stage[whom] = (uint32_t)store->stages.count;
    (*stage)->session = session;
    (*stage)->whom = whom;
    (*stage)->kinds_before = session->sums->kinds.count;
    (*stage)->tools_before = session->sums->tools.count;
    (*stage)->calls_before = session->calls ? session->calls->count : 0;
    return 0;
}

/* The place of a name in a list of the session, whose readers must not meet it while it grows. */
static int place_name(struct hl_store *store, struct mem_session *session, struct sums_list *list,
                      uint32_t max, const char *name, size_t len)
{
    int place = sums_list_find(list, max, name, len);
    if (place != -ENOENT)
        return place;
    pthread_rwlock_wrlock(&store->mem_lock);
    size_t before = sums_bytes(session->sums);
    place = sums_list_place(list, max, name, len);
    store->table->bytes += sums_bytes(session->sums) - before;
    pthread_rwlock_unlock(&store->mem_lock);
    return place;
}

static int add_part(struct stage_parts *parts, int place, const struct hl_usage *usage)
{
    if (place < 0)
        return place;
    for (uint32_t i = 0; i < parts->count; i++) {
        if (parts->at[i].place == (uint32_t)place) {
            sums_usage_add(&parts->at[i].usage, usage);
            return 0;
        }
    }
    if (parts->count == parts->capacity) {
        uint32_t capacity = parts->capacity ? parts->capacity * 2 : 4;
        struct stage_part *more = realloc(parts->at, capacity * sizeof *more);
        if (!more)
            return -ENOMEM;
        parts->at = more;
        parts->capacity = capacity;
    }
    parts->at[parts->count++] = (struct stage_part){.place = (uint32_t)place, .usage = *usage};
    return 0;
}

static void add_total(struct sums_stage *stage, const struct hl_usage *usage, uint64_t first,
                      uint64_t last)
{
    if (stage->total.events == 0 || first < stage->first_ts_ms)
        stage->first_ts_ms = first;
    if (stage->total.events == 0 || last > stage->last_ts_ms)
        stage->last_ts_ms = last;
    sums_usage_add(&stage->total, usage);
}

/* ---- calls ---- */

/* What is known of an id, in the tables or in the index. -ENOENT. */
static int find_call(struct hl_store *store, const struct mem_session *session, uint64_t hash,
                     struct index_call *call)
{
    const struct mem_session *older =
        store->frozen ? memtable_by_number(store->frozen, session->row.number) : NULL;
    const struct index_call *known =
        older && older->calls ? mem_calls_find(older->calls, hash) : NULL;
    if (known) {
        *call = *known;
        return 0;
    }
    if (!session->older_calls)
        return -ENOENT;
    struct index_view *view;
    int error = lookup_view(store, &view);
    if (error < 0)
        return error;
    error = index_call_get(view, session->row.number, hash, call);
    return lookup_view_end(store, view, error);
}

/* Notes that an event of this seq has the id. *counts: it is the first that has. */
static int note_call(struct hl_store *store, struct mem_session *session, uint64_t hash,
                     uint64_t seq, bool *counts)
{
    if (!session->calls) {
        session->calls = calloc(1, sizeof *session->calls);
        if (!session->calls)
            return -ENOMEM;
    }
    struct index_call *known = mem_calls_find(session->calls, hash);
    if (known) {
        *counts = known->first == seq;
        /* It may stay so if the batch fails: the last seq only says how long to remember the id. */
        if (known->last < seq)
            known->last = seq;
        return 0;
    }
    struct index_call call = {.hash = hash, .first = seq, .last = seq};
    int error = find_call(store, session, hash, &call);
    if (error < 0 && error != -ENOENT)
        return error;
    *counts = call.first == seq;
    if (error == 0 && call.last >= seq)
        return 0;
    call.last = seq;
    return mem_calls_add(session->calls, &call);
}

/* ---- staging ---- */

static int stage_names(struct hl_store *store, struct sums_stage *stage,
                       const struct sums_event *event, const struct hl_usage *usage)
{
    struct mem_session *session = stage->session;
    struct sums *sums = session->sums;
    int error = add_part(
        &stage->kinds,
        place_name(store, session, &sums->kinds, SUMS_KINDS, event->kind, event->kind_len), usage);
    if (error == 0 && event->tool_len > 0)
        error = add_part(
            &stage->tools,
            place_name(store, session, &sums->tools, SUMS_TOOLS, event->tool, event->tool_len),
            usage);
    return error;
}

int sums_stage(struct hl_store *store, struct mem_session *session, enum sums_whom whom,
               uint64_t seq, const struct sums_event *event)
{
    struct sums_stage *stage;
    bool call = sums_is_call(event);
    int error = find_stage(store, session, whom, &stage);
    if (error == 0 && event->call != 0)
        error = note_call(store, session, event->call, seq, &call);
    if (error < 0)
        return error;
    struct hl_usage usage = sums_event_usage(event, call);
    add_total(stage, &usage, event->ts_ms, event->ts_ms);
    return stage_names(store, stage, event, &usage);
}

int sums_stage_groups(struct hl_store *store, struct mem_session *session,
                      const struct sums_groups *groups)
{
    struct sums_stage *stage;
    int error = find_stage(store, session, SUMS_FOR_SESSION, &stage);
    for (uint32_t i = 0; i < groups->count && error == 0; i++) {
        const struct sums_group *group = &groups->at[i];
        struct sums_event event;
        if (group->packed)
            sums_event_unpack(group->packed, &event);
        else
            sums_event_from(&group->first, &event);
        struct hl_usage usage = sums_event_usage(&event, sums_is_call(&event));
        bool errors = usage.errors > 0, calls = usage.calls > 0;
        usage = group->usage;
        usage.errors = errors ? usage.events : 0;
        usage.calls = calls ? usage.events : 0;
        add_total(stage, &usage, group->first_ts_ms, group->last_ts_ms);
        error = stage_names(store, stage, &event, &usage);
    }
    return error;
}

static int stage_list(struct hl_store *store, struct mem_session *session, struct sums_list *list,
                      uint32_t max, struct stage_parts *parts, const struct sums_list *from)
{
    int error = 0;
    for (uint32_t i = 0; i < from->count && error == 0; i++)
        error = add_part(parts,
                         place_name(store, session, list, max, from->at[i].name, from->at[i].len),
                         &from->at[i].usage);
    return error;
}

int sums_stage_carried(struct hl_store *store, struct mem_session *session, enum sums_whom whom,
                       const struct sums *carried)
{
    struct sums_stage *stage;
    int error = find_stage(store, session, whom, &stage);
    if (error < 0)
        return error;
    struct sums *sums = session->sums;
    if (carried->total.events > 0)
        add_total(stage, &carried->total, carried->first_ts_ms, carried->last_ts_ms);
    error = stage_list(store, session, &sums->kinds, SUMS_KINDS, &stage->kinds, &carried->kinds);
    if (error == 0)
        error =
            stage_list(store, session, &sums->tools, SUMS_TOOLS, &stage->tools, &carried->tools);
    /* No event that is left is before the one that counted: as seq 0 it is before them all. */
    for (size_t i = 0; i < carried->call_count && error == 0; i++) {
        bool counts;
        error = note_call(store, session, carried->calls[i], 0, &counts);
    }
    return error;
}

/* ---- the end of a batch ---- */

/* Adds parts to the lists of the session and of the store. Where there is no memory for a new name
 * in the store's, which is no reason to refuse what is written already, it is missing there. */
static void publish_parts(const struct sums_stage *stage, const struct stage_parts *parts,
                          struct sums_list *list, struct sums_list *all, uint32_t all_max)
{
    for (uint32_t i = 0; i < parts->count; i++) {
        struct sums_name *name = &list->at[parts->at[i].place];
        if (stage->whom == SUMS_FOR_SESSION)
            sums_usage_add(&name->usage, &parts->at[i].usage);
        if (name->all == 0) {
            int place = sums_list_place(all, all_max, name->name, name->len);
            name->all = place < 0 ? 0 : (uint16_t)(place + 1);
        }
        if (name->all > 0)
            sums_usage_add(&all->at[name->all - 1].usage, &parts->at[i].usage);
    }
}

static void publish_total(struct sums *sums, const struct sums_stage *stage)
{
    if (stage->total.events == 0)
        return;
    if (sums->total.events == 0 || stage->first_ts_ms < sums->first_ts_ms)
        sums->first_ts_ms = stage->first_ts_ms;
    if (sums->total.events == 0 || stage->last_ts_ms > sums->last_ts_ms)
        sums->last_ts_ms = stage->last_ts_ms;
    sums_usage_add(&sums->total, &stage->total);
}

void sums_publish(struct hl_store *store)
{
    for (size_t i = 0; i < store->stages.count; i++) {
        const struct sums_stage *stage = &store->stages.at[i];
        struct mem_session *session = stage->session;
        struct sums *sums = session->sums;
        if (stage->whom == SUMS_FOR_SESSION)
            publish_total(sums, stage);
        publish_total(&store->sums, stage);
        publish_parts(stage, &stage->kinds, &sums->kinds, &store->sums.kinds, SUMS_ALL_KINDS);
        publish_parts(stage, &stage->tools, &sums->tools, &store->sums.tools, SUMS_ALL_TOOLS);
        if (session->calls) {
            size_t bytes = mem_calls_bytes(session->calls);
            store->table->bytes += bytes - session->calls_bytes;
            session->calls_bytes = bytes;
        }
    }
    store->stages.count = 0;
}

void sums_take_back(struct hl_store *store)
{
    for (size_t i = store->stages.count; i > 0; i--) {
        const struct sums_stage *stage = &store->stages.at[i - 1];
        struct mem_session *session = stage->session;
        size_t before = sums_bytes(session->sums);
        sums_list_cut(&session->sums->kinds, stage->kinds_before);
        sums_list_cut(&session->sums->tools, stage->tools_before);
        store->table->bytes -= before - sums_bytes(session->sums);
        if (session->calls)
            mem_calls_cut(session->calls, stage->calls_before);
    }
    store->stages.count = 0;
}

/* ---- bringing them along ---- */

int sums_of_older(const struct mem_session *older, struct sums **sums)
{
    *sums = NULL;
    return older->sums ? sums_copy(older->sums, sums) : 0;
}

int sums_of_index(struct index_view *view, uint32_t session, struct sums **sums)
{
    struct sums *made = sums_new();
    *sums = NULL;
    if (!made)
        return -ENOMEM;
    int error = index_get_sums(view, session, made);
    if (error == 0) {
        *sums = made;
        return 0;
    }
    sums_free(made);
    return error == -ENOENT ? 0 : error;
}
