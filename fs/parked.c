/*
 * parked.c - requests that wait for the disk, answered by the commit thread.
 *
 * No worker thread waits: the request is put aside with the count that it will be answered with. A
 * signal to its sender is not heeded; a sync is short and ends by itself.
 */
#include "fs_internal.h"

#include <stdlib.h>

struct parked {
    struct fs *fs;
    fuse_req_t req;
    ssize_t count;
};

struct parked *parked_new(struct fs *fs, fuse_req_t req)
{
    struct parked *parked = calloc(1, sizeof *parked);
    if (!parked)
        return NULL;
    parked->fs = fs;
    parked->req = req;
    return parked;
}

void parked_drop(struct parked *parked)
{
    free(parked);
}

static void answer(void *context, int error)
{
    struct parked *parked = context;
    struct fs *fs = parked->fs;

    if (error != 0)
        fuse_reply_err(parked->req, fs_errno(error < 0 ? error : -error));
    else if (parked->count >= 0)
        fuse_reply_write(parked->req, (size_t)parked->count);
    else
        fuse_reply_err(parked->req, 0);
    free(parked);

    pthread_mutex_lock(&fs->parked_lock);
    if (--fs->parked == 0)
        pthread_cond_broadcast(&fs->parked_none);
    pthread_mutex_unlock(&fs->parked_lock);
}

void parked_sync(struct parked *parked, ssize_t count)
{
    struct fs *fs = parked->fs;

    parked->count = count;
    pthread_mutex_lock(&fs->parked_lock);
    fs->parked++;
    pthread_mutex_unlock(&fs->parked_lock);
    hl_sync_async(fs->store, answer, parked);
}

void parked_wait_all(struct fs *fs)
{
    pthread_mutex_lock(&fs->parked_lock);
    while (fs->parked > 0)
        pthread_cond_wait(&fs->parked_none, &fs->parked_lock);
    pthread_mutex_unlock(&fs->parked_lock);
}
