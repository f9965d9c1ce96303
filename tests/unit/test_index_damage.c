/*
 * test_index_damage.c - bits of the index flipped, files cut: the check objects, or what is read is
 * right.
 *
 * After a check that found nothing wrong the index is not only read but also written on, since
 * damage to LMDB's list of free pages or to a page's header shows only then.
 */
#include "index_model.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define LAST_PAGE 136U /* in a meta page of LMDB's: 16 of header, 24, two trees of 48 */

struct bytes {
    uint8_t *data;
    size_t size;
};

static struct bytes read_whole(const char *file)
{
    struct stat st = {.st_size = 0};
    int fd = open(file, O_RDONLY);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    assert_true(st.st_size > 0);
    struct bytes bytes = {.data = malloc((size_t)st.st_size + 1), .size = (size_t)st.st_size};
    assert_non_null(bytes.data);
    assert_int_equal(read(fd, bytes.data, bytes.size), bytes.size);
    close(fd);
    return bytes;
}

static void write_whole(const struct model_dir *dir, const uint8_t *data, size_t size)
{
    char file[400];
    model_file(dir, "lock.mdb", file);
    unlink(file);
    model_file(dir, "data.mdb", file);
    int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, size), size);
    close(fd);
}

enum outcome { RIGHT, SAID_DAMAGED, WRONG_ANSWER, REFUSED, BAD_AFTER_WRITING, KILLED };

static enum outcome read_and_write(const struct model_dir *dir, struct model *model,
                                   uint64_t chance)
{
    struct index *index;
    bool damaged = false;
    if (index_open(dir->path, INDEX_BUILD, model_store_id, &index, NULL) < 0)
        return REFUSED;
    if (!model_ask(model, index, &chance, 60, &damaged))
        return WRONG_ANSWER;
    if (damaged)
        return SAID_DAMAGED;
    for (unsigned round = 0; round < 4; round++) {
        model_grow(model, &chance, 2, 120);
        struct index_txn *txn;
        if (index_begin(index, &txn) < 0)
            return BAD_AFTER_WRITING;
        for (size_t i = 0; i < model->count; i++)
            if (model_apply(txn, &model->sessions[i]) < 0)
                return BAD_AFTER_WRITING;
        if (index_commit(txn) < 0)
            return BAD_AFTER_WRITING;
    }
    bool right = model_ask(model, index, &chance, 60, &damaged) && !damaged;
    index_close(index);
    struct index_check_report report;
    if (!right || index_check(dir->path, 0, model_store_id, &report) < 0)
        return BAD_AFTER_WRITING;
    return RIGHT;
}

/* In a child, which damage may kill. */
static enum outcome try_it(const struct model_dir *dir, struct model *model, uint64_t chance)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit((int)read_and_write(dir, model, chance));
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? (enum outcome)WEXITSTATUS(status) : KILLED;
}

/* An index as it is after a while: several commits, free pages, all tables in use. */
static struct bytes make(const struct model_dir *dir, struct model *model, uint64_t *chance)
{
    struct index *index = model_open(dir, INDEX_CREATE | INDEX_BUILD);
    for (unsigned round = 0; round < 8; round++) {
        model_grow(model, chance, 6, 150);
        model_commit(model, index);
        struct index_txn *txn;
        assert_int_equal(index_begin(index, &txn), 0);
        struct index_segment segment = {.first = round + 1, .last = round + 1, .sealed = true};
        assert_int_equal(index_put_segment(txn, &segment), 0);
        for (uint64_t i = 1; i < 10; i++)
            assert_int_equal(index_put_point(txn, round + 1, i << 20, i << 21), 0);
        assert_int_equal(index_commit(txn), 0);
    }
    model_expect(model, index, chance, 100);
    index_close(index);
    model_expect_good(model, dir);
    char file[400];
    model_file(dir, "data.mdb", file);
    return read_whole(file);
}

static void judge(const struct model_dir *dir, struct model *model, uint64_t chance, unsigned *bad,
                  unsigned *good, const char *what, size_t where)
{
    struct index_check_report report;
    int error = index_check_in_child(dir->path, 0, model_store_id, &report);
    if (error < 0) {
        assert_int_equal(error, -EBADMSG);
        assert_true(report.complaint[0] != '\0');
        ++*bad;
        return;
    }
    assert_string_equal(report.complaint, "");
    enum outcome outcome = try_it(dir, model, chance);
    if (outcome != RIGHT)
        fprintf(stderr, "%s at %zu: the check found nothing, then outcome %d\n", what, where,
                (int)outcome);
    assert_true(outcome == RIGHT);
    ++*good;
}

