/*
 * erase.c - a session deleted, and its bytes with it, from every file of the store.
 *
 * First the snapshots, each a store of its own that is opened for it: one that is in use refuses
 * the whole before anything is changed. Then the session is deleted, the segment that has its last
 * frames is sealed, and whatever holds frames of it is written anew. An index keeps old pages for
 * use at other times, so it is built anew from the log, and the checkpoints are made from that.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compact.h"
#include "erasing.h"
#include "recover.h"
#include "scan.h"
#include "thread.h"

struct names {
    char **at;
    size_t count, capacity;
};

static int take_name(void *context, const char *name)
{
    struct names *names = context;
    if (names->count == names->capacity) {
        size_t capacity = names->capacity ? names->capacity * 2 : 16;
        char **at = realloc(names->at, capacity * sizeof *at);
        if (!at)
            return -ENOMEM;
        names->at = at;
        names->capacity = capacity;
    }
    char *copy = strdup(name);
    if (!copy)
        return -ENOMEM;
    names->at[names->count++] = copy;
    return 0;
}

static void names_free(struct names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->at[i]);
    free(names->at);
}

/* Names in a directory below DIR; none if there is no such directory. *dir stays open (or is -1).
 */
static int list_folder(struct hl_store *store, const char *folder, struct names *names, int *dir)
{
    *names = (struct names){.at = NULL};
    *dir = hl_io_open_dir(store->io, store->dirfd, folder, false);
    if (*dir < 0)
        return *dir == -ENOENT ? 0 : *dir;
    return store->io->list(store->io->context, *dir, take_name, names);
}

/* ---- snapshots ---- */

struct snapshots {
    struct names names;
    struct hl_store **at; /* those that are stores; open */
};

static void close_snapshots(struct snapshots *snapshots)
{
    for (size_t i = 0; snapshots->at && i < snapshots->names.count; i++)
        hl_store_close(snapshots->at[i]);
    free(snapshots->at);
    names_free(&snapshots->names);
}

static int open_snapshot(struct hl_store *store, const char *name, struct hl_store **opened,
                         struct hl_error *err)
{
    struct hl_options options = store->options;
    struct hl_error why = {0};
    char *path;
    if (name[0] == '.')
        return 0;
    if (asprintf(&path, "%s/snapshots/%s", store->path, name) < 0)
        return hl_fail(err, ENOMEM, "out of memory");
    options.compact_interval_ms = 0;
    options.news = NULL;
    options.read_only = false;
    int error = hl_store_open(path, &options, opened, NULL, &why);
    free(path);
    if (error == -EBUSY)
        return hl_fail(err, EBUSY, "snapshot `%s` is in use: unmount it first", name);
    return error < 0 ? hl_fail(err, -error, "cannot open snapshot `%s`: %s", name, why.text) : 0;
}

static int open_snapshots(struct hl_store *store, struct snapshots *snapshots,
                          struct hl_progress *progress, struct hl_error *err)
{
    int dir = -1;
    int error = thread_lock(&store->reindex_lock, progress, err);
    if (error < 0)
        return error;
    error = snapshot_clean(store); /* one that failed, and could not be removed then */
    pthread_mutex_unlock(&store->reindex_lock);
    if (error == 0)
        error = list_folder(store, "snapshots", &snapshots->names, &dir);
    hl_io_close(store->io, dir);
    if (error == 0 && snapshots->names.count > 0) {
        snapshots->at = calloc(snapshots->names.count, sizeof(*snapshots->at));
        error = snapshots->at ? 0 : -ENOMEM;
    }
    if (error < 0)
        return hl_fail(err, -error, "cannot list snapshots/: %s", strerror(-error));
    for (size_t i = 0; i < snapshots->names.count && error == 0; i++)
        error = open_snapshot(store, snapshots->names.at[i], &snapshots->at[i], err);
    return error;
}

/* ---- files ---- */

/* Whether a segment file has frames of the session, or may have some. 1, 0, or an error. */
static int holds(struct hl_store *store, int dir, const char *name, uint32_t session)
{
    struct segment_set set;
    struct segment *segment;
    struct compact_table table;
    segment_set_init(&set, store->io, dir, false);
    compact_table_init(&table);
    int error = segment_load(&set, name, &segment, NULL);
    if (error == 0) {
        error = compact_table_scan(&table, store, segment, 0, NULL);
        segment_free(&set, segment);
    }
    bool found = table.damaged;
    for (uint32_t i = 0; i < table.count && !found; i++)
        found = table.frames[i].session == session && table.frames[i].type != FRAME_DROP;
    compact_table_free(&table);
    segment_set_free(&set);
    if (error == -EBADMSG || error == -ENODATA || error == -EINVAL || error == -ENOTSUP)
        return 1; /* it cannot be told */
    return error < 0 ? error : found;
}

