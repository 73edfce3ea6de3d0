// SPDX-License-Identifier: GPL-2.0-only
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"

#define MAX_FINDINGS 100

/*
 * ---- Findings ----
 */

static void found(struct image *image, enum image_level level, const char *fmt, ...)
	printf_like(3, 4);
static void found(struct image *image, enum image_level level, const char *fmt, ...)
{
	struct image_finding *finding = &image->findings[image->nr_findings];
	va_list args;

	image->levels[level]++;
	/* They are counted. Some places are kept for errors. */
	if (image->nr_findings >= (level == IMAGE_ERROR ? MAX_FINDINGS : MAX_FINDINGS / 2))
		return;
	va_start(args, fmt);
	if (vasprintf(&finding->text, fmt, args) < 0)
		finding->text = NULL;
	else
		image->nr_findings++;
	va_end(args);
	finding->level = level;
}

static bool all_zero(const void *data, size_t size)
{
	const uint8_t *bytes = data;

	return !size || (!bytes[0] && !memcmp(bytes, bytes + 1, size - 1));
}

/*
 * ---- Reading ----
 */

/* Block @nr by way of the buffer, with what follows below @end; NULL: unreadable. */
static const void *block_at(struct image *image, uint64_t nr, uint64_t end)
{
	struct image_source *source = image->source;
	unsigned int most = end - nr < REPL_REPLAY_BLOCKS ? end - nr : REPL_REPLAY_BLOCKS;

	if (nr >= image->buffered && nr - image->buffered < image->nr_buffered)
		return image->buffer + (nr - image->buffered) * REPL_BLOCK_SIZE;
	image->buffered = nr;
	image->nr_buffered = most;
	if (!source->read(source, nr, most, image->buffer))
		return image->buffer;
	image->nr_buffered = 1;
	if (!source->read(source, nr, 1, image->buffer))
		return image->buffer;
	image->nr_buffered = 0;
	return NULL;
}

struct replayer {
	struct repl_reader reader;
	struct image *image;
};

static struct image *replayer_image(struct repl_reader *reader)
{
	return ((struct replayer *)reader)->image;
}

static int replayer_read(struct repl_reader *reader, u64 block, unsigned int nr, void *data)
{
	struct image_source *source = replayer_image(reader)->source;

	return source->read(source, block, nr, data);
}

static int regions_add(struct regions *to, const struct regions *from)
{
	uint64_t begin = 0, end;
	int r = 0;

	for (; !r && regions_next(from, &begin, &end); begin = end)
		r = regions_change(to, begin, end, true);
	return r;
}

static int replayer_apply(struct repl_reader *reader, enum repl_apply what, u64 begin,
			  u64 end)
{
	struct image *image = replayer_image(reader);
	int r = 0;

	switch (what) {
	case REPL_APPLY_HIDDEN:
		r = regions_change(&image->hidden, begin, end, true);
		break;
	case REPL_APPLY_ACTIVE:
		r = regions_change(&image->active, begin, end, true);
		break;
	case REPL_APPLY_MERGED:
		r = regions_change(&image->hidden, begin, end, false);
		if (!r)
			r = regions_change(&image->active, begin, end, false);
		break;
	case REPL_APPLY_DIRTY:
	case REPL_APPLY_CLEAN:
		r = regions_change(&image->dirty, begin, end, what == REPL_APPLY_DIRTY);
		break;
	case REPL_APPLY_EMPTY_HIDDEN:
		regions_empty(&image->hidden);
		break;
	case REPL_APPLY_EMPTY_ACTIVE:
		regions_empty(&image->active);
		break;
	case REPL_APPLY_EMPTY_DIRTY:
		regions_empty(&image->dirty);
		break;
	case REPL_APPLY_DIRTY_ADD:
		r = regions_add(&image->dirty, &image->hidden);
		if (!r)
			r = regions_add(&image->dirty, &image->active);
		break;
	}
	return r;
}

/*
 * ---- Superblocks ----
 */

