/*
 * last_error.c - why the last refused write of each session was refused.
 *
 * A bounded table in memory: the newest LAST_ERRORS_MAX sessions that had one; the one whose error
 * is oldest goes first, but none of another owner for one whose sessions have half of them already.
 * Session 0 stands for root `append` and is never pushed out.
 */
#include "fs_internal.h"

#include <stdio.h>
#include <stdlib.h>

#define LAST_ERRORS_MAX 4096
#define CHAINS 1024 /* a power of two */

/* How many refusals a second go to the daemon's log: a writer that repeats itself must not fill it.
 */
#define LOGGED_PER_SECOND 20

struct slot {
    uint32_t session;
    uid_t owner; /* of the session */
    struct last_error error;
    struct slot *chain;
    struct slot *newer, *older;
};

struct last_errors {
    pthread_mutex_t lock; /* guards all below; a leaf */
    struct last_error root;
    struct slot *chains[CHAINS];
    struct slot *newest, *oldest;
    size_t count;
    uint64_t logged_second; /* of the monotonic clock */
    unsigned logged;        /* in that second */
};

struct last_errors *last_errors_new(void)
{
    struct last_errors *errors = calloc(1, sizeof *errors);
    if (errors)
        pthread_mutex_init(&errors->lock, NULL);
    return errors;
}

void last_errors_free(struct last_errors *errors)
{
    if (!errors)
        return;
    struct slot *slot = errors->newest;
    while (slot) {
        struct slot *older = slot->older;
        free(slot);
        slot = older;
    }
    pthread_mutex_destroy(&errors->lock);
    free(errors);
}

static struct slot **chain_of(struct last_errors *errors, uint32_t session)
{
    return &errors->chains[session & (CHAINS - 1)];
}

static struct slot *find(struct last_errors *errors, uint32_t session)
{
    struct slot *slot = *chain_of(errors, session);
    while (slot && slot->session != session)
        slot = slot->chain;
    return slot;
}

/* Takes a slot out of the order of age. */
static void unlink_slot(struct last_errors *errors, struct slot *slot)
{
    if (slot->newer)
        slot->newer->older = slot->older;
    else
        errors->newest = slot->older;
    if (slot->older)
        slot->older->newer = slot->newer;
    else
        errors->oldest = slot->newer;
}

static void link_newest(struct last_errors *errors, struct slot *slot)
{
    slot->newer = NULL;
    slot->older = errors->newest;
    if (errors->newest)
        errors->newest->newer = slot;
    else
        errors->oldest = slot;
    errors->newest = slot;
}

/* The oldest slot, or the owner's oldest if he has many, out of its chain and the order, to be used
 * again. */
static struct slot *take_oldest(struct last_errors *errors, uid_t owner)
{
    struct slot *slot = errors->oldest, *his = NULL;
    size_t count = 0;

    for (struct slot *next = slot; next; next = next->newer) {
        if (next->owner != owner)
            continue;
        if (!his)
            his = next;
        count++;
    }
    if (count >= LAST_ERRORS_MAX / 2)
        slot = his;
    struct slot **at = chain_of(errors, slot->session);
    while (*at != slot)
        at = &(*at)->chain;
    *at = slot->chain;
    unlink_slot(errors, slot);
    return slot;
}

/* The session's slot, as the newest. NULL: no memory. */
static struct slot *slot_for(struct last_errors *errors, uint32_t session, uid_t owner)
{
    struct slot *slot = find(errors, session);

    if (slot) {
        unlink_slot(errors, slot);
        link_newest(errors, slot);
        return slot;
    }
    if (errors->count < LAST_ERRORS_MAX) {
        slot = malloc(sizeof *slot);
        if (!slot)
            return NULL;
        errors->count++;
    } else {
        slot = take_oldest(errors, owner);
    }
    slot->session = session;
    slot->owner = owner;
    slot->chain = *chain_of(errors, session);
    *chain_of(errors, session) = slot;
    link_newest(errors, slot);
    return slot;
}

/* Whether this refusal goes to the log; *last says that it is the last for this second. */
static bool may_log(struct last_errors *errors, bool *last)
{
    uint64_t second = fs_tick_ms() / 1000;

    if (second != errors->logged_second) {
        errors->logged_second = second;
        errors->logged = 0;
    }
    *last = ++errors->logged == LOGGED_PER_SECOND;
    return errors->logged <= LOGGED_PER_SECOND;
}

/* Keeps it for the session, if it is to be kept, and logs it if there is room in this second. */
static void refused(struct fs *fs, uint32_t session, bool keep, const struct last_error *error,
                    const char *what, const char *file)
{
    struct last_errors *errors = fs->last_errors;
    struct hl_session named;
    char name[NODE_NAME_MAX + 1] = "";
    bool known = session != 0 && hl_session_by_number(fs->store, session, &named) == 0, last;

    pthread_mutex_lock(&errors->lock);
    if (keep && session == 0) {
        errors->root = *error;
    } else if (keep) {
        struct slot *slot = slot_for(errors, session, known ? fs_owner(fs, &named) : 0);
        if (slot)
            slot->error = *error;
    }
    bool log = may_log(errors, &last);
    pthread_mutex_unlock(&errors->lock);
    if (!log)
        return;
    if (known)
        name_encode(named.id, named.id_len, name);
    fs_log(HL_WARNING, "refused %s%s%s%s%s%s%s", what, session ? "sessions/" : "", name,
           session ? "/" : "", file, error->text,
           last ? " (further refusals of this second are not logged)" : "");
}

void fs_refused(struct fs *fs, uint32_t session, const char *document, const struct hl_error *err)
{
    struct last_error error = {
        .ts_ms = fs_now_ms(), .code = err->code, .line = document ? 0 : err->line};

    atomic_fetch_add(&fs->refused[err->code > 0 && err->code < FS_ERRNO_MAX ? err->code : 0], 1);
    if (document)
        snprintf(error.text, sizeof error.text, "state/%s: %s", document, err->text);
    else if (err->line)
        snprintf(error.text, sizeof error.text, "line %zu: %s", err->line, err->text);
    else
        snprintf(error.text, sizeof error.text, "%s", err->text);
    refused(fs, session, true, &error, "a write to ", document ? "" : "append: ");
}

void fs_refused_open(struct fs *fs, uint32_t session, bool may_write, const struct hl_error *err)
{
    struct last_error error = {.ts_ms = fs_now_ms(), .code = err->code};

    snprintf(error.text, sizeof error.text, "%s", err->text);
    refused(fs, session, may_write, &error, "an open in ", ": ");
}

bool last_errors_get(struct last_errors *errors, uint32_t session, struct last_error *error)
{
    pthread_mutex_lock(&errors->lock);
    if (session == 0) {
        *error = errors->root;
    } else {
        struct slot *slot = find(errors, session);
        *error = slot ? slot->error : (struct last_error){0};
    }
    pthread_mutex_unlock(&errors->lock);
    return error->ts_ms != 0;
}
