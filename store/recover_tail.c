/* recover_tail.c - the end of the last segment, made fit to be appended to. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "recover.h"

#define REWRITE_BYTES (256U * 1024)

/* A region without a whole batch is set aside, and a void frame takes its place: what is found
 * there later must not depend on which batches were whole today. */
static int void_region(struct hl_store *store, const struct segment *segment,
                       const struct replay_region *region)
{
    char what[200];
    snprintf(what, sizeof what,
             "segment %s at byte %" PRIu64 ": %" PRIu64
             " bytes hold no whole batch; they are in quarantine/",
             segment->name, region->offset, region->size);
    store_damage(store, position_make(segment->first, region->offset), what);
    int error = quarantine(store, segment, region->offset, region->size,
                           "no whole batch, between whole ones; a void frame took its place");
    return error < 0 ? error
                     : segment_write_void(store->io, segment->fd, segment->salt, region->offset,
                                          region->size);
}

/* The page cache may hold as clean what the disk never got: writing the same bytes makes it dirty.
 */
static int rewrite(struct hl_store *store, const struct segment *segment, uint64_t from,
                   uint64_t to)
{
    uint8_t *buffer = malloc(REWRITE_BYTES);
    int error = buffer ? 0 : -ENOMEM;
    while (error == 0 && from < to) {
        size_t want = to - from < REWRITE_BYTES ? (size_t)(to - from) : REWRITE_BYTES;
        ssize_t n = hl_io_read(store->io, segment->fd, buffer, want, from);
        error = n < 0 ? (int)n : n == 0 ? -EIO : 0;
        if (error == 0)
            error = hl_io_write(store->io, segment->fd, buffer, (size_t)n, from);
        from += n > 0 ? (uint64_t)n : 0;
    }
    free(buffer);
    return error;
}

/* ---- what a full disk put off ---- */

/* The tail as it was found. What was done of it is not done again. */
struct unmended {
    struct segment *segment; /* the store's active one */
    uint64_t from, end;      /* what was replayed */
    uint64_t torn_end;       /* above end: a torn tail, not set aside yet */
    uint64_t file_size;
    struct replay_region *regions;
    size_t region_count, regions_done;
    bool sealed;
    bool own;       /* the file has no other links, or is not to be written to at all */
    bool untouched; /* it has, and needs nothing */
    bool settled, told;
};

void tail_forget(struct hl_store *store)
{
    if (store->unmended)
        free(store->unmended->regions);
    free(store->unmended);
    store->unmended = NULL;
}

/*
 * A file that has other links is never written to. A sealed one whose end is as it should be needs
 * nothing: it is a snapshot's too, which was linked only when it was sealed and synced. An unsealed
 * one, to which people made links, is replaced by a copy before anything else.
 */
static int make_own(struct hl_store *store, struct unmended *tail)
{
    uint64_t links;
    if (tail->own)
        return 0;
    int error = segment_links(&store->segments, tail->segment, &links);
    if (error == 0 && links > 1) {
        tail->untouched = tail->sealed && tail->region_count == 0 && tail->file_size == tail->end;
        error = tail->untouched ? 0 : segment_make_own(&store->segments, tail->segment);
    }
    tail->own = error == 0;
    return error;
}

/* What was replayed is written again and synced. */
static int settle(struct hl_store *store, struct unmended *tail)
{
    if (tail->settled)
        return 0;
    int error = make_own(store, tail);
    if (error == 0 && !tail->untouched)
        error = rewrite(store, tail->segment, tail->from, tail->end);
    /* Also when nothing was replayed: whoever made the file may have died before it synced it and
     * its name, and an append is acknowledged by a sync of the file's data alone. */
    if (error == 0)
        error = hl_io_fsync(store->io, tail->segment->fd);
    if (error == 0)
        error = hl_io_fsync(store->io, store->logfd);
    tail->settled = error == 0;
    return error;
}

