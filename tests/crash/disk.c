/* disk.c - see disk.h. */
#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR 512U
#define PAGE 4096U

static void *must(void *memory)
{
    if (!memory) {
        fprintf(stderr, "out of memory\n");
        abort();
    }
    return memory;
}

/* ---- bytes ---- */

struct bytes *bytes_new(size_t size)
{
    struct bytes *bytes = must(calloc(1, sizeof *bytes + size));
    bytes->references = 1;
    bytes->size = size;
    return bytes;
}

struct bytes *bytes_copy(const void *data, size_t size)
{
    struct bytes *bytes = must(malloc(sizeof *bytes + size));
    *bytes = (struct bytes){.references = 1, .size = size};
    if (size)
        memcpy(bytes->at, data, size);
    return bytes;
}

struct bytes *bytes_keep(struct bytes *bytes)
{
    if (bytes)
        bytes->references++;
    return bytes;
}

void bytes_drop(struct bytes *bytes)
{
    if (bytes && --bytes->references == 0)
        free(bytes);
}

uint64_t hash_mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 29;
}

uint64_t bytes_hash(struct bytes *bytes)
{
    if (!bytes)
        return 1;
    if (!bytes->hashed) {
        uint64_t hash = hash_mix(2, bytes->size), word;
        size_t at = 0;
        for (; at + 8 <= bytes->size; at += 8) {
            memcpy(&word, bytes->at + at, 8);
            hash = hash_mix(hash, word);
        }
        word = 0;
        memcpy(&word, bytes->at + at, bytes->size - at);
        bytes->hash = hash_mix(hash_mix(hash, word), (uint64_t)bytes->written_ns);
        bytes->hashed = true;
    }
    return bytes->hash;
}

/* ---- names ---- */

const char *intern(const char *text)
{
    static char **known;
    static size_t count, capacity;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(known[i], text) == 0)
            return known[i];
    }
    if (count == capacity) {
        capacity = capacity ? 2 * capacity : 64;
        known = must(realloc(known, capacity * sizeof *known));
    }
    return known[count++] = must(strdup(text));
}

/* ---- trees ---- */

void tree_init(struct tree *tree)
{
    *tree = (struct tree){.count = 0};
    tree_add(tree, true);
}

void tree_copy(struct tree *to, const struct tree *from)
{
    to->count = from->count;
    to->nodes = must(malloc(from->count * sizeof *to->nodes));
    for (size_t i = 0; i < from->count; i++) {
        const struct node *node = &from->nodes[i];
        to->nodes[i] = *node;
        bytes_keep(node->content);
        if (node->count) {
            to->nodes[i].names = must(malloc(node->count * sizeof *node->names));
            memcpy(to->nodes[i].names, node->names, node->count * sizeof *node->names);
        } else {
            to->nodes[i].names = NULL;
        }
    }
}

void tree_free(struct tree *tree)
{
    for (size_t i = 0; i < tree->count; i++) {
        bytes_drop(tree->nodes[i].content);
        free(tree->nodes[i].names);
    }
    free(tree->nodes);
    *tree = (struct tree){.count = 0};
}

/* Makes room for the node, which may have a number that a recording gave. */
static void reach(struct tree *tree, uint32_t node)
{
    if (node < tree->count)
        return;
    tree->nodes = must(realloc(tree->nodes, ((size_t)node + 1) * sizeof *tree->nodes));
    for (size_t i = tree->count; i <= node; i++)
        tree->nodes[i] = (struct node){.directory = false};
    tree->count = (size_t)node + 1;
}

uint32_t tree_add(struct tree *tree, bool directory)
{
    uint32_t node = (uint32_t)tree->count;
    reach(tree, node);
    tree->nodes[node].directory = directory;
    return node;
}

uint32_t tree_find(const struct tree *tree, uint32_t directory, const char *name)
{
    const struct node *node = &tree->nodes[directory];
    for (size_t i = 0; i < node->count; i++) {
        if (node->names[i].text == name || strcmp(node->names[i].text, name) == 0)
            return node->names[i].node;
    }
    return NO_NODE;
}

