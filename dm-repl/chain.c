// SPDX-License-Identifier: GPL-2.0-only
/*
 * Chain: its life, its gate, its worker, its stages.
 *
 *	message         none      running   failover  failed    done
 *	start           running   -         -         -         running
 *	checkpoint      -         running   -         -         -
 *	stop            -         done      -         -         -
 *	failover        -         failover  -         -         -
 *	retry           -         -         -         failover  -
 *	(merge done)    -         -         done      -         -
 *	(merge failed)  -         -         failed    -         -
 *
 * Every transition happens behind the closed and drained gate. So a bio meets
 * one stage and one epoch from map to end, and the two are read without
 * barriers.
 *
 * With a metadata device a transition is durable before it takes place. If it
 * cannot be, nothing has changed; if nobody can say whether it is durable,
 * ingest is refused until the metadata device takes something again.
 *
 * A failover begins a new lineage of the data. From then on the dirty map says
 * what another copy of the old one lacks: what is not of the checkpoint, and
 * what the view writes. It ends with the next start.
 */

#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "chain.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

static const char * const stage_names[REPL_NR_STAGES] = {
	[REPL_STAGE_NONE]		= "none",
	[REPL_STAGE_RUNNING]		= "running",
	[REPL_STAGE_FAILOVER]		= "failover",
	[REPL_STAGE_FAILOVER_FAILED]	= "failover-failed",
	[REPL_STAGE_DONE]		= "done",
};

static const char * const error_names[REPL_NR_ERRORS] = {
	[REPL_ERR_CBW_READ]		= "cbw-read",
	[REPL_ERR_CBW_WRITE]		= "cbw-write",
	[REPL_ERR_SECONDARY_WRITE]	= "secondary-write",
	[REPL_ERR_FLUSH]		= "flush",
	[REPL_ERR_VIEW_READ]		= "view-read",
	[REPL_ERR_VIEW_WRITE]		= "view-write",
	[REPL_ERR_MERGE_READ]		= "merge-read",
	[REPL_ERR_MERGE_WRITE]		= "merge-write",
	[REPL_ERR_MERGE_FLUSH]		= "merge-flush",
	[REPL_ERR_METADATA]		= "metadata",
};

/**
 * repl_stage_name() - word for the status line
 * @stage: stage
 */
const char *repl_stage_name(enum repl_stage stage)
{
	return stage_names[stage];
}

/*
 * ---- Bios: entering, deferring, ending ----
 */

/**
 * repl_chain_enter() - take a bio through the gate
 * @chain: chain
 * @bio: bio with its repl_io set up
 * @may_trim: called from ->map
 *
 * A bio of the view that has to park is trimmed to one region: nobody knows
 * which device has it when the gate opens, and then it can't be trimmed.
 *
 * Context: any.
 * Return: true if it is inside; false if it was parked.
 */
bool repl_chain_enter(struct repl_chain *chain, struct bio *bio, bool may_trim)
{
	while (unlikely(!repl_gate_enter(&chain->gate))) {
		if (may_trim && repl_io(bio)->view)
			repl_view_trim(chain, bio);
		if (repl_gate_park(&chain->gate, bio))
			return false;
	}
	return true;
}

/* Map bios once more that were parked outside the gate. */
static void chain_remap(struct repl_chain *chain, struct bio_list *bios)
{
	struct bio *bio;
	int r;

	while ((bio = bio_list_pop(bios))) {
		if (!repl_chain_enter(chain, bio, false))
			continue;
		repl_io(bio)->chain = chain;
		r = repl_io(bio)->view ? repl_view_map(chain, bio, false) :
					 repl_cbw_map(chain, bio);
		if (r == DM_MAPIO_REMAPPED)
			submit_bio_noacct(bio);
		else if (r == DM_MAPIO_KILL)
			repl_chain_end(bio, BLK_STS_IOERR);
	}
}

/**
 * repl_chain_defer() - leave a bio to the worker
 * @chain: chain
 * @bio: bio inside the gate
 *
 * Context: any.
 */
void repl_chain_defer(struct repl_chain *chain, struct bio *bio)
{
	struct bio_list one = BIO_EMPTY_LIST;

	bio_list_add(&one, bio);
	repl_chain_defer_all(chain, &one);
}

/**
 * repl_chain_defer_all() - leave bios to the worker
 * @chain: chain
 * @bios: bios inside the gate, may be none
 *
 * Context: any.
 */
void repl_chain_defer_all(struct repl_chain *chain, struct bio_list *bios)
{
	unsigned long flags;

	if (bio_list_empty(bios))
		return;
	/* The worker may end the last of them at once; then RCU keeps us. */
	rcu_read_lock();
	spin_lock_irqsave(&chain->deferred_lock, flags);
	bio_list_merge(&chain->deferred, bios);
	spin_unlock_irqrestore(&chain->deferred_lock, flags);
	queue_work(chain->wq, &chain->worker);
	rcu_read_unlock();
}

static void chain_worker(struct work_struct *work)
{
	struct repl_chain *chain = container_of(work, struct repl_chain,
						worker);
	struct bio_list bios = BIO_EMPTY_LIST;
	struct blk_plug plug;
	unsigned int nr = 0;
	struct bio *bio;

	spin_lock_irq(&chain->deferred_lock);
	bio_list_merge(&bios, &chain->deferred);
	bio_list_init(&chain->deferred);
	spin_unlock_irq(&chain->deferred_lock);

	blk_start_plug(&plug);
	repl_copier_run(&chain->copier);
	repl_cbw_grace(chain);
	while ((bio = bio_list_pop(&bios))) {
		if (repl_io(bio)->view) {
			repl_view_dispatch(chain, bio);
			continue;
		}
		chain->batch[nr++] = bio;
		if (nr == REPL_BATCH) {
			repl_cbw_dispatch(chain, chain->batch, nr);
			nr = 0;
		}
	}
	if (nr)
		repl_cbw_dispatch(chain, chain->batch, nr);
	blk_finish_plug(&plug);
}

/**
 * repl_chain_dev_error() - the class of an error of the log
 * @chain: chain
 * @dev: the device that failed
 */
enum repl_error repl_chain_dev_error(struct repl_chain *chain, unsigned int dev)
{
	bool merging = chain->stage == REPL_STAGE_FAILOVER ||
		       chain->stage == REPL_STAGE_FAILOVER_FAILED;

	switch (dev) {
	case REPL_LOG_DEV_SECONDARY:
		return merging ? REPL_ERR_MERGE_FLUSH : REPL_ERR_FLUSH;
	case REPL_LOG_DEV_HIDDEN:
		return REPL_ERR_CBW_WRITE;
	case REPL_LOG_DEV_ACTIVE:
		return REPL_ERR_VIEW_WRITE;
	default:
		return REPL_ERR_METADATA;
	}
}

static void chain_barrier_done(struct repl_log_entry *entry, int error,
			       unsigned int dev)
{
	struct repl_io *io = container_of(entry, struct repl_io, log);
	struct bio *bio = dm_bio_from_per_bio_data(io, sizeof(*io));

	if (unlikely(error)) {
		repl_chain_latch(io->chain,
				 repl_chain_dev_error(io->chain, dev), error,
				 io->sector);
		repl_chain_end(bio, BLK_STS_IOERR);
		return;
	}
	bio_endio(bio);
}

/**
 * repl_chain_barrier() - end a bio when all that was noted is durable
 * @bio: bio of the view, gated, of a chain with a metadata device
 *
 * Context: any.
 */
void repl_chain_barrier(struct bio *bio)
{
	struct repl_io *io = repl_io(bio);

	io->log.kind = REPL_LOG_BARRIER;
	io->log.done = chain_barrier_done;
	repl_log_add(&io->chain->store->log, &io->log);
}

