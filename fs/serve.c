/*
 * serve.c - a mounted session.
 *
 * The loop (loop.h; libfuse's own with io_uring) runs in a thread of its own. The thread that calls
 * serve_wait() sleeps in poll() on three things: signals, changes of the table of mounts, and the
 * end of the loop. So a lazy unmount is noticed while files are still open, and an idle mount costs
 * nothing.
 *
 * A loop that sleeps does not see fuse_session_exit(); it looks at the flag again when a signal
 * interrupts it. WAKE is sent until the loop has ended, so a signal that comes just before it
 * sleeps is not missed for good.
 */
#include "serve.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "loop.h"
#include "mount.h"

#define WAKE SIGUSR1
#define WAKE_INTERVAL_MS 5
#define THREADS_MAX 10 /* of libfuse's loop */

struct serve {
    const struct fs_options *options;
    struct fs *fs;
    struct fuse_session *session;
    bool mounted;
    bool visible; /* the mount is in our table of mounts, as `device` */
    dev_t device;
    int signal_fd, table_fd, ended_fd;
    bool started; /* the thread below is to be joined */
    pthread_t loop;
    int loop_result; /* written by the loop's thread before it posts ended_fd */
};

/* ---- signals --------------------------------------------------------------------------------- */

static void stop_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
}

static void wake(int signal)
{
    (void)signal; /* it only interrupts */
}

void serve_block_signals(void)
{
    sigset_t set;
    struct sigaction action = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &action, NULL);
    sigaction(SIGXFSZ, &action, NULL); /* a write past a limit fails, and is dealt with as such */
    action.sa_handler = wake;          /* without SA_RESTART */
    sigaction(WAKE, &action, NULL);
    /* Whoever started us may have had them ignored; blocked, they would be dropped. */
    action.sa_handler = SIG_DFL;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    stop_signals(&set);
    sigaddset(&set, WAKE);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

bool serve_stop_asked(unsigned ms)
{
    sigset_t set;
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    stop_signals(&set);
    int signal = sigtimedwait(&set, NULL, &time);
    if (signal < 0)
        return false;
    kill(getpid(), signal); /* for the next who asks */
    return true;
}

/* ---- making ---------------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 0))) static void log_of_libfuse(enum fuse_log_level level,
                                                                 const char *format, va_list list)
{
    char text[512];
    enum hl_severity severity = HL_INFO;
    vsnprintf(text, sizeof(text), format, list);
    text[strcspn(text, "\n")] = '\0';
    if (level <= FUSE_LOG_ERR)
        severity = HL_ERROR;
    else if (level <= FUSE_LOG_WARNING)
        severity = HL_WARNING;
    fs_log(severity, "%s", text);
}

/* The options for libfuse; a path may hold a comma or a backslash. */
static char *session_options(const struct arguments *arguments)
{
    const struct fs_options *options = &arguments->options;
    char *list = NULL, *source = NULL;
    bool good = asprintf(&source, "fsname=%s", options->dir) >= 0;
    good = good && fuse_opt_add_opt_escaped(&list, source) == 0;
    good = good && fuse_opt_add_opt(&list, "subtype=hotlogfs,default_permissions") == 0;
    if (options->allow_other)
        good = good && fuse_opt_add_opt(&list, "allow_other") == 0;
    if (options->io_uring)
        good = good && fuse_opt_add_opt(&list, "io_uring") == 0;
    if (arguments->mount_options[0] != '\0')
        good = good && fuse_opt_add_opt(&list, arguments->mount_options) == 0;
    free(source);
    if (good)
        return list;
    free(list);
    return NULL;
}

static struct fuse_session *make_session(const struct arguments *arguments, struct fs *fs)
{
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    struct fuse_session *session = NULL;
    char *list = session_options(arguments);
    if (list != NULL && fuse_opt_add_arg(&args, "hotlogfs") == 0 &&
        fuse_opt_add_arg(&args, "-o") == 0 && fuse_opt_add_arg(&args, list) == 0)
        session = fuse_session_new(&args, &fs_operations, sizeof(fs_operations), fs);
    fuse_opt_free_args(&args);
    free(list);
    return session;
}

int serve_new(const struct arguments *arguments, struct fs *fs, struct serve **serve,
              struct hl_error *err)
{
    struct serve *made = calloc(1, sizeof(*made));
    if (made == NULL)
        return hl_fail(err, ENOMEM, "out of memory");
    made->options = &arguments->options;
    made->fs = fs;
    made->signal_fd = made->table_fd = made->ended_fd = -1;
    fuse_set_log_func(log_of_libfuse);
    sigset_t set;
    stop_signals(&set);
    made->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    made->ended_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    made->table_fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    int result = 0;
    if (made->signal_fd < 0 || made->ended_fd < 0 || made->table_fd < 0)
        result = hl_fail(err, errno, "cannot watch signals and mounts: %s", strerror(errno));
    else if ((made->session = make_session(arguments, fs)) == NULL)
        result = hl_fail(err, EINVAL, "libfuse refuses the mount options");
    if (result != 0) {
        serve_free(made);
        return result;
    }
    fs_attach(fs, made->session);
    *serve = made;
    return 0;
}

int serve_mount(struct serve *serve, struct hl_error *err)
{
    const char *mountpoint = serve->options->mountpoint;
    /* libfuse has said why in the log, or fusermount3 on standard error. */
    if (fuse_session_mount(serve->session, mountpoint) != 0)
        return hl_fail(err, EIO, "cannot mount on %s", mountpoint);
    serve->mounted = true;
    int found = mount_find(mountpoint, serve->options->dir, &serve->device);
    serve->visible = found == 1;
    if (found != 1)
        fs_log(HL_WARNING,
               "the mount on %s is not in our table of mounts (%s), so a lazy unmount "
               "with open files will not be noticed until they are closed",
               mountpoint, found < 0 ? strerror(-found) : "another mount namespace");
    return 0;
}

