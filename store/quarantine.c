/*
 * quarantine.c - bytes that are set aside before anything is cut or written over.
 *
 * DIR/quarantine/<segment>.<offset>-<end>.bytes holds them as they were, and .note beside it says
 * what they are. Names are made of the place, so that doing it twice changes nothing.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>

#include "core.h"

#define COPY_BYTES (256U * 1024)

static int copy_bytes(struct hl_store *store, const struct segment *segment, uint64_t offset,
                      uint64_t size, int to)
{
    uint8_t *buffer = malloc(COPY_BYTES);
    int error = buffer ? 0 : -ENOMEM;
    for (uint64_t done = 0; error == 0 && done < size;) {
        size_t want = size - done < COPY_BYTES ? (size_t)(size - done) : COPY_BYTES;
        ssize_t n = hl_io_read(store->io, segment->fd, buffer, want, offset + done);
        if (n <= 0) {
            error = n < 0 ? (int)n : -EIO;
            break;
        }
        error = hl_io_write(store->io, to, buffer, (size_t)n, done);
        done += (uint64_t)n;
    }
    free(buffer);
    return error;
}

static int copy_to_file(struct hl_store *store, int dir, const char *name,
                        const struct segment *segment, uint64_t offset, uint64_t size)
{
    char temporary[128];
    snprintf(temporary, sizeof temporary, "%s.tmp", name);
    int fd = hl_io_open(store->io, dir, temporary, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0)
        return fd;
    int error = copy_bytes(store, segment, offset, size, fd);
    if (error == 0)
        error = hl_io_fsync(store->io, fd);
    hl_io_close(store->io, fd);
    if (error == 0)
        error = store->io->rename(store->io->context, dir, temporary, dir, name);
    if (error < 0)
        store->io->unlink(store->io->context, dir, temporary, 0);
    return error;
}

int quarantine(struct hl_store *store, const struct segment *segment, uint64_t offset,
               uint64_t size, const char *why)
{
    char name[96], note_name[104], note[512];
    snprintf(name, sizeof name, "%s.%08" PRIx64 "-%08" PRIx64, segment->name, offset,
             offset + size);
    snprintf(note_name, sizeof note_name, "%s.note", name);
    int len = snprintf(note, sizeof note,
                       "segment: %s\noffset: %" PRIu64 "\nbytes: %" PRIu64 "\nfound_ms: %" PRIu64
                       "\nwhy: %s\n",
                       segment->name, offset, size, now_ms(), why);
    strncat(name, ".bytes", sizeof name - strlen(name) - 1);
    int dir = hl_io_open_dir(store->io, store->dirfd, "quarantine", true, NULL);
    if (dir < 0)
        return dir;
    int there = hl_io_open(store->io, dir, name, O_RDONLY, 0);
    int error = 0;
    if (there >= 0) {
        hl_io_close(store->io, there);
    } else {
        error = copy_to_file(store, dir, name, segment, offset, size);
        if (error == 0)
            error = hl_io_put_file(store->io, dir, note_name, note, (size_t)len);
        if (error == 0)
            atomic_fetch_add(&store->quarantined_bytes, size);
    }
    hl_io_close(store->io, dir);
    return error;
}