/* Why it was not taken, closer than repl_super_decode() says. */
static const char *super_detail(const struct repl_disk_super *block, uint64_t nr)
{
	if (le32toh(block->head.magic) != REPL_MAGIC_SUPER)
		return "is not a superblock of dm-repl";
	if (le64toh(block->head.block) != nr)
		return "is the other one's, or was damaged";
	if (!repl_block_ok(block, REPL_MAGIC_SUPER, block->head.uuid, nr))
		return "is damaged: its checksum is wrong";
	return "has a good checksum, but says what cannot be";
}

static void super_reserved(struct image *image, const struct repl_disk_super *block,
			   unsigned int nr)
{
	if (block->compatible)
		found(image, IMAGE_NOTE,
		      "superblock %u has features of a newer version that may be ignored (%#x)",
		      nr, le32toh(block->compatible));
	else if (!all_zero(block->reserved, sizeof(block->reserved)) ||
		 block->state.kept > 1)
		found(image, IMAGE_WARNING, "superblock %u has something in its reserved bytes",
		      nr);
}

static void super_read(struct image *image, unsigned int nr)
{
	struct image_super *super = &image->super[nr];
	struct repl_disk_super *block = (void *)image->buffer;

	image->nr_buffered = 0;
	if (image->source->blocks <= nr || image->source->read(image->source, nr, 1, block)) {
		super->status = -EIO;
		super->why = "cannot be read";
		return;
	}
	super->status = repl_super_decode(block, nr, &super->meta, &super->why);
	super->version = le32toh(block->version);
	super->compatible = le32toh(block->compatible);
	super->incompatible = le32toh(block->incompatible);
	if (super->status == -EUCLEAN)
		super->why = super_detail(block, nr);
	else if (super->status == -EPROTO)
		super->why = "is of a newer version";
	else if (super->status == -ENODATA)
		super->why = "is blank";
	else
		super_reserved(image, block, nr);
}

static bool same_layout(const struct repl_meta *a, const struct repl_meta *b)
{
	return a->layout.sectors == b->layout.sectors &&
	       a->layout.region_size == b->layout.region_size &&
	       a->layout.blocks == b->layout.blocks && a->created == b->created;
}

/* Both are good; the module looks only at the newer one. */
static void supers_compare(struct image *image)
{
	const struct repl_meta *new = &image->super[image->current].meta;
	const struct repl_meta *old = &image->super[!image->current].meta;

	if (new->generation != old->generation + 1)
		found(image, IMAGE_WARNING,
		      "the superblocks' generations are %" PRIu64 " and %" PRIu64
		      ", and should follow one on the other",
		      old->generation, new->generation);
	if (!same_layout(new, old))
		found(image, IMAGE_WARNING, "the superblocks are of different sizes or ages");
	if (new->tail < old->tail || new->state.checkpoint < old->state.checkpoint)
		found(image, IMAGE_WARNING,
		      "the newer superblock is behind the older one: log from %" PRIu64
		      " and %" PRIu64 ", checkpoint %" PRIu64 " and %" PRIu64,
		      new->tail, old->tail, new->state.checkpoint, old->state.checkpoint);
}

static void supers_check(struct image *image)
{
	const struct repl_meta *meta = &image->meta;
	unsigned int other = !image->current;

	if (image->super[other].status == -ENODATA && other == 0 && meta->generation == 1)
		found(image, IMAGE_WARNING,
		      "superblock 0 is blank: its making was cut off; it counts all the same");
	else if (image->super[other].status)
		found(image, IMAGE_WARNING,
		      "superblock %u %s; the other one counts. If not a power cut while it was written has left it so, what it said is lost",
		      other, image->super[other].why);
	else
		supers_compare(image);
	if (meta->unrecorded)
		found(image, IMAGE_NOTE,
		      "superblock %u says that writes were not recorded: all regions are dirty",
		      image->current);
	if (meta->area != REPL_NO_AREA && meta->area_generation > meta->generation)
		found(image, IMAGE_WARNING,
		      "the bitmaps are of generation %" PRIu64 ", newer than the superblock's %"
		      PRIu64, meta->area_generation, meta->generation);
	if (meta->layout.region_size < 8 || meta->layout.region_size > 8192)
		found(image, IMAGE_WARNING,
		      "regions have %" PRIu64 " bytes: no device can be made with that",
		      (uint64_t)meta->layout.region_size * 512);
}

