/*
 * documents.c - finding documents: the active table, the frozen one, the index; see documents.h.
 *
 * Each look goes through them in that order, and the view of the index is begun last: what left the
 * tables in between is in the index by then. Lists are merged from all three by number.
 */
#include "documents.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TABLES 2
#define GATHER 128U /* slots of the tables taken at a time for a list */

/* The session's part in a table, and up to which seq its versions count; NULL: it has none. */
static const struct mem_session *part_of(const struct memtable *table, uint32_t session,
                                         bool staged, uint64_t *limit)
{
    const struct mem_session *part = memtable_part(table, session);
    if (!part || staged)
        return part;
    if (part->hidden || !part->row.has_seq)
        return NULL;
    if (part->row.last_seq < *limit)
        *limit = part->row.last_seq;
    return part;
}

/* Looks in the tables; true: answered. A slot that is only known to be there leaves its number. */
static bool state_in_tables(struct hl_store *store, const struct document_query *query,
                            struct document_state *state)
{
    bool answered = false;
    pthread_rwlock_rdlock(&store->mem_lock);
    const struct memtable *tables[TABLES] = {store->table, store->frozen};
    for (int i = 0; i < TABLES && !answered; i++) {
        uint64_t limit = query->limit;
        const struct mem_session *part = part_of(tables[i], query->session, query->staged, &limit);
        if (!part)
            continue;
        const struct mem_slot *slot =
            state->number ? mem_slot_by_number(part, state->number)
                          : mem_slot_by_key(part, query->area, query->key, query->key_len);
        if (!slot)
            continue;
        state->number = slot->number;
        const struct index_version *version = mem_slot_version(slot, limit);
        if (version) {
            state->version = *version;
            state->has_version = answered = true;
        }
    }
    pthread_rwlock_unlock(&store->mem_lock);
    return answered;
}

int documents_state(struct hl_store *store, const struct document_query *query,
                    struct document_state *state)
{
    struct index_view *view;
    *state = (struct document_state){.number = query->number};
    if (state_in_tables(store, query, state))
        return 0;
    int error = lookup_view_of(store, query->session, &view);
    if (error == 0) {
        if (state->number == 0)
            error = index_slot_find(view, query->session, query->area, query->key, query->key_len,
                                    &state->number);
        if (error == 0)
            error = index_version_at(view, query->session, state->number, query->limit,
                                     &state->version);
        error = lookup_view_end(store, view, error);
    }
    state->has_version = error == 0;
    return error == -ENOENT && state->number ? 0 : error;
}

int documents_name(struct hl_store *store, uint32_t session, uint64_t number, uint64_t *area,
                   char *key, uint16_t *key_len)
{
    bool found = false;
    pthread_rwlock_rdlock(&store->mem_lock);
    const struct memtable *tables[TABLES] = {store->table, store->frozen};
    for (int i = 0; i < TABLES && !found; i++) {
        const struct mem_session *part = memtable_part(tables[i], session);
        const struct mem_slot *slot = part ? mem_slot_by_number(part, number) : NULL;
        found = slot != NULL;
        if (found) {
            *area = slot->area;
            *key_len = slot->key_len;
            memcpy(key, slot->key, slot->key_len);
        }
    }
    pthread_rwlock_unlock(&store->mem_lock);
    if (found)
        return 0;
    struct index_view *view;
    struct index_slot slot;
    int error = lookup_view_of(store, session, &view);
    if (error < 0)
        return error;
    error = index_slot_get(view, session, number, &slot);
    if (error == 0) {
        *area = slot.area;
        *key_len = slot.key_len;
        memcpy(key, slot.key, slot.key_len);
    }
    return lookup_view_end(store, view, error);
}

int documents_operation(struct hl_store *store, uint32_t session, uint64_t seq,
                        struct index_operation *operation)
{
    const struct memtable *tables[TABLES] = {store->table, store->frozen};
    for (int i = 0; i < TABLES; i++) { /* append_lock is held: they stay as they are */
        const struct mem_session *part = memtable_part(tables[i], session);
        const struct index_operation *found = part ? mem_operation_get(part, seq) : NULL;
        if (!found)
            continue;
        *operation = *found;
        operation->slots = malloc((found->count + 1) * sizeof *operation->slots);
        if (!operation->slots)
            return -ENOMEM;
        if (found->count)
            memcpy(operation->slots, found->slots, found->count * sizeof *operation->slots);
        return 0;
    }
    struct index_view *view;
    int error = lookup_view_of(store, session, &view);
    if (error < 0)
        return error;
    error = index_operation_get(view, session, seq, operation);
    return lookup_view_end(store, view, error);
}

