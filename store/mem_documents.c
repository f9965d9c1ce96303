/* mem_documents.c - see mem_documents.h. */
#include "mem_documents.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_BUCKETS 16U

static size_t bucket_of(const struct mem_documents *documents, uint64_t area, const char *key,
                        size_t len)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ area * UINT64_C(0x9e3779b97f4a7c15);
    for (size_t i = 0; i < len; i++) /* FNV-1a */
        hash = (hash ^ (uint8_t)key[i]) * UINT64_C(0x100000001b3);
    return (size_t)(hash ^ hash >> 29) & (documents->buckets - 1);
}

/* How many lists of the skip list a slot is in: each has half of the slots of the one below. */
static uint8_t levels_of(uint64_t number)
{
    uint64_t mixed = number * UINT64_C(0x9e3779b97f4a7c15);
    mixed = (mixed ^ mixed >> 32) * UINT64_C(0xd6e8feb86659fd93);
    unsigned zeros = (unsigned)__builtin_ctzll(mixed >> 20 | UINT64_C(1) << 40);
    return (uint8_t)(zeros < MEM_SLOT_LEVELS ? zeros + 1 : MEM_SLOT_LEVELS);
}

static size_t slot_bytes(const struct mem_slot *slot)
{
    return sizeof *slot + slot->levels * sizeof(struct mem_slot *) + slot->key_len + 32;
}

static void slot_free(struct mem_slot *slot)
{
    free(slot->versions);
    free(slot);
}

void mem_documents_free(struct mem_documents *documents)
{
    if (!documents)
        return;
    for (struct mem_slot *slot = documents->first[0]; slot;) {
        struct mem_slot *next = slot->forward[0];
        slot_free(slot);
        slot = next;
    }
    for (size_t i = 0; i < documents->operation_count; i++)
        free(documents->operations[i].slots);
    free(documents->operations);
    free(documents->marks);
    free(documents->by_key);
    free(documents);
}

/* ---- finding ---- */

struct mem_slot *mem_slot_by_key(const struct mem_session *session, uint64_t area, const char *key,
                                 size_t len)
{
    const struct mem_documents *documents = session->documents;
    if (!documents)
        return NULL;
    struct mem_slot *slot = documents->by_key[bucket_of(documents, area, key, len)];
    while (slot && (slot->area != area || slot->key_len != len || memcmp(slot->key, key, len) != 0))
        slot = slot->next_by_key;
    return slot;
}

/* Where the lists pass the number: for each level, the link that leads to the first slot with a
 * number >= it. */
static void find_links(struct mem_documents *documents, uint64_t number,
                       struct mem_slot **links[MEM_SLOT_LEVELS])
{
    struct mem_slot **list = documents->first;
    for (int level = MEM_SLOT_LEVELS - 1; level >= 0; level--) {
        while (list[level] && list[level]->number < number)
            list = list[level]->forward;
        links[level] = &list[level];
    }
}

struct mem_slot *mem_slot_next(const struct mem_session *session, uint64_t after)
{
    struct mem_slot **links[MEM_SLOT_LEVELS];
    if (!session->documents || after == UINT64_MAX)
        return NULL;
    find_links(session->documents, after + 1, links);
    return *links[0];
}

struct mem_slot *mem_slot_by_number(const struct mem_session *session, uint64_t number)
{
    struct mem_slot *slot = number > 0 ? mem_slot_next(session, number - 1) : NULL;
    return slot && slot->number == number ? slot : NULL;
}

/* ---- slots ---- */

static struct mem_documents *documents_new(void)
{
    struct mem_documents *documents = calloc(1, sizeof *documents);
    if (!documents)
        return NULL;
    documents->buckets = FIRST_BUCKETS;
    documents->by_key = calloc(FIRST_BUCKETS, sizeof(struct mem_slot *));
    if (!documents->by_key) {
        free(documents);
        return NULL;
    }
    return documents;
}

static int ensure(struct memtable *table, struct mem_session *session)
{
    if (session->documents)
        return 0;
    session->documents = documents_new();
    if (!session->documents)
        return -ENOMEM;
    table->bytes += sizeof(struct mem_documents) + FIRST_BUCKETS * sizeof(struct mem_slot *);
    return 0;
}

