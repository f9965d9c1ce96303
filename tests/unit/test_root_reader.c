/* test_root_reader.c - readers of the root's log while it grows and its segments are rewritten. */
#include "support.h"

#include "../../store/core.h"
#include "../../store/frame.h"
#include "../../store/seal.h"

#define READERS 24
#define ROOM (8U << 20)

/* ---- what a reader must be given --------------------------------------------------------------
 */

/* A line of the log, in order of arrival. */
struct line {
    uint64_t seq;
    uint32_t session, length;
    uint32_t segment; /* in which it was written */
    bool gone;
    size_t text; /* where it stands in `all` */
};

struct model {
    struct t_store t;
    uint64_t chance;
    char *all; /* every line there ever was */
    size_t all_len;
    struct line *lines;
    size_t count, capacity;
};

/* A reader and what he was given: whole lines up to `line`, then `begun` bytes of that one. */
struct reader {
    struct hl_root_reader *reader;
    uint64_t offset;
    size_t line, begun;
};

/* ---- segments rewritten as a compaction does it ------------------------------------------------
 */

struct new_file {
    uint8_t *bytes;
    size_t used;
    uint32_t salt;
    struct seal seal;
};

static void put_frame(struct new_file *new, struct frame *frame, const char *body)
{
    new->bytes = realloc(new->bytes, new->used + frame_size(frame->length));
    assert_non_null(new->bytes);
    memcpy(new->bytes + new->used + FRAME_HEADER_SIZE, body, frame->length);
    new->used += frame_finish(new->bytes + new->used, new->salt, new->used, frame);
}

static struct line *find_line(struct model *m, uint32_t session, uint64_t seq)
{
    for (size_t i = 0; i < m->count; i++) {
        if (m->lines[i].session == session && m->lines[i].seq == seq)
            return &m->lines[i];
    }
    return NULL;
}

/* Adds what of a segment's frames is not gone. */
static void put_segment(struct model *m, struct new_file *new, const struct segment *segment)
{
    char path[T_PATH];
    size_t len;
    t_path(path, m->t.dir, "log/%s", segment->name);
    char *bytes = t_file_read(path, &len);
    for (size_t at = SEGMENT_HEADER_REGION; at < segment->size;) {
        struct frame frame;
        assert_int_equal(
            frame_parse((uint8_t *)bytes + at, len - at, segment->salt, at, &frame, NULL),
            FRAME_GOOD);
        at += frame_size(frame.length);
        if (frame.recorded_ms > new->seal.recorded_ms)
            new->seal.recorded_ms = frame.recorded_ms;
        if (frame.type == FRAME_EVENT) {
            if (find_line(m, frame.session, frame.seq)->gone)
                continue;
            new->seal.records++;
            new->seal.line_bytes += frame.length;
        }
        if (frame.type != FRAME_SEAL)
            put_frame(new, &frame, frame.body);
    }
    free(bytes);
}

