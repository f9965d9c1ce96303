/* test_recover_stale.c - several files for the same segment numbers: a compaction that was cut
 * short, and what people copy back. */
#include "support.h"

#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../store/format.h"
#include "../../store/frame.h"
#include "../../store/seal.h"
#include "../../store/segment.h"

#define NAME(first, last, generation) "0000000" #first "-0000000" #last "." #generation ".seg"

/* A store with six sealed segments or more, closed as by a crash, with an index that knows most. */
static void make(struct t_store *t, struct t_image *image, uint64_t chance)
{
    t_store_init(t);
    t->options.segment_size = 6 * 1024;
    t_open(t);
    uint32_t a = t_session(t, "a"), b = t_session(t, "b");
    for (int i = 0; i < 8; i++) {
        t_fill(t, a, 12, 4, 200, &chance);
        t_fill(t, b, 12, 3, 200, &chance);
        if (i == 6)
            assert_int_equal(hl_checkpoint(t->store, NULL, &t->err), 0);
    }
    t_append(t, 0, "{\"session_id\":\"late\"}\n{\"session_id\":\"a\"}\n");
    assert_true(t_last_segment(t) >= 7);
    t_image_take(t->store, image);
    t_crash(t);
}

static bool in(const struct t_store *t, const char *dir, const char *name)
{
    char path[T_PATH];
    t_path(path, t->dir, "%s/%s", dir, name);
    return t_exists(path);
}

static size_t files_in(const struct t_store *t, const char *dir)
{
    char path[T_PATH], **names;
    t_path(path, t->dir, "%s", dir);
    if (!t_exists(path))
        return 0;
    size_t count = t_names(path, "", &names), real = 0;
    for (size_t i = 0; i < count; i++)
        real += names[i][0] != '.';
    t_names_free(names, count);
    return real;
}

static void copy_file(const char *from, const char *to)
{
    size_t len;
    char *bytes = t_file_read(from, &len);
    t_file_write(to, bytes, len);
    free(bytes);
}

static void copy_back(const struct t_store *t, const char *name)
{
    char from[T_PATH], to[T_PATH];
    t_path(from, t->dir, "backup/%s", name);
    t_path(to, t->dir, "log/%s", name);
    copy_file(from, to);
}

static void expect_same_file(const char *a, const char *b)
{
    size_t len, len_b;
    char *bytes = t_file_read(a, &len), *bytes_b = t_file_read(b, &len_b);
    assert_int_equal(len, len_b);
    assert_memory_equal(bytes, bytes_b, len);
    free(bytes);
    free(bytes_b);
}

/* Appends, crashes and closes: all is there each time. */
static void expect_goes_on(struct t_store *t)
{
    struct t_image now;
    for (int i = 0; i < 2; i++) {
        t_append(t, 0, "{\"session_id\":\"a\"}\n{\"session_id\":\"b\"}\n{\"session_id\":\"c\"}\n");
        t_image_take(t->store, &now);
        if (i == 0)
            t_crash(t);
        else
            t_close(t);
        t_open(t);
        assert_int_equal(t->warnings + t->errors, 0);
        t_shows(t->store, &now);
        t_image_free(&now);
    }
}

/* The compaction's rename was done and nothing after it: the index still points into the old files,
 * or is gone. */
static void test_after_the_rename_of_a_compaction(void **state)
{
    (void)state;
    for (unsigned which = 0; which < 6; which++) {
        struct t_store t;
        struct t_image image;
        char path[T_PATH], old[T_PATH], kept[T_PATH];
        make(&t, &image, which);
        uint32_t first = which % 3 == 0 ? 1 : 2, last = which % 3 == 2 ? 2 : 4;
        t_compact(&t, first, last, 1, path);
        t_path(old, t.dir, "log/" NAME(2, 2, 0));
        t_path(kept, t.dir, "kept");
        copy_file(old, kept);
        if (which >= 3)
            t_lose_index(&t);
        t_open(&t);
        assert_int_equal(t.errors, 0);
        t_shows(t.store, &image);
        for (uint32_t number = first; number <= last; number++) {
            char name[SEGMENT_NAME_MAX];
            segment_name_format(name, number, number, 0);
            assert_false(in(&t, "log", name));
            assert_true(in(&t, "backup", name));
        }
        assert_int_equal(files_in(&t, "backup"), last - first + 1);
        assert_true(t_exists(path));
        t_path(old, t.dir, "backup/" NAME(2, 2, 0));
        expect_same_file(old, kept);
        expect_goes_on(&t);
        t_verify(&t);
        t_image_free(&image);
        t_store_free(&t);
    }
}

