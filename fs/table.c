/*
 * table.c - ids for nodes whose id cannot be computed, counted by look-up and forget.
 *
 * Two hash tables over the same entries, one by id and one by what is named, both of chains and
 * both grown together when there are as many entries as chains.
 */
#include "table.h"

#include <pthread.h>
#include <stdlib.h>

struct entry {
    struct node node;
    uint64_t id;
    uint64_t lookups;
    struct entry *next_by_id, *next_by_node;
};

struct table {
    pthread_mutex_t lock; /* guards all below; a leaf: nothing is locked or called under it */
    struct entry **by_id, **by_node;
    size_t chains; /* a power of two */
    size_t count;
    uint64_t next; /* number of the next entry */
};

#define FIRST_CHAINS 64

struct table *table_new(void)
{
    struct table *table = calloc(1, sizeof *table);
    if (!table)
        return NULL;
    table->by_id = calloc(FIRST_CHAINS, sizeof *table->by_id);
    table->by_node = calloc(FIRST_CHAINS, sizeof *table->by_node);
    if (!table->by_id || !table->by_node || pthread_mutex_init(&table->lock, NULL) != 0) {
        free(table->by_id);
        free(table->by_node);
        free(table);
        return NULL;
    }
    table->chains = FIRST_CHAINS;
    return table;
}

void table_free(struct table *table)
{
    if (!table)
        return;
    for (size_t i = 0; i < table->chains; i++) {
        struct entry *entry = table->by_id[i];
        while (entry) {
            struct entry *next = entry->next_by_id;
            free(entry);
            entry = next;
        }
    }
    free(table->by_id);
    free(table->by_node);
    pthread_mutex_destroy(&table->lock);
    free(table);
}

/* Ids are given in order, so their low bits spread them; inode numbers of table nodes are hashes,
 * those of others differ in their low bits. */
static size_t id_chain(const struct table *table, uint64_t id)
{
    return (size_t)id & (table->chains - 1);
}

static size_t node_chain(const struct table *table, const struct node *node)
{
    return (size_t)node_inode(node) & (table->chains - 1);
}

static void link_entry(struct table *table, struct entry *entry)
{
    size_t chain = id_chain(table, entry->id);
    entry->next_by_id = table->by_id[chain];
    table->by_id[chain] = entry;
    chain = node_chain(table, &entry->node);
    entry->next_by_node = table->by_node[chain];
    table->by_node[chain] = entry;
}

/* Doubles the chains. Without memory for it they only grow longer. */
static void grow(struct table *table)
{
    size_t chains = table->chains * 2;
    struct entry **by_id = calloc(chains, sizeof *by_id);
    struct entry **by_node = calloc(chains, sizeof *by_node);
    if (!by_id || !by_node) {
        free(by_id);
        free(by_node);
        return;
    }
    struct entry **old = table->by_id;
    size_t old_chains = table->chains;
    free(table->by_node);
    table->by_id = by_id;
    table->by_node = by_node;
    table->chains = chains;
    for (size_t i = 0; i < old_chains; i++) {
        struct entry *entry = old[i];
        while (entry) {
            struct entry *next = entry->next_by_id;
            link_entry(table, entry);
            entry = next;
        }
    }
    free(old);
}

static struct entry *find_node(struct table *table, const struct node *node)
{
    struct entry *entry = table->by_node[node_chain(table, node)];
    while (entry && !node_equal(&entry->node, node))
        entry = entry->next_by_node;
    return entry;
}

uint64_t table_look_up(struct table *table, const struct node *node)
{
    uint64_t id = 0;

    pthread_mutex_lock(&table->lock);
    struct entry *entry = find_node(table, node);
    if (!entry) {
        entry = calloc(1, sizeof *entry);
        if (entry) {
            if (table->count >= table->chains)
                grow(table);
            entry->node = *node;
            entry->id = node_table_id(table->next++);
            link_entry(table, entry);
            table->count++;
        }
    }
    if (entry) {
        entry->lookups++;
        id = entry->id;
    }
    pthread_mutex_unlock(&table->lock);
    return id;
}

/* Takes an entry out of both tables and frees it. */
static void drop(struct table *table, struct entry *entry)
{
    struct entry **at = &table->by_id[id_chain(table, entry->id)];
    while (*at != entry)
        at = &(*at)->next_by_id;
    *at = entry->next_by_id;
    at = &table->by_node[node_chain(table, &entry->node)];
    while (*at != entry)
        at = &(*at)->next_by_node;
    *at = entry->next_by_node;
    table->count--;
    free(entry);
}

static struct entry *find_id(struct table *table, uint64_t id)
{
    struct entry *entry = table->by_id[id_chain(table, id)];
    while (entry && entry->id != id)
        entry = entry->next_by_id;
    return entry;
}

void table_forget(struct table *table, uint64_t id, uint64_t count)
{
    pthread_mutex_lock(&table->lock);
    struct entry *entry = find_id(table, id);
    if (entry) {
        entry->lookups -= count < entry->lookups ? count : entry->lookups;
        if (entry->lookups == 0)
            drop(table, entry);
    }
    pthread_mutex_unlock(&table->lock);
}

bool table_find(struct table *table, uint64_t id, struct node *node)
{
    pthread_mutex_lock(&table->lock);
    struct entry *entry = find_id(table, id);
    if (entry)
        *node = entry->node;
    pthread_mutex_unlock(&table->lock);
    return entry != NULL;
}

uint64_t *table_list(struct table *table, uint32_t session, size_t *count)
{
    uint64_t *ids = NULL;

    *count = 0;
    pthread_mutex_lock(&table->lock);
    /* Twice: to count them, and to take them. */
    for (int pass = 0; pass < 2; pass++) {
        size_t found = 0;
        for (size_t i = 0; i < table->chains; i++) {
            for (const struct entry *entry = table->by_id[i]; entry; entry = entry->next_by_id) {
                if (entry->node.session != session)
                    continue;
                if (ids)
                    ids[found] = entry->id;
                found++;
            }
        }
        *count = found;
        if (found == 0)
            break;
        if (!ids)
            ids = malloc(found * sizeof *ids);
        if (!ids)
            break;
    }
    pthread_mutex_unlock(&table->lock);
    return ids;
}

size_t table_size(struct table *table)
{
    pthread_mutex_lock(&table->lock);
    size_t size = table->count;
    pthread_mutex_unlock(&table->lock);
    return size;
}