uint32_t tree_walk(const struct tree *tree, uint32_t from, const char *path, uint32_t *parent,
                   const char **last)
{
    char part[256];
    uint32_t at = from;
    *parent = NO_NODE;
    *last = NULL;
    while (*path) {
        size_t len = strcspn(path, "/");
        if (len == 0) {
            path++;
            continue;
        }
        if (at == NO_NODE || len >= sizeof part)
            return *parent = NO_NODE;
        memcpy(part, path, len);
        part[len] = 0;
        path += len;
        if (strcmp(part, ".") == 0)
            continue;
        *parent = at;
        *last = intern(part);
        at = tree->nodes[at].directory ? tree_find(tree, at, part) : NO_NODE;
    }
    return at;
}

void tree_set(struct tree *tree, uint32_t directory, const char *name, uint32_t target)
{
    struct node *node = &tree->nodes[directory];
    name = intern(name);
    size_t i = 0;
    while (i < node->count && strcmp(node->names[i].text, name) < 0)
        i++;
    if (i == node->count || node->names[i].text != name) {
        node->names = must(realloc(node->names, (node->count + 1) * sizeof *node->names));
        memmove(node->names + i + 1, node->names + i, (node->count - i) * sizeof *node->names);
        node->count++;
    }
    node->names[i] = (struct name){name, target};
}

void tree_remove(struct tree *tree, uint32_t directory, const char *name)
{
    struct node *node = &tree->nodes[directory];
    for (size_t i = 0; i < node->count; i++) {
        if (strcmp(node->names[i].text, name) == 0) {
            node->count--;
            memmove(node->names + i, node->names + i + 1, (node->count - i) * sizeof *node->names);
            return;
        }
    }
}

void tree_fill(struct tree *tree, uint32_t file, struct bytes *content)
{
    bytes_drop(tree->nodes[file].content);
    tree->nodes[file].content = content;
}

struct hashing {
    uint32_t *seen;
    size_t count;
};

static uint64_t hash_node(const struct tree *tree, uint32_t at, struct hashing *hashing)
{
    const struct node *node = &tree->nodes[at];
    for (size_t i = 0; i < hashing->count; i++) {
        if (hashing->seen[i] == at)
            return hash_mix(7, i); /* another name of the same file */
    }
    hashing->seen[hashing->count++] = at;
    if (!node->directory)
        return bytes_hash(node->content);
    uint64_t hash = 3;
    for (size_t i = 0; i < node->count; i++) {
        for (const char *c = node->names[i].text; *c; c++)
            hash = hash_mix(hash, (uint8_t)*c);
        hash = hash_mix(hash, hash_node(tree, node->names[i].node, hashing));
    }
    return hash;
}

uint64_t tree_hash(const struct tree *tree)
{
    struct hashing hashing = {.seen = must(malloc(tree->count * sizeof(uint32_t)))};
    uint64_t hash = hash_node(tree, 0, &hashing);
    free(hashing.seen);
    return hash;
}

struct writing {
    const struct tree *tree;
    char **path; /* by node: where it was written, for its other names */
};

static bool write_file(int directory, const char *name, const struct bytes *content)
{
    int fd = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    bool good = true;
    if (content && content->size)
        good = pwrite(fd, content->at, content->size, 0) == (ssize_t)content->size;
    if (content && content->written_ns) {
        struct timespec times[2] = {{.tv_nsec = UTIME_OMIT},
                                    {.tv_sec = content->written_ns / 1000000000,
                                     .tv_nsec = content->written_ns % 1000000000}};
        good = good && futimens(fd, times) == 0;
    }
    close(fd);
    return good;
}

static bool write_directory(struct writing *writing, uint32_t at, const char *path)
{
    const struct node *node = &writing->tree->nodes[at];
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool good = fd >= 0;
    for (size_t i = 0; good && i < node->count; i++) {
        const struct name *name = &node->names[i];
        const struct node *child = &writing->tree->nodes[name->node];
        char below[1024];
        snprintf(below, sizeof below, "%s/%s", path, name->text);
        if (child->directory) {
            good =
                mkdirat(fd, name->text, 0700) == 0 && write_directory(writing, name->node, below);
        } else if (writing->path[name->node]) {
            good = link(writing->path[name->node], below) == 0;
        } else {
            good = write_file(fd, name->text, child->content);
            writing->path[name->node] = must(strdup(below));
        }
    }
    if (fd >= 0)
        close(fd);
    return good;
}

