/*
 * fs_internal.h - what the request handlers share: struct fs, open handles, attributes, replies.
 *
 * How a request goes: ops.c asks fs_node() what the id names and hands the rest to a helper that
 * returns an errno (negative) and never sees the request, then replies. What an open file keeps is
 * a struct handle, whose table of functions says how it is read, written and let go.
 *
 * Locks. Each struct names what its own lock guards. Order: a handle's lock, then those of last
 * errors, of the list of handles, of the table, of the notifier, all leaves. The store may be
 * called under a handle's lock; never under a leaf. No lock is held while a request is answered
 * that the commit thread or the command thread answers.
 */
#ifndef HL_FS_INTERNAL_H
#define HL_FS_INTERNAL_H

#include "fs.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <time.h>

#include "access.h"
#include "dropped.h"
#include "node.h"
#include "table.h"
#include "text.h"
#include "users.h"

struct ahead;
struct announcer;
struct beside;
struct ctl;
struct drafts;
struct follow;
struct fs;
struct fs_attr;
struct handle;
struct last_errors;
struct listed;
struct notifier;

#define HANDLE_AT_END UINT64_MAX

/* ---- open files -------------------------------------------------------------------------------
 */

struct handle_type {
    /* Reads into buffer; returns the bytes read or a negative errno. */
    ssize_t (*read)(struct fs *fs, struct handle *handle, char *buffer, size_t size,
                    uint64_t offset);
    /* In its place: answers the request, and may go on with something behind the answer, when the
     * handle may be gone. */
    void (*answer)(struct fs *fs, struct handle *handle, fuse_req_t req, size_t size,
                   uint64_t offset);
    /* In its place: answers the request, now or later; flags are the file's present ones. */
    void (*read_later)(struct fs *fs, struct handle *handle, fuse_req_t req, size_t size,
                       int flags);
    /* Takes the poll handle (NULL: none is wanted) and says which events there are. NULL: a file
     * that is always ready. */
    unsigned (*poll)(struct fs *fs, struct handle *handle, struct fuse_pollhandle *poll);
    /* Takes a write and answers the request, now or later; offset may be HANDLE_AT_END. sync: it is
     * to be on the disk then. NULL: -EBADF. */
    void (*write)(struct fs *fs, struct handle *handle, fuse_req_t req, const char *data,
                  size_t len, uint64_t offset, bool sync);
    /* Makes the file longer or shorter, asked by thread `who`. NULL: see document_resize(). */
    int (*resize)(struct fs *fs, struct handle *handle, uint64_t size, pid_t who);
    /* Puts into attr what is different for whoever asks by this handle. NULL: nothing is. */
    void (*attr)(struct fs *fs, struct handle *handle, struct fs_attr *attr);
    /* What a close or an fsync does before anything else; *stored says whether something was
     * appended. NULL: nothing. */
    int (*flush)(struct fs *fs, struct handle *handle, bool *stored);
    /* The last close, or the end of the mount: what is left is dealt with, and the handle freed. */
    void (*release)(struct fs *fs, struct handle *handle);
};

/* The first member of what stands behind fi->fh. */
struct handle {
    const struct handle_type *type;
    struct user *user;              /* who opened it; NULL: nobody is counted */
    struct handle *previous, *next; /* in fs->handles; guarded by fs->handles_lock */
};

/* Makes a handle of that size (the rest is zero) for the user, among whose open files it counts:
 * -EMFILE, -ENOMEM. handle_free() ends it. */
int handle_new(struct fs *fs, size_t size, const struct handle_type *type, uid_t uid,
               struct handle **handle);
void handle_free(struct fs *fs, struct handle *handle);
/* Puts a handle on the list, so that the end of the mount finds it, or takes it off. */
void handle_link(struct fs *fs, struct handle *handle);
void handle_unlink(struct fs *fs, struct handle *handle);

/* Answers a read: bytes, or a negative errno. */
void reply_bytes(fuse_req_t req, const char *buffer, ssize_t len);

/* Who sent a request. */
struct sender {
    pid_t pid; /* of the thread */
    uid_t uid;
};
struct sender sender_of(fuse_req_t req);

/* Openers: 0 and *handle (linked), or a negative errno. `flags` are open()'s. */
int append_open(struct fs *fs, fuse_req_t req, const struct node *node, int flags,
                struct handle **handle);
/* closed: a range that never changes. */
int stream_open(struct fs *fs, const struct node *node, bool closed, uid_t uid,
                struct handle **handle);
int record_open(struct fs *fs, const struct node *node, uint32_t length, uid_t uid,
                struct handle **handle);
