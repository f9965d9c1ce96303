/*
 * follow.c - readers that wait for records, and the thread that answers them.
 *
 *   ready     a read finds records: it is answered by the thread that took it
 *   waiting   it finds none: the request lies in `waiting`, in order of arrival, which is the order
 *             of deadlines too, and is of its follower
 *   answered  by the waker: with records when there is news of the session, with an empty line when
 *             the reader was interrupted or the kernel would lose patience, or with end of file
 *
 * No news is missed: each counts its session's `news` up after the records can be read; a read
 * remembers the count before it looks, and waits only if it is still the same.
 *
 * Locks, outermost first: a follower's, which is held while its read is answered, so that its
 * records go out in order; the library's of a request; follow->lock, a leaf.
 */
#include "follow.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#define BUCKETS 256
#define LAST_READ_MS 500 /* how long the end of the mount waits for readers to ask once more */

struct waiting {
    struct follow *follow;
    struct follower *follower;
    fuse_req_t req;
    size_t size;
    uint64_t deadline; /* fs_tick_ms(); 0: none */
    bool interrupted, listed;
    struct waiting *previous, *next;
};

struct follower {
    struct handle base;
    struct followed *of;
    struct follower *next_of;     /* guarded by follow->lock, as are the next three */
    struct fuse_pollhandle *poll; /* whom to tell of news, or NULL */
    unsigned pins;                /* the waker uses it */
    bool released;                /* and is to free it then */
    bool told;                    /* that the file ends */
    pthread_mutex_t lock;         /* guards place */
    struct follow_place place;
};

/* A session that has followers. Guarded by follow->lock. */
struct followed {
    uint32_t session;
    uint64_t news;
    bool pending; /* in the list of those with news that is not dealt with */
    size_t waiting, polls;
    struct follower *followers;
    struct followed *next, *next_pending;
};

struct follow {
    struct fs *fs;
    _Atomic size_t count; /* of open handles */
    pthread_mutex_t lock; /* guards all below; a leaf */
    uint64_t patience_ms; /* how long a request may wait; 0: for ever */
    pthread_cond_t wake;
    struct followed *buckets[BUCKETS];
    struct followed *pending, **pending_end;
    struct waiting *first, *last;
    size_t interrupted; /* how many of them */
    size_t untold;      /* followers that were not told that the file ends */
    bool started, stopping;
    pthread_t thread;
    char *block; /* the waker's own */
    size_t block_size;
};

/* ---- making -----------------------------------------------------------------------------------
 */

struct follow *follow_new(struct fs *fs)
{
    struct follow *follow = calloc(1, sizeof *follow);
    pthread_condattr_t attributes;

    if (!follow)
        return NULL;
    follow->fs = fs;
    follow->pending_end = &follow->pending;
    pthread_mutex_init(&follow->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&follow->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    return follow;
}

static uint64_t read_seconds(const char *path)
{
    char text[32];
    unsigned long long seconds = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return 0; /* a kernel that knows no such limit */
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0)
        return 0;
    text[got] = '\0';
    seconds = strtoull(text, NULL, 10);
    return seconds < UINT32_MAX ? seconds : 0;
}

void follow_learn_limit(struct follow *follow)
{
    uint64_t limit = read_seconds("/proc/sys/fs/fuse/default_request_timeout");
    uint64_t most = read_seconds("/proc/sys/fs/fuse/max_request_timeout");

    if (most > 0 && (limit == 0 || most < limit))
        limit = most;
    pthread_mutex_lock(&follow->lock);
    follow->patience_ms = limit * 1000 / 2; /* the kernel looks only now and then */
    pthread_mutex_unlock(&follow->lock);
}

size_t follow_count(struct follow *follow)
{
    return atomic_load(&follow->count);
}

/* ---- lists; follow->lock is held --------------------------------------------------------------
 */

static struct followed **find(struct follow *follow, uint32_t session)
{
    struct followed **at = &follow->buckets[session % BUCKETS];
    while (*at && (*at)->session != session)
        at = &(*at)->next;
    return at;
}

static void set_pending(struct follow *follow, struct followed *followed)
{
    if (followed->pending)
        return;
    followed->pending = true;
    followed->next_pending = NULL;
    *follow->pending_end = followed;
    follow->pending_end = &followed->next_pending;
    pthread_cond_signal(&follow->wake);
}

