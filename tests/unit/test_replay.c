/* test_replay.c - damage in the middle of the log: what it hit is told, and all else is there,
 * whether the index was kept or is built anew. */
#include "support.h"

#include <inttypes.h>

#include "../../store/format.h"

/* Where each record of a store lies. */
struct located {
    char id[8];
    uint64_t seq, segment, offset, size;
    uint32_t length;
    const char *line;
    bool hit;
};

struct damaged {
    struct t_store t;
    char base[T_PATH]; /* closed in order */
    struct t_image image;
    struct located *at;
    size_t count;
    uint32_t segments;
    unsigned rough[64]; /* by segment: damage that is not within one record's line */
    struct {
        uint32_t segment;
        uint64_t offset;
    } flipped[64]; /* bytes of which a bit was flipped */
    size_t flip_count;
};

struct locating {
    struct damaged *d;
    const struct t_session_image *session;
    size_t byte;
};

static bool locate(void *context, const struct hl_record *record)
{
    struct locating *locating = context;
    struct located *at = &locating->d->at[locating->d->count++];
    *at = (struct located){
        .seq = record->seq,
        .segment = record->segment,
        .offset = record->offset,
        .size = (FRAME_HEADER_SIZE + record->length + 7) & ~UINT64_C(7),
        .length = record->length,
        .line = locating->session->log + locating->byte,
    };
    snprintf(at->id, sizeof at->id, "%.7s", locating->session->about.id);
    locating->byte += record->length;
    return true;
}

static int by_place(const void *a, const void *b)
{
    const struct located *x = a, *y = b;
    if (x->segment != y->segment)
        return x->segment < y->segment ? -1 : 1;
    return x->offset < y->offset ? -1 : 1;
}

/* One batch of many sessions, which a replay takes one by one; the first makes them. */
static void append_wide(struct damaged *d, uint64_t *chance)
{
    char text[4096];
    size_t len = 0;
    for (unsigned i = 0; i < 30; i++)
        len += (size_t)snprintf(text + len, sizeof text - len,
                                "{\"session_id\":\"w%u\",\"kind\":\"k%u\"%s}\n",
                                (unsigned)t_below(chance, 5), (unsigned)t_below(chance, 3),
                                t_below(chance, 4) == 0 ? ",\"tool\":\"bash\"" : "");
    t_append(&d->t, 0, text);
}

/* Segments of some 6 KiB, the last one not sealed. */
static void damaged_make(struct damaged *d, uint64_t chance, uint64_t segment_size, unsigned rounds)
{
    *d = (struct damaged){0};
    t_store_init(&d->t);
    d->t.options.segment_size = segment_size;
    t_open(&d->t);
    uint32_t a = t_session(&d->t, "a"), b = t_session(&d->t, "b");
    for (unsigned i = 0; i < rounds; i++) {
        t_fill(&d->t, a, 10, 1 + (unsigned)t_below(&chance, 5), 300, &chance);
        t_fill(&d->t, b, 10, 1 + (unsigned)t_below(&chance, 5), 300, &chance);
        hl_session_change(d->t.store, a, HL_CHANGE_MODE, 0, 0, i, NULL);
        t_append_format(&d->t, 0, "{\"session_id\":\"n%u\"}\n{\"session_id\":\"b\"}\n", i);
        append_wide(d, &chance);
    }
    t_image_take(d->t.store, &d->image);
    d->at = calloc(d->image.records, sizeof *d->at);
    assert_non_null(d->at);
    for (size_t i = 0; i < d->image.count; i++) {
        struct locating locating = {.d = d, .session = &d->image.sessions[i]};
        assert_int_equal(hl_record_list(d->t.store, d->image.sessions[i].about.number, 0, true,
                                        locate, &locating),
                         0);
    }
    assert_int_equal(d->count, d->image.records);
    qsort(d->at, d->count, sizeof *d->at, by_place);
    t_close(&d->t);
    d->segments = t_last_segment(&d->t);
    t_dir_make(d->base);
    t_dir_copy(d->t.dir, d->base);
}

static void damaged_free(struct damaged *d)
{
    t_image_free(&d->image);
    free(d->at);
    t_dir_remove(d->base);
    t_store_free(&d->t);
}

