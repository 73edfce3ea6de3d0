// SPDX-License-Identifier: GPL-2.0-only
/*
 * View: what a user of the chain reads and writes.
 *
 *	stage			read			write
 *	none			EIO			EIO
 *	running			active, hidden,		active
 *				secondary
 *	failover		the same		merge the region,
 *							then secondary
 *	failover-failed		the same		active, where active
 *							or hidden has it,
 *							else secondary
 *	done			secondary		secondary
 *
 * After a failover the regions of a write are in the dirty map, durably, before
 * it is sent: another copy of the data lacks them from then on.
 *
 * A read goes to one device: it is trimmed to the regions that one device
 * has. A write is trimmed only where it would otherwise need two devices, or
 * has to wait for a merge or the gate; then to one region, since a bio can be
 * trimmed in ->map only and must fit whatever stage it wakes up in.
 */

#include "chain.h"
#include "trace.h"

/**
 * repl_view_trim() - cut a bio at the end of its first region
 * @chain: chain
 * @bio: bio
 *
 * Context: ->map.
 */
void repl_view_trim(struct repl_chain *chain, struct bio *bio)
{
	u64 begin;

	if (!bio_sectors(bio))
		return;
	begin = repl_bio_begin(chain, bio);
	if (repl_bio_end(chain, bio) - begin > 1)
		dm_accept_partial_bio(bio, repl_region_sector(chain, begin + 1) -
				      bio->bi_iter.bi_sector);
}

/*
 * Cut a bio at the start of region @end. One that cannot be cut any more has
 * one region only.
 */
static bool view_cut(struct repl_chain *chain, struct bio *bio, u64 end,
		     bool may_trim)
{
	if (likely(repl_bio_end(chain, bio) <= end))
		return true;
	if (WARN_ON_ONCE(!may_trim))
		return false;
	dm_accept_partial_bio(bio, repl_region_sector(chain, end) -
			      bio->bi_iter.bi_sector);
	return true;
}

static bool view_in_failover(struct repl_chain *chain)
{
	return chain->stage == REPL_STAGE_FAILOVER ||
	       chain->stage == REPL_STAGE_FAILOVER_FAILED;
}

static int view_map_flush(struct repl_chain *chain, struct bio *bio)
{
	/*
	 * The core sends one to each: what the view wrote is in active until
	 * failover, in secondary or active until done, then in secondary. The
	 * third is for the metadata device: a region that was merged must not
	 * be merged again, over what was written since.
	 */
	bool to_active = dm_bio_get_target_bio_nr(bio) == 1;
	bool skip = false;

	if (dm_bio_get_target_bio_nr(bio) == 2) {
		if (chain->store && view_in_failover(chain))
			repl_chain_barrier(bio);
		else
			bio_endio(bio);
		return DM_MAPIO_SUBMITTED;
	}

	switch (chain->stage) {
	case REPL_STAGE_NONE:
		skip = true;
		break;
	case REPL_STAGE_RUNNING:
		skip = !to_active;
		break;
	case REPL_STAGE_DONE:
		skip = to_active;
		break;
	default:
		break;
	}
	if (skip) {
		bio_endio(bio);
		return DM_MAPIO_SUBMITTED;
	}
	bio_set_dev(bio, to_active ? chain->active : chain->secondary);
	return DM_MAPIO_REMAPPED;
}

