/* commands.c - what an actor does to a store besides appending; see model.h. */
#include "model.h"

#include "../../store/core.h"
#include "../../store/format.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FIRST_SEGMENT "00000001-00000001.0.seg"

/* All of this is on the disk. */
static void settle(struct actor *actor, const struct set *visible)
{
    struct moment *moment = timeline_add(actor->timeline);
    moment->position = actor_position(actor);
    for (size_t i = 0; i < BATCHES_MAX / 64; i++)
        moment->must.bits[i] |= visible->bits[i];
}

/* All that is visible is. */
static void settled(struct actor *actor)
{
    settle(actor, &actor->visible);
}

void actor_sync(struct actor *actor)
{
    if (!actor->store)
        return;
    unsigned fired = actor->record->fault.fired;
    actor_enter(actor);
    int error = hl_sync(actor->store);
    actor_leave(actor);
    const struct fault *fault = &actor->record->fault;
    if (error == 0 && fault->fired > fired && fault->error != -EINTR &&
        strcmp(fault->what, "fdatasync") == 0)
        actor_fail(actor, "a sync in which %s failed succeeded", fault->what);
    if (actor_did(actor, "sync", error))
        settled(actor);
}

void actor_rotate(struct actor *actor)
{
    if (!actor->store)
        return;
    actor_enter(actor);
    int error = hl_rotate(actor->store, &actor->err);
    actor_leave(actor);
    if (actor_did(actor, "rotate", error))
        settled(actor);
}

void actor_checkpoint(struct actor *actor)
{
    if (!actor->store)
        return;
    actor_enter(actor);
    int error = hl_checkpoint(actor->store, NULL, &actor->err);
    actor_leave(actor);
    if (actor_did(actor, "checkpoint", error))
        settled(actor);
}

void actor_reindex(struct actor *actor)
{
    if (!actor->store)
        return;
    actor_enter(actor);
    int error = hl_reindex(actor->store, NULL, &actor->err);
    actor_leave(actor);
    actor_did(actor, "reindex", error);
}

enum drop { TRIM, DELETE, ERASE };

static void drop(struct actor *actor, const struct session *session, uint64_t below, enum drop how)
{
    static const char *const names[] = {"trim", "delete", "erase"};
    if (!actor->store || !session)
        return;
    uint32_t number = actor_issue(actor);
    struct batch *batch = &actor->history->batches[number];
    batch->drops = (size_t)(session - actor->history->sessions) + 1;
    batch->below = below;
    batch->whole = how != TRIM;
    batch->erased = how == ERASE;
    struct hl_dropped dropped = {.records = 0};
    actor_enter(actor);
    int error = how == TRIM ? hl_trim(actor->store, session->number, below, &dropped, &actor->err)
                : how == DELETE ? hl_delete(actor->store, session->number, NULL, &actor->err)
                                : hl_erase(actor->store, session->number, NULL, NULL, &actor->err);
    actor_leave(actor);
    if (!actor_did(actor, names[how], error)) {
        set_add(&actor->maybe, number);
        return;
    }
    set_add(&actor->visible, number);
    if (how != TRIM || dropped.records > 0) /* where there was nothing to drop nothing is synced */
        settled(actor);
}

void actor_trim(struct actor *actor, const struct session *session)
{
    if (session && session->count > 1)
        drop(actor, session, session->done[session->count / 2].seq, TRIM);
}

void actor_delete(struct actor *actor, const struct session *session)
{
    drop(actor, session, 0, DELETE);
}

void actor_erase(struct actor *actor, const struct session *session)
{
    drop(actor, session, 0, ERASE);
}

void actor_compact(struct actor *actor)
{
    static const struct hl_compact what = {.everything = true};
    struct hl_compacted compacted;
    if (!actor->store)
        return;
    uint32_t batch = actor_issue(actor);
    actor->history->batches[batch].compaction = true;
    set_add(&actor->visible, batch);
    struct set before = actor->visible; /* what others append meanwhile is not promised by it */
    actor_enter(actor);
    int error = hl_compact(actor->store, &what, NULL, &compacted, &actor->err);
    actor_leave(actor);
    if (actor_did(actor, "compact", error))
        settle(actor, &before);
    else
        actor->half_compacted = true;
}

void actor_snapshot(struct actor *actor, const char *name)
{
    if (!actor->store)
        return;
    struct snapshot *snapshot = &actor->history->snapshots[actor->history->snapshot_count++];
    *snapshot = (struct snapshot){.least = actor->visible, .most = actor->visible};
    snprintf(snapshot->name, sizeof snapshot->name, "%s", name);
    snapshot->taken = SIZE_MAX;
    actor_enter(actor);
    int error = hl_snapshot(actor->store, name, NULL, &actor->err);
    actor_leave(actor);
    if (actor_did(actor, "snapshot", error)) {
        snapshot->taken = actor_position(actor);
        settled(actor);
    }
}

struct last {
    char name[64];
};

