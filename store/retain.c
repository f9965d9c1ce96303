/* retain.c - see retain.h. */
#include "retain.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

#define NAME "retain"
#define FILE_MAX                                                                     \
    (UINT64_C(256) << 20) /* bytes that are read; with a rule for a million sessions \
                           */

struct retain_entry {
    struct hl_rule rule;
    uint16_t id_len;
    char *id; /* owned */
};

struct retain {
    struct hl_rule all;           /* with nothing in it: none */
    struct retain_entry *entries; /* ascending by id */
    size_t count, capacity;
    bool unsaved; /* the file still has a rule that was forgotten */
};

static bool is_empty(const struct hl_rule *rule)
{
    return !rule->has_age && !rule->has_count && !rule->has_bytes;
}

/* ---- the list ---- */

static int compare(const struct retain_entry *entry, const char *id, size_t id_len)
{
    size_t len = entry->id_len < id_len ? entry->id_len : id_len;
    int order = memcmp(entry->id, id, len);
    return order != 0 ? order : entry->id_len < id_len ? -1 : entry->id_len > id_len;
}

/* Its place, or where it belongs. */
static size_t place_of(const struct retain *retain, const char *id, size_t id_len, bool *found)
{
    size_t low = 0, high = retain->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare(&retain->entries[middle], id, id_len) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *found = low < retain->count && compare(&retain->entries[low], id, id_len) == 0;
    return low;
}

static void remove_entry(struct retain *retain, size_t i)
{
    free(retain->entries[i].id);
    memmove(retain->entries + i, retain->entries + i + 1,
            (--retain->count - i) * sizeof *retain->entries);
}

/* An empty rule takes it out. */
static int set_entry(struct retain *retain, const char *id, size_t id_len,
                     const struct hl_rule *rule)
{
    bool found;
    size_t i = place_of(retain, id, id_len, &found);
    if (found && is_empty(rule))
        remove_entry(retain, i);
    else if (found)
        retain->entries[i].rule = *rule;
    if (found || is_empty(rule))
        return 0;
    if (retain->count == retain->capacity) {
        size_t capacity = retain->capacity ? retain->capacity * 2 : 16;
        struct retain_entry *entries = realloc(retain->entries, capacity * sizeof *entries);
        if (!entries)
            return -ENOMEM;
        retain->entries = entries;
        retain->capacity = capacity;
    }
    char *copy = malloc(id_len);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, id, id_len);
    memmove(retain->entries + i + 1, retain->entries + i,
            (retain->count++ - i) * sizeof *retain->entries);
    retain->entries[i] =
        (struct retain_entry){.rule = *rule, .id = copy, .id_len = (uint16_t)id_len};
    return 0;
}

static void empty(struct retain *retain)
{
    for (size_t i = 0; i < retain->count; i++)
        free(retain->entries[i].id);
    free(retain->entries);
    *retain = (struct retain){.entries = NULL};
}

/* ---- the file ---- */

static size_t write_rule(const struct hl_rule *rule, char *out, size_t size)
{
    static const char *const names[] = {"age_ms", "count", "bytes"};
    const bool has[] = {rule->has_age, rule->has_count, rule->has_bytes};
    const uint64_t values[] = {rule->age_ms, rule->count, rule->bytes};
    size_t n = (size_t)snprintf(out, size, "{");
    for (size_t i = 0; i < 3; i++) {
        if (has[i])
            n += (size_t)snprintf(out + n, size - n, "%s\"%s\":%" PRIu64, n > 1 ? "," : "",
                                  names[i], values[i]);
    }
    return n + (size_t)snprintf(out + n, size - n, "}");
}

#define RULE_TEXT_MAX 128U

static int save(struct hl_store *store)
{
    const struct retain *retain = store->retain;
    size_t size = 256;
    for (size_t i = 0; i < retain->count; i++)
        size += JSON_ESCAPE_MAX((size_t)retain->entries[i].id_len) + RULE_TEXT_MAX;
    char *text = malloc(size);
    if (!text)
        return -ENOMEM;
    size_t n = (size_t)snprintf(text, size, "{\"all\":");
    if (is_empty(&retain->all))
        n += (size_t)snprintf(text + n, size - n, "null");
    else
        n += write_rule(&retain->all, text + n, size - n);
    n += (size_t)snprintf(text + n, size - n, ",\"sessions\":{");
    for (size_t i = 0; i < retain->count; i++) {
        if (i > 0)
            text[n++] = ',';
        n += json_escape(retain->entries[i].id, retain->entries[i].id_len, text + n);
        text[n++] = ':';
        n += write_rule(&retain->entries[i].rule, text + n, size - n);
    }
    n += (size_t)snprintf(text + n, size - n, "}}\n");
    int error = hl_io_put_file(store->io, store->dirfd, NAME, text, n);
    free(text);
    store->retain->unsaved = store->retain->unsaved && error < 0;
    return error;
}

