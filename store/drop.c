/*
 * drop.c - trimming and deleting: a frame in the log first, then the memtable, then the index.
 *
 * The frame counts from the moment it is in the log. flush_lock is held until the index has the
 * drop, so that the watermark stays below the frame as long: whatever happens in between, opening
 * the store replays the frame. The log is synced before the index says anything of it (flush.c).
 */
#include "drop.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "retain.h"
#include "session.h"

void drop_apply(struct hl_store *store, struct mem_session *session, const struct drop *drop,
                struct hl_dropped *dropped)
{
    if (session->deleted)
        return;
    if (drop->kind == DROP_TRIM) {
        memtable_trim(store->table, session, drop->below, &dropped->records, &dropped->bytes);
        return;
    }
    dropped->records += session->row.records;
    dropped->bytes += session->row.bytes;
    if (!session->hidden)
        store->sessions--;
    if (session->sums)
        sums_subtract(&store->sums, session->sums);
    memtable_delete(store->table, session);
}

/* ---- the log ---- */

/* The frames of one batch as they are put together. */
struct writing {
    struct hl_store *store;
    uint8_t *bytes;
    size_t used;
    uint64_t recorded_ms;
};

static void add_frame(struct writing *writing, uint16_t type, uint32_t session, uint64_t seq,
                      uint16_t flags, const char *body, size_t len)
{
    const struct hl_store *store = writing->store;
    struct frame frame = {
        .length = (uint32_t)len,
        .seq = seq,
        .recorded_ms = writing->recorded_ms,
        .session = session,
        .type = type,
        .flags = flags,
    };
    uint8_t *at = writing->bytes + writing->used;
    memcpy(at + FRAME_HEADER_SIZE, body, len);
    writing->used += frame_finish(at, store->active->salt, store->tail + writing->used, &frame);
}

/* One batch: of a trim the session's row too. append_lock is held. */
static int write_drop(struct hl_store *store, const struct index_row *row, const struct drop *drop,
                      struct hl_error *err)
{
    char body[DROP_BODY_MAX], *text = NULL;
    size_t len = drop_encode(drop, body), text_len = 0;
    bool trim = drop->kind == DROP_TRIM;
    int error = trim ? session_encode(row, &text, &text_len) : 0;
    if (error < 0)
        return hl_fail(err, -error, "cannot describe the session: %s", strerror(-error));
    struct writing writing = {.store = store, .recorded_ms = log_clock(store)};
    writing.bytes = malloc(frame_size((uint32_t)text_len) + frame_size((uint32_t)len));
    if (!writing.bytes) {
        free(text);
        return hl_fail(err, ENOMEM, "out of memory");
    }
    if (trim)
        add_frame(&writing, FRAME_SESSION, row->number, row->has_seq ? row->last_seq : 0,
                  FRAME_FIRST_OF_BATCH, text, text_len);
    add_frame(&writing, FRAME_DROP, row->number, drop->below,
              trim ? FRAME_LAST_OF_BATCH : FRAME_FIRST_OF_BATCH | FRAME_LAST_OF_BATCH, body, len);
    free(text);
    error = hl_io_write(store->io, store->active->fd, writing.bytes, writing.used, store->tail);
    free(writing.bytes);
    if (error < 0) {
        log_cut_back(store);
        return hl_fail(err, -error, "cannot write to segment %s: %s", store->active->name,
                       strerror(-error));
    }
    log_advance(store, store->tail + writing.used);
    return 0;
}

/* ---- the commands ---- */

enum wanted { WANT_TRIM, WANT_DELETE, WANT_REMOVE_EMPTY };

/* What is to be dropped of a session as it is now; *nothing: it is not there any more. */
static int decide(const struct index_row *row, enum wanted wanted, uint64_t below,
                  struct drop *drop, bool *nothing, struct hl_error *err)
{
    if (wanted == WANT_REMOVE_EMPTY && (row->records > 0 || row->documents.documents > 0))
        return hl_fail(err, ENOTEMPTY, "the session has records");
    *drop = (struct drop){.kind = wanted == WANT_TRIM ? DROP_TRIM : DROP_DELETE};
    *nothing = false;
    if (wanted != WANT_TRIM)
        return 0;
    if (row->has_seq && below > row->last_seq + 1)
        below = row->last_seq + 1;
    drop->below = below;
    drop->gone = row->gone;
    *nothing = !row->has_seq || below <= row->trimmed ||
               row->records == row->documents.operations || below <= row->first_seq;
    return 0;
}

static void give_news(struct hl_store *store, struct hl_news *news,
                      const struct hl_dropped *dropped)
{
    const struct hl_options *options = &store->options;
    news->dropped_records = dropped->records;
    news->dropped_bytes = dropped->bytes;
    if (options->news && (news->deleted || news->dropped_records > 0))
        options->news(options->news_context, news);
}

/* Logs the drop and lets the tables know of it. append_lock is held, and drop_lock alone, until
 * news was given. */
