/* compact_frames.c - the frames of a run of segments in memory, and which of them live. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "compact.h"
#include "compact_needed.h"
#include "drop.h"
#include "scan.h"
#include "session.h"

#define VIEW_SESSIONS 1024U        /* looked up in one view of the index */
#define VIEW_ENTRIES (64U * 1024U) /* likewise: views must not last */

/* ---- the table ---- */

void compact_table_init(struct compact_table *table)
{
    *table = (struct compact_table){.frames = NULL};
}

void compact_table_free(struct compact_table *table)
{
    for (uint32_t i = 0; i < table->buckets; i++) {
        free(table->sessions[i].body);
        free(table->sessions[i].tail);
        sums_free(table->sessions[i].carried);
    }
    free(table->sessions);
    free(table->leads);
    free(table->frames);
    compact_table_init(table);
}

static uint32_t hash(uint32_t number, uint32_t buckets)
{
    return (number * UINT32_C(2654435769) >> 7) & (buckets - 1);
}

/* Its place, or a free one. */
static struct compact_session *place_of(struct compact_session *sessions, uint32_t buckets,
                                        uint32_t number)
{
    uint32_t i = hash(number, buckets);
    while (sessions[i].number != 0 && sessions[i].number != number)
        i = (i + 1) & (buckets - 1);
    return &sessions[i];
}

struct compact_session *compact_table_find(const struct compact_table *table, uint32_t number)
{
    if (table->buckets == 0)
        return NULL;
    struct compact_session *found = place_of(table->sessions, table->buckets, number);
    return found->number ? found : NULL;
}

static int grow_sessions(struct compact_table *table)
{
    uint32_t buckets = table->buckets ? table->buckets * 2 : 64;
    struct compact_session *sessions = calloc(buckets, sizeof *sessions);
    if (!sessions)
        return -ENOMEM;
    for (uint32_t i = 0; i < table->buckets; i++) {
        if (table->sessions[i].number)
            *place_of(sessions, buckets, table->sessions[i].number) = table->sessions[i];
    }
    free(table->sessions);
    table->sessions = sessions;
    table->buckets = buckets;
    return 0;
}

static struct compact_session *add_session(struct compact_table *table, uint32_t number)
{
    if (table->session_count >= table->buckets / 2 && grow_sessions(table) < 0)
        return NULL;
    struct compact_session *session = place_of(table->sessions, table->buckets, number);
    if (session->number == 0) {
        session->number = number;
        table->session_count++;
    }
    return session;
}

static void note_seq(struct compact_session *session, uint64_t seq)
{
    if (!session->has_highest || seq > session->highest)
        session->highest = seq;
    session->has_highest = true;
}

/* A session frame's seq is its last_seq; 0 may also mean that there is none. */
static int note_last_seq(struct compact_session *session, const struct frame *frame)
{
    struct index_row row;
    if (frame->seq > 0) {
        note_seq(session, frame->seq);
        return 0;
    }
    int error = session_decode(frame->body, frame->length, &row);
    if (error < 0)
        return error == -EBADMSG ? 0 : error;
    if (row.has_seq)
        note_seq(session, row.last_seq);
    session_row_free(&row);
    return 0;
}

static int add_frame(struct compact_table *table, const struct scan_item *item, uint16_t source)
{
    const struct frame *frame = &item->frame;
    if (table->count == table->capacity) {
        if (table->capacity > UINT32_MAX / 4)
            return -ENOMEM;
        uint32_t capacity = table->capacity ? table->capacity * 2 : 4096;
        struct compact_frame *frames = realloc(table->frames, capacity * sizeof *frames);
        if (!frames)
            return -ENOMEM;
        table->frames = frames;
        table->capacity = capacity;
    }
    struct compact_session *session = add_session(table, frame->session);
    if (!session)
        return -ENOMEM;
    table->frames[table->count++] = (struct compact_frame){
        .seq = frame->seq,
        .session = frame->session,
        .offset = (uint32_t)item->offset,
        .length = frame->length,
        .source = source,
        .type = (uint8_t)frame->type,
        .flags = (uint8_t)frame->flags,
    };
    uint32_t place = table->count;
    if (!session->begin)
        session->begin = place;
    if (frame->type == FRAME_SESSION) {
        if (!session->head)
            session->head = place;
        session->newest = place;
        return note_last_seq(session, frame);
    }
    if (!frame_is_record(frame->type))
        return 0;
    session->operations += frame->type == FRAME_OPERATION;
    table->records++;
    table->record_bytes += item->size;
    table->line_bytes += frame->length;
    note_seq(session, frame->seq);
    if (session->last)
        table->frames[session->last - 1].next = place;
    else
        session->first = place;
    session->last = place;
    return 0;
}

