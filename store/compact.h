/*
 * compact.h - the parts of compaction (format.md, Compaction).
 *
 * A run is a few neighbouring sealed segments, wholly in the index, that become one:
 *
 *   compact_plan.c    counts what is dead in each segment, and chooses runs
 *   compact_needed.c  which operations must stay, though they are old
 *   compact_history.c moves the beginning of histories before others go
 *   compact_frames.c  the frames of a run in memory, and which of them live
 *   compact_sums.c    what the events come to that are dropped, carried on
 *   compact_write.c   the new segment, written, synced and read back
 *   compact_patch.c   the index led from the old segments to the new one; opening does it too
 *   compact.c         a run from end to end, and hl_compact()
 *   backup.c          where the replaced files go, and for how long
 *
 * What lives is what the index points to, so a run needs to know nothing of why a record was
 * dropped. A crash before the rename leaves the old segments, one after it the new one; what the
 * index says of them is made good at the next opening by the same patch.
 */
#ifndef HL_COMPACT_H
#define HL_COMPACT_H

#include "core.h"

#define COMPACT_SOURCES_MAX 64U

/* A frame of a run. Places are indexes into the table plus 1; 0: none. */
struct compact_frame {
    uint64_t seq;
    uint32_t session, offset, length;
    uint32_t next; /* the session's next record */
    uint16_t source;
    uint8_t type;  /* enum frame_type */
    uint8_t flags; /* of the batch; after compact_settle() as they are to be written */
    bool keep;
};

/* What a run has of a session. */
struct compact_session {
    uint32_t number;      /* 0: this place of the hash table is free */
    uint32_t begin;       /* its first frame, of whatever kind */
    uint32_t first, last; /* its records, a list by compact_frame.next */
    uint32_t head;        /* its first session frame, */
    uint32_t newest;      /* and its last */
    uint32_t operations;
    bool has_highest;
    uint64_t highest; /* seq that was given, by its records and session frames */
    char *body;       /* what stands in the head's place instead, or NULL; owned */
    uint32_t body_len;
    char *tail; /* a session frame for the end of the segment, or NULL; owned */
    uint32_t tail_len;
    bool known;            /* the index has it */
    bool told;             /* the highest seq, by a record that stays or one behind the run */
    bool unreadable;       /* session frames that cannot be read are among them: all stay */
    uint64_t trimmed;      /* events below are dropped */
    uint64_t history_from; /* by its session frames, if it has something to carry */
    struct sums *carried;  /* what its lead carries, or NULL: it has none; owned */
};

/* Where the frame goes that carries a session's sums. */
struct compact_lead {
    uint32_t before; /* place of a frame that begins a batch */
    uint32_t session;
};

struct compact_table {
    struct compact_frame *frames;
    uint32_t count, capacity;
    struct compact_session *sessions; /* a hash table; not in any order */
    uint32_t buckets, session_count;
    struct compact_lead *leads; /* in their order */
    uint32_t lead_count;
    uint32_t records;      /* events and operations */
    uint64_t record_bytes; /* of their frames */
    uint64_t line_bytes;
    bool damaged; /* there are bytes that are no frame */
};

void compact_table_init(struct compact_table *table);
void compact_table_free(struct compact_table *table);
/* NULL: there is none. */
struct compact_session *compact_table_find(const struct compact_table *table, uint32_t number);
/* Adds the frames of a segment, which is open. cancel may be NULL: -EINTR once it is set. */
int compact_table_scan(struct compact_table *table, struct hl_store *store,
                       const struct segment *segment, uint16_t source, _Atomic bool *cancel);

/* The segments of a run, taken, in order. */
struct compact_run {
    struct hl_store *store;
    struct segment *sources[COMPACT_SOURCES_MAX];
    size_t count;
    struct hl_progress *progress; /* may be NULL */
    uint32_t backup;              /* the lowest number of a segment in backup/ */
    bool time_is_sound;           /* the history window may move */
    uint64_t begun_ms;            /* by the store's clock, before it was looked what lives */
    struct compact_table table;
    struct segment *made; /* the new one */
    uint64_t other;       /* bytes of its frames that are no records */
};

