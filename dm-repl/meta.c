// SPDX-License-Identifier: GPL-2.0-only
/* Meta: see meta.h, and format.h for what is on the disk. */

#ifdef __KERNEL__
#include <linux/crc32c.h>
#include <linux/errno.h>
#include <linux/log2.h>
#include <linux/math64.h>
#include <linux/string.h>
#include <asm/byteorder.h>
#else
#include "crc32c.h"
#endif

#include "meta.h"

#ifndef __KERNEL__
static bool is_power_of_2(u64 x)
{
	return x && !(x & (x - 1));
}

static u64 div64_u64_rem(u64 dividend, u64 divisor, u64 *rem)
{
	*rem = dividend % divisor;
	return dividend / divisor;
}
#endif

#define CRC_OFFSET sizeof(__le32)

static u32 block_crc(const void *block)
{
	const u8 *data = block;

#ifdef __KERNEL__
	return ~crc32c(~0U, data + CRC_OFFSET, REPL_BLOCK_SIZE - CRC_OFFSET);
#else
	return crc32c(0, data + CRC_OFFSET, REPL_BLOCK_SIZE - CRC_OFFSET);
#endif
}

static bool bit_is_set(const u8 *bits, u64 bit)
{
	return bits[bit >> 3] >> (bit & 7) & 1;
}

static u64 blocks_for(u64 bits)
{
	u64 rem;
	u64 blocks = div64_u64_rem(bits, REPL_BITMAP_BITS, &rem);

	return blocks + !!rem;
}

/**
 * repl_layout_init() - where things are on a metadata device
 * @layout: to fill in
 * @sectors: length of the chain, above 0
 * @region_size: in sectors, a power of two
 * @device_blocks: size of the metadata device
 *
 * The log takes what the bitmaps leave, up to REPL_LOG_MAX_BLOCKS.
 *
 * Return: 0; -ENOSPC if the device is too small: @layout->blocks says what it
 * takes; -E2BIG if there are too many regions.
 */
int repl_layout_init(struct repl_layout *layout, u64 sectors, u32 region_size,
		     u64 device_blocks)
{
	u64 left;

	memset(layout, 0, sizeof(*layout));
	layout->sectors = sectors;
	layout->region_size = region_size;
	layout->nr_regions = div64_u64_rem(sectors + region_size - 1,
					   region_size, &left);
	if (!layout->nr_regions || layout->nr_regions > REPL_MAX_REGIONS)
		return -E2BIG;
	layout->map_blocks = blocks_for(layout->nr_regions);
	layout->summary_blocks = blocks_for(REPL_NR_DISK_MAPS *
					    layout->map_blocks);
	layout->area_blocks = layout->summary_blocks +
			      REPL_NR_DISK_MAPS * layout->map_blocks;
	layout->area_start[0] = 2;
	layout->area_start[1] = 2 + layout->area_blocks;
	layout->log_start = 2 + 2 * layout->area_blocks;
	layout->blocks = layout->log_start + REPL_LOG_MIN_BLOCKS;
	if (layout->blocks > device_blocks)
		return -ENOSPC;
	left = device_blocks - layout->log_start;
	layout->log_blocks = left < REPL_LOG_MAX_BLOCKS ? left :
							  REPL_LOG_MAX_BLOCKS;
	layout->blocks = layout->log_start + layout->log_blocks;
	return 0;
}

/**
 * repl_layout_new() - the same of a device that is blank
 * @layout: to fill in
 * @sectors: length of the chain, above 0
 * @region_size: in sectors, a power of two
 * @device_blocks: size of the metadata device
 *
 * A quarter of what the bitmaps leave is for the user's maps, but no log is
 * too small for that.
 *
 * Return: as repl_layout_init().
 */
