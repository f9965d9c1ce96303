/*
 * draft.c - the drafts of all sessions: found by name, by number, and in order.
 *
 * Sessions share a number of shards. What holds in each: every draft is in the order of numbers and
 * in the chain of its number, and of its document if it has one; in a chain of names if its place
 * is scratch or a document's; and `scratch` counts the scratch files.
 */
#include "draft.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHARDS 32 /* powers of two */
#define CHAINS 256

struct shard {
    pthread_mutex_t lock; /* guards all below, and the drafts */
    struct draft *by_name[CHAINS], *by_number[CHAINS], *by_document[CHAINS];
    struct draft *first, *last;
    size_t scratch;
};

struct drafts {
    _Atomic uint64_t next_number, next_write, scratch_files;
    struct shard shards[SHARDS];
};

struct drafts *drafts_new(void)
{
    struct drafts *drafts = calloc(1, sizeof *drafts);
    if (!drafts)
        return NULL;
    atomic_init(&drafts->next_number, 1);
    atomic_init(&drafts->next_write, 1);
    for (size_t i = 0; i < SHARDS; i++)
        pthread_mutex_init(&drafts->shards[i].lock, NULL);
    return drafts;
}

void drafts_free(struct fs *fs)
{
    if (!fs->drafts)
        return;
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *shard = &fs->drafts->shards[i];
        while (shard->first)
            draft_free(fs, shard->first);
        pthread_mutex_destroy(&shard->lock);
    }
    free(fs->drafts);
    fs->drafts = NULL;
}

static struct shard *shard_of(const struct fs *fs, uint32_t session)
{
    return &fs->drafts->shards[session & (SHARDS - 1)];
}

void drafts_lock(struct fs *fs, uint32_t session)
{
    pthread_mutex_lock(&shard_of(fs, session)->lock);
}

void drafts_unlock(struct fs *fs, uint32_t session)
{
    pthread_mutex_unlock(&shard_of(fs, session)->lock);
}

uint64_t drafts_scratch_files(struct drafts *drafts)
{
    return atomic_load(&drafts->scratch_files);
}

/* ---- chains -----------------------------------------------------------------------------------
 */

static struct draft **name_chain(struct shard *shard, uint32_t session, const char *name,
                                 size_t len)
{
    uint32_t hash = session * UINT32_C(0x9e3779b1);

    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (unsigned char)name[i]) * UINT32_C(0x01000193);
    return &shard->by_name[hash >> 8 & (CHAINS - 1)];
}

static struct draft **number_chain(struct shard *shard, uint64_t number)
{
    return &shard->by_number[number & (CHAINS - 1)];
}

static struct draft **document_chain(struct shard *shard, uint32_t session, uint64_t document)
{
    return &shard->by_document[(session / SHARDS * 31 + document) & (CHAINS - 1)];
}

static bool has_name(const struct draft *draft)
{
    return draft->place == DRAFT_SCRATCH || draft->place == DRAFT_DOCUMENT;
}

/* Counts it among those of its place, or not any more. */
static void count(struct fs *fs, struct shard *shard, const struct draft *draft, int by)
{
    if (draft->place == DRAFT_SCRATCH) {
        shard->scratch += (size_t)by;
        atomic_fetch_add(&fs->drafts->scratch_files, (uint64_t)by);
    }
}

static void link_name(struct fs *fs, struct shard *shard, struct draft *draft)
{
    count(fs, shard, draft, 1);
    if (!has_name(draft))
        return;
    struct draft **chain = name_chain(shard, draft->session, draft->name, draft->name_len);
    draft->next_by_name = *chain;
    *chain = draft;
}

static void unlink_name(struct fs *fs, struct shard *shard, struct draft *draft)
{
    count(fs, shard, draft, -1);
    if (!has_name(draft))
        return;
    struct draft **at = name_chain(shard, draft->session, draft->name, draft->name_len);
    while (*at != draft)
        at = &(*at)->next_by_name;
    *at = draft->next_by_name;
}

static void set_name(struct draft *draft, enum draft_place place, const char *name, size_t len)
{
    draft->place = place;
    draft->name_len = len;
    memmove(draft->name, name, len);
    draft->name[len] = '\0';
}

/* ---- making and removing ----------------------------------------------------------------------
 */

int draft_prepare(struct fs *fs, struct draft *draft, enum draft_place place, struct hl_error *err)
{
    enum content_kind kind = place == DRAFT_SCRATCH ? CONTENT_SCRATCH : CONTENT_VALUE;

    /* Each scratch file takes part in the bound, also an empty one. */
    if (kind == CONTENT_SCRATCH && !draft->counted) {
        enum taken taken = share_take(fs, draft->user, SHARE_SCRATCH, sizeof *draft);
        if (taken != TAKEN)
            return share_refuse(fs, draft->user, SHARE_SCRATCH, taken, "the scratch files", err);
        draft->counted = true;
    }
    return content_turn(fs, &draft->content, kind, err);
}

