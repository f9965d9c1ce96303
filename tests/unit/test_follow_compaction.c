/* test_follow_compaction.c - a read-only store beside a writer that compacts. */
#include "support_writer.h"

#include <unistd.h>

#include "../../store/core.h"

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

/* Reads records of the session "ten", each of which must be good but those that are damaged. */
static void check_ten(struct t_store *t, uint64_t records, uint64_t bad, uint64_t also_bad)
{
    char line[200];
    size_t len;
    struct hl_session about;
    assert_int_equal(hl_session_by_id(t->store, "ten", 3, &about), 0);
    assert_int_equal(about.records, records);
    for (uint64_t seq = 1; seq <= records; seq++) {
        ssize_t n = hl_record_read(t->store, about.number, seq, line, sizeof line, 0);
        if (seq == bad || seq == also_bad)
            assert_int_equal(n, -EBADMSG);
        else
            assert_true(n > 0 && line[n - 1] == '\n');
    }
    char *log = t_log(t->store, about.number, 500, &len);
    assert_int_equal(len, about.bytes);
    size_t lines = 0;
    for (size_t i = 0; i < len; i++)
        lines += log[i] == '\n';
    assert_int_equal(lines, records);
    free(log);
}

static void damage_ten(struct t_store *t, uint64_t seq)
{
    char path[T_PATH];
    struct hl_session about;
    struct hl_record record;
    assert_int_equal(hl_session_by_id(t->store, "ten", 3, &about), 0);
    assert_int_equal(hl_record_find(t->store, about.number, seq, &record), 0);
    t_segment_path(t, record.segment, path);
    t_file_flip(path, record.offset + 40, 0x10);
}

/* A damaged record takes nothing with it that was readable: beside a writer that goes on and that
 * compacts, and when there is none. */
static void damage_takes_nothing_along(void **state)
{
    (void)state;
    struct t_store t;
    struct t_writer writer;
    t_store_init(&t);
    t_store_watch(&t);
    t_writer_start(&writer, &t, t_seed("damage_takes_nothing_along"));
    for (int i = 0; i < 3; i++)
        t_tell(&writer, 't');
    t.options.read_only = true;
    t_open(&t);
    check_ten(&t, 30, 0, 0);
    damage_ten(&t, 14);
    uint64_t opened = t_io_count(&t.io, T_OPEN);
    check_ten(&t, 30, 14, 0);
    assert_int_equal(t_io_count(&t.io, T_OPEN), opened); /* no file was looked at again */
    t_tell(&writer, 't');
    check_ten(&t, 40, 14, 0);
    t_tell(&writer, 'a');
    t_tell(&writer, 'r');
    t_tell(&writer, 'a');
    t_tell(&writer, 'x'); /* the session of "ten" stays as it is */
    t_tell(&writer, 'k');
    t_tell(&writer, 't');
    check_ten(&t, 50, 14, 0);
    char *logs[3];
    take_logs(&t, logs);
    for (unsigned i = 0; i < 3; i++)
        free(logs[i]);
    damage_ten(&t, 45);
    check_ten(&t, 50, 14, 45);
    t_writer_end(&writer, true);
    check_ten(&t, 50, 14, 45);
    t_close(&t);
    t_store_free(&t);
}

static void count_lost(void *context, const struct hl_news *news)
{
    uint64_t *lost = context;
    if (news->session == 0)
        *lost += news->dropped_bytes;
}

/* Who reads on in the root's log goes on with the next line, whatever the writer compacts, also
 * where nobody looks at a session meanwhile; its size and what it lost, which is told, are what he
 * has read; and no file is kept that another stands for. */
static void root_log_is_read_on(void **state)
{
    (void)state;
    struct t_store t;
    struct t_writer writer;
    struct hl_root_reader *reader;
    uint64_t chance = t_seed("root_log_is_read_on"), lost = 0, at = 0, size, lines = 0;
    unsigned compacted = 0, rounds = t_amount("ROUNDS", t_slow() ? 20 : 60);
    static char buffer[1 << 16];
    t_store_init(&t);
    t.options.segment_size = 20 * 1024;
    t.options.news = count_lost;
    t.options.news_context = &lost;
    t_writer_start(&writer, &t, chance);
    t.options.read_only = true;
    t_open(&t);
    assert_int_equal(hl_root_reader_open(t.store, &reader), 0);
    for (unsigned round = 0; round < rounds || compacted == 0; round++) {
        char order = "aaaxxkkric"[t_below(&chance, 10)];
        uint64_t before = lost;
        assert_true(round < rounds + 10000); /* something is compacted away before */
        t_tell(&writer, order);
        lines += order == 'a' ? 80 : 0;
        ssize_t n;
        while ((n = hl_root_reader_read(reader, at, buffer, sizeof buffer)) > 0) {
            for (ssize_t i = 0; i < n; i++)
                lines -= buffer[i] == '\n';
            at += (uint64_t)n;
        }
        assert_int_equal(n, 0);
        assert_int_equal(lines, 0);
        assert_int_equal(hl_root_log_size(t.store, &size), 0);
        assert_int_equal(size + lost, at);
        assert_int_equal(t.store->segments.replaced_count, 0);
        compacted += order == 'k' && lost > before;
        assert_int_equal(t.errors + t.warnings, 0);
    }
    assert_true(compacted > 0);
    hl_root_reader_close(reader);
    t_writer_end(&writer, false);
    t_close(&t);
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_see_what_is_left),
        cmocka_unit_test(root_log_is_read_on),
        cmocka_unit_test(damage_takes_nothing_along),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
