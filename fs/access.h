/*
 * access.h - who asks, and whether permission bits let him.
 *
 * The kernel checks them too (default_permissions), but by what it has cached; an open of a
 * session's file is checked here by what the bits are now, and root `append` checks each session
 * that its lines name.
 */
#ifndef HL_ACCESS_H
#define HL_ACCESS_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <stddef.h>

#define ACCESS_READ 4U
#define ACCESS_WRITE 2U

struct caller {
    uid_t uid;
    gid_t gid;
    gid_t *groups; /* supplementary ones; may be NULL */
    size_t group_count;
};

/* Who sent the request. With groups, his supplementary ones are read from the system; when they
 * cannot be (he is gone, or in a pid namespace that is out of sight) he has none, which only ever
 * refuses more. */
void caller_from_request(struct caller *caller, fuse_req_t req, bool groups);
void caller_free(struct caller *caller);

/* Whether the bits of something owned by uid and gid give the caller all that is wanted. uid 0 may
 * all. */
bool caller_may(const struct caller *caller, uid_t uid, gid_t gid, mode_t mode, unsigned wanted);

/* The same for the sender of a request; his groups are looked up only if they decide. */
bool request_may(fuse_req_t req, uid_t uid, gid_t gid, mode_t mode, unsigned wanted);

#endif
