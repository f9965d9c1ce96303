/* test_backup.c - store/backup.c: what compaction replaced, when it comes back: copied to log/ by
 * hand, or put back by a check where its successor is damaged. Nothing that was dropped, deleted
 * or undone comes back with it. */
#include "support.h"

#include "../../store/format.h"

#define KEYS 5 /* the last is set first, deleted then, and never set again */
#define ROUNDS 5

/* What must be there, whichever segments are. */
struct expected {
    struct t_image image;
    char value[KEYS][64]; /* "": absent */
};

static void find_value(struct t_store *t, unsigned k, char value[64])
{
    struct hl_document document;
    char key[8];
    snprintf(key, sizeof key, "k%u", k);
    value[0] = 0;
    int error =
        hl_document_find(t->store, t_number(t, "d"), HL_AREA_STATE, key, strlen(key), &document);
    if (error == -ENOENT)
        return;
    assert_int_equal(error, 0);
    ssize_t n = hl_document_read(t->store, t_number(t, "d"), &document, value, 63, 0);
    assert_true(n > 0);
    value[n - 1] = 0;
}

static void take_expected(struct t_store *t, struct expected *expected)
{
    t_image_take(t->store, &expected->image);
    for (unsigned k = 0; k < KEYS; k++)
        find_value(t, k, expected->value[k]);
}

static struct hl_compacted compact(struct t_store *t)
{
    struct hl_compact what = {.everything = true};
    struct hl_compacted result;
    if (hl_compact(t->store, &what, NULL, &result, &t->err) < 0)
        fail_msg("compact: %s", t->err.text);
    return result;
}

static uint64_t last_seq(struct t_store *t, const char *id)
{
    struct hl_session about;
    assert_int_equal(hl_session_by_id(t->store, id, strlen(id), &about), 0);
    return about.last_seq;
}

static void trim(struct t_store *t, const char *id, uint64_t below)
{
    if (hl_trim(t->store, t_number(t, id), below, NULL, &t->err) < 0)
        fail_msg("trim: %s", t->err.text);
}

/* Some of it hides what earlier rounds did, and the segments of these are rewritten before and
 * after it. */
static uint64_t a_round(struct t_store *t, unsigned round, uint64_t *chance)
{
    uint32_t a = t_number(t, "a"), d = t_number(t, "d");
    t_fill(t, a, 30, 7, 100, chance);
    if (round < 2)
        t_append(t, d,
                 round == 0 ? "{\"op\":\"set\",\"key\":\"k4\",\"value\":4}\n"
                            : "{\"op\":\"delete\",\"key\":\"k4\"}\n");
    for (unsigned i = 0; i < 8; i++) {
        unsigned k = (unsigned)t_below(chance, KEYS - 1);
        if (i == 3 || i == 4) {
            t_append_format(t, d, "{\"op\":\"set\",\"key\":\"k%u\",\"value\":\"undone\"}\n", k);
            assert_int_equal(hl_undo(t->store, d, 1, NULL, NULL, &t->err), 0);
        } else if (t_below(chance, 3) == 0) {
            t_append_format(t, d, "{\"op\":\"delete\",\"key\":\"k%u\"}\n", k);
        } else {
            t_append_format(t, d, "{\"op\":\"set\",\"key\":\"k%u\",\"value\":%u}\n", k, i);
        }
        if (i == 3)
            assert_int_equal(hl_rotate(t->store, &t->err), 0);
    }
    uint32_t gone = t_session(t, "gone"); /* again and again */
    t_fill(t, gone, 10, 10, 50, chance);
    assert_int_equal(hl_rotate(t->store, &t->err), 0);
    assert_int_equal(hl_delete(t->store, gone, NULL, &t->err), 0);
    trim(t, "a", last_seq(t, "a") - t_below(chance, 50));
    if (round > 0)
        t_append_format(t, d, "{\"op\":\"delete\",\"key\":\"k%u\"}\n", round % (KEYS - 1));
    assert_int_equal(hl_rotate(t->store, &t->err), 0);
    return round % 2 == 0 ? compact(t).records_dropped : 0;
}