int compact_table_scan(struct compact_table *table, struct hl_store *store,
                       const struct segment *segment, uint16_t source, _Atomic bool *cancel)
{
    struct scan scan;
    struct scan_item item = {.kind = SCAN_GAP};
    uint64_t size;
    int error = hl_io_size(store->io, segment->fd, &size);
    if (error < 0)
        return error;
    scan_init(&scan, store->io, segment->fd, segment->salt, SEGMENT_HEADER_REGION, size);
    for (unsigned i = 0; error == 0; i++) {
        error = scan_next(&scan, &item);
        if (error < 0 || item.kind == SCAN_END)
            break;
        if (item.kind != SCAN_FRAME)
            table->damaged = true;
        else if (item.frame.type != FRAME_SEAL && item.frame.type != FRAME_VOID)
            error = add_frame(table, &item, source);
        if (error == 0 && i % 4096 == 0 && cancel && atomic_load(cancel))
            error = -EINTR;
    }
    scan_free(&scan);
    return error;
}

/* ---- records that live ---- */

struct marking {
    struct compact_run *run;
    struct compact_session *session;
    const struct compact_needed *needed; /* NULL: all of its operations stay */
    uint32_t at;                         /* place of the next record */
    uint64_t entries;
    uint64_t last_kept;
    bool any_kept, beyond; /* beyond: the index has records behind those of the run */
};

static uint64_t position_of(const struct compact_run *run, const struct compact_frame *frame)
{
    return position_make(run->sources[frame->source]->first, frame->offset);
}

static bool mark_entry(void *context, const struct index_entry *entry)
{
    struct marking *marking = context;
    struct compact_table *table = &marking->run->table;
    marking->entries++;
    while (marking->at && table->frames[marking->at - 1].seq < entry->seq)
        marking->at = table->frames[marking->at - 1].next;
    if (!marking->at) {
        marking->beyond = entry->seq > marking->session->highest;
        return !marking->beyond;
    }
    struct compact_frame *frame = &table->frames[marking->at - 1];
    if (frame->seq == entry->seq && position_of(marking->run, frame) == entry->position &&
        (!entry->operation || !marking->needed ||
         compact_needed_has(marking->needed, entry->seq, position_segment(entry->position)))) {
        frame->keep = true;
        marking->any_kept = true;
        marking->last_kept = frame->seq;
    }
    return true;
}

/* In the place of its first session frame stands that it is deleted: else a later segment might
 * still have records of which nobody knew whose they were. */
static int mark_deleted(struct compact_run *run, struct compact_session *session)
{
    struct drop drop = {.kind = DROP_DELETE};
    if (!session->head)
        return 0;
    session->body = malloc(DROP_BODY_MAX);
    if (!session->body)
        return -ENOMEM;
    session->body_len = (uint32_t)drop_encode(&drop, session->body);
    struct compact_frame *head = &run->table.frames[session->head - 1];
    head->type = FRAME_DROP;
    head->seq = 0;
    head->keep = true;
    return 0;
}

/* Frames of a session that the index does not know: of one that was deleted none is kept, of one
 * that was lost otherwise all are. */
static int mark_unknown(struct compact_run *run, struct index_view *view,
                        struct compact_session *session)
{
    int removed = index_session_removed(view, session->number);
    if (removed != 0)
        return removed < 0 ? removed : mark_deleted(run, session);
    for (uint32_t i = 0; i < run->table.count; i++) {
        struct compact_frame *frame = &run->table.frames[i];
        frame->keep = frame->keep || frame->session == session->number;
    }
    return 0;
}

static int make_text(const struct index_row *row, bool has_seq, uint64_t last_seq, char **text,
                     uint32_t *len)
{
    struct index_row copy = *row;
    size_t size;
    copy.has_seq = has_seq;
    copy.last_seq = last_seq;
    int error = session_encode(&copy, text, &size);
    *len = error == 0 ? (uint32_t)size : 0;
    return error;
}

static int make_tail(void *context, const struct index_row *row)
{
    struct compact_session *session = context;
    return make_text(row, true, session->highest, &session->tail, &session->tail_len);
}

static int read_body(struct compact_run *run, const struct compact_frame *frame, char **body)
{
    *body = malloc(frame->length ? frame->length : 1);
    if (!*body)
        return -ENOMEM;
    ssize_t n = hl_io_read(run->store->io, run->sources[frame->source]->fd, *body, frame->length,
                           (uint64_t)frame->offset + FRAME_HEADER_SIZE);
    return n < 0 ? (int)n : n == (ssize_t)frame->length ? 0 : -EIO;
}

/* One session frame stays, at the place of the first: it says what the newest one does, but that
 * it must not know of seqs behind it. */
static int settle_head(struct compact_run *run, struct compact_session *session)
{
    struct compact_frame *head = &run->table.frames[session->head - 1];
    const struct compact_frame *newest = &run->table.frames[session->newest - 1];
    struct index_row first = {.number = 0}, last = {.number = 0};
    char *first_body = NULL, *last_body = NULL;
    head->keep = true;
    if (head == newest)
        return 0;
    int error = read_body(run, head, &first_body);
    if (error == 0)
        error = read_body(run, newest, &last_body);
    if (error == 0)
        error = session_decode(first_body, head->length, &first);
    if (error == 0)
        error = session_decode(last_body, newest->length, &last);
    if (error == 0)
        error = make_text(&last, first.has_seq, first.last_seq, &session->body, &session->body_len);
    session_row_free(&first);
    session_row_free(&last);
    free(first_body);
    free(last_body);
    if (error != -EBADMSG)
        return error;
    session->unreadable = true;
    for (uint32_t i = session->head - 1; i < session->newest; i++) { /* they stay as they are */
        struct compact_frame *frame = &run->table.frames[i];
        frame->keep =
            frame->keep || (frame->type == FRAME_SESSION && frame->session == session->number);
    }
    return 0;
}

