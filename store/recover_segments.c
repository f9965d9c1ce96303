/* recover_segments.c - which segments live: what DIR/log holds, by names and headers. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "recover.h"

#define MISSED_MAX 65536U /* numbers tried in a hole */

struct listing {
    struct hl_store *store;
    struct segment_file *files;
    size_t count, capacity;
};

bool recover_is_unfinished(const char *name)
{
    char stem[SEGMENT_NAME_MAX];
    uint32_t first, last, generation;
    size_t len = strlen(name);
    if (len <= 4 || len - 4 >= sizeof stem || strcmp(name + len - 4, ".tmp") != 0)
        return false;
    memcpy(stem, name, len - 4);
    stem[len - 4] = 0;
    return segment_name_parse(stem, &first, &last, &generation);
}

static int remove_unfinished(struct hl_store *store, const char *name)
{
    if (store->options.read_only || store->shadow)
        return 0;
    int error = store->io->unlink(store->io->context, store->logfd, name, 0);
    store_report(store, HL_WARNING,
                 error < 0 ? "log/%s was never finished, but cannot be removed: %s"
                           : "log/%s was never finished; it is removed%s",
                 name, error < 0 ? strerror(-error) : "");
    return error == -EIO ? error : 0;
}

static int list_name(void *context, const char *name)
{
    struct listing *listing = context;
    struct hl_store *store = listing->store;
    struct segment_file file = {.fate = SEGMENT_LIVE};
    if (recover_is_unfinished(name))
        return remove_unfinished(store, name);
    if (!segment_name_parse(name, &file.first, &file.last, &file.generation)) {
        store_report(store, HL_WARNING, "log/%s is no segment; it is left alone", name);
        return 0;
    }
    if (listing->count == listing->capacity) {
        size_t capacity = listing->capacity ? listing->capacity * 2 : 64;
        void *files = realloc(listing->files, capacity * sizeof *listing->files);
        if (!files)
            return -ENOMEM;
        listing->files = files;
        listing->capacity = capacity;
    }
    snprintf(file.name, sizeof file.name, "%s", name);
    listing->files[listing->count++] = file;
    return 0;
}

/* A last segment whose making was cut short holds nothing yet. */
static int drop_unborn(struct hl_store *store, const char *name)
{
    if (store->options.read_only || store->shadow)
        return 0; /* its writer may be about to write the header */
    int error = store->io->unlink(store->io->context, store->logfd, name, 0);
    return error < 0 ? error : hl_io_fsync(store->io, store->logfd);
}

/* A file that is there has its numbers, whatever becomes of it. */
static void count_number(struct hl_store *store, const char *name)
{
    uint32_t first, last, generation;
    if (segment_name_parse(name, &first, &last, &generation) && last > store->highest_number)
        store->highest_number = last;
}

static int load_one(struct hl_store *store, const char *name, bool newest, struct hl_error *err)
{
    struct segment *segment;
    struct hl_error why = {0};
    int error = segment_load(&store->segments, name, &segment, &why);
    if (error == -ENODATA && newest)
        return drop_unborn(store, name);
    if (error == -ENOENT && store->retries > 0)
        return -EAGAIN; /* its writer goes on: reread all */
    count_number(store, name);
    if (error == -ENODATA || error == -EBADMSG) {
        char what[400];
        snprintf(what, sizeof what, "%s; it is left alone and its records are missing",
                 why.text[0] ? why.text : name);
        store_damage(store, 0, what);
        return 0;
    }
    if (error < 0)
        return hl_fail(err, -error, "%s", why.text[0] ? why.text : strerror(-error));
    if (segment->header_damaged)
        store_report(store, HL_WARNING, "one of the two headers of segment %s is damaged", name);
    if (store->segments.count == 0)
        memcpy(store->store_id, segment->store_id, sizeof store->store_id);
    else if (memcmp(store->store_id, segment->store_id, sizeof store->store_id) != 0)
        error = hl_fail(err, EINVAL, "segment %s belongs to another store", name);
    const struct segment *before =
        store->segments.count ? store->segments.at[store->segments.count - 1] : NULL;
    if (error == 0 && before && segment->first <= before->last)
        error =
            hl_fail(err, EBADMSG, "segments %s and %s hold the same numbers", before->name, name);
    uint32_t expected = before ? before->last + 1 : 1;
    if (error == 0 && segment->first != expected) {
        char what[160];
        snprintf(what, sizeof what, "segments %" PRIu32 " to %" PRIu32 " are missing", expected,
                 segment->first - 1);
        store_damage(store, position_make(expected, 0), what);
    }
    uint64_t size = 0;
    if (error == 0)
        error = hl_io_size(store->io, segment->fd, &size);
    if (error == 0)
        error = segment_set_add(&store->segments, segment);
    if (error < 0)
        segment_free(&store->segments, segment);
    else
        segment->size = size;
    return error;
}

