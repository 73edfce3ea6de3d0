// SPDX-License-Identifier: GPL-2.0-only
/*
 * repl-primary: the workload's device.
 *
 *	repl-primary <local> <peer|-> <metadata|-> <region_size>
 *		     [<#features> <feature>...]
 *
 * Reads go to local, writes to both legs. In mode sync a write ends when both
 * legs have. An error of the peer's leg never reaches the workload: it is
 * latched, nothing more is forwarded, and whoever takes checkpoints must look
 * (the pair has diverged).
 *
 * The peer's leg is a clone that lies in the per-bio data and holds one more
 * count on the bio: no allocation, and the bio ends with its last leg.
 */

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/slab.h>

#include "compat.h"
#include "gate.h"
#include "targets.h"

#define DM_MSG_PREFIX "repl-primary"

enum primary_error {
	PRIMARY_ERR_PEER_WRITE,
	PRIMARY_ERR_PEER_FLUSH,
	PRIMARY_NR_ERRORS,
};

static const char * const primary_errors[PRIMARY_NR_ERRORS] = {
	[PRIMARY_ERR_PEER_WRITE]	= "peer-write",
	[PRIMARY_ERR_PEER_FLUSH]	= "peer-flush",
};

/* The table that is live hands over to the one that replaces it. */
static DEFINE_MUTEX(primaries_lock);
static LIST_HEAD(primaries);

/* Written by one CPU, summed for status. */
struct primary_count {
	u64 writes;
	u64 forwarded;
};

struct repl_primary {
	struct dm_target *ti;
	struct dm_dev *local;
	struct block_device *peer_bdev;	/* changes behind the closed gate */
	bool failed;			/* forward nothing more */
	struct repl_gate gate;		/* writes pass it */
	struct primary_count __percpu *count;

	struct workqueue_struct *wq;
	struct work_struct late_work;
	spinlock_t late_lock;		/* late */
	struct bio_list late;		/* peer's legs for late_work */

	struct mutex lock;		/* attach, detach */
	struct dm_dev *peer;
	bool detached;			/* by message */
	spinlock_t error_lock;		/* errors, first_*, peer_name */
	char peer_name[16];
	unsigned long errors;
	int first_errno;
	sector_t first_sector;
	struct work_struct event_work;

	struct list_head list;		/* of live ones: primaries */
	sector_t region_size;
	bool sync_word;			/* given on the table line */
};

struct primary_io {
	struct repl_primary *primary;
	sector_t sector;
	unsigned int sectors;
	bool gated;
	bool forwarded;
	bool late;			/* discard or zeroes: local goes first */
	bool as_data;			/* the peer cannot write zeroes */
	struct bio peer;
};

static struct primary_io *primary_io(struct bio *bio)
{
	return dm_per_bio_data(bio, sizeof(struct primary_io));
}

/*
 * ---- The peer's leg ----
 */

static void primary_latch(struct repl_primary *p, enum primary_error error,
			  int err, sector_t sector)
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

	WRITE_ONCE(p->failed, true);
	if (!fresh)
		return;
	DMERR_LIMIT("%s: %s error %d at sector %llu: peer detached",
		    dm_table_device_name(p->ti->table), primary_errors[error],
		    err, (unsigned long long)sector);
	queue_work(p->wq, &p->event_work);
}

static void primary_event(struct work_struct *work)
{
	struct repl_primary *p = container_of(work, struct repl_primary,
					      event_work);

	dm_table_event(p->ti->table);
}

/* The peer's leg is over; the bio may be gone on return. */
static void peer_done(struct bio *peer, blk_status_t status)
{
	struct primary_io *io = container_of(peer, struct primary_io, peer);
	struct bio *bio = dm_bio_from_per_bio_data(io, sizeof(*io));

	if (unlikely(status))
		primary_latch(io->primary, io->sectors ?
			      PRIMARY_ERR_PEER_WRITE : PRIMARY_ERR_PEER_FLUSH,
			      blk_status_to_errno(status), io->sector);
	else
		io->forwarded = true;
	bio_uninit(peer);
	bio_endio(bio);
}

/* Leave the peer's leg to peer_late_work(). */
static void peer_send_late(struct repl_primary *p, struct bio *peer)
{
	unsigned long flags;

	rcu_read_lock();	/* the bio may end at once, and we with it */
	spin_lock_irqsave(&p->late_lock, flags);
	bio_list_add(&p->late, peer);
	spin_unlock_irqrestore(&p->late_lock, flags);
	queue_work(p->wq, &p->late_work);
	rcu_read_unlock();
}

