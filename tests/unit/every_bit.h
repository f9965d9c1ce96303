/*
 * every_bit.h - what a small log holds, frame by frame, and what must be left of it when some of
 * its frames are damaged.
 */
#ifndef HL_TEST_EVERY_BIT_H
#define HL_TEST_EVERY_BIT_H

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../store/scan.h"
#include "../../store/segment.h"
#include "support.h"

#define FILES_MAX 4
#define FRAMES_MAX 1024
#define SESSIONS 3U
#define KEYS 24U
#define BODY_MAX 4096U

static const char *const session_ids[SESSIONS] = {"alpha", "b/eta", "gamma"};

struct log_file {
    char name[SEGMENT_NAME_MAX];
    uint8_t *bytes;
    size_t size;
    bool sealed;
};

struct log_frame {
    unsigned file;
    uint64_t offset, size;
    unsigned type, batch; /* batches are numbered in order */
    unsigned session;     /* index in session_ids */
    uint64_t seq;
    char *line; /* of a record, with its newline */
    size_t len;
    int key; /* of an operation, or -1 */
    int set; /* what it sets the key to; -1: it deletes it */
};

struct log_model {
    struct log_file files[FILES_MAX];
    unsigned file_count;
    struct log_frame frames[FRAMES_MAX];
    unsigned frame_count, batch_count;
    uint64_t total; /* bytes of all files */
};

/* What a state does to the log, and what may be left. */
struct damage {
    bool hit[FRAMES_MAX];  /* the frame's bytes are not what they were */
    bool gone[FRAMES_MAX]; /* a recovery without an index loses its record: hit, or of a batch that
                              is not whole in a segment without a seal */
    bool any, header;      /* frames are hit; or one of the two headers of a file */
    bool clean;            /* the log ends earlier, but as if it had never gone on */
    unsigned no_headers;   /* files (bits) of which nothing can be read */
};

/* ---- making it ---- */

static void write_lines(struct t_store *t, uint32_t number, unsigned at, uint64_t *chance)
{
    char text[BODY_MAX * 4];
    size_t used = 0;
    unsigned lines = 1 + (unsigned)t_below(chance, 5);
    for (unsigned i = 0; i < lines; i++) {
        unsigned pad = (unsigned)t_below(chance, at % 7 == 0 ? 1500 : 250);
        unsigned key = (unsigned)t_below(chance, KEYS), what = (unsigned)t_below(chance, 5);
        if (what == 0)
            used += (size_t)snprintf(text + used, sizeof text - used,
                                     "{\"op\":\"set\",\"key\":\"k%u\",\"value\":%u,\"pad\":\"", key,
                                     at * 10 + i);
        else if (what == 1)
            used += (size_t)snprintf(text + used, sizeof text - used,
                                     "{\"op\":\"delete\",\"key\":\"k%u\",\"pad\":\"", key);
        else
            used += (size_t)snprintf(text + used, sizeof text - used, "{\"n\":%u,\"pad\":\"",
                                     at * 10 + i);
        memset(text + used, 'a' + (int)(at % 26), pad);
        used += pad;
        used += (size_t)snprintf(text + used, sizeof text - used, "\"}\n");
    }
    assert_int_equal(t_try_append(t, number, text, used), 0);
}

/* A log of 64 KiB: sealed segments, and one that is not. */
static void model_write(struct t_store *t, uint64_t *chance, uint64_t size)
{
    uint32_t numbers[SESSIONS];
    t_open(t);
    for (unsigned i = 0; i < SESSIONS; i++)
        numbers[i] = t_session(t, session_ids[i]);
    assert_int_equal(hl_attribute_set(t->store, numbers[0], "title", "x", 1, 0), 0);
    struct hl_status status;
    unsigned at = 1;
    do {
        write_lines(t, numbers[t_below(chance, SESSIONS)], at++, chance);
        assert_int_equal(hl_store_status(t->store, &status), 0);
    } while (status.log_bytes < size);
}

/* ---- reading it as it is on the disk ---- */

static unsigned session_index(uint32_t number)
{
    assert_true(number >= 1 && number <= SESSIONS);
    return number - 1;
}

