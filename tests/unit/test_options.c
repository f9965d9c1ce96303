/* test_options.c - the command line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../../fs/options.h"

#define MIB (UINT64_C(1) << 20)
#define WORDS_MAX 16

/* Parses "DIR", "MNT" and the words given, up to NULL. */
static int parse(struct arguments *arguments, const char *const words[])
{
    char *argv[WORDS_MAX];
    int argc = 0;
    argv[argc++] = strdup("hotlogfs");
    for (; words[argc - 1] != NULL; argc++) {
        assert_true(argc < WORDS_MAX - 1);
        argv[argc] = strdup(words[argc - 1]);
    }
    argv[argc] = NULL;
    int result = arguments_parse(arguments, argc, argv);
    for (int i = 0; i < argc; i++)
        free(argv[i]);
    return result;
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void test_defaults(void **state)
{
    (void)state;
    struct arguments a;
    assert_int_equal(parse(&a, WORDS("d", "m")), 0);
    assert_int_equal(a.action, ARGUMENTS_MOUNT);
    const struct fs_options *o = &a.options;
    assert_string_equal(o->dir, "d");
    assert_string_equal(o->mountpoint, "m");
    assert_false(o->foreground || o->read_only || o->allow_other || o->sync);
    assert_int_equal(o->sync_interval_ms, 1000);
    assert_int_equal(o->segment_size, 64 * MIB);
    assert_int_equal(o->max_record, 16 * MIB);
    assert_int_equal(o->announce_max, 1024);
    assert_int_equal(o->checkpoint_interval_ms, 600000);
    assert_int_equal(o->compact_interval_ms, 3600000);
    assert_int_equal(o->compact_threshold, MIB);
    assert_int_equal(o->history_ms, UINT64_C(30) * 24 * 3600 * 1000);
    assert_int_equal(o->backups, 3);
    assert_int_equal(o->pieces_max, 32 * MIB);
    assert_int_equal(o->scratch_max, 32 * MIB);
    assert_int_equal(o->user_pieces_max, 16 * MIB);
    assert_int_equal(o->user_scratch_max, 16 * MIB);
    assert_int_equal(o->user_files_max, 16384);
    assert_int_equal(o->spin_us, 50);
    assert_false(o->io_uring);
    assert_string_equal(a.mount_options, "");
    arguments_free(&a);
}

static void test_all_options(void **state)
{
    (void)state;
    struct arguments a;
    assert_int_equal(
        parse(&a, WORDS("-f", "d", "-o", "ro,allow_other,sync,sync_interval=250ms",
                        "-osegment_size=1G,max_record=64K", "m", "-o",
                        "announce_max=0,,checkpoint_interval=2d,compact_interval=5m", "-o",
                        "compact_threshold=12345,history=7h,backups=0,"
                        "pieces_max=128k,scratch_max=0,spin=2ms")),
        0);
    const struct fs_options *o = &a.options;
    assert_string_equal(o->dir, "d");
    assert_string_equal(o->mountpoint, "m");
    assert_true(o->foreground && o->read_only && o->allow_other && o->sync);
    assert_int_equal(o->sync_interval_ms, 250);
    assert_int_equal(o->segment_size, 1024 * MIB);
    assert_int_equal(o->max_record, 65536);
    assert_int_equal(o->announce_max, 0);
    assert_int_equal(o->checkpoint_interval_ms, UINT64_C(2) * 24 * 3600 * 1000);
    assert_int_equal(o->compact_interval_ms, 300000);
    assert_int_equal(o->compact_threshold, 12345);
    assert_int_equal(o->history_ms, UINT64_C(7) * 3600 * 1000);
    assert_int_equal(o->backups, 0);
    assert_int_equal(o->pieces_max, 131072);
    assert_int_equal(o->scratch_max, 0);
    assert_int_equal(o->spin_us, 2000);
    arguments_free(&a);
}

static void test_last_flag_wins(void **state)
{
    (void)state;
    struct arguments a;
    assert_int_equal(parse(&a, WORDS("d", "m", "-o", "ro,rw,sync,async")), 0);
    assert_false(a.options.read_only || a.options.sync);
    arguments_free(&a);
    assert_int_equal(parse(&a, WORDS("d", "m", "-o", "rw,ro", "-o", "async,sync")), 0);
    assert_true(a.options.read_only && a.options.sync);
    arguments_free(&a);
}

static void test_mount_options(void **state)
{
    (void)state;
    struct arguments a;
    assert_int_equal(parse(&a, WORDS("d", "m", "-o",
                                     "defaults,noauto,user,_netdev,nofail,x-systemd.requires=a,"
                                     "nosuid,user=me,noexec,comment=hi,nodev,noatime")),
                     0);
    assert_string_equal(a.mount_options, "nosuid,noexec,nodev,noatime");
    arguments_free(&a);
}

/* Parses what mount(8) gives its helper: the words up to NULL after the program's name. */
static int parse_helper(struct arguments *arguments, const char *const words[])
{
    char *argv[WORDS_MAX] = {strdup("/sbin/mount.hotlogfs")};
    int argc = 1;
    for (; words[argc - 1] != NULL; argc++) {
        assert_true(argc < WORDS_MAX - 1);
        argv[argc] = strdup(words[argc - 1]);
    }
    int result = arguments_parse(arguments, argc, argv);
    /* The name stays good for as long as argv does. */
    if (result == 0 && arguments->namespace != NULL)
        assert_string_equal(arguments->namespace, "/proc/7/ns/mnt");
    for (int i = 0; i < argc; i++)
        free(argv[i]);
    return result;
}

static void test_helper(void **state)
{
    (void)state;
    struct arguments a;
    assert_int_equal(
        parse_helper(&a, WORDS("/d", "/m", "-s", "-f", "-n", "-v", "-o",
                               "rw,noexec,user=me,nofail,X-mount.mkdir,wibble,sync_interval=2s",
                               "-N", "/proc/7/ns/mnt", "-t", "fuse.hotlogfs")),
        0);
    assert_true(a.helper && a.sloppy && a.fake && a.verbose && a.nofail);
    assert_false(a.remount || a.options.foreground || a.options.read_only);
    assert_int_equal(a.options.sync_interval_ms, 2000);
    assert_string_equal(a.mount_options, "noexec");
    assert_string_equal(a.error, "unknown option \"wibble\"");
    arguments_free(&a);
    /* In one word, their argument in it or behind it. */
    assert_int_equal(parse_helper(&a, WORDS("/d", "/m", "-fvt", "hotlogfs", "-nN/proc/7/ns/mnt")),
                     0);
    assert_true(a.fake && a.verbose && a.namespace != NULL);
    assert_false(a.sloppy);
    arguments_free(&a);
    assert_int_equal(parse_helper(&a, WORDS("d", "m")), 0);
    assert_false(a.fake || a.sloppy || a.verbose || a.nofail || a.remount);
    assert_null(a.namespace);
    arguments_free(&a);
    /* With the options that the table of mounts has. */
    assert_int_equal(
        parse_helper(&a, WORDS("d", "m", "-o", "rw,default_permissions,user_id=0,remount")), 0);
    assert_true(a.remount);
    arguments_free(&a);
}

static void test_helper_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *words[4], *fragment;
    } cases[] = {
        {{"/d", "/m", "-owibble"}, "unknown option \"wibble\""},
        {{"/d", "/m", "-fz"}, "unknown option \"-fz\""},
        {{"/d", "/m", "-N"}, "-N needs an argument"},
        {{"/d", "/m", "-t"}, "-t needs an argument"},
        {{"/d", "m", "-N/proc/7/ns/mnt"}, "must be full paths"},
        {{"d", "/m", "-N/proc/7/ns/mnt"}, "must be full paths"},
        {{"/d", "/m", "-so", "sync=1"}, "unknown option \"-so\""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct arguments a;
        const char *const *words = cases[i].words;
        const char *const list[] = {words[0], words[1], words[2], words[3], NULL};
        assert_int_equal(parse_helper(&a, list), -EINVAL);
        assert_non_null(strstr(a.error, cases[i].fragment));
        arguments_free(&a);
    }
}