static bool peer_not_supported(blk_status_t status)
{
	return status == BLK_STS_NOTSUPP || status == BLK_STS_TARGET;
}

static void peer_endio(struct bio *peer)
{
	struct primary_io *io = container_of(peer, struct primary_io, peer);
	blk_status_t status = peer->bi_status;

	if (unlikely(peer_not_supported(status))) {
		switch (bio_op(peer)) {
		case REQ_OP_DISCARD:
			status = BLK_STS_OK;	/* dropped */
			break;
		case REQ_OP_WRITE_ZEROES:
			io->as_data = true;
			peer_send_late(io->primary, peer);
			return;
		default:
			break;
		}
	}
	peer_done(peer, status);
}

static void peer_late(struct repl_primary *p, struct bio *peer)
{
	struct primary_io *io = container_of(peer, struct primary_io, peer);
	bool discard = bio_op(peer) == REQ_OP_DISCARD;
	int r;

	if (discard && !bdev_max_discard_sectors(p->peer_bdev)) {
		peer_done(peer, BLK_STS_OK);	/* dropped */
	} else if (!discard && (io->as_data ||
				!bdev_write_zeroes_sectors(p->peer_bdev))) {
		/* Falls back to data, whatever the device had announced. */
		r = blkdev_issue_zeroout(p->peer_bdev, io->sector, io->sectors,
					 GFP_NOIO, 0);
		peer_done(peer, errno_to_blk_status(r));
	} else {
		submit_bio_noacct(peer);
	}
}

static void peer_late_work(struct work_struct *work)
{
	struct repl_primary *p = container_of(work, struct repl_primary,
					      late_work);
	struct bio_list late = BIO_EMPTY_LIST;
	struct bio *peer;

	spin_lock_irq(&p->late_lock);
	bio_list_merge(&late, &p->late);
	bio_list_init(&p->late);
	spin_unlock_irq(&p->late_lock);

	while ((peer = bio_list_pop(&late)))
		peer_late(p, peer);
}

static void peer_prepare(struct bio *peer)
{
	peer->bi_end_io = peer_endio;
	peer->bi_opf &= ~REQ_POLLED;	/* nobody polls the peer */
}

/* Start the peer's leg of @bio. */
static void peer_send(struct repl_primary *p, struct bio *bio)
{
	struct primary_io *io = primary_io(bio);

	if (bio_init_clone(p->peer_bdev, &io->peer, bio, GFP_NOWAIT)) {
		primary_latch(p, PRIMARY_ERR_PEER_WRITE, -ENOMEM, io->sector);
		return;
	}
	peer_prepare(&io->peer);
	bio_inc_remaining(bio);
	submit_bio_noacct(&io->peer);
}

/*
 * ---- Data path ----
 */

static bool primary_has_peer(struct repl_primary *p)
{
	return p->peer_bdev && !READ_ONCE(p->failed);
}

/* A write that is inside the gate. */
static void primary_write(struct repl_primary *p, struct bio *bio)
{
	struct primary_io *io = primary_io(bio);

	io->gated = true;
	bio_set_dev(bio, p->local->bdev);
	io->late = bio_op(bio) == REQ_OP_DISCARD ||
		   bio_op(bio) == REQ_OP_WRITE_ZEROES;
	if (likely(primary_has_peer(p) && !io->late))
		peer_send(p, bio);
}

/*
 * The local disk has discarded or zeroed. Only now may the peer: a disk that
 * cannot says so when asked, its sender believes that nothing has changed, and
 * then nothing may have changed on the peer either.
 */
static void primary_write_late(struct repl_primary *p, struct bio *bio)
{
	struct primary_io *io = primary_io(bio);

	io->late = false;
	io->as_data = false;
	bio_init(&io->peer, p->peer_bdev, NULL, 0, bio->bi_opf);
	io->peer.bi_iter.bi_sector = io->sector;
	io->peer.bi_iter.bi_size = io->sectors << SECTOR_SHIFT;
	peer_prepare(&io->peer);
	peer_send_late(p, &io->peer);
}

