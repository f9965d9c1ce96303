/* test_reviewed.c - defects that a review of the store found, each kept from coming back. */
#include "support.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../store/core.h"

#define HEAVY ((size_t)60000) /* bytes of an attribute that fills tables and logs quickly */
#define PATIENCE 600U         /* seconds, after which a test hangs and SIGALRM ends it */

static void set_heavy(struct t_store *t, uint32_t session, char first)
{
    char *value = malloc(HEAVY);
    assert_non_null(value);
    memset(value, 'v', HEAVY);
    value[0] = first;
    int error = hl_attribute_set(t->store, session, "heavy", value, HEAVY, 0);
    free(value);
    assert_int_equal(error, 0);
}

static void limit_files(rlim_t size)
{
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = size;
    setrlimit(RLIMIT_FSIZE, &limit);
}

/* Waits for a child and returns what it exited with. */
static int child_result(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* ---- memory ---- */

#define LOOKED_UP 400 /* sessions; with HEAVY they are more than two tables take */

/* Retries store nothing, but bring rows into the memtable. When those had filled it, appends waited
 * for a flush that found nothing to do, for the log had not moved. */
static void test_rows_that_were_only_looked_up_make_room(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_status before, after;
    assert_true(LOOKED_UP * HEAVY > 2 * FLUSH_TABLE_BYTES);
    t_store_init(&t);
    t.options.segment_size = 64 << 20;
    t_open(&t);
    for (int i = 0; i < LOOKED_UP; i++) {
        char id[32];
        snprintf(id, sizeof id, "s%d", i);
        uint32_t s = t_session(&t, id);
        set_heavy(&t, s, 'v');
        t_append_format(&t, s, "{\"session_id\":\"%s\",\"seq\":1}\n", id);
    }
    t_reopen(&t); /* with an empty table */
    hl_store_status(t.store, &before);
    assert_int_equal(before.indexed, before.position);
    assert_int_equal(before.records, LOOKED_UP);
    alarm(PATIENCE);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < LOOKED_UP; i++)
            t_append_format(&t, 0, "{\"session_id\":\"s%d\",\"seq\":1}\n", i);
    }
    alarm(0);
    hl_store_status(t.store, &after);
    assert_int_equal(after.position, before.position);
    assert_int_equal(after.records, LOOKED_UP);
    assert_true(after.flushes > before.flushes);
    assert_int_equal(t.errors, 0);
    t_store_free(&t);
}

/* ---- segments ---- */

/* A table of calls, in one of which the process dies. */
struct deadly {
    struct hl_io io;
    atomic_bool armed;
    atomic_int left; /* calls that change files, before the one it dies in */
    bool half;       /* that one, if it writes, does half of it */
};

static bool dies(struct deadly *deadly)
{
    return atomic_load(&deadly->armed) && atomic_fetch_sub(&deadly->left, 1) == 0;
}

static ssize_t deadly_pwrite(void *context, int fd, const void *buffer, size_t len, uint64_t offset)
{
    struct deadly *deadly = context;
    if (dies(deadly)) {
        if (deadly->half)
            (void)hl_io_system.pwrite(NULL, fd, buffer, len / 2, offset);
        _exit(1);
    }
    return hl_io_system.pwrite(NULL, fd, buffer, len, offset);
}

static int deadly_fsync(void *context, int fd)
{
    if (dies(context))
        _exit(1);
    return hl_io_system.fsync(NULL, fd);
}

static int deadly_open(void *context, int dirfd, const char *name, int flags, mode_t mode)
{
    if ((flags & O_CREAT) && dies(context))
        _exit(1);
    return hl_io_system.open(NULL, dirfd, name, flags, mode);
}

