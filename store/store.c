/* store.c - opening and closing, reports. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "batch.h"
#include "core.h"
#include "erasing.h"
#include "retain.h"
#include "scheduler.h"
#include "sums_batch.h"

uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t store_now_ms(const struct hl_store *store)
{
    return store->options.clock ? store->options.clock(store->options.clock_context) : now_ms();
}

uint64_t monotonic_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void store_report(const struct hl_store *store, enum hl_severity severity, const char *format, ...)
{
    char sentence[512];
    va_list arguments;
    if (!store->options.report)
        return;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    store->options.report(store->options.report_context, severity, sentence);
}

/* damage_lock is held. */
static bool is_known(const struct hl_store *store, uint64_t position)
{
    bool known = false;
    for (size_t i = 0; i < DAMAGE_REMEMBERED && position != 0 && !known; i++)
        known = store->damage_at[i] == position;
    return known;
}

bool store_damage_known(struct hl_store *store, uint64_t position)
{
    pthread_mutex_lock(&store->damage_lock);
    bool known = is_known(store, position);
    pthread_mutex_unlock(&store->damage_lock);
    return known;
}

void store_damage(struct hl_store *store, uint64_t position, const char *what)
{
    pthread_mutex_lock(&store->damage_lock);
    bool known = is_known(store, position);
    if (!known)
        store->damage_at[store->damage_found++ % DAMAGE_REMEMBERED] = position;
    pthread_mutex_unlock(&store->damage_lock);
    if (!known)
        store_report(store, HL_ERROR, "damage: %s", what);
}

bool store_is_void(const struct hl_store *store, uint64_t position)
{
    for (size_t i = 0; i < store->void_count; i++) {
        if (position >= store->voids[i].begin && position < store->voids[i].end)
            return true;
    }
    return false;
}

int store_writable(const struct hl_store *store, struct hl_error *err)
{
    if (store->options.read_only)
        return hl_fail(err, EROFS, "the store is open read-only");
    if (atomic_load(&store->failed))
        return hl_fail(err, EIO,
                       "the store refuses appends after a failed write or sync, until it is opened "
                       "again");
    return 0;
}

void hl_options_init(struct hl_options *options)
{
    *options = (struct hl_options){
        .sync_interval_ms = 1000,
        .segment_size = UINT64_C(64) << 20,
        .max_record = UINT64_C(16) << 20,
        .checkpoint_interval_ms = 600000,
        .compact_interval_ms = 3600000,
        .compact_threshold = UINT64_C(1) << 20,
        .history_ms = UINT64_C(30) * 24 * 3600 * 1000,
        .backups = 3,
    };
}

static void init_timed_cond(pthread_cond_t *cond)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attributes);
    pthread_condattr_destroy(&attributes);
}

/* Readers that come one after another must not keep a drop waiting for ever. */
static void init_drop_lock(pthread_rwlock_t *lock)
{
    pthread_rwlockattr_t attributes;
    pthread_rwlockattr_init(&attributes);
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(lock, &attributes);
    pthread_rwlockattr_destroy(&attributes);
}

struct hl_store *store_new(const struct hl_options *options, const char *path)
{
    struct hl_store *store = calloc(1, sizeof *store);
    if (!store)
        return NULL;
    store->options = *options;
    store->io = options->io ? options->io : &hl_io_system;
    store->dirfd = store->logfd = store->lockfd = -1;
    store->segments.dirfd = -1;
    store->checkpoint_clock = monotonic_ms();
    pthread_mutex_init(&store->erase_lock, NULL);
    pthread_mutex_init(&store->compact_lock, NULL);
    pthread_mutex_init(&store->reindex_lock, NULL);
    pthread_mutex_init(&store->flush_lock, NULL);
    init_drop_lock(&store->drop_lock);
    pthread_mutex_init(&store->append_lock, NULL);
    pthread_mutex_init(&store->news_lock, NULL);
    pthread_mutex_init(&store->sync_lock, NULL);
    pthread_mutex_init(&store->commit.lock, NULL);
    pthread_mutex_init(&store->flusher.lock, NULL);
    pthread_mutex_init(&store->damage_lock, NULL);
    pthread_rwlock_init(&store->env_lock, NULL);
    pthread_rwlock_init(&store->mem_lock, NULL);
    pthread_cond_init(&store->room, NULL);
    init_timed_cond(&store->commit.wake);
    init_timed_cond(&store->flusher.wake);
    init_timed_cond(&store->scheduler.wake);
    pthread_mutex_init(&store->scheduler.lock, NULL);
    pthread_mutex_init(&store->retain_lock, NULL);
    pthread_mutex_init(&store->erasing_lock, NULL);
    helper_init(&store->append_helper);
    store->path = strdup(path);
    store->table = memtable_new();
    if (!store->path || !store->table) {
        store_free(store);
        return NULL;
    }
    return store;
}