static void chain_kick(struct repl_readers *readers)
{
	struct repl_chain *chain = container_of(readers, struct repl_chain,
						readers);

	queue_work(chain->wq, &chain->worker);
}

static void chain_copier_kick(struct repl_copier *copier)
{
	struct repl_chain *chain = container_of(copier, struct repl_chain,
						copier);

	queue_work(chain->wq, &chain->worker);
}

/**
 * repl_chain_copy() - copy the regions of an op
 * @op: op
 * @from: device to read
 * @to: device to write
 * @fn: called when done, with the op
 *
 * Context: the worker, or the job's work for an op of the job's.
 */
void repl_chain_copy(struct repl_region_op *op, struct block_device *from,
		     struct block_device *to, dm_kcopyd_notify_fn fn)
{
	struct repl_chain *chain = op->chain;

	op->copy.from = from;
	op->copy.to = to;
	op->copy.sector = repl_region_sector(chain, op->begin);
	op->copy.count = repl_region_sectors(chain, op->begin, op->end);
	op->copy.fn = fn;
	op->copy.context = op;
	if (op->job)
		repl_job_copy(chain->job_copy, &op->copy);
	else
		repl_copier_add(&chain->copier, &op->copy);
}

/**
 * repl_chain_op_end() - the last of an op
 * @op: op, removed from the tree, its bios gone on
 * @error: it failed
 *
 * Context: any. The chain may be gone on return.
 */
void repl_chain_op_end(struct repl_region_op *op, bool error)
{
	struct repl_chain *chain = op->chain;

	if (op->job)
		repl_job_done(&chain->job, error);
	else
		repl_job_poke(&chain->job);
	repl_region_op_free(&chain->ops, op);
	repl_gate_put(&chain->gate);
}

/**
 * repl_chain_end() - end a bio with an error of ours, or latched already
 * @bio: bio that was not submitted
 * @status: its status
 *
 * Context: any.
 */
void repl_chain_end(struct bio *bio, blk_status_t status)
{
	repl_io(bio)->latched = true;
	bio->bi_status = status;
	bio_endio(bio);
}

/* Errors that say something about a request or its sender, not a device. */
static bool chain_latches(struct bio *bio, blk_status_t status)
{
	if (status == BLK_STS_NOTSUPP || status == REPL_STS_INVAL ||
	    status == BLK_STS_AGAIN || status == BLK_STS_DM_REQUEUE)
		return false;
	if (status == BLK_STS_TARGET)
		return bio_op(bio) != REQ_OP_DISCARD &&
		       bio_op(bio) != REQ_OP_WRITE_ZEROES;
	/* A read-ahead may fail for any reason and is read again. */
	return !(bio->bi_opf & REQ_RAHEAD);
}

/**
 * repl_chain_end_io() - a bio of either target has ended
 * @bio: bio
 * @status: how
 *
 * Context: any. The chain may be gone on return.
 * Return: DM_ENDIO_DONE.
 */
int repl_chain_end_io(struct bio *bio, blk_status_t status)
{
	struct repl_io *io = repl_io(bio);
	struct repl_chain *chain = io->chain;
	enum repl_error error;

	if (unlikely(!chain))
		return DM_ENDIO_DONE;

	if (unlikely(io->op)) {
		repl_view_overwritten(chain, io->op, status);
		io->op = NULL;
	}
	/* A write that is durable: so must be what is noted of its region. */
	if (unlikely(io->fua)) {
		io->fua = false;
		if (!status && repl_log_noted(&chain->store->log)) {
			repl_chain_barrier(bio);
			return DM_ENDIO_INCOMPLETE;
		}
	}
	if (io->reader)
		repl_readers_leave(&chain->readers, io->gen);
	if (unlikely(status) && !io->latched && chain_latches(bio, status) &&
	    (io->view || op_is_write(bio_op(bio)))) {
		if (!io->view)
			error = io->flush ? REPL_ERR_FLUSH :
					    REPL_ERR_SECONDARY_WRITE;
		else if (op_is_write(bio_op(bio)))
			error = REPL_ERR_VIEW_WRITE;
		else
			error = REPL_ERR_VIEW_READ;
		repl_chain_latch(chain, error, blk_status_to_errno(status),
				 io->sector);
	}
	io->chain = NULL;
	repl_gate_put(&chain->gate);
	return DM_ENDIO_DONE;
}

/* error_lock held. */
static void chain_set_errors(struct repl_chain *chain, unsigned long errors)
{
	WRITE_ONCE(chain->errors, errors);
	if (chain->loaded)
		repl_log_set_errors(&chain->store->log, errors);
}

/**
 * repl_chain_latch() - remember an error until it is cleared
 * @chain: chain
 * @error: class
 * @err: negative errno
 * @sector: where, on any of the devices: they are identity mapped
 *
 * Context: any.
 */
void repl_chain_latch(struct repl_chain *chain, enum repl_error error,
		      int err, sector_t sector)
{
	unsigned long flags;
	bool fresh;

	spin_lock_irqsave(&chain->error_lock, flags);
	fresh = !(chain->errors & BIT(error));
	if (fresh)
		chain->latched[error] = (struct repl_latched) {
			.when = ktime_get(), .err = -err, .sector = sector,
		};
	chain_set_errors(chain, chain->errors | BIT(error));
	spin_unlock_irqrestore(&chain->error_lock, flags);

	trace_repl_error(chain, error, err, sector);
	if (!fresh)
		return;
	DMERR_LIMIT("%s: %s error %d at sector %llu", chain->name,
		    error_names[error], err, (unsigned long long)sector);
	repl_chain_event(chain);
}

static void chain_forget(struct repl_chain *chain, unsigned long errors)
{
	spin_lock_irq(&chain->error_lock);
	chain_set_errors(chain, chain->errors & ~errors);
	spin_unlock_irq(&chain->error_lock);
}

/*
 * ---- Life ----
 */

static void chain_free(struct repl_chain *chain)
{
	if (chain->store)
		repl_store_destroy(chain->store);
	if (!IS_ERR_OR_NULL(chain->job_copy))
		dm_kcopyd_client_destroy(chain->job_copy);
	if (chain->slow_wq)
		destroy_workqueue(chain->slow_wq);
	if (chain->wq)
		destroy_workqueue(chain->wq);
	repl_copier_exit(&chain->copier);
	repl_readers_exit(&chain->readers);
	repl_gate_exit(&chain->gate);
	repl_region_ops_exit(&chain->ops);
	if (chain->maps.sectors)
		repl_dirty_exit(&chain->maps);
	repl_bits_exit(&chain->dirty);
	repl_map_exit(&chain->active_map);
	repl_map_exit(&chain->hidden_map);
	kfree(chain);
}

static void chain_init(struct repl_chain *chain,
		       const struct repl_chain_params *params)
{
	chain->secondary = params->secondary;
	chain->hidden = params->hidden;
	chain->active = params->active;
	chain->len = params->len;
	chain->region_shift = __ffs(params->region_size);
	chain->nr_regions = ((params->len - 1) >> chain->region_shift) + 1;
	chain->stage = REPL_STAGE_NONE;
	spin_lock_init(&chain->deferred_lock);
	bio_list_init(&chain->deferred);
	INIT_WORK(&chain->worker, chain_worker);
	chain->stream_end = U64_MAX;
	spin_lock_init(&chain->grace_lock);
	INIT_LIST_HEAD(&chain->grace_pending);
	INIT_LIST_HEAD(&chain->grace_current);
	mutex_init(&chain->lock);
	spin_lock_init(&chain->error_lock);
	INIT_WORK(&chain->event_work, repl_chain_event_work);
}

