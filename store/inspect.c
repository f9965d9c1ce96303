/* inspect.c - see inspect.h. */
#include "inspect.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "scan_ahead.h"

/* A session's records come in order, so its next entries are looked up some at a time. */
#define LOOK_UP_SLOTS 1024U
#define LOOK_UP_ENTRIES 64U

#define READ_AHEAD_MAX 4U                    /* segments read at once */
#define SCAN_AHEAD_WORTH (UINT64_C(1) << 20) /* bytes that are worth a thread */

struct inspect_looked_up {
    uint32_t session; /* 0: none */
    uint32_t count, next;
    struct index_entry entries[LOOK_UP_ENTRIES];
};

/* ---- batches ---- */

static void count_broken(struct inspect *inspect, const struct segment *segment, uint64_t offset)
{
    inspect->report->broken_batches++;
    if (inspect->broken && !inspect->after_gap)
        inspect->broken(inspect->context, segment, offset);
}

static void check_batch(struct inspect *inspect, const struct segment *segment,
                        const struct scan_item *item)
{
    bool first = item->frame.flags & FRAME_FIRST_OF_BATCH;
    bool last = item->frame.flags & FRAME_LAST_OF_BATCH;
    if (item->frame.type == FRAME_VOID) {
        inspect->in_batch = inspect->after_gap = false;
        inspect->after_void = true;
        return;
    }
    if (first) {
        if (inspect->in_batch)
            count_broken(inspect, segment, inspect->batch_at);
        inspect->after_gap = inspect->after_void = false;
        inspect->batch_at = item->offset;
    } else if (!inspect->in_batch) {
        if (!inspect->after_void)
            count_broken(inspect, segment, item->offset);
        inspect->batch_at = item->offset;
    }
    inspect->in_batch = !last;
}

static void take_damage(struct inspect *inspect, const struct segment *segment,
                        const struct scan_item *item)
{
    inspect->report->damaged_gaps++;
    inspect->report->damaged_bytes += item->size;
    if (inspect->damaged)
        inspect->damaged(inspect->context, segment, item);
    inspect->after_gap = true;
    if (inspect->in_batch)
        count_broken(inspect, segment, inspect->batch_at);
    inspect->in_batch = inspect->after_void = false;
}

/* ---- the index ---- */

static int find_entry(struct inspect *inspect, uint32_t session, uint64_t seq,
                      struct index_entry *entry)
{
    struct inspect_looked_up *ahead = &inspect->looked_up[session % LOOK_UP_SLOTS];
    bool at_hand = ahead->session == session && ahead->next < ahead->count &&
                   ahead->entries[ahead->next].seq == seq;
    if (!at_hand) {
        ahead->session = 0;
        ssize_t n = lookup_entries(inspect->store, session, seq, ahead->entries, LOOK_UP_ENTRIES);
        if (n < 0)
            return (int)n;
        ahead->session = session;
        ahead->count = (uint32_t)n;
        ahead->next = 0;
        if (n == 0 || ahead->entries[0].seq != seq)
            return -ENOENT;
    }
    *entry = ahead->entries[ahead->next++];
    return 0;
}

static int check_entry(struct inspect *inspect, const struct segment *segment,
                       const struct scan_item *item)
{
    struct index_entry found = {0};
    const struct frame *frame = &item->frame;
    uint64_t position = position_make(segment->first, item->offset);
    int error = find_entry(inspect, frame->session, frame->seq, &found);
    if (error < 0 && error != -ENOENT && error != -EBADMSG)
        return error;
    enum inspect_entry entry = ENTRY_MISSING;
    if (error == 0 && found.position == position && found.length == frame->length)
        entry = ENTRY_MATCHED;
    else if (position >= inspect->complete)
        entry = ENTRY_LATER;
    inspect->matched += entry == ENTRY_MATCHED;
    if (inspect->entry)
        inspect->entry(inspect->context, item, entry);
    return entry == ENTRY_MISSING ? inspect_note_missing(inspect, frame) : 0;
}

/* ---- frames ---- */

static int check_item(struct inspect *inspect, const struct segment *segment,
                      const struct scan_item *item)
{
    if (item->kind != SCAN_FRAME) {
        take_damage(inspect, segment, item);
        return 0;
    }
    if (store_is_void(inspect->store, position_make(segment->first, item->offset)))
        return 0; /* of a batch that is not whole; to be set aside */
    bool record = frame_is_record(item->frame.type);
    bool ask = record && inspect->complete > 0;
    inspect->report->frames++;
    inspect->report->bytes += item->size;
    inspect->report->records += record;
    check_batch(inspect, segment, item);
    int error = inspect->frame ? inspect->frame(inspect->context, segment, item, &ask) : 0;
    if (error == 0 && item->frame.type == FRAME_DROP)
        error = inspect_take_drop(inspect, &item->frame);
    return error == 0 && ask ? check_entry(inspect, segment, item) : error;
}

