/*
 * disk.h - a disk as a power cut may leave it.
 *
 * A tree is what is on the disk: directories of names, and files of bytes. A disk is such a tree
 * and, in the order of the calls, the changes that were made since and not yet synced: each may be
 * there after a power cut, or not, or in part. It promises no more than a file system must:
 *
 *   - a file's bytes and size are there when the file was synced, and not before;
 *   - a name that was made, renamed, linked or removed is so when its directory was synced: the
 *     sync of a file does not bring its name;
 *   - a rename within a directory is whole or not there. Between two directories, too, but that
 *     after a sync of the new one alone a file may have both names, and after a sync of the old one
 *     alone none;
 *   - what a failed sync was to bring is neither on the disk nor waiting for the next sync.
 *
 * One thread at a time.
 */
#ifndef CRASH_DISK_H
#define CRASH_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- bytes: shared, never changed once they are ---- */

struct bytes {
    unsigned references;
    bool hashed;
    uint64_t hash;
    int64_t written_ns; /* the file's time; 0: of no interest */
    size_t size;
    uint8_t at[];
};

struct bytes *bytes_new(size_t size); /* zeros, one reference */
struct bytes *bytes_copy(const void *data, size_t size);
struct bytes *bytes_keep(struct bytes *bytes);
void bytes_drop(struct bytes *bytes); /* NULL is fine */
uint64_t bytes_hash(struct bytes *bytes);
uint64_t hash_mix(uint64_t hash, uint64_t value);

/* ---- trees ---- */

#define NO_NODE UINT32_MAX

struct name {
    const char *text; /* interned: equal texts are one pointer */
    uint32_t node;
};

struct node {
    bool directory;
    struct bytes *content; /* of a file; NULL: empty */
    struct name *names;    /* of a directory, sorted */
    size_t count;
};

struct tree {
    struct node *nodes; /* 0 is the root */
    size_t count;
};

const char *intern(const char *text);

void tree_init(struct tree *tree); /* an empty root */
void tree_copy(struct tree *to, const struct tree *from);
void tree_free(struct tree *tree);
uint32_t tree_add(struct tree *tree, bool directory); /* a node without a name */
uint32_t tree_find(const struct tree *tree, uint32_t directory, const char *name); /* or NO_NODE */
/* A path of several names. *parent and *last (of PATH's last name) are set if all before is there.
 */
uint32_t tree_walk(const struct tree *tree, uint32_t from, const char *path, uint32_t *parent,
                   const char **last);
void tree_set(struct tree *tree, uint32_t directory, const char *name, uint32_t node);
void tree_remove(struct tree *tree, uint32_t directory, const char *name);
void tree_fill(struct tree *tree, uint32_t file, struct bytes *content); /* takes it over */
uint64_t tree_hash(const struct tree *tree); /* of all that its names reach */
/* Writes it to a directory that is there and empty. False, with errno: it could not be. */
bool tree_write(const struct tree *tree, const char *path);

/* ---- calls, and what they leave on the disk ---- */

enum call_kind {
    CALL_MAKE,        /* node, a directory or an empty file, as directory/name */
    CALL_WRITE,       /* data to a file from offset on */
    CALL_TRUNCATE,    /* a file to a size (offset) */
    CALL_CONTENT,     /* all of a file, at once (LMDB's commits); synced if offset is 1 */
    CALL_SYNC,        /* of a file or a directory */
    CALL_SYNC_FAILED, /* likewise */
    CALL_RENAME,      /* node from directory/name to to_directory/to_name */
    CALL_LINK,        /* node as directory/name */
    CALL_REMOVE,      /* directory/name, which is of node */
};

struct call {
    enum call_kind kind;
    uint32_t node;
    bool is_directory;
    uint32_t directory, to_directory;
    const char *name, *to_name;
    uint64_t offset;
    struct bytes *data;
};

struct change {
    struct call call; /* not its own reference to the data */
    bool left;        /* a rename whose old directory was synced alone, */
    bool arrived;     /* or its new one */
};

struct disk {
    struct tree synced;
    struct change *pending;
    size_t count, capacity;
};

void disk_init(struct disk *disk, const struct tree *tree); /* all of it is synced */
void disk_free(struct disk *disk);
void disk_do(struct disk *disk, const struct call *call);

/* What becomes of a pending change. */
enum fate_kind {
    FATE_LOST,
    FATE_KEPT,
    FATE_HEAD,    /* of a write, the first `amount` bytes */
    FATE_TAIL,    /* all but the first `amount`, which are zeros or what was there */
    FATE_SIZED,   /* the first `amount` bytes, and the size that all would give */
    FATE_SECTORS, /* such sectors as chance (amount) has it, and the size */
    FATE_PAGES,   /* all pages but one, which chance picks, and the size */
};
struct fate {
    enum fate_kind kind;
    uint64_t amount;
};

/* Makes the tree that is there after a power cut; fates has one for each pending change. */
void disk_cut(const struct disk *disk, const struct fate *fates, struct tree *tree);

#endif
