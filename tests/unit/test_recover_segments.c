/* test_recover_segments.c - which files of log/ count: headers, names, holes, and what is no
 * segment. */
#include "support.h"

#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../store/format.h"
#include "../../store/frame.h"

static void make(struct t_store *t, uint64_t chance)
{
    t_store_init(t);
    t->options.segment_size = 6 * 1024;
    t_open(t);
    uint32_t a = t_session(t, "a"), b = t_session(t, "b");
    for (int i = 0; i < 6; i++) {
        t_fill(t, a, 12, 4, 200, &chance);
        t_fill(t, b, 12, 3, 200, &chance);
    }
    t_append(t, 0, "{\"session_id\":\"late\"}\n{\"session_id\":\"a\"}\n");
    assert_true(t_last_segment(t) >= 5);
}

/* Each record that the store shows is as it was in the image. Returns how many there are. */
static uint64_t expect_part(struct t_store *t, const struct t_image *whole)
{
    struct t_image now;
    t_image_take(t->store, &now);
    for (size_t i = 0; i < now.count; i++) {
        const struct t_session_image *session = &now.sessions[i];
        for (size_t k = 0; k < session->about.records; k++) {
            size_t len, len_then;
            uint64_t seq = session->lines[k].seq;
            const char *line = t_image_line(&now, session->about.id, seq, &len);
            const char *then = t_image_line(whole, session->about.id, seq, &len_then);
            if (!line)
                continue; /* damaged */
            assert_non_null(then);
            assert_int_equal(len, len_then);
            assert_memory_equal(line, then, len);
        }
    }
    uint64_t good = now.records - now.damaged;
    t_image_free(&now);
    return good;
}

/* It can be appended to, twice, and all is there the next time. */
static void expect_goes_on(struct t_store *t)
{
    struct t_image now;
    for (int i = 0; i < 2; i++) {
        t_append(t, 0, "{\"session_id\":\"a\"}\n{\"session_id\":\"b\"}\n{\"session_id\":\"c\"}\n");
        t_image_take(t->store, &now);
        assert_non_null(t_image_find(&now, "c"));
        if (i == 0)
            t_crash(t);
        else
            t_close(t);
        t_open(t);
        t_shows(t->store, &now);
        t_image_free(&now);
    }
}

static void test_one_of_two_headers_is_enough(void **state)
{
    (void)state;
    for (uint32_t which = 0; which < 4; which++) {
        struct t_store t;
        struct t_image image;
        char path[T_PATH];
        make(&t, which);
        t_image_take(t.store, &image);
        t_crash(&t);
        t_segment_path(&t, which % 2 ? 0 : 2, path);
        t_file_flip(path, (which / 2 ? SEGMENT_HEADER_SECOND : SEGMENT_HEADER_FIRST) + 37, 4);
        if (which == 3) {
            char index[T_PATH];
            t_path(index, t.dir, "index");
            t_dir_remove(index);
            t_path(index, t.dir, "checkpoints");
            t_dir_remove(index);
        }
        t_open(&t);
        assert_true(t.warnings > 0);
        t_shows(t.store, &image);
        expect_goes_on(&t);
        t_image_free(&image);
        t_store_free(&t);
    }
}

static void damage_both(const char *path)
{
    t_file_flip(path, SEGMENT_HEADER_FIRST + 60, 1);
    t_file_flip(path, SEGMENT_HEADER_SECOND + 60, 1);
}

/* A segment without a good header cannot be read; the others can, and the log goes on, also when it
 * is the last one or the first. */
static void test_both_headers_damaged(void **state)
{
    (void)state;
    for (unsigned which = 0; which < 6; which++) {
        struct t_store t;
        struct t_image image;
        struct hl_status status;
        char path[T_PATH];
        make(&t, which);
        t_image_take(t.store, &image);
        t_crash(&t);
        uint32_t number = which % 3 == 0 ? 1 : which % 3 == 1 ? 3 : t_last_segment(&t);
        t_segment_path(&t, number, path);
        damage_both(path);
        size_t len;
        char *bytes = t_file_read(path, &len);
        if (which >= 3) {
            char index[T_PATH];
            t_path(index, t.dir, "index");
            t_dir_remove(index);
        }
        t_open(&t);
        assert_true(t.errors > 0);
        hl_store_status(t.store, &status);
        assert_true(status.damage_found > 0);
        uint64_t good = expect_part(&t, &image);
        assert_true(good < image.records && good > image.records / 2);
        expect_goes_on(&t);
        /* Nobody writes to what he cannot read. */
        char *now = t_file_read((t_segment_path(&t, number, path), path), NULL);
        assert_memory_equal(now, bytes, len);
        free(now);
        free(bytes);
        t_image_free(&image);
        t_store_free(&t);
    }
}

