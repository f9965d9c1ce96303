/* support_store.c - stores for tests: opening, crashing, appending, whole logs. */
#include "support.h"

#include <fcntl.h>
#include <inttypes.h>
#include <unistd.h>

#include "../../store/scan.h"
#include "../../store/segment.h"

static void take_report(void *context, enum hl_severity severity, const char *sentence)
{
    struct t_store *t = context;
    pthread_mutex_lock(&t->lock);
    t->warnings += severity == HL_WARNING;
    t->errors += severity == HL_ERROR;
    if (severity == HL_ERROR || (severity == HL_WARNING && t->errors == 0))
        snprintf(t->last_error, sizeof t->last_error, "%s", sentence);
    pthread_mutex_unlock(&t->lock);
    if (getenv("HL_TEST_REPORTS"))
        fprintf(stderr, "%s: %s\n", severity == HL_ERROR ? "error" : "note", sentence);
}

void t_store_init(struct t_store *t)
{
    memset(t, 0, sizeof *t);
    t_dir_make(t->dir);
    hl_options_init(&t->options);
    t->options.segment_size = 64 * 1024;
    t->options.sync_interval_ms = 3600 * 1000;
    t->options.report = take_report;
    t->options.report_context = t;
    pthread_mutex_init(&t->lock, NULL);
}

void t_store_watch(struct t_store *t)
{
    assert_null(t->store);
    assert_false(t->own_io);
    t_io_init(&t->io);
    t->own_io = true;
    t->options.io = &t->io.io;
}

void t_store_free(struct t_store *t)
{
    if (t->store)
        hl_store_close(t->store);
    t->store = NULL;
    if (t->own_io)
        t_io_free(&t->io);
    pthread_mutex_destroy(&t->lock);
    t_dir_remove(t->dir);
}

int t_try_open(struct t_store *t)
{
    assert_null(t->store);
    t->warnings = t->errors = 0;
    return hl_store_open(t->dir, &t->options, &t->store, NULL, &t->err);
}

void t_open(struct t_store *t)
{
    int error = t_try_open(t);
    if (error < 0)
        fail_msg("open: %s (%s)", t->err.text, strerror(-error));
}

void t_close(struct t_store *t)
{
    int error = hl_store_close(t->store);
    t->store = NULL;
    if (error < 0)
        fail_msg("close: %s; %s", strerror(-error), t->last_error);
}

void t_reopen(struct t_store *t)
{
    t_close(t);
    t_open(t);
}

void t_crash(struct t_store *t)
{
    char image[T_PATH];
    t_dir_make(image);
    t_dir_copy(t->dir, image);
    /* Only now: closing syncs, flushes and writes, in the directory that is thrown away. */
    hl_store_close(t->store);
    t->store = NULL;
    t_dir_remove(t->dir);
    snprintf(t->dir, sizeof t->dir, "%s", image);
}

/* ---- appending ---- */

uint32_t t_session(struct t_store *t, const char *id)
{
    struct hl_session session;
    int error = hl_session_create(t->store, id, strlen(id), 1000, 1001, 0640, &session, &t->err);
    if (error < 0)
        fail_msg("session %s: %s", id, t->err.text);
    return session.number;
}

uint32_t t_number(struct t_store *t, const char *id)
{
    struct hl_session session;
    int error = hl_session_by_id(t->store, id, strlen(id), &session);
    if (error < 0)
        fail_msg("session %s: %s", id, strerror(-error));
    return session.number;
}

uint64_t t_verify(struct t_store *t)
{
    struct hl_verify_report report;
    assert_int_equal(hl_verify(t->store, &report, NULL, &t->err), 0);
    assert_int_equal(report.damaged_gaps + report.broken_batches, 0);
    assert_int_equal(report.index_missing, 0);
    assert_int_equal(report.index_dangling, 0);
    return report.records;
}

int t_try_append(struct t_store *t, uint32_t session, const char *data, size_t len)
{
    struct hl_append request = {
        .session = session, .data = data, .len = len, .uid = 1000, .gid = 1001, .mode = 0640};
    return hl_append(t->store, &request, &t->err);
}

void t_append(struct t_store *t, uint32_t session, const char *text)
{
    int error = t_try_append(t, session, text, strlen(text));
    if (error < 0)
        fail_msg("append: %s (%s)", t->err.text, strerror(-error));
}

void t_append_format(struct t_store *t, uint32_t session, const char *format, ...)
{
    char text[8192];
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    assert_true(n >= 0 && n < (int)sizeof text);
    t_append(t, session, text);
}

