/* test_erase.c - store/erase.c: no byte of the session is left in any file. */
#include "support.h"

#include <ftw.h>
#include <stdatomic.h>
#include <unistd.h>

#include "../../store/erasing.h"

static const char *const markers[] = {
    "the-secret-id", "secret-payload",           "secret-document",
    "secret-key",    "c2VjcmV0LWF0dHJpYnV0ZQ==", "secret-attribute"};

static char found[T_PATH + 64];

static int look(const char *path, const struct stat *st, int type, struct FTW *where)
{
    size_t len;
    (void)st;
    (void)where;
    if (type != FTW_F)
        return 0;
    char *bytes = t_file_read(path, &len);
    for (size_t i = 0; i < sizeof markers / sizeof markers[0]; i++) {
        if (t_has(bytes, len, markers[i]))
            snprintf(found, sizeof found, "%s in %s", markers[i], path);
    }
    free(bytes);
    return 0;
}

static void nothing_is_left(const struct t_store *t)
{
    found[0] = 0;
    assert_int_equal(nftw(t->dir, look, 16, FTW_PHYS), 0);
    if (found[0])
        fail_msg("there is %s", found);
}

static void something_is_there(const struct t_store *t)
{
    found[0] = 0;
    assert_int_equal(nftw(t->dir, look, 16, FTW_PHYS), 0);
    assert_true(found[0] != 0);
}

static void write_secrets(struct t_store *t, uint32_t session, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        t_append_format(t, session, "secret-payload %u\n", i);
        t_append_format(
            t, session,
            "{\"op\":\"set\",\"key\":\"secret-key-%u\",\"value\":\"secret-document\"}\n", i % 7);
    }
    assert_int_equal(
        hl_attribute_set(t->store, session, "secret-attribute", "secret-attribute", 16, 0), 0);
}

static void no_byte_is_left(void **state)
{
    (void)state;
    uint64_t chance = t_seed("erase");
    struct t_store t;
    struct hl_dropped dropped;
    struct hl_session about;
    size_t len, len_after;
    t_store_init(&t);
    t.options.history_ms = 0;
    t_open(&t);
    uint32_t other = t_session(&t, "other"), secret = t_session(&t, "the-secret-id");
    for (unsigned i = 0; i < 4; i++) {
        write_secrets(&t, secret, 50);
        t_fill(&t, other, 200, 10, 100, &chance);
        assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
        if (i == 1) { /* backups, with some of it */
            struct hl_compact what = {.everything = true};
            assert_int_equal(hl_trim(t.store, secret, 50, NULL, &t.err), 0);
            assert_int_equal(hl_compact(t.store, &what, NULL, NULL, &t.err), 0);
        }
        if (i == 2)
            assert_int_equal(hl_snapshot(t.store, "one", NULL, &t.err), 0);
    }
    char path[T_PATH];
    t_path(path, t.dir, "quarantine");
    (void)mkdir(path, 0700);
    t_path(path, t.dir, "quarantine/some");
    t_file_write(path, "secret-payload", 14);
    struct hl_rule rule = {.has_count = true, .count = 100000};
    assert_int_equal(hl_retain_set(t.store, secret, &rule, &t.err), 0);
    char *log = t_log(t.store, other, 4096, &len);
    something_is_there(&t);
    if (hl_erase(t.store, secret, NULL, &dropped, &t.err) < 0)
        fail_msg("erase: %s", t.err.text);
    assert_true(dropped.records > 0 && dropped.bytes > 0);
    nothing_is_left(&t);
    assert_int_equal(hl_session_by_id(t.store, "the-secret-id", 13, &about), -ENOENT);
    char *after = t_log(t.store, other, 4096, &len_after);
    assert_int_equal(len, len_after);
    assert_memory_equal(log, after, len);
    free(after);
    t_append(&t, other, "goes on\n");
    t_reopen(&t);
    nothing_is_left(&t);
    assert_int_equal(t.warnings + t.errors, 0);
    struct t_image image; /* and the snapshot is a store as before, but for it */
    t_image_take(t.store, &image);
    t_image_free(&image);
    struct hl_options options = t.options;
    struct hl_store *snapshot;
    t_path(path, t.dir, "snapshots/one");
    assert_int_equal(hl_store_open(path, &options, &snapshot, NULL, &t.err), 0);
    t_image_take(snapshot, &image);
    assert_int_equal(image.count, 1);
    assert_int_equal(image.records, 600);
    t_image_free(&image);
    /* In use: named, and nothing is changed. */
    assert_int_equal(hl_erase(t.store, other, NULL, NULL, &t.err), -EBUSY);
    assert_non_null(strstr(t.err.text, "`one`"));
    assert_int_equal(hl_session_by_number(t.store, other, &about), 0);
    assert_int_equal(hl_store_close(snapshot), 0);
    assert_int_equal(hl_erase(t.store, 4711, NULL, NULL, &t.err), -ENOENT);
    free(log);
    t_close(&t);
    t_store_free(&t);
}

