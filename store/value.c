/*
 * value.c - the text of a value: whether it is one, and how it looks on one line; the contract is
 * in store.h.
 *
 * Two passes go over the text side by side. The scanner of json.c says whether it is JSON. The
 * squeeze, which knows no more of JSON than where strings begin and end, drops the white space
 * between parts and counts what is left; so the length of the compact value is known before it is
 * whole, and one that is too long is refused while it is being written.
 */
#include <errno.h>
#include <string.h>

#include "json.h"
#include "store.h"

/* A value becomes a member of an operation, or a member of a member in a checkpoint. */
#define DEPTH_MAX (JSON_DEPTH_MAX - 2)

struct squeeze {
    uint32_t depth, deepest;
    bool in_string, escaped;
};

struct progress {
    struct json_progress json;
    size_t looked;  /* bytes that the squeeze has passed */
    size_t scanned; /* length of the text when the scanner last looked */
    struct squeeze squeeze;
    bool ended; /* it is whole, and a newline stood behind it */
};

_Static_assert(sizeof(struct progress) <= sizeof((struct hl_value *)0)->opaque,
               "struct hl_value holds the progress");

/* ---- on one line ---- */

static bool is_space(char byte)
{
    return byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r';
}

/* From inside a string to behind its closing quote, or the end. */
static const char *pass_string(struct squeeze *squeeze, const char *at, const char *end)
{
    for (; at < end; at++) {
        if (squeeze->escaped)
            squeeze->escaped = false;
        else if (*at == '\\')
            squeeze->escaped = true;
        else if (*at == '"') {
            squeeze->in_string = false;
            return at + 1;
        }
    }
    return at;
}

/* From outside of strings to the next white space, or into a string, or the end. */
static const char *pass_plain(struct squeeze *squeeze, const char *at, const char *end)
{
    for (; at < end && !is_space(*at); at++) {
        if (*at == '"') {
            squeeze->in_string = true;
            return at + 1;
        }
        if (*at == '{' || *at == '[') {
            if (++squeeze->depth > squeeze->deepest)
                squeeze->deepest = squeeze->depth;
        } else if (*at == '}' || *at == ']') {
            squeeze->depth--;
        }
    }
    return at;
}

/* Goes over more of the text; writes what stays to out, if that is not NULL, and returns its
 * length. */
static size_t squeeze_more(struct squeeze *squeeze, const char *text, size_t len, char *out)
{
    const char *at = text, *end = text + len;
    size_t kept = 0;

    while (at < end) {
        if (!squeeze->in_string && is_space(*at)) {
            at++;
            continue;
        }
        const char *begin = at;
        at = squeeze->in_string ? pass_string(squeeze, at, end) : pass_plain(squeeze, at, end);
        if (out)
            memmove(out + kept, begin, (size_t)(at - begin));
        kept += (size_t)(at - begin);
    }
    return kept;
}

size_t hl_value_compact(const char *text, size_t len, char *compact)
{
    struct squeeze squeeze = {0};
    return squeeze_more(&squeeze, text, len, compact);
}

/* ---- whether it is one ---- */

static int refuse(struct hl_error *err, const struct json_error *fault)
{
    return hl_fail(err, EINVAL, "not JSON at byte %zu: %s", fault->offset + 1, fault->reason);
}

static int scan(struct progress *progress, const char *text, size_t len, struct hl_error *err)
{
    struct json_error fault;
    size_t before = progress->scanned;

    enum json_result result = json_scan_value_more(&progress->json, text, len, &fault);
    if (result == JSON_INVALID)
        return refuse(err, &fault);
    progress->scanned = len;
    if (result == JSON_UNFINISHED) {
        hl_fail(err, EINVAL, "not whole: %s", fault.reason);
        return HL_VALUE_UNFINISHED;
    }
    for (size_t i = len; i > before && is_space(text[i - 1]) && !progress->ended; i--)
        progress->ended = text[i - 1] == '\n';
    return progress->ended ? HL_VALUE_ENDED : HL_VALUE_WHOLE;
}

int hl_value_check(struct hl_value *value, const char *text, size_t len, size_t max,
                   struct hl_error *err)
{
    struct progress progress;

    if (!text)
        text = "";
    memcpy(&progress, value->opaque, sizeof progress);
    int result = scan(&progress, text, len, err);
    if (result < 0)
        return result;
    size_t length = value->length + squeeze_more(&progress.squeeze, text + progress.looked,
                                                 len - progress.looked, NULL);
    progress.looked = len;
    if (progress.squeeze.deepest > DEPTH_MAX)
        return hl_fail(err, EINVAL, "nested more than %d deep", DEPTH_MAX);
    if (length > max)
        return hl_fail(err, EMSGSIZE, "the value has %zu bytes or more, and at most %zu fit",
                       length, max);
    value->length = length;
    memcpy(value->opaque, &progress, sizeof progress);
    return result;
}
