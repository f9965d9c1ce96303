/* test_drop_beside.c - a read-only store, and what a writer in another process drops beside it. */
#include "support_writer.h"

#include <inttypes.h>

struct told {
    unsigned trims, deletes;
    uint64_t bytes;
};

static void take_news(void *context, const struct hl_news *news)
{
    struct told *told = context;
    told->deletes += news->deleted;
    told->trims += !news->deleted && news->dropped_records > 0;
    told->bytes += news->dropped_bytes;
}

static struct hl_usage usage_of_all(struct hl_store *store)
{
    struct hl_sums *sums;
    assert_int_equal(hl_sums(store, 0, &sums), 0);
    struct hl_usage usage = sums->total;
    free(sums);
    return usage;
}

/* What the sessions have and ever lost: readers of their logs are shown sizes by it. */
static void sum_up(struct hl_store *store, uint64_t sums[3])
{
    for (unsigned i = 0; i < 3; i++) {
        const char id[] = {(char)('a' + i), 0};
        struct hl_session about;
        sums[i] = hl_session_by_id(store, id, 1, &about) == 0 ? about.bytes + about.gone : 0;
    }
}

/* A reader that was there all the time and one that comes now show the same. */
static void expect_fresh(struct t_store *t, bool stay)
{
    uint64_t sums[3], fresh_sums[3];
    struct t_image image;
    struct hl_store *old = t->store;
    t_image_take(old, &image);
    if (stay) { /* LMDB: one opening in a process */
        t_image_free(&image);
        return;
    }
    struct hl_usage usage = usage_of_all(old), fresh;
    sum_up(old, sums);
    hl_store_close(old);
    t->store = NULL;
    t_open(t);
    t_shows(t->store, &image);
    t_image_free(&image);
    fresh = usage_of_all(t->store);
    assert_memory_equal(&usage, &fresh, sizeof usage);
    sum_up(t->store, fresh_sums);
    assert_memory_equal(sums, fresh_sums, sizeof sums);
}

/* A session that the reader never looked at goes, and with it its part of the sums. */
static void test_deleted_unseen(void **state)
{
    (void)state;
    struct t_store t;
    struct t_writer writer;
    uint64_t chance = t_seed("test_deleted_unseen");
    t_store_init(&t);
    t_writer_start(&writer, &t, chance);
    t_tell(&writer, 'a');
    t_tell(&writer, 'c');
    t.options.read_only = true;
    t_open(&t);
    struct hl_usage all = usage_of_all(t.store);
    t_tell(&writer, 'd');
    struct hl_usage usage = usage_of_all(t.store);
    assert_true(usage.events < all.events);
    expect_fresh(&t, false);
    t_writer_end(&writer, false);
    t_close(&t);
    t_store_free(&t);
}

/* Orders as chance has it: after each the reader shows what one does that opens the store then. */
static void test_follows_drops(void **state)
{
    (void)state;
    struct t_store t;
    struct t_writer writer;
    struct told told = {0};
    uint64_t chance = t_seed("test_follows_drops");
    t_store_init(&t);
    t.options.segment_size = 20 * 1024;
    t.options.news = take_news;
    t.options.news_context = &told;
    t_writer_start(&writer, &t, chance);
    t_tell(&writer, 'a');
    t.options.read_only = true;
    t_open(&t);
    unsigned orders = t_amount("ORDERS", t_slow() ? 40 : 150);
    /* Until there was a trim, too, that the reader saw as one. */
    for (unsigned i = 0; i < orders || told.trims == 0 || told.bytes == 0; i++) {
        static const char choice[] = "aaaaaxxxxxxdrcio";
        assert_true(i < orders + 2000); /* chance has its bounds */
        t_tell(&writer, choice[t_below(&chance, sizeof choice - 1)]);
        if (t_below(&chance, 3) > 0)
            expect_fresh(&t, t_below(&chance, 3) > 0);
        assert_int_equal(t.errors + t.warnings, 0);
    }
    expect_fresh(&t, false);
    t_writer_end(&writer, false);
    expect_fresh(&t, false);
    /* Without a writer, and then for one. */
    struct t_image image;
    t_image_take(t.store, &image);
    t_close(&t);
    t_open(&t);
    t_shows(t.store, &image);
    t_close(&t);
    t.options.read_only = false;
    t_open(&t);
    t_shows(t.store, &image);
    t_image_free(&image);
    t_store_free(&t);
}

