/*
 * scheduler.h - the thread that compacts every compact_interval, and applies the retain rules
 * before that.
 *
 * What depends on the time of day, the rules and the history window, is suspended for a day when
 * the wall clock went back, or ran more than an hour ahead of the monotonic one, since the last
 * look: a wrong clock must not drop what a right one would keep.
 */
#ifndef HL_SCHEDULER_H
#define HL_SCHEDULER_H

#include "core.h"

int scheduler_start(struct hl_store *store);
void scheduler_stop(struct hl_store *store); /* interrupts what it does */
/* Whether what depends on the time may go on now; a look at the clocks. */
bool scheduler_time_is_sound(struct hl_store *store);

#endif
