/* test_recover_tail.c - what a crash leaves at the end of the log: nothing that was acknowledged is
 * lost, nothing else appears, and the log can be appended to afterwards. */
#include "support.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../store/format.h"

/* A store that crashed, with the image of what it showed, and where the last batch begins in its
 * segment. */
struct crashed {
    struct t_store t;
    char base[T_PATH];            /* the directory as the crash left it */
    struct t_image before, after; /* the last batch */
    uint64_t tail, end;
    char segment[64]; /* name of the last, below the store's directory */
};

static void crashed_make(struct crashed *c, bool checkpoint, const char *last_batch)
{
    uint64_t chance = 3;
    char path[T_PATH];
    t_store_init(&c->t);
    c->t.options.segment_size = 8 * 1024;
    t_open(&c->t);
    uint32_t a = t_session(&c->t, "a"), b = t_session(&c->t, "b");
    t_fill(&c->t, a, 60, 5, 300, &chance);
    t_fill(&c->t, b, 60, 7, 300, &chance);
    if (checkpoint)
        assert_int_equal(hl_checkpoint(c->t.store, NULL, &c->t.err), 0);
    assert_int_equal(hl_rotate(c->t.store, &c->t.err), 0);
    t_fill(&c->t, a, 4, 2, 30, &chance);
    t_image_take(c->t.store, &c->before);
    t_segment_path(&c->t, 0, path);
    snprintf(c->segment, sizeof c->segment, "%s", path + strlen(c->t.dir) + 1);
    c->tail = t_file_size(path);
    t_append(&c->t, 0, last_batch);
    t_image_take(c->t.store, &c->after);
    c->end = t_file_size(path);
    t_dir_make(c->base);
    t_dir_copy(c->t.dir, c->base);
    hl_store_close(c->t.store);
    c->t.store = NULL;
}

static void crashed_free(struct crashed *c)
{
    t_image_free(&c->before);
    t_image_free(&c->after);
    t_dir_remove(c->base);
    t_store_free(&c->t);
}

/* Puts the directory back as the crash left it; path: of the last segment. */
static void crashed_again(struct crashed *c, char path[T_PATH])
{
    if (c->t.store)
        t_close(&c->t);
    t_dir_remove(c->t.dir);
    t_dir_copy(c->base, c->t.dir);
    t_path(path, c->t.dir, "%s", c->segment);
}

/* Opens what was made of it, which must show this; then it is appended to, crashes, and shows that
 * too. The second recovery has nothing left to do. */
static void expect_recovery(struct crashed *c, const struct t_image *image, bool torn)
{
    struct t_image more;
    struct hl_status status;
    t_open(&c->t);
    t_shows(c->t.store, image);
    hl_store_status(c->t.store, &status);
    assert_int_equal(status.damage_found, 0);
    if ((status.quarantined_bytes > 0) != torn)
        fail_msg("%" PRIu64 " bytes set aside", status.quarantined_bytes);
    t_append(&c->t, 0, "{\"session_id\":\"after\"}\n{\"session_id\":\"a\"}\n");
    t_image_take(c->t.store, &more);
    assert_int_equal(more.records, image->records + 2);
    t_crash(&c->t);
    t_open(&c->t);
    t_shows(c->t.store, &more);
    hl_store_status(c->t.store, &status);
    assert_int_equal(status.quarantined_bytes, 0);
    assert_int_equal(c->t.warnings + c->t.errors, 0);
    t_check_log(&c->t);
    t_image_free(&more);
}

static const char last_batch[] =
    "{\"session_id\":\"a\",\"x\":1}\n{\"session_id\":\"new\"}\n{\"session_id\":\"b\"}\n";

/* The file ends anywhere in the last batch. */
static void test_a_tail_cut_at_every_length(void **state)
{
    (void)state;
    struct crashed c;
    char path[T_PATH];
    crashed_make(&c, true, last_batch);
    for (uint64_t size = c.tail; size < c.end; size += t_slow() ? 13 : 1) {
        crashed_again(&c, path);
        t_file_cut(path, size);
        if (size % 8 == 0 || t_slow()) {
            expect_recovery(&c, &c.before, size > c.tail);
        } else {
            t_open(&c.t);
            t_shows(c.t.store, &c.before);
        }
    }
    crashed_again(&c, path);
    expect_recovery(&c, &c.after, false);
    crashed_free(&c);
}

