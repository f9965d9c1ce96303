/*
 * test_sums.c - what events come to: by hand, and random appends held against a simple model in
 * memory over crashes, reopenings, and rebuilds of the index.
 *
 * STEPS says how many (1500), SEED which.
 */
#include "support.h"

#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../store/format.h"
#include "../../store/frame.h"
#include "../../store/index.h"
#include "../../store/line.h"
#include "../../store/session.h"
#include "../../store/sums.h"

static const struct hl_usage_of *find(const struct hl_usage_of *names, size_t count,
                                      const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i].name, name) == 0)
            return &names[i];
    return NULL;
}

static struct hl_sums *sums_of(struct hl_store *store, uint32_t session)
{
    struct hl_sums *sums;
    assert_int_equal(hl_sums(store, session, &sums), 0);
    return sums;
}

static struct hl_usage kind(struct hl_store *store, uint32_t session, const char *name)
{
    struct hl_sums *sums = sums_of(store, session);
    const struct hl_usage_of *of = find(sums->kinds, sums->kind_count, name);
    struct hl_usage usage = of ? of->usage : (struct hl_usage){0};
    free(sums);
    return usage;
}

static struct hl_usage tool(struct hl_store *store, uint32_t session, const char *name)
{
    struct hl_sums *sums = sums_of(store, session);
    const struct hl_usage_of *of = find(sums->tools, sums->tool_count, name);
    struct hl_usage usage = of ? of->usage : (struct hl_usage){0};
    free(sums);
    return usage;
}

static struct hl_usage total(struct hl_store *store, uint32_t session)
{
    struct hl_sums *sums = sums_of(store, session);
    struct hl_usage usage = sums->total;
    free(sums);
    return usage;
}

/* ---- by hand ---- */

