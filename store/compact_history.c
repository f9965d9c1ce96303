/*
 * compact_history.c - how far the history of sessions reaches, moved on before operations go.
 *
 * A session's history_from is logged and synced before anything below it is rewritten, so that no
 * undo is taken that would need what is gone, whatever becomes of the index.
 */
#include <errno.h>
#include <stdlib.h>

#include "compact.h"
#include "compact_needed.h"

int compact_bound(struct hl_store *store, const struct hl_session *session, bool time_is_sound,
                  uint64_t *bound)
{
    uint64_t now = store_now_ms(store), history = store->options.history_ms, seq = 0;
    int error = 0;
    *bound = session->history_from;
    if (session->operations == 0 || !time_is_sound || !session->has_seq)
        return 0;
    error = moment_seq(store, session, now > history ? now - history : 0, &seq);
    if (error == 0 && seq > session->last_seq)
        seq = session->last_seq; /* as it is now can always be told */
    if (error == 0 && seq > *bound)
        *bound = seq;
    return error;
}

int compact_needed_of(struct hl_store *store, uint32_t session, uint64_t bound, uint32_t backup,
                      struct compact_needed *needed)
{
    struct index_view *view;
    int error = lookup_view(store, &view);
    if (error == 0) {
        error = compact_needed_find(needed, view, session, bound, backup);
        error = lookup_view_end(store, view, error);
    }
    return error;
}

/* Whether the run has an operation of the session that may go. */
static bool any_may_go(const struct compact_run *run, const struct compact_session *session,
                       const struct compact_needed *needed)
{
    const struct compact_frame *frames = run->table.frames;
    for (uint32_t at = session->first; at; at = frames[at - 1].next) {
        const struct compact_frame *frame = &frames[at - 1];
        if (frame->type == FRAME_OPERATION &&
            !compact_needed_has(needed, frame->seq, run->sources[frame->source]->first))
            return true;
    }
    return false;
}

static int move_on(struct compact_run *run, const struct compact_session *session, bool *moved)
{
    struct hl_store *store = run->store;
    struct hl_session about;
    struct compact_needed needed;
    uint64_t bound;
    int error = hl_session_by_number(store, session->number, &about);
    if (error < 0)
        return error == -ENOENT ? 0 : error;
    error = compact_bound(store, &about, run->time_is_sound, &bound);
    if (error < 0 || bound == about.history_from)
        return error;
    error = compact_needed_of(store, session->number, bound, run->backup, &needed);
    if (error < 0)
        return error == -ENOENT ? 0 : error;
    bool any = any_may_go(run, session, &needed);
    compact_needed_free(&needed);
    if (!any)
        return 0;
    error = session_set_history(store, session->number, bound);
    *moved = *moved || error == 0;
    return error == -ENOENT ? 0 : error;
}

int compact_move_history(struct compact_run *run)
{
    struct hl_store *store = run->store;
    bool moved = false;
    int error = 0;
    for (uint32_t i = 0; i < run->table.buckets && error == 0; i++) {
        const struct compact_session *session = &run->table.sessions[i];
        if (session->number && session->operations > 0)
            error = move_on(run, session, &moved);
    }
    if (error < 0 || !moved)
        return error;
    error = hl_sync(store);
    if (error < 0)
        return error;
    pthread_mutex_lock(&store->flush_lock); /* what needs what is read from the index */
    error = flush_all(store);
    pthread_mutex_unlock(&store->flush_lock);
    return error;
}
