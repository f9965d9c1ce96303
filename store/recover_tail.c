/* recover_tail.c - the end of the last segment, made fit to be appended to. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "recover.h"

#define REWRITE_BYTES (256U * 1024)

/* A region without a whole batch is set aside, and a void frame takes its place: what is found
 * there later must not depend on which batches were whole today. */
static int void_region(struct hl_store *store, const struct segment *segment,
                       const struct replay_region *region)
{
    char what[200];
    snprintf(what, sizeof what,
             "segment %s at byte %" PRIu64 ": %" PRIu64
             " bytes hold no whole batch; they are in quarantine/",
             segment->name, region->offset, region->size);
    store_damage(store, position_make(segment->first, region->offset), what);
    int error = quarantine(store, segment, region->offset, region->size,
                           "no whole batch, between whole ones; a void frame took its place");
    for (uint64_t done = 0; error == 0 && region->size - done >= FRAME_HEADER_SIZE;) {
        uint64_t size = region->size - done;
        if (size > FRAME_BODY_LIMIT / 2)
            size = FRAME_BODY_LIMIT / 4;
        uint8_t *bytes = malloc(size);
        if (!bytes)
            return -ENOMEM;
        struct frame frame = {
            .length = (uint32_t)(size - FRAME_HEADER_SIZE),
            .type = FRAME_VOID,
            .flags = FRAME_FIRST_OF_BATCH | FRAME_LAST_OF_BATCH,
        };
        memset(bytes + FRAME_HEADER_SIZE, ' ', frame.length);
        frame_finish(bytes, segment->salt, region->offset + done, &frame);
        error = hl_io_write(store->io, segment->fd, bytes, size, region->offset + done);
        free(bytes);
        done += size;
    }
    return error;
}

/* The page cache may hold as clean what the disk never got: writing the same bytes makes it dirty.
 */
static int rewrite(struct hl_store *store, const struct segment *segment, uint64_t from,
                   uint64_t to)
{
    uint8_t *buffer = malloc(REWRITE_BYTES);
    int error = buffer ? 0 : -ENOMEM;
    while (error == 0 && from < to) {
        size_t want = to - from < REWRITE_BYTES ? (size_t)(to - from) : REWRITE_BYTES;
        ssize_t n = hl_io_read(store->io, segment->fd, buffer, want, from);
        error = n < 0 ? (int)n : n == 0 ? -EIO : 0;
        if (error == 0)
            error = hl_io_write(store->io, segment->fd, buffer, (size_t)n, from);
        from += n > 0 ? (uint64_t)n : 0;
    }
    free(buffer);
    return error;
}

int recover_mend_tail(struct hl_store *store, struct replay *last, uint64_t from,
                      uint64_t file_size, struct hl_error *err)
{
    struct segment *segment = last->segment;
    int error = 0;
    for (size_t i = 0; i < last->region_count && error == 0; i++)
        error = void_region(store, segment, &last->regions[i]);
    if (error == 0 && last->tail_end > last->end) {
        uint64_t torn = last->tail_end - last->end;
        error = quarantine(store, segment, last->end, torn, "a torn tail, cut at opening");
        if (error == 0)
            store_report(store, HL_WARNING,
                         "segment %s: a torn tail of %" PRIu64
                         " bytes behind the last whole batch was moved to quarantine/",
                         segment->name, torn);
    }
    if (error == 0 && file_size > last->end)
        error = hl_io_truncate(store->io, segment->fd, last->end);
    if (error == 0)
        error = rewrite(store, segment, from, last->end);
    /* Also when nothing was replayed: whoever made the file and its names may have died before it
     * synced them, and an append is acknowledged by a sync of the file's data alone. */
    if (error == 0)
        error = hl_io_fsync(store->io, segment->fd);
    if (error == 0)
        error = hl_io_fsync(store->io, store->logfd);
    if (error == 0)
        error = hl_io_fsync(store->io, store->dirfd);
    if (error < 0)
        return hl_fail(err, -error, "cannot mend the tail of segment %s: %s", segment->name,
                       strerror(-error));
    return 0;
}
