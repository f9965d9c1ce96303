/* test_compact.c - store/compact.c and its parts: what is dead goes, and nothing else changes. */
#include "support.h"

#include <fcntl.h>
#include <inttypes.h>
#include <unistd.h>

static void drop(struct t_store *t, uint32_t session, uint64_t below)
{
    if (hl_trim(t->store, session, below, NULL, &t->err) < 0)
        fail_msg("trim: %s", t->err.text);
}

static struct hl_compacted compact(struct t_store *t)
{
    struct hl_compact what = {.everything = true};
    struct hl_compacted result;
    int error = hl_compact(t->store, &what, NULL, &result, &t->err);
    if (error < 0)
        fail_msg("compact: %s", t->err.text);
    return result;
}

static void nothing_dead_nothing_done(void **state)
{
    (void)state;
    uint64_t chance = t_seed("compact");
    struct t_store t;
    struct t_image before;
    t_store_init(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    t_fill(&t, s, 2000, 10, 100, &chance);
    t_image_take(t.store, &before);
    struct hl_compacted result = compact(&t);
    assert_int_equal(result.segments_before, 0);
    t_shows(t.store, &before);
    t_image_free(&before);
    t_close(&t);
    t_store_free(&t);
}

/* Half of the records of one of two sessions. */
static void what_is_dead_goes(void **state)
{
    (void)state;
    uint64_t chance = t_seed("compact");
    struct t_store t;
    struct t_image before, after;
    size_t len, len_after;
    t_store_init(&t);
    t_open(&t);
    uint32_t a = t_session(&t, "a"), b = t_session(&t, "b");
    for (unsigned i = 0; i < 20; i++) {
        t_fill(&t, a, 100, 7, 100, &chance);
        t_fill(&t, b, 50, 3, 100, &chance);
    }
    drop(&t, a, 1500);
    char *log = t_log(t.store, a, 4096, &len), *log_b = t_log(t.store, b, 4096, &len_after);
    struct hl_status was, is;
    hl_store_status(t.store, &was);
    struct hl_compacted result = compact(&t);
    hl_store_status(t.store, &is);
    assert_true(result.segments_before > 3);
    assert_true(result.bytes_after < result.bytes_before / 4 * 3);
    assert_true(is.log_bytes < was.log_bytes);
    assert_int_equal(is.records, 2001 - 1500 + 1000);
    size_t again;
    char *after_a = t_log(t.store, a, 1000, &again);
    assert_int_equal(again, len);
    assert_memory_equal(after_a, log, len);
    free(after_a);
    char *after_b = t_log(t.store, b, 1000, &again);
    assert_int_equal(again, len_after);
    assert_memory_equal(after_b, log_b, again);
    free(after_b);
    t_image_take(t.store, &before);
    t_check_log(&t);
    t_verify(&t);
    t_reopen(&t);
    t_shows(t.store, &before);
    assert_int_equal(t.errors + t.warnings, 0);
    t_append(&t, a, "more\n");
    t_reopen(&t);
    t_image_take(t.store, &after);
    assert_int_equal(after.records, before.records + 1);
    t_image_free(&after);
    t_image_free(&before);
    free(log);
    free(log_b);
    t_close(&t);
    t_store_free(&t);
}

/* The index is built anew from what compaction left: the same. */
static void a_rebuild_shows_the_same(void **state)
{
    (void)state;
    uint64_t chance = t_seed("compact");
    struct t_store t;
    struct t_image before;
    t_store_init(&t);
    t_open(&t);
    uint32_t a = t_session(&t, "a"), b = t_session(&t, "b");
    for (unsigned i = 0; i < 20; i++) {
        t_fill(&t, a, 100, 7, 100, &chance);
        t_fill(&t, b, 50, 3, 100, &chance);
    }
    hl_session_change(t.store, a, HL_CHANGE_MODE, 0, 0, 0600, &(struct hl_session){0});
    drop(&t, a, 1901);
    drop(&t, b, 100000);
    compact(&t);
    t_image_take(t.store, &before);
    assert_int_equal(before.records, 100);
    assert_int_equal(hl_reindex(t.store, NULL, &t.err), 0);
    t_shows(t.store, &before);
    t_append(&t, b, "next\n"); /* its seqs go on */
    struct hl_session session;
    assert_int_equal(hl_session_by_number(t.store, b, &session), 0);
    assert_int_equal(session.last_seq, 1001);
    t_image_free(&before);
    t_close(&t);
    t_store_free(&t);
}

/* Which of the first three segments are not as they were made. */
static void find_rewritten(const struct t_store *t, bool rewritten[3])
{
    char path[T_PATH], **names;
    t_path(path, t->dir, "log");
    size_t count = t_names(path, ".seg", &names);
    for (size_t i = 0; i < count; i++) {
        unsigned long first = strtoul(names[i], NULL, 16);
        if (first >= 1 && first <= 3)
            rewritten[first - 1] = strstr(names[i], ".0.seg") == NULL;
    }
    t_names_free(names, count);
}

/* Of one session: what is dead of others stays where nothing of it is. */
static void of_one_session(void **state)
{
    (void)state;
    uint64_t chance = t_seed("compact");
    struct t_store t;
    struct t_image before;
    bool rewritten[3] = {false};
    struct hl_compacted result;
    t_store_init(&t);
    t.options.segment_size = 1 << 20;
    t_open(&t);
    uint32_t a = t_session(&t, "a"), b = t_session(&t, "b");
    t_fill(&t, a, 100, 7, 100, &chance);
    assert_int_equal(hl_rotate(t.store, &t.err), 0);
    t_fill(&t, b, 100, 7, 100, &chance);
    assert_int_equal(hl_rotate(t.store, &t.err), 0);
    t_fill(&t, a, 100, 7, 100, &chance);
    t_fill(&t, b, 100, 7, 100, &chance);
    assert_int_equal(hl_rotate(t.store, &t.err), 0);
    drop(&t, a, 50);
    drop(&t, b, 150);
    struct hl_compact what = {.session = a, .everything = true};
    assert_int_equal(hl_compact(t.store, &what, NULL, &result, &t.err), 0);
    /* a's dead are in the first only; b's too are in the third, which has live ones of a. */
    find_rewritten(&t, rewritten);
    assert_int_equal(result.segments_before, 1);
    assert_int_equal(result.segments_after, 1);
    assert_true(rewritten[0] && !rewritten[1] && !rewritten[2]);
    assert_int_equal(hl_compact(t.store, &what, NULL, &result, &t.err), 0);
    assert_int_equal(result.segments_before, 0);
    drop(&t, a, 150);
    assert_int_equal(hl_compact(t.store, &what, NULL, &result, &t.err), 0);
    find_rewritten(&t, rewritten);
    assert_int_equal(result.segments_before, 2);
    assert_true(rewritten[0] && !rewritten[1] && rewritten[2]);
    t_image_take(t.store, &before);
    assert_int_equal(hl_reindex(t.store, NULL, &t.err), 0);
    t_shows(t.store, &before);
    t_image_free(&before);
    what.session = b + 1; /* there is no such session */
    assert_int_equal(hl_compact(t.store, &what, NULL, &result, &t.err), 0);
    assert_int_equal(result.segments_before, 0);
    what.session = b;
    assert_int_equal(hl_compact(t.store, &what, NULL, &result, &t.err), 0);
    assert_int_equal(result.segments_before, 1);
    t_check_log(&t);
    t_close(&t);
    t_store_free(&t);
}

/* ---- what fails on the way ---- */

#define EVERY_CALL ((1U << T_CALLS) - 1)

/* A store with something dead in most of its segments, closed. */
static void make_base(struct t_store *t, uint64_t *chance)
{
    t_store_init(t);
    t->options.segment_size = 16 * 1024;
    t->options.history_ms = 0;
    t_open(t);
    uint32_t a = t_session(t, "a"), b = t_session(t, "b"), c = t_session(t, "c");
    for (unsigned i = 0; i < 6; i++) {
        t_fill(t, a, 40, 7, 100, chance);
        t_fill(t, b, 20, 3, 100, chance);
        if (i == 2)
            assert_int_equal(hl_checkpoint(t->store, NULL, &t->err), 0);
        t_fill(t, c, 10, 10, 10, chance);
        hl_session_change(t->store, c, HL_CHANGE_MODE, 0, 0, 0600 + i, &(struct hl_session){0});
    }
    drop(t, a, 200);
    for (unsigned i = 0; i < 40; i++)
        t_append_format(t, b, "{\"op\":\"set\",\"key\":\"k%u\",\"value\":%u}\n", i % 3, i);
    drop(t, c, 1000);
    uint32_t gone = t_session(t, "gone");
    t_fill(t, gone, 50, 10, 50, chance);
    assert_int_equal(hl_rotate(t->store, &t->err), 0);
    assert_int_equal(hl_delete(t->store, gone, NULL, &t->err), 0);
    t_close(t);
}

/* Another store on a copy of its directory, whose calls can fail. */
static void copy_store(const struct t_store *from, struct t_store *to)
{
    t_store_init(to);
    to->options.segment_size = from->options.segment_size;
    to->options.history_ms = from->options.history_ms;
    t_dir_remove(to->dir);
    t_dir_copy(from->dir, to->dir);
}

/* What its sessions show; root log may hold more, until all is compacted. */
struct logs {
    char *text[3];
    size_t len[3];
    struct hl_session about[3];
};

static void take_logs(struct t_store *t, struct logs *logs)
{
    for (unsigned i = 0; i < 3; i++) {
        char id[2] = {(char)('a' + i)};
        logs->text[i] = t_log(t->store, t_number(t, id), 3000, &logs->len[i]);
        assert_int_equal(hl_session_by_id(t->store, id, 1, &logs->about[i]), 0);
    }
}

static void free_logs(struct logs *logs)
{
    for (unsigned i = 0; i < 3; i++)
        free(logs->text[i]);
}

static void same_logs(struct t_store *t, const struct logs *logs)
{
    struct logs now;
    struct hl_session gone;
    assert_int_equal(hl_session_by_id(t->store, "gone", 4, &gone), -ENOENT);
    take_logs(t, &now);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(now.about[i].last_seq, logs->about[i].last_seq);
        assert_int_equal(now.about[i].documents, logs->about[i].documents);
        assert_int_equal(now.about[i].mode, logs->about[i].mode);
        if (logs->about[i].operations > 0) /* some of them may go */
            continue;
        assert_int_equal(now.len[i], logs->len[i]);
        assert_memory_equal(now.text[i], logs->text[i], now.len[i]);
        assert_int_equal(now.about[i].records, logs->about[i].records);
        assert_int_equal(now.about[i].bytes, logs->about[i].bytes);
    }
    free_logs(&now);
}

