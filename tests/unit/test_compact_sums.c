/*
 * test_compact_sums.c - what events come to, over compactions that drop them (store/compact_sums.c)
 * and over deletes: random appends, trims, deletes and compactions, held against a simple model, by
 * every way to an index: as it is, replayed from an older checkpoint, built anew.
 *
 * STEPS says how many (600), SEED which.
 */
#include "support.h"

#include <endian.h>
#include <inttypes.h>
#include <unistd.h>

#include "../../store/sums.h"

#define SLOTS 6U
#define IDS 300U
#define NAMES 5U

static const char *const kinds[NAMES] = {"ToolCall", "ToolResult", "Error", "Cost", "Own"};
static const char *const tools[NAMES] = {"", "bash", "ls", "cat", "edit"};

struct model_usage {
    uint64_t events, errors, calls, tokens;
    int64_t cost;
};

struct model_session {
    uint32_t number; /* 0: there is none */
    char id[8];
    struct model_usage total, kinds[NAMES], tools[NAMES];
    bool seen[IDS];
    uint64_t first_ts, last_ts, last_seq;
};

struct model {
    struct t_store t;
    struct model_session slots[SLOTS];
    uint64_t chance;
    unsigned compacted, dropped;
};

static uint64_t below(struct model *m, uint64_t limit)
{
    return t_below(&m->chance, limit);
}

static struct model_session *any_session(struct model *m, bool make)
{
    struct model_session *s = &m->slots[below(m, SLOTS)];
    if (s->number == 0 && make)
        s->number = t_session(&m->t, s->id);
    return s->number ? s : NULL;
}

/* ---- steps ---- */

static void add(struct model_usage *usage, const struct model_usage *what)
{
    usage->events += what->events;
    usage->errors += what->errors;
    usage->calls += what->calls;
    usage->tokens += what->tokens;
    usage->cost += what->cost;
}

static void append(struct model *m)
{
    struct model_session *s = any_session(m, true);
    static char text[64 * 1024];
    size_t used = 0;
    for (uint64_t n = 1 + below(m, below(m, 4) ? 10 : 120); n > 0; n--) {
        unsigned k = (unsigned)below(m, NAMES), w = (unsigned)below(m, NAMES);
        unsigned id = (unsigned)below(m, IDS * 2);
        struct model_usage what = {
            .events = 1, .errors = k == 2, .calls = id < IDS ? !s->seen[id] : k == 0};
        what.tokens = below(m, 1000);
        what.cost = (int64_t)below(m, 1000) - 100;
        uint64_t ts = 1000 + below(m, 1000000);
        used += (size_t)sprintf(text + used,
                                "{\"kind\":\"%s\",\"ts_ms\":%" PRIu64 ",\"tokens_in\":%" PRIu64
                                ",\"cost_usd_e6\":%" PRId64 ",\"pad\":\"%*s\"",
                                kinds[k], ts, what.tokens, what.cost, (int)below(m, 100), "");
        if (w > 0)
            used += (size_t)sprintf(text + used, ",\"tool\":\"%s\"", tools[w]);
        if (id < IDS) {
            used += (size_t)sprintf(text + used, ",\"tool_call_id\":\"%u\"", id);
            s->seen[id] = true;
        }
        used += (size_t)sprintf(text + used, "}\n");
        if (s->total.events == 0 || ts < s->first_ts)
            s->first_ts = ts;
        if (s->total.events == 0 || ts > s->last_ts)
            s->last_ts = ts;
        add(&s->total, &what);
        add(&s->kinds[k], &what);
        if (w > 0)
            add(&s->tools[w], &what);
        s->last_seq++;
    }
    assert_int_equal(t_try_append(&m->t, s->number, text, used), 0);
}

/* Operations and session frames among the events. */
static void change(struct model *m)
{
    struct model_session *s = any_session(m, true);
    if (below(m, 2)) {
        struct hl_session changed;
        assert_int_equal(hl_session_change(m->t.store, s->number, HL_CHANGE_MODE, 0, 0,
                                           0600 + (uint32_t)below(m, 8), &changed),
                         0);
        return;
    }
    t_append_format(&m->t, s->number, "{\"op\":\"set\",\"key\":\"k\",\"value\":%u}\n",
                    (unsigned)below(m, 100));
    s->last_seq++;
}

static void trim(struct model *m)
{
    struct model_session *s = any_session(m, false);
    struct hl_dropped dropped;
    if (!s)
        return;
    uint64_t seq =
        below(m, 3) ? s->last_seq - below(m, s->last_seq < 30 ? s->last_seq + 1 : 30) : UINT64_MAX;
    assert_int_equal(hl_trim(m->t.store, s->number, seq, &dropped, &m->t.err), 0);
    m->dropped += dropped.records > 0;
}

