/*
 * users.h - what the open files of users take of the daemon: memory, and their number.
 *
 * All users together are bounded (pieces_max, scratch_max), so that nobody fills the memory; and
 * where others are let in (allow_other) so is each of them (user_pieces_max, user_scratch_max,
 * user_files_max), so that nobody misses what another takes. What is taken counts for the user who
 * opened the file, whoever writes to it, and a scratch file for who made it.
 */
#ifndef HL_USERS_H
#define HL_USERS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct fs;
struct hl_error;
struct users;

/* What there is to be shared. */
enum share {
    SHARE_PIECES,  /* bytes of half lines, and of what is being written to documents */
    SHARE_ANSWERS, /* of receipts that nobody read yet */
    SHARE_TEXTS,   /* of .status, meta and last_error, as they were when they were opened */
    SHARE_REFUSED, /* of refused lines that are remembered */
    SHARE_SCRATCH, /* of scratch files */
    SHARE_HELD,    /* of large records that are held while they are read */
    SHARE_FILES,   /* open files; not bounded for all together */
    SHARES
};

struct user {
    uid_t uid;
    unsigned references; /* guarded by the lock of users, as is next */
    struct user *next;
    _Atomic uint64_t used[SHARES];
};

struct users *users_new(void); /* NULL: no memory */
void users_free(struct users *users);

/* The user of that uid, counted until user_leave(); NULL: no memory, or nobody is counted. All
 * below take NULL for a user without bounds of his own. */
struct user *user_enter(struct fs *fs, uid_t uid);
struct user *user_again(struct fs *fs, struct user *user); /* one more reference */
void user_leave(struct fs *fs, struct user *user);

enum taken { TAKEN, OVER_ALL, OVER_USER };
/* Takes bytes, or files, of a share; or says whose bound is in the way, and takes nothing. */
enum taken share_take(struct fs *fs, struct user *user, enum share share, size_t amount);
void share_give(struct fs *fs, struct user *user, enum share share, size_t amount);
/* The errno (negative) and sentence for a bound that was in the way of `what`, such as "the scratch
 * files". */
int share_refuse(const struct fs *fs, const struct user *user, enum share share, enum taken why,
                 const char *what, struct hl_error *err);

#endif
