/* segment.c - segment files: names, headers, and the set of live ones. */
#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "frame.h"

void segment_name_format(char name[SEGMENT_NAME_MAX], uint32_t first, uint32_t last,
                         uint32_t generation)
{
    snprintf(name, SEGMENT_NAME_MAX, "%08x-%08x.%x.seg", first, last, generation);
}

bool segment_name_parse(const char *name, uint32_t *first, uint32_t *last, uint32_t *generation)
{
    char again[SEGMENT_NAME_MAX];
    if (sscanf(name, "%8x-%8x.%8x.seg", first, last, generation) != 3)
        return false;
    segment_name_format(again, *first, *last, *generation);
    return strcmp(name, again) == 0 && *first > 0 && *first <= *last;
}

void segment_set_init(struct segment_set *set, const struct hl_io *io, int dirfd, bool writable)
{
    *set = (struct segment_set){.io = io, .dirfd = dirfd, .writable = writable};
    pthread_mutex_init(&set->lock, NULL);
}

void segment_free(struct segment_set *set, struct segment *segment)
{
    if (!segment)
        return;
    hl_io_close(set->io, segment->fd);
    free(segment);
}

void segment_set_free(struct segment_set *set)
{
    segment_set_forget_replaced(set);
    for (size_t i = 0; i < set->count; i++)
        segment_free(set, set->at[i]); /* NULL: it was handed on */
    free(set->at);
    pthread_mutex_destroy(&set->lock);
    *set = (struct segment_set){.dirfd = -1};
}

static int open_file(const struct segment_set *set, const char *name)
{
    return hl_io_open(set->io, set->dirfd, name, set->writable ? O_RDWR : O_RDONLY, 0);
}

/* Takes the fields of one good header into the segment; they must agree with its name. */
static int take_header(struct segment *segment, const uint8_t *bytes, struct hl_error *err)
{
    struct segment_header stored, header;
    uint32_t unknown = 0;
    memcpy(&stored, bytes, sizeof stored);
    int error = header_parse(&stored, &header, &unknown);
    if (error == -ENOTSUP)
        return hl_fail(err, ENOTSUP,
                       header.version != SEGMENT_VERSION
                           ? "segment %s has format version %u, which this version does not know"
                           : "segment %s uses incompatible features %#x, which this version does "
                             "not know",
                       segment->name, unknown);
    if (error < 0)
        return error;
    if (header.first != segment->first || header.last != segment->last ||
        header.generation != segment->generation)
        return hl_fail(err, EBADMSG, "segment %s holds the header of another", segment->name);
    segment->salt = header.salt;
    segment->created_ms = header.created_ms;
    memcpy(segment->store_id, header.store_id, sizeof segment->store_id);
    return 0;
}

static bool is_header(const uint8_t *bytes)
{
    struct segment_header stored, header;
    uint32_t unknown;
    memcpy(&stored, bytes, sizeof stored);
    return header_parse(&stored, &header, &unknown) == 0;
}

static int read_header(const struct segment_set *set, struct segment *segment, struct hl_error *err)
{
    uint8_t region[SEGMENT_HEADER_REGION] = {0};
    ssize_t n = hl_io_read(set->io, segment->fd, region, sizeof region, 0);
    if (n < 0)
        return hl_fail(err, (int)-n, "cannot read the header of segment %s: %s", segment->name,
                       strerror((int)-n));
    uint64_t size;
    int error = hl_io_size(set->io, segment->fd, &size);
    if (error < 0)
        return error;
    int first = take_header(segment, region + SEGMENT_HEADER_FIRST, err);
    if (first == -ENOTSUP)
        return first;
    int second = 0;
    if (first == 0) {
        struct segment_header copy, ignored;
        uint32_t unknown;
        memcpy(&copy, region + SEGMENT_HEADER_SECOND, sizeof copy);
        second = header_parse(&copy, &ignored, &unknown);
    } else {
        second = take_header(segment, region + SEGMENT_HEADER_SECOND, err);
    }
    segment->header_damaged = first < 0 || second < 0;
    if (first == 0 || second == 0)
        return 0;
    /* Nothing is written behind a header before it is synced: whatever of it is there, the file
     * holds nothing. But another's header, whole, was not left by a power cut. */
    if (size <= sizeof region && !is_header(region + SEGMENT_HEADER_FIRST) &&
        !is_header(region + SEGMENT_HEADER_SECOND))
        return -ENODATA;
    return hl_fail(err, EBADMSG, "both headers of segment %s are damaged", segment->name);
}

