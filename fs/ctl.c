/*
 * ctl.c - .ctl: write a command, read its result.
 *
 * A command runs on a thread of its own, started by the first one; the write() that gave it is
 * answered when it is done. One runs at a time, the others wait in line. A signal to the writer (a
 * FUSE interrupt) takes a waiting command out of the line and cancels a running one. A signal that
 * means no end (signals.h) does not; but the kernel tells of no other one after it, so from then on
 * the writer's signals are looked up at intervals, by one more thread.
 *
 * Who answers a job: whoever moves it to JOB_DONE, under the lock, and then, without it, calls
 * finish(). libfuse calls interrupted() with a lock of its own held; so fuse_req_interrupt_func()
 * is never called with our lock held, and a job is freed only after it has been taken out there.
 */
#include "fs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "answers.h"
#include "ctl_commands.h"
#include "signals.h"

#define RESULTS_MAX 64U
#define WAITING_MAX 64U
/* Results that a handle has not read yet, in bytes. */
#define UNREAD_MAX (64U * 1024)
#define WATCH_INTERVAL_MS 100

enum job_state { JOB_NEW, JOB_WAITING, JOB_RUNNING, JOB_DONE };

struct ctl_handle {
    struct handle base;
    pthread_mutex_t lock; /* guards all below */
    bool written;         /* reads give results, no longer the list */
    struct answers results;
    struct text list; /* the last results as they were at the open */
};

struct job {
    struct job *next; /* in line */
    struct ctl *ctl;
    struct ctl_handle *handle;
    fuse_req_t req;
    size_t written; /* what the write is answered with */
    pid_t sender;
    enum job_state state;
    bool interrupted; /* it is to end */
    bool watched;     /* the sender got a signal that does not mean that */
    struct command command;
    struct hl_progress progress;
};

struct ctl {
    struct fs *fs;
    _Atomic uint32_t generation;
    pthread_mutex_t lock;     /* guards all below, and what changes in jobs; a leaf */
    pthread_cond_t wake;      /* of the command thread */
    struct job *first, *last; /* in line */
    unsigned waiting;
    struct job *running;
    bool started, stopping;
    pthread_t thread;
    bool watcher_started;
    pthread_t watcher;
    pthread_cond_t watch;             /* of the watcher */
    struct text results[RESULTS_MAX]; /* a ring */
    uint64_t results_made;
    uint64_t results_bytes;
};

/* ---- results ----------------------------------------------------------------------------------
 */

/* Keeps a result among the last ones, dropping the oldest; takes its memory over. */
static void keep_result(struct ctl *ctl, struct text *result)
{
    pthread_mutex_lock(&ctl->lock);
    struct text *slot = &ctl->results[ctl->results_made++ % RESULTS_MAX];
    ctl->results_bytes -= slot->len;
    text_free(slot);
    *slot = *result;
    ctl->results_bytes += slot->len;
    pthread_mutex_unlock(&ctl->lock);
    *result = (struct text){0};
}

static int list_results(struct ctl *ctl, struct text *list)
{
    pthread_mutex_lock(&ctl->lock);
    uint64_t made = ctl->results_made;
    for (uint64_t i = made > RESULTS_MAX ? made - RESULTS_MAX : 0; i < made; i++) {
        const struct text *result = &ctl->results[i % RESULTS_MAX];
        text_add(list, result->at, result->len);
    }
    pthread_mutex_unlock(&ctl->lock);
    return list->failed ? -ENOMEM : 0;
}

uint32_t ctl_generation(struct ctl *ctl)
{
    return atomic_fetch_add(&ctl->generation, 1) & NODE_GENERATION_MAX;
}

uint64_t ctl_size(struct ctl *ctl)
{
    pthread_mutex_lock(&ctl->lock);
    uint64_t size = ctl->results_bytes;
    pthread_mutex_unlock(&ctl->lock);
    return size;
}

/* Tells the handle and the list what came of a command. result is its line, and is used up. */
static void tell(struct fs *fs, struct ctl_handle *handle, struct text *result)
{
    if (result->failed || result->len == 0) {
        fs_log(HL_WARNING, "no memory for the result of a command");
        text_free(result);
        return;
    }
    pthread_mutex_lock(&handle->lock);
    handle->written = true;
    int kept = answers_add(&handle->results, result->at, result->len, UNREAD_MAX);
    pthread_mutex_unlock(&handle->lock);
    if (kept < 0)
        fs_log(HL_WARNING, "no memory for the result of a command");
    keep_result(fs->ctl, result);
}

