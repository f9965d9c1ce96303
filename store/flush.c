/*
 * flush.c - moves the memtable into the index.
 *
 * A flush freezes the active table at a log position, has the log synced up to there, and then
 * applies the frozen table in many synced transactions, each of a bounded number of sessions and
 * entries. Each session's row says up to where it is applied, and the totals in meta are always
 * those of the rows; only the last transaction moves the watermark. So a crash in between costs
 * nothing: replay begins at the old watermark and skips what a row has already.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core.h"
#include "mem_documents.h"
#include "thread.h"

/* Segments from number `from` to number `to`: later ones are not replayed yet. */
static int describe_segments(struct hl_store *store, uint32_t from, uint32_t to,
                             struct flush_target *target)
{
    struct segment_set *set = &store->segments;
    int error = 0;
    pthread_mutex_lock(&set->lock);
    target->segments = calloc(set->count, sizeof *target->segments);
    if (!target->segments)
        error = -ENOMEM;
    target->segment_count = 0;
    for (size_t i = 0; i < set->count && error == 0; i++) {
        const struct segment *segment = set->at[i];
        if (segment->last < from || segment->first > to)
            continue;
        target->segments[target->segment_count++] = (struct index_segment){
            .first = segment->first,
            .last = segment->last,
            .generation = segment->generation,
            .salt = segment->salt,
            .indexed_end = segment->size,
            .records = segment->records,
            .line_bytes = segment->line_bytes,
            .sealed = segment->sealed,
        };
    }
    pthread_mutex_unlock(&set->lock);
    return error;
}

void flush_target_free(struct flush_target *target)
{
    free(target->segments);
    sums_free(target->sums);
    *target = (struct flush_target){0};
}

static int freeze(struct hl_store *store, uint64_t position)
{
    struct memtable *table = memtable_new();
    if (!table)
        return -ENOMEM;
    int error = describe_segments(store, position_segment(atomic_load(&store->indexed)),
                                  position_segment(position), &store->target);
    if (error == 0)
        error = sums_copy(&store->sums, &store->target.sums);
    if (error < 0) {
        flush_target_free(&store->target);
        memtable_free(table);
        return error;
    }
    store->target.meta = (struct index_meta){
        .watermark = position,
        .applying = position,
        .next_session = store->next_session,
        .recorded_ms = store->clock_ms,
    };
    memcpy(store->target.meta.store_id, store->store_id, sizeof store->store_id);
    store->target.sums->position = position;
    pthread_rwlock_wrlock(&store->mem_lock);
    store->frozen = store->table;
    store->table = table;
    pthread_rwlock_unlock(&store->mem_lock);
    store->unindexed_bytes = 0;
    return 0;
}

/* ---- applying ---- */

/* A part of what a table has of a session, by seq: all above `after` (if has_after) up to `limit`.
 */
struct part {
    const struct mem_session *session;
    bool has_after;
    uint64_t after, limit;
    uint32_t chunk, entry; /* where next_entry() is */
};

static bool is_after(const struct part *part, uint64_t seq)
{
    return !part->has_after || seq > part->after;
}

static bool next_entry(void *context, struct index_entry *entry)
{
    struct part *part = context;
    while (part->chunk < part->session->chunk_count) {
        const struct mem_chunk *chunk = part->session->chunks[part->chunk];
        if (part->entry < chunk->count) {
            const struct mem_entry *from = &chunk->entries[part->entry++];
            *entry = (struct index_entry){
                .seq = chunk->first_seq + from->distance,
                .position = from->position,
                .length = from->length,
                .operation = from->operation,
            };
            if (!is_after(part, entry->seq))
                continue;
            return entry->seq <= part->limit;
        }
        part->chunk++;
        part->entry = 0;
    }
    return false;
}

