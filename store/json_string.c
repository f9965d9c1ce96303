/* json_string.c - strings of JSON: checking UTF-8, undoing escapes, and making them; see json.h. */
#include "json.h"
#include "json_bytes.h"

static const char *skip_ascii(const char *p, const char *end)
{
    const uint64_t high = UINT64_C(0x8080808080808080);
    while (end - p >= 8) {
        uint64_t word;
        memcpy(&word, p, sizeof word);
        if ((word & high) != 0)
            break;
        p += 8;
    }
    while (p < end && (uint8_t)*p < 0x80)
        p++;
    return p;
}

enum json_result json_scan_utf8(const char *text, size_t len, size_t *bad)
{
    if (len == 0)
        return JSON_OK;
    const char *end = text + len;
    const char *p = text;
    while ((p = skip_ascii(p, end)) < end) {
        int length = json_utf8_sequence(p, end);
        if (length <= 0) {
            if (bad)
                *bad = (size_t)(p - text);
            return length == JSON_UTF8_CUT ? JSON_UNFINISHED : JSON_INVALID;
        }
        p += length;
    }
    return JSON_OK;
}

bool json_utf8_valid(const char *text, size_t len, size_t *bad)
{
    return json_scan_utf8(text, len, bad) == JSON_OK;
}

/* ---- undoing escapes ---- */

static unsigned hex_unit(const char *p)
{
    unsigned unit = 0;
    for (int i = 0; i < 4; i++)
        unit = unit << 4 | (unsigned)json_hex_digit(p[i]);
    return unit;
}

/* Writes a character, which is no surrogate, as UTF-8; returns its bytes. */
static size_t put_utf8(unsigned c, char *out)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

/* Undoes the escape at *p, which was scanned before, and moves *p behind it; returns its bytes in
 * out. */
static size_t undo_escape(const char **p, char out[4])
{
    char kind = (*p)[1];
    if (kind == 'u') {
        unsigned c = hex_unit(*p + 2);
        *p += 6;
        if (c >= 0xd800 && c <= 0xdbff) { /* the scan saw to it that the other half follows */
            c = 0x10000 + ((c - 0xd800) << 10) + (hex_unit(*p + 2) - 0xdc00);
            *p += 6;
        }
        return put_utf8(c, out);
    }
    *p += 2;
    switch (kind) {
    case 'b':
        out[0] = '\b';
        break;
    case 'f':
        out[0] = '\f';
        break;
    case 'n':
        out[0] = '\n';
        break;
    case 'r':
        out[0] = '\r';
        break;
    case 't':
        out[0] = '\t';
        break;
    default: /* " \ / */
        out[0] = kind;
    }
    return 1;
}

size_t json_unescape(const char *inner, size_t len, char *out, size_t size)
{
    if (len == 0)
        return 0;                      /* inner may be NULL: a string that is missing */
    if (len >= 2 && inner[0] == '"') { /* inside quotes, a quote is never the first byte */
        inner++;
        len -= 2;
    }
    size_t used = 0;
    const char *p = inner, *end = inner + len;
    while (p < end) {
        const char *run = memchr(p, '\\', (size_t)(end - p));
        size_t plain = (size_t)((run ? run : end) - p);
        if (plain > size - used)
            return SIZE_MAX;
        if (plain > 0)
            memcpy(out + used, p, plain);
        used += plain;
        p += plain;
        if (p == end)
            break;
        char bytes[4];
        size_t n = undo_escape(&p, bytes);
        if (n > size - used)
            return SIZE_MAX;
        memcpy(out + used, bytes, n);
        used += n;
    }
    return used;
}

bool json_string_equals(const char *inner, size_t len, const char *plain, size_t plain_len)
{
    const char *p = inner, *end = inner + len;
    size_t at = 0;
    while (p < end) {
        char bytes[4];
        size_t n = 1;
        if (*p == '\\')
            n = undo_escape(&p, bytes);
        else
            bytes[0] = *p++;
        if (n > plain_len - at || memcmp(bytes, plain + at, n) != 0)
            return false;
        at += n;
    }
    return at == plain_len;
}

/* ---- making escapes ---- */

/* What follows the backslash for a byte that has a short escape, or 0. */
static char short_escape(char byte)
{
    switch (byte) {
    case '"':
    case '\\':
        return byte;
    case '\b':
        return 'b';
    case '\f':
        return 'f';
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    default:
        return 0;
    }
}

size_t json_escape(const char *text, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";
    char *to = out;
    *to++ = '"';
    const char *p = text, *end = len > 0 ? text + len : text;
    while (p < end) {
        const char *run = json_skip_plain(p, end);
        while (run < end && (uint8_t)*run >= 0x80)
            run++;
        if (run > p) {
            memcpy(to, p, (size_t)(run - p));
            to += run - p;
            p = run;
            continue; /* what follows may be plain again, after bytes from 0x80 on */
        }
        char byte = *p++;
        char shorter = short_escape(byte);
        *to++ = '\\';
        if (shorter != 0) {
            *to++ = shorter;
        } else {
            *to++ = 'u';
            *to++ = '0';
            *to++ = '0';
            *to++ = digits[(uint8_t)byte >> 4];
            *to++ = digits[byte & 15];
        }
    }
    *to++ = '"';
    return (size_t)(to - out);
}

size_t json_escaped_len(const char *text, size_t len)
{
    size_t bytes = len + 2;
    const char *p = text, *end = len > 0 ? text + len : text;
    while ((p = json_skip_plain(p, end)) < end) {
        if ((uint8_t)*p < 0x80)
            bytes += short_escape(*p) != 0 ? 1 : 5;
        p++;
    }
    return bytes;
}
