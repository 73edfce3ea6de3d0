// SPDX-License-Identifier: GPL-2.0-only
/*
 * Any bytes as a metadata device. The first byte says how:
 *
 *	bits 0-1	what is changed: a blank device; one that is new; one that
 *			was compacted and has a log; one that has failed over,
 *			with a log that has come round
 *	bit 2		heads and checksums of changed blocks are made right
 *	bit 3		a block cannot be read: the second byte says which
 *	bits 4-5	what is printed in the end
 *
 * Then follow changes, each of four bytes and so many: block, offset in units of 4
 * bytes (2 bytes, the lower first), bytes to put there - 1. What replctl sees in the
 * end must be what the module does, no region that there is not may be touched, and
 * what is dumped as JSON is JSON.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define META_REGIONS_MAX (2 * REPL_BITMAP_BITS)
#include "fuzz-image.h"
#include "../unit/tools/meta-image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REGIONS	(REPL_BITMAP_BITS + 100)
#define BLOCKS	(2 + 2 * (1 + 2 * REPL_NR_DISK_MAPS) + REPL_LOG_MIN_BLOCKS)

static struct meta_image m;
static struct meta_maps maps;

static void make_new(unsigned int how)
{
	unsigned int i;

	meta_format(&m, REGIONS, BLOCKS);
	if (how == 0)
		memset(m.data, 0, BLOCKS * REPL_BLOCK_SIZE);
	if (how < 2)
		return;
	meta_change(&m, REPL_DISK_RUNNING, 0, 1);
	meta_record(&m, 3, 40, REPL_EXTENT_HIDDEN);
	meta_record(&m, REPL_BITMAP_BITS - 4, 9, REPL_EXTENT_ACTIVE);
	meta_compact(&m);
	meta_super(&m);
	/* Few blocks: checksums are what takes time. Once round the ring, in one. */
	for (i = 0; i < (how == 3 ? 70 : 12); i++) {
		meta_record(&m, 100 * i, 3 * i + 1, i & 1);
		if (i == 50) {
			meta_compact(&m);
			meta_super(&m);
		}
	}
	if (how == 3) {
		meta_change(&m, REPL_DISK_FAILOVER, REPL_STATE_FENCED, 1);
		meta_record(&m, 0, REGIONS, REPL_EXTENT_MERGED);
		meta_record(&m, REPL_BITMAP_BITS - 1, 2, REPL_EXTENT_DIRTY);
		meta_record(&m, 7, 3, REPL_EXTENT_CLEAN);
	}
}

/* They are made once: that takes longer than to read them. */
static void make(unsigned int how)
{
	static struct meta_image made[4];

	if (!made[how].data) {
		make_new(how);
		made[how] = m;
	}
	m = made[how];
	m.data = malloc(BLOCKS * REPL_BLOCK_SIZE);
	memcpy(m.data, made[how].data, BLOCKS * REPL_BLOCK_SIZE);
}

static void mend(uint64_t nr)
{
	const struct repl_layout *l = &m.meta.layout;
	uint32_t magic = REPL_MAGIC_BITMAP;

	if (nr < 2)
		magic = REPL_MAGIC_SUPER;
	else if (nr >= l->log_start)
		magic = REPL_MAGIC_LOG;
	else if ((nr - 2) % l->area_blocks < l->summary_blocks)
		magic = REPL_MAGIC_SUMMARY;
	repl_block_seal(meta_block(&m, nr), magic, m.meta.uuid, nr);
}

static void change(const uint8_t *data, size_t size, bool right)
{
	while (size > 4) {
		uint64_t nr = data[0] % BLOCKS;
		size_t at = 4 * ((data[1] | data[2] << 8) % (REPL_BLOCK_SIZE / 4));
		size_t len = data[3] + 1;

		data += 4;
		size -= 4;
		len = len < size ? len : size;
		memcpy((uint8_t *)meta_block(&m, nr) + at, data,
		       len < REPL_BLOCK_SIZE - at ? len : REPL_BLOCK_SIZE - at);
		if (right)
			mend(nr);
		data += len;
		size -= len;
	}
}

static bool same(const struct regions *set, const uint8_t *map)
{
	uint64_t begin = 0, end, at = 0;

	for (; regions_next(set, &begin, &end); at = begin = end)
		if (memchr(map + at, 1, begin - at) || memchr(map + begin, 0, end - begin))
			return false;
	return !memchr(map + at, 1, META_REGIONS_MAX - at);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t buffer[REPL_REPLAY_BUFFER];
	struct meta_reading r;
	struct image image;
	bool usable;

	if (size < 2)
		return 0;
	make(data[0] & 3);
	change(data + 2, size - 2, data[0] & 4);
	if (data[0] & 8)
		m.bad_block = data[1];

	/* Aborts if there is a region too many. */
	usable = meta_read(&m, &r, &maps, buffer);
	require(!image_read(&image, &m.source, NULL));
	require(image_usable(&image) == usable);
	require(!image.levels[IMAGE_ERROR] == usable);
	if (!usable)
		require(r.why && r.why[0]);
	require(image.load == r.load);
	if (!r.load)
		require(image.replay == r.replay);
	if (usable) {
		require(r.end.blocks == r.end.next - r.meta.tail);
		require(r.end.blocks <= r.meta.layout.log_blocks);
		require(image.end.next == r.end.next && image.end.link == r.end.link);
		require(image.slots[IMAGE_LIVE] == r.end.blocks);
		require(same(&image.hidden, maps.hidden));
		require(same(&image.active, maps.active));
		require(same(&image.dirty, maps.dirty));
	}
	print(&image, data[0] >> 4 & 3);
	image_free(&image);
	meta_free(&m);
	return 0;
}
