/* sums_text.c - sums as the index keeps them, and as a session frame carries them; see sums.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sums.h"

#define SUMS_FORM 1U
#define USAGE_NUMBERS 9U
#define VARINT_MAX 10U

/* The numbers of a usage, in the order in which they are written; the cost with its sign folded
 * into the lowest bit. */
static void usage_numbers(const struct hl_usage *usage, uint64_t numbers[USAGE_NUMBERS])
{
    uint64_t cost = (uint64_t)usage->cost_usd_e6;
    const uint64_t all[USAGE_NUMBERS] = {
        usage->events,
        usage->errors,
        usage->calls,
        usage->tokens_in,
        usage->tokens_out,
        usage->reasoning_tokens,
        usage->cache_read_tokens,
        usage->cache_creation_tokens,
        cost << 1 ^ (usage->cost_usd_e6 < 0 ? UINT64_MAX : 0),
    };
    memcpy(numbers, all, sizeof all);
}

static void usage_set(struct hl_usage *usage, const uint64_t numbers[USAGE_NUMBERS])
{
    *usage = (struct hl_usage){
        .events = numbers[0],
        .errors = numbers[1],
        .calls = numbers[2],
        .tokens_in = numbers[3],
        .tokens_out = numbers[4],
        .reasoning_tokens = numbers[5],
        .cache_read_tokens = numbers[6],
        .cache_creation_tokens = numbers[7],
        .cost_usd_e6 = (int64_t)(numbers[8] >> 1 ^ (numbers[8] & 1 ? UINT64_MAX : 0)),
    };
}

/* ---- bytes ---- */

static uint8_t *put_varint(uint8_t *out, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *out++ = (uint8_t)(value | 0x80);
    *out++ = (uint8_t)value;
    return out;
}

static uint8_t *put_usage(uint8_t *out, const struct hl_usage *usage)
{
    uint64_t numbers[USAGE_NUMBERS];
    usage_numbers(usage, numbers);
    for (unsigned i = 0; i < USAGE_NUMBERS; i++)
        out = put_varint(out, numbers[i]);
    return out;
}

/* Names that no event counts for are left out: a batch that failed made them. */
static uint8_t *put_list(uint8_t *out, const struct sums_list *list)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < list->count; i++)
        count += list->at[i].usage.events > 0;
    out = put_varint(out, count);
    for (uint32_t i = 0; i < list->count; i++) {
        const struct sums_name *name = &list->at[i];
        if (name->usage.events == 0)
            continue;
        *out++ = name->len;
        memcpy(out, name->name, name->len);
        out = put_usage(out + name->len, &name->usage);
    }
    return out;
}

int sums_encode(const struct sums *sums, size_t room_behind, uint8_t **bytes, size_t *len)
{
    size_t names = sums->kinds.count + sums->tools.count;
    size_t room = (names + 1) * (1 + SUMS_NAME_MAX + USAGE_NUMBERS * VARINT_MAX) + 6 * VARINT_MAX;
    uint8_t *out = malloc(room + room_behind);
    if (!out)
        return -ENOMEM;
    *bytes = out;
    *out++ = SUMS_FORM;
    out = put_usage(out, &sums->total);
    out = put_varint(out, sums->first_ts_ms);
    out = put_varint(out, sums->last_ts_ms);
    out = put_varint(out, sums->position);
    out = put_list(out, &sums->kinds);
    out = put_list(out, &sums->tools);
    *len = (size_t)(out - *bytes);
    return 0;
}

struct reader {
    const uint8_t *at, *end;
    bool bad;
};

static uint64_t take_varint(struct reader *in)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && in->at < in->end; shift += 7) {
        uint8_t byte = *in->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return value;
    }
    in->bad = true;
    return 0;
}

static void take_usage(struct reader *in, struct hl_usage *usage)
{
    uint64_t numbers[USAGE_NUMBERS];
    for (unsigned i = 0; i < USAGE_NUMBERS; i++)
        numbers[i] = take_varint(in);
    usage_set(usage, numbers);
}

