/*
 * follow_list.c - who waits, who polls, and for which session.
 */
#include "follow_internal.h"

#include <errno.h>
#include <stdlib.h>

/* ---- lists; follow->lock is held --------------------------------------------------------------
 */

struct followed **follow_find(struct follow *follow, uint32_t session)
{
    struct followed **at = &follow->buckets[session % FOLLOW_BUCKETS];
    while (*at && (*at)->session != session)
        at = &(*at)->next;
    return at;
}

void follow_set_pending(struct follow *follow, struct followed *followed)
{
    if (followed->pending)
        return;
    followed->pending = true;
    followed->next_pending = NULL;
    *follow->pending_end = followed;
    follow->pending_end = &followed->next_pending;
    pthread_cond_signal(&follow->wake);
}

void follow_unset_pending(struct follow *follow, struct followed *followed)
{
    struct followed **at = &follow->pending;

    if (!followed->pending)
        return;
    while (*at != followed)
        at = &(*at)->next_pending;
    *at = followed->next_pending;
    if (!*at)
        follow->pending_end = at;
    followed->pending = false;
}

/* By deadline; a new one goes last, one that waits on goes where it was. */
void follow_wait(struct follow *follow, struct waiting *waiting)
{
    struct waiting *before = follow->last;

    while (before && before->deadline > waiting->deadline)
        before = before->previous;
    struct waiting *behind = before ? before->next : follow->first;
    waiting->previous = before;
    waiting->next = behind;
    *(before ? &before->next : &follow->first) = waiting;
    *(behind ? &behind->previous : &follow->last) = waiting;
    waiting->listed = true;
    waiting->follower->of->waiting++;
    waiting->follower->pins++;
}

void follow_unwait(struct follow *follow, struct waiting *waiting)
{
    if (waiting->previous)
        waiting->previous->next = waiting->next;
    else
        follow->first = waiting->next;
    if (waiting->next)
        waiting->next->previous = waiting->previous;
    else
        follow->last = waiting->previous;
    waiting->listed = false;
    waiting->follower->of->waiting--;
    if (waiting->interrupted)
        follow->interrupted--;
}

/* ---- news -------------------------------------------------------------------------------------
 */

void follow_news(struct follow *follow, uint32_t session)
{
    if (atomic_load(&follow->count) == 0)
        return;
    pthread_mutex_lock(&follow->lock);
    struct followed *followed = *follow_find(follow, session);
    if (followed && !follow->stopping) {
        followed->news++;
        if (followed->waiting + followed->polls > 0)
            follow_set_pending(follow, followed);
    }
    pthread_mutex_unlock(&follow->lock);
}

void follow_gone(struct follow *follow, uint32_t session)
{
    pthread_mutex_lock(&follow->lock);
    struct followed *followed = *follow_find(follow, session);
    if (followed) {
        followed->gone = true;
        followed->news++;
        if (!follow->stopping && followed->waiting + followed->polls > 0)
            follow_set_pending(follow, followed);
    }
    pthread_mutex_unlock(&follow->lock);
}

/* The sessions that have followers, as many as fit. */
static size_t followed_sessions(struct follow *follow, uint32_t *sessions, size_t most)
{
    size_t count = 0;

    pthread_mutex_lock(&follow->lock);
    for (size_t i = 0; i < FOLLOW_BUCKETS; i++) {
        for (const struct followed *at = follow->buckets[i]; at && count < most; at = at->next) {
            if (!at->gone)
                sessions[count++] = at->session;
        }
    }
    pthread_mutex_unlock(&follow->lock);
    return count;
}

void follow_look(struct follow *follow)
{
    struct hl_session session;
    size_t most = atomic_load(&follow->count);
    uint32_t *sessions = most ? malloc(most * sizeof *sessions) : NULL;

    if (!sessions)
        return;
    size_t count = followed_sessions(follow, sessions, most);
    for (size_t i = 0; i < count; i++) {
        if (hl_session_by_number(follow->fs->store, sessions[i], &session) == -ENOENT)
            follow_gone(follow, sessions[i]);
    }
    free(sessions);
}

void follow_drop_poll(struct fuse_pollhandle *poll)
{
    if (poll)
        fuse_pollhandle_destroy(poll);
}

void follower_free(struct follow *follow, struct follower *follower)
{
    follow_place_free(follow->fs, &follower->place);
    pthread_mutex_destroy(&follower->lock);
    follow_drop_poll(follower->poll);
    handle_free(follow->fs, &follower->base);
}

/* follow->lock is held. */
void follow_set_told(struct follow *follow, struct follower *follower)
{
    if (follower->told)
        return;
    follower->told = true;
    if (--follow->untold == 0)
        pthread_cond_broadcast(&follow->wake);
}

/* Takes a follower that nobody uses any more out of its session. follow->lock is held. */
void follower_leave(struct follow *follow, struct follower *follower)
{
    struct followed **at = follow_find(follow, follower->of->session), *followed = *at;
    struct follower **link = &followed->followers;

    while (*link != follower)
        link = &(*link)->next_of;
    *link = follower->next_of;
    follow_set_told(follow, follower);
    followed->polls -= follower->poll != NULL;
    if (!followed->followers) {
        follow_unset_pending(follow, followed);
        *at = followed->next;
        free(followed);
    }
}

/* Lets go of a follower that was pinned. */
void follower_unpin(struct follow *follow, struct follower *follower)
{
    pthread_mutex_lock(&follow->lock);
    bool last = --follower->pins == 0 && follower->released;
    if (last)
        follower_leave(follow, follower);
    pthread_mutex_unlock(&follow->lock);
    if (last)
        follower_free(follow, follower);
}
