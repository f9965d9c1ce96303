/*
 * ctl_commands.c - the commands that .ctl takes.
 */
#include "ctl_commands.h"

#include <errno.h>
#include <string.h>

struct command_type {
    const char *name;
    const char *arguments; /* as help shows them; "": it takes none */
    const char *help;
    /* NULL: asked for by a barrier, see ctl.c. */
    int (*run)(struct fs *fs, const char *arguments, struct hl_progress *progress,
               struct text *members, struct hl_error *err);
};

static int run_help(struct fs *fs, const char *arguments, struct hl_progress *progress,
                    struct text *members, struct hl_error *err);

static void add_number(struct text *members, const char *name, uint64_t value)
{
    text_format(members, ",\"%s\":%llu", name, (unsigned long long)value);
}

static int run_checkpoint(struct fs *fs, const char *arguments, struct hl_progress *progress,
                          struct text *members, struct hl_error *err)
{
    (void)arguments;
    (void)members;
    return hl_checkpoint(fs->store, progress, err);
}

static int run_rotate(struct fs *fs, const char *arguments, struct hl_progress *progress,
                      struct text *members, struct hl_error *err)
{
    (void)arguments;
    (void)progress;
    (void)members;
    return hl_rotate(fs->store, err);
}

static int run_verify(struct fs *fs, const char *arguments, struct hl_progress *progress,
                      struct text *members, struct hl_error *err)
{
    struct hl_verify_report report = {0};
    (void)arguments;

    int result = hl_verify(fs->store, &report, progress, err);
    if (result < 0)
        return result;
    add_number(members, "segments", report.segments);
    add_number(members, "frames", report.frames);
    add_number(members, "records", report.records);
    add_number(members, "bytes", report.bytes);
    add_number(members, "damaged_gaps", report.damaged_gaps);
    add_number(members, "damaged_bytes", report.damaged_bytes);
    add_number(members, "broken_batches", report.broken_batches);
    add_number(members, "index_missing", report.index_missing);
    add_number(members, "index_dangling", report.index_dangling);
    return 0;
}

static int run_reindex(struct fs *fs, const char *arguments, struct hl_progress *progress,
                       struct text *members, struct hl_error *err)
{
    (void)arguments;
    (void)members;
    return hl_reindex(fs->store, progress, err);
}

static int run_snapshot(struct fs *fs, const char *arguments, struct hl_progress *progress,
                        struct text *members, struct hl_error *err)
{
    if (arguments[0] == '\0')
        return hl_fail(err, EINVAL, "`snapshot` takes NAME");
    int result = hl_snapshot(fs->store, arguments, progress, err);
    if (result < 0)
        return result;
    text_format(members, ",\"snapshot\":");
    text_json_string(members, arguments, strlen(arguments));
    return 0;
}

static const struct command_type commands[] = {
    {"help", "", "lists the commands", run_help},
    {"sync", "", "returns when all that was appended before it is on the disk", NULL},
    {"checkpoint", "", "writes a checksummed copy of the index to checkpoints/", run_checkpoint},
    {"rotate", "", "seals the segment that is written to and begins the next", run_rotate},
    {"verify", "", "checks every frame of the log, and the index against them", run_verify},
    {"reindex", "", "builds the index again from the log, while appends and reads go on",
     run_reindex},
    {"undo", "SESSION [COUNT]", "takes back the session's last operations not undone yet",
     undo_run},
    {"trim", "SESSION SEQ", "drops the session's events below SEQ", trim_run},
    {"retain", "SESSION|all [age=TIME] [count=N] [bytes=SIZE] [off]",
     "shows, sets or removes the rule by which old events are dropped", retain_run},
    {"delete", "SESSION", "drops a session with all that it has", delete_run},
    {"erase", "SESSION [NUMBER]", "deletes a session, and its bytes from every file of the store",
     erase_run},
    {"compact", "[SESSION|all|stop]",
     "takes the room that dropped records had, or stops the one that runs by itself", compact_run},
    {"snapshot", "NAME", "makes a consistent copy of the store in snapshots/NAME", run_snapshot},
};
#define COMMANDS (sizeof commands / sizeof *commands)

