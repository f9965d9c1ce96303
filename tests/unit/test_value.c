/* test_value.c - the text of a value: in pieces, and on one line. */
#include "json_cases.h"
#include "json_make.h"

#include <errno.h>
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

#include "../../store/json.h"
#include "../../store/store.h"

#define DEPTH_MAX (JSON_DEPTH_MAX - 2)

static struct guard room;

static int check(const char *text, size_t len, size_t max, struct hl_error *err)
{
    struct hl_value value = {0};
    return hl_value_check(&value, guard_put(&room, text, len), len, max, err);
}

static bool is_space(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

/* ---- at once ---- */

static void test_cases(void **state)
{
    static const struct {
        const struct json_case *cases;
        size_t count;
        bool hopeless;
    } lists[] = {
        {CASES(json_refused), true}, {CASES(json_hopeless), true}, {CASES(json_unfinished), false}};
    struct hl_error err;
    (void)state;
    for (size_t i = 0; i < sizeof json_accepted / sizeof *json_accepted; i++) {
        const struct json_case *one = &json_accepted[i];
        size_t end = one->len;
        bool newline = false;
        while (end > 0 && is_space(one->text[end - 1]))
            newline |= one->text[--end] == '\n';
        assert_int_equal(check(one->text, one->len, one->len, &err),
                         newline ? HL_VALUE_ENDED : HL_VALUE_WHOLE);
    }
    for (size_t list = 0; list < 3; list++) {
        for (size_t i = 0; i < lists[list].count; i++) {
            const struct json_case *one = &lists[list].cases[i];
            err = (struct hl_error){0};
            int got = check(one->text, one->len, SIZE_MAX, &err);
            if (got != (lists[list].hopeless ? -EINVAL : HL_VALUE_UNFINISHED))
                fail_msg("%s: %d", one->text, got);
            assert_int_equal(err.code, EINVAL);
            assert_string_not_equal(err.text, "");
        }
    }
}

static void test_compact(void **state)
{
    static const struct {
        const char *text, *compact;
    } cases[] = {
        {"1", "1"},
        {"  -0.50E+07 \r\n", "-0.50E+07"},
        {"\"a b\\\" c\\\\\" ", "\"a b\\\" c\\\\\""},
        {"\"\\\\\" ", "\"\\\\\""},
        {"{ \"a b\" : [ 1 ,\n\t2 , \" \" ] , \"\\\"\" : { } }\n",
         "{\"a b\":[1,2,\" \"],\"\\\"\":{}}"},
        {"[ ]", "[]"},
        {"123456789012345678901234567890.10 ", "123456789012345678901234567890.10"},
    };
    char out[128];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t len = strlen(cases[i].text);
        size_t got = hl_value_compact(guard_put(&room, cases[i].text, len), len, out);
        out[got] = 0;
        assert_string_equal(out, cases[i].compact);
        memcpy(out, cases[i].text, len);
        assert_int_equal(hl_value_compact(out, len, out), got);
        out[got] = 0;
        assert_string_equal(out, cases[i].compact);
    }
}

static void test_newline(void **state)
{
    struct hl_value value = {0};
    struct hl_error err;
    (void)state;
    assert_int_equal(hl_value_check(&value, "", 0, 100, &err), HL_VALUE_UNFINISHED);
    assert_int_equal(hl_value_check(&value, NULL, 0, 100, &err), HL_VALUE_UNFINISHED);
    assert_int_equal(hl_value_check(&value, "\n", 1, 100, &err), HL_VALUE_UNFINISHED);
    assert_int_equal(hl_value_check(&value, "\n12", 3, 100, &err), HL_VALUE_WHOLE);
    assert_int_equal(hl_value_check(&value, "\n123 ", 5, 100, &err), HL_VALUE_WHOLE);
    assert_int_equal(value.length, 3);
    assert_int_equal(hl_value_check(&value, "\n123 4", 6, 100, &err), -EINVAL);
    assert_int_equal(hl_value_check(&value, "\n123 \n", 6, 100, &err), HL_VALUE_ENDED);
    assert_int_equal(hl_value_check(&value, "\n123 \n ", 7, 100, &err), HL_VALUE_ENDED);
    assert_int_equal(hl_value_check(&value, "\n123 \n ", 7, 100, &err), HL_VALUE_ENDED);
    assert_int_equal(value.length, 3);
}

