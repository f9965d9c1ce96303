/*
 * test_crash_states.c - workloads that a power cut ends after each of their calls: whatever of what
 * was not synced is there then, the store recovers, and shows what it promised (explore.h).
 *
 * STATES says about how many states are recovered from (110000; 3000 under a sanitizer), WORKLOAD
 * of which workload alone, SEED what chance is made of. STATE=… is one state, as a failure prints
 * it; KEEP=1 leaves that on the disk, before its recovery.
 */
#include <stdio.h>
#include <string.h>

#include "explore.h"
#include "runner.h"

static void work(const struct run *run, const struct workload *workload, unsigned worker,
                 const char *directory, struct result *result)
{
    struct explorer explorer = {
        .seed = run->seed,
        .worker = worker,
        .workers = run->workers,
        .budget = run->share,
        .replay = run->replay,
        .keep = run->keep,
        .seen = run->seen,
        .seen_capacity = run->seen_capacity,
    };
    snprintf(explorer.root, sizeof explorer.root, "%s", directory);
    explore(&explorer, workload);
    result->counts[0] = explorer.states;
    result->counts[1] = explorer.second_states;
    result->counts[2] = explorer.records;
    result->counts[3] = explorer.folds;
    memcpy(result->why, explorer.why, sizeof result->why);
    memcpy(result->name, explorer.state, sizeof result->name);
}

int main(void)
{
    struct run run = {
        .program = "build/tests/test_crash_states",
        .replay_name = "STATE",
        .labels = {"states", "of them by a second cut", "records", "sessions' documents compared"},
        .amount = run_amount("STATES", run_is_slow() ? 3000 : 110000),
        .work = work,
    };
    return run_all(&run);
}
