/* record.c - the table; see record.h. What the linker hands to us is in wrap.c. */
#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wrap.h"

/* ---- what is remembered; the lock is held ---- */

void record_add(struct record *record, const struct call *call)
{
    if (record->count == record->capacity) {
        record->capacity = record->capacity ? 2 * record->capacity : 256;
        record->calls = realloc(record->calls, record->capacity * sizeof *record->calls);
        if (!record->calls)
            abort();
    }
    record->calls[record->count++] = *call;
}

/* Where a name is: its node (or NO_NODE), the directory and the last part of the name. */
static uint32_t locate(struct record *record, int dirfd, const char *name, uint32_t *parent,
                       const char **last)
{
    size_t len = strlen(record->root);
    *parent = NO_NODE;
    *last = NULL;
    if (dirfd == AT_FDCWD) {
        if (strncmp(name, record->root, len) != 0 || name[len] != '/')
            return NO_NODE;
        return tree_walk(&record->live, 0, name + len, parent, last);
    }
    uint32_t directory = dirfd >= 0 && dirfd < RECORD_FILES ? record->file[dirfd] : NO_NODE;
    if (directory == NO_NODE)
        return NO_NODE;
    if (strcmp(name, "..") == 0) /* of DIR alone, which is below the root */
        return 0;
    if (strcmp(name, ".") == 0)
        return directory;
    return tree_walk(&record->live, directory, name, parent, last);
}

uint32_t record_make(struct record *record, uint32_t parent, const char *name, bool directory)
{
    uint32_t node = tree_add(&record->live, directory);
    tree_set(&record->live, parent, name, node);
    record_add(record, &(struct call){.kind = CALL_MAKE,
                                      .node = node,
                                      .is_directory = directory,
                                      .directory = parent,
                                      .name = intern(name)});
    return node;
}

static uint32_t node_of(struct record *record, int fd)
{
    return fd >= 0 && fd < RECORD_FILES ? record->file[fd] : NO_NODE;
}

/* ---- calls ---- */

enum effect { READS, CHANGES };

bool record_kills(struct record *record, const char *what)
{
    struct fault *fault = &record->fault;
    bool counts = strstr(what, fault->names ? "directory" : "sync") ||
                  (!fault->names && strstr(what, "commit"));
    if (!fault->kill || !record->counting || !counts || ++fault->calls != fault->nth)
        return false;
    record->dead = true;
    fault->fired++;
    fault->what = what;
    return true;
}

/*
 * Begins a call: the lock is held until end(). Returns 0, an error that the call must fail with
 * (*half: after half of its work), or 1: only half of the work is done, and told.
 */
static int begin(struct record *record, enum effect effect, const char *what, bool can_be_short)
{
    wrap_enter();
    pthread_mutex_lock(&record->lock);
    if (record->dead && effect == CHANGES)
        return -EIO;
    struct fault *fault = &record->fault;
    if (!record->counting || record->dead)
        return 0;
    if (fault->kill) /* sync_file() */
        return 0;
    if (fault->error == 0 && !can_be_short)
        return 0;
    if (hl_io_is_full(fault->error) && effect == READS) /* it takes no room */
        return 0;
    if (++fault->calls != fault->nth)
        return 0;
    fault->fired++;
    fault->what = what;
    return fault->error ? fault->error : 1;
}

static void end(struct record *record)
{
    pthread_mutex_unlock(&record->lock);
    wrap_leave();
}

/* What is done in the middle of a call takes locks below those of the call. In a store it would be
 * another thread's, which has none of them: no order that can be turned round. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "deadlock:let_others\n";
}

/* After a call that may be what others wait for. */
static void let_others(struct record *record, const char *what)
{
    struct meanwhile meanwhile = {.what = NULL};
    pthread_mutex_lock(&record->lock);
    bool due = record->counting && !record->dead && record->meanwhile.what &&
               strcmp(record->meanwhile.what, what) == 0;
    if (due) {
        meanwhile = record->meanwhile;
        record->meanwhile.what = NULL;
    }
    pthread_mutex_unlock(&record->lock);
    if (due)
        meanwhile.act(meanwhile.context);
}

