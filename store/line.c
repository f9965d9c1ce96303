/*
 * line.c - checking a line; the contract is in line.h.
 *
 * Whether a line is an event or an operation is known only when all of it was seen. So the scan
 * just notes, in sets of fields, what it met and what was wrong with it; the verdict comes after
 * it.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "line.h"
#include "line_field.h"
#include "operation.h"

struct parse {
    struct line *line;
    uint32_t seen, twice, null, wrong; /* sets of fields */
};

/* ---- sentences ---- */

static int not_json(struct hl_error *err, enum json_result result, const struct json_error *fault)
{
    if (result == JSON_UNFINISHED)
        return hl_fail(err, EINVAL, "not JSON: %s", fault->reason);
    return hl_fail(err, EINVAL, "not JSON at byte %zu: %s", fault->offset + 1, fault->reason);
}

static int too_long(struct hl_error *err, size_t len, uint64_t max_record)
{
    return hl_fail(err, EMSGSIZE, "the line has %zu bytes or more, and max_record is %" PRIu64, len,
                   max_record);
}

static int not_utf8(struct hl_error *err, size_t offset)
{
    return hl_fail(err, EINVAL, "not UTF-8 at byte %zu", offset + 1);
}

/* The first field of a set, which is not empty. */
static enum field first_of(uint32_t fields)
{
    return (enum field)__builtin_ctz(fields);
}

/* ---- lines ---- */

/* Keeps the value of a stamped field, which is right. */
static inline void note_stamped(struct line *line, enum field field,
                                const struct json_member *member)
{
    line->given |= (uint8_t)(1U << field);
    if (field == FIELD_SESSION_ID) {
        line->session_id = field_inner(member);
        line->session_id_escaped = member->value_escaped;
    } else if (field == FIELD_SEQ) {
        json_to_u64(member->value, HL_SEQ_MAX, &line->seq);
    } else if (field == FIELD_TS_MS) {
        json_to_u64(member->value, UINT64_MAX, &line->ts_ms);
    }
}

static bool parse_member(void *context, const struct json_member *member)
{
    struct parse *parse = context;
    enum field field = field_find(member);
    if (field == FIELD_NONE)
        return true;
    uint32_t bit = FIELD_BIT(field);
    parse->twice |= parse->seen & bit;
    parse->seen |= bit;
    if (member->type == JSON_NULL) {
        parse->null |= bit;
        if (field <= FIELD_KIND) {
            parse->line->nulls |= (uint8_t)(1U << field);
            parse->line->null_at[field] = (uint32_t)(member->value.at - parse->line->text.at);
        }
        return true;
    }
    if (!field_check(field, member)) {
        parse->wrong |= bit;
        return true;
    }
    if (field <= FIELD_KIND)
        note_stamped(parse->line, field, member);
    if (field >= FIELD_KIND)
        line_usage_note(&parse->line->usage, field, member);
    return true;
}

/* What of an operation its stamp depends on; the fold looks at the rest. */
static int parse_operation(struct line *line, struct hl_error *err)
{
    struct operation operation;
    int error = operation_parse(line->text.at, line->text.len, &operation, err);
    if (error < 0)
        return error;
    if (operation.prev_seq.given || !operation_has_key(operation.kind))
        line->given |= 1U << LINE_PREV_SEQ;
    if (operation.prev_op.given)
        line->given |= 1U << LINE_PREV_OP;
    if (!(line->given & 1U << LINE_TS_MS) && operation.has_date) {
        line->dated = true;
        line->ts_ms = operation.date_ms;
    }
    return 0;
}

static int parse_json(struct line *line, struct hl_error *err)
{
    struct parse parse;
    parse.line = line;
    parse.seen = parse.twice = parse.null = parse.wrong = 0;
    struct json_error fault;
    enum json_result result =
        json_scan_object(line->text.at, line->text.len, parse_member, &parse, &fault);
    if (result != JSON_OK)
        return not_json(err, result, &fault);

    uint32_t twice = parse.twice, wrong = parse.wrong;
    bool operation = (parse.seen & ~parse.null & FIELD_BIT(FIELD_OP)) != 0;
    if (operation)
        wrong &= ~FIELDS_OF_EVENTS;
    if (twice != 0)
        return hl_fail(err, EINVAL, "\"%s\" is given twice", field_name(first_of(twice)));
    if (wrong != 0)
        return hl_fail(err, EINVAL, "\"%s\" %s", field_name(first_of(wrong)),
                       field_rule(first_of(wrong)));
    line->kind = operation ? LINE_OPERATION : LINE_EVENT;
    if (!operation)
        return 0;
    line->nulls &= (uint8_t) ~(1U << LINE_SOURCE | 1U << LINE_KIND); /* nothing to be filled in */
    return parse_operation(line, err);
}

