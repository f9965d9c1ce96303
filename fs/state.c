/*
 * state.c - the names in state/ and what they stand for.
 *
 * A name is looked for among the documents first, so that one whose key looks like a scratch name
 * (an operation can set any key) is there like any other; then among the scratch files.
 */
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "change.h"
#include "draft.h"

/* ---- names ------------------------------------------------------------------------------------
 */

void state_name(struct state_name *parsed, const char *name)
{
    size_t len = strlen(name);

    parsed->name = name;
    parsed->why_no_key = name_decode(name, parsed->key, &parsed->key_len);
    if (parsed->why_no_key == 0 && !hl_session_id_valid(parsed->key, parsed->key_len))
        parsed->why_no_key = -EINVAL;
    parsed->is_key = parsed->why_no_key == 0;
    parsed->is_scratch = len > 0 && len <= NODE_NAME_MAX &&
                         (name[0] == '.' || name[0] == '#' || name[len - 1] == '~');
}

static struct draft *find_scratch(struct fs *fs, uint32_t session, const char *name)
{
    return draft_next_named(fs, session, DRAFT_SCRATCH, name, strlen(name), NULL);
}

/* The document of a name. -ENOENT. */
static int find_document(struct fs *fs, uint32_t session, const struct state_name *parsed,
                         struct hl_document *document)
{
    if (!parsed->is_key)
        return -ENOENT;
    return hl_document_find(fs->store, session, HL_AREA_STATE, parsed->key, parsed->key_len,
                            document);
}

int state_resolve(struct fs *fs, const struct node *directory, const char *name, struct node *node)
{
    struct state_name parsed;
    struct hl_document document;
    uint32_t session = directory->session;

    state_name(&parsed, name);
    int result = find_document(fs, session, &parsed, &document);
    if (result == 0)
        *node = (struct node){.kind = NODE_DOCUMENT, .session = session, .a = document.number};
    if (result != -ENOENT || !parsed.is_scratch)
        return result;
    drafts_lock(fs, session);
    const struct draft *draft = find_scratch(fs, session, name);
    if (draft) {
        *node = (struct node){.kind = NODE_SCRATCH, .session = session, .a = draft->number};
        result = 0;
    }
    drafts_unlock(fs, session);
    return result;
}

int state_resolve_unborn(struct fs *fs, const struct node *directory, const char *name, pid_t who,
                         struct node *node)
{
    struct state_name parsed;
    uint32_t session = directory->session;

    state_name(&parsed, name);
    if (!parsed.is_key)
        return -ENOENT;
    drafts_lock(fs, session);
    const struct draft *draft = draft_unborn(fs, session, parsed.key, parsed.key_len, who);
    if (draft)
        *node = (struct node){.kind = NODE_SCRATCH, .session = session, .a = draft->number};
    drafts_unlock(fs, session);
    return draft ? 0 : -ENOENT;
}

/* ---- attributes -------------------------------------------------------------------------------
 */

static void begin(const struct fs *fs, const struct node *node, const struct hl_session *session,
                  uint64_t ms, struct fs_attr *attr)
{
    fs_attr_begin(attr, node, S_IFREG | fs_file_mode(node->kind, session->mode),
                  fs_owner(fs, session), session->gid, ms);
}

void state_attr_document(struct fs *fs, const struct hl_session *session,
                         const struct hl_document *document, struct fs_attr *attr)
{
    struct node node = {.kind = NODE_DOCUMENT, .session = session->number, .a = document->number};

    begin(fs, &node, session, document->set_ms, attr);
    fs_attr_size(attr, (uint64_t)document->length + 1);
}

void state_attr_gone(struct fs *fs, const struct hl_session *session, const struct node *node,
                     uint64_t size, struct fs_attr *attr)
{
    begin(fs, node, session, session->changed_ms, attr);
    fs_attr_size(attr, size);
    attr->st.st_nlink = 0;
}

/* A document that is not there any more is a file without a name, for those who have it open. */
static int attr_document(struct fs *fs, const struct node *node, const struct hl_session *session,
                         struct fs_attr *attr)
{
    struct hl_document document;
    uint64_t size;

    int result = hl_document_by_number(fs->store, session->number, node->a, &document);
    if (result == 0 && document.area == HL_AREA_STATE) {
        state_attr_document(fs, session, &document, attr);
        return 0;
    }
    if (result < 0 && result != -ENOENT)
        return result;
    if (!document_is_open(fs, node, &size))
        return -ESTALE; /* the kernel looks its name up again */
    state_attr_gone(fs, session, node, size, attr);
    return 0;
}

