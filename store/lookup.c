/*
 * lookup.c - where sessions and records are found: the active table, the frozen one, the index.
 *
 * Each look-up goes through them in that order. The part of a session that a table holds begins
 * above base_last_seq (base_bytes); what lies below is further down.
 */
#include <errno.h>
#include <string.h>

#include "core.h"
#include "sums_batch.h"

/* Tables below which a session's part is looked for, newest first. */
#define TABLES 2

static void tables_of(const struct hl_store *store, const struct memtable *tables[TABLES])
{
    tables[0] = store->table;
    tables[1] = store->frozen;
}

static const struct mem_session *visible(const struct memtable *table, uint32_t number)
{
    const struct mem_session *session = table ? memtable_by_number(table, number) : NULL;
    return session && !session->hidden ? session : NULL;
}

/* mem_lock is held. */
static bool is_deleted(const struct hl_store *store, uint32_t number)
{
    const struct memtable *tables[TABLES];
    bool deleted = false;
    tables_of(store, tables);
    for (int i = 0; i < TABLES && !deleted; i++) {
        const struct mem_session *found =
            tables[i] && tables[i]->drops ? memtable_by_number(tables[i], number) : NULL;
        deleted = found && found->deleted;
    }
    return deleted;
}

int lookup_view(struct hl_store *store, struct index_view **view)
{
    pthread_rwlock_rdlock(&store->env_lock);
    int error = store->index ? index_view_begin(store->index, view) : -ENOENT;
    if (error < 0)
        pthread_rwlock_unlock(&store->env_lock);
    return error;
}

int lookup_view_of(struct hl_store *store, uint32_t session, struct index_view **view)
{
    pthread_rwlock_rdlock(&store->mem_lock);
    bool deleted = is_deleted(store, session);
    pthread_rwlock_unlock(&store->mem_lock);
    return deleted ? -ENOENT : lookup_view(store, view);
}

int lookup_removed(struct hl_store *store, uint32_t number)
{
    struct index_view *view;
    int error = lookup_view_of(store, number, &view);
    if (error < 0) {
        pthread_rwlock_rdlock(&store->mem_lock);
        bool deleted = is_deleted(store, number);
        pthread_rwlock_unlock(&store->mem_lock);
        return deleted ? 1 : error == -ENOENT ? 0 : error;
    }
    error = index_session_removed(view, number);
    return lookup_view_end(store, view, error);
}

/* What is damaged in an index that was trusted would be met again after each start: so there is no
 * mark of a clean end then, and the next start examines it. */
static int doubt(struct hl_store *store, int error)
{
    if (error == -EBADMSG && !atomic_exchange(&store->doubted, true))
        store_report(store, HL_ERROR,
                     "the index is damaged: what it does not show comes back with the command "
                     "`reindex`, or at the next start");
    return error;
}

int lookup_view_end(struct hl_store *store, struct index_view *view, int error)
{
    index_view_end(view);
    pthread_rwlock_unlock(&store->env_lock);
    return doubt(store, error);
}

void session_from_row(struct hl_session *session, const struct index_row *row)
{
    *session = (struct hl_session){
        .number = row->number,
        .uid = row->uid,
        .gid = row->gid,
        .mode = row->mode,
        .created_ms = row->created_ms,
        .changed_ms = row->changed_ms,
        .first_seq = row->first_seq,
        .last_seq = row->last_seq,
        .has_seq = row->has_seq,
        .records = row->records,
        .bytes = row->bytes,
        .gone = row->gone,
        .documents = row->documents.documents,
        .operations = row->documents.operations,
        .history_from = row->documents.history_from,
        .id_len = row->id_len,
    };
    memcpy(session->id, row->id, row->id_len);
    session->id[row->id_len] = 0;
}

