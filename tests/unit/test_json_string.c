/* test_json_string.c - UTF-8, escapes undone and made. */
#include "json_make.h"

#include "../../store/json.h"

static struct guard room;

/* ---- UTF-8 ---- */

/* Decodes by the definition: the code point must be the shortest form's, and a scalar value. */
static bool simple_utf8(const uint8_t *bytes, size_t len)
{
    static const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
    for (size_t i = 0; i < len;) {
        unsigned c = bytes[i], n = 1;
        if (c >= 0xf0 && c < 0xf8) {
            n = 4;
            c &= 7;
        } else if (c >= 0xe0 && c < 0xf0) {
            n = 3;
            c &= 15;
        } else if (c >= 0xc0 && c < 0xe0) {
            n = 2;
            c &= 31;
        } else if (c >= 0x80) {
            return false;
        }
        if (i + n > len)
            return false;
        for (unsigned k = 1; k < n; k++) {
            if ((bytes[i + k] & 0xc0) != 0x80)
                return false;
            c = c << 6 | (bytes[i + k] & 0x3f);
        }
        if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
            return false;
        i += n;
    }
    return true;
}

static void check_utf8(const uint8_t *bytes, size_t len)
{
    bool want = simple_utf8(bytes, len);
    if (json_utf8_valid((const char *)bytes, len, NULL) != want)
        fail_msg("%zu bytes %02x %02x %02x %02x: not %d", len, bytes[0], bytes[1], bytes[2],
                 bytes[3], want);
}

static void test_utf8_sequences(void **state)
{
    static const uint8_t edges[] = {0, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff};
    uint8_t bytes[4] = {0};
    (void)state;
    for (unsigned a = 0; a < 256; a++) {
        bytes[0] = (uint8_t)a;
        check_utf8(bytes, 1);
        for (unsigned b = 0; b < 256; b++) {
            bytes[1] = (uint8_t)b;
            check_utf8(bytes, 2);
            for (size_t c = 0; c < sizeof edges; c++) {
                bytes[2] = edges[c];
                check_utf8(bytes, 3);
                for (size_t d = 0; d < sizeof edges; d++) {
                    bytes[3] = edges[d];
                    check_utf8(bytes, 4);
                }
            }
        }
    }
}

static void test_utf8_places(void **state)
{
    (void)state;
    char text[64];
    for (size_t at = 0; at < sizeof text; at++) {
        memset(text, 'a', sizeof text);
        text[at] = (char)0xff;
        size_t bad = 0;
        assert_false(json_utf8_valid(guard_put(&room, text, sizeof text), sizeof text, &bad));
        assert_int_equal(bad, at);
        assert_int_equal(json_scan_utf8(text, sizeof text, &bad), JSON_INVALID);
        assert_true(json_utf8_valid(text, at, NULL));
        /* A character that is cut by the end is no fault but an unfinished text. */
        text[at] = (char)0xc3;
        assert_int_equal(json_scan_utf8(guard_put(&room, text, at + 1), at + 1, &bad),
                         JSON_UNFINISHED);
        assert_int_equal(bad, at);
        assert_false(json_utf8_valid(text, at + 1, NULL));
    }
    assert_true(json_utf8_valid("", 0, NULL));
    assert_true(json_utf8_valid(NULL, 0, NULL));
    assert_true(json_utf8_valid("a\0b\x01", 4, NULL));
}

/* ---- undoing ---- */

static void check_unescape(const char *inner, const char *want, size_t want_len)
{
    char out[64], quoted[64];
    size_t len = strlen(inner);
    for (size_t size = 0; size <= want_len + 1; size++) {
        memset(out, '#', sizeof out);
        size_t got = json_unescape(inner, len, out, size);
        assert_int_equal(got, size < want_len ? SIZE_MAX : want_len);
        assert_int_equal(out[size], '#'); /* nothing is written behind the room given */
        if (got != SIZE_MAX)
            assert_memory_equal(out, want, want_len);
    }
    int n = snprintf(quoted, sizeof quoted, "\"%s\"", inner);
    assert_int_equal(json_scan_value(quoted, (size_t)n, NULL, NULL), JSON_OK);
    assert_int_equal(json_unescape(quoted, (size_t)n, out, sizeof out), want_len);
    assert_memory_equal(out, want, want_len);
    assert_true(json_string_equals(inner, len, want, want_len));
    assert_false(json_string_equals(inner, len, want, want_len + 1));
    if (want_len > 0) {
        char other[64];
        assert_false(json_string_equals(inner, len, want, want_len - 1));
        for (size_t i = 0; i < want_len; i++) {
            memcpy(other, want, want_len);
            other[i] ^= 1;
            assert_false(json_string_equals(inner, len, other, want_len));
        }
    }
}

static void test_unescape(void **state)
{
    (void)state;
    check_unescape("", "", 0);
    check_unescape("plain", "plain", 5);
    check_unescape("\\\"\\\\\\/\\b\\f\\n\\r\\t", "\"\\/\b\f\n\r\t", 8);
    check_unescape("s\\u0065q", "seq", 3);
    check_unescape("\\u0000", "\0", 1);
    check_unescape("\\u007f\\u0080\\u07ff\\u0800\\uffff",
                   "\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf", 11);
    check_unescape("\\ud800\\udc00\\uDBFF\\uDFFF", "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", 8);
    check_unescape("a\\ud83d\\uDE00b",
                   "a\xf0\x9f\x98\x80"
                   "b",
                   6);
    check_unescape("\xe2\x82\xac\\n\xe2\x82\xac", "\xe2\x82\xac\n\xe2\x82\xac", 7);
}

