/*
 * load_sqlite.c - the same records in an SQLite database, in WAL mode.
 *
 *     append   db= count= sync=normal|full [batch=1] [threads=1]   `batch` rows a transaction
 *     scan     db=                                                 all lines in order, once
 *
 * A row is an integer key and the line: what an append-only log in SQLite needs, and no more.
 */
#include "load.h"

#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct job {
    const char *path, *sync;
    uint64_t count, batch;
};

struct client {
    sqlite3 *db;
    sqlite3_stmt *begin, *insert, *commit;
};

static void check(sqlite3 *db, int result)
{
    if (result != SQLITE_OK && result != SQLITE_DONE && result != SQLITE_ROW)
        die("sqlite: %s", sqlite3_errmsg(db));
}

static void execute(sqlite3 *db, const char *sql)
{
    check(db, sqlite3_exec(db, sql, NULL, NULL, NULL));
}

static sqlite3 *open_db(const char *path, const char *sync)
{
    sqlite3 *db;
    char pragma[64];
    if (sqlite3_open(path, &db) != SQLITE_OK)
        die("%s: %s", path, sqlite3_errmsg(db));
    sqlite3_busy_timeout(db, 60000);
    execute(db, "PRAGMA journal_mode=WAL");
    snprintf(pragma, sizeof pragma, "PRAGMA synchronous=%s", sync);
    execute(db, pragma);
    execute(db, "CREATE TABLE IF NOT EXISTS records (seq INTEGER PRIMARY KEY, line TEXT NOT NULL)");
    return db;
}

static sqlite3_stmt *prepare(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *statement;
    check(db, sqlite3_prepare_v2(db, sql, -1, &statement, NULL));
    return statement;
}

static void step(sqlite3 *db, sqlite3_stmt *statement)
{
    check(db, sqlite3_step(statement));
    check(db, sqlite3_reset(statement));
}

static void append_rows(void *context, unsigned thread)
{
    const struct job *job = context;
    char line[LINE_BYTES];
    struct client client = {.db = open_db(job->path, job->sync)};
    client.begin = prepare(client.db, "BEGIN IMMEDIATE");
    client.insert = prepare(client.db, "INSERT INTO records (line) VALUES (?)");
    client.commit = prepare(client.db, "COMMIT");
    make_line(line, thread);
    check(client.db, sqlite3_bind_text(client.insert, 1, line, LINE_BYTES - 1, SQLITE_STATIC));
    for (uint64_t done = 0; done < job->count;) {
        if (job->batch > 1)
            step(client.db, client.begin);
        for (uint64_t i = 0; i < job->batch && done < job->count; i++, done++)
            step(client.db, client.insert);
        if (job->batch > 1)
            step(client.db, client.commit);
    }
    sqlite3_finalize(client.begin);
    sqlite3_finalize(client.insert);
    sqlite3_finalize(client.commit);
    sqlite3_close(client.db);
}

static void run_append(int argc, char *argv[])
{
    struct job job = {
        .path = argument(argc, argv, "db", NULL),
        .sync = argument(argc, argv, "sync", "normal"),
        .count = argument_number(argc, argv, "count", 0),
        .batch = argument_number(argc, argv, "batch", 1),
    };
    unsigned threads = (unsigned)argument_number(argc, argv, "threads", 1);
    /* Another connection, so that making the table and the last checkpoint are not measured. */
    sqlite3 *holder = open_db(job.path, job.sync);
    uint64_t took = run_threads(threads, append_rows, &job);
    sqlite3_close(holder);
    tell_rate(job.count * threads, job.count * threads * LINE_BYTES, took);
}

static void run_scan(int argc, char *argv[])
{
    sqlite3 *db = open_db(argument(argc, argv, "db", NULL), "normal");
    sqlite3_stmt *select = prepare(db, "SELECT line FROM records ORDER BY seq");
    uint64_t rows = 0, bytes = 0, began = now_ns();
    static char copy[1 << 20];
    while (sqlite3_step(select) == SQLITE_ROW) {
        size_t len = (size_t)sqlite3_column_bytes(select, 0);
        if (len > sizeof copy)
            die("a row of %zu bytes", len);
        memcpy(copy, sqlite3_column_text(select, 0), len); /* a reader wants it, too */
        bytes += len + 1;
        rows++;
    }
    uint64_t took = now_ns() - began;
    sqlite3_finalize(select);
    sqlite3_close(db);
    tell_rate(rows, bytes, took);
}

int main(int argc, char *argv[])
{
    const char *mode = argc > 1 ? argv[1] : "";
    if (strcmp(mode, "append") == 0)
        run_append(argc, argv);
    else if (strcmp(mode, "scan") == 0)
        run_scan(argc, argv);
    else
        die("usage: load_sqlite append|scan name=value…");
    return 0;
}
