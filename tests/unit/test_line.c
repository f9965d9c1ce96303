/* test_line.c - lines as writers give them: what is taken, and how lines are read. */
#include <errno.h>
#include <inttypes.h>

#include "line_make.h"

static struct guard room;

static int parse(const char *text, struct line *line, struct hl_error *err)
{
    size_t len = strlen(text);
    memset(err, 0, sizeof *err);
    return line_parse(guard_put(&room, text, len), len, MAX_RECORD, line, err);
}

static void refused(const char *text, const char *sentence)
{
    struct line line;
    struct hl_error err;
    int error = parse(text, &line, &err);
    if (error != -EINVAL || strcmp(err.text, sentence) != 0)
        fail_msg("%s: %d, %s; not %s", text, error, err.text, sentence);
    assert_int_equal(err.code, EINVAL);
}

static void accepted(const char *text, enum line_kind kind)
{
    struct line line;
    struct hl_error err;
    if (parse(text, &line, &err) != 0)
        fail_msg("%s: %s", text, err.text);
    assert_int_equal(line.kind, kind);
}

/* ---- what is taken ---- */

static void check_field(const struct field_case *field, const char *name, bool for_all)
{
    char text[400], sentence[200];
    static const char operation[] = "\"op\":\"delete\",\"key\":\"k\"";
    for (size_t i = 0; i < 8 && field->good[i]; i++) {
        snprintf(text, sizeof text, "{\"%s\":%s}", name, field->good[i]);
        accepted(text, LINE_EVENT);
        snprintf(text, sizeof text, "{ \"x\" : [ ] , \"%s\" : %s , %s}", name, field->good[i],
                 operation);
        accepted(text, LINE_OPERATION);
    }
    snprintf(text, sizeof text, "{\"%s\":null}", name);
    accepted(text, LINE_EVENT);
    for (size_t i = 0; i < 12 && field->bad[i]; i++) {
        snprintf(sentence, sizeof sentence, "\"%s\" %s", field->name, field->sentence);
        snprintf(text, sizeof text, "{\"a\":1,\"%s\":%s,\"b\":2}", name, field->bad[i]);
        refused(text, sentence);
        snprintf(text, sizeof text, "{\"%s\":%s,%s}", name, field->bad[i], operation);
        if (for_all)
            refused(text, sentence);
        else
            accepted(text, LINE_OPERATION);
    }
    snprintf(sentence, sizeof sentence, "\"%s\" is given twice", field->name);
    snprintf(text, sizeof text, "{\"%s\":%s,\"%s\":%s}", name, field->good[0], field->name,
             field->good[1]);
    refused(text, sentence);
    snprintf(text, sizeof text, "{\"%s\":null,\"x\":0,\"%s\":%s}", name, field->name,
             field->good[0]);
    refused(text, sentence);
    snprintf(text, sizeof text, "{\"%s\":%s,\"%s\":null,%s}", name, field->good[0], field->name,
             operation);
    refused(text, sentence);
}

static void test_fields(void **state)
{
    (void)state;
    for (size_t i = 0; i < FIELDS; i++) {
        char name[40];
        check_field(&fields[i], fields[i].name, i < FOR_ALL);
        for (size_t n = 0; n < strlen(fields[i].name); n++) {
            escaped_name(name, sizeof name, fields[i].name, n);
            check_field(&fields[i], name, i < FOR_ALL);
        }
    }
}

