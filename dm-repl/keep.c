// SPDX-License-Identifier: GPL-2.0-only
/* Keep: see the essay in keep.h. */

#include <linux/errno.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

#include "compat.h"
#include "keep.h"

#define DM_MSG_PREFIX "repl-primary"

/* kept.saved: the block is not what it should be, whatever is in the map. */
#define SAVED_UNKNOWN	U16_MAX

static const u8 *keep_uuid(const struct repl_keep *keep)
{
	return keep->store->log.meta.uuid;
}

static bool is_kept(const struct repl_dirty_map *map)
{
	return !map->reserved && map->kept.start && !map->kept.gone;
}

static void set_loading(struct repl_dirty *d)
{
	mutex_lock(&d->lock);
	d->loading = true;
	repl_dirty_set_keeper(d, NULL, NULL);
	mutex_unlock(&d->lock);
}

/**
 * repl_keep_init() - maps have a metadata device
 * @keep: keep
 * @dirty: maps
 * @store: metadata device, not open yet
 * @failed: bits could be lost; process context, with the locks of @dirty
 * @context: for @failed
 *
 * Context: constructor. Return: 0 or -ENOMEM.
 */
int repl_keep_init(struct repl_keep *keep, struct repl_dirty *dirty,
		   struct repl_store *store,
		   void (*failed)(void *context, int error), void *context)
{
	memset(keep, 0, sizeof(*keep));
	keep->dirty = dirty;
	keep->store = store;
	keep->failed = failed;
	keep->context = context;
	set_loading(dirty);
	keep->buffer = vmalloc((REPL_KEEP_BATCH + 1) * REPL_BLOCK_SIZE);
	return keep->buffer ? 0 : -ENOMEM;
}

/**
 * repl_keep_exit() - the counterpart
 * @keep: keep, may be zeroed
 *
 * Context: process; writes nothing.
 */
void repl_keep_exit(struct repl_keep *keep)
{
	kfree(keep->found);
	keep->found = NULL;
	vfree(keep->buffer);
	keep->buffer = NULL;
}

/*
 * ---- Blocks ----
 */

static int keep_read(struct repl_keep *keep, u64 block, unsigned int nr)
{
	return repl_store_io(keep->store, REQ_OP_READ | REQ_META, block, nr,
			     keep->buffer);
}

static int keep_flush(struct repl_keep *keep)
{
	return blkdev_issue_flush(keep->store->bdev);
}

static int keep_put_out(struct repl_keep *keep)
{
	unsigned int nr = keep->gathered;

	keep->gathered = 0;
	if (!nr)
		return 0;
	return repl_store_io(keep->store, REQ_OP_WRITE | REQ_META,
			     keep->gather_block, nr, keep->buffer);
}

static u64 block_bits(const struct repl_dirty_map *map, u64 index)
{
	return min_t(u64, map->now->nr - index * REPL_BITMAP_BITS,
		     REPL_BITMAP_BITS);
}

/* Block @index of @map behind what is gathered. Returns its count. */
static unsigned int keep_gather(struct repl_keep *keep,
				const struct repl_dirty_map *map, u64 index)
{
	struct repl_disk_bits *disk = (void *)(keep->buffer +
					       keep->gathered * REPL_BLOCK_SIZE);
	u64 begin = index * REPL_BITMAP_BITS, nr = block_bits(map, index);
	const struct repl_bits *frozen;
	unsigned int i, count = 0;

	memset(disk, 0, sizeof(*disk));
	repl_bits_bytes(READ_ONCE(map->now), begin, nr, disk->bits);
	smp_rmb();	/* pairs with dirty_freeze() */
	frozen = READ_ONCE(map->frozen);
	if (frozen)
		repl_bits_bytes(frozen, begin, nr, disk->bits);
	for (i = 0; i < REPL_BITMAP_BYTES; i++)
		count += hweight8(disk->bits[i]);
	if (count) {
		disk->index = cpu_to_le64(index);
		repl_block_seal(disk, REPL_MAGIC_KEPT_BITS, keep_uuid(keep),
				map->kept.start + index);
	}
	return count;
}

