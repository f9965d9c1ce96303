/* test_json.c - the scanner, case by case; test_json_differential.c holds it against other judges.
 */
#include "json_cases.h"
#include "json_make.h"

#include "../../store/json.h"

static struct guard room;

static enum json_result scan_value(const char *text, size_t len)
{
    return json_scan_value(guard_put(&room, text, len), len, NULL, NULL);
}

static void expect(const struct json_case *cases, size_t count, enum json_result want)
{
    for (size_t i = 0; i < count; i++) {
        enum json_result got = scan_value(cases[i].text, cases[i].len);
        if (got != want)
            fail_msg("%s: result %d, not %d", cases[i].text, (int)got, (int)want);
    }
}

/* ---- what is taken, and what is not ---- */

static void test_accepted(void **state)
{
    (void)state;
    expect(CASES(json_accepted), JSON_OK);
}

static void test_refused(void **state)
{
    (void)state;
    expect(CASES(json_refused), JSON_INVALID);
}

static void test_unfinished(void **state)
{
    (void)state;
    expect(CASES(json_unfinished), JSON_UNFINISHED);
    expect(CASES(json_hopeless), JSON_INVALID);
}

static void test_objects_only(void **state)
{
    struct json_error err;
    (void)state;
    assert_int_equal(json_scan_object("{}", 2, NULL, NULL, NULL), JSON_OK);
    assert_int_equal(json_scan_object(" {} ", 4, NULL, NULL, NULL), JSON_OK);
    assert_int_equal(json_scan_object(NULL, 0, NULL, NULL, &err), JSON_UNFINISHED);
    assert_int_equal(json_scan_object("\n ", 2, NULL, NULL, &err), JSON_UNFINISHED);
    static const char *const others[] = {"[]", "1", "\"a\"", "null", "x", "\"{}\"", "[{}]"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        assert_int_equal(json_scan_object(others[i], strlen(others[i]), NULL, NULL, &err),
                         JSON_INVALID);
        assert_int_equal(err.offset, 0);
        assert_string_equal(err.reason, "expected '{'");
    }
}

static void test_types(void **state)
{
    static const struct {
        const char *text;
        enum json_type type;
    } cases[] = {{" null", JSON_NULL},  {"true", JSON_BOOL}, {"false ", JSON_BOOL},
                 {"-1.5", JSON_NUMBER}, {"7", JSON_NUMBER},  {"\"{}\"", JSON_STRING},
                 {"[{}]", JSON_ARRAY},  {"[]", JSON_ARRAY},  {"{\"a\":[]}", JSON_OBJECT},
                 {"{}", JSON_OBJECT}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        enum json_type type = (enum json_type)99;
        assert_int_equal(json_scan_value(cases[i].text, strlen(cases[i].text), &type, NULL),
                         JSON_OK);
        assert_int_equal(type, cases[i].type);
    }
}

/* ---- prefixes, pieces ---- */

static const char *const documents[] = {
    "{\"a\":1}",
    " {\t\"key\" : [ 1 , -2.50e+3 , true , false , null , \"x\" , { } , [ ] ] }\r\n ",
    "{\"s\":\"\\\"\\\\\\/"
    "\\b\\f\\n\\r\\t\\u0041\\ud83d\\ude00\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"}",
    "{\"\\u0061\\ud800\\udc00\xf4\x8f\xbf\xbf\":{\"b\":{\"c\":[[[{\"d\":0}]]]}},\"e\":0.5,\"f\":-"
    "0}",
    "{\"kind\":\"ToolCall\",\"tool\":\"bash\",\"payload\":{\"cmd\":\"a longer command with words "
    "enough to be stepped over in more than one stride\",\"n\":[12345678901234567890,1e5]}}",
};

static void test_every_prefix(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof documents / sizeof *documents; i++) {
        const char *text = documents[i];
        size_t whole = strlen(text), object_end = (size_t)(strrchr(text, '}') - text) + 1;
        for (size_t len = 0; len <= whole; len++) {
            struct json_error err = {SIZE_MAX, NULL};
            const char *copy = guard_put(&room, text, len);
            enum json_result got = json_scan_object(copy, len, NULL, NULL, &err);
            enum json_result want = len < object_end ? JSON_UNFINISHED : JSON_OK;
            if (got != want)
                fail_msg("the first %zu bytes of %s: result %d", len, text, (int)got);
            if (got == JSON_UNFINISHED) {
                assert_int_equal(err.offset, len);
                assert_non_null(err.reason);
            }
            assert_int_equal(json_scan_value(copy, len, NULL, NULL), want);
        }
    }
}

/* A text that grows by `step` bytes: each time the answer is that of a fresh scan. */
static void grow(const char *text, size_t len, size_t step)
{
    struct json_progress progress = {0};
    for (size_t have = 0;; have = have + step > len ? len : have + step) {
        struct json_error fresh = {0, NULL}, more = {0, NULL};
        const char *copy = guard_put(&room, text, have);
        enum json_result want = json_scan_object(copy, have, NULL, NULL, &fresh);
        enum json_result got = json_scan_more(&progress, copy, have, &more);
        if (got != want || more.offset != fresh.offset)
            fail_msg("%s at %zu in steps of %zu: %d at %zu, not %d at %zu", text, have, step,
                     (int)got, more.offset, (int)want, fresh.offset);
        assert_true(progress.at <= have);
        if (got == JSON_INVALID || have == len)
            return;
    }
}

