/* recover_index.c - which index to trust: the one that is there, a checkpoint, or one built anew.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compact.h"
#include "recover.h"

static int adopt_segments(struct hl_store *store, struct index_view *view, uint64_t watermark,
                          struct hl_error *err)
{
    struct index_segment known;
    uint32_t after = 0;
    size_t count = 0;
    int error;
    while ((error = index_segment_next(view, after, &known)) == 0) {
        struct segment *live = recover_find_live(store, known.first);
        if (!live || live->last != known.last || live->generation != known.generation ||
            live->salt != known.salt || live->size < known.indexed_end)
            return hl_fail(err, EBADMSG, "it was made from another segment %" PRIu32, known.first);
        if (known.sealed)
            live->sealed = true; /* also the last one, when the next was not made yet */
        live->records = known.records;
        live->line_bytes = known.line_bytes;
        if (known.first < position_segment(watermark) && !known.sealed)
            return hl_fail(err, EBADMSG, "it knows only a part of segment %s", live->name);
        after = known.first;
        count++;
    }
    if (error != -ENOENT)
        return error;
    size_t expected = 0;
    for (size_t i = 0; i < store->segments.count; i++)
        expected += store->segments.at[i]->first <= position_segment(watermark);
    if (count != expected)
        return hl_fail(err, EBADMSG, "it knows %zu segments of %zu", count, expected);
    return 0;
}

/* What all events below the watermark come to. */
static int adopt_sums(struct hl_store *store, struct index_view *view, struct hl_error *err)
{
    int error = index_get_sums(view, 0, &store->sums);
    if (error == 0 || error == -ENOENT)
        return 0;
    sums_clear(&store->sums);
    return hl_fail(err, -error, "its sums cannot be read: %s", strerror(-error));
}

int recover_adopt_index(struct hl_store *store, struct hl_error *err)
{
    struct index_meta meta = {.next_session = 1};
    struct index_view *view;
    /* Nothing of an index that was looked at before and did not fit. */
    for (size_t i = 0; i < store->segments.count; i++) {
        struct segment *segment = store->segments.at[i];
        segment->records = segment->line_bytes = 0;
        segment->sealed = i + 1 < store->segments.count;
    }
    sums_clear(&store->sums);
    if (store->index) {
        int error = index_view_begin(store->index, &view);
        if (error < 0)
            return hl_fail(err, -error, "it cannot be read: %s", strerror(-error));
        error = index_get_meta(view, &meta);
        if (error == 0 && memcmp(meta.store_id, store->store_id, sizeof meta.store_id) != 0)
            error = hl_fail(err, EBADMSG, "it belongs to another store");
        if (error == 0)
            error = adopt_segments(store, view, meta.watermark, err);
        if (error == 0)
            error = adopt_sums(store, view, err);
        index_view_end(view);
        const struct segment *at = recover_find_live(store, position_segment(meta.watermark));
        const struct segment *applied = recover_find_live(store, position_segment(meta.applying));
        if (error == 0 && meta.watermark != 0 &&
            (!at || at->size < position_offset(meta.watermark) || !applied ||
             applied->size < position_offset(meta.applying)))
            error = hl_fail(err, EBADMSG, "it points past the end of the log");
        if (error < 0)
            return error;
    }
    atomic_store(&store->indexed, meta.watermark);
    store->index_applying = meta.applying;
    store->next_session = meta.next_session;
    store->clock_ms = meta.recorded_ms;
    store->sessions = meta.sessions;
    /* What root log holds is counted by segments: a read-only store sees rows of the index that are
     * newer than the watermark, but no segment's. */
    store->records = store->bytes = 0;
    for (size_t i = 0; i < store->segments.count; i++) {
        store->records += store->segments.at[i]->records;
        store->bytes += store->segments.at[i]->line_bytes;
    }
    return 0;
}

struct removing {
    const struct hl_io *io;
    int dir;
};

static int remove_each(void *context, const char *name)
{
    const struct removing *removing = context;
    return removing->io->unlink(removing->io->context, removing->dir, name, 0);
}

int recover_remove_dir(struct hl_store *store, const char *name)
{
    int dir = hl_io_open_dir(store->io, store->dirfd, name, false);
    if (dir < 0)
        return dir == -ENOENT ? 0 : dir;
    struct removing removing = {.io = store->io, .dir = dir};
    int error = store->io->list(store->io->context, dir, remove_each, &removing);
    hl_io_close(store->io, dir);
    if (error == 0)
        error = store->io->unlink(store->io->context, store->dirfd, name, AT_REMOVEDIR);
    return error;
}