/* A name that is nearly a standard one means nothing: any value is fine, any number of times. */
static void test_other_names(void **state)
{
    static const char *const others[] = {"",
                                         "x",
                                         "s",
                                         "Seq",
                                         "SEQ",
                                         "seq ",
                                         "seq\\u0000",
                                         "sea",
                                         "session-id",
                                         "session_ix",
                                         "tokens",
                                         "tokens_inn",
                                         "payloae",
                                         "kinds",
                                         "type",
                                         "timestamp",
                                         "ts",
                                         "key",
                                         "id",
                                         "value",
                                         "data",
                                         "state",
                                         "\\u20ac",
                                         "cache_creation_token",
                                         "cache_creation_tokens_",
                                         "a_name_that_is_longer_than_any_standard_one"};
    char text[300];
    (void)state;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        snprintf(text, sizeof text, "{\"%s\":[1],\"%s\":{},\"%s\":null}", others[i], others[i],
                 others[i]);
        accepted(text, LINE_EVENT);
    }
    for (size_t i = 0; i < FIELDS; i++) { /* one byte changed, dropped, added */
        char name[40];
        size_t len = strlen(fields[i].name);
        for (size_t n = 0; n < len; n++) {
            snprintf(name, sizeof name, "%s", fields[i].name);
            name[n] = (char)(name[n] ^ 1);
            snprintf(text, sizeof text, "{\"%s\":[1],\"%s\":[2]}", name, name);
            accepted(text, LINE_EVENT);
        }
        snprintf(text, sizeof text, "{\"%.*s\":[1],\"%sx\":[2]}", (int)len - 1, fields[i].name,
                 fields[i].name);
        accepted(text, LINE_EVENT);
    }
}

static void test_session_ids(void **state)
{
    char text[2000], id[300];
    struct line line;
    struct hl_error err;
    (void)state;
    memset(id, 'a', sizeof id);
    snprintf(text, sizeof text, "{\"session_id\":\"%.255s\"}", id);
    accepted(text, LINE_EVENT);
    snprintf(text, sizeof text, "{\"session_id\":\"%.256s\"}", id);
    refused(text, "\"session_id\" must be a string of 1 to 255 bytes (counted as in a file name) "
                  "without a NUL");
    /* Bytes count once unescaped. */
    for (size_t n = 127; n <= 128; n++) {
        size_t at = (size_t)snprintf(text, sizeof text, "{\"session_id\":\"a");
        for (size_t i = 0; i < n; i++)
            at += (size_t)snprintf(text + at, sizeof text - at, "\\u00e9");
        snprintf(text + at, sizeof text - at, "\"}");
        assert_int_equal(parse(text, &line, &err), n == 127 ? 0 : -EINVAL);
    }
    assert_int_equal(parse("{\"session_id\":\"a\\/b\"}", &line, &err), 0);
    assert_true(line.session_id_escaped);
    assert_int_equal(line.session_id.len, 4);
    assert_memory_equal(line.session_id.at, "a\\/b", 4);

    assert_true(hl_session_id_valid("a", 1));
    assert_true(hl_session_id_valid("\xc3\xa9/\x01", 4));
    assert_true(hl_session_id_valid(id, 255));
    assert_false(hl_session_id_valid(id, 256));
    /* What a file name writes as %XX counts three times. */
    static const char longer[] = {'/', '%', 1, 0x1f, 0x7f};
    for (size_t i = 0; i < sizeof longer; i++) {
        memset(id, longer[i], 86);
        assert_true(hl_session_id_valid(id, 85));
        assert_false(hl_session_id_valid(id, 86));
    }
    assert_false(hl_session_id_valid("", 0));
    assert_false(hl_session_id_valid("a\0b", 3));
    assert_false(hl_session_id_valid("a\xc3", 2));
    assert_false(hl_session_id_valid("\xed\xa0\x80", 3));
}

static void test_what_is_noted(void **state)
{
    struct line line;
    struct hl_error err;
    (void)state;
    assert_int_equal(parse("{\"seq\":7,\"ts_ms\":18446744073709551615,\"session_id\":\"x\","
                           "\"ts_exact\":null,\"kind\":null}",
                           &line, &err),
                     0);
    assert_int_equal(line.given, 1U << LINE_SEQ | 1U << LINE_TS_MS | 1U << LINE_SESSION_ID);
    assert_true(line.seq == 7 && line.ts_ms == UINT64_MAX);
    assert_false(line.session_id_escaped);
    for (int field = 0; field < LINE_FIELDS; field++) {
        bool null = field == LINE_TS_EXACT || field == LINE_KIND;
        assert_int_equal((line.nulls & 1U << field) != 0, null);
        if (null)
            assert_memory_equal(line.text.at + line.null_at[field], "null", 4);
    }
}