/* Decides what of the table stays, and what session frames are to say. */
int compact_settle(struct compact_run *run);

/* Whether a frame, counted from 0, begins a batch. Before compact_settle() is done with it. */
bool compact_begins_batch(const struct compact_table *table, uint32_t i);
/* Of compact_settle(): what is dropped, once it is known what stays. */
int compact_gather_sums(struct compact_run *run);
/* The body of the frame that carries the sums of a session. -ENOENT: it was deleted meanwhile. */
int compact_make_lead(struct compact_run *run, const struct compact_session *session, char **text,
                      size_t *len);
/* Whether there is such a frame in a segment: 1, 0, or an error. */
int compact_carries(struct hl_store *store, const struct segment *segment,
                    const struct compact_table *table);

/* From where on operations of a session stay in any case: its history_from, or where that will be
 * moved to. */
int compact_bound(struct hl_store *store, const struct hl_session *session, bool time_is_sound,
                  uint64_t *bound);
struct compact_needed;
int compact_needed_of(struct hl_store *store, uint32_t session, uint64_t bound, uint32_t backup,
                      struct compact_needed *needed);
/* Moves the beginning of histories on, where the run has operations that may go then. */
int compact_move_history(struct compact_run *run);

/* Writes run->made to a temporary file, synced and checked, and leaves it open in run->made->fd. */
int compact_write(struct compact_run *run);
void compact_temporary_name(const struct segment *segment, char name[SEGMENT_NAME_MAX + 8]);

/* What a patch did. */
struct compact_patched {
    uint64_t records, bytes; /* dropped from the index */
};

/*
 * Leads an index from segments that it lists to the one that took their place. sessions: which
 * ones may have records in them; NULL: all of the index are looked at. Any part of it may be done
 * already. flush_lock is not held, or the store is being opened. -EBADMSG: the two do not fit.
 * -ESTALE: the index ends inside the run, and the new segment carries sums, of which nobody can
 * tell which part it has.
 */
int compact_patch(struct hl_store *store, struct segment *segment,
                  const struct compact_table *sessions, struct compact_patched *patched);

/* Leads the index to the segment that an earlier run put in place and could not lead it to, if
 * there is one. reindex_lock is held. */
int compact_finish(struct hl_store *store);

/* Rewrites every sealed segment that has bytes of a session, which is deleted, or may have (damaged
 * bytes go too), and keeps none of the old files. */
int compact_erase(struct hl_store *store, uint32_t session, struct hl_progress *progress,
                  struct hl_error *err);

/* How much of a segment is dead, as far as can be told without reading it. */
struct compact_segment {
    uint32_t first, last, generation;
    uint64_t size, live, dead;
    bool eligible, done;
};

struct compact_plan {
    struct compact_segment *segments; /* in order; all that are sealed and wholly indexed */
    size_t count;
    uint64_t dead;
};

int compact_plan_make(struct hl_store *store, bool time_is_sound, uint32_t backup,
                      struct compact_plan *plan);
void compact_plan_free(struct compact_plan *plan);

/* Segments of a plan that a run takes, the last not included. */
struct compact_choice {
    size_t begin, end;
};

/* Says which are worth it: those with anything dead in them, or with so much of it; returns their
 * bytes. */
uint64_t compact_plan_mark(struct compact_plan *plan, bool everything, uint64_t threshold);
/* The one with the largest dead share of those that are left, but for those from begin to end, the
 * last not included; NULL: there is none. */
struct compact_segment *compact_plan_worst(const struct compact_plan *plan, size_t begin,
                                           size_t end);
/* Takes the neighbours that come along. whole: bytes of a segment. */
void compact_plan_extend(const struct compact_plan *plan, uint64_t whole,
                         struct compact_choice *choice);

#endif
