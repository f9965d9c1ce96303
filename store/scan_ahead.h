/*
 * scan_ahead.h - a scan that runs in a thread of its own, ahead of who consumes it.
 *
 * Reading and checking frames is what a rebuild can do in parallel: each segment by itself.
 * Applying them is in order, and done by the consumer. At most SCAN_AHEAD_CHUNKS chunks of items
 * wait.
 */
#ifndef HL_SCAN_AHEAD_H
#define HL_SCAN_AHEAD_H

#include "scan.h"

struct scan_ahead;

/* Begins to scan. events: lines of events are read for the sums. fd must stay open until
 * scan_ahead_stop(). NULL: no memory, or no thread. */
struct scan_ahead *scan_ahead_start(const struct hl_io *io, int fd, uint32_t salt, uint64_t from,
                                    uint64_t end, bool events);
/* As scan_next(), but that only session frames, operations and seals have a body; it, and what
 * events have for the sums, lives until the next call. */
int scan_ahead_next(struct scan_ahead *ahead, struct scan_item *item);
void scan_ahead_stop(struct scan_ahead *ahead); /* NULL is fine */

#endif
