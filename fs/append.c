/*
 * append.c - `append`, of a session and of the root: lines in, receipts out.
 *
 * A write() is not a line. What stands after its last newline, the piece, is kept with the open
 * file and joined with what comes next. Everything up to the last newline is one batch, all or
 * none.
 *
 * When a write is refused, nothing of it was taken. What was kept before it, the piece, is another
 * matter:
 *
 * - If the refused line is the one that the piece began, it would spoil every later write, so it
 *   goes too, and the sentence says so. refused.h tells how the program's next tries at that line
 *   are known from new lines.
 * - Else the piece stays, for a program that goes on where it was told that the write ended: what
 *   comes next then begins as the refused write did. If it does not, the program has given up the
 *   line, and the piece ends where it is, as at the last close.
 */
#include "fs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answers.h"
#include "piece.h"
#include "refused.h"

/* Unread receipts kept for a handle, in bytes; the newest one is kept whatever its size. */
#define RECEIPTS_MAX (64U * 1024)
/* Bytes by which a write is known to begin as the refused one did. */
#define HEAD_MAX 64U
#define SESSION_MODE 0755

struct append_handle {
    struct handle base;
    uint32_t session; /* 0: the root's */
    bool readable;
    mode_t umask;
    struct caller opener; /* for the root's: with groups */
    pthread_mutex_t lock; /* guards all below */
    struct piece piece;
    char head[HEAD_MAX]; /* of a refused write that may go on with the piece, within its line */
    size_t head_len;     /* 0: there is none */
    struct refused refused;
    struct answers receipts;
};

/* What one call of hl_append() tells, gathered. */
struct batch {
    struct fs *fs;
    const struct append_handle *handle;
    struct text receipt;
    bool made_session;
};

/* ---- what the store calls ---------------------------------------------------------------------
 */

static int permit(void *context, const struct hl_session *session)
{
    struct batch *batch = context;

    if (caller_may(&batch->handle->opener, fs_owner(batch->fs, session), session->gid,
                   session->mode, ACCESS_WRITE))
        return 0;
    return -EACCES;
}

static void take_receipt(void *context, const struct hl_receipt *receipt)
{
    struct batch *batch = context;
    char name[NODE_NAME_MAX + 1];

    if (receipt->created)
        batch->made_session = true;
    if (!batch->handle->readable)
        return;
    if (batch->handle->session == 0) {
        /* An id whose name is too long has none; its receipt still must not be taken for another's.
         */
        if (name_encode(receipt->id, receipt->id_len, name) == 0)
            snprintf(name, sizeof name, "?");
        text_format(&batch->receipt, "%s ", name);
    }
    if (receipt->first == receipt->last)
        text_format(&batch->receipt, "%llu\n", (unsigned long long)receipt->first);
    else
        text_format(&batch->receipt, "%llu-%llu\n", (unsigned long long)receipt->first,
                    (unsigned long long)receipt->last);
}

/* ---- refusing ---------------------------------------------------------------------------------
 */

/* Whether the same line may be taken another time: the fault is not in it. */
static bool may_pass_later(int result)
{
    switch (-result) {
    case ENOSPC:
    case EDQUOT:
    case EIO:
    case EROFS:
    case ENOMEM:
    case ENOBUFS:
    case EAGAIN:
        return true;
    default:
        return false;
    }
}

/* A refusal without a sentence is given one. */
static void complete_error(struct hl_error *err, int result)
{
    err->code = -result;
    if (err->text[0] == '\0')
        snprintf(err->text, sizeof err->text, "%s", strerror(-result));
}

/* Where the reason is kept: with the session; or the root, and the session that the line names. */
static void tell(struct fs *fs, const struct append_handle *handle, const struct hl_error *err)
{
    struct hl_error also = *err;
    size_t said = strlen(also.text);

    fs_refused(fs, handle->session, NULL, err);
    if (handle->session != 0 || err->session == 0)
        return;
    snprintf(also.text + said, sizeof also.text - said, " (written to root append)");
    fs_refused(fs, err->session, NULL, &also);
}

/* The length of the first line, with its newline if there is one. */
static size_t first_line(const char *data, size_t len)
{
    const char *newline = memchr(data, '\n', len);
    return newline ? (size_t)(newline - data) + 1 : len;
}

/* What stands behind the last newline. */
static size_t tail_of(const char *data, size_t len, const char **tail)
{
    const char *newline = memrchr(data, '\n', len);
    *tail = newline ? newline + 1 : data;
    return len - (size_t)(*tail - data);
}

