/* index_session.c - rows of the index that are not blocks: sessions, ids, segments, points, meta.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "index_internal.h"

#define ROW_HAS_SEQ 1U
#define ROW_HAS_TOP 2U
#define ROW_REMOVED 4U
#define ROW_FLAGS (ROW_HAS_SEQ | ROW_HAS_TOP)
#define MARK_SIZE 4U
#define ROW_FIXED 176U /* bytes of a session's row before its id */
#define META_FORMAT "format"
#define META_STATE "state"
#define STATE_SIZE 60U

/* ---- sessions ---- */

static bool row_plausible(const struct index_stored *stored)
{
    const struct index_row *row = &stored->row;
    if (row->number == 0 || row->id_len == 0 || row->id_len > HL_ID_MAX ||
        row->attributes_len > INDEX_ATTRIBUTES_MAX)
        return false;
    if (row->first_seq > HL_SEQ_MAX || row->last_seq > HL_SEQ_MAX || row->bytes < row->records ||
        row->trimmed > HL_SEQ_MAX + 1)
        return false;
    if (row->records > 0 &&
        (!row->has_seq || row->first_seq > row->last_seq || stored->blocks == 0))
        return false;
    const struct index_documents *documents = &row->documents;
    if (documents->documents > documents->slots || documents->slots > HL_SEQ_MAX ||
        documents->operations > row->records || documents->top > row->last_seq)
        return false;
    /* A block holds at least one record, and what is before the newest is less than all. */
    return stored->group_records <= row->records && stored->group_bytes <= row->bytes &&
           stored->newest <= HL_SEQ_MAX && stored->group_first <= stored->newest &&
           stored->blocks <= HL_SEQ_MAX;
}

int index_row_decode(const MDB_val *key, const MDB_val *value, struct index_stored *stored)
{
    struct index_unpack in;
    if (key->mv_size != sizeof(uint32_t) || index_value_open(TABLE_SESSIONS, key, value, &in) < 0)
        return -EBADMSG;
    struct index_row *row = &stored->row;
    if (in.left == MARK_SIZE) { /* of a session that was removed */
        *stored = (struct index_stored){.row.number = index_key_get_u32(key), .removed = true};
        return index_unpack_u32(&in) == ROW_REMOVED && row->number != 0 ? 0 : -EBADMSG;
    }
    row->number = index_key_get_u32(key);
    row->uid = index_unpack_u32(&in);
    row->gid = index_unpack_u32(&in);
    row->mode = index_unpack_u32(&in);
    uint32_t flags = index_unpack_u32(&in);
    row->created_ms = index_unpack_u64(&in);
    row->changed_ms = index_unpack_u64(&in);
    row->first_seq = index_unpack_u64(&in);
    row->last_seq = index_unpack_u64(&in);
    row->records = index_unpack_u64(&in);
    row->bytes = index_unpack_u64(&in);
    row->gone = index_unpack_u64(&in);
    row->trimmed = index_unpack_u64(&in);
    row->indexed = index_unpack_u64(&in);
    row->documents.slots = index_unpack_u64(&in);
    row->documents.documents = index_unpack_u64(&in);
    row->documents.operations = index_unpack_u64(&in);
    row->documents.history_from = index_unpack_u64(&in);
    row->documents.top = index_unpack_u64(&in);
    stored->blocks = index_unpack_u64(&in);
    stored->newest = index_unpack_u64(&in);
    stored->group_first = index_unpack_u64(&in);
    stored->group_bytes = index_unpack_u64(&in);
    stored->group_records = index_unpack_u64(&in);
    uint32_t id_len = index_unpack_u32(&in);
    row->attributes_len = index_unpack_u32(&in);
    row->id = (const char *)index_unpack_bytes(&in, id_len);
    row->attributes = index_unpack_bytes(&in, row->attributes_len);
    if (!index_unpack_whole(&in) || (flags & ~ROW_FLAGS) != 0 || id_len > HL_ID_MAX)
        return -EBADMSG;
    row->id_len = (uint16_t)id_len;
    row->has_seq = (flags & ROW_HAS_SEQ) != 0;
    row->documents.has_top = (flags & ROW_HAS_TOP) != 0;
    stored->removed = false;
    if (row->attributes_len == 0)
        row->attributes = NULL;
    return row_plausible(stored) ? 0 : -EBADMSG;
}