static void make_base(struct t_store *t, struct expected *expected, uint64_t *chance)
{
    t_store_init(t);
    t->options.segment_size = 4 * 1024; /* so that few of them become one */
    t->options.history_ms = 0;
    t->options.compact_interval_ms = 0;
    t->options.backups = 100;
    t_open(t);
    t_session(t, "a");
    t_session(t, "d");
    uint64_t dropped = 0;
    for (unsigned round = 0; round < ROUNDS; round++)
        dropped += a_round(t, round, chance);
    assert_true(dropped > 0); /* superseded operations too */
    assert_int_equal(hl_checkpoint(t->store, NULL, &t->err), 0);
    take_expected(t, expected);
    t_close(t);
}

static void copy_store(const struct t_store *from, struct t_store *to)
{
    t_store_init(to);
    to->options = from->options;
    to->options.report_context = to;
    t_dir_remove(to->dir);
    t_dir_copy(from->dir, to->dir);
}

static void copy_back(const struct t_store *t, const char *name)
{
    char path[T_PATH];
    size_t len;
    t_path(path, t->dir, "backup/%s", name);
    char *bytes = t_file_read(path, &len);
    t_path(path, t->dir, "log/%s", name);
    assert_false(t_exists(path));
    t_file_write(path, bytes, len);
    free(bytes);
}

static void lose_index(const struct t_store *t, bool checkpoints)
{
    char path[T_PATH];
    t_path(path, t->dir, "index");
    t_dir_remove(path);
    t_path(path, t->dir, "checkpoints");
    if (checkpoints)
        t_dir_remove(path);
}

static void seqs_go_on(struct t_store *t, const struct expected *expected)
{
    static const char *const ids[] = {"a", "d"};
    for (unsigned i = 0; i < 2; i++) {
        const struct t_session_image *was = t_image_find(&expected->image, ids[i]);
        assert_int_equal(last_seq(t, ids[i]), was->about.last_seq);
        t_append(t, t_number(t, ids[i]), "next\n");
        assert_int_equal(last_seq(t, ids[i]), was->about.last_seq + 1);
    }
}

/* Documents as they were, no session and no event more. Operations that were only superseded may
 * be there again. */
static void nothing_came_back(struct t_store *t, const struct expected *expected)
{
    struct t_image now;
    char value[64];
    for (unsigned k = 0; k < KEYS; k++) {
        find_value(t, k, value);
        assert_string_equal(value, expected->value[k]);
    }
    t_image_take(t->store, &now);
    assert_int_equal(now.count, expected->image.count);
    const struct t_session_image *was = t_image_find(&expected->image, "a");
    const struct t_session_image *is = t_image_find(&now, "a");
    assert_non_null(is);
    assert_int_equal(is->log_len, was->log_len);
    assert_memory_equal(is->log, was->log, was->log_len);
    assert_int_equal(now.damaged, 0);
    t_image_free(&now);
}

static void copied_back_by_hand(void **state)
{
    (void)state;
    uint64_t chance = t_seed("backup");
    struct t_store base;
    struct expected expected;
    char path[T_PATH], **names;
    make_base(&base, &expected, &chance);
    t_path(path, base.dir, "backup");
    size_t count = t_names(path, ".seg", &names);
    assert_true(count > 4);
    for (size_t i = 0; i <= count; i++) { /* one after another, and all at once */
        for (unsigned loss = 0; loss < 3; loss++) {
            struct t_store t;
            copy_store(&base, &t);
            for (size_t k = i % count; k < (i < count ? i + 1 : count); k++)
                copy_back(&t, names[k]);
            if (loss > 0)
                lose_index(&t, loss > 1);
            t_open(&t);
            assert_int_equal(t.errors, 0);
            for (size_t k = i % count; k < (i < count ? i + 1 : count); k++) {
                t_path(path, t.dir, "log/%s", names[k]);
                assert_false(t_exists(path));
                t_path(path, t.dir, "backup/%s", names[k]);
                assert_true(t_exists(path));
            }
            t_shows(t.store, &expected.image);
            nothing_came_back(&t, &expected);
            seqs_go_on(&t, &expected);
            t_check_log(&t);
            t_close(&t);
            t_store_free(&t);
        }
    }
    t_names_free(names, count);
    t_image_free(&expected.image);
    t_store_free(&base);
}

static void check_restoring(const char *dir)
{
    struct hl_error err = {0};
    struct hl_check check = {.mend = HL_MEND_ALL, .restore = true};
    struct hl_check_report report;
    if (hl_check(dir, &check, &report, NULL, &err) < 0)
        fail_msg("check: %s", err.text);
    assert_true(report.problems > 0);
    assert_int_equal(report.left, 0);
}