/* Doubles the buckets; without memory for that the chains only get longer. */
static void rehash(struct memtable *table, struct mem_documents *documents)
{
    struct mem_slot **by_key = calloc(documents->buckets * 2, sizeof(struct mem_slot *));
    if (!by_key)
        return;
    table->bytes += documents->buckets * sizeof(struct mem_slot *);
    free(documents->by_key);
    documents->by_key = by_key;
    documents->buckets *= 2;
    for (struct mem_slot *slot = documents->first[0]; slot; slot = slot->forward[0]) {
        size_t bucket = bucket_of(documents, slot->area, slot->key, slot->key_len);
        slot->next_by_key = by_key[bucket];
        by_key[bucket] = slot;
    }
}

static void stage(struct mem_documents *documents, struct mem_slot *slot)
{
    slot->staged = true;
    slot->next_staged = documents->staged;
    documents->staged = slot;
}

struct mem_slot *mem_slot_add(struct memtable *table, struct mem_session *session,
                              const struct index_slot *slot, bool made)
{
    if (ensure(table, session) < 0)
        return NULL;
    struct mem_documents *documents = session->documents;
    if (documents->slot_count >= documents->buckets)
        rehash(table, documents);
    uint8_t levels = levels_of(slot->number);
    struct mem_slot *added =
        calloc(1, sizeof *added + levels * sizeof(struct mem_slot *) + slot->key_len);
    if (!added)
        return NULL;
    added->number = slot->number;
    added->area = slot->area;
    added->made = made;
    added->levels = levels;
    added->key_len = slot->key_len;
    added->key = (char *)&added->forward[levels];
    memcpy(added->key, slot->key, slot->key_len);
    size_t bucket = bucket_of(documents, slot->area, slot->key, slot->key_len);
    added->next_by_key = documents->by_key[bucket];
    documents->by_key[bucket] = added;
    struct mem_slot **links[MEM_SLOT_LEVELS];
    find_links(documents, slot->number, links);
    for (int level = 0; level < levels; level++) {
        added->forward[level] = *links[level];
        *links[level] = added;
    }
    documents->slot_count++;
    table->bytes += slot_bytes(added);
    stage(documents, added);
    return added;
}

static void slot_remove(struct memtable *table, struct mem_documents *documents,
                        struct mem_slot *slot)
{
    struct mem_slot **link =
        &documents->by_key[bucket_of(documents, slot->area, slot->key, slot->key_len)];
    while (*link != slot)
        link = &(*link)->next_by_key;
    *link = slot->next_by_key;
    struct mem_slot **links[MEM_SLOT_LEVELS];
    find_links(documents, slot->number, links);
    for (int level = 0; level < slot->levels; level++)
        *links[level] = slot->forward[level];
    documents->slot_count--;
    table->bytes -= slot_bytes(slot) + slot->capacity * sizeof *slot->versions;
    slot_free(slot);
}

/* ---- versions ---- */

int mem_slot_push(struct memtable *table, struct mem_session *session, struct mem_slot *slot,
                  const struct index_version *version)
{
    if (slot->count > 0 && slot->versions[slot->count - 1].seq == version->seq) {
        slot->versions[slot->count - 1] = *version;
        return 0;
    }
    if (slot->count == slot->capacity) {
        uint32_t capacity = slot->capacity ? slot->capacity * 2 : 1;
        struct index_version *versions = realloc(slot->versions, capacity * sizeof *slot->versions);
        if (!versions)
            return -ENOMEM;
        table->bytes += (capacity - slot->capacity) * sizeof *versions;
        slot->versions = versions;
        slot->capacity = capacity;
    }
    slot->versions[slot->count++] = *version;
    if (!slot->staged)
        stage(session->documents, slot);
    return 0;
}

