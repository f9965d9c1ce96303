/*
 * commit.c - group commit: one thread syncs the log for all who ask.
 *
 * A request asks that what was appended before it be on the disk. The thread takes all requests
 * there are, reads the tail, syncs the active segment once and answers them all; what comes
 * meanwhile waits for the next round. Sealed segments were synced when they were sealed. Without
 * requests it syncs when the log has been dirty for sync_interval, or at once when much is
 * unsynced; an idle store has no timer.
 *
 * A failed sync is final: the page cache may call clean what the disk never got, so trying again
 * could succeed without the bytes being there. Appends are refused until the store is opened again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core.h"
#include "thread.h"

#define SMALL_SYNC_BYTES (UINT64_C(64) << 10)
#define SMALL_SYNCS 8U /* in a row, for more of them to be expected */

static uint64_t clock_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void count_sync(struct hl_store *store, uint64_t us)
{
    static const uint32_t bounds[HL_SYNC_BOUNDS] = HL_SYNC_BOUNDS_US;
    size_t i = 0;
    while (i < HL_SYNC_BOUNDS && us > bounds[i])
        i++;
    atomic_fetch_add(&store->syncs, 1);
    atomic_fetch_add(&store->sync_counts[i], 1);
    atomic_fetch_add(&store->sync_us, us);
}

int commit_sync_file(struct hl_store *store, struct segment *segment, uint64_t up_to)
{
    /* Two threads must not sync one file at once: the kernel would tell only one of them of an
     * error. */
    pthread_mutex_lock(&store->sync_lock);
    int error = atomic_load(&store->failed) ? -EIO : 0;
    if (error == 0) {
        uint64_t begun = clock_us();
        error = hl_io_fdatasync(store->io, segment->fd);
        if (error < 0) {
            store_report(store, HL_ERROR,
                         "cannot sync segment %s (%s): appends are refused until the store is "
                         "opened again",
                         segment->name, strerror(-error));
            atomic_store(&store->failed, EIO);
            error = -EIO;
        } else {
            count_sync(store, clock_us() - begun);
            if (up_to > atomic_load(&store->synced))
                atomic_store(&store->synced, up_to);
        }
    }
    pthread_mutex_unlock(&store->sync_lock);
    return error;
}

/*
 * Where small appends are synced one by one, blocks are given to the file ahead: a sync that only
 * writes over blocks is about a third cheaper than one by which the file grows. Large appends would
 * only be written twice. Called with append_lock held, before the sync that makes the zeros last.
 */
static void prepare_next(struct hl_store *store, uint64_t position)
{
    uint64_t synced = atomic_load(&store->synced);
    if (position - synced > SMALL_SYNC_BYTES) { /* also of another segment */
        store->commit.small_syncs = 0;
        return;
    }
    if (position > synced && store->commit.small_syncs < SMALL_SYNCS)
        store->commit.small_syncs++;
    if (store->commit.small_syncs == SMALL_SYNCS)
        log_fill_ahead(store);
}

/* asked: somebody waits for it. */
static int sync_log(struct hl_store *store, bool asked)
{
    struct segment *active = NULL;
    pthread_mutex_lock(&store->append_lock);
    uint64_t position = atomic_load(&store->position);
    int error = tail_settle(store, NULL);
    if (error == 0 && asked && !atomic_load(&store->failed))
        prepare_next(store, position);
    if (error == 0)
        error = segment_get(&store->segments, store->active->first, &active);
    pthread_mutex_unlock(&store->append_lock);
    if (error < 0)
        return error;
    error = atomic_load(&store->failed) ? -EIO : 0;
    if (error == 0 && position > atomic_load(&store->synced))
        error = commit_sync_file(store, active, position);
    segment_put(&store->segments, active);
    return error;
}

static void answer(struct sync_request *request, int error)
{
    while (request) {
        struct sync_request *next = request->next;
        request->done(request->context, error);
        free(request);
        request = next;
    }
}

static void *commit_run(void *context)
{
    struct hl_store *store = context;
    struct commit *commit = &store->commit;
    pthread_mutex_lock(&commit->lock);
    for (;;) {
        while (!commit->stop && !commit->first && !atomic_load(&store->dirty))
            pthread_cond_wait(&commit->wake, &commit->lock);
        struct timespec deadline =
            thread_deadline(CLOCK_MONOTONIC, store->options.sync_interval_ms);
        while (!commit->stop && !commit->first && !commit->hurry) {
            if (pthread_cond_timedwait(&commit->wake, &commit->lock, &deadline) == ETIMEDOUT)
                break;
        }
        struct sync_request *requests = commit->first;
        bool stop = commit->stop;
        commit->first = commit->last = NULL;
        commit->hurry = false;
        pthread_mutex_unlock(&commit->lock);

        /* Before the tail is read: what is appended after it makes the store dirty again. */
        atomic_store(&store->dirty, false);
        answer(requests, sync_log(store, requests != NULL));

        pthread_mutex_lock(&commit->lock);
        if (stop && !commit->first)
            break;
    }
    pthread_mutex_unlock(&commit->lock);
    return NULL;
}

int commit_start(struct hl_store *store)
{
    int error = thread_start(&store->commit.thread, commit_run, store);
    store->commit.running = error == 0;
    return error;
}

void commit_stop(struct hl_store *store)
{
    if (!store->commit.running)
        return;
    pthread_mutex_lock(&store->commit.lock);
    store->commit.stop = true;
    pthread_cond_signal(&store->commit.wake);
    pthread_mutex_unlock(&store->commit.lock);
    pthread_join(store->commit.thread, NULL);
    store->commit.running = false;
}

void commit_wake(struct hl_store *store, bool hurry)
{
    pthread_mutex_lock(&store->commit.lock);
    if (hurry)
        store->commit.hurry = true;
    pthread_cond_signal(&store->commit.wake);
    pthread_mutex_unlock(&store->commit.lock);
}

void hl_sync_async(struct hl_store *store, hl_sync_done *done, void *context)
{
    struct commit *commit = &store->commit;
    if (store->options.read_only) { /* what a reader sees, its writer answers for */
        done(context, 0);
        return;
    }
    struct sync_request *request = malloc(sizeof *request);
    if (!request) {
        done(context, -ENOMEM);
        return;
    }
    *request = (struct sync_request){.done = done, .context = context};
    pthread_mutex_lock(&commit->lock);
    if (commit->last)
        commit->last->next = request;
    else
        commit->first = request;
    commit->last = request;
    pthread_cond_signal(&commit->wake);
    pthread_mutex_unlock(&commit->lock);
}

struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool done;
    int error;
};

static void wake_waiter(void *context, int error)
{
    struct waiter *waiter = context;
    pthread_mutex_lock(&waiter->lock);
    waiter->done = true;
    waiter->error = error;
    pthread_cond_signal(&waiter->wake);
    pthread_mutex_unlock(&waiter->lock);
}

int hl_sync(struct hl_store *store)
{
    struct waiter waiter = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};
    hl_sync_async(store, wake_waiter, &waiter);
    pthread_mutex_lock(&waiter.lock);
    while (!waiter.done)
        pthread_cond_wait(&waiter.wake, &waiter.lock);
    pthread_mutex_unlock(&waiter.lock);
    pthread_mutex_destroy(&waiter.lock);
    pthread_cond_destroy(&waiter.wake);
    return waiter.error;
}