static void test_operations(void **state)
{
    (void)state;
    static const char *const good[] = {
        "{\"op\":\"set\",\"key\":\"k\",\"value\":1}",
        "{\"op\":\"SET\",\"id\":\"k\",\"data\":{}}",
        "{\"op\":\"s\\u0065t\",\"k\\u0065y\":\"k\",\"value\":null}",
        "{\"key\":null,\"id\":\"k\",\"data\":null,\"op\":\"set\"}",
        "{\"op\":\"set\",\"key\":\"k\",\"id\":17,\"value\":1,\"data\":2}",
        "{\"op\":\"delete\",\"key\":\"a/b\\u0001\"}",
        "{\"op\":\"DELETE\",\"id\":\"k\",\"value\":1}",
        "{\"op\":\"checkpoint\",\"state\":{}}",
        "{\"op\":\"CHECKPOINT\",\"data\":{\"a\":1}}",
        "{\"op\":\"checkpoint\",\"state\":null,\"data\":{}}",
        "{\"op\":\"undo\"}",
        "{\"op\":\"UNDO\",\"undone_seq\":3}",
        "{\"op\":\"archive\",\"name\":\"2026-Q1\",\"keys\":[]}",
        "{\"op\":\"ARCHIVE\",\"name\":\"a\",\"keys\":[ \"x\\\"\" ,\"y\"],\"as\":[\"z\",\"x\"]}",
        "{\"op\":\"restore\",\"name\":\"a\",\"keys\":[\"k\"],\"as\":null}",
        "{\"op\":\"set\",\"data\":{\"a\":1}}",
        "{\"op\":\"set\",\"key\":\"k\",\"value\":1,\"prev_seq\":null,\"prev_op\":7}",
        "{\"kind\":[],\"tokens_in\":\"many\",\"op\":\"undo\",\"source\":null}",
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        accepted(good[i], LINE_OPERATION);
    accepted("{\"op\":null}", LINE_EVENT);
    accepted("{\"op\":null,\"key\":7,\"key\":8,\"value\":1,\"value\":2}", LINE_EVENT);

    static const char ops[] = "\"op\" must be set, delete, checkpoint, undo, archive or restore";
    refused("{\"op\":\"\"}", ops);
    refused("{\"op\":\"Set\"}", ops);
    refused("{\"op\":\"sets\"}", ops);
    refused("{\"op\":\"se\"}", ops);
    refused("{\"op\":\"set\\u0000\"}", ops);
    refused("{\"op\":1}", "\"op\" must be a string");
    refused("{\"op\":{\"set\":1}}", "\"op\" must be a string");
    refused("{\"op\":null,\"op\":\"undo\"}", "\"op\" is given twice");
    refused("{\"op\":\"set\",\"key\":\"k\"}", "the operation \"set\" needs a \"value\"");
    refused("{\"op\":\"set\",\"value\":1}", "the operation \"set\" needs a \"key\"");
    refused("{\"op\":\"delete\",\"key\":null}", "the operation \"delete\" needs a \"key\"");
    refused("{\"op\":\"delete\",\"key\":\"\"}",
            "\"key\" must be a string of 1 to 255 bytes (counted as in a file name) "
            "without a NUL");
    refused("{\"op\":\"delete\",\"key\":7,\"id\":\"k\"}",
            "\"key\" must be a string of 1 to 255 bytes (counted as in a file name) "
            "without a NUL");
    refused("{\"op\":\"delete\",\"id\":[]}",
            "\"id\" must be a string of 1 to 255 bytes (counted as in a file name) "
            "without a NUL");
    refused("{\"op\":\"checkpoint\"}", "the operation \"checkpoint\" needs a \"state\"");
    refused("{\"op\":\"checkpoint\",\"state\":[]}", "\"state\" of a checkpoint must be an object");
    refused("{\"op\":\"checkpoint\",\"data\":1}", "\"data\" of a checkpoint must be an object");
    refused("{\"op\":\"checkpoint\",\"state\":{\"\":1}}",
            "each key of the state must be a string of 1 to 255 bytes (counted as in a file name) "
            "without a NUL");
    refused("{\"op\":\"set\",\"data\":[1]}", "the operation \"set\" needs a \"key\"");
    refused("{\"op\":\"undo\",\"undone_seq\":-1}",
            "\"undone_seq\" must be the seq of an operation");
    refused("{\"op\":\"archive\",\"keys\":[]}", "the operation \"archive\" needs a \"name\"");
    refused("{\"op\":\"archive\",\"name\":\"a\"}", "the operation \"archive\" needs \"keys\"");
    refused("{\"op\":\"archive\",\"name\":\"a\",\"keys\":{}}",
            "\"keys\" must be an array of strings");
    refused("{\"op\":\"archive\",\"name\":\"a\",\"keys\":[\"k\",1]}",
            "\"keys\" must be an array of strings");
    refused(
        "{\"op\":\"archive\",\"name\":\"a\",\"keys\":[\"\"]}",
        "each key must be a string of 1 to 255 bytes (counted as in a file name) without a NUL");
    refused("{\"op\":\"restore\",\"name\":\"a\",\"keys\":[\"k\"],\"as\":[]}",
            "\"as\" must have as many keys as \"keys\"");
    refused("{\"op\":\"delete\",\"key\":\"k\",\"prev_seq\":\"1\"}",
            "\"prev_seq\" must be a seq or null");
    static const char *const parts[] = {"key", "id", "value", "data", "state"};
    for (size_t i = 0; i < 5; i++) {
        char text[100], sentence[60];
        snprintf(sentence, sizeof sentence, "\"%s\" is given twice", parts[i]);
        snprintf(text, sizeof text, "{\"%s\":\"k\",\"%s\":null,\"op\":\"undo\"}", parts[i],
                 parts[i]);
        refused(text, sentence);
    }
    char text[700], key[300];
    memset(key, 'k', sizeof key);
    snprintf(text, sizeof text, "{\"op\":\"delete\",\"key\":\"%.255s\"}", key);
    accepted(text, LINE_OPERATION);
    snprintf(text, sizeof text, "{\"op\":\"delete\",\"key\":\"%.256s\"}", key);
    refused(text, "\"key\" must be a string of 1 to 255 bytes (counted as in a file name) "
                  "without a NUL");
}

static void test_not_taken(void **state)
{
    struct line line;
    struct hl_error err;
    (void)state;
    refused("{\"a\":1,\"bcdefgh\" 2}", "not JSON at byte 18: expected ':' after a key");
    refused("{", "not JSON: the text ends inside an object");
    refused("{\"a\":\"b}", "not JSON: the text ends inside a string");
    refused("{} {}", "not JSON at byte 4: something stands behind the end");
    refused("{\"seq\":\"x\",}", "not JSON at byte 12: expected a key"); /* JSON first */
    refused("text \xff", "not UTF-8 at byte 6");
    refused("\xe2\x82", "not UTF-8 at byte 1");
    assert_int_equal(line_parse("{\"a\":\"\0\"}", 9, MAX_RECORD, &line, &err), -EINVAL);

    assert_int_equal(line_parse("12345", 5, 5, &line, &err), 0);
    assert_int_equal(line_parse("123456", 6, 5, &line, &err), -EMSGSIZE);
    assert_int_equal(err.code, EMSGSIZE);
    assert_int_equal(line_parse("{    }", 6, 5, &line, NULL), -EMSGSIZE);
    assert_int_equal(line_parse("{\"seq\":-1}", 10, 10, &line, NULL), -EINVAL);
    accepted("[1,2]", LINE_TEXT);
    accepted(" {\"seq\":\"x\"}", LINE_TEXT);
    accepted("\"a\"", LINE_TEXT);
    accepted("{}\r", LINE_EVENT);
    accepted("{}  ", LINE_EVENT);
}

/* ---- pieces, readers ---- */

static void test_pieces(void **state)
{
    struct hl_error err;
    (void)state;
    assert_true(line_is_object("{}", 2));
    assert_true(line_is_object("{\"a\":[]} ", 9));
    assert_false(line_is_object(" {}", 3)); /* is text */
    assert_false(line_is_object("", 0));
    assert_false(line_is_object("{", 1));
    assert_false(line_is_object("{}x", 3));
    assert_false(line_is_object("[]", 2));
    assert_false(line_is_object("text", 4));

    static const char *const hopeful[] = {
        "",     "{",  "{\"a", "{\"a\":tr",     "{\"a\":1}", "{} ", "t", "te\xc3", "\xf0\x9f\x98",
        "[1,,", "\"", " {x",  "{\"seq\":\"x\""};
    for (size_t i = 0; i < sizeof hopeful / sizeof *hopeful; i++) {
        size_t len = strlen(hopeful[i]);
        assert_int_equal(whole_check(guard_put(&room, hopeful[i], len), len, MAX_RECORD, &err), 0);
    }
    assert_int_equal(whole_check("{x", 2, MAX_RECORD, &err), -EINVAL);
    assert_string_equal(err.text, "not JSON at byte 2: expected a key or '}'");
    assert_int_equal(whole_check("{}x", 3, MAX_RECORD, &err), -EINVAL);
    assert_int_equal(whole_check("ab\xc3(", 4, MAX_RECORD, &err), -EINVAL);
    assert_string_equal(err.text, "not UTF-8 at byte 3");
    assert_int_equal(whole_check("ab\xff", 3, MAX_RECORD, &err), -EINVAL);
    assert_int_equal(whole_check("abc", 3, 3, &err), 0);
    assert_int_equal(whole_check("abcd", 4, 3, &err), -EMSGSIZE);
    assert_int_equal(err.code, EMSGSIZE);

    /* In pieces the sentence is the same, and counts from the line's beginning. */
    struct json_progress progress = {0};
    assert_int_equal(line_piece_check(&progress, "ab\xe2", 3, MAX_RECORD, &err), 0);
    assert_int_equal(progress.at, 2);
    assert_int_equal(line_piece_check(&progress,
                                      "ab\xe2\x82\xac"
                                      "c",
                                      6, MAX_RECORD, &err),
                     0);
    assert_int_equal(progress.at, 6);
    assert_int_equal(line_piece_check(&progress,
                                      "ab\xe2\x82\xac"
                                      "cd\xff",
                                      8, MAX_RECORD, &err),
                     -EINVAL);
    assert_string_equal(err.text, "not UTF-8 at byte 8");
    progress = (struct json_progress){0};
    assert_int_equal(line_piece_check(&progress, "{\"a\":1", 6, MAX_RECORD, &err), 0);
    assert_int_equal(line_piece_check(&progress, "{\"a\":12]", 8, MAX_RECORD, &err), -EINVAL);
    assert_string_equal(err.text, "not JSON at byte 8: expected ',' or '}'");
}

static void test_reading(void **state)
{
    struct line_fields got;
    (void)state;
    static const char text[] =
        "{\"kind\":\"seq\",\"seq\":12,\"x\":{\"ts_ms\":1},\"session_id\":\"a\\n\"}\n";
    assert_int_equal(line_read(text, sizeof text - 1, &got), 0);
    assert_true(got.has_seq && got.seq == 12 && !got.has_ts_ms && got.ts_ms == 0);
    assert_int_equal(got.session_id.len, 3);
    assert_memory_equal(got.session_id.at, "a\\n", 3);
    static const char odd[] = "{\"seq\":null,\"ts_ms\":\"1\",\"session_id\":7}";
    assert_int_equal(line_read(odd, sizeof odd - 1, &got), 0);
    assert_false(got.has_seq || got.has_ts_ms || got.session_id.len > 0);
    assert_int_equal(line_read("{}", 2, &got), 0);
    assert_int_equal(line_read("text\n", 5, &got), -EINVAL);
    assert_int_equal(line_read("", 0, &got), -EINVAL);
    assert_int_equal(line_read("{\"seq\":1", 8, &got), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),      cmocka_unit_test(test_other_names),
        cmocka_unit_test(test_session_ids), cmocka_unit_test(test_what_is_noted),
        cmocka_unit_test(test_operations),  cmocka_unit_test(test_not_taken),
        cmocka_unit_test(test_pieces),      cmocka_unit_test(test_reading),
    };
    guard_make(&room, 1 << 20);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    guard_free(&room);
    return failed;
}
