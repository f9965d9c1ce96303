/*
 * root_reader.c - reading on in the root's log while its segments are rewritten.
 *
 * A reader stands in a segment file, at a frame. If the file is live he reads on in it, then in the
 * next segment. If it was rewritten, his place in the new file is found by comparing the two: what
 * was kept stands there in the same order. So he keeps a descriptor of the file that he stands in,
 * which may be in backup/ by then, or nowhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "rootlog.h"

#define TRIES 16              /* as often a segment may be rewritten between two looks */
#define TRIES_AT_ONCE 2       /* beside a writer: then there is a pause before each, since */
#define TRY_PAUSE_NS 20000000 /* it may be about to lead its index to what it made */

/* Where a reader stands. */
struct root_place {
    uint64_t end; /* what the next read is to ask for */
    int fd;       /* of the file below; -1: it has not begun */
    uint32_t first, last, generation, salt;
    uint64_t before;   /* offset at which the segment's first line is, to the reader */
    uint64_t frame_at; /* the next frame, or the one that was read in part */
    uint64_t line_at;  /* where its line begins */
};

struct hl_root_reader {
    struct hl_store *store;
    pthread_mutex_t lock; /* guards all below */
    struct root_place place;
    struct root_place at_end; /* as it was asked for; fd is -1: it was not */
};

/* ---- the file ---------------------------------------------------------------------------------
 */

static void forget_file(struct hl_store *store, struct root_place *place)
{
    hl_io_close(store->io, place->fd);
    place->fd = -1;
}

static bool stands_in(const struct root_place *place, const struct segment *segment)
{
    return place->fd >= 0 && place->first == segment->first && place->last == segment->last &&
           place->generation == segment->generation && place->salt == segment->salt;
}

/* Stands in this segment from now on. */
static int stand_in(struct hl_store *store, struct root_place *place, const struct segment *segment)
{
    int fd = hl_io_open(store->io, store->logfd, segment->name, O_RDONLY, 0);

    if (fd < 0)
        return fd == -ENOENT ? -EAGAIN : fd; /* it was rewritten just now */
    forget_file(store, place);
    place->fd = fd;
    place->first = segment->first;
    place->last = segment->last;
    place->generation = segment->generation;
    place->salt = segment->salt;
    return 0;
}

/* Whether to try again after an error: a segment was not there under its name. Beside a writer it
 * may have no name at all any more (which a file that is to be opened tells as -EIO). */
static bool try_again(struct hl_store *store, int error, int *tries)
{
    const struct timespec pause = {.tv_nsec = TRY_PAUSE_NS};
    bool beside = store->options.read_only;
    if ((error != -EAGAIN && !(beside && error == -EIO)) || ++*tries >= TRIES)
        return false;
    if (beside && *tries > TRIES_AT_ONCE)
        nanosleep(&pause, NULL);
    if (beside)
        follow_compaction(store);
    return true;
}

/* ---- a place in a file that was rewritten -------------------------------------------------------
 */

/* The records of the old file, by session and seq. */
struct kept {
    uint32_t session;
    bool given; /* it stands before the reader's place */
    uint64_t seq;
};

struct old_file {
    struct kept *at;
    size_t count, capacity;
    struct kept next; /* the first that is not given */
    bool any_next;
    uint64_t first_ms, last_ms; /* of its frames */
};

static int compare(const void *a, const void *b)
{
    const struct kept *x = a, *y = b;

    if (x->session != y->session)
        return x->session < y->session ? -1 : 1;
    return (x->seq > y->seq) - (x->seq < y->seq);
}

static int add_kept(struct old_file *old, const struct frame *frame, bool given)
{
    if (old->count == old->capacity) {
        size_t capacity = old->capacity ? old->capacity * 2 : 4096;
        struct kept *at = realloc(old->at, capacity * sizeof *at);
        if (!at)
            return -ENOMEM;
        old->at = at;
        old->capacity = capacity;
    }
    struct kept *kept = &old->at[old->count++];
    *kept = (struct kept){.session = frame->session, .given = given, .seq = frame->seq};
    if (!given && !old->any_next) {
        old->any_next = true;
        old->next = *kept;
    }
    return 0;
}

