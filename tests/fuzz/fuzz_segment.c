/*
 * fuzz_segment.c - frames and segments: a log of one or two segments whose bytes are anybody's,
 * with checksums and without, opened read-only and read in every way.
 *
 * Input: a byte of flags, then frames as in a segment behind its header. Bit 0: checksums are not
 * looked at; bit 1: two segments, each with half of it; bit 2: also the header is input.
 */
#include "../../store/segment.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../store/json.h"
#include "../../store/store.h"
#include "fuzz.h"

bool crc_ignored;

#define SALT 0x5a5a5a5aU
#define BUFFER 65536U

static char dir[] = "/dev/shm/hotlogfs-fuzz.XXXXXX";
static char files[2][80];
static struct hl_io io;

static int no_watch(void *context, const char *path)
{
    (void)context;
    (void)path;
    return -1;
}

static void remove_dir(void)
{
    char path[64];
    unlink(files[0]);
    unlink(files[1]);
    snprintf(path, sizeof path, "%s/log", dir);
    rmdir(path);
    snprintf(path, sizeof path, "%s/lock", dir);
    unlink(path);
    rmdir(dir);
}

static void begin(void)
{
    char path[64];
    FUZZ_CHECK(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/log", dir);
    FUZZ_CHECK(mkdir(path, 0700) == 0);
    for (unsigned i = 0; i < 2; i++)
        snprintf(files[i], sizeof files[i], "%s/log/%08x-%08x.0.seg", dir, i + 1, i + 1);
    io = hl_io_system;
    io.watch = no_watch;
    atexit(remove_dir);
}

static void write_segment(unsigned which, const uint8_t *data, size_t size, bool own_header)
{
    uint8_t region[SEGMENT_HEADER_REGION];
    struct segment segment = {.first = which + 1, .last = which + 1, .salt = SALT, .created_ms = 1};
    segment_header_region(&segment, region);
    int fd = open(files[which], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FUZZ_CHECK(fd >= 0);
    if (!own_header)
        FUZZ_CHECK(write(fd, region, sizeof region) == (ssize_t)sizeof region);
    FUZZ_CHECK(size == 0 || write(fd, data, size) == (ssize_t)size);
    close(fd);
}

static bool count_record(void *context, const struct hl_record *record)
{
    uint64_t *before = context;
    FUZZ_CHECK(*before == UINT64_MAX || record->seq > *before);
    FUZZ_CHECK(record->seq <= HL_SEQ_MAX && record->length > 0);
    *before = record->seq;
    return true;
}

static bool count_document(void *context, const struct hl_document *document)
{
    FUZZ_CHECK(document->key_len > 0 && document->key_len <= HL_KEY_MAX);
    ++*(uint64_t *)context;
    return true;
}

static void read_session(struct hl_store *store, const struct hl_session *session)
{
    static char buffer[BUFFER];
    uint64_t before = UINT64_MAX, documents = 0;
    struct hl_document document;
    FUZZ_CHECK(session->id_len <= HL_ID_MAX);
    (void)hl_record_list(store, session->number, 0, true, count_record, &before);
    uint64_t offset = 0;
    for (ssize_t got; (got = hl_log_read(store, session->number, offset, buffer, 4096, NULL)) > 0;)
        offset += (uint64_t)got;
    FUZZ_CHECK(offset <= session->bytes);
    (void)hl_document_list(store, session->number, HL_AREA_STATE, 0, count_document, &documents);
    (void)hl_history_list(store, session->number, 0, count_document, &documents);
    for (uint64_t number = 2; number < 6; number++) {
        if (hl_document_by_number(store, session->number, number, &document) == 0)
            (void)hl_document_read(store, session->number, &document, buffer, sizeof buffer, 0);
        (void)hl_history_read(store, session->number, number, 0, buffer, sizeof buffer, NULL);
    }
    (void)hl_document_find_at(store, session->number, session->last_seq / 2, "k", 1, &document);
    (void)hl_attribute_list(store, session->number, buffer, sizeof buffer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool begun;
    static char buffer[BUFFER];
    if (!begun)
        begin();
    begun = true;
    if (size < 1)
        return 0;
    unsigned flags = data[0];
    size_t half = flags & 2 ? (size - 1) / 2 / 8 * 8 : size - 1;
    crc_ignored = flags & 1;
    write_segment(0, data + 1, half, flags & 4);
    if (flags & 2)
        write_segment(1, data + 1 + half, size - 1 - half, flags & 4);
    else
        unlink(files[1]);
    struct hl_options options;
    struct hl_store *store;
    hl_options_init(&options);
    options.read_only = true;
    options.io = &io;
    if (hl_store_open(dir, &options, &store, NULL, NULL) < 0)
        return 0;
    struct hl_session session;
    for (uint32_t after = 0; hl_session_next(store, after, &session) == 0; after = session.number) {
        FUZZ_CHECK(session.number > after);
        read_session(store, &session);
    }
    uint64_t offset = 0;
    for (ssize_t got; (got = hl_root_log_read(store, offset, buffer, 4096, NULL)) > 0;)
        offset += (uint64_t)got;
    struct hl_status status;
    (void)hl_store_status(store, &status);
    FUZZ_CHECK(hl_store_close(store) == 0);
    return 0;
}
