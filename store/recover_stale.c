/*
 * recover_stale.c - which of several segment files counts when they hold the same numbers.
 *
 * A compaction puts a file of a higher generation beside those that it was made of, and moves them
 * to backup/ later. So a file that lies inside a sealed and sound one of a higher generation is
 * stale, also when it was moved and somebody copied it back. "Sealed and sound" is looked at, not
 * believed: every frame is checked, and the seal against them. A file that is not sound gives way
 * to those inside it, if they hold all its numbers, and is set aside; if they do not, it holds
 * records that nothing else does, so it counts, damage and all, and they are left where they are.
 * What no compaction leaves behind - ranges that overlap in part, or by the same generation - is
 * refused by name.
 *
 * Deciding changes nothing on the disk; files are moved once all that count were found to be good
 * to open.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "recover.h"
#include "scan.h"
#include "seal.h"

#define COMPARE_BYTES (64U * 1024)
#define NAMES_TRIED 10000U

/* ---- sealed and sound ---- */

struct tally {
    struct seal seal; /* what it should say */
    bool sealed;      /* the last frame was a seal that says so */
    const char *fault;
};

static void tally_item(struct tally *tally, const struct scan_item *item)
{
    struct seal said;
    const struct frame *frame = &item->frame;
    if (item->kind != SCAN_FRAME) {
        tally->fault = "bytes in it are damaged";
    } else if (tally->sealed) {
        tally->fault = "it goes on behind its seal";
    } else if (frame_is_record(frame->type)) {
        tally->seal.records++;
        tally->seal.line_bytes += frame->length;
    } else if (frame->type == FRAME_SEAL) {
        tally->sealed = true;
        if (seal_decode(frame->body, frame->length, &said) < 0 || said.end != item->offset ||
            said.records != tally->seal.records || said.line_bytes != tally->seal.line_bytes)
            tally->fault = "its seal says something else than its frames";
    }
}

int recover_examine(struct hl_store *store, const struct segment *segment, const char **fault)
{
    struct tally tally = {.sealed = false};
    struct scan scan;
    struct scan_item item = {.kind = SCAN_FRAME};
    uint64_t size;
    int error = hl_io_size(store->io, segment->fd, &size);
    if (error < 0)
        return error;
    if (size > UINT32_MAX) {
        *fault = "it is larger than a segment can be";
        return 0;
    }
    scan_init(&scan, store->io, segment->fd, segment->salt, SEGMENT_HEADER_REGION, size);
    while (error == 0 && !tally.fault && item.kind != SCAN_END) {
        error = scan_next(&scan, &item);
        if (error == 0 && item.kind != SCAN_END)
            tally_item(&tally, &item);
    }
    scan_free(&scan);
    *fault = tally.fault ? tally.fault : tally.sealed ? NULL : "it has no seal";
    return error;
}

/* ---- deciding ---- */

static bool overlap(const struct segment_file *a, const struct segment_file *b)
{
    return a->first <= b->last && b->first <= a->last;
}

static bool inside(const struct segment_file *inner, const struct segment_file *outer)
{
    return inner->first >= outer->first && inner->last <= outer->last &&
           inner->generation < outer->generation;
}

static int refuse_overlap(const struct segment_file *a, const struct segment_file *b,
                          struct hl_error *err)
{
    return hl_fail(err, EBADMSG,
                   "segments %s and %s hold the same numbers, and neither replaces the other: move "
                   "one of them away",
                   a->name, b->name);
}

/* Whether the files behind this one, those of lower generations, hold all of its numbers. */
static bool is_replaceable(const struct segment_file *file, const struct segment_file *lower,
                           size_t count)
{
    uint64_t next = file->first, before = 0;
    while (next <= file->last && next != before) {
        before = next;
        for (size_t i = 0; i < count; i++) {
            if (lower[i].readable && inside(&lower[i], file) && lower[i].first <= next &&
                lower[i].last >= next)
                next = (uint64_t)lower[i].last + 1;
        }
    }
    return next > file->last;
}

/* Reads the header. One that cannot be read at all is no error here. */
static int look_at(struct hl_store *store, struct segment_file *file, struct segment **segment,
                   struct hl_error *err)
{
    struct hl_error why = {0};
    int error = segment_load(&store->segments, file->name, segment, &why);
    file->readable = error == 0;
    if (error == -EBADMSG || error == -ENODATA)
        return 0;
    if (error == -ENOENT && store->retries > 0)
        return -EAGAIN; /* its writer goes on */
    return error < 0 ? hl_fail(err, -error, "%s", why.text[0] ? why.text : strerror(-error)) : 0;
}