/* The live segment that took the place of a file of backup/. */
static void find_successor(const struct t_store *t, const char *name, char path[T_PATH])
{
    char log[T_PATH], **names;
    unsigned first = 0, last = 0;
    char *end;
    first = (unsigned)strtoul(name, &end, 16);
    last = (unsigned)strtoul(end + 1, NULL, 16);
    t_path(log, t->dir, "log");
    size_t count = t_names(log, ".seg", &names);
    path[0] = 0;
    for (size_t i = 0; i < count; i++) {
        unsigned from = (unsigned)strtoul(names[i], &end, 16);
        if (from <= first && last <= (unsigned)strtoul(end + 1, NULL, 16))
            t_path(path, log, "%s", names[i]);
    }
    t_names_free(names, count);
    assert_true(path[0]);
}

/* The successor of each is damaged, and a check puts back what there is in backup/; with the old
 * file copied to log/ by hand before, and without. */
static void put_back_for_a_damaged_successor(void **state)
{
    (void)state;
    uint64_t chance = t_seed("backup");
    struct t_store base;
    struct expected expected;
    char path[T_PATH], **names;
    make_base(&base, &expected, &chance);
    t_path(path, base.dir, "backup");
    size_t count = t_names(path, ".seg", &names);
    assert_true(count > 4);
    for (size_t i = 0; i < count; i++) {
        for (unsigned by_hand = 0; by_hand < 2; by_hand++) {
            struct t_store t;
            copy_store(&base, &t);
            find_successor(&t, names[i], path);
            if (by_hand)
                copy_back(&t, names[i]);
            uint64_t at =
                SEGMENT_HEADER_REGION + t_below(&chance, t_file_size(path) - SEGMENT_HEADER_REGION);
            t_file_flip(path, at, (uint8_t)(1U << t_below(&chance, 8)));
            check_restoring(t.dir);
            t_open(&t);
            assert_int_equal(t.errors, 0);
            nothing_came_back(&t, &expected);
            seqs_go_on(&t, &expected);
            t_close(&t);
            lose_index(&t, true); /* nor when all is read anew, or compacted again */
            t_open(&t);
            t_append(&t, t_number(&t, "a"), "and\n");
            compact(&t);
            for (unsigned k = 0; k < KEYS; k++) {
                char value[64];
                find_value(&t, k, value);
                assert_string_equal(value, expected.value[k]);
            }
            t_check_log(&t);
            t_close(&t);
            t_store_free(&t);
        }
    }
    t_names_free(names, count);
    t_image_free(&expected.image);
    t_store_free(&base);
}

/* Nothing of it is left but that it is there: seqs are not given again. */
static void trimmed_to_nothing(void **state)
{
    (void)state;
    uint64_t chance = t_seed("backup");
    struct t_store t;
    struct hl_session about;
    t_store_init(&t);
    t.options.segment_size = 16 * 1024;
    t.options.backups = 0;
    t_open(&t);
    uint32_t a = t_session(&t, "a"), b = t_session(&t, "b");
    t_fill(&t, a, 200, 7, 200, &chance);
    t_fill(&t, b, 20, 7, 200, &chance);
    hl_session_change(t.store, a, HL_CHANGE_MODE, 0, 0, 0600, &about);
    uint64_t last = last_seq(&t, "a");
    for (unsigned round = 0; round < 3; round++) {
        size_t len;
        trim(&t, "a", last + 1);
        assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
        assert_true(compact(&t).segments_before > 0);
        t_close(&t);
        lose_index(&t, true);
        t_open(&t);
        assert_int_equal(hl_session_by_id(t.store, "a", 1, &about), 0);
        assert_int_equal(about.number, a);
        assert_int_equal(about.records, 0);
        assert_int_equal(about.last_seq, last);
        assert_int_equal(about.mode & 0777, 0600);
        char *log = t_log(t.store, a, 4096, &len);
        assert_int_equal(len, 0);
        free(log);
        t_append(&t, a, "next\n");
        assert_int_equal(last_seq(&t, "a"), ++last);
        t_reopen(&t);
        assert_int_equal(last_seq(&t, "a"), last);
        t_check_log(&t);
    }
    assert_int_equal(hl_session_by_number(t.store, b, &about), 0);
    assert_int_equal(about.records, 20);
    t_close(&t);
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copied_back_by_hand),
        cmocka_unit_test(put_back_for_a_damaged_successor),
        cmocka_unit_test(trimmed_to_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
