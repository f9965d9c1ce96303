/* scan_ahead.c - see scan_ahead.h. */
#include "scan_ahead.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "sums.h"
#include "thread.h"

#define POOL_CHUNKS 112U              /* of a quarter of a MiB or less */
#define POOL_SPARED 8U                /* of them are for the scan whose items are wanted now */
#define POOL_BODIES ((size_t)8 << 20) /* bytes; with more, only the wanted scan goes on */
#define CHUNK_ITEMS 2048U
#define CHUNK_BYTES ((size_t)128 << 10) /* of bodies; the last one may be longer */
#define CHUNK_EVENTS ((size_t)128 << 10)
/* Longer ranges are not asked for at once, they would push out what is read first. */
#define FETCH_MAX (UINT64_C(256) << 20)

/* An item as it is kept: there are many. A segment is below 4 GiB. */
struct kept {
    uint64_t seq, recorded_ms;
    void *body;     /* or NULL; owned */
    uint32_t event; /* where in chunk->events, plus 1; 0: it has no sums */
    uint32_t offset, size, length, session;
    uint16_t type, flags;
    uint8_t kind;
};

struct chunk {
    struct chunk *next;
    size_t count;
    int error;         /* after the items */
    size_t body_bytes; /* of them */
    struct kept items[CHUNK_ITEMS];
    size_t events_len;
    uint8_t events[CHUNK_EVENTS];
};

struct scan_pool {
    pthread_mutex_t lock; /* guards this, and what scans have for their consumer */
    pthread_cond_t changed;
    struct chunk *free;
    size_t unused;     /* in `free`, or not made yet */
    size_t body_bytes; /* of all chunks that wait */
};

struct scan_ahead {
    struct scan_pool *pool;
    struct scan scan; /* the thread's */
    bool events;      /* are read for the sums */
    pthread_t thread;
    /* Guarded by the pool's lock. */
    struct chunk *first, **last; /* that wait for the consumer */
    bool wanted;                 /* the consumer asks for these items now */
    bool failed;                 /* out of memory: no chunk follows */
    bool stop;
    /* The consumer's. */
    struct chunk *current;
    size_t next;
};

/* ---- the pool ---- */

struct scan_pool *scan_pool_new(void)
{
    struct scan_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return NULL;
    pool->unused = POOL_CHUNKS;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->changed, NULL);
    return pool;
}

void scan_pool_free(struct scan_pool *pool)
{
    if (!pool)
        return;
    while (pool->free) {
        struct chunk *chunk = pool->free;
        pool->free = chunk->next;
        free(chunk);
    }
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->changed);
    free(pool);
}

/* The pool is locked. */
static void give_back(struct scan_pool *pool, struct chunk *chunk)
{
    if (!chunk)
        return;
    for (size_t i = 0; i < chunk->count; i++)
        free(chunk->items[i].body);
    pool->body_bytes -= chunk->body_bytes;
    chunk->next = pool->free;
    pool->free = chunk;
    pool->unused++;
    pthread_cond_broadcast(&pool->changed);
}

/* The pool is locked. The wanted scan goes on until its consumer has something, whatever others
 * hold. */
static bool has_room(const struct scan_ahead *ahead)
{
    const struct scan_pool *pool = ahead->pool;
    if (pool->body_bytes >= POOL_BODIES && !(ahead->wanted && !ahead->first))
        return false;
    return pool->unused > (ahead->wanted ? 0 : POOL_SPARED);
}

/* An empty chunk, when there is one for this scan. NULL: nobody wants its items any more, or it
 * failed. */
static struct chunk *take_chunk(struct scan_ahead *ahead)
{
    struct scan_pool *pool = ahead->pool;
    struct chunk *chunk = NULL;
    pthread_mutex_lock(&pool->lock);
    while (!ahead->stop && !has_room(ahead))
        pthread_cond_wait(&pool->changed, &pool->lock);
    if (!ahead->stop) {
        chunk = pool->free;
        if (chunk)
            pool->free = chunk->next;
        else
            chunk = malloc(sizeof *chunk);
        if (chunk)
            pool->unused--;
        else
            ahead->failed = true;
        pthread_cond_broadcast(&pool->changed);
    }
    pthread_mutex_unlock(&pool->lock);
    if (chunk) {
        chunk->next = NULL;
        chunk->count = chunk->events_len = chunk->body_bytes = 0;
        chunk->error = 0;
    }
    return chunk;
}

/* ---- the thread ---- */

static bool keeps_body(uint16_t type)
{
    return type == FRAME_SESSION || type == FRAME_OPERATION || type == FRAME_DROP ||
           type == FRAME_SEAL;
}

