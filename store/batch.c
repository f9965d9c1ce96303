/* batch.c - a line's session and seq; see batch.h. */
#include "batch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "fold.h"
#include "session.h"
#include "sums_batch.h"

/* ---- sessions ---- */

int batch_touch(struct batch *batch, struct mem_session *session)
{
    if (session->batch == batch->store->batch)
        return 0;
    struct batch_memory *memory = batch->memory;
    if (batch->touched_count == memory->touched_capacity) {
        size_t capacity = memory->touched_capacity ? memory->touched_capacity * 2 : 8;
        struct mem_session **touched = realloc(memory->touched, capacity * sizeof(*touched));
        if (!touched)
            return hl_fail(batch->err, ENOMEM, "out of memory");
        memory->touched = touched;
        memory->touched_capacity = capacity;
    }
    if (!session->id_json) {
        session->id_json = malloc(JSON_ESCAPE_MAX((size_t)session->row.id_len));
        if (!session->id_json)
            return hl_fail(batch->err, ENOMEM, "out of memory");
        session->id_json_len =
            (uint32_t)json_escape(session->row.id, session->row.id_len, session->id_json);
    }
    batch->memory->touched[batch->touched_count++] = session;
    session->batch = batch->store->batch;
    session->batch_before = session->row;
    session->batch_has_seq = session->row.has_seq;
    session->batch_last_seq = session->row.last_seq;
    session->batch_created = false;
    session->receipt_records = 0;
    session->new_records = 0;
    session->newest_placed = 0;
    fold_begin(session);
    return 0;
}

/* Makes the session that a line of a root append names, hidden until the batch is stored. */
static int create_session(struct batch *batch, const char *id, size_t len,
                          struct mem_session **session)
{
    struct hl_store *store = batch->store;
    struct index_row row = {
        .number = store->next_session,
        .uid = batch->request->uid,
        .gid = batch->request->gid,
        .mode = batch->request->mode & 07777,
        .created_ms = batch->recorded_ms,
        .changed_ms = batch->recorded_ms,
        .id = id,
        .id_len = (uint16_t)len,
    };
    if (store->next_session == UINT32_MAX)
        return hl_fail(batch->err, ENOSPC, "no session number is left");
    pthread_rwlock_wrlock(&store->mem_lock);
    *session = memtable_add_session(store->table, &row);
    if (*session)
        (*session)->hidden = true;
    memtable_note_created(store->table, row.number);
    pthread_rwlock_unlock(&store->mem_lock);
    if (!*session)
        return hl_fail(batch->err, ENOMEM, "out of memory");
    store->next_session++;
    batch->created++;
    int error = batch_touch(batch, *session);
    if (error < 0)
        return error;
    (*session)->batch_created = true;

    char *text, *body;
    size_t text_len;
    error = session_encode(&row, &text, &text_len);
    if (error < 0)
        return hl_fail(batch->err, -error, "cannot describe the session: %s", strerror(-error));
    error = batch_frame_begin(batch, text_len, &body);
    if (error == 0) {
        memcpy(body, text, text_len);
        batch_frame_end(batch, *session, FRAME_SESSION, 0, text_len);
    }
    free(text);
    return error;
}

