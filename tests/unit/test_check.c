/* test_check.c - hl_check(): damage of each kind is found without a change to anything, mended, and
 * gone at the next check; the store opens then, and shows all that was not hit. */
#include "support.h"

#include <dirent.h>
#include <inttypes.h>
#include <isa-l/crc64.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../store/format.h"
#include "../../store/frame.h"

#define FOUND_MAX 200

struct found {
    char kind[FOUND_MAX][24];
    char text[FOUND_MAX][200];
    unsigned count, problems, left, actions, ticks;
};

static void take_finding(void *context, const struct hl_finding *finding)
{
    struct found *found = context;
    assert_true(finding->text[0] && finding->kind[0] && finding->file[0]);
    if (finding->left)
        found->left += finding->severity != HL_INFO;
    else
        found->problems += finding->severity != HL_INFO;
    if (found->count < FOUND_MAX) {
        snprintf(found->kind[found->count], sizeof found->kind[0], "%s", finding->kind);
        snprintf(found->text[found->count], sizeof found->text[0], "%s: %s", finding->file,
                 finding->text);
        found->count++;
    }
    if (getenv("HL_TEST_REPORTS"))
        fprintf(stderr, "found%s %s: %s: %s (%" PRIu64 ", %" PRIu64 ")\n",
                finding->left ? " again" : "", finding->kind, finding->file, finding->text,
                finding->offset, finding->size);
}

static void take_action(void *context, const char *sentence)
{
    struct found *found = context;
    found->actions++;
    if (getenv("HL_TEST_REPORTS"))
        fprintf(stderr, "did: %s\n", sentence);
}

static void take_tick(void *context)
{
    struct found *found = context;
    found->ticks++;
}

static int try_check(const char *dir, enum hl_mending mend, bool restore, struct found *found,
                     struct hl_check_report *report)
{
    struct hl_error err = {0};
    struct hl_progress progress = {0};
    struct hl_check check = {
        .mend = mend,
        .restore = restore,
        .progress = &progress,
        .found = take_finding,
        .did = take_action,
        .tick = take_tick,
        .context = found,
    };
    memset(found, 0, sizeof *found);
    int error = hl_check(dir, &check, report, NULL, &err);
    if (error < 0) {
        assert_true(err.text[0]);
        return error;
    }
    assert_int_equal(report->left,
                     mend == HL_MEND_NOTHING || !report->mended ? found->problems : report->left);
    assert_int_equal(report->problems, found->problems);
    return 0;
}

static void check(const char *dir, enum hl_mending mend, bool restore, struct found *found,
                  struct hl_check_report *report)
{
    int error = try_check(dir, mend, restore, found, report);
    if (error < 0)
        fail_msg("check of %s: %s", dir, strerror(-error));
}

static bool has_kind(const struct found *found, const char *kind)
{
    for (unsigned i = 0; i < found->count; i++) {
        if (strcmp(found->kind[i], kind) == 0)
            return true;
    }
    return false;
}

/* ---- all the bytes of a directory ---- */

static uint64_t sum_tree(const char *path, uint64_t sum)
{
    char **names;
    size_t count = t_names(path, "", &names);
    for (size_t i = 0; i < count; i++) {
        char below[T_PATH];
        struct stat st;
        if (strcmp(names[i], ".") == 0 || strcmp(names[i], "..") == 0)
            continue;
        t_path(below, path, "%s", names[i]);
        assert_int_equal(lstat(below, &st), 0);
        sum = crc64_ecma_refl(sum, (const uint8_t *)names[i], strlen(names[i]));
        sum = crc64_ecma_refl(sum, (const uint8_t *)&st.st_mtim, sizeof st.st_mtim);
        if (S_ISDIR(st.st_mode)) {
            sum = sum_tree(below, sum);
        } else {
            size_t len;
            char *bytes = t_file_read(below, &len);
            sum = crc64_ecma_refl(sum, (const uint8_t *)bytes, len);
            free(bytes);
        }
    }
    t_names_free(names, count);
    return sum;
}

/* ---- a store to be damaged ---- */

struct victim {
    struct t_store t;
    struct t_image image;
    char base[T_PATH];
    uint64_t chance;
};

static void some_operations(struct t_store *t, int round)
{
    t_append_format(t, 0,
                    "{\"session_id\":\"d\",\"op\":\"set\",\"key\":\"one\",\"value\":[%d]}\n"
                    "{\"session_id\":\"d\",\"op\":\"set\",\"key\":\"k%d\",\"value\":{\"r\":%d}}\n",
                    round, round, round);
    if (round == 1)
        t_append(
            t, 0,
            "{\"session_id\":\"d\",\"op\":\"checkpoint\",\"state\":{\"x\":[1,2],\"one\":\"two\"}}\n"
            "{\"session_id\":\"d\",\"op\":\"archive\",\"name\":\"old\",\"keys\":[\"x\"]}\n");
    if (round == 2)
        t_append(t, 0, "{\"session_id\":\"d\",\"op\":\"delete\",\"key\":\"k2\"}\n");
}

