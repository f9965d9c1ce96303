/* session.c - session frames and attribute blocks; see session.h. */
#include "session.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

#define ATTRIBUTE_HEAD 5U
#define FIELDS 10U          /* of a session frame that are known */
#define FIELDS_NEEDED 0xffU /* bits of the first ones, which are never missing */

int attributes_each(const void *block, uint32_t block_len, attributes_visit *each, void *context)
{
    const uint8_t *p = block;
    uint32_t left = block_len;
    while (left > 0) {
        uint32_t len;
        if (left < ATTRIBUTE_HEAD)
            return -EBADMSG;
        uint32_t name_len = p[0];
        memcpy(&len, p + 1, sizeof len);
        len = le32toh(len);
        if (name_len == 0 || left - ATTRIBUTE_HEAD < name_len ||
            left - ATTRIBUTE_HEAD - name_len < len)
            return -EBADMSG;
        const uint8_t *name = p + ATTRIBUTE_HEAD;
        int result = each(context, (const char *)name, name_len, name + name_len, len);
        if (result != 0)
            return result;
        p += ATTRIBUTE_HEAD + name_len + len;
        left -= ATTRIBUTE_HEAD + name_len + len;
    }
    return 0;
}

struct finding {
    const char *name;
    const void *value;
    uint32_t len;
};

static int match(void *context, const char *name, size_t name_len, const void *value, uint32_t len)
{
    struct finding *finding = context;
    if (strlen(finding->name) != name_len || memcmp(finding->name, name, name_len) != 0)
        return 0;
    finding->value = value;
    finding->len = len;
    return 1;
}

bool attributes_find(const void *block, uint32_t block_len, const char *name, const void **value,
                     uint32_t *len)
{
    struct finding finding = {.name = name};
    if (attributes_each(block, block_len, match, &finding) != 1)
        return false;
    *value = finding.value;
    *len = finding.len;
    return true;
}

struct copying {
    const char *skip;
    uint8_t *out;
    uint32_t used;
};

static void put_attribute(struct copying *copying, const char *name, size_t name_len,
                          const void *value, uint32_t len)
{
    uint8_t *p = copying->out + copying->used;
    uint32_t stored = htole32(len);
    p[0] = (uint8_t)name_len;
    memcpy(p + 1, &stored, sizeof stored);
    memcpy(p + ATTRIBUTE_HEAD, name, name_len);
    if (len)
        memcpy(p + ATTRIBUTE_HEAD + name_len, value, len);
    copying->used += ATTRIBUTE_HEAD + (uint32_t)name_len + len;
}

static int copy_other(void *context, const char *name, size_t name_len, const void *value,
                      uint32_t len)
{
    struct copying *copying = context;
    if (strlen(copying->skip) != name_len || memcmp(copying->skip, name, name_len) != 0)
        put_attribute(copying, name, name_len, value, len);
    return 0;
}

int attributes_change(const void *block, uint32_t block_len, const char *name, const void *value,
                      size_t len, void **changed, uint32_t *changed_len)
{
    size_t name_len = strlen(name);
    if (name_len == 0 || name_len > HL_ATTRIBUTE_NAME_MAX)
        return -EINVAL;
    if (len > HL_ATTRIBUTES_MAX)
        return -ENOSPC;
    struct copying copying = {.skip = name};
    copying.out = malloc(block_len + ATTRIBUTE_HEAD + name_len + len);
    if (!copying.out)
        return -ENOMEM;
    int error = attributes_each(block, block_len, copy_other, &copying);
    if (error == 0 && value)
        put_attribute(&copying, name, name_len, value, (uint32_t)len);
    if (error == 0 && copying.used > HL_ATTRIBUTES_MAX)
        error = -ENOSPC;
    if (error < 0) {
        free(copying.out);
        return error;
    }
    *changed = copying.out;
    *changed_len = copying.used;
    return 0;
}

static const char base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* RFC 4648, section 4, with padding. */
static size_t base64_encode(const uint8_t *bytes, size_t len, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i += 3) {
        uint32_t bits = (uint32_t)bytes[i] << 16;
        if (i + 1 < len)
            bits |= (uint32_t)bytes[i + 1] << 8;
        if (i + 2 < len)
            bits |= bytes[i + 2];
        out[n++] = base64_digits[bits >> 18];
        out[n++] = base64_digits[bits >> 12 & 63];
        out[n++] = i + 1 < len ? base64_digits[bits >> 6 & 63] : '=';
        out[n++] = i + 2 < len ? base64_digits[bits & 63] : '=';
    }
    return n;
}

