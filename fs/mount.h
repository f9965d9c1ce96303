/*
 * mount.h - what the kernel's table of mounts says, and paths resolved without asking a dead mount.
 *
 * The table is read from /proc/self/mountinfo, so that nothing here waits for a daemon, ours least
 * of all.
 */
#ifndef HL_FS_MOUNT_H
#define HL_FS_MOUNT_H

#include "../store/store.h"

/* DIR as an absolute path without symbolic links. Its parent must exist; it need not. Free *path.
 */
int mount_resolve_dir(const char *dir, char **path, struct hl_error *err);
/* MOUNTPOINT likewise, which must be a directory, or a dead mount. */
int mount_resolve_mountpoint(const char *mountpoint, char **path, struct hl_error *err);

/* -EINVAL when one of the two lies inside the other, where the mount would hide or contain its own
 * store. */
int mount_check_apart(const char *dir, const char *mountpoint, struct hl_error *err);

/*
 * Makes the mountpoint ready to be mounted on: takes away a dead mount that is ours (type
 * fuse.hotlogfs, source dir, our user). -EBUSY: another dead mount, or a live hotlogfs, is there;
 * *live_of_dir (may be NULL) says that it is live and presents the same dir.
 */
int mount_prepare(const char *mountpoint, const char *dir, bool *live_of_dir, struct hl_error *err);

/* Takes away a dead mount that is ours, as above, and nothing else: 0 also when there is none, or
 * no such mountpoint. */
int mount_clear(const char *mountpoint, const char *dir, struct hl_error *err);

/* The device number of the hotlogfs of dir that lies uppermost on mountpoint: 1, or 0 if none does,
 * or -errno. */
int mount_find(const char *mountpoint, const char *dir, dev_t *device);

/*
 * Whether a hotlogfs of dir with this device number is mounted anywhere: 1, 0 or -errno. Numbers
 * are given again as soon as they are free, so type and source are compared as well.
 */
int mount_is_present(dev_t device, const char *dir);

/* Goes into the mount namespace that a file such as /proc/PID/ns/mnt stands for, and to its root
 * directory. Before any thread is started. */
int mount_enter_namespace(const char *path, struct hl_error *err);

/* Unmounts lazily: as root by the system call, else by fusermount3. 0 or -errno. */
int mount_detach(const char *mountpoint);

#endif