/* What is gone of the index. */
enum loss { LOSE_NOTHING, LOSE_INDEX, LOSE_NEWER, LOSE_ALL };

static void lose(struct t_store *t, enum loss loss)
{
    char path[T_PATH], **names;
    t_path(path, t->dir, "index");
    if (loss != LOSE_NOTHING)
        t_dir_remove(path);
    t_path(path, t->dir, "checkpoints");
    size_t count = t_names(path, ".ckpt", &names);
    assert_true(count >= 2);
    for (size_t i = 0; i < count; i++) {
        t_path(path, t->dir, "checkpoints/%s", names[i]);
        if (loss == LOSE_ALL || (loss == LOSE_NEWER && i > 0))
            assert_int_equal(unlink(path), 0);
    }
    t_names_free(names, count);
}

static int try_compact(struct t_store *t)
{
    struct hl_compact what = {.everything = true};
    return hl_compact(t->store, &what, NULL, NULL, &t->err);
}

static void check_all(struct t_store *t, const struct logs *logs)
{
    struct hl_verify_report report;
    same_logs(t, logs);
    t_check_log(t);
    assert_int_equal(hl_verify(t->store, &report, NULL, &t->err), 0);
    assert_int_equal(report.damaged_gaps + report.broken_batches, 0);
}

