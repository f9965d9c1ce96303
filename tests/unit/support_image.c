/* support_image.c - images of all that a store shows, and segments as a compaction makes them. */
#include "support.h"

#include <inttypes.h>
#include <sys/mman.h>

#include "../../store/format.h"
#include "../../store/frame.h"
#include "../../store/seal.h"
#include "../../store/segment.h"

#define PIECE (256U * 1024)

struct listing {
    struct t_line *lines;
    size_t count, capacity;
};

static bool list_line(void *context, const struct hl_record *record)
{
    struct listing *listing = context;
    if (listing->count == listing->capacity) {
        listing->capacity = listing->capacity ? listing->capacity * 2 : 64;
        listing->lines = realloc(listing->lines, listing->capacity * sizeof *listing->lines);
        if (!listing->lines)
            return false;
    }
    listing->lines[listing->count++] =
        (struct t_line){.seq = record->seq, .length = record->length};
    return true;
}

static void check_blank(const char *text, size_t len)
{
    for (size_t i = 0; i + 1 < len; i++)
        assert_int_equal(text[i], ' ');
    assert_int_equal(text[len - 1], '\n');
}

static void take_lines(struct hl_store *store, struct t_image *image,
                       struct t_session_image *session)
{
    struct listing listing = {0};
    uint32_t number = session->about.number;
    assert_int_equal(hl_record_list(store, number, 0, false, list_line, &listing), 0);
    session->lines = listing.lines;
    assert_int_equal(listing.count, session->about.records);
    session->log = t_log(store, number, PIECE, &session->log_len);
    assert_int_equal(session->log_len, session->about.bytes);
    size_t at = 0;
    for (size_t i = 0; i < listing.count; i++) {
        struct t_line *line = &session->lines[i];
        if (i > 0)
            assert_true(line->seq > session->lines[i - 1].seq);
        assert_true(at + line->length <= session->log_len);
        char *text = malloc(line->length);
        assert_non_null(text);
        ssize_t n = hl_record_read(store, number, line->seq, text, line->length, 0);
        line->damaged = n == -EBADMSG;
        if (line->damaged) {
            image->damaged++;
            check_blank(session->log + at, line->length);
        } else {
            if (n != (ssize_t)line->length)
                fail_msg("record %" PRIu64 " of %s: %zd", line->seq, session->about.id, n);
            assert_memory_equal(session->log + at, text, line->length);
        }
        free(text);
        at += line->length;
    }
    assert_int_equal(at, session->log_len);
    if (listing.count > 0) {
        assert_true(session->about.has_seq);
        assert_int_equal(session->lines[0].seq, session->about.first_seq);
        assert_true(session->about.last_seq >= session->lines[listing.count - 1].seq);
    }
}

static void take_attributes(struct hl_store *store, struct t_session_image *session)
{
    static char names[HL_ATTRIBUTES_MAX], value[HL_ATTRIBUTES_MAX];
    uint32_t number = session->about.number;
    ssize_t size = hl_attribute_list(store, number, names, sizeof names);
    assert_true(size >= 0);
    for (ssize_t at = 0; at < size; at += (ssize_t)strlen(names + at) + 1) {
        ssize_t n = hl_attribute_get(store, number, names + at, value, sizeof value);
        assert_true(n >= 0);
        size_t name_len = strlen(names + at) + 1;
        session->attributes =
            realloc(session->attributes, session->attributes_len + name_len + (size_t)n);
        assert_non_null(session->attributes);
        memcpy(session->attributes + session->attributes_len, names + at, name_len);
        memcpy(session->attributes + session->attributes_len + name_len, value, (size_t)n);
        session->attributes_len += name_len + (size_t)n;
    }
}

/* Each line of the root log must be the next of one session. Lines that are blank for damage count
 * together as many bytes as the damaged ones. */
