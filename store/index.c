/* index.c - the LMDB environment: opening, write transactions, and the environment as a whole. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "index_internal.h"

#define MAX_READERS 512U
#define MAX_TABLES 32U /* room for those of later versions */
#define MAP_LEAST ((size_t)1 << 20)
#define LOCK_FILE_BYTES (MAX_READERS * 64U + 4096U) /* a cache line each, and a header */

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define MAP_MOST ((size_t)1 << 36)
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define MAP_MOST ((size_t)1 << 36)
#endif
#endif
#ifndef MAP_MOST
#define MAP_MOST ((size_t)1 << 40)
#endif

/* ---- opening ---- */

/* The largest map worth trying: under a limit of address space, at most a half of it. */
static size_t map_most(void)
{
    struct rlimit limit;
    size_t size = MAP_MOST;
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        while (size > MAP_LEAST && size > limit.rlim_cur / 2)
            size /= 2;
    return size;
}

static int sync_directory(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int error = fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return error;
}

/* Makes the directory if it is to be made; -ENOENT if there is no environment in it. */
static int prepare_directory(const char *path, unsigned flags, bool *fresh)
{
    char file[PATH_MAX];
    int n = snprintf(file, sizeof file, "%s/data.mdb", path);
    if (n < 0 || (size_t)n >= sizeof file)
        return -ENAMETOOLONG;
    struct stat st;
    *fresh = false;
    if (stat(file, &st) == 0) {
        if (!S_ISREG(st.st_mode))
            return -EBADMSG;
        *fresh = st.st_size == 0; /* a crash came between making and filling it */
    } else if (errno == ENOENT) {
        *fresh = true;
    } else {
        return -errno;
    }
    if (!*fresh)
        return 0;
    if (!(flags & INDEX_CREATE))
        return -ENOENT;
    if (mkdir(path, 0700) < 0)
        return errno == EEXIST ? 0 : -errno;
    char parent[PATH_MAX];
    n = snprintf(parent, sizeof parent, "%s/..", path);
    return n < 0 || (size_t)n >= sizeof parent ? -ENAMETOOLONG : sync_directory(parent);
}

/*
 * Gives the table of readers, which LMDB maps and writes to, its blocks on the disk: where one is
 * missing and the disk is full, the write would end the process (SIGBUS). Before LMDB opens the
 * file, since closing it takes LMDB's own locks on it away.
 */
static int allocate_lock_file(const struct index *index, const char *path)
{
    char file[PATH_MAX];
    struct stat st;
    if (index->flags & INDEX_NO_LOCK)
        return 0;
    int n = snprintf(file, sizeof file, "%s/lock.mdb", path);
    if (n < 0 || (size_t)n >= sizeof file)
        return -ENAMETOOLONG;
    bool there = stat(file, &st) == 0 && st.st_size > 0;
    if (there && (uint64_t)st.st_blocks * 512 >= LOCK_FILE_BYTES)
        return 0;
    int fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) /* LMDB will meet it too, and knows when that does not matter */
        return errno == ENOSPC || errno == EDQUOT ? -errno : 0;
    int error = fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, LOCK_FILE_BYTES) < 0 ? -errno : 0;
    close(fd);
    /* One that is in use has the block which all need; other file systems cannot tell. */
    return !there && (error == -ENOSPC || error == -EDQUOT) ? error : 0;
}

/* LMDB maps as many pages as the file says it has: of a damaged number it says only that there is
 * no memory. */
static int check_metas(const char *path)
{
    char file[PATH_MAX];
    int n = snprintf(file, sizeof file, "%s/data.mdb", path);
    if (n < 0 || (size_t)n >= sizeof file)
        return -ENAMETOOLONG;
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int error = index_pages_check_metas(fd);
    close(fd);
    return error;
}

