// SPDX-License-Identifier: GPL-2.0-only
/*
 * repl-primary: the workload's device.
 *
 *	repl-primary <local> <peer|-> <metadata|-> <region_size>
 *		     [<#features> <feature>...]
 *
 * Reads go to local. A write passes the gate, is marked in the dirty maps
 * (invariant 7: before either leg is sent), and goes
 *
 *	async	to local; its data waits in the window for the peer (window.h)
 *	sync	to both legs (primary-sync.c)
 *
 * An error of the peer's leg never reaches the workload: it is latched, nothing
 * more is forwarded, and what the peer has not got is in the map `peer'. A push
 * brings it there (push.h).
 *
 * A cut is a point in time of the workload's writes: the map `checkpoint' is
 * frozen, and what comes later waits in the window until the peer has committed
 * the checkpoint (primary-message.c).
 */

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/log2.h>
#include <linux/mutex.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "compat.h"
#include "primary.h"

#define PRIMARY_WINDOW_KIB	8192U
#define PRIMARY_WINDOW_MIN	256U
#define PRIMARY_WINDOW_MAX	1048576U
#define PRIMARY_TIMEOUT_MS	10000U
#define PRIMARY_TIMEOUT_MIN	100U
#define PRIMARY_TIMEOUT_MAX	600000U
/* The largest write in sectors; the window has room for two. */
#define PRIMARY_MAX_IO		2048U

static const char * const primary_errors[PRIMARY_NR_ERRORS] = {
	[PRIMARY_ERR_PEER_WRITE]	= "peer-write",
	[PRIMARY_ERR_PEER_FLUSH]	= "peer-flush",
	[PRIMARY_ERR_PEER_TIMEOUT]	= "peer-timeout",
	[PRIMARY_ERR_PUSH_READ]		= "push-read",
	[PRIMARY_ERR_METADATA]		= "metadata",
};

/* The table that is live hands over to the one that replaces it. */
static DEFINE_MUTEX(primaries_lock);
static LIST_HEAD(primaries);

/*
 * ---- Errors ----
 */

/**
 * primary_latch() - keep an error for the status
 * @p: primary
 * @error: class
 * @err: negative errno
 * @sector: where
 *
 * Context: any.
 */
void primary_latch(struct repl_primary *p, enum primary_error error, int err,
		   sector_t sector)
{
	unsigned long flags;
	bool fresh;

	spin_lock_irqsave(&p->error_lock, flags);
	if (!p->errors) {
		p->first_errno = -err;
		p->first_sector = sector;
	}
	fresh = !(p->errors & BIT(error));
	p->errors |= BIT(error);
	spin_unlock_irqrestore(&p->error_lock, flags);

	if (!fresh)
		return;
	DMERR_LIMIT("%s: %s error %d at sector %llu%s",
		    dm_table_device_name(p->ti->table), primary_errors[error],
		    err, (unsigned long long)sector,
		    error < PRIMARY_ERR_PUSH_READ ? ": peer detached" : "");
	queue_work(p->wq, &p->event_work);
}

static void primary_event(struct work_struct *work)
{
	struct repl_primary *p = container_of(work, struct repl_primary,
					      event_work);

	dm_table_event(p->ti->table);
}

/*
 * ---- What window and push want of us ----
 */

static struct repl_primary *window_primary(struct repl_window *window)
{
	return container_of(window, struct repl_primary, window);
}

static void window_error(struct repl_window *window, enum repl_peer_error error,
			 int err, sector_t sector)
{
	static const enum primary_error classes[] = {
		[REPL_PEER_WRITE]	= PRIMARY_ERR_PEER_WRITE,
		[REPL_PEER_FLUSH]	= PRIMARY_ERR_PEER_FLUSH,
		[REPL_PEER_TIMEOUT]	= PRIMARY_ERR_PEER_TIMEOUT,
	};

	primary_latch(window_primary(window), classes[error], err, sector);
}

static void window_lost(struct repl_window *window)
{
	struct repl_primary *p = window_primary(window);

	queue_work(p->wq, &p->event_work);
}

static void window_relieved(struct repl_window *window)
{
	repl_push_auto(&window_primary(window)->push);
}

static void window_left(struct repl_window *window)
{
	repl_job_poke(&window_primary(window)->push.job);
}

/* Until the next checkpoint, for a peer that loses its power. */
static void window_claimed(struct repl_window *window, sector_t sector,
			   sector_t nr)
{
	struct repl_primary *p = window_primary(window);

	repl_bits_set(&p->checkpoint, sector >> p->region_shift,
		      ((sector + nr - 1) >> p->region_shift) + 1);
}

static u64 primary_writes(struct repl_primary *p)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(per_cpu_ptr(p->count, cpu)->writes);
	return sum;
}