struct reading {
    struct retain *retain;
    struct hl_rule *rule;
    int error;
};

static bool read_value(void *context, const struct json_member *member)
{
    struct reading *reading = context;
    struct hl_rule *rule = reading->rule;
    bool *has;
    uint64_t *value;
    if (json_string_equals(member->key.at, member->key.len, "age_ms", 6)) {
        has = &rule->has_age;
        value = &rule->age_ms;
    } else if (json_string_equals(member->key.at, member->key.len, "count", 5)) {
        has = &rule->has_count;
        value = &rule->count;
    } else if (json_string_equals(member->key.at, member->key.len, "bytes", 5)) {
        has = &rule->has_bytes;
        value = &rule->bytes;
    } else {
        return false; /* a rule that is not understood must not drop more than it says */
    }
    *has = member->type == JSON_NUMBER && json_to_u64(member->value, UINT64_MAX, value);
    return *has;
}

static bool read_rule(struct reading *reading, const struct json_member *member,
                      struct hl_rule *rule)
{
    *rule = (struct hl_rule){.has_age = false};
    reading->rule = rule;
    return member->type == JSON_OBJECT && json_scan_object(member->value.at, member->value.len,
                                                           read_value, reading, NULL) == JSON_OK;
}

static bool read_session(void *context, const struct json_member *member)
{
    struct reading *reading = context;
    struct hl_rule rule;
    char id[HL_ID_MAX];
    size_t len = json_unescape(member->key.at, member->key.len, id, sizeof id);
    if (len == SIZE_MAX || !hl_session_id_valid(id, len) || !read_rule(reading, member, &rule))
        return false;
    reading->error = set_entry(reading->retain, id, len, &rule);
    return reading->error == 0;
}

static bool read_top(void *context, const struct json_member *member)
{
    struct reading *reading = context;
    if (json_string_equals(member->key.at, member->key.len, "all", 3))
        return member->type == JSON_NULL || read_rule(reading, member, &reading->retain->all);
    return json_string_equals(member->key.at, member->key.len, "sessions", 8) &&
           member->type == JSON_OBJECT &&
           json_scan_object(member->value.at, member->value.len, read_session, reading, NULL) ==
               JSON_OK;
}

static int load(struct hl_store *store, struct retain *retain)
{
    struct reading reading = {.retain = retain};
    char *text;
    size_t len = 0;
    int error = hl_io_get_file(store->io, store->dirfd, NAME, FILE_MAX, &text, &len);
    if (error == 0 && json_scan_object(text, len, read_top, &reading, NULL) != JSON_OK)
        error = reading.error < 0 ? reading.error : -EBADMSG;
    free(text);
    return error;
}

/* A rule is set only for a session that is there. */
static void prune(struct hl_store *store)
{
    struct retain *retain = store->retain;
    struct hl_session session;
    for (size_t i = retain->count; i > 0; i--) {
        const struct retain_entry *entry = &retain->entries[i - 1];
        if (hl_session_by_id(store, entry->id, entry->id_len, &session) != -ENOENT)
            continue;
        store_report(store, HL_INFO, "the retain rule of a session that is not there is forgotten");
        remove_entry(retain, i - 1);
        retain->unsaved = true;
    }
}

void retain_load(struct hl_store *store)
{
    store->retain = calloc(1, sizeof *store->retain);
    if (!store->retain)
        return;
    int error = load(store, store->retain);
    if (error == 0 && !store->options.read_only)
        prune(store);
    retain_settle(store);
    if (error == 0 || error == -ENOENT)
        return;
    empty(store->retain);
    store_report(store, HL_ERROR, "DIR/%s cannot be used (%s): no rule drops anything", NAME,
                 error == -EBADMSG ? "it is damaged" : strerror(-error));
}