static void test_fields(void **state)
{
    struct t_store t;
    (void)state;
    t_store_init(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    struct hl_sums *sums = sums_of(t.store, s);
    assert_int_equal(sums->total.events + sums->kind_count + sums->tool_count, 0);
    free(sums);
    t_append(&t, s,
             "plain text\n"
             "{\"kind\":\"Cost\",\"ts_ms\":50,\"tokens_in\":4294967295,\"tokens_out\":2,"
             "\"reasoning_tokens\":3,\"cache_read_tokens\":4,\"cache_creation_tokens\":5,"
             "\"cost_usd_e6\":-7}\n"
             "{\"kind\":\"Cost\",\"ts_ms\":40,\"tokens_in\":1,\"cost_usd_e6\":10}\n"
             "{\"k\\u0069nd\":\"Err\\u006fr\",\"tool\":\"b\\u0061sh\",\"tokens_out\":null}\n"
             "{\"payload\":{\"kind\":\"Error\",\"tokens_in\":9,\"tool\":\"no\"}}\n"
             "{\"op\":\"set\",\"key\":\"k\",\"value\":1,\"tokens_in\":3,\"kind\":\"Error\"}\n");
    for (int turn = 0; turn < 3; turn++) {
        sums = sums_of(t.store, s);
        assert_int_equal(sums->total.events, 5);
        assert_int_equal(sums->total.errors, 1);
        assert_int_equal(sums->total.calls, 0);
        assert_int_equal(sums->total.tokens_in, UINT64_C(4294967296));
        assert_int_equal(sums->total.tokens_out, 2);
        assert_int_equal(sums->total.reasoning_tokens, 3);
        assert_int_equal(sums->total.cache_read_tokens, 4);
        assert_int_equal(sums->total.cache_creation_tokens, 5);
        assert_int_equal(sums->total.cost_usd_e6, 3);
        assert_int_equal(sums->first_ts_ms, 40);
        assert_true(sums->last_ts_ms > 1000000000000);
        assert_int_equal(sums->kind_count, 3);
        assert_int_equal(sums->tool_count, 1);
        free(sums);
        assert_int_equal(kind(t.store, s, "Message").events, 2);
        assert_int_equal(kind(t.store, s, "Cost").tokens_in, UINT64_C(4294967296));
        assert_int_equal(tool(t.store, s, "bash").errors, 1);
        assert_int_equal(total(t.store, 0).events, 5);
        if (turn == 0) {
            t_crash(&t);
            t_open(&t);
        } else if (turn == 1) {
            t_close(&t);
            t_lose_index(&t);
            t_open(&t);
        }
    }
    struct hl_sums *none;
    assert_int_equal(hl_sums(t.store, 99, &none), -ENOENT);
    t_store_free(&t);
}

static void test_calls(void **state)
{
    struct t_store t;
    (void)state;
    t_store_init(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "s"), other = t_session(&t, "other");
    /* Two sources and a result: one call. In one batch and over batches. */
    t_append(
        &t, s,
        "{\"kind\":\"ToolCall\",\"source\":\"Hook\",\"tool\":\"bash\",\"tool_call_id\":\"a\"}\n"
        "{\"kind\":\"ToolCall\",\"source\":\"Proxy\",\"tool\":\"bash\",\"tool_call_id\":"
        "\"\\u0061\"}\n");
    t_append(&t, s, "{\"kind\":\"ToolResult\",\"tool\":\"bash\",\"tool_call_id\":\"a\"}\n");
    assert_int_equal(total(t.store, s).calls, 1);
    assert_int_equal(tool(t.store, s, "bash").calls, 1);
    assert_int_equal(tool(t.store, s, "bash").events, 3);
    assert_int_equal(kind(t.store, s, "ToolResult").calls, 0);
    /* Without an id each ToolCall is one, and nothing else is. */
    t_append(&t, s,
             "{\"kind\":\"ToolCall\",\"tool\":\"ls\"}\n{\"kind\":\"ToolCall\",\"tool\":\"ls\"}\n"
             "{\"kind\":\"ToolResult\",\"tool\":\"ls\"}\n");
    assert_int_equal(tool(t.store, s, "ls").calls, 2);
    /* The same id in another session is another call. */
    t_append(&t, other, "{\"kind\":\"ToolCall\",\"tool\":\"bash\",\"tool_call_id\":\"a\"}\n");
    assert_int_equal(total(t.store, 0).calls, 4);
    /* A result may come first, and long after, when the index alone knows of the call. */
    t_append(&t, s, "{\"kind\":\"ToolResult\",\"tool\":\"cat\",\"tool_call_id\":\"b\"}\n");
    assert_int_equal(hl_checkpoint(t.store, NULL, &t.err), 0);
    t_append(&t, s,
             "{\"kind\":\"ToolCall\",\"tool\":\"cat\",\"tool_call_id\":\"b\"}\n"
             "{\"kind\":\"ToolResult\",\"tool\":\"bash\",\"tool_call_id\":\"a\"}\n");
    assert_int_equal(tool(t.store, s, "cat").calls, 1);
    assert_int_equal(tool(t.store, s, "bash").calls, 1);
    t_reopen(&t);
    t_append(&t, s, "{\"kind\":\"ToolResult\",\"tool\":\"bash\",\"tool_call_id\":\"a\"}\n");
    assert_int_equal(total(t.store, s).calls, 4);
    /* A batch that is refused counts nothing: not its ids, not its names. */
    const char refused[] =
        "{\"kind\":\"New\",\"tool\":\"new\",\"tool_call_id\":\"c\"}\n{\"seq\":1}\n";
    assert_int_equal(t_try_append(&t, s, refused, sizeof refused - 1), -EEXIST);
    assert_int_equal(tool(t.store, s, "new").events, 0);
    t_append(&t, s, "{\"kind\":\"ToolCall\",\"tool\":\"new\",\"tool_call_id\":\"c\"}\n");
    assert_int_equal(tool(t.store, s, "new").calls, 1);
    assert_int_equal(kind(t.store, s, "New").events, 0);
    /* A retry is nothing new. */
    for (int turn = 0; turn < 2; turn++) {
        t_append(&t, s,
                 "{\"seq\":50,\"kind\":\"ToolCall\",\"tool\":\"vi\",\"tool_call_id\":\"d\"}\n");
        assert_int_equal(tool(t.store, s, "vi").events, 1);
    }
    t_store_free(&t);
}

static void test_many_names(void **state)
{
    struct t_store t;
    char long_name[300];
    (void)state;
    t_store_init(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "s");
    memset(long_name, 'x', sizeof long_name);
    long_name[sizeof long_name - 1] = 0;
    t_append_format(&t, s, "{\"tool\":\"%s\"}\n{\"tool\":\"\"}\n", long_name);
    for (unsigned i = 0; i < 500; i++)
        t_append_format(&t, s, "{\"kind\":\"K%u\",\"tool\":\"t%u\",\"tokens_in\":1}\n", i, i);
    struct hl_sums *before = sums_of(t.store, s), *all = sums_of(t.store, 0);
    assert_int_equal(before->kind_count, SUMS_KINDS + 1);
    assert_int_equal(before->tool_count, SUMS_TOOLS);
    assert_int_equal(before->total.events, 502);
    assert_int_equal(find(before->tools, before->tool_count, "other")->usage.events,
                     501 - (SUMS_TOOLS - 1));
    assert_int_equal(find(before->kinds, before->kind_count, "other")->usage.events,
                     500 - (SUMS_KINDS - 1));
    assert_int_equal(all->tool_count, SUMS_TOOLS);
    t_close(&t);
    t_lose_index(&t);
    t_open(&t);
    struct hl_sums *after = sums_of(t.store, s);
    assert_int_equal(after->kind_count, before->kind_count);
    assert_int_equal(after->tool_count, before->tool_count);
    for (size_t i = 0; i < before->tool_count; i++) {
        assert_string_equal(after->tools[i].name, before->tools[i].name);
        assert_memory_equal(&after->tools[i].usage, &before->tools[i].usage,
                            sizeof(struct hl_usage));
    }
    free(before);
    free(after);
    free(all);
    t_store_free(&t);
}

static void same_names(const struct hl_usage_of *a, const struct hl_usage_of *b, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(a[i].name, b[i].name);
        assert_memory_equal(&a[i].usage, &b[i].usage, sizeof(struct hl_usage));
    }
}

/* Many sessions name more than the store keeps. Which names it keeps, and in which order, is the
 * same for an index that is built anew, where batches are taken together. */
static void test_names_of_many_sessions(void **state)
{
    struct t_store t;
    uint64_t chance = t_seed("sums, names");
    static char text[65536];
    (void)state;
    t_store_init(&t);
    t.options.segment_size = 131072;
    t_open(&t);
    for (unsigned round = 0; round < 400; round++) {
        size_t len = 0;
        for (unsigned i = 1 + (unsigned)t_below(&chance, 30); i > 0; i--) {
            /* They come to be named one after another, and are named again. */
            unsigned s = (unsigned)t_below(&chance, 20), reach = 1 + round / 14;
            len += (size_t)snprintf(text + len, sizeof text - len,
                                    "{\"session_id\":\"s%u\",\"kind\":\"k%u\",\"tool\":\"t%u\"}\n",
                                    s, s * 5 + (unsigned)t_below(&chance, reach),
                                    s * 20 + (unsigned)t_below(&chance, reach));
        }
        t_append(&t, 0, text);
    }
    assert_true(t_last_segment(&t) > 3);
    struct hl_sums *before = sums_of(t.store, 0);
    assert_int_equal(before->kind_count, SUMS_ALL_KINDS + 1);
    assert_int_equal(before->tool_count, SUMS_ALL_TOOLS + 1);
    for (unsigned turn = 0; turn < 2; turn++) {
        if (turn == 0) {
            assert_int_equal(hl_reindex(t.store, NULL, &t.err), 0);
        } else {
            t_close(&t);
            t_lose_index(&t);
            t_open(&t);
        }
        struct hl_sums *after = sums_of(t.store, 0);
        assert_int_equal(after->kind_count, before->kind_count);
        assert_int_equal(after->tool_count, before->tool_count);
        same_names(after->kinds, before->kinds, before->kind_count);
        same_names(after->tools, before->tools, before->tool_count);
        free(after);
    }
    free(before);
    t_store_free(&t);
}