static struct repl_primary *push_primary(struct repl_push *push)
{
	return container_of(push, struct repl_primary, push);
}

static u64 push_ios(struct repl_push *push)
{
	struct repl_primary *p = push_primary(push);
	u64 sum = primary_writes(p);
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(per_cpu_ptr(p->count, cpu)->reads);
	return sum;
}

static void push_read_error(struct repl_push *push, int err, sector_t sector)
{
	primary_latch(push_primary(push), PRIMARY_ERR_PUSH_READ, err, sector);
}

static void push_ended(struct repl_push *push, bool done)
{
	struct repl_primary *p = push_primary(push);

	queue_work(p->wq, &p->event_work);
}

static const struct repl_push_ops primary_push_ops = {
	.ios = push_ios,
	.read_error = push_read_error,
	.ended = push_ended,
};

/*
 * ---- Data path ----
 */

static bool primary_send(struct repl_primary *p, struct bio *bio);

/* The metadata device knows its regions, or cannot be told. */
static void primary_tracked(struct repl_track_io *track)
{
	struct primary_io *io = container_of(track, struct primary_io, track);
	struct bio *bio = dm_bio_from_per_bio_data(io, sizeof(*io));

	if (primary_send(io->primary, bio))
		submit_bio_noacct(bio);
}

/* All writes, before either leg is sent. True: it waits for the track. */
static bool primary_mark(struct repl_primary *p, struct primary_io *io)
{
	u64 begin = io->sector >> p->region_shift;
	u64 end = ((io->sector + io->sectors - 1) >> p->region_shift) + 1;

	repl_bits_set(&p->checkpoint, begin, end);
	repl_dirty_mark(&p->dirty, io->sector, io->sectors);
	if (!p->track)
		return false;
	io->track.done = primary_tracked;
	return repl_track_mark(p->track, &io->track, begin, end);
}

/* A write inside the gate: false: it waits, or is parked outside: not ours. */
static bool primary_write(struct repl_primary *p, struct bio *bio, bool again)
{
	struct primary_io *io = primary_io(bio);

	io->gated = true;
	io->missed = false;
	io->again = again;
	io->entry = NULL;
	if (io->sectors && primary_mark(p, io))
		return false;
	return primary_send(p, bio);
}

/* Its regions are marked: false: it is parked, outside, and not ours. */
static bool primary_send(struct repl_primary *p, struct bio *bio)
{
	struct primary_io *io = primary_io(bio);
	enum repl_verdict verdict;

	if (p->sync) {
		primary_sync_write(p, bio);
	} else if (io->sectors) {
		verdict = repl_window_write(&p->window, bio, &io->entry,
					    io->again);
		if (verdict == REPL_PARKED) {
			repl_gate_put(&p->gate);
			return false;
		}
		io->missed = verdict == REPL_MISSED;
	}
	bio_set_dev(bio, p->local->bdev);
	return true;
}

/* A write that was parked by the window is mapped once more. */
static void window_again(struct repl_window *window, struct bio *bio)
{
	struct repl_primary *p = window_primary(window);

	while (!repl_gate_enter(&p->gate))
		if (repl_gate_park(&p->gate, bio))
			return;
	if (primary_write(p, bio, true))
		submit_bio_noacct(bio);
}

static const struct repl_window_ops primary_window_ops = {
	.error = window_error,
	.lost = window_lost,
	.again = window_again,
	.relieved = window_relieved,
	.left = window_left,
	.claimed = window_claimed,
};

static int primary_map(struct dm_target *ti, struct bio *bio)
{
	struct repl_primary *p = ti->private;
	struct primary_io *io = primary_io(bio);

	bio->bi_iter.bi_sector = dm_target_offset(ti, bio->bi_iter.bi_sector);
	io->gated = false;
	/* The peer is flushed at a checkpoint, or by mode sync. */
	if (!op_is_write(bio_op(bio)) || (!p->sync && !bio_sectors(bio))) {
		if (!op_is_write(bio_op(bio)))
			this_cpu_inc(p->count->reads);
		bio_set_dev(bio, p->local->bdev);
		return DM_MAPIO_REMAPPED;
	}

	io->primary = p;
	io->sector = bio->bi_iter.bi_sector;
	io->sectors = bio_sectors(bio);
	while (unlikely(!repl_gate_enter(&p->gate)))
		if (repl_gate_park(&p->gate, bio))
			return DM_MAPIO_SUBMITTED;
	return primary_write(p, bio, false) ? DM_MAPIO_REMAPPED :
					      DM_MAPIO_SUBMITTED;
}

