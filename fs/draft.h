/*
 * draft.h - files in memory: scratch files, and what is being written to documents.
 *
 * Names in state/ that begin with `.` or `#` or end in `~` are scratch: files of any bytes that are
 * never logged. And whoever writes a document writes a draft of it, which becomes the document's
 * value when it is whole (draft_set.c). Both are drafts, and one can become the other, since a
 * rename goes from one to the other while files are open.
 *
 * A scratch file is one draft that all its open files share, and stays when they are closed. A
 * document's draft belongs to one open file, so that writers do not mix, and goes with it. A draft
 * made by creating a file, before the document was ever set, is `unborn`: for the program that made
 * it there is a file of that name already, for all others not yet.
 *
 * The drafts of a session, and what its names in state/ stand for as far as that is in memory, are
 * guarded by the session's lock: drafts_lock(). It is an outer lock, like that of a handle: the
 * store is called under it. Whatever changes names in state/ by files holds it throughout.
 */
#ifndef HL_DRAFT_H
#define HL_DRAFT_H

#include "content.h"
#include "fs_internal.h"

enum draft_place {
    DRAFT_SCRATCH,  /* a scratch file of that name */
    DRAFT_DOCUMENT, /* of the document with that key, if there is one or not */
    DRAFT_REMOVED,  /* its name was removed, or given to another: what is written goes nowhere */
    DRAFT_ARCHIVED  /* its document was moved to archive/, where nothing is written */
};

struct draft {
    /* Fixed. */
    uint64_t number; /* from 1, ascending, never used again: NODE_SCRATCH */
    uint32_t session;
    struct user *user; /* who made it, for whom it counts */
    uint64_t
        document; /* draft_of_document(): the number of the document whose file was opened, or 0 */

    /* Guarded by the session's lock, as is all below. */
    enum draft_place place;
    size_t name_len;
    char name[NODE_NAME_MAX + 1]; /* a file name, or a key */
    unsigned handles;
    unsigned writers; /* of these, those that can write */
    pid_t writer;     /* the thread that wrote last, or opened it */
    uint64_t written; /* counts writes to all drafts: who wrote last */
    uint64_t changed_ms;

    struct content content;
    bool counted; /* in the memory of scratch files */
    bool unborn;
    bool has_text; /* content is what the file holds; else it holds the document's value */
    bool pending;  /* content is not, or not only, what the document was set to */
    bool in_order; /* it was written from its beginning to its end: `value` is up to date */
    struct hl_value value;
    bool told;       /* why it was not set, since the last write */
    int refused;     /* the errno of the last write, if the fault was in what it wrote; else 0 */
    bool was_set;    /* by this draft, as it is but for white space behind it */
    uint64_t set_by; /* seq of the operation by which content is, or was, the document's value */

    struct draft *next_by_document, *next_by_name, *next_by_number, *before, *after; /* draft.c's */
};

struct drafts *drafts_new(void); /* NULL: no memory */
void drafts_free(struct fs *fs); /* with all that is left in them; NULL in fs->drafts is fine */
void drafts_lock(struct fs *fs, uint32_t session);
void drafts_unlock(struct fs *fs, uint32_t session);
uint64_t drafts_scratch_files(struct drafts *drafts);
/* The session is gone: so are its scratch files, but for those who have them open. */
void drafts_forget(struct fs *fs, uint32_t session);

/* ---- with the session's lock held -------------------------------------------------------------
 */

/* Makes a draft with no handles, for that user. -ENOSPC: no room for another scratch file; -ENOMEM.
 */
int draft_new(struct fs *fs, uint32_t session, enum draft_place place, const char *name, size_t len,
              uid_t uid, struct draft **draft, struct hl_error *err);
/* Says of which document the file was opened, once. */
void draft_of_document(struct fs *fs, struct draft *draft, uint64_t document);
void draft_free(struct fs *fs, struct draft *draft);

/* The next of that place and name; begin with NULL. NULL: there is no other. */
struct draft *draft_next_named(struct fs *fs, uint32_t session, enum draft_place place,
                               const char *name, size_t len, struct draft *last);
struct draft *draft_numbered(struct fs *fs, uint32_t session, uint64_t number);
/* The scratch file of the session with the lowest number above `after`, or NULL. */
struct draft *draft_next_scratch(struct fs *fs, uint32_t session, uint64_t after);
/* The draft under which the thread `who` may see a file that is not set yet, or NULL. */
struct draft *draft_unborn(struct fs *fs, uint32_t session, const char *key, size_t len, pid_t who);
/* The one that `who` wrote last, of those whose handles were opened by the document's number and
 * hold something that it was not set to; or NULL. */
struct draft *draft_pending_of(struct fs *fs, uint32_t session, uint64_t document, pid_t who);

/* Accounts for its memory as is due in another place, so that nothing can keep it from moving
 * there. -ENOSPC, -ENOBUFS. */
int draft_prepare(struct fs *fs, struct draft *draft, enum draft_place place, struct hl_error *err);
/* Another place and name. */
void draft_move(struct fs *fs, struct draft *draft, enum draft_place place, const char *name,
                size_t len);
/* Its name is gone; so is the draft, if nobody has it open. */
void draft_remove(struct fs *fs, struct draft *draft, enum draft_place place);

/* Notes that `who` wrote. */
void draft_note_write(struct fs *fs, struct draft *draft, pid_t who);

/* ---- draft_set.c: how what is written becomes a document's value; with the lock held -----------
 */

/*
 * Takes a write at an offset, or HANDLE_AT_END. A value that is whole, written in order, and
 * followed by a newline is set; *stored then says so. -EINVAL: it cannot become JSON; -EMSGSIZE;
 * -ENOBUFS, -ENOSPC; and the store's errors. A refused write changes nothing.
 */
int draft_write(struct fs *fs, struct draft *draft, const char *data, size_t len, uint64_t offset,
                bool *stored, struct hl_error *err);
int draft_resize(struct fs *fs, struct draft *draft, uint64_t size, struct hl_error *err);
/* Forgets a text that was set when the document was changed by others since. */
void draft_refresh(struct fs *fs, struct draft *draft);
/* Makes it an empty file, to be written anew. */
void draft_empty(struct fs *fs, struct draft *draft);
/* What a flush does: sets what is pending if it is whole; -EINVAL if it is not. */
int draft_settle(struct fs *fs, struct draft *draft, bool *stored, struct hl_error *err);
/* Whether content is a value, which then is draft->value: HL_VALUE_…, -EINVAL, -EMSGSIZE (it does
 * not fit in an operation on the key). */
int draft_check(struct fs *fs, struct draft *draft, const char *key, size_t len,
                struct hl_error *err);
/* Content was set as the document's value by the operation `seq`. */
void draft_was_set(struct draft *draft, uint64_t seq);

/* Whether both are threads of one process. */
bool same_process(pid_t x, pid_t y);

#endif