int repl_layout_new(struct repl_layout *layout, u64 sectors, u32 region_size,
		    u64 device_blocks)
{
	int r = repl_layout_init(layout, sectors, region_size, device_blocks);
	u64 left = device_blocks - layout->log_start;
	u64 most = left - REPL_LOG_MIN_BLOCKS;

	if (r)
		return r;
	return repl_layout_init(layout, sectors, region_size, device_blocks -
				(left / 4 < most ? left / 4 : most));
}

/**
 * repl_block_seal() - fill in a block's head, last
 * @block: block, complete but for its head
 * @magic: what it is
 * @uuid: of the metadata device
 * @nr: where it will lie
 */
void repl_block_seal(void *block, u32 magic, const u8 *uuid, u64 nr)
{
	struct repl_block_head *head = block;

	head->magic = cpu_to_le32(magic);
	memcpy(head->uuid, uuid, REPL_UUID_SIZE);
	head->block = cpu_to_le64(nr);
	head->crc = cpu_to_le32(block_crc(block));
}

/**
 * repl_block_ok() - is it what it should be?
 * @block: block as read
 * @magic: what it should be
 * @uuid: of the metadata device
 * @nr: where it was read
 */
bool repl_block_ok(const void *block, u32 magic, const u8 *uuid, u64 nr)
{
	const struct repl_block_head *head = block;

	return le32_to_cpu(head->magic) == magic &&
	       le64_to_cpu(head->block) == nr &&
	       !memcmp(head->uuid, uuid, REPL_UUID_SIZE) &&
	       le32_to_cpu(head->crc) == block_crc(block);
}

/**
 * repl_state_encode() - a state for the disk
 * @state: state
 * @disk: result
 */
void repl_state_encode(const struct repl_meta_state *state,
		       struct repl_disk_state *disk)
{
	memset(disk, 0, sizeof(*disk));
	disk->checkpoint = cpu_to_le64(state->checkpoint);
	disk->prepared = cpu_to_le64(state->prepared);
	disk->stage = state->stage;
	disk->flags = state->flags;
	disk->role = state->identity.role;
	disk->kept = state->kept;
	disk->errors = cpu_to_le32(state->errors);
	memcpy(disk->lineage, state->identity.lineage, REPL_UUID_SIZE);
	memcpy(disk->parent, state->identity.parent, REPL_UUID_SIZE);
	disk->parent_checkpoint =
		cpu_to_le64(state->identity.parent_checkpoint);
}

/**
 * repl_state_decode() - a state from the disk
 * @disk: state as read
 * @state: result
 *
 * Return: whether it can be one.
 */
bool repl_state_decode(const struct repl_disk_state *disk,
		       struct repl_meta_state *state)
{
	state->checkpoint = le64_to_cpu(disk->checkpoint);
	state->prepared = le64_to_cpu(disk->prepared);
	state->stage = disk->stage;
	state->flags = disk->flags;
	state->kept = disk->kept == 1;
	state->errors = le32_to_cpu(disk->errors);
	state->identity.role = disk->role;
	memcpy(state->identity.lineage, disk->lineage, REPL_UUID_SIZE);
	memcpy(state->identity.parent, disk->parent, REPL_UUID_SIZE);
	state->identity.parent_checkpoint =
		le64_to_cpu(disk->parent_checkpoint);
	if (disk->stage >= REPL_NR_DISK_STAGES || disk->role >= REPL_NR_ROLES ||
	    (disk->flags & ~REPL_STATE_FLAGS))
		return false;
	/* Only a secondary runs, or fails over. */
	if ((state->stage == REPL_DISK_RUNNING ||
	     state->stage == REPL_DISK_FAILOVER) &&
	    disk->role != REPL_ROLE_SECONDARY)
		return false;
	if ((state->flags & REPL_STATE_PREPARED) &&
	    (state->stage == REPL_DISK_FAILOVER ||
	     (state->stage != REPL_DISK_RUNNING &&
	      disk->role == REPL_ROLE_NONE) ||
	     state->prepared <= state->checkpoint))
		return false;
	/* A merge without the fence, or the fence under a running chain */
	if (state->stage == REPL_DISK_FAILOVER)
		return state->flags & REPL_STATE_FENCED;
	return state->stage != REPL_DISK_RUNNING ||
	       !(state->flags & REPL_STATE_FENCED);
}

