/*
 * nullfs.c - a file system that does nothing, on libfuse's own loop: the floor of what FUSE costs.
 *
 *     nullfs MOUNTPOINT RECORDS LOG_BYTES
 *
 *     /w0 … /w63     takes every write, and forgets it; fsync succeeds
 *     /log           LOG_BYTES of text, read past the page cache
 *     /records/1 …   RECORDS files of one line each
 *
 * What the kernel may cache, and how files are opened, is as hotlogfs has it. It stays in the
 * foreground and ends when it is unmounted.
 */
#define FUSE_USE_VERSION 312

#include <errno.h>
#include <fuse3/fuse_lowlevel.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEEP 86400.0
#define WRITERS 64
#define LINE_BYTES 300
#define BUFFER_BYTES (1U << 20)

enum { INO_ROOT = FUSE_ROOT_ID, INO_LOG, INO_RECORDS, INO_WRITER = 16, INO_RECORD = 1U << 20 };

struct nullfs {
    uint64_t records, log_bytes;
    char text[BUFFER_BYTES]; /* lines of LINE_BYTES, over and over; what every read gives */
};

static struct nullfs *fs_of(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

/* ---- nodes ---- */

static bool fill_attr(const struct nullfs *fs, fuse_ino_t ino, struct stat *st)
{
    *st = (struct stat){.st_ino = ino, .st_nlink = 1, .st_mode = S_IFREG | 0600};
    if (ino == INO_ROOT || ino == INO_RECORDS) {
        st->st_mode = S_IFDIR | 0755;
    } else if (ino == INO_LOG) {
        st->st_size = (off_t)fs->log_bytes;
    } else if (ino > INO_RECORD && ino - INO_RECORD <= fs->records) {
        st->st_mode = S_IFREG | 0444;
        st->st_size = LINE_BYTES;
    } else if (ino < INO_WRITER || ino >= INO_WRITER + WRITERS) {
        return false;
    }
    return true;
}

/* A plain decimal without leading zeros. */
static bool parse_number(const char *text, uint64_t *number)
{
    char again[24], *end;
    *number = strtoull(text, &end, 10);
    snprintf(again, sizeof again, "%llu", (unsigned long long)*number);
    return *end == '\0' && strcmp(again, text) == 0;
}

static fuse_ino_t find(const struct nullfs *fs, fuse_ino_t parent, const char *name)
{
    uint64_t number;
    if (parent == INO_RECORDS)
        return parse_number(name, &number) && number > 0 && number <= fs->records
                   ? INO_RECORD + number
                   : 0;
    if (parent != INO_ROOT)
        return 0;
    if (strcmp(name, "log") == 0)
        return INO_LOG;
    if (strcmp(name, "records") == 0)
        return INO_RECORDS;
    if (name[0] == 'w' && parse_number(name + 1, &number) && number < WRITERS)
        return INO_WRITER + number;
    return 0;
}

static void null_init(void *userdata, struct fuse_conn_info *conn)
{
    (void)userdata;
    conn->want |= conn->capable & (FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
                                   FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_PARALLEL_DIROPS);
    conn->want &= ~(unsigned)FUSE_CAP_WRITEBACK_CACHE;
}

static void null_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param entry = {.attr_timeout = KEEP, .entry_timeout = KEEP};
    entry.ino = find(fs_of(req), parent, name);
    if (entry.ino == 0 || !fill_attr(fs_of(req), entry.ino, &entry.attr))
        fuse_reply_err(req, ENOENT);
    else
        fuse_reply_entry(req, &entry);
}

static void null_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct stat st;
    (void)fi;
    if (fill_attr(fs_of(req), ino, &st))
        fuse_reply_attr(req, &st, KEEP);
    else
        fuse_reply_err(req, ESTALE);
}

static void null_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *wanted, int flags,
                         struct fuse_file_info *fi)
{
    (void)wanted;
    (void)flags;
    null_getattr(req, ino, fi);
}

/* ---- files ---- */

static void null_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    fi->direct_io = ino < INO_RECORD;
    fi->keep_cache = ino > INO_RECORD;
    fuse_reply_open(req, fi);
}

static void null_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                      struct fuse_file_info *fi)
{
    const struct nullfs *fs = fs_of(req);
    uint64_t end = ino == INO_LOG ? fs->log_bytes : LINE_BYTES, at = (uint64_t)offset;
    (void)fi;
    if (size > BUFFER_BYTES)
        size = BUFFER_BYTES;
    if (at >= end)
        size = 0;
    else if (size > end - at)
        size = (size_t)(end - at);
    fuse_reply_buf(req, fs->text, size);
}

