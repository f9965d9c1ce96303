/*
 * mend_restore.c - sound segments put back where the log has damaged ones, or none.
 *
 * backup/ holds what compaction replaced, snapshots/ hold what was live once, and may have the same
 * file under another link: it counts only if it is sound. What is put back is a copy, so nothing is
 * taken away from where it comes from. A damaged file of a higher generation whose
 * predecessors are all there again gives way to them by the rules of any opening.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

#define CHOSEN_MAX 1024U /* segments that one was made of */

struct candidate {
    uint32_t first, last, generation;
    char folder[300]; /* below DIR */
    char name[SEGMENT_NAME_MAX];
    bool from_snapshot;
    enum { UNKNOWN, SOUND, NOT_SOUND } state;
    uint32_t salt; /* SOUND */
};

struct restoring {
    struct hl_store *store;
    struct candidate *at;
    size_t count, capacity;
    char folder[300]; /* that is listed */
    bool in_snapshot; /* it is one of those */
};

/* ---- what there is ---- */

static int take_name(void *context, const char *name)
{
    struct restoring *restoring = context;
    struct candidate candidate = {.from_snapshot = restoring->in_snapshot, .state = UNKNOWN};
    if (!segment_name_parse(name, &candidate.first, &candidate.last, &candidate.generation))
        return 0;
    memcpy(candidate.folder, restoring->folder, sizeof candidate.folder);
    snprintf(candidate.name, sizeof candidate.name, "%s", name);
    if (restoring->count == restoring->capacity) {
        size_t capacity = restoring->capacity ? restoring->capacity * 2 : 64;
        void *at = realloc(restoring->at, capacity * sizeof *restoring->at);
        if (!at)
            return -ENOMEM;
        restoring->at = at;
        restoring->capacity = capacity;
    }
    restoring->at[restoring->count++] = candidate;
    return 0;
}

static int list_folder(struct restoring *restoring, const char *folder,
                       int (*each)(void *context, const char *name))
{
    struct hl_store *store = restoring->store;
    int dir = hl_io_open_dir(store->io, store->dirfd, folder, false);
    if (dir < 0)
        return dir == -ENOENT || dir == -ENOTDIR ? 0 : dir;
    int error = store->io->list(store->io->context, dir, each, restoring);
    hl_io_close(store->io, dir);
    return error;
}

static int take_snapshot(void *context, const char *name)
{
    struct restoring *restoring = context;
    if (name[0] == '.')
        return 0;
    snprintf(restoring->folder, sizeof restoring->folder, "snapshots/%s/log", name);
    return list_folder(restoring, restoring->folder, take_name);
}

static int list_all(struct restoring *restoring)
{
    snprintf(restoring->folder, sizeof restoring->folder, "backup");
    int error = list_folder(restoring, "backup", take_name);
    restoring->in_snapshot = true;
    return error == 0 ? list_folder(restoring, "snapshots", take_snapshot) : error;
}

/* ---- choosing ---- */

/* Whether every frame of it is good, and it is of this store. 1, 0, or a negative errno. */
static int is_sound(struct restoring *restoring, struct candidate *candidate)
{
    struct hl_store *store = restoring->store;
    struct segment_set set;
    struct segment *segment;
    const char *fault = "";
    if (candidate->state != UNKNOWN)
        return candidate->state == SOUND;
    int dir = hl_io_open_dir(store->io, store->dirfd, candidate->folder, false);
    if (dir < 0)
        return dir;
    segment_set_init(&set, store->io, dir, false);
    int error = segment_load(&set, candidate->name, &segment, NULL);
    if (error == 0) {
        if (memcmp(segment->store_id, store->store_id, sizeof store->store_id) == 0)
            error = recover_examine(store, segment, &fault);
        candidate->salt = segment->salt;
        segment_free(&set, segment);
    }
    segment_set_free(&set);
    hl_io_close(store->io, dir);
    candidate->state = error == 0 && !fault ? SOUND : NOT_SOUND;
    return error == -EIO || error == -ENOMEM ? error : candidate->state == SOUND;
}

/*
 * Whether it may stand for what was there. A snapshot that went on as a store of its own may have
 * another segment under the same name, so of snapshots only the very file counts: its salt tells.
 */
static bool fits(const struct candidate *candidate, const struct fault *fault)
{
    if (candidate->from_snapshot)
        return fault->salt_known && candidate->salt == fault->salt &&
               candidate->first == fault->first && candidate->last == fault->last;
    return fault->kind == FAULT_MISSING || candidate->generation <= fault->generation;
}

/* The sound candidate of the highest generation that begins with this number, ends with `last` at
 * the most, and is no successor of what was there. NULL: none. */