int lookup_row(struct hl_store *store, uint32_t number, const char *id, size_t id_len,
               int (*use)(void *context, const struct index_row *row), void *context)
{
    const struct memtable *tables[TABLES];
    const struct mem_session *found = NULL;
    int result = -ENOENT;
    follow_writer(store);
    pthread_rwlock_rdlock(&store->mem_lock);
    tables_of(store, tables);
    for (int i = 0; i < TABLES && !found && tables[i]; i++) {
        found = id ? memtable_by_id(tables[i], id, id_len) : memtable_by_number(tables[i], number);
        if (found)
            result = found->hidden || found->deleted ? -ENOENT : use(context, &found->row);
    }
    pthread_rwlock_unlock(&store->mem_lock);
    if (found)
        return result;
    struct index_view *view;
    struct index_row row;
    int error = lookup_view(store, &view);
    if (error < 0)
        return error;
    error = id ? index_session_by_id(view, id, id_len, &row)
               : index_session_by_number(view, number, &row);
    if (error == 0) { /* a delete may not have come as far as the index */
        pthread_rwlock_rdlock(&store->mem_lock);
        error = is_deleted(store, row.number) ? -ENOENT : 0;
        pthread_rwlock_unlock(&store->mem_lock);
    }
    if (error == 0)
        error = use(context, &row);
    return lookup_view_end(store, view, error);
}

static int use_session(void *context, const struct index_row *row)
{
    session_from_row(context, row);
    return 0;
}

int hl_session_by_id(struct hl_store *store, const char *id, size_t len, struct hl_session *session)
{
    return lookup_row(store, 0, id, len, use_session, session);
}

int hl_session_by_number(struct hl_store *store, uint32_t number, struct hl_session *session)
{
    return lookup_row(store, number, NULL, 0, use_session, session);
}

/* The next number that the tables or the index have; it may be that of a session which is gone. */
static int next_number(struct hl_store *store, uint32_t after, uint32_t *number)
{
    const struct memtable *tables[TABLES];
    uint32_t best = 0;
    /* Sessions that the index has not yet were made since one of the tables was begun. */
    pthread_rwlock_rdlock(&store->mem_lock);
    tables_of(store, tables);
    for (int i = 0; i < TABLES && tables[i]; i++) {
        uint32_t created = memtable_next_created(tables[i], after);
        if (created && (!best || created < best))
            best = created;
    }
    pthread_rwlock_unlock(&store->mem_lock);

    struct index_view *view;
    struct index_row row;
    int error = lookup_view(store, &view);
    if (error == 0) {
        error = index_session_next(view, after, &row);
        if (error == 0 && (!best || row.number < best))
            best = row.number;
        error = lookup_view_end(store, view, error);
    }
    if (error < 0 && error != -ENOENT)
        return error;
    *number = best;
    return best ? 0 : -ENOENT;
}

int hl_session_next(struct hl_store *store, uint32_t after, struct hl_session *session)
{
    int error;
    follow_writer(store);
    do {
        error = next_number(store, after, &after);
        if (error == 0)
            error = hl_session_by_number(store, after, session);
        else
            break;
    } while (error == -ENOENT);
    return error;
}

int lookup_for_append(struct hl_store *store, uint32_t number, const char *id, size_t id_len,
                      struct mem_session **session)
{
    struct mem_session *found =
        id ? memtable_by_id(store->table, id, id_len) : memtable_by_number(store->table, number);
    if (found) {
        *session = found;
        return found->deleted ? -ENOENT : 0;
    }
    const struct mem_session *older = NULL;
    if (store->frozen)
        older = id ? memtable_by_id(store->frozen, id, id_len)
                   : memtable_by_number(store->frozen, number);
    if (older && older->deleted)
        return -ENOENT;
    struct index_view *view = NULL;
    struct index_row row;
    struct sums *sums = NULL;
    if (older) {
        row = older->row;
        int error = sums_of_older(older, &sums);
        if (error < 0)
            return error;
    } else {
        int error = lookup_view(store, &view);
        if (error < 0)
            return error;
        error = id ? index_session_by_id(view, id, id_len, &row)
                   : index_session_by_number(view, number, &row);
        if (error == 0 && is_deleted(store, row.number)) /* nobody else changes the tables */
            error = -ENOENT;
        if (error == 0)
            error = sums_of_index(view, row.number, &sums);
        if (error < 0) {
            return lookup_view_end(store, view, error);
        }
    }
    pthread_rwlock_wrlock(&store->mem_lock);
    *session = memtable_add_session(store->table, &row);
    if (*session)
        memtable_take_sums(store->table, *session, sums);
    else
        sums_free(sums);
    pthread_rwlock_unlock(&store->mem_lock);
    if (view)
        lookup_view_end(store, view, 0);
    return *session ? 0 : -ENOMEM;
}