static void forget(struct model_session *s)
{
    char id[sizeof s->id];
    memcpy(id, s->id, sizeof id);
    *s = (struct model_session){.number = 0};
    memcpy(s->id, id, sizeof id);
}

static void delete (struct model *m, bool whole)
{
    struct model_session *s = any_session(m, false);
    if (!s)
        return;
    int error = whole ? hl_erase(m->t.store, s->number, NULL, NULL, &m->t.err)
                      : hl_delete(m->t.store, s->number, NULL, &m->t.err);
    if (error < 0)
        fail_msg("delete: %s", m->t.err.text);
    forget(s);
}

static void compact(struct model *m)
{
    struct hl_compact what = {.everything = true};
    struct hl_compacted compacted;
    if (hl_compact(m->t.store, &what, NULL, &compacted, &m->t.err) < 0)
        fail_msg("compact: %s", m->t.err.text);
    t_verify(&m->t);
    m->compacted += compacted.segments_after > 0;
}

enum loss { LOSE_NOTHING, LOSE_INDEX, LOSE_NEWER, LOSE_ALL };

static void lose(const char *dir, enum loss loss)
{
    char path[T_PATH], **names;
    t_path(path, dir, "index");
    if (loss != LOSE_NOTHING)
        t_dir_remove(path);
    t_path(path, dir, "checkpoints");
    if (loss == LOSE_NOTHING || access(path, F_OK) < 0)
        return;
    size_t count = t_names(path, ".ckpt", &names);
    for (size_t i = 0; i < count; i++) {
        t_path(path, dir, "checkpoints/%s", names[i]);
        if (loss == LOSE_ALL || (loss == LOSE_NEWER && i > 0))
            assert_int_equal(unlink(path), 0);
    }
    t_names_free(names, count);
}

static void open_again(struct model *m)
{
    if (below(m, 5) == 0) {
        assert_int_equal(hl_reindex(m->t.store, NULL, &m->t.err), 0);
        return;
    }
    if (below(m, 2))
        t_crash(&m->t);
    else
        t_close(&m->t);
    lose(m->t.dir, (enum loss)below(m, 4));
    t_open(&m->t);
}

static void step(struct model *m)
{
    uint64_t what = below(m, 40);
    if (what < 6)
        trim(m);
    else if (what < 8)
        delete (m, false);
    else if (what == 8 && below(m, 4) == 0)
        delete (m, true);
    else if (what < 11)
        assert_int_equal(hl_rotate(m->t.store, &m->t.err), 0);
    else if (what == 11)
        assert_int_equal(hl_checkpoint(m->t.store, NULL, &m->t.err), 0);
    else if (what < 14)
        open_again(m);
    else if (what < 18)
        compact(m);
    else if (what < 24)
        change(m);
    else
        append(m);
}

/* ---- what it shows ---- */

static void compare(const struct hl_usage *usage, const struct model_usage *model)
{
    assert_int_equal(usage->events, model->events);
    assert_int_equal(usage->errors, model->errors);
    assert_int_equal(usage->calls, model->calls);
    assert_int_equal(usage->tokens_in, model->tokens);
    assert_int_equal(usage->cost_usd_e6, model->cost);
}

static void compare_names(const struct hl_usage_of *of, size_t count, const char *const *names,
                          const struct model_usage *models)
{
    size_t there = 0;
    for (unsigned i = 0; i < NAMES; i++) {
        const struct hl_usage_of *found = NULL;
        for (size_t k = 0; k < count && !found; k++)
            found = strcmp(of[k].name, names[i]) == 0 ? &of[k] : NULL;
        compare(found ? &found->usage : &(struct hl_usage){0}, &models[i]);
        there += found != NULL;
    }
    assert_int_equal(there, count);
}

static void expect(struct hl_store *store, uint32_t number, const struct model_session *s)
{
    struct hl_sums *sums;
    assert_int_equal(hl_sums(store, number, &sums), 0);
    compare(&sums->total, &s->total);
    compare_names(sums->kinds, sums->kind_count, kinds, s->kinds);
    compare_names(sums->tools, sums->tool_count, tools, s->tools);
    if (number != 0 && s->total.events > 0) {
        assert_int_equal(sums->first_ts_ms, s->first_ts);
        assert_int_equal(sums->last_ts_ms, s->last_ts);
    }
    free(sums);
}

