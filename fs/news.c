/*
 * news.c - the queue of what waits to be announced.
 *
 * It holds ranges of seqs in a ring. Appends one record at a time make one range, so a burst costs
 * no more than its last record does. A range has gaps if its seqs were given so; the seqs in it are
 * looked up when they are taken.
 *
 * What holds: no two ranges share a record, since two are joined only when they touch; all records
 * of the session from first to last were news of one range; a range has at least one record or says
 * that the session was made; waiting is the sum over all of them, at most `most`.
 */
#include "announce.h"

#include <stdlib.h>

struct range {
    uint64_t serial; /* tells whether the oldest is still the one that was looked at */
    uint32_t session;
    bool made;
    uint64_t first, last;
    uint64_t records;
    uint64_t skip; /* as many of its oldest records are not told; only if it has gaps */
};

struct news_queue {
    size_t most;
    pthread_mutex_t lock; /* guards all below; a leaf */
    struct range *ring;
    size_t capacity, begin, count; /* capacity: a power of two, or 0 */
    uint64_t waiting, skipped, serial;
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

void news_queue_free(struct news_queue *queue)
{
    if (!queue)
        return;
    pthread_mutex_destroy(&queue->lock);
    free(queue->ring);
    free(queue);
}

static struct range *at(struct news_queue *queue, size_t n)
{
    return &queue->ring[(queue->begin + n) & (queue->capacity - 1)];
}

static uint64_t units(const struct range *range)
{
    return range->records + range->made;
}

static bool has_gaps(const struct range *range)
{
    return range->last - range->first + 1 != range->records;
}

static void drop_first(struct news_queue *queue)
{
    queue->begin = (queue->begin + 1) & (queue->capacity - 1);
    queue->count--;
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

    if (!range || news->created || range->session != news->session || range->records == 0 ||
        range->last + 1 != news->first || has_gaps(range) ||
        news->last - news->first + 1 != news->records)
        return false;
    range->last = news->last;
    range->records += news->records;
    return true;
}

bool news_queue_add(struct news_queue *queue, const struct hl_news *news)
{
    pthread_mutex_lock(&queue->lock);
    bool empty = queue->count == 0;
    bool extended = extend(queue, news);
    uint64_t number = news->records + news->created;
    if (!extended && grow(queue)) {
        *at(queue, queue->count++) = (struct range){.serial = queue->serial++,
                                                    .session = news->session,
                                                    .made = news->created,
                                                    .first = news->first,
                                                    .last = news->last,
                                                    .records = news->records};
        extended = true;
    }
    if (extended)
        queue->waiting += number;
    else
        queue->skipped += number;
    if (queue->waiting > queue->most)
        skip(queue, queue->waiting - queue->most);
    empty = empty && queue->count > 0;
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
    if (units(range) == 0)
        drop_first(queue);
}

bool news_queue_take(struct news_queue *queue, struct hl_store *store, struct news_item *item)
{
    bool taken = false, none = false;

    while (!taken && !none) {
        bool found = true;
        struct range range = {0};
        pthread_mutex_lock(&queue->lock);
        none = queue->count == 0;
        if (!none)
            range = *at(queue, 0);
        pthread_mutex_unlock(&queue->lock);
        if (none)
            break;
        uint64_t seq = range.first;
        if (!range.made && has_gaps(&range))
            found = find_seq(store, &range, &seq);

        pthread_mutex_lock(&queue->lock);
        struct range *first = queue->count > 0 ? at(queue, 0) : NULL;
        if (first && first->serial == range.serial && first->skip == range.skip &&
            first->made == range.made && first->first == range.first) {
            if (!found) { /* what is left of it was dropped */
                queue->waiting -= units(first);
                drop_first(queue);
            } else {
                *item = (struct news_item){range.session, range.made, seq};
                advance(queue, first, seq);
                taken = true;
            }
        }
        pthread_mutex_unlock(&queue->lock);
    }
    return taken;
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
    *waiting = queue->waiting;
    *skipped = queue->skipped;
    pthread_mutex_unlock(&queue->lock);
}
