/*
 * test_store_model.c - random operations on a store, held against a simple model in memory.
 *
 * STEPS says how many (4000), SEED which.
 */
#include "support.h"

#include <inttypes.h>

#define SESSIONS 12
#define RECORDS 40000

struct model_record {
    uint64_t seq;
    uint64_t mark; /* stands in the line */
};

struct model_session {
    bool exists;
    char id[8];
    uint32_t number, mode;
    uint64_t last_seq;
    bool has_seq;
    struct model_record *records;
    size_t count;
    uint64_t attribute; /* 0: not set */
};

struct model {
    struct t_store t;
    struct model_session sessions[SESSIONS];
    uint64_t chance, marks;
    char *text; /* of the batch that is being made */
    size_t used;
    unsigned crashes;
};

#define TEXT_ROOM (3U << 20)

static uint64_t below(struct model *m, uint64_t limit)
{
    return t_below(&m->chance, limit);
}

/* ---- appending ---- */

struct planned {
    struct model_session *session;
    struct model_record record;
    bool retry;
};

struct batch {
    struct planned planned[400];
    size_t count;
    bool bad; /* must be refused */
};

static uint64_t planned_last(const struct batch *batch, const struct model_session *session,
                             bool *has)
{
    *has = session->has_seq;
    uint64_t last = session->last_seq;
    for (size_t i = 0; i < batch->count; i++) {
        if (batch->planned[i].session == session && !batch->planned[i].retry) {
            last = batch->planned[i].record.seq;
            *has = true;
        }
    }
    return last;
}

static void add_line(struct model *m, struct batch *batch, struct model_session *session, bool root)
{
    struct planned *p = &batch->planned[batch->count];
    char id[40] = "", seq[40] = "", pad[2000];
    size_t pad_len = below(m, 8) == 0 ? below(m, sizeof pad - 1) : below(m, 40);
    bool has;
    uint64_t last = planned_last(batch, session, &has);
    memset(pad, 'a' + (int)below(m, 26), pad_len);
    pad[pad_len] = 0;
    *p = (struct planned){.session = session, .record = {.mark = ++m->marks}};
    p->record.seq = has ? last + 1 : 1;
    if (root)
        snprintf(id, sizeof id, "\"session_id\":\"%s\",", session->id);
    unsigned kind = (unsigned)below(m, 20);
    if (kind == 0) {
        p->record.seq =
            (has ? last + 1 : 0) + below(m, 4) * (below(m, 9) ? 1 : UINT64_C(5000000000));
        snprintf(seq, sizeof seq, "\"seq\":%" PRIu64 ",", p->record.seq);
    } else if (kind == 1 && has) { /* a seq that is taken, by another line */
        snprintf(seq, sizeof seq, "\"seq\":%" PRIu64 ",", last);
        batch->bad = true;
    }
    m->used += (size_t)snprintf(m->text + m->used, TEXT_ROOM - m->used,
                                "{%s%s\"mark\":%" PRIu64 ",\"pad\":\"%s\"}\n", id, seq,
                                p->record.mark, pad);
    batch->count++;
}

static void store_batch(struct model *m, const struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        struct model_session *session = batch->planned[i].session;
        if (!session->exists) {
            session->exists = true;
            session->number = t_number(&m->t, session->id);
            session->mode = 0640;
        }
        assert_true(session->count < RECORDS);
        session->records[session->count++] = batch->planned[i].record;
        session->last_seq = batch->planned[i].record.seq;
        session->has_seq = true;
    }
}

static void do_append(struct model *m)
{
    struct batch batch = {.count = 0};
    bool root = below(m, 3) == 0;
    struct model_session *session = &m->sessions[below(m, SESSIONS)];
    size_t lines = below(m, 10) ? 1 + below(m, 6) : 1 + below(m, 300);
    m->used = 0;
    if (!root && !session->exists) {
        session->number = t_session(&m->t, session->id);
        session->exists = true;
        session->mode = 0640;
    }
    for (size_t i = 0; i < lines; i++) {
        if (root && below(m, 3) == 0)
            session = &m->sessions[below(m, SESSIONS)];
        add_line(m, &batch, session, root);
    }
    if (below(m, 20) == 0) {
        m->used += (size_t)sprintf(m->text + m->used, "{\"bad\":}\n");
        batch.bad = true;
    }
    int error = t_try_append(&m->t, root ? 0 : session->number, m->text, m->used);
    if (batch.bad) {
        assert_true(error == -EEXIST || error == -EINVAL);
    } else {
        if (error < 0)
            fail_msg("append: %s", m->t.err.text);
        store_batch(m, &batch);
    }
}

/* ---- other operations ---- */

static void do_change(struct model *m)
{
    struct model_session *session = &m->sessions[below(m, SESSIONS)];
    if (!session->exists)
        return;
    if (below(m, 2)) {
        session->mode = (uint32_t)below(m, 010000);
        assert_int_equal(hl_session_change(m->t.store, session->number, HL_CHANGE_MODE, 0, 0,
                                           session->mode, NULL),
                         0);
    } else if (below(m, 3)) {
        session->attribute = 1 + below(m, 1000);
        assert_int_equal(hl_attribute_set(m->t.store, session->number, "n", &session->attribute,
                                          sizeof session->attribute, 0),
                         0);
    } else {
        assert_int_equal(hl_attribute_remove(m->t.store, session->number, "n"),
                         session->attribute ? 0 : -ENODATA);
        session->attribute = 0;
    }
}

static void remove_below(struct model *m, const char *name)
{
    char path[T_PATH];
    t_path(path, m->t.dir, "%s", name);
    t_dir_remove(path);
}

