/* runner.c - see runner.h. */
#include "runner.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORKERS_MAX 16

static volatile sig_atomic_t stopped;

static void stop(int number)
{
    stopped = number;
}

uint64_t run_amount(const char *name, uint64_t otherwise)
{
    const char *given = getenv(name);
    return given ? strtoull(given, NULL, 0) : otherwise;
}

bool run_is_slow(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    return true;
#endif
#endif
    return false;
}

/* ---- directories ---- */

static bool empty_at(int parent, const char *name)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir)
        return false;
    const struct dirent *entry;
    bool good = true;
    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (entry->d_type == DT_DIR)
            good = good && empty_at(fd, entry->d_name) &&
                   unlinkat(fd, entry->d_name, AT_REMOVEDIR) == 0;
        else
            good = good && unlinkat(fd, entry->d_name, 0) == 0;
    }
    closedir(dir);
    return good;
}

bool empty_directory(const char *path)
{
    return empty_at(AT_FDCWD, path);
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

/* ---- processes ---- */

static void *share(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    return memory;
}

static void work(const struct run *run, const struct workload *workload, unsigned worker)
{
    char directory[240];
    struct result *result = &run->results[worker];
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    mallopt(M_MMAP_THRESHOLD, 1 << 20); /* memory is used again, and not had anew each time */
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    snprintf(directory, sizeof directory, "%s/%u", run->base, worker);
    mkdir(directory, 0700);
    run->work(run, workload, worker, directory, result);
    result->ended = true;
}

static void run_workers(struct run *run, const struct workload *workload)
{
    pid_t pids[WORKERS_MAX];
    memset(run->results, 0, WORKERS_MAX * sizeof *run->results);
    run->seen = share(run->seen_capacity * sizeof *run->seen);
    fflush(stdout);
    for (unsigned i = 0; i < run->workers; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            work(run, workload, i);
            fflush(NULL);
            _exit(0);
        }
    }
    for (unsigned i = 0; i < run->workers; i++) {
        int status;
        while (pids[i] > 0 && waitpid(pids[i], &status, 0) < 0 && errno == EINTR) {
            for (unsigned k = i; stopped && k < run->workers; k++)
                kill(pids[k], SIGKILL);
        }
    }
    munmap((void *)(uintptr_t)run->seen, run->seen_capacity * sizeof *run->seen);
}

static bool run_one(struct run *run, const struct workload *workload)
{
    uint64_t counts[COUNTS] = {0};
    bool good = true;
    run_workers(run, workload);
    for (unsigned i = 0; i < run->workers; i++) {
        const struct result *result = &run->results[i];
        for (size_t k = 0; k < COUNTS; k++)
            counts[k] += result->counts[k];
        if (result->why[0] || !result->ended) {
            good = false;
            printf("# %s\n# again: SEED=%" PRIu64 " %s=%s %s\n",
                   result->ended ? result->why : "a process died", run->seed, run->replay_name,
                   result->name[0] ? result->name : workload->name, run->program);
        }
    }
    good = good && counts[0] > 0;
    printf("%s - %s:", good ? "ok" : "not ok", workload->name);
    for (size_t k = 0; k < COUNTS && run->labels[k]; k++)
        printf("%s %" PRIu64 " %s", k ? "," : "", counts[k], run->labels[k]);
    printf("\n");
    fflush(stdout);
    return good;
}

static bool is_wanted(const struct run *run, const struct workload *workload, const char *only)
{
    size_t len = strlen(workload->name);
    if (run->skip && run->skip(workload))
        return false;
    if (only && strcmp(only, workload->name) != 0)
        return false;
    return !run->replay ||
           (strncmp(run->replay, workload->name, len) == 0 && run->replay[len] == '.');
}

int run_all(struct run *run)
{
    struct timespec now;
    const char *only = getenv("WORKLOAD");
    unsigned count = 0, failed = 0;
    uint64_t wanted = 0;
    clock_gettime(CLOCK_REALTIME, &now);
    run->replay = getenv(run->replay_name);
    run->keep = getenv("KEEP") != NULL;
    run->seed = run_amount("SEED", (uint64_t)now.tv_sec * 1000003U + (uint64_t)now.tv_nsec);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    run->workers =
        run->replay ? 1 : (unsigned)run_amount("WORKERS", cores > 0 ? (uint64_t)cores : 1);
    if (run->workers > WORKERS_MAX)
        run->workers = WORKERS_MAX;
    for (size_t i = 0; i < workload_count; i++)
        wanted += is_wanted(run, &workloads[i], only);
    if (run->workers == 0 || wanted == 0 || !make_base(run)) {
        fprintf(stderr, "%s: nothing to do, or nowhere to do it\n", run->program);
        return 2;
    }
    run->share = run->amount / wanted / run->workers + 1;
    for (run->seen_capacity = 1 << 16; run->seen_capacity < 4 * run->amount;)
        run->seen_capacity *= 2;
    run->results = share(WORKERS_MAX * sizeof *run->results);
    printf("# SEED=%" PRIu64 "\n", run->seed);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = stop}, NULL);
    sigaction(SIGINT, &(struct sigaction){.sa_handler = stop}, NULL);
    bool first = getenv("FIRST") != NULL; /* failure is enough */
    for (size_t i = 0; i < workload_count && !stopped && !(first && failed); i++) {
        if (!is_wanted(run, &workloads[i], only))
            continue;
        count++;
        failed += !run_one(run, &workloads[i]);
    }
    if (!run->keep) {
        empty_directory(run->base);
        rmdir(run->base);
    }
    printf("1..%u\n", count);
    return failed || stopped || count == 0;
}
