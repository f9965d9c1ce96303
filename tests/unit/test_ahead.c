/* test_ahead.c - pieces of a log that are read before they are asked for. */
#include "support.h"

#include "../../fs/ahead.h"
#include "../../fs/dropped.h"

#define SIZE ((size_t)40 << 10)
#define LINES 2000U

/* A store with a log, and somebody who has read its first piece. */
struct reading {
    struct t_store t;
    struct dropped *dropped;
    struct ahead *ahead;
    struct ahead_reader reader;
    char expected[SIZE]; /* what follows */
    struct hl_cursor behind;
};

static void read_expected(struct reading *r)
{
    r->behind = r->reader.cursor;
    assert_int_equal(
        hl_log_read(r->t.store, r->reader.session, r->reader.offset, r->expected, SIZE, &r->behind),
        SIZE);
}

/* As the mount does. */
static void take_news(void *context, const struct hl_news *news)
{
    struct reading *r = context;
    if (news->dropped_records > 0)
        assert_true(dropped_add(r->dropped, news->session, news->dropped_bytes));
}

static void begin(struct reading *r)
{
    t_store_init(&r->t);
    r->dropped = dropped_new();
    r->t.options.news = take_news;
    r->t.options.news_context = r;
    t_open(&r->t);
    uint32_t session = t_session(&r->t, "s");
    for (unsigned i = 0; i < LINES; i++)
        t_append_format(&r->t, session, "{\"n\":%u}\n", i);
    r->ahead = ahead_new(r->dropped);
    assert_non_null(r->ahead);
    r->reader = (struct ahead_reader){
        .id = ahead_reader_id(r->ahead), .session = session, .offset = SIZE, .size = SIZE};
    assert_int_equal(hl_log_read(r->t.store, session, 0, r->expected, SIZE, &r->reader.cursor),
                     SIZE);
    read_expected(r);
}

static void end(struct reading *r)
{
    ahead_free(r->ahead);
    t_store_free(&r->t);
    dropped_free(r->dropped);
}

static struct ahead_piece *take(struct reading *r)
{
    return ahead_take(r->ahead, r->t.store, &r->reader);
}

static void fetch(struct reading *r)
{
    ahead_read(r->ahead, r->t.store, &r->reader);
}

static void assert_piece(struct reading *r)
{
    struct ahead_piece *piece = take(r);
    assert_non_null(piece);
    assert_memory_equal(ahead_bytes(piece), r->expected, SIZE);
    assert_memory_equal(ahead_cursor(piece), &r->behind, sizeof r->behind);
    ahead_put(r->ahead, piece);
}

static void test_it_is_what_would_be_read(void **state)
{
    struct reading r;
    (void)state;
    begin(&r);
    assert_null(take(&r));
    fetch(&r);
    assert_piece(&r);
    assert_null(take(&r)); /* once only */
    fetch(&r);
    t_append(&r.t, r.reader.session, "more\n");
    assert_piece(&r);
    r.reader.cursor = r.behind;
    r.reader.offset += SIZE;
    read_expected(&r);
    fetch(&r);
    assert_piece(&r);
    end(&r);
}

static void test_it_is_for_one_reader_at_one_place(void **state)
{
    struct reading r;
    (void)state;
    begin(&r);
    struct ahead_reader wanted = r.reader;
    fetch(&r);
    r.reader.id = ahead_reader_id(r.ahead);
    assert_int_not_equal(r.reader.id, wanted.id);
    assert_null(take(&r));
    r.reader = wanted;
    r.reader.offset++;
    assert_null(take(&r));
    r.reader = wanted;
    fetch(&r);
    r.reader.size--;
    assert_null(take(&r));
    end(&r);
}