static int primary_map(struct dm_target *ti, struct bio *bio)
{
	struct repl_primary *p = ti->private;
	struct primary_io *io = primary_io(bio);

	bio->bi_iter.bi_sector = dm_target_offset(ti, bio->bi_iter.bi_sector);
	io->gated = false;
	if (!op_is_write(bio_op(bio))) {
		bio_set_dev(bio, p->local->bdev);
		return DM_MAPIO_REMAPPED;
	}

	io->primary = p;
	io->sector = bio->bi_iter.bi_sector;
	io->sectors = bio_sectors(bio);
	io->forwarded = false;
	while (unlikely(!repl_gate_enter(&p->gate)))
		if (repl_gate_park(&p->gate, bio))
			return DM_MAPIO_SUBMITTED;
	primary_write(p, bio);
	return DM_MAPIO_REMAPPED;
}

/* Both legs have ended. */
static int primary_end_io(struct dm_target *ti, struct bio *bio,
			  blk_status_t *error)
{
	struct repl_primary *p = ti->private;
	struct primary_io *io = primary_io(bio);

	if (!io->gated)
		return DM_ENDIO_DONE;
	if (unlikely(io->late && !*error && primary_has_peer(p))) {
		primary_write_late(p, bio);
		return DM_ENDIO_INCOMPLETE;	/* peer_done() ends it again */
	}
	if (io->sectors) {
		this_cpu_inc(p->count->writes);
		if (io->forwarded)
			this_cpu_inc(p->count->forwarded);
	}
	repl_gate_put(&p->gate);
	return DM_ENDIO_DONE;
}

/*
 * ---- Attach and detach ----
 */

static int primary_close(struct repl_primary *p)
{
	repl_gate_close(&p->gate);
	return repl_gate_drain(&p->gate);
}

static void primary_open(struct repl_primary *p)
{
	struct bio_list parked = BIO_EMPTY_LIST;
	struct bio *bio;

	repl_gate_open(&p->gate, &parked);
	while ((bio = bio_list_pop(&parked))) {
		/* Nobody closes it while we hold the lock. */
		repl_gate_get(&p->gate);
		primary_write(p, bio);
		submit_bio_noacct(bio);
	}
}

/* Put @dev, or nothing, in the place of the peer. */
static int primary_replace(struct repl_primary *p, struct dm_dev *dev)
{
	struct dm_dev *old = p->peer;
	int r = primary_close(p);

	if (!r) {
		p->peer = dev;
		p->peer_bdev = dev ? dev->bdev : NULL;
		p->detached = !dev;
		spin_lock_irq(&p->error_lock);
		if (dev)
			p->errors = 0;
		strscpy(p->peer_name, dev ? dev->name : "-",
			sizeof(p->peer_name));
		spin_unlock_irq(&p->error_lock);
		if (dev)
			WRITE_ONCE(p->failed, false);
		if (old)
			dm_put_device(p->ti, old);
	}
	primary_open(p);
	if (!r)
		queue_work(p->wq, &p->event_work);
	return r;
}

static int primary_attach(struct repl_primary *p, const char *path)
{
	const char *name = dm_table_device_name(p->ti->table);
	struct dm_dev *dev;
	int r;

	if (p->peer && !READ_ONCE(p->failed)) {
		DMERR("%s: attach: there is a peer: detach it first", name);
		return -EBUSY;
	}
	r = repl_get_device(p->ti, path, REPL_DEV_PEER, &dev);
	if (r) {
		DMERR("%s: attach %s: %s", name, path, p->ti->error);
		return r;
	}
	r = -EINVAL;
	if (repl_same_device(dev, p->local))
		DMERR("%s: attach %s: local and peer are the same device", name,
		      path);
	else if (bdev_logical_block_size(dev->bdev) >
		 queue_logical_block_size(dm_disk(dm_table_get_md(p->ti->table))->queue))
		DMERR("%s: attach %s: its blocks are larger than this device's",
		      name, path);
	else
		r = primary_replace(p, dev);
	if (r)
		dm_put_device(p->ti, dev);
	return r;
}

static int primary_detach(struct repl_primary *p)
{
	if (!p->peer) {
		DMERR("%s: detach: there is no peer",
		      dm_table_device_name(p->ti->table));
		return -EBUSY;
	}
	return primary_replace(p, NULL);
}

static bool primary_is_later(const char *name)
{
	static const char * const later[] = {
		"cut", "release", "abort", "push", "job", "dirty",
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(later); i++)
		if (!strcmp(name, later[i]))
			return true;
	return false;
}

