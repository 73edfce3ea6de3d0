// SPDX-License-Identifier: GPL-2.0-only
/*
 * Merge: after a failover, active and hidden go back into the secondary, in
 * the background by a job and at once for regions that the view writes to.
 *
 * A region is copied from the uppermost device that has it; then its states
 * are cleared, hidden's before active's, since a reader looks at active first:
 * the other way round he could find nothing in active and stale content in
 * hidden.
 */

#include "chain.h"
#include "trace.h"

/*
 * Claim for @op the regions from @begin on, up to @end, that one device has,
 * as one copy. ops.lock held. Returns the device, NULL if region @begin has
 * nothing to merge, or an op is in the way: *other.
 */
static struct block_device *merge_claim(struct repl_chain *chain,
					struct repl_region_op *op,
					u64 begin, u64 end,
					struct repl_region_op **other)
{
	struct block_device *from = chain->active;
	bool in_active, in_hidden;

	*other = NULL;
	end = min(end, begin + repl_regions_in(chain, REPL_COPY_SECTORS));
	end = begin + repl_map_run(&chain->active_map, begin, end, &in_active);
	if (!in_active) {
		from = chain->hidden;
		end = begin + repl_map_run(&chain->hidden_map, begin, end,
					   &in_hidden);
		if (!in_hidden)
			return NULL;
	}

	*other = repl_region_op_find(&chain->ops, begin, end);
	if (*other) {
		if ((*other)->begin <= begin)
			return NULL;
		end = (*other)->begin;
		*other = NULL;
	}

	op->chain = chain;
	op->begin = begin;
	op->end = end;
	repl_region_op_insert(&chain->ops, op);
	repl_gate_get(&chain->gate);
	return from;
}

/*
 * The region cannot be merged. Its writers go on in stage failover-failed,
 * which the job brings about; until then they are outside the gate.
 */
static void merge_failed(struct repl_region_op *op, bool reading)
{
	struct repl_chain *chain = op->chain;
	struct bio_list waiters = BIO_EMPTY_LIST;
	struct bio *bio;

	repl_chain_latch(chain, reading ? REPL_ERR_MERGE_READ :
					  REPL_ERR_MERGE_WRITE,
			 -EIO, repl_region_sector(chain, op->begin));
	repl_region_op_remove(&chain->ops, op, &waiters);
	while ((bio = bio_list_pop(&waiters)))
		repl_gate_hold_back(&chain->gate, bio);
	if (!op->job)
		repl_job_fail(&chain->job);
	repl_chain_op_end(op, true);
}

/* A range has been merged. Context: the worker, or kcopyd's thread for a job. */
static void merge_copied(int read_err, unsigned long write_err, void *context)
{
	struct repl_region_op *op = context;
	struct repl_chain *chain = op->chain;
	struct bio_list waiters = BIO_EMPTY_LIST;

	if (unlikely(read_err || write_err)) {
		merge_failed(op, read_err);
		return;
	}

	if (READ_ONCE(chain->dirty_lags))
		repl_bits_set(&chain->dirty, op->begin, op->end);
	atomic64_sub(repl_map_set(&chain->hidden_map, op->begin, op->end,
				  REPL_REGION_NONE), &chain->nr_hidden);
	atomic64_sub(repl_map_set(&chain->active_map, op->begin, op->end,
				  REPL_REGION_NONE), &chain->nr_active);
	/* Before a write of the view goes there: its flush needs that. */
	repl_chain_note(chain, REPL_EXTENT_MERGED, op->begin, op->end);

	repl_region_op_remove(&chain->ops, op, &waiters);
	repl_chain_defer_all(chain, &waiters);
	repl_chain_op_end(op, false);
}

static void merge_start(struct repl_region_op *op, struct block_device *from)
{
	struct repl_chain *chain = op->chain;

	trace_repl_merge(chain, op->begin, op->end);
	repl_chain_copy(op, from, chain->secondary, merge_copied);
}

/**
 * repl_merge_dispatch() - a write of the view during failover
 * @chain: chain, stage failover
 * @bio: bio in one region, gated
 *
 * Merges its region first (invariant 8), then writes to the secondary.
 *
 * Context: the worker.
 */
