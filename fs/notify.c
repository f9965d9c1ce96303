/*
 * notify.c - tells the kernel that attributes it caches are old.
 *
 * When the bits or the owner of a session change, so do those of all its files, whose attributes
 * the kernel may keep for ever. So each inode that it may know of the session is invalidated: the
 * fixed files, what the table has, and each record; for most the kernel answers that it knows none.
 * A thread of its own does it, since there may be many: about half a second for a million records.
 *
 * Invalidating the session's entry would be one call and drop all below it. But the kernel takes
 * the lock of the directory sessions/ for that, which it holds during a mkdir, a look-up or a
 * listing there, until the daemon answers. Were the daemon killed just then, the thread would wait
 * in the kernel for a request that nobody answers, with the device open beneath it, by whose
 * closing alone such requests are ended: neither could be killed, by anything. Invalidating an
 * inode waits for nobody. So nothing here, and nothing elsewhere in the daemon, may invalidate an
 * entry by name (fuse_lowlevel_notify_inval_entry(), ..._expire_entry(), ..._delete()). What is
 * dropped for good needs it no more than this: with its attributes old, the kernel asks for it, and
 * where it is answered ESTALE, it looks the name up again.
 */
#include "fs_internal.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

#define AT_A_TIME 512

struct notice {
    struct notice *next;
    uint32_t session;
};

struct notifier {
    struct fs *fs;
    pthread_mutex_t lock; /* guards all below; a leaf */
    pthread_cond_t wake;
    struct notice *first, *last;
    void *waiting; /* those from first to last, as a tree by session */
    bool started, stopping;
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

static int compare(const void *a, const void *b)
{
    uint32_t one = ((const struct notice *)a)->session, other = ((const struct notice *)b)->session;
    return (one > other) - (one < other);
}

static bool is_stopping(struct notifier *notifier)
{
    pthread_mutex_lock(&notifier->lock);
    bool stopping = notifier->stopping;
    pthread_mutex_unlock(&notifier->lock);
    return stopping;
}

/* ---- sending ----------------------------------------------------------------------------------
 */

/* That the kernel knows nothing of it, or is gone, is fine: then there is nothing to drop. */
static void drop_inode(struct fs *fs, uint64_t id)
{
    /* A negative offset: the attributes, not the pages. */
    fuse_lowlevel_notify_inval_inode(fs->session, id, -1, 0);
}

static void drop_fixed(struct fs *fs, uint32_t session)
{
    size_t count;
    const struct node_entry *entries = node_entries(NODE_SESSION, &count);
    struct node node = {.kind = NODE_AT, .session = session}; /* it is not listed */
    uint64_t id;

    if (node_to_id(&node, &id))
        drop_inode(fs, id);
    for (size_t i = 0; i < count; i++) {
        node.kind = entries[i].kind;
        if (node_to_id(&node, &id))
            drop_inode(fs, id);
    }
}

static void drop_in_table(struct fs *fs, uint32_t session)
{
    size_t count = 0;
    uint64_t *ids = table_list(fs->table, session, &count);

    if (!ids && count > 0)
        fs_log(HL_WARNING, "no memory to invalidate the kernel's caches");
    for (size_t i = 0; ids && i < count; i++)
        drop_inode(fs, ids[i]);
    free(ids);
}

struct seqs {
    size_t count;
    uint64_t at[AT_A_TIME];
};

static bool take_seq(void *context, const struct hl_record *record)
{
    struct seqs *seqs = context;

    seqs->at[seqs->count++] = record->seq;
    return seqs->count < AT_A_TIME;
}

/* Those whose id has no room for their seq are in the table. */
static void drop_records(struct notifier *notifier, uint32_t session)
{
    struct fs *fs = notifier->fs;
    struct node node = {.kind = NODE_RECORD, .session = session};
    struct seqs seqs = {.count = AT_A_TIME};
    uint64_t id, from = 0;

    while (seqs.count == AT_A_TIME && !is_stopping(notifier)) {
        seqs.count = 0;
        if (hl_record_list(fs->store, session, from, false, take_seq, &seqs) < 0)
            fs_log(HL_WARNING, "cannot list records to invalidate the kernel's caches");
        for (size_t i = 0; i < seqs.count; i++) {
            node.a = seqs.at[i];
            if (node_to_id(&node, &id))
                drop_inode(fs, id);
        }
        if (seqs.count > 0)
            from = seqs.at[seqs.count - 1] + 1;
    }
}

/* ---- the thread -------------------------------------------------------------------------------
 */

/* The oldest notice, out of the queue. */
static struct notice *take(struct notifier *notifier)
{
    struct notice *notice = notifier->first;

    if (notice) {
        notifier->first = notice->next;
        if (!notifier->first)
            notifier->last = NULL;
        tdelete(notice, &notifier->waiting, compare);
    }
    return notice;
}

static void *run(void *context)
{
    struct notifier *notifier = context;

    pthread_mutex_lock(&notifier->lock);
    while (!notifier->stopping) {
        struct notice *notice = take(notifier);
        if (!notice) {
            pthread_cond_wait(&notifier->wake, &notifier->lock);
            continue;
        }
        pthread_mutex_unlock(&notifier->lock);
        drop_fixed(notifier->fs, notice->session);
        drop_in_table(notifier->fs, notice->session);
        drop_records(notifier, notice->session);
        free(notice);
        pthread_mutex_lock(&notifier->lock);
    }
    pthread_mutex_unlock(&notifier->lock);
    return NULL;
}

/* Puts the notice into the queue, unless one for the session waits there. False: it is not taken.
 */
static bool add(struct notifier *notifier, struct notice *notice)
{
    struct notice **found = tsearch(notice, &notifier->waiting, compare);

    if (!found || *found != notice)
        return false;
    if (notifier->last)
        notifier->last->next = notice;
    else
        notifier->first = notice;
    notifier->last = notice;
    pthread_cond_signal(&notifier->wake);
    return true;
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
    bool taken = notifier->started && !notifier->stopping && add(notifier, notice);
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
    enqueue(fs->notifier, notice);
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
    if (started)
        pthread_join(notifier->thread, NULL);
    for (struct notice *notice = take(notifier); notice; notice = take(notifier))
        free(notice);
    pthread_cond_destroy(&notifier->wake);
    pthread_mutex_destroy(&notifier->lock);
    free(notifier);
}