static void damaged_again(struct damaged *d)
{
    if (d->t.store)
        t_close(&d->t);
    t_dir_remove(d->t.dir);
    t_dir_copy(d->base, d->t.dir);
    for (size_t i = 0; i < d->count; i++)
        d->at[i].hit = false;
    memset(d->rough, 0, sizeof d->rough);
    d->flip_count = 0;
}

/* Notes the byte; false: that it was flipped before, and once more might make it what it was. */
static bool flip_once(struct damaged *d, uint32_t segment, uint64_t offset)
{
    for (size_t i = 0; i < d->flip_count; i++)
        if (d->flipped[i].segment == segment && d->flipped[i].offset == offset)
            return false;
    assert_true(d->flip_count < sizeof d->flipped / sizeof d->flipped[0]);
    d->flipped[d->flip_count].segment = segment;
    d->flipped[d->flip_count++].offset = offset;
    return true;
}

/* Overwrites bytes of a segment, or flips one bit if size is 1, and notes which records that hits:
 * those of which a byte changed. The first one of a frame may be by chance what is written there.
 */
static void damage(struct damaged *d, uint32_t segment, uint64_t from, uint64_t size,
                   uint64_t *chance)
{
    char path[T_PATH];
    uint8_t junk[4096];
    size_t end;
    t_segment_path(&d->t, segment, path);
    uint8_t *was = (uint8_t *)t_file_read(path, &end);
    assert_true(from < end && size > 0);
    if (size > sizeof junk)
        size = sizeof junk;
    if (from + size > end)
        size = end - from;
    if (size <= 1) {
        if (!flip_once(d, segment, from)) {
            free(was);
            return;
        }
        junk[0] = was[from] ^ (uint8_t)(1U << t_below(chance, 8));
    } else {
        uint8_t fill = (uint8_t)t_below(chance, 3);
        for (size_t i = 0; i < size; i++)
            junk[i] = fill == 0 ? 0 : fill == 1 ? 0xff : (uint8_t)t_random(chance);
        junk[0] = (uint8_t)(junk[0] | 0x80); /* differs from any text, and from zeros */
        junk[size - 1] |= 0x80;
        if (memcmp(was + from, junk, size) == 0)
            junk[0] ^= 1;
    }
    t_file_poke(path, from, junk, size);
    bool within = false;
    for (size_t i = 0; i < d->count; i++) {
        struct located *at = &d->at[i];
        uint64_t body = at->offset + FRAME_HEADER_SIZE;
        uint64_t first = from > at->offset ? from : at->offset;
        uint64_t stop = from + size < at->offset + at->size ? from + size : at->offset + at->size;
        if (at->segment != segment || first >= stop ||
            memcmp(was + first, junk + (first - from), stop - first) == 0)
            continue;
        at->hit = true;
        within = within || (from >= body && from + size <= body + at->length);
    }
    assert_true(segment < sizeof d->rough / sizeof d->rough[0]);
    d->rough[segment] += !within;
    free(was);
}

/* With its index kept the store knows of each record that was hit: it is told as damaged where it
 * was, and all logs have their old length, with blanks in its place. */
static void expect_blanks(struct damaged *d)
{
    struct t_image now;
    size_t hits = 0;
    t_image_take(d->t.store, &now);
    assert_int_equal(now.records, d->image.records);
    assert_int_equal(now.bytes, d->image.bytes);
    assert_int_equal(now.count, d->image.count);
    for (size_t i = 0, root = 0; i < d->count; root += d->at[i++].length) {
        const struct located *at = &d->at[i];
        size_t len;
        const char *line = t_image_line(&now, at->id, at->seq, &len);
        assert_int_equal(len, at->length);
        assert_int_equal(line == NULL, at->hit);
        hits += at->hit;
        if (line)
            assert_memory_equal(line, at->line, len);
        /* In the root log nobody can tell how long the lost lines of two places were, if the frames
         * there do not say it. */
        if (d->rough[at->segment] > 1)
            continue;
        if (at->hit) {
            bool next_is =
                i + 1 < d->count && d->at[i + 1].segment == at->segment && d->at[i + 1].hit;
            assert_int_equal(now.root[root + len / 2], ' ');
            if (!next_is) /* neighbours may make one blank line */
                assert_int_equal(now.root[root + len - 1], '\n');
        } else if (memcmp(now.root + root, at->line, len) != 0) {
            fail_msg("record %" PRIu64 " of %s is not at %zu of the root log", at->seq, at->id,
                     root);
        }
    }
    assert_int_equal(now.damaged, hits);
    /* Read from anywhere, the root log is the same. */
    uint64_t chance = hits;
    for (int i = 0; i < 60; i++) {
        char piece[3000];
        uint64_t offset = t_below(&chance, now.root_len);
        size_t size = 1 + t_below(&chance, sizeof piece);
        if (size > now.root_len - offset)
            size = now.root_len - offset;
        assert_int_equal(hl_root_log_read(d->t.store, offset, piece, size, NULL), size);
        assert_memory_equal(piece, now.root + offset, size);
    }
    t_image_free(&now);
}

