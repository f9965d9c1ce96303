/*
 * record.h - a table of system calls that remembers what was done, that fails on demand, and that
 * can die; and what the tests put in the way of LMDB, of memory and of chance.
 *
 * The linker hands some functions of libraries to us (the list CRASH_WRAPPED in the Makefile): LMDB
 * goes round the table, so what it puts into a file is looked at after each of its commits; the
 * time of day and random numbers come from a seed, so that a recording is the same each time it is
 * made; memory can be refused.
 */
#ifndef CRASH_RECORD_H
#define CRASH_RECORD_H

#include <pthread.h>
#include <stdatomic.h>

#include "../../store/io.h"
#include "disk.h"

#define RECORD_FILES 4096
#define RECORD_ENVIRONMENTS 8

/* Which call fails, once. */
struct fault {
    uint64_t nth;    /* from 1, of those counted; 0: none */
    uint64_t memory; /* likewise, of allocations by the store */
    int error;       /* negative errno; 0: reads and writes do half of what they should, and a call
                        that cannot is left alone */
    bool kill;       /* the process dies instead, before the nth sync, */
    bool names;      /* of a directory, that is */
    uint64_t calls;  /* counted so far */
    uint64_t allocations;
    unsigned fired;
    const char *what; /* that failed */
};

/* What others do in the middle of a command: right after its next call of this kind (rename, list,
 * fdatasync), in whatever thread that is made. It must wait for no lock that is held there. */
struct meanwhile {
    const char *what; /* NULL: nothing */
    void (*act)(void *context);
    void *context;
};

struct record {
    struct hl_io io;
    char root[256];       /* the real directory that node 0 is */
    pthread_mutex_t lock; /* guards all below */
    struct tree live;     /* names only */
    uint32_t file[RECORD_FILES];
    bool timed[RECORD_FILES]; /* the time at which it was written counts: an index */
    bool no_links;            /* the file system has none */
    struct call *calls;
    size_t count, capacity;
    bool dead; /* nothing is changed any more: every call that would fails */
    struct fault fault;
    bool counting; /* calls and allocations count for the fault */
    struct meanwhile meanwhile;
    struct {
        void *environment;
        uint32_t node;
        size_t transaction;
    } environments[RECORD_ENVIRONMENTS];
};

/* The tree is what is in the directory now. Only one record is there at a time. seed: of salts. */
void record_begin(struct record *record, const char *root, const struct tree *tree, uint64_t seed);
void record_end(struct record *record);
size_t record_position(struct record *record); /* calls so far */
/* The process is dead: what its threads do from now on has no effect. Until the next opening. */
void record_kill(struct record *record);
void record_revive(struct record *record);
/* From now on the nth call (or allocation) fails. */
void record_fault(struct record *record, const struct fault *fault);
void record_count(struct record *record, bool counting);
void record_meanwhile(struct record *record, const struct meanwhile *meanwhile);

#endif