/* Several generations over one another: the highest one counts. */
static void test_generations_that_nest(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    char path[T_PATH];
    make(&t, &image, 11);
    t_compact(&t, 2, 2, 1, path);
    t_compact(&t, 3, 4, 1, path);
    t_compact(&t, 2, 4, 2, path);
    t_compact(&t, 1, 5, 3, path);
    t_open(&t);
    t_shows(t.store, &image);
    assert_int_equal(files_in(&t, "backup"), 8); /* 1 to 5 by themselves, and three made of them */
    assert_true(in(&t, "log", NAME(1, 5, 3)));
    assert_true(in(&t, "backup", NAME(2, 4, 2)));
    expect_goes_on(&t);
    t_image_free(&image);
    t_store_free(&t);
}

/* Whatever is copied back moves out again, and the index stays what it was. */
static void test_copied_back_by_hand(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    char path[T_PATH], other[T_PATH];
    make(&t, &image, 12);
    t_compact(&t, 2, 4, 1, path);
    t_open(&t);
    for (unsigned which = 0; which < 4; which++) {
        t_close(&t);
        t_path(path, t.dir, "quarantine");
        if (t_exists(path)) /* an index that pointed into the old files */
            t_dir_remove(path);
        copy_back(&t, NAME(2, 2, 0));
        copy_back(&t, NAME(4, 4, 0));
        if (which == 1)
            t_lose_index(&t);
        if (which == 2) { /* moved, not copied */
            t_path(other, t.dir, "backup/" NAME(4, 4, 0));
            assert_int_equal(unlink(other), 0);
        }
        if (which == 3) { /* one file with two names: a rename between them does nothing */
            t_path(path, t.dir, "log/" NAME(4, 4, 0));
            t_path(other, t.dir, "backup/" NAME(4, 4, 0));
            assert_int_equal(unlink(path), 0);
            assert_int_equal(link(other, path), 0);
        }
        t_open(&t);
        assert_int_equal(t.errors, 0);
        t_shows(t.store, &image);
        assert_false(in(&t, "log", NAME(2, 2, 0)));
        assert_false(in(&t, "log", NAME(4, 4, 0)));
        assert_true(in(&t, "backup", NAME(2, 2, 0)));
        assert_true(in(&t, "backup", NAME(4, 4, 0)));
        assert_int_equal(files_in(&t, "backup"), 3);
        if (which != 1)
            assert_false(in(&t, "quarantine", "index")); /* the index was good all the time */
    }
    expect_goes_on(&t);
    t_image_free(&image);
    t_store_free(&t);
}

/* Another file has the name in backup/ already: both are kept. */
static void test_names_taken_in_backup(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    char path[T_PATH], other[T_PATH], kept[T_PATH];
    make(&t, &image, 13);
    t_path(path, t.dir, "backup");
    assert_int_equal(mkdir(path, 0700), 0);
    t_path(other, t.dir, "backup/" NAME(2, 2, 0));
    t_file_write(other, "another", 7);
    t_path(other, t.dir, "backup/" NAME(2, 2, 0) ".1");
    t_file_write(other, "a third", 7);
    t_path(path, t.dir, "log/" NAME(2, 2, 0));
    t_path(kept, t.dir, "kept");
    copy_file(path, kept);
    t_compact(&t, 2, 2, 1, path);
    t_open(&t);
    t_shows(t.store, &image);
    assert_int_equal(t_file_size(other), 7);
    t_path(other, t.dir, "backup/" NAME(2, 2, 0));
    assert_int_equal(t_file_size(other), 7);
    t_path(other, t.dir, "backup/" NAME(2, 2, 0) ".2");
    expect_same_file(other, kept);
    assert_false(in(&t, "log", NAME(2, 2, 0)));
    expect_goes_on(&t);
    t_image_free(&image);
    t_store_free(&t);
}

/* Ways in which the file of a higher generation is not what it should be. */
enum unsound {
    NO_SEAL,
    FRAME_DAMAGED,
    SEAL_DAMAGED,
    BEHIND_THE_SEAL,
    CUT_IN_A_FRAME,
    WRONG_COUNT,
    HEADERS_DAMAGED,
    EMPTY,
    BLANK,
    UNSOUND_WAYS
};

static uint64_t seal_offset(const char *path)
{
    size_t len;
    char *bytes = t_file_read(path, &len);
    const char *text = memmem(bytes, len, "{\"records\":", 11);
    assert_non_null(text);
    uint64_t offset = (uint64_t)(text - bytes) - FRAME_HEADER_SIZE;
    free(bytes);
    return offset;
}

