/*
 * test_json_differential.c - the scanner against other judges, on random documents and random
 * damage.
 *
 * Four judges read each text: json.c, jansson, yajl, and the simple reader of json_reader.h.
 * That one takes more than RFC 8259 does and notes each liberty that it took, in a set of faults.
 * The table below says which faults each judge objects to; a verdict that it does not explain, of
 * any judge, fails the test. So each difference between json.c and a library is one of those in the
 * table, and is settled by the RFC: json.c objects to exactly what the RFC forbids, and to nesting
 * beyond its limit (section 9 allows one).
 *
 * From the environment: SEED, ITERATIONS (20000).
 */
#include "json_cases.h"
#include "json_make.h"
#include "json_reader.h"

/* Both libraries of JSON have these names. */
#define JSON_OBJECT JANSSON_OBJECT
#define JSON_ARRAY JANSSON_ARRAY
#define JSON_STRING JANSSON_STRING
#define JSON_NULL JANSSON_NULL
#include <jansson.h>
#undef JSON_OBJECT
#undef JSON_ARRAY
#undef JSON_STRING
#undef JSON_NULL
#include <yajl/yajl_parse.h>

#include "../../store/json.h"

static const struct {
    const char *name;
    unsigned objects; /* to these faults */
} judges[] = {
    {"json.c", GRAMMAR | TOO_EARLY | NUL_BEHIND | STRING_BEHIND | CODE_POINT | LONE_SURROGATE |
                   ODD_SPACE | DEEP},
    /* Numbers must fit C types; a key must be a C string; a NUL that it puts back is lost. */
    {"jansson", GRAMMAR | TOO_EARLY | STRING_BEHIND | CODE_POINT | LONE_SURROGATE | ODD_SPACE |
                    VERY_DEEP | BIG_NUMBER | NUL_IN_KEY},
    /* Looks at the form of UTF-8 only, not at what it stands for; takes \v and \f as space; looks
     * behind the end for a token, and a string that is not whole is none yet. */
    {"yajl", GRAMMAR | TOO_EARLY | NUL_BEHIND},
};

/* ---- the judges ---- */

