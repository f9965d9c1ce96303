/*
 * stream.c - `log`, the root's `log`, ranges and histories: lines one after another, read by
 * offset.
 *
 * When records are dropped, what lies at which offset moves, and the file is another inode from
 * then on (dropped.h). Whoever has the one before open may read on where his last read ended, or at
 * the end that he asked for; any other offset means nothing any more and is ESTALE. A closed range
 * is read through the kernel's pages, which must never be of two kinds: it can be read as long as
 * nothing in it is gone.
 */
#include "ahead.h"
#include "fs_internal.h"

#include <errno.h>
#include <stdlib.h>

struct stream_handle {
    struct handle base;
    struct node node;
    struct dropped_file *file;
    struct hl_root_reader *root; /* of the root's log, else NULL */
    bool closed;                 /* a range that was closed when it was opened */
    uint64_t length;             /* its bytes then */
    pthread_mutex_t lock;        /* guards all below */
    struct hl_cursor cursor;
    struct hl_cursor
        at_end;       /* where the file ended when that was asked for; offset 0: it was not */
    uint64_t from;    /* of a range: where it begins in the log, to the cursor */
    uint64_t reader;  /* to fs->ahead; 0: what is read is not read ahead */
    size_t last_size; /* of a read that followed the one before it, and got all it asked for */
};

/* ---- reading ----------------------------------------------------------------------------------
 */

/* One that does not change. *from is where it began when it was read last. */
static ssize_t read_closed(struct fs *fs, const struct stream_handle *handle, char *buffer,
                           size_t size, uint64_t offset, uint64_t *from, struct hl_cursor *cursor)
{
    const struct node *node = &handle->node;
    uint64_t begin, end, begin_after, end_after;

    int result = fs_range_extent(fs, node, &begin, &end);
    if (result < 0)
        return result;
    if (end - begin != handle->length)
        return -EIO; /* some of it was dropped */
    if (offset >= handle->length)
        return 0;
    if (size > handle->length - offset)
        size = (size_t)(handle->length - offset);
    if (*from != begin)
        *cursor = (struct hl_cursor){0};
    *from = begin;
    ssize_t got = hl_log_read(fs->store, node->session, begin + offset, buffer, size, cursor);
    if (got < 0)
        return got;
    result = fs_range_extent(fs, node, &begin_after, &end_after);
    if (result < 0)
        return result;
    return begin_after == begin && end_after == end ? got : -EIO;
}

/* How many bytes of a range are there from the cursor on. */
static int left_in_range(struct fs *fs, const struct node *node, const struct hl_cursor *cursor,
                         uint64_t *left)
{
    struct node rest = *node, one = *node;
    uint64_t from, to, begin, end, had = cursor->end - cursor->offset;

    rest.a = one.a = one.b = cursor->place;
    int result = cursor->place > node->b ? -ENOENT : fs_range_extent(fs, &rest, &from, &to);
    if (result == 0 && had > 0) {
        result = fs_range_extent(fs, &one, &begin, &end);
        if (begin == end)
            had = UINT64_MAX; /* dropped while it was read: a newline ends it */
    }
    *left = result == 0 ? to - from - had : 0;
    return result == -ENOENT ? 0 : result;
}

/* One that may grow. *from is what its offset 0 is to the cursor. */
static ssize_t read_range(struct fs *fs, const struct node *node, char *buffer, size_t size,
                          uint64_t offset, uint64_t *from, struct hl_cursor *cursor)
{
    uint64_t to, left;
    bool begun = cursor->end > 0 && cursor->end == *from + offset;
    int result;

    if (begun) {
        result = left_in_range(fs, node, cursor, &left);
    } else {
        result = fs_range_extent(fs, node, from, &to);
        left = result == 0 && to - *from > offset ? to - *from - offset : 0;
        *cursor = (struct hl_cursor){0};
    }
    if (result < 0)
        return result;
    if (size > left)
        size = (size_t)left;
    return hl_log_read(fs->store, node->session, *from + offset, buffer, size, cursor);
}

static ssize_t read_kind(struct fs *fs, const struct stream_handle *handle, char *buffer,
                         size_t size, uint64_t offset, uint64_t *from, struct hl_cursor *cursor)
{
    const struct node *node = &handle->node;

    if (node->kind == NODE_ROOT_LOG)
        return hl_root_reader_read(handle->root, offset, buffer, size);
    if (node->kind == NODE_LOG)
        return hl_log_read(fs->store, node->session, offset, buffer, size, cursor);
    if (node->kind == NODE_HISTORY_KEY)
        return hl_history_read(fs->store, node->session, node->a, offset, buffer, size, cursor);
    if (handle->closed)
        return read_closed(fs, handle, buffer, size, offset, from, cursor);
    return read_range(fs, node, buffer, size, offset, from, cursor);
}