void repl_merge_dispatch(struct repl_chain *chain, struct bio *bio)
{
	struct repl_region_ops *ops = &chain->ops;
	u64 region = repl_bio_begin(chain, bio);
	struct repl_region_op *op, *other;
	struct block_device *from;

	op = repl_region_op_alloc(ops, REPL_GFP_WORKER);
	if (unlikely(!op)) {
		repl_chain_defer(chain, bio);
		return;
	}
	spin_lock_irq(&ops->lock);
	from = merge_claim(chain, op, region, region + 1, &other);
	if (from)
		other = op;
	if (other)
		bio_list_add(&other->waiters, bio);
	spin_unlock_irq(&ops->lock);

	if (from) {
		merge_start(op, from);
		return;
	}
	repl_region_op_free(ops, op);
	if (other)
		return;
	bio_set_dev(bio, chain->secondary);
	submit_bio_noacct(bio);
}

/* Two maps are walked side by side: none far ahead of what the other has next. */
#define MERGE_WINDOW 1024ULL		/* regions */

/* The next region from @region on that has something to merge. No lock. */
static u64 merge_next(struct repl_chain *chain, u64 region)
{
	while (region < chain->nr_regions) {
		u64 end = min(region + MERGE_WINDOW, chain->nr_regions);
		u64 next = repl_map_next(&chain->active_map, region, end);

		next = repl_map_next(&chain->hidden_map, region, next);
		if (next < end)
			return next;
		region = end;
		cond_resched();
	}
	return region;
}

/* The job's: merge the next run, passing over what a writer merges now. */
static sector_t merge_step(struct repl_job *job)
{
	struct repl_chain *chain = job->context;
	struct repl_region_op *op, *other;
	struct block_device *from = NULL;
	sector_t sectors = 0;

	op = repl_region_op_alloc(&chain->ops, GFP_NOIO);
	op->job = true;
	while (!from && (job->cursor = merge_next(chain, job->cursor)) <
	       chain->nr_regions) {
		spin_lock_irq(&chain->ops.lock);
		from = merge_claim(chain, op, job->cursor, chain->nr_regions,
				   &other);
		if (from)
			job->cursor = op->end;
		else
			job->cursor = other ? other->end : job->cursor + 1;
		spin_unlock_irq(&chain->ops.lock);
	}

	if (from) {
		sectors = repl_region_sectors(chain, op->begin, op->end);
		merge_start(op, from);
	} else {
		repl_region_op_free(&chain->ops, op);
	}
	return sectors;
}

static int merge_finish(struct repl_job *job)
{
	struct repl_chain *chain = job->context;
	int r;

	if (atomic64_read(&chain->nr_hidden) ||
	    atomic64_read(&chain->nr_active)) {
		/* Some writer's merge was in the way: its end pokes us. */
		job->cursor = 0;
		return -EAGAIN;
	}

	r = blkdev_issue_flush(chain->secondary);
	if (r)
		repl_chain_latch(chain, REPL_ERR_MERGE_FLUSH, r, 0);
	return r;
}

const struct repl_job_type repl_merge_job = {
	.name = "merge",
	.step = merge_step,
	.finish = merge_finish,
	.ended = repl_chain_merged,
};

static sector_t fill_full_step(struct repl_job *job)
{
	struct repl_chain *chain = job->context;

	return repl_cbw_fill(chain, &job->cursor, chain->nr_regions, false);
}

static sector_t fill_top_step(struct repl_job *job)
{
	struct repl_chain *chain = job->context;

	return repl_cbw_fill(chain, &job->cursor, chain->nr_regions, true);
}

/*
 * Regions that somebody else was preserving were passed over. They count when
 * they are; if that failed, they are ours. The end of such an op pokes us.
 */
static int fill_full_finish(struct repl_job *job)
{
	struct repl_chain *chain = job->context;

	if (atomic64_read(&chain->nr_hidden) == chain->nr_regions)
		return 0;
	job->cursor = 0;
	return -EAGAIN;
}

static int fill_top_finish(struct repl_job *job)
{
	struct repl_chain *chain = job->context;
	u64 region = 0;

	while (region < chain->nr_regions) {
		u64 end = min(region + REPL_WALK_REGIONS, chain->nr_regions);

		region = repl_map_next(&chain->active_map, region, end);
		if (region < end &&
		    !repl_map_get(&chain->hidden_map, region)) {
			job->cursor = 0;
			return -EAGAIN;
		}
		region = min(region + 1, end);
		cond_resched();
	}
	return 0;
}

static void fill_ended(struct repl_job *job, bool done)
{
	repl_chain_event(job->context);
}

const struct repl_job_type repl_fill_full_job = {
	.name = "fill",
	.may_cancel = true,
	.step = fill_full_step,
	.finish = fill_full_finish,
	.ended = fill_ended,
};

const struct repl_job_type repl_fill_top_job = {
	.name = "fill",
	.may_cancel = true,
	.step = fill_top_step,
	.finish = fill_top_finish,
	.ended = fill_ended,
};
