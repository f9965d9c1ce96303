/*
 * test_keep_model.c - what is kept and what is dropped: random appends, operations, undo, trims,
 * deletes, rotations, compactions, and openings with the index kept, an older checkpoint, or none;
 * after each step the store shows what a simple model has.
 *
 * STEPS says how many (500), SEED which.
 */
#include "support.h"

#include <inttypes.h>

#define SLOTS 5U /* ids */
#define KEYS 4U
#define RECORDS_MAX 20000U

struct model_record {
    uint64_t seq;
    unsigned mark; /* of an event; stands in its line */
    bool operation;
};

/* A change of a key that can be undone: what was there before. */
struct model_change {
    unsigned key;
    unsigned before; /* 0: nothing */
};

struct model_session {
    uint32_t number; /* 0: there is none */
    char id[8];
    uint64_t last_seq;
    struct model_record *records;
    size_t count;
    unsigned values[KEYS]; /* 0: not there */
    struct model_change changes[RECORDS_MAX];
    size_t change_count;
};

struct model {
    struct t_store t;
    struct model_session slots[SLOTS];
    uint32_t gone[4096]; /* numbers of sessions that were deleted */
    size_t gone_count;
    uint64_t chance;
    unsigned marks, step;
};

static uint64_t below(struct model *m, uint64_t limit)
{
    return t_below(&m->chance, limit);
}

static void add_record(struct model_session *session, unsigned mark)
{
    assert_true(session->count < RECORDS_MAX);
    session->records[session->count++] =
        (struct model_record){.seq = ++session->last_seq, .mark = mark, .operation = mark == 0};
}

static struct model_session *any_session(struct model *m, bool make)
{
    struct model_session *session = &m->slots[below(m, SLOTS)];
    if (session->number == 0 && make) {
        session->number = t_session(&m->t, session->id);
        for (size_t i = 0; i < m->gone_count; i++)
            assert_int_not_equal(session->number, m->gone[i]);
    }
    return session->number ? session : NULL;
}

/* ---- steps ---- */

static void append_events(struct model *m)
{
    struct model_session *session = any_session(m, true);
    static char text[200 * 400];
    size_t used = 0;
    for (uint64_t n = 1 + below(m, below(m, 4) ? 8 : 200); n > 0; n--) {
        char seq[40] = "";
        if (below(m, 30) == 0) { /* past a gap */
            session->last_seq += 1 + below(m, below(m, 5) ? 9 : UINT64_C(5000000000));
            snprintf(seq, sizeof seq, "\"seq\":%" PRIu64 ",", session->last_seq + 1);
        }
        used +=
            (size_t)snprintf(text + used, sizeof text - used, "{%s\"mark\":%u,\"pad\":\"%*s\"}\n",
                             seq, ++m->marks, (int)below(m, 120), "");
        add_record(session, m->marks);
    }
    assert_int_equal(t_try_append(&m->t, session->number, text, used), 0);
}

static void change(struct model *m)
{
    struct model_session *session = any_session(m, true);
    unsigned key = (unsigned)below(m, KEYS), value = below(m, 4) ? ++m->marks : 0;
    if (session->change_count == RECORDS_MAX)
        return;
    session->changes[session->change_count++] =
        (struct model_change){.key = key, .before = session->values[key]};
    session->values[key] = value;
    if (value)
        t_append_format(&m->t, session->number,
                        "{\"op\":\"set\",\"key\":\"key-%u\",\"value\":%u}\n", key, value);
    else
        t_append_format(&m->t, session->number, "{\"op\":\"delete\",\"key\":\"key-%u\"}\n", key);
    add_record(session, 0);
}

static void undo(struct model *m)
{
    struct model_session *session = any_session(m, false);
    if (!session)
        return;
    uint64_t count = 1 + below(m, 3);
    int error = hl_undo(m->t.store, session->number, count, NULL, NULL, &m->t.err);
    assert_int_equal(error, count <= session->change_count ? 0 : -EINVAL);
    for (; error == 0 && count > 0; count--) {
        const struct model_change *undone = &session->changes[--session->change_count];
        session->values[undone->key] = undone->before;
        add_record(session, 0);
    }
}

static void trim(struct model *m)
{
    struct model_session *session = any_session(m, false);
    struct hl_dropped dropped;
    struct hl_session before, after;
    if (!session)
        return;
    uint64_t limit = session->last_seq + 1, kept = 0, seq;
    switch (below(m, 4)) {
    case 0:
        seq = UINT64_MAX;
        break;
    case 1:
        seq = below(m, limit + 1);
        break;
    default: /* at a record */
        seq = session->count ? session->records[below(m, session->count)].seq + below(m, 2) : 3;
        break;
    }
    assert_int_equal(hl_session_by_number(m->t.store, session->number, &before), 0);
    assert_int_equal(hl_trim(m->t.store, session->number, seq, &dropped, &m->t.err), 0);
    assert_int_equal(hl_session_by_number(m->t.store, session->number, &after), 0);
    for (size_t i = 0; i < session->count; i++) {
        if (session->records[i].operation || session->records[i].seq >= seq)
            session->records[kept++] = session->records[i];
    }
    assert_int_equal(dropped.records, session->count - kept);
    assert_int_equal(dropped.bytes, before.bytes - after.bytes);
    session->count = kept;
}

