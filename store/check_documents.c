/*
 * check_documents.c - the documents that the index has, against the records that gave them their
 * values. That slots, versions and documents agree among themselves is index_check()'s part.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "operation.h"

#define AT_ONCE 256U /* documents looked at before the store is asked again */
#define TOLD_MAX 20U

struct documents {
    struct checking *checking;
    const struct hl_session *session;
    struct hl_document at[AT_ONCE];
    size_t count;
    unsigned told;
};

static bool take_document(void *context, const struct hl_document *document)
{
    struct documents *documents = context;
    documents->at[documents->count++] = *document;
    return documents->count < AT_ONCE;
}

/* Whether the value stands where it is said to stand in the line. */
static bool is_value(const char *line, size_t len, const struct hl_document *document)
{
    struct operation operation;
    if ((uint64_t)document->offset + document->length > len ||
        operation_parse(line, len, &operation, NULL) < 0)
        return false;
    const char *value = line + document->offset;
    if (operation.kind == OPERATION_SET)
        return operation.value.at == value && operation.value.len == document->length;
    return operation.kind == OPERATION_CHECKPOINT && value > operation.value.at &&
           value + document->length < operation.value.at + operation.value.len;
}

/* -ENOENT, -EBADMSG: its record is not there, or is not what it should be. */
static int check_value(struct hl_store *store, uint32_t session, const struct hl_document *document)
{
    struct index_entry entry;
    struct frame frame;
    uint8_t *bytes;
    int error = lookup_seq(store, session, document->seq, &entry);
    if (error == 0)
        error = read_frame(store, session, &entry, &bytes, &frame);
    if (error < 0)
        return error;
    bool good = frame.type == FRAME_OPERATION && is_value(frame.body, frame.length, document);
    free(bytes);
    return good ? 0 : -EBADMSG;
}

static void tell(struct documents *documents, const struct hl_document *document)
{
    struct checking *checking = documents->checking;
    checking->faults->index = true;
    if (documents->told++ < TOLD_MAX)
        check_tell(checking, "document", HL_WARNING, true, "index/data.mdb", 0, 0,
                   "the value of document %.*s of session %" PRIu32
                   " (%s) is not in record %" PRIu64,
                   (int)document->key_len, document->key, documents->session->number,
                   documents->session->id, document->seq);
}

/* Of one area; of archives only the documents in them have values. */
static int check_area(struct documents *documents, uint64_t area)
{
    struct hl_store *store = documents->checking->store;
    uint32_t session = documents->session->number;
    uint64_t after = 0;
    int error = 0;
    do {
        documents->count = 0;
        error = hl_document_list(store, session, area, after, take_document, documents);
        for (size_t i = 0; i < documents->count && error == 0; i++) {
            error = check_value(store, session, &documents->at[i]);
            if (error == -ENOENT || error == -EBADMSG) {
                tell(documents, &documents->at[i]);
                error = 0;
            }
        }
        if (documents->count > 0)
            after = documents->at[documents->count - 1].number;
    } while (error == 0 && documents->count == AT_ONCE);
    return error;
}

static int check_archives(struct documents *documents)
{
    struct hl_store *store = documents->checking->store;
    uint32_t session = documents->session->number;
    uint64_t areas[AT_ONCE], after = 0;
    size_t count;
    int error = 0;
    do {
        documents->count = 0;
        error = hl_document_list(store, session, HL_AREA_ARCHIVES, after, take_document, documents);
        count = documents->count;
        for (size_t i = 0; i < count; i++)
            areas[i] = after = documents->at[i].number;
        for (size_t i = 0; i < count && error == 0; i++)
            error = check_area(documents, areas[i]);
    } while (error == 0 && count == AT_ONCE);
    return error;
}

/* The operations that the index counts are those of the log, as far as it knows the log. */
static void check_operations(struct documents *documents)
{
    struct checking *checking = documents->checking;
    const struct hl_session *session = documents->session;
    const struct seen *seen = check_seen(checking, session->number);
    if (!seen || seen->deleted ||
        (session->operations >= seen->early_operations && session->operations <= seen->operations))
        return;
    checking->faults->index = true;
    if (documents->told++ < TOLD_MAX)
        check_tell(checking, "document", HL_WARNING, true, "index/data.mdb", 0, 0,
                   "session %" PRIu32 " (%s) has %" PRIu64 " operations, and %" PRIu64
                   " by the index",
                   session->number, session->id, seen->operations, session->operations);
}

int check_documents_of_sessions(struct checking *checking)
{
    struct hl_session session = {.number = 0};
    if (!checking->store->index)
        return 0;
    struct documents *documents = calloc(1, sizeof *documents);
    if (!documents)
        return hl_fail(checking->err, ENOMEM, "out of memory");
    documents->checking = checking;
    documents->session = &session;
    int error;
    while ((error = hl_session_next(checking->store, session.number, &session)) == 0) {
        check_operations(documents);
        error = session.operations > 0 ? check_area(documents, HL_AREA_STATE) : 0;
        if (error == 0 && session.operations > 0)
            error = check_archives(documents);
        if (error == 0 && checking->request->progress &&
            atomic_load(&checking->request->progress->cancel))
            error = -EINTR;
        if (error < 0)
            break;
    }
    if (documents->told > TOLD_MAX)
        check_tell(checking, "document", HL_INFO, true, "index/data.mdb", 0, 0, "and so %u more",
                   documents->told - TOLD_MAX);
    free(documents);
    if (error == -ENOENT)
        return 0;
    return hl_fail(checking->err, -error, "cannot read the documents: %s",
                   error == -EINTR ? "interrupted" : strerror(-error));
}