/* Both meta pages speak of more pages than there are: no copy could be made of it. */
static void test_pages_of_nobody(void **state)
{
    (void)state;
    uint64_t chance = model_seed("test_pages_of_nobody");
    struct model_dir dir;
    struct model model = {.count = 0};
    model_dir_make(&dir);
    struct bytes whole = make(&dir, &model, &chance);
    for (unsigned bit = 0; bit < 20; bit++) {
        struct index_check_report report;
        uint8_t *copy = malloc(whole.size);
        assert_non_null(copy);
        memcpy(copy, whole.data, whole.size);
        for (size_t page = 0; page < 2; page++) {
            uint64_t last;
            uint8_t *at = copy + page * 4096 + LAST_PAGE;
            memcpy(&last, at, sizeof last);
            last += UINT64_C(1) << bit;
            memcpy(at, &last, sizeof last);
        }
        write_whole(&dir, copy, whole.size);
        assert_int_equal(index_check(dir.path, 0, model_store_id, &report), -EBADMSG);
        free(copy);
    }
    write_whole(&dir, whole.data, whole.size);
    model_expect_good(&model, &dir);
    free(whole.data);
    model_free(&model);
    model_dir_remove(&dir);
}

static void test_flips(void **state)
{
    (void)state;
    uint64_t chance = model_seed("test_flips");
    const char *given = getenv("FLIPS");
    unsigned flips = given      ? (unsigned)strtoul(given, NULL, 0)
                     : t_slow() ? 40
                                : 250,
             bad = 0, good = 0;
    struct model_dir dir;
    model_dir_make(&dir);
    struct model model = {.count = 0};
    struct bytes bytes = make(&dir, &model, &chance);
    /* Some two of five are found; until enough of them were. */
    for (unsigned i = 0; i < flips || bad <= flips / 4; i++) {
        assert_true(i < 20 * flips + 200);
        /* Every fourth one in a page's header, or in one of the two meta pages. */
        size_t at = (size_t)model_below(&chance, bytes.size);
        if (i % 4 == 0)
            at = at / 4096 * 4096 + (size_t)model_below(&chance, 32);
        else if (i % 32 == 1)
            at = (at & 1) * 4096 + (size_t)model_below(&chance, 152);
        uint8_t bit = (uint8_t)(1U << model_below(&chance, 8));
        bytes.data[at] ^= bit;
        write_whole(&dir, bytes.data, bytes.size);
        judge(&dir, &model, chance, &bad, &good, "flip", at);
        bytes.data[at] ^= bit;
    }
    fprintf(stderr, "%u flips: %u found, %u without effect\n", bad + good, bad, good);
    free(bytes.data);
    model_free(&model);
    model_dir_remove(&dir);
}

/* Where a page says that its nodes begin: reading never asks, but the next write goes there. */
static void test_bounds(void **state)
{
    (void)state;
    uint64_t chance = model_seed("test_bounds");
    struct model_dir dir;
    model_dir_make(&dir);
    struct model model = {.count = 0};
    struct bytes bytes = make(&dir, &model, &chance);
    unsigned bad = 0, good = 0;
    for (size_t page = 2; page < bytes.size / 4096; page++) {
        size_t at = page * 4096 + 15; /* the high byte: it begins further in front */
        for (uint8_t bit = 1; bit < 16; bit = (uint8_t)(bit << 1)) {
            if (!(bytes.data[at] & bit) || bytes.data[page * 4096 + 10] > 2)
                continue;
            bytes.data[at] ^= bit;
            write_whole(&dir, bytes.data, bytes.size);
            judge(&dir, &model, chance, &bad, &good, "bounds", at);
            bytes.data[at] ^= bit;
        }
    }
    assert_true(bad > 0);
    free(bytes.data);
    model_free(&model);
    model_dir_remove(&dir);
}

/* A bit of each byte of the list of free pages' neighbours would do no harm to what is read: these
 * go through every page that the check might not look at, by exchanging whole pages. */
