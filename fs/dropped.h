/*
 * dropped.h - generations: what a `log`, a range or a history becomes when records are dropped.
 *
 * Such a file shows records one after another, so when some go, what lies at which offset is
 * another. It is another inode then: its node has the session's next generation. Whoever has the
 * one before open goes on with it: what it was read up to is remembered, and the bytes that went
 * since are counted to its size, so that to its reader it only grows.
 *
 * Only sessions of which something was dropped since the mount take memory, and open files.
 */
#ifndef HL_DROPPED_H
#define HL_DROPPED_H

#include "node.h"

struct dropped;
struct dropped_file; /* a node that is open, once or more often */

struct dropped *dropped_new(void); /* NULL: no memory */
void dropped_free(struct dropped *dropped);

/* So many bytes of lines of the session (0: of the root's log) are gone, and readers see it. False:
 * no memory to remember it. */
bool dropped_add(struct dropped *dropped, uint32_t session, uint64_t bytes);
/*
 * For a mount beside a writer, which gets news of some drops only: `gone` bytes were dropped from
 * the session ever, as its row says now. A rise is taken for the news, if the session was given to
 * dropped_watch() before.
 */
bool dropped_watch(struct dropped *dropped, uint32_t session, uint64_t gone); /* false: no memory */
void dropped_seen(struct dropped *dropped, uint32_t session, uint64_t gone);
/* The session is gone, and its number is never used again. */
void dropped_forget(struct dropped *dropped, uint32_t session);

/* The session's present generation. */
uint32_t dropped_generation(struct dropped *dropped, uint32_t session);
/* Whether the node, of those with a generation, is of an earlier one. */
bool dropped_is_old(struct dropped *dropped, const struct node *node);

/* The node is opened; each open has a close. NULL: no memory. */
struct dropped_file *dropped_open(struct dropped *dropped, const struct node *node);
void dropped_close(struct dropped *dropped, struct dropped_file *file);
/* It was read up to there. False: it was read further already, so this offset is none of what its
 * readers see: a drop is just being made. */
bool dropped_read_to(struct dropped_file *file, uint64_t offset);

/*
 * Makes of the bytes that there are now the size that the node is to show: with what went since its
 * generation, and never less than it was read up to, also where the drop is just being made. False:
 * it is of an earlier generation, and nobody has it open.
 */
bool dropped_size(struct dropped *dropped, const struct node *node, uint64_t *size);

#endif
