/*
 * piece.h - a half line: what was written to `append` after the last newline.
 *
 * Its memory is taken from the share of its user and of all (users.h, SHARE_PIECES). Zero it, but
 * for the user, to begin. Not locked: its owner's lock guards it.
 */
#ifndef HL_PIECE_H
#define HL_PIECE_H

#include "fs_internal.h"

struct piece {
    struct user *user;
    char *at;
    size_t len;
    size_t capacity;
    size_t reserved; /* of the share; less than capacity only while lines are being joined */
    struct hl_line_progress progress; /* of the check that it can still become a line */
};

/*
 * Adds bytes without a newline, of a line for this session (0: for the root). Refused, with nothing
 * added, when the line can no longer be taken: -EMSGSIZE, -EINVAL (err says why); or when there is
 * no room for it: -ENOBUFS, -ENOMEM.
 */
int piece_add(struct fs *fs, uint32_t session, struct piece *piece, const char *data, size_t len,
              struct hl_error *err);

/*
 * Puts bytes behind the piece for the time of one append, without taking them into it: at[0, len +
 * more) are then the joined lines. piece_unjoin() gives the memory for them back.
 */
int piece_join(struct piece *piece, const char *data, size_t more, struct hl_error *err);
void piece_unjoin(struct piece *piece);

void piece_free(struct fs *fs, struct piece *piece); /* it is empty then, and can be used again */

#endif