int index_row_get(const struct index_at *at, uint32_t number, struct index_stored *stored)
{
    struct index_key key = index_key_u32(number);
    MDB_val key_val = index_key_val(&key), value;
    int error = index_error(mdb_get(at->txn, at->index->table[TABLE_SESSIONS], &key_val, &value));
    return error < 0 ? error : index_row_decode(&key_val, &value, stored);
}

int index_row_own(struct index_row *row, uint8_t **copy)
{
    *copy = malloc((size_t)row->id_len + row->attributes_len);
    if (!*copy)
        return -ENOMEM;
    memcpy(*copy, row->id, row->id_len);
    if (row->attributes_len)
        memcpy(*copy + row->id_len, row->attributes, row->attributes_len);
    row->id = (const char *)*copy;
    row->attributes = row->attributes_len ? *copy + row->id_len : NULL;
    return 0;
}

int index_row_put(const struct index_txn *txn, const struct index_stored *stored)
{
    const struct index_row *row = &stored->row;
    if (!row_plausible(stored))
        return -EINVAL;
    size_t len = ROW_FIXED + row->id_len + row->attributes_len;
    uint8_t small[1024], *content = small;
    if (len + INDEX_CRC_SIZE > sizeof small) {
        content = malloc(len + INDEX_CRC_SIZE);
        if (!content)
            return -ENOMEM;
    }
    struct index_pack out = {.at = content};
    index_pack_u32(&out, row->uid);
    index_pack_u32(&out, row->gid);
    index_pack_u32(&out, row->mode);
    index_pack_u32(&out,
                   (row->has_seq ? ROW_HAS_SEQ : 0) | (row->documents.has_top ? ROW_HAS_TOP : 0));
    index_pack_u64(&out, row->created_ms);
    index_pack_u64(&out, row->changed_ms);
    index_pack_u64(&out, row->first_seq);
    index_pack_u64(&out, row->last_seq);
    index_pack_u64(&out, row->records);
    index_pack_u64(&out, row->bytes);
    index_pack_u64(&out, row->gone);
    index_pack_u64(&out, row->trimmed);
    index_pack_u64(&out, row->indexed);
    index_pack_u64(&out, row->documents.slots);
    index_pack_u64(&out, row->documents.documents);
    index_pack_u64(&out, row->documents.operations);
    index_pack_u64(&out, row->documents.history_from);
    index_pack_u64(&out, row->documents.top);
    index_pack_u64(&out, stored->blocks);
    index_pack_u64(&out, stored->newest);
    index_pack_u64(&out, stored->group_first);
    index_pack_u64(&out, stored->group_bytes);
    index_pack_u64(&out, stored->group_records);
    index_pack_u32(&out, row->id_len);
    index_pack_u32(&out, row->attributes_len);
    index_pack_bytes(&out, row->id, row->id_len);
    index_pack_bytes(&out, row->attributes, row->attributes_len);
    struct index_key key = index_key_u32(row->number);
    MDB_val key_val = index_key_val(&key);
    int error = index_value_put(txn, TABLE_SESSIONS, &key_val, content, len, 0);
    if (content != small)
        free(content);
    return error;
}

int index_mark_put(const struct index_txn *txn, uint32_t number)
{
    uint8_t content[MARK_SIZE + INDEX_CRC_SIZE];
    struct index_pack out = {.at = content};
    struct index_key key = index_key_u32(number);
    MDB_val key_val = index_key_val(&key);
    index_pack_u32(&out, ROW_REMOVED);
    return index_value_put(txn, TABLE_SESSIONS, &key_val, content, MARK_SIZE, 0);
}

int index_session_by_number(struct index_view *view, uint32_t number, struct index_row *row)
{
    struct index_stored stored;
    int error = index_row_get(&view->at, number, &stored);
    if (error == 0 && stored.removed)
        error = -ENOENT;
    if (error == 0)
        *row = stored.row;
    return error;
}

int index_session_removed(struct index_view *view, uint32_t session)
{
    struct index_stored stored;
    int error = index_row_get(&view->at, session, &stored);
    return error == 0 ? stored.removed : error == -ENOENT ? 0 : error;
}

