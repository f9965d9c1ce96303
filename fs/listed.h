/*
 * listed.h - the next piece of a session's directory, listed before it is asked for.
 *
 * Who lists a directory asks for one piece after another. The thread that answered lists the next
 * one while the program works on the last. Only what the directory goes on behind is kept: what is
 * appended meanwhile comes behind it. What is dropped meanwhile may still be named, as in a piece
 * that was asked for just before: whether a directory that is being read shows it is left open by
 * POSIX. No piece is given that is older than a second.
 */
#ifndef HL_LISTED_H
#define HL_LISTED_H

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

/* Copies the piece that was kept for this request to buffer, of as many bytes as it asks for, and
 * forgets it. Its length, and in *next the offset that the piece behind it begins at; 0: there is
 * none. */
size_t listed_take(struct listed *listed, const struct listed_request *request, char *buffer,
                   off_t *next);
/* Keeps a piece (a copy), in place of what is kept for the reader, or of the oldest of others'. */
void listed_keep(struct listed *listed, const struct listed_request *request, const char *buffer,
                 size_t len, off_t next);
/* The reader closes the directory. */
void listed_forget(struct listed *listed, uint64_t reader);

#endif