static void test_pieces(void **state)
{
    static const char *const bad[] = {
        "{\"a\":01}",   "{\"a\":\"\\ud800\\u0041\"}", "{\"a\":[1}",       "{\"a\":1}x",
        "  {\"a\":1,}", "{\"a\":\"\xe2\x82x\"}",      "{\"a\":{\"b\":1]", "[1]",
        "{\"a\":truE}"};
    (void)state;
    for (size_t step = 1; step < 20; step++) {
        for (size_t i = 0; i < sizeof documents / sizeof *documents; i++)
            grow(documents[i], strlen(documents[i]), step);
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
            grow(bad[i], strlen(bad[i]), step);
    }
}

/* Pieces cost what they are long, not what came before them: nothing is looked at again, whatever
 * it is that goes on and on. */
static void test_pieces_are_cheap(void **state)
{
    static const struct {
        const char *begin;
        char fill;
    } cases[] = {{"", ' '},           {"{", ' '},         {"{\"", 'k'},       {"{\"k\"", '\t'},
                 {"{\"k\":", ' '},    {"{\"k\":\"", 'x'}, {"{\"k\":1", '1'},  {"{\"k\":-0.", '5'},
                 {"{\"k\":2e+", '0'}, {"{\"k\":[", '\r'}, {"{\"k\":[{", ' '}, {"{\"k\":null", ' '},
                 {"{\"k\":1,", ' '},  {"{\"k\":{}", ' '}};
    const size_t len = 1 << 20;
    char *text = malloc(len);
    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memset(text, cases[i].fill, len);
        memcpy(text, cases[i].begin, strlen(cases[i].begin));
        struct json_progress progress = {0};
        for (size_t have = 16; have < len; have += 16) {
            if (json_scan_more(&progress, text, have, NULL) != JSON_UNFINISHED ||
                progress.at != have)
                fail_msg("%s and on: at %zu of %zu", cases[i].begin, progress.at, have);
        }
    }
    free(text);
}

/* ---- nesting ---- */

static void test_depth(void **state)
{
    struct make text = {0};
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        for (size_t depth = JSON_DEPTH_MAX - 1; depth <= JSON_DEPTH_MAX + 1; depth++) {
            make_clear(&text);
            for (size_t i = 0; i < depth; i++)
                make_text(&text, kind == 0 || (kind == 2 && i % 2) ? "[" : "{\"a\":");
            size_t open_len = text.len;
            if (kind != 0)
                make_text(&text, "0");
            for (size_t i = depth; i > 0; i--)
                make_text(&text, kind == 0 || (kind == 2 && (i - 1) % 2) ? "]" : "}");
            bool fits = depth <= JSON_DEPTH_MAX;
            assert_int_equal(scan_value(text.text, text.len), fits ? JSON_OK : JSON_INVALID);
            assert_int_equal(scan_value(text.text, open_len),
                             fits ? JSON_UNFINISHED : JSON_INVALID);
            assert_int_equal(scan_value(text.text, text.len - 1),
                             fits ? JSON_UNFINISHED : JSON_INVALID);
        }
    }
    /* Empty containers count too, and the bracket kinds are remembered all the way down. */
    make_clear(&text);
    for (size_t i = 0; i < JSON_DEPTH_MAX; i++)
        make_text(&text, "[");
    struct make full = {0};
    make_bytes(&full, text.text, text.len);
    make_text(&full, "{}");
    assert_int_equal(scan_value(full.text, full.len), JSON_INVALID);
    for (size_t i = 1; i < JSON_DEPTH_MAX; i++) {
        full.len = 0;
        make_bytes(&full, text.text, text.len);
        for (size_t j = 0; j < JSON_DEPTH_MAX; j++)
            make_text(&full, j == i ? "}" : "]");
        if (scan_value(full.text, full.len) != JSON_INVALID)
            fail_msg("bracket %zu", i);
    }
    free(full.text);
    free(text.text);
}

/* ---- members ---- */

struct collected {
    struct json_member members[16];
    size_t count, stop_after;
};

static bool collect(void *context, const struct json_member *member)
{
    struct collected *collected = context;
    assert_true(collected->count < 16);
    collected->members[collected->count++] = *member;
    return collected->count != collected->stop_after;
}

static void check_member(const struct json_member *member, const char *key, const char *value,
                         enum json_type type, bool key_escaped, bool value_escaped)
{
    assert_int_equal(member->key.len, strlen(key));
    assert_memory_equal(member->key.at, key, member->key.len);
    assert_int_equal(member->value.len, strlen(value));
    assert_memory_equal(member->value.at, value, member->value.len);
    assert_int_equal(member->type, type);
    assert_int_equal(member->key_escaped, key_escaped);
    assert_int_equal(member->value_escaped, value_escaped);
}

