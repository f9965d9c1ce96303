/* thread.c - see thread.h. */
#include "thread.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>

#define LOOK_MS 20U

int thread_start(pthread_t *thread, void *(*run)(void *context), void *context)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = -pthread_create(thread, NULL, run, context);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

struct timespec thread_deadline(clockid_t clock, uint64_t ms)
{
    struct timespec at;
    clock_gettime(clock, &at);
    at.tv_sec += (time_t)(ms / 1000);
    at.tv_nsec += (long)(ms % 1000) * 1000000;
    if (at.tv_nsec >= 1000000000) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000;
    }
    return at;
}

int thread_lock(pthread_mutex_t *mutex, const struct hl_progress *progress, struct hl_error *err)
{
    int error = ETIMEDOUT;
    while (error == ETIMEDOUT && !(progress && atomic_load(&progress->cancel))) {
        /* The time of day, since ThreadSanitizer knows of no other: a clock that is set back makes
         * this look at `cancel` late, no more. */
        struct timespec at = thread_deadline(CLOCK_REALTIME, LOOK_MS);
        error = pthread_mutex_timedlock(mutex, &at);
    }
    return error == ETIMEDOUT ? hl_fail(err, EINTR, "interrupted") : 0;
}
