// SPDX-License-Identifier: GPL-2.0-only
/* Track: see the essay in track.h. */

#include <linux/errno.h>
#include <linux/jiffies.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uuid.h>

#include "compat.h"
#include "identity.h"
#include "track.h"

/* A round is so long, and a region that is written in each stays dirty. */
#define ROUND_SECONDS 5
/* Regions that are looked through before others run. */
#define WALK_REGIONS 65536ULL

/*
 * ---- What the store asks of us ----
 */

static int track_flush(void *context, unsigned int devs)
{
	struct repl_track *track = context;

	return track->ops->flush(track->context);
}

static bool track_bits(void *context, enum repl_disk_map map, u64 begin,
		       unsigned int nr, u8 *bits)
{
	struct repl_track *track = context;

	if (map != REPL_DISK_DIRTY)
		return false;
	return repl_bits_bytes(&track->dirty, begin, nr, bits);
}

/* The metadata may be that of a secondary, from before its failover on. */
static int track_apply(void *context, enum repl_apply what, u64 begin, u64 end)
{
	struct repl_track *track = context;

	switch (what) {
	case REPL_APPLY_HIDDEN:
		repl_bits_set(&track->hidden, begin, end);
		break;
	case REPL_APPLY_ACTIVE:
		repl_bits_set(&track->active, begin, end);
		break;
	case REPL_APPLY_MERGED:
		repl_bits_clear(&track->hidden, begin, end);
		repl_bits_clear(&track->active, begin, end);
		break;
	case REPL_APPLY_DIRTY:
		repl_bits_set(&track->dirty, begin, end);
		break;
	case REPL_APPLY_CLEAN:
		repl_bits_clear(&track->dirty, begin, end);
		break;
	case REPL_APPLY_EMPTY_HIDDEN:
		repl_bits_wipe(&track->hidden);
		break;
	case REPL_APPLY_EMPTY_ACTIVE:
		repl_bits_wipe(&track->active);
		break;
	case REPL_APPLY_EMPTY_DIRTY:
		repl_bits_wipe(&track->dirty);
		break;
	case REPL_APPLY_DIRTY_ADD:
		repl_bits_merge(&track->dirty, &track->hidden);
		repl_bits_merge(&track->dirty, &track->active);
		break;
	}
	return 0;
}

static const struct repl_store_ops track_store_ops = {
	.flush = track_flush,
	.bits = track_bits,
	.apply = track_apply,
};

/*
 * ---- Failure ----
 */

/*
 * What is on the device is too small when the next write goes on; so it waits
 * for track_mark_work(). @io: one that does already, or NULL. Process context.
 */
static void track_fail(struct repl_track *track, struct repl_track_io *io,
		       int error)
{
	unsigned long flags;

	spin_lock_irqsave(&track->lock, flags);
	track->recording = false;
	track->marking = true;
	if (io)
		list_add_tail(&io->log.list, &track->held);
	WRITE_ONCE(track->failed, true);
	spin_unlock_irqrestore(&track->lock, flags);
	track->ops->failed(track->context, error);
	queue_work(track->wq, &track->mark_work);
}

/**
 * repl_track_lost() - somebody else could not write what a crash must not lose
 * @track: track, open
 * @error: negative errno
 *
 * Context: process.
 */
void repl_track_lost(struct repl_track *track, int error)
{
	track_fail(track, NULL, error);
}

static int track_save(struct repl_track *track, const struct repl_bits *leaving)
{
	return track->ops->save ?
	       track->ops->save(track->context, leaving) : 0;
}

static void track_go_on(struct list_head *held)
{
	struct repl_track_io *io, *next;

	list_for_each_entry_safe(io, next, held, log.list) {
		list_del_init(&io->log.list);
		io->done(io);
	}
}

/* What waits goes on when the device says so, or cannot. With map_lock. */
static void track_mark(struct repl_track *track)
{
	LIST_HEAD(held);

	repl_log_distrust(&track->store->log);
	spin_lock_irq(&track->lock);
	track->marking = false;
	list_splice_tail_init(&track->held, &held);
	spin_unlock_irq(&track->lock);
	track_go_on(&held);
}

