/*
 * ops.c - the table of requests. Each handler asks what the node is, has a helper do it, and
 * replies.
 */
#include "ops.h"

#include "announce.h"
#include "follow.h"
#include "listed.h"
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/statvfs.h>

/* ---- replies ----------------------------------------------------------------------------------
 */

void reply_result(fuse_req_t req, int result)
{
    fuse_reply_err(req, fs_errno(result));
}

/* What an id names is gone: then the kernel asks what its name stands for now, so that a session
 * that was made anew is found where one was deleted. */
static int of_id(const struct node *node, int result)
{
    /* What is in state/ the kernel always looks up. */
    bool kept = node->kind != NODE_DOCUMENT && node->kind != NODE_SCRATCH;
    return result == -ENOENT && kept ? -ESTALE : result;
}

void reply_bytes(fuse_req_t req, const char *buffer, ssize_t len)
{
    if (len < 0)
        reply_result(req, (int)len);
    else
        fuse_reply_buf(req, buffer, (size_t)len);
}

int entry_from_attr(struct fs *fs, const struct node *node, const struct fs_attr *attr,
                    struct fuse_entry_param *entry)
{
    *entry = (struct fuse_entry_param){
        .generation = attr->generation,
        .attr = attr->st,
        .attr_timeout = attr->attr_keep,
        .entry_timeout = attr->entry_keep,
    };
    entry->ino = fs_id(fs, node);
    return entry->ino == 0 ? -ENOMEM : 0;
}

int fill_entry(struct fs *fs, struct node *node, struct fuse_entry_param *entry)
{
    struct fs_attr attr;

    int result = fs_attr_now(fs, node, &attr);
    return result < 0 ? result : entry_from_attr(fs, node, &attr, entry);
}

/* The entry of a name that was just found. */
static int find_entry(struct fs *fs, struct node *node, struct fuse_entry_param *entry)
{
    int result = fill_entry(fs, node, entry);
    return result == -ESTALE ? -ENOENT : result; /* it went since it was found */
}

static void reply_entry(fuse_req_t req, int result, const struct fuse_entry_param *entry)
{
    if (result < 0)
        reply_result(req, result);
    else if (fuse_reply_entry(req, entry) != 0)
        fs_forget(fs_of(req), entry->ino, 1);
}

void reply_node(fuse_req_t req, struct node *node)
{
    struct fuse_entry_param entry;

    int result = find_entry(fs_of(req), node, &entry);
    reply_entry(req, result, &entry);
}

bool park_change(fuse_req_t req, struct parked **parked)
{
    const struct fs_options *options = fs_of(req)->options;

    *parked = NULL;
    if (!options->sync || options->read_only)
        return true;
    *parked = parked_new(fs_of(req), req);
    if (!*parked)
        fuse_reply_err(req, ENOMEM);
    return *parked != NULL;
}

void reply_made(fuse_req_t req, struct node *node, struct parked *parked)
{
    struct fuse_entry_param entry;

    int result = find_entry(fs_of(req), node, &entry);
    if (result == 0 && parked) {
        parked_sync_entry(parked, &entry);
        return;
    }
    parked_drop(parked);
    reply_entry(req, result, &entry);
}

/* handle: the open file by which it is asked, or NULL. Who writes a file sees what he wrote.
 * parked: it is answered when that is on the disk; or NULL. */
static void reply_attr(fuse_req_t req, const struct node *node, struct handle *handle,
                       struct parked *parked)
{
    struct fs *fs = fs_of(req);
    struct fs_attr attr;

    int result = fs_attr(fs, node, &attr);
    if (result < 0) {
        parked_drop(parked);
        reply_result(req, of_id(node, result));
        return;
    }
    if (handle && handle->type->attr)
        handle->type->attr(fs, handle, &attr);
    else
        document_own_attr(fs, node, fuse_req_ctx(req)->pid, &attr);
    text_attr_for(fs, node, fuse_req_ctx(req)->uid, &attr);
    if (parked)
        parked_sync_attributes(parked, &attr.st, attr.attr_keep);
    else
        fuse_reply_attr(req, &attr.st, attr.attr_keep);
}

