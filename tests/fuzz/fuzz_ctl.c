/* fuzz_ctl.c - commands of .ctl with their words, and the options of a mount. */
#include "../../fs/ctl_commands.h"
#include "../../fs/options.h"
#include "../../store/json.h"
#include "fuzz.h"

bool crc_ignored;

static void take_command(const uint8_t *data, size_t size)
{
    static struct command command;
    char word[COMMAND_MAX + 1];
    struct hl_error err = {0};
    struct text members = {0}, result = {0};
    uint64_t number;
    memset(&command, 0, sizeof command); /* as ctl.c makes it */
    char *copy = fuzz_copy(data, size);
    int code = command_parse(copy, size, &command, &err);
    FUZZ_CHECK(strlen(command.text) <= COMMAND_MAX && command.arguments <= strlen(command.text));
    FUZZ_CHECK(code == 0 ? command.type != NULL : err.text[0] != '\0');
    const char *rest = command.text + command.arguments;
    for (unsigned words = 0; code == 0 && argument_next(&rest, word); words++) {
        FUZZ_CHECK(words <= COMMAND_MAX && word[0] != '\0' && rest <= command.text + COMMAND_MAX);
        if (argument_number(word, &number))
            FUZZ_CHECK(strspn(word, "0123456789") == strlen(word));
    }
    /* Whatever it was, its result is one line of JSON. */
    command_result(&command, code, &err, &members, &result);
    FUZZ_CHECK(!result.failed && result.len > 0 && result.at[result.len - 1] == '\n');
    FUZZ_CHECK(memchr(result.at, '\n', result.len - 1) == NULL);
    FUZZ_CHECK(json_scan_object(result.at, result.len, NULL, NULL, NULL) == JSON_OK);
    text_free(&result);
    free(copy);
}

static void take_options(const uint8_t *data, size_t size)
{
    struct arguments arguments;
    char *list = malloc(size + 1);
    FUZZ_CHECK(list);
    memcpy(list, data, size);
    list[size] = '\0';
    char program[] = "hotlogfs", dir[] = "d", mountpoint[] = "m", flag[] = "-o";
    char *words[] = {program, dir, mountpoint, flag, list, NULL};
    int result = arguments_parse(&arguments, 5, words);
    FUZZ_CHECK(result == 0 || arguments.error[0] != '\0');
    if (result == 0) {
        const struct fs_options *options = &arguments.options;
        FUZZ_CHECK(options->pieces_max >= options->max_record);
        FUZZ_CHECK(options->user_pieces_max >= options->max_record);
        FUZZ_CHECK(options->segment_size >= 65536 && options->announce_max <= 1000000);
    }
    arguments_free(&arguments);
    free(list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0 && data[0] == 'o')
        take_options(data + 1, size - 1);
    else if (size > 0)
        take_command(data + 1, size - 1);
    return 0;
}
