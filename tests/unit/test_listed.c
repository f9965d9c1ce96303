/* test_listed.c - pieces of a directory that are listed before they are asked for. */
#include "support.h"

#include "../../fs/listed.h"

#define SIZE ((size_t)4096)

struct piece {
    struct listed_request request;
    const char *text;
    off_t next;
};

static void keep(struct listed *listed, const struct piece *piece)
{
    listed_keep(listed, &piece->request, piece->text, strlen(piece->text), piece->next);
}

static bool is_kept(struct listed *listed, const struct piece *piece)
{
    char buffer[SIZE];
    off_t next = -1;
    size_t len = listed_take(listed, &piece->request, buffer, &next);
    if (len == 0) {
        assert_int_equal(next, -1);
        return false;
    }
    assert_int_equal(len, strlen(piece->text));
    assert_memory_equal(buffer, piece->text, len);
    assert_int_equal(next, piece->next);
    return true;
}

/* One piece of a reader's is kept, the newest, and is given once, for what it was listed for. */
static void test_one_reader(void **state)
{
    struct listed *listed = listed_new();
    struct piece one = {{listed_reader(listed), 100, SIZE}, "one", 200}, two = one, other = one;
    (void)state;
    two.request.offset = 200;
    two.text = "two, which is longer";
    two.next = 300;
    assert_false(is_kept(listed, &one));
    keep(listed, &one);
    assert_true(is_kept(listed, &one));
    assert_false(is_kept(listed, &one));
    keep(listed, &one);
    keep(listed, &two);
    assert_true(is_kept(listed, &two));
    keep(listed, &two);
    assert_false(is_kept(listed, &one)); /* it went back: what was kept is of no use */
    assert_false(is_kept(listed, &two));
    keep(listed, &one);
    other.request.size = SIZE / 2;
    assert_false(is_kept(listed, &other));
    keep(listed, &one);
    other = one;
    other.request.reader = listed_reader(listed);
    assert_int_not_equal(other.request.reader, one.request.reader);
    assert_false(is_kept(listed, &other));
    assert_true(is_kept(listed, &one));
    keep(listed, &one);
    listed_forget(listed, other.request.reader);
    assert_true(is_kept(listed, &one));
    keep(listed, &one);
    listed_forget(listed, one.request.reader);
    assert_false(is_kept(listed, &one));
    listed_free(listed);
}

/* Of many readers, each has its own or none. */
static void test_many_readers(void **state)
{
    enum { READERS = 20 };
    struct listed *listed = listed_new();
    struct piece pieces[READERS];
    char texts[READERS][16];
    size_t kept = 0;
    (void)state;
    for (size_t i = 0; i < READERS; i++) {
        snprintf(texts[i], sizeof texts[i], "piece %zu", i);
        pieces[i] = (struct piece){{listed_reader(listed), 100, SIZE}, texts[i], (off_t)i + 200};
        keep(listed, &pieces[i]);
    }
    for (size_t i = 0; i < READERS; i++)
        kept += is_kept(listed, &pieces[i]);
    assert_true(kept > 1 && kept < READERS);
    listed_free(listed);
    listed_free(NULL);
}

/* None is given that is old. */
static void test_old_pieces(void **state)
{
    struct listed *listed = listed_new();
    struct piece piece = {{listed_reader(listed), 100, SIZE}, "one", 200};
    struct timespec wait = {.tv_nsec = 400000000};
    (void)state;
    do {
        keep(listed, &piece);
        nanosleep(&wait, NULL);
        wait.tv_sec++;
    } while (is_kept(listed, &piece));
    assert_true(wait.tv_sec <= 2);
    listed_free(listed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_reader),
        cmocka_unit_test(test_many_readers),
        cmocka_unit_test(test_old_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
