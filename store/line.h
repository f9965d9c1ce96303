/*
 * line.h - a line as a writer gives it, and the line as it is stored (design.md, section 2).
 *
 * line_parse() checks a line and notes which standard fields it lacks; line_stamp() writes the
 * stored form: the writer's bytes with the missing fields in front. A standard field whose value is
 * null counts as absent: its value is then filled in where it stands, or the stored line would hold
 * the name twice. A stored line, parsed and stamped again, comes out as it was.
 *
 * Sentences count bytes of the line from 1.
 */
#ifndef HL_LINE_H
#define HL_LINE_H

#include "json.h"
#include "operation.h"
#include "store.h"
#include "sums.h"

/* More than line_stamp() puts in front of a line whose session id is the longest. */
#define LINE_STAMP_ROOM 2048U

/* More than the names of all stamped fields, and their values but for the id. */
#define LINE_FRONT_ROOM 256U

enum line_kind { LINE_EVENT, LINE_OPERATION, LINE_TEXT };

/* The fields that are stamped, in the order in which they are. */
enum line_field {
    LINE_SESSION_ID,
    LINE_SEQ,
    LINE_TS_MS,
    LINE_TS_EXACT,
    LINE_SOURCE,   /* events only */
    LINE_KIND,     /* events only */
    LINE_PREV_SEQ, /* operations on one key only; null is a value of these two */
    LINE_PREV_OP,  /* operations only */
    LINE_FIELDS
};

/* A parsed line; spans point into the writer's bytes, which must outlive it. */
struct line {
    struct json_span text; /* without its newline */
    enum line_kind kind;
    uint8_t given;                 /* bit (1 << enum line_field): present and not null */
    uint8_t nulls;                 /* likewise: present, and null that is to be filled in */
    uint32_t null_at[LINE_FIELDS]; /* where in the text the bytes "null" of these stand */
    struct json_span session_id;   /* inside its quotes, escaped as written; if given */
    bool session_id_escaped;
    uint64_t seq;   /* if given */
    uint64_t ts_ms; /* if given, or dated */
    bool dated; /* an operation that tells its time in another field: ts_ms is stamped from it */
    struct line_usage usage; /* of events; its ts_ms is left to the caller */
};

/*
 * Checks one line (no newline in it, at least one byte). A line that begins with '{' is JSON, an
 * operation if it has a non-null "op"; any other is text. Returns 0, or -EINVAL / -EMSGSIZE with
 * err->text saying why (err->line is left to the caller). max_record bounds the writer's line; one
 * that is stamped already may be longer by LINE_STAMP_ROOM, so that every log can be read back in.
 */
int line_parse(const char *text, size_t len, uint64_t max_record, struct line *line,
               struct hl_error *err);

/* Whether the text begins with '{' and is one complete JSON object. */
bool line_is_object(const char *text, size_t len);

/*
 * Whether the beginning of a line that comes in pieces can still become a line that is taken, as
 * far as its bytes and its length say: 0, or -EINVAL / -EMSGSIZE with err saying why. text is all
 * that there is of it so far; what was looked at in earlier calls is not looked at again. *progress
 * is zeroed for a new line.
 */
int line_piece_check(struct json_progress *progress, const char *text, size_t len,
                     uint64_t max_record, struct hl_error *err);

/*
 * The first session_id of a line that may be damaged or cut behind it: inside its quotes, escaped
 * as written. False: there is none, or it is no string.
 */
bool line_session_id(const char *text, size_t len, struct json_span *id);

/*
 * What was stamped in front of an event, for the next one that lacks the same fields: alike but for
 * the seq. `lacks` is zeroed to begin.
 */
struct line_front {
    unsigned lacks;        /* these fields stand in it; 0: nothing is kept yet */
    size_t before, behind; /* bytes in front of the seq, and behind it */
    char text[JSON_ESCAPE_MAX(HL_ID_MAX) + LINE_FRONT_ROOM]; /* both */
};

/* What the store gives a line. id is the session's id as a JSON string, quotes included. */
struct line_stamp {
    const char *id_json;
    size_t id_json_len;
    uint64_t seq;
    uint64_t ts_ms;                          /* used if the line gives none */
    struct operation_link prev_seq, prev_op; /* of operations */
    struct line_front *front; /* NULL, or of stamps that differ from this one in seq alone */
};

/* An upper bound of what line_stamp() writes, newline included. */
size_t line_stamp_bound(const struct line *line, size_t id_json_len);

/* Writes the stored line, newline included; returns its length. ts_exact is stamped true if the
 * line gives ts_ms or is dated, else false. */
size_t line_stamp(const struct line *line, const struct line_stamp *stamp, char *out);

/* Standard fields of a stored line (with or without newline), as needed by readers. Returns 0 or
 * -EINVAL when it is no JSON object; it looks no further than to the last of these fields. Missing
 * numbers are 0; spans len 0 when missing; null, or a value of the wrong type, is missing. */
struct line_fields {
    uint64_t seq, ts_ms;
    bool has_seq, has_ts_ms;
    struct json_span session_id; /* inside its quotes, escaped as written */
};
int line_read(const char *text, size_t len, struct line_fields *fields);

#endif
