/*
 * explore.h - all that a power cut may leave of a recording, each recovered from and checked.
 *
 * A workload is run in rounds, which differ by chance. A state is named
 * workload.ROUND:POSITION:VARIANT:INDEX, where POSITION is how many calls had been made, VARIANT
 * which of the changes that were not synced are there, and INDEX what became of index/; for a power
 * cut during the recovery from it, /POSITION:VARIANT:INDEX follows.
 */
#ifndef CRASH_EXPLORE_H
#define CRASH_EXPLORE_H

#include "model.h"

struct explorer {
    char root[256]; /* a directory for states, in memory if possible; emptied for each */
    uint64_t seed;
    unsigned worker, workers;
    uint64_t budget;    /* states to be recovered from, of this workload, by this worker */
    const char *replay; /* only this state; NULL: all */
    bool keep;          /* the replayed state is left in the directory */

    const struct workload *workload;
    uint64_t chance; /* of this run of the workload */
    struct history history;
    _Atomic uint64_t *seen; /* hashes of states; not its own */
    size_t seen_capacity;   /* a power of two */
    double credit;          /* states of second cuts that are due */

    uint64_t states, second_states, records, folds; /* done */
    char why[WHY_MAX], state[128]; /* the first that failed; why is "" if none did */
};

/* Runs the workload, explores it; false if something is wrong. */
bool explore(struct explorer *explorer, const struct workload *workload);

#endif
