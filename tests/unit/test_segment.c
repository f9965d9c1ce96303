/* test_segment.c - names, headers, and the set of live segments. */
#include "support.h"

#include <fcntl.h>
#include <unistd.h>

#include "../../store/segment.h"

static void test_names(void **state)
{
    (void)state;
    static const struct {
        uint32_t first, last, generation;
        const char *name;
    } good[] = {
        {1, 1, 0, "00000001-00000001.0.seg"},
        {10, 255, 31, "0000000a-000000ff.1f.seg"},
        {0xffffffff, 0xffffffff, 0xffffffff, "ffffffff-ffffffff.ffffffff.seg"},
    };
    static const char *const bad[] = {
        "",
        "seg",
        "00000001-00000001.0",
        "00000001-00000001.0.seg ",
        " 00000001-00000001.0.seg",
        "00000001-00000001.0.SEG",
        "00000001-00000001.00.seg",
        "0000001-00000001.0.seg",
        "000000001-00000001.0.seg",
        "00000002-00000001.0.seg",
        "00000000-00000000.0.seg",
        "00000000-00000001.0.seg",
        "0000000A-0000000A.0.seg",
        "-0000001-00000001.0.seg",
        "+0000001-00000001.0.seg",
        "00000001-00000001..seg",
        "00000001-00000001.0.seg.tmp",
        "00000001_00000001.0.seg",
    };
    uint32_t first, last, generation;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        char name[SEGMENT_NAME_MAX];
        segment_name_format(name, good[i].first, good[i].last, good[i].generation);
        assert_string_equal(name, good[i].name);
        assert_true(segment_name_parse(name, &first, &last, &generation));
        assert_int_equal(first, good[i].first);
        assert_int_equal(last, good[i].last);
        assert_int_equal(generation, good[i].generation);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (segment_name_parse(bad[i], &first, &last, &generation))
            fail_msg("%s is a name", bad[i]);
    }
}

struct room {
    char dir[T_PATH];
    int fd;
    struct t_io io;
    struct segment_set set;
};

static void room_make(struct room *room)
{
    t_dir_make(room->dir);
    room->fd = open(room->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(room->fd >= 0);
    t_io_init(&room->io);
    segment_set_init(&room->set, &room->io.io, room->fd, true);
}

static void room_free(struct room *room)
{
    segment_set_free(&room->set);
    t_io_free(&room->io);
    close(room->fd);
    t_dir_remove(room->dir);
}

static const uint8_t id[16] = "0123456789abcde";

static struct segment *create(struct room *room, uint32_t number)
{
    struct segment *segment;
    assert_int_equal(segment_create(&room->set, number, id, 1000 + number, &segment), 0);
    return segment;
}

static void test_create_and_load(void **state)
{
    (void)state;
    struct room room;
    struct segment *loaded, *again;
    room_make(&room);
    struct segment *made = create(&room, 3);
    assert_int_equal(made->size, SEGMENT_HEADER_REGION);
    assert_int_equal(segment_load(&room.set, made->name, &loaded, NULL), 0);
    assert_int_equal(loaded->first, 3);
    assert_int_equal(loaded->last, 3);
    assert_int_equal(loaded->salt, made->salt);
    assert_int_equal(loaded->created_ms, 1003);
    assert_memory_equal(loaded->store_id, id, sizeof id);
    assert_false(loaded->header_damaged);
    /* A number is used once; salts differ. */
    assert_int_equal(segment_create(&room.set, 3, id, 1, &again), -EEXIST);
    struct segment *other = create(&room, 4);
    assert_true(other->salt != made->salt);
    /* A file under another's name is refused. */
    char from[T_PATH], to[T_PATH];
    t_path(from, room.dir, "%s", made->name);
    static const char *const others[] = {"00000009-00000009.0.seg", "00000003-00000004.0.seg",
                                         "00000003-00000003.1.seg"};
    size_t len;
    char *bytes = t_file_read(from, &len);
    struct hl_error err = {0};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        t_path(to, room.dir, "%s", others[i]);
        t_file_write(to, bytes, len);
        assert_int_equal(segment_load(&room.set, others[i], &again, &err), -EBADMSG);
        assert_true(err.text[0]);
    }
    free(bytes);
    assert_int_equal(segment_load(&room.set, "00000008-00000008.0.seg", &again, &err), -ENOENT);
    assert_int_equal(segment_load(&room.set, "letter.txt", &again, &err), -EINVAL);
    segment_free(&room.set, made);
    segment_free(&room.set, loaded);
    segment_free(&room.set, other);
    room_free(&room);
}

/* Making a segment fails at each call: no file stays, and the next try succeeds. */
static void test_create_that_fails(void **state)
{
    (void)state;
    static const unsigned kinds[] = {1U << T_OPEN, 1U << T_PWRITE, 1U << T_FSYNC};
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        for (uint64_t nth = 1; nth <= (k == 2 ? 2 : 1); nth++) {
            struct room room;
            struct segment *segment;
            char path[T_PATH];
            room_make(&room);
            t_io_fail(&room.io, kinds[k], NULL, nth, 1, -ENOSPC);
            assert_int_equal(segment_create(&room.set, 1, id, 1, &segment), -ENOSPC);
            t_io_heal(&room.io);
            t_path(path, room.dir, "00000001-00000001.0.seg");
            assert_false(t_exists(path));
            segment_free(&room.set, create(&room, 1));
            room_free(&room);
        }
    }
}

