/* options.c - see options.h. */
#include "options.h"

#include <ctype.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char options_help[] =
    "usage: fsck.hotlogfs [-n|-y|-p] [--json] [--restore] [-C [FD]] DIR\n"
    "\n"
    "Checks the hotlogfs store in DIR, which must not be mounted for writing.\n"
    "\n"
    "  -n, -N       change nothing (the default)\n"
    "  -y           mend all that can be mended; what is cut out goes to DIR/quarantine\n"
    "  -p, -a       mend only what a mount would, and the index\n"
    "  --restore    with -y: put segments from DIR/backup and DIR/snapshots where those are bad\n"
    "  --json       print the result as one JSON object\n"
    "  -C [FD]      show progress, to programs on FD\n"
    "  -v           tell of what is no problem too\n"
    "  -M           do nothing about a store that is in use\n"
    "  -V, --version, -h, --help\n"
    "\n"
    "-A, -f, -l, -P, -R, -r, -s, -T and -t hotlogfs are taken and change nothing.\n"
    "Exit status: the sum of 0 clean, 1 mended, 4 problems are left, 8 could not be checked,\n"
    "16 wrong usage, 32 cancelled.\n";

static bool refuse(struct options *options, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static bool refuse(struct options *options, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(options->error, sizeof options->error, format, arguments);
    va_end(arguments);
    return false;
}

static bool is_number(const char *text)
{
    size_t len = strlen(text);
    return len > 0 && len < 6 && strspn(text, "0123456789") == len;
}

/* The descriptor may be a word of its own; then DIR comes after it. */
static bool take_progress(struct options *options, int argc, char *argv[])
{
    const char *fd = optarg;
    if (!fd && optind + 1 < argc && is_number(argv[optind]))
        fd = argv[optind++];
    if (fd && !is_number(fd))
        return refuse(options, "-C takes the number of a descriptor, not `%.80s`", fd);
    int number = fd ? atoi(fd) : 0;
    options->bar = number == 0;
    options->progress_fd = number == 0 ? -1 : number;
    return true;
}

static bool choose(struct options *options, enum hl_mending mend, int *chosen, int letter)
{
    if (*chosen && *chosen != letter)
        return refuse(options, "only one of -n, -p and -y can be had");
    *chosen = letter;
    options->mend = mend;
    return true;
}

enum { LONG_JSON = 256, LONG_RESTORE };

static bool take(struct options *options, int option, int argc, char *argv[], int *chosen)
{
    switch (option) {
    case 'n':
    case 'N':
        return choose(options, HL_MEND_NOTHING, chosen, 'n');
    case 'y':
        return choose(options, HL_MEND_ALL, chosen, 'y');
    case 'p':
    case 'a':
        return choose(options, HL_MEND_SAFELY, chosen, 'p');
    case 'C':
        return take_progress(options, argc, argv);
    case 't':
        return strcmp(optarg, "hotlogfs") == 0 ||
               refuse(options, "`%.80s` is not the type of store that is checked here", optarg);
    case 'v':
        return options->verbose = true;
    case 'M':
        return options->skip_used = true;
    case LONG_JSON:
        return options->json = true;
    case LONG_RESTORE:
        return options->restore = true;
    case 'V':
        options->action = ACTION_VERSION;
        return true;
    case 'h':
        options->action = ACTION_HELP;
        return true;
    case ':':
        return refuse(options, "-%c wants an argument", optopt);
    case '?':
        return isgraph(optopt) ? refuse(options, "there is no option -%c", optopt)
                               : refuse(options, "there is no option %.80s", argv[optind - 1]);
    default:
        return true; /* for fsck(8) itself */
    }
}

bool options_parse(struct options *options, int argc, char *argv[])
{
    static const struct option words[] = {
        {"json", no_argument, NULL, LONG_JSON},
        {"restore", no_argument, NULL, LONG_RESTORE},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {NULL, 0, NULL, 0},
    };
    int option, chosen = 0;
    *options = (struct options){.progress_fd = -1};
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":nNypaC::t:vMVhAflPRrsT", words, NULL)) != -1) {
        if (!take(options, option, argc, argv, &chosen))
            return false;
    }
    if (options->action != ACTION_CHECK)
        return true;
    if (optind == argc)
        return refuse(options, "there is no DIR to check");
    if (optind + 1 < argc)
        return refuse(options, "one DIR is checked at a time");
    if (options->restore && options->mend != HL_MEND_ALL)
        return refuse(options, "--restore goes with -y");
    options->dir = argv[optind];
    return true;
}
