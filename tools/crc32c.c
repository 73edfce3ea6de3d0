// SPDX-License-Identifier: GPL-2.0-only
#include <endian.h>
#include <stdbool.h>
#include <string.h>

#include "crc32c.h"

#define POLYNOMIAL 0x82f63b78u	/* bits reflected */

/* table[k][b]: what byte b, with k zero bytes after it, does to the checksum. */
static uint32_t table[8][256];

static void make_table(void)
{
	uint32_t crc;
	int i, k;

	for (i = 0; i < 256; i++) {
		for (crc = i, k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
		table[0][i] = crc;
	}
	for (k = 1; k < 8; k++)
		for (i = 0; i < 256; i++)
			table[k][i] = table[k - 1][i] >> 8 ^ table[0][table[k - 1][i] & 0xff];
}

uint32_t crc32c(uint32_t crc, const void *data, size_t len)
{
	static bool made;
	const unsigned char *p = data;
	uint64_t word;
	int k;

	if (!made) {
		make_table();
		made = true;
	}
	crc = ~crc;
	for (; len >= 8; len -= 8, p += 8) {
		memcpy(&word, p, 8);
		word = le64toh(word) ^ crc;
		for (crc = 0, k = 0; k < 8; k++, word >>= 8)
			crc ^= table[7 - k][word & 0xff];
	}
	for (; len; len--)
		crc = crc >> 8 ^ table[0][(crc ^ *p++) & 0xff];
	return ~crc;
}
