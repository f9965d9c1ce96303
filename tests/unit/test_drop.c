/* test_drop.c - trim, delete and the removal of empty sessions, and what readers see of them. */
#include "support.h"

#include <inttypes.h>

/* What the news said. */
struct told {
    unsigned trims, deletes;
    uint64_t records, bytes;
};

static void take_news(void *context, const struct hl_news *news)
{
    struct told *told = context;
    told->deletes += news->deleted;
    told->trims += !news->deleted && news->dropped_records > 0;
    told->records += news->dropped_records;
    told->bytes += news->dropped_bytes;
    assert_true(news->dropped_records == 0 || (news->records == 0 && !news->created));
}

static void open_told(struct t_store *t, struct told *told)
{
    *told = (struct told){0};
    t_store_init(t);
    t->options.news = take_news;
    t->options.news_context = told;
    t_open(t);
}

/* Lines that say which they are: `count` events from the session's next seq on. */
static void append_events(struct t_store *t, uint32_t session, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        t_append_format(t, session, "{\"payload\":\"event %u\"}\n", i);
}

static void set(struct t_store *t, uint32_t session, const char *key, unsigned value)
{
    t_append_format(t, session, "{\"op\":\"set\",\"key\":\"%s\",\"value\":%u}\n", key, value);
}

static void expect_document(struct t_store *t, uint32_t session, const char *key, const char *value)
{
    struct hl_document document;
    char text[64] = "";
    int error = hl_document_find(t->store, session, HL_AREA_STATE, key, strlen(key), &document);
    if (!value) {
        assert_int_equal(error, -ENOENT);
        return;
    }
    assert_int_equal(error, 0);
    ssize_t n = hl_document_read(t->store, session, &document, text, sizeof text - 1, 0);
    assert_int_equal(n, strlen(value) + 1);
    text[n - 1] = 0;
    assert_string_equal(text, value);
}

/* The session's seqs, as a listing and single look-ups give them. */
struct seqs {
    uint64_t at[4096];
    size_t count;
};

static bool take_seq(void *context, const struct hl_record *record)
{
    struct seqs *seqs = context;
    assert_true(seqs->count < 4096);
    seqs->at[seqs->count++] = record->seq;
    return true;
}

static void expect_seqs(struct t_store *t, uint32_t session, const uint64_t *wanted, size_t count)
{
    struct seqs seqs = {.count = 0};
    struct hl_record record;
    struct hl_session about;
    size_t len;
    assert_int_equal(hl_record_list(t->store, session, 0, true, take_seq, &seqs), 0);
    assert_int_equal(seqs.count, count);
    assert_int_equal(hl_session_by_number(t->store, session, &about), 0);
    assert_int_equal(about.records, count);
    if (count > 0)
        assert_int_equal(about.first_seq, wanted[0]);
    for (uint64_t seq = 0, i = 0; seq <= about.last_seq + 1; seq++) {
        bool is = i < count && wanted[i] == seq;
        assert_int_equal(hl_record_find(t->store, session, seq, &record), is ? 0 : -ENOENT);
        i += is;
    }
    for (size_t i = 0; i < count; i++)
        assert_int_equal(seqs.at[i], wanted[i]);
    char *log = t_log(t->store, session, 7, &len);
    assert_int_equal(len, about.bytes);
    char *line = log;
    for (size_t i = 0; i < count; i++) {
        char mark[40];
        snprintf(mark, sizeof mark, "\"seq\":%" PRIu64 ",", wanted[i]);
        char *end = strchr(line, '\n');
        assert_non_null(end);
        assert_true(t_has(line, (size_t)(end - line), mark));
        line = end + 1;
    }
    free(log);
}

/* Closes it and opens it: as it was, from the newest checkpoint, with no index at all, after a
 * crash, after a reindex. */
enum again { AGAIN_CLEAN, AGAIN_CRASH, AGAIN_CHECKPOINT, AGAIN_LOST, AGAIN_REINDEX, AGAINS };

