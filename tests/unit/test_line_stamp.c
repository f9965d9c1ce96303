/* test_line_stamp.c - lines as they are stored. Random ones by SEED and ITERATIONS. */
#include <errno.h>
#include <inttypes.h>

#include "line_make.h"

static struct guard room;

/* Stamps a line, sees that the bound was kept, and that a second stamping changes nothing. */
static char *stamp(const char *text, size_t len, const struct line_stamp *with, size_t *stamped)
{
    struct line line, again;
    struct hl_error err;
    const char *copy = guard_put(&room, text, len);
    if (line_parse(copy, len, MAX_RECORD, &line, &err) != 0)
        fail_msg("%.*s: %s", (int)len, text, err.text);
    size_t bound = line_stamp_bound(&line, with->id_json_len);
    char *out = malloc(bound);
    assert_non_null(out);
    *stamped = line_stamp(&line, with, out);
    assert_true(*stamped <= bound);
    assert_int_equal(out[*stamped - 1], '\n');
    assert_null(memchr(out, '\n', *stamped - 1));

    copy = guard_put(&room, out, *stamped - 1);
    if (line_parse(copy, *stamped - 1, MAX_RECORD, &again, &err) != 0)
        fail_msg("%.*s: %s", (int)*stamped, out, err.text);
    assert_int_equal(again.kind, line.kind == LINE_TEXT ? LINE_EVENT : line.kind);
    const struct line_stamp other = {"\"other\"", 7, 4711, 4711, {0}, {0}, NULL};
    char *twice = malloc(line_stamp_bound(&again, other.id_json_len));
    assert_non_null(twice);
    assert_int_equal(line_stamp(&again, &other, twice), *stamped);
    assert_memory_equal(twice, out, *stamped);
    free(twice);
    return out;
}

static void stored(const char *text, const char *want)
{
    const struct line_stamp with = {"\"s-1\"", 5, 42, 1763690000123, {0}, {0}, NULL};
    size_t len;
    char *out = stamp(text, strlen(text), &with, &len);
    if (len != strlen(want) + 1 || memcmp(out, want, len - 1) != 0)
        fail_msg("%s\n gave %.*s not  %s", text, (int)len, out, want);
    free(out);
}

/* ---- cases ---- */

#define LINKS ",\"prev_seq\":null,\"prev_op\":null"
#define FRONT4 "{\"session_id\":\"s-1\",\"seq\":42,\"ts_ms\":1763690000123,\"ts_exact\":false"
#define FRONT FRONT4 ",\"source\":\"Tail\",\"kind\":\"Message\""

static void test_stamps(void **state)
{
    (void)state;
    stored("hello", FRONT ",\"payload\":\"hello\"}");
    stored("say \"hi\"\t\\ \x01\x7f \xc3\xa9\r", /* a carriage return is text too */
           FRONT ",\"payload\":\"say \\\"hi\\\"\\t\\\\ \\u0001\x7f \xc3\xa9\\r\"}");
    stored("[1,2]", FRONT ",\"payload\":\"[1,2]\"}");
    stored("{}", FRONT "}");
    stored("{ \t\r }  ", FRONT " \t\r }  ");
    stored("{\"a\":1}", FRONT ",\"a\":1}");
    stored("{ \"a\" : 1 } ", FRONT ", \"a\" : 1 } ");
    stored("{\"kind\":\"ToolCall\",\"tool\":\"bash\",\"payload\":{\"cmd\":\"make\"}}",
           FRONT4 ",\"source\":\"Tail\",\"kind\":\"ToolCall\",\"tool\":\"bash\",\"payload\":{"
                  "\"cmd\":\"make\"}}");
    stored("{\"source\":\"Hook\"}", FRONT4 ",\"kind\":\"Message\",\"source\":\"Hook\"}");
    stored("{\"ts_ms\":5}",
           "{\"session_id\":\"s-1\",\"seq\":42,\"ts_exact\":true,\"source\":\"Tail\","
           "\"kind\":\"Message\",\"ts_ms\":5}");
    stored("{\"ts_exact\":true}", "{\"session_id\":\"s-1\",\"seq\":42,\"ts_ms\":1763690000123,"
                                  "\"source\":\"Tail\",\"kind\":\"Message\",\"ts_exact\":true}");
    stored("{\"x\":1,\"k\\u0069nd\":\"A\",\"session_id\":\"\\u0073-1\",\"seq\":42}",
           "{\"ts_ms\":1763690000123,\"ts_exact\":false,\"source\":\"Tail\",\"x\":1,\"k\\u0069nd\":"
           "\"A\","
           "\"session_id\":\"\\u0073-1\",\"seq\":42}");
    /* All given: not a byte changes. */
    static const char whole[] =
        "{\"kind\":\"A\" , \"source\":\"B\",\"ts_exact\":false,\"ts_ms\":9,\"seq\":0,"
        "\"session_id\":\"q\"}";
    stored(whole, whole);
}

