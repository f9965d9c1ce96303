/* reserve.c - see reserve.h. */
#include "reserve.h"

#include <errno.h>
#include <fcntl.h>

#define NAME "reserve"
#define TEMPORARY "reserve.tmp"
#define SEGMENTS 2U
#define PLENTY 8U /* so many times as much must be free */

static uint64_t size_of(struct hl_store *store)
{
    uint64_t size = 0;
    int fd = hl_io_open(store->io, store->dirfd, NAME, O_RDONLY, 0);
    if (fd < 0 || hl_io_size(store->io, fd, &size) < 0)
        size = 0;
    hl_io_close(store->io, fd);
    return size;
}

/* Nothing depends on it: a failure leaves none. */
void reserve_make(struct hl_store *store)
{
    const struct hl_io *io = store->io;
    uint64_t wanted = SEGMENTS * store->options.segment_size, room = 0, size = size_of(store);
    if (size < wanted && hl_io_room(io, store->dirfd, &room) == 0 && room / PLENTY > wanted) {
        int fd = hl_io_open_new(io, store->dirfd, TEMPORARY);
        int error = fd < 0 ? fd : io->allocate(io->context, fd, wanted);
        if (error == 0)
            error = hl_io_fsync(io, fd);
        hl_io_close(io, fd);
        if (error == 0)
            error = io->rename(io->context, store->dirfd, TEMPORARY, store->dirfd, NAME);
        if (error == 0)
            error = hl_io_fsync(io, store->dirfd);
        if (error < 0)
            io->unlink(io->context, store->dirfd, TEMPORARY, 0);
        size = error == 0 ? wanted : size_of(store);
    }
    atomic_store(&store->reserve_bytes, size);
}

bool reserve_spend(struct hl_store *store)
{
    const struct hl_io *io = store->io;
    if (io->unlink(io->context, store->dirfd, NAME, 0) < 0)
        return false;
    (void)hl_io_fsync(io, store->dirfd);
    atomic_store(&store->reserve_bytes, 0);
    store_report(store, HL_WARNING, "the disk is full: the reserve is spent on a compaction");
    return true;
}
