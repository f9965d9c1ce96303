/*
 * index_pages.c - the pages of the environment's file, walked without LMDB.
 *
 * LMDB has no checksums and believes what a page says: a damaged page number can kill the process,
 * or, in its list of free pages or in a page's own header, make a later commit write over pages in
 * use. So before anything is read through LMDB, and long before anything is written, every page
 * that the newest commit reaches is looked at here, by file offset, with each bound checked before
 * it is used. The layout is that of LMDB's data version 1 (all of 0.9) with 64-bit page numbers in
 * the machine's byte order.
 *
 * - page: u64 number, u16 pad, u16 flags; then u16 lower, u16 upper and u16 offsets of nodes
 *   (branch, leaf), or u32 count of pages (overflow)
 * - node: u16 low, u16 high, u16 flags, u16 key size, key; in a branch low, high and flags are the
 *   child; in a leaf low and high are the size of the data, which follows, or flags say that what
 *   follows is the u64 number of the overflow page that has it
 * - tree: u32 pad, u16 flags, u16 depth, u64 branch, leaf and overflow pages, u64 entries, u64 root
 * - meta (pages 0 and 1, after the page header): u32 magic, u32 version, u64 address, u64 map size,
 *   tree of free pages, main tree, u64 last page, u64 transaction
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "index_internal.h"

#define PAGE_HEADER 16U
#define PAGE_BRANCH 1U
#define PAGE_LEAF 2U
#define PAGE_OVERFLOW 4U
#define PAGE_META 8U
#define NODE_HEADER 8U
#define NODE_OVERFLOW 1U
#define NODE_TREE 2U
#define TREE_SIZE 48U
#define TREE_FLAGS_FREE 8U /* integer keys */
#define META_MAGIC 0xBEEFC0DEU
#define META_VERSION 1U
#define META_TREES 24U
#define META_SIZE (META_TREES + 2 * TREE_SIZE + 16)
#define NO_PAGE UINT64_MAX
#define PAGE_LARGEST 32768U
#define PAGES_UNWRITTEN (UINT64_C(1) << 20)
#define DEPTH_MOST 31U /* LMDB's stack has room for 32 */

struct tree {
    uint32_t pad;
    uint16_t flags, depth;
    uint64_t branches, leaves, overflows, entries, root;
};

struct meta {
    struct tree trees[2]; /* of free pages, and the main one */
    uint64_t last_page, txn_id;
};

struct span {
    const uint8_t *at;
    size_t len;
};

/* What a tree's leaves hold. */
enum leaf_kind { LEAVES_FREE, LEAVES_MAIN, LEAVES_TABLE };

struct pages {
    const uint8_t *map;
    size_t size; /* of the file */
    size_t page_size;
    uint64_t count;  /* page numbers are below this */
    uint64_t txn_id; /* of the newest commit */
    uint64_t *seen;  /* a bit a page: it has been met */
    uint64_t met;    /* how many were */
    struct index_check_report *report;
};

/* A tree under way. */
struct walk {
    struct pages *pages;
    enum leaf_kind kind;
    struct tree tree;    /* as stored */
    struct tree counted; /* as found */
    struct span last;    /* the key before */
};

static uint16_t load_u16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static uint32_t load_u32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static uint64_t load_u64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static struct tree load_tree(const uint8_t *at)
{
    return (struct tree){
        .pad = load_u32(at),
        .flags = load_u16(at + 4),
        .depth = load_u16(at + 6),
        .branches = load_u64(at + 8),
        .leaves = load_u64(at + 16),
        .overflows = load_u64(at + 24),
        .entries = load_u64(at + 32),
        .root = load_u64(at + 40),
    };
}

/* Notes that a page is used; a page can be used once. */
static int mark(struct pages *pages, uint64_t number)
{
    if (number < 2 || number >= pages->count)
        return index_complain(pages->report, "a page number is out of range (%llu)",
                              (unsigned long long)number);
    uint64_t bit = UINT64_C(1) << (number % 64);
    if (pages->seen[number / 64] & bit)
        return index_complain(pages->report, "page %llu is in two places",
                              (unsigned long long)number);
    pages->seen[number / 64] |= bit;
    pages->met++;
    return 0;
}

