/* test_retain.c - store/retain.c: rules, and the file that keeps them. */
#include "support.h"

#include <stdatomic.h>

static const struct hl_rule some = {.has_age = true, .age_ms = 1000, .has_count = true, .count = 0};
static const struct hl_rule none = {.has_age = false};

static void check_rule(struct t_store *t, uint32_t session, const struct hl_rule *wanted)
{
    struct hl_rule rule;
    assert_int_equal(hl_retain_get(t->store, session, &rule, &t->err), 0);
    assert_int_equal(rule.has_age, wanted->has_age);
    assert_int_equal(rule.has_count, wanted->has_count);
    assert_int_equal(rule.has_bytes, wanted->has_bytes);
    assert_true(rule.age_ms == wanted->age_ms && rule.count == wanted->count &&
                rule.bytes == wanted->bytes);
}

static void rules_are_kept(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_rule most = {.has_bytes = true, .bytes = UINT64_MAX};
    t_store_init(&t);
    t_open(&t);
    uint32_t a = t_session(&t, "a"), b = t_session(&t, "b\"/\\\n");
    check_rule(&t, 0, &none);
    assert_int_equal(hl_retain_set(t.store, 0, &some, &t.err), 0);
    assert_int_equal(hl_retain_set(t.store, b, &most, &t.err), 0);
    assert_int_equal(hl_retain_set(t.store, a, &some, &t.err), 0);
    assert_int_equal(hl_retain_set(t.store, a, &none, &t.err), 0);
    assert_int_equal(hl_retain_set(t.store, 77, &some, &t.err), -ENOENT);
    t_reopen(&t);
    check_rule(&t, 0, &some);
    check_rule(&t, a, &none);
    check_rule(&t, b, &most);
    assert_int_equal(hl_delete(t.store, b, NULL, &t.err), 0);
    check_rule(&t, t_session(&t, "b\"/\\\n"), &none); /* another one */
    assert_int_equal(t.errors, 0);
    t_close(&t);
    t_store_free(&t);
}

/* A rule is on the disk when the call returns: its file, and the name. */
static void rules_are_synced(void **state)
{
    (void)state;
    struct t_store t;
    t_store_init(&t);
    t_store_watch(&t);
    t_open(&t);
    uint32_t a = t_session(&t, "a");
    uint64_t before = t_io_count(&t.io, T_FSYNC);
    assert_int_equal(hl_retain_set(t.store, a, &some, &t.err), 0);
    assert_int_equal(t_io_count(&t.io, T_FSYNC), before + 2);
    t_io_fail(&t.io, 1U << T_FSYNC, NULL, 2, 1, -EIO);
    assert_int_equal(hl_retain_set(t.store, a, &none, &t.err), -EIO);
    t_io_heal(&t.io);
    t_close(&t);
    t_store_free(&t);
}

static void what_is_damaged_drops_nothing(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "{\"all\":{\"age_ms\":5},\"sessions\":{",
        "{\"all\":{\"age\":5},\"sessions\":{}}",
        "{\"all\":{\"age_ms\":-5},\"sessions\":{}}",
        "{\"all\":{\"age_ms\":5},\"sessions\":{\"\":{\"count\":1}}}",
        "{\"all\":{\"age_ms\":5},\"sessions\":[]}",
        "{\"all\":{\"age_ms\":5},\"other\":{}}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct t_store t;
        char path[T_PATH];
        t_store_init(&t);
        t_open(&t);
        assert_int_equal(hl_retain_set(t.store, 0, &some, &t.err), 0);
        t_close(&t);
        t_path(path, t.dir, "retain");
        t_file_write(path, texts[i], strlen(texts[i]));
        t_open(&t);
        check_rule(&t, 0, &none);
        assert_int_equal(t.errors, 1);
        t_close(&t);
        t_store_free(&t);
    }
}

/* A rule that could not be stored is not in force. */
static void every_call_fails_once(void **state)
{
    (void)state;
    bool failed = true;
    struct t_store t;
    t_store_init(&t);
    t_store_watch(&t);
    t_open(&t);
    uint32_t a = t_session(&t, "a");
    for (uint64_t call = 1; failed; call++) {
        t_io_fail(&t.io, ((1U << T_CALLS) - 1) & ~(1U << T_CLOSE), "retain", call, 1, -ENOSPC);
        int error = hl_retain_set(t.store, a, &some, &t.err);
        failed = t_io_failed(&t.io) > 0;
        t_io_heal(&t.io);
        assert_int_equal(error, failed ? -ENOSPC : 0);
        check_rule(&t, a, failed ? &none : &some);
    }
    t_close(&t);
    t_store_free(&t);
}

static _Atomic uint64_t the_time;

static uint64_t now(void *context)
{
    (void)context;
    return atomic_load(&the_time);
}

static void check_first(struct t_store *t, uint32_t session, uint64_t first, uint64_t records)
{
    struct hl_session about;
    assert_int_equal(hl_session_by_number(t->store, session, &about), 0);
    assert_int_equal(about.records, records);
    assert_int_equal(about.first_seq, first);
}

