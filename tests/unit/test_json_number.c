/* test_json_number.c - integers, exactly or not at all. */
#include <inttypes.h>

#include "json_make.h"

#include "../../store/json.h"

static bool to_u64(const char *text, uint64_t max, uint64_t *out)
{
    return json_to_u64((struct json_span){text, strlen(text)}, max, out);
}

static bool to_i64(const char *text, int64_t *out)
{
    return json_to_i64((struct json_span){text, strlen(text)}, out);
}

static void test_u64(void **state)
{
    static const struct {
        const char *text;
        uint64_t value;
    } good[] = {{"0", 0},
                {"7", 7},
                {"4294967295", UINT32_MAX},
                {"9007199254740991", (UINT64_C(1) << 53) - 1},
                {"9999999999999999999", UINT64_C(9999999999999999999)},
                {"18446744073709551615", UINT64_MAX}};
    static const char *const bad[] = {"",
                                      "-",
                                      "-0",
                                      "-1",
                                      "00",
                                      "01",
                                      "1.0",
                                      "1e3",
                                      "0x1",
                                      " 1",
                                      "1 ",
                                      "1,",
                                      "+1",
                                      "true",
                                      "null",
                                      "\"1\"",
                                      "18446744073709551616",
                                      "18446744073709551620",
                                      "20000000000000000000",
                                      "99999999999999999999",
                                      "100000000000000000000",
                                      "1.",
                                      "184467440737095516150"};
    uint64_t value = 77;
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(to_u64(good[i].text, UINT64_MAX, &value));
        assert_true(value == good[i].value);
        assert_true(to_u64(good[i].text, good[i].value, &value));
        if (good[i].value > 0)
            assert_false(to_u64(good[i].text, good[i].value - 1, &value));
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        value = 77;
        if (to_u64(bad[i], UINT64_MAX, &value))
            fail_msg("%s", bad[i]);
        assert_true(value == 77); /* left alone */
    }
}

static void test_i64(void **state)
{
    static const char *const bad[] = {"",
                                      "-",
                                      "--1",
                                      "-01",
                                      "1.0",
                                      "1e1",
                                      "- 1",
                                      "9223372036854775808",
                                      "-9223372036854775809",
                                      "-99999999999999999999"};
    int64_t value;
    (void)state;
    assert_true(to_i64("0", &value) && value == 0);
    assert_true(to_i64("-0", &value) && value == 0);
    assert_true(to_i64("-1", &value) && value == -1);
    assert_true(to_i64("9223372036854775807", &value) && value == INT64_MAX);
    assert_true(to_i64("-9223372036854775807", &value) && value == -INT64_MAX);
    assert_true(to_i64("-9223372036854775808", &value) && value == INT64_MIN);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (to_i64(bad[i], &value))
            fail_msg("%s", bad[i]);
}

static void test_random_integers(void **state)
{
    struct chance chance = {chance_seed("test_random_integers")};
    char text[32];
    (void)state;
    for (size_t round = chance_iterations(20000); round > 0; round--) {
        uint64_t want = chance_next(&chance) >> chance_below(&chance, 64), got;
        int64_t signed_want = (int64_t)want, signed_got;
        snprintf(text, sizeof text, "%" PRIu64, want);
        assert_true(to_u64(text, UINT64_MAX, &got) && got == want);
        snprintf(text, sizeof text, "%" PRId64, signed_want);
        assert_true(to_i64(text, &signed_got) && signed_got == signed_want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_u64),
        cmocka_unit_test(test_i64),
        cmocka_unit_test(test_random_integers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
