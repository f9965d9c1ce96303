/*
 * json.h - a strict scanner of JSON text (RFC 8259) in place.
 *
 * It builds no tree and copies nothing: one pass says whether the text is valid and where each
 * top-level member of an object lies. Text must be UTF-8 (RFC 3629: no surrogates, no overlong
 * forms, nothing above U+10FFFF); escaped lone surrogates (\ud800) are refused, since they name no
 * character. Nesting deeper than JSON_DEPTH_MAX is refused.
 */
#ifndef HL_JSON_H
#define HL_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_DEPTH_MAX 512

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

/* A piece of the scanned text. */
struct json_span {
    const char *at;
    size_t len;
};

/* A top-level member. key is without its quotes, still escaped if key_escaped. value is the whole
 * value, strings with their quotes. */
struct json_member {
    struct json_span key;
    struct json_span value;
    enum json_type type;
    bool key_escaped;
    bool value_escaped; /* a string that holds a backslash */
};

enum json_result {
    JSON_OK = 0,
    JSON_UNFINISHED, /* the text ends too early: more bytes could make it valid */
    JSON_INVALID,    /* no continuation can make it valid */
    JSON_STOPPED     /* each() returned false */
};

struct json_error {
    size_t offset;      /* where the text went wrong */
    const char *reason; /* a static phrase, e.g. "expected ':' after a key" */
};

typedef bool json_each(void *context, const struct json_member *member);

/*
 * Scans text, which must be one JSON object with optional white space around it, and calls each()
 * (may be NULL) for every top-level member in order, as it is met. err may be NULL.
 */
enum json_result json_scan_object(const char *text, size_t len, json_each *each, void *context,
                                  struct json_error *err);

/* Scans text, which must be one JSON value of any type with optional white space around it. */
enum json_result json_scan_value(const char *text, size_t len, enum json_type *type,
                                 struct json_error *err);

/*
 * Where the scan of a text that grows stands; zero it to begin. json_scan_more() scans an object as
 * json_scan_object() does, from where the last call for the same text ended, so that a text which
 * comes in pieces is looked at once. text and len are all that there is of it so far; it may have
 * moved. JSON_OK: it is whole, though white space may follow. After JSON_INVALID there is no going
 * on.
 */
struct json_progress {
    size_t at;
    uint64_t nest[JSON_DEPTH_MAX / 64]; /* for each open container a bit: set for objects */
    uint16_t depth;
    uint8_t state;
};
enum json_result json_scan_more(struct json_progress *progress, const char *text, size_t len,
                                struct json_error *err);
/* The same for a value of any type. One that is a number may grow while nothing stands behind it.
 */
enum json_result json_scan_value_more(struct json_progress *progress, const char *text, size_t len,
                                      struct json_error *err);

/* Whether the bytes are UTF-8; if not, *bad (may be NULL) is the offset of the first byte that is
 * not. NUL and other control bytes are UTF-8. */
bool json_utf8_valid(const char *text, size_t len, size_t *bad);
/* The same, and JSON_UNFINISHED if the only fault is that the last character is not whole. */
enum json_result json_scan_utf8(const char *text, size_t len, size_t *bad);

/*
 * Writes the string whose quoted (quotes included) or unquoted escaped form is given, unescaped, as
 * UTF-8. Returns its length, or SIZE_MAX when it does not fit in size. The span must have been
 * scanned.
 */
size_t json_unescape(const char *inner, size_t len, char *out, size_t size);

/* Whether an escaped string (without quotes), scanned before, equals the plain bytes. */
bool json_string_equals(const char *inner, size_t len, const char *plain, size_t plain_len);

/* The most bytes that json_escape() can write for len bytes, quotes included. */
#define JSON_ESCAPE_MAX(len) ((len)*6 + 2)
/* Writes UTF-8 bytes as a JSON string with its quotes: \" \\ \b \f \n \r \t, other controls and
 * 0x7f as they must (\u00XX; 0x7f stays). Returns the bytes written. */
size_t json_escape(const char *text, size_t len, char *out);
/* What json_escape() would return. */
size_t json_escaped_len(const char *text, size_t len);

/* Exact integers, written as JSON integers without fraction or exponent; false when not, or out of
 * range. A u64 has no sign, so -0 is none. */
bool json_to_u64(struct json_span value, uint64_t max, uint64_t *out);
bool json_to_i64(struct json_span value, int64_t *out);

#endif
