/*
 * test_crash_states.c - workloads that a power cut ends after each of their calls: whatever of what
 * was not synced is there then, the store recovers, and shows what it promised (explore.h).
 *
 * STATES says about how many states are recovered from (110000), WORKLOAD which workload alone,
 * SEED what chance is made of. STATE=… is one state, as a failure prints it; KEEP=1 leaves that on
 * the disk, before its recovery.
 */
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "explore.h"

#define WORKERS_MAX 16

struct result {
    uint64_t states, second_states, records, folds;
    bool ended;
    char why[WHY_MAX], state[128];
};

struct run {
    char base[200];
    uint64_t seed, states;
    const char *replay;
    bool keep;
    unsigned workers;
    struct result *results;
    _Atomic uint64_t *seen;
    size_t seen_capacity;
    pid_t pids[WORKERS_MAX];
};

static volatile sig_atomic_t stopped;

static void stop(int number)
{
    stopped = number;
}

static uint64_t amount(const char *name, uint64_t otherwise)
{
    const char *given = getenv(name);
    return given ? strtoull(given, NULL, 0) : otherwise;
}

static bool is_slow(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#else
    return false;
#endif
}

/* In memory if that can be: nothing of it has to outlive the test. */
static bool make_base(struct run *run)
{
    const char *given = getenv("TMPDIR");
    snprintf(run->base, sizeof run->base, "/dev/shm/hotlog-crash.XXXXXX");
    if (mkdtemp(run->base))
        return true;
    snprintf(run->base, sizeof run->base, "%s/hotlog-crash.XXXXXX", given ? given : "/tmp");
    return mkdtemp(run->base) != NULL;
}

static void work(const struct run *run, const struct workload *workload, unsigned worker)
{
    struct explorer explorer = {
        .seed = run->seed,
        .worker = worker,
        .workers = run->workers,
        .budget = run->states / run->workers + 1,
        .seen = run->seen,
        .seen_capacity = run->seen_capacity,
        .replay = run->replay,
        .keep = run->keep,
    };
    struct result *result = &run->results[worker];
    mallopt(M_MMAP_THRESHOLD, 1 << 20); /* memory is used again, and not had anew each time */
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    snprintf(explorer.root, sizeof explorer.root, "%s/%u", run->base, worker);
    mkdir(explorer.root, 0700);
    explore(&explorer, workload);
    *result = (struct result){.states = explorer.states,
                              .second_states = explorer.second_states,
                              .records = explorer.records,
                              .folds = explorer.folds};
    memcpy(result->why, explorer.why, sizeof result->why);
    memcpy(result->state, explorer.state, sizeof result->state);
    result->ended = true;
}

static void *share(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    return memory;
}

static bool start(struct run *run, const struct workload *workload)
{
    memset(run->results, 0, WORKERS_MAX * sizeof *run->results);
    run->seen = share(run->seen_capacity * sizeof *run->seen);
    for (unsigned i = 0; i < run->workers; i++) {
        fflush(stdout);
        run->pids[i] = fork();
        if (run->pids[i] == 0) {
            signal(SIGTERM, SIG_DFL);
            signal(SIGINT, SIG_DFL);
            work(run, workload, i);
            _exit(0);
        }
    }
    bool good = true;
    for (unsigned i = 0; i < run->workers; i++) {
        int status;
        while (waitpid(run->pids[i], &status, 0) < 0 && errno == EINTR) {
            for (unsigned k = i; stopped && k < run->workers; k++)
                kill(run->pids[k], SIGKILL);
        }
        good = good && WIFEXITED(status);
    }
    munmap((void *)(uintptr_t)run->seen, run->seen_capacity * sizeof *run->seen);
    return good;
}

static bool run_one(struct run *run, const struct workload *workload)
{
    struct result sum = {.states = 0};
    bool good = start(run, workload);
    for (unsigned i = 0; i < run->workers; i++) {
        const struct result *result = &run->results[i];
        sum.states += result->states;
        sum.second_states += result->second_states;
        sum.records += result->records;
        sum.folds += result->folds;
        if (result->why[0] || !result->ended) {
            good = false;
            printf("# %s\n# again: SEED=%" PRIu64 " STATE=%s %s\n",
                   result->ended ? result->why : "a worker died", run->seed,
                   result->ended ? result->state : workload->name, "test_crash_states");
        }
    }
    if (sum.states == 0 || (sum.records == 0 && !run->replay))
        good = false;
    printf("%s - %s: %" PRIu64 " states, %" PRIu64 " of them after a second cut (%" PRIu64
           " records, %" PRIu64 " folds compared)\n",
           good ? "ok" : "not ok", workload->name, sum.states, sum.second_states, sum.records,
           sum.folds);
    fflush(stdout);
    return good;
}

int main(void)
{
    struct timespec now;
    struct run run = {.replay = getenv("STATE"), .keep = getenv("KEEP") != NULL};
    const char *only = getenv("WORKLOAD");
    unsigned count = 0, failed = 0;
    clock_gettime(CLOCK_REALTIME, &now);
    run.seed = amount("SEED", (uint64_t)now.tv_sec * 1000003U + (uint64_t)now.tv_nsec);
    run.states = amount("STATES", is_slow() ? 6000 : 110000) / (only ? 1 : workload_count);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    run.workers = run.replay ? 1 : (unsigned)amount("WORKERS", cores > 0 ? (uint64_t)cores : 1);
    if (run.workers > WORKERS_MAX)
        run.workers = WORKERS_MAX;
    for (run.seen_capacity = 1 << 16; run.seen_capacity < 4 * run.states;)
        run.seen_capacity *= 2;
    run.results = share(WORKERS_MAX * sizeof *run.results);
    if (run.workers == 0 || !make_base(&run)) {
        perror("test_crash_states");
        return 2;
    }
    printf("# SEED=%" PRIu64 "\n", run.seed);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = stop}, NULL);
    sigaction(SIGINT, &(struct sigaction){.sa_handler = stop}, NULL);
    for (size_t i = 0; i < workload_count && !stopped; i++) {
        const char *name = workloads[i].name;
        size_t len = strlen(name);
        if ((only && strcmp(only, name) != 0) ||
            (run.replay && (strncmp(run.replay, name, len) != 0 || run.replay[len] != ':')))
            continue;
        count++;
        failed += !run_one(&run, &workloads[i]);
    }
    if (!run.keep) {
        empty_directory(run.base);
        rmdir(run.base);
    }
    printf("1..%u\n", count);
    return failed || stopped || count == 0;
}
