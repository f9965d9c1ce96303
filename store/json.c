/*
 * json.c - the scanner: one pass over the text, a bit for each open container instead of recursion.
 *
 * run() goes from token to token. Its states say what may come next; a scan that meets the end of
 * the text remembers the state and where to go on when there is more text: behind what was looked
 * at, but for words, escapes and characters that were cut, which are short. So a text that comes in
 * pieces costs what it is long, whatever it is made of. Steps take the place where a token begins
 * and return the place behind it, or NULL after they noted in the scan why there is none.
 *
 * Invariants: depth counts open containers; bit depth-1 of nest is set if the innermost one is an
 * object. Members are told when depth is 1, so each() must be given for objects only.
 */
#include "json.h"
#include "json_bytes.h"

enum state {
    BEFORE_OBJECT, /* 0: how a zeroed json_progress begins */
    BEFORE_VALUE,
    BEFORE_KEY,   /* after a ',' or the '{' of an object that is not empty */
    BEFORE_COLON, /* behind a key */
    AFTER_VALUE,
    /* Those below are only met where a text was cut. */
    AFTER_BRACE, /* behind a '{', with nothing inside yet */
    AFTER_BRACKET,
    IN_KEY,
    IN_STRING, /* that is a value */
    /* Inside a number, by what may come next: */
    NUMBER_BEGUN,    /* a digit, after '-' */
    NUMBER_ZERO,     /* no digit, after a leading 0 */
    NUMBER_INTEGER,  /* more digits */
    NUMBER_POINT,    /* a digit, after '.' */
    NUMBER_FRACTION, /* more digits */
    NUMBER_E,        /* a sign or a digit */
    NUMBER_SIGN,     /* a digit, after a sign */
    NUMBER_EXPONENT, /* more digits */
};

struct scan {
    const char *text, *end;
    const char *at; /* where to begin; in the end where to go on, or where it went wrong */
    enum state state;
    enum state grows; /* not 0: the text is a number up to its end, and may go on in this state */
    unsigned depth;
    uint64_t nest[JSON_DEPTH_MAX / 64];
    enum json_result result;
    const char *reason;
    enum json_type type; /* of the outermost value */
    json_each *each;
    void *context;
    struct json_member member; /* the one under way */
};

static const char *refuse(struct scan *scan, const char *at, const char *reason)
{
    scan->result = JSON_INVALID;
    scan->at = at;
    scan->reason = reason;
    return NULL;
}

static const char *cut(struct scan *scan, const char *at, enum state state, const char *reason)
{
    scan->result = JSON_UNFINISHED;
    scan->at = at;
    scan->state = state;
    scan->reason = reason;
    return NULL;
}

static inline const char *skip_space(const char *p, const char *end)
{
    if (p < end && (uint8_t)*p > ' ') /* as most often */
        return p;
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r'))
        p++;
    return p;
}

/* ---- strings ---- */

/*
 * The four hex digits of a UTF-16 unit at p, as far as they are there: [*low, *high] is what the
 * unit can be. Returns the number of digits, or -1 if something else stands among them.
 */
static int hex_digits(const char *p, const char *end, unsigned *low, unsigned *high)
{
    unsigned unit = 0;
    int n = 0;
    while (n < 4 && p + n < end) {
        int digit = json_hex_digit(p[n]);
        if (digit < 0)
            return -1;
        unit = unit << 4 | (unsigned)digit;
        n++;
    }
    *low = unit << 4 * (4 - n);
    *high = *low + ((1U << 4 * (4 - n)) - 1);
    return n;
}

static const char *string_cut(struct scan *scan, const char *at)
{
    return cut(scan, at, IN_STRING, "the text ends inside a string");
}

