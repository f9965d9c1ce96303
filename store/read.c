/* read.c - records and session logs. Every frame that is read is checked before a byte of it is
 * used. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core.h"
#include "line.h"

#define LIST_ENTRIES 128U          /* looked up at a time for a listing */
#define GATHER_ENTRIES 512U        /* looked up at a time for a stream: 128 KiB of lines, mostly */
#define GATHER_BYTES (256U * 1024) /* read from a segment at a time, if more than one frame */
#define CURSOR_REACH (64U * 1024)  /* a cursor this near before the wanted byte is still of use */
#define FOLLOW_TURNS 6U            /* looks for what a writer's compaction did, */
#define FOLLOW_PAUSE_NS 20000000   /* with this between them */
#define GATHER_GAP 4096U /* bytes of other sessions that are read over rather than skipped */

static bool frame_matches(const struct frame *frame, uint32_t session,
                          const struct index_entry *entry)
{
    return frame->session == session && frame->seq == entry->seq &&
           frame->length == entry->length &&
           frame->type == (entry->operation ? FRAME_OPERATION : FRAME_EVENT);
}

/* Looks at the frame of an entry in bytes that were read for it. */
static bool check_frame(const struct segment *segment, uint32_t session,
                        const struct index_entry *entry, const uint8_t *bytes, size_t available,
                        struct frame *frame)
{
    return available >= frame_size(entry->length) &&
           frame_parse(bytes, available, segment->salt, position_offset(entry->position), frame,
                       NULL) == FRAME_GOOD &&
           frame_matches(frame, session, entry);
}

static int look_in(struct hl_store *store, const struct segment *segment, uint32_t session,
                   const struct index_entry *entry, uint8_t **buffer, struct frame *frame)
{
    uint64_t size = frame_size(entry->length);
    uint8_t *bytes = malloc(size);
    if (!bytes)
        return -ENOMEM;
    ssize_t n = hl_io_read(store->io, segment->fd, bytes, size, position_offset(entry->position));
    int error = n < 0                                                           ? (int)n
                : check_frame(segment, session, entry, bytes, (size_t)n, frame) ? 0
                                                                                : -EBADMSG;
    if (error < 0)
        free(bytes);
    else
        *buffer = bytes;
    return error;
}

/* Where the entry says, in the segment that has this number now, and if that took the place of
 * another a moment ago, in that. -EBADMSG: it is in neither. */
static int look(struct hl_store *store, uint32_t session, const struct index_entry *entry,
                uint8_t **buffer, struct frame *frame)
{
    struct segment *segment;
    uint32_t number = position_segment(entry->position);
    int error = segment_get(&store->segments, number, &segment);
    if (error < 0)
        return error == -ENOENT ? -EIO : error;
    error = look_in(store, segment, session, entry, buffer, frame);
    segment_put(&store->segments, segment);
    if (error != -EBADMSG || segment_get_replaced(&store->segments, number, &segment) < 0)
        return error;
    error = look_in(store, segment, session, entry, buffer, frame);
    segment_put(&store->segments, segment);
    return error;
}

int read_frame(struct hl_store *store, uint32_t session, struct index_entry *entry,
               uint8_t **buffer, struct frame *frame)
{
    unsigned waited = 0;
    for (unsigned same = 0;;) {
        int error = look(store, session, entry, buffer, frame);
        unsigned turns = store_damage_known(store, entry->position) ? 1 : FOLLOW_TURNS;
        if (store->options.read_only && (error == -EBADMSG || error == -EIO) && waited < turns &&
            follow_is_replaced(store, position_segment(entry->position))) {
            /* the writer may be about to move it */
            const struct timespec pause = {.tv_nsec = waited > 1 ? FOLLOW_PAUSE_NS : 0};
            follow_compaction(store);
            if (waited++ > 1)
                nanosleep(&pause, NULL);
            int found = lookup_seq(store, session, entry->seq, entry);
            if (found < 0)
                return found;
            continue;
        }
        if (error != -EBADMSG)
            return error;
        /* A compaction may have moved it, or dropped it, since the entry was looked up. */
        struct index_entry again;
        error = lookup_seq(store, session, entry->seq, &again);
        if (error < 0)
            return error;
        if (again.position == entry->position && ++same == 2)
            break;
        *entry = again;
    }
    char what[160];
    snprintf(what, sizeof what, "record %" PRIu64 " of session %" PRIu32 " is damaged (segment %x)",
             entry->seq, session, position_segment(entry->position));
    store_damage(store, entry->position, what);
    return -EBADMSG;
}

