/* test_full_disk.c - opening where there is no room: what is there can be read, appends are refused
 * until there is room, and then all heals without another opening. */
#include "support.h"

#include <inttypes.h>
#include <time.h>
#include <unistd.h>

#include "../../store/format.h"

#define WAIT_SECONDS 600

/* A store that a crash left, with sealed segments and an index that knows a part. */
static void make(struct t_store *t, uint64_t chance)
{
    t_store_init(t);
    t->options.segment_size = 12 * 1024;
    t_open(t);
    uint32_t a = t_session(t, "a"), b = t_session(t, "b");
    for (int i = 0; i < 6; i++) {
        t_fill(t, a, 20, 4, 200, &chance);
        t_fill(t, b, 12, 3, 200, &chance);
        if (i == 4) /* what comes now only the log has */
            t_reopen(t);
    }
    assert_int_equal(hl_rotate(t->store, &t->err), 0);
    t_append(t, 0, "{\"session_id\":\"late\"}\n{\"session_id\":\"a\"}\n");
}

/* What a crash may leave at the end. */
enum tail { TAIL_GOOD, TAIL_GARBAGE, TAIL_HALF_A_BATCH, TAIL_REGION, TAIL_ZEROS, TAILS };

/* Leaves the store crashed with such a tail; image is what it is to show. */
static void make_torn(struct t_store *t, struct t_image *image, enum tail tail, uint64_t chance)
{
    static const char zeros[5000];
    char path[T_PATH];
    make(t, chance);
    uint32_t a = t_number(t, "a");
    t_segment_path(t, 0, path);
    uint64_t before = t_file_size(path);
    if (tail == TAIL_REGION) { /* a batch that is no more, and a whole one behind it */
        t_append(t, a, "gone one\ngone two\n");
        t_append(t, t_number(t, "b"), "kept\n");
        t_crash(t);
        t_segment_path(t, 0, path);
        t_file_flip(path, before + FRAME_HEADER_SIZE + 20, 1);
        t_open(t); /* as it should be, to be compared with */
        t_image_take(t->store, image);
        t_crash(t);
        /* What that opening mended is torn again, elsewhere. */
        t_file_append((t_segment_path(t, 0, path), path), "and a torn tail", 15);
        return;
    }
    t_image_take(t->store, image);
    if (tail == TAIL_HALF_A_BATCH)
        t_append(t, a, "half one\nhalf two\nhalf three\n");
    t_crash(t);
    t_segment_path(t, 0, path);
    if (tail == TAIL_HALF_A_BATCH)
        t_file_cut(path, t_file_size(path) - 30);
    else if (tail == TAIL_GARBAGE)
        t_file_append(path, "garbage, behind the last batch", 30);
    else if (tail == TAIL_ZEROS)
        t_file_append(path, zeros, sizeof zeros);
}

static void expect_refused(struct t_store *t)
{
    struct hl_session session;
    assert_int_equal(t_try_append(t, t_number(t, "a"), "no\n", 3), -ENOSPC);
    assert_true(strlen(t->err.text) > 20);
    assert_int_equal(hl_session_create(t->store, "new", 3, 0, 0, 0700, &session, &t->err), -ENOSPC);
    assert_int_equal(
        hl_session_change(t->store, t_number(t, "b"), HL_CHANGE_MODE, 0, 0, 0600, NULL), -ENOSPC);
    assert_int_equal(hl_rotate(t->store, &t->err), -ENOSPC);
}

static void wait_for_index(struct t_store *t)
{
    time_t end = time(NULL) + WAIT_SECONDS;
    for (;;) {
        struct hl_status status;
        hl_store_status(t->store, &status);
        if (status.indexed > 0)
            break;
        if (time(NULL) > end)
            fail_msg("no index after %d s", WAIT_SECONDS);
        usleep(10000);
    }
}

