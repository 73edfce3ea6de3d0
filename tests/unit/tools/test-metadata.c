// SPDX-License-Identifier: GPL-2.0-only
/*
 * Metadata: the module's own reading of it (meta.c), replctl's look at it (image.c),
 * which must agree, and the verbs.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <json.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "meta-image.h"
#include "metadata.h"

#define REGIONS 1000
#define BLOCKS	(10 + REPL_LOG_MIN_BLOCKS)	/* 2, 2 areas of 4, the log */

static struct meta_image m;
static struct meta_maps maps;
static struct meta_reading r;
static uint8_t *buffer;

static int setup(void **state)
{
	/* On the heap, so that the sanitizer sees its ends. */
	buffer = malloc(REPL_REPLAY_BUFFER);
	meta_format(&m, REGIONS, BLOCKS);
	return 0;
}

static int teardown(void **state)
{
	free(buffer);
	meta_free(&m);
	return 0;
}

/* What replctl sees must be what the module does. */
static void look(struct image *image)
{
	uint64_t hidden = 0, active = 0, dirty = 0, i;
	struct repl_error error;

	assert_int_equal(image_read(image, &m.source, &error), 0);
	assert_int_equal(image->load, r.load);
	if (!r.load)
		assert_int_equal(image->replay, r.replay);
	if (!image_usable(image)) {
		assert_true(image->levels[IMAGE_ERROR] > 0);
		assert_string_equal(image->why, r.why);
		return;
	}
	assert_int_equal(image->levels[IMAGE_ERROR], 0);
	assert_int_equal(image->end.next, r.end.next);
	assert_int_equal(image->slots[IMAGE_LIVE], r.end.blocks);
	for (i = 0; i < r.meta.layout.nr_regions; i++) {
		hidden += maps.hidden[i];
		active += maps.active[i];
		dirty += maps.dirty[i];
	}
	assert_int_equal(image->hidden.count, hidden);
	assert_int_equal(image->active.count, active);
	assert_int_equal(image->dirty.count, dirty);
}

/* All levels of what check says, as it says it: "warning: ...\n" */
static char *report(void)
{
	struct image image;
	char *text = NULL;
	size_t size;
	FILE *to = open_memstream(&text, &size);

	look(&image);
	image_report(&image, "image", false, to);
	image_free(&image);
	fclose(to);
	return text;
}

static void says(const char *words)
{
	char *text = report();

	if (!strstr(text, words))
		fail_msg("no \"%s\" in: %s", words, text);
	free(text);
}

static void same(void)
{
	assert_true(meta_read(&m, &r, &maps, buffer));
	assert_int_equal(r.end.next, m.next);
	assert_true(r.end.link == m.link);
	assert_true(meta_same_state(&r.end.state, &m.state));
	assert_memory_equal(&maps, &m.maps, sizeof(maps));
}

/* The module takes it as it should be, and there is nothing to say. */
static void good(void)
{
	struct image image;

	same();
	look(&image);
	assert_int_equal(image.levels[IMAGE_WARNING], 0);
	image_free(&image);
}

/* Good, but for what check says. */
static void warns(const char *words)
{
	same();
	says(words);
}

static void refused(const char *why, const char *words)
{
	assert_false(meta_read(&m, &r, &maps, buffer));
	assert_string_equal(r.why, why);
	says(words);
}

static void flip(void *block, unsigned int byte)
{
	((uint8_t *)block)[byte] ^= 0x10;
}

/* Running, with something in both maps, and a few blocks of log. */
static void fill(void)
{
	meta_change(&m, REPL_DISK_RUNNING, 0, 1);
	meta_record(&m, 10, 20, REPL_EXTENT_HIDDEN);
	meta_record(&m, 15, 100, REPL_EXTENT_ACTIVE);
	meta_record(&m, 999, 1, REPL_EXTENT_HIDDEN);
}

/*
 * ---- Layout ----
 */

static void layout_is(uint64_t sectors, uint32_t region, uint64_t regions, uint64_t map,
		      uint64_t summary)
{
	uint64_t area = summary + 3 * map, least = 2 + 2 * area + REPL_LOG_MIN_BLOCKS;
	struct repl_layout l;

	assert_int_equal(repl_layout_init(&l, sectors, region, least - 1), -ENOSPC);
	assert_int_equal(l.blocks, least);
	assert_int_equal(repl_layout_init(&l, sectors, region, least), 0);
	assert_int_equal(l.log_blocks, REPL_LOG_MIN_BLOCKS);
	assert_int_equal(repl_layout_init(&l, sectors, region, UINT64_MAX), 0);
	assert_int_equal(l.nr_regions, regions);
	assert_int_equal(l.map_blocks, map);
	assert_int_equal(l.summary_blocks, summary);
	assert_int_equal(l.area_blocks, area);
	assert_int_equal(l.area_start[0], 2);
	assert_int_equal(l.area_start[1], 2 + area);
	assert_int_equal(l.log_start, 2 + 2 * area);
	assert_int_equal(l.log_blocks, REPL_LOG_MAX_BLOCKS);
	assert_int_equal(l.blocks, 2 + 2 * area + REPL_LOG_MAX_BLOCKS);
}

static void layouts(void **state)
{
	const uint64_t tib = 1ULL << 31;	/* sectors */
	struct repl_layout l;

	layout_is(1, 8, 1, 1, 1);
	layout_is(8, 8, 1, 1, 1);
	layout_is(9, 8, 2, 1, 1);
	layout_is(8ULL * REPL_BITMAP_BITS, 8, REPL_BITMAP_BITS, 1, 1);
	layout_is(8ULL * REPL_BITMAP_BITS + 1, 8, REPL_BITMAP_BITS + 1, 2, 1);
	layout_is(tib, 8, 1ULL << 28, 8323, 1);
	layout_is(tib, 128, 1ULL << 24, 521, 1);
	layout_is(16 * tib, 8, 1ULL << 32, 133153, 13);
	layout_is(16 * tib, 128, 1ULL << 28, 8323, 1);
	layout_is(64 * tib, 8, 1ULL << 34, 532611, 50);
	layout_is(64 * tib, 128, 1ULL << 30, 33289, 4);
	layout_is(8 * REPL_MAX_REGIONS, 8, REPL_MAX_REGIONS, 34087043, 3171);

	assert_int_equal(repl_layout_init(&l, 8 * REPL_MAX_REGIONS + 1, 8, UINT64_MAX), -E2BIG);
	assert_int_equal(repl_layout_init(&l, UINT64_MAX, 8, UINT64_MAX), -E2BIG);
	assert_int_equal(repl_layout_init(&l, UINT64_MAX, 8192, UINT64_MAX), -E2BIG);
	assert_int_equal(repl_layout_init(&l, 0, 8, UINT64_MAX), -E2BIG);
	assert_int_equal(repl_layout_init(&l, 8, 8, 0), -ENOSPC);
}

/* A blank device of so many blocks behind the bitmaps: the log, and what is left. */
static void new_layout_is(uint64_t left, uint64_t log)
{
	struct repl_layout l;

	assert_int_equal(repl_layout_new(&l, 8, 8, 10 + left), 0);
	assert_int_equal(l.log_start, 10);
	assert_int_equal(l.log_blocks, log);
	assert_int_equal(l.blocks, 10 + log);
}

static void new_layouts(void **state)
{
	struct repl_layout l, same;

	/* A quarter, rounded down; but the log has 64 in any case. */
	new_layout_is(64, 64);
	new_layout_is(65, 64);
	new_layout_is(84, 64);
	new_layout_is(85, 64);
	new_layout_is(86, 65);
	new_layout_is(100, 75);
	new_layout_is(REPL_LOG_MAX_BLOCKS, REPL_LOG_MAX_BLOCKS * 3 / 4);
	new_layout_is(21844, REPL_LOG_MAX_BLOCKS - 1);
	new_layout_is(21845, REPL_LOG_MAX_BLOCKS);
	new_layout_is(1 << 20, REPL_LOG_MAX_BLOCKS);
	new_layout_is(UINT64_MAX - 10, REPL_LOG_MAX_BLOCKS);
	/* What it takes is said of a device that is too small, too. */
	assert_int_equal(repl_layout_new(&l, 8, 8, 73), -ENOSPC);
	assert_int_equal(l.blocks, 74);
	assert_int_equal(repl_layout_new(&l, 8, 8, 0), -ENOSPC);
	assert_int_equal(repl_layout_new(&l, 8 * REPL_MAX_REGIONS + 1, 8, UINT64_MAX), -E2BIG);
	/* It is one that the superblock can say. */
	assert_int_equal(repl_layout_new(&l, 8, 8, 200), 0);
	assert_int_equal(repl_layout_init(&same, 8, 8, l.blocks), 0);
	assert_memory_equal(&l, &same, sizeof(l));
}

/*
 * ---- Superblocks ----
 */

static void super_round_trip(void **state)
{
	struct repl_meta in = m.meta, out;
	uint8_t block[REPL_BLOCK_SIZE];
	const char *why;

	in.area = 1;
	in.area_generation = 77;
	in.generation = 79;
	in.tail = 1ULL << 60;
	in.tail_prev = UINT64_MAX;
	in.state = (struct repl_meta_state) {
		.checkpoint = 5, .prepared = 6, .stage = REPL_DISK_RUNNING,
		.flags = REPL_STATE_PREPARED, .errors = 0x201,
		.identity = {
			.role = REPL_ROLE_SECONDARY, .lineage = "a lineage of 16",
			.parent = "and its parent.", .parent_checkpoint = 1ULL << 63,
		},
	};
	repl_super_encode(&in, block);
	assert_int_equal(repl_super_decode(block, 1, &out, &why), 0);
	assert_memory_equal(&out.layout, &in.layout, sizeof(in.layout));
	assert_memory_equal(out.uuid, in.uuid, sizeof(in.uuid));
	assert_true(meta_same_state(&out.state, &in.state));
	assert_true(out.generation == 79 && out.area == 1 && out.area_generation == 77);
	assert_true(out.tail == 1ULL << 60 && out.tail_prev == UINT64_MAX);
	assert_true(out.created == in.created);
	assert_int_equal(repl_super_decode(block, 0, &out, &why), -EUCLEAN);
	memset(block, 0, sizeof(block));
	assert_int_equal(repl_super_decode(block, 0, &out, &why), -ENODATA);
}

