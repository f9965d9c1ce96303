/* test_index_process.c - the index between threads and processes. */
#include "index_model.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* ---- a writer, and a reader in another process ---- */

static void send_byte(int fd, char byte)
{
    assert_int_equal(write(fd, &byte, 1), 1);
}

static char receive_byte(int fd)
{
    char byte = 0;
    if (read(fd, &byte, 1) != 1)
        byte = '\0';
    return byte;
}

/* In the child: after each word from the writer all that it committed must be there. Its map is
 * small, so it must adopt what the writer's growth asks for. Both make the same model from the same
 * seed. */
static int follow(const struct model_dir *dir, uint64_t chance, unsigned rounds, int from, int to)
{
    struct index *index = NULL;
    struct model model = {.count = 0};
    uint64_t asking = chance ^ 1;
    int result = 1;
    for (unsigned round = 0; round < rounds; round++) {
        model_grow(&model, &chance, 2, 1500);
        for (size_t i = 0; i < model.count; i++)
            model.sessions[i].stored = model.sessions[i].count;
        if (receive_byte(from) != 'c')
            goto out;
        if (!index && index_open_sized(dir->path, INDEX_READ_ONLY, model_store_id, 1U << 18, &index,
                                       NULL) < 0)
            goto out;
        bool damaged = false;
        if (!model_ask(&model, index, &asking, 40, &damaged) || damaged)
            goto out;
        send_byte(to, 'r');
    }
    result = 0;
out:
    index_close(index);
    model_free(&model);
    return result;
}

