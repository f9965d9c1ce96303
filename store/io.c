/* io.c - the system's table, and the helpers over any table. */
#include "io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <unistd.h>

#define COPY_BYTES (256U * 1024)

static int sys_open(void *context, int dirfd, const char *name, int flags, mode_t mode)
{
    (void)context;
    int fd = openat(dirfd, name, flags, mode);
    return fd < 0 ? -errno : fd;
}

static int sys_close(void *context, int fd)
{
    (void)context;
    return close(fd) < 0 ? -errno : 0;
}

static int sys_dup3(void *context, int from, int to, int flags)
{
    (void)context;
    return dup3(from, to, flags) < 0 ? -errno : 0;
}

static ssize_t sys_pread(void *context, int fd, void *buffer, size_t len, uint64_t offset)
{
    (void)context;
    ssize_t n = pread(fd, buffer, len, (off_t)offset);
    return n < 0 ? -errno : n;
}

static ssize_t sys_pwrite(void *context, int fd, const void *buffer, size_t len, uint64_t offset)
{
    (void)context;
    ssize_t n = pwrite(fd, buffer, len, (off_t)offset);
    return n < 0 ? -errno : n;
}

static int sys_fdatasync(void *context, int fd)
{
    (void)context;
    return fdatasync(fd) < 0 ? -errno : 0;
}

static int sys_fsync(void *context, int fd)
{
    (void)context;
    return fsync(fd) < 0 ? -errno : 0;
}

static int sys_ftruncate(void *context, int fd, uint64_t size)
{
    (void)context;
    return ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
}

static int sys_allocate(void *context, int fd, uint64_t size)
{
    (void)context;
    return -posix_fallocate(fd, 0, (off_t)size);
}

static int sys_forget(void *context, int fd)
{
    (void)context;
    return -posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

static int sys_fetch(void *context, int fd)
{
    (void)context;
    return -posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED);
}

static int sys_write_behind(void *context, int fd, uint64_t offset, uint64_t len)
{
    (void)context;
    int n = sync_file_range(fd, (off_t)offset, (off_t)len, SYNC_FILE_RANGE_WRITE);
    return n < 0 ? -errno : 0;
}

static int sys_fstat(void *context, int fd, struct stat *st)
{
    (void)context;
    return fstat(fd, st) < 0 ? -errno : 0;
}

static int sys_fstatvfs(void *context, int fd, struct statvfs *st)
{
    (void)context;
    return fstatvfs(fd, st) < 0 ? -errno : 0;
}

static int sys_rename(void *context, int from_dir, const char *from, int to_dir, const char *to)
{
    (void)context;
    return renameat(from_dir, from, to_dir, to) < 0 ? -errno : 0;
}

static int sys_unlink(void *context, int dirfd, const char *name, int flags)
{
    (void)context;
    return unlinkat(dirfd, name, flags) < 0 ? -errno : 0;
}

static int sys_link(void *context, int from_dir, const char *from, int to_dir, const char *to)
{
    (void)context;
    return linkat(from_dir, from, to_dir, to, 0) < 0 ? -errno : 0;
}

static int sys_mkdir(void *context, int dirfd, const char *name, mode_t mode)
{
    (void)context;
    return mkdirat(dirfd, name, mode) < 0 ? -errno : 0;
}

static int sys_flock(void *context, int fd, int operation)
{
    (void)context;
    return flock(fd, operation) < 0 ? -errno : 0;
}

static int sys_watch(void *context, const char *path)
{
    (void)context;
    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (fd < 0)
        return -errno;
    if (inotify_add_watch(fd, path, IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM) < 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    return fd;
}

static int sys_list(void *context, int dirfd, int (*each)(void *, const char *name),
                    void *each_context)
{
    (void)context;
    /* A descriptor of its own: a duplicate would share dirfd's read position. */
    int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    DIR *dir = fdopendir(fd);
    if (!dir) {
        int error = -errno;
        close(fd);
        return error;
    }
    int result = 0;
    while (result == 0) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (!entry) {
            result = -errno;
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            result = each(each_context, entry->d_name);
    }
    closedir(dir);
    return result;
}

const struct hl_io hl_io_system = {
    .open = sys_open,
    .close = sys_close,
    .dup3 = sys_dup3,
    .pread = sys_pread,
    .pwrite = sys_pwrite,
    .fdatasync = sys_fdatasync,
    .fsync = sys_fsync,
    .ftruncate = sys_ftruncate,
    .allocate = sys_allocate,
    .forget = sys_forget,
    .fetch = sys_fetch,
    .write_behind = sys_write_behind,
    .fstat = sys_fstat,
    .fstatvfs = sys_fstatvfs,
    .rename = sys_rename,
    .unlink = sys_unlink,
    .link = sys_link,
    .mkdir = sys_mkdir,
    .flock = sys_flock,
    .watch = sys_watch,
    .list = sys_list,
};

bool hl_io_is_full(int error)
{
    return error == -ENOSPC || error == -EDQUOT;
}

int hl_io_open(const struct hl_io *io, int dirfd, const char *name, int flags, mode_t mode)
{
    int fd;
    do
        fd = io->open(io->context, dirfd, name, flags | O_CLOEXEC, mode);
    while (fd == -EINTR);
    return fd;
}

void hl_io_close(const struct hl_io *io, int fd)
{
    if (fd >= 0)
        io->close(io->context, fd);
}

ssize_t hl_io_read(const struct hl_io *io, int fd, void *buffer, size_t len, uint64_t offset)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = io->pread(io->context, fd, (char *)buffer + done, len - done, offset + done);
        if (n == -EINTR)
            continue;
        if (n < 0)
            return n;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

int hl_io_write(const struct hl_io *io, int fd, const void *buffer, size_t len, uint64_t offset)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n =
            io->pwrite(io->context, fd, (const char *)buffer + done, len - done, offset + done);
        if (n == -EINTR)
            continue;
        if (n < 0)
            return (int)n;
        if (n == 0)
            return -EIO;
        done += (size_t)n;
    }
    return 0;
}

