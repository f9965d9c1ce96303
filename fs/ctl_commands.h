/*
 * ctl_commands.h - the commands that .ctl takes: their text, what runs them, and their results.
 */
#ifndef HL_CTL_COMMANDS_H
#define HL_CTL_COMMANDS_H

#include "fs_internal.h"

#define COMMAND_MAX 4095 /* bytes of a command without its newline */

struct command_type;

struct command {
    const struct command_type *type; /* NULL: it is none */
    size_t arguments;                /* where they begin in text */
    char text[COMMAND_MAX + 1];      /* as written, for the result */
};

/* Reads one command, its newline optional. 0 or -EINVAL; either way text can be shown. */
int command_parse(const char *data, size_t len, struct command *command, struct hl_error *err);

/* A barrier, which is asked for and not run. */
bool command_is_sync(const struct command *command);

/* Runs it; members gets the members of its result, each as ",\"name\":value". */
int command_run(struct fs *fs, const struct command *command, struct hl_progress *progress,
                struct text *members, struct hl_error *err);

/* ---- ctl_arguments.c --------------------------------------------------------------------------
 */

/* Takes the next word, which blanks end; NUL-terminated. false: there is none. */
bool argument_next(const char **arguments, char word[COMMAND_MAX + 1]);
/* A number in decimal. false: it is none, or does not fit. */
bool argument_number(const char *word, uint64_t *number);
/* The session of that name: as in sessions/, but that any byte may be written %XX, so a blank can
 * be. -EINVAL, -ENOENT, with a sentence. */
int argument_session(struct fs *fs, const char *word, struct hl_session *session,
                     struct hl_error *err);
/* One that is deleted, and of which an erase did not come to its end: only number is filled.
 * -ENOENT: none of that name. */
int argument_erasing(struct fs *fs, const char *word, struct hl_session *session);

/* ---- ctl_undo.c -------------------------------------------------------------------------------
 */

/* undo SESSION [COUNT]; members as for command_run(). */
int undo_run(struct fs *fs, const char *arguments, struct hl_progress *progress,
             struct text *members, struct hl_error *err);

/* ---- ctl_keep.c; likewise ---------------------------------------------------------------------
 */

int trim_run(struct fs *fs, const char *arguments, struct hl_progress *progress,
             struct text *members, struct hl_error *err);
int retain_run(struct fs *fs, const char *arguments, struct hl_progress *progress,
               struct text *members, struct hl_error *err);
int delete_run(struct fs *fs, const char *arguments, struct hl_progress *progress,
               struct text *members, struct hl_error *err);
int erase_run(struct fs *fs, const char *arguments, struct hl_progress *progress,
              struct text *members, struct hl_error *err);
int compact_run(struct fs *fs, const char *arguments, struct hl_progress *progress,
                struct text *members, struct hl_error *err);

/* ---- ctl_commands.c, again --------------------------------------------------------------------
 */

/* Writes the result, one line of JSON; uses members up. */
void command_result(const struct command *command, int code, const struct hl_error *err,
                    struct text *members, struct text *result);

#endif
