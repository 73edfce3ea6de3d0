// SPDX-License-Identifier: GPL-2.0-only
/*
 * Every single bit of a metadata device, one at a time, wrong. The module then either
 * refuses it, or finds what it would have found; or it has lost blocks at the end of the
 * log, but only if the bit is in the last batch: that is what a power cut leaves too, and
 * nothing was written that relied on it.
 *
 * Each bit: so without the sanitizers.
 */
#include <stdio.h>

#define META_REGIONS_MAX 300
#include "meta-image.h"

/* Checksums are all that takes time here: the processor's, if it has them. */
#define crc32c table_crc32c
#include "crc32c.c"
#undef crc32c

#ifdef __x86_64__
__attribute__((target("sse4.2")))
static uint32_t cpu_crc32c(const uint8_t *data, size_t len)
{
	uint64_t crc = UINT32_MAX, word;

	for (; len >= 8; len -= 8, data += 8) {
		memcpy(&word, data, 8);
		crc = __builtin_ia32_crc32di(crc, word);
	}
	for (; len; len--)
		crc = __builtin_ia32_crc32qi(crc, *data++);
	return ~crc;
}
#endif

uint32_t crc32c(uint32_t crc, const void *data, size_t len)
{
#ifdef __x86_64__
	if (!crc && __builtin_cpu_supports("sse4.2"))
		return cpu_crc32c(data, len);
#endif
	return table_crc32c(crc, data, len);
}

static struct meta_image m;
static struct meta_maps maps, after[64];	/* by the seq that is next */
static struct meta_reading r;
static uint8_t buffer[REPL_REPLAY_BUFFER];

static void keep(void)
{
	after[m.next] = m.maps;
}

/* Both superblocks, both areas, blocks that are old, live and stale. */
static uint64_t make(void)
{
	uint64_t first, link, i;

	meta_format(&m, META_REGIONS_MAX, 10 + REPL_LOG_MIN_BLOCKS);
	meta_change(&m, REPL_DISK_RUNNING, 0, 1);
	meta_record(&m, 3, 40, REPL_EXTENT_HIDDEN);
	meta_record(&m, 30, 9, REPL_EXTENT_ACTIVE);
	memset(m.state.identity.lineage, 0x5a, REPL_UUID_SIZE);
	memset(m.state.identity.parent, 0xa5, REPL_UUID_SIZE);
	m.state.identity.parent_checkpoint = 1;
	meta_change(&m, REPL_DISK_FAILOVER, REPL_STATE_FENCED, 1);
	meta_compact(&m);
	meta_super(&m);
	meta_record(&m, 100, 3, REPL_EXTENT_HIDDEN);
	meta_compact(&m);
	meta_super(&m);
	keep();
	meta_record(&m, 50, 3, REPL_EXTENT_DIRTY);
	keep();
	/* A batch that was torn: two of its blocks stay behind the last one's. */
	first = m.next;
	link = m.link;
	for (i = 0; i < 5; i++)
		meta_append(&m, first, 0);
	m.next = first;
	m.link = link;
	for (i = 0; i < 3; i++) {
		meta_append(&m, first, 0);
		meta_extent(&m, i < 2 ? 200 + i : 101, 1,
			    i < 2 ? REPL_EXTENT_DIRTY : REPL_EXTENT_MERGED);
		keep();
	}
	return first;
}

static bool as_it_should(uint64_t block, uint64_t first)
{
	bool in_last = false;
	uint64_t seq;

	if (!meta_read(&m, &r, &maps, buffer))
		return true;
	for (seq = first; seq < m.next; seq++)
		in_last |= block == repl_log_block(&m.meta.layout, seq);
	if (r.end.next > m.next || r.end.next < first || (r.end.next < m.next && !in_last))
		return false;
	return meta_same_state(&r.end.state, &m.state) &&
	       !memcmp(maps.hidden, after[r.end.next].hidden, m.meta.layout.nr_regions) &&
	       !memcmp(maps.active, after[r.end.next].active, m.meta.layout.nr_regions) &&
	       !memcmp(maps.dirty, after[r.end.next].dirty, m.meta.layout.nr_regions);
}

int main(void)
{
	uint64_t first = make(), block, refused = 0, lost = 0, same = 0;
	unsigned int i;

	if (crc32c(0, m.data, 5000) != table_crc32c(0, m.data, 5000))
		abort();
	if (!meta_read(&m, &r, &maps, buffer) || r.end.next != m.next) {
		printf("not ok - tools flip: the sample is good\n# %s\n", r.why);
		return 1;
	}
	for (block = 0; block < m.source.blocks; block++) {
		uint8_t *data = meta_block(&m, block);
		/* Blank ones are all the same: the last of them will do. */
		bool blank = !data[4] && block + 1 < m.source.blocks;

		for (i = 0; i < REPL_BLOCK_SIZE * 8 && !blank; i++) {
			data[i >> 3] ^= 1 << (i & 7);
			if (!as_it_should(block, first)) {
				printf("not ok - tools flip: block %llu, bit %u\n",
				       (unsigned long long)block, i);
				return 1;
			}
			if (r.load || r.replay)
				refused++;
			else if (r.end.next < m.next)
				lost++;
			else
				same++;
			data[i >> 3] ^= 1 << (i & 7);
		}
	}
	printf("ok - tools flip: each bit: %llu refused, %llu the same, %llu without the last batch\n",
	       (unsigned long long)refused, (unsigned long long)same,
	       (unsigned long long)lost);
	meta_free(&m);
	return !refused || !same || !lost;
}
