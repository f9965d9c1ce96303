/* test_placed.c - finding a record of a batch by its seq, in how many steps. */
#include "support.h"

#include "../../store/placed.h"

#define SESSIONS 3

static struct index_entry entry_of(uint64_t seq)
{
    return (struct index_entry){.seq = seq, .position = seq * 10, .length = 1};
}

/* Steps that a search takes. */
static size_t steps(const struct placed_list *list, const struct mem_session *session, uint64_t seq)
{
    size_t count = 0;
    uint32_t link = session->newest_placed;
    while (link != 0 && list->at[link - 1].entry.seq > seq) {
        link = placed_step(list, link, seq);
        count++;
    }
    return count;
}

static void test_steps(void **state)
{
    static struct mem_session sessions[SESSIONS];
    const size_t count = 1 << 20;
    struct placed_list list = {0};
    uint64_t chance = t_seed("test_steps"), last[SESSIONS] = {0};
    size_t worst = 0;
    (void)state;
    memset(sessions, 0, sizeof sessions);
    uint64_t *seqs = malloc(count * sizeof *seqs);
    assert_non_null(seqs);
    for (size_t i = 0; i < count; i++) {
        size_t which = t_below(&chance, 100) % SESSIONS;
        last[which] += 1 + t_below(&chance, 3);
        struct index_entry entry = entry_of(last[which]);
        assert_int_equal(placed_add(&list, &sessions[which], &entry), 0);
        seqs[i] = last[which];
    }
    for (size_t i = 0; i < count; i++) {
        const struct mem_session *session = list.at[i].session;
        const struct index_entry *found = placed_find(&list, session, seqs[i]);
        assert_ptr_equal(found, &list.at[i].entry);
        size_t taken = steps(&list, session, seqs[i]);
        worst = taken > worst ? taken : worst;
    }
    /* A search goes up to three steps for each doubling of their number. */
    if (worst > 3 * 20)
        fail_msg("%zu steps to one of %zu records", worst, count);
    for (size_t which = 0; which < SESSIONS; which++) {
        assert_null(placed_find(&list, &sessions[which], 0));
        assert_null(placed_find(&list, &sessions[which], last[which] + 1));
    }
    free(seqs);
    free(list.at);
}

/* Every seq, there or not, in lists of every small length. */
static void test_each(void **state)
{
    (void)state;
    for (uint64_t count = 0; count <= 130; count++) {
        struct mem_session session = {0}, other = {0};
        struct placed_list list = {0};
        for (uint64_t i = 1; i <= count; i++) {
            struct index_entry entry = entry_of(i * 2), another = entry_of(i);
            assert_int_equal(placed_add(&list, &session, &entry), 0);
            assert_int_equal(placed_add(&list, &other, &another), 0);
        }
        for (uint64_t seq = 0; seq <= count * 2 + 2; seq++) {
            const struct index_entry *found = placed_find(&list, &session, seq);
            bool there = seq % 2 == 0 && seq > 0 && seq <= count * 2;
            assert_int_equal(found != NULL, there);
            assert_true(!there || (found->seq == seq && found->position == seq * 10));
        }
        free(list.at);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
