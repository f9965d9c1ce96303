/*
 * fuzz_index.c - values of the index as we read them, without their checksums: decoded one by one;
 * and, put in the place of a value of a real index, met by the check and by questions.
 *
 * Input: the table, the length of the key, the key, the value.
 */
#include "../../store/index_internal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../store/store.h"
#include "fuzz.h"

bool crc_ignored = true;

/* Neither may be read beyond: each has memory of just its size. */
struct pair {
    MDB_val key, value;
};

static void decode(unsigned table, const MDB_val *key, const MDB_val *value)
{
    struct index_stored stored;
    struct index_segment segment;
    struct index_slot slot;
    struct index_version version;
    struct index_operation operation;
    struct index_block block;
    struct index_sum sum;
    const uint8_t *numbers = NULL;
    uint32_t number;
    uint64_t offset, seen = 0;
    switch (table) {
    case TABLE_IDS:
        (void)index_id_decode(key, value, &number);
        break;
    case TABLE_SESSIONS:
        if (index_row_decode(key, value, &stored) == 0 && !stored.removed)
            FUZZ_CHECK(stored.row.id_len <= HL_ID_MAX &&
                       stored.row.attributes_len <= value->mv_size);
        break;
    case TABLE_BLOCKS:
        if (index_block_decode(key, value, &block) < 0)
            break;
        for (uint32_t i = 0; i < block.count; i++) {
            struct index_entry entry = index_block_entry(&block, i);
            FUZZ_CHECK(entry.length > 0 && entry.seq <= HL_SEQ_MAX && (i == 0 || entry.seq > seen));
            seen = entry.seq;
            FUZZ_CHECK(index_block_search(&block, entry.seq) <= block.count);
        }
        break;
    case TABLE_SUMS:
        (void)index_sum_decode(key, value, &sum);
        break;
    case TABLE_SEGMENTS:
        (void)index_segment_decode(key, value, &segment);
        break;
    case TABLE_POINTS:
        (void)index_point_decode(key, value, &offset);
        break;
    case TABLE_KEYS:
        (void)index_slot_key_decode(key, value, &offset);
        break;
    case TABLE_SLOTS:
        if (index_slot_decode(key, value, &slot) == 0)
            FUZZ_CHECK(slot.key_len > 0 && slot.key_len <= HL_KEY_MAX &&
                       memchr(slot.key, 0, slot.key_len) != value);
        break;
    case TABLE_VERSIONS:
        (void)index_version_decode(key, value, &version);
        break;
    case TABLE_DOCUMENTS:
        if (index_document_decode(key, value, &slot, &version) == 0)
            FUZZ_CHECK(slot.key_len > 0 && slot.key_len <= HL_KEY_MAX);
        break;
    case TABLE_OPERATIONS: {
        ssize_t count = index_operation_decode(key, value, &operation, &numbers);
        for (ssize_t i = 0; i < count; i++)
            seen += index_load_u64(numbers + 8 * i);
        break;
    }
    default:
        break;
    }
}

/* ---- in a real index ---- */

static char dir[] = "/dev/shm/hotlogfs-fuzz.XXXXXX";
static char path[80];
static uint8_t store_id[16] = {1};
static struct index *made;

static void remove_dir(void)
{
    char file[100];
    snprintf(file, sizeof file, "rm -rf '%s'", dir);
    if (system(file) != 0)
        perror(dir);
}

static void begin(void)
{
    struct index_txn *txn;
    FUZZ_CHECK(mkdtemp(dir));
    atexit(remove_dir);
    snprintf(path, sizeof path, "%s/index", dir);
    FUZZ_CHECK(index_open(path, INDEX_CREATE | INDEX_BUILD, store_id, &made, NULL) == 0);
    FUZZ_CHECK(index_begin(made, &txn) == 0);
    struct index_segment segment = {.first = 1, .last = 1, .sealed = true};
    FUZZ_CHECK(index_put_segment(txn, &segment) == 0);
    FUZZ_CHECK(index_put_point(txn, 1, 1 << 20, 1 << 20) == 0);
    FUZZ_CHECK(index_commit(txn) == 0);
}

static void replace(unsigned table, MDB_val *key, MDB_val *value)
{
    MDB_txn *txn;
    struct index_view *view;
    struct index_row row;
    struct index_entry entry;
    uint64_t at;
    struct index_check_report report = {0};
    if (table >= INDEX_TABLES || key->mv_size == 0 || key->mv_size > 500)
        return;
    FUZZ_CHECK(mdb_txn_begin(made->env, NULL, 0, &txn) == 0);
    if (mdb_put(txn, made->table[table], key, value, 0) != 0) {
        mdb_txn_abort(txn);
        return;
    }
    FUZZ_CHECK(mdb_txn_commit(txn) == 0);
    if (index_view_begin(made, &view) == 0) {
        for (uint32_t number = 0; number < 3; number++) {
            (void)index_session_by_number(view, number, &row);
            (void)index_find(view, number, 1, &entry);
            (void)index_find_offset(view, number, 0, &entry, &at);
            (void)index_bytes_before(view, number, 5, &at);
            (void)index_session_next(view, number, &row);
        }
        index_view_end(view);
    }
    (void)index_check(path, 0, store_id, &report);
    FUZZ_CHECK(mdb_txn_begin(made->env, NULL, 0, &txn) == 0);
    FUZZ_CHECK(mdb_del(txn, made->table[table], key, NULL) == 0);
    FUZZ_CHECK(mdb_txn_commit(txn) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!made)
        begin();
    if (size < 3)
        return 0;
    unsigned table = data[0] % INDEX_TABLES;
    size_t key_len = data[1] < size - 2 ? data[1] : size - 2;
    char *key_bytes = fuzz_copy(data + 2, key_len);
    char *value_bytes = fuzz_copy(data + 2 + key_len, size - 2 - key_len);
    struct pair pair = {{key_len, key_bytes}, {size - 2 - key_len, value_bytes}};
    decode(table, &pair.key, &pair.value);
    /* What is there of the real one is not replaced: it could not be put back. */
    if (data[0] & 0x80 && table != TABLE_META && table != TABLE_SEGMENTS && table != TABLE_POINTS)
        replace(table, &pair.key, &pair.value);
    free(key_bytes);
    free(value_bytes);
    return 0;
}
