/* index_block.c - blocks of entries: checking, finding, walking. */
#include <errno.h>
#include <string.h>

#include "crc.h"
#include "index_internal.h"

#define BLOCK_KEY 12U
#define OPERATION_BIT (UINT32_C(1) << 31) /* of the length */

/* Position 8, length and kind 4, distance 4. */
static uint32_t entry_length(const uint8_t *entry)
{
    return index_load_u32(entry + 8) & ~OPERATION_BIT;
}

static uint32_t entry_distance(const uint8_t *entry)
{
    return index_load_u32(entry + 12);
}

struct index_entry index_block_entry(const struct index_block *block, uint32_t i)
{
    const uint8_t *entry = block->entries + (size_t)i * INDEX_BLOCK_ENTRY;
    return (struct index_entry){
        .seq = block->first + entry_distance(entry),
        .position = index_load_u64(entry),
        .length = entry_length(entry),
        .operation = (index_load_u32(entry + 8) & OPERATION_BIT) != 0,
    };
}

void index_entry_pack(const struct index_entry *entry, uint64_t first, uint8_t *at)
{
    struct index_pack out = {.at = at};
    index_pack_u64(&out, entry->position);
    index_pack_u32(&out, entry->length | (entry->operation ? OPERATION_BIT : 0));
    index_pack_u32(&out, (uint32_t)(entry->seq - first));
}

int index_block_decode(const MDB_val *key, const MDB_val *value, struct index_block *block)
{
    if (key->mv_size != BLOCK_KEY || value->mv_size < INDEX_BLOCK_HEAD ||
        value->mv_size > INDEX_BLOCK_MAX)
        return -EBADMSG;
    const uint8_t *head = value->mv_data;
    block->session = index_key_get_u32(key);
    block->first = index_key_get_u64(key);
    block->bytes = index_load_u64(head);
    block->count = index_load_u32(head + 8);
    block->entries = head + INDEX_BLOCK_HEAD;
    if (value->mv_size != INDEX_BLOCK_HEAD + (size_t)block->count * INDEX_BLOCK_ENTRY)
        return -EBADMSG;
    uint32_t crc = index_crc(TABLE_BLOCKS, key, head, 12);
    crc = index_crc_more(crc, block->entries, (size_t)block->count * INDEX_BLOCK_ENTRY);
    if (!crc32_agrees(crc, index_load_u32(head + 12)))
        return -EBADMSG;

    uint64_t bytes = 0, above = 0; /* what the next distance is not below */
    bool good = true;
    for (uint32_t i = 0; i < block->count; i++) {
        const uint8_t *entry = block->entries + (size_t)i * INDEX_BLOCK_ENTRY;
        uint32_t next = entry_distance(entry), length = entry_length(entry);
        good = good && next >= above && length > 0;
        above = (uint64_t)next + 1;
        bytes += length;
    }
    uint64_t distance = above > 0 ? above - 1 : 0;
    if (!good || bytes != block->bytes || block->first > HL_SEQ_MAX - distance)
        return -EBADMSG;
    block->last = block->first + distance;
    return 0;
}