/* What the session's row is with this part; row->indexed is that of the next record. */
static void row_of_part(struct part *part, const struct index_documents *totals,
                        struct index_row *row)
{
    struct index_entry entry;
    const struct mem_session *session = part->session;
    struct part walk = {.session = session, .limit = UINT64_MAX};
    row->records = session->base_records;
    row->bytes = session->base_bytes;
    row->documents = *totals;
    row->last_seq = part->limit;
    row->has_seq = true;
    while (next_entry(&walk, &entry) && entry.seq <= part->limit) {
        if (row->records++ == 0)
            row->first_seq = entry.seq;
        row->bytes += entry.length;
    }
    row->indexed = entry.position;
}

/* What operations of the part changed; *entries grows by the values put. */
static int put_documents(struct index_txn *txn, const struct part *part, uint64_t *entries)
{
    const struct mem_documents *documents = part->session->documents;
    uint32_t number = part->session->row.number;
    uint64_t from = part->has_after ? part->after + 1 : 0;
    int error = 0;
    if (!documents)
        return 0;
    for (const struct mem_slot *slot = documents->first[0]; slot && error == 0;
         slot = slot->forward[0]) {
        struct index_slot put = {slot->number, slot->area, slot->key, slot->key_len};
        const struct index_version *first = mem_slot_version_from(slot, from);
        const struct index_version *last = mem_slot_version(slot, part->limit);
        if (!first || !last || first > last)
            continue;
        if (slot->made && first == slot->versions)
            error = index_put_slot(txn, number, &put);
        if (error == 0)
            error = index_put_versions(txn, number, &put, first, (size_t)(last - first) + 1);
        *entries += (uint64_t)(last - first) + 1;
    }
    for (size_t i = 0; i < documents->operation_count && error == 0; i++) {
        const struct index_operation *operation = &documents->operations[i];
        if (is_after(part, operation->seq) && operation->seq <= part->limit)
            error = index_put_operation(txn, number, operation);
    }
    return error;
}

/* Applies what is left of a session, or a part of it, if its operations are too many for the
 * memory that a transaction may take: what is behind the first *marks marks, which moves. */
static int apply_session(struct hl_store *store, struct index_txn *txn,
                         const struct mem_session *session, size_t *marks, uint64_t *entries)
{
    const struct mem_documents *documents = session->documents;
    size_t count = documents ? documents->mark_count : 0;
    size_t used = (size_t)(*entries / DOCUMENT_ENTRIES / MEM_MARK_SPACING);
    size_t room = used < FLUSH_MARKS ? FLUSH_MARKS - used : 1;
    struct part part = {.session = session, .limit = UINT64_MAX, .has_after = *marks > 0};
    struct index_row row = session->row;
    if (*marks > 0)
        part.after = documents->marks[*marks - 1].seq;
    /* Never back: during a replay a row may be further than this table, by a flush that a crash
     * cut short. */
    if (row.indexed < store->target.meta.watermark)
        row.indexed = store->target.meta.watermark;
    uint64_t put = 0;
    size_t next = count + 1; /* all */
    if (count > *marks + room) {
        next = *marks + room;
        part.limit = documents->marks[next - 1].seq;
        row_of_part(&part, &documents->marks[next - 1].totals, &row);
        if (row.indexed < session->row.indexed)
            row.indexed = session->row.indexed;
    }
    int error = index_apply(txn, &row, next_entry, &part);
    if (error == 0)
        error = put_documents(txn, &part, &put);
    if (error == 0 && next > count)
        error = flush_put_sums(txn, session, row.indexed, entries);
    *entries += put * DOCUMENT_ENTRIES + (row.records - session->base_records);
    *marks = next;
    return error;
}

/* Puts what the last transaction of a flush adds: points, segments, and the watermark. */
static int put_target(struct hl_store *store, struct index_txn *txn, struct index_meta *meta)
{
    const struct flush_target *target = &store->target;
    int error = 0;
    for (size_t i = 0; i < store->frozen->point_count && error == 0; i++) {
        const struct mem_point *point = &store->frozen->points[i];
        error = index_put_point(txn, point->segment, point->line_bytes, point->offset);
    }
    for (size_t i = 0; i < target->segment_count && error == 0; i++)
        error = index_put_segment(txn, &target->segments[i]);
    if (error == 0 && (target->sums->total.events > 0 || store->frozen->drops))
        error = index_put_sums(txn, 0, target->sums);
    meta->watermark = target->meta.watermark;
    return error;
}

