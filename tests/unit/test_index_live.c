/*
 * test_index_live.c - bits of index/ and checkpoints/ flipped, and the files cut, under a whole
 * store: when it is closed, and while it is open.
 *
 * Closed: it opens, and shows all that the log holds. Open: it may end by any signal, but no record
 * is wrong; and the next opening comes to an end and shows all that was acknowledged.
 */
#include "support.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define SESSIONS 12U
#define PATIENCE 600 /* seconds until an opening counts as one that loops */

static struct t_store base;     /* as a crash left it; never opened again */
static struct t_image expected; /* what it shows */
static uint64_t chance;

static int make_base(void **state)
{
    (void)state;
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1);
    chance = t_seed("index live");
    t_store_init(&base);
    t_open(&base);
    for (unsigned i = 0; i < SESSIONS; i++) {
        char id[16];
        snprintf(id, sizeof id, "s%u", i);
        uint32_t number = t_session(&base, id);
        t_fill(&base, number, 300 + 40 * i, 1 + i, 60, &chance);
        for (unsigned k = 0; k < 40; k++)
            t_append_format(&base, number,
                            "{\"op\":\"set\",\"key\":\"k%u\",\"value\":[%u,\"%0*u\"]}\n", k % 25, k,
                            20 + (int)k, k);
        if (i % 4 == 3)
            assert_int_equal(hl_checkpoint(base.store, NULL, &base.err), 0);
    }
    t_fill(&base, 1, 200, 7, 60, &chance); /* not in the index yet */
    t_image_take(base.store, &expected);
    t_image_freeze(&expected); /* LMDB may write past its own memory */
    t_crash(&base);
    return 0;
}

static int free_base(void **state)
{
    (void)state;
    t_image_free(&expected);
    t_store_free(&base);
    return 0;
}

static void copy_base(struct t_store *t)
{
    char dir[T_PATH];
    t_store_init(t);
    snprintf(dir, sizeof dir, "%s", t->dir);
    t_dir_remove(dir);
    t_dir_copy(base.dir, dir);
}

/* LMDB copies a page as long as the page says that it is: that may end the process by a signal, as
 * it does without a sanitizer. What this project does with memory is not hidden by it. */
const char *__asan_default_suppressions(void);
const char *__asan_default_suppressions(void)
{
    return "interceptor_via_lib:liblmdb\n";
}

/* Runs it in a child, with an end to patience; how it ended. */
static int in_child(void (*run)(struct t_store *t, uint64_t seed), struct t_store *t, uint64_t seed)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        setenv("CMOCKA_TEST_ABORT", "1", 1); /* or it would go on as another runner */
        for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
            signal(signals[i], SIG_DFL); /* the runner's would not let it die */
        alarm(PATIENCE);
        run(t, seed);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* ---- closed ---- */

static void damage_file(const char *path, uint64_t *seed, unsigned round)
{
    uint64_t size = t_file_size(path);
    assert_true(size > 0);
    if (round % 8 == 7) {
        t_file_cut(path, t_below(seed, size));
        return;
    }
    uint64_t at = t_below(seed, size);
    if (round % 4 == 1) /* of a page's header */
        at = at / 4096 * 4096 + t_below(seed, 32);
    if (round % 4 == 2) /* of the pages that say where all begins */
        at = t_below(seed, 2) * 4096 + t_below(seed, 152);
    t_file_flip(path, at, (uint8_t)(1U << t_below(seed, 8)));
}

static void newest_checkpoint(const struct t_store *t, char path[T_PATH])
{
    char dir[T_PATH], **names;
    t_path(dir, t->dir, "checkpoints");
    size_t count = t_names(dir, "", &names);
    assert_true(count > 0);
    t_path(path, dir, "%s", names[count - 1]);
    t_names_free(names, count);
}

static void open_and_compare(struct t_store *t, uint64_t seed)
{
    (void)seed;
    t_open(t);
    t_shows(t->store, &expected);
    t_append(t, 2, "{\"after\":true}\n");
    t_close(t);
    t_open(t);
    struct hl_session session;
    assert_int_equal(hl_session_by_number(t->store, 2, &session), 0);
    const struct t_session_image *was = t_image_find(&expected, session.id);
    assert_int_equal(session.records, was->about.records + 1);
    t_close(t);
}

static void test_closed(void **state)
{
    (void)state;
    unsigned rounds = t_amount("INDEX_ROUNDS", t_slow() ? 16 : 120);
    for (unsigned round = 0; round < rounds; round++) {
        struct t_store t;
        char path[T_PATH], index[T_PATH];
        uint64_t seed = chance ^ round * UINT64_C(0x9E3779B97F4A7C15);
        copy_base(&t);
        t_path(index, t.dir, "index");
        t_path(path, index, "data.mdb");
        if (round % 2) { /* then the newest checkpoint is what there is */
            newest_checkpoint(&t, path);
            t_dir_remove(index);
        }
        damage_file(path, &seed, round / 2);
        int status = in_child(open_and_compare, &t, seed);
        if (status != 0)
            fail_msg("round %u: %s: status %#x", round, path, (unsigned)status);
        t_store_free(&t);
    }
}

