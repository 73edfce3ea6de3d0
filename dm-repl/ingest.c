// SPDX-License-Identifier: GPL-2.0-only
/*
 * repl-ingest: where the peer's writes arrive.
 *
 *	repl-ingest <secondary>
 *
 * A write reaches the secondary only through the chain of the repl-secondary
 * on the same device. Without one all I/O fails: passing it through would
 * destroy the checkpoint, after a reboot say, before repl-secondary is loaded.
 */

#include "chain.h"
#include "targets.h"

static int ingest_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct repl_ingest *ingest;
	int r;

	if (argc != 1) {
		ti->error = "Wrong number of arguments for repl-ingest";
		return -EINVAL;
	}
	ingest = kzalloc(sizeof(*ingest), GFP_KERNEL);
	if (!ingest) {
		ti->error = "Cannot allocate ingest";
		return -ENOMEM;
	}
	ingest->ti = ti;
	INIT_LIST_HEAD(&ingest->list);

	r = repl_get_device(ti, argv[0], REPL_DEV_SECONDARY, &ingest->dev);
	if (r)
		goto bad_device;
	r = -ENOMEM;
	ingest->origin = repl_origin_get(ingest->dev->bdev->bd_dev);
	if (!ingest->origin) {
		ti->error = "Cannot allocate origin";
		goto bad_origin;
	}

	ti->num_flush_bios = 1;
	ti->num_discard_bios = 1;
	ti->num_write_zeroes_bios = 1;
	ti->per_io_data_size = sizeof(struct repl_io);
	ti->private = ingest;
	return 0;

bad_origin:
	dm_put_device(ti, ingest->dev);
bad_device:
	kfree(ingest);
	return r;
}

static void ingest_dtr(struct dm_target *ti)
{
	struct repl_ingest *ingest = ti->private;

	repl_origin_del_ingest(ingest);
	repl_origin_put(ingest->origin);
	dm_put_device(ti, ingest->dev);
	kfree(ingest);
}

static int ingest_map(struct dm_target *ti, struct bio *bio)
{
	struct repl_ingest *ingest = ti->private;
	struct repl_chain *chain;
	bool entered;
	int r;

	bio->bi_iter.bi_sector = dm_target_offset(ti, bio->bi_iter.bi_sector);

	rcu_read_lock();
	chain = rcu_dereference(ingest->origin->chain);
	if (unlikely(!chain)) {
		rcu_read_unlock();
		return DM_MAPIO_KILL;
	}
	repl_io_init(bio, chain, false);
	entered = repl_chain_enter(chain, bio, true);
	rcu_read_unlock();
	if (unlikely(!entered))
		return DM_MAPIO_SUBMITTED;

	r = repl_cbw_map(chain, bio);
	if (unlikely(r == DM_MAPIO_KILL))
		repl_gate_put(&chain->gate);
	return r;
}

static int ingest_end_io(struct dm_target *ti, struct bio *bio,
			 blk_status_t *error)
{
	return repl_chain_end_io(bio, *error);
}

static void ingest_resume(struct dm_target *ti)
{
	repl_origin_add_ingest(ti->private);
}

/* ingest <stage> <bound|unbound> <open|fenced> */
static void ingest_status(struct dm_target *ti, status_type_t type,
			  unsigned int flags, char *result, unsigned int maxlen)
{
	struct repl_ingest *ingest = ti->private;
	struct repl_chain *chain;
	unsigned int sz = 0;

	switch (type) {
	case STATUSTYPE_INFO:
		rcu_read_lock();
		chain = rcu_dereference(ingest->origin->chain);
		if (chain)
			DMEMIT("ingest %s bound %s",
			       repl_stage_name(READ_ONCE(chain->stage)),
			       READ_ONCE(chain->fenced) ? "fenced" : "open");
		else
			DMEMIT("ingest none unbound open");
		rcu_read_unlock();
		break;
	case STATUSTYPE_TABLE:
		DMEMIT("%s", ingest->dev->name);
		break;
	case STATUSTYPE_IMA:
		*result = '\0';
		break;
	}
}

static int ingest_iterate_devices(struct dm_target *ti,
				  iterate_devices_callout_fn fn, void *data)
{
	struct repl_ingest *ingest = ti->private;

	return fn(ti, ingest->dev, 0, ti->len, data);
}

static void ingest_io_hints(struct dm_target *ti, struct queue_limits *limits)
{
	repl_limit_discard(limits, REPL_MAX_DISCARD);
}

struct target_type repl_ingest_target = {
	.name = "repl-ingest",
	.version = {1, 0, 0},
	.features = DM_TARGET_SINGLETON,
	.module = THIS_MODULE,
	.ctr = ingest_ctr,
	.dtr = ingest_dtr,
	.map = ingest_map,
	.end_io = ingest_end_io,
	.resume = ingest_resume,
	.status = ingest_status,
	.iterate_devices = ingest_iterate_devices,
	.io_hints = ingest_io_hints,
};