/* How far a flush is: sessions that are applied whole, and marks of the next one. */
struct flush_progress {
    size_t sessions, marks;
};

/* One transaction: from *at on, which moves only when it is committed. */
static int apply_group(struct hl_store *store, struct index *index, struct index_meta *meta,
                       struct flush_progress *at)
{
    const struct memtable *frozen = store->frozen;
    struct index_meta next = *meta;
    struct flush_progress to = *at;
    struct index_txn *txn;
    size_t sessions = 0;
    uint64_t entries = 0;
    int error = index_begin(index, &txn);
    if (error < 0)
        return error;
    while (to.sessions < frozen->session_count && sessions < FLUSH_SESSIONS &&
           entries < FLUSH_ENTRIES) {
        const struct mem_session *session = frozen->sessions[to.sessions];
        if (session->deleted) {
            to.sessions++;
            continue;
        }
        error = apply_session(store, txn, session, &to.marks, &entries);
        if (error < 0)
            break;
        if (session->documents && to.marks <= session->documents->mark_count)
            break; /* the rest of it in the next transaction */
        to.marks = 0;
        to.sessions++;
        sessions++;
    }
    next.next_session = store->target.meta.next_session;
    next.recorded_ms = store->target.meta.recorded_ms;
    if (next.applying < store->target.meta.watermark)
        next.applying = store->target.meta.watermark;
    if (error == 0 && to.sessions == frozen->session_count)
        error = put_target(store, txn, &next);
    if (error == 0)
        error = index_put_meta(txn, &next);
    if (error < 0) {
        index_abort(txn);
        return error;
    }
    error = index_commit(txn);
    if (error == 0) {
        *at = to;
        *meta = next;
    }
    return error;
}

static int apply_frozen(struct hl_store *store, struct index *index)
{
    struct index_view *view;
    struct index_meta meta;
    int error = index_view_begin(index, &view);
    if (error < 0)
        return error;
    error = index_get_meta(view, &meta);
    index_view_end(view);
    /* A flush that failed on the way goes on behind what its transactions stored: their rows are in
     * the totals already. */
    struct flush_progress at = {store->flush_applied, store->flush_marks};
    if (error == 0 && !store->flush_calls)
        error = flush_put_calls(store, index);
    store->flush_calls = error == 0;
    while (error == 0 && (at.sessions < store->frozen->session_count ||
                          meta.watermark != store->target.meta.watermark)) {
        error = apply_group(store, index, &meta, &at);
        store->flush_applied = at.sessions;
        store->flush_marks = at.marks;
        if (error == -EAGAIN)
            error = index_grow(index);
    }
    if (error == 0) {
        store->flush_applied = 0;
        store->flush_calls = false;
        atomic_store(&store->indexed, meta.watermark);
        atomic_fetch_add(&store->flushes, 1);
    }
    return error;
}

/* append_lock is held. */
static void forget_frozen(struct hl_store *store)
{
    pthread_rwlock_wrlock(&store->mem_lock);
    struct memtable *done = store->frozen;
    store->frozen = NULL;
    pthread_rwlock_unlock(&store->mem_lock);
    store->flush_error = 0;
    pthread_cond_broadcast(&store->room);
    memtable_free(done);
    flush_target_free(&store->target);
}

static void drop_frozen(struct hl_store *store)
{
    pthread_mutex_lock(&store->append_lock);
    forget_frozen(store);
    pthread_mutex_unlock(&store->append_lock);
}

static int sync_up_to(struct hl_store *store, uint64_t position)
{
    struct segment *segment;
    if (atomic_load(&store->synced) >= position)
        return 0;
    int error = segment_get(&store->segments, position_segment(position), &segment);
    if (error == 0) {
        error = commit_sync_file(store, segment, position);
        segment_put(&store->segments, segment);
    }
    return error;
}

