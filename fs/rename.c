/*
 * rename.c - all renames of the mount. What can be renamed lies in state/ or in an archive of the
 * same session; between state/ of two sessions EXDEV has programs copy; the rest stays where it is.
 *
 *     key to key            one batch: set the new one, delete the old one
 *     scratch file to key   the bytes are checked and set; the scratch file is gone
 *     key to scratch file   the document is deleted; a scratch file holds its value
 *     scratch to scratch    only names
 *     state/ to archive/X   archive, and back restore: nothing is copied
 *     exchange              of two documents: two sets in one batch; of two scratch files
 *
 * Open files go with their file, but in an exchange of documents: there only the values change
 * places. What the renaming program itself holds in one, not set yet, is
 * what the rename is about: if it is whole it is set under the new name; if not, the file only
 * changes its name, and what is written to it later is set under that.
 */
#include "state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "change.h"
#include "draft.h"

#define TRIES 64 /* as often others may change a document between the look and the append */

/* A rename under way; the session's lock is held. */
struct rename {
    struct fs *fs;
    uint32_t session;
    pid_t who;
    uid_t uid;
    bool replace; /* what is there under the new name */
    struct state_name from, to;
    struct hl_error *err;

    /* What there is, looked at before each try. */
    bool is_document, has_target;
    struct hl_document document, target; /* of the old and of the new name */
    struct draft *scratch, *target_scratch;
    struct draft *held; /* of a document: what who wrote to it last and is not set */
};

/* ---- looking ----------------------------------------------------------------------------------
 */

static int find_document(const struct rename *rename, const struct state_name *name,
                         struct hl_document *document, bool *found)
{
    int result = -ENOENT;

    if (name->is_key)
        result = hl_document_find(rename->fs->store, rename->session, HL_AREA_STATE, name->key,
                                  name->key_len, document);
    *found = result == 0;
    return result == -ENOENT ? 0 : result;
}

static struct draft *find_scratch(const struct rename *rename, const struct state_name *name)
{
    return name->is_scratch ? draft_next_named(rename->fs, rename->session, DRAFT_SCRATCH,
                                               name->name, strlen(name->name), NULL)
                            : NULL;
}

static struct draft *next_draft(const struct rename *rename, const struct state_name *name,
                                struct draft *last)
{
    return draft_next_named(rename->fs, rename->session, DRAFT_DOCUMENT, name->key, name->key_len,
                            last);
}

static struct draft *find_held(const struct rename *rename)
{
    struct draft *held = NULL;

    for (struct draft *draft = next_draft(rename, &rename->from, NULL); draft;
         draft = next_draft(rename, &rename->from, draft)) {
        if (draft->pending && (rename->is_document || draft->unborn) &&
            (!held || draft->written > held->written) && same_process(rename->who, draft->writer))
            held = draft;
    }
    return held;
}

/* What the old name is. -ENOENT: nothing. */
static int look_at_source(struct rename *rename)
{
    int result = find_document(rename, &rename->from, &rename->document, &rename->is_document);
    if (result < 0)
        return result;
    rename->scratch = rename->is_document ? NULL : find_scratch(rename, &rename->from);
    rename->held = rename->from.is_key && !rename->scratch ? find_held(rename) : NULL;
    return rename->is_document || rename->scratch || rename->held ? 0 : -ENOENT;
}

static int look_at_target(struct rename *rename)
{
    int result = find_document(rename, &rename->to, &rename->target, &rename->has_target);
    if (result < 0)
        return result;
    rename->target_scratch = rename->has_target ? NULL : find_scratch(rename, &rename->to);
    if (!rename->to.is_scratch && !rename->to.is_key)
        return rename->to.why_no_key;
    return !rename->replace && (rename->has_target || rename->target_scratch) ? -EEXIST : 0;
}

/* ---- values -----------------------------------------------------------------------------------
 */

/* Reads all of a document's value with its newline; the caller frees *text. */
static int read_value(const struct rename *rename, const struct hl_document *document, char **text)
{
    size_t size = (size_t)document->length + 1, have = 0;
    char *at = malloc(size);

    if (!at)
        return hl_fail(rename->err, ENOMEM, "out of memory");
    while (have < size) {
        ssize_t got = hl_document_read(rename->fs->store, rename->session, document, at + have,
                                       size - have, have);
        if (got <= 0) {
            free(at);
            return got == -ENOENT ? -ESTALE
                                  : hl_fail(rename->err, got < 0 ? (int)-got : EIO,
                                            "its value cannot be read");
        }
        have += (size_t)got;
    }
    *text = at;
    return 0;
}

