/*
 * sums_line.c - what an event says of itself, from its line.
 *
 * At an append the parser has the spans of the fields already. At a replay lines are read again:
 * they were checked when they were taken, and their frames since, so what is no concern of the sums
 * is only stepped over, which takes a third of the time of the strict scanner.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "json_bytes.h"
#include "line_field.h"
#include "sums.h"

#define KEY_MAX 22U /* bytes; longer than any key that matters */
/* Of an id that is written with escapes; a longer one counts as it stands. */
#define CALL_MAX 512U

/* ---- names as they count ---- */

/* Copies a name, without its escapes; one that is too long becomes "other". */
static uint8_t put_name(char *to, struct json_span span, bool escaped)
{
    size_t len = span.len;
    if (len == 0) /* there is none: nothing to copy from */
        return 0;
    if (escaped)
        len = json_unescape(span.at, span.len, to, SUMS_NAME_MAX);
    else if (len <= SUMS_NAME_MAX)
        memcpy(to, span.at, len);
    if (len <= SUMS_NAME_MAX)
        return (uint8_t)len;
    memcpy(to, SUMS_OTHER, sizeof SUMS_OTHER - 1);
    return sizeof SUMS_OTHER - 1;
}

static uint64_t hash_call(struct json_span span, bool escaped)
{
    char plain[CALL_MAX];
    if (span.len == 0)
        return 0;
    size_t len = escaped ? json_unescape(span.at, span.len, plain, sizeof plain) : SIZE_MAX;
    uint64_t hash = len == SIZE_MAX ? sums_hash(span.at, span.len) : sums_hash(plain, len);
    return hash ? hash : 1;
}

/* All but the names. */
static void take_numbers(const struct line_usage *usage, struct sums_event *event)
{
    event->ts_ms = usage->ts_ms;
    event->call = hash_call(usage->call, usage->call_escaped);
    event->cost_usd_e6 = usage->cost_usd_e6;
    event->tokens_in = usage->tokens_in;
    event->tokens_out = usage->tokens_out;
    event->reasoning_tokens = usage->reasoning_tokens;
    event->cache_read_tokens = usage->cache_read_tokens;
    event->cache_creation_tokens = usage->cache_creation_tokens;
}

/* An event that names no kind is of this one. */
static uint8_t put_kind(char *to, const struct line_usage *usage)
{
    if (usage->kind.len > 0)
        return put_name(to, usage->kind, usage->kind_escaped);
    memcpy(to, "Message", 7);
    return 7;
}

void sums_event_from(const struct line_usage *usage, struct sums_event *event)
{
    take_numbers(usage, event);
    event->kind_len = put_kind(event->kind, usage);
    event->tool_len = put_name(event->tool, usage->tool, usage->tool_escaped);
}

/* ---- keeping them ---- */

#define FIXED offsetof(struct sums_event, kind)

size_t sums_event_len(const void *packed)
{
    const uint8_t *from = packed;
    return FIXED + from[offsetof(struct sums_event, kind_len)] +
           from[offsetof(struct sums_event, tool_len)];
}

void sums_event_unpack(const void *packed, struct sums_event *event)
{
    const char *from = packed;
    memcpy(event, from, FIXED);
    memcpy(event->kind, from + FIXED, event->kind_len);
    memcpy(event->tool, from + FIXED + event->kind_len, event->tool_len);
}

/* ---- what the parser found ---- */

static inline uint64_t number_of(const char *at, size_t len)
{
    uint64_t number = 0;
    for (size_t i = 0; i < len; i++)
        number = number * 10 + (uint64_t)(at[i] - '0');
    return number;
}

static inline uint32_t count_of(struct json_span value)
{
    return (uint32_t)number_of(value.at, value.len);
}

