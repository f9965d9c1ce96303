/*
 * drop.h - drop frames: what they say, and what they do to the memtable.
 *
 * A drop frame hides what stands before it in the log: the events of a session with a seq below
 * `below`, or a session with all of its records. seq and session of the frame are `below` (0 for a
 * delete) and the session's number. A trim's frame comes behind a session frame, in one batch: so
 * the last seq that was given outlives what was trimmed.
 */
#ifndef HL_DROP_H
#define HL_DROP_H

#include "core.h"

enum drop_kind { DROP_TRIM, DROP_DELETE };

struct drop {
    enum drop_kind kind;
    uint64_t below; /* of a trim: 1 to HL_SEQ_MAX + 1 */
    uint64_t gone;  /* of a trim: bytes that were dropped from the session before, to be told */
};

#define DROP_BODY_MAX 96U

/* Writes the body; returns its length. */
size_t drop_encode(const struct drop *drop, char body[DROP_BODY_MAX]);
/* -EBADMSG: it is no drop that we know. */
int drop_decode(const char *body, size_t len, struct drop *drop);

/* What a drop takes from the active table, and what it leaves the flush to take from what is older.
 * append_lock and mem_lock are held. Adds to *dropped what readers do not see any more: of a delete
 * that is all. Doing it again changes nothing. */
void drop_apply(struct hl_store *store, struct mem_session *session, const struct drop *drop,
                struct hl_dropped *dropped);

#endif
