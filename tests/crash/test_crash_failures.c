/*
 * test_crash_failures.c - each call of each workload fails once, with EIO, ENOSPC or EINTR, or does
 * half of its work; and each piece of memory is refused once. What went well must be there, and
 * nothing else, at once, after the death of the process, and, as far as it was synced, after a
 * power cut; and all that comes later.
 *
 * FAULTS says about how many are tried (9000; 0: all), WORKLOAD, SEED as in test_crash_states.c.
 * FAULT=… is one, as a failure prints it: workload.ROUND:ERROR:NTH.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner.h"

/* Errors, and memory. */
static const struct {
    const char *name;
    int error;
    bool memory;
} kinds[] = {
    {"EIO", -EIO, false}, {"ENOSPC", -ENOSPC, false}, {"EINTR", -EINTR, false},
    {"short", 0, false},  {"memory", -ENOMEM, true},
};
#define KINDS (sizeof kinds / sizeof kinds[0])

struct trying {
    const struct run *run;
    const struct workload *workload;
    const char *root;
    char name[128];
    struct result *result;
    struct record record;
    struct history history;
    struct timeline timeline;
    struct actor actor;
    uint64_t calls, allocations; /* of the last one */
};

static bool failed(struct trying *trying, const char *when, const char *why)
{
    if (!trying->result->why[0]) {
        snprintf(trying->result->why, sizeof trying->result->why, "%s: %.1500s (failed: %s)", when,
                 why, trying->record.fault.what ? trying->record.fault.what : "nothing");
    }
    return false;
}

static bool check(struct trying *trying, const char *when)
{
    struct finding finding;
    struct actor *actor = &trying->actor;
    struct set may = actor->visible;
    for (size_t i = 0; i < BATCHES_MAX / 64; i++)
        may.bits[i] |= actor->maybe.bits[i];
    if (actor->why[0])
        return failed(trying, when, actor->why);
    if (!check_store(&trying->history, actor->store, &actor->visible, &may, true, &finding))
        return failed(trying, when, finding.why);
    return true;
}

/* Root log is as long as it says. */
static bool check_root_size(struct trying *trying)
{
    char buffer[4096], why[128];
    struct hl_store *store = trying->actor.store;
    uint64_t size, at = 0;
    ssize_t n = hl_root_log_size(store, &size);
    while (n == 0 && (n = hl_root_log_read(store, at, buffer, sizeof buffer, NULL)) > 0) {
        at += (uint64_t)n;
        n = 0;
    }
    if (n == 0 && at == size)
        return true;
    snprintf(why, sizeof why, "root log has %" PRIu64 " bytes, not %" PRIu64 " (%zd)", at, size, n);
    return failed(trying, "at once", why);
}

/* As the workload left it, if it did. */
static bool check_live(struct trying *trying)
{
    struct hl_status status;
    static const char *const ids[] = {"later", "later"};
    struct actor *actor = &trying->actor;
    if (!actor->store)
        return true;
    hl_store_status(actor->store, &status);
    if (!status.failed) { /* it has healed, and says so by what it does */
        actor->lenient = false;
        actor_root(actor, ids, 2);
    }
    /* Between its segment and its index a compaction leaves what readers of records do not see, and
     * readers of root log do, until the next one, or the next opening. */
    return actor->half_compacted ? check_root_size(trying) : check(trying, "at once");
}

static bool check_restarted(struct trying *trying)
{
    static const char *const ids[] = {"after", "after"};
    struct actor *actor = &trying->actor;
    actor->lenient = false;
    for (unsigned turn = 0; turn < 2; turn++) {
        actor_die(actor);
        actor->half_compacted = false;
        if (!actor_open(actor) ||
            !check(trying, turn ? "after a second restart" : "after a restart"))
            return failed(trying, "restart", actor->why);
        actor_root(actor, ids, 2);
        actor_sync(actor);
    }
    actor_die(actor);
    return true;
}

/* Nothing of what was not synced is there. */
static bool check_cut(struct trying *trying, const struct tree *empty)
{
    struct disk disk;
    struct tree tree;
    struct record record;
    struct timeline timeline;
    struct actor actor;
    struct finding finding;
    size_t position = trying->record.count;
    const struct moment *moment = timeline_find(&trying->timeline, position);
    disk_init(&disk, empty);
    for (size_t i = 0; i < position; i++)
        disk_do(&disk, &trying->record.calls[i]);
    struct fate *fates = calloc(disk.count + 1, sizeof *fates);
    if (!fates)
        abort();
    disk_cut(&disk, fates, &tree);
    free(fates);
    disk_free(&disk);
    if (!empty_directory(trying->root) || !tree_write(&tree, trying->root))
        return failed(trying, "power cut", strerror(errno));
    record_begin(&record, trying->root, &tree, trying->run->seed);
    timeline_begin(&timeline, &moment->must, &moment->may);
    actor_init(&actor, &record, &trying->history, &timeline, trying->actor.dir, 1);
    bool good = actor_open(&actor);
    if (!good)
        failed(trying, "power cut", actor.why);
    else if (!check_store(&trying->history, actor.store, &moment->must, &moment->may, true,
                          &finding))
        good = failed(trying, "power cut", finding.why);
    actor_die(&actor);
    record_end(&record);
    free(timeline.at);
    tree_free(&tree);
    return good;
}

