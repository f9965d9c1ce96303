/*
 * index.h - the LMDB index: where each record lies, what is known of each session (format.md,
 * Index).
 *
 * Everything in it can be rebuilt from the segments. Only index*.c include lmdb.h. The log is
 * synced before anything that points into it is committed; that order is the caller's duty
 * (flush.c).
 *
 * Errors: 0 or a negative errno; -ENOENT for what is not there; -EBADMSG for a value whose
 * checksum, size or content is wrong (and for LMDB's own MDB_CORRUPTED, MDB_PAGE_NOTFOUND and the
 * like); -EAGAIN when the map is too small; -ENOSPC for a full disk; -EBUSY when all 512 slots for
 * readers are taken; -EROFS for a write to what was opened read-only; other errnos as they come.
 * The whole mapping of LMDB's results stands in index_value.c.
 *
 * Threads: any number of views at once, one write transaction at a time, begun, used and ended by
 * one thread. A view may be used by one thread at a time and lasts one request. What a view returns
 * points into the map and lives until index_view_end(). A thread that has a view open must not
 * begin another, nor call index_grow(): a growth that waits for the first would keep out the
 * second.
 *
 * Tables (LMDB named databases; integers in keys big-endian so that they sort, in values
 * little-endian; every value ends in a u32 CRC-32 over key and value, blocks keep theirs in the
 * head): meta      name -> value: "format" (version, store id), "state" (watermark, next session
 * number, counts) ids       session id -> u32 number sessions  u32 number -> row blocks    u32
 * session, u64 first seq -> head { u64 bytes, u32 count, u32 crc32 } and up to 254 entries { u64
 * position, u32 length (its highest bit: an operation), u32 seq distance from first seq } sums
 * u32 session, u8 level, u64 ordinal -> { u64 bytes, u64 records, u64 first, u64 last seq } Level 1
 * sums INDEX_FANOUT blocks by their order of making, level 2 as many of level 1, level 3 likewise;
 * a row is written when all that it sums is finished. segments  u32 first -> what the index knows
 * of the segment file points u32 segment, u64 line bytes before -> u64 offset in the file
 *
 * Of documents: keys      u32 session, u64 area, key -> u64 number
 *               slots     u32 session, u64 number -> u64 area, key
 *               versions  u32 session, u64 number, u64 seq -> struct index_version
 *               documents u32 session, u64 area, u64 number -> the last version and the key, of
 *                         those that are there
 *               operations u32 session, u64 seq, u32 part -> the operation before, numbers of slots
 *
 * Of sums (sums.h): totals    u32 session, 0 for the whole store -> what its events come to
 *                   calls     u32 session, u64 hash of a tool_call_id -> struct index_call
 */
#ifndef HL_INDEX_H
#define HL_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "store.h"

#define INDEX_BLOCK_ENTRIES 254
#define INDEX_FANOUT 64

struct index;
struct index_view;
struct index_txn;
struct sums; /* sums.h */

/* Where a record lies. */
struct index_entry {
    uint64_t seq;
    uint64_t position; /* log position of its frame */
    uint32_t length;   /* of the line with its newline; below 2^29 */
    bool operation;    /* else an event */
};

/* What a session's operations come to. */
struct index_documents {
    uint64_t slots;        /* given so far: their numbers are INDEX_SLOT_FIRST and up */
    uint64_t documents;    /* in HL_AREA_STATE now */
    uint64_t operations;   /* records that are operations */
    uint64_t history_from; /* seq from which versions are complete */
    bool has_top;
    uint64_t top; /* seq of the last operation not undone */
};
#define INDEX_SLOT_FIRST UINT64_C(2)

/*
 * What a key of an area became by a record. A slot is a key in an area, whether or not a document
 * is there now; its versions, in order of seq, are its history. The version before an operation is
 * what undoing it restores.
 */
struct index_version {
    uint64_t seq;    /* of the record that did it */
    uint64_t end;    /* bytes of the lines of this slot's records, up to and with this one's */
    bool moved;      /* it went elsewhere, by a rename; not present */
    bool present;    /* a document is there; else all below is 0 */
    uint64_t source; /* seq of the record that holds the value */
    uint64_t set_ms; /* that record's ts_ms */
    uint32_t offset, length; /* of the value in that record's line */
};

