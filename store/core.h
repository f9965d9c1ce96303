/*
 * core.h - the store from inside: its state, its locks, and which file does what.
 *
 * - store.c: opening and closing, reports; directory.c: DIR, log/ and the lock
 * - recover.c: format.md's Opening, from segments to index; replay.c applies frames
 * - append.c: hl_append(), from lines to frames to one batch; helper.c: a second thread for that
 * - log.c: the tail of the log, rotation; commit.c: the thread that syncs it (group commit)
 * - flush.c: the thread that moves the memtable to the index; checkpoint.c: copies of the index
 * - lookup.c: where sessions and records are found; read.c: records, session logs
 * - rootlog.c: the log of the whole store; follow_writer.c: read-only beside a writer
 * - status.c, snapshot.c; verify.c and check.h: frames held against the index, in an open store
 *   and in one that is not
 *
 * Lock order, outermost first; a thread takes only what stands further down than what it holds:
 *
 *   erase_lock    one erase at a time: it has every snapshot open
 *   compact_lock  one compaction at a time, or removal of what compactions replaced
 *   reindex_lock  one reindex or snapshot at a time: whatever needs the files to stay as they are
 *   flush_lock    one flush or checkpoint at a time, or the end of a reindex; one drop at a time
 *   drop_lock     what lies at which offset of a session's log: shared while that is asked and
 *                 read, alone while a drop moves it, until news of it was given
 *   append_lock   the tail of the log, seqs, the batch under way; taken for a whole append
 *   news_lock     one batch's news at a time; taken before append_lock is let go, for their order
 *   sync_lock     one fdatasync of the log at a time, so that its error is seen by who asked first
 *   commit.lock   the queue of syncs
 *   env_lock      which index environment is current: shared while a view is open
 *   mem_lock      the memtables
 *   segments.lock the set of segments; damage_lock: what was reported; append_helper's lock: who
 *                 has it. All leaves.
 *
 * Readers never take append_lock; an append never waits for a reader but for the moment in which it
 * publishes its entries. A reader that looked into the memtables and missed goes on to the index,
 * and begins its view only then: what left the tables in between is in the index by then.
 */
#ifndef HL_CORE_H
#define HL_CORE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "frame.h"
#include "helper.h"
#include "index.h"
#include "io.h"
#include "memtable.h"
#include "segment.h"
#include "store.h"
#include "sums.h"

#define FLUSH_LOG_BYTES (UINT64_C(64) << 20) /* recovery replays at most about this */
#define FLUSH_TABLE_BYTES ((size_t)10 << 20) /* of one memtable; two may stand at once */
#define FLUSH_SESSIONS 500U                  /* a transaction; more would take memory */
#define FLUSH_ENTRIES (64U * 1024)           /* likewise */
#define FLUSH_MARKS 8U    /* likewise: marks of operations, which change pages of their own */
#define FLUSH_CALLS 8192U /* likewise: each changes a page of its own */
#define CALL_ENTRIES (FLUSH_ENTRIES / FLUSH_CALLS)                        /* for each of them */
#define DOCUMENT_ENTRIES (FLUSH_ENTRIES / FLUSH_MARKS / MEM_MARK_SPACING) /* for each of them */
#define POINT_SPACING (UINT64_C(1) << 20) /* bytes of a segment between points for root log */
#define SYNC_AHEAD_BYTES                                                    \
    (UINT64_C(8) << 20) /* unsynced bytes that wake the commit thread early \
                         */
#define DAMAGE_REMEMBERED 256U

struct sync_request {
    struct sync_request *next;
    hl_sync_done *done;
    void *context;
};

/* batch.h; of a small append, of a large one, and of the second part of that. */
struct batch_memory;
enum batch_size { BATCH_SMALL, BATCH_LARGE, BATCH_REST, BATCH_MEMORIES };

/* What a batch adds to the sums of each session (sums_batch.c). */
struct sums_stages {
    struct sums_stage *at;
    size_t count, made, capacity; /* used by the batch; fit for use; room */
};

struct commit {
    pthread_t thread;
    bool running;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t wake;
    struct sync_request *first, *last;
    bool stop, hurry;
    unsigned small_syncs; /* in a row; of the commit thread alone */
};

/* The flush thread also makes up for an index that opening had no room for. */
struct flusher {
    pthread_t thread;
    bool running;
    pthread_mutex_t lock; /* guards all below; a leaf */
    pthread_cond_t wake;
    bool stop, wanted;
    /* The thread's own: the index is tried again with so many bytes of room, or then. */
    uint64_t room_wanted, try_at, try_wait;
};

