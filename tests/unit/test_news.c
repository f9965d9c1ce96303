/* test_news.c - what waits to be announced: its order, its bound, and what is overtaken. */
#include "support.h"

#include "../../fs/announce.h"

#define MADE HL_DOCUMENT_MADE
#define CHANGED HL_DOCUMENT_CHANGED
#define DELETED HL_DOCUMENT_DELETED

static void add(struct news_queue *queue, struct hl_news news)
{
    news_queue_add(queue, &news);
}

static void add_document(struct news_queue *queue, uint64_t number, enum hl_change change,
                         bool by_file)
{
    struct hl_document_news document = {number, change};
    struct hl_news news = {
        .session = 1, .by_file = by_file, .documents = &document, .document_count = 1};
    news_queue_add(queue, &news);
}

static uint64_t waiting(struct news_queue *queue)
{
    uint64_t number, skipped;
    news_queue_counts(queue, &number, &skipped);
    return number;
}

static uint64_t skipped(struct news_queue *queue)
{
    uint64_t number, left_out;
    news_queue_counts(queue, &number, &left_out);
    return left_out;
}

/* Takes one, which must be this, and is told at once. */
static void expect(struct news_queue *queue, enum news_kind kind, uint32_t session, uint64_t number,
                   enum hl_change change)
{
    struct news_item item;
    uint64_t before = waiting(queue);
    assert_true(news_queue_take(queue, NULL, &item));
    assert_int_equal(waiting(queue), before); /* it is not told yet */
    news_queue_told(queue);
    assert_int_equal(waiting(queue), before - 1);
    assert_int_equal(item.kind, kind);
    assert_int_equal(item.session, session);
    if (kind != NEWS_SESSION)
        assert_int_equal(item.number, number);
    if (kind == NEWS_DOCUMENT)
        assert_int_equal(item.change, change);
}

static void expect_nothing(struct news_queue *queue)
{
    struct news_item item;
    assert_false(news_queue_take(queue, NULL, &item));
    assert_int_equal(waiting(queue), 0);
}

/* ---- order and bound --------------------------------------------------------------------------
 */

static void test_order(void **state)
{
    struct news_queue *queue = news_queue_new(100);
    struct hl_document_news two[] = {{5, MADE}, {7, DELETED}};
    (void)state;
    add(queue,
        (struct hl_news){.session = 1, .created = true, .records = 2, .first = 1, .last = 2});
    add(queue, (struct hl_news){.session = 1, .records = 1, .first = 3, .last = 3});
    add(queue, (struct hl_news){.session = 2, .records = 1, .first = 9, .last = 9});
    add(queue, (struct hl_news){.session = 2,
                                .records = 1,
                                .first = 10,
                                .last = 10,
                                .documents = two,
                                .document_count = 2});
    add(queue, (struct hl_news){.session = 2, .records = 1, .first = 11, .last = 11});
    assert_int_equal(waiting(queue), 9);
    expect(queue, NEWS_SESSION, 1, 0, 0);
    for (uint64_t seq = 1; seq <= 3; seq++)
        expect(queue, NEWS_RECORD, 1, seq, 0);
    expect(queue, NEWS_RECORD, 2, 9, 0);
    expect(queue, NEWS_RECORD, 2, 10, 0);
    expect(queue, NEWS_DOCUMENT, 2, 5, MADE);
    expect(queue, NEWS_DOCUMENT, 2, 7, DELETED);
    expect(queue, NEWS_RECORD, 2, 11, 0);
    expect_nothing(queue);
    news_queue_free(queue);
}

static void test_bound(void **state)
{
    struct news_queue *queue = news_queue_new(4);
    struct hl_document_news one = {2, CHANGED};
    (void)state;
    for (uint64_t number = 1; number <= 10; number++)
        add_document(queue, number + 1, MADE, false);
    assert_int_equal(waiting(queue), 4);
    assert_int_equal(skipped(queue), 6);
    add(queue, (struct hl_news){.session = 1, .records = 3, .first = 1, .last = 3});
    assert_int_equal(skipped(queue), 9);
    expect(queue, NEWS_DOCUMENT, 1, 11, MADE);
    for (uint64_t seq = 1; seq <= 3; seq++)
        expect(queue, NEWS_RECORD, 1, seq, 0);
    expect_nothing(queue);
    /* What the store left out was skipped as well, unless the kernel told it. */
    add(queue, (struct hl_news){
                   .session = 1, .documents = &one, .document_count = 1, .documents_skipped = 50});
    assert_int_equal(skipped(queue), 59);
    add(queue, (struct hl_news){.session = 1, .by_file = true, .documents_skipped = 50});
    assert_int_equal(skipped(queue), 59);
    news_queue_skip(queue);
    assert_int_equal(skipped(queue), 60);
    expect_nothing(queue);
    news_queue_free(queue);
}

