/* check_log.c - the files of log/, and every frame in them. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "seal.h"
#include "session.h"

#define MISSING_MAX 4096U /* numbers that one hole is mended for */
#define TICK_BYTES (UINT64_C(1) << 20)

/* ---- files ---- */

/* The live segment that holds the numbers, or a part of them. */
static const struct segment *find_over(const struct hl_store *store, uint32_t first, uint32_t last)
{
    for (size_t i = 0; i < store->segments.count; i++) {
        const struct segment *segment = store->segments.at[i];
        if (segment->first <= last && segment->last >= first)
            return segment;
    }
    return NULL;
}

static int look_at_name(void *context, const char *name)
{
    struct checking *checking = context;
    struct fault fault = {.kind = FAULT_UNREADABLE};
    char file[300];
    size_t len = strlen(name);
    snprintf(file, sizeof file, "log/%.256s", name);
    if (!segment_name_parse(name, &fault.first, &fault.last, &fault.generation)) {
        bool unfinished = len > 4 && strcmp(name + len - 4, ".tmp") == 0;
        check_tell(checking, unfinished ? "unfinished" : "foreign", HL_INFO, false, file, 0, 0,
                   unfinished ? "was never finished, and is of no use"
                              : "is no segment; it is left alone");
        return 0;
    }
    const struct segment *over = find_over(checking->store, fault.first, fault.last);
    if (over && strcmp(over->name, name) == 0)
        return 0;
    snprintf(fault.name, sizeof fault.name, "%s", name);
    if (over && fault.generation > over->generation) {
        check_tell(checking, "unsound", HL_WARNING, true, file, 0, 0,
                   "is damaged or was not finished; the segments that it was made of are there");
        checking->faults->recovery = true;
        return 0;
    }
    if (over) {
        check_tell(checking, "stale", HL_INFO, false, file, 0, 0,
                   "is replaced by %s, and has not gone to backup/ yet", over->name);
        return 0;
    }
    /* One that a crash cut short in its making holds nothing, and goes at the next opening. */
    struct segment *unborn;
    int error = segment_load(&checking->store->segments, name, &unborn, NULL);
    const struct segment_set *set = &checking->store->segments;
    uint32_t highest = set->count ? set->at[set->count - 1]->last : 0;
    if (error == -ENODATA && fault.first > highest) {
        check_tell(checking, "unfinished", HL_INFO, false, file, 0, 0,
                   "was never finished, and holds nothing");
        return 0;
    }
    if (error == 0)
        segment_free(&checking->store->segments, unborn);
    fault.newest = fault.first > highest;
    check_tell(checking, "header", HL_ERROR, true, file, 0, SEGMENT_HEADER_REGION,
               "has no good header: nothing of it can be read");
    return faults_add(checking->faults, &fault);
}

/* Numbers that no file has. */
static int check_holes(struct checking *checking)
{
    const struct hl_store *store = checking->store;
    uint32_t expected = 1;
    int error = 0;
    for (size_t i = 0; i < store->segments.count && error == 0; i++) {
        const struct segment *segment = store->segments.at[i];
        struct fault hole = {.first = expected, .last = segment->first - 1, .kind = FAULT_MISSING};
        expected = segment->last + 1;
        if (hole.first > hole.last)
            continue;
        bool unreadable = false; /* told of already */
        for (size_t k = 0; k < checking->faults->count && !unreadable; k++) {
            const struct fault *fault = &checking->faults->at[k];
            unreadable = fault->kind == FAULT_UNREADABLE && fault->first == hole.first &&
                         fault->last == hole.last;
        }
        if (unreadable)
            continue;
        bool mendable = hole.last - hole.first < MISSING_MAX;
        check_tell(checking, "missing", HL_ERROR, mendable, "log", 0, 0,
                   "segments %" PRIu32 " to %" PRIu32 " are missing", hole.first, hole.last);
        for (uint32_t number = hole.first; mendable && error == 0; number++) {
            struct fault one = {.first = number, .last = number, .kind = FAULT_MISSING};
            error = faults_add(checking->faults, &one);
            if (number == hole.last)
                break;
        }
    }
    return error;
}

int check_files(struct checking *checking, bool *usable)
{
    struct hl_store *store = checking->store;
    struct hl_error why = {0};
    size_t count = 0;
    int error = recover_load_segments(store, &count, &why);
    *usable = error == 0;
    if (error == -EBADMSG || error == -EINVAL) { /* nothing says which files count */
        check_tell(checking, "segments", HL_ERROR, false, "log", 0, 0, "%s", why.text);
        return 0;
    }
    if (error < 0)
        return hl_fail(checking->err, -error, "%s", why.text[0] ? why.text : strerror(-error));
    error = store->io->list(store->io->context, store->logfd, look_at_name, checking);
    if (error == 0)
        error = check_holes(checking);
    if (error < 0)
        return hl_fail(checking->err, -error, "cannot list log/: %s", strerror(-error));
    *usable = count > 0;
    if (count == 0)
        check_tell(checking, "segments", HL_ERROR, false, "log", 0, 0,
                   "there is no segment that can be read");
    return 0;
}