/*
 * ---- Bitmaps ----
 */

/* The first bit from @bit on that is set; REPL_BITMAP_BITS if there is none. */
static uint64_t next_bit(const uint8_t *bits, uint64_t bit)
{
	while (bit < REPL_BITMAP_BITS && !(bits[bit >> 3] >> (bit & 7) & 1))
		bit += bits[bit >> 3] ? 1 : 8 - (bit & 7);
	return bit;
}

/* A block of the current area; NULL if it is not good. */
static const struct repl_disk_bits *area_block(struct image *image, uint64_t index,
					       bool summary)
{
	const struct repl_layout *layout = &image->meta.layout;
	uint64_t start = layout->area_start[image->meta.area];
	const struct repl_disk_bits *block =
		block_at(image, start + index, start + layout->area_blocks);
	const char *what = summary ? "summary" : "bitmap", *why = NULL;

	if (!block)
		why = "cannot be read";
	else if (!repl_block_ok(block, summary ? REPL_MAGIC_SUMMARY : REPL_MAGIC_BITMAP,
				image->meta.uuid, start + index))
		why = "is damaged";
	else if (le64toh(block->generation) != image->meta.area_generation)
		why = "is of another generation than the superblock says";
	else if (le64toh(block->index) != index)
		why = "is another one's";
	if (!why) {
		if (!all_zero(block->reserved, sizeof(block->reserved)))
			found(image, IMAGE_WARNING,
			      "block %" PRIu64 ", a %s block, has something in its reserved bytes",
			      start + index, what);
		return block;
	}
	found(image, IMAGE_ERROR, "block %" PRIu64 ", %s block %" PRIu64 " of area %u, %s",
	      start + index, what, index, image->meta.area, why);
	image->area_bad = true;
	return NULL;
}

static void bitmap_check(struct image *image, uint64_t nr)
{
	const struct repl_layout *layout = &image->meta.layout;
	uint64_t in_map = nr % layout->map_blocks;
	const struct repl_disk_bits *block =
		area_block(image, layout->summary_blocks + nr, false);
	uint64_t left = layout->nr_regions - in_map * REPL_BITMAP_BITS;

	if (!block)
		return;
	image->bitmap_blocks++;
	if (all_zero(block->bits, sizeof(block->bits)))
		found(image, IMAGE_WARNING,
		      "bitmap block %" PRIu64 " has no region, and should not be there", nr);
	if (left >= REPL_BITMAP_BITS)
		return;
	left = next_bit(block->bits, left);
	if (left == REPL_BITMAP_BITS)
		return;
	found(image, IMAGE_ERROR, "bitmap block %" PRIu64 " has region %" PRIu64 " of only %" PRIu64,
	      nr, in_map * REPL_BITMAP_BITS + left, layout->nr_regions);
	image->area_bad = true;
}

static void area_check(struct image *image)
{
	const struct repl_layout *layout = &image->meta.layout;
	uint8_t summary[REPL_BITMAP_BYTES];
	uint64_t index;

	for (index = 0; index < layout->summary_blocks; index++) {
		const struct repl_disk_bits *block = area_block(image, index, true);
		uint64_t base = index * REPL_BITMAP_BITS, i;

		if (!block)
			continue;
		memcpy(summary, block->bits, sizeof(summary));
		for (i = next_bit(summary, 0); i < REPL_BITMAP_BITS;
		     i = next_bit(summary, i + 1)) {
			if (base + i < REPL_NR_DISK_MAPS * layout->map_blocks) {
				bitmap_check(image, base + i);
				continue;
			}
			found(image, IMAGE_WARNING,
			      "summary block %" PRIu64 " has bits behind its end", index);
			break;
		}
	}
}

