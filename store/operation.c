/* operation.c - see operation.h. */
#include "operation.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum part_name {
    PART_OP,
    PART_KEY,
    PART_ID,
    PART_VALUE,
    PART_DATA,
    PART_STATE,
    PART_NAME,
    PART_KEYS,
    PART_AS,
    PART_UNDONE_SEQ,
    PART_PREV_SEQ,
    PART_PREV_OP,
    PART_TS,
    PART_TIMESTAMP,
    PART_MOVED_TO,
    PARTS
};

static const char *const part_names[PARTS] = {
    "op", "key",        "id",       "value",   "data", "state",     "name",    "keys",
    "as", "undone_seq", "prev_seq", "prev_op", "ts",   "timestamp", "moved_to"};
#define PART_NAME_MAX sizeof "undone_seq"

static const char *const kind_names[OPERATION_KINDS][2] = {
    {"set", "SET"},   {"delete", "DELETE"},   {"checkpoint", "CHECKPOINT"},
    {"undo", "UNDO"}, {"archive", "ARCHIVE"}, {"restore", "RESTORE"}};

struct part {
    bool seen;
    struct json_span value;
    enum json_type type;
};

struct parsing {
    struct part parts[PARTS];
    const char *twice; /* the name of a part that is there twice */
};

static bool take_member(void *context, const struct json_member *member)
{
    struct parsing *parsing = context;
    char plain[PART_NAME_MAX];
    const char *key = member->key.at;
    size_t len = member->key.len;
    if (member->key_escaped) {
        len = json_unescape(key, len, plain, sizeof plain);
        key = plain;
    }
    if (len >= PART_NAME_MAX)
        return true;
    for (int i = 0; i < PARTS; i++) {
        if (strlen(part_names[i]) != len || memcmp(part_names[i], key, len) != 0)
            continue;
        struct part *part = &parsing->parts[i];
        if (part->seen && !parsing->twice)
            parsing->twice = part_names[i];
        *part = (struct part){.seen = true, .value = member->value, .type = member->type};
        break;
    }
    return true;
}

static struct json_span inner(const struct part *part)
{
    return (struct json_span){part->value.at + 1, part->value.len - 2};
}

/* Of two names for one thing, the one that is there and not null; NULL if neither is. */
static const struct part *either(const struct parsing *parsing, enum part_name first,
                                 enum part_name second)
{
    const struct part *one = &parsing->parts[first], *other = &parsing->parts[second];
    if (one->seen && one->type != JSON_NULL)
        return one;
    return other->seen && other->type != JSON_NULL ? other : NULL;
}

static const char *name_of(const struct parsing *parsing, const struct part *part)
{
    return part_names[part - parsing->parts];
}

/* ---- keys ---- */

static int take_key(const char *what, struct json_span text, char key[HL_KEY_MAX], size_t *len,
                    struct hl_error *err)
{
    size_t n = json_unescape(text.at, text.len, key, HL_KEY_MAX);
    if (n == SIZE_MAX || !hl_session_id_valid(key, n))
        return hl_fail(err, EINVAL,
                       "%s must be a string of 1 to %d bytes (counted as in a file name) without a "
                       "NUL",
                       what, HL_KEY_MAX);
    *len = n;
    return 0;
}

