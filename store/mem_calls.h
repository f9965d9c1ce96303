/*
 * mem_calls.h - the tool_call_ids of a session that a memtable has met since it was begun, each
 * with the seqs of the first and the last event that has it.
 *
 * Guarded by the store's append lock; a frozen table's are only read.
 */
#ifndef HL_MEM_CALLS_H
#define HL_MEM_CALLS_H

#include "index.h"

struct mem_call {
    struct index_call call;
    uint32_t next; /* in its bucket, plus 1 */
};

/* Zero it to begin. */
struct mem_calls {
    struct mem_call *at; /* in order of arrival */
    uint32_t count, capacity;
    uint32_t *buckets; /* plus 1; capacity * 2 of them, or none */
};

void mem_calls_free(struct mem_calls *calls); /* what it holds, not itself */
struct index_call *mem_calls_find(const struct mem_calls *calls, uint64_t hash); /* NULL: none */
/* Adds one that is not there. -ENOMEM. */
int mem_calls_add(struct mem_calls *calls, const struct index_call *call);
/* Takes the newest out again, until there are `count`. */
void mem_calls_cut(struct mem_calls *calls, uint32_t count);
size_t mem_calls_bytes(const struct mem_calls *calls);

#endif
