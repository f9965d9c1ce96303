/* test_follow_writer.c - a read-only store in another process follows what the writer does. */
#include "support_writer.h"

#include <inttypes.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* A reader that was there all the time and one that comes now show the same. */
static void expect_fresh(struct t_store *t)
{
    struct t_image image;
    struct hl_store *old = t->store;
    t_image_take(old, &image);
    hl_store_close(old);
    t->store = NULL;
    t_open(t);
    t_shows(t->store, &image);
    t_image_free(&image);
}

static void test_follows_everything(void **state)
{
    (void)state;
    struct t_store t;
    struct t_writer writer;
    uint64_t chance = t_seed("test_follows_everything");
    t_store_init(&t);
    t.options.segment_size = 20 * 1024;
    t_writer_start(&writer, &t, chance);
    t.options.read_only = true;
    t_open(&t);
    uint64_t records = 0;
    char *got = malloc(8 << 20);
    size_t len = 0;
    struct hl_cursor cursor = {0};
    assert_non_null(got);
    static const char orders[] = "aamracaiaaorcamiaraorciaamcaiaao";
    for (size_t i = 0; i < sizeof orders - 1; i++) {
        struct t_image image;
        t_tell(&writer, orders[i]);
        t_image_take(t.store, &image);
        records += orders[i] == 'a' ? 80 : 0;
        assert_int_equal(image.records, records);
        assert_int_equal(t.errors, 0);
        /* A stream of the root log goes on over whatever happens. */
        ssize_t n;
        while ((n = hl_root_log_read(t.store, len, got + len, 5000, &cursor)) > 0)
            len += (size_t)n;
        assert_int_equal(n, 0);
        assert_int_equal(len, image.root_len);
        assert_memory_equal(got, image.root, len);
        t_image_free(&image);
        if (i % 5 == 4) {
            expect_fresh(&t);
            cursor = (struct hl_cursor){0};
        }
    }
    free(got);
    t_writer_end(&writer, false);
    expect_fresh(&t);
    t_close(&t);
    /* The same without a writer, and then for a writer. */
    t_open(&t);
    struct t_image image;
    t_image_take(t.store, &image);
    assert_int_equal(image.records, records);
    t_close(&t);
    t.options.read_only = false;
    t_open(&t);
    t_shows(t.store, &image);
    t_image_free(&image);
    t_store_free(&t);
}

/* The index ends right behind a seal, and the next segment is not there yet: for those who come
 * then or begin again there, and for those whom a compaction had left behind. */
static void test_an_index_that_ends_at_a_seal(void **state)
{
    (void)state;
    static const char *const orders[] = {"as",  "asi",       "asc",     "asio",
                                         "aso", "arararksi", "arararks"};
    uint64_t chance = t_seed("test_an_index_that_ends_at_a_seal");
    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
        for (int before = 0; before < 2; before++) {
            struct t_store t;
            struct t_writer writer;
            struct t_image image;
            uint64_t records = 80;
            t_store_init(&t);
            t_writer_start(&writer, &t, chance + i);
            t.options.read_only = true;
            t_tell(&writer, 'a');
            if (before)
                t_open(&t);
            for (const char *order = orders[i]; *order; order++) {
                t_tell(&writer, *order);
                records += *order == 'a' ? 80 : 0;
            }
            if (!before)
                t_open(&t);
            for (int round = 0; round < 3; round++) {
                t_image_take(t.store, &image);
                if (image.records != records)
                    fail_msg("behind \"%s\", round %d: %" PRIu64 " records of %" PRIu64, orders[i],
                             round, image.records, records);
                t_image_free(&image);
                t_tell(&writer, "asa"[round]);
                records += round == 1 ? 0 : 80;
            }
            assert_int_equal(t.errors, 0);
            t_writer_end(&writer, false);
            t_store_free(&t);
        }
    }
}

/* The same, where the writer has found bytes behind the seal that are no frame. */
static void test_a_seal_with_bytes_behind_it(void **state)
{
    (void)state;
    struct t_store t;
    struct t_writer writer;
    struct t_image image;
    char path[T_PATH], bytes[200];
    t_store_init(&t);
    t_store_watch(&t);
    t_open(&t);
    t_append(&t, t_session(&t, "s"), "one\n");
    t_io_fail(&t.io, 1U << T_OPEN, "00000002", 1, 100, -ENOSPC);
    assert_int_equal(hl_rotate(t.store, &t.err), -ENOSPC);
    t_crash(&t);
    t_io_heal(&t.io);
    t_segment_path(&t, 0, path);
    memset(bytes, 'x', sizeof bytes);
    t_file_append(path, bytes, sizeof bytes);
    t_writer_start(&writer, &t, t_seed("test_a_seal_with_bytes_behind_it"));
    t_tell(&writer, 'c');
    t.options.read_only = true;
    t_open(&t);
    t_tell(&writer, 'a');
    t_image_take(t.store, &image);
    assert_int_equal(image.records, 81);
    t_image_free(&image);
    t_writer_end(&writer, false);
    t_store_free(&t);
}

