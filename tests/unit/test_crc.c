/* test_crc.c - the checksums are those that the format says, whatever the length and the place. */
#include "support.h"

#include "../../store/crc.h"

static uint64_t bit_by_bit(uint64_t crc, uint64_t polynomial, uint64_t all, const uint8_t *bytes,
                           size_t len)
{
    crc ^= all;
    for (size_t i = 0; i < len; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ polynomial : crc >> 1;
    }
    return crc ^ all;
}

static void test_known_sums(void **state)
{
    (void)state;
    assert_int_equal(crc32_more(0, "123456789", 9), 0xcbf43926);
    assert_true(crc64_more(0, "123456789", 9) == UINT64_C(0x995dc9bbdf1939fa));
    assert_int_equal(crc32_more(77, "", 0), 77);
    assert_true(crc64_more(77, "", 0) == 77);
}

static void test_every_length_and_place(void **state)
{
    (void)state;
    uint8_t bytes[800];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 167 + (i >> 3));
    for (size_t len = 0; len <= 700; len++) {
        const uint8_t *at = bytes + len % 67;
        uint32_t seed = (uint32_t)(len * 2654435761U);
        uint64_t crc = bit_by_bit(seed, 0xedb88320, UINT32_MAX, at, len);
        assert_int_equal(crc32_more(seed, at, len), crc);
        crc = bit_by_bit(seed, UINT64_C(0xc96c5795d7870f42), UINT64_MAX, at, len);
        assert_true(crc64_more(seed, at, len) == crc);
        /* In two parts. */
        crc = crc64_more(crc64_more(seed, at, len / 3), at + len / 3, len - len / 3);
        assert_true(crc64_more(seed, at, len) == crc);
        crc = crc32_more(crc32_more(seed, at, len / 3), at + len / 3, len - len / 3);
        assert_int_equal(crc32_more(seed, at, len), crc);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_sums),
        cmocka_unit_test(test_every_length_and_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