/* ---- segments ---- */

/* A segment, taken, that is read or about to be. */
struct coming {
    struct segment *segment;
    uint64_t end;
    struct scan_ahead *ahead; /* NULL: no thread could be had */
};

/* Takes the segments that come next, as many as are read at once. */
struct queue {
    struct inspect *inspect;
    uint32_t after, last;   /* what was taken up to here, and what to take up to */
    uint64_t end;           /* of the last */
    struct scan_pool *pool; /* NULL: no memory for one */
    struct coming at[READ_AHEAD_MAX];
    size_t count, most;
};

static int queue_fill(struct queue *queue)
{
    struct hl_store *store = queue->inspect->store;
    while (queue->count < queue->most && queue->after < queue->last) {
        struct coming coming = {.segment = NULL};
        int error = segment_get_next(&store->segments, queue->after, &coming.segment);
        if (error == -ENOENT || (error == 0 && coming.segment->first > queue->last)) {
            if (error == 0)
                segment_put(&store->segments, coming.segment);
            queue->after = queue->last;
            return 0;
        }
        if (error < 0)
            return error;
        const struct segment *segment = coming.segment;
        queue->after = segment->first;
        coming.end = segment->first == queue->last ? queue->end : (uint64_t)segment->size;
        if (coming.end > SCAN_AHEAD_WORTH)
            coming.ahead = scan_ahead_start(queue->pool, store->io, segment->fd, segment->salt,
                                            SEGMENT_HEADER_REGION, coming.end, false);
        queue->at[queue->count++] = coming;
    }
    return 0;
}

static void queue_drop(struct queue *queue)
{
    scan_ahead_stop(queue->at[0].ahead);
    segment_put(&queue->inspect->store->segments, queue->at[0].segment);
    memmove(queue->at, queue->at + 1, --queue->count * sizeof queue->at[0]);
}

static int walk(struct inspect *inspect, const struct coming *coming)
{
    struct scan scan;
    struct scan_item item;
    const struct segment *segment = coming->segment;
    int error = inspect->begin ? inspect->begin(inspect->context, segment, coming->end) : 0;
    inspect->in_batch = inspect->after_gap = inspect->after_void = false;
    inspect->report->segments++;
    scan_init(&scan, inspect->store->io, segment->fd, segment->salt, SEGMENT_HEADER_REGION,
              coming->end);
    while (error == 0) {
        error = coming->ahead ? scan_ahead_next(coming->ahead, &item) : scan_next(&scan, &item);
        if (error < 0 || item.kind == SCAN_END)
            break;
        error = check_item(inspect, segment, &item);
        if (error == 0 && inspect->progress) {
            atomic_fetch_add(&inspect->progress->done, item.size);
            if (atomic_load(&inspect->progress->cancel))
                error = -EINTR;
        }
    }
    scan_free(&scan);
    if (error == 0 && inspect->in_batch)
        count_broken(inspect, segment, inspect->batch_at);
    return error == 0 && inspect->end ? inspect->end(inspect->context) : error;
}

int inspect_segments(struct inspect *inspect, uint32_t last, uint64_t end,
                     char at[SEGMENT_NAME_MAX])
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    struct queue queue = {.inspect = inspect, .last = last, .end = end};
    queue.most = cores < 2 ? 1 : cores > READ_AHEAD_MAX ? READ_AHEAD_MAX : (size_t)cores;
    inspect->looked_up = calloc(LOOK_UP_SLOTS, sizeof *inspect->looked_up);
    if (!inspect->looked_up)
        return -ENOMEM;
    queue.pool = scan_pool_new();
    int error = queue_fill(&queue);
    while (error == 0 && queue.count > 0) {
        if (at)
            memcpy(at, queue.at[0].segment->name, SEGMENT_NAME_MAX);
        error = walk(inspect, &queue.at[0]);
        queue_drop(&queue);
        if (error == 0)
            error = queue_fill(&queue);
    }
    while (queue.count > 0)
        queue_drop(&queue);
    scan_pool_free(queue.pool);
    free(inspect->looked_up);
    inspect->looked_up = NULL;
    return error;
}
