/*
 * index_edit.c - changes and removes what was written: entries that are dropped or lie elsewhere
 * now, and whole sessions.
 *
 * A transaction keeps the pages that it changes in memory, so each call stops after a bounded
 * number of them and says where it is to go on.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "index_internal.h"
#include "sums.h"

#define COST_LIMIT UINT64_C(4096) /* of a transaction, in pages */
/* A block is a page of its own. One that is freed was read, and takes a share of the page that
 * names it. */
#define COST_STORED 2U
#define FREED_PER_PAGE 4U
#define VALUES_PER_PAGE 16U /* small ones, removed in order */

/* A session's row while its blocks are changed. */
struct editing {
    struct index_txn *txn;
    struct index_stored stored;
    uint64_t freed; /* blocks */
    /* What the row of level 1 below is to lose; it is stored when all of its blocks were seen. */
    struct index_sum group;
    bool in_group;
    uint64_t lost_bytes, lost_records;
    index_edit_each *each;
    void *context;
    struct index_edited *result;
};

static bool full(const struct index_edited *result)
{
    return result->cost >= COST_LIMIT;
}

/* ---- entries ---- */

static int leave_group(struct editing *editing)
{
    int error = 0;
    if (editing->in_group && editing->lost_records > 0) {
        error = index_sum_lower(editing->txn, &editing->stored, editing->group.ordinal,
                                editing->lost_bytes, editing->lost_records);
        editing->result->cost += INDEX_LEVELS;
    }
    editing->in_group = false;
    editing->lost_bytes = editing->lost_records = 0;
    return error;
}

/* A block lost so much: takes it out of the sum that it is in. */
static int lower(struct editing *editing, uint64_t first, uint64_t bytes, uint64_t records)
{
    struct index_stored *stored = &editing->stored;
    if (first == stored->newest)
        return 0;
    if (first >= stored->group_first) {
        if (stored->group_bytes < bytes || stored->group_records < records)
            return -EBADMSG;
        stored->group_bytes -= bytes;
        stored->group_records -= records;
        return 0;
    }
    if (!editing->in_group || first > editing->group.last) {
        int error = leave_group(editing);
        if (error == 0)
            error = index_sum_holding(&editing->txn->at, stored, first, &editing->group);
        if (error < 0)
            return error;
        editing->in_group = true;
    }
    editing->lost_bytes += bytes;
    editing->lost_records += records;
    return 0;
}

/* A block that is being changed. */
struct change {
    uint64_t first, last; /* of the block as it was */
    uint32_t kept;
    uint64_t kept_bytes, bytes, records, operations, moved; /* dropped, but for kept and moved */
    uint8_t block[INDEX_BLOCK_MAX];
};

/* Asks each() about the entries from `from` to `to`; all others are kept. */
static void ask(const struct editing *editing, const struct index_block *block, uint64_t from,
                uint64_t to, struct change *change)
{
    change->first = block->first;
    change->last = block->last;
    change->kept = 0;
    change->kept_bytes = change->bytes = change->records = change->operations = change->moved = 0;
    for (uint32_t i = 0; i < block->count; i++) {
        struct index_entry entry = index_block_entry(block, i), asked = entry;
        enum index_verdict verdict = INDEX_KEEP;
        if (entry.seq >= from && entry.seq <= to)
            verdict = editing->each(editing->context, &asked);
        if (verdict == INDEX_DROP) {
            change->records++;
            change->bytes += entry.length;
            change->operations += entry.operation;
            continue;
        }
        if (verdict == INDEX_MOVE) {
            entry.position = asked.position;
            change->moved++;
        }
        index_entry_pack(&entry, block->first,
                         change->block + INDEX_BLOCK_HEAD +
                             (size_t)change->kept * INDEX_BLOCK_ENTRY);
        change->kept++;
        change->kept_bytes += entry.length;
    }
}

static int store_change(struct editing *editing, struct change *change)
{
    struct index_stored *stored = &editing->stored;
    struct index_row *row = &stored->row;
    struct index_edited *result = editing->result;
    int error;
    if (change->kept > 0 || change->first == stored->newest) {
        error = index_block_put(editing->txn, row->number, change->first, change->kept,
                                change->kept_bytes, change->block);
        result->cost += COST_STORED;
    } else {
        error = index_block_remove(editing->txn, row->number, change->first);
        result->cost += ++editing->freed % FREED_PER_PAGE == 0;
    }
    if (error == 0)
        error = lower(editing, change->first, change->bytes, change->records);
    if (error == 0 && (row->records < change->records || row->bytes < change->bytes ||
                       row->documents.operations < change->operations))
        error = -EBADMSG;
    if (error < 0)
        return error;
    row->records -= change->records;
    row->bytes -= change->bytes;
    row->gone += change->bytes;
    row->documents.operations -= change->operations;
    result->records += change->records;
    result->bytes += change->bytes;
    result->operations += change->operations;
    result->moved += change->moved;
    editing->txn->edited = true;
    return 0;
}