/* The value of a document, "" if it is not there. */
static void document(struct t_store *t, const char *key, char value[100])
{
    struct hl_document found;
    uint32_t d = t_number(t, "d");
    int error = hl_document_find(t->store, d, HL_AREA_STATE, key, strlen(key), &found);
    value[0] = 0;
    if (error == -ENOENT)
        return;
    assert_int_equal(error, 0);
    ssize_t n = hl_document_read(t->store, d, &found, value, 99, 0);
    assert_true(n > 0);
    value[n - 1] = 0; /* the newline */
}

static void victim_make(struct victim *v, const char *test)
{
    struct t_store *t = &v->t;
    v->chance = t_seed(test);
    t_store_init(t);
    t->options.segment_size = 10 * 1024;
    t_open(t);
    uint32_t a = t_session(t, "a"), b = t_session(t, "b");
    for (int i = 0; i < 4; i++) {
        t_fill(t, a, 20, 4, 200, &v->chance);
        t_fill(t, b, 10, 1, 200, &v->chance);
        t_append_format(t, 0, "{\"session_id\":\"n%d\"}\n{\"session_id\":\"a\"}\n", i);
        some_operations(t, i);
        assert_int_equal(hl_checkpoint(t->store, NULL, &t->err), 0);
    }
    t_image_take(t->store, &v->image);
    t_close(t);
    assert_true(t_last_segment(t) >= 4);
    t_dir_make(v->base);
    t_dir_copy(t->dir, v->base);
}

static void victim_again(struct victim *v)
{
    if (v->t.store)
        t_close(&v->t);
    t_dir_remove(v->t.dir);
    t_dir_copy(v->base, v->t.dir);
}

static void victim_free(struct victim *v)
{
    t_image_free(&v->image);
    t_dir_remove(v->base);
    t_store_free(&v->t);
}

/* What is there is as it was, and no more than `lost` records are not there. */
static void expect_the_rest(struct victim *v, uint64_t lost)
{
    struct t_image now;
    uint64_t gone = 0;
    t_image_take(v->t.store, &now);
    for (size_t i = 0; i < v->image.count; i++) {
        const struct t_session_image *session = &v->image.sessions[i];
        const char *id = session->about.id;
        for (uint64_t k = 0; k < session->about.records; k++) {
            size_t len, len_now;
            uint64_t seq = session->lines[k].seq;
            const char *line = t_image_line(&v->image, id, seq, &len);
            const char *line_now =
                t_image_find(&now, id) ? t_image_line(&now, id, seq, &len_now) : NULL;
            if (!line_now) {
                gone++;
                continue;
            }
            assert_int_equal(len_now, len);
            assert_memory_equal(line_now, line, len);
        }
    }
    if (gone > lost)
        fail_msg("%" PRIu64 " records are gone, of at most %" PRIu64, gone, lost);
    assert_int_equal(now.records, v->image.records - gone);
    assert_int_equal(now.damaged, 0);
    t_image_free(&now);
}

/*
 * The whole course: a check finds it, and changes nothing; mending leaves nothing; then a check
 * finds nothing, the store opens without repair and holds the rest, takes an append, and is clean
 * again.
 */
static void expect_mended(struct victim *v, const char *kind, uint64_t lost)
{
    struct found found;
    struct hl_check_report report;
    uint64_t before = sum_tree(v->t.dir, 0);
    check(v->t.dir, HL_MEND_NOTHING, false, &found, &report);
    if (!has_kind(&found, kind))
        fail_msg("%s was not found; %u others were", kind, found.count);
    assert_true(report.left > 0 && report.problems == report.left && !report.mended);
    assert_int_equal(sum_tree(v->t.dir, 0), before);
    check(v->t.dir, HL_MEND_ALL, false, &found, &report);
    if (report.left > 0)
        fail_msg("%s: %" PRIu64 " problems are left: %s", kind, report.left,
                 found.text[found.count - 1]);
    assert_true(report.problems > 0 && report.mended && found.actions > 0);
    check(v->t.dir, HL_MEND_NOTHING, false, &found, &report);
    if (report.problems > 0)
        fail_msg("%s: after mending: %s", kind, found.text[found.count - 1]);
    t_open(&v->t);
    assert_int_equal(v->t.warnings + v->t.errors, 0);
    expect_the_rest(v, lost);
    t_append(&v->t, 0, "{\"session_id\":\"a\"}\n{\"session_id\":\"later\"}\n");
    t_close(&v->t);
    check(v->t.dir, HL_MEND_NOTHING, false, &found, &report);
    assert_int_equal(report.problems, 0);
}