/**
 * repl_super_encode() - a superblock for the disk
 * @meta: what it says
 * @block: result, sealed for block generation & 1
 */
void repl_super_encode(const struct repl_meta *meta, void *block)
{
	struct repl_disk_super *super = block;

	memset(super, 0, sizeof(*super));
	super->version = cpu_to_le32(REPL_META_VERSION);
	if (meta->unrecorded)
		super->incompatible = cpu_to_le32(REPL_INCOMPAT_UNRECORDED);
	super->region_size = cpu_to_le32(meta->layout.region_size);
	super->sectors = cpu_to_le64(meta->layout.sectors);
	super->blocks = cpu_to_le64(meta->layout.blocks);
	super->area_blocks = cpu_to_le64(meta->layout.area_blocks);
	super->log_start = cpu_to_le64(meta->layout.log_start);
	super->log_blocks = cpu_to_le64(meta->layout.log_blocks);
	super->created = cpu_to_le64(meta->created);
	super->generation = cpu_to_le64(meta->generation);
	super->area = cpu_to_le64(meta->area);
	super->area_generation = cpu_to_le64(meta->area_generation);
	super->tail = cpu_to_le64(meta->tail);
	super->tail_prev = cpu_to_le64(meta->tail_prev);
	repl_state_encode(&meta->state, &super->state);
	repl_block_seal(block, REPL_MAGIC_SUPER, meta->uuid,
			meta->generation & 1);
}

/**
 * repl_super_decode() - a superblock from the disk
 * @block: block as read
 * @nr: where: 0 or 1
 * @meta: result
 * @why: on failure, what is wrong with it
 *
 * Return: 0; -ENODATA if it is all zeroes; -EPROTO if it is of a version that
 * we do not know; -EUCLEAN if it is anything else.
 */
int repl_super_decode(const void *block, u64 nr, struct repl_meta *meta,
		      const char **why)
{
	const struct repl_disk_super *super = block;
	const u64 *words = block;
	u32 features;
	unsigned int i;

	for (i = 0; i < REPL_BLOCK_SIZE / sizeof(*words) && !words[i]; i++)
		;
	if (i == REPL_BLOCK_SIZE / sizeof(*words)) {
		*why = "Metadata device is blank";
		return -ENODATA;
	}
	*why = "Metadata device has no dm-repl superblock";
	if (le32_to_cpu(super->head.magic) != REPL_MAGIC_SUPER)
		return -EUCLEAN;
	*why = "Metadata superblock is damaged";
	memcpy(meta->uuid, super->head.uuid, REPL_UUID_SIZE);
	if (!repl_block_ok(block, REPL_MAGIC_SUPER, meta->uuid, nr))
		return -EUCLEAN;
	features = le32_to_cpu(super->incompatible);
	if (le32_to_cpu(super->version) != REPL_META_VERSION ||
	    (features & ~REPL_INCOMPAT_UNRECORDED)) {
		*why = "Metadata is of a newer version";
		return -EPROTO;
	}

	meta->created = le64_to_cpu(super->created);
	meta->generation = le64_to_cpu(super->generation);
	meta->unrecorded = features & REPL_INCOMPAT_UNRECORDED;
	meta->area = le64_to_cpu(super->area);
	meta->area_generation = le64_to_cpu(super->area_generation);
	meta->tail = le64_to_cpu(super->tail);
	meta->tail_prev = le64_to_cpu(super->tail_prev);
	if ((meta->generation & 1) != nr ||
	    le64_to_cpu(super->area) > REPL_NO_AREA ||
	    !is_power_of_2(le32_to_cpu(super->region_size)) ||
	    !meta->tail || !repl_state_decode(&super->state, &meta->state) ||
	    repl_layout_init(&meta->layout, le64_to_cpu(super->sectors),
			     le32_to_cpu(super->region_size),
			     le64_to_cpu(super->blocks)))
		return -EUCLEAN;
	if (meta->layout.blocks != le64_to_cpu(super->blocks) ||
	    meta->layout.area_blocks != le64_to_cpu(super->area_blocks) ||
	    meta->layout.log_start != le64_to_cpu(super->log_start) ||
	    meta->layout.log_blocks != le64_to_cpu(super->log_blocks))
		return -EUCLEAN;
	return 0;
}

