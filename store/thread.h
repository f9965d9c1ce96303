/* thread.h - threads of the store, and how commands wait for each other. */
#ifndef HL_THREAD_H
#define HL_THREAD_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

#include "store.h"

/* pthread_create() with every signal blocked in the new thread: they are for the program's own. 0
 * or a negative errno. */
int thread_start(pthread_t *thread, void *(*run)(void *context), void *context);

/* So many milliseconds from now, for what waits until then. */
struct timespec thread_deadline(clockid_t clock, uint64_t ms);

/* For locks that are held as long as a command takes: takes the mutex as soon as it is free. err
 * says -EINTR: it was cancelled before. progress and err may be NULL. */
int thread_lock(pthread_mutex_t *mutex, const struct hl_progress *progress, struct hl_error *err);

#endif