/* The path of the segment that holds a record, and where in it that lies. */
static void find_record_of(struct victim *v, const char *id, uint64_t seq, char path[T_PATH],
                           uint64_t *offset, uint64_t *size)
{
    struct hl_record record;
    t_open(&v->t);
    assert_int_equal(hl_record_find(v->t.store, t_number(&v->t, id), seq, &record), 0);
    t_segment_path(&v->t, (uint32_t)record.segment, path);
    *offset = record.offset;
    *size = frame_size(record.length);
    t_close(&v->t);
    victim_again(v);
}

static void find_record(struct victim *v, uint64_t seq, char path[T_PATH], uint64_t *offset,
                        uint64_t *size)
{
    find_record_of(v, "a", seq, path, offset, size);
}

/* ---- nothing wrong ---- */

static void test_sound_stores(void **state)
{
    (void)state;
    struct victim v;
    struct found found;
    struct hl_check_report report;
    victim_make(&v, "test_sound_stores");
    for (int way = 0; way < 3; way++) {
        uint64_t before = sum_tree(v.t.dir, 0);
        check(v.t.dir, HL_MEND_NOTHING, false, &found, &report);
        assert_int_equal(sum_tree(v.t.dir, 0), before);
        assert_int_equal(report.problems + found.count, 0);
        assert_int_equal(report.log.records, v.image.records);
        assert_int_equal(report.log.index_missing + report.log.index_dangling, 0);
        assert_int_equal(report.sessions, v.image.count);
        check(v.t.dir, HL_MEND_ALL, true, &found, &report);
        assert_false(report.mended);
        assert_int_equal(found.actions, 0);
        if (way == 2)
            break;
        t_open(&v.t);
        t_fill(&v.t, t_number(&v.t, "a"), 30, 4, 100, &v.chance);
        t_image_free(&v.image);
        t_image_take(v.t.store, &v.image);
        t_crash(&v.t); /* the index is behind the log */
    }
    char empty[T_PATH];
    t_dir_make(empty);
    assert_int_equal(try_check(empty, HL_MEND_NOTHING, false, &found, &report), -ENOENT);
    assert_int_equal(try_check(empty, HL_MEND_ALL, false, &found, &report), -ENOENT);
    t_dir_remove(empty);
    assert_int_equal(try_check(empty, HL_MEND_ALL, false, &found, &report), -ENOENT);
    assert_false(t_exists(empty));
    victim_free(&v);
}

/* A store in use, by this process or another, is not looked at; two checks get on with each other.
 */
static void test_in_use(void **state)
{
    (void)state;
    struct victim v;
    struct found found;
    struct hl_check_report report;
    struct hl_holder holder;
    struct hl_error err;
    struct hl_check request = {.mend = HL_MEND_NOTHING};
    victim_make(&v, "test_in_use");
    t_open(&v.t);
    assert_int_equal(hl_check(v.t.dir, &request, &report, &holder, &err), -EBUSY);
    assert_int_equal(holder.pid, getpid());
    request.mend = HL_MEND_ALL;
    assert_int_equal(hl_check(v.t.dir, &request, &report, &holder, &err), -EBUSY);
    t_close(&v.t);
    v.t.options.read_only = true; /* a reader holds nothing */
    t_open(&v.t);
    check(v.t.dir, HL_MEND_NOTHING, false, &found, &report);
    assert_int_equal(report.problems, 0);
    victim_free(&v);
}

/* ---- damage in the log ---- */

static void test_a_record_hit(void **state)
{
    (void)state;
    struct victim v;
    char path[T_PATH];
    uint64_t offset, size;
    victim_make(&v, "test_a_record_hit");
    find_record(&v, 2, path, &offset, &size);
    t_file_flip(path, offset + 40, 1); /* in the middle of a batch */
    expect_mended(&v, "gap", 1);
    victim_again(&v);
    for (uint64_t i = 0; i < size; i++) { /* the header of the frame too, and all of it zeros */
        uint8_t zero = 0;
        t_file_poke(path, offset + i, &zero, 1);
    }
    expect_mended(&v, "gap", 1);
    victim_again(&v);
    size_t len;
    char *bytes = t_file_read(path, &len); /* another frame was written there */
    t_file_poke(path, offset, bytes + offset + size, size);
    free(bytes);
    expect_mended(&v, "gap", 3);
    victim_free(&v);
}

/* The frame that makes a session: its records bring it back, without owner and mode, unless the
 * index knows it. */
static void test_a_session_frame_hit(void **state)
{
    (void)state;
    struct victim v;
    char path[T_PATH];
    struct hl_session about;
    victim_make(&v, "test_a_session_frame_hit");
    t_segment_path(&v.t, 1, path);
    t_file_flip(path, SEGMENT_HEADER_REGION + 40, 4);
    expect_mended(&v, "gap", 0);
    t_open(&v.t);
    assert_int_equal(hl_session_by_id(v.t.store, "a", 1, &about), 0);
    assert_int_equal(about.mode, 0640);
    victim_free(&v);
}