static void check_root(const struct t_image *image)
{
    size_t *line = calloc(image->count + 1, sizeof *line),
           *at = calloc(image->count + 1, sizeof *at);
    size_t used = 0, blank = 0, damaged = 0, last = 0, dropped = 0, dropped_bytes = 0;
    assert_non_null(line);
    assert_non_null(at);
    while (used < image->root_len) {
        const char *text = image->root + used;
        const char *newline = memchr(text, '\n', image->root_len - used);
        assert_non_null(newline);
        size_t len = (size_t)(newline - text) + 1;
        used += len;
        if (text[0] == ' ' || text[0] == '\n') {
            check_blank(text, len);
            blank += len;
            continue;
        }
        bool found = false;
        for (size_t k = 0; k < image->count && !found; k++) {
            size_t i = (last + k) % image->count;
            const struct t_session_image *session = &image->sessions[i];
            while (line[i] < session->about.records && session->lines[line[i]].damaged) {
                damaged += session->lines[line[i]].length;
                at[i] += session->lines[line[i]++].length;
            }
            if (line[i] < session->about.records && session->lines[line[i]].length == len &&
                memcmp(session->log + at[i], text, len) == 0) {
                at[i] += len;
                line[i]++;
                found = true;
                last = i;
            }
        }
        if (!found && dropped < image->dropped_records) {
            dropped++;
            dropped_bytes += len;
            found = true;
        }
        if (!found)
            fail_msg("the root log has at %zu what is no session's next line: %.*s", used - len,
                     (int)(len < 200 ? len : 200), text);
    }
    for (size_t i = 0; i < image->count; i++) {
        for (; line[i] < image->sessions[i].about.records; line[i]++) {
            if (!image->sessions[i].lines[line[i]].damaged)
                fail_msg("record %" PRIu64 " of %s is not in the root log",
                         image->sessions[i].lines[line[i]].seq, image->sessions[i].about.id);
            damaged += image->sessions[i].lines[line[i]].length;
        }
    }
    assert_int_equal(blank, damaged);
    assert_int_equal(dropped, image->dropped_records);
    assert_int_equal(dropped_bytes, image->dropped_bytes);
    free(line);
    free(at);
}

void t_image_take(struct hl_store *store, struct t_image *image)
{
    struct hl_session about;
    struct hl_status status;
    uint32_t after = 0;
    int error;
    *image = (struct t_image){0};
    while ((error = hl_session_next(store, after, &about)) == 0) {
        assert_true(about.number > after);
        after = about.number;
        if ((image->count & (image->count - 1)) == 0) { /* 0 or a power of two: it is full */
            size_t capacity = image->count ? 2 * image->count : 1;
            image->sessions = realloc(image->sessions, capacity * sizeof *image->sessions);
            assert_non_null(image->sessions);
        }
        struct t_session_image *session = &image->sessions[image->count++];
        *session = (struct t_session_image){.about = about};
        struct hl_session again;
        assert_int_equal(hl_session_by_id(store, about.id, about.id_len, &again), 0);
        assert_int_equal(again.number, about.number);
        take_lines(store, image, session);
        take_attributes(store, session);
        image->records += about.records;
        image->bytes += about.bytes;
    }
    assert_int_equal(error, -ENOENT);
    image->root = t_root_log(store, PIECE, &image->root_len);
    assert_int_equal(hl_store_status(store, &status), 0);
    assert_int_equal(status.sessions, image->count);
    assert_true(status.records >= image->records);
    assert_true(status.bytes >= image->bytes);
    image->dropped_records = status.records - image->records;
    image->dropped_bytes = status.bytes - image->bytes;
    uint64_t size;
    assert_int_equal(hl_root_log_size(store, &size), 0);
    assert_int_equal(size, status.bytes);
    assert_int_equal(image->root_len, size);
    check_root(image);
}

/* Where it goes, and its copy if there is memory for it already. */
static void *freeze_piece(const struct t_image *image, size_t *used, const void *bytes, size_t size)
{
    size_t at = *used;
    *used += (size + 63) / 64 * 64;
    if (!image->frozen)
        return NULL;
    assert_true(*used <= image->frozen_size);
    return size > 0 ? memcpy((char *)image->frozen + at, bytes, size) : NULL;
}

