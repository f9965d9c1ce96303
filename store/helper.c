/* helper.c - see helper.h. */
#include "helper.h"

#include <sched.h>

#include "thread.h"

static bool has_two_processors(void)
{
    cpu_set_t set;
    /* It fails where there are more processors than the set has room for. */
    return sched_getaffinity(0, sizeof set, &set) < 0 || CPU_COUNT(&set) > 1;
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
        pthread_cond_broadcast(&helper->done); /* of several who wait one has this job */
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

bool helper_ask(struct helper *helper, struct helper_job *job)
{
    pthread_mutex_lock(&helper->lock);
    if (helper->useful && !helper->running)
        helper->running = thread_start(&helper->thread, run, helper) == 0;
    bool taken = helper->running && !helper->waiting && !helper->current;
    if (taken) {
        helper->waiting = job;
        pthread_cond_signal(&helper->wake);
    }
    pthread_mutex_unlock(&helper->lock);
    return taken;
}

void helper_finish(struct helper *helper, struct helper_job *job)
{
    pthread_mutex_lock(&helper->lock);
    bool begun = helper->waiting != job;
    if (!begun)
        helper->waiting = NULL;
    while (helper->current == job)
        pthread_cond_wait(&helper->done, &helper->lock);
    pthread_mutex_unlock(&helper->lock);
    if (!begun)
        job->run(job->context);
}
