/*
 * snapshot.c - a consistent copy of the store in DIR/snapshots/NAME, while appends go on.
 *
 * Its instant is the end of the active segment, which is sealed for it: so it holds sealed segments
 * only, and since neither store writes to a sealed file, both can have the same one. The index is
 * brought up to exactly there and copied; flushes go on once the copy has its view. All is made in
 * DIR/snapshots/.new, synced, and then renamed: before that there is no snapshot, and what a crash
 * leaves is removed at the next opening.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "recover.h"
#include "thread.h"

#define FOLDER "snapshots"
#define UNFINISHED ".new" /* below FOLDER; no name of a snapshot */
#define COPY_STEP (UINT64_C(4) << 20)

struct making {
    struct hl_store *store;
    struct hl_progress *progress; /* may be NULL */
    int folder, top, log;         /* DIR/snapshots, the unfinished one, and its log/; -1: closed */
    uint64_t position;            /* its end */
    bool flush_locked;
    bool told; /* that segments are copied */
};

static int check_name(const char *name, struct hl_error *err)
{
    size_t len = strlen(name);
    if (len == 0 || name[0] == '.' || memchr(name, '/', len) || !json_utf8_valid(name, len, NULL))
        return hl_fail(err, EINVAL,
                       "a snapshot's name is UTF-8 without `/`, and does not begin with a dot");
    return len > 255 ? hl_fail(err, ENAMETOOLONG, "a snapshot's name is at most 255 bytes") : 0;
}

/* Removes the unfinished one. -ENOENT: there is none. */
static int remove_unfinished(struct hl_store *store)
{
    int dir = hl_io_open_dir(store->io, store->dirfd, FOLDER "/" UNFINISHED, false);
    if (dir < 0)
        return dir;
    hl_io_close(store->io, dir);
    int error = recover_remove_dir(store, FOLDER "/" UNFINISHED "/log");
    if (error == 0)
        error = recover_remove_dir(store, FOLDER "/" UNFINISHED "/index");
    return error < 0 ? error : recover_remove_dir(store, FOLDER "/" UNFINISHED);
}

int snapshot_clean(struct hl_store *store)
{
    int error = remove_unfinished(store);
    if (error == 0)
        store_report(store, HL_WARNING, "a snapshot that was not finished was removed");
    else if (error != -ENOENT)
        store_report(store, HL_WARNING, "cannot remove %s/%s: %s", FOLDER, UNFINISHED,
                     strerror(-error));
    return error == -ENOENT ? 0 : error;
}

static int advance(const struct making *making, uint64_t bytes)
{
    if (!making->progress)
        return 0;
    atomic_fetch_add(&making->progress->done, bytes);
    return atomic_load(&making->progress->cancel) ? -EINTR : 0;
}

/* ---- the parts --------------------------------------------------------------------------------
 */

static int open_folder(struct making *making, const char *name, struct hl_error *err)
{
    struct hl_store *store = making->store;
    int error = making->folder = hl_io_make_dir(store->io, store->dirfd, FOLDER);
    if (error < 0)
        return hl_fail(err, -error, "cannot open %s/: %s", FOLDER, strerror(-error));
    int there = hl_io_open(store->io, making->folder, name, O_PATH | O_NOFOLLOW, 0);
    hl_io_close(store->io, there);
    if (there >= 0)
        return hl_fail(err, EEXIST, "there is a snapshot `%.200s` already", name);
    return there == -ENOENT ? 0 : there;
}

static int make_directories(struct making *making)
{
    struct hl_store *store = making->store;
    int error = remove_unfinished(store);
    if (error < 0 && error != -ENOENT)
        return error;
    error = making->top = hl_io_open_dir(store->io, making->folder, UNFINISHED, true);
    if (error >= 0)
        error = making->log = hl_io_open_dir(store->io, making->top, "log", true);
    return error < 0 ? error : 0;
}

static void unlock_flush(void *context)
{
    struct making *making = context;
    if (making->flush_locked)
        pthread_mutex_unlock(&making->store->flush_lock);
    making->flush_locked = false;
}

/* What there will be to do, in bytes. */
static void estimate(const struct making *making)
{
    struct hl_status status;
    if (!making->progress)
        return;
    hl_store_status(making->store, &status);
    atomic_store(&making->progress->total, status.log_bytes + status.index_bytes);
}

/* Fixes the instant, and copies the index as it is then. */
static int copy_index(struct making *making, struct hl_error *err)
{
    struct hl_store *store = making->store;
    uint64_t size, crc;
    int index = hl_io_open_dir(store->io, making->top, "index", true);
    if (index < 0)
        return index;
    int fd = hl_io_open(store->io, index, "data.mdb", O_WRONLY | O_CREAT | O_EXCL, 0600);
    int error = fd;
    if (fd >= 0) {
        pthread_mutex_lock(&store->flush_lock);
        making->flush_locked = true;
        error = flush_sealed(store, &making->position, err);
        if (error == 0)
            estimate(making);
        if (error == 0)
            error = checkpoint_copy_index(store, fd, making->progress, unlock_flush, making, &size,
                                          &crc);
        unlock_flush(making);
    }
    if (error == 0)
        error = hl_io_fsync(store->io, fd);
    hl_io_close(store->io, fd);
    if (error == 0)
        error = clean_mark_write(store, making->top);
    if (error == 0)
        error = hl_io_fsync(store->io, index);
    hl_io_close(store->io, index);
    return error;
}