/* Calls each() for the good frames of a file; line: it is one with a line. */
static int each_frame(struct hl_store *store, uint32_t first, int fd, uint32_t salt, uint64_t end,
                      int (*each)(void *context, const struct scan_item *item, bool line),
                      void *context)
{
    struct segment segment = {.first = first};
    struct root_read read = {.store = store, .segment = &segment};
    struct scan scan;
    struct scan_item item;
    int error;

    scan_init(&scan, store->io, fd, salt, SEGMENT_HEADER_REGION, end);
    do {
        error = scan_next(&scan, &item);
        if (error == 0 && item.kind == SCAN_FRAME)
            error = each(context, &item, root_has_line(&read, &item));
    } while (error == 0 && (item.kind == SCAN_FRAME || item.kind == SCAN_GAP));
    scan_free(&scan);
    return error;
}

struct reading_old {
    const struct root_place *place;
    struct old_file *old;
};

static int take_old(void *context, const struct scan_item *item, bool line)
{
    struct reading_old *reading = context;

    if (reading->old->last_ms == 0)
        reading->old->first_ms = item->frame.recorded_ms;
    reading->old->last_ms = item->frame.recorded_ms;
    return !line ? 0
                 : add_kept(reading->old, &item->frame, item->offset < reading->place->frame_at);
}

/* What is found on the way through the new file. */
struct reading_new {
    struct old_file *old;
    uint64_t lines; /* bytes of those before */
    bool passed;    /* one that was given */
    bool found;     /* the place is, as far as is known */
    bool in_line;   /* that which comes next in the old file */
    uint64_t frame_at, frame_lines;
};

/* Whether a frame that is none of the old file's came after all of them. Nothing tells if they were
 * all recorded in one millisecond, as it is too: then it is taken for one that came before. */
static bool is_after(const struct old_file *old, const struct frame *frame)
{
    return frame->recorded_ms > old->last_ms ||
           (frame->recorded_ms == old->last_ms && old->first_ms < old->last_ms);
}

/* Goes behind the last of the given ones, to the first of the others; if all are gone to the first
 * that came after them. */
static int take_new(void *context, const struct scan_item *item, bool line)
{
    struct reading_new *reading = context;
    struct old_file *old = reading->old;
    struct kept wanted = {.session = item->frame.session, .seq = item->frame.seq};
    const struct kept *kept =
        old->count ? bsearch(&wanted, old->at, old->count, sizeof wanted, compare) : NULL;

    if (!line)
        return 0;
    if (kept && kept->given) {
        reading->passed = true;
        reading->found = false;
    } else if (!reading->found && (kept || reading->passed || is_after(old, &item->frame))) {
        reading->found = true;
        reading->frame_at = item->offset;
        reading->frame_lines = reading->lines;
        reading->in_line = kept && compare(kept, &old->next) == 0;
    }
    reading->lines += item->frame.length;
    return 0;
}

/* Finds the reader's place in the live segment, another file than the one that he stands in. What
 * of a line is ended by it goes to the window. */
static int translate(struct hl_store *store, struct root_place *place,
                     const struct segment *segment, struct root_read *read)
{
    struct old_file old = {0};
    struct reading_old reading_old = {.place = place, .old = &old};
    struct reading_new reading = {.old = &old};
    uint64_t size;

    int error = hl_io_size(store->io, place->fd, &size);
    if (error == 0)
        error =
            each_frame(store, place->first, place->fd, place->salt, size, take_old, &reading_old);
    if (error == 0 && old.count > 0)
        qsort(old.at, old.count, sizeof *old.at, compare);
    if (error == 0)
        error = each_frame(store, segment->first, segment->fd, segment->salt, segment->size,
                           take_new, &reading);
    free(old.at);
    if (error == 0)
        error = stand_in(store, place, segment);
    if (error < 0)
        return error;
    if (!reading.found) { /* all that is kept was given */
        reading.frame_at = segment->size;
        reading.frame_lines = reading.lines;
    }
    bool begun = place->line_at < place->end;
    if (begun && !(reading.found && reading.in_line)) {
        read->out[read->filled++] = '\n';
        place->end++;
        begun = false;
    }
    if (!begun)
        place->line_at = place->end;
    place->frame_at = reading.frame_at;
    place->before = place->line_at - reading.frame_lines;
    return 0;
}