static void test_stamps_nulls(void **state)
{
    (void)state;
    stored("{\"kind\":null}", FRONT4 ",\"source\":\"Tail\",\"kind\":\"Message\"}");
    stored("{ \"seq\" : null , \"a\":null}",
           "{\"session_id\":\"s-1\",\"ts_ms\":1763690000123,\"ts_exact\":false,\"source\":\"Tail\","
           "\"kind\":\"Message\", \"seq\" : 42 , \"a\":null}");
    /* All of them, in another order than that of stamping. */
    stored(
        "{\"kind\":null,\"ts_exact\":null,\"s\\u0065q\":null,\"source\": null,\"x\":null,"
        "\"session_id\":null,\"ts_ms\":null}",
        "{\"kind\":\"Message\",\"ts_exact\":false,\"s\\u0065q\":42,\"source\": \"Tail\",\"x\":null,"
        "\"session_id\":\"s-1\",\"ts_ms\":1763690000123}");
    stored("{\"ts_exact\":null,\"ts_ms\":7,\"tool\":null,\"payload\":null}",
           "{\"session_id\":\"s-1\",\"seq\":42,\"source\":\"Tail\",\"kind\":\"Message\",\"ts_"
           "exact\":true,"
           "\"ts_ms\":7,\"tool\":null,\"payload\":null}");
}

static void test_stamps_operations(void **state)
{
    (void)state;
    stored("{\"op\":\"delete\",\"key\":\"k\"}", FRONT4 LINKS ",\"op\":\"delete\",\"key\":\"k\"}");
    stored("{\"op\":\"delete\",\"key\":\"k\",\"prev_op\":null,\"prev_seq\":3}",
           FRONT4 ",\"op\":\"delete\",\"key\":\"k\",\"prev_op\":null,\"prev_seq\":3}");
    stored("{\"op\":\"delete\",\"id\":\"k\",\"ts\":\"2024-02-29T23:59:59.25+01:30\"}",
           "{\"session_id\":\"s-1\",\"seq\":42,\"ts_ms\":1709245799250,\"ts_exact\":true" LINKS
           ",\"op\":\"delete\",\"id\":\"k\",\"ts\":\"2024-02-29T23:59:59.25+01:30\"}");
    stored("{\"op\":\"set\",\"key\":\"k\",\"value\":null,\"kind\":null,\"source\":null}",
           FRONT4 LINKS
           ",\"op\":\"set\",\"key\":\"k\",\"value\":null,\"kind\":null,\"source\":null}");
    stored("{\"kind\":\"X\",\"seq\":null,\"ts_ms\":1,\"op\":\"undo\"}",
           "{\"session_id\":\"s-1\",\"ts_exact\":true,\"prev_op\":null,\"kind\":\"X\",\"seq\":42,"
           "\"ts_ms\":1,\"op\":"
           "\"undo\"}");
    stored("{\"op\":null}", FRONT ",\"op\":null}");
}

static void test_integers(void **state)
{
    char want[400];
    (void)state;
    uint64_t number = 0;
    for (int i = 0; i < 21; i++) {
        for (int off = -1; off <= 1; off++) {
            const struct line_stamp with = {"\"\\u0001\"", 8,   number + (uint64_t)off, number, {0},
                                            {0},           NULL};
            if (with.seq > HL_SEQ_MAX)
                continue;
            size_t len;
            char *out = stamp("{}", 2, &with, &len);
            snprintf(want, sizeof want,
                     "{\"session_id\":\"\\u0001\",\"seq\":%" PRIu64 ",\"ts_ms\":%" PRIu64
                     ",\"ts_exact\":false,\"source\":\"Tail\",\"kind\":\"Message\"}\n",
                     with.seq, with.ts_ms);
            assert_int_equal(len, strlen(want));
            assert_memory_equal(out, want, len);
            free(out);
        }
        number = number == 0 ? 1 : number * 10;
    }
    const struct line_stamp most = {"\"\"", 2, HL_SEQ_MAX, UINT64_MAX, {0}, {0}, NULL};
    size_t len;
    char *out = stamp("{\"session_id\":\"a\"}", 18, &most, &len);
    out[len - 1] = 0;
    assert_string_equal(out, "{\"seq\":9007199254740991,\"ts_ms\":18446744073709551615,"
                             "\"ts_exact\":false,\"source\":\"Tail\",\"kind\":\"Message\","
                             "\"session_id\":\"a\"}");
    free(out);
}