/* There is room again: it heals in place, and what is appended then stays. */
static void expect_heals(struct t_store *t)
{
    struct t_image now;
    t_io_heal(&t->io);
    t_io_fill(&t->io, false);
    t_append(t, 0, "{\"session_id\":\"a\",\"payload\":\"healed\"}\n{\"session_id\":\"healed\"}\n");
    assert_int_equal(hl_sync(t->store), 0);
    assert_int_equal(hl_rotate(t->store, &t->err), 0);
    t_append(t, 0, "{\"session_id\":\"b\"}\n");
    t_image_take(t->store, &now);
    wait_for_index(t); /* and for the end of all that goes on behind us */
    t_crash(t);
    t_open(t);
    t_shows(t->store, &now);
    t_reopen(t);
    t_shows(t->store, &now);
    t_image_free(&now);
}

static bool in_quarantine(const struct t_store *t, const char *text)
{
    char path[T_PATH], **names;
    bool found = false;
    t_path(path, t->dir, "quarantine");
    size_t count = t_exists(path) ? t_names(path, ".bytes", &names) : 0;
    for (size_t i = 0; i < count; i++) {
        char file[T_PATH];
        size_t len;
        t_path(file, path, "%s", names[i]);
        char *bytes = t_file_read(file, &len);
        found = found || t_has(bytes, len, text);
        free(bytes);
    }
    if (count)
        t_names_free(names, count);
    return found;
}

static void test_a_torn_tail_and_no_room(void **state)
{
    (void)state;
    for (enum tail tail = TAIL_GOOD; tail < TAILS; tail++) {
        struct t_store t;
        struct t_image image;
        char path[T_PATH];
        make_torn(&t, &image, tail, 1 + tail);
        t_store_watch(&t);
        t_io_fill(&t.io, true);
        size_t len;
        t_segment_path(&t, 0, path);
        char *bytes = t_file_read(path, &len);
        bool torn = tail == TAIL_GARBAGE || tail == TAIL_HALF_A_BATCH || tail == TAIL_REGION;
        for (int round = 0; round < 3; round++) {
            t_open(&t);
            t_shows(t.store, &image);
            assert_int_equal(hl_sync(t.store), 0);
            expect_refused(&t);
            t_shows(t.store, &image);
            if (torn) { /* not a byte of it is changed */
                size_t now_len;
                t_segment_path(&t, 0, path);
                char *now = t_file_read(path, &now_len);
                assert_int_equal(now_len, len);
                assert_memory_equal(now, bytes, len);
                free(now);
            }
            assert_int_equal(t.errors, torn ? 1 : 0); /* told once */
            if (round == 0)
                t_crash(&t);
            else if (round == 1) { /* a clean end makes a checkpoint, for which there is no room */
                assert_int_equal(hl_store_close(t.store), -ENOSPC);
                t.store = NULL;
            }
        }
        expect_heals(&t);
        t_check_log(&t);
        if (tail == TAIL_GARBAGE)
            assert_true(in_quarantine(&t, "garbage, behind the last batch"));
        if (tail == TAIL_HALF_A_BATCH)
            assert_true(in_quarantine(&t, "half two"));
        if (tail == TAIL_REGION)
            assert_true(in_quarantine(&t, "and a torn tail"));
        free(bytes);
        t_image_free(&image);
        t_store_free(&t);
    }
}

/* Regions in the middle, met on a full disk for the first time. */
static void test_a_region_without_a_whole_batch_and_no_room(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image, again;
    struct hl_verify_report report;
    char path[T_PATH];
    make(&t, 3);
    t_segment_path(&t, 0, path);
    uint64_t one = t_file_size(path);
    t_append(&t, 0, "{\"session_id\":\"a\",\"payload\":\"gone one\"}\n{\"session_id\":\"b\"}\n");
    t_append(&t, 0, "{\"session_id\":\"b\",\"payload\":\"kept\"}\n");
    uint64_t two = t_file_size(path);
    t_append(&t, 0, "{\"session_id\":\"a\",\"payload\":\"gone two\"}\n{\"session_id\":\"b\"}\n");
    t_append(&t, 0, "{\"session_id\":\"a\",\"payload\":\"kept\"}\n");
    t_crash(&t);
    t_segment_path(&t, 0, path);
    t_file_flip(path, one + 4, 1);
    t_file_flip(path, two + 4, 1);
    t_store_watch(&t);
    t_io_fill(&t.io, true);
    t_open(&t);
    t_image_take(t.store, &image);
    expect_refused(&t);
    t_crash(&t);
    t_open(&t);
    t_shows(t.store, &image);
    /* Room for the first only: it is not set aside twice. */
    t_io_fill(&t.io, false);
    t_io_fail(&t.io, 1U << T_OPEN, ".bytes.tmp", 2, 1, -ENOSPC);
    assert_int_equal(t_try_append(&t, t_number(&t, "a"), "no\n", 3), -ENOSPC);
    t_shows(t.store, &image);
    assert_int_equal(hl_verify(t.store, &report, NULL, &t.err), 0);
    assert_int_equal(report.index_missing + report.index_dangling, 0);
    assert_int_equal(report.records, image.records);
    expect_heals(&t);
    t_check_log(&t);
    assert_true(in_quarantine(&t, "gone one") && in_quarantine(&t, "gone two"));
    char **names;
    t_path(path, t.dir, "quarantine");
    size_t count = t_names(path, ".bytes", &names);
    assert_int_equal(count, 2);
    t_names_free(names, count);
    t_image_take(t.store, &again);
    assert_int_equal(again.records, image.records + 3);
    t_image_free(&again);
    t_image_free(&image);
    t_store_free(&t);
}

