/*
 * inspect_drops.c - which records the index has not because they were dropped; see inspect.h.
 *
 * The drop frame comes behind what it hides, so what is missing is remembered by session until one
 * is met: how many events and operations, and the highest seq of those events. A trim of a seq
 * above that explains all of the events; one that does not, explains none, though it may hide some
 * of them: a later one will, or something is wrong.
 */
#include <errno.h>
#include <stdlib.h>

#include "inspect.h"

#define FIRST_SLOTS 64U /* a power of two */

struct inspect_missing {
    uint32_t session; /* 0: the slot is free */
    uint64_t events, operations, highest;
};

static struct inspect_missing *find(const struct inspect *inspect, uint32_t session)
{
    size_t i = session * UINT32_C(2654435761) & (inspect->missing_slots - 1);
    while (inspect->missing[i].session != 0 && inspect->missing[i].session != session)
        i = (i + 1) & (inspect->missing_slots - 1);
    return &inspect->missing[i];
}

static int grow(struct inspect *inspect)
{
    struct inspect old = *inspect;
    size_t slots = old.missing_slots ? old.missing_slots * 2 : FIRST_SLOTS;
    struct inspect_missing *missing = calloc(slots, sizeof *missing);
    if (!missing)
        return -ENOMEM;
    inspect->missing = missing;
    inspect->missing_slots = slots;
    for (size_t i = 0; i < old.missing_slots; i++) {
        if (old.missing[i].session != 0)
            *find(inspect, old.missing[i].session) = old.missing[i];
    }
    free(old.missing);
    return 0;
}

int inspect_note_missing(struct inspect *inspect, const struct frame *frame)
{
    inspect->report->index_missing++;
    if (frame->session == 0)
        return 0;
    if (inspect->missing_count * 2 >= inspect->missing_slots && grow(inspect) < 0)
        return -ENOMEM;
    struct inspect_missing *missing = find(inspect, frame->session);
    inspect->missing_count += missing->session == 0;
    missing->session = frame->session;
    if (frame->type == FRAME_OPERATION) {
        missing->operations++;
        return 0;
    }
    missing->events++;
    if (frame->seq > missing->highest)
        missing->highest = frame->seq;
    return 0;
}

/* What a drop explains of it. */
static uint64_t explain(struct inspect *inspect, struct inspect_missing *missing,
                        const struct drop *drop)
{
    uint64_t hidden = 0;
    if (drop->kind == DROP_DELETE || missing->highest < drop->below) {
        hidden = missing->events;
        missing->events = missing->highest = 0;
    }
    if (drop->kind == DROP_DELETE) {
        hidden += missing->operations;
        missing->operations = 0;
    }
    inspect->hidden += hidden;
    inspect->report->index_missing -= hidden;
    return hidden;
}

int inspect_take_drop(struct inspect *inspect, const struct frame *frame)
{
    struct drop drop;
    uint64_t hidden = 0;
    if (drop_decode(frame->body, frame->length, &drop) < 0)
        return 0; /* the caller has it, too */
    if (inspect->missing && frame->session != 0)
        hidden = explain(inspect, find(inspect, frame->session), &drop);
    if (inspect->dropped)
        inspect->dropped(inspect->context, frame->session, &drop, hidden);
    return 0;
}

static int note_trimmed(void *context, const struct index_row *row)
{
    uint64_t *trimmed = context;
    *trimmed = row->trimmed;
    return 0;
}

int inspect_explain_missing(struct inspect *inspect)
{
    for (size_t i = 0; i < inspect->missing_slots; i++) {
        struct inspect_missing *missing = &inspect->missing[i];
        struct drop drop = {.kind = DROP_TRIM};
        if (missing->session == 0 || missing->events + missing->operations == 0)
            continue;
        int error =
            lookup_row(inspect->store, missing->session, NULL, 0, note_trimmed, &drop.below);
        if (error < 0 && error != -ENOENT)
            return error;
        if (error == -ENOENT)
            drop.kind = DROP_DELETE;
        explain(inspect, missing, &drop);
    }
    return 0;
}

void inspect_forget_missing(struct inspect *inspect)
{
    free(inspect->missing);
    inspect->missing = NULL;
    inspect->missing_count = inspect->missing_slots = 0;
}
