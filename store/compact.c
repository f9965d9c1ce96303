/*
 * compact.c - a run of compaction from end to end, and hl_compact(); see compact.h.
 *
 * Appends and reads go on meanwhile. What readers see: from the swap on, the new segment; entries
 * that are not patched yet lead to the old ones, which are still there (read_frame()). The files
 * of the old ones go to backup/ when the index is led to the new one for good.
 */
#include "compact.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup.h"
#include "recover.h"
#include "reserve.h"
#include "scheduler.h"
#include "thread.h"

/* One hl_compact(). */
struct compaction {
    struct hl_store *store;
    const struct hl_compact *what;
    struct hl_progress *progress;
    struct compact_plan plan;
    struct backup_run backup;
    struct hl_compacted *result;
    unsigned passed_over; /* runs that could not be made, for damage */
    bool time_is_sound;
    uint32_t backup_first; /* the lowest number of a segment in backup/ */
    uint32_t erase;        /* a session of which no byte is to stay; 0: none */
    bool replaced; /* the run under way: its old segments count no more, whatever fails then */
};

/* ---- a run ---- */

static void run_free(struct compact_run *run)
{
    for (size_t i = 0; i < run->count; i++)
        segment_put(&run->store->segments, run->sources[i]);
    compact_table_free(&run->table);
    segment_free(&run->store->segments, run->made);
    *run = (struct compact_run){.store = run->store};
}

/* Takes the segments of the plan from `begin` to `end`, and reads their frames. */
static int run_begin(struct compaction *compaction, size_t begin, size_t end,
                     struct compact_run *run)
{
    struct hl_store *store = compaction->store;
    int error = 0;
    *run = (struct compact_run){
        .store = store,
        .progress = compaction->progress,
        .time_is_sound = compaction->time_is_sound,
        .backup = compaction->backup_first,
    };
    compact_table_init(&run->table);
    pthread_mutex_lock(&store->append_lock);
    run->begun_ms = log_clock(store);
    pthread_mutex_unlock(&store->append_lock);
    for (size_t i = begin; i < end && error == 0; i++) {
        const struct compact_segment *planned = &compaction->plan.segments[i];
        error = segment_get(&store->segments, planned->first, &run->sources[run->count]);
        if (error < 0)
            break;
        const struct segment *source = run->sources[run->count++];
        if (source->first != planned->first || source->last != planned->last ||
            source->generation != planned->generation)
            error = -ESTALE; /* never one that took its place: the index may not know it yet */
    }
    _Atomic bool *cancel = run->progress ? &run->progress->cancel : NULL;
    for (size_t i = 0; i < run->count && error == 0; i++)
        error = compact_table_scan(&run->table, store, run->sources[i], (uint16_t)i, cancel);
    return error;
}

static int make_segment(struct compact_run *run)
{
    uint32_t generation = 0;
    for (size_t i = 0; i < run->count; i++) {
        if (run->sources[i]->generation > generation)
            generation = run->sources[i]->generation;
    }
    if (generation == UINT32_MAX)
        return -EOVERFLOW;
    return segment_new(&run->store->segments, run->sources[0]->first,
                       run->sources[run->count - 1]->last, generation + 1, run->store->store_id,
                       run->begun_ms, &run->made);
}

/* The name is what makes it live. Without it for good, it must not be there at all. */
static int give_name(struct compact_run *run)
{
    struct hl_store *store = run->store;
    const struct hl_io *io = store->io;
    char temporary[SEGMENT_NAME_MAX + 8];
    compact_temporary_name(run->made, temporary);
    int error = io->rename(io->context, store->logfd, temporary, store->logfd, run->made->name);
    if (error < 0) {
        io->unlink(io->context, store->logfd, temporary, 0);
        return error;
    }
    error = hl_io_fsync(io, store->logfd);
    if (error < 0) /* the old ones are all there: if it cannot go, the next opening sees to it */
        io->unlink(io->context, store->logfd, run->made->name, 0);
    return error;
}