/* Built anew, an index knows nothing of what was hit; all else is there, but for records of the
 * batches that were hit where those are not sealed. */
static void expect_rest(struct damaged *d)
{
    struct t_image now;
    t_image_take(d->t.store, &now);
    assert_int_equal(now.damaged, 0);
    uint64_t found = 0;
    for (size_t i = 0; i < d->count; i++) {
        const struct located *at = &d->at[i];
        size_t len = 0;
        const char *line = t_image_line(&now, at->id, at->seq, &len);
        found += line != NULL;
        if (line) {
            assert_false(at->hit);
            assert_int_equal(len, at->length);
            assert_memory_equal(line, at->line, len);
        } else if (!at->hit && at->segment != d->segments) {
            fail_msg("record %" PRIu64 " of %s is gone, and was not hit", at->seq, at->id);
        }
    }
    assert_int_equal(found, now.records);
    t_image_free(&now);
}

/* Seqs go on above all that ever were, as far as anybody knows, and what is appended stays. */
static void expect_goes_on(struct damaged *d, bool quiet)
{
    struct t_image now;
    struct hl_status status;
    struct t_store *t = &d->t;
    t_append(t, 0, "{\"session_id\":\"a\"}\n{\"session_id\":\"b\"}\n{\"session_id\":\"z\"}\n");
    t_image_take(t->store, &now);
    assert_non_null(t_image_find(&now, "z"));
    t_crash(t);
    t_open(t);
    hl_store_status(t->store, &status);
    assert_int_equal(status.quarantined_bytes, 0);
    if (quiet)
        assert_int_equal(t->errors, 0);
    t_shows(t->store, &now);
    t_image_free(&now);
}

static void hit_some(struct damaged *d, unsigned round, uint64_t *chance)
{
    for (uint64_t hits = 1 + t_below(chance, round % 3 == 2 ? 6 : 1); hits > 0; hits--) {
        char path[T_PATH];
        /* Any segment, the last one too. */
        uint32_t segment = 1 + (uint32_t)t_below(chance, d->segments);
        t_segment_path(&d->t, segment, path);
        uint64_t size = t_file_size(path);
        if (size <= SEGMENT_HEADER_REGION) { /* nothing was written to the last one yet */
            hits++;
            continue;
        }
        uint64_t from = SEGMENT_HEADER_REGION + t_below(chance, size - SEGMENT_HEADER_REGION);
        damage(d, segment, from, round % 2 ? 1 : 1 + t_below(chance, 900), chance);
    }
}

static void test_damage_with_the_index_kept(void **state)
{
    (void)state;
    struct damaged d;
    uint64_t chance = t_seed("test_damage_with_the_index_kept");
    damaged_make(&d, chance, 6 * 1024, 6);
    for (unsigned round = 0; round < t_amount("ROUNDS", t_slow() ? 8 : 60); round++) {
        damaged_again(&d);
        hit_some(&d, round, &chance);
        t_open(&d.t);
        assert_int_equal(d.t.errors, 0);
        expect_blanks(&d);
        expect_goes_on(&d, false);
    }
    damaged_free(&d);
}

