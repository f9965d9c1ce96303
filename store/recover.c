/*
 * recover.c - opening: which segments live, which index to trust, and the log from its watermark.
 *
 * Three things are never confused here. A torn tail, what a crash left behind the last whole batch,
 * is set aside and cut. Damage, bytes elsewhere that do not check, is set aside, reported and
 * stepped over. An I/O error ends the opening, and nothing is changed.
 */
#include "recover.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "seal.h"

#define SCAN_AHEAD_WORTH (UINT64_C(4) << 20) /* bytes that are worth a thread */
#define SCAN_AHEAD_MAX 8                     /* segments scanned at once */
#define REPORT_MS 5000
/* A writer that rotates and flushes may spoil one look, hardly five; one that compacts leads its
 * index to another segment for a while. */
#define BESIDE_RETRIES 105U
#define BESIDE_AT_ONCE 100U /* retries that are left when pauses begin */
#define BESIDE_PAUSE_NS 10000000

/* A segment's part of the log that is to be replayed. */
struct part {
    struct segment *segment; /* taken while it is scanned */
    uint64_t begin, end;
    bool whole; /* end is that of the file */
    struct scan_ahead *ahead;
};

/* The parts from the watermark to limit, in order. */
static int plan(struct hl_store *store, uint64_t limit, struct part **parts, size_t *count)
{
    uint64_t watermark = atomic_load(&store->indexed);
    *count = 0;
    *parts = calloc(store->segments.count + 1, sizeof **parts);
    if (!*parts)
        return -ENOMEM;
    for (size_t i = 0; i < store->segments.count; i++) {
        struct segment *segment = store->segments.at[i];
        if (segment->first < position_segment(watermark) ||
            segment->first > position_segment(limit))
            continue;
        struct part *part = &(*parts)[(*count)++];
        *part = (struct part){.segment = segment, .end = segment->size, .whole = true};
        part->begin = segment->first == position_segment(watermark) ? position_offset(watermark)
                                                                    : SEGMENT_HEADER_REGION;
        if (segment->first == position_segment(limit) && position_offset(limit) < part->end) {
            part->end = position_offset(limit);
            part->whole = false;
        }
    }
    return 0;
}

/* Takes the segment, and lets its scan begin if that is worth a thread. */
static int part_begin(struct hl_store *store, struct scan_pool *pool, struct part *part)
{
    struct segment *taken;
    int error = segment_get(&store->segments, part->segment->first, &taken);
    if (error == 0 && part->end > part->begin + SCAN_AHEAD_WORTH)
        part->ahead =
            scan_ahead_start(pool, store->io, taken->fd, taken->salt, part->begin, part->end, true);
    return error;
}

static void part_end(struct hl_store *store, struct part *part)
{
    scan_ahead_stop(part->ahead);
    part->ahead = NULL;
    segment_put(&store->segments, part->segment);
}

/* What an index says of the last segment may be from before its seal was known to be on the disk,
 * though it ends right behind it: then there is no frame of it to be replayed. */
static int find_seal(struct hl_store *store, const struct part *part, struct replay *replay)
{
    if (replay->seal_found || replay->end != part->begin)
        return 0;
    return seal_ends_at(store->io, part->segment->fd, part->segment->salt, replay->end,
                        &replay->seal_found);
}

static int replay_part(struct hl_store *store, const struct part *part, bool newest,
                       struct hl_progress *progress, struct replay *replay)
{
    const struct segment *youngest = store->segments.at[store->segments.count - 1];
    /* That the youngest ends with a seal does not say that it was synced: what is not whole in it
     * may be what a power cut left. */
    bool sealed = part->segment != youngest || part->segment->sealed;
    /* What a reader knew already was of whole batches. If one is damaged since, the rest stays. */
    bool known = store->options.read_only && store->shadow;
    uint64_t gaps = replay->gaps;
    size_t together = replay->together;
    *replay = (struct replay){
        .store = store,
        .segment = part->segment,
        .ahead = part->ahead,
        .sealed = sealed || known,
        .watch = store->options.read_only && store->writer_alive && !sealed && !known,
        .flush = !store->options.read_only && store->index && !store->no_room,
        /* Of the youngest only the index can have said so: then nothing is replayed but its end. */
        .seal_found = part->segment == youngest && part->segment->sealed,
        .gaps = gaps,
        .together = together,
    };
    int error = replay_segment(replay, part->begin, part->end, progress);
    if (error == 0 && part->segment == youngest)
        error = find_seal(store, part, replay);
    atomic_store(&part->segment->size, replay->end);
    atomic_fetch_add(&store->recovered_records, replay->records);
    if (error == 0 && sealed && !replay->blocked && part->whole && part->begin < part->end &&
        !replay->seal_found) {
        char what[160];
        snprintf(what, sizeof what,
                 "segment %s has no seal at its end: what stood there is missing",
                 part->segment->name);
        store_damage(store, position_make(part->segment->first, replay->end), what);
    }
    if (error < 0 || (!newest && !replay->blocked))
        replay_free(replay);
    return error;
}

