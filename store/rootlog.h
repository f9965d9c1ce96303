/*
 * rootlog.h - reading the lines of a segment for the root's log.
 */
#ifndef HL_ROOTLOG_H
#define HL_ROOTLOG_H

#include "core.h"
#include "scan.h"

struct root_read {
    struct hl_store *store;
    struct segment *segment;
    uint64_t before; /* line bytes of the segments before this one */
    uint64_t end;    /* offset up to which its frames are read */
    uint64_t total;  /* line bytes up to there */
    char *out;
    uint64_t offset;
    size_t size, filled;
    uint64_t age; /* of the stream; it ends when a compaction takes lines out of it */
    /* The next frame and where its line begins in the stream. */
    uint64_t frame_at, line_at;
};

/* Reads on in the segment until the window is full (*whole false) or the segment at its end. */
int root_read_segment(struct root_read *read, bool *whole);
/* The best place in the segment to begin a scan for a line offset in it. */
int root_find_point(struct hl_store *store, const struct segment *segment, uint64_t line_offset,
                    uint64_t *line_bytes, uint64_t *file_offset);
/* Whether a frame that was found has a line in the root's log. */
bool root_has_line(const struct root_read *read, const struct scan_item *item);

#endif
