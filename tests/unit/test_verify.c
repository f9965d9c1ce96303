/* test_verify.c - what hl_verify() counts, in a sound store and in damaged ones. */
#include "support.h"

#include <inttypes.h>
#include <stdatomic.h>

#include "../../store/format.h"

static void make(struct t_store *t, uint64_t *chance)
{
    t_store_init(t);
    t->options.segment_size = 10 * 1024;
    t_open(t);
    uint32_t a = t_session(t, "a"), b = t_session(t, "b");
    for (int i = 0; i < 5; i++) {
        t_fill(t, a, 20, 4, 200, chance);
        t_fill(t, b, 10, 1, 200, chance);
    }
}

static void test_a_sound_store(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_verify_report report;
    struct hl_status status;
    uint64_t chance = t_seed("test_a_sound_store");
    make(&t, &chance);
    for (int round = 0; round < 3; round++) {
        struct hl_progress progress = {0};
        assert_int_equal(hl_verify(t.store, &report, &progress, &t.err), 0);
        hl_store_status(t.store, &status);
        assert_int_equal(report.segments, status.segments);
        assert_int_equal(report.records, 150);
        /* A seal for each segment but the last, and two session frames. */
        assert_int_equal(report.frames, 150 + 2 + report.segments - 1);
        assert_int_equal(report.bytes, status.log_bytes - report.segments * SEGMENT_HEADER_REGION);
        assert_int_equal(report.damaged_gaps, 0);
        assert_int_equal(report.damaged_bytes, 0);
        assert_int_equal(report.broken_batches, 0);
        assert_int_equal(report.index_missing, 0);
        assert_int_equal(report.index_dangling, 0);
        assert_int_equal(progress.done, report.bytes);
        assert_true(progress.total >= progress.done);
        if (round == 0)
            assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
        if (round == 1)
            t_reopen(&t);
    }
    struct hl_progress progress = {0};
    atomic_store(&progress.cancel, true);
    assert_int_equal(hl_verify(t.store, &report, &progress, &t.err), -EINTR);
    assert_true(t.err.text[0]);
    t_close(&t);
    t.options.read_only = true;
    t_open(&t);
    assert_int_equal(hl_verify(t.store, &report, NULL, &t.err), 0);
    assert_int_equal(report.records, 150);
    t_store_free(&t);
}

static void test_a_device_that_fails(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_verify_report report;
    struct hl_status status;
    uint64_t chance = 2;
    make(&t, &chance);
    t_close(&t);
    t_store_watch(&t);
    t_open(&t);
    t_io_fail(&t.io, 1U << T_PREAD, ".seg", 3, 1, -EIO);
    assert_int_equal(hl_verify(t.store, &report, NULL, &t.err), -EIO);
    t_io_heal(&t.io);
    hl_store_status(t.store, &status);
    assert_int_equal(status.damage_found, 0);
    t_store_free(&t);
}

/* One record of a batch of four is hit in a sealed segment: one gap, one batch, one entry. */
static void test_one_record_hit(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_verify_report report;
    struct hl_record record;
    char path[T_PATH];
    uint64_t chance = 3;
    make(&t, &chance);
    assert_int_equal(hl_record_find(t.store, 1, 2, &record), 0); /* the second of the first batch */
    t_segment_path(&t, (uint32_t)record.segment, path);
    t_file_flip(path, record.offset + 50, 1);
    assert_int_equal(hl_verify(t.store, &report, NULL, &t.err), 0);
    assert_int_equal(report.records, 149);
    assert_int_equal(report.damaged_gaps, 1);
    assert_int_equal(report.damaged_bytes, (FRAME_HEADER_SIZE + record.length + 7) & ~7U);
    assert_true(report.broken_batches > 0);
    assert_int_equal(report.index_dangling, 1);
    assert_int_equal(report.index_missing, 0);
    /* Told once. */
    unsigned errors = t.errors;
    assert_true(errors > 0);
    assert_int_equal(hl_verify(t.store, &report, NULL, &t.err), 0);
    assert_int_equal(t.errors, errors);
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_sound_store),
        cmocka_unit_test(test_a_device_that_fails),
        cmocka_unit_test(test_one_record_hit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