static void test_a_segment_missing(void **state)
{
    (void)state;
    for (unsigned which = 0; which < 3; which++) {
        struct t_store t;
        struct t_image image;
        struct hl_status status;
        char path[T_PATH];
        make(&t, which + 10);
        t_image_take(t.store, &image);
        t_crash(&t);
        t_segment_path(&t, which == 0 ? 1 : which == 1 ? 3 : t_last_segment(&t), path);
        assert_int_equal(unlink(path), 0);
        t_open(&t);
        hl_store_status(t.store, &status);
        if (which < 2) /* that the last one is missing, nobody can know but the index */
            assert_true(status.damage_found > 0);
        uint64_t good = expect_part(&t, &image);
        assert_true(good < image.records && good > image.records / 2);
        expect_goes_on(&t);
        t_image_free(&image);
        t_store_free(&t);
    }
}

/* The making of a segment was cut short: an empty file, a piece of a header, blank bytes. */
static void test_an_unborn_segment(void **state)
{
    (void)state;
    static const char zeros[SEGMENT_HEADER_REGION];
    static const size_t sizes[] = {0, 1, 127, 600, SEGMENT_HEADER_REGION};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct t_store t;
        struct t_image image;
        char path[T_PATH];
        make(&t, i);
        assert_int_equal(hl_rotate(t.store, &t.err), 0);
        t_image_take(t.store, &image);
        t_crash(&t);
        t_segment_path(&t, 0, path);
        if (i == 2 || i == 3) {
            t_file_cut(path, sizes[i]);
        } else {
            t_file_write(path, zeros, sizes[i]);
        }
        t_open(&t);
        assert_int_equal(t.errors, 0);
        t_shows(t.store, &image);
        expect_goes_on(&t);
        t_check_log(&t);
        t_image_free(&image);
        t_store_free(&t);
    }
}

/* Both headers of a segment with a change, checksums right. */
static void forge(const char *path, void (*change)(struct segment_header *header))
{
    struct segment_header header;
    size_t len;
    char *bytes = t_file_read(path, &len);
    uint32_t unknown;
    memcpy(&header, bytes, sizeof header);
    free(bytes);
    struct segment_header fields;
    assert_int_equal(header_parse(&header, &fields, &unknown), 0);
    header_finish(&fields);
    assert_memory_equal(&fields, &header, sizeof header);
    assert_int_equal(header_parse(&header, &fields, &unknown), 0);
    change(&fields);
    t_file_poke(path, SEGMENT_HEADER_FIRST, &fields, sizeof fields);
    t_file_poke(path, SEGMENT_HEADER_SECOND, &fields, sizeof fields);
}

/* header_finish() sets the version; a later one is forged by hand. */
static void sum(struct segment_header *header);

static void later_version(struct segment_header *header)
{
    header_finish(header);
    header->version = htole32(2);
    sum(header);
}

static void incompatible(struct segment_header *header)
{
    header->incompatible = 4;
    header_finish(header);
}

static void compatible(struct segment_header *header)
{
    header->compatible = 0x80;
    header_finish(header);
}

/* IEEE CRC-32, bit by bit. */
static void sum(struct segment_header *header)
{
    uint32_t crc = 0xffffffff;
    const uint8_t *bytes = (const uint8_t *)header;
    for (size_t i = 0; i < offsetof(struct segment_header, crc32); i++) {
        crc ^= bytes[i];
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    header->crc32 = htole32(~crc);
}

static void test_features_of_later_versions(void **state)
{
    (void)state;
    for (int which = 0; which < 3; which++) {
        struct t_store t;
        struct t_image image;
        char path[T_PATH];
        make(&t, 5);
        t_image_take(t.store, &image);
        t_close(&t);
        t_segment_path(&t, 2, path);
        forge(path, which == 0 ? later_version : which == 1 ? incompatible : compatible);
        if (which < 2) {
            assert_int_equal(t_try_open(&t), -ENOTSUP);
            assert_non_null(strstr(t.err.text, "00000002-00000002.0.seg"));
            assert_non_null(strstr(t.err.text, which == 0 ? "version 2" : "0x4"));
        } else {
            t_open(&t);
            t_shows(t.store, &image);
            expect_goes_on(&t);
        }
        t_image_free(&image);
        t_store_free(&t);
    }
}

static void test_what_is_no_segment(void **state)
{
    (void)state;
    static const char *const names[] = {"README",
                                        "1-1.0.seg",
                                        "00000001-00000001.0.seg.bak",
                                        "00000002-00000001.0.seg",
                                        "00000000-00000000.0.seg",
                                        "0000000A-0000000A.0.seg",
                                        "0x000001-00000001.0.seg"};
    struct t_store t;
    struct t_image image;
    char path[T_PATH];
    make(&t, 6);
    t_image_take(t.store, &image);
    t_close(&t);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        t_path(path, t.dir, "log/%s", names[i]);
        t_file_write(path, "keep me", 7);
    }
    t_path(path, t.dir, "log/00000063-00000063.1.seg.tmp");
    t_file_write(path, "x", 1);
    t_open(&t);
    assert_true(t.warnings >= 7);
    t_shows(t.store, &image);
    assert_false(t_exists(path));
    expect_goes_on(&t);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        t_path(path, t.dir, "log/%s", names[i]);
        assert_int_equal(t_file_size(path), 7);
    }
    t_image_free(&image);
    t_store_free(&t);
}

