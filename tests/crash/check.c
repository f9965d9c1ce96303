/* check.c - what a store shows, held against a history; see model.h. */
#include "model.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct checking {
    const struct history *history;
    struct hl_store *store;
    const struct set *must, *may;
    struct finding *finding;
    unsigned seen[BATCHES_MAX]; /* records of each batch */
    struct hl_record *records;
    size_t record_count, record_capacity;
    char *bytes;
    size_t bytes_capacity;
    bool exists[SESSIONS_MAX];
    bool *present[SESSIONS_MAX]; /* by session and record */
    uint32_t compacted;          /* operations of batches before this may be gone; 0: none may */
};

static bool wrong(struct checking *checking, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static bool wrong(struct checking *checking, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(checking->finding->why, WHY_MAX, format, arguments);
    va_end(arguments);
    return false;
}

static bool list_record(void *context, const struct hl_record *record)
{
    struct checking *checking = context;
    if (checking->record_count == checking->record_capacity) {
        checking->record_capacity = checking->record_capacity ? 2 * checking->record_capacity : 64;
        checking->records =
            realloc(checking->records, checking->record_capacity * sizeof *checking->records);
        if (!checking->records)
            abort();
    }
    checking->records[checking->record_count++] = *record;
    return true;
}

static char *room(struct checking *checking, size_t size)
{
    if (checking->bytes_capacity < size) {
        checking->bytes_capacity = 2 * size;
        checking->bytes = realloc(checking->bytes, checking->bytes_capacity);
        if (!checking->bytes)
            abort();
    }
    return checking->bytes;
}

/* The record of the history that this line is; from *next on, since they come in order. */
static const struct done *identify(struct checking *checking, const struct session *session,
                                   size_t *next, const struct hl_record *record, const char *line)
{
    for (size_t i = *next; i < session->count; i++) {
        const struct done *done = &session->done[i];
        if (done->seq != record->seq || done->length != record->length ||
            !set_has(checking->may, done->batch) || memcmp(done->line, line, done->length) != 0)
            continue;
        checking->present[session - checking->history->sessions][i] = true;
        *next = i + 1;
        return done;
    }
    return NULL;
}

static bool check_records(struct checking *checking, const struct session *session)
{
    struct hl_store *store = checking->store;
    uint64_t bytes = 0;
    checking->record_count = 0;
    int error = hl_record_list(store, session->number, 0, false, list_record, checking);
    if (error < 0)
        return wrong(checking, "%s: listing records: %s", session->id, strerror(-error));
    for (size_t i = 0; i < checking->record_count; i++)
        bytes += checking->records[i].length;
    char *log = room(checking, bytes + 1);
    ssize_t n = hl_log_read(store, session->number, 0, log, bytes + 1, NULL);
    if (n != (ssize_t)bytes)
        return wrong(checking, "%s: its log has %zd bytes, its records %" PRIu64, session->id, n,
                     bytes);
    size_t next = 0, at = 0;
    for (size_t i = 0; i < checking->record_count; i++) {
        const struct hl_record *record = &checking->records[i];
        if (i > 0 && record->seq <= record[-1].seq)
            return wrong(checking, "%s: record %" PRIu64 " comes after %" PRIu64, session->id,
                         record->seq, record[-1].seq);
        const struct done *done = identify(checking, session, &next, record, log + at);
        if (!done)
            return wrong(checking,
                         "%s: record %" PRIu64 " was never written, or is out of order: "
                         "%.*s",
                         session->id, record->seq, (int)record->length - 1, log + at);
        checking->seen[done->batch]++;
        checking->finding->records++;
        at += record->length;
    }
    return true;
}

/* ---- documents ---- */

struct listed {
    struct hl_document at[KEYS_MAX + 1];
    size_t count;
};

static bool list_document(void *context, const struct hl_document *document)
{
    struct listed *listed = context;
    if (listed->count > KEYS_MAX)
        return false;
    listed->at[listed->count++] = *document;
    return true;
}

static bool check_area(struct checking *checking, const struct session *session, uint64_t area,
                       const uint32_t expected[KEYS_MAX])
{
    struct listed listed = {.count = 0};
    size_t wanted = 0;
    int error = hl_document_list(checking->store, session->number, area, 0, list_document, &listed);
    if (error < 0)
        return wrong(checking, "%s: listing documents: %s", session->id, strerror(-error));
    for (unsigned k = 0; k < KEYS_MAX; k++)
        wanted += expected[k] != 0;
    for (size_t i = 0; i < listed.count; i++) {
        const struct hl_document *document = &listed.at[i];
        char want[400], got[400];
        unsigned k = 0;
        while (k < KEYS_MAX && strcmp(document->key, key_names[k]) != 0)
            k++;
        if (k == KEYS_MAX || expected[k] == 0)
            return wrong(checking, "%s: document `%s` of area %" PRIu64 " should not be there",
                         session->id, document->key, area);
        int len = value_text(expected[k], want, sizeof want - 1);
        want[len++] = '\n';
        ssize_t n =
            hl_document_read(checking->store, session->number, document, got, sizeof got, 0);
        if (n != len || memcmp(want, got, (size_t)len) != 0)
            return wrong(checking, "%s: document `%s` of area %" PRIu64 " is %.*s, not %.*s",
                         session->id, document->key, area, (int)(n > 0 ? n : 0), got, len, want);
    }
    if (listed.count != wanted)
        return wrong(checking, "%s: %zu documents in area %" PRIu64 ", not %zu", session->id,
                     listed.count, area, wanted);
    return true;
}

/* Whether the drop is of this record. */
static bool covers(const struct checking *checking, size_t drop, const struct session *session,
                   const struct done *done)
{
    const struct batch *batch = &checking->history->batches[drop];
    return batch->drops == (size_t)(session - checking->history->sessions) + 1 &&
           done->batch < drop &&
           (batch->whole || (done->op == OP_NONE && done->seq < batch->below));
}

/* Whether one of these drops is of this record. */
static bool is_dropped(const struct checking *checking, const struct set *drops,
                       const struct session *session, const struct done *done)
{
    for (size_t i = 0; i < checking->history->batch_count; i++) {
        if (checking->history->batches[i].drops && set_has(drops, i) &&
            covers(checking, i, session, done))
            return true;
    }
    return false;
}

/* Whether this record, if it is not there, was dropped by a compaction or on demand. */
static bool may_be_gone(const struct checking *checking, const struct session *session,
                        const struct done *done)
{
    bool compacted = done->op != OP_NONE && done->batch < checking->compacted &&
                     set_has(checking->may, done->batch);
    return compacted || is_dropped(checking, checking->may, session, done);
}

/* What was dropped for good is not there; a drop that may have been is whole, or was none. */
static bool check_drop(struct checking *checking, size_t drop)
{
    const struct batch *batch = &checking->history->batches[drop];
    const struct session *session = &checking->history->sessions[batch->drops - 1];
    const bool *present = checking->present[batch->drops - 1];
    bool there = batch->whole && checking->exists[batch->drops - 1], gone = false;
    for (size_t k = 0; present && k < session->count; k++) {
        const struct done *done = &session->done[k];
        if (!covers(checking, drop, session, done))
            continue;
        there = there || present[k];
        gone = gone || (!present[k] && set_has(checking->must, done->batch) && done->op == OP_NONE);
    }
    if (there && set_has(checking->must, drop))
        return wrong(checking, "%s: what was dropped is there again", session->id);
    bool other = false; /* another drop may have taken those that are gone */
    for (size_t i = 0; i < checking->history->batch_count; i++)
        other = other || (i != drop && checking->history->batches[i].drops == batch->drops);
    if (there && gone && !other)
        return wrong(checking, "%s: a part of what was to be dropped is gone", session->id);
    if (!there && set_has(checking->may, drop))
        set_add(&checking->finding->found, drop);
    return true;
}

static bool check_drops(struct checking *checking)
{
    for (size_t i = 0; i < checking->history->batch_count; i++) {
        if (checking->history->batches[i].drops && set_has(checking->may, i) &&
            !check_drop(checking, i))
            return false;
    }
    return true;
}

/* Whether the session may have been deleted. */
static bool may_be_deleted(const struct checking *checking, size_t session)
{
    for (size_t i = 0; i < checking->history->batch_count; i++) {
        const struct batch *batch = &checking->history->batches[i];
        if (batch->drops == session + 1 && batch->whole && set_has(checking->may, i))
            return true;
    }
    return false;
}

static bool check_folded(struct checking *checking, const struct session *session,
                         const struct documents *documents)
{
    struct listed archives = {.count = 0};
    if (!check_area(checking, session, HL_AREA_STATE, documents->value))
        return false;
    int error = hl_document_list(checking->store, session->number, HL_AREA_ARCHIVES, 0,
                                 list_document, &archives);
    if (error < 0)
        return wrong(checking, "%s: listing archives: %s", session->id, strerror(-error));
    if (archives.count != documents->archive)
        return wrong(checking, "%s: %zu archives, not %d", session->id, archives.count,
                     documents->archive);
    return archives.count == 0 ||
           check_area(checking, session, archives.at[0].number, documents->archived);
}

/* Some records are lost, and later ones are there. */
static bool check_with_gap(struct checking *checking, const struct session *session,
                           const bool *present)
{
    struct documents documents = {.archive = false};
    if (!session->simple)
        return true; /* what an undo takes back then cannot be told so simply */
    for (size_t i = 0; i < session->count; i++) {
        const struct done *done = &session->done[i];
        if (!present[i])
            continue;
        if (done->op == OP_SET)
            documents.value[done->key] = done->value;
        if (done->op == OP_DELETE)
            documents.value[done->key] = 0;
        for (unsigned k = 0; done->op == OP_REPLACE && k < KEYS_MAX; k++)
            documents.value[k] = done->value + k;
    }
    checking->finding->folds++;
    return check_folded(checking, session, &documents);
}

static bool check_documents(struct checking *checking, const struct session *session)
{
    static const struct documents none;
    const bool *present = checking->present[session - checking->history->sessions];
    size_t end = 0, whole = 0; /* behind the last that is there; up to where none is lost */
    for (size_t i = 0; i < session->count; i++)
        end = present[i] ? i + 1 : end;
    while (whole < end) {
        const struct done *done = &session->done[whole];
        /* An operation that need not be there may be lost as well as gone by a compaction. */
        bool counts = done->op == OP_NONE || set_has(checking->must, done->batch);
        if (!present[whole] && !(may_be_gone(checking, session, done) && counts))
            break;
        whole++;
    }
    if (whole < end)
        return check_with_gap(checking, session, present);
    checking->finding->folds++;
    /* Those behind the last may be gone by a compaction too: then they count all the same. */
    for (size_t i = end;; i++) {
        checking->finding->why[0] = 0;
        if (check_folded(checking, session, i > 0 ? &session->done[i - 1].after : &none))
            return true;
        if (i == session->count || !may_be_gone(checking, session, &session->done[i]))
            return false;
    }
}

/* ---- sessions ---- */

/* The bits must be those of the last change that must be there, or of one since that may. */
static bool check_mode(struct checking *checking, const struct session *session, uint32_t mode)
{
    for (size_t i = session->mode_count; i > 0; i--) {
        uint32_t by = session->mode_by[i - 1];
        if (set_has(checking->may, by) && session->modes[i - 1] == mode) {
            set_add(&checking->finding->found, by);
            if (session->made_by != UINT32_MAX)
                set_add(&checking->finding->found, session->made_by);
            return true;
        }
        if (set_has(checking->must, by))
            return wrong(checking, "%s: its mode is %o, not %o", session->id, mode,
                         session->modes[i - 1]);
    }
    return true; /* made by its lines, when the frame that made it is lost */
}

static bool check_session(struct checking *checking, const struct hl_session *shown)
{
    const struct session *session = NULL;
    for (size_t i = 0; i < checking->history->session_count && !session; i++) {
        if (checking->history->sessions[i].number == shown->number &&
            strcmp(checking->history->sessions[i].id, shown->id) == 0)
            session = &checking->history->sessions[i];
    }
    if (!session)
        return wrong(checking, "session %" PRIu32 ", `%s`, was never made", shown->number,
                     shown->id);
    bool *present = calloc(session->count + 1, sizeof *present);
    if (!present)
        abort();
    free(checking->present[session - checking->history->sessions]);
    checking->present[session - checking->history->sessions] = present;
    checking->exists[session - checking->history->sessions] = true;
    bool good = check_records(checking, session);
    if (good && shown->records != checking->record_count)
        good = wrong(checking, "%s: %" PRIu64 " records, and %zu in its list", session->id,
                     shown->records, checking->record_count);
    if (good && session->mode_count > 0)
        good = check_mode(checking, session, shown->mode);
    return good && check_documents(checking, session);
}

/* Takes operations that a compaction dropped for seen, in batches of which something else is. */
static void forgive_gone(struct checking *checking)
{
    for (size_t i = 0; i < checking->history->session_count; i++) {
        const struct session *session = &checking->history->sessions[i];
        for (size_t k = 0; k < session->count; k++) {
            const struct done *done = &session->done[k];
            bool present = checking->present[i] && checking->present[i][k];
            if (!present && may_be_gone(checking, session, done) &&
                (checking->seen[done->batch] > 0 || set_has(checking->must, done->batch)))
                checking->seen[done->batch]++;
        }
    }
}

static bool check_batches(struct checking *checking)
{
    forgive_gone(checking);
    for (size_t i = 0; i < checking->history->batch_count; i++) {
        const struct batch *batch = &checking->history->batches[i];
        if (batch->compaction && set_has(checking->may, i))
            set_add(&checking->finding->found, i);
        if (batch->counted && checking->seen[i] != 0 && checking->seen[i] != batch->records)
            return wrong(checking, "batch %zu: %u records of %u", i, checking->seen[i],
                         batch->records);
        if (batch->counted && checking->seen[i] > 0)
            set_add(&checking->finding->found, i);
        if (set_has(checking->must, i) && batch->counted && checking->seen[i] == 0)
            return wrong(checking, "batch %zu was acknowledged, and is lost", i);
    }
    for (size_t i = 0; i < checking->history->session_count; i++) {
        const struct session *session = &checking->history->sessions[i];
        if (session->made_by != UINT32_MAX && set_has(checking->must, session->made_by) &&
            !checking->exists[i] && !may_be_deleted(checking, i))
            return wrong(checking, "session %s was acknowledged, and is lost", session->id);
    }
    return true;
}

/* The next record of the session, from *next on, if this is its line. Root log goes on showing what
 * was dropped until its segment is rewritten. */
static const struct done *next_in_root(struct checking *checking, size_t session, size_t *next,
                                       const char *line, uint64_t left)
{
    const struct session *of = &checking->history->sessions[session];
    const bool *present = checking->present[session];
    for (size_t k = *next; k < of->count; k++) {
        const struct done *done = &of->done[k];
        bool there = present && present[k];
        if (!there && !may_be_gone(checking, of, done))
            continue;
        if (done->length <= left && memcmp(done->line, line, done->length) == 0) {
            checking->finding->records -= there;
            *next = k + 1;
            return done;
        }
        if (there)
            return NULL;
    }
    return NULL;
}

/* The log of the whole store: the lines of the batches that are there, in order. */
static bool check_root(struct checking *checking)
{
    uint64_t size;
    int error = hl_root_log_size(checking->store, &size);
    if (error < 0)
        return wrong(checking, "the size of the root log: %s", strerror(-error));
    char *log = room(checking, size + 1);
    ssize_t n = hl_root_log_read(checking->store, 0, log, size + 1, NULL);
    if (n != (ssize_t)size)
        return wrong(checking, "the root log has %zd bytes, not %" PRIu64, n, size);
    size_t next[SESSIONS_MAX] = {0}, at = 0;
    uint32_t batch = 0;
    while (at < size) {
        const struct done *found = NULL;
        for (size_t i = 0; i < checking->history->session_count && !found; i++)
            found = next_in_root(checking, i, &next[i], log + at, size - at);
        if (!found || found->batch < batch)
            return wrong(checking, "the root log at %zu: not the next line of any batch: %.*s", at,
                         (int)(size - at < 100 ? size - at : 100), log + at);
        batch = found->batch;
        at += found->length;
    }
    if (checking->finding->records != 0)
        return wrong(checking, "%" PRIu64 " records are not in the root log",
                     checking->finding->records);
    return true;
}

static bool check_verified(struct checking *checking)
{
    struct hl_verify_report report;
    struct hl_error err;
    int error = hl_verify(checking->store, &report, NULL, &err);
    if (error < 0)
        return wrong(checking, "verify: %s", err.text);
    if (report.damaged_gaps || report.broken_batches || report.index_missing ||
        report.index_dangling)
        return wrong(checking,
                     "verify: %" PRIu64 " gaps, %" PRIu64 " broken batches, index: %" PRIu64
                     " missing, %" PRIu64 " dangling",
                     report.damaged_gaps, report.broken_batches, report.index_missing,
                     report.index_dangling);
    return true;
}

bool check_store(const struct history *history, struct hl_store *store, const struct set *must,
                 const struct set *may, bool verify, struct finding *finding)
{
    struct checking checking = {
        .history = history, .store = store, .must = must, .may = may, .finding = finding};
    struct hl_session session;
    uint32_t after = 0;
    bool good = true;
    int error = 0;
    *finding = (struct finding){.records = 0};
    for (uint32_t i = 0; i < history->batch_count; i++) {
        if (history->batches[i].compaction && set_has(may, i))
            checking.compacted = i;
    }
    while (good && (error = hl_session_next(store, after, &session)) == 0) {
        good = check_session(&checking, &session);
        after = session.number;
    }
    if (good && error != -ENOENT)
        good = wrong(&checking, "listing sessions: %s", strerror(-error));
    uint64_t records = finding->records;
    good = good && check_batches(&checking) && check_drops(&checking) && check_root(&checking) &&
           (!verify || check_verified(&checking));
    finding->records = records;
    for (size_t i = 0; i < SESSIONS_MAX; i++)
        free(checking.present[i]);
    free(checking.records);
    free(checking.bytes);
    return good;
}