static void states(void **state)
{
	struct repl_disk_state disk;
	struct repl_meta_state s;
	unsigned int stage, flags, role, prepared, count = 0, all;

	for (all = 0; all < 256 * 256 * 16; all++)
		for (prepared = 4; prepared < 7; prepared++) {
			bool may;

			stage = all & 255;
			flags = all >> 8 & 255;
			role = (all >> 16) * 17;
			role = role < 4 * 17 ? role / 17 : role;
			may = stage < REPL_NR_DISK_STAGES && flags < 4 && role < REPL_NR_ROLES;
			memset(&disk, 0, sizeof(disk));
			disk.stage = stage;
			disk.flags = flags;
			disk.role = role;
			disk.checkpoint = htole64(5);
			disk.prepared = htole64(prepared);
			if (stage == REPL_DISK_RUNNING || stage == REPL_DISK_FAILOVER)
				may &= role == REPL_ROLE_SECONDARY;
			if (flags & REPL_STATE_PREPARED)
				may &= prepared == 6 && stage != REPL_DISK_FAILOVER &&
				       (stage == REPL_DISK_RUNNING || role != REPL_ROLE_NONE);
			if (flags & REPL_STATE_FENCED)
				may &= stage != REPL_DISK_RUNNING;
			else
				may &= stage != REPL_DISK_FAILOVER;
			assert_int_equal(repl_state_decode(&disk, &s), may);
			count += may;
		}
	/*
	 * none, done: with and without fence, in each role, and, but for none, pending;
	 * running: and prepared; failover
	 */
	assert_int_equal(count, 3 * (3 * (2 + 2) + 1 + 1) + 2 * (2 + 2) + 1);
}

static void newest_counts(void **state)
{
	good();
	m.meta.created++;	/* to tell them apart */
	m.meta.generation = 3;
	meta_super(&m);
	warns("of different sizes or ages");
	assert_int_equal(r.meta.generation, 3);
	flip(meta_block(&m, 1), 100);
	warns("superblock 1 is damaged: its checksum is wrong; the other one counts");
	assert_int_equal(r.meta.generation, 2);
	flip(meta_block(&m, 1), 100);
	m.meta.generation = 6;
	meta_super(&m);
	warns("generations are 3 and 6");
	assert_int_equal(r.meta.generation, 6);
	memset(meta_block(&m, 0), 0, REPL_BLOCK_SIZE);
	warns("superblock 0 is blank; the other one counts");
	memset(meta_block(&m, 1), 0, REPL_BLOCK_SIZE);
	refused("Metadata device is blank", "would make new metadata on it");
	assert_int_equal(r.load, -ENODATA);
}

static void format_cut_off(void **state)
{
	memset(meta_block(&m, 0), 0, REPL_BLOCK_SIZE);
	warns("its making was cut off");
}

/* Whatever the log says of them. */
static void unrecorded(void **state)
{
	meta_record(&m, 3, 2, REPL_EXTENT_DIRTY);
	meta_record(&m, 3, 1, REPL_EXTENT_CLEAN);
	m.meta.unrecorded = true;
	m.meta.generation++;
	meta_super(&m);
	memset(m.maps.dirty, 1, REGIONS);
	same();
	says("writes were not recorded: all regions are dirty");
	m.meta.unrecorded = false;
	m.meta.generation++;
	meta_super(&m);
	assert_true(meta_read(&m, &r, &maps, buffer));
	assert_int_equal(maps.dirty[3] + maps.dirty[5], 0);
	assert_int_equal(maps.dirty[4], 1);
}

static void supers_refused(void **state)
{
	struct repl_disk_super *super = meta_block(&m, 1);

	/* A newer version is not taken for a torn superblock. */
	super->version = htole32(2);
	repl_block_seal(super, REPL_MAGIC_SUPER, m.meta.uuid, 1);
	refused("Metadata is of a newer version", "superblock 1 is of a newer version");
	super->version = htole32(1);
	super->incompatible = htole32(0x80000000);
	repl_block_seal(super, REPL_MAGIC_SUPER, m.meta.uuid, 1);
	refused("Metadata is of a newer version", "superblock 1 is of a newer version");
	/* What we know is no newer version: see unrecorded(). */
	super->incompatible = htole32(2 | REPL_INCOMPAT_UNRECORDED);
	repl_block_seal(super, REPL_MAGIC_SUPER, m.meta.uuid, 1);
	refused("Metadata is of a newer version", "superblock 1 is of a newer version");
	super->incompatible = 0;
	super->compatible = htole32(4);
	repl_block_seal(super, REPL_MAGIC_SUPER, m.meta.uuid, 1);
	good();
	says("may be ignored (0x4)");
	super->compatible = 0;
	super->reserved[3000] = 1;
	repl_block_seal(super, REPL_MAGIC_SUPER, m.meta.uuid, 1);
	warns("superblock 1 has something in its reserved bytes");
	super->head.uuid[3] = 99;
	repl_block_seal(super, REPL_MAGIC_SUPER, super->head.uuid, 1);
	refused("Metadata superblocks are of different devices", "different devices");
	memset(super, 0x55, REPL_BLOCK_SIZE);
	flip(meta_block(&m, 0), 2000);
	refused("Metadata device has no dm-repl superblock",
		"superblock 1 is not a superblock of dm-repl");
	m.source.blocks = 1;
	refused("Metadata device is too small", "superblock 1 cannot be read");
}

/* Each field that cannot be, sealed. */
static void super_fields(void **state)
{
	struct repl_disk_super *super = meta_block(&m, 0), was = *super;
	const size_t fields[] = {
		offsetof(struct repl_disk_super, region_size),
		offsetof(struct repl_disk_super, sectors),
		offsetof(struct repl_disk_super, blocks),
		offsetof(struct repl_disk_super, area_blocks),
		offsetof(struct repl_disk_super, log_start),
		offsetof(struct repl_disk_super, log_blocks),
		offsetof(struct repl_disk_super, generation),
		offsetof(struct repl_disk_super, area),
		offsetof(struct repl_disk_super, state) +
			offsetof(struct repl_disk_state, stage),
	};
	struct repl_meta meta;
	const char *why;
	unsigned int i;

	for (i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		memset((uint8_t *)super + fields[i], 7, 4);
		repl_block_seal(super, REPL_MAGIC_SUPER, m.meta.uuid, 0);
		assert_int_equal(repl_super_decode(super, 0, &meta, &why), -EUCLEAN);
		warns("superblock 0 has a good checksum, but says what cannot be");
		*super = was;
	}
	super->tail = 0;
	repl_block_seal(super, REPL_MAGIC_SUPER, m.meta.uuid, 0);
	assert_int_equal(repl_super_decode(super, 0, &meta, &why), -EUCLEAN);
	super->region_size = 0;
	repl_block_seal(super, REPL_MAGIC_SUPER, m.meta.uuid, 0);
	assert_int_equal(repl_super_decode(super, 0, &meta, &why), -EUCLEAN);
}

static void shorter_device(void **state)
{
	m.source.blocks--;
	refused("Metadata device is shorter than it was", "shorter");
	m.source.blocks++;
	good();
}

/*
 * ---- Replay ----
 */

static void links(void **state)
{
	fill();
	good();
	assert_int_equal(r.end.blocks, 4);
	assert_int_equal(r.end.state.checkpoint, 1);
	meta_record(&m, 12, 3, REPL_EXTENT_MERGED);
	meta_change(&m, REPL_DISK_RUNNING, 0, 2);
	good();
	meta_record(&m, 0, REGIONS, REPL_EXTENT_HIDDEN);
	meta_record(&m, 0, REGIONS, REPL_EXTENT_ACTIVE);
	meta_record(&m, 1, REGIONS - 2, REPL_EXTENT_MERGED);
	meta_change(&m, REPL_DISK_FAILOVER, REPL_STATE_FENCED, 2);
	good();
	assert_int_equal(maps.dirty[0] + maps.dirty[500] + maps.dirty[REGIONS - 1], 2);
	meta_record(&m, 500, 20, REPL_EXTENT_DIRTY);
	meta_record(&m, 510, 3, REPL_EXTENT_CLEAN);
	good();
	assert_int_equal(maps.dirty[509], 1);
	assert_int_equal(maps.dirty[512], 0);
	/* The end of a merge leaves what is dirty; the next life does not. */
	m.state.stage = REPL_DISK_DONE;
	meta_append(&m, m.next, REPL_LOG_EMPTY_EPOCH);
	good();
	assert_int_equal(maps.dirty[509], 1);
	meta_change(&m, REPL_DISK_RUNNING, 0, 3);
	good();
	assert_int_equal(maps.dirty[509], 0);
	/* Another link before it, and it is not the next block. */
	meta_log(&m, 3)->prev ^= 1;
	meta_seal(&m, 3);
	refused("Metadata log has a damaged block",
		"log block 4 is good, and was written when block 3 was durable");
}

/* A batch of three is torn; what the next life writes is shorter. */
static void stale_blocks(void **state)
{
	uint64_t first, link;
	unsigned int i;

	fill();
	first = m.next;
	link = m.link;
	for (i = 0; i < 3; i++) {
		meta_append(&m, first, 0);
		meta_extent(&m, 500 + i, 1, REPL_EXTENT_HIDDEN);
	}
	good();
	flip(meta_log(&m, first), 300);
	m.next = first;
	m.link = link;
	memset(m.maps.hidden + 500, 0, 3);
	good();
	says("the last batch was not completed");
	says("2 good log blocks behind the end are of a batch that was not completed");
	/* One block over the torn one: the two behind it are not its. */
	meta_record(&m, 700, 1, REPL_EXTENT_HIDDEN);
	good();
	meta_record(&m, 701, 1, REPL_EXTENT_HIDDEN);
	good();
	meta_record(&m, 702, 1, REPL_EXTENT_HIDDEN);
	meta_record(&m, 703, 1, REPL_EXTENT_HIDDEN);
	good();
}

/* Any block of a last batch of 16 lost: no block from there on, no complaint. */
static void torn_batch(void **state)
{
	uint64_t first, link[REPL_LOG_BATCH];
	unsigned int i;

	fill();
	first = m.next;
	for (i = 0; i < REPL_LOG_BATCH; i++) {
		link[i] = m.link;
		meta_append(&m, first, 0);
		meta_extent(&m, 500 + i, 1, REPL_EXTENT_HIDDEN);
	}
	for (i = REPL_LOG_BATCH; i--;) {
		flip(meta_log(&m, first + i), 4000);
		m.next = first + i;
		m.link = link[i];
		m.maps.hidden[500 + i] = 0;
		good();
	}
}

