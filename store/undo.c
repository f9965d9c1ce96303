/* undo.c - hl_undo(): which operations are taken back, and the records that say so. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "documents.h"

#define LINE_MAX_BYTES 64U /* of a line below */
#define TRIES 64U          /* while others append operations in between */

struct chain {
    uint64_t *seqs; /* newest first */
    uint64_t count;
};

static int too_few(struct hl_error *err, uint64_t found)
{
    if (found == 0)
        return hl_fail(err, EINVAL, "there is nothing to undo");
    return hl_fail(err, EINVAL, "there are only %" PRIu64 " operations to undo", found);
}

/* The last `count` operations not undone. append_lock is held. */
static int collect(struct hl_store *store, uint32_t session, uint64_t count, struct chain *chain,
                   struct hl_error *err)
{
    struct mem_session *found;
    int error = lookup_for_append(store, session, NULL, 0, &found);
    if (error < 0)
        return hl_fail(err, -error, "cannot look the session up: %s", strerror(-error));
    bool more = found->row.documents.has_top;
    uint64_t next = found->row.documents.top;
    /* No more than there ever were: so much room is enough to find out how many there are. */
    uint64_t most = found->row.documents.operations;
    chain->seqs = malloc((size_t)(count < most ? count : most) * sizeof *chain->seqs + 1);
    if (!chain->seqs)
        return hl_fail(err, ENOMEM, "out of memory");
    for (chain->count = 0; chain->count < count; chain->count++) {
        struct index_operation operation;
        if (!more)
            return too_few(err, chain->count);
        error = next < found->row.documents.history_from
                    ? -ENOENT
                    : documents_operation(store, session, next, &operation);
        if (error == -ENOENT)
            return hl_fail(err, EINVAL,
                           "operation %" PRIu64 " cannot be undone: the history that is kept "
                           "begins at %" PRIu64,
                           next, found->row.documents.history_from);
        if (error < 0)
            return hl_fail(err, -error, "cannot read operation %" PRIu64 ": %s", next,
                           strerror(-error));
        chain->seqs[chain->count] = next;
        more = operation.has_before;
        next = operation.before;
        free(operation.slots);
    }
    return 0;
}

static int append_undos(struct hl_store *store, struct hl_append *request,
                        const struct chain *chain, struct hl_error *err)
{
    char *lines = malloc((size_t)chain->count * LINE_MAX_BYTES);
    if (!lines)
        return hl_fail(err, ENOMEM, "out of memory");
    size_t len = 0;
    for (uint64_t i = 0; i < chain->count; i++)
        len += (size_t)snprintf(lines + len, LINE_MAX_BYTES,
                                "{\"op\":\"undo\",\"undone_seq\":%" PRIu64 "}\n", chain->seqs[i]);
    request->data = lines;
    request->len = len;
    int error = hl_append(store, request, err);
    free(lines);
    return error;
}

int hl_undo(struct hl_store *store, uint32_t session, uint64_t count,
            void (*receipt)(void *context, const struct hl_receipt *receipt), void *context,
            struct hl_error *err)
{
    struct hl_append request = {.session = session, .receipt = receipt, .receipt_context = context};
    int error = store_writable(store, err);
    if (error == 0 && count == 0)
        error = hl_fail(err, EINVAL, "the number of operations to undo must be at least 1");
    uint64_t refused = 0; /* newest operation of the try before */
    for (unsigned tries = 0; error == 0; tries++) {
        struct chain chain = {.seqs = NULL};
        if (err)
            *err = (struct hl_error){0};
        pthread_mutex_lock(&store->append_lock);
        error = collect(store, session, count, &chain, err);
        pthread_mutex_unlock(&store->append_lock);
        uint64_t newest = error == 0 ? chain.seqs[0] : 0;
        if (error == 0)
            error = append_undos(store, &request, &chain, err);
        free(chain.seqs);
        if (error == 0)
            return 0;
        /* Refused: an operation may have come in between. Then the newest is another one. */
        if (error != -EINVAL || tries == TRIES || (tries > 0 && newest == refused))
            return error;
        refused = newest;
        error = newest == 0 ? error : 0;
    }
    return error;
}