/* A segment of another store among ours, and the log of a store that is gone under its index. */
static void test_segments_of_another_store(void **state)
{
    (void)state;
    struct t_store t, other;
    char path[T_PATH], from[T_PATH];
    make(&t, 7);
    make(&other, 8);
    t_close(&t);
    t_close(&other);
    t_segment_path(&t, 2, path);
    t_segment_path(&other, 2, from);
    size_t len;
    char *ours = t_file_read(path, &len), *bytes;
    size_t other_len;
    bytes = t_file_read(from, &other_len);
    t_file_write(path, bytes, other_len);
    assert_int_equal(t_try_open(&t), -EINVAL);
    assert_non_null(strstr(t.err.text, "another store"));
    t_file_write(path, ours, len);
    t_open(&t);
    expect_goes_on(&t);
    t_close(&t);
    free(ours);
    free(bytes);
    /* No segment at all, but an index: that is no new store. */
    t_path(path, t.dir, "log");
    t_dir_remove(path);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(t_try_open(&t), -EIO);
    assert_true(t.err.text[0]);
    t_store_free(&t);
    t_store_free(&other);
}

/* What is not a store is not made one. */
static void test_a_directory_with_other_things(void **state)
{
    (void)state;
    struct t_store t;
    char path[T_PATH];
    t_store_init(&t);
    t_path(path, t.dir, "letter.txt");
    t_file_write(path, "dear", 4);
    assert_int_equal(t_try_open(&t), -ENOTEMPTY);
    assert_int_equal(unlink(path), 0);
    t.options.read_only = true;
    assert_int_equal(t_try_open(&t), -ENOENT);
    t.options.read_only = false;
    t_open(&t);
    t_close(&t);
    t_path(path, t.dir, "letter.txt");
    t_file_write(path, "dear", 4);
    t_open(&t);
    t_store_free(&t);
}

/* A crash right after the seal: the next segment was not made yet, and nothing goes behind the
 * seal. With the index brought up to the very end of the sealed one too, or built anew up to there;
 * and, where the seal was not synced yet, with bytes behind it of a write that was cut back before.
 */
static void test_a_seal_with_nothing_behind_it(void **state)
{
    (void)state;
    for (int which = 0; which < 16; which++) {
        struct t_store t;
        struct t_image image;
        char path[T_PATH], bytes[200];
        if ((which & 8) && (which & 3))
            continue;
        t_store_init(&t);
        t_store_watch(&t);
        t_open(&t);
        uint32_t s = t_session(&t, "s");
        t_append(&t, s, "one\n");
        t_io_fail(&t.io, 1U << T_OPEN, "00000002", 1, 100, -ENOSPC);
        assert_int_equal(hl_rotate(t.store, &t.err), -ENOSPC);
        if (which & 1)
            assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
        if (which & 4)
            assert_int_equal(hl_reindex(t.store, NULL, &t.err), 0);
        t_image_take(t.store, &image);
        if (which & 2)
            t_close(&t);
        else
            t_crash(&t);
        t_io_heal(&t.io);
        t_segment_path(&t, 0, path);
        memset(bytes, 'x', sizeof bytes);
        if (which & 8)
            t_file_append(path, bytes, sizeof bytes);
        t_open(&t);
        t_shows(t.store, &image);
        t_append(&t, s, "two\n");
        t_check_log(&t);
        assert_int_equal(t_last_segment(&t), 2);
        expect_goes_on(&t);
        t_check_log(&t);
        t_image_free(&image);
        t_store_free(&t);
    }
}

