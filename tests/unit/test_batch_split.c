/*
 * test_batch_split.c - writes so large that two threads look at their lines: what is stored, and
 * what is said of a bad line, is as if one had.
 */
#include "support.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>

#include "../../store/helper.h"

#define LONG_LINES 2000U   /* of 150 bytes */
#define SHORT_LINES 24000U /* of 12: more than are kept of either part */
#define NUMBER 100000U     /* is added, so that all have as many digits */

struct text {
    char *bytes;
    size_t len, lines;
};

/* Lines that say their number, from 1, in front of what makes them `size` bytes long; with
 * session_id if id is not NULL. */
static struct text make_text(size_t lines, size_t size, const char *id)
{
    struct text text = {.bytes = malloc(lines * (size + 64)), .lines = lines};
    assert_non_null(text.bytes);
    for (size_t i = 1; i <= lines; i++) {
        char *line = text.bytes + text.len;
        int len = id ? sprintf(line, "{\"session_id\":\"%s\",\"n\":%zu", id, NUMBER + i)
                     : sprintf(line, "{\"n\":%zu", NUMBER + i);
        if ((size_t)len + 10 < size)
            len += sprintf(line + len, ",\"p\":\"%0*d\"", (int)size - len - 9, 0);
        text.len += (size_t)(len + sprintf(line + len, "}\n"));
    }
    assert_true(text.len > 256 << 10);
    return text;
}

/* Where line `number`, from 1, begins. */
static char *line_at(const struct text *text, size_t number)
{
    char *line = text->bytes;
    while (--number > 0)
        line = strchr(line, '\n') + 1;
    return line;
}

static int append(struct t_store *t, uint32_t session, const struct text *text)
{
    struct hl_append request = {
        .session = session, .mode = 0640, .data = text->bytes, .len = text->len};
    return hl_append(t->store, &request, &t->err);
}

/* Record `first` and those behind it say the numbers of the lines. */
static void assert_numbers(struct t_store *t, uint32_t session, uint64_t first, size_t lines)
{
    char line[512], want[32];
    for (size_t i = 0; i < lines; i++) {
        ssize_t len = hl_record_read(t->store, session, first + i, line, sizeof line - 1, 0);
        assert_true(len > 0);
        line[len] = '\0';
        snprintf(want, sizeof want, "\"n\":%zu", NUMBER + i + 1);
        if (!strstr(line, want))
            fail_msg("record %" PRIu64 " is %s", first + i, line);
    }
}

static void assert_sums(struct t_store *t, uint32_t session, uint64_t events)
{
    struct hl_sums *sums;
    assert_int_equal(hl_sums(t->store, session, &sums), 0);
    assert_int_equal(sums->total.events, events);
    free(sums);
}

/* ---- what is stored ---- */

static const struct shape {
    size_t lines, size;
} shapes[] = {{LONG_LINES, 150}, {SHORT_LINES, 12}};
#define SHAPES (sizeof shapes / sizeof shapes[0])

/* To a session, and through the root. */
static void test_all_lines(void **state)
{
    (void)state;
    for (size_t i = 0; i < SHAPES; i++) {
        struct t_store t;
        t_store_init(&t);
        t.options.segment_size = 8 << 20; /* of a sealed one single records are taken, too */
        t_open(&t);
        uint32_t session = t_session(&t, "s");
        struct text text = make_text(shapes[i].lines, shapes[i].size, NULL);
        struct text root = make_text(shapes[i].lines, shapes[i].size, "s");
        assert_int_equal(append(&t, session, &text), 0);
        assert_int_equal(append(&t, 0, &root), 0);
        assert_sums(&t, session, 2 * text.lines);
        assert_numbers(&t, session, 1, text.lines);
        assert_numbers(&t, session, text.lines + 1, text.lines);
        t_check_log(&t);
        t_crash(&t);
        t_lose_index(&t);
        t_open(&t);
        assert_numbers(&t, session, 1, text.lines);
        assert_numbers(&t, session, text.lines + 1, text.lines);
        assert_int_equal(t_verify(&t), 2 * text.lines);
        free(text.bytes);
        free(root.bytes);
        t_store_free(&t);
    }
}

