/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A metadata device in memory, written as the module would write it (log.c), and a
 * model of what it says. For tests; whoever includes it uses what he needs.
 */
#ifndef META_IMAGE_H
#define META_IMAGE_H

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"

#ifndef META_REGIONS_MAX
#define META_REGIONS_MAX (3 * REPL_BITMAP_BITS)
#endif

struct meta_maps {
	uint8_t hidden[META_REGIONS_MAX], active[META_REGIONS_MAX], dirty[META_REGIONS_MAX];
};

/* What a failover does. */
static inline void meta_maps_add(struct meta_maps *maps)
{
	uint64_t i;

	for (i = 0; i < META_REGIONS_MAX; i++)
		maps->dirty[i] |= maps->hidden[i] | maps->active[i];
}

struct meta_image {
	struct image_source source;	/* first: see meta_source_read() */
	uint8_t *data;
	struct repl_meta meta;		/* as in the newest superblock */
	struct repl_meta_state state;
	uint64_t next, link, links;
	struct meta_maps maps;		/* what it says */
	uint64_t bad_block;		/* cannot be read; 0: all can (0 is asked for by bad_0) */
	bool bad_0;
	unsigned int reads, bad_read;	/* number of the read that fails, from 1 */
};

static inline int meta_source_read(struct image_source *source, uint64_t block,
				   unsigned int nr, void *data)
{
	struct meta_image *m = (struct meta_image *)source;

	if (++m->reads == m->bad_read)
		return -EIO;
	if (nr > source->blocks || block > source->blocks - nr)
		return -ENXIO;
	if ((m->bad_0 && !block) ||
	    (m->bad_block && block <= m->bad_block && m->bad_block < block + nr))
		return -EIO;
	memcpy(data, m->data + block * REPL_BLOCK_SIZE, nr * REPL_BLOCK_SIZE);
	return 0;
}

static inline void *meta_block(struct meta_image *m, uint64_t nr)
{
	assert(nr < m->source.blocks);
	return m->data + nr * REPL_BLOCK_SIZE;
}

static inline void meta_super(struct meta_image *m)
{
	repl_super_encode(&m->meta, meta_block(m, m->meta.generation & 1));
}

/* A new one, as repl_log_format() leaves it. */
static inline void meta_format(struct meta_image *m, uint64_t nr_regions, uint64_t blocks)
{
	unsigned int i;
	int r;

	memset(m, 0, sizeof(*m));
	m->source = (struct image_source) { meta_source_read, blocks };
	m->data = calloc(blocks, REPL_BLOCK_SIZE);
	assert(m->data && nr_regions <= META_REGIONS_MAX);
	r = repl_layout_init(&m->meta.layout, nr_regions * 8 - 3, 8, blocks);
	assert(!r);
	for (i = 0; i < REPL_UUID_SIZE; i++)
		m->meta.uuid[i] = i + 1;
	m->meta.created = 1700000000;
	m->meta.area = REPL_NO_AREA;
	m->meta.tail = m->next = 1;
	m->meta.tail_prev = m->link = 0x1122334455667788;
	for (m->meta.generation = 1; m->meta.generation <= 2; m->meta.generation++)
		meta_super(m);
	m->meta.generation = 2;
}

static inline void meta_free(struct meta_image *m)
{
	free(m->data);
	m->data = NULL;
}

static inline struct repl_disk_log *meta_log(struct meta_image *m, uint64_t seq)
{
	return meta_block(m, repl_log_block(&m->meta.layout, seq));
}

static inline void meta_seal(struct meta_image *m, uint64_t seq)
{
	repl_block_seal(meta_log(m, seq), REPL_MAGIC_LOG, m->meta.uuid,
			repl_log_block(&m->meta.layout, seq));
}

