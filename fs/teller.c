/*
 * teller.c - the thread through whose hands all goes that the daemon itself asks of its mount; see
 * teller.h.
 *
 * It never resolves a path across another mount. What it tells, it tells to the kernel as the
 * truth: a record that is gone is not made, and an event that fails to be told is counted.
 */
#include "teller.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define SECRET_BYTES 16
#define SECRET_PREFIX ".hotlogfs-announcer-"

/* The directories of a session that a turn has open. */
struct told {
    uint32_t session;
    int fd;       /* the session's */
    int state_fd; /* -1: not opened */
    bool records; /* were made: its log is told of, too */
};

struct teller {
    const char *mountpoint;
    dev_t device;
    char secret[sizeof SECRET_PREFIX + (size_t)2 * SECRET_BYTES];
    _Atomic pid_t asked;  /* the id that the look-up of the secret came with; 0: none has come */
    _Atomic pid_t sender; /* that of the thread, once it knows that it works; else 0 */
    _Atomic uint64_t told, failed;
    _Atomic bool hurried;

    pthread_mutex_t lock; /* guards all below; a leaf */
    pthread_cond_t ordered, done;
    struct turn *turn; /* ordered, and not done yet */
    bool started, ends;
    bool hiding; /* `item` is denied to the thread until it makes it */
    struct node item;
    const struct news_item *document; /* whose turn it is; NULL: none */
    const struct news_item *gone;     /* likewise, a session */
    pthread_t thread;
};

/* ---- making -----------------------------------------------------------------------------------
 */

static bool make_secret(char *secret, size_t size)
{
    unsigned char random[SECRET_BYTES];

    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return false;
    size_t used = (size_t)snprintf(secret, size, "%s", SECRET_PREFIX);
    for (size_t i = 0; i < sizeof random; i++)
        used += (size_t)snprintf(secret + used, size - used, "%02x", random[i]);
    return true;
}

struct teller *teller_new(const char *mountpoint)
{
    struct teller *teller = calloc(1, sizeof *teller);

    if (!teller || !make_secret(teller->secret, sizeof teller->secret)) {
        free(teller);
        return NULL;
    }
    teller->mountpoint = mountpoint;
    pthread_mutex_init(&teller->lock, NULL);
    pthread_cond_init(&teller->ordered, NULL);
    pthread_cond_init(&teller->done, NULL);
    return teller;
}

void teller_free(struct teller *teller)
{
    if (!teller)
        return;
    teller_end(teller);
    pthread_cond_destroy(&teller->ordered);
    pthread_cond_destroy(&teller->done);
    pthread_mutex_destroy(&teller->lock);
    free(teller);
}

/* ---- through the mount ------------------------------------------------------------------------
 */

/* The teller's descriptors are numbers in a table of its own (see run()), so they are opened
 * and closed past the C library, where what follows a process's descriptors by number would take
 * them for others. */
static void let_go(int fd)
{
    syscall(SYS_close, fd);
}

/* Opens below a directory of the mount, and nowhere else. */
static int open_below(int directory, const char *path, uint64_t flags)
{
    struct open_how how = {.flags = flags | O_CLOEXEC | O_NOFOLLOW,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS};
    if (flags & O_CREAT)
        how.mode = 0600;
    return (int)syscall(SYS_openat2, directory, path, &how, sizeof how);
}

/* The mountpoint, if it is still ours; -1 if not. Asks no other file system anything. */
static int open_mount(const struct teller *teller)
{
    struct statx st;
    int fd =
        (int)syscall(SYS_openat, AT_FDCWD, teller->mountpoint, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return -1;
    if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &st) == 0 &&
        makedev(st.stx_dev_major, st.stx_dev_minor) == teller->device)
        return fd;
    let_go(fd);
    return -1;
}

static void hide(struct teller *teller, const struct node *node)
{
    pthread_mutex_lock(&teller->lock);
    teller->hiding = true;
    teller->item = *node;
    pthread_mutex_unlock(&teller->lock);
}