/* For who reads now. Root log loses its lines here. */
static int swap(struct compact_run *run)
{
    struct hl_store *store = run->store;
    struct hl_news news = {.session = 0};
    uint64_t records = 0, bytes = 0;
    for (size_t i = 0; i < run->count; i++) {
        records += run->sources[i]->records;
        bytes += run->sources[i]->line_bytes;
    }
    news.dropped_records = records - run->made->records;
    news.dropped_bytes = bytes - run->made->line_bytes;
    pthread_mutex_lock(&store->append_lock);
    pthread_rwlock_wrlock(&store->mem_lock);
    int error = segment_set_replace(&store->segments, run->made);
    if (error == 0) {
        store->records -= news.dropped_records;
        store->bytes -= news.dropped_bytes;
        atomic_fetch_add(&store->rewrites, 1);
    }
    pthread_rwlock_unlock(&store->mem_lock);
    bool tell = error == 0 && news.dropped_bytes > 0 && store->options.news;
    if (tell)
        pthread_mutex_lock(&store->news_lock);
    pthread_mutex_unlock(&store->append_lock);
    if (tell) {
        store->options.news(store->options.news_context, &news);
        pthread_mutex_unlock(&store->news_lock);
    }
    return error;
}

/* No copy is kept of what held the bytes of a session that is erased. The erasure syncs log/ when
 * all of them are gone. */
static int remove_sources(struct hl_store *store, const struct compact_run *run)
{
    int error = 0;
    for (size_t i = 0; i < run->count && error == 0; i++)
        error = store->io->unlink(store->io->context, store->logfd, run->sources[i]->name, 0);
    return error;
}

/* Old files that are in use by nobody but those who have them open. */
static int set_aside(struct compaction *compaction, const struct compact_run *run)
{
    struct hl_store *store = compaction->store;
    int error = 0;
    if (compaction->erase)
        return remove_sources(store, run);
    if (run->sources[0]->first < compaction->backup_first)
        compaction->backup_first = run->sources[0]->first;
    for (size_t i = 0; i < run->count && error == 0; i++)
        error = backup_list(store, &compaction->backup, run->sources[i]->name);
    for (size_t i = 0; i < run->count && error == 0; i++)
        error = recover_move_away(store, run->sources[i]->name, "backup", NULL);
    return error;
}

/* From here on the old segments are history, whatever fails. */
static int replace(struct compaction *compaction, struct compact_run *run)
{
    struct hl_store *store = compaction->store;
    struct compact_patched patched;
    struct segment *made = run->made;
    int error = give_name(run);
    if (error < 0)
        return error;
    error = swap(run);
    if (error <
        0) { /* the old ones are still those that count: another run may take others of them */
        store->io->unlink(store->io->context, store->logfd, made->name, 0);
        (void)hl_io_fsync(store->io, store->logfd);
        return error;
    }
    run->made = NULL; /* the set has it */
    uint32_t first = made->first;
    error = segment_get(&store->segments, first, &made);
    if (error == 0) {
        error = compact_patch(store, made, &run->table, &patched);
        segment_put(&store->segments, made);
    }
    if (error < 0) {
        store->unpatched = first;
        return error;
    }
    segment_set_forget_replaced(&store->segments);
    compaction->result->records_dropped += patched.records;
    compaction->replaced = true;
    return set_aside(compaction, run);
}

/* What comes after these segments of the plan is read while they are written. */
static void fetch_next(const struct compaction *compaction, size_t begin, size_t end)
{
    struct hl_store *store = compaction->store;
    struct segment *segment;
    const struct compact_segment *next = compact_plan_worst(&compaction->plan, begin, end);
    if (!next || segment_get(&store->segments, next->first, &segment) < 0)
        return;
    (void)store->io->fetch(store->io->context, segment->fd);
    segment_put(&store->segments, segment);
}

/* Whether a segment has bytes of the session that is erased, or may have. */
static bool is_tainted(const struct compact_run *run, uint32_t session)
{
    bool tainted = run->table.damaged;
    for (uint32_t i = 0; i < run->table.count && !tainted; i++) {
        const struct compact_frame *frame = &run->table.frames[i];
        tainted = frame->session == session && frame->type != FRAME_DROP;
    }
    return tainted;
}