static void describe(struct hl_record *record, const struct index_entry *entry,
                     const struct frame *frame)
{
    *record = (struct hl_record){
        .seq = entry->seq,
        .length = entry->length,
        .segment = position_segment(entry->position),
        .offset = position_offset(entry->position),
    };
    if (!frame)
        return;
    struct line_fields fields;
    record->crc32 = frame->crc32;
    record->recorded_ms = frame->recorded_ms;
    if (line_read(frame->body, frame->length, &fields) == 0)
        record->ts_ms = fields.ts_ms;
}

int hl_record_find(struct hl_store *store, uint32_t session, uint64_t seq, struct hl_record *record)
{
    struct index_entry entry;
    struct frame frame;
    uint8_t *buffer;
    follow_writer(store);
    int error = lookup_seq(store, session, seq, &entry);
    if (error == 0)
        error = read_frame(store, session, &entry, &buffer, &frame);
    if (error < 0)
        return error;
    describe(record, &entry, &frame);
    free(buffer);
    return 0;
}

int hl_record_length(struct hl_store *store, uint32_t session, uint64_t seq, uint32_t *length)
{
    struct index_entry entry;
    follow_writer(store);
    int error = lookup_seq(store, session, seq, &entry);
    if (error == 0)
        *length = entry.length;
    return error;
}

ssize_t hl_record_read(struct hl_store *store, uint32_t session, uint64_t seq, void *buffer,
                       size_t size, uint64_t offset)
{
    struct index_entry entry;
    struct frame frame;
    uint8_t *bytes;
    follow_writer(store);
    int error = lookup_seq(store, session, seq, &entry);
    if (error == 0)
        error = read_frame(store, session, &entry, &bytes, &frame);
    if (error < 0)
        return error;
    size_t n = offset < frame.length ? frame.length - (size_t)offset : 0;
    if (n > size)
        n = size;
    if (n)
        memcpy(buffer, frame.body + offset, n);
    free(bytes);
    return (ssize_t)n;
}

/* drop_lock is held. */
static int find_extent(struct hl_store *store, uint32_t session, uint64_t from, uint64_t to,
                       uint64_t *begin, uint64_t *end)
{
    struct hl_session found;
    int error = hl_session_by_number(store, session, &found);
    if (error < 0)
        return error;
    *begin = *end = found.bytes;
    if (!found.has_seq || from > to || from > found.last_seq)
        return 0;
    error = lookup_bytes_before(store, session, from, begin);
    if (error == 0 && to < found.last_seq)
        error = lookup_bytes_before(store, session, to + 1, end);
    if (error == 0 && *end < *begin)
        *end = *begin;
    return error;
}

int hl_log_extent(struct hl_store *store, uint32_t session, uint64_t from, uint64_t to,
                  uint64_t *begin, uint64_t *end)
{
    follow_writer(store);
    pthread_rwlock_rdlock(&store->drop_lock);
    int error = find_extent(store, session, from, to, begin, end);
    pthread_rwlock_unlock(&store->drop_lock);
    return error;
}

/* ---- the log of a session ---- */

/* Where the lines of a stream go: the window [offset, offset + size) of it. */
struct window {
    char *out;
    uint64_t offset;
    size_t size, filled;
};

/* The part of a line that begins at `begin` of the stream; text NULL: blanks, a newline at the end.
 */
static void put_line(struct window *window, uint64_t begin, const char *text, size_t length)
{
    uint64_t at = window->offset + window->filled;
    if (at < begin || at >= begin + length)
        return;
    size_t skip = (size_t)(at - begin), n = length - skip;
    if (n > window->size - window->filled)
        n = window->size - window->filled;
    char *out = window->out + window->filled;
    if (text) {
        memcpy(out, text + skip, n);
    } else {
        memset(out, ' ', n);
        if (skip + n == length)
            out[n - 1] = '\n';
    }
    window->filled += n;
}

/* How many of the entries, from the first, can be read in one go; no more than have `wanted` bytes
 * of lines. */
