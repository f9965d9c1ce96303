/* test_snapshot.c - consistent copies that share sealed segments: what they hold, that nobody
 * writes to what is shared, and that one which was not finished leaves nothing. */
#include "support.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

static void make(struct t_store *t, uint64_t *chance)
{
    t_store_init(t);
    t->options.segment_size = 10 * 1024;
    t_open(t);
    uint32_t a = t_session(t, "a"), b = t_session(t, "b");
    assert_int_equal(hl_attribute_set(t->store, a, "title", "x", 1, 0), 0);
    for (int i = 0; i < 5; i++) {
        t_fill(t, a, 20, 4, 200, chance);
        t_fill(t, b, 10, 1, 200, chance);
        t_append_format(t, a, "{\"op\":\"set\",\"key\":\"k%d\",\"value\":[%d]}\n", i % 3, i);
    }
}

/* A snapshot as a store of its own, not opened. */
static void snapshot_init(struct t_store *s, const struct t_store *of, const char *name)
{
    t_store_init(s);
    t_dir_remove(s->dir);
    t_path(s->dir, of->dir, "snapshots/%s", name);
}

static void snapshot_free(struct t_store *s)
{
    if (s->store)
        t_close(s);
    pthread_mutex_destroy(&s->lock);
}

static void take(struct t_store *t, const char *name)
{
    int error = hl_snapshot(t->store, name, NULL, &t->err);
    if (error < 0)
        fail_msg("snapshot %s: %s", name, t->err.text);
}

static size_t count_names(const struct t_store *t, const char *folder)
{
    char path[T_PATH], **names;
    t_path(path, t->dir, "%s", folder);
    if (!t_exists(path))
        return 0;
    size_t count = t_names(path, "", &names);
    t_names_free(names, count);
    return count;
}

/* Opens it, read-only and then for writing: both times it shows the image, needs no repair, and is
 * sound. */
static void shows(const struct t_store *of, const char *name, const struct t_image *image)
{
    struct t_store s;
    struct hl_status status;
    snapshot_init(&s, of, name);
    for (int writing = 0; writing < 2; writing++) {
        s.options.read_only = !writing;
        t_open(&s);
        assert_int_equal(s.warnings + s.errors, 0);
        hl_store_status(s.store, &status);
        assert_int_equal(status.recovered_records, 0);
        t_shows(s.store, image);
        assert_int_equal(t_verify(&s), image->records);
        t_close(&s);
    }
    t_check_log(&s);
    struct hl_check check = {.mend = HL_MEND_NOTHING};
    struct hl_check_report checked;
    assert_int_equal(hl_check(s.dir, &check, &checked, NULL, &s.err), 0);
    assert_int_equal(checked.problems, 0);
    snapshot_free(&s);
}

/* ---- what it holds ---- */

static void test_holds_what_was_appended_before(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image before, after;
    struct hl_progress progress = {0};
    struct hl_status status;
    uint64_t chance = t_seed("test_holds_what_was_appended_before");
    make(&t, &chance);
    t_image_take(t.store, &before);
    assert_int_equal(hl_snapshot(t.store, "monday", &progress, &t.err), 0);
    assert_true(progress.total > 0 && progress.done > progress.total / 2);
    hl_store_status(t.store, &status);
    assert_int_equal(status.synced, status.position);
    t_fill(&t, t_number(&t, "a"), 30, 3, 100, &chance);
    t_append(&t, t_session(&t, "later"), "x\n");
    t_image_take(t.store, &after);
    shows(&t, "monday", &before);
    t_shows(t.store, &after);
    t_crash(&t);
    t_open(&t);
    t_shows(t.store, &after);
    shows(&t, "monday", &before);
    t_check_log(&t);
    t_image_free(&before);
    t_image_free(&after);
    t_store_free(&t);
}

