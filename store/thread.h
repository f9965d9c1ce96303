/* thread.h - threads of the store: signals are for the program's own threads, so these block them
 * all. */
#ifndef HL_THREAD_H
#define HL_THREAD_H

#include <pthread.h>

/* pthread_create() with every signal blocked in the new thread. 0 or a negative errno. */
int thread_start(pthread_t *thread, void *(*run)(void *context), void *context);

#endif
