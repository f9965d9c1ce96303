/* scan.c - frames one after another, over damage. */
#include "scan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SCAN_BUFFER (256U * 1024)

void scan_init(struct scan *scan, const struct hl_io *io, int fd, uint32_t salt, uint64_t from,
               uint64_t end)
{
    *scan = (struct scan){.io = io, .fd = fd, .salt = salt, .next = from, .end = end};
}

void scan_free(struct scan *scan)
{
    free(scan->buffer);
    scan->buffer = NULL;
    scan->capacity = scan->filled = 0;
}

/*
 * Makes `need` bytes from `offset` available, or as many as there are before scan->end. Returns
 * them and their number, which is read-ahead more than asked where the buffer has it.
 */
static int fill(struct scan *scan, uint64_t offset, uint64_t need, const uint8_t **bytes,
                size_t *available)
{
    uint64_t left = offset < scan->end ? scan->end - offset : 0;
    if (need > left)
        need = left;
    uint64_t have = 0;
    if (offset >= scan->filled_at && offset < scan->filled_at + scan->filled)
        have = scan->filled_at + scan->filled - offset;
    if (have < need || (have == 0 && left > 0)) {
        size_t want = need > SCAN_BUFFER ? (size_t)need : SCAN_BUFFER;
        /* A buffer that one large frame made is given back with the next small one. */
        if (!scan->buffer || scan->capacity < want || scan->capacity > 4 * want) {
            free(scan->buffer);
            scan->filled = 0;
            scan->capacity = want;
            scan->buffer = malloc(want);
            if (!scan->buffer) {
                scan->capacity = 0;
                return -ENOMEM;
            }
        }
        if (want > left)
            want = (size_t)left;
        scan->filled = 0;
        ssize_t n = hl_io_read(scan->io, scan->fd, scan->buffer, want, offset);
        if (n < 0)
            return (int)n;
        scan->filled = (size_t)n;
        scan->filled_at = offset;
        have = (uint64_t)n;
    }
    *bytes = scan->buffer + (offset - scan->filled_at);
    *available = (size_t)have;
    return 0;
}

/* Whether a good frame stands at offset. 1, 0, or a negative errno. */
static int try_frame(struct scan *scan, uint64_t offset, struct frame *frame)
{
    const uint8_t *bytes;
    size_t available;
    uint64_t need = FRAME_HEADER_SIZE;
    for (;;) {
        int error = fill(scan, offset, need, &bytes, &available);
        if (error < 0)
            return error;
        uint64_t wanted = 0;
        enum frame_result result =
            frame_parse(bytes, available, scan->salt, offset, frame, &wanted);
        if (result == FRAME_GOOD)
            return 1;
        if (result == FRAME_BAD || wanted <= need || offset + wanted > scan->end)
            return 0;
        need = wanted;
    }
}

/*
 * From a place where no frame begins: finds the next one. *found tells whether there is one, *at
 * where. *last_byte is the end of the last byte that is not zero (from offset on, up to *at).
 */
static int find_next(struct scan *scan, uint64_t offset, bool *found, uint64_t *at,
                     uint64_t *last_byte)
{
    *found = false;
    *last_byte = offset;
    for (uint64_t p = offset; p < scan->end; p += FRAME_ALIGN) {
        const uint8_t *bytes;
        size_t available;
        int error = fill(scan, p, FRAME_HEADER_SIZE, &bytes, &available);
        if (error < 0)
            return error;
        if (available == 0)
            break;
        if (p > offset && available >= FRAME_HEADER_SIZE && frame_plausible(bytes)) {
            struct frame frame;
            int good = try_frame(scan, p, &frame);
            if (good < 0)
                return good;
            if (good) {
                *found = true;
                *at = p;
                return 0;
            }
            error = fill(scan, p, FRAME_HEADER_SIZE, &bytes, &available);
            if (error < 0)
                return error;
        }
        size_t unit = available < FRAME_ALIGN ? available : FRAME_ALIGN;
        for (size_t i = 0; i < unit; i++) {
            if (bytes[i] != 0)
                *last_byte = p + i + 1;
        }
    }
    return 0;
}

int scan_next(struct scan *scan, struct scan_item *item)
{
    memset(item, 0, sizeof *item);
    item->offset = scan->next;
    if (scan->next >= scan->end) {
        item->kind = SCAN_END;
        return 0;
    }
    int good = try_frame(scan, scan->next, &item->frame);
    if (good < 0)
        return good;
    if (good) {
        item->kind = SCAN_FRAME;
        item->size = frame_size(item->frame.length);
        scan->next += item->size;
        return 0;
    }
    bool found;
    uint64_t at = 0, last_byte;
    int error = find_next(scan, scan->next, &found, &at, &last_byte);
    if (error < 0)
        return error;
    if (found) {
        item->kind = SCAN_GAP;
        item->size = at - item->offset;
        scan->next = at;
    } else if (last_byte > item->offset) {
        item->kind = SCAN_TAIL;
        item->size = last_byte - item->offset;
        scan->end = scan->next; /* what remains is blank; frames end here */
    } else {
        item->kind = SCAN_END;
    }
    return 0;
}