/* A slot's key points into the map, or where the caller had it. */
struct index_slot {
    uint64_t number, area;
    const char *key;
    uint16_t key_len;
};

/* What is known of a session. In what a view returns, id and attributes point into the map. */
struct index_row {
    uint32_t number, uid, gid, mode;
    bool has_seq;
    uint64_t created_ms, changed_ms;
    uint64_t first_seq, last_seq, records, bytes;
    uint64_t gone;    /* bytes of lines that were dropped from it ever; of no use but to be told */
    uint64_t trimmed; /* no event below this seq is there, nor will be */
    uint64_t indexed; /* log position: all of this session's frames below it are in the index */
    struct index_documents documents;
    const char *id;
    uint16_t id_len;
    const void *attributes; /* opaque here (session.c); may be NULL */
    uint32_t attributes_len;
};

struct index_segment {
    uint32_t first, last, generation, salt;
    uint64_t indexed_end; /* offset up to which its frames are in the index */
    uint64_t records;     /* of them */
    uint64_t line_bytes;  /* bytes of their lines: what this segment adds to the root log */
    uint64_t overhead; /* bytes of the file that are no records' frames, and must be; 0: not known
                        */
    bool sealed;
};

struct index_meta {
    uint8_t store_id[16];
    uint64_t watermark; /* log position up to which the index is complete */
    uint64_t
        applying; /* up to where some sessions are applied: above it while a flush is under way */
    uint32_t next_session;             /* the number the next new session gets */
    uint64_t recorded_ms;              /* the highest recorded_ms in what is indexed */
    uint64_t sessions, records, bytes; /* totals of what is indexed; kept by index_apply() itself */
    uint64_t epoch;                    /* moves with each commit that drops entries or moves them */
};

/* ---- the environment ----------------------------------------------------------------------------
 */

#define INDEX_CREATE 1U    /* make it if it is absent; an existing one is opened */
#define INDEX_READ_ONLY 2U /* beside a writer in another process */
#define INDEX_NO_LOCK 4U   /* with READ_ONLY: no writer anywhere, the medium may be read-only */
/* A fresh one is being filled: commits are not synced until index_sync(). */
#define INDEX_BUILD 8U

/* Opens the environment in directory path (made if INDEX_CREATE). -ENOENT: none there, or one that
 * a crash left empty. store_id is written into a fresh one, and compared with that of one that
 * exists
 * (-EBADMSG; NULL: not compared, not with INDEX_CREATE). A fresh one's meta is all 0 but
 * next_session = 1. The map is 1 TiB where the address space allows, else halved until it fits.
 * What INDEX_BUILD fills is good for nothing after a crash before index_sync() returned 0: fill it
 * under another name. */
int index_open(const char *path, unsigned flags, const uint8_t store_id[16], struct index **index,
               struct hl_error *err);
void index_close(struct index *index); /* NULL is fine; no view or transaction may be open */
/* Ends INDEX_BUILD: syncs all, later commits are synced. No transaction may be open. */
int index_sync(struct index *index);
/* Which file is open, whatever has its name now. */
int index_file(struct index *index, dev_t *device, ino_t *inode);
/* Whether the file has no name any more: a writer put another index in its place. */
bool index_is_replaced(const struct index *index);
uint64_t index_bytes(struct index *index); /* in use on disk */
uint64_t
index_txn_id(struct index *index); /* of the last commit, any process's; 0 if it cannot be told */
int index_reader_check(struct index *index); /* frees the slots of readers that died */

/* Writes a compact, consistent copy of the environment to fd (a pipe or a file), with LMDB's own
 * copy. It is what belongs in a data.mdb. Lasts as a view does. */
int index_copy(struct index *index, int fd);

/* ---- reading
 * -------------------------------------------------------------------------------------- */

int index_view_begin(struct index *index, struct index_view **view);
void index_view_end(struct index_view *view); /* NULL is fine */

