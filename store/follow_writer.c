/*
 * follow_writer.c - a read-only store beside a writer.
 *
 * What the writer appends is replayed into the memtable when someone asks. Looking for news costs
 * one read of a frame header at the end of what is known. When much has gathered in memory, the
 * writer's index has it too by then: a shadow begins at the index's new watermark, and takes the
 * place of what there is.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "recover.h"
#include "seal.h"

#define REBASE_BYTES (UINT64_C(128) << 20) /* of log in memory; twice what a writer keeps */

/* Whether a frame may stand there. */
static bool may_be_frame(struct hl_store *store, int fd, uint64_t offset)
{
    uint8_t header[FRAME_HEADER_SIZE];
    ssize_t n = hl_io_read(store->io, fd, header, sizeof header, offset);
    return n == (ssize_t)sizeof header && frame_plausible(header);
}

/* Whether there may be more behind the end of what is known: a frame, or after a seal the next
 * segment. */
static bool has_news(struct hl_store *store)
{
    return store->seal_written || may_be_frame(store, store->active->fd, store->tail);
}

static int read_on(struct hl_store *store, bool *blocked)
{
    struct segment *active = store->active;
    uint64_t size;
    int error = hl_io_size(store->io, active->fd, &size);
    if (error < 0)
        return error;
    struct replay replay = {.store = store,
                            .segment = active,
                            .watch = true,
                            .tell = true,
                            .next_point = store->next_point};
    error = replay_segment(&replay, store->tail, size, NULL);
    *blocked = replay.blocked;
    if (error == 0) {
        store->unindexed_bytes += replay.end - store->tail;
        store->tail = replay.end;
        store->next_point = replay.next_point;
        store->seal_written = replay.seal_found;
        atomic_store(&active->size, replay.end);
        if (replay.seal_found)
            atomic_store(&active->sealed, true);
        atomic_store(&store->position, position_make(active->first, store->tail));
        atomic_store(&store->synced, atomic_load(&store->position));
    }
    replay_free(&replay);
    return error;
}

/* Whether the writer's index goes on behind the segment that was read up to, though there is none
 * of the next number: a compaction took it. */
static bool is_left_behind(struct hl_store *store)
{
    struct index_view *view;
    struct index_meta meta = {0};
    if (lookup_view(store, &view) < 0)
        return false;
    int error = index_get_meta(view, &meta);
    error = lookup_view_end(store, view, error);
    return error == 0 && position_segment(meta.watermark) > store->active->last;
}

/* Whether the writer's index lists another segment than the one that is read. It does so from the
 * commit on that ends the move from the one to the other, positions of records and all. */
static bool lists_others(struct hl_store *store)
{
    struct index_view *view;
    struct index_segment listed;
    uint32_t after = 0;
    bool others = false;
    int error = lookup_view(store, &view);
    if (error < 0)
        return false;
    while (!others && (error = index_segment_next(view, after, &listed)) == 0 &&
           listed.first <= store->active->last) {
        const struct segment *ours = recover_find_live(store, listed.first);
        others = !ours || ours->salt != listed.salt;
        after = listed.first;
    }
    (void)lookup_view_end(store, view, error); /* what is damaged in it is noted there */
    return others;
}

/* Notices what a compaction has put in the place of segments: those who read the root's log read
 * the files that it replaced, and never meet anything that is not where it was. */
static void look_at_index(struct hl_store *store)
{
    if (!store->index || store->segments_old)
        return;
    uint64_t txn = index_txn_id(store->index);
    if (index_is_replaced(store->index))
        store->segments_old = true;
    else if (txn != store->index_txn)
        store->segments_old = lists_others(store);
    store->index_txn = txn;
}

