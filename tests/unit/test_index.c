/* test_index.c - the index against a model: rows, blocks, sums, points, and what is refused. */
#include "index_model.h"

#include <endian.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "../../store/crc.h"

static void test_model(void **state)
{
    (void)state;
    uint64_t chance = model_seed("test_model");
    struct model_dir dir;
    model_dir_make(&dir);
    struct model model = {.count = 0};
    struct index *index = model_open(&dir, INDEX_CREATE);
    model_expect(&model, index, &chance, 1);
    for (unsigned round = 0; round < (t_slow() ? 6 : 12); round++) {
        model_grow(&model, &chance, 4, 1U << model_below(&chance, 11));
        model_commit(&model, index);
        model_expect(&model, index, &chance, 200);
        if (model_below(&chance, 3) == 0) {
            index_close(index);
            model_expect_good(&model, &dir);
            index = model_open(&dir, 0);
            model_expect(&model, index, &chance, 50);
        }
    }
    index_close(index);
    model_expect_good(&model, &dir);
    model_free(&model);
    model_dir_remove(&dir);
}

/* Seqs so far apart that each block has one entry: many blocks at little cost. */
static void test_sums(void **state)
{
    (void)state;
    uint64_t chance = model_seed("test_sums");
    struct model_dir dir;
    model_dir_make(&dir);
    struct model model = {.count = 0};
    struct index *index = model_open(&dir, INDEX_CREATE | INDEX_BUILD);
    struct model_session *session = model_add_session(&model, &chance);
    static const size_t ends[] = {1,    2,      63,     64,     65,     66,    127,
                                  128,  129,    4095,   4096,   4097,   4098,  8192,
                                  8193, 262143, 262144, 262145, 262146, 266300};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        while (session->count < ends[i])
            model_append(&model, session, session->count * (UINT64_C(1) << 33) + 5,
                         1 + (uint32_t)model_below(&chance, 100));
        model_commit(&model, index);
        model_expect(&model, index, &chance, ends[i] < 5000 ? ends[i] : 300);
        struct index_view *view;
        assert_int_equal(index_view_begin(index, &view), 0);
        struct index_stored stored;
        assert_int_equal(index_row_get(&view->at, session->row.number, &stored), 0);
        assert_int_equal(stored.blocks, ends[i]);
        index_view_end(view);
    }
    assert_int_equal(index_sync(index), 0);
    index_close(index);
    model_expect_good(&model, &dir);
    model_free(&model);
    model_dir_remove(&dir);
}

/* Full blocks, and a session's end at and around each block's edge. */
static void test_edges(void **state)
{
    (void)state;
    uint64_t chance = model_seed("test_edges");
    struct model_dir dir;
    model_dir_make(&dir);
    struct model model = {.count = 0};
    struct index *index = model_open(&dir, INDEX_CREATE);
    for (unsigned i = 0; i < 6; i++)
        model_add_session(&model, &chance);
    for (unsigned round = 0; round < 8; round++) {
        for (unsigned i = 0; i < 6; i++) {
            unsigned count = INDEX_BLOCK_ENTRIES * (1 + round % 3) + i - 3;
            for (unsigned k = 0; k < count; k++)
                model_append(&model, &model.sessions[i], model.sessions[i].count + 1, 1 + k % 9);
        }
        model_commit(&model, index);
        model_expect(&model, index, &chance, 5000);
    }
    /* The highest seq there can be, and nothing above it. */
    struct model_session *session = &model.sessions[0];
    model_append(&model, session, HL_SEQ_MAX - UINT32_MAX, 5);
    model_append(&model, session, HL_SEQ_MAX, 5);
    model_commit(&model, index);
    model_expect(&model, index, &chance, 100);
    index_close(index);
    model_expect_good(&model, &dir);
    model_free(&model);
    model_dir_remove(&dir);
}

struct one {
    struct index_entry entries[2];
    unsigned count, given;
};

static bool give_one(void *context, struct index_entry *entry)
{
    struct one *one = context;
    if (one->given == one->count)
        return false;
    *entry = one->entries[one->given++];
    return true;
}

