/*
 * check.h - hl_check() from inside: what a check notes for the mending that may follow.
 *
 *   check.c        the whole: locking, checking, mending, checking again
 *   check_log.c    segment files and their frames, over inspect.h
 *   check_documents.c  documents against the records that hold their values
 *   check_index.c  the index, the checkpoints, and the index against what the log was found to hold
 *   mend.c         segment files made good or set aside
 *   mend_restore.c segments put back from backup/ and snapshots/
 */
#ifndef HL_CHECK_H
#define HL_CHECK_H

#include "inspect.h"
#include "recover.h"

/* A segment, or numbers that have none, that mending would do something about. */
struct fault {
    char name[SEGMENT_NAME_MAX]; /* "": there is no file */
    uint32_t first, last, generation;
    enum {
        FAULT_CONTENT,    /* damaged headers or bytes, or no seal: a mended copy takes its place */
        FAULT_UNREADABLE, /* no good header */
        FAULT_MISSING
    } kind;
    bool newest;     /* it is the last one, and not sealed: its end is recovery's to mend */
    bool restored;   /* another file was put in its place */
    bool salt_known; /* by its header, or by the index */
    uint32_t salt;
};

struct faults {
    struct fault *at;
    size_t count, capacity;
    bool index; /* it does not agree with the log, and checkpoints may not: all are made anew */
    bool checkpoints; /* some are damaged */
    bool recovery;    /* what any opening mends */
};

/* What the log was found to hold of a session. */
struct seen {
    uint64_t last_seq;
    uint64_t matched, missing;             /* entries of the index */
    uint64_t operations, early_operations; /* all, and those below the watermark */
    bool known;                            /* something of it was seen */
    bool deleted;                          /* by a drop frame */
    bool has_frame, has_seq;
    bool early; /* its beginning is below the watermark */
};

#define SEEN_PAGE 4096U
#define SEEN_PAGES (UINT64_C(1) << 32 >> 12)

/* A point of the root log, as the index has it. */
struct point {
    uint64_t line_bytes, offset;
    bool met;
};

struct checking {
    const struct hl_check *request;
    struct hl_check_report *report;
    struct hl_error *err;
    struct hl_store *store; /* a shadow */
    struct faults *faults;
    bool again; /* something was mended before */
    struct inspect inspect;

    struct seen **seen; /* pages, by session number */
    uint32_t highest;   /* session number that was seen */

    uint32_t last; /* number of the newest segment */

    /* Of the segment under way. */
    const struct segment *segment;
    bool newest;
    uint64_t end;
    uint64_t records, line_bytes;
    uint64_t damaged; /* places */
    bool sealed, seal_wrong, behind_seal;
    uint64_t torn_at, torn_end; /* of the newest; torn_at 0: it is not torn */
    uint64_t broken_at;         /* of the newest: told of when it turns out not to be its end */
    struct point *points;
    size_t point_count, point_capacity;
    uint64_t ticked;
};

/* Tells of something. HL_INFO: a note. file NULL: the segment under way. */
void check_tell(struct checking *checking, const char *kind, enum hl_severity severity,
                bool mendable, const char *file, uint64_t offset, uint64_t size, const char *format,
                ...) __attribute__((format(printf, 8, 9)));

/* -ENOMEM. The fault may be filled in further. */
int faults_add(struct faults *faults, const struct fault *fault);

struct seen *check_seen(struct checking *checking, uint32_t session); /* NULL: no memory */

/* ---- check_log.c ---- */

/* Loads the segments, and finds what is wrong with the files as such. *usable: the log can be read.
 */
int check_files(struct checking *checking, bool *usable);
/* Reads all of them. */
int check_segments(struct checking *checking);

/* ---- check_index.c ---- */

/* Opens the index if it is of any use (store->index). */
int check_open_index(struct checking *checking);
/* Before and after a segment is read: what the index knows of it as a whole. */
int check_points_begin(struct checking *checking);
int check_points_end(struct checking *checking);
/* After all were read: its sessions against those of the log. */
int check_index_sessions(struct checking *checking);
int check_checkpoints(struct checking *checking);

/* ---- check_documents.c ---- */

/* After all segments were read: documents against the records that hold their values. */
int check_documents_of_sessions(struct checking *checking);

/* ---- mend_restore.c, mend.c ---- */

/* Puts sound segments in the place of faulty ones, from backup/ and snapshots/. */
int mend_restore(struct hl_store *store, struct faults *faults);
/* Makes log/ good but for what recovery mends. Tells by store_report(). */
int mend_log(struct hl_store *store, const struct faults *faults);

#endif
