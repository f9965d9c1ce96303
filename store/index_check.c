/*
 * index_check.c - walks everything that the index holds and says what is wrong first.
 *
 * index_pages.c has looked at the pages before; here values are read through LMDB. Tables that are
 * keyed by session are walked side by side, so nothing is looked up and nothing large is kept, but
 * for a session's sums.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "index_check.h"
#include "sums.h"

void index_note(struct index_check_report *report, const char *format, ...)
{
    if (report->complaint[0] != '\0')
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(report->complaint, sizeof report->complaint, format, arguments);
    va_end(arguments);
}

struct sum_rows {
    struct index_sum *rows;
    size_t count, capacity;
};

struct check {
    struct index_at at;
    struct index_check_report *report;
    struct place blocks, sums;
    struct documents_check documents;
    struct sum_rows level[INDEX_LEVELS + 1]; /* of the session under way, by level */
    uint64_t bytes;
    uint32_t highest; /* session number */
};

int place_move(struct place *place, MDB_cursor_op op)
{
    int error = index_error(mdb_cursor_get(place->cursor, &place->key, &place->value, op));
    place->end = error == -ENOENT;
    return place->end ? 0 : error;
}

int place_open(const struct index_at *at, enum index_table table, struct place *place)
{
    int error = index_error(mdb_cursor_open(at->txn, at->index->table[table], &place->cursor));
    if (error < 0) {
        place->cursor = NULL;
        return error;
    }
    return place_move(place, MDB_FIRST);
}

void place_close(struct place *place)
{
    if (place->cursor)
        mdb_cursor_close(place->cursor);
    place->cursor = NULL;
}

/* Whether the place stands on a value of this session; of one before it would be a stray. */
int place_is_of(struct index_check_report *report, const struct place *place, uint32_t session,
                bool *is)
{
    *is = false;
    if (place->end)
        return 0;
    if (place->key.mv_size < sizeof(uint32_t))
        return index_complain(report, "a key is too short");
    uint32_t number = index_key_get_u32(&place->key);
    if (number < session)
        return index_complain(report, "there are entries of session %u, which is not known",
                              number);
    *is = number == session;
    return 0;
}

int place_skip(struct index_check_report *report, struct place *place, uint32_t session)
{
    bool is;
    int error = place_is_of(report, place, session, &is);
    while (error == 0 && is) {
        error = place_move(place, MDB_NEXT);
        if (error == 0)
            error = place_is_of(report, place, session, &is);
    }
    return error;
}

/* ---- sums ---- */

static int rows_add(struct sum_rows *sums, const struct index_sum *sum)
{
    if (sums->count == sums->capacity) {
        size_t capacity = sums->capacity > 0 ? sums->capacity * 2 : 64;
        struct index_sum *rows = realloc(sums->rows, capacity * sizeof *rows);
        if (!rows)
            return -ENOMEM;
        sums->rows = rows;
        sums->capacity = capacity;
    }
    sums->rows[sums->count++] = *sum;
    return 0;
}

/* Each row above level 1 is that of the rows below it. */
static int check_above(struct check *check, uint32_t session, unsigned level)
{
    const struct sum_rows *above = &check->level[level], *below = &check->level[level - 1];
    for (size_t i = 0; i < above->count; i++) {
        const struct index_sum *rows = below->rows + i * INDEX_FANOUT;
        uint64_t bytes = 0, records = 0;
        for (size_t j = 0; j < INDEX_FANOUT; j++) {
            bytes += rows[j].bytes;
            records += rows[j].records;
        }
        const struct index_sum *sum = &above->rows[i];
        if (sum->bytes != bytes || sum->records != records || sum->first != rows[0].first ||
            sum->last != rows[INDEX_FANOUT - 1].last)
            return index_complain(check->report, "sums of session %u do not add up at level %u",
                                  session, level);
    }
    return 0;
}

