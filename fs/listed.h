/*
 * listed.h - the next piece of a session's directory, listed before it is asked for.
 *
 * Who lists a directory asks for one piece after another. The thread that answered lists the next
 * one while the program works on the last. A piece that ends where the directory ended then is as
 * good as any: only an empty one ends it, so what is appended meanwhile comes with the next. What
 * is dropped meanwhile may still be named, as in a piece that was asked for just before; whether a
 * directory that is being read shows it is left open by POSIX. No piece is given that was begun
 * more than a second ago.
 *
 * There is room for a few readers at a time. One that did not ask for what was listed, twice in a
 * row, has nothing listed ahead any more: its buffer holds less than a piece, say.
 */
#ifndef HL_LISTED_H
#define HL_LISTED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct listed;

struct listed *listed_new(void);
void listed_free(struct listed *listed); /* NULL is fine */

/* A number for a directory that is opened, never used twice. */
uint64_t listed_reader(struct listed *listed);

/* What is asked for: by whom, from which offset on, in how many bytes at most. */
struct listed_request {
    uint64_t reader;
    off_t offset;
    size_t size;
};

/* Copies the piece that was kept for just this request to buffer, and forgets it. Its length, and
 * in *next the offset that more begins at, or 0: none is known of. 0: no piece is there, nor will
 * be one for what was asked for before. */
size_t listed_take(struct listed *listed, const struct listed_request *request, char *buffer,
                   off_t *next);
/* It is asked for in another way: what was kept is of no use. */
void listed_miss(struct listed *listed, uint64_t reader);

/* Makes room for a piece that is about to be listed. 0: there is none, or it would be in vain; else
 * a number for listed_keep(). */
uint64_t listed_begin(struct listed *listed, const struct listed_request *request);
/* Keeps the piece (a copy), unless its reader has asked for something since, or is gone. */
void listed_keep(struct listed *listed, uint64_t number, const char *buffer, size_t len,
                 off_t next);

/* The reader closes the directory. */
void listed_forget(struct listed *listed, uint64_t reader);

#endif