/* Frames are not made ahead where a line needs what is decided later: in the first part, or in the
 * second. */
static void test_operations_and_seqs(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 2; kind++) {
        for (unsigned part = 0; part < 2; part++) {
            struct t_store t;
            struct text text = make_text(LONG_LINES, 150, NULL);
            size_t number = part ? LONG_LINES - 10 : 10;
            char line[160];
            t_store_init(&t);
            t_open(&t);
            uint32_t session = t_session(&t, "s");
            int len = kind ? sprintf(line, "{\"seq\":%zu,\"n\":%zu", number + 5, NUMBER + number)
                           : sprintf(line, "{\"op\":\"set\",\"key\":\"k\",\"value\":1");
            len += sprintf(line + len, "%*s}", 148 - len, "");
            memcpy(line_at(&text, number), line, (size_t)len);
            assert_int_equal(append(&t, session, &text), 0);
            struct hl_session about;
            assert_int_equal(hl_session_by_number(t.store, session, &about), 0);
            assert_int_equal(about.records, LONG_LINES);
            assert_int_equal(about.last_seq, LONG_LINES + (kind ? 5 : 0));
            assert_numbers(&t, session, 1, number - 1);
            struct hl_document document;
            int found = hl_document_find(t.store, session, HL_AREA_STATE, "k", 1, &document);
            assert_int_equal(found, kind ? -ENOENT : 0);
            t_check_log(&t);
            free(text.bytes);
            t_store_free(&t);
        }
    }
}

/* ---- what is said of bad lines ---- */

/* The first of these lines is told, with its number, and nothing is stored. */
static void assert_bad(uint32_t session, const struct text *good, const size_t *bad, size_t count)
{
    struct t_store t;
    struct text text = *good;
    text.bytes = malloc(good->len + 1);
    assert_non_null(text.bytes);
    memcpy(text.bytes, good->bytes, good->len + 1);
    for (size_t i = 0; i < count; i++) {
        char *line = line_at(&text, bad[i]);
        line[strcspn(line, "}")] = '!'; /* behind the id of the session */
    }
    t_store_init(&t);
    t_open(&t);
    assert_int_equal(t_session(&t, "s"), 1);
    assert_int_equal(append(&t, session, &text), -EINVAL);
    assert_int_equal(t.err.code, EINVAL);
    assert_int_equal(t.err.line, bad[0]);
    struct hl_error said = t.err;
    char line[512];
    snprintf(line, sizeof line, "%.*s\n", (int)strcspn(line_at(&text, bad[0]), "\n"),
             line_at(&text, bad[0]));
    assert_int_equal(t_try_append(&t, session, line, strlen(line)), -EINVAL);
    assert_string_equal(said.text, t.err.text);
    assert_int_equal(said.session, session ? 0 : 1);
    assert_int_equal(said.session, t.err.session);
    struct hl_session about;
    assert_int_equal(hl_session_by_number(t.store, 1, &about), 0);
    assert_int_equal(about.records, 0);
    /* What comes next does not lie behind leftovers. */
    assert_int_equal(append(&t, session, good), 0);
    assert_numbers(&t, 1, 1, good->lines);
    t_check_log(&t);
    free(text.bytes);
    t_store_free(&t);
}

