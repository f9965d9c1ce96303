/*
 * index_view.c - views of the index, and changing the map that they read from.
 *
 * An ended view goes to a pool with its LMDB transaction reset, not freed, so that beginning one is
 * a renewal: no allocation, no reader slot to find. LMDB forbids changing the map while any
 * transaction is open in this process, so those who use the map are counted, and who changes it
 * waits until none is left and keeps new ones out meanwhile. A lock that must be released by the
 * thread that took it would not do: a view may be ended by another thread than the one that began
 * it.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "index_internal.h"

int index_enter(struct index *index, struct index_view **view)
{
    pthread_mutex_lock(&index->mutex);
    while (index->exclusive)
        pthread_cond_wait(&index->changed, &index->mutex);
    int error = index->broken;
    if (error == 0) {
        index->views++;
        if (view) {
            *view = index->pool;
            if (*view)
                index->pool = (*view)->next;
        }
    }
    pthread_mutex_unlock(&index->mutex);
    return error;
}

void index_leave(struct index *index, struct index_view *view)
{
    pthread_mutex_lock(&index->mutex);
    if (view) {
        view->next = index->pool;
        index->pool = view;
    }
    if (--index->views == 0 && index->exclusive)
        pthread_cond_broadcast(&index->changed);
    pthread_mutex_unlock(&index->mutex);
}

/* Whether so much more address space can be had. LMDB unmaps before it maps, so it must not fail.
 */
static bool can_map(size_t size)
{
    void *map = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return false;
    munmap(map, size);
    return true;
}

static int set_map_size(struct index *index, size_t size)
{
    if (size > index->map_size && !can_map(size - index->map_size))
        return -ENOMEM;
    int error = index_error(mdb_env_set_mapsize(index->env, size));
    if (error == -EINVAL)
        return -EBUSY; /* a write transaction is open; nothing was changed */
    if (error < 0) {
        index->broken = error; /* LMDB has no map any more */
        return error;
    }
    index->map_size = size;
    return 0;
}

/* The size that a reader's map must have for what the writer stored meanwhile. */
static int size_needed(struct index *index, size_t *size)
{
    MDB_envinfo info;
    MDB_stat stat;
    int error = index_error(mdb_env_info(index->env, &info));
    if (error == 0)
        error = index_error(mdb_env_stat(index->env, &stat));
    if (error != 0)
        return error;
    if (info.me_last_pgno >= SIZE_MAX / 4 / stat.ms_psize)
        return -EBADMSG;
    size_t least = (info.me_last_pgno + 1) * stat.ms_psize;
    while (*size < least)
        *size *= 2;
    return 0;
}

/* Changes the map with no view open: doubles it, or makes it as large as the file has become. */
static int change_map(struct index *index, bool grow)
{
    pthread_mutex_lock(&index->mutex);
    while (index->exclusive)
        pthread_cond_wait(&index->changed, &index->mutex);
    index->exclusive = true;
    while (index->views > 0)
        pthread_cond_wait(&index->changed, &index->mutex);
    size_t size = index->map_size;
    int error = index->broken;
    if (error == 0 && grow) {
        if (size > SIZE_MAX / 4)
            error = -ENOMEM;
        else
            size *= 2;
    } else if (error == 0) {
        error = size_needed(index, &size);
    }
    if (error == 0 && size != index->map_size)
        error = set_map_size(index, size);
    index->exclusive = false;
    pthread_cond_broadcast(&index->changed);
    pthread_mutex_unlock(&index->mutex);
    return error;
}

int index_grow(struct index *index)
{
    return change_map(index, true);
}

/* ---- views ---- */

/* A new LMDB transaction, or the one of a view from the pool renewed. MDB's result. */
static int view_start(struct index *index, struct index_view *view)
{
    if (view->at.txn)
        return mdb_txn_renew(view->at.txn);
    return mdb_txn_begin(index->env, NULL, MDB_RDONLY, &view->at.txn);
}

static int view_begin_once(struct index *index, struct index_view **view, bool *resized)
{
    struct index_view *begun = NULL;
    int error = index_enter(index, &begun);
    if (error < 0)
        return error;
    if (!begun) {
        begun = calloc(1, sizeof *begun);
        if (!begun) {
            index_leave(index, NULL);
            return -ENOMEM;
        }
        begun->index = index;
        begun->at.index = index;
    }
    int result = view_start(index, begun);
    if (result == MDB_SUCCESS) {
        *view = begun;
        return 0;
    }
    *resized = result == MDB_MAP_RESIZED;
    if (begun->at.txn)
        mdb_txn_abort(begun->at.txn);
    free(begun);
    index_leave(index, NULL);
    return index_error(result);
}

int index_view_begin(struct index *index, struct index_view **view)
{
    int error;
    bool resized;
    unsigned tries = 0;
    do {
        resized = false;
        error = view_begin_once(index, view, &resized);
        if (resized) {
            int changed = change_map(index, false);
            if (changed < 0)
                return changed;
        }
    } while (resized && ++tries < 16); /* the writer may go on growing, but not for ever */
    return error;
}

void index_view_end(struct index_view *view)
{
    if (!view)
        return;
    mdb_txn_reset(view->at.txn);
    index_leave(view->index, view);
}
