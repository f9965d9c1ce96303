/* show.c - see show.h. */
#include "show.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BAR_COLUMNS 40
#define DRAW_MS 100

static uint64_t tick_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- JSON ---- */

/* Bytes of the UTF-8 character at `at`, or 0 if there is none. */
static size_t character(const unsigned char *at)
{
    size_t len = at[0] < 0x80 ? 1 : at[0] >= 0xc2 && at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;
    if (at[0] >= 0x80 && (at[0] < 0xc2 || at[0] > 0xf4))
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    }
    bool overlong = (at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xf0 && at[1] < 0x90);
    bool outside = (at[0] == 0xed && at[1] >= 0xa0) || (at[0] == 0xf4 && at[1] >= 0x90);
    return overlong || outside ? 0 : len;
}

/* A string with its quotes; bytes that are not UTF-8 become U+FFFD. */
static void put_string(FILE *to, const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    putc('"', to);
    while (*at) {
        size_t len = character(at);
        if (len == 0)
            fputs("\\ufffd", to);
        else if (*at < 0x20)
            fprintf(to, "\\u%04x", *at);
        else if (*at == '"' || *at == '\\')
            fprintf(to, "\\%c", *at);
        else
            fwrite(at, 1, len, to);
        at += len ? len : 1;
    }
    putc('"', to);
}

static void put_member(FILE *to, const char *name, const char *value)
{
    fprintf(to, ",\"%s\":", name);
    put_string(to, value);
}

static void put_number(FILE *to, const char *name, uint64_t value)
{
    fprintf(to, ",\"%s\":%" PRIu64, name, value);
}

static void put_bool(FILE *to, const char *name, bool value)
{
    fprintf(to, ",\"%s\":%s", name, value ? "true" : "false");
}

static const char *severity_word(const struct hl_finding *finding)
{
    return finding->severity == HL_INFO ? "note" : "problem";
}

static void put_finding(const struct hl_finding *finding)
{
    fputs("{\"kind\":", stdout);
    put_string(stdout, finding->kind);
    put_member(stdout, "file", finding->file);
    put_number(stdout, "offset", finding->offset);
    put_number(stdout, "size", finding->size);
    put_member(stdout, "severity", severity_word(finding));
    put_bool(stdout, "mendable", finding->mendable);
    put_bool(stdout, "left", finding->left);
    put_member(stdout, "text", finding->text);
    putchar('}');
}

static void put_report(const struct hl_check_report *report)
{
    char id[33];
    const struct hl_verify_report *log = &report->log;
    for (size_t i = 0; i < sizeof report->store_id; i++)
        snprintf(id + 2 * i, 3, "%02x", report->store_id[i]);
    put_member(stdout, "store_id", id);
    put_number(stdout, "problems", report->problems);
    put_number(stdout, "left", report->left);
    put_bool(stdout, "mended", report->mended);
    put_number(stdout, "segments", log->segments);
    put_number(stdout, "frames", log->frames);
    put_number(stdout, "records", log->records);
    put_number(stdout, "sessions", report->sessions);
    put_number(stdout, "bytes", log->bytes);
    put_number(stdout, "damaged_gaps", log->damaged_gaps);
    put_number(stdout, "damaged_bytes", log->damaged_bytes);
    put_number(stdout, "broken_batches", log->broken_batches);
    put_number(stdout, "index_missing", log->index_missing);
    put_number(stdout, "index_dangling", log->index_dangling);
}

/* ---- progress ---- */

static void clear_bar(struct show *show)
{
    if (show->drawn == 0)
        return;
    fprintf(stderr, "\r%*s\r", (int)show->drawn, "");
    fflush(stderr);
    show->drawn = 0;
}

static void draw_bar(struct show *show, uint64_t done, uint64_t total)
{
    char bar[BAR_COLUMNS + 1];
    size_t filled = (size_t)(done * BAR_COLUMNS / total);
    memset(bar, ' ', BAR_COLUMNS);
    memset(bar, '=', filled);
    bar[BAR_COLUMNS] = 0;
    int n = fprintf(stderr, "\r[%s] %3" PRIu64 "%%%s", bar, done * 100 / total,
                    show->pass > 1 ? ", again" : "");
    fflush(stderr);
    show->drawn = n > 1 ? (size_t)n - 1 : 0;
}

