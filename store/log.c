/* log.c - the tail of the log: rotation, cutting back, session frames. append_lock is held
 * throughout. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "seal.h"
#include "session.h"

#define FILL_BYTES (UINT64_C(256) << 10) /* of zeros ahead, when they are made */
#define FILL_LOW (UINT64_C(16) << 10)    /* more are made when fewer are left */
#define FILL_PIECE (64U << 10)

uint64_t log_clock(struct hl_store *store)
{
    uint64_t now = store_now_ms(store);
    if (now > store->clock_ms)
        store->clock_ms = now;
    return store->clock_ms;
}

void log_cut_back(struct hl_store *store)
{
    int error = hl_io_truncate(store->io, store->active->fd, store->tail);
    store->zeros_end = 0;
    if (error < 0) {
        atomic_store(&store->failed, EIO);
        store_report(
            store, HL_ERROR,
            "cannot cut segment %s back to %" PRIu64
            " after a failed write (%s): appends are refused until the store is opened again",
            store->active->name, store->tail, strerror(-error));
    }
}

void log_fill_ahead(struct hl_store *store)
{
    static const uint8_t zeros[FILL_PIECE];
    uint64_t from = store->zeros_end > store->tail ? store->zeros_end : store->tail;
    uint64_t end = store->tail + FILL_BYTES;
    if (end > store->options.segment_size)
        end = store->options.segment_size;
    if (from >= store->tail + FILL_LOW || store->seal_written)
        return;
    for (uint64_t at = from; at < end;) {
        size_t size = end - at < FILL_PIECE ? (size_t)(end - at) : FILL_PIECE;
        if (hl_io_write(store->io, store->active->fd, zeros, size, at) < 0) {
            log_cut_back(store); /* what was to be gained is not worth the last room there is */
            return;
        }
        at += size;
        store->zeros_end = at;
    }
}

int log_end_zeros(struct hl_store *store)
{
    if (store->zeros_end <= store->tail)
        return 0;
    int error = hl_io_truncate(store->io, store->active->fd, store->tail);
    if (error == 0)
        store->zeros_end = 0;
    return error;
}

void log_advance(struct hl_store *store, uint64_t end)
{
    store->unsynced_bytes += end - store->tail;
    store->unindexed_bytes += end - store->tail;
    store->tail = end;
    atomic_store(&store->active->size, end);
    atomic_store(&store->position, position_make(store->active->first, end));
    if (store->unindexed_bytes >= FLUSH_LOG_BYTES)
        flush_wake(store);
    bool hurry = store->unsynced_bytes >= SYNC_AHEAD_BYTES;
    if (hurry)
        store->unsynced_bytes = 0;
    if (!atomic_exchange(&store->dirty, true) || hurry)
        commit_wake(store, hurry);
}

/* The seal is the end of the file. A crash may leave zeros behind it, which recovery cuts off. */
static int write_seal(struct hl_store *store)
{
    int error = log_end_zeros(store);
    if (error < 0)
        return error;
    uint8_t bytes[SEAL_FRAME_MAX];
    struct segment *active = store->active;
    struct seal seal = {
        .records = atomic_load(&active->records),
        .line_bytes = atomic_load(&active->line_bytes),
        .end = store->tail,
        .recorded_ms = log_clock(store),
    };
    uint64_t size = seal_frame(bytes, active->salt, &seal);
    error = hl_io_write(store->io, active->fd, bytes, size, store->tail);
    if (error < 0) {
        log_cut_back(store);
        return error;
    }
    log_advance(store, store->tail + size);
    return 0;
}

/* Makes the segment after the sealed active one, and makes it the active one. */
static int begin_next(struct hl_store *store)
{
    struct segment *next, *taken;
    uint32_t number = store->active->last;
    if (number < store->highest_number)
        number = store->highest_number; /* a file that could not be read has this one */
    int error;
    do { /* an earlier try may have left a file that could not be removed */
        if (number++ == UINT32_MAX)
            return -ENOSPC;
        error = segment_create(&store->segments, number, store->store_id, now_ms(), &next);
    } while (error == -EEXIST);
    if (error < 0)
        return error;
    error = segment_set_add(&store->segments, next);
    if (error < 0) {
        store->io->unlink(store->io->context, store->logfd, next->name, 0);
        segment_free(&store->segments, next);
        return error;
    }
    error = segment_get(&store->segments, number, &taken);
    if (error < 0)
        return error;
    segment_put(&store->segments, store->active);
    store->active = taken;
    store->tail = SEGMENT_HEADER_REGION;
    store->zeros_end = 0;
    store->next_point = SEGMENT_HEADER_REGION + POINT_SPACING;
    store->seal_written = false;
    store->unsynced_bytes = 0;
    atomic_store(&store->position, position_make(number, store->tail));
    return 0;
}