static int copy_segment(struct making *making, const struct segment *segment)
{
    const struct hl_io *io = making->store->io;
    uint64_t size = 0;
    int to = hl_io_open(io, making->log, segment->name, O_WRONLY | O_CREAT | O_EXCL, 0600);
    int error = to < 0 ? to : hl_io_size(io, segment->fd, &size);
    for (uint64_t done = 0; error == 0 && done < size;) {
        uint64_t step = size - done < COPY_STEP ? size - done : COPY_STEP;
        error = hl_io_copy(io, segment->fd, done, step, to, done);
        if (error == 0)
            error = advance(making, step);
        done += step;
    }
    if (error == 0)
        error = hl_io_fsync(io, to);
    hl_io_close(io, to);
    return error;
}

/* Whether it is the link that cannot be had, and a copy may well be. */
static bool wants_copy(int error)
{
    return error == -EXDEV || error == -EMLINK || error == -EPERM || error == -EOPNOTSUPP ||
           error == -ENOSYS;
}

static int take_segment(struct making *making, const struct segment *segment)
{
    struct hl_store *store = making->store;
    int error = store->io->link(store->io->context, store->logfd, segment->name, making->log,
                                segment->name);
    if (!wants_copy(error))
        return error < 0 ? error : advance(making, segment->size);
    if (!making->told)
        store_report(store, HL_INFO, "segments are copied into the snapshot: links cannot be (%s)",
                     strerror(-error));
    making->told = true;
    return copy_segment(making, segment);
}

static int take_segments(struct making *making)
{
    struct segment_set *set = &making->store->segments;
    uint32_t last = position_segment(making->position);
    for (uint32_t after = 0; after < last;) {
        struct segment *segment;
        int error = segment_get_next(set, after, &segment);
        if (error < 0)
            return error;
        after = segment->first;
        error = take_segment(making, segment);
        segment_put(set, segment);
        if (error < 0)
            return error;
    }
    return hl_io_fsync(making->store->io, making->log);
}

/* Its own lock file, and its name. */
static int finish(struct making *making, const char *name)
{
    const struct hl_io *io = making->store->io;
    int lock = hl_io_open(io, making->top, "lock", O_WRONLY | O_CREAT | O_EXCL, 0600);
    int error = lock < 0 ? lock : hl_io_fsync(io, lock);
    hl_io_close(io, lock);
    if (error == 0)
        error = hl_io_fsync(io, making->top);
    if (error == 0)
        error = io->rename(io->context, making->folder, UNFINISHED, making->folder, name);
    if (error < 0)
        return error;
    error = hl_io_fsync(io, making->folder);
    /* Not known to be there for good: then it must not be there at all. */
    if (error < 0 && io->rename(io->context, making->folder, name, making->folder, UNFINISHED) < 0)
        store_report(making->store, HL_WARNING,
                     "snapshot %s is complete, but may be gone after a power cut", name);
    return error;
}

int hl_snapshot(struct hl_store *store, const char *name, struct hl_progress *progress,
                struct hl_error *err)
{
    struct making making = {
        .store = store, .progress = progress, .folder = -1, .top = -1, .log = -1};
    struct hl_error local = {0};
    if (!err)
        err = &local;
    *err = (struct hl_error){0};
    int error = check_name(name, err);
    if (error == 0)
        error = store_writable(store, err);
    if (error == 0) /* the index stays, and so do the segments */
        error = thread_lock(&store->reindex_lock, progress, err);
    if (error < 0)
        return error;
    error = open_folder(&making, name, err);
    bool begun = error == 0;
    if (begun)
        error = make_directories(&making);
    if (error == 0)
        error = copy_index(&making, err);
    if (error == 0)
        error = take_segments(&making);
    if (error == 0)
        error = finish(&making, name);
    hl_io_close(store->io, making.log);
    hl_io_close(store->io, making.top);
    int removed = error < 0 && begun ? remove_unfinished(store) : 0;
    if (removed < 0 && removed != -ENOENT)
        store_report(store, HL_WARNING, "cannot remove %s/%s: %s", FOLDER, UNFINISHED,
                     strerror(-removed));
    hl_io_close(store->io, making.folder);
    pthread_mutex_unlock(&store->reindex_lock);
    if (error < 0 && err->code == 0)
        hl_fail(err, -error, "cannot make the snapshot: %s",
                error == -EINTR ? "interrupted" : strerror(-error));
    return error;
}
