/*
 * reindex.c - builds the index again from the segments while the store is in use.
 *
 * A shadow store reads the log up to a synced position and fills a fresh environment in index.tmp/;
 * then, for the short rest, appends wait, and the shadow's state takes the place of the store's.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "recover.h"
#include "thread.h"

#define CATCH_UP_BYTES (UINT64_C(1) << 20)
#define TURNS_MAX 8
#define TRY_LEAST_MS 1000U
#define TRY_MOST_MS 600000U
/* About what an index takes, to know whether a try is worth while. */
#define ROOM_LEAST (UINT64_C(1) << 20)
#define ROOM_RECORD 20U
#define ROOM_SESSION 400U

static int open_build(struct hl_store *store, struct hl_store *shadow, struct hl_error *err)
{
    char *path;
    int error = recover_remove_dir(store, RECOVER_BUILD_NAME);
    if (error < 0)
        return hl_fail(err, -error, "cannot remove %s: %s", RECOVER_BUILD_NAME, strerror(-error));
    if (asprintf(&path, "%s/%s", store->path, RECOVER_BUILD_NAME) < 0)
        return hl_fail(err, ENOMEM, "out of memory");
    error = index_open(path, INDEX_CREATE | INDEX_BUILD, store->store_id, &shadow->index, err);
    free(path);
    return error;
}

/* Replays up to a position, which is the end of a batch and synced, and brings it into the index.
 */
static int build_up_to(struct hl_store *shadow, uint64_t position, struct hl_progress *progress,
                       struct hl_error *err)
{
    struct replay last;
    uint64_t from;
    int error = recover_replay(shadow, position, progress, &last, &from, err);
    shadow->next_point = last.next_point;
    replay_free(&last);
    if (error == 0 && position != atomic_load(&shadow->indexed)) {
        error = flush_position(shadow, position);
        if (error < 0)
            hl_fail(err, -error, "cannot fill the new index: %s", strerror(-error));
    }
    return error;
}

static int synced_position(struct hl_store *store, uint64_t *position, struct hl_error *err)
{
    int error = hl_sync(store);
    *position = atomic_load(&store->synced);
    return error < 0 ? hl_fail(err, -error, "cannot sync the log: %s", strerror(-error)) : 0;
}

static int move(struct hl_store *store, const char *from, const char *to)
{
    return store->io->rename(store->io->context, store->dirfd, from, store->dirfd, to);
}

/* Either both renames are done, or neither; there may be no index yet. A crash between them leaves
 * no index/: one is restored. */
static int swap_directories(struct hl_store *store)
{
    int error = recover_remove_dir(store, "index.old");
    if (error == 0)
        error = move(store, "index", "index.old");
    bool absent = error == -ENOENT;
    if (error < 0 && !absent)
        return error;
    error = move(store, RECOVER_BUILD_NAME, "index");
    if (error < 0) {
        if (!absent)
            move(store, "index.old", "index");
        return error;
    }
    int synced = hl_io_fsync(store->io, store->dirfd);
    if (synced < 0) /* a crash may bring the old one back, which is as good */
        store_report(store, HL_WARNING, "cannot sync the change of index: %s", strerror(-synced));
    return 0;
}

/* Puts index.tmp in the place of index, and the shadow's state in that of the store's. */
static int take_over(struct hl_store *store, struct hl_store *shadow, struct hl_error *err)
{
    struct replay last;
    uint64_t from;
    pthread_mutex_lock(&store->append_lock);
    int error = recover_reload_segments(shadow, err);
    if (error == 0)
        error = recover_replay(shadow, atomic_load(&store->position), NULL, &last, &from, err);
    if (error == 0)
        replay_free(&last);
    if (error == 0 && shadow->table->drops) { /* not before the log is on the disk up to there */
        error = commit_sync_file(store, store->active, atomic_load(&store->position));
        if (error == 0)
            error = flush_position(shadow, atomic_load(&store->position));
    }
    if (error == 0)
        error = index_sync(shadow->index);
    if (error == 0) {
        pthread_rwlock_wrlock(&store->env_lock);
        error = swap_directories(store);
        if (error == 0) {
            struct index *old = store->index;
            store->index = shadow->index;
            atomic_store(&store->doubted, false);
            shadow->index = old;
            recover_hand_over(store, shadow);
            store->unindexed_bytes = CATCH_UP_BYTES; /* about; it only times the next flush */
            store->flush_error = 0;
            store->flush_applied = 0;
            store->flush_marks = 0;
            store->flush_calls = false;
            flush_target_free(&store->target);
        }
        pthread_rwlock_unlock(&store->env_lock);
    }
    pthread_cond_broadcast(&store->room);
    pthread_mutex_unlock(&store->append_lock);
    if (error < 0 && (!err || err->code == 0))
        hl_fail(err, -error, "cannot put the new index in place: %s", strerror(-error));
    return error;
}