/* What the store asks of us. */
static int chain_store_flush(void *context, unsigned int devs)
{
	struct repl_chain *chain = context;
	int r = 0;

	if (devs & REPL_LOG_DEV_SECONDARY)
		r = blkdev_issue_flush(chain->secondary);
	if (!r && (devs & REPL_LOG_DEV_HIDDEN))
		r = blkdev_issue_flush(chain->hidden);
	if (!r && (devs & REPL_LOG_DEV_ACTIVE))
		r = blkdev_issue_flush(chain->active);
	return r;
}

/* Those that copy now, and those that wait for the log already. */
static unsigned int chain_store_coming(void *context)
{
	struct repl_chain *chain = context;

	return atomic_read(&chain->nr_preserving);
}

static bool chain_store_bits(void *context, enum repl_disk_map map, u64 begin,
			     unsigned int nr, u8 *bits)
{
	struct repl_chain *chain = context;
	bool some = false;

	if (map == REPL_DISK_HIDDEN)
		return repl_map_bits(&chain->hidden_map, begin, nr, bits);
	if (map == REPL_DISK_ACTIVE)
		return repl_map_bits(&chain->active_map, begin, nr, bits);

	/*
	 * The maps first: a merge takes out of them what it has made dirty. If
	 * it does not lag, all is marked: pairs with the release there.
	 */
	if (smp_load_acquire(&chain->dirty_lags)) {
		some = repl_map_bits(&chain->hidden_map, begin, nr, bits);
		some |= repl_map_bits(&chain->active_map, begin, nr, bits);
		smp_rmb();	/* as said */
	}
	return repl_bits_bytes(&chain->dirty, begin, nr, bits) || some;
}

static void chain_empty_map(struct repl_map *map, atomic64_t *nr)
{
	repl_map_empty(map);
	atomic64_set(nr, 0);
}

static void chain_map_to_dirty(struct repl_chain *chain,
			       const struct repl_map *map)
{
	u64 region = 0;

	while (region < chain->nr_regions) {
		u64 end = min(region + REPL_WALK_REGIONS, chain->nr_regions);
		u64 nr;
		bool present;

		region = repl_map_next(map, region, end);
		if (region < end) {
			nr = repl_map_run(map, region, end, &present);
			/* Or a merge has just taken it, and marked it. */
			if (present)
				repl_bits_set(&chain->dirty, region,
					      region + nr);
			region += nr;
		}
		cond_resched();
	}
}

/* What is not of the checkpoint. A merge may take some of it out meanwhile. */
static void chain_add_to_dirty(struct repl_chain *chain)
{
	if (atomic64_read(&chain->nr_hidden))
		chain_map_to_dirty(chain, &chain->hidden_map);
	if (atomic64_read(&chain->nr_active))
		chain_map_to_dirty(chain, &chain->active_map);
}

/*
 * A failover makes dirty what hidden and active have, and must not take longer
 * the more that is: until somebody asks for the dirty map, it is dirty by being
 * there, and a merge marks what it takes away. chain->lock held.
 */
static void chain_catch_up_dirty(struct repl_chain *chain)
{
	if (!chain->dirty_lags)
		return;
	chain_add_to_dirty(chain);
	/* All is marked before it is said: chain_store_bits(). */
	smp_store_release(&chain->dirty_lags, false);
}

static int chain_store_apply(void *context, enum repl_apply what, u64 begin,
			     u64 end)
{
	struct repl_chain *chain = context;

	switch (what) {
	case REPL_APPLY_HIDDEN:
		atomic64_add(repl_map_set(&chain->hidden_map, begin, end,
					  REPL_REGION_PRESERVED),
			     &chain->nr_hidden);
		break;
	case REPL_APPLY_ACTIVE:
		atomic64_add(repl_map_set(&chain->active_map, begin, end,
					  REPL_REGION_PRESERVED),
			     &chain->nr_active);
		break;
	case REPL_APPLY_MERGED:
		atomic64_sub(repl_map_set(&chain->hidden_map, begin, end,
					  REPL_REGION_NONE), &chain->nr_hidden);
		atomic64_sub(repl_map_set(&chain->active_map, begin, end,
					  REPL_REGION_NONE), &chain->nr_active);
		break;
	case REPL_APPLY_DIRTY:
		repl_bits_set(&chain->dirty, begin, end);
		break;
	case REPL_APPLY_CLEAN:
		repl_bits_clear(&chain->dirty, begin, end);
		break;
	case REPL_APPLY_EMPTY_HIDDEN:
		chain_empty_map(&chain->hidden_map, &chain->nr_hidden);
		break;
	case REPL_APPLY_EMPTY_ACTIVE:
		chain_empty_map(&chain->active_map, &chain->nr_active);
		break;
	case REPL_APPLY_EMPTY_DIRTY:
		repl_bits_wipe(&chain->dirty);
		break;
	case REPL_APPLY_DIRTY_ADD:
		chain_add_to_dirty(chain);
		break;
	}
	return 0;
}

static const struct repl_store_ops chain_store_ops = {
	.flush = chain_store_flush,
	.coming = chain_store_coming,
	.bits = chain_store_bits,
	.apply = chain_store_apply,
};

static int chain_create_store(struct repl_chain *chain,
			      const struct repl_chain_params *params,
			      char **error)
{
	struct repl_store *store;

	store = repl_store_create(params->md, params->metadata, params->len,
				  params->region_size, &chain_store_ops, chain,
				  error);
	if (IS_ERR(store))
		return PTR_ERR(store);
	chain->store = store;
	store->min_checkpoint = params->min_checkpoint;
	if (!params->uuid)
		return 0;
	*error = "Metadata device is blank: it has not the UUID that it should have";
	if (store->blank)
		return -ENODATA;
	*error = "Metadata belongs to another device: its UUID is another one";
	return memcmp(store->log.meta.uuid, params->uuid, REPL_UUID_SIZE) ?
	       -EINVAL : 0;
}

/**
 * repl_chain_create() - a chain in stage none
 * @params: devices and sizes, checked
 * @error: set to what failed
 *
 * Context: process.
 * Return: the chain, or an ERR_PTR.
 */
struct repl_chain *repl_chain_create(const struct repl_chain_params *params,
				     char **error)
{
	struct repl_chain *chain = kzalloc(sizeof(*chain), GFP_KERNEL);
	int r = -ENOMEM;

	*error = "Cannot allocate chain";
	if (!chain)
		return ERR_PTR(-ENOMEM);
	chain_init(chain, params);

	if (repl_region_ops_init(&chain->ops) ||
	    repl_gate_init(&chain->gate) ||
	    repl_readers_init(&chain->readers, chain_kick))
		goto bad;
	*error = "Cannot allocate pages for copies";
	if (repl_copier_init(&chain->copier, chain_copier_kick))
		goto bad;
	*error = "Cannot allocate region maps";
	if (repl_map_init(&chain->hidden_map, chain->nr_regions) ||
	    repl_map_init(&chain->active_map, chain->nr_regions) ||
	    repl_bits_init(&chain->dirty, chain->nr_regions) ||
	    repl_dirty_init(&chain->maps, chain->len, chain->region_shift))
		goto bad;
	repl_dirty_reserve(&chain->maps, &chain->dirty_name, "dirty",
			   &chain->dirty);
	*error = "Cannot allocate workqueue";
	chain->wq = repl_alloc_workqueue("dm-repl", 0);
	chain->slow_wq = repl_alloc_workqueue("dm-repl-slow", 0);
	if (!chain->wq || !chain->slow_wq)
		goto bad;
	repl_job_init(&chain->job, chain->slow_wq, chain);
	*error = "Cannot create kcopyd client";
	chain->job_copy = dm_kcopyd_client_create(NULL);
	if (IS_ERR(chain->job_copy))
		goto bad;
	if (params->metadata) {
		r = chain_create_store(chain, params, error);
		if (r)
			goto bad;
	}
	return chain;
bad:
	chain_free(chain);
	return ERR_PTR(r);
}

