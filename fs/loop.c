/*
 * loop.c - the request loop; see loop.h.
 *
 * Most of what a small request costs is waking the thread that answers it. The loop has two ways:
 *
 * Shared, as libfuse's own loop: threads sleep in read(), the kernel wakes one for each request,
 * and there is always one more, up to a limit, when all are at work.
 *
 * Alone: one thread attends to the device, and answers what it got itself. The others sleep
 * elsewhere: of several that sleep in read() the kernel wakes the one that slept longest, which
 * runs on the other processor and has nothing in its caches. This is the cheaper way while answers
 * take microseconds. The one thread may also look out for the next request for a while (it spins),
 * since that of a program often follows at once, before it sleeps in read(). It tries that now and
 * then, and goes on when tries pay. The processor is offered at each look. What others took of it
 * is held against what was gained: a thread that looks out may have to wait for a whole turn of
 * another program, where one that sleeps would have been woken in its place. One such turn is made
 * up for by many looks that paid; where they come more often, looking out stops, for as many
 * requests as make up for it.
 *
 * A thread that got a large request hands the device on before it answers, if another program asks,
 * too: that one need not wait for the ticker.
 *
 * The loop begins shared and goes on alone after a few requests. It goes back to sharing
 *
 *   - when requests of several programs wait for each other's long answers;
 *   - when nobody has attended for a tick, because an answer waits for a disk, say. The ticker is
 *     armed by the first request after a sleep and stops when the attending thread sleeps, so an
 *     idle mount does nothing at all.
 *
 * `attended` is a flag and no lock: taken by exchange, given up by a store. Where one thread stores
 * a flag and then looks at another's, and the other does the reverse (the ticker's sleep, a claim
 * beside a thread that is about to read), both are sequentially consistent, so one sees the other.
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
#define TICK_NS 1000000
#define ENDING_MS 5            /* between two interruptions of those that are to end */
#define LONG_NS 20000          /* what a long answer takes */
#define TRIES 32U              /* outcomes of looking out that are remembered */
#define TRIES_WON_MIN 3        /* of these, for it to pay */
#define TRY_EVERY 16U          /* requests, while it does not */
#define LOOK_NS 15000          /* a look that takes longer: others ran meanwhile */
#define WORTH_NS 2000          /* what one that paid counts for */
#define WAITED_NS 250          /* what a request counts for that was not looked out for */
#define BALANCE_NS 5000000     /* at most, to either side */
#define SHARE_FEW 16U          /* requests, before one thread is tried alone */
#define SHARE_MANY 1024U       /* likewise, when several are known to be of use */
#define LARGE_BYTES 65536      /* a request of this size takes long to answer */
#define MIXED_WITHIN 16U       /* requests: so lately another program asked, too */
#define CPUS_AGE_NS 1000000000 /* after which the processors are counted again */

struct worker {
    pthread_t thread;
    struct loop *loop;
    _Atomic bool reading; /* sleeps in the device, or is about to */
    bool ended;           /* guarded by the loop's lock */
};

struct loop {
    struct fuse_session *session;
    uint64_t spin_ns;
    int wake;                 /* signal */
    int device, timer, event; /* descriptors; the last two are the ticker's */

    _Atomic bool alone;        /* which way it goes */
    _Atomic bool attended;     /* a thread looks out, or (alone) sleeps in read() */
    _Atomic bool asleep;       /* the latter */
    _Atomic bool ticking;      /* the timer is armed */
    _Atomic uint64_t taken;    /* requests that were received */
    _Atomic unsigned readers;  /* threads that sleep in read(), or are about to */
    _Atomic unsigned to_share; /* requests before one thread is tried alone */
    _Atomic int result;        /* the first failure */
    _Atomic bool may_spin;     /* there are processors for it */

    /* Of whoever attends; handed on with `attended`. */
    uint32_t tries;    /* a bit for each time of looking out, the newest lowest: whether it paid */
    unsigned untried;  /* requests since the last try */
    int64_t balance;   /* of time gained by looking out, and lost to others that ran meanwhile */
    bool at_once;      /* a request was there before the last was answered */
    uint32_t sender;   /* of the last request */
    unsigned alike;    /* requests of the same sender in a row, at most MIXED_WITHIN */
    uint64_t least_ns; /* what an answer takes at least, of late */

