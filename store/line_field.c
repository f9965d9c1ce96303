/* line_field.c - the fields of a line: finding them by name, checking their values; see
 * line_field.h. */
#include "line_field.h"

#include <string.h>

#define IDENTIFIER_MAX 64
#define NAME_MIN 2
#define NAME_MAX_LEN 21

enum rule {
    RULE_SESSION_ID,
    RULE_SEQ,
    RULE_U64,
    RULE_BOOL,
    RULE_IDENTIFIER,
    RULE_STRING,
    RULE_U32,
    RULE_U16,
    RULE_I64,
    RULE_ANY
};

struct description {
    const char *name;
    uint8_t len;
    uint8_t rule;
};

#define NAMED(text, rule)            \
    {                                \
        text, sizeof(text) - 1, rule \
    }

static const struct description descriptions[FIELD_COUNT] = {
    [FIELD_SESSION_ID] = NAMED("session_id", RULE_SESSION_ID),
    [FIELD_SEQ] = NAMED("seq", RULE_SEQ),
    [FIELD_TS_MS] = NAMED("ts_ms", RULE_U64),
    [FIELD_TS_EXACT] = NAMED("ts_exact", RULE_BOOL),
    [FIELD_SOURCE] = NAMED("source", RULE_IDENTIFIER),
    [FIELD_KIND] = NAMED("kind", RULE_IDENTIFIER),
    [FIELD_TOOL] = NAMED("tool", RULE_STRING),
    [FIELD_TOOL_CALL_ID] = NAMED("tool_call_id", RULE_STRING),
    [FIELD_STOP_REASON] = NAMED("stop_reason", RULE_STRING),
    [FIELD_TOKENS_IN] = NAMED("tokens_in", RULE_U32),
    [FIELD_TOKENS_OUT] = NAMED("tokens_out", RULE_U32),
    [FIELD_REASONING_TOKENS] = NAMED("reasoning_tokens", RULE_U32),
    [FIELD_LATENCY_MS] = NAMED("latency_ms", RULE_U32),
    [FIELD_TTFT_MS] = NAMED("ttft_ms", RULE_U32),
    [FIELD_CONTEXT_USED_TOKENS] = NAMED("context_used_tokens", RULE_U32),
    [FIELD_CONTEXT_MAX_TOKENS] = NAMED("context_max_tokens", RULE_U32),
    [FIELD_CACHE_CREATION_TOKENS] = NAMED("cache_creation_tokens", RULE_U32),
    [FIELD_CACHE_READ_TOKENS] = NAMED("cache_read_tokens", RULE_U32),
    [FIELD_SYSTEM_PROMPT_TOKENS] = NAMED("system_prompt_tokens", RULE_U32),
    [FIELD_COST_USD_E6] = NAMED("cost_usd_e6", RULE_I64),
    [FIELD_RETRY_COUNT] = NAMED("retry_count", RULE_U16),
    [FIELD_PAYLOAD] = NAMED("payload", RULE_ANY),
    [FIELD_OP] = NAMED("op", RULE_STRING),
};

/* The one field whose name can have this length and begin with this byte: no two share both. */
static inline enum field candidate(size_t len, char first)
{
    switch (len) {
    case 2:
        return FIELD_OP;
    case 3:
        return FIELD_SEQ;
    case 4:
        return first == 'k' ? FIELD_KIND : FIELD_TOOL;
    case 5:
        return FIELD_TS_MS;
    case 6:
        return FIELD_SOURCE;
    case 7:
        return first == 'p' ? FIELD_PAYLOAD : FIELD_TTFT_MS;
    case 8:
        return FIELD_TS_EXACT;
    case 9:
        return FIELD_TOKENS_IN;
    case 10:
        return first == 's' ? FIELD_SESSION_ID : first == 't' ? FIELD_TOKENS_OUT : FIELD_LATENCY_MS;
    case 11:
        return first == 's'   ? FIELD_STOP_REASON
               : first == 'c' ? FIELD_COST_USD_E6
                              : FIELD_RETRY_COUNT;
    case 12:
        return FIELD_TOOL_CALL_ID;
    case 16:
        return FIELD_REASONING_TOKENS;
    case 17:
        return FIELD_CACHE_READ_TOKENS;
    case 18:
        return FIELD_CONTEXT_MAX_TOKENS;
    case 19:
        return FIELD_CONTEXT_USED_TOKENS;
    case 20:
        return FIELD_SYSTEM_PROMPT_TOKENS;
    case 21:
        return FIELD_CACHE_CREATION_TOKENS;
    default:
        return FIELD_NONE;
    }
}

/* Whether two names of the same length, at least NAME_MIN, are the same; from both ends, as one
 * word each. */
