/*
 * ahead.h - the next piece of a session's log, read and checked before it is asked for.
 *
 * Who reads a log from front to end asks for one piece after another. The thread that answered
 * reads the next one while the program works on the last: what is a log's stays what it is, so it
 * is as good later as if it were read then, as long as nothing of the session was dropped
 * meanwhile.
 */
#ifndef HL_AHEAD_H
#define HL_AHEAD_H

#include "fs_internal.h"

struct ahead;

struct ahead *ahead_new(struct dropped *dropped); /* which tells of drops; it outlives this */
void ahead_free(struct ahead *ahead);             /* NULL is fine */

/* Who reads, and what will be asked for next. */
struct ahead_reader {
    uint64_t id; /* of an open file; never used twice */
    uint32_t session;
    uint64_t offset;
    size_t size;
    struct hl_cursor cursor;
};

/* A number for one that is opened. */
uint64_t ahead_reader_id(struct ahead *ahead);

struct ahead_piece;
/* The piece that was read for the reader, or is being read, if it is just what it wants and still
 * good, else NULL. Nobody else has it until it is put back. */
struct ahead_piece *ahead_take(struct ahead *ahead, struct hl_store *store,
                               const struct ahead_reader *reader);
const char *ahead_bytes(const struct ahead_piece *piece);              /* as many as were wanted */
const struct hl_cursor *ahead_cursor(const struct ahead_piece *piece); /* behind them */
void ahead_put(struct ahead *ahead, struct ahead_piece *piece);        /* NULL is fine */

/* The reader closes its file. */
void ahead_forget(struct ahead *ahead, uint64_t id);

/* Reads what the reader wants next, if there is room for it and that much in the log. */
void ahead_read(struct ahead *ahead, struct hl_store *store, const struct ahead_reader *reader);

#endif
