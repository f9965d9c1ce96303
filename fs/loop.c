/*
 * loop.c - the request loop; see loop.h.
 *
 * Most of what a small request costs is waking the thread that answers it. So one thread at a time
 * attends to the device, and the others sleep elsewhere, where a request does not wake them in
 * vain. The one that attends first looks for a while (it spins), since the next request of a
 * program often follows at once; then it sleeps in read(). It answers what it got itself, and goes
 * back.
 *
 * While it answers nobody attends. That is the cheapest for requests that take a few microseconds,
 * and must not be for those that take long, or wait for a disk:
 *
 *   - whoever has answered attends if nobody does, so the threads that are busy replace each other;
 *   - where several programs ask at once, and all of the last answers took long, another thread is
 *     called before the answer. (That one took long says little: the program that was answered may
 *     have run in place of this thread before it was done.)
 *   - the ticker, armed by the first request after a sleep, calls one when nobody has attended for
 *     a tick. It stops when the attending thread sleeps, so an idle mount does nothing at all.
 *
 * Spinning pays only where requests follow each other closely and a second processor has nothing
 * else to do: with one, it is off, and so it is, but for a try now and then, while most tries are
 * in vain. A spinning thread offers its processor to others at each look; when one of them took it,
 * the next try is put off, twice as long each time.
 *
 * `attended` is a flag and no lock: taken by exchange, given up by a store. The ticker's sleep and
 * the wake-up of the attending thread order their stores and loads against each other (all of them
 * sequentially consistent), so that one of the two always sees the other.
 */
#include "loop.h"

#include <errno.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "cpus.h"

#define WORKERS_MAX 10
#define WORKERS_FIRST 2
#define TICK_NS 1000000
#define ENDING_MS 5            /* between two interruptions of those that are to end */
#define LONG_NS 20000          /* an answer that takes this long is worth another thread */
#define CROWD 64               /* requests for which one that was found waiting is remembered */
#define TRIES 32U              /* outcomes of spinning that are remembered */
#define TRIES_WON_MIN 3        /* of these, for spinning to go on */
#define TRY_EVERY 32U          /* requests, while it does not */
#define TRY_SELDOM 8192U       /* likewise, at most, where others want the processor */
#define TAKEN_NS 15000         /* a look that takes this long: another thread ran */
#define CPUS_AGE_NS 1000000000 /* after which the processors are counted again */

struct worker {
    pthread_t thread;
    struct loop *loop;
    bool ended; /* guarded by the loop's lock */
};

struct loop {
    struct fuse_session *session;
    uint64_t spin_ns;
    int wake;                 /* signal */
    int device, timer, event; /* descriptors; the last two are the ticker's */

    _Atomic bool attended;  /* a thread spins on the device, or sleeps in it */
    _Atomic bool asleep;    /* in read() */
    _Atomic bool ticking;   /* the timer is armed */
    _Atomic uint64_t taken; /* requests that were received */
    _Atomic int result;     /* the first failure */
    _Atomic bool may_spin;  /* there are processors for it */

    /* Of whoever attends; handed on with `attended`. */
    uint32_t tries;    /* a bit for each spin, the newest lowest: whether it paid */
    unsigned untried;  /* requests since the last one */
    unsigned patience; /* requests between tries, while they do not pay */
    bool at_once;      /* the last look found a request at once */
    uint32_t sender;   /* of the last request */
    unsigned crowd;    /* counts down from CROWD */
    uint64_t least_ns; /* what an answer takes at least, of late */

    pthread_mutex_t lock; /* guards all below; a leaf */
    pthread_cond_t called;
    unsigned waiting, calls; /* threads that wait for a call; calls not taken yet */
    bool ending;
    unsigned count;
    struct worker workers[WORKERS_MAX];
};

static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* ---- threads ---------------------------------------------------------------------------------
 */

static void *work(void *context);

/* Called with the lock held. */
static int start_worker(struct loop *loop)
{
    struct worker *worker = &loop->workers[loop->count];
    *worker = (struct worker){.loop = loop};
    int error = pthread_create(&worker->thread, NULL, work, worker);
    if (error == 0)
        loop->count++;
    return -error;
}

/* Has another thread attend. If none can be had, those at work do when they are done. */
static void call_another(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    if (loop->waiting > loop->calls) {
        loop->calls++;
        pthread_cond_signal(&loop->called);
    } else if (loop->calls == 0 && loop->count < WORKERS_MAX && !loop->ending) {
        start_worker(loop);
    }
    pthread_mutex_unlock(&loop->lock);
}