/* By another name it is no helper: its flags are refused, and -f is ours. */
static void test_no_helper(void **state)
{
    (void)state;
    struct arguments a;
    assert_int_equal(parse(&a, WORDS("d", "m", "-n")), -EINVAL);
    arguments_free(&a);
    assert_int_equal(parse(&a, WORDS("d", "m", "-f", "-o", "remount")), 0);
    assert_true(a.options.foreground && a.remount);
    assert_false(a.helper || a.fake);
    arguments_free(&a);
    assert_int_equal(parse(&a, WORDS("--clear", "d", "m")), 0);
    assert_int_equal(a.action, ARGUMENTS_CLEAR);
    assert_string_equal(a.options.mountpoint, "m");
    arguments_free(&a);
    assert_int_equal(parse(&a, WORDS("--clear", "d")), -EINVAL);
    arguments_free(&a);
}

static void test_actions(void **state)
{
    (void)state;
    struct arguments a;
    assert_int_equal(parse(&a, WORDS("--help")), 0);
    assert_int_equal(a.action, ARGUMENTS_HELP);
    arguments_free(&a);
    assert_int_equal(parse(&a, WORDS("d", "-h", "--wibble")), 0);
    assert_int_equal(a.action, ARGUMENTS_HELP);
    arguments_free(&a);
    assert_int_equal(parse(&a, WORDS("-V")), 0);
    assert_int_equal(a.action, ARGUMENTS_VERSION);
    arguments_free(&a);
}

