/*
 * json_make.h - random JSON documents, and random damage to them. For the test_json*.c and
 * test_line.c programs; each includes it once.
 */
#ifndef HL_TEST_JSON_MAKE_H
#define HL_TEST_JSON_MAKE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- chance ---- */

struct chance {
    uint64_t state;
};

static inline uint64_t chance_next(struct chance *chance)
{
    uint64_t z = chance->state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

static inline size_t chance_below(struct chance *chance, size_t limit)
{
    return (size_t)(chance_next(chance) % limit);
}

static inline bool chance_one_in(struct chance *chance, size_t n)
{
    return chance_below(chance, n) == 0;
}

/* From the environment variable SEED, or the clock; printed, so that a failure can be repeated. */
static inline uint64_t chance_seed(const char *test)
{
    const char *given = getenv("SEED");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seed = given ? strtoull(given, NULL, 0)
                          : (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
    fprintf(stderr, "%s: SEED=%llu\n", test, (unsigned long long)seed);
    return seed;
}

static inline size_t chance_iterations(size_t usual)
{
    const char *given = getenv("ITERATIONS");
    return given ? (size_t)strtoull(given, NULL, 0) : usual;
}

/* ---- text ---- */

struct make {
    char *text;
    size_t len, size;
};

static inline void make_bytes(struct make *make, const char *bytes, size_t len)
{
    if (make->len + len + 1 > make->size) {
        make->size = (make->len + len + 1) * 2;
        make->text = realloc(make->text, make->size);
    }
    if (!make->text)
        abort();
    if (len > 0)
        memcpy(make->text + make->len, bytes, len);
    make->len += len;
    make->text[make->len] = 0;
}

static inline void make_text(struct make *make, const char *text)
{
    make_bytes(make, text, strlen(text));
}

static inline void make_clear(struct make *make)
{
    make->len = 0;
    make_bytes(make, "", 0);
}

/*
 * A room whose end is the end of what can be read: a scanner that looks one byte too far dies.
 * guard_put() copies a text to its end.
 */
struct guard {
    char *begin;
    size_t size;
};

static inline void guard_make(struct guard *guard, size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    guard->size = (size + page - 1) / page * page;
    guard->begin =
        mmap(NULL, guard->size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(guard->begin != MAP_FAILED);
    assert_int_equal(mprotect(guard->begin + guard->size, page, PROT_NONE), 0);
}

static inline const char *guard_put(struct guard *guard, const char *text, size_t len)
{
    assert_true(len <= guard->size);
    char *at = guard->begin + (guard->size - len);
    if (len > 0)
        memcpy(at, text, len);
    return at;
}

static inline void guard_free(struct guard *guard)
{
    munmap(guard->begin, guard->size + (size_t)sysconf(_SC_PAGESIZE));
}

/* ---- documents ---- */

static inline void make_space(struct make *make, struct chance *chance)
{
    static const char spaces[] = " \t\r\n";
    if (!chance_one_in(chance, 6))
        return;
    for (size_t n = chance_below(chance, 4); n > 0; n--)
        make_bytes(make, spaces + chance_below(chance, 4), 1);
}

/* A string with its quotes. NUL is made now and then if nul is set. */
static inline void make_string(struct make *make, struct chance *chance, bool nul)
{
    static const char *const pieces[] = {"\\n",
                                         "\\\"",
                                         "\\\\",
                                         "\\/",
                                         "\\b",
                                         "\\f",
                                         "\\r",
                                         "\\t",
                                         "\\u0041",
                                         "\\u00e9",
                                         "\\u20ac",
                                         "\\uD83D\\uDE00",
                                         "\\ud800\\udc00",
                                         "\\uDBFF\\uDFFF",
                                         "\xc3\xa9",
                                         "\xe2\x82\xac",
                                         "\xf0\x9f\x98\x80",
                                         "\xed\x9f\xbf",
                                         "\xee\x80\x80",
                                         "\xf4\x8f\xbf\xbf",
                                         "\xf0\x90\x80\x80",
                                         "\xef\xbb\xbf",
                                         "\xef\xbf\xbf",
                                         "\x7f",
                                         "{\\\"",
                                         "//",
                                         "'",
                                         ":",
                                         ",",
                                         "]",
                                         "}"};
    char plain[48];
    make_text(make, "\"");
    for (size_t n = chance_below(chance, 5); n > 0; n--) {
        if (nul && chance_one_in(chance, 60)) {
            make_text(make, "\\u0000");
        } else if (chance_one_in(chance, 2)) {
            make_text(make, pieces[chance_below(chance, sizeof pieces / sizeof *pieces)]);
        } else {
            size_t len = chance_below(chance, chance_one_in(chance, 4) ? sizeof plain : 10);
            for (size_t i = 0; i < len; i++) {
                plain[i] = (char)(' ' + chance_below(chance, 95));
                if (plain[i] == '"' || plain[i] == '\\')
                    plain[i] = '_';
            }
            make_bytes(make, plain, len);
        }
    }
    make_text(make, "\"");
}

static inline void make_digits(struct make *make, struct chance *chance, size_t count)
{
    for (; count > 0; count--) {
        char digit = (char)('0' + chance_below(chance, 10));
        make_bytes(make, &digit, 1);
    }
}

static inline void make_number(struct make *make, struct chance *chance)
{
    if (chance_one_in(chance, 3))
        make_text(make, "-");
    if (chance_one_in(chance, 4)) {
        make_text(make, "0");
    } else {
        make_text(make, "7");
        make_digits(make, chance, chance_below(chance, chance_one_in(chance, 8) ? 30 : 9));
    }
    if (chance_one_in(chance, 4)) {
        make_text(make, ".");
        make_digits(make, chance, 1 + chance_below(chance, 12));
    }
    if (chance_one_in(chance, 5)) {
        static const char *const exponents[] = {"e", "E", "e+", "E-", "e-"};
        make_text(make, exponents[chance_below(chance, 5)]);
        make_digits(make, chance, 1 + chance_below(chance, chance_one_in(chance, 6) ? 4 : 2));
    }
}

static inline void make_value(struct make *make, struct chance *chance, unsigned depth);

static inline void make_object(struct make *make, struct chance *chance, unsigned depth,
                               size_t members)
{
    make_text(make, "{");
    make_space(make, chance);
    for (size_t i = 0; i < members; i++) {
        if (i > 0)
            make_text(make, ",");
        make_space(make, chance);
        if (chance_one_in(chance, 4)) /* short ones meet again: duplicates */
            make_text(make, chance_one_in(chance, 2) ? "\"a\"" : "\"\\u0061\"");
        else
            make_string(make, chance, chance_one_in(chance, 20));
        make_space(make, chance);
        make_text(make, ":");
        make_value(make, chance, depth);
    }
    make_text(make, "}");
}

/* A value with space around it, at most depth containers deep. */
static inline void make_value(struct make *make, struct chance *chance, unsigned depth)
{
    make_space(make, chance);
    switch (chance_below(chance, depth > 0 ? 9 : 6)) {
    case 0:
        make_text(make, "null");
        break;
    case 1:
        make_text(make, chance_one_in(chance, 2) ? "true" : "false");
        break;
    case 2:
    case 3:
        make_number(make, chance);
        break;
    case 4:
    case 5:
        make_string(make, chance, true);
        break;
    case 6:
        make_text(make, "[");
        make_space(make, chance);
        for (size_t n = chance_below(chance, 5); n > 0; n--) {
            make_value(make, chance, depth - 1);
            if (n > 1)
                make_text(make, ",");
        }
        make_text(make, "]");
        break;
    default:
        make_object(make, chance, depth - 1, chance_below(chance, 5));
    }
    make_space(make, chance);
}

/* ---- damage ---- */

static inline void make_splice(struct make *make, size_t at, size_t drop, const char *bytes,
                               size_t len)
{
    struct make made = {0};
    make_bytes(&made, make->text, at);
    make_bytes(&made, bytes, len);
    make_bytes(&made, make->text + at + drop, make->len - at - drop);
    free(make->text);
    *make = made;
}

/* What does harm, or looks as if it could. */
static const struct {
    const char *bytes;
    size_t len;
} make_inserts[] = {
#define INSERT(text)           \
    {                          \
        text, sizeof(text) - 1 \
    }
    INSERT("\""),
    INSERT("\\"),
    INSERT("{"),
    INSERT("}"),
    INSERT("["),
    INSERT("]"),
    INSERT(","),
    INSERT(":"),
    INSERT("0"),
    INSERT("-"),
    INSERT("+"),
    INSERT("."),
    INSERT("e"),
    INSERT("E5"),
    INSERT("1e400"),
    INSERT("-1e-400"),
    INSERT("92233720368547758080"),
    INSERT("null"),
    INSERT("true"),
    INSERT("NaN"),
    INSERT("\0"),
    INSERT("\x0b"),
    INSERT("\f"),
    INSERT("\x1f"),
    INSERT("\n"),
    INSERT(" "),
    INSERT("\\u0000"),
    INSERT("\\ud800"),
    INSERT("\\udc00"),
    INSERT("\\ud800\\u0041"),
    INSERT("\\uD8"),
    INSERT("\\u12"),
    INSERT("\\x"),
    INSERT("\\'"),
    INSERT("/**/"),
    INSERT("//"),
    INSERT("\xc0\x80"),
    INSERT("\xc1\xbf"),
    INSERT("\xe0\x9f\xbf"),
    INSERT("\xed\xa0\x80"),
    INSERT("\xf0\x8f\xbf\xbf"),
    INSERT("\xf4\x90\x80\x80"),
    INSERT("\xf5\x80\x80\x80"),
    INSERT("\xf8\x88\x80\x80\x80"),
    INSERT("\x80"),
    INSERT("\xe2\x82"),
    INSERT("\xff"),
    INSERT("\xef\xbb\xbf"),
    INSERT("\xc2"),
    INSERT("\xc2\xa0")};
#undef INSERT

/* Changes the text a little. other is a second one to take pieces from. */
static inline void make_damage(struct make *make, struct chance *chance, const struct make *other)
{
    size_t at = chance_below(chance, make->len + 1);
    size_t left = make->len - at;
    switch (chance_below(chance, 7)) {
    case 0: /* one bit */
        if (left > 0)
            make->text[at] = (char)(make->text[at] ^ 1 << chance_below(chance, 8));
        break;
    case 1: { /* one byte */
        char byte = (char)chance_below(chance, 256);
        make_splice(make, at, left > 0 ? 1 : 0, &byte, 1);
        break;
    }
    case 2: /* the end is cut off */
        make->len = at;
        make->text[at] = 0;
        break;
    case 3: /* a piece is lost */
        make_splice(make, at, chance_below(chance, left + 1) % 9, "", 0);
        break;
    case 4: { /* a piece comes twice */
        size_t len = chance_below(chance, left + 1) % 20;
        struct make piece = {0};
        make_bytes(&piece, make->text + at, len);
        make_splice(make, at, 0, piece.text, len);
        free(piece.text);
        break;
    }
    case 5: { /* a piece of another */
        size_t from = chance_below(chance, other->len + 1);
        size_t len = chance_below(chance, other->len - from + 1) % 40;
        make_splice(make, at, chance_below(chance, left + 1) % 9, other->text + from, len);
        break;
    }
    default: {
        size_t i = chance_below(chance, sizeof make_inserts / sizeof *make_inserts);
        make_splice(make, at, chance_below(chance, left + 1) % 3, make_inserts[i].bytes,
                    make_inserts[i].len);
    }
    }
}

#endif
