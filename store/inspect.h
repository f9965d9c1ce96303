/*
 * inspect.h - a walk over the frames of segments, which are held against their batch flags and the
 * index: what hl_verify() does in a store that is open, and hl_check() in one that is not. It
 * changes nothing.
 *
 * A record that the index has not may be hidden by a drop frame that comes later: it counts as
 * missing (report->index_missing) until that is met.
 *
 * A void frame stands where bytes were set aside: what it cut off of a batch is known to be lost,
 * and no fault. A batch that damage cuts is counted as broken, but not told of beside the damage.
 */
#ifndef HL_INSPECT_H
#define HL_INSPECT_H

#include "drop.h"
#include "scan.h"

/* What became of the entry that the index should have for a record. */
enum inspect_entry {
    ENTRY_MATCHED,
    ENTRY_MISSING, /* or it leads elsewhere */
    ENTRY_LATER    /* not there, and need not be yet */
};

struct inspect_looked_up;
struct inspect_missing;

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
    /* A drop frame, and so many records before it that were told of as missing, and it hides. */
    void (*dropped)(void *context, uint32_t session, const struct drop *drop, uint64_t hidden);
    void *context;

    uint64_t matched; /* entries */
    uint64_t hidden;  /* records that the index has not, because they were dropped */

    /* Inside. */
    struct inspect_looked_up *looked_up;
    struct inspect_missing *missing; /* a hash table by session */
    size_t missing_count, missing_slots;
    bool in_batch, after_gap, after_void;
    uint64_t batch_at; /* where the open batch begins */
};

/*
 * Walks all segments up to the one that begins with number `last`, and that one up to an offset;
 * the next ones are read ahead meanwhile, in threads of their own. Only session frames, drops and
 * seals have a body. -EINTR: cancelled. *at (may be NULL) is the name of the segment that an error
 * is about.
 */
int inspect_segments(struct inspect *inspect, uint32_t last, uint64_t end,
                     char at[SEGMENT_NAME_MAX]);

/* ---- inspect_drops.c ---- */

/* The index has not this record, of a session's records the last one so far. -ENOMEM. */
int inspect_note_missing(struct inspect *inspect, const struct frame *frame);
/* A drop frame was met: what it hides is not missing. */
int inspect_take_drop(struct inspect *inspect, const struct frame *frame);
/* Records that are still missing may have been dropped since the walk began, beyond its end. */
int inspect_explain_missing(struct inspect *inspect);
void inspect_forget_missing(struct inspect *inspect);

#endif
