/*
 * announce.c - the thread that makes things known through the mount; see announce.h.
 *
 * It works in turns. A turn opens the mountpoint, goes on only if that is still this mount, tells
 * some of what waits, and closes all that it opened; then it rests, so that the mount is not in use
 * for most of the time and can be unmounted. It never resolves a path across another mount.
 *
 * What it tells, it tells to the kernel as the truth: a record that is gone when its turn comes is
 * not made, and an event that fails to be told is counted as skipped.
 */
#include "announce.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define TURN_ITEMS 32
#define TURN_MS 10 /* the rest after a turn */
#define SECRET_BYTES 16
#define SECRET_PREFIX ".hotlogfs-announcer-"

/* The session's directories that a turn has open, to tell of their logs at its end. */
struct told {
    uint32_t session;
    int fd;
};

struct announcer {
    struct fs *fs;
    dev_t device;
    struct news_queue *queue;
    char secret[sizeof SECRET_PREFIX + (size_t)2 * SECRET_BYTES];
    _Atomic pid_t asked;  /* the id that the look-up of the secret came with; 0: none has come */
    _Atomic pid_t sender; /* that of the announcing thread, once it knows that it works; else 0 */
    _Atomic uint64_t told, failed;

    pthread_mutex_t lock; /* guards all below; a leaf */
    pthread_cond_t wake;
    bool started; /* the thread is to be joined */
    bool begun;   /* it has looked at the mount for the first time, and let go of it */
    bool stopping, idle;
    bool running;        /* the thread is, or is to be: news is taken */
    const char *why_off; /* NULL: on */
    bool hiding;         /* `item` is denied to the announcing thread until it makes it */
    struct node item;
    pthread_t thread;

    /* Between the announcer and its teller. */
    struct turn *turn; /* ordered, and not done yet */
    bool teller_ends;
    pthread_cond_t ordered, done;
    pthread_t teller;
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

struct announcer *announcer_new(struct fs *fs)
{
    struct announcer *announcer = calloc(1, sizeof *announcer);
    pthread_condattr_t attributes;