/* ---- lists ---- */

/* A slot of the tables as it is to be listed. */
struct gathered {
    struct hl_document document;
    bool present;
};

struct list {
    uint32_t session;
    uint64_t area;
    bool staged;
    uint64_t after;
    struct gathered *gathered; /* GATHER of them; what the tables know, ascending */
    size_t count, at;
    uint64_t horizon; /* beyond it the tables may know more */
    hl_document_each *each;
    void *context;
    bool more; /* each() wants more */
};

static void fill(struct hl_document *document, const struct index_slot *slot,
                 const struct index_version *version)
{
    document->number = slot->number;
    document->area = slot->area;
    document->seq = version->source;
    document->changed = version->seq;
    document->set_ms = version->set_ms;
    document->offset = version->offset;
    document->length = version->length;
    document->key_len = slot->key_len;
    memcpy(document->key, slot->key, slot->key_len);
    document->key[slot->key_len] = 0;
}

static const struct index_version *version_of(const struct mem_slot *slot, uint64_t limit)
{
    return slot ? mem_slot_version(slot, limit) : NULL;
}

/* Takes from the tables what they know of slots above list->after. */
static void gather(struct hl_store *store, struct list *list)
{
    uint64_t limits[TABLES] = {UINT64_MAX, UINT64_MAX};
    const struct mem_slot *slots[TABLES];
    list->count = list->at = 0;
    pthread_rwlock_rdlock(&store->mem_lock);
    const struct memtable *tables[TABLES] = {store->table, store->frozen};
    for (int i = 0; i < TABLES; i++) {
        const struct mem_session *part =
            part_of(tables[i], list->session, list->staged, &limits[i]);
        slots[i] = part ? mem_slot_next(part, list->after) : NULL;
    }
    while (list->count < GATHER && (slots[0] || slots[1])) {
        uint64_t number = !slots[1] || (slots[0] && slots[0]->number <= slots[1]->number)
                              ? slots[0]->number
                              : slots[1]->number;
        const struct mem_slot *any = NULL;
        const struct index_version *version = NULL;
        for (int i = 0; i < TABLES; i++) {
            if (!slots[i] || slots[i]->number != number)
                continue;
            any = slots[i];
            if (!version) /* the active table's comes first: it is newer */
                version = version_of(slots[i], limits[i]);
            slots[i] = slots[i]->forward[0];
        }
        if (any->area != list->area || !version)
            continue;
        struct gathered *gathered = &list->gathered[list->count++];
        struct index_slot slot = {any->number, any->area, any->key, any->key_len};
        fill(&gathered->document, &slot, version);
        gathered->present = version->present;
    }
    pthread_rwlock_unlock(&store->mem_lock);
    list->horizon = list->count == GATHER ? list->gathered[GATHER - 1].document.number : UINT64_MAX;
}

/* Lists what the tables know below `number`. */
static void list_gathered(struct list *list, uint64_t number)
{
    while (list->more && list->at < list->count &&
           list->gathered[list->at].document.number < number) {
        const struct gathered *gathered = &list->gathered[list->at++];
        list->after = gathered->document.number;
        if (gathered->present)
            list->more = list->each(list->context, &gathered->document);
    }
}

static bool list_indexed(void *context, const struct index_slot *slot,
                         const struct index_version *version)
{
    struct list *list = context;
    struct hl_document document;
    if (slot->number > list->horizon)
        return false;
    list_gathered(list, slot->number);
    if (!list->more)
        return false;
    if (list->at < list->count && list->gathered[list->at].document.number == slot->number)
        return true; /* the tables know better; it comes with them */
    fill(&document, slot, version);
    list->after = slot->number;
    list->more = list->each(list->context, &document);
    return list->more;
}