/**
 * repl_meta_load() - the superblock that counts
 * @reader: how to read
 * @device_blocks: size of the metadata device
 * @buffer: two blocks
 * @meta: result
 * @why: on failure, why
 *
 * The one with the higher generation, if it is good; if not, the other: it may
 * have been torn when the power failed, and then nothing has relied on it.
 * Replay finds out if something had.
 *
 * Return: 0; -ENODATA if both are blank; or another negative errno.
 */
int repl_meta_load(struct repl_reader *reader, u64 device_blocks, void *buffer,
		   struct repl_meta *meta, const char **why)
{
	const char *reason[2];
	struct repl_meta other;
	int r, s;

	*why = "Metadata device is too small";
	if (device_blocks < 2)
		return -ENOSPC;
	*why = "Cannot read the metadata superblock";
	r = reader->read(reader, 0, 2, buffer);
	if (r)
		return r;

	r = repl_super_decode(buffer, 0, meta, &reason[0]);
	s = repl_super_decode((u8 *)buffer + REPL_BLOCK_SIZE, 1, &other,
			      &reason[1]);
	/* A newer version, even if the other copy is of ours */
	if (r == -EPROTO || s == -EPROTO) {
		*why = "Metadata is of a newer version";
		return -EPROTO;
	}
	if (r && s) {
		/* The first is made last: with it blank there is nothing. */
		*why = s == -ENODATA ? reason[0] : reason[1];
		return r == -ENODATA && s == -ENODATA ? -ENODATA : -EUCLEAN;
	}
	if (!r && !s && memcmp(meta->uuid, other.uuid, REPL_UUID_SIZE)) {
		*why = "Metadata superblocks are of different devices";
		return -EUCLEAN;
	}
	if (r || (!s && other.generation > meta->generation))
		*meta = other;
	if (meta->layout.blocks > device_blocks) {
		*why = "Metadata device is shorter than it was";
		return -ENOSPC;
	}
	return 0;
}

/**
 * repl_log_block() - where a block of the log lies
 * @layout: layout
 * @seq: its sequence number
 */
u64 repl_log_block(const struct repl_layout *layout, u64 seq)
{
	u64 rem;

	div64_u64_rem(seq, layout->log_blocks, &rem);
	return layout->log_start + rem;
}

/**
 * repl_extent_encode() - an extent for the disk
 * @begin: first region
 * @nr: how many, 1 to REPL_EXTENT_MAX
 * @op: what of them
 */
__le64 repl_extent_encode(u64 begin, u64 nr, enum repl_extent_op op)
{
	return cpu_to_le64(begin << REPL_EXTENT_BEGIN_SHIFT |
			   (nr - 1) << REPL_EXTENT_SHIFT | op);
}

/**
 * repl_extent_decode() - an extent from the disk
 * @extent: as read
 * @nr_regions: of the chain
 * @begin: first region
 * @end: region after the last
 * @op: what of them
 *
 * Return: whether it can be one.
 */
bool repl_extent_decode(__le64 extent, u64 nr_regions, u64 *begin, u64 *end,
			enum repl_extent_op *op)
{
	u64 word = le64_to_cpu(extent);

	*begin = word >> REPL_EXTENT_BEGIN_SHIFT;
	*end = *begin + (word >> REPL_EXTENT_SHIFT & (REPL_EXTENT_MAX - 1)) + 1;
	*op = word & ((1 << REPL_EXTENT_SHIFT) - 1);
	return *end <= nr_regions && *op < REPL_NR_EXTENT_OPS;
}