/* The session that a line goes to. */
static int resolve(struct batch *batch, const struct line *line, struct mem_session **session)
{
    const struct hl_append *request = batch->request;
    char id[HL_ID_MAX];
    size_t len = 0;
    if (line->given & 1U << LINE_SESSION_ID) {
        len = json_unescape(line->session_id.at, line->session_id.len, id, sizeof id);
        if (len == SIZE_MAX)
            return hl_fail(batch->err, EINVAL, "\"session_id\" is over %d bytes", HL_ID_MAX);
    }
    if (request->session != 0) {
        struct mem_session *own = batch->memory->touched[0];
        *session = own;
        if (len == 0 || (len == own->row.id_len && memcmp(id, own->row.id, len) == 0))
            return 0;
        return hl_fail(batch->err, EINVAL, "\"session_id\" is not the id of this session");
    }
    if (batch->touched_count > 0) { /* most often the same as the line before */
        struct mem_session *last = batch->memory->touched[batch->touched_count - 1];
        if (len == last->row.id_len && memcmp(id, last->row.id, len) == 0) {
            *session = last;
            return 0;
        }
    }
    int error = lookup_for_append(batch->store, 0, id, len, session);
    if (error == -ENOENT)
        return create_session(batch, id, len, session);
    if (error < 0)
        return hl_fail(batch->err, -error, "cannot look the session up: %s", strerror(-error));
    bool known = (*session)->batch == batch->store->batch;
    if (!known && request->permit) {
        struct hl_session public;
        session_from_row(&public, &(*session)->row);
        error = request->permit(request->permit_context, &public);
        if (error < 0)
            return hl_fail(batch->err, -error, "no permission to append to session %.*s", (int)len,
                           id);
    }
    return batch_touch(batch, *session);
}

/* ---- seqs ---- */

/* Whether the line, stamped as the stored line was, is the stored line. 1, 0, or an error. */
static int same_line(const struct mem_session *session, const struct line *line, uint64_t seq,
                     const char *stored, size_t stored_len)
{
    struct line_fields fields;
    if (line_read(stored, stored_len, &fields) < 0 || !fields.has_ts_ms)
        return 0;
    struct line_stamp stamp = {
        .id_json = session->id_json,
        .id_json_len = session->id_json_len,
        .seq = seq,
        .ts_ms = fields.ts_ms,
    };
    struct operation operation;
    if (line->kind == LINE_OPERATION &&
        operation_parse(stored, stored_len, &operation, NULL) == 0) {
        stamp.prev_seq = operation.prev_seq;
        stamp.prev_op = operation.prev_op;
    }
    char *again = malloc(line_stamp_bound(line, session->id_json_len));
    if (!again)
        return -ENOMEM;
    size_t len = line_stamp(line, &stamp, again);
    int same = len == stored_len && memcmp(again, stored, len) == 0;
    free(again);
    return same;
}

/* The line of a record of this batch: in the buffer still, or written already. */
static int read_placed(struct batch *batch, const struct index_entry *entry, char **copy)
{
    uint64_t body = position_offset(entry->position) + (uint64_t)FRAME_HEADER_SIZE;
    *copy = malloc(entry->length);
    if (!*copy)
        return -ENOMEM;
    if (body >= batch->base) {
        memcpy(*copy, batch->memory->buffer + (body - batch->base), entry->length);
        return 0;
    }
    ssize_t n = hl_io_read(batch->store->io, batch->store->active->fd, *copy, entry->length, body);
    if (n == (ssize_t)entry->length)
        return 0;
    free(*copy);
    return n < 0 ? (int)n : -EIO;
}

/* A seq that is not above the last: 0 if the record is there with the same content. */
static int check_retry(struct batch *batch, struct mem_session *session, const struct line *line)
{
    struct index_entry entry;
    int same;
    const struct index_entry *placed = placed_find(&batch->placed, session, line->seq);
    if (placed) {
        char *copy;
        same = read_placed(batch, placed, &copy);
        if (same == 0) {
            same = same_line(session, line, line->seq, copy, placed->length);
            free(copy);
        }
    } else {
        uint8_t *buffer = NULL;
        struct frame frame;
        same = lookup_seq(batch->store, session->row.number, line->seq, &entry);
        if (same == -ENOENT && line->seq < session->row.trimmed)
            return hl_fail(batch->err, EEXIST, "seq %" PRIu64 " existed, and was dropped since",
                           line->seq);
        if (same == -ENOENT)
            return hl_fail(batch->err, EEXIST,
                           "seq %" PRIu64 " is not above the session's last, %" PRIu64
                           ", and there is no record to compare with",
                           line->seq, session->batch_last_seq);
        if (same == 0)
            same = read_frame(batch->store, session->row.number, &entry, &buffer, &frame);
        if (same == 0)
            same = same_line(session, line, line->seq, frame.body, frame.length);
        free(buffer);
    }
    if (same == -EBADMSG)
        return hl_fail(batch->err, EEXIST, "seq %" PRIu64 " exists, and its record is damaged",
                       line->seq);
    if (same < 0)
        return hl_fail(batch->err, -same, "cannot read record %" PRIu64 ": %s", line->seq,
                       strerror(-same));
    if (same == 0)
        return hl_fail(batch->err, EEXIST, "seq %" PRIu64 " exists with other content", line->seq);
    return 0;
}