/* ---- jobs -------------------------------------------------------------------------------------
 */

static void reply(fuse_req_t req, int code, size_t written)
{
    if (code)
        fuse_reply_err(req, fs_errno(code));
    else
        fuse_reply_write(req, written);
}

/* Ends a job that is JOB_DONE. in_interrupt: libfuse holds its own lock and calls interrupted() no
 * more. */
static void finish(struct job *job, int code, const struct hl_error *err, struct text *members,
                   bool in_interrupt)
{
    struct fs *fs = job->ctl->fs;
    struct text result = {0};

    command_result(&job->command, code, err, members, &result);
    tell(fs, job->handle, &result);
    if (!in_interrupt)
        fuse_req_interrupt_func(job->req, NULL, NULL);
    fuse_req_t req = job->req;
    size_t written = job->written;
    free(job);
    reply(req, code, written);
}

static void finish_interrupted(struct job *job, bool in_interrupt)
{
    struct hl_error err = {0};
    struct text members = {0};

    hl_fail(&err, EINTR, "interrupted before it began");
    finish(job, -EINTR, &err, &members, in_interrupt);
}

/* Takes a job out of the line; the lock is held. */
static void leave_line(struct ctl *ctl, struct job *job)
{
    struct job **at = &ctl->first;
    struct job *before = NULL;

    while (*at != job) {
        before = *at;
        at = &(*at)->next;
    }
    *at = job->next;
    if (ctl->last == job)
        ctl->last = before;
    ctl->waiting--;
}

/* Ends a job early, the lock held: a running one is told to, a new one finds out itself; true: it
 * was in line, and is the caller's to finish. */
static bool interrupt_job(struct ctl *ctl, struct job *job)
{
    job->interrupted = true;
    atomic_store(&job->progress.cancel, true);
    if (job->state != JOB_WAITING)
        return false;
    leave_line(ctl, job);
    job->state = JOB_DONE;
    return true;
}

/* The first watched job in line whose sender gives up, taken out of it; the running one is told.
 * Sets *any if there is anything to watch. The lock is held. */
static struct job *look_at_watched(struct ctl *ctl, bool *any)
{
    struct job *running = ctl->running;

    *any = running && running->watched && !running->interrupted;
    if (*any && signals_end(running->sender))
        interrupt_job(ctl, running);
    for (struct job *job = ctl->first; job; job = job->next) {
        if (!job->watched)
            continue;
        *any = true;
        if (signals_end(job->sender) && interrupt_job(ctl, job))
            return job;
    }
    return NULL;
}

static void *watch(void *context)
{
    struct ctl *ctl = context;
    bool any;

    pthread_mutex_lock(&ctl->lock);
    while (!ctl->stopping) {
        struct job *job = look_at_watched(ctl, &any);
        if (job) {
            pthread_mutex_unlock(&ctl->lock);
            finish_interrupted(job, false);
            pthread_mutex_lock(&ctl->lock);
        } else if (any) {
            struct timespec until;
            clock_gettime(CLOCK_MONOTONIC, &until);
            until.tv_nsec += WATCH_INTERVAL_MS * 1000000L;
            if (until.tv_nsec >= 1000000000L) {
                until.tv_nsec -= 1000000000L;
                until.tv_sec++;
            }
            pthread_cond_timedwait(&ctl->watch, &ctl->lock, &until);
        } else {
            pthread_cond_wait(&ctl->watch, &ctl->lock);
        }
    }
    pthread_mutex_unlock(&ctl->lock);
    return NULL;
}

/* Has the sender watched from now on; false: no thread can be had for it. The lock is held. */
static bool watch_job(struct ctl *ctl, struct job *job)
{
    if (!ctl->watcher_started && !ctl->stopping)
        ctl->watcher_started = fs_thread_start(&ctl->watcher, watch, ctl) == 0;
    job->watched = ctl->watcher_started;
    pthread_cond_signal(&ctl->watch);
    return job->watched;
}

/* libfuse calls this when the writer got a signal, also from within fuse_req_interrupt_func()
 * itself; there the job is JOB_NEW still, and its request must not be answered. */
static void interrupted(fuse_req_t req, void *context)
{
    struct job *job = context;
    struct ctl *ctl = job->ctl;
    bool finish_it = false;
    (void)req;

    pthread_mutex_lock(&ctl->lock);
    if (job->state != JOB_DONE && (signals_end(job->sender) || !watch_job(ctl, job)))
        finish_it = interrupt_job(ctl, job);
    pthread_mutex_unlock(&ctl->lock);
    if (finish_it)
        finish_interrupted(job, true);
}