/* Sets a key to a document's value. */
static int set_to_value(const struct rename *rename, struct change *change,
                        const struct state_name *name, const struct hl_document *document)
{
    char *text;

    int result = read_value(rename, document, &text);
    if (result < 0)
        return result;
    change_set(change, name->key, name->key_len, text, document->length, document->length);
    free(text);
    return 0;
}

static void set_to_draft(struct change *change, const struct state_name *name,
                         const struct draft *draft)
{
    change_set(change, name->key, name->key_len, draft->content.at, draft->content.len,
               draft->value.length);
}

/* Whether what is held is to be set under the name: it is whole. */
static bool is_whole(const struct rename *rename, const struct state_name *name)
{
    return rename->held && !rename->held->refused &&
           draft_check(rename->fs, rename->held, name->key, name->key_len, NULL) >
               HL_VALUE_UNFINISHED;
}

/* Appends the change; the source document must be what was looked at. */
static int apply(const struct rename *rename, struct change *change, uint64_t *seq)
{
    if (rename->is_document)
        change_expect(change, HL_AREA_STATE, rename->from.key, rename->from.key_len,
                      rename->document.changed);
    return change_apply(rename->fs, rename->session, change, seq, rename->err);
}

/* ---- open files -------------------------------------------------------------------------------
 */

/* The files that are open under a name lose it. */
static void remove_drafts(const struct rename *rename, const struct state_name *name,
                          enum draft_place place)
{
    struct draft *draft;

    while ((draft = next_draft(rename, name, NULL)) != NULL)
        draft_remove(rename->fs, draft, place);
}

/* The files that are open under the old name are open under the new key; what others make under the
 * old name, and did not set, stays. */
static void move_drafts(const struct rename *rename, bool unborn)
{
    struct draft *next, *draft = next_draft(rename, &rename->from, NULL);

    for (; draft; draft = next) {
        next = next_draft(rename, &rename->from, draft);
        if (!rename->is_document && !same_process(rename->who, draft->writer))
            continue;
        draft_move(rename->fs, draft, DRAFT_DOCUMENT, rename->to.key, rename->to.key_len);
        draft->unborn = unborn;
    }
}

/* ---- within state/ ----------------------------------------------------------------------------
 */

static int document_to_key(struct rename *rename)
{
    struct change change = {0};
    struct draft *held = is_whole(rename, &rename->to) ? rename->held : NULL;
    uint64_t seq;
    int result = 0;

    if (held)
        set_to_draft(&change, &rename->to, held);
    else if (rename->is_document)
        result = set_to_value(rename, &change, &rename->to, &rename->document);
    if (result < 0)
        return result;
    if (rename->is_document)
        change_delete_moved(&change, rename->from.key, rename->from.key_len, rename->to.key,
                            rename->to.key_len);
    if (!rename->replace)
        change_expect_absent(&change, HL_AREA_STATE, rename->to.key, rename->to.key_len);
    result = apply(rename, &change, &seq);
    if (result < 0)
        return result;
    remove_drafts(rename, &rename->to, DRAFT_REMOVED);
    bool there = held || rename->is_document || rename->has_target;
    move_drafts(rename, !there);
    if (held)
        draft_was_set(held, rename->is_document ? seq - 1 : seq);
    return 0;
}

/* An open scratch file becomes an open file of the document. */
static void turn_into_document(struct rename *rename, struct draft *draft, bool set, uint64_t seq)
{
    draft_move(rename->fs, draft, DRAFT_DOCUMENT, rename->to.key, rename->to.key_len);
    draft->in_order = draft->pending = true; /* it was looked at from its beginning to its end */
    draft->unborn = !set && !rename->has_target;
    draft->refused = 0;
    if (set)
        draft_was_set(draft, seq);
}

static int scratch_to_key(struct rename *rename)
{
    struct change change = {0};
    struct draft *draft = rename->scratch;
    uint64_t seq = 0;

    draft->in_order = false; /* a scratch file is looked at by nobody until now */
    int state = draft_check(rename->fs, draft, rename->to.key, rename->to.key_len, rename->err);
    if (state == HL_VALUE_UNFINISHED && draft->writers == 0)
        state = -EINVAL;
    if (state < 0)
        return state;
    rename->err->text[0] = '\0';
    bool set = state > HL_VALUE_UNFINISHED;
    int result =
        draft->handles > 0 ? draft_prepare(rename->fs, draft, DRAFT_DOCUMENT, rename->err) : 0;
    if (result == 0 && set) {
        set_to_draft(&change, &rename->to, draft);
        if (!rename->replace)
            change_expect_absent(&change, HL_AREA_STATE, rename->to.key, rename->to.key_len);
        result = apply(rename, &change, &seq);
    }
    if (result < 0)
        return result;
    remove_drafts(rename, &rename->to, DRAFT_REMOVED);
    if (draft->handles == 0)
        draft_free(rename->fs, draft);
    else
        turn_into_document(rename, draft, set, seq);
    return 0;
}

