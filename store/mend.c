/*
 * mend.c - damaged segment files made good. None is written to: a mended copy, whose good frames
 * stand where they stood, takes a file's name when it is synced, and what was cut out or could not
 * be read lies in quarantine/ before that.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "seal.h"

/* ---- a mended copy ---- */

struct mending {
    struct hl_store *store;
    const struct segment *segment; /* as it is */
    int to;
    struct seal seal;
    uint64_t end; /* of what was written */
    uint64_t set_aside;
};

static int set_aside(struct mending *mending, const struct scan_item *item, const char *why)
{
    mending->set_aside += item->size;
    return quarantine(mending->store, mending->segment, item->offset, item->size, why);
}

/* A seal is not copied, since one is written when the end is known; if something comes behind it
 * after all, a void frame stands there. */
static int pass_over_seal(struct mending *mending, const struct scan_item *item)
{
    if (mending->end == item->offset)
        return 0;
    return segment_write_void(mending->store->io, mending->to, mending->segment->salt, mending->end,
                              item->offset - mending->end);
}

static int take_item(struct mending *mending, const struct scan_item *item)
{
    const struct hl_io *io = mending->store->io;
    const struct frame *frame = &item->frame;
    if (item->kind == SCAN_TAIL)
        return set_aside(mending, item, "damaged bytes at the end of a sealed segment; cut off");
    if (item->kind == SCAN_FRAME && frame->recorded_ms > mending->seal.recorded_ms)
        mending->seal.recorded_ms = frame->recorded_ms;
    if (item->kind == SCAN_FRAME && frame->type == FRAME_SEAL)
        return 0;
    int error = pass_over_seal(mending, item);
    if (error == 0 && item->kind == SCAN_GAP)
        error = set_aside(mending, item,
                          "damaged bytes in a sealed segment; a void frame took their place");
    if (error < 0)
        return error;
    mending->end = item->offset + item->size;
    if (item->kind == SCAN_GAP)
        return segment_write_void(io, mending->to, mending->segment->salt, item->offset,
                                  item->size);
    if (frame_is_record(frame->type)) {
        mending->seal.records++;
        mending->seal.line_bytes += frame->length;
    }
    return hl_io_copy(io, mending->segment->fd, item->offset, item->size, mending->to,
                      item->offset);
}

static int copy_frames(struct mending *mending)
{
    struct scan scan;
    struct scan_item item = {.kind = SCAN_GAP};
    uint64_t size;
    const struct hl_io *io = mending->store->io;
    int error = hl_io_size(io, mending->segment->fd, &size);
    if (error < 0)
        return error;
    mending->end = SEGMENT_HEADER_REGION;
    scan_init(&scan, io, mending->segment->fd, mending->segment->salt, SEGMENT_HEADER_REGION, size);
    while (error == 0 && item.kind != SCAN_END) {
        error = scan_next(&scan, &item);
        if (error == 0 && item.kind != SCAN_END)
            error = take_item(mending, &item);
    }
    scan_free(&scan);
    return error;
}

static int write_end(struct mending *mending)
{
    uint8_t bytes[SEAL_FRAME_MAX];
    mending->seal.end = mending->end;
    uint64_t size = seal_frame(bytes, mending->segment->salt, &mending->seal);
    return hl_io_write(mending->store->io, mending->to, bytes, size, mending->end);
}

/* Everything behind the header as it is: the last segment's end is recovery's to mend. */
static int copy_rest(struct mending *mending)
{
    uint64_t size;
    const struct hl_io *io = mending->store->io;
    int error = hl_io_size(io, mending->segment->fd, &size);
    if (error < 0 || size <= SEGMENT_HEADER_REGION)
        return error;
    return hl_io_copy(io, mending->segment->fd, SEGMENT_HEADER_REGION, size - SEGMENT_HEADER_REGION,
                      mending->to, SEGMENT_HEADER_REGION);
}

static int write_copy(struct mending *mending, bool newest)
{
    uint8_t region[SEGMENT_HEADER_REGION];
    const struct hl_io *io = mending->store->io;
    segment_header_region(mending->segment, region);
    int error = hl_io_write(io, mending->to, region, sizeof region, 0);
    if (error == 0)
        error = newest ? copy_rest(mending) : copy_frames(mending);
    if (error == 0 && !newest)
        error = write_end(mending);
    return error == 0 ? hl_io_fsync(io, mending->to) : error;
}

/* Puts a mended copy of the segment (which is open, and whose header fields are right) in its
 * place. */