static void attr_scratch(struct fs *fs, const struct draft *draft, const struct hl_session *session,
                         struct fs_attr *attr)
{
    struct node node = {.kind = NODE_SCRATCH, .session = session->number, .a = draft->number};

    begin(fs, &node, session, draft->changed_ms, attr);
    fs_attr_size(attr, draft->content.len);
}

/* With the session's lock held: of a file in memory, or of the document that it has become. */
static int attr_draft(struct fs *fs, const struct draft *draft, const struct hl_session *session,
                      struct fs_attr *attr)
{
    struct hl_document document;

    attr_scratch(fs, draft, session, attr);
    if (draft->place == DRAFT_SCRATCH || (draft->place == DRAFT_DOCUMENT && draft->unborn))
        return 0;
    int result = draft->place != DRAFT_DOCUMENT
                     ? -ENOENT
                     : hl_document_find(fs->store, session->number, HL_AREA_STATE, draft->name,
                                        draft->name_len, &document);
    if (result == -ENOENT)
        attr->st.st_nlink = 0;
    else if (result == 0 && !draft->pending)
        fs_attr_size(attr, (uint64_t)document.length + 1);
    return result == -ENOENT ? 0 : result;
}

int state_attr(struct fs *fs, const struct node *node, const struct hl_session *session,
               struct fs_attr *attr)
{
    if (node->kind == NODE_DOCUMENT)
        return attr_document(fs, node, session, attr);
    drafts_lock(fs, session->number);
    const struct draft *draft = draft_numbered(fs, session->number, node->a);
    int result = draft ? attr_draft(fs, draft, session, attr) : -ESTALE;
    drafts_unlock(fs, session->number);
    return result;
}

bool state_next_scratch(struct fs *fs, const struct hl_session *session, uint64_t *number,
                        char name[NODE_NAME_MAX + 1], struct fs_attr *attr)
{
    struct state_name parsed;
    struct hl_document document;
    const struct draft *draft;

    drafts_lock(fs, session->number);
    /* One whose name a document has been given since is not to be seen. */
    do {
        draft = draft_next_scratch(fs, session->number, *number);
        if (draft) {
            *number = draft->number;
            state_name(&parsed, draft->name);
        }
    } while (draft && find_document(fs, session->number, &parsed, &document) == 0);
    if (draft) {
        memcpy(name, draft->name, draft->name_len + 1);
        attr_scratch(fs, draft, session, attr);
    }
    drafts_unlock(fs, session->number);
    return draft != NULL;
}

/* ---- create -----------------------------------------------------------------------------------
 */

int state_may_change(struct fs *fs, fuse_req_t req, uint32_t session)
{
    struct hl_session found;

    if (fs->options->read_only)
        return -EROFS;
    int result = hl_session_by_number(fs->store, session, &found);
    if (result == 0 && !request_may(req, fs_owner(fs, &found), found.gid, found.mode, ACCESS_WRITE))
        result = -EACCES;
    return result;
}

/* Makes a file in memory and opens it. With the session's lock held. */
static int make(struct fs *fs, uint32_t session, const struct state_name *parsed, int flags,
                struct sender who, struct node *node, struct handle **handle)
{
    bool scratch = parsed->is_scratch;
    struct hl_error err = {0};
    struct draft *draft;

    int result = draft_new(fs, session, scratch ? DRAFT_SCRATCH : DRAFT_DOCUMENT,
                           scratch ? parsed->name : parsed->key,
                           scratch ? strlen(parsed->name) : parsed->key_len, who.uid, &draft, &err);
    if (result < 0) {
        fs_refused(fs, session, parsed->name, &err);
        return result;
    }
    if (!scratch) {
        draft_empty(fs, draft);
        draft->unborn = true;
    }
    *node = (struct node){.kind = NODE_SCRATCH, .session = session, .a = draft->number};
    result = document_open_draft(fs, node, draft, flags, who, handle);
    if (result < 0)
        draft_free(fs, draft);
    else
        draft_note_write(fs, draft, who.pid);
    return result;
}

/* With the session's lock held. NULL: nobody makes it. */
static struct draft *find_unborn(struct fs *fs, uint32_t session, const struct state_name *parsed)
{
    struct draft *draft = NULL;

    do {
        draft = draft_next_named(fs, session, DRAFT_DOCUMENT, parsed->key, parsed->key_len, draft);
    } while (draft && !draft->unborn);
    return draft;
}

bool state_is_being_made(struct fs *fs, const struct node *directory, const char *name)
{
    struct state_name parsed;

    state_name(&parsed, name);
    if (!parsed.is_key)
        return false;
    drafts_lock(fs, directory->session);
    bool made = find_unborn(fs, directory->session, &parsed) != NULL;
    drafts_unlock(fs, directory->session);
    return made;
}