/*
 * ---- The user's maps ----
 */

/**
 * repl_kept_blocks() - what a map takes
 * @sectors: length of the device, above 0
 * @shift: log2 of sectors a bit
 */
u64 repl_kept_blocks(u64 sectors, unsigned int shift)
{
	return blocks_for(((sectors - 1) >> shift) + 1);
}

static bool kept_name_ok(const u8 *name)
{
	unsigned int i, n;

	for (n = 0; n < REPL_KEPT_NAME && name[n]; n++)
		if (name[n] <= ' ' || name[n] > '~')
			return false;
	if (!n || n == REPL_KEPT_NAME)
		return false;
	for (i = n; i < REPL_KEPT_NAME; i++)
		if (name[i])
			return false;
	return true;
}

static bool kept_map_ok(const struct repl_disk_kept_dir *dir, unsigned int nr,
			const struct repl_layout *layout, u64 device_blocks)
{
	const struct repl_disk_kept *map = &dir->map[nr], *other;
	u64 start = le64_to_cpu(map->start), blocks = le64_to_cpu(map->blocks);
	unsigned int i;

	if (!kept_name_ok(map->name) || map->shift < REPL_KEPT_MIN_SHIFT ||
	    map->shift > REPL_KEPT_MAX_SHIFT ||
	    (map->flags & ~REPL_KEPT_ENABLED) ||
	    blocks != repl_kept_blocks(layout->sectors, map->shift) ||
	    start < layout->blocks + 2 || start > device_blocks ||
	    blocks > device_blocks - start)
		return false;
	for (i = 0; i < nr; i++) {
		other = &dir->map[i];
		if (!memcmp(map->name, other->name, REPL_KEPT_NAME) ||
		    (start < le64_to_cpu(other->start) +
			     le64_to_cpu(other->blocks) &&
		     le64_to_cpu(other->start) < start + blocks))
			return false;
	}
	return true;
}

/**
 * repl_kept_dir_ok() - is it a directory of the user's maps?
 * @dir: block as read
 * @slot: 0 or 1: which
 * @meta: the superblock that counts
 * @device_blocks: size of the metadata device
 */
bool repl_kept_dir_ok(const struct repl_disk_kept_dir *dir, unsigned int slot,
		      const struct repl_meta *meta, u64 device_blocks)
{
	unsigned int i, nr = le32_to_cpu(dir->nr);

	if (!repl_block_ok(dir, REPL_MAGIC_KEPT, meta->uuid,
			   meta->layout.blocks + slot) ||
	    (le64_to_cpu(dir->generation) & 1) != slot ||
	    (le32_to_cpu(dir->flags) & ~REPL_KEPT_FLAGS) ||
	    nr > REPL_KEPT_MAPS)
		return false;
	for (i = 0; i < nr; i++)
		if (!kept_map_ok(dir, i, &meta->layout, device_blocks))
			return false;
	return true;
}

/**
 * repl_kept_choose() - the directory that counts
 * @dirs: both, as read
 * @meta: the superblock that counts
 * @device_blocks: size of the metadata device
 *
 * Return: that, or NULL if there is none.
 */
const struct repl_disk_kept_dir *
repl_kept_choose(const struct repl_disk_kept_dir *dirs,
		 const struct repl_meta *meta, u64 device_blocks)
{
	const struct repl_disk_kept_dir *best = NULL;
	unsigned int i;

	for (i = 0; i < 2; i++)
		if (repl_kept_dir_ok(&dirs[i], i, meta, device_blocks) &&
		    (!best || le64_to_cpu(dirs[i].generation) >
			      le64_to_cpu(best->generation)))
			best = &dirs[i];
	return best;
}