/* Blocks of the last batch never got to the disk: zeros stand there, or what the disk had. */
static void test_a_tail_with_blocks_missing(void **state)
{
    (void)state;
    struct crashed c;
    char path[T_PATH];
    uint64_t chance = t_seed("test_a_tail_with_blocks_missing");
    crashed_make(&c, false, last_batch);
    for (unsigned round = 0; round < (t_slow() ? 10 : 60); round++) {
        uint8_t junk[512];
        uint64_t from = c.tail + t_below(&chance, c.end - c.tail);
        uint64_t size = 1 + t_below(&chance, c.end - from);
        if (size > sizeof junk)
            size = sizeof junk;
        for (size_t i = 0; i < size; i++)
            junk[i] = round % 2 ? 0 : (uint8_t)t_random(&chance);
        crashed_again(&c, path);
        size_t len;
        char *was = t_file_read(path, &len);
        bool same = memcmp(was + from, junk, size) == 0;
        free(was);
        t_file_poke(path, from, junk, size);
        expect_recovery(&c, same ? &c.after : &c.before, !same);
    }
    crashed_free(&c);
}

/* Behind a whole last batch: zeros are nothing, anything else is set aside. */
static void test_bytes_behind_the_last_batch(void **state)
{
    (void)state;
    struct crashed c;
    char path[T_PATH];
    static const uint8_t zeros[100000];
    static const struct {
        const char *bytes;
        size_t len;
    } junk[] = {{"x", 1},
                {"\0\0\0\0\0\0\0\0\1", 9},
                {"{\"seq\":1}\n", 10},
                {"\xff\xff\xff\xff", 4},
                {"\0\0\0x", 4}};
    crashed_make(&c, true, last_batch);
    const size_t sizes[] = {1, 7, 8, 31, 32, 33, 4096, sizeof zeros};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        crashed_again(&c, path);
        t_file_append(path, zeros, sizes[i]);
        expect_recovery(&c, &c.after, false);
    }
    for (size_t i = 0; i < sizeof junk / sizeof junk[0]; i++) {
        crashed_again(&c, path);
        t_file_append(path, junk[i].bytes, junk[i].len);
        t_file_append(path, zeros, i * 100);
        expect_recovery(&c, &c.after, true);
    }
    crashed_free(&c);
}

/* The frames that are already in the segment, copied behind its end, are no records. */
static void test_old_frames_behind_the_last_batch(void **state)
{
    (void)state;
    struct crashed c;
    char path[T_PATH];
    size_t len;
    crashed_make(&c, false, last_batch);
    crashed_again(&c, path);
    char *bytes = t_file_read(path, &len);
    t_file_append(path, bytes + SEGMENT_HEADER_REGION, len - SEGMENT_HEADER_REGION);
    free(bytes);
    expect_recovery(&c, &c.after, true);
    /* Nor are those of another segment. */
    char other[T_PATH];
    crashed_again(&c, path);
    t_segment_path(&c.t, 1, other);
    bytes = t_file_read(other, &len);
    t_file_append(path, bytes + c.end, len - c.end);
    free(bytes);
    expect_recovery(&c, &c.after, true);
    crashed_free(&c);
}

/* What is cut is kept, byte for byte, each time, also when the same place is torn twice. */
static void test_what_is_cut_is_kept(void **state)
{
    (void)state;
    struct crashed c;
    char path[T_PATH], folder[T_PATH], file[T_PATH], **names;
    static const char first[] = "torn the first time.....", second[] = "torn the second time....";
    bool found_first = false, found_second = false;
    crashed_make(&c, true, last_batch);
    crashed_again(&c, path);
    t_file_append(path, first, sizeof first);
    t_open(&c.t);
    t_close(&c.t);
    t_segment_path(&c.t, 0, path);
    t_file_append(path, second, sizeof second);
    t_open(&c.t);
    t_shows(c.t.store, &c.after);
    t_path(folder, c.t.dir, "quarantine");
    size_t count = t_names(folder, ".bytes", &names);
    assert_int_equal(count, 2);
    for (size_t i = 0; i < count; i++) {
        size_t len;
        t_path(file, folder, "%s", names[i]);
        char *bytes = t_file_read(file, &len);
        found_first |= len == sizeof first - 1 && memcmp(bytes, first, len) == 0;
        found_second |= len == sizeof second - 1 && memcmp(bytes, second, len) == 0;
        free(bytes);
    }
    t_names_free(names, count);
    assert_true(found_first);
    assert_true(found_second);
    assert_int_equal(t_names(folder, ".note", &names), 2);
    t_names_free(names, 2);
    crashed_free(&c);
}