static bool jansson_takes(const char *text, size_t len, json_t **tree)
{
    json_error_t error;
    *tree = json_loadb(text, len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    return *tree != NULL;
}

static bool yajl_takes(const char *text, size_t len)
{
    yajl_handle handle = yajl_alloc(NULL, NULL, NULL); /* all liberties are off */
    assert_non_null(handle);
    yajl_status status = yajl_parse(handle, (const unsigned char *)text, len);
    if (status == yajl_status_ok)
        status = yajl_complete_parse(handle);
    yajl_free(handle);
    return status == yajl_status_ok;
}

static struct {
    size_t texts, taken, unfinished, objects;
    size_t differ[2]; /* from json.c: jansson, yajl */
} seen;

static struct guard room;

static void show(const char *text, size_t len, unsigned faults)
{
    fprintf(stderr, "faults %x, %zu bytes: ", faults, len);
    for (size_t i = 0; i < len; i++) {
        if (text[i] >= ' ' && text[i] <= '~' && text[i] != '\\')
            fprintf(stderr, "%c", text[i]);
        else
            fprintf(stderr, "\\x%02x", (unsigned)(uint8_t)text[i]);
    }
    fprintf(stderr, "\n");
}

/* ---- members against jansson's ---- */

struct members {
    json_t *object;
    json_t *found; /* our members: what came last under a name stands */
    size_t count;
};

static bool compare_member(void *context, const struct json_member *member)
{
    struct members *members = context;
    char *key = malloc(member->key.len + 1);
    assert_non_null(key);
    size_t len = json_unescape(member->key.at, member->key.len, key, member->key.len);
    assert_true(len <= member->key.len);
    key[len] = 0;
    assert_true(member->key_escaped || len == member->key.len);
    assert_int_equal(member->key_escaped, memchr(member->key.at, '\\', member->key.len) != NULL);
    if (member->type == JSON_STRING)
        assert_int_equal(member->value_escaped,
                         memchr(member->value.at, '\\', member->value.len) != NULL);
    json_t *value;
    assert_true(jansson_takes(member->value.at, member->value.len, &value));
    static const json_type types[][2] = {[JSON_NULL] = {JANSSON_NULL, JANSSON_NULL},
                                         [JSON_BOOL] = {JSON_TRUE, JSON_FALSE},
                                         [JSON_NUMBER] = {JSON_INTEGER, JSON_REAL},
                                         [JSON_STRING] = {JANSSON_STRING, JANSSON_STRING},
                                         [JSON_ARRAY] = {JANSSON_ARRAY, JANSSON_ARRAY},
                                         [JSON_OBJECT] = {JANSSON_OBJECT, JANSSON_OBJECT}};
    assert_true(json_typeof(value) == types[member->type][0] ||
                json_typeof(value) == types[member->type][1]);
    assert_int_equal(json_object_set_new(members->found, key, value), 0);
    free(key);
    members->count++;
    return true;
}

static void compare_members(const char *text, size_t len, json_t *object)
{
    struct members members = {object, json_object(), 0};
    assert_non_null(members.found);
    assert_int_equal(json_scan_object(text, len, compare_member, &members, NULL), JSON_OK);
    assert_true(members.count >= json_object_size(object));
    assert_true(json_equal(members.found, object));
    json_decref(members.found);
    seen.objects++;
}

/* ---- one text ---- */

/* Its growth by random pieces, as far as it gets: the answer at each is that of a fresh scan. */
static void grow(struct chance *chance, const char *text, size_t len)
{
    struct json_progress progress = {0};
    size_t have = 0;
    for (;;) {
        have += chance_below(chance, chance_one_in(chance, 3) ? 40 : 6);
        if (have > len)
            have = len;
        enum json_result whole = json_scan_object(text, have, NULL, NULL, NULL);
        struct json_error err;
        enum json_result more = json_scan_more(&progress, text, have, &err);
        if (more != whole) {
            show(text, have, 0);
            fail_msg("in pieces %d, at once %d", (int)more, (int)whole);
        }
        if (more == JSON_INVALID || have == len)
            return;
    }
}

/* A verdict is UNFINISHED for as long as there is a way on, and INVALID from the first byte with
 * none. */
static void check_prefixes(const char *text, size_t len)
{
    bool hopeless = false;
    for (size_t have = 0; have <= len; have++) {
        unsigned faults = faults_of(text, have);
        enum json_result want = faults & judges[0].objects & ~(unsigned)TOO_EARLY ? JSON_INVALID
                                : faults & TOO_EARLY                              ? JSON_UNFINISHED
                                                                                  : JSON_OK;
        struct json_error err = {0, NULL};
        enum json_result got = json_scan_value(guard_put(&room, text, have), have, NULL, &err);
        if (got != want || (hopeless && got != JSON_INVALID)) {
            show(text, have, faults);
            fail_msg("result %d, not %d", (int)got, (int)want);
        }
        assert_true(got == JSON_OK || (err.reason && err.offset <= have));
        if (got == JSON_UNFINISHED)
            assert_int_equal(err.offset, have);
        hopeless = got == JSON_INVALID;
    }
}

static void check_text(struct chance *chance, const char *original, size_t len)
{
    const char *text = guard_put(&room, original, len);
    unsigned faults = faults_of(text, len);
    enum json_type type = JSON_NULL;
    json_t *tree;
    enum json_result result = json_scan_value(text, len, &type, NULL);
    const bool taken[] = {result == JSON_OK, jansson_takes(text, len, &tree),
                          yajl_takes(text, len)};
    for (size_t i = 0; i < 3; i++) {
        bool want = (faults & judges[i].objects) == 0;
        if (taken[i] != want) {
            show(text, len, faults);
            fail_msg("%s %s this, which is not explained", judges[i].name,
                     taken[i] ? "takes" : "refuses");
        }
    }
    if (chance_one_in(chance, 16) && len < 300)
        check_prefixes(original, len);
    if (chance_one_in(chance, 4))
        grow(chance, text, len);
    if (taken[0] && taken[1] && type == JSON_OBJECT)
        compare_members(text, len, tree);
    json_decref(tree);
    seen.texts++;
    seen.taken += taken[0];
    seen.unfinished += result == JSON_UNFINISHED;
    seen.differ[0] += taken[0] != taken[1];
    seen.differ[1] += taken[0] != taken[2];
}

/* ---- the tests ---- */

/* Of each known difference there is a text, and it is judged as the table says. */
static void test_known_differences(void **state)
{
    static const struct {
        const char *text;
        unsigned faults;
    } cases[] = {
        {"{\"a\":[1,\"\\u00e9\\ud83d\\ude00\",{}]}", 0},
        {"[1 2]", GRAMMAR},
        {"[1", TOO_EARLY},
        {"\"\\ud8", TOO_EARLY},
        {"\"\xc0\x80\"", CODE_POINT},
        {"\"\xed\xa0\x80\"", CODE_POINT},
        {"\"\xf4\x90\x80\x80\"", CODE_POINT},
        {"\"\\ud800\"", LONE_SURROGATE},
        {"\"\\udc00\"", LONE_SURROGATE},
        {"\"\\ud800\\u0041\"", LONE_SURROGATE},
        {"[] \"a", STRING_BEHIND},
        {"1\"\\u00e9 ", STRING_BEHIND},
        {"[] \"\\u00e", GRAMMAR},
        {"[] \"a\"", GRAMMAR},
        {"[\v1]", ODD_SPACE},
        {"\f1", ODD_SPACE},
        {"18446744073709551616", BIG_NUMBER},
        {"9223372036854775808", BIG_NUMBER},
        {"-1e400", BIG_NUMBER},
        {"1e-400", 0},
        {"{\"a\\u0000\":1}", NUL_IN_KEY},
        {"{\"a\":\"\\u0000\"}", 0},
    };
    static const char nul_behind[] = "[1\0,true\0]";
    struct chance chance = {chance_seed("test_known_differences")};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(faults_of(cases[i].text, strlen(cases[i].text)), cases[i].faults);
        check_text(&chance, cases[i].text, strlen(cases[i].text));
    }
    assert_int_equal(faults_of(nul_behind, sizeof nul_behind - 1), NUL_BEHIND);
    check_text(&chance, nul_behind, sizeof nul_behind - 1);
    struct make deep = {0};
    static const unsigned depths[] = {JSON_DEPTH_MAX, JSON_DEPTH_MAX + 1, DEPTH_OF_JANSSON,
                                      DEPTH_OF_JANSSON + 1};
    for (size_t i = 0; i < 4; i++) {
        make_clear(&deep);
        for (unsigned n = 0; n < depths[i]; n++)
            make_text(&deep, n % 2 ? "[" : "{\"a\":");
        for (unsigned n = depths[i]; n > 0; n--)
            make_text(&deep, (n - 1) % 2 ? "]" : n == depths[i] ? "0}" : "}");
        assert_int_equal(faults_of(deep.text, deep.len),
                         (i > 0 ? DEEP : 0) | (i > 2 ? VERY_DEEP : 0));
        check_text(&chance, deep.text, deep.len);
    }
    free(deep.text);
}

