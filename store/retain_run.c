/* retain_run.c - what the rules of retain drop now. */
#include <errno.h>
#include <string.h>

#include "retain.h"
#include "scheduler.h"

#define LOOK_UP_ENTRIES 256U

/* What is more than a rule wants, and how far from the oldest event that reaches. */
struct excess {
    uint64_t records, bytes; /* that must go, at the least */
    uint64_t below;          /* behind the last event that does */
};

/* Walks the oldest events until no more must go. Operations stay, and their bytes with them. */
static int walk(struct hl_store *store, uint32_t session, struct excess *excess)
{
    struct index_entry entries[LOOK_UP_ENTRIES];
    for (uint64_t from = 0; excess->records > 0 || excess->bytes > 0;) {
        ssize_t n = lookup_entries(store, session, from, entries, LOOK_UP_ENTRIES);
        if (n <= 0)
            return (int)n;
        for (ssize_t i = 0; i < n && (excess->records > 0 || excess->bytes > 0); i++) {
            if (entries[i].operation)
                continue;
            excess->records -= excess->records > 0;
            excess->bytes -= entries[i].length < excess->bytes ? entries[i].length : excess->bytes;
            excess->below = entries[i].seq + 1;
        }
        from = entries[n - 1].seq + 1;
    }
    return 0;
}

/* The seq below which the events of a session go; 0: none do. */
static int find_below(struct hl_store *store, const struct hl_session *session,
                      const struct hl_rule *rule, uint64_t *below)
{
    struct excess excess = {.below = 0};
    uint64_t events = session->records - session->operations, now = store_now_ms(store);
    int error = 0;
    *below = 0;
    if (events == 0)
        return 0;
    if (rule->has_age && now > rule->age_ms)
        error = moment_seq(store, session, now - rule->age_ms, below);
    if (error < 0)
        return error;
    if (rule->has_count && events > rule->count)
        excess.records = events - rule->count;
    if (rule->has_bytes && session->bytes > rule->bytes)
        excess.bytes = session->bytes - rule->bytes;
    error = walk(store, session->number, &excess);
    if (excess.below > *below)
        *below = excess.below;
    return error;
}

static int apply(struct hl_store *store, const struct hl_session *session,
                 struct hl_dropped *dropped, struct hl_error *err)
{
    struct hl_rule rule;
    struct hl_dropped some = {0};
    uint64_t below;
    if (!retain_rule(store, session->id, session->id_len, &rule))
        return 0;
    int error = find_below(store, session, &rule, &below);
    if (error < 0)
        return hl_fail(err, -error, "cannot see how old a session's events are: %s",
                       strerror(-error));
    if (below == 0 || (session->records > 0 && below <= session->first_seq))
        return 0;
    error = hl_trim(store, session->number, below, &some, err);
    dropped->records += some.records;
    dropped->bytes += some.bytes;
    return error == -ENOENT ? 0 : error;
}

int hl_retain_run(struct hl_store *store, struct hl_progress *progress, struct hl_dropped *dropped,
                  struct hl_error *err)
{
    struct hl_dropped all = {0};
    struct hl_session session;
    if (err)
        *err = (struct hl_error){0};
    int error = store_writable(store, err);
    if (error == 0)
        retain_settle(store);
    if (error == 0 && retain_any(store) && scheduler_time_is_sound(store)) {
        for (uint32_t after = 0;
             error == 0 && (error = hl_session_next(store, after, &session)) == 0;
             after = session.number) {
            error = apply(store, &session, &all, err);
            if (error == 0 && progress && atomic_load(&progress->cancel))
                error = hl_fail(err, EINTR, "interrupted");
        }
        if (error == -ENOENT)
            error = 0;
    }
    if (dropped)
        *dropped = all;
    return error;
}
