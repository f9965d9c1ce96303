/*
 * record.c - a record as a file.
 *
 * The store checks the whole frame at every read. The kernel asks for 128 KiB at a time, so a large
 * line is read and checked once, at the second read, and held until its end was read; all held
 * lines together are bounded, and what does not fit is checked again at every read.
 */
#include "fs_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct record_handle {
    struct handle base;
    struct node node;
    uint32_t length;
    pthread_mutex_t lock; /* guards line */
    char *line;           /* all of it, or NULL */
};

ssize_t record_read(struct fs *fs, const struct node *node, char *buffer, size_t size,
                    uint64_t offset)
{
    ssize_t got = hl_record_read(fs->store, node->session, node->a, buffer, size, offset);
    return got == -ENOENT ? -EIO : got; /* it was dropped, and is open */
}

char *fs_line_room(struct fs *fs, struct user *user, uint32_t length)
{
    if (share_take(fs, user, SHARE_HELD, length) != TAKEN)
        return NULL;
    char *line = malloc(length);
    if (!line)
        fs_line_free(fs, user, NULL, length);
    return line;
}

char *fs_line_hold(struct fs *fs, struct user *user, uint32_t session, uint64_t seq,
                   uint32_t length)
{
    char *line = fs_line_room(fs, user, length);
    if (!line)
        return NULL;
    if (hl_record_read(fs->store, session, seq, line, length, 0) == (ssize_t)length)
        return line;
    fs_line_free(fs, user, line, length);
    return NULL;
}

void fs_line_free(struct fs *fs, struct user *user, char *line, uint32_t length)
{
    free(line);
    share_give(fs, user, SHARE_HELD, length);
}

static void drop_line(struct fs *fs, struct record_handle *handle)
{
    if (handle->line)
        fs_line_free(fs, handle->base.user, handle->line, handle->length);
    handle->line = NULL;
}

static ssize_t large_read(struct fs *fs, struct handle *base, char *buffer, size_t size,
                          uint64_t offset)
{
    struct record_handle *handle = (struct record_handle *)base;
    ssize_t got = 0;

    if (offset >= handle->length)
        return 0;
    if (size > handle->length - offset)
        size = (size_t)(handle->length - offset);
    pthread_mutex_lock(&handle->lock);
    /* Whatever kept it from being held is met again by the read below. */
    if (!handle->line && offset > 0)
        handle->line =
            fs_line_hold(fs, base->user, handle->node.session, handle->node.a, handle->length);
    if (handle->line) {
        memcpy(buffer, handle->line + offset, size);
        got = (ssize_t)size;
        if (offset + size == handle->length)
            drop_line(fs, handle);
    } else {
        got = record_read(fs, &handle->node, buffer, size, offset);
    }
    pthread_mutex_unlock(&handle->lock);
    return got;
}

static void record_release(struct fs *fs, struct handle *base)
{
    struct record_handle *handle = (struct record_handle *)base;

    handle_unlink(fs, base);
    drop_line(fs, handle);
    pthread_mutex_destroy(&handle->lock);
    handle_free(fs, base);
}

static const struct handle_type record_type = {.read = large_read, .release = record_release};

int record_open(struct fs *fs, const struct node *node, uint32_t length, uid_t uid,
                struct handle **handle)
{
    int result = handle_new(fs, sizeof(struct record_handle), &record_type, uid, handle);
    if (result < 0)
        return result;
    struct record_handle *made = (struct record_handle *)*handle;
    made->node = *node;
    made->length = length;
    pthread_mutex_init(&made->lock, NULL);
    handle_link(fs, *handle);
    return 0;
}
