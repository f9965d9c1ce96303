/* workloads.c - what is done to a store, to be cut short at each call. */
#include <errno.h>

#include "model.h"

/* Single lines and small batches, some synced; segments fill up and are sealed by themselves. */
static void appends(struct actor *actor)
{
    actor_open(actor);
    struct session *a = actor_session(actor, "a", true);
    actor_sync(actor);
    for (unsigned i = 0; i < 4; i++) {
        actor_append(actor, a, 1, 100);
        actor_append(actor, a, 2, 700);
        if (i % 2)
            actor_sync(actor);
    }
    struct session *b = actor_session(actor, "b", true);
    for (unsigned i = 0; i < 10; i++) { /* so many small syncs that zeros are written ahead */
        actor_append(actor, i % 3 ? a : b, 1, 30);
        actor_sync(actor);
    }
    actor_append(actor, a, 1, 200);
    actor_die(actor);
    actor_open(actor);
    actor_append(actor, b, 1, 100);
    actor_append(actor, a, 3, 500);
    actor_sync(actor);
    actor_append(actor, b, 1, 3000);
    actor_close(actor);
    actor_open(actor);
    actor_append(actor, a, 1, 60);
    actor_sync(actor);
    actor_append(actor, a, 2, 60);
}

/* Batches of many lines, of several sessions, larger than a segment; modes. */
static void batches(struct actor *actor)
{
    static const char *const mixed[] = {"a", "new", "b", "a", "new", "b", "a", "late"};
    actor_open(actor);
    struct session *a = actor_session(actor, "a", true);
    struct session *b = actor_session(actor, "b", true);
    actor_append(actor, a, 5, 100);
    actor_root(actor, mixed, 3);
    actor_sync(actor);
    actor_root(actor, mixed + 1, 5);
    actor_chmod(actor, b, 0600);
    actor_append(actor, b, 12, 400);
    actor_root(actor, mixed, 8);
    actor_sync(actor);
    actor_chmod(actor, b, 0604);
    actor_append(actor, a, 8, 1500);
    actor_append(actor, a, 60, 16000); /* so large that two threads parse it */
    actor_append(actor, a, 2, 10);
    actor_die(actor);
    actor_open(actor);
    actor_root(actor, mixed, 8);
    actor_chmod(actor, b, 0664);
    actor_sync(actor);
    actor_append(actor, a, 20, 50);
    actor_root(actor, mixed + 4, 4);
}

static void documents(struct actor *actor)
{
    actor_open(actor);
    struct session *s = actor_session(actor, "simple", true);
    struct session *u = actor_session(actor, "undone", false);
    actor_operate(actor, s, "sss");
    actor_operate(actor, u, "c");
    actor_sync(actor);
    actor_operate(actor, u, "sd");
    actor_operate(actor, s, "ds");
    actor_operate(actor, u, "u");
    actor_operate(actor, s, "c");
    actor_operate(actor, u, "a");
    actor_sync(actor);
    actor_operate(actor, u, "us");
    actor_operate(actor, s, "ssdd");
    actor_append(actor, s, 2, 40);
    actor_checkpoint(actor);
    actor_operate(actor, u, "c");
    actor_operate(actor, u, "u");
    actor_operate(actor, u, "u");
    actor_operate(actor, s, "dsc");
    actor_die(actor);
    actor_open(actor);
    actor_operate(actor, s, "sds");
    actor_operate(actor, u, "ca");
    actor_sync(actor);
    actor_operate(actor, u, "u");
    actor_operate(actor, s, "c");
}

/* Sealing, checkpoints, clean ends and what comes after them. */
static void rotation(struct actor *actor)
{
    actor_open(actor);
    struct session *a = actor_session(actor, "a", true);
    actor_append(actor, a, 2, 50);
    actor_rotate(actor);
    actor_append(actor, a, 1, 50);
    actor_rotate(actor);
    actor_checkpoint(actor);
    actor_append(actor, a, 3, 900);
    actor_operate(actor, a, "ss");
    actor_rotate(actor);
    actor_append(actor, a, 1, 20);
    actor_checkpoint(actor);
    actor_append(actor, a, 1, 20);
    actor_close(actor);
    actor_open(actor);
    actor_rotate(actor);
    actor_append(actor, a, 2, 300);
    actor_sync(actor);
    actor_checkpoint(actor);
    actor_append(actor, a, 1, 20);
    actor_close(actor);
    actor_open(actor);
    actor_operate(actor, a, "sd");
}