static void run_job(struct ctl *ctl, struct job *job)
{
    struct hl_error err = {0};
    struct text members = {0};

    int code = command_run(ctl->fs, &job->command, &job->progress, &members, &err);
    pthread_mutex_lock(&ctl->lock);
    job->state = JOB_DONE;
    ctl->running = NULL;
    pthread_mutex_unlock(&ctl->lock);
    finish(job, code, &err, &members, false);
}

static void *run(void *context)
{
    struct ctl *ctl = context;

    pthread_mutex_lock(&ctl->lock);
    for (;;) {
        struct job *job = ctl->first;
        if (job && !ctl->stopping) {
            leave_line(ctl, job);
            job->state = JOB_RUNNING;
            ctl->running = job;
            pthread_mutex_unlock(&ctl->lock);
            run_job(ctl, job);
            pthread_mutex_lock(&ctl->lock);
        } else if (ctl->stopping) {
            break;
        } else {
            pthread_cond_wait(&ctl->wake, &ctl->lock);
        }
    }
    pthread_mutex_unlock(&ctl->lock);
    return NULL;
}

/* Puts the job in line. The lock is held. -EINTR: it was interrupted already. */
static int line_up(struct ctl *ctl, struct job *job, struct hl_error *err)
{
    if (job->interrupted)
        return hl_fail(err, EINTR, "interrupted before it began");
    if (ctl->stopping)
        return hl_fail(err, ESHUTDOWN, "the mount is ending");
    if (ctl->waiting >= WAITING_MAX)
        return hl_fail(err, EBUSY, "%u commands are waiting already", WAITING_MAX);
    if (!ctl->started) {
        int result = fs_thread_start(&ctl->thread, run, ctl);
        if (result < 0)
            return hl_fail(err, -result, "cannot start a thread: %s", strerror(-result));
        ctl->started = true;
    }
    job->state = JOB_WAITING;
    job->next = NULL;
    if (ctl->last)
        ctl->last->next = job;
    else
        ctl->first = job;
    ctl->last = job;
    ctl->waiting++;
    pthread_cond_signal(&ctl->wake);
    return 0;
}

static void submit(struct ctl *ctl, struct job *job)
{
    struct hl_error err = {0};
    struct text members = {0};

    fuse_req_interrupt_func(job->req, interrupted, job);
    pthread_mutex_lock(&ctl->lock);
    int result = line_up(ctl, job, &err);
    if (result < 0)
        job->state = JOB_DONE;
    pthread_mutex_unlock(&ctl->lock);
    if (result < 0)
        finish(job, result, &err, &members, false);
}

/* ---- sync, which no thread waits for ------------------------------------------------------------
 */

static void synced(void *context, int error)
{
    struct job *job = context;
    struct fs *fs = job->ctl->fs;
    struct hl_error err = {0};
    struct text members = {0};

    if (error > 0)
        error = -error;
    if (error < 0)
        hl_fail(&err, -error, "the disk failed: %s", strerror(-error));
    finish(job, error, &err, &members, false);
    pthread_mutex_lock(&fs->parked_lock);
    if (--fs->parked == 0)
        pthread_cond_broadcast(&fs->parked_none);
    pthread_mutex_unlock(&fs->parked_lock);
}

static void submit_sync(struct ctl *ctl, struct job *job)
{
    struct fs *fs = ctl->fs;

    job->state = JOB_RUNNING;
    pthread_mutex_lock(&fs->parked_lock);
    fs->parked++;
    pthread_mutex_unlock(&fs->parked_lock);
    hl_sync_async(fs->store, synced, job);
}

/* ---- the handle -------------------------------------------------------------------------------
 */

/* A command that is not one: its result is told like any other. */
static void refuse(struct fs *fs, struct ctl_handle *handle, fuse_req_t req,
                   const struct command *command, int code, const struct hl_error *err)
{
    struct text members = {0}, result = {0};

    command_result(command, code, err, &members, &result);
    tell(fs, handle, &result);
    fuse_reply_err(req, fs_errno(code));
}

