/*
 * replay_batch.c - what a replayed batch does; see replay.h.
 *
 * A batch is applied in two turns. prepare() finds the sessions of its frames, with whatever look
 * at the index or the log that takes, decides what counts, and folds operations, which stay staged;
 * new sessions are hidden. publish() then does it all under one lock, so that nobody ever sees a
 * part of a batch.
 */
#include "replay.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fold.h"
#include "json.h"
#include "line.h"
#include "session.h"
#include "sums_batch.h"

void replay_damage(const struct replay *replay, uint64_t offset, const char *format, ...)
{
    char what[256], where[384];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    snprintf(where, sizeof where, "segment %s at byte %" PRIu64 ": %s", replay->segment->name,
             offset, what);
    store_damage(replay->store, position_make(replay->segment->first, offset), where);
}

/* ---- what a frame is going to do ---- */

int replay_touch(struct replay *replay, struct mem_session *session)
{
    if (session->batch == replay->store->batch)
        return 0;
    if (replay->touched_count == replay->touched_capacity) {
        size_t capacity = replay->touched_capacity ? replay->touched_capacity * 2 : 8;
        struct mem_session **more = realloc(replay->touched, capacity * sizeof(*more));
        if (!more)
            return -ENOMEM;
        replay->touched = more;
        replay->touched_capacity = capacity;
    }
    replay->touched[replay->touched_count++] = session;
    session->batch = replay->store->batch;
    session->batch_before = session->row;
    session->batch_has_seq = session->row.has_seq;
    session->batch_last_seq = session->row.last_seq;
    session->batch_created = false;
    session->new_records = 0;
    fold_begin(session);
    return 0;
}

static struct mem_session *add_hidden(const struct replay *replay, const struct index_row *row)
{
    struct hl_store *store = replay->store;
    pthread_rwlock_wrlock(&store->mem_lock);
    struct mem_session *session = memtable_add_session(store->table, row);
    if (session) {
        session->hidden = true;
        memtable_note_created(store->table, row->number);
    }
    pthread_rwlock_unlock(&store->mem_lock);
    return session;
}

/* Whose sums a frame adds to. What the index does not have is not in its sums either. */
static enum sums_whom whom_of(const struct replay *replay, const struct replay_frame *frame,
                              const struct mem_session *session)
{
    return frame->counts ? SUMS_FOR_SESSION
                         : sums_whom(session, position_make(replay->segment->first, frame->offset));
}

/* A session frame of a session that is known. */
static void prepare_update(struct replay *replay, struct replay_frame *frame,
                           struct mem_session *session)
{
    const struct index_row *row = frame->more->row;
    if (session->row.id_len != row->id_len || memcmp(session->row.id, row->id, row->id_len) != 0) {
        replay_damage(replay, frame->offset, "two sessions have the number %" PRIu32, row->number);
        return;
    }
    frame->counts = position_make(replay->segment->first, frame->offset) >= session->row.indexed;
    struct index_documents *documents = &session->batch_documents;
    if (frame->counts && row->documents.history_from > documents->history_from)
        documents->history_from = row->documents.history_from;
    if (frame->counts && row->has_seq &&
        (!session->batch_has_seq || row->last_seq > session->batch_last_seq)) {
        session->batch_has_seq = true;
        session->batch_last_seq = row->last_seq;
    }
}