static int primary_message(struct dm_target *ti, unsigned int argc,
			   char **argv, char *result, unsigned int maxlen)
{
	struct repl_primary *p = ti->private;
	const char *name = dm_table_device_name(ti->table);
	int r = -EINVAL;

	if (primary_is_later(argv[0])) {
		DMERR("%s: '%s' needs asynchronous forwarding, which this version has not got",
		      name, argv[0]);
		return -EOPNOTSUPP;
	}

	if (mutex_lock_killable(&p->lock))
		return -EINTR;
	if (!strcmp(argv[0], "attach") && argc == 2)
		r = primary_attach(p, argv[1]);
	else if (!strcmp(argv[0], "detach") && argc == 1)
		r = primary_detach(p);
	else
		DMERR("%s: unknown or malformed message '%s'", name, argv[0]);
	mutex_unlock(&p->lock);
	return r;
}

/*
 * ---- Construction ----
 */

static void primary_free(struct repl_primary *p)
{
	if (p->wq)
		destroy_workqueue(p->wq);
	if (p->count)
		free_percpu(p->count);
	if (p->gate.count)
		repl_gate_exit(&p->gate);
	if (p->peer)
		dm_put_device(p->ti, p->peer);
	if (p->local)
		dm_put_device(p->ti, p->local);
	kfree(p);
}

static int primary_parse_features(struct dm_target *ti, struct repl_primary *p,
				  unsigned int argc, char **argv)
{
	int nr = repl_parse_nr_features(ti, argc, argv);
	int i;

	for (i = 1; i <= nr; i++) {
		if (!strcmp(argv[i], "sync")) {
			if (p->sync_word) {
				ti->error = "Feature given twice";
				return -EINVAL;
			}
			p->sync_word = true;
			continue;
		}
		if (!strcmp(argv[i], "async") ||
		    !strncmp(argv[i], "congestion=", 11) ||
		    !strncmp(argv[i], "peer_timeout=", 13)) {
			ti->error = "Asynchronous forwarding is not supported yet";
			return -EOPNOTSUPP;
		}
		ti->error = "Unknown feature of repl-primary";
		return -EINVAL;
	}
	return min(nr, 0);
}

static int primary_get_devices(struct dm_target *ti, struct repl_primary *p,
			       char **argv)
{
	int r = repl_get_device(ti, argv[0], REPL_DEV_LOCAL, &p->local);

	strscpy(p->peer_name, "-", sizeof(p->peer_name));
	if (r || !strcmp(argv[1], "-"))
		return r;
	r = repl_get_device(ti, argv[1], REPL_DEV_PEER, &p->peer);
	if (r)
		return r;
	if (repl_same_device(p->local, p->peer)) {
		ti->error = "Local and peer are the same device";
		return -EINVAL;
	}
	p->peer_bdev = p->peer->bdev;
	strscpy(p->peer_name, p->peer->name, sizeof(p->peer_name));
	return 0;
}

static int primary_alloc(struct dm_target *ti, struct repl_primary *p)
{
	ti->error = "Cannot allocate primary";
	p->count = alloc_percpu(struct primary_count);
	if (!p->count || repl_gate_init(&p->gate))
		return -ENOMEM;
	ti->error = "Cannot allocate workqueue";
	p->wq = repl_alloc_workqueue("dm-repl-primary");
	return p->wq ? 0 : -ENOMEM;
}

static int primary_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct repl_primary *p;
	int r = -EINVAL;

	if (argc < 4) {
		ti->error = "Too few arguments for repl-primary";
		return -EINVAL;
	}
	p = kzalloc(sizeof(*p), GFP_KERNEL);
	if (!p) {
		ti->error = "Cannot allocate primary";
		return -ENOMEM;
	}
	p->ti = ti;
	mutex_init(&p->lock);
	spin_lock_init(&p->error_lock);
	spin_lock_init(&p->late_lock);
	bio_list_init(&p->late);
	INIT_WORK(&p->late_work, peer_late_work);
	INIT_WORK(&p->event_work, primary_event);
	INIT_LIST_HEAD(&p->list);

	if (strcmp(argv[2], "-")) {
		ti->error = "Metadata device is not supported yet: use -";
		r = -EOPNOTSUPP;
		goto bad;
	}
	r = repl_parse_region_size(ti, argv[3], &p->region_size);
	if (r)
		goto bad;
	r = primary_parse_features(ti, p, argc - 4, argv + 4);
	if (r)
		goto bad;
	r = primary_get_devices(ti, p, argv);
	if (r)
		goto bad;
	r = primary_alloc(ti, p);
	if (r)
		goto bad;

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

