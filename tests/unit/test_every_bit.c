/*
 * test_every_bit.c - each bit of a log of 64 KiB flipped, the log cut at each length, and damage of
 * other shapes: no record is ever wrong, whatever is undamaged is read, and what is lost is told.
 *
 * A state is opened, or met, in one of these ways:
 *
 *   mounted  in a store that is open while it comes
 *   alone    read-only, with no index: all comes from what the segments hold
 *   lost     to be written to, with no index; something is appended then, and it is opened again
 *   kept     the same, with an index that knew a part of the log
 *
 * mounted and alone take every bit; the other two, which write and sync, every EVERY_BIT_STRIDE-th,
 * from a place that SEED says (1: all of them). Workers (WORKERS) share them out, each with a
 * directory of its own; which state one was at when it failed is printed, and STATE="WAY KIND
 * NUMBER" runs that one alone.
 */
#include "every_bit.h"

#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define LOG_SIZE UINT64_C(65536)
#define WORKERS_MAX 16U

enum way { MOUNTED, ALONE, LOST, KEPT, WAYS };
enum kind { FLIP, CUT, ZEROS, COPY, CLUTTER, KINDS };
static const char *const way_names[WAYS] = {"mounted", "alone", "lost", "kept"};
static const char *const kind_names[KINDS] = {"flip", "cut", "zeros", "copy", "clutter"};

/* What all workers share, before they are forked. */
static struct log_model model;
static char base[T_PATH];         /* the store as it was written */
static const char *index_of_part; /* the name below base of the index that knew a part */
static uint64_t seed;

/* A worker's own. */
struct worker {
    char dir[T_PATH];
    int files[FILES_MAX];
    struct hl_io io;
    struct hl_options options;
    struct hl_store *store;
    unsigned told;
    char state[100];
    bool bad;
    uint64_t damage_found;
};