/* 0 or -ENOMEM: then it is not in the chunk. */
static int keep(struct scan_ahead *ahead, struct chunk *chunk, const struct scan_item *item)
{
    const struct frame *frame = &item->frame;
    struct kept *kept = &chunk->items[chunk->count];
    *kept = (struct kept){
        .seq = frame->seq,
        .recorded_ms = frame->recorded_ms,
        .offset = (uint32_t)item->offset,
        .size = (uint32_t)item->size,
        .length = frame->length,
        .session = frame->session,
        .type = frame->type,
        .flags = frame->flags,
        .kind = (uint8_t)item->kind,
    };
    if (item->kind == SCAN_FRAME && frame->type == FRAME_EVENT && ahead->events) {
        size_t len =
            sums_event_read_packed(frame->body, frame->length, chunk->events + chunk->events_len);
        kept->event = len > 0 ? (uint32_t)chunk->events_len + 1 : 0;
        chunk->events_len += len;
    } else if (item->kind == SCAN_FRAME && keeps_body(frame->type)) {
        kept->body = malloc(frame->length ? frame->length : 1);
        if (!kept->body)
            return -ENOMEM;
        memcpy(kept->body, frame->body, frame->length);
        chunk->body_bytes += frame->length;
    }
    chunk->count++;
    return 0;
}

/* Fills a chunk; true when there is more to come after it. */
static bool fill_chunk(struct scan_ahead *ahead, struct chunk *chunk)
{
    while (chunk->count < CHUNK_ITEMS && chunk->body_bytes < CHUNK_BYTES &&
           chunk->events_len + SUMS_PACKED_MAX <= CHUNK_EVENTS) {
        struct scan_item item;
        chunk->error = scan_next(&ahead->scan, &item);
        if (chunk->error == 0)
            chunk->error = keep(ahead, chunk, &item);
        if (chunk->error < 0 || item.kind == SCAN_END)
            return false;
    }
    return true;
}

static void *scan_run(void *context)
{
    struct scan_ahead *ahead = context;
    struct scan_pool *pool = ahead->pool;
    bool more = true;
    const struct scan *scan = &ahead->scan;
    if (scan->next <= SEGMENT_HEADER_REGION && scan->end <= FETCH_MAX)
        (void)scan->io->fetch(scan->io->context, scan->fd); /* it only helps */
    while (more) {
        struct chunk *chunk = take_chunk(ahead);
        if (!chunk)
            break;
        more = fill_chunk(ahead, chunk);
        pthread_mutex_lock(&pool->lock);
        pool->body_bytes += chunk->body_bytes;
        *ahead->last = chunk;
        ahead->last = &chunk->next;
        pthread_cond_broadcast(&pool->changed);
        pthread_mutex_unlock(&pool->lock);
    }
    return NULL;
}

/* ---- the consumer ---- */

struct scan_ahead *scan_ahead_start(struct scan_pool *pool, const struct hl_io *io, int fd,
                                    uint32_t salt, uint64_t from, uint64_t end, bool events)
{
    struct scan_ahead *ahead = pool ? calloc(1, sizeof *ahead) : NULL;
    if (!ahead)
        return NULL;
    ahead->pool = pool;
    ahead->events = events;
    ahead->last = &ahead->first;
    scan_init(&ahead->scan, io, fd, salt, from, end);
    if (thread_start(&ahead->thread, scan_run, ahead) < 0) {
        free(ahead);
        return NULL;
    }
    return ahead;
}

/* The chunk after the current one; false: there is none, for want of memory. */
static bool next_chunk(struct scan_ahead *ahead)
{
    struct scan_pool *pool = ahead->pool;
    pthread_mutex_lock(&pool->lock);
    give_back(pool, ahead->current);
    if (!ahead->wanted)
        pthread_cond_broadcast(&pool->changed);
    ahead->wanted = true;
    while (!ahead->first && !ahead->failed)
        pthread_cond_wait(&pool->changed, &pool->lock);
    ahead->current = ahead->first;
    if (ahead->current) {
        ahead->first = ahead->current->next;
        if (!ahead->first)
            ahead->last = &ahead->first;
    }
    pthread_mutex_unlock(&pool->lock);
    ahead->next = 0;
    return ahead->current != NULL;
}

int scan_ahead_next(struct scan_ahead *ahead, struct scan_item *item)
{
    while (!ahead->current || ahead->next == ahead->current->count) {
        if (ahead->current && ahead->current->error < 0)
            return ahead->current->error;
        if (!next_chunk(ahead))
            return -ENOMEM;
    }
    const struct chunk *chunk = ahead->current;
    const struct kept *kept = &chunk->items[ahead->next++];
    *item = (struct scan_item){
        .kind = kept->kind,
        .offset = kept->offset,
        .size = kept->size,
        .frame = {.length = kept->length,
                  .seq = kept->seq,
                  .recorded_ms = kept->recorded_ms,
                  .session = kept->session,
                  .type = kept->type,
                  .flags = kept->flags,
                  .body = kept->body},
        .event = kept->event > 0 ? chunk->events + kept->event - 1 : NULL,
    };
    return 0;
}

void scan_ahead_stop(struct scan_ahead *ahead)
{
    if (!ahead)
        return;
    struct scan_pool *pool = ahead->pool;
    pthread_mutex_lock(&pool->lock);
    ahead->stop = true;
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->lock);
    pthread_join(ahead->thread, NULL);
    pthread_mutex_lock(&pool->lock);
    give_back(pool, ahead->current);
    while (ahead->first) {
        struct chunk *chunk = ahead->first;
        ahead->first = chunk->next;
        give_back(pool, chunk);
    }
    pthread_mutex_unlock(&pool->lock);
    scan_free(&ahead->scan);
    free(ahead);
}
