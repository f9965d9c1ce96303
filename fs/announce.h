/*
 * announce.h - the daemon's news, told to inotify.
 *
 * The kernel tells watchers only of what passes through the mount. So a thread of the daemon makes
 * each new record through the mount, as if it were made there and then: open(O_CREAT | O_EXCL) and
 * close(). The request handlers know that thread by the id its requests come with, deny it the name
 * until it has made it, and answer that with the record that is there.
 *
 * Documents that operations changed are told in the same way, each change in its turn: made,
 * written to or removed by that thread, which changes nothing. What was changed by files the kernel
 * has told already. So when a document is changed by files while changes of it by operations wait,
 * these are overtaken: what they led to is gone, and is not told any more.
 *
 * What waits to be told is bounded by announce_max; beyond it the oldest is skipped and counted.
 * Nobody ever waits for the thread but the end of the mount.
 */
#ifndef HL_ANNOUNCE_H
#define HL_ANNOUNCE_H

#include "fs_internal.h"

struct announcer;

struct announcer *announcer_new(struct fs *fs);
/*
 * The mount is up and requests are answered; device is its number. Returns when the mount is not in
 * use. Without it (`seen` false: the mount cannot be seen from here) nothing is ever announced.
 */
void announcer_start(struct announcer *announcer, bool seen, dev_t device);
/*
 * Ends the thread, which may have a request of its own under way: so either the loop still answers
 * requests, or `ended` says that it does not any more. NULL is fine, as is again.
 */
void announcer_stop(struct announcer *announcer, bool ended);
void announcer_free(struct announcer *announcer);

/* A session was deleted, but not through the mount. */
void announcer_gone(struct announcer *announcer, const struct hl_session *session);
/* Something is there to be told. Cheap; from any thread. */
void announcer_news(struct announcer *announcer, const struct hl_news *news);

/* ---- for the request handlers -----------------------------------------------------------------
 */

/* Whether a look-up is the one by which the announcing thread finds out its id. It is denied. */
bool announcer_is_asked(struct announcer *announcer, fuse_req_t req, const char *name);
/* Whether the request is from the announcing thread. */
bool announcer_sent(struct announcer *announcer, fuse_req_t req);
/* Whether the name of this node is to be denied to the sender. */
bool announcer_hides(struct announcer *announcer, fuse_req_t req, const struct node *node);
/* The announcing thread makes the node: whether that is to be answered with what is there. */
bool announcer_makes(struct announcer *announcer, fuse_req_t req, const struct node *node);

/*
 * For requests of the announcing thread alone. A name that it looks up in a state/ is that of the
 * document whose turn it is: 0 and *node, also if the document is gone; or -ENOENT, since it is to
 * be made.
 */
int announcer_document(struct announcer *announcer, const struct node *directory,
                       struct node *node);
/* Whether the document whose turn it is, *node, is to be told to have changed so. What was
 * overtaken is not. */
bool announcer_tells(struct announcer *announcer, enum hl_change change, struct node *node);

/* Whether the name in sessions/ is that of the session that is to be told to be gone: *node. */
bool announcer_ends(struct announcer *announcer, const char *name, struct node *node);

struct announcer_counts {
    uint64_t told, waiting, skipped;
};
void announcer_counts(struct announcer *announcer, struct announcer_counts *counts);
/* The members "announcing" and "announcements_…" of .status. */
void announcer_status(struct announcer *announcer, struct json_writer *writer);

/* ---- news.c: what waits to be told ------------------------------------------------------------
 */

struct news_queue;

/* One thing to tell. */
enum news_kind { NEWS_SESSION, NEWS_RECORD, NEWS_DOCUMENT, NEWS_GONE };
struct news_item {
    enum news_kind
        kind; /* of a session that it was made, or is gone; of a record that it was made */
    uint32_t session;
    uint64_t number;        /* a record's seq, a document's number */
    enum hl_change change;  /* of a document */
    _Atomic bool overtaken; /* the document was changed by files since, of which the kernel told */
    char name[NODE_NAME_MAX + 1]; /* of a session that is gone */
};
#define NEWS_TAKEN_MAX 32 /* items taken and not told yet */

struct news_queue *news_queue_new(size_t most);
void news_queue_free(struct news_queue *queue);
/* Adds news, and skips the oldest beyond what may wait. Returns whether there was nothing before.
 */
bool news_queue_add(struct news_queue *queue, const struct hl_news *news);
/* Adds that a session of that name is gone. Returns as news_queue_add(). */
bool news_queue_gone(struct news_queue *queue, uint32_t session, const char *name);
/* Takes the oldest. False: there is none. Calls the store; with none of the caller's locks held.
 * What was taken stays where it is until news_queue_told(), since it may be overtaken. */
bool news_queue_take(struct news_queue *queue, struct hl_store *store, struct news_item *item);
/* All that was taken was told, or will not be. */
void news_queue_told(struct news_queue *queue);
/* Skips all that waits. */
void news_queue_skip(struct news_queue *queue);
/* How many wait, with those that were taken and not told yet, and how many were skipped. */
void news_queue_counts(struct news_queue *queue, uint64_t *waiting, uint64_t *skipped);

#endif
