/* test_compact_history.c - operations and compaction: what goes when it is old and not needed, and
 * that nothing comes back. */
#include "support.h"

#include <inttypes.h>
#include <stdatomic.h>

#define DAY_MS (UINT64_C(24) * 3600 * 1000)

static _Atomic uint64_t the_time = UINT64_C(1700000000000);

static uint64_t now(void *context)
{
    (void)context;
    return atomic_fetch_add(&the_time, 1);
}

static void begin(struct t_store *t)
{
    t_store_init(t);
    t->options.clock = now;
    t->options.compact_interval_ms = 0;
    t->options.history_ms = DAY_MS;
    t->options.compact_threshold = 0;
    t->options.backups = 1;
    t_open(t);
}

static void end(struct t_store *t)
{
    t_close(t);
    t_store_free(t);
}

/* Days go by; the scheduler's clocks do not mind between two openings. */
static void later(struct t_store *t)
{
    t_close(t);
    atomic_fetch_add(&the_time, 2 * DAY_MS);
    t_open(t);
}

static struct hl_compacted compact(struct t_store *t, bool everything)
{
    struct hl_compact what = {.everything = everything};
    struct hl_compacted result;
    if (hl_compact(t->store, &what, NULL, &result, &t->err) < 0)
        fail_msg("compact: %s", t->err.text);
    return result;
}

static void lose_index(struct t_store *t)
{
    t_close(t);
    t_lose_index(t);
    t_open(t);
}

/* The value of a key, or NULL. */
static char *value_of(struct t_store *t, uint32_t session, const char *key)
{
    static char text[256];
    struct hl_document document;
    if (hl_document_find(t->store, session, HL_AREA_STATE, key, strlen(key), &document) == -ENOENT)
        return NULL;
    ssize_t n = hl_document_read(t->store, session, &document, text, sizeof text - 1, 0);
    assert_true(n > 0);
    text[n - 1] = 0;
    return text;
}

static void is(struct t_store *t, uint32_t session, const char *key, const char *value)
{
    const char *found = value_of(t, session, key);
    if (!value != !found || (value && strcmp(value, found) != 0))
        fail_msg("%s is %s, and should be %s", key, found ? found : "absent",
                 value ? value : "absent");
}

static void set(struct t_store *t, uint32_t session, const char *key, const char *value)
{
    t_append_format(t, session, "{\"op\":\"set\",\"key\":\"%s\",\"value\":%s}\n", key, value);
}

static void delete (struct t_store *t, uint32_t session, const char *key)
{
    t_append_format(t, session, "{\"op\":\"delete\",\"key\":\"%s\"}\n", key);
}

static void undo(struct t_store *t, uint32_t session)
{
    if (hl_undo(t->store, session, 1, NULL, NULL, &t->err) < 0)
        fail_msg("undo: %s", t->err.text);
}

static void rotate(struct t_store *t)
{
    assert_int_equal(hl_rotate(t->store, &t->err), 0);
}

static bool has_record(struct t_store *t, uint32_t session, uint64_t seq)
{
    struct hl_record record;
    return hl_record_find(t->store, session, seq, &record) == 0;
}

static void check_index(struct t_store *t)
{
    t_verify(t);
    t_crash(t); /* the next opening examines the index */
    t_open(t);
    assert_int_equal(t->warnings + t->errors, 0);
}

