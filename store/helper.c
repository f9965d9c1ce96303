/* helper.c - see helper.h. */
#include "helper.h"

#include <sched.h>
#include <time.h>

#include "thread.h"

#define PATIENCE_MAX 256U

static bool has_two_processors(void)
{
    cpu_set_t set;
    /* It fails where there are more processors than the set has room for. */
    return sched_getaffinity(0, sizeof set, &set) < 0 || CPU_COUNT(&set) > 1;
}

static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void helper_init(struct helper *helper)
{
    pthread_mutex_init(&helper->lock, NULL);
    pthread_cond_init(&helper->wake, NULL);
    pthread_cond_init(&helper->done, NULL);
    helper->useful = has_two_processors();
}

static void *run(void *context)
{
    struct helper *helper = context;
    pthread_mutex_lock(&helper->lock);
    while (!helper->stop) {
        struct helper_job *job = helper->waiting;
        if (!job) {
            pthread_cond_wait(&helper->wake, &helper->lock);
            continue;
        }
        helper->waiting = NULL;
        helper->current = job;
        pthread_mutex_unlock(&helper->lock);
        job->run(job->context);
        pthread_mutex_lock(&helper->lock);
        helper->current = NULL;
        pthread_cond_signal(&helper->done);
    }
    pthread_mutex_unlock(&helper->lock);
    return NULL;
}

void helper_destroy(struct helper *helper)
{
    pthread_mutex_lock(&helper->lock);
    helper->stop = true;
    pthread_cond_signal(&helper->wake);
    pthread_mutex_unlock(&helper->lock);
    if (helper->running)
        pthread_join(helper->thread, NULL);
    pthread_cond_destroy(&helper->done);
    pthread_cond_destroy(&helper->wake);
    pthread_mutex_destroy(&helper->lock);
}

bool helper_ask(struct helper *helper)
{
    bool had = false;
    pthread_mutex_lock(&helper->lock);
    if (helper->useful && !helper->running)
        helper->running = thread_start(&helper->thread, run, helper) == 0;
    if (helper->refuse > 0)
        helper->refuse--;
    else
        had = helper->running && !helper->taken;
    if (had)
        helper->taken = true;
    pthread_mutex_unlock(&helper->lock);
    return had;
}

void helper_let_go(struct helper *helper)
{
    pthread_mutex_lock(&helper->lock);
    helper->taken = false;
    pthread_mutex_unlock(&helper->lock);
}

void helper_give(struct helper *helper, struct helper_job *job)
{
    job->given_ns = clock_ns();
    pthread_mutex_lock(&helper->lock);
    helper->waiting = job;
    pthread_cond_signal(&helper->wake);
    pthread_mutex_unlock(&helper->lock);
}

/* Waits until the helper is at the job no more. Whether it was begun. With the lock held. */
static bool wait_for(struct helper *helper, const struct helper_job *job)
{
    bool begun = helper->waiting != job;
    if (!begun)
        helper->waiting = NULL;
    while (helper->current == job)
        pthread_cond_wait(&helper->done, &helper->lock);
    helper->taken = false;
    return begun;
}

/* Whether it was worth it to ask. With the lock held. */
static void judge(struct helper *helper, bool worth)
{
    if (worth) {
        helper->patience = 0;
        return;
    }
    helper->patience = helper->patience ? helper->patience * 2 : 1;
    if (helper->patience > PATIENCE_MAX)
        helper->patience = PATIENCE_MAX;
    helper->refuse = helper->patience;
}

void helper_finish(struct helper *helper, struct helper_job *job)
{
    uint64_t now = clock_ns();
    pthread_mutex_lock(&helper->lock);
    bool begun = wait_for(helper, job);
    judge(helper, begun && clock_ns() - now <= now - job->given_ns);
    pthread_mutex_unlock(&helper->lock);
    if (!begun)
        job->run(job->context);
}

void helper_drop(struct helper *helper, struct helper_job *job)
{
    pthread_mutex_lock(&helper->lock);
    (void)wait_for(helper, job);
    pthread_mutex_unlock(&helper->lock);
}