/* Where a session's log ends, to be read on from. */
static bool find_end(struct fs *fs, const struct stream_handle *handle, struct hl_cursor *end)
{
    struct hl_session session;

    if (handle->node.kind != NODE_LOG ||
        hl_session_by_number(fs->store, handle->node.session, &session) < 0)
        return false;
    if (fs->options->read_only)
        dropped_seen(fs->dropped, session.number, session.gone);
    if (dropped_is_old(fs->dropped, &handle->node)) /* asked last: it may be so only now */
        return false;
    *end = (struct hl_cursor){.end = session.bytes,
                              .offset = session.bytes,
                              .place = session.has_seq ? session.last_seq + 1 : 0};
    return true;
}

/* Beside a writer: whether something was dropped is found out by looking. */
static int look(struct fs *fs, uint32_t number, bool watch)
{
    struct hl_session session;

    if (!fs->options->read_only || number == 0)
        return 0;
    int result = hl_session_by_number(fs->store, number, &session);
    if (result == 0 && watch && !dropped_watch(fs->dropped, number, session.gone))
        result = -ENOMEM;
    if (result == 0)
        dropped_seen(fs->dropped, number, session.gone);
    return result;
}

/* False: that is not where the file ends to its readers. */
static bool mark_end(struct stream_handle *handle, const struct hl_cursor *end)
{
    if (!dropped_read_to(handle->file, end->end))
        return false;
    pthread_mutex_lock(&handle->lock);
    handle->at_end = *end;
    pthread_mutex_unlock(&handle->lock);
    return true;
}

/* Whether the session was deleted: then its log does not end, it is not there. */
static bool is_gone(struct fs *fs, uint32_t number)
{
    struct hl_session session;

    return number != 0 && hl_session_by_number(fs->store, number, &session) == -ENOENT;
}

static ssize_t stream_read(struct fs *fs, struct handle *base, char *buffer, size_t size,
                           uint64_t offset)
{
    struct stream_handle *handle = (struct stream_handle *)base;
    struct hl_cursor end;

    int result = look(fs, handle->node.session, false);
    if (result < 0)
        return result == -ENOENT ? -ESTALE : result;
    /* Several may read at once: each works on a copy, and the last one stays. */
    pthread_mutex_lock(&handle->lock);
    struct hl_cursor cursor = handle->cursor;
    uint64_t from = handle->from;
    bool goes_on =
        handle->root ? hl_root_reader_goes_on(handle->root, offset) : cursor.end == from + offset;
    if (!goes_on && handle->at_end.offset > 0 && handle->at_end.end == offset) {
        cursor = handle->at_end;
        goes_on = true;
    }
    pthread_mutex_unlock(&handle->lock);
    bool bound = !goes_on && !handle->closed; /* to what lies at that offset */
    if (bound && dropped_is_old(fs->dropped, &handle->node))
        return -ESTALE;
    ssize_t got = read_kind(fs, handle, buffer, size, offset, &from, &cursor);
    if (bound && dropped_is_old(fs->dropped, &handle->node))
        return -ESTALE;
    if (got > 0) {
        pthread_mutex_lock(&handle->lock);
        handle->cursor = cursor;
        handle->from = from;
        pthread_mutex_unlock(&handle->lock);
        dropped_read_to(handle->file, offset + (uint64_t)got);
    } else if (got == 0 && is_gone(fs, handle->node.session)) {
        return -ESTALE;
    } else if (got == 0 && bound && find_end(fs, handle, &end) && end.end == offset) {
        (void)mark_end(handle, &end);
    }
    return got;
}

/* ---- reading ahead ----------------------------------------------------------------------------
 */

#define AHEAD_MIN ((size_t)32 << 10) /* what is asked for at a time, for it to be worth it */
#define AHEAD_MAX ((size_t)256 << 10)

/* What is read next, if reads go on as the last ones did. */
static bool find_next(struct stream_handle *handle, struct ahead_reader *reader)
{
    pthread_mutex_lock(&handle->lock);
    *reader = (struct ahead_reader){
        .id = handle->reader,
        .session = handle->node.session,
        .offset = handle->cursor.end,
        .size = handle->last_size,
        .cursor = handle->cursor,
    };
    pthread_mutex_unlock(&handle->lock);
    return reader->id != 0 && reader->size >= AHEAD_MIN && reader->size <= AHEAD_MAX;
}