/* Reads the session's sums: all that there should be, in order, and no other. */
static int read_sums(struct check *check, const struct index_stored *stored)
{
    uint32_t session = stored->row.number;
    bool is;
    for (unsigned level = 1; level <= INDEX_LEVELS; level++)
        check->level[level].count = 0;
    int error = place_is_of(check->report, &check->sums, session, &is);
    while (error == 0 && is) {
        struct index_sum sum;
        if (index_sum_decode(&check->sums.key, &check->sums.value, &sum) < 0)
            return index_complain(check->report, "a sum of session %u is damaged", session);
        struct sum_rows *level = &check->level[sum.level];
        if (sum.ordinal != level->count ||
            (level->count > 0 && sum.first <= level->rows[level->count - 1].last))
            return index_complain(check->report, "sums of session %u are out of order", session);
        error = rows_add(level, &sum);
        if (error == 0)
            error = place_move(&check->sums, MDB_NEXT);
        if (error == 0)
            error = place_is_of(check->report, &check->sums, session, &is);
    }
    for (unsigned level = 1; error == 0 && level <= INDEX_LEVELS; level++)
        if (check->level[level].count != index_sums_at(stored->blocks, level))
            error = index_complain(check->report, "session %u lacks sums", session);
    for (unsigned level = 2; error == 0 && level <= INDEX_LEVELS; level++)
        error = check_above(check, session, level);
    return error;
}

/* ---- blocks ---- */

/* What the blocks of a session add up to. Which row of level 1 a block belongs to is told by that
 * row's bounds, since blocks before it may be gone. */
struct run {
    uint64_t blocks, bytes, records, operations, first, last;
    bool empty; /* the last one seen is: then none may follow */
    size_t
        group; /* the row of level 1 under way; that of the unfinished group is behind them all */
    uint64_t group_blocks, group_bytes, group_records; /* of it, so far */
    uint64_t newest, newest_bytes, newest_records;
};

static int complain_of_sums(const struct check *check, uint32_t session)
{
    return index_complain(check->report, "sums of session %u are not those of its blocks", session);
}

/* Closes groups up to the one that a block with this key belongs to. */
static int run_groups(const struct check *check, uint32_t session, struct run *run, uint64_t key)
{
    const struct sum_rows *level = &check->level[1];
    while (run->group < level->count && key > level->rows[run->group].last) {
        const struct index_sum *sum = &level->rows[run->group++];
        if (sum->bytes != run->group_bytes || sum->records != run->group_records)
            return complain_of_sums(check, session);
        run->group_blocks = run->group_bytes = run->group_records = 0;
    }
    return 0;
}

static int run_add(const struct check *check, struct run *run, const struct index_stored *stored,
                   const struct index_block *block)
{
    const struct sum_rows *level = &check->level[1];
    if (run->blocks > 0 && block->first <= run->last)
        return index_complain(check->report, "blocks of session %u overlap", block->session);
    if (run->empty)
        return index_complain(check->report, "a block of session %u is empty", block->session);
    int error = run_groups(check, block->session, run, block->first);
    if (error < 0)
        return error;
    bool unfinished = run->group == level->count;
    uint64_t first = unfinished ? stored->group_first : level->rows[run->group].first;
    uint64_t most = unfinished ? (stored->blocks - 1) % INDEX_FANOUT + 1 : INDEX_FANOUT;
    if (stored->blocks == 0 || block->first < first || ++run->group_blocks > most ||
        (!unfinished && block->last > level->rows[run->group].last))
        return complain_of_sums(check, block->session);
    if (block->count > 0 && run->records == 0)
        run->first = index_block_entry(block, 0).seq;
    for (uint32_t i = 0; i < block->count; i++)
        run->operations += index_block_entry(block, i).operation;
    run->blocks++;
    run->bytes += block->bytes;
    run->records += block->count;
    run->group_bytes += block->bytes;
    run->group_records += block->count;
    run->newest = block->first;
    run->newest_bytes = block->bytes;
    run->newest_records = block->count;
    run->last = block->last;
    run->empty = block->count == 0;
    return 0;
}