void store_free(struct hl_store *store)
{
    if (store->active)
        segment_put(&store->segments, store->active);
    if (store->segments.io)
        segment_set_free(&store->segments);
    index_close(store->index);
    tail_forget(store);
    free(store->voids);
    memtable_free(store->table);
    memtable_free(store->frozen);
    for (int size = 0; size < BATCH_MEMORIES; size++)
        batch_memory_free(atomic_load(&store->batch_memory[size]));
    helper_destroy(&store->append_helper);
    flush_target_free(&store->target);
    sums_clear(&store->sums);
    sums_stages_free(&store->stages);
    hl_io_close(store->io, store->logfd);
    hl_io_close(store->io, store->dirfd);
    hl_io_close(store->io, store->lockfd); /* the lock goes last */
    pthread_mutex_destroy(&store->erase_lock);
    pthread_mutex_destroy(&store->compact_lock);
    pthread_mutex_destroy(&store->reindex_lock);
    pthread_mutex_destroy(&store->flush_lock);
    pthread_rwlock_destroy(&store->drop_lock);
    pthread_mutex_destroy(&store->append_lock);
    pthread_mutex_destroy(&store->news_lock);
    pthread_mutex_destroy(&store->sync_lock);
    pthread_mutex_destroy(&store->commit.lock);
    pthread_mutex_destroy(&store->flusher.lock);
    pthread_mutex_destroy(&store->damage_lock);
    pthread_rwlock_destroy(&store->env_lock);
    pthread_rwlock_destroy(&store->mem_lock);
    pthread_cond_destroy(&store->room);
    pthread_cond_destroy(&store->commit.wake);
    pthread_cond_destroy(&store->flusher.wake);
    pthread_cond_destroy(&store->scheduler.wake);
    pthread_mutex_destroy(&store->scheduler.lock);
    pthread_mutex_destroy(&store->retain_lock);
    retain_free(store);
    pthread_mutex_destroy(&store->erasing_lock);
    erasing_free(store);
    free(store->path);
    free(store);
}

/* ---- opening and closing ---- */

static int start_threads(struct hl_store *store, struct hl_error *err)
{
    if (store->options.read_only)
        return 0;
    int error = commit_start(store);
    if (error == 0)
        error = flush_start(store);
    if (error == 0)
        error = scheduler_start(store);
    if (error < 0) {
        flush_stop(store);
        commit_stop(store);
        return hl_fail(err, -error, "cannot start a thread: %s", strerror(-error));
    }
    return 0;
}

int hl_store_open(const char *dir, const struct hl_options *options, struct hl_store **opened,
                  struct hl_holder *holder, struct hl_error *err)
{
    uint64_t start = monotonic_ms();
    if (err)
        *err = (struct hl_error){0};
    struct hl_store *store = store_new(options, dir);
    if (!store)
        return hl_fail(err, ENOMEM, "out of memory");
    int error = store_begin(store, false, holder, err);
    if (error == 0)
        error = recover(store, err);
    if (error == 0) {
        if (!options->read_only)
            (void)snapshot_clean(store);
        retain_load(store);
        erasing_load(store);
        store->checkpoint_position = checkpoint_newest(store);
        error = start_threads(store, err);
    }
    if (error < 0) {
        if (err && err->code == 0)
            hl_fail(err, -error, "cannot open %s: %s", dir, strerror(-error));
        store_free(store);
        return error;
    }
    atomic_store(&store->recovery_ms, monotonic_ms() - start);
    *opened = store;
    return 0;
}