static void test_damage_with_the_index_lost(void **state)
{
    (void)state;
    struct damaged d;
    uint64_t chance = t_seed("test_damage_with_the_index_lost");
    damaged_make(&d, chance, 6 * 1024, 6);
    for (unsigned round = 0; round < t_amount("ROUNDS", t_slow() ? 8 : 60); round++) {
        damaged_again(&d);
        hit_some(&d, round, &chance);
        t_lose_index(&d.t);
        t_open(&d.t);
        expect_rest(&d);
        expect_goes_on(&d, true);
        /* Building it again changes nothing. */
        struct t_image now;
        t_image_take(d.t.store, &now);
        t_close(&d.t);
        t_lose_index(&d.t);
        t_open(&d.t);
        t_shows(d.t.store, &now);
        t_image_free(&now);
    }
    damaged_free(&d);
}

/* While the store is open. */
static void test_damage_under_an_open_store(void **state)
{
    (void)state;
    struct damaged d;
    struct hl_verify_report report;
    uint64_t chance = t_seed("test_damage_under_an_open_store");
    damaged_make(&d, chance, 20 * 1024, 6);
    for (unsigned round = 0; round < (t_slow() ? 4 : 20); round++) {
        damaged_again(&d);
        t_open(&d.t);
        hit_some(&d, round, &chance);
        size_t hits = 0;
        for (size_t i = 0; i < d.count; i++)
            hits += d.at[i].hit;
        assert_int_equal(hl_verify(d.t.store, &report, NULL, &d.t.err), 0);
        assert_true(report.damaged_gaps > 0);
        assert_int_equal(report.records, d.count - hits);
        assert_int_equal(report.index_dangling, hits);
        assert_int_equal(report.index_missing, 0);
        expect_blanks(&d);
        /* Each is told of once. */
        unsigned errors = d.t.errors;
        expect_blanks(&d);
        assert_int_equal(d.t.errors, errors);
        if (hits > 0)
            assert_true(errors > 0);
    }
    damaged_free(&d);
}

/* Many points for root log, many gaps between them. */
static void test_damage_in_a_large_segment(void **state)
{
    (void)state;
    struct damaged d = {0};
    uint64_t chance = t_seed("test_damage_in_a_large_segment");
    t_store_init(&d.t);
    d.t.options.segment_size = 64 << 20;
    t_open(&d.t);
    uint32_t a = t_session(&d.t, "a"), b = t_session(&d.t, "b");
    for (int i = 0; i < 30; i++) {
        t_fill(&d.t, a, 100, 10, 3000, &chance);
        t_fill(&d.t, b, 10, 10, 300, &chance);
        if (i == 15)
            assert_int_equal(hl_checkpoint(d.t.store, NULL, &d.t.err), 0);
    }
    t_image_take(d.t.store, &d.image);
    d.at = calloc(d.image.records, sizeof *d.at);
    assert_non_null(d.at);
    for (size_t i = 0; i < d.image.count; i++) {
        struct locating locating = {.d = &d, .session = &d.image.sessions[i]};
        assert_int_equal(
            hl_record_list(d.t.store, d.image.sessions[i].about.number, 0, true, locate, &locating),
            0);
    }
    qsort(d.at, d.count, sizeof *d.at, by_place);
    d.segments = 1;
    t_dir_make(d.base);
    /* Bodies are hit, not lengths: then each blank stands where its line was. */
    for (int i = 0; i < 20; i++) {
        const struct located *at = &d.at[t_below(&chance, d.count)];
        damage(&d, 1, at->offset + FRAME_HEADER_SIZE + t_below(&chance, at->length), 1, &chance);
    }
    expect_blanks(&d);
    /* And one whole frame, length and all. */
    const struct located *at = &d.at[d.count / 2];
    damage(&d, 1, at->offset, at->size < 4096 ? at->size : 4096, &chance);
    expect_blanks(&d);
    damaged_free(&d);
}

/* A session's frame says how far its seqs had come: they go on above, also where the records are
 * lost, and what comes after is found. */