static void test_bad_lines(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * SHAPES; i++) {
        const struct shape *shape = &shapes[i / 2];
        uint32_t session = i % 2 == 0 ? 1 : 0;
        struct text text = make_text(shape->lines, shape->size, session ? NULL : "s");
        size_t last = shape->lines, middle = last / 2;
        size_t bad[] = {1,          middle - 2, middle - 1, middle, middle + 1,
                        middle + 2, middle + 3, last - 1,   last};
        for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k += t_slow() ? 4 : 1)
            assert_bad(session, &text, &bad[k], 1);
        assert_bad(session, &text, (size_t[]){2, last - 1}, 2);
        assert_bad(session, &text, (size_t[]){last - 7, last - 1}, 2);
        free(text.bytes);
    }
}

/* A line of the first part, or of the second, names a session that is not the one it is sent to. */
static void test_another_session(void **state)
{
    (void)state;
    for (unsigned part = 0; part < 2; part++) {
        struct text text = make_text(LONG_LINES, 150, "s");
        size_t number = part ? LONG_LINES - 10 : 10;
        struct t_store t;
        t_store_init(&t);
        t_open(&t);
        uint32_t session = t_session(&t, "s");
        (void)t_session(&t, "t");
        *strchr(line_at(&text, number) + strlen("{\"session_id"), 's') = 't';
        assert_int_equal(append(&t, session, &text), -EINVAL);
        assert_int_equal(t.err.line, number);
        *strchr(line_at(&text, number) + strlen("{\"session_id"), 't') = 's';
        assert_int_equal(append(&t, session, &text), 0);
        assert_numbers(&t, session, 1, text.lines);
        free(text.bytes);
        t_store_free(&t);
    }
}

/* Empty lines have a number, too, but no record. */
static void test_empty_lines(void **state)
{
    struct t_store t;
    (void)state;
    struct text text = make_text(LONG_LINES, 150, NULL);
    char *spaced = malloc(2 * text.len), *to = spaced;
    assert_non_null(spaced);
    for (const char *at = text.bytes; at < text.bytes + text.len; at++) {
        *to++ = *at;
        if (*at == '\n')
            *to++ = '\n';
    }
    *to = '\0';
    size_t lines = text.lines;
    free(text.bytes);
    text = (struct text){spaced, (size_t)(to - spaced), 2 * lines};
    t_store_init(&t);
    t_open(&t);
    uint32_t session = t_session(&t, "s");
    assert_int_equal(append(&t, session, &text), 0);
    assert_numbers(&t, session, 1, lines);
    line_at(&text, 2 * lines - 21)[1] = '!';
    assert_int_equal(append(&t, session, &text), -EINVAL);
    assert_int_equal(t.err.line, 2 * lines - 21);
    free(spaced);
    t_store_free(&t);
}

/* ---- what fails ---- */

enum failing { FAILS, IS_SHORT, FAILS_FOR_GOOD };

static uint64_t segment_size(const struct t_store *t)
{
    char path[T_PATH];
    t_path(path, t->dir, "log/00000001-00000001.0.seg");
    return t_file_size(path);
}

/* After a crash nothing is there of an append that failed, whatever became of its bytes. */
static void assert_shows_after_crash(struct t_store *t, const struct t_image *image,
                                     uint64_t records)
{
    t_crash(t);
    t_io_heal(&t->io);
    t_lose_index(t);
    t_open(t);
    t_shows(t->store, image);
    assert_int_equal(t_verify(t), records);
}

/* The write number `call` of one append fails, or does half of its work, or it is the first of
 * all that fail, and the file is not cut back either. False: there are not so many. */