int hl_io_fdatasync(const struct hl_io *io, int fd)
{
    int error;
    do
        error = io->fdatasync(io->context, fd);
    while (error == -EINTR);
    return error;
}

int hl_io_fsync(const struct hl_io *io, int fd)
{
    int error;
    do
        error = io->fsync(io->context, fd);
    while (error == -EINTR);
    return error;
}

int hl_io_truncate(const struct hl_io *io, int fd, uint64_t size)
{
    int error;
    do
        error = io->ftruncate(io->context, fd, size);
    while (error == -EINTR);
    return error;
}

int hl_io_size(const struct hl_io *io, int fd, uint64_t *size)
{
    struct stat st;
    int error = io->fstat(io->context, fd, &st);
    if (error == 0)
        *size = (uint64_t)st.st_size;
    return error;
}

int hl_io_room(const struct hl_io *io, int fd, uint64_t *bytes)
{
    struct statvfs fs;
    int error = io->fstatvfs(io->context, fd, &fs);
    if (error == 0)
        *bytes = (uint64_t)(geteuid() == 0 ? fs.f_bfree : fs.f_bavail) * fs.f_frsize;
    return error;
}

int hl_io_copy(const struct hl_io *io, int from, uint64_t offset, uint64_t size, int to,
               uint64_t to_offset)
{
    uint8_t *buffer = malloc(COPY_BYTES);
    int error = buffer ? 0 : -ENOMEM;
    for (uint64_t done = 0; error == 0 && done < size;) {
        size_t want = size - done < COPY_BYTES ? (size_t)(size - done) : COPY_BYTES;
        ssize_t n = hl_io_read(io, from, buffer, want, offset + done);
        error = n < 0 ? (int)n : n == 0 ? -EIO : 0;
        if (error == 0)
            error = hl_io_write(io, to, buffer, (size_t)n, to_offset + done);
        done += n > 0 ? (uint64_t)n : 0;
    }
    free(buffer);
    return error;
}

int hl_io_open_dir(const struct hl_io *io, int dirfd, const char *name, bool create)
{
    int error = create ? io->mkdir(io->context, dirfd, name, 0700) : 0;
    if (error < 0 && error != -EEXIST)
        return error;
    return hl_io_open(io, dirfd, name, O_RDONLY | O_DIRECTORY, 0);
}

int hl_io_make_dir(const struct hl_io *io, int dirfd, const char *name)
{
    int dir = hl_io_open_dir(io, dirfd, name, true);
    int error = dir < 0 ? dir : hl_io_fsync(io, dirfd);
    if (error < 0)
        hl_io_close(io, dir);
    return error < 0 ? error : dir;
}

int hl_io_open_new(const struct hl_io *io, int dirfd, const char *name)
{
    int error = io->unlink(io->context, dirfd, name, 0);
    if (error < 0 && error != -ENOENT)
        return error;
    return hl_io_open(io, dirfd, name, O_RDWR | O_CREAT | O_EXCL, 0600);
}

int hl_io_put_file(const struct hl_io *io, int dirfd, const char *name, const void *data,
                   size_t len)
{
    char temporary[300];
    int n = snprintf(temporary, sizeof temporary, "%s.tmp", name);
    if (n < 0 || (size_t)n >= sizeof temporary)
        return -ENAMETOOLONG;
    int fd = hl_io_open(io, dirfd, temporary, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0)
        return fd;
    int error = hl_io_write(io, fd, data, len, 0);
    if (error == 0)
        error = hl_io_fsync(io, fd);
    hl_io_close(io, fd);
    if (error == 0)
        error = io->rename(io->context, dirfd, temporary, dirfd, name);
    if (error < 0) {
        io->unlink(io->context, dirfd, temporary, 0);
        return error;
    }
    return hl_io_fsync(io, dirfd);
}

int hl_io_get_file(const struct hl_io *io, int dirfd, const char *name, uint64_t most, char **data,
                   size_t *len)
{
    uint64_t size = 0;
    *data = NULL;
    int fd = hl_io_open(io, dirfd, name, O_RDONLY, 0);
    if (fd < 0)
        return fd;
    int error = hl_io_size(io, fd, &size);
    if (error == 0 && size > most)
        error = -EBADMSG;
    if (error == 0 && !(*data = malloc(size + 1)))
        error = -ENOMEM;
    ssize_t n = error == 0 ? hl_io_read(io, fd, *data, size, 0) : error;
    hl_io_close(io, fd);
    if (n < 0) {
        free(*data);
        *data = NULL;
        return (int)n;
    }
    *len = (size_t)n;
    return 0;
}
