/*
 * table.h - ids for nodes whose id cannot be computed, counted by look-up and forget.
 */
#ifndef HL_TABLE_H
#define HL_TABLE_H

#include "node.h"

struct table;

struct table *table_new(void); /* NULL: no memory */
void table_free(struct table *table);

/* The id of the node, made if there is none, with one more look-up counted. 0: no memory. */
uint64_t table_look_up(struct table *table, const struct node *node);

/* Takes back `count` look-ups; at none left the entry goes, and its id is never used again. */
void table_forget(struct table *table, uint64_t id, uint64_t count);

/* What the id names; false: there is no such entry. */
bool table_find(struct table *table, uint64_t id, struct node *node);

/* The ids of all nodes of a session, the caller's to free. NULL: there is none, *count is 0; or
 * there is no memory. */
uint64_t *table_list(struct table *table, uint32_t session, size_t *count);

size_t table_size(struct table *table);

#endif
