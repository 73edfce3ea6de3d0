// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copy-before-write: what an ingest write does.
 *
 *	map	all its regions preserved? remap, done (the steady state)
 *		else defer to the worker
 *	worker	sort the deferred bios; claim the regions that nobody has
 *		claimed, neighbours in one op; copy; each bio waits on the last
 *		op that it needs
 *	copied	regions -> redirect; wait for the readers of the secondary
 *	log	a metadata device knows that they are in hidden, which was flushed
 *	commit	regions -> preserved; remove the op; submit its bios
 *
 * A copy that fails is taken apart: its bios come back one region at a time,
 * so that only writes to a region that cannot be preserved get an error.
 */

#include <linux/sort.h>

#include "chain.h"
#include "trace.h"

/* A stream this long, and of two misses, gets its next regions preserved. */
#define REPL_STREAM_SECTORS 128

/* Ops that the worker has claimed and not yet started. */
struct cbw_batch {
	struct repl_chain *chain;
	struct list_head ready;
	struct repl_region_op *last;	/* may still grow; on ready */
	struct repl_region_op *spare;
};

static void cbw_copied(int read_err, unsigned long write_err, void *context);

static void cbw_start(struct repl_region_op *op)
{
	struct repl_chain *chain = op->chain;

	trace_repl_cbw_start(chain, op->begin, op->end);
	if (!op->job)
		atomic_inc(&chain->nr_preserving);
	repl_chain_copy(op, chain->secondary, chain->hidden, cbw_copied);
}

static void cbw_start_ready(struct cbw_batch *batch)
{
	struct repl_region_op *op, *next;

	list_for_each_entry_safe(op, next, &batch->ready, list) {
		list_del_init(&op->list);
		cbw_start(op);
	}
	batch->last = NULL;
}

/*
 * Have an op at hand, so that nothing is allocated under the lock. The worker
 * cannot wait for one: it is the one that ends them.
 */
static void cbw_prepare(struct cbw_batch *batch)
{
	if (!batch->spare)
		batch->spare = repl_region_op_alloc(&batch->chain->ops,
						    REPL_GFP_WORKER);
}

/*
 * Claim [begin, end), which is none and has no op, growing the last op where
 * it fits. ops.lock held. Returns the op that has the first of the regions, or
 * NULL if cbw_prepare() is needed first; *claimed says how many it took.
 */
static struct repl_region_op *cbw_claim(struct cbw_batch *batch, u64 begin,
					u64 end, bool solo, u64 *claimed)
{
	struct repl_chain *chain = batch->chain;
	u64 most = solo ? 1 : repl_regions_in(chain, REPL_COPY_SECTORS);
	struct repl_region_op *op = batch->last;

	if (op && op->end == begin && op->end - op->begin < most) {
		*claimed = min(end - begin, most - (op->end - op->begin));
		op->end += *claimed;
		return op;
	}

	op = batch->spare;
	if (!op)
		return NULL;
	batch->spare = NULL;

	*claimed = min(end - begin, most);
	op->chain = chain;
	op->begin = begin;
	op->end = begin + *claimed;
	repl_region_op_insert(&chain->ops, op);
	repl_gate_get(&chain->gate);	/* it may outlive its bios */
	list_add_tail(&op->list, &batch->ready);
	batch->last = solo ? NULL : op;
	return op;
}

/*
 * Claim what @bio needs and nobody has, up to the window, and let it wait.
 * Returns false if it needs nothing any more.
 */
