/*
 * batch.h - one batch under way: the frames of one hl_append(), from its lines to the file.
 *
 * Used by append.c alone, which holds append_lock from batch_add_line() on. Nothing that stands
 * here is seen by readers until append.c publishes it.
 */
#ifndef HL_BATCH_H
#define HL_BATCH_H

#include "core.h"
#include "line.h"
#include "placed.h"

/* What a batch is put together in. One is kept by the store for the next append: to give the memory
 * of a large batch back to the system and have it given again costs as much as filling it. */
struct batch_memory {
    struct line *lines; /* parsed */
    size_t line_capacity;
    uint8_t *buffer; /* of frames */
    size_t buffer_capacity;
    struct placed *placed;
    size_t placed_capacity;
    struct mem_session **touched;
    size_t touched_capacity;
    struct told *told;
    size_t told_capacity;
};

struct batch {
    struct hl_store *store;
    const struct hl_append *request;
    struct hl_error *err;
    struct batch_memory *memory;

    size_t used;   /* of the buffer */
    uint64_t base; /* file offset of the buffer's first byte */

    /* The newest frame, not finished: whether it is the last is not known yet. */
    bool open;
    size_t open_at;
    struct frame frame;
    bool any; /* a frame was opened before: the next is not the first */

    struct placed_list placed; /* the records, in order; in the batch's memory before and after */
    size_t touched_count;      /* in order of first appearance */
    size_t told_count;         /* the receipts, one for each touched session */
    size_t created;
    uint64_t recorded_ms;
};

/* A receipt with its own copy of the id: it is handed out when the memtable may have moved on. */
struct told {
    struct hl_receipt receipt;
    struct hl_news news;
    struct hl_document_news *documents; /* news.documents; owned */
    char id[HL_ID_MAX];
};

/* Takes what the store keeps, or an empty one; NULL: out of memory. */
struct batch_memory *batch_memory_take(struct hl_store *store);
/* Gives it to the store, or frees it if it is larger than is worth keeping. */
void batch_memory_put(struct hl_store *store, struct batch_memory *memory);
void batch_memory_free(struct batch_memory *memory); /* NULL is fine */

/* The session is part of the batch from now on. -ENOMEM. */
int batch_touch(struct batch *batch, struct mem_session *session);
/* Resolves the line's session, gives it its seq, stamps and frames it. */
int batch_add_line(struct batch *batch, const struct line *line);

/* batch_frame.c: room for a frame whose body is at most `bound` bytes; returns where the body goes.
 */
int batch_frame_begin(struct batch *batch, size_t bound, char **body);
/* The body stands; returns the frame's offset in the file. */
uint64_t batch_frame_end(struct batch *batch, const struct mem_session *session, uint16_t type,
                         uint64_t seq, size_t length);
/* Marks the newest frame as the last of the batch and writes what is left in the buffer. */
int batch_finish(struct batch *batch);

#endif