/* A \uXXXX at p, or the two of a character above U+FFFF. */
static const char *unicode_escape(struct scan *scan, const char *p)
{
    static const char lone[] = "an escaped surrogate without its other half";
    static const char digits[] = "expected four hex digits after \\u";
    const char *end = scan->end;
    unsigned low, high;
    int n = hex_digits(p + 2, end, &low, &high);
    if (n < 0)
        return refuse(scan, p, digits);
    if (low >= 0xdc00 && high <= 0xdfff)
        return refuse(scan, p, lone);
    if (n < 4)
        return string_cut(scan, p);
    if (low < 0xd800 || low > 0xdfff)
        return p + 6;
    const char *second = p + 6;
    if (second == end)
        return string_cut(scan, p);
    if (*second != '\\')
        return refuse(scan, p, lone);
    if (second + 1 == end)
        return string_cut(scan, p);
    if (second[1] != 'u')
        return refuse(scan, p, lone);
    n = hex_digits(second + 2, end, &low, &high);
    if (n < 0)
        return refuse(scan, second, digits);
    if (high < 0xdc00 || low > 0xdfff)
        return refuse(scan, p, lone);
    return n < 4 ? string_cut(scan, p) : p + 12;
}

/* What is not plain inside a string, at p: an escape, a character beyond ASCII, or a fault. */
static const char *special(struct scan *scan, const char *p)
{
    if ((uint8_t)*p >= 0x80) {
        do {
            int length = json_utf8_sequence(p, scan->end);
            if (length == JSON_UTF8_CUT)
                return string_cut(scan, p);
            if (length == JSON_UTF8_BAD)
                return refuse(scan, p, "not UTF-8");
            p += length;
        } while (p < scan->end && (uint8_t)*p >= 0x80);
        return p;
    }
    if (*p != '\\')
        return refuse(scan, p, "a control character in a string must be escaped");
    if (scan->end - p < 2)
        return string_cut(scan, p);
    switch (p[1]) {
    case '"':
    case '\\':
    case '/':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
        return p + 2;
    case 'u':
        return unicode_escape(scan, p);
    default:
        return refuse(scan, p, "an escape that there is not");
    }
}

/* From inside a string to behind its closing quote. */
static inline const char *string(struct scan *scan, const char *p, bool *escaped)
{
    const char *end = scan->end;
    bool any = false;
    for (;;) {
        p = json_skip_plain(p, end);
        if (p == end)
            return string_cut(scan, p);
        if (*p == '"')
            break;
        any |= *p == '\\';
        p = special(scan, p);
        if (!p)
            return NULL;
    }
    *escaped = any;
    return p + 1;
}

/* ---- other scalars ---- */

static inline bool is_digit(char byte)
{
    return byte >= '0' && byte <= '9';
}

static inline const char *skip_digits(const char *p, const char *end)
{
    while (p < end && is_digit(*p))
        p++;
    return p;
}

/* The digit that must stand at p. */
static inline const char *digit(struct scan *scan, const char *p, enum state state)
{
    if (p == scan->end)
        return cut(scan, p, state, "the text ends inside a number");
    return is_digit(*p) ? p + 1 : refuse(scan, p, "expected a digit");
}

/* A number from p on, behind its sign or, if it was cut there, in any other of its states. One that
 * the text ends with is whole only if it is all of the text. */
static inline const char *number(struct scan *scan, const char *p, enum state state)
{
    const char *end = scan->end;
    if (state == NUMBER_BEGUN) {
        p = digit(scan, p, state);
        if (!p)
            return NULL;
        state = p[-1] == '0' ? NUMBER_ZERO : NUMBER_INTEGER;
    }
    if (state == NUMBER_ZERO && p < end && is_digit(*p))
        return refuse(scan, p, "a number must not begin with 0");
    if (state == NUMBER_INTEGER)
        p = skip_digits(p, end);
    if (state <= NUMBER_INTEGER && p < end && *p == '.') {
        p++;
        state = NUMBER_POINT;
    }
    if (state == NUMBER_POINT) {
        p = digit(scan, p, state);
        if (!p)
            return NULL;
        state = NUMBER_FRACTION;
    }
    if (state == NUMBER_FRACTION)
        p = skip_digits(p, end);
    if (state <= NUMBER_FRACTION && p < end && (*p == 'e' || *p == 'E')) {
        p++;
        state = NUMBER_E;
    }
    if (state == NUMBER_E && p < end && (*p == '+' || *p == '-')) {
        p++;
        state = NUMBER_SIGN;
    }
    if (state == NUMBER_E || state == NUMBER_SIGN) {
        p = digit(scan, p, state);
        if (!p)
            return NULL;
        state = NUMBER_EXPONENT;
    }
    if (state == NUMBER_EXPONENT)
        p = skip_digits(p, end);
    if (p == end && scan->depth == 0)
        scan->grows = state;
    if (p == end && scan->depth > 0)
        return cut(scan, p, state, "the text ends inside a number or behind it");
    return p;
}

