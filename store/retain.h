/*
 * retain.h - the rules by which the scheduler drops events: DIR/retain.
 *
 * The file is one JSON object: {"all":RULE or null,"sessions":{ID:RULE,...}}, a rule being an
 * object of "age_ms", "count" and "bytes", each of which may be missing. A file that is lost or
 * cannot be read drops nothing.
 */
#ifndef HL_RETAIN_H
#define HL_RETAIN_H

#include "core.h"

/* What the file says, which is told if it cannot be used; once sessions can be looked up. Rules of
 * sessions that are not there, since a delete was cut short, are taken out by a writer. */
void retain_load(struct hl_store *store);
void retain_free(struct hl_store *store);
/* Forgets the session's own rule, for an id that is not used any more; synced when it returns. If
 * the file cannot be written, the rule is forgotten all the same, and the file written later. */
int retain_forget(struct hl_store *store, const char *id, size_t id_len);
/* Writes the file if that failed before. */
void retain_settle(struct hl_store *store);
/* Whether any rule is set. */
bool retain_any(struct hl_store *store);
/* The rule of a session: its own, or that of all. false: none. */
bool retain_rule(struct hl_store *store, const char *id, size_t id_len, struct hl_rule *rule);

#endif
