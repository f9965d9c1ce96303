/*
 * checkpoint.c - checksummed copies of the index, and the mark of a clean end.
 *
 * A checkpoint is LMDB's own compact copy of the environment with a trailer behind it, named by the
 * watermark that it holds: DIR/checkpoints/<watermark>.ckpt. Its CRC-64 (ECMA-182, reflected, as in
 * XZ) covers every byte before it.
 *
 * The mark of a clean end, DIR/index/clean, says how large data.mdb was and when it was last
 * written, when the store was closed in order. It is removed before the environment is opened for
 * writing: whatever happens then, the next opening examines the index before it trusts it.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core.h"
#include "crc.h"
#include "thread.h"

#define CHECKPOINTS_KEPT 3
#define COPY_BYTES (256U * 1024)
#define TRAILER_MAGIC "HOTLOGCK"

struct trailer {
    uint8_t magic[8];
    uint64_t version;
    uint8_t store_id[16];
    uint64_t watermark;
    uint64_t size; /* of the copy before the trailer */
    uint64_t created_ms;
    uint64_t crc64; /* of the copy and of the trailer up to here */
};
static_assert(sizeof(struct trailer) == 64, "checkpoint trailer is 64 bytes");

/* ---- writing ---- */

struct copier {
    struct index *index;
    int fd; /* the pipe's end to write to; closed when done */
    int error;
};

static void *copy_run(void *context)
{
    struct copier *copier = context;
    copier->error = index_copy(copier->index, copier->fd);
    close(copier->fd);
    return NULL;
}

/* Takes what comes from the pipe to the file, and sums it. */
static int drain(struct hl_store *store, int from, int to, struct hl_progress *progress,
                 void (*begun)(void *context), void *context, uint64_t *size, uint64_t *crc)
{
    uint8_t *buffer = malloc(COPY_BYTES);
    int error = buffer ? 0 : -ENOMEM;
    *size = *crc = 0;
    while (error == 0) {
        ssize_t n = read(from, buffer, COPY_BYTES);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            error = n < 0 ? -errno : 0;
            break;
        }
        if (*size == 0 && begun) /* LMDB's view is open: what it shows is fixed from here on */
            begun(context);
        *crc = crc64_more(*crc, buffer, (size_t)n);
        error = hl_io_write(store->io, to, buffer, (size_t)n, *size);
        *size += (uint64_t)n;
        if (progress) {
            atomic_fetch_add(&progress->done, (uint64_t)n);
            if (atomic_load(&progress->cancel))
                error = -EINTR;
        }
    }
    free(buffer);
    return error;
}

int checkpoint_copy_index(struct hl_store *store, int to, struct hl_progress *progress,
                          void (*begun)(void *context), void *context, uint64_t *size,
                          uint64_t *crc)
{
    int ends[2];
    pthread_t thread;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    struct copier copier = {.index = store->index, .fd = ends[1]};
    int error = thread_start(&thread, copy_run, &copier);
    if (error < 0) {
        close(ends[0]);
        close(ends[1]);
        return error;
    }
    error = drain(store, ends[0], to, progress, begun, context, size, crc);
    close(ends[0]);
    pthread_join(thread, NULL);
    return error < 0 ? error : copier.error;
}

static int write_trailer(struct hl_store *store, int fd, uint64_t watermark, uint64_t size,
                         uint64_t crc)
{
    struct trailer trailer = {
        .magic = TRAILER_MAGIC,
        .version = htole64(1),
        .watermark = htole64(watermark),
        .size = htole64(size),
        .created_ms = htole64(now_ms()),
    };
    memcpy(trailer.store_id, store->store_id, sizeof trailer.store_id);
    trailer.crc64 = htole64(crc64_more(crc, &trailer, offsetof(struct trailer, crc64)));
    int error = hl_io_write(store->io, fd, &trailer, sizeof trailer, size);
    return error < 0 ? error : hl_io_fsync(store->io, fd);
}

struct names {
    char at[64][32]; /* newest (greatest) first */
    size_t count;
};

static int collect_name(void *context, const char *name)
{
    struct names *names = context;
    uint64_t watermark;
    char again[32];
    if (sscanf(name, "%16" SCNx64 ".ckpt", &watermark) != 1)
        return 0;
    snprintf(again, sizeof again, "%016" PRIx64 ".ckpt", watermark);
    if (strcmp(name, again) != 0 || names->count == sizeof names->at / sizeof names->at[0])
        return 0;
    size_t i = names->count++;
    for (; i > 0 && strcmp(names->at[i - 1], again) < 0; i--)
        memcpy(names->at[i], names->at[i - 1], sizeof again);
    memcpy(names->at[i], again, sizeof again);
    return 0;
}

