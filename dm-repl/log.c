// SPDX-License-Identifier: GPL-2.0-only
/* Log: see the essay in log.h. */

#include <linux/completion.h>
#include <linux/errno.h>
#include <linux/random.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/vmalloc.h>
#include <asm/byteorder.h>

#include "log.h"

/* Extents of entries in a batch: the rest is for notes and a change. */
#define BATCH_EXTENTS \
	((REPL_LOG_BATCH - 1) * REPL_LOG_EXTENTS - REPL_LOG_NOTES)
/* So many ops are a batch, whatever else may come. */
#define LOG_GATHER	10
/* Notes that nobody waits for are written when there are so many. */
#define NOTES_KICK	(REPL_LOG_NOTES / 4)

/* What is written together. */
struct log_batch {
	struct list_head entries;
	struct repl_log_entry *change;	/* the last of them, or NULL */
	struct repl_log_notes *notes;	/* or NULL */
	bool dropped;			/* notes that it makes void */
	bool block;			/* one at least: errors, or it is ... */
	bool clean;			/* to overwrite what failed */
	unsigned int extents;		/* of entries */
	u32 errors;
	unsigned int failed;		/* device */
};

static void log_kick(struct repl_log *log)
{
	queue_work(log->wq, &log->commit_work);
}

/*
 * ---- Notes ----
 */

static unsigned int note_flush(const struct repl_log *log,
			       enum repl_extent_op op)
{
	/*
	 * What was merged must be in the secondary before its copy is
	 * forgotten. What active has counts from the failover on, which
	 * flushes it; after that each time.
	 */
	return op == REPL_EXTENT_MERGED ? REPL_LOG_DEV_SECONDARY :
					  REPL_LOG_DEV_ACTIVE;
}

static bool note_extend(struct repl_log_notes *notes, enum repl_extent_op op,
			u64 begin, u64 end)
{
	__le64 *last;
	u64 first;

	if (!notes->nr || notes->op != op || notes->end != begin)
		return false;
	last = &notes->extent[notes->nr - 1];
	first = le64_to_cpu(*last) >> REPL_EXTENT_BEGIN_SHIFT;
	if (end - first > REPL_EXTENT_MAX)
		return false;
	*last = repl_extent_encode(first, end - first, op);
	return true;
}

/**
 * repl_log_note() - something has changed that a later barrier waits for
 * @log: log
 * @op: active, if the regions are in active now; merged, if in neither
 * @begin: first region
 * @end: region after the last; a copy at most
 *
 * Called after the map was changed.
 *
 * Context: any.
 */
void repl_log_note(struct repl_log *log, enum repl_extent_op op, u64 begin,
		   u64 end)
{
	struct repl_log_notes *notes;
	unsigned long flags;
	bool kick;

	spin_lock_irqsave(&log->lock, flags);
	notes = log->notes;
	if (!note_extend(notes, op, begin, end)) {
		if (notes->nr == REPL_LOG_NOTES || end - begin > REPL_EXTENT_MAX) {
			log->lost = true;
			goto out;
		}
		notes->extent[notes->nr++] =
			repl_extent_encode(begin, end - begin, op);
		notes->op = op;
	}
	notes->end = end;
	notes->flush |= note_flush(log, op);
out:
	kick = notes->nr >= NOTES_KICK;
	spin_unlock_irqrestore(&log->lock, flags);
	if (kick)
		log_kick(log);
}

/**
 * repl_log_noted() - is there a note that is not durable?
 * @log: log
 *
 * Context: any.
 */
bool repl_log_noted(struct repl_log *log)
{
	unsigned long flags;
	bool noted;

	spin_lock_irqsave(&log->lock, flags);
	noted = log->notes->nr || !log->spare || log->lost ||
		log->compacting_lost;
	spin_unlock_irqrestore(&log->lock, flags);
	return noted;
}

/**
 * repl_log_set_errors() - errors have been latched, or forgotten
 * @log: log
 * @errors: bits of enum repl_error
 *
 * Written when there is an occasion, or soon.
 *
 * Context: any.
 */
void repl_log_set_errors(struct repl_log *log, u32 errors)
{
	unsigned long flags;

	spin_lock_irqsave(&log->lock, flags);
	log->errors = errors;
	spin_unlock_irqrestore(&log->lock, flags);
	log_kick(log);
}