static bool fails_or_not(const struct text *text, uint64_t call, enum failing how)
{
    struct t_store t;
    struct t_image before;
    uint64_t records = 1, times = how == FAILS_FOR_GOOD ? UINT64_MAX / 2 : 1;
    t_store_init(&t);
    t.options.segment_size = 8 << 20;
    t_store_watch(&t);
    t_open(&t);
    uint32_t session = t_session(&t, "s");
    t_append(&t, session, "{\"n\":\"before\"}\n");
    t_image_take(t.store, &before);
    uint64_t size = segment_size(&t);
    unsigned calls = 1U << T_PWRITE | (how == FAILS_FOR_GOOD ? 1U << T_FTRUNCATE : 0);
    t_io_fail(&t.io, calls, ".seg", call, times, how == IS_SHORT ? 0 : -EIO);
    int result = append(&t, session, text);
    bool failed = t_io_failed(&t.io) > 0;
    assert_int_equal(result, failed && how != IS_SHORT ? -EIO : 0);
    if (failed && how == FAILS_FOR_GOOD) {
        assert_shows_after_crash(&t, &before, records);
    } else if (failed && how == FAILS) {
        t_io_heal(&t.io);
        t_shows(t.store, &before);
        assert_int_equal(segment_size(&t), size);
        t_append(&t, session, "{\"n\":\"next\"}\n");
        records++;
        t_image_free(&before);
        t_image_take(t.store, &before);
        assert_shows_after_crash(&t, &before, records);
    }
    t_io_heal(&t.io);
    if (result < 0)
        assert_int_equal(append(&t, session, text), 0);
    assert_numbers(&t, session, records + 1, text->lines);
    t_check_log(&t);
    t_image_free(&before);
    t_store_free(&t);
    return failed;
}

static void test_failing_writes(void **state)
{
    struct text text = make_text(LONG_LINES, 150, NULL);
    (void)state;
    for (enum failing how = FAILS; how <= FAILS_FOR_GOOD; how++) {
        uint64_t call = 1;
        while (fails_or_not(&text, call, how))
            call++;
        assert_true(call > 1);
    }
    free(text.bytes);
}

/* Parts in which there is nothing but empty lines, and a last line without its end. */
static void test_empty_parts(void **state)
{
    (void)state;
    for (unsigned shape = 0; shape < 4; shape++) {
        struct t_store t;
        size_t len = 400 << 10, at = shape == 1 ? len - 20 : 0;
        char *bytes = malloc(len + 1);
        assert_non_null(bytes);
        memset(bytes, '\n', len);
        bytes[len] = '\0';
        if (shape > 0)
            memcpy(bytes + at, "{\"n\":100001}", 12);
        if (shape == 3)
            memcpy(bytes + len - 12, "{\"n\":100002}", 12);
        struct text text = {bytes, len, shape == 0 ? 0 : shape == 3 ? 2 : 1};
        t_store_init(&t);
        t_open(&t);
        uint32_t session = t_session(&t, "s");
        assert_int_equal(append(&t, session, &text), 0);
        assert_numbers(&t, session, 1, text.lines);
        struct hl_session about;
        assert_int_equal(hl_session_by_number(t.store, session, &about), 0);
        assert_int_equal(about.records, text.lines);
        t_check_log(&t);
        free(bytes);
        t_store_free(&t);
    }
}

/* ---- several at once ---- */

#define WRITERS 4U
#define WRITES 12U

struct writer {
    struct t_store *t;
    uint32_t session;
    const struct text *text;
};

static void *write_on(void *context)
{
    const struct writer *writer = context;
    struct hl_error err;
    struct hl_append request = {
        .session = writer->session, .data = writer->text->bytes, .len = writer->text->len};
    for (unsigned i = 0; i < WRITES; i++)
        assert_int_equal(hl_append(writer->t->store, &request, &err), 0);
    return NULL;
}

/* There is one helper: those who do not get it do without. Two write to the same session. */
static void test_many_at_once(void **state)
{
    struct text text = make_text(LONG_LINES, 150, NULL);
    pthread_t threads[WRITERS];
    struct writer writers[WRITERS];
    struct t_store t;
    (void)state;
    t_store_init(&t);
    t_open(&t);
    uint32_t sessions[] = {t_session(&t, "a"), t_session(&t, "b"), t_session(&t, "c")};
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){&t, sessions[i % 3], &text};
        assert_int_equal(pthread_create(&threads[i], NULL, write_on, &writers[i]), 0);
    }
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < WRITERS; i++) {
        unsigned writes = i < WRITERS - 3 || i >= 3 ? 2 * WRITES : WRITES;
        for (unsigned k = 0; k < writes; k++)
            assert_numbers(&t, sessions[i % 3], 1 + k * LONG_LINES, LONG_LINES);
    }
    t_check_log(&t);
    free(text.bytes);
    t_store_free(&t);
}

