/* main.c - fsck.hotlogfs: checks a store that is not mounted, and mends it if asked. */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "show.h"

/* As fsck(8) has them; they add up. */
enum {
    STATUS_CLEAN = 0,
    STATUS_MENDED = 1,
    STATUS_LEFT = 4,
    STATUS_FAILED = 8,
    STATUS_USAGE = 16,
    STATUS_CANCELLED = 32
};

/* For the signal handler, which has no other way to it. */
static struct hl_progress progress;

static void cancel(int signal_number)
{
    (void)signal_number;
    atomic_store(&progress.cancel, true);
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = cancel, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* whoever reads progress may go; the check goes on */
    signal(SIGXFSZ, SIG_IGN); /* a write past a limit fails, and that is told */
    signal(SIGCHLD, SIG_DFL); /* ignored, a child could not be waited for */
}

static int status_of(int error, const struct options *options, const struct hl_check_report *report)
{
    if (error == -EINTR)
        return STATUS_CANCELLED;
    if (error == -EBUSY && options->skip_used)
        return STATUS_CLEAN;
    if (error < 0)
        return STATUS_FAILED;
    int status = report->left > 0 ? STATUS_LEFT : STATUS_CLEAN;
    return report->problems > report->left ? status | STATUS_MENDED : status;
}

static int run(const struct options *options)
{
    struct show show;
    struct hl_check_report report;
    struct hl_holder holder = {.pid = 0};
    struct hl_error err = {.code = 0};
    struct hl_check check = {
        .mend = options->mend,
        .restore = options->restore,
        .progress = &progress,
        .found = show_finding,
        .did = show_action,
        .tick = show_tick,
        .context = &show,
    };
    if (!show_begin(&show, options, &progress)) {
        fputs("fsck.hotlogfs: out of memory\n", stderr);
        return STATUS_FAILED;
    }
    catch_signals();
    int error = hl_check(options->dir, &check, &report, &holder, &err);
    int status = status_of(error, options, &report);
    if (error == -EBUSY && options->skip_used && !options->json)
        return status;
    show_end(&show, error, &report, &holder, &err, status);
    return status;
}

int main(int argc, char *argv[])
{
    struct options options;
    int status = STATUS_CLEAN;
    if (!options_parse(&options, argc, argv)) {
        fprintf(stderr, "fsck.hotlogfs: %s\nTry 'fsck.hotlogfs --help'.\n", options.error);
        return STATUS_USAGE;
    }
    if (options.action == ACTION_HELP)
        fputs(options_help, stdout);
    else if (options.action == ACTION_VERSION)
        puts("fsck.hotlogfs " HL_VERSION);
    else {
        options.bar = options.bar && isatty(STDERR_FILENO);
        status = run(&options);
    }
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fputs("fsck.hotlogfs: cannot write to standard output\n", stderr);
        status |= STATUS_FAILED;
    }
    return status;
}
