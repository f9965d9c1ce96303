/* test_scheduler.c - store/scheduler.c: compaction by itself, and clocks that are set. */
#include "support.h"

#include <unistd.h>

#include "../../store/scheduler.h"

struct virtual_clock {
    _Atomic uint64_t ms;
};

static uint64_t now(void *context)
{
    struct virtual_clock *clock = context;
    return atomic_load(&clock->ms);
}

static void it_runs_by_itself(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_status status;
    t_store_init(&t);
    t.options.compact_interval_ms = 5;
    t_open(&t);
    t_append(&t, t_session(&t, "s"), "a line\n");
    do {
        usleep(1000);
        assert_int_equal(hl_store_status(t.store, &status), 0);
        /* The next one is due a moment after the last has ended. */
    } while (status.compactions < 3 || status.compact_next_ms < status.compact_last_ms);
    assert_true(status.compact_last_ms > 0);
    assert_int_equal(status.compact_error, 0);
    assert_int_equal(t.warnings + t.errors, 0);
    t_close(&t); /* at once, whatever it is doing */
    t_store_free(&t);
}

static void clocks_that_are_set_suspend(void **state)
{
    (void)state;
    struct t_store t;
    struct virtual_clock clock = {UINT64_C(1700000000000)};
    struct hl_status status;
    t_store_init(&t);
    t.options.clock = now;
    t.options.clock_context = &clock;
    t.options.compact_interval_ms = 0;
    t_open(&t);
    assert_true(scheduler_time_is_sound(t.store));
    atomic_fetch_add(&clock.ms, 3500 * 1000); /* may be: a run that took long */
    assert_true(scheduler_time_is_sound(t.store));
    atomic_fetch_add(&clock.ms, 3700 * 1000);
    assert_false(scheduler_time_is_sound(t.store));
    assert_int_equal(t.warnings, 1);
    assert_false(scheduler_time_is_sound(t.store)); /* it does not become right by being asked */
    assert_int_equal(t.warnings, 1);
    hl_store_status(t.store, &status);
    assert_true(status.retain_suspended);
    t_reopen(&t);
    assert_true(scheduler_time_is_sound(t.store));
    atomic_fetch_sub(&clock.ms, 1);
    assert_false(scheduler_time_is_sound(t.store));
    t_close(&t);
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_runs_by_itself),
        cmocka_unit_test(clocks_that_are_set_suspend),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
