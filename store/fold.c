/* fold.c - see fold.h. */
#include "fold.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "documents.h"
#include "line.h"

/* An operation that is being folded. */
struct fold {
    struct hl_store *store;
    struct mem_session *session;
    const struct fold_record *record;
    struct operation operation;
    uint64_t ts_ms;
    bool strict;
    struct hl_error *err;
    uint64_t *slots; /* that it changed, each once */
    size_t slot_count, slot_capacity;
};

/* What a slot becomes; seq and end are filled in by touch(). */
static struct index_version present_version(const struct fold *fold, struct json_span value)
{
    return (struct index_version){
        .present = true,
        .source = fold->record->seq,
        .set_ms = fold->ts_ms,
        .offset = value.len ? (uint32_t)(value.at - fold->record->line) : 0,
        .length = (uint32_t)value.len,
    };
}

static const struct index_version absent_version = {.present = false};

/* ---- slots ---- */

static int remember(struct fold *fold, uint64_t number)
{
    if (fold->slot_count == fold->slot_capacity) {
        size_t capacity = fold->slot_capacity ? fold->slot_capacity * 4 : 2;
        uint64_t *slots = realloc(fold->slots, capacity * sizeof *slots);
        if (!slots)
            return -ENOMEM;
        fold->slots = slots;
        fold->slot_capacity = capacity;
    }
    fold->slots[fold->slot_count++] = number;
    return 0;
}

/* The slot as it is now. A key that was never used has number 0. */
static int look(struct hl_store *store, uint32_t session, uint64_t area, const char *key,
                size_t len, struct document_state *state)
{
    struct document_query query = {.session = session,
                                   .area = area,
                                   .key = key,
                                   .key_len = len,
                                   .limit = UINT64_MAX,
                                   .staged = true};
    int error = documents_state(store, &query, state);
    if (error == -ENOENT) {
        *state = (struct document_state){.number = 0};
        error = 0;
    }
    return error;
}

static bool is_present(const struct document_state *state)
{
    return state->has_version && state->version.present;
}

/* Gives a slot, which is in `state`, its next version. */
static int push(struct fold *fold, const struct index_slot *slot,
                const struct document_state *state, const struct index_version *wanted)
{
    struct hl_store *store = fold->store;
    struct mem_session *session = fold->session;
    struct index_version version = *wanted;
    bool was = is_present(state);
    bool again = state->has_version && state->version.seq == fold->record->seq;
    version.seq = fold->record->seq;
    version.end = state->has_version ? state->version.end : 0;
    if (!again) {
        version.end += fold->record->length;
        int error = remember(fold, slot->number);
        if (error < 0)
            return error;
    }
    struct mem_slot *target = mem_slot_by_number(session, slot->number);
    pthread_rwlock_wrlock(&store->mem_lock);
    if (!target)
        target = mem_slot_add(store->table, session, slot, state->number == 0);
    int error = -ENOMEM;
    if (target) {
        if (!target->staged || target->count == 0)
            target->was_present = was;
        error = mem_slot_push(store->table, session, target, &version);
    }
    pthread_rwlock_unlock(&store->mem_lock);
    if (error == 0 && slot->area == HL_AREA_STATE) {
        session->batch_documents.documents += version.present;
        session->batch_documents.documents -= was;
    }
    return error;
}

static int take_slots(void *context, const struct index_row *row)
{
    uint64_t *slots = context;
    *slots = row->documents.slots;
    return 0;
}

/* The number that a key has in a store that goes on while its index is built anew: it is known
 * outside by this number, and none that was given may be given again. 0: it has none there. */
static int known_number(const struct fold *fold, uint64_t area, const char *key, size_t len,
                        uint64_t *number)
{
    struct document_state state;
    struct hl_store *store = fold->store->numbered_by;
    uint32_t session = fold->session->row.number;
    uint64_t slots = 0;
    struct document_query query = {
        .session = session, .area = area, .key = key, .key_len = len, .limit = UINT64_MAX};
    *number = 0;
    if (!store)
        return 0;
    int error = documents_state(store, &query, &state);
    if (error == -ENOENT) /* its session was deleted meanwhile */
        return 0;
    if (error == 0)
        error = lookup_row(store, session, NULL, 0, take_slots, &slots);
    if (error < 0)
        return error == -ENOENT ? 0 : error;
    *number = state.number;
    if (fold->session->batch_documents.slots < slots)
        fold->session->batch_documents.slots = slots;
    return 0;
}

