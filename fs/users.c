/*
 * users.c - what the open files of users take of the daemon.
 *
 * A user is known while something of his is open, or a scratch file is there.
 */
#include "users.h"

#include <errno.h>
#include <stdlib.h>

#include "fs_internal.h"

#define CHAINS 64 /* a power of two */
#define HELD_MAX (UINT64_C(64) << 20)

struct users {
    pthread_mutex_t lock; /* guards the chains and the references; a leaf */
    struct user *chains[CHAINS];
};

struct users *users_new(void)
{
    struct users *users = calloc(1, sizeof *users);
    if (users)
        pthread_mutex_init(&users->lock, NULL);
    return users;
}

void users_free(struct users *users)
{
    if (!users)
        return;
    for (size_t i = 0; i < CHAINS; i++) {
        struct user *next;
        for (struct user *user = users->chains[i]; user; user = next) {
            next = user->next;
            free(user);
        }
    }
    pthread_mutex_destroy(&users->lock);
    free(users);
}

struct user *user_enter(struct fs *fs, uid_t uid)
{
    struct users *users = fs->users;

    if (!users)
        return NULL;
    pthread_mutex_lock(&users->lock);
    struct user **chain = &users->chains[uid & (CHAINS - 1)], *user = *chain;
    while (user && user->uid != uid)
        user = user->next;
    if (!user) {
        user = calloc(1, sizeof *user);
        if (user) {
            user->uid = uid;
            user->next = *chain;
            *chain = user;
        }
    }
    if (user)
        user->references++;
    pthread_mutex_unlock(&users->lock);
    return user;
}

struct user *user_again(struct fs *fs, struct user *user)
{
    if (user) {
        pthread_mutex_lock(&fs->users->lock);
        user->references++;
        pthread_mutex_unlock(&fs->users->lock);
    }
    return user;
}

void user_leave(struct fs *fs, struct user *user)
{
    if (!user)
        return;
    pthread_mutex_lock(&fs->users->lock);
    if (--user->references == 0) {
        struct user **at = &fs->users->chains[user->uid & (CHAINS - 1)];
        while (*at != user)
            at = &(*at)->next;
        *at = user->next;
        free(user);
    }
    pthread_mutex_unlock(&fs->users->lock);
}

/* ---- bounds -----------------------------------------------------------------------------------
 */

struct bound {
    const char *option;
    uint64_t most;
};

static struct bound bound_of_all(const struct fs *fs, enum share share)
{
    switch (share) {
    case SHARE_SCRATCH:
        return (struct bound){"scratch_max", fs->options->scratch_max};
    case SHARE_HELD:
        return (struct bound){"what is held", HELD_MAX};
    case SHARE_FILES:
        return (struct bound){NULL, UINT64_MAX};
    default:
        return (struct bound){"pieces_max", fs->options->pieces_max};
    }
}

static struct bound bound_of_user(const struct fs *fs, enum share share)
{
    if (!fs->options->allow_other)
        return (struct bound){NULL, UINT64_MAX};
    switch (share) {
    case SHARE_SCRATCH:
        return (struct bound){"user_scratch_max", fs->options->user_scratch_max};
    case SHARE_HELD:
        return (struct bound){"what is held", HELD_MAX / 2};
    case SHARE_FILES:
        return (struct bound){"user_files_max", fs->options->user_files_max};
    default:
        return (struct bound){"user_pieces_max", fs->options->user_pieces_max};
    }
}

static bool add_within(_Atomic uint64_t *used, uint64_t most, size_t amount)
{
    uint64_t before = atomic_load(used);
    do {
        if (amount > most || before > most - amount)
            return false;
    } while (!atomic_compare_exchange_weak(used, &before, before + amount));
    return true;
}

enum taken share_take(struct fs *fs, struct user *user, enum share share, size_t amount)
{
    if (user && !add_within(&user->used[share], bound_of_user(fs, share).most, amount))
        return OVER_USER;
    if (add_within(&fs->used[share], bound_of_all(fs, share).most, amount))
        return TAKEN;
    if (user)
        atomic_fetch_sub(&user->used[share], amount);
    return OVER_ALL;
}

void share_give(struct fs *fs, struct user *user, enum share share, size_t amount)
{
    atomic_fetch_sub(&fs->used[share], amount);
    if (user)
        atomic_fetch_sub(&user->used[share], amount);
}

int share_refuse(const struct fs *fs, const struct user *user, enum share share, enum taken why,
                 const char *what, struct hl_error *err)
{
    int code = share == SHARE_SCRATCH ? ENOSPC : share == SHARE_FILES ? EMFILE : ENOBUFS;

    if (why == OVER_USER && user) {
        struct bound bound = bound_of_user(fs, share);
        if (share == SHARE_FILES)
            return hl_fail(err, code,
                           "user %u has as many files open as user_files_max lets him (%llu)",
                           (unsigned)user->uid, (unsigned long long)bound.most);
        return hl_fail(err, code, "%s of user %u would take more than %s (%llu bytes)", what,
                       (unsigned)user->uid, bound.option, (unsigned long long)bound.most);
    }
    struct bound bound = bound_of_all(fs, share);
    return hl_fail(err, code, "%s would take more than %s (%llu bytes)", what, bound.option,
                   (unsigned long long)bound.most);
}
