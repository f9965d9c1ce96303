/*
 * stream.c - `log`, the root's `log`, ranges and histories: lines one after another, read by
 * offset.
 */
#include "fs_internal.h"

#include <errno.h>
#include <stdlib.h>

struct stream_handle {
    struct handle base;
    struct node node;
    pthread_mutex_t lock; /* guards cursor */
    struct hl_cursor cursor;
};

static ssize_t read_range(struct fs *fs, const struct node *node, char *buffer, size_t size,
                          uint64_t offset, struct hl_cursor *cursor)
{
    uint64_t from, to;

    int result = fs_range_extent(fs, node, &from, &to);
    if (result < 0)
        return result;
    if (offset >= to - from)
        return 0;
    if (size > to - from - offset)
        size = (size_t)(to - from - offset);
    return hl_log_read(fs->store, node->session, from + offset, buffer, size, cursor);
}

static ssize_t stream_read(struct fs *fs, struct handle *base, char *buffer, size_t size,
                           uint64_t offset)
{
    struct stream_handle *handle = (struct stream_handle *)base;
    const struct node *node = &handle->node;
    ssize_t got;

    /* Several may read at once; the cursor is a hint, so each works on a copy and the last one
     * stays. */
    pthread_mutex_lock(&handle->lock);
    struct hl_cursor cursor = handle->cursor;
    pthread_mutex_unlock(&handle->lock);
    if (node->kind == NODE_ROOT_LOG)
        got = hl_root_log_read(fs->store, offset, buffer, size, &cursor);
    else if (node->kind == NODE_LOG)
        got = hl_log_read(fs->store, node->session, offset, buffer, size, &cursor);
    else if (node->kind == NODE_HISTORY_KEY)
        got = hl_history_read(fs->store, node->session, node->a, offset, buffer, size, &cursor);
    else
        got = read_range(fs, node, buffer, size, offset, &cursor);
    if (got > 0) {
        pthread_mutex_lock(&handle->lock);
        handle->cursor = cursor;
        pthread_mutex_unlock(&handle->lock);
    }
    return got;
}

static void stream_release(struct fs *fs, struct handle *base)
{
    struct stream_handle *handle = (struct stream_handle *)base;

    handle_unlink(fs, base);
    pthread_mutex_destroy(&handle->lock);
    handle_free(fs, base);
}

static const struct handle_type stream_type = {.read = stream_read, .release = stream_release};

int stream_open(struct fs *fs, const struct node *node, uid_t uid, struct handle **handle)
{
    int result = handle_new(fs, sizeof(struct stream_handle), &stream_type, uid, handle);
    if (result < 0)
        return result;
    struct stream_handle *made = (struct stream_handle *)*handle;
    made->node = *node;
    pthread_mutex_init(&made->lock, NULL);
    handle_link(fs, *handle);
    return 0;
}
