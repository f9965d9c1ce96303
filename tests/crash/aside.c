/* aside.c - see aside.h. */
#include "aside.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct bytes *read_file(int dir, const char *name)
{
    struct stat st;
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        abort();
    struct bytes *content = bytes_new((size_t)st.st_size);
    if (pread(fd, content->at, content->size, 0) != (ssize_t)content->size)
        abort();
    close(fd);
    return content;
}

static bool has_suffix(const char *name, const char *suffix)
{
    size_t len = strlen(name), behind = strlen(suffix);
    return len >= behind && strcmp(name + len - behind, suffix) == 0;
}

/* 00000001-00000001.0.seg.00000400-00000420.bytes, or a segment, perhaps with a number behind. */
static void take_file(struct aside *aside, int dir, const char *name)
{
    const char *end = strstr(name, ".seg");
    uint64_t offset = 0;
    bool whole = !has_suffix(name, ".bytes");
    if (!end || has_suffix(name, ".note") || has_suffix(name, ".tmp") || aside->count == ASIDE_MAX)
        return;
    if (!whole && sscanf(end, ".seg.%" SCNx64 "-", &offset) != 1)
        return;
    size_t len = (size_t)(end + 4 - name);
    if (len >= sizeof aside->at[0].segment)
        return;
    snprintf(aside->at[aside->count].segment, sizeof aside->at[0].segment, "%.*s", (int)len, name);
    aside->at[aside->count].whole = whole;
    aside->at[aside->count].offset = offset;
    aside->at[aside->count++].content = read_file(dir, name);
}

void aside_take(struct aside *aside, const char *dir)
{
    static const char *const folders[] = {"quarantine", "backup"};
    char path[400];
    aside->count = 0;
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, folders[i]);
        DIR *d = opendir(path);
        const struct dirent *entry;
        while (d && (entry = readdir(d)) != NULL)
            take_file(aside, dirfd(d), entry->d_name);
        if (d)
            closedir(d);
    }
}

void aside_free(struct aside *aside)
{
    while (aside->count > 0)
        bytes_drop(aside->at[--aside->count].content);
}

static bool holds(const struct bytes *content, uint64_t offset, const struct bytes *part)
{
    return content && offset + part->size <= content->size &&
           memcmp(content->at + offset, part->at, part->size) == 0;
}

bool tree_keeps(const struct tree *tree, struct bytes *content)
{
    static const char *const folders[] = {"d/log", "d/backup", "d/quarantine"};
    uint32_t parent;
    const char *last;
    if (content->size == 0)
        return true;
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        uint32_t folder = tree_walk(tree, 0, folders[i], &parent, &last);
        for (size_t k = 0; folder != NO_NODE && k < tree->nodes[folder].count; k++) {
            const struct node *file = &tree->nodes[tree->nodes[folder].names[k].node];
            if (!file->directory && file->content && file->content->size == content->size &&
                holds(file->content, 0, content))
                return true;
        }
    }
    return false;
}

const char *aside_missing(const struct aside *aside, const struct tree *tree)
{
    uint32_t parent;
    const char *last;
    uint32_t log = tree_walk(tree, 0, "d/log", &parent, &last);
    uint32_t quarantine = tree_walk(tree, 0, "d/quarantine", &parent, &last);
    for (size_t i = 0; i < aside->count; i++) {
        struct bytes *part = aside->at[i].content;
        if (aside->at[i].whole) {
            if (!tree_keeps(tree, part))
                return aside->at[i].segment;
            continue;
        }
        uint32_t segment = log == NO_NODE ? NO_NODE : tree_find(tree, log, aside->at[i].segment);
        bool found =
            segment != NO_NODE && holds(tree->nodes[segment].content, aside->at[i].offset, part);
        for (size_t k = 0; quarantine != NO_NODE && !found && k < tree->nodes[quarantine].count;
             k++) {
            const struct name *name = &tree->nodes[quarantine].names[k];
            const struct bytes *content = tree->nodes[name->node].content;
            found = strstr(name->text, ".bytes") && content && content->size == part->size &&
                    holds(content, 0, part);
        }
        if (!found)
            return aside->at[i].segment;
    }
    return NULL;
}

static const char *holding(const struct tree *tree, uint32_t at, const char *text)
{
    const struct node *directory = &tree->nodes[at];
    for (size_t i = 0; i < directory->count; i++) {
        const struct name *name = &directory->names[i];
        const struct node *node = &tree->nodes[name->node];
        const char *found = NULL;
        if (node->directory)
            found = holding(tree, name->node, text);
        else if (node->content &&
                 memmem(node->content->at, node->content->size, text, strlen(text)))
            found = name->text;
        if (found)
            return found;
    }
    return NULL;
}

const char *tree_holding(const struct tree *tree, const char *text)
{
    return holding(tree, 0, text);
}