/* What stands in the lists of test_json.c is not this project's opinion alone. */
static void test_cases(void **state)
{
    struct chance chance = {chance_seed("test_cases")};
    const struct {
        const struct json_case *cases;
        size_t count;
    } lists[] = {{CASES(json_accepted)},
                 {CASES(json_refused)},
                 {CASES(json_unfinished)},
                 {CASES(json_hopeless)}};
    (void)state;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        for (size_t j = 0; j < lists[i].count; j++) {
            const struct json_case *text = &lists[i].cases[j];
            check_text(&chance, text->text, text->len);
            check_prefixes(text->text, text->len);
        }
    }
}

static void test_random(void **state)
{
    struct chance chance = {chance_seed("test_random")};
    struct make text = {0}, other = {0};
    (void)state;
    make_text(&other, "[]");
    for (size_t round = chance_iterations(20000); round > 0; round--) {
        make_clear(&text);
        if (chance_one_in(&chance, 3))
            make_value(&text, &chance, 6);
        else
            make_object(&text, &chance, 4, chance_below(&chance, 8));
        if (text.len > 20000) /* a few grow without bound */
            continue;
        assert_int_equal(faults_of(text.text, text.len) & ~(unsigned)(BIG_NUMBER | NUL_IN_KEY), 0);
        check_text(&chance, text.text, text.len);
        for (size_t n = 1 + chance_below(&chance, 3); n > 0; n--) {
            make_damage(&text, &chance, &other);
            check_text(&chance, text.text, text.len);
        }
        if (chance_one_in(&chance, 4)) {
            struct make swap = other;
            other = text;
            text = swap;
        }
    }
    free(text.text);
    free(other.text);
    fprintf(
        stderr,
        "%zu texts: %zu valid, %zu unfinished; %zu judged otherwise by jansson, %zu by yajl, all "
        "explained; members of %zu objects compared\n",
        seen.texts, seen.taken, seen.unfinished, seen.differ[0], seen.differ[1], seen.objects);
    assert_true(seen.texts > 0 && seen.taken > 0 && seen.taken < seen.texts && seen.objects > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_differences),
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_random),
    };
    guard_make(&room, 1 << 20);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    guard_free(&room);
    return failed;
}
