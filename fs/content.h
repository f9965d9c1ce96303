/*
 * content.h - the bytes of a file that is kept in memory.
 *
 * They are taken from the share of their user and of all (users.h): what is written to documents
 * from that of half lines (-ENOBUFS past it), scratch files from their own (-ENOSPC). Zero it, but
 * for the kind and the user, to begin. Not locked: its owner's lock guards
 * it.
 */
#ifndef HL_CONTENT_H
#define HL_CONTENT_H

#include "fs_internal.h"

enum content_kind { CONTENT_VALUE, CONTENT_SCRATCH };

struct content {
    enum content_kind kind;
    struct user *user;
    char *at;
    size_t len, capacity;
};

/* Writes at an offset; a gap before it becomes zeros. On failure nothing changed, and err says why:
 * -ENOBUFS, -ENOSPC, -ENOMEM, -EFBIG. */
int content_write(struct fs *fs, struct content *content, uint64_t offset, const char *data,
                  size_t len, struct hl_error *err);
/* Makes it shorter, or longer by zeros. */
int content_resize(struct fs *fs, struct content *content, uint64_t len, struct hl_error *err);
/* Makes room for `more` bytes at the end, counts them in, and returns where; NULL: see err. */
char *content_grow(struct fs *fs, struct content *content, size_t more, struct hl_error *err);
/* Copies up to size bytes from an offset; returns their number. */
size_t content_read(const struct content *content, char *buffer, size_t size, uint64_t offset);
/* Accounts for it as another kind. */
int content_turn(struct fs *fs, struct content *content, enum content_kind kind,
                 struct hl_error *err);
void content_free(struct fs *fs, struct content *content); /* it is empty then */

#endif
