/* listed.c - see listed.h. */
#include "listed.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "fs_internal.h"

#define PIECES 4U                     /* readers at a time */
#define PIECE_OLD_MS 1000U            /* after which another reader may have the place */
#define PIECE_MAX ((size_t)128 << 10) /* bytes; of longer ones nothing is listed ahead */
#define MISSES_MAX 2U                 /* in a row */

struct piece {
    struct listed_request request; /* reader 0: the place is free */
    uint64_t number;               /* 0: nothing is kept, and nothing is being listed */
    uint64_t begun_ms;             /* when the last one was */
    unsigned misses;               /* of the reader, in a row */
    bool kept;
    off_t next;
    char *bytes;
    size_t len, capacity;
};

struct listed {
    _Atomic uint64_t readers;
    pthread_mutex_t lock; /* guards all below; a leaf */
    uint64_t numbers;
    struct piece pieces[PIECES];
};

struct listed *listed_new(void)
{
    struct listed *listed = calloc(1, sizeof *listed);
    if (listed)
        pthread_mutex_init(&listed->lock, NULL);
    return listed;
}

void listed_free(struct listed *listed)
{
    if (!listed)
        return;
    for (size_t i = 0; i < PIECES; i++)
        free(listed->pieces[i].bytes);
    pthread_mutex_destroy(&listed->lock);
    free(listed);
}

uint64_t listed_reader(struct listed *listed)
{
    return atomic_fetch_add(&listed->readers, 1) + 1;
}

static bool is_old(const struct piece *piece)
{
    return fs_tick_ms() - piece->begun_ms > PIECE_OLD_MS;
}

/* The reader's place (of reader 0: a free one), or NULL. The lock is held. */
static struct piece *find(struct listed *listed, uint64_t reader)
{
    for (size_t i = 0; i < PIECES; i++) {
        if (listed->pieces[i].request.reader == reader)
            return &listed->pieces[i];
    }
    return NULL;
}

/* Its piece is of no use. The lock is held. */
static void miss(struct piece *piece)
{
    if (piece->number != 0)
        piece->misses++;
    piece->number = 0;
    piece->kept = false;
}

size_t listed_take(struct listed *listed, const struct listed_request *request, char *buffer,
                   off_t *next)
{
    size_t len = 0;
    pthread_mutex_lock(&listed->lock);
    struct piece *piece = find(listed, request->reader);
    if (piece && piece->kept && piece->request.offset == request->offset &&
        piece->request.size == request->size && !is_old(piece)) {
        len = piece->len;
        memcpy(buffer, piece->bytes, len);
        *next = piece->next;
        piece->misses = 0;
        piece->number = 0;
        piece->kept = false;
    } else if (piece) {
        miss(piece);
    }
    pthread_mutex_unlock(&listed->lock);
    return len;
}

void listed_miss(struct listed *listed, uint64_t reader)
{
    pthread_mutex_lock(&listed->lock);
    struct piece *piece = find(listed, reader);
    if (piece)
        miss(piece);
    pthread_mutex_unlock(&listed->lock);
}

/* The lock is held. NULL: there is none. */
static struct piece *place_for(struct listed *listed, uint64_t reader)
{
    struct piece *place = find(listed, reader);
    if (place)
        return place->misses < MISSES_MAX ? place : NULL;
    place = find(listed, 0);
    for (size_t i = 0; i < PIECES && !place; i++) {
        if (is_old(&listed->pieces[i]))
            place = &listed->pieces[i];
    }
    if (place)
        place->misses = 0;
    return place;
}

/* False: out of memory. The lock is held. */
static bool make_room(struct piece *piece, size_t size)
{
    if (size <= piece->capacity)
        return true;
    free(piece->bytes);
    piece->bytes = malloc(size);
    piece->capacity = piece->bytes ? size : 0;
    return piece->bytes != NULL;
}

uint64_t listed_begin(struct listed *listed, const struct listed_request *request)
{
    uint64_t number = 0;
    if (request->size > PIECE_MAX)
        return 0;
    pthread_mutex_lock(&listed->lock);
    struct piece *piece = place_for(listed, request->reader);
    if (piece) {
        piece->request = *request;
        piece->begun_ms = fs_tick_ms();
        piece->kept = false;
        if (make_room(piece, request->size))
            number = ++listed->numbers;
        piece->number = number;
    }
    pthread_mutex_unlock(&listed->lock);
    return number;
}

void listed_keep(struct listed *listed, uint64_t number, const char *buffer, size_t len, off_t next)
{
    pthread_mutex_lock(&listed->lock);
    for (size_t i = 0; i < PIECES; i++) {
        struct piece *piece = &listed->pieces[i];
        if (piece->number != number)
            continue;
        memcpy(piece->bytes, buffer, len);
        piece->len = len;
        piece->next = next;
        piece->kept = len > 0;
    }
    pthread_mutex_unlock(&listed->lock);
}

void listed_forget(struct listed *listed, uint64_t reader)
{
    pthread_mutex_lock(&listed->lock);
    struct piece *piece = find(listed, reader);
    if (piece)
        piece->request.reader = 0;
    pthread_mutex_unlock(&listed->lock);
}