/* After a seal: goes on to the next segment, if the writer has made it. */
static int go_on(struct hl_store *store, bool *moved)
{
    char name[SEGMENT_NAME_MAX];
    struct segment *next, *taken;
    uint32_t number = store->active->last;
    int error;
    *moved = false;
    do { /* the writer passes over numbers of files that cannot be read */
        number++;
        segment_name_format(name, number, number, 0);
        error = segment_load(&store->segments, name, &next, NULL);
    } while (error == -EBADMSG && number < UINT32_MAX);
    if (error == -ENOENT && is_left_behind(store))
        store->segments_old = store->left_behind = true;
    if (error == -ENOENT || error == -ENODATA)
        return 0;
    if (error == 0 && recover_find_live(store, number)) { /* a rebase brought it */
        segment_free(&store->segments, next);
    } else if (error == 0) {
        error = segment_set_add(&store->segments, next);
        if (error < 0)
            segment_free(&store->segments, next);
    }
    if (error == 0)
        error = segment_get(&store->segments, number, &taken);
    if (error < 0)
        return error;
    segment_put(&store->segments, store->active);
    store->active = taken;
    store->tail = SEGMENT_HEADER_REGION;
    store->next_point = SEGMENT_HEADER_REGION + POINT_SPACING;
    store->seal_written = false;
    *moved = true;
    return 0;
}

/* Takes the index that is the writer's now: what is open, or what took its place or was made since.
 */
static int current_index(struct hl_store *store, struct hl_store *shadow)
{
    if (store->index && !recover_index_replaced(store)) {
        shadow->index = store->index;
        return 0;
    }
    return recover_open_index(shadow);
}

/* What root log loses when the shadow's segments take the place of ours. Of one in which there is
 * what was not read yet it cannot be told how much of ours is left: then all of it counts as lost,
 * since a size that is too large does readers no harm. */
static struct hl_news find_lost(struct hl_store *store, const struct hl_store *shadow)
{
    struct hl_news news = {.session = 0};
    for (size_t i = 0; i < shadow->segments.count; i++) {
        const struct segment *now = shadow->segments.at[i];
        const struct segment *ours = recover_find_live(store, now->first);
        uint64_t bytes = 0, records = 0;
        if (!ours || ours->salt == now->salt)
            continue;
        for (size_t k = 0; k < store->segments.count; k++) {
            const struct segment *old = store->segments.at[k];
            bool inside = old->first >= now->first && old->last <= now->last;
            bytes += inside ? old->line_bytes : 0;
            records += inside ? old->records : 0;
        }
        bool known =
            now->last <= store->active->last && now->line_bytes <= bytes && now->records <= records;
        news.dropped_bytes += bytes - (known ? now->line_bytes : 0);
        news.dropped_records += records - (known ? now->records : 0);
    }
    return news;
}

static void hand_over(struct hl_store *store, struct hl_store *shadow)
{
    const struct hl_options *options = &store->options;
    struct hl_news lost = find_lost(store, shadow);
    pthread_rwlock_wrlock(&store->env_lock);
    store->index_old = false;
    if (shadow->index != store->index) {
        struct index *old = store->index;
        store->index = shadow->index;
        shadow->index = old;
        store->index_device = shadow->index_device;
        store->index_inode = shadow->index_inode;
    }
    recover_hand_over(store, shadow);
    pthread_rwlock_unlock(&store->env_lock);
    /* The index that lists the new ones has nothing in the old ones; who looked before looks again.
     */
    segment_set_forget_replaced(&store->segments);
    if (lost.dropped_records > 0 && options->news)
        options->news(options->news_context, &lost);
}

/* Goes on where the index ends: what stands before that was not read, and there is no news of it.
 */
static int catch_up(struct hl_store *store, uint64_t position)
{
    struct segment *taken;
    uint64_t end = position_offset(position);
    bool sealed = false;
    int error = segment_get(&store->segments, position_segment(position), &taken);
    if (error < 0)
        return error;
    error = seal_ends_at(store->io, taken->fd, taken->salt, end, &sealed);
    if (error < 0) {
        segment_put(&store->segments, taken);
        return error;
    }
    segment_put(&store->segments, store->active);
    store->active = taken;
    store->tail = end;
    store->next_point = end;
    /* Earlier versions have appended behind a seal. */
    store->seal_written = sealed && !may_be_frame(store, taken->fd, end);
    atomic_store(&store->position, position);
    atomic_store(&store->synced, position);
    return 0;
}