int draft_new(struct fs *fs, uint32_t session, enum draft_place place, const char *name, size_t len,
              uid_t uid, struct draft **draft, struct hl_error *err)
{
    struct shard *shard = shard_of(fs, session);
    struct draft *made = calloc(1, sizeof *made);

    if (!made)
        return hl_fail(err, ENOMEM, "out of memory");
    made->place = place;
    made->user = made->content.user = user_enter(fs, uid);
    int result = draft_prepare(fs, made, place, err);
    if (result < 0) {
        user_leave(fs, made->user);
        free(made);
        return result;
    }
    made->number = atomic_fetch_add(&fs->drafts->next_number, 1);
    made->session = session;
    made->changed_ms = fs_now_ms();
    made->has_text = place == DRAFT_SCRATCH;
    set_name(made, place, name, len);
    link_name(fs, shard, made);
    struct draft **chain = number_chain(shard, made->number);
    made->next_by_number = *chain;
    *chain = made;
    made->before = shard->last;
    *(shard->last ? &shard->last->after : &shard->first) = made;
    shard->last = made;
    *draft = made;
    return 0;
}

void draft_of_document(struct fs *fs, struct draft *draft, uint64_t document)
{
    struct draft **chain = document_chain(shard_of(fs, draft->session), draft->session, document);

    draft->document = document;
    draft->next_by_document = *chain;
    *chain = draft;
}

void draft_free(struct fs *fs, struct draft *draft)
{
    struct shard *shard = shard_of(fs, draft->session);

    unlink_name(fs, shard, draft);
    struct draft **at = number_chain(shard, draft->number);
    while (*at != draft)
        at = &(*at)->next_by_number;
    *at = draft->next_by_number;
    if (draft->document != 0) {
        at = document_chain(shard, draft->session, draft->document);
        while (*at != draft)
            at = &(*at)->next_by_document;
        *at = draft->next_by_document;
    }
    *(draft->before ? &draft->before->after : &shard->first) = draft->after;
    *(draft->after ? &draft->after->before : &shard->last) = draft->before;
    if (draft->counted)
        share_give(fs, draft->user, SHARE_SCRATCH, sizeof *draft);
    content_free(fs, &draft->content);
    user_leave(fs, draft->user);
    free(draft);
}

/* ---- finding ----------------------------------------------------------------------------------
 */

struct draft *draft_next_named(struct fs *fs, uint32_t session, enum draft_place place,
                               const char *name, size_t len, struct draft *last)
{
    struct shard *shard = shard_of(fs, session);
    struct draft *draft = last ? last->next_by_name : *name_chain(shard, session, name, len);

    while (draft && (draft->session != session || draft->place != place || draft->name_len != len ||
                     memcmp(draft->name, name, len) != 0))
        draft = draft->next_by_name;
    return draft;
}

struct draft *draft_numbered(struct fs *fs, uint32_t session, uint64_t number)
{
    struct draft *draft = *number_chain(shard_of(fs, session), number);
    while (draft && (draft->number != number || draft->session != session))
        draft = draft->next_by_number;
    return draft;
}

struct draft *draft_next_scratch(struct fs *fs, uint32_t session, uint64_t after)
{
    struct shard *shard = shard_of(fs, session);
    /* Listing goes on behind the last one, which is there still but for races. */
    struct draft *last = after ? draft_numbered(fs, session, after) : NULL;
    struct draft *draft = last ? last->after : shard->scratch ? shard->first : NULL;

    while (draft &&
           (draft->number <= after || draft->session != session || draft->place != DRAFT_SCRATCH))
        draft = draft->after;
    return draft;
}

bool same_process(pid_t x, pid_t y)
{
    char path[64];

    if (x == y)
        return true;
    if (x <= 0 || y <= 0)
        return false;
    /* Any thread's number leads to the directory of its process, which lists all of its threads. */
    snprintf(path, sizeof path, "/proc/%ld/task/%ld", (long)x, (long)y);
    return access(path, F_OK) == 0;
}

struct draft *draft_unborn(struct fs *fs, uint32_t session, const char *key, size_t len, pid_t who)
{
    struct draft *draft = NULL;

    do {
        draft = draft_next_named(fs, session, DRAFT_DOCUMENT, key, len, draft);
    } while (draft && !(draft->unborn && same_process(who, draft->writer)));
    return draft;
}

struct draft *draft_pending_of(struct fs *fs, uint32_t session, uint64_t document, pid_t who)
{
    struct shard *shard = shard_of(fs, session);
    struct draft *found = NULL;

    for (struct draft *draft = *document_chain(shard, session, document); draft;
         draft = draft->next_by_document) {
        if (draft->document == document && draft->session == session && draft->pending &&
            (!found || draft->written > found->written) && same_process(who, draft->writer))
            found = draft;
    }
    return found;
}

/* ---- changing ---------------------------------------------------------------------------------
 */

void draft_move(struct fs *fs, struct draft *draft, enum draft_place place, const char *name,
                size_t len)
{
    struct shard *shard = shard_of(fs, draft->session);

    unlink_name(fs, shard, draft);
    set_name(draft, place, name, len);
    link_name(fs, shard, draft);
}

void draft_remove(struct fs *fs, struct draft *draft, enum draft_place place)
{
    struct shard *shard = shard_of(fs, draft->session);

    if (draft->handles == 0) {
        draft_free(fs, draft);
        return;
    }
    unlink_name(fs, shard, draft);
    draft->place = place;
}

void draft_note_write(struct fs *fs, struct draft *draft, pid_t who)
{
    draft->writer = who;
    draft->written = atomic_fetch_add(&fs->drafts->next_write, 1);
    draft->changed_ms = fs_now_ms();
    draft->told = false;
}

void drafts_forget(struct fs *fs, uint32_t session)
{
    struct draft *draft;

    drafts_lock(fs, session);
    while ((draft = draft_next_scratch(fs, session, 0)) != NULL)
        draft_remove(fs, draft, DRAFT_REMOVED);
    drafts_unlock(fs, session);
}