/*
 * Only regions wait, few of them, and others are being copied: one of those
 * starts the batch, or the tick, if a copy takes its time.
 */
static bool log_gathers(const struct repl_log *log)
{
	return log->io->coming && !log->overdue && !log->nr_others &&
	       log->nr_regions && log->nr_regions < LOG_GATHER &&
	       log->nr_regions + log->nr_written <
	       log->io->coming(log->io);
}

/**
 * repl_log_add() - make something durable
 * @log: log
 * @entry: what; the log's until its ->done is called
 *
 * Context: any.
 */
void repl_log_add(struct repl_log *log, struct repl_log_entry *entry)
{
	unsigned long flags;
	bool gather;

	spin_lock_irqsave(&log->lock, flags);
	list_add_tail(&entry->list, &log->entries);
	if (entry->kind == REPL_LOG_REGIONS)
		log->nr_regions++;
	else
		log->nr_others++;
	gather = log_gathers(log);
	spin_unlock_irqrestore(&log->lock, flags);
	if (gather)
		queue_delayed_work(log->wq, &log->gather_work, 1);
	else
		log_kick(log);
}

/*
 * ---- Compaction ----
 */

/* Between two batches, with the lock: choose the start and go. */
static void compact_start(struct repl_log *log)
{
	u64 most = log->meta.layout.log_blocks / 4;

	if (log->compacting || (log->torn && !log->super_pending))
		return;
	if (!log->super_pending) {
		log->new = log->meta;
		log->new.generation++;
		if (log->empty > log->meta.tail && !log->lost &&
		    log->next - log->empty <= most) {
			log->new.area = REPL_NO_AREA;
			log->new.tail = log->empty;
			log->new.tail_prev = log->empty_prev;
			log->new.state = log->empty_state;
		} else {
			log->new.area = log->meta.area == 0;
			log->new.area_generation = log->new.generation;
			log->new.tail = log->next;
			log->new.tail_prev = log->link;
			log->new.state = log->state;
			log->compacting_lost = log->lost;
			log->compacting_rewrite = log->rewrite;
			log->lost = false;
			log->rewrite = false;
			/* All of the map is in it. */
			if (log->compacting_rewrite)
				log->new.unrecorded = false;
		}
		if (log->distrust)
			log->new.unrecorded = true;
	}
	log->compacting = true;
	queue_work(log->compact_wq, &log->compact_work);
}

static int compact_block(struct repl_log *log, u64 index, u8 *block, u32 magic)
{
	const struct repl_meta *new = &log->new;
	u64 nr = new->layout.area_start[new->area] + index;
	struct repl_disk_bits *disk = (void *)block;

	disk->generation = cpu_to_le64(new->area_generation);
	disk->index = cpu_to_le64(index);
	repl_block_seal(block, magic, new->uuid, nr);
	return log->io->write(log->io, nr, block);
}

/* Bitmap block @nr of all maps, of @map: 1 written, 0 empty, or an error. */
static int compact_bitmap(struct repl_log *log, enum repl_disk_map map, u64 nr)
{
	const struct repl_layout *layout = &log->new.layout;
	struct repl_disk_bits *disk = (void *)log->block;
	u64 begin = (nr - map * layout->map_blocks) * REPL_BITMAP_BITS;
	u64 left = layout->nr_regions - begin;
	int r;

	memset(disk, 0, sizeof(*disk));
	if (!log->io->bits(log->io, map, begin,
			   min_t(u64, left, REPL_BITMAP_BITS), disk->bits))
		return 0;
	r = compact_block(log, layout->summary_blocks + nr, log->block,
			  REPL_MAGIC_BITMAP);
	return r ? r : 1;
}

/* The bitmap blocks of @map among [begin, end), which have one summary. */
static int compact_bitmaps(struct repl_log *log, enum repl_disk_map map,
			   u64 begin, u64 end)
{
	struct repl_disk_bits *summary = (void *)log->summary;
	u64 first = map * log->new.layout.map_blocks;
	u64 last = first + log->new.layout.map_blocks;
	u64 nr;
	int r;

	for (nr = max(first, begin); nr < min(last, end); nr++) {
		r = READ_ONCE(log->stopping) ? -ESHUTDOWN :
					       compact_bitmap(log, map, nr);
		if (r < 0)
			return r;
		if (r)
			summary->bits[(nr - begin) >> 3] |=
				1 << ((nr - begin) & 7);
	}
	return 0;
}

