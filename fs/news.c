/*
 * news.c - the queue of what waits to be announced.
 *
 * It holds ranges of seqs in a ring. Appends one record at a time make one range, so a burst costs
 * no more than its last record does. A range has gaps if its seqs were given so; the seqs in it are
 * looked up when they are taken. Among the ranges stand changes of documents, one each.
 *
 * What holds: no two ranges share a record, since two are joined only when they touch; all records
 * of the session from first to last were news of one range; an entry has at least one record, or
 * says that the session was made, or a change of a document, or was overtaken; waiting is the sum
 * over all of them, at most `most`. News of a session comes in order, so the changes of a document
 * that wait, and those that were taken before, lead from one to the next.
 */
#include "announce.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct range {
    uint64_t serial; /* tells whether the oldest is still the one that was looked at */
    uint32_t session;
    bool made;
    uint64_t first, last;
    uint64_t records;
    uint64_t skip;     /* as many of its oldest records are not told; only if it has gaps */
    uint64_t document; /* not 0: no range, but a change of the document with this number */
    enum hl_change change;
    char *gone; /* not NULL: no range, but the end of the session that had this name */
};

struct news_queue {
    size_t most;
    pthread_mutex_t lock; /* guards all below; a leaf */
    struct range *ring;
    size_t capacity, begin, count; /* capacity: a power of two, or 0 */
    uint64_t waiting, skipped, serial;
    uint64_t untold;                         /* taken, and not told yet */
    size_t documents;                        /* changes of them that wait */
    struct news_item *taken[NEWS_TAKEN_MAX]; /* and not told yet */
    size_t taken_count;
};

struct news_queue *news_queue_new(size_t most)
{
    struct news_queue *queue = calloc(1, sizeof *queue);
    if (!queue)
        return NULL;
    queue->most = most;
    pthread_mutex_init(&queue->lock, NULL);
    return queue;
}

static struct range *at(struct news_queue *queue, size_t n)
{
    return &queue->ring[(queue->begin + n) & (queue->capacity - 1)];
}

static uint64_t units(const struct range *range)
{
    return range->records + range->made + (range->document != 0) + (range->gone != NULL);
}

static bool has_gaps(const struct range *range)
{
    return range->last - range->first + 1 != range->records;
}

static void drop_first(struct news_queue *queue)
{
    queue->documents -= at(queue, 0)->document != 0;
    free(at(queue, 0)->gone);
    queue->begin = (queue->begin + 1) & (queue->capacity - 1);
    queue->count--;
}

void news_queue_free(struct news_queue *queue)
{
    if (!queue)
        return;
    while (queue->count > 0)
        drop_first(queue);
    pthread_mutex_destroy(&queue->lock);
    free(queue->ring);
    free(queue);
}

/* Skips that many of the oldest. */
static void skip(struct news_queue *queue, uint64_t number)
{
    queue->waiting -= number;
    queue->skipped += number;
    while (number > 0) {
        struct range *range = at(queue, 0);
        if (number >= units(range)) {
            number -= units(range);
            drop_first(queue);
            continue;
        }
        if (range->made) {
            range->made = false;
            number--;
        }
        if (has_gaps(range))
            range->skip += number;
        else
            range->first += number;
        range->records -= number;
        number = 0;
    }
}

/* Room for one more range. */
static bool grow(struct news_queue *queue)
{
    if (queue->count < queue->capacity)
        return true;
    size_t capacity = queue->capacity ? queue->capacity * 2 : 16;
    struct range *ring = malloc(capacity * sizeof *ring);
    if (!ring)
        return false;
    for (size_t i = 0; i < queue->count; i++)
        ring[i] = *at(queue, i);
    free(queue->ring);
    queue->ring = ring;
    queue->capacity = capacity;
    queue->begin = 0;
    return true;
}