int lookup_count_sessions(struct hl_store *store, uint64_t *count)
{
    struct index_view *view = NULL;
    struct index_meta meta = {.sessions = 0};
    struct index_row row;
    pthread_mutex_lock(&store->append_lock); /* the table stays as it is */
    int error = lookup_view(store, &view);
    if (error == 0)
        error = index_get_meta(view, &meta);
    if (error == -ENOENT) /* no index */
        error = 0;
    *count = meta.sessions;
    for (size_t i = 0; error == 0 && i < store->table->session_count; i++) {
        const struct mem_session *session = store->table->sessions[i];
        error = view ? index_session_by_number(view, session->row.number, &row) : -ENOENT;
        *count += error == -ENOENT && !session->hidden && !session->deleted;
        *count -= error == 0 && session->deleted;
        error = error == -ENOENT ? 0 : error;
    }
    if (view)
        error = lookup_view_end(store, view, error);
    pthread_mutex_unlock(&store->append_lock);
    return error;
}

/* ---- records ---- */

/* What is asked of one session, and where the answer goes. */
struct question {
    uint32_t session;
    uint64_t seq, offset;
    struct index_entry *entry;
    uint64_t *bytes;
    /* What the session's oldest part in the tables knows of what is older, if there is one: */
    bool has_part;
    uint64_t part_gone;
};

#define NOT_HERE 1 /* it lies below the part of the session that the table holds */

typedef int in_part(const struct mem_session *part, const struct question *question);
typedef int in_index(struct index_view *view, const struct question *question);

/* Beside a writer the index may have dropped what the tables still count on. */
static int check_base(const struct hl_store *store, struct index_view *view,
                      const struct question *question)
{
    struct index_row row;
    if (!store->options.read_only || !question->has_part)
        return 0;
    int error = index_session_by_number(view, question->session, &row);
    return error < 0 ? error : row.gone == question->part_gone ? 0 : -ESTALE;
}

static int ask_once(struct hl_store *store, struct question *question, in_part *ask_part,
                    in_index *ask_index)
{
    const struct memtable *tables[TABLES];
    int result = NOT_HERE;
    pthread_rwlock_rdlock(&store->mem_lock);
    tables_of(store, tables);
    for (int i = 0; i < TABLES && result == NOT_HERE; i++) {
        const struct mem_session *part = visible(tables[i], question->session);
        if (!part)
            continue;
        result = part->deleted ? -ENOENT : ask_part(part, question);
        question->has_part = true;
        question->part_gone = part->base_gone;
    }
    pthread_rwlock_unlock(&store->mem_lock);
    if (result != NOT_HERE)
        return result;
    struct index_view *view;
    int error = lookup_view(store, &view);
    if (error < 0)
        return error;
    error = check_base(store, view, question);
    if (error == 0)
        error = ask_index(view, question);
    return lookup_view_end(store, view, error);
}

static int ask(struct hl_store *store, struct question *question, in_part *ask_part,
               in_index *ask_index)
{
    int error = ask_once(store, question, ask_part, ask_index);
    while (error == -ESTALE) { /* as often as the writer drops something in between */
        follow_drops(store, question->session);
        question->has_part = false;
        error = ask_once(store, question, ask_part, ask_index);
    }
    return error;
}

static int seq_in_part(const struct mem_session *part, const struct question *question)
{
    if (!mem_session_covers_seq(part, question->seq))
        return NOT_HERE;
    bool found = mem_session_find(part, question->seq, question->entry, NULL) &&
                 question->entry->seq == question->seq;
    return found ? 0 : -ENOENT;
}

static int seq_in_index(struct index_view *view, const struct question *question)
{
    return index_find(view, question->session, question->seq, question->entry);
}

int lookup_seq(struct hl_store *store, uint32_t session, uint64_t seq, struct index_entry *entry)
{
    struct question question = {.session = session, .seq = seq, .entry = entry};
    return ask(store, &question, seq_in_part, seq_in_index);
}

