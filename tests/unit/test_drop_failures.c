/*
 * test_drop_failures.c - drops when calls fail under them, when the process ends in the middle of
 * one, and while others read.
 */
#include "support.h"

#include <inttypes.h>
#include <stdatomic.h>

/* ---- calls that fail ---- */

struct counts {
    uint64_t records;
    bool there;
};

static struct counts count(struct t_store *t, const char *id)
{
    struct hl_session about;
    int error = hl_session_by_id(t->store, id, strlen(id), &about);
    assert_true(error == 0 || error == -ENOENT);
    return (struct counts){.records = error == 0 ? about.records : 0, .there = error == 0};
}

static void expect_good(struct t_store *t)
{
    struct t_image image;
    t_image_take(t->store, &image);
    t_image_free(&image);
    t_verify(t);
}

/*
 * Drops with the nth call failing, until one sees no failure. What is refused either left no trace,
 * or is carried out later; what is taken is done, now and at the next opening.
 */
static void fail_each_call(unsigned calls, const char *only, int error, uint64_t times)
{
    struct t_store t;
    t_store_init(&t);
    t.options.segment_size = 16 * 1024;
    t_store_watch(&t);
    t_open(&t);
    bool failed = true;
    unsigned refused = 0;
    uint64_t chance = 1;
    for (uint64_t nth = 1; failed; nth++) {
        uint32_t kept = t_session(&t, "trimmed"), gone = t_session(&t, "deleted");
        t_fill(&t, kept, 60, 7, 300, &chance);
        t_fill(&t, gone, 60, 7, 300, &chance);
        if (nth % 2)
            assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
        t_fill(&t, kept, 40, 7, 300, &chance);
        t_fill(&t, gone, 40, 7, 300, &chance);
        failed = false;
        struct hl_status status = {0};
        for (int what = 0; what < 2 && !status.failed; what++) {
            struct hl_dropped dropped;
            const char *id = what ? "deleted" : "trimmed";
            uint64_t after = what ? 0 : 20;
            t_io_fail(&t.io, calls, only, nth, times, error);
            int result = what ? hl_delete(t.store, gone, &dropped, &t.err)
                              : hl_trim(t.store, kept, 81, &dropped, &t.err);
            failed = failed || t_io_failed(&t.io) > 0;
            t_io_heal(&t.io);
            struct counts now = count(&t, id);
            if (result == 0) {
                assert_true(now.records == after && now.there == !what);
                assert_int_equal(dropped.records, what ? 100 : 80);
            } else {
                refused++;
                assert_true(t.err.code == -result && t.err.text[0]);
                assert_true(now.records == 100 || now.records == after ||
                            (!what && now.records > after)); /* what the table had is gone */
            }
            expect_good(&t);
            hl_store_status(t.store, &status);
            if (status.failed)
                break;
            /* With room again, the same is asked for once more, and is done. */
            result = what ? hl_delete(t.store, gone, NULL, &t.err)
                          : hl_trim(t.store, kept, 81, NULL, &t.err);
            assert_true(result == 0 || (what && result == -ENOENT));
            assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
            now = count(&t, id);
            assert_true(now.records == after && now.there == !what);
            expect_good(&t);
        }
        if (status.failed || nth % 3 == 0) {
            t_crash(&t);
            t_open(&t);
            expect_good(&t);
            uint64_t left = count(&t, "trimmed").records;
            assert_true(left == 20 || (left == 100 && status.failed));
        }
        assert_int_equal(hl_delete(t.store, kept, NULL, &t.err), 0);
        if (count(&t, "deleted").there)
            assert_int_equal(hl_delete(t.store, gone, NULL, &t.err), 0);
    }
    if (error)
        assert_true(refused > 0);
    t_store_free(&t);
}

