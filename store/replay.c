/* replay.c - see replay.h. */
#include "replay.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "scan.h"
#include "session.h"

/* What waits to be applied together: a MiB of frames, unless they bring that many sessions into
 * the table, or are operations, whose bodies are kept with them. */
#define FRAMES_TOGETHER 16384U
#define FRAMES_TOGETHER_LEAST 256U
#define SESSIONS_TOGETHER 2048U
#define BODIES_TOGETHER ((size_t)1 << 20)

/* ---- batches ---- */

/* Forgets the first `count` of the frames that are pending. */
static void pending_drop(struct replay *replay, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct replay_frame *frame = &replay->pending[i];
        if (frame->body)
            replay->body_bytes -= frame->length;
        free(frame->body);
        if (frame->more) {
            if (frame->more->row)
                session_row_free(frame->more->row);
            free(frame->more->row);
            sums_free(frame->more->carried);
            free(frame->more);
        }
    }
    replay->pending_count -= count;
    if (replay->pending_count == 0)
        replay->events_len = 0;
    else
        memmove(replay->pending, replay->pending + count,
                replay->pending_count * sizeof *replay->pending);
    replay->waiting = 0;
}

static void pending_clear(struct replay *replay)
{
    pending_drop(replay, replay->pending_count);
    replay->new_names = false;
}

static int pending_apply(struct replay *replay)
{
    int error = replay_apply(replay);
    pending_clear(replay);
    if (replay->touched_count > SESSIONS_TOGETHER)
        replay->together /= 2;
    else if (replay->together < FRAMES_TOGETHER)
        replay->together *= 2;
    if (replay->together < FRAMES_TOGETHER_LEAST)
        replay->together = FRAMES_TOGETHER_LEAST;
    return error;
}

/* Applies the whole batches, and leaves the one that is being put together. */
static int waiting_apply(struct replay *replay)
{
    size_t all = replay->pending_count, whole = replay->waiting;
    if (whole == 0)
        return 0;
    replay->pending_count = whole;
    int error = replay_apply(replay);
    replay->pending_count = all;
    pending_drop(replay, whole);
    return error;
}

/* The batch that is being put together will never be whole. */
static int pending_broken(struct replay *replay)
{
    replay->open = false;
    if (replay->pending_count == 0)
        return 0;
    if (replay->sealed)
        return pending_apply(replay);
    if (replay->region_from == 0)
        replay->region_from = replay->pending[0].offset;
    pending_clear(replay);
    return 0;
}

/* Whether batches wait for more, to be applied together: what is done once for each session in them
 * is most of the work where writers are many. In a sealed segment all good frames count, so it
 * makes no difference which of them come together, but for the order of names. */
static bool may_wait(const struct replay *replay)
{
    return replay->flush && replay->sealed && !replay->tell;
}

/* What an event adds to the sums, until its batch is whole. */
static int keep_event(struct replay *replay, const struct scan_item *item,
                      struct replay_frame *frame)
{
    size_t len = 0;
    if (replay->events_capacity - replay->events_len < SUMS_PACKED_MAX) {
        size_t capacity = replay->events_capacity * 2 + SUMS_PACKED_MAX * 16;
        uint8_t *more = realloc(replay->events, capacity);
        if (!more)
            return -ENOMEM;
        replay->events = more;
        replay->events_capacity = capacity;
    }
    uint8_t *to = replay->events + replay->events_len;
    if (item->event) {
        len = sums_event_len(item->event);
        memcpy(to, item->event, len);
    } else if (item->frame.body) {
        len = sums_event_read_packed(item->frame.body, item->frame.length, to);
    }
    frame->event = len > 0 ? (uint32_t)replay->events_len + 1 : 0; /* a segment is below 4 GiB */
    replay->events_len += len;
    /* The store's names are in the order of the batches that brought them. */
    if (len == 0 || replay->new_names || !may_wait(replay) || replay_names_met(replay, to))
        return 0;
    replay->new_names = true;
    return waiting_apply(replay);
}

static int pending_push(struct replay *replay, const struct scan_item *item)
{
    if (replay->pending_count == replay->pending_capacity) {
        size_t capacity = replay->pending_capacity ? replay->pending_capacity * 2 : 64;
        struct replay_frame *more = realloc(replay->pending, capacity * sizeof *more);
        if (!more)
            return -ENOMEM;
        replay->pending = more;
        replay->pending_capacity = capacity;
    }
    const struct frame *frame = &item->frame;
    struct replay_frame *kept = &replay->pending[replay->pending_count];
    *kept = (struct replay_frame){
        .seq = frame->seq,
        .recorded_ms = frame->recorded_ms,
        .offset = (uint32_t)item->offset,
        .length = frame->length,
        .session = frame->session,
        .type = frame->type,
        .flags = frame->flags,
    };
    if (frame->type == FRAME_SESSION || frame->type == FRAME_OPERATION ||
        frame->type == FRAME_DROP) {
        kept->body = malloc(frame->length ? frame->length : 1);
        if (!kept->body)
            return -ENOMEM;
        memcpy(kept->body, frame->body, frame->length);
        replay->body_bytes += frame->length;
    }
    replay->pending_count++; /* what it has is freed with it */
    if (frame->type == FRAME_SESSION || frame->type == FRAME_DROP) {
        kept->more = calloc(1, sizeof *kept->more);
        if (!kept->more)
            return -ENOMEM;
    }
    return frame->type == FRAME_EVENT ? keep_event(replay, item, kept) : 0;
}

