/* fuzz_line.c - lines as writers give them: parsed, stamped, parsed again; operations; values. */
#include "../../store/line.h"

#include "../../store/store.h"
#include "fuzz.h"

bool crc_ignored;

#define MAX_RECORD 4096U

static void walk_keys(struct json_span array)
{
    char key[HL_KEY_MAX];
    size_t at = 0, len;
    while (array.len > 0 && operation_next_key(array, &at, key, &len))
        FUZZ_CHECK(hl_session_id_valid(key, len));
}

static void take_operation(const char *text, size_t len)
{
    struct operation operation = {0};
    struct hl_error err = {0};
    if (operation_parse(text, len, &operation, &err) < 0) {
        FUZZ_CHECK(err.text[0] != '\0');
        return;
    }
    FUZZ_CHECK(operation.kind < OPERATION_KINDS && operation.key_len <= HL_KEY_MAX);
    walk_keys(operation.keys);
    walk_keys(operation.as);
    if (operation.value.len > 0)
        FUZZ_CHECK(json_scan_value(operation.value.at, operation.value.len, NULL, NULL) == JSON_OK);
}

static void take_line(const char *text, size_t len)
{
    struct line line, again;
    struct hl_error err = {0};
    int result = line_parse(text, len, MAX_RECORD, &line, &err);
    FUZZ_CHECK(line_is_object(text, len) ==
               (text[0] == '{' && json_scan_object(text, len, NULL, NULL, NULL) == JSON_OK));
    if (result < 0) {
        FUZZ_CHECK(err.text[0] != '\0');
        return;
    }
    const struct line_stamp stamp = {
        .id_json = "\"s\"", .id_json_len = 3, .seq = 7, .ts_ms = 1700000000000};
    size_t bound = line_stamp_bound(&line, stamp.id_json_len);
    char *stored = malloc(bound);
    FUZZ_CHECK(stored);
    size_t stored_len = line_stamp(&line, &stamp, stored);
    FUZZ_CHECK(stored_len <= bound && stored[stored_len - 1] == '\n' && stored[0] == '{');
    FUZZ_CHECK(memchr(stored, '\n', stored_len - 1) == NULL);
    if (line.kind == LINE_OPERATION)
        take_operation(text, len);
    /* Read back in, it comes out as it was. (It is longer than what was given: by the fields that
     * were added, and text by what had to be escaped.) */
    FUZZ_CHECK(line_parse(stored, stored_len - 1, stored_len, &again, &err) == 0);
    struct line_stamp other = stamp;
    other.seq = again.seq;
    other.ts_ms = again.ts_ms;
    size_t again_bound = line_stamp_bound(&again, stamp.id_json_len);
    char *twice = malloc(again_bound);
    FUZZ_CHECK(twice && line_stamp(&again, &other, twice) == stored_len);
    FUZZ_CHECK(memcmp(twice, stored, stored_len) == 0);
    struct line_fields fields;
    FUZZ_CHECK(line_read(stored, stored_len, &fields) == 0 && fields.has_seq);
    FUZZ_CHECK(fields.seq == (line.given & 1U << LINE_SEQ ? line.seq : 7));
    struct json_span id;
    FUZZ_CHECK(line_session_id(stored, stored_len, &id));
    free(twice);
    free(stored);
}

static void take_pieces(const char *text, size_t len, size_t step)
{
    struct json_progress progress = {0};
    struct hl_error err = {0};
    struct line line;
    int result = 0;
    for (size_t upto = 0; upto < len && result == 0;) {
        upto = len - upto < step ? len : upto + step;
        char *part = fuzz_copy((const uint8_t *)text, upto);
        result = line_piece_check(&progress, part, upto, MAX_RECORD, &err);
        free(part);
    }
    /* What is refused in pieces is no line. */
    if (result < 0)
        FUZZ_CHECK(line_parse(text, len, MAX_RECORD, &line, &err) < 0);
}

static void take_value(const char *text, size_t len, size_t step)
{
    struct hl_value value = {0};
    int result = 0;
    for (size_t upto = 0; upto < len && result >= 0;) {
        upto = len - upto < step ? len : upto + step;
        char *part = fuzz_copy((const uint8_t *)text, upto);
        result = hl_value_check(&value, part, upto, MAX_RECORD, NULL);
        free(part);
    }
    struct hl_value whole = {0};
    int at_once = hl_value_check(&whole, text, len, MAX_RECORD, NULL);
    FUZZ_CHECK(at_once <= HL_VALUE_UNFINISHED || json_utf8_valid(text, len, NULL));
    if (at_once <= HL_VALUE_UNFINISHED)
        return;
    FUZZ_CHECK(result >= 0);
    char *compact = malloc(len + 1);
    FUZZ_CHECK(compact);
    size_t length = hl_value_compact(text, len, compact);
    FUZZ_CHECK(length == whole.length && length <= len && length > 0);
    FUZZ_CHECK(json_scan_value(compact, length, NULL, NULL) == JSON_OK);
    FUZZ_CHECK(memchr(compact, '\n', length) == NULL);
    free(compact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    size_t step = (size_t)data[0] + 1, len = size - 1;
    char *text = fuzz_copy(data + 1, len);
    struct json_span id;
    struct line_fields fields;
    uint64_t ms;

    take_value(text, len, step);
    if (!memchr(text, '\n', len)) {
        take_line(text, len);
        take_pieces(text, len, step);
    }
    if (text[0] == '{' && json_scan_object(text, len, NULL, NULL, NULL) == JSON_OK)
        take_operation(text, len);
    (void)line_session_id(text, len, &id);
    (void)line_read(text, len, &fields);
    (void)operation_date(text, len, &ms);
    free(text);
    return 0;
}