/* The bytes of `span` pages from a number, marked as used, with a header of those flags. */
static int take(struct pages *pages, uint64_t number, uint64_t span, uint16_t flags,
                const uint8_t **page)
{
    for (uint64_t i = 0; i < span; i++) {
        int error = mark(pages, number + i);
        if (error < 0)
            return error;
    }
    if ((number + span) * pages->page_size > pages->size)
        return index_complain(pages->report, "page %llu lies past the end of the file",
                              (unsigned long long)number);
    *page = pages->map + number * pages->page_size;
    if (load_u64(*page) != number || load_u16(*page + 10) != flags ||
        (flags == PAGE_OVERFLOW && load_u32(*page + 12) != span))
        return index_complain(pages->report, "page %llu has a bad header",
                              (unsigned long long)number);
    return 0;
}

static int compare(const struct walk *walk, struct span a, struct span b)
{
    if (walk->kind == LEAVES_FREE) {
        uint64_t x = load_u64(a.at), y = load_u64(b.at);
        return x < y ? -1 : x > y;
    }
    int order = memcmp(a.at, b.at, a.len < b.len ? a.len : b.len);
    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

/* The node with index i of a page of `count`, its key, and how many bytes the page has after the
 * key. */
static int node_at(const struct walk *walk, const uint8_t *page, unsigned count, unsigned i,
                   const uint8_t **node, struct span *key, size_t *left)
{
    struct pages *pages = walk->pages;
    size_t offset = load_u16(page + PAGE_HEADER + 2 * (size_t)i);
    if (offset % 2 != 0 || offset < PAGE_HEADER + 2 * (size_t)count ||
        offset < load_u16(page + 14) || offset > pages->page_size - NODE_HEADER)
        return index_complain(pages->report, "a page has a node outside of it");
    *node = page + offset;
    *key = (struct span){.at = *node + NODE_HEADER, .len = load_u16(*node + 6)};
    size_t room = pages->page_size - offset - NODE_HEADER;
    if (key->len > room)
        return index_complain(pages->report, "a page has a key that leaves it");
    *left = room - key->len;
    return 0;
}

/* The number of nodes of a branch or leaf page, or 0 if its bounds are bad. */
static unsigned node_count(const struct pages *pages, const uint8_t *page)
{
    unsigned lower = load_u16(page + 12), upper = load_u16(page + 14);
    if (lower < PAGE_HEADER || lower % 2 != 0 || lower > upper || upper > pages->page_size)
        return 0;
    return (lower - PAGE_HEADER) / 2;
}

/* Nodes fill a page from where it says that they begin to its end: LMDB leaves no hole, and puts
 * the next node in front of them. */
static int check_packed(const struct walk *walk, const uint8_t *page, unsigned count, bool leaf)
{
    size_t upper = load_u16(page + 14), first = SIZE_MAX, sum = 0;
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *node;
        struct span key;
        size_t left, size;
        int error = node_at(walk, page, count, i, &node, &key, &left);
        if (error < 0)
            return error;
        size = NODE_HEADER + key.len;
        if (leaf)
            size += load_u16(node + 4) & NODE_OVERFLOW
                        ? sizeof(uint64_t)
                        : (size_t)load_u16(node) | (size_t)load_u16(node + 2) << 16;
        sum += (size + 1) & ~(size_t)1;
        if ((size_t)(node - page) < first)
            first = (size_t)(node - page);
    }
    if (first != upper || sum != walk->pages->page_size - upper)
        return index_complain(walk->pages->report, "the nodes of a page do not fill its end");
    return 0;
}

/* The data of a leaf's node, in the page or in pages of its own. */
static int data_of(struct walk *walk, const uint8_t *node, struct span key, size_t left,
                   struct span *data)
{
    struct pages *pages = walk->pages;
    uint16_t flags = load_u16(node + 4);
    uint16_t expected = walk->kind == LEAVES_MAIN ? NODE_TREE : 0;
    data->at = key.at + key.len;
    data->len = (size_t)load_u16(node) | (size_t)load_u16(node + 2) << 16;
    if (flags == (expected | NODE_OVERFLOW) && expected == 0) {
        uint64_t span = (data->len + PAGE_HEADER - 1) / pages->page_size + 1;
        const uint8_t *page;
        if (left < sizeof(uint64_t))
            return index_complain(pages->report, "a page has a value that leaves it");
        int error = take(pages, load_u64(data->at), span, PAGE_OVERFLOW, &page);
        if (error < 0)
            return error;
        walk->counted.overflows += span;
        data->at = page + PAGE_HEADER;
        return 0;
    }
    if (flags != expected)
        return index_complain(pages->report, "a value has unknown flags (%u)", flags);
    if (data->len > left)
        return index_complain(pages->report, "a page has a value that leaves it");
    return 0;
}

