/*
 * compact_patch.c - leads an index from the segments that it lists to the one that took their
 * place.
 *
 * What the new segment holds is read from its file, also right after it was written, so that a
 * patch at an opening does the very same. Each transaction leaves an index that is good, with old
 * positions and new ones in it; the segment's row comes last, and until then another patch begins
 * again from the start.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "compact.h"
#include "scan.h"

#define GATHER 1024U /* sessions, in one transaction at most */

/* A session that may have entries in the segment, and seqs between which they lie. */
struct range {
    uint32_t session;
    uint64_t from, to;
    bool drops; /* some of its operations are in the index, and not in the segment */
};

struct patching {
    struct hl_store *store;
    struct segment *segment;
    struct compact_table table;           /* of the new segment */
    const struct compact_table *sessions; /* NULL: all of the index */
    struct compact_patched *patched;
    struct range ranges[GATHER];
    size_t count;
    uint32_t after; /* where the next ones are looked for */
    /* Of the session that is being edited: */
    const struct compact_session *session; /* NULL: nothing of it was kept */
    uint32_t at;
};

/* ---- which sessions ---- */

static int gather_indexed(struct patching *patching)
{
    struct index_view *view;
    struct index_row row;
    int error = index_view_begin(patching->store->index, &view);
    if (error < 0)
        return error;
    while (patching->count < GATHER && error == 0) {
        error = index_session_next(view, patching->after, &row);
        if (error < 0)
            break;
        patching->ranges[patching->count++] =
            (struct range){.session = row.number, .to = HL_SEQ_MAX};
        patching->after = row.number;
    }
    index_view_end(view);
    return error == -ENOENT ? 0 : error;
}

/* The next ones; patching->count is 0 at the end. */
static int gather(struct patching *patching)
{
    const struct compact_table *sessions = patching->sessions;
    patching->count = 0;
    if (!sessions)
        return gather_indexed(patching);
    for (; patching->after < sessions->buckets && patching->count < GATHER; patching->after++) {
        const struct compact_session *session = &sessions->sessions[patching->after];
        if (session->number && session->first)
            patching->ranges[patching->count++] =
                (struct range){.session = session->number,
                               .from = sessions->frames[session->first - 1].seq,
                               .to = session->highest};
    }
    return 0;
}

/* ---- entries ---- */

static enum index_verdict patch_entry(void *context, struct index_entry *entry)
{
    struct patching *patching = context;
    const struct segment *segment = patching->segment;
    const struct compact_frame *frames = patching->table.frames;
    uint32_t number = position_segment(entry->position);
    if (number < segment->first || number > segment->last)
        return INDEX_KEEP;
    if (patching->session && patching->at == 0)
        patching->at = patching->session->first;
    while (patching->at && frames[patching->at - 1].seq < entry->seq &&
           frames[patching->at - 1].next)
        patching->at = frames[patching->at - 1].next;
    const struct compact_frame *frame = patching->at ? &frames[patching->at - 1] : NULL;
    if (!frame || frame->seq != entry->seq || frame->length != entry->length)
        return INDEX_DROP;
    uint64_t position = position_make(segment->first, frame->offset);
    if (entry->position == position)
        return INDEX_KEEP;
    entry->position = position;
    return INDEX_MOVE;
}

/* ---- operations that were dropped ----
 *
 * The tables count on what the index has of a session, so it loses something only while no table
 * knows the session: appends wait for the length of a transaction.
 */

struct dropped {
    struct patching *patching;
    struct index_forgotten *at;
    size_t count, capacity;
    bool any; /* entries of any kind are dropped */
    int error;
};

static bool collect_dropped(void *context, const struct index_entry *entry)
{
    struct dropped *dropped = context;
    struct index_entry copy = *entry;
    if (position_segment(entry->position) > dropped->patching->segment->last)
        return false;
    if (patch_entry(dropped->patching, &copy) != INDEX_DROP)
        return true;
    dropped->any = true;
    if (!entry->operation)
        return true;
    if (dropped->count == dropped->capacity) {
        size_t capacity = dropped->capacity ? dropped->capacity * 2 : 64;
        struct index_forgotten *at = realloc(dropped->at, capacity * sizeof *at);
        if (!at) {
            dropped->error = -ENOMEM;
            return false;
        }
        dropped->at = at;
        dropped->capacity = capacity;
    }
    dropped->at[dropped->count++] = (struct index_forgotten){.seq = entry->seq};
    return true;
}