static void show(struct teller *teller)
{
    pthread_mutex_lock(&teller->lock);
    teller->hiding = false;
    pthread_mutex_unlock(&teller->lock);
}

/* 0, or the errno. */
static int tell_record(struct teller *teller, int directory, const struct news_item *item)
{
    struct node node = {.kind = NODE_RECORD, .session = item->session, .a = item->number};
    char name[24];

    snprintf(name, sizeof name, "%" PRIu64, item->number);
    hide(teller, &node);
    int fd = open_below(directory, name, O_WRONLY | O_CREAT | O_EXCL);
    int error = fd < 0 ? errno : 0;
    show(teller);
    if (fd >= 0)
        let_go(fd);
    return error;
}

static int tell_session(struct teller *teller, int mount, uint32_t session, const char *name)
{
    struct node node = {.kind = NODE_SESSION, .session = session};
    int sessions = open_below(mount, "sessions", O_PATH | O_DIRECTORY);

    if (sessions < 0)
        return errno;
    hide(teller, &node);
    int error = mkdirat(sessions, name, 0700) != 0 ? errno : 0;
    show(teller);
    let_go(sessions);
    return error;
}

/* Removes the name, for which the request handlers answer as long as no other session has it. */
static int tell_gone(struct teller *teller, int mount, const struct order *order)
{
    int sessions = open_below(mount, "sessions", O_PATH | O_DIRECTORY);

    if (sessions < 0)
        return errno;
    pthread_mutex_lock(&teller->lock);
    teller->gone = &order->item;
    pthread_mutex_unlock(&teller->lock);
    int error = unlinkat(sessions, order->name, AT_REMOVEDIR) != 0 ? errno : 0;
    pthread_mutex_lock(&teller->lock);
    teller->gone = NULL;
    pthread_mutex_unlock(&teller->lock);
    let_go(sessions);
    return error;
}

static void set_document(struct teller *teller, const struct news_item *document)
{
    pthread_mutex_lock(&teller->lock);
    teller->document = document;
    pthread_mutex_unlock(&teller->lock);
}

/* Makes the file, opens it or removes it, and writes a byte if it is there, which goes nowhere. So
 * the kernel tells what it tells of a file that is made, written or removed. */
static int tell_document(struct teller *teller, int state, const struct order *order)
{
    enum hl_change change = order->item.change;
    int fd = -1, error = 0;

    set_document(teller, &order->item);
    if (change == HL_DOCUMENT_DELETED) {
        error = unlinkat(state, order->key, 0) != 0 ? errno : 0;
    } else {
        fd = open_below(state, order->key,
                        O_WRONLY | (change == HL_DOCUMENT_MADE ? O_CREAT | O_EXCL : 0));
        if (fd < 0 || syscall(SYS_write, fd, "\n", 1) != 1)
            error = errno;
    }
    set_document(teller, NULL);
    if (fd >= 0)
        let_go(fd);
    return error;
}

/* With only the time of the last change set, the kernel says that it was changed. */
static void tell_log(int directory)
{
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_NOW}};
    int fd = open_below(directory, "log", O_PATH);

    if (fd < 0)
        return;
    utimensat(fd, "", times, AT_EMPTY_PATH);
    let_go(fd);
}

/* ---- turns ------------------------------------------------------------------------------------
 */

/* The session's directories, from now on open until the turn ends; or NULL, and errno. */
static struct told *directory_of(struct told *told, size_t *count, int mount,
                                 const struct order *order)
{
    char path[sizeof "sessions/" + NODE_NAME_MAX];

    for (size_t i = 0; i < *count; i++) {
        if (told[i].session == order->item.session)
            return &told[i];
    }
    snprintf(path, sizeof path, "sessions/%s", order->name);
    int fd = open_below(mount, path, O_PATH | O_DIRECTORY);
    if (fd < 0)
        return NULL;
    told[*count] = (struct told){.session = order->item.session, .fd = fd, .state_fd = -1};
    return &told[(*count)++];
}