static bool is_loaded(const struct hl_store *store, const char *name)
{
    for (size_t i = store->segments.count; i > 0; i--) {
        if (strcmp(store->segments.at[i - 1]->name, name) == 0)
            return true;
    }
    return false;
}

/* A listing made while the writer makes segments may show a later one and miss an earlier one.
 * Loads what it missed before this file. */
static int load_missed(struct hl_store *store, const struct segment_file *file,
                       struct hl_error *err)
{
    char missed[SEGMENT_NAME_MAX];
    int error = 0;
    if ((!store->shadow && !store->options.read_only) || store->segments.count == 0)
        return 0;
    uint32_t number = store->segments.at[store->segments.count - 1]->last + 1;
    for (unsigned i = 0; number < file->first && i < MISSED_MAX && error == 0; number++, i++) {
        segment_name_format(missed, number, number, 0);
        int fd = hl_io_open(store->io, store->logfd, missed, O_RDONLY, 0);
        hl_io_close(store->io, fd);
        if (fd >= 0)
            error = load_one(store, missed, false, err);
    }
    return error;
}

static int load_live(struct hl_store *store, const struct segment_file *files, size_t count,
                     struct hl_error *err)
{
    bool any = store->segments.count > 0;
    size_t newest = count;
    int error = 0;
    for (size_t i = 0; i < count; i++)
        newest = files[i].fate == SEGMENT_LIVE ? i : newest;
    for (size_t i = 0; i < count && error == 0; i++) {
        if (files[i].fate != SEGMENT_LIVE)
            count_number(store, files[i].name);
        if (files[i].fate != SEGMENT_LIVE || (any && is_loaded(store, files[i].name)))
            continue;
        error = load_missed(store, &files[i], err);
        if (error == 0)
            error = load_one(store, files[i].name, i == newest, err);
    }
    return error;
}

/* Loads the segments of log/ that are not in the set yet. */
static int load_new(struct hl_store *store, struct hl_error *err)
{
    struct listing listing = {.store = store};
    int error = store->io->list(store->io->context, store->logfd, list_name, &listing);
    if (error < 0)
        hl_fail(err, -error, "cannot list log/: %s", strerror(-error));
    if (error == 0)
        error = recover_sort_out(store, listing.files, listing.count, err);
    if (error == 0)
        error = load_live(store, listing.files, listing.count, err);
    if (error == 0)
        error = recover_set_stale_aside(store, listing.files, listing.count, err);
    free(listing.files);
    for (size_t i = 0; i + 1 < store->segments.count; i++)
        store->segments.at[i]->sealed = true;
    return error;
}

int recover_load_segments(struct hl_store *store, size_t *count, struct hl_error *err)
{
    int error = load_new(store, err);
    *count = store->segments.count;
    return error;
}

int recover_reload_segments(struct hl_store *store, struct hl_error *err)
{
    int error = load_new(store, err);
    for (size_t i = 0; i < store->segments.count && error == 0; i++) {
        struct segment *segment = store->segments.at[i], *taken;
        uint64_t size = 0;
        if (segment->first < position_segment(atomic_load(&store->indexed)))
            continue;
        error = segment_get(&store->segments, segment->first, &taken);
        if (error < 0)
            break;
        error = hl_io_size(store->io, taken->fd, &size);
        segment_put(&store->segments, taken);
        atomic_store(&segment->size, size);
    }
    return error;
}

struct segment *recover_find_live(struct hl_store *store, uint32_t first)
{
    for (size_t i = 0; i < store->segments.count; i++) {
        if (store->segments.at[i]->first == first)
            return store->segments.at[i];
    }
    return NULL;
}