/* Nor can what was begun be removed: the next try takes it. */
static void test_create_that_fails_and_leaves_a_file(void **state)
{
    (void)state;
    for (int cut = 0; cut < 2; cut++) {
        struct room room;
        struct segment *segment;
        char path[T_PATH];
        room_make(&room);
        t_io_fail(&room.io, 1U << T_PWRITE | 1U << T_UNLINK, NULL, 1, 1000, -EIO);
        assert_int_equal(segment_create(&room.set, 1, id, 1, &segment), -EIO);
        t_io_heal(&room.io);
        t_path(path, room.dir, "00000001-00000001.0.seg");
        assert_true(t_exists(path));
        t_file_cut(path, cut ? 0 : 100); /* as much as was written */
        segment_free(&room.set, create(&room, 1));
        assert_int_equal(segment_load(&room.set, "00000001-00000001.0.seg", &segment, NULL), 0);
        segment_free(&room.set, segment);
        room_free(&room);
    }
}

/* A power cut may leave any part of a header that was not synced: of such a file nothing is lost.
 */
static void test_a_torn_header(void **state)
{
    (void)state;
    for (int torn = 0; torn < 3; torn++) {
        struct room room;
        struct segment *segment, *made;
        char path[T_PATH];
        room_make(&room);
        made = create(&room, 1);
        t_path(path, room.dir, "%s", made->name);
        t_file_flip(path, SEGMENT_HEADER_FIRST + 20, 1);
        t_file_flip(path, SEGMENT_HEADER_SECOND + 20, 1);
        if (torn == 1)
            t_file_cut(path, SEGMENT_HEADER_SECOND + 60);
        if (torn == 2) /* something stands behind it, so it was synced: damage */
            t_file_append(path, "frames", 6);
        assert_int_equal(segment_load(&room.set, made->name, &segment, NULL),
                         torn == 2 ? -EBADMSG : -ENODATA);
        if (torn != 2)
            segment_free(&room.set, create(&room, 1));
        segment_free(&room.set, made);
        room_free(&room);
    }
}

static void test_the_set(void **state)
{
    (void)state;
    struct room room;
    struct segment *segment;
    uint64_t before;
    static const uint32_t numbers[] = {5, 2, 9, 3, 4};
    room_make(&room);
    for (size_t i = 0; i < 5; i++) {
        segment = create(&room, numbers[i]);
        segment->line_bytes = numbers[i] * 10;
        assert_int_equal(segment_set_add(&room.set, segment), 0);
    }
    for (uint32_t number = 1; number < 12; number++) {
        bool there = number == 9 || (number >= 2 && number <= 5);
        assert_int_equal(segment_get(&room.set, number, &segment), there ? 0 : -ENOENT);
        if (there) {
            assert_int_equal(segment->first, number);
            segment_put(&room.set, segment);
        }
    }
    static const uint32_t ascending[] = {2, 3, 4, 5, 9};
    uint32_t after = 0;
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(segment_get_next(&room.set, after, &segment), 0);
        assert_int_equal(segment->first, ascending[i]);
        after = segment->first;
        segment_put(&room.set, segment);
    }
    assert_int_equal(segment_get_next(&room.set, after, &segment), -ENOENT);
    for (uint64_t offset = 0, i = 0, begin = 0; offset < 230; offset++) {
        while (offset >= begin + ascending[i] * 10)
            begin += ascending[i++] * 10;
        assert_int_equal(segment_get_by_line(&room.set, offset, &segment, &before), 0);
        assert_int_equal(segment->first, ascending[i]);
        assert_int_equal(before, begin);
        segment_put(&room.set, segment);
    }
    assert_int_equal(segment_get_by_line(&room.set, 230, &segment, &before), -ENOENT);
    segment_put(&room.set, NULL);
    room_free(&room);
}

/* Few files are open at once; those in use stay open. */
static void test_files_are_closed_and_opened_again(void **state)
{
    (void)state;
    struct room room;
    struct segment *used, *segment;
    room_make(&room);
    for (uint32_t i = 1; i <= SEGMENT_OPEN_MAX + 50; i++) {
        segment = create(&room, i);
        assert_int_equal(segment_set_add(&room.set, segment), 0);
        assert_true(segment->fd >= 0); /* what was just added is not what is closed */
        if (i == 1)
            assert_int_equal(segment_get(&room.set, 1, &used), 0);
    }
    assert_true(room.set.open <= SEGMENT_OPEN_MAX);
    assert_true(used->fd >= 0);
    for (uint32_t i = 2; i <= SEGMENT_OPEN_MAX + 50; i++) {
        assert_int_equal(segment_get(&room.set, i, &segment), 0);
        assert_true(segment->fd >= 0);
        segment_put(&room.set, segment);
        assert_true(room.set.open <= SEGMENT_OPEN_MAX);
    }
    assert_true(used->fd >= 0);
    segment_put(&room.set, used);
    /* A live segment whose file is gone is an error, not a record that is not there. */
    char path[T_PATH];
    t_path(path, room.dir, "00000003-00000003.0.seg");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(segment_get(&room.set, 3, &segment), -EIO);
    room_free(&room);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_create_and_load),
        cmocka_unit_test(test_create_that_fails),
        cmocka_unit_test(test_create_that_fails_and_leaves_a_file),
        cmocka_unit_test(test_a_torn_header),
        cmocka_unit_test(test_the_set),
        cmocka_unit_test(test_files_are_closed_and_opened_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
