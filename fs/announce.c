/*
 * announce.c - what waits to be told, turn by turn; see announce.h.
 *
 * In each turn the teller (teller.h) opens the mountpoint, goes on only if that is still this
 * mount, tells some of what waits, and closes all that it opened; then there is a rest, so that the
 * mount is not in use for most of the time and can be unmounted.
 */
#include "announce.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "teller.h"

#define TURN_MS 10      /* the rest after a turn */
#define TURN_BUSY_MS 50 /* the same while more comes than can be told */

struct announcer {
    struct fs *fs;
    dev_t device;
    struct news_queue *queue;
    struct teller *teller;

    pthread_mutex_t lock; /* guards all below; a leaf */
    pthread_cond_t wake;
    bool started; /* the thread is to be joined */
    bool begun;   /* it has looked at the mount for the first time, and let go of it */
    bool stopping, idle;
    bool running;        /* the thread is, or is to be: news is taken */
    const char *why_off; /* NULL: on */
    pthread_t thread;
};

/* ---- making -----------------------------------------------------------------------------------
 */

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
    announcer->teller = teller_new(fs->options->mountpoint);
    if (!announcer->queue || !announcer->teller) {
        news_queue_free(announcer->queue);
        teller_free(announcer->teller);
        free(announcer);
        return NULL;
    }
    pthread_mutex_init(&announcer->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&announcer->wake, &attributes);
    pthread_condattr_destroy(&attributes);
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

void announcer_gone(struct announcer *announcer, const struct hl_session *session)
{
    char name[NODE_NAME_MAX + 1];

    if (name_encode(session->id, session->id_len, name) == 0)
        return;
    pthread_mutex_lock(&announcer->lock);
    if (announcer->running && !announcer->stopping &&
        news_queue_gone(announcer->queue, session->number, name) && announcer->idle)
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

/* ---- turns ------------------------------------------------------------------------------------
 */

/* Completes an order; false: no path leads to what it is about, or that is gone. */
static bool find_names(struct hl_store *store, struct order *order)
{
    struct hl_session session;
    struct hl_document document;

    if (order->item.kind == NEWS_GONE) {
        snprintf(order->name, sizeof order->name, "%s", order->item.name);
        return true;
    }
    if (hl_session_by_number(store, order->item.session, &session) < 0 ||
        name_encode(session.id, session.id_len, order->name) == 0)
        return false;
    return order->item.kind != NEWS_DOCUMENT ||
           (hl_document_name(store, session.number, order->item.number, &document) == 0 &&
            name_encode(document.key, document.key_len, order->key) != 0);
}

/* Takes what waits into a turn. */
static void fill_turn(struct announcer *announcer, struct turn *turn)
{
    struct hl_store *store = announcer->fs->store;

    turn->count = 0;
    for (int i = 0; i < TURN_ITEMS; i++) {
        struct order *next = &turn->orders[turn->count];
        if (!news_queue_take(announcer->queue, store, &next->item))
            break;
        if (find_names(store, next))
            turn->count++;
    }
}

/* Where some of what waited was skipped since the last time, the writers are not held up for the
 * rest: it would be skipped sooner or later, and each item told is work for the same processors. */
static uint64_t rest_after_turn(struct announcer *announcer, uint64_t *skipped)
{
    uint64_t waiting, before = *skipped;

    news_queue_counts(announcer->queue, &waiting, skipped);
    return *skipped > before ? TURN_BUSY_MS : TURN_MS;
}

static void *run(void *context)
{
    struct announcer *announcer = context;
    uint64_t skipped = 0;
    struct turn *turn = calloc(1, sizeof *turn);
    const char *why = turn ? NULL : "out of memory";

    if (!why && teller_start(announcer->teller, announcer->device) < 0)
        why = "its thread could not be started";
    if (!why)
        why = teller_tell(announcer->teller, turn); /* an empty one: it finds out who it is */
    set_state(announcer, !why, why);
    pthread_mutex_lock(&announcer->lock);
    announcer->begun = true;
    pthread_cond_signal(&announcer->wake);
    pthread_mutex_unlock(&announcer->lock);
    while (!why && wait_for_news(announcer)) {
        fill_turn(announcer, turn);
        set_state(announcer, true, teller_tell(announcer->teller, turn));
        news_queue_told(announcer->queue);
        rest(announcer, rest_after_turn(announcer, &skipped));
    }
    teller_end(announcer->teller);
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
    teller_hurry(announcer->teller);
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
    teller_free(announcer->teller);
    news_queue_free(announcer->queue);
    pthread_cond_destroy(&announcer->wake);
    pthread_mutex_destroy(&announcer->lock);
    free(announcer);
}

/* ---- for the request handlers -----------------------------------------------------------------
 */

bool announcer_is_asked(struct announcer *announcer, fuse_req_t req, const char *name)
{
    return teller_is_asked(announcer->teller, req, name);
}

bool announcer_sent(struct announcer *announcer, fuse_req_t req)
{
    return teller_sent(announcer->teller, req);
}

bool announcer_hides(struct announcer *announcer, fuse_req_t req, const struct node *node)
{
    return teller_hides(announcer->teller, req, node);
}

bool announcer_ends(struct announcer *announcer, const char *name, struct node *node)
{
    return teller_ends(announcer->teller, name, node);
}

bool announcer_makes(struct announcer *announcer, fuse_req_t req, const struct node *node)
{
    return teller_makes(announcer->teller, req, node);
}

int announcer_document(struct announcer *announcer, const struct node *directory, struct node *node)
{
    return teller_document(announcer->teller, directory, node);
}

bool announcer_tells(struct announcer *announcer, enum hl_change change, struct node *node)
{
    return teller_tells(announcer->teller, change, node);
}

void announcer_counts(struct announcer *announcer, struct announcer_counts *counts)
{
    uint64_t failed;

    news_queue_counts(announcer->queue, &counts->waiting, &counts->skipped);
    teller_counts(announcer->teller, &counts->told, &failed);
    counts->skipped += failed;
}

void announcer_status(struct announcer *announcer, struct json_writer *writer)
{
    char text[96];
    struct announcer_counts counts;

    pthread_mutex_lock(&announcer->lock);
    const char *why = announcer->why_off;
    pthread_mutex_unlock(&announcer->lock);
    if (why)
        snprintf(text, sizeof text, "off: %s", why);
    announcer_counts(announcer, &counts);
    json_string(writer, "announcing", why ? text : "on");
    json_number(writer, "announcements_told", counts.told);
    json_number(writer, "announcements_waiting", counts.waiting);
    json_number(writer, "announcements_skipped", counts.skipped);
}