#define CHECK(worker, condition, ...)                                  \
    do {                                                               \
        if (!(condition)) {                                            \
            (worker)->bad = true;                                      \
            fprintf(stderr, "STATE=\"%s\": ", (worker)->state);        \
            fprintf(stderr, __VA_ARGS__);                              \
            fprintf(stderr, " (%s, line %d)\n", #condition, __LINE__); \
            return;                                                    \
        }                                                              \
    } while (0)

static void take_report(void *context, enum hl_severity severity, const char *sentence)
{
    struct worker *worker = context;
    if (severity != HL_INFO)
        worker->told++;
    if (getenv("HL_TEST_REPORTS"))
        fprintf(stderr, "said: %s\n", sentence);
}

/* Nothing here is about power cuts. */
static int no_sync(void *context, int fd)
{
    (void)context;
    (void)fd;
    return 0;
}

/* ---- what a store shows ---- */

struct seqs {
    const struct log_frame *expected[FRAMES_MAX];
    bool may_miss[FRAMES_MAX];
    unsigned count, at;
    bool wrong;
};

static bool take_seq(void *context, const struct hl_record *record)
{
    struct seqs *seqs = context;
    while (seqs->at < seqs->count && seqs->expected[seqs->at]->seq != record->seq) {
        if (!seqs->may_miss[seqs->at++])
            seqs->wrong = true;
    }
    if (seqs->at == seqs->count || seqs->expected[seqs->at++]->len != record->length)
        seqs->wrong = true;
    return !seqs->wrong;
}

/* The session's records, and nothing else. exact: those of `gone` are not there; else they may be,
 * or be there as damaged. */
static void check_session(struct worker *worker, const struct damage *damage, unsigned index,
                          uint32_t number, bool exact)
{
    static char log[LOG_SIZE * 2];
    struct seqs seqs = {.count = 0};
    size_t used = 0;
    for (unsigned i = 0; i < model.frame_count; i++) {
        const struct log_frame *frame = &model.frames[i];
        if (!frame->line || frame->session != index || (exact && damage->gone[i]))
            continue;
        seqs.may_miss[seqs.count] = damage->gone[i];
        seqs.expected[seqs.count++] = frame;
    }
    int error = hl_record_list(worker->store, number, 0, false, take_seq, &seqs);
    CHECK(worker, error == 0, "list: %s", strerror(-error));
    while (seqs.at < seqs.count && seqs.may_miss[seqs.at])
        seqs.at++;
    CHECK(worker, !seqs.wrong && seqs.at == seqs.count, "records of %s", session_ids[index]);
    ssize_t got = hl_log_read(worker->store, number, 0, log, sizeof log, NULL);
    CHECK(worker, got >= 0, "log: %s", strerror((int)-got));
    for (unsigned i = 0; i < seqs.count; i++) {
        const struct log_frame *frame = seqs.expected[i];
        bool same =
            used + frame->len <= (size_t)got && memcmp(log + used, frame->line, frame->len) == 0;
        bool blank = used + frame->len <= (size_t)got && log[used] == ' ' &&
                     log[used + frame->len - 1] == '\n';
        CHECK(worker, same || seqs.may_miss[i], "record %llu of %s in its log",
              (unsigned long long)frame->seq, session_ids[index]);
        if (!same && !blank)
            continue; /* it is not there: then what follows must stand here */
        for (size_t at = 0; !same && at + 1 < frame->len; at++)
            CHECK(worker, log[used + at] == ' ', "what stands for a damaged record");
        used += frame->len;
    }
    CHECK(worker, used == (size_t)got, "the log of %s goes on", session_ids[index]);
}

/* Each record by its number. */
static void check_records(struct worker *worker, const struct damage *damage, unsigned index,
                          uint32_t number, unsigned from, unsigned to)
{
    char line[BODY_MAX];
    for (unsigned i = from; i < to; i++) {
        const struct log_frame *frame = &model.frames[i];
        if (!frame->line || frame->session != index)
            continue;
        ssize_t got = hl_record_read(worker->store, number, frame->seq, line, sizeof line, 0);
        if (got == -ENOENT || got == -EBADMSG)
            CHECK(worker, damage->gone[i], "record %llu of %s: %s", (unsigned long long)frame->seq,
                  session_ids[index], strerror((int)-got));
        else
            CHECK(worker, got == (ssize_t)frame->len && memcmp(line, frame->line, frame->len) == 0,
                  "record %llu of %s", (unsigned long long)frame->seq, session_ids[index]);
    }
}

/* Documents are the fold of the operations that are left. */
static void check_documents(struct worker *worker, const struct damage *damage, unsigned index,
                            uint32_t number)
{
    for (unsigned key = 0; key < KEYS; key++) {
        int expected = -1;
        for (unsigned i = 0; i < model.frame_count; i++) {
            if (model.frames[i].key == (int)key && model.frames[i].session == index &&
                !damage->gone[i])
                expected = model.frames[i].set;
        }
        struct hl_document document;
        char name[8], value[32];
        int len = snprintf(name, sizeof name, "k%u", key);
        int error =
            hl_document_find(worker->store, number, HL_AREA_STATE, name, (size_t)len, &document);
        if (expected < 0) {
            CHECK(worker, error == -ENOENT, "document %s of %s: %d", name, session_ids[index],
                  error);
            continue;
        }
        CHECK(worker, error == 0, "document %s of %s: %s", name, session_ids[index],
              strerror(-error));
        ssize_t got =
            hl_document_read(worker->store, number, &document, value, sizeof value - 1, 0);
        CHECK(worker, got > 0, "document %s of %s: %s", name, session_ids[index],
              strerror((int)-got));
        value[got] = '\0';
        CHECK(worker, atoi(value) == expected, "document %s of %s is %s, not %d", name,
              session_ids[index], value, expected);
    }
}

static bool is_left(const struct damage *damage, unsigned index)
{
    for (unsigned i = 0; i < model.frame_count; i++) {
        if (model.frames[i].line && model.frames[i].session == index && !damage->gone[i])
            return true;
    }
    return false;
}

/* All of it. `exact`: as a recovery without an index leaves it. */
static void check_store(struct worker *worker, const struct damage *damage, bool exact)
{
    for (unsigned index = 0; index < SESSIONS && !worker->bad; index++) {
        struct hl_session session;
        int error = hl_session_by_id(worker->store, session_ids[index], strlen(session_ids[index]),
                                     &session);
        if (error == -ENOENT && damage->any && !is_left(damage, index))
            continue;
        CHECK(worker, error == 0, "session %s: %s", session_ids[index], strerror(-error));
        CHECK(worker, session.number == index + 1, "the number of %s", session_ids[index]);
        check_session(worker, damage, index, session.number, exact);
        if (!exact && !worker->bad)
            check_records(worker, damage, index, session.number, 0, model.frame_count);
        if (exact && !worker->bad)
            check_documents(worker, damage, index, session.number);
    }
}

/* ---- states ---- */

struct state {
    enum kind kind;
    uint64_t number;
    struct damage damage;
    unsigned file;
    uint64_t offset, length; /* what is written there; of a cut: where, and 0 */
    uint8_t bytes[BODY_MAX + 64];
};

static uint64_t states_of(enum kind kind)
{
    switch (kind) {
    case FLIP:
        return model.total * 8;
    case CUT:
        return model.total;
    case ZEROS:
        return 2000;
    case COPY:
        return 2000;
    default:
        return 2000;
    }
}

static const struct log_frame *some_frame(uint64_t *chance)
{
    return &model.frames[t_below(chance, model.frame_count)];
}

/* A frame of the log over another one, of this segment or another: it is valid where it was only.
 */
static void make_copy(struct state *state, uint64_t *chance)
{
    const struct log_frame *from = some_frame(chance), *to = some_frame(chance);
    if (from->size > sizeof state->bytes)
        from = &model.frames[0];
    state->file = to->file;
    state->offset = to->offset;
    state->length = from->size;
    if (state->offset + state->length > model.files[state->file].size)
        state->length = model.files[state->file].size - state->offset;
    memcpy(state->bytes, model.files[from->file].bytes + from->offset, state->length);
}

static bool make_state(struct state *state, enum kind kind, uint64_t number)
{
    uint64_t chance = seed ^ number * UINT64_C(0x9E3779B97F4A7C15) ^ (uint64_t)kind, at = number;
    memset(state, 0, offsetof(struct state, bytes));
    state->kind = kind;
    state->number = number;
    if (kind == FLIP || kind == CUT) {
        at = kind == FLIP ? number / 8 : number;
        while (at >= model.files[state->file].size)
            at -= model.files[state->file++].size;
        state->offset = at;
        state->length = kind == FLIP;
    } else if (kind == COPY) {
        make_copy(state, &chance);
    } else {
        state->file = (unsigned)t_below(&chance, model.file_count);
        static const uint64_t sizes[] = {8, 32, 512, 4096};
        uint64_t size = sizes[t_below(&chance, 4)];
        const struct log_file *file = &model.files[state->file];
        state->offset = t_below(&chance, file->size) / size * size;
        state->length = size < file->size - state->offset ? size : file->size - state->offset;
    }
    const struct log_file *file = &model.files[state->file];
    if (kind == FLIP)
        state->bytes[0] = file->bytes[state->offset] ^ (uint8_t)(1U << number % 8);
    if (kind == ZEROS)
        memset(state->bytes, 0, state->length);
    for (uint64_t i = 0; kind == CLUTTER && i < state->length; i++)
        state->bytes[i] = (uint8_t)t_random(&chance);
    uint64_t begin = state->offset, end = kind == CUT ? file->size : begin + state->length;
    if (kind != CUT) { /* only what differs is damaged */
        while (begin < end && file->bytes[begin] == state->bytes[begin - state->offset])
            begin++;
        while (end > begin && file->bytes[end - 1] == state->bytes[end - 1 - state->offset])
            end--;
    }
    if (begin == end)
        return false;
    damage_bytes(&model, &state->damage, state->file, begin, end);
    damage_settle(&model, &state->damage);
    /* Zeros up to the end are what a segment holds where nothing was written yet. */
    if (kind == CUT || (kind == ZEROS && state->offset + state->length == file->size))
        state->damage.clean = ends_well(&model, state->file, begin);
    return true;
}

static void apply(struct worker *worker, const struct state *state)
{
    int fd = worker->files[state->file];
    if (state->kind == CUT)
        assert_int_equal(ftruncate(fd, (off_t)state->offset), 0);
    else
        assert_int_equal(pwrite(fd, state->bytes, state->length, (off_t)state->offset),
                         state->length);
}

static void take_back(struct worker *worker, const struct state *state)
{
    const struct log_file *file = &model.files[state->file];
    uint64_t length = state->kind == CUT ? file->size - state->offset : state->length;
    assert_int_equal(pwrite(worker->files[state->file], file->bytes + state->offset, length,
                            (off_t)state->offset),
                     length);
}

/* ---- the ways ---- */

static void open_files(struct worker *worker)
{
    char path[T_PATH];
    for (unsigned i = 0; i < model.file_count; i++) {
        if (worker->files[i] > 0)
            close(worker->files[i]);
        t_path(path, worker->dir, "log/%s", model.files[i].name);
        worker->files[i] = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        assert_true(worker->files[i] >= 0);
    }
}

/* The directory as it was written, with or without the index that knew a part. */
static void reset(struct worker *worker, bool with_index)
{
    char path[T_PATH], from[T_PATH];
    t_dir_remove(worker->dir);
    assert_int_equal(mkdir(worker->dir, 0700), 0);
    t_path(path, worker->dir, "log");
    assert_int_equal(mkdir(path, 0700), 0);
    for (unsigned i = 0; i < model.file_count; i++) {
        t_path(path, worker->dir, "log/%s", model.files[i].name);
        t_file_write(path, model.files[i].bytes, model.files[i].size);
    }
    if (with_index) {
        t_path(path, worker->dir, "index");
        t_path(from, base, "%s", index_of_part);
        t_dir_copy(from, path);
    }
    open_files(worker);
}

static int open_store(struct worker *worker, bool read_only)
{
    struct hl_error err;
    worker->told = 0;
    worker->options.read_only = read_only;
    int error = hl_store_open(worker->dir, &worker->options, &worker->store, NULL, &err);
    if (error < 0)
        fprintf(stderr, "STATE=\"%s\": open: %s (%s)\n", worker->state, err.text, strerror(-error));
    return error;
}

static void close_store(struct worker *worker)
{
    int error = hl_store_close(worker->store);
    worker->store = NULL;
    CHECK(worker, error == 0, "close: %s", strerror(-error));
}

static void run_mounted(struct worker *worker, const struct state *state)
{
    const struct damage *damage = &state->damage;
    if (state->kind == CUT || damage->header)
        return; /* nobody cuts an open store's files; headers are read at the opening */
    if (!worker->store && open_store(worker, false) < 0) {
        worker->bad = true;
        return;
    }
    apply(worker, state);
    /* What is hit and what stands beside it; and now and then all there is. */
    if (state->number % 4099 == 0)
        check_store(worker, damage, false);
    unsigned from = 0, to = 0;
    for (unsigned i = 0; i < model.frame_count; i++) {
        if (damage->hit[i] && to == 0)
            from = i > 0 ? i - 1 : 0;
        if (damage->hit[i])
            to = i + 2 < model.frame_count ? i + 2 : model.frame_count;
    }
    struct damage hit = *damage;
    memcpy(hit.gone, damage->hit, sizeof hit.gone); /* nothing else is lost while it is open */
    for (unsigned index = 0; index < SESSIONS && !worker->bad; index++)
        check_records(worker, &hit, index, index + 1, from, to);
    take_back(worker, state);
}

/* Nothing has to be said. */
static bool is_quiet(const struct damage *damage)
{
    return damage->clean || (!damage->any && !damage->header);
}

static void run_alone(struct worker *worker, const struct state *state)
{
    apply(worker, state);
    int error = open_store(worker, true);
    CHECK(worker, error == 0 || (state->damage.no_headers & 3U) == 3U, "it cannot be opened");
    if (error == 0) {
        check_store(worker, &state->damage, true);
        CHECK(worker, worker->told > 0 || is_quiet(&state->damage),
              "nothing was said of the damage");
        close_store(worker);
    }
    take_back(worker, state);
}

static void append_one(struct worker *worker, const char *text)
{
    struct hl_error err = {0};
    struct hl_append request = {.data = text, .len = strlen(text), .mode = 0700};
    int error = hl_append(worker->store, &request, &err);
    CHECK(worker, error == 0, "append: %s", err.text);
}

static void run_written(struct worker *worker, const struct state *state, bool with_index)
{
    char line[200];
    struct hl_session session;
    reset(worker, with_index);
    apply(worker, state);
    int error = open_store(worker, false);
    CHECK(worker, error == 0, "it cannot be opened");
    check_store(worker, &state->damage, !with_index);
    CHECK(worker, with_index || worker->told > 0 || is_quiet(&state->damage),
          "nothing was said of the damage");
    for (int round = 0; round < 2 && !worker->bad; round++) {
        append_one(worker, round ? "{\"session_id\":\"new\",\"n\":2}\n"
                                 : "{\"session_id\":\"new\",\"n\":1}\n");
        if (worker->bad)
            return;
        close_store(worker);
        error = worker->bad ? 0 : open_store(worker, false);
        CHECK(worker, error == 0, "it cannot be opened again");
        check_store(worker, &state->damage, !with_index);
        if (worker->bad)
            return;
        error = hl_session_by_id(worker->store, "new", 3, &session);
        CHECK(worker, error == 0 && session.records == (uint64_t)round + 1, "what was appended");
        ssize_t got = hl_record_read(worker->store, session.number, (uint64_t)round + 1, line,
                                     sizeof line, 0);
        CHECK(worker, got > 0 && memmem(line, (size_t)got, round ? "\"n\":2" : "\"n\":1", 5),
              "the line that was appended");
    }
    if (!worker->bad)
        close_store(worker);
}

static void run_state(struct worker *worker, enum way way, enum kind kind, uint64_t number)
{
    static struct state state;
    snprintf(worker->state, sizeof worker->state, "%s %s %llu", way_names[way], kind_names[kind],
             (unsigned long long)number);
    if (!make_state(&state, kind, number))
        return;
    switch (way) {
    case MOUNTED:
        run_mounted(worker, &state);
        break;
    case ALONE:
        run_alone(worker, &state);
        break;
    default:
        run_written(worker, &state, way == KEPT);
        break;
    }
}

/* ---- sharing them out ---- */

struct board {
    _Atomic uint64_t next, done;
    _Atomic uint64_t at[WORKERS_MAX]; /* the number each is at, for one that dies */
};

#define CHUNK 64U

static void worker_begin(struct worker *worker)
{
    memset(worker, 0, sizeof *worker);
    t_dir_make(worker->dir);
    worker->io = hl_io_system;
    worker->io.fsync = worker->io.fdatasync = no_sync;
    hl_options_init(&worker->options);
    worker->options.segment_size = LOG_SIZE;
    worker->options.sync_interval_ms = 3600 * 1000;
    worker->options.io = &worker->io;
    worker->options.report = take_report;
    worker->options.report_context = worker;
}

static void worker_end(struct worker *worker)
{
    if (worker->store)
        hl_store_close(worker->store);
    for (unsigned i = 0; i < model.file_count; i++)
        if (worker->files[i] > 0)
            close(worker->files[i]);
    t_dir_remove(worker->dir);
}

static void work(struct board *board, unsigned me, enum way way, enum kind kind, uint64_t stride,
                 uint64_t first)
{
    static struct worker worker;
    uint64_t states = states_of(kind);
    worker_begin(&worker);
    reset(&worker, way == MOUNTED);
    for (;;) {
        uint64_t chunk = atomic_fetch_add(&board->next, CHUNK);
        if (first + chunk * stride >= states)
            break;
        for (uint64_t i = chunk; i < chunk + CHUNK && first + i * stride < states; i++) {
            atomic_store(&board->at[me], first + i * stride);
            run_state(&worker, way, kind, first + i * stride);
            if (worker.bad)
                break;
            atomic_fetch_add(&board->done, 1);
        }
        if (worker.bad)
            break;
    }
    worker_end(&worker);
    exit(worker.bad); /* with leaks told of, where they are looked for */
}

static void run_all(enum way way, enum kind kind, uint64_t stride)
{
    unsigned workers = t_amount("WORKERS", (unsigned)sysconf(_SC_NPROCESSORS_ONLN));
    workers = workers < 1 ? 1 : workers > WORKERS_MAX ? WORKERS_MAX : workers;
    struct board *board =
        mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(board, MAP_FAILED);
    uint64_t chance = seed ^ (uint64_t)way << 8 ^ (uint64_t)kind, first = t_below(&chance, stride);
    pid_t pids[WORKERS_MAX];
    fflush(NULL);
    for (unsigned i = 0; i < workers; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0)
            work(board, i, way, kind, stride, first);
    }
    unsigned failed = 0;
    for (unsigned i = 0; i < workers; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        if (WIFSIGNALED(status))
            fprintf(stderr, "killed by signal %d at SEED=%llu STATE=\"%s %s %llu\"\n",
                    WTERMSIG(status), (unsigned long long)seed, way_names[way], kind_names[kind],
                    (unsigned long long)atomic_load(&board->at[i]));
        failed += status != 0;
    }
    fprintf(stderr, "%s %s: %llu states\n", way_names[way], kind_names[kind],
            (unsigned long long)atomic_load(&board->done));
    assert_true(atomic_load(&board->done) > 0);
    munmap(board, sizeof *board);
    assert_int_equal(failed, 0);
}