static int take_list(struct reader *in, struct sums_list *list)
{
    uint64_t count = take_varint(in);
    if (count > SUMS_ALL_TOOLS + 1)
        return -EBADMSG;
    for (uint64_t i = 0; i < count; i++) {
        size_t len = in->at < in->end ? *in->at++ : 0;
        if (len == 0 || len > SUMS_NAME_MAX || len > (size_t)(in->end - in->at))
            return -EBADMSG;
        int place = sums_list_place(list, UINT32_MAX, (const char *)in->at, len);
        if (place < 0)
            return place;
        if ((uint64_t)place != i)
            return -EBADMSG; /* twice */
        in->at += len;
        take_usage(in, &list->at[place].usage);
    }
    return 0;
}

int sums_decode(const uint8_t *bytes, size_t len, struct sums *sums)
{
    struct reader in = {.at = bytes, .end = bytes + len};
    if (len == 0 || *in.at++ != SUMS_FORM)
        return -EBADMSG;
    take_usage(&in, &sums->total);
    sums->first_ts_ms = take_varint(&in);
    sums->last_ts_ms = take_varint(&in);
    sums->position = take_varint(&in);
    int error = take_list(&in, &sums->kinds);
    if (error == 0)
        error = take_list(&in, &sums->tools);
    return error < 0 ? error : in.bad || in.at != in.end ? -EBADMSG : 0;
}

/* ---- text ----
 *
 * {"total":[…],"ts_ms":[first,last],"kinds":{"ToolCall":[…]},"tools":{"bash":[…]},"calls":["…"]}
 */

static char *text_usage(char *out, const struct hl_usage *usage)
{
    uint64_t numbers[USAGE_NUMBERS];
    usage_numbers(usage, numbers);
    *out++ = '[';
    for (unsigned i = 0; i + 1 < USAGE_NUMBERS; i++)
        out += sprintf(out, "%" PRIu64 ",", numbers[i]);
    return out + sprintf(out, "%" PRId64 "]", usage->cost_usd_e6);
}

static char *text_list(char *out, const char *name, const struct sums_list *list)
{
    bool any = false;
    out += sprintf(out, ",\"%s\":{", name);
    for (uint32_t i = 0; i < list->count; i++) {
        if (list->at[i].usage.events == 0)
            continue;
        if (any)
            *out++ = ',';
        any = true;
        out += json_escape(list->at[i].name, list->at[i].len, out);
        *out++ = ':';
        out = text_usage(out, &list->at[i].usage);
    }
    *out++ = '}';
    return out;
}

int sums_to_json(const struct sums *sums, char **text, size_t *len)
{
    const size_t number = 21, usage = USAGE_NUMBERS * number + 2;
    size_t names = sums->kinds.count + sums->tools.count;
    char *out = malloc((names + 1) * (JSON_ESCAPE_MAX((size_t)SUMS_NAME_MAX) + 2 + usage) +
                       sums->call_count * number + 256);
    if (!out)
        return -ENOMEM;
    *text = out;
    out += sprintf(out, "{\"total\":");
    out = text_usage(out, &sums->total);
    out +=
        sprintf(out, ",\"ts_ms\":[%" PRIu64 ",%" PRIu64 "]", sums->first_ts_ms, sums->last_ts_ms);
    out = text_list(out, "kinds", &sums->kinds);
    out = text_list(out, "tools", &sums->tools);
    out += sprintf(out, ",\"calls\":[");
    for (size_t i = 0; i < sums->call_count; i++)
        out += sprintf(out, "%s\"%016" PRIx64 "\"", i ? "," : "", sums->calls[i]);
    out += sprintf(out, "]}");
    *len = (size_t)(out - *text);
    return 0;
}

/* The numbers of an array as text_usage() writes it: exactly `count`, the last with a sign. */
static bool take_numbers(struct json_span value, uint64_t *numbers, unsigned count)
{
    const char *at = value.at + 1, *end = value.at + value.len;
    for (unsigned i = 0; i < count; i++) {
        const char *begin = at;
        while (at < end && *at != ',' && *at != ']')
            at++;
        struct json_span number = {begin, (size_t)(at - begin)};
        int64_t cost;
        if (at == end || *at++ != (i + 1 < count ? ',' : ']'))
            return false;
        if (i + 1 == USAGE_NUMBERS && count == USAGE_NUMBERS) {
            if (!json_to_i64(number, &cost))
                return false;
            numbers[i] = (uint64_t)cost << 1 ^ (cost < 0 ? UINT64_MAX : 0);
        } else if (!json_to_u64(number, UINT64_MAX, &numbers[i])) {
            return false;
        }
    }
    return at == end;
}

