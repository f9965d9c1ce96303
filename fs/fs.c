/*
 * fs.c - struct fs: making and ending it, and the small things that all handlers share.
 */
#include "ahead.h"
#include "announce.h"
#include "beside.h"
#include "draft.h"
#include "follow.h"
#include "listed.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define KEEP_SECONDS (365.0 * 24 * 3600)
/* Beside a writer in another process nobody tells us when a session's bits change. */
#define KEEP_SECONDS_READ_ONLY 1.0
/* Read buffers up to this size stay with their thread; of larger ones, as the kernel asks for at
 * most, one stays: fresh pages from the system cost more than filling them. */
#define BUFFER_KEPT (256U * 1024)
#define BUFFER_LARGE (1024U * 1024)

/* ---- clocks, threads, memory ------------------------------------------------------------------
 */

static uint64_t clock_ms(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t fs_now_ms(void)
{
    return clock_ms(CLOCK_REALTIME);
}

uint64_t fs_tick_ms(void)
{
    return clock_ms(CLOCK_MONOTONIC);
}

int fs_thread_start(pthread_t *thread, void *(*run)(void *), void *context)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(thread, NULL, run, context);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -error;
}

char *fs_buffer(struct fs *fs, size_t size)
{
    char *buffer;
    if (size > BUFFER_LARGE)
        return malloc(size);
    if (size > BUFFER_KEPT) {
        buffer = atomic_exchange(&fs->large_buffer, NULL);
        return buffer ? buffer : malloc(BUFFER_LARGE);
    }
    buffer = pthread_getspecific(fs->buffer_key);
    if (buffer)
        return buffer;
    buffer = malloc(BUFFER_KEPT);
    if (buffer && pthread_setspecific(fs->buffer_key, buffer) != 0) {
        free(buffer);
        return NULL;
    }
    return buffer;
}

void fs_buffer_done(struct fs *fs, char *buffer, size_t size)
{
    if (size > BUFFER_LARGE)
        free(buffer);
    else if (size > BUFFER_KEPT && buffer)
        free(atomic_exchange(&fs->large_buffer, buffer));
}

struct sender sender_of(fuse_req_t req)
{
    const struct fuse_ctx *context = fuse_req_ctx(req);
    return (struct sender){.pid = context->pid, .uid = context->uid};
}

int fs_errno(int result)
{
    return result == -EBADMSG ? EIO : -result;
}

/* ---- handles ----------------------------------------------------------------------------------
 */

int handle_new(struct fs *fs, size_t size, const struct handle_type *type, uid_t uid,
               struct handle **handle)
{
    struct handle *made = calloc(1, size);
    if (!made)
        return -ENOMEM;
    made->type = type;
    made->user = user_enter(fs, uid);
    if (share_take(fs, made->user, SHARE_FILES, 1) != TAKEN) {
        user_leave(fs, made->user);
        free(made);
        return -EMFILE;
    }
    *handle = made;
    return 0;
}

void handle_free(struct fs *fs, struct handle *handle)
{
    share_give(fs, handle->user, SHARE_FILES, 1);
    user_leave(fs, handle->user);
    free(handle);
}

void handle_link(struct fs *fs, struct handle *handle)
{
    pthread_mutex_lock(&fs->handles_lock);
    handle->previous = NULL;
    handle->next = fs->handles;
    if (fs->handles)
        fs->handles->previous = handle;
    fs->handles = handle;
    pthread_mutex_unlock(&fs->handles_lock);
}

void handle_unlink(struct fs *fs, struct handle *handle)
{
    pthread_mutex_lock(&fs->handles_lock);
    if (handle->previous)
        handle->previous->next = handle->next;
    else
        fs->handles = handle->next;
    if (handle->next)
        handle->next->previous = handle->previous;
    pthread_mutex_unlock(&fs->handles_lock);
}

/* ---- making and ending ------------------------------------------------------------------------
 */

/* What follows the plain fields; on failure fs_free() undoes whatever was made. */
static int make_parts(struct fs *fs)
{
    int error = pthread_key_create(&fs->buffer_key, free);
    if (error)
        return -error;
    fs->buffer_key_made = true;
    fs->dir_fd = open(fs->options->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fs->dir_fd < 0)
        return -errno;
    fs->users = users_new();
    fs->table = table_new();
    fs->dropped = dropped_new();
    fs->drafts = drafts_new();
    fs->last_errors = last_errors_new();
    fs->notifier = notifier_new(fs);
    fs->ctl = ctl_new(fs);
    fs->follow = follow_new(fs);
    fs->announcer = announcer_new(fs);
    fs->ahead = ahead_new(fs->dropped);
    fs->listed = listed_new();
    if (!fs->users || !fs->table || !fs->dropped || !fs->drafts || !fs->last_errors ||
        !fs->notifier || !fs->ctl || !fs->follow || !fs->announcer || !fs->ahead || !fs->listed)
        return -ENOMEM;
    return 0;
}

