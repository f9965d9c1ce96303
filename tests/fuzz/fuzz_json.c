/* fuzz_json.c - the JSON scanner: whole and in pieces it must say the same; strings come back. */
#include "../../store/json.h"

#include "fuzz.h"

bool crc_ignored;

struct members {
    const char *text;
    size_t len, count;
};

static bool look(void *context, const struct json_member *member)
{
    struct members *members = context;
    const char *end = members->text + members->len;
    members->count++;
    FUZZ_CHECK(member->key.at >= members->text && member->key.at + member->key.len <= end);
    FUZZ_CHECK(member->value.at >= member->key.at + member->key.len && member->value.len > 0 &&
               member->value.at + member->value.len <= end);
    enum json_type type;
    FUZZ_CHECK(json_scan_value(member->value.at, member->value.len, &type, NULL) == JSON_OK);
    FUZZ_CHECK(type == member->type);
    uint64_t u64 = 0;
    int64_t i64 = 0;
    bool is_u64 = json_to_u64(member->value, UINT64_MAX, &u64);
    bool is_i64 = json_to_i64(member->value, &i64);
    FUZZ_CHECK(!is_u64 || !is_i64 || u64 == (uint64_t)i64);
    FUZZ_CHECK((!is_u64 && !is_i64) || type == JSON_NUMBER);
    /* A key unescaped and escaped again names the same. */
    char *plain = malloc(member->key.len + 1);
    char *again = malloc(JSON_ESCAPE_MAX(member->key.len));
    FUZZ_CHECK(plain && again);
    size_t len = json_unescape(member->key.at, member->key.len, plain, member->key.len);
    FUZZ_CHECK(len <= member->key.len && json_utf8_valid(plain, len, NULL));
    FUZZ_CHECK(json_string_equals(member->key.at, member->key.len, plain, len));
    size_t escaped = json_escape(plain, len, again);
    FUZZ_CHECK(escaped == json_escaped_len(plain, len) && escaped >= len + 2);
    FUZZ_CHECK(json_string_equals(again + 1, escaped - 2, plain, len));
    free(plain);
    free(again);
    return true;
}

static enum json_result in_pieces(const char *text, size_t len, size_t step, bool object)
{
    struct json_progress progress = {0};
    enum json_result result = JSON_UNFINISHED;
    for (size_t upto = step < len ? step : len;; upto = len - upto < step ? len : upto + step) {
        char *part = fuzz_copy((const uint8_t *)text, upto);
        result = object ? json_scan_more(&progress, part, upto, NULL)
                        : json_scan_value_more(&progress, part, upto, NULL);
        free(part);
        if (result == JSON_INVALID || upto == len)
            return result;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    size_t step = (size_t)data[0] + 1, len = size - 1;
    char *text = fuzz_copy(data + 1, len);
    struct members members = {.text = text, .len = len};
    struct json_error err = {0};
    enum json_type type = JSON_NULL;
    size_t bad = 0;

    enum json_result object = json_scan_object(text, len, look, &members, &err);
    FUZZ_CHECK(object != JSON_STOPPED && (object == JSON_OK || (err.reason && err.offset <= len)));
    enum json_result value = json_scan_value(text, len, &type, &err);
    FUZZ_CHECK((object == JSON_OK) == (value == JSON_OK && type == JSON_OBJECT));
    if (len > 0) {
        FUZZ_CHECK((in_pieces(text, len, step, true) == JSON_OK) == (object == JSON_OK));
        /* A number may grow, so pieces of it are never known to be whole before the end. */
        enum json_result pieces = in_pieces(text, len, step, false);
        FUZZ_CHECK((pieces == JSON_INVALID) == (value == JSON_INVALID));
    }
    bool utf8 = json_utf8_valid(text, len, &bad);
    FUZZ_CHECK(utf8 ? value == value : bad < len && value != JSON_OK);
    free(text);
    return 0;
}
