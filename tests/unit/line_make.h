/*
 * line_make.h - the standard fields with values that are right and wrong, and random lines made of
 * them. For the test_line*.c programs; each includes it once.
 */
#ifndef HL_TEST_LINE_MAKE_H
#define HL_TEST_LINE_MAKE_H

#include "json_make.h"

#include "../../store/line.h"

#define MAX_RECORD (1U << 20)

/* Values of each standard field that are right, and some that are not. */
struct field_case {
    const char *name;
    const char *sentence;
    const char *good[8], *bad[12];
};

#define TEXTS                                    \
    {                                            \
        "\"\"", "\"any text\"", "\"\\u0000\\n\"" \
    }
#define NO_TEXTS                \
    {                           \
        "1", "true", "[]", "{}" \
    }
#define U32_GOOD               \
    {                          \
        "0", "1", "4294967295" \
    }
#define U32_BAD                                                                                \
    {                                                                                          \
        "-1", "-0", "4294967296", "18446744073709551616", "1.0", "1e3", "\"1\"", "true", "[]", \
            "{}"                                                                               \
    }
#define U32_SENTENCE "must be an integer from 0 to 4294967295"
#define IDENTIFIER_64 "\"a234567890123456789012345678901234567890123456789012345678901234\""
#define IDENTIFIER_65 "\"a2345678901234567890123456789012345678901234567890123456789012345\""
#define NAMES                                                                  \
    {                                                                          \
        "\"ToolCall\"", "\"_\"", "\"a.b:c-d_9\"", "\"\\u0041\"", IDENTIFIER_64 \
    }
#define NO_NAMES                                                                              \
    {                                                                                         \
        "\"\"", "\"9a\"", "\"-a\"", "\"a b\"", "\"\\u00e9\"", "\"a\\n\"", IDENTIFIER_65, "1", \
            "[]", "\"a\\u0000\""                                                              \
    }
#define NAME_SENTENCE \
    "must be an identifier of up to 64 bytes: a letter or _, then letters, digits and _.:-"

/* Those that count for operations too come first. */
#define FOR_ALL 4
static const struct field_case fields[] = {
    {"session_id",
     "must be a string of 1 to 255 bytes (counted as in a file name) without a NUL",
     {"\"a\"", "\"\\u00e9\\/\"", "\"\xf0\x9f\x98\x80 %\\n\""},
     {"\"\"", "\"a\\u0000\"", "1", "{}", "[\"a\"]"}},
    {"seq",
     "must be an integer from 0 to 9007199254740991",
     {"0", "1", "9007199254740991"},
     {"-1", "9007199254740992", "1.0", "1e1", "\"1\"", "true", "18446744073709551617"}},
    {"ts_ms",
     "must be an integer from 0 to 18446744073709551615",
     {"0", "1763690000123", "18446744073709551615"},
     {"-1", "18446744073709551616", "1.5", "\"2025-11-21T00:00:00Z\"", "false"}},
    {"ts_exact", "must be true or false", {"true", "false"}, {"0", "1", "\"true\"", "[]"}},
    {"source", NAME_SENTENCE, NAMES, NO_NAMES},
    {"kind", NAME_SENTENCE, NAMES, NO_NAMES},
    {"tool", "must be a string", TEXTS, NO_TEXTS},
    {"tool_call_id", "must be a string", TEXTS, NO_TEXTS},
    {"stop_reason", "must be a string", TEXTS, NO_TEXTS},
    {"tokens_in", U32_SENTENCE, U32_GOOD, U32_BAD},
    {"tokens_out", U32_SENTENCE, U32_GOOD, U32_BAD},
    {"reasoning_tokens", U32_SENTENCE, U32_GOOD, U32_BAD},
    {"latency_ms", U32_SENTENCE, U32_GOOD, U32_BAD},
    {"ttft_ms", U32_SENTENCE, U32_GOOD, U32_BAD},
    {"context_used_tokens", U32_SENTENCE, U32_GOOD, U32_BAD},
    {"context_max_tokens", U32_SENTENCE, U32_GOOD, U32_BAD},
    {"cache_creation_tokens", U32_SENTENCE, U32_GOOD, U32_BAD},
    {"cache_read_tokens", U32_SENTENCE, U32_GOOD, U32_BAD},
    {"system_prompt_tokens", U32_SENTENCE, U32_GOOD, U32_BAD},
    {"cost_usd_e6",
     "must be an integer from -9223372036854775808 to 9223372036854775807",
     {"0", "-0", "-12", "9223372036854775807", "-9223372036854775808"},
     {"9223372036854775808", "-9223372036854775809", "1.5", "\"1\"", "1e2"}},
    {"retry_count",
     "must be an integer from 0 to 65535",
     {"0", "65535"},
     {"-1", "65536", "4294967296", "1.0", "\"\""}},
    {"payload", NULL, {"0", "-1.5e9", "\"\"", "true", "[]", "{\"a\":{\"seq\":\"x\"}}"}, {NULL}},
};
#define FIELDS (sizeof fields / sizeof *fields)

/* The name with its n-th character as an escape. */
static inline void escaped_name(char *out, size_t size, const char *name, size_t n)
{
    snprintf(out, size, "%.*s\\u%04x%s", (int)n, name, (unsigned)name[n], name + n + 1);
}

/* A line of standard fields, right ones and null ones, and others, in any order, none twice. */
static inline void make_line(struct make *text, struct chance *chance)
{
    bool used[FIELDS] = {false}, any = false;
    make_clear(text);
    make_text(text, "{");
    make_space(text, chance);
    for (size_t n = chance_below(chance, 12); n > 0; n--) {
        size_t i = chance_below(chance, chance_one_in(chance, 2) ? 6 : FIELDS), good = 0;
        char name[40];
        if (any)
            make_text(text, ",");
        any = true;
        make_space(text, chance);
        if (used[i]) {
            make_text(text, "\"other\"");
            make_space(text, chance);
            make_text(text, ":");
            make_value(text, chance, 3);
            continue;
        }
        used[i] = true;
        snprintf(name, sizeof name, "%s", fields[i].name);
        if (chance_one_in(chance, 8))
            escaped_name(name, sizeof name, fields[i].name,
                         chance_below(chance, strlen(fields[i].name)));
        make_text(text, "\"");
        make_text(text, name);
        make_text(text, "\"");
        make_space(text, chance);
        make_text(text, ":");
        make_space(text, chance);
        while (fields[i].good[good] && good < 7)
            good++;
        make_text(text,
                  chance_one_in(chance, 3) ? "null" : fields[i].good[chance_below(chance, good)]);
    }
    if (chance_one_in(chance, 4)) {
        if (any)
            make_text(text, ",");
        make_text(text, "\"op\":\"set\",\"value\":[1],\"key\":\"k\"");
    }
    make_text(text, "}");
    for (size_t i = 0; i < text->len; i++) /* a line has no newline in it */
        if (text->text[i] == '\n')
            text->text[i] = '\t';
}

/* What line_piece_check() says of a line that comes in one piece. */
static inline int whole_check(const char *text, size_t len, uint64_t max_record,
                              struct hl_error *err)
{
    struct json_progress progress = {0};
    return line_piece_check(&progress, text, len, max_record, err);
}

#endif