/* ---- the connection ---------------------------------------------------------------------------
 */

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
    const unsigned wanted = FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
                            FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_PARALLEL_DIROPS |
                            FUSE_CAP_ASYNC_READ;
    /* With these the kernel would hold writes back, or send the parts of one in any order; locks
     * are its own affair; and ids from before a remount mean nothing after it. */
    const unsigned unwanted = FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_ASYNC_DIO | FUSE_CAP_POSIX_ACL |
                              FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_FLOCK_LOCKS | FUSE_CAP_POSIX_LOCKS;

    follow_learn_limit(((struct fs *)userdata)->follow);
    conn->want |= conn->capable & wanted;
    conn->want &= ~unwanted;
}

/* ---- names ------------------------------------------------------------------------------------
 */

/* Whether a directory is one of a session that was deleted. */
static bool is_gone(struct fs *fs, const struct node *directory)
{
    struct hl_session session;

    return directory->session != 0 &&
           hl_session_by_number(fs->store, directory->session, &session) == -ENOENT;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs *fs = fs_of(req);
    struct fuse_entry_param entry;
    struct node directory, node;

    int result = fs_node(fs, parent, &directory);
    if (result == 0 && directory.kind == NODE_ROOT && announcer_is_asked(fs->announcer, req, name))
        result = -ENOENT;
    if (result == 0 && directory.kind == NODE_STATE && announcer_sent(fs->announcer, req)) {
        announced_lookup(req, &directory);
        return;
    }
    if (result == 0 && directory.kind == NODE_SESSIONS && announcer_sent(fs->announcer, req) &&
        announced_end(req, name))
        return;
    if (result == 0)
        result = fs_resolve(fs, &directory, name, &node);
    if (result == -ENOENT && directory.kind == NODE_STATE)
        result = state_resolve_unborn(fs, &directory, name, fuse_req_ctx(req)->pid, &node);
    if (result == 0 && announcer_hides(fs->announcer, req, &node))
        result = -ENOENT;
    if (result == 0)
        result = find_entry(fs, &node, &entry);
    if (result == -ENOENT && is_gone(fs, &directory))
        result = -ESTALE;
    reply_entry(req, result, &entry);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
    fs_forget(fs_of(req), ino, nlookup);
    fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        fs_forget(fs_of(req), forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(req);
}

/* ---- attributes -------------------------------------------------------------------------------
 */

/* The handle that it is asked by, if any. That of a directory is a number. */
static struct handle *open_file(const struct fuse_file_info *fi, const struct node *node)
{
    return fi && !node_is_directory(node) ? handle_of(fi) : NULL;
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct node node;

    int result = fs_node(fs_of(req), ino, &node);
    if (result < 0)
        reply_result(req, result);
    else if (announcer_sent(fs_of(req)->announcer, req))
        announced_getattr(req, &node);
    else
        reply_attr(req, &node, open_file(fi, &node), NULL);
}

/* Truncations; all other files that take writes ignore them. */
static int resize(struct fs *fs, const struct node *node, struct handle *handle, off_t size,
                  struct sender who)
{
    if (size < 0)
        return -EINVAL;
    if (handle && handle->type->resize)
        return handle->type->resize(fs, handle, (uint64_t)size, who.pid);
    return document_resize(fs, node, (uint64_t)size, who);
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *wanted, int flags,
                       struct fuse_file_info *fi)
{
    struct fs *fs = fs_of(req);
    /* Setting times, by which watchers are told, changes nothing. */
    const int changes =
        FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID | FUSE_SET_ATTR_SIZE;
    struct handle *handle = NULL;
    struct parked *parked = NULL;
    struct node node;

    if ((flags & changes) && !park_change(req, &parked))
        return;
    int result = fs_node(fs, ino, &node);
    if (result == 0) {
        handle = open_file(fi, &node);
        result = node_change(fs, &node, wanted, flags);
    }
    if (result == 0 && (flags & FUSE_SET_ATTR_SIZE))
        result = resize(fs, &node, handle, wanted->st_size, sender_of(req));
    if (result < 0) {
        parked_drop(parked);
        reply_result(req, result);
    } else {
        reply_attr(req, &node, handle, parked);
    }
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct statvfs st;
    (void)ino;

    if (fstatvfs(fs_of(req)->dir_fd, &st) != 0) {
        fuse_reply_err(req, errno);
        return;
    }
    st.f_namemax = NODE_NAME_MAX;
    fuse_reply_statfs(req, &st);
}

/* Answers a length, when only that was asked for, or the bytes. */
static void reply_xattr(fuse_req_t req, const char *buffer, ssize_t len, size_t size)
{
    if (len >= 0 && size == 0)
        fuse_reply_xattr(req, (size_t)len);
    else
        reply_bytes(req, buffer, len);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    struct fs *fs = fs_of(req);
    struct node node;
    char *buffer = fs_buffer(fs, size);

    ssize_t len = buffer ? fs_node(fs, ino, &node) : -ENOMEM;
    if (len == 0)
        len = of_id(&node, (int)node_xattr_get(fs, &node, name, buffer, size));
    reply_xattr(req, buffer, len, size);
    fs_buffer_done(fs, buffer, size);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    struct fs *fs = fs_of(req);
    struct node node;
    char *buffer = fs_buffer(fs, size);

    ssize_t len = buffer ? fs_node(fs, ino, &node) : -ENOMEM;
    if (len == 0)
        len = node_xattr_list(fs, &node, buffer, size);
    reply_xattr(req, buffer, len, size);
    fs_buffer_done(fs, buffer, size);
}

static void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
                        size_t size, int flags)
{
    struct fs *fs = fs_of(req);
    struct node node;

    int result = fs_node(fs, ino, &node);
    if (result == 0)
        result = node_xattr_set(fs, &node, name, value, size, flags);
    reply_changed(req, result);
}