/* A seal whose checksum is right and whose count of records is not. */
static void forge_seal(const char *path)
{
    struct segment_header stored, header;
    struct frame frame;
    struct seal seal;
    uint32_t unknown;
    size_t len;
    uint64_t at = seal_offset(path);
    char *bytes = t_file_read(path, &len), text[SEAL_TEXT_MAX];
    memcpy(&stored, bytes, sizeof stored);
    assert_int_equal(header_parse(&stored, &header, &unknown), 0);
    assert_int_equal(frame_parse((uint8_t *)bytes + at, len - at, header.salt, at, &frame, NULL),
                     FRAME_GOOD);
    assert_int_equal(seal_decode(frame.body, frame.length, &seal), 0);
    seal.records += seal.records % 10 == 9 ? -1ULL : 1;
    size_t text_len = seal_encode(&seal, text);
    assert_int_equal(text_len, frame.length);
    memcpy(bytes + at + FRAME_HEADER_SIZE, text, text_len);
    frame_finish((uint8_t *)bytes + at, header.salt, at, &frame);
    t_file_write(path, bytes, len);
    free(bytes);
}

static void spoil(const char *path, enum unsound how)
{
    static const char zeros[4096];
    uint64_t size = t_file_size(path);
    switch (how) {
    case NO_SEAL:
        t_file_cut(path, seal_offset(path));
        break;
    case FRAME_DAMAGED:
        t_file_flip(path, size / 2, 2);
        break;
    case SEAL_DAMAGED:
        t_file_flip(path, seal_offset(path) + FRAME_HEADER_SIZE + 12, 1);
        break;
    case BEHIND_THE_SEAL:
        t_file_append(path, "junk", 4);
        break;
    case CUT_IN_A_FRAME:
        t_file_cut(path, size / 2 + 3);
        break;
    case WRONG_COUNT:
        forge_seal(path);
        break;
    case HEADERS_DAMAGED:
        t_file_flip(path, SEGMENT_HEADER_FIRST + 60, 1);
        t_file_flip(path, SEGMENT_HEADER_SECOND + 60, 1);
        break;
    case EMPTY:
        t_file_cut(path, 0);
        break;
    default:
        t_file_write(path, zeros, sizeof zeros);
    }
}

/* It is set aside, and the files that it was made of count on. */
static void test_a_higher_generation_that_is_not_sound(void **state)
{
    (void)state;
    for (enum unsound how = 0; how < UNSOUND_WAYS; how++) {
        struct t_store t;
        struct t_image image;
        char path[T_PATH], kept[T_PATH], aside[T_PATH];
        make(&t, &image, 20 + how);
        t_compact(&t, 2, 4, 1, path);
        spoil(path, how);
        t_path(kept, t.dir, "kept");
        copy_file(path, kept);
        if (how % 2)
            t_lose_index(&t);
        t_open(&t);
        assert_int_equal(t.errors, 1);
        assert_non_null(strstr(t.last_error, NAME(2, 4, 1)));
        t_shows(t.store, &image);
        assert_int_equal(files_in(&t, "backup"), 0);
        assert_false(t_exists(path));
        t_path(aside, t.dir, "quarantine/" NAME(2, 4, 1));
        expect_same_file(aside, kept);
        assert_true(in(&t, "quarantine", NAME(2, 4, 1) ".note"));
        assert_true(in(&t, "log", NAME(3, 3, 0)));
        expect_goes_on(&t);
        t_image_free(&image);
        t_store_free(&t);
    }
}

/* The middle one of three generations is the highest that is sound. */
static void test_the_highest_sound_one_counts(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    char path[T_PATH];
    make(&t, &image, 30);
    t_compact(&t, 2, 3, 1, path);
    t_compact(&t, 2, 4, 2, path);
    spoil(path, FRAME_DAMAGED);
    t_open(&t);
    t_shows(t.store, &image);
    assert_true(in(&t, "quarantine", NAME(2, 4, 2)));
    assert_true(in(&t, "log", NAME(2, 3, 1)));
    assert_true(in(&t, "log", NAME(4, 4, 0)));
    assert_true(in(&t, "backup", NAME(2, 2, 0)));
    assert_true(in(&t, "backup", NAME(3, 3, 0)));
    assert_int_equal(files_in(&t, "log"), t_last_segment(&t) - 1);
    expect_goes_on(&t);
    t_image_free(&image);
    t_store_free(&t);
}

/* A damaged one that holds numbers which nothing else holds stays, and so does all else; one that
 * cannot be read at all hides nothing. */