static int view_map_read(struct repl_chain *chain, struct bio *bio,
			 bool may_trim)
{
	struct repl_io *io = repl_io(bio);
	u64 begin = repl_bio_begin(chain, bio);
	u64 end = repl_bio_end(chain, bio);
	struct block_device *bdev;
	bool present;

	end = begin + repl_map_run(&chain->active_map, begin, end, &present);
	if (present) {
		bdev = chain->active;
		goto out;
	}
	/* A merge clears hidden before active: do not look the other way. */
	smp_rmb();
	end = begin + repl_map_run(&chain->hidden_map, begin, end, &present);
	if (present) {
		bdev = chain->hidden;
		goto out;
	}

	/* Invariant 4: announce first, then look again. */
	io->gen = repl_readers_enter(&chain->readers);
	end = begin + repl_map_run(&chain->hidden_map, begin, end, &present);
	io->reader = !present;
	if (unlikely(present))
		repl_readers_leave(&chain->readers, io->gen);
	bdev = present ? chain->hidden : chain->secondary;
out:
	if (unlikely(!view_cut(chain, bio, end, may_trim))) {
		if (io->reader)
			repl_readers_leave(&chain->readers, io->gen);
		io->reader = false;
		return DM_MAPIO_KILL;
	}
	bio_set_dev(bio, bdev);
	return DM_MAPIO_REMAPPED;
}

/*
 * It is durable that the regions of a write are dirty: it is mapped once more.
 * What it was trimmed to has not come to need two devices: the maps lose
 * regions in a failover, and those that active has it keeps in a failed one.
 */
static void view_marked(struct repl_log_entry *entry, int error,
			unsigned int dev)
{
	struct repl_io *io = container_of(entry, struct repl_io, log);
	struct bio *bio = dm_bio_from_per_bio_data(io, sizeof(*io));
	struct repl_chain *chain = io->chain;

	if (unlikely(error)) {
		repl_chain_latch(chain, repl_chain_dev_error(chain, dev), error,
				 io->sector);
		repl_chain_end(bio, BLK_STS_IOERR);
		return;
	}
	repl_bits_set(&chain->dirty, repl_bio_begin(chain, bio),
		      repl_bio_end(chain, bio));
	switch (repl_view_map(chain, bio, false)) {
	case DM_MAPIO_REMAPPED:
		submit_bio_noacct(bio);
		break;
	case DM_MAPIO_KILL:
		repl_chain_end(bio, BLK_STS_IOERR);
		break;
	}
}

/* Whoever is told no although they are dirty marks them again. */
static bool view_is_dirty(struct repl_chain *chain, u64 begin, u64 end)
{
	return repl_bits_all(&chain->dirty, begin, end) ||
	       (READ_ONCE(chain->dirty_lags) &&
		(repl_map_all(&chain->active_map, begin, end) ||
		 repl_map_all(&chain->hidden_map, begin, end)));
}

/* A write that has been trimmed. Does it wait until its regions are dirty? */
static bool view_mark(struct repl_chain *chain, struct bio *bio)
{
	struct repl_io *io = repl_io(bio);
	u64 begin, end;

	if (!chain->fenced)
		return false;
	begin = repl_bio_begin(chain, bio);
	end = repl_bio_end(chain, bio);
	if (likely(view_is_dirty(chain, begin, end)))
		return false;
	if (!chain->store) {
		repl_bits_set(&chain->dirty, begin, end);
		return false;
	}
	io->log.kind = REPL_LOG_REGIONS;
	io->log.op = REPL_EXTENT_DIRTY;
	io->log.begin = begin;
	io->log.end = end;
	io->log.done = view_marked;
	repl_log_add(&chain->store->log, &io->log);
	return true;
}

/* Failover, before and after it failed: is it in one device, and which? */
static int view_map_write_failover(struct repl_chain *chain, struct bio *bio,
				   bool may_trim)
{
	u64 begin = repl_bio_begin(chain, bio);
	u64 end = repl_bio_end(chain, bio);
	struct block_device *bdev = NULL;
	bool in_active, in_hidden;

	repl_io(bio)->fua = chain->store && (bio->bi_opf & REQ_FUA);
	end = begin + repl_map_run(&chain->active_map, begin, end, &in_active);
	if (in_active && chain->stage == REPL_STAGE_FAILOVER_FAILED) {
		bdev = chain->active;
	} else {
		smp_rmb();	/* as in view_map_read() */
		end = begin + repl_map_run(&chain->hidden_map, begin, end,
					   &in_hidden);
		if (likely(!in_active && !in_hidden))
			bdev = chain->secondary;
		else
			end = begin + 1;	/* the worker moves it */
	}
	if (!view_cut(chain, bio, end, may_trim))
		return DM_MAPIO_KILL;
	if (unlikely(view_mark(chain, bio)))
		return DM_MAPIO_SUBMITTED;
	if (unlikely(!bdev)) {
		repl_chain_defer(chain, bio);
		return DM_MAPIO_SUBMITTED;
	}
	bio_set_dev(bio, bdev);
	return DM_MAPIO_REMAPPED;
}

