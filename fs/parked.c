/*
 * parked.c - requests that wait for the disk, answered by the commit thread.
 *
 * No worker thread waits: the request is put aside with what it will be answered with. A signal to
 * its sender is not heeded; a sync is short and ends by itself.
 */
#include "fs_internal.h"

#include <stdlib.h>

/* What is answered when the disk has it. */
enum answered { NOTHING, COUNT, ENTRY, ATTRIBUTES };

struct parked {
    struct fs *fs;
    fuse_req_t req;
    enum answered what;
    size_t count;
    struct fuse_entry_param entry; /* of ATTRIBUTES: attr and attr_timeout */
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
    int sent = 0;

    if (error != 0)
        fuse_reply_err(parked->req, fs_errno(error < 0 ? error : -error));
    else if (parked->what == COUNT)
        fuse_reply_write(parked->req, parked->count);
    else if (parked->what == ENTRY)
        sent = fuse_reply_entry(parked->req, &parked->entry);
    else if (parked->what == ATTRIBUTES)
        fuse_reply_attr(parked->req, &parked->entry.attr, parked->entry.attr_timeout);
    else
        fuse_reply_err(parked->req, 0);
    /* A look-up that the kernel did not get is taken back. */
    if (parked->what == ENTRY && (error != 0 || sent != 0))
        fs_forget(fs, parked->entry.ino, 1);
    free(parked);

    pthread_mutex_lock(&fs->parked_lock);
    if (--fs->parked == 0)
        pthread_cond_broadcast(&fs->parked_none);
    pthread_mutex_unlock(&fs->parked_lock);
}

static void park(struct parked *parked, enum answered what)
{
    struct fs *fs = parked->fs;

    parked->what = what;
    pthread_mutex_lock(&fs->parked_lock);
    fs->parked++;
    pthread_mutex_unlock(&fs->parked_lock);
    hl_sync_async(fs->store, answer, parked);
}

void parked_sync(struct parked *parked)
{
    park(parked, NOTHING);
}

void parked_sync_write(struct parked *parked, size_t count)
{
    parked->count = count;
    park(parked, COUNT);
}

void parked_sync_entry(struct parked *parked, const struct fuse_entry_param *entry)
{
    parked->entry = *entry;
    park(parked, ENTRY);
}

void parked_sync_attributes(struct parked *parked, const struct stat *attr, double keep)
{
    parked->entry.attr = *attr;
    parked->entry.attr_timeout = keep;
    park(parked, ATTRIBUTES);
}

void parked_wait_all(struct fs *fs)
{
    pthread_mutex_lock(&fs->parked_lock);
    while (fs->parked > 0)
        pthread_cond_wait(&fs->parked_none, &fs->parked_lock);
    pthread_mutex_unlock(&fs->parked_lock);
}