/*
 * ---- Log ----
 */

static enum image_slot slot_of_bad(const struct repl_disk_log *log,
				   const struct image *image, uint64_t nr)
{
	if (le32toh(log->head.magic) != REPL_MAGIC_LOG)
		return IMAGE_FOREIGN;
	if (!memcmp(log->head.uuid, image->meta.uuid, REPL_UUID_SIZE))
		return IMAGE_DAMAGED;
	return repl_block_ok(log, REPL_MAGIC_LOG, log->head.uuid, nr) ? IMAGE_OTHERS :
									IMAGE_FOREIGN;
}

enum image_slot image_slot(struct image *image, uint64_t index,
			   const struct repl_disk_log **log)
{
	const struct repl_layout *layout = &image->meta.layout;
	uint64_t nr = layout->log_start + index;
	uint64_t next = image->end.next, seq;

	*log = block_at(image, nr, layout->log_start + layout->log_blocks);
	if (!*log)
		return IMAGE_UNREADABLE;
	if (all_zero(*log, REPL_BLOCK_SIZE))
		return IMAGE_BLANK;
	if (!repl_block_ok(*log, REPL_MAGIC_LOG, image->meta.uuid, nr))
		return slot_of_bad(*log, image, nr);
	seq = le64toh((*log)->seq);
	if (repl_log_block(layout, seq) != nr)
		return IMAGE_MISPLACED;
	if (seq < image->meta.tail)
		return IMAGE_OLD;
	if (seq < next)
		return IMAGE_LIVE;
	if (seq == next && le64toh((*log)->prev) == image->end.link)
		return IMAGE_REFUSED;
	return le64toh((*log)->first) > next || seq - next >= REPL_LOG_BATCH ? IMAGE_ORPHAN :
									       IMAGE_STALE;
}

/* What is wrong with the block that replay has refused? */
static void refused_check(struct image *image, const struct repl_disk_log *log)
{
	uint64_t seq = le64toh(log->seq), begin, end;
	unsigned int nr = le16toh(log->nr), i;
	unsigned int flags = le16toh(log->flags);
	struct repl_meta_state state;
	enum repl_extent_op op;

	if (!repl_state_decode(&log->state, &state))
		found(image, IMAGE_ERROR,
		      "log block %" PRIu64 " has a state that cannot be: role %u, stage %u, flags %#x, checkpoint %"
		      PRIu64 ", prepared %" PRIu64, seq, log->state.role, log->state.stage,
		      log->state.flags, state.checkpoint, state.prepared);
	else if (state.checkpoint < image->end.state.checkpoint)
		found(image, IMAGE_ERROR,
		      "log block %" PRIu64 " goes back to checkpoint %" PRIu64 " from %" PRIu64,
		      seq, state.checkpoint, image->end.state.checkpoint);
	else if (state.checkpoint != image->end.state.checkpoint &&
		 (~flags & REPL_LOG_EMPTY_EPOCH))
		found(image, IMAGE_ERROR,
		      "log block %" PRIu64 " begins checkpoint %" PRIu64 " without emptying the maps",
		      seq, state.checkpoint);
	if (flags & ~REPL_LOG_FLAGS)
		found(image, IMAGE_ERROR, "log block %" PRIu64 " has unknown flags %#x", seq,
		      flags);
	if (nr > REPL_LOG_EXTENTS) {
		found(image, IMAGE_ERROR, "log block %" PRIu64 " has %u extents, more than fit",
		      seq, nr);
		nr = 0;
	}
	for (i = 0; i < nr; i++) {
		if (repl_extent_decode(log->extents[i], image->meta.layout.nr_regions, &begin,
				       &end, &op))
			continue;
		found(image, IMAGE_ERROR,
		      "log block %" PRIu64 ", extent %u: regions %" PRIu64 " to %" PRIu64
		      " of %" PRIu64 ", operation %u: there is no such thing",
		      seq, i, begin, end - 1, image->meta.layout.nr_regions, op);
		return;
	}
}