static void unset_pending(struct follow *follow, struct followed *followed)
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
static void list_waiting(struct follow *follow, struct waiting *waiting)
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

static void unlist_waiting(struct follow *follow, struct waiting *waiting)
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
    struct followed *followed = *find(follow, session);
    if (followed) {
        followed->news++;
        if (followed->waiting + followed->polls > 0)
            set_pending(follow, followed);
    }
    pthread_mutex_unlock(&follow->lock);
}

/* ---- answers ----------------------------------------------------------------------------------
 */

/* The request is gone after it, and what waited with it freed. */
static void answer(struct waiting *waiting, const char *bytes, size_t len)
{
    fuse_reply_buf(waiting->req, bytes, len);
    free(waiting);
}

/* The library calls this with the request's lock held, so it must not answer here. */
static void on_interrupt(fuse_req_t req, void *data)
{
    struct waiting *waiting = data;
    struct follow *follow = waiting->follow;
    (void)req;

    pthread_mutex_lock(&follow->lock);
    if (!waiting->interrupted) {
        waiting->interrupted = true;
        if (waiting->listed) {
            follow->interrupted++;
            pthread_cond_signal(&follow->wake);
        }
    }
    pthread_mutex_unlock(&follow->lock);
}

static void destroy_poll(struct fuse_pollhandle *poll)
{
    if (poll)
        fuse_pollhandle_destroy(poll);
}

static void free_follower(struct follow *follow, struct follower *follower)
{
    follow_place_free(follow->fs, &follower->place);
    pthread_mutex_destroy(&follower->lock);
    destroy_poll(follower->poll);
    free(follower);
}

/* follow->lock is held. */
static void set_told(struct follow *follow, struct follower *follower)
{
    if (follower->told)
        return;
    follower->told = true;
    if (--follow->untold == 0)
        pthread_cond_broadcast(&follow->wake);
}

/* Takes a follower that nobody uses any more out of its session. follow->lock is held. */
static void leave(struct follow *follow, struct follower *follower)
{
    struct followed **at = find(follow, follower->of->session), *followed = *at;
    struct follower **link = &followed->followers;

    while (*link != follower)
        link = &(*link)->next_of;
    *link = follower->next_of;
    set_told(follow, follower);
    followed->polls -= follower->poll != NULL;
    if (!followed->followers) {
        unset_pending(follow, followed);
        *at = followed->next;
        free(followed);
    }
}

/* Lets go of a follower that was pinned. */
static void unpin(struct follow *follow, struct follower *follower)
{
    pthread_mutex_lock(&follow->lock);
    bool last = --follower->pins == 0 && follower->released;
    if (last)
        leave(follow, follower);
    pthread_mutex_unlock(&follow->lock);
    if (last)
        free_follower(follow, follower);
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
    if (got < 0) {
        fuse_reply_err(waiting->req, fs_errno((int)got));
        free(waiting);
    } else if (got > 0) {
        if (fuse_reply_buf(waiting->req, follow->block, (size_t)got) != 0) {
            follow_place_free(follow->fs, &follower->place);
            follower->place.next = next; /* nobody took it */
            follower->place.offset = offset;
        }
        free(waiting);
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
        unlist_waiting(follow, at);
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
            destroy_poll(poll);
        }
        struct follower *next = follower->next_of;
        if (next)
            next->pins++;
        pthread_mutex_unlock(&follow->lock);
        unpin(follow, follower); /* may free it; `followed` lives on if there is a next */
        pthread_mutex_lock(&follow->lock);
        follower = next;
    }
}

