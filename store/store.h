/*
 * store.h - the hotlogfs log store, the one public header of the library.
 *
 * A store is a directory that holds a durable, append-only log of sessions. A session has an id (1
 * to 255 bytes of UTF-8), a number that is never used twice, and records: lines of text named by
 * their seq. This header is all that a program outside store/ may include.
 *
 * Errors. Functions that return int (or ssize_t) return 0 (or a count) on success and a negative
 * errno otherwise. The codes a caller can meet, and what each means here:
 *
 *   -EINVAL     bad input: not JSON, a field of the wrong type, a bad name
 *   -EMSGSIZE   a line longer than max_record
 *   -EEXIST     the seq (or session) exists already, with other content
 *   -ENOENT     no such session, record or attribute (-ENODATA for attributes)
 *   -EACCES     a root append into a session whose bits refuse the caller
 *   -EROFS      the store was opened read-only
 *   -ENOSPC     the disk is full; nothing was stored; it heals when there is room
 *   -EBADMSG    damage: stored bytes whose checksum is wrong; they are never handed out
 *   -EIO        the device failed, or an earlier failure made the store refuse appends for good
 *   -ENOTEMPTY  a session to be removed has records or documents
 *   -EBUSY      another process holds the store (open), or a command is running already
 *   -EINTR      a long command was cancelled
 *
 * Where a function takes a struct hl_error and fails, it is filled with a sentence that can be
 * shown to a user as it stands. The pointer may be NULL.
 *
 * Threads. Every function may be called from any thread once hl_store_open() has returned, and
 * until hl_store_close() is called. hl_store_open() may fork a child to examine an index that is in
 * doubt, so it should be called before the process starts threads of its own.
 *
 * Units. Times in _ms are milliseconds since the Unix epoch; sizes are bytes.
 */
#ifndef HL_STORE_H
#define HL_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define HL_VERSION "0.1.0" /* of the project: programs and package take it from here */

#define HL_ID_MAX 255                        /* bytes of a session id */
#define HL_SEQ_MAX ((UINT64_C(1) << 53) - 1) /* so that every JSON reader has it exactly */
#define HL_ATTRIBUTES_MAX 65536 /* bytes of all attributes of one session, names included */
#define HL_ATTRIBUTE_NAME_MAX 255

struct hl_store;
struct hl_io; /* io.h; for tests that make system calls fail */

struct hl_error {
    int code;         /* the errno, positive; 0 = none */
    size_t line;      /* the line of the refused write that is to blame, from 1; 0 = none */
    uint32_t session; /* of a root append: the session that this line names, as far as it can be
                         read and there is one; else 0 */
    char text[320];   /* one sentence, no newline */
};

