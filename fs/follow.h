/*
 * follow.h - `follow`: a file whose end is waited for.
 *
 * An open stands at the end that its session has then. A read gives the records that came since,
 * whole lines where they fit; when there are none the request is put aside, and one thread answers
 * those put aside when news of their session comes. So any number may wait, and none costs a
 * thread.
 */
#ifndef HL_FOLLOW_H
#define HL_FOLLOW_H

#include "fs_internal.h"

struct follow;

struct follow *follow_new(struct fs *fs);
/*
 * All that waits gets end of file, as does every read from now on. Unless requests are answered no
 * more (`ended`) those who were just not waiting have a moment to ask. NULL is fine, as is again.
 */
void follow_stop(struct follow *follow, bool ended);
/* After the last handle was released. NULL is fine. */
void follow_free(struct follow *follow);

/*
 * Learns for how long the kernel lets a request wait, before it would end the mount. To be called
 * while the connection is made: what the administrator sets later holds for later mounts.
 */
void follow_learn_limit(struct follow *follow);

/* Records came to a session. Cheap; from any thread. */
void follow_news(struct follow *follow, uint32_t session);

/* The session is gone: its files end. Likewise. */
void follow_gone(struct follow *follow, uint32_t session);
/* Looks whether sessions are gone that have followers. */
void follow_look(struct follow *follow);

size_t follow_count(struct follow *follow); /* open handles */

/* 0 and *handle, or a negative errno. */
int follow_open(struct fs *fs, const struct node *node, uid_t uid, struct handle **handle);
/* Answers an open. The library that we build with cannot say that the file is a stream; without
 * it, readers that share one open file would lock each other out. */
int follow_reply_open(fuse_req_t req, const struct fuse_file_info *fi);

/* ---- follow_read.c ----------------------------------------------------------------------------
 */

/* Where a follower stands: it has had all records below next, and offset bytes of the one there. */
struct follow_place {
    struct user *user; /* for whom lines are held */
    uint64_t next;
    uint64_t offset;
    char *line; /* all of a long line that is read in pieces, or NULL */
    uint32_t line_length;
};

/*
 * Reads on, into buffer: whole lines, or a piece of one that is longer than size. Returns the
 * bytes (0: nothing there yet) and moves the place behind them, or a negative errno.
 */
ssize_t follow_read(struct fs *fs, uint32_t session, struct follow_place *place, char *buffer,
                    size_t size);
/* Whether a read would give something. */
bool follow_ready(struct fs *fs, uint32_t session, const struct follow_place *place);
/* Lets go of what the place holds. */
void follow_place_free(struct fs *fs, struct follow_place *place);

#endif