static int log_drop(struct hl_store *store, uint32_t number, enum wanted wanted, uint64_t below,
                    struct hl_news *news, bool *nothing, struct hl_dropped *dropped,
                    struct hl_error *err)
{
    struct mem_session *session;
    struct drop drop = {0};
    int error = lookup_for_append(store, number, NULL, 0, &session);
    if (error == -ENOENT)
        return hl_fail(err, ENOENT, "there is no such session");
    if (error < 0)
        return hl_fail(err, -error, "cannot look the session up: %s", strerror(-error));
    error = decide(&session->row, wanted, below, &drop, nothing, err);
    if (error < 0 || *nothing)
        return error;
    error = write_drop(store, &session->row, &drop, err);
    if (error < 0)
        return error;
    *news = (struct hl_news){
        .session = number,
        .deleted = drop.kind == DROP_DELETE,
        .dropped_first = session->row.first_seq,
        .dropped_last = drop.kind == DROP_TRIM ? drop.below - 1 : session->row.last_seq,
    };
    pthread_rwlock_wrlock(&store->mem_lock);
    drop_apply(store, session, &drop, dropped);
    pthread_rwlock_unlock(&store->mem_lock);
    atomic_fetch_add(&store->drops, 1);
    return 0;
}

static int not_up_to_date(struct hl_error *err, int error)
{
    return error < 0 ? hl_fail(err, -error, "the index cannot be brought up to date: %s",
                               strerror(-error))
                     : 0;
}

/* Takes drop_lock alone, and append_lock, with a table that has room and nothing frozen. */
static int prepare(struct hl_store *store, struct hl_error *err)
{
    int error = not_up_to_date(err, flush_older(store));
    if (error < 0)
        return error;
    for (;;) {
        pthread_rwlock_wrlock(&store->drop_lock);
        pthread_mutex_lock(&store->append_lock);
        /* log_prepare() would wait for a flush, which waits for us. */
        if (!store->index || store->table->bytes < FLUSH_TABLE_BYTES)
            break;
        pthread_mutex_unlock(&store->append_lock);
        pthread_rwlock_unlock(&store->drop_lock);
        error = not_up_to_date(err, flush_all(store));
        if (error < 0)
            return error;
    }
    if (!store->index && store->table->bytes >= 2 * FLUSH_TABLE_BYTES) /* nobody makes room */
        error = hl_fail(err, ENOSPC, "there is no room for the index, and none in memory");
    else
        error = log_prepare(store, err);
    if (error < 0) {
        pthread_mutex_unlock(&store->append_lock);
        pthread_rwlock_unlock(&store->drop_lock);
    }
    return error;
}

/* Brings what is logged into the index, or at least on the disk. frozen: flush_freeze()'s result.
 */
static int carry_out(struct hl_store *store, int frozen, struct hl_error *err)
{
    int error = frozen;
    if (error == 0)
        error = store->frozen ? flush_older(store) : hl_sync(store);
    return error < 0 ? hl_fail(err, -error,
                               "the drop is logged, but not carried out in the index yet: %s",
                               strerror(-error))
                     : 0;
}

/* flush_lock is held. */
static int drop_locked(struct hl_store *store, uint32_t session, enum wanted wanted, uint64_t below,
                       struct hl_dropped *dropped, struct hl_error *err)
{
    struct hl_news news;
    bool nothing = true;
    int frozen = 0;
    int error = prepare(store, err);
    if (error < 0)
        return error;
    error = log_drop(store, session, wanted, below, &news, &nothing, dropped, err);
    if (error == 0 && !nothing) {
        if (store->index)
            frozen = flush_freeze(store);
        pthread_mutex_lock(&store->news_lock);
    }
    pthread_mutex_unlock(&store->append_lock);
    if (error == 0 && !nothing) {
        give_news(store, &news, dropped);
        pthread_mutex_unlock(&store->news_lock);
    }
    pthread_rwlock_unlock(&store->drop_lock);
    if (error < 0 || nothing)
        return error;
    store->flush_dropped = (struct hl_dropped){0};
    error = carry_out(store, frozen, err);
    dropped->records += store->flush_dropped.records;
    dropped->bytes += store->flush_dropped.bytes;
    return error;
}

static int run(struct hl_store *store, uint32_t session, enum wanted wanted, uint64_t below,
               struct hl_dropped *dropped, struct hl_error *err)
{
    struct hl_dropped all = {0};
    if (err)
        *err = (struct hl_error){0};
    int error = store_writable(store, err);
    if (error == 0) {
        pthread_mutex_lock(&store->flush_lock);
        error = drop_locked(store, session, wanted, below, &all, err);
        pthread_mutex_unlock(&store->flush_lock);
    }
    if (dropped)
        *dropped = all;
    return error;
}

int hl_trim(struct hl_store *store, uint32_t session, uint64_t below, struct hl_dropped *dropped,
            struct hl_error *err)
{
    return run(store, session, WANT_TRIM, below, dropped, err);
}

/* Its rule is not that of another session which gets the id. A drop that failed may have come so
 * far that the session is gone. */
static int remove_session(struct hl_store *store, uint32_t session, enum wanted wanted,
                          struct hl_dropped *dropped, struct hl_error *err)
{
    struct hl_session about, left;
    bool known = hl_session_by_number(store, session, &about) == 0;
    int error = run(store, session, wanted, 0, dropped, err);
    bool gone = known && hl_session_by_number(store, session, &left) == -ENOENT;
    if (gone && retain_forget(store, about.id, about.id_len) < 0)
        store_report(store, HL_WARNING,
                     "the retain rule of a deleted session cannot be taken out of DIR/retain now");
    return error;
}

int hl_delete(struct hl_store *store, uint32_t session, struct hl_dropped *dropped,
              struct hl_error *err)
{
    return remove_session(store, session, WANT_DELETE, dropped, err);
}

int hl_remove_empty(struct hl_store *store, uint32_t session, struct hl_error *err)
{
    return remove_session(store, session, WANT_REMOVE_EMPTY, NULL, err);
}