/* Whoever sleeps is woken when there is something, and only then. */
static void test_waking(void **state)
{
    struct news_queue *queue = news_queue_new(10);
    struct hl_document_news document = {2, MADE};
    struct hl_news by_operation = {.session = 1, .documents = &document, .document_count = 1};
    struct hl_news by_file = by_operation;
    by_file.by_file = true;
    (void)state;
    assert_false(news_queue_add(queue, &by_file));
    assert_true(news_queue_add(queue, &by_operation));
    assert_false(news_queue_add(queue, &by_operation));
    assert_false(news_queue_add(queue, &by_file)); /* both are overtaken */
    assert_int_equal(waiting(queue), 0);
    assert_true(news_queue_add(queue, &by_operation));
    expect(queue, NEWS_DOCUMENT, 1, 2, MADE);
    expect_nothing(queue);
    news_queue_free(queue);
}

/* ---- overtaking -------------------------------------------------------------------------------
 */

static void test_overtaken(void **state)
{
    struct news_queue *queue = news_queue_new(100);
    (void)state;
    /* Deleted by an operation, then written: the kernel told of a file that is made. */
    add_document(queue, 2, DELETED, false);
    add_document(queue, 3, DELETED, false);
    add_document(queue, 2, MADE, true);
    expect(queue, NEWS_DOCUMENT, 1, 3, DELETED);
    expect_nothing(queue);
    /* Made by an operation, then removed. */
    add_document(queue, 2, MADE, false);
    add_document(queue, 2, DELETED, true);
    expect_nothing(queue);
    /* Made by an operation, then written to: nobody was told that it is there. */
    add_document(queue, 2, MADE, false);
    add_document(queue, 2, CHANGED, false);
    add_document(queue, 2, CHANGED, true);
    expect(queue, NEWS_DOCUMENT, 1, 2, MADE);
    expect_nothing(queue);
    /* Made anew, then written to: it was there before, for all that anybody knows. */
    add_document(queue, 2, DELETED, false);
    add_document(queue, 2, MADE, false);
    add_document(queue, 2, CHANGED, true);
    expect_nothing(queue);
    /* Another session's of the same number is another. */
    add_document(queue, 2, CHANGED, false);
    struct hl_document_news document = {2, DELETED};
    add(queue, (struct hl_news){
                   .session = 7, .by_file = true, .documents = &document, .document_count = 1});
    expect(queue, NEWS_DOCUMENT, 1, 2, CHANGED);
    expect_nothing(queue);
    assert_int_equal(skipped(queue), 0);
    news_queue_free(queue);
}

/* What was taken can be overtaken until it was told. */
static void test_overtaken_when_taken(void **state)
{
    struct news_queue *queue = news_queue_new(1000);
    struct news_item items[NEWS_TAKEN_MAX + 1];
    (void)state;
    for (uint64_t number = 2; number < 2 + NEWS_TAKEN_MAX + 1; number++)
        add_document(queue, number, number % 2 ? MADE : DELETED, false);
    for (size_t i = 0; i < NEWS_TAKEN_MAX; i++)
        assert_true(news_queue_take(queue, NULL, &items[i]));
    assert_false(news_queue_take(queue, NULL, &items[NEWS_TAKEN_MAX]));
    add_document(queue, 2, MADE, true);
    add_document(queue, 3, DELETED, true);
    add_document(queue, 5, CHANGED, true);
    for (size_t i = 0; i < NEWS_TAKEN_MAX; i++)
        assert_int_equal(atomic_load(&items[i].overtaken), i < 2);
    news_queue_told(queue);
    add_document(queue, 4, MADE, true);
    assert_false(atomic_load(&items[2].overtaken));
    expect(queue, NEWS_DOCUMENT, 1, 2 + NEWS_TAKEN_MAX, DELETED);
    expect_nothing(queue);
    news_queue_free(queue);
}

#define DOCUMENTS 5

struct watcher {
    bool there[DOCUMENTS]; /* what really is there, and what the watcher believes */
    bool believed[DOCUMENTS];
    unsigned operations[DOCUMENTS], told[DOCUMENTS];
    struct news_item taken[NEWS_TAKEN_MAX];
    size_t taken_count, taken_next;
};

static void change(struct watcher *watcher, struct news_queue *queue, bool by_file,
                   uint64_t *chance)
{
    uint64_t which = t_below(chance, DOCUMENTS);
    bool was = watcher->there[which], is = t_below(chance, 2) > 0;
    if (!was && !is)
        return;
    enum hl_change kind = was ? (is ? CHANGED : DELETED) : MADE;
    watcher->there[which] = is;
    add_document(queue, which + 2, kind, by_file);
    if (!by_file)
        watcher->operations[which]++;
    if (by_file && kind != CHANGED)
        watcher->believed[which] = is; /* the kernel tells at once */
}

