/* test_sessions.c - making sessions and changing what is known of them. */
#include "support.h"

#include <inttypes.h>
#include <sys/xattr.h>

static void test_create(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_session made, found;
    t_store_init(&t);
    t_open(&t);
    assert_int_equal(hl_session_create(t.store, "one", 3, 5, 6, 010644, &made, &t.err), 0);
    assert_int_equal(made.number, 1);
    assert_int_equal(made.uid, 5);
    assert_int_equal(made.gid, 6);
    assert_int_equal(made.mode, 0644);
    assert_false(made.has_seq);
    assert_int_equal(made.records, 0);
    assert_true(made.created_ms > 1000000000000 && made.changed_ms == made.created_ms);
    memset(&found, 0, sizeof found);
    assert_int_equal(hl_session_create(t.store, "one", 3, 9, 9, 0, &found, &t.err), -EEXIST);
    assert_int_equal(found.number, 1);
    assert_int_equal(found.uid, 5);
    assert_int_equal(hl_session_create(t.store, "on", 2, 5, 6, 0644, &made, &t.err), 0);
    assert_int_equal(made.number, 2);
    char id[HL_ID_MAX + 1];
    memset(id, 'i', sizeof id);
    assert_int_equal(hl_session_create(t.store, id, HL_ID_MAX + 1, 0, 0, 0, &made, &t.err),
                     -EINVAL);
    assert_int_equal(hl_session_create(t.store, id, 0, 0, 0, 0, &made, &t.err), -EINVAL);
    assert_int_equal(hl_session_create(t.store, "a\0b", 3, 0, 0, 0, &made, &t.err), -EINVAL);
    assert_int_equal(hl_session_create(t.store, "\xff", 1, 0, 0, 0, &made, &t.err), -EINVAL);
    assert_int_equal(hl_session_create(t.store, "\xed\xa0\x80", 3, 0, 0, 0, &made, &t.err),
                     -EINVAL);
    assert_int_equal(hl_session_create(t.store, id, HL_ID_MAX, 0, 0, 0, &made, &t.err), 0);
    assert_int_equal(hl_session_create(t.store, "\n\x01/", 3, 0, 0, 0, &made, &t.err), 0);
    assert_int_equal(hl_session_by_id(t.store, "none", 4, &found), -ENOENT);
    assert_int_equal(hl_session_by_number(t.store, 77, &found), -ENOENT);
    struct t_image image;
    t_image_take(t.store, &image);
    assert_int_equal(image.count, 4);
    t_crash(&t);
    t_open(&t);
    t_shows(t.store, &image);
    t_reopen(&t);
    t_shows(t.store, &image);
    assert_int_equal(hl_session_create(t.store, "next", 4, 0, 0, 0, &made, &t.err), 0);
    assert_int_equal(made.number, 5);
    t_image_free(&image);
    t_store_free(&t);
}

/* A session that could not be written is not there, and its number is not lost. */
static void test_create_that_fails(void **state)
{
    (void)state;
    struct t_store t;
    struct t_image image;
    struct hl_session made;
    t_store_init(&t);
    t_store_watch(&t);
    t_open(&t);
    t_session(&t, "a");
    t_image_take(t.store, &image);
    t_io_fail(&t.io, 1U << T_PWRITE, ".seg", 1, 1, -ENOSPC);
    assert_int_equal(hl_session_create(t.store, "b", 1, 0, 0, 0, &made, &t.err), -ENOSPC);
    assert_true(t.err.text[0]);
    t_io_fail(&t.io, 1U << T_PWRITE, ".seg", 1, 1, -ENOSPC);
    assert_int_equal(hl_session_change(t.store, 1, HL_CHANGE_MODE, 0, 0, 0777, NULL), -ENOSPC);
    t_io_fail(&t.io, 1U << T_PWRITE, ".seg", 1, 1, -ENOSPC);
    assert_int_equal(hl_attribute_set(t.store, 1, "n", "v", 1, 0), -ENOSPC);
    t_io_heal(&t.io);
    t_shows(t.store, &image);
    assert_int_equal(hl_session_by_id(t.store, "b", 1, &made), -ENOENT);
    assert_int_equal(t_session(&t, "c"), 2);
    t_image_free(&image);
    t_image_take(t.store, &image);
    t_crash(&t);
    t_open(&t);
    t_shows(t.store, &image);
    t_image_free(&image);
    t_store_free(&t);
}

static void test_changes(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_session s;
    t_store_init(&t);
    t_open(&t);
    uint32_t number = t_session(&t, "s");
    t_append(&t, number, "x\n");
    for (int round = 0; round < 4; round++) {
        assert_int_equal(
            hl_session_change(t.store, number, HL_CHANGE_MODE, 99, 98, 0700 + (unsigned)round, &s),
            0);
        assert_int_equal(s.uid, round ? 7 : 1000);
        assert_int_equal(s.mode, 0700 + round);
        assert_int_equal(
            hl_session_change(t.store, number, HL_CHANGE_UID | HL_CHANGE_GID, 7, 8, 0, &s), 0);
        assert_int_equal(s.uid, 7);
        assert_int_equal(s.gid, 8);
        assert_int_equal(s.mode, 0700 + round);
        assert_int_equal(s.records, 1);
        assert_int_equal(s.last_seq, 1);
        if (round % 2)
            t_reopen(&t);
        else
            t_crash(&t), t_open(&t);
        struct hl_session again;
        assert_int_equal(hl_session_by_number(t.store, number, &again), 0);
        assert_int_equal(again.uid, 7);
        assert_int_equal(again.mode, 0700 + round);
        assert_int_equal(again.changed_ms, s.changed_ms);
    }
    assert_int_equal(hl_session_change(t.store, 44, HL_CHANGE_MODE, 0, 0, 0, NULL), -ENOENT);
    t_store_free(&t);
}

