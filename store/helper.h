/*
 * helper.h - a thread of the store that does a piece of work beside the thread that asks for it.
 *
 * It is for work that the asker would do itself, sooner than wait for somebody else: who asks and
 * finds the helper at other work does it alone, and so does who comes to the end of its own part
 * before the helper began.
 */
#ifndef HL_HELPER_H
#define HL_HELPER_H

#include <pthread.h>
#include <stdbool.h>

struct helper_job {
    void (*run)(void *context);
    void *context;
};

/* Zeroed, then helper_init(). The thread is started by the first who asks. */
struct helper {
    pthread_mutex_t lock; /* guards all below; nothing else is locked with it held */
    pthread_cond_t wake, done;
    pthread_t thread;
    bool useful, running, stop;
    struct helper_job *waiting, *current; /* not begun; under way */
};

void helper_init(struct helper *helper);
/* Ends the thread; nobody may be asking. */
void helper_destroy(struct helper *helper);

/* Asks for it. False: it is not to be had, and *job was not taken. Where there is one processor, it
 * never is. *job is the asker's, and must be finished before it ends. */
bool helper_ask(struct helper *helper, struct helper_job *job);
/* Returns when the job is done: by the helper, or by the caller if it was not begun. */
void helper_finish(struct helper *helper, struct helper_job *job);

#endif