/*
 * Active's map is read before hidden's: a merge clears them in the other
 * order. So a region may be seen in active only, which is good until it is
 * noted that it was merged, but never in hidden only, which has what was
 * before active. Hence from the end to the beginning. (What a failover has made
 * dirty is in the dirty map whenever that is read: compact_flush().)
 */
static int compact_area(struct repl_log *log)
{
	const struct repl_layout *layout = &log->new.layout;
	u64 index = layout->summary_blocks;
	int r;

	/* The barriers pair with those of repl_map_set(). */
	while (index--) {
		u64 begin = index * REPL_BITMAP_BITS;
		u64 end = min(begin + REPL_BITMAP_BITS,
			      REPL_NR_DISK_MAPS * layout->map_blocks);

		memset(log->summary, 0, REPL_BLOCK_SIZE);
		r = compact_bitmaps(log, REPL_DISK_ACTIVE, begin, end);
		smp_rmb();	/* active's map, then hidden's */
		if (!r)
			r = compact_bitmaps(log, REPL_DISK_HIDDEN, begin, end);
		if (!r)
			r = compact_bitmaps(log, REPL_DISK_DIRTY, begin, end);
		if (!r)
			r = compact_block(log, index, log->summary,
					  REPL_MAGIC_SUMMARY);
		if (r)
			return r;
	}
	return log->io->sync(log->io);
}

/*
 * In a failover a region that is in neither map any more has been merged, and
 * one that is in active may have been written there since. A merge begins when
 * the state says so; if it does not yet, the bitmaps know of none. If it says so
 * since the start, they may know of one whose region is put into hidden again by
 * the replay, without active: what was noted of the merge need not be there. Or,
 * if the merge has ended meanwhile, the dirty map may be emptied by what comes
 * before the failover, and the failover does not find there what was merged.
 * Return: 1: begin anew.
 */
static int compact_flush(struct repl_log *log)
{
	unsigned int stage;

	if (log->new.area == REPL_NO_AREA)
		return 0;
	smp_rmb();	/* the maps, then the state */
	stage = READ_ONCE(log->state.stage);
	smp_rmb();	/* pairs with log_write() */
	if (READ_ONCE(log->failover) >= log->new.tail)
		return 1;
	if (stage != REPL_DISK_FAILOVER)
		return 0;
	return log->io->flush(log->io, REPL_LOG_DEV_SECONDARY |
			      REPL_LOG_DEV_ACTIVE);
}

/*
 * The old superblock is good until the new one is. One that may have been
 * written is written again, not another one: the next would go where the old
 * one is.
 */
static int compact_super(struct repl_log *log)
{
	struct repl_log_io *io = log->io;
	int r;

	repl_super_encode(&log->new, log->block);
	r = io->write(io, log->new.generation & 1, log->block);
	if (!r)
		r = io->sync(io);
	log->super_pending = r;
	return r;
}

/**
 * repl_log_compact() - free the part of the log that is not needed
 * @log: log, for which compaction was begun
 *
 * Context: process; waits for I/O.
 */
void repl_log_compact(struct repl_log *log)
{
	unsigned long flags;
	int r = 0;

	if (!log->super_pending && log->new.area != REPL_NO_AREA) {
		r = compact_area(log);
		if (!r)
			r = compact_flush(log);
	}
	if (!r)
		r = compact_super(log);
	/* The old one knows nothing of notes that were lost. */
	if (!r && log->compacting_lost) {
		log->new.generation++;
		r = compact_super(log);
	}

	spin_lock_irqsave(&log->lock, flags);
	if (!r)
		log->meta = log->new;
	else if (log->compacting_lost)
		log->lost = true;
	if (r && log->compacting_rewrite)
		log->rewrite = true;
	log->compacting_rewrite = false;
	log->compacting_lost = false;
	log->compacting = false;
	log->compact_error = log->compact_awaited ? min(r, 0) : 0;
	log->compact_awaited = false;
	/* One that failed is not tried again at each batch. */
	if (r < 0)
		log->compact_at = log->next + log->meta.layout.log_blocks / 16;
	spin_unlock_irqrestore(&log->lock, flags);
	log_kick(log);
}

/*
 * ---- Commit ----
 */

static unsigned int blocks_for(unsigned int extents)
{
	return DIV_ROUND_UP(extents, REPL_LOG_EXTENTS);
}