/* Every call of a kind, from the nth on, finds the disk full. */
static void fail_from(unsigned calls, bool without_index, int error)
{
    for (uint64_t nth = 1;; nth++) {
        struct t_store t;
        struct t_image image;
        make_torn(&t, &image, nth % 2 ? TAIL_GARBAGE : TAIL_HALF_A_BATCH, nth);
        if (without_index)
            t_lose_index(&t);
        t_store_watch(&t);
        t_io_fail(&t.io, calls, NULL, nth, 1000000, error);
        int result = t_try_open(&t);
        if (result < 0)
            fail_msg("from call %" PRIu64 " on: %s (%s)", nth, t.err.text, strerror(-result));
        uint64_t failed = t_io_failed(&t.io);
        t_shows(t.store, &image);
        int appended = t_try_append(&t, t_number(&t, "a"), "perhaps\n", 8);
        assert_true(appended == 0 || appended == error);
        if (appended < 0)
            t_shows(t.store, &image);
        expect_heals(&t);
        t_image_free(&image);
        t_store_free(&t);
        if (failed == 0)
            break;
    }
}

static void test_any_call_that_finds_no_room(void **state)
{
    (void)state;
    for (int without_index = 0; without_index < 2; without_index++) {
        fail_from(1U << T_PWRITE, without_index, -ENOSPC);
        fail_from(1U << T_RENAME, without_index, -ENOSPC);
        fail_from(1U << T_FTRUNCATE, without_index, -EDQUOT);
        fail_from(1U << T_FSYNC, without_index, -ENOSPC);
        fail_from(1U << T_PWRITE | 1U << T_RENAME | 1U << T_FSYNC, without_index, -EDQUOT);
    }
}

/* What was replayed cannot be written again: nothing says that it is on the disk before it is. */
static void test_no_room_even_in_place(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    struct hl_status status;
    make_torn(&t, &image, TAIL_GARBAGE, 9);
    t_store_watch(&t);
    t_io_fail(&t.io, 1U << T_PWRITE, ".seg", 1, 1000000, -ENOSPC);
    t_open(&t);
    t_shows(t.store, &image);
    hl_store_status(t.store, &status);
    assert_true(status.synced < status.position);
    assert_int_equal(hl_sync(t.store), -ENOSPC);
    assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), -ENOSPC);
    hl_store_status(t.store, &status);
    assert_true(status.indexed < status.position);
    expect_refused(&t);
    t_io_heal(&t.io);
    assert_int_equal(hl_sync(t.store), 0);
    hl_store_status(t.store, &status);
    assert_int_equal(status.synced, status.position);
    assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
    t_shows(t.store, &image);
    expect_heals(&t);
    t_image_free(&image);
    t_store_free(&t);
}

/* The index cannot be put in place: all is read from memory, and it is built when there is room,
 * by itself or by command. */
