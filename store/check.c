/*
 * check.c - checks a store that nobody writes to, mends it if asked, and checks it again.
 *
 * Each check works on a shadow, so it changes nothing whoever asked. Mending makes log/ good first,
 * file by file, each by a rename; then the store is recovered as at any opening, which cuts the
 * torn tail and builds the index where it is missing or in doubt. A crash on the way leaves a store
 * that opens, and that can be checked and mended again. All of it happens under one lock.
 */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS 3 /* of mending: a checkpoint that one restores may turn out to be wrong */

void check_tell(struct checking *checking, const char *kind, enum hl_severity severity,
                bool mendable, const char *file, uint64_t offset, uint64_t size, const char *format,
                ...)
{
    char text[512], path[SEGMENT_NAME_MAX + 8];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (!file) {
        snprintf(path, sizeof path, "log/%s", checking->segment->name);
        file = path;
    }
    struct hl_finding finding = {
        .kind = kind,
        .file = file,
        .offset = offset,
        .size = size,
        .severity = severity,
        .mendable = mendable,
        .left = checking->again,
        .text = text,
    };
    if (severity != HL_INFO) {
        checking->report->left++;
        if (!checking->again)
            checking->report->problems++;
    }
    if (checking->request->found)
        checking->request->found(checking->request->context, &finding);
}

int faults_add(struct faults *faults, const struct fault *fault)
{
    if (faults->count == faults->capacity) {
        size_t capacity = faults->capacity ? faults->capacity * 2 : 16;
        void *at = realloc(faults->at, capacity * sizeof *faults->at);
        if (!at)
            return -ENOMEM;
        faults->at = at;
        faults->capacity = capacity;
    }
    faults->at[faults->count++] = *fault;
    return 0;
}

struct seen *check_seen(struct checking *checking, uint32_t session)
{
    struct seen **page = &checking->seen[session / SEEN_PAGE];
    if (!*page)
        *page = calloc(SEEN_PAGE, sizeof **page);
    if (*page && session > checking->highest)
        checking->highest = session;
    return *page ? &(*page)[session % SEEN_PAGE] : NULL;
}

static void forget_seen(struct checking *checking)
{
    for (uint64_t i = 0; checking->seen && i <= checking->highest / SEEN_PAGE; i++)
        free(checking->seen[i]);
    free(checking->seen);
}

static int check_log_and_index(struct checking *checking)
{
    struct hl_store *store = checking->store;
    struct hl_progress *progress = checking->request->progress;
    int error = check_open_index(checking);
    if (error < 0)
        return error;
    if (progress) {
        atomic_store(&progress->done, 0);
        uint64_t total = 0;
        for (size_t i = 0; i < store->segments.count; i++)
            total += store->segments.at[i]->size;
        atomic_store(&progress->total, total);
    }
    error = check_segments(checking);
    if (error == 0)
        error = check_index_sessions(checking);
    if (error == 0)
        error = check_documents_of_sessions(checking);
    return error;
}

/* One check. What mending would be about is put into faults. */
static int check_once(struct hl_store *store, const struct hl_check *request,
                      struct hl_check_report *report, struct faults *faults, bool again,
                      struct hl_error *err)
{
    bool usable;
    struct checking checking = {
        .request = request,
        .report = report,
        .err = err,
        .faults = faults,
        .again = again,
        .store = recover_shadow(store),
        .seen = calloc(SEEN_PAGES, sizeof *checking.seen),
    };
    *faults = (struct faults){.at = NULL};
    report->log = (struct hl_verify_report){0};
    report->sessions = report->left = 0;
    if (!checking.store || !checking.seen) {
        recover_shadow_free(checking.store);
        free(checking.seen);
        return hl_fail(err, ENOMEM, "out of memory");
    }
    checking.store->options.report = NULL;     /* all of it is told here */
    checking.store->options.read_only = false; /* there is no writer whose news it could miss */
    int error = check_files(&checking, &usable);
    memcpy(store->store_id, checking.store->store_id, sizeof store->store_id);
    memcpy(report->store_id, checking.store->store_id, sizeof report->store_id);
    if (error == 0 && usable)
        error = check_log_and_index(&checking);
    if (error == 0 && usable)
        error = check_checkpoints(&checking);
    forget_seen(&checking);
    recover_shadow_free(checking.store);
    return error;
}

