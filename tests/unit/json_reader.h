/*
 * json_reader.h - a simple reader of JSON, to hold a fast one against: recursive, byte by byte, one
 * function for each rule of the grammar. It takes more than RFC 8259 does and notes each liberty
 * that it took in a set of faults; without any fault the text is what the RFC says.
 */
#ifndef HL_TEST_JSON_READER_H
#define HL_TEST_JSON_READER_H

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../store/json.h"

#define DEPTH_OF_JANSSON 2048

enum fault {
    GRAMMAR = 1,         /* nothing that any judge may take */
    CODE_POINT = 2,      /* UTF-8 of an overlong form, a surrogate, or above U+10FFFF */
    LONE_SURROGATE = 4,  /* \ud800 without its other half */
    ODD_SPACE = 8,       /* vertical tab or form feed between tokens */
    DEEP = 16,           /* beyond JSON_DEPTH_MAX */
    VERY_DEEP = 32,      /* beyond DEPTH_OF_JANSSON */
    BIG_NUMBER = 64,     /* an integer beyond 64 bits, or a number beyond a double */
    NUL_IN_KEY = 128,    /* \u0000 in a key */
    STRING_BEHIND = 256, /* behind the end stands a string that does not end */
    NUL_BEHIND = 512,    /* a NUL right behind a number or a word */
    TOO_EARLY = 1024     /* the text ended before its value did: more could make it valid */
};

struct reader {
    const uint8_t *at, *end;
    unsigned faults;
};

static inline bool note(struct reader *reader, unsigned fault)
{
    reader->faults |= fault;
    return false;
}

/* Takes one byte if it is `byte`. At the end of the text notes that it came too early. */
static inline bool take(struct reader *reader, int byte)
{
    if (reader->at == reader->end)
        return note(reader, TOO_EARLY);
    if (*reader->at != byte)
        return note(reader, GRAMMAR);
    reader->at++;
    return true;
}

static inline int peek(const struct reader *reader)
{
    return reader->at < reader->end ? *reader->at : -1;
}

static inline void read_space(struct reader *reader)
{
    for (;;) {
        int byte = peek(reader);
        if (byte == '\v' || byte == '\f')
            note(reader, ODD_SPACE);
        else if (byte != ' ' && byte != '\t' && byte != '\n' && byte != '\r')
            return;
        reader->at++;
    }
}

static inline bool read_word(struct reader *reader, const char *word)
{
    while (*word)
        if (!take(reader, *word++))
            return false;
    return true;
}

static inline bool read_digits(struct reader *reader)
{
    int byte = peek(reader);
    if (byte < 0)
        return note(reader, TOO_EARLY);
    if (byte < '0' || byte > '9')
        return note(reader, GRAMMAR);
    while (byte >= '0' && byte <= '9') {
        reader->at++;
        byte = peek(reader);
    }
    return true;
}

static inline bool read_number(struct reader *reader)
{
    const uint8_t *begin = reader->at;
    bool integer = true;
    if (peek(reader) == '-')
        reader->at++;
    if (peek(reader) == '0')
        reader->at++;
    else if (!read_digits(reader))
        return false;
    if (peek(reader) == '.') {
        integer = false;
        reader->at++;
        if (!read_digits(reader))
            return false;
    }
    if (peek(reader) == 'e' || peek(reader) == 'E') {
        integer = false;
        reader->at++;
        if (peek(reader) == '+' || peek(reader) == '-')
            reader->at++;
        if (!read_digits(reader))
            return false;
    }
    char *copy = strndup((const char *)begin, (size_t)(reader->at - begin));
    if (!copy)
        abort();
    errno = 0;
    if (integer) {
        (void)strtoll(copy, NULL, 10);
        if (errno == ERANGE)
            note(reader, BIG_NUMBER);
    } else if (isinf(strtod(copy, NULL))) {
        note(reader, BIG_NUMBER);
    }
    free(copy);
    return true;
}

/* Four hex digits. Those that the end of the text cut off are counted in *missing. */
static inline bool read_unit(struct reader *reader, unsigned *unit, unsigned *missing)
{
    *unit = *missing = 0;
    for (int i = 0; i < 4; i++) {
        static const char hex[] = "0123456789abcdef0123456789ABCDEF";
        int byte = peek(reader);
        *unit *= 16;
        if (byte < 0) {
            ++*missing;
            continue;
        }
        const char *digit = byte > 0 ? strchr(hex, byte) : NULL;
        if (!digit)
            return note(reader, GRAMMAR);
        *unit += (unsigned)((digit - hex) % 16);
        reader->at++;
    }
    return true;
}

/* Whether some way to fill in the missing digits makes the unit a high (or low) surrogate, or none.
 */
enum unit_class { PLAIN, HIGH, LOW };
static inline bool can_be(unsigned unit, unsigned missing, enum unit_class want)
{
    for (unsigned rest = 0; rest < 1U << 4 * missing; rest++) {
        unsigned full = unit + rest;
        enum unit_class is = full >= 0xd800 && full < 0xdc00   ? HIGH
                             : full >= 0xdc00 && full < 0xe000 ? LOW
                                                               : PLAIN;
        if (is == want)
            return true;
    }
    return false;
}

