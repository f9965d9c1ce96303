/* drop_frame.c - the bodies of drop frames; see drop.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "drop.h"
#include "json.h"

size_t drop_encode(const struct drop *drop, char body[DROP_BODY_MAX])
{
    int len = drop->kind == DROP_TRIM
                  ? snprintf(body, DROP_BODY_MAX,
                             "{\"drop\":\"trim\",\"below\":%" PRIu64 ",\"gone\":%" PRIu64 "}\n",
                             drop->below, drop->gone)
                  : snprintf(body, DROP_BODY_MAX, "{\"drop\":\"delete\"}\n");
    return (size_t)len;
}

struct decoding {
    struct drop *drop;
    bool kind, below, good;
};

static bool is(const struct json_span *span, const char *text)
{
    return span->len == strlen(text) && memcmp(span->at, text, span->len) == 0;
}

static bool decode_member(void *context, const struct json_member *member)
{
    struct decoding *decoding = context;
    struct drop *drop = decoding->drop;
    bool good = true;
    if (is(&member->key, "drop")) {
        decoding->kind = good = is(&member->value, "\"trim\"") || is(&member->value, "\"delete\"");
        drop->kind = is(&member->value, "\"trim\"") ? DROP_TRIM : DROP_DELETE;
    } else if (is(&member->key, "below")) {
        decoding->below = good = member->type == JSON_NUMBER &&
                                 json_to_u64(member->value, HL_SEQ_MAX + 1, &drop->below) &&
                                 drop->below > 0;
    } else if (is(&member->key, "gone")) {
        good = member->type == JSON_NUMBER && json_to_u64(member->value, UINT64_MAX, &drop->gone);
    }
    decoding->good = decoding->good && good;
    return good;
}

int drop_decode(const char *body, size_t len, struct drop *drop)
{
    struct decoding decoding = {.drop = drop, .good = true};
    *drop = (struct drop){.below = 0};
    if (json_scan_object(body, len, decode_member, &decoding, NULL) != JSON_OK || !decoding.good ||
        !decoding.kind || decoding.below != (drop->kind == DROP_TRIM))
        return -EBADMSG;
    return 0;
}
