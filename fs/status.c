/*
 * status.c - the files that are written at the moment they are opened: .status, .metrics
 * (metrics.c), meta and last_error.
 */
#include "announce.h"
#include "draft.h"
#include "follow.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"

/* ---- .status ----------------------------------------------------------------------------------
 */

const char *fs_errno_name(int code)
{
    const char *name = strerrorname_np(code);
    return name ? name : "UNKNOWN";
}

static void write_error_members(struct json_writer *writer, const struct last_error *error)
{
    json_number(writer, "ts_ms", error->ts_ms);
    json_string(writer, "errno", fs_errno_name(error->code));
    if (error->line)
        json_number(writer, "line", error->line);
    else
        json_null(writer, "line");
    json_string(writer, "reason", error->text);
}

static void write_options(struct json_writer *writer, const struct fs_options *options)
{
    json_open(writer, "options", '{');
    json_bool(writer, "ro", options->read_only);
    json_bool(writer, "allow_other", options->allow_other);
    json_bool(writer, "sync", options->sync);
    json_number(writer, "sync_interval_ms", options->sync_interval_ms);
    json_number(writer, "segment_size", options->segment_size);
    json_number(writer, "max_record", options->max_record);
    json_number(writer, "announce_max", options->announce_max);
    json_number(writer, "checkpoint_interval_ms", options->checkpoint_interval_ms);
    json_number(writer, "compact_interval_ms", options->compact_interval_ms);
    json_number(writer, "compact_threshold", options->compact_threshold);
    json_number(writer, "history_ms", options->history_ms);
    json_number(writer, "backups", options->backups);
    json_number(writer, "pieces_max", options->pieces_max);
    json_number(writer, "scratch_max", options->scratch_max);
    json_number(writer, "user_pieces_max", options->user_pieces_max);
    json_number(writer, "user_scratch_max", options->user_scratch_max);
    json_number(writer, "user_files_max", options->user_files_max);
    json_number(writer, "spin_us", options->spin_us);
    json_close(writer, '}');
}

/* What the scheduler does; a compaction by command is in "running". */
static void write_compaction(struct json_writer *writer, const struct hl_status *status)
{
    json_number(writer, "compactions", status->compactions);
    json_number(writer, "compact_last_ms", status->compact_last_ms);
    if (status->compact_error)
        json_string(writer, "compact_error", fs_errno_name(status->compact_error));
    else
        json_null(writer, "compact_error");
    if (status->compact_next_ms)
        json_number(writer, "compact_next_ms", status->compact_next_ms);
    else
        json_null(writer, "compact_next_ms");
    if (status->compacting) {
        json_open(writer, "compacting", '{');
        json_number(writer, "done", status->compact_done);
        json_number(writer, "total", status->compact_total);
        json_close(writer, '}');
    } else {
        json_null(writer, "compacting");
    }
    json_bool(writer, "retain_suspended", status->retain_suspended);
}

/* Sessions of which bytes may be left, by their numbers: their names are not for everybody. */
static void write_erasing(struct fs *fs, struct json_writer *writer)
{
    struct hl_erasing erasing = {.number = 0};

    json_open(writer, "erasing", '[');
    while (hl_erasing_next(fs->store, erasing.number, &erasing) == 0)
        json_number(writer, NULL, erasing.number);
    json_close(writer, ']');
}

static void write_store(struct json_writer *writer, const struct hl_status *status)
{
    json_string(writer, "store_id", status->store_id);
    json_bool(writer, "read_only", status->read_only);
    if (status->failed)
        json_string(writer, "failed", fs_errno_name(status->failed));
    else
        json_null(writer, "failed");
    json_number(writer, "sessions", status->sessions);
    json_number(writer, "records", status->records);
    json_number(writer, "bytes", status->bytes);
    json_number(writer, "segments", status->segments);
    json_number(writer, "log_bytes", status->log_bytes);
    json_number(writer, "index_bytes", status->index_bytes);
    json_number(writer, "position", status->position);
    json_number(writer, "synced", status->synced);
    json_number(writer, "indexed", status->indexed);
    json_number(writer, "memtable_bytes", status->memtable_bytes);
    json_number(writer, "memtable_records", status->memtable_records);
    json_number(writer, "appends", status->appends);
    json_number(writer, "syncs", status->syncs);
    json_number(writer, "flushes", status->flushes);
    json_number(writer, "checkpoints", status->checkpoints);
    json_number(writer, "checkpoint_ms", status->checkpoint_ms);
    json_number(writer, "drops", status->drops);
    json_number(writer, "dead_bytes", status->dead_bytes);
    json_number(writer, "freed_bytes", status->freed_bytes);
    json_number(writer, "backup_bytes", status->backup_bytes);
    json_number(writer, "reserve_bytes", status->reserve_bytes);
    write_compaction(writer, status);
    json_number(writer, "damage_found", status->damage_found);
    json_number(writer, "quarantined_bytes", status->quarantined_bytes);
    json_number(writer, "recovered_records", status->recovered_records);
    json_number(writer, "recovery_ms", status->recovery_ms);
}

