/* runner.h - the main part of the tests here: workloads one after another, each by several
 * processes, in directories that are in memory if that can be; results as TAP. */
#ifndef CRASH_RUNNER_H
#define CRASH_RUNNER_H

#include "model.h"

#define COUNTS 4

struct result {
    uint64_t counts[COUNTS];
    bool ended;
    char why[WHY_MAX], name[128]; /* of what failed, or is under way; why is "" if nothing did */
};

struct run {
    const char *program;
    const char *replay_name;    /* environment variable that names one thing to be done again */
    const char *labels[COUNTS]; /* of counts; each %s-less, the first must not stay 0 */
    uint64_t amount;            /* of the first count, over all workloads and processes */
    bool (*skip)(const struct workload *workload); /* may be NULL */
    void (*work)(const struct run *run, const struct workload *workload, unsigned worker,
                 const char *directory, struct result *result);

    uint64_t seed;
    const char *replay;
    bool keep;
    unsigned workers;
    uint64_t share; /* of amount, for one workload and one process */
    _Atomic uint64_t *seen;
    size_t seen_capacity;
    char base[200];
    struct result *results;
};

/* Runs all that the environment asks for (SEED, WORKLOAD, WORKERS, KEEP); the exit status. */
int run_all(struct run *run);
uint64_t run_amount(const char *name, uint64_t otherwise); /* from the environment */
bool run_is_slow(void);                                    /* under a sanitizer */
bool empty_directory(const char *path);

#endif