static int parse_key(const struct parsing *parsing, const struct part *part, const char *wanted,
                     struct operation *operation, struct hl_error *err)
{
    if (!part)
        return hl_fail(err, EINVAL, "the operation \"%s\" needs a \"%s\"",
                       kind_names[operation->kind][0], wanted);
    char what[PART_NAME_MAX + 2];
    snprintf(what, sizeof what, "\"%s\"", name_of(parsing, part));
    struct json_span text = part->type == JSON_STRING ? inner(part) : (struct json_span){"", 0};
    return take_key(what, text, operation->key, &operation->key_len, err);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* The next element of an array that is JSON: a string's bytes inside its quotes. 1, 0 at the end,
 * -EINVAL if it is no string. */
static int next_string(struct json_span array, size_t *at, struct json_span *string)
{
    const char *p = array.at + (*at ? *at : 1), *end = array.at + array.len - 1;
    while (p < end && (is_space(*p) || *p == ','))
        p++;
    if (p >= end)
        return 0;
    if (*p != '"')
        return -EINVAL;
    const char *begin = ++p;
    while (p < end && *p != '"')
        p += *p == '\\' ? 2 : 1;
    *string = (struct json_span){begin, (size_t)(p - begin)};
    *at = (size_t)(p + 1 - array.at);
    return 1;
}

bool operation_next_key(struct json_span array, size_t *at, char key[HL_KEY_MAX], size_t *len)
{
    struct json_span string;
    if (array.len == 0 || next_string(array, at, &string) != 1)
        return false;
    *len = json_unescape(string.at, string.len, key, HL_KEY_MAX);
    return *len != SIZE_MAX;
}

/* An array of valid keys; *count: how many. */
static int parse_keys(const struct part *part, const char *name, struct json_span *keys,
                      size_t *count, struct hl_error *err)
{
    char key[HL_KEY_MAX];
    struct json_span string;
    size_t at = 0, len;
    int found;
    *count = 0;
    if (part->type != JSON_ARRAY)
        return hl_fail(err, EINVAL, "\"%s\" must be an array of strings", name);
    while ((found = next_string(part->value, &at, &string)) == 1) {
        int error = take_key("each key", string, key, &len, err);
        if (error < 0)
            return error;
        ++*count;
    }
    if (found < 0)
        return hl_fail(err, EINVAL, "\"%s\" must be an array of strings", name);
    *keys = part->value;
    return 0;
}

static bool check_state_key(void *context, const struct json_member *member)
{
    char key[HL_KEY_MAX];
    size_t len;
    struct hl_error *err = context;
    return take_key("each key of the state", member->key, key, &len, err) == 0;
}

/* ---- kinds ---- */

static int parse_state(const struct parsing *parsing, struct operation *operation,
                       struct hl_error *err)
{
    const struct part *state = either(parsing, PART_STATE, PART_DATA);
    struct hl_error why = {0};
    if (!state)
        return hl_fail(err, EINVAL, "the operation \"checkpoint\" needs a \"state\"");
    if (state->type != JSON_OBJECT)
        return hl_fail(err, EINVAL, "\"%s\" of a checkpoint must be an object",
                       name_of(parsing, state));
    operation->kind = OPERATION_CHECKPOINT;
    operation->value = state->value;
    if (json_scan_object(state->value.at, state->value.len, check_state_key, &why, NULL) ==
        JSON_STOPPED)
        return hl_fail(err, EINVAL, "%s", why.text);
    return 0;
}

static int parse_set(const struct parsing *parsing, struct operation *operation,
                     struct hl_error *err)
{
    const struct part *key = either(parsing, PART_KEY, PART_ID);
    const struct part *value = &parsing->parts[PART_VALUE];
    if (!value->seen)
        value = &parsing->parts[PART_DATA];
    if (!value->seen) /* null is a value */
        return hl_fail(err, EINVAL, "the operation \"set\" needs a \"value\"");
    if (!key && value == &parsing->parts[PART_DATA] && value->type == JSON_OBJECT)
        return parse_state(parsing, operation, err);
    operation->value = value->value;
    return parse_key(parsing, key, "key", operation, err);
}

static int parse_move(const struct parsing *parsing, struct operation *operation,
                      struct hl_error *err)
{
    size_t count, others;
    const struct part *name = either(parsing, PART_NAME, PART_NAME);
    const struct part *keys = either(parsing, PART_KEYS, PART_KEYS);
    const struct part *as = either(parsing, PART_AS, PART_AS);
    int error = parse_key(parsing, name, "name", operation, err);
    if (error < 0)
        return error;
    if (!keys)
        return hl_fail(err, EINVAL, "the operation \"%s\" needs \"keys\"",
                       kind_names[operation->kind][0]);
    error = parse_keys(keys, "keys", &operation->keys, &count, err);
    if (error < 0 || !as)
        return error;
    error = parse_keys(as, "as", &operation->as, &others, err);
    if (error == 0 && others != count)
        return hl_fail(err, EINVAL, "\"as\" must have as many keys as \"keys\"");
    return error;
}

static int parse_kind(const struct parsing *parsing, struct operation *operation,
                      struct hl_error *err)
{
    const struct part *undone = either(parsing, PART_UNDONE_SEQ, PART_UNDONE_SEQ);
    switch (operation->kind) {
    case OPERATION_SET:
        return parse_set(parsing, operation, err);
    case OPERATION_DELETE:
        operation->moved = either(parsing, PART_MOVED_TO, PART_MOVED_TO) != NULL;
        return parse_key(parsing, either(parsing, PART_KEY, PART_ID), "key", operation, err);
    case OPERATION_CHECKPOINT:
        return parse_state(parsing, operation, err);
    case OPERATION_UNDO:
        operation->has_undone = undone != NULL;
        if (undone && !json_to_u64(undone->value, HL_SEQ_MAX, &operation->undone_seq))
            return hl_fail(err, EINVAL, "\"undone_seq\" must be the seq of an operation");
        return 0;
    case OPERATION_ARCHIVE:
    case OPERATION_RESTORE:
        return parse_move(parsing, operation, err);
    default:
        return hl_fail(err, EINVAL,
                       "\"op\" must be set, delete, checkpoint, undo, archive or restore");
    }
}

static int parse_link(const struct parsing *parsing, enum part_name name,
                      struct operation_link *link, struct hl_error *err)
{
    const struct part *part = &parsing->parts[name];
    *link = (struct operation_link){.given = part->seen};
    if (!part->seen || part->type == JSON_NULL)
        return 0;
    link->set = true;
    if (part->type != JSON_NUMBER || !json_to_u64(part->value, HL_SEQ_MAX, &link->seq))
        return hl_fail(err, EINVAL, "\"%s\" must be a seq or null", part_names[name]);
    return 0;
}

int operation_parse(const char *text, size_t len, struct operation *operation, struct hl_error *err)
{
    struct parsing parsing;
    memset(&parsing, 0, sizeof parsing);
    *operation = (struct operation){.kind = OPERATION_KINDS};
    if (json_scan_object(text, len, take_member, &parsing, NULL) != JSON_OK)
        return hl_fail(err, EINVAL, "not JSON");
    const struct part *op = &parsing.parts[PART_OP];
    if (!op->seen || op->type != JSON_STRING)
        return hl_fail(err, EINVAL, "\"op\" must be a string");
    if (parsing.twice)
        return hl_fail(err, EINVAL, "\"%s\" is given twice", parsing.twice);
    int kind = 0;
    while (kind < OPERATION_KINDS &&
           !json_string_equals(inner(op).at, inner(op).len, kind_names[kind][0],
                               strlen(kind_names[kind][0])) &&
           !json_string_equals(inner(op).at, inner(op).len, kind_names[kind][1],
                               strlen(kind_names[kind][1])))
        kind++;
    operation->kind = (enum operation_kind)kind;
    int error = parse_kind(&parsing, operation, err);
    if (error == 0)
        error = parse_link(&parsing, PART_PREV_SEQ, &operation->prev_seq, err);
    if (error == 0)
        error = parse_link(&parsing, PART_PREV_OP, &operation->prev_op, err);
    const struct part *date = either(&parsing, PART_TS, PART_TIMESTAMP);
    if (error == 0 && date && date->type == JSON_STRING)
        operation->has_date = operation_date(inner(date).at, inner(date).len, &operation->date_ms);
    return error;
}

bool operation_has_key(enum operation_kind kind)
{
    return kind == OPERATION_SET || kind == OPERATION_DELETE;
}

/* ---- dates ---- */

/* Reads exactly that many digits. */
static bool digits(const char **p, const char *end, int count, int *number)
{
    *number = 0;
    for (; count > 0; count--, ++*p) {
        if (*p == end || **p < '0' || **p > '9')
            return false;
        *number = *number * 10 + (**p - '0');
    }
    return true;
}

static bool literal(const char **p, const char *end, char one, char other)
{
    if (*p == end || (**p != one && **p != other))
        return false;
    ++*p;
    return true;
}

/* Milliseconds of a fraction, if there is one; further digits are passed over. */
static bool fraction(const char **p, const char *end, int *ms)
{
    *ms = 0;
    if (!literal(p, end, '.', ','))
        return true;
    int scale = 100, digit;
    const char *begin = *p;
    while (*p < end && digits(p, end, 1, &digit)) {
        *ms += digit * scale;
        scale /= 10;
    }
    return *p > begin;
}

bool operation_date(const char *text, size_t len, uint64_t *ms)
{
    const char *p = text, *end = text + len;
    struct tm tm = {0};
    int year, month, milliseconds, hours = 0, minutes = 0;
    if (!digits(&p, end, 4, &year) || !literal(&p, end, '-', '-') || !digits(&p, end, 2, &month) ||
        !literal(&p, end, '-', '-') || !digits(&p, end, 2, &tm.tm_mday))
        return false;
    if (p == end || (*p != 'T' && *p != 't' && *p != ' '))
        return false;
    p++;
    if (!digits(&p, end, 2, &tm.tm_hour) || !literal(&p, end, ':', ':') ||
        !digits(&p, end, 2, &tm.tm_min) || !literal(&p, end, ':', ':') ||
        !digits(&p, end, 2, &tm.tm_sec) || !fraction(&p, end, &milliseconds))
        return false;
    int sign = 0;
    if (p < end && (*p == '+' || *p == '-'))
        sign = *p++ == '+' ? 1 : -1;
    else if (!literal(&p, end, 'Z', 'z'))
        return false;
    if (sign && (!digits(&p, end, 2, &hours) || !literal(&p, end, ':', ':') ||
                 !digits(&p, end, 2, &minutes)))
        return false;
    tm.tm_year = year - 1900;
    tm.tm_mon = month - 1;
    struct tm asked = tm;
    bool plausible = month >= 1 && month <= 12 && tm.tm_hour < 24 && tm.tm_min < 60 &&
                     tm.tm_sec <= 60 && hours < 24 && minutes < 60 && p == end;
    if (!plausible)
        return false;
    time_t seconds = timegm(&tm);
    if (asked.tm_sec < 60 && (tm.tm_mday != asked.tm_mday || tm.tm_mon != asked.tm_mon))
        return false; /* no such day */
    seconds -= sign * (hours * 3600 + minutes * 60);
    if (seconds < 0)
        return false;
    *ms = (uint64_t)seconds * 1000 + (uint64_t)milliseconds;
    return true;
}
