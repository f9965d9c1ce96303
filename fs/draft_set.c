/*
 * draft_set.c - how what is written becomes a document's value.
 *
 * A draft written in order, from an empty file to its end, is looked at with every write: what
 * cannot become JSON is refused there and then, and a value that is whole with a newline behind it
 * is set, since most programs ignore what their last close says. Written in any other way it is
 * looked at when it is flushed. Appending (O_APPEND) counts as in order, from the present value on.
 *
 * A write that was refused changed nothing, but its program may not heed that; so what it wrote
 * before is not set either until a write was taken again.
 */
#include "draft.h"

#include <errno.h>
#include <string.h>

#include "change.h"

static void forget_text(struct fs *fs, struct draft *draft)
{
    content_free(fs, &draft->content);
    draft->has_text = draft->in_order = draft->pending = draft->was_set = false;
    draft->refused = 0;
    draft->value = (struct hl_value){0};
}

void draft_empty(struct fs *fs, struct draft *draft)
{
    forget_text(fs, draft);
    draft->has_text = draft->in_order = draft->pending = true;
}

void draft_was_set(struct draft *draft, uint64_t seq)
{
    draft->set_by = seq;
    draft->was_set = true;
    draft->pending = draft->unborn = false;
    draft->refused = 0;
}

static int find(struct fs *fs, const struct draft *draft, struct hl_document *document)
{
    return hl_document_find(fs->store, draft->session, HL_AREA_STATE, draft->name, draft->name_len,
                            document);
}

void draft_refresh(struct fs *fs, struct draft *draft)
{
    struct hl_document document;

    if (draft->place != DRAFT_DOCUMENT || !draft->has_text || draft->pending)
        return;
    int result = find(fs, draft, &document);
    if (result == -ENOENT || (result == 0 && document.changed != draft->set_by))
        forget_text(fs, draft);
}

/* ---- beginning with what there is -------------------------------------------------------------
 */

static int read_value(struct fs *fs, const struct draft *draft, const struct hl_document *document,
                      char *at, struct hl_error *err)
{
    size_t size = (size_t)document->length + 1, have = 0;

    while (have < size) {
        ssize_t got =
            hl_document_read(fs->store, draft->session, document, at + have, size - have, have);
        if (got < 0)
            return hl_fail(err, (int)-got, "its present value cannot be read: %s",
                           strerror((int)-got));
        if (got == 0)
            return hl_fail(err, EIO, "its present value ends too early");
        have += (size_t)got;
    }
    return 0;
}

/* Gives the draft a text: what the document holds now. */
static int load(struct fs *fs, struct draft *draft, struct hl_error *err)
{
    struct hl_document document;

    if (draft->has_text)
        return 0;
    int result = draft->place == DRAFT_DOCUMENT ? find(fs, draft, &document) : -ENOENT;
    if (result == -ENOENT) {
        draft->has_text = draft->in_order = true;
        return 0;
    }
    if (result < 0)
        return hl_fail(err, -result, "%s", strerror(-result));
    char *at = content_grow(fs, &draft->content, (size_t)document.length + 1, err);
    if (!at)
        return -err->code;
    result = read_value(fs, draft, &document, at, err);
    if (result < 0) {
        content_free(fs, &draft->content);
        return result;
    }
    draft->has_text = true;
    draft->set_by = document.changed;
    return 0;
}

/* Takes the text, which nobody has looked at, for written in order. */
static void take_in_order(struct draft *draft)
{
    struct hl_value value = {0};

    if (hl_value_check(&value, draft->content.at, draft->content.len, SIZE_MAX, NULL) < 0)
        return;
    draft->value = value;
    draft->in_order = true;
}

/* ---- setting ----------------------------------------------------------------------------------
 */

static int set(struct fs *fs, struct draft *draft, size_t length, struct hl_error *err)
{
    struct change change = {0};
    uint64_t seq;

    change_set(&change, draft->name, draft->name_len, draft->content.at, draft->content.len,
               length);
    int result = change_apply(fs, draft->session, &change, &seq, err);
    if (result == 0)
        draft_was_set(draft, seq);
    return result;
}

