/* test_node.c - node ids and what they name; file names and what they stand for. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "../../fs/node.h"

/* ---- chance -----------------------------------------------------------------------------------
 */

static uint64_t seed(const char *test)
{
    const char *given = getenv("SEED");
    uint64_t value = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    printf("%s: SEED=%llu\n", test, (unsigned long long)value);
    return value;
}

static uint64_t next(uint64_t *chance)
{
    uint64_t value = *chance += UINT64_C(0x9e3779b97f4a7c15);
    value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
    return value ^ value >> 31;
}

/* ---- ids --------------------------------------------------------------------------------------
 */

static const enum node_kind fixed[] = {NODE_ROOT,        NODE_CTL,      NODE_STATUS,
                                       NODE_ROOT_APPEND, NODE_ROOT_LOG, NODE_SESSIONS};
static const enum node_kind of_session[] = {NODE_SESSION,    NODE_APPEND, NODE_LOG,   NODE_META,
                                            NODE_LAST_ERROR, NODE_FOLLOW, NODE_STATE, NODE_HISTORY,
                                            NODE_ARCHIVES,   NODE_AT};
static const enum node_kind numbered[] = {NODE_RECORD, NODE_DOCUMENT, NODE_HISTORY_KEY,
                                          NODE_ARCHIVE, NODE_ARCHIVED};
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* The id is computed, names the node again, is the inode number, and is no one else's. */
static uint64_t round_trip(struct node node)
{
    uint64_t id = 0;
    struct node again;

    assert_true(node_to_id(&node, &id));
    assert_true(node_from_id(id, &again));
    assert_true(node_equal(&node, &again));
    assert_int_equal(node_inode(&node), id);
    assert_false(node_id_in_table(id));
    assert_int_not_equal(id, 0);
    assert_int_equal(id == NODE_ROOT_ID, node.kind == NODE_ROOT);
    return id;
}

static void test_root_is_one(void **state)
{
    (void)state;
    assert_int_equal(round_trip((struct node){.kind = NODE_ROOT}), NODE_ROOT_ID);
}

static void test_ids_are_distinct(void **state)
{
    (void)state;
    static const uint32_t sessions[] = {1, 2, 255, 256, 65536, (1U << 24) - 1};
    static const uint64_t seqs[] = {0, 1, 2, 16, 255, 256, (UINT64_C(1) << 36) - 1};
    uint64_t ids[512];
    size_t count = 0;

    for (size_t i = 0; i < COUNT(fixed); i++)
        ids[count++] = round_trip((struct node){.kind = fixed[i]});
    for (size_t s = 0; s < COUNT(sessions); s++) {
        for (size_t i = 0; i < COUNT(of_session); i++)
            ids[count++] = round_trip((struct node){.kind = of_session[i], .session = sessions[s]});
        for (size_t i = 0; i < COUNT(seqs) * COUNT(numbered); i++)
            ids[count++] = round_trip((struct node){.kind = numbered[i % COUNT(numbered)],
                                                    .session = sessions[s],
                                                    .a = seqs[i / COUNT(numbered)]});
        ids[count++] =
            round_trip((struct node){.kind = NODE_LOG, .session = sessions[s], .generation = 1});
    }
    ids[count++] = round_trip((struct node){.kind = NODE_ROOT_LOG, .generation = (1U << 28) - 1});
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < i; j++)
            assert_int_not_equal(ids[i], ids[j]);
    }
}

/* .ctl is another node each time, and looks the same. */
static void test_ctl(void **state)
{
    (void)state;
    const struct node last = {.kind = NODE_CTL, .generation = NODE_GENERATION_MAX};
    const struct node over = {.kind = NODE_CTL, .generation = NODE_GENERATION_MAX + 1};
    struct node again;
    uint64_t first = round_trip((struct node){.kind = NODE_CTL}), id;

    assert_true(node_to_id(&last, &id));
    assert_int_not_equal(id, first);
    assert_true(node_from_id(id, &again));
    assert_true(node_equal(&again, &last));
    assert_int_equal(node_inode(&last), first);
    assert_false(node_to_id(&over, &id));
}