/* Trimming lowers no counter. A session that is deleted has none, and those of all are without it.
 */
static void test_dropped(void **state)
{
    struct t_store t;
    struct hl_sums *none;
    (void)state;
    t_store_init(&t);
    t_open(&t);
    uint32_t s = t_session(&t, "s"), other = t_session(&t, "other");
    for (unsigned i = 0; i < 100; i++) {
        t_append_format(&t, s, "{\"kind\":\"ToolCall\",\"tool\":\"t\",\"tool_call_id\":\"%u\"}\n",
                        i);
        t_append_format(&t, other, "{\"kind\":\"Error\",\"tool\":\"t\",\"tool_call_id\":\"%u\"}\n",
                        i);
    }
    assert_int_equal(hl_trim(t.store, s, 51, NULL, &t.err), 0);
    assert_int_equal(hl_delete(t.store, other, NULL, &t.err), 0);
    /* The result of a call that was trimmed is no call. */
    t_append(&t, s, "{\"kind\":\"ToolResult\",\"tool\":\"t\",\"tool_call_id\":\"3\"}\n");
    for (int turn = 0; turn < 4; turn++) {
        assert_int_equal(total(t.store, s).events, 101);
        assert_int_equal(tool(t.store, s, "t").calls, 100);
        assert_int_equal(hl_sums(t.store, other, &none), -ENOENT);
        assert_int_equal(total(t.store, 0).events, 101);
        assert_int_equal(total(t.store, 0).calls, 100);
        assert_int_equal(total(t.store, 0).errors, 0);
        assert_int_equal(kind(t.store, 0, "Error").events, 0);
        assert_int_equal(tool(t.store, 0, "t").events, 101);
        if (turn == 0)
            t_crash(&t);
        else
            t_close(&t);
        if (turn == 2)
            t_lose_index(&t);
        t_open(&t);
    }
    /* Its id names another session now. */
    other = t_session(&t, "other");
    assert_int_equal(total(t.store, other).events, 0);
    t_store_free(&t);
}

/* ---- forms ---- */

static void random_sums(uint64_t *chance, struct sums *sums)
{
    struct sums_event event = {0};
    for (uint64_t i = t_below(chance, 60); i > 0; i--) {
        event.ts_ms = t_random(chance) >> t_below(chance, 64);
        event.cost_usd_e6 = (int64_t)t_random(chance) >> t_below(chance, 64);
        event.tokens_in = (uint32_t)(t_random(chance) >> (32 + t_below(chance, 32)));
        event.kind_len = (uint8_t)sprintf(event.kind, "K%u", (unsigned)t_below(chance, 40));
        event.tool_len = 0;
        if (t_below(chance, 2))
            event.tool_len = (uint8_t)sprintf(event.tool, "\"t\n%u", (unsigned)t_below(chance, 90));
        assert_int_equal(sums_add(sums, &event, t_below(chance, 2)), 0);
    }
}

static void same_list(const struct sums_list *a, const struct sums_list *b)
{
    assert_int_equal(a->count, b->count);
    for (uint32_t i = 0; i < a->count; i++) {
        assert_int_equal(a->at[i].len, b->at[i].len);
        assert_memory_equal(a->at[i].name, b->at[i].name, a->at[i].len);
        assert_memory_equal(&a->at[i].usage, &b->at[i].usage, sizeof(struct hl_usage));
    }
}

static void same(const struct sums *a, const struct sums *b)
{
    assert_memory_equal(&a->total, &b->total, sizeof a->total);
    assert_int_equal(a->first_ts_ms, b->first_ts_ms);
    assert_int_equal(a->last_ts_ms, b->last_ts_ms);
    same_list(&a->kinds, &b->kinds);
    same_list(&a->tools, &b->tools);
}

static void test_forms(void **state)
{
    uint64_t chance = t_seed("sums: forms");
    (void)state;
    for (unsigned round = 0; round < 300; round++) {
        struct sums sums = {0}, again = {0}, *carried;
        struct index_row row = {.number = 3, .id = "id", .id_len = 2}, decoded;
        uint8_t *bytes;
        char *text;
        size_t len;
        random_sums(&chance, &sums);
        sums.position = t_random(&chance);
        assert_int_equal(sums_encode(&sums, 0, &bytes, &len), 0);
        assert_int_equal(sums_decode(bytes, len, &again), 0);
        same(&sums, &again);
        assert_int_equal(again.position, sums.position);
        sums_clear(&again);
        for (size_t cut = 0; cut < len; cut += 1 + len / 50) {
            uint8_t *part = malloc(cut ? cut : 1); /* so that a read past it is seen */
            memcpy(part, bytes, cut);
            assert_int_equal(sums_decode(part, cut, &again), -EBADMSG);
            sums_clear(&again);
            free(part);
        }
        bytes[t_below(&chance, len)] ^= (uint8_t)(1 + t_below(&chance, 255));
        (void)sums_decode(bytes, len, &again);
        sums_clear(&again);
        free(bytes);

        sums.call_count = sums.call_capacity = (size_t)t_below(&chance, 4);
        sums.calls = calloc(4, sizeof *sums.calls);
        for (size_t i = 0; i < sums.call_count; i++)
            sums.calls[i] = t_random(&chance);
        assert_int_equal(session_encode_sums(&row, &sums, &text, &len), 0);
        assert_int_equal(session_decode(text, len, &decoded), 0);
        session_row_free(&decoded);
        assert_int_equal(session_decode_sums(text, len, &carried), 0);
        same(&sums, carried);
        assert_int_equal(carried->call_count, sums.call_count);
        if (sums.call_count > 0)
            assert_memory_equal(carried->calls, sums.calls, sums.call_count * sizeof *sums.calls);
        sums_free(carried);
        text[t_below(&chance, len)] ^= (char)(1 + t_below(&chance, 127));
        (void)session_decode_sums(text, len, &carried);
        sums_free(carried);
        free(text);
        assert_int_equal(session_encode(&row, &text, &len), 0);
        assert_int_equal(session_decode_sums(text, len, &carried), 0);
        assert_null(carried);
        free(text);
        sums_clear(&sums);
    }
}