static int check_tree(struct pages *pages, enum leaf_kind kind, const struct tree *tree);

/* A list of free pages: their count, then their numbers, descending. */
static int check_free(struct pages *pages, struct span key, struct span data)
{
    uint64_t txn_id = load_u64(key.at);
    if (txn_id == 0 || txn_id > pages->txn_id)
        return index_complain(pages->report, "the list of free pages names a transaction to come");
    if (data.len < sizeof(uint64_t) || data.len % sizeof(uint64_t) != 0 ||
        load_u64(data.at) > data.len / sizeof(uint64_t) - 1)
        return index_complain(pages->report, "the list of free pages has a bad length");
    uint64_t count = load_u64(data.at), before = NO_PAGE;
    for (uint64_t i = 1; i <= count; i++) {
        uint64_t number = load_u64(data.at + i * sizeof(uint64_t));
        if (number >= before)
            return index_complain(pages->report, "the list of free pages is out of order");
        int error = mark(pages, number);
        if (error < 0)
            return error;
        before = number;
    }
    return 0;
}

/* A table: its name is known, and its tree is sound. */
static int check_table(struct pages *pages, struct span key, struct span data)
{
    bool known = false;
    for (int i = 0; i < INDEX_TABLES; i++)
        known = known || (strlen(index_table_names[i]) == key.len &&
                          memcmp(index_table_names[i], key.at, key.len) == 0);
    if (!known)
        return index_complain(pages->report, "there is an unknown table");
    if (data.len != TREE_SIZE)
        return index_complain(pages->report, "a table has no tree");
    struct tree tree = load_tree(data.at);
    if (tree.flags != 0 || tree.pad != 0)
        return index_complain(pages->report, "a table has unknown flags");
    return check_tree(pages, LEAVES_TABLE, &tree);
}

static int check_leaf(struct walk *walk, const uint8_t *page, unsigned count)
{
    struct pages *pages = walk->pages;
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *node;
        struct span key, data = {.at = NULL};
        size_t left;
        int error = node_at(walk, page, count, i, &node, &key, &left);
        if (error == 0)
            error = data_of(walk, node, key, left, &data);
        if (error < 0)
            return error;
        if (key.len == 0 || (walk->kind == LEAVES_FREE && key.len != sizeof(uint64_t)))
            return index_complain(pages->report, "a page has a key of a bad length");
        if (walk->last.at && compare(walk, walk->last, key) >= 0)
            return index_complain(pages->report, "keys are out of order");
        walk->last = key;
        walk->counted.entries++;
        if (walk->kind == LEAVES_FREE)
            error = check_free(pages, key, data);
        else if (walk->kind == LEAVES_MAIN)
            error = check_table(pages, key, data);
        if (error < 0)
            return error;
    }
    return 0;
}

/* low, high: every key below this page is at least low and below high; at NULL: no bound. */
static int check_page(struct walk *walk, uint64_t number, unsigned depth, struct span low,
                      struct span high)
{
    struct pages *pages = walk->pages;
    bool leaf = depth == walk->tree.depth;
    const uint8_t *page;
    int error = take(pages, number, 1, leaf ? PAGE_LEAF : PAGE_BRANCH, &page);
    if (error < 0)
        return error;
    unsigned count = node_count(pages, page);
    if (count == 0)
        return index_complain(pages->report, "page %llu has bad bounds",
                              (unsigned long long)number);
    error = check_packed(walk, page, count, leaf);
    if (error < 0)
        return error;
    if (leaf) {
        walk->counted.leaves++;
        const uint8_t *node;
        struct span first;
        size_t left;
        error = node_at(walk, page, count, 0, &node, &first, &left);
        if (error == 0 && walk->kind == LEAVES_FREE && first.len != sizeof(uint64_t))
            error = index_complain(pages->report, "a page has a key of a bad length");
        if (error == 0 && low.at && compare(walk, first, low) < 0)
            error = index_complain(pages->report, "keys are out of order between pages");
        if (error == 0)
            error = check_leaf(walk, page, count);
        if (error == 0 && high.at && compare(walk, walk->last, high) >= 0)
            error = index_complain(pages->report, "keys are out of order between pages");
        return error;
    }
    walk->counted.branches++;
    struct span begin = low;
    for (unsigned i = 0; i < count && error == 0; i++) {
        const uint8_t *node, *next;
        struct span key, end = high;
        size_t left;
        error = node_at(walk, page, count, i, &node, &key, &left);
        /* The first child begins where the page does; the others where their keys say. */
        if (error == 0 && i + 1 < count) {
            error = node_at(walk, page, count, i + 1, &next, &end, &left);
            if (error == 0 &&
                (end.len == 0 || (walk->kind == LEAVES_FREE && end.len != sizeof(uint64_t)) ||
                 (begin.at && compare(walk, begin, end) >= 0) ||
                 (high.at && compare(walk, end, high) >= 0)))
                error = index_complain(pages->report, "keys are out of order in a branch");
        }
        if (error < 0)
            return error;
        uint64_t child = (uint64_t)load_u16(node) | (uint64_t)load_u16(node + 2) << 16 |
                         (uint64_t)load_u16(node + 4) << 32;
        error = check_page(walk, child, depth + 1, begin, end);
        begin = end;
    }
    return error;
}

