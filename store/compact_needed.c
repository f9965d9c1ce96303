/* compact_needed.c - see compact_needed.h. */
#include "compact_needed.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A growing array of seqs. */
struct seqs {
    uint64_t *at;
    size_t count, capacity;
};

static int push(struct seqs *seqs, uint64_t seq)
{
    if (seqs->count == seqs->capacity) {
        size_t capacity = seqs->capacity ? seqs->capacity * 2 : 64;
        uint64_t *at = realloc(seqs->at, capacity * sizeof *at);
        if (!at)
            return -ENOMEM;
        seqs->at = at;
        seqs->capacity = capacity;
    }
    seqs->at[seqs->count++] = seq;
    return 0;
}

static int by_seq(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void sort(struct seqs *seqs)
{
    size_t kept = 0;
    if (seqs->count > 0)
        qsort(seqs->at, seqs->count, sizeof *seqs->at, by_seq);
    for (size_t i = 0; i < seqs->count; i++) {
        if (kept == 0 || seqs->at[kept - 1] != seqs->at[i])
            seqs->at[kept++] = seqs->at[i];
    }
    seqs->count = kept;
}

static bool find(const uint64_t *at, size_t count, uint64_t seq, size_t *place)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (at[middle] < seq)
            low = middle + 1;
        else
            high = middle;
    }
    if (place)
        *place = low;
    return low < count && at[low] == seq;
}

/* ---- which were undone ---- */

#define NOT_UNDONE UINT64_MAX

struct finding {
    struct index_view *view;
    struct compact_needed *needed;
    uint32_t session;
    struct seqs rows;
    struct seqs undone; /* for each row the seq before which it was undone, or NOT_UNDONE */
    struct seqs open;   /* places of rows that were not undone so far */
    uint64_t last;      /* the highest seq of an operation */
    struct seqs kept, carried;
    bool archive_made; /* below the bound: what is in no row may also make or remove an archive */
    /* Of the slot whose versions are walked: */
    uint64_t slot;
    uint64_t oldest;
    bool has_last;
    struct index_version last_version; /* of those that count and are below the bound */
    bool has_newest, differs;          /* others below it are not like the newest */
    struct index_version newest;       /* below the bound, whether it counts or not */
};

/* Whatever stands between this operation and the one before it was undone by then. */
static int take_row(void *context, const struct index_operation *operation)
{
    struct finding *finding = context;
    struct seqs *open = &finding->open;
    while (open->count > 0) {
        uint64_t place = open->at[open->count - 1];
        if (operation->has_before && finding->rows.at[place] <= operation->before)
            break;
        finding->undone.at[place] = operation->seq;
        open->count--;
    }
    finding->last = operation->seq;
    int error = push(open, finding->rows.count);
    if (error == 0)
        error = push(&finding->rows, operation->seq);
    return error == 0 ? push(&finding->undone, NOT_UNDONE) : error;
}

/* What is above the one on top was undone since. */
static void settle_open(struct finding *finding, const struct index_row *row)
{
    for (size_t i = 0; i < finding->open.count; i++) {
        uint64_t place = finding->open.at[i];
        if (!row->documents.has_top || finding->rows.at[place] > row->documents.top)
            finding->undone.at[place] = finding->last + 1;
    }
}

static int find_last(void *context, const struct index_slot *slot,
                     const struct index_version *version)
{
    struct finding *finding = context;
    if (version->seq > finding->last)
        finding->last = version->seq;
    if (slot->area == HL_AREA_ARCHIVES && version->seq < finding->needed->bound &&
        !find(finding->rows.at, finding->rows.count, version->seq, NULL))
        finding->archive_made = true;
    return 0;
}

/* An operation below the bound must not have been undone by something above it. */
static void lower_bound(struct finding *finding)
{
    struct compact_needed *needed = finding->needed;
    for (size_t i = finding->rows.count; i > 0; i--) {
        uint64_t seq = finding->rows.at[i - 1], undone = finding->undone.at[i - 1];
        if (undone == NOT_UNDONE || seq >= needed->bound)
            continue;
        /* What brought an archive back cannot be told from what made it. */
        if (undone > needed->bound || finding->archive_made)
            needed->bound = seq;
    }
    for (size_t i = 0; i < finding->rows.count && !needed->any_undone; i++) {
        needed->any_undone =
            finding->undone.at[i] != NOT_UNDONE && finding->rows.at[i] < needed->bound;
        needed->first_undone = finding->rows.at[i];
    }
}

/* ---- what stays ---- */

/* Whether it counts: it was not undone, and is no undo. */
static bool counts(const struct finding *finding, const struct index_slot *slot, uint64_t seq)
{
    size_t place;
    if (find(finding->rows.at, finding->rows.count, seq, &place))
        return finding->undone.at[place] == NOT_UNDONE ||
               finding->rows.at[place] >= finding->needed->bound;
    return slot->area == HL_AREA_ARCHIVES;
}

