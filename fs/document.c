/*
 * document.c - an open file of a document or a scratch file.
 *
 * One that cannot write reads the document's value: the present one from each read at the beginning
 * on, so that what is read in several pieces is one value. One that can write has a draft, and
 * reads that as soon as it wrote.
 */
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "draft.h"

struct document_handle {
    struct handle base;
    struct node node;
    bool writes;
    struct draft *draft;  /* NULL: it only reads; what it holds is guarded by the session's lock */
    pthread_mutex_t lock; /* guards all below; under the session's */
    bool found;           /* document is what is read */
    struct hl_document document;
    _Atomic uint64_t size; /* of its value with the newline; read without the lock */
    char *line;            /* all of a long value with its newline, or NULL */
};

void document_refused(struct fs *fs, uint32_t session, const char *key, size_t len,
                      const struct hl_error *err)
{
    char name[NODE_NAME_MAX + 1];

    if (err->text[0] == '\0')
        return;
    if (name_encode(key, len, name) == 0)
        return;
    fs_refused(fs, session, name, err);
}

/* ---- reading ----------------------------------------------------------------------------------
 */

static void drop_line(struct fs *fs, struct document_handle *handle)
{
    if (handle->line)
        fs_line_free(fs, handle->base.user, handle->line, handle->document.length + 1);
    handle->line = NULL;
}

static void take(struct document_handle *handle, const struct hl_document *document)
{
    handle->document = *document;
    handle->found = true;
    atomic_store(&handle->size, (uint64_t)document->length + 1);
}

/* Looks the document up again: by its key if it has a draft, which may have been renamed. What was
 * found before stays where there is none any more, as a file that was removed while it is open. */
static int look(struct fs *fs, struct document_handle *handle)
{
    const struct draft *draft = handle->draft;
    const struct node *node = &handle->node;
    struct hl_document now;
    int result = -ENOENT;

    if (!draft)
        result = hl_document_by_number(fs->store, node->session, node->a, &now);
    else if (draft->place == DRAFT_DOCUMENT)
        result = hl_document_find(fs->store, node->session, HL_AREA_STATE, draft->name,
                                  draft->name_len, &now);
    if (result == -ENOENT || (result == 0 && now.area != HL_AREA_STATE))
        return 0;
    if (result < 0)
        return result;
    if (!handle->found || now.seq != handle->document.seq || now.offset != handle->document.offset)
        drop_line(fs, handle);
    take(handle, &now);
    return 0;
}

/* Holds all of a long value, so that it is not checked as a whole at each read. Whatever keeps it
 * from that is met again by the read that follows. */
static void hold_line(struct fs *fs, struct document_handle *handle)
{
    uint32_t size = handle->document.length + 1;

    char *line = fs_line_room(fs, handle->base.user, size);
    if (!line)
        return;
    if (hl_document_read(fs->store, handle->node.session, &handle->document, line, size, 0) ==
        (ssize_t)size)
        handle->line = line;
    else
        fs_line_free(fs, handle->base.user, line, size);
}

/* With the lock held, and the session's too if there is a draft. */
static ssize_t read_value(struct fs *fs, struct document_handle *handle, char *buffer, size_t size,
                          uint64_t offset)
{
    if (offset == 0 || !handle->found) {
        int result = look(fs, handle);
        if (result < 0)
            return result;
    }
    if (!handle->found)
        return 0;
    uint64_t length = (uint64_t)handle->document.length + 1;
    if (offset >= length)
        return 0;
    if (size > length - offset)
        size = (size_t)(length - offset);
    if (!handle->line && offset > 0 && length > FS_SMALL_LINE)
        hold_line(fs, handle);
    if (!handle->line) {
        ssize_t got = hl_document_read(fs->store, handle->node.session, &handle->document, buffer,
                                       size, offset);
        return got == -ENOENT ? -ESTALE : got; /* its record was dropped; there is a newer one */
    }
    memcpy(buffer, handle->line + offset, size);
    if (offset + size == length)
        drop_line(fs, handle);
    return (ssize_t)size;
}

static ssize_t document_read(struct fs *fs, struct handle *base, char *buffer, size_t size,
                             uint64_t offset)
{
    struct document_handle *handle = (struct document_handle *)base;
    struct draft *draft = handle->draft;
    ssize_t got;

    if (draft) {
        drafts_lock(fs, draft->session);
        if (offset == 0)
            draft_refresh(fs, draft);
    }
    if (draft && draft->has_text) {
        got = (ssize_t)content_read(&draft->content, buffer, size, offset);
    } else {
        pthread_mutex_lock(&handle->lock);
        got = read_value(fs, handle, buffer, size, offset);
        pthread_mutex_unlock(&handle->lock);
    }
    if (draft)
        drafts_unlock(fs, draft->session);
    return got;
}

/* ---- writing ----------------------------------------------------------------------------------
 */

/* Tells of an error, once after each write. With the session's lock held. */
static void tell(struct fs *fs, struct draft *draft, const struct hl_error *err)
{
    if (draft->told)
        return;
    draft->told = true;
    if (draft->place == DRAFT_SCRATCH)
        fs_refused(fs, draft->session, draft->name, err);
    else
        document_refused(fs, draft->session, draft->name, draft->name_len, err);
}