int recover_replay(struct hl_store *store, uint64_t limit, struct hl_progress *progress,
                   struct replay *last, uint64_t *from, struct hl_error *err)
{
    struct part *parts;
    size_t count, begun = 0, done = 0;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    size_t ahead = cores < 2 ? 1 : cores > SCAN_AHEAD_MAX ? SCAN_AHEAD_MAX : (size_t)cores;
    uint64_t reported = monotonic_ms();
    *last = (struct replay){0};
    int error = plan(store, limit, &parts, &count);
    const char *at = "";
    struct scan_pool *pool = scan_pool_new(); /* without it, nothing is read ahead */
    while (error == 0 && done < count && !last->blocked) {
        at = parts[done].segment->name;
        while (error == 0 && begun < count && begun < done + ahead)
            error = part_begin(store, pool, &parts[begun++]);
        if (error < 0) {
            begun--;
            break;
        }
        error = replay_part(store, &parts[done], done + 1 == count, progress, last);
        *from = parts[done].begin;
        part_end(store, &parts[done++]);
        if (error == 0 && monotonic_ms() - reported >= REPORT_MS) {
            reported = monotonic_ms();
            store_report(store, HL_INFO, "reading the log: segment %zu of %zu", done, count);
        }
    }
    if (error < 0)
        hl_fail(err, -error, "cannot read segment %s: %s", at, strerror(-error));
    for (; done < begun; done++)
        part_end(store, &parts[done]);
    scan_pool_free(pool);
    free(parts);
    return error;
}

/* Until they are voided, and where nobody may do that, those who scan the log must pass over the
 * regions of the last segment that hold no whole batch. */
static int note_voids(struct hl_store *store, const struct replay *last)
{
    if (last->region_count == 0)
        return 0;
    store->voids = calloc(last->region_count, sizeof *store->voids);
    if (!store->voids)
        return -ENOMEM;
    for (size_t i = 0; i < last->region_count; i++) {
        uint64_t begin = position_make(last->segment->first, last->regions[i].offset);
        store->voids[store->void_count++] =
            (struct stretch){.begin = begin, .end = begin + last->regions[i].size};
    }
    return 0;
}

/* A read-only store mends nothing, but tells what it passes over. What stands behind the last whole
 * batch may be on its way, while there is a writer. */
static void tell_unmended(struct hl_store *store, const struct replay *last)
{
    const struct segment *segment = last->segment;
    char what[200];
    for (size_t i = 0; i < last->region_count; i++) {
        const struct replay_region *region = &last->regions[i];
        snprintf(what, sizeof what,
                 "segment %s at byte %" PRIu64 ": %" PRIu64
                 " bytes hold no whole batch; they are passed over",
                 segment->name, region->offset, region->size);
        store_damage(store, position_make(segment->first, region->offset), what);
    }
    bool torn = last->tail_end > last->end || last->pending_count > 0 || last->region_from != 0;
    if (torn && !last->sealed && !store->writer_alive)
        store_report(store, HL_WARNING,
                     "segment %s: what stands behind byte %" PRIu64
                     ", the end of the last whole batch, is no whole batch; it is passed over",
                     segment->name, last->end);
}

/* The state that an appender begins with. */
static int set_tail(struct hl_store *store, const struct replay *last, bool settled)
{
    struct segment *segment = last->segment;
    int error = segment_get(&store->segments, segment->first, &store->active);
    if (error < 0)
        return error;
    store->tail = last->end;
    store->next_point = last->next_point;
    segment->size = last->end;
    segment->sealed = last->seal_found;
    store->seal_written = last->seal_found;
    uint64_t position = position_make(segment->first, last->end);
    atomic_store(&store->position, position);
    uint64_t indexed = atomic_load(&store->indexed);
    atomic_store(&store->synced, settled ? position : indexed);
    store->unindexed_bytes =
        position_segment(indexed) == segment->first ? position - indexed : last->end;
    return 0;
}