/* Decodes what base64_encode() wrote; SIZE_MAX for anything else. out has room for len / 4 * 3. */
static size_t base64_decode(const char *text, size_t len, uint8_t *out)
{
    size_t n = 0;
    if (len % 4 != 0)
        return SIZE_MAX;
    for (size_t i = 0; i < len; i += 4) {
        uint32_t bits = 0;
        unsigned padding = 0;
        for (size_t k = 0; k < 4; k++) {
            const char *digit =
                text[i + k] ? memchr(base64_digits, text[i + k], sizeof base64_digits - 1) : NULL;
            if (text[i + k] == '=' && i + 4 == len && k >= 2)
                padding++;
            else if (!digit || padding)
                return SIZE_MAX;
            bits = bits << 6 | (digit ? (uint32_t)(digit - base64_digits) : 0);
        }
        out[n++] = (uint8_t)(bits >> 16);
        if (padding < 2)
            out[n++] = (uint8_t)(bits >> 8);
        if (padding < 1)
            out[n++] = (uint8_t)bits;
    }
    return n;
}

struct encoding {
    char *out;
    size_t used;
    bool any;
};

static int encode_attribute(void *context, const char *name, size_t name_len, const void *value,
                            uint32_t len)
{
    struct encoding *encoding = context;
    if (encoding->any)
        encoding->out[encoding->used++] = ',';
    encoding->any = true;
    encoding->used += json_escape(name, name_len, encoding->out + encoding->used);
    encoding->out[encoding->used++] = ':';
    encoding->out[encoding->used++] = '"';
    encoding->used += base64_encode(value, len, encoding->out + encoding->used);
    encoding->out[encoding->used++] = '"';
    return 0;
}

static int encode(const struct index_row *row, const char *sums, size_t sums_len, char **text,
                  size_t *len)
{
    /* A name may grow six times, a value by a third; 512 for the rest. */
    size_t room =
        JSON_ESCAPE_MAX((size_t)row->id_len) + (size_t)row->attributes_len * 8 + sums_len + 512;
    char *out = malloc(room);
    if (!out)
        return -ENOMEM;
    size_t n = (size_t)snprintf(out, room, "{\"session\":");
    n += json_escape(row->id, row->id_len, out + n);
    n += (size_t)snprintf(out + n, room - n,
                          ",\"number\":%u,\"uid\":%u,\"gid\":%u,\"mode\":%u,\"created_ms\":%llu,"
                          "\"last_seq\":",
                          row->number, row->uid, row->gid, row->mode,
                          (unsigned long long)row->created_ms);
    if (row->has_seq)
        n += (size_t)snprintf(out + n, room - n, "%llu", (unsigned long long)row->last_seq);
    else
        n += (size_t)snprintf(out + n, room - n, "null");
    if (row->changed_ms > row->created_ms)
        n += (size_t)snprintf(out + n, room - n, ",\"changed_ms\":%llu",
                              (unsigned long long)row->changed_ms);
    if (row->documents.history_from > 0)
        n += (size_t)snprintf(out + n, room - n, ",\"history_from\":%llu",
                              (unsigned long long)row->documents.history_from);
    n += (size_t)snprintf(out + n, room - n, ",\"attributes\":{");
    struct encoding encoding = {.out = out, .used = n};
    int error = attributes_each(row->attributes, row->attributes_len, encode_attribute, &encoding);
    if (error < 0) {
        free(out);
        return error;
    }
    n = encoding.used;
    out[n++] = '}';
    if (sums) {
        n += (size_t)snprintf(out + n, room - n, ",\"sums\":");
        memcpy(out + n, sums, sums_len);
        n += sums_len;
    }
    memcpy(out + n, "}\n", 2);
    *text = out;
    *len = n + 2;
    return 0;
}

int session_encode(const struct index_row *row, char **text, size_t *len)
{
    return encode(row, NULL, 0, text, len);
}

int session_encode_sums(const struct index_row *row, const struct sums *sums, char **text,
                        size_t *len)
{
    char *json = NULL;
    size_t json_len = 0;
    int error = sums ? sums_to_json(sums, &json, &json_len) : 0;
    if (error == 0)
        error = encode(row, json, json_len, text, len);
    free(json);
    return error;
}

static bool find_sums(void *context, const struct json_member *member)
{
    struct json_span *found = context;
    if (member->key.len != 4 || memcmp(member->key.at, "sums", 4) != 0)
        return true;
    *found = member->value;
    return false;
}

int session_decode_sums(const char *text, size_t len, struct sums **sums)
{
    struct json_span found = {NULL, 0};
    *sums = NULL;
    json_scan_object(text, len, find_sums, &found, NULL);
    if (!found.at)
        return 0;
    struct sums *made = sums_new();
    int error = made ? sums_from_json(found.at, found.len, made) : -ENOMEM;
    if (error < 0)
        sums_free(made);
    else
        *sums = made;
    return error;
}

struct decoding {
    struct index_row *row;
    char *id;
    uint8_t *attributes;
    uint32_t attributes_len;
    unsigned seen;
    int error;
};

