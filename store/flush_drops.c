/*
 * flush_drops.c - what was dropped leaves the index, before a flush adds anything to it.
 *
 * The frozen table says what is to go: sessions that are deleted, and a seq below which the events
 * of a session go. It takes as many transactions as it takes; the watermark stands before the drop
 * frames until all is done, so a crash in between costs nothing: they are replayed.
 */
#include <errno.h>

#include "core.h"

/* ---- trimming ---- */

/* first: the session's lowest seq before that. */
static void give_news(struct hl_store *store, const struct mem_session *session, uint64_t first,
                      const struct index_edited *edited)
{
    const struct hl_options *options = &store->options;
    struct hl_news news = {.session = session->row.number,
                           .dropped_records = edited->records,
                           .dropped_bytes = edited->bytes,
                           .dropped_first = first,
                           .dropped_last = session->trim_below - 1};
    if (!options->news)
        return;
    pthread_mutex_lock(&store->news_lock);
    options->news(options->news_context, &news);
    pthread_mutex_unlock(&store->news_lock);
}

/* The tables follow what was taken out of the index. */
static void lower_tables(struct hl_store *store, struct mem_session *session,
                         const struct index_edited *edited)
{
    pthread_mutex_lock(&store->append_lock);
    pthread_rwlock_wrlock(&store->mem_lock);
    mem_session_lower(session, edited->records, edited->bytes, edited->left, edited->first_seq);
    struct mem_session *newer = memtable_by_number(store->table, session->row.number);
    if (newer && !newer->deleted)
        mem_session_lower(newer, edited->records, edited->bytes, session->row.records,
                          session->row.first_seq);
    pthread_rwlock_unlock(&store->mem_lock);
    pthread_mutex_unlock(&store->append_lock);
    store->flush_dropped.records += edited->records;
    store->flush_dropped.bytes += edited->bytes;
}

/* One transaction, which says how far the index goes, so that it is not trusted with a log that
 * ends before a drop which it has. */
static int begin(const struct hl_store *store, struct index *index, struct index_txn **txn)
{
    const struct index_meta *target = &store->target.meta;
    int error = index_begin(index, txn);
    if (error == 0)
        error = index_put_applying(*txn, target->watermark, target->next_session);
    return error;
}

/* drop_lock is held alone. Readers of logs wait for it, so a transaction is kept short. */
static int trim_some(struct hl_store *store, struct index *index, struct mem_session *session,
                     bool *more)
{
    struct index_txn *txn;
    struct index_edited edited = {0};
    uint32_t number = session->row.number;
    int error = begin(store, index, &txn);
    if (error < 0)
        return error;
    error = index_trim(txn, number, session->trim_below, &edited);
    if (error < 0) {
        index_abort(txn);
        return error;
    }
    error = index_commit(txn);
    if (error < 0)
        return error;
    if (edited.records > 0) {
        uint64_t first = session->row.first_seq;
        lower_tables(store, session, &edited);
        give_news(store, session, first, &edited);
    }
    *more = edited.more;
    return 0;
}

static int trim_part(struct hl_store *store, struct index *index, struct mem_session *session,
                     bool *more)
{
    pthread_rwlock_wrlock(&store->drop_lock);
    int error = trim_some(store, index, session, more);
    pthread_rwlock_unlock(&store->drop_lock);
    return error;
}

/* ---- deleting ---- */

static int delete_part(struct hl_store *store, struct index *index, uint32_t number, bool *more)
{
    struct index_txn *txn;
    struct index_edited edited = {0};
    int error = begin(store, index, &txn);
    if (error < 0)
        return error;
    error = index_remove_session(txn, number, &edited);
    if (error < 0) {
        index_abort(txn);
        return error;
    }
    error = index_commit(txn);
    if (error == 0)
        *more = edited.more;
    return error;
}

/* ---- the whole ---- */

static int drop_of(struct hl_store *store, struct index *index, struct mem_session *session)
{
    bool more = true;
    int error = 0;
    while (error == 0 && more) {
        error = session->deleted ? delete_part(store, index, session->row.number, &more)
                                 : trim_part(store, index, session, &more);
        if (error == -EAGAIN)
            error = index_grow(index);
    }
    if (error == 0)
        session->trim_below = 0;
    return error;
}

int flush_drops(struct hl_store *store, struct index *index)
{
    const struct memtable *frozen = store->frozen;
    int error = 0;
    for (size_t i = 0; frozen->drops && i < frozen->session_count && error == 0; i++) {
        struct mem_session *session = frozen->sessions[i];
        if (session->deleted || session->trim_below > 0)
            error = drop_of(store, index, session);
    }
    return error;
}
