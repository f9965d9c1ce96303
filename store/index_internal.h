/*
 * index_internal.h - what the files index*.c share; nothing else includes it.
 *
 * Layers, lowest first: index_value.c (bytes of keys and values), index_block.c and index_sum.c
 * (blocks and their sums), index_document.c (documents), index_totals.c (what events come to),
 * index_session.c (all other rows), index_apply.c (writing blocks), index_edit.c (changing and
 * removing what was written),
 * index_view.c and index.c (the environment), index_pages.c, index_check.c and index_child.c
 * (checking).
 *
 * Values, little-endian, each ended by a u32 CRC-32 that is begun from the number of its table and
 * runs over key and value (blocks keep it in the head):
 *
 * - meta "format": u32 version, 16 bytes store id
 * - meta "state": u64 watermark, u64 applying, u64 recorded_ms, u64 sessions, u64 records, u64
 *   bytes, u64 epoch, u32 next session
 * - ids: u32 number
 * - sessions: see index_row_decode(); of one that was removed u32 4
 * - sums: u64 bytes, u64 records, u64 first seq, u64 last seq
 * - segments: u32 last, u32 generation, u32 salt, u32 sealed, u64 indexed_end, u64 records, u64
 *   line_bytes, u64 overhead
 * - points: u64 offset in the file
 * - keys: u64 number; slots: u64 area, the key
 * - versions: u64 end, u32 1 if present or 2 if moved, and if present u64 source, u64 set_ms, u32
 * offset, u32 length
 * - documents: u64 seq, the same as a version, the key
 * - operations: u32 1 if there is one before, u64 before, then a u64 for each slot
 * - totals: as sums_encode() has it
 * - calls: u64 first, u64 last less first, each as a varint
 *
 * Sums. Blocks of a session are counted in the order of their making. A row of level 1 is written
 * when INDEX_FANOUT blocks are finished, that is, when the next one begins; one of level 2 when as
 * many rows of level 1 stand, and level 3 likewise. So a row once written never changes as the
 * session grows, and an append rewrites only the newest block and the session's row. What is not
 * yet summed at a level is fewer than INDEX_FANOUT rows of the level below. The session's row
 * carries what the unfinished group of level 1 holds before its newest block.
 *
 * When entries are dropped, first and last seq of a row stay what they were: bounds of what it
 * sums, which do not overlap with those of its neighbours. A block belongs to the row of level 1 in
 * whose bounds its key lies.
 */
#ifndef HL_INDEX_INTERNAL_H
#define HL_INDEX_INTERNAL_H

#include <endian.h>
#include <errno.h>
#include <lmdb.h>
#include <pthread.h>
#include <string.h>

#include "index.h"

#define INDEX_VERSION 6U
#define INDEX_LEVELS 3U
#define INDEX_LENGTH_LIMIT (UINT32_C(1) << 29) /* lines are shorter */
#define INDEX_CRC_SIZE 4U
#define INDEX_BLOCK_HEAD 16U
#define INDEX_BLOCK_ENTRY 16U
#define INDEX_BLOCK_MAX (INDEX_BLOCK_HEAD + INDEX_BLOCK_ENTRIES * INDEX_BLOCK_ENTRY)
/* Ample for what a session may carry: the contents are session.c's affair. */
#define INDEX_ATTRIBUTES_MAX (UINT32_C(1) << 20)

enum index_table {
    TABLE_META,
    TABLE_IDS,
    TABLE_SESSIONS,
    TABLE_BLOCKS,
    TABLE_SUMS,
    TABLE_SEGMENTS,
    TABLE_POINTS,
    TABLE_KEYS,
    TABLE_SLOTS,
    TABLE_VERSIONS,
    TABLE_DOCUMENTS,
    TABLE_OPERATIONS,
    TABLE_TOTALS,
    TABLE_CALLS,
    INDEX_TABLES
};

/* The tables' names in the environment, by enum index_table. */
extern const char *const index_table_names[INDEX_TABLES];

struct index {
    MDB_env *env;
    unsigned flags; /* of index_open() */
    MDB_dbi table[INDEX_TABLES];

    pthread_mutex_t mutex;
    pthread_cond_t changed;  /* views fell to 0, or exclusive ended */
    unsigned views;          /* mutex; that are open */
    bool exclusive;          /* mutex; the map is being changed: no view may begin */
    int broken;              /* mutex; not 0: the map was lost, this is the error of every view */
    size_t map_size;         /* mutex */
    struct index_view *pool; /* mutex; ended views, each with a reset LMDB transaction */
};

/* Where reading happens: a view's transaction or the write transaction. */
struct index_at {
    const struct index *index;
    MDB_txn *txn;
};

struct index_view {
    struct index_at at;
    struct index *index;
    struct index_view *next; /* in the pool */
};

struct index_txn {
    struct index_at at;
    struct index *index;
    int failed; /* the first error; nothing can be done after it but abort */
    bool meta_changed;
    bool edited;            /* entries were dropped or moved: commit moves the epoch */
    struct index_meta meta; /* as it will be stored at commit */
};

/* ---- index.c ---- */