/* Makes the newest range longer, if the news goes on where it ends. */
static bool extend(struct news_queue *queue, const struct hl_news *news)
{
    struct range *range = queue->count > 0 ? at(queue, queue->count - 1) : NULL;

    if (!range || news->created || range->gone || range->session != news->session ||
        range->records == 0 || range->last + 1 != news->first || has_gaps(range) ||
        news->last - news->first + 1 != news->records)
        return false;
    range->last = news->last;
    range->records += news->records;
    return true;
}

/* Puts an entry at the end, or skips what it says if there is no room for it. */
static void push(struct news_queue *queue, const struct range *range)
{
    if (!grow(queue)) {
        queue->skipped += units(range);
        free(range->gone);
        return;
    }
    struct range *added = at(queue, queue->count++);
    *added = *range;
    added->serial = queue->serial++;
    queue->waiting += units(range);
    queue->documents += range->document != 0;
}

/* What was taken is overtaken too, but for a making of what was written to. */
static void overtake_taken(struct news_queue *queue, uint32_t session,
                           const struct hl_document_news *news)
{
    for (size_t i = 0; i < queue->taken_count; i++) {
        struct news_item *item = queue->taken[i];
        if (item->session == session && item->number == news->number &&
            (news->change != HL_DOCUMENT_CHANGED || item->change != HL_DOCUMENT_MADE))
            atomic_store(&item->overtaken, true);
    }
}

/*
 * A document was changed by files, and the kernel has told of it. What waits to be told of it is
 * overtaken; but if that begins with its making, and what was written to was a file already, nobody
 * has been told of the making, and it waits on.
 */
static void overtake(struct news_queue *queue, uint32_t session,
                     const struct hl_document_news *news)
{
    bool first = true, unknown = false;

    overtake_taken(queue, session, news);
    for (size_t i = 0, left = queue->documents; left > 0 && i < queue->count; i++) {
        struct range *range = at(queue, i);
        left -= range->document != 0;
        if (range->document != news->number || range->session != session)
            continue;
        if (first)
            unknown = range->change == HL_DOCUMENT_MADE && news->change == HL_DOCUMENT_CHANGED;
        first = false;
        range->document = 0;
        queue->documents--;
        queue->waiting--;
    }
    if (unknown)
        push(queue, &(struct range){
                        .session = session, .document = news->number, .change = HL_DOCUMENT_MADE});
}

static void add_records(struct news_queue *queue, const struct hl_news *news)
{
    if (extend(queue, news))
        queue->waiting += news->records;
    else if (news->records > 0 || news->created)
        push(queue, &(struct range){.session = news->session,
                                    .made = news->created,
                                    .first = news->first,
                                    .last = news->last,
                                    .records = news->records});
}

bool news_queue_add(struct news_queue *queue, const struct hl_news *news)
{
    pthread_mutex_lock(&queue->lock);
    bool empty = queue->waiting == 0;
    add_records(queue, news);
    for (size_t i = 0; i < news->document_count; i++) {
        if (news->by_file)
            overtake(queue, news->session, &news->documents[i]);
        else
            push(queue, &(struct range){.session = news->session,
                                        .document = news->documents[i].number,
                                        .change = news->documents[i].change});
    }
    if (!news->by_file)
        queue->skipped += news->documents_skipped;
    if (queue->waiting > queue->most)
        skip(queue, queue->waiting - queue->most);
    empty = empty && queue->waiting > 0;
    pthread_mutex_unlock(&queue->lock);
    return empty;
}

bool news_queue_gone(struct news_queue *queue, uint32_t session, const char *name)
{
    struct range range = {.session = session, .gone = strdup(name)};

    pthread_mutex_lock(&queue->lock);
    bool empty = queue->waiting == 0;
    if (range.gone)
        push(queue, &range);
    else
        queue->skipped++;
    if (queue->waiting > queue->most)
        skip(queue, queue->waiting - queue->most);
    empty = empty && queue->waiting > 0;
    pthread_mutex_unlock(&queue->lock);
    return empty;
}

/* ---- taking -----------------------------------------------------------------------------------
 */

struct nth {
    uint64_t left, last, seq;
    bool found;
};

