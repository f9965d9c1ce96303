/* test_fold.c - what operations do, case by case: links, news, what an append expects, archives
 * that come back, and that nothing of a refused batch stays. */
#include "support.h"

#include <inttypes.h>

struct heard {
    struct hl_document_news documents[64];
    size_t count;
    uint64_t skipped, records;
    bool by_file;
};

static struct heard heard;

static void hear(void *context, const struct hl_news *news)
{
    (void)context;
    heard.count = news->document_count < 64 ? news->document_count : 64;
    if (heard.count)
        memcpy(heard.documents, news->documents, heard.count * sizeof *news->documents);
    heard.skipped = news->documents_skipped;
    heard.records = news->records;
    heard.by_file = news->by_file;
}

static void begin(struct t_store *t, uint32_t *session)
{
    t_store_init(t);
    t->options.news = hear;
    t_open(t);
    *session = t_session(t, "s");
}

/* "made a, changed b" and so on, in the order in which it was told. */
static void expect_news(struct t_store *t, uint32_t session, const char *expected)
{
    static const char *const what[] = {"made", "changed", "deleted"};
    char text[2000] = "";
    for (size_t i = 0; i < heard.count; i++) {
        struct hl_document name;
        assert_int_equal(hl_document_name(t->store, session, heard.documents[i].number, &name), 0);
        sprintf(text + strlen(text), "%s%s %s", i ? ", " : "", what[heard.documents[i].change],
                name.key);
    }
    assert_string_equal(text, expected);
}

static void test_news(void **state)
{
    struct t_store t;
    uint32_t s;
    (void)state;
    begin(&t, &s);
    t_append(&t, s, "{\"op\":\"set\",\"key\":\"a\",\"value\":1}\n");
    expect_news(&t, s, "made a");
    t_append(
        &t, s,
        "{\"op\":\"set\",\"key\":\"a\",\"value\":2}\n{\"op\":\"set\",\"key\":\"a\",\"value\":3}\n");
    expect_news(&t, s, "changed a");
    t_append(&t, s,
             "{\"op\":\"delete\",\"key\":\"a\"}\n{\"op\":\"set\",\"key\":\"a\",\"value\":3}\n");
    expect_news(&t, s, "changed a");
    t_append(&t, s, "{\"op\":\"delete\",\"key\":\"a\"}\n");
    expect_news(&t, s, "deleted a");
    t_append(&t, s, "{\"op\":\"delete\",\"key\":\"a\"}\n");
    expect_news(&t, s, "");
    t_append(&t, s,
             "{\"op\":\"set\",\"key\":\"b\",\"value\":1}\n{\"op\":\"delete\",\"key\":\"b\"}\n");
    expect_news(&t, s, "");
    t_append(&t, s, "{\"op\":\"checkpoint\",\"state\":{\"c\":1,\"a\":2}}\n");
    expect_news(&t, s, "made c, made a");
    t_append(&t, s, "{\"op\":\"checkpoint\",\"state\":{\"d\":1,\"a\":2}}\n");
    expect_news(&t, s, "changed a, deleted c, made d");
    assert_int_equal(hl_undo(t.store, s, 1, NULL, NULL, NULL), 0);
    expect_news(&t, s, "changed a, made c, deleted d");
    t_append(&t, s, "{\"op\":\"archive\",\"name\":\"x\",\"keys\":[\"c\"]}\n");
    expect_news(&t, s, "deleted c");
    t_append(&t, s, "{\"op\":\"restore\",\"name\":\"x\",\"keys\":[\"c\"],\"as\":[\"a\"]}\n");
    expect_news(&t, s, "changed a");
    t_append(&t, s, "just text\n");
    expect_news(&t, s, "");
    assert_int_equal(heard.records, 1);

    const char line[] = "{\"op\":\"set\",\"key\":\"f\",\"value\":1}";
    struct hl_append request = {
        .session = s, .data = line, .len = sizeof line - 1, .by_file = true};
    assert_false(heard.by_file);
    assert_int_equal(hl_append(t.store, &request, NULL), 0);
    assert_true(heard.by_file);
    expect_news(&t, s, "made f");
    assert_int_equal(heard.records, 1);
    t_store_free(&t);
}

static void test_news_of_many(void **state)
{
    struct t_store t;
    uint32_t s;
    (void)state;
    begin(&t, &s);
    char *text = malloc(1 << 20);
    size_t used = 0;
    for (unsigned i = 0; i < HL_NEWS_DOCUMENTS + 10; i++)
        used += (size_t)sprintf(text + used, "{\"op\":\"set\",\"key\":\"k%u\",\"value\":1}\n", i);
    assert_int_equal(t_try_append(&t, s, text, used), 0);
    assert_int_equal(heard.skipped, 10);
    assert_int_equal(heard.documents[0].number, 2 + 10); /* the oldest are left out */
    free(text);
    t_store_free(&t);
}

