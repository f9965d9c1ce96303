/* test_recover_index.c - the store shows the same whichever way its index was made: kept, restored
 * from a checkpoint, built anew, or put back from an older day. */
#include "support.h"

#include <inttypes.h>
#include <unistd.h>

/* A store with history in several segments, three checkpoints, and a tail that no index knows. */
struct old_store {
    struct t_store t;
    char base[T_PATH];
    char older_index[T_PATH]; /* its index of an earlier day, closed in order */
    struct t_image image;
};

static void some_work(struct t_store *t, uint64_t *chance)
{
    static const char *const ids[] = {"a", "b", "c", "d"};
    struct hl_session about;
    for (size_t i = 0; i < 4; i++) {
        uint32_t number;
        if (hl_session_by_id(t->store, ids[i], 1, &about) == 0)
            number = about.number;
        else
            number = t_session(t, ids[i]);
        t_fill(t, number, 20 + (unsigned)t_below(chance, 60), 1 + (unsigned)t_below(chance, 9), 250,
               chance);
        hl_session_change(t->store, number, HL_CHANGE_MODE, 0, 0, (uint32_t)t_below(chance, 01000),
                          NULL);
        char value[40];
        int len = snprintf(value, sizeof value, "%" PRIu64, t_random(chance));
        assert_int_equal(hl_attribute_set(t->store, number, "v", value, (size_t)len, 0), 0);
    }
    t_append_format(t, 0, "{\"session_id\":\"n%" PRIu64 "\"}\n{\"session_id\":\"a\"}\n",
                    t_below(chance, 1000));
}

static void old_store_make(struct old_store *o, uint64_t chance)
{
    struct t_store *t = &o->t;
    char path[T_PATH];
    t_store_init(t);
    t->options.segment_size = 12 * 1024;
    t_open(t);
    for (int i = 0; i < 3; i++) {
        some_work(t, &chance);
        assert_int_equal(hl_checkpoint(t->store, NULL, &t->err), 0);
    }
    t_close(t);
    t_dir_make(o->older_index);
    t_path(path, t->dir, "index");
    t_dir_copy(path, o->older_index);
    t_open(t);
    some_work(t, &chance);
    assert_int_equal(hl_checkpoint(t->store, NULL, &t->err), 0);
    some_work(t, &chance);
    t_image_take(t->store, &o->image);
    t_crash(t);
    t_dir_make(o->base);
    t_dir_copy(t->dir, o->base);
}

static void old_store_free(struct old_store *o)
{
    t_image_free(&o->image);
    t_dir_remove(o->base);
    t_dir_remove(o->older_index);
    t_store_free(&o->t);
}

static void again(struct old_store *o)
{
    if (o->t.store)
        t_close(&o->t);
    t_dir_remove(o->t.dir);
    t_dir_copy(o->base, o->t.dir);
}

static void lose(struct old_store *o, const char *name)
{
    char path[T_PATH];
    t_path(path, o->t.dir, "%s", name);
    t_dir_remove(path);
    assert_false(t_exists(path));
}

/* Opens it: it must show the image and verify, take an append, and show that after the next opening
 * too. */
static void expect_all(struct old_store *o)
{
    struct t_image more;
    struct t_store *t = &o->t;
    t_open(t);
    t_shows(t->store, &o->image);
    assert_int_equal(t_verify(t), o->image.records);
    t_append(t, 0, "{\"session_id\":\"b\"}\n{\"session_id\":\"fresh\"}\n");
    t_image_take(t->store, &more);
    assert_int_equal(more.records, o->image.records + 2);
    t_crash(t);
    t_open(t);
    t_shows(t->store, &more);
    t_reopen(t);
    t_shows(t->store, &more);
    assert_int_equal(t->warnings + t->errors, 0);
    t_image_free(&more);
}

static void test_kept(void **state)
{
    (void)state;
    struct old_store o;
    old_store_make(&o, t_seed("test_kept"));
    expect_all(&o);
    old_store_free(&o);
}

static void test_index_lost(void **state)
{
    (void)state;
    struct old_store o;
    old_store_make(&o, t_seed("test_index_lost"));
    lose(&o, "index");
    expect_all(&o);
    again(&o);
    lose(&o, "index/data.mdb");
    expect_all(&o);
    again(&o);
    char path[T_PATH];
    t_path(path, o.t.dir, "index/data.mdb");
    t_file_cut(path, 0);
    expect_all(&o);
    old_store_free(&o);
}

static void test_index_and_checkpoints_lost(void **state)
{
    (void)state;
    struct old_store o;
    old_store_make(&o, t_seed("test_index_and_checkpoints_lost"));
    lose(&o, "index");
    lose(&o, "checkpoints");
    expect_all(&o);
    old_store_free(&o);
}

