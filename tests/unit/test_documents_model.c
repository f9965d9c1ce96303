/*
 * test_documents_model.c - random operations on the documents of a session, with reopenings,
 * crashes and lost indexes between, held against a simple model in memory.
 *
 * STEPS says how many (3000), SEED which.
 */
#include "support.h"

#include <inttypes.h>

#define KEYS 9
#define ARCHIVES 2
#define STEPS_MOST 200000

/* Which value each key has (0: none), in state/ and in each archive. */
struct state {
    uint32_t value[KEYS];
    uint32_t archived[ARCHIVES][KEYS];
    bool archive[ARCHIVES];
};

struct done {
    uint64_t seq;
    struct state before;
    unsigned touched; /* keys of state/, a bit each */
    int made;         /* the archive that it made, or -1 */
};

struct model {
    struct t_store t;
    uint32_t session;
    uint64_t chance;
    uint32_t values; /* given so far */
    struct state now;
    struct state *after;  /* by seq */
    unsigned *touched_at; /* by seq */
    uint64_t last_seq, operations;
    struct done *stack;
    size_t depth;
    char *text; /* of the batch */
    size_t used;
};

static const char *const keys[KEYS] = {"a", "b",     "key three", "k/4", "5%",
                                       "ü", "seven", "8.json",    "x"};
static const char *const archives[ARCHIVES] = {"2026-Q1", "old"};

static uint64_t below(struct model *m, uint64_t limit)
{
    return t_below(&m->chance, limit);
}

