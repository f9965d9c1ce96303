/* backup.c - see backup.h. */
#include "backup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FOLDER "backup"
#define LIST_MAX (UINT64_C(16) << 20) /* bytes of a list that are believed */

/* ---- what there is ---- */

struct entry {
    char name[SEGMENT_NAME_MAX + 16]; /* <segment> or <segment>.<n> */
    uint32_t first;
    uint64_t run; /* 0: no list names it */
};

struct contents {
    struct hl_store *store;
    int dir; /* -1: there is no such directory */
    struct entry *entries;
    size_t count, capacity;
    uint64_t *runs; /* ascending once sorted */
    size_t run_count, run_capacity;
};

static int add_run(struct contents *contents, uint64_t number)
{
    if (contents->run_count == contents->run_capacity) {
        size_t capacity = contents->run_capacity ? contents->run_capacity * 2 : 16;
        uint64_t *runs = realloc(contents->runs, capacity * sizeof *runs);
        if (!runs)
            return -ENOMEM;
        contents->runs = runs;
        contents->run_capacity = capacity;
    }
    contents->runs[contents->run_count++] = number;
    return 0;
}

/* Of a segment, or of one that another had the name of already. */
static bool parse_name(const char *name, uint32_t *first)
{
    char stem[SEGMENT_NAME_MAX];
    uint32_t last, generation;
    const char *end = strstr(name, ".seg");
    size_t len = end ? (size_t)(end - name) + 4 : 0;
    if (!end || len >= sizeof stem || (name[len] != 0 && name[len] != '.'))
        return false;
    memcpy(stem, name, len);
    stem[len] = 0;
    return segment_name_parse(stem, first, &last, &generation) &&
           strspn(name + len, ".0123456789") == strlen(name + len);
}