uint32_t index_block_search(const struct index_block *block, uint64_t seq)
{
    uint32_t low = 0, high = block->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const uint8_t *entry = block->entries + (size_t)middle * INDEX_BLOCK_ENTRY;
        if (block->first + entry_distance(entry) < seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int index_block_get(const struct index_at *at, uint32_t session, uint64_t first,
                    struct index_block *block)
{
    struct index_key key = index_key_u32_u64(session, first);
    MDB_val key_val = index_key_val(&key), value;
    int error = index_error(mdb_get(at->txn, at->index->table[TABLE_BLOCKS], &key_val, &value));
    return error < 0 ? error : index_block_decode(&key_val, &value, block);
}

int index_block_put(const struct index_txn *txn, uint32_t session, uint64_t first, uint32_t count,
                    uint64_t bytes, uint8_t *block)
{
    size_t entries = (size_t)count * INDEX_BLOCK_ENTRY;
    struct index_key key = index_key_u32_u64(session, first);
    MDB_val key_val = index_key_val(&key);
    struct index_pack head = {.at = block};
    index_pack_u64(&head, bytes);
    index_pack_u32(&head, count);
    uint32_t crc = index_crc(TABLE_BLOCKS, &key_val, block, 12);
    index_pack_u32(&head, index_crc_more(crc, block + INDEX_BLOCK_HEAD, entries));
    MDB_val value = {.mv_size = INDEX_BLOCK_HEAD + entries, .mv_data = block};
    return index_error(mdb_put(txn->at.txn, txn->index->table[TABLE_BLOCKS], &key_val, &value, 0));
}

int index_block_remove(const struct index_txn *txn, uint32_t session, uint64_t first)
{
    struct index_key key = index_key_u32_u64(session, first);
    MDB_val key_val = index_key_val(&key);
    return index_error(mdb_del(txn->at.txn, txn->index->table[TABLE_BLOCKS], &key_val, NULL));
}

/* What the cursor stands on, if it is a block of the session. */
static int decode_of(const MDB_val *key, const MDB_val *value, uint32_t session,
                     struct index_block *block)
{
    if (key->mv_size != BLOCK_KEY)
        return -EBADMSG;
    if (index_key_get_u32(key) != session)
        return -ENOENT;
    return index_block_decode(key, value, block);
}

int index_block_first(MDB_cursor *cursor, uint32_t session, uint64_t from,
                      struct index_block *block)
{
    struct index_key key = index_key_u32_u64(session, from);
    MDB_val key_val = index_key_val(&key), value;
    int error = index_error(mdb_cursor_get(cursor, &key_val, &value, MDB_SET_RANGE));
    if (error == 0)
        error = decode_of(&key_val, &value, session, block);
    return error == 0 && block->first < from ? -EBADMSG : error;
}

int index_block_next(MDB_cursor *cursor, uint32_t session, struct index_block *block)
{
    uint64_t last = block->last;
    MDB_val key, value;
    int error = index_error(mdb_cursor_get(cursor, &key, &value, MDB_NEXT));
    if (error == 0)
        error = decode_of(&key, &value, session, block);
    return error == 0 && block->first <= last ? -EBADMSG : error;
}

int index_block_at(MDB_cursor *cursor, uint32_t session, uint64_t seq, struct index_block *block)
{
    struct index_key key = index_key_u32_u64(session, seq);
    MDB_val key_val = index_key_val(&key), value;
    int error = index_error(mdb_cursor_get(cursor, &key_val, &value, MDB_SET_RANGE));
    if (error == -ENOENT) {
        error = index_error(mdb_cursor_get(cursor, &key_val, &value, MDB_LAST));
    } else if (error == 0 &&
               (key_val.mv_size != key.len || memcmp(key_val.mv_data, key.bytes, key.len) != 0)) {
        error = index_error(mdb_cursor_get(cursor, &key_val, &value, MDB_PREV));
    }
    if (error == 0)
        error = decode_of(&key_val, &value, session, block);
    return error == 0 && block->first > seq ? -EBADMSG : error;
}

int index_find(struct index_view *view, uint32_t session, uint64_t seq, struct index_entry *entry)
{
    MDB_cursor *cursor;
    int error =
        index_error(mdb_cursor_open(view->at.txn, view->at.index->table[TABLE_BLOCKS], &cursor));
    if (error < 0)
        return error;
    struct index_block block;
    error = index_block_at(cursor, session, seq, &block);
    mdb_cursor_close(cursor);
    if (error != 0)
        return error;
    uint32_t i = index_block_search(&block, seq);
    if (i == block.count)
        return -ENOENT;
    struct index_entry found = index_block_entry(&block, i);
    if (found.seq != seq)
        return -ENOENT;
    *entry = found;
    return 0;
}

static int each_in(MDB_cursor *cursor, uint32_t session, uint64_t from, index_each *each,
                   void *context)
{
    struct index_block block;
    int error = index_block_at(cursor, session, from, &block);
    if (error == -ENOENT)
        error = index_block_first(cursor, session, from, &block);
    while (error == 0) {
        for (uint32_t i = index_block_search(&block, from); i < block.count; i++) {
            struct index_entry entry = index_block_entry(&block, i);
            if (!each(context, &entry))
                return 0;
        }
        error = index_block_next(cursor, session, &block);
    }
    return error == -ENOENT ? 0 : error;
}

int index_each_from(struct index_view *view, uint32_t session, uint64_t from, index_each *each,
                    void *context)
{
    MDB_cursor *cursor; /* of its own, so that each() may ask the same view */
    int error =
        index_error(mdb_cursor_open(view->at.txn, view->at.index->table[TABLE_BLOCKS], &cursor));
    if (error < 0)
        return error;
    error = each_in(cursor, session, from, each, context);
    mdb_cursor_close(cursor);
    return error;
}