/* ---- the helper ---- */

struct flag {
    pthread_mutex_t lock;
    pthread_cond_t set;
    bool begun, go_on;
    unsigned runs;
};

static void hold(void *context)
{
    struct flag *flag = context;
    pthread_mutex_lock(&flag->lock);
    flag->begun = true;
    pthread_cond_broadcast(&flag->set);
    while (!flag->go_on)
        pthread_cond_wait(&flag->set, &flag->lock);
    flag->runs++;
    pthread_mutex_unlock(&flag->lock);
}

static void count(void *context)
{
    ++*(unsigned *)context;
}

/* A job that is not begun is done by who asked, or by nobody; and the helper is then not to be had
 * a while, twice as long each time, until it is worth it again. */
static void test_helper(void **state)
{
    struct helper helper = {.useful = false};
    struct flag flag = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, false, 0};
    struct helper_job holding = {.run = hold, .context = &flag};
    unsigned runs = 0;
    struct helper_job job = {.run = count, .context = &runs};
    (void)state;
    helper_init(&helper);
    helper.useful = true;
    assert_true(helper_ask(&helper));
    assert_false(helper_ask(&helper));
    helper_let_go(&helper);
    assert_true(helper_ask(&helper));
    helper_give(&helper, &holding);
    pthread_mutex_lock(&flag.lock);
    while (!flag.begun)
        pthread_cond_wait(&flag.set, &flag.lock);
    pthread_mutex_unlock(&flag.lock);
    for (unsigned refused = 1; refused <= 4; refused *= 2) {
        helper_let_go(&helper); /* as if it were another's, at which the helper does not come */
        assert_true(helper_ask(&helper));
        unsigned before = runs;
        helper_give(&helper, &job);
        helper_finish(&helper, &job);
        assert_int_equal(runs, before + 1);
        for (unsigned i = 0; i < refused; i++)
            assert_false(helper_ask(&helper));
    }
    assert_true(helper_ask(&helper));
    helper_give(&helper, &job);
    helper_drop(&helper, &job);
    assert_int_equal(runs, 3);
    pthread_mutex_lock(&flag.lock);
    flag.go_on = true;
    pthread_cond_broadcast(&flag.set);
    pthread_mutex_unlock(&flag.lock);
    helper_drop(&helper, &holding);
    assert_int_equal(flag.runs, 1);
    helper_destroy(&helper);
    assert_int_equal(runs, 3); /* none was left to the helper */
}

/* A store that was opened where there is one processor does without it. */
static void test_one_processor(void **state)
{
    struct text text = make_text(LONG_LINES, 150, NULL);
    struct t_store t;
    cpu_set_t all, one;
    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++) {
        if (CPU_ISSET(cpu, &all))
            CPU_SET(cpu, &one);
    }
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    t_store_init(&t);
    t_open(&t);
    uint32_t session = t_session(&t, "s");
    assert_int_equal(append(&t, session, &text), 0);
    assert_numbers(&t, session, 1, text.lines);
    t_store_free(&t);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
    free(text.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_lines),   cmocka_unit_test(test_operations_and_seqs),
        cmocka_unit_test(test_bad_lines),   cmocka_unit_test(test_another_session),
        cmocka_unit_test(test_empty_lines), cmocka_unit_test(test_failing_writes),
        cmocka_unit_test(test_empty_parts), cmocka_unit_test(test_many_at_once),
        cmocka_unit_test(test_helper),      cmocka_unit_test(test_one_processor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
