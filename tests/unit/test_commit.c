/* test_commit.c - hl_sync(): what it promises, how it is shared, and what its failure means. */
#include "support.h"

#include <sched.h>

/* A table whose fdatasync waits at a gate. */
struct gate {
    struct hl_io io;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    unsigned entered, left, allowed;
    int error;
};

static int gate_sync(void *context, int fd)
{
    struct gate *gate = context;
    (void)fd;
    pthread_mutex_lock(&gate->lock);
    gate->entered++;
    pthread_cond_broadcast(&gate->changed);
    while (gate->left >= gate->allowed)
        pthread_cond_wait(&gate->changed, &gate->lock);
    gate->left++;
    int error = gate->error;
    pthread_mutex_unlock(&gate->lock);
    return error;
}

static void gate_init(struct gate *gate, struct t_store *t)
{
    *gate = (struct gate){.io = hl_io_system, .allowed = 1000000};
    gate->io.context = gate;
    gate->io.fdatasync = gate_sync;
    pthread_mutex_init(&gate->lock, NULL);
    pthread_cond_init(&gate->changed, NULL);
    t->options.io = &gate->io;
}

static void gate_free(struct gate *gate)
{
    pthread_mutex_destroy(&gate->lock);
    pthread_cond_destroy(&gate->changed);
}

/* Nobody passes until the gate is opened again; returns how many passed before. */
static unsigned gate_shut(struct gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    unsigned left = gate->allowed = gate->left;
    pthread_mutex_unlock(&gate->lock);
    return left;
}

static void gate_let(struct gate *gate, unsigned more)
{
    pthread_mutex_lock(&gate->lock);
    gate->allowed = gate->left + more;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

static void gate_wait(struct gate *gate, unsigned entered)
{
    pthread_mutex_lock(&gate->lock);
    while (gate->entered < entered)
        pthread_cond_wait(&gate->changed, &gate->lock);
    pthread_mutex_unlock(&gate->lock);
}

struct answers {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned count;
    int error;
};

static void answer(void *context, int error)
{
    struct answers *answers = context;
    pthread_mutex_lock(&answers->lock);
    answers->count++;
    if (error < 0)
        answers->error = error;
    pthread_cond_broadcast(&answers->changed);
    pthread_mutex_unlock(&answers->lock);
}

static void answers_wait(struct answers *answers, unsigned count)
{
    pthread_mutex_lock(&answers->lock);
    while (answers->count < count)
        pthread_cond_wait(&answers->changed, &answers->lock);
    pthread_mutex_unlock(&answers->lock);
}

static unsigned answers_count(struct answers *answers)
{
    pthread_mutex_lock(&answers->lock);
    unsigned count = answers->count;
    pthread_mutex_unlock(&answers->lock);
    return count;
}

#define NO_ANSWERS                                                             \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER \
    }

/* All that ask while one sync is under way share the next. */
static void test_group_commit(void **state)
{
    (void)state;
    struct t_store t;
    struct gate gate;
    struct answers first = NO_ANSWERS, rest = NO_ANSWERS;
    t_store_init(&t);
    gate_init(&gate, &t);
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    t_append(&t, s, "one\n");
    unsigned before = gate_shut(&gate);
    hl_sync_async(t.store, answer, &first);
    gate_wait(&gate, before + 1);
    for (int i = 0; i < 50; i++) {
        t_append(&t, s, "more\n");
        hl_sync_async(t.store, answer, &rest);
    }
    assert_int_equal(answers_count(&first), 0);
    gate_let(&gate, 1);
    answers_wait(&first, 1);
    /* What was appended while the first was under way is not answered by it. */
    gate_wait(&gate, before + 2);
    assert_int_equal(answers_count(&rest), 0);
    gate_let(&gate, 1);
    answers_wait(&rest, 50);
    assert_int_equal(gate_shut(&gate), before + 2);
    assert_int_equal(rest.error, 0);
    struct hl_status status;
    hl_store_status(t.store, &status);
    assert_int_equal(status.synced, status.position);
    /* Nothing new: nothing is synced. */
    assert_int_equal(hl_sync(t.store), 0);
    assert_int_equal(gate_shut(&gate), before + 2);
    gate_let(&gate, 1000000);
    t_store_free(&t);
    gate_free(&gate);
}

struct appender {
    struct t_store *t;
    uint32_t session;
    unsigned rounds;
    int error;
};

static void *append_and_sync(void *context)
{
    struct appender *appender = context;
    for (unsigned i = 0; i < appender->rounds && appender->error == 0; i++) {
        struct hl_append request = {.session = appender->session, .data = "x\n", .len = 2};
        appender->error = hl_append(appender->t->store, &request, NULL);
        if (appender->error == 0)
            appender->error = hl_sync(appender->t->store);
    }
    return NULL;
}

static void test_eight_threads(void **state)
{
    (void)state;
    struct t_store t;
    struct appender appenders[8];
    pthread_t threads[8];
    t_store_init(&t);
    t_store_watch(&t);
    t_open(&t);
    for (size_t i = 0; i < 8; i++) {
        char id[8];
        snprintf(id, sizeof id, "s%zu", i);
        appenders[i] = (struct appender){.t = &t, .session = t_session(&t, id), .rounds = 100};
    }
    uint64_t before = t_io_count(&t.io, T_FDATASYNC);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, append_and_sync, &appenders[i]), 0);
    for (size_t i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(appenders[i].error, 0);
    }
    uint64_t syncs = t_io_count(&t.io, T_FDATASYNC) - before;
    assert_true(syncs > 0 && syncs <= 800 + t_last_segment(&t));
    struct t_image image;
    t_image_take(t.store, &image);
    assert_int_equal(image.records, 800);
    t_image_free(&image);
    t_store_free(&t);
}

