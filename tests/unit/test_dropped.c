/* test_dropped.c - generations of files of which records are dropped, and the sizes that they show.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "../../fs/dropped.h"

static struct node log_of(uint32_t session, uint32_t generation)
{
    return (struct node){.kind = NODE_LOG, .session = session, .generation = generation};
}

static uint64_t shown(struct dropped *dropped, struct node node, uint64_t bytes)
{
    assert_true(dropped_size(dropped, &node, &bytes));
    return bytes;
}

static void test_what_nothing_was_dropped_of(void **state)
{
    (void)state;
    struct dropped *dropped = dropped_new();
    struct node node = log_of(7, 0);

    assert_int_equal(dropped_generation(dropped, 7), 0);
    assert_false(dropped_is_old(dropped, &node));
    assert_int_equal(shown(dropped, node, 100), 100);
    struct dropped_file *file = dropped_open(dropped, &node);
    dropped_read_to(file, 60);
    assert_int_equal(shown(dropped, node, 100), 100);
    /* The drop is seen in the store already, its news has not come yet. */
    assert_int_equal(shown(dropped, node, 40), 60);
    dropped_close(dropped, file);
    assert_int_equal(shown(dropped, node, 40), 40);
    dropped_free(dropped);
}

static void test_an_old_one_only_grows(void **state)
{
    (void)state;
    struct dropped *dropped = dropped_new();
    struct node first = log_of(7, 0), second = log_of(7, 1), third = log_of(7, 2);
    struct node record = {.kind = NODE_RECORD, .session = 7, .a = 1};
    uint64_t size = 0;

    struct dropped_file *one = dropped_open(dropped, &first);
    dropped_read_to(one, 100);
    dropped_read_to(one, 80);
    assert_true(dropped_add(dropped, 7, 30));
    assert_int_equal(dropped_generation(dropped, 7), 1);
    assert_int_equal(dropped_generation(dropped, 8), 0);
    assert_true(dropped_is_old(dropped, &first));
    assert_false(dropped_is_old(dropped, &second));
    assert_false(dropped_is_old(dropped, &record));
    assert_int_equal(shown(dropped, first, 70), 100);
    assert_int_equal(shown(dropped, first, 75), 105);
    assert_int_equal(shown(dropped, second, 75), 75);
    struct dropped_file *two = dropped_open(dropped, &second);
    assert_true(dropped_add(dropped, 7, 5));
    assert_int_equal(shown(dropped, first, 70), 105);
    assert_int_equal(shown(dropped, second, 70), 75);
    assert_int_equal(shown(dropped, third, 70), 70);
    struct dropped_file *again = dropped_open(dropped, &first);
    assert_ptr_equal(again, one);
    dropped_close(dropped, again);
    assert_int_equal(shown(dropped, first, 70), 105);
    dropped_close(dropped, one);
    assert_false(dropped_size(dropped, &first, &size)); /* nobody has it open */
    assert_int_equal(shown(dropped, second, 70), 75);
    dropped_close(dropped, two);
    dropped_forget(dropped, 7);
    dropped_forget(dropped, 9);
    assert_int_equal(dropped_generation(dropped, 7), 0);
    dropped_free(dropped);
}

static void test_root_and_ranges(void **state)
{
    (void)state;
    struct dropped *dropped = dropped_new();
    struct node root = {.kind = NODE_ROOT_LOG};
    struct node range = {.kind = NODE_RANGE, .session = 3, .a = 5, .b = HL_SEQ_MAX, .open = true};
    struct node history = {.kind = NODE_HISTORY_KEY, .session = 3, .a = 2};

    struct dropped_file *of_range = dropped_open(dropped, &range);
    struct dropped_file *of_history = dropped_open(dropped, &history);
    assert_ptr_not_equal(of_range, of_history);
    assert_true(dropped_add(dropped, 0, 10));
    assert_true(dropped_is_old(dropped, &root));
    assert_false(dropped_is_old(dropped, &range));
    assert_true(dropped_add(dropped, 3, 10));
    assert_true(dropped_is_old(dropped, &range));
    assert_true(dropped_is_old(dropped, &history));
    assert_int_equal(shown(dropped, range, 1), 11);
    dropped_free(dropped); /* also what is open */
}

/* Beside a writer a rise of what was dropped ever is the news. */
static void test_drops_that_are_seen(void **state)
{
    (void)state;
    struct dropped *dropped = dropped_new();
    struct node node = log_of(7, 0);

    dropped_seen(dropped, 7, 500);
    assert_int_equal(dropped_generation(dropped, 7), 0); /* nobody has it open */
    assert_true(dropped_watch(dropped, 7, 500));
    struct dropped_file *file = dropped_open(dropped, &node);
    dropped_seen(dropped, 7, 500);
    assert_false(dropped_is_old(dropped, &node));
    dropped_seen(dropped, 7, 530);
    assert_true(dropped_is_old(dropped, &node));
    assert_int_equal(shown(dropped, node, 70), 100);
    assert_true(dropped_watch(dropped, 7, 540)); /* one that is watched goes on */
    dropped_seen(dropped, 7, 540);
    dropped_seen(dropped, 7, 20); /* as of an older index */
    assert_int_equal(shown(dropped, node, 60), 100);
    assert_int_equal(dropped_generation(dropped, 7), 2);
    dropped_close(dropped, file);
    dropped_free(dropped);
}

/* Readers of many sessions against a model: each sees its file grow by what is appended, never
 * shrink. */
static void test_model(void **state)
{
    (void)state;
    enum { SESSIONS = 700, STEPS = 100000 };
    const char *given = getenv("SEED");
    uint64_t chance = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    printf("test_model: SEED=%llu\n", (unsigned long long)chance);
    static struct {
        uint64_t bytes, size;
        uint32_t generation;
        struct node node;
        struct dropped_file *file;
    } of[SESSIONS];
    struct dropped *dropped = dropped_new();

    for (size_t i = 0; i < STEPS; i++) {
        chance = chance * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        size_t at = (size_t)(chance >> 40) % SESSIONS;
        uint32_t session = (uint32_t)at * 3 + 1;
        uint64_t bytes = chance >> 20 & 63;
        switch (chance >> 60 & 3) {
        case 0:
            of[at].bytes += bytes;
            of[at].size += bytes;
            break;
        case 1:
            bytes = bytes < of[at].bytes ? bytes : of[at].bytes;
            of[at].bytes -= bytes;
            of[at].generation++;
            assert_true(dropped_add(dropped, session, bytes));
            break;
        case 2:
            if (of[at].file) {
                dropped_close(dropped, of[at].file);
                of[at].file = NULL;
            } else {
                of[at].node = log_of(session, dropped_generation(dropped, session));
                of[at].file = dropped_open(dropped, &of[at].node);
                of[at].size = of[at].bytes;
            }
            break;
        default:
            break;
        }
        assert_int_equal(dropped_generation(dropped, session), of[at].generation);
        assert_int_equal(shown(dropped, log_of(session, of[at].generation), of[at].bytes),
                         of[at].file && of[at].node.generation == of[at].generation ? of[at].size
                                                                                    : of[at].bytes);
        if (of[at].file)
            assert_int_equal(shown(dropped, of[at].node, of[at].bytes), of[at].size);
    }
    dropped_free(dropped);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_nothing_was_dropped_of),
        cmocka_unit_test(test_an_old_one_only_grows),
        cmocka_unit_test(test_root_and_ranges),
        cmocka_unit_test(test_drops_that_are_seen),
        cmocka_unit_test(test_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