/* The thread that compacts, and what is known of the clocks. */
struct scheduler {
    pthread_t thread;
    bool started;
    struct hl_progress progress;
    pthread_mutex_t lock; /* guards all below; a leaf */
    pthread_cond_t wake;
    bool stop, running;
    bool looked, suspended;       /* the clocks were compared; they do not agree */
    uint64_t next_ms;             /* by the wall clock */
    uint64_t wall_ms, elapsed_ms; /* as they were at the last look */
    uint64_t sound_at;            /* elapsed_ms at which the wall clock is believed again */
};

/* What a flush leads the index to. Taken under append_lock when the table is frozen. */
struct flush_target {
    struct index_meta meta;
    struct index_segment *segments; /* from that of the old watermark to that of the new */
    size_t segment_count;
    struct sums *sums; /* the store's, as of the new watermark */
};

/* Log positions of one segment, the end not included. */
struct stretch {
    uint64_t begin, end;
};

struct hl_store {
    /* Fixed once open. */
    struct hl_options options;
    const struct hl_io *io;
    char *path;
    int dirfd, logfd, lockfd;
    uint8_t store_id[16];
    struct segment_set segments;
    bool writer_alive, medium_read_only; /* read-only stores: as found when it was opened */
    bool shadow;                         /* of another store, in use: changes nothing in log/ */
    struct hl_store *numbered_by; /* a shadow: who knows the numbers of documents; else NULL */
    bool without_index;    /* opening: the index cannot be brought to where it tells the truth */
    bool no_room;          /* opening: the disk is too full for more index than there is */
    unsigned retries;      /* of opening beside a writer, that are left */
    struct stretch *voids; /* in the segment that was the last: good frames there are of no batch */
    size_t void_count;     /* that was whole */
    uint64_t index_applying; /* of the index that was adopted */
    dev_t index_device;      /* of the data.mdb that was opened; read-only stores: under */
    ino_t index_inode;       /* append_lock */

    pthread_mutex_t erase_lock;
    pthread_mutex_t compact_lock;

    pthread_mutex_t reindex_lock;
    pthread_mutex_t flush_lock;
    struct flush_target target; /* of the frozen table; guarded by flush_lock, as are these: */
    size_t flush_applied;       /* sessions of the frozen table that are in the index already */
    size_t flush_marks;         /* and operations of the next one */
    bool flush_calls;           /* and the calls of sessions that have many */
    struct hl_dropped flush_dropped; /* what trims took from the index; who wants to know zeroes it
                                      */
    uint64_t checkpoint_clock;       /* monotonic_ms() of the newest checkpoint, or of the start */
    uint64_t checkpoint_position;    /* what the newest checkpoint holds */
    _Atomic uint64_t checkpoint_ms;

    pthread_rwlock_t drop_lock;

    pthread_mutex_t append_lock; /* guards down to the next blank line */
    pthread_cond_t room;         /* a flush made room in the memtable, or failed */
    struct segment *active;      /* taken; the last segment */
    uint32_t
        highest_number; /* of all segment files there are, also of those without a good header */
    uint64_t tail;      /* offset in it where the next frame goes */
    uint64_t zeros_end; /* its file holds zeros from the tail up to here, if this is beyond it */
    bool seal_written;  /* active is sealed and synced: the next one is to be made */
    /* append_lock; read-only: a compaction of the writer put other segments in the place of some,
     * and even of the one that was read up to. */
    bool segments_old, left_behind;
    uint64_t index_txn; /* read-only: the index's last commit when its list of segments was last
                           held against those that are read */
    bool index_old;     /* read-only: another index took the place of ours, with drops that ours
                           does not have */
    uint64_t clock_ms;  /* the highest recorded_ms given */
    uint32_t next_session;
    uint64_t batch;            /* counts batches, so that leftovers of one are known as such */
    struct sums_stages stages; /* of the batch under way */
    uint64_t next_point;       /* offset in active from which the next frame gets a point */
    uint64_t unindexed_bytes;  /* of log since the table was begun */
    uint64_t unsynced_bytes;   /* since the commit thread was last woken for their number */
    struct unmended *unmended; /* what recovery had no room to do to the tail; NULL: nothing */
    int flush_error;           /* of the last flush: 0, or why the memtable stays full */

    /* For the next append to take, one of each kind; or NULL. */
    struct batch_memory *_Atomic batch_memory[BATCH_MEMORIES];
    struct helper append_helper; /* for the second part of a large one */