static void wait_for_call(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->waiting++;
    while (loop->calls == 0 && !loop->ending)
        pthread_cond_wait(&loop->called, &loop->lock);
    if (loop->calls > 0)
        loop->calls--;
    loop->waiting--;
    pthread_mutex_unlock(&loop->lock);
}

/* The loop is to end, for this reason (0: it was asked to). */
static void end(struct loop *loop, int result)
{
    int none = 0;
    if (result < 0)
        atomic_compare_exchange_strong(&loop->result, &none, result);
    fuse_session_exit(loop->session);
    eventfd_write(loop->event, 1);
}

/* ---- attending -------------------------------------------------------------------------------
 */

static bool is_ready(const struct loop *loop)
{
    struct pollfd device = {.fd = loop->device, .events = POLLIN};
    return poll(&device, 1, 0) != 0;
}

static bool spinning_pays(struct loop *loop)
{
    if (!atomic_load_explicit(&loop->may_spin, memory_order_relaxed))
        return false;
    if (__builtin_popcount(loop->tries) >= TRIES_WON_MIN)
        return true;
    if (++loop->untried < loop->patience)
        return false;
    loop->untried = 0;
    return true;
}

/* Looks for a request for as long as it is worth it. */
static void look_out(struct loop *loop)
{
    bool paid = is_ready(loop);
    loop->at_once = paid;
    if (!spinning_pays(loop))
        return;
    uint64_t now = clock_ns(), end = now + loop->spin_ns;
    bool lost = false;
    while (!paid && !lost && now < end && !fuse_session_exited(loop->session)) {
        uint64_t before = now;
        sched_yield();
        paid = is_ready(loop);
        now = clock_ns();
        lost = now - before > TAKEN_NS;
    }
    if (lost) {
        loop->tries = 0;
        loop->patience = loop->patience < TRY_SELDOM ? loop->patience * 2 : TRY_SELDOM;
        return;
    }
    loop->tries = loop->tries << 1 | paid;
    if (loop->tries == UINT32_MAX)
        loop->patience = TRY_EVERY;
}

static void arm(struct loop *loop)
{
    struct itimerspec once = {.it_value = {.tv_nsec = TICK_NS}};
    timerfd_settime(loop->timer, 0, &once, NULL);
}

/* Takes a request from the device, which may sleep. What fuse_session_receive_buf() says. */
static int receive(struct loop *loop, struct fuse_buf *buffer)
{
    look_out(loop);
    atomic_store(&loop->asleep, true);
    int got = fuse_session_receive_buf(loop->session, buffer);
    atomic_store(&loop->asleep, false);
    if (got > 0) {
        atomic_fetch_add(&loop->taken, 1);
        if (!atomic_load(&loop->ticking) && !atomic_exchange(&loop->ticking, true))
            arm(loop);
    }
    return got;
}

/* Whether another thread should attend while this one answers the request. */
static bool wants_another(struct loop *loop, const struct fuse_buf *buffer, int got)
{
    struct fuse_in_header header;
    if ((size_t)got < sizeof header)
        return false;
    memcpy(&header, buffer->mem, sizeof header);
    if (loop->at_once && header.pid != loop->sender)
        loop->crowd = CROWD; /* it came while that of another program was answered */
    loop->sender = header.pid;
    if (loop->crowd == 0)
        return false;
    loop->crowd--;
    return loop->least_ns >= LONG_NS;
}

/* Whoever attends next learns how long the answer took. */
static void note_time(struct loop *loop, uint64_t took)
{
    uint64_t more = loop->least_ns + loop->least_ns / 4 + 100;
    loop->least_ns = took < more ? took : more;
}

static void serve(struct loop *loop)
{
    struct fuse_buf buffer = {.mem = NULL};
    uint64_t took = 0;
    while (!fuse_session_exited(loop->session)) {
        if (atomic_exchange(&loop->attended, true)) {
            wait_for_call(loop);
            took = 0;
            continue;
        }
        if (took > 0)
            note_time(loop, took);
        took = 0;
        int got = receive(loop, &buffer);
        bool another = got > 0 && wants_another(loop, &buffer, got);
        atomic_store(&loop->attended, false);
        if (got == -EINTR || got == -EAGAIN)
            continue;
        if (got <= 0) { /* 0: unmounted */
            end(loop, got);
            break;
        }
        if (another)
            call_another(loop);
        uint64_t began = clock_ns();
        fuse_session_process_buf(loop->session, &buffer);
        took = clock_ns() - began;
    }
    free(buffer.mem);
}