/* The next block of a batch that began with @first: it has no extents yet. */
static inline struct repl_disk_log *meta_append(struct meta_image *m, uint64_t first,
						unsigned int flags)
{
	struct repl_disk_log *log = meta_log(m, m->next);
	/* Not at random, so that all images are the same. */
	uint64_t link = (++m->links + 1000) * 0x9e3779b97f4a7c15;

	memset(log, 0, sizeof(*log));
	log->seq = htole64(m->next);
	log->first = htole64(first);
	log->link = htole64(link);
	log->prev = htole64(m->link);
	log->flags = htole16(flags);
	repl_state_encode(&m->state, &log->state);
	meta_seal(m, m->next);
	if (flags & REPL_LOG_DIRTY_ADD)
		meta_maps_add(&m->maps);
	if (flags & REPL_LOG_EMPTY_HIDDEN)
		memset(m->maps.hidden, 0, sizeof(m->maps.hidden));
	if (flags & REPL_LOG_EMPTY_ACTIVE)
		memset(m->maps.active, 0, sizeof(m->maps.active));
	if (flags & REPL_LOG_EMPTY_DIRTY)
		memset(m->maps.dirty, 0, sizeof(m->maps.dirty));
	m->next++;
	m->link = link;
	return log;
}

/* An extent more in the last block. */
static inline void meta_extent(struct meta_image *m, uint64_t begin, uint64_t nr,
			       enum repl_extent_op op)
{
	struct repl_disk_log *log = meta_log(m, m->next - 1);
	unsigned int at = le16toh(log->nr);

	log->extents[at] = repl_extent_encode(begin, nr, op);
	log->nr = htole16(at + 1);
	meta_seal(m, m->next - 1);
	if (begin + nr > m->meta.layout.nr_regions)
		return;
	if (op == REPL_EXTENT_HIDDEN || op == REPL_EXTENT_MERGED)
		memset(m->maps.hidden + begin, op == REPL_EXTENT_HIDDEN, nr);
	if (op == REPL_EXTENT_ACTIVE || op == REPL_EXTENT_MERGED)
		memset(m->maps.active + begin, op == REPL_EXTENT_ACTIVE, nr);
	if (op == REPL_EXTENT_DIRTY || op == REPL_EXTENT_CLEAN)
		memset(m->maps.dirty + begin, op == REPL_EXTENT_DIRTY, nr);
}

/* A batch of one block with one extent. */
static inline void meta_record(struct meta_image *m, uint64_t begin, uint64_t nr,
			       enum repl_extent_op op)
{
	meta_append(m, m->next, 0);
	meta_extent(m, begin, nr, op);
}

/* A batch that is a change, with a new checkpoint if @id is one. A failover adds to dirty. */
static inline void meta_change(struct meta_image *m, enum repl_disk_stage stage,
			       unsigned int flags, uint64_t id)
{
	bool fails_over = stage == REPL_DISK_FAILOVER && m->state.stage != stage;
	bool empties = id != m->state.checkpoint;

	m->state = (struct repl_meta_state) {
		.stage = stage, .flags = flags, .checkpoint = id,
		.identity = m->state.identity,
	};
	m->state.identity.role = REPL_ROLE_SECONDARY;
	meta_append(m, m->next, (empties ? REPL_LOG_EMPTY_ALL : 0) |
				(fails_over ? REPL_LOG_DIRTY_ADD : 0));
}

static inline bool meta_bits(struct meta_image *m, uint64_t nr, struct repl_disk_bits *bits)
{
	uint64_t map = m->meta.layout.map_blocks, base = nr % map * REPL_BITMAP_BITS, i;
	const uint8_t *const of[] = {
		[REPL_DISK_DIRTY] = m->maps.dirty, [REPL_DISK_HIDDEN] = m->maps.hidden,
		[REPL_DISK_ACTIVE] = m->maps.active,
	}, *from = of[nr / map];
	bool any = false;

	for (i = 0; i < REPL_BITMAP_BITS && base + i < m->meta.layout.nr_regions; i++) {
		if (!from[base + i])
			continue;
		bits->bits[i >> 3] |= 1 << (i & 7);
		any = true;
	}
	return any;
}