/* With a batch behind it the same is damage, whichever block it is. */
static void damaged_block(void **state)
{
	uint64_t first;
	unsigned int i;

	fill();
	first = m.next;
	for (i = 0; i < REPL_LOG_BATCH; i++)
		meta_append(&m, first, 0);
	meta_record(&m, 1, 1, REPL_EXTENT_HIDDEN);
	for (i = 0; i < REPL_LOG_BATCH; i++) {
		flip(meta_log(&m, first + i), 4000);
		refused("Metadata log has a damaged block", "would be, is damaged");
		flip(meta_log(&m, first + i), 4000);
	}
	good();
	flip(meta_log(&m, 1), 4000);
	refused("Metadata log has a damaged block", "was durable: that is lost now");
}

/* More than a batch is gone: the module cannot see it, check can. */
static void large_gap(void **state)
{
	unsigned int i;

	fill();
	for (i = 0; i < 20; i++)
		meta_record(&m, 100 + i, 1, REPL_EXTENT_HIDDEN);
	meta_record(&m, 1, 1, REPL_EXTENT_HIDDEN);
	for (i = 0; i < 20; i++)
		memset(meta_log(&m, 5 + i), 0, REPL_BLOCK_SIZE);
	assert_true(meta_read(&m, &r, &maps, buffer));
	assert_int_equal(r.end.next, 5);
	says("warning: log block 25 is good, and was written when block 5 was durable");
}

static void ring(void **state)
{
	unsigned int i;

	fill();
	for (i = 0; i < 300; i++) {
		if (m.next - m.meta.tail > 40) {
			meta_compact(&m);
			good();		/* the old superblock is good until the new one is */
			meta_super(&m);
			good();
		}
		if (i % 50 == 40)
			meta_change(&m, REPL_DISK_RUNNING, 0, m.state.checkpoint + 1);
		else
			meta_record(&m, i * 37 % 980, 1 + i % 20, i % REPL_NR_EXTENT_OPS);
		good();
	}
}

static void full_ring(void **state)
{
	unsigned int i;

	fill();
	meta_compact(&m);
	meta_super(&m);
	for (i = 0; i < REPL_LOG_MIN_BLOCKS; i++)
		meta_record(&m, i, 1, REPL_EXTENT_HIDDEN);
	good();
	assert_int_equal(r.end.blocks, REPL_LOG_MIN_BLOCKS);
}

static void old_super(void **state)
{
	uint8_t was[REPL_BLOCK_SIZE];
	unsigned int i;

	fill();
	memcpy(was, meta_block(&m, 0), sizeof(was));
	meta_compact(&m);
	meta_super(&m);
	for (i = 0; i < 30; i++)
		meta_record(&m, i, 1, REPL_EXTENT_HIDDEN);
	/* All of the log is there: the older superblock leads to the same. */
	flip(meta_block(&m, 1), 50);
	warns("superblock 1 is damaged");
	flip(meta_block(&m, 1), 50);
	for (i = 0; i < 31; i++)
		meta_record(&m, 100 + i, 1, REPL_EXTENT_HIDDEN);
	good();
	flip(meta_block(&m, 1), 50);
	refused("Metadata superblock is older than its log", "the superblock is older than the log");
	/* And with two compactions its bitmaps are gone too. */
	flip(meta_block(&m, 1), 50);
	meta_compact(&m);
	meta_super(&m);
	good();
	meta_compact(&m);
	meta_super(&m);
	meta_compact(&m);
	flip(meta_block(&m, (m.meta.generation - 1) & 1), 50);
	assert_false(meta_read(&m, &r, &maps, buffer));
	says("of another generation than the superblock says");
}

static void wrong_place(void **state)
{
	fill();
	/* A block that lies where another one should. */
	memcpy(meta_log(&m, m.next), meta_log(&m, 2), REPL_BLOCK_SIZE);
	good();
	memcpy(meta_log(&m, 3), meta_log(&m, 2), REPL_BLOCK_SIZE);
	refused("Metadata log has a damaged block", "is damaged");
}

static void other_uuid(void **state)
{
	uint8_t uuid[REPL_UUID_SIZE] = { 9 };
	struct repl_disk_log *log;
	uint64_t seq;

	fill();
	/* From a life before: the same numbers, and even the same links. */
	log = meta_append(&m, m.next, 0);
	seq = --m.next;
	m.link = le64toh(log->prev);
	repl_block_seal(log, REPL_MAGIC_LOG, uuid, repl_log_block(&m.meta.layout, seq));
	good();
	log = meta_log(&m, seq + 20);
	log->first = log->seq = htole64(seq + 20);
	repl_block_seal(log, REPL_MAGIC_LOG, uuid, repl_log_block(&m.meta.layout, seq + 20));
	good();
}

/* The block that comes next, sealed, but it says what cannot be. */
static void cannot_be(const char *words)
{
	meta_seal(&m, m.next - 1);
	refused("Metadata log says what cannot be", words);
}

static void insane_blocks(void **state)
{
	struct repl_disk_log *log, was;

	fill();
	meta_record(&m, 0, 1, REPL_EXTENT_HIDDEN);
	log = meta_log(&m, m.next - 1);
	was = *log;

	log->extents[0] = repl_extent_encode(REGIONS - 1, 2, REPL_EXTENT_HIDDEN);
	cannot_be("regions 999 to 1000 of 1000, operation 0");
	log->extents[0] = repl_extent_encode(REPL_MAX_REGIONS - 1, REPL_EXTENT_MAX, 1);
	cannot_be("there is no such thing");
	log->extents[0] = htole64(UINT64_MAX);
	cannot_be("operation 7");
	log->extents[0] = repl_extent_encode(1, 1, 5);
	cannot_be("operation 5");
	*log = was;
	log->nr = htole16(496);
	cannot_be("has 496 extents, more than fit");
	log->nr = htole16(65535);
	cannot_be("has 65535 extents");
	*log = was;
	log->flags = htole16(16);
	cannot_be("unknown flags 0x10");
	*log = was;
	log->state.checkpoint = 0;
	cannot_be("goes back to checkpoint 0 from 1");
	log->state.checkpoint = htole64(2);
	cannot_be("begins checkpoint 2 without emptying the maps");
	log->flags = htole16(REPL_LOG_EMPTY_ACTIVE);
	cannot_be("begins checkpoint 2 without emptying the maps");
	*log = was;
	log->state.stage = REPL_DISK_FAILOVER;
	cannot_be("has a state that cannot be: role 1, stage 2, flags 0");
	log->state.flags = REPL_STATE_FENCED;
	log->state.role = REPL_ROLE_PRIMARY;
	cannot_be("has a state that cannot be: role 2, stage 2, flags 0x1");
	log->state.role = REPL_ROLE_SECONDARY;
	log->state.stage = REPL_DISK_RUNNING;
	log->state.flags = REPL_STATE_FENCED;
	cannot_be("has a state that cannot be");
	log->state.flags = 0x80;
	cannot_be("has a state that cannot be");
	*log = was;
	log->reserved = 1;
	meta_seal(&m, m.next - 1);
	warns("has something in its reserved bytes");
	*log = was;
	log->state.kept = 2;
	meta_seal(&m, m.next - 1);
	warns("has something in its reserved bytes");
	*log = was;
	log->first = htole64(m.next - 3);
	meta_seal(&m, m.next - 1);
	warns("was written with block 3, which cannot be");
	*log = was;
	good();
}

/*
 * ---- Bitmaps ----
 */

static void bitmaps(void **state)
{
	meta_free(&m);
	meta_format(&m, 2 * REPL_BITMAP_BITS + 5, 2 + 2 * 10 + REPL_LOG_MIN_BLOCKS);
	meta_change(&m, REPL_DISK_RUNNING, 0, 1);
	meta_record(&m, 0, 1, REPL_EXTENT_HIDDEN);
	meta_record(&m, 7, 9, REPL_EXTENT_HIDDEN);
	meta_record(&m, REPL_BITMAP_BITS - 3, 6, REPL_EXTENT_ACTIVE);
	meta_record(&m, 2 * REPL_BITMAP_BITS + 4, 1, REPL_EXTENT_ACTIVE);
	meta_compact(&m);
	meta_super(&m);
	good();
	assert_int_equal(r.end.blocks, 0);
	/* Blocks without a bit are not read: hidden's second and third. */
	memset(meta_block(&m, 2 + 1 + 3 + 1), 0xff, REPL_BLOCK_SIZE);
	good();
	/* The other area, and all regions. */
	meta_record(&m, 0, 2 * REPL_BITMAP_BITS + 5, REPL_EXTENT_HIDDEN);
	meta_compact(&m);
	meta_super(&m);
	assert_int_equal(m.meta.area, 1);
	good();
	meta_record(&m, 3, 60000, REPL_EXTENT_MERGED);
	good();
	/* All three of them. */
	meta_record(&m, REPL_BITMAP_BITS - 1, 70, REPL_EXTENT_DIRTY);
	meta_compact(&m);
	meta_super(&m);
	good();
	assert_int_equal(maps.dirty[REPL_BITMAP_BITS + 68], 1);
	assert_int_equal(maps.dirty[REPL_BITMAP_BITS + 69], 0);
}

static void bitmaps_refused(void **state)
{
	struct repl_disk_bits *summary, *bits, was;

	fill();
	meta_compact(&m);
	meta_super(&m);
	good();
	summary = meta_block(&m, 2);
	bits = meta_block(&m, 4);	/* 3 would be dirty's */
	was = *bits;

	flip(summary, 100);
	refused("Metadata bitmaps are damaged", "block 2, summary block 0 of area 0, is damaged");
	flip(summary, 100);
	flip(bits, 100);
	refused("Metadata bitmaps are damaged", "block 4, bitmap block 2 of area 0, is damaged");
	*bits = was;
	bits->generation = htole64(2);
	repl_block_seal(bits, REPL_MAGIC_BITMAP, m.meta.uuid, 4);
	refused("Metadata bitmaps are damaged", "is of another generation");
	*bits = was;
	bits->index = htole64(1);
	repl_block_seal(bits, REPL_MAGIC_BITMAP, m.meta.uuid, 4);
	refused("Metadata bitmaps are damaged", "is another one's");
	*bits = was;
	bits->bits[REGIONS >> 3] |= 1 << (REGIONS & 7);
	repl_block_seal(bits, REPL_MAGIC_BITMAP, m.meta.uuid, 4);
	refused("Metadata bitmaps are damaged", "has region 1000 of only 1000");
	*bits = was;
	bits->bits[REPL_BITMAP_BYTES - 1] |= 0x80;
	repl_block_seal(bits, REPL_MAGIC_BITMAP, m.meta.uuid, 4);
	refused("Metadata bitmaps are damaged", "has region 32255 of only 1000");
	repl_block_seal(&was, REPL_MAGIC_SUMMARY, m.meta.uuid, 4);
	*bits = was;
	refused("Metadata bitmaps are damaged", "is damaged");
	repl_block_seal(&was, REPL_MAGIC_BITMAP, m.meta.uuid, 4);
	*bits = was;
	good();
	/* Both, and a block of the log: check names all. */
	meta_record(&m, 1, 1, REPL_EXTENT_HIDDEN);
	meta_record(&m, 1, 1, REPL_EXTENT_HIDDEN);
	flip(bits, 200);
	flip(meta_block(&m, 5), 200);
	flip(meta_log(&m, m.next - 2), 200);
	refused("Metadata bitmaps are damaged", "block 4, bitmap");
	says("block 5, bitmap");
	says("where log block 5 would be, is damaged");
}

