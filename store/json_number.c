/* json_number.c - integers of JSON, exactly or not at all; see json.h. */
#include "json.h"

bool json_to_u64(struct json_span value, uint64_t max, uint64_t *out)
{
    /* 20 digits are the most that a u64 has. */
    if (value.len == 0 || value.len > 20 || (value.len > 1 && value.at[0] == '0'))
        return false;
    uint64_t number = 0;
    for (size_t i = 0; i < value.len; i++) {
        unsigned digit = (unsigned)(unsigned char)value.at[i] - '0';
        if (digit > 9)
            return false;
        if (i == 19 && (number > UINT64_MAX / 10 || number * 10 > UINT64_MAX - digit))
            return false;
        number = number * 10 + digit;
    }
    if (number > max)
        return false;
    *out = number;
    return true;
}

bool json_to_i64(struct json_span value, int64_t *out)
{
    uint64_t number;
    bool negative = value.len > 0 && value.at[0] == '-';
    if (negative) {
        value.at++;
        value.len--;
    }
    const uint64_t most = (uint64_t)INT64_MAX + (negative ? 1 : 0);
    if (!json_to_u64(value, most, &number))
        return false;
    if (!negative)
        *out = (int64_t)number;
    else
        *out = number == most ? INT64_MIN : -(int64_t)number;
    return true;
}