/* Both go on, each by itself, and what they share stays as it was. */
static void test_both_go_on(void **state)
{
    (void)state;
    struct t_store t, s;
    struct t_image mine, its;
    char **names, log[T_PATH], path[T_PATH];
    char *bytes[256];
    size_t len[256];
    struct stat st;
    uint64_t chance = t_seed("test_both_go_on");
    make(&t, &chance);
    take(&t, "one");
    snapshot_init(&s, &t, "one");
    t_path(log, s.dir, "log");
    size_t count = t_names(log, ".seg", &names);
    assert_true(count > 2 && count < 256);
    for (size_t i = 0; i < count; i++) {
        t_path(path, log, "%s", names[i]);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_nlink, 2);
        bytes[i] = t_file_read(path, &len[i]);
    }
    t_open(&s);
    for (int round = 0; round < 3; round++) {
        t_fill(&s, t_number(&s, "a"), 40, 3, 100, &chance);
        t_append(&s, 0, "{\"session_id\":\"only here\"}\n");
        t_fill(&t, t_number(&t, "b"), 40, 3, 100, &chance);
        t_append(&t, 0, "{\"session_id\":\"only there\"}\n");
        if (round == 0) {
            t_reopen(&s);
            t_reopen(&t);
        } else if (round == 1) { /* with no index, the log is replayed from its beginning */
            t_close(&s);
            t_path(path, s.dir, "index");
            t_dir_remove(path);
            t_path(path, s.dir, "checkpoints");
            t_dir_remove(path);
            t_open(&s);
        }
    }
    t_image_take(s.store, &its);
    t_image_take(t.store, &mine);
    assert_non_null(t_image_find(&its, "only here"));
    assert_null(t_image_find(&its, "only there"));
    assert_null(t_image_find(&mine, "only here"));
    t_reopen(&s);
    t_reopen(&t);
    t_shows(s.store, &its);
    t_shows(t.store, &mine);
    for (size_t i = 0; i < count; i++) {
        size_t now;
        t_path(path, log, "%s", names[i]);
        char *text = t_file_read(path, &now);
        assert_int_equal(now, len[i]);
        assert_memory_equal(text, bytes[i], now);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_nlink, 2);
        free(text);
        free(bytes[i]);
    }
    t_names_free(names, count);
    t_image_free(&its);
    t_image_free(&mine);
    snapshot_free(&s);
    t_store_free(&t);
}

/* Of a store without a record, of one whose last segment is empty, and twice of one that is idle:
 * that costs no segment each time. */
static void test_of_idle_stores(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    struct hl_status status;
    t_store_init(&t);
    t_open(&t);
    t_image_take(t.store, &image);
    take(&t, "empty");
    shows(&t, "empty", &image);
    t_image_free(&image);
    t_append(&t, t_session(&t, "s"), "x\n");
    assert_int_equal(hl_rotate(t.store, &t.err), 0);
    t_image_take(t.store, &image);
    take(&t, "rotated");
    shows(&t, "rotated", &image);
    hl_store_status(t.store, &status);
    for (int i = 0; i < 3; i++) {
        char name[24];
        snprintf(name, sizeof name, "%d", i);
        take(&t, name);
        shows(&t, name, &image);
        if (i == 1)
            t_reopen(&t);
    }
    uint64_t segments = status.segments;
    hl_store_status(t.store, &status);
    assert_int_equal(status.segments, segments);
    t_image_free(&image);
    t_append(&t, t_number(&t, "s"), "y\n");
    t_image_take(t.store, &image);
    t_crash(&t);
    t_open(&t);
    t_shows(t.store, &image);
    t_image_free(&image);
    t_store_free(&t);
}

static void test_of_a_snapshot(void **state)
{
    (void)state;
    struct t_store t, s;
    struct t_image image, more;
    uint64_t chance = t_seed("test_of_a_snapshot");
    make(&t, &chance);
    t_image_take(t.store, &image);
    take(&t, "one");
    snapshot_init(&s, &t, "one");
    t_open(&s);
    take(&s, "two");
    t_append(&s, t_number(&s, "a"), "x\n");
    t_image_take(s.store, &more);
    take(&s, "three");
    shows(&s, "two", &image);
    shows(&s, "three", &more);
    t_shows(s.store, &more);
    t_shows(t.store, &image);
    t_image_free(&image);
    t_image_free(&more);
    snapshot_free(&s);
    t_store_free(&t);
}