    _Atomic uint64_t position; /* of the published tail */
    _Atomic uint64_t synced;   /* everything below is on the disk; written under sync_lock */
    _Atomic uint64_t indexed;  /* the index's watermark */
    _Atomic bool dirty;        /* appended since the commit thread last looked */
    _Atomic bool doubted;      /* something read from the index was damaged: see lookup.c */
    _Atomic int failed;        /* 0, or the errno for which appends are refused for good */

    pthread_mutex_t news_lock;
    pthread_mutex_t sync_lock;
    struct commit commit;
    struct flusher flusher;
    struct scheduler scheduler;

    pthread_mutex_t retain_lock; /* a leaf, but for the file that it writes */
    struct retain *retain;       /* retain.c */

    pthread_mutex_t erasing_lock; /* likewise */
    struct hl_erasing *erasing;   /* erasing.c */
    size_t erasing_count;

    pthread_rwlock_t env_lock;
    struct index *index; /* NULL: none (read-only without one) */

    pthread_rwlock_t mem_lock;       /* guards the tables, what is in them, and the totals */
    struct memtable *table, *frozen; /* frozen may be NULL */
    uint64_t sessions, records, bytes;
    struct sums sums; /* of all events up to the end of what is published */

    pthread_mutex_t damage_lock;
    uint64_t damage_at[DAMAGE_REMEMBERED]; /* positions reported, newest overwrite oldest */
    _Atomic uint64_t damage_found;

    _Atomic uint64_t rewrites; /* how often streams lost lines: cursors from before are of no use */
    _Atomic uint64_t compactions, freed_bytes, compact_last_ms, dead_bytes, backup_bytes,
        reserve_bytes;
    _Atomic int compact_error;
    uint32_t unpatched; /* reindex_lock: first number of a segment that the index does not list yet;
                           0: none */
    _Atomic uint64_t appends, syncs, flushes, checkpoints, drops;
    _Atomic uint64_t sync_counts[HL_SYNC_BOUNDS + 1], sync_us;
    _Atomic uint64_t quarantined_bytes, recovered_records, recovery_ms;
};

/* ---- store.c ---- */

/* A store with its locks and an empty table, and nothing opened. NULL: out of memory. */
struct hl_store *store_new(const struct hl_options *options, const char *path);
void store_free(struct hl_store *store); /* closes what is open; threads have ended */
/* Brings the index up to date, makes a checkpoint, closes the index with the mark of a clean end.
 * Threads have ended, or never began. */
int store_finish(struct hl_store *store);

/* ---- directory.c ---- */

/* Opens the directory, takes its lock, opens log/. A check (not for writing) keeps writers out
 * while it lasts; other read-only stores only look whether there is one. */
int store_begin(struct hl_store *store, bool check, struct hl_holder *holder, struct hl_error *err);

