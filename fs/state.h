/*
 * state.h - the directory state/ of a session: documents, and scratch files, as files.
 *
 *   state.c      names and what they stand for, attributes, create and unlink
 *   document.c   an open file of a document or a scratch file
 *   rename.c     renames, also to and from archive/
 *   draft.h      what is written, until it is a document's value; change.h: operations
 */
#ifndef HL_STATE_H
#define HL_STATE_H

#include "fs_internal.h"

/* What a name in state/ can stand for. */
struct state_name {
    const char *name;
    bool is_key;     /* it is the file name of a key */
    bool is_scratch; /* it begins with `.` or `#` or ends in `~`: scratch, unless a document has
                      * that key */
    int why_no_key;  /* -EINVAL or -ENAMETOOLONG */
    size_t key_len;
    char key[HL_KEY_MAX + 1];
};
void state_name(struct state_name *parsed, const char *name);

/* What a name in state/ stands for, but for what is not set yet. -ENOENT. */
int state_resolve(struct fs *fs, const struct node *directory, const char *name, struct node *node);
/* A document that is not set yet, which only who makes it sees. -ENOENT. */
int state_resolve_unborn(struct fs *fs, const struct node *directory, const char *name, pid_t who,
                         struct node *node);

/* Whether somebody makes a document of that name, and has not set it yet. */
bool state_is_being_made(struct fs *fs, const struct node *directory, const char *name);

/* Whether the sender of the request may change names and documents of the session now: 0, -EROFS,
 * -EACCES. */
int state_may_change(struct fs *fs, fuse_req_t req, uint32_t session);

/* Attributes of a document, a scratch file, or a document not set yet. */
int state_attr(struct fs *fs, const struct node *node, const struct hl_session *session,
               struct fs_attr *attr);
void state_attr_document(struct fs *fs, const struct hl_session *session,
                         const struct hl_document *document, struct fs_attr *attr);
/* Those of a document that is not there any more. */
void state_attr_gone(struct fs *fs, const struct hl_session *session, const struct node *node,
                     uint64_t size, struct fs_attr *attr);

/* Scratch files of a session for listing: the one with the lowest number above *number, which is
 * then its. False: there is none. */
bool state_next_scratch(struct fs *fs, const struct hl_session *session, uint64_t *number,
                        char name[NODE_NAME_MAX + 1], struct fs_attr *attr);

/* What open(O_CREAT) and unlink of a name in state/ ask. */
int state_create(struct fs *fs, fuse_req_t req, const struct node *directory, const char *name,
                 int flags, struct node *node, struct handle **handle);
int state_unlink(struct fs *fs, fuse_req_t req, const struct node *directory, const char *name);

/* What rename of any name to any other asks; flags are RENAME_…. */
int state_rename(struct fs *fs, fuse_req_t req, const struct node *from, const char *name,
                 const struct node *to, const char *new_name, unsigned flags);

/* ---- document.c -------------------------------------------------------------------------------
 */

/* Opens a document, a scratch file, or a document not set yet. -ENOENT, -ESTALE: it is gone. */
int document_open(struct fs *fs, fuse_req_t req, const struct node *node, int flags,
                  struct handle **handle);

struct draft;
/* An open file on a draft, with the session's lock held. -ENOMEM. */
int document_open_draft(struct fs *fs, const struct node *node, struct draft *draft, int flags,
                        struct sender who, struct handle **handle);

/* Truncates by name: to what must be a value. Does nothing to other nodes. */
int document_resize(struct fs *fs, const struct node *node, uint64_t size, struct sender who);

/* Shows a writer, thread `who`, the size of what he wrote and nobody else sees yet. */
void document_own_attr(struct fs *fs, const struct node *node, pid_t who, struct fs_attr *attr);

/* Whether somebody has the document open, and its size as he reads it. */
bool document_is_open(struct fs *fs, const struct node *node, uint64_t *size);

/* Tells why a change of a document was refused (err), if it was by this. */
void document_refused(struct fs *fs, uint32_t session, const char *key, size_t len,
                      const struct hl_error *err);

#endif