/**
 * repl_chain_destroy() - end of a chain that no table uses any more
 * @chain: chain, not found by ingest since an RCU grace period ago
 *
 * Context: process; waits for what is in flight, starts no I/O.
 */
void repl_chain_destroy(struct repl_chain *chain)
{
	struct bio_list parked = BIO_EMPTY_LIST;
	struct bio *bio;

	/* First the end of a merge, if there is one: it opens the gate. */
	repl_job_hold(&chain->job, true);
	repl_job_settle(&chain->job);
	repl_gate_close(&chain->gate);
	repl_gate_drain_all(&chain->gate);

	/* Ingest writes that came while a checkpoint was prepared. */
	repl_gate_open(&chain->gate, &parked);
	while ((bio = bio_list_pop(&parked))) {
		repl_io(bio)->chain = NULL;
		bio_io_error(bio);
	}

	repl_job_exit(&chain->job);
	cancel_work_sync(&chain->event_work);
	cancel_work_sync(&chain->worker);
	synchronize_rcu();	/* see repl_gate_put() */
	chain_free(chain);
}

/* Regions may have another size, and the device another length. */
static void chain_inherit_dirty(struct repl_chain *chain,
				const struct repl_chain *old)
{
	sector_t len = min(chain->len, old->len);
	u64 region = 0;

	repl_bits_wipe(&chain->dirty);
	while ((region = repl_bits_next(&old->dirty, region)) <
	       old->nr_regions) {
		u64 end = region + repl_bits_run(&old->dirty, region,
						 old->nr_regions);
		sector_t first = (sector_t)region << old->region_shift;
		sector_t last = min((sector_t)end << old->region_shift, len);

		if (first < last)
			repl_bits_set(&chain->dirty,
				      first >> chain->region_shift,
				      ((last - 1) >> chain->region_shift) + 1);
		region = end;
		cond_resched();
	}
}

/**
 * repl_chain_inherit() - take over what outlives a change of devices
 * @chain: new chain, not live yet
 * @old: chain that it replaces, in stage none or done
 */
void repl_chain_inherit(struct repl_chain *chain, struct repl_chain *old)
{
	chain->stage = old->stage;
	chain->fenced = old->fenced;
	chain->checkpoint_id = old->checkpoint_id;
	chain->identity = old->identity;
	chain->pending = old->pending;
}

static const enum repl_disk_stage disk_stages[REPL_NR_STAGES] = {
	[REPL_STAGE_NONE]		= REPL_DISK_NONE,
	[REPL_STAGE_RUNNING]		= REPL_DISK_RUNNING,
	[REPL_STAGE_FAILOVER]		= REPL_DISK_FAILOVER,
	[REPL_STAGE_FAILOVER_FAILED]	= REPL_DISK_FAILOVER,
	[REPL_STAGE_DONE]		= REPL_DISK_DONE,
};

static const enum repl_stage chain_stages[REPL_NR_DISK_STAGES] = {
	[REPL_DISK_NONE]	= REPL_STAGE_NONE,
	[REPL_DISK_RUNNING]	= REPL_STAGE_RUNNING,
	[REPL_DISK_FAILOVER]	= REPL_STAGE_FAILOVER,
	[REPL_DISK_DONE]	= REPL_STAGE_DONE,
};

/* The state that the chain is in. */
static void chain_get_state(struct repl_chain *chain,
			    struct repl_meta_state *state)
{
	*state = (struct repl_meta_state) {
		.checkpoint = chain->checkpoint_id,
		.stage = disk_stages[chain->stage],
		.flags = chain->fenced ? REPL_STATE_FENCED : 0,
		.identity = chain->identity,
	};
	if (chain->prepared || chain->pending) {
		state->prepared = chain->prepared ? chain->prepared_id :
						    chain->pending;
		state->flags |= REPL_STATE_PREPARED;
	}
}

/*
 * Make a state durable before it is entered. 0: it is, or there is nothing to
 * make it so on; else the error is latched.
 */
static int chain_record(struct repl_chain *chain,
			const struct repl_meta_state *state, u16 flags,
			unsigned int flush)
{
	unsigned int dev;
	int r;

	if (!chain->store)
		return 0;
	r = repl_log_change(&chain->store->log, state, flags, flush, &dev);
	if (r)
		repl_chain_latch(chain, repl_chain_dev_error(chain, dev), r, 0);
	return r ? -EIO : 0;
}

/* Gate closed and drained, or nothing can be in flight yet. */
static void chain_set_ingest(struct repl_chain *chain)
{
	/*
	 * A start, or a prepared state, may be or become a checkpoint: then
	 * this write is behind it.
	 */
	if (chain->fenced || chain->prepared ||
	    (chain->store && repl_log_ambiguous(&chain->store->log)))
		chain->ingest = REPL_INGEST_REFUSE;
	else if (chain->stage != REPL_STAGE_RUNNING)
		chain->ingest = REPL_INGEST_PASS;
	else
		chain->ingest = REPL_INGEST_PRESERVE;
}

static void chain_take_state(struct repl_chain *chain,
			     const struct repl_meta_state *state)
{
	unsigned int i;

	chain->stage = chain_stages[state->stage];
	chain->checkpoint_id = state->checkpoint;
	chain->identity = state->identity;
	chain->fenced = state->flags & REPL_STATE_FENCED;
	chain->prepared = chain->stage == REPL_STAGE_RUNNING &&
			  state->flags & REPL_STATE_PREPARED;
	chain->prepared_id = chain->prepared ? state->prepared : 0;
	chain->pending = chain->prepared ? 0 : state->prepared;

	spin_lock_irq(&chain->error_lock);
	for (i = 0; i < REPL_NR_ERRORS; i++)
		if (state->errors & ~chain->errors & BIT(i))
			chain->latched[i] = (struct repl_latched) {
				.when = ktime_get(), .err = EIO,
			};
	chain->errors |= state->errors & (BIT(REPL_NR_ERRORS) - 1);
	spin_unlock_irq(&chain->error_lock);
}

/**
 * repl_chain_load() - what the metadata device says, or the chain before
 * @chain: chain that is about to become live
 * @old: chain that it replaces, in stage none or done; or NULL
 *
 * Context: ->preresume: nothing is in flight. Writes that it has begun.
 * Return: 0 or a negative errno.
 */