static void test_headers(void **state)
{
    (void)state;
    struct victim v;
    char path[T_PATH];
    for (uint32_t number = 2;; number = 0) { /* 0: the last one */
        victim_make(&v, "test_headers");
        t_segment_path(&v.t, number, path);
        t_file_flip(path, SEGMENT_HEADER_SECOND + 50, 1);
        expect_mended(&v, "header", 0);
        victim_again(&v);
        t_file_flip(path, SEGMENT_HEADER_FIRST + 50, 1);
        t_file_flip(path, SEGMENT_HEADER_SECOND + 51, 1);
        expect_mended(&v, "header", 0); /* the index has the salt */
        victim_free(&v);
        if (number == 0)
            break;
    }
}

static uint64_t records_of(struct victim *v, uint32_t number)
{
    struct hl_record record;
    uint64_t count = 0;
    t_open(&v->t);
    for (size_t i = 0; i < v->image.count; i++) {
        const struct t_session_image *session = &v->image.sessions[i];
        for (uint64_t k = 0; k < session->about.records; k++) {
            assert_int_equal(
                hl_record_find(v->t.store, session->about.number, session->lines[k].seq, &record),
                0);
            count += record.segment == number;
        }
    }
    t_close(&v->t);
    victim_again(v);
    return count;
}

static void lose(struct victim *v, const char *name)
{
    char path[T_PATH];
    t_path(path, v->t.dir, "%s", name);
    t_dir_remove(path);
}

static void test_headers_without_an_index(void **state)
{
    (void)state;
    struct victim v;
    char path[T_PATH];
    victim_make(&v, "test_headers_without_an_index");
    uint64_t lost = records_of(&v, 2);
    lose(&v, "index");
    t_segment_path(&v.t, 2, path);
    t_file_cut(path, 100);
    expect_mended(&v, "header", lost);
    victim_free(&v);
}

static void test_missing_segments(void **state)
{
    (void)state;
    struct victim v;
    char path[T_PATH];
    victim_make(&v, "test_missing_segments");
    uint32_t last = t_last_segment(&v.t);
    uint64_t lost = records_of(&v, 2), more = records_of(&v, 3), end = records_of(&v, last);
    t_segment_path(&v.t, 2, path);
    assert_int_equal(unlink(path), 0);
    expect_mended(&v, "missing", lost);
    victim_again(&v);
    t_segment_path(&v.t, 2, path);
    assert_int_equal(unlink(path), 0);
    t_segment_path(&v.t, 3, path);
    assert_int_equal(unlink(path), 0);
    lose(&v, "index");
    lose(&v, "checkpoints");
    expect_mended(&v, "missing", lost + more);
    victim_again(&v); /* the last: only the index knows of it */
    t_segment_path(&v.t, last, path);
    assert_int_equal(unlink(path), 0);
    expect_mended(&v, end > 0 ? "missing" : "index", end);
    victim_free(&v);
}

static void test_cut_and_changed_ends(void **state)
{
    (void)state;
    struct victim v;
    char path[T_PATH];
    victim_make(&v, "test_cut_and_changed_ends");
    t_segment_path(&v.t, 2, path);
    uint64_t size = t_file_size(path);
    t_file_flip(path, size - 10, 1); /* the seal */
    expect_mended(&v, "seal", 0);
    victim_again(&v);
    t_file_cut(path, size - 100); /* the seal and the end of a record, at most of a batch */
    expect_mended(&v, "seal", 4);
    victim_again(&v);
    t_file_append(path, "what does not belong here", 25);
    struct found found;
    struct hl_check_report report;
    check(v.t.dir, HL_MEND_NOTHING, false, &found, &report);
    assert_true(has_kind(&found, "gap"));
    expect_mended(&v, "gap", 0);
    victim_free(&v);
}

static void test_torn_tail(void **state)
{
    (void)state;
    struct victim v;
    char path[T_PATH];
    victim_make(&v, "test_torn_tail");
    t_open(&v.t);
    t_append(&v.t, t_number(&v.t, "a"), "last\n");
    t_append(&v.t, t_number(&v.t, "a"), "one\ntwo\nthree\n");
    t_image_free(&v.image);
    t_image_take(v.t.store, &v.image);
    t_crash(&v.t);
    t_segment_path(&v.t, 0, path);
    t_dir_remove(v.base);
    t_dir_copy(v.t.dir, v.base);
    t_file_cut(path, t_file_size(path) - 8); /* into the last frame of the batch */
    expect_mended(&v, "torn-tail", 3);
    victim_again(&v);
    t_file_append(path, "\x01torn", 5);
    expect_mended(&v, "torn-tail", 0);
    victim_again(&v);
    uint64_t size = t_file_size(path);
    t_file_flip(path, size - 10, 1);
    expect_mended(&v, "torn-tail", 3);
    victim_again(&v);
    struct found found; /* blank bytes are no damage */
    struct hl_check_report report;
    char zeros[4096] = {0};
    t_file_append(path, zeros, sizeof zeros);
    check(v.t.dir, HL_MEND_NOTHING, false, &found, &report);
    assert_int_equal(report.problems, 0);
    victim_free(&v);
}