/* true, false or null at p. */
static inline const char *word(struct scan *scan, const char *p, const char *spelling, size_t len)
{
    size_t left = (size_t)(scan->end - p);
    if (memcmp(p, spelling, left < len ? left : len) != 0)
        return refuse(scan, p, "expected a value (words are true, false and null)");
    if (left < len)
        return cut(scan, p, BEFORE_VALUE, "the text ends inside a word");
    return p + len;
}

/* A value that is no container, or the fault, at p. */
static inline const char *scalar(struct scan *scan, const char *p, enum json_type *type,
                                 bool *escaped)
{
    switch (*p) {
    case '"':
        *type = JSON_STRING;
        return string(scan, p + 1, escaped);
    case 't':
        *type = JSON_BOOL;
        return word(scan, p, "true", 4);
    case 'f':
        *type = JSON_BOOL;
        return word(scan, p, "false", 5);
    case 'n':
        *type = JSON_NULL;
        return word(scan, p, "null", 4);
    default:
        *type = JSON_NUMBER;
        if (*p != '-' && !is_digit(*p))
            return refuse(scan, p, "expected a value");
        return number(scan, *p == '-' ? p + 1 : p, NUMBER_BEGUN);
    }
}

/* ---- containers ---- */

/* Behind the bracket of a container: the way into it, or, if it is empty, behind it. */
static inline const char *enter(struct scan *scan, const char *p, bool object, enum state *next)
{
    p = skip_space(p, scan->end);
    if (p == scan->end)
        return cut(scan, p, object ? AFTER_BRACE : AFTER_BRACKET,
                   object ? "the text ends inside an object" : "the text ends inside an array");
    *next = AFTER_VALUE;
    if (*p == (object ? '}' : ']'))
        return p + 1;
    if (object && *p != '"')
        return refuse(scan, p, "expected a key or '}'");
    uint64_t bit = UINT64_C(1) << scan->depth % 64, *nest = &scan->nest[scan->depth / 64];
    *nest = object ? *nest | bit : *nest & ~bit;
    scan->depth++;
    *next = object ? BEFORE_KEY : BEFORE_VALUE;
    return p;
}

static inline bool innermost_is_object(const struct scan *scan)
{
    unsigned bit = scan->depth - 1;
    return scan->depth > 0 && (scan->nest[bit / 64] >> bit % 64 & 1) != 0;
}

/* The colon that must stand behind a key. */
static inline const char *colon(struct scan *scan, const char *p)
{
    p = skip_space(p, scan->end);
    if (p == scan->end)
        return cut(scan, p, BEFORE_COLON, "the text ends where ':' is due");
    return *p == ':' ? p + 1 : refuse(scan, p, "expected ':' after a key");
}

/* The rest of a key, from inside its quotes. */
static inline const char *key_rest(struct scan *scan, const char *p, bool *escaped)
{
    p = string(scan, p, escaped);
    if (!p && scan->result == JSON_UNFINISHED)
        scan->state = IN_KEY;
    return p;
}

/* A key and its colon at p. */
static inline const char *key(struct scan *scan, const char *p)
{
    const char *begin = skip_space(p, scan->end);
    if (begin == scan->end)
        return cut(scan, begin, BEFORE_KEY, "the text ends where a key is due");
    if (*begin != '"')
        return refuse(scan, begin, "expected a key");
    bool escaped;
    p = key_rest(scan, begin + 1, &escaped);
    if (!p)
        return NULL;
    if (scan->depth == 1) {
        scan->member.key = (struct json_span){begin + 1, (size_t)(p - begin) - 2};
        scan->member.key_escaped = escaped;
    }
    return colon(scan, p);
}

