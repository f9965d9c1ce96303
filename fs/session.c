/*
 * session.c - what mkdir, chmod, chown, truncate, utimens and rmdir do.
 */
#include "fs_internal.h"

#include <errno.h>

/* ---- mkdir ------------------------------------------------------------------------------------
 */

int session_make(struct fs *fs, const struct node *parent, const char *name, uid_t uid, gid_t gid,
                 mode_t mode, struct hl_session *session)
{
    char id[HL_ID_MAX + 1];
    size_t len;

    if (fs->options->read_only)
        return -EROFS;
    if (parent->kind != NODE_SESSIONS)
        return -EPERM;
    int result = name_decode(name, id, &len);
    if (result < 0)
        return result;
    if (!hl_session_id_valid(id, len))
        return -EINVAL;
    /* A daemon that is not root cannot make anything another's. */
    if (fs->uid != 0) {
        uid = fs->uid;
        gid = fs->gid;
    }
    result = hl_session_create(fs->store, id, len, uid, gid, mode & 07777, session, NULL);
    if (result == 0)
        atomic_store(&fs->sessions_changed_ms, fs_now_ms());
    return result;
}

/* ---- setattr ----------------------------------------------------------------------------------
 */

static int change_session(struct fs *fs, const struct node *node, const struct stat *wanted,
                          int flags)
{
    unsigned what = 0;
    struct hl_session session;

    if (flags & FUSE_SET_ATTR_MODE)
        what |= HL_CHANGE_MODE;
    if (flags & FUSE_SET_ATTR_UID)
        what |= HL_CHANGE_UID;
    if (flags & FUSE_SET_ATTR_GID)
        what |= HL_CHANGE_GID;
    if (fs->options->read_only)
        return -EROFS;
    if ((what & HL_CHANGE_UID) && fs->uid != 0) {
        if (wanted->st_uid != fs->uid)
            return -EPERM;
        what &= ~HL_CHANGE_UID; /* it is shown as ours already */
    }
    if (what == 0)
        return 0;
    int result = hl_session_change(fs->store, node->session, what, wanted->st_uid, wanted->st_gid,
                                   wanted->st_mode & 07777, &session);
    if (result == 0)
        notify_session(fs, &session);
    return result;
}

int node_change(struct fs *fs, const struct node *node, const struct stat *wanted, int flags)
{
    const int ownership = FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID;

    /* Also in a read-only mount times may be set, to no effect. */
    if (flags & FUSE_SET_ATTR_SIZE) {
        if (!node_takes_writes(node))
            return fs->options->read_only ? -EROFS : -EPERM;
        if (fs->options->read_only && node->kind != NODE_CTL)
            return -EROFS;
    }
    if (!(flags & ownership))
        return 0;
    if (node->kind == NODE_SESSION)
        return change_session(fs, node, wanted, flags);
    /* They take their bits from the session; programs that keep those of what they copy are let. */
    if (!fs->options->read_only &&
        (node->kind == NODE_STATE || node->kind == NODE_DOCUMENT || node->kind == NODE_SCRATCH))
        return 0;
    return fs->options->read_only ? -EROFS : -EPERM;
}

/* ---- rmdir ------------------------------------------------------------------------------------
 */

int session_remove(struct fs *fs, const struct node *parent, const char *name)
{
    struct node node;

    if (fs->options->read_only)
        return -EROFS;
    int result = fs_resolve(fs, parent, name, &node);
    if (result < 0)
        return result;
    if (node.kind != NODE_SESSION)
        return -EPERM;
    result = hl_remove_empty(fs->store, node.session, NULL);
    if (result == 0)
        atomic_store(&fs->sessions_changed_ms, fs_now_ms());
    return result;
}