static void snapshots(struct actor *actor)
{
    actor_open(actor);
    struct session *a = actor_session(actor, "a", true);
    struct session *b = actor_session(actor, "b", true);
    actor_append(actor, a, 3, 1500);
    actor_operate(actor, b, "sss");
    actor->record->no_links = actor_chance(actor, 2);
    actor_snapshot(actor, "first");
    actor_append(actor, a, 2, 50);
    actor_operate(actor, b, "d");
    actor_die(actor);
    actor_open(actor);
    actor_append(actor, b, 1, 50);
    actor_snapshot(actor, "second");
    actor_append(actor, a, 2, 50);
    actor_sync(actor);
}

static void reindexing(struct actor *actor)
{
    actor_open(actor);
    struct session *a = actor_session(actor, "a", true);
    actor_append(actor, a, 3, 1500);
    actor_operate(actor, a, "ssd");
    actor_reindex(actor);
    actor_append(actor, a, 1, 100);
    actor_checkpoint(actor);
    actor_append(actor, a, 2, 100);
    if (actor->turn % 2) /* which seals the segment, and the index ends right behind it */
        actor_snapshot(actor, "some");
    actor_reindex(actor);
    if (actor->turn % 2) {
        actor_die(actor);
        actor_open(actor);
    }
    actor_operate(actor, a, "c");
    actor_sync(actor);
    actor_close(actor);
    actor_open(actor);
    actor_append(actor, a, 1, 100);
}

/*
 * A sync fails: what it was to bring is in the page cache, called clean, and not on the disk. The
 * next process finds it there, and whoever syncs then is told that it is safe.
 */
static void failed_sync(struct actor *actor)
{
    static const struct fault fault = {.nth = 1, .error = -EIO};
    actor_open(actor);
    struct session *a = actor_session(actor, "a", true);
    actor_append(actor, a, 2, 100);
    actor_sync(actor);
    for (unsigned round = 0; round < 2; round++) {
        actor_append(actor, a, 2, 300);
        actor_operate(actor, a, "ss");
        record_fault(actor->record, &fault);
        actor->lenient = true;
        actor_sync(actor);
        if (actor->last_error != -EIO)
            actor_fail(actor, "a failed fdatasync was not told: %d", actor->last_error);
        actor_append(actor, a, 1, 10);
        if (actor->last_error != -EIO)
            actor_fail(actor, "an append after a failed fdatasync was not refused");
        actor_sync(actor);
        if (actor->last_error != -EIO)
            actor_fail(actor, "a sync after a failed one was not refused");
        actor->lenient = false;
        record_fault(actor->record, &(struct fault){.nth = 0});
        actor_die(actor);
        actor_open(actor);
        actor_sync(actor);
        actor_append(actor, a, 1, 100);
        actor_sync(actor);
    }
}

/* The process dies in the middle of this, before the nth sync (of a directory) or behind it all. */
static void die_at(struct actor *actor, void (*act)(struct actor *actor), bool names, uint64_t nth)
{
    record_fault(actor->record, &(struct fault){.kill = true, .names = names, .nth = nth});
    actor->lenient = true;
    act(actor);
    actor_die(actor);
    actor->lenient = false;
    record_fault(actor->record, &(struct fault){.nth = 0});
}

/* Likewise, before one of its first syncs. */
static void die_in(struct actor *actor, void (*act)(struct actor *actor))
{
    bool names = actor_chance(actor, 2);
    die_at(actor, act, names, 1 + actor_chance(actor, names ? 3 : 12));
}

static void open_it(struct actor *actor)
{
    actor_open(actor);
}

static void close_it(struct actor *actor)
{
    actor_close(actor);
}

/*
 * Processes die before their syncs, one after another, and the power fails only later: the next one
 * finds names and bytes of which nobody knows whether they are on the disk, and what it
 * acknowledges must be there all the same.
 */
static void killed(struct actor *actor)
{
    static void (*const acts[])(struct actor * actor) = {
        close_it, actor_rotate, actor_checkpoint, actor_reindex, actor_compact,
    };
    static const unsigned deaths[] = {0, 1, 2, 2, 3};
    for (unsigned left = deaths[actor_chance(actor, 5)]; left > 0; left--)
        die_in(actor, open_it);
    actor_open(actor);
    struct session *a = actor_session(actor, "a", true);
    actor_append(actor, a, 1, 100);
    actor_sync(actor);
    actor_append(actor, a, 2, 900);
    die_in(actor, acts[actor_chance(actor, sizeof acts / sizeof acts[0])]);
    if (actor_chance(actor, 2))
        die_in(actor, open_it);
    actor_open(actor);
    actor_append(actor, a, 1, 100);
    actor_sync(actor);
}

