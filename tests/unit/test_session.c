/* test_session.c - session frames and attribute blocks: there and back, and what is neither. */
#include "support.h"

#include <inttypes.h>

#include "../../store/session.h"

static void same_row(const struct index_row *a, const struct index_row *b)
{
    assert_int_equal(a->number, b->number);
    assert_int_equal(a->uid, b->uid);
    assert_int_equal(a->gid, b->gid);
    assert_int_equal(a->mode, b->mode);
    assert_int_equal(a->created_ms, b->created_ms);
    assert_int_equal(a->has_seq, b->has_seq);
    assert_int_equal(a->last_seq, b->last_seq);
    assert_int_equal(a->id_len, b->id_len);
    assert_memory_equal(a->id, b->id, a->id_len);
    assert_int_equal(a->attributes_len, b->attributes_len);
    if (a->attributes_len)
        assert_memory_equal(a->attributes, b->attributes, a->attributes_len);
}

static void there_and_back(const struct index_row *row)
{
    struct index_row again;
    char *text;
    size_t len;
    assert_int_equal(session_encode(row, &text, &len), 0);
    assert_int_equal(text[len - 1], '\n');
    assert_null(memchr(text, '\n', len - 1));
    if (session_decode(text, len, &again) < 0)
        fail_msg("%.*s", (int)len, text);
    same_row(row, &again);
    session_row_free(&again);
    free(text);
}

static void test_there_and_back(void **state)
{
    (void)state;
    uint64_t chance = t_seed("test_there_and_back");
    static const char *const ids[] = {"a", "with \"quotes\" and \\",
                                      "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\1\2\x1f\x7f/%",
                                      "{\"session\":\"x\"}"};
    for (int round = 0; round < 200; round++) {
        const char *id = ids[t_below(&chance, 5)];
        struct index_row row = {
            .number = (uint32_t)(1 + t_below(&chance, UINT32_MAX)),
            .uid = (uint32_t)t_random(&chance),
            .gid = (uint32_t)t_random(&chance),
            .mode = (uint32_t)t_below(&chance, 010000),
            .created_ms = t_random(&chance) >> 1,
            .has_seq = round % 3 != 0,
            .last_seq = round % 3 ? t_below(&chance, HL_SEQ_MAX + 1) : 0,
            .id = id,
            .id_len = (uint16_t)strlen(id),
        };
        void *block = NULL;
        uint32_t block_len = 0;
        for (uint64_t n = t_below(&chance, 6); n > 0; n--) {
            char name[40], value[600];
            void *changed;
            snprintf(name, sizeof name, "n\xc3\xa9\"%" PRIu64, t_below(&chance, 8));
            size_t len = (size_t)t_below(&chance, sizeof value);
            for (size_t i = 0; i < len; i++)
                value[i] = (char)t_random(&chance);
            assert_int_equal(
                attributes_change(block, block_len, name, value, len, &changed, &block_len), 0);
            free(block);
            block = changed;
            const void *found;
            uint32_t found_len;
            assert_true(attributes_find(block, block_len, name, &found, &found_len));
            assert_int_equal(found_len, len);
            if (len)
                assert_memory_equal(found, value, len);
        }
        row.attributes = block;
        row.attributes_len = block_len;
        there_and_back(&row);
        free(block);
    }
    struct index_row largest = {.number = UINT32_MAX,
                                .mode = 07777,
                                .created_ms = UINT64_MAX,
                                .has_seq = true,
                                .last_seq = HL_SEQ_MAX,
                                .uid = UINT32_MAX,
                                .gid = UINT32_MAX};
    char id[HL_ID_MAX / 3]; /* as a file name it has three times as many bytes, as JSON six */
    memset(id, 1, sizeof id);
    largest.id = id;
    largest.id_len = sizeof id;
    there_and_back(&largest);
}

static void test_values_of_every_length(void **state)
{
    (void)state;
    uint8_t value[300];
    for (size_t len = 0; len < sizeof value; len++) {
        void *block;
        uint32_t block_len;
        for (size_t i = 0; i < len; i++)
            value[i] = (uint8_t)(i * 37 + len);
        assert_int_equal(attributes_change(NULL, 0, "v", value, len, &block, &block_len), 0);
        struct index_row row = {
            .number = 1, .id = "s", .id_len = 1, .attributes = block, .attributes_len = block_len};
        there_and_back(&row);
        free(block);
    }
}