/* ---- random lines ---- */

/* The stored line has each of the fields that it must have once, with the value it must have. */
static void check_stored(const struct make *text, const char *out, size_t len,
                         const struct line_stamp *with)
{
    struct line before, after;
    struct line_fields read;
    assert_int_equal(line_parse(text->text, text->len, MAX_RECORD, &before, NULL), 0);
    assert_int_equal(line_parse(out, len - 1, MAX_RECORD, &after, NULL), 0);
    unsigned must = before.kind == LINE_OPERATION
                        ? ((1U << LINE_SOURCE) - 1) | 1U << LINE_PREV_SEQ | 1U << LINE_PREV_OP
                        : (1U << LINE_PREV_SEQ) - 1;
    assert_int_equal(after.given & must, must);
    assert_true(after.seq == (before.given & 1U << LINE_SEQ ? before.seq : with->seq));
    assert_true(after.ts_ms == (before.given & 1U << LINE_TS_MS ? before.ts_ms : with->ts_ms));
    /* Without nulls to be filled in, what the writer wrote stands at the end as it was. */
    bool filled = false;
    for (int i = 0; i < LINE_FIELDS; i++)
        filled |= (before.nulls & 1U << i) != 0;
    if (!filled && before.kind != LINE_TEXT)
        assert_memory_equal(out + len - text->len, text->text + 1, text->len - 1);
    for (size_t room_len = len - 1; room_len <= len; room_len++) {
        assert_int_equal(line_read(guard_put(&room, out, room_len), room_len, &read), 0);
        assert_true(read.has_seq && read.seq == after.seq);
        assert_true(read.has_ts_ms && read.ts_ms == after.ts_ms);
        assert_int_equal(read.session_id.len, after.session_id.len);
        assert_memory_equal(read.session_id.at, after.session_id.at, read.session_id.len);
    }
}

static void test_random_lines(void **state)
{
    struct chance chance = {chance_seed("test_random_lines")};
    struct make text = {0};
    size_t len;
    (void)state;
    for (size_t round = chance_iterations(20000); round > 0; round--) {
        char id[40];
        snprintf(id, sizeof id, "\"id %zu \\u%04x\"", round,
                 1 + (unsigned)chance_below(&chance, 0xd7ff));
        const struct line_stamp with = {id,
                                        strlen(id),
                                        chance_next(&chance) >> (11 + chance_below(&chance, 53)),
                                        chance_next(&chance) >> chance_below(&chance, 64),
                                        {0},
                                        {0},
                                        NULL};
        if (chance_one_in(&chance, 5)) {
            make_clear(&text);
            make_string(&text, &chance, true); /* begins with a quote, so it is text */
        } else {
            make_line(&text, &chance);
        }
        char *out = stamp(text.text, text.len, &with, &len);
        check_stored(&text, out, len, &with);
        free(out);
    }
    free(text.text);
}

/* What is kept from line to line of a batch is as it would be made for each. */
static void test_fronts(void **state)
{
    struct chance chance = {chance_seed("test_fronts")};
    struct make text = {0};
    size_t len;
    (void)state;
    for (size_t batch = chance_iterations(20000) / 20; batch > 0; batch--) {
        char id[JSON_ESCAPE_MAX(HL_ID_MAX)], plain[HL_ID_MAX];
        const char byte = "a\"\x01"[chance_below(&chance, 3)]; /* the last is %01 in a file name */
        size_t id_len = 1 + chance_below(&chance, byte == 1 ? HL_ID_MAX / 3 : HL_ID_MAX);
        memset(plain, byte, id_len);
        struct line_front front;
        front.lacks = 0;
        struct line_stamp with = {.id_json = id, .id_json_len = json_escape(plain, id_len, id)};
        with.ts_ms = chance_next(&chance) >> chance_below(&chance, 64);
        for (unsigned i = 0; i < 20; i++) {
            struct line line;
            with.seq = chance_next(&chance) >> (11 + chance_below(&chance, 53));
            make_line(&text, &chance);
            with.front = NULL;
            char *out = stamp(text.text, text.len, &with, &len);
            assert_int_equal(line_parse(text.text, text.len, MAX_RECORD, &line, NULL), 0);
            char *again = malloc(line_stamp_bound(&line, with.id_json_len));
            assert_non_null(again);
            with.front = &front;
            assert_int_equal(line_stamp(&line, &with, again), len);
            assert_memory_equal(again, out, len);
            free(again);
            free(out);
        }
    }
    free(text.text);
}

