/*
 * test_index_edit.c - entries dropped from the index and moved in it, sessions removed: against the
 * model, and with the check after each.
 */
#include "index_model.h"

/* ---- edits of the model ---- */

enum { DROP_EVENTS, DROP_ALL, DROP_SOME, MOVE_ALL, MIX, KEEP_ALL, WAYS };

struct edit {
    int way;
    uint64_t salt;
};

static enum index_verdict judge(void *context, struct index_entry *entry)
{
    const struct edit *edit = context;
    uint64_t hash = (entry->seq ^ edit->salt) * UINT64_C(0x9e3779b97f4a7c15) >> 32;
    int way = edit->way == MIX ? (int)(hash % 3 ? MOVE_ALL : DROP_ALL) : edit->way;
    switch (way) {
    case DROP_EVENTS:
        return entry->operation ? INDEX_KEEP : INDEX_DROP;
    case DROP_ALL:
        return INDEX_DROP;
    case DROP_SOME:
        return hash % 2 ? INDEX_KEEP : INDEX_DROP;
    case MOVE_ALL:
        entry->position ^= edit->salt;
        return INDEX_MOVE;
    default:
        return INDEX_KEEP;
    }
}

/* Does it to the entries that the index has; returns what it comes to. */
static struct index_edited model_edit(struct model_session *session, uint64_t from, uint64_t to,
                                      struct edit *edit)
{
    struct index_edited edited = {0};
    struct index_row *row = &session->row;
    size_t kept = 0;
    for (size_t i = 0; i < session->count; i++) {
        struct index_entry entry = session->entries[i], asked = entry;
        enum index_verdict verdict = INDEX_KEEP;
        if (i < session->stored && entry.seq >= from && entry.seq <= to)
            verdict = judge(edit, &asked);
        if (verdict == INDEX_DROP) {
            edited.records++;
            edited.bytes += entry.length;
            edited.operations += entry.operation;
            continue;
        }
        if (verdict == INDEX_MOVE) {
            entry.position = asked.position;
            edited.moved++;
        }
        session->entries[kept] = entry;
        session->begins[kept + 1] = session->begins[kept] + entry.length;
        kept++;
    }
    session->stored -= edited.records;
    session->count = kept;
    row->records -= edited.records;
    row->bytes -= edited.bytes;
    row->gone += edited.bytes;
    row->documents.operations -= edited.operations;
    row->first_seq = kept > 0 ? session->entries[0].seq : 0;
    return edited;
}

/* The same edit of both, in as many transactions as it takes. */
static void edit_both(struct index *index, struct model_session *session, uint64_t from,
                      uint64_t to, struct edit *edit)
{
    struct index_edited wanted = model_edit(session, from, to, edit), all = {.more = true};
    uint64_t next = from;
    while (all.more) {
        struct index_txn *txn;
        struct index_edited edited = {0};
        assert_int_equal(index_begin(index, &txn), 0);
        assert_int_equal(index_edit(txn, session->row.number, next, to, judge, edit, &edited), 0);
        assert_int_equal(index_commit(txn), 0);
        assert_true(!edited.more || edited.next > next);
        next = edited.next;
        all.records += edited.records;
        all.bytes += edited.bytes;
        all.operations += edited.operations;
        all.moved += edited.moved;
        all.more = edited.more;
    }
    assert_int_equal(all.records, wanted.records);
    assert_int_equal(all.bytes, wanted.bytes);
    assert_int_equal(all.operations, wanted.operations);
    assert_int_equal(all.moved, wanted.moved);
}

static uint64_t epoch_of(struct index *index)
{
    struct index_view *view;
    struct index_meta meta;
    assert_int_equal(index_view_begin(index, &view), 0);
    assert_int_equal(index_get_meta(view, &meta), 0);
    index_view_end(view);
    return meta.epoch;
}

/* A range of seqs: of all, of what is below one, of two neighbours, whatever chance gives. */
static void choose_range(const struct model_session *session, uint64_t *chance, uint64_t *from,
                         uint64_t *to)
{
    *from = 0;
    *to = HL_SEQ_MAX;
    if (session->count == 0 || model_below(chance, 8) == 0)
        return;
    size_t a = (size_t)model_below(chance, session->count);
    size_t b = (size_t)model_below(chance, session->count);
    if (model_below(chance, 2))
        *from = session->entries[a < b ? a : b].seq + model_below(chance, 2);
    *to = session->entries[a < b ? b : a].seq + model_below(chance, 2);
}