static void test_members(void **state)
{
    static const char text[] =
        " {\"a\":1, \"\" : \"x\" ,\"c\\n\":\"\\u0041\",\"d\":{\"e\":[{\"f\":\"\\\\\"}] } , "
        "\"g\":[]\n,"
        "\"h\":{ },\"i\":null,\"j\":true,\"k\":-1.5e3 "
        ",\"a\":[1,{\"z\":2}],\"\xc3\xa9\":\"\xc3\xa9\"} ";
    struct collected got = {.count = 0};
    (void)state;
    assert_int_equal(json_scan_object(text, sizeof text - 1, collect, &got, NULL), JSON_OK);
    assert_int_equal(got.count, 11);
    check_member(&got.members[0], "a", "1", JSON_NUMBER, false, false);
    check_member(&got.members[1], "", "\"x\"", JSON_STRING, false, false);
    check_member(&got.members[2], "c\\n", "\"\\u0041\"", JSON_STRING, true, true);
    check_member(&got.members[3], "d", "{\"e\":[{\"f\":\"\\\\\"}] }", JSON_OBJECT, false, false);
    check_member(&got.members[4], "g", "[]", JSON_ARRAY, false, false);
    check_member(&got.members[5], "h", "{ }", JSON_OBJECT, false, false);
    check_member(&got.members[6], "i", "null", JSON_NULL, false, false);
    check_member(&got.members[7], "j", "true", JSON_BOOL, false, false);
    check_member(&got.members[8], "k", "-1.5e3", JSON_NUMBER, false, false);
    check_member(&got.members[9], "a", "[1,{\"z\":2}]", JSON_ARRAY, false, false);
    check_member(&got.members[10], "\xc3\xa9", "\"\xc3\xa9\"", JSON_STRING, false, false);
    for (size_t i = 0; i < got.count; i++) /* they lie in the text itself */
        assert_true(got.members[i].key.at > text && got.members[i].value.at < text + sizeof text);
}

static void test_stopping(void **state)
{
    struct collected got = {.stop_after = 2};
    (void)state;
    assert_int_equal(json_scan_object("{\"a\":1,\"b\":2,\"c\":3}", 19, collect, &got, NULL),
                     JSON_STOPPED);
    assert_int_equal(got.count, 2);
    /* What was told before a fault stays told; a value that may go on is not told. */
    got = (struct collected){.count = 0};
    assert_int_equal(json_scan_object("{\"a\":1,\"b\":2", 12, collect, &got, NULL),
                     JSON_UNFINISHED);
    assert_int_equal(got.count, 1);
}

static void test_errors(void **state)
{
    static const struct {
        const char *text;
        size_t offset;
        const char *reason;
    } cases[] = {
        {"{\"a\" 1}", 5, "expected ':' after a key"},
        {"{a:1}", 1, "expected a key or '}'"},
        {"{\"a\":1,}", 7, "expected a key"},
        {"{\"a\":1 \"b\":2}", 7, "expected ',' or '}'"},
        {"{\"a\":[1 2]}", 8, "expected ',' or ']'"},
        {"{\"a\":?}", 5, "expected a value"},
        {"{\"a\":nul}", 5, "expected a value (words are true, false and null)"},
        {"{\"a\":01}", 6, "a number must not begin with 0"},
        {"{\"a\":1.}", 7, "expected a digit"},
        {"{\"a\":\"\t\"}", 6, "a control character in a string must be escaped"},
        {"{\"a\":\"\\q\"}", 6, "an escape that there is not"},
        {"{\"a\":\"\\u00g0\"}", 6, "expected four hex digits after \\u"},
        {"{\"a\":\"x\\udc00\"}", 7, "an escaped surrogate without its other half"},
        {"{\"a\":\"\xff\"}", 6, "not UTF-8"},
        {"{\"a\":1} x", 8, "something stands behind the end"},
        {"{\"a\":\"b", 7, "the text ends inside a string"},
        {"{\"a\"", 4, "the text ends where ':' is due"},
        {"{\"a\":", 5, "the text ends where a value is due"},
        {"{\"a\":1,", 7, "the text ends where a key is due"},
        {"{\"a\":[1,2]", 10, "the text ends inside an object"},
        {"{\"a\":[[]", 8, "the text ends inside an array"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct json_error err = {0, NULL};
        assert_int_not_equal(
            json_scan_object(cases[i].text, strlen(cases[i].text), NULL, NULL, &err), JSON_OK);
        assert_string_equal(err.reason, cases[i].reason);
        if (err.offset != cases[i].offset)
            fail_msg("%s: offset %zu", cases[i].text, err.offset);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepted),   cmocka_unit_test(test_refused),
        cmocka_unit_test(test_unfinished), cmocka_unit_test(test_objects_only),
        cmocka_unit_test(test_types),      cmocka_unit_test(test_every_prefix),
        cmocka_unit_test(test_pieces),     cmocka_unit_test(test_pieces_are_cheap),
        cmocka_unit_test(test_depth),      cmocka_unit_test(test_members),
        cmocka_unit_test(test_stopping),   cmocka_unit_test(test_errors),
    };
    guard_make(&room, 1 << 16);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    guard_free(&room);
    return failed;
}
