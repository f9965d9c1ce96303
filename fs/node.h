/*
 * node.h - node ids and what they name; file names and what they stand for. Pure functions.
 *
 * Node ids are computed, so that names that were only listed cost no memory:
 *
 *     63..60 kind | 59..36 session number | 35..0 seq, or which file
 *
 *     kind 0   a fixed node of the mount: its number (root is 1, as the kernel has it)
 *     kind 1   a session's directory or one of its fixed files
 *     kind 2   a record
 *     kind 3   a document in state/, by its number
 *     kind 4   a key's history (the document's number)
 *     kind 5   an archive (the number of its entry)
 *     kind 6   an archived document (its number)
 *     kind 15  an entry of the table (table.h), for what does not fit above, for ranges and `at/`
 *
 * In kinds 0 and 1 the low 8 bits say which, and the 28 above them are the generation of a `log`,
 * which becomes another inode when records of it were dropped (dropped.h), or of `.ctl`, which is
 * another one at each look-up (ctl_generation()). A history of which something was dropped is in
 * the table. Kinds 7 to 14 are free.
 */
#ifndef HL_NODE_H
#define HL_NODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../store/store.h"

#define NODE_ROOT_ID UINT64_C(1)
#define NODE_NAME_MAX 255                             /* bytes of a file name */
#define NODE_GENERATION_MAX ((UINT32_C(1) << 28) - 1) /* of those that have a place in an id */

/* The values of kinds 0 and 1 stand in node ids: they must not change while a mount lives. */
enum node_kind {
    NODE_NONE = 0,
    NODE_ROOT = 1,
    NODE_CTL = 2,
    NODE_STATUS = 3,
    NODE_ROOT_APPEND = 4,
    NODE_ROOT_LOG = 5,
    NODE_SESSIONS = 6,
    NODE_METRICS = 7,
    NODE_SESSION = 16, /* from here on each belongs to a session */
    NODE_APPEND = 17,
    NODE_LOG = 18,
    NODE_META = 19,
    NODE_LAST_ERROR = 20,
    NODE_FOLLOW = 21, /* not listed */
    NODE_STATE = 22,
    NODE_HISTORY = 23,
    NODE_ARCHIVES = 24,
    NODE_AT = 25, /* not listed */
    NODE_RECORD = 64,
    NODE_RANGE = 65,
    NODE_DOCUMENT = 66, /* in state/, also after its deletion */
    NODE_ARCHIVE = 67,
    NODE_ARCHIVED = 68,
    NODE_HISTORY_KEY = 69,
    NODE_AT_SEQ = 70,
    NODE_AT_KEY = 71,
    NODE_SCRATCH = 72 /* a file in memory: scratch, or a document not set yet (draft.h) */
};

struct node {
    enum node_kind kind;
    uint32_t session; /* its number; 0 for what belongs to none */
    uint64_t a;       /* a record's seq, or that of `at/SEQ` and what is in it; a range's first; a
                         document's, archive's or scratch file's number */
    uint64_t b;       /* a range's last, HL_SEQ_MAX and `open` if it has no end; the number of a
                         document in `at/SEQ` */
    bool open;        /* the range is written `A-` */
    uint32_t generation; /* of what node_has_generation() and of .ctl, else 0 */
};

/* Whether it shows records one after another, and so becomes another inode when some of them are
 * dropped: a log, a range, a history. */
bool node_has_generation(enum node_kind kind);

bool node_equal(const struct node *x, const struct node *y);

/* Whether the node's id can be computed; if so *id is it. */
bool node_to_id(const struct node *node, uint64_t *id);

/* Whether id is a computed one that names something; if so *node is that. */
bool node_from_id(uint64_t id, struct node *node);

/* Whether id is one of the table's, and the id of the table's entry of that number (below 2^60). */
bool node_id_in_table(uint64_t id);
uint64_t node_table_id(uint64_t number);

/*
 * The inode number that stat and readdir show: the computed id, or, for what is in the table, a
 * hash of what it names that looks like a table's id. So it is the same whether the kernel was
 * given an id or not. That of `.ctl` is always the same.
 */
uint64_t node_inode(const struct node *node);

/* Name and kind of the fixed entries of a directory, in the order in which they are listed. */
struct node_entry {
    const char *name;
    enum node_kind kind;
};
/* The entries of NODE_ROOT or NODE_SESSION; *count is 0 for any other kind. */
const struct node_entry *node_entries(enum node_kind directory, size_t *count);

/* ---- names ------------------------------------------------------------------------------------
 */

/*
 * Writes the file name of a session id or of a document's key: `/`, `%`, control bytes
 * (0x00 to 0x1f and 0x7f) as %XX with upper-case digits, and the dots of `.` and `..` too.
 * NUL-terminated. Returns its length, or 0 if it would be longer than NODE_NAME_MAX (or len is 0).
 */
size_t name_encode(const char *id, size_t len, char name[NODE_NAME_MAX + 1]);

/*
 * The bytes that a file name stands for. 0, or -ENAMETOOLONG, or -EINVAL when the name is not in
 * the one form that name_encode() gives. Says nothing of UTF-8.
 */
int name_decode(const char *name, char id[HL_ID_MAX + 1], size_t *len);

/* A seq in plain decimal without leading zeros, at most HL_SEQ_MAX. */
bool name_seq(const char *name, uint64_t *seq);

/* `A-B` with A <= B, or `A-`; sets a, b and open of *node. */
bool name_range(const char *name, struct node *node);

#endif