static void test_what_does_not_fit(void **state)
{
    (void)state;
    static const struct node nodes[] = {
        {.kind = NODE_RECORD, .session = 1, .a = UINT64_C(1) << 36},
        {.kind = NODE_RECORD, .session = 1, .a = HL_SEQ_MAX},
        {.kind = NODE_RECORD, .session = 1U << 24, .a = 1},
        {.kind = NODE_DOCUMENT, .session = 1, .a = UINT64_C(1) << 36},
        {.kind = NODE_DOCUMENT, .session = 1U << 24, .a = 2},
        {.kind = NODE_SCRATCH, .session = 1, .a = 2},
        {.kind = NODE_ARCHIVE, .session = 1, .a = UINT64_C(1) << 36},
        {.kind = NODE_LOG, .session = 1U << 24},
        {.kind = NODE_LOG, .session = 1, .generation = 1U << 28},
        {.kind = NODE_HISTORY_KEY, .session = 1, .a = 2, .generation = 1},
        {.kind = NODE_RANGE, .session = 1, .a = 1, .b = 2, .generation = 1},
        {.kind = NODE_RANGE, .session = 1, .a = 1, .b = 2},
        {.kind = NODE_RANGE, .session = 1, .a = 1, .b = HL_SEQ_MAX, .open = true},
        {.kind = NODE_RANGE, .session = 1, .a = 1, .b = HL_SEQ_MAX},
        {.kind = NODE_AT_KEY, .session = 1, .a = 1, .b = 2},
        {.kind = NODE_AT_KEY, .session = 1, .a = 2, .b = 2},
        {.kind = NODE_AT_SEQ, .session = 1, .a = 1},
        {.kind = NODE_ARCHIVED, .session = 1U << 24, .a = 2},
    };
    uint64_t id;

    for (size_t i = 0; i < COUNT(nodes); i++) {
        assert_false(node_to_id(&nodes[i], &id));
        assert_true(node_id_in_table(node_inode(&nodes[i])));
        for (size_t j = 0; j < i; j++) {
            assert_false(node_equal(&nodes[i], &nodes[j]));
            assert_int_not_equal(node_inode(&nodes[i]), node_inode(&nodes[j]));
        }
    }
}

/* Any 64 bits either name nothing or name what has that id: nothing is guessed into existence. */
static void test_any_id(void **state)
{
    (void)state;
    uint64_t chance = seed("test_any_id");
    struct node node;
    size_t named = 0;

    for (size_t i = 0; i < 1000000; i++) {
        uint64_t id = next(&chance);
        if (i % 2)
            id &= UINT64_C(0x10000010000000ff) | UINT64_C(0x7) << 36;
        if (!node_from_id(id, &node))
            continue;
        uint64_t again = 0;
        assert_true(node_to_id(&node, &again));
        assert_int_equal(again, id);
        named++;
    }
    assert_true(named > 1000);
    assert_false(node_from_id(0, &node));
    assert_false(node_from_id(7, &node));
    assert_false(node_from_id(UINT64_MAX, &node));
    assert_false(node_from_id(node_table_id(0), &node));
    assert_false(node_from_id(node_table_id(1), &node));
    assert_false(node_from_id(UINT64_C(2) << 60, &node));      /* a record of session 0 */
    assert_false(node_from_id(UINT64_C(3) << 60 | 2, &node));  /* a document of session 0 */
    assert_false(node_from_id(UINT64_C(1) << 60 | 16, &node)); /* session 0 */
    assert_false(node_from_id(UINT64_C(4) << 60 | 2, &node));  /* a history of session 0 */
    assert_false(node_from_id(UINT64_C(1) << 36 | 1, &node));  /* a fixed node of session 1 */
    assert_false(node_from_id(UINT64_C(1) << 8 | 1, &node));   /* another generation of the root */
    assert_true(node_id_in_table(node_table_id(0)));
}

static void test_entries(void **state)
{
    (void)state;
    size_t count;
    const struct node_entry *entries = node_entries(NODE_SESSION, &count);

    static const char *const names[] = {"append", "log",     "meta",   "last_error",
                                        "state",  "history", "archive"};
    assert_int_equal(count, COUNT(names));
    for (size_t i = 0; i < count; i++)
        assert_string_equal(entries[i].name, names[i]);
    static const char *const root_names[] = {".ctl",   ".metrics", ".status",
                                             "append", "log",      "sessions"};
    entries = node_entries(NODE_ROOT, &count);
    assert_int_equal(count, COUNT(root_names));
    for (size_t i = 0; i < count; i++)
        assert_string_equal(entries[i].name, root_names[i]);
    assert_null(node_entries(NODE_SESSIONS, &count));
    assert_int_equal(count, 0);
}

/* ---- names ------------------------------------------------------------------------------------
 */

static void expect_name(const char *id, size_t id_len, const char *name)
{
    char coded[NODE_NAME_MAX + 1], decoded[HL_ID_MAX + 1];
    size_t len = 0;

    assert_int_equal(name_encode(id, id_len, coded), strlen(name));
    assert_string_equal(coded, name);
    assert_int_equal(name_decode(name, decoded, &len), 0);
    assert_int_equal(len, id_len);
    assert_memory_equal(decoded, id, id_len);
}

static void test_encode(void **state)
{
    (void)state;
    expect_name("build-42", 8, "build-42");
    expect_name("a/b", 3, "a%2Fb");
    expect_name("100%", 4, "100%25");
    expect_name("%41", 3, "%2541");
    expect_name(".", 1, "%2E");
    expect_name("..", 2, "%2E%2E");
    expect_name("...", 3, "...");
    expect_name(".x", 2, ".x");
    expect_name("x.", 2, "x.");
    expect_name("\x01\x1f\x7f\n", 4, "%01%1F%7F%0A");
    expect_name("a\0b", 3, "a%00b");
    expect_name("a b~#*", 6, "a b~#*");
    expect_name("\xc3\xa9\xe6\x97\xa5", 5, "\xc3\xa9\xe6\x97\xa5");
}

