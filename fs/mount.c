/* mount.c - the kernel's table of mounts, dead mounts, paths. */
#include "mount.h"

#include <errno.h>
#include <fcntl.h>
#include <libmount.h>
#include <limits.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define TABLE "/proc/self/mountinfo"
#define TYPE "fuse.hotlogfs"
#define STACKED_MAX 64 /* dead mounts, one on top of another, that are taken away at once */

/* ---- paths ----------------------------------------------------------------------------------- */

/* The path of a name whose last component is not looked at: realpath(dirname)/basename. */
static char *resolve_parent(const char *path)
{
    char *copy = strdup(path);
    if (copy == NULL)
        return NULL;
    size_t len = strlen(copy);
    while (len > 1 && copy[len - 1] == '/')
        copy[--len] = '\0';
    char *slash = strrchr(copy, '/');
    const char *name = slash ? slash + 1 : copy;
    char *result = NULL;
    if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        errno = ENOENT; /* only a component that could be made stands for itself */
    } else {
        char *parent;
        if (slash == NULL)
            parent = realpath(".", NULL);
        else if (slash == copy)
            parent = strdup("");
        else {
            *slash = '\0';
            parent = realpath(copy, NULL);
        }
        if (parent != NULL &&
            asprintf(&result, "%s/%s", strcmp(parent, "/") ? parent : "", name) < 0)
            result = NULL;
        free(parent);
    }
    free(copy);
    return result;
}

int mount_resolve_dir(const char *dir, char **path, struct hl_error *err)
{
    struct stat st;
    *path = realpath(dir, NULL);
    if (*path == NULL && errno == ENOENT)
        *path = resolve_parent(dir);
    if (*path == NULL)
        return hl_fail(err, errno, "%s: %s", dir, strerror(errno));
    int result = 0;
    if (stat(*path, &st) == 0) {
        if (!S_ISDIR(st.st_mode))
            result = hl_fail(err, ENOTDIR, "%s is not a directory", *path);
    } else if (errno != ENOENT) {
        result = hl_fail(err, errno, "%s: %s", *path, strerror(errno));
    } else if (lstat(*path, &st) == 0) {
        result = hl_fail(err, ENOENT, "%s is a link to nothing", *path);
    }
    if (result != 0) {
        free(*path);
        *path = NULL;
    }
    return result;
}

/*
 * The type of what lies at a path, asked of its daemon and not of the kernel's cache, where a dead
 * mount lives on. A mount whose daemon is gone answers ENOTCONN. Who was waiting for it when it
 * went gets ECONNABORTED, or EIO if it was just then reading the request; both only once.
 */
static int ask_type(const char *path, mode_t *mode)
{
    struct statx st;
    for (int tries = 0;; tries++) {
        if (statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC, STATX_TYPE, &st) == 0) {
            *mode = st.stx_mode;
            return 0;
        }
        if ((errno != ECONNABORTED && errno != EIO) || tries == 10)
            return -errno;
    }
}

int mount_resolve_mountpoint(const char *mountpoint, char **path, struct hl_error *err)
{
    mode_t mode;
    int result = ask_type(mountpoint, &mode);
    if (result == -ENOTCONN || result == -EACCES)
        *path = resolve_parent(mountpoint); /* realpath() would ask the mount, dead or not ours */
    else if (result != 0)
        return hl_fail(err, -result, "%s: %s", mountpoint, strerror(-result));
    else if (!S_ISDIR(mode))
        return hl_fail(err, ENOTDIR, "%s is not a directory", mountpoint);
    else
        *path = realpath(mountpoint, NULL);
    if (*path == NULL)
        return hl_fail(err, errno, "%s: %s", mountpoint, strerror(errno));
    return 0;
}

static bool is_inside(const char *inner, const char *outer)
{
    size_t len = strlen(outer);
    if (strcmp(outer, "/") == 0)
        return true;
    return strncmp(inner, outer, len) == 0 && (inner[len] == '/' || inner[len] == '\0');
}

