/*
 * segment.h - segment files: their names and headers, and the set of live ones.
 *
 * The set keeps at most SEGMENT_OPEN_MAX files open and closes the longest unused one that nobody
 * reads. A segment in use (between segment_get and segment_put) keeps its descriptor, also when it
 * leaves the set meanwhile.
 *
 * Threads: all functions that take the set may be called from any thread; set->lock guards the
 * fields named below. It is a leaf: nothing is called with it held but open and close.
 */
#ifndef HL_SEGMENT_H
#define HL_SEGMENT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "format.h"
#include "io.h"
#include "store.h"

#define SEGMENT_NAME_MAX 40
#define SEGMENT_OPEN_MAX 128

struct segment {
    /* Fixed once made. */
    uint32_t first, last, generation, salt;
    uint64_t created_ms;
    uint8_t store_id[16];
    char name[SEGMENT_NAME_MAX];
    bool header_damaged; /* one of its two headers did not check */

    /* Guarded by the set's lock. */
    int fd; /* -1: closed */
    unsigned users;
    uint64_t used; /* when it was last taken, by the set's counter */
    bool left;     /* it is in no list any more: the last user frees it */

    /* Written with the store's append lock held (or while it opens); read by anyone. */
    _Atomic uint64_t size; /* end of the last good frame */
    _Atomic bool sealed;
    _Atomic uint64_t records, line_bytes; /* of events and operations, up to size */
};

struct segment_set {
    const struct hl_io *io;
    int dirfd; /* of DIR/log; not owned */
    bool writable;
    pthread_mutex_t lock;
    struct segment **at; /* ascending by first */
    size_t count, capacity;
    struct segment **replaced; /* that another stands for now, but which may still be asked for */
    size_t replaced_count;
    size_t open;
    uint64_t clock;
};

/* Writes "<first>-<last>.<generation>.seg" in hex; parse takes only what format writes. */
void segment_name_format(char name[SEGMENT_NAME_MAX], uint32_t first, uint32_t last,
                         uint32_t generation);
bool segment_name_parse(const char *name, uint32_t *first, uint32_t *last, uint32_t *generation);

void segment_set_init(struct segment_set *set, const struct hl_io *io, int dirfd, bool writable);
void segment_set_free(struct segment_set *set); /* no segment may be in use */

/*
 * Opens the file and reads its header. -ENODATA: it has no header yet (its creation was cut short:
 * the file is shorter than a header region, or that is all zeros, and nothing follows). -EBADMSG:
 * both headers are damaged or contradict the name. -ENOTSUP: unknown features; err names them.
 */
int segment_load(struct segment_set *set, const char *name, struct segment **segment,
                 struct hl_error *err);

/* Makes the file N-N.0 with a new salt, syncs it and the directory. Not yet in the set. A file of
 * that name without a header is taken; -EEXIST: there is one with more. */
int segment_create(struct segment_set *set, uint32_t number, const uint8_t store_id[16],
                   uint64_t now_ms, struct segment **segment);

/* Frees one that is not in a set. NULL is fine. */
void segment_free(struct segment_set *set, struct segment *segment);

/* The set takes ownership. -ENOMEM leaves it with the caller. */
int segment_set_add(struct segment_set *set, struct segment *segment);

/* The live segment whose range holds number; -ENOENT: none. Opens the file if it is closed. */
int segment_get(struct segment_set *set, uint32_t number, struct segment **segment);
/* The first one whose first number is above `after`. -ENOENT: none. */
int segment_get_next(struct segment_set *set, uint32_t after, struct segment **segment);
/* The segment in which byte `offset` of the root log lies, and how many line bytes stand in those
 * before it. -ENOENT: past the end. Takes (opens) the segment as segment_get() does. */
int segment_get_by_line(struct segment_set *set, uint64_t offset, struct segment **segment,
                        uint64_t *before);
/* The last segment, and how many line bytes stand in all. Likewise. */
int segment_get_last(struct segment_set *set, struct segment **segment, uint64_t *lines);
void segment_put(struct segment_set *set, struct segment *segment); /* NULL is fine */

/*
 * Puts a segment, which the set takes over, in the place of those whose numbers it stands for. They
 * are still found by segment_get_replaced(), for those who hold positions in them, until
 * segment_set_forget_replaced(): before that their files keep their names. -ENOMEM, -EBUSY (its
 * numbers are not those of whole segments of the set) leave all as it was.
 */
int segment_set_replace(struct segment_set *set, struct segment *segment);
int segment_get_replaced(struct segment_set *set, uint32_t number, struct segment **segment);
void segment_set_forget_replaced(struct segment_set *set);

/* What a segment file of log/ is to the set. */
enum segment_standing {
    SEGMENT_IN_SET,
    SEGMENT_REPLACED, /* one of a higher generation, which is in the set, stands for its numbers */
    SEGMENT_NEW,      /* it comes after all of the set: it may be in the making */
    SEGMENT_APART
};
enum segment_standing segment_set_standing(struct segment_set *set, const char *name);

/* A segment that is going to have this name, with a salt of its own, and no file yet. */
int segment_new(const struct segment_set *set, uint32_t first, uint32_t last, uint32_t generation,
                const uint8_t store_id[16], uint64_t created_ms, struct segment **segment);

/* Writes frames that say nothing over size bytes (FRAME_HEADER_SIZE or more, a multiple of
 * FRAME_ALIGN): what is found there later must not depend on what stood there. */
int segment_write_void(const struct hl_io *io, int fd, uint32_t salt, uint64_t offset,
                       uint64_t size);

/* Fills a header region with both headers of the segment. */
void segment_header_region(const struct segment *segment, uint8_t region[SEGMENT_HEADER_REGION]);

/* How many links the segment's file has. */
int segment_links(const struct segment_set *set, const struct segment *segment, uint64_t *links);
/* Puts a synced copy of the file, with one link, in its place: whoever has another link to the old
 * one, a snapshot or a backup, keeps it as it is. The segment is taken;
 * others may be reading it. */
int segment_make_own(struct segment_set *set, struct segment *segment);

#endif
