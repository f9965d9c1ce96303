/*
 * rootlog.c - the log of the whole store: the lines of all segments in order of arrival.
 *
 * A byte offset leads to a segment (each knows how many line bytes it adds), from there to the
 * nearest point before it (one every POINT_SPACING), and from there the frames are scanned.
 *
 * The lengths that the index counted stay true when a frame is damaged later: the bytes that its
 * line had are blanks then, as many as are missing to what the segment is known to hold.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core.h"
#include "rootlog.h"

#define CURSOR_REACH (256U * 1024)

int hl_root_log_size(struct hl_store *store, uint64_t *size)
{
    follow_writer(store);
    pthread_rwlock_rdlock(&store->mem_lock);
    *size = store->bytes;
    pthread_rwlock_unlock(&store->mem_lock);
    return 0;
}

bool root_has_line(const struct root_read *read, const struct scan_item *item)
{
    return frame_is_record(item->frame.type) &&
           !store_is_void(read->store, position_make(read->segment->first, item->offset));
}

static void table_point(const struct memtable *table, uint32_t segment, uint64_t line_offset,
                        uint64_t *line_bytes, uint64_t *file_offset)
{
    for (size_t i = 0; table && i < table->point_count; i++) {
        const struct mem_point *point = &table->points[i];
        if (point->segment == segment && point->line_bytes <= line_offset &&
            point->line_bytes >= *line_bytes) {
            *line_bytes = point->line_bytes;
            *file_offset = point->offset;
        }
    }
}

/* The index's point, if what it lists is this very file: while a compaction puts another in its
 * place it may not be. -ENOENT. */
static int indexed_point(struct index_view *view, const struct segment *segment,
                         uint64_t line_offset, uint64_t *line_bytes, uint64_t *file_offset)
{
    struct index_segment listed;
    int error = index_segment_next(view, segment->first - 1, &listed);
    if (error == 0 && (listed.first != segment->first || listed.salt != segment->salt))
        error = -ENOENT;
    return error == 0 ? index_find_point(view, segment->first, line_offset, line_bytes, file_offset)
                      : error;
}

int root_find_point(struct hl_store *store, const struct segment *segment, uint64_t line_offset,
                    uint64_t *line_bytes, uint64_t *file_offset)
{
    *line_bytes = 0;
    *file_offset = SEGMENT_HEADER_REGION;
    struct index_view *view;
    int error = lookup_view(store, &view);
    if (error == 0) {
        uint64_t lines, file;
        error = indexed_point(view, segment, line_offset, &lines, &file);
        if (error == 0 && lines <= line_offset && file >= SEGMENT_HEADER_REGION) {
            *line_bytes = lines;
            *file_offset = file;
        }
        error = lookup_view_end(store, view, error);
    }
    if (error < 0 && error != -ENOENT)
        return error;
    pthread_rwlock_rdlock(&store->mem_lock);
    table_point(store->frozen, segment->first, line_offset, line_bytes, file_offset);
    table_point(store->table, segment->first, line_offset, line_bytes, file_offset);
    pthread_rwlock_unlock(&store->mem_lock);
    return 0;
}

/* Finds segment and place for the next byte. -ENOENT: past the end. */
static int begin_segment(struct root_read *read, const struct hl_cursor *cursor)
{
    struct hl_store *store = read->store;
    uint64_t wanted = read->offset + read->filled;
    /* One look at size and line bytes, which an append changes together. */
    pthread_rwlock_rdlock(&store->mem_lock);
    if (read->age != atomic_load(&store->rewrites) && read->filled > 0) {
        pthread_rwlock_unlock(&store->mem_lock);
        return -ENOENT; /* where the next byte is now is another question */
    }
    read->age = atomic_load(&store->rewrites);
    int error = segment_get_by_line(&store->segments, wanted, &read->segment, &read->before);
    if (error == 0) {
        read->total = read->segment->line_bytes;
        read->end = read->segment->size;
    }
    pthread_rwlock_unlock(&store->mem_lock);
    if (error < 0)
        return error;
    if (cursor && cursor->age == read->age && cursor->offset <= wanted &&
        wanted - cursor->offset <= CURSOR_REACH && cursor->place != 0 &&
        position_segment(cursor->place) == read->segment->first) {
        read->frame_at = position_offset(cursor->place);
        read->line_at = cursor->offset;
        return 0;
    }
    uint64_t lines;
    error = root_find_point(store, read->segment, wanted - read->before, &lines, &read->frame_at);
    read->line_at = read->before + lines;
    return error;
}

/* Puts what of a line falls into the window; text NULL: blanks. True when the line was used up. */
static bool put(struct root_read *read, const char *text, uint64_t length)
{
    uint64_t at = read->offset + read->filled, end = read->line_at + length;
    if (at < end) {
        uint64_t skip = at - read->line_at;
        size_t n = read->size - read->filled;
        if (n > length - skip)
            n = (size_t)(length - skip);
        if (text) {
            memcpy(read->out + read->filled, text + skip, n);
        } else {
            memset(read->out + read->filled, ' ', n);
            if (n > 0 && skip + n == length)
                read->out[read->filled + n - 1] = '\n';
        }
        read->filled += n;
        if (read->offset + read->filled < end)
            return false;
    }
    read->line_at = end;
    return true;
}

/* What the headers in damaged bytes say of the lines that stood there, if they lead from one to the
 * next up to the end. They are not checked, so this is a guess: it only helps to share out what is
 * missing. */