static void track_mark_work(struct work_struct *work)
{
	struct repl_track *track = container_of(work, struct repl_track,
						mark_work);

	mutex_lock(&track->map_lock);
	/* Or it was healed meanwhile, and they went on. */
	if (repl_track_failed(track))
		track_mark(track);
	mutex_unlock(&track->map_lock);
}

/*
 * ---- Setting ----
 */

static void track_recorded(struct repl_log_entry *entry, int error,
			   unsigned int dev)
{
	struct repl_track_io *io = container_of(entry, struct repl_track_io,
						log);
	struct repl_track *track = io->track;

	if (unlikely(error)) {
		track_fail(track, io, error);
		return;
	}
	repl_bits_set(&track->dirty, entry->begin, entry->end);
	repl_bits_set(&track->recent, entry->begin, entry->end);
	io->done(io);
}

/* Is there a record under way that a region of these is clean? */
static bool track_is_clearing(const struct repl_track *track, u64 begin,
			      u64 end)
{
	unsigned int i;

	for (i = 0; i < track->nr_runs; i++)
		if (track->runs[i].log.begin < end &&
		    begin < track->runs[i].log.end)
			return true;
	return false;
}

/**
 * repl_track_wait() - repl_track_mark() for what is not recent
 * @track: track
 * @io: the owner's memory for it, with ->done set
 * @begin: first region
 * @end: region after the last
 *
 * Context: any.
 * Return: true if it has to wait.
 */
bool repl_track_wait(struct repl_track *track, struct repl_track_io *io,
		     u64 begin, u64 end)
{
	unsigned long flags;
	bool wait = false;

	spin_lock_irqsave(&track->lock, flags);
	if (!track->recording) {
		wait = track->marking;
		if (wait)
			list_add_tail(&io->log.list, &track->held);
		goto out;
	}
	repl_bits_clear(&track->leaving, begin, end);
	if (!track->covering && repl_bits_all(&track->dirty, begin, end) &&
	    !track_is_clearing(track, begin, end)) {
		repl_bits_set(&track->recent, begin, end);
		goto out;
	}
	wait = true;
	io->track = track;
	io->log.kind = REPL_LOG_REGIONS;
	io->log.op = REPL_EXTENT_DIRTY;
	io->log.begin = begin;
	io->log.end = end;
	io->log.done = track_recorded;
	/* Under the lock: behind what clears these regions. */
	repl_log_add(&track->store->log, &io->log);
out:
	spin_unlock_irqrestore(&track->lock, flags);
	return wait;
}

/*
 * ---- Clearing ----
 */

static void track_cleared(struct repl_log_entry *entry, int error,
			  unsigned int dev)
{
	struct repl_track_run *run = container_of(entry, struct repl_track_run,
						  log);
	struct repl_track *track = run->track;

	/*
	 * A record that failed may be there, or not. They are clean; and a
	 * write asks for a record of its own.
	 */
	repl_bits_clear(&track->dirty, entry->begin, entry->end);
	if (unlikely(error))
		WRITE_ONCE(track->inexact, true);
	if (atomic_dec_and_test(&track->runs_left))
		complete(&track->runs_done);
}

/* A round on a large device may take long, and comes again. */
static bool track_makes_way(struct repl_track *track)
{
	return atomic_read(&track->wanted);
}

static void track_lock_map(struct repl_track *track)
{
	atomic_inc(&track->wanted);
	mutex_lock(&track->map_lock);
	atomic_dec(&track->wanted);
}

static bool track_lacks(struct repl_track *track, u64 begin, u64 end, u64 *nr)
{
	unsigned int moving;
	bool lacks;

	for (;;) {
		moving = READ_ONCE(track->moving);
		smp_rmb();	/* with repl_track_moving() */
		lacks = track->ops->lacks(track->context, begin, end, nr);
		smp_rmb();	/* the maps before the count */
		if (!(moving & 1) && moving == READ_ONCE(track->moving))
			return lacks;
		cond_resched();
	}
}

/* What is dirty, up to @end, and not recent is leaving. */
static void track_choose_run(struct repl_track *track, u64 region, u64 end)
{
	u64 nr;

	for (; region < end; region += nr) {
		nr = repl_bits_run(&track->recent, region, end);
		if (!repl_bits_test(&track->recent, region))
			repl_bits_set(&track->leaving, region, region + nr);
	}
}