static void test_paths_that_look_like_options(void **state)
{
    (void)state;
    struct arguments a;
    assert_int_equal(parse(&a, WORDS("-f", "--", "-o", "-f")), 0);
    assert_string_equal(a.options.dir, "-o");
    assert_string_equal(a.options.mountpoint, "-f");
    arguments_free(&a);
}

/* Each is refused, with a sentence that holds the fragment. */
static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *option, *fragment;
    } cases[] = {
        {"wibble", "unknown option \"wibble\""},
        {"wibble=1", "unknown option \"wibble\""},
        {"Sync", "unknown option \"Sync\""},
        {"sync_interva=1s", "unknown option \"sync_interva\""},
        {"=1", "unknown option \"\""},
        {"ro=1", "option ro takes no value"},
        {"sync_interval", "option sync_interval needs a value"},
        {"sync_interval=", "option sync_interval: \"\""},
        {"sync_interval=5", "option sync_interval: \"5\""},
        {"sync_interval=1.5s", "option sync_interval: \"1.5s\""},
        {"sync_interval=-1s", "option sync_interval: \"-1s\""},
        {"sync_interval= 1s", "option sync_interval: \" 1s\""},
        {"sync_interval=1s ", "option sync_interval: \"1s \""},
        {"sync_interval=0", "option sync_interval: 0 is not between 1ms and 1h"},
        {"sync_interval=61m", "option sync_interval: 61m is not between 1ms and 1h"},
        {"segment_size=65535", "option segment_size: 65535 is not between 64K and 1G"},
        {"segment_size=2G", "not between 64K and 1G"},
        {"segment_size=1T", "option segment_size: \"1T\""},
        {"segment_size=18446744073709551616", "option segment_size: \"18446744073709551616\""},
        {"segment_size=18014398509481985K", "option segment_size: \"18014398509481985K\""},
        {"max_record=1023", "not between 1K and 64M"},
        {"max_record=65M", "not between 1K and 64M"},
        {"backups=3K", "option backups: \"3K\" is not a number"},
        {"backups=1001", "not between 0 and 1000"},
        {"pieces_max=8M", "option pieces_max: it must be at least max_record"},
        {"user_pieces_max=8M", "option user_pieces_max: it must be at least max_record"},
        {"user_files_max=15", "option user_files_max: 15 is not between"},
        {"spin=50", "option spin: \"50\" is not a time such as 50us or 1ms"},
        {"spin=1s", "option spin: \"1s\""},
        {"spin=11ms", "option spin: 11ms is not between 0 and 10ms"},
        {"io_uring=1", "option io_uring takes no value"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct arguments a;
        assert_int_equal(parse(&a, WORDS("d", "m", "-o", cases[i].option)), -EINVAL);
        if (strstr(a.error, cases[i].fragment) == NULL)
            fail_msg("-o %s: \"%s\" does not say \"%s\"", cases[i].option, a.error,
                     cases[i].fragment);
        arguments_free(&a);
    }
}

/* Passed on where libfuse has it, refused by name where it has not. */
static void test_io_uring(void **state)
{
    (void)state;
    struct arguments a;
    int result = parse(&a, WORDS("d", "m", "-o", "io_uring"));
    if (fuse_version() >= 318) {
        assert_int_equal(result, 0);
        assert_true(a.options.io_uring);
    } else {
        assert_int_equal(result, -EINVAL);
        assert_non_null(strstr(a.error, "option io_uring: it needs libfuse 3.18"));
    }
    arguments_free(&a);
}

static void test_usage_errors(void **state)
{
    (void)state;
    struct arguments a;
    assert_int_equal(parse(&a, WORDS("-f")), -EINVAL);
    assert_non_null(strstr(a.error, "DIR"));
    arguments_free(&a);
    assert_int_equal(parse(&a, WORDS("d")), -EINVAL);
    assert_non_null(strstr(a.error, "MOUNTPOINT is missing"));
    arguments_free(&a);
    assert_int_equal(parse(&a, WORDS("d", "m", "n")), -EINVAL);
    assert_non_null(strstr(a.error, "\"n\""));
    arguments_free(&a);
    assert_int_equal(parse(&a, WORDS("", "m")), -EINVAL);
    assert_non_null(strstr(a.error, "DIR is empty"));
    arguments_free(&a);
    assert_int_equal(parse(&a, WORDS("d", "m", "-o")), -EINVAL);
    assert_non_null(strstr(a.error, "-o needs"));
    arguments_free(&a);
    assert_int_equal(parse(&a, WORDS("d", "m", "-x")), -EINVAL);
    assert_non_null(strstr(a.error, "\"-x\""));
    arguments_free(&a);
}