/* Moves the frozen table. */
static int flush_frozen(struct hl_store *store)
{
    int error = sync_up_to(store, store->target.meta.watermark);
    if (error == 0) /* flush_lock is enough to keep the index from being replaced */
        error = flush_drops(store, store->index);
    if (error == 0) {
        pthread_rwlock_rdlock(&store->env_lock);
        error = apply_frozen(store, store->index);
        pthread_rwlock_unlock(&store->env_lock);
    }
    if (error == 0) {
        drop_frozen(store);
        return 0;
    }
    pthread_mutex_lock(&store->append_lock);
    if (store->flush_error != error)
        store_report(store, HL_ERROR, "the index cannot be brought up to date: %s",
                     strerror(-error));
    store->flush_error = error;
    pthread_cond_broadcast(&store->room);
    pthread_mutex_unlock(&store->append_lock);
    return error;
}

/* Moves the frozen table, or if there is none what is in the active one. */
static int flush_once(struct hl_store *store)
{
    int error = 0;
    if (!store->frozen) { /* else an earlier flush failed on the way: it goes on */
        pthread_mutex_lock(&store->append_lock);
        uint64_t position = atomic_load(&store->position);
        /* A table may also be full of rows that were only looked up, for refusals and retries. */
        bool nothing =
            position == atomic_load(&store->indexed) && store->table->bytes < FLUSH_TABLE_BYTES;
        if (!nothing)
            error = store->index ? tail_settle(store, NULL) : -ENOSPC; /* index_make_up() */
        if (!nothing && error == 0)
            error = freeze(store, position);
        if (error < 0)
            store->flush_error = error; /* who waits for room is told */
        pthread_cond_broadcast(&store->room);
        pthread_mutex_unlock(&store->append_lock);
        if (nothing || error < 0)
            return error;
    }
    return flush_frozen(store);
}

int flush_all(struct hl_store *store)
{
    bool older = store->frozen != NULL;
    int error = flush_once(store);
    if (error == 0 && older)
        error = flush_once(store);
    return error;
}

int flush_older(struct hl_store *store)
{
    return store->frozen ? flush_frozen(store) : 0;
}

int flush_freeze(struct hl_store *store)
{
    int error = tail_settle(store, NULL);
    return error < 0 ? error : freeze(store, atomic_load(&store->position));
}

int flush_held(struct hl_store *store)
{
    uint64_t position = atomic_load(&store->position);
    if (store->frozen || store->table->drops) /* a drop that failed on the way goes first */
        return -EBUSY;
    if (!store->active || store->table->session_count == 0)
        return 0;
    int error = tail_settle(store, NULL);
    if (error == 0)
        error = freeze(store, position);
    if (error == 0)
        error = sync_up_to(store, position);
    if (error == 0)
        error = apply_frozen(store, store->index);
    if (error == 0)
        forget_frozen(store);
    return error;
}

int flush_sealed(struct hl_store *store, uint64_t *position, struct hl_error *err)
{
    int error = flush_all(store); /* most of it, before appends are made to wait */
    if (error == 0 && !store->index)
        error = -ENOSPC; /* index_make_up() */
    if (error == 0) {
        pthread_mutex_lock(&store->append_lock);
        error = tail_mend(store, err);
        if (error == 0)
            error = log_seal(store, err);
        *position = atomic_load(&store->position);
        bool nothing = *position == atomic_load(&store->indexed);
        if (error == 0 && !nothing)
            error = freeze(store, *position);
        pthread_cond_broadcast(&store->room);
        pthread_mutex_unlock(&store->append_lock);
        if (error == 0 && !nothing)
            error = flush_frozen(store);
    }
    if (error < 0 && err && err->code == 0)
        hl_fail(err, -error, "cannot bring the index up to date: %s", strerror(-error));
    return error;
}

int flush_position(struct hl_store *store, uint64_t position)
{
    int error = freeze(store, position);
    if (error == 0)
        error = flush_drops(store, store->index);
    if (error == 0)
        error = apply_frozen(store, store->index);
    if (error == 0)
        drop_frozen(store);
    return error;
}

