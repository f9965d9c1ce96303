/*
 * answers.h - what a handle that was written to has to say: receipts, results of commands.
 *
 * A queue of texts, each given by one read, or by several when it is longer than their buffers.
 * Bounded: the oldest are dropped. Zero it to begin. Not locked: its owner's lock guards it.
 */
#ifndef HL_ANSWERS_H
#define HL_ANSWERS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct answer;

struct answers {
    struct answer *first, *last;
    size_t bytes; /* of all of them */
    size_t cost;  /* the memory for that: the sum of answers_cost() */
    size_t given; /* of the first one */
};

/* Adds a copy of text; drops the oldest while they are more than limit bytes, but never the newest.
 * 0 or -ENOMEM. */
int answers_add(struct answers *answers, const char *text, size_t len, size_t limit);
/* The memory that a text of len bytes takes here. */
size_t answers_cost(size_t len);
/* Drops the oldest; false: there is none. */
bool answers_drop(struct answers *answers);
/* The next bytes of the first one, and no more; 0 when there is none. */
size_t answers_read(struct answers *answers, char *buffer, size_t size);
void answers_free(struct answers *answers);

#endif