/* The block that holds `from`, or the first one above it. -ENOENT. */
static int block_from(const struct index_txn *txn, uint32_t session, uint64_t from,
                      struct index_block *block)
{
    MDB_cursor *cursor;
    int error = index_error(mdb_cursor_open(txn->at.txn, txn->index->table[TABLE_BLOCKS], &cursor));
    if (error < 0)
        return error;
    error = index_block_at(cursor, session, from, block);
    if (error == -ENOENT || (error == 0 && block->last < from))
        error = index_block_first(cursor, session, from, block);
    mdb_cursor_close(cursor);
    return error;
}

static int edit_blocks(struct editing *editing, uint64_t from, uint64_t to)
{
    struct index_edited *result = editing->result;
    struct change change;
    int error = 0;
    while (from <= to) {
        struct index_block block;
        error = block_from(editing->txn, editing->stored.row.number, from, &block);
        if (error < 0 || block.first > to)
            break;
        if (full(result)) {
            result->more = true;
            result->next = from;
            break;
        }
        ask(editing, &block, from, to, &change);
        if (change.records > 0 || change.moved > 0)
            error = store_change(editing, &change);
        if (error < 0)
            break;
        from = change.last + 1;
    }
    if (error == 0 || error == -ENOENT)
        error = leave_group(editing);
    return error;
}

/* The seq of the first entry that is left; 0 if there is none. */
static int find_first_seq(struct editing *editing)
{
    struct index_row *row = &editing->stored.row;
    struct index_block block;
    row->first_seq = 0;
    if (row->records == 0)
        return 0;
    int error = block_from(editing->txn, row->number, 0, &block);
    if (error == 0 && block.count == 0)
        error = -ENOENT;
    if (error == 0)
        row->first_seq = index_block_entry(&block, 0).seq;
    return error == -ENOENT ? -EBADMSG : error; /* the row says that there is one */
}

/* trimmed: what the row is to say of that at least. */
static int edit(struct editing *editing, uint32_t session, uint64_t from, uint64_t to,
                uint64_t trimmed)
{
    struct index_stored *stored = &editing->stored;
    struct index_edited before = *editing->result;
    uint8_t *copy = NULL;
    int error = index_row_get(&editing->txn->at, session, stored);
    if (error == -ENOENT || (error == 0 && stored->removed))
        return 0;
    if (error == 0)
        error = index_row_own(&stored->row, &copy);
    bool note = error == 0 && stored->row.trimmed < trimmed;
    if (note)
        stored->row.trimmed = trimmed;
    if (error == 0)
        error = edit_blocks(editing, from, to);
    bool dropped = editing->result->records > before.records;
    if (error == 0 && (dropped || note)) {
        if (dropped)
            error = find_first_seq(editing);
        if (error == 0)
            error = index_row_put(editing->txn, stored);
        editing->txn->edited = true;
        editing->result->cost++;
        struct index_meta *meta = &editing->txn->meta;
        meta->records -= editing->result->records - before.records;
        meta->bytes -= editing->result->bytes - before.bytes;
    }
    editing->result->left = stored->row.records;
    editing->result->first_seq = stored->row.first_seq;
    free(copy);
    return error;
}

int index_edit(struct index_txn *txn, uint32_t session, uint64_t from, uint64_t to,
               index_edit_each *each, void *context, struct index_edited *result)
{
    struct editing editing = {.txn = txn, .each = each, .context = context, .result = result};
    result->more = false;
    if (txn->failed == 0)
        txn->failed = edit(&editing, session, from, to < HL_SEQ_MAX ? to : HL_SEQ_MAX, 0);
    return txn->failed;
}

static enum index_verdict drop_event(void *context, struct index_entry *entry)
{
    (void)context;
    return entry->operation ? INDEX_KEEP : INDEX_DROP;
}

int index_trim(struct index_txn *txn, uint32_t session, uint64_t below, struct index_edited *result)
{
    struct editing editing = {.txn = txn, .each = drop_event, .result = result};
    result->more = false;
    if (txn->failed == 0 && below > 0)
        txn->failed = edit(&editing, session, 0, below - 1, below);
    return txn->failed;
}