/*
 * ---- The user's dirty maps ----
 */

#define KEPT_ROOM 40

/* A primary's: room behind the log, and two maps, of three blocks and of one. */
static uint64_t kept_setup(void)
{
	uint64_t start;

	meta_free(&m);
	meta_format(&m, 2 * REPL_BITMAP_BITS + 5, 2 + 2 * 10 + REPL_LOG_MIN_BLOCKS);
	meta_longer(&m, 2 + KEPT_ROOM);
	m.state.identity.role = REPL_ROLE_PRIMARY;
	m.state.kept = true;
	meta_append(&m, m.next, 0);
	meta_record(&m, 5, 3, REPL_EXTENT_DIRTY);
	start = meta_map_add(&m, "backup", 3, REPL_KEPT_ENABLED);
	assert_int_equal(meta_map_add(&m, "old", 7, 0), start + 3);
	return start;
}

/* As it lies on the disk, for good. */
static void kept_format(void **state)
{
	struct repl_disk_kept_dir *dir;
	uint64_t start = kept_setup();

	assert_int_equal(sizeof(struct repl_disk_kept_dir), 4096);
	assert_int_equal(sizeof(struct repl_disk_kept), 64);
	assert_int_equal(offsetof(struct repl_disk_kept_dir, generation), 32);
	assert_int_equal(offsetof(struct repl_disk_kept_dir, next), 40);
	assert_int_equal(offsetof(struct repl_disk_kept_dir, flags), 48);
	assert_int_equal(offsetof(struct repl_disk_kept_dir, nr), 52);
	assert_int_equal(offsetof(struct repl_disk_kept_dir, map), 64);
	assert_int_equal(offsetof(struct repl_disk_kept_dir, reserved2), 2112);
	assert_int_equal(offsetof(struct repl_disk_kept, name), 0);
	assert_int_equal(offsetof(struct repl_disk_kept, shift), 32);
	assert_int_equal(offsetof(struct repl_disk_kept, flags), 33);
	assert_int_equal(offsetof(struct repl_disk_kept, start), 40);
	assert_int_equal(offsetof(struct repl_disk_kept, blocks), 48);
	assert_int_equal(REPL_KEPT_MAPS, 32);
	assert_int_equal(REPL_KEPT_ENABLED, 1);
	assert_int_equal(REPL_KEPT_CLEAN, 1);
	assert_int_equal(REPL_KEPT_ALL, 2);
	dir = meta_dir(&m, 0);
	assert_memory_equal((uint8_t *)dir + 4, "RpKD", 4);
	meta_map_set(&m, start, 0);
	assert_memory_equal((uint8_t *)meta_block(&m, start) + 4, "RpKM", 4);
	assert_memory_equal((uint8_t *)dir + 64, "backup\0", 8);
	assert_int_equal(((uint8_t *)dir)[96], 3);

	assert_int_equal(repl_kept_blocks(1, 3), 1);
	assert_int_equal(repl_kept_blocks(8ULL * REPL_BITMAP_BITS, 3), 1);
	assert_int_equal(repl_kept_blocks(8ULL * REPL_BITMAP_BITS + 1, 3), 2);
	assert_int_equal(repl_kept_blocks(8ULL * REPL_BITMAP_BITS + 1, 4), 1);
	assert_int_equal(repl_kept_blocks(1ULL << 31, 7), 521);
	assert_int_equal(repl_kept_blocks(UINT64_MAX, 17), 4363141381);
}

static bool dir_ok(unsigned int slot)
{
	return repl_kept_dir_ok(meta_dir(&m, slot), slot, &m.meta, m.source.blocks);
}

/* A byte of directory 0 is another, and the checksum right; then as it was. */
static bool dir_ok_with(size_t at, uint8_t byte)
{
	struct repl_disk_kept_dir was = *meta_dir(&m, 0);
	bool is;

	((uint8_t *)meta_dir(&m, 0))[at] = byte;
	meta_dir_seal(&m, 0);
	is = dir_ok(0);
	*meta_dir(&m, 0) = was;
	return is;
}

#define MAP_BYTE(nr, field) (offsetof(struct repl_disk_kept_dir, map) + \
	(nr) * sizeof(struct repl_disk_kept) + offsetof(struct repl_disk_kept, field))

static void dirs_refused(void **state)
{
	uint64_t start = kept_setup();
	const uint64_t end = m.source.blocks;
	const size_t flags = offsetof(struct repl_disk_kept_dir, flags);
	struct repl_disk_kept_dir *dir = meta_dir(&m, 0), was = *dir;
	unsigned int i;

	assert_true(dir_ok(0) && dir_ok(1));
	/* Heads */
	for (i = 0; i < sizeof(struct repl_block_head); i++) {
		flip(dir, i);
		assert_false(dir_ok(0));
		flip(dir, i);
	}
	assert_false(repl_kept_dir_ok(dir, 1, &m.meta, end));
	repl_block_seal(dir, REPL_MAGIC_KEPT, m.meta.uuid, m.meta.layout.blocks + 1);
	assert_false(dir_ok(0));
	repl_block_seal(dir, REPL_MAGIC_KEPT_BITS, m.meta.uuid, m.meta.layout.blocks);
	assert_false(dir_ok(0));
	*dir = was;
	/* Another's generation, unknown flags, too many */
	assert_false(dir_ok_with(offsetof(struct repl_disk_kept_dir, generation), 3));
	assert_true(dir_ok_with(offsetof(struct repl_disk_kept_dir, generation), 4));
	assert_true(dir_ok_with(flags, REPL_KEPT_CLEAN | REPL_KEPT_ALL));
	assert_false(dir_ok_with(flags, 4));
	assert_false(dir_ok_with(flags + 3, 0x80));
	assert_true(dir_ok_with(offsetof(struct repl_disk_kept_dir, nr), 0));
	assert_false(dir_ok_with(offsetof(struct repl_disk_kept_dir, nr), 3));
	assert_false(dir_ok_with(offsetof(struct repl_disk_kept_dir, nr), REPL_KEPT_MAPS + 1));
	assert_false(dir_ok_with(offsetof(struct repl_disk_kept_dir, nr) + 3, 1));
	/* Names: none, without an end, with something behind it, that nobody can type */
	assert_false(dir_ok_with(MAP_BYTE(1, name), 0));
	assert_false(dir_ok_with(MAP_BYTE(1, name) + 1, 0));
	assert_false(dir_ok_with(MAP_BYTE(1, name) + 4, 'x'));
	assert_false(dir_ok_with(MAP_BYTE(1, name) + 31, 'x'));
	assert_false(dir_ok_with(MAP_BYTE(1, name), ' '));
	assert_false(dir_ok_with(MAP_BYTE(1, name), '\n'));
	assert_false(dir_ok_with(MAP_BYTE(1, name), 0x7f));
	assert_false(dir_ok_with(MAP_BYTE(1, name), 0xe4));
	assert_true(dir_ok_with(MAP_BYTE(1, name), 'O'));
	memset(dir->map[1].name, 'x', REPL_KEPT_NAME);
	meta_dir_seal(&m, 0);
	assert_false(dir_ok(0));
	dir->map[1].name[REPL_KEPT_NAME - 1] = 0;
	meta_dir_seal(&m, 0);
	assert_true(dir_ok(0));
	memcpy(dir->map[1].name, dir->map[0].name, REPL_KEPT_NAME);
	meta_dir_seal(&m, 0);
	assert_false(dir_ok(0));
	memset(dir->map[1].name, 0, REPL_KEPT_NAME);
	meta_dir_seal(&m, 0);
	assert_false(dir_ok(0));
	*dir = was;
	/* Granularities that there are not, or for which the run has not the length */
	assert_false(dir_ok_with(MAP_BYTE(1, shift), 2));
	assert_false(dir_ok_with(MAP_BYTE(1, shift), 3));
	assert_true(dir_ok_with(MAP_BYTE(1, shift), 17));
	assert_false(dir_ok_with(MAP_BYTE(1, shift), 18));
	assert_false(dir_ok_with(MAP_BYTE(1, shift), 255));
	dir->map[1].blocks = htole64(repl_kept_blocks(m.meta.layout.sectors, 2));
	assert_false(dir_ok_with(MAP_BYTE(1, shift), 2));
	*dir = was;
	assert_true(dir_ok_with(MAP_BYTE(1, flags), 1));
	assert_false(dir_ok_with(MAP_BYTE(1, flags), 2));
	assert_false(dir_ok_with(MAP_BYTE(1, blocks), 0));
	assert_false(dir_ok_with(MAP_BYTE(1, blocks), 2));
	assert_false(dir_ok_with(MAP_BYTE(1, blocks) + 7, 0x80));
	/* Places: in the directories, in another run, behind the end */
	assert_true(dir_ok_with(MAP_BYTE(1, start), start + 4));
	assert_false(dir_ok_with(MAP_BYTE(1, start), start));
	assert_false(dir_ok_with(MAP_BYTE(1, start), start + 2));
	assert_true(dir_ok_with(MAP_BYTE(1, start), end - 1));
	assert_false(dir_ok_with(MAP_BYTE(1, start), end));
	assert_false(dir_ok_with(MAP_BYTE(1, start) + 7, 0xff));
	assert_true(dir_ok_with(MAP_BYTE(0, start), end - 3));
	assert_false(dir_ok_with(MAP_BYTE(0, start), end - 2));
	assert_false(dir_ok_with(MAP_BYTE(0, start), start + 1));
	assert_false(dir_ok_with(MAP_BYTE(0, start), start - 1));
	assert_false(dir_ok_with(MAP_BYTE(0, start), 2));
	/* What is reserved is not looked at, nor what is behind the last one. */
	assert_true(dir_ok_with(MAP_BYTE(1, reserved), 1));
	assert_true(dir_ok_with(MAP_BYTE(2, start), 1));
	assert_true(dir_ok_with(REPL_BLOCK_SIZE - 1, 1));
	/* The device has become shorter, behind the log. */
	assert_true(repl_kept_dir_ok(dir, 0, &m.meta, start + 4));
	assert_false(repl_kept_dir_ok(dir, 0, &m.meta, start + 3));
	assert_false(repl_kept_dir_ok(dir, 0, &m.meta, m.meta.layout.blocks));
}