static int move_index_aside(struct hl_store *store)
{
    int dir = hl_io_open_dir(store->io, store->dirfd, "quarantine", true);
    if (dir < 0)
        return dir;
    int error = recover_remove_dir(store, "quarantine/index");
    if (error == 0)
        error = store->io->rename(store->io->context, store->dirfd, "index", dir, "index");
    if (error == 0)
        error = hl_io_fsync(store->io, store->dirfd);
    hl_io_close(store->io, dir);
    return error;
}

int recover_set_index_aside(struct hl_store *store, const char *why)
{
    int error = move_index_aside(store);
    bool full = hl_io_is_full(error);
    if (full)
        error = recover_remove_dir(store, "index");
    if (error == 0)
        store_report(store, HL_WARNING, "the index is not used (%s); %s", why,
                     full ? "there was no room to keep it, so it is removed"
                          : "it is in quarantine/index");
    return error;
}

static char *path_below(const struct hl_store *store, const char *name)
{
    char *path;
    return asprintf(&path, "%s/%s", store->path, name) < 0 ? NULL : path;
}

int recover_index_exists(const struct hl_store *store)
{
    int fd = hl_io_open(store->io, store->dirfd, "index/data.mdb", O_RDONLY, 0);
    hl_io_close(store->io, fd);
    return fd >= 0 ? 1 : fd == -ENOENT ? 0 : fd;
}

/* Opens index/ and notes which file that is: another may take its name at any time. */
static int open_index(struct hl_store *store, unsigned flags, struct hl_error *err)
{
    char *path = path_below(store, "index");
    int error = path ? index_open(path, flags, store->store_id, &store->index, err) : -ENOMEM;
    free(path);
    if (error < 0)
        return error;
    error = index_file(store->index, &store->index_device, &store->index_inode);
    if (error < 0) {
        index_close(store->index);
        store->index = NULL;
    }
    return error;
}

int recover_open_index(struct hl_store *store)
{
    return open_index(store, INDEX_READ_ONLY, NULL);
}

bool recover_index_replaced(const struct hl_store *store)
{
    struct stat st;
    int fd = hl_io_open(store->io, store->dirfd, "index/data.mdb", O_RDONLY, 0);
    int error = fd < 0 ? fd : store->io->fstat(store->io->context, fd, &st);
    hl_io_close(store->io, fd);
    if (error < 0)
        return error == -ENOENT; /* that it cannot be looked at says nothing */
    return st.st_dev != store->index_device || st.st_ino != store->index_inode;
}

/* Whether a live segment took the place of one that the index lists. */
static bool replaces(const struct segment *live, const struct index_segment *known)
{
    return live->first <= known->first && live->last >= known->last &&
           live->generation > known->generation;
}

/* The first live segment that is listed by what it replaced. -ENOENT: there is none. */
static int find_unpatched(struct hl_store *store, struct segment **found)
{
    struct index_view *view;
    struct index_segment known;
    int error = index_view_begin(store->index, &view);
    if (error < 0)
        return error;
    for (uint32_t after = 0;; after = known.first) {
        error = index_segment_next(view, after, &known);
        if (error < 0)
            break;
        error = segment_get(&store->segments, known.first, found);
        if (error == 0 && replaces(*found, &known))
            break;
        if (error == 0)
            segment_put(&store->segments, *found);
        if (error < 0 && error != -ENOENT)
            break;
    }
    index_view_end(view);
    return error;
}

/* A compaction was cut short between the new segment and the index, or the index is from before
 * it: what it says of the old segments is led to the new one. */
static int patch_index(struct hl_store *store, struct hl_error *err)
{
    struct compact_patched patched;
    struct segment *segment;
    int error;
    while ((error = find_unpatched(store, &segment)) == 0) {
        store_report(store, HL_INFO, "the index is led to segment %s, which replaced others",
                     segment->name);
        error = compact_patch(store, segment, NULL, &patched);
        segment_put(&store->segments, segment);
        if (error < 0)
            break;
    }
    if (error == -ENOENT)
        return 0;
    if (error == -ESTALE)
        return hl_fail(err, ESTALE, "it is from before a compaction of what it ends in");
    return hl_fail(err, -error, "it cannot be led to segments that replaced others: %s",
                   strerror(-error));
}