static void document_write(struct fs *fs, struct handle *base, fuse_req_t req, const char *data,
                           size_t len, uint64_t offset, bool sync)
{
    struct draft *draft = ((struct document_handle *)base)->draft;
    struct hl_error err = {0};
    struct parked *parked = NULL;
    bool stored = false;

    if (!draft) {
        fuse_reply_err(req, EBADF);
        return;
    }
    if (sync) {
        parked = parked_new(fs, req);
        if (!parked) {
            fuse_reply_err(req, ENOMEM);
            return;
        }
    }
    drafts_lock(fs, draft->session);
    draft_note_write(fs, draft, fuse_req_ctx(req)->pid);
    int result = draft_write(fs, draft, data, len, offset, &stored, &err);
    if (result < 0)
        tell(fs, draft, &err);
    drafts_unlock(fs, draft->session);
    if (stored && parked) {
        parked_sync_write(parked, len);
        return;
    }
    parked_drop(parked);
    if (result < 0)
        fuse_reply_err(req, fs_errno(result));
    else
        fuse_reply_write(req, len);
}

static int resize_handle(struct fs *fs, struct handle *base, uint64_t size, pid_t who)
{
    struct draft *draft = ((struct document_handle *)base)->draft;
    struct hl_error err = {0};

    if (!draft)
        return -EBADF;
    drafts_lock(fs, draft->session);
    draft_note_write(fs, draft, who);
    int result = draft_resize(fs, draft, size, &err);
    if (result < 0)
        tell(fs, draft, &err);
    drafts_unlock(fs, draft->session);
    return result;
}

static int document_flush(struct fs *fs, struct handle *base, bool *stored)
{
    struct draft *draft = ((struct document_handle *)base)->draft;
    struct hl_error err = {0};

    if (!draft)
        return 0;
    drafts_lock(fs, draft->session);
    int result = draft_settle(fs, draft, stored, &err);
    if (result < 0)
        tell(fs, draft, &err);
    drafts_unlock(fs, draft->session);
    return result;
}

static void document_release(struct fs *fs, struct handle *base)
{
    struct document_handle *handle = (struct document_handle *)base;
    struct draft *draft = handle->draft;
    struct hl_error err = {0};
    bool stored = false;

    handle_unlink(fs, base);
    if (draft) {
        uint32_t session = draft->session;
        drafts_lock(fs, session);
        draft->handles--;
        draft->writers -= handle->writes;
        if (handle->writes && draft->writers == 0 && draft_settle(fs, draft, &stored, &err) < 0)
            tell(fs, draft, &err);
        if (draft->handles == 0 && draft->place != DRAFT_SCRATCH)
            draft_free(fs, draft);
        drafts_unlock(fs, session);
    }
    drop_line(fs, handle);
    pthread_mutex_destroy(&handle->lock);
    handle_free(fs, base);
}

/* Its size is that of what it reads and writes at offsets. */
static void document_attr(struct fs *fs, struct handle *base, struct fs_attr *attr)
{
    struct draft *draft = ((struct document_handle *)base)->draft;

    if (!draft)
        return;
    drafts_lock(fs, draft->session);
    if (draft->has_text)
        fs_attr_size(attr, draft->content.len);
    drafts_unlock(fs, draft->session);
}

static const struct handle_type document_type = {.read = document_read,
                                                 .write = document_write,
                                                 .resize = resize_handle,
                                                 .attr = document_attr,
                                                 .flush = document_flush,
                                                 .release = document_release};

/* ---- opening ----------------------------------------------------------------------------------
 */

static int new_handle(struct fs *fs, const struct node *node, uid_t uid,
                      struct document_handle **handle)
{
    struct handle *base;

    int result = handle_new(fs, sizeof(struct document_handle), &document_type, uid, &base);
    if (result < 0)
        return result;
    struct document_handle *made = (struct document_handle *)base;
    made->node = *node;
    pthread_mutex_init(&made->lock, NULL);
    handle_link(fs, base);
    *handle = made;
    return 0;
}

static bool can_write(int flags)
{
    return (flags & O_ACCMODE) != O_RDONLY;
}

int document_open_draft(struct fs *fs, const struct node *node, struct draft *draft, int flags,
                        struct sender who, struct handle **handle)
{
    struct document_handle *made;

    int result = new_handle(fs, node, who.uid, &made);
    if (result < 0)
        return result;
    made->draft = draft;
    made->writes = can_write(flags);
    draft->handles++;
    draft->writers += made->writes;
    if (made->writes)
        draft_note_write(fs, draft, who.pid);
    if (made->writes && (flags & O_TRUNC))
        draft_empty(fs, draft);
    *handle = &made->base;
    return 0;
}