static void test_encode_lengths(void **state)
{
    (void)state;
    char id[HL_ID_MAX + 1], name[NODE_NAME_MAX + 1];

    assert_int_equal(name_encode("", 0, name), 0);
    memset(id, 'x', sizeof id);
    assert_int_equal(name_encode(id, 255, name), 255);
    memset(id, '/', sizeof id);
    assert_int_equal(name_encode(id, 85, name), 255);
    assert_int_equal(name_encode(id, 86, name), 0);
    memset(id, 'x', sizeof id);
    id[254] = '/';
    assert_int_equal(name_encode(id, 255, name), 0);
}

static void test_decode_refuses(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",     "a%2fb", "%41", "%",      "%2",  "%zz",  "a%2E",  "%2Ea",      ".",   "..",
        "%2E.", ".%2E",  "%20", "%C3%A9", "a/b", "\x01", "a\x7f", "%2E%2E%2E", "%25%"};
    char id[HL_ID_MAX + 1], longer[NODE_NAME_MAX + 2];
    size_t len;

    for (size_t i = 0; i < COUNT(wrong); i++)
        assert_int_equal(name_decode(wrong[i], id, &len), -EINVAL);
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_int_equal(name_decode(longer, id, &len), -ENAMETOOLONG);
    longer[sizeof longer - 2] = '\0';
    assert_int_equal(name_decode(longer, id, &len), 0);
    assert_int_equal(len, 255);
}

/* Every string of bytes has one name, and every name that is taken is that of what it stands for.
 */
static void test_one_name_each(void **state)
{
    (void)state;
    static const char few[] = "./%2EFa\x01\x7f\xc3";
    uint64_t chance = seed("test_one_name_each");
    char id[HL_ID_MAX + 1], name[NODE_NAME_MAX + 1], again[NODE_NAME_MAX + 1];
    size_t taken = 0, len;

    for (size_t i = 0; i < 300000; i++) {
        size_t id_len = 1 + next(&chance) % 12;
        for (size_t j = 0; j < id_len; j++)
            id[j] = i % 3 ? few[next(&chance) % (sizeof few - 1)] : (char)next(&chance);
        assert_true(name_encode(id, id_len, name) > 0);
        assert_null(strchr(name, '/'));
        assert_int_equal(name_decode(name, again, &len), 0);
        assert_int_equal(len, id_len);
        assert_memory_equal(again, id, id_len);
        /* and the bytes taken as a name */
        id[id_len] = '\0';
        if (name_decode(id, again, &len) != 0)
            continue;
        taken++;
        assert_int_equal(name_encode(again, len, name), strlen(id));
        assert_string_equal(name, id);
    }
    assert_true(taken > 100);
}

static void test_seq(void **state)
{
    (void)state;
    static const char *const wrong[] = {"",
                                        "007",
                                        "00",
                                        "01",
                                        "+1",
                                        "-1",
                                        " 1",
                                        "1 ",
                                        "1a",
                                        "0x1",
                                        "1.0",
                                        "9007199254740992",
                                        "18446744073709551617",
                                        "99999999999999999999999999"};
    uint64_t seq;

    assert_true(name_seq("0", &seq));
    assert_int_equal(seq, 0);
    assert_true(name_seq("42", &seq));
    assert_int_equal(seq, 42);
    assert_true(name_seq("9007199254740991", &seq));
    assert_int_equal(seq, HL_SEQ_MAX);
    for (size_t i = 0; i < COUNT(wrong); i++)
        assert_false(name_seq(wrong[i], &seq));
}

static void test_range(void **state)
{
    (void)state;
    static const char *const wrong[] = {"",
                                        "-",
                                        "-5",
                                        "7-3",
                                        "01-2",
                                        "1-02",
                                        "1--2",
                                        "1-2-",
                                        "1-2-3",
                                        "a-b",
                                        "1-b",
                                        "+1-2",
                                        "1 -2",
                                        "5",
                                        "1-9007199254740992",
                                        "9007199254740992-"};
    struct node node = {.kind = NODE_RANGE, .session = 1};

    assert_true(name_range("1-10", &node));
    assert_int_equal(node.a, 1);
    assert_int_equal(node.b, 10);
    assert_false(node.open);
    assert_true(name_range("3-3", &node));
    assert_true(name_range("0-9007199254740991", &node));
    assert_int_equal(node.b, HL_SEQ_MAX);
    assert_false(node.open);
    assert_true(name_range("7-", &node));
    assert_int_equal(node.a, 7);
    assert_int_equal(node.b, HL_SEQ_MAX);
    assert_true(node.open);
    for (size_t i = 0; i < COUNT(wrong); i++)
        assert_false(name_range(wrong[i], &node));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_root_is_one),
        cmocka_unit_test(test_ids_are_distinct),
        cmocka_unit_test(test_ctl),
        cmocka_unit_test(test_what_does_not_fit),
        cmocka_unit_test(test_any_id),
        cmocka_unit_test(test_entries),
        cmocka_unit_test(test_encode),
        cmocka_unit_test(test_encode_lengths),
        cmocka_unit_test(test_decode_refuses),
        cmocka_unit_test(test_one_name_each),
        cmocka_unit_test(test_seq),
        cmocka_unit_test(test_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