void t_fill(struct t_store *t, uint32_t session, unsigned count, unsigned batch, unsigned spread,
            uint64_t *chance)
{
    size_t room = (size_t)batch * (spread + 64), used = 0;
    char *text = malloc(room);
    assert_non_null(text);
    for (unsigned i = 0; i < count; i++) {
        unsigned pad = spread ? (unsigned)t_below(chance, spread) : 0;
        used += (size_t)snprintf(text + used, room - used, "{\"n\":%u,\"r\":%" PRIu64 ",\"p\":\"",
                                 i, t_below(chance, 1000000));
        memset(text + used, 'a' + (int)t_below(chance, 26), pad);
        used += pad;
        memcpy(text + used, "\"}\n", 3);
        used += 3;
        if ((i + 1) % batch == 0 || i + 1 == count) {
            int error = t_try_append(t, session, text, used);
            if (error < 0)
                fail_msg("append: %s", t->err.text);
            used = 0;
        }
    }
    free(text);
}

/* ---- segments ---- */

uint32_t t_last_segment(const struct t_store *t)
{
    char log[T_PATH], **names;
    uint32_t number = 0;
    t_path(log, t->dir, "log");
    size_t count = t_names(log, ".seg", &names);
    if (count)
        number = (uint32_t)strtoul(names[count - 1], NULL, 16);
    t_names_free(names, count);
    return number;
}

void t_segment_path(const struct t_store *t, uint32_t number, char path[T_PATH])
{
    if (number == 0)
        number = t_last_segment(t);
    t_path(path, t->dir, "log/%08x-%08x.0.seg", number, number);
}

static void check_segment(struct segment_set *set, const char *name, bool last)
{
    struct segment *segment;
    struct scan scan;
    struct scan_item item;
    bool sealed = false;
    uint64_t size;
    assert_int_equal(segment_load(set, name, &segment, NULL), 0);
    assert_int_equal(hl_io_size(set->io, segment->fd, &size), 0);
    scan_init(&scan, set->io, segment->fd, segment->salt, SEGMENT_HEADER_REGION, size);
    for (;;) {
        assert_int_equal(scan_next(&scan, &item), 0);
        if (item.kind == SCAN_END)
            break;
        assert_int_equal(item.kind, SCAN_FRAME);
        if (sealed)
            fail_msg("segment %s goes on behind its seal", name);
        sealed = item.frame.type == FRAME_SEAL;
    }
    if (!sealed && !last)
        fail_msg("segment %s has no seal, and is not the last", name);
    scan_free(&scan);
    segment_free(set, segment);
}

void t_check_log(const struct t_store *t)
{
    char log[T_PATH], **names;
    struct segment_set set;
    t_path(log, t->dir, "log");
    int fd = open(log, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    segment_set_init(&set, &hl_io_system, fd, false);
    size_t count = t_names(log, ".seg", &names);
    assert_true(count > 0);
    for (size_t i = 0; i < count; i++)
        check_segment(&set, names[i], i + 1 == count);
    t_names_free(names, count);
    segment_set_free(&set);
    close(fd);
}

/* ---- whole logs ---- */

bool t_has(const char *bytes, size_t len, const char *text)
{
    return memmem(bytes, len, text, strlen(text)) != NULL;
}

typedef ssize_t read_piece(struct hl_store *store, uint32_t session, uint64_t offset, void *buffer,
                           size_t size);

static ssize_t session_piece(struct hl_store *store, uint32_t session, uint64_t offset,
                             void *buffer, size_t size)
{
    return hl_log_read(store, session, offset, buffer, size, NULL);
}

static ssize_t root_piece(struct hl_store *store, uint32_t session, uint64_t offset, void *buffer,
                          size_t size)
{
    (void)session;
    return hl_root_log_read(store, offset, buffer, size, NULL);
}

static char *read_all(struct hl_store *store, uint32_t session, size_t piece, read_piece *read_one,
                      size_t *len)
{
    size_t used = 0, capacity = 0;
    char *out = NULL;
    for (;;) {
        if (capacity < used + piece + 1) {
            capacity = 2 * (used + piece + 1);
            out = realloc(out, capacity);
            assert_non_null(out);
        }
        ssize_t n = read_one(store, session, used, out + used, piece);
        if (n < 0)
            fail_msg("reading the log of %u at %zu: %s", session, used, strerror((int)-n));
        used += (size_t)n;
        if ((size_t)n < piece)
            break;
    }
    out = realloc(out, used + 1);
    assert_non_null(out);
    out[used] = 0;
    *len = used;
    return out;
}

char *t_log(struct hl_store *store, uint32_t session, size_t piece, size_t *len)
{
    return read_all(store, session, piece, session_piece, len);
}

char *t_root_log(struct hl_store *store, size_t piece, size_t *len)
{
    return read_all(store, 0, piece, root_piece, len);
}
