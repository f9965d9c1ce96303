/* frame.c - frames and segment headers, to bytes and back. */
#include "frame.h"

#include <errno.h>
#include <string.h>

#include "crc.h"
#include "store.h"

static uint32_t frame_crc(const uint8_t *bytes, uint64_t size, uint32_t salt, uint64_t offset)
{
    return crc32_more(salt ^ (uint32_t)offset, bytes + 4, size - 4);
}

uint64_t frame_size(uint32_t length)
{
    return ((uint64_t)FRAME_HEADER_SIZE + length + FRAME_ALIGN - 1) & ~(uint64_t)(FRAME_ALIGN - 1);
}

static bool header_fields_plausible(const struct frame_header *header)
{
    uint16_t type = le16toh(header->type);
    return type != 0 && type < FRAME_TYPES && (le16toh(header->flags) & ~FRAME_FLAGS_KNOWN) == 0 &&
           le32toh(header->length) < FRAME_BODY_LIMIT && le64toh(header->seq) <= HL_SEQ_MAX;
}

bool frame_plausible(const uint8_t header[FRAME_HEADER_SIZE])
{
    struct frame_header fields;
    memcpy(&fields, header, sizeof fields);
    return header_fields_plausible(&fields);
}

enum frame_result frame_parse(const uint8_t *bytes, size_t available, uint32_t salt,
                              uint64_t offset, struct frame *frame, uint64_t *need)
{
    struct frame_header header;
    if (available < sizeof header) {
        if (need)
            *need = sizeof header;
        return FRAME_SHORT;
    }
    memcpy(&header, bytes, sizeof header);
    if (!header_fields_plausible(&header))
        return FRAME_BAD;
    uint32_t length = le32toh(header.length);
    uint64_t size = frame_size(length);
    if (available < size) {
        if (need)
            *need = size;
        return FRAME_SHORT;
    }
    if (!crc32_agrees(frame_crc(bytes, size, salt, offset), le32toh(header.crc32)))
        return FRAME_BAD;
    *frame = (struct frame){
        .crc32 = le32toh(header.crc32),
        .length = length,
        .seq = le64toh(header.seq),
        .recorded_ms = le64toh(header.recorded_ms),
        .session = le32toh(header.session),
        .type = le16toh(header.type),
        .flags = le16toh(header.flags),
        .body = (const char *)bytes + sizeof header,
    };
    /* A good sum says only that somebody wrote it so. */
    bool record = frame_is_record(frame->type);
    if (record && (length == 0 || frame->body[length - 1] != '\n' || frame->session == 0))
        return FRAME_BAD;
    return FRAME_GOOD;
}

uint64_t frame_fill(uint8_t *bytes, const struct frame *frame)
{
    uint64_t size = frame_size(frame->length);
    struct frame_header header = {
        .length = htole32(frame->length),
        .seq = htole64(frame->seq),
        .recorded_ms = htole64(frame->recorded_ms),
        .session = htole32(frame->session),
        .type = htole16(frame->type),
        .flags = htole16(frame->flags),
    };
    memcpy(bytes, &header, sizeof header);
    uint64_t end = sizeof header + (uint64_t)frame->length;
    memset(bytes + end, 0, size - end);
    return size;
}

/* Sets the checksum. */
static uint32_t sum_up(uint8_t *bytes, uint64_t size, uint32_t salt, uint64_t offset)
{
    uint32_t crc = frame_crc(bytes, size, salt, offset), stored = htole32(crc);
    memcpy(bytes, &stored, sizeof stored);
    return crc;
}

uint64_t frame_place(uint8_t *bytes, uint16_t flags, uint64_t recorded_ms, uint32_t salt,
                     uint64_t offset)
{
    struct frame_header header;
    memcpy(&header, bytes, sizeof header);
    header.recorded_ms = htole64(recorded_ms);
    header.flags = htole16(flags);
    memcpy(bytes, &header, sizeof header);
    uint64_t size = frame_size(le32toh(header.length));
    sum_up(bytes, size, salt, offset);
    return size;
}

uint64_t frame_finish(uint8_t *bytes, uint32_t salt, uint64_t offset, struct frame *frame)
{
    uint64_t size = frame_fill(bytes, frame);
    frame->crc32 = sum_up(bytes, size, salt, offset);
    frame->body = (const char *)bytes + FRAME_HEADER_SIZE;
    return size;
}

static uint32_t header_crc(const struct segment_header *header)
{
    return crc32_more(0, header, offsetof(struct segment_header, crc32));
}

void header_finish(struct segment_header *header)
{
    memcpy(header->magic, SEGMENT_MAGIC, sizeof header->magic);
    header->version = htole32(SEGMENT_VERSION);
    header->header_region = htole32(SEGMENT_HEADER_REGION);
    header->incompatible = htole32(header->incompatible);
    header->compatible = htole32(header->compatible);
    header->first = htole32(header->first);
    header->last = htole32(header->last);
    header->generation = htole32(header->generation);
    header->salt = htole32(header->salt);
    header->created_ms = htole64(header->created_ms);
    header->crc32 = htole32(header_crc(header));
}

int header_parse(const struct segment_header *stored, struct segment_header *header,
                 uint32_t *unknown)
{
    if (memcmp(stored->magic, SEGMENT_MAGIC, sizeof stored->magic) != 0 ||
        !crc32_agrees(header_crc(stored), le32toh(stored->crc32)))
        return -EBADMSG;
    *header = *stored;
    header->version = le32toh(stored->version);
    header->header_region = le32toh(stored->header_region);
    header->incompatible = le32toh(stored->incompatible);
    header->compatible = le32toh(stored->compatible);
    header->first = le32toh(stored->first);
    header->last = le32toh(stored->last);
    header->generation = le32toh(stored->generation);
    header->salt = le32toh(stored->salt);
    header->created_ms = le64toh(stored->created_ms);
    header->crc32 = le32toh(stored->crc32);
    if (header->version != SEGMENT_VERSION) {
        *unknown = header->version;
        return -ENOTSUP;
    }
    if (header->incompatible & ~SEGMENT_INCOMPATIBLE_KNOWN) {
        *unknown = header->incompatible & ~SEGMENT_INCOMPATIBLE_KNOWN;
        return -ENOTSUP;
    }
    if (header->first == 0 || header->last < header->first ||
        header->header_region != SEGMENT_HEADER_REGION)
        return -EBADMSG;
    return 0;
}