int repl_chain_load(struct repl_chain *chain, struct repl_chain *old)
{
	struct repl_meta_state state = {};
	ktime_t start = ktime_get();
	const char *why = NULL;
	u16 flags = 0;
	bool learns;
	int r;

	if (old) {
		chain->job.speed = old->job.speed;
		repl_chain_inherit(chain, old);
		if (!chain->store)
			chain_inherit_dirty(chain, old);
	}
	/* Before ingest finds it: the fence must have no gap. */
	if (!chain->store) {
		chain_set_ingest(chain);
		return 0;
	}

	chain_empty_map(&chain->hidden_map, &chain->nr_hidden);
	chain_empty_map(&chain->active_map, &chain->nr_active);
	repl_bits_wipe(&chain->dirty);
	r = repl_store_open(chain->store, chain->len,
			    repl_region_sector(chain, 1), &state, &why);
	if (!r)
		r = repl_store_settle(chain->store, &why);
	if (r) {
		DMERR("%s: %s (error %d)", chain->name, why, r);
		return r;
	}
	/* One that knows nothing yet learns from the chain before. */
	learns = old && state.stage == REPL_DISK_NONE && !state.checkpoint &&
		 state.identity.role == REPL_ROLE_NONE;
	if (learns)
		chain_inherit_dirty(chain, old);
	else
		chain_take_state(chain, &state);

	/* What the view wrote to a running chain ends with it. */
	if (chain->stage == REPL_STAGE_RUNNING)
		flags = REPL_LOG_EMPTY_ACTIVE | REPL_LOG_EMPTY_DIRTY;
	else if (chain->stage != REPL_STAGE_FAILOVER)
		flags = REPL_LOG_EMPTY_EPOCH;
	if (flags & REPL_LOG_EMPTY_ACTIVE)
		chain_empty_map(&chain->active_map, &chain->nr_active);
	if (flags & REPL_LOG_EMPTY_HIDDEN)
		chain_empty_map(&chain->hidden_map, &chain->nr_hidden);
	/* A failover that could not be recorded may have left some. */
	if (flags & REPL_LOG_EMPTY_DIRTY)
		repl_bits_wipe(&chain->dirty);

	/*
	 * What this secondary holds is gone on from, as it was found: what is
	 * in its cache must not be lost later.
	 */
	r = blkdev_issue_flush(chain->secondary);
	if (r)
		repl_chain_latch(chain, REPL_ERR_FLUSH, r, 0);

	/* Blocks that an earlier life has left behind end here. */
	chain_get_state(chain, &state);
	repl_log_set_errors(&chain->store->log, chain->errors);
	r = chain_record(chain, &state, flags, 0);
	if (!r && learns && repl_bits_count(&chain->dirty))
		r = repl_log_rewrite(&chain->store->log);
	if (r) {
		DMERR("%s: cannot write to the metadata device", chain->name);
		return r;
	}
	chain->loaded = true;
	chain_set_ingest(chain);
	DMINFO("%s: %s, checkpoint %llu; hidden %llu, active %llu, dirty %llu; read in %lld ms",
	       chain->name, stage_names[chain->stage], chain->checkpoint_id,
	       (u64)atomic64_read(&chain->nr_hidden),
	       (u64)atomic64_read(&chain->nr_active),
	       repl_bits_count(&chain->dirty),
	       ktime_ms_delta(ktime_get(), start));
	return 0;
}

/**
 * repl_chain_loaded() - the chain is live: go on with what it was at
 * @chain: chain
 *
 * Context: ->preresume.
 */
void repl_chain_loaded(struct repl_chain *chain)
{
	if (chain->stage != REPL_STAGE_FAILOVER)
		return;
	chain->merge_total = atomic64_read(&chain->nr_hidden) +
			     atomic64_read(&chain->nr_active);
	repl_job_start(&chain->job, &repl_merge_job);
}

/**
 * repl_chain_sync() - leave nothing to be made durable by a later flush
 * @chain: chain, its view suspended, its job held and settled
 *
 * Without it a view that is removed in an orderly way could have regions
 * merged again over what it has written since.
 *
 * Context: ->postsuspend.
 */
void repl_chain_sync(struct repl_chain *chain)
{
	struct repl_log *log;
	int r;

	if (!chain->loaded)
		return;
	log = &chain->store->log;
	/* What the view of a running chain wrote ends with it. */
	if (READ_ONCE(chain->errors) == READ_ONCE(log->state.errors) &&
	    (chain->stage == REPL_STAGE_RUNNING || !repl_log_noted(log)))
		return;
	r = repl_log_sync(log);
	if (r)
		repl_chain_latch(chain, REPL_ERR_METADATA, r, 0);
}

/**
 * repl_chain_inherit_errors() - take over what went wrong
 * @chain: new chain, live
 * @old: chain that it replaced, drained
 */
void repl_chain_inherit_errors(struct repl_chain *chain, struct repl_chain *old)
{
	unsigned int i;

	spin_lock_irq(&chain->error_lock);
	for (i = 0; i < REPL_NR_ERRORS; i++)
		if (old->errors & BIT(i))
			chain->latched[i] = old->latched[i];
	chain_set_errors(chain, chain->errors | old->errors);
	spin_unlock_irq(&chain->error_lock);
}

/*
 * ---- Transitions ----
 */

/*
 * A point in time: nothing is in flight on either target, no op, no copy. If
 * a checkpoint is prepared, that holds already.
 */
static int chain_close(struct repl_chain *chain)
{
	ktime_t start = ktime_get();
	int r;

	lockdep_assert_held(&chain->lock);
	if (chain->closed)
		return 0;
	repl_job_hold(&chain->job, true);
	repl_gate_close(&chain->gate);
	r = repl_gate_drain(&chain->gate);
	if (r) {
		struct bio_list parked = BIO_EMPTY_LIST;

		repl_gate_open(&chain->gate, &parked);
		chain_remap(chain, &parked);
		repl_job_hold(&chain->job, false);
		return r;
	}
	chain->closed = true;
	trace_repl_gate_wait(chain, ktime_to_ns(ktime_sub(ktime_get(), start)));
	WARN_ON_ONCE(chain->ops.nr);	/* invariant 5 */
	return 0;
}

static void chain_open(struct repl_chain *chain)
{
	struct bio_list parked = BIO_EMPTY_LIST;

	chain->closed = false;
	chain_set_ingest(chain);
	repl_gate_open(&chain->gate, &parked);
	chain_remap(chain, &parked);
	repl_job_hold(&chain->job, false);
	repl_chain_event(chain);
}

static void chain_set_stage(struct repl_chain *chain, enum repl_stage stage)
{
	trace_repl_stage(chain, chain->stage, stage);
	DMINFO("%s: stage %s", chain->name, stage_names[stage]);
	WRITE_ONCE(chain->stage, stage);
}

/* Gate closed and drained (invariant 5). */
static void chain_empty(struct repl_chain *chain)
{
	chain_empty_map(&chain->hidden_map, &chain->nr_hidden);
	chain_empty_map(&chain->active_map, &chain->nr_active);
	/* A fill goes on in nothing: its backup was of the old checkpoint. */
	repl_job_cancel(&chain->job);
}

/* Make all that arrived durable. Gate closed and drained. */
static int chain_flush(struct repl_chain *chain)
{
	int r;

	/* Among what was drained there may have been an error. */
	if (READ_ONCE(chain->errors) & REPL_ERRS_REFUSE)
		return -EIO;
	r = blkdev_issue_flush(chain->secondary);
	if (r) {
		repl_chain_latch(chain, REPL_ERR_FLUSH, r, 0);
		return -EIO;
	}
	return 0;
}

static void chain_commit(struct repl_chain *chain, u64 id)
{
	trace_repl_checkpoint(chain, id, atomic64_read(&chain->nr_hidden),
			      atomic64_read(&chain->nr_active));
	chain_empty(chain);
	WRITE_ONCE(chain->checkpoint_id, id);
}

/* The drained and flushed state of the secondary, gate closed. */
static int chain_point_in_time(struct repl_chain *chain)
{
	int r;

	if (READ_ONCE(chain->errors) & REPL_ERRS_REFUSE)
		return -EIO;
	r = chain_close(chain);
	if (r)
		return r;
	r = chain_flush(chain);
	if (r)
		chain_open(chain);
	return r;
}

/*
 * Record a state in which no region is in hidden or active; and none is dirty,
 * unless it comes after a failover.
 */
static int chain_record_empty(struct repl_chain *chain, enum repl_stage stage,
			      bool fenced, u64 id)
{
	struct repl_meta_state state = {
		.stage = disk_stages[stage], .checkpoint = id,
		.flags = fenced ? REPL_STATE_FENCED : 0,
		.identity = chain->identity,
	};

	state.identity.role = REPL_ROLE_SECONDARY;
	return chain_record(chain, &state, fenced ? REPL_LOG_EMPTY_EPOCH :
						    REPL_LOG_EMPTY_ALL, 0);
}

