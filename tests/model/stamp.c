// SPDX-License-Identifier: GPL-2.0-only
#include "stamp.h"

#include <stdio.h>
#include <string.h>

#define MAGIC 0x5045524c5354414dULL
#define WORDS (SECTOR / 8)

static void stamp_one(u64 *w, u64 sector, u64 tag)
{
	u64 x = sector * 0x9e3779b97f4a7c15ULL ^ tag, sum = MAGIC;
	unsigned int i;

	w[0] = MAGIC;
	w[1] = sector;
	w[2] = tag;
	w[3] = stamp_checkpoint(tag);
	for (i = 4; i < WORDS - 1; i++) {
		x = x * 6364136223846793005ULL + 1442695040888963407ULL;
		w[i] = x;
		sum ^= x;
	}
	w[i] = sum + sector + tag;
}

void stamp_fill(void *buf, u64 sector, u64 nr, u64 tag)
{
	u64 *w = buf;

	if (!tag) {
		memset(buf, 0, nr * SECTOR);
		return;
	}
	for (; nr--; w += WORDS)
		stamp_one(w, sector++, tag);
}

u64 stamp_tag_of(const void *buf, u64 sector)
{
	static const u64 zero[WORDS];
	const u64 *w = buf;
	u64 want[WORDS];

	if (!w[0])
		return memcmp(w, zero, SECTOR) ? STAMP_BAD : 0;
	stamp_one(want, sector, w[2]);
	return memcmp(w, want, SECTOR) ? STAMP_BAD : w[2];
}

const char *stamp_name(u64 tag, char *text)
{
	if (!tag)
		strcpy(text, "zeroes");
	else if (tag == STAMP_BAD)
		strcpy(text, "garbage");
	else
		snprintf(text, 200, "write %llu of writer %u in checkpoint %u",
			 (unsigned long long)stamp_sequence(tag), stamp_writer(tag),
			 stamp_checkpoint(tag));
	return text;
}

const char *stamp_describe(const void *buf, char *text)
{
	const u64 *w = buf;
	u64 want[WORDS];
	char name[200];

	if (w[0] != MAGIC) {
		snprintf(text, 200, "no stamp: %016llx %016llx ... %016llx",
			 (unsigned long long)w[0], (unsigned long long)w[1],
			 (unsigned long long)w[WORDS - 1]);
	} else {
		stamp_one(want, w[1], w[2]);
		snprintf(text, 200, "%.120s, for sector %llu%s", stamp_name(w[2], name),
			 (unsigned long long)w[1],
			 memcmp(w, want, SECTOR) ? ", torn" : "");
	}
	return text;
}
