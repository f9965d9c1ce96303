/*
 * ops.h - what the files of request handlers share: replies, and the handlers of ops_change.c.
 *
 *   ops.c         the table; names, attributes, open files, directories
 *   ops_change.c  what makes, removes and renames names
 *   ops_announced.c  what the announcing thread asks
 */
#ifndef HL_OPS_H
#define HL_OPS_H

#include "fs_internal.h"

static inline struct fs *fs_of(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

static inline struct handle *handle_of(const struct fuse_file_info *fi)
{
    return (struct handle *)(uintptr_t)fi->fh;
}

/* Answers 0, or the errno of a result. */
void reply_result(fuse_req_t req, int result);
/* What the kernel is told of a node, with a look-up counted. */
int fill_entry(struct fs *fs, struct node *node, struct fuse_entry_param *entry);
/* The same with attributes that are at hand. */
int entry_from_attr(struct fs *fs, const struct node *node, const struct fs_attr *attr,
                    struct fuse_entry_param *entry);
/* Gives the kernel the node; the look-up is taken back if it did not want it any more. */
void reply_node(fuse_req_t req, struct node *node);
/* Answers 0 when what was appended so far is on the disk. */
void reply_synced(fuse_req_t req);
/* Answers the result of a change; with -o sync a success when the change is on the disk. */
void reply_changed(fuse_req_t req, int result);
/* Before a change whose answer says more: with -o sync what that waits with, otherwise NULL. False:
 * there is no memory, and that was answered. */
bool park_change(fuse_req_t req, struct parked **parked);
/* Gives the kernel what a change made, when it is on the disk if parked is given. */
void reply_made(fuse_req_t req, struct node *node, struct parked *parked);

/* What the announcing thread asks. Nothing is changed. */
void announced_lookup(fuse_req_t req, const struct node *directory); /* in a state/ */
void announced_getattr(fuse_req_t req, const struct node *node);
void announced_mkdir(fuse_req_t req, const struct node *directory, const char *name);
void announced_create(fuse_req_t req, const struct node *directory, const char *name,
                      struct fuse_file_info *fi);
void announced_open(fuse_req_t req, const struct node *node, struct fuse_file_info *fi);
/* Whether a name in sessions/ was answered: it is that of a session to be told to be gone. */
bool announced_end(fuse_req_t req, const char *name);
void announced_rmdir(fuse_req_t req, const struct node *directory, const char *name);
void announced_unlink(fuse_req_t req, const struct node *directory, const char *name);

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
               struct fuse_file_info *fi);
void op_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name);
void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name);
void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
               const char *new_name, unsigned flags);

#endif