/* Damage with whole batches behind it, in the segment that is appended to. */
static void test_a_hole_in_the_last_segment(void **state)
{
    (void)state;
    struct victim v;
    char path[T_PATH];
    struct hl_record record;
    victim_make(&v, "test_a_hole_in_the_last_segment");
    t_open(&v.t);
    uint32_t a = t_number(&v.t, "a");
    t_append(&v.t, a, "{\"seq\":5000}\n{\"seq\":5001}\n");
    t_append(&v.t, a, "{\"seq\":5002}\n");
    assert_int_equal(hl_record_find(v.t.store, a, 5001, &record), 0);
    t_segment_path(&v.t, (uint32_t)record.segment, path);
    t_close(&v.t);
    t_dir_remove(v.base);
    t_dir_copy(v.t.dir, v.base);
    t_segment_path(&v.t, 0, path);
    t_file_flip(path, record.offset + 33, 1);
    struct found found;
    struct hl_check_report report;
    check(v.t.dir, HL_MEND_NOTHING, false, &found, &report);
    assert_true(has_kind(&found, "gap"));
    check(v.t.dir, HL_MEND_ALL, false, &found, &report);
    assert_int_equal(report.left, 0);
    t_open(&v.t);
    assert_int_equal(hl_record_find(v.t.store, a, 5000, &record), -ENOENT); /* all or none */
    assert_int_equal(hl_record_find(v.t.store, a, 5002, &record), 0);
    victim_free(&v);
}

/* Bits flip anywhere in the segments: whatever that is, it is mended, and costs few records. */
static uint64_t count_text(const struct found *found, const char *part)
{
    uint64_t count = 0;
    for (size_t i = 0; i < found->count; i++)
        count += strstr(found->text[i], part) != NULL;
    return count;
}

static void test_bits_flipped_in_the_log(void **state)
{
    (void)state;
    struct victim v;
    struct found found;
    struct hl_check_report report;
    victim_make(&v, "test_bits_flipped_in_the_log");
    uint32_t last = t_last_segment(&v.t);
    for (unsigned round = 0; round < t_amount("ROUNDS", t_slow() ? 6 : 40); round++) {
        char path[T_PATH];
        unsigned flips = 1U << t_below(&v.chance, 4);
        victim_again(&v);
        for (unsigned i = 0; i < flips; i++) {
            t_segment_path(&v.t, 1 + (uint32_t)t_below(&v.chance, last), path);
            t_file_flip(path, t_below(&v.chance, t_file_size(path)),
                        (uint8_t)(1U << t_below(&v.chance, 8)));
        }
        check(v.t.dir, HL_MEND_NOTHING, false, &found, &report);
        if (report.problems == 0)
            continue; /* blank bytes of a header */
        check(v.t.dir, HL_MEND_ALL, false, &found, &report);
        /* Owner and mode of a session whose frame was hit are lost: that is told, and stays so. */
        uint64_t gone = count_text(&found, "the frame that makes session");
        if (report.left > gone)
            fail_msg("left: %s", found.text[found.count - 1]);
        t_open(&v.t);
        expect_the_rest(&v, (uint64_t)flips * 5);
        t_close(&v.t);
        check(v.t.dir, HL_MEND_NOTHING, false, &found, &report);
        assert_true(report.problems <= count_text(&found, "the frame that makes session"));
    }
    victim_free(&v);
}

/* ---- the index and its copies ---- */

static void test_index(void **state)
{
    (void)state;
    struct victim v;
    struct found found;
    struct hl_check_report report;
    char path[T_PATH], older[T_PATH];
    victim_make(&v, "test_index");
    lose(&v, "index");
    expect_mended(&v, "index", 0);
    victim_again(&v);
    lose(&v, "index");
    lose(&v, "checkpoints");
    expect_mended(&v, "index", 0);
    victim_again(&v);
    t_path(path, v.t.dir, "index/data.mdb");
    t_file_cut(path, 5000);
    expect_mended(&v, "index", 0);
    /* One of an older commit is only behind. */
    t_dir_make(older);
    victim_again(&v);
    t_path(path, v.t.dir, "index");
    t_dir_copy(path, older);
    t_open(&v.t);
    t_append(&v.t, t_number(&v.t, "a"), "more\n");
    t_image_free(&v.image);
    t_image_take(v.t.store, &v.image);
    t_close(&v.t);
    lose(&v, "index");
    t_dir_copy(older, path);
    check(v.t.dir, HL_MEND_NOTHING, false, &found, &report);
    assert_int_equal(report.problems, 0);
    t_open(&v.t);
    t_shows(v.t.store, &v.image);
    t_dir_remove(older);
    victim_free(&v);
}