int index_session_by_id(struct index_view *view, const char *id, size_t len, struct index_row *row)
{
    uint32_t number;
    int error = index_id_get(&view->at, id, len, &number);
    if (error < 0)
        return error;
    struct index_stored stored;
    error = index_row_get(&view->at, number, &stored);
    /* An id without its session, or with another one, is damage. */
    if (error == -ENOENT || (error == 0 && (stored.removed || stored.row.id_len != len ||
                                            memcmp(stored.row.id, id, len) != 0)))
        return -EBADMSG;
    if (error == 0)
        *row = stored.row;
    return error;
}

int index_session_next(struct index_view *view, uint32_t after, struct index_row *row)
{
    if (after == UINT32_MAX)
        return -ENOENT;
    MDB_cursor *cursor;
    int error =
        index_error(mdb_cursor_open(view->at.txn, view->at.index->table[TABLE_SESSIONS], &cursor));
    if (error < 0)
        return error;
    struct index_key key = index_key_u32(after + 1);
    MDB_val key_val = index_key_val(&key), value;
    struct index_stored stored = {.removed = true};
    error = index_error(mdb_cursor_get(cursor, &key_val, &value, MDB_SET_RANGE));
    while (error == 0 && stored.removed) {
        error = index_row_decode(&key_val, &value, &stored);
        if (error == 0 && stored.row.number <= after)
            error = -EBADMSG;
        if (error == 0 && stored.removed)
            error = index_error(mdb_cursor_get(cursor, &key_val, &value, MDB_NEXT));
    }
    mdb_cursor_close(cursor);
    if (error == 0)
        *row = stored.row;
    return error;
}

/* ---- ids ---- */

int index_id_decode(const MDB_val *key, const MDB_val *value, uint32_t *number)
{
    struct index_unpack in;
    if (key->mv_size == 0 || key->mv_size > HL_ID_MAX ||
        index_value_open(TABLE_IDS, key, value, &in) < 0)
        return -EBADMSG;
    *number = index_unpack_u32(&in);
    return index_unpack_whole(&in) && *number != 0 ? 0 : -EBADMSG;
}

/* LMDB wants a key that can be written to, though it never does. */
static MDB_val id_key(const char *id, size_t len, char copy[HL_ID_MAX])
{
    memcpy(copy, id, len);
    return (MDB_val){.mv_size = len, .mv_data = copy};
}

int index_id_get(const struct index_at *at, const char *id, size_t len, uint32_t *number)
{
    if (len == 0 || len > HL_ID_MAX)
        return -ENOENT;
    char copy[HL_ID_MAX];
    MDB_val key = id_key(id, len, copy), value;
    int error = index_error(mdb_get(at->txn, at->index->table[TABLE_IDS], &key, &value));
    return error < 0 ? error : index_id_decode(&key, &value, number);
}

int index_id_put(const struct index_txn *txn, const char *id, size_t len, uint32_t number)
{
    char copy[HL_ID_MAX];
    MDB_val key = id_key(id, len, copy);
    uint8_t content[4 + INDEX_CRC_SIZE];
    struct index_pack out = {.at = content};
    index_pack_u32(&out, number);
    return index_value_put(txn, TABLE_IDS, &key, content, 4, MDB_NOOVERWRITE);
}

int index_id_remove(const struct index_txn *txn, const char *id, size_t len)
{
    char copy[HL_ID_MAX];
    MDB_val key = id_key(id, len, copy);
    return index_error(mdb_del(txn->at.txn, txn->index->table[TABLE_IDS], &key, NULL));
}

/* ---- segments and points ---- */

int index_segment_decode(const MDB_val *key, const MDB_val *value, struct index_segment *segment)
{
    struct index_unpack in;
    if (key->mv_size != sizeof(uint32_t) || index_value_open(TABLE_SEGMENTS, key, value, &in) < 0)
        return -EBADMSG;
    segment->first = index_key_get_u32(key);
    segment->last = index_unpack_u32(&in);
    segment->generation = index_unpack_u32(&in);
    segment->salt = index_unpack_u32(&in);
    uint32_t sealed = index_unpack_u32(&in);
    segment->sealed = sealed != 0;
    segment->indexed_end = index_unpack_u64(&in);
    segment->records = index_unpack_u64(&in);
    segment->line_bytes = index_unpack_u64(&in);
    segment->overhead = index_unpack_u64(&in);
    return index_unpack_whole(&in) && sealed <= 1 && segment->last >= segment->first ? 0 : -EBADMSG;
}