static int apply_once(struct index *index, const struct index_row *row, struct one *one)
{
    struct index_txn *txn;
    assert_int_equal(index_begin(index, &txn), 0);
    int error = index_apply(txn, row, one ? give_one : NULL, one);
    if (error < 0) {
        /* The error sticks: nothing of a transaction that failed can be stored. */
        struct index_meta meta = {.watermark = 1};
        assert_int_equal(index_put_meta(txn, &meta), error);
        assert_int_equal(index_put_point(txn, 1, 1, 1), error);
        assert_int_equal(index_commit(txn), error);
        return error;
    }
    return index_commit(txn);
}

static void test_refused(void **state)
{
    (void)state;
    struct model_dir dir;
    model_dir_make(&dir);
    struct index *index = model_open(&dir, INDEX_CREATE);
    struct index_row row = {.number = 7, .id = "seven", .id_len = 5};
    assert_int_equal(apply_once(index, &row, NULL), 0);
    row.has_seq = true;
    row.first_seq = row.last_seq = 10;
    row.records = 1;
    row.bytes = 20;
    struct one good = {.entries = {{.seq = 10, .position = 1, .length = 20}}, .count = 1};
    assert_int_equal(apply_once(index, &row, &good), 0);

    struct index_row next = row;
    next.records = 2;
    next.bytes = 25;
    next.last_seq = 11;
    static const struct index_entry bad[] = {
        {.seq = 10, .position = 2, .length = 5},             /* there already */
        {.seq = 9, .position = 2, .length = 5},              /* below the last */
        {.seq = 11, .position = 2, .length = 0},             /* no line is empty */
        {.seq = HL_SEQ_MAX + 1, .position = 2, .length = 5}, /* no such seq */
        {.seq = 11, .position = 2, .length = 6},             /* not what the row says */
        {.seq = 12, .position = 2, .length = 5},             /* above the row's last */
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct one one = {.entries = {bad[i]}, .count = 1};
        assert_int_equal(apply_once(index, &next, &one), -EINVAL);
    }
    struct one back = {.entries = {{.seq = 11, .position = 2, .length = 2},
                                   {.seq = 11, .position = 3, .length = 3}},
                       .count = 2};
    next.records = 3;
    assert_int_equal(apply_once(index, &next, &back), -EINVAL);

    struct index_row other = {.number = 8, .id = "seven", .id_len = 5}; /* an id for two */
    assert_int_equal(apply_once(index, &other, NULL), -EINVAL);
    other = (struct index_row){.number = 7, .id = "eight", .id_len = 5}; /* two ids for one */
    assert_int_equal(apply_once(index, &other, NULL), -EINVAL);
    other = (struct index_row){.number = 0, .id = "zero", .id_len = 4};
    assert_int_equal(apply_once(index, &other, NULL), -EINVAL);
    other = (struct index_row){.number = 9, .id = "", .id_len = 0};
    assert_int_equal(apply_once(index, &other, NULL), -EINVAL);

    struct index_view *view;
    struct index_row found;
    struct index_meta meta;
    uint64_t bytes = 1;
    assert_int_equal(index_view_begin(index, &view), 0);
    assert_int_equal(index_session_by_id(view, "seven", 5, &found), 0);
    assert_int_equal(found.records, 1);
    assert_int_equal(index_session_by_id(view, "eight", 5, &found), -ENOENT);
    assert_int_equal(index_session_by_number(view, 8, &found), -ENOENT);
    assert_int_equal(index_bytes_before(view, 8, 5, &bytes), 0);
    assert_int_equal(bytes, 0);
    assert_int_equal(index_get_meta(view, &meta), 0);
    assert_int_equal(meta.sessions, 1);
    assert_int_equal(meta.records, 1);
    assert_int_equal(meta.bytes, 20);
    assert_int_equal(meta.next_session, 8);
    assert_int_equal(meta.watermark, 0);
    index_view_end(view);
    index_close(index);
    model_dir_remove(&dir);
}

