/* memtable.c - see memtable.h. */
#include "memtable.h"
#include "mem_calls.h"
#include "mem_documents.h"
#include "sums.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_BUCKETS 64U
#define CHUNK_MIN 4U
#define CHUNK_MAX 256U

static size_t hash_id(const char *id, size_t len)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (uint8_t)id[i]) * UINT64_C(0x100000001b3);
    return (size_t)(hash ^ hash >> 29);
}

static size_t hash_number(uint32_t number)
{
    return (size_t)((uint64_t)number * UINT64_C(0x9e3779b97f4a7c15) >> 32);
}

static size_t id_bucket(const struct memtable *table, const char *id, size_t len)
{
    return hash_id(id, len) & (table->buckets - 1);
}

static size_t number_bucket(const struct memtable *table, uint32_t number)
{
    return hash_number(number) & (table->buckets - 1);
}

struct memtable *memtable_new(void)
{
    struct memtable *table = calloc(1, sizeof *table);
    if (!table)
        return NULL;
    table->buckets = FIRST_BUCKETS;
    table->by_id = calloc(table->buckets, sizeof(struct mem_session *));
    table->by_number = calloc(table->buckets, sizeof(struct mem_session *));
    if (!table->by_id || !table->by_number) {
        memtable_free(table);
        return NULL;
    }
    return table;
}

static void session_free(struct mem_session *session)
{
    for (uint32_t i = 0; i < session->chunk_count; i++)
        free(session->chunks[i]);
    free(session->chunks);
    free((void *)(uintptr_t)session->row.id);
    free((void *)(uintptr_t)session->row.attributes);
    mem_documents_free(session->documents);
    sums_free(session->sums);
    if (session->calls)
        mem_calls_free(session->calls);
    free(session->calls);
    free(session->id_json);
    free(session);
}

void memtable_free(struct memtable *table)
{
    if (!table)
        return;
    for (size_t i = 0; i < table->session_count; i++)
        session_free(table->sessions[i]);
    free(table->sessions);
    free(table->by_id);
    free(table->by_number);
    free(table->points);
    free(table);
}

/* Doubles the buckets; without memory for that the chains only get longer. */
static void rehash(struct memtable *table)
{
    size_t buckets = table->buckets * 2;
    struct mem_session **by_id = calloc(buckets, sizeof(struct mem_session *));
    struct mem_session **by_number = calloc(buckets, sizeof(struct mem_session *));
    if (!by_id || !by_number) {
        free(by_id);
        free(by_number);
        return;
    }
    free(table->by_id);
    free(table->by_number);
    table->by_id = by_id;
    table->by_number = by_number;
    table->bytes += (buckets - table->buckets) * 2 * sizeof(struct mem_session *);
    table->buckets = buckets;
    for (size_t i = 0; i < table->session_count; i++) {
        struct mem_session *s = table->sessions[i];
        size_t a = id_bucket(table, s->row.id, s->row.id_len);
        s->next_by_id = by_id[a];
        by_id[a] = s;
        size_t b = number_bucket(table, s->row.number);
        s->next_by_number = by_number[b];
        by_number[b] = s;
    }
}

static void *copy_bytes(const void *bytes, size_t len)
{
    void *copy = malloc(len ? len : 1);
    if (copy && len)
        memcpy(copy, bytes, len);
    return copy;
}

