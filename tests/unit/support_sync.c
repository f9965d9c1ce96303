/*
 * support_sync.c - syncs that do not wait for the disk.
 *
 * Unit tests end processes, never the power: what was written is there, synced or not. So they need
 * not wait for a device, whose speed would be most of the time that they take. These two take the
 * place of the C library's, for LMDB too. HL_TEST_SYNC=1 has them done.
 */
#include "support.h"

#include <sys/syscall.h>
#include <unistd.h>

static int sync_file(long call, int fd)
{
    return getenv("HL_TEST_SYNC") ? (int)syscall(call, fd) : 0;
}

int fsync(int fd)
{
    return sync_file(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return sync_file(SYS_fdatasync, fd);
}
