/*
 * dir.c - listing directories. Nothing is built in memory: an entry's offset says where the next
 * begins.
 *
 * Offsets: 0 and 1 stand for `.` and `..`, then one for each fixed entry; from OFFSET_FIRST on they
 * are a record's seq, or a session's or document's number, plus OFFSET_FIRST; from OFFSET_SCRATCH
 * on a scratch file's number plus that.
 */
#include "listed.h"
#include "state.h"

#include <errno.h>

#define OFFSET_FIRST 64
#define OFFSET_SCRATCH ((off_t)1 << 62)

struct listing {
    struct fs *fs;
    fuse_req_t req;
    char *buffer;
    size_t size, used;
    bool plus;
    const struct hl_session *session; /* of the directory; NULL: it is no session's */
    const struct node *directory;
    off_t next; /* the offset behind the last entry */
    bool full;
    int result;
};

/* Adds an entry; false: the buffer is full, or it failed. With plus, the kernel is given an id for
 * it, if its attributes are known. What is in the table is not listed with an id: it would take
 * memory for each name. */
static bool add(struct listing *listing, const char *name, const struct node *node,
                const struct fs_attr *attr, off_t next)
{
    size_t room = listing->size - listing->used;
    char *at = listing->buffer + listing->used;
    size_t need;

    if (!listing->plus) {
        need = fuse_add_direntry(listing->req, at, room, name, &attr->st, next);
    } else {
        struct fuse_entry_param entry = {
            .generation = attr->generation,
            .attr = attr->st,
            .attr_timeout = attr->attr_keep,
            .entry_timeout = attr->entry_keep,
        };
        if (attr->st.st_nlink > 0 && !node_to_id(node, &entry.ino))
            entry.ino = 0;
        need = fuse_add_direntry_plus(listing->req, at, room, name, &entry, next);
    }
    listing->full = need > room;
    if (listing->full)
        return false;
    listing->used += need;
    listing->next = next;
    return true;
}

/* `.` and `..`: the kernel takes no id from them, so none may be counted. */
static bool add_dots(struct listing *listing, const char *name, const struct node *node, off_t next)
{
    struct fuse_entry_param entry = {.attr = {.st_ino = node_inode(node), .st_mode = S_IFDIR}};
    size_t room = listing->size - listing->used;
    char *at = listing->buffer + listing->used;

    size_t need = listing->plus
                      ? fuse_add_direntry_plus(listing->req, at, room, name, &entry, next)
                      : fuse_add_direntry(listing->req, at, room, name, &entry.attr, next);
    if (need > room)
        return false;
    listing->used += need;
    return true;
}

static struct node parent_of(const struct node *node)
{
    switch (node->kind) {
    case NODE_SESSION:
        return (struct node){.kind = NODE_SESSIONS};
    case NODE_STATE:
    case NODE_HISTORY:
    case NODE_ARCHIVES:
    case NODE_AT:
        return (struct node){.kind = NODE_SESSION, .session = node->session};
    case NODE_ARCHIVE:
        return (struct node){.kind = NODE_ARCHIVES, .session = node->session};
    case NODE_AT_SEQ:
        return (struct node){.kind = NODE_AT, .session = node->session};
    default:
        return (struct node){.kind = NODE_ROOT};
    }
}

/* What an entry stands for now. */
static struct node present(struct fs *fs, enum node_kind kind, uint32_t session)
{
    struct node node = {.kind = kind, .session = session};

    if (node_has_generation(kind))
        node.generation = dropped_generation(fs->dropped, session);
    return node;
}

/* The entries that each such directory has, from *offset on; leaves it behind the last one added.
 */
static bool add_fixed(struct listing *listing, const struct node *node, off_t *offset)
{
    size_t count;
    const struct node_entry *entries = node_entries(node->kind, &count);
    struct node parent = parent_of(node);

    for (; *offset < 2; ++*offset) {
        if (!add_dots(listing, *offset ? ".." : ".", *offset ? &parent : node, *offset + 1))
            return false;
    }
    while (*offset < (off_t)count + 2) {
        const struct node_entry *entry = &entries[*offset - 2];
        struct node child = present(listing->fs, entry->kind, node->session);
        struct fs_attr attr = {.st = {.st_ino = node_inode(&child)}};
        attr.st.st_mode =
            node_is_directory(&child) ? S_IFDIR : S_IFREG; /* enough for a plain one */
        if (listing->plus) {
            listing->result = listing->session
                                  ? fs_attr_file(listing->fs, &child, listing->session, &attr)
                                  : fs_attr(listing->fs, &child, &attr);
            if (listing->result == -ESTALE)
                continue; /* some of it was dropped just now: it is looked at again */
            if (listing->result < 0)
                return false;
        }
        if (!add(listing, entry->name, &child, &attr, *offset + 1))
            return false;
        ++*offset;
    }
    if (*offset < OFFSET_FIRST)
        *offset = OFFSET_FIRST;
    return true;
}

