/*
 * batch_lines.c - the two passes over the lines of a batch; see batch.h.
 *
 * What the first pass parsed is kept for the second, as far as memory for that goes. The first pass
 * over a large write is made by two threads, each with a part of the lines. What the helper made
 * of its part counts only if it found nothing wrong: else it is looked at once more, so that who
 * appends hears of the first line that is bad, with its number.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"

#define LINES_KEPT 8192U               /* parsed lines kept by each part */
#define SPLIT_FROM ((size_t)256 << 10) /* bytes of a write for which waking a thread pays */

/* ---- lines ---- */

struct lines {
    const char *data;
    size_t len, at;
    size_t number; /* of the line last returned, from 1 */
};

/* The next line that is not empty. */
static bool next_line(struct lines *lines, const char **text, size_t *len)
{
    while (lines->at < lines->len) {
        const char *begin = lines->data + lines->at;
        size_t left = lines->len - lines->at;
        const char *newline = memchr(begin, '\n', left);
        *text = begin;
        *len = newline ? (size_t)(newline - begin) : left;
        lines->at += *len + (newline ? 1 : 0);
        lines->number++;
        if (*len > 0)
            return true;
    }
    return false;
}

static int blame(struct batch *batch, size_t number, const char *text, size_t len, int error)
{
    batch->blamed = (struct blamed){text, len};
    if (batch->err) {
        batch->err->code = -error;
        batch->err->line = number;
    }
    return error;
}

/* ---- the first pass ---- */

int batch_root_takes_json(struct hl_error *err)
{
    return hl_fail(err, EINVAL, "the root append takes lines of JSON with a \"session_id\"");
}

static int check_line(const struct batch *batch, const char *text, size_t len, struct line *line)
{
    int error = line_parse(text, len, batch->store->options.max_record, line, batch->err);
    if (error == 0 && batch->request->session == 0 && !(line->given & 1U << LINE_SESSION_ID))
        error = batch_root_takes_json(batch->err);
    return error;
}

/* Where the next line is parsed to: kept in the batch's memory, or *spare. NULL: out of memory. */
static struct line *line_room(struct batch *batch, struct line *spare)
{
    struct batch_memory *memory = batch->memory;
    if (batch->lines >= LINES_KEPT)
        return spare;
    if (batch->lines == memory->line_capacity) {
        size_t capacity = memory->line_capacity ? memory->line_capacity * 4 : 16;
        if (capacity > LINES_KEPT)
            capacity = LINES_KEPT;
        struct line *more = realloc(memory->lines, capacity * sizeof *more);
        if (!more)
            return NULL;
        memory->lines = more;
        memory->line_capacity = capacity;
    }
    return &memory->lines[batch->lines];
}

/* Checks the lines of this part; *number lines stand in front of it, and it is counted on. */
static int check_part(struct batch *batch, size_t *number)
{
    struct lines lines = {.data = batch->data, .len = batch->len, .number = *number};
    const char *text;
    size_t len;
    struct line spare;
    batch->lines = 0;
    while (next_line(&lines, &text, &len)) {
        struct line *line = line_room(batch, &spare);
        if (!line)
            return hl_fail(batch->err, ENOMEM, "out of memory");
        int error = check_line(batch, text, len, line);
        if (error < 0)
            return blame(batch, lines.number, text, len, error);
        if (batch->ahead && line == &spare)
            batch_ahead_drop(batch);
        else if (batch->ahead)
            batch_ahead_line(batch, line);
        batch->lines++;
    }
    *number = lines.number;
    return 0;
}

static void check_rest(void *context)
{
    struct batch_rest *rest = context;
    size_t number = 0;
    rest->error = check_part(&rest->batch, &number);
}

/* How many lines of the front part will have a seq. */
static size_t count_lines(const struct batch *batch)
{
    struct lines lines = {.data = batch->data, .len = batch->len};
    const char *text;
    size_t len, count = 0;
    while (next_line(&lines, &text, &len))
        count++;
    return count;
}

/* Where the second part of the lines begins, or 0: there is none. */
static size_t split_at(const struct batch *batch)
{
    size_t front = batch->len / 2;
    if (batch->len < SPLIT_FROM)
        return 0;
    const char *newline = memchr(batch->data + front, '\n', batch->len - front);
    if (!newline || newline + 1 == batch->data + batch->len)
        return 0;
    return (size_t)(newline + 1 - batch->data);
}

/* Gives the second part of the lines to the helper. False: all are left to the caller. */
static bool split(struct batch *batch, struct batch_rest *rest)
{
    struct helper *helper = &batch->store->append_helper;
    size_t front = split_at(batch);
    if (front == 0 || !helper_ask(helper))
        return false;
    struct batch_memory *memory = batch_memory_take(batch->store, BATCH_REST);
    if (!memory) {
        helper_let_go(helper);
        return false;
    }
    *rest = (struct batch_rest){.job = {.run = check_rest, .context = rest}};
    batch_begin(&rest->batch, batch->store, batch->request, memory, &rest->err);
    rest->batch.data += front;
    rest->batch.len -= front;
    batch->rest = &rest->batch;
    batch->len = front;
    if (batch->ahead) {
        rest->ahead = *batch->ahead;
        rest->ahead.first_seq += count_lines(batch);
        rest->batch.ahead = &rest->ahead;
    }
    helper_give(helper, &rest->job);
    return true;
}

/* Behind the front part, in which `number` lines were good. */
static int join(struct batch *batch, struct batch_rest *rest, size_t number)
{
    int error = 0;
    helper_finish(&batch->store->append_helper, &rest->job);
    rest->batch.err = batch->err;
    if (rest->error < 0) {
        batch_ahead_drop(&rest->batch);
        error = check_part(&rest->batch, &number);
        batch->blamed = rest->batch.blamed;
    }
    if (!batch->ahead || !rest->batch.ahead) { /* of all lines, or of none */
        batch_ahead_drop(batch);
        batch_ahead_drop(&rest->batch);
    }
    return error;
}

int batch_check_lines(struct batch *batch, struct batch_rest *rest)
{
    size_t number = 0;
    bool is_split = split(batch, rest);
    int error = check_part(batch, &number);
    if (is_split && error == 0)
        error = join(batch, rest, number);
    else if (is_split)
        helper_drop(&batch->store->append_helper, &rest->job);
    return error;
}

/* ---- the second pass ---- */

static int add_part(struct batch *batch, const struct batch *part, size_t *number)
{
    struct lines lines = {.data = part->data, .len = part->len, .number = *number};
    const char *text;
    size_t len, n = 0;
    while (next_line(&lines, &text, &len)) {
        struct line parsed;
        const struct line *line = &parsed;
        int error = 0;
        if (n < LINES_KEPT)
            line = &part->memory->lines[n];
        else
            error = line_parse(text, len, batch->store->options.max_record, &parsed, batch->err);
        n++;
        if (error == 0)
            error = batch_add_line(batch, line);
        if (error < 0)
            return blame(batch, lines.number, text, len, error);
    }
    *number = lines.number;
    return 0;
}

int batch_add_lines(struct batch *batch)
{
    size_t number = 0;
    int error = add_part(batch, batch, &number);
    if (error == 0 && batch->rest)
        error = add_part(batch, batch->rest, &number);
    return error < 0 ? error : batch_finish(batch);
}