static uint64_t run(struct t_store *t)
{
    struct hl_dropped dropped;
    assert_int_equal(hl_retain_run(t->store, NULL, &dropped, &t->err), 0);
    return dropped.records;
}

static void rules_drop_the_oldest_events(void **state)
{
    (void)state;
    struct t_store t;
    atomic_store(&the_time, UINT64_C(1700000000000));
    t_store_init(&t);
    t.options.clock = now;
    t.options.compact_interval_ms = 0;
    t_open(&t);
    uint32_t a = t_session(&t, "a"), b = t_session(&t, "b"), c = t_session(&t, "c");
    for (unsigned i = 0; i < 10; i++) {
        t_append(&t, a, "a line\n");
        t_append(&t, b, "a line\n");
        t_append(&t, c, "{\"op\":\"set\",\"key\":\"k\",\"value\":1}\n");
        atomic_fetch_add(&the_time, 60 * 1000);
        if (i == 5)
            assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
    }
    assert_int_equal(run(&t), 0); /* nobody set a rule */
    struct hl_rule rule = {.has_count = true, .count = 7};
    assert_int_equal(hl_retain_set(t.store, a, &rule, &t.err), 0);
    assert_int_equal(run(&t), 3);
    check_first(&t, a, 4, 7);
    check_first(&t, b, 1, 10);
    rule = (struct hl_rule){.has_age = true, .age_ms = 5 * 60 * 1000};
    assert_int_equal(hl_retain_set(t.store, 0, &rule, &t.err), 0);
    assert_int_equal(run(&t), 5); /* a has a rule of its own, c has no events */
    check_first(&t, a, 4, 7);
    check_first(&t, b, 6, 5);
    check_first(&t, c, 1, 10);
    struct hl_session about;
    assert_int_equal(hl_session_by_number(t.store, b, &about), 0);
    rule = (struct hl_rule){.has_bytes = true, .bytes = about.bytes - 1};
    assert_int_equal(hl_retain_set(t.store, b, &rule, &t.err), 0);
    assert_int_equal(run(&t), 1);
    check_first(&t, b, 7, 4);
    assert_int_equal(run(&t), 0);
    rule = (struct hl_rule){.has_count = true};
    assert_int_equal(hl_retain_set(t.store, b, &rule, &t.err), 0);
    assert_int_equal(run(&t), 4);
    t_append(&t, b, "another\n"); /* its seqs go on */
    check_first(&t, b, 11, 1);
    atomic_fetch_add(&the_time, 3 * 3600 * 1000); /* the clock was set */
    assert_int_equal(run(&t), 0);
    check_first(&t, b, 11, 1);
    t_reopen(&t);
    assert_int_equal(run(&t), 1);
    t_close(&t);
    t_store_free(&t);
}

/* A rule is that of a session, not of the next one that gets its id. */
static void a_rule_goes_with_its_session(void **state)
{
    (void)state;
    struct t_store t;
    t_store_init(&t);
    t_store_watch(&t);
    t_open(&t);
    uint32_t a = t_session(&t, "a");
    assert_int_equal(hl_retain_set(t.store, a, &some, &t.err), 0);
    assert_int_equal(hl_remove_empty(t.store, a, &t.err), 0);
    check_rule(&t, t_session(&t, "a"), &none);
    t_close(&t);
    t_store_free(&t);
}

/* Also if the delete was cut short behind its frame in the log. */
static void a_rule_does_not_outlive_a_crash(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_session about;
    t_store_init(&t);
    t_store_watch(&t);
    t_open(&t);
    uint32_t a = t_session(&t, "a"), b = t_session(&t, "b");
    t_append(&t, a, "one\n");
    assert_int_equal(hl_retain_set(t.store, a, &some, &t.err), 0);
    assert_int_equal(hl_retain_set(t.store, b, &some, &t.err), 0);
    t_io_fail(&t.io, (1U << T_FDATASYNC) | (1U << T_PWRITE), "retain", 1, UINT64_MAX, -EIO);
    (void)hl_delete(t.store, a, NULL, &t.err);
    t_crash(&t);
    t_io_heal(&t.io);
    t_open(&t);
    assert_int_equal(hl_session_by_id(t.store, "a", 1, &about), -ENOENT);
    check_rule(&t, t_session(&t, "a"), &none);
    check_rule(&t, b, &some);
    t_reopen(&t);
    check_rule(&t, t_number(&t, "a"), &none);
    check_rule(&t, b, &some);
    t_close(&t);
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_are_kept),
        cmocka_unit_test(rules_are_synced),
        cmocka_unit_test(a_rule_goes_with_its_session),
        cmocka_unit_test(a_rule_does_not_outlive_a_crash),
        cmocka_unit_test(what_is_damaged_drops_nothing),
        cmocka_unit_test(every_call_fails_once),
        cmocka_unit_test(rules_drop_the_oldest_events),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
