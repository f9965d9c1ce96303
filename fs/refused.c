/*
 * refused.c - what is remembered of a refused line; see refused.h.
 */
#include "refused.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Fewer bytes than this may be the same by chance. */
#define SURE 64
/* So many bytes without an end that stand in the refused line are not a new line in parts. */
#define LONG_PIECE 4096

/* Memory from the share for this, or NULL. */
static char *take_memory(struct fs *fs, struct user *user, size_t len)
{
    if (share_take(fs, user, SHARE_REFUSED, len) != TAKEN)
        return NULL;
    char *memory = malloc(len);
    if (!memory)
        share_give(fs, user, SHARE_REFUSED, len);
    return memory;
}

static void give_back(struct fs *fs, struct user *user, char *memory, size_t len)
{
    free(memory);
    share_give(fs, user, SHARE_REFUSED, len);
}

void refused_forget(struct fs *fs, struct refused *refused)
{
    give_back(fs, refused->user, refused->line, refused->len);
    *refused = (struct refused){.user = refused->user};
}

static bool begins_with(const char *text, size_t len, const char *with, size_t with_len)
{
    return len >= with_len && memcmp(text, with, with_len) == 0;
}

static bool ends_with(const char *text, size_t len, const char *with, size_t with_len)
{
    return len >= with_len && memcmp(text + len - with_len, with, with_len) == 0;
}

/*
 * Whether text begins with SURE bytes or more that the line ends with, but not with all of it. Both
 * are hashed a byte at a time, text from its beginning on and the line from its end back, so that
 * all lengths are compared in one pass.
 */
static bool goes_on_from(const char *line, size_t line_len, const char *text, size_t len)
{
    const uint64_t base = UINT64_C(0x9E3779B97F4A7C15) | 1;
    uint64_t ahead = 0, behind = 0, power = 1;

    for (size_t n = 1; n < line_len && n <= len; n++) {
        ahead = ahead * base + (uint8_t)text[n - 1];
        behind += (uint8_t)line[line_len - n] * power;
        power *= base;
        if (n >= SURE && ahead == behind && memcmp(line + line_len - n, text, n) == 0)
            return true;
    }
    return false;
}

/* Whether the line that is remembered has these bytes, as far as can be told. */
static bool covers(const struct refused *refused, const char *text, size_t len)
{
    return refused->line &&
           (memmem(refused->line, refused->len, text, len) ||
            (!refused->ended && goes_on_from(refused->line, refused->len, text, len)));
}

void refused_keep(struct fs *fs, struct refused *refused, const char *begin, size_t begin_len,
                  const char *rest, size_t rest_len, bool again, const struct hl_error *err)
{
    size_t len = begin_len + rest_len;
    char *line = take_memory(fs, refused->user, len);

    if (!line && !again)
        return;
    if (line) {
        if (begin_len > 0)
            memcpy(line, begin, begin_len);
        memcpy(line + begin_len, rest, rest_len);
        if (covers(refused, line, len)) {
            give_back(fs, refused->user, line, len);
            return;
        }
    }
    refused_forget(fs, refused);
    *refused = (struct refused){.user = refused->user,
                                .any = true,
                                .unknown = !line,
                                .line = line,
                                .len = line ? len : 0,
                                .from = again ? begin_len : 0,
                                .ended = rest[rest_len - 1] == '\n',
                                .err = *err};
    refused->open = !refused->ended && (begin_len > 0 ? begin : rest)[0] == '{';
}

bool refused_is_again(const struct refused *refused, const char *text, size_t len)
{
    if (!refused->line || refused->from == 0)
        return false;
    size_t rest_len = refused->len - refused->from;
    size_t both = len < rest_len ? len : rest_len;
    return (both >= SURE || len == rest_len) &&
           memcmp(refused->line + refused->from, text, both) == 0;
}

/* Whether it is the end of an object, perhaps with its newline. */
static bool ends_an_object(const char *text, size_t len)
{
    while (len > 0 && memchr(" \t\r\n", text[len - 1], 4))
        len--;
    return len > 0 && text[len - 1] == '}';
}

bool refused_has(const struct refused *refused, const char *text, size_t len)
{
    bool whole = text[len - 1] == '\n';

    if (!refused->any)
        return false;
    if (refused->unknown)
        return true;
    if (refused->open && ends_an_object(text, len))
        return true;
    if (refused->ended && whole)
        return len < refused->len && ends_with(refused->line, refused->len, text, len);
    if (!whole && len >= SURE && memmem(refused->line + 1, refused->len - 1, text, len))
        return true;
    return !refused->ended && !begins_with(text, len, refused->line, refused->len) &&
           goes_on_from(refused->line, refused->len, text, len);
}

bool refused_has_piece(const struct refused *refused, const char *text, size_t before, size_t len)
{
    return refused->line && refused->from > 0 && before < LONG_PIECE && len >= LONG_PIECE &&
           memmem(refused->line + 1, refused->len - 1, text, len);
}
