/* test_reindex.c - the index is built again while the store is in use. */
#include "support.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <sys/stat.h>

static void fill_some(struct t_store *t, uint64_t *chance)
{
    struct hl_session about;
    for (int i = 0; i < 5; i++) {
        char id[8];
        snprintf(id, sizeof id, "s%d", i);
        uint32_t number = hl_session_by_id(t->store, id, strlen(id), &about) == 0
                              ? about.number
                              : t_session(t, id);
        t_fill(t, number, 50, 1 + (unsigned)t_below(chance, 8), 200, chance);
        assert_int_equal(
            hl_session_change(t->store, number, HL_CHANGE_UID, (uint32_t)i + 7, 0, 0, NULL), 0);
        assert_int_equal(hl_attribute_set(t->store, number, "n", "\0\1", 2, 0), 0);
    }
}

static ino_t index_inode(const struct t_store *t)
{
    char path[T_PATH];
    struct stat st;
    t_path(path, t->dir, "index/data.mdb");
    assert_int_equal(stat(path, &st), 0);
    return st.st_ino;
}

static void test_shows_the_same(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    uint64_t chance = t_seed("test_shows_the_same");
    t_store_init(&t);
    t_open(&t);
    for (int round = 0; round < 6; round++) {
        struct hl_progress progress = {0};
        if (round > 0)
            fill_some(&t, &chance);
        if (round == 2)
            assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
        if (round == 3)
            assert_int_equal(hl_rotate(t.store, &t.err), 0);
        t_image_take(t.store, &image);
        ino_t before = index_inode(&t);
        assert_int_equal(hl_reindex(t.store, &progress, &t.err), 0);
        assert_true(index_inode(&t) != before);
        if (round > 0)
            assert_true(progress.total > 0 && progress.done > 0);
        t_shows(t.store, &image);
        assert_int_equal(t_verify(&t), image.records);
        if (round % 2) {
            t_crash(&t);
            t_open(&t);
            t_shows(t.store, &image);
        }
        t_image_free(&image);
    }
    char path[T_PATH];
    t_path(path, t.dir, "index.tmp");
    assert_false(t_exists(path));
    t_path(path, t.dir, "index.old");
    assert_false(t_exists(path));
    t_store_free(&t);
}

static void test_cancelled(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    struct hl_progress progress = {0};
    char path[T_PATH];
    uint64_t chance = 8;
    t_store_init(&t);
    t_open(&t);
    fill_some(&t, &chance);
    t_image_take(t.store, &image);
    ino_t before = index_inode(&t);
    atomic_store(&progress.cancel, true);
    assert_int_equal(hl_reindex(t.store, &progress, &t.err), -EINTR);
    assert_true(t.err.text[0]);
    assert_true(index_inode(&t) == before);
    t_path(path, t.dir, "index.tmp");
    assert_false(t_exists(path));
    t_shows(t.store, &image);
    fill_some(&t, &chance);
    t_image_free(&image);
    t_image_take(t.store, &image);
    assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
    t_shows(t.store, &image);
    t_reopen(&t);
    t_shows(t.store, &image);
    t_image_free(&image);
    t_store_free(&t);
}

/* Each of its calls fails once: the old index stays, or the new one is in place; the store goes on.
 */
static void test_fails_at_each_call(void **state)
{
    (void)state;
    static const unsigned kinds[] = {1U << T_RENAME, 1U << T_FSYNC | 1U << T_FDATASYNC,
                                     1U << T_PREAD,  1U << T_OPEN,
                                     1U << T_UNLINK, 1U << T_LIST,
                                     1U << T_FSTAT};
    uint64_t chance = 9;
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        bool failed = true;
        for (uint64_t nth = 1; failed; nth++) {
            struct t_store t;
            struct t_image image;
            struct hl_status status;
            t_store_init(&t);
            t_store_watch(&t);
            t.options.segment_size = 20 * 1024;
            t_open(&t);
            fill_some(&t, &chance);
            assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
            t_append_format(&t, 0, "{\"session_id\":\"late\"}\n");
            t_image_take(t.store, &image);
            t_io_fail(&t.io, kinds[k], NULL, nth, 1, -EIO);
            int error = hl_reindex(t.store, NULL, &t.err);
            failed = t_io_failed(&t.io) > 0;
            t_io_heal(&t.io);
            assert_true(error == 0 || failed);
            if (error < 0)
                assert_true(t.err.text[0]);
            t_shows(t.store, &image);
            hl_store_status(t.store, &status);
            if (!status.failed) {
                t_append(&t, 0, "{\"session_id\":\"after\"}\n{\"session_id\":\"s1\"}\n");
                t_image_free(&image);
                t_image_take(t.store, &image);
                assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
                t_shows(t.store, &image);
                if (nth % 2)
                    assert_int_equal(hl_reindex(t.store, NULL, &t.err), 0);
            }
            t_crash(&t);
            t_open(&t);
            t_shows(t.store, &image);
            t_image_free(&image);
            t_store_free(&t);
        }
    }
}

