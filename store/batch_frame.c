/*
 * batch_frame.c - the frames of a batch: a buffer that goes to the file whenever it is full.
 *
 * The newest frame is left open until the next one begins, since only then is it known not to be
 * the last.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"

#define BUFFER_BYTES ((size_t)1 << 20)   /* of frames, before they are written */
#define SEGMENT_ROOM ((uint64_t)1 << 20) /* below 4 GiB, for session frames and the seal */
#define BUFFER_SMALL ((size_t)64 << 10)

static void finish_open(struct batch *batch, uint16_t flags)
{
    if (!batch->open)
        return;
    batch->frame.flags |= flags;
    frame_finish(batch->memory->buffer + batch->open_at, batch->store->active->salt,
                 batch->base + batch->open_at, &batch->frame);
    batch->open = false;
}

static int write_out(struct batch *batch)
{
    if (batch->used == 0)
        return 0;
    struct hl_store *store = batch->store;
    int error =
        hl_io_write(store->io, store->active->fd, batch->memory->buffer, batch->used, batch->base);
    if (error < 0)
        return hl_fail(batch->err, -error, "cannot write to segment %s: %s", store->active->name,
                       strerror(-error));
    batch->base += batch->used;
    batch->used = 0;
    return 0;
}

int batch_frame_room(struct batch *batch, size_t size)
{
    struct batch_memory *memory = batch->memory;
    if (batch->used + size <= memory->buffer_capacity)
        return 0;
    size_t capacity = BUFFER_SMALL;
    while (capacity < batch->used + size)
        capacity = capacity < BUFFER_BYTES ? BUFFER_BYTES : capacity * 2;
    uint8_t *buffer = realloc(memory->buffer, capacity);
    if (!buffer)
        return hl_fail(batch->err, ENOMEM, "out of memory");
    memory->buffer = buffer;
    memory->buffer_capacity = capacity;
    return 0;
}

int batch_frame_fits(const struct batch *batch, uint64_t size)
{
    if (batch->base + batch->used + size > UINT32_MAX - SEGMENT_ROOM)
        return hl_fail(batch->err, EMSGSIZE, "the batch is too large for one segment");
    return 0;
}

int batch_frame_begin(struct batch *batch, size_t bound, char **body)
{
    if (bound >= FRAME_BODY_LIMIT)
        return hl_fail(batch->err, EMSGSIZE, "the line is too long to be stored");
    size_t size = (size_t)frame_size((uint32_t)bound);
    finish_open(batch, 0);
    int error = 0;
    if (batch->used > 0 && batch->used + size > BUFFER_BYTES)
        error = write_out(batch);
    if (error == 0)
        error = batch_frame_fits(batch, size);
    if (error == 0)
        error = batch_frame_room(batch, size);
    if (error < 0)
        return error;
    *body = (char *)batch->memory->buffer + batch->used + FRAME_HEADER_SIZE;
    return 0;
}

uint64_t batch_frame_end(struct batch *batch, const struct mem_session *session, uint16_t type,
                         uint64_t seq, size_t length)
{
    batch->frame = (struct frame){
        .length = (uint32_t)length,
        .seq = seq,
        .recorded_ms = batch->recorded_ms,
        .session = session->row.number,
        .type = type,
        .flags = batch->any ? 0 : FRAME_FIRST_OF_BATCH,
    };
    batch->any = true;
    batch->open = true;
    batch->open_at = batch->used;
    batch->used += (size_t)frame_size((uint32_t)length);
    return batch->base + batch->open_at;
}

int batch_finish(struct batch *batch)
{
    finish_open(batch, FRAME_LAST_OF_BATCH);
    return write_out(batch);
}
