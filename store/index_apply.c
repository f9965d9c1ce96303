/* index_apply.c - entries into blocks: extending the newest one, beginning new ones, closing
 * groups. */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "index_internal.h"

/* The newest block of a session as it is being filled, and the row that will be stored. */
struct filling {
    struct index_txn *txn;
    struct index_stored *stored;
    bool loaded;  /* the block below is in memory */
    bool changed; /* and not yet as it is stored */
    uint32_t count;
    uint64_t first, last, bytes;
    uint8_t block[INDEX_BLOCK_MAX];
};

/* Reads the newest block, to be extended. */
static int load(struct filling *filling)
{
    struct index_block block;
    const struct index_stored *stored = filling->stored;
    int error = index_block_get(&filling->txn->at, stored->row.number, stored->newest, &block);
    if (error < 0)
        return error == -ENOENT ? -EBADMSG : error;
    filling->count = block.count;
    filling->first = block.first;
    filling->last = block.last;
    filling->bytes = block.bytes;
    memcpy(filling->block + INDEX_BLOCK_HEAD, block.entries,
           (size_t)block.count * INDEX_BLOCK_ENTRY);
    filling->loaded = true;
    return 0;
}

static int store(struct filling *filling)
{
    if (!filling->changed)
        return 0;
    int error = index_block_put(filling->txn, filling->stored->row.number, filling->first,
                                filling->count, filling->bytes, filling->block);
    filling->changed = error < 0;
    return error;
}

/* The newest block is finished: adds it to its group, and closes the group if it is full. */
static int finish(struct filling *filling)
{
    struct index_stored *stored = filling->stored;
    int error = store(filling);
    if (error == 0 && filling->count == 0) /* all that it held was dropped */
        error = index_block_remove(filling->txn, stored->row.number, filling->first);
    if (error < 0)
        return error;
    stored->group_bytes += filling->bytes;
    stored->group_records += filling->count;
    if (stored->blocks % INDEX_FANOUT != 0)
        return 0;
    struct index_sum sum = {
        .session = stored->row.number,
        .level = 1,
        .ordinal = stored->blocks / INDEX_FANOUT - 1,
        .bytes = stored->group_bytes,
        .records = stored->group_records,
        .first = stored->group_first,
        .last = filling->last,
    };
    stored->group_bytes = 0;
    stored->group_records = 0;
    return index_sum_add(filling->txn, &sum);
}

static int begin_block(struct filling *filling, uint64_t seq)
{
    struct index_stored *stored = filling->stored;
    if (stored->blocks > 0) {
        int error = finish(filling);
        if (error < 0)
            return error;
    }
    if (stored->blocks % INDEX_FANOUT == 0)
        stored->group_first = seq;
    stored->newest = seq;
    stored->blocks++;
    filling->loaded = true;
    filling->count = 0;
    filling->bytes = 0;
    filling->first = seq;
    return 0;
}

static int add(struct filling *filling, const struct index_entry *entry)
{
    if (entry->seq > HL_SEQ_MAX || entry->length == 0 || entry->length >= INDEX_LENGTH_LIMIT)
        return -EINVAL;
    if (filling->stored->blocks > 0) {
        int error = filling->loaded ? 0 : load(filling);
        if (error < 0)
            return error;
        if (entry->seq <= filling->last)
            return -EINVAL;
    }
    if (!filling->loaded || filling->count == INDEX_BLOCK_ENTRIES ||
        entry->seq - filling->first > UINT32_MAX) {
        int error = begin_block(filling, entry->seq);
        if (error < 0)
            return error;
    }
    uint8_t *at = filling->block + INDEX_BLOCK_HEAD + (size_t)filling->count * INDEX_BLOCK_ENTRY;
    index_entry_pack(entry, filling->first, at);
    filling->count++;
    filling->last = entry->seq;
    filling->bytes += entry->length;
    filling->changed = true;
    return 0;
}

/* The session's row as it was; one of zeros, with its id stored, for a new one. */
static int row_before(struct index_txn *txn, const struct index_row *row,
                      struct index_stored *stored)
{
    int error = index_row_get(&txn->at, row->number, stored);
    if (error == 0) {
        if (stored->removed || stored->row.id_len != row->id_len ||
            memcmp(stored->row.id, row->id, row->id_len) != 0)
            return -EINVAL;
        return 0;
    }
    if (error != -ENOENT)
        return error;
    *stored = (struct index_stored){.row.number = row->number};
    error = index_id_put(txn, row->id, row->id_len, row->number);
    if (error < 0)
        return error == -EEXIST ? -EINVAL : error;
    txn->meta.sessions++;
    if (row->number >= txn->meta.next_session)
        txn->meta.next_session = row->number + 1;
    return 0;
}

/* Whether the new row's totals are the old one's and what was added. */
static bool totals_agree(const struct index_row *before, const struct index_row *row,
                         uint64_t added, uint64_t bytes, uint64_t first, uint64_t last)
{
    if (row->records != before->records + added || row->bytes != before->bytes + bytes)
        return false;
    if (added > 0 && (!row->has_seq || row->last_seq < last))
        return false;
    if (row->records == 0)
        return true;
    return row->first_seq == (before->records > 0 ? before->first_seq : first);
}

static int apply(struct index_txn *txn, const struct index_row *row, index_next *next,
                 void *context)
{
    if (row->number == 0 || row->number == UINT32_MAX || row->id_len == 0 ||
        row->id_len > HL_ID_MAX || !row->id || row->attributes_len > INDEX_ATTRIBUTES_MAX ||
        (row->attributes_len > 0 && !row->attributes))
        return -EINVAL;
    struct index_stored stored;
    int error = row_before(txn, row, &stored);
    if (error < 0)
        return error;

    struct filling filling = {.txn = txn, .stored = &stored, .loaded = false};
    struct index_entry entry;
    uint64_t added = 0, bytes = 0, first = 0, last = 0;
    while (next && next(context, &entry)) {
        error = add(&filling, &entry);
        if (error < 0)
            return error;
        if (added++ == 0)
            first = entry.seq;
        last = entry.seq;
        bytes += entry.length;
    }
    error = store(&filling);
    if (error < 0)
        return error;
    if (!totals_agree(&stored.row, row, added, bytes, first, last))
        return -EINVAL;
    stored.row = *row;
    error = index_row_put(txn, &stored);
    txn->meta.records += added;
    txn->meta.bytes += bytes;
    txn->meta_changed = true;
    return error;
}

int index_apply(struct index_txn *txn, const struct index_row *row, index_next *next, void *context)
{
    if (txn->failed == 0)
        txn->failed = apply(txn, row, next, context);
    return txn->failed;
}