int ctl_open(struct fs *fs, int flags, uid_t uid, struct handle **handle);
int text_open(struct fs *fs, const struct node *node, uid_t uid, struct handle **handle);
/* A value that stays what it is now, whatever becomes of the document. */
int value_open(struct fs *fs, uint32_t session, const struct hl_document *document, uid_t uid,
               struct handle **handle);

/* Opens what is not a directory if the sender may; sets in *fi what the kernel is to do with its
 * pages. *handle stays NULL for what needs none. */
int node_open(struct fs *fs, fuse_req_t req, const struct node *node, struct fuse_file_info *fi,
              struct handle **handle);

/* Says why an open with these flags found no room for another file: to the log, and to the session
 * if it was to write. */
void open_refused(struct fs *fs, fuse_req_t req, uint32_t session, int flags, int result);

/* Reads of a small record need no handle. */
ssize_t record_read(struct fs *fs, const struct node *node, char *buffer, size_t size,
                    uint64_t offset);

#define FS_SMALL_LINE (128U * 1024) /* lines up to this length are checked anew at each read */
/* Memory for a long line or value, to be read and checked once, or NULL: there is no room for it.
 */
char *fs_line_room(struct fs *fs, struct user *user, uint32_t length);
/* All of a long line, read and checked once, or NULL: there is no room for it, or it cannot be
 * read. fs_line_free() takes the length that it has. */
char *fs_line_hold(struct fs *fs, struct user *user, uint32_t session, uint64_t seq,
                   uint32_t length);
void fs_line_free(struct fs *fs, struct user *user, char *line, uint32_t length);

/* ---- the context ------------------------------------------------------------------------------
 */

#define FS_ERRNO_MAX 134

struct fs {
    const struct fs_options *options;
    struct hl_store *store;
    struct fuse_session *session; /* set by fs_attach(), before any request */
    uid_t uid;                    /* whom the daemon runs as */
    gid_t gid;
    int dir_fd;            /* DIR, for statfs */
    uint64_t started_ms;   /* wall clock */
    uint64_t started_tick; /* milliseconds of the monotonic clock */
    double keep;           /* seconds for which the kernel may keep what only we change */
    bool buffer_key_made;
    pthread_key_t buffer_key;   /* each worker's read buffer */
    char *_Atomic large_buffer; /* kept for the next large read; or NULL */

    _Atomic uint64_t used[SHARES];        /* by all users */
    _Atomic uint64_t changed_ms;          /* when this mount appended last, or it was mounted */
    _Atomic uint64_t sessions_changed_ms; /* when this mount made a session last, or was mounted */

    pthread_mutex_t handles_lock; /* guards handles and the links in them */
    struct handle *handles;

    pthread_mutex_t parked_lock; /* guards parked */
    pthread_cond_t parked_none;
    size_t parked; /* requests that wait for the disk */

    struct users *users;
    struct table *table;
    struct dropped *dropped;
    struct drafts *drafts;
    struct last_errors *last_errors;
    struct notifier *notifier;
    struct ctl *ctl;
    struct follow *follow;
    struct announcer *announcer;
    struct beside *beside;
    struct ahead *ahead;
    struct listed *listed;
    _Atomic uint64_t refused[FS_ERRNO_MAX]; /* writes, by errno; 0: one that has no place here */
};

uint64_t fs_now_ms(void);  /* wall clock */
uint64_t fs_tick_ms(void); /* monotonic */

/* A buffer of at least size bytes for the calling thread until it asks again, or NULL. Give it
 * back. */
char *fs_buffer(struct fs *fs, size_t size);
void fs_buffer_done(struct fs *fs, char *buffer, size_t size);

/* Starts a thread with all signals blocked, so that they reach the one that waits for them. */
int fs_thread_start(pthread_t *thread, void *(*run)(void *), void *context);

/* ---- nodes and attributes (attr.c) ------------------------------------------------------------
 */

/* What an id names: 0, or -ESTALE. */
int fs_node(struct fs *fs, fuse_ino_t id, struct node *node);
/* The id to hand to the kernel, a look-up counted if it is in the table; 0: no memory. */
uint64_t fs_id(struct fs *fs, const struct node *node);
void fs_forget(struct fs *fs, fuse_ino_t id, uint64_t count);

/* The key (or session id) that a name stands for, if it can stand for any: 0, -ENOENT,
 * -ENAMETOOLONG. */
int fs_key(const char *name, char key[HL_KEY_MAX + 1], size_t *len);

/* What a name in a directory stands for: 0 and *node; -ENOENT, -ENAMETOOLONG and the store's
 * errors. */
int fs_resolve(struct fs *fs, const struct node *parent, const char *name, struct node *node);