/* Whether a segment that is read is not the one that counts now. */
static bool has_other_segments(struct hl_store *store, const struct hl_store *shadow)
{
    bool other = false;
    for (size_t i = 0; i < shadow->segments.count && !other; i++) {
        const struct segment *now = shadow->segments.at[i];
        const struct segment *ours = recover_find_live(store, now->first);
        other = ours && ours->salt != now->salt;
    }
    return other;
}

/* Whether all was found again up to the limit. What is damaged since is not, and must not be
 * forgotten without need: it would be missing then rather than damaged. */
static bool found_all(const struct replay *last, uint64_t limit)
{
    return last->gaps == 0 &&
           (!last->segment || position_make(last->segment->first, last->end) >= limit);
}

/* Begins again at the index's watermark, aside, and takes that over. True: it goes on elsewhere
 * now, where more may stand already. */
static bool rebase(struct hl_store *store)
{
    struct hl_store *shadow = recover_shadow(store);
    struct replay last = {0};
    uint64_t from;
    size_t count;
    store->unindexed_bytes = 0; /* whatever comes of it, not again at each look */
    if (!shadow)
        return false;
    int error = current_index(store, shadow);
    if (error == 0)
        error = recover_load_segments(shadow, &count, NULL);
    if (error == 0)
        error = recover_adopt_index(shadow, NULL);
    /* Not past what was read here: those frames would be counted again. The next look is further.
     */
    uint64_t reached = atomic_load(&shadow->indexed);
    /* Behind a seal that is the beginning of the next segment. */
    uint64_t limit = position_make(store->active->first, store->tail);
    bool ahead = error == 0 && reached > limit;
    if (ahead && store->left_behind)
        limit = reached;
    else if (ahead)
        store->unindexed_bytes = REBASE_BYTES;
    bool moved = error == 0 && store->segments_old && has_other_segments(store, shadow);
    bool must = store->index_old || store->left_behind || moved ||
                (store->index && shadow->index != store->index);
    bool further =
        error == 0 && reached <= limit && (must || reached > atomic_load(&store->indexed));
    if (further)
        error = recover_replay(shadow, limit, NULL, &last, &from, NULL);
    bool caught_up = false;
    if (error == 0 && further && !last.blocked && !must)
        further = found_all(&last, limit);
    if (error == 0 && last.blocked)
        error = -EAGAIN;                                     /* not yet */
    bool passing = store->segments_old && error == -EBADMSG; /* a compaction is under way */
    if (error == 0 && further) {
        hand_over(store, shadow);
        caught_up = ahead && store->left_behind;
        if (caught_up)
            error = catch_up(store, reached);
        caught_up = caught_up && error == 0;
        store->segments_old = store->left_behind = false;
    } else if (error == 0 && !must) {
        store->segments_old = false; /* there was nothing to take in */
    }
    if (error < 0 && error != -ENOENT && error != -EAGAIN &&
        !passing) { /* that: there is no index yet */
        store_report(store, HL_WARNING, "cannot begin again at the writer's index: %s",
                     strerror(-error));
    }
    replay_free(&last);
    if (shadow->index == store->index)
        shadow->index = NULL;
    recover_shadow_free(shadow);
    return caught_up;
}

static int note_newest(void *context, const char *name)
{
    uint32_t *newest = context, first, last, generation;
    if (segment_name_parse(name, &first, &last, &generation) && last > *newest)
        *newest = last;
    return 0;
}

/* Takes in what there is. *blocked: up to a drop that the index does not have yet. Not what comes
 * meanwhile, segment after segment: a writer that is faster would have who asks wait for ever. */
