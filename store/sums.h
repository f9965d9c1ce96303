/*
 * sums.h - what the events of a session come to: how many, how many errors and tool calls, tokens,
 * cost, from when to when, by kind and by tool; and the same for the whole store.
 *
 * Those of a session are counters over everything that was ever appended to it: trimming does not
 * lower them. An event adds what it says of itself. Operations add nothing.
 *
 * Those of the whole store are the sums of the sessions that there are: deleting one takes its own
 * out. So they are the same whether its frames, which a compaction drops, are replayed or not. Of
 * first and last times, and of which names came first, deleted sessions leave a trace until the
 * index is built anew.
 *
 * Calls. An event with a tool_call_id counts as a call if no event with the same id came before it
 * in its session, whatever its kind and source: so a call and its result, or reports of it by two
 * sources, are one. It counts for the tool which that first event names. An event of kind ToolCall
 * without a tool_call_id is a call of its own. Ids are kept as hashes of 64 bits, each with the
 * seqs of the first and the last event that had it: whether an event was the one that counted is
 * seen from the seq, also when it is replayed. Tokens and cost are what all events say, added up.
 *
 * Names. A session keeps the first SUMS_KINDS kinds and SUMS_TOOLS tools, the store SUMS_ALL_KINDS
 * and SUMS_ALL_TOOLS; what others come to stands under "other".
 *
 * Compaction. A session frame may carry sums: what was dropped from the segment that it stands in.
 * Replay adds them to what the records come to. compact_sums.c has the session's lines that go
 * counted by sums_drop_line(), adds what the frames carry that it replaces (sums_merge()), and puts
 * it all into one session frame at the beginning of the new segment: before any event that is left,
 * so that one which has the id of a call that went does not count again. For that the ids of calls
 * stay as hashes (sums->calls), and for events that come yet: the newest SUMS_CALLS_KEPT of them,
 * and up to SUMS_CALLS_MAX that also stand in an event which is left. One that is not remembered
 * counts again if it comes after the index was built anew.
 */
#ifndef HL_SUMS_H
#define HL_SUMS_H

#include "index.h"
#include "json.h"
#include "store.h"

#define SUMS_KINDS 32U
#define SUMS_TOOLS 64U
#define SUMS_ALL_KINDS 64U
#define SUMS_ALL_TOOLS 256U
#define SUMS_CALLS_KEPT 4096U
#define SUMS_CALLS_MAX (256U * 1024)
#define SUMS_NAME_MAX 128U /* longer ones stand under "other" */
#define SUMS_OTHER "other"

/* What an event says of itself. Spans point into its line, inside the quotes; len 0: not given. */
struct line_usage {
    struct json_span kind, tool, call;
    bool kind_escaped, tool_escaped, call_escaped;
    uint32_t tokens_in, tokens_out, reasoning_tokens, cache_read_tokens, cache_creation_tokens;
    int64_t cost_usd_e6;
    uint64_t ts_ms;
};

/* The same with names as they count. */
struct sums_event {
    uint64_t ts_ms;
    uint64_t call; /* hash of its tool_call_id; 0: none */
    int64_t cost_usd_e6;
    uint32_t tokens_in, tokens_out, reasoning_tokens, cache_read_tokens, cache_creation_tokens;
    uint8_t kind_len, tool_len;                    /* tool_len 0: it names no tool */
    char kind[SUMS_NAME_MAX], tool[SUMS_NAME_MAX]; /* last: sums_event_size() */
};

struct sums_name {
    struct hl_usage usage;
    char *name;   /* owned */
    uint16_t all; /* its place in the store's list plus 1; 0: not looked for yet */
    uint8_t len;
};

struct sums_list {
    struct sums_name *at;
    uint32_t count, capacity;
};

struct sums {
    struct hl_usage total;
    uint64_t first_ts_ms, last_ts_ms; /* of events; of meaning if total.events is not 0 */
    uint64_t position; /* as stored: events of the session before this log position are in it */
    struct sums_list kinds, tools;
    uint64_t *calls; /* what session frames carry: hashes of ids whose call is counted in it, the
                        oldest first */
    size_t call_count, call_capacity;
};

/* ---- sums.c ---- */

struct sums *sums_new(void); /* NULL: out of memory */
void sums_clear(struct sums *sums);
void sums_free(struct sums *sums); /* NULL is fine */
/* -ENOMEM; *copy is then NULL. Without sums->calls. */
int sums_copy(const struct sums *sums, struct sums **copy);
size_t sums_bytes(const struct sums *sums); /* of memory, about */
bool sums_empty(const struct sums *sums);

uint64_t sums_hash(const void *bytes, size_t len);
void sums_usage_add(struct hl_usage *to, const struct hl_usage *usage);
/* The place of a name in a list, found or made; that of "other" if there are max already, or it is
 * too long. -ENOMEM. */
int sums_list_place(struct sums_list *list, uint32_t max, const char *name, size_t len);
/* The place if it can be had without making it, else -ENOENT. */
int sums_list_find(const struct sums_list *list, uint32_t max, const char *name, size_t len);
void sums_list_cut(struct sums_list *list, uint32_t count); /* forgets the last names */

/* What an event adds to each sum that it belongs to. */
struct hl_usage sums_event_usage(const struct sums_event *event, bool call);
/* Adds an event. call: it counts as a call. -ENOMEM: nothing was added. */
int sums_add(struct sums *sums, const struct sums_event *event, bool call);
/* Adds all that is in `from`. -ENOMEM: then *sums is of no use. */
int sums_merge(struct sums *sums, const struct sums *from);

/* Whether an event counts as a call whatever its id. */
bool sums_is_call(const struct sums_event *event);

/* Takes out of the store's sums those of a session that is deleted. */
void sums_subtract(struct sums *all, const struct sums *sums);

/* For compaction: adds to `carried` what dropping an event's line takes from a later replay, with
 * its id if it was the one that counted; nothing, if it is no event's line. -EBADMSG: the index is
 * damaged. */
int sums_drop_line(struct index_view *view, uint32_t session, uint64_t seq, const char *line,
                   size_t len, struct sums *carried);
/* Takes out of it the oldest ids that are too many; below: events with a lower seq are gone. */
int sums_forget_calls(struct index_view *view, uint32_t session, uint64_t below,
                      struct sums *carried);

/* ---- sums_line.c ---- */

void sums_event_from(const struct line_usage *usage, struct sums_event *event);
/* Reads a stored line, of which it takes that it is JSON: of one that is not it may make anything,
 * but is not read past its end. false: it is no object. */
bool sums_event_read(const char *line, size_t len, struct sums_event *event);
/* The same in a shorter form, to be kept; at most SUMS_PACKED_MAX bytes. Returns its length, 0 if
 * it is no object. */
#define SUMS_PACKED_MAX sizeof(struct sums_event)
size_t sums_event_read_packed(const char *line, size_t len, void *out);
size_t sums_event_len(const void *packed);
void sums_event_unpack(const void *packed, struct sums_event *event);

/* ---- sums_text.c ---- */

/* As it is stored in the index. The block is the caller's to free. -ENOMEM. */
int sums_encode(const struct sums *sums, size_t room_behind, uint8_t **bytes, size_t *len);
/* -EBADMSG. sums is empty before; after a failure it is to be cleared. */
int sums_decode(const uint8_t *bytes, size_t len, struct sums *sums);

/* As a session frame carries it: a JSON object. The text is the caller's to free. -ENOMEM. */
int sums_to_json(const struct sums *sums, char **text, size_t *len);
int sums_from_json(const char *text, size_t len, struct sums *sums);

#endif