/* One try with one size of map; -ENOMEM: it is too large. */
static int open_env(struct index *index, const char *path, size_t map_size)
{
    int error = index_error(mdb_env_create(&index->env));
    if (error < 0) {
        index->env = NULL;
        return error;
    }
    unsigned flags = MDB_NOTLS;
    if (index->flags & INDEX_READ_ONLY)
        flags |= MDB_RDONLY;
    if (index->flags & INDEX_NO_LOCK)
        flags |= MDB_NOLOCK;
    if (index->flags & INDEX_BUILD)
        flags |= MDB_NOSYNC;
    error = index_error(mdb_env_set_maxdbs(index->env, MAX_TABLES));
    if (error == 0)
        error = index_error(mdb_env_set_maxreaders(index->env, MAX_READERS));
    if (error == 0)
        error = index_error(mdb_env_set_mapsize(index->env, map_size));
    if (error == 0)
        error = index_error(mdb_env_open(index->env, path, flags, 0600));
    int fd;
    /* LMDB closes its other descriptors on exec, but not this one. */
    if (error == 0)
        error = index_error(mdb_env_get_fd(index->env, &fd));
    if (error == 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        error = -errno;
    MDB_envinfo info;
    if (error == 0)
        error = index_error(mdb_env_info(index->env, &info));
    if (error == 0) {
        index->map_size = info.me_mapsize;
        return 0;
    }
    mdb_env_close(index->env);
    index->env = NULL;
    return error;
}

/* LMDB reports a short write as EIO, though what most often cuts one short is a full disk. */
static int tell_full(struct index *index, int error)
{
    int fd;
    struct statvfs fs;
    if (error != -EIO || mdb_env_get_fd(index->env, &fd) != 0 || fstatvfs(fd, &fs) < 0)
        return error;
    uint64_t blocks = geteuid() == 0 ? fs.f_bfree : fs.f_bavail;
    return blocks * fs.f_frsize < (UINT64_C(1) << 20) ? -ENOSPC : error;
}

/* Whether the main table, which holds nothing but tables, is empty: made, but never filled. */
static int is_empty(MDB_txn *txn, bool *empty)
{
    MDB_dbi main_table;
    MDB_stat stat;
    int error = index_error(mdb_dbi_open(txn, NULL, 0, &main_table));
    if (error == 0)
        error = index_error(mdb_stat(txn, main_table, &stat));
    if (error == 0)
        *empty = stat.ms_entries == 0;
    return error;
}

static int fill_fresh(struct index *index, MDB_txn *mdb_txn, const uint8_t store_id[16])
{
    struct index_txn txn = {.at = {.index = index, .txn = mdb_txn}, .index = index};
    txn.meta.next_session = 1;
    int error = index_format_store(&txn, store_id);
    return error < 0 ? error : index_meta_store(&txn, &txn.meta);
}

/* Opens the tables, makes them in a fresh environment, and checks whose it is. */
static int open_tables(struct index *index, const uint8_t *store_id, bool *made,
                       struct index_meta *meta)
{
    bool writable = !(index->flags & INDEX_READ_ONLY);
    MDB_txn *txn;
    int error = index_error(mdb_txn_begin(index->env, NULL, writable ? 0 : MDB_RDONLY, &txn));
    if (error < 0)
        return error;
    bool empty;
    error = is_empty(txn, &empty);
    if (error == 0 && empty && !(index->flags & INDEX_CREATE))
        error = -ENOENT;
    *made = error == 0 && empty;
    struct index_at at = {.index = index, .txn = txn};
    for (int i = 0; error == 0 && i < INDEX_TABLES; i++) {
        unsigned flags = *made ? MDB_CREATE : 0;
        error = index_error(mdb_dbi_open(txn, index_table_names[i], flags, &index->table[i]));
        if (error == -ENOENT)
            error = -EBADMSG; /* they are made together */
        /* First of all, since another version may have other tables. */
        if (error == 0 && i == TABLE_META && !*made)
            error = index_meta_get(&at, meta);
    }
    if (error == 0 && *made) {
        error = fill_fresh(index, txn, store_id);
        if (error == 0)
            error = index_meta_get(&at, meta);
    }
    if (error < 0) {
        mdb_txn_abort(txn);
        return error;
    }
    /* Also of one that only read: it keeps the tables open. */
    return tell_full(index, index_error(mdb_txn_commit(txn)));
}

static int open_index(struct index *index, const char *path, const uint8_t *store_id,
                      size_t map_size, struct hl_error *err)
{
    bool fresh = false, made = false;
    int error = prepare_directory(path, index->flags, &fresh);
    if (error == -ENOENT)
        return hl_fail(err, ENOENT, "there is no index in %s", path);
    if (error < 0)
        return hl_fail(err, -error, "cannot open the index in %s: %s", path, strerror(-error));
    size_t size = map_size > 0 ? map_size : map_most();
    if (!fresh)
        error = check_metas(path);
    if (error == 0)
        error = allocate_lock_file(index, path);
    bool tried = error == 0;
    if (tried)
        error = open_env(index, path, size);
    while (error == -ENOMEM && tried && map_size == 0 && size > MAP_LEAST) {
        size /= 2;
        error = open_env(index, path, size);
    }
    struct index_meta meta;
    if (error == 0)
        error = open_tables(index, store_id, &made, &meta);
    if (error == 0 && (fresh || made))
        error = sync_directory(path);
    if (error == -ENOENT)
        return hl_fail(err, ENOENT, "there is no index in %s", path);
    if (error == -EBADMSG)
        return hl_fail(err, EBADMSG, "the index in %s is damaged", path);
    if (error == -EPROTONOSUPPORT) /* as good as damaged: it is made again from the log */
        return hl_fail(err, EBADMSG, "the index in %s was made by another version", path);
    if (error < 0)
        return hl_fail(err, -error, "cannot open the index in %s: %s", path, strerror(-error));
    if (store_id && memcmp(meta.store_id, store_id, sizeof meta.store_id) != 0)
        return hl_fail(err, EBADMSG, "the index in %s is that of another store", path);
    /* Slots of processes that died would keep old pages from being used again. */
    if (!(index->flags & INDEX_READ_ONLY))
        error = index_reader_check(index);
    return error < 0 ? hl_fail(err, -error, "cannot examine the readers of %s: %s", path,
                               strerror(-error))
                     : 0;
}

int index_open_sized(const char *path, unsigned flags, const uint8_t store_id[16], size_t map_size,
                     struct index **index, struct hl_error *err)
{
    *index = NULL;
    bool read_only = (flags & INDEX_READ_ONLY) != 0;
    if ((read_only && (flags & (INDEX_CREATE | INDEX_BUILD))) ||
        (!read_only && (flags & INDEX_NO_LOCK)) || ((flags & INDEX_CREATE) && !store_id))
        return hl_fail(err, EINVAL, "these ways of opening an index exclude each other");
    struct index *opened = calloc(1, sizeof *opened);
    if (!opened)
        return hl_fail(err, ENOMEM, "out of memory");
    opened->flags = flags;
    pthread_mutex_init(&opened->mutex, NULL);
    pthread_cond_init(&opened->changed, NULL);
    int error = open_index(opened, path, store_id, map_size, err);
    if (error < 0) {
        index_close(opened);
        return error;
    }
    *index = opened;
    return 0;
}

int index_open(const char *path, unsigned flags, const uint8_t store_id[16], struct index **index,
               struct hl_error *err)
{
    return index_open_sized(path, flags, store_id, 0, index, err);
}

void index_close(struct index *index)
{
    if (!index)
        return;
    while (index->pool) {
        struct index_view *view = index->pool;
        index->pool = view->next;
        mdb_txn_abort(view->at.txn);
        free(view);
    }
    if (index->env)
        mdb_env_close(index->env);
    pthread_cond_destroy(&index->changed);
    pthread_mutex_destroy(&index->mutex);
    free(index);
}

/* ---- writing ---- */

int index_begin(struct index *index, struct index_txn **txn)
{
    if (index->flags & INDEX_READ_ONLY)
        return -EROFS;
    struct index_txn *begun = calloc(1, sizeof *begun);
    if (!begun)
        return -ENOMEM;
    begun->index = index;
    begun->at.index = index;
    int error = index_error(mdb_txn_begin(index->env, NULL, 0, &begun->at.txn));
    if (error < 0) {
        free(begun);
        return error;
    }
    error = index_meta_get(&begun->at, &begun->meta);
    if (error < 0) {
        index_abort(begun);
        return error;
    }
    *txn = begun;
    return 0;
}

int index_commit(struct index_txn *txn)
{
    struct index *index = txn->index;
    int error = txn->failed;
    if (txn->edited)
        txn->meta.epoch++;
    if (error == 0 && (txn->meta_changed || txn->edited))
        error = index_meta_store(txn, &txn->meta);
    if (error < 0) {
        index_abort(txn);
        return tell_full(index, error);
    }
    error = tell_full(index, index_error(mdb_txn_commit(txn->at.txn)));
    free(txn);
    return error;
}

void index_abort(struct index_txn *txn)
{
    if (!txn)
        return;
    mdb_txn_abort(txn->at.txn);
    free(txn);
}

/* ---- the environment as a whole ---- */

int index_sync(struct index *index)
{
    if (index->flags & INDEX_READ_ONLY)
        return -EROFS;
    int error = tell_full(index, index_error(mdb_env_sync(index->env, 1)));
    if (error == 0 && (index->flags & INDEX_BUILD)) {
        error = index_error(mdb_env_set_flags(index->env, MDB_NOSYNC, 0));
        if (error == 0)
            index->flags &= ~INDEX_BUILD;
    }
    return error;
}

int index_file(struct index *index, dev_t *device, ino_t *inode)
{
    int fd;
    struct stat st;
    int error = index_error(mdb_env_get_fd(index->env, &fd));
    if (error == 0 && fstat(fd, &st) < 0)
        error = -errno;
    if (error < 0)
        return error;
    *device = st.st_dev;
    *inode = st.st_ino;
    return 0;
}

uint64_t index_bytes(struct index *index)
{
    int fd;
    struct stat st;
    if (mdb_env_get_fd(index->env, &fd) != 0 || fstat(fd, &st) < 0)
        return 0;
    return (uint64_t)st.st_blocks * 512;
}

uint64_t index_txn_id(struct index *index)
{
    MDB_envinfo info;
    if (index_enter(index, NULL) < 0)
        return 0;
    int error = index_error(mdb_env_info(index->env, &info));
    index_leave(index, NULL);
    return error == 0 ? info.me_last_txnid : 0;
}

bool index_is_replaced(const struct index *index)
{
    int fd;
    struct stat st;
    return mdb_env_get_fd(index->env, &fd) == 0 && fstat(fd, &st) == 0 && st.st_nlink == 0;
}

int index_reader_check(struct index *index)
{
    int dead;
    return index_error(mdb_reader_check(index->env, &dead));
}

int index_copy(struct index *index, int fd)
{
    int error = index_enter(index, NULL);
    if (error < 0)
        return error;
    error = index_error(mdb_env_copyfd2(index->env, fd, MDB_CP_COMPACT));
    index_leave(index, NULL);
    return error;
}