static unsigned int entry_extents(const struct repl_log_entry *entry)
{
	if (entry->kind != REPL_LOG_REGIONS)
		return 0;
	return ((entry->end - entry->begin - 1) / REPL_EXTENT_MAX) + 1;
}

/* Blocks that a batch may take: all but the reserve, which is for changes. */
static u64 log_room(const struct repl_log *log, bool change)
{
	u64 room = log->meta.layout.log_blocks - (log->next - log->meta.tail);

	if (change)
		return room;
	return room > REPL_LOG_RESERVE ? room - REPL_LOG_RESERVE : 0;
}

/* Move all entries that wait to @entries. */
static void take_all(struct repl_log *log, struct list_head *entries)
{
	list_splice_tail_init(&log->entries, entries);
	log->nr_regions = 0;
	log->nr_others = 0;
}

/* Nothing of what was noted matters behind this change. */
static bool change_drops(const struct repl_log_entry *change)
{
	return change && !(~change->flags & REPL_LOG_EMPTY_EPOCH);
}

/*
 * The next batch. Entries in order, up to a change, or as many as there is
 * room for. False: there is nothing to do, or it has to wait for compaction;
 * if that has failed, the batch is of what waited for it, and fails.
 */
static bool log_take(struct repl_log *log, struct log_batch *batch, int *error)
{
	struct repl_log_entry *entry, *next;
	struct repl_log_notes *notes = log->notes;
	bool whole = false;	/* needs all notes: a barrier or a change */
	bool full = false;
	unsigned int kept;

	*error = 0;
	log->overdue = false;
	memset(batch, 0, sizeof(*batch));
	INIT_LIST_HEAD(&batch->entries);

	list_for_each_entry_safe(entry, next, &log->entries, list) {
		bool change = entry->kind == REPL_LOG_CHANGE;
		bool drops = change && change_drops(entry);
		unsigned int extents = batch->extents + entry_extents(entry);

		kept = drops ? 0 : notes->nr;
		if ((log->lost || log->compacting_lost) && !drops &&
		    entry->kind != REPL_LOG_REGIONS) {
			full = list_empty(&batch->entries);
			break;
		}
		if (extents > BATCH_EXTENTS)
			break;
		if (blocks_for(extents + kept) + change > log_room(log, change)) {
			full = list_empty(&batch->entries);
			break;
		}
		batch->extents = extents;
		list_move_tail(&entry->list, &batch->entries);
		if (entry->kind == REPL_LOG_REGIONS) {
			log->nr_regions--;
			log->nr_written++;
		} else {
			log->nr_others--;
		}
		whole |= entry->kind != REPL_LOG_REGIONS;
		if (change) {
			batch->change = entry;
			break;
		}
	}

	if (full) {
		*error = log->compact_error;
		log->compact_error = 0;
		if (!*error && log->torn && !log->compacting &&
		    !log->super_pending) {
			batch->errors = log->errors;
			batch->block = true;
			batch->clean = true;
			return true;
		}
		if (!*error) {
			log->compact_awaited = true;
			compact_start(log);
			return false;
		}
		take_all(log, &batch->entries);
		return true;
	}

	batch->errors = log->errors;
	if (change_drops(batch->change)) {
		batch->dropped = notes->nr || log->lost;
		notes->nr = 0;
		notes->flush = 0;
		log->lost = log->rewrite;
	} else if (notes->nr && (whole || notes->nr >= NOTES_KICK ||
				 batch->extents) &&
		   blocks_for(batch->extents + notes->nr) +
		   !!batch->change <= log_room(log, whole)) {
		batch->notes = notes;
		log->notes = log->spare;
		log->spare = NULL;
	}
	/* Not in the reserve: and behind that is the tail. */
	batch->block = batch->errors != log->state.errors &&
		       log_room(log, false);
	return !list_empty(&batch->entries) || batch->notes || batch->block;
}

static struct repl_disk_log *log_last(struct repl_log *log)
{
	return (void *)(log->buffer + (log->nr_blocks - 1) * REPL_BLOCK_SIZE);
}

static struct repl_disk_log *log_new_block(struct repl_log *log)
{
	struct repl_disk_log *disk;

	WARN_ON_ONCE(log->nr_blocks == REPL_LOG_BATCH);
	log->nr_blocks++;
	disk = log_last(log);
	memset(disk, 0, sizeof(*disk));
	return disk;
}