/* ---- lines: what the parser finds and what a replay reads ---- */

static void pick(uint64_t *chance, char *line, size_t *len, const char *const *pieces, size_t count)
{
    const char *piece = pieces[t_below(chance, count)];
    memcpy(line + *len, piece, strlen(piece));
    *len += strlen(piece);
}

/* Field by field: there are holes between them. */
static bool same_event(const struct sums_event *a, const struct sums_event *b)
{
    return a->ts_ms == b->ts_ms && a->call == b->call && a->cost_usd_e6 == b->cost_usd_e6 &&
           a->tokens_in == b->tokens_in && a->tokens_out == b->tokens_out &&
           a->reasoning_tokens == b->reasoning_tokens &&
           a->cache_read_tokens == b->cache_read_tokens &&
           a->cache_creation_tokens == b->cache_creation_tokens && a->kind_len == b->kind_len &&
           a->tool_len == b->tool_len && memcmp(a->kind, b->kind, a->kind_len) == 0 &&
           memcmp(a->tool, b->tool, a->tool_len) == 0;
}

/* A line that is stored reads as what it was parsed to; of what is no line any more something is
 * read, or nothing, and no further. */
static void check_reading(const struct sums_event *parsed, const char *stored, size_t stored_len,
                          uint64_t *chance)
{
    struct sums_event read, kept;
    uint8_t packed[SUMS_PACKED_MAX];
    memset(&read, 0, sizeof read);
    memset(&kept, 0, sizeof kept);
    char *exact = malloc(stored_len); /* so that a read past it is seen */
    memcpy(exact, stored, stored_len);
    assert_true(sums_event_read(exact, stored_len, &read));
    size_t packed_len = sums_event_read_packed(exact, stored_len, packed);
    assert_int_equal(sums_event_len(packed), packed_len);
    sums_event_unpack(packed, &kept);
    if (!same_event(parsed, &read) || !same_event(parsed, &kept))
        fail_msg("not the same: %.*s", (int)stored_len, stored);
    exact[t_below(chance, stored_len)] ^= (char)(1 + t_below(chance, 127));
    (void)sums_event_read(exact, stored_len, &read);
    (void)sums_event_read_packed(exact, stored_len, packed);
    free(exact);
    size_t cut = (size_t)t_below(chance, stored_len);
    exact = malloc(cut ? cut : 1);
    memcpy(exact, stored, cut);
    (void)sums_event_read(exact, cut, &read);
    (void)sums_event_read_packed(exact, cut, packed);
    free(exact);
}

static void test_lines(void **state)
{
    static const char *const keys[] = {"\"kind\"",
                                       "\"tool\"",
                                       "\"tool_call_id\"",
                                       "\"tokens_in\"",
                                       "\"tokens_out\"",
                                       "\"payload\"",
                                       "\"cost_usd_e6\"",
                                       "\"cache_read_tokens\"",
                                       "\"reasoning_tokens\"",
                                       "\"cache_creation_tokens\"",
                                       "\"ts_ms\"",
                                       "\"x\"",
                                       "\"to\\u006fl\"",
                                       "\"k\\\"\"",
                                       "\"toolbox\"",
                                       "\"tokens_in \"",
                                       "\"source\""};
    static const char *const strings[] = {
        "\"Error\"",        "\"ToolCall\"",       "\"a\\u0062\"", "\"b\"", "\"kind\"",
        "\"tool_call_id\"", "\"\\ud83d\\ude00\"", "\"\"",         "null"};
    static const char *const numbers[] = {"0", "1", "12345", "4294967295", "-3", "null"};
    static const char *const others[] = {
        "{}",
        "[]",
        "{\"kind\":\"x\",\"tool\":[\"}\",{\"a\":\"\\\"\"}]}",
        "[{\"tokens_in\":1},\"]\"]",
        "true",
        "-1.5e3",
        "\"a long text, so long that it is longer than sixteen bytes\\n\"",
        "{\"text\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\\\\\"}",
        "null",
        "\"\\\\\""};
    static const char *const spaces[] = {"", "", "", "", " ", "  ", "\t"};
    static const char *const ids[] = {
        "\"session_id\":\"a session\"", "\"session_id\": \"a session\"",
        "\"session_id\":\"a sess\\u0069on\"", "\"session_id\":\"\\\"\\\\\""};
    uint64_t chance = t_seed("sums: lines");
    unsigned taken = 0;
    (void)state;
    for (unsigned round = 0; round < 40000; round++) {
        static char text[8192], stored[16384];
        size_t len = 0;
        struct line line;
        bool named = t_below(&chance, 2) == 0; /* by the writer */
        text[len++] = '{';
        if (named)
            pick(&chance, text, &len, ids, sizeof ids / sizeof *ids);
        for (uint64_t i = 0, n = t_below(&chance, 9); i < n; i++) {
            if (i > 0 || named)
                text[len++] = ',';
            pick(&chance, text, &len, spaces, 7);
            size_t key = t_below(&chance, sizeof keys / sizeof *keys);
            memcpy(text + len, keys[key], strlen(keys[key]));
            len += strlen(keys[key]);
            pick(&chance, text, &len, spaces, 7);
            text[len++] = ':';
            pick(&chance, text, &len, spaces, 7);
            if (key < 3 || key == 12 || key == 16)
                pick(&chance, text, &len, strings, sizeof strings / sizeof *strings);
            else if (key != 5 && key < 11)
                pick(&chance, text, &len, numbers, 6);
            else
                pick(&chance, text, &len, others, sizeof others / sizeof *others);
            pick(&chance, text, &len, spaces, 7);
        }
        text[len++] = '}';
        if (line_parse(text, len, sizeof text, &line, NULL) < 0)
            continue;
        taken++;
        struct line_stamp stamp = {.id_json = "\"a session\"",
                                   .id_json_len = 11,
                                   .seq = t_random(&chance) >> (12 + t_below(&chance, 52)),
                                   .ts_ms = 1700000000000 + t_below(&chance, 1000)};
        size_t stored_len = line_stamp(&line, &stamp, stored);
        struct sums_event parsed;
        line.usage.ts_ms = line.given & 1U << LINE_TS_MS ? line.ts_ms : stamp.ts_ms;
        memset(&parsed, 0, sizeof parsed);
        sums_event_from(&line.usage, &parsed);
        check_reading(&parsed, stored, stored_len, &chance);
    }
    assert_true(taken > 5000);
}

