/*
 * compact_write.c - the segment that takes the place of a run.
 *
 * Frames stand in it in their order, at other offsets and under another salt; all else of them is
 * as it was. Nothing counts on the file before it is synced, was read back from the disk, and is
 * what was to be written.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "compact.h"
#include "crc.h"
#include "drop.h"
#include "scan.h"
#include "seal.h"

#define WRITE_BYTES ((size_t)1 << 20)

struct writer {
    struct compact_run *run;
    struct segment *made;
    int fd;
    uint8_t *buffer;
    size_t capacity, used;
    uint64_t at; /* offset in the file of the buffer's first byte */
    uint32_t crc;
    uint64_t recorded_ms; /* of the last frame */
    uint64_t records, line_bytes, other;
    uint32_t leads;            /* written */
    uint64_t appends, turn_ms; /* when the pace was last looked at */
};

void compact_temporary_name(const struct segment *segment, char name[SEGMENT_NAME_MAX + 8])
{
    snprintf(name, SEGMENT_NAME_MAX + 8, "%s.tmp", segment->name);
}

/* While others work, this takes half of the time at most. */
static void keep_pace(struct writer *writer)
{
    uint64_t appends = atomic_load(&writer->run->store->appends), now = monotonic_ms();
    uint64_t took = now - writer->turn_ms;
    if (appends != writer->appends && took > 0) {
        struct timespec pause = {.tv_nsec = (long)(took < 200 ? took : 200) * 1000000};
        nanosleep(&pause, NULL);
    }
    writer->appends = appends;
    writer->turn_ms = monotonic_ms();
}

static int write_out(struct writer *writer)
{
    struct hl_progress *progress = writer->run->progress;
    int error =
        hl_io_write(writer->run->store->io, writer->fd, writer->buffer, writer->used, writer->at);
    if (error < 0)
        return error;
    /* So that the disk works meanwhile, and little is left for the sync at the end. */
    const struct hl_io *io = writer->run->store->io;
    (void)io->write_behind(io->context, writer->fd, writer->at, writer->used);
    writer->crc = crc32_more(writer->crc, writer->buffer, writer->used);
    writer->at += writer->used;
    writer->used = 0;
    keep_pace(writer);
    return progress && atomic_load(&progress->cancel) ? -EINTR : 0;
}

/* Room for so many bytes, which are to be written. */
static int reserve(struct writer *writer, uint64_t size, uint8_t **bytes)
{
    if (writer->at + writer->used + size > UINT32_MAX)
        return -EFBIG;
    if (writer->used + size > writer->capacity && writer->used > 0) {
        int error = write_out(writer);
        if (error < 0)
            return error;
    }
    if (size > writer->capacity) {
        uint8_t *buffer = realloc(writer->buffer, size);
        if (!buffer)
            return -ENOMEM;
        writer->buffer = buffer;
        writer->capacity = size;
    }
    *bytes = writer->buffer + writer->used;
    return 0;
}

static int put_frame(struct writer *writer, struct frame *frame, const char *body)
{
    uint8_t *bytes;
    int error = reserve(writer, frame_size(frame->length), &bytes);
    if (error < 0)
        return error;
    memcpy(bytes + FRAME_HEADER_SIZE, body, frame->length);
    uint64_t size = frame_finish(bytes, writer->made->salt, writer->at + writer->used, frame);
    writer->used += size;
    if (frame->recorded_ms > writer->recorded_ms)
        writer->recorded_ms = frame->recorded_ms;
    if (frame->type == FRAME_EVENT || frame->type == FRAME_OPERATION) {
        writer->records++;
        writer->line_bytes += frame->length;
    } else {
        writer->other += size;
    }
    return 0;
}

static int copy_frame(struct writer *writer, const struct compact_frame *kept,
                      const struct frame *found)
{
    struct frame frame = *found;
    const char *body = found->body;
    frame.flags = kept->flags;
    if (found->type == FRAME_SESSION) {
        const struct compact_session *session =
            compact_table_find(&writer->run->table, kept->session);
        if (session && session->body && kept == &writer->run->table.frames[session->head - 1]) {
            body = session->body;
            frame.length = session->body_len;
            frame.type = kept->type;
            frame.seq = kept->seq;
        }
    }
    return put_frame(writer, &frame, body);
}

/* One that was deleted meanwhile has a mark instead: its records stand behind it. */
static int put_lead(struct writer *writer, uint32_t number, uint64_t recorded_ms)
{
    const struct compact_session *session = compact_table_find(&writer->run->table, number);
    static const struct drop drop = {.kind = DROP_DELETE};
    char *text, body[DROP_BODY_MAX];
    size_t len;
    struct frame frame = {
        .recorded_ms = recorded_ms,
        .session = number,
        .type = FRAME_SESSION,
        .flags = FRAME_FIRST_OF_BATCH | FRAME_LAST_OF_BATCH,
    };
    int error = compact_make_lead(writer->run, session, &text, &len);
    if (error == -ENOENT) {
        frame.type = FRAME_DROP;
        frame.length = (uint32_t)drop_encode(&drop, body);
        return put_frame(writer, &frame, body);
    }
    if (error == 0) {
        frame.length = (uint32_t)len;
        error = put_frame(writer, &frame, text);
    }
    free(text);
    return error;
}

/* Those that go before the frame in this place. */
static int put_leads(struct writer *writer, uint32_t place, uint64_t recorded_ms)
{
    const struct compact_table *table = &writer->run->table;
    int error = 0;
    while (error == 0 && writer->leads < table->lead_count &&
           table->leads[writer->leads].before == place)
        error = put_lead(writer, table->leads[writer->leads++].session, recorded_ms);
    return error;
}