static void test_an_unsound_one_that_nothing_replaces(void **state)
{
    (void)state;
    for (int which = 0; which < 4; which++) {
        struct t_store t;
        struct t_image image, now;
        struct hl_status status;
        char path[T_PATH];
        bool headers = which & 2;
        make(&t, &image, 31);
        t_compact(&t, 2, 4, 1, path);
        t_open(&t);
        t_close(&t);
        spoil(path, headers ? HEADERS_DAMAGED : FRAME_DAMAGED);
        copy_back(&t, NAME(3, 3, 0));
        if (which & 1)
            t_lose_index(&t);
        t_open(&t);
        assert_true(t.errors > 0);
        t_image_take(t.store, &now);
        uint64_t good = now.records - now.damaged;
        assert_true(good < image.records && good + (headers ? 70 : 12) > image.records);
        assert_int_equal(hl_store_status(t.store, &status), 0);
        assert_int_equal(status.segments, files_in(&t, "log") - 1); /* one of the two */
        t_image_free(&now);
        assert_true(t_exists(path));
        assert_true(in(&t, "log", NAME(3, 3, 0)));
        assert_true(in(&t, "backup", NAME(3, 3, 0)));
        /* With the others back too, it is replaced whole. */
        t_close(&t);
        copy_back(&t, NAME(2, 2, 0));
        copy_back(&t, NAME(4, 4, 0));
        t_open(&t);
        t_shows(t.store, &image);
        assert_false(t_exists(path));
        expect_goes_on(&t);
        t_image_free(&image);
        t_store_free(&t);
    }
}

static void rename_in_log(const struct t_store *t, const char *from, const char *to,
                          void (*change)(struct segment_header *header))
{
    char a[T_PATH], b[T_PATH];
    struct segment_header header, fields;
    uint32_t unknown;
    size_t len;
    t_path(a, t->dir, "log/%s", from);
    t_path(b, t->dir, "log/%s", to);
    char *bytes = t_file_read(a, &len);
    memcpy(&header, bytes, sizeof header);
    free(bytes);
    assert_int_equal(header_parse(&header, &fields, &unknown), 0);
    assert_true(segment_name_parse(to, &fields.first, &fields.last, &fields.generation));
    if (change)
        change(&fields);
    header_finish(&fields);
    assert_int_equal(rename(a, b), 0);
    t_file_poke(b, SEGMENT_HEADER_FIRST, &fields, sizeof fields);
    t_file_poke(b, SEGMENT_HEADER_SECOND, &fields, sizeof fields);
}

static void other_store(struct segment_header *header)
{
    header->store_id[3] ^= 1;
}

/* What no compaction leaves behind is refused by name, and nothing is touched. */
static void test_overlaps_that_say_nothing(void **state)
{
    (void)state;
    for (unsigned which = 0; which < 5; which++) {
        struct t_store t;
        struct t_image image;
        char path[T_PATH], log[T_PATH], **before, **after;
        make(&t, &image, 40 + which);
        int want = -EBADMSG;
        const char *one = NULL, *two = NULL;
        t_compact(&t, 2, 4, 1, path);
        switch (which) {
        case 0: /* a part of one in a part of the other */
            t_compact(&t, 4, 5, 2, log);
            one = NAME(2, 4, 1);
            two = NAME(4, 5, 2);
            break;
        case 1: /* the same generation */
            t_compact(&t, 3, 3, 1, log);
            one = NAME(2, 4, 1);
            two = NAME(3, 3, 1);
            break;
        case 2: /* the lower generation holds more */
            rename_in_log(&t, NAME(3, 3, 0), NAME(3, 3, 2), NULL);
            one = NAME(2, 4, 1);
            two = NAME(3, 3, 2);
            break;
        case 3: /* the same range and generation cannot be; half of the range can */
            t_compact(&t, 4, 5, 1, log);
            one = NAME(2, 4, 1);
            two = NAME(4, 5, 1);
            break;
        default:
            rename_in_log(&t, NAME(2, 4, 1), NAME(2, 4, 1), other_store);
            one = two = "another store";
            want = -EINVAL;
        }
        t_path(log, t.dir, "log");
        size_t count = t_names(log, ".seg", &before);
        assert_int_equal(t_try_open(&t), want);
        assert_non_null(strstr(t.err.text, one));
        assert_non_null(strstr(t.err.text, two));
        assert_int_equal(t_names(log, ".seg", &after), count);
        for (size_t i = 0; i < count; i++)
            assert_string_equal(before[i], after[i]);
        assert_int_equal(files_in(&t, "backup") + files_in(&t, "quarantine"), 0);
        t_names_free(before, count);
        t_names_free(after, count);
        t_image_free(&image);
        t_store_free(&t);
    }
}