/* ---- cases ---- */

static uint64_t stride_of(enum way way)
{
    uint64_t all = t_slow() ? 997 : 1;
    return way == MOUNTED || way == ALONE ? t_amount("EVERY_BIT_READ_STRIDE", (unsigned)all)
                                          : t_amount("EVERY_BIT_STRIDE", t_slow() ? 9973 : 499);
}

static void run_way(enum way way)
{
    const char *one = getenv("STATE");
    if (one) {
        static struct worker worker;
        char way_name[16], kind_name[16];
        unsigned long long number;
        assert_int_equal(sscanf(one, "%15s %15s %llu", way_name, kind_name, &number), 3);
        if (strcmp(way_name, way_names[way]) != 0)
            return;
        worker_begin(&worker);
        reset(&worker, way == MOUNTED);
        for (int kind = 0; kind < KINDS; kind++)
            if (strcmp(kind_name, kind_names[kind]) == 0)
                run_state(&worker, way, (enum kind)kind, number);
        worker_end(&worker);
        assert_false(worker.bad);
        return;
    }
    for (int kind = 0; kind < KINDS; kind++) {
        uint64_t stride = stride_of(way);
        if (kind == CUT && way == MOUNTED)
            continue;
        if (kind != FLIP && stride > 8)
            stride = stride / 8;
        uint64_t most = t_slow() ? 40 : 8;
        if (kind > CUT && stride > most)
            stride = most;
        run_all(way, (enum kind)kind, stride);
    }
}

