/*
 * compact_sums.c - what the events that a run drops come to (sums.h), carried on in the new file.
 *
 * The frame that carries them, the session's lead, stands before the batch with the first frame of
 * the session, in the place of the session frames of the run: further ahead another session may
 * still have the id. It tells no seq: those that stand behind it are to count.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "compact.h"
#include "scan.h"
#include "session.h"

#define VIEW_LINES 1024U /* counted in one view of the index: views must not last */

struct gathering {
    struct compact_run *run;
    struct index_view *view; /* NULL: not open */
    uint32_t lines;          /* counted in it */
};

static int open_view(struct gathering *gathering)
{
    struct hl_store *store = gathering->run->store;
    if (gathering->view && gathering->lines >= VIEW_LINES) {
        lookup_view_end(store, gathering->view, 0);
        gathering->view = NULL;
    }
    if (gathering->view)
        return 0;
    gathering->lines = 0;
    int error = lookup_view(store, &gathering->view);
    if (error < 0)
        gathering->view = NULL;
    return error;
}

static int close_view(struct gathering *gathering, int error)
{
    if (gathering->view)
        error = lookup_view_end(gathering->run->store, gathering->view, error);
    gathering->view = NULL;
    return error;
}

/* An event that was trimmed. Others that the index does not have never counted. */
static bool is_dropped(const struct compact_session *session, const struct compact_frame *frame)
{
    return frame->type == FRAME_EVENT && !frame->keep && session->known &&
           frame->seq < session->trimmed;
}

/* Which sessions may have something to carry. */
static int find_carriers(const struct compact_run *run, bool *any)
{
    const struct compact_table *table = &run->table;
    *any = false;
    for (uint32_t i = 0; i < table->count; i++) {
        const struct compact_frame *frame = &table->frames[i];
        struct compact_session *session = compact_table_find(table, frame->session);
        bool rewritten = session->known && !session->unreadable && session->head != session->newest;
        if (session->carried || (!rewritten && !is_dropped(session, frame)))
            continue;
        session->carried = sums_new();
        if (!session->carried)
            return -ENOMEM;
        *any = true;
    }
    return 0;
}

static int add_event(struct gathering *gathering, struct compact_session *session,
                     const struct frame *frame)
{
    int error = open_view(gathering);
    if (error < 0)
        return error;
    gathering->lines++;
    return sums_drop_line(gathering->view, session->number, frame->seq, frame->body, frame->length,
                          session->carried);
}

static int add_frame(struct compact_session *session, const struct frame *frame)
{
    struct index_row row;
    struct sums *sums = NULL;
    int error = session_decode(frame->body, frame->length, &row);
    if (error == 0) {
        if (row.documents.history_from > session->history_from)
            session->history_from = row.documents.history_from;
        session_row_free(&row);
        error = session_decode_sums(frame->body, frame->length, &sums);
    }
    if (error == 0 && sums)
        error = sums_merge(session->carried, sums);
    sums_free(sums);
    return error == -EBADMSG ? 0 : error;
}

static int take_frame(struct gathering *gathering, const struct compact_frame *frame,
                      const struct frame *found)
{
    struct compact_session *session = compact_table_find(&gathering->run->table, frame->session);
    if (!session->carried)
        return 0;
    if (frame->type == FRAME_SESSION && !session->unreadable)
        return add_frame(session, found);
    return is_dropped(session, frame) ? add_event(gathering, session, found) : 0;
}

static int read_source(struct gathering *gathering, uint16_t source, uint32_t *next)
{
    const struct compact_run *run = gathering->run;
    const struct compact_table *table = &run->table;
    const struct segment *segment = run->sources[source];
    struct scan scan;
    struct scan_item item;
    uint64_t size;
    int error = hl_io_size(run->store->io, segment->fd, &size);
    if (error < 0)
        return error;
    scan_init(&scan, run->store->io, segment->fd, segment->salt, SEGMENT_HEADER_REGION, size);
    while (error == 0 && *next < table->count && table->frames[*next].source == source) {
        error = scan_next(&scan, &item);
        if (error < 0 || item.kind == SCAN_END)
            break;
        if (item.kind != SCAN_FRAME || table->frames[*next].offset != item.offset)
            continue;
        error = take_frame(gathering, &table->frames[*next], &item.frame);
        if (*next % 4096 == 0 && run->progress && atomic_load(&run->progress->cancel))
            error = -EINTR;
        ++*next;
    }
    scan_free(&scan);
    if (error == 0 && *next < table->count && table->frames[*next].source == source)
        error = -EIO; /* it is not what it was */
    return error;
}