static void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    struct fs *fs = fs_of(req);
    struct node node;

    int result = fs_node(fs, ino, &node);
    if (result == 0)
        result = node_xattr_remove(fs, &node, name);
    reply_changed(req, result);
}

/* ---- open files -------------------------------------------------------------------------------
 */

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs *fs = fs_of(req);
    struct node node;
    struct handle *handle = NULL;

    int result = fs_node(fs, ino, &node);
    if (result == 0 && announcer_sent(fs->announcer, req)) {
        announced_open(req, &node, fi);
        return;
    }
    if (result == 0)
        result = of_id(&node, node_open(fs, req, &node, fi, &handle));
    if (result < 0) {
        reply_result(req, result);
        return;
    }
    fi->fh = (uint64_t)(uintptr_t)handle;
    /* Not wanted any more: then no release comes. */
    int sent = node.kind == NODE_FOLLOW ? follow_reply_open(req, fi) : fuse_reply_open(req, fi);
    if (sent != 0 && handle)
        handle->type->release(fs, handle);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                    struct fuse_file_info *fi)
{
    struct fs *fs = fs_of(req);
    struct handle *handle = handle_of(fi);
    struct node node;

    if (handle && handle->type->read_later) {
        handle->type->read_later(fs, handle, req, size, fi->flags);
        return;
    }
    if (handle && handle->type->answer && offset >= 0) {
        handle->type->answer(fs, handle, req, size, (uint64_t)offset);
        return;
    }
    char *buffer = fs_buffer(fs, size);
    ssize_t got = buffer ? 0 : -ENOMEM;
    if (got == 0 && offset < 0)
        got = -EINVAL;
    if (got == 0 && handle) {
        got = handle->type->read(fs, handle, buffer, size, (uint64_t)offset);
    } else if (got == 0) {
        got = fs_node(fs, ino, &node);
        if (got == 0)
            got = record_read(fs, &node, buffer, size, (uint64_t)offset);
    }
    reply_bytes(req, buffer, got);
    fs_buffer_done(fs, buffer, size);
}

static void op_poll(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi,
                    struct fuse_pollhandle *poll)
{
    struct handle *handle = handle_of(fi);
    (void)ino;

    if (handle && handle->type->poll) {
        fuse_reply_poll(req, handle->type->poll(fs_of(req), handle, poll));
        return;
    }
    if (poll)
        fuse_pollhandle_destroy(poll);
    fuse_reply_poll(req, POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
                     struct fuse_file_info *fi)
{
    struct handle *handle = handle_of(fi);
    (void)ino;