int index_get_meta(struct index_view *view, struct index_meta *meta);
int index_session_by_id(struct index_view *view, const char *id, size_t len, struct index_row *row);
int index_session_by_number(struct index_view *view, uint32_t number, struct index_row *row);
int index_session_next(struct index_view *view, uint32_t after, struct index_row *row);

/* The entry of exactly this seq. */
int index_find(struct index_view *view, uint32_t session, uint64_t seq, struct index_entry *entry);

/* Calls each() for entries with seq >= from, ascending, until it returns false; touches one block
 * at a time. Returns 0 also when there are none. each() may ask the same view. */
typedef bool index_each(void *context, const struct index_entry *entry);
int index_each_from(struct index_view *view, uint32_t session, uint64_t from, index_each *each,
                    void *context);

/* The bytes of the session's lines with a seq below `seq`; 0 for a session that is not known. O(log
 * n) by the sums, and a look into the newest block for what lies there. */
int index_bytes_before(struct index_view *view, uint32_t session, uint64_t seq, uint64_t *bytes);

/* The entry that holds byte `offset` of the session's log, and the offset at which its line begins.
 * -ENOENT: offset is at or past the end of what is indexed. O(log n) by the sums. */
int index_find_offset(struct index_view *view, uint32_t session, uint64_t offset,
                      struct index_entry *entry, uint64_t *begin);

int index_segment_next(struct index_view *view, uint32_t after_first,
                       struct index_segment *segment);

/* The point of a segment with the most line bytes <= line_offset. -ENOENT: none (begin at the
 * header). */
int index_find_point(struct index_view *view, uint32_t segment, uint64_t line_offset,
                     uint64_t *line_bytes, uint64_t *file_offset);

/* ---- documents (index_document.c) ---- */

int index_slot_find(struct index_view *view, uint32_t session, uint64_t area, const char *key,
                    size_t len, uint64_t *number);
int index_slot_get(struct index_view *view, uint32_t session, uint64_t number,
                   struct index_slot *slot);
/* The slot with the lowest number above `after`; -ENOENT at the end. */
int index_slot_next(struct index_view *view, uint32_t session, uint64_t after,
                    struct index_slot *slot);
/* The slot's last version with a seq <= limit. -ENOENT. */
int index_version_at(struct index_view *view, uint32_t session, uint64_t number, uint64_t limit,
                     struct index_version *version);
/* Its first version with a seq >= from. -ENOENT. */
int index_version_from(struct index_view *view, uint32_t session, uint64_t number, uint64_t from,
                       struct index_version *version);
/* Calls each() for the documents that are in an area, with a number above `after`, ascending,
 * until it returns false. */
typedef bool index_document_each(void *context, const struct index_slot *slot,
                                 const struct index_version *version);
int index_documents_from(struct index_view *view, uint32_t session, uint64_t area, uint64_t after,
                         index_document_each *each, void *context);
/* The operation not undone before this one, if there is one, and the numbers of the slots that it
 * changed: *slots is the caller's to free. -ENOENT: not an operation that can be undone. */
struct index_operation {
    uint64_t seq;
    bool has_before;
    uint64_t before;
    size_t count;
    uint64_t *slots;
};
int index_operation_get(struct index_view *view, uint32_t session, uint64_t seq,
                        struct index_operation *operation);

/* ---- sums (index_totals.c) ---- */

/* Where a tool_call_id stands: the first event that has it is the one that counts, the last one may
 * be given as later than it is. */
struct index_call {
    uint64_t hash; /* not 0 */
    uint64_t first, last;
};

/* Of a session, or of the store (0). *sums must be empty; it is to be cleared after a failure too.
 * -ENOENT: none are stored. */
int index_get_sums(struct index_view *view, uint32_t session, struct sums *sums);
int index_call_get(struct index_view *view, uint32_t session, uint64_t hash,
                   struct index_call *call);

/* ---- writing
 * ---------------------------------------------------------------------------------------- */

int index_begin(struct index *index, struct index_txn **txn);
/* Both free the transaction. commit: any error means that nothing of it was stored: -ENOSPC, -EIO,
 * or -EAGAIN as told below, or the first error of what was done in it. */