struct decoding {
    struct sums *sums;
    struct sums_list *list; /* that is being filled */
    unsigned seen;
    int error;
};

static bool decode_name(void *context, const struct json_member *member)
{
    struct decoding *decoding = context;
    uint64_t numbers[USAGE_NUMBERS];
    char name[SUMS_NAME_MAX];
    size_t len = json_unescape(member->key.at, member->key.len, name, sizeof name);
    decoding->error = -EBADMSG;
    if (len == SIZE_MAX || len == 0 || member->type != JSON_ARRAY ||
        !take_numbers(member->value, numbers, USAGE_NUMBERS) || decoding->list->count > SUMS_TOOLS)
        return false;
    int place = sums_list_place(decoding->list, UINT32_MAX, name, len);
    decoding->error = place < 0 ? place : 0;
    if (place >= 0)
        usage_set(&decoding->list->at[place].usage, numbers);
    return place >= 0;
}

static bool decode_list(struct decoding *decoding, struct sums_list *list,
                        const struct json_member *member)
{
    decoding->list = list;
    if (member->type != JSON_OBJECT)
        return false;
    return json_scan_object(member->value.at, member->value.len, decode_name, decoding, NULL) ==
           JSON_OK;
}

/* Each hash is 19 bytes of text: quotes, 16 digits, and what separates it from the next. */
static bool decode_calls(struct decoding *decoding, const struct json_member *member)
{
    const char *at = member->value.at + 1;
    size_t len = member->value.len - 1, count = len / 19;
    struct sums *sums = decoding->sums;
    if (member->type != JSON_ARRAY || (len != 1 && len % 19 != 0) || sums->calls)
        return false;
    sums->calls = calloc(count + 1, sizeof *sums->calls);
    if (!sums->calls) {
        decoding->error = -ENOMEM;
        return false;
    }
    sums->call_capacity = count + 1;
    for (size_t i = 0; i < count; i++, at += 19) {
        char digits[17], *end;
        memcpy(digits, at + 1, 16);
        digits[16] = 0;
        sums->calls[sums->call_count++] = strtoull(digits, &end, 16);
        if (at[0] != '"' || at[17] != '"' || *end != 0)
            return false;
    }
    return true;
}

static bool decode_member(void *context, const struct json_member *member)
{
    static const char *const names[] = {"total", "ts_ms", "kinds", "tools", "calls"};
    struct decoding *decoding = context;
    struct sums *sums = decoding->sums;
    uint64_t numbers[USAGE_NUMBERS];
    unsigned field = 0;
    bool good = true;
    while (field < 5 && (strlen(names[field]) != member->key.len ||
                         memcmp(names[field], member->key.at, member->key.len) != 0))
        field++;
    if (field < 5)
        decoding->seen |= 1U << field;
    if (field == 0) {
        good = member->type == JSON_ARRAY && take_numbers(member->value, numbers, USAGE_NUMBERS);
        if (good)
            usage_set(&sums->total, numbers);
    } else if (field == 1) {
        good = member->type == JSON_ARRAY && take_numbers(member->value, numbers, 2);
        sums->first_ts_ms = good ? numbers[0] : 0;
        sums->last_ts_ms = good ? numbers[1] : 0;
    } else if (field == 2 || field == 3) {
        good = decode_list(decoding, field == 2 ? &sums->kinds : &sums->tools, member);
    } else if (field == 4) {
        good = decode_calls(decoding, member);
    }
    if (!good && decoding->error == 0)
        decoding->error = -EBADMSG;
    return good;
}

int sums_from_json(const char *text, size_t len, struct sums *sums)
{
    struct decoding decoding = {.sums = sums};
    enum json_result result = json_scan_object(text, len, decode_member, &decoding, NULL);
    if (result == JSON_OK && decoding.seen == 0x1fU)
        return 0;
    return decoding.error == -ENOMEM ? -ENOMEM : -EBADMSG;
}
