/* model.c - histories, timelines, and the actor that makes them; see model.h. */
#include "model.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wrap.h"

#define TEXT_MAX (512U << 10)
#define UNDO_MAX (sizeof((struct session *)0)->undo / sizeof(struct documents))

const char *const key_names[KEYS_MAX] = {"a", "b", "key three", "k/4", "\xc3\xbc", "six.json"};

int value_text(uint32_t value, char *text, size_t size)
{
    if (value % 5 == 0)
        return snprintf(text, size, "{\"v\":%" PRIu32 ",\"pad\":\"%0*d\"}", value,
                        (int)(value * 7 % 300) + 1, 0);
    return snprintf(text, size, value % 5 == 1 ? "\"s %" PRIu32 "\"" : "%" PRIu32, value);
}

/* ---- histories ---- */

void history_free(struct history *history)
{
    for (size_t i = 0; i < history->session_count; i++) {
        for (size_t k = 0; k < history->sessions[i].count; k++)
            free(history->sessions[i].done[k].line);
        free(history->sessions[i].done);
    }
    bytes_drop(history->kept);
    *history = (struct history){.session_count = 0};
}

struct moment *timeline_add(struct timeline *timeline)
{
    if (timeline->count == timeline->capacity) {
        timeline->capacity = timeline->capacity ? 2 * timeline->capacity : 64;
        timeline->at = realloc(timeline->at, timeline->capacity * sizeof *timeline->at);
        if (!timeline->at)
            abort();
    }
    struct moment *moment = &timeline->at[timeline->count++];
    *moment = timeline->count > 1 ? moment[-1] : (struct moment){.position = 0};
    return moment;
}

void timeline_begin(struct timeline *timeline, const struct set *must, const struct set *may)
{
    *timeline = (struct timeline){.count = 0};
    struct moment *first = timeline_add(timeline);
    *first = (struct moment){.must = *must, .may = *may};
}

const struct moment *timeline_find(const struct timeline *timeline, size_t position)
{
    size_t i = timeline->count - 1;
    while (i > 0 && timeline->at[i].position > position)
        i--;
    return &timeline->at[i];
}

/* ---- the actor ---- */

static void tell(void *context, enum hl_severity severity, const char *sentence)
{
    (void)context;
    fprintf(stderr, "# %s: %s\n", severity == HL_ERROR ? "error" : "note", sentence);
}

void actor_init(struct actor *actor, struct record *record, struct history *history,
                struct timeline *timeline, const char *dir, uint64_t chance)
{
    *actor = (struct actor){
        .record = record, .history = history, .timeline = timeline, .chance = chance};
    snprintf(actor->dir, sizeof actor->dir, "%s", dir);
    hl_options_init(&actor->options);
    actor->options.segment_size = 3 * 1024;
    actor->options.sync_interval_ms = 3600 * 1000;
    actor->options.compact_interval_ms = 0;
    actor->options.history_ms = 0;
    actor->options.io = &record->io;
    if (getenv("REPORTS"))
        actor->options.report = tell;
}

uint64_t actor_chance(struct actor *actor, uint64_t below)
{
    actor->chance = hash_mix(actor->chance, 11);
    return (actor->chance >> 20) % below;
}

void actor_fail(struct actor *actor, const char *format, ...)
{
    va_list arguments;
    if (actor->why[0])
        return;
    va_start(arguments, format);
    vsnprintf(actor->why, sizeof actor->why, format, arguments);
    va_end(arguments);
}

size_t actor_position(struct actor *actor)
{
    return record_position(actor->record);
}

void actor_enter(struct actor *actor)
{
    record_count(actor->record, true);
}

void actor_leave(struct actor *actor)
{
    record_count(actor->record, false);
}

bool actor_did(struct actor *actor, const char *what, int error)
{
    actor->last_error = error;
    if (error == 0)
        return true;
    actor->refused++;
    if (!actor->lenient || actor->record->fault.fired == 0)
        actor_fail(actor, "%s: %s (%s)", what, strerror(-error), actor->err.text);
    return false;
}

bool actor_open(struct actor *actor)
{
    record_revive(actor->record);
    actor_enter(actor);
    int error = hl_store_open(actor->dir, &actor->options, &actor->store, NULL, &actor->err);
    actor_leave(actor);
    if (error < 0)
        actor->store = NULL;
    return actor_did(actor, "open", error);
}