/* Puts one file in the place of `number` neighbours in the set, from the one at `at` on. */
static void rewrite(struct model *m, size_t at, size_t number)
{
    struct segment_set *set = &m->t.store->segments;
    struct new_file new = {.used = SEGMENT_HEADER_REGION, .salt = (uint32_t)t_random(&m->chance)};
    struct segment *made, like = *set->at[at];
    char path[T_PATH], text[SEAL_TEXT_MAX];

    new.bytes = calloc(1, SEGMENT_HEADER_REGION);
    assert_non_null(new.bytes);
    for (size_t i = 0; i < number; i++) {
        put_segment(m, &new, set->at[at + i]);
        like.last = set->at[at + i]->last;
        if (set->at[at + i]->generation > like.generation)
            like.generation = set->at[at + i]->generation;
    }
    new.seal.end = new.used;
    struct frame frame = {.length = (uint32_t)seal_encode(&new.seal, text),
                          .recorded_ms = new.seal.recorded_ms,
                          .type = FRAME_SEAL,
                          .flags = FRAME_FIRST_OF_BATCH | FRAME_LAST_OF_BATCH};
    put_frame(&new, &frame, text);
    like.generation++;
    like.salt = new.salt;
    segment_name_format(like.name, like.first, like.last, like.generation);
    segment_header_region(&like, new.bytes);
    t_path(path, m->t.dir, "log/%s", like.name);
    t_file_write(path, new.bytes, new.used);
    assert_int_equal(segment_load(set, like.name, &made, &m->t.err), 0);
    made->size = new.used;
    made->records = new.seal.records;
    made->line_bytes = new.seal.line_bytes;
    made->sealed = true;
    for (size_t i = 0; i < number; i++) {
        struct segment *old = set->at[at + i];
        t_path(path, m->t.dir, "log/%s", old->name);
        assert_int_equal(remove(path), 0);
        m->t.store->bytes -= old->line_bytes;
        set->open -= old->fd >= 0;
        segment_free(set, old);
    }
    m->t.store->bytes += made->line_bytes;
    set->at[at] = made;
    set->open++;
    memmove(set->at + at + 1, set->at + at + number,
            (set->count - at - number) * sizeof(struct segment *));
    set->count -= number - 1;
    free(new.bytes);
}

/* ---- steps ------------------------------------------------------------------------------------
 */

static void append(struct model *m, uint32_t session)
{
    struct hl_session about;
    assert_int_equal(hl_session_by_number(m->t.store, session, &about), 0);
    uint64_t before = m->t.store->bytes;
    /* No two segments have records of one millisecond, so that a place is known by its time where
     * all that stood there is gone. */
    m->t.store->clock_ms = log_clock(m->t.store) + 1;
    t_fill(&m->t, session, 1 + (unsigned)t_below(&m->chance, 3), 3, 400, &m->chance);
    for (uint64_t seq = about.last_seq + 1;; seq++) {
        struct hl_record record;
        if (hl_record_find(m->t.store, session, seq, &record) < 0)
            break;
        if (m->count == m->capacity) {
            m->capacity = m->capacity ? m->capacity * 2 : 1024;
            m->lines = realloc(m->lines, m->capacity * sizeof *m->lines);
            assert_non_null(m->lines);
        }
        assert_true(m->all_len + record.length < ROOM);
        m->lines[m->count++] = (struct line){.seq = seq,
                                             .session = session,
                                             .length = record.length,
                                             .segment = (uint32_t)record.segment,
                                             .text = m->all_len};
        assert_int_equal(
            hl_record_read(m->t.store, session, seq, m->all + m->all_len, record.length, 0),
            record.length);
        m->all_len += record.length;
        before += record.length;
    }
    assert_int_equal(m->t.store->bytes, before);
}

/* Drops some lines of a few sealed segments, all of them at times, and rewrites the segments. */
static void drop(struct model *m)
{
    struct segment_set *set = &m->t.store->segments;
    if (set->count < 3)
        return;
    size_t at = (size_t)t_below(&m->chance, set->count - 1);
    size_t number = 1 + (size_t)t_below(&m->chance, 3), share = (size_t)t_below(&m->chance, 5);
    if (number > set->count - 1 - at)
        number = set->count - 1 - at;
    uint32_t first = set->at[at]->first, last = set->at[at + number - 1]->last;
    for (size_t i = 0; i < m->count; i++) {
        if (m->lines[i].segment >= first && m->lines[i].segment <= last &&
            t_below(&m->chance, 4) < share)
            m->lines[i].gone = true;
    }
    rewrite(m, at, number);
}

/* Reads on: what comes is the rest of the line that was begun, or a newline if that is gone, and
 * then the lines that are there, in order. */
