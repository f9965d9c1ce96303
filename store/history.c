/* history.c - documents as they were: the versions of a slot, and the lines that made them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "documents.h"

#define GATHER 64U /* slots taken at a time for a list */

/* ---- as they were ---- */

/* Whether what was after the record `seq` can be told. */
static int check_seq(struct hl_store *store, uint32_t session, uint64_t seq)
{
    struct hl_session found;
    int error = hl_session_by_number(store, session, &found);
    if (error < 0)
        return error;
    return found.has_seq && seq <= found.last_seq && seq >= found.history_from ? 0 : -ENOENT;
}

static void fill(struct hl_document *document, const struct index_version *version)
{
    document->seq = version->source;
    document->changed = version->seq;
    document->set_ms = version->set_ms;
    document->offset = version->offset;
    document->length = version->length;
}

int hl_document_find_at(struct hl_store *store, uint32_t session, uint64_t seq, const char *key,
                        size_t len, struct hl_document *document)
{
    struct document_state state;
    struct document_query query = {
        .session = session, .area = HL_AREA_STATE, .key = key, .key_len = len, .limit = seq};
    int error = len == 0 || len > HL_KEY_MAX ? -ENOENT : check_seq(store, session, seq);
    if (error == 0)
        error = documents_state(store, &query, &state);
    if (error == 0 && (!state.has_version || !state.version.present))
        error = -ENOENT;
    if (error < 0)
        return error;
    *document = (struct hl_document){
        .number = state.number, .area = HL_AREA_STATE, .key_len = (uint16_t)len};
    memcpy(document->key, key, len);
    fill(document, &state.version);
    return 0;
}

/* ---- slots of state/, whether or not a document is there ---- */

struct slots {
    struct hl_document documents[GATHER]; /* only number, area and key */
    size_t count;
    uint64_t last; /* number of the last one looked at; UINT64_MAX: all were */
};

static void take_slot(struct slots *slots, uint64_t number, uint64_t area, const char *key,
                      size_t len)
{
    slots->last = number;
    if (area != HL_AREA_STATE)
        return;
    struct hl_document *document = &slots->documents[slots->count++];
    *document = (struct hl_document){.number = number, .area = area, .key_len = (uint16_t)len};
    memcpy(document->key, key, len);
}

/* The first slot above `after` that a table made. */
static const struct mem_slot *next_made(const struct memtable *table, uint32_t session,
                                        uint64_t after)
{
    const struct mem_session *part = memtable_part(table, session);
    const struct mem_slot *slot = part ? mem_slot_next(part, after) : NULL;
    while (slot && !slot->made)
        slot = slot->forward[0];
    return slot;
}

/* The tables' slots have higher numbers than the index's, and the active one's than the frozen
 * one's. So the index is asked first, and the tables where it ends; what was flushed meanwhile is
 * found by asking the index again, which is why the number of the first slot that a table made is
 * taken before. */
static int next_slots(struct hl_store *store, uint32_t session, uint64_t after, struct slots *slots)
{
    uint64_t below = UINT64_MAX; /* slots from here on are in a table */
    slots->count = 0;
    slots->last = after;
    pthread_rwlock_rdlock(&store->mem_lock);
    const struct memtable *tables[2] = {store->frozen, store->table};
    for (int i = 0; i < 2; i++) {
        const struct mem_slot *slot = next_made(tables[i], session, after);
        if (slot && below == UINT64_MAX)
            below = slot->number;
        for (; below == after + 1 && slot && slots->count < GATHER; slot = slot->forward[0])
            if (slot->made && slot->number == slots->last + 1)
                take_slot(slots, slot->number, slot->area, slot->key, slot->key_len);
    }
    pthread_rwlock_unlock(&store->mem_lock);
    if (below == after + 1)
        return 0;
    struct index_view *view;
    int error = lookup_view_of(store, session, &view);
    if (error < 0 && error != -ENOENT)
        return error;
    bool open = error == 0;
    while (error == 0 && slots->count < GATHER) {
        struct index_slot slot;
        error = index_slot_next(view, session, slots->last, &slot);
        if (error == 0 && slot.number >= below)
            error = -ENOENT;
        if (error == 0)
            take_slot(slots, slot.number, slot.area, slot.key, slot.key_len);
    }
    if (open)
        error = lookup_view_end(store, view, error);
    if (error < 0 && error != -ENOENT)
        return error;
    if (error == -ENOENT)
        slots->last = below == UINT64_MAX ? UINT64_MAX : below - 1;
    return 0;
}

