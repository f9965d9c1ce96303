/*
 * index_child.c - index_check() in a child process.
 *
 * LMDB trusts its pages: damage can end the process that reads them, by a bad address, a page past
 * the end of the file, or an assertion. So doubt is settled by a process that may die. The child
 * sends its report through a pipe; what it cannot say, how it ended says.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "index_internal.h"

#define SECONDS_LEAST 120U
#define BYTES_A_SECOND (UINT64_C(4) << 20) /* a slow disk, read in no order */

/* What goes through the pipe; small enough to go at once. */
struct answer {
    int error;
    struct index_check_report report;
};

/* How long the walk may take: a damaged tree could have it go on for ever. */
static unsigned seconds_for(const char *path)
{
    char file[PATH_MAX];
    struct stat st;
    int n = snprintf(file, sizeof file, "%s/data.mdb", path);
    if (n < 0 || (size_t)n >= sizeof file || stat(file, &st) < 0 || st.st_size < 0)
        return SECONDS_LEAST;
    uint64_t seconds = SECONDS_LEAST + (uint64_t)st.st_size / BYTES_A_SECOND;
    return seconds > 86400 ? 86400 : (unsigned)seconds;
}

/* In the child: the signals by which it may die do that, whatever the parent does with them. */
static void prepare_to_die(const char *path, pid_t parent)
{
    static const int signals[] = {SIGBUS, SIGSEGV, SIGABRT, SIGILL, SIGFPE, SIGALRM, SIGPIPE};
    sigset_t none;
    sigemptyset(&none);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        signal(signals[i], SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* What LMDB says before it aborts tells a user nothing. */
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (null >= 0)
        dup2(null, STDERR_FILENO);
    alarm(seconds_for(path));
    /* A child that outlived its parent would go on holding the locks that it inherited. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
        _exit(1);
}

static void child(int pipe_end, pid_t parent, const char *path, unsigned flags,
                  const uint8_t *store_id)
{
    prepare_to_die(path, parent);
    struct answer answer;
    memset(&answer, 0, sizeof answer);
    answer.error = index_check(path, flags, store_id, &answer.report);
    ssize_t written;
    do
        written = write(pipe_end, &answer, sizeof answer);
    while (written < 0 && errno == EINTR);
    _exit(written == (ssize_t)sizeof answer ? 0 : 1);
}

/* Reads the answer; what is not whole leaves got false. */
static void receive(int pipe_end, struct answer *answer, bool *got)
{
    size_t have = 0;
    while (have < sizeof *answer) {
        ssize_t n = read(pipe_end, (char *)answer + have, sizeof *answer - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    *got = have == sizeof *answer;
}

static int judge(int status, bool got, const struct answer *answer,
                 struct index_check_report *report)
{
    if (got) {
        *report = answer->report;
        report->complaint[sizeof report->complaint - 1] = '\0';
        return answer->error;
    }
    if (!WIFSIGNALED(status))
        return -EIO; /* it could not send what it found */
    int signal_number = WTERMSIG(status);
    if (signal_number == SIGALRM)
        return index_complain(report, "checking the index did not come to an end");
    /* Not its own doing: the machine is out of memory, or someone wants it gone. */
    if (signal_number == SIGKILL)
        return -ENOMEM;
    if (signal_number == SIGTERM || signal_number == SIGINT || signal_number == SIGHUP)
        return -EINTR;
    return index_complain(report, "checking the index ended by signal %d (%s)", signal_number,
                          strsignal(signal_number));
}

int index_check_in_child(const char *path, unsigned flags, const uint8_t store_id[16],
                         struct index_check_report *report)
{
    *report = (struct index_check_report){.sessions = 0};
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    pid_t parent = getpid(), pid = fork();
    if (pid < 0) {
        int error = -errno;
        close(ends[0]);
        close(ends[1]);
        return error;
    }
    if (pid == 0) {
        close(ends[0]);
        child(ends[1], parent, path, flags, store_id);
    }
    close(ends[1]);
    struct answer answer;
    bool got;
    receive(ends[0], &answer, &got);
    close(ends[0]);
    int status;
    pid_t waited;
    do
        waited = waitpid(pid, &status, 0);
    while (waited < 0 && errno == EINTR);
    if (waited < 0) {
        /* Children are reaped by someone else (SIGCHLD ignored): only the answer counts. */
        if (!got)
            return index_complain(report, "checking the index ended without an answer");
        status = 0;
    }
    return judge(status, got, &answer, report);
}