static void test_names(void **state)
{
    (void)state;
    static const char *const bad[] = {"", ".", "..", ".x", ".new", "a/b", "/", "a\xff", "\xc0\x80"};
    struct t_store t;
    char name[300];
    t_store_init(&t);
    t_open(&t);
    t_append(&t, t_session(&t, "s"), "x\n");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(hl_snapshot(t.store, bad[i], NULL, &t.err), -EINVAL);
        assert_true(t.err.text[0]);
    }
    memset(name, 'x', sizeof name);
    name[256] = 0;
    assert_int_equal(hl_snapshot(t.store, name, NULL, &t.err), -ENAMETOOLONG);
    name[255] = 0;
    take(&t, name);
    take(&t, "S\xc3\xa9"
             "ance du 1");
    assert_int_equal(hl_snapshot(t.store, name, NULL, &t.err), -EEXIST);
    char path[T_PATH];
    t_path(path, t.dir, "snapshots/a file");
    t_file_write(path, "x", 1);
    assert_int_equal(hl_snapshot(t.store, "a file", NULL, &t.err), -EEXIST);
    assert_int_equal(count_names(&t, "snapshots"), 3);
    t_close(&t);
    t.options.read_only = true;
    t_open(&t);
    assert_int_equal(hl_snapshot(t.store, "x", NULL, &t.err), -EROFS);
    t_store_free(&t);
}

/* ---- files with more than one link ---- */

/* Someone made a link to the unsealed segment by hand, with a torn tail or without: it is neither
 * cut nor written to, however the store goes on. */
static void test_a_linked_tail_is_left_alone(void **state)
{
    (void)state;
    for (int way = 0; way < 4; way++) {
        struct t_store t;
        struct t_image image;
        char path[T_PATH], other[T_PATH];
        size_t len, now;
        uint64_t chance = t_seed("test_a_linked_tail_is_left_alone");
        make(&t, &chance);
        t_image_take(t.store, &image);
        if (way & 1)
            t_close(&t);
        else
            t_crash(&t);
        t_segment_path(&t, 0, path);
        if (way & 2)
            t_file_append(path, "torn", 4);
        t_path(other, t.dir, "other");
        assert_int_equal(link(path, other), 0);
        char *before = t_file_read(other, &len);
        t_open(&t);
        t_shows(t.store, &image);
        t_append(&t, t_number(&t, "a"), "x\n");
        t_image_free(&image);
        t_image_take(t.store, &image);
        char *after = t_file_read(other, &now);
        assert_int_equal(now, len);
        assert_memory_equal(after, before, len);
        t_reopen(&t);
        t_shows(t.store, &image);
        t_check_log(&t);
        free(before);
        free(after);
        t_image_free(&image);
        t_store_free(&t);
    }
}

/* There is no room for the copy of it: the store opens, refuses appends, and heals. */
static void test_a_linked_tail_on_a_full_disk(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    char path[T_PATH], other[T_PATH];
    size_t len, now;
    uint64_t chance = t_seed("test_a_linked_tail_on_a_full_disk");
    make(&t, &chance);
    t_image_take(t.store, &image);
    t_crash(&t);
    t_segment_path(&t, 0, path);
    t_path(other, t.dir, "other");
    assert_int_equal(link(path, other), 0);
    char *before = t_file_read(other, &len);
    t_store_watch(&t);
    t_io_fail(&t.io, 1U << T_PWRITE, ".seg.tmp", 1, UINT64_MAX, -ENOSPC);
    t_open(&t);
    assert_true(t_io_failed(&t.io) > 0);
    t_shows(t.store, &image);
    uint32_t a = t_number(&t, "a");
    assert_int_equal(t_try_append(&t, a, "x\n", 2), -ENOSPC);
    assert_int_equal(hl_snapshot(t.store, "one", NULL, &t.err), -ENOSPC);
    t_shows(t.store, &image);
    t_io_heal(&t.io);
    t_append(&t, a, "x\n");
    t_image_free(&image);
    t_image_take(t.store, &image);
    char *after = t_file_read(other, &now);
    assert_int_equal(now, len);
    assert_memory_equal(after, before, len);
    t_crash(&t);
    t_open(&t);
    t_shows(t.store, &image);
    free(before);
    free(after);
    t_image_free(&image);
    t_store_free(&t);
}