static void test_nothing_that_was_dropped(void **state)
{
    struct reading r;
    struct hl_dropped dropped;
    (void)state;
    begin(&r);
    fetch(&r);
    assert_int_equal(hl_trim(r.t.store, r.reader.session, 2, &dropped, NULL), 0);
    assert_null(take(&r));
    fetch(&r);
    assert_piece(&r); /* as it was: the one that was trimmed lies before it */
    fetch(&r);
    assert_int_equal(hl_delete(r.t.store, r.reader.session, &dropped, NULL), 0);
    assert_null(take(&r));
    fetch(&r);
    assert_null(take(&r));
    end(&r);
}

/* What a session has lost is counted anew with an index that is made anew. */
static void test_nothing_that_was_dropped_before_a_reindex(void **state)
{
    struct reading r;
    struct hl_dropped dropped;
    struct hl_compacted result;
    struct hl_compact what = {.everything = true};
    (void)state;
    begin(&r);
    for (unsigned i = 0; i < LINES; i++)
        t_append_format(&r.t, r.reader.session, "{\"pad\":%u}\n", i);
    fetch(&r);
    assert_int_equal(hl_trim(r.t.store, r.reader.session, 1500, &dropped, NULL), 0);
    assert_int_equal(hl_compact(r.t.store, &what, NULL, &result, &r.t.err), 0);
    assert_int_equal(hl_reindex(r.t.store, NULL, &r.t.err), 0);
    assert_null(take(&r));
    end(&r);
}

/* Who reads here and there has one place, and who closes the file none. */
static void test_one_place_a_reader(void **state)
{
    struct reading r;
    (void)state;
    begin(&r);
    struct ahead_reader other = r.reader;
    for (unsigned i = 0; i < 20; i++) {
        other.id = ahead_reader_id(r.ahead);
        for (unsigned k = 0; k < 20; k++) {
            other.offset = SIZE + k;
            ahead_read(r.ahead, r.t.store, &other);
        }
        fetch(&r);
        assert_piece(&r);
        ahead_forget(r.ahead, other.id);
    }
    end(&r);
}

static void test_only_what_is_whole(void **state)
{
    struct reading r;
    struct hl_session session;
    (void)state;
    begin(&r);
    assert_int_equal(hl_session_by_number(r.t.store, r.reader.session, &session), 0);
    r.reader.cursor = (struct hl_cursor){0};
    r.reader.offset = session.bytes - SIZE + 1;
    fetch(&r);
    assert_null(take(&r));
    r.reader.offset--;
    read_expected(&r);
    fetch(&r);
    assert_piece(&r);
    end(&r);
}

static void test_what_cannot_be_read(void **state)
{
    struct reading r;
    (void)state;
    begin(&r);
    t_close(&r.t);
    t_store_watch(&r.t);
    t_open(&r.t);
    t_io_fail(&r.t.io, 1U << T_PREAD, ".seg", 1, 1000, -EIO);
    fetch(&r);
    t_io_heal(&r.t.io);
    assert_null(take(&r));
    fetch(&r);
    assert_piece(&r);
    end(&r);
}

/* There are a few places; who has one may leave it for good. */
static void test_many_readers(void **state)
{
    struct reading r;
    unsigned had = 0;
    (void)state;
    begin(&r);
    struct ahead_piece *pieces[20];
    for (unsigned i = 0; i < 20; i++) {
        r.reader.id = ahead_reader_id(r.ahead);
        fetch(&r);
        pieces[had] = take(&r); /* and keeps it */
        had += pieces[had] != NULL;
    }
    assert_true(had > 1 && had < 20);
    ahead_put(r.ahead, pieces[0]);
    fetch(&r);
    assert_piece(&r);
    for (unsigned i = 1; i < had; i++)
        ahead_put(r.ahead, pieces[i]);
    end(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_is_what_would_be_read),
        cmocka_unit_test(test_it_is_for_one_reader_at_one_place),
        cmocka_unit_test(test_nothing_that_was_dropped),
        cmocka_unit_test(test_nothing_that_was_dropped_before_a_reindex),
        cmocka_unit_test(test_one_place_a_reader),
        cmocka_unit_test(test_only_what_is_whole),
        cmocka_unit_test(test_what_cannot_be_read),
        cmocka_unit_test(test_many_readers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
