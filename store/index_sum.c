/* index_sum.c - sums over runs of blocks, and the questions that they answer in O(log n). */
#include <errno.h>
#include <string.h>

#include "index_internal.h"

#define SUM_KEY 13U
#define SUM_CONTENT 32U

uint64_t index_sums_at(uint64_t blocks, unsigned level)
{
    uint64_t finished = blocks > 0 ? blocks - 1 : 0;
    while (level-- > 0)
        finished /= INDEX_FANOUT;
    return finished;
}

int index_sum_decode(const MDB_val *key, const MDB_val *value, struct index_sum *sum)
{
    struct index_unpack in;
    if (key->mv_size != SUM_KEY || index_value_open(TABLE_SUMS, key, value, &in) < 0)
        return -EBADMSG;
    sum->session = index_key_get_u32(key);
    sum->level = ((const uint8_t *)key->mv_data)[sizeof(uint32_t)];
    sum->ordinal = index_key_get_u64(key);
    sum->bytes = index_unpack_u64(&in);
    sum->records = index_unpack_u64(&in);
    sum->first = index_unpack_u64(&in);
    sum->last = index_unpack_u64(&in);
    bool good = index_unpack_whole(&in) && sum->level >= 1 && sum->level <= INDEX_LEVELS &&
                sum->first <= sum->last && sum->last <= HL_SEQ_MAX && sum->records <= sum->bytes &&
                sum->records <= sum->last - sum->first + 1;
    return good ? 0 : -EBADMSG;
}

static int sum_put(const struct index_txn *txn, const struct index_sum *sum)
{
    uint8_t content[SUM_CONTENT + INDEX_CRC_SIZE];
    struct index_pack out = {.at = content};
    index_pack_u64(&out, sum->bytes);
    index_pack_u64(&out, sum->records);
    index_pack_u64(&out, sum->first);
    index_pack_u64(&out, sum->last);
    struct index_key key = index_key_sum(sum->session, sum->level, sum->ordinal);
    MDB_val key_val = index_key_val(&key);
    return index_value_put(txn, TABLE_SUMS, &key_val, content, SUM_CONTENT, 0);
}

/* The row at which the cursor is set (begin) or the next one, which must be the one asked for. */
static int sum_read(MDB_cursor *cursor, bool begin, uint32_t session, uint8_t level,
                    uint64_t ordinal, struct index_sum *sum)
{
    struct index_key key = index_key_sum(session, level, ordinal);
    MDB_val key_val = index_key_val(&key), value;
    int error =
        index_error(mdb_cursor_get(cursor, &key_val, &value, begin ? MDB_SET_KEY : MDB_NEXT));
    if (error == -ENOENT)
        return -EBADMSG; /* the session's row says that it is there */
    if (error < 0)
        return error;
    if (key_val.mv_size != key.len || memcmp(key_val.mv_data, key.bytes, key.len) != 0)
        return -EBADMSG;
    return index_sum_decode(&key_val, &value, sum);
}

/* The row of the level above that the rows up to sum complete. */
static int sum_above(const struct index_txn *txn, const struct index_sum *sum,
                     struct index_sum *above)
{
    MDB_cursor *cursor;
    int error = index_error(mdb_cursor_open(txn->at.txn, txn->index->table[TABLE_SUMS], &cursor));
    if (error < 0)
        return error;
    *above = (struct index_sum){.session = sum->session,
                                .level = (uint8_t)(sum->level + 1),
                                .ordinal = sum->ordinal / INDEX_FANOUT,
                                .last = sum->last};
    uint64_t begin = sum->ordinal + 1 - INDEX_FANOUT;
    for (uint64_t i = 0; i < INDEX_FANOUT && error == 0; i++) {
        struct index_sum one;
        error = sum_read(cursor, i == 0, sum->session, sum->level, begin + i, &one);
        if (error < 0)
            break;
        if (i == 0)
            above->first = one.first;
        above->bytes += one.bytes;
        above->records += one.records;
    }
    mdb_cursor_close(cursor);
    return error;
}