int store_finish(struct hl_store *store)
{
    pthread_mutex_lock(&store->flush_lock);
    int result = flush_all(store);
    if (result == 0 && store->index && store->checkpoint_position != atomic_load(&store->indexed))
        result = checkpoint_write(store, NULL, NULL);
    pthread_mutex_unlock(&store->flush_lock);
    index_close(store->index);
    store->index = NULL;
    return result == 0 && !atomic_load(&store->doubted) ? clean_mark_write(store, store->dirfd)
                                                        : result;
}

int hl_store_close(struct hl_store *store)
{
    int result = 0;
    if (!store)
        return 0;
    if (!store->options.read_only) {
        scheduler_stop(store);
        flush_stop(store);
        commit_stop(store);
        if (!atomic_load(&store->failed))
            (void)log_end_zeros(store); /* else the next opening does it */
        result = store_finish(store);
    }
    store_free(store);
    return result;
}

int hl_store_status(struct hl_store *store, struct hl_status *status)
{
    follow_writer(store);
    *status = (struct hl_status){
        .read_only = store->options.read_only,
        .failed = atomic_load(&store->failed),
        .position = atomic_load(&store->position),
        .synced = atomic_load(&store->synced),
        .indexed = atomic_load(&store->indexed),
        .appends = atomic_load(&store->appends),
        .syncs = atomic_load(&store->syncs),
        .flushes = atomic_load(&store->flushes),
        .checkpoints = atomic_load(&store->checkpoints),
        .drops = atomic_load(&store->drops),
        .checkpoint_ms = atomic_load(&store->checkpoint_ms),
        .damage_found = atomic_load(&store->damage_found),
        .quarantined_bytes = atomic_load(&store->quarantined_bytes),
        .recovered_records = atomic_load(&store->recovered_records),
        .recovery_ms = atomic_load(&store->recovery_ms),
        .compactions = atomic_load(&store->compactions),
        .freed_bytes = atomic_load(&store->freed_bytes),
        .compact_last_ms = atomic_load(&store->compact_last_ms),
        .compact_error = atomic_load(&store->compact_error),
        .dead_bytes = atomic_load(&store->dead_bytes),
        .backup_bytes = atomic_load(&store->backup_bytes),
        .reserve_bytes = atomic_load(&store->reserve_bytes),
    };
    pthread_mutex_lock(&store->scheduler.lock);
    status->compact_next_ms = store->scheduler.next_ms;
    status->compacting = store->scheduler.running;
    status->retain_suspended = store->scheduler.suspended;
    pthread_mutex_unlock(&store->scheduler.lock);
    if (status->compacting) {
        status->compact_done = atomic_load(&store->scheduler.progress.done);
        status->compact_total = atomic_load(&store->scheduler.progress.total);
    }
    uint64_t sessions = 0;
    int error = store->options.read_only ? lookup_count_sessions(store, &sessions) : 0;
    if (error < 0)
        return error;
    for (size_t i = 0; i <= HL_SYNC_BOUNDS; i++)
        status->sync_counts[i] = atomic_load(&store->sync_counts[i]);
    status->sync_us = atomic_load(&store->sync_us);
    for (size_t i = 0; i < sizeof store->store_id; i++)
        snprintf(status->store_id + 2 * i, 3, "%02x", store->store_id[i]);
    pthread_rwlock_rdlock(&store->mem_lock);
    status->sessions = store->options.read_only ? sessions : store->sessions;
    status->records = store->records;
    status->bytes = store->bytes;
    status->memtable_bytes = store->table->bytes + (store->frozen ? store->frozen->bytes : 0);
    status->memtable_records = store->table->records + (store->frozen ? store->frozen->records : 0);
    pthread_rwlock_unlock(&store->mem_lock);
    pthread_mutex_lock(&store->segments.lock);
    status->segments = store->segments.count;
    for (size_t i = 0; i < store->segments.count; i++)
        status->log_bytes += store->segments.at[i]->size;
    pthread_mutex_unlock(&store->segments.lock);
    pthread_rwlock_rdlock(&store->env_lock);
    status->index_bytes = store->index ? index_bytes(store->index) : 0;
    pthread_rwlock_unlock(&store->env_lock);
    return 0;
}