/* The writer dies; its store has a torn tail and an index that is in doubt. Readers read, and
 * change nothing; then another writer comes, and they follow that one. */
static void test_a_writer_that_dies(void **state)
{
    (void)state;
    struct t_store t;
    struct t_writer writer;
    struct t_image image;
    char path[T_PATH];
    uint64_t chance = t_seed("test_a_writer_that_dies");
    t_store_init(&t);
    t.options.segment_size = 20 * 1024;
    t_writer_start(&writer, &t, chance);
    for (const char *order = "aacara"; *order; order++)
        t_tell(&writer, *order);
    t.options.read_only = true;
    t_open(&t);
    t_writer_end(&writer, true);
    t_segment_path(&t, 0, path);
    t_file_append(path, "torn", 4);
    uint64_t size = t_file_size(path);
    t_image_take(t.store, &image);
    assert_int_equal(image.records, 4 * 80);
    expect_fresh(&t);
    t_shows(t.store, &image);
    assert_int_equal(t_file_size(path), size);
    t_writer_start(&writer, &t, chance + 1);
    t_shows(t.store, &image);
    t_tell(&writer, 'a');
    t_image_free(&image);
    t_image_take(t.store, &image);
    assert_int_equal(image.records, 5 * 80);
    t_writer_end(&writer, false);
    t_shows(t.store, &image);
    t_image_free(&image);
    t_store_free(&t);
}

/* Without an index, or with one that is damaged, a reader replays the log in memory. */
static void test_reading_without_an_index(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    char path[T_PATH];
    uint64_t chance = t_seed("test_reading_without_an_index");
    t_store_init(&t);
    t.options.segment_size = 20 * 1024;
    t_open(&t);
    for (int i = 0; i < 5; i++)
        t_write_some(&t, &chance);
    t_image_take(t.store, &image);
    t_close(&t);
    t.options.read_only = true;
    t_path(path, t.dir, "index/data.mdb");
    uint64_t size = t_file_size(path);
    for (int i = 0; i < 20; i++)
        t_file_flip(path, t_below(&chance, size), 0x10);
    t_open(&t);
    t_shows(t.store, &image);
    t_close(&t);
    t_path(path, t.dir, "index");
    t_dir_remove(path);
    t_open(&t);
    t_shows(t.store, &image);
    t_close(&t);
    assert_false(t_exists(path));
    t_image_free(&image);
    t_store_free(&t);
}

/* However much comes, a reader keeps no more in memory than a writer's index has not: also when the
 * index that it opened was built anew, or was not there yet. */
static void test_a_follower_stays_small(void **state)
{
    (void)state;
    for (int which = 0; which < 2; which++) {
        struct t_store t;
        struct t_writer writer;
        struct hl_status status;
        char path[T_PATH];
        t_store_init(&t);
        t.options.segment_size = 64 << 20;
        t_open(&t);
        t_append(&t, 0, "{\"session_id\":\"a\"}\n");
        t_close(&t);
        if (which == 1) {
            t_path(path, t.dir, "index");
            t_dir_remove(path);
        }
        t.options.read_only = true;
        t_open(&t);
        t_writer_start(&writer, &t, 1);
        uint64_t wanted = 1, indexed = 0;
        for (const char *order = which ? "bcbcbcbcbcb" : "bcbcbcibcbcbcbcbcb"; *order; order++) {
            t_tell(&writer, *order);
            hl_store_status(t.store, &status);
            wanted += *order == 'b' ? 50 : 0;
            assert_int_equal(status.records, wanted);
            if (status.memtable_records > 200)
                fail_msg("%" PRIu64 " records in memory", status.memtable_records);
            assert_true(status.indexed >= indexed);
            indexed = status.indexed;
        }
        /* What it shows is all there, and it does not begin again at each look. */
        struct hl_record record;
        uint32_t a = t_number(&t, "a");
        for (uint64_t seq = 1; seq <= wanted; seq++)
            assert_int_equal(hl_record_find(t.store, a, seq, &record), 0);
        assert_int_equal(t.errors, 0);
        hl_store_close(t.store);
        t.store = NULL;
        t_writer_end(&writer, false);
        t_store_free(&t);
    }
}