static int begin_store(struct hl_store *store, struct hl_error *err)
{
    struct segment *segment;
    if (store->options.read_only)
        return hl_fail(err, ENOENT, "there is no store in %s", store->path);
    if (recover_index_exists(store) != 0)
        return hl_fail(
            err, EIO,
            "log/ holds no segment, but there is an index: put the segments back, or move "
            "index/ and checkpoints/ away to begin anew");
    if (getrandom(store->store_id, sizeof store->store_id, 0) != (ssize_t)sizeof store->store_id)
        return hl_fail(err, EIO, "no random bytes are to be had");
    int error = segment_create(&store->segments, 1, store->store_id, now_ms(), &segment);
    if (error == 0) {
        error = segment_set_add(&store->segments, segment);
        if (error < 0)
            segment_free(&store->segments, segment);
    }
    return error < 0 ? hl_fail(err, -error, "cannot make the first segment: %s", strerror(-error))
                     : 0;
}

/* What is to be dropped by the log leaves the index before anybody reads. */
static int drop_from_index(struct hl_store *store, bool settled)
{
    const struct memtable *table = store->table;
    if (store->options.read_only || !store->index || !table->drops)
        return 0;
    if (settled && !store->no_room)
        return flush_position(store, atomic_load(&store->position));
    for (size_t i = 0; i < table->session_count; i++) {
        if (table->sessions[i]->trim_below > 0)
            return -ENOTRECOVERABLE;
    }
    return 0; /* sessions that are deleted are hidden all the same */
}

/* Moves a filled index into place. */
static int finish_build(struct hl_store *store, struct hl_error *err)
{
    int error = flush_position(store, atomic_load(&store->position));
    if (error == 0)
        error = index_sync(store->index);
    if (error == 0)
        error = recover_remove_dir(store, "index");
    if (error == 0)
        error = store->io->rename(store->io->context, store->dirfd, RECOVER_BUILD_NAME,
                                  store->dirfd, "index");
    if (error == 0)
        error = hl_io_fsync(store->io, store->dirfd);
    return error < 0 ? hl_fail(err, -error, "cannot build the index: %s", strerror(-error)) : 0;
}

static int recover_once(struct hl_store *store, struct hl_error *err)
{
    size_t count;
    bool build = false, settled = true;
    uint64_t from = 0;
    struct replay last;
    int error = recover_load_segments(store, &count, err);
    if (error == 0 && count == 0)
        error = begin_store(store, err);
    if (error == 0)
        error = recover_find_index(store, &build, err);
    if (error < 0)
        return error;
    if (build && count > 0)
        store_report(store, HL_INFO, "building the index from %zu segments", count);
    const struct segment *newest = store->segments.at[store->segments.count - 1];
    uint64_t file_size = newest->size;
    error = recover_replay(store, UINT64_MAX, NULL, &last, &from, err);
    if (error == 0)
        error = note_voids(store, &last);
    if (error == 0 && store->options.read_only)
        tell_unmended(store, &last);
    if (error == 0 && !store->options.read_only) {
        struct segment *taken;
        error = segment_get(&store->segments, newest->first, &taken);
        if (error == 0) {
            error = recover_mend_tail(store, &last, from, file_size, &settled, err);
            segment_put(&store->segments, taken);
        }
    }
    if (error == 0)
        error = set_tail(store, &last, settled);
    /* Sessions that an unfinished flush brought further than the log now goes would hide new
     * records. */
    if (error == 0 && !last.blocked && store->index_applying > atomic_load(&store->position))
        error = -ESTALE;
    if (error == 0 && build)
        error = finish_build(store, err);
    else if (error == 0)
        error = drop_from_index(store, settled);
    if (error == 0 && !store->options.read_only) { /* what a reindex that was cut short left */
        (void)recover_remove_dir(store, "index.old");
        (void)recover_remove_dir(store, RECOVER_BUILD_NAME);
    }
    replay_free(&last);
    return error;
}

int recover_forget(struct hl_store *store)
{
    struct memtable *table = memtable_new();
    if (!table)
        return -ENOMEM;
    if (store->active)
        segment_put(&store->segments, store->active);
    store->active = NULL;
    tail_forget(store);
    free(store->voids);
    store->voids = NULL;
    store->void_count = 0;
    segment_set_free(&store->segments);
    segment_set_init(&store->segments, store->io, store->logfd, !store->options.read_only);
    index_close(store->index);
    store->index = NULL;
    memtable_free(store->frozen); /* of a flush that failed */
    store->frozen = NULL;
    flush_target_free(&store->target);
    store->flush_applied = store->flush_marks = 0;
    store->flush_calls = false;
    memtable_free(store->table);
    store->table = table;
    return 0;
}