/* A word of any length is refused by its beginning, and the sentence stays in its bounds. */
static void test_long_words(void **state)
{
    (void)state;
    struct arguments a;
    char *word = malloc(100001);
    assert_non_null(word);
    memset(word, 'x', 100000);
    word[100000] = '\0';
    assert_int_equal(parse(&a, WORDS("d", "m", "-o", word)), -EINVAL);
    assert_true(strlen(a.error) < sizeof(a.error) - 1);
    arguments_free(&a);
    memcpy(word, "history=", 8);
    assert_int_equal(parse(&a, WORDS("d", "m", "-o", word)), -EINVAL);
    assert_non_null(strstr(a.error, "is not a time"));
    arguments_free(&a);
    free(word);
}

static void test_pieces_follow_max_record(void **state)
{
    (void)state;
    struct arguments a;
    assert_int_equal(parse(&a, WORDS("d", "m", "-o", "max_record=64M")), 0);
    assert_int_equal(a.options.pieces_max, 128 * MIB);
    assert_int_equal(a.options.scratch_max, 128 * MIB);
    assert_int_equal(a.options.user_pieces_max, 64 * MIB);
    assert_int_equal(a.options.user_scratch_max, 64 * MIB);
    arguments_free(&a);
    assert_int_equal(parse(&a, WORDS("d", "m", "-o", "pieces_max=1M,max_record=1M")), 0);
    assert_int_equal(a.options.pieces_max, MIB);
    assert_int_equal(a.options.user_pieces_max, MIB);
    arguments_free(&a);
    assert_int_equal(
        parse(&a, WORDS("d", "m", "-o", "pieces_max=8M,max_record=1M,user_scratch_max=64K")), 0);
    assert_int_equal(a.options.user_pieces_max, 4 * MIB);
    assert_int_equal(a.options.user_scratch_max, 64 * 1024);
    arguments_free(&a);
}

static void test_values(void **state)
{
    (void)state;
    uint64_t value = 7;
    assert_true(options_parse_time("0", &value));
    assert_int_equal(value, 0);
    assert_true(options_parse_time("18446744073709551615ms", &value));
    assert_true(value == UINT64_MAX);
    assert_false(options_parse_time("18446744073709551615s", &value));
    assert_false(options_parse_time("s", &value));
    assert_false(options_parse_time("", &value));
    assert_true(options_parse_time("3D", &value));
    assert_int_equal(value, UINT64_C(3) * 24 * 3600 * 1000);
    assert_true(options_parse_size("0K", &value));
    assert_int_equal(value, 0);
    assert_true(options_parse_size("007", &value));
    assert_int_equal(value, 7);
    assert_false(options_parse_size("0x10", &value));
    assert_false(options_parse_size("1KB", &value));
    assert_true(options_parse_count("18446744073709551615", &value));
    assert_false(options_parse_count("1ms", &value));
    assert_true(options_parse_short_time("3ms", &value));
    assert_int_equal(value, 3000);
    assert_true(options_parse_short_time("20us", &value));
    assert_int_equal(value, 20);
    assert_false(options_parse_short_time("1s", &value));
}

/* Whatever parses must be in --help, and what --help lists must parse with the default it states.
 */
static void test_help_and_table_agree(void **state)
{
    (void)state;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    arguments_print_help(out);
    assert_int_equal(fclose(out), 0);
    char *at = strstr(text, "Options for -o");
    assert_non_null(at);
    int listed = 0;
    char *save = NULL;
    for (char *line = strtok_r(at, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        struct arguments a;
        char word[64], option[192];
        if (sscanf(line, "  %63s", word) != 1 || strncmp(line, "  ", 2) != 0)
            continue;
        char *equals = strchr(word, '=');
        if (equals != NULL) {
            char *value = strrchr(line, '(');
            assert_non_null(value);
            value++;
            value[strcspn(value, ")")] = '\0';
            *equals = '\0';
            snprintf(option, sizeof(option), "%s=%s", word, value);
        } else {
            snprintf(option, sizeof(option), "%s", word);
        }
        bool refused = strcmp(option, "io_uring") == 0 && fuse_version() < 318;
        assert_int_equal(parse(&a, WORDS("d", "m", "-o", option)), refused ? -EINVAL : 0);
        arguments_free(&a);
        listed++;
    }
    assert_int_equal(listed, 21);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_all_options),
        cmocka_unit_test(test_last_flag_wins),
        cmocka_unit_test(test_mount_options),
        cmocka_unit_test(test_helper),
        cmocka_unit_test(test_helper_refusals),
        cmocka_unit_test(test_no_helper),
        cmocka_unit_test(test_actions),
        cmocka_unit_test(test_paths_that_look_like_options),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_io_uring),
        cmocka_unit_test(test_usage_errors),
        cmocka_unit_test(test_long_words),
        cmocka_unit_test(test_pieces_follow_max_record),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_help_and_table_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
