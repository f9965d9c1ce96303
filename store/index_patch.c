/* index_patch.c - what compaction changes in the index: segments that took the place of others, and
 * operations that are forgotten. */
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
        key = index_key_val(&from);
        if (error == 0)
            error = index_error(mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE));
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

/* ---- operations that are forgotten ---- */

#define FORGET_VALUES 20000U /* looked at in one transaction, but for the versions of one slot */

static const struct index_forgotten *find_forgotten(const struct index_forgotten *forgotten,
                                                    size_t count, uint64_t seq)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (forgotten[middle].seq < seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && forgotten[low].seq == seq ? &forgotten[low] : NULL;
}

int index_forgotten_link(struct index_view *view, uint32_t session,
                         struct index_forgotten *forgotten, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct index_operation operation;
        int error = index_operation_get(view, session, forgotten[i].seq, &operation);
        forgotten[i].has_row = error == 0;
        if (error == -ENOENT)
            continue;
        if (error < 0)
            return error;
        free(operation.slots);
        forgotten[i].has_before = operation.has_before;
        forgotten[i].before = operation.before;
        const struct index_forgotten *before =
            operation.has_before ? find_forgotten(forgotten, i, operation.before) : NULL;
        if (before && before->has_row) {
            forgotten[i].has_before = before->has_before;
            forgotten[i].before = before->before;
        }
    }
    return 0;
}

/* The session's values in a table, from a key on. */
static int open_values(const struct index_txn *txn, enum index_table table, uint32_t session,
                       uint64_t from, MDB_cursor **cursor, MDB_val *key, MDB_val *value)
{
    struct index_key first = index_key_u32_u64(session, from);
    int error = index_error(mdb_cursor_open(txn->at.txn, txn->index->table[table], cursor));
    if (error < 0)
        return error;
    *key = index_key_val(&first);
    error = index_error(mdb_cursor_get(*cursor, key, value, MDB_SET_RANGE));
    if (error < 0)
        mdb_cursor_close(*cursor);
    return error;
}

static bool is_of(const MDB_val *key, uint32_t session)
{
    return key->mv_size >= 12 && index_key_get_u32(key) == session;
}

/* Links of operations that stay lead to others that stay. */
static int relink(struct index_txn *txn, uint32_t session, const struct index_forgotten *forgotten,
                  size_t count, struct index_forgetting *at)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    int error = open_values(txn, TABLE_OPERATIONS, session, at->next, &cursor, &key, &value);
    if (error < 0)
        return error;
    for (unsigned i = 0; error == 0 && is_of(&key, session); i++) {
        struct index_operation operation;
        const uint8_t *numbers;
        ssize_t parts = index_operation_decode(&key, &value, &operation, &numbers);
        if (parts < 0) {
            error = (int)parts;
            break;
        }
        at->next = operation.seq;
        if (i >= FORGET_VALUES) {
            at->more = true;
            break;
        }
        const struct index_forgotten *before =
            operation.has_before ? find_forgotten(forgotten, count, operation.before) : NULL;
        if (before && before->has_row) {
            operation.has_before = before->has_before;
            operation.before = before->before;
            error = index_operation_part_put(txn, &key, &operation, numbers, (size_t)parts);
            if (error < 0)
                break;
        }
        error = index_error(mdb_cursor_get(cursor, &key, &value, MDB_NEXT));
    }
    mdb_cursor_close(cursor);
    return error;
}

