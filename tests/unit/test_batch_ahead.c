/*
 * test_batch_ahead.c - large writes, whose frames are made before their place is known: they come
 * out as if each line had been written by itself, whatever happens meanwhile.
 *
 * ROUNDS says how many random writes (60), SEED which.
 */
#include "support.h"

#include <inttypes.h>

#define WRITE_MAX ((size_t)1 << 20)

#define BEGINNING 1000000U

/* A clock that tells what it is set to; once called as often as `after` says it lets somebody in,
 * and goes on elsewhere. Threads of the store's own are told the beginning. */
struct clock {
    pthread_t thread;
    uint64_t now, then;
    unsigned after;
    void (*let_in)(struct clock *clock);
    struct t_store *t;
    uint32_t session;
};

static uint64_t tell(void *context)
{
    struct clock *clock = context;
    if (!pthread_equal(pthread_self(), clock->thread))
        return BEGINNING;
    uint64_t now = clock->now;
    if (clock->after > 0 && --clock->after == 0) {
        clock->now = clock->then;
        if (clock->let_in)
            clock->let_in(clock);
    }
    return now;
}

static void open_with(struct t_store *t, struct clock *clock)
{
    t_store_init(t);
    *clock = (struct clock){.thread = pthread_self(), .now = BEGINNING, .t = t};
    t->options.clock = tell;
    t->options.clock_context = clock;
    t_open(t);
}

/* ---- the same, line by line or all at once ---- */

static size_t put_line(char *out, uint64_t *chance, const char *id, uint64_t names, uint64_t *ids)
{
    static const char *const kinds[] = {"ToolCall", "Error", "Message", "a", "b.c", "d", "e", "f"};
    char *to = out;
    unsigned shape = (unsigned)t_below(chance, 12);
    if (shape == 0)
        return (size_t)sprintf(out, "some text, \"%d\"\n", (int)t_below(chance, 1000));
    if (shape == 1)
        return (size_t)sprintf(out, "{}\n");
    to += sprintf(to, "{\"n\":%d", (int)t_below(chance, 1000000));
    if (shape == 2)
        to += sprintf(to, ",\"session_id\":\"%s\"", id);
    if (shape == 3)
        to += sprintf(to, ",\"ts_ms\":%d,\"kind\":null", (int)t_below(chance, 2000000));
    if (shape >= 4 && shape != 5)
        to += sprintf(to, ",\"kind\":\"%s\",\"tokens_in\":%d,\"cost_usd_e6\":%d",
                      kinds[t_below(chance, names)], (int)t_below(chance, 100),
                      (int)t_below(chance, 100) - 50);
    if (shape >= 7)
        to += sprintf(to, ",\"tool\":\"t%d\"", (int)t_below(chance, names));
    if (shape == 11 && *ids > 0)
        to += sprintf(to, ",\"tool_call_id\":\"c%d\"", (int)t_below(chance, (*ids)--));
    if (shape == 5)
        to += sprintf(to, ",\"k\\u0069nd\":\"x\",\"long\":\"%0*d\"", (int)t_below(chance, 3000), 7);
    return (size_t)(to - out) + (size_t)sprintf(to, "}\n");
}

/* Lines of one write: of a few kinds only, or more than can be added up together, or with ids. */
static size_t put_lines(char *text, size_t size, uint64_t *chance, const char *id)
{
    size_t len = 0;
    uint64_t names = t_below(chance, 2) == 0 ? 2 : 8;
    uint64_t ids = t_below(chance, 3) == 0 ? 50 : 0;
    bool operation = t_below(chance, 6) == 0; /* whose frame cannot be made ahead */
    while (len + 4096 < size) {
        if (operation && len > size / 2) {
            len += (size_t)sprintf(text + len, "{\"op\":\"set\",\"key\":\"k\",\"value\":%d}\n",
                                   (int)t_below(chance, 9));
            operation = false;
        }
        len += put_line(text + len, chance, id, names, &ids);
    }
    return len;
}

static void append_each(struct t_store *t, uint32_t session, const char *text, size_t len)
{
    const char *end = text + len;
    while (text < end) {
        const char *next = (const char *)memchr(text, '\n', (size_t)(end - text)) + 1;
        assert_int_equal(t_try_append(t, session, text, (size_t)(next - text)), 0);
        text = next;
    }
}

static void assert_same_names(const struct hl_usage_of *a, const struct hl_usage_of *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(a[i].name, b[i].name);
        assert_memory_equal(&a[i].usage, &b[i].usage, sizeof a[i].usage);
    }
}