/* A write was refused with this result: what of it is remembered, and what becomes of the piece. */
static void remember(struct fs *fs, struct append_handle *handle, const char *data, size_t len,
                     int result, struct hl_error *err)
{
    struct piece *piece = &handle->piece;
    struct refused *refused = &handle->refused;
    const char *tail;
    size_t tail_len = tail_of(data, len, &tail), first = first_line(data, len);

    complete_error(err, result);
    if (piece->len > 0 && err->line == 1 && !may_pass_later(result)) {
        size_t said = strlen(err->text);
        snprintf(err->text + said, sizeof err->text - said,
                 " (the %zu bytes of this line written before are dropped)", piece->len);
        refused_keep(fs, refused, piece->at, piece->len, data, first, true, err);
        piece_free(fs, piece);
    } else {
        if (tail == data)
            refused_keep(fs, refused, piece->at, piece->len, data, len, false, err);
        else if (tail_len > 0)
            refused_keep(fs, refused, NULL, 0, tail, tail_len, false, err);
        handle->head_len = piece->len == 0 ? 0 : first < HEAD_MAX ? first : HEAD_MAX;
        memcpy(handle->head, data, handle->head_len);
    }
    if (tail != data)
        refused->open = refused->any && tail_len > 0 && tail[0] == '{';
}

/* Whether the line that a write completes, or goes on with, is a part of the refused one. Not if it
 * begins with '{'. */
static int is_part(struct append_handle *handle, const char *data, size_t len, bool *part,
                   struct hl_error *err)
{
    struct piece *piece = &handle->piece;
    size_t first = first_line(data, len);
    const char *text = data;

    *part = false;
    if (!handle->refused.any || (piece->len > 0 ? piece->at : data)[0] == '{')
        return 0;
    if (piece->len > 0) {
        int result = piece_join(piece, data, first, err);
        if (result < 0)
            return result;
        text = piece->at;
    } else if (data[0] == '\n') {
        return 0;
    }
    *part = data[first - 1] == '\n'
                ? refused_has(&handle->refused, text, piece->len + first)
                : refused_has_piece(&handle->refused, text, piece->len, piece->len + first);
    if (piece->len > 0)
        piece_unjoin(piece);
    return 0;
}

/* Refuses a part of the line that was refused before, with all that was kept of it. */
static int refuse_part(struct fs *fs, struct append_handle *handle, const char *data, size_t len,
                       struct hl_error *err)
{
    struct refused *refused = &handle->refused;
    const char *tail;
    size_t tail_len = tail_of(data, len, &tail);

    piece_free(fs, &handle->piece);
    if (tail != data)
        refused->open = tail_len > 0 && tail[0] == '{';
    *err = refused->err;
    err->line = 1;
    return -err->code;
}

/* ---- receipts ---------------------------------------------------------------------------------
 */

/* Gives back what the receipts do not take any more, since they took that much. */
static void receipts_shrank(struct fs *fs, struct append_handle *handle, size_t from)
{
    share_give(fs, handle->base.user, SHARE_ANSWERS, from - handle->receipts.cost);
}

/* Where there is no room for all, the oldest of this file go; where there is none at all, it is
 * only not told. */
static void keep_receipt(struct fs *fs, struct append_handle *handle, const struct text *receipt)
{
    struct answers *receipts = &handle->receipts;
    struct user *user = handle->base.user;
    size_t cost = answers_cost(receipt->len), before = receipts->cost;
    enum taken taken;

    while ((taken = share_take(fs, user, SHARE_ANSWERS, cost)) != TAKEN && answers_drop(receipts)) {
        receipts_shrank(fs, handle, before);
        before = receipts->cost;
    }
    if (taken == TAKEN) {
        answers_add(receipts, receipt->at, receipt->len, RECEIPTS_MAX);
        receipts_shrank(fs, handle, before + cost);
        return;
    }
    struct hl_error err = {0};
    share_refuse(fs, user, SHARE_ANSWERS, taken,
                 "the lines are stored, but not their receipt: those that nobody read", &err);
    tell(fs, handle, &err);
}

/* ---- appending --------------------------------------------------------------------------------
 */

static int append_lines(struct fs *fs, struct append_handle *handle, const char *data, size_t len,
                        struct batch *batch, struct hl_error *err)
{
    uint32_t uid = fs->uid == 0 ? handle->opener.uid : fs->uid;
    uint32_t gid = fs->uid == 0 ? handle->opener.gid : fs->gid;
    struct hl_append request = {
        .session = handle->session,
        .data = data,
        .len = len,
        .uid = uid,
        .gid = gid,
        .mode = SESSION_MODE & ~handle->umask,
        .permit = permit,
        .permit_context = batch,
        .receipt = take_receipt,
        .receipt_context = batch,
    };

