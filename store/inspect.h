/*
 * inspect.h - a walk over the frames of segments, which are held against their batch flags and the
 * index: what hl_verify() does in a store that is open, and hl_check() in one that is not. It
 * changes nothing.
 *
 * A void frame stands where bytes were set aside: what it cut off of a batch is known to be lost,
 * and no fault. A batch that damage cuts is counted as broken, but not told of beside the damage.
 */
#ifndef HL_INSPECT_H
#define HL_INSPECT_H

#include "core.h"
#include "scan.h"

/* What became of the entry that the index should have for a record. */
enum inspect_entry {
    ENTRY_MATCHED,
    ENTRY_MISSING, /* or it leads elsewhere */
    ENTRY_LATER    /* not there, and need not be yet */
};

struct inspect_ahead;

struct inspect {
    /* Given by the caller; functions may be NULL. What they get lives until they return. */
    struct hl_store *store;
    struct hl_verify_report *report;
    struct hl_progress *progress;
    uint64_t complete; /* log position below which the index has every record; 0: it is not asked */
    void (*damaged)(void *context, const struct segment *segment, const struct scan_item *item);
    /* A batch that lacks its end, or whose beginning is missing; from this offset. */
    void (*broken)(void *context, const struct segment *segment, uint64_t offset);
    /* Each good frame, before the index is asked for it; false: do not ask. */
    int (*frame)(void *context, const struct segment *segment, const struct scan_item *item,
                 bool *ask);
    void (*entry)(void *context, const struct scan_item *item, enum inspect_entry entry);
    void *context;

    uint64_t matched; /* entries */

    /* Inside. */
    struct inspect_ahead *ahead;
    bool in_batch, after_gap, after_void;
    uint64_t batch_at; /* where the open batch begins */
};

int inspect_init(struct inspect *inspect); /* the caller has filled in the upper part; -ENOMEM */
void inspect_free(struct inspect *inspect);

/* Walks a segment (taken by the caller) up to an offset. -EINTR: cancelled. */
int inspect_segment(struct inspect *inspect, const struct segment *segment, uint64_t end);

#endif
