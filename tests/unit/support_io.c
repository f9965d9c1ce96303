/* support_io.c - a table of system calls that counts, and fails on demand. */
#include "support.h"

#include <fcntl.h>
#include <unistd.h>

/* Whether this call is to fail, and how. -1: it does half of its work. */
static int plan(struct t_io *io, enum t_call call, const char *name)
{
    int result = 0;
    io->count[call]++;
    if ((io->calls & 1U << call) && (!io->only || (name && strstr(name, io->only)))) {
        io->seen++;
        if (io->seen >= io->from && io->seen - io->from < io->times) {
            io->failed++;
            result = io->error ? io->error : -1;
        }
    }
    return result;
}

static int on_name(struct t_io *io, enum t_call call, const char *name)
{
    pthread_mutex_lock(&io->lock);
    int result = plan(io, call, name);
    pthread_mutex_unlock(&io->lock);
    return result;
}

static int on_fd(struct t_io *io, enum t_call call, int fd)
{
    pthread_mutex_lock(&io->lock);
    int result = plan(io, call, fd >= 0 && fd < T_FILES ? io->name[fd] : NULL);
    pthread_mutex_unlock(&io->lock);
    return result;
}

static bool is_full(struct t_io *io)
{
    pthread_mutex_lock(&io->lock);
    bool full = io->full;
    pthread_mutex_unlock(&io->lock);
    return full;
}

static int watch_open(void *context, int dirfd, const char *name, int flags, mode_t mode)
{
    struct t_io *io = context;
    int error = on_name(io, T_OPEN, name);
    if (!error && (flags & O_CREAT) && is_full(io) && faccessat(dirfd, name, F_OK, 0) < 0)
        error = -ENOSPC;
    if (error)
        return error;
    int fd = hl_io_system.open(NULL, dirfd, name, flags, mode);
    if (fd >= 0 && fd < T_FILES) {
        pthread_mutex_lock(&io->lock);
        free(io->name[fd]);
        io->name[fd] = strdup(name);
        pthread_mutex_unlock(&io->lock);
    }
    return fd;
}

static int watch_close(void *context, int fd)
{
    int error = on_fd(context, T_CLOSE, fd);
    int result = hl_io_system.close(NULL, fd);
    return error ? error : result;
}

static int watch_dup3(void *context, int from, int to, int flags)
{
    (void)context;
    return hl_io_system.dup3(NULL, from, to, flags);
}

static ssize_t watch_pread(void *context, int fd, void *buffer, size_t len, uint64_t offset)
{
    int error = on_fd(context, T_PREAD, fd);
    if (error < -1)
        return error;
    return hl_io_system.pread(NULL, fd, buffer, error && len > 1 ? len / 2 : len, offset);
}

static ssize_t watch_pwrite(void *context, int fd, const void *buffer, size_t len, uint64_t offset)
{
    struct stat st;
    int error = on_fd(context, T_PWRITE, fd);
    if (!error && is_full(context) && fstat(fd, &st) == 0 && offset + len > (uint64_t)st.st_size)
        error = -ENOSPC;
    if (error < -1) {
        /* As bad as it gets: a part was written before it failed. */
        if (len > 1)
            hl_io_system.pwrite(NULL, fd, buffer, len / 2, offset);
        return error;
    }
    return hl_io_system.pwrite(NULL, fd, buffer, error && len > 1 ? len / 2 : len, offset);
}

static int watch_fdatasync(void *context, int fd)
{
    int error = on_fd(context, T_FDATASYNC, fd);
    return error ? error : hl_io_system.fdatasync(NULL, fd);
}

static int watch_fsync(void *context, int fd)
{
    int error = on_fd(context, T_FSYNC, fd);
    return error ? error : hl_io_system.fsync(NULL, fd);
}

static int watch_ftruncate(void *context, int fd, uint64_t size)
{
    int error = on_fd(context, T_FTRUNCATE, fd);
    return error ? error : hl_io_system.ftruncate(NULL, fd, size);
}

static int watch_allocate(void *context, int fd, uint64_t size)
{
    int error = on_fd(context, T_ALLOCATE, fd);
    if (!error && is_full(context))
        error = -ENOSPC;
    return error ? error : hl_io_system.allocate(NULL, fd, size);
}

static int watch_forget(void *context, int fd)
{
    (void)context;
    return hl_io_system.forget(NULL, fd);
}

static int watch_fetch(void *context, int fd)
{
    (void)context;
    return hl_io_system.fetch(NULL, fd);
}