/* 0, or the errno. */
static int tell_in(struct teller *teller, struct told *directory, const struct order *order)
{
    if (order->item.kind == NEWS_RECORD) {
        directory->records = true;
        return tell_record(teller, directory->fd, &order->item);
    }
    if (directory->state_fd < 0)
        directory->state_fd = open_below(directory->fd, "state", O_PATH | O_DIRECTORY);
    return directory->state_fd < 0 ? errno : tell_document(teller, directory->state_fd, order);
}

/* Tells that logs grew, and closes all. Returns whether any did. */
static bool end_turn(const struct told *told, size_t count)
{
    bool any = false;

    for (size_t i = 0; i < count; i++) {
        if (told[i].records)
            tell_log(told[i].fd);
        any = any || told[i].records;
        if (told[i].state_fd >= 0)
            let_go(told[i].state_fd);
        let_go(told[i].fd);
    }
    return any;
}

static void perform(struct teller *teller, struct turn *turn)
{
    struct told told[TURN_ITEMS];
    size_t told_count = 0;
    int mount = open_mount(teller);

    turn->why_not = mount < 0 ? "something else lies on the mountpoint" : NULL;
    if (mount < 0)
        return;
    for (size_t i = 0; i < turn->count && !atomic_load(&teller->hurried); i++) {
        const struct order *order = &turn->orders[i];
        int error;
        if (order->item.kind == NEWS_SESSION) {
            error = tell_session(teller, mount, order->item.session, order->name);
        } else if (order->item.kind == NEWS_GONE) {
            error = tell_gone(teller, mount, order);
        } else {
            struct told *directory = directory_of(told, &told_count, mount, order);
            error = directory ? tell_in(teller, directory, order) : errno;
        }
        if (error == 0)
            atomic_fetch_add(&teller->told, 1);
        else if (error != ENOENT) /* it is there, but the kernel would not have it made */
            atomic_fetch_add(&teller->failed, 1);
    }
    if (end_turn(told, told_count))
        tell_log(mount);
    let_go(mount);
}

/* Finds out by which id the request handlers see this thread. NULL, or why there is none. */
static const char *find_self(struct teller *teller)
{
    struct stat st;
    int mount = open_mount(teller);

    if (mount < 0)
        return "something else lies on the mountpoint";
    fstatat(mount, teller->secret, &st, AT_SYMLINK_NOFOLLOW);
    let_go(mount);
    pid_t id = atomic_load(&teller->asked);
    if (id == 0)
        return "the daemon is not in the mount's pid namespace";
    atomic_store(&teller->sender, id);
    return NULL;
}

/* Gives the calling thread descriptors of its own, of which it has none but the standard ones, on
 * /dev/null: whoever reads what the daemon prints must not wait for this thread. */
static bool keep_apart(void)
{
    if (close_range(3, ~0U, CLOSE_RANGE_UNSHARE) != 0)
        return false;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    bool good = null >= 0;
    for (int fd = 0; fd < 3 && good; fd++)
        good = dup2(null, fd) == fd;
    close_range(3, ~0U, 0);
    return good;
}

/* Were the daemon killed while a request of this thread's is under way, the device would stay open
 * until the thread ends, which it does only when the device is closed. So its table of descriptors
 * is its own, without the device. */
static void *run(void *context)
{
    struct teller *teller = context;
    bool first = true;

    const char *why = keep_apart() ? NULL : "its descriptors cannot be kept apart";
    pthread_mutex_lock(&teller->lock);
    while (!teller->ends) {
        struct turn *turn = teller->turn;
        if (!turn) {
            pthread_cond_wait(&teller->ordered, &teller->lock);
            continue;
        }
        pthread_mutex_unlock(&teller->lock);
        if (first && !why)
            why = find_self(teller);
        first = false;
        turn->why_not = why;
        if (!why)
            perform(teller, turn);
        pthread_mutex_lock(&teller->lock);
        teller->turn = NULL;
        pthread_cond_signal(&teller->done);
    }
    pthread_mutex_unlock(&teller->lock);
    return NULL;
}