struct fs_attr {
    struct stat st;
    double attr_keep, entry_keep; /* seconds */
    uint32_t generation; /* another one: what the kernel keeps of the id is of another file */
};
/* -ENOENT, -ESTALE: what the node names is gone. */
int fs_attr(struct fs *fs, const struct node *node, struct fs_attr *attr);
/* The same of what the node's name stands for now: the present generation, which is put into it. */
int fs_attr_now(struct fs *fs, struct node *node, struct fs_attr *attr);
/* The same for those whose store data is at hand. */
void fs_attr_session(struct fs *fs, const struct hl_session *session, struct fs_attr *attr);
void fs_attr_record(struct fs *fs, const struct hl_session *session, const struct hl_record *record,
                    struct fs_attr *attr);
/* A session's file other than a record or range, from its session. */
int fs_attr_file(struct fs *fs, const struct node *node, const struct hl_session *session,
                 struct fs_attr *attr);

/* A file or directory of a session whose bits come from the session's as its kind says; kept as
 * long as is said. */
void fs_attr_view(struct fs *fs, const struct node *node, const struct hl_session *session,
                  uint64_t size, uint64_t ms, double keep, struct fs_attr *attr);

/* What these are made of: all but the size, and the size. */
void fs_attr_begin(struct fs_attr *attr, const struct node *node, mode_t mode, uid_t uid, gid_t gid,
                   uint64_t ms);
void fs_attr_size(struct fs_attr *attr, uint64_t size);

/* A record as the index has it: for one that is damaged all but seq and length is 0. */
int fs_record(struct fs *fs, const struct node *node, struct hl_record *record);

/* Permission bits of a file or directory of the kind in a session whose directory has these. */
mode_t fs_file_mode(enum node_kind kind, mode_t directory);

/* Whose a session is as the mount shows it: its owner's, or ours if we could not make it anyone
 * else's. */
uid_t fs_owner(const struct fs *fs, const struct hl_session *session);

/* Whether a range can never change: its last seq is not above the session's. */
bool fs_range_closed(const struct node *node, const struct hl_session *session);
/* A range's window in the session's log. */
int fs_range_extent(struct fs *fs, const struct node *node, uint64_t *begin, uint64_t *end);

bool node_is_directory(const struct node *node);
bool node_takes_writes(const struct node *node); /* and truncations, to no effect */

/* ---- requests ---------------------------------------------------------------------------------
 */

/* The errno (positive) to answer for a result of the store: damage is an I/O error to programs. */
int fs_errno(int result);

/*
 * A request that waits for the disk. parked_new() before the work whose answer depends on it, so
 * that nothing can fail after it; then one of parked_sync…(), which answers from the commit thread:
 * with nothing, the count of a write, an entry (a look-up that is counted), or attributes; or
 * parked_drop(), which leaves the request to the caller.
 */
struct parked;
struct parked *parked_new(struct fs *fs, fuse_req_t req);
void parked_sync(struct parked *parked);
void parked_sync_write(struct parked *parked, size_t count);
void parked_sync_entry(struct parked *parked, const struct fuse_entry_param *entry);
void parked_sync_attributes(struct parked *parked, const struct stat *attr, double keep);
void parked_drop(struct parked *parked);
void parked_wait_all(struct fs *fs); /* until none is left */

/* ---- session.c --------------------------------------------------------------------------------
 */

/* What mkdir(2) asks: name as it stands, mode as the kernel gives it. */
int session_make(struct fs *fs, const struct node *parent, const char *name, uid_t uid, gid_t gid,
                 mode_t mode, struct hl_session *session);
/* setattr on any node; flags are FUSE_SET_ATTR_*. */
int node_change(struct fs *fs, const struct node *node, const struct stat *wanted, int flags);
/* What rmdir(2) of a name does; -ENOTEMPTY: the session has records or documents. */
int session_remove(struct fs *fs, const struct node *parent, const char *name);

/* ---- views.c: history/, archive/, at/ -----------------------------------------------------------
 */

/* fs_resolve() in these directories and those below; -ENOENT in any other. */
int view_resolve(struct fs *fs, const struct node *parent, const char *name, struct node *node);
/* fs_attr() of what lies in them. */
int view_attr(struct fs *fs, const struct node *node, const struct hl_session *session,
              struct fs_attr *attr);
/* Attributes of an archive, an archived document, or one in `at/`, that is at hand. */
void view_attr_document(struct fs *fs, const struct node *node, const struct hl_session *session,
                        const struct hl_document *document, struct fs_attr *attr);
/* The document of a NODE_ARCHIVED or NODE_AT_KEY. */
int view_document(struct fs *fs, const struct node *node, struct hl_document *document);