static void assert_same_sums(struct hl_store *a, struct hl_store *b, uint32_t session)
{
    struct hl_sums *one, *two;
    assert_int_equal(hl_sums(a, session, &one), 0);
    assert_int_equal(hl_sums(b, session, &two), 0);
    assert_memory_equal(&one->total, &two->total, sizeof one->total);
    assert_int_equal(one->first_ts_ms, two->first_ts_ms);
    assert_int_equal(one->last_ts_ms, two->last_ts_ms);
    assert_int_equal(one->kind_count, two->kind_count);
    assert_int_equal(one->tool_count, two->tool_count);
    assert_same_names(one->kinds, two->kinds, one->kind_count);
    assert_same_names(one->tools, two->tools, one->tool_count);
    free(one);
    free(two);
}

static void assert_same_stores(struct t_store *a, struct t_store *b, uint32_t session)
{
    size_t len, other_len;
    char *log = t_log(a->store, session, 65536, &len);
    char *other = t_log(b->store, session, 65536, &other_len);
    assert_int_equal(len, other_len);
    assert_memory_equal(log, other, len);
    free(log);
    free(other);
    assert_same_sums(a->store, b->store, session);
    assert_same_sums(a->store, b->store, 0);
}

static void test_as_line_by_line(void **state)
{
    uint64_t chance = t_seed("test_as_line_by_line");
    struct t_store ahead, each;
    struct clock clock, other;
    (void)state;
    open_with(&ahead, &clock);
    open_with(&each, &other);
    uint32_t session = t_session(&ahead, "a\"b");
    assert_int_equal(t_session(&each, "a\"b"), session);
    char *text = malloc(WRITE_MAX);
    assert_non_null(text);
    for (unsigned round = t_amount("ROUNDS", t_slow() ? 20 : 60); round > 0; round--) {
        size_t size = 4100 + t_below(&chance, round % 20 == 0 ? WRITE_MAX - 4100 : 30000);
        size_t len = put_lines(text, size, &chance, "a\\\"b");
        assert_int_equal(t_try_append(&ahead, session, text, len), 0);
        append_each(&each, session, text, len);
        clock.now = other.now = clock.now + t_below(&chance, 3);
    }
    free(text);
    assert_same_stores(&ahead, &each, session);
    t_lose_index(&ahead);
    t_crash(&ahead);
    t_open(&ahead);
    assert_same_stores(&ahead, &each, session);
    t_check_log(&ahead);
    t_store_free(&ahead);
    t_store_free(&each);
}

/* ---- what happens meanwhile ---- */

#define LINES 1000U

static char *same_lines(size_t *len)
{
    char *text = malloc(LINES * 16);
    assert_non_null(text);
    *len = 0;
    for (unsigned i = 0; i < LINES; i++)
        *len += (size_t)sprintf(text + *len, "{\"n\":%04u}\n", 1000 + i);
    return text;
}

/* The first record has this seq, and what the lines say of the time. */
static void assert_stored(struct t_store *t, uint32_t session, uint64_t first, uint64_t ts_ms,
                          uint64_t recorded_ms)
{
    char want[128], line[256];
    for (unsigned i = 0; i < LINES; i++) {
        struct hl_record record;
        assert_int_equal(hl_record_find(t->store, session, first + i, &record), 0);
        assert_int_equal(record.recorded_ms, recorded_ms);
        size_t len =
            (size_t)snprintf(want, sizeof want,
                             "\"seq\":%" PRIu64 ",\"ts_ms\":%" PRIu64
                             ",\"ts_exact\":false,\"source\":\"Tail\",\"kind\":\"Message\","
                             "\"n\":%04u}\n",
                             first + i, ts_ms, 1000 + i);
        ssize_t got = hl_record_read(t->store, session, first + i, line, sizeof line, 0);
        assert_true(got > (ssize_t)len);
        assert_memory_equal(line + got - len, want, len);
    }
}

static void append_one(struct clock *clock)
{
    t_append(clock->t, clock->session, "{\"n\":\"other\"}\n");
}

/* Time goes on between the two looks at the clock, or back, with or without another append to the
 * same session or another. */
