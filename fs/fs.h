/*
 * fs.h - what the files of fs/ share: the options of a mount and its context.
 *
 * A request handler is thin: it asks node.h what a node id names, asks the store, replies. State
 * hangs off struct fs, which is libfuse's userdata; there are no globals but the option table.
 */
#ifndef HL_FS_H
#define HL_FS_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "../store/store.h"

struct fs_options {
    char *dir;        /* DIR, as an absolute path */
    char *mountpoint; /* MOUNTPOINT, as an absolute path */
    bool foreground;
    bool read_only;
    bool allow_other;
    bool sync;                       /* a write() returns when it is on the disk */
    uint64_t sync_interval_ms;       /* 1000 */
    uint64_t segment_size;           /* 64 MiB */
    uint64_t max_record;             /* 16 MiB */
    uint64_t announce_max;           /* 1024 */
    uint64_t checkpoint_interval_ms; /* 10 min */
    uint64_t compact_interval_ms;    /* 1 h */
    uint64_t compact_threshold;      /* 1 MiB */
    uint64_t history_ms;             /* 30 days */
    uint64_t backups;                /* 3 */
    uint64_t pieces_max;             /* 32 MiB: half lines and half written documents, of all open
                                      * handles together */
    uint64_t scratch_max;            /* 32 MiB: scratch files in state/, all together */
    /* Of each user, where others are let in. */
    uint64_t user_pieces_max;  /* half of pieces_max */
    uint64_t user_scratch_max; /* half of scratch_max */
    uint64_t user_files_max;   /* 16384 open files */
    uint64_t spin_us;          /* 50: how long to look out for the next request before sleeping */
    bool io_uring;             /* requests by io_uring, on libfuse's own loop */
};

struct fs; /* node tables, handles, last errors, command results; opaque outside fs/ */

/* ---- made by fs.c, used by main.c ---- */

/* Neither takes ownership of store or options, which must outlive it. */
int fs_new(const struct fs_options *options, struct hl_store *store, struct fs **fs);
/*
 * Says which session the requests come from, so that the kernel can be told to drop what it caches.
 * Right after fuse_session_new(), before the loop. Without it nothing is invalidated.
 */
void fs_attach(struct fs *fs, struct fuse_session *session);
/*
 * The store's news finds its way to the mount by a relay, made (NULL) before the store is
 * opened and given with fs_news() to hl_options.news. It does nothing until it is told of a mount,
 * nor after it was told of NULL, which returns when no news is under way any more.
 */
struct fs_relay {
    pthread_rwlock_t lock; /* guards fs: held while it is told of news */
    struct fs *fs;
};
void fs_relay_to(struct fs_relay *relay, struct fs *fs);
void fs_news(void *relay, const struct hl_news *news);
/* Requests are answered from now on. device: of the mount, if it is `seen` from here. */
int fs_start(struct fs *fs, bool seen, dev_t device);
/*
 * The mount is to end: who waits is answered, and nothing more is told. While requests are still
 * answered, unless `ended` says that the loop is through.
 */
void fs_stop(struct fs *fs, bool ended);
/*
 * Appends, or refuses, what is left in open handles, answers what is parked, and ends the threads
 * of fs/. After the session loop ended, before fuse_session_unmount() and fuse_session_destroy() (a
 * parked request is answered through the session's descriptor, which must not be another file by
 * then) and before hl_store_close(). NULL is fine.
 */
void fs_free(struct fs *fs);

/* The request table for fuse_session_new(); its userdata is the struct fs. */
extern const struct fuse_lowlevel_ops fs_operations;

/* ---- made by log.c, used by all of fs/ ---- */

/* The daemon's log: standard error in the foreground, syslog once in the background. */
void fs_log_open(bool foreground);
void fs_log(enum hl_severity severity, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
