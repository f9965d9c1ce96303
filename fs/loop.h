/*
 * loop.h - the threads that answer a session's requests.
 */
#ifndef HL_FS_LOOP_H
#define HL_FS_LOOP_H

#include "fs.h"

/*
 * Answers requests until the session is exited or unmounted; returns when no thread answers any
 * more: 0, or a negative errno. Whoever exits the session interrupts the calling thread with `wake`
 * until this returns: a signal that has a handler, without SA_RESTART, and is not blocked here.
 * spin_us: how long a thread looks out for the next request before it sleeps; 0: not at all.
 */
int loop_run(struct fuse_session *session, uint64_t spin_us, int wake);

#endif
