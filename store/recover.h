/*
 * recover.h - the steps of opening a store (format.md, Opening), shared by opening, reindex and
 * read-only stores that follow a writer. All work on a store whose appends are not running, or on a
 * shadow: a second struct hl_store on the same directory, which builds a state aside and hands it
 * over.
 */
#ifndef HL_RECOVER_H
#define HL_RECOVER_H

#include "core.h"
#include "replay.h"

#define RECOVER_BUILD_NAME "index.tmp" /* where an index is built before it becomes index/ */

/* ---- recover_segments.c ---- */

/* Lists DIR/log and fills store->segments. Sets store->store_id from them. *count: how many there
 * are. */
int recover_load_segments(struct hl_store *store, size_t *count, struct hl_error *err);

/* Looks again: takes in segments made meanwhile, and the present size of all. */
int recover_reload_segments(struct hl_store *store, struct hl_error *err);

/* Whether a name in log/ is that of what a compaction had written when it was cut short, which
 * goes: nothing counts on it before it has its name. */
bool recover_is_unfinished(const char *name);

struct segment *recover_find_live(struct hl_store *store, uint32_t first); /* NULL: none */

/* ---- recover_stale.c ---- */

enum segment_fate {
    SEGMENT_LIVE,
    SEGMENT_STALE,   /* inside a sealed and sound one of a higher generation: to backup/ */
    SEGMENT_UNSOUND, /* of a higher generation, but not sound, and replaceable: to quarantine/ */
    SEGMENT_LEFT     /* of no use, and not to be touched */
};

/* A file of log/ by its name; all else is zero to begin with. */
struct segment_file {
    char name[SEGMENT_NAME_MAX];
    uint32_t first, last, generation;
    enum segment_fate fate;
    /* Known only of those that share numbers: */
    bool readable;               /* it has a good header */
    const char *fault;           /* what is wrong with it, a static phrase, or NULL */
    char over[SEGMENT_NAME_MAX]; /* the live one that it lies inside, or "" */
};

/* Sorts the files by number and sets the fate of each. -EBADMSG: some hold the same numbers and
 * nothing says which count; -EAGAIN: one is gone, so its writer goes on. Changes no file. */
int recover_sort_out(struct hl_store *store, struct segment_file *files, size_t count,
                     struct hl_error *err);
/* Moves and reports those that are not live; a read-only store and a shadow only report. */
int recover_set_stale_aside(struct hl_store *store, const struct segment_file *files, size_t count,
                            struct hl_error *err);

/* Whether a segment (open) is sealed and sound, every frame of it: sets *fault to what is wrong, a
 * static phrase, or to NULL. */
int recover_examine(struct hl_store *store, const struct segment *segment, const char **fault);
/* Moves a file of log/ to a directory of DIR (made), with a note of why. Reported, and no failure,
 * where it cannot be for now. */
int recover_move_away(struct hl_store *store, const char *name, const char *directory,
                      const char *why);

/* ---- recover_index.c ---- */

int recover_index_exists(const struct hl_store *store); /* 1, 0, or a negative errno */

/* Opens the index that is in place now, read-only, with no look at what it holds; notes which file
 * that is. recover_index_replaced(): whether another one, or none, is in its place. */
int recover_open_index(struct hl_store *store);
bool recover_index_replaced(const struct hl_store *store);
/* Finds an index: the one that is there, a checkpoint, or an empty one to be filled from all
 * segments
 * (*build). Read-only stores do without in the last two cases, and so does any store that has no
 * room for them (store->no_room). */
int recover_find_index(struct hl_store *store, bool *build, struct hl_error *err);
/* Keeps a bad index, the newest only, for people to look at: it is never needed again. */
int recover_set_index_aside(struct hl_store *store, const char *why);
/* Removes a directory below DIR and the files in it; absent is fine. */
int recover_remove_dir(struct hl_store *store, const char *name);

/*
 * Takes watermark, totals and what is known of segments from the store's index, after holding it
 * against the live segments. -EBADMSG: they do not fit; err says why. With no index (NULL) all
 * begins at zero.
 */
int recover_adopt_index(struct hl_store *store, struct hl_error *err);

/* ---- recover_tail.c ---- */

/*
 * Makes the unsealed segment fit to be appended to, after it was replayed from offset `from`:
 * regions without a whole batch are voided, the torn tail is cut, what was replayed is written
 * again, and all is synced. A file with more than one link is never written to: a copy takes its
 * place first. file_size: as it was found. What a full disk keeps it from is put off
 * (tail_mend()), with a report; *settled says whether what was replayed is on the disk. Takes
 * last's regions.
 */
int recover_mend_tail(struct hl_store *store, struct replay *last, uint64_t from,
                      uint64_t file_size, bool *settled, struct hl_error *err);

/* ---- recover.c ---- */

/*
 * Replays the log from the watermark to the end, or to position `limit` if that is less. *last is
 * the replay of the last segment, for the caller to look at and to free, but its gaps are those of
 * all; *from is where it began.
 */
int recover_replay(struct hl_store *store, uint64_t limit, struct hl_progress *progress,
                   struct replay *last, uint64_t *from, struct hl_error *err);

/* Closes what recovery opened: back to what store_begin() left. */
int recover_forget(struct hl_store *store);

/* A shadow of the store, with nothing loaded; NULL: out of memory. Freed with its table, its
 * segments, and its index unless that was taken away. */
struct hl_store *recover_shadow(struct hl_store *store);
void recover_shadow_free(struct hl_store *shadow);

/* Hands the shadow's table, totals and segment counts over to the store. append_lock is held. */
void recover_hand_over(struct hl_store *store, struct hl_store *shadow);

#endif