int index_put_segment(struct index_txn *txn, const struct index_segment *segment)
{
    if (txn->failed == 0 && segment->last < segment->first)
        txn->failed = -EINVAL;
    if (txn->failed < 0)
        return txn->failed;
    uint8_t content[48 + INDEX_CRC_SIZE];
    struct index_pack out = {.at = content};
    index_pack_u32(&out, segment->last);
    index_pack_u32(&out, segment->generation);
    index_pack_u32(&out, segment->salt);
    index_pack_u32(&out, segment->sealed ? 1 : 0);
    index_pack_u64(&out, segment->indexed_end);
    index_pack_u64(&out, segment->records);
    index_pack_u64(&out, segment->line_bytes);
    index_pack_u64(&out, segment->overhead);
    struct index_key key = index_key_u32(segment->first);
    MDB_val key_val = index_key_val(&key);
    txn->failed = index_value_put(txn, TABLE_SEGMENTS, &key_val, content, 48, 0);
    return txn->failed;
}

int index_segment_next(struct index_view *view, uint32_t after_first, struct index_segment *segment)
{
    if (after_first == UINT32_MAX)
        return -ENOENT;
    MDB_cursor *cursor;
    int error =
        index_error(mdb_cursor_open(view->at.txn, view->at.index->table[TABLE_SEGMENTS], &cursor));
    if (error < 0)
        return error;
    struct index_key key = index_key_u32(after_first + 1);
    MDB_val key_val = index_key_val(&key), value;
    error = index_error(mdb_cursor_get(cursor, &key_val, &value, MDB_SET_RANGE));
    mdb_cursor_close(cursor);
    if (error < 0)
        return error;
    struct index_segment found;
    error = index_segment_decode(&key_val, &value, &found);
    if (error == 0 && found.first <= after_first)
        error = -EBADMSG;
    if (error == 0)
        *segment = found;
    return error;
}

int index_point_decode(const MDB_val *key, const MDB_val *value, uint64_t *offset)
{
    struct index_unpack in;
    if (key->mv_size != 12 || index_value_open(TABLE_POINTS, key, value, &in) < 0)
        return -EBADMSG;
    *offset = index_unpack_u64(&in);
    return index_unpack_whole(&in) ? 0 : -EBADMSG;
}

int index_put_point(struct index_txn *txn, uint32_t segment, uint64_t line_bytes,
                    uint64_t file_offset)
{
    if (txn->failed < 0)
        return txn->failed;
    uint8_t content[8 + INDEX_CRC_SIZE];
    struct index_pack out = {.at = content};
    index_pack_u64(&out, file_offset);
    struct index_key key = index_key_u32_u64(segment, line_bytes);
    MDB_val key_val = index_key_val(&key);
    txn->failed = index_value_put(txn, TABLE_POINTS, &key_val, content, 8, 0);
    return txn->failed;
}

int index_find_point(struct index_view *view, uint32_t segment, uint64_t line_offset,
                     uint64_t *line_bytes, uint64_t *file_offset)
{
    MDB_cursor *cursor;
    int error =
        index_error(mdb_cursor_open(view->at.txn, view->at.index->table[TABLE_POINTS], &cursor));
    if (error < 0)
        return error;
    struct index_key key = index_key_u32_u64(segment, line_offset);
    MDB_val key_val = index_key_val(&key), value;
    error = index_error(mdb_cursor_get(cursor, &key_val, &value, MDB_SET_RANGE));
    if (error == -ENOENT) {
        error = index_error(mdb_cursor_get(cursor, &key_val, &value, MDB_LAST));
    } else if (error == 0 &&
               (key_val.mv_size != key.len || memcmp(key_val.mv_data, key.bytes, key.len) != 0)) {
        error = index_error(mdb_cursor_get(cursor, &key_val, &value, MDB_PREV));
    }
    mdb_cursor_close(cursor);
    uint64_t offset = 0;
    if (error == 0)
        error = index_point_decode(&key_val, &value, &offset);
    if (error < 0)
        return error;
    if (index_key_get_u32(&key_val) != segment)
        return -ENOENT;
    if (index_key_get_u64(&key_val) > line_offset)
        return -EBADMSG;
    *line_bytes = index_key_get_u64(&key_val);
    *file_offset = offset;
    return 0;
}

