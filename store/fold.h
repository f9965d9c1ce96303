/*
 * fold.h - operations change documents: what each operation of the log does, put into the active
 * memtable as versions of slots (design.md, section 4).
 *
 * The same code folds an operation when it is appended and when it is replayed, so both come out
 * the same. At an append an operation that does not apply is refused; in a replay, where what it
 * stands on may have been lost, it does what it still can.
 *
 * append_lock is held, or the store is being opened. What is done is staged: it counts for the
 * fold at once, for readers when the record's seq is that of the session's row, and
 * fold_settle() or fold_take_back() ends the batch.
 */
#ifndef HL_FOLD_H
#define HL_FOLD_H

#include "core.h"
#include "operation.h"

/* A record that holds an operation. */
struct fold_record {
    uint64_t seq;
    const char *line; /* as stored */
    uint32_t length;
};

/* Begins a batch for a session of the active table. */
void fold_begin(struct mem_session *session);
/* Folds one operation. strict: at an append; err says why it is refused: -EINVAL, -ENOENT (no
 * such document), -ENOTEMPTY. Else only -ENOMEM and what reading the index gives. */
int fold_operation(struct hl_store *store, struct mem_session *session,
                   const struct fold_record *record, bool strict, struct hl_error *err);
/* What "prev_seq" and "prev_op" are for an operation that comes next. */
int fold_links(struct hl_store *store, struct mem_session *session,
               const struct operation *operation, struct operation_link *prev_seq,
               struct operation_link *prev_op);
/* What the batch did to documents of HL_AREA_STATE, for news: the last `max` of them, in *news (the
 * caller's to free; NULL: none). */
int fold_news(const struct mem_session *session, size_t max, struct hl_document_news **news,
              size_t *count, uint64_t *skipped);

/* The batch is stored (its totals are those of the row from now on), or it is not. mem_lock is held
 * for writing. */
void fold_settle(struct mem_session *session);
void fold_take_back(struct hl_store *store, struct mem_session *session);

/* 0 if what an append expects of its documents holds; else see struct hl_expectation. */
int fold_expect(struct hl_store *store, uint32_t session, const struct hl_expectation *expectation,
                struct hl_error *err);

#endif
