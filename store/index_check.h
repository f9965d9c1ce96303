/*
 * index_check.h - what the files index_check*.c share. Tables that are keyed by session are walked
 * side by side, each by a cursor of its own.
 */
#ifndef HL_INDEX_CHECK_H
#define HL_INDEX_CHECK_H

#include "index_internal.h"

/* A cursor that stands on a value, or is at its end. */
struct place {
    MDB_cursor *cursor;
    MDB_val key, value;
    bool end;
};

int place_move(struct place *place, MDB_cursor_op op);
int place_open(const struct index_at *at, enum index_table table, struct place *place);
void place_close(struct place *place);
/* Whether the place stands on a value of this session; of one before it would be a stray. */
int place_is_of(struct index_check_report *report, const struct place *place, uint32_t session,
                bool *is);

/* Passes over the session's values. */
int place_skip(struct index_check_report *report, struct place *place, uint32_t session);

/* ---- index_check_documents.c ---- */

struct documents_check {
    struct index_at at;
    struct index_check_report *report;
    struct place slots, versions, documents, operations, keys;
    uint64_t slot_count, key_count, present; /* of all sessions */
    uint64_t key_sum, document_sum;          /* of hashes: 0 when both sides were added up */
};

int documents_check_begin(struct documents_check *check, const struct index_at *at,
                          struct index_check_report *report);
/* What belongs to the next session, in ascending order of their numbers. */
int check_documents(struct documents_check *check, const struct index_row *row);
/* The same, without a look at it. */
int documents_check_skip(struct documents_check *check, uint32_t session);
/* All sessions were seen: nothing may be left. */
int documents_check_end(struct documents_check *check);
void documents_check_free(struct documents_check *check);

#endif