static void tell_one(struct watcher *watcher)
{
    struct news_item *item = &watcher->taken[watcher->taken_next++];
    uint64_t which = item->number - 2;
    if (atomic_load(&item->overtaken))
        return;
    watcher->told[which]++;
    if (item->change != CHANGED)
        watcher->believed[which] = item->change == MADE;
}

/* Changes, takes and tells as chance has it; in the end the watcher knows what is there. */
static void test_model(void **state)
{
    uint64_t chance = t_seed("test_model");
    (void)state;
    for (unsigned round = 0; round < t_amount("ROUNDS", 2000); round++) {
        struct news_queue *queue = news_queue_new(100000);
        struct watcher watcher = {0};
        bool files = t_below(&chance, 4) > 0;
        unsigned steps = 1 + (unsigned)t_below(&chance, 200);
        while (steps > 0 || waiting(queue) > 0 || watcher.taken_next < watcher.taken_count) {
            if (steps > 0 && t_below(&chance, 2) == 0) {
                steps--;
                change(&watcher, queue, files && t_below(&chance, 2), &chance);
            } else if (watcher.taken_next < watcher.taken_count) {
                tell_one(&watcher);
            } else {
                news_queue_told(queue);
                watcher.taken_next = watcher.taken_count = 0;
                size_t most = 1 + t_below(&chance, NEWS_TAKEN_MAX);
                while (watcher.taken_count < most &&
                       news_queue_take(queue, NULL, &watcher.taken[watcher.taken_count]))
                    watcher.taken_count++;
            }
        }
        for (size_t i = 0; i < DOCUMENTS; i++) {
            assert_int_equal(watcher.believed[i], watcher.there[i]);
            if (!files)
                assert_int_equal(watcher.told[i], watcher.operations[i]);
        }
        assert_int_equal(skipped(queue), 0);
        news_queue_free(queue);
    }
}

/* ---- ranges with gaps -------------------------------------------------------------------------
 */

static void test_gaps(void **state)
{
    struct t_store t;
    struct news_item item;
    (void)state;
    t_store_init(&t);
    t_open(&t);
    uint32_t session = t_session(&t, "s");
    t_append(&t, session, "{\"seq\":3}\n{\"seq\":7}\n{\"seq\":20}\n{\"seq\":21}\n");
    struct news_queue *queue = news_queue_new(3);
    add(queue, (struct hl_news){.session = session, .records = 4, .first = 3, .last = 21});
    assert_int_equal(skipped(queue), 1);
    static const uint64_t seqs[] = {7, 20, 21};
    for (size_t i = 0; i < 3; i++) {
        assert_true(news_queue_take(queue, t.store, &item));
        assert_int_equal(item.kind, NEWS_RECORD);
        assert_int_equal(item.number, seqs[i]);
    }
    assert_int_equal(waiting(queue), 3); /* not told yet */
    news_queue_told(queue);
    expect_nothing(queue);
    news_queue_free(queue);
    t_store_free(&t);
}

/* ---- sessions that are gone -------------------------------------------------------------------
 */

static void test_the_end_of_a_session(void **state)
{
    (void)state;
    struct news_queue *queue = news_queue_new(4);
    struct news_item item;

    assert_true(news_queue_gone(queue, 7, "old"));
    assert_false(news_queue_gone(queue, 8, "older"));
    add(queue, (struct hl_news){.session = 9, .created = true});
    assert_int_equal(waiting(queue), 3);
    assert_true(news_queue_take(queue, NULL, &item));
    assert_int_equal(item.kind, NEWS_GONE);
    assert_int_equal(item.session, 7);
    assert_string_equal(item.name, "old");
    news_queue_told(queue);
    /* The oldest are skipped, these as all others. */
    add(queue, (struct hl_news){.session = 9, .records = 3, .first = 1, .last = 3});
    assert_int_equal(waiting(queue), 4);
    assert_int_equal(skipped(queue), 1);
    expect(queue, NEWS_SESSION, 9, 0, MADE);
    for (uint64_t seq = 1; seq <= 3; seq++)
        expect(queue, NEWS_RECORD, 9, seq, MADE);
    expect_nothing(queue);
    /* Records behind one that is gone are another range. */
    news_queue_gone(queue, 9, "gone");
    add(queue, (struct hl_news){.session = 9, .records = 1, .first = 4, .last = 4});
    assert_int_equal(waiting(queue), 2);
    news_queue_free(queue); /* with what waits */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_end_of_a_session),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_waking),
        cmocka_unit_test(test_overtaken),
        cmocka_unit_test(test_overtaken_when_taken),
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_gaps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
