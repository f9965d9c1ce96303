/* scan_ahead.c - see scan_ahead.h. */
#include "scan_ahead.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "sums.h"
#include "thread.h"

#define SCAN_AHEAD_CHUNKS 8U
#define CHUNK_ITEMS 2048U
#define CHUNK_BYTES ((size_t)128 << 10) /* of bodies; the last one may be longer */
#define CHUNK_EVENTS ((size_t)128 << 10)

struct chunk {
    size_t count;
    int error; /* after the items */
    struct scan_item items[CHUNK_ITEMS];
    size_t events_len;
    uint8_t events[CHUNK_EVENTS];
};

struct scan_ahead {
    struct scan scan; /* the thread's */
    bool events;      /* are read for the sums */
    pthread_t thread;
    pthread_mutex_t lock; /* guards the ring and stop */
    pthread_cond_t changed;
    struct chunk *ring[SCAN_AHEAD_CHUNKS];
    size_t first, waiting;
    bool stop;
    /* The consumer's. */
    struct chunk *current;
    size_t next;
};

static void chunk_free(struct chunk *chunk)
{
    if (!chunk)
        return;
    for (size_t i = 0; i < chunk->count; i++)
        free((void *)(uintptr_t)chunk->items[i].frame.body);
    free(chunk);
}

/* Fills a chunk; true when there is more to come after it. */
static bool fill_chunk(struct scan_ahead *ahead, struct chunk *chunk)
{
    size_t bytes = 0;
    while (chunk->count < CHUNK_ITEMS && bytes < CHUNK_BYTES &&
           chunk->events_len + SUMS_PACKED_MAX <= CHUNK_EVENTS) {
        struct scan_item *item = &chunk->items[chunk->count];
        chunk->error = scan_next(&ahead->scan, item);
        if (chunk->error < 0)
            return false;
        const char *body = item->frame.body;
        struct sums_event event;
        item->frame.body = NULL;
        item->event = NULL;
        chunk->count++;
        if (ahead->events && item->kind == SCAN_FRAME && item->frame.type == FRAME_EVENT &&
            sums_event_read(body, item->frame.length, &event)) {
            uint8_t *to = chunk->events + chunk->events_len;
            chunk->events_len += sums_event_pack(&event, to);
            item->event = to;
        }
        if (item->kind == SCAN_FRAME &&
            (item->frame.type == FRAME_SESSION || item->frame.type == FRAME_OPERATION ||
             item->frame.type == FRAME_DROP || item->frame.type == FRAME_SEAL)) {
            char *copy = malloc(item->frame.length ? item->frame.length : 1);
            if (!copy) {
                chunk->error = -ENOMEM;
                chunk->count--;
                return false;
            }
            memcpy(copy, body, item->frame.length);
            item->frame.body = copy;
            bytes += item->frame.length;
        }
        if (item->kind == SCAN_END)
            return false;
    }
    return true;
}

/* Hands a chunk over; false when nobody wants it. */
static bool hand_over(struct scan_ahead *ahead, struct chunk *chunk)
{
    pthread_mutex_lock(&ahead->lock);
    while (!ahead->stop && ahead->waiting == SCAN_AHEAD_CHUNKS)
        pthread_cond_wait(&ahead->changed, &ahead->lock);
    bool wanted = !ahead->stop;
    if (wanted) {
        ahead->ring[(ahead->first + ahead->waiting++) % SCAN_AHEAD_CHUNKS] = chunk;
        pthread_cond_signal(&ahead->changed);
    }
    pthread_mutex_unlock(&ahead->lock);
    return wanted;
}

static void *scan_run(void *context)
{
    struct scan_ahead *ahead = context;
    bool more = true;
    while (more) {
        struct chunk *chunk = malloc(sizeof *chunk);
        if (!chunk)
            break;
        chunk->count = 0;
        chunk->events_len = 0;
        chunk->error = 0;
        more = fill_chunk(ahead, chunk);
        if (!hand_over(ahead, chunk)) {
            chunk_free(chunk);
            return NULL;
        }
    }
    if (more)
        hand_over(ahead, NULL); /* out of memory */
    return NULL;
}

struct scan_ahead *scan_ahead_start(const struct hl_io *io, int fd, uint32_t salt, uint64_t from,
                                    uint64_t end, bool events)
{
    struct scan_ahead *ahead = calloc(1, sizeof *ahead);
    if (!ahead)
        return NULL;
    ahead->events = events;
    scan_init(&ahead->scan, io, fd, salt, from, end);
    pthread_mutex_init(&ahead->lock, NULL);
    pthread_cond_init(&ahead->changed, NULL);
    if (thread_start(&ahead->thread, scan_run, ahead) < 0) {
        pthread_mutex_destroy(&ahead->lock);
        pthread_cond_destroy(&ahead->changed);
        free(ahead);
        return NULL;
    }
    return ahead;
}

int scan_ahead_next(struct scan_ahead *ahead, struct scan_item *item)
{
    if (ahead->current && ahead->next < ahead->current->count) {
        *item = ahead->current->items[ahead->next++];
        return 0;
    }
    if (ahead->current && ahead->current->error < 0)
        return ahead->current->error;
    chunk_free(ahead->current);
    pthread_mutex_lock(&ahead->lock);
    while (ahead->waiting == 0)
        pthread_cond_wait(&ahead->changed, &ahead->lock);
    ahead->current = ahead->ring[ahead->first];
    ahead->first = (ahead->first + 1) % SCAN_AHEAD_CHUNKS;
    ahead->waiting--;
    pthread_cond_signal(&ahead->changed);
    pthread_mutex_unlock(&ahead->lock);
    ahead->next = 0;
    return ahead->current ? scan_ahead_next(ahead, item) : -ENOMEM;
}

void scan_ahead_stop(struct scan_ahead *ahead)
{
    if (!ahead)
        return;
    pthread_mutex_lock(&ahead->lock);
    ahead->stop = true;
    pthread_cond_signal(&ahead->changed);
    pthread_mutex_unlock(&ahead->lock);
    pthread_join(ahead->thread, NULL);
    for (; ahead->waiting > 0; ahead->waiting--) {
        chunk_free(ahead->ring[ahead->first]);
        ahead->first = (ahead->first + 1) % SCAN_AHEAD_CHUNKS;
    }
    chunk_free(ahead->current);
    scan_free(&ahead->scan);
    pthread_mutex_destroy(&ahead->lock);
    pthread_cond_destroy(&ahead->changed);
    free(ahead);
}
