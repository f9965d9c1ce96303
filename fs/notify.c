/*
 * notify.c - tells the kernel to drop what it caches.
 *
 * From a thread of its own that holds no lock: such a notification waits for the lock of the parent
 * directory's inode, which the kernel holds during a mkdir there; a request handler that waited for
 * it could wait for itself. The thread is started by the first notification.
 */
#include "fs_internal.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

struct notice {
    struct notice *next;
    uint32_t session;
    size_t name_len;
    char name[NODE_NAME_MAX + 1];
};

struct notifier {
    struct fs *fs;
    pthread_mutex_t lock; /* guards all below; a leaf */
    pthread_cond_t wake;
    struct notice *first, *last;
    bool started, stopping;
    bool busy; /* a notification is in the kernel's hands */
    pthread_t thread;
};

struct notifier *notifier_new(struct fs *fs)
{
    struct notifier *notifier = calloc(1, sizeof *notifier);
    if (!notifier)
        return NULL;
    notifier->fs = fs;
    pthread_mutex_init(&notifier->lock, NULL);
    pthread_cond_init(&notifier->wake, NULL);
    return notifier;
}

static void drop_inode(struct fs *fs, uint32_t session, enum node_kind kind)
{
    struct node node = {.kind = kind, .session = session};
    uint64_t id;

    /* A negative offset: the attributes, not the pages. */
    if (node_to_id(&node, &id))
        fuse_lowlevel_notify_inval_inode(fs->session, id, -1, 0);
}

/* That the kernel knows nothing of it, or is gone, is fine: then there is nothing to drop. */
static void send(struct fs *fs, const struct notice *notice)
{
    size_t count;
    struct node sessions = {.kind = NODE_SESSIONS};
    uint64_t id;

    if (node_to_id(&sessions, &id))
        fuse_lowlevel_notify_inval_entry(fs->session, id, notice->name, notice->name_len);
    /* What is in use outlives its entry, with the attributes that it had. */
    const struct node_entry *entries = node_entries(NODE_SESSION, &count);
    for (size_t i = 0; i < count; i++)
        drop_inode(fs, notice->session, entries[i].kind);
}

static void *run(void *context)
{
    struct notifier *notifier = context;

    pthread_mutex_lock(&notifier->lock);
    while (!notifier->stopping) {
        struct notice *notice = notifier->first;
        if (!notice) {
            pthread_cond_wait(&notifier->wake, &notifier->lock);
            continue;
        }
        notifier->first = notice->next;
        if (!notifier->first)
            notifier->last = NULL;
        notifier->busy = true;
        pthread_mutex_unlock(&notifier->lock);
        send(notifier->fs, notice);
        free(notice);
        pthread_mutex_lock(&notifier->lock);
        notifier->busy = false;
    }
    pthread_mutex_unlock(&notifier->lock);
    return NULL;
}

/* Without the notice the kernel goes on with old bits, but open() checks the present ones: said, no
 * more. */
static void enqueue(struct notifier *notifier, struct notice *notice)
{
    int result = 0;

    pthread_mutex_lock(&notifier->lock);
    if (!notifier->started && !notifier->stopping) {
        result = fs_thread_start(&notifier->thread, run, notifier);
        notifier->started = result == 0;
    }
    bool taken = notifier->started && !notifier->stopping;
    if (taken) {
        if (notifier->last)
            notifier->last->next = notice;
        else
            notifier->first = notice;
        notifier->last = notice;
        pthread_cond_signal(&notifier->wake);
    }
    pthread_mutex_unlock(&notifier->lock);
    if (!taken)
        free(notice);
    if (result < 0)
        fs_log(HL_WARNING, "cannot start the thread that invalidates the kernel's caches: %s",
               strerror(-result));
}

void notify_session(struct fs *fs, const struct hl_session *session)
{
    if (!fs->session)
        return;
    struct notice *notice = calloc(1, sizeof *notice);
    if (!notice) {
        fs_log(HL_WARNING, "no memory to invalidate the kernel's caches");
        return;
    }
    notice->session = session->number;
    notice->name_len = name_encode(session->id, session->id_len, notice->name);
    if (notice->name_len == 0) {
        free(notice); /* it has no name here, so nothing of it is cached */
        return;
    }
    enqueue(fs->notifier, notice);
}

static bool is_busy(void *context)
{
    struct notifier *notifier = context;

    pthread_mutex_lock(&notifier->lock);
    bool busy = notifier->busy;
    pthread_mutex_unlock(&notifier->lock);
    return busy;
}

/*
 * The loop has ended, but a notification, or a request of our own, may wait in the kernel for a
 * directory that is locked by a request that nobody has answered yet: so requests are served here
 * until it is through.
 */
void fs_serve_while(struct fs *fs, bool (*busy)(void *context), void *context)
{
    struct fuse_session *session = fs->session;
    struct fuse_buf buffer = {.mem = NULL};

    while (busy(context)) {
        struct pollfd ready = {.fd = fuse_session_fd(session), .events = POLLIN};
        if (ready.fd < 0)
            break;
        if (poll(&ready, 1, 10) <= 0)
            continue;
        if (!(ready.revents & POLLIN))
            break; /* the connection is gone, and with it what is waited for */
        fuse_session_reset(session);
        int got = fuse_session_receive_buf(session, &buffer);
        if (got > 0)
            fuse_session_process_buf(session, &buffer);
        fuse_session_exit(session);
        if (got <= 0 && got != -EINTR && got != -EAGAIN)
            break;
    }
    free(buffer.mem);
}

void notifier_free(struct notifier *notifier)
{
    if (!notifier)
        return;
    pthread_mutex_lock(&notifier->lock);
    notifier->stopping = true;
    pthread_cond_signal(&notifier->wake);
    bool started = notifier->started;
    pthread_mutex_unlock(&notifier->lock);
    if (started) {
        fs_serve_while(notifier->fs, is_busy, notifier);
        pthread_join(notifier->thread, NULL);
    }
    while (notifier->first) {
        struct notice *next = notifier->first->next;
        free(notifier->first);
        notifier->first = next;
    }
    pthread_cond_destroy(&notifier->wake);
    pthread_mutex_destroy(&notifier->lock);
    free(notifier);
}
