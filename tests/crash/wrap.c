/*
 * wrap.c - functions that the linker gives to us in the place of a library's (CRASH_WRAPPED in the
 * Makefile). Each looks, and goes on to the real one.
 */
#include "wrap.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <lmdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../../store/index.h"

#define CHILD_EVERY 64U                           /* checks of an index that are left to a child */
#define TIME_BASE UINT64_C(1700000000000)         /* ms */
#define WRITTEN_BASE INT64_C(1600000000000000000) /* ns */

static struct record *_Atomic active;
static _Thread_local unsigned inside;
static _Atomic uint64_t now, chance, written;

void wrap_begin(struct record *record, uint64_t seed)
{
    atomic_store(&now, TIME_BASE);
    atomic_store(&chance, seed);
    atomic_store(&written, hash_mix(seed, 5) >> 40 << 16);
    atomic_store(&active, record);
}

void wrap_end(void)
{
    atomic_store(&active, NULL);
}

void wrap_enter(void)
{
    inside++;
}

void wrap_leave(void)
{
    inside--;
}

static struct record *recording(void)
{
    return inside ? NULL : atomic_load(&active);
}

static struct record *lock(void)
{
    struct record *record = recording();
    if (record) {
        wrap_enter();
        pthread_mutex_lock(&record->lock);
    }
    return record;
}

static void unlock(struct record *record)
{
    pthread_mutex_unlock(&record->lock);
    wrap_leave();
}

/* Whether this call of LMDB's is the one to fail; the lock is held. 0: no. */
static int fault_of(struct record *record, const char *what)
{
    struct fault *fault = &record->fault;
    if (record->dead || record_kills(record, what))
        return EIO;
    if (!record->counting || fault->error == 0 || fault->error == -EINTR ||
        ++fault->calls != fault->nth)
        return 0;
    fault->fired++;
    fault->what = what;
    return -fault->error;
}

/* ---- time and chance ---- */

int __real_clock_gettime(clockid_t clock, struct timespec *at);
int __wrap_clock_gettime(clockid_t clock, struct timespec *at);
int __wrap_clock_gettime(clockid_t clock, struct timespec *at)
{
    if (clock != CLOCK_REALTIME || !atomic_load(&active))
        return __real_clock_gettime(clock, at);
    uint64_t ms = atomic_fetch_add(&now, 1);
    *at = (struct timespec){.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    return 0;
}

ssize_t __real_getrandom(void *buffer, size_t size, unsigned flags);
ssize_t __wrap_getrandom(void *buffer, size_t size, unsigned flags);
ssize_t __wrap_getrandom(void *buffer, size_t size, unsigned flags)
{
    if (!atomic_load(&active))
        return __real_getrandom(buffer, size, flags);
    for (size_t i = 0; i < size; i++) {
        uint64_t next = atomic_fetch_add(&chance, UINT64_C(0x9e3779b97f4a7c15));
        ((uint8_t *)buffer)[i] = (uint8_t)(hash_mix(next, i) >> 33);
    }
    return (ssize_t)size;
}

/* It stands in DIR/lock. */
pid_t __real_getpid(void);
pid_t __wrap_getpid(void);
pid_t __wrap_getpid(void)
{
    return recording() ? 4242 : __real_getpid();
}

/* ---- memory ---- */

static bool refused(void)
{
    struct record *record = recording();
    if (!record || !record->counting || record->fault.memory == 0)
        return false;
    wrap_enter();
    pthread_mutex_lock(&record->lock);
    bool refuse = !record->dead && ++record->fault.allocations == record->fault.memory;
    record->fault.fired += refuse;
    if (refuse) {
        record->fault.what = "memory";
        errno = ENOMEM;
    }
    unlock(record);
    return refuse;
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
    return refused() ? NULL : __real_malloc(size);
}

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size)
{
    return refused() ? NULL : __real_calloc(count, size);
}

void *__real_realloc(void *memory, size_t size);
void *__wrap_realloc(void *memory, size_t size);
void *__wrap_realloc(void *memory, size_t size)
{
    return refused() ? NULL : __real_realloc(memory, size);
}

char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);
char *__wrap_strdup(const char *text)
{
    return refused() ? NULL : __real_strdup(text);
}

int __wrap_asprintf(char **text, const char *format, ...);
int __wrap_asprintf(char **text, const char *format, ...)
{
    va_list arguments;
    if (refused())
        return -1;
    va_start(arguments, format);
    int len = vasprintf(text, format, arguments);
    va_end(arguments);
    return len;
}

