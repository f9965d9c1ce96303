/*
 * node.c - node ids and what they name; file names and what they stand for.
 */
#include "node.h"

#include <errno.h>
#include <string.h>

#define KIND_SHIFT 60
#define SESSION_SHIFT 36
#define SESSION_BITS 24
#define LOW_MASK ((UINT64_C(1) << SESSION_SHIFT) - 1)
#define WHICH_BITS 8

enum id_kind {
    ID_FIXED = 0,
    ID_SESSION = 1,
    ID_RECORD = 2,
    ID_DOCUMENT = 3,
    ID_HISTORY_KEY = 4,
    ID_ARCHIVE = 5,
    ID_ARCHIVED = 6,
    ID_TABLE = 15
};

/* The kinds of which there are many in a session, each told from the others by node.a. */
static const struct {
    enum node_kind kind;
    enum id_kind id;
} numbered[] = {
    {NODE_RECORD, ID_RECORD},   {NODE_DOCUMENT, ID_DOCUMENT}, {NODE_HISTORY_KEY, ID_HISTORY_KEY},
    {NODE_ARCHIVE, ID_ARCHIVE}, {NODE_ARCHIVED, ID_ARCHIVED},
};
#define NUMBERED (sizeof numbered / sizeof *numbered)

static const struct node_entry root_entries[] = {
    {".ctl", NODE_CTL},           {".metrics", NODE_METRICS}, {".status", NODE_STATUS},
    {"append", NODE_ROOT_APPEND}, {"log", NODE_ROOT_LOG},     {"sessions", NODE_SESSIONS},
};

static const struct node_entry session_entries[] = {
    {"append", NODE_APPEND},         {"log", NODE_LOG},     {"meta", NODE_META},
    {"last_error", NODE_LAST_ERROR}, {"state", NODE_STATE}, {"history", NODE_HISTORY},
    {"archive", NODE_ARCHIVES},
};

const struct node_entry *node_entries(enum node_kind directory, size_t *count)
{
    switch (directory) {
    case NODE_ROOT:
        *count = sizeof root_entries / sizeof *root_entries;
        return root_entries;
    case NODE_SESSION:
        *count = sizeof session_entries / sizeof *session_entries;
        return session_entries;
    default:
        *count = 0;
        return NULL;
    }
}

bool node_equal(const struct node *x, const struct node *y)
{
    return x->kind == y->kind && x->session == y->session && x->a == y->a && x->b == y->b &&
           x->open == y->open && x->generation == y->generation;
}

/* ---- ids --------------------------------------------------------------------------------------
 */

static uint64_t make_id(enum id_kind kind, uint64_t session, uint64_t low)
{
    return (uint64_t)kind << KIND_SHIFT | session << SESSION_SHIFT | low;
}

static bool is_fixed(enum node_kind kind)
{
    return kind >= NODE_ROOT && kind <= NODE_SESSIONS;
}

static bool is_session_file(enum node_kind kind)
{
    return kind >= NODE_SESSION && kind <= NODE_AT;
}

bool node_has_generation(enum node_kind kind)
{
    return kind == NODE_LOG || kind == NODE_ROOT_LOG || kind == NODE_RANGE ||
           kind == NODE_HISTORY_KEY;
}

/* Those whose generation has a place in their id. */
static bool has_place(enum node_kind kind)
{
    return kind == NODE_LOG || kind == NODE_ROOT_LOG || kind == NODE_CTL;
}

bool node_to_id(const struct node *node, uint64_t *id)
{
    if (node->session >> SESSION_BITS)
        return false;
    for (size_t i = 0; i < NUMBERED; i++) {
        if (numbered[i].kind != node->kind)
            continue;
        if (node->a > LOW_MASK || node->generation != 0)
            return false;
        *id = make_id(numbered[i].id, node->session, node->a);
        return true;
    }
    if (node->generation > NODE_GENERATION_MAX ||
        !(is_fixed(node->kind) || is_session_file(node->kind)))
        return false;
    *id = make_id(is_fixed(node->kind) ? ID_FIXED : ID_SESSION, node->session,
                  (uint64_t)node->generation << WHICH_BITS | (uint64_t)node->kind);
    return true;
}