static void test_no_room_at_any_write(void **state)
{
    (void)state;
    fail_each_call(1U << T_PWRITE, ".seg", -ENOSPC, 1);
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

static void test_a_device_that_fails_at_any_sync(void **state)
{
    (void)state;
    fail_each_call(1U << T_FDATASYNC | 1U << T_FSYNC, NULL, -EIO, 1);
}

/* ---- a process that ends in the middle ---- */

#define PAIRS 5000U

struct middle {
    struct t_store *t;
    char copy[T_PATH]; /* of the directory when the first part of the drop was done */
    unsigned parts;
    uint64_t records, bytes;
};

static void copy_in_the_middle(void *context, const struct hl_news *news)
{
    struct middle *middle = context;
    if (news->dropped_records == 0)
        return;
    middle->records += news->dropped_records;
    middle->bytes += news->dropped_bytes;
    if (middle->parts++ == 1)
        t_dir_copy(middle->t->dir, middle->copy);
}

/* An event and an operation in each block of the index: it takes more than one transaction. */
static void fill_blocks(struct t_store *t, uint32_t session)
{
    char *text = malloc(PAIRS * 200);
    size_t len = 0;
    assert_non_null(text);
    for (uint64_t i = 0; i < PAIRS; i++)
        len += (size_t)sprintf(text + len,
                               "{\"seq\":%" PRIu64 ",\"payload\":%u}\n{\"op\":\"set\",\"key\":"
                               "\"key-%u\",\"value\":%u}\n",
                               1 + (i << 33), (unsigned)i, (unsigned)i % 50, (unsigned)i);
    assert_int_equal(t_try_append(t, session, text, len), 0);
    free(text);
}

static void test_ends_between_parts(void **state)
{
    (void)state;
    struct t_store t, other;
    struct middle middle = {.t = &t};
    struct hl_dropped dropped;
    struct hl_session about;
    t_store_init(&t);
    t_store_init(&other);
    t_dir_remove(other.dir);
    snprintf(middle.copy, sizeof middle.copy, "%s", other.dir);
    t.options.news = copy_in_the_middle;
    t.options.news_context = &middle;
    t_open(&t);
    uint32_t session = t_session(&t, "s");
    fill_blocks(&t, session);
    assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
    t_append(&t, session, "in the table\n");
    assert_int_equal(hl_trim(t.store, session, UINT64_MAX, &dropped, &t.err), 0);
    assert_int_equal(dropped.records, PAIRS + 1);
    /* What the table had, if it still had it, and three of the index. */
    assert_true(middle.parts >= 3);
    assert_int_equal(middle.records, PAIRS + 1);
    assert_int_equal(middle.bytes, dropped.bytes);
    struct t_image image;
    t_image_take(t.store, &image);
    expect_good(&t);
    t_open(&other);
    t_shows(other.store, &image);
    assert_int_equal(other.errors + other.warnings, 0);
    expect_good(&other);
    assert_int_equal(hl_session_by_id(other.store, "s", 1, &about), 0);
    assert_int_equal(about.records, PAIRS);
    assert_int_equal(about.first_seq, 2);
    t_image_free(&image);
    t_store_free(&other);
    t_store_free(&t);
}

/* Ends with the log not synced: what the disk may have lost of it, the index must not know of. */
static void test_the_log_is_synced_first(void **state)
{
    (void)state;
    struct t_store t;
    t_store_init(&t);
    t_store_watch(&t);
    t_open(&t);
    uint32_t session = t_session(&t, "s");
    t_append(&t, session, "one\n");
    assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
    t_append(&t, session, "two\n");
    t_io_fail(&t.io, 1U << T_FDATASYNC, ".seg", 1, 1, -EIO);
    assert_int_equal(hl_trim(t.store, session, 3, NULL, &t.err), -EIO);
    t_io_heal(&t.io);
    /* The sync failed, so the index still has what it had. */
    struct hl_session about;
    assert_int_equal(hl_session_by_number(t.store, session, &about), 0);
    assert_int_equal(about.records, 1);
    assert_int_equal(hl_trim(t.store, session, 3, NULL, &t.err), -EIO);
    /* The disk never got the frame. */
    char seg[T_PATH];
    struct hl_status status;
    assert_int_equal(hl_store_status(t.store, &status), 0);
    t_crash(&t);
    t_segment_path(&t, 0, seg);
    t_file_cut(seg, status.indexed & UINT32_MAX); /* the offset in it */
    t_open(&t);
    assert_int_equal(hl_session_by_number(t.store, session, &about), 0);
    assert_int_equal(about.records, 1);
    expect_good(&t);
    t_store_free(&t);
}

/* ---- no index, or one that cannot be changed ---- */

static void lose(struct t_store *t, const char *name)
{
    char path[T_PATH];
    t_path(path, t->dir, "%s", name);
    t_dir_remove(path);
}

/* With no room for an index all is in memory: drops too. */
static void test_no_room_for_an_index(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_dropped dropped;
    struct t_image image;
    uint64_t chance = 3;
    t_store_init(&t);
    t.options.segment_size = 16 * 1024;
    t_open(&t);
    uint32_t kept = t_session(&t, "trimmed"), gone = t_session(&t, "deleted");
    t_fill(&t, kept, 100, 7, 300, &chance);
    t_fill(&t, gone, 100, 7, 300, &chance);
    t_close(&t);
    lose(&t, "index");
    lose(&t, "checkpoints");
    t_store_watch(&t);
    t_io_fail(&t.io, 1U << T_RENAME, "index", 1, 1000000, -ENOSPC);
    t_open(&t);
    assert_int_equal(hl_trim(t.store, kept, 81, &dropped, &t.err), 0);
    assert_int_equal(dropped.records, 80);
    assert_int_equal(hl_delete(t.store, gone, &dropped, &t.err), 0);
    assert_int_equal(dropped.records, 100);
    uint32_t again = t_session(&t, "deleted");
    assert_true(again > gone);
    t_fill(&t, again, 5, 1, 10, &chance);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(count(&t, "trimmed").records, 20);
        assert_int_equal(count(&t, "deleted").records, 5);
        t_image_take(t.store, &image);
        if (i == 0) {
            t_crash(&t);
            t_open(&t);
        } else if (i == 1) {
            t_io_heal(&t.io);
            assert_int_equal(hl_reindex(t.store, NULL, &t.err), 0);
            expect_good(&t);
        }
        t_shows(t.store, &image);
        t_image_free(&image);
    }
    t_reopen(&t);
    assert_int_equal(count(&t, "trimmed").records, 20);
    expect_good(&t);
    t_store_free(&t);
}