/* From one call on, nothing that the store asks of the system is done any more: as in a crash. */
static void a_crash_at_every_call(void **state)
{
    (void)state;
    uint64_t chance = t_seed("compact");
    struct t_store base;
    struct logs before;
    bool crashed = true;
    make_base(&base, &chance);
    t_open(&base);
    take_logs(&base, &before);
    t_close(&base);
    unsigned step = t_amount("STEP", t_slow() ? 41 : 13); /* 1: every one */
    for (uint64_t call = 1 + t_below(&chance, step); crashed; call += step) {
        struct t_store t;
        copy_store(&base, &t);
        t_store_watch(&t);
        t_open(&t);
        t_io_fail(&t.io, EVERY_CALL, NULL, call, UINT64_MAX, -EIO);
        int error = try_compact(&t);
        crashed = t_io_failed(&t.io) > 0;
        assert_true(error == 0 || crashed);
        t_crash(&t);
        t_io_heal(&t.io);
        for (enum loss loss = LOSE_NOTHING; loss <= LOSE_ALL; loss++) {
            struct t_store after;
            copy_store(&t, &after);
            lose(&after, loss);
            t_open(&after);
            check_all(&after, &before);
            compact(&after);
            check_all(&after, &before);
            t_append(&after, t_number(&after, "a"), "more\n");
            t_close(&after);
            t_store_free(&after);
        }
        t_store_free(&t);
    }
    free_logs(&before);
    t_store_free(&base);
}

