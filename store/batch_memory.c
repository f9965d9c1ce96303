/* batch_memory.c - what a batch is put together in, kept between appends; see batch.h. */
#include <stdlib.h>

#include "batch.h"

/* More than this of one kind goes back to the system: what a write of 1 MiB takes is less. */
#define KEPT_BYTES ((size_t)2 << 20)
#define LARGE_BYTES ((size_t)64 << 10) /* a batch of so many bytes takes the large one */

enum batch_size batch_size(size_t bytes)
{
    return bytes >= LARGE_BYTES ? BATCH_LARGE : BATCH_SMALL;
}

struct batch_memory *batch_memory_take(struct hl_store *store, enum batch_size size)
{
    struct batch_memory *memory = atomic_exchange(&store->batch_memory[size], NULL);
    if (!memory)
        memory = calloc(1, sizeof *memory);
    if (memory)
        memory->size = size;
    return memory;
}

void batch_begin(struct batch *batch, struct hl_store *store, const struct hl_append *request,
                 struct batch_memory *memory, struct hl_error *err)
{
    *batch = (struct batch){
        .store = store,
        .request = request,
        .err = err,
        .data = request->data,
        .len = request->len,
        .memory = memory,
        .placed = {.at = memory->placed, .capacity = memory->placed_capacity},
    };
}

void batch_end(struct batch *batch)
{
    batch->memory->placed = batch->placed.at;
    batch->memory->placed_capacity = batch->placed.capacity;
    batch_memory_put(batch->store, batch->memory);
}

static void *keep(void *at, size_t *capacity, size_t size)
{
    if (*capacity * size <= KEPT_BYTES)
        return at;
    free(at);
    *capacity = 0;
    return NULL;
}

void batch_memory_put(struct hl_store *store, struct batch_memory *memory)
{
    memory->lines = keep(memory->lines, &memory->line_capacity, sizeof *memory->lines);
    memory->buffer = keep(memory->buffer, &memory->buffer_capacity, 1);
    memory->placed = keep(memory->placed, &memory->placed_capacity, sizeof *memory->placed);
    memory->touched = keep(memory->touched, &memory->touched_capacity, sizeof(*memory->touched));
    memory->told = keep(memory->told, &memory->told_capacity, sizeof *memory->told);
    /* Two appends at once leave two: the newer stays. */
    batch_memory_free(atomic_exchange(&store->batch_memory[memory->size], memory));
}

void batch_memory_free(struct batch_memory *memory)
{
    if (!memory)
        return;
    free(memory->lines);
    free(memory->buffer);
    free(memory->placed);
    free(memory->touched);
    free(memory->told);
    free(memory);
}
