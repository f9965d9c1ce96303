/*
 * ctl_keep.c - the commands that take records away, and the room that they had: trim, delete,
 * compact.
 */
#include <errno.h>
#include <string.h>

#include "announce.h"
#include "ctl_commands.h"

static void add_session(struct text *members, const struct hl_session *session)
{
    text_format(members, ",\"session\":");
    text_json_string(members, session->id, session->id_len);
}

static void add_number(struct text *members, const char *name, uint64_t value)
{
    text_format(members, ",\"%s\":%llu", name, (unsigned long long)value);
}

/* The first word, which names a session, and must be there. */
static int first_session(struct fs *fs, const char **arguments, const char *usage,
                         struct hl_session *session, struct hl_error *err)
{
    char word[COMMAND_MAX + 1];

    if (!argument_next(arguments, word))
        return hl_fail(err, EINVAL, "a SESSION is missing: %s", usage);
    return argument_session(fs, word, session, err);
}

static int no_more(const char *arguments, const char *usage, struct hl_error *err)
{
    char word[COMMAND_MAX + 1];

    if (!argument_next(&arguments, word))
        return 0;
    return hl_fail(err, EINVAL, "`%.40s` is too much: %s", word, usage);
}

int trim_run(struct fs *fs, const char *arguments, struct hl_progress *progress,
             struct text *members, struct hl_error *err)
{
    static const char usage[] = "trim SESSION SEQ";
    char word[COMMAND_MAX + 1];
    struct hl_session session;
    struct hl_dropped dropped;
    uint64_t below;

    int result = first_session(fs, &arguments, usage, &session, err);
    if (result < 0)
        return result;
    if (!argument_next(&arguments, word))
        return hl_fail(err, EINVAL, "a SEQ is missing, below which events are dropped: %s", usage);
    if (!argument_number(word, &below))
        return hl_fail(err, EINVAL, "SEQ is to be a number, not `%.40s`", word);
    result = no_more(arguments, usage, err);
    if (result == 0)
        result = hl_trim(fs->store, session.number, below, &dropped, err);
    if (result < 0)
        return result;
    notify_wait(fs, &progress->cancel);
    add_session(members, &session);
    add_number(members, "records", dropped.records);
    add_number(members, "bytes", dropped.bytes);
    return 0;
}

int delete_run(struct fs *fs, const char *arguments, struct hl_progress *progress,
               struct text *members, struct hl_error *err)
{
    static const char usage[] = "delete SESSION";
    struct hl_session session;
    struct hl_dropped dropped;

    int result = first_session(fs, &arguments, usage, &session, err);
    if (result == 0)
        result = no_more(arguments, usage, err);
    if (result == 0)
        result = hl_delete(fs->store, session.number, &dropped, err);
    if (result < 0)
        return result;
    atomic_store(&fs->sessions_changed_ms, fs_now_ms());
    announcer_gone(fs->announcer, &session);
    notify_wait(fs, &progress->cancel);
    add_session(members, &session);
    add_number(members, "records", dropped.records);
    add_number(members, "bytes", dropped.bytes);
    return 0;
}

int compact_run(struct fs *fs, const char *arguments, struct hl_progress *progress,
                struct text *members, struct hl_error *err)
{
    static const char usage[] = "compact [SESSION|all]";
    char word[COMMAND_MAX + 1];
    struct hl_session session;
    struct hl_compact what = {.everything = true};
    struct hl_compacted compacted;
    int result = 0;

    bool named = argument_next(&arguments, word) && strcmp(word, "all") != 0;
    if (named)
        result = argument_session(fs, word, &session, err);
    if (result == 0)
        result = no_more(arguments, usage, err);
    if (result < 0)
        return result;
    what.session = named ? session.number : 0;
    result = hl_compact(fs->store, &what, progress, &compacted, err);
    if (result == -EINTR)
        return hl_fail(err, EINTR, "interrupted; what was rewritten before that stays");
    if (result < 0)
        return result;
    if (named)
        add_session(members, &session);
    add_number(members, "segments_before", compacted.segments_before);
    add_number(members, "segments_after", compacted.segments_after);
    add_number(members, "bytes_before", compacted.bytes_before);
    add_number(members, "bytes_after", compacted.bytes_after);
    add_number(members, "records_dropped", compacted.records_dropped);
    return 0;
}
