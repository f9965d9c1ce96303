/* test_read.c - records and logs read at any offset and size, by cursors, and while appends and
 * flushes go on. */
#include "support.h"

#include <inttypes.h>
#include <stdatomic.h>

/* A store with its logs: some in the index, some in the memtable, over several segments. */
struct filled {
    struct t_store t;
    struct t_image image;
    uint64_t chance;
};

static void filled_make(struct filled *f, const char *test)
{
    f->chance = t_seed(test);
    t_store_init(&f->t);
    f->t.options.segment_size = 40 * 1024;
    t_open(&f->t);
    uint32_t a = t_session(&f->t, "a"), b = t_session(&f->t, "b");
    t_session(&f->t, "empty");
    for (int i = 0; i < 4; i++) {
        t_fill(&f->t, a, 100, 10, 30, &f->chance);
        t_fill(&f->t, b, 30, 3, 1500, &f->chance);
        t_append_format(&f->t, b, "{\"seq\":%" PRIu64 "}\n",
                        UINT64_C(6000000000) * (unsigned)(i + 1));
        if (i < 3)
            assert_int_equal(hl_checkpoint(f->t.store, NULL, &f->t.err), 0);
    }
    t_image_take(f->t.store, &f->image);
}

static void filled_free(struct filled *f)
{
    t_image_free(&f->image);
    t_store_free(&f->t);
}

static void expect_piece(struct filled *f, uint32_t session, const char *whole, size_t whole_len,
                         uint64_t offset, size_t size, struct hl_cursor *cursor)
{
    static char piece[70000];
    assert_true(size <= sizeof piece);
    size_t left = offset < whole_len ? whole_len - (size_t)offset : 0;
    size_t wanted = size < left ? size : left;
    ssize_t n = session ? hl_log_read(f->t.store, session, offset, piece, size, cursor)
                        : hl_root_log_read(f->t.store, offset, piece, size, cursor);
    assert_int_equal(n, wanted);
    if (wanted)
        assert_memory_equal(piece, whole + offset, wanted);
}

/* Each log as number, bytes and length; the root log has number 0. */
static void log_of(const struct filled *f, size_t i, uint32_t *number, const char **text,
                   size_t *len)
{
    if (i < f->image.count) {
        *number = f->image.sessions[i].about.number;
        *text = f->image.sessions[i].log;
        *len = f->image.sessions[i].log_len;
    } else {
        *number = 0;
        *text = f->image.root;
        *len = f->image.root_len;
    }
}

static void test_any_offset_and_size(void **state)
{
    (void)state;
    struct filled f;
    filled_make(&f, "test_any_offset_and_size");
    for (unsigned round = 0; round < (t_slow() ? 300 : 3000); round++) {
        uint32_t number;
        const char *text;
        size_t len;
        log_of(&f, t_below(&f.chance, f.image.count + 1), &number, &text, &len);
        uint64_t offset = t_below(&f.chance, len + 10);
        size_t size = (size_t)t_below(&f.chance, round % 10 ? 600 : 70000);
        expect_piece(&f, number, text, len, offset, size, NULL);
    }
    for (size_t i = 0; i <= f.image.count; i++) {
        uint32_t number;
        const char *text;
        size_t len;
        log_of(&f, i, &number, &text, &len);
        expect_piece(&f, number, text, len, len, 10, NULL);
        expect_piece(&f, number, text, len, len + 1, 10, NULL);
        expect_piece(&f, number, text, len, UINT64_MAX - 5, 3, NULL);
        expect_piece(&f, number, text, len, 0, 0, NULL);
    }
    filled_free(&f);
}