/* After "\u". *unit is what was read; 0 if there was nothing that matters. */
static inline bool read_unicode(struct reader *reader, unsigned *unit)
{
    unsigned missing, second;
    if (!read_unit(reader, unit, &missing))
        return false;
    if (!can_be(*unit, missing, PLAIN) && !can_be(*unit, missing, HIGH))
        note(reader, LONE_SURROGATE);
    if (missing > 0)
        return note(reader, TOO_EARLY);
    if (!can_be(*unit, 0, HIGH))
        return true;
    /* What follows must be \u and a low one; if it is not, it stands for itself, and this one is
     * alone. */
    struct reader ahead = *reader;
    static const char prefix[] = "\\u";
    for (int i = 0; i < 2; i++) {
        if (peek(&ahead) < 0)
            return note(reader, TOO_EARLY);
        if (peek(&ahead) != prefix[i]) {
            note(reader, LONE_SURROGATE);
            return true;
        }
        ahead.at++;
    }
    if (!read_unit(&ahead, &second, &missing) || !can_be(second, missing, LOW)) {
        note(reader, LONE_SURROGATE);
        return true; /* and is looked at again */
    }
    reader->at = ahead.at;
    return missing == 0 || note(reader, TOO_EARLY);
}

static inline bool read_escape(struct reader *reader, bool key)
{
    unsigned unit;
    int kind = peek(reader);
    if (kind < 0)
        return note(reader, TOO_EARLY);
    if (kind == 0 || !strchr("\"\\/bfnrtu", kind))
        return note(reader, GRAMMAR);
    reader->at++;
    if (kind != 'u')
        return true;
    if (!read_unicode(reader, &unit))
        return false;
    if (unit == 0 && key)
        note(reader, NUL_IN_KEY);
    return true;
}

/* A character beyond ASCII. By its first byte it has n bytes, and each but the first is 10xxxxxx.
 */
static inline bool read_wide(struct reader *reader)
{
    static const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned first = *reader->at, n = 0;
    if (first >> 5 == 6)
        n = 2;
    else if (first >> 4 == 14)
        n = 3;
    else if (first >> 3 == 30)
        n = 4;
    else
        return note(reader, GRAMMAR);
    unsigned low = first & (0x7fU >> n), high = low;
    reader->at++;
    for (unsigned i = 1; i < n; i++) {
        int byte = peek(reader);
        if (byte >= 0 && byte >> 6 != 2)
            return note(reader, GRAMMAR);
        low = low << 6 | (byte < 0 ? 0 : (unsigned)byte & 63);
        high = high << 6 | (byte < 0 ? 63 : (unsigned)byte & 63);
        if (byte < 0)
            note(reader, TOO_EARLY);
        else
            reader->at++;
    }
    /* All that the character can be, [low, high], is wrong. */
    if (high < least[n] || low > 0x10ffff || (low >= 0xd800 && high <= 0xdfff))
        note(reader, CODE_POINT);
    return !(reader->faults & TOO_EARLY);
}

static inline bool read_string(struct reader *reader, bool key)
{
    if (!take(reader, '"'))
        return false;
    for (;;) {
        int byte = peek(reader);
        if (byte < 0)
            return note(reader, TOO_EARLY);
        if (byte < 0x20)
            return note(reader, GRAMMAR);
        if (byte >= 0x80) {
            if (!read_wide(reader))
                return false;
            continue;
        }
        reader->at++;
        if (byte == '"')
            return true;
        if (byte == '\\' && !read_escape(reader, key))
            return false;
    }
}

static inline bool read_value(struct reader *reader, unsigned depth);

static inline bool read_container(struct reader *reader, unsigned depth)
{
    bool object = peek(reader) == '{';
    int end = object ? '}' : ']';
    if (depth >= JSON_DEPTH_MAX)
        note(reader, DEEP);
    if (depth >= DEPTH_OF_JANSSON)
        note(reader, VERY_DEEP);
    reader->at++;
    read_space(reader);
    if (peek(reader) == end) {
        reader->at++;
        return true;
    }
    for (;;) {
        if (object) {
            read_space(reader);
            if (!read_string(reader, true))
                return false;
            read_space(reader);
            if (!take(reader, ':'))
                return false;
        }
        if (!read_value(reader, depth + 1))
            return false;
        if (peek(reader) != ',')
            return take(reader, end);
        reader->at++;
    }
}

static inline bool read_value(struct reader *reader, unsigned depth)
{
    bool good;
    read_space(reader);
    int first = peek(reader);
    switch (first) {
    case -1:
        good = note(reader, TOO_EARLY);
        break;
    case '{':
    case '[':
        good = read_container(reader, depth);
        break;
    case '"':
        good = read_string(reader, false);
        break;
    case 't':
        good = read_word(reader, "true");
        break;
    case 'f':
        good = read_word(reader, "false");
        break;
    case 'n':
        good = read_word(reader, "null");
        break;
    default:
        good = read_number(reader);
    }
    if (good && peek(reader) == 0 && !strchr("{[\"", first)) {
        note(reader, NUL_BEHIND);
        reader->at++;
    }
    read_space(reader);
    return good;
}

static inline unsigned faults_of(const char *text, size_t len)
{
    struct reader reader = {(const uint8_t *)text, (const uint8_t *)text + len, 0};
    if (read_value(&reader, 0) && reader.at < reader.end) {
        /* At its end yajl reads one space more, which an escape or a character that is cut does not
         * bear. */
        size_t left = (size_t)(reader.end - reader.at);
        char *rest = malloc(left + 1);
        if (!rest)
            abort();
        memcpy(rest, reader.at, left);
        rest[left] = ' ';
        struct reader behind = {(const uint8_t *)rest, (const uint8_t *)rest + left + 1, 0};
        bool whole = read_string(&behind, false);
        note(&reader, whole || behind.faults & GRAMMAR ? GRAMMAR : STRING_BEHIND);
        free(rest);
    }
    return reader.faults;
}

#endif