/* With the session's lock held. -EEXIST: there is a document of that name. */
static int create(struct fs *fs, uint32_t session, const struct state_name *parsed, int flags,
                  struct sender who, struct node *node, struct handle **handle)
{
    struct hl_document document;
    struct draft *draft = NULL;

    int result = find_document(fs, session, parsed, &document);
    if (result != -ENOENT)
        return result < 0 ? result : -EEXIST;
    if (!parsed->is_scratch && !parsed->is_key)
        return parsed->why_no_key;
    if (parsed->is_scratch) {
        draft = find_scratch(fs, session, parsed->name);
    } else if (flags & O_EXCL) {
        draft = find_unborn(fs, session, parsed);
    }
    if (draft && (flags & O_EXCL))
        return -EEXIST;
    if (!draft)
        return make(fs, session, parsed, flags, who, node, handle);
    *node = (struct node){.kind = NODE_SCRATCH, .session = session, .a = draft->number};
    return document_open_draft(fs, node, draft, flags, who, handle);
}

int state_create(struct fs *fs, fuse_req_t req, const struct node *directory, const char *name,
                 int flags, struct node *node, struct handle **handle)
{
    uint32_t session = directory->session;
    struct state_name parsed;

    int result = state_may_change(fs, req, session);
    if (result < 0)
        return result;
    if (strlen(name) > NODE_NAME_MAX)
        return -ENAMETOOLONG;
    state_name(&parsed, name);
    drafts_lock(fs, session);
    result = create(fs, session, &parsed, flags, sender_of(req), node, handle);
    drafts_unlock(fs, session);
    open_refused(fs, req, session, O_WRONLY, result);
    if (result != -EEXIST || (flags & O_EXCL))
        return result;
    /* It was set by others since it was looked up. */
    result = state_resolve(fs, directory, name, node);
    return result < 0 ? result : document_open(fs, req, node, flags, handle);
}

/* ---- unlink -----------------------------------------------------------------------------------
 */

/* Removes what `who` made and did not set yet. With the session's lock held. */
static int remove_unborn(struct fs *fs, uint32_t session, const struct state_name *parsed,
                         pid_t who)
{
    struct draft *draft = NULL;
    int result = -ENOENT;

    while (parsed->is_key &&
           (draft = draft_unborn(fs, session, parsed->key, parsed->key_len, who)) != NULL) {
        draft_remove(fs, draft, DRAFT_REMOVED);
        result = 0;
    }
    return result;
}

/* With the session's lock held. */
static int remove_document(struct fs *fs, uint32_t session, const struct state_name *parsed,
                           struct hl_error *err)
{
    struct change change = {0};
    struct draft *draft;

    change_delete(&change, parsed->key, parsed->key_len);
    change_expect(&change, HL_AREA_STATE, parsed->key, parsed->key_len, HL_DOCUMENT_SEQ_ANY);
    int result = change_apply(fs, session, &change, NULL, err);
    if (result < 0)
        return result;
    while ((draft = draft_next_named(fs, session, DRAFT_DOCUMENT, parsed->key, parsed->key_len,
                                     NULL)) != NULL)
        draft_remove(fs, draft, DRAFT_REMOVED);
    return 0;
}

static int remove_name(struct fs *fs, uint32_t session, const struct state_name *parsed, pid_t who,
                       struct hl_error *err)
{
    struct hl_document document;

    int result = find_document(fs, session, parsed, &document);
    if (result == 0)
        result = remove_document(fs, session, parsed, err);
    if (result != -ENOENT)
        return result;
    err->text[0] = '\0';
    struct draft *draft = parsed->is_scratch ? find_scratch(fs, session, parsed->name) : NULL;
    if (!draft)
        return remove_unborn(fs, session, parsed, who);
    draft_remove(fs, draft, DRAFT_REMOVED);
    return 0;
}

int state_unlink(struct fs *fs, fuse_req_t req, const struct node *directory, const char *name)
{
    uint32_t session = directory->session;
    struct hl_error err = {0};
    struct state_name parsed;

    int result = state_may_change(fs, req, session);
    if (result < 0)
        return result;
    state_name(&parsed, name);
    drafts_lock(fs, session);
    result = remove_name(fs, session, &parsed, fuse_req_ctx(req)->pid, &err);
    drafts_unlock(fs, session);
    if (result < 0 && err.text[0] != '\0')
        fs_refused(fs, session, name, &err);
    return result;
}