static int read_all(struct hl_store *store, bool *blocked)
{
    bool moved = true;
    uint32_t newest = 0;
    int error = 0;
    *blocked = false;
    while (error == 0 && moved && !*blocked && has_news(store)) {
        moved = false;
        error = store->seal_written ? 0 : read_on(store, blocked);
        if (error == 0 && store->seal_written)
            error = go_on(store, &moved);
        if (error == 0 && moved && newest == 0)
            error = store->io->list(store->io->context, store->logfd, note_newest, &newest);
        moved = moved && store->active->first <= newest;
    }
    return error;
}

static void report_error(struct hl_store *store, int error)
{
    if (error < 0 && store->flush_error != error)
        store_report(store, HL_ERROR, "cannot read on in the writer's log: %s", strerror(-error));
    store->flush_error = error;
}

void follow_writer(struct hl_store *store)
{
    bool blocked, again;
    if (!store->options.read_only)
        return;
    pthread_mutex_lock(&store->append_lock);
    do {
        int error = read_all(store, &blocked);
        if (error == 0 && blocked && store->index && recover_index_replaced(store)) {
            store->index_old = true;
            error = read_all(store, &blocked);
        }
        report_error(store, error);
        look_at_index(store);
        bool wanted =
            store->unindexed_bytes >= REBASE_BYTES || store->index_old || store->segments_old;
        again = wanted && rebase(store) && error == 0;
    } while (again);
    pthread_mutex_unlock(&store->append_lock);
}

struct names {
    uint32_t number, generation;
    char ours[SEGMENT_NAME_MAX];
    bool there, newer;
};

static int look_at_name(void *context, const char *name)
{
    struct names *names = context;
    uint32_t first, last, generation;
    if (segment_name_parse(name, &first, &last, &generation) && first <= names->number &&
        names->number <= last) {
        names->there = names->there || strcmp(name, names->ours) == 0;
        names->newer = names->newer || generation > names->generation;
    }
    return 0;
}

bool follow_is_replaced(struct hl_store *store, uint32_t number)
{
    struct segment *segment;
    struct names names = {.number = number};
    int error = segment_get(&store->segments, number, &segment);
    if (error < 0)
        return error == -ENOENT;
    names.generation = segment->generation;
    memcpy(names.ours, segment->name, sizeof names.ours);
    segment_put(&store->segments, segment);
    error = store->io->list(store->io->context, store->logfd, look_at_name, &names);
    return error < 0 || names.newer || !names.there;
}

void follow_compaction(struct hl_store *store)
{
    pthread_mutex_lock(&store->append_lock);
    store->segments_old = true;
    pthread_mutex_unlock(&store->append_lock);
    follow_writer(store);
}

void follow_drops(struct hl_store *store, uint32_t session)
{
    struct index_view *view;
    struct index_row row;
    follow_writer(store);
    pthread_mutex_lock(&store->append_lock);
    int error = lookup_view(store, &view);
    if (error == 0) {
        error = index_session_by_number(view, session, &row);
        row.id = NULL;
        row.attributes = NULL;
        error = lookup_view_end(store, view, error);
    }
    if (error == 0) {
        pthread_rwlock_wrlock(&store->mem_lock);
        struct mem_session *part = memtable_by_number(store->table, session);
        if (part && !part->deleted)
            memtable_rebase(store->table, part, &row);
        pthread_rwlock_unlock(&store->mem_lock);
    }
    pthread_mutex_unlock(&store->append_lock);
}

void hl_look(struct hl_store *store)
{
    follow_writer(store);
}

int hl_watch(const struct hl_store *store)
{
    char path[PATH_MAX];
    int len = snprintf(path, sizeof path, "%s/log", store->path);
    if (len < 0 || (size_t)len >= sizeof path)
        return -ENAMETOOLONG;
    return store->io->watch(store->io->context, path);
}
