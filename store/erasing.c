/* erasing.c - see erasing.h. */
#include "erasing.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

#define NAME "erasing"
#define FILE_MAX (UINT64_C(1) << 20) /* bytes that are read */

/* ---- the list; erasing_lock is held ---- */

static struct hl_erasing *find(struct hl_store *store, uint32_t number)
{
    for (size_t i = 0; i < store->erasing_count; i++) {
        if (store->erasing[i].number == number)
            return &store->erasing[i];
    }
    return NULL;
}

static int put(struct hl_store *store, uint32_t number, const char *id, size_t id_len)
{
    struct hl_erasing *at = find(store, number);
    if (!at) {
        size_t size = (store->erasing_count + 1) * sizeof *store->erasing;
        struct hl_erasing *grown = realloc(store->erasing, size);
        if (!grown)
            return -ENOMEM;
        store->erasing = grown;
        at = &grown[store->erasing_count++];
    }
    *at = (struct hl_erasing){.number = number, .id_len = (uint16_t)id_len};
    memcpy(at->id, id, id_len);
    return 0;
}

static void take_out(struct hl_store *store, struct hl_erasing *at)
{
    size_t behind = store->erasing_count - (size_t)(at - store->erasing) - 1;
    memmove(at, at + 1, behind * sizeof *at);
    store->erasing_count--;
}

/* ---- the file; likewise ---- */

static int remove_file(struct hl_store *store)
{
    int error = store->io->unlink(store->io->context, store->dirfd, NAME, 0);
    if (error == -ENOENT)
        return 0;
    return error == 0 ? hl_io_fsync(store->io, store->dirfd) : error;
}

static int save(struct hl_store *store)
{
    if (store->erasing_count == 0)
        return remove_file(store);
    char *text = malloc(store->erasing_count * (JSON_ESCAPE_MAX((size_t)HL_ID_MAX) + 32) + 8);
    size_t n = 0;
    if (!text)
        return -ENOMEM;
    for (size_t i = 0; i < store->erasing_count; i++) {
        const struct hl_erasing *at = &store->erasing[i];
        n += (size_t)sprintf(text + n, "%c\"%" PRIu32 "\":", i == 0 ? '{' : ',', at->number);
        n += json_escape(at->id, at->id_len, text + n);
    }
    n += (size_t)sprintf(text + n, "}\n");
    int error = hl_io_put_file(store->io, store->dirfd, NAME, text, n);
    free(text);
    return error;
}

static bool read_member(void *context, const struct json_member *member)
{
    struct hl_store *store = context;
    char id[HL_ID_MAX];
    uint64_t number;
    size_t len = member->type == JSON_STRING
                     ? json_unescape(member->value.at + 1, member->value.len - 2, id, sizeof id)
                     : SIZE_MAX;
    return len != SIZE_MAX && json_to_u64(member->key, UINT32_MAX - 1, &number) && number > 0 &&
           put(store, (uint32_t)number, id, len) == 0;
}

static int load(struct hl_store *store)
{
    char *text;
    size_t len = 0;
    int error = hl_io_get_file(store->io, store->dirfd, NAME, FILE_MAX, &text, &len);
    if (error == 0 && json_scan_object(text, len, read_member, store, NULL) != JSON_OK)
        error = -EBADMSG;
    free(text);
    return error;
}

/* ---- from outside ---- */

void erasing_load(struct hl_store *store)
{
    struct hl_erasing erasing;
    pthread_mutex_lock(&store->erasing_lock);
    int error = load(store);
    pthread_mutex_unlock(&store->erasing_lock);
    if (error < 0 && error != -ENOENT)
        store_report(store, HL_ERROR,
                     "DIR/%s cannot be used (%s): bytes of a session that was to be erased may be "
                     "left, and it is not known of which",
                     NAME, error == -EBADMSG ? "it is damaged" : strerror(-error));
    for (uint32_t after = 0; hl_erasing_next(store, after, &erasing) == 0;) {
        after = erasing.number;
        /* Only what was deleted is erased: what is there was never deleted, or has got the number
         * after a crash that lost the other. */
        if (lookup_removed(store, after) != 1 && !store->options.read_only)
            (void)erasing_remove(store, after);
        else
            store_report(store, HL_WARNING,
                         "session %" PRIu32 " (%.100s) was being erased: bytes of it may be left",
                         after, erasing.id);
    }
}

void erasing_free(struct hl_store *store)
{
    free(store->erasing);
    store->erasing = NULL;
    store->erasing_count = 0;
}

int erasing_add(struct hl_store *store, const struct hl_session *session)
{
    int error = 0;
    pthread_mutex_lock(&store->erasing_lock);
    if (!find(store, session->number)) {
        error = put(store, session->number, session->id, session->id_len);
        if (error == 0)
            error = save(store);
        if (error < 0 && find(store, session->number))
            take_out(store, find(store, session->number));
    }
    pthread_mutex_unlock(&store->erasing_lock);
    return error;
}

int erasing_remove(struct hl_store *store, uint32_t number)
{
    int error = 0;
    pthread_mutex_lock(&store->erasing_lock);
    struct hl_erasing *at = find(store, number);
    if (at) {
        struct hl_erasing before = *at;
        take_out(store, at);
        error = save(store);
        if (error < 0)
            (void)put(store, before.number, before.id, before.id_len);
    }
    pthread_mutex_unlock(&store->erasing_lock);
    return error;
}

bool erasing_has(struct hl_store *store, uint32_t number)
{
    pthread_mutex_lock(&store->erasing_lock);
    bool has = find(store, number) != NULL;
    pthread_mutex_unlock(&store->erasing_lock);
    return has;
}

int hl_erasing_next(struct hl_store *store, uint32_t after, struct hl_erasing *erasing)
{
    const struct hl_erasing *next = NULL;
    pthread_mutex_lock(&store->erasing_lock);
    for (size_t i = 0; i < store->erasing_count; i++) {
        const struct hl_erasing *at = &store->erasing[i];
        if (at->number > after && (!next || at->number < next->number))
            next = at;
    }
    if (next)
        *erasing = *next;
    pthread_mutex_unlock(&store->erasing_lock);
    return next ? 0 : -ENOENT;
}

void erasing_go_on(struct hl_store *store, struct hl_progress *progress)
{
    struct hl_erasing erasing;
    for (uint32_t after = 0; hl_erasing_next(store, after, &erasing) == 0;) {
        struct hl_error err = {0};
        after = erasing.number;
        int error = erasing_finish(store, after, progress, &err);
        if (error == 0)
            store_report(store, HL_INFO, "session %" PRIu32 ": what was left of it is erased",
                         after);
        else if (error == -EINTR)
            return;
        else
            store_report(store, HL_WARNING,
                         "session %" PRIu32 ": bytes of it may be left, it cannot be erased: %s",
                         after, err.text[0] ? err.text : strerror(-error));
    }
}