/* In a child: 1 when it died while it rotated, 0 when it lived. */
static void rotate_and_die(struct t_store *t, int calls, bool half)
{
    struct deadly deadly = {.io = hl_io_system, .left = calls, .half = half};
    deadly.io.context = &deadly;
    deadly.io.pwrite = deadly_pwrite;
    deadly.io.fsync = deadly_fsync;
    deadly.io.open = deadly_open;
    t->options.io = &deadly.io;
    t->options.report = NULL;
    if (t_try_open(t) < 0)
        _exit(9);
    atomic_store(&deadly.armed, true);
    _exit(hl_rotate(t->store, NULL) < 0 ? 8 : 0);
}

/* One death, and what comes after it. Returns what the child did. */
static int die_in_rotation(int calls, bool half)
{
    struct t_store t;
    struct t_image image;
    struct hl_status status;
    t_store_init(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    t_append(&t, s, "one\n");
    t_close(&t);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        rotate_and_die(&t, calls, half);
    int result = child_result(pid);
    t_open(&t);
    assert_int_equal(t.errors, 0);
    t_append(&t, s, "two\n");
    assert_int_equal(hl_rotate(t.store, &t.err), 0);
    t_append(&t, s, "three\n");
    t_image_take(t.store, &image);
    assert_int_equal(image.records, 3);
    for (int round = 0; round < 3; round++) {
        t_close(&t);
        if (round == 1)
            t_lose_index(&t);
        t_open(&t);
        if (t.errors)
            fail_msg("after %d calls: %s", calls, t.last_error);
        hl_store_status(t.store, &status);
        assert_int_equal(status.damage_found, 0);
        t_shows(t.store, &image);
    }
    t_check_log(&t);
    t_image_free(&image);
    t_store_free(&t);
    return result;
}

/* A file that a crash left without a header was removed, but its number was passed over later: the
 * hole was taken for a lost segment at every opening. */
static void test_a_segment_that_was_never_born_leaves_no_hole(void **state)
{
    (void)state;
    int deaths = 0, result = 1;
    for (int calls = 0; result == 1; calls++) {
        assert_true(calls < 50);
        result = die_in_rotation(calls, false);
        assert_true(result == 0 || result == 1);
        assert_int_equal(die_in_rotation(calls, true), result);
        deaths += result;
    }
    assert_true(deaths >= 4); /* the seal, the file's birth, its header, its sync */
}

/* The newest segment may end with a seal that was never synced: nobody knows then whether a broken
 * batch in it is damage or what a power cut left. So no part of it is shown, and all of it is set
 * aside; what stands behind it, seal and end of the file stay as they are. */
static void test_a_broken_batch_in_a_sealed_newest_segment(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_record record, eleven;
    struct hl_status status;
    char path[T_PATH];
    size_t before_len, after_len, len;
    t_store_init(&t);
    t_store_watch(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    t_append(&t, s, "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n");
    t_append(&t, s, "11\n");
    assert_int_equal(hl_record_find(t.store, s, 5, &record), 0);
    assert_int_equal(hl_record_find(t.store, s, 11, &eleven), 0);
    t_io_fail(&t.io, 1U << T_OPEN, "00000002-", 1, 1000, -ENOSPC);
    assert_int_equal(hl_rotate(t.store, &t.err), -ENOSPC);
    assert_int_equal(hl_store_close(t.store), 0);
    t.store = NULL;
    assert_int_equal(t_last_segment(&t), 1);
    t_lose_index(&t);
    t_segment_path(&t, 1, path);
    t_file_flip(path, record.offset + FRAME_HEADER_SIZE + record.length / 2, 1);
    char *before = t_file_read(path, &before_len);
    t_open(&t); /* opens must not need the next segment */
    t_io_heal(&t.io);
    char *after = t_file_read(path, &after_len);
    assert_int_equal(after_len, before_len);
    assert_memory_equal(after + eleven.offset, before + eleven.offset, before_len - eleven.offset);
    hl_store_status(t.store, &status);
    assert_true(status.quarantined_bytes > record.length);
    for (int round = 0; round < 3; round++) {
        struct t_image image;
        t_image_take(t.store, &image);
        for (uint64_t seq = 1; seq <= 11; seq++) {
            const char *line = t_image_line(&image, "s", seq, &len);
            if ((line != NULL) != (seq == 11))
                fail_msg("round %d: record %" PRIu64 " is %s", round, seq, line ? "there" : "lost");
        }
        t_image_free(&image);
        if (round == 0)
            t_append(&t, s, "12\n"); /* goes to the next segment */
        t_close(&t);
        if (round == 1)
            t_lose_index(&t);
        t_open(&t);
    }
    assert_int_equal(t_last_segment(&t), 2);
    assert_int_equal(hl_record_find(t.store, s, 12, &record), 0);
    free(before);
    free(after);
    t_store_free(&t);
}

/* A segment that was made but could not be taken, nor removed, is passed over. */
static void test_a_segment_that_was_left_behind(void **state)
{
    (void)state;
    for (int calls = 1; calls <= 3; calls++) {
        struct t_store t;
        struct t_image image;
        t_store_init(&t);
        t_store_watch(&t);
        t_open(&t);
        uint32_t s = t_session(&t, "s");
        t_append(&t, s, "one\n");
        /* The header's write, its sync, that of the directory. */
        t_io_fail(&t.io, 1U << T_PWRITE | 1U << T_FSYNC | 1U << T_UNLINK, NULL, (uint64_t)calls + 1,
                  1000, -EIO);
        assert_int_equal(hl_rotate(t.store, &t.err), -EIO);
        t_io_heal(&t.io);
        t_append(&t, s, "two\n");
        t_image_take(t.store, &image);
        assert_int_equal(image.records, 2);
        t_crash(&t);
        t_open(&t);
        assert_int_equal(t.errors, 0);
        t_shows(t.store, &image);
        t_append(&t, s, "three\n");
        t_image_free(&image);
        t_store_free(&t);
    }
}

static void move_file(const char *from, const char *to)
{
    assert_int_equal(rename(from, to), 0);
}

/* A segment that comes back after its sessions were made anew: the index refuses a second number
 * for one id, so the store could not be opened any more. */
static void test_two_numbers_with_one_id_do_not_keep_the_store_shut(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_status status;
    struct hl_session about;
    char path[T_PATH], aside[T_PATH];
    size_t len;
    t_store_init(&t);
    t_open(&t);
    uint32_t first = t_session(&t, "A");
    t_append(&t, first, "one\n");
    assert_int_equal(hl_rotate(t.store, &t.err), 0);
    t_session(&t, "B");
    t_close(&t);
    t_segment_path(&t, 1, path);
    t_path(aside, t.dir, "../%s.aside", strrchr(t.dir, '/') + 1);
    move_file(path, aside);
    t_lose_index(&t);
    t_open(&t);
    uint32_t second = t_session(&t, "A");
    assert_int_not_equal(second, first);
    t_append(&t, second, "two\n");
    t_close(&t);
    move_file(aside, path);
    for (int round = 0; round < 2; round++) {
        t_lose_index(&t);
        t_open(&t);
        assert_true(t.errors > 0); /* told, not hidden */
        hl_store_status(t.store, &status);
        assert_true(status.damage_found > 0);
        assert_int_equal(hl_session_by_id(t.store, "A", 1, &about), 0);
        assert_int_equal(about.number, first);
        assert_int_equal(hl_session_by_id(t.store, "B", 1, &about), 0);
        char *log = t_log(t.store, first, 64, &len);
        assert_true(t_has(log, len, "one"));
        free(log);
        t_append_format(&t, first, "more %d\n", round);
        t_reopen(&t); /* with the index it made */
        log = t_log(t.store, first, 64, &len);
        assert_true(t_has(log, len, round ? "more 1" : "more 0"));
        free(log);
        t_close(&t);
    }
    t_store_free(&t);
}

/* ---- the index ---- */

#define LIGHT 500 /* sessions: what the first transaction of a flush takes */
#define LOADED 200

static int append_to_light(struct t_store *t)
{
    size_t used = 0, room = LIGHT * 40;
    char *text = malloc(room);
    if (!text)
        return -ENOMEM;
    for (int i = 0; i < LIGHT; i++)
        used += (size_t)snprintf(text + used, room - used, "{\"session_id\":\"s%d\"}\n", i);
    int error = t_try_append(t, 0, text, used);
    free(text);
    return error;
}

/* In a child: fills a table well past FLUSH_TABLE_BYTES, and dies when one transaction of its flush
 * is done and the next one has failed. */
static void die_in_a_flush(struct t_store *t, rlim_t limit)
{
    signal(SIGXFSZ, SIG_IGN);
    t->options.report = NULL;
    if (t_try_open(t) < 0)
        _exit(9);
    pthread_mutex_lock(&t->store->flush_lock);
    if (append_to_light(t) < 0)
        _exit(8);
    for (int i = 0; i < LOADED; i++) {
        char id[32];
        snprintf(id, sizeof id, "loaded%d", i);
        set_heavy(t, t_session(t, id), 'v');
    }
    if (append_to_light(t) < 0)
        _exit(7);
    limit_files(limit);
    int error = flush_all(t->store);
    _exit(error < 0 && t->store->flush_applied == LIGHT ? 1 : 6);
}

/* A replay flushes earlier than the flush that died, and so set rows back that were further. What
 * those had already was applied again: records after records, reported as damage. */
static void test_rows_of_the_index_never_go_back(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_status status;
    char path[T_PATH];
    assert_true(LOADED * HEAVY > FLUSH_TABLE_BYTES + FLUSH_TABLE_BYTES / 10);
    assert_int_equal(LIGHT, FLUSH_SESSIONS);
    t_store_init(&t);
    t.options.segment_size = 1 << 20; /* a replay flushes in sealed ones */
    t_open(&t);
    t_close(&t);
    t_path(path, t.dir, "index/data.mdb");
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        die_in_a_flush(&t, t_file_size(path) + (6 << 20));
    assert_int_equal(child_result(pid), 1);
    t_open(&t);
    if (t.errors)
        fail_msg("%u errors, the last: %s", t.errors, t.last_error);
    hl_store_status(t.store, &status);
    assert_int_equal(status.damage_found, 0);
    assert_true(status.flushes > 0); /* the replay's own: else this shows nothing */
    assert_int_equal(status.sessions, LIGHT + LOADED);
    assert_int_equal(status.records, 2 * LIGHT);
    assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
    assert_int_equal(t_verify(&t), 2 * LIGHT);
    t_store_free(&t);
}

/* Any failure to look at the index was taken for its absence, and it was built anew over the one
 * that was there. */
static void test_an_index_that_cannot_be_looked_at_is_left_alone(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    struct hl_status status;
    struct stat before, after;
    char path[T_PATH];
    static const int errors[] = {-EIO, -EACCES, -EMFILE};
    t_store_init(&t);
    t_store_watch(&t);
    t_open(&t);
    t_append(&t, t_session(&t, "s"), "one\n");
    t_image_take(t.store, &image);
    t_close(&t);
    t_path(path, t.dir, "index/data.mdb");
    for (size_t i = 0; i < 2 * (sizeof errors / sizeof *errors); i++) {
        char **names;
        size_t before_len, after_len;
        int error = errors[i / 2];
        t.options.read_only = i % 2;
        char *bytes = t_file_read(path, &before_len);
        assert_int_equal(stat(path, &before), 0);
        size_t entries = t_names(t.dir, "", &names);
        t_names_free(names, entries);
        t_io_fail(&t.io, 1U << T_OPEN, "index/data.mdb", 1, 1, error);
        assert_int_equal(t_try_open(&t), error);
        assert_int_equal(t_io_failed(&t.io), 1);
        t_io_heal(&t.io);
        assert_int_equal(stat(path, &after), 0);
        assert_int_equal(after.st_ino, before.st_ino);
        char *now = t_file_read(path, &after_len);
        assert_int_equal(after_len, before_len);
        assert_memory_equal(now, bytes, before_len);
        assert_int_equal(t_names(t.dir, "", &names), entries);
        t_names_free(names, entries);
        free(bytes);
        free(now);
        t_open(&t);
        hl_store_status(t.store, &status);
        assert_int_equal(status.recovered_records, 0); /* the index has them */
        t_shows(t.store, &image);
        t_close(&t);
    }
    t_image_free(&image);
    t_store_free(&t);
}

/* A checkpoint after a flush that had failed moved only what that one had frozen, and then held
 * less than it should. */
static void test_a_checkpoint_after_a_failed_flush_holds_all(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_status status;
    char path[T_PATH];
    t_store_init(&t);
    t.options.segment_size = 64 << 20;
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    t_append(&t, s, "one\n");
    for (char i = 0; i < 20; i++)
        set_heavy(&t, t_session(&t, (char[]){'l', (char)('a' + i), 0}), i);
    t_path(path, t.dir, "index/data.mdb");
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    limit_files(t_file_size(path) + HEAVY);
    int error = hl_checkpoint(t.store, NULL, NULL);
    limit_files(RLIM_INFINITY);
    signal(SIGXFSZ, handler);
    assert_true(error < 0);
    hl_store_status(t.store, &status);
    assert_true(status.indexed < status.position);
    t_append(&t, s, "two\n");
    assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
    hl_store_status(t.store, &status);
    assert_int_equal(status.indexed, status.position);
    assert_int_equal(status.memtable_records, 0);
    t_close(&t);
    t_open(&t);
    hl_store_status(t.store, &status);
    assert_int_equal(status.recovered_records, 0);
    assert_int_equal(status.records, 2);
    t_store_free(&t);
}

/* Only appends looked at how much log the index had not: attributes set again and again made a log
 * without end that the next opening would have to replay. */
static void test_changes_of_attributes_are_flushed_by_their_volume(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_status status;
    t_store_init(&t);
    t.options.segment_size = UINT64_C(1) << 30;
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    t_append(&t, s, "one\n");
    hl_store_status(t.store, &status);
    uint64_t flushes = status.flushes; /* those of opening */
    for (int i = 0;; i++) {
        set_heavy(&t, s, (char)i);
        hl_store_status(t.store, &status);
        if (position_offset(status.position) > FLUSH_LOG_BYTES + SEGMENT_HEADER_REGION)
            break;
    }
    assert_true(status.memtable_bytes < FLUSH_TABLE_BYTES); /* the table alone asks for none */
    uint64_t position = status.position;
    alarm(PATIENCE);
    while (hl_store_status(t.store, &status) == 0 && status.flushes == flushes)
        sched_yield();
    alarm(0);
    /* Of one moment: the count may have gone up between the parts of the last one. */
    hl_store_status(t.store, &status);
    assert_int_equal(status.position, position);
    assert_true(status.indexed > position - 4 * HEAVY); /* all but what came in while it began */
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_segment_that_was_left_behind),
        cmocka_unit_test(test_rows_that_were_only_looked_up_make_room),
        cmocka_unit_test(test_a_segment_that_was_never_born_leaves_no_hole),
        cmocka_unit_test(test_a_broken_batch_in_a_sealed_newest_segment),
        cmocka_unit_test(test_two_numbers_with_one_id_do_not_keep_the_store_shut),
        cmocka_unit_test(test_rows_of_the_index_never_go_back),
        cmocka_unit_test(test_an_index_that_cannot_be_looked_at_is_left_alone),
        cmocka_unit_test(test_a_checkpoint_after_a_failed_flush_holds_all),
        cmocka_unit_test(test_changes_of_attributes_are_flushed_by_their_volume),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