static int find_dropped(struct patching *patching, const struct range *range,
                        struct dropped *dropped)
{
    struct index_view *view;
    struct index_row row;
    *dropped = (struct dropped){.patching = patching};
    int error = index_view_begin(patching->store->index, &view);
    if (error < 0)
        return error;
    error = index_session_by_number(view, range->session, &row);
    patching->session = compact_table_find(&patching->table, range->session);
    patching->at = 0;
    /* Events have no entries once they are dead, but where damage took them. */
    bool lossy = patching->sessions && patching->sessions->damaged;
    if (error == 0 && (row.documents.operations > 0 || lossy))
        error = index_each_from(view, range->session, range->from, collect_dropped, dropped);
    if (error == 0)
        error = dropped->error;
    if (error == 0 && dropped->count > 0)
        error = index_forgotten_link(view, range->session, dropped->at, dropped->count);
    index_view_end(view);
    return error == -ENOENT ? 0 : error;
}

/* What of a session is done in one transaction: first what its operations did is forgotten, then
 * the entries go. */
struct session_turn {
    const struct range *range;
    const struct dropped *dropped;
    struct index_forgetting forgetting;
    bool forgotten, done;
    uint64_t from;
};

static int session_txn(struct patching *patching, struct session_turn *turn,
                       struct index_edited *edited)
{
    struct session_turn to = *turn;
    const struct range *range = turn->range;
    struct index_txn *txn;
    int error = index_begin(patching->store->index, &txn);
    if (error < 0)
        return error;
    if (!turn->forgotten) {
        error = index_forget_operations(txn, range->session, turn->dropped->at,
                                        turn->dropped->count, &to.forgetting);
        to.forgotten = !to.forgetting.more;
    } else {
        patching->session = compact_table_find(&patching->table, range->session);
        patching->at = 0;
        error =
            index_edit(txn, range->session, turn->from, range->to, patch_entry, patching, edited);
        to.done = !edited->more;
        to.from = edited->next;
    }
    if (error < 0) {
        index_abort(txn);
        return error;
    }
    error = index_commit(txn);
    if (error == 0)
        *turn = to;
    return error;
}

/* flush_lock is held. */
static int take_turn(struct patching *patching, struct session_turn *turn)
{
    struct hl_store *store = patching->store;
    struct index_edited edited = {0};
    pthread_mutex_lock(&store->append_lock);
    bool in_use = store->active != NULL; /* else it is being opened */
    pthread_mutex_unlock(&store->append_lock);
    int error = in_use ? flush_all(store) : 0;
    if (error < 0)
        return error;
    pthread_rwlock_wrlock(&store->drop_lock);
    pthread_mutex_lock(&store->append_lock);
    if (in_use)
        error = flush_held(store);
    if (error == 0)
        error = session_txn(patching, turn, &edited);
    if (error == -EAGAIN)
        error = index_grow(store->index);
    bool tell = error == 0 && edited.records > 0 && in_use;
    if (tell) {
        atomic_fetch_add(&store->rewrites, 1);
        pthread_mutex_lock(&store->news_lock);
    }
    pthread_mutex_unlock(&store->append_lock);
    if (tell) {
        struct hl_news news = {.session = turn->range->session,
                               .dropped_records = edited.records,
                               .dropped_bytes = edited.bytes,
                               .dropped_first = turn->range->from,
                               .dropped_last = turn->range->to};
        if (store->options.news)
            store->options.news(store->options.news_context, &news);
        pthread_mutex_unlock(&store->news_lock);
    }
    pthread_rwlock_unlock(&store->drop_lock);
    patching->patched->records += edited.records;
    patching->patched->bytes += edited.bytes;
    return error;
}

