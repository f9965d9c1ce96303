/*
 * io.h - every system call on the store's directory, behind one table, so that tests can fail it.
 *
 * Only LMDB's own calls (index/) go round it. Table functions return a negative errno on failure;
 * they do one call each and hide nothing: EINTR and short counts are told as they come. The hl_io_*
 * helpers below retry EINTR and go on after a short count, and are what the store uses.
 */
#ifndef HL_IO_H
#define HL_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

struct hl_io {
    void *context; /* handed to each function; not owned */
    int (*open)(void *context, int dirfd, const char *name, int flags, mode_t mode);
    int (*close)(void *context, int fd);
    /* Makes `to`, which is open, the same open file as `from`, at once for all threads. */
    int (*dup3)(void *context, int from, int to, int flags);
    ssize_t (*pread)(void *context, int fd, void *buffer, size_t len, uint64_t offset);
    ssize_t (*pwrite)(void *context, int fd, const void *buffer, size_t len, uint64_t offset);
    int (*fdatasync)(void *context, int fd);
    int (*fsync)(void *context, int fd);
    int (*ftruncate)(void *context, int fd, uint64_t size);
    /* Blocks for the first size bytes, which the file then has at least (posix_fallocate()). */
    int (*allocate)(void *context, int fd, uint64_t size);
    /* Lets the page cache forget what of the file is on the disk, so that reads go there. */
    int (*forget)(void *context, int fd);
    /* Two hints, which may fail: the whole file is read soon; what of these bytes was written is to
     * be on its way to the disk. They wait for nothing, and a sync still has all to tell. */
    int (*fetch)(void *context, int fd);
    int (*write_behind)(void *context, int fd, uint64_t offset, uint64_t len);
    int (*fstat)(void *context, int fd, struct stat *st);
    int (*fstatvfs)(void *context, int fd, struct statvfs *st);
    int (*rename)(void *context, int from_dir, const char *from, int to_dir, const char *to);
    int (*unlink)(void *context, int dirfd, const char *name, int flags);
    int (*link)(void *context, int from_dir, const char *from, int to_dir, const char *to);
    int (*mkdir)(void *context, int dirfd, const char *name, mode_t mode);
    int (*flock)(void *context, int fd, int operation);
    /* An inotify descriptor, non-blocking, on changes of a directory's files and names. */
    int (*watch)(void *context, const char *path);
    /* Calls each() with every name but "." and ".."; stops at its first non-zero result, returned.
     */
    int (*list)(void *context, int dirfd, int (*each)(void *, const char *name),
                void *each_context);
};

/* Whether an error says that there is no room: the disk is full, or a quota is used up. */
bool hl_io_is_full(int error);

/* The system's own calls. */
extern const struct hl_io hl_io_system;

/* Opens with O_CLOEXEC added. Returns the descriptor. */
int hl_io_open(const struct hl_io *io, int dirfd, const char *name, int flags, mode_t mode);
void hl_io_close(const struct hl_io *io,
                 int fd); /* -1 is fine; a failed close loses nothing synced */

/* Reads until len bytes or the end of the file; returns the bytes read. */
ssize_t hl_io_read(const struct hl_io *io, int fd, void *buffer, size_t len, uint64_t offset);
/* Writes all of it, or fails; after a failure any part may have been written. A write of nothing
 * that reports no progress is -EIO. */
int hl_io_write(const struct hl_io *io, int fd, const void *buffer, size_t len, uint64_t offset);
int hl_io_fdatasync(const struct hl_io *io, int fd);
int hl_io_fsync(const struct hl_io *io, int fd);
int hl_io_truncate(const struct hl_io *io, int fd, uint64_t size);
int hl_io_size(const struct hl_io *io, int fd, uint64_t *size);
/* Bytes that this process may still take on the file system of fd. */
int hl_io_room(const struct hl_io *io, int fd, uint64_t *bytes);
/* Copies size bytes from an offset of one file to an offset of another. -EIO: the first ends before
 * that. */
int hl_io_copy(const struct hl_io *io, int from, uint64_t offset, uint64_t size, int to,
               uint64_t to_offset);

/* Opens (making it first if create) a directory below dirfd. Returns the descriptor. */
int hl_io_open_dir(const struct hl_io *io, int dirfd, const char *name, bool create);
/* Likewise, and makes it; its name is on the disk when this returns, also if another made it, who
 * may have died before that. */
int hl_io_make_dir(const struct hl_io *io, int dirfd, const char *name);

/* Opens a file of this name that is new, for writing and reading. One that is there is unlinked,
 * and not written to: it may have other links. */
int hl_io_open_new(const struct hl_io *io, int dirfd, const char *name);

/* Writes a whole small file as name.tmp, syncs it, renames it to name and syncs the directory. */
int hl_io_put_file(const struct hl_io *io, int dirfd, const char *name, const void *data,
                   size_t len);

/* Reads a whole small file. *data: to be freed; one byte more than *len is there. -ENOENT;
 * -EBADMSG: it has more than `most` bytes. */
int hl_io_get_file(const struct hl_io *io, int dirfd, const char *name, uint64_t most, char **data,
                   size_t *len);

#endif