static void expect_line(struct t_store *t, uint32_t session, uint64_t seq, const char *part)
{
    char line[2000];
    ssize_t n = hl_record_read(t->store, session, seq, line, sizeof line - 1, 0);
    assert_true(n > 0);
    line[n] = 0;
    if (!strstr(line, part))
        fail_msg("%s is not in %s", part, line);
}

static void test_links(void **state)
{
    struct t_store t;
    uint32_t s;
    (void)state;
    begin(&t, &s);
    t_append(
        &t, s,
        "{\"op\":\"set\",\"key\":\"a\",\"value\":1}\n{\"op\":\"set\",\"key\":\"b\",\"value\":1}\n"
        "event\n{\"op\":\"set\",\"key\":\"a\",\"value\":2}\n");
    expect_line(&t, s, 1, "\"prev_seq\":null,\"prev_op\":null,");
    expect_line(&t, s, 2, "\"prev_seq\":null,\"prev_op\":1,");
    expect_line(&t, s, 4, "\"prev_seq\":1,\"prev_op\":2,");
    t_reopen(&t); /* from the index now */
    assert_int_equal(hl_undo(t.store, s, 2, NULL, NULL, NULL), 0);
    expect_line(&t, s, 5, "\"prev_op\":4,\"op\":\"undo\",\"undone_seq\":4}");
    expect_line(&t, s, 6, "\"prev_op\":2,\"op\":\"undo\",\"undone_seq\":2}");
    t_append(&t, s, "{\"op\":\"delete\",\"key\":\"b\"}\n");
    expect_line(&t, s, 7, "\"prev_seq\":6,\"prev_op\":1,");
    /* The same line again is the same record, with the links that it got. */
    for (int turn = 0; turn < 2; turn++)
        t_append(&t, s, "{\"seq\":8,\"op\":\"set\",\"key\":\"a\",\"value\":2}\n");
    expect_line(&t, s, 8, "\"prev_seq\":5,\"prev_op\":7,");
    struct hl_session about;
    assert_int_equal(hl_session_by_number(t.store, s, &about), 0);
    assert_int_equal(about.last_seq, 8);
    assert_int_equal(about.documents, 1);
    /* A stored line, read back in elsewhere, stays as it is. */
    uint32_t other = t_session(&t, "other");
    t_append(&t, other,
             "{\"seq\":40,\"ts_ms\":1,\"ts_exact\":false,\"prev_seq\":3,\"prev_op\":null,"
             "\"session_id\":\"other\",\"op\":\"set\",\"key\":\"a\",\"value\":2}\n");
    expect_line(&t, other, 40,
                "{\"seq\":40,\"ts_ms\":1,\"ts_exact\":false,\"prev_seq\":3,\"prev_op\":null,");
    t_store_free(&t);
}

static int append_expecting(struct t_store *t, uint32_t session, const char *key, bool present,
                            uint64_t changed)
{
    const char line[] = "{\"op\":\"set\",\"key\":\"result\",\"value\":1}";
    struct hl_expectation expectation = {.area = HL_AREA_STATE,
                                         .key = key,
                                         .len = strlen(key),
                                         .present = present,
                                         .changed = changed};
    struct hl_append request = {.session = session,
                                .data = line,
                                .len = sizeof line - 1,
                                .expectations = &expectation,
                                .expectation_count = 1};
    return hl_append(t->store, &request, &t->err);
}

static void test_expectations(void **state)
{
    struct t_store t;
    struct hl_document document;
    uint32_t s;
    (void)state;
    begin(&t, &s);
    t_append(&t, s,
             "{\"op\":\"set\",\"key\":\"a\",\"value\":1}\n{\"op\":\"set\",\"key\":\"gone\","
             "\"value\":1}\n"
             "{\"op\":\"delete\",\"key\":\"gone\"}\n");
    for (int turn = 0; turn < 2; turn++) { /* from the table, then from the index */
        assert_int_equal(append_expecting(&t, s, "b", true, HL_DOCUMENT_SEQ_ANY), -ENOENT);
        assert_int_equal(append_expecting(&t, s, "gone", true, HL_DOCUMENT_SEQ_ANY), -ENOENT);
        assert_int_equal(append_expecting(&t, s, "a", false, 0), -EEXIST);
        assert_int_equal(append_expecting(&t, s, "a", true, 0), -ESTALE);
        assert_int_equal(hl_document_find(t.store, s, HL_AREA_STATE, "result", 6, &document),
                         -ENOENT);
        t_reopen(&t);
    }
    assert_int_equal(append_expecting(&t, s, "a", true, 1), 0);
    assert_int_equal(append_expecting(&t, s, "gone", false, 0), 0);
    assert_int_equal(append_expecting(&t, s, "result", true, HL_DOCUMENT_SEQ_ANY), 0);
    t_store_free(&t);
}

