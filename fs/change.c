/*
 * change.c - a change of documents by files: the operations that say it, and their append.
 */
#include "change.h"

#include <errno.h>
#include <string.h>

static void begin_set(struct text *lines, const char *key, size_t key_len)
{
    text_format(lines, "{\"op\":\"set\",\"key\":");
    text_json_string(lines, key, key_len);
    text_format(lines, ",\"value\":");
}

#define END_OF_SET 1 /* '}' */

void change_set(struct change *change, const char *key, size_t key_len, const char *text,
                size_t text_len, size_t length)
{
    begin_set(&change->lines, key, key_len);
    char *at = text_grow(&change->lines, length);
    if (at)
        hl_value_compact(text, text_len, at);
    text_format(&change->lines, "}\n");
}

void change_delete(struct change *change, const char *key, size_t key_len)
{
    text_format(&change->lines, "{\"op\":\"delete\",\"key\":");
    text_json_string(&change->lines, key, key_len);
    text_format(&change->lines, "}\n");
}

void change_delete_moved(struct change *change, const char *key, size_t key_len, const char *to,
                         size_t to_len)
{
    text_format(&change->lines, "{\"op\":\"delete\",\"key\":");
    text_json_string(&change->lines, key, key_len);
    text_format(&change->lines, ",\"moved_to\":");
    text_json_string(&change->lines, to, to_len);
    text_format(&change->lines, "}\n");
}

static void move(struct text *lines, const char *op, const struct hl_document *archive,
                 const char *key, size_t key_len, const char *as, size_t as_len)
{
    text_format(lines, "{\"op\":\"%s\",\"name\":", op);
    text_json_string(lines, archive->key, archive->key_len);
    text_format(lines, ",\"keys\":[");
    text_json_string(lines, key, key_len);
    text_format(lines, "]");
    if (key_len != as_len || memcmp(key, as, as_len) != 0) {
        text_format(lines, ",\"as\":[");
        text_json_string(lines, as, as_len);
        text_format(lines, "]");
    }
    text_format(lines, "}\n");
}

void change_archive(struct change *change, const struct hl_document *archive, const char *key,
                    size_t key_len, const char *as, size_t as_len)
{
    move(&change->lines, "archive", archive, key, key_len, as, as_len);
}

void change_restore(struct change *change, const struct hl_document *archive, const char *key,
                    size_t key_len, const char *as, size_t as_len)
{
    move(&change->lines, "restore", archive, key, key_len, as, as_len);
}

/* ---- what must hold ---------------------------------------------------------------------------
 */

static void expect(struct change *change, const struct hl_expectation *expectation)
{
    if (change->expectation_count == CHANGE_EXPECTATIONS) {
        change->lines.failed = true; /* none may be left out */
        return;
    }
    change->expectations[change->expectation_count++] = *expectation;
}

void change_expect(struct change *change, uint64_t area, const char *key, size_t key_len,
                   uint64_t changed)
{
    expect(change,
           &(struct hl_expectation){
               .area = area, .key = key, .len = key_len, .present = true, .changed = changed});
}

void change_expect_absent(struct change *change, uint64_t area, const char *key, size_t key_len)
{
    expect(change, &(struct hl_expectation){.area = area, .key = key, .len = key_len});
}

/* ---- applying ---------------------------------------------------------------------------------
 */

static void take_seq(void *context, const struct hl_receipt *receipt)
{
    *(uint64_t *)context = receipt->last;
}

int change_apply(struct fs *fs, uint32_t session, struct change *change, uint64_t *seq,
                 struct hl_error *err)
{
    uint64_t last = 0;
    struct hl_append request = {
        .session = session,
        .data = change->lines.at,
        .len = change->lines.len,
        .expectations = change->expectations,
        .expectation_count = change->expectation_count,
        .by_file = true,
        .receipt = take_seq,
        .receipt_context = &last,
    };
    int result = 0;

    if (change->lines.failed)
        result = hl_fail(err, ENOMEM, "out of memory");
    else if (change->lines.len > 0)
        result = hl_append(fs->store, &request, err);
    if (result == 0 && change->lines.len > 0)
        atomic_store(&fs->changed_ms, fs_now_ms());
    if (result == 0 && seq)
        *seq = last;
    if (result < 0 && err && err->text[0] == '\0')
        hl_fail(err, -result, "%s", strerror(-result));
    change_free(change);
    return result;
}

void change_free(struct change *change)
{
    text_free(&change->lines);
    change->expectation_count = 0;
}

size_t change_room(struct fs *fs, const char *key, size_t key_len)
{
    struct text text = {0};

    begin_set(&text, key, key_len);
    size_t used = text.len + END_OF_SET;
    text_free(&text);
    return fs->options->max_record > used ? (size_t)fs->options->max_record - used : 0;
}