/* Things that replay does not look at, since nothing depends on them. */
static void live_check(struct image *image, const struct repl_disk_log *log, uint64_t first)
{
	uint64_t seq = le64toh(log->seq), its = le64toh(log->first);

	if (its > seq || seq - its >= REPL_LOG_BATCH || (first && its != seq && its != first))
		found(image, IMAGE_WARNING,
		      "log block %" PRIu64 " says that it was written with block %" PRIu64
		      ", which cannot be", seq, its);
	if (log->reserved || log->state.kept > 1)
		found(image, IMAGE_WARNING,
		      "log block %" PRIu64 " has something in its reserved bytes", seq);
}

/*
 * A slot that is not what it should be. The log's end is where a power cut, or an
 * error, may have left parts of one batch. Elsewhere each slot has the block that
 * was written there last, if the log has been there before.
 */
static void slot_check(struct image *image, uint64_t index, enum image_slot slot,
		       const struct repl_disk_log *log)
{
	static const char *const is[IMAGE_NR_SLOTS] = {
		[IMAGE_BLANK] = "is blank",
		[IMAGE_DAMAGED] = "is damaged",
		[IMAGE_OTHERS] = "is of another metadata device",
		[IMAGE_FOREIGN] = "is something else",
		[IMAGE_UNREADABLE] = "cannot be read",
	};
	const struct repl_layout *layout = &image->meta.layout;
	uint64_t next = image->end.next, nr = layout->log_start + index, end, ahead, seq;

	end = repl_log_block(layout, next) - layout->log_start;
	ahead = index >= end ? index - end : index + layout->log_blocks - end;
	/* The block that is, or was, there, and is before the end. */
	seq = next + ahead > layout->log_blocks ? next + ahead - layout->log_blocks : 0;

	if (slot == IMAGE_UNREADABLE && !ahead)
		found(image, IMAGE_ERROR,
		      "block %" PRIu64 ", where log block %" PRIu64
		      " is or would be, cannot be read", nr, next);
	else if (slot == IMAGE_MISPLACED)
		found(image, IMAGE_WARNING,
		      "block %" PRIu64 " has log block %" PRIu64 ", which does not belong there",
		      nr, (uint64_t)le64toh(log->seq));
	else if (slot == IMAGE_UNREADABLE || (is[slot] && seq && ahead >= REPL_LOG_BATCH))
		found(image, IMAGE_WARNING,
		      "block %" PRIu64 ", of the part of the log that is not in use, %s", nr,
		      is[slot]);
	else if (slot == IMAGE_DAMAGED && image->log_bad)
		found(image, IMAGE_ERROR,
		      "block %" PRIu64 ", where log block %" PRIu64 " would be, is damaged",
		      nr, next + ahead);
	else if (slot == IMAGE_DAMAGED)
		found(image, IMAGE_NOTE,
		      "block %" PRIu64 ", where log block %" PRIu64
		      " would be, is damaged: the last batch was not completed, as in a power cut",
		      nr, next + ahead);
}

/* Blocks that say that others were before them: from @first, up to @last. */
static void orphans_check(struct image *image, uint64_t first, uint64_t last)
{
	enum image_level level = image->log_bad ? IMAGE_ERROR : IMAGE_WARNING;
	uint64_t next = image->end.next;

	if (last - next >= image->meta.layout.log_blocks)
		found(image, level,
		      "the log goes up to block %" PRIu64 ", which lies where %" PRIu64
		      " should: the superblock is older than the log", last,
		      last - image->meta.layout.log_blocks);
	else
		found(image, level, "log block %" PRIu64
		      " is good, and was written when block %" PRIu64
		      " was durable: that is lost now, and all from there on", first, next);
}

