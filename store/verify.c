/* verify.c - holds every frame of an open store against its checksum, every batch against its
 * flags, and the index against the frames. It changes nothing. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "inspect.h"

static void tell_damage(void *context, const struct segment *segment, const struct scan_item *item)
{
    char what[160];
    snprintf(what, sizeof what, "segment %s at byte %" PRIu64 ": %" PRIu64 " bytes are damaged",
             segment->name, item->offset, item->size);
    store_damage(context, position_make(segment->first, item->offset), what);
}

static int check_segments(struct inspect *inspect, uint64_t position, struct hl_error *err)
{
    struct segment_set *set = &inspect->store->segments;
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
            error = inspect_segment(inspect, segment, end);
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
    struct inspect inspect = {
        .store = store,
        .report = report,
        .progress = progress,
        .complete = UINT64_MAX,
        .damaged = tell_damage,
        .context = store,
    };
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
    int error = inspect_init(&inspect);
    if (error < 0)
        return hl_fail(err, ENOMEM, "out of memory");
    error = check_segments(&inspect, position, err);
    inspect_free(&inspect);
    report->index_dangling = records > inspect.matched ? records - inspect.matched : 0;
    return error;
}