int draft_check(struct fs *fs, struct draft *draft, const char *key, size_t len,
                struct hl_error *err)
{
    if (!draft->in_order)
        draft->value = (struct hl_value){0};
    return hl_value_check(&draft->value, draft->content.at, draft->content.len,
                          change_room(fs, key, len), err);
}

int draft_settle(struct fs *fs, struct draft *draft, bool *stored, struct hl_error *err)
{
    if (draft->place == DRAFT_SCRATCH || draft->place == DRAFT_REMOVED)
        return 0;
    if (draft->refused)
        return -draft->refused;
    if (!draft->pending || draft->content.len == 0)
        return 0;
    if (draft->place == DRAFT_ARCHIVED)
        return hl_fail(err, ESTALE, "it was moved to archive/ while it was being written");
    int result = draft_check(fs, draft, draft->name, draft->name_len, err);
    if (result == HL_VALUE_UNFINISHED)
        result = -EINVAL;
    if (result < 0)
        return result;
    result = set(fs, draft, draft->value.length, err);
    *stored = result == 0;
    return result;
}

/* ---- writing ----------------------------------------------------------------------------------
 */

static int write_at_end(struct fs *fs, struct draft *draft, const char *data, size_t len,
                        bool *stored, struct hl_error *err)
{
    struct hl_value value = draft->value;
    size_t before = draft->content.len;

    int result = content_write(fs, &draft->content, before, data, len, err);
    if (result < 0)
        return result;
    result = hl_value_check(&value, draft->content.at, draft->content.len,
                            change_room(fs, draft->name, draft->name_len), err);
    /* White space behind a value that this program set changes nothing. */
    bool same = draft->was_set && !draft->pending && value.length == draft->value.length;
    if (result == HL_VALUE_ENDED && !same) {
        int failed = set(fs, draft, value.length, err);
        result = failed < 0 ? failed : result;
        *stored = failed == 0;
    }
    if (result < 0) {
        draft->content.len = before;
        return result;
    }
    draft->value = value;
    draft->pending = !same && result != HL_VALUE_ENDED;
    return 0;
}

static int write_document(struct fs *fs, struct draft *draft, const char *data, size_t len,
                          uint64_t offset, bool *stored, struct hl_error *err)
{
    bool at_end = offset == HANDLE_AT_END;

    if (at_end || !draft->in_order || offset != draft->content.len)
        draft_refresh(fs, draft);
    int result = load(fs, draft, err);
    if (result < 0)
        return result;
    if (at_end && !draft->in_order)
        take_in_order(draft);
    if (draft->in_order && (at_end || offset == draft->content.len))
        return write_at_end(fs, draft, data, len, stored, err);
    result =
        content_write(fs, &draft->content, at_end ? draft->content.len : offset, data, len, err);
    if (result < 0)
        return result;
    draft->in_order = false;
    draft->pending = true;
    return 0;
}

int draft_write(struct fs *fs, struct draft *draft, const char *data, size_t len, uint64_t offset,
                bool *stored, struct hl_error *err)
{
    if (draft->place == DRAFT_DOCUMENT) {
        int result = write_document(fs, draft, data, len, offset, stored, err);
        draft->refused = result < 0 ? -result : 0;
        return result;
    }
    if (offset == HANDLE_AT_END)
        offset = draft->content.len;
    int result = content_write(fs, &draft->content, offset, data, len, err);
    if (result == 0)
        draft->has_text = draft->pending = true;
    return result;
}

int draft_resize(struct fs *fs, struct draft *draft, uint64_t size, struct hl_error *err)
{
    if (size == 0) {
        draft_empty(fs, draft);
        return 0;
    }
    int result = load(fs, draft, err);
    if (result < 0 || size == draft->content.len)
        return result;
    result = content_resize(fs, &draft->content, size, err);
    if (result < 0)
        return result;
    draft->in_order = false;
    draft->pending = true;
    draft->refused = 0;
    return 0;
}