static void log_put(struct repl_log *log, __le64 extent)
{
	struct repl_disk_log *disk = log->nr_blocks ? log_last(log) : NULL;
	unsigned int nr = disk ? le16_to_cpu(disk->nr) : REPL_LOG_EXTENTS;

	if (nr == REPL_LOG_EXTENTS) {
		disk = log_new_block(log);
		nr = 0;
	}
	disk->extents[nr] = extent;
	disk->nr = cpu_to_le16(nr + 1);
}

static void log_put_entry(struct repl_log *log,
			  const struct repl_log_entry *entry)
{
	u64 begin = entry->begin;

	while (begin < entry->end) {
		u64 nr = min_t(u64, entry->end - begin, REPL_EXTENT_MAX);

		log_put(log, repl_extent_encode(begin, nr, entry->op));
		begin += nr;
	}
}

/* Head of the blocks in the buffer. Returns the state after them. */
static struct repl_meta_state log_seal(struct repl_log *log,
				       const struct log_batch *batch)
{
	struct repl_meta_state state = log->state;
	u64 prev = log->link;
	unsigned int i;

	state.errors = batch->errors;
	for (i = 0; i < log->nr_blocks; i++) {
		struct repl_disk_log *disk =
			(void *)(log->buffer + i * REPL_BLOCK_SIZE);
		u64 link = get_random_u64();

		if (batch->change && i == log->nr_blocks - 1) {
			state = *batch->change->state;
			state.errors = batch->errors;
			disk->flags = cpu_to_le16(batch->change->flags);
		}
		disk->seq = cpu_to_le64(log->next + i);
		disk->first = cpu_to_le64(log->next);
		disk->link = cpu_to_le64(link);
		disk->prev = cpu_to_le64(prev);
		repl_state_encode(&state, &disk->state);
		repl_block_seal(disk, REPL_MAGIC_LOG, log->meta.uuid,
				repl_log_block(&log->meta.layout,
					       log->next + i));
		prev = link;
	}
	return state;
}

/* Do with the place of the batch, which may lie across the end of the ring. */
static int log_place(struct repl_log *log, u8 *data,
		     int (*fn)(struct repl_log_io *io, u64 block,
			       unsigned int nr, void *data))
{
	const struct repl_layout *layout = &log->meta.layout;
	u64 block = repl_log_block(layout, log->next);
	u64 most = layout->log_start + layout->log_blocks - block;
	unsigned int nr = min_t(u64, log->nr_blocks, most);
	int r = fn(log->io, block, nr, data);

	if (!r && nr < log->nr_blocks)
		r = fn(log->io, layout->log_start, log->nr_blocks - nr,
		       data + nr * REPL_BLOCK_SIZE);
	return r;
}

/*
 * A change could not be written, or so it is said. Has it taken place?
 * Returns 0 if it has. If that cannot be said, the log is ambiguous.
 */
static int log_settle(struct repl_log *log, int error)
{
	u8 *again = log->buffer + REPL_LOG_BATCH * REPL_BLOCK_SIZE;
	size_t size = (size_t)log->nr_blocks * REPL_BLOCK_SIZE;
	bool was = log->ambiguous;

	log->ambiguous = true;
	if (!log_place(log, log->buffer, log->io->append)) {
		log->ambiguous = false;
		return 0;
	}
	if (log_place(log, again, log->io->reread))
		return error;
	if (memcmp(log->buffer, again, size)) {
		/*
		 * The last one counts only with all before it. But if there
		 * was a change before whose fate is not known, it may be what
		 * is there.
		 */
		log->ambiguous = was;
		return error;
	}
	if (log->io->flush(log->io, REPL_LOG_DEV_META))
		return error;
	log->ambiguous = false;
	return 0;
}