/* The last segment is sealed and shared, and all of it is replayed. */
static void test_a_sealed_last_segment_is_not_written_again(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    struct stat before, after;
    char path[T_PATH];
    uint64_t chance = t_seed("test_a_sealed_last_segment_is_not_written_again");
    make(&t, &chance);
    take(&t, "one");
    t_image_take(t.store, &image);
    t_close(&t);
    t_path(path, t.dir, "index");
    t_dir_remove(path);
    t_path(path, t.dir, "checkpoints");
    t_dir_remove(path);
    t_segment_path(&t, 0, path);
    assert_int_equal(stat(path, &before), 0);
    t_open(&t);
    t_shows(t.store, &image);
    t_append(&t, t_number(&t, "a"), "x\n");
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_int_equal(before.st_mtim.tv_sec, after.st_mtim.tv_sec);
    assert_int_equal(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
    shows(&t, "one", &image);
    t_image_free(&image);
    t_store_free(&t);
}

/* ---- what fails ---- */

static void test_copied_where_links_cannot_be(void **state)
{
    (void)state;
    static const int errors[] = {-EXDEV, -EMLINK, -EPERM, -EOPNOTSUPP, -ENOSYS};
    struct t_store t;
    struct t_image image;
    uint64_t chance = t_seed("test_copied_where_links_cannot_be");
    make(&t, &chance);
    t_image_take(t.store, &image);
    t_close(&t);
    t_store_watch(&t);
    t_open(&t);
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        char name[24], path[T_PATH];
        struct stat st;
        snprintf(name, sizeof name, "%zu", i);
        t_io_fail(&t.io, 1U << T_LINK, NULL, 2, UINT64_MAX, errors[i]);
        take(&t, name);
        assert_true(t_io_failed(&t.io) > 0);
        t_io_heal(&t.io);
        t_path(path, t.dir, "snapshots/%zu/log/00000002-00000002.0.seg", i);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_nlink, 1);
        shows(&t, name, &image);
    }
    t_image_free(&image);
    t_store_free(&t);
}

/* A store to begin with again and again, with something to be replayed. */
static void make_base(struct t_store *t, char base[T_PATH], struct t_image *image, uint64_t *chance)
{
    make(t, chance);
    t_image_take(t->store, image);
    t_crash(t);
    t_dir_make(base);
    t_dir_copy(t->dir, base);
    t_store_watch(t);
}

static void again(struct t_store *t, const char *base)
{
    t_dir_remove(t->dir);
    t_dir_copy(base, t->dir);
    t_open(t);
}

/* Each call fails once (each time others of them are passed over), the others go on: the call says
 * so, and leaves nothing. */
static void test_fails_at_each_call(void **state)
{
    (void)state;
    static const struct {
        unsigned calls;
        const char *only;
    } kinds[] = {
        {1U << T_PWRITE, "data.mdb"},  {1U << T_FSYNC, NULL},    {1U << T_OPEN, NULL},
        {1U << T_RENAME, NULL},        {1U << T_MKDIR, NULL},    {1U << T_LINK, NULL},
        {1U << T_PWRITE, "clean.tmp"}, {1U << T_PWRITE, ".seg"},
    };
    struct t_store t;
    struct t_image image;
    char base[T_PATH];
    uint64_t chance = t_seed("test_fails_at_each_call");
    make_base(&t, base, &image, &chance);
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        bool failed = true;
        for (uint64_t nth = 1; failed; nth += 1 + t_below(&chance, t_slow() ? 8 : 3)) {
            again(&t, base);
            t_io_fail(&t.io, kinds[k].calls, kinds[k].only, nth, 1, -ENOSPC);
            int error = hl_snapshot(t.store, "one", NULL, &t.err);
            failed = t_io_failed(&t.io) > 0;
            t_io_heal(&t.io);
            assert_int_equal(error, failed ? -ENOSPC : 0);
            assert_int_equal(count_names(&t, "snapshots"), !failed);
            t_shows(t.store, &image);
            if (failed)
                take(&t, "one");
            shows(&t, "one", &image);
            t_reopen(&t);
            t_shows(t.store, &image);
            t_close(&t);
        }
    }
    t_dir_remove(base);
    t_image_free(&image);
    t_store_free(&t);
}