/* The store calls this and must not be called from it; attributes come from what it gives. */
static bool add_record(void *context, const struct hl_record *record)
{
    struct listing *listing = context;
    struct node node = {.kind = NODE_RECORD, .session = listing->session->number, .a = record->seq};
    struct fs_attr attr;
    char digits[24], *name = digits + sizeof digits - 1;
    uint64_t rest = record->seq;

    fs_attr_record(listing->fs, listing->session, record, &attr);
    *name = '\0';
    do /* a million of them may be listed */
        *--name = (char)('0' + rest % 10);
    while ((rest /= 10) > 0);
    return add(listing, name, &node, &attr, (off_t)(record->seq + 1 + OFFSET_FIRST));
}

static void list_records(struct listing *listing, const struct node *node, off_t offset)
{
    int result = hl_record_list(listing->fs->store, node->session, (uint64_t)offset - OFFSET_FIRST,
                                listing->plus, add_record, listing);
    if (result < 0)
        listing->result = result;
}

/* Likewise. Keys all have file names: else they would be no keys. */
static bool add_document(void *context, const struct hl_document *document)
{
    struct listing *listing = context;
    struct node node = {
        .kind = NODE_DOCUMENT, .session = listing->session->number, .a = document->number};
    struct fs_attr attr;
    char name[NODE_NAME_MAX + 1];

    if (name_encode(document->key, document->key_len, name) == 0)
        return true;
    state_attr_document(listing->fs, listing->session, document, &attr);
    return add(listing, name, &node, &attr, (off_t)(document->number + OFFSET_FIRST));
}

/* Documents, then scratch files. */
static void list_state(struct listing *listing, const struct node *node, off_t offset)
{
    struct node child = {.kind = NODE_SCRATCH, .session = node->session};
    char name[NODE_NAME_MAX + 1];
    struct fs_attr attr;

    if (offset < OFFSET_SCRATCH) {
        int result = hl_document_list(listing->fs->store, node->session, HL_AREA_STATE,
                                      (uint64_t)offset - OFFSET_FIRST, add_document, listing);
        if (result < 0)
            listing->result = result;
        offset = OFFSET_SCRATCH;
    }
    if (listing->full || listing->result < 0)
        return;
    child.a = (uint64_t)(offset - OFFSET_SCRATCH);
    while (state_next_scratch(listing->fs, listing->session, &child.a, name, &attr) &&
           add(listing, name, &child, &attr, (off_t)child.a + OFFSET_SCRATCH))
        ;
}

static void list_sessions(struct listing *listing, off_t offset)
{
    uint64_t after = (uint64_t)offset - OFFSET_FIRST;
    struct hl_session session;
    char name[NODE_NAME_MAX + 1];

    while (after < UINT32_MAX) {
        int result = hl_session_next(listing->fs->store, (uint32_t)after, &session);
        if (result == -ENOENT)
            return;
        if (result < 0) {
            listing->result = result;
            return;
        }
        after = session.number;
        /* An id whose name would be too long cannot be reached by name either. */
        if (name_encode(session.id, session.id_len, name) == 0)
            continue;
        struct node node = {.kind = NODE_SESSION, .session = session.number};
        struct fs_attr attr;
        fs_attr_session(listing->fs, &session, &attr);
        if (!add(listing, name, &node, &attr, (off_t)(after + OFFSET_FIRST)))
            return;
    }
}

/* What an entry of such a directory is. */
static struct node entry_of(struct fs *fs, const struct node *directory, uint64_t number)
{
    struct node node = {.session = directory->session, .a = number};

    switch (directory->kind) {
    case NODE_HISTORY:
        node.kind = NODE_HISTORY_KEY;
        node.generation = dropped_generation(fs->dropped, node.session);
        break;
    case NODE_ARCHIVES:
        node.kind = NODE_ARCHIVE;
        break;
    case NODE_ARCHIVE:
        node.kind = NODE_ARCHIVED;
        break;
    default:
        node.kind = NODE_AT_KEY;
        node.a = directory->a;
        node.b = number;
        break;
    }
    return node;
}

/* As add_record(). Of a history only the name is at hand, so its attributes are left out. */
static bool add_view(void *context, const struct hl_document *document)
{
    struct listing *listing = context;
    struct node node = entry_of(listing->fs, listing->directory, document->number);
    struct fs_attr attr = {.st = {.st_ino = node_inode(&node), .st_mode = S_IFREG}};
    char name[NODE_NAME_MAX + 1];

    if (name_encode(document->key, document->key_len, name) == 0)
        return true; /* it cannot be reached by name either */
    if (node.kind != NODE_HISTORY_KEY)
        view_attr_document(listing->fs, &node, listing->session, document, &attr);
    return add(listing, name, &node, &attr, (off_t)(document->number + OFFSET_FIRST));
}