void retain_free(struct hl_store *store)
{
    if (store->retain)
        empty(store->retain);
    free(store->retain);
    store->retain = NULL;
}

/* ---- setting and asking ---- */

static int id_of(struct hl_store *store, uint32_t number, struct hl_session *session,
                 struct hl_error *err)
{
    int error = hl_session_by_number(store, number, session);
    return error < 0 ? hl_fail(err, -error, "there is no such session") : 0;
}

/* Sets, and takes it back if it cannot be stored. retain_lock is held. */
static int set(struct hl_store *store, const char *id, size_t id_len, const struct hl_rule *rule)
{
    struct retain *retain = store->retain;
    struct hl_rule before = {.has_age = false};
    bool found = false;
    if (!retain)
        return -ENOMEM;
    size_t i = id ? place_of(retain, id, id_len, &found) : 0;
    if (!id)
        before = retain->all;
    else if (found)
        before = retain->entries[i].rule;
    if (!id)
        retain->all = *rule;
    int error = id ? set_entry(retain, id, id_len, rule) : 0;
    if (error == 0)
        error = save(store);
    if (error < 0 && id)
        (void)set_entry(retain, id, id_len, &before);
    else if (error < 0)
        retain->all = before;
    return error;
}

int hl_retain_set(struct hl_store *store, uint32_t session, const struct hl_rule *rule,
                  struct hl_error *err)
{
    struct hl_session found;
    if (err)
        *err = (struct hl_error){0};
    int error = store_writable(store, err);
    if (error == 0 && session != 0)
        error = id_of(store, session, &found, err);
    if (error < 0)
        return error;
    pthread_mutex_lock(&store->retain_lock);
    error = set(store, session ? found.id : NULL, session ? found.id_len : 0, rule);
    pthread_mutex_unlock(&store->retain_lock);
    return error < 0 ? hl_fail(err, -error, "cannot keep the rule: %s", strerror(-error)) : 0;
}

int hl_retain_get(struct hl_store *store, uint32_t session, struct hl_rule *rule,
                  struct hl_error *err)
{
    struct hl_session found;
    bool is_there = false;
    *rule = (struct hl_rule){.has_age = false};
    if (err)
        *err = (struct hl_error){0};
    int error = session ? id_of(store, session, &found, err) : 0;
    if (error < 0)
        return error;
    pthread_mutex_lock(&store->retain_lock);
    const struct retain *retain = store->retain;
    size_t i = retain && session ? place_of(retain, found.id, found.id_len, &is_there) : 0;
    if (is_there)
        *rule = retain->entries[i].rule;
    else if (retain && !session)
        *rule = retain->all;
    pthread_mutex_unlock(&store->retain_lock);
    return 0;
}

int retain_forget(struct hl_store *store, const char *id, size_t id_len)
{
    bool found = false;
    int error = 0;
    pthread_mutex_lock(&store->retain_lock);
    struct retain *retain = store->retain;
    size_t i = retain ? place_of(retain, id, id_len, &found) : 0;
    if (found) {
        remove_entry(retain, i);
        retain->unsaved = true;
        error = save(store);
    }
    pthread_mutex_unlock(&store->retain_lock);
    return error;
}

void retain_settle(struct hl_store *store)
{
    pthread_mutex_lock(&store->retain_lock);
    if (store->retain && store->retain->unsaved)
        (void)save(store); /* tried again at the next run */
    pthread_mutex_unlock(&store->retain_lock);
}

bool retain_any(struct hl_store *store)
{
    pthread_mutex_lock(&store->retain_lock);
    bool any = store->retain && (!is_empty(&store->retain->all) || store->retain->count > 0);
    pthread_mutex_unlock(&store->retain_lock);
    return any;
}

bool retain_rule(struct hl_store *store, const char *id, size_t id_len, struct hl_rule *rule)
{
    bool found = false;
    *rule = (struct hl_rule){.has_age = false};
    pthread_mutex_lock(&store->retain_lock);
    const struct retain *retain = store->retain;
    if (retain) {
        size_t i = place_of(retain, id, id_len, &found);
        *rule = found ? retain->entries[i].rule : retain->all;
    }
    pthread_mutex_unlock(&store->retain_lock);
    return !is_empty(rule);
}
