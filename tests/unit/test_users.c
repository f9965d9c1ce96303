/* test_users.c - what users take of all there is: nobody more than his part, and all comes back. */
#include "support.h"

#include "../../fs/draft.h"
#include "../../fs/piece.h"
#include "../../fs/refused.h"

#define ALL 10000U
#define HIS 6000U

static struct fs_options options = {.allow_other = true,
                                    .pieces_max = ALL,
                                    .scratch_max = ALL,
                                    .user_pieces_max = HIS,
                                    .user_scratch_max = HIS,
                                    .user_files_max = 3};
static const struct handle_type no_type = {.read = NULL};

static int make_fs(void **state)
{
    struct fs *fs = calloc(1, sizeof *fs);
    assert_non_null(fs);
    fs->options = &options;
    fs->users = users_new();
    assert_non_null(fs->users);
    *state = fs;
    return 0;
}

static int free_fs(void **state)
{
    struct fs *fs = *state;
    for (int share = 0; share < SHARES; share++)
        assert_int_equal(atomic_load(&fs->used[share]), 0);
    users_free(fs->users);
    free(fs);
    return 0;
}

static void test_one_and_all(void **state)
{
    struct fs *fs = *state;
    struct user *one = user_enter(fs, 1), *other = user_enter(fs, 2);
    struct hl_error err = {0};

    assert_ptr_equal(user_enter(fs, 1), one);
    assert_ptr_not_equal(one, other);
    assert_int_equal(share_take(fs, one, SHARE_PIECES, HIS), TAKEN);
    assert_int_equal(share_take(fs, one, SHARE_PIECES, 1), OVER_USER);
    assert_int_equal(share_take(fs, one, SHARE_REFUSED, HIS), TAKEN); /* a share of its own */
    assert_int_equal(share_take(fs, other, SHARE_PIECES, ALL - HIS + 1), OVER_ALL);
    assert_int_equal(share_take(fs, other, SHARE_PIECES, ALL - HIS), TAKEN);
    assert_int_equal(share_take(fs, NULL, SHARE_PIECES, 1), OVER_ALL);
    share_give(fs, one, SHARE_PIECES, HIS);
    assert_int_equal(share_take(fs, other, SHARE_PIECES, HIS - (ALL - HIS)), TAKEN);
    assert_int_equal(share_take(fs, other, SHARE_PIECES, SIZE_MAX), OVER_USER);
    share_give(fs, other, SHARE_PIECES, HIS);
    share_give(fs, one, SHARE_REFUSED, HIS);
    assert_int_equal(share_refuse(fs, one, SHARE_PIECES, OVER_USER, "x", &err), -ENOBUFS);
    assert_string_equal(err.text, "x of user 1 would take more than user_pieces_max (6000 bytes)");
    assert_int_equal(share_refuse(fs, one, SHARE_SCRATCH, OVER_ALL, "x", &err), -ENOSPC);
    assert_string_equal(err.text, "x would take more than scratch_max (10000 bytes)");
    user_leave(fs, one);
    user_leave(fs, one);
    user_leave(fs, other);
    user_leave(fs, NULL);
}

static void test_files(void **state)
{
    struct fs *fs = *state;
    struct handle *his[3], *more;

    for (int i = 0; i < 3; i++)
        assert_int_equal(handle_new(fs, sizeof **his, &no_type, 5, &his[i]), 0);
    assert_int_equal(handle_new(fs, sizeof *more, &no_type, 5, &more), -EMFILE);
    assert_int_equal(handle_new(fs, sizeof *more, &no_type, 69, &more), 0); /* of the same chain */
    handle_free(fs, more);
    handle_free(fs, his[1]);
    assert_int_equal(handle_new(fs, sizeof *more, &no_type, 5, &his[1]), 0);
    for (int i = 0; i < 3; i++)
        handle_free(fs, his[i]);
}

static void test_alone(void **state)
{
    struct fs *fs = *state;
    struct user *one = user_enter(fs, 1);

    options.allow_other = false; /* the mount is his: only what is for all holds */
    assert_int_equal(share_take(fs, one, SHARE_PIECES, ALL), TAKEN);
    assert_int_equal(share_take(fs, one, SHARE_PIECES, 1), OVER_ALL);
    assert_int_equal(share_take(fs, one, SHARE_FILES, 100), TAKEN);
    share_give(fs, one, SHARE_PIECES, ALL);
    share_give(fs, one, SHARE_FILES, 100);
    options.allow_other = true;
    user_leave(fs, one);
}

/* What one refused does not make the lines of another suspect. */
static void test_refused(void **state)
{
    struct fs *fs = *state;
    const struct hl_error err = {.code = EINVAL, .line = 1, .text = "why"};
    struct refused his = {.user = user_enter(fs, 1)}, another = {.user = user_enter(fs, 2)};
    char *line = calloc(1, HIS + 1);

    assert_non_null(line);
    memset(line, 'x', HIS);
    refused_keep(fs, &his, line, 1, line, HIS, true, &err);
    assert_true(his.any && his.unknown);
    refused_keep(fs, &his, line, 1, line, HIS - 1, true, &err);
    assert_true(his.any && !his.unknown);
    refused_keep(fs, &another, line, 1, line, 3000, true, &err);
    assert_true(another.any && !another.unknown);
    refused_forget(fs, &his);
    refused_forget(fs, &another);
    assert_non_null(his.user);
    user_leave(fs, his.user);
    user_leave(fs, another.user);
    free(line);
}

/* A scratch file counts for its maker, also when another writes to it. */
static void test_scratch(void **state)
{
    struct fs *fs = *state;
    struct hl_error err = {0};
    struct draft *draft;

    fs->drafts = drafts_new();
    assert_non_null(fs->drafts);
    drafts_lock(fs, 1);
    assert_int_equal(draft_new(fs, 1, DRAFT_SCRATCH, "a", 1, 3, &draft, &err), 0);
    char *text = calloc(1, HIS);
    assert_non_null(text);
    assert_int_equal(content_write(fs, &draft->content, 0, text, HIS, &err), -ENOSPC);
    assert_non_null(strstr(err.text, "of user 3 would take more than user_scratch_max"));
    assert_int_equal(content_write(fs, &draft->content, 0, text, 3000, &err), 0);
    struct user *three = user_enter(fs, 3);
    assert_true(atomic_load(&three->used[SHARE_SCRATCH]) > 3000);
    assert_int_equal(content_turn(fs, &draft->content, CONTENT_VALUE, &err), 0);
    assert_int_equal(atomic_load(&three->used[SHARE_PIECES]), draft->content.capacity);
    user_leave(fs, three);
    drafts_unlock(fs, 1);
    drafts_free(fs);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_and_all, make_fs, free_fs),
        cmocka_unit_test_setup_teardown(test_files, make_fs, free_fs),
        cmocka_unit_test_setup_teardown(test_alone, make_fs, free_fs),
        cmocka_unit_test_setup_teardown(test_refused, make_fs, free_fs),
        cmocka_unit_test_setup_teardown(test_scratch, make_fs, free_fs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
