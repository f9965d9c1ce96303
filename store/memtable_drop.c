/* memtable_drop.c - taking records and sessions out of a memtable, and following what went from
 * what is older; see memtable.h. */
#include <stdlib.h>
#include <string.h>

#include "memtable.h"

void memtable_delete(struct memtable *table, struct mem_session *session)
{
    session->deleted = true;
    session->trim_below = 0;
    table->records -= session->row.records - session->base_records;
    table->drops = true;
}

/* Removes chunk i, which is empty. */
static void remove_chunk(struct memtable *table, struct mem_session *session, uint32_t i)
{
    struct mem_chunk *chunk = session->chunks[i];
    table->bytes -= sizeof(*chunk) + chunk->capacity * sizeof(struct mem_entry) + 16;
    free(chunk);
    session->chunk_count--;
    memmove(&session->chunks[i], &session->chunks[i + 1],
            (session->chunk_count - i) * sizeof(*session->chunks));
}

/* Where each chunk's lines begin, after some went before or in them. */
static void place_chunks(struct mem_session *session)
{
    uint64_t at = session->base_bytes;
    for (uint32_t i = 0; i < session->chunk_count; i++) {
        struct mem_chunk *chunk = session->chunks[i];
        chunk->first_byte = at;
        for (uint32_t k = 0; k < chunk->count; k++)
            at += chunk->entries[k].length;
    }
}

static uint64_t first_of_part(const struct mem_session *session)
{
    if (session->chunk_count == 0)
        return 0;
    const struct mem_chunk *chunk = session->chunks[0];
    return chunk->first_seq + chunk->entries[0].distance;
}

void memtable_trim(struct memtable *table, struct mem_session *session, uint64_t below,
                   uint64_t *records, uint64_t *bytes)
{
    uint64_t gone_records = 0, gone_bytes = 0;
    struct index_row *row = &session->row;
    for (uint32_t i = 0; i < session->chunk_count;) {
        struct mem_chunk *chunk = session->chunks[i];
        uint32_t kept = 0;
        if (chunk->first_seq >= below)
            break;
        for (uint32_t k = 0; k < chunk->count; k++) {
            const struct mem_entry *entry = &chunk->entries[k];
            if (!entry->operation && chunk->first_seq + entry->distance < below) {
                gone_records++;
                gone_bytes += entry->length;
            } else {
                chunk->entries[kept++] = *entry;
            }
        }
        chunk->count = kept;
        if (kept == 0)
            remove_chunk(table, session, i);
        else
            i++;
    }
    row->records -= gone_records;
    row->bytes -= gone_bytes;
    row->gone += gone_bytes;
    table->records -= gone_records;
    if (row->trimmed < below)
        row->trimmed = below;
    if (session->base_records == 0)
        row->first_seq = first_of_part(session);
    else if (session->trim_below < below)
        session->trim_below = below;
    place_chunks(session);
    table->drops = table->drops || session->trim_below > 0;
    *records += gone_records;
    *bytes += gone_bytes;
}

/* Takes out of the part what lies before a log position; returns the bytes of what is left. */
static uint64_t forget_before(struct memtable *table, struct mem_session *session,
                              uint64_t position, uint64_t *records)
{
    uint64_t bytes = 0;
    *records = 0;
    for (uint32_t i = 0; i < session->chunk_count;) {
        struct mem_chunk *chunk = session->chunks[i];
        uint32_t kept = 0;
        for (uint32_t k = 0; k < chunk->count; k++) {
            if (chunk->entries[k].position < position) {
                table->records--;
                continue;
            }
            bytes += chunk->entries[k].length;
            chunk->entries[kept++] = chunk->entries[k];
        }
        chunk->count = kept;
        *records += kept;
        if (kept == 0)
            remove_chunk(table, session, i);
        else
            i++;
    }
    return bytes;
}

void memtable_rebase(struct memtable *table, struct mem_session *session,
                     const struct index_row *indexed)
{
    struct index_row *row = &session->row;
    uint64_t records, bytes = forget_before(table, session, indexed->indexed, &records);
    session->trim_below = 0;
    session->base_has_seq = indexed->has_seq;
    session->base_last_seq = indexed->last_seq;
    session->base_bytes = indexed->bytes;
    session->base_records = indexed->records;
    session->base_operations = indexed->documents.operations;
    if (indexed->indexed > session->part_gone_at)
        session->part_gone = 0;
    session->base_gone = indexed->gone;
    row->gone = indexed->gone + session->part_gone;
    row->records = indexed->records + records;
    row->bytes = indexed->bytes + bytes;
    row->first_seq = indexed->records > 0 ? indexed->first_seq : first_of_part(session);
    if (indexed->has_seq && (!row->has_seq || indexed->last_seq > row->last_seq)) {
        row->has_seq = true;
        row->last_seq = indexed->last_seq;
        row->documents = indexed->documents;
    }
    if (indexed->changed_ms > row->changed_ms)
        row->changed_ms = indexed->changed_ms;
    if (indexed->trimmed > row->trimmed)
        row->trimmed = indexed->trimmed;
    if (indexed->indexed > row->indexed)
        row->indexed = indexed->indexed;
    place_chunks(session);
}

/* What a batch that is under way would go back to. */
static void lower_before(struct mem_session *session, uint64_t records, uint64_t bytes)
{
    struct index_row *before = &session->batch_before;
    if (before->records < records || before->bytes < bytes)
        return; /* it is of an older batch */
    before->records -= records;
    before->bytes -= bytes;
    before->gone = session->row.gone;
    before->first_seq = session->row.first_seq;
}

void mem_session_lower(struct mem_session *session, uint64_t records, uint64_t bytes,
                       uint64_t older_records, uint64_t older_first)
{
    struct index_row *row = &session->row;
    session->base_records -= records;
    session->base_bytes -= bytes;
    session->base_gone += bytes;
    row->records -= records;
    row->bytes -= bytes;
    row->gone += bytes;
    row->first_seq = older_records > 0 ? older_first : first_of_part(session);
    lower_before(session, records, bytes);
    place_chunks(session);
}