/* index_open() with the size of the map given; 0: as large as can be. */
int index_open_sized(const char *path, unsigned flags, const uint8_t store_id[16], size_t map_size,
                     struct index **index, struct hl_error *err);

/* ---- index_view.c ---- */

/* Counts one more user of the map; *view (if view is not NULL) is one from the pool, or NULL. */
int index_enter(struct index *index, struct index_view **view);
/* One user less; view (may be NULL) goes to the pool. */
void index_leave(struct index *index, struct index_view *view);

/* ---- index_value.c ---- */

/* LMDB's result as ours; the mapping stands there. */
int index_error(int result);

/* Writes integers one after another, little-endian. */
struct index_pack {
    uint8_t *at;
};
void index_pack_u32(struct index_pack *pack, uint32_t value);
void index_pack_u64(struct index_pack *pack, uint64_t value);
void index_pack_bytes(struct index_pack *pack, const void *bytes, size_t len);

/* Reads them back; past the end it gives 0 and sets bad. */
struct index_unpack {
    const uint8_t *at;
    size_t left;
    bool bad;
};
uint32_t index_unpack_u32(struct index_unpack *unpack);
uint64_t index_unpack_u64(struct index_unpack *unpack);
const uint8_t *index_unpack_bytes(struct index_unpack *unpack, size_t len); /* NULL past the end */
bool index_unpack_whole(const struct index_unpack *unpack); /* all read, nothing missing */

/* Little-endian. Here, since each entry of a block takes three. */
static inline uint32_t index_load_u32(const uint8_t *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return le32toh(value);
}

static inline uint64_t index_load_u64(const uint8_t *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return le64toh(value);
}

/* A key of integers, big-endian, and perhaps bytes behind them. */
#define INDEX_KEY_FIXED 20U
struct index_key {
    uint8_t bytes[INDEX_KEY_FIXED + HL_KEY_MAX];
    size_t len;
};
struct index_key index_key_u32(uint32_t a);
struct index_key index_key_u32_u64(uint32_t a, uint64_t b);
struct index_key index_key_u32_u64_u64(uint32_t a, uint64_t b, uint64_t c);
struct index_key index_key_bytes(uint32_t a, uint64_t b, const void *bytes, size_t len);
struct index_key index_key_sum(uint32_t session, uint8_t level, uint64_t ordinal);
MDB_val index_key_val(struct index_key *key);
uint32_t index_key_get_u32(const MDB_val *key); /* the first four bytes of a key that has them */
uint64_t index_key_get_u64(const MDB_val *key); /* the last eight */
uint64_t index_key_get_u64_at(const MDB_val *key, size_t offset);

uint32_t index_crc(enum index_table table, const MDB_val *key, const void *content, size_t len);
uint32_t index_crc_more(uint32_t crc, const void *content, size_t len);

/* Checks the checksum of a value and gives what stands before it. -EBADMSG. */
int index_value_open(enum index_table table, const MDB_val *key, const MDB_val *value,
                     struct index_unpack *content);

/* Reads and opens the value of a key. -ENOENT, -EBADMSG. */
int index_value_get(const struct index_at *at, enum index_table table, MDB_val *key,
                    struct index_unpack *content);

/* Ends content (len bytes, room for INDEX_CRC_SIZE more) by its checksum and puts it. */
int index_value_put(const struct index_txn *txn, enum index_table table, MDB_val *key,
                    uint8_t *content, size_t len, unsigned flags);

/* ---- index_session.c ---- */

/* A session's row as it is stored: what the caller knows, and what blocks and sums need. */
struct index_stored {
    struct index_row row;
    uint64_t blocks;        /* ever made */
    uint64_t newest;        /* first seq of the newest block; it and all below 0 if blocks is 0 */
    uint64_t group_first;   /* first seq of the unfinished group of level 1 */
    uint64_t group_bytes;   /* of its blocks before the newest */
    uint64_t group_records; /* likewise */
    bool removed;           /* index_remove_session(): of the rest only the number counts */
};

int index_row_decode(const MDB_val *key, const MDB_val *value, struct index_stored *stored);
int index_row_get(const struct index_at *at, uint32_t number, struct index_stored *stored);
int index_row_put(const struct index_txn *txn, const struct index_stored *stored);
/* Puts the mark of a session that was removed in the place of its row. */
int index_mark_put(const struct index_txn *txn, uint32_t number);
/* Gives the row an id and attributes of its own: what points into the map does not outlive the next
 * write. *copy is to be freed. */
int index_row_own(struct index_row *row, uint8_t **copy);

int index_id_decode(const MDB_val *key, const MDB_val *value, uint32_t *number);
int index_id_get(const struct index_at *at, const char *id, size_t len, uint32_t *number);
int index_id_put(const struct index_txn *txn, const char *id, size_t len, uint32_t number);
int index_id_remove(const struct index_txn *txn, const char *id, size_t len);

int index_segment_decode(const MDB_val *key, const MDB_val *value, struct index_segment *segment);
int index_point_decode(const MDB_val *key, const MDB_val *value, uint64_t *offset);