/* ---- frames ---- */

/* The end of the newest is recovery's to mend, unless it is sealed. */
static int add_content_fault(struct checking *checking)
{
    const struct segment *segment = checking->segment;
    struct fault fault = {
        .first = segment->first,
        .last = segment->last,
        .generation = segment->generation,
        .kind = FAULT_CONTENT,
        .newest = checking->newest && (!checking->sealed || checking->torn_at != 0),
        .salt_known = true,
        .salt = segment->salt,
    };
    snprintf(fault.name, sizeof fault.name, "%s", segment->name);
    return faults_add(checking->faults, &fault);
}

static void tell_broken(struct checking *checking, uint64_t offset)
{
    check_tell(checking, "batch", HL_ERROR, checking->newest, NULL, offset, 0,
               "a batch is not whole");
}

static void take_broken(void *context, const struct segment *segment, uint64_t offset)
{
    struct checking *checking = context;
    (void)segment;
    if (!checking->newest) {
        tell_broken(checking, offset);
        return;
    }
    if (checking->broken_at)
        tell_broken(checking, checking->broken_at);
    checking->broken_at = offset; /* perhaps the last one, which is torn */
}

static void take_damaged(void *context, const struct segment *segment, const struct scan_item *item)
{
    struct checking *checking = context;
    (void)segment;
    if (checking->newest && item->kind == SCAN_TAIL) {
        checking->torn_at = checking->inspect.in_batch ? checking->inspect.batch_at : item->offset;
        checking->torn_end = item->offset + item->size;
        return;
    }
    checking->damaged++;
    checking->faults->recovery = checking->faults->recovery || checking->newest;
    check_tell(checking, "gap", HL_ERROR, true, NULL, item->offset, item->size,
               "%" PRIu64 " bytes are damaged", item->size);
}

static int take_session(struct checking *checking, const struct scan_item *item, struct seen *seen)
{
    struct index_row row;
    const struct frame *frame = &item->frame;
    int error = session_decode(frame->body, frame->length, &row);
    bool good = error == 0 && row.number == frame->session;
    if (error == 0)
        session_row_free(&row);
    if (error < 0 && error != -EBADMSG)
        return error;
    if (!good)
        check_tell(checking, "session", HL_ERROR, false, NULL, item->offset, item->size,
                   "the frame of session %" PRIu32 " does not say what it is", frame->session);
    seen->has_frame = seen->has_frame || good;
    return 0;
}

static void take_record(struct checking *checking, const struct scan_item *item, struct seen *seen,
                        bool *ask)
{
    const struct frame *frame = &item->frame;
    for (size_t i = 0; i < checking->point_count; i++) {
        struct point *point = &checking->points[i];
        if (point->line_bytes == checking->line_bytes && point->offset == item->offset)
            point->met = true;
        if (point->line_bytes <= checking->line_bytes)
            break; /* they descend */
    }
    checking->records++;
    checking->line_bytes += frame->length;
    if (!seen->has_frame && !seen->has_seq && !seen->deleted)
        check_tell(checking, "session", HL_INFO, false, NULL, item->offset, 0,
                   "the frame that makes session %" PRIu32
                   " is gone: its id is taken from its lines",
                   frame->session);
    if (seen->has_seq && frame->seq <= seen->last_seq) {
        check_tell(checking, "order", HL_ERROR, false, NULL, item->offset, item->size,
                   "record %" PRIu64 " of session %" PRIu32 " comes after record %" PRIu64,
                   frame->seq, frame->session, seen->last_seq);
        *ask = false;
        return;
    }
    seen->has_seq = true;
    seen->last_seq = frame->seq;
}

static int take_drop_frame(struct checking *checking, const struct scan_item *item)
{
    struct drop drop;
    if (drop_decode(item->frame.body, item->frame.length, &drop) < 0)
        check_tell(checking, "drop", HL_ERROR, false, NULL, item->offset, item->size,
                   "a drop frame of session %" PRIu32 " does not say what it drops",
                   item->frame.session);
    return 0;
}

static void take_seal(struct checking *checking, const struct scan_item *item)
{
    struct seal said;
    checking->sealed = true;
    checking->seal_wrong = seal_decode(item->frame.body, item->frame.length, &said) < 0 ||
                           said.end != item->offset || said.records != checking->records ||
                           said.line_bytes != checking->line_bytes;
}

static int take_frame(void *context, const struct segment *segment, const struct scan_item *item,
                      bool *ask)
{
    struct checking *checking = context;
    const struct frame *frame = &item->frame;
    uint64_t position = position_make(segment->first, item->offset);
    if (checking->request->tick && item->offset - checking->ticked >= TICK_BYTES) {
        checking->ticked = item->offset;
        checking->request->tick(checking->request->context);
    }
    checking->behind_seal = checking->behind_seal || checking->sealed;
    if (frame->type == FRAME_SEAL) {
        take_seal(checking, item);
        return 0;
    }
    if (frame->type != FRAME_SESSION && frame->type != FRAME_EVENT &&
        frame->type != FRAME_OPERATION && frame->type != FRAME_DROP)
        return 0;
    struct seen *seen = check_seen(checking, frame->session);
    if (!seen)
        return -ENOMEM;
    if (!seen->known)
        checking->report->sessions++;
    seen->known = true;
    if (frame->type == FRAME_DROP)
        return take_drop_frame(checking, item);
    seen->early = seen->early || position < checking->inspect.complete;
    if (frame->type == FRAME_SESSION)
        return take_session(checking, item, seen);
    take_record(checking, item, seen, ask);
    if (frame->type == FRAME_OPERATION) {
        seen->operations++;
        seen->early_operations += position < checking->inspect.complete;
    }
    return 0;
}

