/*
 * documents.h - where documents are found: the active table, the frozen one, the index. The public
 * side of it stands in store.h.
 */
#ifndef HL_DOCUMENTS_H
#define HL_DOCUMENTS_H

#include "core.h"
#include "mem_documents.h"

/* What is asked for. */
struct document_query {
    uint32_t session;
    uint64_t number; /* of the slot; 0: by area and key */
    uint64_t area;
    const char *key;
    size_t key_len;
    uint64_t limit; /* the last version with a seq up to this; UINT64_MAX: the last one */
    bool staged;    /* what the batch under way did counts too: append_lock is held */
};

struct document_state {
    uint64_t number;
    bool has_version; /* else the slot is known, and nothing happened to it up to limit */
    struct index_version version;
};

/* -ENOENT: there is no such slot. */
int documents_state(struct hl_store *store, const struct document_query *query,
                    struct document_state *state);
/* Area and key of a slot. `key` has room for HL_KEY_MAX bytes. -ENOENT. */
int documents_name(struct hl_store *store, uint32_t session, uint64_t number, uint64_t *area,
                   char *key, uint16_t *key_len);
/* Numbers of the slots of an area in which a document is now, ascending, above `after`: at most max
 * of them. Returns their count; fewer than max: there are no more. */
ssize_t documents_numbers(struct hl_store *store, uint32_t session, uint64_t area, uint64_t after,
                          bool staged, uint64_t *numbers, size_t max);
/* The operation with this seq, a copy; its slots are the caller's to free. -ENOENT. append_lock is
 * held. */
int documents_operation(struct hl_store *store, uint32_t session, uint64_t seq,
                        struct index_operation *operation);

#endif
