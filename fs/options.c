/* options.c - the option table, and parsing by it. */
#include "options.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define SECOND UINT64_C(1000)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)
#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

/* How fuse_version() counts: 314 is 3.14. */
#define LIBFUSE_MAJOR 100
#define IO_URING_VERSION 318

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit time_units[] = {{"d", DAY},    {"h", HOUR}, {"m", MINUTE},
                                         {"s", SECOND}, {"ms", 1},   {NULL, 0}};
static const struct unit short_units[] = {{"ms", 1000}, {"us", 1}, {NULL, 0}};
static const struct unit size_units[] = {{"G", GIB}, {"M", MIB}, {"K", KIB}, {"", 1}, {NULL, 0}};
static const struct unit count_units[] = {{"", 1}, {NULL, 0}};

struct kind {
    const char *noun;     /* for messages */
    const char *argument; /* for --help */
    const struct unit *units;
    bool (*parse)(const char *text, uint64_t *value);
};

static const struct kind time_kind = {"a time such as 500ms, 10s, 5m, 1h or 30d", "TIME",
                                      time_units, options_parse_time};
static const struct kind short_kind = {"a time such as 50us or 1ms", "TIME", short_units,
                                       options_parse_short_time};
static const struct kind size_kind = {"a size such as 4096, 64K, 16M or 1G", "SIZE", size_units,
                                      options_parse_size};
static const struct kind count_kind = {"a number", "N", count_units, options_parse_count};

/* An option of ours. A flag has no kind, and sets its bool to initial. */
struct option {
    const char *name;
    const struct kind *kind;
    size_t offset; /* in struct fs_options */
    uint64_t initial, min, max;
    const char *help;
};

#define FIELD(name) offsetof(struct fs_options, name)

static const struct option options[] = {
    {"ro", NULL, FIELD(read_only), true, 0, 0, "read only; beside a writer, follow its appends"},
    {"rw", NULL, FIELD(read_only), false, 0, 0, "read and write (the default)"},
    {"allow_other", NULL, FIELD(allow_other), true, 0, 0, "let other users in, by permission bits"},
    {"sync", NULL, FIELD(sync), true, 0, 0, "a write returns when it is on the disk"},
    {"async", NULL, FIELD(sync), false, 0, 0, "it does not wait for the disk (the default)"},
    {"sync_interval", &time_kind, FIELD(sync_interval_ms), SECOND, 1, HOUR,
     "longest time an append stays unsynced"},
    {"segment_size", &size_kind, FIELD(segment_size), 64 * MIB, 64 * KIB, GIB,
     "a segment file is sealed at this size"},
    {"max_record", &size_kind, FIELD(max_record), 16 * MIB, KIB, 64 * MIB,
     "longest line that is taken"},
    {"announce_max", &count_kind, FIELD(announce_max), 1024, 0, 1000000,
     "inotify announcements that may wait, 0 for none"},
    {"checkpoint_interval", &time_kind, FIELD(checkpoint_interval_ms), 10 * MINUTE, SECOND,
     365 * DAY, "between copies of the index"},
    {"compact_interval", &time_kind, FIELD(compact_interval_ms), HOUR, SECOND, 365 * DAY,
     "between compactions"},
    {"compact_threshold", &size_kind, FIELD(compact_threshold), MIB, 0, 1024 * GIB,
     "least dead bytes worth a compaction"},
    {"history", &time_kind, FIELD(history_ms), 30 * DAY, 0, 36500 * DAY,
     "how long superseded operations are kept"},
    {"backups", &count_kind, FIELD(backups), 3, 0, 1000, "compactions whose old segments are kept"},
    {"pieces_max", &size_kind, FIELD(pieces_max), 32 * MIB, 64 * KIB, GIB,
     "half lines and half documents kept for all open handles together"},
    {"scratch_max", &size_kind, FIELD(scratch_max), 32 * MIB, 0, GIB,
     "memory for all scratch files in state/ together"},
    {"user_pieces_max", &size_kind, FIELD(user_pieces_max), 16 * MIB, 64 * KIB, GIB,
     "with allow_other: of pieces_max, what one user may take"},
    {"user_scratch_max", &size_kind, FIELD(user_scratch_max), 16 * MIB, 0, GIB,
     "with allow_other: of scratch_max, what one user may take"},
    {"user_files_max", &count_kind, FIELD(user_files_max), 16384, 16, 10000000,
     "with allow_other: files that one user may have open"},
    {"spin", &short_kind, FIELD(spin_us), 50, 0, 10000,
     "look out for the next request before sleeping, 0: never"},
    {"io_uring", NULL, FIELD(io_uring), true, 0, 0,
     "requests by io_uring (libfuse 3.18, where the kernel allows it)"},
};
#define OPTION_COUNT (sizeof(options) / sizeof(options[0]))

