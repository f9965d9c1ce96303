/*
 * model.h - what a workload did, what must be there after it, and whether it is.
 *
 * An actor runs a workload on a store and writes down, in a history, each batch that it issued and
 * what became of it, and in a timeline, by the number of calls made so far, which batches must be
 * on the disk (a sync that came after them returned) and which may be. The check then needs nothing
 * of the store but what it shows. Documents are folded here again, as simply as can be.
 */
#ifndef CRASH_MODEL_H
#define CRASH_MODEL_H

#include "../../store/store.h"
#include "record.h"

#define BATCHES_MAX 512
#define SESSIONS_MAX 16
#define KEYS_MAX 6
#define SNAPSHOTS_MAX 4
#define WHY_MAX 2000

struct set {
    uint64_t bits[BATCHES_MAX / 64];
};

static inline bool set_has(const struct set *set, size_t i)
{
    return set->bits[i / 64] >> i % 64 & 1;
}

static inline void set_add(struct set *set, size_t i)
{
    set->bits[i / 64] |= UINT64_C(1) << i % 64;
}

/* ---- what was done ---- */

/* The documents of a session: numbers of values, 0 is none. */
struct documents {
    uint32_t value[KEYS_MAX], archived[KEYS_MAX];
    bool archive; /* there is the one archive */
};

enum op { OP_NONE, OP_SET, OP_DELETE, OP_REPLACE, OP_UNDO, OP_ARCHIVE };

struct done {
    uint32_t batch;
    uint64_t seq;
    uint32_t length;
    char *line;
    enum op op;
    unsigned key;
    uint32_t value;         /* of a set; of a replacement: each key k has value + k */
    struct documents after; /* if all before it are there */
};

struct session {
    char id[32];
    uint32_t number, made_by; /* a batch; UINT32_MAX: a root append's, whose first record it is */
    bool simple;              /* its operations only set, delete and replace */
    struct done *done;
    size_t count, capacity;
    struct documents now;
    struct documents undo[64]; /* as it was before each operation not undone */
    size_t depth;
    uint32_t modes[32], mode_by[32]; /* permission bits, each by a batch */
    size_t mode_count;
};

struct snapshot {
    char name[32];
    struct set least, most; /* what it must hold, and may */
    size_t taken;           /* position when the call returned; SIZE_MAX: it failed */
};

struct batch {
    bool counted; /* it has records, of which all or none are there */
    unsigned records;
    bool compaction; /* no batch: operations before it that nothing needs may be gone */
    /* A drop of this session's (from 1) events below a seq, or of all of it: */
    size_t drops;
    uint64_t below;
    bool whole;
    bool erased; /* whole, and gone from every file */
};

struct history {
    struct session sessions[SESSIONS_MAX];
    size_t session_count;
    struct batch batches[BATCHES_MAX];
    size_t batch_count;
    struct snapshot snapshots[SNAPSHOTS_MAX];
    size_t snapshot_count;
    uint32_t values;        /* given so far */
    size_t damaged, mended; /* from which position to which the store was damaged by the workload */
    bool restored;          /* what mends that is a good copy of the file */
    struct bytes *kept;     /* of a file that was moved out of log/; NULL: none was */
    size_t moved;           /* the position when that was done */
    const char *left;       /* its name, if it must be moved */
};

void history_free(struct history *history);

struct moment {
    size_t position; /* calls made */
    struct set must, may;
};

struct timeline {
    struct moment *at;
    size_t count, capacity;
};

void timeline_begin(struct timeline *timeline, const struct set *must, const struct set *may);
const struct moment *timeline_find(const struct timeline *timeline, size_t position);

/* ---- doing it ---- */

struct actor {
    struct record *record;
    struct history *history;
    struct timeline *timeline;
    char dir[300];
    struct hl_options options;
    struct hl_store *store;
    struct hl_error err;
    uint64_t chance;
    unsigned turn;       /* of the workload, for those that do another thing in each */
    struct set maybe;    /* drops that failed: they may be carried out all the same */
    bool half_compacted; /* a compaction failed: the index may lag behind until the next */
    bool trims;          /* actor_beside() */
    bool lenient;        /* calls may fail: a fault was planned */
    unsigned line;       /* counts lines */
    struct set visible;
    int last_error;
    unsigned refused;
    char why[WHY_MAX]; /* what went wrong, or "" */
};