static void test_a_second_writer_is_refused(void **state)
{
    (void)state;
    struct t_store t;
    struct t_writer writer;
    struct hl_holder holder;
    t_store_init(&t);
    t_writer_start(&writer, &t, 1);
    struct hl_store *store;
    assert_int_equal(hl_store_open(t.dir, &t.options, &store, &holder, &t.err), -EBUSY);
    assert_int_equal(holder.pid, writer.pid);
    char pid[32];
    snprintf(pid, sizeof pid, "%d", (int)writer.pid);
    assert_true(t_has(t.err.text, strlen(t.err.text), pid));
    t_writer_end(&writer, true);
    t_open(&t);
    assert_int_equal(hl_store_note(t.store, "closing"), 0);
    pid_t child = fork();
    if (child == 0) {
        int error = hl_store_open(t.dir, &t.options, &store, &holder, NULL);
        _exit(error == -EBUSY && holder.pid == getppid() && strcmp(holder.note, "closing") == 0
                  ? 0
                  : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(hl_store_note(t.store, "two\nlines"), -EINVAL);
    t_store_free(&t);
}

/* Whoever removes the lock file lets nobody in, and readers still know that there is a writer. */
static void test_a_lock_file_that_is_removed(void **state)
{
    (void)state;
    struct t_store t;
    struct t_writer writer;
    struct t_image image;
    struct hl_store *store;
    char path[T_PATH], other[T_PATH];
    t_store_init(&t);
    t_path(path, t.dir, "lock");
    t_path(other, t.dir, "lock.old");
    for (int which = 0; which < 3; which++) {
        t_writer_start(&writer, &t, 1);
        t_tell(&writer, 'a');
        if (which == 0)
            assert_int_equal(unlink(path), 0);
        else if (which == 1) /* a copy of what it was */
            assert_true(rename(path, other) == 0 && link(other, path) == 0 && unlink(path) == 0 &&
                        rename(other, path) == 0);
        else
            assert_true(rename(path, other) == 0);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(hl_store_open(t.dir, &t.options, &store, NULL, &t.err), -EBUSY);
            assert_true(t.err.text[0]);
        }
        t.options.read_only = true;
        t_open(&t);
        t_tell(&writer, 'a');
        t_image_take(t.store, &image);
        assert_int_equal(image.records, (uint64_t)160 * (unsigned)(which + 1));
        t_image_free(&image);
        t_close(&t);
        t.options.read_only = false;
        t_writer_end(&writer, which == 1);
        t_open(&t);
        t_close(&t);
        assert_true(t_exists(path));
    }
    t_store_free(&t);
}

/* Readers that come and go do not keep a writer out. */
static void test_readers_never_hold_the_lock(void **state)
{
    (void)state;
    struct t_store t;
    t_store_init(&t);
    t_open(&t);
    t_append(&t, t_session(&t, "s"), "x\n");
    t_close(&t);
    int ends[2];
    char byte;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        struct hl_options options = t.options;
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
            _exit(1);
        options.read_only = true;
        options.report = NULL;
        for (;;) {
            struct hl_store *store;
            if (hl_store_open(t.dir, &options, &store, NULL, NULL) == 0)
                hl_store_close(store);
            if (ends[1] >= 0 && write(ends[1], "x", 1) == 1)
                ends[1] = -1;
        }
    }
    assert_int_equal(read(ends[0], &byte, 1), 1);
    close(ends[0]);
    close(ends[1]);
    for (int i = 0; i < (t_slow() ? 50 : 400); i++) {
        t_open(&t);
        t_close(&t);
    }
    kill(child, SIGKILL);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    t_store_free(&t);
}

/* What opens the next segment of a writer that is faster: another one is full by then. */
static struct {
    struct t_writer *writer;
    unsigned made, most;
} faster;

static int open_of_a_slow_reader(void *context, int dirfd, const char *name, int flags, mode_t mode)
{
    int fd = hl_io_system.open(NULL, dirfd, name, flags, mode);
    (void)context;
    if (fd >= 0 && faster.writer && strstr(name, ".seg") && faster.made < faster.most) {
        faster.made++;
        t_tell(faster.writer, 'n');
        t_tell(faster.writer, 'r');
    }
    return fd;
}

/* Who asks is answered though the writer is faster: with all that was there when they asked. */
static void test_a_writer_that_is_faster(void **state)
{
    (void)state;
    struct t_store t;
    struct t_writer writer;
    struct t_image image;
    struct hl_session about;
    struct hl_io io = hl_io_system;
    io.open = open_of_a_slow_reader;
    uint64_t chance = t_seed("test_a_writer_that_is_faster");
    t_store_init(&t);
    t_writer_start(&writer, &t, chance);
    t_tell(&writer, 'n');
    t.options.read_only = true;
    t.options.io = &io;
    t_open(&t);
    for (int i = 0; i < 3; i++) {
        t_tell(&writer, 'r');
        t_tell(&writer, 'n');
    }
    faster.writer = &writer;
    faster.made = 0;
    faster.most = 100;
    assert_int_equal(hl_session_by_id(t.store, "n", 1, &about), 0);
    assert_in_range(faster.made, 1, 10);
    assert_true(about.last_seq >= 4);
    faster.most = faster.made; /* it rests: all is read by and by */
    t_image_take(t.store, &image);
    assert_int_equal(image.records, 4 + faster.made);
    assert_int_equal(t.errors, 0);
    t_image_free(&image);
    faster.writer = NULL;
    t_writer_end(&writer, false);
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_follows_everything),
        cmocka_unit_test(test_an_index_that_ends_at_a_seal),
        cmocka_unit_test(test_a_seal_with_bytes_behind_it),
        cmocka_unit_test(test_a_writer_that_dies),
        cmocka_unit_test(test_reading_without_an_index),
        cmocka_unit_test(test_a_follower_stays_small),
        cmocka_unit_test(test_a_writer_that_is_faster),
        cmocka_unit_test(test_a_second_writer_is_refused),
        cmocka_unit_test(test_a_lock_file_that_is_removed),
        cmocka_unit_test(test_readers_never_hold_the_lock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