/* Rows of the operations themselves. */
static int remove_rows(struct index_txn *txn, uint32_t session,
                       const struct index_forgotten *forgotten, size_t count,
                       struct index_forgetting *at)
{
    int error = 0;
    for (unsigned done = 0; at->next < count && error == 0; at->next++) {
        MDB_cursor *cursor;
        MDB_val key, value;
        if (!forgotten[at->next].has_row)
            continue;
        if (done++ >= FORGET_VALUES) {
            at->more = true;
            break;
        }
        uint64_t seq = forgotten[at->next].seq;
        for (bool more = true; more && error == 0;) {
            error = open_values(txn, TABLE_OPERATIONS, session, seq, &cursor, &key, &value);
            if (error < 0)
                break;
            more = is_of(&key, session) && index_key_get_u64_at(&key, 4) == seq;
            if (more)
                error = index_error(mdb_cursor_del(cursor, 0));
            mdb_cursor_close(cursor);
        }
        if (error == -ENOENT)
            error = 0;
    }
    return error;
}

/* A slot's versions are walked; what they come to. */
struct slot_walk {
    uint64_t number;
    uint64_t before, end; /* of the version before: as it was, and as it is now */
    bool any, changed, was_present;
    struct index_version last; /* of those that stay */
};

/* No version of a slot is left, or it has another last one. */
static int finish_slot(struct index_txn *txn, uint32_t session, const struct slot_walk *walk,
                       struct index_documents *documents)
{
    struct index_view view = {.at = txn->at};
    struct index_slot slot;
    char key[HL_KEY_MAX];
    if (!walk->changed)
        return 0;
    int error = index_slot_get(&view, session, walk->number, &slot);
    if (error < 0)
        return error == -ENOENT ? -EBADMSG : error;
    memcpy(key, slot.key, slot.key_len);
    slot.key = key;
    if (slot.area == HL_AREA_STATE) {
        documents->documents -= walk->was_present;
        documents->documents += walk->any && walk->last.present;
    }
    return walk->any ? index_document_put(txn, session, &slot, &walk->last)
                     : index_slot_remove(txn, session, &slot);
}

static int walk_versions(struct index_txn *txn, uint32_t session,
                         const struct index_forgotten *forgotten, size_t count,
                         struct index_documents *documents, struct index_forgetting *at)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    struct slot_walk walk = {.number = 0};
    unsigned seen = 0;
    int error = open_values(txn, TABLE_VERSIONS, session, at->next, &cursor, &key, &value);
    if (error < 0)
        return error;
    while (error == 0 && is_of(&key, session)) {
        struct index_version version;
        error = index_version_decode(&key, &value, &version);
        if (error < 0)
            break;
        uint64_t number = index_key_get_u64_at(&key, 4);
        if (number != walk.number) {
            error = walk.number ? finish_slot(txn, session, &walk, documents) : 0;
            walk = (struct slot_walk){.number = number};
            at->next = number;
            at->more = seen >= FORGET_VALUES;
            if (error < 0 || at->more)
                break;
            /* What was changed meanwhile has moved the cursor's page. */
            struct index_key from = index_key_u32_u64(session, number);
            key = index_key_val(&from);
            error = index_error(mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE));
            if (error < 0)
                break;
        }
        seen++;
        uint64_t length = version.end - walk.before;
        walk.before = version.end;
        walk.was_present = version.present;
        if (find_forgotten(forgotten, count, version.seq)) {
            struct index_key from = index_key_u32_u64_u64(session, number, version.seq);
            walk.changed = true;
            error = index_error(mdb_cursor_del(cursor, 0));
            key = index_key_val(&from);
            if (error == 0)
                error = index_error(mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE));
            continue;
        }
        walk.end += length;
        walk.any = true;
        if (version.end != walk.end) {
            version.end = walk.end;
            walk.changed = true;
            error = index_version_put(txn, session, number, &version);
            if (error == 0) {
                struct index_key same = index_key_u32_u64_u64(session, number, version.seq);
                key = index_key_val(&same);
                error = index_error(mdb_cursor_get(cursor, &key, &value, MDB_SET));
            }
        }
        walk.last = version;
        if (error == 0)
            error = index_error(mdb_cursor_get(cursor, &key, &value, MDB_NEXT));
    }
    if ((error == 0 || error == -ENOENT) && !at->more && walk.number) {
        int finished = finish_slot(txn, session, &walk, documents);
        error = finished < 0 ? finished : error;
    }
    mdb_cursor_close(cursor);
    return error;
}

