/*
 * replay_drop.c - drops in the replayed log; see replay.h and drop.h.
 *
 * A store that can write its index lets the memtable know what the next flush is to take out of it.
 * A read-only one cannot do that. Beside a writer it waits until the writer's index has the drop,
 * and then takes what the index says of the session; without one, it must do without the index.
 */
#include "replay.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* So that frames of a deleted session count for nothing, and the flush removes what is left of it.
 */
static int remember_deleted(struct hl_store *store, uint32_t number)
{
    struct index_row row = {.number = number, .id = ""};
    int error = 0;
    pthread_rwlock_wrlock(&store->mem_lock);
    if (number >= store->next_session)
        store->next_session = number + 1;
    if (!memtable_by_number(store->table, number)) {
        struct mem_session *session = memtable_add_session(store->table, &row);
        if (session)
            memtable_delete(store->table, session);
        else
            error = -ENOMEM;
    }
    pthread_rwlock_unlock(&store->mem_lock);
    /* What its events come to was in the writer's index when we took the sums of all from there. */
    if (store->options.read_only && store->writer_alive && !store->shadow)
        store->segments_old = true;
    return error;
}

/* What the index says of the session; that it does not know it is no error. */
static int look_into_index(struct hl_store *store, struct replay_frame *frame)
{
    struct index_view *view;
    int error = lookup_view(store, &view);
    if (error < 0)
        return error == -ENOENT ? 0 : error;
    error = index_session_by_number(view, frame->session, &frame->more->indexed);
    frame->more->is_indexed = error == 0;
    frame->more->indexed.id = NULL; /* lives no longer than the view */
    frame->more->indexed.attributes = NULL;
    error = lookup_view_end(store, view, error);
    return error == -ENOENT ? 0 : error;
}

/* Whether the index of others can be read as it is. */
static int check_index(struct replay *replay, struct replay_frame *frame)
{
    struct hl_store *store = replay->store;
    int error = look_into_index(store, frame);
    bool trim = frame->more->drop.kind == DROP_TRIM;
    if (error < 0 || !frame->more->is_indexed ||
        (trim && frame->more->indexed.trimmed >= frame->more->drop.below))
        return error;
    if (store->options.read_only && store->writer_alive) {
        replay->blocked = !store->index_old; /* that one never will, and is to be replaced */
        frame->more->is_indexed = false;
        return 0;
    }
    return trim ? -ENOTRECOVERABLE : 0; /* a session is hidden as a whole without it */
}

int replay_drop_prepare(struct replay *replay, struct replay_frame *frame)
{
    struct hl_store *store = replay->store;
    if (drop_decode(frame->body, frame->length, &frame->more->drop) < 0) {
        replay_damage(replay, frame->offset, "a drop frame that does not say what it drops");
        return 0;
    }
    int error = lookup_for_append(store, frame->session, NULL, 0, &frame->target);
    if (error == -ENOENT) {
        frame->target = NULL;
        return frame->more->drop.kind == DROP_DELETE && frame->session != 0
                   ? remember_deleted(store, frame->session)
                   : 0;
    }
    if (error == 0 && (store->options.read_only || store->no_room))
        error = check_index(replay, frame);
    if (error == 0)
        error = replay_touch(replay, frame->target);
    frame->counts = error == 0;
    return error;
}

void replay_drop_apply(struct replay *replay, struct replay_frame *frame)
{
    struct hl_store *store = replay->store;
    struct mem_session *target = frame->target;
    bool rebased =
        store->options.read_only && frame->more->is_indexed && frame->more->drop.kind == DROP_TRIM;
    /* First, so that of what the part loses nothing was counted by the index already. */
    if (rebased)
        memtable_rebase(store->table, target, &frame->more->indexed);
    uint64_t gone = target->row.gone;
    drop_apply(store, target, &frame->more->drop, &frame->more->dropped);
    target->part_gone += target->row.gone - gone;
    target->part_gone_at = position_make(replay->segment->first, frame->offset);
    if (rebased)
        target->trim_below = 0; /* the index has it */
}

void replay_drop_tell(const struct replay *replay, const struct replay_frame *frame)
{
    const struct hl_options *options = &replay->store->options;
    struct hl_news news = {.session = frame->session,
                           .deleted = frame->more->drop.kind == DROP_DELETE,
                           .dropped_records = frame->more->dropped.records,
                           .dropped_bytes = frame->more->dropped.bytes};
    if (!news.deleted && frame->target->row.gone > frame->more->drop.gone) {
        /* The index does not say how many records the writer dropped from it. */
        news.dropped_bytes = frame->target->row.gone - frame->more->drop.gone;
        news.dropped_records += news.dropped_records == 0;
    }
    if (news.deleted || news.dropped_records > 0)
        options->news(options->news_context, &news);
}