static int log_write(struct repl_log *log, struct log_batch *batch)
{
	struct repl_log_entry *entry;
	struct repl_meta_state state;
	unsigned int flush = 0;
	unsigned int i;
	int r;

	log->nr_blocks = 0;
	list_for_each_entry(entry, &batch->entries, list) {
		if (entry->kind == REPL_LOG_REGIONS) {
			log_put_entry(log, entry);
			if (entry->op == REPL_EXTENT_HIDDEN)
				flush |= REPL_LOG_DEV_HIDDEN;
		}
	}
	if (batch->notes) {
		for (i = 0; i < batch->notes->nr; i++)
			log_put(log, batch->notes->extent[i]);
		flush |= batch->notes->flush;
		/* What the view of a running chain writes may be lost. */
		if (log->state.stage == REPL_DISK_RUNNING)
			flush &= ~REPL_LOG_DEV_ACTIVE;
	}
	if (batch->change) {
		log_new_block(log);
		flush |= batch->change->flush;
	}
	if (!log->nr_blocks && batch->block)
		log_new_block(log);
	if (!log->nr_blocks)
		return 0;	/* barriers, and nothing before them */

	for (i = 1; i <= flush; i <<= 1) {
		if (!(flush & i))
			continue;
		batch->failed = i;
		r = log->io->flush(log->io, i);
		if (r)
			return r;
	}

	batch->failed = REPL_LOG_DEV_META;
	/* The tail would be overwritten: log_take() has looked. */
	if (WARN_ON_ONCE(log->next + log->nr_blocks - log->meta.tail >
			 log->meta.layout.log_blocks))
		return -ENOSPC;
	state = log_seal(log, batch);
	r = log_place(log, log->buffer, log->io->append);
	if (r && (batch->change || log->ambiguous))
		r = log_settle(log, r);
	log->torn = r;
	if (r)
		return r;

	/* Whatever else was there has been overwritten. */
	log->ambiguous = false;
	if (batch->change &&
	    !(~batch->change->flags & REPL_LOG_EMPTY_ALL)) {
		log->empty = log->next + log->nr_blocks - 1;
		log->empty_prev = le64_to_cpu(log_last(log)->prev);
		log->empty_state = log->state;
	}
	if (batch->change && state.stage == REPL_DISK_FAILOVER &&
	    log->state.stage != REPL_DISK_FAILOVER) {
		WRITE_ONCE(log->failover, log->next + log->nr_blocks - 1);
		smp_wmb();	/* before the state: see compact_flush() */
	}
	log->state = state;
	log->link = le64_to_cpu(log_last(log)->link);
	WRITE_ONCE(log->next, log->next + log->nr_blocks);
	return 0;
}

static void log_finish(struct repl_log *log, struct log_batch *batch, int error)
{
	struct repl_log_entry *entry, *next;
	unsigned long flags;

	if (error && batch->clean) {
		/* They wait for a compaction that cannot begin. */
		spin_lock_irqsave(&log->lock, flags);
		take_all(log, &batch->entries);
		spin_unlock_irqrestore(&log->lock, flags);
	}
	list_for_each_entry_safe(entry, next, &batch->entries, list) {
		list_del_init(&entry->list);
		entry->done(entry, error, error ? batch->failed : 0);
	}

	spin_lock_irqsave(&log->lock, flags);
	log->nr_written = 0;
	if (error && (batch->notes || batch->dropped))
		log->lost = true;
	if (batch->notes) {
		batch->notes->nr = 0;
		batch->notes->flush = 0;
		log->spare = batch->notes;
	}
	spin_unlock_irqrestore(&log->lock, flags);
}

/**
 * repl_log_commit() - write one batch
 * @log: log
 *
 * Context: process; waits for I/O; one at a time.
 * Return: whether there was one.
 */
bool repl_log_commit(struct repl_log *log)
{
	struct log_batch batch;
	unsigned long flags;
	bool some;
	int r;

	spin_lock_irqsave(&log->lock, flags);
	/* Also behind a compaction: it may begin anew, or be long. */
	if (log->next - log->meta.tail > log->meta.layout.log_blocks / 2 &&
	    log->next >= log->compact_at)
		compact_start(log);
	some = log_take(log, &batch, &r);
	spin_unlock_irqrestore(&log->lock, flags);
	if (!some)
		return false;
	if (r)
		batch.failed = REPL_LOG_DEV_META;
	else
		r = log_write(log, &batch);
	log_finish(log, &batch, r);
	/* Errors that cannot be written are tried again with the next batch. */
	return !r || !list_empty(&log->entries);
}

static void log_commit_work(struct work_struct *work)
{
	struct repl_log *log = container_of(work, struct repl_log, commit_work);

	while (!READ_ONCE(log->stopping)) {
		unsigned long flags;
		bool gather;

		spin_lock_irqsave(&log->lock, flags);
		gather = log_gathers(log);
		spin_unlock_irqrestore(&log->lock, flags);
		if (gather) {
			queue_delayed_work(log->wq, &log->gather_work, 1);
			break;
		}
		if (!repl_log_commit(log))
			break;
		cond_resched();
	}
}