int fs_new(const struct fs_options *options, struct hl_store *store, struct fs **out)
{
    struct fs *fs = calloc(1, sizeof *fs);
    if (!fs)
        return -ENOMEM;
    fs->options = options;
    fs->store = store;
    fs->uid = geteuid();
    fs->gid = getegid();
    fs->dir_fd = -1;
    fs->started_ms = fs_now_ms();
    fs->started_tick = fs_tick_ms();
    fs->keep = options->read_only ? KEEP_SECONDS_READ_ONLY : KEEP_SECONDS;
    atomic_init(&fs->changed_ms, fs->started_ms);
    atomic_init(&fs->sessions_changed_ms, fs->started_ms);
    pthread_mutex_init(&fs->handles_lock, NULL);
    pthread_mutex_init(&fs->parked_lock, NULL);
    pthread_cond_init(&fs->parked_none, NULL);
    int result = make_parts(fs);
    if (result < 0) {
        fs_free(fs);
        return result;
    }
    *out = fs;
    return 0;
}

void fs_attach(struct fs *fs, struct fuse_session *session)
{
    fs->session = session;
}

static void take_news(struct fs *fs, const struct hl_news *news)
{
    /* Beside a writer that is seen by looking (dropped_seen()), and must not be counted twice. */
    bool seen = fs->options->read_only && news->session != 0;
    if (news->deleted)
        dropped_forget(fs->dropped, news->session);
    else if (news->dropped_records > 0 && !seen &&
             !dropped_add(fs->dropped, news->session, news->dropped_bytes))
        fs_log(HL_ERROR, "no memory to remember that records were dropped: open logs of their "
                         "session may be read from a wrong place");
    if (news->session != 0 && (news->deleted || news->dropped_records > 0))
        notify_dropped(fs, news);
    if (news->deleted)
        follow_gone(fs->follow, news->session);
    if (news->records > 0)
        follow_news(fs->follow, news->session);
    announcer_news(fs->announcer, news);
}

void fs_relay_to(struct fs_relay *relay, struct fs *fs)
{
    pthread_rwlock_wrlock(&relay->lock);
    relay->fs = fs;
    pthread_rwlock_unlock(&relay->lock);
}

void fs_news(void *context, const struct hl_news *news)
{
    struct fs_relay *relay = context;

    pthread_rwlock_rdlock(&relay->lock);
    if (relay->fs)
        take_news(relay->fs, news);
    pthread_rwlock_unlock(&relay->lock);
}

int fs_start(struct fs *fs, bool seen, dev_t device)
{
    announcer_start(fs->announcer, seen, device);
    return fs->options->read_only ? beside_start(fs, &fs->beside) : 0;
}

void fs_stop(struct fs *fs, bool ended)
{
    beside_stop(fs->beside);
    fs->beside = NULL;
    follow_stop(fs->follow, ended);
    announcer_stop(fs->announcer, ended);
}

void fs_free(struct fs *fs)
{
    if (!fs)
        return;
    fs_stop(fs, true);
    ctl_stop(fs->ctl); /* a command may be waiting for the notifier */
    notifier_free(fs->notifier);
    parked_wait_all(fs);
    while (fs->handles)
        fs->handles->type->release(fs, fs->handles);
    ctl_free(fs->ctl);
    announcer_free(fs->announcer);
    listed_free(fs->listed);
    ahead_free(fs->ahead);
    follow_free(fs->follow);
    last_errors_free(fs->last_errors);
    drafts_free(fs);
    users_free(fs->users);
    dropped_free(fs->dropped);
    table_free(fs->table);
    if (fs->dir_fd >= 0)
        close(fs->dir_fd);
    if (fs->buffer_key_made) {
        /* Other threads' buffers went with their threads. */
        free(pthread_getspecific(fs->buffer_key));
        pthread_key_delete(fs->buffer_key);
    }
    free(atomic_load(&fs->large_buffer));
    pthread_cond_destroy(&fs->parked_none);
    pthread_mutex_destroy(&fs->parked_lock);
    pthread_mutex_destroy(&fs->handles_lock);
    free(fs);
}