static void log_check(struct image *image)
{
	const struct repl_layout *layout = &image->meta.layout;
	uint64_t orphan = UINT64_MAX, last = 0, first = 0, i;
	uint64_t from = repl_log_block(layout, image->meta.tail) - layout->log_start;

	for (i = 0; i < layout->log_blocks; i++) {
		uint64_t index = from + i < layout->log_blocks ? from + i :
								 from + i - layout->log_blocks;
		const struct repl_disk_log *log;
		enum image_slot slot = image_slot(image, index, &log);

		image->slots[slot]++;
		if (slot == IMAGE_LIVE) {
			live_check(image, log, first);
			first = le64toh(log->first);
		} else if (slot == IMAGE_REFUSED && image->log_bad) {
			refused_check(image, log);
		} else if (slot == IMAGE_ORPHAN) {
			if (le64toh(log->seq) < orphan)
				orphan = le64toh(log->seq);
			if (le64toh(log->seq) > last)
				last = le64toh(log->seq);
		} else if (slot != IMAGE_OLD && slot != IMAGE_STALE) {
			slot_check(image, index, slot, log);
		}
	}
	if (last)
		orphans_check(image, orphan, last);
	if (image->slots[IMAGE_STALE])
		found(image, IMAGE_NOTE,
		      "%" PRIu64 " good log blocks behind the end are of a batch that was not completed",
		      image->slots[IMAGE_STALE]);
}

/*
 * ---- The user's dirty maps ----
 */

static const char *const dir_is[IMAGE_NR_DIRS] = {
	[IMAGE_DIR_BLANK] = "is blank",
	[IMAGE_DIR_GOOD] = "is good",
	[IMAGE_DIR_DAMAGED] = "is damaged: its checksum is wrong",
	[IMAGE_DIR_INSANE] = "has a good checksum, but says what cannot be",
	[IMAGE_DIR_FOREIGN] = "is something else",
	[IMAGE_DIR_UNREADABLE] = "cannot be read",
};

static enum image_dir dir_read(struct image *image, unsigned int slot,
			       struct repl_disk_kept_dir *dir)
{
	struct image_source *source = image->source;
	const uint8_t *uuid = image->meta.uuid;
	uint64_t nr = image->meta.layout.blocks + slot;

	if (source->read(source, nr, 1, dir)) {
		memset(dir, 0, sizeof(*dir));
		return IMAGE_DIR_UNREADABLE;
	}
	if (repl_kept_dir_ok(dir, slot, &image->meta, source->blocks))
		return IMAGE_DIR_GOOD;
	if (all_zero(dir, sizeof(*dir)))
		return IMAGE_DIR_BLANK;
	/* Nothing clears these blocks of a device that had other uses before. */
	if (le32toh(dir->head.magic) != REPL_MAGIC_KEPT ||
	    memcmp(dir->head.uuid, uuid, REPL_UUID_SIZE))
		return IMAGE_DIR_FOREIGN;
	return repl_block_ok(dir, REPL_MAGIC_KEPT, uuid, nr) ? IMAGE_DIR_INSANE :
							       IMAGE_DIR_DAMAGED;
}

/*
 * One that was torn is as a power cut may leave it: each change is written to both, one
 * after the other.
 */
static void dirs_check(struct image *image)
{
	const struct image_kept *kept = &image->kept;
	const enum image_dir *dirs = kept->dirs;
	enum image_dir other = dirs[!kept->current];
	bool first = (dirs[0] == IMAGE_DIR_DAMAGED && dirs[1] == IMAGE_DIR_BLANK) ||
		     (dirs[1] == IMAGE_DIR_DAMAGED && dirs[0] == IMAGE_DIR_BLANK);
	unsigned int i, bad = 0;

	if (kept->good) {
		if (other != IMAGE_DIR_GOOD)
			found(image, other == IMAGE_DIR_UNREADABLE || other == IMAGE_DIR_INSANE ?
				     IMAGE_WARNING : IMAGE_NOTE,
			      "directory %u of the dirty maps %s; the other one counts",
			      !kept->current, dir_is[other]);
		return;
	}
	for (i = 0; i < 2; i++)
		bad += dirs[i] != IMAGE_DIR_BLANK && dirs[i] != IMAGE_DIR_FOREIGN;
	if (bad && first)
		found(image, IMAGE_NOTE,
		      "a directory of the dirty maps is damaged, and the other one is blank: the first map's making was cut off");
	else if (bad)
		found(image, IMAGE_WARNING,
		      "directory 0 of the dirty maps %s, directory 1 %s: if there were any, they are lost",
		      dir_is[dirs[0]], dir_is[dirs[1]]);
}

