/*
 * follow_waker.c - the thread that answers those who wait.
 */
#include "follow_internal.h"

#include <errno.h>
#include <stdlib.h>

#define LAST_READ_MS 500 /* how long the end of the mount waits for readers to ask once more */

/* ---- answers ----------------------------------------------------------------------------------
 */

int follow_answer(struct waiting *waiting, const char *bytes, ssize_t len)
{
    /* Waits for an interrupt that is just being told. Answering alone does not: the library could
     * tell of it when `waiting` is freed. */
    fuse_req_interrupt_func(waiting->req, NULL, NULL);
    int result = len < 0 ? fuse_reply_err(waiting->req, fs_errno((int)len))
                         : fuse_reply_buf(waiting->req, bytes, (size_t)len);
    free(waiting);
    return result;
}

/* ---- the waker --------------------------------------------------------------------------------
 */

/* What the last reader of this session got, for those who stand where he stood. */
struct block {
    bool filled;
    uint64_t from, to;
    size_t len;
};

/* Puts what comes next to the follower into follow->block; its lock is held. */
static ssize_t fill(struct follow *follow, struct follower *follower, size_t size,
                    struct block *block)
{
    struct follow_place *place = &follower->place;

    if (block->filled && place->offset == 0 && place->next == block->from && block->len <= size) {
        place->next = block->to;
        return (ssize_t)block->len;
    }
    block->filled = false;
    if (size > follow->block_size) {
        char *larger = realloc(follow->block, size);
        if (!larger)
            return -ENOMEM;
        follow->block = larger;
        follow->block_size = size;
    }
    bool whole = place->offset == 0;
    block->from = place->next;
    ssize_t got = follow_read(follow->fs, follower->of->session, place, follow->block, size);
    if (got > 0 && whole && place->offset == 0)
        *block = (struct block){true, block->from, place->next, (size_t)got};
    return got;
}

/* Answers with what there is. False: there was nothing, so it waits on. */
static bool serve(struct follow *follow, struct waiting *waiting, struct block *block)
{
    struct follower *follower = waiting->follower;

    pthread_mutex_lock(&follower->lock);
    uint64_t next = follower->place.next, offset = follower->place.offset;
    ssize_t got = fill(follow, follower, waiting->size, block);
    if (got != 0 && follow_answer(waiting, follow->block, got) != 0 && got > 0) {
        follow_place_free(follow->fs, &follower->place);
        follower->place.next = next; /* nobody took it */
        follower->place.offset = offset;
    }
    pthread_mutex_unlock(&follower->lock);
    return got != 0;
}

/* Takes those who wait for this session, in order, out of the list; follow->lock is held. */
static struct waiting *take_waiting(struct follow *follow, const struct followed *followed)
{
    struct waiting *taken = NULL, **end = &taken;
    struct waiting *next;
    size_t left = followed->waiting;

    for (struct waiting *at = follow->first; at && left > 0; at = next) {
        next = at->next;
        if (at->follower->of != followed)
            continue;
        follow_unwait(follow, at);
        at->next = NULL;
        *end = at;
        end = &at->next;
        left--;
    }
    return taken;
}

/* Tells those who poll; follow->lock is held, and let go of meanwhile. */
static void notify_polls(struct follow *follow, struct followed *followed)
{
    struct follower *follower = followed->followers;

    if (followed->polls == 0)
        return;
    follower->pins++;
    while (follower) {
        struct fuse_pollhandle *poll = follower->poll;
        if (poll) {
            follower->poll = NULL;
            followed->polls--;
            pthread_mutex_unlock(&follow->lock);
            fuse_lowlevel_notify_poll(poll);
            pthread_mutex_lock(&follow->lock);
            if (!follower->poll) {
                follower->poll = poll;
                followed->polls++;
                poll = NULL;
            }
            follow_drop_poll(poll);
        }
        struct follower *next = follower->next_of;
        if (next)
            next->pins++;
        pthread_mutex_unlock(&follow->lock);
        follower_unpin(follow, follower); /* may free it; `followed` lives on if there is a next */
        pthread_mutex_lock(&follow->lock);
        follower = next;
    }
}