/* What the kernel's mount is told. */
static const char *const forwarded[] = {"nosuid", "suid", "nodev",   "dev",
                                        "noexec", "exec", "noatime", "atime"};
/* What mount(8) and fstab(5) mean for themselves, or what makes no difference to this file system.
 */
static const char *const ignored[] = {
    "defaults",      "auto",     "noauto",     "user",     "nouser",     "users",
    "owner",         "group",    "_netdev",    "relatime", "norelatime", "strictatime",
    "nostrictatime", "lazytime", "nolazytime", "diratime", "nodiratime", "silent",
    "loud",          "iversion", "noiversion", "nomand",   "symfollow",  "nosymfollow"};
/* The same, with something behind. */
static const char *const ignored_prefixes[] = {"x-", "X-", "comment=", "user="};

static bool parse_number(const char *text, const struct unit *units, uint64_t *value)
{
    uint64_t number = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9'; at++) {
        if (__builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, (uint64_t)(*at - '0'), &number))
            return false;
    }
    if (at == text)
        return false;
    if (number == 0 && *at == '\0') {
        *value = 0;
        return true;
    }
    for (; units->name; units++) {
        if (strcasecmp(at, units->name) == 0)
            return !__builtin_mul_overflow(number, units->factor, value);
    }
    return false;
}

bool options_parse_time(const char *text, uint64_t *ms)
{
    return parse_number(text, time_units, ms);
}

bool options_parse_short_time(const char *text, uint64_t *us)
{
    return parse_number(text, short_units, us);
}

bool options_parse_size(const char *text, uint64_t *bytes)
{
    return parse_number(text, size_units, bytes);
}

bool options_parse_count(const char *text, uint64_t *count)
{
    return parse_number(text, count_units, count);
}

/* Writes value with the largest unit that divides it. */
static void format_value(char *text, size_t size, const struct unit *units, uint64_t value)
{
    while (value % units->factor != 0 || value < units->factor) {
        if (units[1].name == NULL)
            break;
        units++;
    }
    if (value == 0)
        snprintf(text, size, "0");
    else
        snprintf(text, size, "%" PRIu64 "%s", value / units->factor, units->name);
}

__attribute__((format(printf, 2, 3))) static int refuse(struct arguments *arguments,
                                                        const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(arguments->error, sizeof(arguments->error), format, list);
    va_end(list);
    return -EINVAL;
}

static uint64_t *number_at(struct fs_options *target, size_t offset)
{
    return (uint64_t *)(void *)((char *)target + offset);
}

static bool *flag_at(struct fs_options *target, size_t offset)
{
    return (bool *)(void *)((char *)target + offset);
}

static bool is_one_of(const char *word, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(word, list[i]) == 0)
            return true;
    }
    return false;
}

static bool is_ignored(const char *word)
{
    for (size_t i = 0; i < sizeof(ignored_prefixes) / sizeof(ignored_prefixes[0]); i++) {
        if (strncmp(word, ignored_prefixes[i], strlen(ignored_prefixes[i])) == 0)
            return true;
    }
    return is_one_of(word, ignored, sizeof(ignored) / sizeof(ignored[0]));
}

static int set_number(struct arguments *arguments, const struct option *option, const char *value)
{
    uint64_t number;
    if (value == NULL)
        return refuse(arguments, "option %s needs a value: %s", option->name, option->kind->noun);
    if (!option->kind->parse(value, &number))
        return refuse(arguments, "option %s: \"%.64s\" is not %s", option->name, value,
                      option->kind->noun);
    if (number < option->min || number > option->max) {
        char min[32], max[32];
        format_value(min, sizeof(min), option->kind->units, option->min);
        format_value(max, sizeof(max), option->kind->units, option->max);
        return refuse(arguments, "option %s: %.64s is not between %s and %s", option->name, value,
                      min, max);
    }
    *number_at(&arguments->options, option->offset) = number;
    return 0;
}

static int forward(struct arguments *arguments, const char *word)
{
    size_t old = strlen(arguments->mount_options);
    size_t size = old + strlen(word) + 2;
    char *longer = realloc(arguments->mount_options, size);
    if (longer == NULL)
        return -ENOMEM;
    snprintf(longer + old, size - old, "%s%s", old ? "," : "", word);
    arguments->mount_options = longer;
    return 0;
}

