/*
 * compact_plan.c - how much of each segment is dead.
 *
 * One walk over the index tells what lives; what a segment has besides records is known of those
 * that a compaction wrote, and counts as dead in all others, until they are rewritten for once.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "compact.h"
#include "compact_needed.h"

#define VIEW_SESSIONS 1024U
#define VIEW_ENTRIES (UINT64_C(1) << 20) /* views must not last */

struct counting {
    struct compact_plan *plan;
    struct compact_segment *at; /* of the last entry */
    uint64_t entries, until;
    uint64_t next; /* seq to go on at, if it was enough for a view */
    bool enough;
};

static struct compact_segment *find_segment(const struct compact_plan *plan, uint32_t number)
{
    size_t low = 0, high = plan->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (plan->segments[middle].last < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low < plan->count && plan->segments[low].first <= number ? &plan->segments[low] : NULL;
}

static bool count_entry(void *context, const struct index_entry *entry)
{
    struct counting *counting = context;
    uint32_t number = position_segment(entry->position);
    if (!counting->at || number < counting->at->first || number > counting->at->last)
        counting->at = find_segment(counting->plan, number);
    if (counting->at)
        counting->at->live += frame_size(entry->length);
    counting->next = entry->seq + 1;
    counting->enough = ++counting->entries >= counting->until;
    return !counting->enough;
}

/* Goes on after session *after, at seq *from of the next one, for as long as one view may last. */
static int count_some(struct hl_store *store, struct counting *counting, uint32_t *after,
                      uint64_t *from, bool *more)
{
    struct index_view *view;
    struct index_row row;
    int error = lookup_view(store, &view);
    if (error < 0)
        return error;
    counting->until = counting->entries + VIEW_ENTRIES;
    counting->enough = false;
    for (unsigned i = 0; i < VIEW_SESSIONS && !counting->enough; i++) {
        error = index_session_next(view, *after, &row);
        if (error < 0)
            break;
        error = index_each_from(view, row.number, *from, count_entry, counting);
        if (error < 0)
            break;
        *from = counting->enough ? counting->next : 0;
        *after = counting->enough ? row.number - 1 : row.number;
    }
    error = lookup_view_end(store, view, error);
    *more = error == 0;
    return error == -ENOENT ? 0 : error;
}

static int count_live(struct hl_store *store, struct compact_plan *plan)
{
    struct counting counting = {.plan = plan};
    uint32_t after = 0;
    uint64_t from = 0;
    bool more = true;
    int error = 0;
    while (error == 0 && more)
        error = count_some(store, &counting, &after, &from, &more);
    return error;
}

/* ---- operations that may go ---- */

struct subtracting {
    struct compact_plan *plan;
    const struct compact_needed *needed;
};

static bool subtract_entry(void *context, const struct index_entry *entry)
{
    struct subtracting *subtracting = context;
    uint32_t number = position_segment(entry->position);
    if (entry->seq >= subtracting->needed->bound)
        return false;
    if (!entry->operation || compact_needed_has(subtracting->needed, entry->seq, number))
        return true;
    struct compact_segment *segment = find_segment(subtracting->plan, number);
    if (segment)
        segment->live -= frame_size(entry->length);
    return true;
}

static int subtract_session(struct hl_store *store, const struct hl_session *session,
                            bool time_is_sound, uint32_t backup, struct compact_plan *plan)
{
    struct compact_needed needed;
    struct index_view *view;
    uint64_t bound;
    int error = compact_bound(store, session, time_is_sound, &bound);
    if (error < 0 || bound == 0)
        return error;
    error = compact_needed_of(store, session->number, bound, backup, &needed);
    if (error < 0)
        return error == -ENOENT ? 0 : error;
    struct subtracting subtracting = {plan, &needed};
    error = lookup_view(store, &view);
    if (error == 0) {
        error = index_each_from(view, session->number, 0, subtract_entry, &subtracting);
        error = lookup_view_end(store, view, error);
    }
    compact_needed_free(&needed);
    return error;
}

static int subtract_operations(struct hl_store *store, bool time_is_sound, uint32_t backup,
                               struct compact_plan *plan)
{
    struct hl_session session;
    int error;
    for (uint32_t after = 0; (error = hl_session_next(store, after, &session)) == 0;
         after = session.number) {
        if (session.operations > 0)
            error = subtract_session(store, &session, time_is_sound, backup, plan);
        if (error < 0)
            return error;
    }
    return error == -ENOENT ? 0 : error;
}

/* Those that are sealed and wholly in the index. */
static int list_segments(struct hl_store *store, struct compact_plan *plan)
{
    struct segment_set *set = &store->segments;
    uint32_t indexed = position_segment(atomic_load(&store->indexed));
    int error = 0;
    pthread_mutex_lock(&set->lock);
    plan->segments = calloc(set->count, sizeof *plan->segments);
    if (!plan->segments)
        error = -ENOMEM;
    for (size_t i = 0; i < set->count && error == 0; i++) {
        const struct segment *segment = set->at[i];
        if (!segment->sealed || segment->last >= indexed)
            continue;
        plan->segments[plan->count++] = (struct compact_segment){
            .first = segment->first,
            .last = segment->last,
            .generation = segment->generation,
            .size = segment->size,
        };
    }
    pthread_mutex_unlock(&set->lock);
    return error;
}

static int take_overheads(struct hl_store *store, struct compact_plan *plan)
{
    struct index_view *view;
    struct index_segment listed;
    int error = lookup_view(store, &view);
    if (error < 0)
        return error;
    for (uint32_t after = 0; error == 0; after = listed.first) {
        error = index_segment_next(view, after, &listed);
        struct compact_segment *segment = error == 0 ? find_segment(plan, listed.first) : NULL;
        if (segment && segment->generation == listed.generation)
            segment->live += listed.overhead;
    }
    error = lookup_view_end(store, view, error);
    return error == -ENOENT ? 0 : error;
}

int compact_plan_make(struct hl_store *store, bool time_is_sound, uint32_t backup,
                      struct compact_plan *plan)
{
    *plan = (struct compact_plan){.segments = NULL};
    int error = list_segments(store, plan);
    if (error == 0)
        error = take_overheads(store, plan);
    if (error == 0)
        error = count_live(store, plan);
    if (error == 0)
        error = subtract_operations(store, time_is_sound, backup, plan);
    for (size_t i = 0; i < plan->count; i++) {
        struct compact_segment *segment = &plan->segments[i];
        uint64_t live = segment->live;
        if (segment->generation == 0)
            live += SEGMENT_HEADER_REGION;
        segment->dead = segment->size > live ? segment->size - live : 0;
        plan->dead += segment->dead;
    }
    if (error < 0)
        compact_plan_free(plan);
    return error;
}

void compact_plan_free(struct compact_plan *plan)
{
    free(plan->segments);
    *plan = (struct compact_plan){.segments = NULL};
}

/* ---- which ---- */

#define DEAD_SHARE 4U   /* a segment is worth it when one part in so many is dead */
#define SMALL_SHARE 4U  /* its neighbours come along when they are as small a part of a segment */
#define SOURCE_BYTES 2U /* segments' worth that a run reads at most: its frames are in memory */

uint64_t compact_plan_mark(struct compact_plan *plan, bool everything, uint64_t threshold)
{
    uint64_t total = 0;
    for (size_t i = 0; i < plan->count; i++) {
        struct compact_segment *segment = &plan->segments[i];
        segment->eligible =
            segment->dead > 0 && (everything || (segment->dead >= segment->size / DEAD_SHARE &&
                                                 segment->dead >= threshold));
        if (segment->eligible)
            total += segment->size;
    }
    return total;
}

struct compact_segment *compact_plan_worst(const struct compact_plan *plan, size_t begin,
                                           size_t end)
{
    struct compact_segment *found = NULL;
    for (size_t i = 0; i < plan->count; i++) {
        struct compact_segment *segment = &plan->segments[i];
        if (!segment->eligible || segment->done || (i >= begin && i < end))
            continue;
        if (!found || (double)segment->dead / (double)segment->size >
                          (double)found->dead / (double)found->size)
            found = segment;
    }
    return found;
}

static bool may_join(const struct compact_plan *plan, uint64_t whole,
                     const struct compact_choice *choice, size_t i, uint64_t live, uint64_t size)
{
    const struct compact_segment *segment = &plan->segments[i];
    const struct compact_segment *beside =
        &plan->segments[i < choice->begin ? choice->begin : choice->end - 1];
    bool neighbours =
        i < choice->begin ? segment->last + 1 == beside->first : beside->last + 1 == segment->first;
    return neighbours && !segment->done && choice->end - choice->begin < COMPACT_SOURCES_MAX &&
           (segment->eligible || segment->size <= whole / SMALL_SHARE) &&
           live + segment->live <= whole && size + segment->size <= SOURCE_BYTES * whole;
}

void compact_plan_extend(const struct compact_plan *plan, uint64_t whole,
                         struct compact_choice *choice)
{
    uint64_t live = plan->segments[choice->begin].live, size = plan->segments[choice->begin].size;
    for (;;) {
        if (choice->end < plan->count && may_join(plan, whole, choice, choice->end, live, size)) {
            live += plan->segments[choice->end].live;
            size += plan->segments[choice->end++].size;
        } else if (choice->begin > 0 &&
                   may_join(plan, whole, choice, choice->begin - 1, live, size)) {
            live += plan->segments[--choice->begin].live;
            size += plan->segments[choice->begin].size;
        } else {
            return;
        }
    }
}