bool tree_write(const struct tree *tree, const char *path)
{
    struct writing writing = {tree, must(calloc(tree->count, sizeof(char *)))};
    bool good = write_directory(&writing, 0, path);
    int error = errno;
    for (size_t i = 0; i < tree->count; i++)
        free(writing.path[i]);
    free(writing.path);
    errno = error;
    return good;
}

/* ---- changes applied to a tree ---- */

/* The content, to be written to: the tree's own, of at least this size. */
static struct bytes *own(struct tree *tree, uint32_t file, size_t size, bool exact)
{
    struct bytes *old = tree->nodes[file].content;
    size_t had = old ? old->size : 0;
    size_t want = exact || size > had ? size : had;
    if (old && old->references == 1 && had == want) {
        old->hashed = false;
        return old;
    }
    struct bytes *new = bytes_new(want);
    if (old) {
        memcpy(new->at, old->at, had < want ? had : want);
        new->written_ns = old->written_ns;
    }
    tree_fill(tree, file, new);
    return new;
}

/* The file's pages are written back one by one: one of them was not. */
static void write_but_one(struct bytes *content, const struct call *call, uint64_t chance)
{
    uint64_t end = call->offset + call->data->size, first = call->offset / PAGE;
    uint64_t pages = (end + PAGE - 1) / PAGE - first, lost = first + (pages ? chance % pages : 0);
    for (uint64_t at = call->offset; at < end;) {
        uint64_t next = (at / PAGE + 1) * PAGE;
        if (next > end)
            next = end;
        if (at / PAGE != lost)
            memcpy(content->at + at, call->data->at + (at - call->offset), next - at);
        at = next;
    }
}

static void write_part(struct tree *tree, const struct call *call, const struct fate *fate)
{
    const struct bytes *data = call->data;
    size_t from = 0, to = data->size;
    bool sized = fate->kind != FATE_HEAD;
    if ((fate->kind == FATE_HEAD || fate->kind == FATE_SIZED) && fate->amount < to)
        to = fate->amount;
    if (fate->kind == FATE_TAIL)
        from = fate->amount < to ? fate->amount : to;
    if (to == 0 && !sized)
        return;
    struct bytes *content =
        own(tree, call->node, (size_t)call->offset + (sized ? data->size : to), false);
    if (data->written_ns) /* its time may have come, whatever did not */
        content->written_ns = data->written_ns;
    if (fate->kind == FATE_PAGES) {
        write_but_one(content, call, fate->amount);
        return;
    }
    if (fate->kind != FATE_SECTORS) {
        memcpy(content->at + call->offset + from, data->at + from, to - from);
        return;
    }
    uint64_t end = call->offset + data->size, chance = fate->amount;
    for (uint64_t at = call->offset; at < end;) {
        uint64_t next = (at / SECTOR + 1) * SECTOR;
        if (next > end)
            next = end;
        chance = hash_mix(chance, at);
        if (chance >> 40 & 1)
            memcpy(content->at + at, data->at + (at - call->offset), next - at);
        at = next;
    }
}

/* A whole content whose pages came in part: of those that it has, such as chance has it. */
static void mix_pages(struct tree *tree, const struct call *call, uint64_t chance)
{
    struct bytes *content = own(tree, call->node, call->data->size, true);
    content->written_ns = call->data->written_ns; /* its time may have come, and its size */
    for (size_t at = 0; at < call->data->size; at += PAGE) {
        size_t len = call->data->size - at < PAGE ? call->data->size - at : PAGE;
        chance = hash_mix(chance, at);
        if (chance >> 40 & 1)
            memcpy(content->at + at, call->data->at + at, len);
    }
}

/* Carries out a change of names, as far as it concerns this directory (or any, NO_NODE) and was not
 * before. */
static void apply_names(struct tree *tree, const struct change *change, uint32_t only)
{
    const struct call *call = &change->call;
    bool same = call->directory == call->to_directory;
    switch (call->kind) {
    case CALL_MAKE:
    case CALL_LINK:
        tree_set(tree, call->directory, call->name, call->node);
        break;
    case CALL_REMOVE:
        tree_remove(tree, call->directory, call->name);
        break;
    case CALL_RENAME:
        if ((only == NO_NODE || only == call->directory) && !change->left &&
            tree_find(tree, call->directory, call->name) == call->node)
            tree_remove(tree, call->directory, call->name);
        if ((only == NO_NODE || only == call->to_directory || same) && !change->arrived)
            tree_set(tree, call->to_directory, call->to_name, call->node);
        break;
    default:
        break;
    }
}