#define CALLS_THAT_WRITE                                                                       \
    (1U << T_PWRITE | 1U << T_FDATASYNC | 1U << T_FSYNC | 1U << T_FTRUNCATE | 1U << T_RENAME | \
     1U << T_UNLINK | 1U << T_LINK | 1U << T_MKDIR | 1U << T_ALLOCATE)

static bool is_pending(const struct t_store *t, struct hl_erasing *erasing)
{
    return hl_erasing_next(t->store, 0, erasing) == 0;
}

/* Whatever call an erase is cut short at, the next opening knows of it, and goes on: by itself, or
 * when it is asked to. */
static void cut_short_it_goes_on(void **state)
{
    (void)state;
    uint64_t chance = t_seed("cut_short"), steps = t_amount("STEPS", t_slow() ? 40 : 16);
    bool failed = true;
    unsigned whole = 0, by_itself = 0, asked = 0;
    for (uint64_t nth = 1; failed || by_itself == 0 || asked == 0;
         nth = failed ? nth + 1 + t_below(&chance, steps) : 1 + t_below(&chance, steps)) {
        struct t_store t;
        struct hl_erasing erasing;
        struct hl_session about;
        t_store_init(&t);
        t.options.segment_size = 16 * 1024;
        t.options.compact_interval_ms = 0;
        t_store_watch(&t);
        t_open(&t);
        uint32_t other = t_session(&t, "other"), secret = t_session(&t, "the-secret-id");
        write_secrets(&t, secret, 60);
        t_fill(&t, other, 60, 10, 100, &chance);
        assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
        assert_int_equal(hl_snapshot(t.store, "one", NULL, &t.err), 0);
        write_secrets(&t, secret, 10);
        t_io_fail(&t.io, CALLS_THAT_WRITE, NULL, nth, 1000000, -EIO);
        int result = hl_erase(t.store, secret, NULL, NULL, &t.err);
        failed = t_io_failed(&t.io) > 0;
        assert_true(failed == (result < 0));
        t_crash(&t);
        t_io_heal(&t.io);
        bool alone = by_itself <= asked;
        t.options.compact_interval_ms = alone ? 3600 * 1000 : 0;
        t.warnings = 0;
        t_open(&t);
        if (hl_session_by_number(t.store, secret, &about) == 0) { /* not even deleted */
            assert_true(failed && !is_pending(&t, &erasing));
            assert_int_equal(about.records, 140);
            whole++;
            assert_int_equal(hl_erase(t.store, secret, NULL, NULL, &t.err), 0);
        } else if (alone) {
            while (is_pending(&t, &erasing))
                usleep(1000);
            by_itself++;
        } else if (is_pending(&t, &erasing)) {
            assert_int_equal(erasing.number, secret);
            assert_string_equal(erasing.id, "the-secret-id");
            assert_true(t.warnings > 0); /* it says so */
            assert_int_equal(hl_erase(t.store, secret, NULL, NULL, &t.err), 0);
            assert_false(is_pending(&t, &erasing));
            asked++;
        }
        nothing_is_left(&t);
        t_close(&t);
        t_open(&t);
        assert_false(is_pending(&t, &erasing));
        nothing_is_left(&t);
        assert_int_equal(hl_session_by_number(t.store, other, &about), 0);
        assert_int_equal(about.records, 60);
        t_close(&t);
        t_store_free(&t);
    }
    print_message("%u not begun, %u went on by themselves, %u when asked\n", whole, by_itself,
                  asked);
}

