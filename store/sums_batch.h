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

/* A batch begins; nothing is staged. */
void sums_begin(struct hl_store *store);
/* Whom an event at this position counts for. */
enum sums_whom sums_whom(const struct mem_session *session, uint64_t position);
/* Stages an event. -ENOMEM, or what a look into the index gives. */
int sums_stage(struct hl_store *store, struct mem_session *session, enum sums_whom whom,
               uint64_t seq, const struct sums_event *event);
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