static void forget(struct model *m, struct model_session *session)
{
    assert_true(m->gone_count < sizeof m->gone / sizeof m->gone[0]);
    m->gone[m->gone_count++] = session->number;
    session->number = 0;
    session->count = session->change_count = 0;
    session->last_seq = 0;
    memset(session->values, 0, sizeof session->values);
}

static void delete (struct model *m)
{
    struct model_session *session = any_session(m, false);
    struct hl_dropped dropped;
    if (!session)
        return;
    assert_int_equal(hl_delete(m->t.store, session->number, &dropped, &m->t.err), 0);
    assert_int_equal(dropped.records, session->count);
    forget(m, session);
}

static void remove_empty(struct model *m)
{
    struct model_session *session = any_session(m, below(m, 2));
    if (!session)
        return;
    int error = hl_remove_empty(m->t.store, session->number, &m->t.err);
    assert_int_equal(error, session->count > 0 ? -ENOTEMPTY : 0);
    if (error == 0)
        forget(m, session);
}

static void compact(struct model *m)
{
    struct hl_compact what = {.everything = below(m, 3) > 0};
    struct hl_compacted compacted;
    if (hl_compact(m->t.store, &what, NULL, &compacted, &m->t.err) < 0)
        fail_msg("compact: %s", m->t.err.text);
}

static void check_closed(struct model *m);

/* What the events of all come to, and of each session. */
static void take_usage(struct model *m, struct hl_usage usage[SLOTS + 1])
{
    memset(usage, 0, (SLOTS + 1) * sizeof *usage);
    for (unsigned i = 0; i <= SLOTS; i++) {
        struct hl_sums *sums;
        if (i > 0 && m->slots[i - 1].number == 0)
            continue;
        assert_int_equal(hl_sums(m->t.store, i ? m->slots[i - 1].number : 0, &sums), 0);
        usage[i] = sums->total;
        free(sums);
    }
}

/* Index and checkpoints are kept, or lost, or the index alone is. */
static void make_index(struct model *m)
{
    char path[T_PATH];
    unsigned how = (unsigned)below(m, 7);
    if (how == 0) {
        assert_int_equal(hl_reindex(m->t.store, NULL, &m->t.err), 0);
        return;
    }
    if (how % 2)
        t_crash(&m->t);
    else
        t_close(&m->t);
    if (how <= 2 && how % 2 == 0)
        check_closed(m);
    if (how >= 3) {
        t_path(path, m->t.dir, "index");
        t_dir_remove(path);
    }
    if (how >= 5) {
        t_path(path, m->t.dir, "checkpoints");
        t_dir_remove(path);
    }
    t_open(&m->t);
}

static void open_again(struct model *m)
{
    struct hl_usage before[SLOTS + 1], after[SLOTS + 1];
    take_usage(m, before);
    make_index(m);
    take_usage(m, after);
    assert_memory_equal(before, after, sizeof before);
}

static void step(struct model *m, bool with_compaction)
{
    switch (below(m, 24)) {
    case 0:
    case 1:
    case 2:
        trim(m);
        break;
    case 3:
        delete (m);
        break;
    case 4:
        remove_empty(m);
        break;
    case 5:
    case 6:
        undo(m);
        break;
    case 7:
        assert_int_equal(hl_rotate(m->t.store, &m->t.err), 0);
        break;
    case 8:
        assert_int_equal(hl_checkpoint(m->t.store, NULL, &m->t.err), 0);
        break;
    case 9:
    case 10:
        open_again(m);
        break;
    case 11:
    case 12:
        if (with_compaction)
            compact(m);
        break;
    case 13:
    case 14:
    case 15:
    case 16:
        change(m);
        break;
    default:
        append_events(m);
    }
}

/* ---- what it shows ---- */

struct walk {
    const struct model_session *session;
    size_t at;
};

static bool take_record(void *context, const struct hl_record *record)
{
    struct walk *walk = context;
    assert_true(walk->at < walk->session->count);
    assert_int_equal(record->seq, walk->session->records[walk->at].seq);
    walk->at++;
    return true;
}

static void expect_log(struct model *m, const struct model_session *session, uint64_t bytes)
{
    size_t len, pieces[] = {100, 4096, 65536};
    char *log = t_log(m->t.store, session->number, pieces[below(m, 3)], &len), *line = log;
    assert_int_equal(len, bytes);
    for (size_t i = 0; i < session->count; i++) {
        char want[64];
        const struct model_record *record = &session->records[i];
        char *end = strchr(line, '\n');
        assert_non_null(end);
        *end = 0;
        snprintf(want, sizeof want, "\"seq\":%" PRIu64 ",", record->seq);
        assert_non_null(strstr(line, want));
        snprintf(want, sizeof want, "\"mark\":%u,", record->mark);
        assert_true((strstr(line, want) != NULL) == !record->operation);
        line = end + 1;
    }
    assert_int_equal(line - log, len);
    free(log);
}

