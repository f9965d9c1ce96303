/*
 * options.h - the command line: `fsck.hotlogfs [-n|-y|-p] [--json] [--restore] [-C [FD]] DIR`, and
 * what fsck(8) and its like pass besides.
 */
#ifndef HL_FSCK_OPTIONS_H
#define HL_FSCK_OPTIONS_H

#include <stdbool.h>

#include "../store/store.h"

enum action { ACTION_CHECK, ACTION_HELP, ACTION_VERSION };

struct options {
    enum action action;
    const char *dir;
    enum hl_mending mend;
    bool restore, json, verbose;
    bool skip_used;  /* -M: a store in use is none of our business */
    bool bar;        /* -C: progress for people, where that is a terminal */
    int progress_fd; /* -C FD: progress for programs; -1: none */
    char error[200]; /* why options_parse() failed */
};

/* false: error says why. Strings stay those of argv. */
bool options_parse(struct options *options, int argc, char *argv[]);

extern const char options_help[];

#endif
