/*
 * follow_internal.h - what the files of `follow` share.
 *
 *   follow.c        open files: reads that find something, and reads that wait
 *   follow_list.c   who waits, who polls, and for which session
 *   follow_waker.c  the thread that answers those who wait
 *   follow_read.c   what a follower reads next
 *
 *   ready     a read finds records: it is answered by the thread that took it
 *   waiting   it finds none: the request lies in the list, by deadline, and is of its follower
 *   answered  by the waker: with records when there is news of the session, with an empty line when
 *             the reader was interrupted or the kernel would lose patience, or with end of file
 *
 * No news is missed: each counts its session's `news` up after the records can be read; a read
 * remembers the count before it looks, and waits only if it is still the same.
 *
 * Locks, outermost first: a follower's, which is held while its read is answered, so that its
 * records go out in order; the library's of a request; follow->lock, a leaf.
 */
#ifndef HL_FOLLOW_INTERNAL_H
#define HL_FOLLOW_INTERNAL_H

#include "follow.h"

#define FOLLOW_BUCKETS 256

struct waiting {
    struct follow *follow;
    struct follower *follower;
    fuse_req_t req;
    size_t size;
    uint64_t deadline; /* fs_tick_ms(); 0: none */
    bool interrupted, listed;
    struct waiting *previous, *next;
};

struct follower {
    struct handle base;
    struct followed *of;
    struct follower *next_of;     /* guarded by follow->lock, as are the next three */
    struct fuse_pollhandle *poll; /* whom to tell of news, or NULL */
    unsigned pins;                /* it is in use */
    bool released;                /* and is to free it then */
    bool told;                    /* that the file ends */
    pthread_mutex_t lock;         /* guards place */
    struct follow_place place;
};

/* A session that has followers. Guarded by follow->lock. */
struct followed {
    uint32_t session;
    uint64_t news;
    bool gone;    /* the session was deleted */
    bool pending; /* in the list of those with news that is not dealt with */
    size_t waiting, polls;
    struct follower *followers;
    struct followed *next, *next_pending;
};

struct follow {
    struct fs *fs;
    _Atomic size_t count; /* of open handles */
    pthread_mutex_t lock; /* guards all below; a leaf */
    uint64_t patience_ms; /* how long a request may wait; 0: for ever */
    pthread_cond_t wake;
    struct followed *buckets[FOLLOW_BUCKETS];
    struct followed *pending, **pending_end;
    struct waiting *first, *last;
    size_t interrupted; /* how many of them */
    size_t untold;      /* followers that were not told that the file ends */
    bool started, stopping;
    pthread_t thread;
    char *block; /* the waker's own */
    size_t block_size;
};

/* ---- follow_list.c: follow->lock is held, but where it says otherwise ---- */

/* Where the session's entry is, or is to be put. */
struct followed **follow_find(struct follow *follow, uint32_t session);
void follow_set_pending(struct follow *follow, struct followed *followed);
void follow_unset_pending(struct follow *follow, struct followed *followed);
/* Puts a request in the list, which pins its follower, or takes it out, which does not unpin him.
 */
void follow_wait(struct follow *follow, struct waiting *waiting);
void follow_unwait(struct follow *follow, struct waiting *waiting);
void follow_set_told(struct follow *follow, struct follower *follower);
/* Takes a follower that nobody uses any more out of its session. */
void follower_leave(struct follow *follow, struct follower *follower);
/* Frees him after that; the lock is not held. */
void follower_free(struct follow *follow, struct follower *follower);
/* Lets go of a follower that was pinned; the lock is not held. */
void follower_unpin(struct follow *follow, struct follower *follower);
void follow_drop_poll(struct fuse_pollhandle *poll); /* NULL is fine; the lock does not matter */

/* ---- follow_waker.c ---- */

/* Starts the thread if there is none; 0 or a negative errno. follow->lock is held. */
int follow_start_waker(struct follow *follow);
/* Answers, with bytes or a negative errno; the request is gone after it, and `waiting` freed. Not
 * 0: nobody took the answer. No lock is held but the follower's. */
int follow_answer(struct waiting *waiting, const char *bytes, ssize_t len);

#endif