static int prepare_session(struct replay *replay, struct replay_frame *frame)
{
    struct index_row *row = calloc(1, sizeof *row);
    if (!row)
        return -ENOMEM;
    int error = session_decode(frame->body, frame->length, row);
    if (error == -EBADMSG || (error == 0 && row->number != frame->session)) {
        replay_damage(replay, frame->offset, "a session frame that says nothing of its session");
        if (error == 0)
            session_row_free(row);
        free(row);
        return 0;
    }
    if (error < 0) {
        free(row);
        return error;
    }
    frame->more->row = row;
    error = lookup_for_append(replay->store, row->number, NULL, 0, &frame->target);
    int removed = error == -ENOENT ? lookup_removed(replay->store, row->number) : 0;
    if (removed != 0)
        return removed < 0 ? removed : 0;
    if (error == -ENOENT) {
        struct mem_session *same_id;
        error = lookup_for_append(replay->store, 0, row->id, row->id_len, &same_id);
        if (error == 0) {
            replay_damage(replay, frame->offset, "sessions %" PRIu32 " and %" PRIu32 " have one id",
                          row->number, same_id->row.number);
            frame->target = NULL;
            return 0;
        }
        if (error == -ENOENT) {
            frame->target = add_hidden(replay, row);
            error = frame->target ? 0 : -ENOMEM;
        }
    }
    if (error == 0)
        error = replay_touch(replay, frame->target);
    if (error == 0)
        prepare_update(replay, frame, frame->target);
    if (error == 0)
        error = session_decode_sums(frame->body, frame->length, &frame->more->carried);
    if (error == -EBADMSG) {
        replay_damage(replay, frame->offset, "a session frame whose sums cannot be read");
        return 0;
    }
    if (error == 0 && frame->more->carried)
        error = sums_stage_carried(replay->store, frame->target,
                                   whom_of(replay, frame, frame->target), frame->more->carried);
    return error;
}

/* A record whose session frame was lost: the line itself names the session. */
static int find_by_line(struct replay *replay, const struct replay_frame *frame,
                        struct mem_session **session)
{
    char id[HL_ID_MAX];
    struct line_fields fields;
    char *line = malloc(frame->length);
    if (!line)
        return -ENOMEM;
    ssize_t n = hl_io_read(replay->store->io, replay->segment->fd, line, frame->length,
                           (uint64_t)frame->offset + FRAME_HEADER_SIZE);
    int error = n < 0 ? (int)n : 0;
    size_t len = SIZE_MAX;
    if (error == 0 && n == (ssize_t)frame->length && line_read(line, frame->length, &fields) == 0)
        len = json_unescape(fields.session_id.at, fields.session_id.len, id, sizeof id);
    free(line);
    if (error < 0)
        return error;
    if (len == SIZE_MAX || !hl_session_id_valid(id, len)) {
        replay_damage(replay, frame->offset,
                      "a record of session %" PRIu32 ", of which nothing is known", frame->session);
        return -ENOENT;
    }
    struct mem_session *other;
    error = lookup_for_append(replay->store, 0, id, len, &other);
    if (error == 0)
        replay_damage(replay, frame->offset,
                      "a record of session %" PRIu32 ", whose id session %" PRIu32 " has",
                      frame->session, other->row.number);
    if (error != -ENOENT)
        return error < 0 ? error : -ENOENT;
    replay_damage(replay, frame->offset,
                  "the frame that makes session %" PRIu32
                  " is missing; its id is taken from its lines",
                  frame->session);
    struct index_row row = {
        .number = frame->session,
        .uid = geteuid(),
        .gid = getegid(),
        .mode = 0700,
        .created_ms = frame->recorded_ms,
        .changed_ms = frame->recorded_ms,
        .id = id,
        .id_len = (uint16_t)len,
    };
    *session = add_hidden(replay, &row);
    return *session ? 0 : -ENOMEM;
}

/* The session of a record, which is part of the batch from now on. *session NULL: nobody knows it,
 * or it was removed. */
static int find_session(struct replay *replay, const struct replay_frame *frame,
                        struct mem_session **session)
{
    struct hl_store *store = replay->store;
    struct mem_session *found;
    *session = NULL;
    int error = lookup_for_append(store, frame->session, NULL, 0, &found);
    int removed = error == -ENOENT ? lookup_removed(store, frame->session) : 0;
    if (removed != 0)
        return removed < 0 ? removed : 0;
    if (error == -ENOENT)
        error = find_by_line(replay, frame, &found);
    if (error == 0)
        error = replay_touch(replay, found);
    if (error < 0)
        return error == -ENOENT ? 0 : error;
    *session = found;
    return 0;
}

/* What was added up in groups, which are empty then. */
static int stage_groups(const struct replay *replay, struct mem_session *session,
                        struct sums_groups *groups)
{
    int error = groups->count > 0 ? sums_stage_groups(replay->store, session, groups) : 0;
    groups->count = 0;
    return error;
}