int index_commit(struct index_txn *txn);
void index_abort(struct index_txn *txn); /* NULL is fine */

/*
 * Adds entries (ascending, above the session's last indexed seq) to the session's blocks and sums,
 * and stores row as the session's row (a new session gets its ids entry too). row's totals are
 * those after the entries: records, bytes and first_seq must agree with what was stored and what is
 * added, last_seq must not be below the last entry. next() gives one entry at a time and returns
 * false at the end; NULL: there are none. -EINVAL: row or entries are not so, or the id is that of
 * another number.
 *
 * After any error of this and the functions below the transaction can only be aborted: all of them
 * return that error from then on. When LMDB's map is full: -EAGAIN (from index_commit() too);
 * abort, call index_grow(), try again.
 */
typedef bool index_next(void *context, struct index_entry *entry);
int index_apply(struct index_txn *txn, const struct index_row *row, index_next *next,
                void *context);

/* A slot with its key; once, before its first version. */
int index_put_slot(struct index_txn *txn, uint32_t session, const struct index_slot *slot);
/* Versions of a slot, ascending, above those stored; the last one says whether a document is there
 * now. */
int index_put_versions(struct index_txn *txn, uint32_t session, const struct index_slot *slot,
                       const struct index_version *versions, size_t count);
int index_put_operation(struct index_txn *txn, uint32_t session,
                        const struct index_operation *operation);

int index_put_sums(struct index_txn *txn, uint32_t session, const struct sums *sums);
/* Puts calls, those that are there already anew; sorted ones change the fewest pages. */
int index_put_calls(struct index_txn *txn, uint32_t session, const struct index_call *calls,
                    size_t count);
void index_sort_calls(struct index_call *calls, size_t count);

int index_put_segment(struct index_txn *txn, const struct index_segment *segment);
int index_put_point(struct index_txn *txn, uint32_t segment, uint64_t line_bytes,
                    uint64_t file_offset);
/* Stores watermark, applying and recorded_ms as given, next_session if it is higher than what is
 * stored. store_id, totals and epoch are not taken from it: each commit stores totals that are
 * those of its rows. */
int index_put_meta(struct index_txn *txn, const struct index_meta *meta);

/* Of meta only applying and next_session, where these are higher than what is stored. */
int index_put_applying(struct index_txn *txn, uint64_t applying, uint32_t next_session);

/* Doubles the map. Waits until no view is open; none can begin meanwhile. -EBUSY: a transaction is
 * open. -ENOMEM: there is no address space for it. */
int index_grow(struct index *index);

/* ---- dropping and moving (index_edit.c) ----
 *
 * Blocks keep their keys: one that loses entries is stored again with fewer, one that loses all is
 * deleted, but for the session's newest, which then stands empty. Sums stay where they are, with
 * less in them. Each commit leaves all of it as index_check() wants it.
 */

/* What was done, in one transaction; zero it to begin, calls add to it. */
struct index_edited {
    uint64_t records, bytes;  /* that were dropped */
    uint64_t operations;      /* of those records */
    uint64_t moved;           /* entries that got another position */
    uint64_t cost;            /* pages that were changed or freed, about */
    uint64_t left, first_seq; /* of the last call's session, if it is known: its records, and the
                                 first one's seq */
    bool more;     /* of the last call: there was no room for all in this transaction. Go on */
    uint64_t next; /* from this seq, in the next one (index_edit()) */
};

/* MOVE: the entry's position was changed by each(); its other fields count for nothing. */
enum index_verdict { INDEX_KEEP, INDEX_DROP, INDEX_MOVE };
typedef enum index_verdict index_edit_each(void *context, struct index_entry *entry);

/*
 * Calls each() for the session's entries with a seq from `from` to `to`, ascending, and does with
 * them as it says. The session's row, its sums and the totals follow: records, bytes, first_seq,
 * gone, and operations for those dropped; what is known of documents is left to the caller. A
 * session that is not known has no entries. Once result->cost has reached a bound, no more is done
 * in this transaction.
 */