/**
 * repl_kept_bits_ok() - what does a block of a map say?
 * @bits: block as read
 * @uuid: of the metadata device
 * @nr: its number
 * @index: in its map
 * @nr_bits: that it has, at most REPL_BITMAP_BITS
 *
 * Return: 1: its bits; 0: none is set; -EUCLEAN: it is damaged, all are.
 */
int repl_kept_bits_ok(const struct repl_disk_bits *bits, const u8 *uuid, u64 nr,
		      u64 index, u64 nr_bits)
{
	const u64 *words = (const void *)bits;
	unsigned int i;

	for (i = 0; i < REPL_BLOCK_SIZE / sizeof(*words) && !words[i]; i++)
		;
	if (i == REPL_BLOCK_SIZE / sizeof(*words))
		return 0;
	if (!repl_block_ok(bits, REPL_MAGIC_KEPT_BITS, uuid, nr) ||
	    le64_to_cpu(bits->generation) || le64_to_cpu(bits->index) != index)
		return -EUCLEAN;
	for (; nr_bits < REPL_BITMAP_BITS; nr_bits++)
		if (bit_is_set(bits->bits, nr_bits))
			return -EUCLEAN;
	return 1;
}

/*
 * ---- Replay ----
 */

struct replay {
	struct repl_reader *reader;
	const struct repl_meta *meta;
	u8 *buffer;			/* REPL_REPLAY_BLOCKS */
	u8 *summary;			/* one block more */
	u64 buffered;			/* first block in it */
	unsigned int nr_buffered;
	struct repl_replayed *result;
	const char *why;
};

/* Block @nr, by way of the buffer; NULL if it cannot be read. */
static const void *replay_block(struct replay *p, u64 nr, u64 end)
{
	unsigned int most = end - nr < REPL_REPLAY_BLOCKS ? end - nr :
							    REPL_REPLAY_BLOCKS;

	if (nr >= p->buffered && nr < p->buffered + p->nr_buffered)
		return p->buffer + (nr - p->buffered) * REPL_BLOCK_SIZE;
	p->buffered = nr;
	p->nr_buffered = most;
	if (!p->reader->read(p->reader, nr, most, p->buffer))
		return p->buffer;
	/* Of so many one may be bad that nobody needs. */
	p->nr_buffered = most > 1;
	if (most > 1 && !p->reader->read(p->reader, nr, 1, p->buffer))
		return p->buffer;
	p->nr_buffered = 0;
	return NULL;
}

/* A block of bits from the current area. */
static const struct repl_disk_bits *replay_bits(struct replay *p, u64 index,
						bool summary)
{
	const struct repl_meta *meta = p->meta;
	const struct repl_layout *layout = &meta->layout;
	u64 start = layout->area_start[meta->area];
	const struct repl_disk_bits *disk =
		replay_block(p, start + index, start + layout->area_blocks);

	p->why = "Cannot read the metadata bitmaps";
	if (!disk)
		return NULL;
	p->why = "Metadata bitmaps are damaged";
	if (!repl_block_ok(disk, summary ? REPL_MAGIC_SUMMARY :
			   REPL_MAGIC_BITMAP, meta->uuid, start + index) ||
	    le64_to_cpu(disk->generation) != meta->area_generation ||
	    le64_to_cpu(disk->index) != index)
		return NULL;
	return disk;
}

static int replay_bitmap(struct replay *p, u64 nr)
{
	static const enum repl_apply what[REPL_NR_DISK_MAPS] = {
		[REPL_DISK_DIRTY] = REPL_APPLY_DIRTY,
		[REPL_DISK_HIDDEN] = REPL_APPLY_HIDDEN,
		[REPL_DISK_ACTIVE] = REPL_APPLY_ACTIVE,
	};
	const struct repl_layout *layout = &p->meta->layout;
	u64 base, map = div64_u64_rem(nr, layout->map_blocks, &base);
	const struct repl_disk_bits *disk;
	u64 bit = 0;

	base *= REPL_BITMAP_BITS;
	disk = replay_bits(p, layout->summary_blocks + nr, false);
	if (!disk)
		return -EUCLEAN;
	while (bit < REPL_BITMAP_BITS) {
		u64 begin;
		int r;

		if (!(bit & 7) && !disk->bits[bit >> 3]) {
			bit += 8;
			continue;
		}
		if (!bit_is_set(disk->bits, bit)) {
			bit++;
			continue;
		}
		begin = bit;
		while (bit < REPL_BITMAP_BITS && bit_is_set(disk->bits, bit))
			bit++;
		p->why = "Metadata bitmaps are damaged";
		if (base + bit > layout->nr_regions)
			return -EUCLEAN;
		r = p->reader->apply(p->reader, what[map], base + begin,
				     base + bit);
		if (r)
			return r;
	}
	return 0;
}