/* So many that are good, and one more: it would lie in the reserved bytes. */
static void dir_full(void **state)
{
	struct repl_disk_kept_dir *dir;
	struct repl_disk_kept *map;
	uint64_t start = kept_setup();
	unsigned int i;

	dir = meta_dir(&m, 0);
	map = (void *)((uint8_t *)dir + offsetof(struct repl_disk_kept_dir, map));
	for (i = 0; i <= REPL_KEPT_MAPS; i++) {
		memset(&map[i], 0, sizeof(map[i]));
		sprintf((char *)map[i].name, "map.%u", i);
		map[i].shift = 17;
		map[i].start = htole64(start + i);
		map[i].blocks = htole64(1);
		dir->nr = htole32(i + 1);
		meta_dir_seal(&m, 0);
		assert_int_equal(dir_ok(0), i < REPL_KEPT_MAPS);
	}
}

static const struct repl_disk_kept_dir *chosen(void)
{
	return repl_kept_choose(meta_dir(&m, 0), &m.meta, m.source.blocks);
}

static void dirs_chosen(void **state)
{
	struct repl_disk_kept_dir *dirs;

	kept_setup();
	dirs = meta_dir(&m, 0);
	assert_ptr_equal(chosen(), &dirs[1]);	/* generations 2 and 3 */
	meta_dir_new(&m, 4, 0);
	assert_ptr_equal(chosen(), &dirs[0]);
	flip(&dirs[0], 3000);
	assert_ptr_equal(chosen(), &dirs[1]);
	flip(&dirs[1], 3000);
	assert_null(chosen());
	flip(&dirs[0], 3000);
	assert_ptr_equal(chosen(), &dirs[0]);
	memset(dirs, 0, 2 * sizeof(*dirs));
	assert_null(chosen());
}

static void kept_bits(void **state)
{
	uint64_t start = kept_setup(), nr = start + 2;
	struct repl_disk_bits *bits = meta_block(&m, nr), was;
	const uint8_t *uuid = m.meta.uuid;
	unsigned int i;

	assert_int_equal(repl_kept_bits_ok(bits, uuid, nr, 2, 5), 0);
	((uint8_t *)bits)[REPL_BLOCK_SIZE - 1] = 1;
	assert_int_equal(repl_kept_bits_ok(bits, uuid, nr, 2, REPL_BITMAP_BITS), -EUCLEAN);
	memset(bits, 0, sizeof(*bits));
	meta_map_seal(&m, start, 2);
	assert_int_equal(repl_kept_bits_ok(bits, uuid, nr, 2, 5), 1);
	meta_map_set(&m, start, 2 * REPL_BITMAP_BITS + 4);
	assert_int_equal(repl_kept_bits_ok(bits, uuid, nr, 2, 5), 1);
	was = *bits;
	/* A bit too many; of another place, index, kind; damaged */
	assert_int_equal(repl_kept_bits_ok(bits, uuid, nr, 2, 4), -EUCLEAN);
	assert_int_equal(repl_kept_bits_ok(bits, uuid, nr + 1, 2, 5), -EUCLEAN);
	assert_int_equal(repl_kept_bits_ok(bits, uuid, nr, 1, 5), -EUCLEAN);
	bits->generation = htole64(1);
	repl_block_seal(bits, REPL_MAGIC_KEPT_BITS, uuid, nr);
	assert_int_equal(repl_kept_bits_ok(bits, uuid, nr, 2, 5), -EUCLEAN);
	*bits = was;
	repl_block_seal(bits, REPL_MAGIC_BITMAP, uuid, nr);
	assert_int_equal(repl_kept_bits_ok(bits, uuid, nr, 2, 5), -EUCLEAN);
	*bits = was;
	for (i = 0; i < REPL_BLOCK_SIZE; i += i < 64 ? 1 : 61) {
		flip(bits, i);
		assert_int_equal(repl_kept_bits_ok(bits, uuid, nr, 2, 5), -EUCLEAN);
		flip(bits, i);
	}
	meta_map_set(&m, start, 3 * REPL_BITMAP_BITS - 1);
	assert_int_equal(repl_kept_bits_ok(bits, uuid, nr, 2, REPL_BITMAP_BITS), 1);
	assert_int_equal(repl_kept_bits_ok(bits, uuid, nr, 2, REPL_BITMAP_BITS - 1), -EUCLEAN);
}

/* What replctl makes of them. */
static void kept_look(struct image *image)
{
	same();
	look(image);
}

static void kept_warnings(unsigned int nr)
{
	struct image image;

	kept_look(&image);
	assert_int_equal(image.levels[IMAGE_WARNING], nr);
	image_free(&image);
}

static void kept_seen(void **state)
{
	uint64_t start = kept_setup();
	struct image image;

	meta_map_set(&m, start, 0);
	meta_map_set(&m, start, 1);
	meta_map_set(&m, start, 2 * REPL_BITMAP_BITS + 4);
	kept_look(&image);
	assert_int_equal(image.kept.room, 2 + KEPT_ROOM);
	assert_true(image.kept.good && !image.kept.exact && !image.kept.all);
	assert_int_equal(image.kept.current, 1);
	assert_int_equal(image.kept.generation, 3);
	assert_int_equal(image.kept.nr, 2);
	assert_string_equal(image.kept.maps[0].name, "backup");
	assert_int_equal(image.kept.maps[0].granularity, 4096);
	assert_true(image.kept.maps[0].enabled);
	assert_int_equal(image.kept.maps[0].bits, 2 * REPL_BITMAP_BITS + 5);
	assert_int_equal(image.kept.maps[0].set, 3);
	assert_int_equal(image.kept.maps[0].start, start);
	assert_int_equal(image.kept.maps[0].blocks, 3);
	assert_int_equal(image.kept.maps[1].granularity, 65536);
	assert_false(image.kept.maps[1].enabled);
	assert_int_equal(image.kept.maps[1].bits, (2 * REPL_BITMAP_BITS + 4) / 16 + 1);
	assert_int_equal(image.kept.maps[1].set, 0);
	assert_int_equal(image.nr_findings, 0);
	image_free(&image);
	/* An orderly end; and the log goes on. */
	meta_dir_new(&m, 4, REPL_KEPT_CLEAN);
	kept_look(&image);
	assert_true(image.kept.exact);
	assert_int_equal(image.kept.current, 0);
	assert_int_equal(image.nr_findings, 0);
	image_free(&image);
	meta_record(&m, 9, 1, REPL_EXTENT_DIRTY);
	kept_look(&image);
	assert_false(image.kept.exact);
	assert_int_equal(image.levels[IMAGE_WARNING], 0);
	image_free(&image);
	warns("note: the dirty maps were exact when log block 3 was the next one, which is 4 now");
	meta_dir_new(&m, 5, REPL_KEPT_CLEAN | REPL_KEPT_ALL);
	warns("note: all bits of all dirty maps are set: their directory says so\n");
	/* No longer a primary's; not recorded. */
	meta_dir_new(&m, 6, 0);
	kept_look(&image);
	assert_null(image.kept.all);
	image_free(&image);
	meta_change(&m, REPL_DISK_RUNNING, 0, 1);
	warns("note: all bits of all dirty maps are set: something that does not keep them has used the device\n");
	m.meta.unrecorded = true;
	m.meta.generation++;
	meta_super(&m);
	memset(m.maps.dirty, 1, m.meta.layout.nr_regions);
	warns("note: all bits of all dirty maps are set: writes were not recorded\n");
	kept_warnings(0);
}

/* What is there may be of any use before. */
static void kept_none(void **state)
{
	uint8_t uuid[REPL_UUID_SIZE] = { 9 };
	struct image image;
	unsigned int i;

	good();
	look(&image);
	assert_int_equal(image.kept.room, 0);
	image_free(&image);
	meta_longer(&m, 1);
	memset(meta_dir(&m, 0), 0x55, REPL_BLOCK_SIZE);
	good();
	meta_longer(&m, 1);
	good();
	memset(meta_dir(&m, 1), 0x55, REPL_BLOCK_SIZE);
	good();
	look(&image);
	assert_false(image.kept.good);
	assert_int_equal(image.kept.dirs[1], IMAGE_DIR_FOREIGN);
	assert_int_equal(image.nr_findings, 0);
	image_free(&image);
	/* Even directories, of metadata before. */
	kept_setup();
	for (i = 0; i < 2; i++)
		repl_block_seal(meta_dir(&m, i), REPL_MAGIC_KEPT, uuid,
				m.meta.layout.blocks + i);
	kept_look(&image);
	assert_false(image.kept.good);
	assert_int_equal(image.kept.dirs[0], IMAGE_DIR_FOREIGN);
	assert_int_equal(image.nr_findings, 0);
	image_free(&image);
}