/* Calls each() for slots of state/ that use() says yes to, which may complete the document. */
struct slot_walk {
    int (*use)(struct hl_store *store, uint32_t session, void *context,
               struct hl_document *document); /* 1, 0 or an error */
    void *use_context;
    hl_document_each *each;
    void *each_context;
};

static int walk_slots(struct hl_store *store, uint32_t session, uint64_t after,
                      const struct slot_walk *walk)
{
    struct slots *slots = malloc(sizeof *slots);
    if (!slots)
        return -ENOMEM;
    int error = 0;
    bool more = true;
    while (error == 0 && more && after != UINT64_MAX) {
        error = next_slots(store, session, after, slots);
        after = slots->last;
        for (size_t i = 0; error == 0 && more && i < slots->count; i++) {
            int used = walk->use(store, session, walk->use_context, &slots->documents[i]);
            if (used < 0)
                error = used;
            else if (used)
                more = walk->each(walk->each_context, &slots->documents[i]);
        }
    }
    free(slots);
    return error;
}

static int use_at(struct hl_store *store, uint32_t session, void *context,
                  struct hl_document *document)
{
    struct document_state state;
    struct document_query query = {
        .session = session, .number = document->number, .limit = *(const uint64_t *)context};
    int error = documents_state(store, &query, &state);
    if (error < 0)
        return error == -ENOENT ? 0 : error;
    if (!state.has_version || !state.version.present)
        return 0;
    fill(document, &state.version);
    return 1;
}

int hl_document_list_at(struct hl_store *store, uint32_t session, uint64_t seq, uint64_t after,
                        hl_document_each *each, void *context)
{
    struct slot_walk walk = {use_at, &seq, each, context};
    int error = check_seq(store, session, seq);
    return error < 0 ? error : walk_slots(store, session, after, &walk);
}

/* ---- histories ---- */

/* The slot's first version with a seq >= from. It is looked for in the tables first: what leaves
 * them meanwhile is in the index then. */
static int version_from(struct hl_store *store, uint32_t session, uint64_t number, uint64_t from,
                        struct index_version *version)
{
    bool found = false;
    pthread_rwlock_rdlock(&store->mem_lock);
    const struct memtable *tables[2] = {store->frozen, store->table};
    for (int i = 0; i < 2 && !found; i++) {
        const struct mem_session *part = memtable_part(tables[i], session);
        const struct mem_slot *slot =
            part && !part->hidden ? mem_slot_by_number(part, number) : NULL;
        const struct index_version *first = slot ? mem_slot_version_from(slot, from) : NULL;
        found = first && part->row.has_seq && first->seq <= part->row.last_seq;
        if (found)
            *version = *first;
    }
    pthread_rwlock_unlock(&store->mem_lock);
    struct index_view *view;
    struct index_version indexed;
    int error = lookup_view_of(store, session, &view);
    if (error == 0) {
        error = index_version_from(view, session, number, from, &indexed);
        error = lookup_view_end(store, view, error);
    }
    if (error == 0 && (!found || indexed.seq < version->seq))
        *version = indexed;
    return error == -ENOENT && found ? 0 : error;
}

static int last_version(struct hl_store *store, uint32_t session, uint64_t number, uint64_t limit,
                        struct index_version *version)
{
    struct document_state state;
    struct document_query query = {.session = session, .number = number, .limit = limit};
    int error = documents_state(store, &query, &state);
    if (error == 0 && !state.has_version)
        error = -ENOENT;
    *version = state.version;
    return error;
}

/* Bytes of a slot's history before the record of a version. */
static int begin_of(struct hl_store *store, uint32_t session, const struct index_version *version,
                    uint64_t *begin)
{
    struct index_entry entry;
    int error = lookup_seq(store, session, version->seq, &entry);
    *begin = version->end;
    if (error == 0 && entry.length <= version->end)
        *begin -= entry.length;
    return error == -ENOENT ? 0 : error;
}

/* Whether the slot is a temporary key: set once, then renamed. 1, 0, or an error. */
static int is_temporary(struct hl_store *store, uint32_t session, uint64_t number,
                        const struct index_version *last)
{
    struct index_version first, before;
    if (!last->moved || last->seq == 0)
        return 0;
    int error = version_from(store, session, number, 0, &first);
    if (error == 0)
        error = last_version(store, session, number, last->seq - 1, &before);
    return error < 0 ? error : first.seq == before.seq && first.source == first.seq;
}