static void test_bits_flipped_in_the_index(void **state)
{
    (void)state;
    struct victim v;
    struct found found;
    struct hl_check_report report;
    char path[T_PATH];
    unsigned hit = 0;
    victim_make(&v, "test_bits_flipped_in_the_index");
    for (unsigned round = 0; round < t_amount("ROUNDS", t_slow() ? 6 : 40); round++) {
        victim_again(&v);
        t_path(path, v.t.dir, "index/data.mdb");
        uint64_t size = t_file_size(path);
        unsigned flips = round == 0 ? 1000 : 1U << t_below(&v.chance, 6);
        for (; flips > 0; flips--)
            t_file_flip(path, t_below(&v.chance, size), (uint8_t)(1U << t_below(&v.chance, 8)));
        check(v.t.dir, HL_MEND_ALL, false, &found, &report);
        assert_int_equal(report.left, 0);
        hit += report.problems > 0;
        t_open(&v.t);
        t_shows(v.t.store, &v.image);
    }
    assert_true(hit > 0);
    victim_free(&v);
}

static void test_checkpoints(void **state)
{
    (void)state;
    struct victim v;
    char folder[T_PATH], path[T_PATH], **names;
    victim_make(&v, "test_checkpoints");
    t_path(folder, v.t.dir, "checkpoints");
    size_t count = t_names(folder, ".ckpt", &names);
    assert_int_equal(count, 3);
    for (size_t i = 0; i < count; i++) {
        victim_again(&v);
        t_path(path, folder, "%s", names[i]);
        t_file_flip(path, t_below(&v.chance, t_file_size(path)), 8);
        expect_mended(&v, "checkpoint", 0);
    }
    t_names_free(names, count);
    victim_free(&v);
}

/* Puts a void frame in the place of a record. */
static void make_void(const char *path, uint64_t offset, uint64_t size)
{
    struct frame blank = {.length = (uint32_t)size - FRAME_HEADER_SIZE,
                          .type = FRAME_VOID,
                          .flags = FRAME_FIRST_OF_BATCH | FRAME_LAST_OF_BATCH};
    struct segment_header stored, header;
    uint32_t unknown;
    size_t len;
    char *bytes = t_file_read(path, &len);
    memcpy(&stored, bytes, sizeof stored);
    assert_int_equal(header_parse(&stored, &header, &unknown), 0);
    memset(bytes + offset + FRAME_HEADER_SIZE, ' ', blank.length);
    frame_finish((uint8_t *)bytes + offset, header.salt, offset, &blank);
    t_file_poke(path, offset, bytes + offset, size);
    free(bytes);
}

/* The log lost records behind the index's back, and was made whole without them: every checksum is
 * good, and only entry by entry the index is seen to be wrong. */
static void test_entries_that_lead_nowhere(void **state)
{
    (void)state;
    struct victim v;
    char path[T_PATH];
    uint64_t offset, size;
    victim_make(&v, "test_entries_that_lead_nowhere");
    find_record(&v, 2, path, &offset, &size);
    make_void(path, offset, size);
    struct found found;
    struct hl_check_report report;
    check(v.t.dir, HL_MEND_NOTHING, false, &found, &report);
    assert_int_equal(report.log.index_dangling, 1);
    assert_true(has_kind(&found, "index"));
    expect_mended(&v, "index", 1);
    victim_free(&v);
}

/* The record that holds a document's value is lost: the document becomes what it was before. */
static void test_documents(void **state)
{
    (void)state;
    struct victim v;
    char path[T_PATH], value[100];
    uint64_t offset, size;
    victim_make(&v, "test_documents");
    t_open(&v.t);
    document(&v.t, "one", value);
    assert_string_equal(value, "[3]");
    document(&v.t, "k2", value);
    assert_string_equal(value, "");
    struct hl_document one;
    assert_int_equal(
        hl_document_find(v.t.store, t_number(&v.t, "d"), HL_AREA_STATE, "one", 3, &one), 0);
    t_close(&v.t);
    victim_again(&v);
    for (int way = 0; way < 2; way++) {
        find_record_of(&v, "d", one.seq, path, &offset, &size);
        if (way == 0)
            t_file_flip(path, offset + 50, 2);
        else
            make_void(path, offset, size);
        struct found found;
        struct hl_check_report report;
        check(v.t.dir, HL_MEND_NOTHING, false, &found, &report);
        assert_true(has_kind(&found, "document"));
        check(v.t.dir, HL_MEND_ALL, false, &found, &report);
        assert_int_equal(report.left, 0);
        t_open(&v.t);
        document(&v.t, "one", value);
        assert_string_equal(value, "[2]");
        document(&v.t, "k1", value);
        assert_string_equal(value, "");
        victim_again(&v);
    }
    victim_free(&v);
}

/* ---- how much is mended ---- */

