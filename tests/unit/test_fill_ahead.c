/* test_fill_ahead.c - zeros behind the tail, for syncs of small appends: they are made where they
 * help, they are no frames to anybody, and they are gone where a segment ends. */
#include "support.h"

#include <unistd.h>

#include "../../store/format.h"

#define ENOUGH 20 /* small syncs after which there are zeros */

struct filled {
    struct t_store t;
    uint32_t session;
    char path[T_PATH]; /* of the segment */
    unsigned lines;
};

static void append_and_sync(struct filled *f, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        t_append_format(&f->t, f->session, "line %u\n", ++f->lines);
        assert_int_equal(hl_sync(f->t.store), 0);
    }
}

/* A line of some length, not synced. */
static void append_long(struct filled *f, size_t len)
{
    char *text = malloc(len + 2);
    assert_non_null(text);
    memset(text, 'x', len);
    memcpy(text + len, "\n", 2);
    t_append(&f->t, f->session, text);
    free(text);
}

static uint64_t tail(const struct filled *f)
{
    struct hl_status status;
    assert_int_equal(hl_store_status(f->t.store, &status), 0);
    return status.position & UINT32_MAX;
}

/* As after a crash: in a directory of its own. */
static void crash(struct filled *f)
{
    t_crash(&f->t);
    t_segment_path(&f->t, 0, f->path);
}

static void begin(struct filled *f)
{
    f->lines = 0;
    t_store_init(&f->t);
    f->t.options.segment_size = UINT64_C(1) << 20;
    t_store_watch(&f->t);
    t_open(&f->t);
    f->session = t_session(&f->t, "s");
    t_segment_path(&f->t, 0, f->path);
}

/* All lines are there, in order, and the store can be appended to. */
static void check(struct filled *f)
{
    size_t len;
    char line[32], *log = t_log(f->t.store, f->session, 4096, &len), *at = log;
    for (unsigned i = 1; i <= f->lines; i++) {
        snprintf(line, sizeof line, "\"payload\":\"line %u\"", i);
        at = strstr(at, line);
        assert_non_null(at);
    }
    free(log);
    append_and_sync(f, 1);
    assert_int_equal(f->t.errors, 0);
    assert_int_equal(f->t.warnings, 0);
}

static void test_there_are_zeros(void **state)
{
    (void)state;
    struct filled f;
    begin(&f);
    append_and_sync(&f, 3);
    assert_int_equal(t_file_size(f.path), tail(&f)); /* too few to be worth it */
    append_and_sync(&f, ENOUGH);
    uint64_t size = t_file_size(f.path), end = tail(&f);
    assert_true(size > end);
    size_t len;
    char *bytes = t_file_read(f.path, &len);
    for (uint64_t i = end; i < size; i++)
        assert_int_equal(bytes[i], 0);
    free(bytes);
    /* What is synced next lies in them; at their end there are more. */
    while (tail(&f) <= size) {
        uint64_t before = t_file_size(f.path);
        assert_true(before > tail(&f));
        append_long(&f, 4000);
        assert_int_equal(hl_sync(f.t.store), 0);
        assert_true(t_file_size(f.path) >= before);
    }
    t_close(&f.t);
    t_open(&f.t);
    check(&f);
    t_check_log(&f.t);
    t_store_free(&f.t);
}

static void test_gone_after_a_close(void **state)
{
    (void)state;
    struct filled f;
    begin(&f);
    append_and_sync(&f, ENOUGH);
    uint64_t end = tail(&f);
    t_close(&f.t);
    assert_int_equal(t_file_size(f.path), end);
    t_store_free(&f.t);
}

static void test_no_zeros_behind_large_syncs(void **state)
{
    (void)state;
    struct filled f;
    begin(&f);
    for (unsigned i = 0; i < 8; i++) {
        append_long(&f, 100000);
        assert_int_equal(hl_sync(f.t.store), 0);
        assert_int_equal(t_file_size(f.path), tail(&f));
    }
    /* Nor where nobody asks, or nothing comes. */
    for (unsigned i = 0; i < ENOUGH; i++)
        assert_int_equal(hl_sync(f.t.store), 0);
    assert_int_equal(t_file_size(f.path), tail(&f));
    t_store_free(&f.t);
}

static void test_crash(void **state)
{
    (void)state;
    struct filled f;
    begin(&f);
    append_and_sync(&f, ENOUGH);
    t_append_format(&f.t, f.session, "line %u\n", ++f.lines);
    uint64_t end = tail(&f);
    assert_true(t_file_size(f.path) > end);
    crash(&f);
    t_open(&f.t);
    assert_int_equal(t_file_size(f.path), end);
    check(&f);
    crash(&f);
    t_open(&f.t);
    check(&f);
    t_store_free(&f.t);
}

/* A torn frame that ends in zeros is a torn tail, whatever part of it was written. */
static void test_torn_frame(void **state)
{
    (void)state;
    struct filled f;
    begin(&f);
    append_and_sync(&f, ENOUGH);
    uint64_t begins = tail(&f);
    t_append(&f.t, f.session, "the last one, which is torn\n");
    uint64_t ends = tail(&f);
    size_t len;
    char *bytes = t_file_read(f.path, &len);
    crash(&f);
    for (uint64_t cut = begins; cut < ends; cut++) {
        t_file_write(f.path, bytes, len);
        char zeros[256] = {0};
        assert_true(ends - cut <= sizeof zeros);
        t_file_poke(f.path, cut, zeros, (size_t)(ends - cut));
        bool whole = memcmp(bytes + cut, zeros, (size_t)(ends - cut)) == 0; /* its padding */
        t_open(&f.t);
        assert_int_equal(tail(&f), whole ? ends : begins);
        assert_int_equal(t_file_size(f.path), tail(&f));
        crash(&f);
    }
    free(bytes);
    t_open(&f.t);
    t_store_free(&f.t);
}

