/*
 * compact_needed.h - which of a session's operations must stay, though they are below the seq from
 * which its history is complete.
 *
 * The log that is left must fold into what the whole one did: the same documents from that seq on,
 * and the same undos. So of the operations below it these stay:
 *
 * - of each slot the last one that counts (was not undone), and the one that holds its value;
 * - what holds a value that something later took over, and all that carried it there by moves;
 * - a last one that left no document, as long as there is an older one of the slot that it hides,
 *   in a live segment or in backup/;
 * - undos, as long as there is one that was undone;
 * - the newest of each slot, as long as an older one would have it be something else.
 *
 * Where an undo above may have taken back an operation below, the bound is lowered to that one.
 */
#ifndef HL_COMPACT_NEEDED_H
#define HL_COMPACT_NEEDED_H

#include "core.h"

struct compact_needed {
    uint64_t bound;         /* what is at or above stays */
    uint64_t *seqs;         /* what stays below it, ascending */
    size_t count, capacity; /* of them */
    uint64_t *rows;         /* operations that could be undone, ascending */
    size_t row_count;
    bool any_undone; /* there is one that was undone, below the bound */
    uint64_t first_undone;
    uint32_t backup; /* the lowest number of a segment in backup/ */
};

/* history_from: what is below may go. view: of an index that has all of the session's operations
 * that were appended before history_from was set. */
int compact_needed_find(struct compact_needed *needed, struct index_view *view, uint32_t session,
                        uint64_t history_from, uint32_t backup);
void compact_needed_free(struct compact_needed *needed);
/* Whether the operation stays. segment: the first number of the one that holds it. */
bool compact_needed_has(const struct compact_needed *needed, uint64_t seq, uint32_t segment);

#endif
