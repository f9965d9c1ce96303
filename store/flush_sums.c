/*
 * flush_sums.c - what events come to, and their tool_call_ids, from the memtable into the index.
 *
 * An id in the index says which event of it counted, so it may well be there before the sums are:
 * those of sessions that have many go first, in transactions of their own.
 */
#include <errno.h>
#include <stdlib.h>

#include "core.h"
#include "mem_calls.h"

/* All calls of a session, the caller's to free. */
static int copy_calls(const struct mem_calls *calls, struct index_call **copy)
{
    *copy = malloc(calls->count * sizeof **copy);
    if (!*copy)
        return -ENOMEM;
    for (uint32_t i = 0; i < calls->count; i++)
        (*copy)[i] = calls->at[i].call;
    return 0;
}

static bool has_many_calls(const struct mem_session *session)
{
    return session->calls && session->calls->count > FLUSH_CALLS / 4;
}

int flush_put_sums(struct index_txn *txn, const struct mem_session *session, uint64_t position,
                   uint64_t *entries)
{
    struct index_call *calls;
    int error = 0;
    if (session->calls && session->calls->count > 0 && !has_many_calls(session)) {
        error = copy_calls(session->calls, &calls);
        if (error < 0)
            return error;
        index_sort_calls(calls, session->calls->count);
        error = index_put_calls(txn, session->row.number, calls, session->calls->count);
        free(calls);
        *entries += session->calls->count * CALL_ENTRIES;
    }
    if (error < 0 || !session->sums || session->sums->total.events == 0)
        return error;
    struct sums sums = *session->sums; /* only looked at */
    if (sums.position < position)
        sums.position = position;
    return index_put_sums(txn, session->row.number, &sums);
}

int flush_put_calls(struct hl_store *store, struct index *index)
{
    const struct memtable *frozen = store->frozen;
    const struct index_meta *target = &store->target.meta;
    int error = 0;
    for (size_t i = 0; i < frozen->session_count && error == 0; i++) {
        const struct mem_session *session = frozen->sessions[i];
        struct index_call *calls;
        if (session->deleted || !has_many_calls(session))
            continue;
        size_t count = session->calls->count, done = 0;
        error = copy_calls(session->calls, &calls);
        if (error < 0)
            return error;
        index_sort_calls(calls, count);
        while (error == 0 && done < count) {
            size_t some = count - done < FLUSH_CALLS ? count - done : FLUSH_CALLS;
            struct index_txn *txn;
            error = index_begin(index, &txn);
            if (error < 0)
                break;
            (void)index_put_calls(txn, session->row.number, calls + done, some);
            (void)index_put_applying(txn, target->watermark, target->next_session);
            error = index_commit(txn);
            if (error == 0)
                done += some;
            else if (error == -EAGAIN)
                error = index_grow(index);
        }
        free(calls);
    }
    return error;
}
