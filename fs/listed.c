/* listed.c - see listed.h. */
#include "listed.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "fs_internal.h"

#define PIECES 4U /* readers at a time */
#define PIECE_OLD_MS 1000U

struct piece {
    struct listed_request request; /* reader 0: nothing is here */
    off_t next;
    uint64_t listed_ms;
    char *bytes;
    size_t len, capacity;
};

struct listed {
    _Atomic uint64_t readers;
    pthread_mutex_t lock; /* guards the pieces; a leaf */
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

/* The reader's, or NULL. The lock is held. */
static struct piece *find(struct listed *listed, uint64_t reader)
{
    for (size_t i = 0; i < PIECES; i++) {
        if (listed->pieces[i].request.reader == reader)
            return &listed->pieces[i];
    }
    return NULL;
}

size_t listed_take(struct listed *listed, const struct listed_request *request, char *buffer,
                   off_t *next)
{
    size_t len = 0;
    pthread_mutex_lock(&listed->lock);
    struct piece *piece = find(listed, request->reader);
    if (piece) {
        if (piece->request.offset == request->offset && piece->request.size == request->size &&
            fs_tick_ms() - piece->listed_ms <= PIECE_OLD_MS) {
            len = piece->len;
            memcpy(buffer, piece->bytes, len);
            *next = piece->next;
        }
        piece->request.reader = 0;
    }
    pthread_mutex_unlock(&listed->lock);
    return len;
}

/* Where the reader's piece goes. The lock is held. */
static struct piece *place_for(struct listed *listed, uint64_t reader)
{
    struct piece *place = find(listed, reader);
    if (!place)
        place = find(listed, 0);
    if (place)
        return place;
    place = &listed->pieces[0];
    for (size_t i = 1; i < PIECES; i++) {
        if (listed->pieces[i].listed_ms < place->listed_ms)
            place = &listed->pieces[i];
    }
    return place;
}

void listed_keep(struct listed *listed, const struct listed_request *request, const char *buffer,
                 size_t len, off_t next)
{
    pthread_mutex_lock(&listed->lock);
    struct piece *piece = place_for(listed, request->reader);
    if (len > piece->capacity) {
        free(piece->bytes);
        piece->bytes = malloc(request->size);
        piece->capacity = piece->bytes ? request->size : 0;
        piece->request.reader = 0;
    }
    if (len <= piece->capacity) {
        memcpy(piece->bytes, buffer, len);
        piece->len = len;
        piece->next = next;
        piece->listed_ms = fs_tick_ms();
        piece->request = *request;
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
