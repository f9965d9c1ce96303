/* scheduler.c - see scheduler.h. */
#include "scheduler.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "erasing.h"
#include "thread.h"

#define AHEAD_MS (UINT64_C(60) * 60 * 1000)     /* what the wall clock may gain between two looks */
#define HOLD_MS (UINT64_C(24) * 60 * 60 * 1000) /* how long it is not believed after that */

/* Goes on while the machine sleeps, as the wall clock does. */
static uint64_t elapsed_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

bool scheduler_time_is_sound(struct hl_store *store)
{
    struct scheduler *scheduler = &store->scheduler;
    uint64_t wall = store_now_ms(store), elapsed = elapsed_ms();
    bool told = false;
    pthread_mutex_lock(&scheduler->lock);
    if (scheduler->looked) {
        bool back = wall < scheduler->wall_ms;
        bool ahead =
            !back && wall - scheduler->wall_ms > elapsed - scheduler->elapsed_ms + AHEAD_MS;
        told = (back || ahead) && !scheduler->suspended;
        if (back || ahead)
            scheduler->sound_at = elapsed + HOLD_MS;
    }
    scheduler->looked = true;
    scheduler->wall_ms = wall;
    scheduler->elapsed_ms = elapsed;
    bool sound = elapsed >= scheduler->sound_at;
    scheduler->suspended = !sound;
    pthread_mutex_unlock(&scheduler->lock);
    if (told)
        store_report(store, HL_WARNING,
                     "the clock was set: for a day no retain rule and no history window drops "
                     "anything");
    return sound;
}

static void run(struct hl_store *store)
{
    struct scheduler *scheduler = &store->scheduler;
    struct hl_error err = {0};
    struct hl_compact what = {.everything = false};
    erasing_go_on(store, &scheduler->progress);
    int error = hl_retain_run(store, &scheduler->progress, NULL, &err);
    if (error < 0 && error != -EINTR)
        store_report(store, HL_WARNING, "the retain rules were not applied: %s", err.text);
    if (error != -EINTR)
        error = hl_compact(store, &what, &scheduler->progress, NULL, &err);
    if (error < 0 && error != -EINTR)
        store_report(store, HL_WARNING, "nothing was compacted: %s", err.text);
}

static bool wait_for_turn(struct hl_store *store)
{
    struct scheduler *scheduler = &store->scheduler;
    uint64_t interval = store->options.compact_interval_ms;
    struct timespec deadline = thread_deadline(CLOCK_MONOTONIC, interval);
    pthread_mutex_lock(&scheduler->lock);
    scheduler->next_ms = store_now_ms(store) + interval;
    while (!scheduler->stop &&
           pthread_cond_timedwait(&scheduler->wake, &scheduler->lock, &deadline) != ETIMEDOUT)
        continue;
    bool stop = scheduler->stop;
    pthread_mutex_unlock(&scheduler->lock);
    return !stop;
}

/* False: the thread is to end. */
static bool begin_turn(struct scheduler *scheduler)
{
    pthread_mutex_lock(&scheduler->lock);
    bool begun = !scheduler->stop;
    if (begun) {
        atomic_store(&scheduler->progress.done, 0);
        atomic_store(&scheduler->progress.total, 0);
        atomic_store(&scheduler->progress.cancel, false);
        scheduler->running = true;
    }
    pthread_mutex_unlock(&scheduler->lock);
    return begun;
}

static void end_turn(struct scheduler *scheduler)
{
    pthread_mutex_lock(&scheduler->lock);
    scheduler->running = false;
    pthread_mutex_unlock(&scheduler->lock);
}

static void *scheduler_run(void *context)
{
    struct hl_store *store = context;
    struct scheduler *scheduler = &store->scheduler;
    struct hl_erasing erasing;
    (void)scheduler_time_is_sound(store);
    if (hl_erasing_next(store, 0, &erasing) == 0 && begin_turn(scheduler)) {
        erasing_go_on(store, &scheduler->progress);
        end_turn(scheduler);
    }
    while (wait_for_turn(store) && begin_turn(scheduler)) {
        run(store);
        end_turn(scheduler);
    }
    return NULL;
}

int scheduler_start(struct hl_store *store)
{
    if (store->options.compact_interval_ms == 0)
        return 0;
    int error = thread_start(&store->scheduler.thread, scheduler_run, store);
    store->scheduler.started = error == 0;
    return error;
}

void scheduler_stop(struct hl_store *store)
{
    struct scheduler *scheduler = &store->scheduler;
    if (!scheduler->started)
        return;
    pthread_mutex_lock(&scheduler->lock);
    scheduler->stop = true;
    atomic_store(&scheduler->progress.cancel, true);
    pthread_cond_signal(&scheduler->wake);
    pthread_mutex_unlock(&scheduler->lock);
    pthread_join(scheduler->thread, NULL);
    scheduler->started = false;
}

void hl_compact_interrupt(struct hl_store *store)
{
    struct scheduler *scheduler = &store->scheduler;
    pthread_mutex_lock(&scheduler->lock);
    if (scheduler->running)
        atomic_store(&scheduler->progress.cancel, true);
    pthread_mutex_unlock(&scheduler->lock);
}