static void test_model(void **state)
{
    (void)state;
    uint64_t chance = model_seed("test_model");
    struct model_dir dir;
    model_dir_make(&dir);
    struct model model = {.count = 0};
    struct index *index = model_open(&dir, INDEX_CREATE | INDEX_BUILD);
    for (unsigned round = 0; round < (t_slow() ? 15 : 40); round++) {
        model_grow(&model, &chance, round < 8 ? 1 : 0, 1U << model_below(&chance, 12));
        model_commit(&model, index);
        for (size_t i = 0; i < model.count; i++) {
            struct model_session *session = &model.sessions[i];
            struct edit edit = {.way = (int)model_below(&chance, WAYS),
                                .salt = model_random(&chance) >> 8};
            uint64_t from, to, epoch = epoch_of(index);
            if (model_below(&chance, 2))
                continue;
            choose_range(session, &chance, &from, &to);
            size_t count = session->count;
            uint64_t position = count > 0 ? session->entries[count - 1].position : 0;
            edit_both(index, session, from, to, &edit);
            if (session->count < count ||
                (count > 0 && session->entries[count - 1].position != position))
                assert_true(epoch_of(index) > epoch);
        }
        model_expect(&model, index, &chance, 200);
        if (round % 5 == 4) {
            assert_int_equal(index_sync(index), 0);
            index_close(index);
            model_expect_good(&model, &dir);
            index = model_open(&dir, INDEX_BUILD);
        }
    }
    assert_int_equal(index_sync(index), 0);
    index_close(index);
    model_expect_good(&model, &dir);
    model_free(&model);
    model_dir_remove(&dir);
}

/* Seqs so far apart that each block has one entry: groups of all levels lose blocks, or all. */
static void test_levels(void **state)
{
    (void)state;
    uint64_t chance = model_seed("test_levels");
    struct model_dir dir;
    model_dir_make(&dir);
    struct model model = {.count = 0};
    struct index *index = model_open(&dir, INDEX_CREATE | INDEX_BUILD);
    struct model_session *session = model_add_session(&model, &chance);
    static const struct {
        size_t grown; /* entries that are added before */
        size_t drop;  /* and dropped then */
        bool oldest;  /* of all, else from somewhere */
    } steps[] = {
        {4097, 63, true},   {1, 1, true},     {1, 1, true},          {64, 4000, true},
        {64, 4161, true},   {1, 1, true},     {1, 0, true},          {4100, 70, false},
        {1, 300, false},    {63, 4200, true}, {200, 5000, true},     {262144, 90000, true},
        {5, 100000, false}, {1, 70000, true}, {70, 100000000, true}, {130, 0, true},
        {3, 129, true},
    };
    uint64_t seq = 5;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        for (size_t k = 0; k < steps[i].grown; k++, seq += UINT64_C(1) << 33)
            model_append(&model, session, seq, 1 + (uint32_t)model_below(&chance, 100));
        model_commit(&model, index);
        size_t drop = steps[i].drop < session->count ? steps[i].drop : session->count;
        size_t begin =
            steps[i].oldest ? 0 : (size_t)model_below(&chance, session->count - drop + 1);
        struct edit edit = {.way = model_below(&chance, 4) ? DROP_ALL : DROP_EVENTS};
        if (drop > 0)
            edit_both(index, session, session->entries[begin].seq,
                      session->entries[begin + drop - 1].seq, &edit);
        model_expect(&model, index, &chance, 300);
        assert_int_equal(index_sync(index), 0);
        index_close(index);
        model_expect_good(&model, &dir);
        index = model_open(&dir, INDEX_BUILD);
    }
    index_close(index);
    model_free(&model);
    model_dir_remove(&dir);
}