/* Only what is JSON can be a stored line, and longer than max_record by its stamp. */
static int check_length(const char *text, size_t len, uint64_t max_record, struct hl_error *err)
{
    bool json = len > 0 && text[0] == '{';
    if (len > max_record + (json ? LINE_STAMP_ROOM : 0))
        return too_long(err, len, max_record);
    return 0;
}

static bool is_stamped(const struct line *line)
{
    const unsigned stamp =
        1U << LINE_SESSION_ID | 1U << LINE_SEQ | 1U << LINE_TS_MS | 1U << LINE_TS_EXACT;
    return (line->given & stamp) == stamp;
}

int line_parse(const char *text, size_t len, uint64_t max_record, struct line *line,
               struct hl_error *err)
{
    size_t bad;
    int error = check_length(text, len, max_record, err);
    if (error < 0)
        return error;
    *line = (struct line){.text = {text, len}, .kind = LINE_TEXT};
    if (len > 0 && text[0] == '{') {
        error = parse_json(line, err);
        if (error == 0 && len > max_record && !is_stamped(line))
            error = too_long(err, len, max_record);
        return error;
    }
    return json_utf8_valid(text, len, &bad) ? 0 : not_utf8(err, bad);
}

bool line_is_object(const char *text, size_t len)
{
    return len > 0 && text[0] == '{' && json_scan_object(text, len, NULL, NULL, NULL) == JSON_OK;
}

int line_piece_check(struct json_progress *progress, const char *text, size_t len,
                     uint64_t max_record, struct hl_error *err)
{
    int error = check_length(text, len, max_record, err);
    if (error < 0 || len == 0)
        return error;
    if (text[0] == '{') {
        struct json_error fault;
        enum json_result result = json_scan_more(progress, text, len, &fault);
        return result == JSON_INVALID ? not_json(err, result, &fault) : 0;
    }
    size_t bad = len - progress->at;
    enum json_result result = json_scan_utf8(text + progress->at, len - progress->at, &bad);
    if (result == JSON_INVALID)
        return not_utf8(err, progress->at + bad);
    progress->at += bad;
    return 0;
}

static bool find_session_id(void *context, const struct json_member *member)
{
    struct json_span *id = context;

    if (field_find(member) != FIELD_SESSION_ID)
        return true;
    if (field_check(FIELD_SESSION_ID, member))
        *id = field_inner(member);
    return false;
}

bool line_session_id(const char *text, size_t len, struct json_span *id)
{
    *id = (struct json_span){NULL, 0};
    json_scan_object(text, len, find_session_id, id, NULL);
    return id->at != NULL;
}

/* ---- stored lines ---- */

#define WANTED (FIELD_BIT(FIELD_SESSION_ID) | FIELD_BIT(FIELD_SEQ) | FIELD_BIT(FIELD_TS_MS))

struct reading {
    struct line_fields *fields;
    uint32_t found;
};

static bool read_member(void *context, const struct json_member *member)
{
    struct reading *reading = context;
    struct line_fields *fields = reading->fields;
    enum field field = field_find(member);
    if (field > FIELD_TS_MS || !field_check(field, member))
        return true;
    if (field == FIELD_SESSION_ID)
        fields->session_id = field_inner(member);
    else if (field == FIELD_SEQ)
        fields->has_seq = json_to_u64(member->value, HL_SEQ_MAX, &fields->seq);
    else
        fields->has_ts_ms = json_to_u64(member->value, UINT64_MAX, &fields->ts_ms);
    reading->found |= FIELD_BIT(field);
    return reading->found != WANTED;
}

int line_read(const char *text, size_t len, struct line_fields *fields)
{
    *fields = (struct line_fields){0};
    struct reading reading = {.fields = fields};
    enum json_result result = json_scan_object(text, len, read_member, &reading, NULL);
    return result == JSON_OK || result == JSON_STOPPED ? 0 : -EINVAL;
}