/* What asprintf() becomes where the compiler checks it. */
int __wrap___asprintf_chk(char **text, int flag, const char *format, ...);
int __wrap___asprintf_chk(char **text, int flag, const char *format, ...)
{
    va_list arguments;
    (void)flag;
    if (refused())
        return -1;
    va_start(arguments, format);
    int len = vasprintf(text, format, arguments);
    va_end(arguments);
    return len;
}

/* ---- what index.c does by itself ---- */

static uint32_t locate(struct record *record, const char *path, uint32_t *parent, const char **last)
{
    size_t len = strlen(record->root);
    *parent = NO_NODE;
    if (strncmp(path, record->root, len) != 0)
        return NO_NODE;
    return tree_walk(&record->live, 0, path + len, parent, last);
}

int __real_mkdir(const char *path, mode_t mode);
int __wrap_mkdir(const char *path, mode_t mode);
int __wrap_mkdir(const char *path, mode_t mode)
{
    uint32_t parent;
    const char *last;
    struct record *record = lock();
    if (!record)
        return __real_mkdir(path, mode);
    int error = fault_of(record, "mkdir");
    int result = error ? -1 : __real_mkdir(path, mode);
    if (result == 0 && locate(record, path, &parent, &last) == NO_NODE && parent != NO_NODE)
        record_make(record, parent, last, true);
    unlock(record);
    if (error)
        errno = error;
    return result;
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    char link[64], path[PATH_MAX];
    uint32_t parent;
    const char *last;
    struct record *record = lock();
    if (!record)
        return __real_fsync(fd);
    int error = fault_of(record, "fsync");
    int result = error ? -1 : __real_fsync(fd);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = 0;
    uint32_t node = locate(record, path, &parent, &last);
    if (result == 0 && node != NO_NODE)
        record_add(record, &(struct call){.kind = CALL_SYNC, .node = node});
    unlock(record);
    if (error)
        errno = error;
    return result;
}

/* A child for each opening would be most of the time that they take. Its own tests are in
 * tests/unit/test_index_process.c. */
int __real_index_check_in_child(const char *path, unsigned flags, const uint8_t store_id[16],
                                struct index_check_report *report);
int __wrap_index_check_in_child(const char *path, unsigned flags, const uint8_t store_id[16],
                                struct index_check_report *report);
int __wrap_index_check_in_child(const char *path, unsigned flags, const uint8_t store_id[16],
                                struct index_check_report *report)
{
    static unsigned turn;
    if (++turn % CHILD_EVERY == 0) {
        wrap_enter();
        int error = __real_index_check_in_child(path, flags, store_id, report);
        wrap_leave();
        return error;
    }
    *report = (struct index_check_report){.sessions = 0};
    return index_check(path, flags, store_id, report);
}

/* ---- LMDB ---- */

/* So that no two states of the file look alike by their time. */
int64_t record_time(int fd)
{
    int64_t at = WRITTEN_BASE + (int64_t)atomic_fetch_add(&written, 1) * 1000;
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT},
                                {.tv_sec = at / 1000000000, .tv_nsec = at % 1000000000}};
    futimens(fd, times);
    return at;
}

static struct bytes *content_of(MDB_env *environment)
{
    int fd;
    struct stat st;
    if (mdb_env_get_fd(environment, &fd) != 0 || fstat(fd, &st) < 0)
        abort();
    struct bytes *content = bytes_new((size_t)st.st_size);
    if (pread(fd, content->at, content->size, 0) != (ssize_t)content->size)
        abort();
    content->written_ns = record_time(fd);
    return content;
}

static void take_content(struct record *record, MDB_env *environment, uint32_t node, bool synced)
{
    record_add(record, &(struct call){.kind = CALL_CONTENT,
                                      .node = node,
                                      .offset = synced,
                                      .data = content_of(environment)});
}