/* An index that has what was dropped, and what replaces it cannot be written: it is not used. */
static void test_an_index_that_cannot_be_changed(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    char index[T_PATH], old[T_PATH];
    uint64_t chance = 4;
    t_store_init(&t);
    t_open(&t);
    uint32_t kept = t_session(&t, "trimmed");
    t_fill(&t, kept, 100, 7, 300, &chance);
    assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
    t_path(index, t.dir, "index");
    t_path(old, t.dir, "index-before");
    t_dir_copy(index, old);
    assert_int_equal(hl_trim(t.store, kept, 81, NULL, &t.err), 0);
    t_append(&t, kept, "more\n");
    t_image_take(t.store, &image);
    t_crash(&t);
    lose(&t, "index");
    t_path(index, t.dir, "index");
    t_path(old, t.dir, "index-before");
    assert_int_equal(rename(old, index), 0);
    t_store_watch(&t);
    t_io_fail(&t.io, 1U << T_PWRITE, ".seg", 1, 1000000, -ENOSPC);
    t_open(&t);
    t_shows(t.store, &image);
    t_io_heal(&t.io);
    t_append(&t, kept, "and more\n");
    assert_int_equal(hl_reindex(t.store, NULL, &t.err), 0);
    assert_int_equal(count(&t, "trimmed").records, 22);
    expect_good(&t);
    t_reopen(&t);
    assert_int_equal(count(&t, "trimmed").records, 22);
    expect_good(&t);
    t_image_free(&image);
    t_store_free(&t);
}

/* A drop frame that is damaged says nothing: what it hid is back when the index is built anew, and
 * whoever checks is told. */