    *batch = (struct batch){.fs = fs, .handle = handle};
    int result = hl_append(fs->store, &request, err);
    if (result == 0) {
        uint64_t now = fs_now_ms();
        atomic_store(&fs->changed_ms, now);
        if (batch->made_session)
            atomic_store(&fs->sessions_changed_ms, now);
        /* What is stored is stored: a receipt for which there is no memory is only not told. */
        if (batch->receipt.len > 0 && !batch->receipt.failed)
            keep_receipt(fs, handle, &batch->receipt);
    }
    text_free(&batch->receipt);
    return result;
}

/* Appends the piece with the lines that follow it, of which the first ends it. */
static int append_joined(struct fs *fs, struct append_handle *handle, const char *data, size_t len,
                         struct batch *batch, struct hl_error *err)
{
    struct piece *piece = &handle->piece;

    if (piece->len == 0)
        return append_lines(fs, handle, data, len, batch, err);
    int result = piece_join(piece, data, len, err);
    if (result < 0)
        return result;
    result = append_lines(fs, handle, piece->at, piece->len + len, batch, err);
    if (result < 0)
        piece_unjoin(piece);
    return result;
}

/* How many lines end in the bytes. */
static size_t count_lines(const char *data, size_t len)
{
    size_t lines = 0;
    const char *end = data + len;

    while (data < end && (data = memchr(data, '\n', (size_t)(end - data))) != NULL) {
        lines++;
        data++;
    }
    return lines;
}

/* Appends what a write completes and keeps what it begins, or does neither. */
static int take_lines(struct fs *fs, struct append_handle *handle, const char *data, size_t len,
                      bool *stored, struct batch *batch, struct hl_error *err)
{
    const char *tail;
    size_t tail_len = tail_of(data, len, &tail), head = len - tail_len;
    int result;

    if (head == 0) {
        result = piece_add(fs, handle->session, &handle->piece, data, len, err);
        err->line = 1;
        return result;
    }

    /* The tail first: where it is refused, the lines before it must not have been stored. */
    struct piece next = {.user = handle->base.user};
    result = piece_add(fs, handle->session, &next, tail, tail_len, err);
    if (result < 0)
        err->line = count_lines(data, head) + 1;
    else
        result = append_joined(fs, handle, data, head, batch, err);
    if (result < 0) {
        piece_free(fs, &next);
        return result;
    }
    *stored = true;
    bool any = handle->piece.len > 0;
    for (size_t i = 0; i < head && !any; i++)
        any = data[i] != '\n';
    if (any)
        refused_forget(fs, &handle->refused);
    else
        handle->refused.open = false;
    piece_free(fs, &handle->piece);
    handle->piece = next;
    return 0;
}

/* Appends the piece as it is. What can never be taken is dropped; what may be another time is kept.
 */
static int append_piece(struct fs *fs, struct append_handle *handle, bool *stored)
{
    struct hl_error err = {0};
    struct batch batch = {0};
    struct piece *piece = &handle->piece;
    int result;

    if (piece->at[0] != '{' && refused_has(&handle->refused, piece->at, piece->len)) {
        err = handle->refused.err;
        result = -err.code;
    } else {
        result = append_lines(fs, handle, piece->at, piece->len, &batch, &err);
    }
    if (result < 0) {
        complete_error(&err, result);
        tell(fs, handle, &err);
    } else {
        *stored = true;
        refused_forget(fs, &handle->refused);
    }
    if (result == 0 || !may_pass_later(result)) {
        piece_free(fs, piece);
        handle->head_len = 0;
    }
    return result;
}

/* After a refusal that left the piece: whether this write goes on with it. If not, the piece ends
 * here. */
static int settle_piece(struct fs *fs, struct append_handle *handle, const char *data, size_t len,
                        bool *stored, struct hl_error *err)
{
    size_t first = first_line(data, len);
    size_t both = first < handle->head_len ? first : handle->head_len;

    if (both > 0 && memcmp(data, handle->head, both) != 0) {
        int result = append_piece(fs, handle, stored);
        if (handle->piece.len > 0)
            return hl_fail(err, -result, "the line that was begun before cannot be stored: %s",
                           strerror(-result));
    }
    handle->head_len = 0;
    return 0;
}