static int check_blocks(struct check *check, const struct index_stored *stored)
{
    const struct index_row *row = &stored->row;
    struct run run = {.blocks = 0};
    bool is;
    int error = place_is_of(check->report, &check->blocks, row->number, &is);
    while (error == 0 && is) {
        struct index_block block;
        if (index_block_decode(&check->blocks.key, &check->blocks.value, &block) < 0)
            return index_complain(check->report, "a block of session %u is damaged", row->number);
        error = run_add(check, &run, stored, &block);
        if (error == 0)
            error = place_move(&check->blocks, MDB_NEXT);
        if (error == 0)
            error = place_is_of(check->report, &check->blocks, row->number, &is);
    }
    if (error == 0) /* of groups whose blocks are all gone */
        error = run_groups(check, row->number, &run, UINT64_MAX);
    if (error < 0)
        return error;
    check->report->blocks += run.blocks;
    bool good = (run.blocks == 0) == (stored->blocks == 0) && run.records == row->records &&
                run.bytes == row->bytes && run.operations == row->documents.operations &&
                run.newest == stored->newest &&
                run.group_bytes - run.newest_bytes == stored->group_bytes &&
                run.group_records - run.newest_records == stored->group_records;
    if (good && run.records > 0)
        good = run.first == row->first_seq && run.last <= row->last_seq;
    return good ? 0
                : index_complain(check->report, "the row of session %u does not match its blocks",
                                 row->number);
}

/* ---- tables ---- */

/* Of a session whose removal a crash may have cut short; what it left counts for nothing. */
static int check_removed(struct check *check, uint32_t session)
{
    int error = place_skip(check->report, &check->sums, session);
    if (error == 0)
        error = place_skip(check->report, &check->blocks, session);
    if (error == 0)
        error = documents_check_skip(&check->documents, session);
    check->highest = session;
    return error;
}

static int check_session(struct check *check, const struct place *place)
{
    struct index_stored stored;
    if (index_row_decode(&place->key, &place->value, &stored) < 0)
        return index_complain(check->report, "the row of a session is damaged");
    if (stored.removed)
        return check_removed(check, stored.row.number);
    uint32_t number;
    int error = index_id_get(&check->at, stored.row.id, stored.row.id_len, &number);
    if (error == -ENOENT || error == -EBADMSG || (error == 0 && number != stored.row.number))
        return index_complain(check->report, "the id of session %u does not lead to it",
                              stored.row.number);
    if (error == 0)
        error = read_sums(check, &stored);
    if (error == 0)
        error = check_blocks(check, &stored);
    if (error == 0)
        error = check_documents(&check->documents, &stored.row);
    check->report->sessions++;
    check->report->records += stored.row.records;
    check->bytes += stored.row.bytes;
    check->highest = stored.row.number;
    return error;
}

/* Calls each() on every value of a table, in order. */
static int walk_table(struct check *check, enum index_table table,
                      int (*each)(struct check *, const struct place *))
{
    struct place place = {.cursor = NULL};
    int error = place_open(&check->at, table, &place);
    while (error == 0 && !place.end) {
        error = each(check, &place);
        if (error == 0)
            error = place_move(&place, MDB_NEXT);
    }
    place_close(&place);
    return error;
}

static int check_sessions(struct check *check)
{
    int error = documents_check_begin(&check->documents, &check->at, check->report);
    if (error == 0)
        error = place_open(&check->at, TABLE_BLOCKS, &check->blocks);
    if (error == 0)
        error = place_open(&check->at, TABLE_SUMS, &check->sums);
    if (error == 0)
        error = walk_table(check, TABLE_SESSIONS, check_session);
    if (error == 0 && (!check->blocks.end || !check->sums.end))
        error = index_complain(check->report, "there are entries of a session that is not known");
    if (error == 0)
        error = documents_check_end(&check->documents);
    documents_check_free(&check->documents);
    place_close(&check->blocks);
    place_close(&check->sums);
    return error;
}

/* Each session's id leads to it; as many ids as sessions, so each id leads to its session. */
static int check_ids(struct check *check)
{
    MDB_stat stat;
    int error = index_error(mdb_stat(check->at.txn, check->at.index->table[TABLE_IDS], &stat));
    if (error == 0 && stat.ms_entries != check->report->sessions)
        error = index_complain(check->report, "there are ids without sessions");
    return error;
}