/* ---- the thread ---- */

/* Whether a checkpoint is due, and if not yet, in how many ms; 0: not until more came. */
static uint64_t checkpoint_wait(struct hl_store *store, bool *due)
{
    pthread_mutex_lock(&store->flush_lock);
    uint64_t held = store->checkpoint_position;
    uint64_t age = monotonic_ms() - store->checkpoint_clock;
    bool missing = !store->index;
    pthread_mutex_unlock(&store->flush_lock);
    uint64_t indexed = atomic_load(&store->indexed);
    *due = false;
    /* The index moves by FLUSH_LOG_BYTES, or by a full table: so much came when it moved at all. */
    if (indexed == held || missing)
        return 0;
    *due = age >= store->options.checkpoint_interval_ms;
    return *due ? 0 : store->options.checkpoint_interval_ms - age;
}

static void run_checkpoint(struct hl_store *store)
{
    struct hl_error err = {0};
    pthread_mutex_lock(&store->flush_lock);
    int error = checkpoint_write(store, NULL, &err);
    pthread_mutex_unlock(&store->flush_lock);
    if (error < 0)
        store_report(store, HL_WARNING, "no checkpoint was made: %s", err.text);
}

static void wait_for_work(struct hl_store *store, uint64_t ms)
{
    struct flusher *flusher = &store->flusher;
    struct timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += (time_t)(ms / 1000) + (ms % 1000 ? 1 : 0);
    pthread_mutex_lock(&flusher->lock);
    while (!flusher->stop && !flusher->wanted) {
        if (ms == 0)
            pthread_cond_wait(&flusher->wake, &flusher->lock);
        else if (pthread_cond_timedwait(&flusher->wake, &flusher->lock, &deadline) == ETIMEDOUT)
            break;
    }
    flusher->wanted = false;
    pthread_mutex_unlock(&flusher->lock);
}

static bool stopped(struct hl_store *store)
{
    pthread_mutex_lock(&store->flusher.lock);
    bool stop = store->flusher.stop;
    pthread_mutex_unlock(&store->flusher.lock);
    return stop;
}

static bool flush_is_due(struct hl_store *store)
{
    pthread_mutex_lock(&store->append_lock);
    bool due = store->frozen || store->table->bytes >= FLUSH_TABLE_BYTES ||
               store->unindexed_bytes >= FLUSH_LOG_BYTES;
    pthread_mutex_unlock(&store->append_lock);
    return due;
}

static void *flush_run(void *context)
{
    struct hl_store *store = context;
    while (!stopped(store)) {
        bool due;
        int error = 0, missing = index_make_up(store);
        /* With the lock: what another thread is about to flush is not due any more after it. */
        pthread_mutex_lock(&store->flush_lock);
        if (flush_is_due(store))
            error = flush_all(store);
        pthread_mutex_unlock(&store->flush_lock);
        uint64_t wait = checkpoint_wait(store, &due);
        if (due)
            run_checkpoint(store);
        wait_for_work(store, error < 0 || missing < 0
                                 ? 1000
                                 : wait); /* a full disk may have room in a second */
    }
    return NULL;
}

int flush_start(struct hl_store *store)
{
    int error = thread_start(&store->flusher.thread, flush_run, store);
    store->flusher.running = error == 0;
    return error;
}

void flush_stop(struct hl_store *store)
{
    if (!store->flusher.running)
        return;
    pthread_mutex_lock(&store->flusher.lock);
    store->flusher.stop = true;
    pthread_cond_signal(&store->flusher.wake);
    pthread_mutex_unlock(&store->flusher.lock);
    pthread_join(store->flusher.thread, NULL);
    store->flusher.running = false;
}

void flush_wake(struct hl_store *store)
{
    pthread_mutex_lock(&store->flusher.lock);
    store->flusher.wanted = true;
    pthread_cond_signal(&store->flusher.wake);
    pthread_mutex_unlock(&store->flusher.lock);
}