static int make_status(struct fs *fs, bool whole, struct json_writer *writer)
{
    struct hl_status status;
    struct last_error error;

    int result = hl_store_status(fs->store, &status);
    if (result < 0)
        return result;
    json_open(writer, NULL, '{');
    json_string(writer, "version", HL_VERSION);
    json_string(writer, "dir", fs->options->dir);
    json_string(writer, "mountpoint", fs->options->mountpoint);
    json_number(writer, "uptime_ms", fs_tick_ms() - fs->started_tick);
    write_store(writer, &status);
    write_erasing(fs, writer);
    json_number(writer, "kept_bytes", atomic_load(&fs->used[SHARE_PIECES]));
    json_number(writer, "unread_bytes", atomic_load(&fs->used[SHARE_ANSWERS]));
    json_number(writer, "scratch_files", drafts_scratch_files(fs->drafts));
    json_number(writer, "scratch_bytes", atomic_load(&fs->used[SHARE_SCRATCH]));
    json_number(writer, "table_nodes", table_size(fs->table));
    announcer_status(fs->announcer, writer);
    json_number(writer, "followers", follow_count(fs->follow));
    result = sums_write(fs, 0, whole, writer);
    if (result < 0)
        return result;
    ctl_running(fs->ctl, writer);
    if (whole && last_errors_get(fs->last_errors, 0, &error)) {
        json_open(writer, "last_error", '{');
        write_error_members(writer, &error);
        json_close(writer, '}');
    } else {
        json_null(writer, "last_error");
    }
    write_options(writer, fs->options);
    json_close(writer, '}');
    return 0;
}

/* ---- meta -------------------------------------------------------------------------------------
 */

/* A value that is not UTF-8 is null: JSON cannot hold it, getfattr(1) shows it. */
static int write_attribute(struct fs *fs, uint32_t number, const char *name, char *value,
                           struct json_writer *writer)
{
    ssize_t len = hl_attribute_get(fs->store, number, name, value, HL_ATTRIBUTES_MAX);
    if (len == -ENODATA)
        return 0; /* removed since it was listed */
    if (len < 0)
        return (int)len;
    if (text_utf8_valid(value, (size_t)len))
        json_text(writer, name, value, (size_t)len);
    else
        json_null(writer, name);
    return 0;
}

static int write_attributes(struct fs *fs, uint32_t number, struct json_writer *writer)
{
    int result = 0;

    json_open(writer, "attributes", '{');
    ssize_t len = hl_attribute_list(fs->store, number, NULL, 0);
    if (len > 0) {
        char *names = malloc(2 * HL_ATTRIBUTES_MAX);
        if (!names)
            return -ENOMEM;
        char *value = names + HL_ATTRIBUTES_MAX;
        len = hl_attribute_list(fs->store, number, names, HL_ATTRIBUTES_MAX);
        for (ssize_t at = 0; at < len && result == 0;) {
            result = write_attribute(fs, number, names + at, value, writer);
            at += (ssize_t)strnlen(names + at, (size_t)(len - at)) + 1;
        }
        free(names);
    }
    json_close(writer, '}');
    return len < 0 ? (int)len : result;
}

