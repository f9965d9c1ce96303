/*
 * value.c - a document's value as a file that never changes.
 *
 * The store checks the whole record at every read. So a long value is held from the second read on
 * until its end was read, as record.c does with lines.
 */
#include "fs_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct value_handle {
    struct handle base;
    uint32_t session;
    struct hl_document document; /* never changes */
    pthread_mutex_t lock;        /* guards value */
    char *value;                 /* all of a long one with its newline, or NULL */
};

/* Whatever keeps it from being held is met again by the read that follows. */
static void hold_value(struct fs *fs, struct value_handle *handle, uint32_t size)
{
    char *value = fs_line_room(fs, handle->base.user, size);

    if (!value)
        return;
    if (hl_document_read(fs->store, handle->session, &handle->document, value, size, 0) ==
        (ssize_t)size)
        handle->value = value;
    else
        fs_line_free(fs, handle->base.user, value, size);
}

static void drop_value(struct fs *fs, struct value_handle *handle)
{
    if (handle->value)
        fs_line_free(fs, handle->base.user, handle->value, handle->document.length + 1);
    handle->value = NULL;
}

static ssize_t value_read(struct fs *fs, struct handle *base, char *buffer, size_t size,
                          uint64_t offset)
{
    struct value_handle *handle = (struct value_handle *)base;
    uint32_t total = handle->document.length + 1;
    ssize_t got;

    if (offset >= total)
        return 0;
    if (size > total - offset)
        size = (size_t)(total - offset);
    pthread_mutex_lock(&handle->lock);
    if (!handle->value && offset > 0 && total > FS_SMALL_LINE)
        hold_value(fs, handle, total);
    if (handle->value) {
        memcpy(buffer, handle->value + offset, size);
        got = (ssize_t)size;
        if (offset + size == total)
            drop_value(fs, handle);
    } else {
        got = hl_document_read(fs->store, handle->session, &handle->document, buffer, size, offset);
    }
    pthread_mutex_unlock(&handle->lock);
    return got == -ENOENT ? -ESTALE : got; /* its record was dropped */
}

static void value_release(struct fs *fs, struct handle *base)
{
    struct value_handle *handle = (struct value_handle *)base;

    handle_unlink(fs, base);
    drop_value(fs, handle);
    pthread_mutex_destroy(&handle->lock);
    handle_free(fs, base);
}

static const struct handle_type value_type = {.read = value_read, .release = value_release};

int value_open(struct fs *fs, uint32_t session, const struct hl_document *document, uid_t uid,
               struct handle **handle)
{
    int result = handle_new(fs, sizeof(struct value_handle), &value_type, uid, handle);
    if (result < 0)
        return result;
    struct value_handle *made = (struct value_handle *)*handle;
    made->session = session;
    made->document = *document;
    pthread_mutex_init(&made->lock, NULL);
    handle_link(fs, *handle);
    return 0;
}