static int primary_end_io(struct dm_target *ti, struct bio *bio,
			  blk_status_t *error)
{
	struct repl_primary *p = ti->private;
	struct primary_io *io = primary_io(bio);

	if (!io->gated)
		return DM_ENDIO_DONE;
	if (p->sync && !primary_sync_end(p, bio, *error))
		return DM_ENDIO_INCOMPLETE;
	/* Before it can be forwarded: it is not counted there only. */
	if (io->sectors)
		this_cpu_inc(p->count->writes);
	if (io->sectors && p->sync && io->forwarded)
		this_cpu_inc(p->count->forwarded);
	if (io->entry) {
		repl_window_written(&p->window, io->entry, *error);
	} else if (io->missed) {
		/* A push in between may have read what was there before. */
		repl_window_missed(&p->window, io->sector, io->sectors);
	}
	repl_gate_put(&p->gate);
	return DM_ENDIO_DONE;
}

/**
 * primary_close() - let no write in, and wait until none is inside
 * @p: primary
 *
 * Context: process, with p->lock. Return: 0, or -ERESTARTSYS when killed;
 * primary_open() in either case.
 */
int primary_close(struct repl_primary *p)
{
	repl_gate_close(&p->gate);
	return repl_gate_drain(&p->gate);
}

/**
 * primary_open() - open the gate again
 * @p: primary
 *
 * Context: process, with p->lock.
 */
void primary_open(struct repl_primary *p)
{
	struct bio_list parked = BIO_EMPTY_LIST;
	struct bio *bio;

	repl_gate_open(&p->gate, &parked);
	while ((bio = bio_list_pop(&parked))) {
		/* Nobody closes it while we hold the lock. */
		repl_gate_get(&p->gate);
		if (primary_write(p, bio, false))
			submit_bio_noacct(bio);
	}
}

/*
 * ---- What the track wants of us ----
 */

static int primary_track_flush(void *context)
{
	struct repl_primary *p = context;

	return blkdev_issue_flush(p->local->bdev);
}

/*
 * In the order in which a region goes from one to the other: a push claims it, and what it
 * copies is missed no more, and not in the checkpoint either.
 */
static void primary_track_maps(struct repl_primary *p, const struct repl_bits *maps[3])
{
	maps[0] = &p->window.missed;
	maps[1] = &p->checkpoint;
	maps[2] = &p->frozen;
}

static bool primary_track_lacks(void *context, u64 begin, u64 end, u64 *nr)
{
	const struct repl_bits *maps[3];

	primary_track_maps(context, maps);
	return repl_bits_look(maps, 3, begin, end, nr);
}

static void primary_track_merge(void *context, struct repl_bits *to)
{
	const struct repl_bits *maps[3];
	int i;

	primary_track_maps(context, maps);
	for (i = 0; i < 3; i++) {
		repl_bits_merge(to, maps[i]);
		smp_rmb();	/* as in repl_bits_look() */
	}
}

static void primary_track_failed(void *context, int error)
{
	primary_latch(context, PRIMARY_ERR_METADATA, error, 0);
}

static int primary_track_begin(void *context, bool is_ours, u64 next,
			       const char **why)
{
	struct repl_primary *p = context;

	return repl_keep_begin(&p->keep, is_ours && !p->foreign, next, why);
}

static int primary_track_save(void *context, const struct repl_bits *leaving)
{
	struct repl_primary *p = context;

	return repl_keep_save(&p->keep, leaving);
}

static const struct repl_track_ops primary_track_ops = {
	.flush = primary_track_flush,
	.lacks = primary_track_lacks,
	.merge = primary_track_merge,
	.failed = primary_track_failed,
	.begin = primary_track_begin,
	.save = primary_track_save,
};

static void primary_keep_failed(void *context, int error)
{
	struct repl_primary *p = context;

	repl_track_lost(p->track, error);
}

/*
 * ---- Construction ----
 */

static void primary_free(struct repl_primary *p)
{
	if (p->track)
		repl_track_destroy(p->track);
	repl_push_exit(&p->push);
	repl_window_exit(&p->window);
	repl_keep_exit(&p->keep);
	repl_dirty_exit(&p->dirty);
	repl_bits_exit(&p->checkpoint);
	repl_bits_exit(&p->frozen);
	if (p->wq)
		destroy_workqueue(p->wq);
	if (p->count)
		free_percpu(p->count);
	if (p->gate.count)
		repl_gate_exit(&p->gate);
	if (p->leaving)
		dm_put_device(p->ti, p->leaving);
	if (p->peer)
		dm_put_device(p->ti, p->peer);
	if (p->metadata)
		dm_put_device(p->ti, p->metadata);
	if (p->local)
		dm_put_device(p->ti, p->local);
	kfree(p->features);
	kfree(p);
}

enum feature {
	FEATURE_SYNC,
	FEATURE_ASYNC,
	FEATURE_CONGESTION,
	FEATURE_WINDOW,
	FEATURE_TIMEOUT,
	NR_FEATURES,
};

