/* load.c - see load.h. */
#include "load.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void die(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
    exit(1);
}

const char *argument(int argc, char *const argv[], const char *name, const char *fallback)
{
    size_t len = strlen(name);
    for (int i = 2; i < argc; i++) {
        if (strncmp(argv[i], name, len) == 0 && argv[i][len] == '=')
            return argv[i] + len + 1;
    }
    if (fallback == NULL)
        die("%s=… is missing", name);
    return fallback;
}

uint64_t argument_number(int argc, char *const argv[], const char *name, uint64_t fallback)
{
    char *end;
    const char *text = argument(argc, argv, name, "");
    if (*text == '\0')
        return fallback;
    uint64_t number = strtoull(text, &end, 10);
    if (*end != '\0')
        die("%s=%s is no number", name, text);
    return number;
}

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* ---- lines ---- */

void make_line(char out[LINE_BYTES], uint64_t number)
{
    static const char words[] =
        "the tool has read a file and made of it what was asked so that the next step can begin ";
    int len = snprintf(out, LINE_BYTES,
                       "{\"kind\":\"ToolCall\",\"tool\":\"bash\",\"tokens_in\":%" PRIu64
                       ",\"payload\":{\"n\":%" PRIu64 ",\"text\":\"",
                       number % 10000, number);
    for (size_t at = (size_t)len, i = number; at < LINE_BYTES - 4; at++, i++)
        out[at] = words[i % (sizeof words - 1)];
    memcpy(out + LINE_BYTES - 4, "\"}}\n", 4);
}

char *make_block(size_t size, size_t *len)
{
    size_t lines = size / LINE_BYTES;
    char *block = aligned_alloc(4096, (size + 4095) & ~(size_t)4095);
    if (block == NULL || lines == 0)
        die("no memory for a block of %zu bytes, or it is too small for a line", size);
    for (size_t i = 0; i < lines; i++)
        make_line(block + i * LINE_BYTES, i);
    *len = lines * LINE_BYTES;
    return block;
}

/* ---- threads ---- */

struct runner {
    pthread_t thread;
    pthread_barrier_t *barrier;
    work *run;
    void *context;
    unsigned number;
};

static void *run_one(void *argument)
{
    struct runner *runner = argument;
    pthread_barrier_wait(runner->barrier);
    runner->run(runner->context, runner->number);
    return NULL;
}

uint64_t run_threads(unsigned threads, work *run, void *context)
{
    if (threads == 1) {
        uint64_t began = now_ns();
        run(context, 0);
        return now_ns() - began;
    }
    pthread_barrier_t barrier;
    struct runner *runners = calloc(threads, sizeof *runners);
    if (runners == NULL || pthread_barrier_init(&barrier, NULL, threads + 1) != 0)
        die("no memory for %u threads", threads);
    for (unsigned i = 0; i < threads; i++) {
        runners[i] =
            (struct runner){.barrier = &barrier, .run = run, .context = context, .number = i};
        if (pthread_create(&runners[i].thread, NULL, run_one, &runners[i]) != 0)
            die("cannot start a thread");
    }
    pthread_barrier_wait(&barrier);
    uint64_t began = now_ns();
    for (unsigned i = 0; i < threads; i++)
        pthread_join(runners[i].thread, NULL);
    uint64_t took = now_ns() - began;
    pthread_barrier_destroy(&barrier);
    free(runners);
    return took;
}

/* ---- results ---- */

void tell_rate(uint64_t operations, uint64_t bytes, uint64_t ns)
{
    printf("{\"operations\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"seconds\":%.9f}\n", operations,
           bytes, (double)ns / 1e9);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static double percentile(const uint64_t *sorted, size_t count, double part)
{
    size_t at = (size_t)(part * (double)count);
    return (double)sorted[at < count ? at : count - 1] / 1e3;
}

void tell_latency(uint64_t *latencies, size_t count)
{
    if (count == 0)
        die("nothing was measured");
    qsort(latencies, count, sizeof *latencies, compare);
    printf("{\"operations\":%zu,\"p50\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f}\n", count,
           percentile(latencies, count, 0.5), percentile(latencies, count, 0.99),
           percentile(latencies, count, 0.999), (double)latencies[count - 1] / 1e3);
}