static bool cbw_claim_for(struct cbw_batch *batch, struct bio *bio)
{
	struct repl_chain *chain = batch->chain;
	struct repl_region_ops *ops = &chain->ops;
	u64 region = repl_bio_begin(chain, bio);
	u64 end = repl_bio_end(chain, bio);
	u64 window = repl_regions_in(chain, REPL_WINDOW_SECTORS);
	bool solo = repl_io(bio)->solo;
	struct repl_region_op *wait = NULL;

	cbw_prepare(batch);
	spin_lock_irq(&ops->lock);
	while (region < end && window) {
		struct repl_region_op *op;
		bool present;
		u64 n = repl_map_run(&chain->hidden_map, region, end, &present);

		if (present && repl_map_all(&chain->hidden_map, region,
					    region + n)) {
			region += n;
			continue;
		}
		/* What is not preserved has an op, or may be claimed. */
		op = repl_region_op_find(ops, region, region + n);
		if (op && (present || op->begin <= region)) {
			wait = op;
			region = min(op->end, end);
			continue;
		}
		if (present) {
			/* Redirect without an op: the caller finds out. */
			wait = NULL;
			break;
		}
		if (op)
			n = op->begin - region;
		n = min(n, window);
		op = cbw_claim(batch, region, region + n, solo, &n);
		if (!op) {
			spin_unlock_irq(&ops->lock);
			cbw_prepare(batch);
			if (unlikely(!batch->spare)) {
				/* All are in flight: when one has ended. */
				repl_chain_defer(chain, bio);
				return true;
			}
			/* Others may have ended meanwhile: look again. */
			wait = NULL;
			region = repl_bio_begin(chain, bio);
			spin_lock_irq(&ops->lock);
			continue;
		}
		if (region == chain->stream_end)
			chain->stream_regions += n;
		else
			chain->stream_regions = n;
		region += n;
		chain->stream_end = region;
		window -= n;
		wait = op;
	}
	if (wait)
		bio_list_add(&wait->waiters, bio);
	spin_unlock_irq(&ops->lock);
	return wait;
}

/* A sequential stream: preserve what it will reach next with the same copy. */
static void cbw_claim_ahead(struct cbw_batch *batch)
{
	struct repl_chain *chain = batch->chain;
	u64 most = repl_regions_in(chain, REPL_COPY_SECTORS);
	struct repl_region_op *op = batch->last;
	struct repl_region_op *next;
	bool present;
	u64 begin, end;

	if (!op || op->end != chain->stream_end || op->end >= chain->nr_regions ||
	    chain->stream_regions < max_t(u64, 2, repl_regions_in(chain, REPL_STREAM_SECTORS)))
		return;

	begin = op->end;
	end = min(op->begin + most, begin + chain->stream_regions);
	end = min(end, chain->nr_regions);
	if (end <= begin)
		return;

	spin_lock_irq(&chain->ops.lock);
	end = begin + repl_map_run(&chain->hidden_map, begin, end, &present);
	next = repl_region_op_find(&chain->ops, begin, end);
	if (next)
		end = next->begin;
	if (!present && end > begin) {
		op->end = end;
		chain->stream_regions += end - begin;
		chain->stream_end = end;
	}
	spin_unlock_irq(&chain->ops.lock);
}

/* All regions of @bio are preserved. */
static void cbw_submit(struct repl_chain *chain, struct bio *bio)
{
	/* Invariant 1: fail the write rather than the checkpoint. */
	if (WARN_ON_ONCE(!repl_map_all(&chain->hidden_map,
				       repl_bio_begin(chain, bio),
				       repl_bio_end(chain, bio)))) {
		repl_chain_latch(chain, REPL_ERR_CBW_WRITE, -EIO,
				 bio->bi_iter.bi_sector);
		repl_chain_end(bio, BLK_STS_IOERR);
		return;
	}
	submit_bio_noacct(bio);
}

static int cbw_compare(const void *a, const void *b)
{
	sector_t x = (*(struct bio * const *)a)->bi_iter.bi_sector;
	sector_t y = (*(struct bio * const *)b)->bi_iter.bi_sector;

	return x < y ? -1 : x > y;
}

/**
 * repl_cbw_dispatch() - start the copies that deferred ingest bios need
 * @chain: chain, stage running
 * @bios: bios, gated
 * @nr: how many, at least 1
 *
 * Context: the worker. Bios that need nothing any more are submitted.
 */