/* ---- reading on -------------------------------------------------------------------------------
 */

/* The live segment where the place is, taken; the place is in it then. -ENOENT: there is none yet.
 */
static int find_segment(struct hl_store *store, struct root_place *place, struct root_read *read)
{
    int error = place->fd < 0 ? segment_get_next(&store->segments, 0, &read->segment)
                              : segment_get(&store->segments, place->first, &read->segment);
    if (error < 0)
        return place->fd >= 0 && error == -ENOENT ? -EIO : error;
    if (place->fd < 0) {
        place->frame_at = SEGMENT_HEADER_REGION;
        place->before = place->line_at = place->end;
        error = stand_in(store, place, read->segment);
    } else if (!stands_in(place, read->segment)) {
        error = translate(store, place, read->segment, read);
    }
    if (error < 0)
        segment_put(&store->segments, read->segment);
    return error;
}

/* Reads on in the segment where the place is; *more: it is at its end, and stands at the beginning
 * of the next. */
static int read_on(struct hl_store *store, struct root_place *place, struct root_read *read,
                   bool *more)
{
    struct segment *next = NULL;
    bool whole;

    *more = false;
    int error = find_segment(store, place, read);
    if (error < 0)
        return error;
    /* If there is a next one now, this one ends where it ends. */
    error = segment_get_next(&store->segments, read->segment->last, &next);
    pthread_rwlock_rdlock(&store->mem_lock);
    read->total = read->segment->line_bytes;
    read->end = read->segment->size;
    pthread_rwlock_unlock(&store->mem_lock);
    read->before = place->before;
    read->frame_at = place->frame_at;
    read->line_at = place->line_at;
    read->offset = place->end - read->filled;
    if (error == 0 || error == -ENOENT)
        error = root_read_segment(read, &whole);
    place->frame_at = read->frame_at;
    place->line_at = read->line_at;
    place->end = read->offset + read->filled;
    if (error == 0 && whole && next) {
        error = stand_in(store, place, next);
        *more = error == 0;
        if (error == 0) {
            place->frame_at = SEGMENT_HEADER_REGION;
            place->before = place->line_at = place->end;
        }
    }
    segment_put(&store->segments, next);
    segment_put(&store->segments, read->segment);
    return error;
}

static ssize_t go_on(struct hl_root_reader *reader, void *buffer, size_t size)
{
    struct root_place *place = &reader->place;
    struct root_read read = {.store = reader->store, .out = buffer, .size = size};
    bool more = true;
    int error = 0, tries = 0;

    while (more && read.filled < size) {
        error = read_on(reader->store, place, &read, &more);
        if (error == 0)
            tries = 0;
        else
            more = try_again(reader->store, error, &tries);
    }
    if (read.filled > 0 || error == -ENOENT)
        return (ssize_t)read.filled;
    return error == -EAGAIN ? -EIO : error;
}

/* Where byte `offset` of the log lies now. -ENOENT: past the end. */
static int find_place(struct hl_store *store, uint64_t offset, struct root_place *place)
{
    struct segment *segment;
    uint64_t lines;

    pthread_rwlock_rdlock(&store->mem_lock);
    int error = segment_get_by_line(&store->segments, offset, &segment, &place->before);
    pthread_rwlock_unlock(&store->mem_lock);
    if (error < 0)
        return error;
    error = root_find_point(store, segment, offset - place->before, &lines, &place->frame_at);
    if (error == 0)
        error = stand_in(store, place, segment);
    segment_put(&store->segments, segment);
    place->line_at = place->before + lines;
    place->end = offset;
    return error;
}

