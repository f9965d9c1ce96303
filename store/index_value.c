/* index_value.c - keys and values of the index: byte order, checksums, LMDB's results as ours. */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "crc.h"
#include "index_internal.h"

const char *const index_table_names[INDEX_TABLES] = {
    [TABLE_META] = "meta",           [TABLE_IDS] = "ids",
    [TABLE_SESSIONS] = "sessions",   [TABLE_BLOCKS] = "blocks",
    [TABLE_SUMS] = "sums",           [TABLE_SEGMENTS] = "segments",
    [TABLE_POINTS] = "points",       [TABLE_KEYS] = "keys",
    [TABLE_SLOTS] = "slots",         [TABLE_VERSIONS] = "versions",
    [TABLE_DOCUMENTS] = "documents", [TABLE_OPERATIONS] = "operations",
    [TABLE_TOTALS] = "totals",       [TABLE_CALLS] = "calls",
};

/*
 * What LMDB says, and what it means here:
 *   a page, list or transaction that cannot be so    -> -EBADMSG (damage)
 *   the map is too small                             -> -EAGAIN (index_grow() helps)
 *   no free slot for a reader                        -> -EBUSY
 *   an earlier write of its meta page failed         -> -EIO (the environment is of no more use)
 *   one transaction too large for it                 -> -EOVERFLOW
 *   MDB_NOTFOUND, MDB_KEYEXIST                       -> -ENOENT, -EEXIST
 *   errnos                                           -> as they are, negative
 */
int index_error(int result)
{
    switch (result) {
    case MDB_SUCCESS:
        return 0;
    case MDB_NOTFOUND:
        return -ENOENT;
    case MDB_KEYEXIST:
        return -EEXIST;
    case MDB_MAP_FULL:
    case MDB_MAP_RESIZED:
        return -EAGAIN;
    case MDB_READERS_FULL:
        return -EBUSY;
    case MDB_TLS_FULL:
        return -ENOMEM;
    case MDB_TXN_FULL:
        return -EOVERFLOW;
    case MDB_PANIC:
        return -EIO;
    case MDB_DBS_FULL:
        return -EINVAL;
    default:
        /* PAGE_NOTFOUND, CORRUPTED, VERSION_MISMATCH, INVALID, INCOMPATIBLE, PAGE_FULL,
         * CURSOR_FULL, BAD_RSLOT, BAD_TXN, BAD_VALSIZE, BAD_DBI, and what a later LMDB may add. */
        return result > 0 ? -result : -EBADMSG;
    }
}

void index_pack_u32(struct index_pack *pack, uint32_t value)
{
    value = htole32(value);
    index_pack_bytes(pack, &value, sizeof value);
}

void index_pack_u64(struct index_pack *pack, uint64_t value)
{
    value = htole64(value);
    index_pack_bytes(pack, &value, sizeof value);
}

void index_pack_bytes(struct index_pack *pack, const void *bytes, size_t len)
{
    if (len > 0)
        memcpy(pack->at, bytes, len);
    pack->at += len;
}

const uint8_t *index_unpack_bytes(struct index_unpack *unpack, size_t len)
{
    if (unpack->bad || len > unpack->left) {
        unpack->bad = true;
        return NULL;
    }
    const uint8_t *bytes = unpack->at;
    unpack->at += len;
    unpack->left -= len;
    return bytes;
}

uint32_t index_unpack_u32(struct index_unpack *unpack)
{
    const uint8_t *bytes = index_unpack_bytes(unpack, sizeof(uint32_t));
    return bytes ? index_load_u32(bytes) : 0;
}

uint64_t index_unpack_u64(struct index_unpack *unpack)
{
    const uint8_t *bytes = index_unpack_bytes(unpack, sizeof(uint64_t));
    return bytes ? index_load_u64(bytes) : 0;
}

bool index_unpack_whole(const struct index_unpack *unpack)
{
    return !unpack->bad && unpack->left == 0;
}