static bool look(void *context, const struct hl_record *record)
{
    struct nth *nth = context;

    if (record->seq > nth->last)
        return false;
    nth->seq = record->seq;
    nth->found = nth->left == 0;
    return nth->left-- > 0;
}

/* The oldest record of a range with gaps that is to be told. */
static bool find_seq(struct hl_store *store, const struct range *range, uint64_t *seq)
{
    struct nth nth = {.left = range->skip, .last = range->last};

    if (hl_record_list(store, range->session, range->first, false, look, &nth) < 0)
        return false;
    *seq = nth.seq;
    return nth.found;
}

/* Takes a unit of the oldest range, whose next seq is this. */
static void advance(struct news_queue *queue, struct range *range, uint64_t seq)
{
    if (range->made) {
        range->made = false;
    } else {
        range->first = seq + 1;
        range->skip = 0;
        range->records--;
    }
    queue->waiting--;
    queue->untold++;
    if (units(range) == 0)
        drop_first(queue);
}

/* Takes a change of a document, or the end of a session. The lock is held. */
static void take_event(struct news_queue *queue, const struct range *range, struct news_item *item)
{
    item->kind = range->gone ? NEWS_GONE : NEWS_DOCUMENT;
    item->session = range->session;
    item->number = range->document;
    item->change = range->change;
    atomic_store(&item->overtaken, false);
    if (range->gone)
        snprintf(item->name, sizeof item->name, "%s", range->gone);
    queue->taken[queue->taken_count++] = item;
    queue->waiting--;
    queue->untold++;
    drop_first(queue);
}

/* Looks at the oldest entry that says anything. What is no range is taken at once: *taken. */
static bool look_at_first(struct news_queue *queue, struct range *range, struct news_item *item,
                          bool *taken)
{
    pthread_mutex_lock(&queue->lock);
    while (queue->count > 0 && units(at(queue, 0)) == 0)
        drop_first(queue);
    bool any = queue->count > 0 && queue->taken_count < NEWS_TAKEN_MAX;
    if (any)
        *range = *at(queue, 0);
    *taken = any && (range->document != 0 || range->gone);
    if (*taken)
        take_event(queue, range, item);
    pthread_mutex_unlock(&queue->lock);
    return any;
}

/* Takes what was found, if the oldest range is still as it was looked at. */
static bool take_first(struct news_queue *queue, const struct range *range, bool found,
                       uint64_t seq, struct news_item *item)
{
    bool taken = false;

    pthread_mutex_lock(&queue->lock);
    struct range *first = queue->count > 0 ? at(queue, 0) : NULL;
    if (first && first->serial == range->serial && first->skip == range->skip &&
        first->made == range->made && first->first == range->first) {
        if (!found) { /* what is left of it was dropped */
            queue->waiting -= units(first);
            drop_first(queue);
        } else {
            item->kind = first->made ? NEWS_SESSION : NEWS_RECORD;
            item->session = first->session;
            item->number = seq;
            advance(queue, first, seq);
            taken = true;
        }
    }
    pthread_mutex_unlock(&queue->lock);
    return taken;
}

bool news_queue_take(struct news_queue *queue, struct hl_store *store, struct news_item *item)
{
    struct range range;
    bool taken = false;

    while (!taken && look_at_first(queue, &range, item, &taken)) {
        if (taken)
            break;
        uint64_t seq = range.first;
        bool found = range.made || !has_gaps(&range) || find_seq(store, &range, &seq);
        taken = take_first(queue, &range, found, seq, item);
    }
    return taken;
}

void news_queue_told(struct news_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->taken_count = 0;
    queue->untold = 0;
    pthread_mutex_unlock(&queue->lock);
}

void news_queue_skip(struct news_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    skip(queue, queue->waiting);
    pthread_mutex_unlock(&queue->lock);
}

void news_queue_counts(struct news_queue *queue, uint64_t *waiting, uint64_t *skipped)
{
    pthread_mutex_lock(&queue->lock);
    *waiting = queue->waiting + queue->untold;
    *skipped = queue->skipped;
    pthread_mutex_unlock(&queue->lock);
}