int mount_check_apart(const char *dir, const char *mountpoint, struct hl_error *err)
{
    if (strcmp(dir, mountpoint) == 0)
        return hl_fail(err, EINVAL, "DIR and MOUNTPOINT are the same: %s", dir);
    if (is_inside(dir, mountpoint))
        return hl_fail(err, EINVAL, "DIR %s lies inside MOUNTPOINT %s", dir, mountpoint);
    if (is_inside(mountpoint, dir))
        return hl_fail(err, EINVAL, "MOUNTPOINT %s lies inside DIR %s", mountpoint, dir);
    return 0;
}

/* ---- the table ------------------------------------------------------------------------------- */

static struct libmnt_table *read_table(void)
{
    errno = 0;
    struct libmnt_table *table = mnt_new_table_from_file(TABLE);
    if (table == NULL && errno == 0)
        errno = EIO;
    return table;
}

/* The mount that lies uppermost on a path; borrowed from the table. */
static struct libmnt_fs *uppermost(struct libmnt_table *table, const char *mountpoint)
{
    struct libmnt_iter *iter = mnt_new_iter(MNT_ITER_BACKWARD);
    struct libmnt_fs *fs = NULL, *found = NULL;
    if (iter == NULL)
        return NULL;
    while (found == NULL && mnt_table_next_fs(table, iter, &fs) == 0) {
        const char *target = mnt_fs_get_target(fs);
        if (target != NULL && strcmp(target, mountpoint) == 0)
            found = fs;
    }
    mnt_free_iter(iter);
    return found;
}

static bool is_hotlogfs(struct libmnt_fs *fs)
{
    const char *type = mnt_fs_get_fstype(fs);
    return type != NULL && strcmp(type, TYPE) == 0;
}

static bool is_of_dir(struct libmnt_fs *fs, const char *dir)
{
    const char *source = mnt_fs_get_source(fs);
    return is_hotlogfs(fs) && source != NULL && strcmp(source, dir) == 0;
}

static bool is_of_our_user(struct libmnt_fs *fs)
{
    const char *options = mnt_fs_get_fs_options(fs);
    char *value;
    size_t len;
    char want[32];
    if (options == NULL || mnt_optstr_get_option(options, "user_id", &value, &len) != 0)
        return false;
    int want_len = snprintf(want, sizeof(want), "%u", (unsigned)getuid());
    return len == (size_t)want_len && memcmp(value, want, len) == 0;
}

int mount_find(const char *mountpoint, const char *dir, dev_t *device)
{
    struct libmnt_table *table = read_table();
    if (table == NULL)
        return -errno;
    struct libmnt_fs *fs = uppermost(table, mountpoint);
    int result = fs != NULL && is_of_dir(fs, dir);
    if (result)
        *device = mnt_fs_get_devno(fs);
    mnt_unref_table(table);
    return result;
}

int mount_is_present(dev_t device, const char *dir)
{
    struct libmnt_table *table = read_table();
    if (table == NULL)
        return -errno;
    struct libmnt_fs *fs = mnt_table_find_devno(table, device, MNT_ITER_BACKWARD);
    int result = fs != NULL && is_of_dir(fs, dir);
    mnt_unref_table(table);
    return result;
}

/* ---- dead mounts ----------------------------------------------------------------------------- */