/* Copies it into image->frozen, if that is there; how many bytes it takes. */
static size_t freeze_pieces(struct t_image *image)
{
    size_t used = 0;
    struct t_session_image *sessions =
        freeze_piece(image, &used, image->sessions, image->count * sizeof *sessions);
    for (size_t i = 0; i < image->count; i++) {
        const struct t_session_image *from = &image->sessions[i];
        size_t lines_size = (size_t)from->about.records * sizeof *from->lines;
        void *lines = freeze_piece(image, &used, from->lines, lines_size);
        void *log = freeze_piece(image, &used, from->log, from->log_len);
        void *attributes = freeze_piece(image, &used, from->attributes, from->attributes_len);
        if (sessions) {
            sessions[i].lines = lines;
            sessions[i].log = log;
            sessions[i].attributes = attributes;
        }
    }
    char *root = freeze_piece(image, &used, image->root, image->root_len);
    if (image->frozen) {
        image->sessions = sessions;
        image->root = root;
    }
    return used;
}

void t_image_freeze(struct t_image *image)
{
    struct t_image before = *image;
    assert_null(image->frozen);
    size_t size = freeze_pieces(image);
    assert_true(size > 0);
    void *frozen = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(frozen, MAP_FAILED);
    image->frozen = frozen;
    image->frozen_size = size;
    freeze_pieces(image);
    assert_int_equal(mprotect(frozen, size, PROT_READ), 0);
    t_image_free(&before);
}

void t_image_free(struct t_image *image)
{
    if (image->frozen) {
        munmap(image->frozen, image->frozen_size);
        *image = (struct t_image){0};
        return;
    }
    for (size_t i = 0; i < image->count; i++) {
        free(image->sessions[i].lines);
        free(image->sessions[i].log);
        free(image->sessions[i].attributes);
    }
    free(image->sessions);
    free(image->root);
    *image = (struct t_image){0};
}

static void same_session(const struct t_session_image *a, const struct t_session_image *b)
{
    const struct hl_session *x = &a->about, *y = &b->about;
    assert_int_equal(x->number, y->number);
    assert_string_equal(x->id, y->id);
    assert_int_equal(x->uid, y->uid);
    assert_int_equal(x->gid, y->gid);
    assert_int_equal(x->mode, y->mode);
    assert_int_equal(x->created_ms, y->created_ms);
    assert_int_equal(x->changed_ms, y->changed_ms);
    assert_int_equal(x->has_seq, y->has_seq);
    assert_int_equal(x->last_seq, y->last_seq);
    assert_int_equal(x->records, y->records);
    assert_int_equal(x->bytes, y->bytes);
    for (size_t i = 0; i < x->records; i++) {
        assert_int_equal(a->lines[i].seq, b->lines[i].seq);
        assert_int_equal(a->lines[i].length, b->lines[i].length);
        assert_int_equal(a->lines[i].damaged, b->lines[i].damaged);
    }
    assert_memory_equal(a->log, b->log, a->log_len);
    assert_int_equal(a->attributes_len, b->attributes_len);
    if (a->attributes_len)
        assert_memory_equal(a->attributes, b->attributes, a->attributes_len);
}

void t_image_same(const struct t_image *a, const struct t_image *b)
{
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++)
        same_session(&a->sessions[i], &b->sessions[i]);
    assert_int_equal(a->root_len, b->root_len);
    assert_memory_equal(a->root, b->root, a->root_len);
}

void t_shows(struct hl_store *store, const struct t_image *image)
{
    struct t_image now;
    t_image_take(store, &now);
    t_image_same(image, &now);
    t_image_free(&now);
}

const struct t_session_image *t_image_find(const struct t_image *image, const char *id)
{
    for (size_t i = 0; i < image->count; i++) {
        if (strcmp(image->sessions[i].about.id, id) == 0)
            return &image->sessions[i];
    }
    return NULL;
}

const char *t_image_line(const struct t_image *image, const char *id, uint64_t seq, size_t *len)
{
    const struct t_session_image *session = t_image_find(image, id);
    size_t at = 0;
    for (size_t i = 0; session && i < session->about.records; i++) {
        if (session->lines[i].seq == seq) {
            *len = session->lines[i].length;
            return session->lines[i].damaged ? NULL : session->log + at;
        }
        at += session->lines[i].length;
    }
    return NULL;
}

/* ---- compacted segments ---- */