static inline bool same_name(const char *a, const char *b, size_t len)
{
    uint64_t a_front, a_back, b_front, b_back;
    uint16_t a_half, b_half;
    uint32_t a_word, b_word;
    if (len >= 16 && memcmp(a + 8, b + 8, len - 16) != 0)
        return false;
    if (len >= sizeof a_front) {
        memcpy(&a_front, a, sizeof a_front);
        memcpy(&b_front, b, sizeof b_front);
        memcpy(&a_back, a + len - sizeof a_back, sizeof a_back);
        memcpy(&b_back, b + len - sizeof b_back, sizeof b_back);
        return a_front == b_front && a_back == b_back;
    }
    if (len >= sizeof a_word) {
        memcpy(&a_word, a, sizeof a_word);
        memcpy(&b_word, b, sizeof b_word);
        if (a_word != b_word)
            return false;
        memcpy(&a_word, a + len - sizeof a_word, sizeof a_word);
        memcpy(&b_word, b + len - sizeof b_word, sizeof b_word);
        return a_word == b_word;
    }
    memcpy(&a_half, a, sizeof a_half);
    memcpy(&b_half, b, sizeof b_half);
    return a_half == b_half && a[len - 1] == b[len - 1];
}

enum field field_find(const struct json_member *member)
{
    char plain[NAME_MAX_LEN];
    const char *key = member->key.at;
    size_t len = member->key.len;
    if (member->key_escaped) {
        len = json_unescape(key, len, plain, sizeof plain);
        key = plain;
    }
    if (len < NAME_MIN || len > NAME_MAX_LEN)
        return FIELD_NONE;
    enum field field = candidate(len, key[0]);
    if (field == FIELD_NONE || !same_name(key, descriptions[field].name, len))
        return FIELD_NONE;
    return field;
}

const char *field_name(enum field field)
{
    return descriptions[field].name;
}

#define IDENTIFIER_FIRST 1U
#define IDENTIFIER_REST 2U

/* Where in an identifier a byte may stand. */
static const uint8_t identifier_bytes[256] = {
    ['a' ... 'z'] = IDENTIFIER_FIRST | IDENTIFIER_REST,
    ['A' ... 'Z'] = IDENTIFIER_FIRST | IDENTIFIER_REST,
    ['_'] = IDENTIFIER_FIRST | IDENTIFIER_REST,
    ['0' ... '9'] = IDENTIFIER_REST,
    ['.'] = IDENTIFIER_REST,
    [':'] = IDENTIFIER_REST,
    ['-'] = IDENTIFIER_REST,
};

static bool identifier_valid(const struct json_member *member)
{
    char plain[IDENTIFIER_MAX];
    struct json_span span = field_inner(member);
    if (member->value_escaped) {
        span.len = json_unescape(span.at, span.len, plain, sizeof plain);
        span.at = plain;
    }
    if (span.len == 0 || span.len > IDENTIFIER_MAX)
        return false;
    if (!(identifier_bytes[(uint8_t)span.at[0]] & IDENTIFIER_FIRST))
        return false;
    for (size_t i = 1; i < span.len; i++) {
        if (!(identifier_bytes[(uint8_t)span.at[i]] & IDENTIFIER_REST))
            return false;
    }
    return true;
}

static bool session_id_valid(const struct json_member *member)
{
    char plain[HL_ID_MAX];
    struct json_span span = field_inner(member);
    if (member->value_escaped) {
        span.len = json_unescape(span.at, span.len, plain, sizeof plain);
        span.at = plain;
    }
    return span.len <= HL_ID_MAX && hl_session_id_valid(span.at, span.len);
}

bool field_check(enum field field, const struct json_member *member)
{
    uint64_t number;
    int64_t signed_number;
    bool is_string = member->type == JSON_STRING, is_number = member->type == JSON_NUMBER;
    switch ((enum rule)descriptions[field].rule) {
    case RULE_SESSION_ID:
        return is_string && session_id_valid(member);
    case RULE_SEQ:
        return is_number && json_to_u64(member->value, HL_SEQ_MAX, &number);
    case RULE_U64:
        return is_number && json_to_u64(member->value, UINT64_MAX, &number);
    case RULE_BOOL:
        return member->type == JSON_BOOL;
    case RULE_IDENTIFIER:
        return is_string && identifier_valid(member);
    case RULE_STRING:
        return is_string;
    case RULE_U32:
        return is_number && json_to_u64(member->value, UINT32_MAX, &number);
    case RULE_U16:
        return is_number && json_to_u64(member->value, UINT16_MAX, &number);
    case RULE_I64:
        return is_number && json_to_i64(member->value, &signed_number);
    case RULE_ANY:
        return true;
    }
    return false;
}

const char *field_rule(enum field field)
{
    switch ((enum rule)descriptions[field].rule) {
    case RULE_SESSION_ID:
        return "must be a string of 1 to 255 bytes (counted as in a file name) without a NUL";
    case RULE_SEQ:
        return "must be an integer from 0 to 9007199254740991";
    case RULE_U64:
        return "must be an integer from 0 to 18446744073709551615";
    case RULE_BOOL:
        return "must be true or false";
    case RULE_IDENTIFIER:
        return "must be an identifier of up to 64 bytes: a letter or _, then letters, digits and "
               "_.:-";
    case RULE_STRING:
        return "must be a string";
    case RULE_U32:
        return "must be an integer from 0 to 4294967295";
    case RULE_U16:
        return "must be an integer from 0 to 65535";
    case RULE_I64:
        return "must be an integer from -9223372036854775808 to 9223372036854775807";
    case RULE_ANY:
        break;
    }
    return "must be JSON";
}