static int rec_open(void *context, int dirfd, const char *name, int flags, mode_t mode)
{
    struct record *record = context;
    uint32_t parent;
    const char *last;
    int fd = begin(record, flags & (O_CREAT | O_TRUNC) ? CHANGES : READS, "open", false);
    if (fd == 0)
        fd = hl_io_system.open(NULL, dirfd, name, flags, mode);
    if (fd >= 0) {
        uint32_t node = locate(record, dirfd, name, &parent, &last);
        if (node == NO_NODE && (flags & O_CREAT) && parent != NO_NODE)
            node = record_make(record, parent, last, false);
        else if (node != NO_NODE && (flags & O_TRUNC))
            record_add(record, &(struct call){.kind = CALL_TRUNCATE, .node = node});
        if (fd < RECORD_FILES) {
            record->file[fd] = node;
            record->timed[fd] = last && strcmp(last, "data.mdb") == 0;
        }
    }
    end(record);
    return fd;
}

static int rec_close(void *context, int fd)
{
    struct record *record = context;
    int error = begin(record, READS, "close", false);
    if (fd >= 0 && fd < RECORD_FILES)
        record->file[fd] = NO_NODE;
    int result = hl_io_system.close(NULL, fd);
    end(record);
    return error ? error : result;
}

static int rec_dup3(void *context, int from, int to, int flags)
{
    struct record *record = context;
    int error = begin(record, READS, "dup3", false);
    if (error == 0)
        error = hl_io_system.dup3(NULL, from, to, flags);
    if (error == 0 && from < RECORD_FILES && to < RECORD_FILES)
        record->file[to] = record->file[from];
    end(record);
    return error;
}

static ssize_t rec_pread(void *context, int fd, void *buffer, size_t len, uint64_t offset)
{
    struct record *record = context;
    ssize_t n = begin(record, READS, "pread", len > 1);
    if (n >= 0)
        n = hl_io_system.pread(NULL, fd, buffer, n == 1 ? len / 2 : len, offset);
    end(record);
    return n;
}

static ssize_t rec_pwrite(void *context, int fd, const void *buffer, size_t len, uint64_t offset)
{
    struct record *record = context;
    ssize_t error = begin(record, CHANGES, "pwrite", len > 1), n = 0;
    /* As bad as it gets: a part is written before it fails. */
    bool half = error == 1 || error == -EIO || hl_io_is_full((int)error);
    if (error >= 0 || (half && !record->dead))
        n = hl_io_system.pwrite(NULL, fd, buffer, half ? len / 2 : len, offset);
    uint32_t node = node_of(record, fd);
    if (n > 0 && node != NO_NODE) {
        struct bytes *data = bytes_copy(buffer, (size_t)n);
        if (record->timed[fd])
            data->written_ns = record_time(fd);
        record_add(record, &(struct call){
                               .kind = CALL_WRITE, .node = node, .offset = offset, .data = data});
    }
    end(record);
    return error < 0 ? error : n;
}

static int sync_file(struct record *record, int fd, const char *what,
                     int (*sync)(void *context, int fd))
{
    int error = begin(record, CHANGES, what, false);
    uint32_t node = node_of(record, fd);
    bool directory = node != NO_NODE && record->live.nodes[node].directory;
    if (error == 0 && record_kills(record, directory ? "fsync of a directory" : what))
        error = -EIO;
    if (error == 0)
        error = sync(NULL, fd);
    if (node != NO_NODE && !record->dead && error != -EINTR)
        record_add(record,
                   &(struct call){.kind = error ? CALL_SYNC_FAILED : CALL_SYNC, .node = node});
    end(record);
    let_others(record, what);
    return error;
}

static int rec_fdatasync(void *context, int fd)
{
    return sync_file(context, fd, "fdatasync", hl_io_system.fdatasync);
}

static int rec_fsync(void *context, int fd)
{
    return sync_file(context, fd, "fsync", hl_io_system.fsync);
}

