/* replay_group.c - the records of a batch, by session; see replay.h. */
#include "replay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WORTH 16U /* frames; below that each is looked at by itself */

static bool only_records(const struct replay *replay)
{
    for (size_t i = 0; i < replay->pending_count; i++) {
        if (!frame_is_record(replay->pending[i].type))
            return false;
    }
    return true;
}

/* Room for as many groups as there are frames, and an empty table of twice that or more. */
static int make_room(struct replay *replay, size_t *slots)
{
    size_t count = replay->pending_count;
    for (*slots = 64; *slots < 2 * count; *slots *= 2)
        ;
    if (replay->group_capacity < count) {
        struct replay_group *groups = realloc(replay->groups, count * sizeof *groups);
        if (!groups)
            return -ENOMEM;
        replay->groups = groups;
        replay->group_capacity = count;
    }
    if (replay->slot_capacity < *slots) {
        uint32_t *more = realloc(replay->slots, *slots * sizeof *more);
        if (!more)
            return -ENOMEM;
        replay->slots = more;
        replay->slot_capacity = *slots;
    }
    memset(replay->slots, 0, *slots * sizeof *replay->slots);
    return 0;
}

int replay_make_groups(struct replay *replay)
{
    size_t slots;
    replay->group_count = 0;
    if (replay->pending_count < WORTH || !only_records(replay))
        return 0;
    int error = make_room(replay, &slots);
    if (error < 0)
        return error;
    for (uint32_t i = 0; i < replay->pending_count; i++) {
        struct replay_frame *frame = &replay->pending[i];
        size_t slot = (size_t)(frame->session * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (slots - 1);
        while (replay->slots[slot] > 0 &&
               replay->groups[replay->slots[slot] - 1].session != frame->session)
            slot = (slot + 1) & (slots - 1);
        frame->next = 0;
        if (replay->slots[slot] > 0) {
            struct replay_group *group = &replay->groups[replay->slots[slot] - 1];
            replay->pending[group->last].next = (i + 1) & INT32_MAX;
            group->last = i;
            continue;
        }
        replay->groups[replay->group_count++] = (struct replay_group){frame->session, i, i};
        replay->slots[slot] = (uint32_t)replay->group_count;
    }
    return 0;
}