/* One call fails, and the store goes on. */
static void every_call_fails_once(void **state)
{
    (void)state;
    uint64_t chance = t_seed("compact");
    struct t_store base;
    struct logs before;
    bool failed = true;
    make_base(&base, &chance);
    t_open(&base);
    take_logs(&base, &before);
    t_close(&base);
    unsigned step = t_amount("STEP", t_slow() ? 41 : 13); /* 1: every one */
    for (uint64_t call = 1 + t_below(&chance, step); failed; call += step) {
        struct t_store t;
        copy_store(&base, &t);
        t_store_watch(&t);
        t_open(&t);
        t_io_fail(&t.io, EVERY_CALL, NULL, call, 1, t_below(&chance, 2) ? -EIO : -ENOSPC);
        int error = try_compact(&t);
        failed = t_io_failed(&t.io) > 0;
        assert_true(error == 0 || failed);
        t_io_heal(&t.io);
        same_logs(&t, &before);
        struct hl_status status;
        hl_store_status(t.store, &status);
        if (status.failed == 0) {
            compact(&t);
            check_all(&t, &before);
        }
        t_crash(&t);
        t_open(&t);
        check_all(&t, &before);
        t_close(&t);
        t_store_free(&t);
    }
    free_logs(&before);
    t_store_free(&base);
}

static unsigned backups(const struct t_store *t)
{
    char path[T_PATH], **names;
    t_path(path, t->dir, "backup");
    size_t count = t_names(path, ".seg", &names);
    t_names_free(names, count);
    return (unsigned)count;
}

/* A byte of the new segment is another one as soon as it has its name. */
static int rename_and_damage(void *context, int from_dir, const char *from, int to_dir,
                             const char *to)
{
    (void)context;
    uint8_t byte;
    int error = hl_io_system.rename(NULL, from_dir, from, to_dir, to);
    if (error < 0 || !strstr(from, ".seg.tmp"))
        return error;
    int fd = openat(to_dir, to, O_RDWR | O_CLOEXEC);
    off_t middle = lseek(fd, 0, SEEK_END) / 2;
    assert_true(fd >= 0 && pread(fd, &byte, 1, middle) == 1);
    byte ^= 1;
    assert_true(pwrite(fd, &byte, 1, middle) == 1);
    close(fd);
    return 0;
}

/* The index cannot be led to a segment that is damaged: that is a failure, told as one, and nobody
 * takes the segment for one that could be compacted again. All that was there still is. */
static void what_cannot_be_patched_stays(void **state)
{
    (void)state;
    uint64_t chance = t_seed("compact");
    struct t_store t;
    struct hl_compact what = {.everything = true};
    t_store_init(&t);
    t_store_watch(&t);
    t.options.segment_size = 16 * 1024;
    t_open(&t);
    uint32_t a = t_session(&t, "a"), b = t_session(&t, "b");
    for (unsigned i = 0; i < 8; i++) {
        t_fill(&t, a, 60, 7, 100, &chance);
        t_fill(&t, b, 60, 3, 100, &chance);
    }
    drop(&t, a, 400);
    int (*rename)(void *, int, const char *, int, const char *) = t.io.io.rename;
    t.io.io.rename = rename_and_damage;
    assert_true(hl_compact(t.store, &what, NULL, NULL, &t.err) < 0);
    assert_true(hl_compact(t.store, &what, NULL, NULL, &t.err) < 0);
    t.io.io.rename = rename;
    for (uint64_t seq = 401; seq <= 480; seq++) {
        struct hl_record record;
        assert_int_equal(hl_record_find(t.store, a, seq, &record), 0);
        assert_int_equal(hl_record_find(t.store, b, seq, &record), 0);
    }
    t_crash(&t);
    t_open(&t);
    for (uint64_t seq = 1; seq <= 480; seq++) {
        struct hl_record record;
        assert_int_equal(hl_record_find(t.store, a, seq, &record), seq < 400 ? -ENOENT : 0);
        assert_int_equal(hl_record_find(t.store, b, seq, &record), 0);
    }
    t_close(&t);
    t_store_free(&t);
}