/* Has a region that is leaving a part in it? */
static bool block_leaves(const struct repl_keep *keep,
			 const struct repl_dirty_map *map, u64 index,
			 const struct repl_bits *leaving)
{
	unsigned int shift = keep->dirty->region_shift;
	u64 first = (index * REPL_BITMAP_BITS) << map->shift;
	u64 last = ((index * REPL_BITMAP_BITS + block_bits(map, index)) <<
		    map->shift) - 1;

	last = min_t(u64, last, keep->dirty->sectors - 1);
	return repl_bits_any(leaving, first >> shift, (last >> shift) + 1);
}

/*
 * Those of @map that are not what they should be. What could not be written is
 * forgotten by the caller. With keep_lock.
 */
static int keep_save_map(struct repl_keep *keep, struct repl_dirty_map *map,
			 const struct repl_bits *leaving, bool *wrote)
{
	struct repl_kept *kept = &map->kept;
	u64 index = 0, first = 0;
	int r = 0;

	for (;; index++) {
		unsigned int count;

		index = repl_bits_next(&kept->touched, index);
		if (keep->gathered && (index >= kept->blocks ||
				       index != first + keep->gathered ||
				       keep->gathered == REPL_KEEP_BATCH)) {
			r = keep_put_out(keep);
			*wrote = true;
		}
		if (r || index >= kept->blocks)
			return r;
		cond_resched();
		if (leaving && !block_leaves(keep, map, index, leaving))
			continue;
		/* [B], a full barrier, pairs with [A] in dirty_touch() */
		repl_bits_clear(&kept->touched, index, index + 1);
		count = keep_gather(keep, map, index);
		if (count == kept->saved[index])
			continue;
		kept->saved[index] = count;
		if (!keep->gathered++) {
			first = index;
			keep->gather_block = kept->start + index;
		}
	}
}

static void touch_all(struct repl_dirty_map *map)
{
	repl_bits_set(&map->kept.touched, 0, map->kept.blocks);
}

/*
 * ---- The directory ----
 */

static void dir_put(struct repl_disk_kept_dir *dir,
		    const struct repl_dirty_map *map)
{
	unsigned int nr = le32_to_cpu(dir->nr);
	struct repl_disk_kept *disk = &dir->map[nr];

	memcpy(disk->name, map->name, sizeof(disk->name));
	disk->shift = map->shift;
	disk->flags = map->kept.enabled ? REPL_KEPT_ENABLED : 0;
	disk->start = cpu_to_le64(map->kept.start);
	disk->blocks = cpu_to_le64(map->kept.blocks);
	dir->nr = cpu_to_le32(nr + 1);
}

static struct repl_disk_kept_dir *dir_of(struct repl_keep *keep)
{
	return (void *)(keep->buffer + REPL_KEEP_BATCH * REPL_BLOCK_SIZE);
}

static int dir_write_one(struct repl_keep *keep, u32 flags, u64 next)
{
	struct repl_disk_kept_dir *dir = dir_of(keep);
	u64 slot;
	int r;

	/* Never over the last one that is good. */
	keep->generation++;
	keep->generation += (keep->generation & 1) == (keep->good & 1);
	slot = keep->generation & 1;
	dir->generation = cpu_to_le64(keep->generation);
	dir->flags = cpu_to_le32(flags);
	dir->next = cpu_to_le64(next);
	repl_block_seal(dir, REPL_MAGIC_KEPT, keep_uuid(keep),
			keep->start + slot);
	r = repl_store_io(keep->store, REQ_OP_WRITE | REQ_FUA | REQ_SYNC |
			  REQ_META, keep->start + slot, 1, dir);
	if (!r)
		keep->good = keep->generation;
	return r;
}

/*
 * dir_of() is complete but for its head. The first one that is written counts. The
 * second is there for when that is damaged; one that says that all is exact has none:
 * then there is too much.
 */
static int dir_write(struct repl_keep *keep, u32 flags, u64 next)
{
	int r;

	keep->stale = true;
	/* What it speaks of is there. */
	r = keep_flush(keep);
	if (!r)
		r = dir_write_one(keep, flags, next);
	if (!r && ((flags & REPL_KEPT_CLEAN) ||
		   !dir_write_one(keep, flags, next)))
		keep->stale = false;
	return r;
}