/* As repl_log_compact() does it, but for the superblock: that is meta_super(). */
static inline void meta_compact(struct meta_image *m)
{
	const struct repl_layout *layout = &m->meta.layout;
	struct repl_disk_bits bits, summary;
	uint64_t nr, start;

	m->meta.generation++;
	m->meta.area = m->meta.area == 0;
	m->meta.area_generation = m->meta.generation;
	m->meta.tail = m->next;
	m->meta.tail_prev = m->link;
	m->meta.state = m->state;
	start = layout->area_start[m->meta.area];
	assert(layout->summary_blocks == 1);
	memset(&summary, 0, sizeof(summary));
	summary.generation = htole64(m->meta.area_generation);
	for (nr = 0; nr < REPL_NR_DISK_MAPS * layout->map_blocks; nr++) {
		memset(&bits, 0, sizeof(bits));
		if (!meta_bits(m, nr, &bits))
			continue;
		summary.bits[nr >> 3] |= 1 << (nr & 7);
		bits.generation = summary.generation;
		bits.index = htole64(layout->summary_blocks + nr);
		repl_block_seal(&bits, REPL_MAGIC_BITMAP, m->meta.uuid,
				start + layout->summary_blocks + nr);
		memcpy(meta_block(m, start + layout->summary_blocks + nr), &bits,
		       sizeof(bits));
	}
	repl_block_seal(&summary, REPL_MAGIC_SUMMARY, m->meta.uuid, start);
	memcpy(meta_block(m, start), &summary, sizeof(summary));
}

/*
 * ---- The user's dirty maps ----
 */

/* The device is longer, by blocks of zeroes. */
static inline void meta_longer(struct meta_image *m, uint64_t blocks)
{
	m->data = realloc(m->data, (m->source.blocks + blocks) * REPL_BLOCK_SIZE);
	assert(m->data);
	memset(m->data + m->source.blocks * REPL_BLOCK_SIZE, 0, blocks * REPL_BLOCK_SIZE);
	m->source.blocks += blocks;
}

static inline struct repl_disk_kept_dir *meta_dir(struct meta_image *m, unsigned int slot)
{
	return meta_block(m, m->meta.layout.blocks + slot);
}

static inline void meta_dir_seal(struct meta_image *m, unsigned int slot)
{
	repl_block_seal(meta_dir(m, slot), REPL_MAGIC_KEPT, m->meta.uuid,
			m->meta.layout.blocks + slot);
}

/* The same directory again, of a later generation. */
static inline struct repl_disk_kept_dir *meta_dir_new(struct meta_image *m, uint64_t generation,
						      unsigned int flags)
{
	struct repl_disk_kept_dir *dir = meta_dir(m, generation & 1);

	memcpy(dir, meta_dir(m, !(generation & 1)), sizeof(*dir));
	dir->generation = htole64(generation);
	dir->flags = htole32(flags);
	dir->next = htole64(flags & REPL_KEPT_CLEAN ? m->next : 0);
	meta_dir_seal(m, generation & 1);
	return dir;
}

/* A map more, in both; its run is behind those of the others. Returns where. */
static inline uint64_t meta_map_add(struct meta_image *m, const char *name, unsigned int shift,
				    unsigned int flags)
{
	uint64_t start = m->meta.layout.blocks + 2;
	unsigned int i, slot, nr = le32toh(meta_dir(m, 0)->nr);

	assert(nr < REPL_KEPT_MAPS && strlen(name) < REPL_KEPT_NAME);
	for (i = 0; i < nr; i++)
		start += le64toh(meta_dir(m, 0)->map[i].blocks);
	for (slot = 0; slot < 2; slot++) {
		struct repl_disk_kept_dir *dir = meta_dir(m, slot);
		struct repl_disk_kept *map = &dir->map[nr];

		strcpy((char *)map->name, name);
		map->shift = shift;
		map->flags = flags;
		map->start = htole64(start);
		map->blocks = htole64(repl_kept_blocks(m->meta.layout.sectors, shift));
		dir->nr = htole32(nr + 1);
		dir->generation = htole64(2 + slot);
		meta_dir_seal(m, slot);
	}
	return start;
}

