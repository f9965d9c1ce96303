/* mem_calls.c - see mem_calls.h. */
#include "mem_calls.h"

#include <errno.h>
#include <stdlib.h>

#define FIRST_CAPACITY 4U

static uint32_t *bucket_of(const struct mem_calls *calls, uint64_t hash)
{
    return &calls->buckets[(uint32_t)hash & (calls->capacity * 2 - 1)];
}

static void link_call(struct mem_calls *calls, uint32_t i)
{
    uint32_t *bucket = bucket_of(calls, calls->at[i].call.hash);
    calls->at[i].next = *bucket;
    *bucket = i + 1;
}

/* In order of arrival, so that the newest of a bucket stays its first: mem_calls_cut(). */
static int grow(struct mem_calls *calls)
{
    if (calls->capacity > UINT32_MAX / 4)
        return -ENOMEM;
    uint32_t capacity = calls->capacity ? calls->capacity * 2 : FIRST_CAPACITY;
    struct mem_call *at = realloc(calls->at, capacity * sizeof *at);
    if (!at)
        return -ENOMEM;
    calls->at = at;
    uint32_t *buckets = calloc((size_t)capacity * 2, sizeof *buckets);
    if (!buckets)
        return -ENOMEM;
    free(calls->buckets);
    calls->buckets = buckets;
    calls->capacity = capacity;
    for (uint32_t i = 0; i < calls->count; i++)
        link_call(calls, i);
    return 0;
}

void mem_calls_free(struct mem_calls *calls)
{
    free(calls->at);
    free(calls->buckets);
    *calls = (struct mem_calls){0};
}

struct index_call *mem_calls_find(const struct mem_calls *calls, uint64_t hash)
{
    if (calls->count == 0)
        return NULL;
    for (uint32_t link = *bucket_of(calls, hash); link > 0; link = calls->at[link - 1].next)
        if (calls->at[link - 1].call.hash == hash)
            return &calls->at[link - 1].call;
    return NULL;
}

int mem_calls_add(struct mem_calls *calls, const struct index_call *call)
{
    int error = calls->count == calls->capacity ? grow(calls) : 0;
    if (error < 0)
        return error;
    calls->at[calls->count].call = *call;
    link_call(calls, calls->count++);
    return 0;
}

void mem_calls_cut(struct mem_calls *calls, uint32_t count)
{
    while (calls->count > count) {
        const struct mem_call *newest = &calls->at[--calls->count];
        *bucket_of(calls, newest->call.hash) = newest->next;
    }
}

size_t mem_calls_bytes(const struct mem_calls *calls)
{
    return calls->capacity * (sizeof(struct mem_call) + 2 * sizeof(uint32_t));
}