struct mem_session *memtable_add_session(struct memtable *table, const struct index_row *row)
{
    if (table->session_count == table->session_capacity) {
        size_t capacity = table->session_capacity ? table->session_capacity * 2 : 16;
        struct mem_session **sessions = realloc(table->sessions, capacity * sizeof(*sessions));
        if (!sessions)
            return NULL;
        table->bytes += (capacity - table->session_capacity) * sizeof(*sessions);
        table->sessions = sessions;
        table->session_capacity = capacity;
    }
    struct mem_session *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->row = *row;
    s->row.id = copy_bytes(row->id, row->id_len);
    s->row.attributes =
        row->attributes_len ? copy_bytes(row->attributes, row->attributes_len) : NULL;
    if (!s->row.id || (row->attributes_len && !s->row.attributes)) {
        session_free(s);
        return NULL;
    }
    s->base_has_seq = row->has_seq;
    s->base_last_seq = row->last_seq;
    s->base_bytes = row->bytes;
    s->base_records = row->records;
    s->base_operations = row->documents.operations;
    s->base_gone = row->gone;
    if (table->session_count >= table->buckets)
        rehash(table);
    size_t a = id_bucket(table, s->row.id, s->row.id_len);
    s->next_by_id = table->by_id[a];
    table->by_id[a] = s;
    size_t b = number_bucket(table, s->row.number);
    s->next_by_number = table->by_number[b];
    table->by_number[b] = s;
    table->sessions[table->session_count++] = s;
    table->bytes += sizeof *s + row->id_len + row->attributes_len + 64;
    return s;
}

void memtable_drop(struct memtable *table, size_t i)
{
    struct mem_session *s = table->sessions[i];
    table->sessions[i] = table->sessions[--table->session_count];
    struct mem_session **link = &table->by_id[id_bucket(table, s->row.id, s->row.id_len)];
    while (*link != s)
        link = &(*link)->next_by_id;
    *link = s->next_by_id;
    link = &table->by_number[number_bucket(table, s->row.number)];
    while (*link != s)
        link = &(*link)->next_by_number;
    *link = s->next_by_number;
    table->bytes -= sizeof *s + s->row.id_len + s->row.attributes_len + 64 + s->calls_bytes;
    if (s->sums)
        table->bytes -= sums_bytes(s->sums);
    session_free(s);
}

void memtable_take_sums(struct memtable *table, struct mem_session *session, struct sums *sums)
{
    if (!sums)
        return;
    session->sums = sums;
    session->older_calls = sums->total.calls > 0;
    table->bytes += sums_bytes(sums);
}

struct mem_session *memtable_by_id(const struct memtable *table, const char *id, size_t len)
{
    struct mem_session *s = table->by_id[id_bucket(table, id, len)];
    while (s && (s->deleted || s->row.id_len != len || memcmp(s->row.id, id, len) != 0))
        s = s->next_by_id;
    return s;
}

struct mem_session *memtable_by_number(const struct memtable *table, uint32_t number)
{
    struct mem_session *s = table->by_number[number_bucket(table, number)];
    while (s && s->row.number != number)
        s = s->next_by_number;
    return s;
}

const struct mem_session *memtable_part(const struct memtable *table, uint32_t number)
{
    const struct mem_session *s = table ? memtable_by_number(table, number) : NULL;
    return s && !s->deleted ? s : NULL;
}

void memtable_note_created(struct memtable *table, uint32_t number)
{
    if (table->first_created == 0 || number < table->first_created)
        table->first_created = number;
    if (number > table->last_created)
        table->last_created = number;
}

static bool is_shown(const struct mem_session *session)
{
    return session && !session->hidden && !session->deleted;
}

uint32_t memtable_next_created(const struct memtable *table, uint32_t after)
{
    if (table->first_created == 0 || after >= table->last_created)
        return 0;
    uint32_t number = after + 1 > table->first_created ? after + 1 : table->first_created;
    /* Numbers follow each other, but for those of a log that somebody made up: there are never more
     * of them to be tried than there are sessions. */
    for (size_t tries = 0; tries <= table->session_count; tries++, number++) {
        if (is_shown(memtable_by_number(table, number)))
            return number;
        if (number == table->last_created)
            return 0;
    }
    uint32_t least = 0;
    for (size_t i = 0; i < table->session_count; i++) {
        const struct mem_session *session = table->sessions[i];
        uint32_t its = session->row.number;
        if (is_shown(session) && its >= number && its <= table->last_created &&
            (least == 0 || its < least))
            least = its;
    }
    return least;
}