void line_usage_note(struct line_usage *usage, enum field field, const struct json_member *member)
{
    bool text = field == FIELD_KIND || field == FIELD_TOOL || field == FIELD_TOOL_CALL_ID;
    if (member->type != (text ? JSON_STRING : JSON_NUMBER))
        return;
    switch (field) {
    case FIELD_KIND:
        usage->kind = field_inner(member);
        usage->kind_escaped = member->value_escaped;
        break;
    case FIELD_TOOL:
        usage->tool = field_inner(member);
        usage->tool_escaped = member->value_escaped;
        break;
    case FIELD_TOOL_CALL_ID:
        usage->call = field_inner(member);
        usage->call_escaped = member->value_escaped;
        break;
    case FIELD_TOKENS_IN:
        usage->tokens_in = count_of(member->value);
        break;
    case FIELD_TOKENS_OUT:
        usage->tokens_out = count_of(member->value);
        break;
    case FIELD_REASONING_TOKENS:
        usage->reasoning_tokens = count_of(member->value);
        break;
    case FIELD_CACHE_READ_TOKENS:
        usage->cache_read_tokens = count_of(member->value);
        break;
    case FIELD_CACHE_CREATION_TOKENS:
        usage->cache_creation_tokens = count_of(member->value);
        break;
    case FIELD_COST_USD_E6:
        json_to_i64(member->value, &usage->cost_usd_e6);
        break;
    case FIELD_TS_MS:
        usage->ts_ms = number_of(member->value.at, member->value.len);
        break;
    default:
        break;
    }
}

/* ---- reading a stored line ----
 *
 * The quick reader knows lines as they mostly are: no white space between the parts, no escapes in
 * keys or in the few values that matter. At anything else it gives up, and the strict scanner does
 * it.
 */

/* From behind a quote: the first byte that is a quote or a backslash, or end. */
static inline const char *find_quote(const char *p, const char *end)
{
#ifdef JSON_SSE2
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\');
    while (end - p >= 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
        unsigned mask = (unsigned)_mm_movemask_epi8(
            _mm_or_si128(_mm_cmpeq_epi8(bytes, quote), _mm_cmpeq_epi8(bytes, backslash)));
        if (mask != 0)
            return p + __builtin_ctz(mask);
        p += 16;
    }
#endif
    while (p < end && *p != '"' && *p != '\\')
        p++;
    return p;
}

/* From behind a quote to behind the one that ends the string, or end. */
static inline const char *skip_string(const char *p, const char *end)
{
    while ((p = find_quote(p, end)) < end && *p == '\\')
        p += end - p < 2 ? 1 : 2;
    return p < end ? p + 1 : end;
}

/* The next byte that is a quote, a bracket or a brace, or end. */
static inline const char *find_bracket(const char *p, const char *end)
{
#ifdef JSON_SSE2
    /* With bit 5 set '[' is '{' and ']' is '}'; no other ASCII byte becomes one of them. */
    const __m128i bit = _mm_set1_epi8(0x20), quote = _mm_set1_epi8('"');
    const __m128i opening = _mm_set1_epi8('{'), closing = _mm_set1_epi8('}');
    while (end - p >= 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i folded = _mm_or_si128(bytes, bit);
        __m128i found =
            _mm_or_si128(_mm_cmpeq_epi8(folded, opening), _mm_cmpeq_epi8(folded, closing));
        found = _mm_or_si128(found, _mm_cmpeq_epi8(bytes, quote));
        unsigned mask = (unsigned)_mm_movemask_epi8(found);
        if (mask != 0)
            return p + __builtin_ctz(mask);
        p += 16;
    }
#endif
    while (p < end && *p != '"' && (*p | 0x20) != '{' && (*p | 0x20) != '}')
        p++;
    return p;
}

/* The field of a key, if it is one that matters; else FIELD_NONE. */
static inline enum field quick_field(const char *key, size_t len)
{
    switch (len) {
    case 4:
        return memcmp(key, "kind", 4) == 0   ? FIELD_KIND
               : memcmp(key, "tool", 4) == 0 ? FIELD_TOOL
                                             : FIELD_NONE;
    case 5:
        return memcmp(key, "ts_ms", 5) == 0 ? FIELD_TS_MS : FIELD_NONE;
    case 9:
        return memcmp(key, "tokens_in", 9) == 0 ? FIELD_TOKENS_IN : FIELD_NONE;
    case 10:
        return memcmp(key, "tokens_out", 10) == 0 ? FIELD_TOKENS_OUT : FIELD_NONE;
    case 11:
        return memcmp(key, "cost_usd_e6", 11) == 0 ? FIELD_COST_USD_E6 : FIELD_NONE;
    case 12:
        return memcmp(key, "tool_call_id", 12) == 0 ? FIELD_TOOL_CALL_ID : FIELD_NONE;
    case 16:
        return memcmp(key, "reasoning_tokens", 16) == 0 ? FIELD_REASONING_TOKENS : FIELD_NONE;
    case 17:
        return memcmp(key, "cache_read_tokens", 17) == 0 ? FIELD_CACHE_READ_TOKENS : FIELD_NONE;
    case 21:
        return memcmp(key, "cache_creation_tokens", 21) == 0 ? FIELD_CACHE_CREATION_TOKENS
                                                             : FIELD_NONE;
    default:
        return FIELD_NONE;
    }
}

