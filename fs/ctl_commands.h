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
    char text[COMMAND_MAX + 1];      /* as written, for the result */
    const char *argument; /* in text, from its first byte to its last; "": none is taken */
};

/* Reads one command, its newline optional. 0 or -EINVAL; either way text can be shown. */
int command_parse(const char *data, size_t len, struct command *command, struct hl_error *err);

/* A barrier, which is asked for and not run. */
bool command_is_sync(const struct command *command);

/* Runs it; members gets the members of its result, each as ",\"name\":value". */
int command_run(struct fs *fs, const struct command *command, struct hl_progress *progress,
                struct text *members, struct hl_error *err);

/* Writes the result, one line of JSON; uses members up. */
void command_result(const struct command *command, int code, const struct hl_error *err,
                    struct text *members, struct text *result);

#endif
