/*
 * teller.h - the thread that makes what the announcer orders, through the mount.
 *
 * Nothing else that the daemon does goes through its own mount. The thread has descriptors of its
 * own, without the device and without the store's, so that the daemon can be killed whatever the
 * thread waits for; so it calls no store, and is ordered all that it needs to know.
 *
 * The request handlers know the thread by the id that its requests come with, which it finds out by
 * a look-up of a secret name; they deny it what it is about to make, and answer the making with
 * what is there.
 */
#ifndef HL_TELLER_H
#define HL_TELLER_H

#include "announce.h"

#define TURN_ITEMS NEWS_TAKEN_MAX

/* Something to tell, with the names of its session in sessions/ and of its document in state/. */
struct order {
    struct news_item item;
    char name[NODE_NAME_MAX + 1];
    char key[NODE_NAME_MAX + 1];
};

/* What the thread does in one go, with the mount in use meanwhile. */
struct turn {
    size_t count;
    struct order orders[TURN_ITEMS];
    const char *why_not; /* its answer: NULL, or why nothing can be told now */
};

struct teller;

struct teller *teller_new(const char *mountpoint); /* which must outlive it. NULL: no memory */
void teller_free(struct teller *teller);           /* ends it first; NULL is fine */

/* Starts the thread; device is the mount's number. From one thread, as are the three below. */
int teller_start(struct teller *teller, dev_t device);
/* Has a turn performed. NULL, or why nothing can be told. The first one, which may be empty, finds
 * out whether anything can. */
const char *teller_tell(struct teller *teller, struct turn *turn);
/* Ends the thread. */
void teller_end(struct teller *teller);
/* Cuts the turn under way, and all that follow, short; from any thread. */
void teller_hurry(struct teller *teller);

void teller_counts(struct teller *teller, uint64_t *told, uint64_t *failed);

/* As announcer_is_asked() and the like. */
bool teller_is_asked(struct teller *teller, fuse_req_t req, const char *name);
bool teller_sent(struct teller *teller, fuse_req_t req);
bool teller_hides(struct teller *teller, fuse_req_t req, const struct node *node);
bool teller_makes(struct teller *teller, fuse_req_t req, const struct node *node);
int teller_document(struct teller *teller, const struct node *directory, struct node *node);
bool teller_ends(struct teller *teller, const char *name, struct node *node);
bool teller_tells(struct teller *teller, enum hl_change change, struct node *node);

#endif