/* As the maps are. With keep_lock. */
static int keep_write_dir(struct repl_keep *keep, u32 flags, u64 next)
{
	struct repl_disk_kept_dir *dir = dir_of(keep);
	struct repl_dirty_map *map;

	memset(dir, 0, sizeof(*dir));
	list_for_each_entry(map, &keep->dirty->maps, list)
		if (is_kept(map))
			dir_put(dir, map);
	return dir_write(keep, flags | (keep->all ? REPL_KEPT_ALL : 0), next);
}

static int keep_place_all(struct repl_keep *keep);

/* Any of it may not have been written, or be in a cache that could not be flushed. */
static void forget_saved(struct repl_dirty_map *map)
{
	if (!is_kept(map))
		return;
	memset(map->kept.saved, 0xff,
	       map->kept.blocks * sizeof(*map->kept.saved));
	touch_all(map);
}

/* All maps of what is @leaving, or all that there is. With keep_lock. */
static int keep_save(struct repl_keep *keep, const struct repl_bits *leaving)
{
	struct repl_dirty_map *map;
	bool wrote = false;
	int r = leaving ? 0 : keep_place_all(keep);

	list_for_each_entry(map, &keep->dirty->maps, list)
		if (!r && is_kept(map))
			r = keep_save_map(keep, map, leaving, &wrote);
	if (!r && wrote)
		r = keep_flush(keep);
	if (r && wrote)
		list_for_each_entry(map, &keep->dirty->maps, list)
			forget_saved(map);
	/* What is in the blocks now is enough. */
	if (!r && !leaving && keep->all) {
		keep->all = false;
		keep->stale = true;
	}
	if (!r && keep->stale)
		r = keep_write_dir(keep, 0, 0);
	return r;
}

/**
 * repl_keep_save() - before regions become clean
 * @keep: keep
 * @leaving: these; NULL: all that there are
 *
 * Context: process; waits for I/O, and for nothing else.
 * Return: 0: what the maps have of these regions is durable; or a negative errno.
 */
int repl_keep_save(struct repl_keep *keep, const struct repl_bits *leaving)
{
	int r = 0;

	mutex_lock(&keep->dirty->keep_lock);
	if (keep->has_room)
		r = keep_save(keep, leaving);
	mutex_unlock(&keep->dirty->keep_lock);
	return r;
}

/**
 * repl_keep_doubt() - what the directory says of the end does not hold, and the log does
 *	not show it
 * @keep: keep, loaded
 *
 * The next save takes it back. Context: process.
 */
void repl_keep_doubt(struct repl_keep *keep)
{
	mutex_lock(&keep->dirty->keep_lock);
	keep->stale = true;
	mutex_unlock(&keep->dirty->keep_lock);
}

static bool has_maps(const struct repl_keep *keep)
{
	const struct repl_dirty_map *map;

	list_for_each_entry(map, &keep->dirty->maps, list)
		if (is_kept(map))
			return true;
	return false;
}

/**
 * repl_keep_has_maps() - is there anything to be kept?
 * @keep: keep, loaded
 *
 * Context: process.
 */
bool repl_keep_has_maps(struct repl_keep *keep)
{
	bool has;

	mutex_lock(&keep->dirty->keep_lock);
	has = has_maps(keep);
	mutex_unlock(&keep->dirty->keep_lock);
	return has;
}

/**
 * repl_keep_leave() - an orderly end
 * @keep: keep; the device is suspended, and the log is written
 * @next: seq of its next block
 *
 * Context: process; waits for I/O. Where it fails, the maps are larger next time.
 */
void repl_keep_leave(struct repl_keep *keep, u64 next)
{
	mutex_lock(&keep->dirty->keep_lock);
	if (has_maps(keep) && !keep_save(keep, NULL))
		keep_write_dir(keep, REPL_KEPT_CLEAN, next);
	mutex_unlock(&keep->dirty->keep_lock);
}

/*
 * ---- Messages ----
 */

static bool place_is_free(const struct repl_keep *keep, u64 start, u64 blocks)
{
	const struct repl_dirty_map *map;

	if (start > keep->end || blocks > keep->end - start)
		return false;
	list_for_each_entry(map, &keep->dirty->maps, list)
		if (is_kept(map) &&
		    start < map->kept.start + map->kept.blocks &&
		    map->kept.start < start + blocks)
			return false;
	return true;
}