/* ---- compaction's part ---- */

/* Appends a session frame, as a batch of its own, to the last segment of a store that is closed. */
static void put_session_frame(const struct t_store *t, uint32_t number, const char *body,
                              size_t len)
{
    struct segment_header stored, header;
    uint32_t unknown;
    char path[T_PATH];
    size_t size;
    t_segment_path(t, 0, path);
    char *file = t_file_read(path, &size);
    memcpy(&stored, file, sizeof stored);
    assert_int_equal(header_parse(&stored, &header, &unknown), 0);
    free(file);
    struct frame frame = {.session = number,
                          .type = FRAME_SESSION,
                          .flags = FRAME_FIRST_OF_BATCH | FRAME_LAST_OF_BATCH,
                          .length = (uint32_t)len,
                          .recorded_ms = UINT64_C(1) << 41};
    uint8_t *bytes = calloc(1, frame_size((uint32_t)len));
    assert_non_null(bytes);
    memcpy(bytes + FRAME_HEADER_SIZE, body, len);
    t_file_append(path, bytes, frame_finish(bytes, header.salt, size, &frame));
    free(bytes);
}

/* A frame that carries sums is added at a replay, also when the index was lost, and ids that it
 * carries count no more. */
static void test_carried(void **state)
{
    struct t_store t;
    struct sums carried = {0}, other = {0}, *back;
    struct sums_event event = {.ts_ms = 5, .tokens_in = 7, .kind_len = 8, .tool_len = 4};
    (void)state;
    memcpy(event.kind, "ToolCall", 8);
    memcpy(event.tool, "bash", 4);
    assert_int_equal(sums_add(&carried, &event, true), 0);
    assert_int_equal(sums_add(&carried, &event, false), 0);
    event.ts_ms = 3;
    assert_int_equal(sums_add(&other, &event, true), 0);
    assert_int_equal(sums_merge(&carried, &other), 0);
    assert_int_equal(carried.total.events, 3);
    assert_int_equal(carried.total.calls, 2);
    assert_int_equal(carried.first_ts_ms, 3);
    assert_int_equal(carried.last_ts_ms, 5);
    assert_int_equal(carried.tools.at[0].usage.tokens_in, 21);
    carried.calls = malloc(sizeof *carried.calls);
    assert_non_null(carried.calls);
    carried.calls[carried.call_count++] = sums_hash("a", 1);

    t_store_init(&t);
    t_open(&t);
    struct index_row row = {.number = t_session(&t, "s"), .id = "s", .id_len = 1, .mode = 0640};
    t_append(&t, row.number, "{\"kind\":\"ToolCall\",\"tool\":\"bash\",\"tool_call_id\":\"b\"}\n");
    t_close(&t);
    char *text;
    size_t len;
    assert_int_equal(session_encode_sums(&row, &carried, &text, &len), 0);
    assert_int_equal(session_decode_sums(text, len, &back), 0);
    same(&carried, back);
    sums_free(back);
    put_session_frame(&t, row.number, text, len);
    free(text);
    t_open(&t);
    t_append(&t, row.number,
             "{\"kind\":\"ToolResult\",\"tool\":\"bash\",\"tool_call_id\":\"a\"}\n"
             "{\"kind\":\"ToolResult\",\"tool\":\"bash\",\"tool_call_id\":\"c\"}\n");
    for (int turn = 0; turn < 4; turn++) {
        for (uint32_t session = 0; session <= row.number; session += row.number) {
            struct hl_usage usage = tool(t.store, session, "bash");
            assert_int_equal(usage.events, 6);
            assert_int_equal(usage.calls, 4);
            assert_int_equal(usage.tokens_in, 21);
            struct hl_sums *sums = sums_of(t.store, session);
            assert_int_equal(sums->first_ts_ms, 3);
            free(sums);
        }
        if (turn == 0)
            t_crash(&t);
        else
            t_close(&t);
        if (turn == 2)
            t_lose_index(&t);
        t_open(&t);
    }
    /* One that cannot be read is damage, and the rest of the frame counts. */
    t_close(&t);
    const char bad[] =
        "{\"session\":\"s\",\"number\":1,\"uid\":0,\"gid\":0,\"mode\":416,"
        "\"created_ms\":1,\"last_seq\":9,\"attributes\":{},\"sums\":{\"total\":1}}\n";
    put_session_frame(&t, row.number, bad, sizeof bad - 1);
    t_open(&t);
    assert_true(t.warnings + t.errors > 0);
    assert_int_equal(tool(t.store, row.number, "bash").events, 6);
    struct hl_session session;
    assert_int_equal(hl_session_by_number(t.store, row.number, &session), 0);
    assert_int_equal(session.last_seq, 9);
    sums_clear(&carried);
    sums_clear(&other);
    t_store_free(&t);
}

