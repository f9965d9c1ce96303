/*
 * scan_ahead.h - scans that run in threads of their own, ahead of who consumes them.
 *
 * Reading and checking frames is what a rebuild can do in parallel: each segment by itself.
 * Applying them is in order, and done by one consumer. The threads of one consumer share a pool of
 * chunks of items, which bounds what they hold; the one whose items it wants now always finds some
 * room there. How far the others may be ahead of it is what keeps all processors busy while it, or
 * the disk, takes longer over something.
 */
#ifndef HL_SCAN_AHEAD_H
#define HL_SCAN_AHEAD_H

#include "scan.h"

/* About 28 MiB at most, and 8 MiB of bodies beside one that is longer. Made by and for one
 * consumer; NULL: no memory. Freed after the last of its scans is stopped; NULL is fine. */
struct scan_pool;
struct scan_pool *scan_pool_new(void);
void scan_pool_free(struct scan_pool *pool);

struct scan_ahead;

/* Begins to scan. events: lines of events are read for the sums. fd must stay open until
 * scan_ahead_stop(). pool NULL is fine. NULL: no memory, no thread, or no pool. */
struct scan_ahead *scan_ahead_start(struct scan_pool *pool, const struct hl_io *io, int fd,
                                    uint32_t salt, uint64_t from, uint64_t end, bool events);
/* As scan_next(), but that only session frames, operations, drops and seals have a body, and none
 * has a crc32; the body, and what events have for the sums, lives until the next call. */
int scan_ahead_next(struct scan_ahead *ahead, struct scan_item *item);
void scan_ahead_stop(struct scan_ahead *ahead); /* NULL is fine */

#endif