static void test_two_processes(void **state)
{
    (void)state;
    const unsigned rounds = 15;
    uint64_t chance = model_seed("test_two_processes");
    struct model_dir dir;
    model_dir_make(&dir);
    int down[2], up[2];
    assert_int_equal(pipe(down), 0);
    assert_int_equal(pipe(up), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(down[1]);
        close(up[0]);
        _exit(follow(&dir, chance, rounds, down[0], up[1]));
    }
    close(down[0]);
    close(up[1]);
    struct model model = {.count = 0};
    struct index *index = model_open(&dir, INDEX_CREATE);
    for (unsigned round = 0; round < rounds; round++) {
        model_grow(&model, &chance, 2, 1500);
        model_commit(&model, index);
        send_byte(down[1], 'c');
        assert_int_equal(receive_byte(up[0]), 'r');
    }
    close(down[1]);
    close(up[0]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    index_close(index);
    model_expect_good(&model, &dir);
    model_free(&model);
    model_dir_remove(&dir);
}

/* A reader that dies with a view open keeps no page from being used again. */
static void test_dead_reader(void **state)
{
    (void)state;
    struct model_dir dir;
    model_dir_make(&dir);
    index_close(model_open(&dir, INDEX_CREATE));
    int up[2];
    assert_int_equal(pipe(up), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct index *reader = NULL;
        struct index_view *view;
        if (index_open(dir.path, INDEX_READ_ONLY, model_store_id, &reader, NULL) < 0 ||
            index_view_begin(reader, &view) < 0)
            _exit(1);
        send_byte(up[1], 'r');
        pause();
        _exit(1);
    }
    assert_int_equal(receive_byte(up[0]), 'r');
    struct index *index = model_open(&dir, 0);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    close(up[0]);
    close(up[1]);
    int dead = 0;
    /* By LMDB's own count the slot is taken, and then it is not. */
    assert_int_equal(index_reader_check(index), 0);
    assert_int_equal(mdb_reader_check(index->env, &dead), 0);
    assert_int_equal(dead, 0);
    uint64_t size = 0;
    struct model model = {.count = 0};
    uint64_t chance = 1;
    model_add_session(&model, &chance);
    for (unsigned i = 0; i < 400; i++) {
        model_append(&model, &model.sessions[0], i + 1, 1);
        model_commit(&model, index);
        if (i == 200)
            size = index_bytes(index);
    }
    assert_true(index_bytes(index) <= size + 65536);
    index_close(index);
    model_expect_good(&model, &dir);
    model_free(&model);
    model_dir_remove(&dir);
}

/* Without locks nothing is written, and a directory that cannot be written to will do. */
static void test_no_lock(void **state)
{
    (void)state;
    uint64_t chance = model_seed("test_no_lock");
    struct model_dir dir;
    model_dir_make(&dir);
    struct model model = {.count = 0};
    struct index *index = model_open(&dir, INDEX_CREATE);
    model_grow(&model, &chance, 20, 800);
    model_commit(&model, index);
    index_close(index);
    char lock[400], data[400];
    model_file(&dir, "lock.mdb", lock);
    model_file(&dir, "data.mdb", data);
    assert_int_equal(unlink(lock), 0);
    assert_int_equal(chmod(data, 0400), 0);
    assert_int_equal(chmod(dir.path, 0500), 0);
    index = model_open(&dir, INDEX_READ_ONLY | INDEX_NO_LOCK);
    model_expect(&model, index, &chance, 200);
    index_close(index);
    struct index_check_report report;
    assert_int_equal(index_check_in_child(dir.path, INDEX_NO_LOCK, model_store_id, &report), 0);
    assert_int_equal(access(lock, F_OK), -1);
    assert_int_equal(chmod(dir.path, 0700), 0);
    model_free(&model);
    model_dir_remove(&dir);
}

/* Every descriptor that opening added is closed by exec. */
static void test_close_on_exec(void **state)
{
    (void)state;
    bool before[256];
    for (int fd = 0; fd < 256; fd++)
        before[fd] = fcntl(fd, F_GETFD) >= 0;
    struct model_dir dir;
    model_dir_make(&dir);
    struct index *index = model_open(&dir, INDEX_CREATE);
    struct index_view *view;
    assert_int_equal(index_view_begin(index, &view), 0);
    unsigned opened = 0;
    for (int fd = 0; fd < 256; fd++) {
        int flags = fcntl(fd, F_GETFD);
        if (before[fd] || flags < 0)
            continue;
        assert_true(flags & FD_CLOEXEC);
        opened++;
    }
    assert_true(opened >= 2);
    index_view_end(view);
    index_close(index);
    model_dir_remove(&dir);
}

#ifndef MODEL_LITTLE_SPACE
static uint64_t ask_records(struct index *index)
{
    struct index_view *view;
    struct index_meta meta = {.records = UINT64_MAX};
    if (index_view_begin(index, &view) < 0)
        return UINT64_MAX;
    if (index_get_meta(view, &meta) < 0)
        meta.records = UINT64_MAX;
    index_view_end(view);
    return meta.records;
}
#endif

#ifndef MODEL_LITTLE_SPACE /* the shadow memory of sanitizers needs more than any limit */
/* With little address space the map is smaller, not missing. */
static void test_address_space(void **state)
{
    (void)state;
    struct model_dir dir;
    model_dir_make(&dir);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct rlimit limit = {.rlim_cur = (rlim_t)1 << 30, .rlim_max = (rlim_t)1 << 30};
        struct index *index;
        if (setrlimit(RLIMIT_AS, &limit) < 0 ||
            index_open(dir.path, INDEX_CREATE, model_store_id, &index, NULL) < 0)
            _exit(1);
        if (index->map_size > (size_t)1 << 29 || index->map_size < (size_t)1 << 20)
            _exit(2);
        /* To twice the size cannot be had; the index lives on. */
        while (index_grow(index) == 0)
            ;
        _exit(ask_records(index) == 0 ? 0 : 3);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    model_dir_remove(&dir);
}
#endif

/* ---- threads ---- */

struct shared {
    struct index *index;
    atomic_bool stop;
    atomic_uint failures;
    atomic_ulong views;
};

/* Each view shows one commit as a whole: the totals of meta are those of the rows. */
static void *read_always(void *context)
{
    struct shared *shared = context;
    while (!atomic_load(&shared->stop)) {
        struct index_view *view;
        struct index_meta meta;
        struct index_row row = {.number = 0};
        uint64_t records = 0, bytes = 0;
        int error = index_view_begin(shared->index, &view);
        if (error < 0) {
            atomic_fetch_add(&shared->failures, 1);
            return NULL;
        }
        error = index_get_meta(view, &meta);
        while (error == 0 && (error = index_session_next(view, row.number, &row)) == 0) {
            records += row.records;
            bytes += row.bytes;
        }
        if (error != -ENOENT || records != meta.records || bytes != meta.bytes)
            atomic_fetch_add(&shared->failures, 1);
        index_view_end(view);
        atomic_fetch_add(&shared->views, 1);
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    uint64_t chance = model_seed("test_threads");
    struct model_dir dir;
    model_dir_make(&dir);
    struct shared shared = {.stop = false};
    assert_int_equal(index_open_sized(dir.path, INDEX_CREATE | INDEX_BUILD, model_store_id,
                                      (size_t)1 << 23, &shared.index, NULL),
                     0);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_always, &shared), 0);
    struct model model = {.count = 0};
    for (unsigned round = 0; round < 20; round++) {
        model_grow(&model, &chance, 3, 100);
        model_commit(&model, shared.index);
        if (round % 2 == 0)
            assert_int_equal(index_grow(shared.index), 0);
        (void)index_txn_id(shared.index);
        /* Readers go on between growths. */
        unsigned long seen = atomic_load(&shared.views);
        while (atomic_load(&shared.views) < seen + 4 && atomic_load(&shared.failures) == 0)
            sched_yield();
    }
    atomic_store(&shared.stop, true);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&shared.failures), 0);
    assert_int_equal(index_sync(shared.index), 0);
    model_expect(&model, shared.index, &chance, 20);
    index_close(shared.index);
    model_expect_good(&model, &dir);
    model_free(&model);
    model_dir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_processes), cmocka_unit_test(test_dead_reader),
        cmocka_unit_test(test_no_lock),       cmocka_unit_test(test_close_on_exec),
        cmocka_unit_test(test_threads),
#ifndef MODEL_LITTLE_SPACE
        cmocka_unit_test(test_address_space),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