static void open_again(struct t_store *t, enum again how)
{
    char path[T_PATH];
    if (how == AGAIN_REINDEX) {
        assert_int_equal(hl_reindex(t->store, NULL, &t->err), 0);
        return;
    }
    if (how == AGAIN_CRASH) {
        t_crash(t);
        t_open(t);
        return;
    }
    t_close(t);
    t_path(path, t->dir, "index");
    if (how >= AGAIN_CHECKPOINT)
        t_dir_remove(path);
    t_path(path, t->dir, "checkpoints");
    if (how == AGAIN_LOST)
        t_dir_remove(path);
    t_open(t);
}

static void test_trim(void **state)
{
    (void)state;
    struct t_store t;
    struct told told;
    struct hl_dropped dropped;
    struct hl_session about;
    open_told(&t, &told);
    uint32_t session = t_session(&t, "s"), other = t_session(&t, "other");
    append_events(&t, other, 3);
    append_events(&t, session, 4);
    set(&t, session, "k", 1); /* 5 */
    append_events(&t, session, 2);
    set(&t, session, "k", 2); /* 8 */
    append_events(&t, session, 2);
    assert_int_equal(hl_session_by_number(t.store, session, &about), 0);
    uint64_t bytes = about.bytes;
    for (int index = 0; index < 2; index++) { /* from the table, then from the index */
        uint64_t below = index == 0 ? 4 : 8;
        static const uint64_t left[2][7] = {{4, 5, 6, 7, 8, 9, 10}, {5, 8, 9, 10}};
        if (index == 1)
            assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
        assert_int_equal(hl_trim(t.store, session, below, &dropped, &t.err), 0);
        assert_int_equal(dropped.records, 3);
        assert_int_equal(hl_session_by_number(t.store, session, &about), 0);
        assert_int_equal(dropped.bytes, bytes - about.bytes);
        assert_int_equal(told.trims, index + 1);
        assert_int_equal(told.bytes, about.gone);
        bytes = about.bytes;
        expect_seqs(&t, session, left[index], index == 0 ? 7 : 4);
        expect_document(&t, session, "k", "2");
        t_verify(&t);
        /* Again: there is nothing left to drop, and no more news. */
        assert_int_equal(hl_trim(t.store, session, below, &dropped, &t.err), 0);
        assert_int_equal(dropped.records, 0);
        assert_int_equal(told.trims, index + 1);
        for (enum again how = 0; how < AGAINS; how++) {
            open_again(&t, how);
            expect_seqs(&t, session, left[index], index == 0 ? 7 : 4);
            expect_document(&t, session, "k", "2");
            t_verify(&t);
            assert_int_equal(t.errors + t.warnings, 0);
        }
    }
    static const uint64_t others[] = {1, 2, 3};
    expect_seqs(&t, other, others, 3);
    assert_int_equal(hl_trim(t.store, 77, 5, &dropped, &t.err), -ENOENT);
    t_store_free(&t);
}

/* Nothing that comes later is dropped, whatever is asked for; a session trimmed to nothing goes on.
 */
static void test_trim_all(void **state)
{
    (void)state;
    struct t_store t;
    struct told told;
    struct hl_dropped dropped;
    open_told(&t, &told);
    uint32_t session = t_session(&t, "s");
    assert_int_equal(hl_trim(t.store, session, 5, &dropped, &t.err), 0);
    assert_int_equal(dropped.records, 0);
    uint64_t next = 1;
    for (enum again how = 0; how < AGAINS; how++) {
        append_events(&t, session, 5);
        next += 5;
        assert_int_equal(hl_trim(t.store, session, UINT64_MAX, &dropped, &t.err), 0);
        assert_int_equal(dropped.records, 5);
        expect_seqs(&t, session, NULL, 0);
        open_again(&t, how);
        expect_seqs(&t, session, NULL, 0);
        t_verify(&t);
        append_events(&t, session, 1);
        expect_seqs(&t, session, &next, 1);
        next++;
        assert_int_equal(hl_trim(t.store, session, next, &dropped, &t.err), 0);
        assert_int_equal(dropped.records, 1);
    }
    assert_int_equal(t.errors + t.warnings, 0);
    t_store_free(&t);
}

