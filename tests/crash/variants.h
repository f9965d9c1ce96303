/* variants.h - of the changes that were not synced when the power failed, those that are there: so
 * many variants, by number. */
#ifndef CRASH_VARIANTS_H
#define CRASH_VARIANTS_H

#include "disk.h"

/* How many there are for so many changes. */
size_t variant_count(size_t pending);
/* What becomes of each pending change in a variant; chance, where the variant leaves a choice. */
void make_variant(const struct disk *disk, size_t variant, uint64_t chance, struct fate *fates);

#endif