/* ---- open ---- */

/* No exit status of a sanitizer, which is 1 or 66, is one of the first two. */
enum shown { SHOWS_ALL = 0, SHOWS_PART = 2, SHOWS_WRONG = 3 };

/* Whatever is given out is true. */
static bool all_true(struct hl_store *store)
{
    static char line[8192];
    for (size_t i = 0; i < expected.count; i++) {
        const struct t_session_image *image = &expected.sessions[i];
        struct hl_session session;
        size_t at = 0;
        if (hl_session_by_id(store, image->about.id, image->about.id_len, &session) < 0)
            continue;
        if (session.number != image->about.number)
            return false;
        for (size_t n = 0; n < image->about.records; at += image->lines[n++].length) {
            ssize_t got =
                hl_record_read(store, session.number, image->lines[n].seq, line, sizeof line, 0);
            if (got >= 0 && (got != (ssize_t)image->lines[n].length ||
                             memcmp(line, image->log + at, (size_t)got) != 0))
                return false;
        }
    }
    return true;
}

static uint32_t *acknowledged; /* appends that returned; shared with the child */

/* A page between two that nobody may touch: what is written past its end ends the process there. */
static void share_acknowledged(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *pages = mmap(NULL, 3 * page, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(pages, MAP_FAILED);
    acknowledged = (uint32_t *)(void *)(pages + page);
    assert_int_equal(mprotect(acknowledged, page, PROT_READ | PROT_WRITE), 0);
}

static void unshare_acknowledged(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    munmap((char *)acknowledged - page, 3 * page);
}

static void damage_open(struct t_store *t, uint64_t seed)
{
    char path[T_PATH];
    t_open(t);
    t_path(path, t->dir, "index/data.mdb");
    unsigned flips = 1 + (unsigned)t_below(&seed, 4);
    for (unsigned i = 0; i < flips; i++)
        damage_file(path, &seed,
                    (unsigned)t_below(&seed, 7)); /* not cut: the map is of its length */
    if (!all_true(t->store))
        _exit(SHOWS_WRONG);
    /* It is written on, with the damage there. */
    for (unsigned i = 0; i < 4; i++) {
        struct hl_append request = {.session = 1 + i, .data = "{\"after\":true}\n", .len = 15};
        if (hl_append(t->store, &request, &t->err) == 0)
            acknowledged[i]++;
        (void)hl_checkpoint(t->store, NULL, &t->err);
    }
    if (!all_true(t->store))
        _exit(SHOWS_WRONG);
    hl_store_close(t->store);
    t->store = NULL;
}

/* Whether it shows all that was acknowledged. What it shows must be true. */
static enum shown look(struct t_store *t)
{
    if (!all_true(t->store))
        return SHOWS_WRONG;
    for (size_t i = 0; i < expected.count; i++) {
        const struct hl_session *about = &expected.sessions[i].about;
        struct hl_session session;
        int error = hl_session_by_number(t->store, about->number, &session);
        if (error == -EBADMSG)
            return SHOWS_PART;
        uint64_t more = about->number <= 4 ? acknowledged[about->number - 1] : 0;
        if (error != 0 || session.records < about->records + more ||
            session.records > about->records + 1)
            return SHOWS_WRONG;
    }
    return SHOWS_ALL;
}

/* The next start. Damage that nobody met before the store was closed may be met by it, or at its
 * end, which then fails; it may even die of that. */
static void start(struct t_store *t, uint64_t seed)
{
    (void)seed;
    if (t_try_open(t) != 0)
        _exit(SHOWS_WRONG);
    enum shown shown = look(t);
    int error = hl_store_close(t->store);
    if (error < 0 && error != -EBADMSG)
        _exit(SHOWS_WRONG);
    _exit(error < 0 && shown == SHOWS_ALL ? SHOWS_PART : shown);
}

/* There is no mark of a clean end any more: this one makes the index anew. */
static void start_again(struct t_store *t, uint64_t seed)
{
    (void)seed;
    t_open(t);
    assert_int_equal(look(t), SHOWS_ALL);
    t_close(t);
}

static void test_open(void **state)
{
    (void)state;
    unsigned rounds = t_amount("INDEX_ROUNDS", t_slow() ? 16 : 120), killed = 0;
    const char *only = getenv("ROUND");
    share_acknowledged();
    for (unsigned round = 0; round < rounds; round++) {
        struct t_store t;
        if (only && round != (unsigned)atoi(only))
            continue;
        uint64_t seed = chance ^ (round + 1000) * UINT64_C(0x9E3779B97F4A7C15);
        memset(acknowledged, 0, 4 * sizeof *acknowledged);
        copy_base(&t);
        int status = in_child(damage_open, &t, seed);
        if (WIFEXITED(status) ? status != 0 : WTERMSIG(status) == SIGALRM)
            fail_msg("round %u: %s: status %#x", round,
                     WIFEXITED(status) ? "a record was wrong" : "it loops", (unsigned)status);
        killed += WIFSIGNALED(status) != 0;
        status = in_child(start, &t, seed);
        if (WIFEXITED(status)
                ? WEXITSTATUS(status) != SHOWS_ALL && WEXITSTATUS(status) != SHOWS_PART
                : WTERMSIG(status) == SIGALRM)
            fail_msg("round %u: the start after it: status %#x", round, (unsigned)status);
        if (status != 0) {
            status = in_child(start_again, &t, seed);
            if (status != 0)
                fail_msg("round %u: the start after that: status %#x", round, (unsigned)status);
        }
        t_store_free(&t);
    }
    fprintf(stderr, "%u rounds, %u ended by a signal\n", rounds, killed);
    unshare_acknowledged();
}

static void damage_header(struct t_store *t, uint64_t bit)
{
    char path[T_PATH];
    t_open(t);
    t_path(path, t->dir, "index/data.mdb");
    t_file_flip(path, 16 + bit / 8, (uint8_t)(1U << bit % 8));
    t_file_flip(path, 4096 + 16 + bit / 8, (uint8_t)(1U << bit % 8));
    hl_store_close(t->store);
    _exit(0);
}

/* LMDB refuses some headers as if it had been asked for what cannot be; the start goes on. */
static void test_headers(void **state)
{
    (void)state;
    share_acknowledged();
    /* From the magic number to the size of a page; 223 is one that was refused. */
    for (uint64_t bit = 1; bit < 256; bit += t_slow() ? 6 : 1) {
        struct t_store t;
        copy_base(&t);
        (void)in_child(damage_header, &t, bit);
        int status = in_child(start, &t, 0);
        if (WIFEXITED(status) && WEXITSTATUS(status) == SHOWS_WRONG)
            fail_msg("bit %u: the start after it: status %#x", (unsigned)bit, (unsigned)status);
        t_store_free(&t);
    }
    unshare_acknowledged();
}

/* A checkpoint is a true copy also of what was damaged when it was made. */
static void spoil_and_checkpoint(struct t_store *t, uint64_t seed)
{
    char path[T_PATH];
    (void)seed;
    t_open(t);
    t_path(path, t->dir, "index/data.mdb");
    uint64_t size = t_file_size(path);
    size_t len;
    char *bytes = t_file_read(path, &len);
    for (uint64_t page = 2; page < size / 4096; page++) {
        /* LMDB's pages with one large value: blocks. Their flags stand at byte 10. */
        if (bytes[page * 4096 + 10] == 4)
            t_file_flip(path, page * 4096 + 60, 1);
    }
    free(bytes);
    assert_int_equal(hl_checkpoint(t->store, NULL, &t->err), 0);
    _exit(0);
}

static void test_checkpoint_of_damage(void **state)
{
    (void)state;
    struct t_store t;
    copy_base(&t);
    int status = in_child(spoil_and_checkpoint, &t, 0);
    assert_int_equal(status, 0);
    assert_int_equal(in_child(open_and_compare, &t, 0), 0);
    t_store_free(&t);
}

/* ---- documents ---- */

#define MADE_MS UINT64_C(1700000000001)
#define SET_MS UINT64_C(1700000123456) /* stands in the index with versions of documents alone */

/* The store's own threads look at it too. */
static uint64_t now(void *context)
{
    return atomic_load((const _Atomic uint64_t *)context);
}

/* Flips a bit of each place in the index that holds these bytes; how many there were. */
static unsigned spoil(const struct t_store *t, const void *bytes, size_t size)
{
    char path[T_PATH];
    size_t len;
    unsigned count = 0;
    t_path(path, t->dir, "index/data.mdb");
    char *content = t_file_read(path, &len);
    const char *end = content + len, *at = content;
    while ((at = memmem(at, (size_t)(end - at), bytes, size)) != NULL) {
        t_file_flip(path, (uint64_t)(at - content), 1);
        at += size;
        count++;
    }
    free(content);
    return count;
}

static bool ignore(void *context, const struct hl_document *document)
{
    (void)document;
    ++*(unsigned *)context;
    return true;
}

static int find_document(struct hl_store *store)
{
    struct hl_document document;
    return hl_document_find(store, 1, HL_AREA_STATE, "a-key-of-its-own", 16, &document);
}

static int find_history(struct hl_store *store)
{
    uint64_t number, size, changed;
    return hl_history_find(store, 1, "a-key-of-its-own", 16, &number, &size, &changed);
}

static int list_state(struct hl_store *store)
{
    unsigned count = 0;
    return hl_document_list(store, 1, HL_AREA_STATE, 0, ignore, &count);
}

static int list_history(struct hl_store *store)
{
    unsigned count = 0;
    return hl_history_list(store, 1, 0, ignore, &count);
}

static int list_at(struct hl_store *store)
{
    unsigned count = 0;
    return hl_document_list_at(store, 1, 2, 0, ignore, &count);
}

static int (*const looks[])(struct hl_store *store) = {find_document, find_history, list_state,
                                                       list_history, list_at};
#define LOOKS (sizeof looks / sizeof looks[0])

/* A store, open, with a document whose versions can be found in the file of the index. */
static void make_documents(struct t_store *t, _Atomic uint64_t *time)
{
    atomic_store(time, MADE_MS);
    t_store_init(t);
    t->options.clock = now;
    t->options.clock_context = time;
    t_open(t);
    uint32_t s = t_session(t, "s");
    atomic_store(time, SET_MS);
    t_append(t, s, "{\"op\":\"set\",\"key\":\"a-key-of-its-own\",\"value\":1}\n");
    t_append(t, s, "{\"op\":\"set\",\"key\":\"a-key-of-its-own\",\"value\":2}\n");
    atomic_store(time, SET_MS + 1000);
    t_append(t, s, "{}\n");
}

/* A look that meets damage leaves no mark of a clean end: the next start makes the index anew. */
static void test_damage_is_noted(void **state)
{
    (void)state;
    for (size_t i = 0; i < LOOKS; i++) {
        struct t_store t;
        _Atomic uint64_t time;
        uint64_t set_ms = htole64(SET_MS);
        make_documents(&t, &time);
        t_reopen(&t); /* the index is believed */
        assert_true(spoil(&t, &set_ms, sizeof set_ms) > 0);
        assert_int_equal(looks[i](t.store), -EBADMSG);
        assert_int_equal(t.errors, 1);
        t_reopen(&t);
        assert_int_equal(looks[i](t.store), 0);
        t_close(&t);
        t_store_free(&t);
    }
}

/* The mark of a clean end counts for the file that it was made for. */
static void test_changed_after_a_clean_end(void **state)
{
    (void)state;
    struct t_store t;
    _Atomic uint64_t time;
    uint64_t set_ms = htole64(SET_MS);
    make_documents(&t, &time);
    t_close(&t);
    assert_true(spoil(&t, &set_ms, sizeof set_ms) > 0);
    t_open(&t);
    for (size_t i = 0; i < LOOKS; i++)
        assert_int_equal(looks[i](t.store), 0);
    t_close(&t);
    t_store_free(&t);
}

/* Damage which makes the file one that cannot be mapped is damage, and no want of memory: */
static void spoil_last_page(int fd)
{
    uint32_t page_size;
    uint64_t last_page = UINT64_C(1) << 45;
    assert_int_equal(pread(fd, &page_size, sizeof page_size, 40), sizeof page_size);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pwrite(fd, &last_page, sizeof last_page, i * (off_t)page_size + 136),
                         sizeof last_page);
}