static bool is_of_names(enum call_kind kind)
{
    return kind == CALL_MAKE || kind == CALL_LINK || kind == CALL_REMOVE || kind == CALL_RENAME;
}

static void apply(struct tree *tree, const struct change *change, const struct fate *fate)
{
    const struct call *call = &change->call;
    if (fate->kind == FATE_LOST)
        return;
    if (call->kind == CALL_WRITE) {
        write_part(tree, call, fate);
    } else if (call->kind == CALL_TRUNCATE) {
        own(tree, call->node, (size_t)call->offset, true);
    } else if (call->kind == CALL_CONTENT) {
        if (fate->kind == FATE_KEPT)
            tree_fill(tree, call->node, bytes_keep(call->data));
        else
            mix_pages(tree, call, fate->amount);
    } else {
        apply_names(tree, change, NO_NODE);
    }
}

/* ---- the disk ---- */

void disk_init(struct disk *disk, const struct tree *tree)
{
    *disk = (struct disk){.count = 0};
    tree_copy(&disk->synced, tree);
}

void disk_free(struct disk *disk)
{
    tree_free(&disk->synced);
    free(disk->pending);
    *disk = (struct disk){.count = 0};
}

static void forget(struct disk *disk, size_t at)
{
    disk->count--;
    memmove(disk->pending + at, disk->pending + at + 1, (disk->count - at) * sizeof *disk->pending);
}

static void settle_file(struct disk *disk, uint32_t file, bool brought)
{
    static const struct fate kept = {.kind = FATE_KEPT};
    for (size_t i = 0; i < disk->count;) {
        struct change *change = &disk->pending[i];
        if (is_of_names(change->call.kind) || change->call.node != file) {
            i++;
            continue;
        }
        if (brought)
            apply(&disk->synced, change, &kept);
        forget(disk, i);
    }
}

static void settle_directory(struct disk *disk, uint32_t directory)
{
    for (size_t i = 0; i < disk->count;) {
        struct change *change = &disk->pending[i];
        const struct call *call = &change->call;
        bool from = is_of_names(call->kind) && call->directory == directory;
        bool to = call->kind == CALL_RENAME && call->to_directory == directory;
        if (!from && !to) {
            i++;
            continue;
        }
        /* A file that moves between two directories is in each as that one was synced. */
        bool alone =
            call->kind == CALL_RENAME && from != to && !disk->synced.nodes[call->node].directory;
        apply_names(&disk->synced, change, alone ? directory : NO_NODE);
        change->left = change->left || from;
        change->arrived = change->arrived || to;
        if (alone && !(change->left && change->arrived))
            i++;
        else
            forget(disk, i);
    }
}

void disk_do(struct disk *disk, const struct call *call)
{
    static const struct fate kept = {.kind = FATE_KEPT};
    if (call->kind == CALL_SYNC || call->kind == CALL_SYNC_FAILED) {
        if (!disk->synced.nodes[call->node].directory)
            settle_file(disk, call->node, call->kind == CALL_SYNC);
        else if (call->kind == CALL_SYNC)
            settle_directory(disk, call->node);
        return;
    }
    if (call->kind == CALL_MAKE) {
        reach(&disk->synced, call->node);
        disk->synced.nodes[call->node].directory = call->is_directory;
    }
    if (call->kind == CALL_CONTENT && call->offset == 1) {
        struct change change = {.call = *call};
        settle_file(disk, call->node, true);
        apply(&disk->synced, &change, &kept);
        return;
    }
    if (disk->count == disk->capacity) {
        disk->capacity = disk->capacity ? 2 * disk->capacity : 32;
        disk->pending = must(realloc(disk->pending, disk->capacity * sizeof *disk->pending));
    }
    disk->pending[disk->count++] = (struct change){.call = *call};
}

void disk_cut(const struct disk *disk, const struct fate *fates, struct tree *tree)
{
    tree_copy(tree, &disk->synced);
    for (size_t i = 0; i < disk->count; i++)
        apply(tree, &disk->pending[i], &fates[i]);
}