int __real_mdb_env_open(MDB_env *environment, const char *path, unsigned flags, mdb_mode_t mode);
int __wrap_mdb_env_open(MDB_env *environment, const char *path, unsigned flags, mdb_mode_t mode);
int __wrap_mdb_env_open(MDB_env *environment, const char *path, unsigned flags, mdb_mode_t mode)
{
    char file[PATH_MAX];
    uint32_t parent;
    const char *last;
    struct record *record = lock();
    if (!record)
        return __real_mdb_env_open(environment, path, flags, mode);
    int error = fault_of(record, "mdb_env_open");
    if (error == 0)
        error = __real_mdb_env_open(environment, path, flags, mode);
    if (error == 0 && !(flags & MDB_RDONLY)) {
        snprintf(file, sizeof file, "%s/data.mdb", path);
        uint32_t node = locate(record, file, &parent, &last);
        bool made = node == NO_NODE && parent != NO_NODE;
        if (made)
            node = record_make(record, parent, last, false);
        if (made)
            take_content(record, environment, node, false);
        for (size_t i = 0; node != NO_NODE && i < RECORD_ENVIRONMENTS; i++) {
            if (record->environments[i].environment)
                continue;
            MDB_envinfo info;
            mdb_env_info(environment, &info);
            record->environments[i].environment = environment;
            record->environments[i].node = node;
            record->environments[i].transaction = info.me_last_txnid;
            break;
        }
    }
    unlock(record);
    return error;
}

void __real_mdb_env_close(MDB_env *environment);
void __wrap_mdb_env_close(MDB_env *environment);
void __wrap_mdb_env_close(MDB_env *environment)
{
    struct record *record = lock();
    if (record) {
        for (size_t i = 0; i < RECORD_ENVIRONMENTS; i++) {
            if (record->environments[i].environment == environment)
                record->environments[i].environment = NULL;
        }
        unlock(record);
    }
    __real_mdb_env_close(environment);
}

/* What a commit or a sync of LMDB's left in the file. */
static void look_at(struct record *record, MDB_env *environment)
{
    unsigned flags = 0;
    MDB_envinfo info;
    for (size_t i = 0; i < RECORD_ENVIRONMENTS; i++) {
        if (record->environments[i].environment != environment)
            continue;
        mdb_env_info(environment, &info);
        mdb_env_get_flags(environment, &flags);
        if (info.me_last_txnid != record->environments[i].transaction)
            take_content(record, environment, record->environments[i].node, !(flags & MDB_NOSYNC));
        record->environments[i].transaction = info.me_last_txnid;
    }
}

int __real_mdb_txn_commit(MDB_txn *txn);
int __wrap_mdb_txn_commit(MDB_txn *txn);
int __wrap_mdb_txn_commit(MDB_txn *txn)
{
    MDB_env *environment = mdb_txn_env(txn);
    struct record *record = lock();
    if (!record)
        return __real_mdb_txn_commit(txn);
    int error = fault_of(record, "mdb_txn_commit");
    if (error) {
        mdb_txn_abort(txn);
    } else {
        error = __real_mdb_txn_commit(txn);
        look_at(record, environment);
    }
    unlock(record);
    return error;
}

int __real_mdb_env_sync(MDB_env *environment, int force);
int __wrap_mdb_env_sync(MDB_env *environment, int force);
int __wrap_mdb_env_sync(MDB_env *environment, int force)
{
    struct record *record = lock();
    if (!record)
        return __real_mdb_env_sync(environment, force);
    int error = fault_of(record, "mdb_env_sync");
    if (error == 0)
        error = __real_mdb_env_sync(environment, force);
    for (size_t i = 0; error == 0 && i < RECORD_ENVIRONMENTS; i++) {
        if (record->environments[i].environment == environment)
            record_add(record,
                       &(struct call){.kind = CALL_SYNC, .node = record->environments[i].node});
    }
    unlock(record);
    return error;
}

int __real_mdb_put(MDB_txn *txn, MDB_dbi table, MDB_val *key, MDB_val *value, unsigned flags);
int __wrap_mdb_put(MDB_txn *txn, MDB_dbi table, MDB_val *key, MDB_val *value, unsigned flags);
int __wrap_mdb_put(MDB_txn *txn, MDB_dbi table, MDB_val *key, MDB_val *value, unsigned flags)
{
    struct record *record = lock();
    int error = record ? fault_of(record, "mdb_put") : 0;
    if (record)
        unlock(record);
    return error ? error : __real_mdb_put(txn, table, key, value, flags);
}

int __real_mdb_txn_begin(MDB_env *environment, MDB_txn *parent, unsigned flags, MDB_txn **txn);
int __wrap_mdb_txn_begin(MDB_env *environment, MDB_txn *parent, unsigned flags, MDB_txn **txn);
int __wrap_mdb_txn_begin(MDB_env *environment, MDB_txn *parent, unsigned flags, MDB_txn **txn)
{
    struct record *record = lock();
    int error = record && !record->dead ? fault_of(record, "mdb_txn_begin") : 0;
    if (record)
        unlock(record);
    return error ? error : __real_mdb_txn_begin(environment, parent, flags, txn);
}