void repl_cbw_dispatch(struct repl_chain *chain, struct bio **bios,
		       unsigned int nr)
{
	struct cbw_batch batch = { .chain = chain };
	struct bio_list go = BIO_EMPTY_LIST;
	struct bio *bio;
	unsigned int i;

	INIT_LIST_HEAD(&batch.ready);
	if (nr > 1)
		sort(bios, nr, sizeof(*bios), cbw_compare, NULL);
	for (i = 0; i < nr; i++)
		if (!cbw_claim_for(&batch, bios[i]))
			bio_list_add(&go, bios[i]);
	cbw_claim_ahead(&batch);
	cbw_start_ready(&batch);

	if (batch.spare)
		repl_region_op_free(&chain->ops, batch.spare);
	while ((bio = bio_list_pop(&go)))
		cbw_submit(chain, bio);
}

/* The op is over, well or badly: nobody finds it any more. */
static void cbw_remove(struct repl_region_op *op, struct bio_list *waiters)
{
	struct repl_chain *chain = op->chain;

	if (!op->job)
		atomic_dec(&chain->nr_preserving);
	repl_region_op_remove(&chain->ops, op, waiters);
}

/* Its bios go on, each as far as the map lets it. */
static void cbw_end(struct repl_region_op *op, struct bio_list *go)
{
	struct repl_chain *chain = op->chain;
	struct bio_list again = BIO_EMPTY_LIST;
	struct bio_list waiters = BIO_EMPTY_LIST;
	struct bio *bio;

	cbw_remove(op, &waiters);
	while ((bio = bio_list_pop(&waiters))) {
		if (!repl_io(bio)->view &&
		    repl_map_all(&chain->hidden_map, repl_bio_begin(chain, bio),
				 repl_bio_end(chain, bio)))
			bio_list_add(go, bio);
		else
			bio_list_add(&again, bio);
	}
	repl_chain_defer_all(chain, &again);
	repl_chain_op_end(op, false);
}

/*
 * Nobody reads these regions from the secondary any more, and hidden has them
 * for good: without a metadata device, as soon as the copy has been written.
 */
static void cbw_commit(struct repl_region_op *op)
{
	struct repl_chain *chain = op->chain;
	struct bio_list go = BIO_EMPTY_LIST;
	struct bio *bio;

	repl_map_set(&chain->hidden_map, op->begin, op->end,
		     REPL_REGION_PRESERVED);
	trace_repl_cbw_done(chain, op->begin, op->end, 0);

	cbw_end(op, &go);
	/* The last of them may be what keeps the chain. */
	while ((bio = bio_list_pop(&go)))
		submit_bio_noacct(bio);
}

/*
 * It could not be made durable that hidden has these regions. They are not
 * overwritten then: forget it.
 */
static void cbw_not_logged(struct repl_region_op *op, unsigned int dev)
{
	struct repl_chain *chain = op->chain;
	struct bio_list waiters = BIO_EMPTY_LIST;
	struct bio_list again = BIO_EMPTY_LIST;
	struct bio *bio;

	trace_repl_cbw_done(chain, op->begin, op->end, -EIO);
	atomic64_sub(repl_map_set(&chain->hidden_map, op->begin, op->end,
				  REPL_REGION_NONE), &chain->nr_hidden);
	cbw_remove(op, &waiters);
	while ((bio = bio_list_pop(&waiters))) {
		if (repl_io(bio)->view) {
			bio_list_add(&again, bio);
			continue;
		}
		repl_chain_latch(chain, repl_chain_dev_error(chain, dev), -EIO,
				 repl_region_sector(chain, op->begin));
		repl_chain_end(bio, BLK_STS_IOERR);
	}
	repl_chain_defer_all(chain, &again);
	repl_chain_op_end(op, true);
}

static void cbw_logged(struct repl_log_entry *entry, int error, unsigned int dev)
{
	struct repl_region_op *op = container_of(entry, struct repl_region_op,
						 log);

	if (unlikely(error))
		cbw_not_logged(op, dev);
	else
		cbw_commit(op);
}