/* The first place that is large enough, behind the directories or behind a map. */
static u64 find_place(const struct repl_keep *keep, u64 blocks)
{
	const struct repl_dirty_map *map;
	u64 best = keep->start + 2;

	if (place_is_free(keep, best, blocks))
		return best;
	best = 0;
	list_for_each_entry(map, &keep->dirty->maps, list) {
		u64 start = map->kept.start + map->kept.blocks;

		if (is_kept(map) && (!best || start < best) &&
		    place_is_free(keep, start, blocks))
			best = start;
	}
	return best;
}

static int kept_alloc(struct repl_keep *keep, struct repl_dirty_map *map)
{
	struct repl_kept *kept = &map->kept;

	kept->blocks = repl_kept_blocks(keep->dirty->sectors, map->shift);
	kept->saved = kvcalloc(kept->blocks, sizeof(*kept->saved), GFP_KERNEL);
	kept->enabled = map->enabled;
	if (kept->saved && !repl_bits_init(&kept->touched, kept->blocks))
		return 0;
	repl_dirty_unkeep(map);
	return -ENOMEM;
}

/*
 * Zeroes in its blocks: nothing is set. From then on it has a place; none if there is no
 * room. With keep_lock.
 */
static int kept_place(struct repl_keep *keep, struct repl_dirty_map *map)
{
	u64 blocks = map->kept.blocks, i;
	u64 start = keep->has_room ? find_place(keep, blocks) : 0;
	unsigned int nr;
	int r = 0;

	if (!start && map->kept.no_room)
		return 0;
	if (!start) {
		map->kept.no_room = true;
		DMWARN("%s: no room for map %s on the metadata device: it is in memory only",
		       dm_device_name(keep->store->md), map->name);
		return 0;
	}
	memset(keep->buffer, 0, REPL_KEEP_BATCH * REPL_BLOCK_SIZE);
	for (i = 0; i < blocks && !r; i += nr) {
		nr = min_t(u64, blocks - i, REPL_KEEP_BATCH);
		r = repl_store_io(keep->store, REQ_OP_WRITE | REQ_META,
				  start + i, nr, keep->buffer);
		cond_resched();
	}
	if (r)
		return r;
	memset(map->kept.saved, 0, blocks * sizeof(*map->kept.saved));
	/* What it has been marked with since it is in the list. */
	touch_all(map);
	map->kept.start = start;
	keep->stale = true;
	return 0;
}

/* Those that have none, but for want of room. With keep_lock. */
static int keep_place_all(struct repl_keep *keep)
{
	struct repl_dirty_map *map;
	int r = 0;

	list_for_each_entry(map, &keep->dirty->maps, list)
		if (!r && !map->reserved && map->kept.saved &&
		    !map->kept.gone && !is_kept(map))
			r = kept_place(keep, map);
	return r;
}

/* replctl's own are of no use after its daemon. */
static bool is_passing(const struct repl_dirty_map *map)
{
	return !strncmp(map->name, "replctl.", 8);
}

static int keep_alloc(void *context, struct repl_dirty_map *map)
{
	return is_passing(map) ? 0 : kept_alloc(context, map);
}

/*
 * The directory could not be written, but it may be there all the same: one that
 * says what is, is the last then. If not even that can be written, the next save
 * tries again.
 */
static void dir_refused(struct repl_keep *keep)
{
	keep_write_dir(keep, 0, 0);
}

static int keep_add(void *context, struct repl_dirty_map *map)
{
	struct repl_keep *keep = context;
	int r = 0;

	if (!map->kept.saved)
		return 0;
	mutex_lock(&keep->dirty->keep_lock);
	if (!is_kept(map))
		r = kept_place(keep, map);
	if (!r && is_kept(map))
		r = keep_write_dir(keep, 0, 0);
	if (r) {
		map->kept.gone = true;
		dir_refused(keep);
	}
	mutex_unlock(&keep->dirty->keep_lock);
	return r;
}