/* Cursors are hints: streams read with them, jumping now and then, see the same bytes. */
static void test_cursors(void **state)
{
    (void)state;
    struct filled f;
    filled_make(&f, "test_cursors");
    for (size_t i = 0; i <= f.image.count; i++) {
        uint32_t number;
        const char *text;
        size_t len;
        log_of(&f, i, &number, &text, &len);
        for (unsigned round = 0; round < (t_slow() ? 4 : 30); round++) {
            struct hl_cursor cursor = {0}, other = {0};
            uint64_t at = 0;
            unsigned jumps = 0;
            while (at < len + 3) {
                size_t size = 1 + (size_t)t_below(&f.chance, round % 2 ? 9000 : 300);
                expect_piece(&f, number, text, len, at, size, &cursor);
                at += size;
                if (t_below(&f.chance, 30) == 0 && jumps++ < 5)
                    at = t_below(&f.chance, len + 1);
                if (t_below(&f.chance, 30) == 0) { /* two streams in turn, and copies */
                    struct hl_cursor copy = cursor;
                    cursor = other;
                    other = copy;
                }
            }
        }
    }
    filled_free(&f);
}

/* Behind the end there is nothing, whatever the cursor knows: once it was a newline. */
static void test_behind_the_end(void **state)
{
    (void)state;
    struct filled f;
    filled_make(&f, "test_behind_the_end");
    for (size_t i = 0; i <= f.image.count; i++) {
        uint32_t number;
        const char *text;
        size_t len;
        log_of(&f, i, &number, &text, &len);
        for (size_t before = 1; before < 200 && before < len; before++) {
            struct hl_cursor cursor = {0};
            expect_piece(&f, number, text, len, len - before, before / 2 + 1, &cursor);
            expect_piece(&f, number, text, len, len + 1 + before % 3, 100, &cursor);
        }
    }
    filled_free(&f);
}

/* A stream that reached the end goes on when more comes, also over a flush, a rotation, another
 * opening. */
static void test_a_stream_goes_on(void **state)
{
    (void)state;
    struct filled f;
    filled_make(&f, "test_a_stream_goes_on");
    uint32_t a = t_number(&f.t, "a");
    struct hl_cursor cursor = {0}, root = {0};
    uint64_t at = 0, root_at = 0;
    char *got = malloc(1 << 20), *root_got = malloc(1 << 20);
    assert_non_null(got);
    assert_non_null(root_got);
    for (unsigned round = 0; round < 40; round++) {
        ssize_t n;
        while ((n = hl_log_read(f.t.store, a, at, got + at, 7000, &cursor)) > 0)
            at += (uint64_t)n;
        assert_int_equal(n, 0);
        while ((n = hl_root_log_read(f.t.store, root_at, root_got + root_at, 7000, &root)) > 0)
            root_at += (uint64_t)n;
        assert_int_equal(n, 0);
        t_fill(&f.t, a, 1 + (unsigned)t_below(&f.chance, 30), 5, 100, &f.chance);
        if (round % 4 == 1)
            assert_int_equal(hl_checkpoint(f.t.store, NULL, &f.t.err), 0);
        if (round % 4 == 2)
            assert_int_equal(hl_rotate(f.t.store, &f.t.err), 0);
        if (round % 8 == 3)
            t_reopen(&f.t);
    }
    t_image_free(&f.image);
    t_image_take(f.t.store, &f.image);
    assert_memory_equal(got, t_image_find(&f.image, "a")->log, at);
    assert_memory_equal(root_got, f.image.root, root_at);
    free(got);
    free(root_got);
    filled_free(&f);
}

static void test_extents(void **state)
{
    (void)state;
    struct filled f;
    filled_make(&f, "test_extents");
    for (size_t i = 0; i < f.image.count; i++) {
        const struct t_session_image *session = &f.image.sessions[i];
        uint64_t begin, end;
        for (unsigned round = 0; round < 600; round++) {
            uint64_t from = t_below(&f.chance, 500), to = t_below(&f.chance, 500);
            if (round % 3 == 0)
                from += UINT64_C(6000000000) * t_below(&f.chance, 5);
            if (round % 5 < 2)
                to += UINT64_C(6000000000) * t_below(&f.chance, 5);
            if (round == 0) {
                from = 0;
                to = HL_SEQ_MAX;
            }
            uint64_t wanted_begin = 0, wanted_end = 0, at = 0;
            bool any = false;
            for (size_t k = 0; k < session->about.records; k++) {
                uint64_t seq = session->lines[k].seq;
                if (seq >= from && seq <= to) {
                    if (!any)
                        wanted_begin = at;
                    any = true;
                    wanted_end = at + session->lines[k].length;
                }
                at += session->lines[k].length;
            }
            assert_int_equal(
                hl_log_extent(f.t.store, session->about.number, from, to, &begin, &end), 0);
            if (any) {
                assert_int_equal(begin, wanted_begin);
                assert_int_equal(end, wanted_end);
            } else {
                assert_int_equal(begin, end);
            }
        }
    }
    uint64_t begin, end;
    assert_int_equal(hl_log_extent(f.t.store, 77, 1, 2, &begin, &end), -ENOENT);
    filled_free(&f);
}