/* Make it durable that hidden has these regions, then commit. */
static void cbw_log(struct repl_region_op *op)
{
	struct repl_chain *chain = op->chain;

	if (!chain->store) {
		cbw_commit(op);
		return;
	}
	op->log.kind = REPL_LOG_REGIONS;
	op->log.op = REPL_EXTENT_HIDDEN;
	op->log.begin = op->begin;
	op->log.end = op->end;
	op->log.done = cbw_logged;
	repl_log_add(&chain->store->log, &op->log);
}

/* A copy failed. */
static void cbw_failed(struct repl_region_op *op, bool reading)
{
	struct repl_chain *chain = op->chain;
	struct bio_list waiters = BIO_EMPTY_LIST;
	struct bio_list again = BIO_EMPTY_LIST;
	bool single = op->end - op->begin == 1;
	struct bio *bio;

	trace_repl_cbw_done(chain, op->begin, op->end, -EIO);
	cbw_remove(op, &waiters);
	while ((bio = bio_list_pop(&waiters))) {
		if (!single || repl_io(bio)->view) {
			repl_io(bio)->solo = true;
			bio_list_add(&again, bio);
			continue;
		}
		repl_chain_latch(chain, reading ? REPL_ERR_CBW_READ :
						  REPL_ERR_CBW_WRITE,
				 -EIO, repl_region_sector(chain, op->begin));
		repl_chain_end(bio, BLK_STS_IOERR);
	}
	repl_chain_defer_all(chain, &again);
	repl_chain_op_end(op, true);
}

/* The copy has ended. Context: the worker, or kcopyd's thread for a job. */
static void cbw_copied(int read_err, unsigned long write_err, void *context)
{
	struct repl_region_op *op = context;
	struct repl_chain *chain = op->chain;
	bool job;

	if (unlikely(read_err || write_err)) {
		cbw_failed(op, read_err);
		return;
	}

	/* From here on reads of these regions go to hidden. */
	atomic64_add(repl_map_set(&chain->hidden_map, op->begin, op->end,
				  REPL_REGION_REDIRECT), &chain->nr_hidden);

	job = op->job;
	spin_lock_irq(&chain->grace_lock);
	list_add_tail(&op->list, &chain->grace_pending);
	spin_unlock_irq(&chain->grace_lock);
	if (job)
		queue_work(chain->wq, &chain->worker);
}

/**
 * repl_cbw_grace() - go on with the ops whose readers have left
 * @chain: chain
 *
 * 1. Their regions are redirect: reads go to hidden.
 * 2. Reads that went to the secondary before must end (invariant 4): at once
 *    if there are none, else one grace period is under way while the next
 *    one's ops gather.
 * 3. Then the regions may be overwritten (invariant 1), as soon as the
 *    metadata device knows (invariant 3).
 *
 * Context: the worker, after repl_copier_run().
 */
void repl_cbw_grace(struct repl_chain *chain)
{
	struct repl_region_op *op, *next;

	for (;;) {
		if (list_empty(&chain->grace_current)) {
			spin_lock_irq(&chain->grace_lock);
			list_splice_init(&chain->grace_pending,
					 &chain->grace_current);
			spin_unlock_irq(&chain->grace_lock);
			if (list_empty(&chain->grace_current))
				return;
			if (unlikely(!repl_readers_idle(&chain->readers)))
				repl_readers_begin(&chain->readers);
		}
		if (repl_readers_waiting(&chain->readers) &&
		    !repl_readers_poll(&chain->readers))
			return;
		list_for_each_entry_safe(op, next, &chain->grace_current, list) {
			list_del_init(&op->list);
			cbw_log(op);
		}
	}
}

