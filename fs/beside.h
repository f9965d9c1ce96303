/*
 * beside.h - a read-only mount's thread that looks for what a writer appends.
 */
#ifndef HL_BESIDE_H
#define HL_BESIDE_H

#include "fs_internal.h"

/* 0 and *beside, or a negative errno. The store's news (store.h) then comes of itself. */
int beside_start(struct fs *fs, struct beside **beside);
void beside_stop(struct beside *beside); /* frees it; NULL is fine */

#endif
