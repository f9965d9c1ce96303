/*
 * replay.h - brings frames of the log into the memtable: at opening, for a rebuild, and in a
 * read-only store that follows its writer.
 *
 * It puts batches together: only whole ones count. What a gap in the bytes leaves of a batch are
 * single records in a sealed segment; in the last one, which a power cut may have torn anywhere
 * past its last sync, they count for nothing, and a region from the end of the last whole batch to
 * the next one is told to the caller.
 */
#ifndef HL_REPLAY_H
#define HL_REPLAY_H

#include "drop.h"
#include "scan_ahead.h"

/* The names of an event that the store has met before. */
#define REPLAY_NAMES 64U
struct replay_names {
    uint8_t kind_len, tool_len; /* no kind: none here */
    char text[62];
};

/* Bytes of the unsealed segment that hold no whole batch, with whole batches behind them. */
struct replay_region {
    uint64_t offset, size;
};

struct replay {
    struct hl_store *store;
    struct segment *segment; /* taken by the caller */
    bool sealed;             /* the segment is not the last one */
    bool watch;              /* read-only, beside a writer: stop where damage would begin */
    bool flush;              /* move full tables to the index on the way (sealed segments only) */

    bool tell;                /* give news of what is applied */
    struct scan_ahead *ahead; /* a scan of just this range that runs already, or NULL; not owned */

    /* What was found, after replay_segment(). */
    uint64_t end; /* behind the last whole batch (sealed segments: behind the last good frame) */
    uint64_t tail_end; /* where bytes that are not blank end; above `end` there is a torn tail */
    bool seal_found;   /* the seal is the last frame */
    uint64_t gaps, gap_bytes;
    uint64_t records; /* applied */
    bool blocked; /* read-only, beside a writer: a drop follows that its index does not have yet */
    struct replay_region *regions;
    size_t region_count, region_capacity;

    size_t together; /* so many frames may wait, as things are; kept from segment to segment */

    /* Inside: whole batches that wait, and the one being put together. */
    struct replay_frame *pending;
    size_t pending_count, pending_capacity;
    size_t waiting;    /* of them, those of whole batches */
    size_t body_bytes; /* that they own */
    bool open;         /* the last batch is not whole yet */
    bool only_records; /* all pending frames are records */
    bool new_names;    /* the last batch has one that the store has not met */
    struct replay_names names[REPLAY_NAMES];
    struct mem_session **touched; /* by it, in order of first appearance */
    size_t touched_count, touched_capacity;
    uint8_t *events; /* what its events add to the sums, as sums_event_read_packed() has it */
    size_t events_len, events_capacity;
    struct replay_group *groups; /* replay_group.c: of the batch, if it has nothing but records */
    uint32_t *slots;             /* a hash table of them */
    size_t group_count, group_capacity, slot_capacity;
    uint64_t region_from; /* 0: none open */
    uint64_t next_point;
};

/* What prepare() finds of a frame that is no record. */
struct replay_more {
    /* Of session frames: */
    struct index_row *row; /* what the body says, or NULL; owned */
    struct sums *carried;  /* or NULL; owned */
    /* Of drops: */
    struct drop drop;
    struct index_row indexed;  /* in a read-only store: what the index says (totals), */
    bool is_indexed;           /* if it knows the session */
    struct hl_dropped dropped; /* what it dropped */
};

/* A frame as it is kept until its batch is whole. A batch may have many, so it is kept small. */
struct replay_frame {
    uint64_t seq, recorded_ms;
    uint32_t offset, length, session;
    uint16_t type, flags;
    char *body;     /* of session frames, operations and drops; owned */
    uint32_t event; /* of events: where in replay->events it begins, plus 1; 0: it has no sums */
    uint32_t next : 31; /* in its group: the place of the next one, plus 1; 0: it is the last */

    /* What prepare() found: */
    uint32_t counts : 1;      /* it adds to the target; else the index has it, or it must not be */
    struct replay_more *more; /* of session frames and drops; owned */
    struct mem_session *target; /* NULL: nobody knows */
};

/* The records of a session in a batch, in their order. */
struct replay_group {
    uint32_t session;
    uint32_t first, last; /* places of frames */
};

/*
 * Reads the segment from offset `from`, which is the beginning of a batch, to `limit`, and applies
 * it to the store's active table (append_lock is held, or the store is being opened). Gaps of
 * sealed segments are quarantined and reported here; what the last segment needs is the caller's to
 * do. progress may be NULL. 0, an I/O error, -ENOMEM, -EINTR when cancelled, or -ENOTRECOVERABLE:
 * a trim is not in the index, and cannot be brought into it.
 */
int replay_segment(struct replay *replay, uint64_t from, uint64_t limit,
                   struct hl_progress *progress);
void replay_free(struct replay *replay);

/* ---- replay_batch.c ---- */

/* Applies the pending frames, which are a batch. */
int replay_apply(struct replay *replay);
/* The session is part of the batch from now on. */
int replay_touch(struct replay *replay, struct mem_session *session);

/* ---- replay_group.c ---- */

/* Puts the pending frames into groups, in order of their first; none if some are no records, or it
 * is not worth it. -ENOMEM. */
int replay_make_groups(struct replay *replay);

/* ---- replay_names.c ---- */

/* Whether the store has met the names of an event, packed (or has no room for more of them). */
bool replay_names_met(struct replay *replay, const uint8_t *packed);

/* ---- replay_drop.c ---- */

/* The two turns of a drop; apply with mem_lock held. tell: news of it, to a read-only store. */
int replay_drop_prepare(struct replay *replay, struct replay_frame *frame);
void replay_drop_apply(struct replay *replay, struct replay_frame *frame);
void replay_drop_tell(const struct replay *replay, const struct replay_frame *frame);

/* Reports damage at an offset of the segment. */
void replay_damage(const struct replay *replay, uint64_t offset, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
