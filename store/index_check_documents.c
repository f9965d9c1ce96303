/*
 * index_check_documents.c - whether slots, versions, documents and operations agree: each slot is
 * found by its key, each document is the last version of its slot, the counts are those of the
 * session's row.
 */
#include <errno.h>
#include <string.h>

#include "index_check.h"

int documents_check_begin(struct documents_check *check, const struct index_at *at,
                          struct index_check_report *report)
{
    *check = (struct documents_check){.at = *at, .report = report};
    int error = place_open(at, TABLE_SLOTS, &check->slots);
    if (error == 0)
        error = place_open(at, TABLE_VERSIONS, &check->versions);
    if (error == 0)
        error = place_open(at, TABLE_DOCUMENTS, &check->documents);
    if (error == 0)
        error = place_open(at, TABLE_OPERATIONS, &check->operations);
    return error;
}

void documents_check_free(struct documents_check *check)
{
    place_close(&check->slots);
    place_close(&check->versions);
    place_close(&check->documents);
    place_close(&check->operations);
}

/* The key of a slot leads to it. */
static int check_key(const struct documents_check *check, uint32_t session,
                     const struct index_slot *slot)
{
    struct index_key key = index_key_bytes(session, slot->area, slot->key, slot->key_len);
    MDB_val key_val = index_key_val(&key), value;
    uint64_t number = 0;
    int error =
        index_error(mdb_get(check->at.txn, check->at.index->table[TABLE_KEYS], &key_val, &value));
    if (error == 0)
        error = index_slot_key_decode(&key_val, &value, &number);
    if (error == -ENOENT || error == -EBADMSG || (error == 0 && number != slot->number))
        return index_complain(check->report, "the key of a document of session %u is lost",
                              session);
    return error;
}

/* A document that is there is the last version of its slot, and the other way round. */
static int check_present(const struct documents_check *check, uint32_t session,
                         const struct index_slot *slot, const struct index_version *last)
{
    struct index_key key = index_key_u32_u64_u64(session, slot->area, slot->number);
    MDB_val key_val = index_key_val(&key), value;
    struct index_slot stored;
    struct index_version version;
    int error = index_error(
        mdb_get(check->at.txn, check->at.index->table[TABLE_DOCUMENTS], &key_val, &value));
    if (error == -ENOENT && !last->present)
        return 0;
    if (error == 0)
        error = index_document_decode(&key_val, &value, &stored, &version);
    bool same = error == 0 && last->present && version.seq == last->seq &&
                version.end == last->end && version.source == last->source &&
                version.set_ms == last->set_ms && version.offset == last->offset &&
                version.length == last->length && stored.key_len == slot->key_len &&
                memcmp(stored.key, slot->key, slot->key_len) == 0;
    if (error == 0 || error == -ENOENT || error == -EBADMSG)
        return same ? 0
                    : index_complain(check->report,
                                     "a document of session %u is not what its history says",
                                     session);
    return error;
}

/* Whether the place of versions stands on one of this slot. */
static int is_of_slot(const struct documents_check *check, uint32_t session, uint64_t number,
                      bool *is)
{
    int error = place_is_of(check->report, &check->versions, session, is);
    if (error < 0 || !*is)
        return error;
    if (check->versions.key.mv_size != 20)
        return index_complain(check->report, "a key is too short");
    uint64_t of = index_key_get_u64_at(&check->versions.key, 4);
    if (of < number)
        return index_complain(check->report, "session %u has a history of no document", session);
    *is = of == number;
    return 0;
}

