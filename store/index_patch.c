/* index_patch.c - what the index knows of segments, after one took the place of others. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "index_internal.h"

#define LOWERED_MAX 2000U /* rows in one transaction */

/* Removes the values whose keys begin with a segment number of the range. */
static int remove_range(struct index_txn *txn, enum index_table table, uint32_t first,
                        uint32_t last)
{
    MDB_cursor *cursor;
    struct index_key from = index_key_u32(first);
    MDB_val key = index_key_val(&from), value;
    int error = index_error(mdb_cursor_open(txn->at.txn, txn->index->table[table], &cursor));
    if (error < 0)
        return error;
    error = index_error(mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE));
    while (error == 0) {
        if (key.mv_size < sizeof first)
            error = -EBADMSG;
        if (error < 0 || index_key_get_u32(&key) > last)
            break;
        error = index_error(mdb_cursor_del(cursor, 0));
        if (error == 0) /* the cursor stands on what follows, or behind the end */
            error = index_error(mdb_cursor_get(cursor, &key, &value, MDB_GET_CURRENT));
        if (error == -EINVAL)
            error = -ENOENT;
    }
    mdb_cursor_close(cursor);
    return error == -ENOENT ? 0 : error;
}

int index_replace_segments(struct index_txn *txn, const struct index_segment *segment)
{
    if (txn->failed == 0)
        txn->failed = remove_range(txn, TABLE_SEGMENTS, segment->first, segment->last);
    if (txn->failed == 0)
        txn->failed = remove_range(txn, TABLE_POINTS, segment->first, segment->last);
    txn->edited = true;
    return index_put_segment(txn, segment);
}

/* The next row with a number above `after` that is applied further than this. */
static int find_further(struct index_txn *txn, uint32_t after, uint64_t position,
                        struct index_stored *stored)
{
    MDB_cursor *cursor;
    if (after == UINT32_MAX)
        return -ENOENT;
    struct index_key from = index_key_u32(after + 1);
    MDB_val key = index_key_val(&from), value;
    int error =
        index_error(mdb_cursor_open(txn->at.txn, txn->index->table[TABLE_SESSIONS], &cursor));
    if (error < 0)
        return error;
    error = index_error(mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE));
    while (error == 0) {
        error = index_row_decode(&key, &value, stored);
        if (error < 0 || stored->row.indexed > position)
            break;
        error = index_error(mdb_cursor_get(cursor, &key, &value, MDB_NEXT));
    }
    mdb_cursor_close(cursor);
    return error;
}

static int lower(struct index_txn *txn, uint32_t *after, uint64_t position)
{
    for (unsigned i = 0; i < LOWERED_MAX; i++) {
        struct index_stored stored;
        uint8_t *copy;
        int error = find_further(txn, *after, position, &stored);
        if (error == -ENOENT)
            *after = UINT32_MAX;
        if (error < 0)
            return error == -ENOENT ? 0 : error;
        error = index_row_own(&stored.row, &copy);
        if (error < 0)
            return error;
        stored.row.indexed = position;
        error = index_row_put(txn, &stored);
        *after = stored.row.number;
        free(copy);
        if (error < 0)
            return error;
    }
    return 0;
}

int index_lower_indexed(struct index_txn *txn, uint32_t *after, uint64_t position)
{
    if (txn->failed == 0)
        txn->failed = lower(txn, after, position);
    return txn->failed;
}