static int make_meta(struct fs *fs, uint32_t number, struct json_writer *writer)
{
    struct hl_session session;
    char mode[8];

    int result = hl_session_by_number(fs->store, number, &session);
    if (result < 0)
        return result;
    json_open(writer, NULL, '{');
    json_text(writer, "session_id", session.id, session.id_len);
    json_number(writer, "number", session.number);
    json_number(writer, "uid", fs_owner(fs, &session));
    json_number(writer, "gid", session.gid);
    snprintf(mode, sizeof mode, "%04o", session.mode & 07777);
    json_string(writer, "mode", mode);
    json_number(writer, "created_ms", session.created_ms);
    json_number(writer, "changed_ms", session.changed_ms);
    json_number(writer, "records", session.records);
    json_number(writer, "bytes", session.bytes);
    if (session.records > 0)
        json_number(writer, "first_seq", session.first_seq);
    else
        json_null(writer, "first_seq");
    if (session.has_seq)
        json_number(writer, "last_seq", session.last_seq);
    else
        json_null(writer, "last_seq");
    json_number(writer, "documents", session.documents);
    json_number(writer, "operations", session.operations);
    json_number(writer, "history_from", session.history_from);
    result = sums_write(fs, number, true, writer);
    if (result == 0)
        result = write_attributes(fs, number, writer);
    json_close(writer, '}');
    return result;
}

/* ---- all --------------------------------------------------------------------------------------
 */

/* One line, or nothing when no write was refused. */
static int make_last_error(struct fs *fs, uint32_t number, struct json_writer *writer)
{
    struct last_error error;

    if (!last_errors_get(fs->last_errors, number, &error))
        return 0;
    json_open(writer, NULL, '{');
    write_error_members(writer, &error);
    json_close(writer, '}');
    return 0;
}

bool text_whole_for(struct fs *fs, uid_t uid)
{
    return !fs->options->allow_other || uid == 0 || uid == fs->uid;
}

int text_make(struct fs *fs, const struct node *node, bool whole, struct text *text)
{
    struct json_writer writer = {.pretty = node->kind != NODE_LAST_ERROR};
    int result;

    if (node->kind == NODE_METRICS)
        result = metrics_make(fs, whole, &writer.text);
    else if (node->kind == NODE_STATUS)
        result = make_status(fs, whole, &writer);
    else if (node->kind == NODE_META)
        result = make_meta(fs, node->session, &writer);
    else
        result = make_last_error(fs, node->session, &writer);
    if (result == 0 && writer.text.failed)
        result = -ENOMEM;
    if (result < 0) {
        text_free(&writer.text);
        return result;
    }
    *text = writer.text;
    return 0;
}

void text_attr_for(struct fs *fs, const struct node *node, uid_t uid, struct fs_attr *attr)
{
    struct text text;

    if ((node->kind != NODE_STATUS && node->kind != NODE_METRICS) || text_whole_for(fs, uid) ||
        text_make(fs, node, false, &text) < 0)
        return;
    fs_attr_size(attr, text.len);
    text_free(&text);
}

/* ---- open files of these ----------------------------------------------------------------------
 */

struct text_handle {
    struct handle base;
    struct text text; /* as it was at the open; never changes */
};

static ssize_t text_read(struct fs *fs, struct handle *handle, char *buffer, size_t size,
                         uint64_t offset)
{
    const struct text *text = &((struct text_handle *)handle)->text;
    (void)fs;

    if (offset >= text->len)
        return 0;
    if (size > text->len - offset)
        size = text->len - (size_t)offset;
    memcpy(buffer, text->at + offset, size);
    return (ssize_t)size;
}

static void text_release(struct fs *fs, struct handle *handle)
{
    struct text *text = &((struct text_handle *)handle)->text;

    handle_unlink(fs, handle);
    share_give(fs, handle->user, SHARE_TEXTS, text->capacity);
    text_free(text);
    handle_free(fs, handle);
}

/* The size goes with the bytes that this handle reads, not with the text of now. */
static void text_attr(struct fs *fs, struct handle *handle, struct fs_attr *attr)
{
    (void)fs;
    fs_attr_size(attr, ((struct text_handle *)handle)->text.len);
}

static const struct handle_type text_type = {
    .read = text_read, .attr = text_attr, .release = text_release};

int text_open(struct fs *fs, const struct node *node, uid_t uid, struct handle **handle)
{
    int result = handle_new(fs, sizeof(struct text_handle), &text_type, uid, handle);
    if (result < 0)
        return result;
    struct text *text = &((struct text_handle *)*handle)->text;
    result = text_make(fs, node, text_whole_for(fs, uid), text);
    if (result == 0 && share_take(fs, (*handle)->user, SHARE_TEXTS, text->capacity) != TAKEN) {
        text_free(text);
        result = -ENOBUFS;
    }
    if (result < 0)
        handle_free(fs, *handle);
    else
        handle_link(fs, *handle);
    return result;
}