static void expect_all(struct model *m, struct t_store *t)
{
    struct model_session all = {.number = 0};
    for (unsigned i = 0; i < SLOTS; i++) {
        const struct model_session *s = &m->slots[i];
        struct hl_session about;
        if (s->number == 0)
            continue;
        assert_int_equal(hl_session_by_number(t->store, s->number, &about), 0);
        assert_int_equal(about.has_seq ? about.last_seq : 0, s->last_seq);
        expect(t->store, s->number, s);
        add(&all.total, &s->total);
        for (unsigned k = 0; k < NAMES; k++) {
            add(&all.kinds[k], &s->kinds[k]);
            add(&all.tools[k], &s->tools[k]);
        }
    }
    expect(t->store, 0, &all);
    if (t->errors + t->warnings > 0)
        fail_msg("it complains: %s", t->last_error);
}

/* The same directory as it is now, opened by each way. */
static void expect_by_every_way(struct model *m)
{
    t_crash(&m->t);
    for (enum loss loss = LOSE_NOTHING; loss <= LOSE_ALL; loss++) {
        struct t_store other;
        t_store_init(&other);
        other.options.segment_size = m->t.options.segment_size;
        t_dir_remove(other.dir);
        t_dir_copy(m->t.dir, other.dir);
        lose(other.dir, loss);
        other.options.read_only = loss == LOSE_ALL && below(m, 2);
        t_open(&other);
        expect_all(m, &other);
        t_close(&other);
        t_store_free(&other);
    }
    t_open(&m->t);
}

static void test_model(void **state)
{
    struct model *m = calloc(1, sizeof *m);
    (void)state;
    assert_non_null(m);
    m->chance = t_seed("compact sums");
    t_store_init(&m->t);
    m->t.options.segment_size = 16 * 1024;
    m->t.options.history_ms = 0;
    for (unsigned i = 0; i < SLOTS; i++)
        snprintf(m->slots[i].id, sizeof m->slots[i].id, "s%u", i);
    t_open(&m->t);
    unsigned steps = t_amount("STEPS", t_slow() ? 120 : 600);
    for (unsigned i = 0; i < steps || m->compacted <= 3 || m->dropped <= 3; i++) {
        assert_true(i < 100 * steps + 10000); /* chance has its bounds */
        step(m);
        expect_all(m, &m->t);
        if (i % 40 == 39)
            expect_by_every_way(m);
    }
    t_close(&m->t);
    t_store_free(&m->t);
    free(m);
}

/* ---- by hand ---- */

static void begin(struct t_store *t)
{
    t_store_init(t);
    t->options.history_ms = 0;
    t_open(t);
}

static struct hl_usage total(struct t_store *t, uint32_t session)
{
    struct hl_sums *sums;
    assert_int_equal(hl_sums(t->store, session, &sums), 0);
    struct hl_usage usage = sums->total;
    free(sums);
    return usage;
}

static void rebuild(struct t_store *t)
{
    t_close(t);
    lose(t->dir, LOSE_ALL);
    t_open(t);
}

static void compact_all(struct t_store *t)
{
    struct hl_compact what = {.everything = true};
    assert_int_equal(hl_rotate(t->store, &t->err), 0);
    assert_int_equal(hl_compact(t->store, &what, NULL, NULL, &t->err), 0);
    t_verify(t);
}

/* A call that is gone is remembered, for results that stand behind it in the file, and that come
 * later still. */
static void test_late_results(void **state)
{
    struct t_store t;
    (void)state;
    begin(&t);
    uint32_t s = t_session(&t, "s");
    t_append(&t, s,
             "{\"kind\":\"ToolCall\",\"tool\":\"t\",\"tool_call_id\":\"a\"}\n"
             "{\"kind\":\"ToolCall\",\"tool\":\"t\",\"tool_call_id\":\"b\"}\n"
             "{\"kind\":\"ToolResult\",\"tool\":\"t\",\"tool_call_id\":\"a\"}\n");
    assert_int_equal(hl_trim(t.store, s, 3, NULL, &t.err), 0);
    for (unsigned turn = 1; turn <= 3; turn++) {
        compact_all(&t);
        rebuild(&t);
        assert_int_equal(total(&t, s).calls, 2);
        t_append(&t, s, "{\"kind\":\"ToolResult\",\"tool\":\"t\",\"tool_call_id\":\"b\"}\n");
        assert_int_equal(total(&t, s).calls, 2);
        assert_int_equal(total(&t, s).events, 3 + turn);
        assert_int_equal(hl_trim(t.store, s, 3 + turn, NULL, &t.err), 0);
    }
    rebuild(&t);
    assert_int_equal(total(&t, s).events, 6);
    assert_int_equal(total(&t, 0).calls, 2);
    t_close(&t);
    t_store_free(&t);
}