int index_edit(struct index_txn *txn, uint32_t session, uint64_t from, uint64_t to,
               index_edit_each *each, void *context, struct index_edited *result);

/* Drops the session's events with a seq below `below`, as index_edit() does, and notes that in its
 * row at once. Doing it again changes nothing. */
int index_trim(struct index_txn *txn, uint32_t session, uint64_t below,
               struct index_edited *result);

/*
 * Removes a session: its id, which may be used again at once, and all else that is known of it, but
 * for a mark that its number is of one that was removed, so that its frames in the log count for
 * nothing, and are known to be dead. result->more: call it again in another transaction. Doing it
 * again changes nothing. One that is not known gets a mark.
 */
int index_remove_session(struct index_txn *txn, uint32_t session, struct index_edited *result);
/* Whether there is such a mark: 1, 0, or an error. Other questions do not find the session. */
int index_session_removed(struct index_view *view, uint32_t session);

/* ---- what compaction changed (index_patch.c) ---- */

/* The segment is listed in the place of all whose first number lies in its range; their points
 * go. */
int index_replace_segments(struct index_txn *txn, const struct index_segment *segment);
/* Rows that say they are applied beyond this position say that they are up to it: of a bounded
 * number of sessions with numbers above *after, which moves on; UINT32_MAX: all are done. */
int index_lower_indexed(struct index_txn *txn, uint32_t *after, uint64_t position);

/* An operation whose record is going to be dropped; what follows the seq is filled by
 * index_forgotten_link(). Ascending by seq. */
struct index_forgotten {
    uint64_t seq;
    bool has_row, has_before; /* it could be undone; one stands before it that stays */
    uint64_t before;
};
int index_forgotten_link(struct index_view *view, uint32_t session,
                         struct index_forgotten *forgotten, size_t count);
/* How far it is; zero it to begin. more: call it again, in another transaction. */
struct index_forgetting {
    unsigned stage;
    uint64_t next;
    bool more;
};
/* Forgets what the operations did, as if they had never been: their versions, and slots that have
 * none left, and that they can be undone. Their entries are index_edit()'s to drop, afterwards.
 * What is done already is passed over. */
int index_forget_operations(struct index_txn *txn, uint32_t session,
                            const struct index_forgotten *forgotten, size_t count,
                            struct index_forgetting *at);

/* Calls each() for every operation of a session that can be undone, ascending (without its slots),
 * and for every version of every slot, by slot and seq, until one returns other than 0, which is
 * returned. */
typedef int index_operation_each(void *context, const struct index_operation *operation);
int index_operations_all(struct index_view *view, uint32_t session, index_operation_each *each,
                         void *context);
typedef int index_version_each(void *context, const struct index_slot *slot,
                               const struct index_version *version);
int index_versions_all(struct index_view *view, uint32_t session, index_version_each *each,
                       void *context);

/* ---- checking
 * ----------------------------------------------------------------------------------------- */

struct index_check_report {
    uint64_t sessions, records, blocks, documents, versions;
    char complaint[256]; /* the first thing that is wrong, or "" */
};

/* Walks every page that the newest commit reaches, and LMDB's list of free pages, without LMDB;
 * then every value of every table through it: checksums, order, sizes, that sums add up, that rows
 * match their blocks, that ids and sessions agree, that totals in meta are those of the rows.
 * -EBADMSG with a complaint when something is wrong; -ENOENT: no environment there. No writer may
 * be at work. May die by SIGBUS or SIGSEGV or abort() on damaged pages: see below. flags: 0 or
 * INDEX_NO_LOCK. store_id may be NULL. */
int index_check(const char *path, unsigned flags, const uint8_t store_id[16],
                struct index_check_report *report);

/* The same in a forked child (before this process opened the environment): a child that dies is
 * -EBADMSG, with the signal in the complaint, and so is one that comes to no end (two minutes, more
 * for a large index); one that finds no memory or an I/O error is told as such; -EINTR: it was told
 * to end. */
int index_check_in_child(const char *path, unsigned flags, const uint8_t store_id[16],
                         struct index_check_report *report);

#endif