/* by a page number that was too high when it was written. */
static void spoil_length(int fd)
{
    /* As far as the file system has files of that size. */
    for (unsigned bits = 53; ftruncate(fd, (off_t)1 << bits) < 0; bits--)
        assert_true(errno == EFBIG && bits > 40);
}

static void test_cannot_be_mapped(void **state)
{
    static void (*const ways[])(int fd) = {spoil_last_page, spoil_length};
    (void)state;
    for (size_t way = 0; way < sizeof ways / sizeof ways[0]; way++) {
        struct t_store t;
        _Atomic uint64_t time;
        char path[T_PATH];
        make_documents(&t, &time);
        t_reopen(&t);
        t_path(path, t.dir, "index/data.mdb");
        int fd = open(path, O_RDWR | O_CLOEXEC);
        assert_true(fd >= 0);
        ways[way](fd);
        close(fd);
        t_close(&t);
        t_open(&t);
        for (size_t i = 0; i < LOOKS; i++)
            assert_int_equal(looks[i](t.store), 0);
        t_verify(&t);
        t_close(&t);
        t_store_free(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damage_is_noted),
        cmocka_unit_test(test_changed_after_a_clean_end),
        cmocka_unit_test(test_cannot_be_mapped),
        cmocka_unit_test(test_closed),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_checkpoint_of_damage),
    };
    return cmocka_run_group_tests(tests, make_base, free_base);
}