static int build(struct hl_store *store, struct hl_store *shadow, struct hl_progress *progress,
                 struct hl_error *err)
{
    uint64_t position;
    size_t count;
    int error = open_build(store, shadow, err);
    if (error == 0)
        error = synced_position(store, &position, err);
    if (error == 0)
        error = recover_load_segments(shadow, &count, err);
    if (error == 0)
        error = recover_adopt_index(shadow, err);
    if (error < 0)
        return error;
    if (progress) {
        for (size_t i = 0; i < shadow->segments.count; i++)
            atomic_fetch_add(&progress->total, shadow->segments.at[i]->size);
    }
    /* Each turn is shorter than the one before, unless appends are as fast as reading: then they
     * wait for the last. */
    for (unsigned turn = 1;; turn++) {
        atomic_store(&shadow->synced, position);
        error = build_up_to(shadow, position, progress, err);
        uint64_t before = position;
        if (error == 0)
            error = synced_position(store, &position, err);
        if (error < 0)
            return error;
        if (turn == TURNS_MAX || (position_segment(position) == position_segment(before) &&
                                  position - before < CATCH_UP_BYTES))
            return 0;
        error = recover_reload_segments(shadow, err);
        if (error < 0)
            return error;
    }
}

int reindex_whole(struct hl_store *store, struct hl_progress *progress, int *removed,
                  struct hl_error *err)
{
    *removed = 0;
    if (err)
        *err = (struct hl_error){0};
    int error = store_writable(store, err);
    if (error == 0)
        error = thread_lock(&store->reindex_lock, progress, err);
    if (error < 0)
        return error;
    struct hl_store *shadow = recover_shadow(store);
    if (!shadow) {
        pthread_mutex_unlock(&store->reindex_lock);
        return hl_fail(err, ENOMEM, "out of memory");
    }
    shadow->numbered_by = store;
    error = build(store, shadow, progress, err);
    if (error == 0) {
        pthread_mutex_lock(&store->flush_lock); /* only now: flushes went on meanwhile */
        error = take_over(store, shadow, err);
        pthread_mutex_unlock(&store->flush_lock);
    }
    recover_shadow_free(shadow);
    if (error < 0 && err && err->code == 0)
        hl_fail(err, -error, "cannot build the index: %s", strerror(-error));
    *removed = recover_remove_dir(store, error == 0 ? "index.old" : RECOVER_BUILD_NAME);
    pthread_mutex_unlock(&store->reindex_lock); /* the next one uses the same names */
    return error;
}

int hl_reindex(struct hl_store *store, struct hl_progress *progress, struct hl_error *err)
{
    int removed, error = reindex_whole(store, progress, &removed, err);
    if (removed < 0)
        store_report(store, HL_WARNING, "cannot remove the old index: %s", strerror(-removed));
    return error;
}

int index_make_up(struct hl_store *store)
{
    struct flusher *flusher = &store->flusher;
    struct hl_error err;
    uint64_t room = UINT64_MAX;
    pthread_rwlock_rdlock(&store->env_lock);
    bool there = store->index != NULL;
    pthread_rwlock_unlock(&store->env_lock);
    if (there)
        return 0;
    pthread_rwlock_rdlock(&store->mem_lock);
    uint64_t wanted = ROOM_LEAST + store->records * ROOM_RECORD + store->sessions * ROOM_SESSION;
    pthread_rwlock_unlock(&store->mem_lock);
    (void)hl_io_room(store->io, store->dirfd, &room); /* else a try will tell */
    if (room < wanted || (room < flusher->room_wanted && monotonic_ms() < flusher->try_at))
        return -ENOSPC;
    int error = hl_reindex(store, NULL, &err);
    if (error == 0) {
        store_report(store, HL_INFO, "the index was built, now that there is room");
        return 0;
    }
    /* A try reads the whole log: the next comes with more room than was not enough, or, since a
     * quota does not show, later and later. */
    flusher->room_wanted = room < UINT64_MAX / 2 ? room + room / 4 : UINT64_MAX;
    flusher->try_wait = flusher->try_wait == 0                ? TRY_LEAST_MS
                        : flusher->try_wait > TRY_MOST_MS / 2 ? TRY_MOST_MS
                                                              : 2 * flusher->try_wait;
    flusher->try_at = monotonic_ms() + flusher->try_wait;
    store_report(store, HL_WARNING, "no index yet: %s", err.text);
    return error;
}