/* Fills err (if not NULL) and returns -code. */
int hl_fail(struct hl_error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- opening ----------------------------------------------------------------------------------
 */

enum hl_severity { HL_INFO, HL_WARNING, HL_ERROR };

/* What a batch did to a document of HL_AREA_STATE, once for each document. */
enum hl_change { HL_DOCUMENT_MADE, HL_DOCUMENT_CHANGED, HL_DOCUMENT_DELETED };
struct hl_document_news {
    uint64_t number; /* hl_document_name() */
    enum hl_change change;
};

/* What a batch added to one session. Seqs between first and last may be missing. */
struct hl_news {
    uint32_t session;
    bool created;   /* the session is new */
    size_t records; /* 0: none, and first and last mean nothing */
    uint64_t first, last;
    bool by_file; /* hl_append.by_file */
    /* What it did to documents: the last HL_NEWS_DOCUMENTS of them, in order. */
    const struct hl_document_news *documents;
    size_t document_count;
    uint64_t documents_skipped; /* that are left out */
    /* What was dropped from it; with session 0, from the log of the whole store. Comes alone, while
     * nobody reads the session's log by offsets: what is read later sees the drop. A large drop may
     * come in parts. */
    bool deleted;                            /* the session is gone, with all that it had */
    uint64_t dropped_records, dropped_bytes; /* bytes: of lines */
    uint64_t dropped_first, dropped_last;    /* none of them had a seq outside of these */
};
#define HL_NEWS_DOCUMENTS 4096U

struct hl_options {
    bool read_only; /* beside a writer or alone; writes nothing but LMDB's reader table */
    uint64_t sync_interval_ms;       /* 1000: the longest time an append stays unsynced */
    uint64_t segment_size;           /* 64 MiB: a segment is sealed when it reaches this */
    uint64_t max_record;             /* 16 MiB: the longest line taken, without its newline */
    uint64_t checkpoint_interval_ms; /* 600000 */
    uint64_t compact_interval_ms;    /* 3600000; 0: only when asked for */
    uint64_t compact_threshold;      /* 1 MiB: a segment is rewritten when at least so much of it is
                                        dead,      and a quarter of it */
    uint64_t history_ms; /* 30 days: operations that nothing needs any more are kept for so long */
    uint64_t backups;    /* 3: compactions of which the replaced segments are kept */
    const struct hl_io *io; /* NULL: the system's calls */
    /* News for the log: recovery, damage, failures. Called from any thread; NULL: none. */
    void (*report)(void *context, enum hl_severity severity, const char *sentence);
    void *report_context;
    /* News for those who watch: called once for each session to which a batch added records, or
     * which it made, when they can be read already. One call at a time, in the order of the
     * batches. From the appending thread, before hl_append() returns, or in a read-only store from
     * one that looked for its writer's appends, with a lock held that appends and reads of the
     * store take: so it must not call the store, nor wait. NULL: none. */
    void (*news)(void *context, const struct hl_news *news);
    void *news_context;
    /* The time of day in ms, for tests; NULL: the system's. */
    uint64_t (*clock)(void *context);
    void *clock_context;
};

void hl_options_init(struct hl_options *options);

/*
 * Opens the store in dir, making it if dir is absent or empty, and recovers it (format.md,
 * Opening). -EBUSY: another process writes it; err names the pid and *holder (if not NULL) says
 * what is known.
 */
struct hl_holder {
    pid_t pid;      /* 0 when the lock file did not say */
    char note[128]; /* what the holder passed to hl_store_note(), or "" */
};
int hl_store_open(const char *dir, const struct hl_options *options, struct hl_store **store,
                  struct hl_holder *holder, struct hl_error *err);

/* Writes a note (one line, at most 127 bytes) beside the pid in DIR/lock, for those who find it
 * held. */
int hl_store_note(struct hl_store *store, const char *note);

/*
 * Syncs the log, brings the index up to date, makes a checkpoint, releases the lock and frees the
 * store, whatever fails on the way; returns the first failure. NULL is fine.
 */
int hl_store_close(struct hl_store *store);

/* ---- sessions ---------------------------------------------------------------------------------
 */

struct hl_session {
    uint32_t number; /* from 1; never used twice */
    uint32_t uid, gid;
    uint32_t mode;         /* permission bits, 07777 */
    uint64_t created_ms;   /* when it was made */
    uint64_t changed_ms;   /* when the last record was appended, or created_ms */
    uint64_t first_seq;    /* of the oldest record there is; meaningless if records is 0 */
    uint64_t last_seq;     /* the highest seq ever given, 0 if none (see has_seq) */
    bool has_seq;          /* false until a first record was appended; a first seq may be 0 */
    uint64_t records;      /* that can be read */
    uint64_t bytes;        /* of their lines: the size of the session's log */
    uint64_t gone;         /* bytes of lines that were dropped from it ever, about */
    uint64_t documents;    /* in state/ */
    uint64_t operations;   /* records that are operations */
    uint64_t history_from; /* seq from which history and documents as they were can be told */
    uint16_t id_len;
    char id[HL_ID_MAX + 1]; /* NUL-terminated too; may hold any byte but NUL */
};

/* Whether id can name a session: 1 to HL_ID_MAX bytes of UTF-8 without NUL, and no more than that
 * many once written as a file name, where `/`, `%` and control bytes take three each. */
bool hl_session_id_valid(const char *id, size_t len);

/* Makes a session. -EEXIST if there is one (*session is then filled with it). */
int hl_session_create(struct hl_store *store, const char *id, size_t len, uint32_t uid,
                      uint32_t gid, uint32_t mode, struct hl_session *session,
                      struct hl_error *err);

int hl_session_by_id(struct hl_store *store, const char *id, size_t len,
                     struct hl_session *session);
int hl_session_by_number(struct hl_store *store, uint32_t number, struct hl_session *session);

/* The session with the lowest number above `after` (0 to begin); -ENOENT at the end. */
int hl_session_next(struct hl_store *store, uint32_t after, struct hl_session *session);

#define HL_CHANGE_UID 1U
#define HL_CHANGE_GID 2U
#define HL_CHANGE_MODE 4U
/* Changes owner, group and permission bits as `what` says; durable like an append. */
int hl_session_change(struct hl_store *store, uint32_t number, unsigned what, uint32_t uid,
                      uint32_t gid, uint32_t mode, struct hl_session *session);

/*
 * User attributes of a session. Names are without the "user." prefix. get and list return the
 * length, and write nothing when size is 0; -ERANGE when size is too small; -ENODATA when there is
 * none. list gives the names, each ended with NUL. set takes XATTR_CREATE and XATTR_REPLACE;
 * -ENOSPC past HL_ATTRIBUTES_MAX. Durable like an append.
 */
ssize_t hl_attribute_get(struct hl_store *store, uint32_t number, const char *name, void *value,
                         size_t size);
ssize_t hl_attribute_list(struct hl_store *store, uint32_t number, char *names, size_t size);
int hl_attribute_set(struct hl_store *store, uint32_t number, const char *name, const void *value,
                     size_t size, int flags);
int hl_attribute_remove(struct hl_store *store, uint32_t number, const char *name);

/* ---- dropping ---------------------------------------------------------------------------------
 *
 * What is dropped is gone for every reader when the call returns, and stays so after a crash; its
 * bytes leave the disk when their segments are compacted. Seqs that were given are never given
 * again.
 *
 * When a call fails with -ENOSPC or -EIO, the drop may have been logged already: then it is carried
 * out later, at the latest by the next opening.
 */

struct hl_dropped {
    uint64_t records, bytes; /* bytes: of their lines */
};

/* Drops the session's events with a seq below `below`. Operations stay, and so do documents and
 * their history. Nothing that is appended later is dropped, whatever its seq. dropped may be NULL.
 * -ENOENT. */
int hl_trim(struct hl_store *store, uint32_t session, uint64_t below, struct hl_dropped *dropped,
            struct hl_error *err);

/* Drops a session with all that it has. Its number is never used again; its id may be, by a session
 * that is made anew. -ENOENT. */
int hl_delete(struct hl_store *store, uint32_t session, struct hl_dropped *dropped,
              struct hl_error *err);

/* The same for one that has no record and no document; else -ENOTEMPTY. */
int hl_remove_empty(struct hl_store *store, uint32_t session, struct hl_error *err);

/* ---- appending --------------------------------------------------------------------------------
 */

/* What one session got from a batch: the seqs from first to last, also those of idempotent retries.
 */
struct hl_receipt {
    uint32_t session;
    bool created; /* the batch made the session */
    const char *id;
    size_t id_len;
    uint64_t first, last;
    size_t records; /* how many lines of the batch went to it */
    /* As in struct hl_news. They live as long as the call that hands out the receipt. */
    const struct hl_document_news *documents;
    size_t document_count;
    uint64_t documents_skipped;
};

/* What must hold of a document for an append to be made; looked at when nothing can come between.
 */
struct hl_expectation {
    uint64_t area;
    const char *key;
    size_t len;
    bool present;     /* it must be there, or it must not */
    uint64_t changed; /* if present: struct hl_document's, or HL_DOCUMENT_SEQ_ANY */
};

struct hl_append {
    uint32_t session; /* 0: a root append, each line names its own session_id */
    const char *data; /* lines, each ended by a newline but for perhaps the last */
    size_t len;
    /* Not for a root append. What does not hold: -ENOENT for a document that should be there,
     * -EEXIST for one that should not, -ESTALE for one that was changed meanwhile. */
    const struct hl_expectation *expectations;
    size_t expectation_count;
    bool by_file; /* the documents are changed through files: watchers of state/ know already */
    /* For a root append: what a session that a line makes gets, and who may append to one that is.
     */
    uint32_t uid, gid, mode;
    int (*permit)(void *context,
                  const struct hl_session *session); /* 0 or -EACCES; NULL: all may */
    void *permit_context;
    /* Called once a session, in order of first appearance, after the batch is stored; may be NULL.
     * No lock of the store is held. */
    void (*receipt)(void *context, const struct hl_receipt *receipt);
    void *receipt_context;
};

/*
 * Appends the lines of data as one batch: all or none, contiguous, also across a crash. Empty lines
 * are skipped. On return 0 the records can be read and survive the death of the process; after a
 * sync that was asked for later, power loss. On failure nothing was stored and err says which line
 * and why.
 */
int hl_append(struct hl_store *store, const struct hl_append *request, struct hl_error *err);

/* Whether text (without newline) is one complete JSON object: what a flush may append. */
bool hl_line_is_object(const char *text, size_t len);

/*
 * Whether a line that comes in pieces can still become one that is taken by the session's append
 * (0: by root append): false at the very byte with which it begins with '{' and cannot be the
 * beginning of a JSON object, or holds what no UTF-8 text has, or is over max_record; or, for root
 * append, is text. So a write that ends in the middle of a hopeless line can be refused at once.
 * err says why.
 *
 * text is all that there is of the line so far, and may have moved. *progress is zeroed for a new
 * line; what it stands for was looked at in earlier calls and is not again, so all calls together
 * cost what the line is long. After a refusal it is as it was before.
 */
struct hl_line_progress {
    uint64_t opaque[10];
};
bool hl_line_check(struct hl_store *store, uint32_t session, struct hl_line_progress *progress,
                   const char *text, size_t len, struct hl_error *err);

/*
 * A barrier: done(context, error) is called, from the commit thread, when all that was appended
 * before the call is on the disk (error 0), or can never be known to be (-EIO). Concurrent calls
 * share one fdatasync. done must not block. hl_sync() waits for it.
 */
typedef void hl_sync_done(void *context, int error);
void hl_sync_async(struct hl_store *store, hl_sync_done *done, void *context);
int hl_sync(struct hl_store *store);

/* ---- reading ----------------------------------------------------------------------------------
 */

struct hl_record {
    uint64_t seq;
    uint32_t length;      /* of the line with its newline */
    uint32_t crc32;       /* of the frame, as stored */
    uint64_t ts_ms;       /* the line's own */
    uint64_t recorded_ms; /* the store's clock at the append */
    uint64_t segment;     /* first number of the segment that holds it */
    uint64_t offset;      /* of its frame in that file */
};

/* -ENOENT: there is none (or it was dropped). -EBADMSG: it is damaged. */
int hl_record_find(struct hl_store *store, uint32_t session, uint64_t seq,
                   struct hl_record *record);

/* The length of the record's line, from the index alone. -ENOENT. */
int hl_record_length(struct hl_store *store, uint32_t session, uint64_t seq, uint32_t *length);

/* Reads up to size bytes of the record's line from offset; 0 at its end. The whole frame is
 * checked. */
ssize_t hl_record_read(struct hl_store *store, uint32_t session, uint64_t seq, void *buffer,
                       size_t size, uint64_t offset);

/*
 * Calls each() for the session's records with seq >= from, ascending, until it returns false.
 * Without details only seq and length are filled, from the index alone; with them all fields are,
 * from the frames (a damaged record then has ts_ms = recorded_ms = 0 and crc32 = 0). each() must
 * not call the store.
 */
typedef bool hl_record_each(void *context, const struct hl_record *record);
int hl_record_list(struct hl_store *store, uint32_t session, uint64_t from, bool details,
                   hl_record_each *each, void *context);

/*
 * Remembers where a stream was read up to. Zero it to begin; it may be copied.
 *
 * A read that begins where the last one ended goes on with the record that is next, also if records
 * of the session were dropped since, which moves what lies at which offset: so who reads on neither
 * misses a record nor gets one twice. If what was dropped was read in part, its line is ended by a
 * newline. For any other offset it is a hint only and never changes what is read, as long as
 * nothing was dropped.
 */
struct hl_cursor {
    uint64_t end;    /* where the last read ended */
    uint64_t offset; /* where the line of the record found below began, or is to begin */
    uint64_t place;
    uint64_t age; /* streams may have lost lines since */
};

/*
 * The session's records from seq `from` to seq `to` (both included) as a window [*begin, *end) of
 * byte offsets in the session's log. Empty (begin == end) when no record lies there.
 */
int hl_log_extent(struct hl_store *store, uint32_t session, uint64_t from, uint64_t to,
                  uint64_t *begin, uint64_t *end);

/*
 * Reads the session's log (its lines one after another) from a byte offset. Returns the bytes read,
 * which are less than size only at the end, or 0. A damaged record is stepped over: its bytes read
 * as blanks with a newline at the end, an empty line of the same length, and it is reported once.
 */
ssize_t hl_log_read(struct hl_store *store, uint32_t session, uint64_t offset, void *buffer,
                    size_t size, struct hl_cursor *cursor);

/* The same for the log of the whole store, in order of arrival. */
int hl_root_log_size(struct hl_store *store, uint64_t *size);
ssize_t hl_root_log_read(struct hl_store *store, uint64_t offset, void *buffer, size_t size,
                         struct hl_cursor *cursor);

/*
 * A reader of that log, for whom it only grows, also while segments are rewritten: a read at the
 * offset where the last one ended, or at 0 to begin, goes on with the record that is next. If what
 * was dropped was read in part, its line is ended by a newline. A read at any other offset gives
 * what lies there now. It may keep a segment's file open. Its functions may be called from several
 * threads at once.
 */
struct hl_root_reader;
int hl_root_reader_open(struct hl_store *store, struct hl_root_reader **reader);
ssize_t hl_root_reader_read(struct hl_root_reader *reader, uint64_t offset, void *buffer,
                            size_t size);
/* The present size of the log; a read at that offset goes on there. */
int hl_root_reader_end(struct hl_root_reader *reader, uint64_t *size);
/* Where the last read ended, or the last end that was asked for. */
bool hl_root_reader_goes_on(struct hl_root_reader *reader, uint64_t offset);
void hl_root_reader_close(struct hl_root_reader *reader); /* NULL is fine */

/*
 * Read-only stores: hl_look() takes in what the writer appended since, and gives news of it, as
 * every read does. hl_watch() opens a descriptor that becomes readable when it may be worth while;
 * the caller reads it empty and closes it; it never blocks. Or a negative errno: the system cannot
 * tell.
 */
void hl_look(struct hl_store *store);
int hl_watch(const struct hl_store *store);

/* ---- documents --------------------------------------------------------------------------------
 *
 * Operations (records with "op") fold into documents. A document lies in an area of its session:
 * HL_AREA_STATE are those of state/, HL_AREA_ARCHIVES holds one entry for each archive, named by
 * its name, and that entry's number is the area of what lies in the archive. So each archive's
 * documents, the archives themselves and the current documents are found and listed alike.
 *
 * Documents are changed by operations alone, that is by hl_append().
 */

#define HL_AREA_STATE UINT64_C(0)
#define HL_AREA_ARCHIVES UINT64_C(1)
#define HL_KEY_MAX HL_ID_MAX /* bytes of a key; which keys are valid: hl_session_id_valid() */
#define HL_DOCUMENT_SEQ_ANY UINT64_MAX

/* A document that there is. Its value is JSON text on one line, a part of a record's line. */
struct hl_document {
    uint64_t number; /* from 2; given at the key's first use in its area, never used again */
    uint64_t area;
    uint64_t seq;     /* of the operation that gave the present value (a set or a checkpoint) */
    uint64_t changed; /* seq of the operation that put it there: that one, an undo, an archive */
    uint64_t set_ms;  /* ts_ms of the record `seq` */
    uint32_t offset;  /* where the value lies in that record's line */
    uint32_t length;  /* of the value, without a newline; 0 for an archive */
    uint16_t key_len;
    char key[HL_KEY_MAX + 1]; /* NUL-terminated too; not encoded as a file name */
};

/* -ENOENT: there is none now. */
int hl_document_find(struct hl_store *store, uint32_t session, uint64_t area, const char *key,
                     size_t len, struct hl_document *document);
int hl_document_by_number(struct hl_store *store, uint32_t session, uint64_t number,
                          struct hl_document *document);
/* Area and key of a number, whether or not the document is there now; only those, number, key_len
 * are filled. -ENOENT: the number was never given. */
int hl_document_name(struct hl_store *store, uint32_t session, uint64_t number,
                     struct hl_document *document);

/* Calls each() for the documents of an area with a number above `after`, ascending by number, until
 * it returns false. each() must not call the store. */
typedef bool hl_document_each(void *context, const struct hl_document *document);
int hl_document_list(struct hl_store *store, uint32_t session, uint64_t area, uint64_t after,
                     hl_document_each *each, void *context);

/* Reads up to size bytes of the value and the newline that follows it; 0 at its end. -ENOENT: the
 * record is gone; -EBADMSG: it is damaged. */
ssize_t hl_document_read(struct hl_store *store, uint32_t session,
                         const struct hl_document *document, void *buffer, size_t size,
                         uint64_t offset);

/*
 * The same as it was after the record `seq`, in HL_AREA_STATE. -ENOENT also when seq is above the
 * session's last, or below its history_from.
 */
int hl_document_find_at(struct hl_store *store, uint32_t session, uint64_t seq, const char *key,
                        size_t len, struct hl_document *document);
int hl_document_list_at(struct hl_store *store, uint32_t session, uint64_t seq, uint64_t after,
                        hl_document_each *each, void *context);

/*
 * History: the lines of the records that changed a key of HL_AREA_STATE, oldest first, one after
 * another. list calls each() for every key that has any, in order of number, with only number, area
 * and key filled. A temporary key, whose only set was moved away, has none.
 */
int hl_history_find(struct hl_store *store, uint32_t session, const char *key, size_t len,
                    uint64_t *number, uint64_t *size, uint64_t *changed_ms);
int hl_history_list(struct hl_store *store, uint32_t session, uint64_t after,
                    hl_document_each *each, void *context);
ssize_t hl_history_read(struct hl_store *store, uint32_t session, uint64_t number, uint64_t offset,
                        void *buffer, size_t size, struct hl_cursor *cursor);

/*
 * Takes back the session's last `count` operations that were not undone yet, newest first, by as
 * many undo records in one batch. -EINVAL, and a sentence: there are not so many, or history does
 * not reach so far. receipt (may be NULL) is called as by hl_append().
 */
int hl_undo(struct hl_store *store, uint32_t session, uint64_t count,
            void (*receipt)(void *context, const struct hl_receipt *receipt), void *context,
            struct hl_error *err);

/* ---- values -----------------------------------------------------------------------------------
 *
 * The JSON text that a document can be set to, as somebody writes it: with white space, and in
 * pieces.
 */

/* How far a text was looked at; zero it to begin. It may be copied, to go back to. */
struct hl_value {
    size_t length; /* of the value so far, compact */
    uint64_t opaque[16];
};
enum { HL_VALUE_UNFINISHED, HL_VALUE_WHOLE, HL_VALUE_ENDED /* whole, and a newline follows */ };

/*
 * Looks on in a text that grows at its end; text and len are all that there is of it so far, and it
 * may have moved. Returns one of the above (err then says why it is unfinished); -EINVAL: no
 * continuation can make it a value; -EMSGSIZE: it is longer than max once compact. After a failure
 * *value is as it was before, so that what was added can be taken away again. When a piece goes on
 * inside a key or a number of many pages, the answer may be that it is unfinished until that is
 * over, or until it is asked for again without more text.
 */
int hl_value_check(struct hl_value *value, const char *text, size_t len, size_t max,
                   struct hl_error *err);

/* Writes a whole value on one line, without the white space between its parts; numbers and strings
 * stay byte for byte. Returns its length, struct hl_value's. compact may be text itself. */
size_t hl_value_compact(const char *text, size_t len, char *compact);

/* ---- sums --------------------------------------------------------------------------------------
 *
 * What events come to: counters over everything that was ever appended to a session, which trimming
 * does not lower. What counts as a call, and which names are kept: store/sums.h.
 */

struct hl_usage {
    uint64_t events, errors; /* errors: those of kind Error */
    uint64_t calls;          /* of tools; each tool_call_id of a session once */
    uint64_t tokens_in, tokens_out, reasoning_tokens, cache_read_tokens, cache_creation_tokens;
    int64_t cost_usd_e6;
};

struct hl_usage_of {
    const char *name; /* NUL-terminated too */
    size_t name_len;
    struct hl_usage usage;
};

struct hl_sums {
    struct hl_usage total;
    uint64_t first_ts_ms, last_ts_ms; /* lowest and highest; of meaning if there are events */
    size_t kind_count, tool_count;
    const struct hl_usage_of *kinds, *tools; /* in order of first appearance */
};

/* Of a session, or of the whole store (0): of all sessions that there are. *sums is one block from
 * malloc(), the caller's to free. In time that does not depend on the number of records. -ENOENT.
 */
int hl_sums(struct hl_store *store, uint32_t session, struct hl_sums **sums);

/* ---- commands and state ------------------------------------------------------------------------
 */

/* Shared between a long command and those who watch it; zero it to begin. Read and write with
 * atomics. */
struct hl_progress {
    _Atomic uint64_t done, total; /* bytes of log */
    _Atomic bool cancel;          /* set it: the command ends with -EINTR, having changed nothing */
};

int hl_rotate(struct hl_store *store,
              struct hl_error *err); /* seals the segment, begins the next */

/* Brings the index up to date and writes a checksummed copy of it to DIR/checkpoints. */
int hl_checkpoint(struct hl_store *store, struct hl_progress *progress, struct hl_error *err);

/*
 * Makes DIR/snapshots/NAME: a store of its own that holds what was appended before some instant
 * during the call, synced when it returns. The segment that is appended to is sealed for it; sealed
 * ones are shared by hard link (or copied where the file system refuses that), and never written to
 * again by either store. It keeps the store's id, which stands in the shared files: the id says of
 * what lineage a file is, and each segment's salt, which file it is; nothing is locked or named by
 * the id, so both may be open at once. A failed or interrupted call leaves nothing behind.
 * -EINVAL, -ENAMETOOLONG: not a name (one component of a path, UTF-8, not hidden). -EEXIST.
 */
int hl_snapshot(struct hl_store *store, const char *name, struct hl_progress *progress,
                struct hl_error *err);

struct hl_verify_report {
    uint64_t segments, frames, records, bytes; /* looked at, and found good */
    uint64_t damaged_gaps, damaged_bytes;      /* in the log */
    uint64_t broken_batches;
    uint64_t index_missing;  /* records that the log has and the index has not, or has elsewhere */
    uint64_t index_dangling; /* index entries that point to no good frame of theirs */
};
/* Checks every frame, batch and seq order, and the index against them. Damage is reported, and is
 * no failure of the command. */
int hl_verify(struct hl_store *store, struct hl_verify_report *report, struct hl_progress *progress,
              struct hl_error *err);

/*
 * Checks the store in dir without opening it for use, and mends it if asked: every segment file,
 * frame, batch, the order of seqs, every index entry, the checkpoints. Nobody else may be writing
 * to it (-EBUSY, as from hl_store_open()), nor can begin to meanwhile. It forks, as
 * hl_store_open().
 *
 * What is found is told one by one. A problem is what keeps something from being read, or would be
 * cut or set aside by an opening; notes (HL_INFO) are no problems. After mending all is checked
 * again, and what is told then is what is left.
 */
enum hl_mending {
    HL_MEND_NOTHING, /* nothing in dir is changed */
    HL_MEND_SAFELY,  /* what an opening does (the torn tail, stale segments), and the index anew */
    HL_MEND_ALL      /* damaged segments too: their bytes are set aside, what is good is kept */
};

struct hl_finding {
    const char *kind;          /* a word, for programs: "gap", "torn-tail", "index", ... */
    const char *file;          /* below dir */
    uint64_t offset, size;     /* the bytes of it that are meant; size 0: the file as a whole */
    enum hl_severity severity; /* HL_INFO: a note */
    bool mendable;             /* HL_MEND_ALL would mend it */
    bool left;                 /* found after something was mended */
    const char *text;          /* what is wrong; no newline */
};

struct hl_check {
    enum hl_mending mend;
    bool restore; /* with HL_MEND_ALL: put segments of backup/ and snapshots/ where those are bad */
    const struct hl_io *io;       /* NULL: the system's calls */
    struct hl_progress *progress; /* may be NULL; total and done begin again with each check */
    /* Called by the calling thread; each may be NULL. did() tells what mending does. */
    void (*found)(void *context, const struct hl_finding *finding);
    void (*did)(void *context, const char *sentence);
    void (*tick)(void *context); /* often, while the log is read */
    void *context;
};

struct hl_check_report {
    uint8_t store_id[16];
    struct hl_verify_report log; /* of the last check */
    uint64_t sessions;           /* that have frames in the log */
    uint64_t problems;           /* that were found */
    uint64_t left;               /* that are there now */
    bool mended;                 /* something was changed */
};

/* 0 also when problems are left. -ENOENT: no store is there. -EINTR: cancelled. */
int hl_check(const char *dir, const struct hl_check *check, struct hl_check_report *report,
             struct hl_holder *holder, struct hl_error *err);

/*
 * Rewrites segments without what is dead in them, those with the largest dead share first; appends
 * and reads go on. Dead is what was dropped. Nothing of what the store shows changes but the
 * offsets of the root log. The replaced files go to DIR/backup. Another compaction is waited for.
 * -EINTR: what was done until then stays.
 */
struct hl_compact {
    uint32_t session; /* 0: all segments; else only those in which something of it is dead */
    bool everything;  /* whatever has a dead byte; else by compact_threshold */
};
struct hl_compacted {
    uint64_t segments_before, segments_after; /* rewritten, and made of them */
    uint64_t bytes_before, bytes_after;
    uint64_t records_dropped; /* from the index: operations that nothing needs any more */
};
int hl_compact(struct hl_store *store, const struct hl_compact *what, struct hl_progress *progress,
               struct hl_compacted *compacted, struct hl_error *err);

/* The scheduler does the same without `everything` every compact_interval. Interrupts it. */
void hl_compact_interrupt(struct hl_store *store);

/*
 * Rules by which the scheduler drops a session's oldest events, before it compacts: those recorded
 * more than age_ms ago, those beyond the newest `count`, and those beyond the newest `bytes` of
 * lines. Operations are never dropped by them. A session has its own rule or, without one, that of
 * all (session 0); they are kept in DIR/retain. Setting one with nothing in it removes it.
 */
struct hl_rule {
    bool has_age, has_count, has_bytes;
    uint64_t age_ms, count, bytes;
};
int hl_retain_set(struct hl_store *store, uint32_t session, const struct hl_rule *rule,
                  struct hl_error *err);
/* The very rule of the session, or of all (0); with nothing in it if there is none. */
int hl_retain_get(struct hl_store *store, uint32_t session, struct hl_rule *rule,
                  struct hl_error *err);
/* Applies the rules now, unless the clock is in doubt (hl_status.retain_suspended). dropped may be
 * NULL. */
int hl_retain_run(struct hl_store *store, struct hl_progress *progress, struct hl_dropped *dropped,
                  struct hl_error *err);

/*
 * Deletes a session, and leaves no byte of it in any file below DIR: segments that hold it are
 * rewritten, index and checkpoints are made anew, files of backup/ that hold it and all of
 * quarantine/ (which may) are removed, and it is erased from every snapshot too. With nothing
 * changed, and named by err, -EBUSY: a snapshot is in use; -EBADMSG: a file in log/ is so damaged
 * that nobody can tell what it holds. After any other failure the session is deleted, but bytes of
 * it may be left: the same call with its number goes on. Another erase is waited for. dropped may
 * be NULL.
 */
int hl_erase(struct hl_store *store, uint32_t session, struct hl_progress *progress,
             struct hl_dropped *dropped, struct hl_error *err);

/*
 * Sessions of which an erase was begun and did not come to its end, also before the store was
 * opened: bytes of them may be left. The scheduler goes on with them, at once after opening and
 * before each compaction. The one with the lowest number above `after`; -ENOENT at the end.
 */
struct hl_erasing {
    uint32_t number;
    uint16_t id_len;
    char id[HL_ID_MAX + 1]; /* NUL-terminated too */
};
int hl_erasing_next(struct hl_store *store, uint32_t after, struct hl_erasing *erasing);

/* Builds the index again from the segments, while appends and reads go on, and puts it in place. */
int hl_reindex(struct hl_store *store, struct hl_progress *progress, struct hl_error *err);

/* Of the syncs of the log: those that took at most so many microseconds, each more than the bound
 * before; the last count is of those above all bounds. */
#define HL_SYNC_BOUNDS_US                                                                      \
    {                                                                                          \
        100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, \
            2500000                                                                            \
    }
#define HL_SYNC_BOUNDS 14U

struct hl_status {
    bool read_only;
    int failed;        /* 0, or the errno for which appends are refused until the next open */
    char store_id[33]; /* hex */
    uint64_t sessions, records, bytes; /* bytes: of lines, the size of the root log */
    uint64_t segments, log_bytes;      /* live segment files and their bytes */
    uint64_t index_bytes;
    uint64_t position, synced, indexed; /* log positions: segment number << 32 | offset */
    uint64_t memtable_bytes, memtable_records;
    uint64_t appends, syncs, flushes,
        checkpoints;                          /* since open: batches, fdatasyncs, index flushes */
    uint64_t drops;                           /* since open: trims and deletes that were logged */
    uint64_t sync_counts[HL_SYNC_BOUNDS + 1]; /* of the syncs, by how long they took */
    uint64_t sync_us;                         /* how long they all took */
    uint64_t checkpoint_ms;                   /* when the newest was made, 0 if never */
    uint64_t damage_found;                    /* damaged places met since open, recovery included */
    uint64_t quarantined_bytes;               /* set aside at recovery */
    uint64_t recovered_records;               /* replayed at open */
    uint64_t recovery_ms;                     /* how long open took */
    uint64_t compactions;                     /* that ended well since open */
    uint64_t freed_bytes;     /* by them, in log/; backup/ keeps what they replaced for a while */
    uint64_t compact_last_ms; /* when the last one ended, 0 if none did */
    int compact_error;        /* of the last one: 0, or an errno */
    uint64_t compact_next_ms; /* when the scheduler's next one is, 0: it has none */
    bool compacting;          /* the scheduler's is under way: */
    uint64_t compact_done, compact_total; /* bytes of log */
    uint64_t dead_bytes;                  /* in sealed segments, when it was last looked */
    uint64_t backup_bytes;                /* in backup/, likewise */
    uint64_t reserve_bytes;               /* that a compaction may spend on a full disk, likewise */
    bool retain_suspended; /* by the clock: no rule and no history window drops anything */
};
int hl_store_status(struct hl_store *store, struct hl_status *status);

#endif
