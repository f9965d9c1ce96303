/*
 * frame.h - the one gate between stored bytes and what is believed of them.
 *
 * Nobody reads a field of a stored frame before frame_parse() said FRAME_GOOD.
 */
#ifndef HL_FRAME_H
#define HL_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format.h"

/* A checked frame. body points into the bytes that were parsed. */
struct frame {
    uint32_t crc32;
    uint32_t length; /* of body */
    uint64_t seq;
    uint64_t recorded_ms;
    uint32_t session;
    uint16_t type; /* enum frame_type */
    uint16_t flags;
    const char *body;
};

enum frame_result {
    FRAME_GOOD,
    FRAME_SHORT, /* may be a frame, but more bytes are needed to tell: see *need */
    FRAME_BAD    /* no frame begins here */
};

/* Whether it is a record of a session, as readers see them. */
static inline bool frame_is_record(uint16_t type)
{
    return type == FRAME_EVENT || type == FRAME_OPERATION;
}

/* Bytes that a frame with a body of this length takes, header and padding included. */
uint64_t frame_size(uint32_t length);

/*
 * Looks at what should be a frame at `offset` of its segment. available: the bytes at hand; *need
 * (may be NULL) is set for FRAME_SHORT to the bytes that the whole frame would take.
 */
enum frame_result frame_parse(const uint8_t *bytes, size_t available, uint32_t salt,
                              uint64_t offset, struct frame *frame, uint64_t *need);

/* Whether the header alone could be one of a frame: a cheap filter for scans past damage. Text
 * never passes it, since two of the bytes it looks at are never both found in text. */
bool frame_plausible(const uint8_t header[FRAME_HEADER_SIZE]);

/*
 * Completes a frame in place: header fields, zero padding, checksum. bytes has room for
 * frame_size(frame->length), and the body stands already at bytes + FRAME_HEADER_SIZE. frame->crc32
 * and body are set. Returns the frame's size.
 */
uint64_t frame_finish(uint8_t *bytes, uint32_t salt, uint64_t offset, struct frame *frame);

/*
 * The same in two steps, for a frame that is made before it is known where it goes, and when:
 * frame_fill() does all but the checksum, of which the flags and recorded_ms may be changed by
 * frame_place(), which sets it. Both return the frame's size.
 */
uint64_t frame_fill(uint8_t *bytes, const struct frame *frame);
uint64_t frame_place(uint8_t *bytes, uint16_t flags, uint64_t recorded_ms, uint32_t salt,
                     uint64_t offset);

/* Writes and checks a segment header. header_parse: 0, -EBADMSG (not one, or damaged), or -ENOTSUP
 * with *unknown set to the version or incompatible bits that are not known. */
void header_finish(struct segment_header *header); /* fills magic, version, sizes, checksum */
int header_parse(const struct segment_header *stored, struct segment_header *header,
                 uint32_t *unknown);

#endif