/* More segments than files are kept open. */
static void test_many_segments(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    t_store_init(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    for (int i = 0; i < 300; i++) {
        t_append(&t, s, "x\n");
        assert_int_equal(hl_rotate(t.store, &t.err), 0);
    }
    assert_int_equal(t_last_segment(&t), 301);
    t_image_take(t.store, &image);
    t_reopen(&t);
    t_shows(t.store, &image);
    char path[T_PATH];
    t_close(&t);
    t_path(path, t.dir, "index");
    t_dir_remove(path);
    t_path(path, t.dir, "checkpoints");
    t_dir_remove(path);
    t_open(&t);
    t_shows(t.store, &image);
    t_append(&t, s, "y\n");
    t_check_log(&t);
    t_image_free(&image);
    t_store_free(&t);
}

/* ---- a copy of the store that was written on, as it is when a backup is put to use ---- */

static void begin_copy(struct t_store *t, struct t_store *copy)
{
    char dir[T_PATH];
    t_store_init(t);
    t_open(t);
    uint32_t s = t_session(t, "s");
    for (int i = 1; i <= 3; i++)
        t_append_format(t, s, "{\"both\":%d}\n", i);
    assert_int_equal(hl_rotate(t->store, &t->err), 0);
    t_append(t, s, "{\"both\":4}\n");
    t_close(t);
    t_store_init(copy);
    snprintf(dir, sizeof dir, "%s", copy->dir);
    t_dir_remove(dir);
    t_dir_copy(t->dir, dir);
}

static void take_segment(const struct t_store *to, const struct t_store *from, uint32_t number)
{
    char path[T_PATH];
    size_t len;
    t_segment_path(from, number, path);
    char *bytes = t_file_read(path, &len);
    t_segment_path(to, number, path);
    t_file_write(path, bytes, len);
    free(bytes);
}

/* The index was made of a segment of the same name and place, which was another one. */
static void test_a_segment_of_the_copy(void **state)
{
    (void)state;
    struct t_store t, copy;
    struct t_image image;
    begin_copy(&t, &copy);
    t_open(&t);
    assert_int_equal(hl_rotate(t.store, &t.err), 0);
    t_append(&t, 1, "{\"here\":5}\n{\"here\":6}\n");
    t_close(&t);
    t_open(&copy);
    assert_int_equal(hl_rotate(copy.store, &copy.err), 0);
    t_append(&copy, 1, "{\"there\":\"five\"}\n{\"there\":\"six\"}\n{\"there\":\"seven\"}\n");
    t_image_take(copy.store, &image);
    t_close(&copy);
    take_segment(&t, &copy, 2);
    take_segment(&t, &copy, 3);
    t_open(&t);
    t_shows(t.store, &image);
    t_close(&t);
    t_image_free(&image);
    t_store_free(&copy);
    t_store_free(&t);
}

/* Its seqs are below those of the segment before. */
static void test_seqs_that_go_back(void **state)
{
    (void)state;
    struct t_store t, copy;
    struct hl_session session;
    struct hl_status status;
    char path[T_PATH];
    begin_copy(&t, &copy);
    t_open(&t);
    for (int i = 5; i <= 8; i++)
        t_append_format(&t, 1, "{\"here\":%d}\n", i);
    assert_int_equal(hl_rotate(t.store, &t.err), 0);
    struct t_image image;
    t_image_take(t.store, &image);
    t_close(&t);
    t_open(&copy);
    assert_int_equal(hl_rotate(copy.store, &copy.err), 0);
    t_append(&copy, 1, "{\"there\":5}\n{\"there\":6}\n");
    t_close(&copy);
    take_segment(&t, &copy, 3);
    t_path(path, t.dir, "index");
    t_dir_remove(path);
    t_path(path, t.dir, "checkpoints");
    t_dir_remove(path);
    t_open(&t);
    hl_store_status(t.store, &status);
    assert_int_equal(status.damage_found, 2);
    assert_int_equal(hl_session_by_number(t.store, 1, &session), 0);
    assert_int_equal(session.records, 8);
    assert_int_equal(session.last_seq, 8);
    assert_int_equal(expect_part(&t, &image), 8);
    t_append(&t, 1, "{\"here\":9}\n");
    t_reopen(&t);
    assert_int_equal(hl_session_by_number(t.store, 1, &session), 0);
    assert_int_equal(session.last_seq, 9);
    t_close(&t);
    t_image_free(&image);
    t_store_free(&copy);
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_segment_of_the_copy),
        cmocka_unit_test(test_seqs_that_go_back),
        cmocka_unit_test(test_one_of_two_headers_is_enough),
        cmocka_unit_test(test_both_headers_damaged),
        cmocka_unit_test(test_a_segment_missing),
        cmocka_unit_test(test_an_unborn_segment),
        cmocka_unit_test(test_features_of_later_versions),
        cmocka_unit_test(test_what_is_no_segment),
        cmocka_unit_test(test_segments_of_another_store),
        cmocka_unit_test(test_a_directory_with_other_things),
        cmocka_unit_test(test_a_seal_with_nothing_behind_it),
        cmocka_unit_test(test_many_segments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