static int rec_ftruncate(void *context, int fd, uint64_t size)
{
    struct record *record = context;
    struct stat st;
    int error = begin(record, CHANGES, "ftruncate", false);
    uint32_t node = node_of(record, fd);
    bool same = fstat(fd, &st) == 0 && (uint64_t)st.st_size == size;
    if (error == 0)
        error = hl_io_system.ftruncate(NULL, fd, size);
    if (error == 0 && node != NO_NODE && !same)
        record_add(record, &(struct call){.kind = CALL_TRUNCATE, .node = node, .offset = size});
    end(record);
    return error;
}

static int rec_allocate(void *context, int fd, uint64_t size)
{
    struct record *record = context;
    struct stat st;
    int error = begin(record, CHANGES, "allocate", false);
    uint32_t node = node_of(record, fd);
    bool grows = fstat(fd, &st) == 0 && (uint64_t)st.st_size < size;
    if (error == 0)
        error = hl_io_system.allocate(NULL, fd, size);
    if (error == 0 && node != NO_NODE && grows)
        record_add(record, &(struct call){.kind = CALL_TRUNCATE, .node = node, .offset = size});
    end(record);
    return error;
}

static int rec_forget(void *context, int fd)
{
    struct record *record = context;
    int error = begin(record, READS, "forget", false);
    if (error == 0)
        error = hl_io_system.forget(NULL, fd);
    end(record);
    return error;
}

static int rec_fetch(void *context, int fd)
{
    struct record *record = context;
    int error = begin(record, READS, "fetch", false);
    if (error == 0)
        error = hl_io_system.fetch(NULL, fd);
    end(record);
    return error;
}

/* What was written may be on the disk at any time, whether or not anybody asks for it. */
static int rec_write_behind(void *context, int fd, uint64_t offset, uint64_t len)
{
    struct record *record = context;
    int error = begin(record, READS, "write_behind", false);
    if (error == 0)
        error = hl_io_system.write_behind(NULL, fd, offset, len);
    end(record);
    return error;
}

static int rec_fstat(void *context, int fd, struct stat *st)
{
    struct record *record = context;
    int error = begin(record, READS, "fstat", false);
    if (error == 0)
        error = hl_io_system.fstat(NULL, fd, st);
    end(record);
    return error;
}

static int rec_fstatvfs(void *context, int fd, struct statvfs *st)
{
    struct record *record = context;
    int error = begin(record, READS, "fstatvfs", false);
    if (error == 0)
        error = hl_io_system.fstatvfs(NULL, fd, st);
    end(record);
    return error;
}

static int rec_rename(void *context, int from_dir, const char *from, int to_dir, const char *to)
{
    struct record *record = context;
    struct call call = {.kind = CALL_RENAME};
    uint32_t replaced;
    int error = begin(record, CHANGES, "rename", false);
    call.node = locate(record, from_dir, from, &call.directory, &call.name);
    replaced = locate(record, to_dir, to, &call.to_directory, &call.to_name);
    if (error == 0)
        error = hl_io_system.rename(NULL, from_dir, from, to_dir, to);
    if (error == 0 && call.node != NO_NODE && call.node != replaced) {
        tree_remove(&record->live, call.directory, call.name);
        tree_set(&record->live, call.to_directory, call.to_name, call.node);
        record_add(record, &call);
    }
    end(record);
    let_others(record, "rename");
    return error;
}

static int rec_unlink(void *context, int dirfd, const char *name, int flags)
{
    struct record *record = context;
    struct call call = {.kind = CALL_REMOVE};
    int error = begin(record, CHANGES, "unlink", false);
    call.node = locate(record, dirfd, name, &call.directory, &call.name);
    if (error == 0)
        error = hl_io_system.unlink(NULL, dirfd, name, flags);
    if (error == 0 && call.node != NO_NODE) {
        tree_remove(&record->live, call.directory, call.name);
        record_add(record, &call);
    }
    end(record);
    return error;
}

static int rec_link(void *context, int from_dir, const char *from, int to_dir, const char *to)
{
    struct record *record = context;
    struct call call = {.kind = CALL_LINK};
    uint32_t parent;
    const char *last;
    int error = begin(record, CHANGES, "link", false);
    if (error == 0 && record->no_links)
        error = -EPERM;
    call.node = locate(record, from_dir, from, &parent, &last);
    (void)locate(record, to_dir, to, &call.directory, &call.name);
    if (error == 0)
        error = hl_io_system.link(NULL, from_dir, from, to_dir, to);
    if (error == 0 && call.node != NO_NODE && call.directory != NO_NODE) {
        tree_set(&record->live, call.directory, call.name, call.node);
        record_add(record, &call);
    }
    end(record);
    return error;
}