static int forget(struct index_txn *txn, uint32_t session, const struct index_forgotten *forgotten,
                  size_t count, struct index_forgetting *at)
{
    struct index_stored stored;
    uint8_t *copy;
    int error = index_row_get(&txn->at, session, &stored);
    if (error == 0 && stored.removed) { /* deleted meanwhile, with all that there was to forget */
        at->more = false;
        return 0;
    }
    if (error == 0)
        error = index_row_own(&stored.row, &copy);
    if (error < 0)
        return error;
    struct index_documents *documents = &stored.row.documents;
    const struct index_forgotten *top =
        documents->has_top ? find_forgotten(forgotten, count, documents->top) : NULL;
    at->more = false;
    if (at->stage == 0)
        error = relink(txn, session, forgotten, count, at);
    else if (at->stage == 1)
        error = walk_versions(txn, session, forgotten, count, documents, at);
    else
        error = remove_rows(txn, session, forgotten, count, at);
    if (error == -ENOENT)
        error = 0;
    if (top && top->has_row) {
        documents->has_top = top->has_before;
        documents->top = top->has_before ? top->before : 0;
    }
    if (error == 0)
        error = index_row_put(txn, &stored);
    free(copy);
    if (error == 0 && !at->more) {
        at->stage++;
        at->next = 0;
        at->more = at->stage < 3;
    }
    txn->edited = true;
    return error;
}

int index_forget_operations(struct index_txn *txn, uint32_t session,
                            const struct index_forgotten *forgotten, size_t count,
                            struct index_forgetting *at)
{
    if (txn->failed == 0)
        txn->failed = forget(txn, session, forgotten, count, at);
    return txn->failed;
}

/* ---- what is needed of a session's operations ---- */

int index_operations_all(struct index_view *view, uint32_t session, index_operation_each *each,
                         void *context)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    struct index_txn txn = {.at = view->at, .index = view->index};
    uint64_t last = 0;
    bool any = false;
    int error = open_values(&txn, TABLE_OPERATIONS, session, 0, &cursor, &key, &value);
    if (error < 0)
        return error == -ENOENT ? 0 : error;
    while (error == 0 && is_of(&key, session)) {
        struct index_operation operation;
        const uint8_t *numbers;
        ssize_t parts = index_operation_decode(&key, &value, &operation, &numbers);
        if (parts < 0)
            error = (int)parts;
        else if (!any || operation.seq != last)
            error = each(context, &operation);
        last = operation.seq;
        any = true;
        if (error == 0)
            error = index_error(mdb_cursor_get(cursor, &key, &value, MDB_NEXT));
    }
    mdb_cursor_close(cursor);
    return error == -ENOENT ? 0 : error;
}

int index_versions_all(struct index_view *view, uint32_t session, index_version_each *each,
                       void *context)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    struct index_txn txn = {.at = view->at, .index = view->index};
    struct index_slot slot = {.number = 0};
    int error = open_values(&txn, TABLE_VERSIONS, session, 0, &cursor, &key, &value);
    if (error < 0)
        return error == -ENOENT ? 0 : error;
    while (error == 0 && is_of(&key, session)) {
        struct index_version version;
        uint64_t number = index_key_get_u64_at(&key, 4);
        error = index_version_decode(&key, &value, &version);
        if (error == 0 && number != slot.number)
            error = index_slot_get(view, session, number, &slot);
        if (error == -ENOENT)
            error = -EBADMSG;
        if (error == 0)
            error = each(context, &slot, &version);
        if (error == 0)
            error = index_error(mdb_cursor_get(cursor, &key, &value, MDB_NEXT));
    }
    mdb_cursor_close(cursor);
    return error == -ENOENT ? 0 : error;
}
