/*
 * text.c - a growing buffer of text, and a writer of JSON on it.
 */
#include "text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- text -------------------------------------------------------------------------------------
 */

void text_free(struct text *text)
{
    free(text->at);
    *text = (struct text){0};
}

/* Makes room for len more bytes and a NUL. */
static bool text_room(struct text *text, size_t len)
{
    if (text->failed)
        return false;
    if (len < text->capacity - text->len)
        return true;
    size_t capacity = text->capacity ? text->capacity : 256;
    while (capacity - text->len <= len) {
        if (capacity > SIZE_MAX / 2) {
            text->failed = true;
            return false;
        }
        capacity *= 2;
    }
    char *at = realloc(text->at, capacity);
    if (!at) {
        text->failed = true;
        return false;
    }
    text->at = at;
    text->capacity = capacity;
    return true;
}

void text_add(struct text *text, const char *bytes, size_t len)
{
    if (!text_room(text, len))
        return;
    if (len)
        memcpy(text->at + text->len, bytes, len);
    text->len += len;
    text->at[text->len] = '\0';
}

char *text_grow(struct text *text, size_t len)
{
    if (!text_room(text, len))
        return NULL;
    char *at = text->at + text->len;
    text->len += len;
    text->at[text->len] = '\0';
    return at;
}

void text_format(struct text *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (len < 0) {
        text->failed = true;
        return;
    }
    if (!text_room(text, (size_t)len))
        return;
    va_start(args, format);
    vsnprintf(text->at + text->len, (size_t)len + 1, format, args);
    va_end(args);
    text->len += (size_t)len;
}

/* ---- UTF-8 ------------------------------------------------------------------------------------
 */

size_t text_utf8_length(const char *bytes, size_t len)
{
    const unsigned char *at = (const unsigned char *)bytes;
    size_t need;
    /* The second byte's range is what rules out overlong forms, surrogates and what is past
     * U+10FFFF. */
    unsigned low = 0x80, high = 0xbf;

    if (at[0] < 0x80)
        return 1;
    if (at[0] >= 0xc2 && at[0] <= 0xdf) {
        need = 2;
    } else if (at[0] >= 0xe0 && at[0] <= 0xef) {
        need = 3;
        if (at[0] == 0xe0)
            low = 0xa0;
        if (at[0] == 0xed)
            high = 0x9f;
    } else if (at[0] >= 0xf0 && at[0] <= 0xf4) {
        need = 4;
        if (at[0] == 0xf0)
            low = 0x90;
        if (at[0] == 0xf4)
            high = 0x8f;
    } else {
        return 0;
    }
    if (len < need || at[1] < low || at[1] > high)
        return 0;
    for (size_t i = 2; i < need; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    }
    return need;
}

bool text_utf8_valid(const char *bytes, size_t len)
{
    while (len > 0) {
        size_t step = text_utf8_length(bytes, len);
        if (step == 0)
            return false;
        bytes += step;
        len -= step;
    }
    return true;
}

/* ---- JSON -------------------------------------------------------------------------------------
 */

static void add_escaped(struct text *text, unsigned char byte)
{
    switch (byte) {
    case '"':
        text_add(text, "\\\"", 2);
        break;
    case '\\':
        text_add(text, "\\\\", 2);
        break;
    case '\n':
        text_add(text, "\\n", 2);
        break;
    case '\t':
        text_add(text, "\\t", 2);
        break;
    case '\r':
        text_add(text, "\\r", 2);
        break;
    default:
        text_format(text, "\\u%04x", byte);
        break;
    }
}

void text_json_string(struct text *text, const char *bytes, size_t len)
{
    size_t done = 0; /* bytes already added; those from here to i are added as they are */
    size_t i = 0;

    text_add(text, "\"", 1);
    while (i < len) {
        unsigned char byte = (unsigned char)bytes[i];
        size_t step = text_utf8_length(bytes + i, len - i);
        if (step > 0 && byte >= 0x20 && byte != '"' && byte != '\\' && byte != 0x7f) {
            i += step;
            continue;
        }
        text_add(text, bytes + done, i - done);
        if (step == 0)
            text_add(text, "\xef\xbf\xbd", 3);
        else
            add_escaped(text, byte);
        done = ++i;
    }
    text_add(text, bytes + done, i - done);
    text_add(text, "\"", 1);
}

static void begin_line(struct json_writer *writer)
{
    if (!writer->pretty)
        return;
    text_add(&writer->text, "\n", 1);
    for (int i = 0; i < writer->depth; i++)
        text_add(&writer->text, "  ", 2);
}

/* What stands before a value: a comma, a line's beginning, the key. */
static void begin_value(struct json_writer *writer, const char *key, size_t key_len)
{
    if (writer->follows)
        text_add(&writer->text, ",", 1);
    if (writer->depth > 0)
        begin_line(writer);
    writer->follows = true;
    if (key) {
        text_json_string(&writer->text, key, key_len);
        text_add(&writer->text, ": ", writer->pretty ? 2 : 1);
    }
}

static void begin_member(struct json_writer *writer, const char *key)
{
    begin_value(writer, key, key ? strlen(key) : 0);
}

void json_open(struct json_writer *writer, const char *key, char bracket)
{
    begin_member(writer, key);
    text_add(&writer->text, &bracket, 1);
    writer->depth++;
    writer->follows = false;
}

void json_open_named(struct json_writer *writer, const char *key, size_t key_len)
{
    begin_value(writer, key, key_len);
    text_add(&writer->text, "{", 1);
    writer->depth++;
    writer->follows = false;
}

void json_close(struct json_writer *writer, char bracket)
{
    writer->depth--;
    if (writer->follows)
        begin_line(writer);
    writer->follows = true;
    text_add(&writer->text, &bracket, 1);
    if (writer->depth == 0)
        text_add(&writer->text, "\n", 1);
}

void json_text(struct json_writer *writer, const char *key, const char *bytes, size_t len)
{
    begin_member(writer, key);
    text_json_string(&writer->text, bytes, len);
}

void json_string(struct json_writer *writer, const char *key, const char *value)
{
    json_text(writer, key, value, strlen(value));
}

void json_number(struct json_writer *writer, const char *key, uint64_t value)
{
    begin_member(writer, key);
    text_format(&writer->text, "%llu", (unsigned long long)value);
}

void json_signed(struct json_writer *writer, const char *key, int64_t value)
{
    begin_member(writer, key);
    text_format(&writer->text, "%lld", (long long)value);
}

void json_bool(struct json_writer *writer, const char *key, bool value)
{
    begin_member(writer, key);
    text_format(&writer->text, "%s", value ? "true" : "false");
}

void json_null(struct json_writer *writer, const char *key)
{
    begin_member(writer, key);
    text_add(&writer->text, "null", 4);
}

void json_named(struct json_writer *writer, const char *key, size_t key_len, const char *bytes,
                size_t len)
{
    begin_value(writer, key, key_len);
    text_json_string(&writer->text, bytes, len);
}
