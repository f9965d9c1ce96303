/* name.c - what can be the id of a session; the contract is in store.h. */
#include <string.h>

#include "json.h"
#include "store.h"

/* Bytes of the id written as a file name, where some bytes take three. ("." and ".." grow too, to
 * no harm.) */
static size_t name_len(const char *id, size_t len)
{
    size_t sum = 0;

    for (size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)id[i];
        sum += byte < 0x20 || byte == 0x7f || byte == '/' || byte == '%' ? 3 : 1;
    }
    return sum;
}

bool hl_session_id_valid(const char *id, size_t len)
{
    return len >= 1 && len <= HL_ID_MAX && !memchr(id, 0, len) && json_utf8_valid(id, len, NULL) &&
           name_len(id, len) <= HL_ID_MAX;
}