/* Whether no key that matters can stand behind p, wherever it would be: none is spelled there. */
static bool nothing_matters(const char *p, const char *end)
{
#ifdef JSON_SSE2
    const __m128i quote = _mm_set1_epi8('"'), k = _mm_set1_epi8('k'), t = _mm_set1_epi8('t');
    const __m128i r = _mm_set1_epi8('r'), c = _mm_set1_epi8('c'), u = _mm_set1_epi8('\\');
    for (; end - p >= 17; p += 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i next = _mm_loadu_si128((const __m128i *)(const void *)(p + 1));
        __m128i first = _mm_or_si128(_mm_cmpeq_epi8(next, k), _mm_cmpeq_epi8(next, t));
        first = _mm_or_si128(first, _mm_cmpeq_epi8(next, r));
        first = _mm_or_si128(first, _mm_cmpeq_epi8(next, c));
        first = _mm_or_si128(first, _mm_cmpeq_epi8(next, u)); /* an escape in a key */
        first = _mm_and_si128(first, _mm_cmpeq_epi8(bytes, quote));
        for (unsigned mask = (unsigned)_mm_movemask_epi8(first); mask != 0; mask &= mask - 1) {
            const char *key = p + __builtin_ctz(mask) + 1;
            size_t left = (size_t)(end - key), len = 1;
            while (len < left && len < KEY_MAX && key[len] != '"' && key[len] != '\\')
                len++;
            if (len == left || key[len] == '\\' || *key == '\\' ||
                quick_field(key, len) != FIELD_NONE)
                return false;
        }
    }
    for (; p < end; p++) /* too little for the shortest field, unless it is text of some other */
        if (*p == '"' && end - p >= 8)
            return false;
    return true;
#else
    (void)p;
    (void)end;
    return false;
#endif
}

/* From an opening bracket to behind the one that closes it, or end. */
static const char *skip_container(const char *p, const char *end)
{
    size_t depth = 0;
    while ((p = find_bracket(p, end)) < end) {
        char byte = *p++;
        if (byte == '"')
            p = skip_string(p, end);
        else if ((byte | 0x20) == '{')
            depth++;
        else if (--depth == 0)
            return p;
    }
    return end;
}

/* From the first byte of a value to the byte behind it; NULL: it is not so simple. *done: nothing
 * that is left matters. */
static inline const char *quick_value(const char *p, const char *end, enum field field,
                                      struct line_usage *usage, bool *done)
{
    const char *value = p;
    struct json_span *to;
    if (*p == '"') {
        if (field == FIELD_NONE)
            return skip_string(p + 1, end);
        p = find_quote(p + 1, end);
        if (p == end || *p != '"')
            return NULL;
        to = field == FIELD_KIND           ? &usage->kind
             : field == FIELD_TOOL         ? &usage->tool
             : field == FIELD_TOOL_CALL_ID ? &usage->call
                                           : NULL;
        if (to)
            *to = (struct json_span){value + 1, (size_t)(p - value - 1)};
        return p + 1;
    } else if ((*p | 0x20) == '{') {
        *done = nothing_matters(p + 1, end);
        return *done ? p : skip_container(p, end);
    } else {
        while (p<end && * p> ' ' && *p != ',' && *p != '}')
            p++;
        if (field != FIELD_NONE && *value <= '9') { /* else true, false, null */
            struct json_member member = {.value = {value, (size_t)(p - value)},
                                         .type = JSON_NUMBER};
            line_usage_note(usage, field, &member);
        }
        return p;
    }
}

