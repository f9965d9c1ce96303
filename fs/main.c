/*
 * main.c - the program: from a command line to a mount, and to its end.
 *
 * In the background it forks before anything else, since threads and the index's locks do not
 * survive a fork. The parent waits on a pipe for one byte: mounted. Until then the daemon's
 * messages go to the terminal; it exits with 1 when that byte does not come.
 *
 * Mounted last, unmounted first: a store that cannot be opened never shows a mount, and nobody who
 * sees the mount sees it without its store.
 */
#include "fs.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "holder.h"
#include "mount.h"
#include "options.h"
#include "serve.h"

#define FILES_MAX 65536
#define EXIT_MOUNT_FAILED 32 /* what mount(8) expects of its helpers */
#define MIB (1024 * 1024)

struct program {
    struct arguments arguments;
    struct hl_store *store;
    struct fs_relay relay; /* from the store to fs */
    struct fs *fs;
    struct serve *serve;
    int ready_fd; /* the parent waits at its other end; -1 in the foreground */
};

/* ---- the process ----------------------------------------------------------------------------- */

/* Keeps what the daemon does not use from staying with it: few arenas, large blocks given back at
 * once. */
static void set_memory_limits(void)
{
    mallopt(M_ARENA_MAX, 2);
    mallopt(M_MMAP_THRESHOLD, MIB);
    mallopt(M_TRIM_THRESHOLD, MIB);
}

/* Every segment may be open at once, and more for readers. */
static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    rlim_t wanted = limit.rlim_max < FILES_MAX ? limit.rlim_max : FILES_MAX;
    if (limit.rlim_cur >= wanted)
        return;
    limit.rlim_cur = wanted;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        fs_log(HL_WARNING, "cannot raise the limit of open files: %s", strerror(errno));
}

/*
 * Leaves the terminal and tells the parent that the mount is there. False: the parent is gone, so
 * whoever asked for the mount does not wait for it any more.
 */
static bool go_to_background(struct program *program)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || chdir("/") != 0) {
        fs_log(HL_ERROR, "cannot go to the background: %s", strerror(errno));
        if (null >= 0)
            close(null);
        return false;
    }
    setsid();
    fs_log_open(false);
    for (int fd = 0; fd <= 2; fd++)
        dup2(null, fd);
    if (null > 2)
        close(null);
    bool told = write(program->ready_fd, "", 1) == 1;
    close(program->ready_fd);
    program->ready_fd = -1;
    if (!told)
        fs_log(HL_ERROR, "the process that asked for the mount is gone");
    return told;
}

/* ---- opening and mounting -------------------------------------------------------------------- */

static void report(void *context, enum hl_severity severity, const char *sentence)
{
    (void)context;
    fs_log(severity, "%s", sentence);
}

static int open_store(struct program *program, struct hl_error *err)
{
    const struct fs_options *options = &program->arguments.options;
    struct hl_options store_options;
    hl_options_init(&store_options);
    store_options.read_only = options->read_only;
    store_options.sync_interval_ms = options->sync_interval_ms;
    store_options.segment_size = options->segment_size;
    store_options.max_record = options->max_record;
    store_options.checkpoint_interval_ms = options->checkpoint_interval_ms;
    store_options.compact_interval_ms = options->compact_interval_ms;
    store_options.compact_threshold = options->compact_threshold;
    store_options.history_ms = options->history_ms;
    store_options.backups = options->backups;
    store_options.report = report;
    store_options.news = fs_news;
    store_options.news_context = &program->relay;
    return holder_open_store(options->dir, &store_options, &program->store, err);
}

/* Opens the store with the mountpoint free, or fails. */
static int open_and_check(struct program *program, struct hl_error *err)
{
    const struct fs_options *options = &program->arguments.options;
    bool live_of_dir;
    int result = mount_prepare(options->mountpoint, options->dir, &live_of_dir, err);
    /* Live, but perhaps about to end: the lock will tell. */
    if (result != 0 && (!live_of_dir || options->read_only))
        return result;
    result = open_store(program, err);
    if (result != 0)
        return result;
    if (serve_stop_asked(0))
        return hl_fail(err, EINTR, "stopped before %s was mounted", options->mountpoint);
    return mount_prepare(options->mountpoint, options->dir, NULL, err);
}