/* A new scratch file that holds the document's value. */
static int copy_to_scratch(struct rename *rename, struct draft **made)
{
    struct draft *draft;

    int result = draft_new(rename->fs, rename->session, DRAFT_SCRATCH, rename->to.name,
                           strlen(rename->to.name), rename->uid, &draft, rename->err);
    if (result < 0)
        return result;
    char *text = NULL;
    result = read_value(rename, &rename->document, &text);
    if (result == 0)
        result = content_write(rename->fs, &draft->content, 0, text,
                               (size_t)rename->document.length + 1, rename->err);
    free(text);
    if (result < 0) {
        draft_free(rename->fs, draft);
        return result;
    }
    draft->changed_ms = rename->document.set_ms;
    *made = draft;
    return 0;
}

static int document_to_scratch(struct rename *rename)
{
    struct change change = {0};
    struct draft *target = rename->target_scratch, *made = NULL;
    int result;

    if (rename->held)
        result = draft_prepare(rename->fs, rename->held, DRAFT_SCRATCH, rename->err);
    else
        result = copy_to_scratch(rename, &made);
    if (result == 0 && rename->is_document) {
        change_delete(&change, rename->from.key, rename->from.key_len);
        result = apply(rename, &change, NULL);
    }
    if (result < 0) {
        if (made)
            draft_free(rename->fs, made);
        return result;
    }
    if (target)
        draft_remove(rename->fs, target, DRAFT_REMOVED);
    if (rename->held)
        draft_move(rename->fs, rename->held, DRAFT_SCRATCH, rename->to.name,
                   strlen(rename->to.name));
    if (rename->is_document)
        remove_drafts(rename, &rename->from, DRAFT_REMOVED);
    return 0;
}

static int scratch_to_scratch(struct rename *rename)
{
    if (rename->target_scratch)
        draft_remove(rename->fs, rename->target_scratch, DRAFT_REMOVED);
    draft_move(rename->fs, rename->scratch, DRAFT_SCRATCH, rename->to.name,
               strlen(rename->to.name));
    return 0;
}

static int try_within(struct rename *rename)
{
    int result = look_at_source(rename);
    if (result == 0)
        result = look_at_target(rename);
    if (result < 0)
        return result;
    bool to_scratch = rename->to.is_scratch && !rename->has_target;
    if (rename->scratch)
        return to_scratch ? scratch_to_scratch(rename) : scratch_to_key(rename);
    return to_scratch ? document_to_scratch(rename) : document_to_key(rename);
}

static int try_exchange(struct rename *rename)
{
    struct change change = {0};

    int result = look_at_source(rename);
    if (result == 0)
        result = look_at_target(rename);
    if (result < 0)
        return result;
    if (rename->scratch && rename->target_scratch) {
        draft_move(rename->fs, rename->target_scratch, DRAFT_SCRATCH, rename->from.name,
                   strlen(rename->from.name));
        draft_move(rename->fs, rename->scratch, DRAFT_SCRATCH, rename->to.name,
                   strlen(rename->to.name));
        return 0;
    }
    if (!rename->has_target && !rename->target_scratch)
        return -ENOENT;
    if (!rename->is_document || !rename->has_target)
        return -EINVAL;
    result = set_to_value(rename, &change, &rename->to, &rename->document);
    if (result == 0)
        result = set_to_value(rename, &change, &rename->from, &rename->target);
    if (result < 0) {
        change_free(&change);
        return result;
    }
    change_expect(&change, HL_AREA_STATE, rename->to.key, rename->to.key_len,
                  rename->target.changed);
    return apply(rename, &change, NULL);
}

/* ---- to archive/ and back ---------------------------------------------------------------------
 */

/* The archive of that number: only its name and number. */
static int find_archive(const struct rename *rename, uint64_t number, struct hl_document *archive)
{
    int result = hl_document_name(rename->fs->store, rename->session, number, archive);
    if (result == -ENOENT || (result == 0 && archive->area != HL_AREA_ARCHIVES))
        return -ESTALE;
    return result;
}

static int try_archive(struct rename *rename, const struct hl_document *archive)
{
    struct change change = {0};
    const struct state_name *from = &rename->from, *to = &rename->to;

    int result = look_at_source(rename);
    if (result < 0)
        return result;
    if (rename->scratch)
        return -EPERM;
    if (!to->is_key)
        return to->why_no_key;
    bool set = is_whole(rename, from);
    if (!set && !rename->is_document)
        return hl_fail(rename->err, EINVAL, "it has no value yet");
    if (set)
        set_to_draft(&change, from, rename->held);
    change_archive(&change, archive, from->key, from->key_len, to->key, to->key_len);
    change_expect(&change, HL_AREA_ARCHIVES, archive->key, archive->key_len, HL_DOCUMENT_SEQ_ANY);
    if (!rename->replace)
        change_expect_absent(&change, archive->number, to->key, to->key_len);
    uint64_t seq;
    result = apply(rename, &change, &seq);
    if (result < 0)
        return result;
    if (set)
        draft_was_set(rename->held, seq - 1);
    remove_drafts(rename, from, DRAFT_ARCHIVED);
    return 0;
}