/* From the new segment's name on, nothing can be read. */
static ssize_t no_pread(void *context, int fd, void *buffer, size_t len, uint64_t offset)
{
    (void)context;
    (void)fd;
    (void)buffer;
    (void)len;
    (void)offset;
    return -EIO;
}

static int rename_and_fail(void *context, int from_dir, const char *from, int to_dir,
                           const char *to)
{
    struct t_io *io = context;
    int error = hl_io_system.rename(NULL, from_dir, from, to_dir, to);
    if (error == 0 && strstr(from, ".seg.tmp"))
        io->io.pread = no_pread;
    return error;
}

/* An index that could not be led to a new segment is led to it by who would tell of gaps that are
 * none; or else that is what he says. */
static void verify_leads_the_index(void **state)
{
    (void)state;
    uint64_t chance = t_seed("compact");
    struct t_store t;
    struct hl_compact what = {.everything = true};
    struct hl_verify_report report;
    t_store_init(&t);
    t_store_watch(&t);
    t_open(&t);
    uint32_t a = t_session(&t, "a");
    t_fill(&t, a, 400, 9, 100, &chance);
    drop(&t, a, 200);
    struct hl_io sound = t.io.io;
    t.io.io.rename = rename_and_fail;
    assert_int_equal(hl_compact(t.store, &what, NULL, NULL, &t.err), -EIO);
    assert_int_equal(hl_verify(t.store, &report, NULL, &t.err), -EIO);
    assert_string_equal(t.err.text, "cannot finish an earlier compaction: Input/output error");
    t.io.io = sound;
    t_verify(&t);
    assert_int_equal(compact(&t).segments_before, 0);
    t_close(&t);
    t_store_free(&t);
}

/* The last runs' files are kept; on a full disk the oldest make room. */
static void backups_go_the_oldest_first(void **state)
{
    (void)state;
    uint64_t chance = t_seed("compact");
    struct t_store t;
    unsigned before[5] = {0};
    t_store_init(&t);
    t.options.backups = 2;
    t_store_watch(&t);
    t_open(&t);
    uint32_t a = t_session(&t, "a");
    for (unsigned i = 0; i < 5; i++) {
        struct hl_session about;
        t_fill(&t, a, 500, 10, 200, &chance);
        assert_int_equal(hl_session_by_number(t.store, a, &about), 0);
        drop(&t, a, about.last_seq - 100);
        assert_true(compact(&t).segments_before > 0);
        before[i] = backups(&t);
        if (i == 0)
            assert_true(before[0] > 0);
    }
    t_reopen(&t);
    assert_true(before[4] < before[0] + before[1] + before[2]);
    t_fill(&t, a, 500, 10, 200, &chance);
    drop(&t, a, 3000);
    /* The reserve first, of two segments. */
    char reserve[T_PATH];
    t_path(reserve, t.dir, "reserve");
    assert_int_equal(t_file_size(reserve), 2 * t.options.segment_size);
    unsigned were = backups(&t);
    t_io_fail(&t.io, 1U << T_PWRITE, ".seg.tmp", 1, 1, -ENOSPC);
    assert_int_equal(try_compact(&t), 0);
    assert_int_equal(t_io_failed(&t.io), 1);
    assert_int_equal(t.warnings, 1);
    assert_true(backups(&t) + before[3] >= were);
    assert_int_equal(t_file_size(reserve), 2 * t.options.segment_size); /* there is room again */
    t_io_fail(&t.io, 1U << T_PWRITE, ".seg.tmp", 1, UINT64_MAX, -ENOSPC);
    t_fill(&t, a, 500, 10, 200, &chance);
    drop(&t, a, 3400);
    assert_int_equal(try_compact(&t), -ENOSPC); /* refused, with a reason */
    assert_non_null(strstr(t.err.text, "no room"));
    assert_int_equal(backups(&t), 0);
    assert_false(t_exists(reserve));
    t_io_heal(&t.io);
    assert_true(compact(&t).segments_before > 0);
    t_close(&t);
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_dead_nothing_done),    cmocka_unit_test(what_is_dead_goes),
        cmocka_unit_test(a_rebuild_shows_the_same),     cmocka_unit_test(of_one_session),
        cmocka_unit_test(a_crash_at_every_call),        cmocka_unit_test(every_call_fails_once),
        cmocka_unit_test(what_cannot_be_patched_stays), cmocka_unit_test(verify_leads_the_index),
        cmocka_unit_test(backups_go_the_oldest_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
