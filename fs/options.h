/*
 * options.h - the command line: `hotlogfs DIR MOUNTPOINT [-f] [-o OPTION,…]`.
 *
 * One table in options.c names every option with its kind, range, default and help; parsing, --help
 * and the defaults all come from it.
 */
#ifndef HL_FS_OPTIONS_H
#define HL_FS_OPTIONS_H

#include <stdio.h>

#include "fs.h"

#define HOTLOGFS_VERSION "0.1.0"

enum arguments_action { ARGUMENTS_MOUNT, ARGUMENTS_HELP, ARGUMENTS_VERSION };

struct arguments {
    enum arguments_action action;
    struct fs_options options; /* dir and mountpoint as they were given, not yet resolved */
    char *mount_options;       /* for the kernel: "nosuid,noatime" and the like, or "" */
    char error[256];           /* why arguments_parse() failed, one sentence */
};

/*
 * Fills *arguments from a command line. Returns 0, or -EINVAL with a sentence in error that names
 * what is wrong, or -ENOMEM. arguments_free() is to be called in either case. For another action
 * than ARGUMENTS_MOUNT, dir and mountpoint may be NULL.
 */
int arguments_parse(struct arguments *arguments, int argc, char *const argv[]);
void arguments_free(struct arguments *arguments);

void arguments_print_help(FILE *out);

/*
 * A time such as 250ms, 1s, 10m, 1h or 30d, in milliseconds (0 needs no unit); a size such as 4096,
 * 64K, 16M or 1G, in bytes; a plain number. False if text is not exactly one, or overflows 64 bits.
 */
bool options_parse_time(const char *text, uint64_t *ms);
bool options_parse_size(const char *text, uint64_t *bytes);
bool options_parse_count(const char *text, uint64_t *count);

#endif