static void test_attributes(void **state)
{
    (void)state;
    struct t_store t;
    char buffer[100];
    t_store_init(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    assert_int_equal(hl_attribute_get(t.store, s, "a", buffer, sizeof buffer), -ENODATA);
    assert_int_equal(hl_attribute_list(t.store, s, buffer, sizeof buffer), 0);
    assert_int_equal(hl_attribute_remove(t.store, s, "a"), -ENODATA);
    assert_int_equal(hl_attribute_set(t.store, s, "a", "v", 1, XATTR_REPLACE), -ENODATA);
    assert_int_equal(hl_attribute_set(t.store, s, "a", "value", 5, XATTR_CREATE), 0);
    assert_int_equal(hl_attribute_set(t.store, s, "a", "v", 1, XATTR_CREATE), -EEXIST);
    assert_int_equal(hl_attribute_get(t.store, s, "a", NULL, 0), 5);
    assert_int_equal(hl_attribute_get(t.store, s, "a", buffer, 4), -ERANGE);
    assert_int_equal(hl_attribute_get(t.store, s, "a", buffer, 5), 5);
    assert_memory_equal(buffer, "value", 5);
    assert_int_equal(hl_attribute_set(t.store, s, "b", "\0\xff", 2, 0), 0);
    assert_int_equal(hl_attribute_set(t.store, s, "empty", "", 0, 0), 0);
    assert_int_equal(hl_attribute_set(t.store, s, "a", "w", 1, XATTR_REPLACE), 0);
    assert_int_equal(hl_attribute_set(t.store, s, "\xff", "w", 1, 0), -EINVAL);
    assert_int_equal(hl_attribute_set(t.store, s, "", "w", 1, 0), -EINVAL);
    assert_int_equal(hl_attribute_list(t.store, s, NULL, 0), 10);
    assert_int_equal(hl_attribute_list(t.store, s, buffer, 9), -ERANGE);
    assert_int_equal(hl_attribute_list(t.store, s, buffer, sizeof buffer), 10);
    char *large = calloc(1, HL_ATTRIBUTES_MAX);
    assert_non_null(large);
    assert_int_equal(hl_attribute_set(t.store, s, "large", large, HL_ATTRIBUTES_MAX, 0), -ENOSPC);
    assert_int_equal(hl_attribute_set(t.store, s, "large", large, 60000, 0), 0);
    free(large);
    struct t_image image;
    t_image_take(t.store, &image);
    assert_true(image.sessions[0].attributes_len > 60000);
    for (int i = 0; i < 3; i++) {
        if (i == 1)
            t_reopen(&t);
        else
            t_crash(&t), t_open(&t);
        t_shows(t.store, &image);
    }
    t_image_free(&image);
    assert_int_equal(hl_attribute_remove(t.store, s, "large"), 0);
    assert_int_equal(hl_attribute_remove(t.store, s, "large"), -ENODATA);
    assert_int_equal(hl_attribute_get(t.store, 99, "a", buffer, sizeof buffer), -ENOENT);
    assert_int_equal(hl_attribute_set(t.store, 99, "a", "", 0, 0), -ENOENT);
    t_store_free(&t);
}

/* The listing of sessions, partly in the index, partly not, with holes. */
static void test_listing(void **state)
{
    (void)state;
    struct t_store t;
    struct hl_session s;
    char id[16];
    t_store_init(&t);
    t_open(&t);
    assert_int_equal(hl_session_next(t.store, 0, &s), -ENOENT);
    for (uint32_t i = 1; i <= 500; i++) {
        snprintf(id, sizeof id, "s%u", i);
        assert_int_equal(t_session(&t, id), i);
        if (i == 200)
            assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
        if (i == 350)
            t_append(&t, 3, "touch an old one\n");
    }
    for (int round = 0; round < 2; round++) {
        uint32_t after = 0;
        for (uint32_t i = 1; i <= 500; i++) {
            assert_int_equal(hl_session_next(t.store, after, &s), 0);
            assert_int_equal(s.number, i);
            after = s.number;
        }
        assert_int_equal(hl_session_next(t.store, after, &s), -ENOENT);
        assert_int_equal(hl_session_next(t.store, UINT32_MAX, &s), -ENOENT);
        t_reopen(&t);
    }
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_create),  cmocka_unit_test(test_create_that_fails),
        cmocka_unit_test(test_changes), cmocka_unit_test(test_attributes),
        cmocka_unit_test(test_listing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