    pthread_mutex_t lock; /* guards all below; a leaf */
    pthread_cond_t shared;
    unsigned waiting; /* threads that wait until it is shared, or handed on to one of them */
    unsigned wanted;  /* of these, to attend */
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

/* From now on all threads sleep at the device, for so many requests. There must be one that is not
 * at work, if any can be had. */
static void share(struct loop *loop, unsigned requests)
{
    pthread_mutex_lock(&loop->lock);
    atomic_store(&loop->to_share, requests); /* before it is looked at */
    atomic_store(&loop->alone, false);
    if (loop->waiting == 0 && loop->count < WORKERS_MAX && !loop->ending)
        start_worker(loop);
    pthread_cond_broadcast(&loop->shared);
    pthread_mutex_unlock(&loop->lock);
}

/* From now on whoever attends is alone. Others that sleep in the device are called away: one that
 * the signal does not meet there is woken in vain, and goes when it gets a request. */
static void claim(struct loop *loop, const struct worker *self)
{
    atomic_store(&loop->alone, true);
    pthread_mutex_lock(&loop->lock);
    for (unsigned i = 0; i < loop->count; i++) {
        struct worker *worker = &loop->workers[i];
        if (worker != self && atomic_load(&worker->reading))
            pthread_kill(worker->thread, loop->wake);
    }
    pthread_mutex_unlock(&loop->lock);
}

static void wait_until_shared(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->waiting++;
    while (atomic_load(&loop->alone) && loop->wanted == 0 && !loop->ending)
        pthread_cond_wait(&loop->shared, &loop->lock);
    loop->waiting--;
    loop->wanted = 0;
    pthread_mutex_unlock(&loop->lock);
}

/* Another thread is to attend, alone, while this one is at work. */
static void hand_on(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    if (loop->waiting > 0) {
        loop->wanted = 1;
        pthread_cond_signal(&loop->shared);
    } else if (loop->count < WORKERS_MAX && !loop->ending) {
        start_worker(loop);
    }
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

static void add_to_balance(struct loop *loop, int64_t ns)
{
    loop->balance += ns;
    if (loop->balance > BALANCE_NS)
        loop->balance = BALANCE_NS;
    if (loop->balance < -BALANCE_NS)
        loop->balance = -BALANCE_NS;
}

/* Looks for a request for as long as it is worth it, and notes whether it was. */
static void look_out(struct loop *loop)
{
    uint64_t now = clock_ns(), end = now + loop->spin_ns;
    bool paid = is_ready(loop), was_there = paid;
    while (!paid && now < end && loop->balance >= 0 && !fuse_session_exited(loop->session)) {
        uint64_t before = now;
        sched_yield();
        paid = is_ready(loop);
        now = clock_ns();
        if (now - before > LOOK_NS)
            add_to_balance(loop, -(int64_t)(now - before));
    }
    loop->tries = loop->tries << 1 | paid;
    if (paid && !was_there)
        add_to_balance(loop, WORTH_NS);
}

/* Whether the next request is to be looked out for. */
static bool is_to_look_out(struct loop *loop)
{
    if (!atomic_load(&loop->may_spin))
        return false;
    if (loop->balance < 0) {
        add_to_balance(loop, WAITED_NS);
        return false;
    }
    if (__builtin_popcount(loop->tries) < TRIES_WON_MIN && ++loop->untried < TRY_EVERY)
        return false;
    loop->untried = 0;
    return true;
}

static void arm(struct loop *loop)
{
    struct itimerspec once = {.it_value = {.tv_nsec = TICK_NS}};
    timerfd_settime(loop->timer, 0, &once, NULL);
}

/* Starts the ticker, if it does not run. */
static void start_ticking(struct loop *loop)
{
    if (!atomic_load(&loop->ticking) && !atomic_exchange(&loop->ticking, true))
        arm(loop);
}

/* Takes a request, which may sleep: what fuse_session_receive_buf() says. */
static int receive(struct worker *worker, struct fuse_buf *buffer)
{
    struct loop *loop = worker->loop;
    atomic_fetch_add(&loop->readers, 1);
    atomic_store(&worker->reading, true);
    int got = fuse_session_receive_buf(loop->session, buffer);
    atomic_store(&worker->reading, false);
    unsigned others = atomic_fetch_sub(&loop->readers, 1) - 1;
    if (got <= 0)
        return got;
    atomic_fetch_add(&loop->taken, 1);
    if (!atomic_load(&loop->alone) && others == 0) {
        pthread_mutex_lock(&loop->lock);
        if (loop->waiting == 0 && loop->count < WORKERS_MAX && !loop->ending)
            start_worker(loop);
        pthread_mutex_unlock(&loop->lock);
    }
    return got;
}

/* Notes who sent the request. */
static void note_sender(struct loop *loop, const struct fuse_buf *buffer, int got)
{
    struct fuse_in_header header;
    if ((size_t)got < sizeof header)
        return;
    memcpy(&header, buffer->mem, sizeof header);
    if (header.pid != loop->sender)
        loop->alike = 0;
    else if (loop->alike < MIXED_WITHIN)
        loop->alike++;
    loop->sender = header.pid;
}

/* Whether this request had to wait while that of another program got a long answer. */
static bool is_crowded(const struct loop *loop)
{
    return loop->at_once && loop->alike == 0 && loop->least_ns >= LONG_NS;
}

/* One request by the thread that attends; it gives the device up before it answers. *long_one:
 * the answer takes long, and another program asks, too. */
static int receive_alone(struct worker *worker, struct fuse_buf *buffer, bool *long_one)
{
    struct loop *loop = worker->loop;
    loop->at_once = loop->least_ns >= LONG_NS && is_ready(loop);
    if (!loop->at_once && is_to_look_out(loop))
        look_out(loop);
    atomic_store(&loop->asleep, true);
    int got = receive(worker, buffer);
    atomic_store(&loop->asleep, false);
    if (got <= 0)
        return got;
    start_ticking(loop); /* after that store: a tick that saw it asleep has stopped the ticker */
    note_sender(loop, buffer, got);
    *long_one = got >= LARGE_BYTES && loop->alike < MIXED_WITHIN;
    if (is_crowded(loop))
        share(loop, SHARE_MANY);
    return got;
}

/* Whether enough requests were shared, so that this thread goes on alone. */
static bool is_to_claim(struct loop *loop)
{
    unsigned left = atomic_load(&loop->to_share);
    while (left > 0 && !atomic_compare_exchange_weak(&loop->to_share, &left, left - 1))
        ;
    return left == 0;
}

/* Whoever attends next learns how long the answer took. (One that took long says little: the
 * program that was answered may have run in place of this thread before it was done.) */
static void note_time(struct loop *loop, uint64_t took)
{
    uint64_t more = loop->least_ns + loop->least_ns / 4 + 100;
    loop->least_ns = took < more ? took : more;
}

static void serve(struct worker *worker)
{
    struct loop *loop = worker->loop;
    struct fuse_buf buffer = {.mem = NULL};
    uint64_t took = 0;
    while (!fuse_session_exited(loop->session)) {
        bool alone = atomic_load(&loop->alone), long_one = false;
        int got;
        if (!alone && is_to_claim(loop)) {
            claim(loop, worker);
            alone = true;
        }
        if (!alone) {
            got = receive(worker, &buffer);
        } else if (atomic_exchange(&loop->attended, true)) {
            wait_until_shared(loop);
            continue;
        } else {
            if (took > 0)
                note_time(loop, took);
            got = receive_alone(worker, &buffer, &long_one);
            atomic_store(&loop->attended, false);
        }
        if (long_one)
            hand_on(loop);
        took = 0;
        if (got == -EINTR || got == -EAGAIN)
            continue;
        if (got <= 0) { /* 0: unmounted */
            end(loop, got);
            break;
        }
        uint64_t began = alone ? clock_ns() : 0;
        fuse_session_process_buf(loop->session, &buffer);
        took = alone ? clock_ns() - began : 0;
    }
    free(buffer.mem);
}

static void *work(void *context)
{
    struct worker *worker = context;
    struct loop *loop = worker->loop;
    serve(worker);
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
    if (atomic_load(&loop->asleep) || !atomic_load(&loop->alone)) {
        atomic_store(&loop->ticking, false);
        /* Who wakes, or claims, from here on arms the timer with its next request. */
        return !atomic_load(&loop->asleep) && atomic_load(&loop->alone) &&
               !atomic_exchange(&loop->ticking, true);
    }
    if (!atomic_load(&loop->attended) && taken == *before)
        share(loop, SHARE_FEW);
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
    pthread_cond_broadcast(&loop->shared);
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

static int start_first(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    int error = start_worker(loop);
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
    loop->balance = BALANCE_NS;
    atomic_init(&loop->to_share, SHARE_FEW);
    loop->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    loop->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&loop->lock, NULL);
    pthread_cond_init(&loop->shared, NULL);
    int result = loop->timer < 0 || loop->event < 0 ? -errno : start_first(loop);
    if (result < 0)
        end(loop, result);
    else
        run_ticker(loop);
    end_workers(loop);
    result = atomic_load(&loop->result);
    pthread_cond_destroy(&loop->shared);
    pthread_mutex_destroy(&loop->lock);
    if (loop->timer >= 0)
        close(loop->timer);
    if (loop->event >= 0)
        close(loop->event);
    free(loop);
    return result;
}
