/* test_relay.c - the store's news on its way to a mount that ends meanwhile. */
#include "support.h"

#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../../fs/follow_internal.h"

static struct fs_relay relay = {.lock = PTHREAD_RWLOCK_INITIALIZER};

struct worker {
    pthread_t thread;
    _Atomic pid_t id;
    _Atomic bool through;
};

static void *tell(void *context)
{
    struct worker *worker = context;
    const struct hl_news news = {.session = 1, .deleted = true};
    atomic_store(&worker->id, (pid_t)syscall(SYS_gettid));
    fs_news(&relay, &news);
    atomic_store(&worker->through, true);
    return NULL;
}

static void *end(void *context)
{
    struct worker *worker = context;
    atomic_store(&worker->id, (pid_t)syscall(SYS_gettid));
    fs_relay_to(&relay, NULL);
    atomic_store(&worker->through, true);
    return NULL;
}

static bool sleeps(pid_t id)
{
    char path[64], line[512];
    if (id == 0)
        return false;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)id);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    const char *name_end = fgets(line, sizeof line, file) ? strrchr(line, ')') : NULL;
    fclose(file);
    return name_end && name_end[1] == ' ' && name_end[2] == 'S';
}

static void start(struct worker *worker, void *(*run)(void *))
{
    assert_int_equal(pthread_create(&worker->thread, NULL, run, worker), 0);
    while (!atomic_load(&worker->through) && !sleeps(atomic_load(&worker->id)))
        sched_yield();
}

/* The mount is let go of only when nobody tells it anything any more. */
static void ends_after_the_news(void **state)
{
    struct fs_options options = {.dir = *state, .mountpoint = *state};
    struct worker teller = {.id = 0}, ender = {.id = 0};
    struct fs *fs;

    assert_int_equal(fs_new(&options, NULL, &fs), 0);
    fs_relay_to(&relay, fs);
    pthread_mutex_lock(&fs->follow->lock); /* here the news is held up */
    start(&teller, tell);
    assert_false(atomic_load(&teller.through));
    start(&ender, end);
    assert_false(atomic_load(&ender.through));
    pthread_mutex_unlock(&fs->follow->lock);
    pthread_join(ender.thread, NULL);
    pthread_join(teller.thread, NULL);
    fs_free(fs);
    fs_news(&relay, &(struct hl_news){.session = 1, .deleted = true}); /* goes nowhere */
}

static int make_dir(void **state)
{
    char *dir = malloc(T_PATH);
    assert_non_null(dir);
    t_dir_make(dir);
    *state = dir;
    return 0;
}

static int remove_dir(void **state)
{
    t_dir_remove(*state);
    free(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(ends_after_the_news)};
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