static int stage_event(const struct replay *replay, const struct replay_frame *frame,
                       struct mem_session *session, struct sums_groups *groups)
{
    const uint8_t *packed = replay->events + frame->event - 1;
    enum sums_whom whom = whom_of(replay, frame, session);
    if (whom == SUMS_FOR_SESSION && sums_groups_add_packed(groups, packed))
        return 0;
    struct sums_event event;
    int error = stage_groups(replay, session, groups); /* in their order, for the names */
    if (error < 0)
        return error;
    sums_event_unpack(packed, &event);
    return sums_stage(replay->store, session, whom, frame->seq, &event);
}

static int prepare_record(struct replay *replay, struct replay_frame *frame,
                          struct mem_session *session, struct sums_groups *groups)
{
    struct hl_store *store = replay->store;
    int error;
    frame->target = session;
    frame->counts = position_make(replay->segment->first, frame->offset) >= session->row.indexed;
    if (frame->counts && session->batch_has_seq && frame->seq <= session->batch_last_seq) {
        frame->counts = false;
        if (replay->segment->generation > 0) /* an index from before it was compacted has this one
                                                (compact_patch()), or had it */
            return 0;
        replay_damage(replay, frame->offset,
                      "record %" PRIu64 " of session %" PRIu32 " comes after record %" PRIu64,
                      frame->seq, frame->session, session->batch_last_seq);
        return 0;
    }
    if (frame->counts && frame->type == FRAME_OPERATION) {
        struct fold_record record = {
            .seq = frame->seq, .line = frame->body, .length = frame->length};
        error = fold_operation(store, session, &record, false, NULL);
        if (error < 0)
            return error;
    }
    if (frame->event > 0) {
        error = stage_event(replay, frame, session, groups);
        if (error < 0)
            return error;
    }
    if (frame->counts) {
        session->batch_has_seq = true;
        session->batch_last_seq = frame->seq;
    }
    /* News also of those that a writer's index, which we look into, has already. */
    if (session->new_records++ == 0)
        session->new_first = frame->seq;
    session->new_last = frame->seq;
    return 0;
}

static int prepare(struct replay *replay, struct replay_frame *frame)
{
    struct mem_session *session;
    if (frame->recorded_ms > replay->store->clock_ms)
        replay->store->clock_ms = frame->recorded_ms;
    replay->seal_found = frame->type == FRAME_SEAL;
    if (frame->type == FRAME_SESSION)
        return prepare_session(replay, frame);
    if (frame->type == FRAME_DROP)
        return replay_drop_prepare(replay, frame);
    if (!frame_is_record(frame->type))
        return 0;
    struct sums_groups groups;
    groups.count = 0;
    int error = find_session(replay, frame, &session);
    if (error == 0 && session)
        error = prepare_record(replay, frame, session, &groups);
    return error == 0 && session ? stage_groups(replay, session, &groups) : error;
}

/* The same for all records of a session, of which one batch may have many: what is known of it is
 * at hand then. Sessions have nothing to do with each other, so the order of theirs does not
 * matter. */
static int prepare_group(struct replay *replay, const struct replay_group *group)
{
    struct mem_session *session = NULL;
    struct sums_groups groups; /* two KiB: only the count is set */
    uint32_t place = group->first + 1;
    groups.count = 0;
    while (place > 0) {
        struct replay_frame *frame = &replay->pending[place - 1];
        /* They lie far from each other, and those of many sessions are too much for a cache. */
        if (frame->next > 0)
            __builtin_prefetch(replay->events + replay->pending[frame->next - 1].event);
        int error = 0;
        if (!session) {
            error = find_session(replay, frame, &session);
            if (error == 0 && session)
                memtable_prefetch_list(session);
        }
        if (error == 0 && session)
            error = prepare_record(replay, frame, session, &groups);
        if (error < 0)
            return error;
        if (frame->recorded_ms > replay->store->clock_ms)
            replay->store->clock_ms = frame->recorded_ms;
        place = frame->next;
    }
    if (session)
        memtable_prefetch(session);
    return session ? stage_groups(replay, session, &groups) : 0;
}