static int feature_number(struct dm_target *ti, const char *word,
			  unsigned int min, unsigned int max, char *error,
			  unsigned int *result)
{
	if (!kstrtouint(word, 10, result) && *result >= min && *result <= max)
		return 0;
	ti->error = error;
	return -EINVAL;
}

/* One word. Return: which feature, or a negative errno. */
static int parse_feature(struct dm_target *ti, struct repl_primary *p,
			 const char *word)
{
	int r;

	if (!strcmp(word, "sync")) {
		p->sync = true;
		return FEATURE_SYNC;
	}
	if (!strcmp(word, "async"))
		return FEATURE_ASYNC;
	if (!strcmp(word, "congestion=dirty") ||
	    !strcmp(word, "congestion=block")) {
		p->window.block = word[11] == 'b';
		return FEATURE_CONGESTION;
	}
	if (!strncmp(word, "congestion=", 11)) {
		ti->error = "Congestion is neither dirty nor block";
		return -EINVAL;
	}
	if (!strncmp(word, "window=", 7)) {
		r = feature_number(ti, word + 7, PRIMARY_WINDOW_MIN,
				   PRIMARY_WINDOW_MAX,
				   "Window is no number of KiB from 256 to 1048576",
				   &p->window.size);
		return r ? r : FEATURE_WINDOW;
	}
	if (!strncmp(word, "peer_timeout=", 13)) {
		r = feature_number(ti, word + 13, PRIMARY_TIMEOUT_MIN,
				   PRIMARY_TIMEOUT_MAX,
				   "Peer timeout is no number of ms from 100 to 600000",
				   &p->window.timeout);
		return r ? r : FEATURE_TIMEOUT;
	}
	ti->error = "Unknown feature of repl-primary";
	return -EINVAL;
}

static int primary_keep_features(struct dm_target *ti, struct repl_primary *p,
				 char **argv, int nr)
{
	size_t size = 1;
	int i;

	if (!nr)
		return 0;
	for (i = 0; i <= nr; i++)
		size += strlen(argv[i]) + 1;
	p->features = kzalloc(size, GFP_KERNEL);
	if (!p->features) {
		ti->error = "Cannot allocate primary";
		return -ENOMEM;
	}
	for (i = 0; i <= nr; i++) {
		strlcat(p->features, " ", size);
		strlcat(p->features, argv[i], size);
	}
	return 0;
}

static int primary_parse_features(struct dm_target *ti, struct repl_primary *p,
				  unsigned int argc, char **argv)
{
	int nr = repl_parse_nr_features(ti, argc, argv);
	unsigned long seen = 0;
	int i, feature;

	p->window.size = PRIMARY_WINDOW_KIB;
	p->window.timeout = PRIMARY_TIMEOUT_MS;
	if (nr < 0)
		return nr;
	for (i = 1; i <= nr; i++) {
		feature = parse_feature(ti, p, argv[i]);
		if (feature < 0)
			return feature;
		if (seen & BIT(feature)) {
			ti->error = "Feature given twice";
			return -EINVAL;
		}
		seen |= BIT(feature);
	}
	if ((seen & BIT(FEATURE_SYNC)) && (seen & BIT(FEATURE_ASYNC))) {
		ti->error = "Both sync and async";
		return -EINVAL;
	}
	if ((seen & BIT(FEATURE_SYNC)) && seen != BIT(FEATURE_SYNC)) {
		ti->error = "Feature needs async";
		return -EINVAL;
	}
	if (p->sync)
		p->window.size = 0;
	return primary_keep_features(ti, p, argv, nr);
}

static int primary_get_devices(struct dm_target *ti, struct repl_primary *p,
			       char **argv)
{
	int r = repl_get_device(ti, argv[0], REPL_DEV_LOCAL, &p->local);

	strscpy(p->peer_name, "-", sizeof(p->peer_name));
	if (!r && strcmp(argv[2], "-"))
		r = repl_get_device(ti, argv[2], REPL_DEV_METADATA,
				    &p->metadata);
	if (!r && p->metadata && repl_same_device(p->local, p->metadata)) {
		ti->error = "Metadata device is one of the others";
		r = -EINVAL;
	}
	if (r || !strcmp(argv[1], "-"))
		return r;
	r = repl_get_device(ti, argv[1], REPL_DEV_PEER, &p->peer);
	if (r)
		return r;
	if (repl_same_device(p->local, p->peer)) {
		ti->error = "Local and peer are the same device";
		return -EINVAL;
	}
	if (p->metadata && repl_same_device(p->peer, p->metadata)) {
		ti->error = "Metadata device is one of the others";
		return -EINVAL;
	}
	strscpy(p->peer_name, p->peer->name, sizeof(p->peer_name));
	return 0;
}