static void kept_dirs_checked(void **state)
{
	struct repl_disk_kept_dir *dirs, was[2];

	kept_setup();
	dirs = meta_dir(&m, 0);
	memcpy(was, dirs, sizeof(was));
	kept_warnings(0);
	/* One of two is as a power cut leaves it. */
	flip(&dirs[1], 4000);
	warns("note: directory 1 of the dirty maps is damaged: its checksum is wrong; the other one counts\n");
	kept_warnings(0);
	memset(&dirs[1], 0, sizeof(dirs[1]));
	warns("note: directory 1 of the dirty maps is blank; the other one counts\n");
	memset(&dirs[1], 1, sizeof(dirs[1]));
	warns("note: directory 1 of the dirty maps is something else; the other one counts\n");
	kept_warnings(0);
	/* A good checksum is not. */
	dirs[1] = was[1];
	dirs[1].flags = htole32(0x80);
	meta_dir_seal(&m, 1);
	warns("warning: directory 1 of the dirty maps has a good checksum, but says what cannot be; the other one counts\n");
	dirs[1] = was[1];
	m.bad_block = m.meta.layout.blocks + 1;
	warns("warning: directory 1 of the dirty maps cannot be read; the other one counts\n");
	m.bad_block = m.meta.layout.blocks;
	warns("warning: directory 0 of the dirty maps cannot be read; the other one counts\n");
	m.bad_block = 0;
	/* The first one that was ever written is torn, or both of them are. */
	flip(&dirs[0], 4000);
	memset(&dirs[1], 0, sizeof(dirs[1]));
	warns("note: a directory of the dirty maps is damaged, and the other one is blank");
	kept_warnings(0);
	dirs[1] = was[1];
	flip(&dirs[1], 100);
	warns("warning: directory 0 of the dirty maps is damaged: its checksum is wrong, directory 1 is damaged: its checksum is wrong: if there were any, they are lost\n");
	kept_warnings(1);
	memset(&dirs[1], 1, sizeof(dirs[1]));
	warns("directory 1 is something else: if there were any, they are lost\n");
	memcpy(dirs, was, sizeof(was));
	/* Of the one that counts only */
	dirs[0].map[1].reserved[3] = 1;
	meta_dir_seal(&m, 0);
	kept_warnings(0);
	dirs[1].map[1].reserved2[3] = 1;
	meta_dir_seal(&m, 1);
	warns("warning: directory 1 of the dirty maps has something in its reserved bytes\n");
	dirs[1] = was[1];
	dirs[1].reserved2[1] = 1;
	meta_dir_seal(&m, 1);
	warns("directory 1 of the dirty maps has something in its reserved bytes\n");
	memcpy(dirs, was, sizeof(was));
	kept_warnings(0);
}

static void kept_maps_checked(void **state)
{
	uint64_t start = kept_setup();
	const char *damaged = "1 of the 3 blocks of dirty map backup are damaged: all that they stand for counts as dirty\n";
	char words[200];
	struct image image;

	meta_map_set(&m, start, 7);
	meta_map_set(&m, start, REPL_BITMAP_BITS);
	meta_map_set(&m, start, 2 * REPL_BITMAP_BITS + 1);
	flip(meta_block(&m, start + 2), 2000);
	kept_look(&image);
	assert_int_equal(image.kept.maps[0].set, 1 + 1 + 5);
	assert_int_equal(image.kept.maps[0].damaged, 1);
	image_free(&image);
	kept_warnings(0);
	snprintf(words, sizeof(words), "note: %s", damaged);
	warns(words);
	/* After an orderly end there is no power cut that has done it. */
	meta_dir_new(&m, 4, REPL_KEPT_CLEAN);
	snprintf(words, sizeof(words), "warning: %s", damaged);
	warns(words);
	flip(meta_block(&m, start + 2), 2000);
	m.bad_block = start + 1;
	kept_look(&image);
	assert_int_equal(image.kept.maps[0].set, 1 + REPL_BITMAP_BITS + 1);
	assert_int_equal(image.kept.maps[0].unreadable, 1);
	image_free(&image);
	warns("warning: 1 of the 3 blocks of dirty map backup cannot be read: all that they stand for counts as dirty\n");
	m.bad_block = 0;
	kept_warnings(0);
}

/*
 * ---- What fails, or has decayed ----
 */

static void unreadable(void **state)
{
	unsigned int reads, i;
	struct image image;

	fill();
	meta_compact(&m);
	meta_super(&m);
	fill();
	good();
	meta_read(&m, &r, &maps, buffer);
	reads = m.reads;
	assert_true(reads >= 3);
	/* Any read fails once: refused, or it was read ahead for nothing. */
	for (i = 1; i <= reads; i++) {
		m.bad_read = i;
		if (meta_read(&m, &r, &maps, buffer))
			same();
	}
	m.bad_read = 0;
	/* Any block is bad for good, and check sees the same. */
	for (i = 1; i < BLOCKS; i++) {
		m.bad_block = i;
		if (meta_read(&m, &r, &maps, buffer))
			same();
		else if (i < 2)
			assert_string_equal(r.why, "Cannot read the metadata superblock");
		look(&image);
		if (i >= m.meta.layout.log_start)
			assert_true(image.slots[IMAGE_UNREADABLE] == 1);
		image_free(&image);
	}
	m.bad_block = 0;
	m.bad_0 = true;
	refused("Cannot read the metadata superblock", "superblock 0 cannot be read");
}

/* In the part of the log that is not in use. */
static void decayed(void **state)
{
	unsigned int i;

	fill();
	for (i = 0; i < 80; i++) {
		if (i == 30 || i == 60) {
			meta_compact(&m);
			meta_super(&m);
		}
		meta_record(&m, i, 1, REPL_EXTENT_HIDDEN);
	}
	good();
	/* 85 is the next one; 48 was compacted, and is there still. */
	flip(meta_log(&m, 48), 1000);
	warns("of the part of the log that is not in use, is damaged");
	memset(meta_log(&m, 48), 0, REPL_BLOCK_SIZE);
	warns("of the part of the log that is not in use, is blank");
}

/*
 * One bit: refused; or the same; or, in the last batch, all but that batch. Each bit of
 * the heads, some of the others: flip.c does them all.
 */
static void bits_flipped(void **state)
{
	uint64_t last, block;
	unsigned int i;

	fill();
	meta_compact(&m);
	meta_super(&m);
	fill();
	m.maps = (struct meta_maps) { };
	meta_change(&m, REPL_DISK_RUNNING, 0, 2);
	last = m.next - 1;
	good();
	for (block = 0; block < BLOCKS; block++) {
		uint8_t *data = meta_block(&m, block);
		bool is_last = block == repl_log_block(&m.meta.layout, last);

		for (i = 0; i < REPL_BLOCK_SIZE * 8; i += i < 180 * 8 ? 1 : 61) {
			struct image image;

			data[i >> 3] ^= 1 << (i & 7);
			if (meta_read(&m, &r, &maps, buffer)) {
				assert_true(r.end.next == m.next ||
					    (is_last && r.end.next == last));
				if (r.end.next == m.next)
					same();
				else
					assert_int_equal(r.end.state.checkpoint, 1);
			}
			if (i % 17 == 0) {
				look(&image);
				image_free(&image);
			}
			data[i >> 3] ^= 1 << (i & 7);
			/* Blank blocks are all the same. */
			if (i > 64 && data[4] == 0)
				break;
		}
	}
}

/*
 * ---- The verbs ----
 */

static char path[] = "/tmp/test-metadata-XXXXXX";
static struct repl_error error;
static char *printed;

static int make_file(void **state)
{
	int fd;

	strcpy(path + sizeof(path) - 7, "XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 10 << 20), 0);
	close(fd);
	memset(&error, 0, sizeof(error));
	return 0;
}

static int remove_file(void **state)
{
	free(printed);
	printed = NULL;
	return unlink(path);
}

static int verb(const char *name, const struct metadata_options *options)
{
	char *words[] = { (char *)name, path };
	int nr = strcmp(name, "size") ? 2 : 1, status;
	size_t size;
	FILE *to;

	free(printed);
	printed = NULL;
	to = open_memstream(&printed, &size);
	status = metadata_verb(words, nr, options, to, &error);
	fclose(to);
	return status;
}

static const struct metadata_options gib = { .size = "1GiB", .region_size = "64KiB" };

static void fails(const char *name, const struct metadata_options *options,
		  enum repl_exit exit, const char *words)
{
	assert_int_equal(verb(name, options), -1);
	if (!strstr(error.text, words))
		fail_msg("no \"%s\" in: %s", words, error.text);
	assert_int_equal(error.exit, exit);
}

static void poke(off_t at, const void *data, size_t size)
{
	int fd = open(path, O_WRONLY);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, data, size, at), size);
	close(fd);
}

static struct json_object *parsed(void)
{
	struct json_object *o = json_tokener_parse(printed);

	assert_non_null(o);
	return o;
}

static uint64_t number(struct json_object *o, const char *key)
{
	struct json_object *value;

	assert_true(json_object_object_get_ex(o, key, &value));
	assert_true(json_object_is_type(value, json_type_int));
	return json_object_get_uint64(value);
}

static void created(void **state)
{
	const struct metadata_options none = { }, json = { .json = true };
	struct metadata_options options = gib;
	struct json_object *o, *value;
	char uuid[64];

	options.dry_run = true;
	assert_int_equal(verb("create", &options), 0);
	assert_non_null(strstr(printed, "would make metadata on "));
	fails("dump", &none, REPL_EXIT_FAILED, "Metadata device is blank");
	fails("check", &none, REPL_EXIT_DIFFER, "Metadata device is blank");
	assert_non_null(strstr(printed, "would make new metadata"));

	assert_int_equal(verb("create", &gib), 0);
	assert_int_equal(sscanf(strstr(printed, "uuid "), "uuid %60s", uuid), 1);
	assert_int_equal(strlen(uuid), 36);
	assert_true(uuid[14] == '4');
	assert_int_equal(verb("check", &none), 0);
	assert_non_null(strstr(printed, uuid));
	assert_int_equal(verb("dump", &none), 0);
	assert_non_null(strstr(printed, "for          1 GiB (1073741824 bytes) in regions of 64 KiB: 16384"));
	assert_int_equal(verb("dump", &json), 0);
	o = parsed();
	assert_int_equal(number(o, "schema"), 1);
	assert_int_equal(number(o, "size_bytes"), 1 << 30);
	assert_int_equal(number(o, "region_size_bytes"), 65536);
	/* 10 blocks before the log, and three quarters of the other 2550 */
	assert_int_equal(number(o, "metadata_bytes"), (10 + 1913) * REPL_BLOCK_SIZE);
	assert_int_equal(number(o, "hidden_regions"), 0);
	assert_true(json_object_object_get_ex(o, "why", &value) && !value);
	assert_true(json_object_object_get_ex(o, "superblocks", &value));
	assert_int_equal(json_object_array_length(value), 2);
	json_object_put(o);

	fails("create", &gib, REPL_EXIT_REFUSED, "has metadata of dm-repl on it already");
	options = gib;
	options.force = true;
	assert_int_equal(verb("create", &options), 0);
	assert_int_equal(verb("check", &json), 0);
	assert_null(strstr(printed, uuid));
	o = parsed();
	assert_int_equal(number(o, "errors"), 0);
	assert_int_equal(number(o, "warnings"), 0);
	json_object_put(o);
}

