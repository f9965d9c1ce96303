/*
 * memtable.h - what was appended since the index's watermark, found like anything in the index.
 *
 * A table holds, for each session touched since it was begun, the session's row as it is now and
 * the entries added since. Entries below a table's own are in an older table or in the index, so a
 * session knows where its part begins (base_*).
 *
 * Two tables exist at most: the active one, which grows, and a frozen one, which a flush is moving
 * into the index. A reader looks into active, then frozen, then the index; data moves only in that
 * direction, and is in the index before it leaves the frozen table.
 *
 * Threads: no lock of its own. Writers hold the store's mem lock exclusively, readers shared; the
 * appender alone may also read without it, since nobody else writes.
 */
#ifndef HL_MEMTABLE_H
#define HL_MEMTABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "index.h"

/* As kept in a block of the index, without the head. */
struct mem_entry {
    uint64_t position;
    uint32_t length : 31;
    uint32_t operation : 1;
    uint32_t distance; /* of its seq from the chunk's first */
};

struct mem_chunk {
    uint64_t first_seq;
    uint64_t first_byte; /* offset of its first line in the session's log */
    uint32_t count, capacity;
    struct mem_entry entries[];
};

struct mem_documents;
struct mem_calls;
struct sums;

struct mem_session {
    struct mem_session *next_by_id, *next_by_number;
    struct index_row row; /* id and attributes are owned */
    bool hidden;          /* made by a batch that is not stored yet: readers pass it over */
    bool deleted;         /* it was, with all that older tables and the index still have of it */
    uint64_t trim_below;  /* of what is older the events below this seq are to go; 0: none are */
    bool base_has_seq;    /* where this table's part begins: */
    uint64_t base_last_seq, base_bytes, base_records, base_operations, base_gone;
    /* Of a reader's table: bytes that trims took from this part, the last one at a log position. */
    uint64_t part_gone, part_gone_at;
    struct mem_chunk **chunks;
    uint32_t chunk_count, chunk_capacity;
    struct mem_documents *documents; /* mem_documents.h; NULL: no operation since it was begun */
    struct sums *sums; /* what its events come to, all of them; NULL: none yet; owned */

    /* The batch that is being put together; guarded by the store's append lock. Of meaning only
     * while batch equals the store's current batch number. */
    uint64_t batch;
    struct index_row batch_before; /* the row's totals when the batch began */
    uint64_t batch_last_seq;
    bool batch_has_seq, batch_created;
    struct index_documents batch_documents; /* what row.documents becomes with the batch */

    uint64_t receipt_first, receipt_last;
    size_t receipt_records;
    uint64_t new_first, new_last; /* of the records that are no retries */
    size_t new_records;
    uint32_t newest_placed; /* of these, its place in the batch's list plus 1; 0: none */
    char *id_json;          /* the id as a JSON string, made on first use; owned */
    uint32_t id_json_len;

    /* Of sums_batch.c, guarded by the append lock too. */
    struct mem_calls *calls; /* mem_calls.h; NULL: no tool_call_id since it was begun; owned */
    size_t calls_bytes;      /* of it that are in table->bytes */
    bool older_calls;        /* an older table or the index may know more of them */
    uint64_t stage_batch;
    uint32_t stage[2]; /* its stages in that batch, plus 1 */
};

/* A point for root log: `line_bytes` of lines stand in the segment before the frame at `offset`. */
struct mem_point {
    uint32_t segment;
    uint64_t line_bytes, offset;
};

struct memtable {
    struct mem_session **by_id, **by_number;
    size_t buckets;                /* of each, a power of two */
    struct mem_session **sessions; /* in order of arrival */
    size_t session_count, session_capacity;
    struct mem_point *points;
    size_t point_count, point_capacity;
    uint32_t first_created,
        last_created; /* numbers of sessions made meanwhile lie between; 0: none */
    size_t bytes;     /* of memory, about */
    uint64_t records;
    bool drops; /* sessions may be deleted, or to be trimmed */
};

