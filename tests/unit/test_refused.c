/* test_refused.c - which bytes are taken for a part of a refused line. */
#include "support.h"

#include "../../fs/refused.h"

struct world {
    struct fs fs;
    struct fs_options options;
    struct refused refused;
};

static void begin(struct world *world, uint64_t allowance)
{
    memset(world, 0, sizeof *world);
    world->options.pieces_max = allowance;
    world->fs.options = &world->options;
}

/* A line of which `begun` was taken before the write with `rest` was refused. */
static void refuse(struct world *world, const char *begun, const char *rest, bool again)
{
    const struct hl_error err = {.code = EINVAL, .line = 1, .text = "why"};
    refused_keep(&world->fs, &world->refused, begun, strlen(begun), rest, strlen(rest), again,
                 &err);
}

static void end(struct world *world)
{
    refused_forget(&world->fs, &world->refused);
    assert_false(world->refused.any);
    assert_int_equal(atomic_load(&world->fs.used[SHARE_REFUSED]), 0);
}

static bool has(const struct world *world, const char *text)
{
    return refused_has(&world->refused, text, strlen(text));
}

static bool again(const struct world *world, const char *text)
{
    return refused_is_again(&world->refused, text, strlen(text));
}

#define TEN "0123456789"
#define FIFTY TEN TEN TEN TEN TEN
#define HUNDRED "<" FIFTY FIFTY ">" /* with its marks, not periodic */

static void test_ended(void **state)
{
    struct world world;
    (void)state;
    begin(&world, 1000);
    assert_false(has(&world, "anything\n"));
    refuse(&world, "{\"a\":\"one two", " three\",\"kind\":5}\n", true);
    assert_true(again(&world, " three\",\"kind\":5}\n"));
    assert_false(again(&world, " three\"}\n"));
    assert_false(again(&world, " three\",\"kind\":5}\nnext\n"));
    assert_false(again(&world, " th"));
    assert_true(has(&world, "two three\",\"kind\":5}\n"));
    assert_true(has(&world, "}\n"));
    assert_false(has(&world, "three\n"));
    assert_false(has(&world, "two three\n"));
    assert_false(has(&world, "x}\n"));
    assert_false(has(&world, "{\"a\":\"one two three\",\"kind\":5}\n")); /* is refused by itself */
    assert_false(has(&world, "one two"));                                /* few bytes, no newline */
    end(&world);
}

static void test_not_ended(void **state)
{
    struct world world;
    (void)state;
    begin(&world, 10000);
    refuse(&world, "{\"a\":[", HUNDRED "]]", true);
    assert_true(again(&world, HUNDRED "]]"));
    assert_true(again(&world, HUNDRED "]],1]}\n"));
    assert_true(again(&world, HUNDRED));
    assert_false(again(&world, "<" TEN));
    assert_true(has(&world, TEN TEN FIFTY ">]]"));
    assert_false(has(&world, TEN ">]]")); /* may be chance */
    assert_true(has(&world, FIFTY TEN TEN ">]] and on\n"));
    assert_false(has(&world, FIFTY TEN TEN " and on\n"));
    assert_false(has(&world, TEN ">]] and on\n"));
    assert_true(has(&world, "never seen } \t\n")); /* the object's end is due */
    assert_false(has(&world, "never seen\n"));
    end(&world);

    begin(&world, 10000);
    refuse(&world, "text ", HUNDRED "\xff", true);
    assert_false(has(&world, "int main() { }\n"));
    assert_true(has(&world, TEN TEN FIFTY ">\xff\n"));
    end(&world);

    /* A write that may be taken later is not one that is refused again, and from its line's
     * beginning it is whole, even where each byte is like the next. */
    begin(&world, 10000);
    refuse(&world, "", FIFTY FIFTY, false);
    assert_false(again(&world, FIFTY FIFTY));
    assert_false(has(&world, FIFTY FIFTY TEN "\n"));
    assert_true(has(&world, FIFTY TEN TEN "\n"));
    end(&world);
}