struct listed {
    const struct t_session_image *session;
    size_t next, stop;
    bool details, wrong;
};

static bool check_listed(void *context, const struct hl_record *record)
{
    struct listed *listed = context;
    if (listed->next >= listed->session->about.records ||
        record->seq != listed->session->lines[listed->next].seq ||
        record->length != listed->session->lines[listed->next].length ||
        (listed->details && (!record->recorded_ms || !record->ts_ms || !record->offset)))
        listed->wrong = true;
    return ++listed->next != listed->stop;
}

static void test_lists(void **state)
{
    (void)state;
    struct filled f;
    filled_make(&f, "test_lists");
    for (unsigned round = 0; round < 400; round++) {
        const struct t_session_image *session =
            &f.image.sessions[t_below(&f.chance, f.image.count)];
        struct listed listed = {.session = session, .details = round % 4 == 0};
        uint64_t from = t_below(&f.chance, 500) +
                        (round % 3 ? 0 : UINT64_C(6000000000) * t_below(&f.chance, 5));
        while (listed.next < session->about.records && session->lines[listed.next].seq < from)
            listed.next++;
        listed.stop = round % 2 ? listed.next + 1 + t_below(&f.chance, 200) : 0;
        size_t wanted = listed.stop && listed.stop < session->about.records
                            ? listed.stop
                            : session->about.records;
        assert_int_equal(hl_record_list(f.t.store, session->about.number, from, listed.details,
                                        check_listed, &listed),
                         0);
        assert_false(listed.wrong);
        assert_int_equal(listed.next, wanted);
    }
    filled_free(&f);
}

static void test_pieces_of_a_record(void **state)
{
    (void)state;
    struct filled f;
    filled_make(&f, "test_pieces_of_a_record");
    uint32_t b = t_number(&f.t, "b");
    for (uint64_t seq = 1; seq <= 30; seq++) {
        size_t len;
        char piece[2500];
        const char *line = t_image_line(&f.image, "b", seq, &len);
        assert_non_null(line);
        uint64_t offset = t_below(&f.chance, len + 3);
        size_t size = (size_t)t_below(&f.chance, sizeof piece);
        size_t wanted = offset < len ? len - offset : 0;
        if (wanted > size)
            wanted = size;
        assert_int_equal(hl_record_read(f.t.store, b, seq, piece, size, offset), wanted);
        if (wanted)
            assert_memory_equal(piece, line + offset, wanted);
        assert_int_equal(hl_record_read(f.t.store, b, seq, piece, 10, UINT64_MAX), 0);
    }
    filled_free(&f);
}

/* ---- readers beside an appender, flushes and a reindex ---- */

struct stream {
    struct hl_store *store;
    uint32_t session; /* 0: root */
    atomic_bool *over;
    char *got;
    size_t len, room;
    int error;
};

static void *read_stream(void *context)
{
    struct stream *stream = context;
    struct hl_cursor cursor = {0};
    uint64_t chance = stream->session;
    for (;;) {
        bool last = atomic_load(stream->over);
        size_t size = 1 + (size_t)t_below(&chance, 9000);
        if (size > stream->room - stream->len)
            size = stream->room - stream->len;
        struct hl_cursor *hint = t_below(&chance, 4) ? &cursor : NULL;
        ssize_t n = stream->session ? hl_log_read(stream->store, stream->session, stream->len,
                                                  stream->got + stream->len, size, hint)
                                    : hl_root_log_read(stream->store, stream->len,
                                                       stream->got + stream->len, size, hint);
        if (n < 0) {
            stream->error = (int)n;
            return NULL;
        }
        stream->len += (size_t)n;
        if (n == 0 && last)
            return NULL;
        struct hl_session about;
        uint32_t after = 0;
        while (t_below(&chance, 20) == 0 && hl_session_next(stream->store, after, &about) == 0)
            after = about.number;
    }
}

