/* moment.c - which seq of a session was the first at or after a moment. recorded_ms never goes
 * back, so it is found by halving. */
#include <errno.h>
#include <stdlib.h>

#include "core.h"

#define DAMAGED_TRIED 16U /* records that are stepped over */

/* When the first record with a seq >= from was appended. -ENOENT: there is none below `to`. */
static int recorded_from(struct hl_store *store, uint32_t session, uint64_t from, uint64_t to,
                         struct index_entry *entry, uint64_t *recorded_ms)
{
    for (unsigned i = 0; i < DAMAGED_TRIED; i++) {
        struct frame frame;
        uint8_t *buffer;
        ssize_t n = lookup_entries(store, session, from, entry, 1);
        if (n < 0)
            return (int)n;
        if (n == 0 || entry->seq >= to)
            return -ENOENT;
        int error = read_frame(store, session, entry, &buffer, &frame);
        if (error == 0) {
            *recorded_ms = frame.recorded_ms;
            free(buffer);
            return 0;
        }
        if (error != -EBADMSG && error != -ENOENT)
            return error;
        from = entry->seq + 1;
    }
    return -ENOENT;
}

int moment_seq(struct hl_store *store, const struct hl_session *session, uint64_t ms, uint64_t *seq)
{
    if (!session->has_seq || session->records == 0 || session->changed_ms < ms) {
        *seq = session->has_seq ? session->last_seq + 1 : 0;
        return 0;
    }
    uint64_t low = session->first_seq, high = session->last_seq + 1;
    for (uint64_t middle = low; low < high; middle = low + (high - low) / 2) {
        struct index_entry entry;
        uint64_t recorded_ms = 0;
        int error = recorded_from(store, session->number, middle, high, &entry, &recorded_ms);
        if (error < 0 && error != -ENOENT)
            return error;
        if (error == -ENOENT || recorded_ms >= ms)
            high = middle;
        else
            low = entry.seq + 1;
    }
    *seq = low;
    return 0;
}