static void test_records_above_a_hole_in_the_seqs(void **state)
{
    (void)state;
    struct damaged d = {0};
    uint64_t chance = 4;
    size_t len;
    t_store_init(&d.t);
    t_open(&d.t);
    uint32_t a = t_session(&d.t, "a");
    t_append(&d.t, a, "1\n2\n3\n4\n5\n");
    for (int i = 6; i <= 10; i++)
        t_append_format(&d.t, a, "%d\n", i);
    assert_int_equal(hl_session_change(d.t.store, a, HL_CHANGE_MODE, 0, 0, 0700, NULL), 0);
    t_image_take(d.t.store, &d.image);
    struct hl_record record;
    uint64_t first = 0, last = 0;
    for (uint64_t seq = 6; seq <= 10; seq++) {
        assert_int_equal(hl_record_find(d.t.store, a, seq, &record), 0);
        first = first ? first : record.offset;
        last = record.offset;
    }
    assert_int_equal(hl_rotate(d.t.store, &d.t.err), 0);
    t_close(&d.t);
    t_dir_make(d.base);
    damage(&d, 1, first, last + 40 - first, &chance);
    t_lose_index(&d.t);
    t_open(&d.t);
    t_append(&d.t, a, "eleven\n");
    for (int i = 0; i < 3; i++) {
        struct t_image now;
        t_image_take(d.t.store, &now);
        assert_int_equal(now.records, 6 + i);
        assert_non_null(t_image_line(&now, "a", 11, &len));
        assert_null(t_image_line(&now, "a", 10, &len));
        t_image_free(&now);
        t_reopen(&d.t); /* now the hole is in the index, and what comes is not */
        t_append(&d.t, a, "more\n");
    }
    t_close(&d.t);
    t_lose_index(&d.t);
    /* The same where all records below are lost, and the frame that made the session with them. */
    damage(&d, 1, SEGMENT_HEADER_REGION, 64, &chance);
    damage(&d, 1, SEGMENT_HEADER_REGION + 100, first - SEGMENT_HEADER_REGION, &chance);
    t_open(&d.t);
    struct t_image now;
    for (int i = 0; i < 3; i++) {
        t_image_take(d.t.store, &now);
        assert_int_equal(now.records, 4 + i);
        assert_int_equal(t_image_find(&now, "a")->about.first_seq, 11);
        t_image_free(&now);
        t_reopen(&d.t);
        t_append(&d.t, a, "more\n");
    }
    damaged_free(&d);
}

/* The frame that makes a session is hit: its lines still say whose they are. */
static void test_a_session_known_by_its_lines(void **state)
{
    (void)state;
    struct damaged d = {0};
    uint64_t chance = 5;
    t_store_init(&d.t);
    t_open(&d.t);
    uint32_t a = t_session(&d.t, "a \"quoted\" one");
    uint32_t gone = t_session(&d.t, "no records");
    t_append(&d.t, a, "one\n{\"op\":\"set\",\"key\":\"k\",\"value\":1}\n");
    t_image_take(d.t.store, &d.image);
    assert_int_equal(hl_rotate(d.t.store, &d.t.err), 0);
    t_close(&d.t);
    t_dir_make(d.base);
    damage(&d, 1, SEGMENT_HEADER_REGION + 40, 200, &chance);
    t_lose_index(&d.t);
    t_open(&d.t);
    assert_true(d.t.errors > 0);
    struct t_image now;
    t_image_take(d.t.store, &now);
    assert_int_equal(now.count, 1);
    assert_string_equal(now.sessions[0].about.id, "a \"quoted\" one");
    assert_int_equal(now.sessions[0].about.number, a);
    assert_int_equal(now.records, 2);
    t_image_free(&now);
    assert_true(t_session(&d.t, "another") != gone || gone > a);
    t_append(&d.t, a, "two\n");
    t_image_take(d.t.store, &now);
    t_crash(&d.t);
    t_open(&d.t);
    t_shows(d.t.store, &now);
    t_image_free(&now);
    damaged_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damage_with_the_index_kept),
        cmocka_unit_test(test_damage_with_the_index_lost),
        cmocka_unit_test(test_damage_under_an_open_store),
        cmocka_unit_test(test_damage_in_a_large_segment),
        cmocka_unit_test(test_records_above_a_hole_in_the_seqs),
        cmocka_unit_test(test_a_session_known_by_its_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
