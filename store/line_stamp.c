/*
 * line_stamp.c - writing the stored form of a line; the contract is in line.h.
 *
 * Every append of every writer comes through here: plain copies and a small integer formatter,
 * nothing that parses a format. What is written is never longer than line_stamp_bound() said.
 */
#include <string.h>

#include "line.h"

#define DIGITS_MAX ((size_t)20) /* of a u64 */
#define NAME_ROOM 16U           /* what is copied for a name */

/* The fields with their names, ts_exact and two numbers at their longest, commas, braces and
 * newline. */
#define FRONT_MAX                                                                          \
    (sizeof "{\"session_id\":,\"seq\":,\"ts_ms\":,\"ts_exact\":false,\"source\":\"Tail\"," \
            "\"kind\":\"Message\",\"payload\":\"prev_seq\":,\"prev_op\":,}\n" +            \
     4 * DIGITS_MAX)
/* What a constant copy may write too much, behind the last piece. */
#define SPILL_MAX DIGITS_MAX
_Static_assert(FRONT_MAX + SPILL_MAX <= LINE_FRONT_ROOM, "a front fits where it is kept");

size_t line_stamp_bound(const struct line *line, size_t id_json_len)
{
    size_t text =
        line->kind == LINE_TEXT ? json_escaped_len(line->text.at, line->text.len) : line->text.len;
    return FRONT_MAX + SPILL_MAX + id_json_len + text;
}

static inline char *put(char *out, const char *bytes, size_t len)
{
    memcpy(out, bytes, len);
    return out + len;
}

static inline size_t count_digits(uint64_t number)
{
    static const uint64_t powers[DIGITS_MAX] = {
        0,
        UINT64_C(10),
        UINT64_C(100),
        UINT64_C(1000),
        UINT64_C(10000),
        UINT64_C(100000),
        UINT64_C(1000000),
        UINT64_C(10000000),
        UINT64_C(100000000),
        UINT64_C(1000000000),
        UINT64_C(10000000000),
        UINT64_C(100000000000),
        UINT64_C(1000000000000),
        UINT64_C(10000000000000),
        UINT64_C(100000000000000),
        UINT64_C(1000000000000000),
        UINT64_C(10000000000000000),
        UINT64_C(100000000000000000),
        UINT64_C(1000000000000000000),
        UINT64_C(10000000000000000000),
    };
    /* As many as its bits have at least; perhaps one more. */
    size_t least = (64 - (size_t)__builtin_clzll(number | 1)) * 1233 >> 12;
    return least + (number >= powers[least]);
}

static char *put_u64(char *out, uint64_t number)
{
    static const char pairs[] =
        "00010203040506070809101112131415161718192021222324252627282930313233"
        "34353637383940414243444546474849505152535455565758596061626364656667"
        "6869707172737475767778798081828384858687888990919293949596979899";
    char *end = out + count_digits(number), *at = end;
    while (number >= 100) {
        at -= 2;
        memcpy(at, pairs + number % 100 * 2, 2);
        number /= 100;
    }
    if (number >= 10)
        memcpy(at - 2, pairs + number * 2, 2);
    else
        at[-1] = (char)('0' + number);
    return end;
}

#define NULL_LEN 4U /* of the word */

static char *put_link(char *out, const struct operation_link *link)
{
    return link->set ? put_u64(out, link->seq) : put(out, "null", 4);
}

static inline char *put_value(char *out, const struct line *line, const struct line_stamp *stamp,
                              enum line_field field)
{
    switch (field) {
    case LINE_SESSION_ID:
        return put(out, stamp->id_json, stamp->id_json_len);
    case LINE_SEQ:
        return put_u64(out, stamp->seq);
    case LINE_TS_MS:
        return put_u64(out, line->dated ? line->ts_ms : stamp->ts_ms);
    case LINE_TS_EXACT:
        return line->given & 1U << LINE_TS_MS || line->dated ? put(out, "true", 4)
                                                             : put(out, "false", 5);
    case LINE_SOURCE:
        return put(out, "\"Tail\"", 6);
    case LINE_KIND:
        return put(out, "\"Message\"", 9);
    case LINE_PREV_SEQ:
        return put_link(out, &stamp->prev_seq);
    case LINE_PREV_OP:
        return put_link(out, &stamp->prev_op);
    default:
        return out;
    }
}