static void test_pieces(void **state)
{
    struct world world;
    size_t len = 20000;
    char *line = malloc(len);
    (void)state;
    assert_non_null(line);
    for (size_t i = 0; i < len; i++)
        line[i] = (char)('a' + (i * i + i / 7) % 25);
    begin(&world, 1 << 20);
    line[0] = '{';
    const struct hl_error err = {.code = EINVAL, .line = 1};
    refused_keep(&world.fs, &world.refused, line, 100, line + 100, len - 100, true, &err);
    assert_true(refused_has_piece(&world.refused, line + 1, 0, 4096));
    assert_true(refused_has_piece(&world.refused, line + 1000, 4000, 9000));
    assert_false(refused_has_piece(&world.refused, line + 1, 0, 4095));
    assert_false(refused_has_piece(&world.refused, line, 0, 9000));
    line[5000] = '!';
    assert_false(refused_has_piece(&world.refused, line + 1, 0, 9000));
    free(line);
    end(&world);
}

/* What a part of a line that is refused again leaves is what was known before. */
static void test_kept_or_replaced(void **state)
{
    struct world world;
    (void)state;
    begin(&world, 1000);
    refuse(&world, "{\"a\":1,\"b\":", "2,\"kind\":5}\n", true);
    refuse(&world, "", "1,\"b\":2", true);
    assert_true(has(&world, "1,\"b\":2,\"kind\":5}\n"));
    refuse(&world, "other ", "line\n", true);
    assert_false(has(&world, "1,\"b\":2,\"kind\":5}\n"));
    assert_true(has(&world, "line\n"));
    assert_int_equal(atomic_load(&world.fs.used[SHARE_REFUSED]), strlen("other line\n"));
    end(&world);
}

/* Without room nothing is told apart, so that nothing wrong is stored. */
static void test_no_room(void **state)
{
    struct world world;
    (void)state;
    begin(&world, 20);
    refuse(&world, "{\"a\":", "1}x\n", true);
    refuse(&world, "{\"another\":", "\"that is longer\"]\n", true);
    assert_int_equal(atomic_load(&world.fs.used[SHARE_REFUSED]), 0);
    assert_true(has(&world, "whatever\n"));
    assert_false(again(&world, "\"that is longer\"]\n"));
    end(&world);
    begin(&world, 20);
    refuse(&world, "", "a write that may well be taken later", false);
    assert_false(world.refused.any);
    end(&world);
}

/* Against a look at each offset, on lines of so few letters that much is the same by chance. */
static void test_random(void **state)
{
    uint64_t chance = t_seed("test_random");
    size_t parts = 0, others = 0;
    (void)state;
    for (unsigned round = t_amount("ITERATIONS", 20000); round > 0; round--) {
        char line[400], text[400];
        size_t len = 70 + t_below(&chance, 300), text_len = 1 + t_below(&chance, 300);
        unsigned letters = 1 + (unsigned)t_below(&chance, 3);
        struct world world;
        const struct hl_error err = {.code = EINVAL, .line = 1};
        for (size_t i = 0; i < len; i++)
            line[i] = (char)('a' + t_below(&chance, letters));
        bool ended = t_below(&chance, 2) == 0;
        if (ended)
            line[len - 1] = '\n';
        size_t from = 1 + t_below(&chance, len - 2), offset = t_below(&chance, len);
        if (t_below(&chance, 2) == 0) { /* a part of it, perhaps with more behind it */
            size_t left = len - offset;
            memcpy(text, line + offset, left < text_len ? left : text_len);
            for (size_t i = left; i < text_len; i++)
                text[i] = (char)('a' + t_below(&chance, letters));
        } else {
            for (size_t i = 0; i < text_len; i++)
                text[i] = (char)('a' + t_below(&chance, letters));
        }
        for (size_t i = 0; i + 1 < text_len; i++)
            if (text[i] == '\n')
                text_len = i + 1;
        text[text_len - 1] = '\n';

        bool want = false, all = !ended && text_len >= len && memcmp(text, line, len) == 0;
        for (size_t at = 1; at < len; at++) {
            size_t both = len - at < text_len ? len - at : text_len;
            bool same = memcmp(line + at, text, both) == 0 && len - at == both;
            want |= same && (ended ? both == text_len : both >= 64 && !all);
        }
        begin(&world, 1 << 20);
        refused_keep(&world.fs, &world.refused, line, from, line + from, len - from, true, &err);
        if (refused_has(&world.refused, text, text_len) != want)
            fail_msg("%.*s|%.*s: not %d", (int)len, line, (int)text_len, text, want);
        parts += want;
        others += !want;
        end(&world);
    }
    assert_true(parts > 100 && others > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ended),   cmocka_unit_test(test_not_ended),
        cmocka_unit_test(test_pieces),  cmocka_unit_test(test_kept_or_replaced),
        cmocka_unit_test(test_no_room), cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