static int start(struct program *program, struct hl_error *err)
{
    const struct fs_options *options = &program->arguments.options;
    dev_t device;
    int result = open_and_check(program, err);
    if (result != 0)
        return result;
    result = fs_new(options, program->store, &program->fs);
    if (result != 0)
        return hl_fail(err, -result, "cannot start: %s", strerror(-result));
    fs_relay_to(&program->relay, program->fs);
    result = serve_new(&program->arguments, program->fs, &program->serve, err);
    if (result == 0)
        result = serve_mount(program->serve, err);
    if (result != 0)
        return result;
    if (!options->read_only && serve_device(program->serve, &device))
        holder_note_mounted(program->store, device);
    return serve_start(program->serve, err);
}

/* ---- running --------------------------------------------------------------------------------- */

/* Serves until the mount is to end. */
static int serve(struct program *program)
{
    const struct fs_options *options = &program->arguments.options;
    if (program->ready_fd >= 0 && !go_to_background(program))
        return -EPIPE;
    sd_notifyf(0, "READY=1\nMAINPID=%d\nSTATUS=%s is mounted on %s", (int)getpid(), options->dir,
               options->mountpoint);
    int result = serve_wait(program->serve);
    if (result != 0)
        fs_log(HL_ERROR, "the session on %s broke down: %s", options->mountpoint,
               strerror(-result));
    return result;
}

/* Undoes whatever start() did. */
static int finish(struct program *program)
{
    if (program->store != NULL && !program->arguments.options.read_only)
        holder_note_closing(program->store);
    sd_notify(0, "STOPPING=1");
    /* The store's own threads, which drop records by rules and compact, run until it is closed. */
    fs_relay_to(&program->relay, NULL);
    fs_free(program->fs);
    serve_free(program->serve);
    if (program->store == NULL)
        return 0;
    int result = hl_store_close(program->store);
    if (result != 0)
        fs_log(HL_ERROR, "closing %s: %s", program->arguments.options.dir, strerror(-result));
    return result;
}

static int run(struct program *program)
{
    struct hl_error err = {0};
    serve_block_signals();
    raise_file_limit();
    int result = start(program, &err);
    if (result != 0)
        fs_log(HL_ERROR, "%s", err.text[0] ? err.text : strerror(-result));
    else
        result = serve(program);
    int finished = finish(program);
    return result == 0 && finished == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* What was done, if that is to be said. */
static void tell(const struct program *program, const char *done)
{
    const struct fs_options *options = &program->arguments.options;
    if (program->arguments.verbose)
        fs_log(HL_INFO, "%s: %s on %s", done, options->dir, options->mountpoint);
}

/* The parent's part: waits until the daemon has mounted, or has ended. */
static int wait_until_ready(int fd, pid_t daemon)
{
    char byte;
    ssize_t got;
    int status;
    do
        got = read(fd, &byte, 1);
    while (got < 0 && errno == EINTR);
    if (got == 1)
        return EXIT_SUCCESS;
    while (waitpid(daemon, &status, 0) < 0) {
        if (errno != EINTR)
            return EXIT_FAILURE;
    }
    if (WIFSIGNALED(status))
        fs_log(HL_ERROR, "the daemon was ended by signal %d", WTERMSIG(status));
    return EXIT_FAILURE;
}

static int run_in_background(struct program *program)
{
    int ends[2];
    /* A descriptor inherited by chance would be kept for as long as the mount lives. */
    closefrom(3);
    if (pipe2(ends, O_CLOEXEC) != 0) {
        fs_log(HL_ERROR, "cannot make a pipe: %s", strerror(errno));
        return EXIT_FAILURE;
    }
    pid_t daemon = fork();
    if (daemon < 0) {
        fs_log(HL_ERROR, "cannot fork: %s", strerror(errno));
        return EXIT_FAILURE;
    }
    if (daemon > 0) {
        close(ends[1]);
        int status = wait_until_ready(ends[0], daemon);
        close(ends[0]);
        if (status == EXIT_SUCCESS)
            tell(program, "mounted");
        return status;
    }
    close(ends[0]);
    program->ready_fd = ends[1];
    return run(program);
}

/* *dir_missing: DIR is not there and cannot be made, for want of the directory that it is to be in.
 */
static int resolve_paths(struct fs_options *options, bool *dir_missing, struct hl_error *err)
{
    char *dir = NULL, *mountpoint = NULL;
    int result = mount_resolve_dir(options->dir, &dir, err);
    *dir_missing = result == -ENOENT;
    if (result == 0)
        result = mount_resolve_mountpoint(options->mountpoint, &mountpoint, err);
    if (result == 0)
        result = mount_check_apart(dir, mountpoint, err);
    if (result != 0) {
        free(dir);
        free(mountpoint);
        return result;
    }
    free(options->dir);
    free(options->mountpoint);
    options->dir = dir;
    options->mountpoint = mountpoint;
    return 0;
}

/* Libfuse and the store rely on descriptors 0, 1 and 2 being taken. */
static bool ensure_standard_descriptors(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= 2);
    if (fd < 0)
        return false;
    close(fd);
    return true;
}