static int offset_in_part(const struct mem_session *part, const struct question *question)
{
    if (!mem_session_covers_offset(part, question->offset))
        return NOT_HERE;
    return mem_session_find_offset(part, question->offset, question->entry, question->bytes)
               ? 0
               : -ENOENT;
}

static int offset_in_index(struct index_view *view, const struct question *question)
{
    return index_find_offset(view, question->session, question->offset, question->entry,
                             question->bytes);
}

int lookup_offset(struct hl_store *store, uint32_t session, uint64_t offset,
                  struct index_entry *entry, uint64_t *begin)
{
    struct question question = {
        .session = session, .offset = offset, .entry = entry, .bytes = begin};
    return ask(store, &question, offset_in_part, offset_in_index);
}

static int bytes_in_part(const struct mem_session *part, const struct question *question)
{
    struct index_entry entry;
    if (!mem_session_covers_seq(part, question->seq))
        return NOT_HERE;
    if (!mem_session_find(part, question->seq, &entry, question->bytes))
        *question->bytes = part->row.bytes;
    return 0;
}

static int bytes_in_index(struct index_view *view, const struct question *question)
{
    return index_bytes_before(view, question->session, question->seq, question->bytes);
}

int lookup_bytes_before(struct hl_store *store, uint32_t session, uint64_t seq, uint64_t *bytes)
{
    struct question question = {.session = session, .seq = seq, .bytes = bytes};
    return ask(store, &question, bytes_in_part, bytes_in_index);
}

struct collecting {
    struct index_entry *entries;
    size_t count, max;
};

static bool collect(void *context, const struct index_entry *entry)
{
    struct collecting *collecting = context;
    collecting->entries[collecting->count++] = *entry;
    return collecting->count < collecting->max;
}

static uint64_t seq_after(const struct collecting *collecting, uint64_t from)
{
    return collecting->count ? collecting->entries[collecting->count - 1].seq + 1 : from;
}

/* From the tables alone; *answered says whether they hold the session from `from` on. If not,
 * *floor is where the part that they hold begins, or 0. */
static void collect_from_tables(struct hl_store *store, uint32_t session, uint64_t from,
                                struct collecting *collecting, bool *answered, uint64_t *floor)
{
    *floor = 0;
    pthread_rwlock_rdlock(&store->mem_lock);
    *answered = is_deleted(store, session);
    const struct mem_session *newer = *answered ? NULL : visible(store->table, session);
    const struct mem_session *older = *answered ? NULL : visible(store->frozen, session);
    const struct mem_session *oldest = older ? older : newer;
    bool more = true;
    if (older && mem_session_covers_seq(older, from)) {
        *answered = true;
        more = mem_session_each_from(older, from, collect, collecting);
        from = seq_after(collecting, from);
    }
    if (more && newer && (*answered || mem_session_covers_seq(newer, from))) {
        *answered = true;
        mem_session_each_from(newer, from, collect, collecting);
    }
    if (!*answered && oldest)
        *floor = oldest->base_last_seq + 1;
    pthread_rwlock_unlock(&store->mem_lock);
}

ssize_t lookup_entries(struct hl_store *store, uint32_t session, uint64_t from,
                       struct index_entry *entries, size_t max)
{
    struct collecting collecting = {.entries = entries, .max = max};
    bool answered, progress = true;
    uint64_t next = from, floor;
    /* A flush may carry entries from the tables to the index between the two looks: then neither
     * look saw them, and the index is asked again. */
    for (int turns = 0; turns < 2 && collecting.count < max; turns += progress ? 0 : 1) {
        collect_from_tables(store, session, next, &collecting, &answered, &floor);
        if (answered)
            break;
        size_t before = collecting.count;
        struct index_view *view;
        int error = lookup_view(store, &view);
        if (error == 0) {
            error = index_each_from(view, session, next, collect, &collecting);
            error = lookup_view_end(store, view, error);
        }
        if (error < 0 && error != -ENOENT) /* that: no index */
            return error;
        progress = collecting.count > before;
        next = seq_after(&collecting, next);
        /* All below the tables' part was in the index. Seqs may be missing between the two: those
         * of lost records, of which only a session frame knew. */
        if (collecting.count < max && next < floor) {
            next = floor;
            progress = true;
        }
    }
    return (ssize_t)collecting.count;
}
