/*
 * directory.c - DIR and log/ are opened, or made, and the lock is taken: by one writer, beside any
 * number of readers.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "core.h"

#define LOCK_TURNS 10000U /* of looking whether only readers hold the lock */

struct contents {
    bool log, other;
};

static int look_at_name(void *context, const char *name)
{
    struct contents *contents = context;
    if (strcmp(name, "log") == 0)
        contents->log = true;
    else if (strcmp(name, "lost+found") != 0 && strcmp(name, "lock") != 0)
        contents->other = true;
    return 0;
}

/* *young: there is nothing in it yet, or log/ alone. */
static int open_directory(struct hl_store *store, bool *young, struct hl_error *err)
{
    const char *path = store->path;
    struct contents contents = {0};
    bool writer = !store->options.read_only;
    if (writer) {
        int error = store->io->mkdir(store->io->context, AT_FDCWD, path, 0700);
        if (error < 0 && error != -EEXIST)
            return hl_fail(err, -error, "cannot make %s: %s", path, strerror(-error));
    }
    int error = store->dirfd = hl_io_open(store->io, AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (error >= 0)
        error = store->io->list(store->io->context, store->dirfd, look_at_name, &contents);
    if (error < 0)
        return hl_fail(err, -error, "cannot open %s: %s", path, strerror(-error));
    if (!contents.log && (!writer || contents.other))
        return hl_fail(err, writer ? ENOTEMPTY : ENOENT,
                       writer ? "%s is not empty, and there is no log/ in it: it is no store"
                              : "there is no store in %s",
                       path);
    if (!contents.log) { /* DIR itself may be new, and its name not on the disk */
        int parent = hl_io_open(store->io, store->dirfd, "..", O_RDONLY | O_DIRECTORY, 0);
        error = parent < 0 ? parent : hl_io_fsync(store->io, parent);
        hl_io_close(store->io, parent);
        if (error < 0 && error != -EACCES)
            return hl_fail(err, -error, "cannot sync the directory of %s: %s", path,
                           strerror(-error));
    }
    struct statvfs st;
    if (store->io->fstatvfs(store->io->context, store->dirfd, &st) == 0)
        store->medium_read_only = (st.f_flag & ST_RDONLY) != 0;
    *young = !contents.other;
    return 0;
}

static void read_holder(struct hl_store *store, int fd, struct hl_holder *holder)
{
    char text[160] = "";
    long pid = 0;
    int used = 0;
    ssize_t n = hl_io_read(store->io, fd, text, sizeof text - 1, 0);
    *holder = (struct hl_holder){0};
    if (n <= 0)
        return;
    text[n] = 0;
    text[strcspn(text, "\n")] = 0;
    if (sscanf(text, "%ld%n", &pid, &used) == 1 && pid > 0) {
        holder->pid = (pid_t)pid;
        const char *note = text + used;
        note += strspn(note, " ");
        snprintf(holder->note, sizeof holder->note, "%s", note);
    }
}

static int write_lock_text(struct hl_store *store, const char *note)
{
    char text[160];
    int len = snprintf(text, sizeof text, "%ld%s%s\n", (long)getpid(), note[0] ? " " : "", note);
    if (len < 0 || (size_t)len >= sizeof text || strchr(note, '\n'))
        return -EINVAL;
    if (store->lockfd < 0) /* there was no room for the file */
        return 0;
    /* Read by others at any time: the text is written before what is left of a longer one goes. */
    int error = hl_io_write(store->io, store->lockfd, text, (size_t)len, 0);
    return error < 0 ? error : hl_io_truncate(store->io, store->lockfd, (uint64_t)len);
}

int hl_store_note(struct hl_store *store, const char *note)
{
    return store->options.read_only ? 0 : write_lock_text(store, note);
}

/* Takes the lock of a writer. A read-only store that is being opened holds it shared for a moment,
 * to see whether there is a writer: that is no reason to give up. */
static int lock_for_writing(struct hl_store *store, int fd)
{
    for (unsigned turn = 0;; turn++) {
        int error = store->io->flock(store->io->context, fd, LOCK_EX | LOCK_NB);
        if (error != -EWOULDBLOCK || turn == LOCK_TURNS)
            return error;
        if (store->io->flock(store->io->context, fd, LOCK_SH | LOCK_NB) < 0)
            return -EWOULDBLOCK; /* another writer has it */
        store->io->flock(store->io->context, fd, LOCK_UN);
        sched_yield();
    }
}

/* Whether the file that is locked still has its name: if not, another may lock what has it now. */
static bool is_named(struct hl_store *store, int fd)
{
    struct stat held, named;
    int again = hl_io_open(store->io, store->dirfd, "lock", O_RDONLY, 0);
    bool same = again >= 0 && store->io->fstat(store->io->context, fd, &held) == 0 &&
                store->io->fstat(store->io->context, again, &named) == 0 &&
                held.st_dev == named.st_dev && held.st_ino == named.st_ino;
    hl_io_close(store->io, again);
    return same;
}

/* Opens and locks DIR/lock. Without room for it, when somebody removed it, DIR's own lock must do.
 */
static int lock_file(struct hl_store *store)
{
    for (unsigned turn = 0; turn < LOCK_TURNS; turn++) {
        int fd = hl_io_open(store->io, store->dirfd, "lock", O_RDWR | O_CREAT, 0600);
        if (hl_io_is_full(fd))
            return 0;
        if (fd < 0)
            return fd;
        int error = lock_for_writing(store, fd);
        if (error < 0 || is_named(store, fd)) {
            store->lockfd = fd;
            return error;
        }
        hl_io_close(store->io, fd);
    }
    return -EAGAIN;
}

/* What taking the lock comes to. */
static int judge_lock(struct hl_store *store, int error, struct hl_holder *holder,
                      struct hl_error *err)
{
    struct hl_holder found = {0};
    if (error >= 0)
        return 0;
    if (error != -EWOULDBLOCK)
        return hl_fail(err, -error, "cannot lock %s: %s", store->path, strerror(-error));
    if (store->lockfd >= 0)
        read_holder(store, store->lockfd, &found);
    if (holder)
        *holder = found;
    return found.pid
               ? hl_fail(err, EBUSY, "%s is in use by process %ld", store->path, (long)found.pid)
               : hl_fail(err, EBUSY, "%s is in use by another process", store->path);
}

/* DIR is locked too: its lock cannot be removed by removing a file. */
static int lock_as_writer(struct hl_store *store, struct hl_holder *holder, struct hl_error *err)
{
    int error = lock_file(store);
    if (error == 0)
        error = lock_for_writing(store, store->dirfd);
    if (error == 0)
        error = write_lock_text(store, "");
    if (hl_io_is_full(error)) /* whoever finds it held will not know by whom */
        error = 0;
    return judge_lock(store, error, holder, err);
}

/* Keeps writers out while a check lasts that writes nothing; others of its kind may go on. */
static int lock_to_check(struct hl_store *store, struct hl_holder *holder, struct hl_error *err)
{
    const struct hl_io *io = store->io;
    int error = 0;
    store->lockfd = hl_io_open(io, store->dirfd, "lock", O_RDONLY, 0);
    if (store->lockfd < 0 && store->lockfd != -ENOENT)
        return hl_fail(err, -store->lockfd, "cannot open the lock file: %s",
                       strerror(-store->lockfd));
    if (store->lockfd >= 0)
        error = io->flock(io->context, store->lockfd, LOCK_SH | LOCK_NB);
    if (error == 0)
        error = io->flock(io->context, store->dirfd, LOCK_SH | LOCK_NB);
    return judge_lock(store, error, holder, err);
}

/* Whether somebody holds the lock that a writer takes on fd. */
static bool is_held(struct hl_store *store, int fd)
{
    if (store->io->flock(store->io->context, fd, LOCK_SH | LOCK_NB) == -EWOULDBLOCK)
        return true;
    store->io->flock(store->io->context, fd, LOCK_UN);
    return false;
}

static int take_lock(struct hl_store *store, bool check, struct hl_holder *holder,
                     struct hl_error *err)
{
    if (!store->options.read_only)
        return lock_as_writer(store, holder, err);
    if (check)
        return lock_to_check(store, holder, err);
    int fd = hl_io_open(store->io, store->dirfd, "lock", O_RDONLY, 0);
    if (fd < 0 && fd != -ENOENT)
        return hl_fail(err, -fd, "cannot open the lock file: %s", strerror(-fd));
    store->writer_alive = (fd >= 0 && is_held(store, fd)) || is_held(store, store->dirfd);
    hl_io_close(store->io, fd);
    return 0;
}

static int note_name(void *context, const char *name)
{
    (void)name;
    *(bool *)context = false;
    return 0;
}

/* The name of log/ is on the disk before anything else is made: whoever made it may have died
 * before that. */
static int sync_young(struct hl_store *store)
{
    bool empty = true;
    int error = store->io->list(store->io->context, store->logfd, note_name, &empty);
    return error == 0 && empty ? hl_io_fsync(store->io, store->dirfd) : error;
}

static int open_log(struct hl_store *store, bool young, struct hl_error *err)
{
    bool writer = !store->options.read_only;
    int error = store->logfd = hl_io_open_dir(store->io, store->dirfd, "log", writer);
    if (error >= 0)
        error = young && writer ? sync_young(store) : 0;
    if (error < 0)
        return hl_fail(err, -error, "cannot open log/: %s", strerror(-error));
    segment_set_init(&store->segments, store->io, store->logfd, writer);
    return 0;
}

int store_begin(struct hl_store *store, bool check, struct hl_holder *holder, struct hl_error *err)
{
    bool young = false;
    int error = open_directory(store, &young, err);
    if (error == 0)
        error = take_lock(store, check, holder, err);
    return error == 0 ? open_log(store, young, err) : error;
}