/* Opens what is in index/ and adopts it. -EBADMSG, -ENOENT: it is of no use, err says why. */
static int try_index(struct hl_store *store, bool trusted, unsigned flags, struct hl_error *err)
{
    int error = 0;
    if (!trusted) {
        struct index_check_report report = {0};
        char *path = path_below(store, "index");
        if (!path)
            return -ENOMEM;
        error = index_check_in_child(path, flags & INDEX_NO_LOCK, store->store_id, &report);
        free(path);
        if (error < 0)
            hl_fail(err, -error, "%s", report.complaint[0] ? report.complaint : strerror(-error));
    }
    if (error == 0)
        error = open_index(store, flags, err);
    if (error < 0)
        return error;
    if (!store->options.read_only && !store->no_room)
        error = patch_index(store, err);
    if (error == 0)
        error = recover_adopt_index(store, err);
    if (error < 0) {
        index_close(store->index);
        store->index = NULL;
    }
    return error;
}

static bool of_no_use(int error)
{
    return error == -EBADMSG || error == -ENOENT || error == -ESTALE;
}

/* Takes the index that is there. -ENOENT: it was of no use, and is gone. */
static int use_index(struct hl_store *store, unsigned flags, struct hl_error *err)
{
    struct hl_error why = {0};
    bool read_only = store->options.read_only;
    /* Beside a live writer its own opening vouches for the index. */
    bool trusted = clean_mark_take(store) || (read_only && store->writer_alive);
    int error = try_index(store, trusted, flags, &why);
    if (error == 0)
        return 0;
    if (hl_io_is_full(error) && store->no_room)
        return -ENOENT;
    if (!of_no_use(error)) {
        if (error == -EACCES && read_only)
            return hl_fail(err, EACCES,
                           "index/lock.mdb must be writable, also for a read-only mount");
        return hl_fail(err, -error, "cannot open the index: %s", why.text);
    }
    if (read_only && store->writer_alive && store->retries > 0)
        return -EAGAIN; /* the writer went on between two looks: reread both */
    if (read_only) {
        store_report(store, HL_WARNING, "the index is not used: %s", why.text);
        return -ENOENT;
    }
    error = recover_set_index_aside(store, why.text);
    return error < 0 ? hl_fail(err, -error, "cannot set the index aside: %s", strerror(-error))
                     : -ENOENT;
}

/* Restores the newest checkpoint that is good and fits. -ENOENT: there is none. */
static int use_checkpoint(struct hl_store *store, unsigned flags, struct hl_error *err)
{
    struct hl_error why = {0};
    unsigned skip = 0;
    for (;;) {
        int error = checkpoint_restore(store, &skip, "index");
        if (error == -ENOENT)
            return error;
        if (error == 0)
            error = try_index(store, false, flags, &why); /* it may be a copy of a damaged one */
        if (error == 0) {
            store_report(store, HL_INFO, "the index was restored from a checkpoint");
            return 0;
        }
        /* What has no room to be whole only takes what little there is. */
        int removed =
            of_no_use(error) || hl_io_is_full(error) ? recover_remove_dir(store, "index") : 0;
        if (!of_no_use(error))
            return hl_fail(err, -error, "cannot restore a checkpoint: %s", strerror(-error));
        store_report(store, error == -ESTALE ? HL_INFO : HL_WARNING, "a checkpoint is not used: %s",
                     why.text);
        if (removed < 0)
            return hl_fail(err, -removed, "cannot remove the index: %s", strerror(-removed));
    }
}

static int begin_build(struct hl_store *store, struct hl_error *err)
{
    char *path = path_below(store, RECOVER_BUILD_NAME);
    int error = path ? recover_remove_dir(store, RECOVER_BUILD_NAME) : -ENOMEM;
    if (error == 0)
        error = index_open(path, INDEX_CREATE | INDEX_BUILD, store->store_id, &store->index, err);
    free(path);
    return error;
}

int recover_find_index(struct hl_store *store, bool *build, struct hl_error *err)
{
    bool read_only = store->options.read_only;
    unsigned flags = read_only ? INDEX_READ_ONLY : 0;
    if (read_only && !store->writer_alive)
        flags |= store->medium_read_only ? INDEX_NO_LOCK : 0;
    *build = false;
    if (store->without_index)
        return recover_adopt_index(store, err);
    int exists = recover_index_exists(store);
    if (exists < 0)
        return hl_fail(err, -exists, "cannot look at the index: %s", strerror(-exists));
    int error = exists ? use_index(store, flags, err) : -ENOENT;
    if (error == -ENOENT && (read_only || store->no_room))
        return recover_adopt_index(store, err);
    if (error == -ENOENT)
        error = use_checkpoint(store, flags, err);
    if (error != -ENOENT)
        return error;
    *build = true;
    error = begin_build(store, err);
    return error < 0 ? error : recover_adopt_index(store, err);
}