static int quarantine_torn(struct hl_store *store, struct unmended *tail)
{
    uint64_t torn = tail->torn_end - tail->end;
    if (tail->torn_end <= tail->end)
        return 0;
    int error = quarantine(store, tail->segment, tail->end, torn, "a torn tail, cut at opening");
    if (error < 0)
        return error;
    tail->torn_end = tail->end;
    store_report(store, HL_WARNING,
                 "segment %s: a torn tail of %" PRIu64
                 " bytes behind the last whole batch was moved to quarantine/",
                 tail->segment->name, torn);
    return 0;
}

/* Sets aside what holds no whole batch, and cuts what is behind the last one. */
static int set_aside(struct hl_store *store, struct unmended *tail)
{
    int error = 0;
    if (tail->region_count == 0 && tail->file_size <= tail->end)
        return 0;
    for (; tail->regions_done < tail->region_count && error == 0; tail->regions_done += error == 0)
        error = void_region(store, tail->segment, &tail->regions[tail->regions_done]);
    if (error == 0)
        error = quarantine_torn(store, tail);
    if (error == 0)
        error = hl_io_truncate(store->io, tail->segment->fd, tail->end);
    if (error < 0)
        return error;
    error = hl_io_fsync(store->io, tail->segment->fd);
    /* What a failed sync left is called clean: before the next it must be written again. */
    tail->settled = error == 0;
    return error;
}

static int explain(struct hl_store *store, struct unmended *tail, int error, struct hl_error *err)
{
    struct hl_error why = {0};
    if (!hl_io_is_full(error))
        return hl_fail(err, -error, "cannot mend the tail of segment %s: %s", tail->segment->name,
                       strerror(-error));
    hl_fail(&why, -error,
            "there is no room to set aside what a crash left at the end of segment %s: nothing is "
            "appended before there is (%s)",
            tail->segment->name, strerror(-error));
    if (!tail->told)
        store_report(store, HL_ERROR, "%s", why.text);
    tail->told = true;
    return hl_fail(err, -error, "%s", why.text);
}

int tail_settle(struct hl_store *store, struct hl_error *err)
{
    struct unmended *tail = store->unmended;
    if (!tail || tail->settled)
        return 0;
    int error = settle(store, tail);
    if (error < 0)
        return explain(store, tail, error, err);
    pthread_mutex_lock(&store->sync_lock);
    atomic_store(&store->synced, atomic_load(&store->position));
    pthread_mutex_unlock(&store->sync_lock);
    return 0;
}

int tail_mend(struct hl_store *store, struct hl_error *err)
{
    struct unmended *tail = store->unmended;
    if (!tail)
        return 0;
    int error = tail_settle(store, err);
    if (error < 0)
        return error;
    error = set_aside(store, tail);
    if (error < 0)
        return explain(store, tail, error, err);
    if (tail->told)
        store_report(store, HL_INFO, "segment %s can be appended to again", tail->segment->name);
    tail_forget(store);
    return 0;
}

int recover_mend_tail(struct hl_store *store, struct replay *last, uint64_t from,
                      uint64_t file_size, bool *settled, struct hl_error *err)
{
    struct unmended *tail = calloc(1, sizeof *tail);
    *settled = true;
    if (!tail)
        return hl_fail(err, ENOMEM, "out of memory");
    *tail = (struct unmended){
        .segment = last->segment,
        .from = from,
        .end = last->end,
        .torn_end = last->tail_end,
        .file_size = file_size,
        .regions = last->regions,
        .region_count = last->region_count,
        .sealed = last->seal_found,
    };
    last->regions = NULL;
    last->region_count = 0;
    tail_forget(store);
    store->unmended = tail;
    int error = settle(store, tail);
    *settled = tail->settled;
    if (error == 0)
        error = set_aside(store, tail);
    if (error < 0)
        (void)explain(store, tail, error, err);
    if (error == 0 || !hl_io_is_full(error))
        tail_forget(store);
    return hl_io_is_full(error) ? 0 : error;
}