static int check_tree(struct pages *pages, enum leaf_kind kind, const struct tree *tree)
{
    struct walk walk = {.pages = pages, .kind = kind, .tree = *tree};
    int error = 0;
    if (tree->root == NO_PAGE) {
        if (tree->depth != 0)
            return index_complain(pages->report, "an empty tree has a depth");
    } else {
        if (tree->depth == 0 || tree->depth > DEPTH_MOST)
            return index_complain(pages->report, "a tree has a bad depth");
        struct span none = {.at = NULL};
        error = check_page(&walk, tree->root, 1, none, none);
    }
    const struct tree *counted = &walk.counted;
    if (error == 0 && (counted->branches != tree->branches || counted->leaves != tree->leaves ||
                       counted->overflows != tree->overflows || counted->entries != tree->entries))
        error = index_complain(pages->report, "a tree has other counts than it says");
    return error;
}

/* ---- the two meta pages ---- */

static int load_meta(struct pages *pages, uint64_t number, struct meta *meta)
{
    const uint8_t *page = pages->map + number * pages->page_size;
    const uint8_t *at = page + PAGE_HEADER;
    if (load_u64(page) != number || load_u16(page + 10) != PAGE_META ||
        load_u32(at) != META_MAGIC || load_u32(at + 4) != META_VERSION || load_u64(at + 8) != 0)
        return index_complain(pages->report, "a meta page has a bad header");
    meta->trees[0] = load_tree(at + META_TREES);
    meta->trees[1] = load_tree(at + META_TREES + TREE_SIZE);
    meta->last_page = load_u64(at + META_TREES + 2 * (size_t)TREE_SIZE);
    meta->txn_id = load_u64(at + META_TREES + 2 * (size_t)TREE_SIZE + 8);
    /* The tree of free pages keeps the page size in its pad. */
    if (meta->trees[0].pad != pages->page_size || meta->trees[0].flags != TREE_FLAGS_FREE ||
        meta->trees[1].pad != 0 || meta->trees[1].flags != 0)
        return index_complain(pages->report, "a meta page has unknown flags");
    return 0;
}

/* The newer one. Commits go to the two pages by turns, so their numbers are neighbours. */
static int choose_meta(struct pages *pages, struct meta *meta)
{
    struct meta metas[2];
    for (unsigned i = 0; i < 2; i++) {
        int error = load_meta(pages, i, &metas[i]);
        if (error < 0)
            return error;
    }
    uint64_t even = metas[0].txn_id, odd = metas[1].txn_id;
    if (!(even == 0 && odd == 0) && (even % 2 != 0 || (odd != even + 1 && odd + 1 != even)))
        return index_complain(pages->report, "the meta pages do not follow each other");
    *meta = metas[odd > even];
    return 0;
}

/* The page size stands in both meta pages; the second one's place depends on it. */
static int find_page_size(struct pages *pages)
{
    if (pages->size < PAGE_HEADER + META_SIZE)
        return index_complain(pages->report, "the file is too short");
    uint32_t size = load_u32(pages->map + PAGE_HEADER + META_TREES);
    if (size < 512 || size > PAGE_LARGEST || (size & (size - 1)) != 0 ||
        pages->size < size + PAGE_HEADER + META_SIZE)
        return index_complain(pages->report, "a meta page has a bad page size");
    pages->page_size = size;
    return 0;
}

