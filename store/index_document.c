/* index_document.c - documents in the index: slots, their versions, what is there now, and the
 * operations that can be undone. Values stand in index_internal.h. */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "index_internal.h"

#define VERSION_SIZE 36U /* the most bytes of a version's value */
#define VERSION_IS_PRESENT 1U
#define VERSION_MOVED 2U
#define PART_SLOTS 256U /* numbers in a part of an operation */
#define PART_KEY 16U

/* ---- values ---- */

static void pack_version(struct index_pack *out, const struct index_version *version)
{
    index_pack_u64(out, version->end);
    index_pack_u32(out, (version->present ? VERSION_IS_PRESENT : 0) |
                            (version->moved ? VERSION_MOVED : 0));
    if (!version->present)
        return;
    index_pack_u64(out, version->source);
    index_pack_u64(out, version->set_ms);
    index_pack_u32(out, version->offset);
    index_pack_u32(out, version->length);
}

/* false: it cannot be so. seq stands elsewhere and is known. */
static bool unpack_version(struct index_unpack *in, struct index_version *version)
{
    version->end = index_unpack_u64(in);
    uint32_t flags = index_unpack_u32(in);
    version->present = flags == VERSION_IS_PRESENT;
    version->moved = flags == VERSION_MOVED;
    version->source = version->set_ms = 0;
    version->offset = version->length = 0;
    if (in->bad || (flags && !version->present && !version->moved))
        return false;
    if (!version->present)
        return true;
    version->source = index_unpack_u64(in);
    version->set_ms = index_unpack_u64(in);
    version->offset = index_unpack_u32(in);
    version->length = index_unpack_u32(in);
    return !in->bad && version->source <= version->seq && version->seq <= HL_SEQ_MAX;
}

int index_slot_key_decode(const MDB_val *key, const MDB_val *value, uint64_t *number)
{
    struct index_unpack in;
    if (key->mv_size <= 12 || key->mv_size > 12 + HL_KEY_MAX ||
        index_value_open(TABLE_KEYS, key, value, &in) < 0)
        return -EBADMSG;
    *number = index_unpack_u64(&in);
    return index_unpack_whole(&in) && *number >= INDEX_SLOT_FIRST ? 0 : -EBADMSG;
}

int index_slot_decode(const MDB_val *key, const MDB_val *value, struct index_slot *slot)
{
    struct index_unpack in;
    if (key->mv_size != 12 || index_value_open(TABLE_SLOTS, key, value, &in) < 0)
        return -EBADMSG;
    slot->number = index_key_get_u64(key);
    slot->area = index_unpack_u64(&in);
    if (in.bad || in.left == 0 || in.left > HL_KEY_MAX || slot->number < INDEX_SLOT_FIRST)
        return -EBADMSG;
    slot->key_len = (uint16_t)in.left;
    slot->key = (const char *)index_unpack_bytes(&in, in.left);
    return 0;
}

int index_version_decode(const MDB_val *key, const MDB_val *value, struct index_version *version)
{
    struct index_unpack in;
    if (key->mv_size != 20 || index_value_open(TABLE_VERSIONS, key, value, &in) < 0)
        return -EBADMSG;
    version->seq = index_key_get_u64(key);
    return unpack_version(&in, version) && index_unpack_whole(&in) ? 0 : -EBADMSG;
}

int index_document_decode(const MDB_val *key, const MDB_val *value, struct index_slot *slot,
                          struct index_version *version)
{
    struct index_unpack in;
    if (key->mv_size != 20 || index_value_open(TABLE_DOCUMENTS, key, value, &in) < 0)
        return -EBADMSG;
    slot->area = index_key_get_u64_at(key, 4);
    slot->number = index_key_get_u64(key);
    version->seq = index_unpack_u64(&in);
    if (!unpack_version(&in, version) || !version->present || in.left == 0 || in.left > HL_KEY_MAX)
        return -EBADMSG;
    slot->key_len = (uint16_t)in.left;
    slot->key = (const char *)index_unpack_bytes(&in, in.left);
    return 0;
}

ssize_t index_operation_decode(const MDB_val *key, const MDB_val *value,
                               struct index_operation *operation, const uint8_t **numbers)
{
    struct index_unpack in;
    if (key->mv_size != PART_KEY || index_value_open(TABLE_OPERATIONS, key, value, &in) < 0)
        return -EBADMSG;
    operation->seq = index_key_get_u64_at(key, 4);
    uint32_t has_before = index_unpack_u32(&in);
    operation->has_before = has_before != 0;
    operation->before = index_unpack_u64(&in);
    size_t count = in.left / 8;
    if (in.bad || has_before > 1 || in.left % 8 != 0 || count > PART_SLOTS ||
        (operation->has_before && operation->before >= operation->seq))
        return -EBADMSG;
    *numbers = index_unpack_bytes(&in, in.left);
    return (ssize_t)count;
}