/* One NAME or NAME=VALUE of -o. given remembers which of the table were named. */
static int apply(struct arguments *arguments, char *word, bool given[OPTION_COUNT])
{
    if (is_one_of(word, forwarded, sizeof(forwarded) / sizeof(forwarded[0])))
        return forward(arguments, word);
    if (is_ignored(word))
        return 0;
    if (strcmp(word, "nofail") == 0) {
        arguments->nofail = true;
        return 0;
    }
    if (strcmp(word, "remount") == 0) {
        arguments->remount = true;
        return 0;
    }
    char *value = strchr(word, '=');
    if (value != NULL)
        *value++ = '\0';
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option *option = &options[i];
        if (strcmp(word, option->name) != 0)
            continue;
        given[i] = true;
        if (option->kind != NULL)
            return set_number(arguments, option, value);
        if (value != NULL)
            return refuse(arguments, "option %s takes no value", option->name);
        *flag_at(&arguments->options, option->offset) = option->initial != 0;
        return 0;
    }
    int result = refuse(arguments, "unknown option \"%.64s\"", word);
    return arguments->helper ? 0 : result; /* the helper's last word comes with a later -s */
}

static int apply_list(struct arguments *arguments, const char *list, bool given[OPTION_COUNT])
{
    char *copy = strdup(list);
    if (copy == NULL)
        return -ENOMEM;
    int result = 0;
    char *rest = copy;
    for (char *word; result == 0 && (word = strsep(&rest, ",")) != NULL;) {
        if (*word != '\0')
            result = apply(arguments, word, given);
    }
    free(copy);
    return result;
}

static int set_path(struct arguments *arguments, const char *word)
{
    struct fs_options *target = &arguments->options;
    char **slot = target->dir == NULL ? &target->dir : &target->mountpoint;
    if (*slot != NULL)
        return refuse(arguments, "one argument too many: \"%.64s\"", word);
    if (*word == '\0')
        return refuse(arguments, "%s is empty", slot == &target->dir ? "DIR" : "MOUNTPOINT");
    *slot = strdup(word);
    return *slot ? 0 : -ENOMEM;
}

/* Flags as mount(8) gives them to a helper, one or more in a word; an argument follows the last. */
static int take_flags(struct arguments *arguments, int argc, char *const argv[], int *i)
{
    const char *word = argv[*i];
    for (const char *flag = word + 1; *flag != '\0'; flag++) {
        if (strchr("Nt", *flag) != NULL) {
            const char *value = flag[1] != '\0' ? flag + 1 : *i + 1 < argc ? argv[++*i] : NULL;
            if (value == NULL)
                return refuse(arguments, "-%c needs an argument", *flag);
            if (*flag == 'N')
                arguments->namespace = value;
            return 0; /* -t names the type, which is known */
        }
        if (*flag == 's')
            arguments->sloppy = true;
        else if (*flag == 'f')
            arguments->fake = true;
        else if (*flag == 'v')
            arguments->verbose = true;
        else if (*flag != 'n') /* there is no mtab to leave alone */
            return refuse(arguments, "unknown option \"%.64s\"", word);
    }
    return 0;
}

/* One argument, and the next one where it belongs to it (*i then moves on). */
static int take(struct arguments *arguments, int argc, char *const argv[], int *i, bool *only_paths,
                bool given[OPTION_COUNT])
{
    const char *word = argv[*i];
    if (*only_paths || word[0] != '-' || word[1] == '\0')
        return set_path(arguments, word);
    if (strcmp(word, "--") == 0) {
        *only_paths = true;
    } else if (strcmp(word, "-f") == 0 && !arguments->helper) {
        arguments->options.foreground = true;
    } else if (strcmp(word, "--clear") == 0) {
        arguments->action = ARGUMENTS_CLEAR;
    } else if (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0) {
        arguments->action = ARGUMENTS_HELP;
    } else if (strcmp(word, "-V") == 0 || strcmp(word, "--version") == 0) {
        arguments->action = ARGUMENTS_VERSION;
    } else if (strcmp(word, "-o") == 0) {
        if (*i + 1 >= argc)
            return refuse(arguments, "-o needs a list of options");
        return apply_list(arguments, argv[++*i], given);
    } else if (strncmp(word, "-o", 2) == 0) {
        return apply_list(arguments, word + 2, given);
    } else if (arguments->helper) {
        return take_flags(arguments, argc, argv, i);
    } else {
        return refuse(arguments, "unknown option \"%.64s\"", word);
    }
    return 0;
}

static bool is_given(const bool given[OPTION_COUNT], size_t offset)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (given[i] && options[i].offset == offset)
            return true;
    }
    return false;
}

/* What one user may take if nobody said: half of it, but what the longest line needs. */
static uint64_t half_of(uint64_t all, uint64_t least)
{
    return all / 2 > least ? all / 2 : all < least ? all : least;
}

