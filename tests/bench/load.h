/*
 * load.h - what the load generators share: arguments, lines, clocks, and how they tell a result.
 *
 * A generator is called as `PROGRAM MODE name=value…` and prints one JSON object, such as
 * {"operations":1000,"seconds":0.016}. Whatever fails ends it with a sentence and status 1.
 */
#ifndef HL_BENCH_LOAD_H
#define HL_BENCH_LOAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINE_BYTES 200 /* of a line, its newline included */

__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...);

/* The value of name=value among the arguments, or the fallback; without one, it must be given. */
const char *argument(int argc, char *const argv[], const char *name, const char *fallback);
uint64_t argument_number(int argc, char *const argv[], const char *name, uint64_t fallback);

uint64_t now_ns(void);

/* Writes line number n: JSON, LINE_BYTES long with its newline; different numbers, other bytes. */
void make_line(char out[LINE_BYTES], uint64_t number);
/* As many whole lines as fit into size bytes; *len are used. The caller's to free. Page-aligned. */
char *make_block(size_t size, size_t *len);

/* Runs work(context, thread) in as many threads, which begin together; returns the nanoseconds from
 * there until the last one ended. */
typedef void work(void *context, unsigned thread);
uint64_t run_threads(unsigned threads, work *run, void *context);

void tell_rate(uint64_t operations, uint64_t bytes, uint64_t ns);
/* Sorts the latencies (ns) and tells their number and percentiles in microseconds. */
void tell_latency(uint64_t *latencies, size_t count);

#endif