struct compacting {
    uint8_t *bytes; /* of the new file */
    size_t used;
    uint32_t salt;
    struct seal seal;
};

static void put_frame(struct compacting *new, struct frame *frame, const char *body)
{
    new->bytes = realloc(new->bytes, new->used + frame_size(frame->length));
    assert_non_null(new->bytes);
    memcpy(new->bytes + new->used + FRAME_HEADER_SIZE, body, frame->length);
    new->used += frame_finish(new->bytes + new->used, new->salt, new->used, frame);
}

/* Adds the frames of one file, but for its seal. */
static void add_segment(struct compacting *new, const char *path, struct segment_header *like)
{
    struct segment_header stored, header;
    uint32_t unknown;
    size_t len;
    char *bytes = t_file_read(path, &len);
    memcpy(&stored, bytes, sizeof stored);
    assert_int_equal(header_parse(&stored, &header, &unknown), 0);
    *like = header;
    bool sealed = false;
    for (size_t at = SEGMENT_HEADER_REGION; at < len;) {
        struct frame frame;
        assert_false(sealed);
        assert_int_equal(
            frame_parse((uint8_t *)bytes + at, len - at, header.salt, at, &frame, NULL),
            FRAME_GOOD);
        at += frame_size(frame.length);
        sealed = frame.type == FRAME_SEAL;
        if (frame.recorded_ms > new->seal.recorded_ms)
            new->seal.recorded_ms = frame.recorded_ms;
        if (sealed)
            continue;
        if (frame.type == FRAME_EVENT || frame.type == FRAME_OPERATION) {
            new->seal.records++;
            new->seal.line_bytes += frame.length;
        }
        put_frame(new, &frame, frame.body);
    }
    assert_true(sealed);
    free(bytes);
}

/* The file that holds the numbers from `first` on, with the highest generation below `below`.
 * Returns its last number. */
static uint32_t find_source(const struct t_store *t, uint32_t first, uint32_t below,
                            char path[T_PATH])
{
    char log[T_PATH], **names;
    uint32_t best = 0, best_last = 0;
    bool found = false;
    t_path(log, t->dir, "log");
    size_t count = t_names(log, ".seg", &names);
    for (size_t i = 0; i < count; i++) {
        uint32_t from, to, generation;
        assert_true(segment_name_parse(names[i], &from, &to, &generation));
        if (from != first || generation >= below || (found && generation < best))
            continue;
        found = true;
        best = generation;
        best_last = to;
        t_path(path, log, "%s", names[i]);
    }
    t_names_free(names, count);
    assert_true(found);
    return best_last;
}

void t_compact(const struct t_store *t, uint32_t first, uint32_t last, uint32_t generation,
               char path[T_PATH])
{
    struct compacting new = {.used = SEGMENT_HEADER_REGION};
    struct segment_header header = {.first = 0};
    char source[T_PATH], text[SEAL_TEXT_MAX];
    new.bytes = calloc(1, SEGMENT_HEADER_REGION);
    assert_non_null(new.bytes);
    new.salt = UINT32_C(0x5eed0000) ^ first << 8 ^ last << 4 ^ generation;
    for (uint32_t number = first; number <= last;) {
        number = find_source(t, number, generation, source) + 1;
        assert_true(number <= last + 1);
        add_segment(&new, source, &header);
    }
    new.seal.end = new.used;
    struct frame frame = {
        .length = (uint32_t)seal_encode(&new.seal, text),
        .recorded_ms = new.seal.recorded_ms,
        .type = FRAME_SEAL,
        .flags = FRAME_FIRST_OF_BATCH | FRAME_LAST_OF_BATCH,
    };
    put_frame(&new, &frame, text);
    header.first = first;
    header.last = last;
    header.generation = generation;
    header.salt = new.salt;
    header_finish(&header);
    memcpy(new.bytes + SEGMENT_HEADER_FIRST, &header, sizeof header);
    memcpy(new.bytes + SEGMENT_HEADER_SECOND, &header, sizeof header);
    t_path(path, t->dir, "log/%08x-%08x.%x.seg", first, last, generation);
    t_file_write(path, new.bytes, new.used);
    free(new.bytes);
}
