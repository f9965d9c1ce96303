/*
 * crc.h - the checksums of the format, by ISA-L.
 *
 * Always through here: ISA-L leaves the upper halves of the vector registers in use, after which
 * every SSE instruction (what the compiler makes of a copied struct) waits for them. Checking the
 * frames of a log took five times as long.
 */
#ifndef HL_CRC_H
#define HL_CRC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* CRC-32 (IEEE, reflected) and CRC-64 (ECMA-182, reflected), both inverted before and after: that
 * of a whole begins with any seed and goes on with the sum so far. */
uint32_t crc32_more(uint32_t crc, const void *bytes, size_t len);
uint64_t crc64_more(uint64_t crc, const void *bytes, size_t len);

/* Whether a sum that was read is the one that was found. Fuzzing turns it off at times: what lies
 * behind a checksum must hold without it too. */
#ifdef HL_FUZZ
extern bool crc_ignored;
#else
#define crc_ignored false
#endif
static inline bool crc32_agrees(uint32_t found, uint32_t stored)
{
    return found == stored || crc_ignored;
}

#endif