/* From some call on nothing works any more, as if the process had ended there: the next opening
 * finds a snapshot that is whole, or none. */
static void test_ends_at_each_call(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image, now;
    char base[T_PATH], path[T_PATH];
    bool failed = true;
    unsigned whole = 0, none = 0, cleaned = 0;
    uint64_t chance = t_seed("test_ends_at_each_call");
    make_base(&t, base, &image, &chance);
    for (uint64_t nth = 1; failed; nth += 1 + t_below(&chance, t_slow() ? 12 : 3)) {
        again(&t, base);
        t_io_fail(&t.io, ~0U, NULL, nth, UINT64_MAX, -EIO);
        int error = hl_snapshot(t.store, "one", NULL, &t.err);
        failed = t_io_failed(&t.io) > 0;
        assert_true(failed || error == 0);
        t_crash(&t);
        t_io_heal(&t.io);
        t_path(path, t.dir, "snapshots/.new");
        bool left = t_exists(path);
        t_open(&t);
        assert_int_equal(t.warnings > 0, left);
        assert_false(t_exists(path));
        t_image_take(t.store, &now);
        t_image_same(&image, &now);
        t_image_free(&now);
        t_path(path, t.dir, "snapshots/one");
        if (t_exists(path))
            shows(&t, "one", &image);
        whole += t_exists(path);
        none += !t_exists(path);
        cleaned += left;
        t_close(&t);
    }
    assert_true(whole > 0 && none > 0 && cleaned > 0);
    t_dir_remove(base);
    t_image_free(&image);
    t_store_free(&t);
}

/* ---- interrupted ---- */

static struct {
    struct hl_progress progress;
    unsigned links, at;
} cancelling;

static int cancelling_link(void *context, int from_dir, const char *from, int to_dir,
                           const char *to)
{
    (void)context;
    if (++cancelling.links == cancelling.at)
        atomic_store(&cancelling.progress.cancel, true);
    return hl_io_system.link(NULL, from_dir, from, to_dir, to);
}

static void test_interrupted(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    struct hl_io io = hl_io_system;
    io.link = cancelling_link;
    uint64_t chance = t_seed("test_interrupted");
    make(&t, &chance);
    t_image_take(t.store, &image);
    t_close(&t);
    t.options.io = &io;
    t_open(&t);
    for (unsigned at = 0; at < 3; at++) { /* 0: before it began */
        memset(&cancelling, 0, sizeof cancelling);
        atomic_store(&cancelling.progress.cancel, at == 0);
        cancelling.at = at;
        assert_int_equal(hl_snapshot(t.store, "x", &cancelling.progress, &t.err), -EINTR);
        assert_true(t.err.text[0]);
        assert_int_equal(count_names(&t, "snapshots"), 0);
        t_shows(t.store, &image);
    }
    take(&t, "x");
    shows(&t, "x", &image);
    t_image_free(&image);
    t_store_free(&t);
}

/* ---- while others append ---- */

#define WRITERS 4
#define LINES 3U /* a batch */

struct writing {
    struct t_store *t;
    uint32_t session;
    atomic_bool *stop;
    _Atomic uint64_t batches;
};

static void *write_on(void *context)
{
    struct writing *w = context;
    char text[400];
    while (!atomic_load(w->stop)) {
        size_t used = 0;
        for (unsigned i = 0; i < LINES; i++)
            used += (size_t)snprintf(text + used, sizeof text - used,
                                     "{\"batch\":%" PRIu64 ",\"line\":%u,\"pad\":\"%060d\"}\n",
                                     atomic_load(&w->batches), i, 7);
        struct hl_append request = {.session = w->session, .data = text, .len = used};
        if (hl_append(w->t->store, &request, NULL) < 0)
            break;
        atomic_fetch_add(&w->batches, 1);
    }
    return NULL;
}