int index_sum_add(const struct index_txn *txn, const struct index_sum *sum)
{
    struct index_sum now = *sum;
    int error = sum_put(txn, &now);
    while (error == 0 && now.level < INDEX_LEVELS && (now.ordinal + 1) % INDEX_FANOUT == 0) {
        struct index_sum above;
        error = sum_above(txn, &now, &above);
        now = above;
        if (error == 0)
            error = sum_put(txn, &now);
    }
    return error;
}

/* ---- lowering ---- */

static int sum_get(const struct index_at *at, uint32_t session, uint8_t level, uint64_t ordinal,
                   struct index_sum *sum)
{
    struct index_key key = index_key_sum(session, level, ordinal);
    MDB_val key_val = index_key_val(&key), value;
    int error = index_error(mdb_get(at->txn, at->index->table[TABLE_SUMS], &key_val, &value));
    if (error == -ENOENT)
        return -EBADMSG; /* the session's row says that it is there */
    return error < 0 ? error : index_sum_decode(&key_val, &value, sum);
}

int index_sum_holding(const struct index_at *at, const struct index_stored *stored, uint64_t seq,
                      struct index_sum *sum)
{
    uint64_t low = 0, high = index_sums_at(stored->blocks, 1);
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        int error = sum_get(at, stored->row.number, 1, middle, sum);
        if (error < 0)
            return error;
        if (sum->first <= seq && seq <= sum->last)
            return 0;
        if (sum->last < seq)
            low = middle + 1;
        else
            high = middle;
    }
    return -EBADMSG;
}

int index_sum_lower(const struct index_txn *txn, const struct index_stored *stored,
                    uint64_t ordinal, uint64_t bytes, uint64_t records)
{
    for (uint8_t level = 1; level <= INDEX_LEVELS && ordinal < index_sums_at(stored->blocks, level);
         level++) {
        struct index_sum sum;
        int error = sum_get(&txn->at, stored->row.number, level, ordinal, &sum);
        if (error == 0 && (sum.bytes < bytes || sum.records < records))
            error = -EBADMSG;
        if (error < 0)
            return error;
        sum.bytes -= bytes;
        sum.records -= records;
        error = sum_put(txn, &sum);
        if (error < 0)
            return error;
        ordinal /= INDEX_FANOUT;
    }
    return 0;
}

/* ---- descending ---- */

/* What is looked for, and how far the search has come. */
struct descent {
    const struct index_at *at;
    const struct index_stored *stored;
    bool by_seq; /* target is a seq, else a byte offset */
    uint64_t target;
    uint64_t bytes; /* of all that was passed */
    uint64_t from;  /* nothing passed has a seq at or above this */
};

/* Passes a run of records if all of it lies before the target. -EBADMSG if it cannot be so. */
static int pass(struct descent *descent, uint64_t bytes, uint64_t first, uint64_t last,
                bool *passed)
{
    if (first < descent->from || bytes > descent->stored->row.bytes - descent->bytes)
        return -EBADMSG;
    *passed = descent->by_seq ? last < descent->target : bytes <= descent->target - descent->bytes;
    if (*passed) {
        descent->bytes += bytes;
        descent->from = last + 1;
    }
    return 0;
}

/* Passes rows of one level from *ordinal, which is left at the first that was not. */
static int descend_level(struct descent *descent, MDB_cursor *cursor, uint8_t level,
                         uint64_t *ordinal)
{
    uint64_t begin = *ordinal, end = index_sums_at(descent->stored->blocks, level);
    for (; *ordinal < end; ++*ordinal) {
        /* All of a run that was not passed as a whole cannot be passed in parts. */
        if (level < INDEX_LEVELS && *ordinal - begin >= INDEX_FANOUT)
            return -EBADMSG;
        struct index_sum sum;
        bool passed = false;
        int error =
            sum_read(cursor, *ordinal == begin, descent->stored->row.number, level, *ordinal, &sum);
        if (error == 0)
            error = pass(descent, sum.bytes, sum.first, sum.last, &passed);
        if (error < 0)
            return error;
        if (!passed)
            break;
    }
    return 0;
}

