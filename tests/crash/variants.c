/* variants.c - see variants.h. */
#include "variants.h"

#define RANDOM_VARIANTS 16
#define ALL_SUBSETS 5 /* pending changes of which every subset is tried */

static const uint64_t tears[] = {1, 4, 512, 4096};
#define TEARS (sizeof tears / sizeof tears[0])
#define LAST_WRITES (3 * TEARS + 4) /* ways in which the last write is torn */

size_t variant_count(size_t pending)
{
    size_t subsets = pending <= ALL_SUBSETS ? (size_t)1 << pending : 0;
    return pending == 0 ? 1 : 1 + pending + LAST_WRITES + 2 * pending + subsets + RANDOM_VARIANTS;
}

static void random_fates(const struct disk *disk, uint64_t chance, struct fate *fates)
{
    for (size_t i = 0; i < disk->count; i++) {
        const struct call *call = &disk->pending[i].call;
        chance = hash_mix(chance, i);
        unsigned roll = (unsigned)(chance >> 32) % 100;
        fates[i] = (struct fate){.kind = roll < 40 ? FATE_LOST : FATE_KEPT};
        if (roll < 80 || (call->kind != CALL_WRITE && call->kind != CALL_CONTENT))
            continue;
        uint64_t size = call->data->size ? call->data->size : 1;
        fates[i].amount = call->kind == CALL_CONTENT || roll >= 95 ? chance : (chance >> 8) % size;
        fates[i].kind = call->kind == CALL_CONTENT || roll >= 95 ? FATE_SECTORS
                        : roll < 85                              ? FATE_HEAD
                        : roll < 90                              ? FATE_SIZED
                                                                 : FATE_TAIL;
    }
}

void make_variant(const struct disk *disk, size_t variant, uint64_t chance, struct fate *fates)
{
    size_t n = disk->count;
    for (size_t i = 0; i < n; i++)
        fates[i] = (struct fate){.kind = FATE_LOST};
    if (variant <= n) { /* a prefix of them */
        for (size_t i = 0; i < variant; i++)
            fates[i].kind = FATE_KEPT;
        return;
    }
    variant -= n + 1;
    if (variant < LAST_WRITES) { /* the last write is torn, all before it kept */
        static const enum fate_kind kinds[] = {FATE_HEAD, FATE_SIZED, FATE_TAIL};
        size_t last = n;
        while (last > 0 && disk->pending[last - 1].call.kind != CALL_WRITE &&
               disk->pending[last - 1].call.kind != CALL_CONTENT)
            last--;
        for (size_t i = 0; i < n; i++)
            fates[i].kind = FATE_KEPT;
        if (last == 0)
            return;
        struct fate *fate = &fates[last - 1];
        *fate = (struct fate){.kind = FATE_SIZED};
        if (variant < 3 * TEARS)
            *fate = (struct fate){.kind = kinds[variant / TEARS], .amount = tears[variant % TEARS]};
        else if (variant > 3 * TEARS)
            *fate = (struct fate){.kind = FATE_PAGES, .amount = hash_mix(chance, variant) >> 8};
        if (disk->pending[last - 1].call.kind == CALL_CONTENT)
            *fate = (struct fate){.kind = FATE_SECTORS, .amount = hash_mix(chance, variant)};
        return;
    }
    variant -= LAST_WRITES;
    if (variant < 2 * n) { /* one is lost, or one is kept */
        for (size_t i = 0; i < n; i++)
            fates[i].kind = (i == variant % n) == (variant < n) ? FATE_LOST : FATE_KEPT;
        return;
    }
    variant -= 2 * n;
    size_t subsets = n <= ALL_SUBSETS ? (size_t)1 << n : 0;
    if (variant < subsets) {
        for (size_t i = 0; i < n; i++)
            fates[i].kind = variant >> i & 1 ? FATE_KEPT : FATE_LOST;
        return;
    }
    random_fates(disk, hash_mix(chance, variant), fates);
}