/* What was acknowledged before the snapshot is in it, whole batches, from the beginning. */
static void check_prefix(const struct t_image *image, const struct writing *w, const char *id,
                         uint64_t at_least)
{
    const struct t_session_image *session = t_image_find(image, id);
    assert_non_null(session);
    assert_int_equal(session->about.records % LINES, 0);
    assert_true(session->about.records >= at_least * LINES);
    assert_true(session->about.records <= (atomic_load(&w->batches) + 1) * LINES);
    size_t at = 0;
    for (uint64_t i = 0; i < session->about.records; i++) {
        char wanted[64];
        const char *line = session->log + at;
        size_t len = session->lines[i].length;
        at += len;
        assert_int_equal(session->lines[i].seq, i + 1);
        assert_false(session->lines[i].damaged);
        snprintf(wanted, sizeof wanted, "\"batch\":%" PRIu64 ",\"line\":%u,", i / LINES,
                 (unsigned)(i % LINES));
        if (!t_has(line, len, wanted))
            fail_msg("record %" PRIu64 " of %s is not %s", i + 1, id, wanted);
    }
}

static void test_while_others_append(void **state)
{
    (void)state;
    static const char *const ids[WRITERS] = {"a", "b", "c", "d"};
    struct t_store t;
    struct writing writers[WRITERS];
    pthread_t threads[WRITERS];
    atomic_bool stop = false;
    unsigned rounds = t_amount("ROUNDS", t_slow() ? 3 : 8);
    uint64_t before[32][WRITERS];
    t_store_init(&t);
    t_open(&t);
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (struct writing){.t = &t, .session = t_session(&t, ids[i]), .stop = &stop};
        assert_int_equal(pthread_create(&threads[i], NULL, write_on, &writers[i]), 0);
    }
    assert_true(rounds <= 32);
    for (unsigned round = 0; round < rounds; round++) {
        char name[24];
        uint64_t sum = 0, goal = 0;
        for (int i = 0; i < WRITERS; i++)
            goal += atomic_load(&writers[i].batches);
        while (sum < goal + 200) { /* some more came */
            sched_yield();
            sum = 0;
            for (int i = 0; i < WRITERS; i++)
                sum += atomic_load(&writers[i].batches);
        }
        for (int i = 0; i < WRITERS; i++)
            before[round][i] = atomic_load(&writers[i].batches);
        snprintf(name, sizeof name, "%u", round);
        take(&t, name);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned round = 0; round < rounds; round++) {
        struct t_store s;
        struct t_image image;
        char name[24];
        snprintf(name, sizeof name, "%u", round);
        snapshot_init(&s, &t, name);
        s.options.read_only = round % 2;
        t_open(&s);
        assert_int_equal(s.warnings + s.errors, 0);
        t_image_take(s.store, &image);
        for (int i = 0; i < WRITERS; i++)
            check_prefix(&image, &writers[i], ids[i], before[round][i]);
        t_image_free(&image);
        snapshot_free(&s);
    }
    t_reopen(&t);
    t_check_log(&t);
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_holds_what_was_appended_before),
        cmocka_unit_test(test_both_go_on),
        cmocka_unit_test(test_of_idle_stores),
        cmocka_unit_test(test_of_a_snapshot),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_a_linked_tail_is_left_alone),
        cmocka_unit_test(test_a_linked_tail_on_a_full_disk),
        cmocka_unit_test(test_a_sealed_last_segment_is_not_written_again),
        cmocka_unit_test(test_copied_where_links_cannot_be),
        cmocka_unit_test(test_fails_at_each_call),
        cmocka_unit_test(test_ends_at_each_call),
        cmocka_unit_test(test_interrupted),
        cmocka_unit_test(test_while_others_append),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