static void test_too_long(void **state)
{
    static const char text[] = "[ 1, 22, \"3 3\" ]";
    const size_t compact = strlen("[1,22,\"3 3\"]");
    struct hl_error err;
    (void)state;
    assert_int_equal(check(text, strlen(text), compact, &err), HL_VALUE_WHOLE);
    assert_int_equal(check(text, strlen(text), compact - 1, &err), -EMSGSIZE);
    assert_int_equal(err.code, EMSGSIZE);
    /* Told as soon as it is so, and what is refused can be taken away again. */
    struct hl_value value = {0};
    assert_int_equal(hl_value_check(&value, text, 5, 5, &err), HL_VALUE_UNFINISHED);
    assert_int_equal(hl_value_check(&value, text, 9, 5, &err), -EMSGSIZE);
    assert_int_equal(hl_value_check(&value, "[ 1, 2]", 7, 5, &err), HL_VALUE_WHOLE);
    assert_int_equal(value.length, 5);
}

static void test_depth(void **state)
{
    struct make text = {0};
    struct hl_error err;
    (void)state;
    for (size_t depth = DEPTH_MAX; depth <= JSON_DEPTH_MAX; depth++) {
        make_clear(&text);
        for (size_t i = 0; i < depth; i++)
            make_text(&text, i % 2 ? "[" : "{\"a\":");
        make_text(&text, "0");
        for (size_t i = depth; i-- > 0;)
            make_text(&text, i % 2 ? "]" : "}");
        assert_int_equal(check(text.text, text.len, SIZE_MAX, &err),
                         depth == DEPTH_MAX ? HL_VALUE_WHOLE : -EINVAL);
    }
    free(text.text);
}

/* What is checked as a value is taken as part of an operation, also when it is as deep as can be.
 */
static void test_fits_an_operation(void **state)
{
    struct make text = {0};
    (void)state;
    make_text(&text, "{\"op\":\"checkpoint\",\"state\":{\"k\":");
    for (size_t i = 0; i < DEPTH_MAX; i++)
        make_text(&text, "[");
    for (size_t i = 0; i < DEPTH_MAX; i++)
        make_text(&text, "]");
    make_text(&text, "}}");
    assert_true(hl_line_is_object(text.text, text.len));
    free(text.text);
}

/* ---- in pieces ---- */

/* What json.c says of the text so far. */
static int expected(const char *text, size_t len)
{
    size_t end = len;
    bool newline = false;

    switch (json_scan_value(text, len, NULL, NULL)) {
    case JSON_OK:
        while (end > 0 && is_space(text[end - 1]))
            newline |= text[--end] == '\n';
        return newline ? HL_VALUE_ENDED : HL_VALUE_WHOLE;
    case JSON_UNFINISHED:
        return HL_VALUE_UNFINISHED;
    default:
        return -EINVAL;
    }
}

static void check_pieces(const struct make *text, struct chance *chance, size_t longest)
{
    struct hl_value value = {0}, before;
    struct hl_error err;

    for (size_t have = 0;;) {
        const char *copy = guard_put(&room, text->text, have);
        before = value;
        int got = hl_value_check(&value, copy, have, SIZE_MAX, &err);
        int want = expected(copy, have);
        if (got != want)
            fail_msg("%d, not %d, for the first %zu bytes of %s", got, want, have, text->text);
        if (got < 0) {
            assert_memory_equal(&value, &before, sizeof value);
            return;
        }
        if (got > HL_VALUE_UNFINISHED)
            assert_int_equal(value.length, hl_value_compact(copy, have, NULL));
        if (have == text->len)
            return;
        have += 1 + chance_below(chance, longest);
        have = have < text->len ? have : text->len;
    }
}