static void key_add_u32(struct index_key *key, uint32_t value)
{
    value = htobe32(value);
    memcpy(key->bytes + key->len, &value, sizeof value);
    key->len += sizeof value;
}

static void key_add_u64(struct index_key *key, uint64_t value)
{
    value = htobe64(value);
    memcpy(key->bytes + key->len, &value, sizeof value);
    key->len += sizeof value;
}

struct index_key index_key_u32(uint32_t a)
{
    struct index_key key;
    key.len = 0;
    key_add_u32(&key, a);
    return key;
}

struct index_key index_key_u32_u64(uint32_t a, uint64_t b)
{
    struct index_key key;
    key.len = 0;
    key_add_u32(&key, a);
    key_add_u64(&key, b);
    return key;
}

struct index_key index_key_u32_u64_u64(uint32_t a, uint64_t b, uint64_t c)
{
    struct index_key key;
    key.len = 0;
    key_add_u32(&key, a);
    key_add_u64(&key, b);
    key_add_u64(&key, c);
    return key;
}

struct index_key index_key_bytes(uint32_t a, uint64_t b, const void *bytes, size_t len)
{
    struct index_key key;
    key.len = 0;
    key_add_u32(&key, a);
    key_add_u64(&key, b);
    memcpy(key.bytes + key.len, bytes, len);
    key.len += len;
    return key;
}

struct index_key index_key_sum(uint32_t session, uint8_t level, uint64_t ordinal)
{
    struct index_key key;
    key.len = 0;
    key_add_u32(&key, session);
    key.bytes[key.len++] = level;
    key_add_u64(&key, ordinal);
    return key;
}

MDB_val index_key_val(struct index_key *key)
{
    return (MDB_val){.mv_size = key->len, .mv_data = key->bytes};
}

uint32_t index_key_get_u32(const MDB_val *key)
{
    uint32_t value;
    memcpy(&value, key->mv_data, sizeof value);
    return be32toh(value);
}

uint64_t index_key_get_u64(const MDB_val *key)
{
    uint64_t value;
    memcpy(&value, (const uint8_t *)key->mv_data + key->mv_size - sizeof value, sizeof value);
    return be64toh(value);
}

uint64_t index_key_get_u64_at(const MDB_val *key, size_t offset)
{
    uint64_t value;
    memcpy(&value, (const uint8_t *)key->mv_data + offset, sizeof value);
    return be64toh(value);
}

uint32_t index_crc(enum index_table table, const MDB_val *key, const void *content, size_t len)
{
    uint32_t crc = crc32_more((uint32_t)table, key->mv_data, key->mv_size);
    return index_crc_more(crc, content, len);
}

uint32_t index_crc_more(uint32_t crc, const void *content, size_t len)
{
    return crc32_more(crc, content, len);
}

int index_value_open(enum index_table table, const MDB_val *key, const MDB_val *value,
                     struct index_unpack *content)
{
    if (value->mv_size < INDEX_CRC_SIZE)
        return -EBADMSG;
    size_t len = value->mv_size - INDEX_CRC_SIZE;
    const uint8_t *bytes = value->mv_data;
    if (!crc32_agrees(index_crc(table, key, bytes, len), index_load_u32(bytes + len)))
        return -EBADMSG;
    *content = (struct index_unpack){.at = bytes, .left = len};
    return 0;
}

int index_value_get(const struct index_at *at, enum index_table table, MDB_val *key,
                    struct index_unpack *content)
{
    MDB_val value;
    int error = index_error(mdb_get(at->txn, at->index->table[table], key, &value));
    return error < 0 ? error : index_value_open(table, key, &value, content);
}

int index_value_put(const struct index_txn *txn, enum index_table table, MDB_val *key,
                    uint8_t *content, size_t len, unsigned flags)
{
    struct index_pack pack = {.at = content + len};
    index_pack_u32(&pack, index_crc(table, key, content, len));
    MDB_val value = {.mv_size = len + INDEX_CRC_SIZE, .mv_data = content};
    return index_error(mdb_put(txn->at.txn, txn->index->table[table], key, &value, flags));
}