static void test_segments(void **state)
{
    (void)state;
    struct model_dir dir;
    model_dir_make(&dir);
    struct index *index = model_open(&dir, INDEX_CREATE);
    struct index_txn *txn;
    assert_int_equal(index_begin(index, &txn), 0);
    struct index_segment in = {.first = 3,
                               .last = 5,
                               .generation = 2,
                               .salt = 0xdeadbeef,
                               .indexed_end = 1U << 30,
                               .records = 77,
                               .line_bytes = UINT64_C(1) << 40,
                               .sealed = true};
    assert_int_equal(index_put_segment(txn, &in), 0);
    struct index_segment newest = {.first = UINT32_MAX, .last = UINT32_MAX, .salt = 1};
    assert_int_equal(index_put_segment(txn, &newest), 0);
    for (uint64_t i = 1; i <= 300; i++)
        assert_int_equal(index_put_point(txn, 3, i << 20, (i << 20) + 100), 0);
    assert_int_equal(index_put_point(txn, 2, 5, 6), 0);
    assert_int_equal(index_commit(txn), 0);
    assert_int_equal(index_begin(index, &txn), 0);
    index_abort(txn);

    struct index_view *view;
    struct index_segment out = {.first = 0};
    assert_int_equal(index_view_begin(index, &view), 0);
    assert_int_equal(index_segment_next(view, 0, &out), 0);
    assert_true(out.first == 3 && out.last == 5 && out.generation == 2 && out.salt == 0xdeadbeef &&
                out.indexed_end == 1U << 30 && out.records == 77 &&
                out.line_bytes == UINT64_C(1) << 40 && out.sealed);
    assert_int_equal(index_segment_next(view, 3, &out), 0);
    assert_true(out.first == UINT32_MAX && !out.sealed);
    assert_int_equal(index_segment_next(view, UINT32_MAX, &out), -ENOENT);

    uint64_t bytes, offset;
    assert_int_equal(index_find_point(view, 3, (1U << 20) - 1, &bytes, &offset), -ENOENT);
    for (uint64_t i = 1; i <= 300; i++) {
        for (uint64_t ask = i << 20; ask < (i + 1) << 20; ask += (1U << 20) - 1) {
            assert_int_equal(index_find_point(view, 3, ask, &bytes, &offset), 0);
            assert_true(bytes == i << 20 && offset == (i << 20) + 100);
        }
    }
    assert_int_equal(index_find_point(view, 3, UINT64_MAX, &bytes, &offset), 0);
    assert_true(bytes == 300U << 20);
    assert_int_equal(index_find_point(view, 4, UINT64_MAX, &bytes, &offset), -ENOENT);
    assert_int_equal(index_find_point(view, 1, 5, &bytes, &offset), -ENOENT);
    assert_int_equal(index_find_point(view, 2, 5, &bytes, &offset), 0);
    assert_int_equal(index_find_point(view, 2, 4, &bytes, &offset), -ENOENT);
    index_view_end(view);
    index_close(index);
    struct model none = {.count = 0};
    model_expect_good(&none, &dir);
    model_dir_remove(&dir);
}

