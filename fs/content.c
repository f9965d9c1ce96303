/*
 * content.c - the bytes of a file that is kept in memory.
 */
#include "content.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LARGEST (SIZE_MAX / 4) /* so that sums of lengths stay in range */

static enum share share_of(enum content_kind kind)
{
    return kind == CONTENT_VALUE ? SHARE_PIECES : SHARE_SCRATCH;
}

static enum taken reserve(struct fs *fs, const struct content *content, enum content_kind kind,
                          size_t bytes)
{
    return share_take(fs, content->user, share_of(kind), bytes);
}

static void unreserve(struct fs *fs, const struct content *content, size_t bytes)
{
    share_give(fs, content->user, share_of(content->kind), bytes);
}

static int no_room(const struct fs *fs, const struct content *content, enum content_kind kind,
                   enum taken why, struct hl_error *err)
{
    return share_refuse(
        fs, content->user, share_of(kind), why,
        kind == CONTENT_VALUE ? "what is written to all open files" : "the scratch files", err);
}

/* Memory for need bytes, all of it accounted for: a quarter more if there is room for that. */
static int make_room(struct fs *fs, struct content *content, size_t need, struct hl_error *err)
{
    if (need <= content->capacity)
        return 0;
    size_t want = need + need / 4;
    if (reserve(fs, content, content->kind, want - content->capacity) != TAKEN) {
        want = need;
        enum taken taken = reserve(fs, content, content->kind, want - content->capacity);
        if (taken != TAKEN)
            return no_room(fs, content, content->kind, taken, err);
    }
    char *at = realloc(content->at, want);
    if (!at) {
        unreserve(fs, content, want - content->capacity);
        return hl_fail(err, ENOMEM, "out of memory for a file of %zu bytes", need);
    }
    content->at = at;
    content->capacity = want;
    return 0;
}

char *content_grow(struct fs *fs, struct content *content, size_t more, struct hl_error *err)
{
    if (more > LARGEST) {
        hl_fail(err, EFBIG, "the file would be too large");
        return NULL;
    }
    if (make_room(fs, content, content->len + more, err) < 0)
        return NULL;
    content->len += more;
    return content->at + content->len - more;
}

int content_resize(struct fs *fs, struct content *content, uint64_t len, struct hl_error *err)
{
    if (len > LARGEST)
        return hl_fail(err, EFBIG, "the file would be too large");
    if (len == 0) {
        content_free(fs, content);
        return 0;
    }
    int result = make_room(fs, content, (size_t)len, err);
    if (result < 0)
        return result;
    if (len > content->len)
        memset(content->at + content->len, 0, (size_t)len - content->len);
    content->len = (size_t)len;
    return 0;
}

int content_write(struct fs *fs, struct content *content, uint64_t offset, const char *data,
                  size_t len, struct hl_error *err)
{
    if (offset > LARGEST || len > LARGEST)
        return hl_fail(err, EFBIG, "the file would be too large");
    if (len == 0)
        return 0;
    if (offset + len > content->len) {
        int result = content_resize(fs, content, offset + len, err);
        if (result < 0)
            return result;
    }
    memcpy(content->at + offset, data, len);
    return 0;
}

size_t content_read(const struct content *content, char *buffer, size_t size, uint64_t offset)
{
    if (offset >= content->len)
        return 0;
    if (size > content->len - offset)
        size = content->len - (size_t)offset;
    memcpy(buffer, content->at + offset, size);
    return size;
}

int content_turn(struct fs *fs, struct content *content, enum content_kind kind,
                 struct hl_error *err)
{
    if (content->kind == kind)
        return 0;
    enum taken taken = reserve(fs, content, kind, content->capacity);
    if (taken != TAKEN)
        return no_room(fs, content, kind, taken, err);
    unreserve(fs, content, content->capacity);
    content->kind = kind;
    return 0;
}

void content_free(struct fs *fs, struct content *content)
{
    free(content->at);
    unreserve(fs, content, content->capacity);
    *content = (struct content){.kind = content->kind, .user = content->user};
}