static size_t group(const struct index_entry *entries, size_t count, uint64_t wanted,
                    uint64_t *size)
{
    uint64_t begin = entries[0].position, lines = entries[0].length;
    uint64_t end = begin + frame_size(entries[0].length);
    size_t n = 1;
    while (n < count && lines < wanted && entries[n].position >= end &&
           entries[n].position - end <= GATHER_GAP) {
        uint64_t next = entries[n].position + frame_size(entries[n].length);
        if (position_segment(next) != position_segment(begin) || next - begin > GATHER_BYTES)
            break;
        end = next;
        lines += entries[n++].length;
    }
    *size = end - begin;
    return n;
}

/* Reads what group() found. *bytes is the caller's to free, *segment to be put; returns the bytes
 * read. */
static ssize_t read_group(struct hl_store *store, const struct index_entry *entries, uint64_t size,
                          struct segment **segment, uint8_t **bytes)
{
    int error = segment_get(&store->segments, position_segment(entries[0].position), segment);
    if (error < 0)
        return error == -ENOENT ? -EIO : error;
    ssize_t n = -ENOMEM;
    *bytes = malloc(size);
    if (*bytes)
        n = hl_io_read(store->io, (*segment)->fd, *bytes, size,
                       position_offset(entries[0].position));
    if (n < 0) {
        free(*bytes);
        segment_put(&store->segments, *segment);
    }
    return n;
}

/* ---- listing ---- */

/* Tells the entries, from frames that are read in one go; *more is false when each() wants no more.
 */
static int list_group(struct hl_store *store, uint32_t session, const struct index_entry *entries,
                      size_t count, uint64_t size, hl_record_each *each, void *context, bool *more)
{
    struct segment *segment;
    uint8_t *bytes;
    uint64_t offset = position_offset(entries[0].position);
    ssize_t n = read_group(store, entries, size, &segment, &bytes);
    int error = 0;
    if (n < 0)
        return (int)n;
    for (size_t i = 0; i < count && *more; i++) {
        uint64_t at = position_offset(entries[i].position) - offset;
        size_t available = at < (uint64_t)n ? (size_t)((uint64_t)n - at) : 0;
        struct hl_record record;
        struct index_entry entry = entries[i];
        struct frame frame;
        uint8_t *own = NULL;
        bool good = check_frame(segment, session, &entry, bytes + at, available, &frame);
        if (!good)
            error = read_frame(store, session, &entry, &own, &frame);
        if (error < 0 && error != -EBADMSG && error != -ENOENT)
            break;
        if (error != -ENOENT) { /* that: dropped since the entries were looked up */
            describe(&record, &entry, error == 0 ? &frame : NULL);
            *more = each(context, &record);
        }
        error = 0;
        free(own);
    }
    free(bytes);
    segment_put(&store->segments, segment);
    return error;
}

int hl_record_list(struct hl_store *store, uint32_t session, uint64_t from, bool details,
                   hl_record_each *each, void *context)
{
    struct index_entry entries[LIST_ENTRIES];
    bool more = true;
    follow_writer(store);
    while (more) {
        ssize_t n = lookup_entries(store, session, from, entries, LIST_ENTRIES);
        if (n <= 0)
            return (int)n;
        for (size_t i = 0; i < (size_t)n && more;) {
            uint64_t size;
            size_t count = 1;
            int error = 0;
            if (details) {
                count = group(entries + i, (size_t)n - i, UINT64_MAX, &size);
                error = list_group(store, session, entries + i, count, size, each, context, &more);
            } else {
                struct hl_record record;
                describe(&record, &entries[i], NULL);
                more = each(context, &record);
            }
            if (error < 0)
                return error;
            i += count;
        }
        from = entries[n - 1].seq + 1;
    }
    return 0;
}

/* Where a stream goes on: the record that comes next, and where its line begins in the stream. */
struct place {
    uint64_t seq, begin;
    bool exact; /* if the line was put in part, it is that of this very seq */
};

