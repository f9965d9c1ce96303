/*
 * refused.h - a refused line, remembered, so that nothing of it is taken for a line of its own.
 *
 * A line may come in several writes, of which the first are taken as its beginning and a later one
 * is refused. The program then knows that only a part was written. It may give up and write
 * something else; it may try again, from where the refused write began or from any place before it,
 * all at once or in parts; or it may not care and write what is left of the line. Except for the
 * first, what comes looks like text, and would be stored as such.
 *
 * What can be known is the bytes. So all that came of the line is kept, until something else was
 * taken, and this holds for what comes next:
 *
 * - What begins with '{' is judged by itself: no part of a JSON object that ends with it is one,
 *   so that nothing of a refused object passes; but a good line may stand behind the remains of
 *   another.
 * - What equals the refused write, or begins it, or goes on from it, is that write again.
 * - A text line is a part of the refused line if that ends with it; or, where the end was never
 *   seen, if the line begins with what the refused one ends with, or if it ends as an object does
 *   of which more was due: with a '}'.
 * - A part without its end is kept as any half line is, and judged when its end comes, or at the
 *   last close; a long one that stands in the refused line is refused at once.
 *
 * So a new text line is refused only if it cannot be told from a part of the refused one. What is
 * not known for such is the rest of a refused line of text that no write had brought before, and a
 * few bytes without a newline that are left at the last close.
 *
 * Not locked: its owner's lock guards it. Zero it, but for the user, to begin.
 */
#ifndef HL_REFUSED_H
#define HL_REFUSED_H

#include "fs_internal.h"

struct refused {
    struct user *user; /* from whose share the memory is taken */
    bool any;
    bool unknown; /* there was no room for it: whatever may be a part of it is taken for one */
    char *line;   /* all that was written of it, the refused bytes included; NULL: unknown */
    size_t len;
    size_t from; /* where in it the refused write began; 0: that write may well be taken later */
    bool ended;  /* with its newline, which is the last byte of line */
    bool open;   /* the refused write ended inside a line of JSON, whose end was not seen since */
    struct hl_error err;
};

/*
 * Remembers a refused line: a beginning, taken by earlier writes, and what the refused write has of
 * it, which is not empty. again: the beginning is dropped, and that write would be refused another
 * time. What is remembered of a line of which this one is a part stays.
 */
void refused_keep(struct fs *fs, struct refused *refused, const char *begin, size_t begin_len,
                  const char *rest, size_t rest_len, bool again, const struct hl_error *err);

/* Whether the beginning of a write, up to its first newline, is a refused write again. */
bool refused_is_again(const struct refused *refused, const char *text, size_t len);

/* Whether this text, which is a line with its newline, or all that there is of one at the last
 * close, is a part of the refused line. */
bool refused_has(const struct refused *refused, const char *text, size_t len);

/* The same for text whose line is not complete, which had `before` bytes when this was asked last:
 * only what can hardly be anything else. */
bool refused_has_piece(const struct refused *refused, const char *text, size_t before, size_t len);

void refused_forget(struct fs *fs, struct refused *refused);

#endif