/* A read-only store knows which files count, and moves none. */
static void test_read_only_moves_nothing(void **state)
{
    (void)state;
    for (unsigned which = 0; which < 4; which++) {
        struct t_store t;
        struct t_image image;
        char path[T_PATH];
        make(&t, &image, 50 + which);
        t_compact(&t, 2, 4, 1, path);
        if (which & 1)
            spoil(path, NO_SEAL);
        if (which & 2)
            t_lose_index(&t);
        size_t count = files_in(&t, "log");
        t.options.read_only = true;
        t_open(&t);
        t_shows(t.store, &image);
        t_close(&t);
        assert_int_equal(files_in(&t, "log"), count);
        assert_int_equal(files_in(&t, "backup") + files_in(&t, "quarantine"), 0);
        t.options.read_only = false;
        t_open(&t);
        t_shows(t.store, &image);
        assert_int_equal(files_in(&t, "log"), which & 1 ? count - 1 : count - 3);
        t_image_free(&image);
        t_store_free(&t);
    }
}

/* What a compaction had not finished writing goes; what others left there stays. */
static void test_what_was_never_finished(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    char path[T_PATH], kept[T_PATH];
    make(&t, &image, 60);
    t_path(path, t.dir, "log/" NAME(2, 4, 1) ".tmp");
    t_path(kept, t.dir, "log/letter.tmp");
    t_file_write(path, "half", 4);
    t_file_write(kept, "dear", 4);
    t.options.read_only = true;
    t_open(&t);
    t_close(&t);
    assert_true(t_exists(path));
    t.options.read_only = false;
    t_open(&t);
    assert_int_equal(t.warnings, 2); /* one for each */
    assert_false(t_exists(path));
    assert_true(t_exists(kept));
    t_shows(t.store, &image);
    t_image_free(&image);
    t_store_free(&t);
}

/* A call fails on the way: nothing is lost, nothing counts twice, and the next opening goes on. */
static void test_calls_that_fail_on_the_way(void **state)
{
    (void)state;
    static const struct {
        unsigned calls;
        int error;
        bool opens;
    } kinds[] = {
        {1U << T_RENAME, -ENOSPC, true}, {1U << T_MKDIR, -ENOSPC, true},
        {1U << T_RENAME, -EIO, false},   {1U << T_MKDIR, -EDQUOT, true},
        {1U << T_FSYNC, -EIO, false},    {1U << T_PREAD, -EIO, false},
        {1U << T_OPEN, -EACCES, false},  {1U << T_FSTAT, -EIO, false},
    };
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        for (uint64_t nth = 1;; nth++) {
            struct t_store t;
            struct t_image image;
            char path[T_PATH];
            make(&t, &image, 70);
            t_compact(&t, 2, 3, 1, path);
            if (nth % 2)
                spoil(path, WRONG_COUNT);
            t_store_watch(&t);
            t_io_fail(&t.io, kinds[k].calls, NULL, nth, 1, kinds[k].error);
            int error = t_try_open(&t);
            uint64_t failed = t_io_failed(&t.io);
            t_io_heal(&t.io);
            if (error == 0)
                t_shows(t.store, &image);
            else if (kinds[k].opens && kinds[k].calls == 1U << T_RENAME && nth == 1)
                fail_msg("%s", t.err.text);
            if (error == 0)
                t_close(&t);
            t_open(&t);
            t_shows(t.store, &image);
            assert_int_equal(files_in(&t, "backup"), nth % 2 ? 0 : 2);
            expect_goes_on(&t);
            t_image_free(&image);
            t_store_free(&t);
            if (!failed || nth > 60)
                break;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_after_the_rename_of_a_compaction),
        cmocka_unit_test(test_generations_that_nest),
        cmocka_unit_test(test_copied_back_by_hand),
        cmocka_unit_test(test_names_taken_in_backup),
        cmocka_unit_test(test_a_higher_generation_that_is_not_sound),
        cmocka_unit_test(test_the_highest_sound_one_counts),
        cmocka_unit_test(test_an_unsound_one_that_nothing_replaces),
        cmocka_unit_test(test_overlaps_that_say_nothing),
        cmocka_unit_test(test_read_only_moves_nothing),
        cmocka_unit_test(test_what_was_never_finished),
        cmocka_unit_test(test_calls_that_fail_on_the_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