static void kept_map_read(struct image *image, const struct repl_disk_kept *disk)
{
	struct image_map *map = &image->kept.maps[image->kept.nr++];
	uint64_t i, left;
	unsigned int byte;

	memcpy(map->name, disk->name, sizeof(map->name));
	map->granularity = (uint64_t)512 << disk->shift;
	map->enabled = disk->flags & REPL_KEPT_ENABLED;
	map->start = le64toh(disk->start);
	map->blocks = le64toh(disk->blocks);
	map->bits = ((image->meta.layout.sectors - 1) >> disk->shift) + 1;
	for (i = 0, left = map->bits; i < map->blocks; i++, left -= REPL_BITMAP_BITS) {
		const struct repl_disk_bits *block =
			block_at(image, map->start + i, map->start + map->blocks);
		uint64_t most = left < REPL_BITMAP_BITS ? left : REPL_BITMAP_BITS;
		int r = -EIO;

		if (block)
			r = repl_kept_bits_ok(block, image->meta.uuid, map->start + i, i, most);
		if (r < 0) {
			*(block ? &map->damaged : &map->unreadable) += 1;
			map->set += most;
		}
		for (byte = 0; r > 0 && byte < REPL_BITMAP_BYTES; byte++)
			map->set += __builtin_popcount(block->bits[byte]);
	}
}

/* A block may be torn by a power cut, but not after an orderly end. */
static void kept_map_check(struct image *image, const struct image_map *map)
{
	if (map->damaged)
		found(image, image->kept.exact ? IMAGE_WARNING : IMAGE_NOTE,
		      "%" PRIu64 " of the %" PRIu64
		      " blocks of dirty map %s are damaged: all that they stand for counts as dirty",
		      map->damaged, map->blocks, map->name);
	if (map->unreadable)
		found(image, IMAGE_WARNING,
		      "%" PRIu64 " of the %" PRIu64
		      " blocks of dirty map %s cannot be read: all that they stand for counts as dirty",
		      map->unreadable, map->blocks, map->name);
}

static void dir_reserved(struct image *image, const struct repl_disk_kept_dir *dir)
{
	bool any = !all_zero(dir->reserved, sizeof(dir->reserved)) ||
		   !all_zero(dir->reserved2, sizeof(dir->reserved2));
	unsigned int i;

	for (i = 0; i < le32toh(dir->nr); i++)
		any |= !all_zero(dir->map[i].reserved, sizeof(dir->map[i].reserved)) ||
		       !all_zero(dir->map[i].reserved2, sizeof(dir->map[i].reserved2));
	if (any && !image->super[image->current].compatible)
		found(image, IMAGE_WARNING,
		      "directory %u of the dirty maps has something in its reserved bytes",
		      image->kept.current);
}

/* Whether it is to be believed depends on the log. */
static void kept_judge(struct image *image)
{
	struct image_kept *kept = &image->kept;
	bool clean = kept->flags & REPL_KEPT_CLEAN;

	if (kept->flags & REPL_KEPT_ALL)
		kept->all = "their directory says so";
	if (!image_usable(image))
		return;
	kept->exact = clean && kept->next == image->end.next;
	if (image->meta.unrecorded)
		kept->all = "writes were not recorded";
	else if (!image->end.state.kept)
		kept->all = "something that does not keep them has used the device";
	if (clean && !kept->exact)
		found(image, IMAGE_NOTE,
		      "the dirty maps were exact when log block %" PRIu64
		      " was the next one, which is %" PRIu64
		      " now: the log was written since, and they count as after a crash",
		      kept->next, image->end.next);
}