/* Every code unit, alone and as the first half of a pair. */
static void test_every_escape(void **state)
{
    (void)state;
    for (unsigned unit = 0; unit < 0x10000; unit++) {
        char text[16], out[8];
        int n = snprintf(text, sizeof text, "\"\\u%04x\"", unit);
        bool surrogate = unit >= 0xd800 && unit < 0xe000;
        assert_int_equal(json_scan_value(text, (size_t)n, NULL, NULL),
                         surrogate ? JSON_INVALID : JSON_OK);
        if (!surrogate) {
            size_t len = json_unescape(text, (size_t)n, out, sizeof out);
            assert_int_equal(len, unit < 0x80 ? 1 : unit < 0x800 ? 2 : 3);
            assert_true(simple_utf8((const uint8_t *)out, len));
        }
        n = snprintf(text, sizeof text, "\"\\uDAbc\\u%04X\"", unit);
        bool low = unit >= 0xdc00 && unit < 0xe000;
        assert_int_equal(json_scan_value(text, (size_t)n, NULL, NULL),
                         low ? JSON_OK : JSON_INVALID);
        if (low) {
            assert_int_equal(json_unescape(text, (size_t)n, out, sizeof out), 4);
            assert_true(simple_utf8((const uint8_t *)out, 4));
        }
    }
}

/* ---- making ---- */

static void check_escape(const char *text, size_t len, const char *want)
{
    char out[512];
    assert_true(JSON_ESCAPE_MAX(len) <= sizeof out);
    size_t got = json_escape(text, len, out);
    assert_int_equal(got, strlen(want));
    assert_memory_equal(out, want, got);
    assert_int_equal(json_escaped_len(text, len), got);
}

static void test_escape(void **state)
{
    (void)state;
    check_escape("", 0, "\"\"");
    check_escape(NULL, 0, "\"\"");
    check_escape("plain", 5, "\"plain\"");
    check_escape("\"\\/\b\f\n\r\t", 8, "\"\\\"\\\\/\\b\\f\\n\\r\\t\"");
    check_escape("\0\x01\x1f\x7f", 4, "\"\\u0000\\u0001\\u001f\x7f\"");
    check_escape("\xc3\xa9\n\xf0\x9f\x98\x80", 7, "\"\xc3\xa9\\n\xf0\x9f\x98\x80\"");
    static const char longer[] = "a longer text, to be copied in strides\x1b[0m and on\n";
    check_escape(longer, sizeof longer - 1,
                 "\"a longer text, to be copied in strides\\u001b[0m and on\\n\"");
    check_escape("\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01", 18,
                 "\"\\u0001\\u0001\\u0001\\u0001\\u0001\\u0001\\u0001\\u0001\\u0001\\u0001\\u0001"
                 "\\u0001\\u0001\\u0001\\u0001\\u0001\\u0001\\u0001\"");
}

/* Any text, escaped, is JSON and comes back. */
static void test_round_trip(void **state)
{
    struct chance chance = {chance_seed("test_round_trip")};
    char text[80], back[80], escaped[JSON_ESCAPE_MAX(80)];
    (void)state;
    for (size_t round = chance_iterations(20000); round > 0; round--) {
        size_t len = 0, want = chance_below(&chance, 70);
        while (len < want) {
            static const char *const wide[] = {"\xc2\x80", "\xe2\x82\xac", "\xf4\x8f\xbf\xbf"};
            if (chance_one_in(&chance, 8)) {
                const char *bytes = wide[chance_below(&chance, 3)];
                memcpy(text + len, bytes, strlen(bytes));
                len += strlen(bytes);
            } else {
                text[len++] = (char)chance_below(&chance, chance_one_in(&chance, 4) ? 40 : 128);
            }
        }
        const char *copy = guard_put(&room, text, len);
        assert_true(json_utf8_valid(copy, len, NULL));
        size_t n = json_escape(copy, len, escaped);
        assert_true(n <= JSON_ESCAPE_MAX(len));
        assert_int_equal(json_escaped_len(copy, len), n);
        assert_int_equal(json_scan_value(guard_put(&room, escaped, n), n, NULL, NULL), JSON_OK);
        assert_int_equal(json_unescape(escaped, n, back, sizeof back), len);
        assert_memory_equal(back, text, len);
        assert_true(json_string_equals(escaped + 1, n - 2, text, len));
    }
}

/* A string that is missing is a span of nothing: no byte of it is looked at. */
static void test_missing(void **state)
{
    (void)state;
    char out[4];
    assert_int_equal(json_unescape(NULL, 0, out, sizeof out), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8_sequences), cmocka_unit_test(test_utf8_places),
        cmocka_unit_test(test_unescape),       cmocka_unit_test(test_every_escape),
        cmocka_unit_test(test_escape),         cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_missing),
    };
    guard_make(&room, 4096);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    guard_free(&room);
    return failed;
}