static void ctl_write(struct fs *fs, struct handle *base, fuse_req_t req, const char *data,
                      size_t len, uint64_t offset, bool sync)
{
    struct ctl_handle *handle = (struct ctl_handle *)base;
    struct hl_error err = {0};
    struct job *job = calloc(1, sizeof *job);
    (void)offset;
    (void)sync; /* commands sync what they change by -o sync */

    if (!job) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    job->ctl = fs->ctl;
    job->handle = handle;
    job->req = req;
    job->written = len;
    job->sender = fuse_req_ctx(req)->pid;
    int code = command_parse(data, len, &job->command, &err);
    if (code < 0) {
        refuse(fs, handle, req, &job->command, code, &err);
        free(job);
    } else if (command_is_sync(&job->command)) {
        submit_sync(fs->ctl, job);
    } else {
        submit(fs->ctl, job);
    }
}

static ssize_t ctl_read(struct fs *fs, struct handle *base, char *buffer, size_t size,
                        uint64_t offset)
{
    struct ctl_handle *handle = (struct ctl_handle *)base;
    ssize_t got = 0;
    (void)fs;

    pthread_mutex_lock(&handle->lock);
    if (handle->written) {
        got = (ssize_t)answers_read(&handle->results, buffer, size);
    } else if (offset < handle->list.len) {
        size_t left = handle->list.len - (size_t)offset;
        got = (ssize_t)(size < left ? size : left);
        memcpy(buffer, handle->list.at + offset, (size_t)got);
    }
    pthread_mutex_unlock(&handle->lock);
    return got;
}

static void ctl_release(struct fs *fs, struct handle *base)
{
    struct ctl_handle *handle = (struct ctl_handle *)base;

    handle_unlink(fs, base);
    answers_free(&handle->results);
    text_free(&handle->list);
    pthread_mutex_destroy(&handle->lock);
    handle_free(fs, base);
}

static const struct handle_type ctl_type = {
    .read = ctl_read, .write = ctl_write, .release = ctl_release};

int ctl_open(struct fs *fs, int flags, uid_t uid, struct handle **handle)
{
    int result = handle_new(fs, sizeof(struct ctl_handle), &ctl_type, uid, handle);
    if (result < 0)
        return result;
    struct ctl_handle *made = (struct ctl_handle *)*handle;
    result = (flags & O_ACCMODE) == O_WRONLY ? 0 : list_results(fs->ctl, &made->list);
    if (result < 0) {
        text_free(&made->list);
        handle_free(fs, *handle);
        return result;
    }
    pthread_mutex_init(&made->lock, NULL);
    handle_link(fs, *handle);
    return 0;
}

/* ---- making and ending ------------------------------------------------------------------------
 */

struct ctl *ctl_new(struct fs *fs)
{
    struct ctl *ctl = calloc(1, sizeof *ctl);
    if (!ctl)
        return NULL;
    ctl->fs = fs;
    pthread_mutex_init(&ctl->lock, NULL);
    pthread_cond_init(&ctl->wake, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&ctl->watch, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return ctl;
}

void ctl_stop(struct ctl *ctl)
{
    if (!ctl)
        return;
    pthread_mutex_lock(&ctl->lock);
    ctl->stopping = true;
    if (ctl->running)
        atomic_store(&ctl->running->progress.cancel, true);
    pthread_cond_signal(&ctl->wake);
    pthread_cond_signal(&ctl->watch);
    pthread_mutex_unlock(&ctl->lock);
    /* Neither starts any more. */
    if (ctl->watcher_started)
        pthread_join(ctl->watcher, NULL);
    if (ctl->started)
        pthread_join(ctl->thread, NULL);
    while (ctl->first) {
        struct job *job = ctl->first;
        leave_line(ctl, job);
        job->state = JOB_DONE;
        finish_interrupted(job, false);
    }
}

void ctl_free(struct ctl *ctl)
{
    if (!ctl)
        return;
    for (size_t i = 0; i < RESULTS_MAX; i++)
        text_free(&ctl->results[i]);
    pthread_cond_destroy(&ctl->watch);
    pthread_cond_destroy(&ctl->wake);
    pthread_mutex_destroy(&ctl->lock);
    free(ctl);
}

void ctl_running(struct ctl *ctl, struct json_writer *writer)
{
    pthread_mutex_lock(&ctl->lock);
    struct job *job = ctl->running;
    if (job) {
        json_open(writer, "running", '{');
        json_string(writer, "command", job->command.text);
        json_number(writer, "done", atomic_load(&job->progress.done));
        json_number(writer, "total", atomic_load(&job->progress.total));
        json_close(writer, '}');
    } else {
        json_null(writer, "running");
    }
    json_number(writer, "waiting", ctl->waiting);
    pthread_mutex_unlock(&ctl->lock);
}