static void test_no_room_for_an_index(void **state)
{
    (void)state;
    for (int which = 0; which < 4; which++) {
        struct t_store t;
        struct t_image image;
        struct hl_status status;
        char path[T_PATH];
        make_torn(&t, &image, which & 1 ? TAIL_GARBAGE : TAIL_GOOD, 20 + which);
        if (which == 3) { /* of no use, and not to be kept */
            t_path(path, t.dir, "checkpoints");
            t_dir_remove(path);
            t_path(path, t.dir, "index/data.mdb");
            t_file_cut(path, t_file_size(path) / 2);
        } else {
            t_lose_index(&t);
        }
        t_store_watch(&t);
        t_io_fail(&t.io, 1U << T_RENAME, "index", 1, 1000000, -ENOSPC);
        t_open(&t);
        t_shows(t.store, &image);
        hl_store_status(t.store, &status);
        assert_int_equal(status.indexed, 0);
        assert_int_equal(status.index_bytes, 0);
        t_append(&t, t_number(&t, "a"), "there is room for this\n");
        struct t_image now;
        t_image_take(t.store, &now);
        assert_int_equal(now.records, image.records + 1);
        assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), -ENOSPC);
        if (which == 2) { /* closed before there was room */
            assert_int_equal(hl_store_close(t.store), -ENOSPC);
            t.store = NULL;
            t_open(&t);
            t_shows(t.store, &now);
        }
        t_io_heal(&t.io);
        if (which == 1)
            assert_int_equal(hl_reindex(t.store, NULL, &t.err), 0);
        wait_for_index(&t);
        t_shows(t.store, &now);
        assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
        expect_heals(&t);
        t_image_free(&now);
        t_image_free(&image);
        t_store_free(&t);
    }
}

/* Damage that a rebuild meets in sealed segments cannot be copied: it stays where it is. */
static void test_no_room_for_what_is_damaged(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    char path[T_PATH];
    make(&t, 30);
    t_image_take(t.store, &image);
    t_crash(&t);
    t_lose_index(&t);
    t_segment_path(&t, 2, path);
    uint64_t middle = t_file_size(path) / 2;
    size_t len;
    t_file_flip(path, middle, 4);
    char *bytes = t_file_read(path, &len);
    t_store_watch(&t);
    t_io_fill(&t.io, true);
    t_open(&t);
    assert_true(t.errors > 0);
    struct t_image now;
    t_image_take(t.store, &now);
    assert_true(now.records < image.records && now.records + 10 > image.records);
    t_image_free(&now);
    char *later = t_file_read((t_segment_path(&t, 2, path), path), NULL);
    assert_memory_equal(later, bytes, len);
    free(later);
    free(bytes);
    expect_heals(&t);
    t_image_free(&image);
    t_store_free(&t);
}

/* Where there never was a store none can be made, and that is said. */
static void test_no_room_for_a_new_store(void **state)
{
    (void)state;
    struct t_store t;
    t_store_init(&t);
    t_store_watch(&t);
    t_io_fill(&t.io, true);
    assert_int_equal(t_try_open(&t), -ENOSPC);
    assert_true(t.err.text[0]);
    t_io_fill(&t.io, false);
    t_open(&t);
    t_append(&t, 0, "{\"session_id\":\"first\"}\n");
    t_store_free(&t);
}

/* The lock file is gone and cannot be made: the lock of the directory does. */
static void test_no_room_for_a_lock_file(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    struct hl_store *second;
    char path[T_PATH];
    make_torn(&t, &image, TAIL_GOOD, 31);
    t_path(path, t.dir, "lock");
    assert_int_equal(unlink(path), 0);
    t_store_watch(&t);
    t_io_fill(&t.io, true);
    t_open(&t);
    t_shows(t.store, &image);
    assert_int_equal(hl_store_note(t.store, "mounted"), 0);
    assert_int_equal(hl_store_open(t.dir, &t.options, &second, NULL, &t.err), -EBUSY);
    expect_heals(&t);
    t_image_free(&image);
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_torn_tail_and_no_room),
        cmocka_unit_test(test_a_region_without_a_whole_batch_and_no_room),
        cmocka_unit_test(test_any_call_that_finds_no_room),
        cmocka_unit_test(test_no_room_even_in_place),
        cmocka_unit_test(test_no_room_for_an_index),
        cmocka_unit_test(test_no_room_for_what_is_damaged),
        cmocka_unit_test(test_no_room_for_a_new_store),
        cmocka_unit_test(test_no_room_for_a_lock_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