static int take_name(void *context, const char *name)
{
    struct contents *contents = context;
    struct entry entry = {.run = 0};
    uint64_t number;
    int used = 0;
    if (sscanf(name, "run-%" SCNu64 "%n", &number, &used) == 1 && name[used] == 0 && number > 0)
        return add_run(contents, number);
    if (strlen(name) >= sizeof entry.name || !parse_name(name, &entry.first))
        return 0;
    if (contents->count == contents->capacity) {
        size_t capacity = contents->capacity ? contents->capacity * 2 : 64;
        struct entry *entries = realloc(contents->entries, capacity * sizeof *entries);
        if (!entries)
            return -ENOMEM;
        contents->entries = entries;
        contents->capacity = capacity;
    }
    snprintf(entry.name, sizeof entry.name, "%s", name);
    contents->entries[contents->count++] = entry;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void run_name(uint64_t number, char name[32])
{
    snprintf(name, 32, "run-%" PRIu64, number);
}

/* The whole list, with a NUL behind it. */
static int read_list(const struct contents *contents, uint64_t number, char **text)
{
    const struct hl_io *io = contents->store->io;
    char name[32];
    uint64_t size = 0;
    run_name(number, name);
    int fd = hl_io_open(io, contents->dir, name, O_RDONLY, 0);
    int error = fd < 0 ? fd : hl_io_size(io, fd, &size);
    *text = NULL;
    if (error == 0 && size > LIST_MAX)
        size = LIST_MAX;
    if (error == 0) {
        *text = calloc(1, size + 1);
        ssize_t n = *text ? hl_io_read(io, fd, *text, size, 0) : -ENOMEM;
        error = n < 0 ? (int)n : 0;
    }
    hl_io_close(io, fd);
    if (error < 0) {
        free(*text);
        *text = NULL;
    }
    return error;
}

/* Files of the list's names that are there are of this run. A name may have come again under a
 * number of its own. */
static int take_list(struct contents *contents, uint64_t number)
{
    char *text, *rest = NULL;
    int error = read_list(contents, number, &text);
    if (error < 0)
        return error == -ENOENT ? 0 : error;
    for (char *name = strtok_r(text, "\n", &rest); name; name = strtok_r(NULL, "\n", &rest)) {
        size_t len = strlen(name);
        struct entry wanted = {.run = 0};
        if (len >= SEGMENT_NAME_MAX)
            continue;
        memcpy(wanted.name, name, len);
        for (size_t low = 0, high = contents->count; low < high;) {
            size_t middle = low + (high - low) / 2;
            if (strcmp(contents->entries[middle].name, wanted.name) < 0) {
                low = middle + 1;
                continue;
            }
            high = middle;
            if (low < high)
                continue;
            for (; low < contents->count && strncmp(contents->entries[low].name, name, len) == 0;
                 low++) {
                const char *behind = contents->entries[low].name + len;
                if (behind[0] == 0 || behind[0] == '.')
                    contents->entries[low].run = number;
            }
            break;
        }
    }
    free(text);
    return 0;
}

static void contents_free(struct contents *contents)
{
    hl_io_close(contents->store->io, contents->dir);
    free(contents->entries);
    free(contents->runs);
}

/* Lists the directory, and gives each file its run: the newest one that names it. */
static int contents_read(struct hl_store *store, struct contents *contents)
{
    *contents = (struct contents){.store = store};
    contents->dir = hl_io_open_dir(store->io, store->dirfd, FOLDER, false);
    if (contents->dir < 0)
        return contents->dir == -ENOENT ? 0 : contents->dir;
    int error = store->io->list(store->io->context, contents->dir, take_name, contents);
    if (error == 0 && contents->count > 0)
        qsort(contents->entries, contents->count, sizeof *contents->entries, by_name);
    if (error == 0 && contents->run_count > 0)
        qsort(contents->runs, contents->run_count, sizeof *contents->runs, by_number);
    for (size_t i = 0; i < contents->run_count && error == 0; i++)
        error = take_list(contents, contents->runs[i]);
    for (size_t i = 0; i < contents->count && contents->run_count > 0; i++) {
        if (contents->entries[i].run == 0)
            contents->entries[i].run = contents->runs[contents->run_count - 1];
    }
    return error;
}

/* ---- lists ---- */

static int append_name(struct backup_run *run, const char *name)
{
    size_t len = strlen(name) + 1;
    if (run->len + len > run->capacity) {
        size_t capacity = 2 * (run->len + len) + 256;
        char *text = realloc(run->text, capacity);
        if (!text)
            return -ENOMEM;
        run->text = text;
        run->capacity = capacity;
    }
    memcpy(run->text + run->len, name, len - 1);
    run->text[run->len + len - 1] = '\n';
    run->len += len;
    return 0;
}

static int put_list(struct hl_store *store, int dir, uint64_t number, const struct backup_run *run)
{
    char name[32];
    run_name(number, name);
    return hl_io_put_file(store->io, dir, name, run->text, run->len);
}

/* What no list names is listed with the newest run, before there is a newer one; and if there is
 * none, as a run of its own. */
static int list_others(struct hl_store *store, struct contents *contents)
{
    struct backup_run others = {0};
    uint64_t newest = contents->run_count ? contents->runs[contents->run_count - 1] : 1;
    size_t named = 0;
    int error = 0;
    for (size_t i = 0; i < contents->count && error == 0; i++) {
        struct entry *entry = &contents->entries[i];
        if (entry->run != 0 && entry->run != newest)
            continue;
        entry->run = newest;
        error = append_name(&others, entry->name);
        named++;
    }
    if (error == 0 && named > 0)
        error = put_list(store, contents->dir, newest, &others);
    if (error == 0 && named > 0 && contents->run_count == 0)
        error = add_run(contents, newest);
    backup_run_free(&others);
    return error;
}

static int begin_run(struct hl_store *store, struct backup_run *run)
{
    struct contents contents;
    int error = contents_read(store, &contents);
    if (error == 0 && contents.dir >= 0)
        error = list_others(store, &contents);
    if (error == 0)
        run->number = contents.run_count ? contents.runs[contents.run_count - 1] + 1 : 1;
    contents_free(&contents);
    return error;
}

int backup_list(struct hl_store *store, struct backup_run *run, const char *name)
{
    int error = run->number ? 0 : begin_run(store, run);
    if (error == 0)
        error = append_name(run, name);
    if (error < 0)
        return error;
    int dir = hl_io_make_dir(store->io, store->dirfd, FOLDER);
    error = dir < 0 ? dir : put_list(store, dir, run->number, run);
    hl_io_close(store->io, dir);
    return error;
}

void backup_run_free(struct backup_run *run)
{
    free(run->text);
    *run = (struct backup_run){.number = 0};
}

/* ---- removing ---- */

/* The files of a run, and then its list. */
static int remove_run(struct contents *contents, uint64_t number)
{
    const struct hl_io *io = contents->store->io;
    char name[32];
    int error = 0;
    for (size_t i = 0; i < contents->count && error == 0; i++) {
        if (contents->entries[i].run == number)
            error = io->unlink(io->context, contents->dir, contents->entries[i].name, 0);
        if (error == -ENOENT)
            error = 0;
    }
    run_name(number, name);
    if (error == 0)
        error = io->unlink(io->context, contents->dir, name, 0);
    if (error == -ENOENT) /* files that are in no list */
        error = 0;
    return error;
}

static int prune(struct hl_store *store, struct contents *contents, uint64_t keep)
{
    int error = 0;
    if (contents->dir < 0)
        return 0;
    for (size_t i = 0; i < contents->run_count && error == 0; i++) {
        if (contents->run_count - i > keep)
            error = remove_run(contents, contents->runs[i]);
    }
    if (error == 0 && contents->run_count == 0 && keep == 0)
        error = remove_run(contents, 0);
    return error == 0 ? hl_io_fsync(store->io, contents->dir) : error;
}

int backup_prune(struct hl_store *store, uint64_t keep)
{
    struct contents contents;
    int error = contents_read(store, &contents);
    if (error == 0)
        error = prune(store, &contents, keep);
    contents_free(&contents);
    return error;
}

int backup_drop_oldest(struct hl_store *store)
{
    struct contents contents;
    int error = contents_read(store, &contents);
    if (error == 0 && contents.count == 0)
        error = -ENOENT;
    if (error == 0)
        error = prune(store, &contents, contents.run_count ? contents.run_count - 1 : 0);
    contents_free(&contents);
    return error;
}

int backup_lowest(struct hl_store *store, uint32_t *first, uint64_t *bytes)
{
    struct contents contents;
    int error = contents_read(store, &contents);
    *first = UINT32_MAX;
    if (bytes)
        *bytes = 0;
    for (size_t i = 0; i < contents.count && error == 0; i++) {
        uint64_t size = 0;
        if (contents.entries[i].first < *first)
            *first = contents.entries[i].first;
        if (!bytes)
            continue;
        int fd = hl_io_open(store->io, contents.dir, contents.entries[i].name, O_RDONLY, 0);
        error = fd < 0 ? fd : hl_io_size(store->io, fd, &size);
        hl_io_close(store->io, fd);
        *bytes += size;
        if (error == -ENOENT)
            error = 0;
    }
    contents_free(&contents);
    return error;
}