static int keep_remove(void *context, struct repl_dirty_map *map)
{
	struct repl_keep *keep = context;
	bool was_kept;
	int r = 0;

	mutex_lock(&keep->dirty->keep_lock);
	was_kept = is_kept(map);
	map->kept.gone = true;
	if (was_kept)
		r = keep_write_dir(keep, 0, 0);
	if (r) {
		map->kept.gone = false;
		dir_refused(keep);
		/* Or it is taken out all the same. */
		keep->stale = true;
	}
	mutex_unlock(&keep->dirty->keep_lock);
	return r;
}

static int keep_enable(void *context, struct repl_dirty_map *map, bool enabled)
{
	struct repl_keep *keep = context;
	bool was;
	int r = 0;

	mutex_lock(&keep->dirty->keep_lock);
	was = map->kept.enabled;
	map->kept.enabled = enabled;
	if (is_kept(map) && (was != enabled || keep->stale))
		r = keep_write_dir(keep, 0, 0);
	if (r) {
		map->kept.enabled = was;
		dir_refused(keep);
	}
	mutex_unlock(&keep->dirty->keep_lock);
	return r;
}

static int keep_grown(void *context, struct repl_dirty_map *map)
{
	struct repl_keep *keep = context;
	int r = 0;

	mutex_lock(&keep->dirty->keep_lock);
	if (keep->has_room && map->kept.saved) {
		touch_all(map);
		r = keep_save(keep, NULL);
	}
	mutex_unlock(&keep->dirty->keep_lock);
	if (r)
		keep->failed(keep->context, r);
	return r;
}

/*
 * The count of a block may be what it was, with other bits: nobody may look before it is
 * known that it is another one.
 */
static void keep_shrinks(void *context, struct repl_dirty_map *map)
{
	u64 i;

	for (i = 0; is_kept(map) && i < map->kept.blocks; i++)
		if (map->kept.saved[i])
			map->kept.saved[i] = SAVED_UNKNOWN;
	if (is_kept(map))
		touch_all(map);
}

/* Where that fails, there is too much on the device, or it is not clean there. */
static void keep_shrunk(void *context, struct repl_dirty_map *map)
{
	struct repl_keep *keep = context;

	mutex_lock(&keep->dirty->keep_lock);
	keep_shrinks(keep, map);
	if (is_kept(map))
		keep_save(keep, NULL);
	mutex_unlock(&keep->dirty->keep_lock);
}

static const struct repl_dirty_keeper keep_keeper = {
	.alloc = keep_alloc, .add = keep_add, .remove = keep_remove,
	.enable = keep_enable, .grown = keep_grown,
	.shrinks = keep_shrinks, .shrunk = keep_shrunk,
};

/*
 * ---- Loading ----
 */

/* Both, one after the other: in the place of one that cannot be read there is none. */
static int read_dirs(struct repl_keep *keep, bool *unread)
{
	unsigned int i, bad = 0;
	int r = 0;

	if (keep_read(keep, keep->start, 2))
		for (i = 0; i < 2; i++) {
			u8 *block = keep->buffer + i * REPL_BLOCK_SIZE;
			int error = repl_store_io(keep->store, REQ_OP_READ |
						  REQ_META, keep->start + i, 1,
						  block);

			if (!error)
				continue;
			memset(block, 0, REPL_BLOCK_SIZE);
			r = error;
			bad++;
		}
	*unread = bad;
	return bad == 2 ? r : 0;
}

/**
 * repl_keep_begin() - what is on the device, and is it to be trusted?
 * @keep: keep; its store has been read
 * @is_ours: nobody else has used the store since, and it has been recorded what was written
 * @next: seq of the next block of its log
 * @why: on failure, why
 *
 * To be called before anything is written there: if it is not to be trusted, that must
 * not be forgotten.
 *
 * Context: ->preresume. Return: 0 or a negative errno.
 */
