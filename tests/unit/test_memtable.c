/* test_memtable.c - the memtable against plain arrays. */
#include "support.h"

#include <inttypes.h>

#include "../../store/memtable.h"

#define SESSIONS 300
#define ENTRIES 700

struct model {
    bool there;
    uint32_t number;
    char id[16];
    uint64_t base_last, base_bytes, base_records;
    bool base_has;
    struct index_entry *entries;
    size_t count;
};

static uint64_t next_seq(uint64_t last, bool has, uint64_t *chance)
{
    static const uint64_t steps[] = {
        1, 1, 1, 1, 2, 100, UINT32_MAX, UINT64_C(1) << 32, UINT64_C(1) << 40};
    return has ? last + steps[t_below(chance, sizeof steps / sizeof steps[0])] : t_below(chance, 3);
}

static uint64_t model_last(const struct model *m, bool *has)
{
    *has = m->base_has || m->count > 0;
    return m->count ? m->entries[m->count - 1].seq : m->base_last;
}

static uint64_t model_bytes(const struct model *m, size_t count)
{
    uint64_t bytes = m->base_bytes;
    for (size_t i = 0; i < count; i++)
        bytes += m->entries[i].length;
    return bytes;
}

static struct mem_session *add(struct memtable *table, struct model *m, uint64_t *chance)
{
    struct index_row row = {.number = m->number, .id = m->id, .id_len = (uint16_t)strlen(m->id)};
    if (t_below(chance, 2)) {
        row.has_seq = m->base_has = true;
        row.last_seq = m->base_last = t_below(chance, 1000);
        row.bytes = m->base_bytes = 1 + t_below(chance, 100000);
        row.records = m->base_records = 1 + t_below(chance, 100);
    }
    m->there = true;
    struct mem_session *session = memtable_add_session(table, &row);
    assert_non_null(session);
    return session;
}

static void append(struct memtable *table, struct mem_session *session, struct model *m,
                   uint64_t *chance)
{
    bool has;
    uint64_t last = model_last(m, &has);
    struct index_entry entry = {
        .seq = next_seq(last, has, chance),
        .position = t_random(chance),
        .length = 1 + (uint32_t)t_below(chance, 500),
    };
    if (entry.seq > HL_SEQ_MAX || m->count == ENTRIES)
        return;
    assert_int_equal(memtable_append(table, session, &entry, 7), 0);
    m->entries[m->count++] = entry;
}

static void same_entry(const struct index_entry *a, const struct index_entry *b)
{
    assert_int_equal(a->seq, b->seq);
    assert_int_equal(a->position, b->position);
    assert_int_equal(a->length, b->length);
}

struct each {
    const struct model *m;
    size_t at;
};

static bool check_each(void *context, const struct index_entry *entry)
{
    struct each *each = context;
    if (each->at >= each->m->count)
        return false;
    same_entry(entry, &each->m->entries[each->at++]);
    return true;
}

static void check(const struct memtable *table, const struct model *m, uint64_t *chance)
{
    const struct mem_session *session = memtable_by_number(table, m->number);
    assert_ptr_equal(session, memtable_by_id(table, m->id, strlen(m->id)));
    if (!m->there) {
        assert_null(session);
        return;
    }
    bool has;
    uint64_t last = model_last(m, &has), begin, bytes = model_bytes(m, m->count);
    assert_int_equal(session->row.has_seq, has);
    if (has)
        assert_int_equal(session->row.last_seq, last);
    assert_int_equal(session->row.bytes, bytes);
    assert_int_equal(session->row.records, m->base_records + m->count);
    for (int i = 0; i < 6; i++) {
        struct index_entry entry;
        uint64_t seq = m->count && i % 2 ? m->entries[t_below(chance, m->count)].seq
                                         : t_below(chance, last + 5);
        if (i == 5)
            seq++;
        size_t k = 0;
        while (k < m->count && m->entries[k].seq < seq)
            k++;
        assert_int_equal(mem_session_covers_seq(session, seq), !m->base_has || seq > m->base_last);
        assert_int_equal(mem_session_find(session, seq, &entry, &begin), k < m->count);
        if (k < m->count) {
            same_entry(&entry, &m->entries[k]);
            assert_int_equal(begin, model_bytes(m, k));
        }
        struct each each = {.m = m, .at = k};
        mem_session_each_from(session, seq, check_each, &each);
        assert_int_equal(each.at, m->count);

        uint64_t offset = m->base_bytes + t_below(chance, bytes - m->base_bytes + 3);
        assert_true(mem_session_covers_offset(session, offset));
        if (m->base_bytes)
            assert_false(mem_session_covers_offset(session, m->base_bytes - 1));
        assert_int_equal(mem_session_find_offset(session, offset, &entry, &begin), offset < bytes);
        if (offset < bytes) {
            k = 0;
            while (model_bytes(m, k + 1) <= offset)
                k++;
            same_entry(&entry, &m->entries[k]);
            assert_int_equal(begin, model_bytes(m, k));
        }
    }
}