static int replay_area(struct replay *p)
{
	const struct repl_layout *layout = &p->meta->layout;
	u64 all = REPL_NR_DISK_MAPS * layout->map_blocks;
	u64 index, nr = 0;

	for (index = 0; index < layout->summary_blocks; index++) {
		const struct repl_disk_bits *disk = replay_bits(p, index, true);
		u64 end = (index + 1) * REPL_BITMAP_BITS;

		if (!disk)
			return -EUCLEAN;
		memcpy(p->summary, disk->bits, REPL_BITMAP_BYTES);
		if (end > all)
			end = all;
		for (; nr < end; nr++) {
			int r = 0;

			if (bit_is_set(p->summary, nr - index * REPL_BITMAP_BITS))
				r = replay_bitmap(p, nr);
			if (r)
				return r;
		}
	}
	return 0;
}

/* Log block @seq, NULL if it cannot be read. */
static const struct repl_disk_log *replay_log_block(struct replay *p, u64 seq)
{
	const struct repl_layout *layout = &p->meta->layout;

	return replay_block(p, repl_log_block(layout, seq),
			    layout->log_start + layout->log_blocks);
}

static int replay_extents(struct replay *p, const struct repl_disk_log *log)
{
	static const enum repl_apply what[] = {
		[REPL_EXTENT_HIDDEN] = REPL_APPLY_HIDDEN,
		[REPL_EXTENT_ACTIVE] = REPL_APPLY_ACTIVE,
		[REPL_EXTENT_MERGED] = REPL_APPLY_MERGED,
		[REPL_EXTENT_DIRTY] = REPL_APPLY_DIRTY,
		[REPL_EXTENT_CLEAN] = REPL_APPLY_CLEAN,
	};
	struct repl_reader *reader = p->reader;
	unsigned int nr = le16_to_cpu(log->nr);
	u16 flags = le16_to_cpu(log->flags);
	u64 all = p->meta->layout.nr_regions;
	unsigned int i;
	int r = 0;

	if (flags & REPL_LOG_DIRTY_ADD)
		r = reader->apply(reader, REPL_APPLY_DIRTY_ADD, 0, all);
	if (!r && (flags & REPL_LOG_EMPTY_HIDDEN))
		r = reader->apply(reader, REPL_APPLY_EMPTY_HIDDEN, 0, all);
	if (!r && (flags & REPL_LOG_EMPTY_ACTIVE))
		r = reader->apply(reader, REPL_APPLY_EMPTY_ACTIVE, 0, all);
	if (!r && (flags & REPL_LOG_EMPTY_DIRTY))
		r = reader->apply(reader, REPL_APPLY_EMPTY_DIRTY, 0, all);
	for (i = 0; i < nr && !r; i++) {
		enum repl_extent_op op;
		u64 begin, end;

		if (!repl_extent_decode(log->extents[i], all, &begin, &end, &op))
			return -EUCLEAN;
		r = reader->apply(reader, what[op], begin, end);
	}
	return r;
}