/* A session that lost all goes on where it was. */
static void test_empty_newest(void **state)
{
    (void)state;
    uint64_t chance = model_seed("test_empty_newest");
    struct model_dir dir;
    model_dir_make(&dir);
    struct model model = {.count = 0};
    struct index *index = model_open(&dir, INDEX_CREATE | INDEX_BUILD);
    struct model_session *session = model_add_session(&model, &chance);
    struct edit all = {.way = DROP_ALL};
    /* With the next seq, one past a gap, and one too far for the block that stands empty; each with
     * as few and as many entries as make a difference. */
    static const uint64_t gaps[] = {1, 1000, UINT64_C(1) << 33};
    static const unsigned counts[] = {1, INDEX_BLOCK_ENTRIES, INDEX_BLOCK_ENTRIES + 1,
                                      INDEX_BLOCK_ENTRIES * INDEX_FANOUT + 1};
    for (size_t g = 0; g < sizeof gaps / sizeof gaps[0]; g++) {
        for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
            for (unsigned i = 0; i < counts[c]; i++)
                model_append(&model, session, session->row.last_seq + (i == 0 ? gaps[g] : 1), 9);
            model_commit(&model, index);
            model_expect(&model, index, &chance, 300);
            edit_both(index, session, 0, HL_SEQ_MAX, &all);
            model_expect(&model, index, &chance, 300);
            edit_both(index, session, 0, HL_SEQ_MAX, &all); /* there is nothing to do */
            assert_int_equal(index_sync(index), 0);
            index_close(index);
            model_expect_good(&model, &dir);
            index = model_open(&dir, INDEX_BUILD);
        }
    }
    index_close(index);
    model_free(&model);
    model_dir_remove(&dir);
}

/* ---- many ---- */

/* More blocks than one transaction takes; a stop after each leaves what the check wants. */
static void test_parts(void **state)
{
    (void)state;
    uint64_t chance = model_seed("test_parts");
    for (int way = DROP_EVENTS; way <= DROP_ALL; way++) {
        struct model_dir dir;
        model_dir_make(&dir);
        struct model model = {.count = 0};
        struct index *index = model_open(&dir, INDEX_CREATE | INDEX_BUILD);
        struct model_session *session = model_add_session(&model, &chance);
        /* Blocks of one entry, which go whole; or of ten, of which some entries stay in each. */
        size_t count = way == DROP_ALL ? 300000 : 60000, each = way == DROP_ALL ? 1 : 10;
        for (size_t i = 0; i < count; i++)
            model_append(&model, session, (i / each << 33) + i % each, 7 + (uint32_t)i % 3);
        model_commit(&model, index);
        uint64_t next = 0;
        unsigned parts = 0;
        for (bool more = true; more; parts++) {
            struct edit edit = {.way = way};
            struct index_txn *txn;
            struct index_edited edited = {0};
            assert_int_equal(index_begin(index, &txn), 0);
            assert_int_equal(
                index_edit(txn, session->row.number, next, HL_SEQ_MAX, judge, &edit, &edited), 0);
            assert_int_equal(index_commit(txn), 0);
            more = edited.more;
            if (more)
                assert_true(edited.next > next);
            model_edit(session, next, more ? edited.next - 1 : HL_SEQ_MAX, &edit);
            next = edited.next;
            model_expect(&model, index, &chance, 50);
            if (parts % 4 == 0 || !more) {
                assert_int_equal(index_sync(index), 0);
                index_close(index);
                model_expect_good(&model, &dir);
                index = model_open(&dir, INDEX_BUILD);
            }
        }
        assert_in_range(parts, 2, 30);
        index_close(index);
        model_free(&model);
        model_dir_remove(&dir);
    }
}

/* ---- sessions ---- */

static void put_documents(struct index *index, struct model_session *session, uint64_t count)
{
    struct index_txn *txn;
    assert_int_equal(index_begin(index, &txn), 0);
    for (uint64_t i = 0; i < count; i++) {
        char key[32];
        struct index_slot slot = {.number = INDEX_SLOT_FIRST + i, .area = 0, .key = key};
        slot.key_len = (uint16_t)snprintf(key, sizeof key, "key-%u", (unsigned)i);
        struct index_version versions[2] = {
            {.seq = 1, .end = 9, .present = true, .source = 1, .length = 2},
            {.seq = 2, .end = 18, .present = i % 2 == 0, .length = 0}};
        if (versions[1].present)
            versions[1].source = 2;
        struct index_operation operation = {
            .seq = i % session->row.last_seq, .count = 1, .slots = &slot.number};
        assert_int_equal(index_put_slot(txn, session->row.number, &slot), 0);
        assert_int_equal(index_put_versions(txn, session->row.number, &slot, versions, 2), 0);
        assert_int_equal(index_put_operation(txn, session->row.number, &operation), 0);
    }
    session->row.documents.slots = count;
    session->row.documents.documents = (count + 1) / 2;
    session->stored = session->count;
    assert_int_equal(model_apply(txn, session), 0);
    assert_int_equal(index_commit(txn), 0);
}

static void model_forget(struct model *model, size_t i)
{
    free(model->sessions[i].entries);
    free(model->sessions[i].begins);
    memmove(&model->sessions[i], &model->sessions[i + 1],
            (model->count - i - 1) * sizeof *model->sessions);
    model->count--;
}