static int list_documents(struct hl_store *store, struct list *list)
{
    int error = 0;
    list->more = true;
    list->gathered = malloc(GATHER * sizeof *list->gathered);
    if (!list->gathered)
        return -ENOMEM;
    do {
        struct index_view *view;
        gather(store, list);
        error = lookup_view_of(store, list->session, &view);
        if (error == 0) {
            error = index_documents_from(view, list->session, list->area, list->after, list_indexed,
                                         list);
            if (error == 0)
                list_gathered(list, UINT64_MAX);
            error = lookup_view_end(store, view, error);
        } else if (error == -ENOENT) { /* no index */
            list_gathered(list, UINT64_MAX);
            error = 0;
        }
        if (error == 0 && list->more && list->horizon != UINT64_MAX)
            list->after = list->horizon;
    } while (error == 0 && list->more && list->horizon != UINT64_MAX);
    free(list->gathered);
    return error;
}

int hl_document_list(struct hl_store *store, uint32_t session, uint64_t area, uint64_t after,
                     hl_document_each *each, void *context)
{
    struct list list = {
        .session = session, .area = area, .after = after, .each = each, .context = context};
    follow_writer(store);
    return list_documents(store, &list);
}

struct numbers {
    uint64_t *numbers;
    size_t count, max;
};

static bool take_number(void *context, const struct hl_document *document)
{
    struct numbers *numbers = context;
    numbers->numbers[numbers->count++] = document->number;
    return numbers->count < numbers->max;
}

ssize_t documents_numbers(struct hl_store *store, uint32_t session, uint64_t area, uint64_t after,
                          bool staged, uint64_t *numbers, size_t max)
{
    struct numbers taken = {numbers, 0, max};
    struct list list = {.session = session,
                        .area = area,
                        .after = after,
                        .staged = staged,
                        .each = take_number,
                        .context = &taken};
    int error = list_documents(store, &list);
    return error < 0 ? error : (ssize_t)taken.count;
}

/* ---- single ones ---- */

static int find(struct hl_store *store, struct document_query *query, struct hl_document *document)
{
    struct document_state state;
    char key[HL_KEY_MAX];
    struct index_slot slot = {.area = query->area, .key = key};
    follow_writer(store);
    int error = documents_state(store, query, &state);
    if (error == 0 && (!state.has_version || !state.version.present))
        error = -ENOENT;
    if (error != 0)
        return error;
    slot.number = state.number;
    if (query->key) {
        slot.key_len = (uint16_t)query->key_len;
        memcpy(key, query->key, query->key_len);
    } else {
        error = documents_name(store, query->session, state.number, &slot.area, key, &slot.key_len);
        if (error < 0)
            return error;
    }
    fill(document, &slot, &state.version);
    return 0;
}

int hl_document_find(struct hl_store *store, uint32_t session, uint64_t area, const char *key,
                     size_t len, struct hl_document *document)
{
    struct document_query query = {
        .session = session, .area = area, .key = key, .key_len = len, .limit = UINT64_MAX};
    return len == 0 || len > HL_KEY_MAX ? -ENOENT : find(store, &query, document);
}

int hl_document_by_number(struct hl_store *store, uint32_t session, uint64_t number,
                          struct hl_document *document)
{
    struct document_query query = {.session = session, .number = number, .limit = UINT64_MAX};
    return number == 0 ? -ENOENT : find(store, &query, document);
}

int hl_document_name(struct hl_store *store, uint32_t session, uint64_t number,
                     struct hl_document *document)
{
    *document = (struct hl_document){.number = number};
    follow_writer(store);
    return documents_name(store, session, number, &document->area, document->key,
                          &document->key_len);
}

ssize_t hl_document_read(struct hl_store *store, uint32_t session,
                         const struct hl_document *document, void *buffer, size_t size,
                         uint64_t offset)
{
    struct index_entry entry;
    struct frame frame;
    uint8_t *bytes;
    if (offset > document->length || size == 0)
        return 0;
    int error = lookup_seq(store, session, document->seq, &entry);
    if (error == 0)
        error = read_frame(store, session, &entry, &bytes, &frame);
    if (error < 0)
        return error;
    if ((uint64_t)document->offset + document->length > frame.length) {
        free(bytes);
        return -EBADMSG;
    }
    size_t n = document->length - (size_t)offset;
    bool newline = n < size;
    if (!newline)
        n = size;
    memcpy(buffer, frame.body + document->offset + offset, n);
    if (newline)
        ((char *)buffer)[n] = '\n';
    free(bytes);
    return (ssize_t)(n + newline);
}
