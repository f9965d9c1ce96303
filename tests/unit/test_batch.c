/* test_batch.c - lines that are retried in the batch that brought them. */
#include "support.h"

#include <inttypes.h>

/* A line of a batch that brings each line twice. */
static void put_given(char *text, size_t *len, const char *id, uint64_t seq)
{
    *len += (size_t)sprintf(text + *len,
                            "{\"session_id\":\"%s\",\"seq\":%" PRIu64 ",\"ts_ms\":1}\n", id, seq);
}

/*
 * A batch whose second half is its first half again, interleaved over two sessions. Were each
 * retried line looked for among all before it, one by one, this would take hours.
 */
static void test_a_batch_of_retries(void **state)
{
    const uint64_t count = 20000;
    struct t_store t;
    struct hl_session about;
    (void)state;
    t_store_init(&t);
    t_open(&t);
    uint32_t even = t_session(&t, "even"), odd = t_session(&t, "odd");
    char *text = malloc((size_t)count * 2 * 64);
    size_t len = 0, half;
    assert_non_null(text);
    for (uint64_t seq = 1; seq <= count; seq++)
        put_given(text, &len, seq % 2 ? "odd" : "even", seq * 3);
    half = len;
    for (uint64_t seq = 1; seq <= count; seq++)
        put_given(text, &len, seq % 2 ? "odd" : "even", seq * 3);
    struct hl_append request = {.session = 0, .data = text, .len = len};
    if (hl_append(t.store, &request, &t.err) != 0)
        fail_msg("line %zu: %s", t.err.line, t.err.text);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(hl_session_by_number(t.store, i ? odd : even, &about), 0);
        assert_int_equal(about.records, count / 2);
    }
    /* A seq between two of the batch is not there, though both are found. */
    len = half;
    put_given(text, &len, "odd", (count - 5) * 3 + 1);
    request.len = len;
    assert_int_equal(hl_append(t.store, &request, &t.err), -EEXIST);
    assert_int_equal(t.err.line, count + 1);
    free(text);
    t_store_free(&t);
}

/* Retries of each record of a batch of so many, and of seqs in its gaps, in any order. */
static void test_retries_of_each(void **state)
{
    struct t_store t;
    (void)state;
    t_store_init(&t);
    t_open(&t);
    for (uint64_t count = 1; count <= 70; count++) {
        char id[16], *text = malloc(64 * (2 * 70 + 1));
        size_t len = 0;
        assert_non_null(text);
        snprintf(id, sizeof id, "s%" PRIu64, count);
        uint32_t session = t_session(&t, id);
        for (uint64_t i = 1; i <= count; i++)
            put_given(text, &len, id, i * 2);
        size_t half = len;
        for (uint64_t gap = 0; gap < count; gap++) {
            len = half;
            put_given(text, &len, id, gap * 2 + 1);
            assert_int_equal(t_try_append(&t, session, text, len), -EEXIST);
            assert_int_equal(t.err.line, count + 1);
        }
        len = half;
        for (uint64_t i = count; i > 0; i--)
            put_given(text, &len, id, i * 2);
        assert_int_equal(t_try_append(&t, session, text, len), 0);
        free(text);
    }
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_batch_of_retries),
        cmocka_unit_test(test_retries_of_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