uint64_t now_ms(void);                               /* of the wall clock */
uint64_t store_now_ms(const struct hl_store *store); /* the same, or what a test says it is */
uint64_t monotonic_ms(void);
void store_report(const struct hl_store *store, enum hl_severity severity, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Reports damage at a position, once for each as far as remembered. */
void store_damage(struct hl_store *store, uint64_t position, const char *what);
bool store_damage_known(struct hl_store *store, uint64_t position); /* reported, as remembered */
/* Whether a frame there counts for nothing, good as it may be. */
bool store_is_void(const struct hl_store *store, uint64_t position);
/* 0, or why appends are refused: -EROFS, -EIO. */
int store_writable(const struct hl_store *store, struct hl_error *err);

/* ---- log.c: the tail; all with append_lock held ---- */

/* Waits for room in the memtable and makes the next segment if one is wanted. */
int log_prepare(struct hl_store *store, struct hl_error *err);
/* Cuts the file back to the tail after a write that failed. If that fails too, appends end for
 * good. */
void log_cut_back(struct hl_store *store);
/* Fills the file with zeros for a little way behind the tail, so that a sync of what is appended
 * next finds its blocks and its size there. Without room for that, nothing is filled. */
void log_fill_ahead(struct hl_store *store);
/* Cuts off what log_fill_ahead() left. */
int log_end_zeros(struct hl_store *store);
/* Moves the tail to `end`, after all below it was written, and has it synced in time. */
void log_advance(struct hl_store *store, uint64_t end);
/* Seals the active segment, also an empty one, if it is not yet, and syncs it. The next one is made
 * when something is to be appended. */
int log_seal(struct hl_store *store, struct hl_error *err);
/* Seals the active segment if it is full (or in any case, if forced and it holds a frame) and makes
 * the next one. On failure the log stays usable: what is left is tried again by log_prepare(). */
int log_rotate(struct hl_store *store, bool forced, struct hl_error *err);
/* Writes a session frame for row as a batch of its own. */
int log_write_session(struct hl_store *store, const struct index_row *row, uint64_t recorded_ms,
                      struct hl_error *err);
uint64_t log_clock(struct hl_store *store); /* recorded_ms for an append now */

/* ---- commit.c ---- */

int commit_start(struct hl_store *store);
void commit_stop(struct hl_store *store); /* answers what waits */
void commit_wake(struct hl_store *store, bool hurry);
/* Syncs a segment's file; the first failure ends appends for good. sync_lock is taken inside. */
int commit_sync_file(struct hl_store *store, struct segment *segment, uint64_t up_to);

/* ---- flush.c ---- */

void flush_target_free(struct flush_target *target); /* what it holds, which is none then */
/* flush_sums.c: puts what the session's events come to, which is so up to a position, and its
 * calls, if flush_put_calls() does not: that puts those of sessions that have many. */
int flush_put_sums(struct index_txn *txn, const struct mem_session *session, uint64_t position,
                   uint64_t *entries);
int flush_put_calls(struct hl_store *store, struct index *index);
int flush_start(struct hl_store *store);
void flush_stop(struct hl_store *store);
void flush_wake(struct hl_store *store);
/* Moves all that was appended so far into the index. With flush_lock held. */
int flush_all(struct hl_store *store);
/* Moves what an earlier flush that failed has left over, so that no table is frozen. Likewise. */
int flush_older(struct hl_store *store);
/* The tables as they are now, append_lock held too, are moved by the next flush_older(). */
int flush_freeze(struct hl_store *store);
/* The same with append_lock held too, so that no table knows any session when it returns: for when
 * the index changes what they would count on. Appends wait for it, so flush_all() goes before. */
int flush_held(struct hl_store *store);
/* The same for all up to the end of the active segment, which is sealed for it: *position. Appends
 * go on while it works, into the next one. */
int flush_sealed(struct hl_store *store, uint64_t *position, struct hl_error *err);
/* The same for recovery, which has the store to itself: all that was replayed up to position, which
 * is synced. */
int flush_position(struct hl_store *store, uint64_t position);

/* ---- flush_drops.c ---- */

/* What a flush does first: takes out of the index what is to be trimmed, and the sessions that are
 * deleted, by the frozen table. With flush_lock held and, since it takes drop_lock and append_lock,
 * none of those that come after it. */
int flush_drops(struct hl_store *store, struct index *index);

/* ---- checkpoint.c ---- */

/* With flush_lock held and the index up to date. progress may be NULL. */
int checkpoint_write(struct hl_store *store, struct hl_progress *progress, struct hl_error *err);
/* Copies the newest good checkpoint of this store, passing over the *skip newest, to directory
 * `name` (made) below DIR; *skip then counts those tried. -ENOENT: none is left. */
int checkpoint_restore(struct hl_store *store, unsigned *skip, const char *name);
/* The watermark that the newest checkpoint's name gives; 0: there is none. */
uint64_t checkpoint_newest(struct hl_store *store);
/* Writes a copy of the index, as it is when begun() (once, may be NULL) is called, to an empty
 * file; *size and *crc are of what was written. progress may be NULL. */
int checkpoint_copy_index(struct hl_store *store, int to, struct hl_progress *progress,
                          void (*begun)(void *context), void *context, uint64_t *size,
                          uint64_t *crc);
/* Checks each file of checkpoints/: each() gets its name below DIR and 0, or -EBADMSG. */
int checkpoint_check(struct hl_store *store,
                     void (*each)(void *context, const char *name, int result), void *context);
/* Removes those that are damaged, or all. */
int checkpoint_remove(struct hl_store *store, bool all);
/* The clean-end mark: what index/data.mdb was like when the store was closed (index/clean). dirfd:
 * of the directory that holds index/. */
int clean_mark_write(struct hl_store *store, int dirfd);
bool clean_mark_take(struct hl_store *store); /* checks it, and removes it if this is a writer */

/* ---- snapshot.c ---- */

/* Removes what a snapshot that was cut short left behind, while none is being made. */
int snapshot_clean(struct hl_store *store);

/* ---- lookup.c ---- */

/* Fills a public session from a row. */
void session_from_row(struct hl_session *session, const struct index_row *row);
/* The session in the active table, brought there from the frozen one or the index. With append_lock
 * held. -ENOENT. */
int lookup_for_append(struct hl_store *store, uint32_t number, const char *id, size_t id_len,
                      struct mem_session **session);
/* Finds a session by number, or by id if that is not NULL, and hands its row, which lives only so
 * long, to use(), whose result is returned. -ENOENT. use() must not take mem_lock or env_lock. */
int lookup_row(struct hl_store *store, uint32_t number, const char *id, size_t id_len,
               int (*use)(void *context, const struct index_row *row), void *context);
/* Offsets, here and below, are those of one moment only while drop_lock is held. */
/* How many sessions there are, for a store that follows a writer, whose index changes by itself. */
int lookup_count_sessions(struct hl_store *store, uint64_t *count);
/* The record of exactly this seq. -ENOENT. */
int lookup_seq(struct hl_store *store, uint32_t session, uint64_t seq, struct index_entry *entry);
/* The record that holds this byte of the session's log. -ENOENT: past the end. */
int lookup_offset(struct hl_store *store, uint32_t session, uint64_t offset,
                  struct index_entry *entry, uint64_t *begin);
/* Bytes of lines below seq. */
int lookup_bytes_before(struct hl_store *store, uint32_t session, uint64_t seq, uint64_t *bytes);
/* Up to max entries with a seq >= from, ascending; returns their number (0: none), or an error. */
ssize_t lookup_entries(struct hl_store *store, uint32_t session, uint64_t from,
                       struct index_entry *entries, size_t max);
/* Opens a view on the current index. -ENOENT: there is no index. */
int lookup_view(struct hl_store *store, struct index_view **view);
/* The same, to look for something of a session; also -ENOENT: it is deleted. */
int lookup_view_of(struct hl_store *store, uint32_t session, struct index_view **view);
/* error: what came of it, which is handed back. What is damaged in the index is noted, so that the
 * next opening examines it. */
int lookup_view_end(struct hl_store *store, struct index_view *view, int error);
/* Whether a session of this number is known to have been deleted: 1, 0, or an error. */
int lookup_removed(struct hl_store *store, uint32_t number);

/* ---- read.c ---- */

/*
 * Reads and checks the frame of an entry, which is looked up again if it is not there: a compaction
 * may have moved it. *buffer is the caller's to free; frame->body points into it. -EBADMSG: damaged
 * (reported). -ENOENT: dropped meanwhile.
 */
int read_frame(struct hl_store *store, uint32_t session, struct index_entry *entry,
               uint8_t **buffer, struct frame *frame);

/* ---- sessions.c ---- */

/* Logs that the session's history is complete only from this seq on; nothing below is undone any
 * more. */
int session_set_history(struct hl_store *store, uint32_t number, uint64_t from);

/* ---- moment.c ---- */

/* The first seq of the session that was recorded at or after a moment; above its last: none was. */
int moment_seq(struct hl_store *store, const struct hl_session *session, uint64_t ms,
               uint64_t *seq);

/* ---- recover.c, recover_tail.c, reindex.c, quarantine.c ---- */

/* Recovers an opened directory: leaves segments, index, memtable and tail ready. On a disk that is
 * too full for the index there is none (store->index is NULL) and all is in the memtable; what
 * cannot be set aside stays, and tail_mend() is to be tried before the tail is written to. */
int recover(struct hl_store *store, struct hl_error *err);
/* Does what recovery had no room to do, append_lock held: tail_settle() sees to it that what was
 * replayed is on the disk, tail_mend() also that the tail can be appended to. 0 if that is so;
 * -ENOSPC, -EDQUOT: not yet. */
int tail_settle(struct hl_store *store, struct hl_error *err);
int tail_mend(struct hl_store *store, struct hl_error *err);
void tail_forget(struct hl_store *store); /* frees what is kept for these two */
/* hl_reindex(), which only reports it where the old index cannot be removed: *removed. */
int reindex_whole(struct hl_store *store, struct hl_progress *progress, int *removed,
                  struct hl_error *err);
/* Builds the index that opening had no room for, if there may be room now. 0: there is one. From
 * the flush thread alone. */
int index_make_up(struct hl_store *store);
/* Sets bytes of a segment aside in DIR/quarantine, with a note; done before anything is cut or
 * written over. Doing it again for the same bytes changes nothing. */
int quarantine(struct hl_store *store, const struct segment *segment, uint64_t offset,
               uint64_t size, const char *why);

/* ---- follow_writer.c ---- */

/* For read-only stores: looks what a compaction of the writer put in the place of segments. */
void follow_compaction(struct hl_store *store);
/* Whether there is anything of the kind to look for: log/ has another file for this number than the
 * one that is read. If not, what does not check is damaged. */
bool follow_is_replaced(struct hl_store *store, uint32_t number);

/* For read-only stores: takes in what the writer appended since. Cheap when there is nothing. */
void follow_writer(struct hl_store *store);
/* The index of the writer has dropped something of the session since it was looked at. */
void follow_drops(struct hl_store *store, uint32_t session);

#endif
