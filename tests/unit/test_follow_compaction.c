/* test_follow_compaction.c - a read-only store beside a writer that compacts. */
#include "support_writer.h"

#include <unistd.h>

/* What the sessions show; NULL for one that is gone. */
static void take_logs(struct t_store *t, char *logs[3])
{
    for (unsigned i = 0; i < 3; i++) {
        const char id[] = {(char)('a' + i), 0};
        struct hl_session about;
        size_t len;
        logs[i] = NULL;
        if (hl_session_by_id(t->store, id, 1, &about) == 0)
            logs[i] = t_log(t->store, about.number, 2000, &len);
    }
}

static void same_logs(char *a[3], char *b[3])
{
    for (unsigned i = 0; i < 3; i++) {
        assert_true(!a[i] == !b[i]);
        if (a[i])
            assert_string_equal(a[i], b[i]);
        free(a[i]);
        free(b[i]);
    }
}

static struct hl_usage usage_of_all(struct t_store *t)
{
    struct hl_sums *sums;
    assert_int_equal(hl_sums(t->store, 0, &sums), 0);
    struct hl_usage usage = sums->total;
    free(sums);
    return usage;
}

/* One that was there all the time, and looks only now and then, and one that comes now. */
static void readers_see_what_is_left(void **state)
{
    (void)state;
    uint64_t chance = t_seed("follow_compaction");
    struct t_store t;
    struct t_writer writer;
    t_store_init(&t);
    t.options.segment_size = 20 * 1024;
    t.options.backups = 0;
    t_writer_start(&writer, &t, chance);
    t.options.read_only = true;
    t_open(&t);
    unsigned rounds = t_amount("ROUNDS", t_slow() ? 4 : 12);
    for (unsigned round = 0; round < rounds; round++) {
        char *logs[3], *fresh[3];
        size_t len;
        for (unsigned i = 0; i < 6; i++)
            t_tell(&writer, "aaaxxrckd"[t_below(&chance, 9)]);
        t_tell(&writer, 'k');
        take_logs(&t, logs);
        free(t_root_log(t.store, 3000, &len));
        struct hl_usage usage = usage_of_all(&t), fresh_usage;
        assert_int_equal(t.errors, 0);
        struct hl_store *old = t.store;
        t.store = NULL;
        if (t_below(&chance, 3) == 0) { /* LMDB is opened once in a process */
            hl_store_close(old);
            t_open(&t);
            take_logs(&t, fresh);
            same_logs(logs, fresh);
            fresh_usage = usage_of_all(&t);
            assert_memory_equal(&usage, &fresh_usage, sizeof usage);
            assert_int_equal(t.errors, 0);
        } else {
            t.store = old;
            for (unsigned i = 0; i < 3; i++)
                free(logs[i]);
        }
    }
    t_writer_end(&writer, false);
    t_close(&t);
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_see_what_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
