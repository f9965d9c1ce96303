/* inspect.c - see inspect.h. */
#include "inspect.h"

#include <errno.h>
#include <stdlib.h>

/* A session's records come in order, so its next entries are looked up some at a time. */
#define AHEAD_SLOTS 1024U
#define AHEAD_ENTRIES 64U

struct inspect_ahead {
    uint32_t session; /* 0: none */
    uint32_t count, next;
    struct index_entry entries[AHEAD_ENTRIES];
};

int inspect_init(struct inspect *inspect)
{
    inspect->ahead = calloc(AHEAD_SLOTS, sizeof *inspect->ahead);
    return inspect->ahead ? 0 : -ENOMEM;
}

void inspect_free(struct inspect *inspect)
{
    free(inspect->ahead);
    inspect->ahead = NULL;
}

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
    struct inspect_ahead *ahead = &inspect->ahead[session % AHEAD_SLOTS];
    bool at_hand = ahead->session == session && ahead->next < ahead->count &&
                   ahead->entries[ahead->next].seq == seq;
    if (!at_hand) {
        ahead->session = 0;
        ssize_t n = lookup_entries(inspect->store, session, seq, ahead->entries, AHEAD_ENTRIES);
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
    inspect->report->index_missing += entry == ENTRY_MISSING;
    if (inspect->entry)
        inspect->entry(inspect->context, item, entry);
    return 0;
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
    bool record = item->frame.type == FRAME_EVENT || item->frame.type == FRAME_OPERATION;
    bool ask = record && inspect->complete > 0;
    inspect->report->frames++;
    inspect->report->bytes += item->size;
    inspect->report->records += record;
    check_batch(inspect, segment, item);
    int error = inspect->frame ? inspect->frame(inspect->context, segment, item, &ask) : 0;
    return error == 0 && ask ? check_entry(inspect, segment, item) : error;
}

int inspect_segment(struct inspect *inspect, const struct segment *segment, uint64_t end)
{
    struct scan scan;
    struct scan_item item;
    int error = 0;
    inspect->in_batch = inspect->after_gap = inspect->after_void = false;
    inspect->report->segments++;
    scan_init(&scan, inspect->store->io, segment->fd, segment->salt, SEGMENT_HEADER_REGION, end);
    while (error == 0) {
        error = scan_next(&scan, &item);
        if (error < 0 || item.kind == SCAN_END)
            break;
        error = check_item(inspect, segment, &item);
        if (error == 0 && inspect->progress) {
            atomic_fetch_add(&inspect->progress->done, item.size);
            if (atomic_load(&inspect->progress->cancel))
                error = -EINTR;
        }
    }
    if (error == 0 && inspect->in_batch)
        count_broken(inspect, segment, inspect->batch_at);
    scan_free(&scan);
    return error;
}
