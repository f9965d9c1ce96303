/*
 * serve.h - a mounted session, from the kernel's mount to its end.
 *
 * Order of calls: serve_new, serve_mount, serve_start, serve_wait, (fs_free), serve_free;
 * serve_free is right after any of them. serve_block_signals() comes before the first thread of the
 * process.
 */
#ifndef HL_FS_SERVE_H
#define HL_FS_SERVE_H

#include <sys/types.h>

#include "options.h"

struct serve;

/* Blocks the signals that end a session, for this thread and those that it starts. serve_wait()
 * takes them. */
void serve_block_signals(void);
/* Whether one of them has arrived within ms milliseconds and waits to be taken. */
bool serve_stop_asked(unsigned ms);

/* Neither takes ownership; arguments and fs must outlive it. */
int serve_new(const struct arguments *arguments, struct fs *fs, struct serve **serve,
              struct hl_error *err);
/* Mounts, but answers nothing yet. */
int serve_mount(struct serve *serve, struct hl_error *err);
/* The device number of the mount; false if it cannot be seen from here (another mount namespace).
 */
bool serve_device(const struct serve *serve, dev_t *device);
/* Starts the threads that answer requests. */
int serve_start(struct serve *serve, struct hl_error *err);
/*
 * Returns when no thread answers any more: after a signal, or when the mount was unmounted (lazily
 * too: when it is in the table of mounts no longer, open files or not). 0, or -errno if the session
 * broke down.
 */
int serve_wait(struct serve *serve);
/* Stops what runs, unmounts if still mounted, frees. NULL is fine. */
void serve_free(struct serve *serve);

#endif