/* Makes a key of an area become what is wanted; *number (may be NULL) is its slot's. */
static int touch(struct fold *fold, uint64_t area, const char *key, size_t len,
                 const struct index_version *wanted, uint64_t *number)
{
    struct document_state state;
    struct index_slot slot = {.area = area, .key = key, .key_len = (uint16_t)len};
    int error = look(fold->store, fold->session->row.number, area, key, len, &state);
    if (error < 0)
        return error;
    slot.number = state.number;
    if (slot.number == 0)
        error = known_number(fold, area, key, len, &slot.number);
    if (error < 0)
        return error;
    if (slot.number == 0)
        slot.number = INDEX_SLOT_FIRST + fold->session->batch_documents.slots++;
    if (number)
        *number = slot.number;
    return push(fold, &slot, &state, wanted);
}

/* The same for a slot that is known by its number. */
static int touch_number(struct fold *fold, uint64_t number, const struct index_version *wanted,
                        uint64_t *area)
{
    char key[HL_KEY_MAX];
    struct document_state state;
    struct index_slot slot = {.number = number, .key = key};
    uint32_t session = fold->session->row.number;
    struct document_query query = {
        .session = session, .number = number, .limit = UINT64_MAX, .staged = true};
    int error = documents_name(fold->store, session, number, &slot.area, key, &slot.key_len);
    if (error == 0)
        error = documents_state(fold->store, &query, &state);
    if (error != 0)
        return error;
    if (area)
        *area = slot.area;
    return push(fold, &slot, &state, wanted);
}

/* ---- the operations ---- */

static int fold_set(struct fold *fold)
{
    struct index_version version = present_version(fold, fold->operation.value);
    return touch(fold, HL_AREA_STATE, fold->operation.key, fold->operation.key_len, &version, NULL);
}

static int fold_delete(struct fold *fold)
{
    struct index_version version = absent_version;
    version.moved = fold->operation.moved;
    return touch(fold, HL_AREA_STATE, fold->operation.key, fold->operation.key_len, &version, NULL);
}

struct members {
    struct fold *fold;
    int error;
};

static bool set_member(void *context, const struct json_member *member)
{
    struct members *members = context;
    char key[HL_KEY_MAX];
    size_t len = json_unescape(member->key.at, member->key.len, key, sizeof key);
    if (len == SIZE_MAX || !hl_session_id_valid(key, len))
        return true; /* operation_parse() refuses these; an older store may hold them */
    struct index_version version = present_version(members->fold, member->value);
    members->error = touch(members->fold, HL_AREA_STATE, key, len, &version, NULL);
    return members->error == 0;
}

static int fold_checkpoint(struct fold *fold)
{
    uint64_t numbers[256], after = 0;
    uint32_t session = fold->session->row.number;
    for (ssize_t n = 256; n == 256;) {
        n = documents_numbers(fold->store, session, HL_AREA_STATE, after, true, numbers, 256);
        for (ssize_t i = 0; i < n; i++) {
            int error = touch_number(fold, numbers[i], &absent_version, NULL);
            if (error < 0)
                return error;
        }
        if (n < 0)
            return (int)n;
        after = n ? numbers[n - 1] : 0;
    }
    struct members members = {.fold = fold};
    json_scan_object(fold->operation.value.at, fold->operation.value.len, set_member, &members,
                     NULL);
    return members.error;
}

/* Refuses at an append, passes over in a replay. */
static int does_not_apply(const struct fold *fold, int code, const char *what, const char *key,
                          size_t len)
{
    if (!fold->strict)
        return 0;
    return hl_fail(fold->err, code, "%s \"%.*s\"", what, (int)len, key);
}

