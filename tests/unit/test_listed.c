/* test_listed.c - pieces of a directory that are listed before they are asked for. */
#include "support.h"

#include "../../fs/listed.h"

#define SIZE ((size_t)4096)

struct piece {
    struct listed_request request;
    const char *text;
    off_t next;
};

static void keep(struct listed *listed, uint64_t number, const struct piece *piece)
{
    listed_keep(listed, number, piece->text, strlen(piece->text), piece->next);
}

/* Whether there was room for it. */
static bool list_ahead(struct listed *listed, const struct piece *piece)
{
    uint64_t number = listed_begin(listed, &piece->request);
    if (number != 0)
        keep(listed, number, piece);
    return number != 0;
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

static void assert_listed(struct listed *listed, const struct piece *piece)
{
    assert_true(list_ahead(listed, piece));
    assert_true(is_kept(listed, piece));
}

static struct piece piece_of(struct listed *listed)
{
    return (struct piece){{listed_reader(listed), 100, SIZE}, "one", 200};
}

/* A reader's piece is given once, for just what it was listed for. */
static void test_one_reader(void **state)
{
    struct listed *listed = listed_new();
    struct piece one = piece_of(listed), other = one;
    (void)state;
    assert_false(is_kept(listed, &one));
    assert_listed(listed, &one);
    assert_false(is_kept(listed, &one));
    other.text = "another, which is longer";
    other.next = 0; /* it is the last one */
    assert_true(list_ahead(listed, &one));
    assert_listed(listed, &other);
    other.request.offset = 200;
    assert_true(list_ahead(listed, &one));
    assert_false(is_kept(listed, &other));
    assert_false(is_kept(listed, &one)); /* it went elsewhere: what was kept is of no use */
    assert_listed(listed, &one);
    other = one;
    other.request.size = SIZE / 2;
    assert_true(list_ahead(listed, &one));
    assert_false(is_kept(listed, &other));
    assert_listed(listed, &one);
    other = piece_of(listed);
    assert_int_not_equal(other.request.reader, one.request.reader);
    assert_true(list_ahead(listed, &one));
    assert_false(is_kept(listed, &other));
    listed_forget(listed, other.request.reader);
    assert_true(is_kept(listed, &one));
    assert_true(list_ahead(listed, &one));
    listed_forget(listed, one.request.reader);
    assert_false(is_kept(listed, &one));
    listed_free(listed);
    listed_free(NULL);
}

/* What comes too late is not kept: when it was asked for something meanwhile, or has begun another
 * piece, or is gone. */
static void test_late(void **state)
{
    struct listed *listed = listed_new();
    struct piece one = piece_of(listed);
    (void)state;
    uint64_t number = listed_begin(listed, &one.request);
    assert_false(is_kept(listed, &one));
    keep(listed, number, &one);
    assert_false(is_kept(listed, &one));
    assert_listed(listed, &one);
    number = listed_begin(listed, &one.request);
    uint64_t again = listed_begin(listed, &one.request);
    keep(listed, again, &one);
    struct piece wrong = one;
    wrong.text = "wrong";
    keep(listed, number, &wrong);
    assert_true(is_kept(listed, &one));
    keep(listed, again, &wrong);
    assert_false(is_kept(listed, &one));
    number = listed_begin(listed, &one.request);
    listed_forget(listed, one.request.reader);
    keep(listed, number, &one);
    assert_false(is_kept(listed, &one));
    struct piece nothing = one;
    nothing.text = "";
    assert_true(list_ahead(listed, &nothing)); /* it failed, or was the end */
    assert_false(is_kept(listed, &one));
    listed_free(listed);
}

/* Who does not ask for what was listed, twice in a row, is left alone. */
static void test_in_vain(void **state)
{
    struct listed *listed = listed_new();
    struct piece one = piece_of(listed), other = one;
    (void)state;
    other.request.offset++;
    for (unsigned i = 0; i < 3; i++) {
        assert_true(list_ahead(listed, &one));
        assert_false(is_kept(listed, &other));
        assert_false(is_kept(listed, &other)); /* nothing was kept: this does not count */
        assert_listed(listed, &one);
    }
    assert_true(list_ahead(listed, &one));
    listed_miss(listed, one.request.reader);
    assert_false(is_kept(listed, &one));
    assert_true(list_ahead(listed, &one));
    listed_miss(listed, one.request.reader);
    assert_false(list_ahead(listed, &one));
    assert_false(is_kept(listed, &one));
    other = piece_of(listed);
    assert_listed(listed, &other);
    one.request = (struct listed_request){listed_reader(listed), 100, SIZE << 10};
    assert_false(list_ahead(listed, &one)); /* it is too long to be kept */
    listed_free(listed);
}

/* Some of many readers have their piece, the others none; a place is free when its reader goes. */
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
        kept += list_ahead(listed, &pieces[i]);
    }
    assert_true(kept > 1 && kept < READERS);
    for (size_t i = 0; i < READERS; i++)
        assert_int_equal(is_kept(listed, &pieces[i]), i < kept);
    assert_false(list_ahead(listed, &pieces[kept]));
    listed_forget(listed, pieces[0].request.reader);
    assert_listed(listed, &pieces[kept]);
    listed_free(listed);
}

/* None is given that is old, and its place may be another reader's. */
static void test_old_pieces(void **state)
{
    enum { READERS = 20 };
    struct listed *listed = listed_new();
    struct piece piece = piece_of(listed);
    struct timespec wait = {.tv_nsec = 400000000};
    (void)state;
    do {
        for (size_t i = 0; i < READERS; i++) {
            struct piece other = piece_of(listed);
            listed_begin(listed, i == 0 ? &piece.request : &other.request);
        }
        assert_true(list_ahead(listed, &piece));
        nanosleep(&wait, NULL);
        wait.tv_sec++;
    } while (is_kept(listed, &piece) && wait.tv_sec < 3);
    assert_true(wait.tv_sec < 3);
    piece = piece_of(listed);
    assert_listed(listed, &piece);
    listed_free(listed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_reader), cmocka_unit_test(test_late),
        cmocka_unit_test(test_in_vain),    cmocka_unit_test(test_many_readers),
        cmocka_unit_test(test_old_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
