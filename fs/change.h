/*
 * change.h - a change of documents by files: the operations that say it, and their append.
 *
 * Zero a struct change to begin; change_apply() or change_free() ends it. Running out of memory is
 * found by change_apply().
 */
#ifndef HL_CHANGE_H
#define HL_CHANGE_H

#include "fs_internal.h"

#define CHANGE_EXPECTATIONS 4

struct change {
    struct text lines;
    struct hl_expectation expectations[CHANGE_EXPECTATIONS];
    size_t expectation_count;
};

/* Sets a key to a text that hl_value_check() found whole; length is that of the value, compact. */
void change_set(struct change *change, const char *key, size_t key_len, const char *text,
                size_t text_len, size_t length);
void change_delete(struct change *change, const char *key, size_t key_len);
/* The same for a document whose value another key was set to: it was renamed. */
void change_delete_moved(struct change *change, const char *key, size_t key_len, const char *to,
                         size_t to_len);
/* Moves a document from state/ into an archive, or back, under another key or the same. */
void change_archive(struct change *change, const struct hl_document *archive, const char *key,
                    size_t key_len, const char *as, size_t as_len);
void change_restore(struct change *change, const struct hl_document *archive, const char *key,
                    size_t key_len, const char *as, size_t as_len);

/* What must hold; key must live until the change is applied. `changed` is that of a document that
 * was looked at, or HL_DOCUMENT_SEQ_ANY. */
void change_expect(struct change *change, uint64_t area, const char *key, size_t key_len,
                   uint64_t changed);
void change_expect_absent(struct change *change, uint64_t area, const char *key, size_t key_len);

/* Appends the operations as one batch; *seq (may be NULL) is then the last one's. -ENOENT, -EEXIST,
 * -ESTALE: something expected does not hold; and the store's errors. Without operations 0. */
int change_apply(struct fs *fs, uint32_t session, struct change *change, uint64_t *seq,
                 struct hl_error *err);
void change_free(struct change *change);

/* The longest value to which the key can be set: its operation is at most max_record long. */
size_t change_room(struct fs *fs, const char *key, size_t key_len);

#endif
