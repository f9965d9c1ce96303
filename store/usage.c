/* usage.c - hl_sums(): what events come to, as users see it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "sums.h"

/* Names that an event counts for, and the bytes of them. */
static size_t count_names(const struct sums_list *list, size_t *bytes)
{
    size_t count = 0;
    for (uint32_t i = 0; i < list->count; i++) {
        if (list->at[i].usage.events == 0)
            continue;
        *bytes += list->at[i].len + 1U;
        count++;
    }
    return count;
}

static struct hl_usage_of *put_names(const struct sums_list *list, struct hl_usage_of *to,
                                     char **names)
{
    for (uint32_t i = 0; i < list->count; i++) {
        const struct sums_name *name = &list->at[i];
        if (name->usage.events == 0)
            continue;
        memcpy(*names, name->name, name->len + 1U);
        *to++ = (struct hl_usage_of){.name = *names, .name_len = name->len, .usage = name->usage};
        *names += name->len + 1U;
    }
    return to;
}

static int show(const struct sums *sums, struct hl_sums **shown)
{
    static const struct sums none;
    size_t bytes = 0;
    if (!sums)
        sums = &none;
    size_t kinds = count_names(&sums->kinds, &bytes), tools = count_names(&sums->tools, &bytes);
    struct hl_sums *made =
        malloc(sizeof *made + (kinds + tools) * sizeof(struct hl_usage_of) + bytes);
    if (!made)
        return -ENOMEM;
    struct hl_usage_of *of = (struct hl_usage_of *)(made + 1);
    char *names = (char *)(of + kinds + tools);
    *made = (struct hl_sums){
        .total = sums->total,
        .first_ts_ms = sums->first_ts_ms,
        .last_ts_ms = sums->last_ts_ms,
        .kind_count = kinds,
        .tool_count = tools,
        .kinds = of,
        .tools = of + kinds,
    };
    of = put_names(&sums->kinds, of, &names);
    put_names(&sums->tools, of, &names);
    *shown = made;
    return 0;
}

static int from_index(struct hl_store *store, uint32_t session, struct hl_sums **shown)
{
    struct index_view *view;
    struct index_row row;
    struct sums sums = {0};
    int error = lookup_view(store, &view);
    if (error < 0)
        return error;
    error = index_session_by_number(view, session, &row);
    if (error == 0) {
        error = index_get_sums(view, session, &sums);
        if (error == -ENOENT)
            error = 0;
    }
    error = lookup_view_end(store, view, error);
    if (error == 0)
        error = show(&sums, shown);
    sums_clear(&sums);
    return error;
}

int hl_sums(struct hl_store *store, uint32_t session, struct hl_sums **sums)
{
    const struct mem_session *found = NULL;
    int result = -ENOENT;
    follow_writer(store);
    pthread_rwlock_rdlock(&store->mem_lock);
    if (session == 0) {
        result = show(&store->sums, sums);
    } else {
        found = memtable_by_number(store->table, session);
        if (!found && store->frozen)
            found = memtable_by_number(store->frozen, session);
        if (found)
            result = found->hidden || found->deleted ? -ENOENT : show(found->sums, sums);
    }
    pthread_rwlock_unlock(&store->mem_lock);
    return session == 0 || found ? result : from_index(store, session, sums);
}
