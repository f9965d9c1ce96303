/*
 * sums_batch.h - what a batch, appended or replayed, adds to the sums.
 *
 * While it is put together its events are staged, one stage for each session, and readers see
 * nothing of them. sums_publish() adds them, and cannot fail. All with append_lock held.
 */
#ifndef HL_SUMS_BATCH_H
#define HL_SUMS_BATCH_H

#include "core.h"
#include "sums.h"

/* Whom an event counts for. When a flush was cut short by a crash, sessions may have in their sums
 * what the store's do not yet. */
enum sums_whom { SUMS_FOR_SESSION, SUMS_FOR_STORE_ONLY };

/*
 * Events that say the same kind and tool, none of which has a tool_call_id, added up while no lock
 * is held. In order of first appearance, so that names get their places as if each event had been
 * staged by itself.
 */
#define SUMS_GROUPS 8U
struct sums_group {
    const uint8_t *packed;   /* sums_event_read_packed(); or NULL, and: */
    struct line_usage first; /* of the first event, of which the names count */
    struct hl_usage usage;   /* but for errors and calls */
    uint64_t first_ts_ms, last_ts_ms;
};
struct sums_groups {
    struct sums_group at[SUMS_GROUPS];
    uint32_t count;
};
/* Adds an event whose ts_ms is set. False: it must be staged by itself, as all that come with it.
 */
bool sums_groups_add(struct sums_groups *groups, const struct line_usage *usage);
/* The same for what sums_event_read_packed() made, which stays where it is. All of a group are of
 * one kind or the other. */
bool sums_groups_add_packed(struct sums_groups *groups, const uint8_t *packed);

/* A batch begins; nothing is staged. */
void sums_begin(struct hl_store *store);
/* Whom an event at this position counts for. */
enum sums_whom sums_whom(const struct mem_session *session, uint64_t position);
/* Stages an event. -ENOMEM, or what a look into the index gives. */
int sums_stage(struct hl_store *store, struct mem_session *session, enum sums_whom whom,
               uint64_t seq, const struct sums_event *event);
/* The same for events of one session that were put into groups before. */
int sums_stage_groups(struct hl_store *store, struct mem_session *session,
                      const struct sums_groups *groups);
/* The same for what a session frame carries. */
int sums_stage_carried(struct hl_store *store, struct mem_session *session, enum sums_whom whom,
                       const struct sums *carried);
/* Both with mem_lock held exclusively: adds what is staged; or forgets it. */
void sums_publish(struct hl_store *store);
void sums_take_back(struct hl_store *store);

/* Brings a session's sums along when it comes into the active table: from the row of an older one,
 * or from the index. -ENOMEM, -EBADMSG. */
int sums_of_older(const struct mem_session *older, struct sums **sums);
int sums_of_index(struct index_view *view, uint32_t session, struct sums **sums);

void sums_stages_free(struct sums_stages *stages);

#endif