static void test_safely(void **state)
{
    (void)state;
    struct victim v;
    struct found found;
    struct hl_check_report report;
    char path[T_PATH];
    uint64_t offset, size;
    victim_make(&v, "test_safely");
    find_record(&v, 2, path, &offset, &size);
    size_t len, len_now;
    t_file_flip(path, offset + 40, 1);
    char *before = t_file_read(path, &len);
    char last[T_PATH];
    t_segment_path(&v.t, 0, last);
    t_file_append(last, "torn", 4);
    check(v.t.dir, HL_MEND_SAFELY, false, &found, &report);
    assert_true(report.mended);
    assert_int_equal(report.left, 1); /* the gap; not the tail, nor the index */
    char *after = t_file_read(path, &len_now);
    assert_int_equal(len_now, len);
    assert_memory_equal(after, before, len);
    free(before);
    free(after);
    expect_mended(&v, "gap", 1);
    victim_free(&v);
}

/* Each call fails: the check says so, and what it left can be checked and mended again. */
static void test_fails_at_each_call(void **state)
{
    (void)state;
    struct victim v;
    struct t_io io;
    char path[T_PATH];
    uint64_t offset, size;
    bool failed = true;
    victim_make(&v, "test_fails_at_each_call");
    find_record(&v, 2, path, &offset, &size);
    t_file_flip(path, offset + 40, 1);
    t_segment_path(&v.t, 3, path);
    assert_int_equal(unlink(path), 0);
    t_dir_remove(v.base);
    t_dir_copy(v.t.dir, v.base);
    uint64_t lost = 1;
    {
        struct hl_check_report report;
        struct found found;
        check(v.t.dir, HL_MEND_ALL, false, &found, &report);
        assert_int_equal(report.left, 0);
        lost = v.image.records - report.log.records;
    }
    t_io_init(&io);
    unsigned calls = 1U << T_PWRITE | 1U << T_FSYNC | 1U << T_RENAME | 1U << T_LINK |
                     1U << T_MKDIR | 1U << T_FTRUNCATE | 1U << T_OPEN;
    for (uint64_t nth = 1; failed; nth += 1 + t_below(&v.chance, t_slow() ? 12 : 4)) {
        struct hl_check_report report;
        struct hl_error err = {0};
        struct found found = {0};
        struct hl_check request = {
            .mend = HL_MEND_ALL, .io = &io.io, .found = take_finding, .context = &found};
        victim_again(&v);
        t_io_fail(&io, calls, NULL, nth, UINT64_MAX, -EIO);
        int error = hl_check(v.t.dir, &request, &report, NULL, &err);
        failed = t_io_failed(&io) > 0;
        t_io_heal(&io);
        assert_true(failed || (error == 0 && report.left == 0));
        assert_true(error == 0 || err.text[0]);
        check(v.t.dir, HL_MEND_ALL, false, &found, &report);
        assert_int_equal(report.left, 0);
        t_open(&v.t);
        expect_the_rest(&v, lost);
    }
    t_io_free(&io);
    victim_free(&v);
}

static void test_cancelled(void **state)
{
    (void)state;
    struct victim v;
    struct hl_check_report report;
    struct hl_progress progress = {0};
    struct hl_error err = {0};
    struct hl_check request = {.progress = &progress};
    victim_make(&v, "test_cancelled");
    atomic_store(&progress.cancel, true);
    assert_int_equal(hl_check(v.t.dir, &request, &report, NULL, &err), -EINTR);
    assert_true(err.text[0]);
    victim_free(&v);
}

/* ---- put back from backup/ and snapshots/ ---- */

static void move_to_backup(const struct victim *v, uint32_t number)
{
    char from[T_PATH], to[T_PATH];
    t_segment_path(&v->t, number, from);
    t_path(to, v->t.dir, "backup");
    if (!t_exists(to))
        assert_int_equal(mkdir(to, 0700), 0);
    t_path(to, v->t.dir, "backup/%08x-%08x.0.seg", number, number);
    assert_int_equal(rename(from, to), 0);
}

/* A compacted segment turns out to be bad: those that it was made of are put back. */
static void test_restored_from_backup(void **state)
{
    (void)state;
    for (int way = 0; way < 3; way++) {
        struct victim v;
        struct found found;
        struct hl_check_report report;
        char path[T_PATH], one[T_PATH];
        victim_make(&v, "test_restored_from_backup");
        t_compact(&v.t, 1, 3, 1, path);
        for (uint32_t number = 1; number <= 3; number++)
            move_to_backup(&v, number);
        t_open(&v.t);
        t_shows(v.t.store, &v.image);
        t_close(&v.t);
        if (way == 0)
            t_file_flip(path, t_file_size(path) / 2, 1);
        else if (way == 1)
            t_file_cut(path, 700);
        else
            assert_int_equal(unlink(path), 0);
        check(v.t.dir, HL_MEND_ALL, true, &found, &report);
        assert_int_equal(report.left, 0);
        assert_true(report.problems > 0);
        t_open(&v.t);
        assert_int_equal(v.t.warnings + v.t.errors, 0);
        t_shows(v.t.store, &v.image);
        t_segment_path(&v.t, 2, one);
        assert_true(t_exists(one));
        assert_false(t_exists(path));
        t_path(one, v.t.dir, "backup/00000002-00000002.0.seg");
        assert_true(t_exists(one));
        t_close(&v.t);
        check(v.t.dir, HL_MEND_NOTHING, false, &found, &report);
        assert_int_equal(report.problems, 0);
        victim_free(&v);
    }
}