static int descend_sums(struct descent *descent)
{
    if (index_sums_at(descent->stored->blocks, 1) == 0)
        return 0;
    MDB_cursor *cursor;
    int error = index_error(
        mdb_cursor_open(descent->at->txn, descent->at->index->table[TABLE_SUMS], &cursor));
    if (error < 0)
        return error;
    uint64_t ordinal = 0;
    for (uint8_t level = INDEX_LEVELS; level >= 1 && error == 0; level--) {
        ordinal *= INDEX_FANOUT;
        error = descend_level(descent, cursor, level, &ordinal);
    }
    mdb_cursor_close(cursor);
    return error;
}

/* Passes blocks until one holds the target, which is copied to *found. -ENOENT: none does. */
static int descend_blocks(struct descent *descent, struct index_block *found)
{
    MDB_cursor *cursor;
    int error = index_error(
        mdb_cursor_open(descent->at->txn, descent->at->index->table[TABLE_BLOCKS], &cursor));
    if (error < 0)
        return error;
    uint32_t session = descent->stored->row.number;
    bool passed = false;
    error = index_block_first(cursor, session, descent->from, found);
    for (unsigned i = 0; error == 0; i++) {
        error = i > INDEX_FANOUT ? -EBADMSG
                                 : pass(descent, found->bytes, found->first, found->last, &passed);
        if (error < 0 || !passed)
            break;
        error = index_block_next(cursor, session, found);
    }
    mdb_cursor_close(cursor);
    return error;
}

/* Finds the block that holds the target; descent->bytes is then what lies before it. The newest
 * block needs no descent: what lies before it is all but its own. */
static int descend(struct descent *descent, struct index_block *found)
{
    const struct index_stored *stored = descent->stored;
    int error = index_block_get(descent->at, stored->row.number, stored->newest, found);
    if (error == -ENOENT)
        return -EBADMSG;
    if (error < 0)
        return error;
    if (found->bytes > stored->row.bytes)
        return -EBADMSG;
    uint64_t before = stored->row.bytes - found->bytes;
    if (descent->by_seq ? descent->target >= found->first : descent->target >= before) {
        descent->bytes = before;
        return 0;
    }
    error = descend_sums(descent);
    if (error == 0)
        error = descend_blocks(descent, found);
    /* The target is before the newest block, so some block must have been found. */
    return error == -ENOENT ? -EBADMSG : error;
}

int index_bytes_before(struct index_view *view, uint32_t session, uint64_t seq, uint64_t *bytes)
{
    struct index_stored stored;
    int error = index_row_get(&view->at, session, &stored);
    if (error < 0 && error != -ENOENT)
        return error;
    if (error == -ENOENT || stored.blocks == 0) {
        *bytes = 0;
        return 0;
    }
    struct descent descent = {.at = &view->at, .stored = &stored, .by_seq = true, .target = seq};
    struct index_block block;
    error = descend(&descent, &block);
    if (error < 0)
        return error;
    uint32_t end = index_block_search(&block, seq);
    for (uint32_t i = 0; i < end; i++)
        descent.bytes += index_block_entry(&block, i).length;
    *bytes = descent.bytes;
    return 0;
}

int index_find_offset(struct index_view *view, uint32_t session, uint64_t offset,
                      struct index_entry *entry, uint64_t *begin)
{
    struct index_stored stored;
    int error = index_row_get(&view->at, session, &stored);
    if (error < 0)
        return error;
    if (offset >= stored.row.bytes)
        return -ENOENT;
    if (stored.blocks == 0)
        return -EBADMSG;
    struct descent descent = {.at = &view->at, .stored = &stored, .target = offset};
    struct index_block block;
    error = descend(&descent, &block);
    if (error < 0)
        return error;
    for (uint32_t i = 0; i < block.count; i++) {
        struct index_entry found = index_block_entry(&block, i);
        if (found.length > offset - descent.bytes) {
            *entry = found;
            *begin = descent.bytes;
            return 0;
        }
        descent.bytes += found.length;
    }
    return -EBADMSG;
}