static const struct {
    char text[NAME_ROOM];
    uint8_t len;
} names[LINE_FIELDS] = {
    [LINE_SESSION_ID] = {",\"session_id\":", 14},
    [LINE_SEQ] = {",\"seq\":", 7},
    [LINE_TS_MS] = {",\"ts_ms\":", 9},
    [LINE_TS_EXACT] = {",\"ts_exact\":", 12},
    [LINE_SOURCE] = {",\"source\":", 10},
    [LINE_KIND] = {",\"kind\":", 8},
    [LINE_PREV_SEQ] = {",\"prev_seq\":", 12},
    [LINE_PREV_OP] = {",\"prev_op\":", 11},
};

static unsigned lacking(const struct line *line)
{
    const unsigned of_events = 1U << LINE_SOURCE | 1U << LINE_KIND;
    const unsigned of_operations = 1U << LINE_PREV_SEQ | 1U << LINE_PREV_OP;
    const unsigned others = line->kind == LINE_OPERATION ? of_events : of_operations;
    return ((1U << LINE_FIELDS) - 1) & ~(others | line->given | line->nulls);
}

/* The fields that the line lacks, each with a comma in front; the first comma is a '{'. */
static char *put_front(char *out, const struct line *line, const struct line_stamp *stamp,
                       unsigned lacks)
{
    char *begin = out;
    for (; lacks != 0; lacks &= lacks - 1) {
        int field = __builtin_ctz(lacks);
        memcpy(out, names[field].text, NAME_ROOM);
        out += names[field].len;
        out = put_value(out, line, stamp, (enum line_field)field);
    }
    *begin = '{';
    return out;
}

static void make_front(struct line_front *front, const struct line *line,
                       const struct line_stamp *stamp, unsigned lacks)
{
    struct line_stamp first = *stamp;
    first.seq = 0; /* one digit */
    const char *end = put_front(front->text, line, &first, lacks);
    front->before = names[LINE_SEQ].len;
    if (lacks & 1U << LINE_SESSION_ID)
        front->before += names[LINE_SESSION_ID].len + stamp->id_json_len;
    front->behind = (size_t)(end - front->text) - front->before - 1;
    front->lacks = lacks;
}

/* The same as put_front(), where it can be had from the line before. That is where what the line
 * lacks says all: no field is null, which may be of any value, nor a time from another field. */
static char *put_front_again(char *out, const struct line *line, const struct line_stamp *stamp)
{
    struct line_front *front = stamp->front;
    unsigned lacks = lacking(line);
    if (!front || line->kind == LINE_OPERATION || line->nulls != 0 || !(lacks & 1U << LINE_SEQ))
        return put_front(out, line, stamp, lacks);
    if (front->lacks != lacks)
        make_front(front, line, stamp, lacks);
    out = put(out, front->text, front->before);
    out = put_u64(out, stamp->seq);
    return put(out, front->text + front->before + 1, front->behind);
}

/* The fields whose value is null, in the order in which they stand in the line; returns their
 * number. */
static size_t nulls_in_order(const struct line *line, enum line_field order[LINE_FIELDS])
{
    size_t count = 0;
    for (unsigned left = line->nulls; left != 0; left &= left - 1) {
        int field = __builtin_ctz(left);
        size_t at = count++;
        for (; at > 0 && line->null_at[order[at - 1]] > line->null_at[field]; at--)
            order[at] = order[at - 1];
        order[at] = (enum line_field)field;
    }
    return count;
}

/* The writer's bytes behind the '{', with what is null filled in. */
static char *put_rest(char *out, const struct line *line, const struct line_stamp *stamp)
{
    enum line_field order[LINE_FIELDS];
    const char *from = line->text.at + 1, *end = line->text.at + line->text.len;
    size_t nulls = nulls_in_order(line, order);
    for (size_t i = 0; i < nulls; i++) {
        const char *null = line->text.at + line->null_at[order[i]];
        out = put(out, from, (size_t)(null - from));
        out = put_value(out, line, stamp, order[i]);
        from = null + NULL_LEN;
    }
    return put(out, from, (size_t)(end - from));
}

/* Whether the writer's object has a member. It was scanned: its first byte is '{', and a '}' comes.
 */
static bool has_member(const struct line *line)
{
    const char *p = line->text.at + 1;
    while (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n')
        p++;
    return *p != '}';
}

size_t line_stamp(const struct line *line, const struct line_stamp *stamp, char *out)
{
    char *to = put_front_again(out, line, stamp);
    if (line->kind == LINE_TEXT) {
        to = put(to, ",\"payload\":", 11);
        to += json_escape(line->text.at, line->text.len, to);
        *to++ = '}';
    } else {
        if (to == out)
            *to++ = '{';
        else if (has_member(line))
            *to++ = ',';
        to = put_rest(to, line, stamp);
    }
    *to++ = '\n';
    return (size_t)(to - out);
}
