// SPDX-License-Identifier: GPL-2.0-only
/*
 * Any bytes as what lies behind the log of a primary's metadata: the directories of
 * the user's dirty maps, and their blocks. The first byte says how:
 *
 *	bit 0		heads and checksums of changed blocks are made right
 *	bit 1		directory 0 says that it was an orderly end
 *	bit 2		a block cannot be read: the second byte says which
 *	bits 4-5	what is printed in the end
 *
 * Then follow changes, each of four bytes and so many, as in fuzz-replay.c; blocks
 * are counted from directory 0. A directory that is taken must be what the module may
 * rely on, replctl must see the same, and what is dumped as JSON is JSON.
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
#define ROOM	20	/* and the directories */

static struct meta_image m;

static void make_new(void)
{
	uint64_t start;

	meta_format(&m, REGIONS, BLOCKS);
	meta_longer(&m, ROOM);
	m.state.identity.role = REPL_ROLE_PRIMARY;
	meta_append(&m, m.next, 0);
	meta_record(&m, 3, 40, REPL_EXTENT_DIRTY);
	start = meta_map_add(&m, "backup", 3, REPL_KEPT_ENABLED);
	meta_map_set(&m, start, 7);
	meta_map_set(&m, start, REPL_BITMAP_BITS + 99);
	meta_map_add(&m, "weekly", 7, 0);
	meta_map_add(&m, "frozen", 4, REPL_KEPT_ENABLED);
}

/* Made once: checksums are what takes time. */
static void make(bool clean)
{
	static struct meta_image made;

	if (!made.data) {
		make_new();
		made = m;
	}
	m = made;
	m.data = malloc(m.source.blocks * REPL_BLOCK_SIZE);
	memcpy(m.data, made.data, m.source.blocks * REPL_BLOCK_SIZE);
	if (clean)
		meta_dir_new(&m, 4, REPL_KEPT_CLEAN);
}

static void change(const uint8_t *data, size_t size, bool right)
{
	while (size > 4) {
		uint64_t nr = BLOCKS + data[0] % ROOM;
		size_t at = 4 * ((data[1] | data[2] << 8) % (REPL_BLOCK_SIZE / 4));
		size_t len = data[3] + 1;

		data += 4;
		size -= 4;
		len = len < size ? len : size;
		memcpy((uint8_t *)meta_block(&m, nr) + at, data,
		       len < REPL_BLOCK_SIZE - at ? len : REPL_BLOCK_SIZE - at);
		if (right)
			repl_block_seal(meta_block(&m, nr), nr < BLOCKS + 2 ?
					REPL_MAGIC_KEPT : REPL_MAGIC_KEPT_BITS, m.meta.uuid, nr);
		data += len;
		size -= len;
	}
}

static bool bit(const struct repl_disk_bits *bits, uint64_t nr)
{
	return bits->bits[nr >> 3] >> (nr & 7) & 1;
}

/* Returns how many bits count as set. */
static uint64_t check_map(const struct repl_disk_kept *map)
{
	uint64_t all = ((m.meta.layout.sectors - 1) >> map->shift) + 1, set = 0, i, j;
	uint64_t start = le64toh(map->start), blocks = le64toh(map->blocks);

	require(map->name[0] && memchr(map->name, 0, sizeof(map->name)));
	require(map->shift >= REPL_KEPT_MIN_SHIFT && map->shift <= REPL_KEPT_MAX_SHIFT);
	require(!(map->flags & ~REPL_KEPT_ENABLED));
	require(start >= BLOCKS + 2 && start < BLOCKS + ROOM);
	require(blocks && blocks <= BLOCKS + ROOM - start);
	require(all <= blocks * REPL_BITMAP_BITS && all > (blocks - 1) * REPL_BITMAP_BITS);
	for (i = 0; i < blocks; i++) {
		const struct repl_disk_bits *bits = meta_block(&m, start + i);
		uint64_t most = all - i * REPL_BITMAP_BITS;
		int r;

		most = most < REPL_BITMAP_BITS ? most : REPL_BITMAP_BITS;
		r = repl_kept_bits_ok(bits, m.meta.uuid, start + i, i, most);
		require(r == 0 || r == 1 || r == -EUCLEAN);
		require(r <= 0 || (le64toh(bits->index) == i && !bits->generation));
		if (r < 0 || m.bad_block == start + i)
			set += most;
		for (j = 0; r >= 0 && m.bad_block != start + i && j < REPL_BITMAP_BITS; j++)
			if (bit(bits, j)) {
				require(r && j < most);
				set++;
			}
	}
	return set;
}

static void check_dir(const struct repl_disk_kept_dir *dir, const struct image *image)
{
	const struct repl_disk_kept *map = dir->map;
	unsigned int nr = le32toh(dir->nr), i, j;

	require(nr <= REPL_KEPT_MAPS);
	require(!(le32toh(dir->flags) & ~REPL_KEPT_FLAGS));
	require(image->kept.nr == nr);
	require(image->kept.generation == le64toh(dir->generation));
	require(image->kept.exact == (le32toh(dir->flags) & REPL_KEPT_CLEAN &&
				      le64toh(dir->next) == image->end.next));
	for (i = 0; i < nr; i++) {
		require(check_map(&map[i]) == image->kept.maps[i].set);
		require(!strcmp((const char *)map[i].name, image->kept.maps[i].name));
		for (j = 0; j < i; j++) {
			require(strcmp((const char *)map[i].name, (const char *)map[j].name));
			require(le64toh(map[i].start) + le64toh(map[i].blocks) <=
					le64toh(map[j].start) ||
				le64toh(map[j].start) + le64toh(map[j].blocks) <=
					le64toh(map[i].start));
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct repl_disk_kept_dir *dir;
	struct repl_disk_kept_dir dirs[2];
	struct image image;

	if (size < 2)
		return 0;
	make(data[0] & 2);
	change(data + 2, size - 2, data[0] & 1);
	if (data[0] & 4)
		m.bad_block = BLOCKS + data[1] % ROOM;

	require(!image_read(&image, &m.source, NULL));
	/* Whatever is there, the metadata before it is good. */
	require(image_usable(&image) && !image.levels[IMAGE_ERROR]);
	memcpy(dirs, meta_dir(&m, 0), sizeof(dirs));
	if (m.bad_block == BLOCKS || m.bad_block == BLOCKS + 1)
		memset(&dirs[m.bad_block - BLOCKS], 0, sizeof(dirs[0]));
	dir = repl_kept_choose(dirs, &m.meta, m.source.blocks);
	require(image.kept.good == !!dir);
	if (dir) {
		require(repl_kept_dir_ok(dir, dir - dirs, &m.meta, m.source.blocks));
		require(image.kept.current == dir - dirs);
		require(le64toh(dir->generation) % 2 == image.kept.current);
		check_dir(dir, &image);
	}
	print(&image, data[0] >> 4 & 3);
	image_free(&image);
	meta_free(&m);
	return 0;
}
