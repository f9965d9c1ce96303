/* test_draft.c - drafts: found by name, number and in order; their memory. And content.c below it.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../fs/draft.h"

#define SESSION 7U
#define PIECES_MAX 100000U
#define SCRATCH_MAX 200000U

static struct fs_options options = {.pieces_max = PIECES_MAX, .scratch_max = SCRATCH_MAX};

static int make_fs(void **state)
{
    struct fs *fs = calloc(1, sizeof *fs);
    assert_non_null(fs);
    fs->options = &options;
    fs->drafts = drafts_new();
    assert_non_null(fs->drafts);
    *state = fs;
    return 0;
}

static int free_fs(void **state)
{
    struct fs *fs = *state;
    drafts_free(fs);
    assert_int_equal(atomic_load(&fs->used[SHARE_PIECES]), 0);
    assert_int_equal(atomic_load(&fs->used[SHARE_SCRATCH]), 0);
    free(fs);
    return 0;
}

static struct draft *make(struct fs *fs, uint32_t session, enum draft_place place, const char *name)
{
    struct draft *draft = NULL;
    drafts_lock(fs, session);
    assert_int_equal(draft_new(fs, session, place, name, strlen(name), 0, &draft, NULL), 0);
    drafts_unlock(fs, session);
    return draft;
}

static struct draft *named(struct fs *fs, enum draft_place place, const char *name,
                           struct draft *last)
{
    return draft_next_named(fs, SESSION, place, name, strlen(name), last);
}

/* ---- finding ---- */

static void test_names(void **state)
{
    struct fs *fs = *state;
    struct draft *scratch = make(fs, SESSION, DRAFT_SCRATCH, "a");
    struct draft *one = make(fs, SESSION, DRAFT_DOCUMENT, "a");
    struct draft *two = make(fs, SESSION, DRAFT_DOCUMENT, "a");
    make(fs, SESSION + 1, DRAFT_SCRATCH, "a");
    make(fs, SESSION + 32, DRAFT_SCRATCH, "a"); /* of the same shard */
    make(fs, SESSION, DRAFT_DOCUMENT, "ab");
    assert_ptr_equal(named(fs, DRAFT_SCRATCH, "a", NULL), scratch);
    assert_null(named(fs, DRAFT_SCRATCH, "a", scratch));
    struct draft *first = named(fs, DRAFT_DOCUMENT, "a", NULL);
    struct draft *second = named(fs, DRAFT_DOCUMENT, "a", first);
    assert_true((first == one && second == two) || (first == two && second == one));
    assert_null(named(fs, DRAFT_DOCUMENT, "a", second));
    assert_null(named(fs, DRAFT_SCRATCH, "ab", NULL));
    draft_move(fs, scratch, DRAFT_SCRATCH, "b", 1);
    assert_null(named(fs, DRAFT_SCRATCH, "a", NULL));
    assert_ptr_equal(named(fs, DRAFT_SCRATCH, "b", NULL), scratch);
    assert_int_equal(drafts_scratch_files(fs->drafts), 3);
    one->handles = 1;
    draft_remove(fs, one, DRAFT_REMOVED); /* it lives on, without its name */
    assert_ptr_equal(named(fs, DRAFT_DOCUMENT, "a", NULL), two);
    assert_ptr_equal(draft_numbered(fs, SESSION, one->number), one);
    uint64_t number = two->number;
    draft_remove(fs, two, DRAFT_REMOVED);
    assert_null(draft_numbered(fs, SESSION, number));
    draft_remove(fs, scratch, DRAFT_REMOVED);
    assert_int_equal(drafts_scratch_files(fs->drafts), 2);
}

static void test_order(void **state)
{
    struct fs *fs = *state;
    struct draft *made[100];
    char name[16];
    uint64_t after = 0;
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, ".%d", i);
        make(fs, SESSION + 32, DRAFT_SCRATCH, name);
        made[i] = make(fs, SESSION, i % 5 ? DRAFT_SCRATCH : DRAFT_DOCUMENT, name);
    }
    for (int i = 0; i < 100; i += 3)
        draft_free(fs, made[i]);
    for (int i = 0; i < 100; i++) {
        if (i % 3 == 0 || i % 5 == 0)
            continue;
        struct draft *next = draft_next_scratch(fs, SESSION, after);
        assert_ptr_equal(next, made[i]);
        assert_true(next->number > after);
        after = next->number;
        if (i % 7 == 0) /* the last one told goes before the listing goes on */
            draft_free(fs, next);
    }
    assert_null(draft_next_scratch(fs, SESSION, after));
    assert_null(draft_next_scratch(fs, SESSION + 1, 0));
}

static pid_t thread_id(void)
{
    return (pid_t)syscall(SYS_gettid);
}

static void *find_from_thread(void *context)
{
    struct draft *draft = context;
    assert_true(same_process(thread_id(), draft->writer));
    return NULL;
}

static void test_who(void **state)
{
    struct fs *fs = *state;
    struct draft *draft = make(fs, SESSION, DRAFT_DOCUMENT, "k");
    pthread_t thread;
    draft_of_document(fs, draft, 5);
    draft->pending = draft->unborn = true;
    draft_note_write(fs, draft, thread_id());
    assert_ptr_equal(draft_unborn(fs, SESSION, "k", 1, thread_id()), draft);
    assert_ptr_equal(draft_pending_of(fs, SESSION, 5, thread_id()), draft);
    assert_null(draft_unborn(fs, SESSION, "k", 1, 1)); /* init is another */
    assert_null(draft_pending_of(fs, SESSION, 5, 1));
    assert_null(draft_pending_of(fs, SESSION, 6, thread_id()));
    assert_null(draft_unborn(fs, SESSION, "l", 1, thread_id()));
    assert_int_equal(pthread_create(&thread, NULL, find_from_thread, draft), 0);
    pthread_join(thread, NULL);
    struct draft *later = make(fs, SESSION, DRAFT_DOCUMENT, "k");
    draft_of_document(fs, later, 5);
    later->pending = true;
    draft_note_write(fs, later, thread_id());
    assert_ptr_equal(draft_pending_of(fs, SESSION, 5, thread_id()), later);
    later->pending = false;
    assert_ptr_equal(draft_pending_of(fs, SESSION, 5, thread_id()), draft);
    assert_true(same_process(0, 0)); /* out of sight: the best that can be told */
    assert_false(same_process(0, thread_id()));
    assert_false(same_process(1, thread_id()));
}