/* @lineage: whose data it is from now on; NULL: nothing has changed */
static int chain_start(struct repl_chain *chain, u64 id, const u8 *lineage)
{
	struct repl_meta_state state = {
		.stage = REPL_DISK_RUNNING, .checkpoint = id,
		.identity = chain->identity,
	};
	int r = chain_point_in_time(chain);
	enum repl_stage from = chain->stage;

	if (r)
		return r;
	if (!repl_chain_set_running(chain)) {
		DMERR("%s: start: a table with other devices is loaded: resume or clear it first",
		      chain->name);
		chain_open(chain);
		return -EBUSY;
	}
	state.identity.role = REPL_ROLE_SECONDARY;
	if (lineage)
		repl_identity_set_lineage(&state.identity, lineage);
	r = chain_record(chain, &state, REPL_LOG_EMPTY_ALL, 0);
	if (r) {
		WRITE_ONCE(chain->stage, from);
	} else {
		trace_repl_stage(chain, from, chain->stage);
		DMINFO("%s: stage running", chain->name);
		chain->identity = state.identity;
		chain->fenced = false;
		chain->pending = 0;
		repl_bits_wipe(&chain->dirty);
		chain_commit(chain, id);
	}
	chain_open(chain);
	return r;
}

static int chain_checkpoint(struct repl_chain *chain, u64 id)
{
	int r = chain_point_in_time(chain);

	if (r)
		return r;
	r = chain_record_empty(chain, REPL_STAGE_RUNNING, false, id);
	if (!r)
		chain_commit(chain, id);
	chain_open(chain);
	return r;
}

static int chain_prepare(struct repl_chain *chain, u64 id)
{
	struct repl_meta_state state;
	int r = chain_point_in_time(chain);

	if (r)
		return r;
	chain_get_state(chain, &state);
	state.prepared = id;
	state.flags |= REPL_STATE_PREPARED;
	r = chain_record(chain, &state, 0, 0);
	if (r) {
		chain_open(chain);
		return r;
	}
	chain->prepared_id = id;
	WRITE_ONCE(chain->prepared, true);
	repl_chain_event(chain);
	return 0;
}

/*
 * The end of a prepared checkpoint: committed, or not. One that was found on
 * the metadata device has the gate open and ingest refused. If the end cannot
 * be recorded, it is prepared still.
 */
static int chain_settle(struct repl_chain *chain, bool commit)
{
	bool was_closed = chain->closed;
	u64 id = chain->prepared_id;
	int r = chain_close(chain);

	if (r)
		return r;
	if (commit) {
		r = chain_record_empty(chain, REPL_STAGE_RUNNING, false, id);
	} else {
		struct repl_meta_state state;

		chain_get_state(chain, &state);
		state.prepared = 0;
		state.flags &= ~REPL_STATE_PREPARED;
		r = chain_record(chain, &state, 0, 0);
	}
	if (!r) {
		WRITE_ONCE(chain->prepared, false);
		if (commit)
			chain_commit(chain, id);
	}
	if (!r || !was_closed)
		chain_open(chain);
	return r;
}

static int chain_stop(struct repl_chain *chain)
{
	int r = chain_close(chain);

	if (r)
		return r;
	r = chain_record_empty(chain, REPL_STAGE_DONE, false,
			       chain->checkpoint_id);
	if (!r) {
		chain_empty(chain);
		chain_set_stage(chain, REPL_STAGE_DONE);
	}
	chain_open(chain);
	return r;
}

/* Gate closed and drained; it is opened. */
static void chain_merge(struct repl_chain *chain)
{
	chain_set_stage(chain, REPL_STAGE_FAILOVER);
	chain->merge_total = atomic64_read(&chain->nr_hidden) +
			     atomic64_read(&chain->nr_active);
	repl_job_start(&chain->job, &repl_merge_job);
	chain_open(chain);
}

/*
 * With a metadata device all that there is to merge is durable before the view
 * takes its first write: hidden's regions are already; active's have been noted
 * as they came, and what the view wrote there is flushed.
 */
static int chain_failover(struct repl_chain *chain)
{
	struct repl_meta_state state = {
		.stage = REPL_DISK_FAILOVER, .flags = REPL_STATE_FENCED,
		.checkpoint = chain->checkpoint_id,
		.identity = chain->identity,
	};
	bool was_closed = chain->closed;
	int r = chain_close(chain);

	if (r)
		return r;
	/* What is not of the checkpoint is no part of the old one. */
	repl_identity_leave(&state.identity, chain->checkpoint_id);
	/* Before the record: a compaction that begins behind it reads the map. */
	WRITE_ONCE(chain->dirty_lags, true);
	r = chain_record(chain, &state, REPL_LOG_DIRTY_ADD,
			 atomic64_read(&chain->nr_active) ?
			 REPL_LOG_DEV_ACTIVE : 0);
	if (r) {
		WRITE_ONCE(chain->dirty_lags, false);
		if (!was_closed)
			chain_open(chain);
		return r;
	}
	WRITE_ONCE(chain->prepared, false);
	repl_job_cancel(&chain->job);	/* a fill */
	chain->fenced = true;
	chain->identity = state.identity;
	chain_merge(chain);
	return 0;
}

static int chain_retry(struct repl_chain *chain)
{
	int r = chain_close(chain);

	if (r)
		return r;
	chain_forget(chain, REPL_ERRS_MERGE);
	chain_merge(chain);
	return 0;
}

/**
 * repl_chain_merged() - the merge is over
 * @job: the merge
 * @done: all of it is in the secondary and flushed; else it failed
 *
 * Context: process, no locks.
 */
void repl_chain_merged(struct repl_job *job, bool done)
{
	struct repl_chain *chain = job->context;

	mutex_lock(&chain->lock);
	repl_job_hold(&chain->job, true);
	repl_gate_close(&chain->gate);
	repl_gate_drain_all(&chain->gate);
	chain->closed = true;
	/* From then on nobody notes what the view writes. */
	if (done && chain_record_empty(chain, REPL_STAGE_DONE, chain->fenced,
				       chain->checkpoint_id))
		done = false;
	/* All that was there has been merged. */
	if (done)
		WRITE_ONCE(chain->dirty_lags, false);
	chain_set_stage(chain, done ? REPL_STAGE_DONE :
				      REPL_STAGE_FAILOVER_FAILED);
	chain_open(chain);
	mutex_unlock(&chain->lock);
}

/*
 * ---- Messages ----
 */

struct chain_args {
	struct repl_chain *chain;
	char **argv;		/* behind the message's name */
	unsigned int argc;
	char *result;
	unsigned int maxlen;
};

static int msg_answer_id(struct chain_args *args)
{
	scnprintf(args->result, args->maxlen, "%llu",
		  args->chain->checkpoint_id);
	return 1;
}

/* An id given by the user: above the last one. */
static int msg_id(struct chain_args *args, u64 *id)
{
	int r = kstrtou64(args->argv[0], 10, id);

	if (r || *id <= args->chain->checkpoint_id || *id == U64_MAX) {
		DMERR("%s: checkpoint id must be a number above %llu, and not the last",
		      args->chain->name, args->chain->checkpoint_id);
		return -EINVAL;
	}
	return 0;
}

/* "-": nobody knows whose data it is. */
static int msg_lineage_word(const struct chain_args *args, const char *word,
			    u8 lineage[REPL_UUID_SIZE])
{
	int r;

	if (!strcmp(word, "-")) {
		memset(lineage, 0, REPL_UUID_SIZE);
		return 0;
	}
	r = repl_lineage_parse(word, lineage);
	if (r)
		DMERR("%s: lineage: '%s' is not a UUID", args->chain->name, word);
	return r;
}