static int fail(const struct hl_error *err, int result)
{
    fs_log(HL_ERROR, "%s", err->text[0] ? err->text : strerror(-result));
    return EXIT_FAILURE;
}

static int mount_and_serve(struct program *program)
{
    const struct arguments *arguments = &program->arguments;
    struct fs_options *options = &program->arguments.options;
    struct hl_error err = {0};
    bool dir_missing;
    if (arguments->remount)
        return fail(&err, hl_fail(&err, EOPNOTSUPP,
                                  "%s cannot be remounted: unmount it, and mount it again with the "
                                  "new options",
                                  options->mountpoint));
    int result = resolve_paths(options, &dir_missing, &err);
    /* A disk that is not plugged in is no error then, see mount(8). */
    if (result != 0 && dir_missing && arguments->helper && arguments->nofail) {
        tell(program, "not mounted, for there is no such place");
        return EXIT_SUCCESS;
    }
    if (result != 0)
        return fail(&err, result);
    if (arguments->fake) {
        tell(program, "not mounted, as asked");
        return EXIT_SUCCESS;
    }
    return options->foreground ? run(program) : run_in_background(program);
}

/* As mount.hotlogfs: in the namespace asked for, and with an exit status that mount(8) knows. */
static int help_mount(struct program *program)
{
    const struct arguments *arguments = &program->arguments;
    struct hl_error err = {0};
    int result = 0;
    if (arguments->verbose && arguments->error[0] != '\0')
        fs_log(HL_INFO, "passed over: %s", arguments->error);
    if (arguments->namespace != NULL)
        result = mount_enter_namespace(arguments->namespace, &err);
    int status = result == 0 ? mount_and_serve(program) : fail(&err, result);
    return status == EXIT_SUCCESS ? EXIT_SUCCESS : EXIT_MOUNT_FAILED;
}

static int clear(struct program *program)
{
    struct fs_options *options = &program->arguments.options;
    struct hl_error err = {0};
    bool dir_missing;
    int result = resolve_paths(options, &dir_missing, &err);
    if (result == 0)
        result = mount_clear(options->mountpoint, options->dir, &err);
    else if (result == -ENOENT && !dir_missing)
        result = 0; /* no mountpoint, no dead mount */
    return result == 0 ? EXIT_SUCCESS : fail(&err, result);
}

int main(int argc, char *argv[])
{
    struct program program = {.relay = {.lock = PTHREAD_RWLOCK_INITIALIZER}, .ready_fd = -1};
    int status = EXIT_FAILURE;

    if (!ensure_standard_descriptors())
        return EXIT_FAILURE;
    signal(SIGCHLD,
           SIG_DFL); /* ignored, as a parent may leave it, children could not be waited for */
    set_memory_limits();
    fs_log_open(true);
    int result = arguments_parse(&program.arguments, argc, argv);
    if (result != 0) {
        fs_log(HL_ERROR, "%s", result == -EINVAL ? program.arguments.error : strerror(-result));
        if (result == -EINVAL)
            fputs("Try 'hotlogfs --help'.\n", stderr);
    } else if (program.arguments.action == ARGUMENTS_HELP) {
        arguments_print_help(stdout);
        status = fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
    } else if (program.arguments.action == ARGUMENTS_VERSION) {
        puts("hotlogfs " HL_VERSION);
        status = fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
    } else if (program.arguments.action == ARGUMENTS_CLEAR) {
        status = clear(&program);
    } else if (program.arguments.helper) {
        status = help_mount(&program);
    } else {
        status = mount_and_serve(&program);
    }
    arguments_free(&program.arguments);
    return status;
}