static int primary_alloc_maps(struct dm_target *ti, struct repl_primary *p)
{
	u64 nr = ((ti->len - 1) >> p->region_shift) + 1;
	int r = repl_bits_init(&p->checkpoint, nr);

	if (!r)
		r = repl_bits_init(&p->frozen, nr);
	if (!r)
		r = repl_dirty_init(&p->dirty, ti->len, p->region_shift);
	if (r) {
		ti->error = "Cannot allocate dirty maps";
		return r;
	}
	repl_dirty_reserve(&p->dirty, &p->peer_map, "peer", &p->window.missed);
	repl_dirty_reserve(&p->dirty, &p->checkpoint_map, "checkpoint",
			   &p->checkpoint);
	repl_dirty_set_gate(&p->dirty, primary_dirty_close, primary_dirty_open,
			    p);
	return 0;
}

static int primary_alloc_track(struct dm_target *ti, struct repl_primary *p)
{
	struct repl_track *track;

	p->identity.role = REPL_ROLE_PRIMARY;
	if (!p->metadata)
		return 0;
	track = repl_track_create(dm_table_get_md(ti->table), p->metadata->bdev,
				  ti->len, p->region_size, &primary_track_ops, p,
				  &ti->error);
	if (IS_ERR(track))
		return PTR_ERR(track);
	p->track = track;
	ti->error = "Cannot allocate a buffer for the dirty maps";
	return repl_keep_init(&p->keep, &p->dirty, track->store,
			      primary_keep_failed, p);
}

static int primary_alloc(struct dm_target *ti, struct repl_primary *p)
{
	int r;

	ti->error = "Cannot allocate primary";
	p->count = alloc_percpu(struct primary_count);
	if (!p->count || repl_gate_init(&p->gate))
		return -ENOMEM;
	ti->error = "Cannot allocate workqueue";
	p->wq = repl_alloc_workqueue("dm-repl-primary", 0);
	if (!p->wq)
		return -ENOMEM;
	ti->error = "Cannot allocate window";
	p->window.ops = &primary_window_ops;
	p->window.region_shift = p->region_shift;
	r = repl_window_init(&p->window, ti->len);
	if (r)
		return r;
	ti->error = "Cannot allocate pages for copies";
	p->push.ops = &primary_push_ops;
	p->push.window = &p->window;
	p->push.local = p->local->bdev;
	p->push.sectors = ti->len;
	p->push.region_shift = p->region_shift;
	r = repl_push_init(&p->push);
	if (!r)
		r = primary_alloc_maps(ti, p);
	return r ? r : primary_alloc_track(ti, p);
}

static struct repl_primary *primary_new(struct dm_target *ti)
{
	struct repl_primary *p = kzalloc(sizeof(*p), GFP_KERNEL);

	if (!p)
		return NULL;
	p->ti = ti;
	mutex_init(&p->lock);
	spin_lock_init(&p->error_lock);
	spin_lock_init(&p->late_lock);
	bio_list_init(&p->late);
	INIT_LIST_HEAD(&p->dirty.maps);
	INIT_WORK(&p->late_work, primary_sync_late_work);
	INIT_WORK(&p->event_work, primary_event);
	INIT_DELAYED_WORK(&p->hold_work, primary_hold_work);
	INIT_LIST_HEAD(&p->list);
	return p;
}

static int primary_limit_io(struct dm_target *ti, struct repl_primary *p)
{
	sector_t window = (sector_t)p->window.size * SZ_1K >> SECTOR_SHIFT;

	if (p->sync)
		return 0;
	ti->error = "Cannot limit the size of writes";
	return dm_set_target_max_io_len(ti, min_t(sector_t, PRIMARY_MAX_IO,
						  rounddown_pow_of_two(window / 2)));
}

static int primary_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct repl_primary *p;
	int r = -EINVAL;

	if (argc < 4) {
		ti->error = "Too few arguments for repl-primary";
		return -EINVAL;
	}
	p = primary_new(ti);
	if (!p) {
		ti->error = "Cannot allocate primary";
		return -ENOMEM;
	}
	r = repl_parse_region_size(ti, argv[3], &p->region_size);
	if (r)
		goto bad;
	p->region_shift = ilog2(p->region_size);
	r = primary_parse_features(ti, p, argc - 4, argv + 4);
	if (!r)
		r = primary_get_devices(ti, p, argv);
	if (!r)
		r = primary_alloc(ti, p);
	if (!r)
		r = primary_limit_io(ti, p);
	if (r)
		goto bad;
	repl_window_attach(&p->window, p->peer ? p->peer->bdev : NULL);

	ti->num_flush_bios = 1;
	ti->flush_supported = true;
	ti->num_discard_bios = 1;
	/* What the peer cannot do is dropped, or sent as data. */
	ti->discards_supported = bdev_max_discard_sectors(p->local->bdev);
	ti->num_write_zeroes_bios = 1;
	ti->per_io_data_size = sizeof(struct primary_io);
	ti->private = p;
	return 0;