static void expect_removed(struct index *index, uint32_t number, const char *id, int mark)
{
    struct index_view *view;
    struct index_row row;
    assert_int_equal(index_view_begin(index, &view), 0);
    assert_int_equal(index_session_by_number(view, number, &row), -ENOENT);
    assert_int_equal(index_session_removed(view, number), mark);
    if (id)
        assert_int_equal(index_session_by_id(view, id, strlen(id), &row), -ENOENT);
    index_view_end(view);
}

static void test_remove_session(void **state)
{
    (void)state;
    uint64_t chance = model_seed("test_remove_session");
    struct model_dir dir;
    model_dir_make(&dir);
    struct model model = {.count = 0};
    struct index *index = model_open(&dir, INDEX_CREATE | INDEX_BUILD);
    for (unsigned i = 0; i < 5; i++) {
        struct model_session *session = model_add_session(&model, &chance);
        uint64_t far = i == 2 ? 33 : 1;
        for (uint64_t k = 1; k < (i == 2 ? 70000 : 400); k++)
            model_append(&model, session, k << far, 5);
    }
    model_commit(&model, index);
    for (unsigned i = 1; i < 4; i++)
        put_documents(index, &model.sessions[i], i == 2 ? 60000 : 20);
    model_expect(&model, index, &chance, 100);

    uint32_t number = model.sessions[2].row.number;
    uint64_t records = model.sessions[2].row.records, bytes = model.sessions[2].row.bytes;
    char id[HL_ID_MAX + 1] = "";
    memcpy(id, model.sessions[2].id, model.sessions[2].row.id_len);
    model_forget(&model, 2);
    unsigned parts = 0;
    struct index_edited edited = {.more = true};
    for (; edited.more; parts++) {
        struct index_txn *txn;
        edited = (struct index_edited){0};
        assert_int_equal(index_begin(index, &txn), 0);
        assert_int_equal(index_remove_session(txn, number, &edited), 0);
        assert_int_equal(index_commit(txn), 0);
        assert_int_equal(edited.records, parts == 0 ? records : 0);
        assert_int_equal(edited.bytes, parts == 0 ? bytes : 0);
        expect_removed(index, number, parts <= 1 ? id : NULL, 1);
        if (parts == 1) { /* the id is free as soon as it is begun */
            struct model_session *again = model_add_session(&model, &chance);
            memcpy(again->id, id, strlen(id));
            again->row.id_len = (uint16_t)strlen(id);
            model_append(&model, again, 1, 10);
            model_commit(&model, index);
        }
        model_expect(&model, index, &chance, 30);
        assert_int_equal(index_sync(index), 0);
        index_close(index);
        model_expect_good(&model, &dir);
        index = model_open(&dir, INDEX_BUILD);
    }
    assert_in_range(parts, 3, 40);

    /* Again: nothing is left to do. A row cannot take its place. */
    struct index_txn *txn;
    edited = (struct index_edited){0};
    assert_int_equal(index_begin(index, &txn), 0);
    assert_int_equal(index_remove_session(txn, number, &edited), 0);
    assert_true(!edited.more && edited.records == 0 && edited.cost == 0);
    struct index_row row = {.number = number, .id = "x", .id_len = 1};
    assert_int_equal(index_apply(txn, &row, NULL, NULL), -EINVAL);
    index_abort(txn);
    expect_removed(index, number, NULL, 1);
    /* One that was never known. */
    edited = (struct index_edited){0};
    assert_int_equal(index_begin(index, &txn), 0);
    assert_int_equal(index_remove_session(txn, number + 1000, &edited), 0);
    assert_true(!edited.more && edited.records == 0);
    assert_int_equal(index_commit(txn), 0);
    expect_removed(index, number + 1000, NULL, 1);
    model_expect(&model, index, &chance, 100);
    assert_int_equal(index_sync(index), 0);
    index_close(index);
    model_expect_good(&model, &dir);
    model_free(&model);
    model_dir_remove(&dir);
}

/* ---- a crash, and a lack of room in the map ---- */