/* What an operation is stamped with beyond other lines. */
static int link_operation(const struct batch *batch, struct mem_session *session,
                          const struct line *line, struct line_stamp *stamp)
{
    struct operation operation;
    int error = operation_parse(line->text.at, line->text.len, &operation, batch->err);
    if (error < 0)
        return error;
    error = fold_links(batch->store, session, &operation, &stamp->prev_seq, &stamp->prev_op);
    if (error < 0)
        hl_fail(batch->err, -error, "cannot look the document up: %s", strerror(-error));
    return error;
}

/* What the line of an event adds to the sums. */
static int count_event(struct batch *batch, struct mem_session *session, const struct line *line,
                       uint64_t seq)
{
    struct sums_event event;
    struct line_usage usage = line->usage;
    usage.ts_ms = line->given & 1U << LINE_TS_MS ? line->ts_ms : batch->recorded_ms;
    sums_event_from(&usage, &event);
    int error = sums_stage(batch->store, session, SUMS_FOR_SESSION, seq, &event);
    return error < 0 ? hl_fail(batch->err, -error, "cannot count the event: %s", strerror(-error))
                     : 0;
}

int batch_add_line(struct batch *batch, const struct line *line)
{
    struct mem_session *session;
    int error = resolve(batch, line, &session);
    if (error < 0)
        return error;
    uint64_t seq = line->seq;
    bool retry = false;
    if (line->given & 1U << LINE_SEQ) {
        retry = session->batch_has_seq && seq <= session->batch_last_seq;
        if (retry)
            error = check_retry(batch, session, line);
    } else if (session->batch_has_seq && session->batch_last_seq >= HL_SEQ_MAX) {
        error = hl_fail(batch->err, EINVAL, "no seq is left in this session");
    } else {
        seq = session->batch_has_seq ? session->batch_last_seq + 1 : 1;
    }
    if (error < 0)
        return error;
    if (session->receipt_records++ == 0)
        session->receipt_first = seq;
    session->receipt_last = seq;
    if (retry)
        return 0;

    char *body;
    struct line_stamp stamp = {
        .id_json = session->id_json,
        .id_json_len = session->id_json_len,
        .seq = seq,
        .ts_ms = batch->recorded_ms,
    };
    bool operation = line->kind == LINE_OPERATION;
    if (operation)
        error = link_operation(batch, session, line, &stamp);
    if (error == 0)
        error = batch_frame_begin(batch, line_stamp_bound(line, session->id_json_len), &body);
    if (error < 0)
        return error;
    size_t length = line_stamp(line, &stamp, body);
    uint16_t type = operation ? FRAME_OPERATION : FRAME_EVENT;
    uint64_t offset = batch_frame_end(batch, session, type, seq, length);
    if (operation) {
        struct fold_record record = {.seq = seq, .line = body, .length = (uint32_t)length};
        error = fold_operation(batch->store, session, &record, true, batch->err);
    } else {
        error = count_event(batch, session, line, seq);
    }
    if (error < 0)
        return error;
    session->batch_has_seq = true;
    session->batch_last_seq = seq;
    if (session->new_records++ == 0)
        session->new_first = seq;
    session->new_last = seq;
    struct index_entry entry = {
        .seq = seq,
        .position = position_make(batch->store->active->first, offset),
        .length = (uint32_t)length,
        .operation = operation,
    };
    if (placed_add(&batch->placed, session, &entry) < 0)
        return hl_fail(batch->err, ENOMEM, "out of memory");
    return 0;
}
