/* placed.c - the records of one batch; see placed.h. */
#include "placed.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint32_t rank_of(const struct placed_list *list, uint32_t link)
{
    return link ? list->at[link - 1].rank : 0;
}

static uint32_t jump_of(const struct placed_list *list, uint32_t link)
{
    return link ? list->at[link - 1].jump : 0;
}

/* Where the two jumps before a record span as many records each, its own spans both and one more.
 */
static uint32_t choose_jump(const struct placed_list *list, uint32_t previous)
{
    uint32_t near = jump_of(list, previous), far = jump_of(list, near);
    uint32_t near_span = rank_of(list, previous) - rank_of(list, near);
    uint32_t far_span = rank_of(list, near) - rank_of(list, far);

    return near_span == far_span ? far : previous;
}

static int make_room(struct placed_list *list, size_t count)
{
    if (count <= list->capacity - list->count)
        return 0;
    size_t capacity = list->capacity ? list->capacity * 2 : 64;
    while (capacity < list->count + count)
        capacity *= 2;
    struct placed *at = realloc(list->at, capacity * sizeof *at);
    if (!at)
        return -ENOMEM;
    list->at = at;
    list->capacity = capacity;
    return 0;
}

int placed_add_list(struct placed_list *list, const struct placed_list *other)
{
    int error = make_room(list, other->count);
    if (error == 0 && other->count > 0)
        memcpy(list->at + list->count, other->at, other->count * sizeof *other->at);
    if (error == 0)
        list->count += other->count;
    return error;
}

int placed_add_apart(struct placed_list *list, const struct index_entry *entry)
{
    int error = make_room(list, 1);
    if (error == 0)
        list->at[list->count++] = (struct placed){.entry = *entry};
    return error;
}

int placed_add(struct placed_list *list, struct mem_session *session,
               const struct index_entry *entry)
{
    int error = make_room(list, 1);
    if (error < 0)
        return error;
    uint32_t previous = session->newest_placed;
    list->at[list->count++] = (struct placed){.session = session,
                                              .entry = *entry,
                                              .rank = rank_of(list, previous) + 1,
                                              .previous = previous,
                                              .jump = choose_jump(list, previous)};
    session->newest_placed = (uint32_t)list->count;
    return 0;
}

uint32_t placed_step(const struct placed_list *list, uint32_t link, uint64_t seq)
{
    const struct placed *placed = &list->at[link - 1];
    bool far = placed->jump != 0 && list->at[placed->jump - 1].entry.seq >= seq;

    return far ? placed->jump : placed->previous;
}

const struct index_entry *placed_find(const struct placed_list *list,
                                      const struct mem_session *session, uint64_t seq)
{
    uint32_t link = session->newest_placed;

    while (link != 0 && list->at[link - 1].entry.seq > seq)
        link = placed_step(list, link, seq);
    return link != 0 && list->at[link - 1].entry.seq == seq ? &list->at[link - 1].entry : NULL;
}