static int prepare_all(struct replay *replay)
{
    int error = replay_make_groups(replay);
    if (error == 0 && replay->group_count == 0) {
        for (size_t i = 0; i < replay->pending_count && error == 0; i++)
            error = prepare(replay, &replay->pending[i]);
        return error;
    }
    replay->seal_found = false;
    for (size_t i = 0; i < replay->group_count && error == 0; i++)
        error = prepare_group(replay, &replay->groups[i]);
    return error;
}

/* ---- doing it; mem_lock is held ---- */

static void update_row(struct replay *replay, struct mem_session *session, struct index_row *row)
{
    session->row.uid = row->uid;
    session->row.gid = row->gid;
    session->row.mode = row->mode;
    session->row.created_ms = row->created_ms;
    if (row->changed_ms > session->row.changed_ms)
        session->row.changed_ms = row->changed_ms;
    memtable_take_attributes(replay->store->table, session, (void *)(uintptr_t)row->attributes,
                             row->attributes_len);
    row->attributes = NULL;
    if (row->has_seq && (!session->row.has_seq || row->last_seq > session->row.last_seq)) {
        session->row.has_seq = true;
        session->row.last_seq = row->last_seq;
    }
}

/* Makes the session known. One with a number that none had is new, also when the index (of a
 * writer, seen by a read-only store) knows it already. */
static void count_session(struct replay *replay, struct mem_session *session)
{
    struct hl_store *store = replay->store;
    bool fresh = session->row.number >= store->next_session;
    if (fresh || session->hidden)
        store->sessions++;
    if (fresh)
        store->next_session = session->row.number + 1;
    session->batch_created = fresh;
    session->hidden = false;
}

/* Root log shows every good frame that holds a line, so all count here, whosever they are. */
struct lines {
    uint64_t records, bytes, applied;
    uint64_t end; /* of the last one; 0: none */
};

static void count_lines(struct replay *replay, struct lines *lines)
{
    const struct segment *segment = replay->segment;
    for (size_t i = 0; i < replay->pending_count; i++) {
        const struct replay_frame *frame = &replay->pending[i];
        if (!frame_is_record(frame->type))
            continue;
        if (frame->offset >= replay->next_point) {
            struct mem_point point = {segment->first, segment->line_bytes + lines->bytes,
                                      frame->offset};
            if (memtable_add_point(replay->store->table, &point) == 0)
                replay->next_point = frame->offset + POINT_SPACING;
        }
        lines->applied += frame->counts;
        lines->records++;
        lines->bytes += frame->length;
        lines->end = frame->offset + frame_size(frame->length);
    }
}

static int publish_record(struct replay *replay, const struct replay_frame *frame)
{
    if (!frame->counts || !frame_is_record(frame->type))
        return 0;
    struct index_entry entry = {
        .seq = frame->seq,
        .position = position_make(replay->segment->first, frame->offset),
        .length = frame->length,
        .operation = frame->type == FRAME_OPERATION,
    };
    return memtable_append(replay->store->table, frame->target, &entry, frame->recorded_ms);
}

static int publish_records(struct replay *replay)
{
    int error = 0;
    for (size_t i = 0; i < replay->group_count; i++) {
        uint32_t place = replay->groups[i].first + 1;
        for (; place > 0 && error == 0; place = replay->pending[place - 1].next)
            error = publish_record(replay, &replay->pending[place - 1]);
    }
    for (size_t i = 0; i < replay->pending_count && replay->group_count == 0 && error == 0; i++)
        error = publish_record(replay, &replay->pending[i]);
    return error;
}