static int check_versions(struct documents_check *check, const struct index_row *row,
                          const struct index_slot *slot, uint64_t *documents)
{
    struct index_version last = {.seq = 0}, version;
    bool is, any = false;
    int error = is_of_slot(check, row->number, slot->number, &is);
    while (error == 0 && is) {
        if (index_version_decode(&check->versions.key, &check->versions.value, &version) < 0)
            return index_complain(check->report,
                                  "the history of a document of session %u is "
                                  "damaged",
                                  row->number);
        if (version.seq > row->last_seq || (any && version.end < last.end))
            return index_complain(check->report,
                                  "the history of a document of session %u cannot "
                                  "be so",
                                  row->number);
        last = version;
        any = true;
        check->report->versions++;
        error = place_move(&check->versions, MDB_NEXT);
        if (error == 0)
            error = is_of_slot(check, row->number, slot->number, &is);
    }
    if (error == 0 && !any)
        return index_complain(check->report, "a document of session %u has no history",
                              row->number);
    if (error == 0)
        error = check_present(check, row->number, slot, &last);
    *documents += last.present && slot->area == HL_AREA_STATE;
    check->report->documents += last.present;
    return error;
}

static int check_slots(struct documents_check *check, const struct index_row *row)
{
    uint64_t documents = 0;
    bool is;
    int error = place_is_of(check->report, &check->slots, row->number, &is);
    while (error == 0 && is) {
        struct index_slot slot;
        if (index_slot_decode(&check->slots.key, &check->slots.value, &slot) < 0 ||
            slot.number - INDEX_SLOT_FIRST >= row->documents.slots)
            return index_complain(check->report, "a document of session %u is damaged",
                                  row->number);
        check->slot_count++;
        error = check_key(check, row->number, &slot);
        if (error == 0)
            error = check_versions(check, row, &slot, &documents);
        if (error == 0)
            error = place_move(&check->slots, MDB_NEXT);
        if (error == 0)
            error = place_is_of(check->report, &check->slots, row->number, &is);
    }
    if (error == 0 && documents != row->documents.documents)
        return index_complain(check->report,
                              "session %u does not have as many documents as it says", row->number);
    return error;
}

static int check_operations(struct documents_check *check, const struct index_row *row)
{
    bool is, top = false;
    int error = place_is_of(check->report, &check->operations, row->number, &is);
    while (error == 0 && is) {
        struct index_operation operation;
        const uint8_t *numbers;
        ssize_t count = index_operation_decode(&check->operations.key, &check->operations.value,
                                               &operation, &numbers);
        bool good = count >= 0 && operation.seq <= row->last_seq;
        for (ssize_t i = 0; good && i < count; i++)
            good = index_load_u64(numbers + 8 * i) - INDEX_SLOT_FIRST < row->documents.slots;
        if (!good)
            return index_complain(check->report, "an operation of session %u is damaged",
                                  row->number);
        top = top || (row->documents.has_top && operation.seq == row->documents.top);
        error = place_move(&check->operations, MDB_NEXT);
        if (error == 0)
            error = place_is_of(check->report, &check->operations, row->number, &is);
    }
    if (error == 0 && row->documents.has_top && !top &&
        row->documents.top >= row->documents.history_from)
        return index_complain(check->report, "the last operation of session %u is lost",
                              row->number);
    return error;
}

/* Rows of documents are looked up by their slots; here only that none is of a stray session. */
static int pass_documents(struct documents_check *check, const struct index_row *row)
{
    bool is;
    int error = place_is_of(check->report, &check->documents, row->number, &is);
    while (error == 0 && is) {
        error = place_move(&check->documents, MDB_NEXT);
        if (error == 0)
            error = place_is_of(check->report, &check->documents, row->number, &is);
    }
    return error;
}

int check_documents(struct documents_check *check, const struct index_row *row)
{
    int error = check_slots(check, row);
    if (error == 0)
        error = check_operations(check, row);
    if (error == 0)
        error = pass_documents(check, row);
    return error;
}

int documents_check_end(struct documents_check *check)
{
    MDB_stat keys, documents;
    if (!check->slots.end || !check->versions.end || !check->documents.end ||
        !check->operations.end)
        return index_complain(check->report, "there are documents of a session that is not known");
    int error = index_error(mdb_stat(check->at.txn, check->at.index->table[TABLE_KEYS], &keys));
    if (error == 0)
        error = index_error(
            mdb_stat(check->at.txn, check->at.index->table[TABLE_DOCUMENTS], &documents));
    if (error == 0 &&
        (keys.ms_entries != check->slot_count || documents.ms_entries != check->report->documents))
        error = index_complain(check->report, "there are documents without a history");
    return error;
}