/* But what the peer lacks. */
static void track_check_run(struct repl_track *track, u64 region, u64 end)
{
	u64 nr;

	for (; region < end; region += nr) {
		if (track_lacks(track, region, end, &nr))
			repl_bits_clear(&track->leaving, region, region + nr);
	}
}

/* @look: what is done with each run of @bits. False: somebody wants the map. */
static bool track_walk(struct repl_track *track, const struct repl_bits *bits,
		       void (*look)(struct repl_track *track, u64 region, u64 end))
{
	u64 region = 0, end;

	while ((region = repl_bits_next(bits, region)) < track->nr_regions) {
		end = min(region + WALK_REGIONS, track->nr_regions);
		end = repl_bits_find(bits, region, end, false);
		look(track, region, end);
		region = end;
		if (track_makes_way(track))
			return false;
		cond_resched();
	}
	return true;
}

/* The first look: what may be clean is leaving. Returns whether there is any. */
static bool track_choose(struct repl_track *track)
{
	repl_bits_wipe(&track->leaving);
	if (!track_walk(track, &track->dirty, track_choose_run))
		return false;
	/* Who writes to what is leaving from now on takes it out. */
	repl_bits_wipe(&track->recent);
	smp_mb();	/* [B], pairs with [A] in repl_track_mark() */
	return track_walk(track, &track->leaving, track_check_run) &&
	       repl_bits_count(&track->leaving);
}

/*
 * One run of what is leaving still, from *@region on, gets its record. Not what is recent: if
 * the first look took long, a write may have come in the middle of it, with a checkpoint
 * behind it, and the next one would not wait.
 */
static void track_clear_run(struct repl_track *track, u64 *region)
{
	struct repl_track_run *run;
	u64 begin = *region;
	u64 end = min(begin + WALK_REGIONS, track->nr_regions);

	spin_lock_irq(&track->lock);
	if (repl_bits_test(&track->recent, begin))
		repl_bits_clear(&track->leaving, begin, begin + 1);
	if (repl_bits_test(&track->leaving, begin)) {
		end = begin + repl_bits_run(&track->leaving, begin, end);
		end = begin + repl_bits_run(&track->recent, begin, end);
		repl_bits_clear(&track->leaving, begin, end);
		run = &track->runs[track->nr_runs++];
		run->track = track;
		run->log.kind = REPL_LOG_REGIONS;
		run->log.op = REPL_EXTENT_CLEAN;
		run->log.begin = begin;
		run->log.end = end;
		run->log.done = track_cleared;
		atomic_inc(&track->runs_left);
		repl_log_add(&track->store->log, &run->log);
		*region = end;
	}
	spin_unlock_irq(&track->lock);
}

/* The second look, after the flush: so many runs at a time. */
static void track_clear(struct repl_track *track)
{
	u64 region = 0;

	while (region < track->nr_regions && !repl_track_failed(track) &&
	       !track_makes_way(track)) {
		init_completion(&track->runs_done);
		atomic_set(&track->runs_left, 1);
		while (track->nr_runs < REPL_TRACK_RUNS) {
			region = repl_bits_next(&track->leaving, region);
			if (region == track->nr_regions)
				break;
			track_clear_run(track, &region);
		}
		if (!atomic_dec_and_test(&track->runs_left))
			wait_for_completion(&track->runs_done);
		spin_lock_irq(&track->lock);
		track->nr_runs = 0;
		spin_unlock_irq(&track->lock);
		cond_resched();
	}
}

/*
 * What is set in dirty from now on is not on the device before the rewrite: it
 * is no reason not to wait for a record.
 */
static void track_covers(struct repl_track *track, bool covering)
{
	spin_lock_irq(&track->lock);
	track->covering = covering;
	spin_unlock_irq(&track->lock);
}

static void track_merge(struct repl_track *track)
{
	unsigned int moving;

	do {
		moving = READ_ONCE(track->moving);
		smp_rmb();	/* with repl_track_moving() */
		track->ops->merge(track->context, &track->dirty);
		smp_rmb();	/* the maps before the count */
	} while ((moving & 1) || moving != READ_ONCE(track->moving));
}