bad:
	primary_free(p);
	return r;
}

/* A table that was live is suspended: nothing is in flight. */
static void primary_dtr(struct dm_target *ti)
{
	struct repl_primary *p = ti->private;

	mutex_lock(&primaries_lock);
	list_del(&p->list);
	mutex_unlock(&primaries_lock);
	cancel_delayed_work_sync(&p->hold_work);
	cancel_work_sync(&p->event_work);
	synchronize_rcu();	/* see repl_gate_put() */
	primary_free(p);
}

/*
 * ---- Suspend and reload ----
 */

/* The table stands still, or goes on. Writes still come while it stops. */
static void primary_stop(struct repl_primary *p, bool stop)
{
	if (p->suspended == stop)
		return;
	p->suspended = stop;
	if (stop) {
		repl_window_stopping(&p->window);
		primary_end_hold(p);
		repl_window_stop(&p->window);
		repl_job_hold(&p->push.job, true);
	} else {
		repl_window_resume(&p->window);
		repl_job_hold(&p->push.job, false);
	}
}

static void primary_presuspend(struct dm_target *ti)
{
	primary_stop(ti->private, true);
}

static void primary_presuspend_undo(struct dm_target *ti)
{
	primary_stop(ti->private, false);
}

/* Invariant 9: nothing is in flight. */
static void primary_postsuspend(struct dm_target *ti)
{
	struct repl_primary *p = ti->private;

	repl_job_settle(&p->push.job);
	repl_window_settle(&p->window);
	if (!p->track)
		return;
	repl_track_suspend(p->track);
	if (!repl_track_failed(p->track))
		repl_keep_leave(&p->keep, p->track->store->log.next);
}

/* What was dirty is dirty, also with regions of another size. */
static void take_bits(struct repl_primary *p, struct repl_bits *to,
		      struct repl_primary *old, const struct repl_bits *from)
{
	u64 nr, run, end;

	for (nr = repl_bits_next(from, 0); nr < from->nr;
	     nr = repl_bits_next(from, nr + run)) {
		run = repl_bits_run(from, nr, from->nr);
		end = (((nr + run) << old->region_shift) - 1) >>
		      p->region_shift;
		repl_bits_set(to, min(to->nr, (nr << old->region_shift) >>
					      p->region_shift),
			      min(to->nr, end + 1));
	}
}

/*
 * A reload must not make a peer whole that has missed writes: the new table
 * takes over the maps, the counts, the cut and, if it has the same peer, the
 * latched errors.
 */
static int primary_take_over(struct repl_primary *p, struct repl_primary *old)
{
	bool same = p->peer && old->peer && p->peer->bdev == old->peer->bdev;
	unsigned int noio = memalloc_noio_save();
	int r = repl_dirty_take_over(&p->dirty, &old->dirty);
	int cpu;

	memalloc_noio_restore(noio);
	if (r) {
		DMERR("%s: no memory for the dirty maps",
		      dm_table_device_name(p->ti->table));
		return r;
	}
	for_each_possible_cpu(cpu) {
		struct primary_count *to = per_cpu_ptr(p->count, cpu);
		struct primary_count *from = per_cpu_ptr(old->count, cpu);

		to->writes += from->writes;
		to->forwarded += from->forwarded;
	}
	repl_window_hand_over(&p->window, &old->window);
	if (p->ti->len > old->ti->len) {
		/* Nobody knows what either disk has there. */
		repl_window_grown(&p->window, old->ti->len, p->ti->len - old->ti->len);
		repl_bits_set(&p->checkpoint, old->ti->len >> p->region_shift,
			      p->checkpoint.nr);
	}
	take_bits(p, &p->checkpoint, old, &old->checkpoint);
	take_bits(p, &p->frozen, old, &old->frozen);
	p->cut = old->cut;
	if (p->cut != PRIMARY_CUT_NONE)
		repl_dirty_set_frozen(&p->checkpoint_map, &p->frozen);
	p->cut_id = old->cut_id;
	p->cut_gone = old->cut_gone;
	p->drained = old->drained;
	p->detached = !p->peer && old->detached;
	if (same) {
		p->errors = old->errors;
		p->first_errno = old->first_errno;
		p->first_sector = old->first_sector;
	}
	repl_push_take_over(&p->push, &old->push);
	return 0;
}

