/* sessions.c - making sessions, and changing what is known of them: each change is a session frame.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "core.h"
#include "json.h"
#include "session.h"

int hl_session_create(struct hl_store *store, const char *id, size_t len, uint32_t uid,
                      uint32_t gid, uint32_t mode, struct hl_session *session, struct hl_error *err)
{
    if (!hl_session_id_valid(id, len))
        return hl_fail(err, EINVAL, "a session's id is 1 to %d bytes of UTF-8", HL_ID_MAX);
    struct mem_session *made;
    pthread_mutex_lock(&store->append_lock);
    int error = log_prepare(store, err);
    if (error < 0)
        goto out;
    error = lookup_for_append(store, 0, id, len, &made);
    if (error == 0) {
        session_from_row(session, &made->row);
        error = hl_fail(err, EEXIST, "the session exists");
    }
    if (error != -ENOENT)
        goto out;
    uint64_t now = log_clock(store);
    struct index_row row = {
        .number = store->next_session,
        .uid = uid,
        .gid = gid,
        .mode = mode & 07777,
        .created_ms = now,
        .changed_ms = now,
        .id = id,
        .id_len = (uint16_t)len,
    };
    error = -ENOSPC;
    if (row.number == UINT32_MAX) {
        hl_fail(err, ENOSPC, "no session number is left");
        goto out;
    }
    pthread_rwlock_wrlock(&store->mem_lock);
    made = memtable_add_session(store->table, &row);
    if (made)
        made->hidden = true;
    pthread_rwlock_unlock(&store->mem_lock);
    error = made ? log_write_session(store, &row, now, err) : hl_fail(err, ENOMEM, "out of memory");
    pthread_rwlock_wrlock(&store->mem_lock);
    if (error == 0) {
        made->hidden = false;
        memtable_note_created(store->table, row.number);
        store->sessions++;
        store->next_session++;
        session_from_row(session, &made->row);
    } else if (made) {
        memtable_drop(store->table, store->table->session_count - 1);
    }
    pthread_rwlock_unlock(&store->mem_lock);
out:
    pthread_mutex_unlock(&store->append_lock);
    return error;
}

/* What a change does to a row, before it is logged; the attributes of `row` may be replaced by a
 * block that *owned then holds. */
typedef int row_change(void *context, struct index_row *row, void **owned);

/* Logs the changed row, then puts it in place. */
static int change_row(struct hl_store *store, uint32_t number, row_change *change, void *context,
                      struct hl_session *session)
{
    struct mem_session *current;
    void *owned = NULL;
    pthread_mutex_lock(&store->append_lock);
    int error = log_prepare(store, NULL);
    if (error == 0)
        error = lookup_for_append(store, number, NULL, 0, &current);
    if (error < 0)
        goto out;
    struct index_row row = current->row;
    error = change(context, &row, &owned);
    if (error == 0)
        error = log_write_session(store, &row, log_clock(store), NULL);
    if (error == 0) {
        pthread_rwlock_wrlock(&store->mem_lock);
        current->row.uid = row.uid;
        current->row.gid = row.gid;
        current->row.mode = row.mode;
        current->row.documents.history_from = row.documents.history_from;
        if (owned)
            memtable_take_attributes(store->table, current, owned, row.attributes_len);
        owned = NULL;
        if (session)
            session_from_row(session, &current->row);
        pthread_rwlock_unlock(&store->mem_lock);
    }
out:
    pthread_mutex_unlock(&store->append_lock);
    free(owned);
    return error;
}

struct ownership {
    unsigned what;
    uint32_t uid, gid, mode;
};

static int change_ownership(void *context, struct index_row *row, void **owned)
{
    const struct ownership *to = context;
    (void)owned;
    if (to->what & HL_CHANGE_UID)
        row->uid = to->uid;
    if (to->what & HL_CHANGE_GID)
        row->gid = to->gid;
    if (to->what & HL_CHANGE_MODE)
        row->mode = to->mode & 07777;
    return 0;
}

