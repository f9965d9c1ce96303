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
    if (error == 0)
        error = place_open(at, TABLE_KEYS, &check->keys);
    return error;
}

void documents_check_free(struct documents_check *check)
{
    place_close(&check->slots);
    place_close(&check->versions);
    place_close(&check->documents);
    place_close(&check->operations);
    place_close(&check->keys);
}

/* Two tables that say the same in another order are held against each other by sums of hashes: no
 * value is looked up, so all is read in the order in which it lies. */
static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 29;
}

static uint64_t hash_slot(uint32_t session, const struct index_slot *slot)
{
    uint64_t hash = mix(mix(mix(1, session), slot->area), slot->number);
    uint64_t word;
    size_t at = 0;
    for (; at + sizeof word <= slot->key_len; at += sizeof word) {
        memcpy(&word, slot->key + at, sizeof word);
        hash = mix(hash, word);
    }
    word = 0;
    memcpy(&word, slot->key + at, slot->key_len - at);
    return mix(mix(hash, word), slot->key_len);
}

static uint64_t hash_document(uint32_t session, const struct index_slot *slot,
                              const struct index_version *version)
{
    uint64_t hash = mix(mix(hash_slot(session, slot), version->seq), version->end);
    hash = mix(mix(hash, version->source), version->set_ms);
    return mix(mix(hash, version->offset), version->length);
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
    if (error == 0 && last.present)
        check->document_sum += hash_document(row->number, slot, &last);
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
        check->key_sum += hash_slot(row->number, &slot);
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

static int check_present(struct documents_check *check, const struct index_row *row)
{
    bool is;
    int error = place_is_of(check->report, &check->documents, row->number, &is);
    while (error == 0 && is) {
        struct index_slot slot;
        struct index_version version;
        if (index_document_decode(&check->documents.key, &check->documents.value, &slot, &version) <
            0)
            return index_complain(check->report, "a document of session %u is damaged",
                                  row->number);
        check->document_sum -= hash_document(row->number, &slot, &version);
        check->present++;
        error = place_move(&check->documents, MDB_NEXT);
        if (error == 0)
            error = place_is_of(check->report, &check->documents, row->number, &is);
    }
    return error;
}

static int check_keys(struct documents_check *check, const struct index_row *row)
{
    bool is;
    int error = place_is_of(check->report, &check->keys, row->number, &is);
    while (error == 0 && is) {
        struct index_slot slot;
        const MDB_val *key = &check->keys.key;
        if (index_slot_key_decode(key, &check->keys.value, &slot.number) < 0)
            return index_complain(check->report, "a key of session %u is damaged", row->number);
        slot.area = index_key_get_u64_at(key, 4);
        slot.key = (const char *)key->mv_data + 12;
        slot.key_len = (uint16_t)(key->mv_size - 12);
        check->key_sum -= hash_slot(row->number, &slot);
        check->key_count++;
        error = place_move(&check->keys, MDB_NEXT);
        if (error == 0)
            error = place_is_of(check->report, &check->keys, row->number, &is);
    }
    return error;
}

int check_documents(struct documents_check *check, const struct index_row *row)
{
    int error = check_slots(check, row);
    if (error == 0)
        error = check_operations(check, row);
    if (error == 0)
        error = check_present(check, row);
    if (error == 0)
        error = check_keys(check, row);
    return error;
}

int documents_check_skip(struct documents_check *check, uint32_t session)
{
    struct place *const places[] = {&check->slots, &check->versions, &check->documents,
                                    &check->operations, &check->keys};
    int error = 0;
    for (size_t i = 0; i < sizeof places / sizeof places[0] && error == 0; i++)
        error = place_skip(check->report, places[i], session);
    return error;
}

int documents_check_end(struct documents_check *check)
{
    if (!check->slots.end || !check->versions.end || !check->documents.end ||
        !check->operations.end || !check->keys.end)
        return index_complain(check->report, "there are documents of a session that is not known");
    if (check->key_count != check->slot_count || check->key_sum != 0)
        return index_complain(check->report, "keys do not lead to their documents");
    if (check->present != check->report->documents || check->document_sum != 0)
        return index_complain(check->report, "documents are not what their histories say");
    return 0;
}