static void read_on(struct model *m, struct reader *r, size_t size)
{
    static char got[1 << 16];
    size_t at = 0;
    assert_true(hl_root_reader_goes_on(r->reader, r->offset));
    ssize_t n = hl_root_reader_read(r->reader, r->offset, got, size);
    assert_true(n >= 0);
    r->offset += (uint64_t)n;
    if (n > 0 && r->begun > 0 && m->lines[r->line].gone) {
        assert_int_equal(got[at++], '\n');
        r->line++;
        r->begun = 0;
    }
    while (at < (size_t)n) {
        while (r->line < m->count && m->lines[r->line].gone)
            r->line++;
        assert_true(r->line < m->count);
        const struct line *line = &m->lines[r->line];
        size_t left = line->length - r->begun;
        if (left > (size_t)n - at)
            left = (size_t)n - at;
        assert_memory_equal(got + at, m->all + line->text + r->begun, left);
        at += left;
        r->begun += left;
        if (r->begun == line->length) {
            r->line++;
            r->begun = 0;
        }
    }
    if ((size_t)n == size)
        return;
    while (r->line < m->count && m->lines[r->line].gone)
        r->line++;
    assert_int_equal(r->line, m->count); /* nothing was missed */
}

/* Goes where byte `offset` is now, or to the end. */
static void jump(struct model *m, struct reader *r)
{
    uint64_t size, offset;
    char byte;
    if (t_below(&m->chance, 2)) {
        assert_int_equal(hl_root_reader_end(r->reader, &r->offset), 0);
        assert_int_equal(hl_root_log_size(m->t.store, &size), 0);
        assert_int_equal(r->offset, size);
        r->line = m->count;
        r->begun = 0;
        return;
    }
    assert_int_equal(hl_root_log_size(m->t.store, &size), 0);
    if (size == 0)
        return;
    offset = t_below(&m->chance, size);
    if (hl_root_reader_goes_on(r->reader, offset))
        return; /* that would be another place */
    assert_int_equal(hl_root_reader_read(r->reader, offset, &byte, 1), 1);
    r->offset = offset + 1;
    r->line = 0;
    while (m->lines[r->line].gone || offset >= m->lines[r->line].length) {
        offset -= m->lines[r->line].gone ? 0 : m->lines[r->line].length;
        r->line++;
    }
    assert_int_equal(byte, m->all[m->lines[r->line].text + offset]);
    r->begun = (size_t)offset + 1;
    if (r->begun == m->lines[r->line].length) {
        r->line++;
        r->begun = 0;
    }
}

static void test_model(void **state)
{
    (void)state;
    struct model m = {.chance = t_seed("test_model")};
    struct reader readers[READERS] = {0};
    uint32_t sessions[5];

    m.all = malloc(ROOM);
    assert_non_null(m.all);
    t_store_init(&m.t);
    m.t.options.segment_size = 8 * 1024;
    t_open(&m.t);
    for (size_t i = 0; i < 5; i++) {
        char id[2] = {(char)('a' + i), 0};
        sessions[i] = t_session(&m.t, id);
    }
    for (size_t i = 0; i < READERS; i++)
        assert_int_equal(hl_root_reader_open(m.t.store, &readers[i].reader), 0);
    unsigned steps = t_amount("STEPS", t_slow() ? 2000 : 12000);
    for (unsigned step = 0; step < steps; step++) {
        struct reader *r = &readers[t_below(&m.chance, READERS)];
        uint64_t what = t_below(&m.chance, 40);
        if (what < 12)
            append(&m, sessions[t_below(&m.chance, 5)]);
        else if (what < 14)
            drop(&m);
        else if (what < 15)
            assert_int_equal(hl_rotate(m.t.store, &m.t.err), 0);
        else if (what < 16)
            jump(&m, r);
        else
            read_on(&m, r, 1 + (size_t)t_below(&m.chance, what % 2 ? 300 : 9000));
        if (m.all_len > ROOM - (64U << 10))
            break;
    }
    for (size_t i = 0; i < READERS; i++) {
        uint64_t before;
        do {
            before = readers[i].offset;
            read_on(&m, &readers[i], 1 << 16);
        } while (readers[i].offset > before);
        hl_root_reader_close(readers[i].reader);
    }
    assert_int_equal(m.t.errors, 0);
    t_crash(&m.t);
    t_store_free(&m.t);
    free(m.lines);
    free(m.all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_model)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
