/*
 * support.h - what the tests of the store share: directories, chance, a table of system calls that
 * fails on demand, and images of all that a store shows, to be compared.
 *
 * Whatever goes wrong in here fails the running test.
 */
#ifndef HL_TEST_SUPPORT_H
#define HL_TEST_SUPPORT_H

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../store/io.h"
#include "../../store/store.h"

#define T_PATH 512

/* ---- chance ---- */

/* From the environment variable SEED, or the clock; printed, so that a failure can be repeated. */
uint64_t t_seed(const char *test);
uint64_t t_random(uint64_t *chance);
uint64_t t_below(uint64_t *chance, uint64_t limit); /* 0 to limit - 1 */
/* A number from the environment, or this one. */
unsigned t_amount(const char *name, unsigned otherwise);

/* ---- directories and files ---- */

void t_dir_make(char path[T_PATH]); /* below TMPDIR */
void t_dir_remove(const char *path);
/* Copies the whole tree with its times, as a crash would leave it. `to` is made. */
void t_dir_copy(const char *from, const char *to);
void t_path(char path[T_PATH], const char *dir, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool t_exists(const char *path);
/* The whole file, the caller's to free, with a NUL behind it. */
char *t_file_read(const char *path, size_t *len);
void t_file_write(const char *path, const void *data, size_t len);
void t_file_append(const char *path, const void *data, size_t len);
void t_file_poke(const char *path, uint64_t offset, const void *data, size_t len);
void t_file_flip(const char *path, uint64_t offset, uint8_t bits);
uint64_t t_file_size(const char *path);
void t_file_cut(const char *path, uint64_t size);
/* Names in a directory that end in `suffix`, sorted; returns how many. Freed by t_names_free(). */
size_t t_names(const char *dir, const char *suffix, char ***names);
void t_names_free(char **names, size_t count);

/* ---- system calls that fail ---- */

enum t_call {
    T_OPEN,
    T_CLOSE,
    T_PREAD,
    T_PWRITE,
    T_FDATASYNC,
    T_FSYNC,
    T_FTRUNCATE,
    T_ALLOCATE,
    T_FSTAT,
    T_RENAME,
    T_UNLINK,
    T_LINK,
    T_MKDIR,
    T_LIST,
    T_CALLS
};

#define T_FILES 1024

/* A table over the system's. Zero it, then t_io_init(). Safe from any thread. */
struct t_io {
    struct hl_io io;
    pthread_mutex_t lock; /* guards all below */
    uint64_t count[T_CALLS];
    char *name[T_FILES]; /* by descriptor, as it was opened */
    /* The plan: calls `from` to `from + times - 1` (from 1, counted since it was made) of the kinds
     * in `calls` on files whose name holds `only` fail with `error`, or, if that is 0, do half of
     * what they should. */
    unsigned calls; /* bits 1 << enum t_call */
    uint64_t from, times, seen;
    int error;
    const char *only;
    uint64_t failed; /* how many did */
    bool full;       /* no file is made and none grows: ENOSPC; LMDB's are not seen here */
};

void t_io_init(struct t_io *io);
void t_io_free(struct t_io *io);
void t_io_fail(struct t_io *io, unsigned calls, const char *only, uint64_t from, uint64_t times,
               int error);
void t_io_heal(struct t_io *io);
void t_io_fill(struct t_io *io, bool full);
uint64_t t_io_count(struct t_io *io, enum t_call call);
uint64_t t_io_failed(struct t_io *io);

/* ---- a store ---- */

struct t_store {
    char dir[T_PATH];
    struct hl_options options;
    struct hl_store *store; /* NULL: closed */
    struct hl_error err;    /* of the last call that takes one */
    struct t_io io;
    bool own_io; /* io is in use */
    pthread_mutex_t lock;
    unsigned warnings, errors; /* reported since opened */
    char last_error[512];      /* or the last warning, while there is no error */
};

/* Makes a directory and an unopened store with small segments and no syncs on its own. */
void t_store_init(struct t_store *t);
void t_store_free(struct t_store *t); /* closes it if it is open, removes its directory */
/* From now on its calls go through t->io. */
void t_store_watch(struct t_store *t);
int t_try_open(struct t_store *t);
void t_open(struct t_store *t);
void t_close(struct t_store *t); /* must succeed */
void t_reopen(struct t_store *t);
/* Closes it as a crash would: what is in the directory now is there at the next opening. */
void t_crash(struct t_store *t);

/* Whether this build is under a sanitizer: then runs are made shorter. */
bool t_slow(void);

/* Makes a session with mode 0640 and returns its number. */
uint32_t t_session(struct t_store *t, const char *id);
uint32_t t_number(struct t_store *t, const char *id); /* of one that is there */
/* Appends and must succeed. */
void t_append(struct t_store *t, uint32_t session, const char *text);
void t_append_format(struct t_store *t, uint32_t session, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int t_try_append(struct t_store *t, uint32_t session, const char *data, size_t len);
/* `count` lines of some 20 to 20 + spread bytes, `batch` to a write. */
void t_fill(struct t_store *t, uint32_t session, unsigned count, unsigned batch, unsigned spread,
            uint64_t *chance);

/* Removes index/ and checkpoints/, of a store that nobody has open or that died. */
void t_lose_index(const struct t_store *t);

/* The path of the segment with this number, or of the last one (0). */
void t_segment_path(const struct t_store *t, uint32_t number, char path[T_PATH]);
uint32_t t_last_segment(const struct t_store *t);

/*
 * Writes what a compaction that drops nothing would: log/<first>-<last>.<generation>.seg with a
 * salt of its own, all frames of the sealed segments that hold these numbers (of each the highest
 * generation below this one), and a seal. The older files stay, as after a crash.
 */
void t_compact(const struct t_store *t, uint32_t first, uint32_t last, uint32_t generation,
               char path[T_PATH]);

/* Every segment but the last ends with a seal, none has a frame behind one, and none is damaged. */
void t_check_log(const struct t_store *t);

/* Verifies, and must find nothing wrong. Returns how many records it found. */
uint64_t t_verify(struct t_store *t);

/* Whether the text stands somewhere in these bytes. */
bool t_has(const char *bytes, size_t len, const char *text);

/* Whole logs, read in pieces of `piece` bytes without a cursor; the caller's to free; NUL behind
 * it. */
char *t_log(struct hl_store *store, uint32_t session, size_t piece, size_t *len);
char *t_root_log(struct hl_store *store, size_t piece, size_t *len);

/* ---- images ---- */

struct t_line {
    uint64_t seq;
    uint32_t length;
    bool damaged;
};

struct t_session_image {
    struct hl_session about;
    struct t_line *lines;
    char *log;
    size_t log_len;
    char *attributes;
    size_t attributes_len; /* name NUL value, one after another */
};

/* All that a store shows. */
struct t_image {
    struct t_session_image *sessions;
    size_t count;
    char *root;
    size_t root_len;
    uint64_t records, bytes;                 /* of sessions */
    uint64_t dropped_records, dropped_bytes; /* that are only in the root log still */
    uint64_t damaged;
    void *frozen; /* where all that it points to lies then, or NULL */
    size_t frozen_size;
};

/*
 * Takes one, and holds what the store says against itself on the way: seqs ascend, records and
 * bytes add up, a session's log is its records one after another, the root log holds each session's
 * lines in their order and nothing else but as many as were dropped, totals of status agree.
 */
void t_image_take(struct hl_store *store, struct t_image *image);
void t_image_free(struct t_image *image);
/* Moves it into memory that is mapped for reading alone: who writes past his own cannot change it.
 */
void t_image_freeze(struct t_image *image);
/* Fails unless both show the same. */
void t_image_same(const struct t_image *a, const struct t_image *b);
/* Takes one, which must be the same as this. */
void t_shows(struct hl_store *store, const struct t_image *image);
const struct t_session_image *t_image_find(const struct t_image *image, const char *id);
/* Whether the record is there and good; its line, which lives as long as the image. */
const char *t_image_line(const struct t_image *image, const char *id, uint64_t seq, size_t *len);

#endif
