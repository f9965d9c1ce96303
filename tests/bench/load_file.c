/*
 * load_file.c - the work on files: a mount of hotlogfs, of nullfs, or a directory of a disk.
 *
 *     append   path= count= [threads=1] [sync=0]   a line a write() on a held descriptor
 *     echo     path= count=                        open, write a line, close
 *     block    path= bytes= block=                 whole lines in writes of up to `block` bytes
 *     records  dir= first= last= [passes=1]        open, read, close of each, in random order
 *     stream   path= [block=131072]                the file once through
 *     latency  path= seconds=                      single appends, each one's time
 *     set      dir= keys= count= [value=100]       open, write a JSON value, close, key by key
 *
 * A %u in path= becomes the number of the thread. create=1 makes the files.
 */
#include "load.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct job {
    const char *path;
    uint64_t count;
    bool sync, create;
};

static int open_path(const char *path, int flags, bool create)
{
    int fd = open(path, flags | O_CLOEXEC | (create ? O_CREAT | O_APPEND : 0), 0644);
    if (fd < 0)
        die("%s: %s", path, strerror(errno));
    return fd;
}

/* The path for a thread: its first %u replaced. */
static void thread_path(char out[4096], const char *path, unsigned thread)
{
    const char *mark = strstr(path, "%u");
    if (mark == NULL)
        snprintf(out, 4096, "%s", path);
    else
        snprintf(out, 4096, "%.*s%u%s", (int)(mark - path), path, thread, mark + 2);
}

static void write_all(int fd, const char *data, size_t len)
{
    ssize_t wrote = write(fd, data, len);
    if (wrote != (ssize_t)len)
        die("a write of %zu bytes: %s", len, wrote < 0 ? strerror(errno) : "short");
}

static void append_lines(void *context, unsigned thread)
{
    const struct job *job = context;
    char path[4096], line[LINE_BYTES];
    thread_path(path, job->path, thread);
    int fd = open_path(path, O_WRONLY, job->create);
    make_line(line, thread);
    for (uint64_t i = 0; i < job->count; i++) {
        write_all(fd, line, sizeof line);
        if (job->sync && fdatasync(fd) != 0)
            die("fdatasync: %s", strerror(errno));
    }
    close(fd);
}

static void echo_lines(void *context, unsigned thread)
{
    const struct job *job = context;
    char line[LINE_BYTES];
    make_line(line, thread);
    for (uint64_t i = 0; i < job->count; i++) {
        int fd = open_path(job->path, O_WRONLY | (job->create ? 0 : O_TRUNC), job->create);
        write_all(fd, line, sizeof line);
        if (close(fd) != 0)
            die("close: %s", strerror(errno));
    }
}

static void run_append(int argc, char *argv[], work *run)
{
    struct job job = {
        .path = argument(argc, argv, "path", NULL),
        .count = argument_number(argc, argv, "count", 0),
        .sync = argument_number(argc, argv, "sync", 0) != 0,
        .create = argument_number(argc, argv, "create", 0) != 0,
    };
    unsigned threads = (unsigned)argument_number(argc, argv, "threads", 1);
    uint64_t took = run_threads(threads, run, &job);
    tell_rate(job.count * threads, job.count * threads * LINE_BYTES, took);
}

static void run_block(int argc, char *argv[])
{
    uint64_t bytes = argument_number(argc, argv, "bytes", 0), done = 0;
    size_t len;
    char *block = make_block((size_t)argument_number(argc, argv, "block", 0), &len);
    int fd = open_path(argument(argc, argv, "path", NULL), O_WRONLY,
                       argument_number(argc, argv, "create", 0) != 0);
    uint64_t began = now_ns();
    for (; done < bytes; done += len)
        write_all(fd, block, len);
    uint64_t took = now_ns() - began;
    close(fd);
    free(block);
    tell_rate(done / LINE_BYTES, done, took);
}

/* ---- reading ---- */

/* The numbers from first to last in an order of their own, always the same. */
static uint64_t *shuffled(uint64_t first, uint64_t last)
{
    uint64_t count = last - first + 1, state = first;
    uint64_t *numbers = malloc(count * sizeof *numbers);
    if (numbers == NULL)
        die("out of memory");
    for (uint64_t i = 0; i < count; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        uint64_t other = (state >> 33) % (i + 1);
        numbers[i] = numbers[other];
        numbers[other] = first + i;
    }
    return numbers;
}