/* A value at p: all of it, or the way into a container. */
static inline const char *value(struct scan *scan, const char *p, enum state *next)
{
    const unsigned depth = scan->depth;
    enum json_type type;
    bool escaped = false;
    p = skip_space(p, scan->end);
    if (p == scan->end)
        return cut(scan, p, BEFORE_VALUE, "the text ends where a value is due");
    if (depth == 1)
        scan->member.value.at = p;
    *next = AFTER_VALUE;
    if (*p == '{' || *p == '[') {
        type = *p == '{' ? JSON_OBJECT : JSON_ARRAY;
        if (depth == JSON_DEPTH_MAX)
            return refuse(scan, p, "nested too deeply");
        p = enter(scan, p + 1, type == JSON_OBJECT, next);
    } else {
        p = scalar(scan, p, &type, &escaped);
    }
    if (depth == 0)
        scan->type = type;
    if (depth == 1) {
        scan->member.type = type;
        scan->member.value_escaped = escaped;
    }
    return p;
}

/* Tells the member whose value ends at p. */
static inline bool tell(struct scan *scan, const char *p)
{
    scan->member.value.len = (size_t)(p - scan->member.value.at);
    return scan->each(scan->context, &scan->member);
}

/*
 * Members, from a key on that is due at p. As long as they are written as most programs write them,
 * without white space and escapes in keys, they are taken in a loop of their own, which knows what
 * comes next; where one is not, or its value is neither string nor integer, run() goes on behind
 * its key.
 */
static const char *members(struct scan *scan, const char *p, enum state *next)
{
    const char *end = scan->end;
    const bool told = scan->depth == 1;
    *next = BEFORE_VALUE;
    while (p < end && *p == '"') {
        const char *quote = json_skip_plain(p + 1, end), *behind;
        enum json_type type = JSON_STRING;
        bool escaped = false;
        if (end - quote < 3 || quote[0] != '"' || quote[1] != ':')
            break;
        const char *at = quote + 2; /* the value */
        if (told) {
            scan->member.key = (struct json_span){p + 1, (size_t)(quote - p) - 1};
            scan->member.key_escaped = false;
        }
        if (*at == '"') {
            behind = string(scan, at + 1, &escaped);
            if (!behind)
                return NULL;
        } else if (*at >= '1' && *at <= '9') {
            type = JSON_NUMBER;
            behind = skip_digits(at + 1, end);
            if (behind == end || (*behind != ',' && *behind != '}'))
                return at;
        } else {
            return at;
        }
        if (told) {
            scan->member.value.at = at;
            scan->member.type = type;
            scan->member.value_escaped = escaped;
        }
        if (behind == end || *behind != ',') {
            *next = AFTER_VALUE;
            return behind;
        }
        if (told && scan->each && !tell(scan, behind)) {
            scan->result = JSON_STOPPED;
            return NULL;
        }
        p = behind + 1;
    }
    return key(scan, p);
}

/* Inside of a container, behind a value that ends at p: a comma or the container's end. */
static inline const char *separator(struct scan *scan, const char *p, enum state *next)
{
    bool in_object = innermost_is_object(scan);
    p = skip_space(p, scan->end);
    if (p == scan->end)
        return cut(scan, p, AFTER_VALUE,
                   in_object ? "the text ends inside an object" : "the text ends inside an array");
    if (*p == ',')
        *next = in_object ? BEFORE_KEY : BEFORE_VALUE;
    else if (*p == (in_object ? '}' : ']'))
        scan->depth--;
    else
        return refuse(scan, p, in_object ? "expected ',' or '}'" : "expected ',' or ']'");
    return p + 1;
}

/* Behind the outermost value: nothing but white space may follow. */
static enum json_result the_end(struct scan *scan, const char *p)
{
    scan->at = skip_space(p, scan->end);
    scan->state = AFTER_VALUE;
    if (scan->at == scan->end)
        return JSON_OK;
    refuse(scan, scan->at, "something stands behind the end");
    return JSON_INVALID;
}

/* From where a token was cut. */
static const char *go_on(struct scan *scan, const char *p, enum state *state)
{
    const enum state from = *state;
    bool escaped;
    switch (from) {
    case AFTER_BRACE:
    case AFTER_BRACKET:
        return enter(scan, p, from == AFTER_BRACE, state);
    case IN_KEY:
        p = key_rest(scan, p, &escaped);
        if (!p)
            return NULL;
        /* fall through */
    case BEFORE_COLON:
        *state = BEFORE_VALUE;
        return colon(scan, p);
    case IN_STRING:
        *state = AFTER_VALUE;
        return string(scan, p, &escaped);
    default:
        *state = AFTER_VALUE;
        return number(scan, p, from);
    }
}