int log_seal(struct hl_store *store, struct hl_error *err)
{
    if (store->seal_written)
        return 0;
    int error = write_seal(store);
    if (error < 0)
        return hl_fail(err, -error, "cannot seal segment %s: %s", store->active->name,
                       strerror(-error));
    /* Sealed means synced: the next segment's first frame must not be on the disk before this. */
    error =
        commit_sync_file(store, store->active, position_make(store->active->first, store->tail));
    if (error < 0)
        return hl_fail(err, -error, "cannot sync segment %s: %s", store->active->name,
                       strerror(-error));
    atomic_store(&store->active->sealed, true);
    store->seal_written = true;
    return 0;
}

int log_rotate(struct hl_store *store, bool forced, struct hl_error *err)
{
    bool wanted = store->seal_written || store->tail >= store->options.segment_size ||
                  (forced && store->tail > SEGMENT_HEADER_REGION);
    if (!wanted)
        return 0;
    int error = log_seal(store, err);
    if (error < 0)
        return error;
    error = begin_next(store);
    if (error < 0)
        return hl_fail(err, -error, "cannot make the segment after %s: %s", store->active->name,
                       strerror(-error));
    return 0;
}

int log_prepare(struct hl_store *store, struct hl_error *err)
{
    if (store->options.read_only) /* its table may be full, and nobody empties it */
        return store_writable(store, err);
    for (;;) {
        /* Both tables change hands only with append_lock held. */
        size_t bytes = store->table->bytes;
        if (bytes < FLUSH_TABLE_BYTES || (!store->frozen && bytes < 2 * FLUSH_TABLE_BYTES))
            break;
        flush_wake(store);
        if (store->flush_error)
            return hl_fail(
                err, -store->flush_error,
                "the index cannot be brought up to date (%s), and no more can be kept in "
                "memory",
                strerror(-store->flush_error));
        pthread_cond_wait(&store->room, &store->append_lock);
    }
    int error = store_writable(store, err);
    if (error == 0)
        error = tail_mend(store, err);
    if (error == 0 && (store->seal_written || store->tail >= store->options.segment_size))
        error = log_rotate(store, false, err);
    return error;
}

int log_write_session(struct hl_store *store, const struct index_row *row, uint64_t recorded_ms,
                      struct hl_error *err)
{
    char *text;
    size_t len;
    int error = session_encode(row, &text, &len);
    if (error < 0)
        return hl_fail(err, -error, "cannot describe the session: %s", strerror(-error));
    uint8_t *bytes = malloc(frame_size((uint32_t)len));
    if (!bytes) {
        free(text);
        return hl_fail(err, ENOMEM, "out of memory");
    }
    memcpy(bytes + FRAME_HEADER_SIZE, text, len);
    free(text);
    struct frame frame = {
        .length = (uint32_t)len,
        .seq = row->has_seq ? row->last_seq : 0,
        .recorded_ms = recorded_ms,
        .session = row->number,
        .type = FRAME_SESSION,
        .flags = FRAME_FIRST_OF_BATCH | FRAME_LAST_OF_BATCH,
    };
    uint64_t size = frame_finish(bytes, store->active->salt, store->tail, &frame);
    error = hl_io_write(store->io, store->active->fd, bytes, size, store->tail);
    free(bytes);
    if (error < 0) {
        log_cut_back(store);
        return hl_fail(err, -error, "cannot write to segment %s: %s", store->active->name,
                       strerror(-error));
    }
    log_advance(store, store->tail + size);
    return 0;
}

int hl_rotate(struct hl_store *store, struct hl_error *err)
{
    pthread_mutex_lock(&store->append_lock);
    int error = store_writable(store, err);
    if (error == 0)
        error = tail_mend(store, err);
    if (error == 0)
        error = log_rotate(store, true, err);
    pthread_mutex_unlock(&store->append_lock);
    return error;
}