/**
 * repl_view_map() - map a bio of the view
 * @chain: chain; the bio is inside its gate
 * @bio: bio
 * @may_trim: called from ->map; if not, the bio lies in one region
 *
 * Context: ->map, or after the gate has opened. Never waits.
 * Return: DM_MAPIO_REMAPPED, DM_MAPIO_SUBMITTED, or DM_MAPIO_KILL (still
 * inside the gate).
 */
int repl_view_map(struct repl_chain *chain, struct bio *bio, bool may_trim)
{
	if (unlikely(!bio_sectors(bio)))
		return view_map_flush(chain, bio);

	switch (chain->stage) {
	case REPL_STAGE_NONE:
		return DM_MAPIO_KILL;
	case REPL_STAGE_DONE:
		if (op_is_write(bio_op(bio)) && unlikely(view_mark(chain, bio)))
			return DM_MAPIO_SUBMITTED;
		bio_set_dev(bio, chain->secondary);
		return DM_MAPIO_REMAPPED;
	default:
		break;
	}

	if (!op_is_write(bio_op(bio)))
		return view_map_read(chain, bio, may_trim);
	if (chain->stage != REPL_STAGE_RUNNING)
		return view_map_write_failover(chain, bio, may_trim);

	bio_set_dev(bio, chain->active);
	if (likely(repl_map_all(&chain->active_map, repl_bio_begin(chain, bio),
				repl_bio_end(chain, bio))))
		return DM_MAPIO_REMAPPED;
	repl_chain_defer(chain, bio);
	return DM_MAPIO_SUBMITTED;
}

/* The waiters of an op of the view look at the maps again. */
static void view_op_end(struct repl_region_op *op)
{
	struct repl_chain *chain = op->chain;
	struct bio_list waiters = BIO_EMPTY_LIST;

	repl_region_op_remove(&chain->ops, op, &waiters);
	repl_chain_defer_all(chain, &waiters);
	repl_chain_op_end(op, false);
}

/* Does @bio replace all of @region? */
static bool view_covers(struct repl_chain *chain, struct bio *bio, u64 region)
{
	sector_t first = repl_region_sector(chain, region);

	return bio->bi_iter.bi_sector <= first && bio_end_sector(bio) >=
	       first + repl_region_sectors(chain, region, region + 1);
}

/* A region of active has been filled. Context: the worker. */
static void view_backfilled(int read_err, unsigned long write_err,
			    void *context)
{
	struct repl_region_op *op = context;
	struct repl_chain *chain = op->chain;
	struct bio_list waiters = BIO_EMPTY_LIST;
	struct bio_list again = BIO_EMPTY_LIST;
	struct bio *bio;

	if (likely(!read_err && !write_err)) {
		atomic64_add(repl_map_set(&chain->active_map, op->begin,
					  op->end, REPL_REGION_PRESERVED),
			     &chain->nr_active);
		repl_chain_note(chain, REPL_EXTENT_ACTIVE, op->begin, op->end);
		view_op_end(op);
		return;
	}

	repl_region_op_remove(&chain->ops, op, &waiters);
	while ((bio = bio_list_pop(&waiters))) {
		if (!repl_io(bio)->view || view_covers(chain, bio, op->begin)) {
			bio_list_add(&again, bio);
			continue;
		}
		repl_chain_latch(chain, read_err ? REPL_ERR_VIEW_READ :
						   REPL_ERR_VIEW_WRITE,
				 -EIO, repl_region_sector(chain, op->begin));
		repl_chain_end(bio, BLK_STS_IOERR);
	}
	repl_chain_defer_all(chain, &again);
	repl_chain_op_end(op, true);
}