static int mend_content(struct hl_store *store, const struct segment *segment, bool newest)
{
    struct mending mending = {.store = store, .segment = segment};
    char temporary[SEGMENT_NAME_MAX + 8];
    snprintf(temporary, sizeof temporary, "%s.tmp", segment->name);
    mending.to = hl_io_open_new(store->io, store->logfd, temporary);
    if (mending.to < 0)
        return mending.to;
    int error = write_copy(&mending, newest);
    hl_io_close(store->io, mending.to);
    if (error == 0)
        error = store->io->rename(store->io->context, store->logfd, temporary, store->logfd,
                                  segment->name);
    if (error < 0) {
        store->io->unlink(store->io->context, store->logfd, temporary, 0);
        return error;
    }
    store_report(store, HL_INFO,
                 "segment %s was mended; %" PRIu64 " bytes of it are in quarantine/", segment->name,
                 mending.set_aside);
    return hl_io_fsync(store->io, store->logfd);
}

/* ---- files that cannot be read, or are not there ---- */

/* A file without a header whose salt the index has: if a good frame stands in it, that is the salt.
 */
static int mend_header(struct hl_store *store, const struct fault *fault, bool *mended)
{
    struct segment segment = {
        .first = fault->first,
        .last = fault->last,
        .generation = fault->generation,
        .salt = fault->salt,
    };
    struct scan scan;
    struct scan_item item = {.kind = SCAN_END};
    uint64_t size;
    *mended = false;
    memcpy(segment.store_id, store->store_id, sizeof segment.store_id);
    memcpy(segment.name, fault->name, sizeof segment.name);
    segment.fd = hl_io_open(store->io, store->logfd, fault->name, O_RDONLY, 0);
    if (segment.fd < 0)
        return segment.fd;
    int error = hl_io_size(store->io, segment.fd, &size);
    if (error == 0) {
        scan_init(&scan, store->io, segment.fd, segment.salt, SEGMENT_HEADER_REGION, size);
        error = scan_next(&scan, &item);
        segment.created_ms = item.kind == SCAN_FRAME ? item.frame.recorded_ms : 0;
        *mended = error == 0 && (item.kind == SCAN_FRAME || item.kind == SCAN_GAP);
        scan_free(&scan);
    }
    if (error == 0 && *mended)
        error = mend_content(store, &segment, fault->newest);
    hl_io_close(store->io, segment.fd);
    return error;
}

/* An empty sealed segment in the place of one that is gone, so that nothing else takes its number
 * and nothing waits for it. */
static int fill_hole(struct hl_store *store, struct segment_set *set, uint32_t number)
{
    uint8_t bytes[SEAL_FRAME_MAX];
    struct segment *segment;
    struct seal seal = {.end = SEGMENT_HEADER_REGION};
    int error = segment_create(set, number, store->store_id, now_ms(), &segment);
    if (error < 0)
        return error == -EEXIST ? 0 : error;
    uint64_t size = seal_frame(bytes, segment->salt, &seal);
    error = hl_io_write(store->io, segment->fd, bytes, size, seal.end);
    if (error == 0)
        error = hl_io_fsync(store->io, segment->fd);
    if (error == 0)
        store_report(store, HL_WARNING, "segment %" PRIu32 " is gone: an empty one takes its place",
                     number);
    segment_free(set, segment);
    return error;
}

static int fill_holes(struct hl_store *store, const struct fault *fault)
{
    struct segment_set set;
    int error = 0;
    segment_set_init(&set, store->io, store->logfd, true);
    for (uint32_t number = fault->first; error == 0; number++) {
        error = fill_hole(store, &set, number);
        if (number == fault->last)
            break;
    }
    segment_set_free(&set);
    return error;
}

static int mend_unreadable(struct hl_store *store, const struct fault *fault)
{
    bool mended = false;
    int error = fault->salt_known ? mend_header(store, fault, &mended) : 0;
    if (error < 0 || mended)
        return error;
    error = recover_move_away(store, fault->name, "quarantine", "it has no good header");
    if (error == 0)
        store_report(store, HL_WARNING,
                     "segment %s was moved to quarantine/: it has no good header", fault->name);
    return error == 0 && !fault->newest ? fill_holes(store, fault) : error;
}

/* Opens a segment of log/ as it is now; mending goes on without it if it is no more. */
static int mend_file(struct hl_store *store, const struct fault *fault)
{
    struct segment_set set;
    struct segment *segment;
    segment_set_init(&set, store->io, store->logfd, false);
    int error = segment_load(&set, fault->name, &segment, NULL);
    if (error == 0) {
        error = mend_content(store, segment, fault->newest);
        segment_free(&set, segment);
    }
    segment_set_free(&set);
    return error == -ENOENT ? 0 : error;
}

int mend_log(struct hl_store *store, const struct faults *faults)
{
    int error = 0;
    for (size_t i = 0; i < faults->count && error == 0; i++) {
        const struct fault *fault = &faults->at[i];
        if (fault->restored)
            continue;
        if (fault->kind == FAULT_CONTENT)
            error = mend_file(store, fault);
        else if (fault->kind == FAULT_UNREADABLE)
            error = mend_unreadable(store, fault);
        else
            error = fill_holes(store, fault);
    }
    return error;
}
