/*
 * views.c - what operations made, to be looked at: history/, archive/ and at/.
 *
 * What lies in `at/SEQ` never changes, so the kernel may keep its pages; but it goes when the
 * history window moves on. All else here is asked for anew each time.
 */
#include "fs_internal.h"

#include <errno.h>

#define AT_KEEP 1.0 /* seconds for which the kernel need not ask whether it is there still */

/* ---- names ------------------------------------------------------------------------------------
 */

static int resolve_history(struct fs *fs, const struct node *parent, const char *key, size_t len,
                           struct node *node)
{
    uint64_t number, size, changed_ms;

    int result = hl_history_find(fs->store, parent->session, key, len, &number, &size, &changed_ms);
    if (result == 0)
        *node = (struct node){.kind = NODE_HISTORY_KEY, .session = parent->session, .a = number};
    return result;
}

static int resolve_archived(struct fs *fs, const struct node *parent, const char *key, size_t len,
                            struct node *node)
{
    bool in_archive = parent->kind == NODE_ARCHIVE;
    struct hl_document document;

    int result = hl_document_find(fs->store, parent->session,
                                  in_archive ? parent->a : HL_AREA_ARCHIVES, key, len, &document);
    if (result == 0)
        *node = (struct node){.kind = in_archive ? NODE_ARCHIVED : NODE_ARCHIVE,
                              .session = parent->session,
                              .a = document.number};
    return result;
}

static int resolve_at(struct fs *fs, const struct node *parent, const char *key, size_t len,
                      struct node *node)
{
    struct hl_document document;

    int result = hl_document_find_at(fs->store, parent->session, parent->a, key, len, &document);
    if (result == 0)
        *node = (struct node){
            .kind = NODE_AT_KEY, .session = parent->session, .a = parent->a, .b = document.number};
    return result;
}

int view_resolve(struct fs *fs, const struct node *parent, const char *name, struct node *node)
{
    char key[HL_KEY_MAX + 1];
    size_t len;

    if (parent->kind == NODE_AT) {
        *node = (struct node){.kind = NODE_AT_SEQ, .session = parent->session};
        return name_seq(name, &node->a) ? 0 : -ENOENT; /* whether it can be told: view_attr() */
    }
    int result = fs_key(name, key, &len);
    if (result < 0)
        return result;
    switch (parent->kind) {
    case NODE_HISTORY:
        return resolve_history(fs, parent, key, len, node);
    case NODE_ARCHIVES:
    case NODE_ARCHIVE:
        return resolve_archived(fs, parent, key, len, node);
    case NODE_AT_SEQ:
        return resolve_at(fs, parent, key, len, node);
    default:
        return -ENOENT;
    }
}

/* ---- attributes -------------------------------------------------------------------------------
 */

int view_document(struct fs *fs, const struct node *node, struct hl_document *document)
{
    if (node->kind != NODE_AT_KEY)
        return hl_document_by_number(fs->store, node->session, node->a, document);
    struct hl_document named;
    int result = hl_document_name(fs->store, node->session, node->b, &named);
    if (result < 0)
        return result;
    return hl_document_find_at(fs->store, node->session, node->a, named.key, named.key_len,
                               document);
}

void view_attr_document(struct fs *fs, const struct node *node, const struct hl_session *session,
                        const struct hl_document *document, struct fs_attr *attr)
{
    bool archive = node->kind == NODE_ARCHIVE;
    double keep = node->kind == NODE_AT_KEY ? AT_KEEP : 0;

    fs_attr_view(fs, node, session, archive ? 0 : (uint64_t)document->length + 1,
                 archive ? session->changed_ms : document->set_ms, keep, attr);
    /* The kernel finds nothing in a directory that was removed, as long as anybody has it open. One
     * made again has the same number, and is another directory. */
    if (archive)
        attr->generation = (uint32_t)document->changed;
}

static int attr_history(struct fs *fs, const struct node *node, const struct hl_session *session,
                        struct fs_attr *attr)
{
    struct hl_document named;
    uint64_t number, size, changed_ms;

    int result = hl_document_name(fs->store, node->session, node->a, &named);
    if (result == 0)
        result = hl_history_find(fs->store, node->session, named.key, named.key_len, &number, &size,
                                 &changed_ms);
    if (result == 0 && !dropped_size(fs->dropped, node, &size))
        result = -ESTALE;
    if (result == 0)
        fs_attr_view(fs, node, session, size, changed_ms, 0, attr);
    return result;
}

static int attr_at(struct fs *fs, const struct node *node, const struct hl_session *session,
                   struct fs_attr *attr)
{
    struct node last = {.kind = NODE_RECORD, .session = node->session, .a = node->a};
    struct hl_record record;

    if (!session->has_seq || node->a > session->last_seq || node->a < session->history_from)
        return -ENOENT;
    /* What never changes has a time that never does. */
    uint64_t ms = fs_record(fs, &last, &record) == 0 ? record.ts_ms : session->created_ms;
    fs_attr_view(fs, node, session, 0, ms, AT_KEEP, attr);
    return 0;
}

int view_attr(struct fs *fs, const struct node *node, const struct hl_session *session,
              struct fs_attr *attr)
{
    struct hl_document document;

    if (node->kind == NODE_HISTORY_KEY)
        return attr_history(fs, node, session, attr);
    if (node->kind == NODE_AT_SEQ)
        return attr_at(fs, node, session, attr);
    int result = view_document(fs, node, &document);
    if (result == 0)
        view_attr_document(fs, node, session, &document, attr);
    return result;
}