static int msg_start(struct chain_args *args)
{
	u64 id = args->chain->checkpoint_id + 1;
	u8 lineage[REPL_UUID_SIZE];
	int r = 0;

	if (args->argc)
		r = msg_id(args, &id);
	if (!r && args->argc == 2)
		r = msg_lineage_word(args, args->argv[1], lineage);
	if (!r)
		r = chain_start(args->chain, id, args->argc == 2 ? lineage : NULL);
	return r ? r : msg_answer_id(args);
}

/*
 * What a primary has left, or a failover, is a secondary's now, and may be written over.
 * Which regions it has that others may lack is kept until it begins.
 */
static int msg_demote(struct chain_args *args)
{
	struct repl_chain *chain = args->chain;
	struct repl_meta_state state;
	int r = chain_close(chain);

	if (r)
		return r;
	chain_get_state(chain, &state);
	state.stage = REPL_DISK_NONE;
	state.flags &= ~REPL_STATE_FENCED;
	state.identity.role = REPL_ROLE_SECONDARY;
	r = chain_record(chain, &state, 0, 0);
	if (!r) {
		chain->identity = state.identity;
		chain->fenced = false;
		if (chain->stage != REPL_STAGE_NONE)
			chain_set_stage(chain, REPL_STAGE_NONE);
	}
	chain_open(chain);
	return r;
}

static int msg_checkpoint(struct chain_args *args)
{
	u64 id = args->chain->checkpoint_id + 1;
	int r = args->argc ? msg_id(args, &id) : 0;

	if (!r)
		r = chain_checkpoint(args->chain, id);
	return r ? r : msg_answer_id(args);
}

static int msg_prepare(struct chain_args *args)
{
	u64 id;
	int r = msg_id(args, &id);

	return r ? r : chain_prepare(args->chain, id);
}

static int msg_prepared_id(struct chain_args *args)
{
	struct repl_chain *chain = args->chain;
	u64 id;

	if (kstrtou64(args->argv[0], 10, &id))
		return -EINVAL;
	if (!chain->prepared || chain->prepared_id != id) {
		DMERR("%s: checkpoint %llu is not prepared", chain->name, id);
		return -EBUSY;
	}
	return 0;
}

static int msg_commit(struct chain_args *args)
{
	int r = msg_prepared_id(args);

	if (!r)
		r = chain_settle(args->chain, true);
	return r ? r : msg_answer_id(args);
}

static int msg_abort(struct chain_args *args)
{
	int r = msg_prepared_id(args);

	return r ? r : chain_settle(args->chain, false);
}

static int msg_stop(struct chain_args *args)
{
	return chain_stop(args->chain);
}

static int msg_failover(struct chain_args *args)
{
	return chain_failover(args->chain);
}

static int msg_retry(struct chain_args *args)
{
	return chain_retry(args->chain);
}

/*
 * Was it unknown whether the last change was recorded? By now it may be known, for
 * something else has taken its place in the log; ingest is refused still.
 */
static bool chain_was_in_doubt(struct repl_chain *chain)
{
	return chain->store && (repl_log_ambiguous(&chain->store->log) ||
				(chain->ingest == REPL_INGEST_REFUSE &&
				 !chain->fenced && !chain->prepared));
}

/* Ingest is refused until the state that we are in has been recorded. */
static int msg_clear_error(struct chain_args *args)
{
	struct repl_chain *chain = args->chain;
	struct repl_meta_state state;
	int r;

	if (chain_was_in_doubt(chain)) {
		bool was_closed = chain->closed;

		r = chain_close(chain);
		if (r)
			return r;
		chain_get_state(chain, &state);
		r = chain_record(chain, &state, 0, 0);
		if (!was_closed)
			chain_open(chain);
		if (r)
			return r;
	}
	chain_forget(chain, ~REPL_ERRS_MERGE);
	repl_chain_event(chain);
	return 0;
}

static int msg_job_speed(struct repl_chain *chain, const char *word)
{
	u64 speed;

	if (kstrtou64(word, 10, &speed) || speed > U32_MAX) {
		DMERR("%s: job speed must be a number of KiB/s up to %u",
		      chain->name, U32_MAX);
		return -EINVAL;
	}
	repl_job_set_speed(&chain->job, speed * SZ_1K);
	return 0;
}

static int msg_job(struct chain_args *args)
{
	struct repl_chain *chain = args->chain;
	const char *verb = args->argv[0];
	int r = -EINVAL;

	if (!strcmp(verb, "speed"))
		return args->argc == 2 ? msg_job_speed(chain, args->argv[1]) :
					 -EINVAL;
	if (args->argc != 1)
		return -EINVAL;
	if (!strcmp(verb, "pause"))
		r = repl_job_pause(&chain->job);
	else if (!strcmp(verb, "resume"))
		r = repl_job_resume(&chain->job);
	else if (!strcmp(verb, "cancel"))
		r = repl_job_cancel(&chain->job);

	if (r == -EOPNOTSUPP)
		DMERR("%s: a merge cannot be cancelled, only paused or slowed",
		      chain->name);
	else if (r == -EBUSY)
		DMERR("%s: no job to %s", chain->name, verb);
	else if (!r)
		repl_chain_event(chain);
	return r;
}

static int msg_fill(struct chain_args *args)
{
	struct repl_chain *chain = args->chain;
	const char *what = args->argv[0];
	const struct repl_job_type *type;

	if (!strcmp(what, "dirty")) {
		if (args->argc != 2)
			return -EINVAL;
		DMERR("%s: fill dirty: there is no dirty map '%s'",
		      chain->name, args->argv[1]);
		return -EOPNOTSUPP;
	}
	if (args->argc != 1)
		return -EINVAL;
	if (!strcmp(what, "full"))
		type = &repl_fill_full_job;
	else if (!strcmp(what, "top"))
		type = &repl_fill_top_job;
	else
		return -EINVAL;

	if (repl_job_is_active(&chain->job)) {
		DMERR("%s: a job is running: cancel it first", chain->name);
		return -EBUSY;
	}
	repl_job_start(&chain->job, type);
	repl_chain_event(chain);
	return 0;
}

static int msg_identity(struct chain_args *args)
{
	struct repl_chain *chain = args->chain;

	chain_catch_up_dirty(chain);
	return repl_identity_show(&chain->identity, chain->checkpoint_id,
				  repl_bits_count(&chain->dirty),
				  chain->prepared ? chain->prepared_id :
						    chain->pending,
				  args->result, args->maxlen);
}

/* Whose data it holds now, or will: what it has left before is forgotten. */
static int msg_lineage(struct chain_args *args)
{
	struct repl_chain *chain = args->chain;
	struct repl_meta_state state;
	u8 lineage[REPL_UUID_SIZE];
	int r;

	r = msg_lineage_word(args, args->argv[0], lineage);
	if (!r)
		r = chain_close(chain);
	if (r)
		return r;
	chain_get_state(chain, &state);
	if (repl_identity_set_lineage(&state.identity, lineage)) {
		r = chain_record(chain, &state, 0, 0);
		if (!r)
			chain->identity = state.identity;
	}
	chain_open(chain);
	return r;
}

/* The map is a part of the stages: it can be looked at. */
static int msg_dirty(struct chain_args *args)
{
	struct repl_chain *chain = args->chain;
	const char *why;
	int r;

	if (strcmp(args->argv[0], "list") && strcmp(args->argv[0], "extents")) {
		DMERR("%s: dirty %s: a secondary's map can be listed only",
		      chain->name, args->argv[0]);
		return -EINVAL;
	}
	chain_catch_up_dirty(chain);
	r = repl_dirty_message(&chain->maps, args->argc + 1, args->argv - 1,
			       args->result, args->maxlen, &why);
	if (r < 0)
		DMERR("%s: dirty %s: %s", chain->name, args->argv[0], why);
	return r;
}