/* Deals with the news of one session; follow->lock is held, and let go of meanwhile. */
static void deal_with(struct follow *follow, struct followed *followed)
{
    struct block block = {.filled = false};

    unset_pending(follow, followed);
    struct waiting *taken = take_waiting(follow, followed);
    notify_polls(follow, followed);
    while (taken) {
        struct waiting *waiting = taken;
        struct follower *follower = waiting->follower;
        taken = waiting->next;
        pthread_mutex_unlock(&follow->lock);
        bool served = serve(follow, waiting, &block);
        pthread_mutex_lock(&follow->lock);
        if (!served) {
            /* If there was news meanwhile the session is pending again. */
            list_waiting(follow, waiting);
            follow->interrupted += waiting->interrupted;
        }
        pthread_mutex_unlock(&follow->lock);
        unpin(follow, follower);
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
                       size_t len)
{
    struct follower *follower = waiting->follower;

    unlist_waiting(follow, waiting);
    pthread_mutex_unlock(&follow->lock);
    answer(waiting, bytes, len);
    unpin(follow, follower);
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
        set_told(follow, follow->first->follower);
        answer_one(follow, follow->first, NULL, 0);
    }
    for (size_t i = 0; i < BUCKETS; i++) {
        for (struct followed *at = follow->buckets[i], *next; at; at = next) {
            next = at->next;
            notify_polls(follow, at);
        }
    }
    pthread_mutex_unlock(&follow->lock);
    return NULL;
}

/* follow->lock is held. */
static int start(struct follow *follow)
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

void follow_free(struct follow *follow)
{
    if (!follow)
        return;
    follow_stop(follow, true);
    pthread_cond_destroy(&follow->wake);
    pthread_mutex_destroy(&follow->lock);
    free(follow->block);
    free(follow);
}

/* ---- open files -------------------------------------------------------------------------------
 */

/* Whether the request is answered: with what there is, or an error. */
static bool read_now(struct fs *fs, struct follower *follower, fuse_req_t req, size_t size)
{
    char *buffer = fs_buffer(fs, size);

    if (!buffer) {
        fuse_reply_err(req, ENOMEM);
        return true;
    }
    pthread_mutex_lock(&follower->lock);
    struct follow_place *place = &follower->place;
    uint64_t next = place->next, offset = place->offset;
    ssize_t got = follow_read(fs, follower->of->session, place, buffer, size);
    if (got < 0) {
        fuse_reply_err(req, fs_errno((int)got));
    } else if (got > 0 && fuse_reply_buf(req, buffer, (size_t)got) != 0) {
        follow_place_free(fs, place);
        place->next = next; /* nobody took it */
        place->offset = offset;
    }
    pthread_mutex_unlock(&follower->lock);
    fs_buffer_done(fs, buffer, size);
    return got != 0;
}

enum outcome { WAITS, NEWS, INTERRUPTED, ENDED, REFUSED };

/* Puts the request aside, unless something came since `seen`. */
static enum outcome put_aside(struct follow *follow, struct waiting *waiting, uint64_t seen)
{
    enum outcome outcome = WAITS;

    pthread_mutex_lock(&follow->lock);
    if (follow->stopping) {
        outcome = ENDED;
        set_told(follow, waiting->follower);
    } else if (waiting->interrupted)
        outcome = INTERRUPTED;
    else if (waiting->follower->of->news != seen)
        outcome = NEWS;
    else if (start(follow) < 0)
        outcome = REFUSED;
    if (outcome == WAITS) {
        waiting->deadline = follow->patience_ms ? fs_tick_ms() + follow->patience_ms : 0;
        list_waiting(follow, waiting);
        if (follow->first == waiting && waiting->deadline)
            pthread_cond_signal(&follow->wake); /* it sleeps without an end */
    }
    pthread_mutex_unlock(&follow->lock);
    return outcome;
}

static uint64_t count_of_news(struct follow *follow, struct follower *follower, bool *ended)
{
    pthread_mutex_lock(&follow->lock);
    uint64_t seen = follower->of->news;
    *ended = follow->stopping;
    if (*ended)
        set_told(follow, follower);
    pthread_mutex_unlock(&follow->lock);
    return seen;
}

static struct waiting *waiting_new(struct follow *follow, struct follower *follower, fuse_req_t req,
                                   size_t size)
{
    struct waiting *waiting = calloc(1, sizeof *waiting);

    if (!waiting)
        return NULL;
    waiting->follow = follow;
    waiting->follower = follower;
    waiting->req = req;
    waiting->size = size;
    fuse_req_interrupt_func(req, on_interrupt, waiting);
    return waiting;
}