/* Damaged lines: taken or refused with a sentence, and what is taken can be stored. */
static void test_random_damage(void **state)
{
    struct chance chance = {chance_seed("test_random_damage")};
    struct make text = {0}, other = {0};
    size_t taken = 0, refusals = 0, len;
    (void)state;
    make_line(&other, &chance);
    for (size_t round = chance_iterations(20000); round > 0; round--) {
        const struct line_stamp with = {"\"s\"", 3, 1, 1, {0}, {0}, NULL};
        struct line line;
        struct hl_error err = {0};
        make_line(&text, &chance);
        for (size_t n = 1 + chance_below(&chance, 2); n > 0; n--)
            make_damage(&text, &chance, &other);
        for (size_t i = 0; i < text.len; i++)
            if (text.text[i] == '\n')
                text.text[i] = ' ';
        const char *copy = guard_put(&room, text.text, text.len);
        int error = text.len > 0 ? line_parse(copy, text.len, MAX_RECORD, &line, &err) : -EINVAL;
        /* A line that is taken could be taken all along. */
        struct json_progress progress = {0};
        for (size_t have = 0; error == 0 && have <= text.len; have++) {
            assert_int_equal(line_piece_check(&progress, copy, have, MAX_RECORD, &err), 0);
            if (chance_one_in(&chance, 16))
                assert_int_equal(whole_check(copy, have, MAX_RECORD, &err), 0);
        }
        if (error == 0) {
            free(stamp(text.text, text.len, &with, &len));
            taken++;
        } else {
            assert_int_equal(error, -EINVAL);
            assert_true(text.len == 0 || err.text[0] != 0);
            refusals++;
        }
    }
    fprintf(stderr, "%zu taken, %zu refused\n", taken, refusals);
    assert_true(taken > 0 && refusals > 0);
    free(text.text);
    free(other.text);
}

/* A line that grows: at each length the answer, and the sentence, are those for a fresh look. */
static void grow(struct chance *chance, const struct make *text, uint64_t max_record, bool by_bytes)
{
    struct json_progress progress = {0};
    for (size_t have = 0;;) {
        struct hl_error fresh = {0}, more = {0};
        const char *copy = guard_put(&room, text->text, have);
        int want = whole_check(copy, have, max_record, &fresh);
        int got = line_piece_check(&progress, copy, have, max_record, &more);
        if (got != want || strcmp(fresh.text, more.text) != 0)
            fail_msg("%.*s: %d (%s), not %d (%s)", (int)have, text->text, got, more.text, want,
                     fresh.text);
        if (want < 0 || have == text->len)
            return;
        have += by_bytes ? 1 : chance_below(chance, 1 + chance_below(chance, 60));
        if (have > text->len)
            have = text->len;
    }
}

static void test_random_pieces(void **state)
{
    struct chance chance = {chance_seed("test_random_pieces")};
    struct make text = {0}, other = {0};
    (void)state;
    make_line(&other, &chance);
    for (size_t round = chance_iterations(6000); round > 0; round--) {
        make_line(&text, &chance);
        if (chance_one_in(&chance, 4)) {
            make_clear(&text);
            make_string(&text, &chance, true);
        }
        for (size_t n = chance_below(&chance, 3); n > 0; n--)
            make_damage(&text, &chance, &other);
        for (size_t i = 0; i < text.len; i++)
            if (text.text[i] == '\n')
                text.text[i] = ' ';
        uint64_t max_record = chance_one_in(&chance, 8) ? chance_below(&chance, 200) : MAX_RECORD;
        grow(&chance, &text, max_record, true);
        for (int n = 0; n < 3; n++)
            grow(&chance, &text, max_record, false);
    }
    free(text.text);
    free(other.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stamps),
        cmocka_unit_test(test_stamps_nulls),
        cmocka_unit_test(test_stamps_operations),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_random_lines),
        cmocka_unit_test(test_fronts),
        cmocka_unit_test(test_random_damage),
        cmocka_unit_test(test_random_pieces),
    };
    guard_make(&room, 1 << 20);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    guard_free(&room);
    return failed;
}