/* Moves documents from one area to another. */
static int fold_move(struct fold *fold, uint64_t from, uint64_t to)
{
    const struct operation *operation = &fold->operation;
    char key[HL_KEY_MAX], as[HL_KEY_MAX];
    size_t at = 0, as_at = 0, len, as_len;
    while (operation_next_key(operation->keys, &at, key, &len)) {
        const char *target = key;
        size_t target_len = len;
        if (operation_next_key(operation->as, &as_at, as, &as_len)) {
            target = as;
            target_len = as_len;
        }
        struct document_state state;
        int error = look(fold->store, fold->session->row.number, from, key, len, &state);
        if (error == 0 && !is_present(&state)) {
            error = does_not_apply(fold, ENOENT, "there is no document", key, len);
            if (error == 0)
                continue;
        }
        if (error == 0)
            error = touch(fold, to, target, target_len, &state.version, NULL);
        if (error == 0)
            error = touch(fold, from, key, len, &absent_version, NULL);
        if (error < 0)
            return error;
    }
    return 0;
}

static int fold_archive(struct fold *fold)
{
    const struct operation *operation = &fold->operation;
    struct document_state archive;
    struct index_version version = present_version(fold, (struct json_span){NULL, 0});
    uint64_t area;
    int error = look(fold->store, fold->session->row.number, HL_AREA_ARCHIVES, operation->key,
                     operation->key_len, &archive);
    if (error < 0)
        return error;
    area = archive.number;
    if (!is_present(&archive))
        error = touch(fold, HL_AREA_ARCHIVES, operation->key, operation->key_len, &version, &area);
    return error < 0 ? error : fold_move(fold, HL_AREA_STATE, area);
}

static bool names_no_key(const struct operation *operation)
{
    char key[HL_KEY_MAX];
    size_t at = 0, len;
    return !operation_next_key(operation->keys, &at, key, &len);
}

static int fold_restore(struct fold *fold)
{
    const struct operation *operation = &fold->operation;
    struct document_state archive;
    uint64_t number;
    uint32_t session = fold->session->row.number;
    int error =
        look(fold->store, session, HL_AREA_ARCHIVES, operation->key, operation->key_len, &archive);
    if (error < 0)
        return error;
    if (!is_present(&archive))
        return does_not_apply(fold, ENOENT, "there is no archive", operation->key,
                              operation->key_len);
    if (!names_no_key(operation))
        return fold_move(fold, archive.number, HL_AREA_STATE);
    ssize_t n = documents_numbers(fold->store, session, archive.number, 0, true, &number, 1);
    if (n < 0)
        return (int)n;
    if (n > 0)
        return does_not_apply(fold, ENOTEMPTY, "there are documents in the archive", operation->key,
                              operation->key_len);
    return touch(fold, HL_AREA_ARCHIVES, operation->key, operation->key_len, &absent_version, NULL);
}

/* A slot becomes what it was before the operation that is undone. */
static int take_back(struct fold *fold, uint64_t number, uint64_t undone)
{
    struct document_state before = {.has_version = false};
    struct document_query query = {.session = fold->session->row.number,
                                   .number = number,
                                   .limit = undone ? undone - 1 : 0,
                                   .staged = true};
    struct index_version version = absent_version;
    uint64_t area = HL_AREA_STATE;
    int error = undone ? documents_state(fold->store, &query, &before) : 0;
    if (error == 0 && is_present(&before))
        version = before.version;
    if (error == 0)
        error = touch_number(fold, number, &version, &area);
    if (error < 0 || !version.present || area < INDEX_SLOT_FIRST)
        return error;
    /* What comes back into an archive that was removed brings the archive back. */
    struct document_state archive;
    query = (struct document_query){
        .session = fold->session->row.number, .number = area, .limit = UINT64_MAX, .staged = true};
    error = documents_state(fold->store, &query, &archive);
    if (error < 0 || is_present(&archive))
        return error;
    version = present_version(fold, (struct json_span){NULL, 0});
    return touch_number(fold, area, &version, NULL);
}

