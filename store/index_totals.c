/* index_totals.c - what events come to, and the tool_call_ids that were counted; see sums.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "index_internal.h"
#include "sums.h"

#define CALL_KEY 12U
#define CALL_VALUE_MAX 20U /* two varints */

/* ---- sums ---- */

int index_sums_decode(const MDB_val *key, const MDB_val *value, struct sums *sums)
{
    struct index_unpack in;
    if (key->mv_size != sizeof(uint32_t) || index_value_open(TABLE_TOTALS, key, value, &in) < 0)
        return -EBADMSG;
    return sums_decode(in.at, in.left, sums);
}

int index_get_sums(struct index_view *view, uint32_t session, struct sums *sums)
{
    struct index_key key = index_key_u32(session);
    MDB_val key_val = index_key_val(&key), value;
    MDB_dbi table = view->at.index->table[TABLE_TOTALS];
    int error = index_error(mdb_get(view->at.txn, table, &key_val, &value));
    return error < 0 ? error : index_sums_decode(&key_val, &value, sums);
}

int index_put_sums(struct index_txn *txn, uint32_t session, const struct sums *sums)
{
    uint8_t *bytes;
    size_t len;
    if (txn->failed < 0)
        return txn->failed;
    txn->failed = sums_encode(sums, INDEX_CRC_SIZE, &bytes, &len);
    if (txn->failed < 0)
        return txn->failed;
    struct index_key key = index_key_u32(session);
    MDB_val key_val = index_key_val(&key);
    txn->failed = index_value_put(txn, TABLE_TOTALS, &key_val, bytes, len, 0);
    free(bytes);
    return txn->failed;
}

/* ---- calls ---- */

static uint8_t *put_varint(uint8_t *out, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *out++ = (uint8_t)(value | 0x80);
    *out++ = (uint8_t)value;
    return out;
}

static uint64_t take_varint(struct index_unpack *in)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        const uint8_t *byte = index_unpack_bytes(in, 1);
        if (!byte)
            return 0;
        value |= (uint64_t)(*byte & 0x7f) << shift;
        if (*byte < 0x80)
            return value;
    }
    in->bad = true;
    return 0;
}

int index_call_decode(const MDB_val *key, const MDB_val *value, struct index_call *call)
{
    struct index_unpack in;
    if (key->mv_size != CALL_KEY || index_value_open(TABLE_CALLS, key, value, &in) < 0)
        return -EBADMSG;
    call->hash = index_key_get_u64(key);
    call->first = take_varint(&in);
    call->last = call->first + take_varint(&in);
    return index_unpack_whole(&in) && call->hash != 0 && call->first <= call->last &&
                   call->last <= HL_SEQ_MAX
               ? 0
               : -EBADMSG;
}

int index_call_get(struct index_view *view, uint32_t session, uint64_t hash,
                   struct index_call *call)
{
    struct index_key key = index_key_u32_u64(session, hash);
    MDB_val key_val = index_key_val(&key), value;
    MDB_dbi table = view->at.index->table[TABLE_CALLS];
    int error = index_error(mdb_get(view->at.txn, table, &key_val, &value));
    return error < 0 ? error : index_call_decode(&key_val, &value, call);
}

static int by_hash(const void *a, const void *b)
{
    uint64_t left = ((const struct index_call *)a)->hash;
    uint64_t right = ((const struct index_call *)b)->hash;
    return left < right ? -1 : left > right;
}

void index_sort_calls(struct index_call *calls, size_t count)
{
    if (count > 1)
        qsort(calls, count, sizeof *calls, by_hash);
}

int index_put_calls(struct index_txn *txn, uint32_t session, const struct index_call *calls,
                    size_t count)
{
    for (size_t i = 0; i < count && txn->failed == 0; i++) {
        uint8_t content[CALL_VALUE_MAX + INDEX_CRC_SIZE];
        uint8_t *end = put_varint(content, calls[i].first);
        end = put_varint(end, calls[i].last - calls[i].first);
        struct index_key key = index_key_u32_u64(session, calls[i].hash);
        MDB_val key_val = index_key_val(&key);
        txn->failed =
            index_value_put(txn, TABLE_CALLS, &key_val, content, (size_t)(end - content), 0);
    }
    return txn->failed;
}