/*
 * Files that an opening moves out of log/: what a compaction replaced that died before or behind
 * the sync of its segment's name, and what people left there. None of it may be lost on its way,
 * nor what it was replaced by.
 */
static void moved(struct actor *actor)
{
    actor_open(actor);
    struct session *a = actor_session(actor, "a", true);
    actor_operate(actor, a, "cs");
    actor_append(actor, a, 1, 100);
    actor_rotate(actor);
    actor_operate(actor, a, "c");
    actor_operate(actor, a, "s"); /* now the first of them can go */
    actor_sync(actor);
    actor_keep_first(actor);
    if (actor->turn % 5 < 2) /* it rotates first */
        die_at(actor, actor_compact, true, 2 + actor->turn % 5);
    else if (actor->turn % 5 < 4)
        actor_compact(actor);
    if (actor_chance(actor, 2))
        actor_close(actor);
    else
        actor_die(actor);
    if (actor->turn % 5 == 2)
        actor_leave_file(actor, LEFT_OLD);
    else if (actor->turn % 5 == 3)
        actor_leave_file(actor, LEFT_OLD_TWICE);
    else if (actor->turn % 5 == 4)
        actor_leave_file(actor, LEFT_UNSOUND);
    actor_open(actor);
    actor_moved(actor);
    actor_append(actor, a, 1, 50);
    actor_sync(actor);
}

/* A clean end and nothing else after a checkpoint took the place of a lost index. So short that all
 * its states are tried. */
static void restored(struct actor *actor)
{
    actor_open(actor);
    struct session *a = actor_session(actor, "a", true);
    actor_append(actor, a, 1, 100);
    actor_close(actor);
    actor_lose_index(actor);
    actor_open(actor);
    actor_close(actor);
}

/* A clean end soon after something that makes an index, or a copy of one: what its mark vouches for
 * must be on the disk. */
static void ends(struct actor *actor)
{
    unsigned kind = actor->turn % 4;
    if (kind == 3) {
        restored(actor);
        return;
    }
    actor_open(actor);
    struct session *a = actor_session(actor, "a", true);
    actor_append(actor, a, 2, 700);
    actor_operate(actor, a, "ssd");
    if (actor_chance(actor, 2)) {
        actor_close(actor);
        actor_open(actor);
        actor_append(actor, a, 1, 100);
    }
    if (kind == 0)
        actor_snapshot(actor, "some");
    else
        actor_reindex(actor);
    if (actor_chance(actor, 2))
        actor_operate(actor, a, "s");
    actor_close(actor);
}

/* A damaged segment is replaced by a mended one, or by a good copy. */
static void mending(struct actor *actor)
{
    actor_open(actor);
    struct session *a = actor_session(actor, "a", true);
    actor_append(actor, a, 2, 300);
    actor_operate(actor, a, "ss");
    actor_rotate(actor);
    actor_append(actor, a, 1, 300);
    actor->record->no_links = true;
    actor_snapshot(actor, "some");
    actor_append(actor, a, 2, 50);
    actor_close(actor);
    actor_mend(actor, (enum damage)(actor->turn % DAMAGES));
    actor_open(actor);
    actor_append(actor, a, 1, 50);
    actor_sync(actor);
}

/* The segment that is appended to has another link, as a backup by hand makes it. */
static void linked(struct actor *actor)
{
    actor_open(actor);
    struct session *a = actor_session(actor, "a", true);
    for (unsigned round = 0; round < 3; round++) {
        actor_append(actor, a, 2, 300);
        actor_sync(actor);
        actor_append(actor, a, 2, 300);
        actor_link(actor);
        actor_die(actor);
        actor_open(actor);
        actor_append(actor, a, 1, 100);
        actor_sync(actor);
    }
}

/* Segments are rewritten without operations that nothing needs, and merged. */
static void compaction(struct actor *actor)
{
    actor_open(actor);
    struct session *s = actor_session(actor, "simple", true);
    struct session *u = actor_session(actor, "undone", false);
    actor_operate(actor, s, "csd");
    actor_append(actor, u, 2, 300);
    actor_operate(actor, u, "cs");
    actor_operate(actor, s, "c");
    actor_rotate(actor);
    actor_operate(actor, s, "sdc");
    actor_operate(actor, u, "ua");
    actor_append(actor, s, 1, 200);
    actor_rotate(actor);
    actor_operate(actor, s, "css");
    actor_compact(actor);
    actor_append(actor, u, 1, 50);
    actor_operate(actor, u, "cd");
    actor_rotate(actor);
    actor_operate(actor, s, "c");
    actor_rotate(actor);
    actor_die(actor);
    actor_open(actor);
    actor_compact(actor);
    actor_operate(actor, s, "sd");
    actor_operate(actor, u, "u");
    actor_sync(actor);
    actor_compact(actor);
    actor_close(actor);
    actor_open(actor);
    actor_operate(actor, u, "s");
}