/* Each checkpoint is good by itself: the newer ones are damaged one after another. */
static void test_each_checkpoint_restores(void **state)
{
    (void)state;
    struct old_store o;
    char folder[T_PATH], path[T_PATH], **names;
    uint64_t chance = t_seed("test_each_checkpoint_restores");
    old_store_make(&o, chance);
    t_path(folder, o.t.dir, "checkpoints");
    size_t count = t_names(folder, ".ckpt", &names);
    assert_int_equal(count, 3);
    for (size_t bad = 0; bad <= count; bad++) {
        again(&o);
        lose(&o, "index");
        for (size_t i = 0; i < bad; i++) {
            t_path(path, o.t.dir, "checkpoints/%s", names[count - 1 - i]);
            uint64_t size = t_file_size(path);
            if (i == 0)
                t_file_flip(path, t_below(&chance, size), (uint8_t)(1U << t_below(&chance, 8)));
            else if (i == 1)
                t_file_cut(path, t_below(&chance, size));
            else
                t_file_append(path, "x", 1);
        }
        expect_all(&o);
    }
    t_names_free(names, count);
    old_store_free(&o);
}

/* ---- one checkpoint is all there is ---- */

struct told {
    bool restored, built;
};

static void take_told(void *context, enum hl_severity severity, const char *sentence)
{
    struct told *told = context;
    (void)severity;
    told->restored = told->restored || strstr(sentence, "restored from a checkpoint");
    told->built = told->built || strstr(sentence, "building the index");
}

static void damage_index(struct old_store *o, int way, uint64_t *chance)
{
    char path[T_PATH], junk[4096];
    t_path(path, o->t.dir, "index/data.mdb");
    uint64_t size = t_file_size(path);
    memset(junk, 0xa5, sizeof junk);
    if (way == 0)
        lose(o, "index");
    else if (way == 1)
        lose(o, "index/data.mdb");
    else if (way == 2)
        t_file_cut(path, t_below(chance, size - sizeof junk));
    else
        for (uint64_t at = 0; at + sizeof junk <= size; at += 2 * sizeof junk)
            t_file_poke(path, at, junk, sizeof junk);
}

/* Each of the three kept copies restores an index that is lost, or damaged, with no other to help;
 * the log is not read from its beginning, only from what the copy knows. */
static void test_each_checkpoint_alone(void **state)
{
    (void)state;
    struct old_store o;
    struct hl_status status;
    char folder[T_PATH], path[T_PATH], **names;
    uint64_t chance = t_seed("test_each_checkpoint_alone"), most = UINT64_MAX;
    old_store_make(&o, chance);
    t_path(folder, o.t.dir, "checkpoints");
    size_t count = t_names(folder, ".ckpt", &names);
    assert_int_equal(count, 3);
    for (size_t kept = 0; kept < count; kept++) {
        uint64_t replayed = 0;
        for (int way = 0; way < 4; way++) {
            struct told told = {false, false};
            void (*report)(void *, enum hl_severity, const char *) = o.t.options.report;
            again(&o);
            for (size_t i = 0; i < count; i++) {
                t_path(path, o.t.dir, "checkpoints/%s", names[i]);
                if (i != kept)
                    assert_int_equal(unlink(path), 0);
            }
            damage_index(&o, way, &chance);
            o.t.options.report = take_told;
            o.t.options.report_context = &told;
            t_open(&o.t);
            o.t.options.report = report;
            o.t.options.report_context = &o.t;
            assert_true(told.restored);
            assert_false(told.built);
            hl_store_status(o.t.store, &status);
            replayed = status.recovered_records;
            assert_true(replayed > 0 && replayed < o.image.records);
            t_shows(o.t.store, &o.image);
            t_close(&o.t);
            expect_all(&o);
        }
        assert_true(replayed < most); /* the newer it is, the less is left to replay */
        most = replayed;
    }
    t_names_free(names, count);
    old_store_free(&o);
}

/* The index of another day, as a backup program may put it back: with its mark of a clean end. */
static void test_older_index_put_back(void **state)
{
    (void)state;
    struct old_store o;
    char path[T_PATH];
    old_store_make(&o, t_seed("test_older_index_put_back"));
    lose(&o, "index");
    t_path(path, o.t.dir, "index");
    t_dir_copy(o.older_index, path);
    expect_all(&o);
    /* Below a store that was closed in order. */
    again(&o);
    t_open(&o.t);
    t_close(&o.t);
    lose(&o, "index");
    t_path(path, o.t.dir, "index");
    t_dir_copy(o.older_index, path);
    expect_all(&o);
    old_store_free(&o);
}

