/* test_scan.c - frames one after another, over gaps, zeros and tails. */
#include "support.h"

#include <fcntl.h>
#include <unistd.h>

#include "../../store/scan.h"

#define FRAMES 60
#define SALT 4711

struct file {
    char dir[T_PATH], path[T_PATH];
    int fd;
    uint8_t *bytes;
    size_t len;
    uint64_t at[FRAMES + 1]; /* where each begins, and the end */
};

static void file_make(struct file *file, uint64_t *chance, size_t largest)
{
    size_t capacity = FRAMES * (largest + 64);
    t_dir_make(file->dir);
    t_path(file->path, file->dir, "frames");
    file->bytes = calloc(1, capacity);
    assert_non_null(file->bytes);
    file->len = 0;
    for (size_t i = 0; i < FRAMES; i++) {
        size_t len = 1 + (size_t)t_below(chance, i == 7 ? largest : 300);
        struct frame frame = {.length = (uint32_t)len,
                              .seq = i,
                              .session = 1,
                              .recorded_ms = 1,
                              .type = FRAME_EVENT,
                              .flags = FRAME_FIRST_OF_BATCH | FRAME_LAST_OF_BATCH};
        file->at[i] = file->len;
        memset(file->bytes + file->len + FRAME_HEADER_SIZE, 'a' + (int)(i % 26), len);
        file->bytes[file->len + FRAME_HEADER_SIZE + len - 1] = '\n';
        file->len += (size_t)frame_finish(file->bytes + file->len, SALT, file->len, &frame);
    }
    file->at[FRAMES] = file->len;
    t_file_write(file->path, file->bytes, file->len);
    file->fd = open(file->path, O_RDWR | O_CLOEXEC);
    assert_true(file->fd >= 0);
}

static void file_free(struct file *file)
{
    close(file->fd);
    free(file->bytes);
    t_dir_remove(file->dir);
}

/* Scans; good[i] says whether frame i was found. Items must cover the file without a hole. */
static void scan_all(const struct file *file, uint64_t from, uint64_t end, bool good[FRAMES],
                     struct scan_item *last_bad, uint64_t *frames_end)
{
    struct scan scan;
    struct scan_item item;
    uint64_t at = from;
    memset(good, 0, FRAMES);
    memset(last_bad, 0, sizeof *last_bad);
    last_bad->kind = SCAN_END;
    scan_init(&scan, &hl_io_system, file->fd, SALT, from, end);
    for (;;) {
        assert_int_equal(scan_next(&scan, &item), 0);
        if (item.kind == SCAN_END)
            break;
        assert_int_equal(item.offset, at);
        assert_true(item.size > 0);
        at += item.size;
        if (item.kind == SCAN_FRAME) {
            assert_true(item.frame.seq < FRAMES);
            assert_int_equal(file->at[item.frame.seq], item.offset);
            assert_false(good[item.frame.seq]);
            assert_memory_equal(item.frame.body, file->bytes + item.offset + FRAME_HEADER_SIZE,
                                item.frame.length);
            good[item.frame.seq] = true;
        } else {
            *last_bad = item;
        }
    }
    *frames_end = item.offset;
    scan_free(&scan);
}

static void test_whole(void **state)
{
    (void)state;
    struct file file;
    struct scan_item bad;
    bool good[FRAMES];
    uint64_t end, chance = t_seed("test_whole");
    file_make(&file, &chance, 900000); /* one is larger than the buffer */
    scan_all(&file, 0, file.len, good, &bad, &end);
    for (size_t i = 0; i < FRAMES; i++)
        assert_true(good[i]);
    assert_int_equal(bad.kind, SCAN_END);
    assert_int_equal(end, file.len);
    scan_all(&file, file.at[30], file.at[40], good, &bad, &end);
    for (size_t i = 0; i < FRAMES; i++)
        assert_int_equal(good[i], i >= 30 && i < 40);
    file_free(&file);
}

/* Bytes are overwritten somewhere: the frames that were hit are gone, all others are found. */
static void test_gaps(void **state)
{
    (void)state;
    struct file file;
    struct scan_item bad;
    bool good[FRAMES];
    uint64_t end, chance = t_seed("test_gaps");
    file_make(&file, &chance, 5000);
    for (int round = 0; round < 500; round++) {
        uint8_t junk[900];
        uint64_t from = t_below(&chance, file.len), size = 1 + t_below(&chance, sizeof junk);
        if (size > file.len - from)
            size = file.len - from;
        for (size_t i = 0; i < size; i++)
            junk[i] = round % 3 == 0 ? 0 : (uint8_t)(t_random(&chance));
        if (round % 3 == 2) /* bytes of frames from elsewhere in the file: copies are no frames */
            memcpy(junk, file.bytes + file.at[t_below(&chance, 30)], size);
        t_file_poke(file.path, from, junk, size);
        scan_all(&file, 0, file.len, good, &bad, &end);
        bool any = false;
        for (size_t i = 0; i < FRAMES; i++) {
            uint64_t begin = from > file.at[i] ? from : file.at[i];
            uint64_t stop = from + size < file.at[i + 1] ? from + size : file.at[i + 1];
            bool hit = begin < stop && memcmp(file.bytes + begin, junk + (begin - from),
                                              (size_t)(stop - begin)) != 0;
            assert_int_equal(good[i], !hit);
            any = any || hit;
        }
        if (any && good[FRAMES - 1])
            assert_int_equal(bad.kind, SCAN_GAP);
        t_file_poke(file.path, from, file.bytes + from, size);
    }
    file_free(&file);
}