static void test_a_failed_sync_is_final(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    struct hl_status status;
    t_store_init(&t);
    t_store_watch(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    t_append(&t, s, "one\ntwo\n");
    t_image_take(t.store, &image);
    t_io_fail(&t.io, 1U << T_FDATASYNC, ".seg", 1, 1, -EIO);
    assert_int_equal(hl_sync(t.store), -EIO);
    t_io_heal(&t.io);
    uint64_t syncs = t_io_count(&t.io, T_FDATASYNC);
    for (int i = 0; i < 2; i++) {
        struct hl_session about;
        assert_int_equal(hl_sync(t.store), -EIO);
        assert_int_equal(t_try_append(&t, s, "three\n", 6), -EIO);
        assert_true(t.err.text[0]);
        assert_int_equal(hl_session_create(t.store, "n", 1, 0, 0, 0, &about, &t.err), -EIO);
        assert_int_equal(hl_session_change(t.store, s, HL_CHANGE_MODE, 0, 0, 0, NULL), -EIO);
        assert_int_equal(hl_attribute_set(t.store, s, "a", "", 0, 0), -EIO);
        assert_int_equal(hl_rotate(t.store, &t.err), -EIO);
        assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), -EIO);
        assert_int_equal(hl_reindex(t.store, NULL, &t.err), -EIO);
        t_shows(t.store, &image); /* reads go on */
    }
    assert_int_equal(t_io_count(&t.io, T_FDATASYNC), syncs); /* never tried again */
    hl_store_status(t.store, &status);
    assert_int_equal(status.failed, EIO);
    assert_true(status.synced < status.position);
    assert_int_equal(hl_store_close(t.store), -EIO);
    t.store = NULL;
    /* Opened again it writes the same bytes anew, syncs them, and goes on. */
    t_io_fail(&t.io, 1U << T_PWRITE, ".seg", UINT64_MAX, 1, 0); /* only counts */
    uint64_t fsyncs = t_io_count(&t.io, T_FSYNC);
    t_open(&t);
    assert_true(t.io.seen > 0);
    assert_true(t_io_count(&t.io, T_FSYNC) > fsyncs);
    t_io_heal(&t.io);
    t_shows(t.store, &image);
    t_append(&t, s, "three\n");
    assert_int_equal(hl_sync(t.store), 0);
    t_image_free(&image);
    t_store_free(&t);
}

/* The sync of a segment that is sealed fails: final too, and no frame went to the next one. */
static void test_a_failed_sync_at_a_rotation(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    t_store_init(&t);
    t_store_watch(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    t_append(&t, s, "one\n");
    t_image_take(t.store, &image);
    t_io_fail(&t.io, 1U << T_FDATASYNC, ".seg", 1, 1, -EIO);
    assert_int_equal(hl_rotate(t.store, &t.err), -EIO);
    t_io_heal(&t.io);
    assert_int_equal(t_try_append(&t, s, "two\n", 4), -EIO);
    assert_int_equal(t_last_segment(&t), 1);
    t_shows(t.store, &image);
    t_crash(&t);
    t_open(&t);
    t_shows(t.store, &image);
    t_append(&t, s, "two\n");
    assert_int_equal(hl_sync(t.store), 0);
    t_check_log(&t);
    t_image_free(&image);
    t_store_free(&t);
}

/* Requests that wait when the store is closed are answered. */
static void test_closing_answers_all(void **state)
{
    (void)state;
    struct t_store t;
    struct gate gate;
    struct answers answers = NO_ANSWERS;
    t_store_init(&t);
    gate_init(&gate, &t);
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    for (int i = 0; i < 20; i++) {
        t_append(&t, s, "x\n");
        hl_sync_async(t.store, answer, &answers);
    }
    t_close(&t);
    assert_int_equal(answers.count, 20);
    assert_int_equal(answers.error, 0);
    t_store_free(&t);
    gate_free(&gate);
}

/* Without being asked, the log is synced within the interval. */
static void test_sync_interval(void **state)
{
    (void)state;
    struct t_store t;
    struct gate gate;
    t_store_init(&t);
    t.options.sync_interval_ms = 1;
    gate_init(&gate, &t);
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    for (int i = 0; i < 5; i++) {
        struct hl_status status;
        t_append(&t, s, "x\n");
        hl_store_status(t.store, &status);
        uint64_t position = status.position;
        while (status.synced < position) {
            sched_yield();
            hl_store_status(t.store, &status);
        }
    }
    t_store_free(&t);
    gate_free(&gate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_group_commit),
        cmocka_unit_test(test_eight_threads),
        cmocka_unit_test(test_a_failed_sync_is_final),
        cmocka_unit_test(test_a_failed_sync_at_a_rotation),
        cmocka_unit_test(test_closing_answers_all),
        cmocka_unit_test(test_sync_interval),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