#define IN(stage) BIT(REPL_STAGE_##stage)
#define ANYWHERE (BIT(REPL_NR_STAGES) - 1)

static const struct chain_message {
	const char *name;
	unsigned int min_args;
	unsigned int max_args;
	unsigned int stages;
	bool prepared;		/* legal while a checkpoint is prepared */
	int (*fn)(struct chain_args *args);
} chain_messages[] = {
	{ "start", 0, 2, IN(NONE) | IN(DONE), false, msg_start },
	{ "demote", 0, 0, IN(NONE) | IN(DONE), false, msg_demote },
	{ "checkpoint", 0, 1, IN(RUNNING), false, msg_checkpoint },
	{ "checkpoint_prepare", 1, 1, IN(RUNNING), false, msg_prepare },
	{ "checkpoint_commit", 1, 1, IN(RUNNING), true, msg_commit },
	{ "checkpoint_abort", 1, 1, IN(RUNNING), true, msg_abort },
	{ "stop", 0, 0, IN(RUNNING), false, msg_stop },
	{ "failover", 0, 0, IN(RUNNING), true, msg_failover },
	{ "retry", 0, 0, IN(FAILOVER_FAILED), false, msg_retry },
	{ "clear_error", 0, 0, ANYWHERE, true, msg_clear_error },
	{ "job", 1, 2, ANYWHERE, true, msg_job },
	{ "fill", 1, 2, IN(RUNNING), false, msg_fill },
	{ "identity", 0, 0, ANYWHERE, true, msg_identity },
	{ "lineage", 1, 1, IN(NONE) | IN(RUNNING) | IN(DONE), false,
	  msg_lineage },
	{ "dirty", 1, 3, ANYWHERE, true, msg_dirty },
};

/**
 * repl_chain_message() - one message to repl-secondary
 * @chain: chain
 * @argc: number of words
 * @argv: words
 * @result: for an answer
 * @maxlen: its size in bytes
 *
 * The one place that refuses what is not legal. One message at a time.
 *
 * Context: process; a transition waits for the I/O in flight, unless killed.
 * Return: 0, 1 with an answer, or a negative errno with nothing changed.
 */
int repl_chain_message(struct repl_chain *chain, unsigned int argc,
		       char **argv, char *result, unsigned int maxlen)
{
	struct chain_args args = {
		.chain = chain, .argv = argv + 1, .argc = argc - 1,
		.result = result, .maxlen = maxlen,
	};
	const struct chain_message *msg = chain_messages;
	const struct chain_message *end = msg + ARRAY_SIZE(chain_messages);
	int r;

	while (msg < end && strcmp(argv[0], msg->name))
		msg++;
	if (msg == end) {
		DMERR("%s: unknown message '%s'", chain->name, argv[0]);
		return -EINVAL;
	}
	if (args.argc < msg->min_args || args.argc > msg->max_args) {
		DMERR("%s: wrong number of words for '%s'", chain->name,
		      msg->name);
		return -EINVAL;
	}

	r = mutex_lock_killable(&chain->lock);
	if (r)
		return r;
	if (!(BIT(chain->stage) & msg->stages)) {
		DMERR("%s: '%s' is not legal in stage %s", chain->name,
		      msg->name, stage_names[chain->stage]);
		r = -EBUSY;
	} else if (chain->prepared && !msg->prepared) {
		DMERR("%s: '%s' has to wait: checkpoint %llu is prepared",
		      chain->name, msg->name, chain->prepared_id);
		r = -EBUSY;
	} else {
		r = msg->fn(&args);
		if (r == -EIO)
			DMERR("%s: '%s' refused: errors are latched, resync and clear_error",
			      chain->name, msg->name);
	}
	mutex_unlock(&chain->lock);
	return r;
}

/*
 * ---- Status ----
 */

/* <errors> <first errno> <first sector>: the first of those still latched. */
static unsigned int chain_status_errors(struct repl_chain *chain, char *result,
					unsigned int maxlen)
{
	struct repl_latched first = {};
	unsigned long errors;
	unsigned int sz = 0;
	unsigned int i;

	spin_lock_irq(&chain->error_lock);
	errors = chain->errors;
	for (i = 0; i < REPL_NR_ERRORS; i++)
		if ((errors & BIT(i)) &&
		    (!first.err || ktime_before(chain->latched[i].when, first.when)))
			first = chain->latched[i];
	spin_unlock_irq(&chain->error_lock);

	if (!errors) {
		DMEMIT("- 0 -");
		return sz;
	}
	for (i = 0; i < REPL_NR_ERRORS; i++)
		if (errors & BIT(i)) {
			errors &= ~BIT(i);
			DMEMIT("%s%c", error_names[i], errors ? ',' : ' ');
		}
	DMEMIT("%d %llu", first.err, (u64)first.sector);
	return sz;
}

static u64 chain_job_total(struct repl_chain *chain,
			   const struct repl_job_type *type)
{
	return type == &repl_merge_job ? READ_ONCE(chain->merge_total) :
					 chain->nr_regions;
}

static u64 chain_job_left(struct repl_chain *chain,
			  const struct repl_job_type *type)
{
	u64 cursor = READ_ONCE(chain->job.cursor);

	/* What has been written since is no part of it. */
	if (READ_ONCE(chain->job.state) == REPL_JOB_DONE)
		return 0;
	if (type == &repl_merge_job)
		return atomic64_read(&chain->nr_hidden) +
		       atomic64_read(&chain->nr_active);
	return chain->nr_regions - min(cursor, chain->nr_regions);
}

/**
 * repl_chain_status() - the status line of repl-secondary
 * @chain: chain
 * @result: buffer
 * @maxlen: its size in bytes
 *
 * secondary <stage> <checkpoint id> <prepared id> <region_size> <regions>
 * <hidden regions> <active regions> <ops> <job> <job state> <done>/<total>
 * <speed KiB/s> <errors> <first errno> <first sector> <metadata>
 *
 * Context: process; takes no lock that a transition holds while it waits.
 */
void repl_chain_status(struct repl_chain *chain, char *result,
		       unsigned int maxlen)
{
	const struct repl_job_type *type = READ_ONCE(chain->job.type);
	unsigned int sz = 0;

	DMEMIT("secondary %s %llu ", stage_names[READ_ONCE(chain->stage)],
	       READ_ONCE(chain->checkpoint_id));
	if (READ_ONCE(chain->prepared))
		DMEMIT("%llu ", READ_ONCE(chain->prepared_id));
	else
		DMEMIT("- ");
	DMEMIT("%llu %llu %llu %llu %u ",
	       (u64)repl_region_sector(chain, 1), chain->nr_regions,
	       (u64)atomic64_read(&chain->nr_hidden),
	       (u64)atomic64_read(&chain->nr_active),
	       READ_ONCE(chain->ops.nr));

	if (type) {
		u64 total = chain_job_total(chain, type);
		u64 left = chain_job_left(chain, type);

		DMEMIT("%s %s %llu/%llu ", type->name,
		       repl_job_state_name(&chain->job),
		       total - min(left, total), total);
	} else {
		DMEMIT("- - 0/0 ");
	}
	DMEMIT("%llu ", READ_ONCE(chain->job.speed) / SZ_1K);

	sz += chain_status_errors(chain, result + sz, maxlen - sz);
	if (chain->store)
		DMEMIT(" %llu/%llu", repl_log_used(&chain->store->log),
		       chain->store->log.meta.layout.log_blocks);
	else
		DMEMIT(" -");
}