int hl_history_find(struct hl_store *store, uint32_t session, const char *key, size_t len,
                    uint64_t *number, uint64_t *size, uint64_t *changed_ms)
{
    struct document_state state;
    struct index_version first;
    struct hl_record record;
    uint64_t begin = 0;
    struct document_query query = {
        .session = session, .area = HL_AREA_STATE, .key = key, .key_len = len, .limit = UINT64_MAX};
    follow_writer(store);
    int error = len == 0 || len > HL_KEY_MAX ? -ENOENT : documents_state(store, &query, &state);
    if (error == 0 && !state.has_version)
        error = -ENOENT;
    if (error < 0)
        return error;
    int temporary = is_temporary(store, session, state.number, &state.version);
    if (temporary != 0)
        return temporary < 0 ? temporary : -ENOENT;
    error = version_from(store, session, state.number, 0, &first);
    if (error == 0)
        error = begin_of(store, session, &first, &begin);
    if (error < 0)
        return error;
    *number = state.number;
    *size = state.version.end - begin;
    *changed_ms = 0;
    if (hl_record_find(store, session, state.version.seq, &record) == 0)
        *changed_ms = record.ts_ms;
    return 0;
}

static int use_history(struct hl_store *store, uint32_t session, void *context,
                       struct hl_document *document)
{
    struct index_version last;
    (void)context;
    int error = last_version(store, session, document->number, UINT64_MAX, &last);
    if (error < 0)
        return error == -ENOENT ? 0 : error;
    int temporary = is_temporary(store, session, document->number, &last);
    return temporary < 0 ? temporary : !temporary;
}

int hl_history_list(struct hl_store *store, uint32_t session, uint64_t after,
                    hl_document_each *each, void *context)
{
    struct slot_walk walk = {use_history, NULL, each, context};
    follow_writer(store);
    return walk_slots(store, session, after, &walk);
}

/* The version whose record's line holds byte `offset` of the history; *begin is where it begins.
 * -ENOENT: past the end. */
static int locate(struct hl_store *store, uint32_t session, uint64_t number, uint64_t offset,
                  struct index_version *version, uint64_t *begin)
{
    struct index_version first, last;
    uint64_t base = 0;
    int error = version_from(store, session, number, 0, &first);
    if (error == 0)
        error = begin_of(store, session, &first, &base);
    if (error == 0)
        error = last_version(store, session, number, UINT64_MAX, &last);
    if (error < 0)
        return error;
    offset += base;
    if (offset >= last.end)
        return -ENOENT;
    /* The last version's end is above offset. Halve the seqs between until none is left. */
    uint64_t low = first.seq, high = last.seq;
    *version = last;
    while (low <= high) {
        uint64_t middle = low + (high - low) / 2;
        struct index_version found;
        error = version_from(store, session, number, middle, &found);
        if (error < 0)
            return error;
        if (found.end > offset) {
            *version = found;
            if (middle == 0)
                break;
            high = middle - 1;
        } else {
            low = found.seq + 1;
        }
    }
    error = begin_of(store, session, version, begin);
    *begin -= *begin < base ? *begin : base;
    return error;
}

ssize_t hl_history_read(struct hl_store *store, uint32_t session, uint64_t number, uint64_t offset,
                        void *buffer, size_t size, struct hl_cursor *cursor)
{
    struct index_version version;
    uint64_t begin, next = 0;
    size_t filled = 0;
    int error;
    follow_writer(store);
    if (cursor && cursor->end == offset) {
        begin = cursor->offset;
        next = cursor->place;
        error = version_from(store, session, number, next, &version);
        if (begin < offset && size > 0 &&
            (error == -ENOENT || (error == 0 && version.seq != next))) {
            ((char *)buffer)[filled++] = '\n'; /* what was read in part is gone */
            begin = offset + 1;
        }
    } else {
        error = locate(store, session, number, offset, &version, &begin);
    }
    while (error == 0 && filled < size) {
        ssize_t n = hl_record_read(store, session, version.seq, (char *)buffer + filled,
                                   size - filled, offset + filled - begin);
        if (n < 0) {
            error = (int)n;
            break;
        }
        filled += (size_t)n;
        next = version.seq;
        struct index_entry entry;
        error = lookup_seq(store, session, version.seq, &entry);
        if (error < 0 || offset + filled < begin + entry.length)
            break;
        begin += entry.length;
        next = version.seq + 1;
        error = version_from(store, session, number, next, &version);
    }
    if (cursor && filled > 0)
        *cursor = (struct hl_cursor){.end = offset + filled, .offset = begin, .place = next};
    if (error < 0 && error != -ENOENT && filled == 0)
        return error;
    return (ssize_t)filled;
}