static void take_entry(void *context, const struct scan_item *item, enum inspect_entry entry)
{
    struct checking *checking = context;
    struct seen *seen = check_seen(checking, item->frame.session);
    if (!seen)
        return; /* cannot be: take_frame() has made it */
    seen->matched += entry == ENTRY_MATCHED;
    seen->missing += entry == ENTRY_MISSING;
}

static void take_drop(void *context, uint32_t session, const struct drop *drop, uint64_t hidden)
{
    struct checking *checking = context;
    struct seen *seen = check_seen(checking, session);
    if (!seen)
        return; /* cannot be: take_frame() has made it */
    seen->missing -= hidden < seen->missing ? hidden : seen->missing;
    if (drop->kind == DROP_TRIM)
        return;
    seen->deleted = true;
    seen->early = false; /* the index need not have it */
    seen->operations = seen->early_operations = 0;
}

/* ---- segments ---- */

static void tell_torn(struct checking *checking)
{
    if (checking->torn_at == 0 && checking->inspect.in_batch && checking->broken_at) {
        checking->torn_at = checking->broken_at;
        checking->torn_end = checking->end;
        checking->broken_at = 0;
    }
    if (checking->broken_at &&
        (checking->torn_at == 0 || checking->broken_at < checking->torn_at)) {
        tell_broken(checking, checking->broken_at);
        checking->faults->recovery = true;
    }
    checking->faults->recovery = checking->faults->recovery || checking->torn_at != 0;
    if (checking->torn_at)
        check_tell(checking, "torn-tail", HL_WARNING, true, NULL, checking->torn_at,
                   checking->torn_end - checking->torn_at,
                   "behind the last whole batch are %" PRIu64 " bytes of one that is not",
                   checking->torn_end - checking->torn_at);
}

/* What the segment as a whole has to be. */
static int check_whole(struct checking *checking)
{
    bool content = checking->damaged > 0 && !checking->newest;
    if (checking->segment->header_damaged) {
        check_tell(checking, "header", HL_WARNING, true, NULL, 0, SEGMENT_HEADER_REGION,
                   "one of the two headers is damaged");
        content = true;
    }
    if (checking->newest)
        tell_torn(checking);
    if (!checking->newest && !checking->sealed) {
        check_tell(checking, "seal", HL_ERROR, true, NULL, checking->end, 0,
                   "has no seal at its end: what stood there is missing");
        content = true;
    } else if (checking->behind_seal) {
        check_tell(checking, "seal", HL_ERROR, true, NULL, 0, 0, "goes on behind its seal");
        content = true;
    } else if (checking->seal_wrong && checking->damaged == 0) {
        check_tell(checking, "seal", HL_ERROR, true, NULL, 0, 0,
                   "its seal says something else than its frames");
        content = true;
    }
    return content ? add_content_fault(checking) : 0;
}

static int begin_segment(void *context, const struct segment *segment, uint64_t end)
{
    struct checking *checking = context;
    checking->segment = segment;
    checking->newest = segment->first == checking->last;
    checking->end = end;
    checking->records = checking->line_bytes = checking->damaged = checking->ticked = 0;
    checking->sealed = checking->seal_wrong = checking->behind_seal = false;
    checking->torn_at = checking->torn_end = checking->broken_at = 0;
    return check_points_begin(checking);
}

static int end_segment(void *context)
{
    struct checking *checking = context;
    int error = check_whole(checking);
    return error == 0 ? check_points_end(checking) : error;
}

int check_segments(struct checking *checking)
{
    struct hl_store *store = checking->store;
    const struct segment *newest = store->segments.at[store->segments.count - 1];
    char at[SEGMENT_NAME_MAX] = "";
    checking->last = newest->first;
    checking->inspect = (struct inspect){
        .store = store,
        .report = &checking->report->log,
        .progress = checking->request->progress,
        .complete = store->index ? atomic_load(&store->indexed) : 0,
        .damaged = take_damaged,
        .broken = take_broken,
        .frame = take_frame,
        .begin = begin_segment,
        .end = end_segment,
        .entry = take_entry,
        .dropped = take_drop,
        .context = checking,
    };
    int error = inspect_segments(&checking->inspect, checking->last, newest->size, at);
    inspect_forget_missing(&checking->inspect);
    checking->segment = NULL;
    free(checking->points);
    checking->points = NULL;
    if (error == -EINTR)
        return hl_fail(checking->err, EINTR, "interrupted");
    return error < 0
               ? hl_fail(checking->err, -error, "cannot read segment %s: %s", at, strerror(-error))
               : 0;
}
