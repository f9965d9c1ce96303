/*
 * access.c - who asks, and whether permission bits let him.
 */
#include "access.h"

#include <stdlib.h>

/* His groups may change between the call that counts them and the one that gets them. */
#define TRIES 4

static void read_groups(struct caller *caller, fuse_req_t req)
{
    int count = fuse_req_getgroups(req, 0, NULL);

    for (int i = 0; i < TRIES && count > 0; i++) {
        int size = count;
        gid_t *groups = malloc((size_t)size * sizeof *groups);
        if (!groups)
            return;
        count = fuse_req_getgroups(req, size, groups);
        if (count >= 0 && count <= size) {
            caller->groups = groups;
            caller->group_count = (size_t)count;
            return;
        }
        free(groups);
    }
}

void caller_from_request(struct caller *caller, fuse_req_t req, bool groups)
{
    const struct fuse_ctx *context = fuse_req_ctx(req);

    *caller = (struct caller){.uid = context->uid, .gid = context->gid};
    /* Without a pid in sight there is nobody to ask about. */
    if (groups && context->pid != 0)
        read_groups(caller, req);
}

void caller_free(struct caller *caller)
{
    free(caller->groups);
    caller->groups = NULL;
    caller->group_count = 0;
}

static bool in_group(const struct caller *caller, gid_t gid)
{
    if (caller->gid == gid)
        return true;
    for (size_t i = 0; i < caller->group_count; i++) {
        if (caller->groups[i] == gid)
            return true;
    }
    return false;
}

bool caller_may(const struct caller *caller, uid_t uid, gid_t gid, mode_t mode, unsigned wanted)
{
    unsigned bits;

    if (caller->uid == 0)
        return true;
    if (caller->uid == uid)
        bits = mode >> 6;
    else if (in_group(caller, gid))
        bits = mode >> 3;
    else
        bits = mode;
    return (wanted & ~bits & 7U) == 0;
}

bool request_may(fuse_req_t req, uid_t uid, gid_t gid, mode_t mode, unsigned wanted)
{
    struct caller caller;

    caller_from_request(&caller, req, false);
    bool decided = caller.uid == 0 || caller.uid == uid || caller.gid == gid ||
                   (((mode >> 3) ^ mode) & wanted) == 0;
    if (decided)
        return caller_may(&caller, uid, gid, mode, wanted);
    caller_from_request(&caller, req, true);
    bool may = caller_may(&caller, uid, gid, mode, wanted);
    caller_free(&caller);
    return may;
}