/* A batch of many frames, cut after each of them, leaves nothing of itself; and then a batch that
 * comes after the cut is found again after the next crash. */
static void test_half_a_batch_is_none(void **state)
{
    (void)state;
    struct crashed c;
    char path[T_PATH], batch[4096];
    size_t used = 0;
    for (int i = 0; i < 12; i++)
        used += (size_t)snprintf(batch + used, sizeof batch - used,
                                 "{\"session_id\":\"%c\",\"i\":%d}\n", "ab"[i % 2], i);
    crashed_make(&c, false, batch);
    size_t len;
    crashed_again(&c, path);
    char *bytes = t_file_read(path, &len);
    uint64_t at = c.tail;
    while (at < c.end) {
        uint32_t length;
        memcpy(&length, bytes + at + 4, sizeof length);
        at += (FRAME_HEADER_SIZE + le32toh(length) + 7) & ~7U;
        crashed_again(&c, path);
        t_file_cut(path, at);
        expect_recovery(&c, at < c.end ? &c.before : &c.after, at < c.end);
    }
    free(bytes);
    crashed_free(&c);
}

/* A power cut may keep a later batch and lose an earlier one, where neither was synced: the later
 * one is whole and stays, and so it does ever after. */
static void test_a_hole_before_whole_batches(void **state)
{
    (void)state;
    struct crashed c;
    char path[T_PATH];
    struct hl_status status;
    struct t_image first;
    crashed_make(&c, false, last_batch);
    for (uint64_t from = SEGMENT_HEADER_REGION; from < c.tail; from += t_slow() ? 96 : 40) {
        static const uint8_t zeros[8];
        crashed_again(&c, path);
        t_file_poke(path, from, zeros, sizeof zeros);
        t_open(&c.t);
        hl_store_status(c.t.store, &status);
        t_image_take(c.t.store, &first);
        size_t len;
        if (status.damage_found > 0) {
            assert_true(first.records < c.after.records);
            assert_true(first.records >= c.after.records - 2);
            assert_true(status.quarantined_bytes > 0);
        } else {
            assert_int_equal(first.records, c.after.records); /* zeros stood there before */
        }
        assert_non_null(t_image_line(&first, "new", 1, &len));
        assert_int_equal(first.damaged, 0);
        t_append(&c.t, t_number(&c.t, "a"), "x\n");
        t_image_free(&first);
        t_image_take(c.t.store, &first);
        t_crash(&c.t);
        t_open(&c.t);
        t_shows(c.t.store, &first);
        assert_int_equal(c.t.warnings + c.t.errors, 0);
        t_check_log(&c.t);
        t_image_free(&first);
    }
    crashed_free(&c);
}

/* An error of the device while the tail is read is no torn tail: nothing is cut. */
static void test_an_io_error_is_no_damage(void **state)
{
    (void)state;
    struct crashed c;
    char path[T_PATH];
    crashed_make(&c, true, last_batch);
    t_store_watch(&c.t);
    bool failed = true;
    for (uint64_t nth = 1; failed; nth++) {
        crashed_again(&c, path);
        t_io_fail(&c.t.io, 1U << T_PREAD, ".seg", nth, 1000, -EIO);
        int error = t_try_open(&c.t);
        failed = t_io_failed(&c.t.io) > 0;
        t_io_heal(&c.t.io);
        assert_int_equal(error, failed ? -EIO : 0);
        if (failed)
            assert_true(c.t.err.text[0]);
        if (error == 0)
            t_close(&c.t);
        t_path(path, c.t.dir, "%s", c.segment);
        assert_true(t_file_size(path) >= c.end);
        t_path(path, c.t.dir, "quarantine");
        assert_false(t_exists(path));
        expect_recovery(&c, &c.after, false);
    }
    crashed_free(&c);
}

/* Opening fails at any of its calls, and succeeds later with all that was there. */
static void test_an_opening_that_fails(void **state)
{
    (void)state;
    struct crashed c;
    char path[T_PATH];
    static const unsigned kinds[] = {1U << T_PWRITE,    1U << T_FSYNC | 1U << T_FDATASYNC,
                                     1U << T_OPEN,      1U << T_RENAME,
                                     1U << T_FTRUNCATE, 1U << T_FSTAT,
                                     1U << T_LIST};
    crashed_make(&c, true, last_batch);
    t_store_watch(&c.t);
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        bool failed = true;
        for (uint64_t nth = 1; failed; nth++) {
            crashed_again(&c, path);
            t_file_append(path, "garbage", 7);
            t_io_fail(&c.t.io, kinds[k], NULL, nth, 1, -EIO);
            int error = t_try_open(&c.t);
            failed = t_io_failed(&c.t.io) > 0;
            t_io_heal(&c.t.io);
            assert_true(error == 0 || failed);
            if (error < 0)
                assert_true(c.t.err.text[0]);
            if (error == 0) {
                t_shows(c.t.store, &c.after);
                t_close(&c.t);
            }
            t_open(&c.t);
            t_shows(c.t.store, &c.after);
        }
    }
    crashed_free(&c);
}