void memtable_take_attributes(struct memtable *table, struct mem_session *session, void *attributes,
                              uint32_t len)
{
    table->bytes += len;
    table->bytes -= session->row.attributes_len;
    free((void *)(uintptr_t)session->row.attributes);
    session->row.attributes = attributes;
    session->row.attributes_len = len;
}

static struct mem_chunk *last_chunk(const struct mem_session *session)
{
    return session->chunk_count ? session->chunks[session->chunk_count - 1] : NULL;
}

static bool fits(const struct mem_chunk *chunk, uint64_t seq)
{
    return chunk && chunk->count < chunk->capacity && seq - chunk->first_seq <= UINT32_MAX;
}

/* Makes room for one more entry with this seq. */
static int reserve(struct memtable *table, struct mem_session *session, uint64_t seq)
{
    const struct mem_chunk *last = last_chunk(session);
    if (fits(last, seq))
        return 0;
    if (session->chunk_count == session->chunk_capacity) {
        uint32_t capacity = session->chunk_capacity ? session->chunk_capacity * 2 : 2;
        struct mem_chunk **chunks = realloc(session->chunks, capacity * sizeof(*chunks));
        if (!chunks)
            return -ENOMEM;
        table->bytes += (capacity - session->chunk_capacity) * sizeof(*chunks);
        session->chunks = chunks;
        session->chunk_capacity = capacity;
    }
    uint32_t capacity = CHUNK_MIN;
    if (last)
        capacity = last->capacity >= CHUNK_MAX ? CHUNK_MAX : last->capacity * 4;
    size_t size = sizeof(struct mem_chunk) + capacity * sizeof(struct mem_entry);
    struct mem_chunk *chunk = malloc(size);
    if (!chunk)
        return -ENOMEM;
    *chunk = (struct mem_chunk){
        .first_seq = seq,
        .first_byte = session->row.bytes,
        .capacity = capacity,
    };
    session->chunks[session->chunk_count++] = chunk;
    table->bytes += size + 16;
    return 0;
}

void memtable_prefetch_list(const struct mem_session *session)
{
    if (session->chunk_count > 0)
        __builtin_prefetch(&session->chunks[session->chunk_count - 1]);
}

void memtable_prefetch(const struct mem_session *session)
{
    const struct mem_chunk *last = last_chunk(session);
    if (last) {
        __builtin_prefetch(last, 1);
        __builtin_prefetch(&last->entries[last->count], 1);
    }
}

int memtable_append(struct memtable *table, struct mem_session *session,
                    const struct index_entry *entry, uint64_t recorded_ms)
{
    int error = reserve(table, session, entry->seq);
    if (error < 0)
        return error;
    struct mem_chunk *chunk = last_chunk(session);
    chunk->entries[chunk->count++] = (struct mem_entry){
        .position = entry->position,
        .length = entry->length & INT32_MAX,
        .operation = entry->operation,
        .distance = (uint32_t)(entry->seq - chunk->first_seq),
    };
    struct index_row *row = &session->row;
    if (row->records == 0)
        row->first_seq = entry->seq;
    row->last_seq = entry->seq;
    row->has_seq = true;
    row->records++;
    row->bytes += entry->length;
    if (recorded_ms > row->changed_ms)
        row->changed_ms = recorded_ms;
    table->records++;
    return 0;
}

void memtable_take_back(struct memtable *table, struct mem_session *session,
                        const struct index_row *before)
{
    struct index_row *row = &session->row;
    while (row->records > before->records) {
        struct mem_chunk *chunk = last_chunk(session);
        chunk->count--;
        row->records--;
        table->records--;
        if (chunk->count == 0) {
            table->bytes -= sizeof(*chunk) + chunk->capacity * sizeof(struct mem_entry) + 16;
            free(chunk);
            session->chunk_count--;
        }
    }
    row->bytes = before->bytes;
    row->first_seq = before->first_seq;
    row->last_seq = before->last_seq;
    row->has_seq = before->has_seq;
    row->changed_ms = before->changed_ms;
    row->documents = before->documents;
    mem_documents_take_back(table, session, before->has_seq, before->last_seq);
}

