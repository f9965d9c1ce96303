/*
 * ctl_undo.c - the command `undo`.
 */
#include <errno.h>
#include <string.h>

#include "ctl_commands.h"

#define KEYS_BYTES (32U * 1024) /* of keys that a result names */

/* What was undone, as the store tells it. */
struct undone {
    struct fs *fs;
    uint64_t first, last;
    struct text keys; /* JSON strings with commas between */
    uint64_t left_out;
};

static void take_receipt(void *context, const struct hl_receipt *receipt)
{
    struct undone *undone = context;
    struct hl_document document;

    undone->first = receipt->first;
    undone->last = receipt->last;
    undone->left_out = receipt->documents_skipped;
    for (size_t i = 0; i < receipt->document_count; i++) {
        if (undone->keys.len > KEYS_BYTES ||
            hl_document_name(undone->fs->store, receipt->session, receipt->documents[i].number,
                             &document) < 0) {
            undone->left_out++;
            continue;
        }
        if (undone->keys.len > 0)
            text_add(&undone->keys, ",", 1);
        text_json_string(&undone->keys, document.key, document.key_len);
    }
}

static void add_members(struct text *members, const struct hl_session *session,
                        const struct undone *undone)
{
    text_format(members, ",\"session\":");
    text_json_string(members, session->id, session->id_len);
    text_format(members, ",\"seqs\":\"%llu", (unsigned long long)undone->first);
    if (undone->last != undone->first)
        text_format(members, "-%llu", (unsigned long long)undone->last);
    text_format(members, "\",\"keys\":[");
    text_add(members, undone->keys.at, undone->keys.len);
    text_format(members, "],\"keys_left_out\":%llu", (unsigned long long)undone->left_out);
    if (undone->keys.failed)
        members->failed = true;
}

int undo_run(struct fs *fs, const char *arguments, struct hl_progress *progress,
             struct text *members, struct hl_error *err)
{
    char word[COMMAND_MAX + 1];
    struct hl_session session;
    struct undone undone = {.fs = fs};
    uint64_t count = 1;
    (void)progress;

    if (!argument_next(&arguments, word))
        return hl_fail(err, EINVAL, "`undo` needs a SESSION: undo SESSION [COUNT]");
    int result = argument_session(fs, word, &session, err);
    if (result < 0)
        return result;
    if (argument_next(&arguments, word) && (!argument_number(word, &count) || count == 0))
        return hl_fail(err, EINVAL, "COUNT is to be a number from 1, not `%.40s`", word);
    if (argument_next(&arguments, word))
        return hl_fail(err, EINVAL, "`%.40s` is too much: undo SESSION [COUNT]", word);
    result = hl_undo(fs->store, session.number, count, take_receipt, &undone, err);
    if (result == 0) {
        atomic_store(&fs->changed_ms, fs_now_ms());
        add_members(members, &session, &undone);
    }
    text_free(&undone.keys);
    return result;
}
