/*
 * follow_read.c - what a follower reads next.
 *
 * A place is a seq, not an offset, so that it stays true when records before it are dropped: a
 * record that is gone is stepped over. One that is damaged is given as an empty line, so that its
 * reader goes on.
 */
#include "follow.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_AHEAD 64 /* records looked up at once */

/* The next records, as the index has them. */
struct ahead {
    size_t count;
    size_t bytes, size; /* of their lines; no more are wanted than reach size */
    struct {
        uint64_t seq;
        uint32_t length;
    } at[LOOK_AHEAD];
};

static bool add_ahead(void *context, const struct hl_record *record)
{
    struct ahead *ahead = context;

    ahead->at[ahead->count].seq = record->seq;
    ahead->at[ahead->count++].length = record->length;
    ahead->bytes += record->length;
    return ahead->count < LOOK_AHEAD && ahead->bytes < ahead->size;
}

static int look_ahead(struct fs *fs, uint32_t session, uint64_t from, size_t size,
                      struct ahead *ahead)
{
    ahead->count = ahead->bytes = 0;
    ahead->size = size;
    return hl_record_list(fs->store, session, from, false, add_ahead, ahead);
}

void follow_place_free(struct fs *fs, struct follow_place *place)
{
    if (place->line)
        fs_line_free(fs, place->user, place->line, place->line_length);
    place->line = NULL;
}

static void step(struct fs *fs, struct follow_place *place, uint64_t seq)
{
    follow_place_free(fs, place);
    place->next = seq + 1;
    place->offset = 0;
}

/* A piece of the record at place->next, which is longer than the room there is. */
static ssize_t read_piece(struct fs *fs, uint32_t session, struct follow_place *place,
                          uint32_t length, char *buffer, size_t size)
{
    ssize_t got;

    if (!place->line && length > FS_SMALL_LINE) {
        /* Every read checks the whole record: a long one is read once, if there is room for it. */
        place->line = fs_line_hold(fs, place->user, session, place->next, length);
        place->line_length = length;
    }
    if (place->line) {
        got = (ssize_t)(length - place->offset < size ? length - place->offset : size);
        memcpy(buffer, place->line + place->offset, (size_t)got);
    } else {
        got = hl_record_read(fs->store, session, place->next, buffer, size, place->offset);
    }
    if (got <= 0)
        return got;
    place->offset += (uint64_t)got;
    if (place->offset >= length)
        step(fs, place, place->next);
    return got;
}

/* The record with this length and seq, from place->offset on; 0: it was dropped. */
static ssize_t read_one(struct fs *fs, uint32_t session, struct follow_place *place,
                        uint32_t length, char *buffer, size_t size)
{
    ssize_t got;
    bool begun = place->offset > 0;

    if (begun || length > size)
        got = read_piece(fs, session, place, length, buffer, size);
    else
        got = hl_record_read(fs->store, session, place->next, buffer, size, 0);
    if (got == -EBADMSG || got == -ENOENT || (got == 0 && begun)) {
        bool blank = got == -EBADMSG || begun; /* what was begun must end */
        step(fs, place, place->next);
        if (!blank)
            return 0;
        *buffer = '\n';
        return 1;
    }
    if (got > 0 && !begun && length <= size)
        step(fs, place, place->next);
    return got;
}

ssize_t follow_read(struct fs *fs, uint32_t session, struct follow_place *place, char *buffer,
                    size_t size)
{
    struct ahead ahead;
    size_t used = 0;

    while (used < size) {
        int result = look_ahead(fs, session, place->next, size - used, &ahead);
        if (result < 0)
            return used > 0 ? (ssize_t)used : result;
        if (ahead.count == 0)
            break;
        for (size_t i = 0; i < ahead.count; i++) {
            if (ahead.at[i].seq != place->next) {
                bool cut = place->offset > 0; /* it was dropped while it was read in pieces */
                step(fs, place, ahead.at[i].seq - 1);
                if (cut)
                    buffer[used++] = '\n';
            }
            if (used > 0 && ahead.at[i].length - place->offset > size - used)
                return (ssize_t)used;
            ssize_t got =
                read_one(fs, session, place, ahead.at[i].length, buffer + used, size - used);
            if (got < 0)
                return used > 0 ? (ssize_t)used : got;
            used += (size_t)got;
            if (used == size || place->offset > 0)
                return (ssize_t)used;
        }
    }
    return (ssize_t)used;
}

bool follow_ready(struct fs *fs, uint32_t session, const struct follow_place *place)
{
    struct ahead ahead;
    int result = look_ahead(fs, session, place->next, 1, &ahead);

    return result < 0 || ahead.count > 0; /* an error is there to be read */
}