/* compact_lock is held: a compaction trims what is there. */
static int clean_backup(struct hl_store *store, uint32_t session)
{
    struct names names;
    int dir;
    int error = list_folder(store, "backup", &names, &dir);
    for (size_t i = 0; i < names.count && error == 0; i++) {
        if (!strstr(names.at[i], ".seg"))
            continue; /* a list */
        int held = holds(store, dir, names.at[i], session);
        error = held < 0 ? held
                : held   ? store->io->unlink(store->io->context, dir, names.at[i], 0)
                         : 0;
    }
    if (error == 0 && dir >= 0)
        error = hl_io_fsync(store->io, dir);
    hl_io_close(store->io, dir);
    names_free(&names);
    return error;
}

enum log_task { LOOK, REMOVE };

/* A segment file of log/ besides those that count. What another took the place of goes, as from
 * backup/; what nothing stands for may hold other sessions' records, so that it is not removed
 * here, and nobody can say that the session's bytes are gone while it is there. */
static int see_to(struct hl_store *store, const char *name, uint32_t session, enum log_task task,
                  struct hl_error *err)
{
    enum segment_standing standing = segment_set_standing(&store->segments, name);
    if (standing != (task == LOOK ? SEGMENT_APART : SEGMENT_REPLACED))
        return 0;
    int held = holds(store, store->logfd, name, session);
    if (held <= 0)
        return held;
    if (task == REMOVE)
        return store->io->unlink(store->io->context, store->logfd, name, 0);
    return hl_fail(err, EBADMSG,
                   "log/%s is not in use, since it is damaged, and may hold bytes of the session: "
                   "move it away, or have fsck.hotlogfs mend it",
                   name);
}

/* No compaction is under way meanwhile, so that what is not in use stays so. */
static int see_to_log(struct hl_store *store, uint32_t session, enum log_task task,
                      struct hl_progress *progress, struct hl_error *err)
{
    struct names names = {.at = NULL};
    uint32_t first, last, generation;
    int error = thread_lock(&store->compact_lock, progress, err);
    if (error < 0)
        return error;
    error = store->io->list(store->io->context, store->logfd, take_name, &names);
    for (size_t i = 0; i < names.count && error == 0; i++) {
        const char *name = names.at[i];
        if (segment_name_parse(name, &first, &last, &generation))
            error = see_to(store, name, session, task, err);
        else if (task == REMOVE && recover_is_unfinished(name))
            error = store->io->unlink(store->io->context, store->logfd, name, 0);
    }
    if (error == 0 && task == REMOVE)
        error = hl_io_fsync(store->io, store->logfd);
    pthread_mutex_unlock(&store->compact_lock);
    names_free(&names);
    return error < 0 && err->code == 0
               ? hl_fail(err, -error, "cannot look for old files: %s", strerror(-error))
               : error;
}

/* Damaged bytes may be anybody's. */
static int clean_quarantine(struct hl_store *store)
{
    struct names names;
    int dir;
    int error = recover_remove_dir(store, "quarantine/index");
    if (error == -ENOTDIR)
        error = 0;
    if (error == 0)
        error = list_folder(store, "quarantine", &names, &dir);
    else
        return error;
    for (size_t i = 0; i < names.count && error == 0; i++)
        error = store->io->unlink(store->io->context, dir, names.at[i], 0);
    if (error == 0 && dir >= 0)
        error = hl_io_fsync(store->io, dir);
    hl_io_close(store->io, dir);
    names_free(&names);
    return error;
}

static int renew_index(struct hl_store *store, struct hl_progress *progress, struct hl_error *err)
{
    int removed, error = reindex_whole(store, progress, &removed, err);
    if (error < 0)
        return error;
    error = removed;
    if (error == 0)
        error = hl_io_fsync(store->io, store->dirfd);
    if (error < 0)
        return hl_fail(err, -error, "cannot remove the old index: %s", strerror(-error));
    pthread_mutex_lock(&store->flush_lock);
    error = checkpoint_remove(store, true);
    pthread_mutex_unlock(&store->flush_lock);
    if (error < 0)
        return hl_fail(err, -error, "cannot remove the old checkpoints: %s", strerror(-error));
    return hl_checkpoint(store, NULL, err);
}

/* ---- the whole ---- */