int memtable_add_point(struct memtable *table, const struct mem_point *point)
{
    if (table->point_count == table->point_capacity) {
        size_t capacity = table->point_capacity ? table->point_capacity * 2 : 16;
        struct mem_point *points = realloc(table->points, capacity * sizeof(*points));
        if (!points)
            return -ENOMEM;
        table->bytes += (capacity - table->point_capacity) * sizeof(*points);
        table->points = points;
        table->point_capacity = capacity;
    }
    table->points[table->point_count++] = *point;
    return 0;
}

bool mem_session_covers_seq(const struct mem_session *session, uint64_t seq)
{
    return !session->base_has_seq || seq > session->base_last_seq;
}

bool mem_session_covers_offset(const struct mem_session *session, uint64_t offset)
{
    return offset >= session->base_bytes;
}

static struct index_entry entry_of(const struct mem_chunk *chunk, uint32_t i)
{
    return (struct index_entry){
        .seq = chunk->first_seq + chunk->entries[i].distance,
        .position = chunk->entries[i].position,
        .length = chunk->entries[i].length,
        .operation = chunk->entries[i].operation,
    };
}

/* The last chunk that is not above the key, by seq or by byte; chunk_count if all are above. */
static uint32_t floor_chunk(const struct mem_session *session, uint64_t key, bool by_byte)
{
    uint32_t low = 0, high = session->chunk_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct mem_chunk *chunk = session->chunks[middle];
        if ((by_byte ? chunk->first_byte : chunk->first_seq) <= key)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? low - 1 : session->chunk_count;
}

/* Chunk and index of the first entry with a seq >= seq. */
static bool locate(const struct mem_session *session, uint64_t seq, uint32_t *chunk_index,
                   uint32_t *entry_index)
{
    if (session->chunk_count == 0)
        return false;
    uint32_t c = floor_chunk(session, seq, false);
    if (c == session->chunk_count) {
        *chunk_index = *entry_index = 0;
        return session->chunks[0]->count > 0;
    }
    const struct mem_chunk *chunk = session->chunks[c];
    uint32_t low = 0, high = chunk->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (chunk->first_seq + chunk->entries[middle].distance < seq)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == chunk->count) {
        c++;
        low = 0;
    }
    *chunk_index = c;
    *entry_index = low;
    return c < session->chunk_count && low < session->chunks[c]->count;
}

bool mem_session_find(const struct mem_session *session, uint64_t seq, struct index_entry *entry,
                      uint64_t *begin)
{
    uint32_t c, e;
    if (!locate(session, seq, &c, &e))
        return false;
    const struct mem_chunk *chunk = session->chunks[c];
    *entry = entry_of(chunk, e);
    if (begin) {
        *begin = chunk->first_byte;
        for (uint32_t i = 0; i < e; i++)
            *begin += chunk->entries[i].length;
    }
    return true;
}

bool mem_session_find_offset(const struct mem_session *session, uint64_t offset,
                             struct index_entry *entry, uint64_t *begin)
{
    if (offset >= session->row.bytes || session->chunk_count == 0)
        return false;
    uint32_t c = floor_chunk(session, offset, true);
    if (c == session->chunk_count)
        return false;
    const struct mem_chunk *chunk = session->chunks[c];
    uint64_t at = chunk->first_byte;
    for (uint32_t i = 0; i < chunk->count; i++) {
        if (offset < at + chunk->entries[i].length) {
            *entry = entry_of(chunk, i);
            *begin = at;
            return true;
        }
        at += chunk->entries[i].length;
    }
    return false;
}

bool mem_session_each_from(const struct mem_session *session, uint64_t from, index_each *each,
                           void *context)
{
    uint32_t c, e;
    if (!locate(session, from, &c, &e))
        return true;
    for (; c < session->chunk_count; c++, e = 0) {
        for (; e < session->chunks[c]->count; e++) {
            struct index_entry entry = entry_of(session->chunks[c], e);
            if (!each(context, &entry))
                return false;
        }
    }
    return true;
}