/* What dropping lines takes from a replay. */
static void test_drop_line(void **state)
{
    static const struct {
        uint64_t seq;
        const char *line;
    } lines[] = {
        {1, "{\"kind\":\"ToolCall\",\"tool\":\"bash\",\"tool_call_id\":\"a\",\"ts_ms\":1}\n"},
        {2, "{\"kind\":\"ToolResult\",\"tool\":\"bash\",\"tool_call_id\":\"a\",\"ts_ms\":2}\n"},
        {3, "{\"kind\":\"ToolCall\",\"tool\":\"bash\",\"tool_call_id\":\"b\",\"ts_ms\":3}\n"},
        {4, "{\"kind\":\"ToolCall\",\"tool\":\"ls\",\"ts_ms\":4}\n"},
        {5, "{\"kind\":\"ToolResult\",\"tool\":\"bash\",\"tool_call_id\":\"b\",\"ts_ms\":5}\n"},
    };
    const uint8_t id[16] = "store";
    char dir[T_PATH];
    struct index *index;
    struct index_txn *txn;
    struct index_view *view;
    struct sums carried = {0};
    (void)state;
    t_dir_make(dir);
    assert_int_equal(index_open(dir, INDEX_CREATE, id, &index, NULL), 0);
    struct index_call calls[] = {{sums_hash("a", 1), 1, 2}, {sums_hash("b", 1), 3, 5}};
    index_sort_calls(calls, 2);
    assert_int_equal(index_begin(index, &txn), 0);
    assert_int_equal(index_put_calls(txn, 7, calls, 2), 0);
    assert_int_equal(index_commit(txn), 0);
    assert_int_equal(index_view_begin(index, &view), 0);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(
            sums_drop_line(view, 7, lines[i].seq, lines[i].line, strlen(lines[i].line), &carried),
            0);
    assert_int_equal(carried.total.events, 4);
    assert_int_equal(carried.total.calls, 3);
    assert_int_equal(carried.call_count, 2);
    assert_int_equal(carried.calls[0], sums_hash("a", 1));
    assert_int_equal(carried.calls[1], sums_hash("b", 1));
    assert_int_equal(sums_drop_line(view, 7, 5, lines[4].line, strlen(lines[4].line), &carried), 0);
    assert_int_equal(carried.call_count, 2);
    assert_int_equal(carried.total.calls, 3);
    assert_int_equal(carried.total.events, 5);
    assert_int_equal(sums_drop_line(view, 7, 6, "[]\n", 3, &carried), 0); /* no event's line */
    assert_int_equal(carried.total.events, 5);
    index_view_end(view);

    assert_int_equal(index_view_begin(index, &view), 0);
    struct index_call call;
    assert_int_equal(index_call_get(view, 7, sums_hash("b", 1), &call), 0);
    assert_int_equal(call.first, 3);
    assert_int_equal(call.last, 5);
    /* Those that are too many are forgotten, the oldest first, but one that an event has. */
    size_t many = SUMS_CALLS_KEPT + 10;
    carried.calls = realloc(carried.calls, many * sizeof *carried.calls);
    assert_non_null(carried.calls);
    carried.call_capacity = many;
    for (; carried.call_count < many; carried.call_count++)
        carried.calls[carried.call_count] = carried.call_count;
    assert_int_equal(sums_forget_calls(view, 7, 5, &carried), 0);
    assert_int_equal(carried.call_count, SUMS_CALLS_KEPT);
    assert_int_equal(carried.calls[0], sums_hash("b", 1));
    assert_int_equal(carried.calls[1], 11);
    assert_int_equal(sums_forget_calls(view, 7, 6, &carried), 0);
    assert_int_equal(carried.call_count, SUMS_CALLS_KEPT);
    index_view_end(view);
    sums_clear(&carried);
    index_close(index);
    t_dir_remove(dir);
}

/* ---- a model ---- */

#define SESSIONS 5
#define IDS 400
#define NAMES 6

struct model_usage {
    uint64_t events, calls, tokens;
    int64_t cost;
};

struct model_session {
    uint32_t number;
    char id[8];
    struct model_usage total, kinds[NAMES], tools[NAMES];
    bool seen[IDS];
    uint64_t last_ts;
};

struct model {
    struct t_store t;
    struct model_session sessions[SESSIONS];
    uint64_t chance;
};

static const char *const kinds[NAMES] = {"ToolCall", "ToolResult", "Error", "Cost", "Hook", "Own"};
static const char *const tools[NAMES] = {"", "bash", "ls", "cat", "edit", "grep"};

static void add(struct model_usage *usage, bool call, uint64_t tokens, int64_t cost)
{
    usage->events++;
    usage->calls += call;
    usage->tokens += tokens;
    usage->cost += cost;
}