static int guess_lines(struct root_read *read, uint64_t at, uint64_t end, bool *guessed,
                       uint64_t *bytes)
{
    *bytes = 0;
    *guessed = false;
    while (at < end) {
        struct frame_header header;
        uint8_t stored[FRAME_HEADER_SIZE];
        ssize_t n = hl_io_read(read->store->io, read->segment->fd, stored, sizeof stored, at);
        if (n < 0)
            return (int)n;
        if (n != (ssize_t)sizeof stored || !frame_plausible(stored))
            return 0;
        memcpy(&header, stored, sizeof header);
        uint16_t type = le16toh(header.type);
        uint64_t size = frame_size(le32toh(header.length));
        if (size > end - at)
            return 0;
        if (frame_is_record(type))
            *bytes += le32toh(header.length);
        at += size;
    }
    *guessed = true;
    return 0;
}

/* The first point found behind a place in the segment, or the segment's end. */
static int point_behind(struct root_read *read, uint64_t behind, uint64_t *lines, uint64_t *at)
{
    for (uint64_t reach = POINT_SPACING / 16;; reach *= 2) {
        uint64_t wanted = read->line_at - read->before + reach;
        if (wanted >= read->total)
            break;
        int error = root_find_point(read->store, read->segment, wanted, lines, at);
        if (error < 0)
            return error;
        if (*at >= behind && *at < read->end && *lines >= read->line_at - read->before)
            return 0;
    }
    *lines = read->total;
    *at = read->end;
    return 0;
}

/*
 * How many line bytes are missing where damage stands, from `begin` to `behind`. Up to the next
 * point the index knows how many there were; those that are found before and behind are not
 * missing. If there is more damage before that point, what is missing is shared out between its
 * places by what the headers there say, and the last takes the rest: so behind the point every line
 * is where it always was.
 */
static int missing_bytes(struct root_read *read, uint64_t begin, uint64_t behind, uint64_t *missing)
{
    struct scan scan;
    struct scan_item item = {.kind = SCAN_END};
    uint64_t known, limit, own, other, later = 0, found = read->line_at - read->before;
    bool guessed, more = false;
    int error = point_behind(read, behind, &known, &limit);
    if (error < 0)
        return error;
    scan_init(&scan, read->store->io, read->segment->fd, read->segment->salt, behind, limit);
    do {
        error = scan_next(&scan, &item);
        if (error < 0)
            break;
        if (item.kind == SCAN_FRAME) {
            found += root_has_line(read, &item) ? item.frame.length : 0;
        } else if (item.kind == SCAN_GAP || item.offset < limit) {
            uint64_t end = item.kind == SCAN_GAP ? item.offset + item.size : limit;
            more = true;
            error = guess_lines(read, item.offset, end, &guessed, &other);
            later += guessed ? other : 0;
        }
    } while (error == 0 && (item.kind == SCAN_FRAME || item.kind == SCAN_GAP));
    scan_free(&scan);
    *missing = found < known ? known - found : 0;
    if (error < 0 || !more)
        return error;
    error = guess_lines(read, begin, behind, &guessed, &own);
    if (guessed && own < *missing)
        *missing = own;
    else if (!guessed)
        *missing = *missing > later ? *missing - later : 0;
    return error;
}

int root_read_segment(struct root_read *read, bool *whole)
{
    struct scan scan;
    struct scan_item item;
    int error = 0;
    *whole = true;
    scan_init(&scan, read->store->io, read->segment->fd, read->segment->salt, read->frame_at,
              read->end);
    while (*whole) {
        error = scan_next(&scan, &item);
        if (error < 0)
            break;
        if (item.kind == SCAN_FRAME) {
            if (root_has_line(read, &item))
                *whole = put(read, item.frame.body, item.frame.length);
        } else {
            uint64_t missing, behind = item.kind == SCAN_END ? read->end : item.offset + item.size;
            error = missing_bytes(read, item.offset, behind, &missing);
            if (error < 0)
                break;
            if (item.kind != SCAN_END || missing > 0) {
                char what[128];
                snprintf(what, sizeof what, "damage in segment %s", read->segment->name);
                store_damage(read->store, position_make(read->segment->first, item.offset), what);
            }
            if (missing > 0)
                *whole = put(read, NULL, missing);
        }
        if (*whole)
            read->frame_at = item.offset + item.size;
        if (item.kind == SCAN_END)
            break;
    }
    scan_free(&scan);
    return error;
}

ssize_t hl_root_log_read(struct hl_store *store, uint64_t offset, void *buffer, size_t size,
                         struct hl_cursor *cursor)
{
    struct root_read read = {.store = store, .out = buffer, .offset = offset, .size = size};
    const struct hl_cursor *hint = cursor;
    struct hl_cursor reached = {0};
    int error = 0;
    follow_writer(store);
    while (error == 0 && read.filled < size) {
        bool whole;
        error = begin_segment(&read, hint);
        if (error < 0)
            break;
        uint64_t wanted = offset + read.filled;
        error = root_read_segment(&read, &whole);
        reached.offset = read.line_at;
        reached.place = position_make(read.segment->first, read.frame_at);
        reached.age = read.age;
        segment_put(&store->segments, read.segment);
        if (whole && error == 0 && offset + read.filled == wanted)
            error =
                -EIO; /* a segment that has not what it is known to hold, and no end: never loop */
        hint = NULL;
    }
    if (cursor && read.filled > 0)
        *cursor = reached;
    if (read.filled > 0 || error == -ENOENT)
        return (ssize_t)read.filled;
    return error;
}