/* Notes that so much was read; follows: from where the read before ended. */
static void note_read(struct stream_handle *handle, size_t size, bool follows, ssize_t got)
{
    pthread_mutex_lock(&handle->lock);
    handle->last_size = follows && got == (ssize_t)size ? size : 0;
    pthread_mutex_unlock(&handle->lock);
}

static void stream_answer(struct fs *fs, struct handle *base, fuse_req_t req, size_t size,
                          uint64_t offset)
{
    struct stream_handle *handle = (struct stream_handle *)base;
    struct ahead_reader reader;
    struct ahead_piece *piece = NULL;

    bool ahead = find_next(handle, &reader);
    bool follows = offset > 0 && reader.offset == offset;
    if (ahead && follows && reader.size == size)
        piece = ahead_take(fs->ahead, fs->store, &reader);
    if (piece) {
        pthread_mutex_lock(&handle->lock);
        handle->cursor = *ahead_cursor(piece);
        pthread_mutex_unlock(&handle->lock);
        dropped_read_to(handle->file, offset + size);
        bool more = find_next(handle, &reader);
        fuse_reply_buf(req, ahead_bytes(piece), size);
        ahead_put(fs->ahead, piece);
        if (more)
            ahead_read(fs->ahead, fs->store, &reader);
        return;
    }
    char *buffer = fs_buffer(fs, size);
    ssize_t got = buffer ? stream_read(fs, base, buffer, size, offset) : -ENOMEM;
    note_read(handle, size, follows, got);
    bool more = find_next(handle, &reader);
    reply_bytes(req, buffer, got);
    fs_buffer_done(fs, buffer, size);
    if (more)
        ahead_read(fs->ahead, fs->store, &reader);
}

/* Asked by an open file where its end is, as lseek(2) does: reads go on from there. */
static void stream_attr(struct fs *fs, struct handle *base, struct fs_attr *attr)
{
    struct stream_handle *handle = (struct stream_handle *)base;
    struct hl_cursor end;
    uint64_t size;

    if (handle->root && hl_root_reader_end(handle->root, &size) == 0 &&
        !dropped_is_old(fs->dropped, &handle->node) && dropped_read_to(handle->file, size))
        fs_attr_size(attr, size);
    if (find_end(fs, handle, &end) && mark_end(handle, &end))
        fs_attr_size(attr, end.end);
}

/* ---- open files -------------------------------------------------------------------------------
 */

static void stream_release(struct fs *fs, struct handle *base)
{
    struct stream_handle *handle = (struct stream_handle *)base;

    handle_unlink(fs, base);
    if (handle->reader != 0)
        ahead_forget(fs->ahead, handle->reader);
    dropped_close(fs->dropped, handle->file);
    hl_root_reader_close(handle->root);
    pthread_mutex_destroy(&handle->lock);
    handle_free(fs, base);
}

static const struct handle_type stream_type = {
    .answer = stream_answer, .attr = stream_attr, .release = stream_release};

int stream_open(struct fs *fs, const struct node *node, bool closed, uid_t uid,
                struct handle **handle)
{
    uint64_t begin, end;

    int result = handle_new(fs, sizeof(struct stream_handle), &stream_type, uid, handle);
    if (result < 0)
        return result;
    struct stream_handle *made = (struct stream_handle *)*handle;
    made->node = *node;
    made->closed = closed;
    if (node->kind == NODE_LOG && !fs->options->read_only)
        made->reader = ahead_reader_id(fs->ahead);
    result = look(fs, node->session, true);
    made->file = result == 0 ? dropped_open(fs->dropped, node) : NULL;
    if (result == 0 && !made->file)
        result = -ENOMEM;
    if (result == 0 && node->kind == NODE_ROOT_LOG)
        result = hl_root_reader_open(fs->store, &made->root);
    if (result == 0 && closed) {
        result = fs_range_extent(fs, node, &begin, &end);
        made->length = end - begin;
    }
    if (result == 0 && dropped_is_old(fs->dropped, node))
        result = -ESTALE; /* the kernel looks its name up again */
    if (result < 0) {
        if (made->file)
            dropped_close(fs->dropped, made->file);
        hl_root_reader_close(made->root);
        handle_free(fs, *handle);
        *handle = NULL;
        return result;
    }
    pthread_mutex_init(&made->lock, NULL);
    handle_link(fs, *handle);
    return 0;
}
