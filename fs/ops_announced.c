/*
 * ops_announced.c - the requests by which the announcing thread has the kernel tell what happened
 * already (announce.h). They are answered as if it did it, and change nothing.
 */
#include "ops.h"

#include "announce.h"
#include "state.h"

#include <errno.h>

/* A document that is told of may be gone; it still has attributes, if no link. */
static int attr_announced(struct fs *fs, const struct node *node, struct fs_attr *attr)
{
    struct hl_session session;

    int result = fs_attr(fs, node, attr);
    if (result != -ESTALE || node->kind != NODE_DOCUMENT)
        return result;
    result = hl_session_by_number(fs->store, node->session, &session);
    if (result == 0)
        state_attr_gone(fs, &session, node, 0, attr);
    return result;
}

/* A name that is answered for is a link. */
static int fill_announced(fuse_req_t req, const struct node *node, struct fuse_entry_param *entry)
{
    struct fs_attr attr;

    int result = attr_announced(fs_of(req), node, &attr);
    attr.st.st_nlink = 1;
    return result < 0 ? result : entry_from_attr(fs_of(req), node, &attr, entry);
}

void announced_getattr(fuse_req_t req, const struct node *node)
{
    struct fs_attr attr;

    int result = attr_announced(fs_of(req), node, &attr);
    if (result < 0)
        reply_result(req, result);
    else
        fuse_reply_attr(req, &attr.st, attr.attr_keep);
}

void announced_lookup(fuse_req_t req, const struct node *directory)
{
    struct fuse_entry_param entry;
    struct node node;

    int result = announcer_document(fs_of(req)->announcer, directory, &node);
    if (result == 0)
        result = fill_announced(req, &node, &entry);
    if (result < 0)
        reply_result(req, result);
    else if (fuse_reply_entry(req, &entry) != 0)
        fs_forget(fs_of(req), entry.ino, 1);
}

/* What is made is closed, or written to and closed, and no more. */
static void begin_open(struct fuse_file_info *fi, bool document)
{
    fi->fh = 0;
    fi->noflush = 1;
    fi->keep_cache = 1;
    fi->direct_io = document;
}

/* Whether the document of that name is to be told to have been made or deleted. Not while somebody
 * makes it by a file, who the kernel has told of: that overtakes what came before. */
static bool is_told(struct fs *fs, const struct node *directory, const char *name,
                    enum hl_change change, struct node *node)
{
    return directory->kind == NODE_STATE && announcer_tells(fs->announcer, change, node) &&
           node->session == directory->session && !state_is_being_made(fs, directory, name);
}

/* What stands for the name, if it is that which is to be made now. */
static int find_made(fuse_req_t req, const struct node *directory, const char *name,
                     struct node *node)
{
    struct fs *fs = fs_of(req);

    if (directory->kind == NODE_STATE)
        return is_told(fs, directory, name, HL_DOCUMENT_MADE, node) ? 0 : -ENOENT;
    int result = fs_resolve(fs, directory, name, node);
    if (result == 0 && !announcer_makes(fs->announcer, req, node))
        result = -EEXIST;
    return result;
}

void announced_mkdir(fuse_req_t req, const struct node *directory, const char *name)
{
    struct node node;

    int result = find_made(req, directory, name, &node);
    if (result < 0)
        reply_result(req, result);
    else
        reply_node(req, &node);
}

void announced_create(fuse_req_t req, const struct node *directory, const char *name,
                      struct fuse_file_info *fi)
{
    struct fuse_entry_param entry;
    struct node node;

    int result = find_made(req, directory, name, &node);
    if (result == 0)
        result = fill_announced(req, &node, &entry);
    if (result < 0) {
        reply_result(req, result);
        return;
    }
    begin_open(fi, node.kind == NODE_DOCUMENT);
    if (fuse_reply_create(req, &entry, fi) != 0)
        fs_forget(fs_of(req), entry.ino, 1);
}

void announced_open(fuse_req_t req, const struct node *node, struct fuse_file_info *fi)
{
    struct node told;

    if (!announcer_tells(fs_of(req)->announcer, HL_DOCUMENT_CHANGED, &told) ||
        !node_equal(&told, node)) {
        fuse_reply_err(req, ENOENT);
        return;
    }
    begin_open(fi, true);
    fuse_reply_open(req, fi);
}

void announced_unlink(fuse_req_t req, const struct node *directory, const char *name)
{
    struct node told;

    fuse_reply_err(req,
                   is_told(fs_of(req), directory, name, HL_DOCUMENT_DELETED, &told) ? 0 : ENOENT);
}

/* Not if the name is another session's by now, which the kernel may have told of. */
static bool is_ended(struct fs *fs, const char *name, struct node *node)
{
    const struct node sessions = {.kind = NODE_SESSIONS};
    struct node other;

    return announcer_ends(fs->announcer, name, node) &&
           fs_resolve(fs, &sessions, name, &other) == -ENOENT;
}

bool announced_end(fuse_req_t req, const char *name)
{
    struct fs *fs = fs_of(req);
    struct fuse_entry_param entry;
    struct fs_attr attr;
    struct node node;

    if (!is_ended(fs, name, &node))
        return false;
    fs_attr_begin(&attr, &node, S_IFDIR | 0700, fs->uid, fs->gid, fs_now_ms());
    if (entry_from_attr(fs, &node, &attr, &entry) < 0)
        return false;
    if (fuse_reply_entry(req, &entry) != 0)
        fs_forget(fs, entry.ino, 1);
    return true;
}

void announced_rmdir(fuse_req_t req, const struct node *directory, const char *name)
{
    struct node node;
    bool told = directory->kind == NODE_SESSIONS && is_ended(fs_of(req), name, &node);

    fuse_reply_err(req, told ? 0 : ENOENT);
}