/* Records on it: dump shows them, in words and as JSON. */
static void dumped(void **state)
{
	const struct metadata_options none = { }, json = { .json = true };
	struct json_object *o, *value, *block;

	fill();
	memcpy(m.state.identity.lineage, "Lineage", 7);
	memcpy(m.state.identity.parent, "Parent", 6);
	m.state.identity.parent_checkpoint = 1;
	meta_change(&m, REPL_DISK_FAILOVER, REPL_STATE_FENCED, 1);
	meta_compact(&m);
	meta_super(&m);
	meta_record(&m, 15, 3, REPL_EXTENT_MERGED);
	poke(0, m.data, BLOCKS * REPL_BLOCK_SIZE);
	assert_int_equal(verb("check", &none), 0);
	assert_int_equal(verb("dump", &none), 0);
	assert_non_null(strstr(printed, "live: 6, written with 6, link "));
	assert_non_null(strstr(printed, "failover, checkpoint 1, fenced, role secondary\n    merged 15-17\n"));
	assert_non_null(strstr(printed, "hidden       18 regions\n  10-14, 18-29, 999-999\n"));
	assert_non_null(strstr(printed, "dirty        106 regions\n  10-114, 999-999\n"));
	assert_non_null(strstr(printed, "adds hidden and active to dirty"));
	assert_non_null(strstr(printed,
			       "lineage      4c696e65-6167-6500-0000-000000000000\n"
			       "  left       50617265-6e74-0000-0000-000000000000, checkpoint 1\n"));
	assert_non_null(strstr(printed, "old: 1, written with 1"));
	assert_int_equal(verb("dump", &json), 0);
	o = parsed();
	assert_int_equal(number(o, "hidden_regions"), 18);
	assert_int_equal(number(o, "active_regions"), 97);
	assert_int_equal(number(o, "dirty_regions"), 106);
	assert_int_equal(number(o, "bitmap_blocks"), 3);
	json_object_object_get_ex(o, "state", &value);
	assert_int_equal(number(value, "parent_checkpoint"), 1);
	json_object_object_get_ex(value, "role", &block);
	assert_string_equal(json_object_get_string(block), "secondary");
	assert_true(json_object_object_get_ex(o, "log", &value));
	assert_int_equal(json_object_array_length(value), 6);
	block = json_object_array_get_idx(value, 5);
	assert_int_equal(number(block, "seq"), 6);
	json_object_object_get_ex(block, "kind", &value);
	assert_string_equal(json_object_get_string(value), "live");
	json_object_object_get_ex(block, "extents", &value);
	assert_string_equal(json_object_to_json_string_ext(value, 0),
			    "[{\"op\":\"merged\",\"begin\":15,\"end\":18}]");
	json_object_put(o);
	/* A superblock of two: taken, and not silently. */
	poke(REPL_BLOCK_SIZE + 100, "x", 1);
	fails("check", &none, REPL_EXIT_DIFFER, "but not all is as it should be");
	assert_non_null(strstr(printed, "warning: superblock 1 is damaged"));
	assert_int_equal(verb("dump", &none), 0);
}

static void dumped_maps(void **state)
{
	const struct metadata_options none = { }, json = { .json = true };
	struct json_object *o, *kept, *list, *value;
	uint64_t start;

	kept_none(state);
	poke(0, m.data, m.meta.layout.blocks * REPL_BLOCK_SIZE);
	assert_int_equal(truncate(path, m.meta.layout.blocks * REPL_BLOCK_SIZE), 0);
	assert_int_equal(verb("dump", &none), 0);
	assert_non_null(strstr(printed, "\ndirty maps   are not kept: there is no room\n"));
	assert_int_equal(verb("dump", &json), 0);
	o = parsed();
	assert_true(json_object_object_get_ex(o, "dirty_maps", &kept) && !kept);
	json_object_put(o);

	start = kept_setup();
	assert_int_equal(start, 88);
	meta_map_set(&m, start, 7);
	meta_map_set(&m, start, 2 * REPL_BITMAP_BITS + 1);
	flip(meta_block(&m, start + 2), 2000);
	poke(0, m.data, m.source.blocks * REPL_BLOCK_SIZE);
	assert_int_equal(verb("check", &none), 0);
	assert_int_equal(verb("dump", &none), 0);
	assert_non_null(strstr(printed,
			       "\ndirty maps   2, room for 160 KiB; directories at block 86: good, good\n"
			       "  directory  1, generation 3, in use\n"
			       "  backup     4 KiB a bit, enabled, at block 88: 3 blocks, 6 of 64517 bits are set, with all of 1 damaged blocks\n"
			       "  old        64 KiB a bit, disabled, at block 91: 1 blocks, 0 of 4033 bits are set\n"
			       "  enabled ones have what is dirty by the log as well\n"));
	meta_dir_new(&m, 4, REPL_KEPT_CLEAN);
	poke(0, m.data, m.source.blocks * REPL_BLOCK_SIZE);
	fails("check", &none, REPL_EXIT_DIFFER, "but not all is as it should be");
	assert_int_equal(verb("dump", &none), 0);
	assert_non_null(strstr(printed, "  directory  0, generation 4, clean before log block 3, and that holds\n"));
	assert_null(strstr(printed, "as well"));
	assert_int_equal(verb("dump", &json), 0);
	o = parsed();
	assert_true(json_object_object_get_ex(o, "dirty_maps", &kept));
	assert_int_equal(number(kept, "current"), 0);
	assert_int_equal(number(kept, "generation"), 4);
	assert_int_equal(number(kept, "next"), 3);
	assert_int_equal(number(kept, "block"), 86);
	assert_int_equal(number(kept, "room_bytes"), KEPT_ROOM * REPL_BLOCK_SIZE);
	json_object_object_get_ex(kept, "directories", &value);
	assert_string_equal(json_object_to_json_string_ext(value, 0), "[\"good\",\"good\"]");
	json_object_object_get_ex(kept, "clean", &value);
	assert_true(json_object_get_boolean(value));
	json_object_object_get_ex(kept, "clean_holds", &value);
	assert_true(json_object_get_boolean(value));
	json_object_object_get_ex(kept, "all", &value);
	assert_true(value && !json_object_get_boolean(value));
	json_object_object_get_ex(kept, "all_set", &value);
	assert_true(value && !json_object_get_boolean(value));
	json_object_object_get_ex(kept, "maps", &list);
	assert_string_equal(json_object_to_json_string_ext(list, 0),
			    "[{\"name\":\"backup\",\"granularity_bytes\":4096,\"enabled\":true,\"block\":88,\"blocks\":3,\"bits\":64517,\"bits_set\":6,\"damaged_blocks\":1},{\"name\":\"old\",\"granularity_bytes\":65536,\"enabled\":false,\"block\":91,\"blocks\":1,\"bits\":4033,\"bits_set\":0,\"damaged_blocks\":0}]");
	json_object_put(o);
	/* Used since, and all is set. */
	meta_record(&m, 9, 1, REPL_EXTENT_DIRTY);
	poke(0, m.data, m.source.blocks * REPL_BLOCK_SIZE);
	assert_int_equal(verb("dump", &none), 0);
	assert_non_null(strstr(printed, "clean before log block 3, and used since\n"));
	meta_dir_new(&m, 5, REPL_KEPT_ALL);
	poke(0, m.data, m.source.blocks * REPL_BLOCK_SIZE);
	assert_int_equal(verb("dump", &none), 0);
	assert_non_null(strstr(printed, "generation 5, in use; all bits are set: their directory says so\n"));
	assert_int_equal(verb("check", &json), 0);
	o = parsed();
	assert_true(json_object_object_get_ex(o, "dirty_maps", &kept));
	json_object_object_get_ex(kept, "clean_holds", &value);
	assert_true(value && !json_object_get_boolean(value));
	json_object_object_get_ex(kept, "all_set", &value);
	assert_true(json_object_get_boolean(value));
	json_object_put(o);
	/* Nothing is known of the log: neither is this. */
	meta_dir_new(&m, 6, REPL_KEPT_CLEAN);
	flip(meta_log(&m, 1), 300);
	poke(0, m.data, m.source.blocks * REPL_BLOCK_SIZE);
	fails("dump", &json, REPL_EXIT_FAILED, "Metadata log has a damaged block");
	o = parsed();
	assert_true(json_object_object_get_ex(o, "dirty_maps", &kept));
	assert_true(json_object_object_get_ex(kept, "clean_holds", &value) && !value);
	json_object_put(o);
	/* No directory */
	memset(meta_dir(&m, 0), 0, 2 * REPL_BLOCK_SIZE);
	flip(meta_log(&m, 1), 300);
	poke(0, m.data, m.source.blocks * REPL_BLOCK_SIZE);
	assert_int_equal(verb("dump", &none), 0);
	assert_non_null(strstr(printed, "\ndirty maps   0, room for 160 KiB; directories at block 86: blank, blank\nin the end"));
	assert_int_equal(verb("dump", &json), 0);
	o = parsed();
	assert_true(json_object_object_get_ex(o, "dirty_maps", &kept));
	assert_true(json_object_object_get_ex(kept, "current", &value) && !value);
	json_object_put(o);
}

