/* check_index.c - the index by itself, the checkpoints, and the index against the log. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

#define SESSIONS_TOLD 20U

static void tell_index(struct checking *checking, const char *why)
{
    checking->faults->recovery = true;
    check_tell(checking, "index", HL_WARNING, true, "index/data.mdb", 0, 0, "%s", why);
}

/* ---- opening ---- */

/* The salt of a file whose headers are gone, and files that the index was made with and that are no
 * more. */
static int compare_segments(struct checking *checking, struct index_view *view)
{
    struct index_segment known;
    int error;
    for (uint32_t after = 0; (error = index_segment_next(view, after, &known)) == 0;
         after = known.first) {
        const struct hl_store *store = checking->store;
        bool there = false;
        for (size_t i = 0; i < store->segments.count && !there; i++)
            there = store->segments.at[i]->first <= known.first &&
                    store->segments.at[i]->last >= known.last;
        for (size_t i = 0; i < checking->faults->count && !there; i++) {
            struct fault *fault = &checking->faults->at[i];
            there = fault->first <= known.first && fault->last >= known.last;
            bool same = fault->first == known.first && fault->last == known.last &&
                        (fault->kind == FAULT_MISSING || fault->generation == known.generation);
            if (same && fault->kind != FAULT_CONTENT) {
                fault->salt_known = true;
                fault->salt = known.salt;
                fault->generation = known.generation;
            }
        }
        if (!there && known.records > 0)
            check_tell(checking, "missing", HL_ERROR, true, "log", 0, 0,
                       "segment %" PRIu32 " is missing; the index knows %" PRIu64 " records of it",
                       known.first, known.records);
    }
    return error == -ENOENT ? 0 : error;
}

static int use_index(struct checking *checking)
{
    struct hl_store *store = checking->store;
    struct index_view *view;
    struct hl_error why = {0};
    int error = index_view_begin(store->index, &view);
    if (error == 0) {
        error = compare_segments(checking, view);
        index_view_end(view);
    }
    if (error == 0)
        error = recover_adopt_index(store, &why);
    if (error < 0) {
        index_close(store->index);
        store->index = NULL;
    }
    if (error != -EBADMSG)
        return error;
    tell_index(checking, why.text[0] ? why.text : "its list of segments is damaged");
    return 0;
}

int check_open_index(struct checking *checking)
{
    struct hl_store *store = checking->store;
    struct index_check_report report;
    char *path;
    int exists = recover_index_exists(store);
    if (exists == 0)
        tell_index(checking, "there is no index");
    if (exists <= 0)
        return exists < 0 ? hl_fail(checking->err, -exists, "cannot look at the index: %s",
                                    strerror(-exists))
                          : 0;
    if (asprintf(&path, "%s/index", store->path) < 0)
        return hl_fail(checking->err, ENOMEM, "out of memory");
    /* Without LMDB's locks, so without a change: nobody writes while the check has the lock. */
    int error = index_check_in_child(path, INDEX_NO_LOCK, store->store_id, &report);
    if (error == 0)
        error =
            index_open(path, INDEX_READ_ONLY | INDEX_NO_LOCK, store->store_id, &store->index, NULL);
    free(path);
    if (error == -EBADMSG || error == -ENOENT) {
        tell_index(checking, report.complaint[0] ? report.complaint : "it cannot be read");
        return 0;
    }
    if (error == 0)
        error = use_index(checking);
    if (error < 0)
        return hl_fail(checking->err, -error, "cannot check the index: %s", strerror(-error));
    return 0;
}

/* ---- segments ---- */

/* The index's points of the segment under way, from the last. */
int check_points_begin(struct checking *checking)
{
    struct index_view *view;
    checking->point_count = 0;
    if (!checking->store->index)
        return 0;
    int error = index_view_begin(checking->store->index, &view);
    if (error < 0)
        return error;
    uint64_t below = UINT64_MAX;
    for (;;) {
        struct point point = {.met = false};
        error = index_find_point(view, checking->segment->first, below, &point.line_bytes,
                                 &point.offset);
        if (error < 0)
            break;
        if (checking->point_count == checking->point_capacity) {
            size_t capacity = checking->point_capacity ? checking->point_capacity * 2 : 64;
            void *points = realloc(checking->points, capacity * sizeof *checking->points);
            if (!points) {
                error = -ENOMEM;
                break;
            }
            checking->points = points;
            checking->point_capacity = capacity;
        }
        checking->points[checking->point_count++] = point;
        if (point.line_bytes == 0)
            break;
        below = point.line_bytes - 1;
    }
    index_view_end(view);
    return error == -ENOENT || error == -EBADMSG ? 0 : error;
}