static int keep_last(void *context, const char *name)
{
    struct last *last = context;
    if (strstr(name, ".seg") && strcmp(name, last->name) > 0)
        snprintf(last->name, sizeof last->name, "%s", name);
    return 0;
}

void actor_link(struct actor *actor)
{
    const struct hl_io *io = &actor->record->io;
    struct last last = {.name = ""};
    if (!actor->store)
        return;
    int dir = hl_io_open(io, AT_FDCWD, actor->dir, O_RDONLY | O_DIRECTORY, 0);
    int log = hl_io_open(io, dir, "log", O_RDONLY | O_DIRECTORY, 0);
    int error = log < 0 ? log : io->list(io->context, log, keep_last, &last);
    if (error == 0)
        error = io->link(io->context, log, last.name, dir, last.name);
    if (error == 0)
        error = hl_io_fsync(io, dir);
    hl_io_close(io, log);
    hl_io_close(io, dir);
    if (error < 0 && error != -EEXIST)
        actor_fail(actor, "cannot link segment %s: %s", last.name, strerror(-error));
}

struct emptying {
    const struct hl_io *io;
    int dir;
};

static int remove_name(void *context, const char *name)
{
    const struct emptying *emptying = context;
    return emptying->io->unlink(emptying->io->context, emptying->dir, name, 0);
}

void actor_lose_index(struct actor *actor)
{
    const struct hl_io *io = &actor->record->io;
    int dir = hl_io_open(io, AT_FDCWD, actor->dir, O_RDONLY | O_DIRECTORY, 0);
    int index = dir < 0 ? dir : hl_io_open(io, dir, "index", O_RDONLY | O_DIRECTORY, 0);
    struct emptying emptying = {io, index};
    int error = index < 0 ? index : io->list(io->context, index, remove_name, &emptying);
    if (error == 0)
        error = io->unlink(io->context, dir, "index", AT_REMOVEDIR);
    if (error == 0)
        error = hl_io_fsync(io, dir);
    hl_io_close(io, index);
    hl_io_close(io, dir);
    if (error < 0 && error != -ENOENT)
        actor_fail(actor, "cannot remove the index: %s", strerror(-error));
}

void actor_set_aside(struct actor *actor, const struct session *session)
{
    const struct hl_io *io = &actor->record->io;
    if (!actor->store || !session)
        return;
    int dir = hl_io_open(io, AT_FDCWD, actor->dir, O_RDONLY | O_DIRECTORY, 0);
    int aside = hl_io_open_dir(io, dir, "quarantine", true);
    int error = aside < 0 ? aside : hl_io_fsync(io, dir);
    if (error == 0)
        error = hl_io_put_file(io, aside, "some.bytes", session->id, strlen(session->id));
    hl_io_close(io, aside);
    hl_io_close(io, dir);
    if (error < 0)
        actor_fail(actor, "cannot set bytes aside: %s", strerror(-error));
}

static int flip(const struct hl_io *io, int fd, uint64_t at)
{
    uint8_t byte = 0;
    ssize_t n = hl_io_read(io, fd, &byte, 1, at);
    byte ^= 4;
    return n == 1 ? hl_io_write(io, fd, &byte, 1, at) : n < 0 ? (int)n : -EIO;
}

static void spoil(struct actor *actor, enum damage damage)
{
    const struct hl_io *io = &actor->record->io;
    uint64_t size;
    int dir = hl_io_open(io, AT_FDCWD, actor->dir, O_RDONLY | O_DIRECTORY, 0);
    int fd = hl_io_open(io, dir, "log/" FIRST_SEGMENT, O_RDWR, 0);
    int error = fd < 0 ? fd : hl_io_size(io, fd, &size);
    if (error == 0)
        error = flip(io, fd,
                     damage == DAMAGE_SEAL     ? size - 12
                     : damage == DAMAGE_RECORD ? (SEGMENT_HEADER_REGION + size) / 2
                                               : SEGMENT_HEADER_SECOND + 37);
    if (error == 0 && damage == DAMAGE_HEADERS) /* only the index knows its salt */
        error = flip(io, fd, SEGMENT_HEADER_FIRST + 37);
    if (error == 0)
        error = hl_io_fsync(io, fd);
    hl_io_close(io, fd);
    hl_io_close(io, dir);
    if (error < 0)
        actor_fail(actor, "cannot damage a segment: %s", strerror(-error));
}

void actor_mend_all(struct actor *actor)
{
    struct hl_check_report report = {.mended = 0};
    struct hl_check check = {
        .mend = HL_MEND_ALL, .restore = actor->history->restored, .io = &actor->record->io};
    record_revive(actor->record);
    actor_enter(actor);
    int error = hl_check(actor->dir, &check, &report, NULL, &actor->err);
    actor_leave(actor);
    if (actor_did(actor, "mend", error) && report.left > 0)
        actor_fail(actor, "%u problems, %u are left", (unsigned)report.problems,
                   (unsigned)report.left);
}