static bool decode_attribute(void *context, const struct json_member *member)
{
    struct decoding *decoding = context;
    char name[HL_ATTRIBUTE_NAME_MAX + 1];
    size_t name_len = json_unescape(member->key.at, member->key.len, name, HL_ATTRIBUTE_NAME_MAX);
    decoding->error = -EBADMSG;
    if (name_len == SIZE_MAX || name_len == 0 || member->type != JSON_STRING ||
        memchr(name, 0, name_len))
        return false;
    name[name_len] = 0;
    size_t text_len = member->value.len - 2;
    uint8_t *value = malloc(text_len / 4 * 3 + 1);
    if (!value) {
        decoding->error = -ENOMEM;
        return false;
    }
    size_t len = base64_decode(member->value.at + 1, text_len, value);
    void *changed = NULL;
    uint32_t changed_len = 0;
    if (len != SIZE_MAX)
        decoding->error = attributes_change(decoding->attributes, decoding->attributes_len, name,
                                            value, len, &changed, &changed_len);
    free(value);
    if (decoding->error < 0)
        return false;
    free(decoding->attributes);
    decoding->attributes = changed;
    decoding->attributes_len = changed_len;
    return true;
}

static bool number(const struct json_member *member, uint64_t max, uint64_t *out)
{
    return member->type == JSON_NUMBER && json_to_u64(member->value, max, out);
}

static bool decode_member(void *context, const struct json_member *member)
{
    static const char *const names[] = {"session",    "number",      "uid",      "gid",
                                        "mode",       "created_ms",  "last_seq", "attributes",
                                        "changed_ms", "history_from"};
    struct decoding *decoding = context;
    struct index_row *row = decoding->row;
    uint64_t value = 0;
    unsigned field = 0;
    while (field < FIELDS && (strlen(names[field]) != member->key.len ||
                              memcmp(names[field], member->key.at, member->key.len) != 0))
        field++;
    if (field == FIELDS)
        return true; /* written by a later version */
    decoding->seen |= 1U << field;
    bool good = true;
    switch (field) {
    case 0:
        good = member->type == JSON_STRING && !decoding->id;
        if (good) {
            decoding->id = malloc(member->value.len);
            if (!decoding->id) {
                decoding->error = -ENOMEM;
                return false;
            }
            size_t n = json_unescape(member->value.at + 1, member->value.len - 2, decoding->id,
                                     member->value.len);
            good = n != SIZE_MAX && hl_session_id_valid(decoding->id, n);
            row->id_len = good ? (uint16_t)n : 0;
        }
        break;
    case 1:
        good = number(member, UINT32_MAX, &value) && value > 0;
        row->number = (uint32_t)value;
        break;
    case 2:
        good = number(member, UINT32_MAX, &value);
        row->uid = (uint32_t)value;
        break;
    case 3:
        good = number(member, UINT32_MAX, &value);
        row->gid = (uint32_t)value;
        break;
    case 4:
        good = number(member, 07777, &value);
        row->mode = (uint32_t)value;
        break;
    case 5:
        good = number(member, UINT64_MAX, &row->created_ms);
        break;
    case 6:
        row->has_seq = member->type != JSON_NULL;
        good = !row->has_seq || number(member, HL_SEQ_MAX, &row->last_seq);
        break;
    case 8:
        good = number(member, UINT64_MAX, &row->changed_ms);
        break;
    case 9:
        good = number(member, HL_SEQ_MAX, &row->documents.history_from);
        break;
    default:
        if (member->type != JSON_OBJECT ||
            json_scan_object(member->value.at, member->value.len, decode_attribute, decoding,
                             NULL) != JSON_OK)
            return false;
    }
    if (!good)
        decoding->error = -EBADMSG;
    return good;
}

int session_decode(const char *text, size_t len, struct index_row *row)
{
    struct decoding decoding = {.row = row, .error = 0};
    memset(row, 0, sizeof *row);
    enum json_result result = json_scan_object(text, len, decode_member, &decoding, NULL);
    if (result != JSON_OK || (decoding.seen & FIELDS_NEEDED) != FIELDS_NEEDED) {
        free(decoding.id);
        free(decoding.attributes);
        memset(row, 0, sizeof *row);
        return decoding.error == -ENOMEM ? -ENOMEM : -EBADMSG;
    }
    if (row->changed_ms < row->created_ms)
        row->changed_ms = row->created_ms;
    row->id = decoding.id;
    row->attributes = decoding.attributes;
    row->attributes_len = decoding.attributes_len;
    return 0;
}

void session_row_free(struct index_row *row)
{
    free((void *)(uintptr_t)row->id);
    free((void *)(uintptr_t)row->attributes);
    row->id = NULL;
    row->attributes = NULL;
}