static int check_meta(struct check *check)
{
    struct index_meta meta;
    int error = index_meta_get(&check->at, &meta);
    if (error == -EBADMSG)
        return index_complain(check->report, "what the index says of itself is damaged");
    if (error < 0)
        return error;
    MDB_stat stat;
    error = index_error(mdb_stat(check->at.txn, check->at.index->table[TABLE_META], &stat));
    if (error < 0)
        return error;
    const struct index_check_report *report = check->report;
    if (stat.ms_entries != 2 || meta.sessions != report->sessions ||
        meta.records != report->records || meta.bytes != check->bytes ||
        meta.next_session <= check->highest)
        return index_complain(check->report, "totals are not those of the sessions");
    return 0;
}

static int check_segment(struct check *check, const struct place *place)
{
    struct index_segment segment;
    return index_segment_decode(&place->key, &place->value, &segment) < 0
               ? index_complain(check->report, "what is known of a segment is damaged")
               : 0;
}

static int check_point(struct check *check, const struct place *place)
{
    uint64_t offset;
    return index_point_decode(&place->key, &place->value, &offset) < 0
               ? index_complain(check->report, "a point of the root log is damaged")
               : 0;
}

/* Session 0 stands for the store. */
static int check_totals(struct check *check, const struct place *place)
{
    struct index_stored stored;
    struct sums *sums = sums_new();
    int error = sums ? index_sums_decode(&place->key, &place->value, sums) : -ENOMEM;
    sums_free(sums);
    if (error == -EBADMSG)
        return index_complain(check->report, "what the events of a session come to is damaged");
    uint32_t session = error == 0 ? index_key_get_u32(&place->key) : 0;
    if (session != 0)
        error = index_row_get(&check->at, session, &stored);
    if (error == -ENOENT)
        return index_complain(check->report, "there are sums of session %u, which is not known",
                              session);
    return error;
}

/* Of sessions that are not known too: a flush that a crash cut short put them first. */
static int check_call(struct check *check, const struct place *place)
{
    struct index_call call;
    return index_call_decode(&place->key, &place->value, &call) < 0
               ? index_complain(check->report, "a tool_call_id that was counted is damaged")
               : 0;
}

static int check_all(const struct index *index, MDB_txn *txn, struct index_check_report *report)
{
    struct check check = {.at = {.index = index, .txn = txn}, .report = report};
    int error = check_sessions(&check);
    if (error == 0)
        error = check_ids(&check);
    if (error == 0)
        error = walk_table(&check, TABLE_SEGMENTS, check_segment);
    if (error == 0)
        error = walk_table(&check, TABLE_POINTS, check_point);
    if (error == 0)
        error = walk_table(&check, TABLE_TOTALS, check_totals);
    if (error == 0)
        error = walk_table(&check, TABLE_CALLS, check_call);
    if (error == 0)
        error = check_meta(&check);
    for (unsigned level = 1; level <= INDEX_LEVELS; level++)
        free(check.level[level].rows);
    if (error == -EBADMSG) /* from LMDB itself */
        index_note(report, "the pages of the index are damaged");
    return error;
}

static int check_pages(const char *path, struct index_check_report *report)
{
    char file[PATH_MAX];
    int n = snprintf(file, sizeof file, "%s/data.mdb", path);
    if (n < 0 || (size_t)n >= sizeof file)
        return -ENAMETOOLONG;
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int error = index_pages_check(fd, report);
    close(fd);
    return error;
}

int index_check(const char *path, unsigned flags, const uint8_t store_id[16],
                struct index_check_report *report)
{
    *report = (struct index_check_report){.sessions = 0};
    if (flags & ~INDEX_NO_LOCK)
        return -EINVAL;
    int error = check_pages(path, report);
    if (error < 0)
        return error;
    struct index *index;
    struct hl_error err;
    error = index_open(path, INDEX_READ_ONLY | flags, store_id, &index, &err);
    if (error == -EBADMSG)
        return index_complain(report, "%s", err.text);
    if (error < 0)
        return error;
    struct index_view *view;
    error = index_view_begin(index, &view);
    if (error == 0) {
        error = check_all(index, view->at.txn, report);
        index_view_end(view);
    } else if (error == -EBADMSG) {
        index_note(report, "the index cannot be read");
    }
    index_close(index);
    return error;
}
