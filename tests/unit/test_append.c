/* test_append.c - hl_append(): stamping, seqs, retries, batches and receipts. What calls that fail
 * do to it is in test_append_failures.c. */
#include "support.h"

#include <inttypes.h>

struct receipts {
    struct hl_receipt at[8];
    char id[8][64];
    size_t count;
};

static void take_receipt(void *context, const struct hl_receipt *receipt)
{
    struct receipts *receipts = context;
    struct hl_receipt *kept = &receipts->at[receipts->count];
    *kept = *receipt;
    snprintf(receipts->id[receipts->count], 64, "%.*s", (int)receipt->id_len, receipt->id);
    kept->id = receipts->id[receipts->count++];
}

static int append_receipts(struct t_store *t, uint32_t session, const char *text,
                           struct receipts *receipts)
{
    struct hl_append request = {
        .session = session,
        .data = text,
        .len = strlen(text),
        .uid = 7,
        .gid = 8,
        .mode = 0604,
        .receipt = take_receipt,
        .receipt_context = receipts,
    };
    receipts->count = 0;
    return hl_append(t->store, &request, &t->err);
}

static void expect_line(struct t_store *t, uint32_t session, uint64_t seq, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The line of a record; in the format, %s stands for its ts_ms as it was recorded. */
static void expect_line(struct t_store *t, uint32_t session, uint64_t seq, const char *format, ...)
{
    char wanted[4096], got[4096];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(wanted, sizeof wanted, format, arguments);
    va_end(arguments);
    ssize_t n = hl_record_read(t->store, session, seq, got, sizeof got - 1, 0);
    if (n < 0)
        fail_msg("record %" PRIu64 ": %s", seq, strerror((int)-n));
    got[n] = 0;
    assert_string_equal(got, wanted);
}

static uint64_t recorded(struct t_store *t, uint32_t session, uint64_t seq)
{
    struct hl_record record;
    assert_int_equal(hl_record_find(t->store, session, seq, &record), 0);
    assert_int_equal(record.seq, seq);
    return record.recorded_ms;
}

static void test_stamping(void **state)
{
    (void)state;
    struct t_store t;
    t_store_init(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "a\"b");
    t_append(&t, s, "hello \"you\"\n");
    expect_line(&t, s, 1,
                "{\"session_id\":\"a\\\"b\",\"seq\":1,\"ts_ms\":%" PRIu64
                ",\"ts_exact\":false,\"source\":\"Tail\",\"kind\":\"Message\",\"payload\":\"hello "
                "\\\"you\\\"\"}\n",
                recorded(&t, s, 1));
    t_append(&t, s, "{\"kind\":\"Cost\",\"ts_ms\":5, \"x\" : [1, 2]}\n");
    expect_line(&t, s, 2,
                "{\"session_id\":\"a\\\"b\",\"seq\":2,\"ts_exact\":true,\"source\":\"Tail\","
                "\"kind\":\"Cost\",\"ts_ms\":5, \"x\" : [1, 2]}\n");
    struct hl_record record;
    assert_int_equal(hl_record_find(t.store, s, 2, &record), 0);
    assert_int_equal(record.ts_ms, 5);
    assert_true(record.recorded_ms > 1000000000000);
    /* An operation has neither source nor kind. */
    t_append(&t, s, "{\"op\":\"set\",\"key\":\"k\",\"value\":1}\n");
    expect_line(&t, s, 3,
                "{\"session_id\":\"a\\\"b\",\"seq\":3,\"ts_ms\":%" PRIu64
                ",\"ts_exact\":false,\"prev_seq\":null,\"prev_op\":null,\"op\":\"set\",\"key\":"
                "\"k\",\"value\":1}\n",
                recorded(&t, s, 3));
    /* The last line needs no newline, and empty lines are none. */
    t_append(&t, s, "\n\nx\n\ny");
    struct hl_session about;
    assert_int_equal(hl_session_by_number(t.store, s, &about), 0);
    assert_int_equal(about.records, 5);
    assert_int_equal(about.last_seq, 5);
    t_append(&t, s, "\n\n");
    t_append(&t, s, "");
    assert_int_equal(hl_session_by_number(t.store, s, &about), 0);
    assert_int_equal(about.records, 5);
    assert_int_equal(hl_record_find(t.store, s, 6, &record), -ENOENT);
    assert_int_equal(hl_record_find(t.store, s, 0, &record), -ENOENT);
    assert_int_equal(hl_record_find(t.store, 99, 1, &record), -ENOENT);
    t_store_free(&t);
}

static void expect_refused(struct t_store *t, uint32_t session, const char *text, int code,
                           size_t line)
{
    int error = t_try_append(t, session, text, strlen(text));
    if (error != -code || t->err.line != line)
        fail_msg("%s: %d (line %zu): %s", text, error, t->err.line, t->err.text);
    assert_int_equal(t->err.code, code);
    assert_true(t->err.text[0] != 0);
}

static void test_seqs(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_session about;
    t_store_init(&t);
    t_open(&t);
    uint32_t zero = t_session(&t, "zero");
    assert_int_equal(hl_session_by_number(t.store, zero, &about), 0);
    assert_false(about.has_seq);
    t_append(&t, zero, "{\"seq\":0}\n");
    assert_int_equal(hl_session_by_number(t.store, zero, &about), 0);
    assert_true(about.has_seq);
    assert_int_equal(about.last_seq, 0);
    assert_int_equal(about.first_seq, 0);
    t_append(&t, zero, "next\n");
    uint32_t s = t_session(&t, "gaps");
    t_append(&t, s, "{\"seq\":10}\nb\n{\"seq\":100000000000}\nd\n");
    struct hl_record record;
    const uint64_t there[] = {10, 11, 100000000000, 100000000001};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(hl_record_find(t.store, s, there[i], &record), 0);
    assert_int_equal(hl_record_find(t.store, s, 12, &record), -ENOENT);
    assert_int_equal(hl_record_find(t.store, s, 9, &record), -ENOENT);
    expect_refused(&t, s, "a\n{\"seq\":11,\"x\":1}\n", EEXIST, 2);
    expect_refused(&t, s, "{\"seq\":12}\n", EEXIST, 1);
    expect_refused(&t, s, "{\"seq\":9}\n", EEXIST, 1);
    expect_refused(&t, s, "{\"seq\":9007199254740992}\n", EINVAL, 1);
    t_append(&t, s, "{\"seq\":9007199254740991}\n");
    expect_refused(&t, s, "no room\n", EINVAL, 1);
    assert_int_equal(hl_session_by_number(t.store, s, &about), 0);
    assert_int_equal(about.records, 5);
    struct t_image image;
    t_image_take(t.store, &image);
    t_reopen(&t);
    t_shows(t.store, &image);
    expect_refused(&t, s, "no room\n", EINVAL, 1);
    t_image_free(&image);
    t_store_free(&t);
}

static void test_retry_appends_nothing(void **state)
{
    (void)state;
    struct t_store t;
    struct receipts receipts;
    struct hl_session about;
    t_store_init(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    static const char batch[] = "{\"seq\":1,\"x\":1}\n{\"seq\":2,\"ts_ms\":9,\"x\":2}\n";
    t_append(&t, s, batch);
    struct t_image image;
    t_image_take(t.store, &image);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(append_receipts(&t, s, batch, &receipts), 0);
        assert_int_equal(receipts.count, 1);
        assert_int_equal(receipts.at[0].first, 1);
        assert_int_equal(receipts.at[0].last, 2);
        assert_int_equal(receipts.at[0].records, 2);
        expect_refused(&t, s, "{\"seq\":1,\"x\":2}\n", EEXIST, 1);
        expect_refused(&t, s, "{\"seq\":2,\"x\":2}\n", EEXIST, 1); /* then without its ts_ms */
        expect_refused(&t, s, "new\n{\"seq\":2,\"ts_ms\":9,\"x\":3}\n", EEXIST, 2);
        t_shows(t.store, &image);
        t_reopen(&t);
        t_shows(t.store, &image);
    }
    /* A retry that goes further than what it repeats. */
    assert_int_equal(
        append_receipts(&t, s, "{\"seq\":2,\"ts_ms\":9,\"x\":2}\n{\"seq\":3}\nz\n", &receipts), 0);
    assert_int_equal(receipts.at[0].first, 2);
    assert_int_equal(receipts.at[0].last, 4);
    assert_int_equal(hl_session_by_number(t.store, s, &about), 0);
    assert_int_equal(about.records, 4);
    t_image_free(&image);
    t_store_free(&t);
}

/* The same seq twice in one batch: the same line is one record, another refuses the batch. */
static void test_duplicates_in_a_batch(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_session about;
    struct receipts receipts;
    t_store_init(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    assert_int_equal(
        append_receipts(&t, s, "{\"seq\":5,\"a\":1}\n{\"seq\":5,\"a\":1}\n", &receipts), 0);
    assert_int_equal(receipts.at[0].first, 5);
    assert_int_equal(receipts.at[0].last, 5);
    assert_int_equal(receipts.at[0].records, 2);
    expect_refused(&t, s, "{\"seq\":6}\n{\"seq\":7,\"a\":1}\n{\"seq\":7,\"a\":2}\n", EEXIST, 3);
    expect_refused(&t, s, "{\"seq\":6}\n{\"seq\":9,\"a\":1}\n{\"seq\":8,\"a\":2}\n", EEXIST, 3);
    assert_int_equal(hl_session_by_number(t.store, s, &about), 0);
    assert_int_equal(about.records, 1);
    /* Also when the first of the two has left the buffer. */
    size_t len = 3 << 20, used = 0;
    char *big = malloc(len + 2000);
    assert_non_null(big);
    used += (size_t)sprintf(big, "{\"seq\":20,\"first\":true}\n");
    while (used < len)
        used += (size_t)sprintf(big + used, "{\"pad\":\"%0999d\"}\n", 7);
    size_t same = used + (size_t)sprintf(big + used, "{\"seq\":20,\"first\":true}\n");
    assert_int_equal(t_try_append(&t, s, big, same), 0);
    assert_int_equal(hl_session_by_number(t.store, s, &about), 0);
    uint64_t records = about.records;
    size_t other = used + (size_t)sprintf(big + used, "{\"seq\":20,\"first\":null}\n");
    assert_int_equal(t_try_append(&t, s, big, other), -EEXIST);
    assert_int_equal(hl_session_by_number(t.store, s, &about), 0);
    assert_int_equal(about.records, records);
    struct t_image image;
    t_image_take(t.store, &image);
    t_reopen(&t);
    t_shows(t.store, &image);
    t_image_free(&image);
    free(big);
    t_store_free(&t);
}

static void test_session_id_must_match(void **state)
{
    (void)state;
    struct t_store t;
    t_store_init(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "s\xc3\xa9");
    t_append(&t, s, "{\"session_id\":\"s\\u00e9\"}\n{\"session_id\":\"s\xc3\xa9\"}\n");
    expect_refused(&t, s, "{\"session_id\":\"s\"}\n", EINVAL, 1);
    expect_refused(&t, s, "{\"session_id\":\"\"}\n", EINVAL, 1);
    expect_refused(&t, s, "ok\n{\"session_id\":\"t\"}\n", EINVAL, 2);
    expect_refused(&t, 0, "text\n", EINVAL, 1);
    expect_refused(&t, 0, "{\"kind\":\"Message\"}\n", EINVAL, 1);
    expect_refused(&t, 0, "{\"session_id\":null}\n", EINVAL, 1);
    expect_refused(&t, 0, "{\"session_id\":\"\"}\n", EINVAL, 1);
    expect_refused(&t, 0, "{\"session_id\":\"a\\u0000b\"}\n", EINVAL, 1);
    char id[400], text[500];
    memset(id, 'x', sizeof id);
    snprintf(text, sizeof text, "{\"session_id\":\"%.256s\"}\n", id);
    expect_refused(&t, 0, text, EINVAL, 1);
    snprintf(text, sizeof text, "{\"session_id\":\"%.255s\"}\n", id);
    t_append(&t, 0, text);
    assert_int_equal(t_try_append(&t, 99, "x\n", 2), -ENOENT);
    struct hl_status status;
    hl_store_status(t.store, &status);
    assert_int_equal(status.sessions, 2);
    t_store_free(&t);
}

static int permit_first_letter(void *context, const struct hl_session *session)
{
    return session->id[0] == *(const char *)context ? 0 : -EACCES;
}

static void test_root_append_makes_sessions(void **state)
{
    (void)state;
    struct t_store t;
    struct receipts receipts;
    struct hl_session about;
    t_store_init(&t);
    t_open(&t);
    assert_int_equal(append_receipts(&t, 0,
                                     "{\"session_id\":\"b\"}\n{\"session_id\":\"a\",\"seq\":4}\n"
                                     "{\"session_id\":\"b\"}\n{\"session_id\":\"b\",\"seq\":9}\n",
                                     &receipts),
                     0);
    assert_int_equal(receipts.count, 2);
    assert_string_equal(receipts.at[0].id, "b");
    assert_true(receipts.at[0].created);
    assert_int_equal(receipts.at[0].first, 1);
    assert_int_equal(receipts.at[0].last, 9);
    assert_int_equal(receipts.at[0].records, 3);
    assert_string_equal(receipts.at[1].id, "a");
    assert_int_equal(receipts.at[1].first, 4);
    assert_int_equal(hl_session_by_id(t.store, "b", 1, &about), 0);
    assert_int_equal(about.number, receipts.at[0].session);
    assert_int_equal(about.uid, 7);
    assert_int_equal(about.gid, 8);
    assert_int_equal(about.mode, 0604);
    assert_int_equal(append_receipts(&t, 0, "{\"session_id\":\"b\"}\n", &receipts), 0);
    assert_false(receipts.at[0].created);
    assert_int_equal(receipts.at[0].first, 10);

    /* What may not be appended to refuses all of it, and nothing is made. */
    struct t_image image;
    t_image_take(t.store, &image);
    static const char text[] =
        "{\"session_id\":\"c\"}\n{\"session_id\":\"a\"}\n{\"session_id\":\"d\"}\n"
        "{\"session_id\":\"b\"}\n";
    char letter = 'a';
    struct hl_append request = {
        .data = text,
        .len = sizeof text - 1,
        .permit = permit_first_letter,
        .permit_context = &letter,
        .receipt = take_receipt,
        .receipt_context = &receipts,
    };
    receipts.count = 0;
    assert_int_equal(hl_append(t.store, &request, &t.err), -EACCES);
    assert_int_equal(t.err.line, 4);
    assert_int_equal(receipts.count, 0);
    t_shows(t.store, &image);
    assert_int_equal(hl_session_by_id(t.store, "c", 1, &about), -ENOENT);
    t_reopen(&t);
    t_shows(t.store, &image);
    /* A number that was given to a session of a batch that failed is no hole to trip over. */
    request.permit = NULL;
    assert_int_equal(hl_append(t.store, &request, &t.err), 0);
    assert_int_equal(receipts.count, 4);
    t_image_free(&image);
    t_image_take(t.store, &image);
    t_crash(&t);
    t_open(&t);
    t_shows(t.store, &image);
    t_image_free(&image);
    t_store_free(&t);
}

/* A batch whose frames are written in several pieces, and whose last line is bad: nothing of it
 * stays. */
static void test_large_batches_are_whole_or_absent(void **state)
{
    (void)state;
    struct t_store t;
    t_store_init(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    t_append(&t, s, "{\"seq\":1,\"x\":0}\n");
    struct t_image image;
    t_image_take(t.store, &image);
    size_t lines = 4000, used = 0;
    char *text = malloc(lines * 600 + 100);
    assert_non_null(text);
    for (size_t i = 0; i < lines; i++)
        used += (size_t)sprintf(text + used, "{\"i\":%zu,\"pad\":\"%0500d\"}\n", i, 3);
    size_t bad = used + (size_t)sprintf(text + used, "{\"seq\":1,\"x\":1}\n");
    assert_int_equal(t_try_append(&t, s, text, bad), -EEXIST);
    assert_int_equal(t.err.line, lines + 1);
    t_shows(t.store, &image);
    char path[T_PATH];
    t_segment_path(&t, 1, path);
    assert_true(t_file_size(path) < 10000);
    bad = used + (size_t)sprintf(text + used, "{\"seq\":}\n");
    assert_int_equal(t_try_append(&t, s, text, bad), -EINVAL);
    assert_int_equal(t.err.line, lines + 1);
    t_shows(t.store, &image);
    t_image_free(&image);
    assert_int_equal(t_try_append(&t, s, text, used), 0);
    t_image_take(t.store, &image);
    assert_int_equal(image.records, lines + 1);
    t_crash(&t);
    t_open(&t);
    t_shows(t.store, &image);
    t_image_free(&image);
    free(text);
    t_store_free(&t);
}

static void test_short_lines_by_the_100000(void **state)
{
    (void)state;
    struct t_store t;
    t_store_init(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    size_t lines = 100000;
    char *text = malloc(2 * lines);
    assert_non_null(text);
    for (size_t i = 0; i < lines; i++) {
        text[2 * i] = (char)('0' + i % 10);
        text[2 * i + 1] = '\n';
    }
    assert_int_equal(t_try_append(&t, s, text, 2 * lines), 0);
    struct hl_session about;
    assert_int_equal(hl_session_by_number(t.store, s, &about), 0);
    assert_int_equal(about.records, lines);
    size_t len;
    char *log = t_log(t.store, s, 1 << 20, &len);
    assert_int_equal(len, about.bytes);
    const char *at = log;
    for (size_t i = 0; i < lines; i++) {
        const char *end = memchr(at, '\n', (size_t)(log + len - at));
        char seq[64], payload[32];
        assert_non_null(end);
        snprintf(seq, sizeof seq, "\"seq\":%zu,", i + 1);
        snprintf(payload, sizeof payload, "\"payload\":\"%zu\"}\n", i % 10);
        assert_true(t_has(at, (size_t)(end - at), seq));
        assert_memory_equal(end + 1 - strlen(payload), payload, strlen(payload));
        at = end + 1;
    }
    free(log);
    free(text);
    t_store_free(&t);
}

static void test_max_record(void **state)
{
    (void)state;
    struct t_store t;
    t_store_init(&t);
    t.options.max_record = 1000;
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    char text[1200];
    memset(text, 'y', sizeof text);
    text[1000] = '\n';
    assert_int_equal(t_try_append(&t, s, text, 1001), 0);
    assert_int_equal(t_try_append(&t, s, text, 1000), 0);
    text[1000] = 'y';
    assert_int_equal(t_try_append(&t, s, text, 1001), -EMSGSIZE);
    assert_int_equal(t.err.line, 1);
    text[10] = '\n';
    text[1020] = '\n';
    assert_int_equal(t_try_append(&t, s, text, 1021), -EMSGSIZE);
    assert_int_equal(t.err.line, 2);
    t_close(&t);
    /* What was taken once stays, also where the limit is lower now. */
    t.options.max_record = 100;
    t_open(&t);
    struct hl_session about;
    assert_int_equal(hl_session_by_number(t.store, s, &about), 0);
    assert_int_equal(about.records, 2);
    t_close(&t);
    t.options.max_record = 16 << 20;
    t_open(&t);
    size_t len = 16 << 20;
    char *big = malloc(len + 1);
    assert_non_null(big);
    memset(big, 'z', len);
    big[len] = '\n';
    assert_int_equal(t_try_append(&t, s, big, len + 1), 0);
    char *log = t_log(t.store, s, 3 << 20, &len);
    assert_int_equal(strspn(strstr(log, "zzz"), "z"), 16 << 20);
    free(log);
    t_append(&t, s, "after\n");
    struct t_image image;
    t_image_take(t.store, &image);
    t_reopen(&t);
    t_shows(t.store, &image);
    t_image_free(&image);
    free(big);
    t_store_free(&t);
}

static void test_read_only_refuses(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_session about;
    t_store_init(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    t_append(&t, s, "x\n");
    t_close(&t);
    t.options.read_only = true;
    t_open(&t);
    expect_refused(&t, s, "y\n", EROFS, 0);
    expect_refused(&t, 0, "{\"session_id\":\"n\"}\n", EROFS, 0);
    assert_int_equal(hl_session_create(t.store, "n", 1, 0, 0, 0700, &about, &t.err), -EROFS);
    assert_int_equal(hl_session_change(t.store, s, HL_CHANGE_MODE, 0, 0, 0777, NULL), -EROFS);
    assert_int_equal(hl_attribute_set(t.store, s, "a", "b", 1, 0), -EROFS);
    assert_int_equal(hl_attribute_remove(t.store, s, "a"), -EROFS);
    assert_int_equal(hl_rotate(t.store, &t.err), -EROFS);
    assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), -EROFS);
    assert_int_equal(hl_reindex(t.store, NULL, &t.err), -EROFS);
    assert_int_equal(hl_sync(t.store), 0);
    t_store_free(&t);
}

static int permit_odd(void *context, const struct hl_session *session)
{
    (void)context;
    return session->number % 2 ? 0 : -EACCES;
}

/* Who reads why a root append was refused is told of which session it is. */
static void test_root_refusals_name_the_session(void **state)
{
    struct t_store t;
    (void)state;
    t_store_init(&t);
    t_open(&t);
    uint32_t one = t_session(&t, "one"), two = t_session(&t, "two");
    const struct {
        const char *text;
        int code;
        size_t line;
        uint32_t session;
    } cases[] = {
        {"{\"session_id\":\"two\"}\n", EACCES, 1, two},
        {"{\"session_id\":\"one\"}\n{\"session_id\":\"two\"}\n", EACCES, 2, two},
        {"{\"x\":{},\"session_id\":\"on\\u0065\",\"kind\":1}\n", EINVAL, 1, one},
        {"{\"session_id\":\"one\",\"session_id\":\"two\"}\n", EINVAL, 1, one},
        {"{\"session_id\":\"one\",\"a\"}\n", EINVAL, 1, one},
        {"{\"session_id\":\"one\"}\n\n{\"session_id\":\"none\",\"kind\":1}\n", EINVAL, 3, 0},
        {"{\"session_id\":1,\"a\":{\"session_id\":\"one\"}}\n", EINVAL, 1, 0},
        {"{\"a\":\"one\"}\n", EINVAL, 1, 0},
        {"one\n", EINVAL, 1, 0},
        {"{\"session_id\":\"new\"}\n{\"session_id\":\"new\",\"kind\":1}\n", EINVAL, 2, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct hl_append request = {
            .data = cases[i].text, .len = strlen(cases[i].text), .permit = permit_odd};
        assert_int_equal(hl_append(t.store, &request, &t.err), -cases[i].code);
        if (t.err.line != cases[i].line || t.err.session != cases[i].session)
            fail_msg("%s: line %zu, session %u: %s", cases[i].text, t.err.line, t.err.session,
                     t.err.text);
    }
    struct hl_line_progress progress = {{0}};
    const char *piece = "{\"session_id\":\"two\",}";
    assert_false(hl_line_check(t.store, 0, &progress, piece, strlen(piece), &t.err));
    assert_int_equal(t.err.session, two);
    assert_false(hl_line_check(t.store, one, &progress, piece, strlen(piece), &t.err));
    assert_int_equal(t.err.session, 0);
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stamping),
        cmocka_unit_test(test_seqs),
        cmocka_unit_test(test_retry_appends_nothing),
        cmocka_unit_test(test_duplicates_in_a_batch),
        cmocka_unit_test(test_session_id_must_match),
        cmocka_unit_test(test_root_append_makes_sessions),
        cmocka_unit_test(test_large_batches_are_whole_or_absent),
        cmocka_unit_test(test_short_lines_by_the_100000),
        cmocka_unit_test(test_root_refusals_name_the_session),
        cmocka_unit_test(test_max_record),
        cmocka_unit_test(test_read_only_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
