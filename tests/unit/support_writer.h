/*
 * support_writer.h - a writer in another process, for tests of read-only stores beside one.
 *
 * The writer is a child, which takes one byte for an order and answers with one when it is done:
 * LMDB allows one opening of an environment in a process.
 */
#ifndef HL_TEST_SUPPORT_WRITER_H
#define HL_TEST_SUPPORT_WRITER_H

#include <sys/types.h>

#include "support.h"

struct t_writer {
    pid_t pid;
    int to, from;
};

/*
 * Orders:
 *   a  80 records in 40 batches, of the sessions a, b, c     b  50 MiB to session a
 *   e  T_EVEN_BATCHES batches of T_EVEN_BATCH records: half of them of session "even", half of
 *      sessions that are new with every eighth batch
 *   n  one record to session n, and its attribute "a" says which
 *   t  a batch of ten records to session "ten"               m  another mode for session a
 *   x  trim one of the sessions a, b, c      d  delete one of them
 *   k  compact everything    r  rotate    c  checkpoint    i  reindex    o  close and open
 *   s  a snapshot, which seals the last segment              q  close and end
 */
#define T_EVEN_BATCH 4000
#define T_EVEN_BATCHES t_amount("BATCHES", t_slow() ? 20 : 120)

/* Opens the store of t in a child, for writing, and waits until it is open. */
void t_writer_start(struct t_writer *writer, struct t_store *t, uint64_t chance);
/* Gives an order and waits for the answer; the two halves of it. */
void t_tell(struct t_writer *writer, char order);
void t_writer_order(struct t_writer *writer, char order);
void t_writer_wait(struct t_writer *writer);
void t_writer_end(struct t_writer *writer, bool kill_it);

/* 80 records, as by order a. Ends the process if that fails. */
void t_write_some(struct t_store *t, uint64_t *chance);

#endif