static void test_archive_comes_back(void **state)
{
    struct t_store t;
    struct hl_document archive, document;
    uint32_t s;
    (void)state;
    begin(&t, &s);
    t_append(&t, s, "{\"op\":\"set\",\"key\":\"a\",\"value\":1}\n");
    t_append(&t, s, "{\"op\":\"archive\",\"name\":\"x\",\"keys\":[\"a\"]}\n");
    t_append(&t, s, "{\"op\":\"restore\",\"name\":\"x\",\"keys\":[\"a\"]}\n");
    t_append(&t, s, "{\"op\":\"restore\",\"name\":\"x\",\"keys\":[]}\n"); /* rmdir */
    assert_int_equal(hl_document_find(t.store, s, HL_AREA_ARCHIVES, "x", 1, &archive), -ENOENT);
    assert_int_equal(hl_undo(t.store, s, 1, NULL, NULL, NULL), 0);
    assert_int_equal(hl_document_find(t.store, s, HL_AREA_ARCHIVES, "x", 1, &archive), 0);
    assert_int_equal(hl_document_find(t.store, s, archive.number, "a", 1, &document), 0);
    assert_int_equal(document.seq, 1);
    assert_int_equal(hl_document_find(t.store, s, HL_AREA_STATE, "a", 1, &document), -ENOENT);
    assert_int_equal(hl_undo(t.store, s, 2, NULL, NULL, NULL), 0);
    assert_int_equal(hl_undo(t.store, s, 1, NULL, NULL, &t.err), -EINVAL);
    assert_string_equal(t.err.text, "there is nothing to undo");
    t_store_free(&t);
}

static void test_refused_batch_leaves_nothing(void **state)
{
    struct t_store t;
    struct hl_document document;
    uint32_t s;
    uint64_t number, size, ms;
    (void)state;
    begin(&t, &s);
    t_append(&t, s, "{\"op\":\"set\",\"key\":\"a\",\"value\":1}\n");
    const char bad[] =
        "{\"op\":\"set\",\"key\":\"a\",\"value\":2}\n{\"op\":\"set\",\"key\":\"new\",\"value\":2}\n"
        "{\"op\":\"restore\",\"name\":\"none\",\"keys\":[\"z\"]}\n";
    assert_int_equal(t_try_append(&t, s, bad, sizeof bad - 1), -ENOENT);
    assert_int_equal(t.err.line, 3);
    assert_int_equal(hl_document_find(t.store, s, HL_AREA_STATE, "a", 1, &document), 0);
    assert_int_equal(document.changed, 1);
    assert_int_equal(hl_history_find(t.store, s, "new", 3, &number, &size, &ms), -ENOENT);
    /* Its number was not used up, and undo knows of nothing but the first. */
    t_append(&t, s, "{\"op\":\"set\",\"key\":\"other\",\"value\":1}\n");
    assert_int_equal(hl_document_find(t.store, s, HL_AREA_STATE, "other", 5, &document), 0);
    assert_int_equal(document.number, 3);
    assert_int_equal(document.seq, 2);
    assert_int_equal(hl_undo(t.store, s, 3, NULL, NULL, &t.err), -EINVAL);
    assert_string_equal(t.err.text, "there are only 2 operations to undo");
    t_store_free(&t);
}

static void test_temporary_keys_leave_history(void **state)
{
    struct t_store t;
    uint64_t number, size, ms;
    uint32_t s;
    (void)state;
    begin(&t, &s);
    t_append(&t, s, "{\"op\":\"set\",\"key\":\"tmp1\",\"value\":1}\n");
    t_append(&t, s,
             "{\"op\":\"set\",\"key\":\"a\",\"value\":1}\n{\"op\":\"delete\",\"key\":\"tmp1\","
             "\"moved_to\":\"a\"}\n");
    t_append(
        &t, s,
        "{\"op\":\"set\",\"key\":\"plain\",\"value\":1}\n{\"op\":\"delete\",\"key\":\"plain\"}\n");
    t_append(&t, s,
             "{\"op\":\"set\",\"key\":\"twice\",\"value\":1}\n{\"op\":\"set\",\"key\":\"twice\","
             "\"value\":1}\n"
             "{\"op\":\"delete\",\"key\":\"twice\",\"moved_to\":\"a\"}\n");
    for (int turn = 0; turn < 2; turn++) {
        assert_int_equal(hl_history_find(t.store, s, "tmp1", 4, &number, &size, &ms), -ENOENT);
        assert_int_equal(hl_history_find(t.store, s, "a", 1, &number, &size, &ms), 0);
        assert_int_equal(hl_history_find(t.store, s, "plain", 5, &number, &size, &ms), 0);
        assert_int_equal(hl_history_find(t.store, s, "twice", 5, &number, &size, &ms), 0);
        t_reopen(&t);
    }
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_news),
        cmocka_unit_test(test_news_of_many),
        cmocka_unit_test(test_links),
        cmocka_unit_test(test_expectations),
        cmocka_unit_test(test_archive_comes_back),
        cmocka_unit_test(test_refused_batch_leaves_nothing),
        cmocka_unit_test(test_temporary_keys_leave_history),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
