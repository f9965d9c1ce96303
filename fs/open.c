/*
 * open.c - opening a file: whether it may be, how the kernel is to read it, and what stands behind
 * it.
 */
#include "follow.h"
#include "state.h"

#include <errno.h>
#include <fcntl.h>

/* Whether an open that the kernel lets through is let through by what is true now. */
static int check_open(struct fs *fs, fuse_req_t req, const struct node *node,
                      const struct hl_session *session, int flags)
{
    int access = flags & O_ACCMODE;
    bool writes = access != O_RDONLY || (flags & O_TRUNC);
    unsigned wanted = (access != O_WRONLY ? ACCESS_READ : 0) | (writes ? ACCESS_WRITE : 0);

    if (writes && fs->options->read_only && node->kind != NODE_CTL)
        return -EROFS;
    if (writes && !node_takes_writes(node))
        return -EACCES;
    if (session && !request_may(req, fs_owner(fs, session), session->gid,
                                fs_file_mode(node->kind, session->mode), wanted))
        return -EACCES;
    return 0;
}

static int open_record(struct fs *fs, const struct node *node, uid_t uid, struct fuse_file_info *fi,
                       struct handle **handle)
{
    uint32_t length;

    fi->keep_cache = 1;
    int result = hl_record_length(fs->store, node->session, node->a, &length);
    if (result < 0 || length <= FS_SMALL_LINE)
        return result;
    return record_open(fs, node, length, uid, handle);
}

static int open_document(struct fs *fs, const struct node *node, uid_t uid, struct handle **handle)
{
    struct hl_document document;

    int result = view_document(fs, node, &document);
    return result < 0 ? result : value_open(fs, node->session, &document, uid, handle);
}

/* Opens what is not a directory; sets what the kernel is to do with its pages. */
static int open_kind(struct fs *fs, fuse_req_t req, const struct node *node,
                     const struct hl_session *session, struct fuse_file_info *fi,
                     struct handle **handle)
{
    uid_t uid = fuse_req_ctx(req)->uid;

    fi->direct_io = 1;
    switch (node->kind) {
    case NODE_RECORD:
        fi->direct_io = 0;
        return open_record(fs, node, uid, fi, handle);
    case NODE_RANGE:
        /* Beside a writer nobody tells us when pages are old. */
        if (fs_range_closed(node, session) && !fs->options->read_only) {
            fi->direct_io = 0;
            fi->keep_cache = 1;
        }
        return stream_open(fs, node, !fi->direct_io, uid, handle);
    case NODE_AT_KEY:
        fi->direct_io = 0;
        fi->keep_cache = 1;
        return open_document(fs, node, uid, handle);
    case NODE_ARCHIVED:
        return open_document(fs, node, uid, handle);
    case NODE_LOG:
    case NODE_ROOT_LOG:
    case NODE_HISTORY_KEY:
        return stream_open(fs, node, false, uid, handle);
    case NODE_APPEND:
    case NODE_ROOT_APPEND:
        return append_open(fs, req, node, fi->flags, handle);
    case NODE_CTL:
        return ctl_open(fs, fi->flags, uid, handle);
    case NODE_DOCUMENT:
    case NODE_SCRATCH:
        return document_open(fs, req, node, fi->flags, handle);
    case NODE_FOLLOW:
        return follow_open(fs, node, uid, handle);
    case NODE_STATUS:
    case NODE_METRICS:
    case NODE_META:
    case NODE_LAST_ERROR:
        return text_open(fs, node, uid, handle);
    default:
        return -EISDIR;
    }
}

void open_refused(struct fs *fs, fuse_req_t req, uint32_t session, int flags, int result)
{
    struct hl_error err = {0};

    if (result != -EMFILE && result != -ENOBUFS)
        return;
    struct user *user = user_enter(fs, fuse_req_ctx(req)->uid);
    if (result == -EMFILE)
        share_refuse(fs, user, SHARE_FILES, OVER_USER, "the open files", &err);
    else
        share_refuse(fs, user, SHARE_TEXTS, fs->options->allow_other ? OVER_USER : OVER_ALL,
                     "what the open files hold to be read", &err);
    fs_refused_open(fs, session, (flags & O_ACCMODE) != O_RDONLY, &err);
    user_leave(fs, user);
}

int node_open(struct fs *fs, fuse_req_t req, const struct node *node, struct fuse_file_info *fi,
              struct handle **handle)
{
    struct hl_session session;
    const struct hl_session *owner = NULL;
    int result = 0;

    if (node->session != 0) {
        result = hl_session_by_number(fs->store, node->session, &session);
        owner = &session;
    }
    if (result == 0)
        result = check_open(fs, req, node, owner, fi->flags);
    if (result == 0) {
        result = open_kind(fs, req, node, owner, fi, handle);
        open_refused(fs, req, node->session, fi->flags, result);
    }
    /* Nobody waits for the flush of what cannot have been written. */
    if (result == 0)
        fi->noflush = !*handle || !(*handle)->type->flush;
    return result;
}