static void create_refused(void **state)
{
	struct metadata_options o = gib;
	uint8_t table[512] = { };
	char command[128];

	o.size = "16TiB";
	fails("create", &o, REPL_EXIT_REFUSED,
	      "it has 10485760 bytes, and must have at least 204824576 (195.3 MiB)");
	o.size = NULL;
	fails("create", &o, REPL_EXIT_USAGE, "how long is the disk?");
	o.like = path;
	assert_int_equal(verb("size", &o), 0);
	o.size = "1GiB";
	fails("create", &o, REPL_EXIT_USAGE, "how long is the disk?");
	o.like = NULL;
	o.size = "1001";
	fails("create", &o, REPL_EXIT_USAGE, "a disk of 1001 bytes?");
	o.size = "1 GiB";
	fails("create", &o, REPL_EXIT_USAGE, "--size: \"1 GiB\" is not a size");
	o.size = "1GiB";
	o.region_size = "48KiB";
	fails("create", &o, REPL_EXIT_USAGE, "is not a power of two");
	o.region_size = NULL;
	fails("create", &o, REPL_EXIT_USAGE, "how large are the regions?");
	o = gib;
	o.uuid = "0b3c9a52-9d4e-4d1c-8f4e-2a6d1f0c7b3";
	fails("create", &o, REPL_EXIT_USAGE, "is not a UUID");
	o.uuid = "0b3c9a52-9d4e-4d1c-8f4e-2a6d1f0c7b355";
	fails("create", &o, REPL_EXIT_USAGE, "is not a UUID");
	o.uuid = "0b3c9a529d4e-4d1c-8f4e-2a6d1f0c7b35-";
	fails("create", &o, REPL_EXIT_USAGE, "is not a UUID");
	o.uuid = "";
	fails("create", &o, REPL_EXIT_USAGE, "is not a UUID");
	o.uuid = "0B3C9A52-9d4e-4d1c-8f4e-2a6d1f0c7b35";
	assert_int_equal(verb("create", &o), 0);
	assert_non_null(strstr(printed, "uuid 0b3c9a52-9d4e-4d1c-8f4e-2a6d1f0c7b35\n"));

	memset(table, 0, sizeof(table));
	table[0] = 'x';
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(truncate(path, 10 << 20), 0);
	poke(5000, table, 1);
	fails("create", &gib, REPL_EXIT_REFUSED, "there is something unknown in its first 8 KiB");
	/* A partition table with one partition */
	memcpy(table + 446, "\x00\x01\x01\x00\x83\x01\x01\x00\x40\x00\x00\x00\x00\x10\x00\x00", 16);
	table[0] = 0;
	table[510] = 0x55;
	table[511] = 0xaa;
	poke(0, table, sizeof(table));
	fails("create", &gib, REPL_EXIT_REFUSED, "has a partition table on it (dos)");
	snprintf(command, sizeof(command), "mkfs.ext4 -q -F %s >/dev/null 2>&1", path);
	setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
	assert_int_equal(system(command), 0);
	fails("create", &gib, REPL_EXIT_REFUSED, "has a file system on it (ext4)");
	fails("check", &gib, REPL_EXIT_DIFFER, "has no dm-repl superblock");
	fails("dump", &gib, REPL_EXIT_FAILED, "has no dm-repl superblock");
	o = gib;
	o.force = true;
	assert_int_equal(verb("create", &o), 0);
	assert_int_equal(verb("check", &o), 0);

	fails("mend", &gib, REPL_EXIT_USAGE, "usage:");
	o.size = "9223372036854775807";
	fails("size", &o, REPL_EXIT_USAGE, "a disk of");
	o.size = "8388607TiB";
	o.region_size = "4KiB";
	fails("size", &o, REPL_EXIT_REFUSED, "too many regions");
}

/* The same UUID again: the log of the earlier life would be taken for this one's. */
static void same_uuid(void **state)
{
	struct metadata_options o = gib;
	char uuid[IMAGE_UUID_TEXT];

	fill();
	image_uuid_text(m.meta.uuid, uuid);
	poke(0, m.data, BLOCKS * REPL_BLOCK_SIZE);
	o.size = "4000KiB";
	o.region_size = "4KiB";
	o.force = true;
	o.uuid = uuid;
	fails("create", &o, REPL_EXIT_REFUSED, "has a log with this UUID");
	o.uuid = NULL;
	assert_int_equal(verb("create", &o), 0);
	assert_int_equal(verb("check", &o), 0);
}

/* Directories of dirty maps that are where the new ones would be */
static void create_forgets(void **state)
{
	const off_t log_end = (10 + 1913) * REPL_BLOCK_SIZE;
	struct metadata_options o = gib;
	uint8_t block[REPL_BLOCK_SIZE];
	unsigned int i;
	int fd;

	memset(block, 0x55, sizeof(block));
	for (i = 0; i < 3; i++)
		poke(log_end + i * REPL_BLOCK_SIZE, block, sizeof(block));
	o.dry_run = true;
	assert_int_equal(verb("create", &o), 0);
	assert_non_null(strstr(printed, "dirty maps: room for 2.5 MiB, a map of these regions takes 4 KiB\n"));
	fd = open(path, O_RDONLY);
	assert_int_equal(pread(fd, block, sizeof(block), log_end), sizeof(block));
	assert_int_equal(block[0], 0x55);
	assert_int_equal(verb("create", &gib), 0);
	for (i = 0; i < 3; i++) {
		assert_int_equal(pread(fd, block, sizeof(block), log_end + i * REPL_BLOCK_SIZE),
				 sizeof(block));
		assert_int_equal(block[0], i < 2 ? 0 : 0x55);
		assert_int_equal(block[REPL_BLOCK_SIZE - 1], i < 2 ? 0 : 0x55);
	}
	close(fd);
	/* None, or half of the place: the file stays as long as it is. */
	for (i = 0; i < 3; i++) {
		struct stat st;

		assert_int_equal(truncate(path, 0), 0);
		assert_int_equal(truncate(path, (74 + i) * REPL_BLOCK_SIZE), 0);
		assert_int_equal(verb("create", &gib), 0);
		assert_non_null(strstr(printed, "dirty maps: no room, they are in memory only\n"));
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_size, (74 + i) * REPL_BLOCK_SIZE);
		assert_int_equal(verb("check", &gib), 0);
	}
}

static void size_is(const char *size, const char *region_size, uint64_t best, uint64_t room)
{
	struct metadata_options o = { .size = size, .region_size = region_size, .json = true };
	struct repl_layout l;
	struct json_object *all;

	assert_int_equal(verb("size", &o), 0);
	all = parsed();
	assert_int_equal(number(all, "metadata_bytes"), best);
	assert_int_equal(number(all, "maps_room_bytes"), room);
	/* It is as it says. */
	assert_int_equal(repl_layout_new(&l, number(all, "size_bytes") / 512,
					 number(all, "region_size_bytes") / 512,
					 best / REPL_BLOCK_SIZE), 0);
	assert_int_equal(l.log_blocks, REPL_LOG_MAX_BLOCKS);
	assert_int_equal((l.blocks + 2) * REPL_BLOCK_SIZE + room, best);
	assert_true(room >= 4 * number(all, "map_bytes"));
	assert_int_equal(number(all, "map_bytes"), l.map_blocks * REPL_BLOCK_SIZE);
	json_object_put(all);
}

static void sizes(void **state)
{
	const struct metadata_options none = { }, json = { .json = true };
	struct metadata_options o = { .size = "16TiB", .region_size = "64KiB", .json = true };
	struct json_object *all;

	assert_int_equal(verb("size", &none), 0);
	assert_non_null(strstr(printed, "\n16 TiB     64 KiB           408043520  389.1 MiB        204824576  195.3 MiB  32.5 MiB   288 MiB"));
	assert_int_equal(verb("size", &json), 0);
	json_object_put(parsed());
	assert_int_equal(verb("size", &o), 0);
	all = parsed();
	assert_int_equal(number(all, "metadata_bytes"), 408043520);
	assert_int_equal(number(all, "metadata_min_bytes"), 204824576);
	assert_int_equal(number(all, "map_bytes"), 8323 * REPL_BLOCK_SIZE);
	assert_int_equal(number(all, "maps_room_bytes"), 4 * 8323 * REPL_BLOCK_SIZE);
	assert_int_equal(number(all, "memory_bytes"), 288 << 20);
	json_object_put(all);
	size_is("1GiB", "64KiB", (10 + 21845) * REPL_BLOCK_SIZE, 5459 * REPL_BLOCK_SIZE);
	size_is("1TiB", "64KiB", 102297600, 5459 * REPL_BLOCK_SIZE);
	size_is("64TiB", "4KiB", 21883281408, 4 * 532611ULL * REPL_BLOCK_SIZE);
}

static void no_device(void **state)
{
	char *words[] = { "dump", "/dev/null" };
	const struct metadata_options none = { };

	assert_int_equal(metadata_verb(words, 2, &none, stdout, &error), -1);
	assert_string_equal(error.text, "/dev/null is neither a block device nor a file");
	words[1] = "/tmp";
	assert_int_equal(metadata_verb(words, 2, &none, stdout, &error), -1);
	words[1] = "/tmp/is/not/there";
	assert_int_equal(metadata_verb(words, 2, &none, stdout, &error), -1);
	assert_string_equal(error.text, "/tmp/is/not/there: No such file or directory");
	assert_int_equal(metadata_verb(words, 1, &none, stdout, &error), -1);
	assert_int_equal(error.exit, REPL_EXIT_USAGE);
	assert_int_equal(metadata_verb(words, 0, &none, stdout, &error), -1);
}

/*
 * ---- Sets of regions ----
 */

static void region_sets(void **state)
{
	const uint64_t nr = 100000;
	uint8_t *model = calloc(nr, 1);
	uint64_t seed = 1, i, count = 0, begin, end, at = 0;
	struct regions set;

	assert_int_equal(regions_init(&set, nr), 0);
	for (i = 0; i < 2000; i++) {
		bool in = i % 3;

		seed = seed * 6364136223846793005 + 1442695040888963407;
		begin = (seed >> 33) % nr;
		end = begin + 1 + (seed >> 20) % (i % 50 ? 300 : 70000);
		end = end > nr ? nr : end;
		assert_int_equal(regions_change(&set, begin, end, in), 0);
		memset(model + begin, in, end - begin);
	}
	for (begin = 0; regions_next(&set, &begin, &end); begin = end) {
		for (; at < begin; at++)
			assert_int_equal(model[at], 0);
		for (; at < end; at++, count++)
			assert_int_equal(model[at], 1);
	}
	for (; at < nr; at++)
		assert_int_equal(model[at], 0);
	assert_int_equal(set.count, count);
	regions_empty(&set);
	assert_int_equal(set.count, 0);
	begin = 0;
	assert_false(regions_next(&set, &begin, &end));
	regions_free(&set);
	free(model);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static int setup_both(void **state)
{
	return setup(state) || make_file(state);
}

static int teardown_both(void **state)
{
	return teardown(state) || remove_file(state);
}

#define file_test(name) cmocka_unit_test_setup_teardown(name, setup_both, teardown_both)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(layouts),
		cmocka_unit_test(new_layouts),
		test(super_round_trip),
		cmocka_unit_test(states),
		test(newest_counts),
		test(format_cut_off),
		test(unrecorded),
		test(supers_refused),
		test(super_fields),
		test(shorter_device),
		test(links),
		test(stale_blocks),
		test(torn_batch),
		test(damaged_block),
		test(large_gap),
		test(ring),
		test(full_ring),
		test(old_super),
		test(wrong_place),
		test(other_uuid),
		test(insane_blocks),
		test(bitmaps),
		test(bitmaps_refused),
		test(kept_format),
		test(dirs_refused),
		test(dir_full),
		test(dirs_chosen),
		test(kept_bits),
		test(kept_seen),
		test(kept_none),
		test(kept_dirs_checked),
		test(kept_maps_checked),
		test(unreadable),
		test(decayed),
		test(bits_flipped),
		file_test(created),
		file_test(dumped),
		file_test(dumped_maps),
		file_test(create_refused),
		file_test(same_uuid),
		file_test(create_forgets),
		file_test(sizes),
		file_test(no_device),
		cmocka_unit_test(region_sets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