void actor_mend(struct actor *actor, enum damage damage)
{
    struct history *history = actor->history;
    history->damaged = actor_position(actor);
    history->restored = damage == DAMAGE_RECORD;
    record_revive(actor->record);
    spoil(actor, damage);
    if (history->restored) { /* else a mended copy takes the name, and the file is no more */
        actor_keep_first(actor);
        history->moved = actor_position(actor);
    }
    actor_mend_all(actor);
    history->mended = actor_position(actor);
}

/* ---- what others do in the middle of a command ---- */

/* Others would wait for a lock that the command has; they act in its thread here, and do not. */
static bool is_free(pthread_mutex_t *lock)
{
    bool free = pthread_mutex_trylock(lock) == 0;
    if (free)
        pthread_mutex_unlock(lock);
    return free;
}

static void append_meanwhile(void *context)
{
    struct actor *actor = context;
    if (!is_free(&actor->store->append_lock))
        return;
    actor_append(actor, &actor->history->sessions[0], 1, 100);
    actor_enter(actor);
}

static void begin_meanwhile(void *context)
{
    struct actor *actor = context;
    const struct meanwhile next = {"fdatasync", append_meanwhile, actor};
    if (!is_free(&actor->store->append_lock) || !is_free(&actor->store->flush_lock))
        return;
    if (actor->trims)
        actor_trim(actor, &actor->history->sessions[0]);
    actor_append(actor, &actor->history->sessions[0], 1, 100);
    actor_enter(actor);
    record_meanwhile(actor->record, &next);
}

void actor_beside(struct actor *actor, void (*act)(struct actor *actor), const char *what,
                  bool trims)
{
    const struct meanwhile first = {what, begin_meanwhile, actor}, none = {.what = NULL};
    if (!actor->store || actor->history->session_count == 0)
        return;
    actor->trims = trims;
    record_meanwhile(actor->record, &first);
    act(actor);
    record_meanwhile(actor->record, &none);
}

/* ---- files that an opening moves out of log/ ---- */

#define UNSOUND_SEGMENT "log/00000001-00000001.9.seg"

static struct bytes *read_whole(const struct hl_io *io, int dir, const char *name)
{
    struct bytes *content = NULL;
    uint64_t size;
    int fd = hl_io_open(io, dir, name, O_RDONLY, 0);
    if (fd >= 0 && hl_io_size(io, fd, &size) == 0) {
        content = bytes_new(size);
        if (hl_io_read(io, fd, content->at, size, 0) != (ssize_t)size) {
            bytes_drop(content);
            content = NULL;
        }
    }
    hl_io_close(io, fd);
    return content;
}

static int write_unsynced(const struct hl_io *io, int dir, const char *name,
                          const struct bytes *content)
{
    int fd = hl_io_open(io, dir, name, O_WRONLY | O_CREAT | O_EXCL, 0600);
    int error = fd < 0 ? fd : hl_io_write(io, fd, content->at, content->size, 0);
    hl_io_close(io, fd);
    return error;
}

void actor_keep_first(struct actor *actor)
{
    const struct hl_io *io = &actor->record->io;
    int dir = hl_io_open(io, AT_FDCWD, actor->dir, O_RDONLY | O_DIRECTORY, 0);
    actor->history->kept = read_whole(io, dir, "log/" FIRST_SEGMENT);
    actor->history->moved = SIZE_MAX;
    hl_io_close(io, dir);
    if (!actor->history->kept)
        actor_fail(actor, "there is no first segment");
}

void actor_leave_file(struct actor *actor, enum left left)
{
    static const char text[] = "no segment";
    const struct hl_io *io = &actor->record->io;
    struct history *history = actor->history;
    record_revive(actor->record);
    int dir = hl_io_open(io, AT_FDCWD, actor->dir, O_RDONLY | O_DIRECTORY, 0);
    int error = dir < 0 ? dir : 0;
    if (left == LEFT_UNSOUND) {
        bytes_drop(history->kept);
        history->kept = bytes_copy(text, sizeof text);
        history->left = UNSOUND_SEGMENT;
        error = write_unsynced(io, dir, history->left, history->kept);
    } else {
        history->left = "log/" FIRST_SEGMENT;
        if (error == 0)
            error = io->unlink(io->context, dir, "backup/" FIRST_SEGMENT, 0);
        if (error == 0 && left == LEFT_OLD_TWICE)
            error = write_unsynced(io, dir, "backup/" FIRST_SEGMENT, history->kept);
        if (error == 0)
            error = write_unsynced(io, dir, history->left, history->kept);
    }
    hl_io_close(io, dir);
    if (error < 0)
        actor_fail(actor, "cannot leave a file in log/: %s", strerror(-error));
}

void actor_moved(struct actor *actor)
{
    struct stat st;
    char path[400];
    const struct history *history = actor->history;
    actor->history->moved = actor_position(actor);
    snprintf(path, sizeof path, "%s/%s", actor->dir, history->left ? history->left : "");
    if (history->left && stat(path, &st) == 0)
        actor_fail(actor, "%s was not moved away", history->left);
}
