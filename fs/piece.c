/*
 * piece.c - a half line.
 */
#include "piece.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Memory for need bytes, all of it reserved. */
static int piece_room(struct fs *fs, struct piece *piece, size_t need, struct hl_error *err)
{
    if (need <= piece->reserved)
        return 0;
    size_t limit = (size_t)fs->options->max_record;
    size_t want = need + need / 4;
    if (want > limit)
        want = need > limit ? need : limit;
    if (share_take(fs, piece->user, SHARE_PIECES, want - piece->reserved) != TAKEN) {
        want = need;
        enum taken taken = share_take(fs, piece->user, SHARE_PIECES, want - piece->reserved);
        if (taken != TAKEN)
            return share_refuse(fs, piece->user, SHARE_PIECES, taken,
                                "the half lines of all open files", err);
    }
    char *at = realloc(piece->at, want);
    if (!at) {
        share_give(fs, piece->user, SHARE_PIECES, want - piece->reserved);
        return hl_fail(err, ENOMEM, "out of memory for a half line of %zu bytes", need);
    }
    piece->at = at;
    piece->capacity = piece->reserved = want;
    return 0;
}

int piece_add(struct fs *fs, uint32_t session, struct piece *piece, const char *data, size_t len,
              struct hl_error *err)
{
    if (len == 0)
        return 0;
    if (len > SIZE_MAX / 2 - piece->len)
        return hl_fail(err, EMSGSIZE, "the line is too long");
    int result = piece_room(fs, piece, piece->len + len, err);
    if (result < 0)
        return result;
    memcpy(piece->at + piece->len, data, len);
    if (!hl_line_check(fs->store, session, &piece->progress, piece->at, piece->len + len, err))
        return err->code > 0 ? -err->code : -EINVAL;
    piece->len += len;
    return 0;
}

int piece_join(struct piece *piece, const char *data, size_t more, struct hl_error *err)
{
    size_t need = piece->len + more;

    if (need > piece->capacity) {
        char *at = realloc(piece->at, need);
        if (!at)
            return hl_fail(err, ENOMEM, "out of memory for lines of %zu bytes", need);
        piece->at = at;
        piece->capacity = need;
    }
    memcpy(piece->at + piece->len, data, more);
    return 0;
}

void piece_unjoin(struct piece *piece)
{
    if (piece->capacity == piece->reserved)
        return;
    char *at = realloc(piece->at, piece->reserved);
    if (!at)
        return; /* it only stays larger */
    piece->at = at;
    piece->capacity = piece->reserved;
}

void piece_free(struct fs *fs, struct piece *piece)
{
    free(piece->at);
    share_give(fs, piece->user, SHARE_PIECES, piece->reserved);
    *piece = (struct piece){.user = piece->user};
}