/* The index was tried and took room that is not there: from now on it stays as it is. */
static int do_without_room(struct hl_store *store, int why)
{
    store->no_room = true;
    store_report(store, HL_ERROR,
                 "there is no room to bring the index up to date (%s): what it has not is kept in "
                 "memory until there is",
                 strerror(-why));
    return recover_remove_dir(store, RECOVER_BUILD_NAME);
}

/* Events that were dropped are in the index, and cannot be taken out of it for now. */
static void do_without_index(struct hl_store *store)
{
    store->without_index = true;
    store_report(store, HL_WARNING,
                 "the index has records that were dropped, and cannot be changed now: all is kept "
                 "in memory");
}

int recover(struct hl_store *store, struct hl_error *err)
{
    bool was_ahead = false;
    store->retries = BESIDE_RETRIES;
    for (;;) {
        int error = recover_once(store, err);
        bool ahead = error == -ESTALE && !was_ahead;
        bool full = hl_io_is_full(error) && !store->options.read_only && !store->no_room &&
                    store->segments.count > 0;
        bool unusable = error == -ENOTRECOVERABLE && !store->without_index;
        if (error != -EAGAIN && !ahead && !full && !unusable)
            return error;
        int again = recover_forget(store);
        if (again == 0 && error == -EAGAIN) {
            const struct timespec pause = {.tv_nsec = BESIDE_PAUSE_NS};
            if (store->retries-- <= BESIDE_AT_ONCE)
                nanosleep(&pause, NULL);
        } else if (again == 0 && unusable) {
            do_without_index(store);
        } else if (again == 0 && full) {
            again = do_without_room(store, error);
        } else if (again == 0) {
            was_ahead = true;
            if (store->options.read_only)
                return hl_fail(err, EBADMSG, "the index is ahead of the log");
            again = recover_set_index_aside(store, "it is ahead of the log, whose tail was cut");
        }
        if (again < 0)
            return hl_fail(err, -again, "cannot begin again without the index: %s",
                           strerror(-again));
        if (err)
            *err = (struct hl_error){0};
    }
}

/* ---- shadows ---- */

struct hl_store *recover_shadow(struct hl_store *store)
{
    struct hl_store *shadow = store_new(&store->options, store->path);
    if (!shadow)
        return NULL;
    shadow->dirfd = store->dirfd;
    shadow->logfd = store->logfd;
    shadow->writer_alive = store->writer_alive;
    shadow->shadow = true;
    memcpy(shadow->store_id, store->store_id, sizeof shadow->store_id);
    segment_set_init(&shadow->segments, store->io, store->logfd, false);
    return shadow;
}

void recover_shadow_free(struct hl_store *shadow)
{
    if (!shadow)
        return;
    if (shadow->active)
        segment_put(&shadow->segments, shadow->active);
    shadow->active = NULL;
    shadow->dirfd = shadow->logfd = -1; /* not its own */
    store_free(shadow);
}

void recover_hand_over(struct hl_store *store, struct hl_store *shadow)
{
    pthread_rwlock_wrlock(&store->mem_lock);
    struct memtable *table = store->table, *frozen = store->frozen;
    store->table = shadow->table;
    store->frozen = NULL;
    shadow->table = table;
    shadow->frozen = frozen;
    store->sessions = shadow->sessions;
    store->records = shadow->records;
    store->bytes = shadow->bytes;
    struct sums sums = store->sums;
    store->sums = shadow->sums;
    shadow->sums = sums;
    for (size_t i = 0; i < shadow->segments.count; i++) {
        const struct segment *from = shadow->segments.at[i];
        struct segment *to = recover_find_live(store, from->first);
        if (to && to->salt != from->salt) { /* one that a compaction of the writer made */
            if (segment_set_replace(&store->segments, shadow->segments.at[i]) == 0) {
                shadow->segments.at[i] = NULL;
                atomic_fetch_add(&store->rewrites, 1);
            }
            continue;
        }
        if (!to && segment_set_add(&store->segments, shadow->segments.at[i]) == 0)
            shadow->segments.at[i] = NULL; /* a read-only store sees it for the first time */
        if (!to)
            continue;
        to->records = from->records;
        to->line_bytes = from->line_bytes;
        to->size = from->size;
    }
    if (shadow->next_session > store->next_session)
        store->next_session = shadow->next_session;
    if (shadow->batch > store->batch) /* its sessions know the numbers that it gave */
        store->batch = shadow->batch;
    if (shadow->clock_ms > store->clock_ms)
        store->clock_ms = shadow->clock_ms;
    atomic_store(&store->indexed, atomic_load(&shadow->indexed));
    pthread_rwlock_unlock(&store->mem_lock);
}