bool node_from_id(uint64_t id, struct node *node)
{
    uint64_t session = id >> SESSION_SHIFT & ((UINT64_C(1) << SESSION_BITS) - 1);
    uint64_t low = id & LOW_MASK;
    unsigned which = (unsigned)(low & ((1U << WHICH_BITS) - 1));
    enum node_kind kind = (enum node_kind)which;
    uint64_t generation = low >> WHICH_BITS;

    *node = (struct node){.session = (uint32_t)session};
    for (size_t i = 0; i < NUMBERED; i++) {
        if (numbered[i].id != id >> KIND_SHIFT)
            continue;
        node->kind = numbered[i].kind;
        node->a = low;
        return session != 0;
    }
    switch (id >> KIND_SHIFT) {
    case ID_FIXED:
        if (session != 0 || !is_fixed(kind))
            return false;
        break;
    case ID_SESSION:
        if (session == 0 || !is_session_file(kind))
            return false;
        break;
    default:
        return false;
    }
    if (generation != 0 && !has_place(kind))
        return false;
    node->kind = kind;
    node->generation = (uint32_t)generation;
    return true;
}

bool node_id_in_table(uint64_t id)
{
    return id >> KIND_SHIFT == ID_TABLE;
}

uint64_t node_table_id(uint64_t number)
{
    return (uint64_t)ID_TABLE << KIND_SHIFT | number;
}

/* One round of a 64-bit mixer: a multiplication by an odd constant, and the high bits folded down.
 */
static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 29;
}

uint64_t node_inode(const struct node *node)
{
    const struct node ctl = {.kind = NODE_CTL};
    uint64_t id;
    if (node_to_id(node->kind == NODE_CTL ? &ctl : node, &id))
        return id;
    uint64_t hash = mix(mix(mix(0, node->a), node->b), node->session);
    hash = mix(hash, (uint64_t)node->kind << 1 | node->open);
    hash = mix(hash, node->generation);
    return node_table_id(hash & ((UINT64_C(1) << KIND_SHIFT) - 1));
}

/* ---- names ------------------------------------------------------------------------------------
 */

static bool all_dots(const char *id, size_t len)
{
    return len <= 2 && id[0] == '.' && id[len - 1] == '.';
}

size_t name_encode(const char *id, size_t len, char name[NODE_NAME_MAX + 1])
{
    static const char digits[] = "0123456789ABCDEF";
    size_t out = 0;

    if (len == 0)
        return 0;
    bool dots = all_dots(id, len);
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)id[i];
        bool plain = byte >= 0x20 && byte != 0x7f && byte != '/' && byte != '%' && !dots;
        if (out + (plain ? 1 : 3) > NODE_NAME_MAX)
            return 0;
        if (plain) {
            name[out++] = id[i];
            continue;
        }
        name[out++] = '%';
        name[out++] = digits[byte >> 4];
        name[out++] = digits[byte & 15];
    }
    name[out] = '\0';
    return out;
}

/* The value of an upper-case hex digit, or -1. */
static int hex_value(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'A' && digit <= 'F')
        return digit - 'A' + 10;
    return -1;
}

int name_decode(const char *name, char id[HL_ID_MAX + 1], size_t *len)
{
    size_t name_len = strlen(name);
    size_t out = 0;

    if (name_len > NODE_NAME_MAX)
        return -ENAMETOOLONG;
    for (size_t i = 0; i < name_len; i++) {
        if (name[i] != '%') {
            id[out++] = name[i];
            continue;
        }
        /* The NUL at the end is no digit, so neither look goes past it. */
        int high = hex_value(name[i + 1]);
        int low = high < 0 ? -1 : hex_value(name[i + 2]);
        if (low < 0)
            return -EINVAL;
        id[out++] = (char)(high << 4 | low);
        i += 2;
    }
    id[out] = '\0';
    *len = out;

    char again[NODE_NAME_MAX + 1];
    size_t again_len = name_encode(id, out, again);
    if (again_len == 0 || again_len != name_len || memcmp(again, name, name_len) != 0)
        return -EINVAL;
    return 0;
}

/* Reads a decimal number at *at and moves *at behind it. */
static bool take_seq(const char **at, uint64_t *seq)
{
    const char *begin = *at;
    uint64_t value = 0;

    for (; **at >= '0' && **at <= '9'; ++*at) {
        value = value * 10 + (uint64_t)(**at - '0');
        if (value > HL_SEQ_MAX)
            return false;
    }
    if (*at == begin || (*begin == '0' && *at != begin + 1))
        return false;
    *seq = value;
    return true;
}

bool name_seq(const char *name, uint64_t *seq)
{
    return take_seq(&name, seq) && *name == '\0';
}

bool name_range(const char *name, struct node *node)
{
    uint64_t a, b;

    if (!take_seq(&name, &a) || *name++ != '-')
        return false;
    bool open = *name == '\0';
    if (open)
        b = HL_SEQ_MAX;
    else if (!take_seq(&name, &b) || *name != '\0' || b < a)
        return false;
    node->a = a;
    node->b = b;
    node->open = open;
    return true;
}