int segment_load(struct segment_set *set, const char *name, struct segment **segment,
                 struct hl_error *err)
{
    struct segment *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->fd = -1;
    int error = -EINVAL;
    if (!segment_name_parse(name, &s->first, &s->last, &s->generation))
        goto fail;
    segment_name_format(s->name, s->first, s->last, s->generation);
    error = s->fd = open_file(set, name);
    if (s->fd < 0) {
        hl_fail(err, -error, "cannot open segment %s: %s", name, strerror(-error));
        goto fail;
    }
    error = read_header(set, s, err);
    if (error < 0)
        goto fail;
    s->size = SEGMENT_HEADER_REGION;
    *segment = s;
    return 0;
fail:
    segment_free(set, s);
    return error;
}

void segment_header_region(const struct segment *segment, uint8_t region[SEGMENT_HEADER_REGION])
{
    struct segment_header header = {
        .first = segment->first,
        .last = segment->last,
        .generation = segment->generation,
        .salt = segment->salt,
        .created_ms = segment->created_ms,
    };
    memcpy(header.store_id, segment->store_id, sizeof header.store_id);
    header_finish(&header);
    memset(region, 0, SEGMENT_HEADER_REGION);
    memcpy(region + SEGMENT_HEADER_FIRST, &header, sizeof header);
    memcpy(region + SEGMENT_HEADER_SECOND, &header, sizeof header);
}

static int write_header(const struct segment_set *set, const struct segment *segment)
{
    uint8_t region[SEGMENT_HEADER_REGION];
    segment_header_region(segment, region);
    int error = hl_io_write(set->io, segment->fd, region, sizeof region, 0);
    if (error == 0)
        error = hl_io_fsync(set->io, segment->fd);
    if (error == 0)
        error = hl_io_fsync(set->io, set->dirfd);
    return error;
}

/* Opens a new file; or one without a header, of a making that failed and could not remove it. */
static int make_file(struct segment_set *set, const char *name)
{
    struct segment *there;
    int fd = hl_io_open(set->io, set->dirfd, name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd != -EEXIST)
        return fd;
    int error = segment_load(set, name, &there, NULL);
    if (error == 0)
        segment_free(set, there);
    return error == -ENODATA ? hl_io_open(set->io, set->dirfd, name, O_RDWR, 0) : -EEXIST;
}

int segment_new(const struct segment_set *set, uint32_t first, uint32_t last, uint32_t generation,
                const uint8_t store_id[16], uint64_t created_ms, struct segment **segment)
{
    struct segment *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->fd = -1;
    s->first = first;
    s->last = last;
    s->generation = generation;
    s->created_ms = created_ms;
    s->size = SEGMENT_HEADER_REGION;
    memcpy(s->store_id, store_id, sizeof s->store_id);
    segment_name_format(s->name, first, last, generation);
    if (getrandom(&s->salt, sizeof s->salt, 0) != (ssize_t)sizeof s->salt) {
        segment_free((struct segment_set *)(uintptr_t)set, s);
        return -EIO;
    }
    *segment = s;
    return 0;
}

int segment_create(struct segment_set *set, uint32_t number, const uint8_t store_id[16],
                   uint64_t now_ms, struct segment **segment)
{
    struct segment *s;
    int error = segment_new(set, number, number, 0, store_id, now_ms, &s);
    if (error < 0)
        return error;
    error = s->fd = make_file(set, s->name);
    if (error >= 0) {
        error = write_header(set, s);
        if (error < 0)
            set->io->unlink(set->io->context, set->dirfd, s->name, 0);
    }
    if (error < 0) {
        segment_free(set, s);
        return error;
    }
    *segment = s;
    return 0;
}

/* Closes the longest unused file beyond the limit. Called with the lock held. */
static void close_one(struct segment_set *set)
{
    struct segment *oldest = NULL;
    for (size_t i = 0; i < set->count; i++) {
        struct segment *s = set->at[i];
        if (s->fd >= 0 && s->users == 0 && (!oldest || s->used < oldest->used))
            oldest = s;
    }
    if (oldest) {
        hl_io_close(set->io, oldest->fd);
        oldest->fd = -1;
        set->open--;
    }
}