static int rec_mkdir(void *context, int dirfd, const char *name, mode_t mode)
{
    struct record *record = context;
    uint32_t parent;
    const char *last;
    int error = begin(record, CHANGES, "mkdir", false);
    if (error == 0)
        error = hl_io_system.mkdir(NULL, dirfd, name, mode);
    if (error == 0 && locate(record, dirfd, name, &parent, &last) == NO_NODE && parent != NO_NODE)
        record_make(record, parent, last, true);
    end(record);
    return error;
}

static int rec_flock(void *context, int fd, int operation)
{
    struct record *record = context;
    int error = begin(record, READS, "flock", false);
    if (error == 0)
        error = hl_io_system.flock(NULL, fd, operation);
    end(record);
    return error;
}

static int rec_watch(void *context, const char *path)
{
    (void)context;
    return hl_io_system.watch(NULL, path);
}

static int rec_list(void *context, int dirfd, int (*each)(void *, const char *name),
                    void *each_context)
{
    struct record *record = context;
    int error = begin(record, READS, "list", false);
    end(record);
    if (error == 0)
        error = hl_io_system.list(NULL, dirfd, each, each_context);
    let_others(record, "list");
    return error;
}

/* ---- recordings ---- */

void record_begin(struct record *record, const char *root, const struct tree *tree, uint64_t seed)
{
    *record = (struct record){
        .io =
            {
                .context = record,
                .open = rec_open,
                .close = rec_close,
                .dup3 = rec_dup3,
                .pread = rec_pread,
                .pwrite = rec_pwrite,
                .fdatasync = rec_fdatasync,
                .fsync = rec_fsync,
                .ftruncate = rec_ftruncate,
                .allocate = rec_allocate,
                .forget = rec_forget,
                .fetch = rec_fetch,
                .write_behind = rec_write_behind,
                .fstat = rec_fstat,
                .fstatvfs = rec_fstatvfs,
                .rename = rec_rename,
                .unlink = rec_unlink,
                .link = rec_link,
                .mkdir = rec_mkdir,
                .flock = rec_flock,
                .watch = rec_watch,
                .list = rec_list,
            },
    };
    snprintf(record->root, sizeof record->root, "%s", root);
    pthread_mutex_init(&record->lock, NULL);
    tree_copy(&record->live, tree);
    for (size_t i = 0; i < RECORD_FILES; i++)
        record->file[i] = NO_NODE;
    wrap_begin(record, seed);
}

void record_end(struct record *record)
{
    wrap_end();
    for (size_t i = 0; i < record->count; i++)
        bytes_drop(record->calls[i].data);
    free(record->calls);
    tree_free(&record->live);
    pthread_mutex_destroy(&record->lock);
}

size_t record_position(struct record *record)
{
    pthread_mutex_lock(&record->lock);
    size_t count = record->count;
    pthread_mutex_unlock(&record->lock);
    return count;
}

void record_kill(struct record *record)
{
    pthread_mutex_lock(&record->lock);
    record->dead = true;
    pthread_mutex_unlock(&record->lock);
}

void record_revive(struct record *record)
{
    pthread_mutex_lock(&record->lock);
    record->dead = false;
    pthread_mutex_unlock(&record->lock);
}

void record_fault(struct record *record, const struct fault *fault)
{
    pthread_mutex_lock(&record->lock);
    record->fault = *fault;
    pthread_mutex_unlock(&record->lock);
}

void record_count(struct record *record, bool counting)
{
    pthread_mutex_lock(&record->lock);
    record->counting = counting;
    pthread_mutex_unlock(&record->lock);
}

void record_meanwhile(struct record *record, const struct meanwhile *meanwhile)
{
    pthread_mutex_lock(&record->lock);
    record->meanwhile = *meanwhile;
    pthread_mutex_unlock(&record->lock);
}