int repl_keep_begin(struct repl_keep *keep, bool is_ours, u64 next,
		    const char **why)
{
	const struct repl_meta *meta = &keep->store->log.meta;
	const struct repl_disk_kept_dir *dir;
	bool unread;
	u32 flags;
	int r;

	set_loading(keep->dirty);
	kfree(keep->found);
	keep->found = NULL;
	keep->start = meta->layout.blocks;
	keep->end = bdev_nr_sectors(keep->store->bdev) / REPL_BLOCK_SECTORS;
	keep->has_room = keep->end > keep->start + 2;
	keep->generation = 0;
	keep->good = 0;
	keep->trust = REPL_KEEP_NOT;
	keep->all = false;
	keep->stale = false;
	if (!keep->has_room)
		return 0;

	*why = "Cannot read the directory of the dirty maps";
	r = read_dirs(keep, &unread);
	if (r)
		return r;
	dir = repl_kept_choose((void *)keep->buffer, meta, keep->end);
	if (!dir)
		return unread ? -EIO : 0;
	*why = "Cannot allocate the directory of the dirty maps";
	keep->found = kmemdup(dir, sizeof(*dir), GFP_NOIO);
	if (!keep->found)
		return -ENOMEM;
	keep->generation = le64_to_cpu(dir->generation);
	keep->good = keep->generation;
	flags = le32_to_cpu(dir->flags);
	if (!is_ours || (flags & REPL_KEPT_ALL))
		keep->trust = REPL_KEEP_NOT;
	else if ((flags & REPL_KEPT_CLEAN) && le64_to_cpu(dir->next) == next)
		keep->trust = REPL_KEEP_EXACT;
	else
		keep->trust = REPL_KEEP_UNITED;
	keep->all = dir->nr && keep->trust == REPL_KEEP_NOT;
	if (!keep->all)
		return 0;
	*why = "Cannot write the directory of the dirty maps";
	memcpy(dir_of(keep), keep->found, sizeof(*dir));
	return dir_write(keep, REPL_KEPT_ALL, 0);
}

/* The bits of @disk that are set, in runs. */
static void load_bits(struct repl_dirty_map *map, u64 index,
		      const struct repl_disk_bits *disk)
{
	u64 base = index * REPL_BITMAP_BITS;
	unsigned int nr = block_bits(map, index), bit = 0, begin;

	while (bit < nr) {
		if (!(bit & 7) && !disk->bits[bit >> 3]) {
			bit += 8;
			continue;
		}
		begin = bit;
		while (bit < nr && disk->bits[bit >> 3] >> (bit & 7) & 1)
			bit++;
		if (bit == begin)
			bit++;
		else
			map->kept.saved[index] +=
				repl_bits_set(map->now, base + begin, base + bit);
	}
}

/* Block @index of @map, at @data, or NULL if it could not be read. */
static void load_block(struct repl_keep *keep, struct repl_dirty_map *map,
		       u64 index, const void *data)
{
	u64 begin = index * REPL_BITMAP_BITS, nr = block_bits(map, index);
	int r = data ? repl_kept_bits_ok(data, keep_uuid(keep),
					 map->kept.start + index, index, nr) :
		       -EIO;

	if (r > 0)
		load_bits(map, index, data);
	if (r >= 0)
		return;
	repl_bits_set(map->now, begin, begin + nr);
	map->kept.saved[index] = SAVED_UNKNOWN;
	repl_bits_set(&map->kept.touched, index, index + 1);
}

static void load_blocks(struct repl_keep *keep, struct repl_dirty_map *map)
{
	u64 start = map->kept.start, index;
	unsigned int nr, i;

	for (index = 0; index < map->kept.blocks; index += nr) {
		bool good;

		nr = min_t(u64, map->kept.blocks - index, REPL_KEEP_BATCH);
		good = !keep_read(keep, start + index, nr);
		/* One of them may be bad. */
		for (i = 0; i < nr; i++) {
			u8 *block = keep->buffer + (good ? i * REPL_BLOCK_SIZE : 0);

			if (!good && keep_read(keep, start + index + i, 1))
				block = NULL;
			load_block(keep, map, index + i, block);
			cond_resched();
		}
	}
}

static struct repl_dirty_map *map_called(struct repl_keep *keep, const u8 *name)
{
	struct repl_dirty_map *map;

	list_for_each_entry(map, &keep->dirty->maps, list)
		if (!strcmp(map->name, (const char *)name))
			return map;
	return NULL;
}