static void test_bodies_that_are_none(void **state)
{
    (void)state;
    static const char good[] =
        "{\"session\":\"s\",\"number\":1,\"uid\":2,\"gid\":3,\"mode\":4,\"created_ms\":5,"
        "\"last_seq\":6,\"attributes\":{\"a\":\"QUI=\"}}\n";
    static const struct {
        const char *from, *to;
    } changes[] = {
        {"\"session\":\"s\"", "\"session\":\"\""},
        {"\"session\":\"s\"", "\"session\":5"},
        {"\"session\":\"s\"", "\"session\":\"\\u0000\""},
        {"\"session\":\"s\",", ""},
        {"\"number\":1", "\"number\":0"},
        {"\"number\":1", "\"number\":4294967296"},
        {"\"number\":1", "\"number\":\"1\""},
        {"\"number\":1", "\"number\":1.5"},
        {"\"number\":1,", ""},
        {"\"uid\":2", "\"uid\":-2"},
        {"\"mode\":4", "\"mode\":4096"},
        {"\"created_ms\":5", "\"created_ms\":null"},
        {"\"last_seq\":6", "\"last_seq\":9007199254740992"},
        {"\"last_seq\":6,", ""},
        {"{\"a\":\"QUI=\"}", "[]"},
        {"{\"a\":\"QUI=\"}", "{\"a\":1}"},
        {"{\"a\":\"QUI=\"}", "{\"\":\"QUI=\"}"},
        {"QUI=", "QUI"},
        {"QUI=", "Q==="},
        {"QUI=", "QU=I"},
        {"QUI=", "===="},
        {"QUI=", "QU!="},
        {"QUI=", "QUI=QUI="},
        {"}}\n", "}"},
        {"}}\n", "}}}"},
        {"{\"session\"", "\"session\""},
    };
    struct index_row row;
    assert_int_equal(session_decode(good, sizeof good - 1, &row), 0);
    session_row_free(&row);
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        char text[400];
        const char *at = strstr(good, changes[i].from);
        assert_non_null(at);
        int len = snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, changes[i].to,
                           at + strlen(changes[i].from));
        int error = session_decode(text, (size_t)len, &row);
        if (error != -EBADMSG)
            fail_msg("%s: %d", text, error);
        assert_null(row.id);
    }
    /* Fields of a later version are no hindrance. */
    static const char later[] =
        "{\"new\":[1,{}],\"session\":\"s\",\"number\":1,\"uid\":2,\"gid\":3,\"mode\":4,"
        "\"created_ms\":5,\"last_seq\":null,\"attributes\":{},\"more\":true}\n";
    assert_int_equal(session_decode(later, sizeof later - 1, &row), 0);
    assert_false(row.has_seq);
    session_row_free(&row);
    for (size_t len = 0; len + 1 < sizeof good - 1; len++)
        assert_int_equal(session_decode(good, len, &row), -EBADMSG);
}

static int count_each(void *context, const char *name, size_t name_len, const void *value,
                      uint32_t len)
{
    (void)name;
    (void)value;
    *(size_t *)context += name_len + len;
    return 0;
}

static void test_attribute_blocks(void **state)
{
    (void)state;
    void *block = NULL, *changed;
    uint32_t len = 0, changed_len;
    char name[HL_ATTRIBUTE_NAME_MAX + 2], *value = calloc(1, HL_ATTRIBUTES_MAX + 1);
    assert_non_null(value);
    memset(name, 'n', sizeof name);
    name[HL_ATTRIBUTE_NAME_MAX + 1] = 0;
    assert_int_equal(attributes_change(NULL, 0, name, "v", 1, &changed, &changed_len), -EINVAL);
    assert_int_equal(attributes_change(NULL, 0, "", "v", 1, &changed, &changed_len), -EINVAL);
    name[HL_ATTRIBUTE_NAME_MAX] = 0;
    assert_int_equal(attributes_change(NULL, 0, name, "v", 1, &block, &len), 0);
    assert_int_equal(
        attributes_change(block, len, "w", value, HL_ATTRIBUTES_MAX + 1, &changed, &changed_len),
        -ENOSPC);
    uint32_t room = HL_ATTRIBUTES_MAX - len - 6;
    assert_int_equal(attributes_change(block, len, "w", value, room + 1, &changed, &changed_len),
                     -ENOSPC);
    assert_int_equal(attributes_change(block, len, "w", value, room, &changed, &changed_len), 0);
    assert_int_equal(changed_len, HL_ATTRIBUTES_MAX);
    /* A full block can still be changed to a smaller one, and be emptied. */
    free(block);
    assert_int_equal(attributes_change(changed, changed_len, "w", "x", 1, &block, &len), 0);
    free(changed);
    assert_int_equal(attributes_change(block, len, "w", NULL, 0, &changed, &changed_len), 0);
    free(block);
    assert_int_equal(attributes_change(changed, changed_len, name, NULL, 0, &block, &len), 0);
    assert_int_equal(len, 0);
    free(block);
    /* Cut blocks are told as such. */
    for (uint32_t cut = 1; cut < changed_len; cut++) {
        size_t seen = 0;
        assert_int_equal(attributes_each(changed, cut, count_each, &seen), -EBADMSG);
    }
    static const uint8_t overflow[] = {1, 0xff, 0xff, 0xff, 0xff, 'n', 'v'};
    size_t seen = 0;
    assert_int_equal(attributes_each(overflow, sizeof overflow, count_each, &seen), -EBADMSG);
    free(changed);
    free(value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_values_of_every_length),
        cmocka_unit_test(test_bodies_that_are_none),
        cmocka_unit_test(test_attribute_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