/**
 * repl_cbw_map() - map a bio of ingest
 * @chain: chain; the bio is inside its gate
 * @bio: bio
 *
 * Context: ->map, or the worker after the gate has opened. Never waits.
 * Return: DM_MAPIO_REMAPPED, DM_MAPIO_SUBMITTED, or DM_MAPIO_KILL (still
 * inside the gate).
 */
int repl_cbw_map(struct repl_chain *chain, struct bio *bio)
{
	u64 begin, end;

	bio_set_dev(bio, chain->secondary);
	if (!op_is_write(bio_op(bio)))
		return DM_MAPIO_REMAPPED;

	if (unlikely(chain->ingest != REPL_INGEST_PRESERVE)) {
		if (chain->ingest == REPL_INGEST_REFUSE)
			return DM_MAPIO_KILL;
		return DM_MAPIO_REMAPPED;
	}
	if (!bio_sectors(bio))
		return DM_MAPIO_REMAPPED;	/* flush */

	begin = repl_bio_begin(chain, bio);
	end = repl_bio_end(chain, bio);
	if (unlikely(bio_end_sector(bio) > chain->len))
		return DM_MAPIO_KILL;		/* nobody preserves that */

	/* Invariant 1. */
	if (likely(repl_map_all(&chain->hidden_map, begin, end)))
		return DM_MAPIO_REMAPPED;

	repl_chain_defer(chain, bio);
	return DM_MAPIO_SUBMITTED;
}

/*
 * Claim for @op what is not preserved from *@cursor on, as far as one copy
 * reaches, or pass over what is or will be. Returns what there is to copy.
 */
static sector_t cbw_fill_claim(struct repl_chain *chain,
			       struct repl_region_op *op, u64 *cursor, u64 end,
			       bool top)
{
	struct repl_region_op *other;
	u64 begin = *cursor;
	sector_t sectors = 0;
	bool present;
	u64 n;

	end = min(end, begin + repl_regions_in(chain, REPL_COPY_SECTORS));
	if (top) {
		end = begin + repl_map_run(&chain->active_map, begin, end,
					   &present);
		if (!present) {
			*cursor = end;
			return 0;
		}
	}

	spin_lock_irq(&chain->ops.lock);
	n = repl_map_run(&chain->hidden_map, begin, end, &present);
	other = present ? NULL : repl_region_op_find(&chain->ops, begin,
						     begin + n);
	if (other)
		n = other->begin > begin ? other->begin - begin :
					   min(other->end, end) - begin;
	if (!present && (!other || other->begin > begin)) {
		op->chain = chain;
		op->job = true;
		op->begin = begin;
		op->end = begin + n;
		repl_region_op_insert(&chain->ops, op);
		repl_gate_get(&chain->gate);
		sectors = repl_region_sectors(chain, op->begin, op->end);
	}
	spin_unlock_irq(&chain->ops.lock);
	*cursor = begin + n;
	return sectors;
}

/**
 * repl_cbw_fill() - preserve the next regions in the background
 * @chain: chain, stage running
 * @cursor: region to look at first; moved behind what was looked at
 * @end: region after the last to look at
 * @top: only regions that are in active
 *
 * Regions that somebody else is preserving are passed over: they will be.
 *
 * Context: the job; repl_job_done() is called when the copy has ended.
 * Return: the size of the copy that was started, in sectors; 0: nothing left.
 */
sector_t repl_cbw_fill(struct repl_chain *chain, u64 *cursor, u64 end,
		       bool top)
{
	sector_t sectors = 0;
	struct repl_region_op *op = repl_region_op_alloc(&chain->ops, GFP_NOIO);

	while (!sectors && *cursor < end) {
		if (top)
			*cursor = repl_map_next(&chain->active_map, *cursor,
						min(end, *cursor +
						    REPL_WALK_REGIONS));
		if (*cursor < end)
			sectors = cbw_fill_claim(chain, op, cursor, end, top);
		cond_resched();
	}

	if (sectors)
		cbw_start(op);
	else
		repl_region_op_free(&chain->ops, op);
	return sectors;
}
