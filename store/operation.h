/*
 * operation.h - what a line with "op" asks for (design.md, section 4).
 *
 * Fields, with the names that other systems give them:
 *   set         "key" or "id", "value" or "data"
 *   delete      "key" or "id", "moved_to" if the document was renamed
 *   checkpoint  "state" or "data": an object; so is a set of "data" that names no key
 *   undo        "undone_seq"
 *   archive, restore   "name", "keys": the documents to move, "as": their names where they go
 * "prev_seq" and "prev_op" are kept as a writer gave them, null included. "ts" or "timestamp", a
 * date and time of RFC 3339, stands for ts_ms where that is missing.
 */
#ifndef HL_OPERATION_H
#define HL_OPERATION_H

#include "json.h"
#include "store.h"

enum operation_kind {
    OPERATION_SET,
    OPERATION_DELETE,
    OPERATION_CHECKPOINT,
    OPERATION_UNDO,
    OPERATION_ARCHIVE,
    OPERATION_RESTORE,
    OPERATION_KINDS
};

/* A link to an earlier operation. */
struct operation_link {
    bool given; /* the field is there */
    bool set;   /* and is not null */
    uint64_t seq;
};

/* Spans point into the text that was parsed. */
struct operation {
    enum operation_kind kind;
    char key[HL_KEY_MAX]; /* archive, restore: the archive's name */
    size_t key_len;
    struct json_span value; /* set: any value; checkpoint: an object */
    struct json_span keys;  /* an array of strings; len 0: none */
    struct json_span as;    /* likewise, with as many */
    bool moved;             /* delete: "moved_to" says that the document got another name */
    bool has_undone;
    uint64_t undone_seq;
    struct operation_link prev_seq, prev_op;
    bool has_date;
    uint64_t date_ms;
};

/* Parses a line (with or without its newline) that was found to be a JSON object with "op". 0, or
 * -EINVAL with err saying why. */
int operation_parse(const char *text, size_t len, struct operation *operation,
                    struct hl_error *err);

/* Whether the kind touches one key, and so carries "prev_seq". */
bool operation_has_key(enum operation_kind kind);

/* The strings of an array, one after another: zero *at to begin. false at the end. The key is
 * valid: operation_parse() looked at all. */
bool operation_next_key(struct json_span array, size_t *at, char key[HL_KEY_MAX], size_t *len);

/* A date and time of RFC 3339 in ms since 1970; false: it is none, or is before that. */
bool operation_date(const char *text, size_t len, uint64_t *ms);

#endif