static void expect_documents(struct model *m, const struct model_session *session)
{
    for (unsigned key = 0; key < KEYS; key++) {
        struct hl_document document;
        char name[16], text[32] = "", want[32];
        int len = snprintf(name, sizeof name, "key-%u", key);
        int error = hl_document_find(m->t.store, session->number, HL_AREA_STATE, name, (size_t)len,
                                     &document);
        assert_int_equal(error, session->values[key] ? 0 : -ENOENT);
        if (error < 0)
            continue;
        snprintf(want, sizeof want, "%u\n", session->values[key]);
        assert_int_equal(
            hl_document_read(m->t.store, session->number, &document, text, sizeof text - 1, 0),
            strlen(want));
        assert_string_equal(text, want);
    }
}

static void expect_session(struct model *m, const struct model_session *session)
{
    struct hl_session about;
    struct walk walk = {.session = session};
    uint64_t begin, end, operations = 0;
    assert_int_equal(hl_session_by_id(m->t.store, session->id, strlen(session->id), &about), 0);
    assert_int_equal(about.number, session->number);
    for (size_t i = 0; i < session->count; i++)
        operations += session->records[i].operation;
    assert_int_equal(about.records, session->count);
    assert_int_equal(about.operations, operations);
    assert_int_equal(about.has_seq ? about.last_seq : 0, session->last_seq);
    if (session->count > 0)
        assert_int_equal(about.first_seq, session->records[0].seq);
    assert_int_equal(
        hl_record_list(m->t.store, session->number, 0, below(m, 2), take_record, &walk), 0);
    assert_int_equal(walk.at, session->count);
    expect_log(m, session, about.bytes);
    expect_documents(m, session);
    for (int i = 0; i < 8; i++) { /* single ones, and those that are not there */
        struct hl_record record;
        uint64_t seq = below(m, session->last_seq + 2);
        if (session->count > 0 && below(m, 2))
            seq = session->records[below(m, session->count)].seq;
        bool is = false;
        for (size_t k = 0; k < session->count && !is; k++)
            is = session->records[k].seq == seq;
        assert_int_equal(hl_record_find(m->t.store, session->number, seq, &record),
                         is ? 0 : -ENOENT);
    }
    assert_int_equal(hl_log_extent(m->t.store, session->number, 0, HL_SEQ_MAX, &begin, &end), 0);
    assert_true(begin == 0 && end == about.bytes);
}

static void expect_all(struct model *m)
{
    struct hl_session about;
    struct hl_status status;
    unsigned sessions = 0, listed = 0;
    for (unsigned i = 0; i < SLOTS; i++) {
        const struct model_session *session = &m->slots[i];
        sessions += session->number != 0;
        if (session->number)
            expect_session(m, session);
        else
            assert_int_equal(hl_session_by_id(m->t.store, session->id, strlen(session->id), &about),
                             -ENOENT);
    }
    for (uint32_t after = 0; hl_session_next(m->t.store, after, &about) == 0; after = about.number)
        listed++;
    assert_int_equal(listed, sessions);
    assert_int_equal(hl_store_status(m->t.store, &status), 0);
    assert_int_equal(status.sessions, sessions);
    if (m->gone_count > 0)
        assert_int_equal(hl_session_by_number(m->t.store, m->gone[below(m, m->gone_count)], &about),
                         -ENOENT);
    if (m->t.errors + m->t.warnings > 0)
        fail_msg("it complains: %s", m->t.last_error);
}

static void take_finding(void *context, const struct hl_finding *finding)
{
    (void)context;
    if (finding->severity != HL_INFO)
        fail_msg("check: %s: %s", finding->file, finding->text);
}

static void check_closed(struct model *m)
{
    struct hl_check check = {.found = take_finding};
    struct hl_check_report report;
    assert_int_equal(hl_check(m->t.dir, &check, &report, NULL, &m->t.err), 0);
    assert_int_equal(report.problems, 0);
}

static void run(bool with_compaction)
{
    struct model *m = calloc(1, sizeof *m);
    assert_non_null(m);
    m->chance = t_seed(with_compaction ? "test_compacted" : "test_kept");
    t_store_init(&m->t);
    m->t.options.segment_size = 16 * 1024;
    t_open(&m->t);
    for (unsigned i = 0; i < SLOTS; i++) {
        m->slots[i].records = calloc(RECORDS_MAX, sizeof *m->slots[i].records);
        assert_non_null(m->slots[i].records);
        snprintf(m->slots[i].id, sizeof m->slots[i].id, "id-%u", i);
    }
    unsigned steps = t_amount("STEPS", t_slow() ? 120 : 500);
    for (m->step = 0; m->step < steps; m->step++) {
        step(m, with_compaction);
        expect_all(m);
        if (m->step % 8 == 0)
            t_verify(&m->t);
    }
    t_close(&m->t);
    check_closed(m);
    t_store_free(&m->t);
    for (unsigned i = 0; i < SLOTS; i++)
        free(m->slots[i].records);
    free(m);
}

static void test_kept(void **state)
{
    (void)state;
    run(false);
}

static void test_compacted(void **state)
{
    (void)state;
    run(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kept),
        cmocka_unit_test(test_compacted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
