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

struct inspect_looked_up;

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
    /* Before and, if nothing failed, after a segment's frames. */
    int (*begin)(void *context, const struct segment *segment, uint64_t end);
    int (*end)(void *context);
    void (*entry)(void *context, const struct scan_item *item, enum inspect_entry entry);
    void *context;

    uint64_t matched; /* entries */

    /* Inside. */
    struct inspect_looked_up *looked_up;
    bool in_batch, after_gap, after_void;
    uint64_t batch_at; /* where the open batch begins */
};

/*
 * Walks all segments up to the one that begins with number `last`, and that one up to an offset;
 * the next ones are read ahead meanwhile, in threads of their own. Only session frames and seals
 * have a body. -EINTR: cancelled. *at (may be NULL) is the name of the segment that an error is
 * about.
 */
int inspect_segments(struct inspect *inspect, uint32_t last, uint64_t end,
                     char at[SEGMENT_NAME_MAX]);

#endif