int segment_set_add(struct segment_set *set, struct segment *segment)
{
    pthread_mutex_lock(&set->lock);
    if (set->count == set->capacity) {
        size_t capacity = set->capacity ? set->capacity * 2 : 16;
        struct segment **at = realloc(set->at, capacity * sizeof(*at));
        if (!at) {
            pthread_mutex_unlock(&set->lock);
            return -ENOMEM;
        }
        set->at = at;
        set->capacity = capacity;
    }
    size_t i = set->count++;
    for (; i > 0 && set->at[i - 1]->first > segment->first; i--)
        set->at[i] = set->at[i - 1];
    set->at[i] = segment;
    segment->used = ++set->clock; /* not the first one to be closed */
    if (segment->fd >= 0 && ++set->open > SEGMENT_OPEN_MAX)
        close_one(set);
    pthread_mutex_unlock(&set->lock);
    return 0;
}

/* The index of the first segment whose last number is not below `number`. */
static size_t lower_bound(const struct segment_set *set, uint32_t number)
{
    size_t low = 0, high = set->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (set->at[middle]->last < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Called with the lock held. */
static int take(struct segment_set *set, struct segment *s, struct segment **segment)
{
    if (s->fd < 0) {
        int fd = open_file(set, s->name);
        if (fd < 0)
            return fd == -ENOENT ? -EIO
                                 : fd; /* a live segment that vanished is no missing record */
        s->fd = fd;
        if (++set->open > SEGMENT_OPEN_MAX) {
            s->users++; /* not this one */
            close_one(set);
            s->users--;
        }
    }
    s->users++;
    s->used = ++set->clock;
    *segment = s;
    return 0;
}

int segment_get(struct segment_set *set, uint32_t number, struct segment **segment)
{
    pthread_mutex_lock(&set->lock);
    size_t i = lower_bound(set, number);
    int error = -ENOENT;
    if (i < set->count && set->at[i]->first <= number)
        error = take(set, set->at[i], segment);
    pthread_mutex_unlock(&set->lock);
    return error;
}

int segment_get_next(struct segment_set *set, uint32_t after, struct segment **segment)
{
    pthread_mutex_lock(&set->lock);
    size_t i = lower_bound(set, after);
    while (i < set->count && set->at[i]->first <= after)
        i++;
    int error = i < set->count ? take(set, set->at[i], segment) : -ENOENT;
    pthread_mutex_unlock(&set->lock);
    return error;
}

int segment_get_by_line(struct segment_set *set, uint64_t offset, struct segment **segment,
                        uint64_t *before)
{
    int error = -ENOENT;
    *before = 0;
    pthread_mutex_lock(&set->lock);
    for (size_t i = 0; i < set->count; i++) {
        uint64_t bytes = set->at[i]->line_bytes;
        if (offset < *before + bytes) {
            error = take(set, set->at[i], segment);
            break;
        }
        *before += bytes;
    }
    pthread_mutex_unlock(&set->lock);
    return error;
}

int segment_get_last(struct segment_set *set, struct segment **segment, uint64_t *lines)
{
    *lines = 0;
    pthread_mutex_lock(&set->lock);
    for (size_t i = 0; i < set->count; i++)
        *lines += set->at[i]->line_bytes;
    int error = set->count ? take(set, set->at[set->count - 1], segment) : -ENOENT;
    pthread_mutex_unlock(&set->lock);
    return error;
}

void segment_put(struct segment_set *set, struct segment *segment)
{
    if (!segment)
        return;
    pthread_mutex_lock(&set->lock);
    bool last = --segment->users == 0 && segment->left;
    if (last && segment->fd >= 0)
        set->open--;
    pthread_mutex_unlock(&set->lock);
    if (last)
        segment_free(set, segment);
}

int segment_set_replace(struct segment_set *set, struct segment *segment)
{
    int error = 0;
    pthread_mutex_lock(&set->lock);
    size_t begin = lower_bound(set, segment->first), end = begin;
    while (end < set->count && set->at[end]->last <= segment->last)
        end++;
    struct segment **replaced =
        realloc(set->replaced, (set->replaced_count + end - begin + 1) * sizeof(*replaced));
    if (replaced)
        set->replaced = replaced;
    if (!replaced)
        error = -ENOMEM;
    else if (begin == end || set->at[begin]->first < segment->first ||
             (end < set->count && set->at[end]->first <= segment->last))
        error = -EBUSY;
    if (error == 0) {
        memcpy(replaced + set->replaced_count, set->at + begin, (end - begin) * sizeof(*replaced));
        memmove(set->at + begin + 1, set->at + end, (set->count - end) * sizeof(*replaced));
        set->at[begin] = segment;
        set->count -= end - begin - 1;
        set->replaced_count += end - begin;
        segment->used = ++set->clock;
        if (segment->fd >= 0 && ++set->open > SEGMENT_OPEN_MAX)
            close_one(set);
    }
    pthread_mutex_unlock(&set->lock);
    return error;
}

int segment_get_replaced(struct segment_set *set, uint32_t number, struct segment **segment)
{
    int error = -ENOENT;
    pthread_mutex_lock(&set->lock);
    for (size_t i = set->replaced_count; i > 0 && error == -ENOENT; i--) {
        struct segment *s = set->replaced[i - 1];
        if (s->first <= number && s->last >= number)
            error = take(set, s, segment);
    }
    pthread_mutex_unlock(&set->lock);
    return error;
}

void segment_set_forget_replaced(struct segment_set *set)
{
    pthread_mutex_lock(&set->lock);
    struct segment **replaced = set->replaced;
    size_t count = set->replaced_count;
    set->replaced = NULL;
    set->replaced_count = 0;
    for (size_t i = 0; i < count; i++) {
        replaced[i]->left = true;
        if (replaced[i]->users > 0)
            replaced[i] = NULL; /* who has it frees it */
        else if (replaced[i]->fd >= 0)
            set->open--;
    }
    pthread_mutex_unlock(&set->lock);
    for (size_t i = 0; i < count; i++)
        segment_free(set, replaced[i]);
    free(replaced);
}

enum segment_standing segment_set_standing(struct segment_set *set, const char *name)
{
    uint32_t first, last, generation;
    enum segment_standing standing = SEGMENT_APART;
    if (!segment_name_parse(name, &first, &last, &generation))
        return SEGMENT_APART;
    pthread_mutex_lock(&set->lock);
    size_t i = lower_bound(set, first);
    const struct segment *s = i < set->count ? set->at[i] : NULL;
    if (!s)
        standing = SEGMENT_NEW;
    else if (strcmp(s->name, name) == 0)
        standing = SEGMENT_IN_SET;
    else if (s->first <= first && s->last >= last && s->generation > generation)
        standing = SEGMENT_REPLACED;
    pthread_mutex_unlock(&set->lock);
    return standing;
}

int segment_links(const struct segment_set *set, const struct segment *segment, uint64_t *links)
{
    struct stat st;
    int error = set->io->fstat(set->io->context, segment->fd, &st);
    if (error == 0)
        *links = st.st_nlink;
    return error;
}

int segment_make_own(struct segment_set *set, struct segment *segment)
{
    const struct hl_io *io = set->io;
    char temporary[SEGMENT_NAME_MAX + 8];
    uint64_t size;
    snprintf(temporary, sizeof temporary, "%s.tmp", segment->name);
    int error = hl_io_size(io, segment->fd, &size);
    if (error < 0)
        return error;
    int fd = hl_io_open_new(io, set->dirfd, temporary);
    if (fd < 0)
        return fd;
    error = hl_io_copy(io, segment->fd, 0, size, fd, 0);
    if (error == 0)
        error = hl_io_fsync(io, fd);
    if (error == 0)
        error = io->rename(io->context, set->dirfd, temporary, set->dirfd, segment->name);
    if (error < 0)
        io->unlink(io->context, set->dirfd, temporary, 0);
    else /* whoever reads from the descriptor reads the same bytes, before and after */
        error = io->dup3(io->context, fd, segment->fd, O_CLOEXEC);
    hl_io_close(io, fd);
    return error < 0 ? error : hl_io_fsync(io, set->dirfd);
}

int segment_write_void(const struct hl_io *io, int fd, uint32_t salt, uint64_t offset,
                       uint64_t size)
{
    int error = 0;
    for (uint64_t done = 0; error == 0 && size - done >= FRAME_HEADER_SIZE;) {
        uint64_t piece = size - done;
        if (piece > FRAME_BODY_LIMIT / 2)
            piece = FRAME_BODY_LIMIT / 4;
        uint8_t *bytes = malloc(piece);
        if (!bytes)
            return -ENOMEM;
        struct frame frame = {
            .length = (uint32_t)(piece - FRAME_HEADER_SIZE),
            .type = FRAME_VOID,
            .flags = FRAME_FIRST_OF_BATCH | FRAME_LAST_OF_BATCH,
        };
        memset(bytes + FRAME_HEADER_SIZE, ' ', frame.length);
        frame_finish(bytes, salt, offset + done, &frame);
        error = hl_io_write(io, fd, bytes, piece, offset + done);
        free(bytes);
        done += piece;
    }
    return error;
}
