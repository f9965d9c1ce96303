/*
 * batch_ahead.c - the frames of a large write, made before append_lock is taken; see batch.h.
 *
 * To stamp thousands of lines takes milliseconds, in which no other writer could append. So it is
 * done with the seqs that the lines will have if nobody else appends to the session meanwhile, and
 * with the time of now. With the lock held it is seen whether that came true; then only the
 * checksums, which cover the place in the file, and the moment of the append are still to be set.
 * If not, all is made again, as for any other batch.
 *
 * This is for lines that say nothing of what the store decides under the lock: events of one
 * session without a seq of their own.
 */
#include <errno.h>
#include <string.h>

#include "batch.h"

#define AHEAD_FROM ((size_t)2 << 10)   /* bytes of a write for which it is worth it */
#define AHEAD_FRAMES ((size_t)2 << 20) /* bytes of frames at most: what batch memory keeps */

void batch_ahead_begin(struct batch *batch, struct ahead *ahead)
{
    const struct hl_append *request = batch->request;
    if (request->session == 0 || request->expectation_count > 0 || request->len < AHEAD_FROM ||
        hl_session_by_number(batch->store, request->session, &ahead->session) < 0)
        return;
    const struct hl_session *session = &ahead->session;
    ahead->first_seq = session->has_seq ? session->last_seq + 1 : 1;
    ahead->ts_ms = store_now_ms(batch->store);
    ahead->id_json_len = json_escape(session->id, session->id_len, ahead->id_json);
    ahead->front.lacks = 0;
    ahead->grouped = true;
    ahead->groups.count = 0;
    batch->ahead = ahead;
}

void batch_ahead_drop(struct batch *batch)
{
    batch->ahead = NULL;
    batch->used = 0;
    batch->placed.count = 0;
}

static bool is_own_session(const struct ahead *ahead, const struct line *line)
{
    char id[HL_ID_MAX];
    if (!(line->given & 1U << LINE_SESSION_ID))
        return true;
    size_t len = json_unescape(line->session_id.at, line->session_id.len, id, sizeof id);
    return len == ahead->session.id_len && memcmp(id, ahead->session.id, len) == 0;
}

static bool add(struct batch *batch, const struct line *line)
{
    struct ahead *ahead = batch->ahead;
    uint64_t seq = ahead->first_seq + batch->placed.count;
    size_t bound = line_stamp_bound(line, ahead->id_json_len);
    size_t room = bound < AHEAD_FRAMES ? (size_t)frame_size((uint32_t)bound) : SIZE_MAX;
    if (line->kind == LINE_OPERATION || line->given & 1U << LINE_SEQ || seq > HL_SEQ_MAX ||
        !is_own_session(ahead, line) || room > AHEAD_FRAMES - batch->used ||
        batch_frame_room(batch, room) < 0)
        return false;
    struct line_stamp stamp = {
        .id_json = ahead->id_json,
        .id_json_len = ahead->id_json_len,
        .seq = seq,
        .ts_ms = ahead->ts_ms,
        .front = &ahead->front,
    };
    uint8_t *at = batch->memory->buffer + batch->used;
    size_t length = line_stamp(line, &stamp, (char *)at + FRAME_HEADER_SIZE);
    struct frame frame = {
        .length = (uint32_t)length,
        .seq = seq,
        .session = ahead->session.number,
        .type = FRAME_EVENT,
    };
    struct index_entry entry = {.seq = seq, .position = batch->used, .length = (uint32_t)length};
    if (placed_add_apart(&batch->placed, &entry) < 0)
        return false;
    batch->used += (size_t)frame_fill(at, &frame);
    if (ahead->grouped) {
        struct line_usage usage = line->usage;
        usage.ts_ms = line->given & 1U << LINE_TS_MS ? line->ts_ms : ahead->ts_ms;
        ahead->grouped = sums_groups_add(&ahead->groups, &usage);
    }
    return true;
}

