/* test_retain.c - store/retain.c: rules, and the file that keeps them. */
#include "support.h"

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
    assert_int_equal(t.errors, 0);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_are_kept),
        cmocka_unit_test(what_is_damaged_drops_nothing),
        cmocka_unit_test(every_call_fails_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