static void test_pieces(void **state)
{
    struct chance chance = {chance_seed("test_pieces")};
    struct make text = {0}, other = {0};
    (void)state;
    make_text(&other, "{\"a\":[1,2,{\"b\":\"c\"}]}");
    for (size_t i = chance_iterations(3000); i > 0; i--) {
        make_clear(&text);
        make_value(&text, &chance, 4);
        if (chance_one_in(&chance, 3))
            make_damage(&text, &chance, &other);
        check_pieces(&text, &chance, 1 + chance_below(&chance, 12));
    }
    free(text.text);
    free(other.text);
}

/* Long keys and numbers are not scanned at each piece, but always when it matters. */
static void test_long_tokens(void **state)
{
    const size_t len = 4 << 20;
    char *text = malloc(len + 8);
    struct hl_error err;
    (void)state;
    assert_non_null(text);
    for (int number = 0; number < 2; number++) {
        struct hl_value value = {0};
        memset(text, number ? '7' : 'k', len);
        if (!number)
            memcpy(text, "{\"", 2);
        for (size_t have = 0; have < len; have += 32) {
            if (hl_value_check(&value, text, have, SIZE_MAX, &err) < 0)
                fail_msg("at %zu", have);
        }
        if (number) {
            hl_value_check(&value, text, len, SIZE_MAX, &err);
            assert_int_equal(hl_value_check(&value, text, len, SIZE_MAX, &err), HL_VALUE_WHOLE);
            text[len] = '\n';
            assert_int_equal(hl_value_check(&value, text, len + 1, SIZE_MAX, &err), HL_VALUE_ENDED);
            assert_int_equal(value.length, len);
        } else {
            memcpy(text + len, "\":1}", 4);
            hl_value_check(&value, text, len + 4, SIZE_MAX, &err);
            assert_int_equal(hl_value_check(&value, text, len + 4, SIZE_MAX, &err), HL_VALUE_WHOLE);
            text[len + 4] = '\n';
            assert_int_equal(hl_value_check(&value, text, len + 5, SIZE_MAX, &err), HL_VALUE_ENDED);
        }
    }
    free(text);
}

/* ---- against another judge ---- */

static bool has_space_between(const char *text, size_t len)
{
    bool quoted = false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '"')
            quoted = !quoted;
        else if (quoted && text[i] == '\\')
            i++;
        else if (!quoted && is_space(text[i]))
            return true;
    }
    return false;
}

/* Without any white space, also in strings. */
static size_t bare(const char *text, size_t len, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        if (!is_space(text[i]))
            out[n++] = text[i];
    }
    return n;
}

static void test_same_value(void **state)
{
    struct chance chance = {chance_seed("test_same_value")};
    struct make text = {0};
    size_t compared = 0;
    (void)state;
    for (size_t i = chance_iterations(3000); i > 0; i--) {
        make_clear(&text);
        make_value(&text, &chance, 4);
        char *compact = malloc(3 * text.len + 1), *one = compact + text.len, *two = one + text.len;
        assert_non_null(compact);
        size_t len = hl_value_compact(text.text, text.len, compact);
        assert_false(has_space_between(compact, len));
        size_t bare_len = bare(text.text, text.len, one);
        assert_int_equal(bare_len, bare(compact, len, two));
        assert_memory_equal(one, two, bare_len);
        const size_t flags = JSON_DECODE_ANY | JSON_ALLOW_NUL;
        json_t *before = json_loadb(text.text, text.len, flags, NULL);
        json_t *after = json_loadb(compact, len, flags, NULL);
        assert_int_equal(before == NULL, after == NULL); /* it has no room for large numbers */
        if (before) {
            assert_true(json_equal(before, after));
            compared++;
        }
        json_decref(before);
        json_decref(after);
        free(compact);
    }
    assert_true(compared > 0);
    free(text.text);
}

static int make_room(void **state)
{
    (void)state;
    guard_make(&room, 1 << 20);
    return 0;
}

static int free_room(void **state)
{
    (void)state;
    guard_free(&room);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),      cmocka_unit_test(test_compact),
        cmocka_unit_test(test_newline),    cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_depth),      cmocka_unit_test(test_fits_an_operation),
        cmocka_unit_test(test_pieces),     cmocka_unit_test(test_long_tokens),
        cmocka_unit_test(test_same_value),
    };
    return cmocka_run_group_tests(tests, make_room, free_room);
}