/* The lead takes the place of the session frames, where they can be read. */
static int settle_carrier(struct gathering *gathering, struct compact_session *session)
{
    if (sums_empty(session->carried)) {
        sums_free(session->carried);
        session->carried = NULL;
        return 0;
    }
    int error = 0;
    if (session->carried->call_count > SUMS_CALLS_KEPT) {
        gathering->lines = VIEW_LINES;
        error = open_view(gathering);
        if (error == 0)
            error = sums_forget_calls(gathering->view, session->number, session->trimmed,
                                      session->carried);
    }
    if (error == 0 && session->head && !session->unreadable) {
        gathering->run->table.frames[session->head - 1].keep = false;
        free(session->body);
        session->body = NULL;
    }
    return error;
}

static int place_leads(struct compact_table *table)
{
    uint32_t count = 0, batch = 0;
    for (uint32_t i = 0; i < table->buckets; i++)
        count += table->sessions[i].carried != NULL;
    if (count == 0)
        return 0;
    table->leads = calloc(count, sizeof *table->leads);
    if (!table->leads)
        return -ENOMEM;
    for (uint32_t i = 0; i < table->count; i++) {
        const struct compact_session *session = compact_table_find(table, table->frames[i].session);
        if (compact_begins_batch(table, i))
            batch = i + 1;
        if (session->carried && session->begin == i + 1)
            table->leads[table->lead_count++] =
                (struct compact_lead){.before = batch, .session = session->number};
    }
    return 0;
}

int compact_gather_sums(struct compact_run *run)
{
    struct gathering gathering = {.run = run};
    uint32_t next = 0;
    bool any;
    int error = find_carriers(run, &any);
    for (uint16_t i = 0; i < run->count && error == 0 && any; i++)
        error = read_source(&gathering, i, &next);
    for (uint32_t i = 0; i < run->table.buckets && error == 0 && any; i++) {
        struct compact_session *session = &run->table.sessions[i];
        if (session->number && session->carried)
            error = settle_carrier(&gathering, session);
    }
    error = close_view(&gathering, error);
    return error == 0 ? place_leads(&run->table) : error;
}

/* ---- what the new segment says ---- */

struct making {
    const struct compact_session *session;
    char **text;
    size_t *len;
};

static int make_lead(void *context, const struct index_row *row)
{
    const struct making *making = context;
    struct index_row copy = *row;
    copy.has_seq = false;
    copy.last_seq = 0;
    copy.documents.history_from = making->session->history_from;
    return session_encode_sums(&copy, making->session->carried, making->text, making->len);
}

int compact_make_lead(struct compact_run *run, const struct compact_session *session, char **text,
                      size_t *len)
{
    struct making making = {.session = session, .text = text, .len = len};
    *text = NULL;
    return lookup_row(run->store, session->number, NULL, 0, make_lead, &making);
}

int compact_carries(struct hl_store *store, const struct segment *segment,
                    const struct compact_table *table)
{
    int carries = 0;
    for (uint32_t i = 0; i < table->count && carries == 0; i++) {
        const struct compact_frame *frame = &table->frames[i];
        if (frame->type != FRAME_SESSION)
            continue;
        char *body = malloc(frame->length ? frame->length : 1);
        if (!body)
            return -ENOMEM;
        struct sums *sums = NULL;
        ssize_t n = hl_io_read(store->io, segment->fd, body, frame->length,
                               (uint64_t)frame->offset + FRAME_HEADER_SIZE);
        carries = n < 0 ? (int)n : n != (ssize_t)frame->length ? -EIO : 0;
        if (carries == 0)
            carries = session_decode_sums(body, frame->length, &sums);
        if (carries == 0 || carries == -EBADMSG)
            carries = sums != NULL;
        sums_free(sums);
        free(body);
    }
    return carries;
}
