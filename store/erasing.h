/*
 * erasing.h - the sessions of which bytes may be left, since an erase of them did not come to its
 * end.
 *
 * DIR/erasing names them from before the session is deleted until no byte of it is left, so that
 * whatever cuts an erase short, it is known that it is to go on.
 */
#ifndef HL_ERASING_H
#define HL_ERASING_H

#include "core.h"

/* Reads the file; a session that is there after all is no matter any more. */
void erasing_load(struct hl_store *store);
void erasing_free(struct hl_store *store);
/* Notes one, if it is not; synced. */
int erasing_add(struct hl_store *store, const struct hl_session *session);
/* Takes one out, if it is there. */
int erasing_remove(struct hl_store *store, uint32_t number);
bool erasing_has(struct hl_store *store, uint32_t number);
/* Erases what is left of one, unless somebody else came before. In erase.c. */
int erasing_finish(struct hl_store *store, uint32_t session, struct hl_progress *progress,
                   struct hl_error *err);
/* Erases what is left of all. */
void erasing_go_on(struct hl_store *store, struct hl_progress *progress);

#endif