static int load_map(struct repl_keep *keep, const struct repl_disk_kept *disk,
		    const struct repl_bits *dirty)
{
	struct repl_dirty *d = keep->dirty;
	bool enabled = disk->flags & REPL_KEPT_ENABLED;
	struct repl_dirty_map *map;

	map = repl_dirty_new(d, (const char *)disk->name, disk->shift);
	if (!map)
		return -ENOMEM;
	if (kept_alloc(keep, map)) {
		repl_dirty_free(map);
		return -ENOMEM;
	}
	map->kept.start = le64_to_cpu(disk->start);
	map->kept.enabled = enabled;
	map->enabled = enabled;
	if (keep->trust != REPL_KEEP_NOT)
		load_blocks(keep, map);
	else
		repl_bits_set(map->now, 0, map->now->nr);
	if (keep->trust == REPL_KEEP_UNITED)
		repl_dirty_unite(d, map, dirty);
	repl_dirty_insert(d, map);
	if (keep->trust == REPL_KEEP_NOT)
		forget_saved(map);
	else if (keep->trust == REPL_KEEP_UNITED)
		touch_all(map);
	return 0;
}

/* The map of a table before has this place, whatever is in it; or none. */
static void claim_place(struct repl_keep *keep, struct repl_dirty_map *map,
			const struct repl_disk_kept *disk)
{
	if (map->reserved || !map->kept.saved || is_kept(map) ||
	    map->shift != disk->shift)
		return;
	map->kept.start = le64_to_cpu(disk->start);
	forget_saved(map);
}

/* Those that are there by the directory, and not in memory. */
static int load_found(struct repl_keep *keep, const struct repl_bits *dirty)
{
	unsigned int i;
	int r = 0;

	for (i = 0; keep->found && i < le32_to_cpu(keep->found->nr) && !r; i++) {
		const struct repl_disk_kept *disk = &keep->found->map[i];
		struct repl_dirty_map *map = map_called(keep, disk->name);

		if (map)
			claim_place(keep, map, disk);
		else if (keep->dirty->nr_maps < REPL_DIRTY_MAPS)
			r = load_map(keep, disk, dirty);
	}
	return r;
}

/* Is what is known of its blocks of this device, and does the directory say so? */
static bool is_found(const struct repl_keep *keep,
		     const struct repl_dirty_map *map)
{
	unsigned int i;

	for (i = 0; keep->found && i < le32_to_cpu(keep->found->nr); i++) {
		const struct repl_disk_kept *disk = &keep->found->map[i];

		if (!strcmp(map->name, (const char *)disk->name))
			return map->shift == disk->shift &&
			       map->kept.start == le64_to_cpu(disk->start) &&
			       map->kept.blocks == le64_to_cpu(disk->blocks);
	}
	return false;
}

/* Those of a table before, if it had another device, or none, know nothing of this one. */
static int keep_prepare(struct repl_keep *keep, bool same)
{
	struct repl_dirty_map *map;
	int r = 0;

	list_for_each_entry(map, &keep->dirty->maps, list) {
		if (map->reserved || (same && is_found(keep, map)))
			continue;
		repl_dirty_unkeep(map);
		if (!r && !is_passing(map))
			r = kept_alloc(keep, map);
	}
	return r;
}

/**
 * repl_keep_load() - the maps are there
 * @keep: keep, begun; its maps are those of a table before, if there was one
 * @dirty: regions that are dirty by the log
 * @same: that had the same metadata device
 * @why: on failure, why
 *
 * Context: ->preresume. Return: 0 or a negative errno; what cannot be written is no
 * failure, but for ->failed.
 */
int repl_keep_load(struct repl_keep *keep, const struct repl_bits *dirty,
		   bool same, const char **why)
{
	struct repl_dirty *d = keep->dirty;
	unsigned int noio = memalloc_noio_save();
	int r, error = 0;

	*why = "Cannot load the dirty maps";
	mutex_lock(&d->lock);
	mutex_lock(&d->keep_lock);
	r = keep_prepare(keep, same);
	if (!r && !same)
		r = load_found(keep, dirty);
	if (!r && keep->has_room) {
		/* Without those that are not here any more. */
		keep->stale |= keep->found || d->nr_maps;
		error = keep_save(keep, NULL);
	}
	if (!r) {
		repl_dirty_set_keeper(d, &keep_keeper, keep);
		d->loading = false;
		kfree(keep->found);
		keep->found = NULL;
	}
	mutex_unlock(&d->keep_lock);
	mutex_unlock(&d->lock);
	memalloc_noio_restore(noio);
	if (error)
		keep->failed(keep->context, error);
	return r;
}
