/* thread.c - see thread.h. */
#include "thread.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#define LOOK_NS 20000000

int thread_start(pthread_t *thread, void *(*run)(void *context), void *context)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = -pthread_create(thread, NULL, run, context);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

/* The time of day, since ThreadSanitizer knows of no other: a clock that is set back makes one look
 * at `cancel` late, no more. */
static struct timespec next_look(void)
{
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    at.tv_nsec += LOOK_NS;
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
        struct timespec at = next_look();
        error = pthread_mutex_timedlock(mutex, &at);
    }
    if (error == ETIMEDOUT)
        return hl_fail(err, EINTR, "interrupted before it began");
    return error == 0 ? 0 : hl_fail(err, error, "cannot take a lock: %s", strerror(error));
}