/* A file that something of a lower generation, among the `count` files behind it, lies inside. */
static int judge(struct hl_store *store, struct segment_file *file, size_t count,
                 struct hl_error *err)
{
    const char *fault = "both its headers are damaged";
    if (file->readable) {
        struct segment *segment;
        int error = look_at(store, file, &segment, err);
        if (error < 0)
            return error;
        error = file->readable ? recover_examine(store, segment, &fault) : 0;
        if (file->readable)
            segment_free(&store->segments, segment);
        if (error < 0)
            return hl_fail(err, -error, "cannot read segment %s: %s", file->name, strerror(-error));
    }
    if (!fault)
        return 0;
    file->fault = fault;
    if (is_replaceable(file, file + 1, count))
        file->fate = SEGMENT_UNSOUND;
    else if (!file->readable)
        file->fate = SEGMENT_LEFT;
    return 0;
}

/* Files of one heap, ordered by generation, the highest first. */
static int decide(struct hl_store *store, struct segment_file *files, size_t count,
                  struct hl_error *err)
{
    for (size_t i = 0; i < count; i++) {
        struct segment_file *file = &files[i];
        bool covers = false;
        for (size_t k = 0; k < i && file->fate == SEGMENT_LIVE; k++) {
            if (files[k].fate != SEGMENT_LIVE || !overlap(&files[k], file))
                continue;
            if (!inside(file, &files[k]))
                return refuse_overlap(&files[k], file, err);
            file->fate = files[k].fault ? SEGMENT_LEFT : SEGMENT_STALE;
            memcpy(file->over, files[k].name, sizeof file->over);
        }
        for (size_t k = i + 1; k < count && file->fate == SEGMENT_LIVE; k++)
            covers = covers || overlap(file, &files[k]);
        int error = covers ? judge(store, file, count - i - 1, err) : 0;
        if (error < 0)
            return error;
    }
    return 0;
}

/* All that can be read must be of one store, or nothing can be said of any of them. */
static int compare_stores(struct hl_store *store, struct segment_file *files, size_t count,
                          struct hl_error *err)
{
    uint8_t id[16];
    const char *known = NULL;
    for (size_t i = 0; i < count; i++) {
        struct segment *segment;
        int error = look_at(store, &files[i], &segment, err);
        if (error < 0)
            return error;
        if (!files[i].readable)
            continue;
        bool other = known && memcmp(id, segment->store_id, sizeof id) != 0;
        memcpy(id, segment->store_id, sizeof id);
        segment_free(&store->segments, segment);
        if (other)
            return hl_fail(err, EINVAL,
                           "segments %s and %s hold the same numbers, and one belongs "
                           "to another store",
                           known, files[i].name);
        known = files[i].name;
    }
    return 0;
}

static int by_number(const void *a, const void *b)
{
    const struct segment_file *x = a, *y = b;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    return x->generation < y->generation ? 1 : x->generation > y->generation ? -1 : 0;
}

static int by_generation(const void *a, const void *b)
{
    const struct segment_file *x = a, *y = b;
    if (x->generation != y->generation)
        return x->generation < y->generation ? 1 : -1;
    return x->first < y->first ? -1 : x->first > y->first ? 1 : 0;
}

int recover_sort_out(struct hl_store *store, struct segment_file *files, size_t count,
                     struct hl_error *err)
{
    int error = 0;
    if (count > 0)
        qsort(files, count, sizeof *files, by_number);
    for (size_t i = 0, end; i < count && error == 0; i = end) {
        uint32_t last = files[i].last;
        for (end = i + 1; end < count && files[end].first <= last; end++)
            last = files[end].last > last ? files[end].last : last;
        if (end == i + 1)
            continue;
        error = compare_stores(store, files + i, end - i, err);
        qsort(files + i, end - i, sizeof *files, by_generation);
        if (error == 0)
            error = decide(store, files + i, end - i, err);
        qsort(files + i, end - i, sizeof *files, by_number);
    }
    return error;
}

/* ---- moving ---- */

/* Whether two files hold the same bytes. 1, 0, or a negative errno. */
static int same_bytes(struct hl_store *store, int a, int b)
{
    uint64_t size = 0, size_b = 0;
    int same = hl_io_size(store->io, a, &size);
    if (same == 0)
        same = hl_io_size(store->io, b, &size_b);
    if (same < 0 || size != size_b)
        return same;
    uint8_t *buffer = malloc((size_t)2 * COMPARE_BYTES);
    if (!buffer)
        return -ENOMEM;
    same = 1;
    for (uint64_t done = 0; same == 1 && done < size; done += COMPARE_BYTES) {
        ssize_t n = hl_io_read(store->io, a, buffer, COMPARE_BYTES, done);
        ssize_t m = hl_io_read(store->io, b, buffer + COMPARE_BYTES, COMPARE_BYTES, done);
        if (n < 0 || m < 0)
            same = (int)(n < 0 ? n : m);
        else
            same = n == m && memcmp(buffer, buffer + COMPARE_BYTES, (size_t)n) == 0;
    }
    free(buffer);
    return same;
}

/* Finds a name in `to` that is free, or under which these bytes are kept already (*kept, and they
 * are synced then). */