static void superseded_ones_go_when_they_are_old(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_session about;
    char path[32];
    begin(&t);
    uint32_t s = t_session(&t, "s");
    t_append(&t, s, "an event\n"); /* 1 */
    for (unsigned i = 0; i < 10; i++) {
        snprintf(path, sizeof path, "%u", i);
        set(&t, s, "k", path); /* 2 to 11 */
    }
    assert_int_equal(compact(&t, true).records_dropped, 0); /* they are young */
    assert_true(has_record(&t, s, 5));
    later(&t);
    t_append(&t, s, "another\n"); /* 12 */
    assert_int_equal(compact(&t, true).records_dropped, 9);
    is(&t, s, "k", "9");
    assert_true(has_record(&t, s, 1) && has_record(&t, s, 11) && has_record(&t, s, 12));
    assert_false(has_record(&t, s, 10));
    assert_int_equal(hl_session_by_number(t.store, s, &about), 0);
    assert_int_equal(about.history_from, 12);
    assert_int_equal(about.records, 3);
    assert_int_equal(about.operations, 1);
    assert_int_equal(hl_undo(t.store, s, 1, NULL, NULL, &t.err), -EINVAL);
    assert_non_null(strstr(t.err.text, "begins at 12"));
    struct hl_document document;
    assert_int_equal(hl_document_find_at(t.store, s, 11, "k", 1, &document), -ENOENT);
    assert_int_equal(hl_document_find_at(t.store, s, 12, "k", 1, &document), 0);
    uint64_t number, size, changed;
    char line[256];
    assert_int_equal(hl_history_find(t.store, s, "k", 1, &number, &size, &changed), 0);
    ssize_t n = hl_history_read(t.store, s, number, 0, line, sizeof line, NULL);
    assert_int_equal(n, size);
    check_index(&t);
    set(&t, s, "k", "\"new\"");
    undo(&t, s);
    is(&t, s, "k", "9");
    check_index(&t);
    lose_index(&t);
    is(&t, s, "k", "9");
    assert_int_equal(hl_session_by_number(t.store, s, &about), 0);
    assert_int_equal(about.history_from, 12);
    assert_int_equal(hl_undo(t.store, s, 2, NULL, NULL, &t.err), -EINVAL);
    end(&t);
}

static void fill(struct t_store *t, uint32_t session, unsigned lines)
{
    for (unsigned i = 0; i < lines; i++)
        t_append(t, session, "an event that stays where it is, and takes some room there\n");
}

/* Many sets of a key, of which the last counts. */
static void churn(struct t_store *t, uint32_t session, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        set(t, session, "churn", "\"again and again\"");
}

/* The segment with the delete is rewritten, the one with the set is not, as often as it takes for
 * backups to go. */
static void a_deleted_key_stays_deleted(void **state)
{
    (void)state;
    struct t_store t;
    begin(&t);
    uint32_t s = t_session(&t, "s");
    set(&t, s, "k", "1");
    fill(&t, s, 300);
    rotate(&t);
    churn(&t, s, 100);
    delete (&t, s, "k");
    churn(&t, s, 100);
    rotate(&t);
    for (unsigned i = 0; i < 4; i++) {
        later(&t);
        churn(&t, s, 100);
        rotate(&t);
        fill(&t, s, 1);
        compact(&t, false);
        is(&t, s, "k", NULL);
        assert_true(has_record(&t, s, 1)); /* it is in a segment that is not rewritten */
        lose_index(&t);
        is(&t, s, "k", NULL);
        check_index(&t);
    }
    later(&t);
    compact(&t, true);
    assert_false(has_record(&t, s, 1));
    is(&t, s, "k", NULL);
    lose_index(&t);
    is(&t, s, "k", NULL);
    end(&t);
}

static void an_undone_set_stays_undone(void **state)
{
    (void)state;
    struct t_store t;
    begin(&t);
    uint32_t s = t_session(&t, "s");
    set(&t, s, "k", "1");
    set(&t, s, "k", "2");
    fill(&t, s, 300);
    rotate(&t);
    undo(&t, s);
    undo(&t, s);
    churn(&t, s, 200);
    rotate(&t);
    for (unsigned i = 0; i < 4; i++) {
        later(&t);
        churn(&t, s, 100);
        rotate(&t);
        fill(&t, s, 1);
        compact(&t, false);
        is(&t, s, "k", NULL);
        lose_index(&t);
        is(&t, s, "k", NULL);
        check_index(&t);
    }
    later(&t);
    compact(&t, true);
    is(&t, s, "k", NULL);
    lose_index(&t);
    is(&t, s, "k", NULL);
    end(&t);
}

/* Of two undos of a key the earlier one stays, in a segment that is not rewritten, when what it
 * brought back is gone: the later one hides it. */