/* What goes on by itself may come late: somebody else has erased it, or it was not to be erased. */
static void what_is_not_noted_stays(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_session about;
    t_store_init(&t);
    t_open(&t);
    uint32_t session = t_session(&t, "other");
    t_append(&t, session, "a line\n");
    assert_int_equal(erasing_finish(t.store, session, NULL, &t.err), 0);
    assert_int_equal(hl_session_by_number(t.store, session, &about), 0);
    assert_int_equal(about.records, 1);
    t_close(&t);
    t_store_free(&t);
}

/* A store with a session that is to be erased, some of it dropped, and another one. */
static uint32_t make_secrets(struct t_store *t, uint64_t *chance)
{
    t_store_init(t);
    t->options.segment_size = 16 * 1024;
    t->options.history_ms = 0;
    t->options.compact_interval_ms = 0;
    t_store_watch(t);
    t_open(t);
    uint32_t other = t_session(t, "other"), secret = t_session(t, "the-secret-id");
    for (unsigned i = 0; i < 3; i++) {
        write_secrets(t, secret, 40);
        t_fill(t, other, 100, 10, 100, chance);
    }
    assert_int_equal(hl_trim(t->store, secret, 60, NULL, &t->err), 0);
    return secret;
}

static void compact_all(struct t_store *t)
{
    struct hl_compact what = {.everything = true};
    if (hl_compact(t->store, &what, NULL, NULL, &t->err) < 0)
        fail_msg("compact: %s", t->err.text);
}

/* What a compaction could not move to backup/ lies in log/ until the next opening. */
static void what_was_not_moved_goes_too(void **state)
{
    (void)state;
    uint64_t chance = t_seed("erase");
    struct t_store t;
    uint32_t secret = make_secrets(&t, &chance);
    t_io_fail(&t.io, 1U << T_RENAME, ".0.seg", 1, UINT64_MAX, -ENOSPC);
    compact_all(&t);
    assert_true(t_io_failed(&t.io) > 0);
    t_io_heal(&t.io);
    if (hl_erase(t.store, secret, NULL, NULL, &t.err) < 0)
        fail_msg("erase: %s", t.err.text);
    nothing_is_left(&t);
    t_reopen(&t);
    nothing_is_left(&t);
    t_close(&t);
    t_store_free(&t);
}

/* Nor is a snapshot that failed, and could not be removed, a place for it. */
static void what_a_snapshot_left_goes_too(void **state)
{
    (void)state;
    uint64_t chance = t_seed("erase");
    struct t_store t;
    uint32_t secret = make_secrets(&t, &chance);
    t_io_fail(&t.io, (1U << T_LINK) | (1U << T_UNLINK), ".seg", 3, UINT64_MAX, -EIO);
    assert_int_equal(hl_snapshot(t.store, "one", NULL, &t.err), -EIO);
    t_io_heal(&t.io);
    if (hl_erase(t.store, secret, NULL, NULL, &t.err) < 0)
        fail_msg("erase: %s", t.err.text);
    nothing_is_left(&t);
    t_close(&t);
    t_store_free(&t);
}

/* Files that cannot be read may hold anything: that they do not is not said. */
static void what_cannot_be_read_is_told(void **state)
{
    (void)state;
    static const char zeros[1024] = {1};
    uint64_t chance = t_seed("erase");
    struct t_store t;
    char path[T_PATH];
    uint32_t secret = make_secrets(&t, &chance);
    t_close(&t);
    t_segment_path(&t, 2, path);
    t_file_poke(path, 0, zeros, sizeof zeros);
    t_open(&t);
    assert_int_equal(hl_erase(t.store, secret, NULL, NULL, &t.err), -EBADMSG);
    assert_non_null(strstr(t.err.text, strrchr(path, '/') + 1));
    assert_int_equal(t_number(&t, "the-secret-id"), secret); /* and nothing is changed */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(hl_erase(t.store, secret, NULL, NULL, &t.err), 0);
    nothing_is_left(&t);
    t_close(&t);
    t_store_free(&t);
}

struct beside {
    struct hl_store *store;
    uint32_t session;
    int error;
    struct hl_error err;
    atomic_bool *stop;
};

static void *erase_beside(void *context)
{
    struct beside *beside = context;
    beside->error = hl_erase(beside->store, beside->session, NULL, NULL, &beside->err);
    return NULL;
}