/* A whole batch stands: a region before it is closed. */
static int close_region(struct replay *replay)
{
    if (replay->region_from == 0)
        return 0;
    if (replay->region_count == replay->region_capacity) {
        size_t capacity = replay->region_capacity ? replay->region_capacity * 2 : 8;
        struct replay_region *more = realloc(replay->regions, capacity * sizeof *more);
        if (!more)
            return -ENOMEM;
        replay->regions = more;
        replay->region_capacity = capacity;
    }
    replay->regions[replay->region_count++] = (struct replay_region){
        .offset = replay->region_from,
        .size = replay->pending[0].offset - replay->region_from,
    };
    replay->region_from = 0;
    return 0;
}

/* The frame that was pushed last ends a batch. */
static int take_whole(struct replay *replay, const struct scan_item *item)
{
    int error = close_region(replay);
    replay->open = false;
    if (error == 0 && may_wait(replay) && replay->only_records && !replay->new_names &&
        replay->pending_count < replay->together && replay->body_bytes < BODIES_TOGETHER) {
        replay->waiting = replay->pending_count;
        return 0;
    }
    if (error == 0)
        error = pending_apply(replay);
    if (replay->blocked)
        return error;
    replay->end = item->offset + item->size;
    if (error == 0 && replay->flush && replay->sealed &&
        replay->store->table->bytes >= FLUSH_TABLE_BYTES) {
        atomic_store(&replay->segment->size, replay->end);
        error = flush_position(replay->store, position_make(replay->segment->first, replay->end));
    }
    return error;
}

static int take_frame(struct replay *replay, const struct scan_item *item)
{
    uint16_t flags = item->frame.flags;
    bool record = frame_is_record(item->frame.type);
    bool alone = replay->sealed && !(flags & FRAME_FIRST_OF_BATCH) && !replay->open;
    int error = 0;
    if (flags & FRAME_FIRST_OF_BATCH && (replay->open || !record)) {
        error = pending_broken(replay);
    } else if (!(flags & FRAME_FIRST_OF_BATCH) && !replay->open && !replay->sealed) {
        if (replay->region_from == 0)
            replay->region_from = item->offset;
        return 0; /* the rest of a batch whose beginning is gone */
    }
    if (error == 0)
        error = pending_push(replay, item);
    if (error < 0)
        return error;
    replay->open = true;
    replay->only_records = record && (replay->only_records || replay->pending_count == 1);
    return flags & FRAME_LAST_OF_BATCH || alone ? take_whole(replay, item) : 0;
}

static int take_gap(struct replay *replay, const struct scan_item *item)
{
    int error = pending_broken(replay);
    replay->gaps++;
    replay->gap_bytes += item->size; /* behind a seal it makes that no less the last frame */
    if (!replay->sealed) {
        if (replay->region_from == 0)
            replay->region_from = item->offset;
    } else {
        int kept = 0;
        if (error == 0 && !replay->store->options.read_only)
            kept = quarantine(replay->store, replay->segment, item->offset, item->size,
                              "damaged bytes in a sealed segment; the segment was left as it is");
        replay_damage(
            replay, item->offset, "%" PRIu64 " bytes are damaged; they are %s", item->size,
            hl_io_is_full(kept) ? "left in it, for want of room in quarantine/" : "in quarantine/");
        if (!hl_io_is_full(kept))
            error = error < 0 ? error : kept;
    }
    return error;
}

int replay_segment(struct replay *replay, uint64_t from, uint64_t limit,
                   struct hl_progress *progress)
{
    struct scan scan;
    struct scan_item item;
    int error = 0;
    replay->end = replay->tail_end = from;
    if (replay->next_point < from)
        replay->next_point = from == SEGMENT_HEADER_REGION ? from + POINT_SPACING : from;
    scan_init(&scan, replay->store->io, replay->segment->fd, replay->segment->salt, from, limit);
    do {
        error = replay->ahead ? scan_ahead_next(replay->ahead, &item) : scan_next(&scan, &item);
        if (error < 0)
            break;
        if (replay->watch && (item.kind == SCAN_GAP || item.kind == SCAN_TAIL))
            break; /* the writer is not done there yet */
        if (item.kind == SCAN_FRAME)
            error = take_frame(replay, &item);
        else if (item.kind != SCAN_END)
            error = take_gap(replay, &item);
        if (replay->blocked)
            break;
        if (item.kind != SCAN_END)
            replay->tail_end = item.offset + item.size;
        if (progress) {
            atomic_fetch_add(&progress->done, item.size);
            if (atomic_load(&progress->cancel))
                error = -EINTR;
        }
    } while (error == 0 && item.kind != SCAN_END);
    scan_free(&scan);
    if (replay->blocked) {
        pending_clear(replay);
        return error;
    }
    if (error == 0)
        error = replay->sealed ? pending_broken(replay) : 0;
    if (replay->sealed)
        replay->end = replay->tail_end;
    pending_clear(replay);
    return error;
}

void replay_free(struct replay *replay)
{
    pending_clear(replay);
    free(replay->pending);
    free(replay->regions);
    free(replay->touched);
    free(replay->events);
    free(replay->groups);
    free(replay->slots);
    replay->groups = NULL;
    replay->slots = NULL;
    replay->group_count = replay->group_capacity = replay->slot_capacity = 0;
    replay->events = NULL;
    replay->events_len = replay->events_capacity = 0;
    replay->pending = NULL;
    replay->regions = NULL;
    replay->touched = NULL;
    replay->pending_count = replay->region_count = 0;
}
