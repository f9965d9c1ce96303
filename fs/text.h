/*
 * text.h - a growing buffer of text, and a writer of JSON on it.
 *
 * Running out of memory is remembered in `failed` and turns what follows into nothing, so that a
 * caller checks once, at the end. Zero a struct text to begin; text_free() ends it.
 */
#ifndef HL_TEXT_H
#define HL_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text {
    char *at; /* NUL-terminated once something was added */
    size_t len, capacity;
    bool failed;
};

void text_free(struct text *text);
void text_add(struct text *text, const char *bytes, size_t len);
/* Makes it longer by len bytes, which the caller fills; NULL: no memory. */
char *text_grow(struct text *text, size_t len);
void text_format(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Adds bytes as a JSON string with its quotes. What is not UTF-8 becomes U+FFFD, byte by byte. */
void text_json_string(struct text *text, const char *bytes, size_t len);

/* The length (1 to 4) of the UTF-8 character that begins at bytes, or 0 if none does. len > 0. */
size_t text_utf8_length(const char *bytes, size_t len);
bool text_utf8_valid(const char *bytes, size_t len);

/*
 * A writer of JSON objects and arrays: pretty (two blanks a level) or on one line; either way the
 * outermost ends in a newline. key is NULL inside an array and for the outermost.
 */
struct json_writer {
    struct text text;
    bool pretty;
    bool follows; /* a member stands before in the innermost object or array */
    int depth;
};

void json_open(struct json_writer *writer, const char *key, char bracket); /* '{' or '[' */
void json_close(struct json_writer *writer, char bracket);                 /* '}' or ']' */
void json_text(struct json_writer *writer, const char *key, const char *bytes, size_t len);
void json_string(struct json_writer *writer, const char *key, const char *value);
void json_number(struct json_writer *writer, const char *key, uint64_t value);
void json_signed(struct json_writer *writer, const char *key, int64_t value);
void json_bool(struct json_writer *writer, const char *key, bool value);
void json_null(struct json_writer *writer, const char *key);
/* A member whose key is any bytes; an object, to be closed. */
void json_named(struct json_writer *writer, const char *key, size_t key_len, const char *bytes,
                size_t len);
void json_open_named(struct json_writer *writer, const char *key, size_t key_len);

#endif