    if (!handle && announcer_sent(fs_of(req)->announcer, req))
        fuse_reply_write(req, size);
    else if (!handle || !handle->type->write)
        fuse_reply_err(req, EBADF);
    else if (offset < 0)
        fuse_reply_err(req, EINVAL);
    else
        handle->type->write(fs_of(req), handle, req, data, size,
                            fi->flags & O_APPEND ? HANDLE_AT_END : (uint64_t)offset,
                            fs_of(req)->options->sync || (fi->flags & O_DSYNC)); /* O_SYNC has it */
}

static int flush_handle(struct fs *fs, struct handle *handle, bool *stored)
{
    *stored = false;
    return handle && handle->type->flush ? handle->type->flush(fs, handle, stored) : 0;
}

void reply_synced(fuse_req_t req)
{
    struct fs *fs = fs_of(req);
    struct parked *parked = fs->options->read_only ? NULL : parked_new(fs, req);

    if (parked)
        parked_sync(parked);
    else
        fuse_reply_err(req, fs->options->read_only ? 0 : ENOMEM);
}

void reply_changed(fuse_req_t req, int result)
{
    if (result == 0 && fs_of(req)->options->sync)
        reply_synced(req);
    else
        reply_result(req, result);
}

static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs *fs = fs_of(req);
    bool stored;
    (void)ino;

    int result = flush_handle(fs, handle_of(fi), &stored);
    if (result == 0 && stored && fs->options->sync)
        reply_synced(req);
    else
        reply_result(req, result);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    struct fs *fs = fs_of(req);
    bool stored;
    (void)ino;
    (void)datasync;

    int result = flush_handle(fs, handle_of(fi), &stored);
    if (result < 0)
        reply_result(req, result);
    else
        reply_synced(req);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct handle *handle = handle_of(fi);
    (void)ino;

    if (handle)
        handle->type->release(fs_of(req), handle);
    fuse_reply_err(req, 0);
}

/* With ENOSYS the C library would write a NUL at the end instead. */
static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
                         struct fuse_file_info *fi)
{
    (void)ino;
    (void)mode;
    (void)offset;
    (void)length;
    (void)fi;
    fuse_reply_err(req, EINVAL);
}

/* ---- directories ------------------------------------------------------------------------------
 */

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs *fs = fs_of(req);
    struct node node;
    struct hl_session session;

    int result = fs_node(fs, ino, &node);
    if (result == 0 && node.session != 0) {
        result = of_id(&node, hl_session_by_number(fs->store, node.session, &session));
        if (result == 0 &&
            !request_may(req, fs_owner(fs, &session), session.gid, session.mode, ACCESS_READ))
            result = -EACCES;
    }
    if (result < 0) {
        reply_result(req, result);
        return;
    }
    fi->fh = listed_reader(fs->listed);
    fuse_reply_open(req, fi);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                       struct fuse_file_info *fi)
{
    dir_answer(fs_of(req), req, ino, fi->fh, size, offset, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                           struct fuse_file_info *fi)
{
    dir_answer(fs_of(req), req, ino, fi->fh, size, offset, true);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    listed_forget(fs_of(req)->listed, fi->fh);
    fuse_reply_err(req, 0);
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    (void)ino;
    (void)datasync;
    (void)fi;
    reply_synced(req);
}

const struct fuse_lowlevel_ops fs_operations = {
    .init = op_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .forget_multi = op_forget_multi,
    .getattr = op_getattr,
    .setattr = op_setattr,
    .mknod = op_mknod,
    .mkdir = op_mkdir,
    .unlink = op_unlink,
    .rmdir = op_rmdir,
    .symlink = op_symlink,
    .rename = op_rename,
    .link = op_link,
    .create = op_create,
    .open = op_open,
    .read = op_read,
    .write = op_write,
    .flush = op_flush,
    .release = op_release,
    .fsync = op_fsync,
    .opendir = op_opendir,
    .readdir = op_readdir,
    .readdirplus = op_readdirplus,
    .releasedir = op_releasedir,
    .fsyncdir = op_fsyncdir,
    .statfs = op_statfs,
    .setxattr = op_setxattr,
    .getxattr = op_getxattr,
    .listxattr = op_listxattr,
    .removexattr = op_removexattr,
    .fallocate = op_fallocate,
    .poll = op_poll,
};
