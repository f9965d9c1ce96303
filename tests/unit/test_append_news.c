/* test_append_news.c - what hl_append() and hl_undo() tell: news in order, and what became of
 * documents. */
#include "support.h"

#define WRITERS 4

struct heard {
    uint32_t session;
    pthread_mutex_t lock; /* guards nothing: to see that calls never overlap */
    uint64_t last;
    size_t calls, records;
    size_t document_count;
    struct hl_document_news documents[8];
};

static void hear(void *context, const struct hl_news *news)
{
    struct heard *heard = context;
    assert_int_equal(pthread_mutex_trylock(&heard->lock), 0);
    if (news->session == heard->session) {
        assert_true(news->first > heard->last);
        heard->last = news->last;
        heard->calls++;
        heard->records += news->records;
        heard->document_count = news->document_count;
        for (size_t i = 0; i < news->document_count && i < 8; i++)
            heard->documents[i] = news->documents[i];
    }
    pthread_mutex_unlock(&heard->lock);
}

static void open_heard(struct t_store *t, struct heard *heard)
{
    *heard = (struct heard){.lock = PTHREAD_MUTEX_INITIALIZER};
    t_store_init(t);
    t->options.news = hear;
    t->options.news_context = heard;
    t_open(t);
    heard->session = t_session(t, "s");
}

static void expect(const struct heard *heard, size_t n, const char *key, enum hl_change change,
                   struct t_store *t)
{
    struct hl_document document;
    assert_true(n < heard->document_count);
    assert_int_equal(heard->documents[n].change, change);
    assert_int_equal(
        hl_document_name(t->store, heard->session, heard->documents[n].number, &document), 0);
    assert_string_equal(document.key, key);
}

struct undone {
    struct t_store *t;
    size_t calls, count;
    uint64_t first, last;
    char keys[64];
};

static void take_receipt(void *context, const struct hl_receipt *receipt)
{
    struct undone *undone = context;
    struct hl_document document;
    undone->calls++;
    undone->first = receipt->first;
    undone->last = receipt->last;
    undone->count = receipt->document_count;
    undone->keys[0] = 0;
    for (size_t i = 0; i < receipt->document_count; i++) {
        assert_int_equal(hl_document_name(undone->t->store, receipt->session,
                                          receipt->documents[i].number, &document),
                         0);
        strcat(undone->keys, document.key);
    }
}

static void test_undo(void **state)
{
    struct t_store t;
    struct heard heard;
    struct undone undone = {.t = &t};
    (void)state;
    open_heard(&t, &heard);
    t_append(&t, heard.session, "{\"op\":\"set\",\"key\":\"a\",\"value\":1}\n");
    t_append(&t, heard.session, "{\"op\":\"checkpoint\",\"state\":{\"b\":1,\"c\":2}}\n");
    assert_int_equal(hl_undo(t.store, heard.session, 1, take_receipt, &undone, &t.err), 0);
    assert_int_equal(undone.calls, 1);
    assert_int_equal(undone.first, 3);
    assert_int_equal(undone.last, 3);
    assert_int_equal(undone.count, 3);
    assert_string_equal(undone.keys, "abc");
    expect(&heard, 0, "a", HL_DOCUMENT_MADE, &t);
    expect(&heard, 1, "b", HL_DOCUMENT_DELETED, &t);
    expect(&heard, 2, "c", HL_DOCUMENT_DELETED, &t);
    assert_int_equal(hl_undo(t.store, heard.session, 2, take_receipt, &undone, &t.err), -EINVAL);
    assert_int_equal(undone.calls, 1);
    assert_int_equal(hl_undo(t.store, heard.session, 1, NULL, NULL, &t.err), 0);
    expect(&heard, 0, "a", HL_DOCUMENT_DELETED, &t);
    t_store_free(&t);
}

struct writer {
    struct t_store *t;
    uint32_t session;
    unsigned batches;
};

static void *write_batches(void *context)
{
    struct writer *writer = context;
    const char *text = "one\ntwo\n{\"op\":\"set\",\"key\":\"k\",\"value\":1}\n";
    struct hl_append request = {.session = writer->session, .data = text, .len = strlen(text)};
    struct hl_error err;
    for (unsigned i = 0; i < writer->batches; i++)
        assert_int_equal(hl_append(writer->t->store, &request, &err), 0);
    return NULL;
}

/* From several threads: one call at a time, in the order of the batches (hear() sees to it). */
static void test_order(void **state)
{
    struct t_store t;
    struct heard heard;
    pthread_t threads[WRITERS];
    (void)state;
    open_heard(&t, &heard);
    struct writer writer = {&t, heard.session, t_amount("ROUNDS", t_slow() ? 200 : 2000)};
    for (size_t i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_batches, &writer), 0);
    for (size_t i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(heard.calls, WRITERS * writer.batches);
    assert_int_equal(heard.records, 3 * WRITERS * writer.batches);
    assert_int_equal(heard.last, 3 * WRITERS * writer.batches);
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_undo),
        cmocka_unit_test(test_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
