/*
 * beside.c - a read-only mount beside a writer: the thread that looks for what the writer appends.
 *
 * Readers look for themselves. But those who wait, in `follow` or with inotify, are told by this
 * thread, which sleeps until the system says that a file of the log was written to. Where it cannot
 * say so, the thread looks every now and then.
 */
#include "beside.h"
#include "follow.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define LOOK_MS 250

struct beside {
    struct fs *fs;
    int watch_fd; /* -1: none */
    int stop_fd;
    pthread_t thread;
};

static void look(struct beside *beside)
{
    hl_look(beside->fs->store);
    follow_look(beside->fs->follow); /* that a session is gone is no news */
}

static void drain(int fd)
{
    char events[4096];
    while (read(fd, events, sizeof events) > 0)
        ;
}

static void *run(void *context)
{
    struct beside *beside = context;
    struct pollfd fds[] = {{.fd = beside->stop_fd, .events = POLLIN},
                           {.fd = beside->watch_fd, .events = POLLIN}};

    look(beside); /* what came before the watch was set */
    while (fds[0].revents == 0) {
        if (poll(fds, 2, beside->watch_fd < 0 ? LOOK_MS : -1) < 0 && errno != EINTR)
            break;
        if (fds[1].revents & POLLIN)
            drain(beside->watch_fd); /* first, so that what comes meanwhile is said again */
        look(beside);
    }
    return NULL;
}

int beside_start(struct fs *fs, struct beside **beside)
{
    struct beside *made = calloc(1, sizeof *made);
    int result = 0;

    if (!made)
        return -ENOMEM;
    made->fs = fs;
    made->watch_fd = hl_watch(fs->store);
    if (made->watch_fd < 0)
        fs_log(HL_WARNING, "cannot watch the writer's log (%s); looking at it every %d ms",
               strerror(-made->watch_fd), LOOK_MS);
    made->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (made->stop_fd < 0)
        result = -errno;
    if (result == 0)
        result = fs_thread_start(&made->thread, run, made);
    if (result == 0) {
        *beside = made;
        return 0;
    }
    if (made->watch_fd >= 0)
        close(made->watch_fd);
    if (made->stop_fd >= 0)
        close(made->stop_fd);
    free(made);
    return result;
}

void beside_stop(struct beside *beside)
{
    if (!beside)
        return;
    eventfd_write(beside->stop_fd, 1);
    pthread_join(beside->thread, NULL);
    if (beside->watch_fd >= 0)
        close(beside->watch_fd);
    close(beside->stop_fd);
    free(beside);
}