static void *others_beside(void *context)
{
    struct beside *beside = context;
    struct hl_compact what = {.everything = true};
    while (beside->error == 0 && !atomic_load(beside->stop)) {
        beside->error = hl_reindex(beside->store, NULL, &beside->err);
        if (beside->error == 0)
            beside->error = hl_compact(beside->store, &what, NULL, NULL, &beside->err);
    }
    return NULL;
}

/* They do not take each other's files away, nor the snapshots that they open. */
static void two_at_once(void **state)
{
    (void)state;
    uint64_t chance = t_seed("erase");
    for (unsigned round = 0; round < t_amount("ROUNDS", t_slow() ? 3 : 8); round++) {
        struct t_store t;
        pthread_t threads[3];
        atomic_bool stop = false;
        t_store_init(&t);
        t_open(&t);
        uint32_t other = t_session(&t, "other"), secrets[2];
        secrets[0] = t_session(&t, "the-secret-id");
        secrets[1] = t_session(&t, "the-secret-id-too");
        for (unsigned i = 0; i < 2; i++) {
            write_secrets(&t, secrets[i], 20);
            t_fill(&t, other, 200, 10, 100, &chance);
            assert_int_equal(hl_snapshot(t.store, i ? "two" : "one", NULL, &t.err), 0);
        }
        compact_all(&t);
        struct beside beside[3];
        for (unsigned i = 0; i < 3; i++) {
            beside[i] = (struct beside){.store = t.store, .stop = &stop};
            beside[i].session = i < 2 ? secrets[i] : 0;
            assert_int_equal(
                pthread_create(&threads[i], NULL, i < 2 ? erase_beside : others_beside, &beside[i]),
                0);
        }
        for (unsigned i = 0; i < 3; i++) {
            pthread_join(threads[i], NULL);
            atomic_store(&stop, i >= 1);
            if (beside[i].error < 0)
                fail_msg("the %u.: %s", i + 1, beside[i].err.text);
        }
        if (t.errors + t.warnings > 0)
            fail_msg("it complains: %s", t.last_error);
        nothing_is_left(&t);
        t_close(&t);
        t_store_free(&t);
    }
}

/* One call fails: the erase says so or is complete, and the same again completes it. */
static void every_call_fails_once(void **state)
{
    (void)state;
    uint64_t chance = t_seed("erase");
    unsigned step = t_amount("STEP", t_slow() ? 211 : 67); /* 1: every one */
    bool failed = true;
    for (uint64_t call = 1 + t_below(&chance, step); failed; call += step) {
        struct t_store t;
        size_t len, len_after;
        struct hl_status status;
        uint32_t secret = make_secrets(&t, &chance);
        compact_all(&t);
        write_secrets(&t, secret, 10);
        char *log = t_log(t.store, t_number(&t, "other"), 4096, &len);
        t_io_fail(&t.io, (1U << T_CALLS) - 1, NULL, call, 1, t_below(&chance, 2) ? -EIO : -ENOSPC);
        int error = hl_erase(t.store, secret, NULL, NULL, &t.err);
        failed = t_io_failed(&t.io) > 0;
        t_io_heal(&t.io);
        assert_true(error == 0 || failed);
        assert_int_equal(hl_store_status(t.store, &status), 0);
        if (status.failed) {
            t_crash(&t);
            t_open(&t);
        }
        if (error < 0)
            error = hl_erase(t.store, secret, NULL, NULL, &t.err);
        if (error < 0)
            fail_msg("call %u: again: %s", (unsigned)call, t.err.text);
        nothing_is_left(&t);
        char *after = t_log(t.store, t_number(&t, "other"), 4096, &len_after);
        assert_int_equal(len, len_after);
        assert_memory_equal(log, after, len);
        free(after);
        free(log);
        t_crash(&t);
        t_open(&t);
        nothing_is_left(&t);
        t_close(&t);
        t_store_free(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_byte_is_left),
        cmocka_unit_test(cut_short_it_goes_on),
        cmocka_unit_test(what_is_not_noted_stays),
        cmocka_unit_test(what_was_not_moved_goes_too),
        cmocka_unit_test(what_a_snapshot_left_goes_too),
        cmocka_unit_test(what_cannot_be_read_is_told),
        cmocka_unit_test(two_at_once),
        cmocka_unit_test(every_call_fails_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