static void test_what_happens_meanwhile(void **state)
{
    static const struct {
        int64_t at, by;        /* what the clock says first, and then */
        int other;             /* who appends: 0 nobody, 1 to another session, 2 to the same */
        uint64_t ts, recorded; /* beyond the beginning */
    } cases[] = {
        {0, 0, 0, 0, 0},    {0, 7, 0, 0, 7},    {0, 7, 1, 0, 7}, {0, 0, 2, 0, 0},   {0, 7, 2, 7, 7},
        {0, -500, 0, 0, 0}, {0, -500, 1, 0, 0}, {9, 9, 0, 9, 9}, {500, 3, 0, 3, 3},
    };
    size_t len;
    char *text = same_lines(&len);
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct t_store t;
        struct clock clock;
        open_with(&t, &clock);
        uint32_t session = t_session(&t, "s"), other = t_session(&t, "other");
        t_append(&t, session, "{\"n\":1}\n");
        uint64_t began = clock.now;
        clock.session = cases[i].other == 2 ? session : other;
        clock.let_in = cases[i].other ? append_one : NULL;
        clock.now = began + (uint64_t)cases[i].at;
        clock.then = began + (uint64_t)cases[i].by;
        clock.after = 1;
        assert_int_equal(t_try_append(&t, session, text, len), 0);
        assert_stored(&t, session, cases[i].other == 2 ? 3 : 2, began + cases[i].ts,
                      began + cases[i].recorded);
        t_check_log(&t);
        t_store_free(&t);
    }
    free(text);
}

/* The clock was ahead when the session was last appended to: its lines do not go back. */
static void test_a_session_from_the_future(void **state)
{
    struct t_store t;
    struct clock clock;
    size_t len;
    char *text = same_lines(&len);
    (void)state;
    open_with(&t, &clock);
    uint32_t session = t_session(&t, "s");
    clock.now = 2000000;
    t_append(&t, session, "{\"n\":1}\n");
    clock.now = 1500000;
    assert_int_equal(t_try_append(&t, session, text, len), 0);
    assert_stored(&t, session, 2, 2000000, 2000000);
    t_store_free(&t);
    free(text);
}

/* ---- many at once ---- */

struct writer {
    struct t_store *t;
    uint32_t session;
    const char *text;
    size_t len;
    unsigned writes;
    uint64_t first[64]; /* of each write */
};

static void note(void *context, const struct hl_receipt *receipt)
{
    uint64_t *first = context;
    *first = receipt->first;
    assert_int_equal(receipt->last - receipt->first + 1, receipt->records);
}

static void *write_on(void *context)
{
    struct writer *writer = context;
    for (unsigned i = 0; i < writer->writes; i++) {
        struct hl_error err;
        struct hl_append request = {.session = writer->session,
                                    .data = writer->text,
                                    .len = writer->len,
                                    .receipt = note,
                                    .receipt_context = &writer->first[i]};
        assert_int_equal(hl_append(writer->t->store, &request, &err), 0);
    }
    return NULL;
}

/* Two write large batches to one session, a third single lines to it, a fourth to another one. */
static void test_many_at_once(void **state)
{
    struct t_store t;
    pthread_t threads[4];
    struct writer writers[4];
    size_t len;
    char *text = same_lines(&len);
    (void)state;
    t_store_init(&t);
    t_open(&t);
    uint32_t session = t_session(&t, "s"), other = t_session(&t, "other");
    for (unsigned i = 0; i < 4; i++) {
        writers[i] = (struct writer){.t = &t,
                                     .session = i == 3 ? other : session,
                                     .text = i < 2 ? text : "{\"n\":\"one\"}\n",
                                     .len = i < 2 ? len : 12,
                                     .writes = 64};
        assert_int_equal(pthread_create(&threads[i], NULL, write_on, &writers[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < 128; i++) { /* each batch lies where its receipt said */
        char line[256], want[32];
        uint64_t first = writers[i % 2].first[i / 2];
        for (unsigned n = 0; n < LINES; n++) {
            size_t want_len = (size_t)sprintf(want, "\"n\":%04u}\n", 1000 + n);
            ssize_t got = hl_record_read(t.store, session, first + n, line, sizeof line, 0);
            assert_true(got > (ssize_t)want_len);
            assert_memory_equal(line + got - want_len, want, want_len);
        }
    }
    struct hl_session about;
    assert_int_equal(hl_session_by_number(t.store, session, &about), 0);
    assert_int_equal(about.records, 128 * LINES + 64);
    assert_int_equal(about.last_seq, about.records);
    t_check_log(&t);
    t_store_free(&t);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_line_by_line),
        cmocka_unit_test(test_what_happens_meanwhile),
        cmocka_unit_test(test_a_session_from_the_future),
        cmocka_unit_test(test_many_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