/* Whether it has frames of the session; dropped: such that do not stay. */
static bool has_frames_of(const struct compact_run *run, uint32_t session, bool dropped)
{
    if (!compact_table_find(&run->table, session))
        return false;
    for (uint32_t i = 0; i < run->table.count; i++) {
        const struct compact_frame *frame = &run->table.frames[i];
        if (frame->session == session && !(dropped && frame->keep))
            return true;
    }
    return false;
}

static bool nothing_to_drop(const struct compact_run *run)
{
    for (uint32_t i = 0; i < run->table.count; i++) {
        if (!run->table.frames[i].keep)
            return false;
    }
    return run->count == 1;
}

/* Notes what a segment has besides records, so that it is not read again for nothing. */
static int note_overhead(const struct compact_run *run)
{
    struct hl_store *store = run->store;
    const struct segment *segment = run->sources[0];
    struct index_segment listed;
    struct index_view *view;
    struct index_txn *txn;
    int error = lookup_view(store, &view);
    if (error < 0)
        return error;
    error = index_segment_next(view, segment->first - 1, &listed);
    error = lookup_view_end(store, view, error);
    if (error < 0 || listed.first != segment->first)
        return error;
    listed.overhead = segment->size - run->table.record_bytes;
    pthread_mutex_lock(&store->flush_lock);
    error = index_begin(store->index, &txn);
    if (error == 0) {
        error = index_put_segment(txn, &listed);
        if (error < 0)
            index_abort(txn);
        else
            error = index_commit(txn);
    }
    pthread_mutex_unlock(&store->flush_lock);
    return error == -EAGAIN ? 0 : error; /* it is a note only */
}

/* Makes one segment of those of the plan from begin to end. -EBADMSG: there is damage in one. */
static int compact_run_whole(struct compaction *compaction, size_t begin, size_t end)
{
    struct hl_store *store = compaction->store;
    struct hl_compacted *result = compaction->result;
    struct compact_run run;
    uint64_t before = 0, made = 0;
    int error = run_begin(compaction, begin, end, &run);
    for (size_t i = 0; i < run.count; i++)
        before += run.sources[i]->size;
    if (error == 0 && compaction->erase && !is_tainted(&run, compaction->erase)) {
        run_free(&run);
        return 0;
    }
    uint32_t only = compaction->what->session;
    if (error == 0 && only && !has_frames_of(&run, only, false)) {
        run_free(&run);
        return 0;
    }
    if (error == 0 && run.table.damaged && !compaction->erase)
        error = -EBADMSG;
    if (error == 0)
        error = compact_move_history(&run);
    if (error == 0)
        error = compact_settle(&run);
    if (error == 0 && !compaction->erase && nothing_to_drop(&run)) {
        error = note_overhead(&run);
        run_free(&run);
        return error;
    }
    if (error == 0 && only && !has_frames_of(&run, only, true)) {
        run_free(&run);
        return 0;
    }
    if (error == 0)
        error = make_segment(&run);
    if (error == 0)
        fetch_next(compaction, begin, end);
    if (error == 0)
        error = compact_write(&run);
    if (error == 0) {
        made = run.made->size;
        error = replace(compaction, &run);
    }
    if (error == 0) {
        result->segments_before += run.count;
        result->segments_after++;
        result->bytes_before += before;
        result->bytes_after += made;
        if (before > made)
            atomic_fetch_add(&store->freed_bytes, before - made);
    }
    run_free(&run);
    return error;
}

/* ---- in room ---- */

static int patch_again(struct hl_store *store);

/* On a full disk the reserve is spent, and then the oldest backups go, those of one compaction
 * after the other. */
static bool make_room(struct hl_store *store)
{
    if (reserve_spend(store))
        return true;
    if (backup_drop_oldest(store) < 0)
        return false;
    store_report(store, HL_WARNING,
                 "the disk is full: the oldest files of backup/ made room for a compaction");
    return true;
}

static int compact_in_room(struct compaction *compaction, size_t begin, size_t end)
{
    struct hl_store *store = compaction->store;
    compaction->replaced = false;
    int error = compact_run_whole(compaction, begin, end);
    while (hl_io_is_full(error) && !compaction->replaced && make_room(store))
        error = store->unpatched ? patch_again(store) : compact_run_whole(compaction, begin, end);
    if (hl_io_is_full(error) && compaction->replaced && !compaction->erase) {
        store_report(store, HL_WARNING,
                     "segments that a compaction replaced cannot be moved to backup/ now (%s): the "
                     "next opening does it",
                     strerror(-error));
        error = 0;
    }
    return error;
}

