/* name.c - what can be the id of a session; the contract is in store.h. */
#include <string.h>

#include "json.h"
#include "store.h"

bool hl_session_id_valid(const char *id, size_t len)
{
    return len >= 1 && len <= HL_ID_MAX && !memchr(id, 0, len) && json_utf8_valid(id, len, NULL);
}
