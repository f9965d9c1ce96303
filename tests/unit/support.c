/* support.c - directories, files and chance for the tests of the store. */
#include "support.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

uint64_t t_seed(const char *test)
{
    const char *given = getenv("SEED");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seed = given ? strtoull(given, NULL, 0)
                          : (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
    fprintf(stderr, "%s: SEED=%llu\n", test, (unsigned long long)seed);
    return seed;
}

uint64_t t_random(uint64_t *chance)
{
    uint64_t z = *chance += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t t_below(uint64_t *chance, uint64_t limit)
{
    return t_random(chance) % limit;
}

unsigned t_amount(const char *name, unsigned otherwise)
{
    const char *given = getenv(name);
    return given ? (unsigned)strtoul(given, NULL, 0) : otherwise;
}

bool t_slow(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    return true;
#endif
#endif
    return false;
}

/* ---- directories ---- */

void t_dir_make(char path[T_PATH])
{
    const char *base = getenv("TMPDIR");
    snprintf(path, T_PATH, "%s/hotlog-test.XXXXXX", base && base[0] ? base : "/tmp");
    assert_non_null(mkdtemp(path));
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *walk)
{
    (void)st;
    (void)type;
    (void)walk;
    return remove(path);
}

void t_dir_remove(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void t_path(char path[T_PATH], const char *dir, const char *format, ...)
{
    va_list arguments;
    int n = snprintf(path, T_PATH, "%s/", dir);
    assert_true(n > 0 && n < T_PATH);
    va_start(arguments, format);
    int more = vsnprintf(path + n, (size_t)(T_PATH - n), format, arguments);
    va_end(arguments);
    assert_true(more >= 0 && more < T_PATH - n);
}

bool t_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

static void copy_file(const char *from, const char *to, const struct stat *st)
{
    static const size_t piece = 1 << 20;
    int in = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0 && errno == ENOENT)
        return; /* a store that is at work may have removed it */
    char *buffer = malloc(piece);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, st->st_mode & 0777);
    assert_non_null(buffer);
    assert_true(in >= 0 && out >= 0);
    ssize_t n;
    while ((n = read(in, buffer, piece)) > 0)
        assert_int_equal(write(out, buffer, (size_t)n), n);
    assert_int_equal(n, 0);
    const struct timespec times[2] = {st->st_atim, st->st_mtim};
    assert_int_equal(futimens(out, times), 0);
    close(in);
    close(out);
    free(buffer);
}

void t_dir_copy(const char *from, const char *to)
{
    assert_true(mkdir(to, 0700) == 0 || errno == EEXIST);
    DIR *dir = opendir(from);
    if (!dir && errno == ENOENT)
        return; /* likewise */
    assert_non_null(dir);
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        char source[T_PATH], target[T_PATH];
        struct stat st;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        t_path(source, from, "%s", entry->d_name);
        t_path(target, to, "%s", entry->d_name);
        if (lstat(source, &st) < 0)
            continue; /* likewise */
        if (S_ISDIR(st.st_mode))
            t_dir_copy(source, target);
        else
            copy_file(source, target, &st);
    }
    closedir(dir);
}

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

size_t t_names(const char *dir, const char *suffix, char ***names)
{
    size_t count = 0, capacity = 0, want = strlen(suffix);
    DIR *d = opendir(dir);
    *names = NULL;
    if (!d)
        return 0;
    const struct dirent *entry;
    while ((entry = readdir(d)) != NULL) {
        size_t len = strlen(entry->d_name);
        if (len < want || strcmp(entry->d_name + len - want, suffix) != 0 ||
            strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (count == capacity) {
            capacity = capacity ? capacity * 2 : 16;
            *names = realloc(*names, capacity * sizeof **names);
            assert_non_null(*names);
        }
        (*names)[count++] = strdup(entry->d_name);
    }
    closedir(d);
    if (count)
        qsort(*names, count, sizeof **names, compare_strings);
    return count;
}

void t_names_free(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

/* ---- files ---- */

char *t_file_read(const char *path, size_t *len)
{
    size_t size = (size_t)t_file_size(path);
    char *bytes = malloc(size + 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_non_null(bytes);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, bytes, size, 0), size);
    close(fd);
    bytes[size] = 0;
    if (len)
        *len = size;
    return bytes;
}

static void write_at(const char *path, int flags, uint64_t offset, const void *data, size_t len)
{
    int fd = open(path, flags | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data, len, (off_t)offset), len);
    close(fd);
}

void t_file_write(const char *path, const void *data, size_t len)
{
    write_at(path, O_WRONLY | O_CREAT | O_TRUNC, 0, data, len);
}

void t_file_append(const char *path, const void *data, size_t len)
{
    write_at(path, O_WRONLY, t_file_size(path), data, len);
}

void t_file_poke(const char *path, uint64_t offset, const void *data, size_t len)
{
    write_at(path, O_WRONLY, offset, data, len);
}

void t_file_flip(const char *path, uint64_t offset, uint8_t bits)
{
    uint8_t byte;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= bits;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
    close(fd);
}

uint64_t t_file_size(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

void t_file_cut(const char *path, uint64_t size)
{
    assert_int_equal(truncate(path, (off_t)size), 0);
}

void t_lose_index(const struct t_store *t)
{
    char path[T_PATH];
    t_path(path, t->dir, "index");
    t_dir_remove(path);
    t_path(path, t->dir, "checkpoints");
    t_dir_remove(path);
}