/* Maps of a table that kept them, in one that does not. */
static void primary_unkeep(struct repl_primary *p)
{
	struct repl_dirty_map *map;

	list_for_each_entry(map, &p->dirty.maps, list)
		repl_dirty_unkeep(map);
}

/*
 * Before anything that may fail: the old table is gone when it is tried again, and a third one
 * takes over from us.
 */
static int primary_inherit(struct repl_primary *p, struct repl_primary *old)
{
	int r;

	p->same = old->loaded && old->metadata && p->metadata &&
		  old->metadata->bdev == p->metadata->bdev;
	p->identity = old->identity;
	r = primary_take_over(p, old);
	p->unknown = r || old->unknown;
	p->same &= !p->unknown;
	/* What that wrote is not marked in what is found on the device. */
	p->foreign = !p->same;
	list_add(&p->list, &primaries);
	return r;
}

/*
 * What the metadata device says begins the maps, unless the table before had
 * the same one: then its maps are exact.
 */
static int primary_load(struct repl_primary *p)
{
	const char *why = NULL;
	int r = p->track ? repl_track_open(p->track, &why) : 0;

	if (r) {
		DMERR("%s: %s (error %d)", dm_table_device_name(p->ti->table),
		      why, r);
		return r;
	}
	if (p->track && p->track->store->unrecorded)
		DMWARN("%s: writes were not recorded: all regions are dirty",
		       dm_table_device_name(p->ti->table));
	if (p->track)
		r = repl_keep_load(&p->keep, &p->track->dirty, p->same, &why);
	else
		primary_unkeep(p);
	if (p->unknown) {
		repl_bits_set(&p->checkpoint, 0, p->checkpoint.nr);
		repl_window_grown(&p->window, 0, p->ti->len);
	}
	if (r || !p->track)
		return r;
	if (!p->same) {
		repl_bits_merge(&p->checkpoint, &p->track->dirty);
		repl_bits_merge(&p->window.missed, &p->track->dirty);
	}
	return repl_track_cover(p->track);
}

/* The table before: the newest of this device that was resumed, or should have been. */
static struct repl_primary *primary_before(struct repl_primary *p)
{
	struct mapped_device *md = dm_table_get_md(p->ti->table);
	struct repl_primary *other;

	list_for_each_entry(other, &primaries, list)
		if (other != p && dm_table_get_md(other->ti->table) == md)
			return other;
	return NULL;
}

/* Both tables are suspended. */
static int primary_preresume(struct dm_target *ti)
{
	struct repl_primary *p = ti->private;
	struct repl_primary *old;
	int r = 0;

	mutex_lock(&primaries_lock);
	if (!p->loaded) {
		old = list_empty(&p->list) ? primary_before(p) : NULL;
		if (old)
			r = primary_inherit(p, old);
		if (!r)
			r = primary_load(p);
		if (!r) {
			p->loaded = true;
			p->unknown = false;	/* all that is so is dirty */
			if (list_empty(&p->list))
				list_add(&p->list, &primaries);
		}
	} else if (p->track && repl_keep_has_maps(&p->keep) &&
		   repl_track_again(p->track)) {
		repl_keep_doubt(&p->keep);
	}
	mutex_unlock(&primaries_lock);
	return r;
}

static void primary_resume(struct dm_target *ti)
{
	struct repl_primary *p = ti->private;

	primary_end_cut(p);
	/* A new table does not stand still, but what it took over may be missing. */
	if (p->suspended)
		primary_stop(p, false);
	else
		repl_window_resume(&p->window);
	repl_job_poke(&p->push.job);
	if (p->track)
		repl_track_resume(p->track);
}

/*
 * ---- Status ----
 */

static unsigned int primary_errors_status(struct repl_primary *p, char *result,
					  unsigned int maxlen, unsigned int sz)
{
	unsigned long errors;
	sector_t sector;
	int err, i;

	spin_lock_irq(&p->error_lock);
	errors = p->errors;
	err = p->first_errno;
	sector = p->first_sector;
	spin_unlock_irq(&p->error_lock);

	if (!errors) {
		DMEMIT("- 0 - ");
		return sz;
	}
	for (i = 0; i < PRIMARY_NR_ERRORS; i++)
		if (errors & BIT(i)) {
			errors &= ~BIT(i);
			DMEMIT("%s%c", primary_errors[i], errors ? ',' : ' ');
		}
	DMEMIT("%d %llu ", err, (u64)sector);
	return sz;
}

static unsigned int primary_cut_status(struct repl_primary *p, char *result,
				       unsigned int maxlen, unsigned int sz)
{
	enum primary_cut cut = READ_ONCE(p->cut);
	const char *word;

	if (cut == PRIMARY_CUT_NONE) {
		DMEMIT("- ");
		return sz;
	}
	if (READ_ONCE(p->window.broken))
		word = "broken";
	else if (cut == PRIMARY_CUT_HELD)
		word = "held";
	else
		word = READ_ONCE(p->drained) ? "drained" : "cut";
	DMEMIT("%llu:%s ", READ_ONCE(p->cut_id), word);
	return sz;
}