/* How many versions have a seq below `seq`. */
static uint32_t versions_below(const struct mem_slot *slot, uint64_t seq)
{
    uint32_t low = 0, high = slot->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (slot->versions[middle].seq < seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct index_version *mem_slot_version(const struct mem_slot *slot, uint64_t limit)
{
    uint32_t n = limit == UINT64_MAX ? slot->count : versions_below(slot, limit + 1);
    return n > 0 ? &slot->versions[n - 1] : NULL;
}

const struct index_version *mem_slot_version_from(const struct mem_slot *slot, uint64_t from)
{
    uint32_t n = versions_below(slot, from);
    return n < slot->count ? &slot->versions[n] : NULL;
}

/* ---- operations ---- */

int mem_operation_add(struct memtable *table, struct mem_session *session,
                      const struct index_operation *operation)
{
    int error = ensure(table, session);
    if (error < 0)
        return error;
    struct mem_documents *documents = session->documents;
    if (documents->operation_count == documents->operation_capacity) {
        size_t capacity = documents->operation_capacity ? documents->operation_capacity * 2 : 4;
        struct index_operation *operations =
            realloc(documents->operations, capacity * sizeof *operations);
        if (!operations)
            return -ENOMEM;
        table->bytes += (capacity - documents->operation_capacity) * sizeof *operations;
        documents->operations = operations;
        documents->operation_capacity = capacity;
    }
    documents->operations[documents->operation_count++] = *operation;
    table->bytes += operation->count * sizeof *operation->slots + 16;
    return 0;
}

const struct index_operation *mem_operation_get(const struct mem_session *session, uint64_t seq)
{
    const struct mem_documents *documents = session->documents;
    size_t low = 0, high = documents ? documents->operation_count : 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (documents->operations[middle].seq < seq)
            low = middle + 1;
        else
            high = middle;
    }
    bool found =
        documents && low < documents->operation_count && documents->operations[low].seq == seq;
    return found ? &documents->operations[low] : NULL;
}

int mem_documents_mark(struct memtable *table, struct mem_session *session, uint64_t seq)
{
    int error = ensure(table, session);
    if (error < 0)
        return error;
    struct mem_documents *documents = session->documents;
    const struct mem_mark *last =
        documents->mark_count > 0 ? &documents->marks[documents->mark_count - 1] : NULL;
    uint64_t since = session->batch_documents.operations -
                     (last ? last->totals.operations : session->base_operations);
    if (since < MEM_MARK_SPACING)
        return 0;
    if (documents->mark_count == documents->mark_capacity) {
        size_t capacity = documents->mark_capacity ? documents->mark_capacity * 2 : 4;
        struct mem_mark *marks = realloc(documents->marks, capacity * sizeof *marks);
        if (!marks)
            return -ENOMEM;
        table->bytes += (capacity - documents->mark_capacity) * sizeof *marks;
        documents->marks = marks;
        documents->mark_capacity = capacity;
    }
    documents->marks[documents->mark_count++] =
        (struct mem_mark){.seq = seq, .totals = session->batch_documents};
    return 0;
}

/* ---- batches ---- */

void mem_documents_settle(struct mem_session *session)
{
    if (!session->documents)
        return;
    for (struct mem_slot *slot = session->documents->staged; slot; slot = slot->next_staged)
        slot->staged = false;
    session->documents->staged = NULL;
}

void mem_documents_take_back(struct memtable *table, struct mem_session *session, bool has_seq,
                             uint64_t last_seq)
{
    struct mem_documents *documents = session->documents;
    if (!documents)
        return;
    for (struct mem_slot *slot = documents->staged; slot;) {
        struct mem_slot *next = slot->next_staged;
        while (slot->count > 0 && (!has_seq || slot->versions[slot->count - 1].seq > last_seq))
            slot->count--;
        slot->staged = false;
        /* A slot without a version is as if it had not been looked at; a made one's number is free
         * again. */
        if (slot->count == 0)
            slot_remove(table, documents, slot);
        slot = next;
    }
    documents->staged = NULL;
    while (documents->mark_count > 0 &&
           (!has_seq || documents->marks[documents->mark_count - 1].seq > last_seq))
        documents->mark_count--;
    while (documents->operation_count > 0) {
        struct index_operation *last = &documents->operations[documents->operation_count - 1];
        if (has_seq && last->seq <= last_seq)
            break;
        table->bytes -= last->count * sizeof *last->slots + 16;
        free(last->slots);
        documents->operation_count--;
    }
}
