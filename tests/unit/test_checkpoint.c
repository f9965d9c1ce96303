/* test_checkpoint.c - copies of the index, the mark of a clean end, and what fails while they are
 * made. How they are restored is in test_recover_index.c. */
#include "support.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <unistd.h>

static size_t checkpoints(const struct t_store *t)
{
    char folder[T_PATH], **names;
    t_path(folder, t->dir, "checkpoints");
    size_t count = t_names(folder, ".ckpt", &names);
    t_names_free(names, count);
    size_t all = t_names(folder, "", &names);
    t_names_free(names, all);
    assert_int_equal(all, count); /* nothing else lies there */
    return count;
}

static void test_three_are_kept(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_status status;
    t_store_init(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    hl_store_status(t.store, &status);
    assert_int_equal(status.checkpoints, 0);
    assert_int_equal(status.checkpoint_ms, 0);
    for (size_t i = 1; i <= 6; i++) {
        t_append(&t, s, "x\n");
        assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
        assert_int_equal(checkpoints(&t), i < 3 ? i : 3);
        hl_store_status(t.store, &status);
        assert_int_equal(status.checkpoints, i);
        assert_true(status.checkpoint_ms > 0);
        assert_int_equal(status.indexed, status.position);
        assert_int_equal(status.memtable_records, 0);
    }
    /* The newest are those that are kept. */
    char path[T_PATH];
    t_path(path, t.dir, "checkpoints/%016" PRIx64 ".ckpt", status.indexed);
    assert_true(t_exists(path));
    t_close(&t);
    assert_int_equal(checkpoints(&t), 3);
    t_store_free(&t);
}

static bool marked(const struct t_store *t)
{
    char path[T_PATH];
    t_path(path, t->dir, "index/clean");
    return t_exists(path);
}

/* The mark stands only between an orderly end and the next beginning, and only for the very file.
 */
static void test_the_mark_of_a_clean_end(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    char path[T_PATH];
    t_store_init(&t);
    t_open(&t);
    t_append(&t, t_session(&t, "s"), "x\n");
    assert_false(marked(&t));
    t_image_take(t.store, &image);
    t_close(&t);
    assert_true(marked(&t));
    t.options.read_only = true;
    t_open(&t);
    assert_true(marked(&t)); /* a reader leaves it */
    t_close(&t);
    t.options.read_only = false;
    t_open(&t);
    assert_false(marked(&t));
    t_crash(&t);
    assert_false(marked(&t));
    t_open(&t);
    t_close(&t);
    /* Damage behind the mark's back changes the time of the file: it is looked at, and set aside.
     */
    t_path(path, t.dir, "index/data.mdb");
    char junk[4096];
    memset(junk, 0x5a, sizeof junk);
    for (uint64_t at = 0; at + sizeof junk <= t_file_size(path); at += sizeof junk)
        t_file_poke(path, at, junk, sizeof junk);
    t_open(&t);
    t_shows(t.store, &image);
    t_image_free(&image);
    t_store_free(&t);
}

static void test_cancelled(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_progress progress = {0};
    t_store_init(&t);
    t_open(&t);
    t_append(&t, t_session(&t, "s"), "x\n");
    atomic_store(&progress.cancel, true);
    assert_int_equal(hl_checkpoint(t.store, &progress, &t.err), -EINTR);
    assert_true(t.err.text[0]);
    assert_int_equal(checkpoints(&t), 0);
    atomic_store(&progress.cancel, false);
    assert_int_equal(hl_checkpoint(t.store, &progress, &t.err), 0);
    assert_true(progress.total > 0);
    assert_int_equal(checkpoints(&t), 1);
    t_store_free(&t);
}

static void test_fails_at_each_call(void **state)
{
    (void)state;
    static const unsigned kinds[] = {1U << T_PWRITE, 1U << T_FSYNC, 1U << T_OPEN, 1U << T_RENAME,
                                     1U << T_MKDIR};
    struct t_store t;
    struct t_image image;
    t_store_init(&t);
    t_store_watch(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    t_append(&t, s, "x\n");
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        bool failed = true;
        for (uint64_t nth = 1; failed; nth++) {
            t_append(&t, s, "y\n");
            t_image_take(t.store, &image);
            t_io_fail(&t.io, kinds[k], NULL, nth, 1, -ENOSPC);
            int error = hl_checkpoint(t.store, NULL, &t.err);
            failed = t_io_failed(&t.io) > 0;
            t_io_heal(&t.io);
            assert_int_equal(error, failed ? -ENOSPC : 0);
            checkpoints(&t);
            t_shows(t.store, &image);
            t_image_free(&image);
        }
    }
    t_image_take(t.store, &image);
    t_crash(&t);
    t_open(&t);
    t_shows(t.store, &image);
    t_image_free(&image);
    t_store_free(&t);
}

/* Closing fails: what was appended is there all the same. */
static void test_closing_that_fails(void **state)
{
    (void)state;
    static const unsigned kinds[] = {1U << T_PWRITE, 1U << T_FSYNC | 1U << T_FDATASYNC,
                                     1U << T_OPEN, 1U << T_RENAME};
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        bool failed = true;
        for (uint64_t nth = 1; failed; nth++) {
            struct t_store t;
            struct t_image image;
            t_store_init(&t);
            t_store_watch(&t);
            t_open(&t);
            t_append(&t, t_session(&t, "s"), "x\n");
            t_image_take(t.store, &image);
            t_io_fail(&t.io, kinds[k], NULL, nth, 1, -EIO);
            int error = hl_store_close(t.store);
            failed = t_io_failed(&t.io) > 0;
            t_io_heal(&t.io);
            t.store = NULL;
            assert_true(error == 0 ? !failed : error == -EIO);
            t_open(&t);
            t_shows(t.store, &image);
            t_image_free(&image);
            t_store_free(&t);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_three_are_kept),     cmocka_unit_test(test_the_mark_of_a_clean_end),
        cmocka_unit_test(test_cancelled),          cmocka_unit_test(test_fails_at_each_call),
        cmocka_unit_test(test_closing_that_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