static void null_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
                       struct fuse_file_info *fi)
{
    (void)ino;
    (void)data;
    (void)offset;
    (void)fi;
    fuse_reply_write(req, size);
}

static void null_done(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    (void)fi;
    fuse_reply_err(req, 0);
}

static void null_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    (void)datasync;
    null_done(req, ino, fi);
}

/* ---- directories ---- */

/* Offsets are what follows the entry: 1 for the first. The root shows its two fixed names only. */
static fuse_ino_t entry_at(const struct nullfs *fs, fuse_ino_t ino, uint64_t at, char name[24])
{
    if (ino == INO_RECORDS) {
        if (at >= fs->records)
            return 0;
        snprintf(name, 24, "%llu", (unsigned long long)at + 1);
        return INO_RECORD + at + 1;
    }
    if (at >= 2)
        return 0;
    snprintf(name, 24, "%s", at == 0 ? "log" : "records");
    return at == 0 ? INO_LOG : INO_RECORDS;
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, bool plus)
{
    const struct nullfs *fs = fs_of(req);
    char name[24], *buffer = malloc(size);
    size_t used = 0;
    if (buffer == NULL) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    for (uint64_t at = (uint64_t)offset;; at++) {
        struct fuse_entry_param entry = {.attr_timeout = KEEP, .entry_timeout = KEEP};
        entry.ino = entry_at(fs, ino, at, name);
        if (entry.ino == 0)
            break;
        fill_attr(fs, entry.ino, &entry.attr);
        size_t need = plus ? fuse_add_direntry_plus(req, buffer + used, size - used, name, &entry,
                                                    (off_t)at + 1)
                           : fuse_add_direntry(req, buffer + used, size - used, name, &entry.attr,
                                               (off_t)at + 1);
        if (need > size - used)
            break;
        used += need;
    }
    fuse_reply_buf(req, buffer, used);
    free(buffer);
}

static void null_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                         struct fuse_file_info *fi)
{
    (void)fi;
    list(req, ino, size, offset, false);
}

static void null_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                             struct fuse_file_info *fi)
{
    (void)fi;
    list(req, ino, size, offset, true);
}

/* ---- the program ---- */

static const struct fuse_lowlevel_ops operations = {
    .init = null_init,
    .lookup = null_lookup,
    .getattr = null_getattr,
    .setattr = null_setattr,
    .open = null_open,
    .read = null_read,
    .write = null_write,
    .flush = null_done,
    .fsync = null_fsync,
    .release = null_done,
    .readdir = null_readdir,
    .readdirplus = null_readdirplus,
};

static void fill_text(struct nullfs *fs)
{
    for (size_t i = 0; i < BUFFER_BYTES; i++)
        fs->text[i] = i % LINE_BYTES == LINE_BYTES - 1 ? '\n' : 'n';
}

/* On the loop that libfuse brings, as its own examples have it. */
static int serve(struct fuse_session *session, const char *mountpoint)
{
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    int result = -1;
    if (config == NULL || fuse_set_signal_handlers(session) != 0)
        return -1;
    if (fuse_session_mount(session, mountpoint) == 0) {
        result = fuse_session_loop_mt(session, config);
        fuse_session_unmount(session);
    }
    fuse_remove_signal_handlers(session);
    fuse_loop_cfg_destroy(config);
    return result;
}

int main(int argc, char *argv[])
{
    char name[] = "nullfs", option[] = "-o", list_of[] = "fsname=nullfs,default_permissions";
    char *fuse_argv[] = {name, option, list_of, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(3, fuse_argv);
    struct nullfs *fs = calloc(1, sizeof *fs);
    if (argc != 4 || fs == NULL) {
        fputs("usage: nullfs MOUNTPOINT RECORDS LOG_BYTES\n", stderr);
        free(fs);
        return 2;
    }
    fs->records = strtoull(argv[2], NULL, 10);
    fs->log_bytes = strtoull(argv[3], NULL, 10);
    fill_text(fs);
    struct fuse_session *session = fuse_session_new(&args, &operations, sizeof operations, fs);
    int result = session != NULL ? serve(session, argv[1]) : -1;
    if (session != NULL)
        fuse_session_destroy(session);
    fuse_opt_free_args(&args);
    free(fs);
    return result < 0 ? 1 : 0;
}