static void test_opening(void **state)
{
    (void)state;
    struct model_dir dir;
    model_dir_make(&dir);
    struct index *index;
    struct hl_error err;
    struct index_check_report report;
    assert_int_equal(index_open(dir.path, 0, model_store_id, &index, &err), -ENOENT);
    assert_null(index);
    assert_int_equal(index_open(dir.path, INDEX_READ_ONLY, model_store_id, &index, &err), -ENOENT);
    assert_int_equal(index_check_in_child(dir.path, 0, model_store_id, &report), -ENOENT);
    assert_int_equal(
        index_open(dir.path, INDEX_READ_ONLY | INDEX_CREATE, model_store_id, &index, &err),
        -EINVAL);
    assert_int_equal(index_open(dir.path, INDEX_NO_LOCK, model_store_id, &index, &err), -EINVAL);

    /* A file that a crash left empty is as none. */
    char file[400];
    assert_int_equal(mkdir(dir.path, 0700), 0);
    model_file(&dir, "data.mdb", file);
    close(open(file, O_CREAT | O_WRONLY, 0600));
    assert_int_equal(index_open(dir.path, 0, model_store_id, &index, &err), -ENOENT);

    index = model_open(&dir, INDEX_CREATE);
    struct stat st;
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    uint64_t before = index_txn_id(index);
    struct index_view *view;
    struct index_meta meta;
    assert_int_equal(index_view_begin(index, &view), 0);
    assert_int_equal(index_get_meta(view, &meta), 0);
    assert_memory_equal(meta.store_id, model_store_id, 16);
    assert_int_equal(meta.next_session, 1);
    index_view_end(view);
    struct index_txn *txn;
    assert_int_equal(index_begin(index, &txn), 0);
    meta.next_session = 12;
    meta.watermark = 99;
    meta.applying = 100;
    meta.records = 5; /* totals are the index's own affair */
    assert_int_equal(index_put_meta(txn, &meta), 0);
    assert_int_equal(index_commit(txn), 0);
    assert_int_equal(index_txn_id(index), before + 1);
    assert_true(index_bytes(index) > 0);
    index_close(index);

    static const uint8_t other[16] = "another store's";
    assert_int_equal(index_open(dir.path, 0, other, &index, &err), -EBADMSG);
    assert_int_equal(index_check_in_child(dir.path, 0, other, &report), -EBADMSG);
    index = model_open(&dir, INDEX_READ_ONLY);
    assert_int_equal(index_begin(index, &txn), -EROFS);
    assert_int_equal(index_view_begin(index, &view), 0);
    assert_int_equal(index_get_meta(view, &meta), 0);
    assert_true(meta.next_session == 12 && meta.watermark == 99 && meta.applying == 100 &&
                meta.records == 0);
    index_view_end(view);
    index_close(index);
    index_close(NULL);
    index_view_end(NULL);
    index_abort(NULL);

    /* What is no environment at all. */
    int fd = open(file, O_WRONLY | O_TRUNC);
    assert_int_equal(write(fd, "no environment", 14), 14);
    close(fd);
    assert_int_equal(index_open(dir.path, INDEX_CREATE, model_store_id, &index, &err), -EBADMSG);
    assert_int_equal(index_check_in_child(dir.path, 0, model_store_id, &report), -EBADMSG);
    model_dir_remove(&dir);
}

/* Makes the index in the file one of another version. */
static void make_another_version(const char *file)
{
    static const char key[] = "format";
    uint8_t bytes[1 << 16], *at;
    int fd = open(file, O_RDWR);
    ssize_t len = read(fd, bytes, sizeof bytes);
    size_t found = 0;
    for (size_t left = (size_t)len;
         (at = memmem(bytes + len - left, left, model_store_id, 16)) != NULL;
         left = (size_t)(bytes + len - at) - 16) {
        at[-4] ^= 0x40;
        uint32_t crc = htole32(crc32_more(crc32_more(0, key, strlen(key)), at - 4, 20));
        memcpy(at + 16, &crc, sizeof crc);
        found++;
    }
    assert_true(found > 0);
    assert_int_equal(pwrite(fd, bytes, (size_t)len, 0), len);
    close(fd);
}

/* It is not damaged, and nothing of it is used. */
static void test_another_version(void **state)
{
    (void)state;
    struct model_dir dir;
    struct index *index;
    struct hl_error err;
    struct index_check_report report;
    char file[400];
    model_dir_make(&dir);
    index_close(model_open(&dir, INDEX_CREATE));
    model_file(&dir, "data.mdb", file);
    make_another_version(file);
    assert_int_equal(index_open(dir.path, 0, model_store_id, &index, &err), -EBADMSG);
    assert_non_null(strstr(err.text, "made by another version"));
    assert_int_equal(index_check_in_child(dir.path, 0, model_store_id, &report), -EBADMSG);
    assert_non_null(strstr(report.complaint, "made by another version"));
    model_dir_remove(&dir);
}

static uint64_t records_stored(struct index *index)
{
    struct index_view *view;
    struct index_meta meta;
    assert_int_equal(index_view_begin(index, &view), 0);
    assert_int_equal(index_get_meta(view, &meta), 0);
    index_view_end(view);
    return meta.records;
}

