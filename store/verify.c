/* verify.c - holds every frame against its checksum, every batch against its flags, and the index
 * against the frames. It changes nothing. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "scan.h"

/* A session's records come in order, so its next entries are looked up some at a time. */
#define AHEAD_SLOTS 1024U
#define AHEAD_ENTRIES 64U

struct ahead {
    uint32_t session; /* 0: none */
    uint32_t count, next;
    struct index_entry entries[AHEAD_ENTRIES];
};

struct verification {
    struct hl_store *store;
    struct hl_verify_report *report;
    struct hl_progress *progress;
    struct ahead *ahead; /* AHEAD_SLOTS of them, by session */
    uint64_t matched;
    bool in_batch;
};

static void check_batch(struct verification *v, const struct frame *frame)
{
    bool first = frame->flags & FRAME_FIRST_OF_BATCH, last = frame->flags & FRAME_LAST_OF_BATCH;
    if (first == v->in_batch) /* begins inside another, or goes on with none */
        v->report->broken_batches++;
    v->in_batch = !last;
}

static int find_entry(struct verification *v, uint32_t session, uint64_t seq,
                      struct index_entry *entry)
{
    struct ahead *ahead = &v->ahead[session % AHEAD_SLOTS];
    bool at_hand = ahead->session == session && ahead->next < ahead->count &&
                   ahead->entries[ahead->next].seq == seq;
    if (!at_hand) {
        ahead->session = 0;
        ssize_t n = lookup_entries(v->store, session, seq, ahead->entries, AHEAD_ENTRIES);
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

static int check_index(struct verification *v, const struct segment *segment,
                       const struct scan_item *item)
{
    struct index_entry entry = {0};
    const struct frame *frame = &item->frame;
    int error = find_entry(v, frame->session, frame->seq, &entry);
    if (error == 0 && entry.position == position_make(segment->first, item->offset) &&
        entry.length == frame->length) {
        v->matched++;
        return 0;
    }
    if (error < 0 && error != -ENOENT && error != -EBADMSG)
        return error;
    v->report->index_missing++;
    return 0;
}

static int check_item(struct verification *v, const struct segment *segment,
                      const struct scan_item *item)
{
    struct hl_verify_report *report = v->report;
    if (item->kind == SCAN_GAP || item->kind == SCAN_TAIL) {
        char what[160];
        snprintf(what, sizeof what, "segment %s at byte %" PRIu64 ": %" PRIu64 " bytes are damaged",
                 segment->name, item->offset, item->size);
        store_damage(v->store, position_make(segment->first, item->offset), what);
        report->damaged_gaps++;
        report->damaged_bytes += item->size;
        if (v->in_batch)
            report->broken_batches++;
        v->in_batch = false;
        return 0;
    }
    if (store_is_void(v->store, position_make(segment->first, item->offset)))
        return 0; /* of a batch that is not whole; to be set aside */
    report->frames++;
    report->bytes += item->size;
    check_batch(v, &item->frame);
    if (item->frame.type != FRAME_EVENT && item->frame.type != FRAME_OPERATION)
        return 0;
    report->records++;
    return check_index(v, segment, item);
}

static int check_segment(struct verification *v, struct segment *segment, uint64_t end)
{
    struct scan scan;
    struct scan_item item;
    int error = 0;
    v->in_batch = false;
    v->report->segments++;
    scan_init(&scan, v->store->io, segment->fd, segment->salt, SEGMENT_HEADER_REGION, end);
    for (;;) {
        error = scan_next(&scan, &item);
        if (error < 0 || item.kind == SCAN_END)
            break;
        error = check_item(v, segment, &item);
        if (error < 0)
            break;
        if (v->progress) {
            atomic_fetch_add(&v->progress->done, item.size);
            if (atomic_load(&v->progress->cancel)) {
                error = -EINTR;
                break;
            }
        }
    }
    if (v->in_batch)
        v->report->broken_batches++;
    scan_free(&scan);
    return error;
}

static int check_segments(struct verification *v, uint64_t position, struct hl_error *err)
{
    struct segment_set *set = &v->store->segments;
    struct segment *segment;
    uint32_t after = 0;
    for (;;) {
        int error = segment_get_next(set, after, &segment);
        if (error == -ENOENT)
            return 0;
        if (error < 0)
            return hl_fail(err, -error, "cannot open a segment: %s", strerror(-error));
        after = segment->first;
        bool newest = segment->first >= position_segment(position);
        uint64_t end = newest ? position_offset(position) : (uint64_t)segment->size;
        if (segment->first <= position_segment(position))
            error = check_segment(v, segment, end);
        segment_put(set, segment);
        if (error < 0)
            return hl_fail(err, -error, "%s", error == -EINTR ? "interrupted" : strerror(-error));
        if (newest)
            return 0;
    }
}

int hl_verify(struct hl_store *store, struct hl_verify_report *report, struct hl_progress *progress,
              struct hl_error *err)
{
    struct verification v = {.store = store, .report = report, .progress = progress};
    *report = (struct hl_verify_report){0};
    follow_writer(store);
    pthread_mutex_lock(&store->append_lock); /* position and count of one moment */
    uint64_t position = atomic_load(&store->position);
    uint64_t records = store->records;
    pthread_mutex_unlock(&store->append_lock);
    if (progress) {
        struct hl_status status;
        hl_store_status(store, &status);
        atomic_store(&progress->total, status.log_bytes);
    }
    v.ahead = calloc(AHEAD_SLOTS, sizeof *v.ahead);
    if (!v.ahead)
        return hl_fail(err, ENOMEM, "out of memory");
    int error = check_segments(&v, position, err);
    free(v.ahead);
    report->index_dangling = records > v.matched ? records - v.matched : 0;
    return error;
}