/* Damage in what was read, that is: what was made and cannot be patched ends the command, and so
 * does a damaged index, which cannot tell what is dead. */
static bool may_pass_over(struct hl_store *store, int error)
{
    return error == -EBADMSG && !store->unpatched && !atomic_load(&store->doubted);
}

static int compact_one(struct compaction *compaction, size_t seed)
{
    struct hl_store *store = compaction->store;
    struct compact_plan *plan = &compaction->plan;
    struct compact_choice choice = {.begin = seed, .end = seed + 1};
    if (!compaction->what->session) /* else the neighbours may have nothing of it */
        compact_plan_extend(plan, store->options.segment_size, &choice);
    int error = thread_lock(&store->reindex_lock, compaction->progress, NULL);
    if (error < 0)
        return error;
    error = compact_in_room(compaction, choice.begin, choice.end);
    bool passable = may_pass_over(store, error);
    if (passable && choice.end - choice.begin > 1) {
        choice = (struct compact_choice){.begin = seed, .end = seed + 1};
        error = compact_in_room(compaction, choice.begin, choice.end);
        passable = may_pass_over(store, error);
    }
    pthread_mutex_unlock(&store->reindex_lock);
    if (passable) {
        compaction->passed_over++;
        store_report(store, HL_WARNING,
                     "segment %x is damaged, and is not compacted: fsck.hotlogfs can mend it",
                     plan->segments[seed].first);
        error = 0;
    }
    for (size_t i = choice.begin; i < choice.end; i++) {
        plan->segments[i].done = true;
        if (compaction->progress)
            atomic_fetch_add(&compaction->progress->done, plan->segments[i].size);
    }
    return error;
}

/* ---- the whole ---- */

/* Leads the index to a segment that it could not be led to before. */
static int patch_again(struct hl_store *store)
{
    struct compact_patched patched;
    struct segment *segment;
    int error = segment_get(&store->segments, store->unpatched, &segment);
    if (error == 0) {
        error = compact_patch(store, segment, NULL, &patched);
        segment_put(&store->segments, segment);
    }
    if (error == 0) { /* the old files are stale, and go at the next opening */
        segment_set_forget_replaced(&store->segments);
        store->unpatched = 0;
    }
    return error;
}

int compact_finish(struct hl_store *store)
{
    return store->unpatched == 0 ? 0 : patch_again(store);
}

/* Brings what was appended so far into the index; for `everything` appends go on in another
 * segment.
 */
static int prepare(struct compaction *compaction, struct hl_error *err)
{
    struct hl_store *store = compaction->store;
    pthread_rwlock_rdlock(&store->env_lock);
    bool indexed = store->index != NULL;
    pthread_rwlock_unlock(&store->env_lock);
    if (!indexed)
        return hl_fail(err, ENOSPC, "there is no index yet: there was no room for it");
    pthread_mutex_lock(&store->reindex_lock);
    int error = compact_finish(store);
    pthread_mutex_unlock(&store->reindex_lock);
    if (error < 0)
        return hl_fail(err, -error, "cannot finish an earlier compaction: %s", strerror(-error));
    if (compaction->what->everything)
        error = hl_rotate(store, err);
    pthread_mutex_lock(&store->flush_lock);
    if (error == 0)
        error = flush_all(store);
    pthread_mutex_unlock(&store->flush_lock);
    compaction->time_is_sound = scheduler_time_is_sound(store);
    if (error == 0)
        error = backup_lowest(store, &compaction->backup_first, NULL);
    if (error == 0)
        error = compact_plan_make(store, compaction->time_is_sound, compaction->backup_first,
                                  &compaction->plan);
    if (error < 0 && (!err || err->code == 0))
        hl_fail(err, -error, "cannot see what is dead: %s", strerror(-error));
    return error;
}