/* A backup that is itself bad, or does not hold all of it, is not put back. */
static void test_bad_backups_are_not_put_back(void **state)
{
    (void)state;
    for (int way = 0; way < 2; way++) {
        struct victim v;
        struct found found;
        struct hl_check_report report;
        char path[T_PATH], one[T_PATH];
        victim_make(&v, "test_bad_backups_are_not_put_back");
        t_compact(&v.t, 1, 3, 1, path);
        for (uint32_t number = 1; number <= 3; number++)
            move_to_backup(&v, number);
        t_open(&v.t);
        t_close(&v.t);
        t_path(one, v.t.dir, "backup/00000002-00000002.0.seg");
        if (way == 0)
            t_file_flip(one, 2000, 1);
        else
            assert_int_equal(unlink(one), 0);
        t_file_flip(path, t_file_size(path) / 2, 1);
        check(v.t.dir, HL_MEND_ALL, true, &found, &report);
        assert_int_equal(report.left, 0);
        assert_true(t_exists(path)); /* mended as well as can be */
        t_segment_path(&v.t, 1, one);
        assert_false(t_exists(one));
        t_open(&v.t);
        expect_the_rest(&v, 1);
        victim_free(&v);
    }
}

/* The file of a snapshot that was copied, not linked, is sound still; that of another one with the
 * same name, which a snapshot made when it went on by itself, is not taken for it. */
static void test_restored_from_a_snapshot(void **state)
{
    (void)state;
    struct victim v;
    struct found found;
    struct hl_check_report report;
    struct t_io io;
    struct hl_store *store;
    char path[T_PATH], dir[T_PATH];
    uint64_t offset, size;
    victim_make(&v, "test_restored_from_a_snapshot");
    find_record(&v, 2, path, &offset, &size);
    t_io_init(&io);
    v.t.options.io = &io.io;
    t_open(&v.t);
    t_io_fail(&io, 1U << T_LINK, NULL, 1, UINT64_MAX, -EXDEV);
    assert_int_equal(hl_snapshot(v.t.store, "copy", NULL, &v.t.err), 0);
    t_io_heal(&io);
    uint32_t last = t_last_segment(&v.t) + 1;
    t_append(&v.t, t_number(&v.t, "a"), "mine\n");
    assert_int_equal(hl_rotate(v.t.store, &v.t.err), 0);
    t_image_free(&v.image);
    t_image_take(v.t.store, &v.image);
    t_close(&v.t);
    v.t.options.io = NULL;
    t_io_free(&io);
    t_path(dir, v.t.dir, "snapshots/copy"); /* it goes on, to a segment of the same name */
    struct hl_options options;
    hl_options_init(&options);
    assert_int_equal(hl_store_open(dir, &options, &store, NULL, NULL), 0);
    struct hl_append request = {.data = "{\"session_id\":\"a\"}\n", .len = 19, .mode = 0700};
    assert_int_equal(hl_append(store, &request, NULL), 0);
    assert_int_equal(hl_rotate(store, NULL), 0);
    assert_int_equal(hl_store_close(store), 0);
    t_segment_path(&v.t, (uint32_t)strtoul(strrchr(path, '/') + 1, NULL, 16), path);
    t_file_flip(path, offset + 40, 1);
    char mine[T_PATH];
    t_segment_path(&v.t, last, mine);
    t_file_flip(mine, SEGMENT_HEADER_REGION + 40, 1);
    check(v.t.dir, HL_MEND_ALL, true, &found, &report);
    assert_int_equal(report.left, 0);
    t_open(&v.t);
    expect_the_rest(&v, 1); /* "mine" */
    victim_free(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sound_stores),
        cmocka_unit_test(test_in_use),
        cmocka_unit_test(test_a_record_hit),
        cmocka_unit_test(test_a_session_frame_hit),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_headers_without_an_index),
        cmocka_unit_test(test_missing_segments),
        cmocka_unit_test(test_cut_and_changed_ends),
        cmocka_unit_test(test_torn_tail),
        cmocka_unit_test(test_a_hole_in_the_last_segment),
        cmocka_unit_test(test_bits_flipped_in_the_log),
        cmocka_unit_test(test_index),
        cmocka_unit_test(test_bits_flipped_in_the_index),
        cmocka_unit_test(test_checkpoints),
        cmocka_unit_test(test_entries_that_lead_nowhere),
        cmocka_unit_test(test_documents),
        cmocka_unit_test(test_safely),
        cmocka_unit_test(test_fails_at_each_call),
        cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_restored_from_backup),
        cmocka_unit_test(test_bad_backups_are_not_put_back),
        cmocka_unit_test(test_restored_from_a_snapshot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
