/*
 * seal.h - what the seal says, the last frame of a sealed segment: one JSON object on a line.
 */
#ifndef HL_SEAL_H
#define HL_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frame.h"
#include "io.h"

#define SEAL_TEXT_MAX 256
#define SEAL_FRAME_MAX (FRAME_HEADER_SIZE + SEAL_TEXT_MAX + FRAME_ALIGN)

struct seal {
    uint64_t records, line_bytes; /* of events and operations in the segment */
    uint64_t end;                 /* offset at which the seal itself stands */
    uint64_t recorded_ms;         /* the highest one so far */
};

/* Writes the body of a seal frame and returns its length. */
size_t seal_encode(const struct seal *seal, char text[SEAL_TEXT_MAX]);

/* Makes the whole frame, for seal->end. Returns its size. */
uint64_t seal_frame(uint8_t bytes[SEAL_FRAME_MAX], uint32_t salt, const struct seal *seal);

/* -EBADMSG: not all of it is there, or it is no such object. Members that are not known are passed
 * over. */
int seal_decode(const char *text, size_t len, struct seal *seal);

/* Whether a seal frame ends at offset `end` of a segment's file. 0 or a negative errno. */
int seal_ends_at(const struct hl_io *io, int fd, uint32_t salt, uint64_t end, bool *sealed);

#endif