static void tidy_backups(struct hl_store *store)
{
    uint32_t first;
    uint64_t bytes;
    int error = backup_prune(store, store->options.backups);
    if (error == 0)
        error = backup_lowest(store, &first, &bytes);
    if (error == 0)
        atomic_store(&store->backup_bytes, bytes);
    else
        store_report(store, HL_WARNING, "cannot remove old backups: %s", strerror(-error));
}

static int compact_all(struct compaction *compaction, struct hl_error *err)
{
    struct hl_store *store = compaction->store;
    struct compact_plan *plan = &compaction->plan;
    struct compact_segment *seed;
    uint64_t total = 0, dead = plan->dead;
    total = compact_plan_mark(plan, compaction->what->everything, store->options.compact_threshold);
    atomic_store(&store->dead_bytes, dead);
    if (compaction->progress)
        atomic_store(&compaction->progress->total, total);
    int error = 0;
    while (error == 0 && (seed = compact_plan_worst(plan, 0, 0)) != NULL) {
        error = compact_one(compaction, (size_t)(seed - plan->segments));
        if (compaction->progress && atomic_load(&compaction->progress->cancel))
            error = -EINTR;
    }
    uint64_t freed = compaction->result->bytes_before - compaction->result->bytes_after;
    atomic_store(&store->dead_bytes, dead > freed ? dead - freed : 0);
    if (compaction->backup.number)
        tidy_backups(store);
    if (error == 0)
        reserve_make(store);
    if (error == -EINTR)
        return hl_fail(err, EINTR, "interrupted");
    if (hl_io_is_full(error))
        return hl_fail(
            err, -error,
            "there is no room to rewrite a segment in, and nothing in backup/ that could "
            "make some");
    if (error == -EBADMSG && atomic_load(&store->doubted))
        return hl_fail(err, EBADMSG,
                       "cannot compact: the index is damaged; `reindex` makes it anew");
    return error < 0 ? hl_fail(err, -error, "cannot compact: %s", strerror(-error)) : 0;
}

int hl_compact(struct hl_store *store, const struct hl_compact *what, struct hl_progress *progress,
               struct hl_compacted *compacted, struct hl_error *err)
{
    struct hl_compacted ignored = {0};
    struct compaction compaction = {.store = store,
                                    .what = what,
                                    .progress = progress,
                                    .result = compacted ? compacted : &ignored};
    *compaction.result = (struct hl_compacted){0};
    if (err)
        *err = (struct hl_error){0};
    int error = store_writable(store, err);
    if (error == 0)
        error = thread_lock(&store->compact_lock, progress, err);
    if (error < 0)
        return error;
    error = prepare(&compaction, err);
    if (error == 0)
        error = compact_all(&compaction, err);
    if (error == 0)
        atomic_fetch_add(&store->compactions, 1);
    atomic_store(&store->compact_error, -error);
    atomic_store(&store->compact_last_ms, store_now_ms(store));
    compact_plan_free(&compaction.plan);
    backup_run_free(&compaction.backup);
    pthread_mutex_unlock(&store->compact_lock);
    return error;
}

int compact_erase(struct hl_store *store, uint32_t session, struct hl_progress *progress,
                  struct hl_error *err)
{
    struct hl_compact what = {.everything = true};
    struct hl_compacted result = {0};
    struct compaction compaction = {
        .store = store, .what = &what, .progress = progress, .result = &result, .erase = session};
    int error = thread_lock(&store->compact_lock, progress, err);
    if (error < 0)
        return error;
    error = prepare(&compaction, err);
    for (size_t i = 0; i < compaction.plan.count && error == 0; i++) {
        error = thread_lock(&store->reindex_lock, progress, err);
        if (error < 0)
            break;
        error = compact_run_whole(&compaction, i, i + 1);
        pthread_mutex_unlock(&store->reindex_lock);
        if (progress)
            atomic_fetch_add(&progress->done, compaction.plan.segments[i].size);
        if (error < 0)
            hl_fail(err, -error, "cannot rewrite segment %x: %s", compaction.plan.segments[i].first,
                    error == -EINTR ? "interrupted" : strerror(-error));
    }
    compact_plan_free(&compaction.plan);
    pthread_mutex_unlock(&store->compact_lock);
    return error;
}