static void list_view(struct listing *listing, off_t offset)
{
    struct hl_store *store = listing->fs->store;
    const struct node *directory = listing->directory;
    uint64_t after = (uint64_t)offset - OFFSET_FIRST;
    int result;

    switch (directory->kind) {
    case NODE_HISTORY:
        result = hl_history_list(store, directory->session, after, add_view, listing);
        break;
    case NODE_ARCHIVES:
        result =
            hl_document_list(store, directory->session, HL_AREA_ARCHIVES, after, add_view, listing);
        break;
    case NODE_ARCHIVE:
        result =
            hl_document_list(store, directory->session, directory->a, after, add_view, listing);
        break;
    default:
        result =
            hl_document_list_at(store, directory->session, directory->a, after, add_view, listing);
        break;
    }
    if (result < 0)
        listing->result = result;
}

/* Fills buffer; returns the bytes, and in *more the offset that more begins at, or 0. `session` is
 * the directory's, or NULL. */
static ssize_t list(struct fs *fs, fuse_req_t req, const struct node *node,
                    const struct hl_session *session, char *buffer, size_t size, off_t offset,
                    bool plus, off_t *more)
{
    struct listing listing = {
        .fs = fs,
        .req = req,
        .buffer = buffer,
        .size = size,
        .plus = plus,
        .session = session,
        .directory = node,
    };
    if (add_fixed(&listing, node, &offset)) {
        if (node->kind == NODE_SESSION)
            list_records(&listing, node, offset);
        else if (node->kind == NODE_STATE)
            list_state(&listing, node, offset);
        else if (node->kind == NODE_SESSIONS)
            list_sessions(&listing, offset);
        else if (node->session != 0 && node->kind != NODE_AT) /* `at` says none of its names */
            list_view(&listing, offset);
    }
    *more = listing.full && listing.result == 0 && offset >= OFFSET_FIRST ? listing.next : 0;
    /* What was listed before it failed is told first; the next call fails at the same place. */
    return listing.result < 0 && listing.used == 0 ? listing.result : (ssize_t)listing.used;
}

/* ---- answering --------------------------------------------------------------------------------
 */

/* What is asked for. */
struct ask {
    const struct node *node;
    const struct hl_session *session; /* the directory's, or NULL */
    struct listed_request request;
    bool plus;
};

/* Only names of records are listed ahead: they stay what they are. Where a ring takes the answers,
 * it gives them to the kernel when this thread comes back to it, and not before. */
static bool is_ahead(const struct fs *fs, const struct ask *ask)
{
    return !ask->plus && ask->node->kind == NODE_SESSION && !fs->options->io_uring;
}

/* Lists what will be asked for next, while the program works on what it got. */
static void list_next(struct fs *fs, const struct ask *ask, char *buffer, off_t offset)
{
    struct listed_request request = ask->request;
    off_t more = 0;
    request.offset = offset;
    uint64_t number = listed_begin(fs->listed, &request);
    if (number == 0)
        return;
    ssize_t got =
        list(fs, NULL, ask->node, ask->session, buffer, request.size, offset, false, &more);
    listed_keep(fs->listed, number, buffer, got > 0 ? (size_t)got : 0, more);
}

static void answer(struct fs *fs, fuse_req_t req, const struct ask *ask, char *buffer)
{
    const struct listed_request *request = &ask->request;
    bool ahead = is_ahead(fs, ask);
    off_t more = 0;
    ssize_t got = 0;

    if (ahead)
        got = (ssize_t)listed_take(fs->listed, request, buffer, &more);
    else
        listed_miss(fs->listed, request->reader);
    if (got == 0)
        got = list(fs, req, ask->node, ask->session, buffer, request->size, request->offset,
                   ask->plus, &more);
    reply_bytes(req, buffer, got);
    if (ahead && more > 0)
        list_next(fs, ask, buffer, more);
}

void dir_answer(struct fs *fs, fuse_req_t req, fuse_ino_t ino, uint64_t reader, size_t size,
                off_t offset, bool plus)
{
    struct node node;
    struct hl_session session;
    struct ask ask = {.node = &node, .request = {reader, offset, size}, .plus = plus};
    char *buffer = fs_buffer(fs, size);

    int result = buffer ? fs_node(fs, ino, &node) : -ENOMEM;
    if (result == 0 && !node_is_directory(&node))
        result = -ENOTDIR;
    if (result == 0 && offset < 0)
        result = -EINVAL;
    if (result == 0 && node.session != 0) {
        result = hl_session_by_number(fs->store, node.session, &session);
        ask.session = &session;
    }
    if (result < 0)
        reply_bytes(req, buffer, result);
    else
        answer(fs, req, &ask, buffer);
    fs_buffer_done(fs, buffer, size);
}
