/*
 * helper.h - a thread of the store that does a piece of work beside the thread that asks for it.
 *
 * It is for work that the asker would do itself, sooner than wait for somebody else: who asks and
 * finds the helper at other work does it alone, and so does who comes to the end of its own part
 * before the helper began. Where others want the processors, the helper does not begin, or is kept
 * from going on while the asker waits: if it had not begun when the asker's own part was done, or
 * the wait was longer than that took, it is not to be had for a while, twice as long each time.
 */
#ifndef HL_HELPER_H
#define HL_HELPER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct helper_job {
    void (*run)(void *context);
    void *context;
    uint64_t given_ns; /* when the helper got it */
};

/* Zeroed, then helper_init(). The thread is started by the first who asks. */
struct helper {
    pthread_mutex_t lock; /* guards all below; nothing else is locked with it held */
    pthread_cond_t wake, done;
    pthread_t thread;
    bool useful, running, stop;
    bool taken;                           /* by who asked, until that is finished */
    struct helper_job *waiting, *current; /* not begun; under way */
    unsigned refuse, patience;            /* so many are to be refused; of the last time */
};

void helper_init(struct helper *helper);
/* Ends the thread; nobody may be asking. */
void helper_destroy(struct helper *helper);

/* Whether the helper is to be had. Then one job is to be given to it, and finished or dropped, or
 * it is to be let go. Where there is one processor, it never is. */
bool helper_ask(struct helper *helper);
void helper_let_go(struct helper *helper);
/* *job is the asker's. */
void helper_give(struct helper *helper, struct helper_job *job);
/* Returns when the job is done: by the helper, or by the caller if it was not begun. */
void helper_finish(struct helper *helper, struct helper_job *job);
/* Returns when nobody is at the job any more: it is done, or never will be. */
void helper_drop(struct helper *helper, struct helper_job *job);

#endif
