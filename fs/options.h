/*
 * options.h - the command line: `hotlogfs DIR MOUNTPOINT [-f] [-o OPTION,…]`, and that of
 * mount.hotlogfs, as mount(8) calls it: `mount.hotlogfs DIR MOUNTPOINT [-sfnv] [-N NAMESPACE]
 * [-o OPTION,…] [-t TYPE]`.
 *
 * One table in options.c names every option with its kind, range, default and help; parsing, --help
 * and the defaults all come from it.
 */
#ifndef HL_FS_OPTIONS_H
#define HL_FS_OPTIONS_H

#include <stdio.h>

#include "fs.h"

enum arguments_action { ARGUMENTS_MOUNT, ARGUMENTS_CLEAR, ARGUMENTS_HELP, ARGUMENTS_VERSION };

struct arguments {
    enum arguments_action action;
    struct fs_options options; /* dir and mountpoint as they were given, not yet resolved */
    char *mount_options;       /* for the kernel: "nosuid,noatime" and the like, or "" */
    char error[256];           /* why arguments_parse() failed, one sentence; of a sloppy helper,
                                  which option it passed over, or "" */
    bool remount, nofail;      /* among the options of -o, see mount(8) */

    /* Called as mount.hotlogfs; what follows is false or NULL otherwise. */
    bool helper;
    bool fake;             /* -f: all but the mount */
    bool sloppy;           /* -s: unknown options are passed over */
    bool verbose;          /* -v */
    const char *namespace; /* -N: a file that stands for the mount namespace to mount in; of argv */
};

/*
 * Fills *arguments from a command line; argv[0] tells whose. Returns 0, or -EINVAL with a sentence
 * in error that names what is wrong, or -ENOMEM. arguments_free() is to be called in either case.
 * For another action than ARGUMENTS_MOUNT, dir and mountpoint may be NULL.
 */
int arguments_parse(struct arguments *arguments, int argc, char *const argv[]);
void arguments_free(struct arguments *arguments);

void arguments_print_help(FILE *out);

/*
 * A time such as 250ms, 1s, 10m, 1h or 30d, in milliseconds (0 needs no unit); a short one such as
 * 50us or 1ms, in microseconds; a size such as 4096,
 * 64K, 16M or 1G, in bytes; a plain number. False if text is not exactly one, or overflows 64 bits.
 */
bool options_parse_time(const char *text, uint64_t *ms);
bool options_parse_short_time(const char *text, uint64_t *us);
bool options_parse_size(const char *text, uint64_t *bytes);
bool options_parse_count(const char *text, uint64_t *count);

#endif
