/* test_flush.c - from the memtable to the index: flushes that fail on the way, go on, or end in a
 * crash. */
#include "../../store/core.h"
#include "support.h"

#include <dirent.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define MANY 4500 /* sessions: more than two transactions of a flush take */

/* One record for each of many sessions, more for some. */
static int append_to_many(struct t_store *t)
{
    size_t used = 0, room = MANY * 60;
    char *text = malloc(room);
    if (!text)
        return -ENOMEM;
    for (int i = 0; i < MANY; i++) {
        used += (size_t)snprintf(text + used, room - used, "{\"session_id\":\"s%d\"}\n", i);
        if (i % 100 == 0)
            used += (size_t)snprintf(text + used, room - used, "{\"session_id\":\"s7\"}\n");
    }
    int error = t_try_append(t, 0, text, used);
    free(text);
    return error;
}

static void limit_files(rlim_t size)
{
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = size;
    setrlimit(RLIMIT_FSIZE, &limit);
}

/* In a child: the index cannot grow past a limit, so a flush fails after some of its transactions.
 * Then the process dies, or the limit goes and all is well again. */
static void flush_under_limit(struct t_store *t, rlim_t limit, bool heal)
{
    t->options.report = NULL;
    signal(SIGXFSZ, SIG_IGN);
    if (t_try_open(t) < 0 || append_to_many(t) < 0)
        _exit(9);
    limit_files(limit);
    int error = hl_checkpoint(t->store, NULL, NULL);
    if (error < 0 && heal) {
        limit_files(RLIM_INFINITY);
        if (append_to_many(t) < 0 || hl_checkpoint(t->store, NULL, NULL) < 0)
            _exit(8);
        struct hl_status status;
        hl_store_status(t->store, &status);
        if (status.memtable_records != 0 || status.indexed != status.position)
            _exit(7);
    }
    _exit(error < 0 ? 1 : 0);
}

static void test_a_flush_that_ends_on_the_way(void **state)
{
    (void)state;
    struct t_store t;
    char base[T_PATH], path[T_PATH];
    t_store_init(&t);
    t.options.segment_size = 8 << 20;
    t_open(&t);
    assert_int_equal(append_to_many(&t), 0);
    t_close(&t);
    t_dir_make(base);
    t_dir_copy(t.dir, base);
    t_path(path, base, "index/data.mdb");
    uint64_t limit = t_file_size(path);
    unsigned failures = 0;
    int result = 1;
    for (unsigned round = 0; result == 1; round++, limit += t_slow() ? 150000 : 50000) {
        struct t_image image;
        bool heal = round % 3 == 2;
        t_dir_remove(t.dir);
        t_dir_copy(base, t.dir);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            flush_under_limit(&t, limit, heal);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        result = WEXITSTATUS(status);
        assert_true(result == 0 || result == 1);
        failures += result == 1;
        t_open(&t);
        t_image_take(t.store, &image);
        uint64_t each = MANY + MANY / 100;
        assert_int_equal(image.records, result == 1 && heal ? 3 * each : 2 * each);
        assert_int_equal(t.errors, 0);
        t_append(&t, 0, "{\"session_id\":\"s4499\"}\n{\"session_id\":\"new\"}\n");
        t_image_free(&image);
        t_image_take(t.store, &image);
        t_reopen(&t);
        t_shows(t.store, &image);
        t_close(&t);
        t_image_free(&image);
    }
    assert_true(failures >= 3);
    t_dir_remove(base);
    t_store_free(&t);
}