static void follower_read(struct fs *fs, struct handle *base, fuse_req_t req, size_t size,
                          int flags)
{
    struct follower *follower = (struct follower *)base;
    struct follow *follow = fs->follow;
    struct waiting *waiting = NULL;
    enum outcome outcome = NEWS;
    bool ended;

    while (outcome == NEWS) {
        uint64_t seen = count_of_news(follow, follower, &ended);
        if (ended || size == 0) {
            fuse_reply_buf(req, NULL, 0);
        } else if (read_now(fs, follower, req, size)) {
            ;
        } else if (flags & O_NONBLOCK) {
            fuse_reply_err(req, EAGAIN);
        } else if (!waiting && !(waiting = waiting_new(follow, follower, req, size))) {
            fuse_reply_err(req, ENOMEM);
        } else {
            outcome = put_aside(follow, waiting, seen);
            continue;
        }
        free(waiting); /* once its request is answered nobody is told of interrupts any more */
        return;
    }
    if (outcome == INTERRUPTED)
        answer(waiting, "\n", 1);
    else if (outcome == ENDED)
        answer(waiting, NULL, 0);
    else if (outcome == REFUSED) {
        fuse_reply_err(req, EAGAIN);
        free(waiting);
    }
}

static unsigned follower_poll(struct fs *fs, struct handle *base, struct fuse_pollhandle *poll)
{
    struct follower *follower = (struct follower *)base;
    struct follow *follow = fs->follow;

    /* It is known before it is looked, so that no news falls between the two. */
    pthread_mutex_lock(&follow->lock);
    if (poll) {
        struct fuse_pollhandle *old = follower->poll;
        follower->of->polls += old == NULL;
        follower->poll = poll;
        poll = old;
        (void)start(follow); /* without it the next read or poll tries again */
    }
    bool ended = follow->stopping;
    pthread_mutex_unlock(&follow->lock);
    destroy_poll(poll);
    if (ended)
        return POLLIN | POLLRDNORM | POLLHUP;
    pthread_mutex_lock(&follower->lock);
    bool ready = follow_ready(fs, follower->of->session, &follower->place);
    pthread_mutex_unlock(&follower->lock);
    return ready ? POLLIN | POLLRDNORM : 0;
}

static void follower_release(struct fs *fs, struct handle *base)
{
    struct follower *follower = (struct follower *)base;
    struct follow *follow = fs->follow;

    handle_unlink(fs, base);
    atomic_fetch_sub(&follow->count, 1);
    pthread_mutex_lock(&follow->lock);
    follower->released = true;
    bool last = follower->pins == 0;
    if (last)
        leave(follow, follower);
    pthread_mutex_unlock(&follow->lock);
    if (last)
        free_follower(follow, follower);
}

static const struct handle_type follower_type = {
    .read_later = follower_read, .poll = follower_poll, .release = follower_release};

/* Puts a follower among those of its session. */
static int join(struct follow *follow, struct follower *follower, uint32_t session)
{
    struct followed *made = calloc(1, sizeof *made);

    if (!made)
        return -ENOMEM;
    pthread_mutex_lock(&follow->lock);
    struct followed **at = find(follow, session);
    if (!*at) {
        made->session = session;
        *at = made;
        made = NULL;
    }
    follower->of = *at;
    follow->untold++;
    follower->next_of = (*at)->followers;
    (*at)->followers = follower;
    pthread_mutex_unlock(&follow->lock);
    atomic_fetch_add(&follow->count, 1);
    free(made);
    return 0;
}

int follow_open(struct fs *fs, const struct node *node, struct handle **handle)
{
    struct hl_session session;
    struct follower *made = calloc(1, sizeof *made);

    if (!made)
        return -ENOMEM;
    pthread_mutex_init(&made->lock, NULL);
    int result = join(fs->follow, made, node->session);
    if (result < 0) {
        pthread_mutex_destroy(&made->lock);
        free(made);
        return result;
    }
    handle_link(fs, &made->base, &follower_type);
    result = hl_session_by_number(fs->store, node->session, &session);
    if (result < 0) {
        follower_release(fs, &made->base);
        return result;
    }
    made->place.next = session.has_seq ? session.last_seq + 1 : 0;
    *handle = &made->base;
    return 0;
}

int follow_reply_open(fuse_req_t req, const struct fuse_file_info *fi)
{
    struct fuse_open_out out = {.fh = fi->fh,
                                .open_flags = FOPEN_DIRECT_IO | FOPEN_NONSEEKABLE | FOPEN_STREAM};

    return fuse_reply_buf(req, (const char *)&out, sizeof out);
}
