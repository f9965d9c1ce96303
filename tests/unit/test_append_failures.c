/* test_append_failures.c - hl_append() when calls fail under it: what is refused leaves no trace.
 */
#include "support.h"

#include <inttypes.h>

/* Appends with the nth call failing, until one append sees no failure: after each, what was refused
 * is not there, what was taken is, now and after the store is opened again. */
static void fail_each_call(unsigned calls, const char *only, int error, uint64_t times)
{
    struct t_store t;
    t_store_init(&t);
    t.options.segment_size = 16 * 1024;
    t_store_watch(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    uint64_t chance = 1;
    char *batch = malloc(3 << 20);
    assert_non_null(batch);
    size_t len = 0;
    for (int i = 0; i < 3000; i++)
        len += (size_t)sprintf(batch + len, "{\"i\":%d,\"pad\":\"%0700d\"}\n", i, 1);
    bool failed = true;
    unsigned rounds = 0, refused = 0;
    for (uint64_t nth = 1; failed; nth++, rounds++) {
        struct t_image before, after;
        t_fill(&t, s, 3 + (unsigned)t_below(&chance, 30), 7, 200, &chance);
        t_image_take(t.store, &before);
        t_io_fail(&t.io, calls, only, nth, times, error);
        int result = t_try_append(&t, s, batch, len);
        failed = t_io_failed(&t.io) > 0;
        t_io_heal(&t.io);
        if (result < 0) {
            refused++;
            assert_true(failed);
            assert_true(t.err.code == -result && t.err.text[0]);
            t_shows(t.store, &before);
        }
        t_image_take(t.store, &after);
        struct hl_status status;
        hl_store_status(t.store, &status);
        if (!status.failed) {
            t_append(&t, s, "after\n");
            t_image_free(&after);
            t_image_take(t.store, &after);
        }
        if (status.failed || nth % 2) {
            t_crash(&t);
            t_open(&t);
            t_shows(t.store, &after);
        }
        t_image_free(&before);
        t_image_free(&after);
    }
    assert_true(rounds >= 2);
    if (error)
        assert_true(refused > 0);
    free(batch);
    t_close(&t);
    t_open(&t);
    t_verify(&t);
    t_store_free(&t);
}

static void test_no_room_at_any_write(void **state)
{
    (void)state;
    fail_each_call(1U << T_PWRITE, ".seg", -ENOSPC, 1);
}

static void test_no_room_for_a_while(void **state)
{
    (void)state;
    fail_each_call(1U << T_PWRITE | 1U << T_OPEN, ".seg", -ENOSPC, 100);
}

static void test_a_device_that_fails_at_any_write(void **state)
{
    (void)state;
    fail_each_call(1U << T_PWRITE, ".seg", -EIO, 1);
}

static void test_short_writes(void **state)
{
    (void)state;
    fail_each_call(1U << T_PWRITE, ".seg", 0, 1);
}

static void test_interrupted_writes(void **state)
{
    (void)state;
    struct t_store t;
    t_store_init(&t);
    t_store_watch(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    t_io_fail(&t.io, 1U << T_PWRITE | 1U << T_PREAD | 1U << T_FDATASYNC, NULL, 1, 5, -EINTR);
    t_append(&t, s, "x\n");
    assert_int_equal(t_io_failed(&t.io), 5);
    t_store_free(&t);
}

/* When even cutting back fails, what is behind the tail must never be taken for a record. */
static void test_a_write_that_cannot_be_taken_back(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    t_store_init(&t);
    t_store_watch(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    t_append(&t, s, "{\"n\":1}\n");
    t_image_take(t.store, &image);
    t_io_fail(&t.io, 1U << T_PWRITE | 1U << T_FTRUNCATE, ".seg", 1, 2, -EIO);
    assert_int_equal(t_try_append(&t, s, "aaaa\nbbbb\ncccc\n", 15), -EIO);
    t_io_heal(&t.io);
    assert_int_equal(t_try_append(&t, s, "dddd\n", 5), -EIO);
    t_shows(t.store, &image);
    t_crash(&t);
    t_open(&t);
    t_shows(t.store, &image);
    t_append(&t, s, "eeee\n");
    t_image_free(&image);
    t_image_take(t.store, &image);
    assert_int_equal(image.records, 2);
    t_crash(&t);
    t_open(&t);
    t_shows(t.store, &image);
    t_image_free(&image);
    t_store_free(&t);
}

/* Sealing and making the next segment fail at each of their calls: the batch before was stored and
 * stays. */
static void test_rotation_that_fails(void **state)
{
    (void)state;
    static const unsigned kinds[] = {1U << T_PWRITE, 1U << T_OPEN, 1U << T_FSYNC, 1U << T_FSTAT};
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        bool failed = true;
        for (uint64_t nth = 1; failed; nth++) {
            struct t_store t;
            struct t_image image;
            t_store_init(&t);
            t_store_watch(&t);
            t_open(&t);
            uint32_t s = t_session(&t, "s");
            t_append(&t, s, "one\n");
            t_io_fail(&t.io, kinds[k], NULL, nth, 3, -ENOSPC);
            int error = hl_rotate(t.store, &t.err);
            failed = t_io_failed(&t.io) > 0;
            t_io_heal(&t.io);
            assert_true(error == 0 || failed);
            t_append(&t, s, "two\n");
            t_image_take(t.store, &image);
            assert_int_equal(image.records, 2);
            if (error == 0)
                assert_int_equal(t_last_segment(&t), 2);
            t_crash(&t);
            t_open(&t);
            t_shows(t.store, &image);
            t_check_log(&t);
            t_reopen(&t);
            t_shows(t.store, &image);
            t_image_free(&image);
            t_store_free(&t);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_room_at_any_write),
        cmocka_unit_test(test_no_room_for_a_while),
        cmocka_unit_test(test_a_device_that_fails_at_any_write),
        cmocka_unit_test(test_short_writes),
        cmocka_unit_test(test_interrupted_writes),
        cmocka_unit_test(test_a_write_that_cannot_be_taken_back),
        cmocka_unit_test(test_rotation_that_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