/* What was not committed was not done; when the map is full, all is done again in a larger one. */
static void test_aborted(void **state)
{
    (void)state;
    uint64_t chance = model_seed("test_aborted");
    struct model_dir dir;
    model_dir_make(&dir);
    struct model model = {.count = 0};
    struct index *index;
    assert_int_equal(index_open_sized(dir.path, INDEX_CREATE | INDEX_BUILD, model_store_id,
                                      UINT64_C(1) << 18, &index, NULL),
                     0);
    struct model_session *session = model_add_session(&model, &chance);
    for (uint64_t i = 1; i <= UINT64_C(30) * INDEX_BLOCK_ENTRIES; i++)
        model_append(&model, session, i, 5 + (uint32_t)i % 9);
    model_commit(&model, index);
    uint64_t epoch = epoch_of(index);
    struct edit edit = {.way = DROP_SOME, .salt = 7};
    struct index_edited edited = {0};
    struct index_txn *txn;
    assert_int_equal(index_begin(index, &txn), 0);
    assert_int_equal(index_edit(txn, session->row.number, 0, HL_SEQ_MAX, judge, &edit, &edited),
                     -EAGAIN);
    assert_int_equal(index_remove_session(txn, session->row.number, &edited), -EAGAIN);
    assert_int_equal(index_commit(txn), -EAGAIN);
    model_expect(&model, index, &chance, 100);
    assert_int_equal(index_grow(index), 0);
    assert_int_equal(index_begin(index, &txn), 0);
    assert_int_equal(index_edit(txn, session->row.number, 0, HL_SEQ_MAX, judge, &edit, &edited), 0);
    index_abort(txn);
    model_expect(&model, index, &chance, 100);
    assert_int_equal(epoch_of(index), epoch);
    edit_both(index, session, 0, HL_SEQ_MAX, &edit);
    model_expect(&model, index, &chance, 100);
    assert_int_equal(epoch_of(index), epoch + 1);
    index_close(index);
    model_free(&model);
    model_dir_remove(&dir);
}

/* ---- what the check says of what cannot be so ---- */

static void expect_complaint(const struct model_dir *dir, const char *words)
{
    struct index_check_report report;
    assert_int_equal(index_check_in_child(dir->path, 0, model_store_id, &report), -EBADMSG);
    if (!strstr(report.complaint, words))
        fail_msg("the check says \"%s\", which has no \"%s\"", report.complaint, words);
}

/* Changes one block behind the index's back: what the check must see, though it is well formed. */
static void test_check_sees(void **state)
{
    (void)state;
    uint64_t chance = model_seed("test_check_sees");
    static const char *const complaints[] = {"is empty", "sums of session", "does not match",
                                             "does not match", "sums of session"};
    for (int what = 0; what < 5; what++) {
        struct model_dir dir;
        model_dir_make(&dir);
        struct model model = {.count = 0};
        struct index *index = model_open(&dir, INDEX_CREATE | INDEX_BUILD);
        struct model_session *session = model_add_session(&model, &chance);
        for (uint64_t i = 0; i < 200; i++)
            model_append(&model, session, i << 33, 5);
        model_commit(&model, index);
        uint32_t number = session->row.number;
        uint8_t block[INDEX_BLOCK_MAX];
        struct index_txn *txn;
        assert_int_equal(index_begin(index, &txn), 0);
        struct index_entry entry = session->entries[what == 2 || what == 3 ? 198 : 10];
        struct index_entry after = {.seq = entry.seq + 1, .position = 1, .length = 1};
        uint64_t first = entry.seq;
        if (what == 3)
            entry.operation = !entry.operation;
        index_entry_pack(&entry, first, block + INDEX_BLOCK_HEAD);
        index_entry_pack(&after, first, block + INDEX_BLOCK_HEAD + INDEX_BLOCK_ENTRY);
        switch (what) {
        case 0: /* an empty block that is not the newest */
            assert_int_equal(index_block_put(txn, number, first, 0, 0, block), 0);
            break;
        case 1: /* a block that has more than its sum says */
        case 2: /* or than the row says */
            assert_int_equal(index_block_put(txn, number, first, 2, entry.length + 1, block), 0);
            break;
        case 3: /* an event that became an operation */
            assert_int_equal(index_block_put(txn, number, first, 1, entry.length, block), 0);
            break;
        default: /* a block that is gone, with a sum that knows it */
            assert_int_equal(index_block_remove(txn, number, first), 0);
            break;
        }
        txn->meta_changed = true;
        assert_int_equal(index_commit(txn), 0);
        assert_int_equal(index_sync(index), 0);
        index_close(index);
        expect_complaint(&dir, complaints[what]);
        model_free(&model);
        model_dir_remove(&dir);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),          cmocka_unit_test(test_levels),
        cmocka_unit_test(test_empty_newest),   cmocka_unit_test(test_parts),
        cmocka_unit_test(test_remove_session), cmocka_unit_test(test_aborted),
        cmocka_unit_test(test_check_sees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