/* A retry of what was dropped is told so, and appends nothing. */
static void test_retry(void **state)
{
    (void)state;
    struct t_store t;
    static const char first[] = "{\"seq\":1,\"payload\":1}\n",
                      second[] = "{\"seq\":2,\"payload\":2}\n";
    t_store_init(&t);
    t_open(&t);
    uint32_t session = t_session(&t, "s");
    t_append(&t, session, first);
    t_append(&t, session, second);
    assert_int_equal(hl_trim(t.store, session, 2, NULL, &t.err), 0);
    for (enum again how = 0; how < AGAINS; how++) {
        assert_int_equal(t_try_append(&t, session, first, strlen(first)), -EEXIST);
        assert_true(strstr(t.err.text, "dropped") != NULL);
        assert_int_equal(t_try_append(&t, session, second, strlen(second)), 0);
        static const uint64_t left[] = {2};
        expect_seqs(&t, session, left, 1);
        open_again(&t, how);
    }
    t_store_free(&t);
}

static void expect_gone(struct t_store *t, uint32_t session, const char *id, bool id_too)
{
    struct hl_session about;
    struct hl_record record;
    struct hl_document document;
    uint64_t begin, end, number, size, changed;
    char text[8];
    struct seqs seqs = {.count = 0};
    assert_int_equal(hl_session_by_number(t->store, session, &about), -ENOENT);
    if (id_too)
        assert_int_equal(hl_session_by_id(t->store, id, strlen(id), &about), -ENOENT);
    assert_int_equal(hl_record_find(t->store, session, 1, &record), -ENOENT);
    assert_int_equal(hl_record_list(t->store, session, 0, false, take_seq, &seqs), 0);
    assert_int_equal(seqs.count, 0);
    assert_int_equal(hl_log_extent(t->store, session, 1, 5, &begin, &end), -ENOENT);
    assert_int_equal(hl_log_read(t->store, session, 0, text, sizeof text, NULL), 0);
    assert_int_equal(hl_document_find(t->store, session, HL_AREA_STATE, "k", 1, &document),
                     -ENOENT);
    assert_int_equal(hl_document_by_number(t->store, session, 2, &document), -ENOENT);
    assert_int_equal(hl_document_name(t->store, session, 2, &document), -ENOENT);
    assert_int_equal(hl_history_find(t->store, session, "k", 1, &number, &size, &changed), -ENOENT);
    assert_int_equal(hl_attribute_get(t->store, session, "a", text, sizeof text), -ENOENT);
    assert_int_equal(hl_attribute_set(t->store, session, "a", "1", 1, 0), -ENOENT);
    assert_int_equal(hl_session_change(t->store, session, HL_CHANGE_MODE, 0, 0, 0700, &about),
                     -ENOENT);
    assert_int_equal(t_try_append(t, session, "x\n", 2), -ENOENT);
    assert_int_equal(hl_undo(t->store, session, 1, NULL, NULL, &t->err), -ENOENT);
    assert_int_equal(hl_delete(t->store, session, NULL, &t->err), -ENOENT);
    assert_int_equal(hl_trim(t->store, session, 2, NULL, &t->err), -ENOENT);
    for (uint32_t after = 0; hl_session_next(t->store, after, &about) == 0; after = about.number)
        assert_int_not_equal(about.number, session);
}