static void do_append(struct model *m)
{
    static char text[1 << 20];
    struct model_session *copy = malloc(sizeof m->sessions);
    size_t used = 0, lines = t_below(&m->chance, 8) ? 1 + t_below(&m->chance, 5)
                                                    : 1 + t_below(&m->chance, 900);
    bool bad = t_below(&m->chance, 12) == 0;
    assert_non_null(copy);
    memcpy(copy, m->sessions, sizeof m->sessions);
    for (size_t i = 0; i < lines; i++) {
        struct model_session *s = &copy[t_below(&m->chance, SESSIONS)];
        unsigned k = (unsigned)t_below(&m->chance, NAMES), w = (unsigned)t_below(&m->chance, NAMES);
        unsigned id = (unsigned)t_below(&m->chance, IDS * 2);
        uint64_t tokens = t_below(&m->chance, 1000);
        int64_t cost = (int64_t)t_below(&m->chance, 1000) - 100;
        bool call = id < IDS ? !s->seen[id] : k == 0;
        used +=
            (size_t)sprintf(text + used, "{\"session_id\":\"%s\",\"kind\":\"%s\",\"tool\":\"%s\",",
                            s->id, kinds[k], tools[w]);
        if (id < IDS) {
            used += (size_t)sprintf(text + used, "\"tool_call_id\":\"call-%u\",", id);
            s->seen[id] = true;
        }
        s->last_ts++;
        used += (size_t)sprintf(text + used,
                                "\"ts_ms\":%" PRIu64 ",\"tokens_in\":%" PRIu64
                                ",\"cost_usd_e6\":%" PRId64 "}\n",
                                s->last_ts, tokens, cost);
        add(&s->total, call, tokens, cost);
        add(&s->kinds[k], call, tokens, cost);
        if (w > 0)
            add(&s->tools[w], call, tokens, cost);
    }
    if (bad)
        used += (size_t)sprintf(text + used, "{\"session_id\":\"s0\",\"seq\":1,\"no\":1}\n");
    int error = t_try_append(&m->t, 0, text, used);
    if (error != (bad ? -EEXIST : 0))
        fail_msg("append: %d: %s", error, m->t.err.text);
    if (!bad)
        memcpy(m->sessions, copy, sizeof m->sessions);
    free(copy);
}

static void compare(const struct hl_usage *usage, const struct model_usage *model)
{
    assert_int_equal(usage->events, model->events);
    assert_int_equal(usage->calls, model->calls);
    assert_int_equal(usage->tokens_in, model->tokens);
    assert_int_equal(usage->cost_usd_e6, model->cost);
}

static void check_names(const struct hl_usage_of *of, size_t count, const char *const *names,
                        const struct model_usage *models)
{
    static const struct hl_usage none;
    size_t there = 0;
    for (unsigned i = 0; i < NAMES; i++) {
        const struct hl_usage_of *name = find(of, count, names[i]);
        compare(name ? &name->usage : &none, &models[i]);
        there += name != NULL;
    }
    assert_int_equal(there, count);
}

static void merge(struct model_usage *to, const struct model_usage *from)
{
    to->events += from->events;
    to->calls += from->calls;
    to->tokens += from->tokens;
    to->cost += from->cost;
}

static void check_model(struct model *m, struct hl_store *store)
{
    struct model_session all = {.number = 0};
    for (unsigned i = 0; i < SESSIONS; i++) {
        const struct model_session *s = &m->sessions[i];
        struct hl_sums *sums = sums_of(store, s->number);
        compare(&sums->total, &s->total);
        assert_int_equal(sums->total.errors, s->kinds[2].events);
        check_names(sums->kinds, sums->kind_count, kinds, s->kinds);
        check_names(sums->tools, sums->tool_count, tools, s->tools);
        if (s->total.events > 0) {
            assert_int_equal(sums->first_ts_ms, 1001);
            assert_int_equal(sums->last_ts_ms, s->last_ts);
        }
        free(sums);
        merge(&all.total, &s->total);
        for (unsigned k = 0; k < NAMES; k++) {
            merge(&all.kinds[k], &s->kinds[k]);
            merge(&all.tools[k], &s->tools[k]);
        }
    }
    struct hl_sums *sums = sums_of(store, 0);
    compare(&sums->total, &all.total);
    check_names(sums->kinds, sums->kind_count, kinds, all.kinds);
    check_names(sums->tools, sums->tool_count, tools, all.tools);
    free(sums);
}

/* A read-only store beside the writer, in a process of its own: tells the sums of all sessions each
 * time that it is asked. */
static void tell_beside(const struct t_store *t, int asked, int answer)
{
    struct hl_options options = t->options;
    struct hl_store *store;
    char byte;
    options.read_only = true;
    if (hl_store_open(t->dir, &options, &store, NULL, NULL) < 0)
        _exit(1);
    while (read(asked, &byte, 1) == 1) {
        struct hl_usage usage[SESSIONS + 1];
        for (uint32_t i = 0; i <= SESSIONS; i++) {
            struct hl_sums *sums;
            if (hl_sums(store, i, &sums) < 0)
                _exit(1);
            usage[i] = sums->total;
            free(sums);
        }
        if (write(answer, usage, sizeof usage) != sizeof usage)
            _exit(1);
    }
    _exit(0);
}