/* ---- whole sessions ---- */

/* The store's sums are without it from the same transaction on: a replay that does not find the
 * session any more takes nothing out. */
static int subtract_sums(struct index_txn *txn, uint32_t session)
{
    struct index_view view = {.at = txn->at};
    struct sums all = {0}, gone = {0};
    int error = index_get_sums(&view, session, &gone);
    if (error == 0)
        error = index_get_sums(&view, 0, &all);
    if (error == 0) {
        sums_subtract(&all, &gone);
        error = index_put_sums(txn, 0, &all);
    }
    sums_clear(&gone);
    sums_clear(&all);
    return error == -ENOENT ? 0 : error;
}

/* The id leads nowhere from now on, and the row is only a mark. */
static int mark_removed(struct index_txn *txn, const struct index_stored *stored,
                        struct index_edited *result)
{
    uint64_t records = stored->row.records, bytes = stored->row.bytes;
    uint64_t operations = stored->row.documents.operations;
    uint32_t number = stored->row.number;
    if (txn->meta.sessions == 0 || txn->meta.records < records || txn->meta.bytes < bytes)
        return -EBADMSG;
    int error = index_id_remove(txn, stored->row.id, stored->row.id_len);
    if (error == -ENOENT)
        error = -EBADMSG;
    if (error == 0)
        error = subtract_sums(txn, number);
    if (error == 0)
        error = index_mark_put(txn, number);
    if (error < 0)
        return error;
    txn->meta.sessions--;
    txn->meta.records -= records;
    txn->meta.bytes -= bytes;
    txn->edited = true;
    result->records += records;
    result->bytes += bytes;
    result->operations += operations;
    result->cost += 2;
    return 0;
}

/* One that is not known gets its mark all the same: its frames may come yet. */
static int mark_unknown(struct index_txn *txn, uint32_t session, struct index_edited *result)
{
    if (session == 0 || session == UINT32_MAX)
        return -EINVAL;
    if (session >= txn->meta.next_session)
        txn->meta.next_session = session + 1;
    txn->meta_changed = true;
    result->cost++;
    return index_mark_put(txn, session);
}

/* Removes what a table has of the session, until it is enough for one transaction. */
static int remove_values(struct index_txn *txn, enum index_table table, uint32_t session,
                         struct index_edited *result)
{
    unsigned per_page = table == TABLE_BLOCKS ? FREED_PER_PAGE : VALUES_PER_PAGE;
    MDB_cursor *cursor;
    int error = index_error(mdb_cursor_open(txn->at.txn, txn->index->table[table], &cursor));
    if (error < 0)
        return error;
    for (uint64_t count = 1;; count++) {
        struct index_key key = index_key_u32(session);
        MDB_val key_val = index_key_val(&key), value;
        error = index_error(mdb_cursor_get(cursor, &key_val, &value, MDB_SET_RANGE));
        if (error == 0 && key_val.mv_size < sizeof session)
            error = -EBADMSG;
        if (error < 0 || index_key_get_u32(&key_val) != session)
            break;
        if (full(result)) {
            result->more = true;
            break;
        }
        error = index_error(mdb_cursor_del(cursor, 0));
        if (error < 0)
            break;
        result->cost += count % per_page == 0;
    }
    mdb_cursor_close(cursor);
    return error == -ENOENT ? 0 : error;
}

static int remove_session(struct index_txn *txn, uint32_t session, struct index_edited *result)
{
    static const enum index_table tables[] = {TABLE_BLOCKS,     TABLE_SUMS,      TABLE_KEYS,
                                              TABLE_SLOTS,      TABLE_DOCUMENTS, TABLE_VERSIONS,
                                              TABLE_OPERATIONS, TABLE_TOTALS,    TABLE_CALLS};
    struct index_stored stored;
    int error = index_row_get(&txn->at, session, &stored);
    if (error == -ENOENT)
        return mark_unknown(txn, session, result);
    if (error < 0)
        return error;
    if (!stored.removed)
        error = mark_removed(txn, &stored, result);
    for (size_t i = 0; i < sizeof tables / sizeof tables[0] && error == 0 && !result->more; i++)
        error = remove_values(txn, tables[i], session, result);
    return error;
}

int index_remove_session(struct index_txn *txn, uint32_t session, struct index_edited *result)
{
    result->more = false;
    if (txn->failed == 0)
        txn->failed = remove_session(txn, session, result);
    return txn->failed;
}