static void test_delete(void **state)
{
    (void)state;
    struct t_store t;
    struct told told;
    struct hl_dropped dropped;
    struct hl_session about;
    open_told(&t, &told);
    t_session(&t, "before");
    uint32_t last = 0;
    unsigned deletes = 0;
    for (int index = 0; index < 2; index++) {
        for (enum again how = 0; how < AGAINS; how++) {
            uint32_t session = t_session(&t, "s"); /* the same id each time */
            assert_true(session > last);
            last = session;
            append_events(&t, session, 3);
            set(&t, session, "k", 1);
            assert_int_equal(hl_attribute_set(t.store, session, "a", "1", 1, 0), 0);
            if (index == 1)
                assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
            set(&t, session, "k", 2);
            assert_int_equal(hl_session_by_number(t.store, session, &about), 0);
            assert_int_equal(hl_delete(t.store, session, &dropped, &t.err), 0);
            assert_int_equal(dropped.records, 5);
            assert_int_equal(dropped.bytes, about.bytes);
            assert_int_equal(told.deletes, ++deletes);
            expect_gone(&t, session, "s", true);
            t_verify(&t);
            struct hl_status status;
            assert_int_equal(hl_store_status(t.store, &status), 0);
            assert_int_equal(status.sessions, 1 + 0);
            /* A new one of its name has nothing of it. */
            uint32_t again = t_session(&t, "s");
            assert_true(again > session);
            append_events(&t, again, 2);
            static const uint64_t seqs[] = {1, 2};
            expect_seqs(&t, again, seqs, 2);
            expect_document(&t, again, "k", NULL);
            assert_int_equal(hl_attribute_get(t.store, again, "a", NULL, 0), -ENODATA);
            open_again(&t, how);
            expect_gone(&t, session, "s", false);
            expect_seqs(&t, again, seqs, 2);
            expect_document(&t, again, "k", NULL);
            t_verify(&t);
            assert_int_equal(hl_store_status(t.store, &status), 0);
            assert_int_equal(status.sessions, 2);
            assert_int_equal(hl_delete(t.store, again, NULL, &t.err), 0);
            ++deletes;
            last = again;
            assert_int_equal(t.errors + t.warnings, 0);
        }
    }
    t_store_free(&t);
}

static void test_remove_empty(void **state)
{
    (void)state;
    struct t_store t;
    t_store_init(&t);
    t_open(&t);
    uint32_t session = t_session(&t, "s");
    append_events(&t, session, 1);
    assert_int_equal(hl_remove_empty(t.store, session, &t.err), -ENOTEMPTY);
    assert_int_equal(hl_trim(t.store, session, UINT64_MAX, NULL, &t.err), 0);
    assert_int_equal(hl_remove_empty(t.store, session, &t.err), 0);
    expect_gone(&t, session, "s", true);
    uint32_t fresh = t_session(&t, "s");
    assert_int_equal(hl_remove_empty(t.store, fresh, &t.err), 0);
    uint32_t document = t_session(&t, "s");
    set(&t, document, "k", 1);
    assert_int_equal(hl_trim(t.store, document, UINT64_MAX, NULL, &t.err), 0);
    assert_int_equal(hl_remove_empty(t.store, document, &t.err), -ENOTEMPTY);
    expect_document(&t, document, "k", "1");
    t_store_free(&t);
}

/* Documents, history, the way back by undo: operations stay. */
static void test_operations_stay(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_document document;
    uint64_t number, size, changed;
    t_store_init(&t);
    t_open(&t);
    uint32_t session = t_session(&t, "s");
    for (unsigned i = 1; i <= 3; i++) {
        append_events(&t, session, 2);
        set(&t, session, "k", i);
    }
    assert_int_equal(hl_trim(t.store, session, UINT64_MAX, NULL, &t.err), 0);
    for (enum again how = 0; how < AGAINS; how++) {
        expect_document(&t, session, "k", "3");
        assert_int_equal(hl_history_find(t.store, session, "k", 1, &number, &size, &changed), 0);
        assert_int_equal(hl_document_find_at(t.store, session, 3, "k", 1, &document), 0);
        assert_int_equal(document.seq, 3);
        open_again(&t, how);
    }
    assert_int_equal(hl_undo(t.store, session, 2, NULL, NULL, &t.err), 0);
    expect_document(&t, session, "k", "1");
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trim),         cmocka_unit_test(test_trim_all),
        cmocka_unit_test(test_retry),        cmocka_unit_test(test_delete),
        cmocka_unit_test(test_remove_empty), cmocka_unit_test(test_operations_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