bool actor_close(struct actor *actor)
{
    actor_enter(actor);
    int error = hl_store_close(actor->store);
    actor_leave(actor);
    actor->store = NULL;
    return actor_did(actor, "close", error);
}

void actor_die(struct actor *actor)
{
    record_kill(actor->record);
    if (actor->store)
        hl_store_close(actor->store);
    actor->store = NULL;
}

uint32_t actor_issue(struct actor *actor)
{
    struct history *history = actor->history;
    if (history->batch_count == BATCHES_MAX)
        abort();
    uint32_t batch = (uint32_t)history->batch_count++;
    history->batches[batch] = (struct batch){.counted = false};
    struct moment *moment = timeline_add(actor->timeline);
    moment->position = actor_position(actor);
    set_add(&moment->may, batch);
    return batch;
}

void actor_take_back(struct actor *actor, uint32_t batch)
{
    struct moment *moment = timeline_add(actor->timeline);
    moment->position = actor_position(actor);
    moment->may.bits[batch / 64] &= ~(UINT64_C(1) << batch % 64);
}

/* By both: one that a power cut took left its number to another. */
static struct session *find_session(struct history *history, uint32_t number, const char *id)
{
    for (size_t i = 0; i < history->session_count; i++) {
        if (history->sessions[i].number == number && strcmp(history->sessions[i].id, id) == 0)
            return &history->sessions[i];
    }
    return NULL;
}

static struct session *add_session(struct history *history, const char *id, uint32_t number,
                                   uint32_t batch)
{
    if (history->session_count == SESSIONS_MAX)
        abort();
    struct session *session = &history->sessions[history->session_count++];
    *session = (struct session){.number = number, .made_by = batch};
    snprintf(session->id, sizeof session->id, "%s", id);
    return session;
}

struct session *actor_session(struct actor *actor, const char *id, bool simple)
{
    struct hl_session made;
    if (!actor->store)
        return NULL;
    uint32_t batch = actor_issue(actor);
    actor_enter(actor);
    int error =
        hl_session_create(actor->store, id, strlen(id), 1000, 1001, 0640, &made, &actor->err);
    actor_leave(actor);
    if (!actor_did(actor, "make a session", error)) {
        actor_take_back(actor, batch);
        return NULL;
    }
    struct session *session = add_session(actor->history, id, made.number, batch);
    session->simple = simple;
    session->modes[0] = 0640;
    session->mode_by[0] = batch;
    session->mode_count = 1;
    set_add(&actor->visible, batch);
    return session;
}

/* ---- appending ---- */

/* What is about to be written, line by line. */
struct writing {
    char text[TEXT_MAX];
    size_t used;
    size_t at[64]; /* where each line begins */
    struct done done[64];
    unsigned count;
    struct hl_receipt receipts[SESSIONS_MAX];
    char ids[SESSIONS_MAX][32];
    unsigned receipt_count;
};