static int edit_session(struct patching *patching, const struct range *range)
{
    struct hl_store *store = patching->store;
    struct dropped dropped;
    int error = find_dropped(patching, range, &dropped);
    struct session_turn turn = {.range = range, .dropped = &dropped, .from = range->from};
    turn.forgotten = dropped.count == 0;
    while (error == 0 && !turn.done) {
        pthread_mutex_lock(&store->flush_lock);
        error = take_turn(patching, &turn);
        pthread_mutex_unlock(&store->flush_lock);
    }
    free(dropped.at);
    return error;
}

/* Whether it has dropped operations, for each range; these are done by themselves. */
static int edit_droppers(struct patching *patching)
{
    int error = 0;
    for (size_t i = 0; i < patching->count && error == 0; i++) {
        struct dropped dropped;
        error = find_dropped(patching, &patching->ranges[i], &dropped);
        patching->ranges[i].drops = error == 0 && dropped.any;
        free(dropped.at);
        if (patching->ranges[i].drops)
            error = edit_session(patching, &patching->ranges[i]);
    }
    return error;
}

/* ---- all others ---- */

/* How far all is done: ranges, and the seq from which the next one is to be looked at. */
struct reached {
    size_t ranges;
    uint64_t from;
};

/* One transaction. *reached moves when it is committed. */
static int edit_some(struct patching *patching, struct reached *reached)
{
    struct index_edited edited = {0};
    struct reached to = *reached;
    struct index_txn *txn;
    int error = index_begin(patching->store->index, &txn);
    if (error < 0)
        return error;
    while (to.ranges < patching->count && error == 0) {
        const struct range *range = &patching->ranges[to.ranges];
        if (range->drops) {
            to = (struct reached){.ranges = to.ranges + 1};
            continue;
        }
        uint64_t from = to.from > range->from ? to.from : range->from;
        patching->session = compact_table_find(&patching->table, range->session);
        patching->at = 0;
        error = index_edit(txn, range->session, from, range->to, patch_entry, patching, &edited);
        if (error == 0 && edited.more) {
            to.from = edited.next;
            break;
        }
        to = (struct reached){.ranges = to.ranges + 1};
    }
    if (error < 0 || (edited.records == 0 && edited.moved == 0)) {
        index_abort(txn);
        if (error == 0)
            *reached = to;
        return error;
    }
    error = index_commit(txn);
    if (error == 0) {
        *reached = to;
        patching->patched->records += edited.records;
        patching->patched->bytes += edited.bytes;
    }
    return error;
}

static int edit_entries(struct patching *patching)
{
    struct hl_store *store = patching->store;
    int error = gather(patching);
    while (error == 0 && patching->count > 0) {
        struct reached reached = {0};
        error = edit_droppers(patching);
        while (error == 0 && reached.ranges < patching->count) {
            pthread_mutex_lock(&store->flush_lock);
            error = edit_some(patching, &reached);
            if (error == -EAGAIN)
                error = index_grow(store->index);
            pthread_mutex_unlock(&store->flush_lock);
        }
        if (error == 0)
            error = gather(patching);
    }
    return error;
}

/* ---- the segment ---- */

/* The rows of sessions say up to where they are applied, in positions of segments that are gone. */
static int lower_rows(struct patching *patching)
{
    struct index *index = patching->store->index;
    int error = 0;
    for (uint32_t after = 0; error == 0 && after != UINT32_MAX;) {
        struct index_txn *txn;
        uint32_t next = after;
        error = index_begin(index, &txn);
        if (error < 0)
            break;
        error = index_lower_indexed(txn, &next,
                                    position_make(patching->segment->first, SEGMENT_HEADER_REGION));
        if (error < 0)
            index_abort(txn);
        else
            error = index_commit(txn);
        if (error == 0)
            after = next;
        else if (error == -EAGAIN)
            error = index_grow(index);
    }
    return error;
}