/* ---- cursors ---- */

static bool starts_with(const MDB_val *key, const struct index_key *prefix, size_t len)
{
    return key->mv_size >= len && memcmp(key->mv_data, prefix->bytes, len) == 0;
}

/* The first value with a key >= the given one that shares its first `same` bytes. -ENOENT. */
static int find_from(const struct index_view *view, enum index_table table, struct index_key *from,
                     size_t same, MDB_cursor **cursor, MDB_val *key, MDB_val *value)
{
    int error = index_error(mdb_cursor_open(view->at.txn, view->at.index->table[table], cursor));
    if (error < 0)
        return error;
    *key = index_key_val(from);
    error = index_error(mdb_cursor_get(*cursor, key, value, MDB_SET_RANGE));
    if (error == 0 && !starts_with(key, from, same))
        error = -ENOENT;
    if (error < 0)
        mdb_cursor_close(*cursor);
    return error;
}

/* ---- reading ---- */

int index_slot_find(struct index_view *view, uint32_t session, uint64_t area, const char *key,
                    size_t len, uint64_t *number)
{
    if (len == 0 || len > HL_KEY_MAX)
        return -ENOENT;
    struct index_key index_key = index_key_bytes(session, area, key, len);
    MDB_val key_val = index_key_val(&index_key), value;
    int error =
        index_error(mdb_get(view->at.txn, view->at.index->table[TABLE_KEYS], &key_val, &value));
    return error < 0 ? error : index_slot_key_decode(&key_val, &value, number);
}

int index_slot_get(struct index_view *view, uint32_t session, uint64_t number,
                   struct index_slot *slot)
{
    struct index_key key = index_key_u32_u64(session, number);
    MDB_val key_val = index_key_val(&key), value;
    int error =
        index_error(mdb_get(view->at.txn, view->at.index->table[TABLE_SLOTS], &key_val, &value));
    return error < 0 ? error : index_slot_decode(&key_val, &value, slot);
}

int index_slot_next(struct index_view *view, uint32_t session, uint64_t after,
                    struct index_slot *slot)
{
    if (after == UINT64_MAX)
        return -ENOENT;
    MDB_cursor *cursor;
    MDB_val key, value;
    struct index_key from = index_key_u32_u64(session, after + 1);
    int error = find_from(view, TABLE_SLOTS, &from, 4, &cursor, &key, &value);
    if (error < 0)
        return error;
    error = index_slot_decode(&key, &value, slot);
    mdb_cursor_close(cursor);
    return error;
}

int index_version_at(struct index_view *view, uint32_t session, uint64_t number, uint64_t limit,
                     struct index_version *version)
{
    MDB_cursor *cursor;
    MDB_val value;
    struct index_key from = index_key_u32_u64_u64(session, number, limit);
    MDB_val key = index_key_val(&from);
    int error =
        index_error(mdb_cursor_open(view->at.txn, view->at.index->table[TABLE_VERSIONS], &cursor));
    if (error < 0)
        return error;
    error = index_error(mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE));
    if (error == -ENOENT)
        error = index_error(mdb_cursor_get(cursor, &key, &value, MDB_LAST));
    else if (error == 0 && (key.mv_size != from.len || !starts_with(&key, &from, from.len)))
        error = index_error(mdb_cursor_get(cursor, &key, &value, MDB_PREV));
    if (error == 0 && !starts_with(&key, &from, 12))
        error = -ENOENT;
    if (error == 0)
        error = index_version_decode(&key, &value, version);
    mdb_cursor_close(cursor);
    return error;
}

int index_version_from(struct index_view *view, uint32_t session, uint64_t number, uint64_t from,
                       struct index_version *version)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    struct index_key first = index_key_u32_u64_u64(session, number, from);
    int error = find_from(view, TABLE_VERSIONS, &first, 12, &cursor, &key, &value);
    if (error < 0)
        return error;
    error = index_version_decode(&key, &value, version);
    mdb_cursor_close(cursor);
    return error;
}