/* More ids than a frame keeps: those that events have which are left count no more than once. */
static void test_many_ids(void **state)
{
    enum { MANY = SUMS_CALLS_KEPT + 1000 };
    struct t_store t;
    (void)state;
    begin(&t);
    uint32_t s = t_session(&t, "s");
    for (unsigned i = 0; i < 2 * MANY; i++)
        t_append_format(&t, s, "{\"kind\":\"ToolCall\",\"tool\":\"t\",\"tool_call_id\":\"%u\"}\n",
                        i % MANY);
    assert_int_equal(hl_trim(t.store, s, MANY + 1, NULL, &t.err), 0);
    compact_all(&t);
    rebuild(&t);
    assert_int_equal(total(&t, s).events, 2 * MANY);
    assert_int_equal(total(&t, s).calls, MANY);
    assert_int_equal(hl_trim(t.store, s, UINT64_MAX, NULL, &t.err), 0);
    compact_all(&t);
    rebuild(&t);
    assert_int_equal(total(&t, s).events, 2 * MANY);
    assert_int_equal(total(&t, s).calls, MANY);
    t_close(&t);
    t_store_free(&t);
}

/* A session that nothing is left of, and one that is deleted between two compactions. */
static void test_nothing_left(void **state)
{
    struct t_store t;
    struct hl_session about;
    (void)state;
    begin(&t);
    uint32_t s = t_session(&t, "s"), gone = t_session(&t, "gone");
    for (unsigned i = 0; i < 100; i++) {
        t_append(&t, s, "{\"kind\":\"Error\",\"tokens_in\":1}\n");
        t_append(&t, gone, "{\"kind\":\"Error\",\"tokens_in\":10}\n");
    }
    assert_int_equal(hl_trim(t.store, s, UINT64_MAX, NULL, &t.err), 0);
    assert_int_equal(hl_trim(t.store, gone, 50, NULL, &t.err), 0);
    compact_all(&t);
    rebuild(&t);
    assert_int_equal(total(&t, s).events, 100);
    assert_int_equal(total(&t, 0).tokens_in, 1100);
    assert_int_equal(hl_session_by_number(t.store, s, &about), 0);
    assert_int_equal(about.last_seq, 100);
    assert_int_equal(about.records, 0);
    assert_int_equal(hl_delete(t.store, gone, NULL, &t.err), 0);
    for (unsigned turn = 0; turn < 3; turn++) {
        assert_int_equal(total(&t, 0).tokens_in, 100);
        assert_int_equal(total(&t, 0).errors, 100);
        if (turn == 1)
            compact_all(&t);
        rebuild(&t);
    }
    t_close(&t);
    t_store_free(&t);
}

/* A session that was made in the compacted segment, under the id of one that lives where the replay
 * begins: what carries its sums must not stand before the delete of that one. */
static void test_one_id_twice(void **state)
{
    struct t_store t;
    struct hl_status status;
    struct hl_compacted compacted;
    struct hl_compact what = {.everything = true};
    (void)state;
    t_store_init(&t);
    t.options.history_ms = 0;
    t.options.segment_size = 16 * 1024;
    t_open(&t);
    uint32_t old = t_session(&t, "s"), other = t_session(&t, "other");
    for (unsigned i = 0; i < 100; i++) /* so many that the segment is not taken along */
        t_append_format(&t, other, "{\"kind\":\"Cost\",\"pad\":\"%100u\"}\n", i);
    t_append(&t, old, "{\"kind\":\"Error\"}\n");
    assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
    assert_int_equal(hl_rotate(t.store, &t.err), 0);
    assert_int_equal(hl_delete(t.store, old, NULL, &t.err), 0);
    uint32_t s = what.session = t_session(&t, "s");
    t_append(&t, s, "{\"kind\":\"Error\"}\n{\"kind\":\"Error\"}\n{\"kind\":\"Error\"}\n");
    assert_int_equal(hl_trim(t.store, s, 3, NULL, &t.err), 0);
    assert_int_equal(hl_rotate(t.store, &t.err), 0);
    assert_int_equal(hl_compact(t.store, &what, NULL, &compacted, &t.err), 0);
    assert_int_equal(compacted.segments_before, 1);
    t_crash(&t);
    lose(t.dir, LOSE_INDEX);
    t_open(&t);
    assert_int_equal(hl_store_status(t.store, &status), 0);
    assert_int_equal(status.recovered_records, 1);
    for (unsigned turn = 0; turn < 2; turn++) {
        assert_int_equal(total(&t, s).events, 3);
        assert_int_equal(total(&t, 0).events, 103);
        assert_int_equal(t.errors + t.warnings, 0);
        rebuild(&t);
    }
    t_close(&t);
    t_store_free(&t);
}