/* ---- memory ---- */

static void test_content(void **state)
{
    struct fs *fs = *state;
    struct content content = {.kind = CONTENT_VALUE};
    struct hl_error err = {0};
    char out[64];
    assert_int_equal(content_write(fs, &content, 3, "abc", 3, &err), 0);
    assert_int_equal(content.len, 6);
    assert_int_equal(content_read(&content, out, sizeof out, 0), 6);
    assert_memory_equal(out, "\0\0\0abc", 6);
    assert_int_equal(content_read(&content, out, 2, 4), 2);
    assert_memory_equal(out, "bc", 2);
    assert_int_equal(content_read(&content, out, 2, 6), 0);
    assert_int_equal(content_read(&content, out, 2, UINT64_MAX), 0);
    assert_int_equal(content_resize(fs, &content, 4, &err), 0);
    assert_int_equal(content_resize(fs, &content, 6, &err), 0);
    assert_int_equal(content_read(&content, out, sizeof out, 0), 6);
    assert_memory_equal(out, "\0\0\0a\0\0", 6);
    char *at = content_grow(fs, &content, 2, &err);
    assert_non_null(at);
    memcpy(at, "yz", 2);
    assert_int_equal(content.len, 8);
    assert_int_equal(content_write(fs, &content, UINT64_MAX, "x", 1, &err), -EFBIG);
    assert_int_equal(content_resize(fs, &content, UINT64_MAX, &err), -EFBIG);
    assert_int_equal(content_resize(fs, &content, 0, &err), 0);
    assert_int_equal(atomic_load(&fs->used[SHARE_PIECES]), 0);
}

static void test_bounds(void **state)
{
    struct fs *fs = *state;
    struct content value = {.kind = CONTENT_VALUE}, scratch = {.kind = CONTENT_SCRATCH};
    struct hl_error err = {0};
    assert_int_equal(content_resize(fs, &value, PIECES_MAX + 1, &err), -ENOBUFS);
    assert_int_equal(content_resize(fs, &scratch, SCRATCH_MAX + 1, &err), -ENOSPC);
    assert_string_not_equal(err.text, "");
    assert_int_equal(content_resize(fs, &value, PIECES_MAX, &err), 0);
    assert_int_equal(content_write(fs, &value, PIECES_MAX, "x", 1, &err), -ENOBUFS);
    assert_int_equal(value.len, PIECES_MAX);
    assert_int_equal(content_resize(fs, &scratch, SCRATCH_MAX, &err), 0);
    /* From one allowance to the other, if it has room. */
    assert_int_equal(content_turn(fs, &value, CONTENT_SCRATCH, &err), -ENOSPC);
    assert_int_equal(value.kind, CONTENT_VALUE);
    content_free(fs, &scratch);
    assert_int_equal(content_turn(fs, &value, CONTENT_SCRATCH, &err), 0);
    assert_int_equal(atomic_load(&fs->used[SHARE_PIECES]), 0);
    assert_int_equal(atomic_load(&fs->used[SHARE_SCRATCH]), PIECES_MAX);
    content_free(fs, &value);
    assert_int_equal(atomic_load(&fs->used[SHARE_SCRATCH]), 0);
}

static void test_scratch_counts(void **state)
{
    struct fs *fs = *state;
    struct draft *draft = NULL;
    struct hl_error err = {0};
    char name[16];
    size_t made = 0;
    int result = 0;
    while (result == 0) {
        snprintf(name, sizeof name, ".%zu", made);
        result = draft_new(fs, SESSION, DRAFT_SCRATCH, name, strlen(name), 0, &draft, &err);
        made += result == 0;
    }
    assert_int_equal(result, -ENOSPC);
    assert_in_range(made, 10, SCRATCH_MAX / 100);
    /* One that becomes a document's draft makes room for no other until it is gone. */
    draft = draft_next_scratch(fs, SESSION, 0);
    assert_int_equal(draft_prepare(fs, draft, DRAFT_DOCUMENT, &err), 0);
    draft_move(fs, draft, DRAFT_DOCUMENT, "k", 1);
    assert_int_equal(drafts_scratch_files(fs->drafts), made - 1);
    struct draft *document = make(fs, SESSION, DRAFT_DOCUMENT, "k");
    assert_int_equal(draft_prepare(fs, document, DRAFT_SCRATCH, &err), -ENOSPC);
    draft_free(fs, draft);
    assert_int_equal(draft_prepare(fs, document, DRAFT_SCRATCH, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_names, make_fs, free_fs),
        cmocka_unit_test_setup_teardown(test_order, make_fs, free_fs),
        cmocka_unit_test_setup_teardown(test_who, make_fs, free_fs),
        cmocka_unit_test_setup_teardown(test_content, make_fs, free_fs),
        cmocka_unit_test_setup_teardown(test_bounds, make_fs, free_fs),
        cmocka_unit_test_setup_teardown(test_scratch_counts, make_fs, free_fs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