static void put_line(struct writing *writing, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void put_line(struct writing *writing, const char *format, ...)
{
    va_list arguments;
    if (writing->count == 64)
        abort();
    writing->at[writing->count++] = writing->used;
    va_start(arguments, format);
    writing->used += (size_t)vsnprintf(writing->text + writing->used, TEXT_MAX - writing->used,
                                       format, arguments);
    va_end(arguments);
    if (writing->used >= TEXT_MAX)
        abort();
}

static void take_receipt(void *context, const struct hl_receipt *receipt)
{
    struct writing *writing = context;
    snprintf(writing->ids[writing->receipt_count], 32, "%.*s", (int)receipt->id_len, receipt->id);
    writing->receipts[writing->receipt_count++] = *receipt;
}

static struct done *add_done(struct session *session, const struct done *like, uint32_t batch,
                             uint64_t seq)
{
    if (session->count == session->capacity) {
        session->capacity = session->capacity ? 2 * session->capacity : 32;
        session->done = realloc(session->done, session->capacity * sizeof *session->done);
        if (!session->done)
            abort();
    }
    struct done *done = &session->done[session->count++];
    *done = *like;
    done->batch = batch;
    done->seq = seq;
    return done;
}

static void fold_one(struct session *session, struct done *done)
{
    struct documents *now = &session->now;
    if (done->op != OP_NONE && done->op != OP_UNDO && session->depth < UNDO_MAX)
        session->undo[session->depth++] = *now;
    if (done->op == OP_SET)
        now->value[done->key] = done->value;
    if (done->op == OP_DELETE)
        now->value[done->key] = 0;
    for (unsigned k = 0; done->op == OP_REPLACE && k < KEYS_MAX; k++)
        now->value[k] = done->value + k;
    if (done->op == OP_ARCHIVE) {
        now->archived[done->key] = now->value[done->key];
        now->value[done->key] = 0;
        now->archive = true;
    }
    if (done->op == OP_UNDO)
        *now = session->undo[--session->depth];
    done->after = *now;
}

/* Reads back what a batch stored, which must be what was written, with stamps before it. */
static void take_lines(struct actor *actor, struct writing *writing, uint32_t batch)
{
    struct history *history = actor->history;
    uint64_t next[SESSIONS_MAX];
    for (unsigned r = 0; r < writing->receipt_count; r++) {
        const struct hl_receipt *receipt = &writing->receipts[r];
        next[r] = receipt->first;
        if (receipt->created)
            add_session(history, writing->ids[r], receipt->session, UINT32_MAX);
        if (receipt->last - receipt->first + 1 != receipt->records)
            actor_fail(actor, "a receipt of seqs with gaps");
    }
    for (unsigned i = 0; i < writing->count; i++) {
        char stored[16384];
        const char *text = writing->text + writing->at[i];
        size_t len = (i + 1 < writing->count ? writing->at[i + 1] : writing->used) - writing->at[i];
        unsigned r = 0;
        if (writing->receipt_count > 1) {
            while (r + 1 < writing->receipt_count) {
                char named[64];
                int n = snprintf(named, sizeof named, "{\"session_id\":\"%s\"", writing->ids[r]);
                if (strncmp(text, named, (size_t)n) == 0)
                    break;
                r++;
            }
        }
        uint32_t number = writing->receipts[r].session;
        struct session *session = find_session(history, number, writing->ids[r]);
        ssize_t n = hl_record_read(actor->store, number, next[r], stored, sizeof stored, 0);
        if (!session || n <= (ssize_t)len || n == sizeof stored ||
            memcmp(stored + n - (len - 1), text + 1, len - 1) != 0) {
            actor_fail(actor, "record %" PRIu64 " of %" PRIu32 " is not what was written: %zd",
                       next[r], number, n);
            return;
        }
        struct done *done = add_done(session, &writing->done[i], batch, next[r]++);
        done->length = (uint32_t)n;
        done->line = malloc((size_t)n);
        if (!done->line)
            abort();
        memcpy(done->line, stored, (size_t)n);
        fold_one(session, done);
    }
    history->batches[batch] = (struct batch){.counted = true, .records = writing->count};
    set_add(&actor->visible, batch);
}

static bool write_out(struct actor *actor, struct writing *writing, uint32_t session)
{
    struct hl_append request = {.session = session,
                                .data = writing->text,
                                .len = writing->used,
                                .uid = 1000,
                                .gid = 1001,
                                .mode = 0640,
                                .receipt = take_receipt,
                                .receipt_context = writing};
    if (!actor->store)
        return false;
    uint32_t batch = actor_issue(actor);
    actor_enter(actor);
    int error = hl_append(actor->store, &request, &actor->err);
    actor_leave(actor);
    if (!actor_did(actor, "append", error)) {
        actor_take_back(actor, batch);
        return false;
    }
    take_lines(actor, writing, batch);
    return true;
}

static void fill_line(struct actor *actor, char *pad, size_t size, unsigned spread)
{
    size_t len = spread ? actor_chance(actor, spread) : 0;
    if (len >= size)
        len = size - 1;
    memset(pad, 'a' + (int)(actor->line % 26), len);
    pad[len] = 0;
}

void actor_append(struct actor *actor, struct session *session, unsigned lines, unsigned spread)
{
    static struct writing writing; /* one actor at a time */
    char pad[8192];
    if (!session)
        return;
    writing.used = writing.count = writing.receipt_count = 0;
    for (unsigned i = 0; i < lines; i++) {
        fill_line(actor, pad, sizeof pad, spread);
        put_line(&writing, "{\"n\":%u,\"p\":\"%s\"}\n", actor->line++, pad);
        writing.done[i] = (struct done){.op = OP_NONE};
    }
    write_out(actor, &writing, session->number);
}

void actor_root(struct actor *actor, const char *const *ids, unsigned lines)
{
    static struct writing writing;
    writing.used = writing.count = writing.receipt_count = 0;
    for (unsigned i = 0; i < lines; i++) {
        put_line(&writing, "{\"session_id\":\"%s\",\"n\":%u}\n", ids[i], actor->line++);
        writing.done[i] = (struct done){.op = OP_NONE};
    }
    write_out(actor, &writing, 0);
}

static void put_operation(struct actor *actor, struct writing *writing, char code, size_t *depth,
                          const struct session *session)
{
    struct history *history = actor->history;
    char text[400];
    unsigned key = (unsigned)actor_chance(actor, KEYS_MAX);
    struct done done = {.key = key};
    if (code == 'd') {
        done.op = OP_DELETE;
        put_line(writing, "{\"op\":\"delete\",\"key\":\"%s\"}\n", key_names[key]);
    } else if (code == 'c') {
        char state[3000];
        size_t used = 0;
        done.op = OP_REPLACE;
        done.value = history->values + 1;
        history->values += KEYS_MAX;
        for (unsigned k = 0; k < KEYS_MAX; k++) {
            value_text(done.value + k, text, sizeof text);
            used += (size_t)snprintf(state + used, sizeof state - used, "%s\"%s\":%s", k ? "," : "",
                                     key_names[k], text);
        }
        put_line(writing, "{\"op\":\"checkpoint\",\"state\":{%s}}\n", state);
    } else if (code == 'a' && session->now.value[0] != 0) {
        /* Key 0, which the caller has set before, in another batch. */
        done.key = 0;
        done.op = OP_ARCHIVE;
        put_line(writing, "{\"op\":\"archive\",\"name\":\"%s\",\"keys\":[\"%s\"]}\n", ARCHIVE_NAME,
                 key_names[0]);
    } else {
        done.op = OP_SET;
        done.value = ++history->values;
        value_text(done.value, text, sizeof text);
        put_line(writing, "{\"op\":\"set\",\"key\":\"%s\",\"value\":%s}\n", key_names[key], text);
    }
    ++*depth;
    writing->done[writing->count - 1] = done;
}

static bool any_compaction(const struct history *history)
{
    for (size_t i = 0; i < history->batch_count; i++) {
        if (history->batches[i].compaction)
            return true;
    }
    return false;
}

/* Takes the last operations of a session back, by a batch of their own. */
static void undo(struct actor *actor, struct session *session)
{
    static struct writing writing;
    writing.used = writing.count = writing.receipt_count = 0;
    if (!actor->store || session->depth == 0)
        return;
    uint32_t batch = actor_issue(actor);
    actor_enter(actor);
    int error = hl_undo(actor->store, session->number, 1, take_receipt, &writing, &actor->err);
    actor_leave(actor);
    /* A compaction may have ended the history that could be taken back. */
    bool ended = error == -EINVAL && any_compaction(actor->history);
    if (ended || !actor_did(actor, "undo", error)) {
        actor_take_back(actor, batch);
        return;
    }
    char stored[4096];
    uint64_t seq = writing.receipts[0].first;
    ssize_t n = hl_record_read(actor->store, session->number, seq, stored, sizeof stored, 0);
    if (n <= 0) {
        actor_fail(actor, "the undo is not there: %zd", n);
        return;
    }
    struct done *done = add_done(session, &(struct done){.op = OP_UNDO}, batch, seq);
    done->length = (uint32_t)n;
    done->line = malloc((size_t)n);
    if (!done->line)
        abort();
    memcpy(done->line, stored, (size_t)n);
    fold_one(session, done);
    actor->history->batches[batch] = (struct batch){.counted = true, .records = 1};
    set_add(&actor->visible, batch);
}

void actor_operate(struct actor *actor, struct session *session, const char *ops)
{
    static struct writing writing;
    size_t depth = 0;
    if (!session)
        return;
    writing.used = writing.count = writing.receipt_count = 0;
    for (const char *code = ops; *code; code++) {
        if (*code == 'u')
            undo(actor, session);
        else
            put_operation(actor, &writing, *code, &depth, session);
    }
    if (writing.count > 0)
        write_out(actor, &writing, session->number);
}

void actor_chmod(struct actor *actor, struct session *session, uint32_t mode)
{
    struct hl_session changed;
    if (!actor->store || !session)
        return;
    uint32_t batch = actor_issue(actor);
    actor_enter(actor);
    int error =
        hl_session_change(actor->store, session->number, HL_CHANGE_MODE, 0, 0, mode, &changed);
    actor_leave(actor);
    if (!actor_did(actor, "change a mode", error)) {
        actor_take_back(actor, batch);
        return;
    }
    session->modes[session->mode_count] = mode;
    session->mode_by[session->mode_count++] = batch;
    set_add(&actor->visible, batch);
}
