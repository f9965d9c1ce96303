/*
 * ops_change.c - the requests that make, remove and rename names.
 */
#include "ops.h"

#include "announce.h"
#include "state.h"

#include <errno.h>

/* What nobody may do here: what is there stays, under its name. */
static void refuse(fuse_req_t req)
{
    fuse_reply_err(req, fs_of(req)->options->read_only ? EROFS : EPERM);
}

/* ---- directories ------------------------------------------------------------------------------
 */

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct fs *fs = fs_of(req);
    const struct fuse_ctx *context = fuse_req_ctx(req);
    struct node directory, node;
    struct hl_session session;
    struct parked *parked;

    int result = fs_node(fs, parent, &directory);
    if (result == 0 && announcer_sent(fs->announcer, req)) {
        announced_mkdir(req, &directory, name);
        return;
    }
    if (!park_change(req, &parked))
        return;
    if (result == 0 && directory.kind == NODE_ARCHIVES) {
        result = archive_make(fs, &directory, name, &node);
    } else if (result == 0) {
        result = session_make(fs, &directory, name, context->uid, context->gid, mode, &session);
        node = (struct node){.kind = NODE_SESSION, .session = session.number};
    }
    if (result < 0) {
        parked_drop(parked);
        reply_result(req, result);
    } else {
        reply_made(req, &node, parked);
    }
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs *fs = fs_of(req);
    struct node directory;

    int result = fs_node(fs, parent, &directory);
    if (result == 0 && announcer_sent(fs->announcer, req)) {
        announced_rmdir(req, &directory, name);
        return;
    }
    if (result == 0 && directory.kind == NODE_ARCHIVES) {
        reply_changed(req, archive_remove(fs, &directory, name));
        return;
    }
    if (result == 0)
        result = session_remove(fs, &directory, name);
    reply_changed(req, result);
}

/* ---- files ------------------------------------------------------------------------------------
 */

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs *fs = fs_of(req);
    struct node directory;

    int result = fs_node(fs, parent, &directory);
    if (result == 0 && announcer_sent(fs->announcer, req)) {
        announced_unlink(req, &directory, name);
        return;
    }
    if (result == 0 && directory.kind != NODE_STATE) {
        refuse(req);
        return;
    }
    if (result == 0)
        result = state_unlink(fs, req, &directory, name);
    reply_changed(req, result);
}

void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
               struct fuse_file_info *fi)
{
    struct fs *fs = fs_of(req);
    struct fuse_entry_param entry;
    struct node directory, node;
    struct handle *handle = NULL;
    (void)mode; /* a document takes its bits from the session */

    int result = fs_node(fs, parent, &directory);
    if (result == 0 && announcer_sent(fs->announcer, req)) {
        announced_create(req, &directory, name, fi);
        return;
    }
    if (result == 0 && directory.kind != NODE_STATE) {
        refuse(req);
        return;
    }
    if (result == 0)
        result = state_create(fs, req, &directory, name, fi->flags, &node, &handle);
    if (result == 0) {
        result = fill_entry(fs, &node, &entry);
        if (result < 0)
            handle->type->release(fs, handle);
    }
    if (result < 0) {
        reply_result(req, result);
        return;
    }
    fi->fh = (uint64_t)(uintptr_t)handle;
    fi->direct_io = 1;
    /* Not wanted any more: then neither forget nor release comes. */
    if (fuse_reply_create(req, &entry, fi) != 0) {
        handle->type->release(fs, handle);
        fs_forget(fs, entry.ino, 1);
    }
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
               const char *new_name, unsigned flags)
{
    struct fs *fs = fs_of(req);
    struct node from, to;

    int result = fs_node(fs, parent, &from);
    if (result == 0)
        result = fs_node(fs, new_parent, &to);
    if (result == 0)
        result = state_rename(fs, req, &from, name, &to, new_name, flags);
    reply_changed(req, result);
}

/* ---- what is not to be had --------------------------------------------------------------------
 */

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    (void)parent;
    (void)name;
    (void)mode;
    (void)rdev;
    refuse(req);
}

void op_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
    (void)link;
    (void)parent;
    (void)name;
    refuse(req);
}

void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
    (void)ino;
    (void)parent;
    (void)name;
    refuse(req);
}