static void test_against_a_model(void **state)
{
    (void)state;
    uint64_t chance = t_seed("test_against_a_model");
    struct model *models = calloc(SESSIONS, sizeof *models);
    struct memtable *table = memtable_new();
    size_t empty = table->bytes;
    assert_non_null(models);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        models[i].number = 1 + i * (i % 3 ? 1 : 7919);
        snprintf(models[i].id, sizeof models[i].id, "id-%u", i);
        models[i].entries = calloc(ENTRIES, sizeof(struct index_entry));
        assert_non_null(models[i].entries);
    }
    for (unsigned step = 0; step < 3000; step++) {
        struct model *m = &models[t_below(&chance, step % 4 ? 5 : SESSIONS)];
        struct mem_session *session = memtable_by_number(table, m->number);
        if (!session)
            session = add(table, m, &chance);
        struct index_row before = session->row;
        size_t count = m->count;
        for (uint64_t n = t_below(&chance, 30); n > 0; n--)
            append(table, session, m, &chance);
        if (step % 5 == 4) { /* a batch that failed */
            memtable_take_back(table, session, &before);
            m->count = count;
        }
        if (step % 50 == 49) { /* a session made by a batch that failed */
            struct index_row row = {.number = 5000000, .id = "made", .id_len = 4};
            size_t bytes = table->bytes, buckets = table->buckets, room = table->session_capacity;
            assert_non_null(memtable_add_session(table, &row));
            memtable_drop(table, table->session_count - 1);
            assert_null(memtable_by_id(table, "made", 4));
            if (table->buckets == buckets && table->session_capacity == room)
                assert_int_equal(table->bytes, bytes);
        }
        check(table, m, &chance);
        check(table, &models[t_below(&chance, SESSIONS)], &chance);
    }
    uint64_t records = 0;
    for (uint32_t i = 0; i < SESSIONS; i++) {
        check(table, &models[i], &chance);
        records += models[i].count;
        free(models[i].entries);
    }
    assert_int_equal(table->records, records);
    assert_true(table->bytes > empty + records * sizeof(struct mem_entry));
    memtable_free(table);
    free(models);
}

static void test_numbers_made_meanwhile(void **state)
{
    (void)state;
    struct memtable *table = memtable_new();
    static const uint32_t numbers[] = {10, 12, 13, 20};
    assert_int_equal(memtable_next_created(table, 0), 0);
    for (size_t i = 0; i < 4; i++) {
        char id[8];
        int len = snprintf(id, sizeof id, "%u", numbers[i]);
        struct index_row row = {.number = numbers[i], .id = id, .id_len = (uint16_t)len};
        struct mem_session *session = memtable_add_session(table, &row);
        assert_non_null(session);
        session->hidden = numbers[i] == 12;
        memtable_note_created(table, numbers[i]);
    }
    assert_int_equal(memtable_next_created(table, 0), 10);
    assert_int_equal(memtable_next_created(table, 9), 10);
    assert_int_equal(memtable_next_created(table, 10), 13); /* 12 is hidden */
    assert_int_equal(memtable_next_created(table, 13), 20);
    assert_int_equal(memtable_next_created(table, 20), 0);
    assert_int_equal(memtable_next_created(table, UINT32_MAX), 0);
    memtable_free(table);
    memtable_free(NULL);
}

/* A log that somebody made up may have any numbers: there is no walk from one to the next. */
static void test_numbers_far_apart(void **state)
{
    (void)state;
    static const uint32_t numbers[] = {1, 2, UINT32_MAX - 1, UINT32_MAX};
    struct memtable *table = memtable_new();
    for (size_t i = 0; i < 4; i++) {
        char id[2] = {(char)('a' + i), 0};
        struct index_row row = {.number = numbers[i], .id = id, .id_len = 1};
        assert_non_null(memtable_add_session(table, &row));
        memtable_note_created(table, numbers[i]);
    }
    uint32_t at = 0;
    for (unsigned round = 0; round < 100; round++) {
        for (size_t i = 0; i < 4; i++) {
            at = memtable_next_created(table, i ? at : 0);
            assert_int_equal(at, numbers[i]);
        }
        assert_int_equal(memtable_next_created(table, at), 0);
    }
    memtable_free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_a_model),
        cmocka_unit_test(test_numbers_made_meanwhile),
        cmocka_unit_test(test_numbers_far_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
