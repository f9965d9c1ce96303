/* aside.h - what a recovery set aside must not be lost: no power cut during it, or after, may leave
 * it neither where it was nor in quarantine/; and no file that it moved out of log/ may be in none
 * of log/, backup/ and quarantine/. */
#ifndef CRASH_ASIDE_H
#define CRASH_ASIDE_H

#include "disk.h"

#define ASIDE_MAX 16

struct aside {
    struct {
        char segment[64];
        bool whole; /* else a part of it from offset on */
        uint64_t offset;
        struct bytes *content;
    } at[ASIDE_MAX];
    size_t count;
};

/* Takes in what lies in quarantine/ and backup/ of the store in dir. */
void aside_take(struct aside *aside, const char *dir);
void aside_free(struct aside *aside);
/* NULL, or the segment of bytes that are gone from the tree. */
const char *aside_missing(const struct aside *aside, const struct tree *tree);

/* Whether one of these directories of the store has a file of just these bytes, or they are none.
 */
bool tree_keeps(const struct tree *tree, struct bytes *content);
/* The name of a file of the tree that holds these bytes; NULL: none does. */
const char *tree_holding(const struct tree *tree, const char *text);

#endif