/* Where the log ends now. -ENOENT: there is none yet. */
static int find_end(struct hl_store *store, struct root_place *place)
{
    struct segment *segment;
    uint64_t lines = 0;

    /* One look at size and line bytes, which an append changes together. */
    pthread_rwlock_rdlock(&store->mem_lock);
    int error = segment_get_last(&store->segments, &segment, &place->end);
    if (error == 0) {
        lines = segment->line_bytes;
        place->frame_at = segment->size;
    }
    pthread_rwlock_unlock(&store->mem_lock);
    if (error < 0)
        return error;
    place->line_at = place->end;
    place->before = place->end - lines;
    error = stand_in(store, place, segment);
    segment_put(&store->segments, segment);
    return error;
}

/* Moves a place from one to another, which has none then. */
static void hand_over(struct hl_store *store, struct root_place *from, struct root_place *to)
{
    forget_file(store, to);
    *to = *from;
    from->fd = -1;
}

/* ---- the reader -------------------------------------------------------------------------------
 */

int hl_root_reader_open(struct hl_store *store, struct hl_root_reader **reader)
{
    struct hl_root_reader *made = calloc(1, sizeof *made);

    if (!made)
        return -ENOMEM;
    made->store = store;
    made->place.fd = made->at_end.fd = -1;
    pthread_mutex_init(&made->lock, NULL);
    *reader = made;
    return 0;
}

void hl_root_reader_close(struct hl_root_reader *reader)
{
    if (!reader)
        return;
    forget_file(reader->store, &reader->place);
    forget_file(reader->store, &reader->at_end);
    pthread_mutex_destroy(&reader->lock);
    free(reader);
}

static bool ends_at(const struct root_place *place, uint64_t offset)
{
    return place->end == offset && (place->fd >= 0 || offset == 0);
}

bool hl_root_reader_goes_on(struct hl_root_reader *reader, uint64_t offset)
{
    pthread_mutex_lock(&reader->lock);
    bool goes_on = ends_at(&reader->place, offset) ||
                   (reader->at_end.fd >= 0 && ends_at(&reader->at_end, offset));
    pthread_mutex_unlock(&reader->lock);
    return goes_on;
}

/* Both functions below may meet a segment that is rewritten between two looks, and look again. */

int hl_root_reader_end(struct hl_root_reader *reader, uint64_t *size)
{
    struct hl_store *store = reader->store;
    struct root_place place = {.fd = -1};
    int error, tries = 0;

    follow_writer(store);
    do
        error = find_end(store, &place);
    while (try_again(store, error, &tries));
    *size = error == 0 ? place.end : 0;
    if (error < 0)
        return error == -ENOENT ? 0 : error;
    pthread_mutex_lock(&reader->lock);
    hand_over(store, &place, &reader->at_end);
    pthread_mutex_unlock(&reader->lock);
    return 0;
}

ssize_t hl_root_reader_read(struct hl_root_reader *reader, uint64_t offset, void *buffer,
                            size_t size)
{
    struct hl_store *store = reader->store;
    struct root_place place = {.fd = -1};
    ssize_t got = 0;
    int error = 0, tries = 0;

    follow_writer(store);
    pthread_mutex_lock(&reader->lock);
    if (!ends_at(&reader->place, offset)) {
        if (reader->at_end.fd >= 0 && ends_at(&reader->at_end, offset)) {
            hand_over(store, &reader->at_end, &place);
        } else {
            do
                error = find_place(store, offset, &place);
            while (try_again(store, error, &tries));
        }
        if (error == 0)
            hand_over(store, &place, &reader->place);
    }
    if (error == 0)
        got = go_on(reader, buffer, size);
    pthread_mutex_unlock(&reader->lock);
    forget_file(store, &place);
    return error == 0 || error == -ENOENT ? got : error == -EAGAIN ? -EIO : error;
}
