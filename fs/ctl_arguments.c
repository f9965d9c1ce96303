/*
 * ctl_arguments.c - the words behind a command.
 */
#include <errno.h>
#include <string.h>

#include "ctl_commands.h"

bool argument_next(const char **arguments, char word[COMMAND_MAX + 1])
{
    const char *begin = *arguments + strspn(*arguments, " \t");
    size_t len = strcspn(begin, " \t");

    memcpy(word, begin, len);
    word[len] = '\0';
    *arguments = begin + len;
    return len > 0;
}

bool argument_number(const char *word, uint64_t *number)
{
    uint64_t value = 0;

    if (*word == '\0')
        return false;
    for (; *word; word++) {
        unsigned digit = (unsigned char)*word - (unsigned)'0';
        if (digit > 9 || value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *number = value;
    return true;
}

static int hex_value(char digit)
{
    const char *digits = "0123456789abcdef0123456789ABCDEF";
    const char *found = digit ? strchr(digits, digit) : NULL;

    return found ? (int)((found - digits) & 15) : -1;
}

/* Writes what the word stands for; SIZE_MAX: a % has no two digits behind it, or it is too long. */
static size_t decode(const char *word, char id[HL_ID_MAX])
{
    size_t len = 0;

    for (; *word; word++) {
        char byte = *word;
        if (byte == '%') {
            int high = hex_value(word[1]);
            int low = high < 0 ? -1 : hex_value(word[2]);
            if (low < 0)
                return SIZE_MAX;
            byte = (char)(high << 4 | low);
            word += 2;
        }
        if (len == HL_ID_MAX)
            return SIZE_MAX;
        id[len++] = byte;
    }
    return len;
}

int argument_erasing(struct fs *fs, const char *word, struct hl_session *session)
{
    char id[HL_ID_MAX];
    struct hl_erasing erasing = {.number = 0};
    size_t len = decode(word, id);

    while (len != SIZE_MAX && hl_erasing_next(fs->store, erasing.number, &erasing) == 0) {
        if (erasing.id_len == len && memcmp(erasing.id, id, len) == 0) {
            *session = (struct hl_session){.number = erasing.number};
            return 0;
        }
    }
    return -ENOENT;
}

int argument_session(struct fs *fs, const char *word, struct hl_session *session,
                     struct hl_error *err)
{
    char id[HL_ID_MAX];
    size_t len = decode(word, id);

    if (len == SIZE_MAX || !hl_session_id_valid(id, len))
        return hl_fail(err, EINVAL, "`%.100s` cannot be the name of a session", word);
    int result = hl_session_by_id(fs->store, id, len, session);
    if (result == -ENOENT)
        return hl_fail(err, ENOENT, "there is no session `%.100s`", word);
    if (result < 0)
        return hl_fail(err, -result, "cannot look the session `%.100s` up: %s", word,
                       strerror(-result));
    return 0;
}