/**
 * repl_view_overwritten() - a write that replaces whole regions has ended
 * @chain: chain
 * @op: its op
 * @status: how it ended
 *
 * Context: any.
 */
void repl_view_overwritten(struct repl_chain *chain, struct repl_region_op *op,
			   blk_status_t status)
{
	/* After an error active is anything, and the chain below still holds. */
	if (likely(!status)) {
		atomic64_add(repl_map_set(&chain->active_map, op->begin,
					  op->end, REPL_REGION_PRESERVED),
			     &chain->nr_active);
		repl_chain_note(chain, REPL_EXTENT_ACTIVE, op->begin, op->end);
	}
	view_op_end(op);
}

/* What a write to active still needs. */
struct view_need {
	u64 begin;	/* regions it replaces that active has not got */
	u64 end;
	u64 partial;	/* a region that must be backfilled first */
	bool fill;
};

static void view_need(struct repl_chain *chain, struct bio *bio,
		      struct view_need *need)
{
	u64 begin = repl_bio_begin(chain, bio);
	u64 end = repl_bio_end(chain, bio);
	u64 region;

	*need = (struct view_need) { .begin = end, .end = begin };
	for (region = begin; region < end; region++) {
		if (repl_map_get(&chain->active_map, region))
			continue;
		if (view_covers(chain, bio, region)) {
			need->begin = min(need->begin, region);
			need->end = region + 1;
		} else {
			need->partial = region;
			need->fill = true;
		}
	}
}

/* Copy the chain's content of one region to active. */
static void view_backfill(struct repl_chain *chain, struct repl_region_op *op)
{
	bool present = repl_map_get(&chain->hidden_map, op->begin);

	trace_repl_backfill(chain, op->begin, op->end);
	/* The op keeps copy-before-write off, so no reader count is needed. */
	repl_chain_copy(op, present ? chain->hidden : chain->secondary,
			chain->active, view_backfilled);
}

/*
 * A write to active some of whose regions are not there yet. Regions that it
 * covers in part are filled from the chain, one after the other; then it
 * replaces the others itself, under one op.
 */
static void view_dispatch_active(struct repl_chain *chain, struct bio *bio)
{
	struct repl_region_ops *ops = &chain->ops;
	struct repl_region_op *op, *other;
	struct view_need need;

	op = repl_region_op_alloc(ops, REPL_GFP_WORKER);
	if (unlikely(!op)) {
		repl_chain_defer(chain, bio);
		return;
	}
	spin_lock_irq(&ops->lock);
	view_need(chain, bio, &need);
	if (!need.fill && need.begin >= need.end) {
		spin_unlock_irq(&ops->lock);
		repl_region_op_free(ops, op);
		goto submit;
	}

	op->chain = chain;
	op->begin = need.fill ? need.partial : need.begin;
	op->end = need.fill ? need.partial + 1 : need.end;
	other = repl_region_op_find(ops, op->begin, op->end);
	if (other) {
		bio_list_add(&other->waiters, bio);
		spin_unlock_irq(&ops->lock);
		repl_region_op_free(ops, op);
		return;
	}
	repl_region_op_insert(ops, op);
	repl_gate_get(&chain->gate);
	if (need.fill)
		bio_list_add(&op->waiters, bio);
	spin_unlock_irq(&ops->lock);

	if (need.fill) {
		view_backfill(chain, op);
		return;
	}
	repl_io(bio)->op = op;
submit:
	bio_set_dev(bio, chain->active);
	submit_bio_noacct(bio);
}

/**
 * repl_view_dispatch() - go on with a deferred write of the view
 * @chain: chain
 * @bio: bio, gated
 *
 * Context: the worker.
 */
void repl_view_dispatch(struct repl_chain *chain, struct bio *bio)
{
	if (chain->stage == REPL_STAGE_FAILOVER)
		repl_merge_dispatch(chain, bio);
	else
		view_dispatch_active(chain, bio);
}