int hl_session_change(struct hl_store *store, uint32_t number, unsigned what, uint32_t uid,
                      uint32_t gid, uint32_t mode, struct hl_session *session)
{
    struct ownership to = {.what = what, .uid = uid, .gid = gid, .mode = mode};
    return change_row(store, number, change_ownership, &to, session);
}

static int change_history(void *context, struct index_row *row, void **owned)
{
    const uint64_t *from = context;
    (void)owned;
    if (row->documents.history_from >= *from)
        return -EALREADY;
    row->documents.history_from = *from;
    return 0;
}

int session_set_history(struct hl_store *store, uint32_t number, uint64_t from)
{
    int error = change_row(store, number, change_history, &from, NULL);
    return error == -EALREADY ? 0 : error;
}

/* ---- attributes ---- */

struct reading {
    const char *name;
    char *out;
    size_t size, used;
};

static int read_attribute(void *context, const struct index_row *row)
{
    struct reading *reading = context;
    const void *value;
    uint32_t len;
    if (!attributes_find(row->attributes, row->attributes_len, reading->name, &value, &len))
        return -ENODATA;
    reading->used = len;
    if (reading->size == 0)
        return 0;
    if (len > reading->size)
        return -ERANGE;
    memcpy(reading->out, value, len);
    return 0;
}

ssize_t hl_attribute_get(struct hl_store *store, uint32_t number, const char *name, void *value,
                         size_t size)
{
    struct reading reading = {.name = name, .out = value, .size = size};
    int error = lookup_row(store, number, NULL, 0, read_attribute, &reading);
    return error < 0 ? error : (ssize_t)reading.used;
}

static int list_name(void *context, const char *name, size_t name_len, const void *value,
                     uint32_t len)
{
    struct reading *reading = context;
    (void)value;
    (void)len;
    if (reading->size > 0) {
        if (reading->size - reading->used < name_len + 1)
            return -ERANGE;
        memcpy(reading->out + reading->used, name, name_len);
        reading->out[reading->used + name_len] = 0;
    }
    reading->used += name_len + 1;
    return 0;
}

static int list_attributes(void *context, const struct index_row *row)
{
    return attributes_each(row->attributes, row->attributes_len, list_name, context);
}

ssize_t hl_attribute_list(struct hl_store *store, uint32_t number, char *names, size_t size)
{
    struct reading reading = {.out = names, .size = size};
    int error = lookup_row(store, number, NULL, 0, list_attributes, &reading);
    return error < 0 ? error : (ssize_t)reading.used;
}

struct setting {
    const char *name;
    const void *value; /* NULL: remove */
    size_t size;
    int flags;
};

static int set_attribute(void *context, struct index_row *row, void **owned)
{
    const struct setting *setting = context;
    const void *old;
    uint32_t old_len;
    bool there =
        attributes_find(row->attributes, row->attributes_len, setting->name, &old, &old_len);
    if (!there && (!setting->value || setting->flags & XATTR_REPLACE))
        return -ENODATA;
    if (there && setting->flags & XATTR_CREATE)
        return -EEXIST;
    uint32_t len;
    int error = attributes_change(row->attributes, row->attributes_len, setting->name,
                                  setting->value, setting->size, owned, &len);
    if (error == 0) {
        row->attributes = *owned;
        row->attributes_len = len;
    }
    return error;
}

int hl_attribute_set(struct hl_store *store, uint32_t number, const char *name, const void *value,
                     size_t size, int flags)
{
    if (!json_utf8_valid(name, strlen(name), NULL)) /* it stands in the log as JSON */
        return -EINVAL;
    struct setting setting = {
        .name = name, .value = value ? value : "", .size = size, .flags = flags};
    return change_row(store, number, set_attribute, &setting, NULL);
}

int hl_attribute_remove(struct hl_store *store, uint32_t number, const char *name)
{
    struct setting setting = {.name = name};
    return change_row(store, number, set_attribute, &setting, NULL);
}
