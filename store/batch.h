/*
 * batch.h - one batch under way: the frames of one hl_append(), from its lines to the file.
 *
 * Used by append.c alone, which holds append_lock but for batch_check_lines() and what comes before
 * it. Nothing that stands here is seen by readers until append.c publishes it.
 */
#ifndef HL_BATCH_H
#define HL_BATCH_H

#include "core.h"
#include "line.h"
#include "placed.h"
#include "sums_batch.h"

/* What a batch is put together in. The store keeps one of each size for the next append: to give
 * the memory of a large batch back to the system and have it given again costs as much as filling
 * it. */
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
    enum batch_size size; /* which of the store's it is */
};

/* What is assumed of a batch whose frames are made before append_lock is taken (batch_ahead.c). */
struct ahead {
    struct hl_session session; /* as it was then */
    uint64_t first_seq, ts_ms;
    char id_json[JSON_ESCAPE_MAX(HL_ID_MAX)];
    size_t id_json_len;
    struct line_front front;
    bool grouped; /* the sums are in groups; if not, each line is to be counted */
    struct sums_groups groups;
};

/* A line of the request, or NULL. */
struct blamed {
    const char *text;
    size_t len;
};

struct batch {
    struct hl_store *store;
    const struct hl_append *request;
    struct hl_error *err;
    const char *data; /* its lines: those of the request, or a part of them */
    size_t len;
    size_t lines;         /* how many there are that are not empty, once they are checked */
    struct blamed blamed; /* what made it fail, if a line did */
    struct batch *rest;   /* NULL, or the lines behind these, which become one batch with them */
    struct batch_memory *memory;
    struct ahead *ahead; /* NULL: no frame is made before its time */

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

/* The second part of a large write: checked, and its frames made ahead, by another thread. */
struct batch_rest {
    struct batch batch;
    struct ahead ahead;
    struct helper_job job;
    struct hl_error err;
    int error;
};

/* A receipt with its own copy of the id: it is handed out when the memtable may have moved on. */
struct told {
    struct hl_receipt receipt;
    struct hl_news news;
    struct hl_document_news *documents; /* news.documents; owned */
    char id[HL_ID_MAX];
};

/* Of a request of so many bytes. */
enum batch_size batch_size(size_t bytes);
/* Takes what the store keeps, or an empty one; NULL: out of memory. */
struct batch_memory *batch_memory_take(struct hl_store *store, enum batch_size size);
/* Gives it to the store, or frees it if it is larger than is worth keeping. */
void batch_memory_put(struct hl_store *store, struct batch_memory *memory);
void batch_memory_free(struct batch_memory *memory); /* NULL is fine */

/* A batch of all lines of the request, with this memory, which goes back to the store at the end.
 */
void batch_begin(struct batch *batch, struct hl_store *store, const struct hl_append *request,
                 struct batch_memory *memory, struct hl_error *err);
void batch_end(struct batch *batch);

/* batch_lines.c: the first pass, with no lock held. Every line is parsed and checked; the frames
 * are made ahead if batch_ahead_begin() said so. *rest is the caller's, and used if batch->rest
 * says so afterwards; then it is to be ended, too. */
int batch_check_lines(struct batch *batch, struct batch_rest *rest);
/* The second pass: append_lock is held. Every line is added, and the batch finished. */
int batch_add_lines(struct batch *batch);
int batch_root_takes_json(struct hl_error *err); /* -EINVAL, and says so */

/* The session is part of the batch from now on. -ENOMEM. */
int batch_touch(struct batch *batch, struct mem_session *session);
/* Resolves the line's session, gives it its seq, stamps and frames it. */
int batch_add_line(struct batch *batch, const struct line *line);

/* batch_ahead.c, with no lock held: the batch's frames are to be made ahead, if they can be. */
void batch_ahead_begin(struct batch *batch, struct ahead *ahead);
/* The frame of the next line, which stays in memory->lines. Where that cannot be, nothing is ahead
 * any more. */
void batch_ahead_line(struct batch *batch, const struct line *line);
void batch_ahead_drop(struct batch *batch); /* forgets what was made */
/* With append_lock held, the batch begun and its session touched: puts what was made ahead into the
 * file, if all that was assumed came true (*done). */
int batch_ahead_place(struct batch *batch, bool *done);

/* batch_frame.c: room in the buffer for so many bytes behind what is used. */
int batch_frame_room(struct batch *batch, size_t size);
/* 0, or an error: so much more does not fit into the segment. */
int batch_frame_fits(const struct batch *batch, uint64_t size);
/* Room for a frame whose body is at most `bound` bytes; returns where the body goes. */
int batch_frame_begin(struct batch *batch, size_t bound, char **body);
/* The body stands; returns the frame's offset in the file. */
uint64_t batch_frame_end(struct batch *batch, const struct mem_session *session, uint16_t type,
                         uint64_t seq, size_t length);
/* Marks the newest frame as the last of the batch and writes what is left in the buffer. */
int batch_finish(struct batch *batch);

#endif
