/* test_seal.c - what a seal says, there and back, and what is none. */
#include "support.h"

#include "../../store/seal.h"

static void test_there_and_back(void **state)
{
    (void)state;
    static const struct seal seals[] = {
        {0, 0, 1024, 0},
        {1, 2, 3, 4},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX},
    };
    for (size_t i = 0; i < sizeof seals / sizeof seals[0]; i++) {
        char text[SEAL_TEXT_MAX];
        struct seal read;
        size_t len = seal_encode(&seals[i], text);
        assert_true(len < SEAL_TEXT_MAX && text[len - 1] == '\n');
        assert_int_equal(seal_decode(text, len, &read), 0);
        assert_memory_equal(&read, &seals[i], sizeof read);
        for (size_t cut = 0; cut + 2 < len; cut++)
            assert_int_equal(seal_decode(text, cut, &read), -EBADMSG);
    }
}

static void test_what_later_versions_add(void **state)
{
    (void)state;
    static const char text[] = "{\"sessions\":[1],\"end\":9,\"records\":7,\"recorded_ms\":1,"
                               "\"line_bytes\":8,\"by\":\"x\"}\n";
    struct seal seal;
    assert_int_equal(seal_decode(text, strlen(text), &seal), 0);
    assert_int_equal(seal.records, 7);
    assert_int_equal(seal.line_bytes, 8);
    assert_int_equal(seal.end, 9);
}

static void test_what_is_no_seal(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "{}",
        "[]",
        "{\"records\":1,\"line_bytes\":2,\"end\":3}",
        "{\"records\":1,\"line_bytes\":2,\"end\":3,\"recorded_ms\":-4}",
        "{\"records\":1.5,\"line_bytes\":2,\"end\":3,\"recorded_ms\":4}",
        "{\"records\":\"1\",\"line_bytes\":2,\"end\":3,\"recorded_ms\":4}",
        "{\"records\":18446744073709551616,\"line_bytes\":2,\"end\":3,\"recorded_ms\":4}",
        "{\"records\":1,\"line_bytes\":2,\"end\":3,\"recorded_ms\":4} x",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct seal seal;
        if (seal_decode(texts[i], strlen(texts[i]), &seal) != -EBADMSG)
            fail_msg("taken: %s", texts[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_what_later_versions_add),
        cmocka_unit_test(test_what_is_no_seal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
