/*
 * xattr.c - user attributes of sessions, and those that records have.
 *
 * Names outside user.* are EOPNOTSUPP, never ENODATA: with ENODATA `ls -l` would ask for each file.
 */
#include "fs_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define USER "user."
#define USER_LEN (sizeof USER - 1)
#define OURS "hotlog." /* below user., ours to give */
#define OURS_LEN (sizeof OURS - 1)

static const char *const record_names[] = {"offset", "segment", "crc32", "recorded_ms"};
#define RECORD_NAMES (sizeof record_names / sizeof *record_names)

/* The name without "user.", or NULL. */
static const char *user_name(const char *name)
{
    return strncmp(name, USER, USER_LEN) == 0 && name[USER_LEN] ? name + USER_LEN : NULL;
}

/* Hands over a value as getxattr(2) has it: its length, and its bytes unless size is 0. */
static ssize_t give(const char *bytes, size_t len, char *value, size_t size)
{
    if (size == 0)
        return (ssize_t)len;
    if (size < len)
        return -ERANGE;
    if (len)
        memcpy(value, bytes, len);
    return (ssize_t)len;
}

static ssize_t record_get(struct fs *fs, const struct node *node, const char *name, char *value,
                          size_t size)
{
    struct hl_record record;
    char text[32];
    size_t which = 0;
    int len;

    if (strncmp(name, OURS, OURS_LEN) != 0)
        return -ENODATA;
    while (which < RECORD_NAMES && strcmp(record_names[which], name + OURS_LEN) != 0)
        which++;
    if (which == RECORD_NAMES)
        return -ENODATA;
    int result = hl_record_find(fs->store, node->session, node->a, &record);
    if (result < 0)
        return result;
    if (which == 2) {
        len = snprintf(text, sizeof text, "%08" PRIx32, record.crc32);
    } else {
        uint64_t number = which == 0   ? record.offset
                          : which == 1 ? record.segment
                                       : record.recorded_ms;
        len = snprintf(text, sizeof text, "%" PRIu64, number);
    }
    return give(text, (size_t)len, value, size);
}

ssize_t node_xattr_get(struct fs *fs, const struct node *node, const char *name, char *value,
                       size_t size)
{
    const char *user = user_name(name);

    if (!user)
        return -EOPNOTSUPP;
    if (node->kind == NODE_SESSION)
        return hl_attribute_get(fs->store, node->session, user, value, size);
    if (node->kind == NODE_RECORD)
        return record_get(fs, node, user, value, size);
    return -ENODATA;
}

/* The store's names are without "user.", each ended with NUL. */
static ssize_t session_list(struct fs *fs, const struct node *node, char *names, size_t size)
{
    char *plain = malloc(HL_ATTRIBUTES_MAX);
    struct text text = {0};

    if (!plain)
        return -ENOMEM;
    ssize_t len = hl_attribute_list(fs->store, node->session, plain, HL_ATTRIBUTES_MAX);
    for (ssize_t at = 0; at < len;) {
        size_t one = strnlen(plain + at, (size_t)(len - at));
        text_add(&text, USER, USER_LEN);
        text_add(&text, plain + at, one);
        text_add(&text, "", 1);
        at += (ssize_t)one + 1;
    }
    free(plain);
    if (len > 0)
        len = text.failed ? -ENOMEM : give(text.at, text.len, names, size);
    text_free(&text);
    return len;
}

static ssize_t record_list(char *names, size_t size)
{
    char all[RECORD_NAMES * 32];
    size_t len = 0;

    for (size_t i = 0; i < RECORD_NAMES; i++)
        len += (size_t)snprintf(all + len, sizeof all - len, USER OURS "%s", record_names[i]) + 1;
    return give(all, len, names, size);
}

ssize_t node_xattr_list(struct fs *fs, const struct node *node, char *names, size_t size)
{
    if (node->kind == NODE_SESSION)
        return session_list(fs, node, names, size);
    if (node->kind == NODE_RECORD)
        return record_list(names, size);
    return 0;
}

/* What set and remove have in common: 0 if they may go on, with *user set. */
static int may_change(struct fs *fs, const struct node *node, const char *name, const char **user)
{
    *user = user_name(name);
    if (!*user)
        return -EOPNOTSUPP;
    if (fs->options->read_only)
        return -EROFS;
    if (node->kind != NODE_SESSION || strncmp(*user, OURS, OURS_LEN) == 0)
        return -EPERM;
    return 0;
}

int node_xattr_set(struct fs *fs, const struct node *node, const char *name, const char *value,
                   size_t size, int flags)
{
    const char *user;
    int result = may_change(fs, node, name, &user);

    if (result < 0)
        return result;
    return hl_attribute_set(fs->store, node->session, user, value, size, flags);
}

int node_xattr_remove(struct fs *fs, const struct node *node, const char *name)
{
    const char *user;
    int result = may_change(fs, node, name, &user);

    if (result < 0)
        return result;
    return hl_attribute_remove(fs->store, node->session, user);
}