void batch_ahead_line(struct batch *batch, const struct line *line)
{
    if (!add(batch, line))
        batch_ahead_drop(batch);
}

/* Whether what was assumed came true. ts_ms does not go back within a session. */
static bool came_true(const struct batch *batch, const struct mem_session *session)
{
    const struct ahead *ahead = batch->ahead;
    uint64_t seq = session->batch_has_seq ? session->batch_last_seq + 1 : 1;
    return seq == ahead->first_seq && ahead->ts_ms <= batch->recorded_ms &&
           (session->row.records == 0 || ahead->ts_ms >= session->row.changed_ms);
}

/* Stages the sums, of each line by itself if need be. */
static int count(struct batch *batch, struct mem_session *session)
{
    const struct ahead *ahead = batch->ahead;
    if (ahead->grouped)
        return sums_stage_groups(batch->store, session, &ahead->groups);
    int error = 0;
    for (size_t i = 0; i < batch->placed.count && error == 0; i++) {
        const struct line *line = &batch->memory->lines[i];
        struct line_usage usage = line->usage;
        struct sums_event event;
        usage.ts_ms = line->given & 1U << LINE_TS_MS ? line->ts_ms : ahead->ts_ms;
        sums_event_from(&usage, &event);
        error = sums_stage(batch->store, session, SUMS_FOR_SESSION, batch->placed.at[i].entry.seq,
                           &event);
    }
    return error;
}

/* Completes the frames of this part, `before` records behind the batch's first, and puts them into
 * the file. */
static int place_part(struct batch *batch, struct mem_session *session, size_t before,
                      size_t records)
{
    const struct segment *active = batch->store->active;
    for (size_t i = 0; i < batch->placed.count; i++) {
        struct placed *placed = &batch->placed.at[i];
        uint64_t offset = batch->base + placed->entry.position;
        unsigned flags = (before + i == 0 ? FRAME_FIRST_OF_BATCH : 0) |
                         (before + i + 1 == records ? FRAME_LAST_OF_BATCH : 0);
        frame_place(batch->memory->buffer + placed->entry.position, (uint16_t)flags,
                    batch->recorded_ms, active->salt, offset);
        placed->session = session;
        placed->entry.position = position_make(active->first, offset);
    }
    return batch_finish(batch);
}

/* The same for what is behind it, which is of one batch with it then. */
static int place_rest(struct batch *batch, struct mem_session *session, size_t records)
{
    struct batch *rest = batch->rest;
    rest->base = batch->base;
    rest->recorded_ms = batch->recorded_ms;
    int error = place_part(rest, session, batch->placed.count, records);
    batch->base = rest->base;
    if (error == 0 && placed_add_list(&batch->placed, &rest->placed) < 0)
        error = hl_fail(batch->err, ENOMEM, "out of memory");
    return error;
}

int batch_ahead_place(struct batch *batch, bool *done)
{
    struct mem_session *session = batch->memory->touched[0];
    size_t records = batch->placed.count + (batch->rest ? batch->rest->placed.count : 0);
    *done = false;
    if (!came_true(batch, session) ||
        batch_frame_fits(batch, batch->rest ? batch->rest->used : 0) < 0)
        return 0;
    *done = true;
    int error = count(batch, session);
    if (error == 0 && batch->rest)
        error = count(batch->rest, session);
    if (error < 0)
        return hl_fail(batch->err, -error, "cannot count the events: %s", strerror(-error));
    error = place_part(batch, session, 0, records);
    if (error == 0 && batch->rest)
        error = place_rest(batch, session, records);
    if (error < 0)
        return error;
    uint64_t first = batch->ahead->first_seq, last = first + records - 1;
    session->batch_has_seq = true;
    session->batch_last_seq = last;
    session->receipt_first = session->new_first = first;
    session->receipt_last = session->new_last = last;
    session->receipt_records = session->new_records = records;
    return 0;
}