/* A reindex and a compaction, while others append. */
static void beside(struct actor *actor)
{
    actor_open(actor);
    struct session *a = actor_session(actor, "a", true);
    actor_append(actor, a, 4, 200);
    actor_operate(actor, a, "cs");
    actor_rotate(actor);
    actor_operate(actor, a, "c");
    actor_operate(actor, a, "s");
    if (actor->turn % 2)
        actor_beside(actor, actor_compact, "rename", false);
    else
        actor_beside(actor, actor_reindex, "list", true);
    if (actor_chance(actor, 2))
        actor_close(actor);
    else
        actor_die(actor);
    actor_open(actor);
    actor_append(actor, a, 1, 50);
    actor_sync(actor);
}

/* Records are dropped on demand, and their bytes by compactions. */
static void drops(struct actor *actor)
{
    actor_open(actor);
    struct session *a = actor_session(actor, "a", true);
    struct session *b = actor_session(actor, "b", true);
    struct session *c = actor_session(actor, "to-be-erased", false);
    actor_append(actor, a, 6, 300);
    actor_append(actor, b, 4, 200);
    actor_operate(actor, a, "sds");
    actor_operate(actor, c, "cs");
    actor_trim(actor, a);
    actor_append(actor, a, 4, 300);
    actor_rotate(actor);
    actor_sync(actor);
    actor_delete(actor, b);
    actor_append(actor, c, 5, 100);
    actor_compact(actor);
    actor_trim(actor, c);
    actor_die(actor);
    actor_open(actor);
    actor_append(actor, a, 3, 100);
    actor_sync(actor);
    actor_trim(actor, a);
    actor_checkpoint(actor);
    actor_operate(actor, c, "u");
    actor_rotate(actor);
    actor_compact(actor);
    actor_set_aside(actor, c);
    actor_erase(actor, c);
    actor_append(actor, a, 1, 50);
    actor_close(actor);
    actor_open(actor);
    actor_compact(actor);
    actor_append(actor, a, 1, 50);
}

/* Anything, in any order. */
static void mixed(struct actor *actor)
{
    static const char *const ids[] = {"a", "new", "b", "a", "new", "b", "a", "late"};
    static const char *const operations[] = {"s", "ds", "c", "sss", "u", "a", "us", "sd"};
    actor_open(actor);
    struct session *a = actor_session(actor, "a", true);
    struct session *b = actor_session(actor, "b", false);
    for (unsigned step = 0; step < 30; step++) {
        unsigned kind = (unsigned)actor_chance(actor, 23);
        struct session *s = actor_chance(actor, 2) ? a : b;
        if (kind < 5)
            actor_append(actor, s, 1 + (unsigned)actor_chance(actor, 4), 400);
        else if (kind < 7)
            actor_append(actor, s, 1, 60);
        else if (kind < 9)
            actor_root(actor, ids, 2 + (unsigned)actor_chance(actor, 6));
        else if (kind < 11)
            actor_operate(actor, b, operations[actor_chance(actor, 8)]);
        else if (kind < 12)
            actor_operate(actor, a, operations[actor_chance(actor, 4)]);
        else if (kind < 14)
            actor_sync(actor);
        else if (kind < 15)
            actor_chmod(actor, b, 0400 + step);
        else if (kind < 16)
            actor_rotate(actor);
        else if (kind < 17)
            actor_checkpoint(actor);
        else if (kind < 18 && actor->history->snapshot_count == 0)
            actor_snapshot(actor, "some");
        else if (kind < 19)
            actor_reindex(actor);
        else if (kind < 20)
            actor_trim(actor, s);
        else if (kind < 21)
            actor_compact(actor);
        else if (kind < 22 && actor_close(actor))
            actor_open(actor);
        else {
            actor_die(actor);
            actor_open(actor);
        }
    }
}

const struct workload workloads[] = {
    {"appends", appends},
    {"batches", batches},
    {"documents", documents},
    {"rotation", rotation},
    {"snapshots", snapshots},
    {"reindexing", reindexing},
    {"failed-sync", failed_sync},
    {"killed", killed},
    {"moved", moved},
    {"ends", ends},
    {"linked", linked},
    {"mending", mending},
    {"compaction", compaction},
    {"beside", beside},
    {"drops", drops},
    {"mixed", mixed},
};
const size_t workload_count = sizeof workloads / sizeof workloads[0];
