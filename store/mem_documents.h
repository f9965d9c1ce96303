/*
 * mem_documents.h - what operations changed since a memtable was begun: slots, their new versions,
 * and the operations themselves. A part of a session in the memtable; see memtable.h.
 *
 * Versions are put in while a batch is being put together, before it is stored. They count for
 * readers only once the session's row says that their seq was given: those above row.last_seq are
 * staged, and taken out again if the batch fails.
 */
#ifndef HL_MEM_DOCUMENTS_H
#define HL_MEM_DOCUMENTS_H

#include "memtable.h"

#define MEM_SLOT_LEVELS 12
#define MEM_MARK_SPACING 256U

struct mem_slot {
    struct mem_slot *next_by_key, *next_staged;
    uint64_t number, area;
    bool made;        /* its number was given since the table was begun */
    bool staged;      /* it is in the list of those that the batch under way changed */
    bool was_present; /* if so: whether a document was there before the batch; fold.c sets it */
    uint32_t count, capacity;
    struct index_version *versions; /* ascending */
    uint16_t key_len;
    uint8_t levels;
    char *key;
    struct mem_slot *forward[]; /* a skip list by number */
};

/* What the operations came to with this one: where a flush may pause. */
struct mem_mark {
    uint64_t seq;
    struct index_documents totals;
};

struct mem_documents {
    struct mem_slot **by_key;
    size_t buckets; /* a power of two */
    size_t slot_count;
    struct mem_slot *first[MEM_SLOT_LEVELS];
    struct mem_slot *staged;
    struct index_operation *operations; /* ascending; each owns its slots */
    size_t operation_count, operation_capacity;
    struct mem_mark *marks; /* one every MEM_MARK_SPACING operations, ascending */
    size_t mark_count, mark_capacity;
};

void mem_documents_free(struct mem_documents *documents); /* NULL is fine */

struct mem_slot *mem_slot_by_key(const struct mem_session *session, uint64_t area, const char *key,
                                 size_t len);
struct mem_slot *mem_slot_by_number(const struct mem_session *session, uint64_t number);
/* The one with the lowest number above `after`; NULL: none. */
struct mem_slot *mem_slot_next(const struct mem_session *session, uint64_t after);

/* Adds a slot that the session's part has not yet, as a staged one. NULL: out of memory. */
struct mem_slot *mem_slot_add(struct memtable *table, struct mem_session *session,
                              const struct index_slot *slot, bool made);
/* Adds a version above the slot's last, as a staged one; one with the same seq is replaced. */
int mem_slot_push(struct memtable *table, struct mem_session *session, struct mem_slot *slot,
                  const struct index_version *version);
/* The last version with a seq <= limit; NULL: none here. */
const struct index_version *mem_slot_version(const struct mem_slot *slot, uint64_t limit);
/* The first with a seq >= from. */
const struct index_version *mem_slot_version_from(const struct mem_slot *slot, uint64_t from);

/* Adds an operation above the last; takes over its slots, which are from malloc. */
int mem_operation_add(struct memtable *table, struct mem_session *session,
                      const struct index_operation *operation);
const struct index_operation *mem_operation_get(const struct mem_session *session, uint64_t seq);

/* An operation was folded: notes session->batch_documents, if the last mark is far enough. */
int mem_documents_mark(struct memtable *table, struct mem_session *session, uint64_t seq);

/* The batch is stored: nothing is staged any more. */
void mem_documents_settle(struct mem_session *session);
/* The batch failed: takes out what has a seq above the last one given (has_seq: there is one). */
void mem_documents_take_back(struct memtable *table, struct mem_session *session, bool has_seq,
                             uint64_t last_seq);

#endif