/* ---- meta ---- */

static MDB_val meta_key(const char *name, char copy[16])
{
    int len = snprintf(copy, 16, "%s", name);
    return (MDB_val){.mv_size = (size_t)len, .mv_data = copy};
}

int index_meta_get(const struct index_at *at, struct index_meta *meta)
{
    char copy[16];
    MDB_val key = meta_key(META_FORMAT, copy);
    struct index_unpack in;
    int error = index_value_get(at, TABLE_META, &key, &in);
    if (error == -ENOENT)
        return -EBADMSG; /* it is written with the tables themselves */
    if (error < 0)
        return error;
    uint32_t version = index_unpack_u32(&in);
    const uint8_t *store_id = index_unpack_bytes(&in, sizeof meta->store_id);
    if (!index_unpack_whole(&in))
        return -EBADMSG;
    if (version != INDEX_VERSION)
        return -EPROTONOSUPPORT;
    memcpy(meta->store_id, store_id, sizeof meta->store_id);
    key = meta_key(META_STATE, copy);
    error = index_value_get(at, TABLE_META, &key, &in);
    if (error < 0)
        return error == -ENOENT ? -EBADMSG : error;
    meta->watermark = index_unpack_u64(&in);
    meta->applying = index_unpack_u64(&in);
    meta->recorded_ms = index_unpack_u64(&in);
    meta->sessions = index_unpack_u64(&in);
    meta->records = index_unpack_u64(&in);
    meta->bytes = index_unpack_u64(&in);
    meta->epoch = index_unpack_u64(&in);
    meta->next_session = index_unpack_u32(&in);
    return index_unpack_whole(&in) && meta->next_session > 0 ? 0 : -EBADMSG;
}

int index_meta_store(const struct index_txn *txn, const struct index_meta *meta)
{
    char copy[16];
    MDB_val key = meta_key(META_STATE, copy);
    uint8_t content[STATE_SIZE + INDEX_CRC_SIZE];
    struct index_pack out = {.at = content};
    index_pack_u64(&out, meta->watermark);
    index_pack_u64(&out, meta->applying);
    index_pack_u64(&out, meta->recorded_ms);
    index_pack_u64(&out, meta->sessions);
    index_pack_u64(&out, meta->records);
    index_pack_u64(&out, meta->bytes);
    index_pack_u64(&out, meta->epoch);
    index_pack_u32(&out, meta->next_session);
    return index_value_put(txn, TABLE_META, &key, content, STATE_SIZE, 0);
}

int index_format_store(const struct index_txn *txn, const uint8_t store_id[16])
{
    char copy[16];
    MDB_val key = meta_key(META_FORMAT, copy);
    uint8_t content[20 + INDEX_CRC_SIZE];
    struct index_pack out = {.at = content};
    index_pack_u32(&out, INDEX_VERSION);
    index_pack_bytes(&out, store_id, 16);
    return index_value_put(txn, TABLE_META, &key, content, 20, 0);
}

int index_get_meta(struct index_view *view, struct index_meta *meta)
{
    struct index_meta found;
    int error = index_meta_get(&view->at, &found);
    if (error == 0)
        *meta = found;
    return error;
}

int index_put_applying(struct index_txn *txn, uint64_t applying, uint32_t next_session)
{
    if (txn->failed < 0)
        return txn->failed;
    if (applying > txn->meta.applying)
        txn->meta.applying = applying;
    if (next_session > txn->meta.next_session)
        txn->meta.next_session = next_session;
    txn->meta_changed = true;
    return 0;
}

int index_put_meta(struct index_txn *txn, const struct index_meta *meta)
{
    if (txn->failed < 0)
        return txn->failed;
    txn->meta.watermark = meta->watermark;
    txn->meta.applying = meta->applying;
    txn->meta.recorded_ms = meta->recorded_ms;
    if (meta->next_session > txn->meta.next_session)
        txn->meta.next_session = meta->next_session;
    txn->meta_changed = true;
    return 0;
}
