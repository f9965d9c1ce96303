/*
 * ctl_keep.c - the commands that take records away, and the room that they had: trim, retain,
 * delete, erase, compact.
 */
#include <errno.h>
#include <string.h>

#include "announce.h"
#include "ctl_commands.h"
#include "options.h"

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

/* A part of a rule: age=TIME, count=N or bytes=SIZE. */
static int parse_part(const char *word, struct hl_rule *rule, struct hl_error *err)
{
    const char *value = strchr(word, '=');
    size_t len = value ? (size_t)(value - word) : 0;

    if (value)
        value++;
    if (len == 3 && strncmp(word, "age", len) == 0) {
        if (rule->has_age || !options_parse_time(value, &rule->age_ms))
            return hl_fail(err, EINVAL, "age= takes one time such as 30d or 12h, not `%.40s`",
                           value);
        rule->has_age = true;
    } else if (len == 5 && strncmp(word, "count", len) == 0) {
        if (rule->has_count || !options_parse_count(value, &rule->count))
            return hl_fail(err, EINVAL, "count= takes one number, not `%.40s`", value);
        rule->has_count = true;
    } else if (len == 5 && strncmp(word, "bytes", len) == 0) {
        if (rule->has_bytes || !options_parse_size(value, &rule->bytes))
            return hl_fail(err, EINVAL, "bytes= takes one size such as 64M, not `%.40s`", value);
        rule->has_bytes = true;
    } else {
        return hl_fail(err, EINVAL, "`%.40s` is no part of a rule: age=TIME, count=N, bytes=SIZE",
                       word);
    }
    return 0;
}

/* *change: a rule was given, or `off`. */
static int parse_rule(const char *arguments, struct hl_rule *rule, bool *change,
                      struct hl_error *err)
{
    char word[COMMAND_MAX + 1];
    bool off = false, any = false;

    *rule = (struct hl_rule){.has_age = false};
    while (argument_next(&arguments, word)) {
        int result = 0;
        if (strcmp(word, "off") == 0)
            off = true;
        else
            result = parse_part(word, rule, err);
        if (result < 0)
            return result;
        if (off && any)
            return hl_fail(err, EINVAL, "`off` stands alone: it removes the rule");
        any = true;
    }
    *change = any;
    return 0;
}

static void add_rule(struct text *members, const struct hl_rule *rule)
{
    text_format(members, ",\"rule\":");
    if (!rule->has_age && !rule->has_count && !rule->has_bytes) {
        text_format(members, "null");
        return;
    }
    const char *before = "{";
    if (rule->has_age)
        text_format(members, "%s\"age_ms\":%llu", before, (unsigned long long)rule->age_ms);
    before = rule->has_age ? "," : before;
    if (rule->has_count)
        text_format(members, "%s\"count\":%llu", before, (unsigned long long)rule->count);
    before = rule->has_count ? "," : before;
    if (rule->has_bytes)
        text_format(members, "%s\"bytes\":%llu", before, (unsigned long long)rule->bytes);
    text_format(members, "}");
}

int retain_run(struct fs *fs, const char *arguments, struct hl_progress *progress,
               struct text *members, struct hl_error *err)
{
    char word[COMMAND_MAX + 1];
    struct hl_session session = {.number = 0};
    struct hl_rule rule = {.has_age = false};
    bool change = false;
    (void)progress;

    if (!argument_next(&arguments, word))
        return hl_fail(err, EINVAL,
                       "a SESSION, or `all`, is missing: retain SESSION|all [age=TIME] "
                       "[count=N] [bytes=SIZE] [off]");
    int result = strcmp(word, "all") == 0 ? 0 : argument_session(fs, word, &session, err);
    if (result == 0)
        result = parse_rule(arguments, &rule, &change, err);
    if (result == 0 && change)
        result = hl_retain_set(fs->store, session.number, &rule, err);
    if (result == 0)
        result = hl_retain_get(fs->store, session.number, &rule, err);
    if (result < 0)
        return result;
    if (session.number != 0)
        add_session(members, &session);
    add_rule(members, &rule);
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

/* The session to be erased: by name, also if it was deleted when that was begun, or by its number
 * then. */
static int find_erased(struct fs *fs, const char *arguments, struct hl_session *session,
                       struct hl_error *err)
{
    static const char usage[] = "erase SESSION [NUMBER]";
    char name[COMMAND_MAX + 1], word[COMMAND_MAX + 1];
    uint64_t number = 0;

    if (!argument_next(&arguments, name))
        return hl_fail(err, EINVAL, "a SESSION is missing: %s", usage);
    bool numbered = argument_next(&arguments, word);
    if (numbered && (!argument_number(word, &number) || number == 0 || number > UINT32_MAX))
        return hl_fail(err, EINVAL, "NUMBER is that of a session, not `%.40s`", word);
    int result = no_more(arguments, usage, err);
    if (result == 0 && !numbered) {
        result = argument_session(fs, name, session, err);
        return result == -ENOENT && argument_erasing(fs, name, session) == 0 ? 0 : result;
    }
    if (result == 0 && hl_session_by_number(fs->store, (uint32_t)number, session) == 0)
        return hl_fail(err, EINVAL, "session %llu is there: `erase` takes its name alone",
                       (unsigned long long)number);
    *session = (struct hl_session){.number = (uint32_t)number, .id_len = 0};
    return result;
}

int erase_run(struct fs *fs, const char *arguments, struct hl_progress *progress,
              struct text *members, struct hl_error *err)
{
    struct hl_session session, left;
    struct hl_dropped dropped;

    int result = find_erased(fs, arguments, &session, err);
    if (result < 0)
        return result;
    result = hl_erase(fs->store, session.number, progress, &dropped, err);
    bool gone = hl_session_by_number(fs->store, session.number, &left) == -ENOENT;
    if (gone && session.id_len > 0) {
        atomic_store(&fs->sessions_changed_ms, fs_now_ms());
        announcer_gone(fs->announcer, &session);
        notify_wait(fs, &progress->cancel);
    }
    if (result < 0 && gone && result != -ENOENT) {
        struct hl_error why = *err;
        return hl_fail(err, -result,
                       "%.160s; the session is gone, but bytes of it may be left: `erase NAME %u` "
                       "goes on",
                       why.text[0] ? why.text : strerror(-result), session.number);
    }
    if (result < 0)
        return result;
    if (session.id_len > 0)
        add_session(members, &session);
    add_number(members, "number", session.number);
    add_number(members, "records", dropped.records);
    add_number(members, "bytes", dropped.bytes);
    return 0;
}

int compact_run(struct fs *fs, const char *arguments, struct hl_progress *progress,
                struct text *members, struct hl_error *err)
{
    static const char usage[] = "compact [SESSION|all|stop]";
    char word[COMMAND_MAX + 1];
    struct hl_session session;
    struct hl_compact what = {.everything = true};
    struct hl_compacted compacted;
    int result = 0;

    bool named = argument_next(&arguments, word) && strcmp(word, "all") != 0;
    if (named && strcmp(word, "stop") == 0) {
        result = no_more(arguments, usage, err);
        if (result == 0)
            hl_compact_interrupt(fs->store);
        return result;
    }
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