static int run_help(struct fs *fs, const char *arguments, struct hl_progress *progress,
                    struct text *members, struct hl_error *err)
{
    (void)fs;
    (void)arguments;
    (void)progress;
    (void)err;
    text_format(members, ",\"commands\":[");
    for (size_t i = 0; i < COMMANDS; i++) {
        text_format(members, "%s{\"name\":", i ? "," : "");
        text_json_string(members, commands[i].name, strlen(commands[i].name));
        text_format(members, ",\"arguments\":");
        text_json_string(members, commands[i].arguments, strlen(commands[i].arguments));
        text_format(members, ",\"help\":");
        text_json_string(members, commands[i].help, strlen(commands[i].help));
        text_format(members, "}");
    }
    text_format(members, "]");
    return 0;
}

/* ---- parsing ----------------------------------------------------------------------------------
 */

static const struct command_type *find(const char *name, size_t len)
{
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strlen(commands[i].name) == len && memcmp(commands[i].name, name, len) == 0)
            return &commands[i];
    }
    return NULL;
}

int command_parse(const char *data, size_t len, struct command *command, struct hl_error *err)
{
    command->type = NULL;
    if (len > 0 && data[len - 1] == '\n')
        len--;
    size_t shown = len < COMMAND_MAX ? len : COMMAND_MAX;
    memcpy(command->text, data, shown);
    while (shown > 0 && (command->text[shown - 1] == ' ' || command->text[shown - 1] == '\t'))
        shown--;
    command->text[shown] = '\0';
    if (len > COMMAND_MAX)
        return hl_fail(err, EINVAL, "a command is at most %d bytes", COMMAND_MAX);
    if (memchr(data, '\n', len) || memchr(data, '\0', len))
        return hl_fail(err, EINVAL, "one write takes one command, on one line");

    const char *word = command->text + strspn(command->text, " \t");
    size_t word_len = strcspn(word, " \t");
    if (word_len == 0)
        return hl_fail(err, EINVAL, "no command; `help` lists them");
    const struct command_type *type = find(word, word_len);
    if (!type)
        return hl_fail(err, EINVAL, "there is no command `%.*s`; `help` lists them",
                       (int)(word_len < 80 ? word_len : 80), word);
    const char *arguments = word + word_len + strspn(word + word_len, " \t");
    if (*arguments != '\0' && type->arguments[0] == '\0')
        return hl_fail(err, EINVAL, "`%s` takes no argument", type->name);
    command->type = type;
    command->arguments = (size_t)(arguments - command->text);
    return 0;
}

bool command_is_sync(const struct command *command)
{
    return command->type && !command->type->run;
}

/* ---- running ----------------------------------------------------------------------------------
 */

int command_run(struct fs *fs, const struct command *command, struct hl_progress *progress,
                struct text *members, struct hl_error *err)
{
    if (atomic_load(&progress->cancel))
        return hl_fail(err, EINTR, "interrupted before it began");
    int result = command->type->run(fs, command->text + command->arguments, progress, members, err);
    /* As any write, then: what it changed is on the disk when it returns. */
    if (result == 0 && fs->options->sync && !fs->options->read_only) {
        result = hl_sync(fs->store);
        if (result < 0)
            return hl_fail(err, -result, "the disk failed: %s", strerror(-result));
    }
    if (result == -EINTR && !strchr(err->text, ';')) /* it does not say what was done */
        return hl_fail(err, EINTR, "interrupted; nothing was changed");
    return result;
}

void command_result(const struct command *command, int code, const struct hl_error *err,
                    struct text *members, struct text *result)
{
    const char *shown = command->type ? command->type->name : command->text;
    size_t len = strlen(shown);

    text_format(result, "{\"command\":");
    text_json_string(result, shown, len < 200 ? len : 200);
    text_format(result, ",\"ok\":%s,\"ts_ms\":%llu", code == 0 ? "true" : "false",
                (unsigned long long)fs_now_ms());
    if (code == 0) {
        text_add(result, members->at, members->len);
    } else {
        const char *name = strerrorname_np(fs_errno(code));
        const char *sentence = err->text[0] ? err->text : strerror(-code);
        text_format(result, ",\"errno\":");
        text_json_string(result, name ? name : "UNKNOWN", name ? strlen(name) : 7);
        text_format(result, ",\"error\":");
        text_json_string(result, sentence, strlen(sentence));
    }
    text_format(result, "}\n");
    if (members->failed)
        result->failed = true;
    text_free(members);
}