/* A process that dies without a word: what it was told is stored is there. */
static void test_a_process_that_dies(void **state)
{
    (void)state;
    struct t_store t;
    t_store_init(&t);
    unsigned rounds = t_slow() ? 3 : 8;
    uint64_t chance = t_seed("test_a_process_that_dies");
    for (unsigned round = 0; round < rounds; round++) {
        int ends[2];
        uint64_t acknowledged = 0, seq;
        assert_int_equal(pipe(ends), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            struct hl_session s;
            close(ends[0]);
            if (t_try_open(&t) < 0)
                _exit(1);
            hl_session_create(t.store, "s", 1, 0, 0, 0700, &s, NULL);
            for (uint64_t i = s.last_seq + 1;; i++) {
                if (t_try_append(&t, s.number, "{\"x\":\"yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\"}\n",
                                 42) < 0 ||
                    write(ends[1], &i, sizeof i) != sizeof i)
                    _exit(1);
                if (i % 50 == 17)
                    hl_checkpoint(t.store, NULL, NULL);
            }
        }
        close(ends[1]);
        uint64_t wanted = 1 + t_below(&chance, 400);
        for (uint64_t i = 0; i < wanted; i++) {
            assert_int_equal(read(ends[0], &seq, sizeof seq), sizeof seq);
            acknowledged = seq;
        }
        kill(pid, SIGKILL);
        while (read(ends[0], &seq, sizeof seq) == sizeof seq)
            acknowledged = seq;
        close(ends[0]);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        t_open(&t);
        struct t_image image;
        t_image_take(t.store, &image);
        const struct t_session_image *s = t_image_find(&image, "s");
        assert_non_null(s);
        assert_true(s->about.records >= acknowledged && s->about.records <= acknowledged + 1);
        assert_int_equal(s->about.last_seq, s->about.records);
        t_image_free(&image);
        t_close(&t);
    }
    t_store_free(&t);
}

/* A seal that was written, and not synced before the power went, says nothing of what stands before
 * it: a batch that is not whole is not there, though the segment looks sealed. */
static void test_a_seal_that_was_not_synced(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image before, after;
    char path[T_PATH], index[T_PATH];
    t_store_init(&t);
    t_open(&t);
    uint32_t a = t_session(&t, "a");
    t_append(&t, a, "kept\n");
    t_image_take(t.store, &before);
    t_segment_path(&t, 0, path);
    uint64_t at = t_file_size(path);
    t_append(&t, a, "one\ntwo\nthree\n");
    assert_int_equal(hl_rotate(t.store, &t.err), 0);
    t_crash(&t);
    t_segment_path(&t, 0, path);
    assert_int_equal(unlink(path), 0);
    t_path(index, t.dir, "index");
    t_dir_remove(index);
    t_segment_path(&t, 1, path);
    t_file_flip(path, at + FRAME_HEADER_SIZE + 20, 1);
    t_open(&t);
    t_shows(t.store, &before);
    t_append(&t, a, "again\n");
    t_image_take(t.store, &after);
    t_crash(&t);
    t_open(&t);
    t_shows(t.store, &after);
    t_check_log(&t);
    t_image_free(&before);
    t_image_free(&after);
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_tail_cut_at_every_length),
        cmocka_unit_test(test_a_tail_with_blocks_missing),
        cmocka_unit_test(test_bytes_behind_the_last_batch),
        cmocka_unit_test(test_old_frames_behind_the_last_batch),
        cmocka_unit_test(test_what_is_cut_is_kept),
        cmocka_unit_test(test_half_a_batch_is_none),
        cmocka_unit_test(test_a_hole_before_whole_batches),
        cmocka_unit_test(test_an_io_error_is_no_damage),
        cmocka_unit_test(test_an_opening_that_fails),
        cmocka_unit_test(test_a_process_that_dies),
        cmocka_unit_test(test_a_seal_that_was_not_synced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