static void test_tails(void **state)
{
    (void)state;
    struct file file;
    struct scan_item bad;
    bool good[FRAMES];
    static const uint8_t zeros[70000];
    uint64_t end, chance = 6;
    file_make(&file, &chance, 400);
    /* Zeros are the end. */
    t_file_append(file.path, zeros, sizeof zeros);
    scan_all(&file, 0, file.len + sizeof zeros, good, &bad, &end);
    assert_int_equal(bad.kind, SCAN_END);
    assert_int_equal(end, file.len);
    /* What is not zero in them is a tail that ends with it. */
    t_file_poke(file.path, file.len + 5000, "x", 1);
    scan_all(&file, 0, file.len + sizeof zeros, good, &bad, &end);
    assert_int_equal(bad.kind, SCAN_TAIL);
    assert_int_equal(bad.offset, file.len);
    assert_int_equal(bad.size, 5001);
    assert_int_equal(end, file.len);
    /* Cut anywhere: whole frames, then a tail or nothing. */
    for (uint64_t cut = file.at[FRAMES - 2]; cut <= file.len; cut++) {
        t_file_cut(file.path, cut);
        scan_all(&file, 0, cut, good, &bad, &end);
        assert_int_equal(good[FRAMES - 2], cut >= file.at[FRAMES - 1]);
        assert_int_equal(good[FRAMES - 1], cut == file.len);
        uint64_t rest = cut >= file.at[FRAMES - 1] ? file.at[FRAMES - 1] : file.at[FRAMES - 2];
        uint64_t last = cut == file.len ? rest : cut;
        while (last > rest && file.bytes[last - 1] == 0)
            last--;
        assert_int_equal(bad.kind, last > rest ? SCAN_TAIL : SCAN_END);
        if (last > rest) {
            assert_int_equal(bad.offset, rest);
            assert_int_equal(bad.offset + bad.size, last);
        }
        t_file_poke(file.path, cut, file.bytes + cut, file.len - cut);
    }
    file_free(&file);
}

/* A header that promises far more than there is takes nothing behind it along. */
static void test_huge_lengths(void **state)
{
    (void)state;
    struct file file;
    struct scan_item bad;
    bool good[FRAMES];
    uint64_t end, chance = 7;
    file_make(&file, &chance, 400);
    static const uint32_t lengths[] = {0x1fffffff, 0x10000000, 20000, 0xffffffff, 0};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        uint32_t length = htole32(lengths[i]);
        t_file_poke(file.path, file.at[20] + 4, &length, sizeof length);
        scan_all(&file, 0, file.len, good, &bad, &end);
        for (size_t k = 0; k < FRAMES; k++)
            assert_int_equal(good[k], k != 20);
        assert_int_equal(bad.kind, SCAN_GAP);
        assert_int_equal(bad.offset, file.at[20]);
        assert_int_equal(bad.size, file.at[21] - file.at[20]);
    }
    file_free(&file);
}

/* An error of the device is told, not taken for the end or for damage. */
static void test_errors(void **state)
{
    (void)state;
    struct file file;
    struct t_io io;
    struct scan scan;
    struct scan_item item = {.kind = SCAN_FRAME};
    uint64_t chance = 8;
    file_make(&file, &chance, 900000);
    t_io_init(&io);
    for (uint64_t nth = 1; nth <= 3; nth++) {
        int error = 0;
        t_io_fail(&io, 1U << T_PREAD, NULL, nth, 1, -EIO);
        scan_init(&scan, &io.io, file.fd, SALT, 0, file.len);
        do
            error = scan_next(&scan, &item);
        while (error == 0 && item.kind == SCAN_FRAME);
        if (t_io_failed(&io))
            assert_int_equal(error, -EIO);
        else
            assert_int_equal(item.kind, SCAN_END);
        scan_free(&scan);
    }
    t_io_free(&io);
    file_free(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),  cmocka_unit_test(test_gaps),
        cmocka_unit_test(test_tails),  cmocka_unit_test(test_huge_lengths),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
