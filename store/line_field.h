/*
 * line_field.h - the names that mean something at the top level of a line, and what their values
 * must be; shared by the line*.c files alone.
 */
#ifndef HL_LINE_FIELD_H
#define HL_LINE_FIELD_H

#include "json.h"
#include "line.h"

/* What stands for a name: its index in the table, and its bit in a set of fields. */
enum field {
    /* Those of enum line_field, in its order. */
    FIELD_SESSION_ID,
    FIELD_SEQ,
    FIELD_TS_MS,
    FIELD_TS_EXACT,
    /* Of events: in an operation they have no meaning and are not checked. */
    FIELD_SOURCE,
    FIELD_KIND,
    FIELD_TOOL,
    FIELD_TOOL_CALL_ID,
    FIELD_STOP_REASON,
    FIELD_TOKENS_IN,
    FIELD_TOKENS_OUT,
    FIELD_REASONING_TOKENS,
    FIELD_LATENCY_MS,
    FIELD_TTFT_MS,
    FIELD_CONTEXT_USED_TOKENS,
    FIELD_CONTEXT_MAX_TOKENS,
    FIELD_CACHE_CREATION_TOKENS,
    FIELD_CACHE_READ_TOKENS,
    FIELD_SYSTEM_PROMPT_TOKENS,
    FIELD_COST_USD_E6,
    FIELD_RETRY_COUNT,
    FIELD_PAYLOAD,
    FIELD_OP, /* operation.h has the rest of an operation */
    FIELD_COUNT,
    FIELD_NONE = FIELD_COUNT
};

#define FIELD_BIT(field) (UINT32_C(1) << (field))
#define FIELDS_OF_ALL (FIELD_BIT(FIELD_SOURCE) - 1)
#define FIELDS_OF_EVENTS ((FIELD_BIT(FIELD_OP) - 1) & ~FIELDS_OF_ALL)

_Static_assert((int)FIELD_SESSION_ID == LINE_SESSION_ID && (int)FIELD_SEQ == LINE_SEQ &&
                   (int)FIELD_TS_MS == LINE_TS_MS && (int)FIELD_TS_EXACT == LINE_TS_EXACT &&
                   (int)FIELD_SOURCE == LINE_SOURCE && (int)FIELD_KIND == LINE_KIND,
               "the stamped fields come first, in the order in which they are stamped");

/* The field with this key, escaped or not; FIELD_NONE if it has no meaning. */
enum field field_find(const struct json_member *member);

const char *field_name(enum field field);

/* Whether the value, which is not null, is what the field must be. */
bool field_check(enum field field, const struct json_member *member);

/* What it must be, to stand behind its name: "must be ...". */
const char *field_rule(enum field field);

/* Keeps what the field, if it is one of them, says for the sums (sums_line.c). */
void line_usage_note(struct line_usage *usage, enum field field, const struct json_member *member);

/* The bytes of a string value inside its quotes. */
static inline struct json_span field_inner(const struct json_member *member)
{
    return (struct json_span){member->value.at + 1, member->value.len - 2};
}

#endif