/* dir: of the store, DIR, which need not be there. */
void actor_init(struct actor *actor, struct record *record, struct history *history,
                struct timeline *timeline, const char *dir, uint64_t chance);
uint64_t actor_chance(struct actor *actor, uint64_t below);
bool actor_open(struct actor *actor);
bool actor_close(struct actor *actor); /* in order */
void actor_die(struct actor *actor);   /* by SIGKILL: what was written stays in the page cache */
struct session *actor_session(struct actor *actor, const char *id, bool simple);
void actor_append(struct actor *actor, struct session *session, unsigned lines, unsigned spread);
void actor_root(struct actor *actor, const char *const *ids, unsigned lines);
/* Operations in one batch: codes of `ops` are s(et) d(elete) c(heckpoint) u(ndo) a(rchive). */
void actor_operate(struct actor *actor, struct session *session, const char *ops);
void actor_chmod(struct actor *actor, struct session *session, uint32_t mode);
void actor_sync(struct actor *actor);
void actor_rotate(struct actor *actor);
void actor_checkpoint(struct actor *actor);
void actor_snapshot(struct actor *actor, const char *name);
void actor_reindex(struct actor *actor);
void actor_compact(struct actor *actor);
void actor_trim(struct actor *actor, const struct session *session); /* half of it */
void actor_delete(struct actor *actor, const struct session *session);
void actor_erase(struct actor *actor, const struct session *session);
/* index/ of a store that is closed is removed. */
void actor_lose_index(struct actor *actor);
/* Bytes of the session lie in quarantine/, as after damage. */
void actor_set_aside(struct actor *actor, const struct session *session);
/* What can be done to the first segment of a store that is closed, and mended: */
enum damage { DAMAGE_HEADER, DAMAGE_HEADERS, DAMAGE_SEAL, DAMAGE_RECORD, DAMAGES };
/* Does it, and mends it; a record by the copy that a snapshot has. */
void actor_mend(struct actor *actor, enum damage damage);
void actor_mend_all(struct actor *actor); /* once more, after a power cut in the middle of it */
/* Does this, while others append to the first session (and trim it before): right after the first
 * call of this kind, and again after the sync of the log that follows. */
void actor_beside(struct actor *actor, void (*act)(struct actor *actor), const char *what,
                  bool trims);
/* What people leave in log/, and do not sync, that an opening moves out of it: */
enum left {
    LEFT_OLD,       /* a segment that was replaced, which was in backup/ */
    LEFT_OLD_TWICE, /* likewise, and a copy there that is not synced either */
    LEFT_UNSOUND,   /* a file of no use, of the number of others */
};
void actor_leave_file(struct actor *actor, enum left left);
/* From now on the bytes of the first segment (or what was left) must be somewhere. */
void actor_keep_first(struct actor *actor);
void actor_moved(struct actor *actor);
/* Somebody links the segment that is appended to elsewhere, which then must not change. */
void actor_link(struct actor *actor);
void actor_fail(struct actor *actor, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What model.c and commands.c share. */
size_t actor_position(struct actor *actor);
/* Calls of the store count for a planned fault; what the tests do between does not. */
void actor_enter(struct actor *actor);
void actor_leave(struct actor *actor);
/* The call returned this. Whether it did what it should: a failure must be the planned one's, and
 * say what it was. */
bool actor_did(struct actor *actor, const char *what, int error);
uint32_t actor_issue(struct actor *actor); /* the number of a batch that may be there from now on */
/* It was refused: it must not be there later. */
void actor_take_back(struct actor *actor, uint32_t batch);
struct moment *timeline_add(struct timeline *timeline); /* as the last one, to be changed */

/* ---- workloads ---- */

struct workload {
    const char *name;
    void (*run)(struct actor *actor);
};
extern const struct workload workloads[];
extern const size_t workload_count;

/* ---- the check ---- */

struct finding {
    struct set found;
    uint64_t records, folds; /* folds: sessions whose documents were compared */
    char why[WHY_MAX];
};

/*
 * Whether the store shows all that must be there, nothing but what may, each batch whole or not at
 * all, all in order, and documents that are the fold of it; and that
 * its own verify finds nothing, if that is asked for. False: finding->why says what is wrong.
 */
bool check_store(const struct history *history, struct hl_store *store, const struct set *must,
                 const struct set *may, bool verify, struct finding *finding);

/* The text of a value. */
int value_text(uint32_t value, char *text, size_t size);
extern const char *const key_names[KEYS_MAX];
#define ARCHIVE_NAME "old"

#endif