/*
 * What the device lacks is in the owner's maps. From here on writes wait for
 * their records again; the whole map brings those that did not. With map_lock.
 */
static void track_heal(struct repl_track *track)
{
	LIST_HEAD(held);
	bool healed;
	int r;

	spin_lock_irq(&track->lock);
	track->recording = true;
	track->covering = true;
	spin_unlock_irq(&track->lock);
	smp_mb();	/* a write that has not waited has set its bits */
	track_merge(track);
	/* Or the peer has it by now, and local, in its cache, may lose it. */
	r = track->ops->flush(track->context);
	if (!r)
		r = track_save(track, NULL);
	if (!r) {
		repl_log_trust(&track->store->log);
		r = repl_log_rewrite(&track->store->log);
	}
	spin_lock_irq(&track->lock);
	track->covering = false;
	/* Nor may a record have failed meanwhile. */
	healed = !r && track->recording;
	if (healed) {
		WRITE_ONCE(track->failed, false);
		list_splice_tail_init(&track->held, &held);
	}
	track->marking = !healed;
	track->recording = healed;
	spin_unlock_irq(&track->lock);
	if (healed)
		track_go_on(&held);
	else
		track_mark(track);
}

/* Who else relies on what is leaving comes first. */
static void track_forget(struct repl_track *track)
{
	int r = track_save(track, &track->leaving);

	if (r)
		track->ops->failed(track->context, r);
	else
		track_clear(track);
}

/**
 * repl_track_round() - forget what need not be known any more
 * @track: track, open
 *
 * Context: process; waits for I/O.
 */
void repl_track_round(struct repl_track *track)
{
	mutex_lock(&track->map_lock);
	if (repl_track_failed(track))
		track_heal(track);
	else if (track_choose(track) && !track->ops->flush(track->context))
		track_forget(track);
	mutex_unlock(&track->map_lock);
}

static void track_round_work(struct work_struct *work)
{
	struct repl_track *track = container_of(to_delayed_work(work),
						struct repl_track, round);

	repl_track_round(track);
	queue_delayed_work(track->wq, &track->round, ROUND_SECONDS * HZ);
}

/*
 * ---- Changes of state ----
 */

/* change_lock held. */
static int track_change(struct repl_track *track,
			const struct repl_meta_state *state)
{
	unsigned int dev;
	int r;

	/* A secondary's maps are empty: and must be said to be with another id. */
	r = repl_log_change(&track->store->log, state, REPL_LOG_EMPTY_EPOCH, 0,
			    &dev);
	if (!r)
		track->state = *state;
	return r;
}

/**
 * repl_track_pending() - the peer is to be asked for a checkpoint
 * @track: track, open
 * @id: of it: from now on the peer may have it
 *
 * Context: process; waits until it is durable.
 * Return: 0, or a negative errno and nothing has changed.
 */
int repl_track_pending(struct repl_track *track, u64 id)
{
	struct repl_meta_state state;
	int r = 0;

	mutex_lock(&track->change_lock);
	state = track->state;
	if (id > state.checkpoint && (!(state.flags & REPL_STATE_PREPARED) ||
				      state.prepared != id)) {
		state.prepared = id;
		state.flags |= REPL_STATE_PREPARED;
		r = track_change(track, &state);
	}
	mutex_unlock(&track->change_lock);
	return r;
}

/**
 * repl_track_checkpoint() - the peer has committed
 * @track: track, open
 * @id: of the checkpoint; one below the last is not recorded
 *
 * Context: process; waits until it is durable.
 * Return: 0, or a negative errno: the track has failed then.
 */
int repl_track_checkpoint(struct repl_track *track, u64 id)
{
	struct repl_meta_state state;
	int r = 0;

	mutex_lock(&track->change_lock);
	state = track->state;
	if (id > state.checkpoint) {
		state.checkpoint = id;
		if (state.prepared <= id) {
			state.prepared = 0;
			state.flags &= ~REPL_STATE_PREPARED;
		}
		r = track_change(track, &state);
	}
	mutex_unlock(&track->change_lock);
	if (r)
		track_fail(track, NULL, r);
	return r;
}

/**
 * repl_track_set_lineage() - whose data it is
 * @track: track, open
 * @lineage: UUID
 *
 * Context: process; waits until it is durable.
 * Return: 0, or a negative errno and nothing has changed.
 */
