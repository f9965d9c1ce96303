/* seal.c - see seal.h. */
#include "seal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "json.h"

#define SEAL_FIELDS 4
#define SEAL_LOOK 4096 /* bytes before an end in which a seal may begin, a later version's too */

size_t seal_encode(const struct seal *seal, char text[SEAL_TEXT_MAX])
{
    return (size_t)snprintf(text, SEAL_TEXT_MAX,
                            "{\"records\":%" PRIu64 ",\"line_bytes\":%" PRIu64 ",\"end\":%" PRIu64
                            ",\"recorded_ms\":%" PRIu64 "}\n",
                            seal->records, seal->line_bytes, seal->end, seal->recorded_ms);
}

uint64_t seal_frame(uint8_t bytes[SEAL_FRAME_MAX], uint32_t salt, const struct seal *seal)
{
    size_t len = seal_encode(seal, (char *)bytes + FRAME_HEADER_SIZE);
    struct frame frame = {
        .length = (uint32_t)len,
        .recorded_ms = seal->recorded_ms,
        .type = FRAME_SEAL,
        .flags = FRAME_FIRST_OF_BATCH | FRAME_LAST_OF_BATCH,
    };
    return frame_finish(bytes, salt, seal->end, &frame);
}

struct decoding {
    uint64_t values[SEAL_FIELDS];
    unsigned seen;
};

static bool decode_member(void *context, const struct json_member *member)
{
    static const char *const names[SEAL_FIELDS] = {"records", "line_bytes", "end", "recorded_ms"};
    struct decoding *decoding = context;
    for (unsigned i = 0; i < SEAL_FIELDS; i++) {
        if (strlen(names[i]) != member->key.len ||
            memcmp(names[i], member->key.at, member->key.len) != 0)
            continue;
        decoding->seen |= 1U << i;
        return member->type == JSON_NUMBER &&
               json_to_u64(member->value, UINT64_MAX, &decoding->values[i]);
    }
    return true; /* written by a later version */
}

int seal_decode(const char *text, size_t len, struct seal *seal)
{
    struct decoding decoding = {.seen = 0};
    if (json_scan_object(text, len, decode_member, &decoding, NULL) != JSON_OK ||
        decoding.seen != (1U << SEAL_FIELDS) - 1)
        return -EBADMSG;
    *seal = (struct seal){
        .records = decoding.values[0],
        .line_bytes = decoding.values[1],
        .end = decoding.values[2],
        .recorded_ms = decoding.values[3],
    };
    return 0;
}

int seal_ends_at(const struct hl_io *io, int fd, uint32_t salt, uint64_t end, bool *sealed)
{
    uint8_t bytes[SEAL_LOOK];
    uint64_t from =
        end > SEGMENT_HEADER_REGION + SEAL_LOOK ? end - SEAL_LOOK : SEGMENT_HEADER_REGION;
    *sealed = false;
    if (end <= from || end % FRAME_ALIGN != 0)
        return 0;
    size_t len = (size_t)(end - from);
    ssize_t n = hl_io_read(io, fd, bytes, len, from);
    if (n < 0)
        return (int)n;
    for (size_t at = 0; (size_t)n == len && at + FRAME_HEADER_SIZE <= len && !*sealed;
         at += FRAME_ALIGN) {
        struct frame frame;
        *sealed = frame_parse(bytes + at, len - at, salt, from + at, &frame, NULL) == FRAME_GOOD &&
                  frame.type == FRAME_SEAL && frame_size(frame.length) == len - at;
    }
    return 0;
}