static void do_rare(struct model *m)
{
    struct t_store *t = &m->t;
    switch (below(m, 8)) {
    case 0:
        assert_int_equal(hl_rotate(t->store, &t->err), 0);
        break;
    case 1:
        assert_int_equal(hl_checkpoint(t->store, NULL, &t->err), 0);
        break;
    case 2:
        if (hl_reindex(t->store, NULL, &t->err) < 0)
            fail_msg("reindex: %s", t->err.text);
        break;
    case 3:
        t_reopen(t);
        break;
    case 4:
        t_crash(t);
        m->crashes++;
        t_open(t);
        break;
    case 5:
        t_crash(t);
        m->crashes++;
        remove_below(m, "index");
        if (below(m, 2))
            remove_below(m, "checkpoints");
        t_open(t);
        break;
    case 6: {
        char path[T_PATH];
        t_crash(t);
        t_segment_path(t, 0, path);
        t_file_append(path, "torn tail", 1 + below(m, 9));
        t_open(t);
        break;
    }
    default:
        assert_int_equal(hl_sync(t->store), 0);
    }
    assert_int_equal(t->errors, 0);
}

/* ---- holding it against the model ---- */

static void check_session(struct model *m, const struct t_image *image,
                          const struct model_session *session)
{
    const struct t_session_image *shown = t_image_find(image, session->id);
    assert_non_null(shown);
    assert_int_equal(shown->about.number, session->number);
    assert_int_equal(shown->about.mode, session->mode);
    assert_int_equal(shown->about.has_seq, session->has_seq);
    if (session->has_seq)
        assert_int_equal(shown->about.last_seq, session->last_seq);
    assert_int_equal(shown->about.records, session->count);
    const char *line = shown->log;
    for (size_t i = 0; i < session->count; i++) {
        char head[80], mark[40];
        assert_int_equal(shown->lines[i].seq, session->records[i].seq);
        snprintf(head, sizeof head, "\"%s\"", session->id);
        snprintf(mark, sizeof mark, "\"mark\":%" PRIu64 ",", session->records[i].mark);
        const char *end = line + shown->lines[i].length;
        assert_true(t_has(line, shown->lines[i].length, mark));
        assert_true(t_has(line, shown->lines[i].length, head));
        assert_int_equal(end[-1], '\n');
        line = end;
    }
    uint64_t value = 0;
    ssize_t n = hl_attribute_get(m->t.store, session->number, "n", &value, sizeof value);
    assert_int_equal(n, session->attribute ? (ssize_t)sizeof value : -ENODATA);
    assert_int_equal(value, session->attribute);
}

/* A look at a few things in the state in which the store is: each lies in the tables or in the
 * index. */
static void check_some(struct model *m)
{
    const struct model_session *session = &m->sessions[below(m, SESSIONS)];
    struct hl_record record;
    if (!session->exists || session->count == 0)
        return;
    const struct model_record *one = &session->records[below(m, session->count)];
    assert_int_equal(hl_record_find(m->t.store, session->number, one->seq, &record), 0);
    uint64_t begin, end;
    assert_int_equal(hl_log_extent(m->t.store, session->number, one->seq, one->seq, &begin, &end),
                     0);
    assert_int_equal(end - begin, record.length);
    char *text = malloc(record.length + 1), *again = malloc(record.length + 1);
    assert_non_null(text);
    assert_non_null(again);
    assert_int_equal(hl_record_read(m->t.store, session->number, one->seq, text, record.length, 0),
                     record.length);
    assert_int_equal(hl_log_read(m->t.store, session->number, begin, again, record.length, NULL),
                     record.length);
    assert_memory_equal(text, again, record.length);
    free(text);
    free(again);
    uint64_t absent = session->last_seq + 1 + below(m, 5);
    assert_int_equal(hl_record_find(m->t.store, session->number, absent, &record), -ENOENT);
}

static void check_all(struct model *m)
{
    struct t_image image;
    size_t exist = 0;
    t_image_take(m->t.store, &image);
    for (size_t i = 0; i < SESSIONS; i++) {
        if (m->sessions[i].exists) {
            exist++;
            check_session(m, &image, &m->sessions[i]);
        }
    }
    assert_int_equal(image.count, exist);
    assert_int_equal(t_verify(&m->t), image.records);
    t_image_free(&image);
}

static void test_random_operations(void **state)
{
    (void)state;
    static struct model m;
    m.chance = t_seed("test_random_operations");
    unsigned steps = t_amount("STEPS", t_slow() ? 600 : 4000);
    m.text = malloc(TEXT_ROOM);
    assert_non_null(m.text);
    for (size_t i = 0; i < SESSIONS; i++) {
        snprintf(m.sessions[i].id, sizeof m.sessions[i].id, "s%zu", i);
        m.sessions[i].records = calloc(RECORDS, sizeof(struct model_record));
        assert_non_null(m.sessions[i].records);
    }
    t_store_init(&m.t);
    m.t.options.segment_size = 4096 + below(&m, 60000);
    t_open(&m.t);
    for (unsigned step = 0; step < steps; step++) {
        uint64_t what = below(&m, 100);
        if (what < 85)
            do_append(&m);
        else if (what < 96)
            do_change(&m);
        else
            do_rare(&m);
        check_some(&m);
        if (step % 200 == 199)
            check_all(&m);
    }
    t_reopen(&m.t);
    check_all(&m);
    t_check_log(&m.t);
    for (size_t i = 0; i < SESSIONS; i++)
        free(m.sessions[i].records);
    free(m.text);
    t_store_free(&m.t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_operations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