/* Two sessions that one batch makes: what carries the sums of the second stays out of the batch. */
static void test_made_in_a_batch(void **state)
{
    struct t_store t;
    struct hl_session about;
    (void)state;
    begin(&t);
    t_append(
        &t, 0,
        "{\"kind\":\"Error\",\"session_id\":\"a\"}\n{\"kind\":\"Error\",\"session_id\":\"b\"}\n"
        "{\"kind\":\"Error\",\"session_id\":\"a\"}\n{\"kind\":\"Error\",\"session_id\":\"b\"}\n");
    uint32_t a = t_number(&t, "a"), b = t_number(&t, "b");
    assert_int_equal(hl_trim(t.store, b, 2, NULL, &t.err), 0);
    compact_all(&t);
    for (unsigned turn = 0; turn < 2; turn++) {
        rebuild(&t);
        assert_int_equal(t.errors + t.warnings, 0);
        assert_int_equal(total(&t, a).events, 2);
        assert_int_equal(total(&t, b).events, 2);
        assert_int_equal(hl_session_by_number(t.store, a, &about), 0);
        assert_int_equal(about.records, turn == 0 ? 2 : 1);
        assert_int_equal(hl_session_by_number(t.store, b, &about), 0);
        assert_int_equal(about.records, 1);
        if (turn == 0) {
            assert_int_equal(hl_trim(t.store, a, 2, NULL, &t.err), 0);
            compact_all(&t);
        }
    }
    assert_int_equal(about.last_seq, 2);
    t_close(&t);
    t_store_free(&t);
}

/* Flips a bit of what the index says of a call: its value stands right behind its key. */
static void spoil_call(const struct t_store *t, uint32_t session, uint64_t hash)
{
    char path[T_PATH];
    struct {
        uint32_t session;
        uint64_t hash;
    } __attribute__((packed)) key = {htobe32(session), htobe64(hash)};
    size_t len;
    unsigned count = 0;
    t_path(path, t->dir, "index/data.mdb");
    char *content = t_file_read(path, &len), *at = content;
    while ((at = memmem(at, len - (size_t)(at - content), &key, sizeof key)) != NULL) {
        at += sizeof key;
        t_file_flip(path, (uint64_t)(at - content), 1);
        count++;
    }
    free(content);
    assert_true(count > 0);
}

/* What a damaged index says of calls is not taken for "no such call": nothing is dropped by it. */
static void test_damaged_call(void **state)
{
    static const char line[] = "{\"kind\":\"ToolCall\",\"tool\":\"t\",\"tool_call_id\":\"a\"}\n";
    struct hl_compact what = {.everything = true};
    struct sums_event event;
    struct t_store t;
    (void)state;
    begin(&t);
    uint32_t s = t_session(&t, "s");
    t_append(&t, s, line);
    t_append(&t, s, line);
    assert_int_equal(hl_trim(t.store, s, 2, NULL, &t.err), 0);
    assert_int_equal(hl_rotate(t.store, &t.err), 0);
    t_reopen(&t); /* the index is believed */
    assert_true(sums_event_read(line, strlen(line), &event));
    spoil_call(&t, s, event.call);
    assert_int_equal(hl_compact(t.store, &what, NULL, NULL, &t.err), -EBADMSG);
    assert_non_null(strstr(t.err.text, "the index is damaged"));
    assert_int_equal(t.errors, 1);
    assert_int_equal(t.warnings, 0); /* no segment is called damaged */
    t_reopen(&t);                    /* it is made anew */
    assert_int_equal(hl_compact(t.store, &what, NULL, NULL, &t.err), 0);
    rebuild(&t);
    assert_int_equal(total(&t, s).events, 2);
    assert_int_equal(total(&t, s).calls, 1);
    t_close(&t);
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_late_results),    cmocka_unit_test(test_many_ids),
        cmocka_unit_test(test_nothing_left),    cmocka_unit_test(test_one_id_twice),
        cmocka_unit_test(test_made_in_a_batch), cmocka_unit_test(test_damaged_call),
        cmocka_unit_test(test_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
