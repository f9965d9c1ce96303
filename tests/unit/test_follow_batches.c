/* test_follow_batches.c - what a read-only store beside its writer takes in, it takes in by whole
 * batches, and whenever it is asked. */
#include "support_writer.h"

#include <inttypes.h>
#include <sched.h>
#include <stdatomic.h>

/* A list is under way, at the last record that it knew of, when another look takes in a batch. */
struct meeting {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct t_store *t;
    uint32_t session;
    uint64_t known, listed;
    bool waiting, news, ended;
};

static void set_and_tell(struct meeting *meeting, bool *what)
{
    pthread_mutex_lock(&meeting->lock);
    *what = true;
    pthread_cond_broadcast(&meeting->changed);
    pthread_mutex_unlock(&meeting->lock);
}

static void wait_until(struct meeting *meeting, const bool *what)
{
    pthread_mutex_lock(&meeting->lock);
    while (!*what)
        pthread_cond_wait(&meeting->changed, &meeting->lock);
    pthread_mutex_unlock(&meeting->lock);
}

static bool list_slowly(void *context, const struct hl_record *record)
{
    struct meeting *meeting = context;
    (void)record;
    if (++meeting->listed == meeting->known) {
        set_and_tell(meeting, &meeting->waiting);
        wait_until(meeting, &meeting->news);
    }
    return true;
}

static void *list_once(void *context)
{
    struct meeting *meeting = context;
    int error = hl_record_list(meeting->t->store, meeting->session, 0, false, list_slowly, meeting);
    set_and_tell(meeting, &meeting->ended);
    return error == 0 ? NULL : meeting;
}

/* As soon as there is news, the list goes on, and nothing more is taken in before it has ended. */
static void hold_on(void *context, const struct hl_news *news)
{
    struct meeting *meeting = context;
    (void)news;
    if (!meeting->waiting) /* before the list began */
        return;
    set_and_tell(meeting, &meeting->news);
    wait_until(meeting, &meeting->ended);
}