void show_tick(void *context)
{
    struct show *show = context;
    uint64_t done = atomic_load(&show->progress->done);
    uint64_t total = atomic_load(&show->progress->total), now = tick_ms();
    if (done < show->last_done)
        show->pass++;
    show->last_done = done;
    if (total == 0 || now - show->drawn_ms < DRAW_MS)
        return;
    show->drawn_ms = now;
    if (done > total)
        done = total;
    if (show->options->progress_fd >= 0)
        dprintf(show->options->progress_fd, "%u %" PRIu64 " %" PRIu64 " %s\n", show->pass, done,
                total, show->options->dir);
    else if (show->options->bar)
        draw_bar(show, done, total);
}

/* ---- what is told ----
 *
 * It is written out before more is checked: an index is checked in a child of this process, which
 * must not have any of it in a buffer, and who reads it learns of each finding as it is made. */

bool show_begin(struct show *show, const struct options *options, struct hl_progress *progress)
{
    *show = (struct show){.options = options, .progress = progress, .pass = 1};
    if (!options->json)
        return true;
    show->actions = open_memstream(&show->actions_text, &show->actions_len);
    if (!show->actions)
        return false;
    fputs("{\"dir\":", stdout);
    put_string(stdout, options->dir);
    fputs(",\"findings\":[", stdout);
    fflush(stdout);
    return true;
}

static void put_line(const struct options *options, const struct hl_finding *finding)
{
    printf("%s/%s", options->dir, finding->file);
    if (finding->size > 0)
        printf(", bytes %" PRIu64 " to %" PRIu64, finding->offset,
               finding->offset + finding->size - 1);
    else if (finding->offset > 0)
        printf(", byte %" PRIu64, finding->offset);
    printf(": %s%s\n", finding->text, finding->left ? " (still)" : "");
}

void show_finding(void *context, const struct hl_finding *finding)
{
    struct show *show = context;
    const struct options *options = show->options;
    show->mendable += finding->mendable && !finding->left && finding->severity != HL_INFO;
    clear_bar(show);
    if (options->json) {
        if (show->findings > 0)
            putchar(',');
        put_finding(finding);
    } else if (finding->severity != HL_INFO || options->verbose) {
        put_line(options, finding);
    }
    show->findings++;
    fflush(stdout);
}

void show_action(void *context, const char *sentence)
{
    struct show *show = context;
    clear_bar(show);
    if (!show->options->json) {
        printf("%s: %s\n", show->options->dir, sentence);
        fflush(stdout);
        return;
    }
    if (show->action_count++ > 0)
        putc(',', show->actions);
    put_string(show->actions, sentence);
}

static void end_text(const struct show *show, int error, const struct hl_check_report *report,
                     const struct hl_error *err)
{
    const char *dir = show->options->dir;
    const struct hl_verify_report *log = &report->log;
    if (error < 0) {
        fprintf(stderr, "fsck.hotlogfs: %s\n", err->text);
        return;
    }
    if (report->left > 0)
        printf("%s: %" PRIu64 " problem%s left", dir, report->left, report->left == 1 ? "" : "s");
    else
        printf("%s: %s", dir, report->problems > 0 ? "mended" : "clean");
    printf("; %" PRIu64 " records of %" PRIu64 " sessions in %" PRIu64 " segments, %" PRIu64
           " bytes\n",
           log->records, report->sessions, log->segments, log->bytes);
    if (report->left > 0 && show->mendable > 0 && show->options->mend != HL_MEND_ALL)
        printf("%s: -y would mend %" PRIu64 " of what was found\n", dir, show->mendable);
}

static void end_json(struct show *show, int error, const struct hl_check_report *report,
                     const struct hl_holder *holder, const struct hl_error *err, int status)
{
    fclose(show->actions);
    printf("],\"actions\":[%s]", show->actions_text);
    free(show->actions_text);
    if (error < 0) {
        const char *name = strerrorname_np(-error);
        fputs(",\"error\":{\"errno\":", stdout);
        put_string(stdout, name ? name : "UNKNOWN");
        if (holder->pid > 0)
            put_number(stdout, "pid", (uint64_t)holder->pid);
        put_member(stdout, "text", err->text);
        putchar('}');
    } else {
        put_report(report);
    }
    printf(",\"status\":%d}\n", status);
}

void show_end(struct show *show, int error, const struct hl_check_report *report,
              const struct hl_holder *holder, const struct hl_error *err, int status)
{
    clear_bar(show);
    if (show->options->json)
        end_json(show, error, report, holder, err, status);
    else
        end_text(show, error, report, err);
}