int index_documents_from(struct index_view *view, uint32_t session, uint64_t area, uint64_t after,
                         index_document_each *each, void *context)
{
    if (after == UINT64_MAX)
        return 0;
    MDB_cursor *cursor;
    MDB_val key, value;
    struct index_key from = index_key_u32_u64_u64(session, area, after + 1);
    int error = find_from(view, TABLE_DOCUMENTS, &from, 12, &cursor, &key, &value);
    if (error < 0)
        return error == -ENOENT ? 0 : error;
    bool more = true;
    while (error == 0 && more && starts_with(&key, &from, 12)) {
        struct index_slot slot;
        struct index_version version;
        error = index_document_decode(&key, &value, &slot, &version);
        more = error == 0 && each(context, &slot, &version);
        if (more)
            error = index_error(mdb_cursor_get(cursor, &key, &value, MDB_NEXT));
    }
    mdb_cursor_close(cursor);
    return error == -ENOENT ? 0 : error;
}

int index_operation_get(struct index_view *view, uint32_t session, uint64_t seq,
                        struct index_operation *operation)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    struct index_operation found = {.seq = seq};
    struct index_key from = index_key_u32_u64(session, seq);
    int error = find_from(view, TABLE_OPERATIONS, &from, 12, &cursor, &key, &value);
    if (error < 0)
        return error;
    while (error == 0 && starts_with(&key, &from, 12)) {
        const uint8_t *numbers;
        ssize_t count = index_operation_decode(&key, &value, &found, &numbers);
        uint64_t *slots = NULL;
        if (count >= 0) {
            slots = realloc(found.slots, (found.count + (size_t)count + 1) * sizeof *slots);
            error = slots ? 0 : -ENOMEM;
        } else {
            error = (int)count;
        }
        if (error < 0)
            break;
        found.slots = slots;
        for (ssize_t i = 0; i < count; i++)
            found.slots[found.count++] = index_load_u64(numbers + 8 * i);
        error = index_error(mdb_cursor_get(cursor, &key, &value, MDB_NEXT));
    }
    mdb_cursor_close(cursor);
    if (error < 0 && error != -ENOENT) {
        free(found.slots);
        return error;
    }
    *operation = found;
    return 0;
}

/* ---- writing ---- */

static int put(struct index_txn *txn, enum index_table table, struct index_key *key,
               uint8_t *content, const struct index_pack *end, unsigned flags)
{
    MDB_val key_val = index_key_val(key);
    return index_value_put(txn, table, &key_val, content, (size_t)(end->at - content), flags);
}

static bool slot_plausible(const struct index_slot *slot)
{
    return slot->number >= INDEX_SLOT_FIRST && slot->key_len > 0 && slot->key_len <= HL_KEY_MAX;
}

static int put_slot(struct index_txn *txn, uint32_t session, const struct index_slot *slot)
{
    uint8_t content[8 + HL_KEY_MAX + INDEX_CRC_SIZE];
    if (!slot_plausible(slot))
        return -EINVAL;
    struct index_pack out = {.at = content};
    struct index_key key = index_key_bytes(session, slot->area, slot->key, slot->key_len);
    index_pack_u64(&out, slot->number);
    int error = put(txn, TABLE_KEYS, &key, content, &out, MDB_NOOVERWRITE);
    if (error < 0)
        return error == -EEXIST ? -EINVAL : error;
    out.at = content;
    key = index_key_u32_u64(session, slot->number);
    index_pack_u64(&out, slot->area);
    index_pack_bytes(&out, slot->key, slot->key_len);
    error = put(txn, TABLE_SLOTS, &key, content, &out, MDB_NOOVERWRITE);
    return error == -EEXIST ? -EINVAL : error;
}

int index_put_slot(struct index_txn *txn, uint32_t session, const struct index_slot *slot)
{
    if (txn->failed == 0)
        txn->failed = put_slot(txn, session, slot);
    return txn->failed;
}

/* The document that is there now, or none. */
static int put_document(struct index_txn *txn, uint32_t session, const struct index_slot *slot,
                        const struct index_version *version)
{
    uint8_t content[8 + VERSION_SIZE + HL_KEY_MAX + INDEX_CRC_SIZE];
    struct index_pack out = {.at = content};
    struct index_key key = index_key_u32_u64_u64(session, slot->area, slot->number);
    if (!version->present) {
        MDB_val key_val = index_key_val(&key);
        int error =
            index_error(mdb_del(txn->at.txn, txn->index->table[TABLE_DOCUMENTS], &key_val, NULL));
        return error == -ENOENT ? 0 : error;
    }
    index_pack_u64(&out, version->seq);
    pack_version(&out, version);
    index_pack_bytes(&out, slot->key, slot->key_len);
    return put(txn, TABLE_DOCUMENTS, &key, content, &out, 0);
}