int repl_track_set_lineage(struct repl_track *track, const u8 *lineage)
{
	struct repl_meta_state state;
	int r = 0;

	mutex_lock(&track->change_lock);
	state = track->state;
	if (repl_identity_set_lineage(&state.identity, lineage))
		r = track_change(track, &state);
	mutex_unlock(&track->change_lock);
	return r;
}

/*
 * ---- Life ----
 */

/**
 * repl_track_create() - a metadata device for a primary
 * @md: the primary
 * @bdev: metadata device
 * @sectors: length of the primary
 * @region_size: in sectors
 * @ops: what it needs of the primary
 * @context: for @ops
 * @error: set to what failed
 *
 * Reads the superblock, writes nothing.
 *
 * Context: constructor.
 * Return: the track, or an ERR_PTR.
 */
struct repl_track *repl_track_create(struct mapped_device *md,
				     struct block_device *bdev, u64 sectors,
				     u32 region_size,
				     const struct repl_track_ops *ops,
				     void *context, char **error)
{
	struct repl_track *track = kzalloc(sizeof(*track), GFP_KERNEL);
	u64 nr = ((sectors - 1) >> __ffs(region_size)) + 1;
	struct repl_store *store;
	int r = -ENOMEM;

	*error = "Cannot allocate the metadata's maps";
	if (!track)
		return ERR_PTR(r);
	spin_lock_init(&track->lock);
	mutex_init(&track->change_lock);
	mutex_init(&track->map_lock);
	INIT_LIST_HEAD(&track->held);
	INIT_WORK(&track->mark_work, track_mark_work);
	INIT_DELAYED_WORK(&track->round, track_round_work);
	track->ops = ops;
	track->context = context;
	track->sectors = sectors;
	track->region_size = region_size;
	track->nr_regions = nr;
	track->wq = repl_alloc_workqueue("dm-repl-track", 0);
	if (!track->wq || repl_bits_init(&track->recent, nr) ||
	    repl_bits_init(&track->dirty, nr) ||
	    repl_bits_init(&track->leaving, nr) ||
	    repl_bits_init(&track->hidden, nr) ||
	    repl_bits_init(&track->active, nr))
		goto bad;
	store = repl_store_create(md, bdev, sectors, region_size,
				  &track_store_ops, track, error);
	if (IS_ERR(store)) {
		r = PTR_ERR(store);
		goto bad;
	}
	track->store = store;
	return track;
bad:
	repl_track_destroy(track);
	return ERR_PTR(r);
}

/**
 * repl_track_destroy() - end of a track
 * @track: track that nobody uses any more
 *
 * Context: process; writes nothing.
 */
void repl_track_destroy(struct repl_track *track)
{
	if (track->wq) {
		cancel_delayed_work_sync(&track->round);
		cancel_work_sync(&track->mark_work);
		destroy_workqueue(track->wq);
	}
	if (track->store)
		repl_store_destroy(track->store);
	repl_bits_exit(&track->active);
	repl_bits_exit(&track->hidden);
	repl_bits_exit(&track->leaving);
	repl_bits_exit(&track->dirty);
	repl_bits_exit(&track->recent);
	kfree(track);
}

/**
 * repl_track_open() - read what the device says; it is the primary's now
 * @track: track
 * @why: on failure, why
 *
 * Then ->dirty is what the owner's maps begin with, unless it knows better.
 *
 * Context: ->preresume: no write is in flight, and a table before has been
 * suspended.
 * Return: 0 or a negative errno.
 */
int repl_track_open(struct repl_track *track, const char **why)
{
	struct repl_meta_state state;
	int r;

	cancel_work_sync(&track->mark_work);
	track->failed = false;
	track->marking = false;
	repl_bits_wipe(&track->dirty);
	repl_bits_wipe(&track->hidden);
	repl_bits_wipe(&track->active);
	r = repl_store_open(track->store, track->sectors, track->region_size,
			    &state, why);
	if (r)
		return r;
	*why = "Metadata belongs to a secondary that is in use";
	if (state.stage == REPL_DISK_RUNNING ||
	    state.stage == REPL_DISK_FAILOVER)
		return -EBUSY;
	if (track->ops->begin) {
		r = track->ops->begin(track->context, state.kept &&
				      !track->store->unrecorded,
				      track->store->log.next, why);
		if (r)
			return r;
		state.kept = true;
	}
	r = repl_store_settle(track->store, why);
	if (r)
		return r;
	state.identity.role = REPL_ROLE_PRIMARY;
	if (!repl_lineage_is_known(state.identity.lineage))
		generate_random_uuid(state.identity.lineage);
	*why = "Cannot write to the metadata device";
	r = track_change(track, &state);
	if (r)
		return r;
	track->recording = true;
	track->open = true;
	return 0;
}