static void log_gather_work(struct work_struct *work)
{
	struct repl_log *log = container_of(to_delayed_work(work),
					    struct repl_log, gather_work);
	unsigned long flags;

	spin_lock_irqsave(&log->lock, flags);
	log->overdue = true;
	spin_unlock_irqrestore(&log->lock, flags);
	log_kick(log);
}

static void log_compact_work(struct work_struct *work)
{
	repl_log_compact(container_of(work, struct repl_log, compact_work));
}

/*
 * ---- Waiting ----
 */

struct log_wait {
	struct repl_log_entry entry;
	struct completion done;
	int error;
	unsigned int dev;
};

static void log_waited(struct repl_log_entry *entry, int error,
		       unsigned int dev)
{
	struct log_wait *wait = container_of(entry, struct log_wait, entry);

	wait->error = error;
	wait->dev = dev;
	complete(&wait->done);
}

static int log_wait(struct repl_log *log, struct log_wait *wait)
{
	init_completion(&wait->done);
	wait->entry.done = log_waited;
	repl_log_add(log, &wait->entry);
	wait_for_completion(&wait->done);
	return wait->error;
}

/**
 * repl_log_change() - a new state
 * @log: log
 * @state: it; its errors are those of repl_log_set_errors()
 * @flags: REPL_LOG_EMPTY_*: the maps are empty from then on;
 *	REPL_LOG_DIRTY_ADD: what hidden and active have is dirty
 * @flush: devices to be flushed before it, besides those that notes speak of
 * @dev: on failure, the device that failed
 *
 * Context: process; waits until it is durable.
 * Return: 0; or a negative errno: the state is the old one, unless
 * repl_log_ambiguous().
 */
int repl_log_change(struct repl_log *log, const struct repl_meta_state *state,
		    u16 flags, unsigned int flush, unsigned int *dev)
{
	struct log_wait wait = {
		.entry = {
			.kind = REPL_LOG_CHANGE, .state = state,
			.flags = flags, .flush = flush,
		},
	};
	int r = log_wait(log, &wait);

	*dev = wait.dev;
	return r;
}

/**
 * repl_log_sync() - all that was noted is durable
 * @log: log
 *
 * Context: process; waits.
 * Return: 0 or a negative errno.
 */
int repl_log_sync(struct repl_log *log)
{
	struct log_wait wait = { .entry = { .kind = REPL_LOG_BARRIER } };

	return log_wait(log, &wait);
}

/**
 * repl_log_rewrite() - the maps are not what the log says: write all of them
 * @log: log
 *
 * Context: process; waits.
 * Return: 0 or a negative errno.
 */
int repl_log_rewrite(struct repl_log *log)
{
	unsigned long flags;

	spin_lock_irqsave(&log->lock, flags);
	log->lost = true;
	log->rewrite = true;
	spin_unlock_irqrestore(&log->lock, flags);
	return repl_log_sync(log);
}

/**
 * repl_log_distrust() - writes are to go on that the log does not have
 * @log: log
 *
 * Whoever reads it finds all regions dirty, until a rewrite that begins after
 * repl_log_trust() has ended. Both superblocks are written, for the older one
 * counts if the newer one decays.
 *
 * Context: process, but none of the log's own works; waits for I/O. One at a
 * time.
 * Return: 0 or a negative errno: perhaps nothing on the device says so.
 */
int repl_log_distrust(struct repl_log *log)
{
	unsigned long flags;
	int i, r = 0;

	spin_lock_irqsave(&log->lock, flags);
	log->distrust = true;
	/* One that a stop has cut off does not end. */
	while (log->compacting && !READ_ONCE(log->stopping)) {
		spin_unlock_irqrestore(&log->lock, flags);
		flush_work(&log->compact_work);
		spin_lock_irqsave(&log->lock, flags);
	}
	if (READ_ONCE(log->stopping)) {
		spin_unlock_irqrestore(&log->lock, flags);
		return -ESHUTDOWN;
	}
	if (log->meta.unrecorded && !log->super_pending) {
		spin_unlock_irqrestore(&log->lock, flags);
		return 0;
	}
	/* To the same place, unless a superblock may be there already. */
	if (!log->super_pending) {
		log->new = log->meta;
		log->new.generation++;
	}
	log->new.unrecorded = true;
	log->compacting = true;
	spin_unlock_irqrestore(&log->lock, flags);

	for (i = 0; i < 2 && !r; i++) {
		log->new.generation += i;
		r = compact_super(log);
	}

	spin_lock_irqsave(&log->lock, flags);
	if (!r)
		log->meta = log->new;
	log->compacting = false;
	spin_unlock_irqrestore(&log->lock, flags);
	log_kick(log);
	return r;
}

