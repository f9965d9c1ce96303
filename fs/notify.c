/*
 * notify.c - tells the kernel that attributes it caches are old: of sessions whose bits changed, of
 * records that were dropped, of sessions that are gone.
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
#include "draft.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

#define AT_A_TIME 512
#define LOOK_MS 100

/* Seqs of records that are invalidated beyond those that there are or were: see notify_thin(). */
#define SEQS_BEYOND 65536U

struct notice {
    struct notice *next;
    uint32_t session;
    enum notice_kind { BITS_CHANGED, RECORDS_DROPPED, SESSION_GONE } kind;
    uint64_t first, last, records; /* of what was dropped */
};

struct notifier {
    struct fs *fs;
    pthread_mutex_t lock; /* guards all below; a leaf */
    pthread_cond_t wake;
    struct notice *first, *last;
    void *waiting; /* those of changed bits from first to last, as a tree by session */
    pthread_cond_t through;
    uint64_t taken, done; /* how many notices were */
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
    pthread_cond_init(&notifier->through, NULL);
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

bool notify_thin(const struct hl_session *session)
{
    return session->records > 0 &&
           session->last_seq - session->first_seq >= 4 * session->records + SEQS_BEYOND;
}

/* Of the seqs that were dropped; in a thin session the kernel was told not to keep records. */
static void drop_seqs(struct notifier *notifier, const struct notice *notice)
{
    struct node node = {.kind = NODE_RECORD, .session = notice->session, .a = notice->first};
    struct hl_session session = {.records = 0};
    uint64_t id, last = notice->last;

    hl_session_by_number(notifier->fs->store, notice->session, &session);
    uint64_t most = 4 * (notice->records + session.records) + SEQS_BEYOND;
    if (last < notice->first)
        return;
    if (last - notice->first > most)
        last = notice->first + most;
    for (; node.a <= last && !(node.a % AT_A_TIME == 0 && is_stopping(notifier)); node.a++) {
        if (!node_to_id(&node, &id))
            break; /* this one and those above are in the table */
        drop_inode(notifier->fs, id);
    }
}

static void drop_directories(struct fs *fs, uint32_t session)
{
    static const enum node_kind kinds[] = {NODE_SESSION, NODE_FOLLOW, NODE_AT};
    uint64_t id;

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct node node = {.kind = kinds[i], .session = session};
        if (node_to_id(&node, &id))
            drop_inode(fs, id);
    }
}

static void deal_with(struct notifier *notifier, const struct notice *notice)
{
    struct fs *fs = notifier->fs;

    if (fs->session && notice->kind != RECORDS_DROPPED)
        drop_fixed(fs, notice->session);
    if (fs->session)
        drop_in_table(fs, notice->session);
    if (fs->session && notice->kind == BITS_CHANGED)
        drop_records(notifier, notice->session);
    if (fs->session && notice->kind != BITS_CHANGED)
        drop_seqs(notifier, notice);
    if (fs->session && notice->kind == SESSION_GONE)
        drop_directories(fs, notice->session);
    if (notice->kind == SESSION_GONE)
        drafts_forget(fs, notice->session);
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
        if (notice->kind == BITS_CHANGED)
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
        deal_with(notifier, notice);
        free(notice);
        pthread_mutex_lock(&notifier->lock);
        notifier->done++;
        pthread_cond_broadcast(&notifier->through);
    }
    pthread_mutex_unlock(&notifier->lock);
    return NULL;
}

/* Puts the notice into the queue, unless one of changed bits of the session waits there. False: it
 * is not taken. */
static bool add(struct notifier *notifier, struct notice *notice)
{
    struct notice **found =
        notice->kind == BITS_CHANGED ? tsearch(notice, &notifier->waiting, compare) : &notice;

    if (!found || *found != notice)
        return false;
    notifier->taken++;
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

static void notify(struct fs *fs, const struct notice *notice)
{
    struct notice *made = malloc(sizeof *made);

    if (!made) {
        fs_log(HL_WARNING, "no memory to invalidate the kernel's caches");
        return;
    }
    *made = *notice;
    made->next = NULL;
    enqueue(fs->notifier, made);
}

void notify_session(struct fs *fs, const struct hl_session *session)
{
    if (fs->session)
        notify(fs, &(struct notice){.session = session->number});
}

void notify_dropped(struct fs *fs, const struct hl_news *news)
{
    notify(fs, &(struct notice){.session = news->session,
                                .kind = news->deleted ? SESSION_GONE : RECORDS_DROPPED,
                                .first = news->dropped_first,
                                .last = news->dropped_last,
                                .records = news->dropped_records});
}

void notify_wait(struct fs *fs, const _Atomic bool *cancel)
{
    struct notifier *notifier = fs->notifier;

    pthread_mutex_lock(&notifier->lock);
    uint64_t taken = notifier->taken;
    while (notifier->done < taken && !notifier->stopping && !atomic_load(cancel)) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += LOOK_MS * 1000000L; /* whether it is cancelled */
        if (until.tv_nsec >= 1000000000L) {
            until.tv_nsec -= 1000000000L;
            until.tv_sec++;
        }
        pthread_cond_timedwait(&notifier->through, &notifier->lock, &until);
    }
    pthread_mutex_unlock(&notifier->lock);
}

void notifier_free(struct notifier *notifier)
{
    if (!notifier)
        return;
    pthread_mutex_lock(&notifier->lock);
    notifier->stopping = true;
    pthread_cond_signal(&notifier->wake);
    pthread_cond_broadcast(&notifier->through);
    bool started = notifier->started;
    pthread_mutex_unlock(&notifier->lock);
    if (started)
        pthread_join(notifier->thread, NULL);
    for (struct notice *notice = take(notifier); notice; notice = take(notifier))
        free(notice);
    pthread_cond_destroy(&notifier->through);
    pthread_cond_destroy(&notifier->wake);
    pthread_mutex_destroy(&notifier->lock);
    free(notifier);
}