/* The map is small, and grows each time it is full; nothing is lost on the way. */
/* What is told of the file is that of the one which is open, also when another has its name. */
static void test_which_file_is_open(void **state)
{
    (void)state;
    struct model_dir dir;
    struct stat st;
    char name[600], other[600];
    dev_t device;
    ino_t inode;
    model_dir_make(&dir);
    struct index *index = model_open(&dir, INDEX_CREATE);
    snprintf(name, sizeof name, "%s/data.mdb", dir.path);
    snprintf(other, sizeof other, "%s/other.mdb", dir.path);
    assert_int_equal(stat(name, &st), 0);
    assert_int_equal(rename(name, other), 0);
    int fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(index_file(index, &device, &inode), 0);
    assert_int_equal(device, st.st_dev);
    assert_int_equal(inode, st.st_ino);
    index_close(index);
    assert_int_equal(rename(other, name), 0);
    model_dir_remove(&dir);
}

static void test_growing(void **state)
{
    (void)state;
    uint64_t chance = model_seed("test_growing");
    struct model_dir dir;
    model_dir_make(&dir);
    struct model model = {.count = 0};
    struct index *index;
    assert_int_equal(
        index_open_sized(dir.path, INDEX_CREATE, model_store_id, 1U << 18, &index, NULL), 0);
    for (unsigned i = 0; i < 10; i++)
        model_add_session(&model, &chance);
    unsigned grown = 0;
    for (unsigned round = 0; round < 20; round++) {
        uint64_t total = records_stored(index);
        model_grow(&model, &chance, 0, 2000);
        for (;;) {
            struct index_txn *txn;
            int error = index_begin(index, &txn);
            assert_int_equal(error, 0);
            size_t stored[10];
            for (size_t i = 0; i < 10; i++)
                stored[i] = model.sessions[i].stored;
            for (size_t i = 0; i < 10 && error == 0; i++)
                error = model_apply(txn, &model.sessions[i]);
            if (error == 0) {
                /* Not while a transaction is open. */
                if (grown == 1)
                    assert_int_equal(index_grow(index), -EBUSY);
                error = index_commit(txn);
            } else {
                index_abort(txn);
            }
            if (error == 0)
                break;
            assert_int_equal(error, -EAGAIN);
            for (size_t i = 0; i < 10; i++)
                model.sessions[i].stored = stored[i];
            assert_int_equal(records_stored(index), total);
            assert_int_equal(index_grow(index), 0);
            grown++;
        }
        model_expect(&model, index, &chance, 50);
    }
    assert_true(grown >= 2);
    index_close(index);
    model_expect_good(&model, &dir);
    model_free(&model);
    model_dir_remove(&dir);
}

static void test_copy(void **state)
{
    (void)state;
    uint64_t chance = model_seed("test_copy");
    struct model_dir dir, copy;
    model_dir_make(&dir);
    model_dir_make(&copy);
    struct model model = {.count = 0};
    struct index *index = model_open(&dir, INDEX_CREATE);
    for (unsigned round = 0; round < 5; round++) {
        model_grow(&model, &chance, 10, 500);
        model_commit(&model, index);
    }
    char file[400];
    assert_int_equal(mkdir(copy.path, 0700), 0);
    model_file(&copy, "data.mdb", file);
    int fd = open(file, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    assert_int_equal(index_copy(index, fd), 0);
    close(fd);
    fd = open(file, O_RDONLY);
    assert_int_equal(index_copy(index, fd), -EBADF);
    close(fd);
    index_close(index);
    model_expect_good(&model, &copy);
    index = model_open(&copy, 0);
    model_expect(&model, index, &chance, 100);
    model_grow(&model, &chance, 1, 500);
    model_commit(&model, index);
    model_expect(&model, index, &chance, 100);
    index_close(index);
    model_expect_good(&model, &copy);
    model_free(&model);
    model_dir_remove(&dir);
    model_dir_remove(&copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opening), cmocka_unit_test(test_another_version),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_segments),
        cmocka_unit_test(test_model),   cmocka_unit_test(test_edges),
        cmocka_unit_test(test_sums),    cmocka_unit_test(test_which_file_is_open),
        cmocka_unit_test(test_growing), cmocka_unit_test(test_copy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