static void test_a_batch_comes_while_a_list_is_made(void **state)
{
    (void)state;
    struct t_store t;
    struct t_writer writer;
    struct hl_session about;
    struct meeting meeting = {
        .t = &t, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    pthread_t lister;
    void *failed;
    t_store_init(&t);
    t_writer_start(&writer, &t, 1);
    t_tell(&writer, 't');
    t.options.read_only = true;
    t.options.news = hold_on;
    t.options.news_context = &meeting;
    t_open(&t);
    meeting.session = t_number(&t, "ten");
    meeting.known = 10;
    assert_int_equal(pthread_create(&lister, NULL, list_once, &meeting), 0);
    wait_until(&meeting, &meeting.waiting);
    t_tell(&writer, 't');
    hl_look(t.store);
    assert_int_equal(pthread_join(lister, &failed), 0);
    assert_null(failed);
    assert_int_equal(meeting.listed, 20);
    assert_int_equal(hl_session_by_number(t.store, meeting.session, &about), 0);
    assert_int_equal(about.records, 20);
    t_writer_end(&writer, false);
    t_store_free(&t);
}

/* One of those who look at a read-only store while its writer appends whole batches. */
struct looker {
    pthread_t thread;
    struct t_store *t;
    _Atomic bool *stop;
    _Atomic uint64_t looks;
    uint64_t torn;
    char what[200]; /* the first part of a batch that was seen */
};

static void saw(struct looker *looker, uint64_t count, uint64_t unit, const char *where)
{
    looker->looks++;
    if (count % unit == 0)
        return;
    if (looker->torn++ == 0)
        snprintf(looker->what, sizeof looker->what, "%" PRIu64 " records in %s", count, where);
}

static bool count_record(void *context, const struct hl_record *record)
{
    uint64_t *count = context;
    (void)record;
    ++*count;
    return true;
}

static uint64_t lines_in(struct hl_store *store, uint32_t session, uint64_t size)
{
    uint64_t lines = 0;
    char *text = malloc(size + 1);
    ssize_t n = session ? hl_log_read(store, session, 0, text, size, NULL)
                        : hl_root_log_read(store, 0, text, size, NULL);
    for (ssize_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    if (n != (ssize_t)size || (n > 0 && text[n - 1] != '\n'))
        lines = 1; /* which is part of none */
    free(text);
    return lines;
}

static void *look_around(void *context)
{
    struct looker *looker = context;
    struct hl_store *store = looker->t->store;
    for (unsigned i = 0; !atomic_load(looker->stop); i++) {
        struct hl_session about;
        struct hl_status status;
        uint64_t count = 0, size;
        uint32_t last = 0;
        hl_store_status(store, &status);
        saw(looker, status.records, T_EVEN_BATCH, "the status");
        if (hl_session_by_id(store, "even", 4, &about) < 0)
            continue;
        saw(looker, about.records, T_EVEN_BATCH / 2, "a session");
        /* The rest takes longer the more there is. */
        if (i % 32 == 0 && hl_record_list(store, about.number, 0, false, count_record, &count) == 0)
            saw(looker, count, T_EVEN_BATCH / 2, "a list");
        while (i % 32 == 8 && hl_session_next(store, last, &about) == 0) {
            saw(looker, about.records, T_EVEN_BATCH / 2, "a session that is listed");
            if (about.records == 0)
                saw(looker, 1, T_EVEN_BATCH, "a session that is made with its first record");
            last = about.number;
        }
        if (i % 128 == 16 && hl_root_log_size(store, &size) == 0)
            saw(looker, lines_in(store, 0, size), T_EVEN_BATCH, "the root log");
        if (i % 128 == 80)
            saw(looker, lines_in(store, about.number, about.bytes), T_EVEN_BATCH / 2,
                "the session's log");
    }
    return NULL;
}

/* Whoever looks, however many at once, sees each batch whole or not at all. */
static void test_no_part_of_a_batch_is_seen(void **state)
{
    (void)state;
    struct t_store t;
    struct t_writer writer;
    struct looker lookers[3];
    _Atomic bool stop = false;
    struct hl_session about;
    t_store_init(&t);
    t.options.segment_size = 1 << 20;
    t_writer_start(&writer, &t, 1);
    t.options.read_only = true;
    t_open(&t);
    for (size_t i = 0; i < sizeof lookers / sizeof lookers[0]; i++) {
        lookers[i] = (struct looker){.t = &t, .stop = &stop};
        assert_int_equal(pthread_create(&lookers[i].thread, NULL, look_around, &lookers[i]), 0);
    }
    /* All of them look on when it begins, however busy the machine is. */
    for (size_t i = 0; i < sizeof lookers / sizeof lookers[0]; i++)
        while (atomic_load(&lookers[i].looks) == 0)
            sched_yield();
    t_writer_order(&writer, 'e');
    t_writer_wait(&writer);
    atomic_store(&stop, true);
    for (size_t i = 0; i < sizeof lookers / sizeof lookers[0]; i++)
        pthread_join(lookers[i].thread, NULL);
    for (size_t i = 0; i < sizeof lookers / sizeof lookers[0]; i++) {
        if (lookers[i].torn)
            fail_msg("%" PRIu64 " of %" PRIu64 " looks saw a part of a batch: %s", lookers[i].torn,
                     atomic_load(&lookers[i].looks), lookers[i].what);
    }
    assert_int_equal(hl_session_by_id(t.store, "even", 4, &about), 0);
    assert_int_equal(about.records, T_EVEN_BATCHES * (uint64_t)T_EVEN_BATCH / 2);
    assert_int_equal(t.errors, 0);
    t_writer_end(&writer, false);
    t_store_free(&t);
}

/* Each call that reads looks first: what the writer had appended when it began, it knows. */
static void test_every_call_looks_first(void **state)
{
    (void)state;
    struct t_store t;
    struct t_writer writer;
    struct hl_session about;
    char text[100], want[32];
    t_store_init(&t);
    t_writer_start(&writer, &t, 1);
    t.options.read_only = true;
    t_open(&t);
    t_tell(&writer, 'n');
    uint32_t number = t_number(&t, "n");
    for (unsigned call = 0, seq = 1; call < 11; call++) {
        struct hl_record record;
        struct hl_status status;
        struct hl_verify_report report;
        uint64_t count = 0, begin, end, size;
        t_tell(&writer, 'n');
        seq++;
        snprintf(want, sizeof want, "value %u", seq);
        switch (call) {
        case 0:
            assert_true(hl_record_read(t.store, number, seq, text, sizeof text, 0) > 0);
            break;
        case 1:
            assert_int_equal(hl_record_find(t.store, number, seq, &record), 0);
            break;
        case 2:
            assert_int_equal(hl_record_list(t.store, number, 0, false, count_record, &count), 0);
            assert_int_equal(count, seq);
            break;
        case 3:
            assert_int_equal(hl_log_extent(t.store, number, seq, seq, &begin, &end), 0);
            assert_true(begin < end);
            break;
        case 4:
            assert_int_equal(hl_session_by_number(t.store, number, &about), 0);
            assert_int_equal(about.records, seq);
            break;
        case 5:
            assert_int_equal(hl_session_next(t.store, number - 1, &about), 0);
            assert_int_equal(about.records, seq);
            break;
        case 6:
            assert_int_equal(hl_attribute_get(t.store, number, "a", text, sizeof text),
                             strlen(want));
            assert_memory_equal(text, want, strlen(want));
            break;
        case 7:
            hl_store_status(t.store, &status);
            assert_int_equal(status.records, seq);
            break;
        case 8:
            assert_int_equal(hl_verify(t.store, &report, NULL, &t.err), 0);
            assert_int_equal(report.records, seq);
            break;
        case 9: {
            uint64_t before = 0, now = 0;
            while (hl_log_read(t.store, number, now, text, 1, NULL) == 1)
                now++;
            t_tell(&writer, 'n');
            seq++;
            before = now;
            assert_int_equal(hl_log_read(t.store, number, before, text, 1, NULL), 1);
            break;
        }
        default:
            assert_int_equal(hl_root_log_size(t.store, &size), 0);
            t_tell(&writer, 'n');
            seq++;
            assert_int_equal(hl_root_log_read(t.store, size, text, 1, NULL), 1);
        }
    }
    t_writer_end(&writer, false);
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_batch_comes_while_a_list_is_made),
        cmocka_unit_test(test_no_part_of_a_batch_is_seen),
        cmocka_unit_test(test_every_call_looks_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
