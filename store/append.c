/*
 * append.c - hl_append(): the lines of one write become one batch of frames.
 *
 * First every line is checked (batch_lines.c), with no lock held; frames of large writes are made
 * then (batch_ahead.c). Then, with append_lock held, each line gets its seq and is stamped and
 * framed into a buffer, which goes to the file whenever it is full; the flag that ends the batch is
 * in the last frame, so what was written before it counts for nothing until that is there. Only
 * when all is written do the entries go into the memtable, all at once, and readers see them.
 * Whatever fails before that is undone by cutting the file back.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "fold.h"
#include "sums_batch.h"

/* Notes which session a line of a root append names, for those who look there for the reason. */
static void note_session(struct hl_store *store, const char *text, size_t len, struct hl_error *err)
{
    struct json_span span;
    struct hl_session session;
    char id[HL_ID_MAX];

    if (!line_session_id(text, len, &span))
        return;
    size_t id_len = json_unescape(span.at, span.len, id, sizeof id);
    if (id_len != SIZE_MAX && hl_session_by_id(store, id, id_len, &session) == 0)
        err->session = session.number;
}

static int make_receipts(struct batch *batch)
{
    struct batch_memory *memory = batch->memory;
    if (batch->touched_count > memory->told_capacity) {
        struct told *more = realloc(memory->told, batch->touched_count * sizeof *more);
        if (!more)
            return hl_fail(batch->err, ENOMEM, "out of memory");
        memory->told = more;
        memory->told_capacity = batch->touched_count;
    }
    for (size_t i = 0; i < batch->touched_count; i++) {
        const struct mem_session *session = memory->touched[i];
        struct told *told = &memory->told[batch->told_count++];
        told->documents = NULL;
        size_t documents = 0;
        uint64_t skipped = 0;
        if ((batch->store->options.news || batch->request->receipt) &&
            fold_news(session, HL_NEWS_DOCUMENTS, &told->documents, &documents, &skipped) < 0)
            return hl_fail(batch->err, ENOMEM, "out of memory");
        memcpy(told->id, session->row.id, session->row.id_len);
        told->receipt = (struct hl_receipt){
            .session = session->row.number,
            .created = session->batch_created,
            .id = told->id,
            .id_len = session->row.id_len,
            .first = session->receipt_first,
            .last = session->receipt_last,
            .records = session->receipt_records,
            .documents = told->documents,
            .document_count = documents,
            .documents_skipped = skipped,
        };
        told->news = (struct hl_news){
            .session = session->row.number,
            .created = session->batch_created,
            .records = session->new_records,
            .first = session->new_first,
            .last = session->new_last,
            .by_file = batch->request->by_file,
            .documents = told->documents,
            .document_count = documents,
            .documents_skipped = skipped,
        };
    }
    return 0;
}

/* Puts the batch before readers, all or nothing. */
static int publish(struct batch *batch)
{
    struct hl_store *store = batch->store;
    struct segment *active = store->active;
    uint64_t line_bytes = 0, next_point = store->next_point;
    size_t points = store->table->point_count;
    int error = 0;
    pthread_rwlock_wrlock(&store->mem_lock);
    for (size_t i = 0; i < batch->placed.count && error == 0; i++) {
        const struct placed *placed = &batch->placed.at[i];
        error = memtable_append(store->table, placed->session, &placed->entry, batch->recorded_ms);
        uint64_t offset = position_offset(placed->entry.position);
        if (error == 0 && offset >= store->next_point) {
            struct mem_point point = {active->first, active->line_bytes + line_bytes, offset};
            if (memtable_add_point(store->table, &point) == 0) /* else reads search longer */
                store->next_point = offset + POINT_SPACING;
        }
        line_bytes += placed->entry.length;
    }
    for (size_t i = 0; i < batch->touched_count; i++) {
        struct mem_session *session = batch->memory->touched[i];
        if (error < 0) {
            memtable_take_back(store->table, session, &session->batch_before);
        } else {
            session->hidden = false;
            fold_settle(session);
        }
    }
    if (error == 0) {
        sums_publish(store);
        store->sessions += batch->created;
        store->records += batch->placed.count;
        store->bytes += line_bytes;
        atomic_fetch_add(&active->records, batch->placed.count);
        atomic_fetch_add(&active->line_bytes, line_bytes);
        atomic_store(&active->size, batch->base); /* with line_bytes: root log reads both at once */
    }
    if (error < 0) {
        store->table->point_count = points;
        store->next_point = next_point;
    }
    pthread_rwlock_unlock(&store->mem_lock);
    return error < 0 ? hl_fail(batch->err, -error, "out of memory") : 0;
}