static int watch_write_behind(void *context, int fd, uint64_t offset, uint64_t len)
{
    (void)context;
    return hl_io_system.write_behind(NULL, fd, offset, len);
}

static int watch_fstat(void *context, int fd, struct stat *st)
{
    int error = on_fd(context, T_FSTAT, fd);
    return error ? error : hl_io_system.fstat(NULL, fd, st);
}

static int watch_fstatvfs(void *context, int fd, struct statvfs *st)
{
    (void)context;
    return hl_io_system.fstatvfs(NULL, fd, st);
}

static int watch_rename(void *context, int from_dir, const char *from, int to_dir, const char *to)
{
    int error = on_name(context, T_RENAME, to);
    return error ? error : hl_io_system.rename(NULL, from_dir, from, to_dir, to);
}

static int watch_unlink(void *context, int dirfd, const char *name, int flags)
{
    int error = on_name(context, T_UNLINK, name);
    return error ? error : hl_io_system.unlink(NULL, dirfd, name, flags);
}

static int watch_link(void *context, int from_dir, const char *from, int to_dir, const char *to)
{
    int error = on_name(context, T_LINK, to);
    return error ? error : hl_io_system.link(NULL, from_dir, from, to_dir, to);
}

static int watch_mkdir(void *context, int dirfd, const char *name, mode_t mode)
{
    int error = on_name(context, T_MKDIR, name);
    if (!error && is_full(context) && faccessat(dirfd, name, F_OK, 0) < 0)
        error = -ENOSPC;
    return error ? error : hl_io_system.mkdir(NULL, dirfd, name, mode);
}

static int watch_flock(void *context, int fd, int operation)
{
    (void)context;
    return hl_io_system.flock(NULL, fd, operation);
}

static int watch_list(void *context, int dirfd, int (*each)(void *, const char *name),
                      void *each_context)
{
    int error = on_fd(context, T_LIST, dirfd);
    return error ? error : hl_io_system.list(NULL, dirfd, each, each_context);
}

static int watch_watch(void *context, const char *path)
{
    (void)context;
    return hl_io_system.watch(NULL, path);
}

void t_io_init(struct t_io *io)
{
    *io = (struct t_io){
        .io =
            {
                .context = io,
                .open = watch_open,
                .close = watch_close,
                .dup3 = watch_dup3,
                .pread = watch_pread,
                .pwrite = watch_pwrite,
                .fdatasync = watch_fdatasync,
                .fsync = watch_fsync,
                .ftruncate = watch_ftruncate,
                .allocate = watch_allocate,
                .forget = watch_forget,
                .fetch = watch_fetch,
                .write_behind = watch_write_behind,
                .fstat = watch_fstat,
                .fstatvfs = watch_fstatvfs,
                .rename = watch_rename,
                .unlink = watch_unlink,
                .link = watch_link,
                .mkdir = watch_mkdir,
                .flock = watch_flock,
                .watch = watch_watch,
                .list = watch_list,
            },
    };
    pthread_mutex_init(&io->lock, NULL);
}

void t_io_free(struct t_io *io)
{
    for (size_t i = 0; i < T_FILES; i++)
        free(io->name[i]);
    pthread_mutex_destroy(&io->lock);
}

void t_io_fail(struct t_io *io, unsigned calls, const char *only, uint64_t from, uint64_t times,
               int error)
{
    pthread_mutex_lock(&io->lock);
    io->calls = calls;
    io->only = only;
    io->from = from;
    io->times = times;
    io->error = error;
    io->seen = io->failed = 0;
    pthread_mutex_unlock(&io->lock);
}

void t_io_heal(struct t_io *io)
{
    pthread_mutex_lock(&io->lock);
    io->calls = 0;
    pthread_mutex_unlock(&io->lock);
}

void t_io_fill(struct t_io *io, bool full)
{
    pthread_mutex_lock(&io->lock);
    io->full = full;
    pthread_mutex_unlock(&io->lock);
}

uint64_t t_io_count(struct t_io *io, enum t_call call)
{
    pthread_mutex_lock(&io->lock);
    uint64_t count = io->count[call];
    pthread_mutex_unlock(&io->lock);
    return count;
}

uint64_t t_io_failed(struct t_io *io)
{
    pthread_mutex_lock(&io->lock);
    uint64_t failed = io->failed;
    pthread_mutex_unlock(&io->lock);
    return failed;
}