/**
 * repl_track_again() - writes go on after a suspend
 * @track: track, open
 *
 * What was said of the end of the log, then, does not hold any more: with a block behind it.
 *
 * Context: ->preresume; waits until it is durable.
 * Return: 0, or a negative errno: the track has failed then.
 */
int repl_track_again(struct repl_track *track)
{
	int r;

	mutex_lock(&track->change_lock);
	r = track_change(track, &track->state);
	mutex_unlock(&track->change_lock);
	if (r)
		track_fail(track, NULL, r);
	return r;
}

/* All of dirty, and what is set there must come onto the device. */
static int track_rewrite(struct repl_track *track)
{
	int r = repl_log_rewrite(&track->store->log);

	if (r)
		track_fail(track, NULL, r);
	return r;
}

/**
 * repl_track_cover() - the owner's maps have come from elsewhere
 * @track: track, open
 *
 * What they have and the device has not is written.
 *
 * Context: ->preresume, or a message. Return: 0 or a negative errno.
 */
int repl_track_cover(struct repl_track *track)
{
	u64 count;
	int r = 0;

	track_lock_map(track);
	track_covers(track, true);
	count = repl_bits_count(&track->dirty);
	track_merge(track);
	if (repl_bits_count(&track->dirty) != count)
		r = track_rewrite(track);
	track_covers(track, false);
	mutex_unlock(&track->map_lock);
	return r;
}

/**
 * repl_track_fill() - nobody knows what the peer has
 * @track: track, open
 *
 * Context: process; waits until all regions are recorded as dirty.
 * Return: 0 or a negative errno.
 */
int repl_track_fill(struct repl_track *track)
{
	int r;

	track_lock_map(track);
	track_covers(track, true);
	repl_bits_set(&track->dirty, 0, track->nr_regions);
	r = track_rewrite(track);
	track_covers(track, false);
	mutex_unlock(&track->map_lock);
	return r;
}

/**
 * repl_track_resume() - begin with the rounds
 * @track: track
 */
void repl_track_resume(struct repl_track *track)
{
	if (track->open)
		queue_delayed_work(track->wq, &track->round,
				   ROUND_SECONDS * HZ);
}

/* With map_lock. */
static void track_leave(struct repl_track *track)
{
	u64 count = repl_bits_count(&track->dirty);

	repl_bits_wipe(&track->recent);
	repl_bits_wipe(&track->leaving);
	if (repl_track_failed(track)) {
		track_heal(track);
		return;
	}
	if (track->ops->flush(track->context) || track_save(track, NULL))
		return;
	repl_bits_wipe(&track->dirty);
	track_merge(track);
	if (repl_bits_count(&track->dirty) == count && !track->inexact)
		return;
	/*
	 * What is told first may be the error of a compaction before. If it
	 * cannot be written, what is there is too large, as before.
	 */
	if (!repl_log_rewrite(&track->store->log) ||
	    !repl_log_rewrite(&track->store->log))
		track->inexact = false;
}

/**
 * repl_track_suspend() - leave the exact map on the device
 * @track: track; no write is in flight, the owner's maps do not change
 *
 * Context: ->postsuspend.
 */
void repl_track_suspend(struct repl_track *track)
{
	/* The workload waits. */
	atomic_inc(&track->wanted);
	cancel_delayed_work_sync(&track->round);
	atomic_dec(&track->wanted);
	/* No write waits for it; and who heals does the same. */
	cancel_work_sync(&track->mark_work);
	if (!track->open)
		return;
	mutex_lock(&track->map_lock);
	track_leave(track);
	mutex_unlock(&track->map_lock);
}