static void kept_read(struct image *image)
{
	struct image_kept *kept = &image->kept;
	struct repl_disk_kept_dir dirs[2];
	const struct repl_disk_kept_dir *dir;
	unsigned int i;

	kept->room = image->source->blocks - image->meta.layout.blocks;
	if (kept->room < 2)
		return;
	for (i = 0; i < 2; i++)
		kept->dirs[i] = dir_read(image, i, &dirs[i]);
	dir = repl_kept_choose(dirs, &image->meta, image->source->blocks);
	kept->good = dir;
	kept->current = dir == &dirs[1];
	dirs_check(image);
	if (!dir)
		return;
	kept->generation = le64toh(dir->generation);
	kept->next = le64toh(dir->next);
	kept->flags = le32toh(dir->flags);
	kept_judge(image);
	dir_reserved(image, dir);
	image->nr_buffered = 0;
	for (i = 0; i < le32toh(dir->nr); i++) {
		kept_map_read(image, &dir->map[i]);
		kept_map_check(image, &kept->maps[i]);
	}
	if (kept->nr && kept->all)
		found(image, IMAGE_NOTE, "all bits of all dirty maps are set: %s", kept->all);
}

/*
 * ---- All of it ----
 */

static void replay_check(struct image *image)
{
	struct replayer replayer = {
		.reader = { .read = replayer_read, .apply = replayer_apply },
		.image = image,
	};
	struct repl_meta without = image->meta;
	const char *why;

	if (image->meta.area != REPL_NO_AREA)
		area_check(image);
	image->nr_buffered = 0;
	image->replay = repl_replay(&replayer.reader, &image->meta, image->buffer,
				    &image->end, &image->why);
	image->log_bad = image->replay;
	if (image->area_bad) {
		/* What the log has is of interest all the same. */
		without.area = REPL_NO_AREA;
		image->log_bad = repl_replay(&replayer.reader, &without, image->buffer,
					     &image->end, &why);
		if (image->log_bad)
			found(image, IMAGE_ERROR, "%s", why);
	}
	image->nr_buffered = 0;
	if (image->replay == -ENOMEM)
		return;
	log_check(image);
	if (image->replay)
		found(image, IMAGE_ERROR, "%s: the module refuses it", image->why);
}

int image_read(struct image *image, struct image_source *source, struct repl_error *error)
{
	struct replayer replayer = {
		.reader = { .read = replayer_read }, .image = image,
	};
	unsigned int i;

	memset(image, 0, sizeof(*image));
	image->source = source;
	image->buffer = malloc(REPL_REPLAY_BUFFER);
	image->findings = calloc(MAX_FINDINGS + 1, sizeof(*image->findings));
	if (!image->buffer || !image->findings)
		goto no_memory;
	for (i = 0; i < 2; i++)
		super_read(image, i);
	image->load = repl_meta_load(&replayer.reader, source->blocks, image->buffer,
				     &image->meta, &image->why);
	if (image->load) {
		for (i = 0; i < 2 && image->load != -ENODATA; i++)
			if (image->super[i].status)
				found(image, IMAGE_WARNING, "superblock %u %s", i,
				      image->super[i].why);
		found(image, IMAGE_ERROR, "%s: the module %s", image->why,
		      image->load == -ENODATA ? "would make new metadata on it" :
						"refuses it");
		return 0;
	}
	image->current = image->meta.generation & 1;
	supers_check(image);
	if (regions_init(&image->hidden, image->meta.layout.nr_regions) ||
	    regions_init(&image->active, image->meta.layout.nr_regions) ||
	    regions_init(&image->dirty, image->meta.layout.nr_regions))
		goto no_memory;
	replay_check(image);
	if (image->replay == -ENOMEM)
		goto no_memory;
	kept_read(image);
	return 0;
no_memory:
	return error_set(error, REPL_EXIT_FAILED, "out of memory");
}

void image_free(struct image *image)
{
	unsigned int i;

	for (i = 0; i < image->nr_findings; i++)
		free(image->findings[i].text);
	free(image->findings);
	free(image->buffer);
	regions_free(&image->hidden);
	regions_free(&image->active);
	regions_free(&image->dirty);
	memset(image, 0, sizeof(*image));
}