static void put(struct model *m, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(struct model *m, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    m->used += (size_t)vsprintf(m->text + m->used, format, arguments);
    va_end(arguments);
}

/* The value's text: some are short, some long, one kind of each JSON type. */
static int value_text(uint32_t value, char *text)
{
    if (value % 7 == 0)
        return sprintf(text, "{\"v\":%" PRIu32 ",\"pad\":\"%0*d\"}", value, (int)(value % 400) + 1,
                       0);
    if (value % 7 == 1)
        return sprintf(text, "\"s\\\"%" PRIu32 "\"", value);
    return sprintf(text, value % 7 == 2 ? "[%" PRIu32 ", null]" : "%" PRIu32, value);
}

static void begin_operation(struct model *m, struct done *done)
{
    *done = (struct done){.seq = m->last_seq + 1, .before = m->now, .made = -1};
}

static void end_operation(struct model *m, const struct done *done, bool undoable)
{
    m->last_seq++;
    m->operations++;
    m->after[m->last_seq] = m->now;
    m->touched_at[m->last_seq] = done->touched;
    if (undoable)
        m->stack[m->depth++] = *done;
}

static void do_set(struct model *m)
{
    struct done done;
    char text[600];
    int key = (int)below(m, KEYS);
    begin_operation(m, &done);
    m->now.value[key] = ++m->values;
    done.touched = 1U << key;
    value_text(m->values, text);
    bool other = below(m, 4) == 0;
    put(m,
        other ? "{\"op\":\"SET\",\"id\":\"%s\",\"data\": %s ,\"clock\":3}\n"
              : "{\"op\":\"set\",\"key\":\"%s\",\"value\":%s}\n",
        keys[key], text);
    end_operation(m, &done, true);
}

static void do_delete(struct model *m)
{
    struct done done;
    int key = (int)below(m, KEYS);
    begin_operation(m, &done);
    m->now.value[key] = 0;
    done.touched = 1U << key;
    put(m, "{\"op\":\"delete\",\"key\":\"%s\"}\n", keys[key]);
    end_operation(m, &done, true);
}

static void do_checkpoint(struct model *m)
{
    struct done done;
    char text[600];
    const char *comma = "";
    begin_operation(m, &done);
    put(m, "{\"op\":\"checkpoint\",\"state\":{");
    for (int key = 0; key < KEYS; key++) {
        done.touched |= (unsigned)(m->now.value[key] != 0) << key;
        m->now.value[key] = 0;
        if (below(m, 3) == 0)
            continue;
        m->now.value[key] = ++m->values;
        done.touched |= 1U << key;
        value_text(m->values, text);
        put(m, "%s\"%s\":%s", comma, keys[key], text);
        comma = ",";
    }
    put(m, "}}\n");
    end_operation(m, &done, true);
}

static void do_move(struct model *m, bool out)
{
    struct done done;
    int archive = (int)below(m, ARCHIVES), key = (int)below(m, KEYS), as = (int)below(m, KEYS);
    uint32_t *from = out ? m->now.value : m->now.archived[archive];
    uint32_t *to = out ? m->now.archived[archive] : m->now.value;
    if (from[key] == 0 || (!out && !m->now.archive[archive]))
        return;
    begin_operation(m, &done);
    if (!m->now.archive[archive])
        done.made = archive;
    m->now.archive[archive] = true;
    if (below(m, 2)) {
        as = key;
        put(m, "{\"op\":\"%s\",\"name\":\"%s\",\"keys\":[\"%s\"]}\n", out ? "archive" : "restore",
            archives[archive], keys[key]);
    } else {
        put(m, "{\"op\":\"%s\",\"name\":\"%s\",\"keys\":[\"%s\"],\"as\":[\"%s\"]}\n",
            out ? "archive" : "restore", archives[archive], keys[key], keys[as]);
    }
    to[as] = from[key];
    from[key] = 0;
    done.touched = 1U << (out ? key : as);
    end_operation(m, &done, true);
}

/* mkdir and rmdir of an archive: not to be undone. */
static void do_archive(struct model *m)
{
    struct done done;
    int archive = (int)below(m, ARCHIVES);
    bool empty = true;
    for (int key = 0; key < KEYS; key++)
        empty = empty && m->now.archived[archive][key] == 0;
    begin_operation(m, &done);
    if (m->now.archive[archive]) {
        if (!empty)
            return;
        put(m, "{\"op\":\"restore\",\"name\":\"%s\",\"keys\":[]}\n", archives[archive]);
    } else {
        put(m, "{\"op\":\"archive\",\"name\":\"%s\",\"keys\":[]}\n", archives[archive]);
    }
    m->now.archive[archive] = !m->now.archive[archive];
    end_operation(m, &done, false);
}

/* What the model knows of taking back the newest operation. */
static void take_back(struct model *m)
{
    struct done undone = m->stack[--m->depth], done;
    begin_operation(m, &done);
    memcpy(m->now.value, undone.before.value, sizeof m->now.value);
    memcpy(m->now.archived, undone.before.archived, sizeof m->now.archived);
    if (undone.made >= 0)
        m->now.archive[undone.made] = false;
    for (int archive = 0; archive < ARCHIVES; archive++)
        for (int key = 0; key < KEYS; key++)
            if (m->now.archived[archive][key] != 0)
                m->now.archive[archive] = true;
    done.touched = undone.touched;
    end_operation(m, &done, false);
}

static void do_event(struct model *m)
{
    put(m, "{\"kind\":\"Hook\",\"payload\":%u}\n", (unsigned)below(m, 1000));
    m->last_seq++;
    m->after[m->last_seq] = m->now;
    m->touched_at[m->last_seq] = 0;
}

static void do_batch(struct model *m)
{
    m->used = 0;
    for (uint64_t n = below(m, 4) ? 1 : 1 + below(m, 20); n > 0; n--) {
        uint64_t kind = below(m, 20);
        if (kind < 8)
            do_set(m);
        else if (kind < 11)
            do_delete(m);
        else if (kind == 11)
            do_checkpoint(m);
        else if (kind < 15)
            do_move(m, below(m, 2));
        else if (kind == 15)
            do_archive(m);
        else if (kind < 18)
            do_event(m);
        else if (m->depth > 0) {
            put(m, "{\"op\":\"undo\",\"undone_seq\":%" PRIu64 "}\n", m->stack[m->depth - 1].seq);
            take_back(m);
        }
    }
    if (m->used > 0 && t_try_append(&m->t, m->session, m->text, m->used) != 0)
        fail_msg("%s: %s", m->t.err.text, m->text);
}

static void take_receipt(void *context, const struct hl_receipt *receipt)
{
    *(struct hl_receipt *)context = *receipt;
}

static void do_undo(struct model *m)
{
    uint64_t count = 1 + below(m, 3);
    struct hl_receipt receipt;
    struct hl_error err;
    int error = hl_undo(m->t.store, m->session, count, take_receipt, &receipt, &err);
    if (count > m->depth) {
        assert_int_equal(error, -EINVAL);
        assert_true(strlen(err.text) > 0);
        return;
    }
    if (error != 0)
        fail_msg("undo: %s", err.text);
    assert_int_equal(receipt.records, count);
    assert_int_equal(receipt.first, m->last_seq + 1);
    while (count-- > 0)
        take_back(m);
}

/* What is refused changes nothing: a good operation with a bad one behind it. */
static void do_refused(struct model *m)
{
    static const char *const bad[] = {
        "{\"op\":\"archive\",\"name\":\"old\",\"keys\":[\"nothing has this key\"]}\n",
        "{\"op\":\"restore\",\"name\":\"no such archive\",\"keys\":[\"a\"]}\n",
        "{\"op\":\"undo\",\"undone_seq\":9007199254740991}\n",
        "{\"op\":\"set\",\"key\":\"\",\"value\":1}\n",
        "{\"op\":\"checkpoint\",\"state\":[1]}\n",
    };
    m->used = 0;
    put(m, "{\"op\":\"set\",\"key\":\"%s\",\"value\":\"never\"}\n", keys[below(m, KEYS)]);
    put(m, "{\"op\":\"set\",\"key\":\"new%u\",\"value\":\"never\"}\n", (unsigned)below(m, 1000000));
    put(m, "%s", bad[below(m, 5)]);
    assert_true(t_try_append(&m->t, m->session, m->text, m->used) < 0);
}

/* ---- checking ---- */

struct seen {
    struct model *m;
    uint64_t at; /* UINT64_MAX: now */
    const uint32_t *expected;
    uint64_t area, last;
    size_t count;
};

static int key_number(const struct hl_document *document)
{
    for (int key = 0; key < KEYS; key++)
        if (strlen(keys[key]) == document->key_len &&
            memcmp(keys[key], document->key, document->key_len) == 0)
            return key;
    return -1;
}

#define LISTED 32
struct listed {
    struct hl_document documents[LISTED];
    size_t count;
};

static bool take(void *context, const struct hl_document *document)
{
    struct listed *listed = context;
    assert_true(listed->count < LISTED);
    listed->documents[listed->count++] = *document;
    return true;
}

static void check_listed(struct model *m, const struct listed *listed, const uint32_t *expected)
{
    size_t count = 0;
    for (size_t i = 0; i < listed->count; i++) {
        const struct hl_document *document = &listed->documents[i];
        char text[600], read[700];
        int key = key_number(document);
        assert_true(key >= 0);
        assert_true(expected[key] != 0);
        assert_true(i == 0 || document->number > document[-1].number);
        int len = value_text(expected[key], text);
        text[len++] = '\n';
        assert_int_equal(hl_document_read(m->t.store, m->session, document, read, sizeof read, 0),
                         len);
        assert_memory_equal(read, text, (size_t)len);
        assert_int_equal(document->length + 1, len);
        size_t from = below(m, (uint64_t)len);
        assert_int_equal(hl_document_read(m->t.store, m->session, document, read, 3, from),
                         len - (int)from < 3 ? len - (int)from : 3);
        assert_memory_equal(read, text + from, (size_t)len - from < 3 ? (size_t)len - from : 3);
    }
    for (int key = 0; key < KEYS; key++)
        count += expected[key] != 0;
    assert_int_equal(listed->count, count);
}

static void check_area(struct model *m, uint64_t area, const uint32_t *expected)
{
    struct listed listed = {.count = 0};
    struct hl_document document;
    assert_int_equal(hl_document_list(m->t.store, m->session, area, 0, take, &listed), 0);
    check_listed(m, &listed, expected);
    for (int key = 0; key < KEYS; key++) {
        int error =
            hl_document_find(m->t.store, m->session, area, keys[key], strlen(keys[key]), &document);
        assert_int_equal(error, expected[key] ? 0 : -ENOENT);
        if (error == 0) {
            struct hl_document again;
            assert_int_equal(hl_document_by_number(m->t.store, m->session, document.number, &again),
                             0);
            assert_memory_equal(&again, &document, offsetof(struct hl_document, key));
            assert_string_equal(again.key, keys[key]);
        }
    }
}

static void check_archives(struct model *m)
{
    struct listed listed = {.count = 0};
    size_t count = 0;
    assert_int_equal(hl_document_list(m->t.store, m->session, HL_AREA_ARCHIVES, 0, take, &listed),
                     0);
    for (int archive = 0; archive < ARCHIVES; archive++) {
        struct hl_document document;
        const char *name = archives[archive];
        int error = hl_document_find(m->t.store, m->session, HL_AREA_ARCHIVES, name, strlen(name),
                                     &document);
        assert_int_equal(error, m->now.archive[archive] ? 0 : -ENOENT);
        count += m->now.archive[archive];
        if (error == 0)
            check_area(m, document.number, m->now.archived[archive]);
    }
    assert_int_equal(listed.count, count);
}

static void check_at(struct model *m, uint64_t seq)
{
    struct listed listed = {.count = 0};
    assert_int_equal(hl_document_list_at(m->t.store, m->session, seq, 0, take, &listed), 0);
    check_listed(m, &listed, m->after[seq].value);
    for (int key = 0; key < KEYS; key++) {
        struct hl_document document;
        assert_int_equal(hl_document_find_at(m->t.store, m->session, seq, keys[key],
                                             strlen(keys[key]), &document),
                         m->after[seq].value[key] ? 0 : -ENOENT);
    }
}

/* The history of a key is the lines of the records that touched it. */
static void check_history(struct model *m, int key)
{
    uint64_t number, size, ms;
    size_t len = strlen(keys[key]), filled = 0;
    int error = hl_history_find(m->t.store, m->session, keys[key], len, &number, &size, &ms);
    char *history = malloc(error == 0 ? size + 1 : 1), *line = malloc(20000);
    struct hl_cursor cursor = {0};
    while (error == 0 && filled < size) {
        size_t piece = 1 + below(m, 3000);
        ssize_t n = hl_history_read(m->t.store, m->session, number, filled, history + filled,
                                    piece < size + 1 - filled ? piece : size + 1 - filled,
                                    below(m, 2) ? &cursor : NULL);
        assert_true(n > 0);
        filled += (size_t)n;
    }
    size_t at = 0;
    bool any = false;
    for (uint64_t seq = 1; seq <= m->last_seq; seq++) {
        if (!(m->touched_at[seq] & 1U << key))
            continue;
        any = true;
        ssize_t n = hl_record_read(m->t.store, m->session, seq, line, 20000, 0);
        assert_true(n > 0 && at + (size_t)n <= filled);
        assert_memory_equal(history + at, line, (size_t)n);
        at += (size_t)n;
    }
    assert_int_equal(error, any ? 0 : -ENOENT);
    if (any) {
        assert_int_equal(at, size);
        assert_int_equal(hl_history_read(m->t.store, m->session, number, size, line, 10, NULL), 0);
    }
    free(history);
    free(line);
}

static void check(struct model *m)
{
    struct hl_session session;
    uint64_t documents = 0;
    check_area(m, HL_AREA_STATE, m->now.value);
    check_archives(m);
    if (m->last_seq == 0)
        return;
    check_at(m, 1 + below(m, m->last_seq));
    check_at(m, m->last_seq);
    check_history(m, (int)below(m, KEYS));
    for (int key = 0; key < KEYS; key++)
        documents += m->now.value[key] != 0;
    assert_int_equal(hl_session_by_number(m->t.store, m->session, &session), 0);
    assert_int_equal(session.documents, documents);
    assert_int_equal(session.operations, m->operations);
    assert_int_equal(session.last_seq, m->last_seq);
    struct hl_document document;
    assert_int_equal(
        hl_document_find_at(m->t.store, m->session, m->last_seq + 1, "a", 1, &document), -ENOENT);
}

static void lose_index(struct model *m)
{
    char path[T_PATH];
    t_close(&m->t);
    t_path(path, m->t.dir, "index");
    t_dir_remove(path);
    t_path(path, m->t.dir, "checkpoints");
    if (below(m, 2))
        t_dir_remove(path);
    t_open(&m->t);
}

static void random_steps(void **unused)
{
    (void)unused;
    struct model model = {.session = 0}, *m = &model;
    unsigned steps = t_amount("STEPS", t_slow() ? 800 : 3000);
    assert_true(steps <= STEPS_MOST);
    m->chance = t_seed("documents model");
    m->text = malloc(1U << 20);
    m->after = calloc((size_t)steps * 20 + 64, sizeof *m->after);
    m->touched_at = calloc((size_t)steps * 20 + 64, sizeof *m->touched_at);
    m->stack = calloc((size_t)steps * 20 + 64, sizeof *m->stack);
    t_store_init(&m->t);
    t_open(&m->t);
    m->session = t_session(&m->t, "documents");
    for (unsigned step = 0; step < steps; step++) {
        uint64_t kind = below(m, 200);
        struct hl_error err;
        if (kind < 160)
            do_batch(m);
        else if (kind < 175)
            do_undo(m);
        else if (kind < 185)
            do_refused(m);
        else if (kind < 190)
            t_reopen(&m->t);
        else if (kind < 195)
            t_crash(&m->t), t_open(&m->t);
        else if (kind == 195)
            lose_index(m);
        else if (kind == 196)
            assert_int_equal(hl_reindex(m->t.store, NULL, &err), 0);
        else if (kind == 197)
            assert_int_equal(hl_checkpoint(m->t.store, NULL, &err), 0);
        else if (kind == 198)
            assert_int_equal(hl_rotate(m->t.store, &err), 0);
        if (step % 8 == 0 || kind >= 160)
            check(m);
    }
    t_reopen(&m->t);
    check(m);
    lose_index(m);
    for (uint64_t seq = 1; seq <= m->last_seq; seq += 1 + below(m, 9))
        check_at(m, seq);
    for (int key = 0; key < KEYS; key++)
        check_history(m, key);
    t_store_free(&m->t);
    free(m->text);
    free(m->after);
    free(m->touched_at);
    free(m->stack);
}

/* So many that they come back by the scan that runs ahead in a thread, and by several flushes. */
static bool count_document(void *context, const struct hl_document *document)
{
    uint64_t *count = context;
    (void)document;
    ++*count;
    return true;
}

static void check_many(struct t_store *t, uint32_t session, unsigned many)
{
    uint64_t count = 0;
    struct hl_document document;
    assert_int_equal(hl_document_list(t->store, session, HL_AREA_STATE, 0, count_document, &count),
                     0);
    assert_int_equal(count, many);
    for (unsigned i = 0; i < many; i += 97) {
        char key[32], value[64], read[64];
        int key_len = snprintf(key, sizeof key, "player-%u", i);
        int len = snprintf(value, sizeof value, "{\"score\":%u}\n", i * 3);
        assert_int_equal(
            hl_document_find(t->store, session, HL_AREA_STATE, key, (size_t)key_len, &document), 0);
        assert_int_equal(hl_document_read(t->store, session, &document, read, sizeof read, 0), len);
        assert_memory_equal(read, value, (size_t)len);
    }
}

static void many_documents(void **unused)
{
    (void)unused;
    struct t_store t;
    unsigned many = t_amount("DOCUMENTS", t_slow() ? 60000 : 120000);
    char *text = malloc(1 << 20), path[T_PATH];
    t_store_init(&t);
    t.options.segment_size = UINT64_C(64) << 20;
    t_open(&t);
    uint32_t session = t_session(&t, "many");
    for (unsigned i = 0; i < many;) {
        size_t used = 0;
        for (; i < many && used < (1 << 20) - 200; i++)
            used +=
                (size_t)sprintf(text + used,
                                "{\"op\":\"set\",\"key\":\"player-%u\",\"value\":{\"score\":%u}}"
                                "\n",
                                i, i * 3);
        assert_int_equal(t_try_append(&t, session, text, used), 0);
    }
    check_many(&t, session, many);
    t_crash(&t);
    t_open(&t);
    check_many(&t, session, many);
    t_close(&t);
    t_path(path, t.dir, "index");
    t_dir_remove(path);
    t_path(path, t.dir, "checkpoints");
    t_dir_remove(path);
    t_open(&t);
    check_many(&t, session, many);
    t_store_free(&t);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_documents),
        cmocka_unit_test(random_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
