/*
 * format.h - the on-disk layout of DIR/log, and nothing else.
 *
 * All integers are little-endian. A segment is a header region of SEGMENT_HEADER_REGION bytes, then
 * frames one after another, each at a multiple of 8. Everything else in DIR is either an LMDB
 * environment (index.h) or derived from segments.
 *
 * The header is written twice, at SEGMENT_HEADER_FIRST and SEGMENT_HEADER_SECOND: it holds the
 * salt, without which no frame of the segment can be told from noise, so one bad sector must not
 * take it.
 *
 * A frame's checksum is the IEEE CRC-32 of its bytes 4 to the end of its padding, begun from
 * salt ^ (offset of the frame in its file). The offset makes a frame valid only where it was
 * written: for the same bytes, different seeds always give different sums, so a good frame that a
 * misdirected write or a copy put elsewhere is damage, not a record.
 */
#ifndef HL_FORMAT_H
#define HL_FORMAT_H

#include <assert.h>
#include <endian.h>
#include <stdint.h>

#define SEGMENT_MAGIC "HOTLOGSG"
#define SEGMENT_VERSION 1U
#define SEGMENT_HEADER_REGION 1024U
#define SEGMENT_HEADER_FIRST 0U
#define SEGMENT_HEADER_SECOND 512U

/* Feature flags: a reader refuses a segment with an incompatible flag that it does not know, by
 * name or bit, and keeps compatible ones that it does not know. None is defined yet. */
#define SEGMENT_INCOMPATIBLE_KNOWN 0U

struct segment_header {
    uint8_t magic[8];
    uint32_t version;
    uint32_t incompatible;
    uint32_t compatible;
    uint32_t header_region; /* where the first frame begins */
    uint8_t store_id[16];
    uint32_t first, last; /* the segment numbers that this file stands for */
    uint32_t generation;
    uint32_t salt;
    uint64_t created_ms;
    uint8_t reserved[60]; /* zero */
    uint32_t crc32;       /* IEEE CRC-32, from 0, of all bytes before it */
};
static_assert(sizeof(struct segment_header) == 128, "segment header is 128 bytes");

enum frame_type {
    FRAME_SESSION = 1,   /* JSON: a session's id, owner, mode, attributes */
    FRAME_EVENT = 2,     /* a record */
    FRAME_OPERATION = 3, /* a record with "op" */
    FRAME_DROP = 4,      /* JSON: what of a session does not exist any more */
    FRAME_SEAL = 5,      /* JSON: the last frame of a sealed segment */
    FRAME_VOID = 6,      /* stands where bytes were set aside at recovery; holds blanks */
    FRAME_TYPES
};

#define FRAME_FIRST_OF_BATCH 1U
#define FRAME_LAST_OF_BATCH 2U
#define FRAME_FLAGS_KNOWN (FRAME_FIRST_OF_BATCH | FRAME_LAST_OF_BATCH)

#define FRAME_ALIGN 8U
#define FRAME_BODY_LIMIT (UINT32_C(1) << 29) /* a body is shorter than this */

struct frame_header {
    uint32_t crc32;
    uint32_t length; /* of the body; zeros fill up to the next multiple of FRAME_ALIGN */
    uint64_t seq;
    uint64_t recorded_ms;
    uint32_t session;
    uint16_t type;
    uint16_t flags;
};
static_assert(sizeof(struct frame_header) == 32, "frame header is 32 bytes");

#define FRAME_HEADER_SIZE ((uint32_t)sizeof(struct frame_header))

/* A log position: the number of the segment (its first) and the offset in the file. Ascending in
 * order of arrival. */
static inline uint64_t position_make(uint32_t segment, uint64_t offset)
{
    return (uint64_t)segment << 32 | offset;
}

static inline uint32_t position_segment(uint64_t position)
{
    return (uint32_t)(position >> 32);
}

static inline uint32_t position_offset(uint64_t position)
{
    return (uint32_t)position;
}

#endif
