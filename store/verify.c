/* verify.c - holds every frame of an open store against its checksum, every batch against its
 * flags, and the index against the frames. It changes nothing. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "compact.h"
#include "inspect.h"
#include "thread.h"

static void tell_damage(void *context, const struct segment *segment, const struct scan_item *item)
{
    char what[160];
    snprintf(what, sizeof what, "segment %s at byte %" PRIu64 ": %" PRIu64 " bytes are damaged",
             segment->name, item->offset, item->size);
    store_damage(context, position_make(segment->first, item->offset), what);
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
    /* The segments stay, and the index is true of them. */
    int error = thread_lock(&store->reindex_lock, progress, err);
    if (error < 0)
        return error;
    /* Or would be, had an earlier compaction been able to finish. What is damaged is told below. */
    error = compact_finish(store);
    if (error < 0 && error != -EBADMSG) {
        pthread_mutex_unlock(&store->reindex_lock);
        return hl_fail(err, -error, "cannot finish an earlier compaction: %s", strerror(-error));
    }
    pthread_mutex_lock(&store->append_lock); /* position and count of one moment */
    uint64_t position = atomic_load(&store->position);
    uint64_t records = store->records;
    pthread_mutex_unlock(&store->append_lock);
    if (progress) {
        struct hl_status status;
        hl_store_status(store, &status);
        atomic_store(&progress->total, status.log_bytes);
    }
    char at[SEGMENT_NAME_MAX] = "";
    error = inspect_segments(&inspect, position_segment(position), position_offset(position), at);
    if (error == 0 && atomic_load(&store->position) != position)
        error = inspect_explain_missing(&inspect);
    inspect_forget_missing(&inspect);
    pthread_mutex_unlock(&store->reindex_lock);
    if (error == -EINTR)
        return hl_fail(err, EINTR, "interrupted");
    if (error < 0)
        return hl_fail(err, -error, "cannot read segment %s: %s", at, strerror(-error));
    uint64_t found = inspect.matched + inspect.hidden;
    report->index_dangling = records > found ? records - found : 0;
    return 0;
}