/* Entries go over by many sessions and by many entries of one. */
static void test_a_large_flush(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_status status;
    size_t lines = 300000;
    char *text = malloc(2 * lines);
    assert_non_null(text);
    for (size_t i = 0; i < lines; i++)
        memcpy(text + 2 * i, "x\n", 2);
    t_store_init(&t);
    t.options.segment_size = 64 << 20;
    t_open(&t);
    uint32_t s = t_session(&t, "large");
    assert_int_equal(append_to_many(&t), 0);
    for (int i = 0; i < (t_slow() ? 1 : 3); i++)
        assert_int_equal(t_try_append(&t, s, text, 2 * lines), 0);
    assert_int_equal(append_to_many(&t), 0);
    hl_store_status(t.store, &status);
    uint64_t records = status.records;
    assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
    hl_store_status(t.store, &status);
    assert_int_equal(status.memtable_records, 0);
    assert_int_equal(status.records, records);
    struct hl_session about;
    assert_int_equal(hl_session_by_number(t.store, s, &about), 0);
    assert_int_equal(about.records, (t_slow() ? 1 : 3) * lines);
    for (uint64_t seq = 1; seq <= about.records; seq += 9973) {
        struct hl_record record;
        uint64_t begin, end;
        assert_int_equal(hl_record_find(t.store, s, seq, &record), 0);
        assert_int_equal(hl_log_extent(t.store, s, seq, seq, &begin, &end), 0);
        assert_int_equal(end - begin, record.length);
    }
    free(text);
    t_store_free(&t);
}

/* ---- a turn that came too late ---- */

/* The first sync of a flush: meanwhile the store's own thread wants to flush, too. */
struct busy_sync {
    struct t_store *t;
    uint32_t session;
    pthread_t flushing;
    bool done;
};

/* Until every thread but this one has nothing to do, or waits for a lock. */
static void wait_until_others_sleep(void)
{
    bool awake = true;
    while (awake) {
        struct dirent *entry;
        DIR *tasks = opendir("/proc/self/task");
        assert_non_null(tasks);
        sched_yield();
        awake = false;
        while ((entry = readdir(tasks)) != NULL) {
            char path[64], text[512] = "";
            long id = strtol(entry->d_name, NULL, 10);
            snprintf(path, sizeof path, "/proc/self/task/%ld/stat", id);
            FILE *file = id > 0 && id != gettid() ? fopen(path, "re") : NULL;
            if (!file)
                continue; /* or it has ended */
            const char *name_end = fgets(text, sizeof text, file) ? strrchr(text, ')') : NULL;
            fclose(file);
            awake = awake || (name_end && strncmp(name_end, ") S", 3) != 0);
        }
        closedir(tasks);
    }
}

static bool is_awaited(struct flusher *flusher)
{
    pthread_mutex_lock(&flusher->lock);
    bool wanted = flusher->wanted;
    pthread_mutex_unlock(&flusher->lock);
    return wanted;
}

static int sync_while_busy(void *context, int fd)
{
    struct busy_sync *busy = context;
    if (busy->session && !busy->done && pthread_equal(pthread_self(), busy->flushing)) {
        busy->done = true;
        flush_wake(busy->t->store);
        while (is_awaited(&busy->t->store->flusher))
            sched_yield();
        wait_until_others_sleep(); /* it has seen that a table is frozen, and waits for its turn */
        t_append(busy->t, busy->session, "two\n");
    }
    return hl_io_system.fdatasync(NULL, fd);
}

/* What was due is done when its turn comes: what came since is not worth a flush. */
static void test_the_thread_looks_again(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_status status;
    struct busy_sync busy = {.t = &t, .flushing = pthread_self()};
    struct hl_io io = hl_io_system;
    io.context = &busy;
    io.fdatasync = sync_while_busy;
    t_store_init(&t);
    t.options.io = &io;
    t_open(&t);
    uint32_t session = t_session(&t, "s");
    t_append(&t, session, "one\n");
    wait_until_others_sleep();
    busy.session = session;
    assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
    assert_true(busy.done);
    wait_until_others_sleep();
    assert_int_equal(hl_store_status(t.store, &status), 0);
    assert_int_equal(status.memtable_records, 1);
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_flush_that_ends_on_the_way),
        cmocka_unit_test(test_a_large_flush),
        cmocka_unit_test(test_the_thread_looks_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