static inline void meta_map_seal(struct meta_image *m, uint64_t start, uint64_t index)
{
	struct repl_disk_bits *bits = meta_block(m, start + index);

	bits->index = htole64(index);
	repl_block_seal(bits, REPL_MAGIC_KEPT_BITS, m->meta.uuid, start + index);
}

static inline void meta_map_set(struct meta_image *m, uint64_t start, uint64_t bit)
{
	uint64_t index = bit / REPL_BITMAP_BITS;
	struct repl_disk_bits *bits = meta_block(m, start + index);

	bit %= REPL_BITMAP_BITS;
	bits->bits[bit >> 3] |= 1 << (bit & 7);
	meta_map_seal(m, start, index);
}

/*
 * ---- Reading it ----
 */

struct meta_reading {
	struct repl_reader reader;	/* first */
	struct meta_image *image;
	struct meta_maps *maps;
	uint64_t nr_regions;
	int load, replay;
	const char *why;
	struct repl_meta meta;
	struct repl_replayed end;
	uint8_t *buffer;
};

static inline int meta_reader_read(struct repl_reader *reader, u64 block, unsigned int nr,
				   void *data)
{
	struct meta_reading *r = (struct meta_reading *)reader;

	return r->image->source.read(&r->image->source, block, nr, data);
}

static inline int meta_reader_apply(struct repl_reader *reader, enum repl_apply what,
				    u64 begin, u64 end)
{
	struct meta_reading *r = (struct meta_reading *)reader;
	uint64_t all = r->meta.layout.nr_regions;

	/* Never a region that there is not. */
	if (begin >= end || end > all || all > META_REGIONS_MAX)
		abort();
	if (what == REPL_APPLY_HIDDEN || what == REPL_APPLY_MERGED ||
	    what == REPL_APPLY_EMPTY_HIDDEN)
		memset(r->maps->hidden + begin, what == REPL_APPLY_HIDDEN, end - begin);
	if (what == REPL_APPLY_ACTIVE || what == REPL_APPLY_MERGED ||
	    what == REPL_APPLY_EMPTY_ACTIVE)
		memset(r->maps->active + begin, what == REPL_APPLY_ACTIVE, end - begin);
	if (what == REPL_APPLY_DIRTY || what == REPL_APPLY_CLEAN ||
	    what == REPL_APPLY_EMPTY_DIRTY)
		memset(r->maps->dirty + begin, what == REPL_APPLY_DIRTY, end - begin);
	if (what == REPL_APPLY_DIRTY_ADD)
		meta_maps_add(r->maps);
	return 0;
}

/* Load and replay; @buffer has REPL_REPLAY_BUFFER bytes. */
static inline bool meta_read(struct meta_image *m, struct meta_reading *r,
			     struct meta_maps *maps, uint8_t *buffer)
{
	memset(r, 0, sizeof(*r));
	memset(maps, 0, sizeof(*maps));
	r->reader = (struct repl_reader) { meta_reader_read, meta_reader_apply };
	r->image = m;
	r->maps = maps;
	m->reads = 0;
	r->load = repl_meta_load(&r->reader, m->source.blocks, buffer, &r->meta, &r->why);
	if (!r->load)
		r->replay = repl_replay(&r->reader, &r->meta, buffer, &r->end, &r->why);
	return !r->load && !r->replay;
}

static inline bool meta_same_state(const struct repl_meta_state *a,
				   const struct repl_meta_state *b)
{
	return a->checkpoint == b->checkpoint && a->prepared == b->prepared &&
	       a->stage == b->stage && a->flags == b->flags && a->errors == b->errors &&
	       a->identity.role == b->identity.role &&
	       !memcmp(a->identity.lineage, b->identity.lineage, REPL_UUID_SIZE) &&
	       !memcmp(a->identity.parent, b->identity.parent, REPL_UUID_SIZE) &&
	       a->identity.parent_checkpoint == b->identity.parent_checkpoint;
}

#endif