/* Deals with the news of one session; follow->lock is held, and let go of meanwhile. */
static void deal_with(struct follow *follow, struct followed *followed)
{
    struct block block = {.filled = false};

    follow_unset_pending(follow, followed);
    struct waiting *taken = take_waiting(follow, followed);
    notify_polls(follow, followed);
    while (taken) {
        struct waiting *waiting = taken;
        struct follower *follower = waiting->follower;
        taken = waiting->next;
        bool gone = follower->of->gone;
        pthread_mutex_unlock(&follow->lock);
        if (gone)
            follow_answer(waiting, NULL, 0);
        bool served = gone || serve(follow, waiting, &block);
        pthread_mutex_lock(&follow->lock);
        if (!served) {
            /* If there was news meanwhile the session is pending again. */
            follow_wait(follow, waiting);
            follow->interrupted += waiting->interrupted;
        }
        pthread_mutex_unlock(&follow->lock);
        follower_unpin(follow, follower);
        pthread_mutex_lock(&follow->lock);
    }
}

/* The first that is to be answered with an empty line; follow->lock is held. */
static struct waiting *find_due(struct follow *follow)
{
    if (follow->interrupted > 0) {
        for (struct waiting *at = follow->first; at; at = at->next) {
            if (at->interrupted)
                return at;
        }
    }
    struct waiting *first = follow->first;
    return first && first->deadline != 0 && first->deadline <= fs_tick_ms() ? first : NULL;
}

static void answer_one(struct follow *follow, struct waiting *waiting, const char *bytes,
                       ssize_t len)
{
    struct follower *follower = waiting->follower;

    follow_unwait(follow, waiting);
    pthread_mutex_unlock(&follow->lock);
    follow_answer(waiting, bytes, len);
    follower_unpin(follow, follower);
    pthread_mutex_lock(&follow->lock);
}

static void sleep_until_due(struct follow *follow)
{
    uint64_t deadline = follow->first ? follow->first->deadline : 0;
    struct timespec time = {.tv_sec = (time_t)(deadline / 1000),
                            .tv_nsec = (long)(deadline % 1000) * 1000000};

    if (deadline != 0)
        pthread_cond_timedwait(&follow->wake, &follow->lock, &time);
    else
        pthread_cond_wait(&follow->wake, &follow->lock);
}

static void *run(void *context)
{
    struct follow *follow = context;
    struct waiting *due;

    pthread_mutex_lock(&follow->lock);
    while (!follow->stopping) {
        if ((due = find_due(follow)) != NULL)
            answer_one(follow, due, "\n", 1);
        else if (follow->pending)
            deal_with(follow, follow->pending);
        else
            sleep_until_due(follow);
    }
    while (follow->first) {
        follow_set_told(follow, follow->first->follower);
        answer_one(follow, follow->first, NULL, 0);
    }
    /* The list, which whoever closes his file meanwhile takes his session out of. */
    for (size_t i = 0; i < FOLLOW_BUCKETS; i++) {
        for (struct followed *at = follow->buckets[i]; at; at = at->next)
            follow_set_pending(follow, at);
    }
    while (follow->pending) {
        struct followed *at = follow->pending;
        follow_unset_pending(follow, at);
        notify_polls(follow, at);
    }
    pthread_mutex_unlock(&follow->lock);
    return NULL;
}

/* follow->lock is held. */
int follow_start_waker(struct follow *follow)
{
    int result = follow->started ? 0 : fs_thread_start(&follow->thread, run, follow);
    if (result == 0)
        follow->started = true;
    return result;
}

/* Those who were just not waiting ask once more, if they are given the time. */
static void wait_until_told(struct follow *follow)
{
    uint64_t end = fs_tick_ms() + LAST_READ_MS;
    struct timespec time = {.tv_sec = (time_t)(end / 1000),
                            .tv_nsec = (long)(end % 1000) * 1000000};

    pthread_mutex_lock(&follow->lock);
    while (follow->untold > 0 && fs_tick_ms() < end)
        pthread_cond_timedwait(&follow->wake, &follow->lock, &time);
    pthread_mutex_unlock(&follow->lock);
}

void follow_stop(struct follow *follow, bool ended)
{
    if (!follow)
        return;
    pthread_mutex_lock(&follow->lock);
    bool again = follow->stopping, join = follow->started && !again;
    follow->stopping = true;
    pthread_cond_signal(&follow->wake);
    pthread_mutex_unlock(&follow->lock);
    if (join)
        pthread_join(follow->thread, NULL);
    if (!again && !ended)
        wait_until_told(follow);
}