static void check_beside(struct model *m)
{
    int to[2], from[2], status;
    assert_int_equal(pipe(to), 0);
    assert_int_equal(pipe(from), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(to[1]);
        tell_beside(&m->t, to[0], from[1]);
    }
    close(to[0]);
    close(from[1]);
    for (unsigned turn = 0; turn < 4; turn++) {
        struct hl_usage usage[SESSIONS + 1];
        struct model_usage all = {.events = 0};
        assert_int_equal(write(to[1], "?", 1), 1);
        assert_int_equal(read(from[0], usage, sizeof usage), sizeof usage);
        for (unsigned i = 0; i < SESSIONS; i++) {
            compare(&usage[m->sessions[i].number], &m->sessions[i].total);
            merge(&all, &m->sessions[i].total);
        }
        compare(&usage[0], &all);
        do_append(m);
        if (turn == 1)
            assert_int_equal(hl_checkpoint(m->t.store, NULL, &m->t.err), 0);
    }
    close(to[1]);
    close(from[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_model(void **state)
{
    struct model *m = calloc(1, sizeof *m);
    (void)state;
    assert_non_null(m);
    m->chance = t_seed("sums: model");
    t_store_init(&m->t);
    m->t.options.segment_size = 256 * 1024;
    t_open(&m->t);
    for (unsigned i = 0; i < SESSIONS; i++) {
        sprintf(m->sessions[i].id, "s%u", i);
        m->sessions[i].number = t_session(&m->t, m->sessions[i].id);
        m->sessions[i].last_ts = 1000;
    }
    t_append(&m->t, m->sessions[0].number,
             "{\"op\":\"set\",\"key\":\"k\",\"value\":1}\n"); /* seq 1 */
    for (unsigned i = 0, steps = t_amount("STEPS", t_slow() ? 300 : 1500); i < steps; i++) {
        do_append(m);
        uint64_t what = t_below(&m->chance, 60);
        if (what == 0) {
            t_crash(&m->t);
            t_open(&m->t);
        } else if (what == 1) {
            t_reopen(&m->t);
        } else if (what == 2) {
            t_close(&m->t);
            t_lose_index(&m->t);
            t_open(&m->t);
        } else if (what == 3) {
            assert_int_equal(hl_checkpoint(m->t.store, NULL, &m->t.err), 0);
        } else if (what == 4) {
            assert_int_equal(hl_reindex(m->t.store, NULL, &m->t.err), 0);
        } else if (what == 5) {
            check_beside(m);
        }
        if (what < 8)
            check_model(m, m->t.store);
    }
    t_close(&m->t);
    t_open(&m->t);
    check_model(m, m->t.store);
    t_store_free(&m->t);
    free(m);
}

/* ---- a flush that a crash cuts short ---- */

/* Appends for as long as it lives, and counts its batches. */
static void append_for_ever(struct t_store *t, uint64_t chance, _Atomic unsigned *batches)
{
    static char text[1 << 20];
    t_open(t);
    for (;;) {
        size_t used = 0;
        for (unsigned i = 0; i < 4000; i++)
            used +=
                (size_t)sprintf(text + used,
                                "{\"session_id\":\"s%u\",\"kind\":\"ToolCall\",\"tool\":\"t%u\","
                                "\"tool_call_id\":\"%u\",\"tokens_in\":1}\n",
                                (unsigned)(t_below(&chance, 4) * t_below(&chance, 2)),
                                (unsigned)t_below(&chance, 5), (unsigned)t_below(&chance, 1000000));
        t_try_append(t, 0, text, used);
        atomic_fetch_add(batches, 1);
    }
}

static void same_shown(struct hl_sums *const *a, struct hl_sums *const *b)
{
    for (unsigned i = 0; i <= 4; i++) {
        if (!a[i] || !b[i]) {
            assert_true(!a[i] && !b[i]);
            continue;
        }
        assert_memory_equal(&a[i]->total, &b[i]->total, sizeof a[i]->total);
        assert_int_equal(a[i]->first_ts_ms, b[i]->first_ts_ms);
        assert_int_equal(a[i]->tool_count, b[i]->tool_count);
        for (size_t k = 0; k < a[i]->tool_count; k++) {
            const struct hl_usage_of *of = find(b[i]->tools, b[i]->tool_count, a[i]->tools[k].name);
            assert_non_null(of);
            assert_memory_equal(&of->usage, &a[i]->tools[k].usage, sizeof of->usage);
        }
    }
}

/* Sessions that are in the index already, and calls that are, count once, for them and in all: what
 * is shown after a crash is what a rebuild comes to. */
static void test_killed(void **state)
{
    uint64_t chance = t_seed("sums: killed");
    struct t_store t;
    (void)state;
    t_store_init(&t);
    t.options.segment_size = 16 << 20;
    _Atomic unsigned *batches =
        mmap(NULL, sizeof *batches, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(batches, MAP_FAILED);
    for (unsigned round = 0; round < (t_slow() ? 2 : 8); round++) {
        atomic_store(batches, 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0)
            append_for_ever(&t, t_random(&chance), batches);
        /* Killed at any time, more often than not with a flush under way: some thirty batches are
         * the memtable full. */
        unsigned enough = 10 + (unsigned)t_below(&chance, 60);
        while (atomic_load(batches) < enough) {
            assert_int_equal(waitpid(child, NULL, WNOHANG), 0);
            usleep(500);
        }
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(waitpid(child, NULL, 0), child);
        t_random(&chance);
        struct hl_sums *shown[2][5] = {{NULL}};
        for (unsigned turn = 0; turn < 2; turn++) {
            t_open(&t);
            for (unsigned i = 0; i <= 4; i++)
                if (hl_sums(t.store, i, &shown[turn][i]) < 0)
                    shown[turn][i] = NULL;
            t_close(&t);
            t_lose_index(&t);
        }
        assert_true(shown[0][0]->total.events >= shown[0][0]->total.calls);
        same_shown(shown[0], shown[1]);
        for (unsigned i = 0; i < 10; i++)
            free(shown[i / 5][i % 5]);
    }
    munmap((void *)(uintptr_t)batches, sizeof *batches);
    t_store_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),     cmocka_unit_test(test_calls),
        cmocka_unit_test(test_many_names), cmocka_unit_test(test_names_of_many_sessions),
        cmocka_unit_test(test_dropped),    cmocka_unit_test(test_forms),
        cmocka_unit_test(test_lines),      cmocka_unit_test(test_carried),
        cmocka_unit_test(test_drop_line),  cmocka_unit_test(test_model),
        cmocka_unit_test(test_killed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
