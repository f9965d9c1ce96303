/*
 * index_model.h - what an index should hold, kept in plain arrays, and the questions by which an
 * index is held against it. For the test_index*.c programs; each includes it once.
 */
#ifndef HL_TEST_INDEX_MODEL_H
#define HL_TEST_INDEX_MODEL_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../store/index.h"
#include "../../store/index_internal.h"
#include "support.h"

static const uint8_t model_store_id[16] = "a store's own id";

/* Sanitizers that need most of the address space for themselves. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MODEL_LITTLE_SPACE 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MODEL_LITTLE_SPACE 1
#endif
#endif

/* ---- chance ---- */

static inline uint64_t model_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

static inline uint64_t model_below(uint64_t *state, uint64_t limit)
{
    return model_random(state) % limit;
}

/* From the environment variable SEED, or the clock; printed, so that a failure can be repeated. */
static inline uint64_t model_seed(const char *test)
{
    const char *given = getenv("SEED");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seed = given ? strtoull(given, NULL, 0)
                          : (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
    fprintf(stderr, "%s: SEED=%llu\n", test, (unsigned long long)seed);
    return seed;
}

/* ---- directories ---- */

struct model_dir {
    char root[256]; /* removed at the end */
    char path[300]; /* of the environment, not made yet */
};

static inline void model_dir_make(struct model_dir *dir)
{
    const char *base = getenv("TMPDIR");
    snprintf(dir->root, sizeof dir->root, "%s/hl-index-XXXXXX", base && base[0] ? base : "/tmp");
    if (!mkdtemp(dir->root))
        abort();
    snprintf(dir->path, sizeof dir->path, "%s/index", dir->root);
}

static inline void model_file(const struct model_dir *dir, const char *name, char file[400])
{
    snprintf(file, 400, "%s/%s", dir->path, name);
}

static inline void model_dir_remove(const struct model_dir *dir)
{
    char file[400];
    model_file(dir, "data.mdb", file);
    unlink(file);
    model_file(dir, "lock.mdb", file);
    unlink(file);
    rmdir(dir->path);
    if (rmdir(dir->root) < 0)
        fprintf(stderr, "%s: %s\n", dir->root, strerror(errno));
}

/* ---- the model ---- */

struct model_session {
    struct index_row row;
    char id[HL_ID_MAX];
    uint8_t attributes[3000];
    struct index_entry *entries;
    uint64_t *begins; /* of their lines in the session's log; one more than entries: its end */
    size_t count, capacity;
    size_t stored; /* entries that are in the index; the rest waits for the next apply */
    size_t given;
};

struct model {
    struct model_session *sessions; /* by number, ascending */
    size_t count;
    uint64_t position;
};

static inline void model_free(struct model *model)
{
    for (size_t i = 0; i < model->count; i++) {
        free(model->sessions[i].entries);
        free(model->sessions[i].begins);
    }
    free(model->sessions);
    *model = (struct model){.count = 0};
}

static inline void model_append(struct model *model, struct model_session *session, uint64_t seq,
                                uint32_t length)
{
    if (session->count == session->capacity) {
        session->capacity = session->capacity ? session->capacity * 2 : 16;
        session->entries = realloc(session->entries, session->capacity * sizeof *session->entries);
        session->begins =
            realloc(session->begins, (session->capacity + 1) * sizeof *session->begins);
        if (!session->entries || !session->begins)
            abort();
        session->begins[0] = 0;
    }
    model->position += 32 + length;
    session->entries[session->count] = (struct index_entry){.seq = seq,
                                                            .position = model->position,
                                                            .length = length,
                                                            .operation = (seq ^ length) % 7 == 0};
    session->row.documents.operations += session->entries[session->count].operation;
    session->begins[session->count + 1] = session->begins[session->count] + length;
    session->count++;
    struct index_row *row = &session->row;
    if (row->records++ == 0)
        row->first_seq = seq;
    row->last_seq = seq;
    row->has_seq = true;
    row->bytes += length;
    row->indexed = model->position;
    row->changed_ms++;
}

/* A seq above the session's last: most often the next, at times past a gap, at times a large one.
 */
static inline uint64_t model_next_seq(const struct model_session *session, uint64_t *chance)
{
    uint64_t base = session->row.has_seq ? session->row.last_seq + 1 : model_below(chance, 2);
    switch (model_below(chance, 200)) {
    case 0:
        return base + (UINT64_C(1) << 32) + model_below(chance, UINT64_C(1) << 34);
    case 1:
        return base + UINT32_MAX - 1 + model_below(chance, 3);
    case 2:
    case 3:
        return base + model_below(chance, 1000);
    default:
        return base;
    }
}

static inline uint32_t model_length(uint64_t *chance)
{
    return 1 + (uint32_t)(model_below(chance, 50) == 0 ? model_below(chance, 1U << 24)
                                                       : model_below(chance, 600));
}

static inline struct model_session *model_add_session(struct model *model, uint64_t *chance)
{
    model->sessions = realloc(model->sessions, (model->count + 1) * sizeof *model->sessions);
    if (!model->sessions)
        abort();
    struct model_session *session = &model->sessions[model->count];
    memset(session, 0, sizeof *session);
    struct index_row *row = &session->row;
    row->number = 1 + (uint32_t)model_below(chance, 3) +
                  (model->count ? model->sessions[model->count - 1].row.number : 0);
    row->uid = (uint32_t)model_random(chance);
    row->gid = (uint32_t)model_random(chance);
    row->mode = 0700;
    row->created_ms = row->changed_ms = model_random(chance) >> 20;
    /* Ends in the number, so that no two are the same. */
    int n = snprintf(session->id, sizeof session->id, "%0*u-%u", (int)model_below(chance, 40) + 1,
                     7U, row->number);
    row->id_len = (uint16_t)n;
    row->attributes_len =
        model_below(chance, 4) ? 0 : (uint32_t)model_below(chance, sizeof session->attributes);
    for (uint32_t i = 0; i < row->attributes_len; i++)
        session->attributes[i] = (uint8_t)model_random(chance);
    model->count++;
    return session;
}

static inline bool model_give(void *context, struct index_entry *entry)
{
    struct model_session *session = context;
    if (session->given == session->count)
        return false;
    *entry = session->entries[session->given++];
    return true;
}

/* The row as index_apply() takes it. The session may have moved since, so pointers are set here. */
static inline struct index_row model_row(const struct model_session *session)
{
    struct index_row row = session->row;
    row.id = session->id;
    row.attributes = row.attributes_len ? session->attributes : NULL;
    return row;
}

static inline int model_apply(struct index_txn *txn, struct model_session *session)
{
    struct index_row row = model_row(session);
    session->given = session->stored;
    int error = index_apply(txn, &row, model_give, session);
    if (error == 0)
        session->stored = session->count;
    return error;
}

/* One commit that brings every session of the model into the index. */
static inline void model_commit(struct model *model, struct index *index)
{
    struct index_txn *txn;
    assert_int_equal(index_begin(index, &txn), 0);
    for (size_t i = 0; i < model->count; i++)
        assert_int_equal(model_apply(txn, &model->sessions[i]), 0);
    struct index_meta meta = {.watermark = model->position, .recorded_ms = model->position + 1};
    assert_int_equal(index_put_meta(txn, &meta), 0);
    assert_int_equal(index_commit(txn), 0);
}

/* New sessions and entries, as chance has it. */
static inline void model_grow(struct model *model, uint64_t *chance, unsigned new_sessions,
                              unsigned most_entries)
{
    for (unsigned i = 0; i < new_sessions; i++)
        model_add_session(model, chance);
    for (size_t i = 0; i < model->count; i++) {
        struct model_session *session = &model->sessions[i];
        if (model_below(chance, 3) == 0)
            continue;
        for (uint64_t n = model_below(chance, most_entries + 1); n > 0; n--) {
            uint64_t seq = model_next_seq(session, chance);
            if (seq <= HL_SEQ_MAX)
                model_append(model, session, seq, model_length(chance));
        }
    }
}

/* ---- questions: each returns whether the index answered rightly, or *damaged if it said -EBADMSG
 * ---- */

struct model_each {
    const struct model_session *session;
    size_t at, left;
    bool right;
};

static inline bool model_each_one(void *context, const struct index_entry *entry)
{
    struct model_each *each = context;
    const struct index_entry *expected =
        each->at < each->session->stored ? &each->session->entries[each->at] : NULL;
    if (!expected || expected->seq != entry->seq || expected->position != entry->position ||
        expected->length != entry->length || expected->operation != entry->operation) {
        each->right = false;
        return false;
    }
    each->at++;
    return --each->left > 0;
}

static inline bool model_ask_row(struct index_view *view, const struct model_session *session,
                                 bool *damaged)
{
    struct index_row by_id, by_number, expected = model_row(session);
    int error = index_session_by_id(view, session->id, expected.id_len, &by_id);
    if (error == 0)
        error = index_session_by_number(view, expected.number, &by_number);
    if (error != 0) {
        *damaged = *damaged || error == -EBADMSG;
        return error == -EBADMSG;
    }
    const struct index_row *row = &by_number;
    return by_id.number == expected.number && by_id.id == row->id && row->uid == expected.uid &&
           row->gid == expected.gid && row->mode == expected.mode &&
           row->has_seq == expected.has_seq && row->created_ms == expected.created_ms &&
           row->changed_ms == expected.changed_ms && row->first_seq == expected.first_seq &&
           row->last_seq == expected.last_seq && row->records == expected.records &&
           row->bytes == expected.bytes && row->indexed == expected.indexed &&
           row->gone == expected.gone &&
           row->documents.operations == expected.documents.operations &&
           row->id_len == expected.id_len && memcmp(row->id, expected.id, row->id_len) == 0 &&
           row->attributes_len == expected.attributes_len &&
           (row->attributes_len == 0
                ? row->attributes == NULL
                : memcmp(row->attributes, expected.attributes, row->attributes_len) == 0);
}

static inline bool model_judge(int error, bool right, bool *damaged)
{
    *damaged = *damaged || error == -EBADMSG;
    return error == -EBADMSG || (error == 0 && right);
}

/* Everything that can be asked about entry i. */
static inline bool model_ask_entry(struct index_view *view, const struct model_session *session,
                                   size_t i, bool *damaged)
{
    uint32_t number = session->row.number;
    const struct index_entry *expected = &session->entries[i];
    uint64_t begin = session->begins[i], end = session->begins[i + 1], bytes;
    struct index_entry entry;
    int error = index_find(view, number, expected->seq, &entry);
    bool right = model_judge(
        error,
        error < 0 || (entry.seq == expected->seq && entry.position == expected->position &&
                      entry.length == expected->length && entry.operation == expected->operation),
        damaged);
    error = index_bytes_before(view, number, expected->seq, &bytes);
    right = right && model_judge(error, error < 0 || bytes == begin, damaged);
    error = index_bytes_before(view, number, expected->seq + 1, &bytes);
    right = right && model_judge(error, error < 0 || bytes == end, damaged);
    bool gap = i + 1 == session->stored || session->entries[i + 1].seq > expected->seq + 1;
    if (gap) {
        error = index_find(view, number, expected->seq + 1, &entry);
        right = right && (error == -ENOENT || error == -EBADMSG);
    }
    uint64_t offsets[2] = {begin, end - 1}, found;
    for (int k = 0; k < 2; k++) {
        error = index_find_offset(view, number, offsets[k], &entry, &found);
        right = right && model_judge(error,
                                     error < 0 || (entry.seq == expected->seq && found == begin &&
                                                   entry.position == expected->position),
                                     damaged);
    }
    return right;
}

static inline bool model_ask_each(struct index_view *view, const struct model_session *session,
                                  uint64_t from, size_t most, bool *damaged)
{
    struct model_each each = {.session = session, .right = true, .left = most};
    while (each.at < session->stored && session->entries[each.at].seq < from)
        each.at++;
    size_t expected = session->stored - each.at < most ? session->stored - each.at : most;
    size_t begun = each.at;
    int error = index_each_from(view, session->row.number, from, model_each_one, &each);
    return each.right && model_judge(error, error < 0 || each.at - begun == expected, damaged);
}

/* All of a session, or about `samples` entries of it. */
static inline bool model_ask_session(struct index_view *view, const struct model_session *session,
                                     uint64_t *chance, size_t samples, bool *damaged)
{
    bool right = model_ask_row(view, session, damaged);
    size_t step = session->stored > samples ? session->stored / samples : 1;
    for (size_t i = 0; right && i < session->stored; i += 1 + model_below(chance, 2 * step - 1))
        right = model_ask_entry(view, session, i, damaged);
    if (right && session->stored > 0)
        right = model_ask_entry(view, session, session->stored - 1, damaged);
    uint64_t end = session->row.bytes, bytes;
    struct index_entry entry;
    int error = index_find_offset(view, session->row.number, end, &entry, &bytes);
    right = right && (error == -ENOENT || error == -EBADMSG);
    right = right && model_ask_each(view, session, 0, session->stored + 1, damaged);
    for (int k = 0; right && k < 4 && session->stored > 0; k++) {
        size_t i = (size_t)model_below(chance, session->stored);
        right = model_ask_each(view, session, session->entries[i].seq + model_below(chance, 2),
                               1 + (size_t)model_below(chance, 600), damaged);
    }
    return right;
}

static inline bool model_ask(const struct model *model, struct index *index, uint64_t *chance,
                             size_t samples, bool *damaged)
{
    struct index_view *view = NULL;
    int error = index_view_begin(index, &view);
    if (error == -EBADMSG) {
        *damaged = true;
        return true;
    }
    bool right = error == 0;
    uint32_t after = 0;
    uint64_t records = 0, bytes = 0;
    for (size_t i = 0; right && i < model->count; i++) {
        const struct model_session *session = &model->sessions[i];
        struct index_row row;
        error = index_session_next(view, after, &row);
        right = model_judge(error, error < 0 || row.number == session->row.number, damaged) &&
                model_ask_session(view, session, chance, samples, damaged);
        after = session->row.number;
        records += session->row.records;
        bytes += session->row.bytes;
    }
    struct index_row row;
    if (right) {
        error = index_session_next(view, after, &row);
        right = error == -ENOENT || error == -EBADMSG;
    }
    struct index_meta meta;
    if (right) {
        error = index_get_meta(view, &meta);
        right =
            model_judge(error,
                        error < 0 || (meta.sessions == model->count && meta.records == records &&
                                      meta.bytes == bytes && meta.next_session > after &&
                                      memcmp(meta.store_id, model_store_id, 16) == 0),
                        damaged);
    }
    index_view_end(view);
    return right;
}

/* The same where nothing is damaged. */
static inline void model_expect(const struct model *model, struct index *index, uint64_t *chance,
                                size_t samples)
{
    bool damaged = false;
    if (t_slow())
        samples = samples / 10 + 1;
    assert_true(model_ask(model, index, chance, samples, &damaged));
    assert_false(damaged);
}

static inline struct index *model_open(const struct model_dir *dir, unsigned flags)
{
    struct index *index = NULL;
    struct hl_error err = {.text = ""};
    int error = index_open(dir->path, flags, model_store_id, &index, &err);
    if (error < 0)
        fprintf(stderr, "index_open: %s\n", err.text);
    assert_int_equal(error, 0);
    return index;
}

/* The whole check, in a child: good, and with the model's totals. */
static inline void model_expect_good(const struct model *model, const struct model_dir *dir)
{
    struct index_check_report report;
    int error = index_check_in_child(dir->path, 0, model_store_id, &report);
    assert_string_equal(report.complaint, "");
    assert_int_equal(error, 0);
    uint64_t records = 0;
    for (size_t i = 0; i < model->count; i++)
        records += model->sessions[i].stored;
    assert_int_equal(report.sessions, model->count);
    assert_int_equal(report.records, records);
}

#endif