static void run_records(int argc, char *argv[])
{
    uint64_t first = argument_number(argc, argv, "first", 1);
    uint64_t last = argument_number(argc, argv, "last", first);
    uint64_t passes = argument_number(argc, argv, "passes", 1), took = 0;
    const char *dir = argument(argc, argv, "dir", NULL);
    char path[4096], buffer[65536];
    if (last < first)
        die("last= is below first=");
    uint64_t *numbers = shuffled(first, last);
    for (uint64_t pass = 0; pass < passes; pass++) {
        uint64_t began = now_ns();
        for (uint64_t i = 0; i <= last - first; i++) {
            snprintf(path, sizeof path, "%s/%" PRIu64, dir, numbers[i]);
            int fd = open_path(path, O_RDONLY, false);
            if (read(fd, buffer, sizeof buffer) <= 0)
                die("%s: nothing to be read", path);
            close(fd);
        }
        took = now_ns() - began; /* of the last pass */
    }
    free(numbers);
    tell_rate(last - first + 1, 0, took);
}

static void run_stream(int argc, char *argv[])
{
    size_t block = (size_t)argument_number(argc, argv, "block", 131072);
    char *buffer = aligned_alloc(4096, block);
    uint64_t bytes = 0;
    ssize_t got;
    int fd = open_path(argument(argc, argv, "path", NULL), O_RDONLY, false);
    uint64_t limit = argument_number(argc, argv, "bytes", UINT64_MAX), reads = 0;
    if (buffer == NULL)
        die("out of memory");
    uint64_t began = now_ns();
    while (bytes < limit && (got = read(fd, buffer, block)) > 0) {
        bytes += (uint64_t)got;
        reads++;
    }
    uint64_t took = now_ns() - began;
    close(fd);
    free(buffer);
    tell_rate(reads, bytes, took);
}

/* ---- one by one ---- */

static void run_latency(int argc, char *argv[])
{
    uint64_t seconds = argument_number(argc, argv, "seconds", 1);
    size_t count = 0, capacity = (size_t)seconds * 1000000;
    uint64_t *latencies = malloc(capacity * sizeof *latencies);
    int fd = open_path(argument(argc, argv, "path", NULL), O_WRONLY, false);
    char line[LINE_BYTES];
    if (latencies == NULL)
        die("out of memory");
    make_line(line, 0);
    uint64_t end = now_ns() + seconds * 1000000000, began = now_ns();
    while (began < end && count < capacity) {
        write_all(fd, line, sizeof line);
        uint64_t now = now_ns();
        latencies[count++] = now - began;
        began = now;
    }
    close(fd);
    tell_latency(latencies, count);
    free(latencies);
}

static void run_set(int argc, char *argv[])
{
    uint64_t keys = argument_number(argc, argv, "keys", 1);
    uint64_t count = argument_number(argc, argv, "count", 1);
    int size = (int)argument_number(argc, argv, "value", 100);
    const char *dir = argument(argc, argv, "dir", NULL);
    char path[4096], value[8192];
    uint64_t began = now_ns();
    for (uint64_t i = 0; i < count; i++) {
        int head = snprintf(value, sizeof value, "{\"n\":%" PRIu64 ",\"text\":\"", i);
        int fill = size > head + 3 ? size - head - 3 : 0;
        int len =
            head + snprintf(value + head, sizeof value - (size_t)head, "%.*s\"}\n",
                            fill > 4000 ? 4000 : fill,
                            "a document that changes over time, with what it says of now, and "
                            "of what came before it, and of what is to be done next");
        snprintf(path, sizeof path, "%s/key-%" PRIu64, dir, i % keys);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (fd < 0)
            die("%s: %s", path, strerror(errno));
        write_all(fd, value, (size_t)len);
        if (close(fd) != 0)
            die("%s: %s", path, strerror(errno));
    }
    tell_rate(count, 0, now_ns() - began);
}

int main(int argc, char *argv[])
{
    const char *mode = argc > 1 ? argv[1] : "";
    if (strcmp(mode, "append") == 0)
        run_append(argc, argv, append_lines);
    else if (strcmp(mode, "echo") == 0)
        run_append(argc, argv, echo_lines);
    else if (strcmp(mode, "block") == 0)
        run_block(argc, argv);
    else if (strcmp(mode, "records") == 0)
        run_records(argc, argv);
    else if (strcmp(mode, "stream") == 0)
        run_stream(argc, argv);
    else if (strcmp(mode, "latency") == 0)
        run_latency(argc, argv);
    else if (strcmp(mode, "set") == 0)
        run_set(argc, argv);
    else
        die("usage: load_file append|echo|block|records|stream|latency|set name=value…");
    return 0;
}