/* The log of another day, under an index that is ahead of it: the index counts for nothing. */
static void test_older_log_put_back(void **state)
{
    (void)state;
    struct old_store o;
    struct t_image older;
    char path[T_PATH], log[T_PATH];
    uint64_t chance = t_seed("test_older_log_put_back");
    old_store_make(&o, chance);
    t_open(&o.t);
    t_image_take(o.t.store, &older);
    t_dir_make(log);
    t_path(path, o.t.dir, "log");
    t_dir_copy(path, log);
    some_work(&o.t, &chance);
    t_close(&o.t);
    lose(&o, "log");
    t_dir_copy(log, path);
    t_open(&o.t);
    t_shows(o.t.store, &older);
    some_work(&o.t, &chance);
    t_image_free(&older);
    t_image_take(o.t.store, &older);
    t_crash(&o.t);
    t_open(&o.t);
    t_shows(o.t.store, &older);
    t_image_free(&older);
    t_dir_remove(log);
    old_store_free(&o);
}

/* An index of another store. */
static void test_index_of_another_store(void **state)
{
    (void)state;
    struct old_store o, other;
    char path[T_PATH], from[T_PATH];
    uint64_t chance = t_seed("test_index_of_another_store");
    old_store_make(&o, chance);
    old_store_make(&other, chance + 1);
    lose(&o, "index");
    t_path(path, o.t.dir, "index");
    t_path(from, other.t.dir, "index");
    t_dir_copy(from, path);
    expect_all(&o);
    again(&o);
    lose(&o, "index");
    lose(&o, "checkpoints");
    t_path(path, o.t.dir, "checkpoints");
    t_path(from, other.t.dir, "checkpoints");
    t_dir_copy(from, path);
    expect_all(&o);
    old_store_free(&other);
    old_store_free(&o);
}

/* Bits flip in the index of a store that crashed: it is set aside, or the flip was of no meaning.
 */
static void test_bits_flipped_in_the_index(void **state)
{
    (void)state;
    struct old_store o;
    char path[T_PATH];
    uint64_t chance = t_seed("test_bits_flipped_in_the_index");
    old_store_make(&o, chance);
    for (unsigned round = 0; round < t_amount("ROUNDS", t_slow() ? 6 : 40); round++) {
        again(&o);
        t_path(path, o.t.dir, "index/data.mdb");
        uint64_t size = t_file_size(path);
        for (unsigned flips = 1U << t_below(&chance, 5); flips > 0; flips--)
            t_file_flip(path, t_below(&chance, size), (uint8_t)(1U << t_below(&chance, 8)));
        if (t_below(&chance, 4) == 0)
            t_file_cut(path, t_below(&chance, size));
        t_open(&o.t);
        t_shows(o.t.store, &o.image);
    }
    old_store_free(&o);
}

/* What stands in the way of an index: a crash in the middle of building one. */
static void test_half_built_index(void **state)
{
    (void)state;
    struct old_store o;
    char path[T_PATH], from[T_PATH];
    old_store_make(&o, t_seed("test_half_built_index"));
    t_path(path, o.t.dir, "index.tmp");
    t_path(from, o.t.dir, "index");
    t_dir_copy(from, path);
    lose(&o, "index");
    lose(&o, "checkpoints");
    t_path(path, o.t.dir, "index.tmp/data.mdb");
    t_file_cut(path, 5000);
    expect_all(&o);
    t_path(path, o.t.dir, "index.tmp");
    assert_false(t_exists(path));
    old_store_free(&o);
}

/* The mark of a clean end vouches for the file that it was made for, and for no other. */
static void test_a_mark_of_another_file(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    char path[T_PATH];
    t_store_init(&t);
    t_open(&t);
    uint32_t a = t_session(&t, "a");
    for (int i = 0; i < 100; i++)
        t_append_format(&t, a, "{\"n\":%d}\n", i);
    t_image_take(t.store, &image);
    t_close(&t);
    t_path(path, t.dir, "index/data.mdb");
    uint64_t size = t_file_size(path);
    for (uint64_t at = 8192; at < size; at += 64) /* values, not only what LMDB looks at */
        t_file_flip(path, at + 40, 1);
    t_open(&t);
    t_path(path, t.dir, "quarantine/index/data.mdb");
    assert_true(t_exists(path));
    t_shows(t.store, &image);
    t_image_free(&image);
    t_close(&t);
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kept),
        cmocka_unit_test(test_index_lost),
        cmocka_unit_test(test_index_and_checkpoints_lost),
        cmocka_unit_test(test_each_checkpoint_restores),
        cmocka_unit_test(test_each_checkpoint_alone),
        cmocka_unit_test(test_older_index_put_back),
        cmocka_unit_test(test_older_log_put_back),
        cmocka_unit_test(test_index_of_another_store),
        cmocka_unit_test(test_bits_flipped_in_the_index),
        cmocka_unit_test(test_half_built_index),
        cmocka_unit_test(test_a_mark_of_another_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