static void test_streams_beside_an_appender(void **state)
{
    (void)state;
    struct t_store t;
    pthread_t threads[4];
    struct stream streams[4];
    atomic_bool over = false;
    uint64_t chance = t_seed("test_streams_beside_an_appender");
    t_store_init(&t);
    t.options.segment_size = 100 * 1024;
    t_open(&t);
    uint32_t sessions[3] = {t_session(&t, "a"), t_session(&t, "b"), t_session(&t, "c")};
    for (size_t i = 0; i < 4; i++) {
        streams[i] = (struct stream){
            .store = t.store, .session = i < 3 ? sessions[i] : 0, .over = &over, .room = 16 << 20};
        streams[i].got = malloc(streams[i].room);
        assert_non_null(streams[i].got);
        assert_int_equal(pthread_create(&threads[i], NULL, read_stream, &streams[i]), 0);
    }
    for (unsigned round = 0; round < (t_slow() ? 60 : 300); round++) {
        t_fill(&t, sessions[t_below(&chance, 3)], 20, 1 + (unsigned)t_below(&chance, 6), 200,
               &chance);
        t_append_format(&t, 0, "{\"session_id\":\"n%u\"}\n{\"session_id\":\"a\"}\n", round % 50);
        if (round % 30 == 10)
            assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
        if (round % 70 == 50)
            assert_int_equal(hl_reindex(t.store, NULL, &t.err), 0);
    }
    atomic_store(&over, true);
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    struct t_image image;
    t_image_take(t.store, &image);
    assert_int_equal(t.errors, 0);
    for (size_t i = 0; i < 4; i++) {
        const char *whole = i < 3 ? image.sessions[i].log : image.root;
        size_t len = i < 3 ? image.sessions[i].log_len : image.root_len;
        assert_int_equal(streams[i].error, 0);
        assert_int_equal(streams[i].len, len);
        assert_memory_equal(streams[i].got, whole, len);
        free(streams[i].got);
    }
    t_image_free(&image);
    t_store_free(&t);
}

/* A device that fails is no damage and no end: the reader is told, and later reads are right. */
static void test_reads_that_fail(void **state)
{
    (void)state;
    struct filled f;
    char buffer[100000];
    filled_make(&f, "test_reads_that_fail");
    t_close(&f.t);
    t_store_watch(&f.t);
    t_open(&f.t);
    uint32_t a = t_number(&f.t, "a");
    t_io_fail(&f.t.io, 1U << T_PREAD, ".seg", 1, 1000000, -EIO);
    struct hl_record record;
    assert_int_equal(hl_record_read(f.t.store, a, 3, buffer, 100, 0), -EIO);
    assert_int_equal(hl_record_find(f.t.store, a, 3, &record), -EIO);
    assert_int_equal(hl_log_read(f.t.store, a, 0, buffer, sizeof buffer, NULL), -EIO);
    assert_int_equal(hl_root_log_read(f.t.store, 0, buffer, sizeof buffer, NULL), -EIO);
    t_io_fail(&f.t.io, 1U << T_PREAD, ".seg", 1, 1000000, 0); /* short ones are read on */
    expect_piece(&f, a, f.image.sessions[0].log, f.image.sessions[0].log_len, 0, 9000, NULL);
    expect_piece(&f, 0, f.image.root, f.image.root_len, 0, 70000, NULL);
    t_io_heal(&f.t.io);
    struct hl_status status;
    hl_store_status(f.t.store, &status);
    assert_int_equal(status.damage_found, 0);
    t_shows(f.t.store, &f.image);
    filled_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_offset_and_size),
        cmocka_unit_test(test_cursors),
        cmocka_unit_test(test_behind_the_end),
        cmocka_unit_test(test_a_stream_goes_on),
        cmocka_unit_test(test_extents),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_pieces_of_a_record),
        cmocka_unit_test(test_streams_beside_an_appender),
        cmocka_unit_test(test_reads_that_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
