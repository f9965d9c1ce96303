/*
 * reserve.h - DIR/reserve: blocks for two segments, to be spent on a full disk.
 *
 * Who frees room by writing first, a compaction, gives them back to the file system when there is
 * no other. They are taken again when there is plenty.
 */
#ifndef HL_RESERVE_H
#define HL_RESERVE_H

#include "core.h"

void reserve_make(struct hl_store *store);  /* if it is not there, and there is room */
bool reserve_spend(struct hl_store *store); /* true: there is more room now */

#endif