/* What must hold between options. */
static int reconcile(struct arguments *arguments, const bool given[OPTION_COUNT])
{
    struct fs_options *target = &arguments->options;
    /* The longest document can be written by way of a scratch file, unless somebody said no. */
    if (target->scratch_max < target->max_record && !is_given(given, FIELD(scratch_max)))
        target->scratch_max = 2 * target->max_record;
    int version = fuse_version();
    if (target->io_uring && version < IO_URING_VERSION)
        return refuse(arguments, "option io_uring: it needs libfuse 3.18, and this is %d.%d",
                      version / LIBFUSE_MAJOR, version % LIBFUSE_MAJOR);
    if (target->pieces_max < target->max_record) {
        /* A line that comes in pieces is kept until it is whole. */
        if (is_given(given, FIELD(pieces_max)))
            return refuse(arguments, "option pieces_max: it must be at least max_record, or a long "
                                     "line could never be completed");
        target->pieces_max = 2 * target->max_record;
    }
    if (!is_given(given, FIELD(user_scratch_max)))
        target->user_scratch_max = half_of(target->scratch_max, target->max_record);
    if (!is_given(given, FIELD(user_pieces_max)))
        target->user_pieces_max = half_of(target->pieces_max, target->max_record);
    else if (target->user_pieces_max < target->max_record)
        return refuse(arguments, "option user_pieces_max: it must be at least max_record, or a "
                                 "long line could never be completed");
    return 0;
}

static bool is_helper(const char *program)
{
    const char *slash = strrchr(program, '/');
    return strcmp(slash ? slash + 1 : program, "mount.hotlogfs") == 0;
}

int arguments_parse(struct arguments *arguments, int argc, char *const argv[])
{
    memset(arguments, 0, sizeof(*arguments));
    arguments->helper = argc > 0 && is_helper(argv[0]);
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (options[i].kind != NULL)
            *number_at(&arguments->options, options[i].offset) = options[i].initial;
    }
    arguments->mount_options = strdup("");
    if (arguments->mount_options == NULL)
        return -ENOMEM;
    bool only_paths = false, given[OPTION_COUNT] = {false};
    for (int i = 1; i < argc && arguments->action < ARGUMENTS_HELP; i++) {
        int result = take(arguments, argc, argv, &i, &only_paths, given);
        if (result != 0)
            return result;
    }
    if (arguments->action >= ARGUMENTS_HELP)
        return 0;
    /* mount(8) asks for a remount with all that the table of mounts has. */
    if (arguments->error[0] != '\0' && !arguments->sloppy && !arguments->remount)
        return -EINVAL;
    if (arguments->options.dir == NULL)
        return refuse(arguments, "DIR and MOUNTPOINT are missing");
    if (arguments->options.mountpoint == NULL)
        return refuse(arguments, "MOUNTPOINT is missing");
    if (arguments->namespace != NULL &&
        (arguments->options.dir[0] != '/' || arguments->options.mountpoint[0] != '/'))
        return refuse(arguments, "with -N, DIR and MOUNTPOINT must be full paths");
    return reconcile(arguments, given);
}

void arguments_free(struct arguments *arguments)
{
    free(arguments->options.dir);
    free(arguments->options.mountpoint);
    free(arguments->mount_options);
    memset(arguments, 0, sizeof(*arguments));
}

void arguments_print_help(FILE *out)
{
    fputs("Usage: hotlogfs DIR MOUNTPOINT [-f] [-o OPTION[,OPTION]...]\n"
          "       hotlogfs --clear DIR MOUNTPOINT\n"
          "       mount -t hotlogfs DIR MOUNTPOINT [-o OPTION[,OPTION]...]\n"
          "Presents the log of sessions kept in DIR (made if absent) as files on MOUNTPOINT.\n"
          "\n"
          "  -f             stay in the foreground\n"
          "  --clear        take away the dead mount that a crash of DIR left on MOUNTPOINT\n"
          "  -h, --help     print this and exit\n"
          "  -V, --version  print the version and exit\n"
          "\n"
          "Options for -o (with the default):\n",
          out);
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option *option = &options[i];
        char left[64], initial[32];
        if (option->kind == NULL) {
            fprintf(out, "  %-26s %s\n", option->name, option->help);
            continue;
        }
        snprintf(left, sizeof(left), "%s=%s", option->name, option->kind->argument);
        format_value(initial, sizeof(initial), option->kind->units, option->initial);
        fprintf(out, "  %-26s %s (%s)\n", left, option->help, initial);
    }
    fputs("\n"
          "TIME is a number with ms, s, m, h or d; SIZE is bytes, or a number with K, M or G (of "
          "1024).\n"
          "The mount options nosuid, nodev, noexec and noatime are passed on to the kernel.\n"
          "Unmount with: fusermount3 -u MOUNTPOINT (or umount, as root)\n"
          "More in hotlogfs(1), hotlogfs-ctl(5) and mount.hotlogfs(8).\n",
          out);
}
