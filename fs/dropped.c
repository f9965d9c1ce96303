/*
 * dropped.c - generations: what a `log`, a range or a history becomes when records are dropped.
 *
 * Two hash tables of chains: the sessions of which something was dropped, and the open files.
 */
#include "dropped.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define CHAINS 256 /* a power of two */

struct session {
    struct session *next;
    uint32_t number;
    uint32_t generation;
    uint64_t bytes; /* gone since the mount */
    uint64_t seen;  /* of dropped_watch() */
};

struct dropped_file {
    struct dropped_file *next;
    struct node node;
    size_t opens;
    uint64_t bytes; /* that were gone when it was opened first */
    _Atomic uint64_t read_to;
};

struct dropped {
    pthread_mutex_t lock; /* guards all below but read_to; a leaf */
    struct session *sessions[CHAINS];
    struct dropped_file *files[CHAINS];
};

struct dropped *dropped_new(void)
{
    struct dropped *dropped = calloc(1, sizeof *dropped);
    if (dropped)
        pthread_mutex_init(&dropped->lock, NULL);
    return dropped;
}

void dropped_free(struct dropped *dropped)
{
    if (!dropped)
        return;
    for (size_t i = 0; i < CHAINS; i++) {
        for (struct session *at = dropped->sessions[i], *next; at; at = next) {
            next = at->next;
            free(at);
        }
        for (struct dropped_file *at = dropped->files[i], *next; at; at = next) {
            next = at->next;
            free(at);
        }
    }
    pthread_mutex_destroy(&dropped->lock);
    free(dropped);
}

/* ---- sessions ---------------------------------------------------------------------------------
 */

/* Where the session's entry is, or is to be put. The lock is held, as below. */
static struct session **find_session(struct dropped *dropped, uint32_t number)
{
    struct session **at = &dropped->sessions[number & (CHAINS - 1)];
    while (*at && (*at)->number != number)
        at = &(*at)->next;
    return at;
}

static uint64_t bytes_of(struct dropped *dropped, uint32_t number)
{
    const struct session *session = *find_session(dropped, number);
    return session ? session->bytes : 0;
}

static bool is_old(struct dropped *dropped, const struct node *node)
{
    const struct session *session = *find_session(dropped, node->session);
    return session && node_has_generation(node->kind) && node->generation != session->generation;
}

bool dropped_add(struct dropped *dropped, uint32_t number, uint64_t bytes)
{
    pthread_mutex_lock(&dropped->lock);
    struct session **at = find_session(dropped, number);
    if (!*at && (*at = calloc(1, sizeof **at)) != NULL)
        (*at)->number = number;
    bool added = *at != NULL;
    if (added) {
        (*at)->generation++;
        (*at)->bytes += bytes;
    }
    pthread_mutex_unlock(&dropped->lock);
    return added;
}

bool dropped_watch(struct dropped *dropped, uint32_t number, uint64_t gone)
{
    pthread_mutex_lock(&dropped->lock);
    struct session **at = find_session(dropped, number);
    if (!*at && (*at = calloc(1, sizeof **at)) != NULL) {
        (*at)->number = number;
        (*at)->seen = gone;
    }
    bool watched = *at != NULL;
    pthread_mutex_unlock(&dropped->lock);
    return watched;
}

void dropped_seen(struct dropped *dropped, uint32_t number, uint64_t gone)
{
    pthread_mutex_lock(&dropped->lock);
    struct session *session = *find_session(dropped, number);
    if (session && gone > session->seen) {
        session->generation++;
        session->bytes += gone - session->seen;
        session->seen = gone;
    }
    pthread_mutex_unlock(&dropped->lock);
}

void dropped_forget(struct dropped *dropped, uint32_t number)
{
    pthread_mutex_lock(&dropped->lock);
    struct session **at = find_session(dropped, number), *session = *at;
    if (session)
        *at = session->next;
    pthread_mutex_unlock(&dropped->lock);
    free(session);
}

uint32_t dropped_generation(struct dropped *dropped, uint32_t number)
{
    pthread_mutex_lock(&dropped->lock);
    const struct session *session = *find_session(dropped, number);
    uint32_t generation = session ? session->generation : 0;
    pthread_mutex_unlock(&dropped->lock);
    return generation;
}

bool dropped_is_old(struct dropped *dropped, const struct node *node)
{
    pthread_mutex_lock(&dropped->lock);
    bool old = is_old(dropped, node);
    pthread_mutex_unlock(&dropped->lock);
    return old;
}

/* ---- files ------------------------------------------------------------------------------------
 */

static struct dropped_file **find_file(struct dropped *dropped, const struct node *node)
{
    uint64_t hash = node_inode(node) * UINT64_C(0x9e3779b97f4a7c15); /* ids of logs end alike */
    struct dropped_file **at = &dropped->files[hash >> 32 & (CHAINS - 1)];
    while (*at && !node_equal(&(*at)->node, node))
        at = &(*at)->next;
    return at;
}

struct dropped_file *dropped_open(struct dropped *dropped, const struct node *node)
{
    pthread_mutex_lock(&dropped->lock);
    struct dropped_file **at = find_file(dropped, node);
    if (!*at && (*at = calloc(1, sizeof **at)) != NULL) {
        (*at)->node = *node;
        (*at)->bytes = bytes_of(dropped, node->session);
    }
    struct dropped_file *file = *at;
    if (file)
        file->opens++;
    pthread_mutex_unlock(&dropped->lock);
    return file;
}

void dropped_close(struct dropped *dropped, struct dropped_file *file)
{
    pthread_mutex_lock(&dropped->lock);
    bool last = --file->opens == 0;
    if (last)
        *find_file(dropped, &file->node) = file->next;
    pthread_mutex_unlock(&dropped->lock);
    if (last)
        free(file);
}

bool dropped_read_to(struct dropped_file *file, uint64_t offset)
{
    uint64_t before = atomic_load(&file->read_to);
    while (before < offset && !atomic_compare_exchange_weak(&file->read_to, &before, offset))
        ;
    return before <= offset;
}

bool dropped_size(struct dropped *dropped, const struct node *node, uint64_t *size)
{
    pthread_mutex_lock(&dropped->lock);
    struct dropped_file *file = *find_file(dropped, node);
    bool shown = file || !is_old(dropped, node);
    if (file) {
        uint64_t read_to = atomic_load(&file->read_to);
        uint64_t gone = bytes_of(dropped, node->session);
        *size += gone > file->bytes ? gone - file->bytes : 0;
        if (*size < read_to)
            *size = read_to;
    }
    pthread_mutex_unlock(&dropped->lock);
    return shown;
}