/* ---- mending ---- */

static void tell_what_was_done(void *context, enum hl_severity severity, const char *sentence)
{
    const struct hl_check *request = context;
    (void)severity;
    if (request->did)
        request->did(request->context, sentence);
}

/* Recovers the store as an opening does, and closes it in order. */
static int recover_and_close(struct hl_store *store, struct hl_error *err)
{
    int error = recover(store, err);
    if (error < 0)
        return error;
    (void)snapshot_clean(store);
    store->checkpoint_position = checkpoint_newest(store);
    error = store_finish(store);
    int forgotten = recover_forget(store);
    error = error < 0 ? error : forgotten;
    return error < 0 ? hl_fail(err, -error, "cannot close the store: %s", strerror(-error)) : 0;
}

static int mend_index(struct hl_store *store, const struct faults *faults)
{
    int error = 0;
    if (faults->index || faults->checkpoints)
        error = checkpoint_remove(store, faults->index);
    if (error == 0 && (faults->index || faults->checkpoints))
        store_report(store, HL_INFO, "%s checkpoints were removed",
                     faults->index ? "the" : "damaged");
    if (error == 0 && faults->index)
        error = recover_set_index_aside(store, "it does not agree with the log");
    return error;
}

static int mend_once(struct hl_store *store, const struct hl_check *request, struct faults *faults,
                     struct hl_error *err)
{
    int error = 0;
    if (request->mend == HL_MEND_ALL && request->restore)
        error = mend_restore(store, faults);
    if (error == 0 && request->mend == HL_MEND_ALL)
        error = mend_log(store, faults);
    if (error == 0)
        error = mend_index(store, faults);
    if (error < 0)
        return hl_fail(err, -error, "cannot mend %s: %s", store->path, strerror(-error));
    return recover_and_close(store, err);
}

static void forget_faults(struct faults *faults)
{
    free(faults->at);
    *faults = (struct faults){.at = NULL};
}

/* Whether mending would do anything about what was found. */
static bool is_worth_it(const struct hl_check *request, const struct faults *faults)
{
    if (request->mend == HL_MEND_NOTHING)
        return false;
    return faults->index || faults->checkpoints || faults->recovery ||
           (request->mend == HL_MEND_ALL && faults->count > 0);
}

/* Checks, and as long as there is something that can be mended, mends and checks again. */
static int check_and_mend(struct hl_store *store, const struct hl_check *request,
                          struct hl_check_report *report, struct hl_error *err)
{
    struct faults faults;
    int error = check_once(store, request, report, &faults, false, err);
    for (int round = 0; error == 0 && round < ROUNDS && is_worth_it(request, &faults); round++) {
        error = mend_once(store, request, &faults, err);
        report->mended = true;
        forget_faults(&faults);
        if (error == 0)
            error = check_once(store, request, report, &faults, true, err);
    }
    forget_faults(&faults);
    return error;
}

int hl_check(const char *dir, const struct hl_check *check, struct hl_check_report *report,
             struct hl_holder *holder, struct hl_error *err)
{
    struct hl_options options;
    char *log;
    if (err)
        *err = (struct hl_error){0};
    *report = (struct hl_check_report){.problems = 0};
    hl_options_init(&options);
    options.io = check->io;
    options.read_only = check->mend == HL_MEND_NOTHING;
    options.report = tell_what_was_done;
    options.report_context = (void *)(uintptr_t)check;
    struct hl_store *store = store_new(&options, dir);
    if (!store || asprintf(&log, "%s/log", dir) < 0) {
        if (store)
            store_free(store);
        return hl_fail(err, ENOMEM, "out of memory");
    }
    /* Opening for writing would make one. */
    int there = hl_io_open_dir(store->io, AT_FDCWD, log, false);
    free(log);
    hl_io_close(store->io, there);
    int error = there == -ENOENT ? hl_fail(err, ENOENT, "there is no store in %s", dir)
                : there < 0      ? hl_fail(err, -there, "cannot open %s: %s", dir, strerror(-there))
                                 : 0;
    if (error == 0)
        error = store_begin(store, true, holder, err);
    if (error == 0)
        error = check_and_mend(store, check, report, err);
    if (error < 0 && err && err->code == 0)
        hl_fail(err, -error, "cannot check %s: %s", dir, strerror(-error));
    store_free(store);
    return error;
}
