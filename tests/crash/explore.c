/* explore.c - see explore.h. */
#include "explore.h"

#include "aside.h"
#include "runner.h"
#include "variants.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define SECOND_LEAST 24 /* states of second cuts that are tried of a first one, at a time */
#define SECOND_RATE 1.0 /* states of second cuts for each first one, on the whole */
#define SLICES 16       /* that the states of a workload are dealt to at least, for the workers */
#define ROUNDS 5        /* of a workload, at least */

/* ---- the index ---- */

enum index_state {
    INDEX_KEPT,
    INDEX_LOST,
    INDEX_ALL_LOST, /* the checkpoints, too */
    INDEX_PREVIOUS, /* of the commit before */
    INDEX_OLDER,    /* of some commit */
    INDEX_STATES
};

struct versions {
    struct bytes **at;
    size_t count, capacity;
};

static uint32_t find_index(const struct tree *tree)
{
    uint32_t parent;
    const char *last;
    return tree_walk(tree, 0, "d/index/data.mdb", &parent, &last);
}

/* Notes what is synced of the index, if that is new. */
static void note_version(struct versions *versions, const struct tree *tree)
{
    uint32_t node = find_index(tree);
    struct bytes *content = node == NO_NODE ? NULL : tree->nodes[node].content;
    if (!content || (versions->count > 0 && versions->at[versions->count - 1] == content))
        return;
    if (versions->count == versions->capacity) {
        versions->capacity = versions->capacity ? 2 * versions->capacity : 32;
        versions->at = realloc(versions->at, versions->capacity * sizeof(*versions->at));
        if (!versions->at)
            abort();
    }
    versions->at[versions->count++] = bytes_keep(content);
}

static void versions_free(struct versions *versions)
{
    for (size_t i = 0; i < versions->count; i++)
        bytes_drop(versions->at[i]);
    free(versions->at);
}

static void change_index(struct tree *tree, const struct versions *versions, unsigned how,
                         uint64_t chance)
{
    uint32_t dir = tree_find(tree, 0, "d");
    if (how == INDEX_KEPT || dir == NO_NODE)
        return;
    if (how == INDEX_LOST || how == INDEX_ALL_LOST) {
        tree_remove(tree, dir, "index");
        if (how == INDEX_ALL_LOST)
            tree_remove(tree, dir, "checkpoints");
        return;
    }
    uint32_t node = find_index(tree);
    if (node == NO_NODE || versions->count < 2)
        return;
    size_t which = how == INDEX_PREVIOUS ? versions->count - 2 : chance % versions->count;
    tree_fill(tree, node, bytes_keep(versions->at[which]));
}

/* ---- states that were seen ---- */

/* Whether nobody saw it before. The table is shared with other workers. */
static bool note_seen(struct explorer *explorer, uint64_t hash)
{
    hash |= 1;
    size_t mask = explorer->seen_capacity - 1, at = (hash >> 8) & mask;
    for (size_t tried = 0; tried <= mask; tried++, at = (at + 1) & mask) {
        uint64_t there = 0;
        if (atomic_compare_exchange_strong(&explorer->seen[at], &there, hash))
            return true;
        if (there == hash)
            return false;
    }
    return true; /* it is full: what comes is not told apart any more */
}

/* ---- one state ---- */

/* A recording that is to be cut. */
struct cuttable {
    const struct tree *tree; /* what was there before */
    const struct call *calls;
    size_t count;
    const struct timeline *timeline;
    const struct cuttable *outer; /* it is the recovery from a state of this; or NULL */
    struct aside aside;           /* what that recovery set aside */
    char name[96];                /* of that state, or of the workload */
};