static void test_a_segment_ends_with_its_seal(void **state)
{
    (void)state;
    struct filled f;
    begin(&f);
    append_and_sync(&f, ENOUGH);
    assert_true(t_file_size(f.path) > tail(&f));
    assert_int_equal(hl_rotate(f.t.store, &f.t.err), 0);
    append_and_sync(&f, ENOUGH);
    t_check_log(&f.t);
    t_close(&f.t);
    t_open(&f.t);
    check(&f);
    /* By itself, too, at the size of a segment; zeros never reach beyond it. */
    uint32_t last = t_last_segment(&f.t);
    while (t_last_segment(&f.t) == last) {
        char path[T_PATH];
        append_and_sync(&f, 1);
        append_long(&f, 10000);
        t_segment_path(&f.t, 0, path);
        assert_true(t_file_size(path) <= f.t.options.segment_size + 16384);
    }
    t_check_log(&f.t);
    t_store_free(&f.t);
}

/* The end of the zeros may reach the disk after the seal, or never. */
static void test_zeros_behind_a_seal(void **state)
{
    (void)state;
    struct filled f;
    static const char zeros[4096];
    begin(&f);
    append_and_sync(&f, ENOUGH);
    uint32_t sealed = t_last_segment(&f.t);
    t_io_fail(&f.t.io, 1U << T_OPEN, ".seg", 1, 1000000, -EIO); /* the next one cannot be made */
    (void)hl_rotate(f.t.store, &f.t.err);
    t_io_heal(&f.t.io);
    crash(&f);
    t_file_append(f.path, zeros, sizeof zeros);
    t_open(&f.t);
    assert_int_equal(f.t.errors, 0);
    append_and_sync(&f, 1);
    assert_int_equal(t_last_segment(&f.t), sealed + 1);
    t_check_log(&f.t);
    /* And of a sealed one with others behind it. */
    crash(&f);
    t_file_append(f.path, zeros, sizeof zeros);
    t_open(&f.t);
    check(&f);
    t_store_free(&f.t);
}

static void test_no_room_for_zeros(void **state)
{
    (void)state;
    static const int errors[] = {-ENOSPC, -EIO, 0}; /* 0: half of it is written, then the rest */
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        struct filled f;
        begin(&f);
        append_and_sync(&f, 7);
        t_io_fail(&f.t.io, 1U << T_PWRITE, ".seg", 2, 1, errors[i]); /* the append is the first */
        append_and_sync(&f, 1);
        assert_int_equal(t_io_failed(&f.t.io), 1);
        if (errors[i] != 0)
            assert_int_equal(t_file_size(f.path), tail(&f));
        t_io_heal(&f.t.io);
        append_and_sync(&f, ENOUGH);
        assert_true(t_file_size(f.path) > tail(&f));
        check(&f);
        t_store_free(&f.t);
    }
}

/* A write that fails within the zeros is cut back like any other. */
static void test_append_that_fails(void **state)
{
    (void)state;
    struct filled f;
    begin(&f);
    append_and_sync(&f, ENOUGH);
    t_io_fail(&f.t.io, 1U << T_PWRITE, ".seg", 1, 1, -EIO);
    assert_int_equal(t_try_append(&f.t, f.session, "refused\n", 8), -EIO);
    t_io_heal(&f.t.io);
    assert_int_equal(t_file_size(f.path), tail(&f));
    append_and_sync(&f, ENOUGH);
    assert_true(t_file_size(f.path) > tail(&f));
    crash(&f);
    t_open(&f.t);
    check(&f);
    t_store_free(&f.t);
}

static void test_reader_beside(void **state)
{
    (void)state;
    struct filled f;
    begin(&f);
    append_and_sync(&f, ENOUGH);
    struct hl_options options = f.t.options;
    struct hl_store *reader;
    struct hl_error err;
    options.read_only = true;
    options.io = NULL;
    assert_int_equal(hl_store_open(f.t.dir, &options, &reader, NULL, &err), 0);
    for (unsigned i = 0; i < 3 * ENOUGH; i++) {
        struct hl_session session;
        append_and_sync(&f, 1);
        assert_int_equal(hl_session_by_id(reader, "s", 1, &session), 0);
        assert_int_equal(session.records, f.lines);
    }
    assert_int_equal(hl_store_close(reader), 0);
    t_store_free(&f.t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_are_zeros),
        cmocka_unit_test(test_gone_after_a_close),
        cmocka_unit_test(test_no_zeros_behind_large_syncs),
        cmocka_unit_test(test_crash),
        cmocka_unit_test(test_torn_frame),
        cmocka_unit_test(test_a_segment_ends_with_its_seal),
        cmocka_unit_test(test_zeros_behind_a_seal),
        cmocka_unit_test(test_no_room_for_zeros),
        cmocka_unit_test(test_append_that_fails),
        cmocka_unit_test(test_reader_beside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