int index_document_put(struct index_txn *txn, uint32_t session, const struct index_slot *slot,
                       const struct index_version *version)
{
    return put_document(txn, session, slot, version);
}

int index_version_put(struct index_txn *txn, uint32_t session, uint64_t number,
                      const struct index_version *version)
{
    uint8_t content[VERSION_SIZE + INDEX_CRC_SIZE];
    struct index_pack out = {.at = content};
    struct index_key key = index_key_u32_u64_u64(session, number, version->seq);
    pack_version(&out, version);
    return put(txn, TABLE_VERSIONS, &key, content, &out, 0);
}

int index_operation_part_put(struct index_txn *txn, const MDB_val *key,
                             const struct index_operation *operation, const uint8_t *numbers,
                             size_t count)
{
    uint8_t content[12 + PART_SLOTS * 8 + INDEX_CRC_SIZE];
    struct index_pack out = {.at = content};
    struct index_key copy = {.len = key->mv_size};
    if (key->mv_size != PART_KEY || count > PART_SLOTS)
        return -EBADMSG;
    memcpy(copy.bytes, key->mv_data, key->mv_size);
    index_pack_u32(&out, operation->has_before ? 1 : 0);
    index_pack_u64(&out, operation->has_before ? operation->before : 0);
    index_pack_bytes(&out, numbers, count * 8);
    return put(txn, TABLE_OPERATIONS, &copy, content, &out, 0);
}

static int remove_value(struct index_txn *txn, enum index_table table, struct index_key *key)
{
    MDB_val key_val = index_key_val(key);
    int error = index_error(mdb_del(txn->at.txn, txn->index->table[table], &key_val, NULL));
    return error == -ENOENT ? 0 : error;
}

int index_slot_remove(struct index_txn *txn, uint32_t session, const struct index_slot *slot)
{
    struct index_key key = index_key_bytes(session, slot->area, slot->key, slot->key_len);
    int error = remove_value(txn, TABLE_KEYS, &key);
    key = index_key_u32_u64(session, slot->number);
    if (error == 0)
        error = remove_value(txn, TABLE_SLOTS, &key);
    key = index_key_u32_u64_u64(session, slot->area, slot->number);
    return error == 0 ? remove_value(txn, TABLE_DOCUMENTS, &key) : error;
}

static int put_versions(struct index_txn *txn, uint32_t session, const struct index_slot *slot,
                        const struct index_version *versions, size_t count)
{
    if (!slot_plausible(slot))
        return -EINVAL;
    for (size_t i = 0; i < count; i++) {
        uint8_t content[VERSION_SIZE + INDEX_CRC_SIZE];
        struct index_pack out = {.at = content};
        struct index_key key = index_key_u32_u64_u64(session, slot->number, versions[i].seq);
        if (i > 0 && versions[i].seq <= versions[i - 1].seq)
            return -EINVAL;
        pack_version(&out, &versions[i]);
        int error = put(txn, TABLE_VERSIONS, &key, content, &out, 0);
        if (error < 0)
            return error;
    }
    return count > 0 ? put_document(txn, session, slot, &versions[count - 1]) : 0;
}

int index_put_versions(struct index_txn *txn, uint32_t session, const struct index_slot *slot,
                       const struct index_version *versions, size_t count)
{
    if (txn->failed == 0)
        txn->failed = put_versions(txn, session, slot, versions, count);
    return txn->failed;
}

static int put_operation(struct index_txn *txn, uint32_t session,
                         const struct index_operation *operation)
{
    uint8_t content[12 + PART_SLOTS * 8 + INDEX_CRC_SIZE];
    uint32_t part = 0;
    size_t at = 0;
    do { /* also one that changed nothing has a part */
        struct index_pack out = {.at = content};
        uint32_t ordinal = htobe32(part);
        struct index_key key = index_key_bytes(session, operation->seq, &ordinal, sizeof ordinal);
        index_pack_u32(&out, operation->has_before ? 1 : 0);
        index_pack_u64(&out, operation->has_before ? operation->before : 0);
        for (size_t end = at + PART_SLOTS; at < operation->count && at < end; at++)
            index_pack_u64(&out, operation->slots[at]);
        int error = put(txn, TABLE_OPERATIONS, &key, content, &out, 0);
        if (error < 0)
            return error;
        part++;
    } while (at < operation->count);
    return 0;
}

int index_put_operation(struct index_txn *txn, uint32_t session,
                        const struct index_operation *operation)
{
    if (txn->failed == 0)
        txn->failed = put_operation(txn, session, operation);
    return txn->failed;
}