/* The block is the next one, by all that it says of itself. Is it sane? */
static int replay_apply(struct replay *p, const struct repl_disk_log *log)
{
	struct repl_replayed *result = p->result;
	struct repl_meta_state state;

	p->why = "Metadata log says what cannot be";
	if (!repl_state_decode(&log->state, &state) ||
	    state.checkpoint < result->state.checkpoint ||
	    (le16_to_cpu(log->flags) & ~REPL_LOG_FLAGS) ||
	    le16_to_cpu(log->nr) > REPL_LOG_EXTENTS)
		return -EUCLEAN;
	/* A checkpoint empties: nothing of an epoch reaches another one. */
	if (state.checkpoint != result->state.checkpoint &&
	    (~le16_to_cpu(log->flags) & REPL_LOG_EMPTY_EPOCH))
		return -EUCLEAN;
	result->state = state;
	return replay_extents(p, log);
}

/*
 * Block @seq is not the next one. Is it the end, or has one been damaged that
 * others relied on? A block says which one its batch began with, and a batch
 * is not begun before the one before it was complete.
 */
static int replay_end(struct replay *p, u64 seq)
{
	const struct repl_meta *meta = p->meta;
	unsigned int i;

	for (i = 0; i <= REPL_LOG_BATCH; i++) {
		const struct repl_disk_log *log;
		u64 nr = repl_log_block(&meta->layout, seq + i);
		u64 its;

		log = replay_log_block(p, seq + i);
		if (!log || !repl_block_ok(log, REPL_MAGIC_LOG, meta->uuid, nr))
			continue;
		its = le64_to_cpu(log->seq);
		p->why = "Metadata superblock is older than its log";
		if (its > seq + i)
			return -EUCLEAN;
		p->why = "Metadata log has a damaged block";
		if (its == seq + i && le64_to_cpu(log->first) > seq)
			return -EUCLEAN;
	}
	return 0;
}

static int replay_log(struct replay *p)
{
	const struct repl_meta *meta = p->meta;
	struct repl_replayed *result = p->result;

	for (;;) {
		const struct repl_disk_log *log;
		u64 seq = result->next;
		int r;

		/* Full: changes may take all of it. There is room for no other. */
		if (result->blocks == meta->layout.log_blocks)
			return 0;
		/* Not read once more: it could be the next one after all. */
		p->why = "Cannot read the metadata log";
		log = replay_log_block(p, seq);
		if (!log)
			return -EIO;
		if (!repl_block_ok(log, REPL_MAGIC_LOG, meta->uuid,
				   repl_log_block(&meta->layout, seq)) ||
		    le64_to_cpu(log->seq) != seq ||
		    le64_to_cpu(log->prev) != result->link)
			return replay_end(p, seq);
		r = replay_apply(p, log);
		if (r)
			return r;
		result->next++;
		result->blocks++;
		result->link = le64_to_cpu(log->link);
	}
}

/**
 * repl_replay() - what the metadata says
 * @reader: how to read, and what to do
 * @meta: superblock
 * @buffer: REPL_REPLAY_BUFFER bytes
 * @result: where the log ends and the state there
 * @why: on failure, why
 *
 * Reads the bitmaps and the log, once. What it applies is good only if it
 * returns 0.
 *
 * Return: 0 or a negative errno.
 */
int repl_replay(struct repl_reader *reader, const struct repl_meta *meta,
		void *buffer, struct repl_replayed *result, const char **why)
{
	struct replay p = {
		.reader = reader, .meta = meta, .buffer = buffer,
		.summary = (u8 *)buffer + REPL_REPLAY_BLOCKS * REPL_BLOCK_SIZE,
		.result = result,
	};
	int r = 0;

	*result = (struct repl_replayed) {
		.state = meta->state, .next = meta->tail,
		.link = meta->tail_prev,
	};
	if (meta->area != REPL_NO_AREA)
		r = replay_area(&p);
	if (!r)
		r = replay_log(&p);
	*why = p.why;
	/* Behind the log: it may say of some of them that they are clean. */
	if (!r && meta->unrecorded)
		r = reader->apply(reader, REPL_APPLY_DIRTY, 0,
				  meta->layout.nr_regions);
	return r;
}