bool serve_device(const struct serve *serve, dev_t *device)
{
    *device = serve->device;
    return serve->visible;
}

/* ---- running --------------------------------------------------------------------------------- */

static int run_loop_of_libfuse(struct fuse_session *session)
{
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    if (config == NULL)
        return -ENOMEM;
    fuse_loop_cfg_set_max_threads(config, THREADS_MAX);
    fuse_loop_cfg_set_idle_threads(config, THREADS_MAX);
    int result = fuse_session_loop_mt(session, config);
    fuse_loop_cfg_destroy(config);
    return result;
}

static void *run_loop(void *context)
{
    struct serve *serve = context;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, WAKE);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    serve->loop_result = serve->options->io_uring
                             ? run_loop_of_libfuse(serve->session)
                             : loop_run(serve->session, serve->options->spin_us, WAKE);
    eventfd_write(serve->ended_fd, 1);
    return NULL;
}

int serve_start(struct serve *serve, struct hl_error *err)
{
    int error = pthread_create(&serve->loop, NULL, run_loop, serve);
    if (error != 0)
        return hl_fail(err, error, "cannot start a thread: %s", strerror(error));
    serve->started = true;
    error = fs_start(serve->fs, serve->visible, serve->device);
    return error < 0 ? hl_fail(err, -error, "cannot start a thread: %s", strerror(-error)) : 0;
}

/* Ends the loop and joins its thread. */
static void stop_loop(struct serve *serve)
{
    struct pollfd ended = {.fd = serve->ended_fd, .events = POLLIN};
    if (!serve->started)
        return;
    while (poll(&ended, 1, 0) == 0) {
        fuse_session_exit(serve->session);
        pthread_kill(serve->loop, WAKE);
        poll(&ended, 1, WAKE_INTERVAL_MS);
    }
    pthread_join(serve->loop, NULL);
    serve->started = false;
}

/* Whether the mount has left the table; if that cannot be told, it has not. */
static bool is_gone(struct serve *serve)
{
    if (!serve->visible)
        return false;
    int present = mount_is_present(serve->device, serve->options->dir);
    if (present < 0)
        fs_log(HL_WARNING, "cannot read the table of mounts: %s", strerror(-present));
    return present == 0;
}

/* A hangup ends a mount in the foreground of a terminal; one in the background has none. */
static bool took_stop_signal(struct serve *serve)
{
    struct signalfd_siginfo info;
    while (read(serve->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo != SIGHUP || serve->options->foreground)
            return true;
    }
    return false;
}

int serve_wait(struct serve *serve)
{
    struct pollfd fds[] = {{.fd = serve->ended_fd, .events = POLLIN},
                           {.fd = serve->signal_fd, .events = POLLIN},
                           {.fd = serve->table_fd, .events = POLLPRI}};
    bool stop = is_gone(serve);
    while (!stop) {
        if (poll(fds, 3, -1) < 0) {
            if (errno == EINTR)
                continue;
            fs_log(HL_ERROR, "cannot wait: %s", strerror(errno));
            break;
        }
        stop = fds[0].revents != 0 || (fds[1].revents != 0 && took_stop_signal(serve)) ||
               (fds[2].revents != 0 && is_gone(serve));
    }
    fs_stop(serve->fs, poll(&fds[0], 1, 0) > 0);
    stop_loop(serve);
    /* libfuse gives the number of a signal, if one ended it. */
    return serve->loop_result < 0 ? serve->loop_result : 0;
}

/* ---- ending ---------------------------------------------------------------------------------- */

/*
 * fuse_session_unmount() unmounts whatever lies on the mountpoint by then. When that is not ours
 * (it was unmounted lazily, or moved) the session gets a pipe nobody reads in place of its device:
 * the kernel then drops the connection, and libfuse sees an error on the descriptor and only closes
 * it.
 */
static void forget_mountpoint(struct serve *serve)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        fs_log(HL_WARNING, "cannot make a pipe: %s", strerror(errno));
        return;
    }
    close(ends[0]);
    if (dup3(ends[1], fuse_session_fd(serve->session), O_CLOEXEC) < 0)
        fs_log(HL_WARNING, "cannot let go of the device: %s", strerror(errno));
    close(ends[1]);
}

/* Whether our mount lies uppermost on its mountpoint; if that cannot be told, it does. */
static bool is_in_place(const struct serve *serve)
{
    dev_t device = 0;
    if (!serve->visible)
        return true;
    int found = mount_find(serve->options->mountpoint, serve->options->dir, &device);
    return found < 0 || (found == 1 && device == serve->device);
}

static void unmount(struct serve *serve)
{
    if (!is_in_place(serve))
        forget_mountpoint(serve);
    fuse_session_unmount(serve->session);
    serve->mounted = false;
    /* Left when the connection was cut from outside, which libfuse takes for an unmount. */
    if (serve->visible && is_in_place(serve)) {
        int result = mount_detach(serve->options->mountpoint);
        if (result != 0)
            fs_log(HL_WARNING, "cannot unmount %s: %s", serve->options->mountpoint,
                   strerror(-result));
    }
}

static void close_if_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

void serve_free(struct serve *serve)
{
    if (serve == NULL)
        return;
    stop_loop(serve);
    if (serve->mounted)
        unmount(serve);
    if (serve->session != NULL)
        fuse_session_destroy(serve->session);
    close_if_open(serve->signal_fd);
    close_if_open(serve->table_fd);
    close_if_open(serve->ended_fd);
    free(serve);
}