static int find_name(struct hl_store *store, int fd, int to, const char *name,
                     char found[SEGMENT_NAME_MAX + 16], bool *kept)
{
    *kept = false;
    snprintf(found, SEGMENT_NAME_MAX + 16, "%s", name);
    for (unsigned again = 1; again < NAMES_TRIED; again++) {
        int there = hl_io_open(store->io, to, found, O_RDONLY, 0);
        if (there == -ENOENT)
            return 0;
        int same = there < 0 ? there : same_bytes(store, fd, there);
        int error = same == 1 ? hl_io_fsync(store->io, there) : 0;
        hl_io_close(store->io, there);
        if (error < 0)
            return error;
        if (same != 0) {
            *kept = same == 1;
            return same < 0 ? same : 0;
        }
        snprintf(found, SEGMENT_NAME_MAX + 16, "%s.%u", name, again);
    }
    return -EEXIST;
}

static int put_note(struct hl_store *store, int to, const char *name, const char *why)
{
    char path[SEGMENT_NAME_MAX + 32], note[300];
    snprintf(path, sizeof path, "%s.note", name);
    int len = snprintf(note, sizeof note, "segment: %s\nfound_ms: %" PRIu64 "\nwhy: %s\n", name,
                       now_ms(), why);
    return hl_io_put_file(store->io, to, path, note, (size_t)len);
}

/* Moves the file from log/ to the directory; a note goes before it if `why` is given. */
static int move_one(struct hl_store *store, const char *name, int to, const char *why)
{
    char found[SEGMENT_NAME_MAX + 16];
    bool kept;
    int fd = hl_io_open(store->io, store->logfd, name, O_RDONLY, 0);
    if (fd < 0)
        return fd;
    int error = find_name(store, fd, to, name, found, &kept);
    if (error == 0 && !kept) /* whoever copied it back may not have synced it */
        error = hl_io_fsync(store->io, fd);
    hl_io_close(store->io, fd);
    if (error == 0 && !kept && why)
        error = put_note(store, to, found, why);
    if (error < 0)
        return error;
    /* Not a rename onto it: between two names of one file that does nothing. */
    if (kept)
        return store->io->unlink(store->io->context, store->logfd, name, 0);
    return store->io->rename(store->io->context, store->logfd, name, to, found);
}

/* What a full disk, or a directory that is not ours to change, keeps us from doing now is done at
 * another opening: the file is passed over by each. */
static bool can_wait(int error)
{
    return error == -ENOSPC || error == -EDQUOT || error == -EXDEV || error == -EACCES ||
           error == -EPERM || error == -EROFS;
}

int recover_move_away(struct hl_store *store, const char *name, const char *directory,
                      const char *why)
{
    int to = hl_io_make_dir(store->io, store->dirfd, directory);
    int error = to < 0 ? to : move_one(store, name, to, why);
    if (error == 0)
        error = hl_io_fsync(store->io, to);
    if (error == 0)
        error = hl_io_fsync(store->io, store->logfd);
    hl_io_close(store->io, to);
    if (!can_wait(error))
        return error;
    store_report(store, HL_WARNING, "segment %s is not used, but cannot be moved to %s/ now: %s",
                 name, directory, strerror(-error));
    return 0;
}

static int act_on(struct hl_store *store, const struct segment_file *file)
{
    char what[300];
    bool writer = !store->options.read_only && !store->shadow;
    switch (file->fate) {
    case SEGMENT_LIVE:
        return 0;
    case SEGMENT_STALE:
        if (writer)
            store_report(store, HL_INFO, "segment %s is replaced by %s: it goes to backup/",
                         file->name, file->over);
        return writer ? recover_move_away(store, file->name, "backup", NULL) : 0;
    case SEGMENT_UNSOUND:
        snprintf(what, sizeof what,
                 "segment %s is not used (%s): the segments that it was made of are, and it goes "
                 "to quarantine/",
                 file->name, file->fault);
        store_damage(store, 0, what);
        return writer ? recover_move_away(store, file->name, "quarantine", file->fault) : 0;
    default:
        if (file->over[0])
            snprintf(what, sizeof what,
                     "segment %s is left alone: it lies inside %s, which is damaged but holds "
                     "numbers that nothing else does",
                     file->name, file->over);
        else
            snprintf(what, sizeof what,
                     "segment %s: %s; it is left alone, and what no other segment holds of its "
                     "records is missing",
                     file->name, file->fault);
        store_damage(store, 0, what);
        return 0;
    }
}

int recover_set_stale_aside(struct hl_store *store, const struct segment_file *files, size_t count,
                            struct hl_error *err)
{
    bool writer = !store->options.read_only && !store->shadow, synced = false;
    for (size_t i = 0; i < count; i++) {
        const struct segment_file *file = &files[i];
        bool moves = writer && (file->fate == SEGMENT_STALE || file->fate == SEGMENT_UNSOUND);
        /* What counts in its place must have its name for good: who made that may have died before.
         */
        int error = moves && !synced ? hl_io_fsync(store->io, store->logfd) : 0;
        synced = synced || moves;
        if (error == 0)
            error = act_on(store, file);
        if (error < 0)
            return hl_fail(err, -error, "cannot move segment %s out of log/: %s", file->name,
                           strerror(-error));
    }
    return 0;
}