/* Points for root log, where a replay would put them. */
static int put_points(const struct patching *patching, struct index_txn *txn)
{
    const struct compact_table *table = &patching->table;
    uint64_t lines = 0, next = SEGMENT_HEADER_REGION + POINT_SPACING;
    int error = 0;
    for (uint32_t i = 0; i < table->count && error == 0; i++) {
        const struct compact_frame *frame = &table->frames[i];
        if (!frame_is_record(frame->type))
            continue;
        if (frame->offset >= next) {
            error = index_put_point(txn, patching->segment->first, lines, frame->offset);
            next = frame->offset + POINT_SPACING;
        }
        lines += frame->length;
    }
    return error;
}

static int put_segment(struct patching *patching, const struct index_meta *meta, bool again)
{
    const struct segment *segment = patching->segment;
    const struct compact_table *table = &patching->table;
    struct index_meta changed = *meta;
    struct index_txn *txn;
    struct index_segment listed = {
        .first = segment->first,
        .last = segment->last,
        .generation = segment->generation,
        .salt = segment->salt,
        .indexed_end = segment->size,
        .records = table->records,
        .line_bytes = table->line_bytes,
        .overhead = segment->size - table->record_bytes,
        .sealed = true,
    };
    if (again) { /* the replay counts them */
        listed.indexed_end = SEGMENT_HEADER_REGION;
        listed.records = listed.line_bytes = 0;
        changed.watermark = changed.applying = position_make(segment->first, SEGMENT_HEADER_REGION);
    }
    int error = index_begin(patching->store->index, &txn);
    if (error < 0)
        return error;
    error = index_replace_segments(txn, &listed);
    if (error == 0)
        error = again ? index_put_meta(txn, &changed) : put_points(patching, txn);
    if (error < 0) {
        index_abort(txn);
        return error;
    }
    return index_commit(txn);
}

static int get_meta(struct hl_store *store, struct index_meta *meta)
{
    struct index_view *view;
    int error = index_view_begin(store->index, &view);
    if (error == 0) {
        error = index_get_meta(view, meta);
        index_view_end(view);
    }
    return error;
}

static int finish(struct patching *patching)
{
    struct hl_store *store = patching->store;
    const struct segment *segment = patching->segment;
    struct index_meta meta;
    int error;
    pthread_mutex_lock(&store->flush_lock);
    do {
        error = get_meta(store, &meta);
        /* An index from before the segment's last frames were: all of it is replayed, and what the
         * index has is passed over. */
        bool again = error == 0 && position_segment(meta.watermark) <= segment->last;
        if (again &&
            (position_segment(meta.watermark) < segment->first || meta.applying != meta.watermark))
            error = -EBADMSG;
        if (error == 0 && again)
            error = lower_rows(patching);
        if (error == 0)
            error = put_segment(patching, &meta, again);
    } while (error == -EAGAIN && (error = index_grow(store->index)) == 0);
    pthread_mutex_unlock(&store->flush_lock);
    return error;
}

/* Of an index that ends inside the run all of it is replayed; events that it has are known as such
 * by their seqs, but not which of them are in what is carried. */
static int check_carried(const struct patching *patching)
{
    struct index_meta meta;
    int error = get_meta(patching->store, &meta);
    if (error < 0 || position_segment(meta.watermark) > patching->segment->last)
        return error;
    int carries = compact_carries(patching->store, patching->segment, &patching->table);
    return carries > 0 ? -ESTALE : carries;
}

int compact_patch(struct hl_store *store, struct segment *segment,
                  const struct compact_table *sessions, struct compact_patched *patched)
{
    struct patching *patching = calloc(1, sizeof *patching);
    if (!patching)
        return -ENOMEM;
    *patching = (struct patching){
        .store = store, .segment = segment, .sessions = sessions, .patched = patched};
    *patched = (struct compact_patched){0};
    compact_table_init(&patching->table);
    int error = compact_table_scan(&patching->table, store, segment, 0, NULL);
    if (error == 0 && patching->table.damaged)
        error = -EBADMSG;
    if (error == 0)
        error = check_carried(patching);
    if (error == 0)
        error = edit_entries(patching);
    if (error == 0)
        error = finish(patching);
    compact_table_free(&patching->table);
    free(patching);
    return error;
}
