/* crc.c - see crc.h. */
#include "crc.h"

#include <isa-l/crc.h>
#include <isa-l/crc64.h>

#ifdef __x86_64__
__attribute__((target("avx"))) static void zero_upper(void)
{
    __builtin_ia32_vzeroupper();
}

static void settle_registers(void)
{
    if (__builtin_cpu_supports("avx"))
        zero_upper();
}
#else
static void settle_registers(void)
{
}
#endif

uint32_t crc32_more(uint32_t crc, const void *bytes, size_t len)
{
    crc = crc32_gzip_refl(crc, bytes, len);
    settle_registers();
    return crc;
}

uint64_t crc64_more(uint64_t crc, const void *bytes, size_t len)
{
    crc = crc64_ecma_refl(crc, bytes, len);
    settle_registers();
    return crc;
}