static void *work(void *context)
{
    struct worker *worker = context;
    struct loop *loop = worker->loop;
    serve(loop);
    pthread_mutex_lock(&loop->lock);
    worker->ended = true;
    pthread_mutex_unlock(&loop->lock);
    eventfd_write(loop->event, 1);
    return NULL;
}

/* ---- the ticker ------------------------------------------------------------------------------
 */

static void count_cpus(struct loop *loop, uint64_t *counted)
{
    uint64_t now = clock_ns();
    if (loop->spin_ns == 0 || (*counted != 0 && now - *counted < CPUS_AGE_NS))
        return;
    *counted = now;
    atomic_store(&loop->may_spin, cpus_usable() >= 2);
}

/* The timer has run out. Whether it goes on. */
static bool tick(struct loop *loop, uint64_t *before)
{
    uint64_t taken = atomic_load(&loop->taken);
    if (atomic_load(&loop->asleep)) {
        atomic_store(&loop->ticking, false);
        /* Who wakes from here on arms the timer. */
        return !atomic_load(&loop->asleep) && !atomic_exchange(&loop->ticking, true);
    }
    if (!atomic_load(&loop->attended) && taken == *before)
        call_another(loop);
    *before = taken;
    return true;
}

static void run_ticker(struct loop *loop)
{
    struct pollfd fds[] = {{.fd = loop->timer, .events = POLLIN},
                           {.fd = loop->event, .events = POLLIN}};
    uint64_t before = 0, counted = 0, expired;
    count_cpus(loop, &counted);
    while (!fuse_session_exited(loop->session)) {
        if (poll(fds, 2, -1) < 0 || !(fds[0].revents & POLLIN))
            continue; /* what interrupts it exits the session */
        if (read(loop->timer, &expired, sizeof expired) == (ssize_t)sizeof expired) {
            count_cpus(loop, &counted);
            if (tick(loop, &before))
                arm(loop);
        }
    }
}

/* ---- making and ending -----------------------------------------------------------------------
 */

/* Interrupts those that sleep in the device until none is left: one signal may come just before the
 * read that it was meant for. */
static void end_workers(struct loop *loop)
{
    struct pollfd event = {.fd = loop->event, .events = POLLIN};
    eventfd_t count;
    pthread_mutex_lock(&loop->lock);
    loop->ending = true;
    pthread_cond_broadcast(&loop->called);
    for (;;) {
        unsigned left = 0;
        for (unsigned i = 0; i < loop->count; i++) {
            if (loop->workers[i].ended)
                continue;
            pthread_kill(loop->workers[i].thread, loop->wake);
            left++;
        }
        if (left == 0)
            break;
        pthread_mutex_unlock(&loop->lock);
        if (poll(&event, 1, ENDING_MS) > 0)
            eventfd_read(loop->event, &count);
        pthread_mutex_lock(&loop->lock);
    }
    pthread_mutex_unlock(&loop->lock);
    for (unsigned i = 0; i < loop->count; i++)
        pthread_join(loop->workers[i].thread, NULL);
}

static int start_workers(struct loop *loop)
{
    int error = 0;
    pthread_mutex_lock(&loop->lock);
    while (loop->count < WORKERS_FIRST && error == 0)
        error = start_worker(loop);
    pthread_mutex_unlock(&loop->lock);
    return error;
}

int loop_run(struct fuse_session *session, uint64_t spin_us, int wake)
{
    struct loop *loop = calloc(1, sizeof *loop);
    if (!loop)
        return -ENOMEM;
    loop->session = session;
    loop->spin_ns = spin_us * 1000;
    loop->wake = wake;
    loop->device = fuse_session_fd(session);
    loop->tries = UINT32_MAX; /* it is taken to pay until it does not */
    loop->patience = TRY_EVERY;
    loop->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    loop->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&loop->lock, NULL);
    pthread_cond_init(&loop->called, NULL);
    int result = loop->timer < 0 || loop->event < 0 ? -errno : start_workers(loop);
    if (result < 0)
        end(loop, result);
    else
        run_ticker(loop);
    end_workers(loop);
    result = atomic_load(&loop->result);
    pthread_cond_destroy(&loop->called);
    pthread_mutex_destroy(&loop->lock);
    if (loop->timer >= 0)
        close(loop->timer);
    if (loop->event >= 0)
        close(loop->event);
    free(loop);
    return result;
}