/* All or nothing of the frames that are pending. */
static int publish(struct replay *replay)
{
    struct hl_store *store = replay->store;
    struct segment *segment = replay->segment;
    uint64_t next_point = replay->next_point;
    size_t points = store->table->point_count;
    struct lines lines = {0};
    pthread_rwlock_wrlock(&store->mem_lock);
    count_lines(replay, &lines);
    int error = publish_records(replay);
    for (size_t i = 0; i < replay->pending_count && error == 0; i++) {
        struct replay_frame *frame = &replay->pending[i];
        if (frame->type == FRAME_SESSION && frame->more->row && frame->counts)
            update_row(replay, frame->target, frame->more->row);
    }
    for (size_t i = 0; i < replay->touched_count; i++) {
        struct mem_session *session = replay->touched[i];
        if (error < 0) {
            memtable_take_back(store->table, session, &session->batch_before);
        } else {
            count_session(replay, session);
            fold_settle(session);
        }
    }
    if (error == 0)
        sums_publish(store); /* before drops, which take away from them */
    for (size_t i = 0; i < replay->pending_count && error == 0; i++) {
        if (replay->pending[i].type == FRAME_DROP && replay->pending[i].counts)
            replay_drop_apply(replay, &replay->pending[i]);
    }
    if (error == 0) {
        store->records += lines.records;
        store->bytes += lines.bytes;
        atomic_fetch_add(&segment->records, lines.records);
        atomic_fetch_add(&segment->line_bytes, lines.bytes);
        if (lines.end > 0)
            atomic_store(&segment->size, lines.end);
        replay->records += lines.applied;
    } else {
        store->table->point_count = points;
        replay->next_point = next_point;
    }
    pthread_rwlock_unlock(&store->mem_lock);
    return error;
}

/* ---- news ---- */

/* What the batch did to documents, before it is published; one for each session that it touched. */
static int gather_news(const struct replay *replay, struct hl_news **all)
{
    *all = NULL;
    if (!replay->tell || !replay->store->options.news || replay->touched_count == 0)
        return 0;
    *all = calloc(replay->touched_count, sizeof **all);
    if (!*all)
        return -ENOMEM;
    for (size_t i = 0; i < replay->touched_count; i++) {
        struct hl_news *news = &(*all)[i];
        struct hl_document_news *documents;
        int error = fold_news(replay->touched[i], HL_NEWS_DOCUMENTS, &documents,
                              &news->document_count, &news->documents_skipped);
        if (error < 0)
            return error;
        news->documents = documents;
    }
    return 0;
}

static void free_news(const struct replay *replay, struct hl_news *all)
{
    for (size_t i = 0; all && i < replay->touched_count; i++)
        free((void *)(uintptr_t)all[i].documents);
    free(all);
}

static void tell(const struct replay *replay, struct hl_news *all)
{
    const struct hl_options *options = &replay->store->options;
    for (size_t i = 0; all && i < replay->touched_count; i++) {
        const struct mem_session *session = replay->touched[i];
        struct hl_news *news = &all[i];
        news->session = session->row.number;
        news->created = session->batch_created;
        news->records = session->new_records;
        if (news->records > 0) {
            news->first = session->new_first;
            news->last = session->new_last;
        }
        if (news->created || news->records > 0)
            options->news(options->news_context, news);
    }
    for (size_t i = 0; replay->tell && options->news && i < replay->pending_count; i++) {
        if (replay->pending[i].type == FRAME_DROP && replay->pending[i].counts)
            replay_drop_tell(replay, &replay->pending[i]);
    }
}

/* ---- the whole ---- */

/* What was prepared will not be published. */
static void take_back(struct replay *replay)
{
    pthread_rwlock_wrlock(&replay->store->mem_lock);
    sums_take_back(replay->store);
    for (size_t i = 0; i < replay->touched_count; i++)
        fold_take_back(replay->store, replay->touched[i]);
    pthread_rwlock_unlock(&replay->store->mem_lock);
}

int replay_apply(struct replay *replay)
{
    int error = 0;
    replay->store->batch++;
    sums_begin(replay->store);
    replay->touched_count = 0;
    error = prepare_all(replay);
    struct hl_news *news = NULL;
    if (error == 0 && !replay->blocked)
        error = gather_news(replay, &news);
    if (error == 0 && !replay->blocked)
        error = publish(replay);
    else
        take_back(replay);
    if (replay->blocked)
        return error;
    if (error == 0)
        tell(replay, news);
    free_news(replay, news);
    return error;
}