static bool failed(struct explorer *explorer, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static bool failed(struct explorer *explorer, const char *name, const char *format, ...)
{
    va_list arguments;
    if (!explorer->why[0]) {
        va_start(arguments, format);
        vsnprintf(explorer->why, sizeof explorer->why, format, arguments);
        va_end(arguments);
        snprintf(explorer->state, sizeof explorer->state, "%s", name);
    }
    return false;
}

static bool check(struct explorer *explorer, struct actor *actor, const char *name,
                  const char *when, const struct set *must, const struct set *may, bool verify,
                  struct finding *finding)
{
    if (actor->why[0])
        return failed(explorer, name, "%s: %s", when, actor->why);
    if (!check_store(&explorer->history, actor->store, must, may, verify, finding))
        return failed(explorer, name, "%s: %s", when, finding->why);
    return true;
}

/* Snapshots that are there are whole, and stay so beside the store; those that must be are there.
 */
static bool check_snapshots(struct explorer *explorer, const char *name, size_t position)
{
    struct hl_options options;
    hl_options_init(&options);
    for (size_t i = 0; i < explorer->history.snapshot_count; i++) {
        const struct snapshot *snapshot = &explorer->history.snapshots[i];
        char path[400];
        struct stat st;
        struct hl_store *store;
        struct hl_error err;
        struct finding finding;
        snprintf(path, sizeof path, "%s/d/snapshots/%s", explorer->root, snapshot->name);
        if (stat(path, &st) < 0) {
            if (snapshot->taken <= position)
                return failed(explorer, name, "snapshot %s is gone", snapshot->name);
            continue;
        }
        if (hl_store_open(path, &options, &store, NULL, &err) < 0)
            return failed(explorer, name, "snapshot %s: %s", snapshot->name, err.text);
        bool good = check_store(&explorer->history, store, &snapshot->least, &snapshot->most, true,
                                &finding);
        hl_store_close(store);
        if (!good)
            return failed(explorer, name, "snapshot %s: %s", snapshot->name, finding.why);
    }
    return true;
}

static void forget_appended(struct history *history, size_t batches, const size_t *counts,
                            size_t sessions)
{
    history->batch_count = batches;
    for (size_t i = 0; i < history->session_count; i++) {
        struct session *session = &history->sessions[i];
        size_t keep = i < sessions ? counts[i] : 0;
        while (session->count > keep)
            free(session->done[--session->count].line);
        if (i >= sessions)
            free(session->done);
    }
    history->session_count = sessions;
}

static bool explore_cuts(struct explorer *explorer, const struct cuttable *cuttable, uint64_t most);

/* Whether the workload had damaged the store, and it was not mended yet. */
static bool is_damaged(const struct explorer *explorer, const struct cuttable *of, size_t position)
{
    return !of->outer && position > explorer->history.damaged &&
           position < explorer->history.mended;
}

/*
 * Recovers from the state that is in the directory, appends, and recovers again: at once, after the
 * first recovery alone, or with an orderly end before or after it, as chance has it. The recording
 * of it is kept in the record, and the timeline that goes with it.
 */
static bool recover_state(struct explorer *explorer, struct actor *actor, const char *name,
                          const struct moment *moment, bool damaged, unsigned flavour)
{
    struct finding finding, again;
    if (damaged)
        actor_mend_all(actor);
    if (actor->why[0] || !actor_open(actor))
        return failed(explorer, name, "recovery: %s", actor->why);
    if (!check(explorer, actor, name, "recovery", &moment->must, &moment->may, true, &finding))
        return false;
    uint64_t records = finding.records;
    explorer->records += records;
    explorer->folds += finding.folds;
    /* What a recovery has shown is there for good. */
    actor->visible = finding.found;
    struct moment *shown = actor->timeline->at; /* also for power cuts during the first recovery: */
    shown->must = shown->may = finding.found;   /* the second must come to the same */
    if (flavour == 1) {
        actor_die(actor);
        actor_open(actor);
        if (!check(explorer, actor, name, "second recovery", &finding.found, &finding.found, false,
                   &again))
            return false;
        if (again.records != records)
            return failed(explorer, name, "a second recovery has other records");
    }
    if (flavour == 3) { /* ended at once */
        actor_close(actor);
        actor_open(actor);
    }
    static const char *const ids[] = {"after", "after"};
    actor_root(actor, ids, 2);
    actor_sync(actor);
    if (flavour == 2)
        actor_close(actor);
    else
        actor_die(actor);
    if (!actor->why[0])
        actor_open(actor);
    if (!check(explorer, actor, name, "recovery after an append", &actor->visible, &actor->visible,
               (flavour & 1) == 0, &again))
        return false;
    if (again.records != records + 2)
        return failed(explorer, name, "a recovery after an append has other records");
    actor_die(actor);
    return true;
}

static bool run_state(struct explorer *explorer, const struct tree *tree, const char *name,
                      const struct cuttable *of, size_t position, uint64_t hash, uint64_t second)
{
    bool damaged = is_damaged(explorer, of, position);
    char dir[300];
    struct record record;
    struct timeline timeline;
    struct actor actor;
    const struct moment *moment = timeline_find(of->timeline, position);
    size_t counts[SESSIONS_MAX], batches = explorer->history.batch_count,
                                 sessions = explorer->history.session_count;
    for (size_t i = 0; i < sessions; i++)
        counts[i] = explorer->history.sessions[i].count;
    snprintf(dir, sizeof dir, "%s/d", explorer->root);
    if (!empty_directory(explorer->root) || !tree_write(tree, explorer->root))
        return failed(explorer, name, "cannot make the state: %s", strerror(errno));
    if (explorer->keep && explorer->replay && strcmp(explorer->replay, name) == 0) {
        fprintf(stderr, "# the state is in %s\n", explorer->root);
        exit(0);
    }
    record_begin(&record, explorer->root, tree, hash);
    timeline_begin(&timeline, &moment->must, &moment->may);
    actor_init(&actor, &record, &explorer->history, &timeline, dir, hash);
    explorer->states++;
    bool good = recover_state(explorer, &actor, name, moment, damaged, (unsigned)(hash >> 20) % 4);
    if (actor.store)
        actor_die(&actor);
    bool snapshots = explorer->history.snapshot_count > 0 && (hash >> 24) % 4 == 0;
    struct record kept = record;
    record.calls = NULL;
    record.count = 0;
    record_end(&record);
    if (good && snapshots)
        good = check_snapshots(explorer, name, of->outer ? 0 : position);
    if (good && second > 0) {
        struct cuttable cuttable = {
            .tree = tree,
            .calls = kept.calls,
            .count = kept.count,
            .timeline = &timeline,
            .outer = of,
        };
        snprintf(cuttable.name, sizeof cuttable.name, "%s", name);
        aside_take(&cuttable.aside, dir);
        good = explore_cuts(explorer, &cuttable, second);
        aside_free(&cuttable.aside);
    }
    for (size_t i = 0; i < kept.count; i++)
        bytes_drop(kept.calls[i].data);
    free(kept.calls);
    free(timeline.at);
    forget_appended(&explorer->history, batches, counts, sessions);
    return good;
}

/* ---- all states of a recording ---- */

/* Whether this state is the one to be replayed, or one on the way to it. */
static bool is_wanted(const struct explorer *explorer, const char *name)
{
    size_t len = strlen(name);
    return !explorer->replay || (strncmp(explorer->replay, name, len) == 0 &&
                                 (explorer->replay[len] == 0 || explorer->replay[len] == '/'));
}

struct walk {
    const struct cuttable *cuttable;
    struct disk disk;
    struct versions versions;
    size_t position;
    bool erasing;           /* an erasure had begun */
    uint64_t slice, slices; /* names are dealt to so many slices; this one is walked */
    uint64_t most, done;    /* no more than so many states are run */
};

/* Whether the store says that it has to erase the session. */
static bool is_noted(const struct tree *tree, const char *id)
{
    uint32_t parent;
    const char *last;
    uint32_t node = tree_walk(tree, 0, "d/erasing", &parent, &last);
    const struct bytes *note = node == NO_NODE ? NULL : tree->nodes[node].content;
    return note && memmem(note->at, note->size, id, strlen(id));
}

/* Nothing is left of a session whose erasure was acknowledged; nor of one whose erasure had begun,
 * if it was not to go on by itself. */
static bool check_erased(struct explorer *explorer, const struct tree *tree, const char *name,
                         const struct set *must, bool begun)
{
    const struct history *history = &explorer->history;
    for (size_t i = 0; i < history->batch_count; i++) {
        const struct batch *batch = &history->batches[i];
        if (!batch->erased)
            continue;
        const char *id = history->sessions[batch->drops - 1].id;
        bool acknowledged = set_has(must, i);
        if (!acknowledged && (!begun || is_noted(tree, id)))
            continue;
        const char *file = tree_holding(tree, id);
        if (file)
            return failed(explorer, name, "%s %s erased, and is in %s", id,
                          acknowledged ? "was" : "is no more to be", file);
    }
    return true;
}

/* Whether the disk has a note of an erasure. */
static bool has_begun(const struct explorer *explorer, const struct tree *synced)
{
    const struct history *history = &explorer->history;
    for (size_t i = 0; i < history->batch_count; i++) {
        if (history->batches[i].erased &&
            is_noted(synced, history->sessions[history->batches[i].drops - 1].id))
            return true;
    }
    return false;
}

static bool visit(struct explorer *explorer, struct walk *walk, size_t variant, unsigned index)
{
    char name[128];
    struct tree tree;
    const struct cuttable *cuttable = walk->cuttable;
    uint64_t chance = hash_mix(hash_mix(explorer->chance, walk->position), variant);
    if (!explorer->replay && hash_mix(chance, index) % walk->slices != walk->slice)
        return true;
    snprintf(name, sizeof name, "%s%c%zu:%zu:%u", cuttable->name, cuttable->outer ? '/' : ':',
             walk->position, variant, index);
    if (!is_wanted(explorer, name))
        return true;
    struct fate *fates = calloc(walk->disk.count + 1, sizeof *fates);
    if (!fates)
        abort();
    make_variant(&walk->disk, variant, chance, fates);
    disk_cut(&walk->disk, fates, &tree);
    free(fates);
    change_index(&tree, &walk->versions, index, chance >> 16);
    const struct moment *moment = timeline_find(cuttable->timeline, walk->position);
    uint64_t hash = tree_hash(&tree), key = hash;
    for (size_t i = 0; i < BATCHES_MAX / 64; i++)
        key = hash_mix(key, moment->must.bits[i]);
    /* What a later recovery moves is in its aside. */
    bool moved =
        !cuttable->outer && explorer->history.kept && walk->position >= explorer->history.moved;
    bool good = true;
    if (explorer->replay || note_seen(explorer, hash_mix(key, 2 * moved + walk->erasing))) {
        uint64_t second = 0;
        walk->done++;
        explorer->credit += cuttable->outer ? 0 : SECOND_RATE;
        if (cuttable->outer)
            explorer->second_states++;
        else if (explorer->replay)
            second = strlen(explorer->replay) > strlen(name);
        else if (explorer->credit >= SECOND_LEAST &&
                 !is_damaged(explorer, cuttable, walk->position))
            second = SECOND_LEAST;
        const char *missing = aside_missing(&cuttable->aside, &tree);
        if (!missing && moved && !tree_keeps(&tree, explorer->history.kept))
            missing = "a file in log/";
        good = missing ? failed(explorer, name, "what was set aside of %s is lost", missing)
                       : cuttable->outer || index >= INDEX_PREVIOUS ||
                             check_erased(explorer, &tree, name, &moment->must, walk->erasing);
        good = good && run_state(explorer, &tree, name, cuttable, walk->position, hash, second);
    }
    tree_free(&tree);
    return good;
}

static bool visit_position(struct explorer *explorer, struct walk *walk)
{
    size_t count = variant_count(walk->disk.count);
    /* What is damaged may be known by the index alone. */
    unsigned indexes = is_damaged(explorer, walk->cuttable, walk->position) ? 1 : INDEX_STATES;
    bool good = true;
    for (size_t variant = 0; good && variant < count; variant++) {
        for (unsigned index = 0; good && index < indexes && walk->done < walk->most; index++)
            good = visit(explorer, walk, variant, index);
    }
    return good;
}

static bool walk_cuts(struct explorer *explorer, struct walk *walk)
{
    const struct cuttable *cuttable = walk->cuttable;
    bool good = true;
    disk_init(&walk->disk, cuttable->tree);
    note_version(&walk->versions, &walk->disk.synced);
    walk->erasing = false;
    for (walk->position = 0; good && walk->position <= cuttable->count && walk->done < walk->most;
         walk->position++) {
        if (walk->position > 0) {
            disk_do(&walk->disk, &cuttable->calls[walk->position - 1]);
            note_version(&walk->versions, &walk->disk.synced);
            walk->erasing = walk->erasing || has_begun(explorer, &walk->disk.synced);
        }
        good = visit_position(explorer, walk);
    }
    disk_free(&walk->disk);
    versions_free(&walk->versions);
    walk->versions = (struct versions){.count = 0};
    return good;
}

/* How many states there are by name, those that are alike included. */
static uint64_t count_names(const struct cuttable *cuttable)
{
    struct disk disk;
    uint64_t names = 0;
    disk_init(&disk, cuttable->tree);
    for (size_t i = 0; i <= cuttable->count; i++) {
        if (i > 0)
            disk_do(&disk, &cuttable->calls[i - 1]);
        names += variant_count(disk.count) * INDEX_STATES;
    }
    disk_free(&disk);
    return names;
}

/* Second cuts: about `most` of them, spread over all there are. */
static bool explore_cuts(struct explorer *explorer, const struct cuttable *cuttable, uint64_t most)
{
    struct walk walk = {.cuttable = cuttable, .most = explorer->replay ? UINT64_MAX : 2 * most};
    walk.slices = count_names(cuttable) / (2 * most) + 1; /* about so many of them differ */
    walk.slice = hash_mix(explorer->chance, explorer->states) % walk.slices;
    bool good = walk_cuts(explorer, &walk);
    explorer->credit -= (double)walk.done;
    return good;
}

/* ---- a workload ---- */

static bool run_workload(struct explorer *explorer, struct record *record,
                         struct timeline *timeline, const struct tree *empty, unsigned round,
                         const char *name)
{
    char dir[300];
    struct actor actor;
    static const struct set nothing;
    snprintf(dir, sizeof dir, "%s/d", explorer->root);
    if (!empty_directory(explorer->root))
        return failed(explorer, name, "cannot empty %s: %s", explorer->root, strerror(errno));
    record_begin(record, explorer->root, empty, explorer->chance);
    timeline_begin(timeline, &nothing, &nothing);
    actor_init(&actor, record, &explorer->history, timeline, dir, explorer->chance);
    actor.turn = round;
    explorer->workload->run(&actor);
    if (actor.store)
        actor_die(&actor);
    return !actor.why[0] || failed(explorer, name, "%s", actor.why);
}

/* The slices of one run of the workload, as far as they are this worker's: all that there are, or
 * as many states as leave some for other rounds. Each slice has some of each position. */
static bool explore_slices(struct explorer *explorer, const struct cuttable *cuttable)
{
    struct walk walk = {.cuttable = cuttable, .most = UINT64_MAX, .slices = 1};
    if (explorer->replay)
        return walk_cuts(explorer, &walk);
    bool good = true;
    uint64_t share = explorer->budget / ROUNDS + 1, end = explorer->states + share;
    if (end > explorer->budget)
        end = explorer->budget;
    walk.slices = 2 * count_names(cuttable) / share + 1; /* half of a share is second cuts */
    if (walk.slices < SLICES)
        walk.slices = SLICES;
    for (walk.slice = explorer->worker; good && walk.slice < walk.slices;
         walk.slice += explorer->workers) {
        walk.most = walk.done;
        if (explorer->states < end)
            walk.most += end - explorer->states;
        good = walk_cuts(explorer, &walk);
    }
    return good;
}

/* Runs the workload once, with chance of its own, and cuts it. */
static bool explore_round(struct explorer *explorer, unsigned round)
{
    struct record record;
    struct timeline timeline;
    struct tree empty;
    struct cuttable cuttable = {.tree = &empty, .timeline = &timeline};
    snprintf(cuttable.name, sizeof cuttable.name, "%s.%u", explorer->workload->name, round);
    explorer->chance = hash_mix(explorer->seed, round);
    tree_init(&empty);
    bool good = run_workload(explorer, &record, &timeline, &empty, round, cuttable.name);
    struct record kept = record;
    record.calls = NULL;
    record.count = 0;
    record_end(&record);
    cuttable.calls = kept.calls;
    cuttable.count = kept.count;
    good = good && explore_slices(explorer, &cuttable);
    for (size_t i = 0; i < kept.count; i++)
        bytes_drop(kept.calls[i].data);
    free(kept.calls);
    free(timeline.at);
    tree_free(&empty);
    history_free(&explorer->history);
    return good;
}

bool explore(struct explorer *explorer, const struct workload *workload)
{
    explorer->workload = workload;
    if (explorer->replay)
        return explore_round(
            explorer, (unsigned)strtoul(explorer->replay + strlen(workload->name) + 1, NULL, 10));
    for (unsigned round = 0; explorer->states < explorer->budget; round++) {
        uint64_t before = explorer->states;
        if (!explore_round(explorer, round))
            return false;
        if (explorer->states == before)
            return failed(explorer, workload->name, "a workload without states");
    }
    return true;
}
