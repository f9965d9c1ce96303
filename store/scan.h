/*
 * scan.h - reads the frames of a segment one after another, and steps over damage.
 *
 * What it finds comes in ascending order: good frames, and between them gaps, bytes in which no
 * good frame begins. Blank bytes (zeros) from the last frame to the end are no gap: they are the
 * end.
 */
#ifndef HL_SCAN_H
#define HL_SCAN_H

#include "frame.h"
#include "io.h"

struct scan {
    const struct hl_io *io;
    int fd;
    uint32_t salt;
    uint64_t next; /* where the next frame should begin */
    uint64_t end;  /* nothing is read at or past this */
    uint8_t *buffer;
    size_t capacity, filled;
    uint64_t filled_at; /* file offset of buffer[0] */
};

enum scan_kind {
    SCAN_FRAME,
    SCAN_GAP,  /* damage with a good frame behind it */
    SCAN_TAIL, /* damage with none behind it: it ends at the last byte that is not zero */
    SCAN_END
};

struct scan_item {
    enum scan_kind kind;
    uint64_t offset, size; /* SCAN_END: where the frames end, and 0 */
    struct frame frame;    /* SCAN_FRAME; its body lives until the next call */
    const uint8_t *event;  /* by scan_ahead_next(), of events: as sums_event_read_packed() has it */
};

/* Begins at offset `from` (a multiple of FRAME_ALIGN). end: usually the size of the file. */
void scan_init(struct scan *scan, const struct hl_io *io, int fd, uint32_t salt, uint64_t from,
               uint64_t end);
void scan_free(struct scan *scan);

/* 0, or a negative errno: an I/O error (never damage), or -ENOMEM. */
int scan_next(struct scan *scan, struct scan_item *item);

#endif