int checkpoint_write(struct hl_store *store, struct hl_progress *progress, struct hl_error *err)
{
    char name[32];
    uint64_t watermark = atomic_load(&store->indexed), size = 0, crc = 0;
    if (!store->index)
        return hl_fail(err, ENOSPC, "there is no index yet: there was no room for it");
    store->checkpoint_clock = monotonic_ms();
    if (progress)
        atomic_store(&progress->total, index_bytes(store->index));
    int dir = hl_io_open_dir(store->io, store->dirfd, "checkpoints", true);
    if (dir < 0)
        return hl_fail(err, -dir, "cannot open checkpoints/: %s", strerror(-dir));
    int fd = hl_io_open(store->io, dir, "new.tmp", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int error = fd < 0 ? fd : checkpoint_copy_index(store, fd, progress, NULL, NULL, &size, &crc);
    if (error == 0)
        error = write_trailer(store, fd, watermark, size, crc);
    hl_io_close(store->io, fd);
    snprintf(name, sizeof name, "%016" PRIx64 ".ckpt", watermark);
    if (error == 0)
        error = store->io->rename(store->io->context, dir, "new.tmp", dir, name);
    if (error == 0)
        error = hl_io_fsync(store->io, dir);
    if (error < 0) {
        store->io->unlink(store->io->context, dir, "new.tmp", 0);
        hl_io_close(store->io, dir);
        return hl_fail(err, -error, "cannot write a checkpoint: %s", strerror(-error));
    }
    struct names names = {.count = 0};
    store->io->list(store->io->context, dir, collect_name, &names);
    for (size_t i = CHECKPOINTS_KEPT; i < names.count; i++)
        store->io->unlink(store->io->context, dir, names.at[i], 0);
    hl_io_close(store->io, dir);
    store->checkpoint_position = watermark;
    atomic_store(&store->checkpoint_ms, now_ms());
    atomic_fetch_add(&store->checkpoints, 1);
    index_reader_check(store->index);
    return 0;
}

int hl_checkpoint(struct hl_store *store, struct hl_progress *progress, struct hl_error *err)
{
    int error = store_writable(store, err);
    if (error < 0)
        return error;
    pthread_mutex_lock(&store->flush_lock);
    error = flush_all(store);
    if (error < 0)
        hl_fail(err, -error, "cannot bring the index up to date: %s", strerror(-error));
    else
        error = checkpoint_write(store, progress, err);
    pthread_mutex_unlock(&store->flush_lock);
    return error;
}

uint64_t checkpoint_newest(struct hl_store *store)
{
    struct names names = {.count = 0};
    uint64_t watermark = 0;
    int dir = hl_io_open_dir(store->io, store->dirfd, "checkpoints", false);
    if (dir < 0)
        return 0;
    if (store->io->list(store->io->context, dir, collect_name, &names) == 0 && names.count > 0)
        sscanf(names.at[0], "%16" SCNx64, &watermark);
    hl_io_close(store->io, dir);
    return watermark;
}

/* ---- restoring ---- */

/* Checks a whole file against its trailer. -EBADMSG: it is not good. *size: of the copy in it. */
static int check_file(struct hl_store *store, int fd, uint64_t *size)
{
    uint64_t whole, crc = 0;
    struct trailer trailer;
    int error = hl_io_size(store->io, fd, &whole);
    if (error < 0)
        return error;
    if (whole < sizeof trailer)
        return -EBADMSG;
    *size = whole - sizeof trailer;
    ssize_t n = hl_io_read(store->io, fd, &trailer, sizeof trailer, *size);
    if (n != (ssize_t)sizeof trailer)
        return n < 0 ? (int)n : -EBADMSG;
    if (memcmp(trailer.magic, TRAILER_MAGIC, sizeof trailer.magic) != 0 ||
        le64toh(trailer.version) != 1 || le64toh(trailer.size) != *size ||
        memcmp(trailer.store_id, store->store_id, sizeof trailer.store_id) != 0)
        return -EBADMSG;
    uint8_t *buffer = malloc(COPY_BYTES);
    if (!buffer)
        return -ENOMEM;
    for (uint64_t done = 0; done < *size && error == 0;) {
        size_t want = *size - done < COPY_BYTES ? (size_t)(*size - done) : COPY_BYTES;
        n = hl_io_read(store->io, fd, buffer, want, done);
        if (n <= 0)
            error = n < 0 ? (int)n : -EBADMSG;
        else
            crc = crc64_more(crc, buffer, (size_t)n);
        done += n > 0 ? (uint64_t)n : 0;
    }
    free(buffer);
    crc = crc64_more(crc, &trailer, offsetof(struct trailer, crc64));
    if (error == 0 && crc != le64toh(trailer.crc64))
        error = -EBADMSG;
    return error;
}

static int copy_out(struct hl_store *store, int from, uint64_t size, int dir)
{
    int to = hl_io_open(store->io, dir, "data.mdb", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int error = to < 0 ? to : hl_io_copy(store->io, from, 0, size, to, 0);
    if (error == 0)
        error = hl_io_fsync(store->io, to);
    hl_io_close(store->io, to);
    return error;
}

static int restore_one(struct hl_store *store, int checkpoints, const char *checkpoint,
                       const char *name)
{
    uint64_t size;
    int fd = hl_io_open(store->io, checkpoints, checkpoint, O_RDONLY, 0);
    if (fd < 0)
        return fd;
    int error = check_file(store, fd, &size);
    if (error == 0) {
        int dir = hl_io_open_dir(store->io, store->dirfd, name, true);
        error = dir < 0 ? dir : copy_out(store, fd, size, dir);
        hl_io_close(store->io, dir);
    }
    hl_io_close(store->io, fd);
    return error;
}

int checkpoint_restore(struct hl_store *store, unsigned *skip, const char *name)
{
    struct names names = {.count = 0};
    int dir = hl_io_open_dir(store->io, store->dirfd, "checkpoints", false);
    if (dir < 0)
        return dir;
    int error = store->io->list(store->io->context, dir, collect_name, &names);
    bool restored = false;
    while (error == 0 && !restored && *skip < names.count) {
        const char *checkpoint = names.at[(*skip)++];
        error = restore_one(store, dir, checkpoint, name);
        restored = error == 0;
        if (error == -EBADMSG || error == -ENOENT) {
            store_report(store, HL_WARNING, "checkpoint %s is damaged", checkpoint);
            error = 0;
        }
    }
    hl_io_close(store->io, dir);
    return error < 0 ? error : restored ? 0 : -ENOENT;
}

/* ---- checking ---- */

static int check_one(struct hl_store *store, int dir, const char *name)
{
    uint64_t size;
    int fd = hl_io_open(store->io, dir, name, O_RDONLY, 0);
    int error = fd < 0 ? fd : check_file(store, fd, &size);
    hl_io_close(store->io, fd);
    return error;
}

int checkpoint_check(struct hl_store *store,
                     void (*each)(void *context, const char *name, int result), void *context)
{
    struct names names = {.count = 0};
    int dir = hl_io_open_dir(store->io, store->dirfd, "checkpoints", false);
    if (dir < 0)
        return dir == -ENOENT ? 0 : dir;
    int error = store->io->list(store->io->context, dir, collect_name, &names);
    for (size_t i = 0; i < names.count && error == 0; i++) {
        char path[64];
        int result = check_one(store, dir, names.at[i]);
        snprintf(path, sizeof path, "checkpoints/%s", names.at[i]);
        if (result == 0 || result == -EBADMSG)
            each(context, path, result);
        else
            error = result;
    }
    hl_io_close(store->io, dir);
    return error;
}

int checkpoint_remove(struct hl_store *store, bool all)
{
    struct names names = {.count = 0};
    int dir = hl_io_open_dir(store->io, store->dirfd, "checkpoints", false);
    if (dir < 0)
        return dir == -ENOENT ? 0 : dir;
    int error = store->io->list(store->io->context, dir, collect_name, &names);
    for (size_t i = 0; i < names.count && error == 0; i++) {
        int result = all ? -EBADMSG : check_one(store, dir, names.at[i]);
        error = result == -EBADMSG ? store->io->unlink(store->io->context, dir, names.at[i], 0)
                                   : result;
    }
    if (error == 0)
        error = hl_io_fsync(store->io, dir);
    hl_io_close(store->io, dir);
    return error;
}

/* ---- the mark of a clean end ---- */

#define CLEAN_NAME "clean"

/* What the mark says of data.mdb as it is now. Returns its length, or an error. */
static int clean_text(struct hl_store *store, int dir, char *text, size_t size)
{
    struct stat st;
    int fd = hl_io_open(store->io, dir, "data.mdb", O_RDONLY, 0);
    if (fd < 0)
        return fd;
    int error = store->io->fstat(store->io->context, fd, &st);
    hl_io_close(store->io, fd);
    if (error < 0)
        return error;
    return snprintf(text, size,
                    "closed in order; data.mdb then had %lld bytes, written %lld.%09ld\n",
                    (long long)st.st_size, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

int clean_mark_write(struct hl_store *store, int dirfd)
{
    char text[160];
    int dir = hl_io_open_dir(store->io, dirfd, "index", false);
    if (dir < 0)
        return dir;
    int len = clean_text(store, dir, text, sizeof text);
    int error = len < 0 ? len : hl_io_put_file(store->io, dir, CLEAN_NAME, text, (size_t)len);
    hl_io_close(store->io, dir);
    return error;
}

bool clean_mark_take(struct hl_store *store)
{
    char text[160], stored[160];
    int dir = hl_io_open_dir(store->io, store->dirfd, "index", false);
    if (dir < 0)
        return false;
    int len = clean_text(store, dir, text, sizeof text);
    int fd = hl_io_open(store->io, dir, CLEAN_NAME, O_RDONLY, 0);
    ssize_t n = fd < 0 ? fd : hl_io_read(store->io, fd, stored, sizeof stored, 0);
    hl_io_close(store->io, fd);
    bool clean = len > 0 && n == len && memcmp(text, stored, (size_t)len) == 0;
    if (fd >= 0 && !store->options.read_only) {
        /* Gone for good before the environment is touched, or a crash could leave it standing. */
        int error = store->io->unlink(store->io->context, dir, CLEAN_NAME, 0);
        if (error == 0)
            error = hl_io_fsync(store->io, dir);
        clean = clean && error == 0;
    }
    hl_io_close(store->io, dir);
    return clean;
}
