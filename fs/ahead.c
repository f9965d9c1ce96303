/* ahead.c - see ahead.h. */
#include "ahead.h"

#include "dropped.h"

#include <stdlib.h>

#define PIECES 4U          /* readers at a time; what another one reads is not read ahead */
#define PIECE_OLD_MS 1000U /* after which another reader may have the place */

/* What a session has lost. The store's number counts a record as lost when nobody can find it any
 * more, but begins anew with an index that is made anew; the generation never goes back, but may
 * rise before the records go. */
struct losses {
    uint64_t gone;
    uint32_t generation;
};

struct ahead_piece {
    struct ahead_reader reader; /* as it was asked for; id 0: nothing is here */
    bool taken;                 /* it is filled, or somebody has it */
    uint64_t read_ms;           /* when it was begun */
    /* Of whoever has it: */
    struct losses losses; /* when it was read */
    struct hl_cursor behind;
    char *bytes;
    size_t capacity;
};

struct ahead {
    struct dropped *dropped;
    _Atomic uint64_t readers;
    pthread_mutex_t lock; /* guards all below, but for what is of whoever has a piece; a leaf */
    pthread_cond_t given; /* a piece is taken no more */
    struct ahead_piece pieces[PIECES];
};

struct ahead *ahead_new(struct dropped *dropped)
{
    struct ahead *ahead = calloc(1, sizeof *ahead);
    if (!ahead)
        return NULL;
    ahead->dropped = dropped;
    pthread_mutex_init(&ahead->lock, NULL);
    pthread_cond_init(&ahead->given, NULL);
    return ahead;
}

void ahead_free(struct ahead *ahead)
{
    if (!ahead)
        return;
    for (size_t i = 0; i < PIECES; i++)
        free(ahead->pieces[i].bytes);
    pthread_cond_destroy(&ahead->given);
    pthread_mutex_destroy(&ahead->lock);
    free(ahead);
}

uint64_t ahead_reader_id(struct ahead *ahead)
{
    return atomic_fetch_add(&ahead->readers, 1) + 1;
}

/* False: the session is gone itself. */
static bool find_losses(struct ahead *ahead, struct hl_store *store, uint32_t session,
                        struct losses *losses)
{
    struct hl_session found;
    losses->generation = dropped_generation(ahead->dropped, session);
    if (hl_session_by_number(store, session, &found) < 0)
        return false;
    losses->gone = found.gone;
    return true;
}

/* Whether it is what would be read now. The caller has the piece. */
static bool is_good(struct ahead *ahead, struct hl_store *store, const struct ahead_piece *piece)
{
    struct losses losses;
    return find_losses(ahead, store, piece->reader.session, &losses) &&
           losses.gone == piece->losses.gone && losses.generation == piece->losses.generation;
}

/* The reader's piece, taken or not; others of its are of no use any more. The lock is held. */
static struct ahead_piece *find(struct ahead *ahead, const struct ahead_reader *reader)
{
    struct ahead_piece *found = NULL;
    for (size_t i = 0; i < PIECES; i++) {
        struct ahead_piece *piece = &ahead->pieces[i];
        if (piece->reader.id != reader->id)
            continue;
        if (piece->reader.offset == reader->offset && piece->reader.size == reader->size)
            found = piece;
        else if (!piece->taken)
            piece->reader.id = 0;
    }
    return found;
}

struct ahead_piece *ahead_take(struct ahead *ahead, struct hl_store *store,
                               const struct ahead_reader *reader)
{
    struct ahead_piece *piece;
    pthread_mutex_lock(&ahead->lock);
    /* While it is read there is nothing better to do than to wait. */
    while ((piece = find(ahead, reader)) && piece->taken)
        pthread_cond_wait(&ahead->given, &ahead->lock);
    if (piece)
        piece->taken = true;
    pthread_mutex_unlock(&ahead->lock);
    if (!piece)
        return NULL;
    if (is_good(ahead, store, piece))
        return piece;
    ahead_put(ahead, piece);
    return NULL;
}

const char *ahead_bytes(const struct ahead_piece *piece)
{
    return piece->bytes;
}

const struct hl_cursor *ahead_cursor(const struct ahead_piece *piece)
{
    return &piece->behind;
}

/* It is there for its reader, or nothing is. */
static void give(struct ahead *ahead, struct ahead_piece *piece, bool filled)
{
    pthread_mutex_lock(&ahead->lock);
    if (!filled)
        piece->reader.id = 0;
    piece->taken = false;
    pthread_cond_broadcast(&ahead->given);
    pthread_mutex_unlock(&ahead->lock);
}

void ahead_put(struct ahead *ahead, struct ahead_piece *piece)
{
    if (piece)
        give(ahead, piece, false);
}

/* What was read for the reader is of no use any more. The lock is held. */
static void forget(struct ahead *ahead, uint64_t id)
{
    for (size_t i = 0; i < PIECES; i++) {
        if (ahead->pieces[i].reader.id == id && !ahead->pieces[i].taken)
            ahead->pieces[i].reader.id = 0;
    }
}

void ahead_forget(struct ahead *ahead, uint64_t id)
{
    pthread_mutex_lock(&ahead->lock);
    forget(ahead, id);
    pthread_mutex_unlock(&ahead->lock);
}

/* A place for what the reader wants: an empty one, or one that nobody has asked for in a while. */
static struct ahead_piece *take_place(struct ahead *ahead, const struct ahead_reader *reader)
{
    struct ahead_piece *place = NULL;
    uint64_t now = fs_tick_ms();
    pthread_mutex_lock(&ahead->lock);
    forget(ahead, reader->id);
    for (size_t i = 0; i < PIECES && !place; i++) {
        struct ahead_piece *piece = &ahead->pieces[i];
        if (!piece->taken && (piece->reader.id == 0 || now - piece->read_ms > PIECE_OLD_MS))
            place = piece;
    }
    if (place) {
        place->taken = true;
        place->reader = *reader;
        place->read_ms = now;
    }
    pthread_mutex_unlock(&ahead->lock);
    return place;
}

static bool fill(struct ahead *ahead, struct ahead_piece *piece, struct hl_store *store,
                 const struct ahead_reader *reader)
{
    if (piece->capacity < reader->size) {
        free(piece->bytes);
        piece->bytes = malloc(reader->size);
        piece->capacity = piece->bytes ? reader->size : 0;
    }
    piece->behind = reader->cursor;
    /* First what was lost: what is lost while it is read is seen when it is taken. */
    return piece->bytes && find_losses(ahead, store, reader->session, &piece->losses) &&
           hl_log_read(store, reader->session, reader->offset, piece->bytes, reader->size,
                       &piece->behind) == (ssize_t)reader->size;
}

void ahead_read(struct ahead *ahead, struct hl_store *store, const struct ahead_reader *reader)
{
    struct ahead_piece *piece = take_place(ahead, reader);
    if (piece)
        give(ahead, piece, fill(ahead, piece, store, reader));
}