int teller_start(struct teller *teller, dev_t device)
{
    teller->device = device;
    int result = fs_thread_start(&teller->thread, run, teller);
    teller->started = result == 0;
    return result;
}

const char *teller_tell(struct teller *teller, struct turn *turn)
{
    pthread_mutex_lock(&teller->lock);
    teller->turn = turn;
    pthread_cond_signal(&teller->ordered);
    while (teller->turn)
        pthread_cond_wait(&teller->done, &teller->lock);
    pthread_mutex_unlock(&teller->lock);
    return turn->why_not;
}

void teller_hurry(struct teller *teller)
{
    atomic_store(&teller->hurried, true);
}

void teller_end(struct teller *teller)
{
    if (!teller->started)
        return;
    pthread_mutex_lock(&teller->lock);
    teller->ends = true;
    pthread_cond_signal(&teller->ordered);
    pthread_mutex_unlock(&teller->lock);
    pthread_join(teller->thread, NULL);
    teller->started = false;
}

void teller_counts(struct teller *teller, uint64_t *told, uint64_t *failed)
{
    *told = atomic_load(&teller->told);
    *failed = atomic_load(&teller->failed);
}

/* ---- for the request handlers -----------------------------------------------------------------
 */

bool teller_is_asked(struct teller *teller, fuse_req_t req, const char *name)
{
    if (atomic_load(&teller->sender) != 0 || strcmp(name, teller->secret) != 0)
        return false;
    atomic_store(&teller->asked, fuse_req_ctx(req)->pid);
    return true;
}

bool teller_sent(struct teller *teller, fuse_req_t req)
{
    pid_t sender = atomic_load(&teller->sender);
    return sender != 0 && fuse_req_ctx(req)->pid == sender;
}

bool teller_hides(struct teller *teller, fuse_req_t req, const struct node *node)
{
    if (!teller_sent(teller, req))
        return false;
    pthread_mutex_lock(&teller->lock);
    bool hidden = teller->hiding && node_equal(&teller->item, node);
    pthread_mutex_unlock(&teller->lock);
    return hidden;
}

bool teller_makes(struct teller *teller, fuse_req_t req, const struct node *node)
{
    bool hidden = teller_hides(teller, req, node);
    if (hidden)
        show(teller); /* from now on the name is there */
    return hidden;
}

int teller_document(struct teller *teller, const struct node *directory, struct node *node)
{
    int result = -ENOENT;

    pthread_mutex_lock(&teller->lock);
    const struct news_item *item = teller->document;
    if (item && item->session == directory->session && item->change != HL_DOCUMENT_MADE) {
        *node = (struct node){.kind = NODE_DOCUMENT, .session = item->session, .a = item->number};
        result = 0;
    }
    pthread_mutex_unlock(&teller->lock);
    return result;
}

bool teller_ends(struct teller *teller, const char *name, struct node *node)
{
    pthread_mutex_lock(&teller->lock);
    const struct news_item *item = teller->gone;
    bool ends = item && strcmp(item->name, name) == 0;
    if (ends)
        *node = (struct node){.kind = NODE_SESSION, .session = item->session};
    pthread_mutex_unlock(&teller->lock);
    return ends;
}

bool teller_tells(struct teller *teller, enum hl_change change, struct node *node)
{
    pthread_mutex_lock(&teller->lock);
    const struct news_item *item = teller->document;
    bool tells = item && item->change == change && !atomic_load(&item->overtaken);
    if (tells)
        *node = (struct node){.kind = NODE_DOCUMENT, .session = item->session, .a = item->number};
    pthread_mutex_unlock(&teller->lock);
    return tells;
}