static void undo(struct batch *batch)
{
    struct hl_store *store = batch->store;
    if (batch->base > store->tail || batch->used > 0)
        log_cut_back(store);
    pthread_rwlock_wrlock(&store->mem_lock);
    sums_take_back(store);
    for (size_t i = 0; i < batch->touched_count; i++)
        fold_take_back(store, batch->memory->touched[i]);
    /* Looking sessions up may have added rows after these: they are the newest hidden ones. */
    for (size_t i = store->table->session_count; i > 0 && batch->created > 0; i--) {
        if (!store->table->sessions[i - 1]->hidden)
            continue;
        memtable_drop(store->table, i - 1);
        batch->created--;
        store->next_session--;
    }
    pthread_rwlock_unlock(&store->mem_lock);
}

static int run_batch(struct batch *batch)
{
    struct hl_store *store = batch->store;
    int error = log_prepare(store, batch->err);
    if (error < 0)
        return error;
    batch->base = store->tail;
    batch->recorded_ms = log_clock(store);
    store->batch++;
    sums_begin(store);
    if (batch->request->session != 0) {
        struct mem_session *session;
        error = lookup_for_append(store, batch->request->session, NULL, 0, &session);
        if (error == -ENOENT)
            return hl_fail(batch->err, ENOENT, "the session was deleted");
        if (error < 0)
            return hl_fail(batch->err, -error, "cannot look the session up: %s", strerror(-error));
        error = batch_touch(batch, session);
    }
    const struct hl_append *request = batch->request;
    for (size_t i = 0; error == 0 && i < request->expectation_count; i++)
        error = fold_expect(store, request->session, &request->expectations[i], batch->err);
    bool placed = false;
    if (error == 0 && batch->ahead)
        error = batch_ahead_place(batch, &placed);
    if (error == 0 && !placed) {
        batch_ahead_drop(batch);
        error = batch_add_lines(batch);
    }
    if (error == 0)
        error = make_receipts(batch);
    if (error == 0)
        error = publish(batch);
    if (error < 0) {
        undo(batch);
        return error;
    }
    if (batch->base > store->tail)
        log_advance(store, batch->base);
    atomic_fetch_add(&store->appends, 1);
    if (store->tail >= store->options.segment_size)
        (void)log_rotate(store, false, NULL); /* else the next append tries, and tells */
    if (store->table->bytes >= FLUSH_TABLE_BYTES)
        flush_wake(store);
    return 0;
}

/* With news_lock held, which was taken before append_lock was let go: so they come in order. */
static void give_news(const struct batch *batch)
{
    const struct hl_options *options = &batch->store->options;
    for (size_t i = 0; options->news && i < batch->told_count; i++) {
        const struct hl_news *news = &batch->memory->told[i].news;
        if (news->created || news->records)
            options->news(options->news_context, news);
    }
}

int hl_append(struct hl_store *store, const struct hl_append *request, struct hl_error *err)
{
    struct batch batch;
    struct batch_rest rest;
    struct ahead ahead;
    if (err)
        *err = (struct hl_error){0};
    int error = store_writable(store, err);
    if (error < 0)
        return error;
    struct batch_memory *memory = batch_memory_take(store, batch_size(request->len));
    if (!memory)
        return hl_fail(err, ENOMEM, "out of memory");
    batch_begin(&batch, store, request, memory, err);
    batch_ahead_begin(&batch, &ahead);
    error = batch_check_lines(&batch, &rest);
    if (error == 0 && (batch.lines > 0 || (batch.rest && batch.rest->lines > 0))) {
        pthread_mutex_lock(&store->append_lock);
        error = run_batch(&batch);
        if (error == 0)
            pthread_mutex_lock(&store->news_lock);
        pthread_mutex_unlock(&store->append_lock);
        if (error == 0) {
            give_news(&batch);
            pthread_mutex_unlock(&store->news_lock);
        }
    }
    if (error < 0 && err && request->session == 0 && batch.blamed.text)
        note_session(store, batch.blamed.text, batch.blamed.len, err);
    for (size_t i = 0; i < batch.told_count; i++) {
        if (error == 0 && request->receipt)
            request->receipt(request->receipt_context, &batch.memory->told[i].receipt);
        free(batch.memory->told[i].documents);
    }
    if (batch.rest)
        batch_end(batch.rest);
    batch_end(&batch);
    return error;
}

bool hl_line_is_object(const char *text, size_t len)
{
    return line_is_object(text, len);
}

bool hl_line_check(struct hl_store *store, uint32_t session, struct hl_line_progress *progress,
                   const char *text, size_t len, struct hl_error *err)
{
    struct json_progress json;
    _Static_assert(sizeof json <= sizeof progress->opaque, "it is kept there");
    memcpy(&json, progress->opaque, sizeof json);
    int error = session == 0 && len > 0 && text[0] != '{' ? batch_root_takes_json(err) : 0;
    if (error == 0)
        error = line_piece_check(&json, text, len, store->options.max_record, err);
    if (error == 0)
        memcpy(progress->opaque, &json, sizeof json);
    else if (session == 0 && err)
        note_session(store, text, len, err);
    return error == 0;
}
