/*
 * signals.h - what a FUSE interrupt was for.
 *
 * The kernel sends one interrupt for a request, at the first signal of any kind to its sender, and
 * does not say which; a shell that waits in a write() gets a SIGCHLD for each child that ends. The
 * signal stays pending until the request is answered, so it can be looked up.
 */
#ifndef HL_SIGNALS_H
#define HL_SIGNALS_H

#include <stdbool.h>
#include <sys/types.h>

/* Whether a signal is pending for the thread that means to end what it does: any but those that
 * tell of children, windows, urgent data, stopping and going on. True also when it is not known. */
bool signals_end(pid_t thread);

#endif
