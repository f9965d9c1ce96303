/* test_text.c - the writer of JSON, and its UTF-8, held against a parser that is not ours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <yajl/yajl_tree.h>

#include "../../fs/text.h"

static uint64_t next(uint64_t *chance)
{
    *chance = *chance * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *chance >> 33;
}

static void test_utf8(void **state)
{
    (void)state;
    static const char *const good[] = {"",
                                       "a",
                                       "\x7f",
                                       "\xc2\x80",
                                       "\xdf\xbf",
                                       "\xe0\xa0\x80",
                                       "\xed\x9f\xbf",
                                       "\xee\x80\x80",
                                       "\xf0\x90\x80\x80",
                                       "\xf4\x8f\xbf\xbf"};
    static const char *const bad[] = {"\x80",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xc2",
                                      "\xc2 ",
                                      "\xe0\x9f\xbf",
                                      "\xed\xa0\x80",
                                      "\xe2\x82",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xff",
                                      "a\xfe"};

    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(text_utf8_valid(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(text_utf8_valid(bad[i], strlen(bad[i])));
}

/* Any bytes become a string that a parser takes; those that are UTF-8 come back as they were. */
static void test_strings(void **state)
{
    (void)state;
    const char *given = getenv("SEED");
    uint64_t chance = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    printf("test_strings: SEED=%llu\n", (unsigned long long)chance);

    for (size_t i = 0; i < 20000; i++) {
        char bytes[24];
        size_t len = next(&chance) % sizeof bytes;
        for (size_t j = 0; j < len; j++)
            bytes[j] = (char)(i % 2 ? next(&chance) : next(&chance) % 128);
        struct text text = {0};
        text_add(&text, "[", 1);
        text_json_string(&text, bytes, len);
        assert_false(text.failed);
        /* The tree's strings end at a NUL, so what comes back is compared up to the first one. */
        text_add(&text, "]", 1);
        char error[200];
        yajl_val tree = yajl_tree_parse(text.at, error, sizeof error);
        assert_non_null(tree);
        assert_true(YAJL_IS_ARRAY(tree));
        const char *value = YAJL_GET_STRING(YAJL_GET_ARRAY(tree)->values[0]);
        assert_non_null(value);
        if (text_utf8_valid(bytes, len)) {
            size_t plain = strnlen(bytes, len);
            assert_int_equal(strlen(value), plain);
            assert_memory_equal(value, bytes, plain);
        }
        yajl_tree_free(tree);
        text_free(&text);
    }
}

static void write_all(struct json_writer *writer)
{
    json_open(writer, NULL, '{');
    json_string(writer, "text", "a \"b\"\n");
    json_number(writer, "number", UINT64_MAX);
    json_open(writer, "list", '[');
    json_bool(writer, NULL, true);
    json_null(writer, NULL);
    json_close(writer, ']');
    json_open(writer, "none", '{');
    json_close(writer, '}');
    json_close(writer, '}');
}

static void test_writer(void **state)
{
    (void)state;
    struct json_writer plain = {.pretty = false}, pretty = {.pretty = true};

    write_all(&plain);
    assert_string_equal(plain.text.at,
                        "{\"text\":\"a \\\"b\\\"\\n\",\"number\":18446744073709551615,"
                        "\"list\":[true,null],\"none\":{}}\n");
    write_all(&pretty);
    assert_string_equal(pretty.text.at, "{\n  \"text\": \"a \\\"b\\\"\\n\",\n"
                                        "  \"number\": 18446744073709551615,\n"
                                        "  \"list\": [\n    true,\n    null\n  ],\n"
                                        "  \"none\": {}\n}\n");
    text_free(&plain.text);
    text_free(&pretty.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