/* The sources are read again, frame by frame, as they were when the table was made. */
static int copy_source(struct writer *writer, uint16_t source, uint32_t *next)
{
    const struct compact_table *table = &writer->run->table;
    const struct segment *segment = writer->run->sources[source];
    struct hl_store *store = writer->run->store;
    struct scan scan;
    struct scan_item item;
    uint64_t size;
    int error = hl_io_size(store->io, segment->fd, &size);
    if (error < 0)
        return error;
    scan_init(&scan, store->io, segment->fd, segment->salt, SEGMENT_HEADER_REGION, size);
    while (error == 0) {
        error = scan_next(&scan, &item);
        if (error < 0 || item.kind == SCAN_END)
            break;
        if (item.kind != SCAN_FRAME || item.frame.type == FRAME_SEAL ||
            item.frame.type == FRAME_VOID)
            continue;
        const struct compact_frame *frame = &table->frames[*next];
        if (*next == table->count || frame->source != source || frame->offset != item.offset) {
            error = -EIO; /* it is not what it was */
            break;
        }
        ++*next;
        error = put_leads(writer, *next, item.frame.recorded_ms);
        if (error == 0 && frame->keep)
            error = copy_frame(writer, frame, &item.frame);
    }
    scan_free(&scan);
    return error;
}

static int put_tails(struct writer *writer)
{
    const struct compact_table *table = &writer->run->table;
    int error = 0;
    for (uint32_t i = 0; i < table->buckets && error == 0; i++) {
        const struct compact_session *session = &table->sessions[i];
        if (!session->number || !session->tail)
            continue;
        struct frame frame = {
            .length = session->tail_len,
            .seq = session->highest,
            .recorded_ms = writer->recorded_ms,
            .session = session->number,
            .type = FRAME_SESSION,
            .flags = FRAME_FIRST_OF_BATCH | FRAME_LAST_OF_BATCH,
        };
        error = put_frame(writer, &frame, session->tail);
    }
    return error;
}

static int put_seal(struct writer *writer)
{
    uint8_t *bytes;
    int error = reserve(writer, SEAL_FRAME_MAX, &bytes);
    if (error < 0)
        return error;
    struct seal seal = {
        .records = writer->records,
        .line_bytes = writer->line_bytes,
        .end = writer->at + writer->used,
        .recorded_ms = writer->recorded_ms,
    };
    uint64_t size = seal_frame(bytes, writer->made->salt, &seal);
    writer->used += size;
    writer->other += size;
    return write_out(writer);
}

static int write_all(struct writer *writer)
{
    const struct hl_io *io = writer->run->store->io;
    uint8_t *region;
    uint32_t next = 0;
    int error = reserve(writer, SEGMENT_HEADER_REGION, &region);
    if (error == 0) {
        segment_header_region(writer->made, region);
        writer->used = SEGMENT_HEADER_REGION;
    }
    for (uint16_t i = 0; i < writer->run->count && error == 0; i++)
        error = copy_source(writer, i, &next);
    if (error == 0)
        error = put_tails(writer);
    if (error == 0)
        error = put_seal(writer);
    return error == 0 ? hl_io_fsync(io, writer->fd) : error;
}

/* Reads it from the disk, not from what the page cache still has of the writing. */
static int read_back(struct writer *writer)
{
    const struct hl_io *io = writer->run->store->io;
    uint32_t crc = 0;
    uint64_t size = 0;
    int error = io->forget(io->context, writer->fd);
    if (error == 0 || error == -EINVAL || error == -ENOSYS || error == -ESPIPE) /* a hint only */
        error = hl_io_size(io, writer->fd, &size);
    if (error == 0 && size != writer->at)
        error = -EIO;
    for (uint64_t at = 0; error == 0 && at < size;) {
        size_t want = size - at < WRITE_BYTES ? (size_t)(size - at) : WRITE_BYTES;
        ssize_t n = hl_io_read(io, writer->fd, writer->buffer, want, at);
        if (n != (ssize_t)want)
            return n < 0 ? (int)n : -EIO;
        crc = crc32_more(crc, writer->buffer, want);
        at += want;
    }
    return error == 0 && crc != writer->crc ? -EIO : error;
}

int compact_write(struct compact_run *run)
{
    const struct hl_io *io = run->store->io;
    char name[SEGMENT_NAME_MAX + 8];
    struct writer writer = {.run = run, .made = run->made, .capacity = WRITE_BYTES};
    writer.buffer = malloc(writer.capacity);
    if (!writer.buffer)
        return -ENOMEM;
    writer.appends = atomic_load(&run->store->appends);
    writer.turn_ms = monotonic_ms();
    compact_temporary_name(run->made, name);
    int error = writer.fd = hl_io_open_new(io, run->store->logfd, name);
    if (error >= 0)
        error = write_all(&writer);
    if (error == 0)
        error = read_back(&writer);
    free(writer.buffer);
    if (error < 0) {
        hl_io_close(io, writer.fd);
        if (writer.fd >= 0)
            io->unlink(io->context, run->store->logfd, name, 0);
        return error;
    }
    run->made->fd = writer.fd;
    run->other = writer.other;
    atomic_store(&run->made->size, writer.at);
    atomic_store(&run->made->records, writer.records);
    atomic_store(&run->made->line_bytes, writer.line_bytes);
    atomic_store(&run->made->sealed, true);
    return 0;
}