static void an_undo_hides_an_earlier_one(void **state)
{
    (void)state;
    for (int left = 0; left < 2; left++) {
        struct t_store t;
        const char *value = left ? "1" : NULL;
        begin(&t);
        t.options.backups = 0;
        t_reopen(&t);
        uint32_t s = t_session(&t, "s");
        if (left)
            set(&t, s, "k", "1");
        set(&t, s, "k", "2");
        set(&t, s, "k", "3");
        rotate(&t);
        undo(&t, s);
        fill(&t, s, 300);
        rotate(&t);
        undo(&t, s);
        is(&t, s, "k", value);
        for (unsigned i = 0; i < 4; i++) {
            churn(&t, s, 100);
            rotate(&t);
            later(&t);
            fill(&t, s, 1);
            compact(&t, false);
            is(&t, s, "k", value);
        }
        assert_false(has_record(&t, s, 2 + (uint64_t)left));
        set(&t, s, "k", "4");
        undo(&t, s);
        is(&t, s, "k", value);
        check_index(&t);
        is(&t, s, "k", value);
        lose_index(&t);
        is(&t, s, "k", value);
        end(&t);
    }
}

/* All at random, with compactions, against what the documents are without. */
#define KEYS 6

struct model {
    char value[KEYS][16]; /* "": absent */
};

struct models {
    struct model at[4096]; /* by number of operations that count */
    unsigned depth;
};

static void check_model(struct t_store *t, uint32_t session, const struct model *model)
{
    for (unsigned i = 0; i < KEYS; i++) {
        char key[8];
        snprintf(key, sizeof key, "k%u", i);
        is(t, session, key, model->value[i][0] ? model->value[i] : NULL);
    }
}

static void random_step(struct t_store *t, uint32_t session, struct models *models,
                        uint64_t *chance)
{
    struct model next = models->at[models->depth];
    struct hl_session about;
    char key[8];
    unsigned k = (unsigned)t_below(chance, KEYS);
    snprintf(key, sizeof key, "k%u", k);
    switch (t_below(chance, 8)) {
    case 0:
    case 1:
    case 2:
        snprintf(next.value[k], sizeof next.value[k], "%" PRIu64, t_below(chance, 1000));
        set(t, session, key, next.value[k]);
        break;
    case 3:
        if (!next.value[k][0])
            return;
        next.value[k][0] = 0;
        delete (t, session, key);
        break;
    case 4:
        memset(&next, 0, sizeof next);
        snprintf(next.value[k], sizeof next.value[k], "%" PRIu64, t_below(chance, 1000));
        t_append_format(t, session, "{\"op\":\"checkpoint\",\"state\":{\"%s\":%s}}\n", key,
                        next.value[k]);
        break;
    case 5:
    case 6:
        assert_int_equal(hl_session_by_number(t->store, session, &about), 0);
        if (models->depth > 0 && hl_undo(t->store, session, 1, NULL, NULL, &t->err) == 0)
            models->depth--;
        return;
    default:
        fill(t, session, 1 + (unsigned)t_below(chance, 20));
        return;
    }
    models->at[++models->depth] = next;
}

static void whatever_is_dropped_documents_are_the_same(void **state)
{
    (void)state;
    uint64_t chance = t_seed("compact_history");
    unsigned rounds = t_amount("ROUNDS", t_slow() ? 4 : 12);
    uint64_t dropped = 0;
    for (unsigned round = 0; round < rounds || dropped <= rounds; round++) {
        assert_true(round < 50 * rounds + 50); /* until enough was dropped: chance has its bounds */
        struct t_store t;
        struct models *models = calloc(1, sizeof *models);
        assert_non_null(models);
        begin(&t);
        t.options.backups = t_below(&chance, 3);
        t.options.history_ms = t_below(&chance, 2) ? 40 : 0;
        uint32_t s = t_session(&t, "s");
        t_reopen(&t);
        for (unsigned step = 0; step < 150; step++) {
            random_step(&t, s, models, &chance);
            if (t_below(&chance, 6) == 0)
                rotate(&t);
            if (t_below(&chance, 10) == 0) {
                dropped += compact(&t, t_below(&chance, 2)).records_dropped;
                check_model(&t, s, &models->at[models->depth]);
            }
            if (t_below(&chance, 25) == 0) {
                lose_index(&t);
                check_model(&t, s, &models->at[models->depth]);
            }
            if (t_below(&chance, 25) == 0)
                check_index(&t);
        }
        check_model(&t, s, &models->at[models->depth]);
        lose_index(&t);
        check_model(&t, s, &models->at[models->depth]);
        end(&t);
        free(models);
    }
}

/* Who has a document open knows it by its number. After operations were dropped, first uses of keys
 * come in another order, and numbers in another one when the index was built anew beneath. */