/**
 * repl_log_trust() - writes do not go on without the log any more
 * @log: log
 *
 * What was written meanwhile is in the maps. Context: any.
 */
void repl_log_trust(struct repl_log *log)
{
	unsigned long flags;

	spin_lock_irqsave(&log->lock, flags);
	log->distrust = false;
	spin_unlock_irqrestore(&log->lock, flags);
}

/*
 * ---- Life ----
 */

/**
 * repl_log_init() - a log that is not in use yet
 * @log: all zeroes but for ->wq and ->compact_wq
 * @io: what it stands on
 * @meta: superblock
 *
 * Return: 0 or -ENOMEM; repl_log_exit() is to be called in either case.
 */
int repl_log_init(struct repl_log *log, struct repl_log_io *io,
		  const struct repl_meta *meta)
{
	log->io = io;
	log->meta = *meta;
	log->state = meta->state;
	log->next = meta->tail;
	log->link = meta->tail_prev;
	spin_lock_init(&log->lock);
	INIT_LIST_HEAD(&log->entries);
	INIT_WORK(&log->commit_work, log_commit_work);
	INIT_WORK(&log->compact_work, log_compact_work);
	INIT_DELAYED_WORK(&log->gather_work, log_gather_work);
	log->notes = kvzalloc(sizeof(*log->notes), GFP_KERNEL);
	log->spare = kvzalloc(sizeof(*log->spare), GFP_KERNEL);
	log->buffer = vmalloc(2 * REPL_LOG_BATCH * REPL_BLOCK_SIZE);
	log->block = vmalloc(REPL_BLOCK_SIZE);
	log->summary = vmalloc(REPL_BLOCK_SIZE);
	if (!log->notes || !log->spare || !log->buffer || !log->block ||
	    !log->summary)
		return -ENOMEM;
	return 0;
}

/**
 * repl_log_stop() - begin no more I/O, and wait for what is in flight
 * @log: log that nobody waits for any more
 *
 * Context: process.
 */
void repl_log_stop(struct repl_log *log)
{
	WRITE_ONCE(log->stopping, true);
	cancel_work_sync(&log->compact_work);
	cancel_delayed_work_sync(&log->gather_work);
	cancel_work_sync(&log->commit_work);
}

/**
 * repl_log_exit() - a log that nobody uses any more
 * @log: log
 *
 * Writes nothing. Context: process.
 */
void repl_log_exit(struct repl_log *log)
{
	vfree(log->summary);
	vfree(log->block);
	vfree(log->buffer);
	kvfree(log->spare);
	kvfree(log->notes);
}

/**
 * repl_log_begin() - go on where replay ended
 * @log: log
 * @from: what replay said
 */
void repl_log_begin(struct repl_log *log, const struct repl_replayed *from)
{
	log->state = from->state;
	log->errors = from->state.errors;
	log->next = from->next;
	log->link = from->link;
}

/**
 * repl_log_format() - write the superblock of a log without blocks
 * @log: log; its meta is complete but for uuid, tail_prev and generation
 *
 * Both copies, so that what was there before is gone.
 *
 * Context: process. Return: 0 or a negative errno.
 */
int repl_log_format(struct repl_log *log)
{
	int r = 0;
	int i;

	get_random_bytes(log->meta.uuid, REPL_UUID_SIZE);
	log->meta.uuid[6] = (log->meta.uuid[6] & 0x0f) | 0x40;
	log->meta.uuid[8] = (log->meta.uuid[8] & 0x3f) | 0x80;
	log->meta.tail_prev = get_random_u64();
	for (i = 1; i <= 2 && !r; i++) {
		log->meta.generation = i;
		repl_super_encode(&log->meta, log->block);
		r = log->io->write(log->io, i & 1, log->block);
		if (!r)
			r = log->io->sync(log->io);
	}
	log->link = log->meta.tail_prev;
	return r;
}