    if (!announcer)
        return NULL;
    announcer->fs = fs;
    announcer->running = fs->options->announce_max > 0;
    announcer->why_off = announcer->running ? "not started yet" : "announce_max is 0";
    announcer->queue = news_queue_new((size_t)fs->options->announce_max);
    if (!announcer->queue || !make_secret(announcer->secret, sizeof announcer->secret)) {
        news_queue_free(announcer->queue);
        free(announcer);
        return NULL;
    }
    pthread_mutex_init(&announcer->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&announcer->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_cond_init(&announcer->ordered, NULL);
    pthread_cond_init(&announcer->done, NULL);
    return announcer;
}

static void set_state(struct announcer *announcer, bool running, const char *why_off)
{
    pthread_mutex_lock(&announcer->lock);
    announcer->running = running;
    announcer->why_off = why_off;
    pthread_mutex_unlock(&announcer->lock);
    if (why_off)
        news_queue_skip(announcer->queue); /* what waits is not told any more */
}

/* ---- what waits -------------------------------------------------------------------------------
 */

void announcer_news(struct announcer *announcer, const struct hl_news *news)
{
    pthread_mutex_lock(&announcer->lock);
    bool taken = announcer->running && !announcer->stopping;
    pthread_mutex_unlock(&announcer->lock);
    if (!taken || !news_queue_add(announcer->queue, news))
        return;
    /* There was nothing before, so the thread may sleep. */
    pthread_mutex_lock(&announcer->lock);
    if (announcer->idle)
        pthread_cond_signal(&announcer->wake);
    pthread_mutex_unlock(&announcer->lock);
}

static bool anything_waits(struct announcer *announcer)
{
    uint64_t waiting, skipped;
    news_queue_counts(announcer->queue, &waiting, &skipped);
    return waiting > 0;
}

/* Sleeps until there is something to tell; false: it is to end. */
static bool wait_for_news(struct announcer *announcer)
{
    pthread_mutex_lock(&announcer->lock);
    announcer->idle = true;
    while (!announcer->stopping && !anything_waits(announcer))
        pthread_cond_wait(&announcer->wake, &announcer->lock);
    announcer->idle = false;
    bool goes_on = !announcer->stopping;
    pthread_mutex_unlock(&announcer->lock);
    return goes_on;
}

static void rest(struct announcer *announcer, uint64_t ms)
{
    uint64_t end = fs_tick_ms() + ms;
    struct timespec time = {.tv_sec = (time_t)(end / 1000),
                            .tv_nsec = (long)(end % 1000) * 1000000};

    pthread_mutex_lock(&announcer->lock);
    while (!announcer->stopping && fs_tick_ms() < end)
        pthread_cond_timedwait(&announcer->wake, &announcer->lock, &time);
    pthread_mutex_unlock(&announcer->lock);
}

static bool is_stopping(struct announcer *announcer)
{
    pthread_mutex_lock(&announcer->lock);
    bool stopping = announcer->stopping;
    pthread_mutex_unlock(&announcer->lock);
    return stopping;
}

/* ---- through the mount ------------------------------------------------------------------------
 */

/* The teller's descriptors are numbers in a table of its own (see tell_run()), so they are opened
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
static int open_mount(const struct announcer *announcer)
{
    struct statx st;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, announcer->fs->options->mountpoint,
                          O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return -1;
    if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &st) == 0 &&
        makedev(st.stx_dev_major, st.stx_dev_minor) == announcer->device)
        return fd;
    let_go(fd);
    return -1;
}

static void hide(struct announcer *announcer, const struct node *node)
{
    pthread_mutex_lock(&announcer->lock);
    announcer->hiding = true;
    announcer->item = *node;
    pthread_mutex_unlock(&announcer->lock);
}

static void show(struct announcer *announcer)
{
    pthread_mutex_lock(&announcer->lock);
    announcer->hiding = false;
    pthread_mutex_unlock(&announcer->lock);
}

/* 0, or the errno. */
static int tell_record(struct announcer *announcer, int directory, const struct news_item *item)
{
    struct node node = {.kind = NODE_RECORD, .session = item->session, .a = item->seq};
    char name[24];

    snprintf(name, sizeof name, "%" PRIu64, item->seq);
    hide(announcer, &node);
    int fd = open_below(directory, name, O_WRONLY | O_CREAT | O_EXCL);
    int error = fd < 0 ? errno : 0;
    show(announcer);
    if (fd >= 0)
        let_go(fd);
    return error;
}

static int tell_session(struct announcer *announcer, int mount, uint32_t session, const char *name)
{
    struct node node = {.kind = NODE_SESSION, .session = session};
    int sessions = open_below(mount, "sessions", O_PATH | O_DIRECTORY);

    if (sessions < 0)
        return errno;
    hide(announcer, &node);
    int error = mkdirat(sessions, name, 0700) != 0 ? errno : 0;
    show(announcer);
    let_go(sessions);
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

/* Something to tell, with the name of its session as it stands in sessions/. */
struct order {
    struct news_item item;
    char name[NODE_NAME_MAX + 1];
};

/* What the announcer has the teller do in one go. */
struct turn {
    size_t count;
    struct order orders[TURN_ITEMS];
    const char *why_not; /* the teller's answer: NULL, or why nothing can be told now */
};

/* The session's directory, from now on open until the turn ends; or -errno. */
static int directory_of(struct told *told, size_t *count, int mount, const struct order *order)
{
    char path[sizeof "sessions/" + NODE_NAME_MAX];

    for (size_t i = 0; i < *count; i++) {
        if (told[i].session == order->item.session)
            return told[i].fd;
    }
    snprintf(path, sizeof path, "sessions/%s", order->name);
    int fd = open_below(mount, path, O_PATH | O_DIRECTORY);
    if (fd < 0)
        return -errno;
    told[(*count)++] = (struct told){order->item.session, fd};
    return fd;
}

static void perform(struct announcer *announcer, struct turn *turn)
{
    struct told told[TURN_ITEMS];
    size_t told_count = 0;
    int mount = open_mount(announcer);

    turn->why_not = mount < 0 ? "something else lies on the mountpoint" : NULL;
    if (mount < 0)
        return;
    for (size_t i = 0; i < turn->count && !is_stopping(announcer); i++) {
        const struct order *order = &turn->orders[i];
        int error;
        if (order->item.made) {
            error = tell_session(announcer, mount, order->item.session, order->name);
        } else {
            int directory = directory_of(told, &told_count, mount, order);
            error = directory < 0 ? -directory : tell_record(announcer, directory, &order->item);
        }
        if (error == 0)
            atomic_fetch_add(&announcer->told, 1);
        else if (error != ENOENT) /* it is there, but the kernel would not have it made */
            atomic_fetch_add(&announcer->failed, 1);
    }
    for (size_t i = 0; i < told_count; i++) {
        tell_log(told[i].fd);
        let_go(told[i].fd);
    }
    if (told_count > 0)
        tell_log(mount);
    let_go(mount);
}

/* Finds out by which id the request handlers see this thread. NULL, or why there is none. */
static const char *find_self(struct announcer *announcer)
{
    struct stat st;
    int mount = open_mount(announcer);

    if (mount < 0)
        return "something else lies on the mountpoint";
    fstatat(mount, announcer->secret, &st, AT_SYMLINK_NOFOLLOW);
    let_go(mount);
    pid_t id = atomic_load(&announcer->asked);
    if (id == 0)
        return "the daemon is not in the mount's pid namespace";
    atomic_store(&announcer->sender, id);
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

/*
 * The teller: does what the announcer orders, and nothing else goes through the mount. Its table of
 * descriptors is its own, without the device: were the daemon killed while a request of the
 * teller's is under way, the device would otherwise stay open until the teller ends, which it does
 * only when the device is closed. So it must touch no descriptor of the store, which is why the
 * announcer asks for it.
 */
static void *tell_run(void *context)
{
    struct announcer *announcer = context;
    bool first = true;

    const char *why = keep_apart() ? NULL : "its descriptors cannot be kept apart";
    pthread_mutex_lock(&announcer->lock);
    while (!announcer->teller_ends) {
        struct turn *turn = announcer->turn;
        if (!turn) {
            pthread_cond_wait(&announcer->ordered, &announcer->lock);
            continue;
        }
        pthread_mutex_unlock(&announcer->lock);
        if (first && !why)
            why = find_self(announcer);
        first = false;
        turn->why_not = why;
        if (!why)
            perform(announcer, turn);
        pthread_mutex_lock(&announcer->lock);
        announcer->turn = NULL;
        pthread_cond_signal(&announcer->done);
    }
    pthread_mutex_unlock(&announcer->lock);
    return NULL;
}

/* Has the teller perform a turn. NULL, or why nothing can be told. */
static const char *order(struct announcer *announcer, struct turn *turn)
{
    pthread_mutex_lock(&announcer->lock);
    announcer->turn = turn;
    pthread_cond_signal(&announcer->ordered);
    while (announcer->turn)
        pthread_cond_wait(&announcer->done, &announcer->lock);
    pthread_mutex_unlock(&announcer->lock);
    return turn->why_not;
}

/* Takes what waits into a turn; what no path leads to, or is gone, is not told. */
static void fill_turn(struct announcer *announcer, struct turn *turn)
{
    struct hl_store *store = announcer->fs->store;
    struct hl_session session;

    turn->count = 0;
    for (int i = 0; i < TURN_ITEMS; i++) {
        struct order *next = &turn->orders[turn->count];
        if (!news_queue_take(announcer->queue, store, &next->item))
            break;
        if (hl_session_by_number(store, next->item.session, &session) == 0 &&
            name_encode(session.id, session.id_len, next->name) != 0)
            turn->count++;
    }
}

static void *run(void *context)
{
    struct announcer *announcer = context;
    struct turn *turn = calloc(1, sizeof *turn);
    bool telling = false;
    const char *why = turn ? NULL : "out of memory";

    if (!why && fs_thread_start(&announcer->teller, tell_run, announcer) < 0)
        why = "its thread could not be started";
    telling = !why;
    if (!why)
        why = order(announcer, turn); /* an empty one: the teller finds out who it is */
    set_state(announcer, !why, why);
    pthread_mutex_lock(&announcer->lock);
    announcer->begun = true;
    pthread_cond_signal(&announcer->wake);
    pthread_mutex_unlock(&announcer->lock);
    while (!why && wait_for_news(announcer)) {
        fill_turn(announcer, turn);
        set_state(announcer, true, order(announcer, turn));
        rest(announcer, TURN_MS);
    }
    pthread_mutex_lock(&announcer->lock);
    announcer->teller_ends = true;
    pthread_cond_signal(&announcer->ordered);
    pthread_mutex_unlock(&announcer->lock);
    if (telling)
        pthread_join(announcer->teller, NULL);
    free(turn);
    set_state(announcer, false, why ? why : "the mount ends");
    return NULL;
}

void announcer_start(struct announcer *announcer, bool seen, dev_t device)
{
    if (announcer->fs->options->announce_max == 0)
        return;
    if (!seen) {
        set_state(announcer, false, "the mount is in another mount namespace");
        return;
    }
    announcer->device = device;
    pthread_mutex_lock(&announcer->lock);
    int result = fs_thread_start(&announcer->thread, run, announcer);
    announcer->started = result == 0;
    /* Whoever is told that the mount is ready may unmount it at once. */
    while (announcer->started && !announcer->begun)
        pthread_cond_wait(&announcer->wake, &announcer->lock);
    pthread_mutex_unlock(&announcer->lock);
    if (result < 0)
        set_state(announcer, false, "its thread could not be started");
}

static bool is_running(struct announcer *announcer)
{
    pthread_mutex_lock(&announcer->lock);
    bool running = announcer->running;
    pthread_mutex_unlock(&announcer->lock);
    return running;
}

/*
 * The loop has ended, but a request of our own may be under way, or wait in the kernel for a
 * directory that is locked by a request that nobody has answered yet: so requests are served here
 * until it is through.
 */
static void serve_while_running(struct announcer *announcer)
{
    struct fuse_session *session = announcer->fs->session;
    struct fuse_buf buffer = {.mem = NULL};

    while (is_running(announcer)) {
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

void announcer_stop(struct announcer *announcer, bool ended)
{
    if (!announcer)
        return;
    pthread_mutex_lock(&announcer->lock);
    bool join = announcer->started && !announcer->stopping;
    announcer->stopping = true;
    pthread_cond_signal(&announcer->wake);
    pthread_mutex_unlock(&announcer->lock);
    if (!join)
        return;
    if (ended)
        serve_while_running(announcer);
    pthread_join(announcer->thread, NULL);
}

void announcer_free(struct announcer *announcer)
{
    if (!announcer)
        return;
    announcer_stop(announcer, true);
    news_queue_free(announcer->queue);
    pthread_cond_destroy(&announcer->wake);
    pthread_cond_destroy(&announcer->ordered);
    pthread_cond_destroy(&announcer->done);
    pthread_mutex_destroy(&announcer->lock);
    free(announcer);
}

/* ---- for the request handlers -----------------------------------------------------------------
 */

bool announcer_is_asked(struct announcer *announcer, fuse_req_t req, const char *name)
{
    if (atomic_load(&announcer->sender) != 0 || strcmp(name, announcer->secret) != 0)
        return false;
    atomic_store(&announcer->asked, fuse_req_ctx(req)->pid);
    return true;
}

bool announcer_sent(struct announcer *announcer, fuse_req_t req)
{
    pid_t sender = atomic_load(&announcer->sender);
    return sender != 0 && fuse_req_ctx(req)->pid == sender;
}

bool announcer_hides(struct announcer *announcer, fuse_req_t req, const struct node *node)
{
    if (!announcer_sent(announcer, req))
        return false;
    pthread_mutex_lock(&announcer->lock);
    bool hidden = announcer->hiding && node_equal(&announcer->item, node);
    pthread_mutex_unlock(&announcer->lock);
    return hidden;
}

bool announcer_makes(struct announcer *announcer, fuse_req_t req, const struct node *node)
{
    bool hidden = announcer_hides(announcer, req, node);
    if (hidden)
        show(announcer); /* from now on the name is there */
    return hidden;
}

void announcer_status(struct announcer *announcer, struct json_writer *writer)
{
    char text[96];
    uint64_t waiting, skipped;

    pthread_mutex_lock(&announcer->lock);
    const char *why = announcer->why_off;
    pthread_mutex_unlock(&announcer->lock);
    if (why)
        snprintf(text, sizeof text, "off: %s", why);
    news_queue_counts(announcer->queue, &waiting, &skipped);
    json_string(writer, "announcing", why ? text : "on");
    json_number(writer, "announcements_told", atomic_load(&announcer->told));
    json_number(writer, "announcements_waiting", waiting);
    json_number(writer, "announcements_skipped", skipped + atomic_load(&announcer->failed));
}
