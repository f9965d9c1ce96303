/*
 * follow.c - open files of `follow`: reads that find something, reads that wait, poll.
 */
#include "follow_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

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
static bool read_now(struct fs *fs, struct waiting *waiting)
{
    struct follower *follower = waiting->follower;
    size_t size = waiting->size;
    char *buffer = fs_buffer(fs, size);

    if (!buffer) {
        follow_answer(waiting, NULL, -ENOMEM);
        return true;
    }
    pthread_mutex_lock(&follower->lock);
    struct follow_place *place = &follower->place;
    uint64_t next = place->next, offset = place->offset;
    ssize_t got = follow_read(fs, follower->of->session, place, buffer, size);
    if (got != 0 && follow_answer(waiting, buffer, got) != 0 && got > 0) {
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
    if (follow->stopping || waiting->follower->of->gone) {
        outcome = ENDED;
        follow_set_told(follow, waiting->follower);
    } else if (waiting->interrupted)
        outcome = INTERRUPTED;
    else if (waiting->follower->of->news != seen)
        outcome = NEWS;
    else if (follow_start_waker(follow) < 0)
        outcome = REFUSED;
    if (outcome == WAITS) {
        waiting->deadline = follow->patience_ms ? fs_tick_ms() + follow->patience_ms : 0;
        follow_wait(follow, waiting);
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
    *ended = follow->stopping || follower->of->gone;
    if (*ended)
        follow_set_told(follow, follower);
    pthread_mutex_unlock(&follow->lock);
    return seen;
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

static void answer_or_wait(struct fs *fs, struct follower *follower, fuse_req_t req, size_t size,
                           int flags)
{
    struct follow *follow = fs->follow;
    struct waiting *waiting;
    enum outcome outcome = NEWS;
    bool ended;

    waiting = waiting_new(follow, follower, req, size);
    if (!waiting) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    while (outcome == NEWS) {
        uint64_t seen = count_of_news(follow, follower, &ended);
        if (ended || size == 0)
            outcome = ENDED;
        else if (read_now(fs, waiting))
            return;
        else if (flags & O_NONBLOCK)
            outcome = REFUSED;
        else
            outcome = put_aside(follow, waiting, seen);
    }
    if (outcome == INTERRUPTED)
        follow_answer(waiting, "\n", 1);
    else if (outcome == ENDED)
        follow_answer(waiting, NULL, 0);
    else if (outcome == REFUSED)
        follow_answer(waiting, NULL, -EAGAIN);
}

static void follower_read(struct fs *fs, struct handle *base, fuse_req_t req, size_t size,
                          int flags)
{
    struct follower *follower = (struct follower *)base;

    /* As soon as the request is answered the file may be closed, by another thread. */
    pthread_mutex_lock(&fs->follow->lock);
    follower->pins++;
    pthread_mutex_unlock(&fs->follow->lock);
    answer_or_wait(fs, follower, req, size, flags);
    follower_unpin(fs->follow, follower);
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
        (void)follow_start_waker(follow); /* without it the next read or poll tries again */
    }
    bool ended = follow->stopping || follower->of->gone;
    pthread_mutex_unlock(&follow->lock);
    follow_drop_poll(poll);
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
        follower_leave(follow, follower);
    pthread_mutex_unlock(&follow->lock);
    if (last)
        follower_free(follow, follower);
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
    struct followed **at = follow_find(follow, session);
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

int follow_open(struct fs *fs, const struct node *node, uid_t uid, struct handle **handle)
{
    struct hl_session session;
    struct handle *base;

    int result = handle_new(fs, sizeof(struct follower), &follower_type, uid, &base);
    if (result < 0)
        return result;
    struct follower *made = (struct follower *)base;
    pthread_mutex_init(&made->lock, NULL);
    made->place.user = base->user;
    result = join(fs->follow, made, node->session);
    if (result < 0) {
        pthread_mutex_destroy(&made->lock);
        handle_free(fs, base);
        return result;
    }
    handle_link(fs, base);
    result = hl_session_by_number(fs->store, node->session, &session);
    if (result < 0) {
        follower_release(fs, base);
        return result;
    }
    made->place.next = session.has_seq ? session.last_seq + 1 : 0;
    *handle = base;
    return 0;
}

int follow_reply_open(fuse_req_t req, const struct fuse_file_info *fi)
{
    /* Without a flush a close asks nothing, so it cannot fail when the mount has just ended. */
    struct fuse_open_out out = {
        .fh = fi->fh,
        .open_flags = FOPEN_DIRECT_IO | FOPEN_NONSEEKABLE | FOPEN_STREAM | FOPEN_NOFLUSH,
    };

    return fuse_reply_buf(req, (const char *)&out, sizeof out);
}