/* Reads a group and puts its lines; *place moves on with each line that was put whole. */
static int put_group(struct hl_store *store, uint32_t session, const struct index_entry *entries,
                     size_t count, uint64_t size, struct place *place, struct window *window)
{
    struct segment *segment;
    uint8_t *bytes;
    uint64_t offset = position_offset(entries[0].position);
    ssize_t n = read_group(store, entries, size, &segment, &bytes);
    int error = 0;
    if (n < 0)
        return (int)n;
    for (size_t i = 0; i < count && window->filled < window->size; i++) {
        uint64_t at = position_offset(entries[i].position) - offset;
        size_t available = at < (uint64_t)n ? (size_t)((uint64_t)n - at) : 0;
        struct index_entry entry = entries[i];
        struct frame frame;
        uint8_t *own = NULL;
        bool good = check_frame(segment, session, &entry, bytes + at, available, &frame);
        if (!good)
            error = read_frame(store, session, &entry, &own, &frame);
        if (error < 0 && error != -EBADMSG)
            break;
        place->seq = entries[i].seq;
        place->exact = true;
        put_line(window, place->begin, error == 0 ? frame.body : NULL, entries[i].length);
        free(own);
        error = 0;
        if (window->offset + window->filled < place->begin + entries[i].length)
            break;
        place->begin += entries[i].length;
        place->seq = entries[i].seq + 1;
        place->exact = false; /* nothing was put of the next one yet */
    }
    free(bytes);
    segment_put(&store->segments, segment);
    return error;
}

/* Finds the record that holds the window's first byte: at the cursor, near it, or by the index. */
static int locate(struct hl_store *store, uint32_t session, uint64_t offset,
                  const struct hl_cursor *cursor, struct place *place)
{
    if (cursor && (cursor->end == offset || (cursor->offset > 0 && cursor->offset <= offset &&
                                             offset - cursor->offset <= CURSOR_REACH))) {
        *place = (struct place){
            .seq = cursor->place, .begin = cursor->offset, .exact = cursor->end == offset};
        return 0;
    }
    struct index_entry entry;
    int error = lookup_offset(store, session, offset, &entry, &place->begin);
    place->seq = entry.seq;
    place->exact = true;
    return error;
}

/* What goes on in the middle of a line that is not there any more ends it. next: the record found
 * in its place, or NULL. */
static void end_line(struct place *place, const struct index_entry *next, struct window *window)
{
    if (!place->exact || place->begin >= window->offset + window->filled ||
        (next && next->seq == place->seq))
        return;
    window->out[window->filled++] = '\n';
    *place = (struct place){.seq = place->seq + 1, .begin = window->offset + window->filled};
}

/* drop_lock is held. */
static ssize_t read_log(struct hl_store *store, uint32_t session, uint64_t offset, void *buffer,
                        size_t size, struct hl_cursor *cursor)
{
    struct index_entry entries[GATHER_ENTRIES];
    struct window window = {.out = buffer, .offset = offset, .size = size};
    struct place place = {0};
    int error = locate(store, session, offset, cursor, &place);
    if (error < 0)
        return error == -ENOENT ? 0 : error;
    while (error == 0 && window.filled < size) {
        ssize_t n = lookup_entries(store, session, place.seq, entries, GATHER_ENTRIES);
        if (n >= 0)
            end_line(&place, n > 0 ? &entries[0] : NULL, &window);
        if (n <= 0) {
            error = (int)n;
            break;
        }
        for (size_t i = 0; i < (size_t)n && error == 0 && window.filled < size;) {
            uint64_t bytes, wanted = offset + size - place.begin;
            size_t count = group(entries + i, (size_t)n - i, wanted, &bytes);
            error = put_group(store, session, entries + i, count, bytes, &place, &window);
            i += count;
        }
        if (error == -ENOENT)
            error = 0; /* dropped since it was looked up: it is not found again */
    }
    if (cursor && window.filled > 0)
        *cursor = (struct hl_cursor){
            .end = offset + window.filled, .offset = place.begin, .place = place.seq};
    if (error < 0 && window.filled == 0)
        return error;
    return (ssize_t)window.filled;
}

ssize_t hl_log_read(struct hl_store *store, uint32_t session, uint64_t offset, void *buffer,
                    size_t size, struct hl_cursor *cursor)
{
    follow_writer(store);
    pthread_rwlock_rdlock(&store->drop_lock);
    ssize_t n = read_log(store, session, offset, buffer, size, cursor);
    pthread_rwlock_unlock(&store->drop_lock);
    return n;
}