/* The last pages may be free ones that were never written, but only as many as one commit has. */
static bool has_good_end(const struct pages *pages, const struct meta *meta)
{
    return meta->last_page > 0 &&
           meta->last_page <= pages->size / pages->page_size + PAGES_UNWRITTEN;
}

static int check_mapped(struct pages *pages)
{
    struct meta meta;
    int error = find_page_size(pages);
    if (error == 0)
        error = choose_meta(pages, &meta);
    if (error < 0)
        return error;
    pages->txn_id = meta.txn_id;
    if (!has_good_end(pages, &meta))
        return index_complain(pages->report, "a meta page has a bad last page");
    pages->count = meta.last_page + 1;
    pages->seen = calloc(pages->count / 64 + 1, sizeof *pages->seen);
    if (!pages->seen)
        return -ENOMEM;
    error = check_tree(pages, LEAVES_MAIN, &meta.trees[1]);
    if (error == 0)
        error = check_tree(pages, LEAVES_FREE, &meta.trees[0]);
    /* LMDB copies nothing that has other pages: there would be no checkpoint any more. */
    if (error == 0 && pages->met != meta.last_page - 1)
        error = index_complain(pages->report, "pages are neither used nor free");
    free(pages->seen);
    return error;
}

/* By what LMDB will map. */
static int check_metas(struct pages *pages)
{
    int error = find_page_size(pages);
    for (unsigned i = 0; i < 2 && error == 0; i++) {
        struct meta meta;
        error = load_meta(pages, i, &meta);
        if (error == 0 && !has_good_end(pages, &meta))
            error = index_complain(pages->report, "a meta page has a bad last page");
    }
    return error;
}

/* Whether the file is longer than what was written to it by more than one commit can leave out. Of
 * a file that can be mapped this says nothing: its file system may pack what is written. */
static bool has_endless_hole(const struct stat *st)
{
    uint64_t written = (uint64_t)st->st_blocks * 512;
    return (uint64_t)st->st_size > written &&
           ((uint64_t)st->st_size - written) / PAGE_LARGEST > PAGES_UNWRITTEN;
}

/* Maps the file, if it can be; NULL, with the error, if not. */
static void *map_file(int fd, struct pages *pages, int *error)
{
    struct stat st;
    if (fstat(fd, &st) < 0) {
        *error = -errno;
        return NULL;
    }
    if (st.st_size <= 0 || (uint64_t)st.st_size > SIZE_MAX) {
        *error = index_complain(pages->report, "the file is empty");
        return NULL;
    }
    pages->size = (size_t)st.st_size;
    void *map = mmap(NULL, pages->size, PROT_READ, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED)
        return map;
    *error = -errno;
    if (*error == -ENOMEM && has_endless_hole(&st))
        *error = index_complain(pages->report, "a page was written far behind the others");
    return NULL;
}

int index_pages_check(int fd, struct index_check_report *report)
{
    struct pages pages = {.report = report};
    int error = 0;
    void *map = map_file(fd, &pages, &error);
    if (!map)
        return error;
    pages.map = map;
    /* All of it will be read, here and through LMDB after it. */
    madvise(map, pages.size, MADV_WILLNEED);
    error = check_mapped(&pages);
    munmap(map, pages.size);
    return error;
}

int index_pages_check_metas(int fd)
{
    struct index_check_report report = {.sessions = 0};
    struct pages pages = {.report = &report};
    int error = 0;
    void *map = map_file(fd, &pages, &error); /* whether it can be */
    if (!map)
        return error;
    munmap(map, pages.size);
    /* Not through the map: a disk that fails is an error here, and no signal. */
    uint8_t *head = calloc(2, PAGE_LARGEST);
    if (!head)
        return -ENOMEM;
    ssize_t n = pread(fd, head, (size_t)2 * PAGE_LARGEST, 0);
    error = n < 0 ? -errno : 0;
    if (error == 0 && (size_t)n < pages.size && n < 2 * (ssize_t)PAGE_LARGEST)
        error = -EIO;
    pages.map = head;
    if (error == 0)
        error = check_metas(&pages);
    free(head);
    return error;
}
