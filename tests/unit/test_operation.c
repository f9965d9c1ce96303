/* test_operation.c - what lines with "op" ask for, and dates of RFC 3339. */
#include "support.h"

#include <time.h>

#include "../../store/operation.h"

static struct operation parsed(const char *text)
{
    struct operation operation;
    struct hl_error err;
    if (operation_parse(text, strlen(text), &operation, &err) != 0)
        fail_msg("%s: %s", text, err.text);
    return operation;
}

static void is_span(struct json_span span, const char *text)
{
    assert_int_equal(span.len, strlen(text));
    assert_memory_equal(span.at, text, span.len);
}

static void is_key(const struct operation *operation, const char *key)
{
    assert_int_equal(operation->key_len, strlen(key));
    assert_memory_equal(operation->key, key, operation->key_len);
}

static void test_spellings(void **state)
{
    (void)state;
    struct operation o = parsed("{\"op\":\"set\",\"key\":\"a\\u002fb\",\"value\": {\"x\": [1]} }");
    assert_int_equal(o.kind, OPERATION_SET);
    is_key(&o, "a/b");
    is_span(o.value, "{\"x\": [1]}");
    o = parsed("{\"op\":\"SET\",\"id\":\"k\",\"data\":null,\"prev\":null,\"encoding\":\"full\"}");
    assert_int_equal(o.kind, OPERATION_SET);
    is_span(o.value, "null");
    o = parsed("{\"op\":\"SET\",\"data\":{\"a\":1}}");
    assert_int_equal(o.kind, OPERATION_CHECKPOINT);
    is_span(o.value, "{\"a\":1}");
    o = parsed("{\"op\":\"DELETE\",\"id\":\"k\"}");
    assert_int_equal(o.kind, OPERATION_DELETE);
    assert_false(o.moved);
    o = parsed("{\"op\":\"delete\",\"key\":\"k\",\"moved_to\":\"l\"}");
    assert_true(o.moved);
    o = parsed("{\"op\":\"CHECKPOINT\",\"data\":{}}");
    assert_int_equal(o.kind, OPERATION_CHECKPOINT);
    o = parsed("{\"op\":\"undo\",\"undone_seq\":0}");
    assert_true(o.has_undone && o.undone_seq == 0);
    o = parsed("{\"op\":\"undo\"}");
    assert_false(o.has_undone);
    o = parsed("{\"op\":\"set\",\"key\":\"k\",\"value\":1,\"prev_seq\":null,\"prev_op\":9}");
    assert_true(o.prev_seq.given && !o.prev_seq.set);
    assert_true(o.prev_op.given && o.prev_op.set && o.prev_op.seq == 9);
}

static void test_keys(void **state)
{
    (void)state;
    static const char *const keys[] = {"a\"]", "\\", "c,d", "e"};
    struct operation o =
        parsed("{\"op\":\"archive\",\"name\":\"x\",\"keys\": [ \"a\\\"]\" ,\"\\\\\",\n"
               "\"c,d\",\"\\u0065\" ] }");
    char key[HL_KEY_MAX];
    size_t at = 0, len;
    is_key(&o, "x");
    for (size_t i = 0; i < 4; i++) {
        assert_true(operation_next_key(o.keys, &at, key, &len));
        assert_int_equal(len, strlen(keys[i]));
        assert_memory_equal(key, keys[i], len);
    }
    assert_false(operation_next_key(o.keys, &at, key, &len));
    assert_false(operation_next_key(o.as, &(size_t){0}, key, &len));
    o = parsed("{\"op\":\"restore\",\"name\":\"x\",\"keys\":[ ]}");
    assert_false(operation_next_key(o.keys, &(size_t){0}, key, &len));
}

static void is_date(const char *text, uint64_t ms)
{
    uint64_t found;
    if (!operation_date(text, strlen(text), &found))
        fail_msg("%s was not taken", text);
    if (found != ms)
        fail_msg("%s: %llu, not %llu", text, (unsigned long long)found, (unsigned long long)ms);
}

static void test_dates(void **state)
{
    (void)state;
    is_date("1970-01-01T00:00:00Z", 0);
    is_date("1970-01-01t00:00:00.001z", 1);
    is_date("2000-02-29T12:34:56.7Z", UINT64_C(951827696700));
    is_date("2024-12-31T23:59:60Z", UINT64_C(1735689600000));
    is_date("2026-01-01T00:00:00+05:30", UINT64_C(1767205800000));
    is_date("2025-12-31 18:30:00.123456789-00:00", UINT64_C(1767205800123));
    is_date("9999-12-31T23:59:59.999Z", UINT64_C(253402300799999));
    static const char *const none[] = {"",
                                       "2024",
                                       "2024-01-01",
                                       "2024-01-01T00:00:00",
                                       "2024-13-01T00:00:00Z",
                                       "2024-00-01T00:00:00Z",
                                       "2023-02-29T00:00:00Z",
                                       "2024-01-32T00:00:00Z",
                                       "2024-01-01T24:00:00Z",
                                       "2024-01-01T00:60:00Z",
                                       "2024-01-01T00:00:61Z",
                                       "2024-01-01T00:00:00.Z",
                                       "2024-01-01T00:00:00Zx",
                                       "2024-01-01T00:00:00+0100",
                                       "1969-12-31T23:59:59Z",
                                       "1970-01-01T00:00:00+00:01",
                                       "24-01-01T00:00:00Z",
                                       "2024-1-01T00:00:00Z"};
    uint64_t ms;
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        if (operation_date(none[i], strlen(none[i]), &ms))
            fail_msg("%s was taken", none[i]);
}

/* Against the C library, for days that there are. */
static void test_random_dates(void **state)
{
    (void)state;
    uint64_t chance = t_seed("random dates");
    for (unsigned i = 0; i < 20000; i++) {
        time_t seconds = (time_t)t_below(&chance, UINT64_C(253402300800));
        unsigned ms = (unsigned)t_below(&chance, 1000);
        struct tm tm;
        char text[64], whole[80];
        gmtime_r(&seconds, &tm);
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
        snprintf(whole, sizeof whole, "%s.%03uZ", text, ms);
        is_date(whole, (uint64_t)seconds * 1000 + ms);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spellings),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_dates),
        cmocka_unit_test(test_random_dates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