static int run_fusermount(const char *mountpoint)
{
    char path[PATH_MAX];
    char name[] = "fusermount3", unmount[] = "-u", quiet[] = "-q", lazy[] = "-z", end[] = "--";
    if (snprintf(path, sizeof(path), "%s", mountpoint) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    char *const argv[] = {name, unmount, quiet, lazy, end, path, NULL};
    pid_t pid;
    int status, error = posix_spawnp(&pid, name, NULL, NULL, argv, environ);
    if (error != 0)
        return -error;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EPERM;
}

int mount_detach(const char *mountpoint)
{
    if (umount2(mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
        return 0;
    return errno == EPERM ? run_fusermount(mountpoint) : -errno;
}

static int refuse_other_user(const char *mountpoint, struct hl_error *err)
{
    return hl_fail(err, EBUSY, "%s is a mount of another user; unmount it first", mountpoint);
}

/* Whether a dead mount may be taken away: 0, or -EBUSY and why not. */
static int may_take(const char *mountpoint, const char *dir, struct hl_error *err)
{
    struct libmnt_table *table = read_table();
    if (table == NULL)
        return hl_fail(err, errno, "%s: %s", TABLE, strerror(errno));
    struct libmnt_fs *fs = uppermost(table, mountpoint);
    int result = 0;
    if (fs == NULL)
        result = hl_fail(err, EBUSY, "%s answers \"%s\", and is not a mount that is known here",
                         mountpoint, strerror(ENOTCONN));
    else if (!is_hotlogfs(fs))
        result = hl_fail(err, EBUSY, "%s is a dead mount of another kind (%s); unmount it first",
                         mountpoint, mnt_fs_get_fstype(fs));
    else if (!is_of_dir(fs, dir))
        result = hl_fail(err, EBUSY, "%s is a dead mount of another store, %s; unmount it first",
                         mountpoint, mnt_fs_get_source(fs));
    else if (!is_of_our_user(fs))
        result =
            hl_fail(err, EBUSY, "%s is a dead mount of another user; unmount it first", mountpoint);
    mnt_unref_table(table);
    return result;
}

/* Refuses a mountpoint on which a live hotlogfs lies already. */
static int check_live(const char *mountpoint, const char *dir, bool *live_of_dir,
                      struct hl_error *err)
{
    struct libmnt_table *table = read_table();
    if (table == NULL)
        return hl_fail(err, errno, "%s: %s", TABLE, strerror(errno));
    struct libmnt_fs *fs = uppermost(table, mountpoint);
    int result = 0;
    if (fs != NULL && is_hotlogfs(fs)) {
        const char *source = mnt_fs_get_source(fs);
        result = hl_fail(err, EBUSY, "%s is mounted on %s already", source ? source : "a store",
                         mountpoint);
        if (live_of_dir != NULL)
            *live_of_dir = is_of_dir(fs, dir);
    }
    mnt_unref_table(table);
    return result;
}

static bool is_other_users(const char *mountpoint)
{
    struct libmnt_table *table = read_table();
    if (table == NULL)
        return false;
    struct libmnt_fs *fs = uppermost(table, mountpoint);
    bool result = fs != NULL && is_hotlogfs(fs) && !is_of_our_user(fs);
    mnt_unref_table(table);
    return result;
}

/* Takes away dead mounts that are ours, until what lies on the mountpoint answers: 0, or an error.
 */
static int take_dead_away(const char *mountpoint, const char *dir, struct hl_error *err)
{
    mode_t mode;
    for (int count = 0;; count++) {
        int result = ask_type(mountpoint, &mode);
        if (result == 0)
            return 0;
        if (result == -EACCES &&
            is_other_users(mountpoint)) /* the kernel lets nobody else in, dead or not */
            return refuse_other_user(mountpoint, err);
        if (result != -ENOTCONN || count == STACKED_MAX)
            return hl_fail(err, -result, "%s: %s", mountpoint, strerror(-result));
        result = may_take(mountpoint, dir, err);
        if (result != 0)
            return result;
        result = mount_detach(mountpoint);
        /* Its own daemon, about to end, may have been faster. */
        if (result != 0 && result != -EINVAL)
            return hl_fail(err, -result, "cannot unmount the dead mount on %s: %s", mountpoint,
                           strerror(-result));
    }
}

int mount_prepare(const char *mountpoint, const char *dir, bool *live_of_dir, struct hl_error *err)
{
    if (live_of_dir != NULL)
        *live_of_dir = false;
    int result = take_dead_away(mountpoint, dir, err);
    return result == 0 ? check_live(mountpoint, dir, live_of_dir, err) : result;
}

int mount_clear(const char *mountpoint, const char *dir, struct hl_error *err)
{
    int result = take_dead_away(mountpoint, dir, err);
    return result == -ENOENT ? 0 : result;
}

/* ---- namespaces ------------------------------------------------------------------------------ */

int mount_enter_namespace(const char *path, struct hl_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int result = 0;
    if (fd < 0 || setns(fd, CLONE_NEWNS) != 0)
        result =
            hl_fail(err, errno, "cannot go into the mount namespace %s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return result;
}