static void primary_dtr(struct dm_target *ti)
{
	struct repl_primary *p = ti->private;

	mutex_lock(&primaries_lock);
	list_del(&p->list);
	mutex_unlock(&primaries_lock);
	cancel_work_sync(&p->event_work);
	synchronize_rcu();	/* see repl_gate_put() */
	primary_free(p);
}

/*
 * A reload must not make a peer whole that has missed writes: the new table
 * takes over the counts and, if it has the same peer, the latched errors.
 */
static void primary_take_over(struct repl_primary *p, struct repl_primary *old)
{
	int cpu;

	for_each_possible_cpu(cpu) {
		struct primary_count *to = per_cpu_ptr(p->count, cpu);
		struct primary_count *from = per_cpu_ptr(old->count, cpu);

		to->writes += from->writes;
		to->forwarded += from->forwarded;
	}
	if (!p->peer_bdev || p->peer_bdev != old->peer_bdev)
		return;
	p->errors = old->errors;
	p->first_errno = old->first_errno;
	p->first_sector = old->first_sector;
	p->failed = old->failed;
}

/* No I/O: both tables are suspended. */
static int primary_preresume(struct dm_target *ti)
{
	struct repl_primary *p = ti->private;
	struct repl_primary *old;

	mutex_lock(&primaries_lock);
	if (list_empty(&p->list)) {
		list_for_each_entry(old, &primaries, list)
			if (dm_table_get_md(old->ti->table) ==
			    dm_table_get_md(ti->table))
				primary_take_over(p, old);
		list_add(&p->list, &primaries);
	}
	mutex_unlock(&primaries_lock);
	return 0;
}

/*
 * ---- Status ----
 */

static void primary_errors_status(struct repl_primary *p, char *result,
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
		DMEMIT("- 0 -");
		return;
	}
	for (i = 0; i < PRIMARY_NR_ERRORS; i++)
		if (errors & BIT(i)) {
			errors &= ~BIT(i);
			DMEMIT("%s%c", primary_errors[i], errors ? ',' : ' ');
		}
	DMEMIT("%d %llu", err, (u64)sector);
}

/*
 * primary <stage> <mode> <peer> <writes> <forwarded> <missed> <errors>
 * <first errno> <first sector>
 */
static void primary_info(struct repl_primary *p, char *result,
			 unsigned int maxlen)
{
	bool failed = READ_ONCE(p->failed);
	bool attached = READ_ONCE(p->peer_bdev);
	struct primary_count sum = {};
	unsigned int sz = 0;
	const char *peer;
	int cpu;

	/* forwarded first: a write that ends meanwhile is not forwarded only */
	for_each_possible_cpu(cpu)
		sum.forwarded += READ_ONCE(per_cpu_ptr(p->count, cpu)->forwarded);
	smp_rmb();	/* keep the order of the sums */
	for_each_possible_cpu(cpu)
		sum.writes += READ_ONCE(per_cpu_ptr(p->count, cpu)->writes);

	if (attached)
		peer = failed ? "failed" : "attached";
	else
		peer = READ_ONCE(p->detached) ? "detached" : "none";
	DMEMIT("primary %s sync %s %llu %llu %llu ",
	       attached && !failed ? "running" : "none", peer, sum.writes,
	       sum.forwarded, max(sum.writes, sum.forwarded) - sum.forwarded);
	primary_errors_status(p, result, maxlen, sz);
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
		/* Not p->lock: detach may wait for a peer that hangs. */
		spin_lock_irq(&p->error_lock);
		DMEMIT("%s %s - %llu", p->local->name, p->peer_name,
		       (u64)p->region_size);
		spin_unlock_irq(&p->error_lock);
		if (p->sync_word)
			DMEMIT(" 1 sync");
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
	.version = {1, 0, 0},
	.features = DM_TARGET_SINGLETON,
	.module = THIS_MODULE,
	.ctr = primary_ctr,
	.dtr = primary_dtr,
	.map = primary_map,
	.end_io = primary_end_io,
	.preresume = primary_preresume,
	.message = primary_message,
	.status = primary_status,
	.iterate_devices = primary_iterate_devices,
	.io_hints = primary_io_hints,
};