/* The reader looks all the time while the writer trims: every line that it reads on is whole, and
 * the next one of its session; none comes twice. */
static void test_reads_on(void **state)
{
    (void)state;
    struct t_store t;
    struct t_writer writer;
    uint64_t chance = t_seed("test_reads_on");
    t_store_init(&t);
    t.options.segment_size = 20 * 1024;
    t_writer_start(&writer, &t, chance);
    t_tell(&writer, 'a');
    t.options.read_only = true;
    t_open(&t);
    uint32_t session = t_number(&t, "a");
    struct hl_cursor cursor = {0};
    uint64_t at = 0, last = 0;
    char *text = malloc(1 << 20);
    size_t used = 0;
    assert_non_null(text);
    for (unsigned i = 0; i < 30; i++) {
        t_writer_order(&writer, "axaxc"[i % 5]);
        for (bool answered = false; !answered;) {
            ssize_t n = hl_log_read(t.store, session, at, text + used, 100 + t_below(&chance, 900),
                                    &cursor);
            assert_true(n >= 0);
            at += (uint64_t)n;
            used += (size_t)n;
            if (n == 0) {
                t_writer_wait(&writer);
                answered = true;
            }
            char *line = text, *end;
            while ((end = memchr(line, '\n', used - (size_t)(line - text)))) {
                const char *seq = NULL;
                *end = 0;
                seq = strstr(line, "\"seq\":");
                /* A line that was dropped while it was read ends early. */
                if (seq && end[-1] == '}') {
                    uint64_t now = strtoull(seq + 6, NULL, 10);
                    assert_true(now > last);
                    last = now;
                }
                line = end + 1;
            }
            used -= (size_t)(line - text);
            memmove(text, line, used);
        }
    }
    assert_true(last > 100);
    free(text);
    t_writer_end(&writer, false);
    t_store_free(&t);
}

/*
 * A crash leaves drops that the index does not have: a reader shows what a writer would, changes
 * nothing, and then the writer carries them out.
 */
static void test_drops_not_in_the_index(void **state)
{
    (void)state;
    for (int what = 0; what < 3; what++) {
        struct t_store t;
        struct t_image image;
        char index[T_PATH], old[T_PATH];
        t_store_init(&t);
        t_open(&t);
        uint32_t a = t_session(&t, "a"), b = t_session(&t, "b");
        for (unsigned i = 0; i < 50; i++) {
            t_append_format(&t, a, "{\"payload\":%u}\n", i);
            t_append_format(&t, b, "{\"op\":\"set\",\"key\":\"k\",\"value\":%u}\n", i);
        }
        assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
        t_append(&t, a, "more\n");
        t_path(index, t.dir, "index");
        t_path(old, t.dir, "index-before");
        t_dir_copy(index, old);
        if (what != 1)
            assert_int_equal(hl_trim(t.store, a, 20, NULL, &t.err), 0);
        if (what != 0)
            assert_int_equal(hl_delete(t.store, b, NULL, &t.err), 0);
        t_append(&t, a, "and more\n");
        t_image_take(t.store, &image);
        t_crash(&t);
        t_path(index, t.dir, "index");
        t_path(old, t.dir, "index-before");
        t_dir_remove(index);
        assert_int_equal(rename(old, index), 0);
        t.options.read_only = true;
        t_open(&t);
        t_shows(t.store, &image);
        t_close(&t);
        t.options.read_only = false;
        t_open(&t);
        t_shows(t.store, &image);
        assert_int_equal(t.errors + t.warnings, 0);
        t_image_free(&image);
        t_store_free(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_follows_drops),
        cmocka_unit_test(test_reads_on),
        cmocka_unit_test(test_deleted_unseen),
        cmocka_unit_test(test_drops_not_in_the_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