static void test_mounted(void **state)
{
    (void)state;
    run_way(MOUNTED);
}

static void test_alone(void **state)
{
    (void)state;
    run_way(ALONE);
}

static void test_lost(void **state)
{
    (void)state;
    run_way(LOST);
}

static void test_kept(void **state)
{
    (void)state;
    run_way(KEPT);
}

static int make_base(void **state)
{
    (void)state;
    struct t_store t;
    char from[T_PATH], to[T_PATH];
    if (access("/dev/shm", W_OK) == 0) /* in memory: the same, but faster */
        setenv("TMPDIR", "/dev/shm", 1);
    seed = t_seed("every bit");
    uint64_t chance = seed;
    t_store_init(&t);
    t.options.segment_size = LOG_SIZE * 5 / 8;
    model_write(&t, &chance, LOG_SIZE / 2);
    assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
    t_path(from, t.dir, "index");
    t_path(to, t.dir, "index-of-part");
    t_dir_copy(from, to);
    /* The sessions are there already: go on until it is large enough. */
    struct hl_status status;
    unsigned at = 1000;
    do {
        write_lines(&t, 1 + (uint32_t)t_below(&chance, SESSIONS), at++, &chance);
        assert_int_equal(hl_store_status(t.store, &status), 0);
    } while (status.log_bytes < LOG_SIZE);
    t_close(&t);
    index_of_part = "index-of-part";
    model_read(&model, t.dir);
    assert_true(model.total >= LOG_SIZE);
    snprintf(base, sizeof base, "%s", t.dir);
    pthread_mutex_destroy(&t.lock);
    return 0;
}

static int free_base(void **state)
{
    (void)state;
    model_free(&model);
    t_dir_remove(base);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mounted),
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_lost),
        cmocka_unit_test(test_kept),
    };
    return cmocka_run_group_tests(tests, make_base, free_base);
}