#define STAMP_LEAST 96 /* bytes that are left, where the stamp is compared without a look */

/* From the first digit of a number to behind the last. */
static inline const char *read_digits(const char *p, uint64_t *number)
{
    *number = 0;
    for (; *p >= '0' && *p <= '9'; p++)
        *number = *number * 10 + (uint64_t)(*p - '0');
    return p;
}

#define BEGINS(p, text) (memcmp(p, text, sizeof(text) - 1) == 0)

/*
 * Steps over the fields that the store stamps in front, which it writes always alike, and over the
 * session_id of the writer, which is most often the first that follows: returns the comma (or
 * brace) behind the last one that is as expected; p where nothing is.
 */
static const char *skip_stamp(const char *p, const char *end, struct line_usage *usage)
{
    const char *begin = p;
    uint64_t number;
    if (end - p < STAMP_LEAST)
        return begin;
    if (BEGINS(p, "{\"session_id\":\"")) {
        p = find_quote(p + 15, end);
        if (end - p < STAMP_LEAST || !BEGINS(p, "\",\"seq\":"))
            return begin;
        p += 8;
    } else if (BEGINS(p, "{\"seq\":")) {
        p += 7;
    } else {
        return begin;
    }
    p = read_digits(p, &number); /* the line ends in a newline, which is no digit */
    if (end - p < STAMP_LEAST / 2 || !BEGINS(p, ",\"ts_ms\":"))
        return begin;
    p = read_digits(p + 9, &number);
    if (end - p < STAMP_LEAST / 2)
        return begin;
    usage->ts_ms = number;
    if (!BEGINS(p, ",\"ts_exact\":"))
        return p;
    p += 12 + (p[12] == 't' ? 4 : 5);
    if (BEGINS(p, ",\"source\":\"Tail\""))
        p += 16;
    if (end - p < STAMP_LEAST / 3 || !BEGINS(p, ",\"session_id\":\""))
        return p;
    const char *quote = find_quote(p + 15, end);
    return quote < end && *quote == '"' ? quote + 1 : p;
}

/* false: it gave up. */
static bool quick_read(const char *p, const char *end, struct line_usage *usage)
{
    if (end - p < 3 || *p != '{' || end[-1] != '\n')
        return false;
    p = skip_stamp(p, end, usage);
    if (*p == '}')
        return true;
    do {                          /* p is at a brace or a comma, and one byte follows at least */
        p += p[1] == ' ' ? 2 : 1; /* as many write it */
        if (end - p < 4 || *p != '"')
            return false;
        const char *key = ++p;
        p = find_quote(p, end);
        if (end - p < 4 || p[0] != '"' || p[1] != ':')
            return false;
        enum field field = quick_field(key, (size_t)(p - key));
        p += p[2] == ' ' ? 3 : 2;
        bool done = false;
        p = quick_value(p, end, field, usage, &done);
        if (done)
            return true;
        if (!p || end - p < 2)
            return false;
    } while (*p == ',');
    return *p == '}';
}

static bool strict_member(void *context, const struct json_member *member)
{
    line_usage_note(context, field_find(member), member);
    return true;
}

static bool read_usage(const char *line, size_t len, struct line_usage *usage)
{
    memset(usage, 0, sizeof *usage);
    if (quick_read(line, line + len, usage))
        return true;
    memset(usage, 0, sizeof *usage);
    return json_scan_object(line, len, strict_member, usage, NULL) == JSON_OK;
}

bool sums_event_read(const char *line, size_t len, struct sums_event *event)
{
    struct line_usage usage;
    if (!read_usage(line, len, &usage))
        return false;
    sums_event_from(&usage, event);
    return true;
}

size_t sums_event_read_packed(const char *line, size_t len, void *out)
{
    struct line_usage usage;
    struct sums_event event; /* its names go where they stay */
    char *names = (char *)out + FIXED;
    if (!read_usage(line, len, &usage))
        return 0;
    take_numbers(&usage, &event);
    event.kind_len = put_kind(names, &usage);
    event.tool_len = put_name(names + event.kind_len, usage.tool, usage.tool_escaped);
    memcpy(out, &event, FIXED);
    return FIXED + event.kind_len + event.tool_len;
}