static int find_next(struct restoring *restoring, uint32_t first, const struct fault *fault,
                     struct candidate **found)
{
    *found = NULL;
    for (size_t i = 0; i < restoring->count; i++) {
        struct candidate *candidate = &restoring->at[i];
        if (candidate->first != first || candidate->last > fault->last ||
            (*found && (*found)->generation >= candidate->generation))
            continue;
        int sound = is_sound(restoring, candidate);
        if (sound < 0)
            return sound;
        if (sound && fits(candidate, fault))
            *found = candidate;
    }
    return 0;
}

/* ---- putting back ---- */

static int put_back(struct restoring *restoring, const struct candidate *candidate)
{
    struct hl_store *store = restoring->store;
    const struct hl_io *io = store->io;
    char temporary[SEGMENT_NAME_MAX + 8];
    uint64_t size = 0;
    snprintf(temporary, sizeof temporary, "%s.tmp", candidate->name);
    int dir = hl_io_open_dir(io, store->dirfd, candidate->folder, false);
    if (dir < 0)
        return dir;
    int from = hl_io_open(io, dir, candidate->name, O_RDONLY, 0);
    int error = from < 0 ? from : 0;
    if (error == 0) { /* a copy, synced itself: that the other was is of no interest */
        int to = hl_io_open_new(io, store->logfd, temporary);
        error = to < 0 ? to : hl_io_size(io, from, &size);
        if (error == 0)
            error = hl_io_copy(io, from, 0, size, to, 0);
        if (error == 0)
            error = hl_io_fsync(io, to);
        hl_io_close(io, to);
    }
    hl_io_close(io, from);
    hl_io_close(io, dir);
    if (error == 0)
        error = io->rename(io->context, store->logfd, temporary, store->logfd, candidate->name);
    if (error < 0)
        io->unlink(io->context, store->logfd, temporary, 0);
    else
        error = hl_io_fsync(io, store->logfd);
    return error;
}

/* Whether the file that was moved away is gone, so that its name can be used. */
static int move_away(struct hl_store *store, const char *name)
{
    int error = recover_move_away(store, name, "quarantine",
                                  "it was damaged, and others were put in its place");
    if (error < 0)
        return error;
    int fd = hl_io_open(store->io, store->logfd, name, O_RDONLY, 0);
    hl_io_close(store->io, fd);
    return fd == -ENOENT ? 0 : fd < 0 ? fd : -ENOSPC;
}

/* Finds what stands for all of the fault's numbers, in order. -ENOENT: not all of them can be had.
 */
static int choose(struct restoring *restoring, const struct fault *fault,
                  struct candidate *chosen[CHOSEN_MAX], size_t *count)
{
    *count = 0;
    for (uint64_t next = fault->first; next <= fault->last;) {
        struct candidate *found;
        int error = find_next(restoring, (uint32_t)next, fault, &found);
        if (error < 0)
            return error;
        if (!found || *count == CHOSEN_MAX)
            return -ENOENT;
        chosen[(*count)++] = found;
        next = (uint64_t)found->last + 1;
    }
    return 0;
}

static int restore_one(struct restoring *restoring, struct fault *fault)
{
    struct hl_store *store = restoring->store;
    struct candidate *chosen[CHOSEN_MAX] = {NULL};
    size_t count;
    int error = choose(restoring, fault, chosen, &count);
    if (error == -ENOENT) {
        store_report(store, HL_INFO,
                     "nothing sound in backup/ or snapshots/ can stand for segments %" PRIu32
                     " to %" PRIu32,
                     fault->first, fault->last);
        return 0;
    }
    /* Its predecessors may stand beside it, and take its place at whatever moment this ends; a file
     * of its own name cannot. */
    bool same_name = error == 0 && count > 0 && strcmp(chosen[0]->name, fault->name) == 0;
    if (error == 0 && same_name)
        error = move_away(store, fault->name);
    for (size_t i = 0; i < count && error == 0; i++) {
        error = put_back(restoring, chosen[i]);
        if (error == 0)
            store_report(store, HL_INFO, "segment %s was put back from %s/", chosen[i]->name,
                         chosen[i]->folder);
    }
    if (error == 0 && !same_name && fault->name[0])
        error = move_away(store, fault->name);
    fault->restored = error == 0;
    return error;
}

int mend_restore(struct hl_store *store, struct faults *faults)
{
    struct restoring restoring = {.store = store};
    int error = list_all(&restoring);
    for (size_t i = 0; i < faults->count && error == 0; i++)
        error = restore_one(&restoring, &faults->at[i]);
    free(restoring.at);
    return error;
}
