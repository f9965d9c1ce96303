/*
 * json_bytes.h - stepping over the bytes of strings; shared by the json_*.c files alone.
 *
 * Nothing here reads at or past `end`. JSON_PORTABLE, defined by a build, leaves the vector code
 * out.
 */
#ifndef HL_JSON_BYTES_H
#define HL_JSON_BYTES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__) && !defined(JSON_PORTABLE)
#define JSON_SSE2 1
#include <emmintrin.h>
#endif

/* A byte that stands for itself in a JSON string and is ASCII. */
static inline bool json_byte_plain(uint8_t byte)
{
    return byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
}

/*
 * The high bit of each byte of the result is set if that byte of `word` is not plain. Bytes above a
 * first such byte may be marked wrongly (a borrow), never below it and never for nothing.
 */
static inline uint64_t json_word_special(uint64_t word)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), high = ones * 0x80;
    uint64_t quote = word ^ (ones * '"'), backslash = word ^ (ones * '\\');
    return (word | (word - ones * 0x20) | (quote - ones) | (backslash - ones)) & high;
}

/* The first byte from p on that is not plain, or end. */
static inline const char *json_skip_plain(const char *p, const char *end)
{
#ifdef JSON_SSE2
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\');
    const __m128i space = _mm_set1_epi8(' ');
    while (end - p >= 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
        /* Signed: bytes from 0x80 on are negative, so below a space too. */
        __m128i special = _mm_cmplt_epi8(bytes, space);
        special = _mm_or_si128(special, _mm_cmpeq_epi8(bytes, quote));
        special = _mm_or_si128(special, _mm_cmpeq_epi8(bytes, backslash));
        unsigned mask = (unsigned)_mm_movemask_epi8(special);
        if (mask != 0)
            return p + __builtin_ctz(mask);
        p += 16;
    }
#endif
    while (end - p >= 8) {
        uint64_t word;
        memcpy(&word, p, sizeof word);
        if (json_word_special(word) != 0)
            break;
        p += 8;
    }
    while (p < end && json_byte_plain((uint8_t)*p))
        p++;
    return p;
}

#define JSON_UTF8_BAD 0
#define JSON_UTF8_CUT (-1)

/*
 * The length of the UTF-8 sequence at p, which begins with a byte from 0x80 on; JSON_UTF8_BAD if
 * there is none; JSON_UTF8_CUT if the bytes end before it does, and are right so far.
 */
static inline int json_utf8_sequence(const char *p, const char *end)
{
    uint8_t lead = (uint8_t)*p, low = 0x80, high = 0xbf;
    int length;
    if (lead < 0xc2 || lead > 0xf4) /* a continuation, an overlong form, or above U+10FFFF */
        return JSON_UTF8_BAD;
    if (lead < 0xe0) {
        length = 2;
    } else if (lead < 0xf0) {
        length = 3;
        if (lead == 0xe0)
            low = 0xa0; /* below it, two bytes would do */
        else if (lead == 0xed)
            high = 0x9f; /* above it lie the surrogates */
    } else {
        length = 4;
        if (lead == 0xf0)
            low = 0x90;
        else if (lead == 0xf4)
            high = 0x8f; /* up to U+10FFFF */
    }
    for (int i = 1; i < length; i++) {
        if (i == end - p)
            return JSON_UTF8_CUT;
        uint8_t byte = (uint8_t)p[i];
        if (byte < low || byte > high)
            return JSON_UTF8_BAD;
        low = 0x80;
        high = 0xbf;
    }
    return length;
}

/* The value of a hex digit, or -1. */
static inline int json_hex_digit(char byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    if (byte >= 'a' && byte <= 'f')
        return byte - 'a' + 10;
    if (byte >= 'A' && byte <= 'F')
        return byte - 'A' + 10;
    return -1;
}

#endif