/* No seq may be given twice, also when all is read anew: the highest one that stood here must be
 * told by what stays, or by a record behind. */
static bool wants_tail(const struct compact_run *run, const struct compact_session *session)
{
    if (!session->known || !session->has_highest || session->told)
        return false;
    const struct compact_frame *head = session->head ? &run->table.frames[session->head - 1] : NULL;
    return !head || !head->keep || head->seq < session->highest || session->highest == 0;
}

static int mark_session(struct compact_run *run, struct index_view *view,
                        struct compact_session *session, struct marking *marking)
{
    struct index_row row;
    int error = index_session_by_number(view, session->number, &row);
    if (error == -ENOENT)
        return mark_unknown(run, view, session);
    session->known = error == 0;
    session->trimmed = error == 0 ? row.trimmed : 0;
    marking->session = session;
    marking->at = session->first;
    marking->any_kept = marking->beyond = false;
    struct compact_needed needed = {.count = 0};
    uint64_t from = session->first ? run->table.frames[session->first - 1].seq : session->highest;
    bool some_may_go = error == 0 && session->operations > 0 && row.documents.history_from > 0;
    if (some_may_go)
        error = compact_needed_find(&needed, view, session->number, row.documents.history_from,
                                    run->backup);
    some_may_go = some_may_go && error == 0;
    marking->needed = some_may_go ? &needed : NULL;
    if (error == 0 && session->has_highest)
        error = index_each_from(view, session->number, from, mark_entry, marking);
    if (some_may_go)
        compact_needed_free(&needed);
    marking->needed = NULL; /* it was this session's */
    session->told =
        marking->beyond || (marking->any_kept && marking->last_kept == session->highest);
    if (error == 0 && session->head)
        error = settle_head(run, session);
    return error;
}

static int mark_records(struct compact_run *run)
{
    struct hl_store *store = run->store;
    struct compact_table *table = &run->table;
    struct marking marking = {.run = run};
    for (uint32_t i = 0, done = 0; i < table->buckets;) {
        struct index_view *view;
        int error = lookup_view(store, &view);
        if (error < 0)
            return error;
        uint64_t until = marking.entries + VIEW_ENTRIES;
        for (done = 0;
             i < table->buckets && done < VIEW_SESSIONS && marking.entries < until && error == 0;
             i++) {
            if (table->sessions[i].number == 0)
                continue;
            error = mark_session(run, view, &table->sessions[i], &marking);
            done++;
        }
        error = lookup_view_end(store, view, error);
        if (error == 0 && run->progress && atomic_load(&run->progress->cancel))
            error = -EINTR;
        if (error < 0)
            return error;
    }
    return 0;
}

static int make_tails(struct compact_run *run)
{
    int error = 0;
    for (uint32_t i = 0; i < run->table.buckets && error == 0; i++) {
        struct compact_session *session = &run->table.sessions[i];
        if (session->number == 0 || !wants_tail(run, session))
            continue;
        error = lookup_row(run->store, session->number, NULL, 0, make_tail, session);
        if (error == -ENOENT) /* deleted meanwhile */
            error = 0;
    }
    return error;
}

/* ---- batches ---- */

bool compact_begins_batch(const struct compact_table *table, uint32_t i)
{
    const struct compact_frame *frame = &table->frames[i];
    return i == 0 || (frame->flags & FRAME_FIRST_OF_BATCH) != 0 ||
           frame->source != table->frames[i - 1].source;
}

/* What is kept of a batch is one: its flags are made whole again. */
static void settle_batches(struct compact_table *table)
{
    struct compact_frame *last = NULL; /* kept, of the batch */
    for (uint32_t i = 0; i < table->count; i++) {
        struct compact_frame *frame = &table->frames[i];
        bool begins = compact_begins_batch(table, i);
        bool ends = (frame->flags & FRAME_LAST_OF_BATCH) != 0;
        if (begins && last) { /* the end of the one before is missing */
            last->flags |= FRAME_LAST_OF_BATCH;
            last = NULL;
        }
        if (frame->keep) {
            frame->flags = last ? 0 : FRAME_FIRST_OF_BATCH;
            last = frame;
        }
        if (ends && last) {
            last->flags |= FRAME_LAST_OF_BATCH;
            last = NULL;
        }
    }
    if (last)
        last->flags |= FRAME_LAST_OF_BATCH;
}

int compact_settle(struct compact_run *run)
{
    for (uint32_t i = 0; i < run->table.count; i++)
        run->table.frames[i].keep = run->table.frames[i].type == FRAME_DROP;
    int error = mark_records(run);
    if (error == 0)
        error = compact_gather_sums(run);
    if (error == 0)
        error = make_tails(run);
    if (error == 0)
        settle_batches(&run->table);
    return error;
}