int check_points_end(struct checking *checking)
{
    struct hl_store *store = checking->store;
    const struct segment *segment = checking->segment;
    struct index_segment known;
    struct index_view *view;
    if (!store->index || checking->damaged > 0)
        return 0; /* its entries will tell */
    bool wrong = false;
    for (size_t i = 0; i < checking->point_count; i++)
        wrong = wrong || !checking->points[i].met;
    int error = index_view_begin(store->index, &view);
    if (error < 0)
        return error;
    error = index_segment_next(view, segment->first - 1, &known);
    index_view_end(view);
    if (error < 0 && error != -ENOENT)
        return error;
    /* Of the last one it may know only the beginning. */
    if (error == 0 && known.first == segment->first && !checking->newest)
        wrong = wrong || (known.sealed && (known.records != checking->records ||
                                           known.line_bytes != checking->line_bytes));
    if (wrong) {
        checking->faults->index = true;
        check_tell(checking, "index", HL_WARNING, true, "index/data.mdb", 0, 0,
                   "what it knows of segment %s is not so", segment->name);
    }
    return 0;
}

/* ---- sessions ---- */

struct comparison {
    struct checking *checking;
    unsigned told;
    uint64_t matched;
};

static void tell_session(struct comparison *comparison, const struct index_row *row,
                         const char *what, uint64_t count)
{
    struct checking *checking = comparison->checking;
    checking->faults->index = true;
    if (comparison->told++ < SESSIONS_TOLD)
        check_tell(checking, "index", HL_WARNING, true, "index/data.mdb", 0, 0,
                   "%" PRIu64 " %s session %" PRIu32 " (%.*s)", count, what, row->number,
                   (int)row->id_len, row->id);
}

static void compare_session(struct comparison *comparison, const struct index_row *row)
{
    struct seen *seen = check_seen(comparison->checking, row->number);
    struct seen none = {0};
    if (!seen)
        seen = &none;
    comparison->matched += seen->matched;
    if (seen->missing > 0)
        tell_session(comparison, row, "records of the log are not in it, or elsewhere, of",
                     seen->missing);
    if (row->records > seen->matched) {
        comparison->checking->report->log.index_dangling += row->records - seen->matched;
        tell_session(comparison, row, "of its entries lead to no record of",
                     row->records - seen->matched);
    }
    seen->early = false; /* it is there */
}

static int walk_sessions(struct comparison *comparison, struct index_view *view)
{
    struct index_row row;
    int error;
    for (uint32_t after = 0; (error = index_session_next(view, after, &row)) == 0;
         after = row.number)
        compare_session(comparison, &row);
    return error == -ENOENT ? 0 : error;
}

int check_index_sessions(struct checking *checking)
{
    struct comparison comparison = {.checking = checking};
    struct index_view *view;
    uint64_t unknown = 0;
    if (!checking->store->index)
        return 0;
    int error = index_view_begin(checking->store->index, &view);
    if (error == 0) {
        error = walk_sessions(&comparison, view);
        index_view_end(view);
    }
    if (error < 0)
        return hl_fail(checking->err, -error, "cannot read the index: %s", strerror(-error));
    for (uint32_t number = 1; number <= checking->highest && number != 0; number++) {
        const struct seen *page = checking->seen[number / SEEN_PAGE];
        unknown += page && page[number % SEEN_PAGE].early;
    }
    if (unknown > 0) {
        checking->faults->index = true;
        check_tell(checking, "index", HL_WARNING, true, "index/data.mdb", 0, 0,
                   "%" PRIu64 " sessions of the log are not in it", unknown);
    }
    if (comparison.told > SESSIONS_TOLD)
        check_tell(checking, "index", HL_INFO, true, "index/data.mdb", 0, 0, "and so of %u more",
                   comparison.told - SESSIONS_TOLD);
    return 0;
}

/* ---- checkpoints ---- */

static void take_checkpoint(void *context, const char *name, int result)
{
    struct checking *checking = context;
    if (result == 0)
        return;
    checking->faults->checkpoints = true;
    check_tell(checking, "checkpoint", HL_WARNING, true, name, 0, 0,
               "is damaged, or that of another store");
}

int check_checkpoints(struct checking *checking)
{
    int error = checkpoint_check(checking->store, take_checkpoint, checking);
    return error < 0
               ? hl_fail(checking->err, -error, "cannot read the checkpoints: %s", strerror(-error))
               : 0;
}