struct memtable *memtable_new(void);
void memtable_free(struct memtable *table); /* NULL is fine */

/* Adds a session with a copy of row, and base_* as row's totals say. NULL: out of memory. */
struct mem_session *memtable_add_session(struct memtable *table, const struct index_row *row);
/* Takes a session out again (made by a batch that failed). */
void memtable_drop(struct memtable *table, size_t i);

/* The session is gone, whatever is older than the table still has of it: only its number finds it.
 */
void memtable_delete(struct memtable *table, struct mem_session *session);
/* Takes the events below a seq out of the table's part, and notes that they are to go from what is
 * older; adds up what was taken out. */
void memtable_trim(struct memtable *table, struct mem_session *session, uint64_t below,
                   uint64_t *records, uint64_t *bytes);
/* So much went from what is older than the session's part. What is left there: older_records, the
 * first with seq older_first. */
void mem_session_lower(struct mem_session *session, uint64_t records, uint64_t bytes,
                       uint64_t older_records, uint64_t older_first);

/* Of the two only by_number finds sessions that are deleted. */
struct mem_session *memtable_by_id(const struct memtable *table, const char *id, size_t len);
struct mem_session *memtable_by_number(const struct memtable *table, uint32_t number);
/* The same, of a table that may be NULL, and of none that is deleted. */
const struct mem_session *memtable_part(const struct memtable *table, uint32_t number);

/* Gives the session the sums it had before; the table owns them from now on. NULL is fine. */
void memtable_take_sums(struct memtable *table, struct mem_session *session, struct sums *sums);

/* Says that a session of the table was made since it was begun, and is in nothing older. */
void memtable_note_created(struct memtable *table, uint32_t number);
/* The least number above `after` of those that is neither hidden nor deleted; 0: none. */
uint32_t memtable_next_created(const struct memtable *table, uint32_t after);

/* Replaces the attributes of a session; the table owns the block (from malloc, or NULL) from now
 * on. */
void memtable_take_attributes(struct memtable *table, struct mem_session *session, void *attributes,
                              uint32_t len);

/* So that memtable_append() finds near what it needs: the first some time before the second. */
void memtable_prefetch_list(const struct mem_session *session);
void memtable_prefetch(const struct mem_session *session);
/* Appends an entry above the session's last seq and brings its row up to date. -ENOMEM. */
int memtable_append(struct memtable *table, struct mem_session *session,
                    const struct index_entry *entry, uint64_t recorded_ms);
/* Takes the session's newest entries back, until its row's totals are those of `before`. */
void memtable_take_back(struct memtable *table, struct mem_session *session,
                        const struct index_row *before);
/*
 * For a table that a reader keeps beside a writer: what is older than the session's part is now as
 * `indexed` says (its totals, last_seq, documents, and `indexed` itself, up to where it has the
 * session's entries: these leave the table). What trims took from the part is in the index's `gone`
 * only when it has come as far as the trim.
 */
void memtable_rebase(struct memtable *table, struct mem_session *session,
                     const struct index_row *indexed);
int memtable_add_point(struct memtable *table, const struct mem_point *point);

/* Whether the seq (offset) would lie in this table's part of the session, not below it. */
bool mem_session_covers_seq(const struct mem_session *session, uint64_t seq);
bool mem_session_covers_offset(const struct mem_session *session, uint64_t offset);

/* The first entry with a seq >= seq; false if there is none. *begin (may be NULL): its line's
 * offset. */
bool mem_session_find(const struct mem_session *session, uint64_t seq, struct index_entry *entry,
                      uint64_t *begin);
/* The entry that holds byte `offset` of the session's log; false past the end. */
bool mem_session_find_offset(const struct mem_session *session, uint64_t offset,
                             struct index_entry *entry, uint64_t *begin);
/* Calls each() for entries with seq >= from until it returns false; returns what it last returned.
 */
bool mem_session_each_from(const struct mem_session *session, uint64_t from, index_each *each,
                           void *context);

#endif