/* mkdir(2) and rmdir(2) in archive/. */
int archive_make(struct fs *fs, const struct node *parent, const char *name, struct node *node);
int archive_remove(struct fs *fs, const struct node *parent, const char *name);

/* ---- dir.c ------------------------------------------------------------------------------------
 */

/* Answers with entries from the offset that the last one gave (0 to begin); plus: with what they
 * are. `reader` is of listed_reader(), one for each open directory. */
void dir_answer(struct fs *fs, fuse_req_t req, fuse_ino_t ino, uint64_t reader, size_t size,
                off_t offset, bool plus);

/* ---- xattr.c ----------------------------------------------------------------------------------
 */

ssize_t node_xattr_get(struct fs *fs, const struct node *node, const char *name, char *value,
                       size_t size);
ssize_t node_xattr_list(struct fs *fs, const struct node *node, char *names, size_t size);
int node_xattr_set(struct fs *fs, const struct node *node, const char *name, const char *value,
                   size_t size, int flags);
int node_xattr_remove(struct fs *fs, const struct node *node, const char *name);

/* ---- status.c ---------------------------------------------------------------------------------
 */

/* Whether a user sees all of .status and .metrics: names that sessions of others gave are for root
 * and the mount's owner alone. */
bool text_whole_for(struct fs *fs, uid_t uid);
/* Writes the contents of .status, .metrics, meta or last_error as they are now; whole: with such
 * names. */
int text_make(struct fs *fs, const struct node *node, bool whole, struct text *text);
/* The size of .status and .metrics as this user reads them, in place of the whole's. */
void text_attr_for(struct fs *fs, const struct node *node, uid_t uid, struct fs_attr *attr);
const char *fs_errno_name(int code); /* "EINVAL" */
/* .metrics (metrics.c). */
int metrics_make(struct fs *fs, bool whole, struct text *text);
/* Writes "sums", what the events of a session come to; 0: of all; whole: by kind and tool (sums.c).
 */
int sums_write(struct fs *fs, uint32_t session, bool whole, struct json_writer *writer);

/* ---- last_error.c -----------------------------------------------------------------------------
 */

struct last_error {
    uint64_t ts_ms; /* 0: there was none */
    int code;
    size_t line; /* 0: none in particular */
    /* With "line N: " or "state/NAME: " in front. */
    char text[sizeof((struct hl_error *)0)->text + 16 + NODE_NAME_MAX];
};

struct last_errors *last_errors_new(void);
void last_errors_free(struct last_errors *errors);
/* Remembers why a write to a session (0: to root `append`) was refused, and says so in the log.
 * document: the file name in state/ that it was about, or NULL for `append`. */
void fs_refused(struct fs *fs, uint32_t session, const char *document, const struct hl_error *err);
/* The same of an open(); kept for the session only if the sender may write there. */
void fs_refused_open(struct fs *fs, uint32_t session, bool may_write, const struct hl_error *err);
/* false, and all zero: none is known. */
bool last_errors_get(struct last_errors *errors, uint32_t session, struct last_error *error);

/* ---- notify.c ---------------------------------------------------------------------------------
 */

struct notifier *notifier_new(struct fs *fs);
void notifier_free(struct notifier *notifier);
/* Has the kernel ask again for the attributes of a session's files, records and ranges; by and by,
 * from another thread. */
void notify_session(struct fs *fs, const struct hl_session *session);
/* The same for records that were dropped, or all of a session that is gone, as news said; may be
 * called with locks of the store held. What is in memory for a session that is gone goes too. */
void notify_dropped(struct fs *fs, const struct hl_news *news);
/* Waits until that is done for all that there was news of, or until *cancel. */
void notify_wait(struct fs *fs, const _Atomic bool *cancel);
/* Whether a session's seqs lie so far apart that the kernel is not to keep its records for long:
 * when they are dropped there would be too many seqs to invalidate. */
bool notify_thin(const struct hl_session *session);

/* ---- ctl.c ------------------------------------------------------------------------------------
 */

struct ctl *ctl_new(struct fs *fs);
void ctl_stop(
    struct ctl *ctl); /* cancels what runs, answers what waits; no command is taken after it */
void ctl_free(struct ctl *ctl);
/* Another one each time. The kernel holds the lock of an inode throughout a write to it, and
 * whoever waits for that can be killed by nothing: so each open of .ctl is of an inode of its own.
 */
uint32_t ctl_generation(struct ctl *ctl);
uint64_t ctl_size(struct ctl *ctl); /* bytes of the results that an open of .ctl would show */
/* The members "command", "done" and "total" of what runs now, or null. */
void ctl_running(struct ctl *ctl, struct json_writer *writer);

#endif