static int try_restore(struct rename *rename, const struct hl_document *archive)
{
    struct change change = {0};
    const struct state_name *from = &rename->from, *to = &rename->to;
    struct hl_document document;

    if (!from->is_key)
        return -ENOENT;
    int result = hl_document_find(rename->fs->store, rename->session, archive->number, from->key,
                                  from->key_len, &document);
    if (result == 0)
        result = look_at_target(rename);
    if (result < 0)
        return result;
    if (to->is_scratch && !rename->has_target)
        return -EPERM;
    change_restore(&change, archive, from->key, from->key_len, to->key, to->key_len);
    change_expect(&change, archive->number, from->key, from->key_len, document.changed);
    if (!rename->replace)
        change_expect_absent(&change, HL_AREA_STATE, to->key, to->key_len);
    result = change_apply(rename->fs, rename->session, &change, NULL, rename->err);
    if (result == 0)
        remove_drafts(rename, to, DRAFT_REMOVED);
    return result;
}

/* ---- all --------------------------------------------------------------------------------------
 */

enum way { WITHIN, EXCHANGE, ARCHIVE, RESTORE };

/* Which way it goes, or -EPERM, -EXDEV, -EINVAL. */
static int find_way(const struct node *from, const struct node *to, unsigned flags)
{
    const unsigned known = RENAME_NOREPLACE | RENAME_EXCHANGE;

    if ((flags & ~known) || flags == known)
        return -EINVAL;
    bool same = from->session == to->session;
    if (from->kind == NODE_STATE && to->kind == NODE_STATE)
        return !same ? -EXDEV : flags & RENAME_EXCHANGE ? EXCHANGE : WITHIN;
    if (!same || from->session == 0)
        return -EPERM;
    if (flags & RENAME_EXCHANGE)
        return -EINVAL;
    if (from->kind == NODE_STATE && to->kind == NODE_ARCHIVE)
        return ARCHIVE;
    if (from->kind == NODE_ARCHIVE && to->kind == NODE_STATE)
        return RESTORE;
    return -EPERM;
}

static int try_once(struct rename *rename, enum way way, const struct node *from,
                    const struct node *to)
{
    struct hl_document archive;
    int result;

    switch (way) {
    case WITHIN:
        return try_within(rename);
    case EXCHANGE:
        return try_exchange(rename);
    case ARCHIVE:
        result = find_archive(rename, to->a, &archive);
        return result < 0 ? result : try_archive(rename, &archive);
    default:
        result = find_archive(rename, from->a, &archive);
        return result < 0 ? result : try_restore(rename, &archive);
    }
}

/* Whether a refusal says something about what was to be set, and not only of names. */
static bool is_to_be_told(int result)
{
    return result != -ENOENT && result != -EEXIST && result != -ESTALE && result != -EPERM;
}

int state_rename(struct fs *fs, fuse_req_t req, const struct node *from, const char *name,
                 const struct node *to, const char *new_name, unsigned flags)
{
    struct hl_error err = {0};
    struct rename rename = {.fs = fs,
                            .session = from->session,
                            .who = fuse_req_ctx(req)->pid,
                            .uid = fuse_req_ctx(req)->uid,
                            .replace = !(flags & RENAME_NOREPLACE),
                            .err = &err};

    if (fs->options->read_only)
        return -EROFS;
    int way = find_way(from, to, flags);
    if (way < 0)
        return way;
    int result = state_may_change(fs, req, from->session);
    if (result < 0)
        return result;
    if (strlen(new_name) > NODE_NAME_MAX)
        return -ENAMETOOLONG;
    state_name(&rename.from, name);
    state_name(&rename.to, new_name);
    if (from->kind == to->kind && strcmp(name, new_name) == 0)
        return 0;
    drafts_lock(fs, from->session);
    for (int i = 0; i < TRIES; i++) {
        err = (struct hl_error){0};
        result = try_once(&rename, (enum way)way, from, to);
        if (result != -ESTALE)
            break;
    }
    drafts_unlock(fs, from->session);
    if (result < 0 && err.text[0] != '\0' && is_to_be_told(result))
        fs_refused(fs, from->session, new_name, &err);
    return result;
}
