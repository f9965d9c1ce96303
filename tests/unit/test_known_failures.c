/* test_known_failures.c - how the systems that this store replaces have lost data; each case is one
 * of them. */
#include "support.h"

#include <inttypes.h>

#include "../../store/format.h"

/* After a torn tail, what was appended later was never replayed. */
static void test_appends_after_a_torn_tail_are_replayed(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    char path[T_PATH];
    t_store_init(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    for (int i = 0; i < 6; i++) {
        t_append_format(&t, s, "{\"round\":%d}\n", i);
        t_image_take(t.store, &image);
        assert_int_equal(image.records, i + 1);
        t_crash(&t);
        t_segment_path(&t, 0, path);
        /* The header of a frame, and a part of what it announces. */
        struct frame_header header = {
            .length = htole32(500), .seq = htole64(99), .type = htole16(2)};
        t_file_append(path, &header, sizeof header);
        t_file_append(path, "{\"session_id\"", 13);
        if (i % 2)
            t_lose_index(&t);
        t_open(&t);
        t_shows(t.store, &image);
        t_image_free(&image);
    }
    t_check_log(&t);
    t_store_free(&t);
}

/* The length stood outside the checksum: one flipped bit in it took all that came behind. */
static void test_a_damaged_length_costs_one_record(void **state)
{
    (void)state;
    for (unsigned bit = 0; bit < 32; bit += 3) {
        struct t_store t;
        struct t_image image;
        struct hl_record record;
        char path[T_PATH];
        t_store_init(&t);
        t_open(&t);
        uint32_t s = t_session(&t, "s");
        for (int i = 1; i <= 20; i++)
            t_append_format(&t, s, "%d\n", i);
        assert_int_equal(hl_record_find(t.store, s, 10, &record), 0);
        assert_int_equal(hl_rotate(t.store, &t.err), 0);
        t_close(&t);
        t_segment_path(&t, 1, path);
        t_file_flip(path, record.offset + 4 + bit / 8, (uint8_t)(1U << bit % 8));
        for (int lost = 0; lost < 2; lost++) {
            if (lost)
                t_lose_index(&t);
            t_open(&t);
            t_image_take(t.store, &image);
            assert_int_equal(image.records - image.damaged, 19);
            for (uint64_t seq = 1; seq <= 20; seq++) {
                size_t len;
                assert_int_equal(t_image_line(&image, "s", seq, &len) != NULL, seq != 10);
            }
            t_image_free(&image);
            t_close(&t);
        }
        t_store_free(&t);
    }
}

/* The index was committed before the log was synced. */
struct order {
    struct hl_io io;
    struct t_store *t;
    uint64_t unsynced; /* bytes written to segments since the last sync of one */
    int fds[8];
    size_t count;
    const char *marker; /* stands in what is not synced yet */
    bool broken;
};

static int order_open(void *context, int dirfd, const char *name, int flags, mode_t mode)
{
    struct order *order = context;
    int fd = hl_io_system.open(NULL, dirfd, name, flags, mode);
    if (fd >= 0 && strstr(name, ".seg") && order->count < 8)
        order->fds[order->count++] = fd;
    /* A checkpoint is a copy of the index: when it is begun, the index has been committed. */
    if (strcmp(name, "new.tmp") == 0 && order->unsynced > 0)
        order->broken = true;
    return fd;
}

static bool is_segment(const struct order *order, int fd)
{
    for (size_t i = 0; i < order->count; i++) {
        if (order->fds[i] == fd)
            return true;
    }
    return false;
}

static ssize_t order_pwrite(void *context, int fd, const void *buffer, size_t len, uint64_t offset)
{
    struct order *order = context;
    if (is_segment(order, fd))
        order->unsynced += len;
    return hl_io_system.pwrite(NULL, fd, buffer, len, offset);
}

static int order_fdatasync(void *context, int fd)
{
    struct order *order = context;
    char path[T_PATH];
    size_t len;
    /* Until here the index must not know of what is not synced. */
    if (is_segment(order, fd) && order->t->store) {
        struct hl_status status;
        hl_store_status(order->t->store, &status);
        if (status.indexed > status.synced)
            order->broken = true;
        t_path(path, order->t->dir, "index/data.mdb");
        char *bytes = t_file_read(path, &len);
        if (order->unsynced > 0 && t_has(bytes, len, order->marker))
            order->broken = true;
        free(bytes);
        order->unsynced = 0;
    }
    return hl_io_system.fdatasync(NULL, fd);
}

static void test_the_log_is_synced_before_the_index(void **state)
{
    (void)state;
    struct t_store t;
    struct order order = {.io = hl_io_system, .t = &t, .marker = "unsynced-one"};
    t_store_init(&t);
    order.io.context = &order;
    order.io.open = order_open;
    order.io.pwrite = order_pwrite;
    order.io.fdatasync = order_fdatasync;
    t.options.io = &order.io;
    t_open(&t);
    t_append(&t, 0, "{\"session_id\":\"unsynced-one\"}\n");
    assert_true(order.unsynced > 0);
    assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
    assert_int_equal(order.unsynced, 0);
    assert_false(order.broken);
    struct hl_status status;
    hl_store_status(t.store, &status);
    assert_true(status.indexed <= status.synced);
    order.marker = "unsynced-two";
    t_append(&t, 0, "{\"session_id\":\"unsynced-two\"}\n");
    hl_store_close(t.store);
    t.store = NULL;
    assert_false(order.broken);
    t_store_free(&t);
}

/* And the index was never rebuilt when it was lost. */
static void test_a_lost_index_is_built_again(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    uint64_t chance = 1;
    t_store_init(&t);
    t_open(&t);
    t_fill(&t, t_session(&t, "s"), 1000, 10, 100, &chance);
    t_image_take(t.store, &image);
    for (int i = 0; i < 2; i++) {
        if (i)
            t_crash(&t);
        else
            t_close(&t);
        t_lose_index(&t);
        t_open(&t);
        t_shows(t.store, &image);
    }
    t_image_free(&image);
    t_store_free(&t);
}

/* A second record of the same session and seq was accepted. */
static void test_a_seq_is_used_once(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    t_store_init(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    t_append(&t, s, "{\"seq\":1,\"x\":1}\n{\"seq\":5,\"x\":1}\n");
    t_image_take(t.store, &image);
    for (int i = 0; i < 3; i++) {
        static const char *const lines[] = {"{\"seq\":1,\"x\":2}\n", "{\"seq\":5,\"x\":2}\n",
                                            "{\"seq\":3,\"x\":2}\n", "{\"seq\":0,\"x\":2}\n"};
        for (size_t k = 0; k < 4; k++)
            assert_int_equal(t_try_append(&t, s, lines[k], strlen(lines[k])), -EEXIST);
        t_shows(t.store, &image);
        if (i == 0)
            t_reopen(&t);
        if (i == 1) {
            t_crash(&t);
            t_lose_index(&t);
            t_open(&t);
        }
    }
    t_image_free(&image);
    t_store_free(&t);
}

/* A log past 512 MiB was opened without error and showed nothing. */
static void test_a_log_past_512_mib(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_status status;
    struct hl_session about;
    size_t len = 4 << 20;
    unsigned wanted = t_slow() ? 140 : 150; /* records of 4 MiB */
    char *big = malloc(len);
    assert_non_null(big);
    memset(big, 'x', len);
    t_store_init(&t);
    t.options.segment_size = UINT64_C(1) << 30; /* one segment holds them all */
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    for (unsigned i = 0; i < wanted; i++)
        assert_int_equal(t_try_append(&t, s, big, len), 0);
    t_append(&t, s, "the last\n");
    for (int i = 0; i < 2; i++) {
        if (i == 0) {
            t_reopen(&t);
        } else {
            t_close(&t);
            t_lose_index(&t);
            t_open(&t);
        }
        hl_store_status(t.store, &status);
        assert_int_equal(status.segments, 1);
        assert_true(status.log_bytes > UINT64_C(512) << 20);
        assert_int_equal(status.records, wanted + 1);
        assert_int_equal(hl_session_by_number(t.store, s, &about), 0);
        assert_int_equal(about.records, wanted + 1);
        char tail[64];
        ssize_t n = hl_log_read(t.store, s, about.bytes - 12, tail, sizeof tail, NULL);
        assert_int_equal(n, 12);
        assert_memory_equal(tail, "\"the last\"}\n", 12);
        n = hl_root_log_read(t.store, about.bytes - 12, tail, sizeof tail, NULL);
        assert_int_equal(n, 12);
        assert_memory_equal(tail, "\"the last\"}\n", 12);
    }
    t_append(&t, s, "one more\n");
    free(big);
    t_store_free(&t);
}

/* One bad line made the whole log unreadable. */
static void test_one_bad_line_costs_one_line(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    struct hl_record record;
    char path[T_PATH];
    t_store_init(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    for (int i = 1; i <= 50; i++)
        t_append_format(&t, s, "{\"n\":%d}\n", i);
    /* One that is refused leaves no trace. */
    assert_int_equal(t_try_append(&t, s, "{\"n\":}\n", 7), -EINVAL);
    assert_int_equal(t_try_append(&t, s, "\xff\n", 2), -EINVAL);
    /* One that goes bad on the disk is stepped over, now and later. */
    assert_int_equal(hl_record_find(t.store, s, 25, &record), 0);
    t_segment_path(&t, (uint32_t)record.segment, path);
    t_file_poke(path, record.offset + FRAME_HEADER_SIZE + 20, "\0\0\xff{{", 5);
    for (int i = 0; i < 3; i++) {
        t_image_take(t.store, &image);
        assert_int_equal(image.records - image.damaged, 49);
        t_image_free(&image);
        if (i == 0)
            t_reopen(&t);
        if (i == 1) {
            t_close(&t);
            t_lose_index(&t);
            t_open(&t);
        }
    }
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_appends_after_a_torn_tail_are_replayed),
        cmocka_unit_test(test_a_damaged_length_costs_one_record),
        cmocka_unit_test(test_the_log_is_synced_before_the_index),
        cmocka_unit_test(test_a_lost_index_is_built_again),
        cmocka_unit_test(test_a_seq_is_used_once),
        cmocka_unit_test(test_a_log_past_512_mib),
        cmocka_unit_test(test_one_bad_line_costs_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