/*
 * primary <stage> <mode> <peer> <writes> <forwarded> <missed> <errors>
 * <first errno> <first sector> <window> <dirty> <cut> <job> <job state>
 * <progress> <speed KiB/s> <checkpoint regions> <metadata>
 */
static void primary_info(struct repl_primary *p, char *result,
			 unsigned int maxlen)
{
	bool attached = repl_window_peer(&p->window);
	bool failed = READ_ONCE(p->window.failed);
	u64 forwarded = READ_ONCE(p->window.forwarded), writes;
	struct repl_push_progress progress;
	unsigned int sz = 0;
	const char *peer;
	int cpu;

	/* forwarded first: a write that ends meanwhile is not forwarded only */
	for_each_possible_cpu(cpu)
		forwarded += READ_ONCE(per_cpu_ptr(p->count, cpu)->forwarded);
	smp_rmb();	/* keep the order of the sums */
	writes = primary_writes(p);

	if (attached)
		peer = failed ? "failed" : "attached";
	else
		peer = READ_ONCE(p->detached) ? "detached" : "none";
	DMEMIT("primary %s %s %s %llu %llu %llu ",
	       attached && !failed ? "running" : "none",
	       p->sync ? "sync" : "async", peer, writes, forwarded,
	       max(writes, forwarded) - forwarded);
	sz = primary_errors_status(p, result, maxlen, sz);
	DMEMIT("%u/%u %llu/%llu ", repl_window_used(&p->window), p->window.size,
	       repl_bits_count(&p->window.missed), p->window.missed.nr);
	sz = primary_cut_status(p, result, maxlen, sz);
	repl_push_progress(&p->push, &progress);
	DMEMIT("%s %s %llu/%llu %llu ",
	       READ_ONCE(p->push.job.state) == REPL_JOB_NONE ? "-" : "push",
	       repl_job_state_name(&p->push.job), progress.done,
	       progress.total, READ_ONCE(p->push.job.speed) / SZ_1K);
	/* (What was written on both sides of a cut is in both.) */
	DMEMIT("%llu ", min(repl_bits_count(&p->checkpoint) +
			    repl_bits_count(&p->frozen), p->checkpoint.nr));
	if (p->track)
		DMEMIT("%llu/%llu", repl_log_used(&p->track->store->log),
		       p->track->store->log.meta.layout.log_blocks);
	else
		DMEMIT("-");
}

static void primary_status(struct dm_target *ti, status_type_t type,
			   unsigned int flags, char *result,
			   unsigned int maxlen)
{
	struct repl_primary *p = ti->private;
	unsigned int sz = 0;

	switch (type) {
	case STATUSTYPE_INFO:
		primary_info(p, result, maxlen);
		break;
	case STATUSTYPE_TABLE:
		/* Not p->lock: a message may wait. */
		spin_lock_irq(&p->error_lock);
		DMEMIT("%s %s %s %llu", p->local->name, p->peer_name,
		       p->metadata ? p->metadata->name : "-",
		       (u64)p->region_size);
		spin_unlock_irq(&p->error_lock);
		if (p->features)
			DMEMIT("%s", p->features);
		break;
	case STATUSTYPE_IMA:
		*result = '\0';
		break;
	}
}

static int primary_iterate_devices(struct dm_target *ti,
				   iterate_devices_callout_fn fn, void *data)
{
	struct repl_primary *p = ti->private;
	int r = fn(ti, p->local, 0, ti->len, data);

	if (r)
		return r;
	mutex_lock(&p->lock);	/* against detach */
	if (p->peer)
		r = fn(ti, p->peer, 0, ti->len, data);
	mutex_unlock(&p->lock);
	return r;
}

static void primary_io_hints(struct dm_target *ti, struct queue_limits *limits)
{
	repl_limit_discard(limits, REPL_MAX_DISCARD);
}

struct target_type repl_primary_target = {
	.name = "repl-primary",
	.version = {1, 1, 0},
	.features = DM_TARGET_SINGLETON,
	.module = THIS_MODULE,
	.ctr = primary_ctr,
	.dtr = primary_dtr,
	.map = primary_map,
	.end_io = primary_end_io,
	.presuspend = primary_presuspend,
	.presuspend_undo = primary_presuspend_undo,
	.postsuspend = primary_postsuspend,
	.preresume = primary_preresume,
	.resume = primary_resume,
	.message = primary_message,
	.status = primary_status,
	.iterate_devices = primary_iterate_devices,
	.io_hints = primary_io_hints,
};