struct busy {
    struct t_store *t;
    atomic_bool over;
    uint64_t appended;
    int error;
};

static void *append_all_the_time(void *context)
{
    struct busy *busy = context;
    while (!atomic_load(&busy->over) && busy->error == 0) {
        static const char text[] = "{\"session_id\":\"busy\",\"x\":1}\n{\"session_id\":\"s0\"}\n";
        struct hl_append request = {.data = text, .len = sizeof text - 1};
        busy->error = hl_append(busy->t->store, &request, NULL);
        busy->appended += 2;
    }
    return NULL;
}

static void test_beside_appends(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    struct busy busy = {.t = &t};
    pthread_t thread;
    uint64_t chance = 10, records = 0;
    t_store_init(&t);
    t.options.segment_size = 256 * 1024;
    t_open(&t);
    fill_some(&t, &chance);
    t_image_take(t.store, &image);
    records = image.records;
    t_image_free(&image);
    assert_int_equal(pthread_create(&thread, NULL, append_all_the_time, &busy), 0);
    for (int i = 0; i < (t_slow() ? 3 : 8); i++) {
        if (hl_reindex(t.store, NULL, &t.err) < 0)
            fail_msg("reindex: %s", t.err.text);
        if (i % 3 == 0)
            assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
    }
    atomic_store(&busy.over, true);
    pthread_join(thread, NULL);
    assert_int_equal(busy.error, 0);
    t_image_take(t.store, &image);
    assert_int_equal(image.records, records + busy.appended);
    assert_int_equal(t.errors, 0);
    t_crash(&t);
    t_open(&t);
    t_shows(t.store, &image);
    t_image_free(&image);
    t_store_free(&t);
}

/* An append that comes while the log is read for the new index, from the thread that reads it. */
struct coming {
    struct hl_io io;
    struct t_store *t;
    uint32_t session;
    bool wanted;
};

static ssize_t append_and_read(void *context, int fd, void *buffer, size_t len, uint64_t offset)
{
    struct coming *coming = context;
    if (coming->wanted) {
        coming->wanted = false;
        t_append(coming->t, coming->session, "meanwhile\n");
    }
    return hl_io_system.pread(NULL, fd, buffer, len, offset);
}

/* What was appended meanwhile is numbered by the reading, as batches are by the store: a session
 * must not be taken for one that the batch under way has already. */
static void append_at(unsigned turn)
{
    enum { BATCHES = 12 }; /* in the log, when it is read */
    struct coming coming = {.io = hl_io_system};
    struct t_store t;
    struct hl_session about;
    coming.io.context = &coming;
    coming.io.pread = append_and_read;
    t_store_init(&t);
    t.options.io = &coming.io;
    t_open(&t);
    uint32_t a = t_session(&t, "a"), b = t_session(&t, "b");
    for (int i = 2; i < BATCHES; i++)
        t_append(&t, a, "before\n");
    t_reopen(&t);
    coming.t = &t;
    coming.session = a;
    coming.wanted = true;
    assert_int_equal(hl_reindex(t.store, NULL, &t.err), 0);
    assert_false(coming.wanted);
    for (unsigned i = 0; i < turn; i++)
        t_append(&t, b, "of b\n");
    t_append(&t, a, "of a\n");
    assert_int_equal(hl_session_by_number(t.store, b, &about), 0);
    assert_int_equal(about.records, turn);
    assert_int_equal(hl_session_by_number(t.store, a, &about), 0);
    assert_int_equal(about.records, BATCHES - 2 + 2);
    t_close(&t);
    t_store_free(&t);
}

static void test_batches_after_it_are_new(void **state)
{
    (void)state;
    for (unsigned turn = 1; turn < 20; turn++)
        append_at(turn);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shows_the_same),     cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_fails_at_each_call), cmocka_unit_test(test_batches_after_it_are_new),
        cmocka_unit_test(test_beside_appends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