static void test_a_damaged_drop(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_verify_report report;
    char seg[T_PATH];
    size_t len;
    t_store_init(&t);
    t_open(&t);
    uint32_t session = t_session(&t, "s");
    for (int i = 0; i < 10; i++)
        t_append(&t, session, "line\n");
    assert_int_equal(hl_trim(t.store, session, 6, NULL, &t.err), 0);
    t_append(&t, session, "line\n");
    assert_int_equal(hl_rotate(t.store, &t.err), 0);
    t_segment_path(&t, 1, seg);
    t_close(&t);
    char *bytes = t_file_read(seg, &len), *body = NULL;
    for (size_t i = 0; i + 14 < len && !body; i++) {
        if (memcmp(bytes + i, "{\"drop\":\"trim\"", 14) == 0)
            body = bytes + i;
    }
    assert_non_null(body);
    t_file_flip(seg, (uint64_t)(body - bytes) + 3, 1);
    free(bytes);
    t_open(&t);
    assert_int_equal(count(&t, "s").records, 6);
    assert_int_equal(hl_verify(t.store, &report, NULL, &t.err), 0);
    assert_int_equal(report.damaged_gaps, 1);
    assert_int_equal(report.index_missing, 5);
    t_close(&t);
    lose(&t, "index");
    lose(&t, "checkpoints");
    t_open(&t);
    assert_int_equal(count(&t, "s").records, 11);
    assert_true(t.errors > 0);
    t_store_free(&t);
}

/* ---- others that read ---- */

struct reading {
    struct t_store *t;
    uint32_t session;
    _Atomic bool stop;
    pthread_t thread;
    _Atomic uint64_t lines;
};

/* Reads the session's log on and on: every line is whole, and none comes twice or too early. */
static void *read_on(void *context)
{
    struct reading *reading = context;
    struct hl_cursor cursor = {0};
    uint64_t at = 0, last = 0;
    static __thread char text[1 << 16];
    size_t used = 0;
    while (!atomic_load(&reading->stop)) {
        ssize_t n =
            hl_log_read(reading->t->store, reading->session, at, text + used, 3000, &cursor);
        assert_true(n >= 0);
        at += (uint64_t)n;
        used += (size_t)n;
        char *line = text, *end;
        while ((end = memchr(line, '\n', used - (size_t)(line - text)))) {
            *end = 0;
            const char *seq = strstr(line, "\"seq\":");
            if (seq && end > line && end[-1] == '}') {
                uint64_t now = strtoull(seq + 6, NULL, 10);
                assert_true(now > last);
                last = now;
                reading->lines++;
            }
            line = end + 1;
        }
        used -= (size_t)(line - text);
        memmove(text, line, used);
    }
    return NULL;
}

/* Asks for ranges: what an extent and a read of one moment say, a line's own seq confirms. */
static void *read_ranges(void *context)
{
    struct reading *reading = context;
    while (!atomic_load(&reading->stop)) {
        struct hl_session about;
        struct hl_record record;
        char line[600];
        if (hl_session_by_number(reading->t->store, reading->session, &about) < 0)
            break;
        uint64_t seq = about.last_seq - about.last_seq % 7;
        ssize_t n = hl_record_read(reading->t->store, reading->session, seq, line, sizeof line, 0);
        assert_true(n > 0 || n == -ENOENT);
        if (n > 0) {
            char mark[40];
            snprintf(mark, sizeof mark, "\"seq\":%" PRIu64 ",", seq);
            assert_true(t_has(line, (size_t)n, mark));
        }
        int error = hl_record_find(reading->t->store, reading->session, about.first_seq, &record);
        assert_true(error == 0 || error == -ENOENT);
        reading->lines++;
    }
    return NULL;
}

#define READERS 3

static bool all_read(struct reading readings[READERS])
{
    for (int i = 0; i < READERS; i++)
        if (atomic_load(&readings[i].lines) == 0)
            return false;
    return true;
}