/* Runs the workload with this fault. nth 0: without one, to count. */
static bool try_fault(struct trying *trying, size_t kind, uint64_t nth, unsigned round)
{
    static const struct set nothing;
    struct tree empty;
    struct fault fault = {.error = kinds[kind].error};
    char dir[300];
    if (kinds[kind].memory)
        fault.memory = nth ? nth : UINT64_MAX;
    else
        fault.nth = nth;
    snprintf(trying->name, sizeof trying->name, "%s.%u:%s:%" PRIu64, trying->workload->name, round,
             kinds[kind].name, nth);
    memcpy(trying->result->name, trying->name, sizeof trying->result->name);
    snprintf(dir, sizeof dir, "%s/d", trying->root);
    if (!empty_directory(trying->root))
        return failed(trying, "directory", strerror(errno));
    tree_init(&empty);
    trying->history = (struct history){.session_count = 0};
    uint64_t chance = hash_mix(trying->run->seed, round);
    record_begin(&trying->record, trying->root, &empty, chance);
    timeline_begin(&trying->timeline, &nothing, &nothing);
    actor_init(&trying->actor, &trying->record, &trying->history, &trying->timeline, dir, chance);
    trying->actor.lenient = nth > 0;
    trying->actor.turn = round;
    record_fault(&trying->record, &fault);
    trying->workload->run(&trying->actor);
    trying->calls = trying->record.fault.calls;
    trying->allocations = trying->record.fault.allocations;
    bool good = !trying->actor.why[0] || failed(trying, "workload", trying->actor.why);
    trying->record.fault.nth = trying->record.fault.memory = 0;
    good = good && check_live(trying) && check_restarted(trying);
    actor_die(&trying->actor);
    trying->result->counts[1] += trying->record.fault.fired;
    trying->result->counts[2] += trying->actor.refused;
    struct record kept = trying->record;
    trying->record.calls = NULL;
    trying->record.count = 0;
    record_end(&trying->record);
    trying->record.calls = kept.calls;
    trying->record.count = kept.count;
    good = good && check_cut(trying, &empty);
    for (size_t i = 0; i < kept.count; i++)
        bytes_drop(kept.calls[i].data);
    free(kept.calls);
    free(trying->timeline.at);
    history_free(&trying->history);
    tree_free(&empty);
    trying->result->counts[0]++;
    return good;
}

static bool is_wanted(const struct trying *trying, size_t kind, uint64_t nth)
{
    char name[128];
    snprintf(name, sizeof name, "%s.0:%s:%" PRIu64, trying->workload->name, kinds[kind].name, nth);
    return strcmp(trying->run->replay, name) == 0;
}

static void work(const struct run *run, const struct workload *workload, unsigned worker,
                 const char *directory, struct result *result)
{
    struct trying trying = {.run = run, .workload = workload, .root = directory, .result = result};
    uint64_t most[KINDS], all = 0;
    for (size_t kind = 0; kind < KINDS; kind++) {
        if (!try_fault(&trying, kind, 0, 0))
            return;
        most[kind] = kinds[kind].memory ? trying.allocations : trying.calls;
        all += most[kind];
    }
    uint64_t share = run->amount ? run->share * run->workers : all;
    for (size_t kind = 0; kind < KINDS; kind++) {
        for (uint64_t nth = 1; nth <= most[kind]; nth++) {
            uint64_t roll = hash_mix(hash_mix(run->seed, kind), nth);
            if (run->replay ? !is_wanted(&trying, kind, nth)
                            : nth % run->workers != worker || (roll >> 8) % all >= share)
                continue;
            if (!try_fault(&trying, kind, nth, 0))
                return;
        }
    }
    result->counts[3] = worker == 0 ? all : 0;
}

/* They fail by themselves; and what is not mended yet is damaged. */
static bool skip(const struct workload *workload)
{
    return strcmp(workload->name, "failed-sync") == 0 || strcmp(workload->name, "killed") == 0 ||
           strcmp(workload->name, "moved") == 0 || strcmp(workload->name, "mending") == 0;
}

int main(void)
{
    struct run run = {
        .program = "build/tests/test_crash_failures",
        .replay_name = "FAULT",
        .labels = {"runs", "calls that failed", "operations refused", "calls there are"},
        .amount = run_amount("FAULTS", run_is_slow() ? 800 : 9000),
        .skip = skip,
        .work = work,
    };
    return run_all(&run);
}