/* -EPROTONOSUPPORT: another version made the index. */
int index_meta_get(const struct index_at *at, struct index_meta *meta);
int index_meta_store(const struct index_txn *txn, const struct index_meta *meta);
int index_format_store(const struct index_txn *txn, const uint8_t store_id[16]);

/* ---- index_document.c ---- */

/* Keys and values of the tables of documents. slot->key points into the map. */
int index_slot_decode(const MDB_val *key, const MDB_val *value, struct index_slot *slot);
int index_slot_key_decode(const MDB_val *key, const MDB_val *value, uint64_t *number);
int index_version_decode(const MDB_val *key, const MDB_val *value, struct index_version *version);
int index_document_decode(const MDB_val *key, const MDB_val *value, struct index_slot *slot,
                          struct index_version *version);
/* Numbers of slots in a part of an operation: their count, or an error; *numbers are as stored. */
ssize_t index_operation_decode(const MDB_val *key, const MDB_val *value,
                               struct index_operation *operation, const uint8_t **numbers);

/* For index_patch.c: one part of an operation, one version, the document of a slot that a version
 * left, and a slot that has no version any more. */
int index_operation_part_put(struct index_txn *txn, const MDB_val *key,
                             const struct index_operation *operation, const uint8_t *numbers,
                             size_t count);
int index_version_put(struct index_txn *txn, uint32_t session, uint64_t number,
                      const struct index_version *version);
int index_document_put(struct index_txn *txn, uint32_t session, const struct index_slot *slot,
                       const struct index_version *version);
int index_slot_remove(struct index_txn *txn, uint32_t session, const struct index_slot *slot);

/* ---- index_block.c ---- */

/* A checked block; entries point into what it was read from. */
struct index_block {
    uint32_t session;
    uint32_t count; /* to INDEX_BLOCK_ENTRIES; 0 only in a session's newest */
    uint64_t first; /* its key: that of the first entry it ever had */
    uint64_t last;  /* seq of the last entry there is; first if there is none */
    uint64_t bytes;
    const uint8_t *entries;
};

/* The one gate: sizes, checksum and content are checked before any field is used. */
int index_block_decode(const MDB_val *key, const MDB_val *value, struct index_block *block);
struct index_entry index_block_entry(const struct index_block *block, uint32_t i);
/* The first entry with a seq not below seq; count if there is none. */
uint32_t index_block_search(const struct index_block *block, uint64_t seq);
int index_block_get(const struct index_at *at, uint32_t session, uint64_t first,
                    struct index_block *block);
void index_entry_pack(const struct index_entry *entry, uint64_t first, uint8_t *at);
/* Stores a block; `block` has INDEX_BLOCK_HEAD bytes of room before its entries. */
int index_block_put(const struct index_txn *txn, uint32_t session, uint64_t first, uint32_t count,
                    uint64_t bytes, uint8_t *block);
int index_block_remove(const struct index_txn *txn, uint32_t session, uint64_t first);

/* The session's block with the lowest first seq >= from, then the next ones; -ENOENT: no more. */
int index_block_first(MDB_cursor *cursor, uint32_t session, uint64_t from,
                      struct index_block *block);
int index_block_next(MDB_cursor *cursor, uint32_t session, struct index_block *block);
/* The one with the highest first seq <= seq. */
int index_block_at(MDB_cursor *cursor, uint32_t session, uint64_t seq, struct index_block *block);

/* ---- index_sum.c ---- */

struct index_sum {
    uint32_t session;
    uint8_t level;
    uint64_t ordinal;
    uint64_t bytes, records, first, last;
};

/* How many rows a level has when so many blocks were made. */
uint64_t index_sums_at(uint64_t blocks, unsigned level);
int index_sum_decode(const MDB_val *key, const MDB_val *value, struct index_sum *sum);
/* Stores a row of level 1, and the rows above it that it completes. */
int index_sum_add(const struct index_txn *txn, const struct index_sum *sum);
/* The row of level 1 in whose bounds seq lies, which is below the unfinished group. */
int index_sum_holding(const struct index_at *at, const struct index_stored *stored, uint64_t seq,
                      struct index_sum *sum);
/* Takes bytes and records out of a row of level 1 and those above it. */
int index_sum_lower(const struct index_txn *txn, const struct index_stored *stored,
                    uint64_t ordinal, uint64_t bytes, uint64_t records);

/* ---- index_totals.c ---- */

int index_sums_decode(const MDB_val *key, const MDB_val *value, struct sums *sums);
int index_call_decode(const MDB_val *key, const MDB_val *value, struct index_call *call);

/* ---- index_pages.c ---- */

/* Walks the pages of the environment's file without LMDB, as the newest commit left them: headers,
 * bounds, order of keys, page counts, free list, and that no page is in two places. */
int index_pages_check(int fd, struct index_check_report *report);
/* Only the two pages from which LMDB takes how much it maps. -EBADMSG if that cannot be. */
int index_pages_check_metas(int fd);

/* ---- index_check.c ---- */

/* Fills the complaint if it is empty. */
void index_note(struct index_check_report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The same, as an expression that is -EBADMSG. */
#define index_complain(...) (index_note(__VA_ARGS__), -EBADMSG)

#endif