/*
 * Scans from scan->at until the outermost value and the white space behind it end the text.
 * scan->state is where it begins, and where it may go on after JSON_UNFINISHED.
 */
static enum json_result run(struct scan *scan)
{
    const char *p = scan->at;
    enum state state = scan->state;
    while (p) {
        switch (state) {
        case BEFORE_KEY:
            p = members(scan, p, &state);
            break;
        case BEFORE_VALUE:
        case BEFORE_OBJECT:
            p = value(scan, p, &state);
            break;
        case AFTER_VALUE:
            if (scan->depth == 1 && scan->each && !tell(scan, p))
                return JSON_STOPPED;
            if (scan->depth == 0)
                return the_end(scan, p);
            p = separator(scan, p, &state);
            break;
        default:
            p = go_on(scan, p, &state);
        }
    }
    return scan->result;
}

/* ---- the ways in ---- */

static enum json_result finish(const struct scan *scan, enum json_result result,
                               struct json_error *err)
{
    if (err && (result == JSON_INVALID || result == JSON_UNFINISHED)) {
        const char *at = result == JSON_INVALID ? scan->at : scan->end;
        *err = (struct json_error){(size_t)(at - scan->text), scan->reason};
    }
    return result;
}

/* Scans text that must be an object and not yet begun: steps over the space before it. */
static enum json_result run_object(struct scan *scan)
{
    const char *p = skip_space(scan->at, scan->end);
    if (p == scan->end) {
        cut(scan, p, BEFORE_OBJECT, "the text ends where '{' is due");
        return JSON_UNFINISHED;
    }
    if (*p != '{') {
        refuse(scan, p, "expected '{'");
        return JSON_INVALID;
    }
    scan->at = p;
    scan->state = BEFORE_VALUE;
    return run(scan);
}

static void scan_init(struct scan *scan, const char *text, size_t len)
{
    if (!text)
        text = "";
    scan->text = scan->at = text;
    scan->end = text + len;
    scan->state = scan->grows = BEFORE_OBJECT;
    scan->depth = 0;
    scan->result = JSON_OK;
    scan->reason = NULL;
    scan->each = NULL;
}

enum json_result json_scan_object(const char *text, size_t len, json_each *each, void *context,
                                  struct json_error *err)
{
    struct scan scan;
    scan_init(&scan, text, len);
    scan.each = each;
    scan.context = context;
    return finish(&scan, run_object(&scan), err);
}

enum json_result json_scan_value(const char *text, size_t len, enum json_type *type,
                                 struct json_error *err)
{
    struct scan scan;
    scan_init(&scan, text, len);
    scan.state = BEFORE_VALUE;
    enum json_result result = run(&scan);
    if (result == JSON_OK && type)
        *type = scan.type;
    return finish(&scan, result, err);
}

/* Takes up a scan where the progress says, and notes there where it ended. */
static void resume(struct scan *scan, const struct json_progress *progress, const char *text,
                   size_t len)
{
    scan_init(scan, text, len);
    scan->at += progress->at;
    scan->state = (enum state)progress->state;
    scan->depth = progress->depth;
    memcpy(scan->nest, progress->nest, sizeof scan->nest);
}

static void note(struct json_progress *progress, const struct scan *scan)
{
    progress->at = (size_t)(scan->at - scan->text);
    progress->state = (uint8_t)scan->state;
    progress->depth = (uint16_t)scan->depth;
    memcpy(progress->nest, scan->nest, sizeof progress->nest);
}

enum json_result json_scan_more(struct json_progress *progress, const char *text, size_t len,
                                struct json_error *err)
{
    struct scan scan;
    resume(&scan, progress, text, len);
    enum json_result result = scan.state == BEFORE_OBJECT ? run_object(&scan) : run(&scan);
    note(progress, &scan);
    return finish(&scan, result, err);
}

enum json_result json_scan_value_more(struct json_progress *progress, const char *text, size_t len,
                                      struct json_error *err)
{
    struct scan scan;
    resume(&scan, progress, text, len);
    enum json_result result = run(&scan);
    if (result == JSON_OK && scan.grows != BEFORE_OBJECT)
        scan.state = scan.grows;
    note(progress, &scan);
    return finish(&scan, result, err);
}