static void test_numbers_stay_over_a_reindex(void **state)
{
    (void)state;
    static const char *const keys[] = {"a", "b", "c", "d"};
    struct t_store t;
    struct hl_document document;
    uint64_t numbers[4];
    begin(&t);
    uint32_t s = t_session(&t, "s");
    for (int i = 0; i < 4; i++)
        set(&t, s, keys[i], "1");
    set(&t, s, "gone", "1");
    delete (&t, s, "gone");
    rotate(&t);
    set(&t, s, "a", "2");
    later(&t);
    t_append(&t, s, "an event\n");
    compact(&t, true);
    assert_false(has_record(&t, s, 1));
    for (int i = 0; i < 4; i++) {
        assert_int_equal(hl_document_find(t.store, s, HL_AREA_STATE, keys[i], 1, &document), 0);
        numbers[i] = document.number;
    }
    assert_int_equal(hl_reindex(t.store, NULL, &t.err), 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(hl_document_find(t.store, s, HL_AREA_STATE, keys[i], 1, &document), 0);
        assert_int_equal(document.number, numbers[i]);
    }
    set(&t, s, "new", "1");
    assert_int_equal(hl_document_find(t.store, s, HL_AREA_STATE, "new", 3, &document), 0);
    assert_true(document.number > numbers[0] + 4); /* not that of `gone` either */
    end(&t);
}

#define OPERATIONS 3000 /* so that a look at them takes longer than waking a thread */

/* Deletes the session that a compaction comes to next, while it has flush_lock for the first. */
struct racing {
    struct t_store *t;
    uint32_t sessions[2];
    pthread_mutex_t lock; /* guards the next two */
    pthread_cond_t wake;
    uint32_t next; /* 0: not known yet */
    int error;
};

static void note_first(void *context, const struct hl_news *news)
{
    struct racing *racing = context;
    if (news->session == 0 || news->deleted || news->dropped_records == 0)
        return;
    pthread_mutex_lock(&racing->lock);
    if (racing->next == 0)
        racing->next = racing->sessions[news->session == racing->sessions[0]];
    pthread_cond_signal(&racing->wake);
    pthread_mutex_unlock(&racing->lock);
}

static void *delete_next(void *context)
{
    struct racing *racing = context;
    struct hl_error err;
    pthread_mutex_lock(&racing->lock);
    while (racing->next == 0)
        pthread_cond_wait(&racing->wake, &racing->lock);
    pthread_mutex_unlock(&racing->lock);
    racing->error = hl_delete(racing->t->store, racing->next, NULL, &err);
    return NULL;
}

/* A session is deleted between two looks of the compaction at what it dropped of it. */
static void a_session_goes_meanwhile(void **state)
{
    (void)state;
    struct t_store t;
    struct racing racing = {.t = &t};
    pthread_t thread;
    begin(&t);
    t_close(&t);
    pthread_mutex_init(&racing.lock, NULL);
    pthread_cond_init(&racing.wake, NULL);
    t.options.news = note_first;
    t.options.news_context = &racing;
    t.options.segment_size = 16 << 20;
    t_open(&t);
    for (int i = 0; i < 2; i++) {
        racing.sessions[i] = t_session(&t, i ? "b" : "a");
        for (unsigned k = 0; k < OPERATIONS; k++)
            set(&t, racing.sessions[i], "key", k % 2 ? "1" : "2");
    }
    rotate(&t);
    later(&t);
    assert_int_equal(pthread_create(&thread, NULL, delete_next, &racing), 0);
    compact(&t, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(racing.error, 0);
    compact(&t, true);
    char log[T_PATH], **names;
    t_path(log, t.dir, "log");
    size_t count = t_names(log, ".0.seg", &names);
    assert_int_equal(count, 1); /* the others went to backup/ */
    t_names_free(names, count);
    pthread_cond_destroy(&racing.wake);
    pthread_mutex_destroy(&racing.lock);
    end(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(superseded_ones_go_when_they_are_old),
        cmocka_unit_test(a_deleted_key_stays_deleted),
        cmocka_unit_test(an_undone_set_stays_undone),
        cmocka_unit_test(an_undo_hides_an_earlier_one),
        cmocka_unit_test(whatever_is_dropped_documents_are_the_same),
        cmocka_unit_test(test_numbers_stay_over_a_reindex),
        cmocka_unit_test(a_session_goes_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
