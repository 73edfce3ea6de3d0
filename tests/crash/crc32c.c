// SPDX-License-Identifier: GPL-2.0-only
/* tools/crc32c.c is what counts; where the CPU can do it, it is faster. */
#include "../../tools/crc32c.h"

#if defined(__x86_64__)
#define crc32c crc32c_table
#include "../../tools/crc32c.c"
#undef crc32c

__attribute__((target("sse4.2")))
static uint32_t crc32c_sse(uint32_t crc, const unsigned char *p, size_t len)
{
	uint64_t c = ~crc, word;

	for (; len >= 8; len -= 8, p += 8) {
		memcpy(&word, p, 8);
		c = __builtin_ia32_crc32di(c, word);
	}
	while (len--)
		c = __builtin_ia32_crc32qi(c, *p++);
	return ~(uint32_t)c;
}

uint32_t crc32c(uint32_t crc, const void *data, size_t len);
uint32_t crc32c(uint32_t crc, const void *data, size_t len)
{
	return __builtin_cpu_supports("sse4.2") ? crc32c_sse(crc, data, len) :
						  crc32c_table(crc, data, len);
}
#else
#include "../../tools/crc32c.c"
#endif