static int keep_source(struct finding *finding, const struct index_version *version)
{
    int error = 0;
    if (version->source < finding->needed->bound)
        error = push(&finding->kept, version->source);
    if (error == 0 && version->source != version->seq)
        error = push(&finding->carried, version->source);
    return error;
}

/* An older undo may stay longer, in a segment that is not rewritten, though what it brought back is
 * gone: without a newer one it would be what the key is. */
static int keep_newest(struct finding *finding)
{
    bool hides = finding->has_newest && finding->differs;
    finding->has_newest = finding->differs = false;
    return hides ? push(&finding->kept, finding->newest.seq) : 0;
}

static void take_newest(struct finding *finding, const struct index_version *version)
{
    const struct index_version *newest = &finding->newest;
    if (finding->has_newest)
        finding->differs = finding->differs || version->present != newest->present ||
                           (version->present && version->source != newest->source);
    finding->has_newest = true;
    finding->newest = *version;
}

static int finish_slot(struct finding *finding)
{
    const struct index_version *last = &finding->last_version;
    int kept = keep_newest(finding);
    if (kept < 0 || !finding->has_last)
        return kept;
    finding->has_last = false;
    if (!last->present) {
        struct index_entry entry;
        bool hides = finding->oldest < last->seq;
        int error = hides ? 0 : index_find(finding->view, finding->session, last->seq, &entry);
        if (error < 0)
            return error == -ENOENT ? 0 : error;
        hides = hides || finding->needed->backup <= position_segment(entry.position);
        return hides ? push(&finding->kept, last->seq) : 0;
    }
    int error = push(&finding->kept, last->seq);
    return error == 0 ? keep_source(finding, last) : error;
}

static int take_version(void *context, const struct index_slot *slot,
                        const struct index_version *version)
{
    struct finding *finding = context;
    int error = 0;
    if (slot->number != finding->slot) {
        error = finish_slot(finding);
        finding->slot = slot->number;
        finding->oldest = version->seq;
    }
    if (error < 0)
        return error;
    if (version->seq >= finding->needed->bound)
        return version->present ? keep_source(finding, version) : 0;
    take_newest(finding, version);
    if (counts(finding, slot, version->seq)) {
        finding->has_last = true;
        finding->last_version = *version;
    }
    return 0;
}

/* What carried a value that stays to where it is. */
static int take_carrier(void *context, const struct index_slot *slot,
                        const struct index_version *version)
{
    struct finding *finding = context;
    if (version->seq >= finding->needed->bound || !version->present ||
        version->source == version->seq || !counts(finding, slot, version->seq) ||
        !find(finding->carried.at, finding->carried.count, version->source, NULL))
        return 0;
    return push(&finding->kept, version->seq);
}

static int run(struct finding *finding, uint32_t session)
{
    struct index_row row;
    int error = index_session_by_number(finding->view, session, &row);
    if (error == 0)
        error = index_operations_all(finding->view, session, take_row, finding);
    if (error == 0)
        error = index_versions_all(finding->view, session, find_last, finding);
    if (error < 0)
        return error;
    settle_open(finding, &row);
    lower_bound(finding);
    error = index_versions_all(finding->view, session, take_version, finding);
    if (error == 0)
        error = finish_slot(finding);
    sort(&finding->carried);
    if (error == 0 && finding->carried.count > 0)
        error = index_versions_all(finding->view, session, take_carrier, finding);
    sort(&finding->kept);
    return error;
}

int compact_needed_find(struct compact_needed *needed, struct index_view *view, uint32_t session,
                        uint64_t history_from, uint32_t backup)
{
    struct finding finding = {.view = view, .needed = needed, .session = session};
    *needed = (struct compact_needed){.bound = history_from, .backup = backup};
    int error = run(&finding, session);
    free(finding.undone.at);
    free(finding.open.at);
    free(finding.carried.at);
    needed->seqs = finding.kept.at;
    needed->count = finding.kept.count;
    needed->rows = finding.rows.at;
    needed->row_count = finding.rows.count;
    if (error < 0)
        compact_needed_free(needed);
    return error;
}

void compact_needed_free(struct compact_needed *needed)
{
    free(needed->seqs);
    free(needed->rows);
    *needed = (struct compact_needed){.seqs = NULL};
}

bool compact_needed_has(const struct compact_needed *needed, uint64_t seq, uint32_t segment)
{
    if (seq >= needed->bound || find(needed->seqs, needed->count, seq, NULL))
        return true;
    if (find(needed->rows, needed->row_count, seq, NULL))
        return false;
    /* An undo, or what made an archive or removed it. */
    return (needed->any_undone && needed->first_undone < seq) || needed->backup <= segment;
}