/* A new draft of the document with that key, for one more writer. */
static int open_to_write(struct fs *fs, const struct node *node, const char *key, size_t len,
                         int flags, struct sender who, bool unborn, struct handle **handle)
{
    struct draft *draft;

    int result = draft_new(fs, node->session, DRAFT_DOCUMENT, key, len, who.uid, &draft, NULL);
    if (result < 0)
        return result;
    if (node->kind == NODE_DOCUMENT)
        draft_of_document(fs, draft, node->a);
    draft->unborn = unborn;
    result = document_open_draft(fs, node, draft, flags, who, handle);
    if (result < 0)
        draft_free(fs, draft);
    return result;
}

static int open_document(struct fs *fs, const struct node *node, int flags, struct sender who,
                         struct handle **handle)
{
    struct hl_document document;
    struct document_handle *made;

    int result = hl_document_by_number(fs->store, node->session, node->a, &document);
    bool gone = result == -ENOENT; /* since it was looked up: whoever writes makes it again */
    if (gone && can_write(flags))
        result = hl_document_name(fs->store, node->session, node->a, &document);
    if (result == 0 && document.area != HL_AREA_STATE)
        result = -ENOENT;
    if (result < 0)
        return result;
    if (can_write(flags)) {
        drafts_lock(fs, node->session);
        result = open_to_write(fs, node, document.key, document.key_len, flags, who, gone, handle);
        drafts_unlock(fs, node->session);
        return result;
    }
    result = new_handle(fs, node, who.uid, &made);
    if (result < 0)
        return result;
    take(made, &document);
    *handle = &made->base;
    return 0;
}

/* A node that was a file in memory when it was looked up. With the session's lock held. */
static int open_scratch(struct fs *fs, const struct node *node, int flags, struct sender who,
                        struct handle **handle)
{
    struct draft *draft = draft_numbered(fs, node->session, node->a);

    if (!draft)
        return -ESTALE;
    if (draft->place != DRAFT_DOCUMENT)
        return document_open_draft(fs, node, draft, flags, who, handle);
    if (can_write(flags))
        return open_to_write(fs, node, draft->name, draft->name_len, flags, who, draft->unborn,
                             handle);
    return draft->unborn ? -ENOENT : -ESTALE;
}

int document_open(struct fs *fs, fuse_req_t req, const struct node *node, int flags,
                  struct handle **handle)
{
    struct sender who = sender_of(req);

    if (node->kind == NODE_DOCUMENT)
        return open_document(fs, node, flags, who, handle);
    drafts_lock(fs, node->session);
    int result = open_scratch(fs, node, flags, who, handle);
    drafts_unlock(fs, node->session);
    return result;
}

/* ---- without an open file ---------------------------------------------------------------------
 */

/* A draft of its own that is opened, truncated and closed. */
static int resize_document(struct fs *fs, const struct node *node, uint64_t size, struct sender who)
{
    struct hl_error err = {0};
    struct handle *handle = NULL;
    bool stored = false;

    int result = open_document(fs, node, O_RDWR, who, &handle);
    if (result < 0)
        return result;
    struct draft *draft = ((struct document_handle *)handle)->draft;
    drafts_lock(fs, node->session);
    result = draft_resize(fs, draft, size, &err);
    if (result == 0 && size == 0)
        result = hl_fail(&err, EINVAL, "an empty file is not JSON");
    if (result == 0)
        result = draft_settle(fs, draft, &stored, &err);
    if (result < 0)
        tell(fs, draft, &err);
    draft->pending = false;
    drafts_unlock(fs, node->session);
    document_release(fs, handle);
    return result;
}

static int resize_scratch(struct fs *fs, const struct node *node, uint64_t size, pid_t who)
{
    struct hl_error err = {0};
    int result = -ESTALE;

    drafts_lock(fs, node->session);
    struct draft *draft = draft_numbered(fs, node->session, node->a);
    if (draft) {
        draft_note_write(fs, draft, who);
        result = draft_resize(fs, draft, size, &err);
        if (result < 0)
            tell(fs, draft, &err);
    }
    drafts_unlock(fs, node->session);
    return result;
}

int document_resize(struct fs *fs, const struct node *node, uint64_t size, struct sender who)
{
    if (node->kind == NODE_DOCUMENT)
        return resize_document(fs, node, size, who);
    if (node->kind == NODE_SCRATCH)
        return resize_scratch(fs, node, size, who.pid);
    return 0;
}

bool document_is_open(struct fs *fs, const struct node *node, uint64_t *size)
{
    bool found = false;

    *size = 0;
    pthread_mutex_lock(&fs->handles_lock);
    for (struct handle *base = fs->handles; base; base = base->next) {
        struct document_handle *handle = (struct document_handle *)base;
        if (base->type != &document_type || !node_equal(&handle->node, node))
            continue;
        uint64_t its = atomic_load(&handle->size); /* 0: it did not read yet */
        *size = its > *size ? its : *size;
        found = true;
    }
    pthread_mutex_unlock(&fs->handles_lock);
    return found;
}

void document_own_attr(struct fs *fs, const struct node *node, pid_t who, struct fs_attr *attr)
{
    if (node->kind != NODE_DOCUMENT)
        return;
    drafts_lock(fs, node->session);
    const struct draft *draft = draft_pending_of(fs, node->session, node->a, who);
    if (draft)
        fs_attr_size(attr, draft->content.len);
    drafts_unlock(fs, node->session);
}