static int fold_undo(struct fold *fold)
{
    struct index_documents *totals = &fold->session->batch_documents;
    const struct operation *operation = &fold->operation;
    struct index_operation undone;
    if (!totals->has_top)
        return fold->strict ? hl_fail(fold->err, EINVAL, "there is nothing to undo") : 0;
    /* What was undone is known by the line alone, also when the operation itself is gone. */
    bool by_link = !operation->has_undone && operation->prev_op.set;
    uint64_t named = by_link ? operation->prev_op.seq : operation->undone_seq;
    if ((operation->has_undone || by_link) && named != totals->top)
        return fold->strict ? hl_fail(fold->err, EINVAL,
                                      "\"%s\" is %" PRIu64
                                      ", but the session's last operation not undone is %" PRIu64,
                                      by_link ? "prev_op" : "undone_seq", named, totals->top)
                            : 0;
    if (fold->strict && totals->top < totals->history_from)
        return hl_fail(fold->err, EINVAL,
                       "operation %" PRIu64 " cannot be undone: the history that is kept begins at "
                       "%" PRIu64,
                       totals->top, totals->history_from);
    int error = documents_operation(fold->store, fold->session->row.number, totals->top, &undone);
    if (error == -ENOENT)
        return fold->strict ? hl_fail(fold->err, EINVAL,
                                      "operation %" PRIu64 " cannot be undone: the history that "
                                      "is kept does not reach so far",
                                      totals->top)
                            : 0;
    if (error < 0)
        return error;
    for (size_t i = 0; i < undone.count && error == 0; i++)
        error = take_back(fold, undone.slots[i], undone.seq);
    free(undone.slots);
    if (error == 0) {
        totals->has_top = undone.has_before;
        totals->top = undone.has_before ? undone.before : 0;
    }
    return error;
}

/* ---- the whole ---- */

/* Puts the operation on top of those that can be undone. */
static int add_operation(struct fold *fold)
{
    struct index_documents *totals = &fold->session->batch_documents;
    struct index_operation operation = {
        .seq = fold->record->seq,
        .has_before = totals->has_top,
        .before = totals->top,
        .count = fold->slot_count,
        .slots = fold->slots,
    };
    pthread_rwlock_wrlock(&fold->store->mem_lock);
    int error = mem_operation_add(fold->store->table, fold->session, &operation);
    pthread_rwlock_unlock(&fold->store->mem_lock);
    if (error < 0)
        return error;
    fold->slots = NULL; /* the table has them */
    totals->has_top = true;
    totals->top = fold->record->seq;
    return 0;
}

static int run(struct fold *fold)
{
    switch (fold->operation.kind) {
    case OPERATION_SET:
        return fold_set(fold);
    case OPERATION_DELETE:
        return fold_delete(fold);
    case OPERATION_CHECKPOINT:
        return fold_checkpoint(fold);
    case OPERATION_UNDO:
        return fold_undo(fold);
    case OPERATION_ARCHIVE:
        return fold_archive(fold);
    case OPERATION_RESTORE:
        return fold_restore(fold);
    default:
        return 0;
    }
}

/* Making and removing an archive cannot be undone: nobody would expect undo to do just that. */
static bool can_be_undone(const struct operation *operation)
{
    if (operation->kind == OPERATION_ARCHIVE || operation->kind == OPERATION_RESTORE)
        return !names_no_key(operation);
    return operation->kind != OPERATION_UNDO;
}

void fold_begin(struct mem_session *session)
{
    session->batch_documents = session->row.documents;
}

static int note_totals(struct fold *fold)
{
    pthread_rwlock_wrlock(&fold->store->mem_lock);
    int error = mem_documents_mark(fold->store->table, fold->session, fold->record->seq);
    pthread_rwlock_unlock(&fold->store->mem_lock);
    return error;
}

