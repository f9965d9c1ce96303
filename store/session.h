/*
 * session.h - what a session frame says, and the list of a session's user attributes.
 *
 * The body of a session frame is one line of JSON:
 *   {"session":ID,"number":N,"uid":N,"gid":N,"mode":N,"created_ms":N,"last_seq":N or null,
 *    "changed_ms":N, "history_from":N (both may be missing),
 *    "attributes":{NAME:BASE64,...}}
 * and, written by compaction alone, "sums":{...} (sums.h) behind the attributes.
 * In memory and in the index attributes are one block of bytes: for each, u8 length of the name,
 * u32 (little-endian) length of the value, the name, the value.
 */
#ifndef HL_SESSION_H
#define HL_SESSION_H

#include "index.h"
#include "sums.h"

/* Makes the body for a row; *text is the caller's to free. Returns 0 or -ENOMEM. */
int session_encode(const struct index_row *row, char **text, size_t *len);
/* The same for a frame that carries sums; NULL: none. */
int session_encode_sums(const struct index_row *row, const struct sums *sums, char **text,
                        size_t *len);

/* Reads a body. On success row->id and row->attributes are the caller's to free (session_row_free).
 * 0, -EBADMSG (not such a body) or -ENOMEM. Totals are zero but for
 * last_seq, has_seq and history_from. */
int session_decode(const char *text, size_t len, struct index_row *row);
void session_row_free(struct index_row *row);
/* The sums that a body, which session_decode() took, carries; *sums is NULL if there are none.
 * -EBADMSG, -ENOMEM. */
int session_decode_sums(const char *text, size_t len, struct sums **sums);

/* false: not there. *value points into the block. */
bool attributes_find(const void *block, uint32_t block_len, const char *name, const void **value,
                     uint32_t *len);
/* A new block (the caller's to free) with the attribute set, or removed if value is NULL. -ENOSPC
 * past HL_ATTRIBUTES_MAX, -ENOMEM. */
int attributes_change(const void *block, uint32_t block_len, const char *name, const void *value,
                      size_t len, void **changed, uint32_t *changed_len);
/* Calls each() for each attribute. -EBADMSG when the block is not well-formed. */
typedef int attributes_visit(void *context, const char *name, size_t name_len, const void *value,
                             uint32_t len);
int attributes_each(const void *block, uint32_t block_len, attributes_visit *each, void *context);

#endif
