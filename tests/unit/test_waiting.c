/* test_waiting.c - commands that wait for another one end when they are interrupted. */
#include "support.h"

#include <pthread.h>

#include "../../store/core.h"

struct waiting {
    struct t_store *t;
    int (*command)(struct waiting *waiting);
    struct hl_progress progress;
    struct hl_error err;
    int result;
};

static int compact(struct waiting *waiting)
{
    struct hl_compact what = {.everything = true};
    return hl_compact(waiting->t->store, &what, &waiting->progress, NULL, &waiting->err);
}

static int erase(struct waiting *waiting)
{
    return hl_erase(waiting->t->store, t_number(waiting->t, "s"), &waiting->progress, NULL,
                    &waiting->err);
}

static int reindex(struct waiting *waiting)
{
    return hl_reindex(waiting->t->store, &waiting->progress, &waiting->err);
}

static int snapshot(struct waiting *waiting)
{
    return hl_snapshot(waiting->t->store, "one", &waiting->progress, &waiting->err);
}

static int verify(struct waiting *waiting)
{
    struct hl_verify_report report;
    return hl_verify(waiting->t->store, &report, &waiting->progress, &waiting->err);
}

static void *run(void *context)
{
    struct waiting *waiting = context;
    waiting->result = waiting->command(waiting);
    return NULL;
}

/* The lock is another command's all the time. */
static void expect_interrupted(struct t_store *t, pthread_mutex_t *lock,
                               int (*command)(struct waiting *waiting))
{
    struct waiting waiting = {.t = t, .command = command};
    pthread_t thread;
    pthread_mutex_lock(lock);
    assert_int_equal(pthread_create(&thread, NULL, run, &waiting), 0);
    atomic_store(&waiting.progress.cancel, true);
    pthread_join(thread, NULL);
    pthread_mutex_unlock(lock);
    assert_int_equal(waiting.result, -EINTR);
    assert_int_equal(waiting.err.code, EINTR);
    assert_non_null(strstr(waiting.err.text, "interrupted"));
}

static void test_interrupted(void **state)
{
    struct t_store t;
    struct hl_session about;
    struct hl_progress progress = {.cancel = false};
    (void)state;
    t_store_init(&t);
    t_open(&t);
    t_append(&t, t_session(&t, "s"), "a line\n");
    struct hl_store *store = t.store;
    expect_interrupted(&t, &store->compact_lock, compact);
    expect_interrupted(&t, &store->reindex_lock, reindex);
    expect_interrupted(&t, &store->reindex_lock, snapshot);
    expect_interrupted(&t, &store->reindex_lock, verify);
    expect_interrupted(&t, &store->erase_lock, erase);
    expect_interrupted(&t, &store->compact_lock, erase);
    expect_interrupted(&t, &store->reindex_lock, erase);
    assert_int_equal(hl_session_by_number(store, t_number(&t, "s"), &about), 0);
    assert_int_equal(about.records, 1);
    /* And none of them left anything behind that another would meet. */
    struct waiting waiting = {.t = &t};
    assert_int_equal(snapshot(&waiting), 0);
    assert_int_equal(reindex(&waiting), 0);
    assert_int_equal(compact(&waiting), 0);
    assert_int_equal(verify(&waiting), 0);
    assert_int_equal(hl_erase(store, t_number(&t, "s"), &progress, NULL, &t.err), 0);
    t_close(&t);
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_interrupted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
