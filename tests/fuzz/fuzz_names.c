/* fuzz_names.c - names of files and what they stand for, text for people, ids of nodes. */
#include "../../fs/node.h"
#include "../../fs/text.h"
#include "../../store/json.h"
#include "fuzz.h"

bool crc_ignored;

#include <errno.h>

static void take_name(const char *name)
{
    char id[HL_ID_MAX + 1], again[NODE_NAME_MAX + 1];
    size_t len = 0;
    struct node node = {.kind = NODE_RANGE, .session = 1};
    uint64_t seq;
    int result = name_decode(name, id, &len);
    FUZZ_CHECK(result == 0 || result == -EINVAL || result == -ENAMETOOLONG);
    if (result == 0) { /* one file, one name */
        FUZZ_CHECK(len > 0 && len <= HL_ID_MAX && name_encode(id, len, again) == strlen(name));
        FUZZ_CHECK(strcmp(again, name) == 0);
        FUZZ_CHECK(!strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0);
    }
    if (name_seq(name, &seq)) {
        snprintf(again, sizeof again, "%llu", (unsigned long long)seq);
        FUZZ_CHECK(seq <= HL_SEQ_MAX && strcmp(again, name) == 0);
    }
    if (name_range(name, &node))
        FUZZ_CHECK(node.a <= node.b && node.b <= HL_SEQ_MAX &&
                   (!node.open || node.b == HL_SEQ_MAX));
}

static void take_id(const uint8_t *data, size_t size)
{
    char name[NODE_NAME_MAX + 1], id[HL_ID_MAX + 1];
    size_t len = 0, written;
    if (size == 0 || size > HL_ID_MAX)
        return;
    written = name_encode((const char *)data, size, name);
    FUZZ_CHECK(written <= NODE_NAME_MAX);
    if (written == 0)
        return;
    FUZZ_CHECK(strlen(name) == written);
    if (memchr(data, 0, size))
        return; /* no id has one */
    FUZZ_CHECK(name_decode(name, id, &len) == 0 && len == size && memcmp(id, data, size) == 0);
}

static void take_node(const uint8_t *data, size_t size)
{
    struct node node, again;
    uint64_t id = 0, back = 0;
    memcpy(&id, data, size < sizeof id ? size : sizeof id);
    if (!node_from_id(id, &node))
        return;
    FUZZ_CHECK(node_to_id(&node, &back) && node_from_id(back, &again));
    FUZZ_CHECK(node_equal(&node, &again));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *name = malloc(size + 1);
    struct text text = {0};
    struct json_writer writer = {.pretty = size % 2};
    FUZZ_CHECK(name);
    memcpy(name, data, size);
    name[size] = '\0';
    take_name(name);
    take_id(data, size);
    take_node(data, size);
    (void)hl_session_id_valid(name, size);
    FUZZ_CHECK(text_utf8_valid(name, size) == json_utf8_valid(name, size, NULL));
    text_json_string(&text, name, size);
    FUZZ_CHECK(!text.failed && json_scan_value(text.at, text.len, NULL, NULL) == JSON_OK);
    json_open(&writer, NULL, '{');
    json_named(&writer, name, size, name, size);
    json_text(&writer, "x", name, size);
    json_close(&writer, '}');
    FUZZ_CHECK(json_scan_object(writer.text.at, writer.text.len, NULL, NULL, NULL) == JSON_OK);
    text_free(&writer.text);
    text_free(&text);
    free(name);
    return 0;
}