static void model_take_frame(struct log_model *model, unsigned file, const struct scan_item *item)
{
    const struct frame *frame = &item->frame;
    assert_true(model->frame_count < FRAMES_MAX);
    struct log_frame *at = &model->frames[model->frame_count++];
    *at = (struct log_frame){.file = file,
                             .offset = item->offset,
                             .size = item->size,
                             .type = frame->type,
                             .key = -1,
                             .seq = frame->seq};
    if (frame->flags & FRAME_FIRST_OF_BATCH)
        model->batch_count++;
    at->batch = model->batch_count;
    if (frame->type != FRAME_SEAL)
        at->session = session_index(frame->session);
    if (frame->type != FRAME_EVENT && frame->type != FRAME_OPERATION)
        return;
    at->line = malloc(frame->length + 1);
    assert_non_null(at->line);
    memcpy(at->line, frame->body, frame->length);
    at->line[frame->length] = '\0';
    at->len = frame->length;
    if (frame->type == FRAME_OPERATION) {
        const char *key = strstr(at->line, "\"key\":\"k"), *value = strstr(at->line, "\"value\":");
        assert_non_null(key);
        at->key = atoi(key + 8);
        at->set = value ? atoi(value + 8) : -1;
    }
}

static void model_read(struct log_model *model, const char *dir)
{
    char log[T_PATH], path[T_PATH], **names;
    struct segment_set set;
    t_path(log, dir, "log");
    int fd = open(log, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    segment_set_init(&set, &hl_io_system, fd, false);
    size_t count = t_names(log, ".seg", &names);
    assert_true(count > 1 && count <= FILES_MAX);
    model->file_count = (unsigned)count;
    for (unsigned i = 0; i < count; i++) {
        struct log_file *file = &model->files[i];
        struct segment *segment;
        struct scan scan;
        struct scan_item item;
        snprintf(file->name, sizeof file->name, "%s", names[i]);
        t_path(path, log, "%s", names[i]);
        file->bytes = (uint8_t *)t_file_read(path, &file->size);
        file->sealed = i + 1 < count;
        model->total += file->size;
        assert_int_equal(segment_load(&set, names[i], &segment, NULL), 0);
        scan_init(&scan, set.io, segment->fd, segment->salt, SEGMENT_HEADER_REGION, file->size);
        while (scan_next(&scan, &item) == 0 && item.kind == SCAN_FRAME)
            model_take_frame(model, i, &item);
        assert_int_equal(item.kind, SCAN_END);
        scan_free(&scan);
        segment_free(&set, segment);
    }
    t_names_free(names, count);
    segment_set_free(&set);
    close(fd);
}

static void model_free(struct log_model *model)
{
    for (unsigned i = 0; i < model->file_count; i++)
        free(model->files[i].bytes);
    for (unsigned i = 0; i < model->frame_count; i++)
        free(model->frames[i].line);
}

/* ---- what is damaged ---- */

/* What follows from the frames that are hit. */
static void damage_settle(const struct log_model *model, struct damage *damage)
{
    bool broken[FRAMES_MAX + 1] = {false}; /* batches */
    for (unsigned i = 0; i < model->frame_count; i++) {
        if (damage->no_headers & 1U << model->frames[i].file)
            damage->hit[i] = true;
        damage->any = damage->any || damage->hit[i];
        if (damage->hit[i])
            broken[model->frames[i].batch] = true;
    }
    for (unsigned i = 0; i < model->frame_count; i++) {
        const struct log_frame *frame = &model->frames[i];
        damage->gone[i] =
            damage->hit[i] || (!model->files[frame->file].sealed && broken[frame->batch]);
    }
}

/* Whether a log that is cut there, or zero from there on, ends well: behind a whole batch of the
 * last segment and what of the next frame is zero as it is (its checksum may begin so); or where a
 * crash could leave a segment that is being made. */
static bool ends_well(const struct log_model *model, unsigned file, uint64_t offset)
{
    const struct log_file *in = &model->files[file];
    if (in->sealed)
        return false;
    if (offset < SEGMENT_HEADER_REGION || offset == in->size)
        return true;
    for (unsigned i = 0; i < model->frame_count; i++) {
        const struct log_frame *frame = &model->frames[i];
        bool first = i == 0 || model->frames[i - 1].batch != frame->batch;
        if (frame->file != file || !first || frame->offset > offset)
            continue;
        uint64_t at = frame->offset;
        while (at < offset && in->bytes[at] == 0)
            at++;
        if (at == offset)
            return true;
    }
    return false;
}

/* Bytes from `begin` to `end` of a file are not what they were, or are not there. */
static void damage_bytes(const struct log_model *model, struct damage *damage, unsigned file,
                         uint64_t begin, uint64_t end)
{
    const uint64_t header = sizeof(struct segment_header);
    bool first = begin < header,
         second = begin < SEGMENT_HEADER_SECOND + header && end > SEGMENT_HEADER_SECOND;
    if (first || second)
        damage->header = true;
    if (first && second)
        damage->no_headers |= 1U << file;
    for (unsigned i = 0; i < model->frame_count; i++) {
        const struct log_frame *frame = &model->frames[i];
        if (frame->file == file && frame->offset < end && frame->offset + frame->size > begin)
            damage->hit[i] = true;
    }
}

#endif
