/*
 * quarantine.c - bytes that are set aside before anything is cut or written over.
 *
 * DIR/quarantine/<segment>.<offset>-<end>.bytes holds them as they were, and .note beside it says
 * what they are. Names are made of the place, so that doing it twice changes nothing; other bytes
 * from the same place get a number behind it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>

#include "core.h"

#define COPY_BYTES (256U * 1024)
#define NAME_ROOM 112

static int copy_to_file(struct hl_store *store, int dir, const char *name,
                        const struct segment *segment, uint64_t offset, uint64_t size)
{
    char temporary[NAME_ROOM + 16];
    snprintf(temporary, sizeof temporary, "%s.tmp", name);
    int fd = hl_io_open(store->io, dir, temporary, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0)
        return fd;
    int error = hl_io_copy(store->io, segment->fd, offset, size, fd, 0);
    if (error == 0)
        error = hl_io_fsync(store->io, fd);
    hl_io_close(store->io, fd);
    if (error == 0)
        error = store->io->rename(store->io->context, dir, temporary, dir, name);
    if (error < 0)
        store->io->unlink(store->io->context, dir, temporary, 0);
    return error;
}

/* Whether the file holds these very bytes. 1, 0, or a negative errno. */
static int holds(struct hl_store *store, int fd, const struct segment *segment, uint64_t offset,
                 uint64_t size)
{
    uint64_t kept;
    int same = hl_io_size(store->io, fd, &kept);
    if (same < 0 || kept != size)
        return same;
    uint8_t *buffer = malloc((size_t)2 * COPY_BYTES);
    if (!buffer)
        return -ENOMEM;
    same = 1;
    for (uint64_t done = 0; same == 1 && done < size;) {
        size_t want = size - done < COPY_BYTES ? (size_t)(size - done) : COPY_BYTES;
        ssize_t n = hl_io_read(store->io, segment->fd, buffer, want, offset + done);
        ssize_t m = n < 0 ? n : hl_io_read(store->io, fd, buffer + COPY_BYTES, want, done);
        if (m < 0)
            same = (int)m;
        else
            same = n == m && n > 0 && memcmp(buffer, buffer + COPY_BYTES, (size_t)n) == 0;
        done += want;
    }
    free(buffer);
    return same;
}

/* A name that is free, or under which these bytes are kept already (*kept): the same place may be
 * torn again, with other bytes. base has no ending yet. */
static int choose_name(struct hl_store *store, int dir, const struct segment *segment,
                       uint64_t offset, uint64_t size, char base[NAME_ROOM], bool *kept)
{
    char name[NAME_ROOM + 8];
    size_t len = strlen(base);
    *kept = false;
    for (unsigned again = 1;; again++) {
        snprintf(name, sizeof name, "%s.bytes", base);
        int fd = hl_io_open(store->io, dir, name, O_RDONLY, 0);
        if (fd == -ENOENT)
            return 0;
        int same = fd < 0 ? fd : holds(store, fd, segment, offset, size);
        hl_io_close(store->io, fd);
        if (same != 0) {
            *kept = same == 1;
            return same < 0 ? same : 0;
        }
        snprintf(base + len, NAME_ROOM - len, ".%u", again);
    }
}

int quarantine(struct hl_store *store, const struct segment *segment, uint64_t offset,
               uint64_t size, const char *why)
{
    char base[NAME_ROOM], name[NAME_ROOM + 8], note[512];
    bool kept;
    snprintf(base, sizeof base, "%s.%08" PRIx64 "-%08" PRIx64, segment->name, offset,
             offset + size);
    int len = snprintf(note, sizeof note,
                       "segment: %s\noffset: %" PRIu64 "\nbytes: %" PRIu64 "\nfound_ms: %" PRIu64
                       "\nwhy: %s\n",
                       segment->name, offset, size, now_ms(), why);
    int dir = hl_io_make_dir(store->io, store->dirfd, "quarantine");
    if (dir < 0)
        return dir;
    int error = choose_name(store, dir, segment, offset, size, base, &kept);
    if (error == 0 && !kept) {
        snprintf(name, sizeof name, "%s.note", base);
        error = hl_io_put_file(store->io, dir, name, note, (size_t)len);
        snprintf(name, sizeof name, "%s.bytes", base);
        if (error == 0)
            error = copy_to_file(store, dir, name, segment, offset, size);
        if (error == 0)
            atomic_fetch_add(&store->quarantined_bytes, size);
    }
    if (error == 0) /* also of what is kept already: whoever put it there may not have come to it */
        error = hl_io_fsync(store->io, dir);
    hl_io_close(store->io, dir);
    return error;
}