static int erase(struct hl_store *store, uint32_t session, struct hl_progress *progress,
                 struct hl_dropped *dropped, struct hl_error *err)
{
    int error = hl_delete(store, session, dropped, err);
    if (error == -ENOENT && lookup_removed(store, session) == 1)
        error = 0; /* an earlier call did not come to its end */
    if (error == 0)
        error = compact_erase(store, session, progress, err);
    if (error == 0)
        error = renew_index(store, progress, err);
    if (error < 0)
        return error;
    error = thread_lock(&store->compact_lock, progress, err);
    if (error < 0)
        return error;
    error = clean_backup(store, session);
    pthread_mutex_unlock(&store->compact_lock);
    if (error == 0)
        error = clean_quarantine(store);
    if (error == 0)
        error = see_to_log(store, session, REMOVE, progress, err);
    if (error < 0 && err->code == 0)
        hl_fail(err, -error, "cannot remove old files: %s", strerror(-error));
    return error;
}

/* The same session in a snapshot, by number and id; a snapshot that went on by itself may have
 * given the number to another. */
static int erase_in(struct hl_store *snapshot, const struct hl_session *about,
                    struct hl_progress *progress, struct hl_error *err)
{
    struct hl_session found;
    int error = hl_session_by_number(snapshot, about->number, &found);
    bool same = error == 0 && found.id_len == about->id_len &&
                memcmp(found.id, about->id, found.id_len) == 0;
    if (error == -ENOENT && lookup_removed(snapshot, about->number) == 1)
        same = true;
    else if (error < 0 && error != -ENOENT)
        return hl_fail(err, -error, "cannot look a session up: %s", strerror(-error));
    return same ? hl_erase(snapshot, about->number, progress, NULL, err) : 0;
}

/* The id of one that is deleted, if it is known that it was to be erased. */
static void find_noted(struct hl_store *store, uint32_t session, struct hl_session *about)
{
    struct hl_erasing noted;
    *about = (struct hl_session){.number = session};
    if (hl_erasing_next(store, session - 1, &noted) < 0 || noted.number != session)
        return;
    about->id_len = noted.id_len;
    memcpy(about->id, noted.id, sizeof about->id);
}

/* erase_lock is held. */
static int erase_everywhere(struct hl_store *store, uint32_t session, struct hl_progress *progress,
                            struct hl_dropped *dropped, struct hl_error *err)
{
    struct hl_session about = {.number = session};
    struct snapshots snapshots = {.at = NULL};
    int error = hl_session_by_number(store, session, &about);
    if (error == -ENOENT && lookup_removed(store, session) == 1) {
        error = 0;
        find_noted(store, session, &about);
    }
    if (error < 0)
        return hl_fail(err, -error, "there is no such session");
    error = see_to_log(store, session, LOOK, progress, err);
    if (error == 0)
        error = open_snapshots(store, &snapshots, progress, err);
    if (error == 0) {
        error = erasing_add(store, &about);
        if (error < 0)
            hl_fail(err, -error, "cannot write DIR/erasing: %s", strerror(-error));
    }
    for (size_t i = 0; i < snapshots.names.count && error == 0; i++) {
        if (snapshots.at[i])
            error = erase_in(snapshots.at[i], &about, progress, err);
    }
    close_snapshots(&snapshots);
    if (error == 0)
        error = erase(store, session, progress, dropped, err);
    if (error < 0 && hl_session_by_number(store, session, &about) == 0)
        (void)erasing_remove(store, session); /* it was not even deleted */
    else if (error == 0 && (error = erasing_remove(store, session)) < 0)
        hl_fail(err, -error, "cannot remove DIR/erasing: %s", strerror(-error));
    return error;
}

int hl_erase(struct hl_store *store, uint32_t session, struct hl_progress *progress,
             struct hl_dropped *dropped, struct hl_error *err)
{
    struct hl_dropped ignored = {0};
    struct hl_error local = {0};
    if (!err)
        err = &local;
    *err = (struct hl_error){0};
    dropped = dropped ? dropped : &ignored;
    *dropped = (struct hl_dropped){0};
    int error = store_writable(store, err);
    if (error == 0)
        error = thread_lock(&store->erase_lock, progress, err);
    if (error < 0)
        return error;
    error = erase_everywhere(store, session, progress, dropped, err);
    pthread_mutex_unlock(&store->erase_lock);
    return error;
}

int erasing_finish(struct hl_store *store, uint32_t session, struct hl_progress *progress,
                   struct hl_error *err)
{
    struct hl_dropped dropped = {0};
    int error = thread_lock(&store->erase_lock, progress, err);
    if (error < 0)
        return error;
    if (erasing_has(store, session))
        error = erase_everywhere(store, session, progress, &dropped, err);
    pthread_mutex_unlock(&store->erase_lock);
    return error;
}