/* One write, under the handle's lock. *stored says whether anything was appended. */
static int take(struct fs *fs, struct append_handle *handle, const char *data, size_t len,
                bool *stored, struct batch *batch, struct hl_error *err)
{
    bool part;

    int result = settle_piece(fs, handle, data, len, stored, err);
    if (result < 0)
        return result;
    bool again =
        handle->piece.len == 0 && refused_is_again(&handle->refused, data, first_line(data, len));
    if (again && data[0] != '{')
        return refuse_part(fs, handle, data, len, err);
    result = is_part(handle, data, len, &part, err);
    if (result < 0)
        return result;
    if (part)
        return refuse_part(fs, handle, data, len, err);
    result = take_lines(fs, handle, data, len, stored, batch, err);
    if (result < 0 && again && !may_pass_later(result))
        return refuse_part(fs, handle, data, len, err);
    if (result < 0)
        remember(fs, handle, data, len, result, err);
    return result;
}

/* ---- the handle -------------------------------------------------------------------------------
 */

static ssize_t append_read(struct fs *fs, struct handle *base, char *buffer, size_t size,
                           uint64_t offset)
{
    struct append_handle *handle = (struct append_handle *)base;
    (void)offset;

    pthread_mutex_lock(&handle->lock);
    size_t before = handle->receipts.cost;
    size_t len = answers_read(&handle->receipts, buffer, size);
    receipts_shrank(fs, handle, before);
    pthread_mutex_unlock(&handle->lock);
    return (ssize_t)len;
}

static void append_write(struct fs *fs, struct handle *base, fuse_req_t req, const char *data,
                         size_t len, uint64_t offset, bool sync)
{
    struct append_handle *handle = (struct append_handle *)base;
    struct hl_error err = {0};
    struct batch batch = {0};
    struct parked *parked = NULL;
    bool stored = false;
    (void)offset;

    if (len == 0) {
        fuse_reply_write(req, 0);
        return;
    }
    if (sync) {
        parked = parked_new(fs, req);
        if (!parked) {
            fuse_reply_err(req, ENOMEM);
            return;
        }
    }
    pthread_mutex_lock(&handle->lock);
    int result = take(fs, handle, data, len, &stored, &batch, &err);
    pthread_mutex_unlock(&handle->lock);
    if (result < 0) {
        complete_error(&err, result);
        tell(fs, handle, &err);
    }
    if (result == 0 && stored && parked) {
        parked_sync_write(parked, len);
        return;
    }
    parked_drop(parked);
    if (result < 0)
        fuse_reply_err(req, fs_errno(result));
    else
        fuse_reply_write(req, len);
}

/* A flush is not the end of a line (bash sends one before its first write): only what is complete
 * goes. */
static int append_flush(struct fs *fs, struct handle *base, bool *stored)
{
    struct append_handle *handle = (struct append_handle *)base;
    int result = 0;

    pthread_mutex_lock(&handle->lock);
    if (handle->piece.len > 0 && hl_line_is_object(handle->piece.at, handle->piece.len))
        result = append_piece(fs, handle, stored);
    pthread_mutex_unlock(&handle->lock);
    return result;
}

static void append_release(struct fs *fs, struct handle *base)
{
    struct append_handle *handle = (struct append_handle *)base;
    bool stored = false;

    handle_unlink(fs, base);
    /* Nobody else has the handle any more. What cannot be taken now is refused into last_error. */
    if (handle->piece.len > 0)
        append_piece(fs, handle, &stored);
    piece_free(fs, &handle->piece);
    refused_forget(fs, &handle->refused);
    size_t receipts = handle->receipts.cost;
    answers_free(&handle->receipts);
    receipts_shrank(fs, handle, receipts);
    caller_free(&handle->opener);
    pthread_mutex_destroy(&handle->lock);
    handle_free(fs, base);
}

static const struct handle_type append_type = {
    .read = append_read, .write = append_write, .flush = append_flush, .release = append_release};

int append_open(struct fs *fs, fuse_req_t req, const struct node *node, int flags,
                struct handle **handle)
{
    int result =
        handle_new(fs, sizeof(struct append_handle), &append_type, fuse_req_ctx(req)->uid, handle);
    if (result < 0)
        return result;
    struct append_handle *made = (struct append_handle *)*handle;
    made->piece.user = made->refused.user = made->base.user;
    made->session = node->session;
    made->readable = (flags & O_ACCMODE) == O_RDWR;
    made->umask = fuse_req_ctx(req)->umask;
    caller_from_request(&made->opener, req, node->kind == NODE_ROOT_APPEND);
    pthread_mutex_init(&made->lock, NULL);
    handle_link(fs, *handle);
    return 0;
}