static void test_readers(void **state)
{
    (void)state;
    struct t_store t;
    uint64_t chance = t_seed("test_readers");
    t_store_init(&t);
    t.options.segment_size = 64 * 1024;
    t_open(&t);
    uint32_t session = t_session(&t, "s");
    t_fill(&t, session, 300, 10, 100, &chance);
    struct reading readings[READERS] = {{.t = &t, .session = session},
                                        {.t = &t, .session = session},
                                        {.t = &t, .session = session}};
    for (int i = 0; i < READERS; i++)
        assert_int_equal(
            pthread_create(&readings[i].thread, NULL, i < 2 ? read_on : read_ranges, &readings[i]),
            0);
    unsigned rounds = t_amount("ROUNDS", t_slow() ? 20 : 80);
    /* Until each reader had its turn, however busy the machine is. */
    for (unsigned i = 0; i < rounds || !all_read(readings); i++) {
        struct hl_session about;
        t_fill(&t, session, 100, 10, 100, &chance);
        if (i % 3 == 0)
            t_append(&t, session, "{\"op\":\"set\",\"key\":\"k\",\"value\":1}\n");
        if (i % 4 == 0)
            assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
        assert_int_equal(hl_session_by_number(t.store, session, &about), 0);
        uint64_t seq = about.first_seq + t_below(&chance, about.last_seq - about.first_seq + 2);
        assert_int_equal(hl_trim(t.store, session, seq, NULL, &t.err), 0);
    }
    for (int i = 0; i < READERS; i++) {
        atomic_store(&readings[i].stop, true);
        pthread_join(readings[i].thread, NULL);
    }
    assert_int_equal(t.errors + t.warnings, 0);
    expect_good(&t);
    t_store_free(&t);
}

/* Appends go on while a large drop leaves the index, and none of them is lost by it. */
struct appending {
    struct t_store *t;
    uint32_t session;
    uint64_t appended;
    _Atomic bool stop;
};

static void *append_on(void *context)
{
    struct appending *appending = context;
    while (!atomic_load(&appending->stop)) {
        static const char text[] = "{\"payload\":\"on\"}\n";
        struct hl_append request = {
            .session = appending->session, .data = text, .len = sizeof text - 1};
        assert_int_equal(hl_append(appending->t->store, &request, NULL), 0);
        appending->appended++;
    }
    return NULL;
}

static void test_appends_go_on(void **state)
{
    (void)state;
    struct t_store t;
    struct appending appending = {.t = &t};
    struct hl_dropped dropped;
    struct hl_session about;
    pthread_t thread;
    uint64_t events = 0;
    t_store_init(&t);
    t_open(&t);
    appending.session = t_session(&t, "s");
    fill_blocks(&t, appending.session);
    assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
    assert_int_equal(pthread_create(&thread, NULL, append_on, &appending), 0);
    for (unsigned i = 0; i < 12; i++) {
        assert_int_equal(hl_trim(t.store, appending.session, UINT64_MAX, &dropped, &t.err), 0);
        events += dropped.records;
    }
    atomic_store(&appending.stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(hl_session_by_number(t.store, appending.session, &about), 0);
    assert_int_equal(events + about.records, 2 * PAIRS + appending.appended);
    expect_good(&t);
    t_crash(&t);
    t_open(&t);
    struct hl_session again;
    assert_int_equal(hl_session_by_number(t.store, appending.session, &again), 0);
    assert_int_equal(again.records, about.records);
    assert_int_equal(again.bytes, about.bytes);
    expect_good(&t);
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_room_at_any_write),
        cmocka_unit_test(test_a_device_that_fails_at_any_write),
        cmocka_unit_test(test_short_writes),
        cmocka_unit_test(test_a_device_that_fails_at_any_sync),
        cmocka_unit_test(test_ends_between_parts),
        cmocka_unit_test(test_the_log_is_synced_first),
        cmocka_unit_test(test_no_room_for_an_index),
        cmocka_unit_test(test_an_index_that_cannot_be_changed),
        cmocka_unit_test(test_a_damaged_drop),
        cmocka_unit_test(test_readers),
        cmocka_unit_test(test_appends_go_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