static void test_pages(void **state)
{
    (void)state;
    uint64_t chance = model_seed("test_pages");
    struct model_dir dir;
    model_dir_make(&dir);
    struct model model = {.count = 0};
    struct bytes bytes = make(&dir, &model, &chance);
    uint8_t saved[4096];
    unsigned bad = 0, good = 0;
    unsigned exchanges = t_slow() ? 18 : 60;
    for (unsigned i = 0; i < exchanges || bad <= exchanges / 6; i++) {
        assert_true(i < 20 * exchanges); /* two of three are found */
        size_t pages = bytes.size / 4096;
        size_t to = (size_t)model_below(&chance, pages) * 4096;
        size_t from = (size_t)model_below(&chance, pages) * 4096;
        memcpy(saved, bytes.data + to, 4096);
        switch (i % 3) {
        case 0: /* a page that the disk lost */
            memset(bytes.data + to, 0, 4096);
            break;
        case 1: /* a write that went astray */
            memcpy(bytes.data + to, bytes.data + from, 4096);
            break;
        default: /* and one that pretends not to have */
            memcpy(bytes.data + to + 8, bytes.data + from + 8, 4096 - 8);
            break;
        }
        write_whole(&dir, bytes.data, bytes.size);
        judge(&dir, &model, chance, &bad, &good, "page", to);
        memcpy(bytes.data + to, saved, 4096);
    }
    for (unsigned i = 0; i < (t_slow() ? 12U : 40U); i++) {
        size_t size = (size_t)model_below(&chance, bytes.size);
        write_whole(&dir, bytes.data, i % 2 ? size : size / 4096 * 4096);
        struct index_check_report report;
        int error = index_check_in_child(dir.path, 0, model_store_id, &report);
        if (error == 0) /* only free pages were cut off */
            assert_int_equal(try_it(&dir, &model, chance), RIGHT);
        else
            assert_true(error == -EBADMSG || (error == -ENOENT && size < 4096));
    }
    fprintf(stderr, "pages: %u found, %u without effect\n", bad, good);
    free(bytes.data);
    model_free(&model);
    model_dir_remove(&dir);
}

/* What LMDB takes, but no index of ours holds. */
static void test_strangers(void **state)
{
    (void)state;
    for (int what = 0; what < 6; what++) {
        uint64_t chance = 7;
        struct model_dir dir;
        model_dir_make(&dir);
        struct model model = {.count = 0};
        struct bytes bytes = make(&dir, &model, &chance);
        free(bytes.data);
        struct index *index = model_open(&dir, 0);
        MDB_txn *txn;
        MDB_dbi table;
        assert_int_equal(mdb_txn_begin(index->env, NULL, 0, &txn), 0);
        struct index_at at = {.index = index, .txn = txn};
        struct index_txn ours = {.at = at, .index = index};
        struct index_stored stored;
        uint32_t number = model.sessions[3].row.number;
        assert_int_equal(index_row_get(&at, number, &stored), 0);
        struct index_key key = index_key_u32_u64(number, stored.newest);
        MDB_val key_val = index_key_val(&key);
        switch (what) {
        case 0: /* a table that nobody knows */
            assert_int_equal(mdb_dbi_open(txn, "stranger", MDB_CREATE, &table), 0);
            break;
        case 1: /* a block that is missing */
            assert_int_equal(mdb_del(txn, index->table[TABLE_BLOCKS], &key_val, NULL), 0);
            break;
        case 2: /* an id that leads nowhere */
            assert_int_equal(index_id_put(&ours, "nobody", 6, 4000), 0);
            break;
        case 3: /* a session without its row */
            key = index_key_u32(number);
            key_val = index_key_val(&key);
            assert_int_equal(mdb_del(txn, index->table[TABLE_SESSIONS], &key_val, NULL), 0);
            break;
        case 4: { /* totals that are not those of the sessions */
            struct index_meta meta;
            assert_int_equal(index_meta_get(&at, &meta), 0);
            meta.records++;
            assert_int_equal(index_meta_store(&ours, &meta), 0);
            break;
        }
        default: /* a sum that no block asked for */
            assert_int_equal(index_sum_add(&ours, &(struct index_sum){.session = number,
                                                                      .level = 1,
                                                                      .ordinal = 900,
                                                                      .bytes = 1,
                                                                      .records = 1}),
                             0);
            break;
        }
        assert_int_equal(mdb_txn_commit(txn), 0);
        if (what == 1) { /* and what is read says so too */
            struct index_view *view;
            struct index_entry entry;
            uint64_t begin;
            assert_int_equal(index_view_begin(index, &view), 0);
            assert_int_equal(index_bytes_before(view, number, HL_SEQ_MAX, &begin), -EBADMSG);
            assert_int_equal(index_find_offset(view, number, 0, &entry, &begin), -EBADMSG);
            index_view_end(view);
        }
        index_close(index);
        struct index_check_report report;
        assert_int_equal(index_check_in_child(dir.path, 0, model_store_id, &report), -EBADMSG);
        fprintf(stderr, "complaint: %s\n", report.complaint);
        assert_true(report.complaint[0] != '\0');
        model_free(&model);
        model_dir_remove(&dir);
    }
}

/* A value may be shorter than what is to be read of it, good checksum or not. */
static void test_a_value_that_ends_early(void **state)
{
    (void)state;
    static const uint8_t bytes[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    struct index_unpack content = {.at = bytes, .left = 7};
    assert_int_equal(index_unpack_u32(&content), 0x04030201);
    assert_false(content.bad);
    assert_int_equal(index_unpack_u32(&content), 0);
    assert_true(content.bad);
    assert_null(index_unpack_bytes(&content, 1)); /* bad once, bad for good */
    assert_false(index_unpack_whole(&content));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_value_that_ends_early),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_pages_of_nobody),
        cmocka_unit_test(test_flips),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