int fold_operation(struct hl_store *store, struct mem_session *session,
                   const struct fold_record *record, bool strict, struct hl_error *err)
{
    struct fold fold = {
        .store = store, .session = session, .record = record, .strict = strict, .err = err};
    struct line_fields fields;
    struct hl_error why = {0};
    session->batch_documents.operations++;
    int error = operation_parse(record->line, record->length, &fold.operation, &why);
    if (error < 0) /* what is stored was checked; an older version may have taken more */
        return strict ? hl_fail(err, EINVAL, "%s", why.text) : note_totals(&fold);
    if (line_read(record->line, record->length, &fields) == 0)
        fold.ts_ms = fields.ts_ms;
    error = run(&fold);
    if (error == 0 && can_be_undone(&fold.operation))
        error = add_operation(&fold);
    if (error == 0)
        error = note_totals(&fold);
    free(fold.slots);
    if (error < 0 && err && err->code == 0)
        hl_fail(err, -error, "cannot bring the documents up to date: %s", strerror(-error));
    return error;
}

int fold_links(struct hl_store *store, struct mem_session *session,
               const struct operation *operation, struct operation_link *prev_seq,
               struct operation_link *prev_op)
{
    const struct index_documents *totals = &session->batch_documents;
    struct document_state state;
    *prev_op = (struct operation_link){.given = true, .set = totals->has_top, .seq = totals->top};
    *prev_seq = (struct operation_link){.given = true};
    if (!operation_has_key(operation->kind))
        return 0;
    int error =
        look(store, session->row.number, HL_AREA_STATE, operation->key, operation->key_len, &state);
    if (error == 0 && state.has_version) {
        prev_seq->set = true;
        prev_seq->seq = state.version.seq;
    }
    return error;
}

int fold_news(const struct mem_session *session, size_t max, struct hl_document_news **news,
              size_t *count, uint64_t *skipped)
{
    size_t changed = 0;
    *news = NULL;
    *count = 0;
    *skipped = 0;
    const struct mem_slot *first = session->documents ? session->documents->staged : NULL;
    for (const struct mem_slot *slot = first; slot; slot = slot->next_staged)
        changed += slot->area == HL_AREA_STATE;
    if (changed == 0)
        return 0;
    size_t room = changed < max ? changed : max;
    *news = malloc(room * sizeof **news);
    if (!*news)
        return -ENOMEM;
    /* The list begins with the newest. */
    for (const struct mem_slot *slot = first; slot; slot = slot->next_staged) {
        bool is = slot->count > 0 && slot->versions[slot->count - 1].present;
        if (slot->area != HL_AREA_STATE || (!is && !slot->was_present))
            continue;
        if (*count == room) {
            ++*skipped;
            continue;
        }
        (*news)[(*count)++] = (struct hl_document_news){
            .number = slot->number,
            .change = !is ? HL_DOCUMENT_DELETED
                          : (slot->was_present ? HL_DOCUMENT_CHANGED : HL_DOCUMENT_MADE),
        };
    }
    for (size_t i = 0; i < *count / 2; i++) {
        struct hl_document_news other = (*news)[i];
        (*news)[i] = (*news)[*count - 1 - i];
        (*news)[*count - 1 - i] = other;
    }
    return 0;
}

void fold_settle(struct mem_session *session)
{
    session->row.documents = session->batch_documents;
    mem_documents_settle(session);
}

void fold_take_back(struct hl_store *store, struct mem_session *session)
{
    mem_documents_take_back(store->table, session, session->row.has_seq, session->row.last_seq);
}

int fold_expect(struct hl_store *store, uint32_t session, const struct hl_expectation *expectation,
                struct hl_error *err)
{
    struct document_state state;
    int len = (int)expectation->len;
    int error = look(store, session, expectation->area, expectation->key, expectation->len, &state);
    if (error < 0)
        return hl_fail(err, -error, "cannot look for the document \"%.*s\": %s", len,
                       expectation->key, strerror(-error));
    if (!expectation->present)
        return is_present(&state) ? hl_fail(err, EEXIST, "there is a document \"%.*s\" already",
                                            len, expectation->key)
                                  : 0;
    if (!is_present(&state))
        return hl_fail(err, ENOENT, "there is no document \"%.*s\"", len, expectation->key);
    if (expectation->changed != HL_DOCUMENT_SEQ_ANY && expectation->changed != state.version.seq)
        return hl_fail(err, ESTALE, "the document \"%.*s\" was changed meanwhile", len,
                       expectation->key);
    return 0;
}
