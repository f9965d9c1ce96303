/*
 * placed.h - the records of one batch, in order, and how one is found by its seq.
 *
 * Those of one session are a chain from the newest to the oldest, in which each also knows one much
 * older (jump). By these a record is found in steps that grow with the logarithm of their number,
 * so that a large batch of retries does not hold the append lock for long. Guarded by that lock.
 */
#ifndef HL_PLACED_H
#define HL_PLACED_H

#include "memtable.h"

/* Links are places in the list plus 1; 0: there is none. */
struct placed {
    struct mem_session *session;
    struct index_entry entry;
    uint32_t rank; /* among the session's, from 1 */
    uint32_t previous, jump;
};

/* Zero it to begin; `at` is to be freed. */
struct placed_list {
    struct placed *at;
    size_t count, capacity;
};

/* Adds a record with a seq above those of its session's before; newest_placed of a session of which
 * there is none is 0. -ENOMEM. */
int placed_add(struct placed_list *list, struct mem_session *session,
               const struct index_entry *entry);

/* Adds a record that is never looked for, of a session that is not known yet: only its entry is
 * set. -ENOMEM. */
int placed_add_apart(struct placed_list *list, const struct index_entry *entry);

/* Adds all of another list, likewise. */
int placed_add_list(struct placed_list *list, const struct placed_list *other);

/* The record of this seq; NULL: there is none in the list. */
const struct index_entry *placed_find(const struct placed_list *list,
                                      const struct mem_session *session, uint64_t seq);

/* One step of that, from a link (newest_placed at first): the link to look at next, which is 0 or
 * that of a record whose seq is not below what is looked for, or of the newest that is below. */
uint32_t placed_step(const struct placed_list *list, uint32_t link, uint64_t seq);

#endif
