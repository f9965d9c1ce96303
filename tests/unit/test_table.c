/* test_table.c - ids counted by look-up and forget, against a model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "../../fs/table.h"

#define NODES 500

static uint64_t next(uint64_t *chance)
{
    *chance = *chance * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *chance >> 33;
}

static struct node node_number(uint64_t number)
{
    return (struct node){.kind = NODE_RANGE,
                         .session = 1 + (uint32_t)(number % 7),
                         .a = number,
                         .b = number * 2,
                         .open = number % 2};
}

static void test_model(void **state)
{
    (void)state;
    const char *given = getenv("SEED");
    uint64_t chance = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    printf("test_model: SEED=%llu\n", (unsigned long long)chance);
    uint64_t ids[NODES] = {0}, lookups[NODES] = {0}, highest = 0;
    size_t living = 0;
    struct table *table = table_new();

    assert_non_null(table);
    for (size_t step = 0; step < 200000; step++) {
        size_t at = (size_t)(next(&chance) % NODES);
        struct node node = node_number(at), found;
        if (next(&chance) % 2) {
            uint64_t id = table_look_up(table, &node);
            assert_true(node_id_in_table(id));
            if (lookups[at] == 0) {
                assert_true(highest == 0 || id > highest); /* never one that was used before */
                highest = id;
                ids[at] = id;
                living++;
            }
            assert_int_equal(id, ids[at]);
            lookups[at]++;
        } else if (lookups[at] > 0) {
            uint64_t count = 1 + next(&chance) % lookups[at];
            table_forget(table, ids[at], count);
            lookups[at] -= count;
            if (lookups[at] == 0)
                living--;
        }
        assert_int_equal(table_find(table, ids[at], &found), lookups[at] > 0);
        if (lookups[at] > 0)
            assert_true(node_equal(&found, &node));
        assert_int_equal(table_size(table), living);
    }
    table_free(table);
}

static void test_forget_what_is_not_there(void **state)
{
    (void)state;
    struct table *table = table_new();
    struct node node = node_number(1), found;

    table_forget(table, node_table_id(0), 1);
    uint64_t id = table_look_up(table, &node);
    table_forget(table, id + 1, 1);
    assert_true(table_find(table, id, &found));
    table_forget(table, id, UINT64_MAX);
    assert_false(table_find(table, id, &found));
    table_forget(table, id, 1);
    assert_int_equal(table_size(table), 0);
    table_free(table);
    table_free(NULL);
}

static void test_list(void **state)
{
    (void)state;
    struct table *table = table_new();
    size_t count = 99;
    assert_non_null(table);
    assert_null(table_list(table, 1, &count));
    assert_int_equal(count, 0);
    uint64_t ids[NODES];
    for (size_t i = 0; i < NODES; i++) {
        struct node node = node_number(i);
        ids[i] = table_look_up(table, &node);
    }
    for (uint32_t session = 1; session <= 7; session++) {
        uint64_t *list = table_list(table, session, &count);
        assert_non_null(list);
        size_t want = 0, found = 0;
        for (size_t i = 0; i < NODES; i++) {
            if (node_number(i).session != session)
                continue;
            want++;
            for (size_t j = 0; j < count; j++)
                found += list[j] == ids[i];
        }
        assert_int_equal(count, want);
        assert_int_equal(found, want);
        free(list);
    }
    assert_null(table_list(table, 8, &count));
    assert_int_equal(count, 0);
    table_free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_forget_what_is_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
